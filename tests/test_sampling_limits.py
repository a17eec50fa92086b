"""Sampling at the limits of float32: a tiny temperature is the argmax, a huge one draws any token that is
allowed, and scores that are not numbers are one error, never a token."""
import math

import pytest
import torch
from conftest import mistake, ok, run

from model import GPT, GPTConfig, sample, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

LOGITS = torch.tensor([[0.5, 9.0, -1.0, 8.5, 0.0], [4.0, -math.inf, 3.0, 3.9, -math.inf]])
BEST = [1, 0]


@pytest.mark.parametrize('temperature', [0, 1e-300, 1e-40, 1e-20, 1e-6])
@pytest.mark.parametrize('top_k, top_p', [(None, None), (3, None), (None, 1e-320), (2, 0.5)])
def test_a_tiny_temperature_takes_the_most_probable_token(temperature, top_k, top_p):
    assert sample(LOGITS, temperature, top_k, top_p).tolist() == BEST


@pytest.mark.parametrize('top_p', [5e-324, 1e-320, 1e-40, 1e-9])
def test_a_tiny_top_p_keeps_the_most_probable_token(top_p):
    for seed in range(20):
        torch.manual_seed(seed)
        assert sample(LOGITS, 1.0, None, top_p).tolist() == BEST


@pytest.mark.parametrize('temperature', [1e6, 1e30, 1e300, 1.7e308])
def test_a_huge_temperature_takes_any_allowed_token(temperature):
    torch.manual_seed(0)
    drawn = torch.stack([sample(LOGITS, temperature) for _ in range(200)])          # (200, 2)
    assert set(drawn[:, 0].tolist()) == {0, 1, 2, 3, 4}
    assert set(drawn[:, 1].tolist()) == {0, 2, 3}           # the others are masked


@pytest.mark.parametrize('temperature', [0, 1e-40, 0.8, 1e300])
@pytest.mark.parametrize('row', [
    [math.nan] * 5, [1, 2, math.nan, 4, 5], [-math.inf] * 5, [1, 2, math.inf, 4, 5]])
def test_scores_that_are_not_numbers_are_an_error_and_not_a_token(row, temperature):
    with pytest.raises(ValueError, match='not finite.*earlier checkpoint'):
        sample(torch.tensor([LOGITS[0].tolist(), row]), temperature)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("it's a model")
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    tokenizer.save(folder / 'tokenizer.json')
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 0, 16))
    save_checkpoint(folder / 'best.pt', model, tokenizer_hash=tokenizer.hash)
    model.embedding.weight.data.fill_(math.nan)
    save_checkpoint(folder / 'nan.pt', model, tokenizer_hash=tokenizer.hash)
    return folder


@pytest.mark.parametrize('flag', ['--temperature=1e-40', '--top_p=1e-320'])
def test_the_script_writes_the_greedy_text_at_either_limit(folder, flag):
    flags = [f'--ckpt={folder}', '--prompt=def', '--max_new_tokens=20', '--device=cpu']
    text = lambda *more: ok(run('sample.py', *flags, *more)).split('-' * 80)[1]
    assert text(flag) == text('--temperature=0') and text(flag).startswith('\ndef')


@pytest.mark.parametrize('file, flag, words', [
    ('nan.pt', '--seed=1', ['not finite']), ('nan.pt', '--temperature=0', ['not finite']),
    ('best.pt', f'--seed={10 ** 22}', ['seed=', '[0, 2**32)']), ('best.pt', '--seed=-1', ['seed=-1']),
    ('best.pt', '--temperature=nan', ['temperature']), ('best.pt', '--temperature=inf', ['temperature'])])
def test_the_script_says_one_sentence(folder, file, flag, words):
    mistake(run('sample.py', f'--ckpt={folder}/{file}', '--prompt=a', '--device=cpu', flag), *words)
