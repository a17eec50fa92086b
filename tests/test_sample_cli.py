"""What sample.py refuses: settings that cannot be, or that it would ignore; models that do not write."""
import pytest
import torch
from conftest import mistake, run

from model import GPT, GPTConfig, save_checkpoint
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
    ('clm', ['--chat=True', '--stop_at=x'], ["stop_at='x'"])])
def test_what_cannot_be_is_one_sentence(folder, name, flags, words):
    mistake(run('sample.py', f'--ckpt={folder}/{name}', '--prompt=a<|mask|>b', *flags), *words)
