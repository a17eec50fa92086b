"""sample.py: prompts and temperatures, a chat, the speed on stderr, what it refuses; gaps that are filled."""
import math
import random
import re
import types

import pytest
import torch
from accidents import before
from conftest import greedy, lift, mistake, ok, run, save_run

from model import GPT, GPTConfig
from extras import objectives
from tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS)
with_question, write, encode = lift('sample.py', 'with_question', 'write', 'encode')
V = TOKENIZER.vocab_size


def chain(text, end):
    """A model that knows one thing: which byte follows each byte of text, and `end` the last."""
    model = GPT(GPTConfig(V, 64, 1, 2, 0, V, tie_embeddings=False))
    ids = [*TOKENIZER.encode(text), TOKENIZER.special[end]]
    with torch.no_grad():
        for p in model.blocks.parameters():
            p.zero_()
        model.embedding.weight.copy_(torch.eye(V))
        model.head.weight.zero_()
        for a, b in zip(ids, ids[1:]):
            model.head.weight[b, a] = 5.0
    return model


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Models of texts, chats and gaps, one with weights that are not numbers, a reward model; and prompts."""
    folder = tmp_path_factory.mktemp("it's a model")
    nan = chain('ab', '<|endoftext|>')
    nan.embedding.weight.data.fill_(math.nan)
    for name, model, more in (('clm', chain('abcdefgh', '<|endoftext|>'), {'config': {'objective': 'clm'}}),
                              ('chat', chain('\nok!', '<|im_end|>'), {}), ('nan', nan, {}),
                              ('base', chain('\nok', '<|im_start|>'), {'config': {'objective': 'clm'}}),
                              ('span', chain('ab', '<|endoftext|>'), {'config': {'objective': 'span'}}),
                              ('rm', chain('ab', '<|endoftext|>'), {'reward_head': torch.zeros(1, V)})):
        save_run(folder / name, model, TOKENIZER, **more)
    (folder / 'prompts.txt').write_bytes(b'\xef\xbb\xbfcd\r\n\r\na\n')
    (folder / 'latin.txt').write_bytes(b'caf\xe9\n')
    (folder / 'empty.txt').write_bytes(b' \n\n')
    return folder


def sample(folder, name, *flags, **more):
    length = [] if '--export=hf' in flags or '--serve=0' in flags else ['--max_new_tokens=30']
    return run('sample.py', f'--ckpt={folder}/{name}', '--device=cpu', *length, *flags, **more)


def test_each_prompt_is_answered_at_each_temperature(folder):
    out = ok(sample(folder, 'clm', f'--prompts={folder}/prompts.txt', '--sweep=0,1e-30,0.5', '--top_k=1'))
    texts = re.findall(r'^--- temperature (\S+) -+\n(.*)$', out, re.M)
    assert texts == [(t, text) for text in ('cdefgh', 'abcdefgh') for t in ('0', '1e-30', '0.5')]


def test_a_chat_ends_at_im_end_and_with_a_base_model_there_is_a_note(folder):
    out = ok(sample(folder, 'chat', '--chat=True', '--prompt=hi', '--temperature=0'))
    assert out.splitlines()[-1] == 'ok!'                                        # 3 of 30 tokens
    out = ok(sample(folder, 'chat', '--chat=True', f'--prompts={folder}/prompts.txt', '--temperature=0'))
    assert len(re.findall(r'^ok!$', out, re.M)) == 2

    result = sample(folder, 'base', '--chat=True', '--prompt=hi', '--temperature=0')
    assert '\nok' in ok(result) and '<|' not in result.stdout and 'sft.py --init_from=' in result.stderr


CTRL_C = "import io, sys; sys.stdin = io.StringIO('hi\\nhi\\n')" + before('take a token', """
    if n == 1:
        raise KeyboardInterrupt""")


def test_ctrl_c_ends_an_answer_and_not_the_chat(folder):
    result = sample(folder, 'chat', '--chat=True', '--temperature=0', before=CTRL_C)
    assert ok(result).splitlines()[-3:] == ['you> o', 'you> ok!', 'you> '] and result.stderr == ''


def test_a_message_that_is_too_long_ends_no_chat_and_each_turn_draws_other_numbers(folder):
    typed = 'hi\\n' + 'x' * 900 + '\\nhi\\nhi\\n'
    seeds = before('throw dice', 'print(*arguments)')
    typing = f"import io, sys; sys.stdin = io.StringIO('{typed}')"
    result = sample(folder, 'chat', '--chat=True', before=typing + seeds)
    assert re.findall(r'1337 \d', ok(result)) == ['1337 1', '1337 2', '1337 3']
    assert result.stdout.count('shorten it') == 1


def test_a_chat_forgets_its_oldest_turns_but_no_system_message():
    roles = ('user', 'assistant')
    turns = [{'role': role, 'content': 12 * letter} for letter in 'abcdefgh' for role in roles]
    for begin in ([], [{'role': 'system', 'content': 's'}]):
        messages = with_question(TOKENIZER, [*begin, *turns], 'so?', 200)
        n = len(messages) - len(begin)
        question = {'role': 'user', 'content': 'so?'}
        assert messages == begin + turns[1 - n:] + [question] and n % 2     # a question is first
        assert 100 < len(TOKENIZER.render(messages, True)[0]) <= 150


def test_the_speed_and_the_size_are_on_stderr(folder):
    result = sample(folder, 'clm', '--prompt=ab', '--temperature=0')
    form = r'^tokens: (\d+), ([\d.]+) ms each, float32 on cpu; weights: ([\d.]+) MB'
    n, ms, mb = re.search(form, result.stderr, re.M).groups()
    assert int(n) == 8 and float(ms) > 0        # b again, because it may begin a longer token; the end
    size = (folder / 'clm' / 'best.pt').stat().st_size / 1e6
    assert float(mb) == pytest.approx(size, abs=0.06) and 'ms each' not in ok(result)
    assert result.stdout.startswith('ab')       # nothing but the text: --prompt_file=half.py > whole.py


def test_a_narrow_terminal_shows_question_marks(folder):
    narrow = "import sys; sys.stdout.reconfigure(encoding='ascii', errors='strict')"
    assert ok(sample(folder, 'clm', '--prompt=é', before=narrow)).startswith('?')


class Typist:
    """A model that wants to write these bytes, one a token."""
    embedding = types.SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, data):
        self.data = data

    def stream(self, idx, n, draw, stop):
        for t, byte in enumerate(self.data[:n]):
            yield draw(torch.nn.functional.one_hot(torch.tensor([byte]), V).float(), None, t)


BODY = r'(?<=\n)(?=[^\s#)\]}])'
TYPED = [       # what it writes, the prompt, ends, what is shown, why it ends
    ('a é 漢字 😀', 'hi', '', 'a é 漢字 😀', 'length'), ('a é', 'hi', 'END', 'a é', 'length'),
    ('a E ENEND b', 'hi', 'END', 'a E EN', 'stop'), ('a EN', 'hi', 'END', 'a EN', 'length'),
    ('a or story', 'hi', 'story|or', 'a ', 'stop'), ('ENDx', 'hi', 'END', '', 'stop'),
    ('x = 1\n  y\n\n# z\n)\ndef', 'hi', BODY, 'x = 1\n  y\n\n# z\n)\n', 'stop'),
    ('\n', 'f:\n', BODY, '', 'length'), ('\ndef', 'f:\n', BODY, '', 'stop')]


def test_pieces_split_no_character_and_show_nothing_of_an_end_or_of_a_token_that_is_written_again():
    best = lambda logits: logits.argmax(-1)
    for text, prompt, ends, shown, why in TYPED:
        asked = prompt if ends == BODY and prompt[-1] == '\n' else [{'role': 'user', 'content': prompt}]
        n = len(text.encode()) - isinstance(asked, str)         # its first token is the prompt's last, again
        steps = list(write(Typist(text.encode()), TOKENIZER, asked, n, best, ends))
        pieces, reasons = zip(*steps)
        assert ''.join(pieces) == shown and reasons == ('',) * (len(steps) - 1) + (why,), (text, steps)
        assert '\ufffd' not in ''.join(pieces)
    odd = [TOKENIZER.special['<|im_start|>'], 97, TOKENIZER.special['<|im_end|>'], 98]      # the first: never
    steps = list(write(Typist(odd), TOKENIZER, [], 9, best))
    assert [why for _, why in steps] == ['', '', 'stop'] and steps[1][0] == 'a' and '<' not in steps[0][0]


def test_of_several_ends_the_first_that_is_complete_counts_and_none_is_shown_in_part():
    """Against a slow version, which looks at each beginning of the text."""
    dice = random.Random(0)
    some = lambda most: ''.join(dice.choices('ab', k=dice.randint(1, most)))
    for _ in range(500):
        ends, text = [some(5) for _ in range(dice.randint(1, 4))], some(12)
        cuts = [min(at for end in ends if (at := text[:n].find(end)) >= 0)
                for n in range(len(text) + 1) if any(end in text[:n] for end in ends)]
        expected, shown = text[:cuts[0]] if cuts else text, ''
        best = lambda logits: logits.argmax(-1)
        steps = [*write(Typist(text.encode()), TOKENIZER, [], len(text), best, '|'.join(ends))]
        for piece, _ in steps:
            shown += piece
            assert expected.startswith(shown), (ends, text)
        assert (shown, steps[-1][1]) == (expected, 'stop' if cuts else 'length'), (ends, text)


def test_a_prompt_that_ends_inside_a_token_is_read_without_it():
    tokenizer = Tokenizer.train('def f(x):\n    return x\n' * 9, 330)
    ids, allowed, n_again = encode(tokenizer, 'def f(x):')
    whole = [*tokenizer.begin, *tokenizer.encode('def f(x):')]
    assert ids == whole[:-1] and b'def f(x):'.endswith(tokenizer.vocab[whole[-1]])
    assert n_again == len(tokenizer.vocab[whole[-1]])
    assert all(tokenizer.all_bytes[i].startswith(tokenizer.vocab[whole[-1]]) for i in allowed)
    assert encode(tokenizer, '') == (tokenizer.first, None, 0)
    assert encode(tokenizer, [{'role': 'user', 'content': 'x'}])[1:] == (None, 0)


# --- against one token at a time, without a cache -----------------------------------------------------------
PROMPT = 'def f7'


def texts_of(ckpt, *flags):
    """The texts that sample.py writes, with their prompts. Several have a line before each of them."""
    said = ok(run('sample.py', f'--ckpt={ckpt}', '--device=cpu', *flags))
    return [text.removesuffix('\n') for text in re.split('--- temperature [^ ]+ -+\n', said) if text]


def test_temperature_0_writes_the_most_probable_tokens_also_past_the_context(babbler):
    """And nothing of a text to stop at, though tokens cut it."""
    expected = greedy(babbler, PROMPT, 120)
    assert len(Tokenizer.load(babbler / 'tokenizer.json').encode(expected)) > 80      # the context is 32
    flags = [f'--prompt={PROMPT}', '--temperature=0', '--max_new_tokens=120']
    assert texts_of(babbler, *flags, '--seed=2') == [expected]
    assert texts_of(babbler, *flags, '--random_init=True') != [expected]
    stop = expected[len(PROMPT) + 21:][:5]
    before, _, _ = expected[len(PROMPT):].partition(stop)
    assert texts_of(babbler, *flags, f'--stop_at={stop}') == [PROMPT + before]


def test_samples_are_as_many_as_asked_and_follow_from_the_seed(babbler):
    flags = [f'--prompt={PROMPT}', '--num_samples=4', '--temperature=2', '--top_k=0', '--max_new_tokens=30']
    texts = texts_of(babbler, *flags)
    assert len(texts) == 4 == len(set(texts)) and texts_of(babbler, *flags[:1], *flags[2:]) == texts[:1]
    assert texts_of(babbler, *flags) == texts and texts_of(babbler, *flags, '--seed=2') != texts


def test_a_prompt_file_is_completed_character_for_character(babbler, tmp_path):
    for content in 'def f7(a, b):\n\treturn ', 'naïve 漢字 \n\n ', 'x' * 99:
        (tmp_path / 'prompt.py').write_text(content, encoding='utf-8')
        flags = [f'--prompt_file={tmp_path}/prompt.py', '--temperature=0', '--max_new_tokens=3']
        [text] = texts_of(babbler, *flags)
        assert text.startswith(content) and text == greedy(babbler, content, 3), content


# --- mistakes ---------------------------------------------------------------------------------------------
REFUSED = [         # model, flags, words of the sentence
    ('clm', '--sweep=0,-1', '0,0.5,1.0'), ('clm', "--sweep=(0,'hot')", 'temperatures >= 0'),
    ('clm', '--prompt=a --prompts=x', 'one of --prompt'), ('clm', '--prompts=nowhere.txt', 'nowhere.txt'),
    ('clm', f'--stop_at={"a" * 201}', 'at most 200'),
    ('clm', '--system=x --prompt=a', '--system needs --chat=True'),
    ('clm', '--prompts={}/latin.txt', 'UTF-8'), ('clm', '--prompts={}/empty.txt', 'one a line'),
    ('clm', '--sweep=0,1 --temperature=1', 'one of --sweep and --temperature'),
    ('span', '--prompt=a<|mask|> --sweep=0,1', 'gaps cannot'), ('rm', '--prompt=a', 'scores answers'),
    ('nan', '--export=hf', 'not finite'), ('clm', '--export=hf --seed=1', 'cannot use --seed'),
    ('chat', '--chat=True --num_samples=2', 'a talk cannot use --num_samples; leave it out'),
    ('clm', '--serve=0 --prompt=a', '--export=html cannot use --prompt'),
    ('clm', '--serve=0 --ckpt={}/clm,nowhere', 'nowhere'),
    ('clm', '--ckpt={}/clm,{}/clm', '--serve=8000'), ('span', '--serve=0', 'fills gaps; --serve'),
    ('span', '--export=hf', 'fills gaps; --serve'),
    ('clm', '--allow_code_execution=True', 'a text cannot use --allow_code_execution'),
    ('clm', '--ckpt=Who/Model-1B', 'hf download Who/Model-1B --local-dir=Model-1B'),
    ('clm', '--ckpt=out/nothing', 'run: python prepare.py && python train.py')]


def test_what_cannot_be_is_one_sentence(folder):
    for name, flags, words in REFUSED:
        flags = [flag.replace('{}', str(folder)) for flag in flags.split()]
        mistake(sample(folder, name, *flags), words)


# --- gaps ---------------------------------------------------------------------------------------------------
def test_spans_are_put_where_their_marks_stand_and_the_prompt_sees_itself_whole():
    """Whole models that fill masks and spans: tests/test_objectives.py."""
    span = [TOKENIZER.special[f'<|span_{i}|>'] for i in range(3)]
    inputs = []

    class Known(torch.nn.Linear):
        """A model whose most probable token is known, of each step."""
        config = types.SimpleNamespace(block_size=64)

        def forward(self, x, mask):
            inputs.append((x, mask))
            return torch.nn.functional.one_hot(torch.tensor([[answer[len(inputs) - 1]]]), V).float(), None

    answer = [97, 98, span[1], 99, span[2]]
    fill = lambda room: objectives.fill(Known(1, 1), TOKENIZER, 'x<|mask|>y<|mask|>', 'span', room,
                                        temperature=0)
    assert fill(40) == 'xabyc'
    x, mask = inputs[0]
    assert x.tolist() == [[120, span[0], 121, span[1], span[0]]]
    assert mask[0, 0, :4, :4].all() and not mask[0, 0, :4, 4].any()
    inputs.clear()
    assert fill(2) == 'xaby<|span_1|>'          # no room
    with pytest.raises(ValueError, match='2 gaps'):
        objectives.with_marks('<|mask|><|mask|>', Tokenizer.byte(['<|mask|>', '<|span_0|>']), 'span')
