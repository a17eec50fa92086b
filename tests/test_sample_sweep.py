"""Several prompts and temperatures, the speed on stderr, a chat that ends at <|im_end|>."""
import json
import re

import pytest
import torch
from conftest import mistake, ok, run

from model import GPT, GPTConfig, save_checkpoint
from parts.sample.asking import read_prompts
from tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS)
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
    folder = tmp_path_factory.mktemp('models')
    for name, text, end in (('clm', 'abcdefgh', '<|endoftext|>'), ('chat', '\nok!', '<|im_end|>'),
                            ('span', 'ab', '<|endoftext|>')):
        (folder / name).mkdir()
        TOKENIZER.save(folder / name / 'tokenizer.json')
        save_checkpoint(folder / name / 'best.pt', chain(text, end), tokenizer_hash=TOKENIZER.hash,
                        config={'objective': 'span' if name == 'span' else 'clm'})
    (folder / 'prompts.txt').write_text('a\n\ncd\n', encoding='utf-8')
    (folder / 'prompts.jsonl').write_text('{"prompt": "a"}\n{"prompt": "cd", "id": 3}\n', encoding='utf-8')
    return folder


def sample(folder, name, *flags):
    return run('sample.py', f'--ckpt={folder}/{name}', '--device=cpu', '--max_new_tokens=30', *flags)


@pytest.mark.parametrize('file', ['prompts.txt', 'prompts.jsonl'])
def test_each_prompt_is_answered_at_each_temperature(folder, file):
    out = ok(sample(folder, 'clm', f'--prompts={folder}/{file}', '--sweep=0,1e-30,0.5', '--top_k=1'))
    blocks = [block.splitlines() for block in out.split('-' * 80 + '\n')[1:]]
    for block, prompt, rest in zip(blocks, ('a', 'cd'), ('bcdefgh', 'efgh'), strict=True):
        heads = [f'--- temperature {t}' for t in ('0', '1e-30', '0.5')]
        assert block == [prompt, *[line for head in heads for line in (head, rest)]]


def test_a_sweep_of_one_prompt_differs_where_the_temperature_matters(folder):
    flags = ['--prompt=a', '--sweep=0,40', '--num_samples=2', '--top_k=0']
    out = ok(sample(folder, 'clm', *flags))
    assert out.count('temperature 40') == 2 and out.count('bcdefgh\n') == 2      # at 0 only
    assert ok(sample(folder, 'clm', *flags)) == out                             # the seed decides


def test_a_chat_ends_at_im_end_and_so_does_each_prompt_of_a_file(folder):
    out = ok(sample(folder, 'chat', '--chat=True', '--prompt=hi', '--temperature=0'))
    assert out.splitlines()[-1] == 'ok!'                                        # 3 of 30 tokens
    out = ok(sample(folder, 'chat', '--chat=True', f'--prompts={folder}/prompts.txt', '--temperature=0'))
    assert len(re.findall(r'^ok!$', out, re.M)) == 2


CTRL_C = """import io, os, signal, sys
from parts.sample import asking
sys.stdin = io.StringIO('hi\\nhi\\n')
signal.signal(signal.SIGINT, signal.default_int_handler)
take = asking.Text.take
def take_and_press(text):
    piece = take(text)
    if text.text == 'ok':
        asking.Text.take = take
        os.kill(os.getpid(), signal.SIGINT)
    return piece
asking.Text.take = take_and_press
"""


def test_ctrl_c_ends_an_answer_and_not_the_chat(folder):
    result = run('sample.py', f'--ckpt={folder}/chat', '--device=cpu', '--chat=True', '--temperature=0',
                 before=CTRL_C)
    assert ok(result).splitlines()[-3:] == ['you> o', 'you> ok!', 'you> '] and result.stderr == ''


def test_the_speed_and_the_size_are_on_stderr(folder):
    result = sample(folder, 'clm', '--prompt=ab', '--temperature=0')
    form = r'^(\d+) tokens, ([\d.]+) ms each, float32 on cpu; ([\d.]+) MB on disk'
    found = re.search(form, result.stderr, re.M)
    assert int(found[1]) == 8 and float(found[2]) > 0       # the healed b, then c to h and the end
    size = (folder / 'clm' / 'best.pt').stat().st_size / 1e6
    assert float(found[3]) == pytest.approx(size, abs=0.06) and 'ms each' not in ok(result)


@pytest.mark.parametrize('name, flags, words', [
    ('clm', ['--sweep=0,hot'], ["sweep='0,hot'"]), ('clm', ['--sweep=0,-1'], ['>= 0', '0,0.5,1.0']),
 ('clm', ['--prompt=a', '--prompts=x'], ['one of --prompt']),
    ('clm', ['--prompts=nowhere.txt'], ['nowhere.txt']),
    ('span', ['--prompt=a<|mask|>', '--sweep=0,1'], ['gaps'])])
def test_what_cannot_be_is_one_sentence(folder, name, flags, words):
    mistake(sample(folder, name, *flags), *words)


def test_prompts_of_a_file(tmp_path):
    wrong = {'a.jsonl': '{"text": 3}\n', 'b.jsonl': 'no', 'c.txt': ' \n\n', 'd.jsonl': '[1]'}
    for name, content in wrong.items():
        (tmp_path / name).write_text(content, encoding='utf-8')
        with pytest.raises(ValueError, match=f'{name} must hold prompts'):
            read_prompts(str(tmp_path / name))
    (tmp_path / 'e.jsonl').write_text(json.dumps({'prompt': 'def f(x):\n    '}), encoding='utf-8')
    assert read_prompts(str(tmp_path / 'e.jsonl')) == ['def f(x):\n    ']
