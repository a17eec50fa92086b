"""What sample.py refuses: settings that cannot be, or that it would ignore; models that do not write."""
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, mistake, run

from model import GPT, GPTConfig, save_checkpoint
from parts.sample.asking import read_prompts
from tokenizer import SPECIAL_TOKENS, Tokenizer


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """An untrained model for each objective, and a reward model."""
    folder = tmp_path_factory.mktemp('models')
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    for name in ('clm', 'mlm', 'span', 'rm'):
        (folder / name).mkdir()
        tokenizer.save(folder / name / 'tokenizer.json')
        more = {'reward_head': torch.zeros(1, 16)} if name == 'rm' else {'config': {'objective': name}}
        model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 0, 16))
        save_checkpoint(folder / name / 'best.pt', model, tokenizer_hash=tokenizer.hash, **more)
    return folder


@pytest.mark.parametrize('name, flags, words', [
    *((name, [f'--{flag}'], [flag]) for name in ('clm', 'mlm', 'span')
      for flag in ('top_p=0', 'temperature=-1')),
    ('span', ['--prompt=' + '<|mask|>' * 54], ['54 gaps']), ('rm', [], ['scores answers']),
    ('clm', [f'--num_samples={10 ** 20}'], ['[1, 10000]']), ('clm', ['--system=be brief'], ['--chat=True']),
    ('clm', ['--chat=True', '--num_samples=2'], ['num_samples=2']),
    ('clm', ['--chat=True', '--stop_at=x'], ["stop_at='x'"]), ('clm', ['--compare=x'], ['--serve=8000']),
    ('clm', ['--serve=0'], ['leave out --prompt']),
    ('clm', ['--serve=0', '--prompt=', '--chat=True', '--system=a'], ['leave out --chat']),
    ('clm', ['--prompt=', '--export=hf', '--serve=0'], ['leave out', '--serve']),
    ('clm', ['--prompt=', '--export=hf', '--dtype=bfloat16'], ['gguf-q8_0']),
    ('clm', ['--prompt=', '--export=hf', '--random_init=True'], ['--random_init']),
    ('clm', ['--prompt=' + 'x' * 90, '--chat=True', '--sweep=0,1'], ['the message has', 'context is 64'])])
def test_what_cannot_be_is_one_sentence(folder, name, flags, words):
    mistake(run('sample.py', f'--ckpt={folder}/{name}', '--prompt=a<|mask|>b', *flags), *words)


def test_prompts_in_another_encoding_are_one_sentence_and_a_bom_is_no_prompt(folder, tmp_path):
    (tmp_path / 'latin.txt').write_bytes(b'caf\xe9\n')
    mistake(run('sample.py', f'--ckpt={folder}/clm', f'--prompts={tmp_path}/latin.txt'), 'latin.txt', 'UTF-8')
    (tmp_path / 'p.jsonl').write_bytes('\ufeff{"prompt": "a\u2028b"}\r\n\r\n{"prompt": "c"}\r\n'.encode())
    assert read_prompts(str(tmp_path / 'p.jsonl')) == ['a\u2028b', 'c']


def test_a_narrow_terminal_shows_question_marks(folder):
    narrow = {**os.environ, 'PYTHONIOENCODING': 'ascii', 'PYTHONUTF8': '0'}
    result = subprocess.run([sys.executable, ROOT / 'sample.py', f'--ckpt={folder}/clm', '--prompt=é',
                             '--device=cpu'], capture_output=True, env=narrow)
    assert result.returncode == 0 and b'\n?' in result.stdout, result.stderr
