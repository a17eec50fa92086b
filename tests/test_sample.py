"""sample.py: a text, where it ends, a chat, what it refuses."""
import os
import pty
import random
import re
import readline
import select
import signal
import sys
import time

import pytest
import torch
from accidents import before
from common import load_model
from conftest import ROOT, each_is_a_mistake, fill, lift, ok, run, save_run, shared_fixture, slow
from test_streaming import say

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Answer, Tokenizer

TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS)
shorten = lift('sample.py', 'shorten')
V = TOKENIZER.vocab_size


def chain(text, end, block_size=64):
    """A model that knows one thing: which byte follows each byte of text, and `end` the last."""
    model = GPT(GPTConfig(V, block_size, 1, 2, 0, V, tie_embeddings=False))
    ids = [*TOKENIZER.encode(text), TOKENIZER.special[end]]
    with torch.no_grad():
        for p in model.blocks.parameters():
            p.zero_()
        model.embedding.weight.copy_(torch.eye(V))
        model.head.weight.zero_()
        model.head.weight[ids[1:], ids[:-1]] = 5.0
    return model


@shared_fixture
def folder(tmp_path_factory):
    """Models of texts, chats and gaps, a reward model, and a file that is not UTF-8."""
    folder = tmp_path_factory.mktemp("it's a model")
    text = chain('abcdefgh', '<|endoftext|>')
    save_run(folder / 'clm', text, TOKENIZER, config={'objective': 'clm'})
    save_run(folder / 'span', text, TOKENIZER, config={'objective': 'span'})
    save_run(folder / 'rm', text, TOKENIZER, reward_head=torch.zeros(1, V))
    save_run(folder / 'chat', chain('\nok!', '<|im_end|>'), TOKENIZER, config={'stage': 'sft'})
    save_run(folder / 'far', chain('\nok!', '<|im_end|>', 6200), TOKENIZER)
    (folder / 'latin.txt').write_bytes(b'caf\xe9\n')
    return folder


def sample(folder, name, *flags, **more):
    return run(f'sample.py --ckpt={folder}/{name} --device=cpu', *flags, **more)


# --- a text ---------------------------------------------------------------------------------------
def texts_of(result):
    """The texts that were written, with their prompts. Several have a line before each of them."""
    parts = re.split('--- \\d+ of \\d+ ---\n', ok(result))
    return [text.removesuffix('\n') for text in parts if text]


@torch.no_grad()
def alone(model, tokenizer, prompt, n, draw=torch.argmax):
    """The answer to a text or to messages. Independent: afresh for each token, one row, no cache.
    The last token of a text may become a longer one (healing)."""
    again = b''
    if isinstance(prompt, list):
        ids = tokenizer.render(prompt, True)[0]
    else:
        ids = [*tokenizer.begin, *tokenizer.encode(prompt)]
        if len(ids) > 1:
            again = tokenizer.vocab[ids.pop()]
    never = tokenizer.suppressed_tokens()
    shut = never
    if again:       # a longer token, but none of the special ones, whose names begin with <
        shut = [not token.startswith(again) or id in tokenizer.special.values()
                for id, token in enumerate(tokenizer.all_bytes)]
    written = b''
    for _ in range(n + (again != b'')):
        logits = model(torch.tensor([ids[-model.config.block_size:]]))[0][0, -1]
        logits[shut] = -torch.inf
        id = int(draw(logits))
        if id in tokenizer.stop:
            break
        ids, written, shut = ids + [id], written + tokenizer.decode_bytes([id]), never
    return written[len(again):].decode(errors='replace')


def test_temperature_0_writes_the_most_probable_tokens_also_past_the_context(babbler):
    """A file to its last newline, and nothing of a text to stop at, though tokens cut it."""
    model, tokenizer = load_model(babbler)
    for content in 'naïve 漢字 \n\n', 'def f7(a, b):\n\treturn ', 'def f7':
        fill({'prompt.py': content})
        flags = '--prompt=@prompt.py --temperature=0 --max_new_tokens=50'
        expected = alone(model.eval(), tokenizer, content, 50)          # the context is 32
        assert texts_of(sample(babbler, '', flags, '--seed=2')) == [content + expected]
    stop = expected[21:26]
    result = sample(babbler, '', flags, f'--stop_at={stop}')
    assert texts_of(result) == [content + expected.partition(stop)[0]]
    # a shell passes \\n as it was typed
    lines = sample(babbler, '', '--prompt=a --temperature=2 --max_new_tokens=99 --seed=3')
    stopped = sample(babbler, '', r'--prompt=a --temperature=2 --max_new_tokens=99 --seed=3 --stop_at=\n')
    assert '\n' in texts_of(lines)[0] and texts_of(stopped) == [texts_of(lines)[0].partition('\n')[0]]


def test_samples_are_as_many_as_asked_and_follow_from_the_seed(babbler):
    for prompt in 'a, b ', '~/x, ~':            # as it was typed
        flags = f'--prompt={prompt} --temperature=2 --top_k=0 --max_new_tokens=30'
        write = lambda *more: texts_of(sample(babbler, '', flags, *more))
        texts = write('--num_samples=4')
        assert len(texts) == 4 == len({*texts}) and write() == texts[:1] != write('--seed=2')
        assert all(text.startswith(prompt) for text in texts)


# --- what is shown, and where a text ends ---------------------------------------------------------
def pieces(prompt, ids, ends=''):
    answer = Answer(TOKENIZER, prompt, len(ids) - 1, ends)      # a text is healed: one more
    for id in ids:
        if answer.remaining:
            yield answer.append(id)


def test_pieces_split_no_character_and_repeat_nothing_of_the_prompt():
    """The prompt's last token is written again, and each byte is a token."""
    ids = [*TOKENIZER.encode('aé漢b'), TOKENIZER.special['<|endoftext|>']]
    assert [*pieces('a', ids)] == ['', '', 'é', '', '', '漢', 'b', '']
    assert [*pieces('a', ids[:5])] == ['', '', 'é', '', '\ufffd']


def test_nothing_of_an_end_is_shown():
    """Against a slow version, which looks at each beginning of the text, and, as
    --stop_at=function does, at the prompt's last character."""
    dice = random.Random(0)
    for _ in range(2000):
        ends = dice.choice([r'(?<=\n)(?=[^\s#)\]}])', *dice.choices(['a', 'ab', 'ba+b', 'aab'])])
        text = ''.join(dice.choices('aabb\n #', k=dice.randint(1, 9)))
        found = re.compile(ends).search('\n' + text, 1)
        expected, shown = text[:found.start() - 1] if found else text, ''
        for piece in pieces('\n', TOKENIZER.encode('\n' + text), ends):
            shown += piece
            assert expected.startswith(shown), (ends, text)
        assert shown == expected, (ends, text)


# --- a chat ---------------------------------------------------------------------------------------
def talk(folder, lines, then=''):
    typing = f'import io, sys; sys.stdin = io.StringIO({lines!r})'
    return sample(folder, 'chat', '--chat=True --temperature=0', before=typing + then)


def test_ctrl_c_ends_an_answer_and_a_long_message_is_told_and_neither_ends_the_chat(folder):
    """Each answer draws other numbers."""
    interrupted = before('take a token', 'if n == 1: raise KeyboardInterrupt')
    result = talk(folder, 'hi\nhi\n', interrupted)
    assert ok(result).splitlines()[-3:] == ['you> o', 'you> ok!', 'you> '] and result.stderr == ''
    result = talk(folder, f'hi\n{"x" * 900}\n\nhi\n', before('throw dice', 'print(*arguments)'))
    assert re.findall(r'1337 \d', ok(result)) == ['1337 1', '1337 3']
    assert result.stdout.count('shorten it') == 1


# What a terminal sends, with pauses where # stands: whole; without a newline behind it; in the brackets
# that readline asks for; slowly, with a pause behind an empty line; with a long line.
TEXT = 'one\n\n\ntouch left\n\ttwo'
PASTES = 'TEXT\n|TEXT#\n|\x1b[200~TEXT\n\x1b[201~#\n|\n#TEXT\n|LONG\n\nTEXT\n'.replace(
    'TEXT', TEXT).replace('LONG', 4500 * 'x').split('|')
TELL = """import runpy, sys, tokenizer
real = tokenizer.Tokenizer.render
def render(self, messages, *how, **more):
    print(f"<{messages[-1]['content']!r}>")
    return real(self, messages[-1:], *how, **more)
tokenizer.Tokenizer.render = render
sys.argv[0] = 'sample.py'
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


@slow
@pytest.mark.skipif('GNU' not in readline.__doc__, reason='needs GNU readline')
def test_a_paste_is_one_message_and_the_shell_gets_nothing_of_it(folder):
    """In a terminal of its own, under a shell that would run what is left."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.environ |= {'PYTHONPATH': str(ROOT), 'TELL': TELL}
        os.execvp('sh', ['sh', '-c', f'{sys.executable} -c "$TELL" {ROOT}/sample.py --ckpt=far '
                         '--chat=True --temperature=0 --device=cpu; echo SHELL; exec sh'])

    def read_to(end, seconds):
        seen, deadline = b'', time.monotonic() + seconds
        while not re.search(end, seen) and select.select(
                [terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            seen += os.read(terminal, 65536)
        return seen

    try:
        read_to(b'you> ', 90)
        for paste in PASTES:
            for piece in paste.split('#'):
                os.write(terminal, piece.encode())
                time.sleep(0.6)
            message = re.sub('\x1b\\[20.~|#', '', paste).strip()
            seen = read_to(b'(?s)ok!.*you> ', 30)
            assert {*re.findall(b'<(\'.*\')>', seen)} == {repr(message).encode()}, seen
        os.write(terminal, b'\n')           # the end of the chat
        assert b'SHELL' in read_to(b'SHELL', 20) and b'ok!' not in read_to(b'nothing more', 0.5)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    assert not (folder / 'left').exists()


def test_a_chat_forgets_its_oldest_turns_but_no_system_message():
    turns = [say(role, 12 * letter) for letter in 'abcdefgh' for role in ('user', 'assistant')]
    for begin in [], [say('system', 's')]:
        messages = shorten(TOKENIZER, [*begin, *turns, say('user', 'so?')], 200)
        n = len(messages) - len(begin)
        assert messages == begin + turns[1 - n:] + [say('user', 'so?')]
        assert n % 2        # a question is first
        assert 100 < len(TOKENIZER.render(messages, True)[0]) <= 150


# --- mistakes -------------------------------------------------------------------------------------
REFUSED = """
--ckpt=clm --prompt=@dataclass => save it in a file, and pass --prompt=@FILE
--ckpt=clm --prompt=@latin.txt => @latin.txt must name a file of UTF-8 text
--ckpt=clm --system=x --prompt=a => --system needs --chat=True
--ckpt=span --prompt=a => python -m extras.models.fill
--ckpt=rm --prompt=a => reward model
--ckpt=clm --chat=True => a base model & python sft.py --init_from=
--ckpt=clm --serve=0 => no setting has this name; closest: seed
--ckpt=clm --prompts=x => closest: prompt
--ckpt=clm --ckpt=out/nothing => out/nothing does not exist & make one: python train.py
"""


def test_what_cannot_be_is_one_sentence(folder):
    each_is_a_mistake(REFUSED, 'sample.py --device=cpu', cwd=folder)
    for name, is_told in ('far', True), ('chat', False):        # far: nobody says what it was taught
        result = sample(folder, name, '--chat=True --prompt=a --max_new_tokens=9')
        assert ('prompts use ChatML' in result.stderr) == is_told and ok(result)
    result = sample(folder, 'clm', '--prompt=' + 'ab ' * 999, '--max_new_tokens=2')
    assert 'the model reads only the last' in result.stderr and ok(result)
