"""The plan's arithmetic against sums by hand: Chinchilla's tokens, the cache of grouped heads, layers
that are shared out."""
import dataclasses
import json

import pytest

from model import GPTConfig
from parts.train.planner import model_parallel, print_tokens, show

shape = lambda *sizes: dataclasses.asdict(GPTConfig(*sizes).filled())
SETTINGS = dict(T=1024, batch=512, micro=4, steps=50_000, data='nowhere/meta.json')
CODEPARROT = shape(32768, 1024, 48, 25, 0, 1600)


def said(capsys, where, config, **settings):
    show(where, config, **SETTINGS | settings)
    return capsys.readouterr().out


@pytest.mark.parametrize('billions, trained_on, optimal, verdict', [
    (7, 140e9, '140,000,000,000', 'about compute-optimally trained'),
    (65, 1.4e12, '1,300,000,000,000', 'about compute-optimally trained'),       # 21.5 a parameter: LLaMA
    (175, 300e9, '3,500,000,000,000', 'under-trained'),                         # 1.7 a parameter: GPT-3
    (8, 15e12, '160,000,000,000', 'over-trained')])
def test_chinchilla_is_20_tokens_a_parameter(capsys, billions, trained_on, optimal, verdict):
    n = billions * 10 ** 9
    print_tokens(n, int(trained_on), None)
    out = capsys.readouterr().out
    assert verdict in out and f'{optimal} would be compute-optimal' in out
    assert f'the plan has {trained_on / 20 / n:.3g} times that' in out and 'at hand' not in out


def test_the_tokens_at_hand_are_compared_with_20_a_parameter_and_give_the_epochs(tmp_path, capsys):
    (tmp_path / 'meta.json').write_text(json.dumps({'vocab_size': 256, 'tokens': {'train': 1_003_854}}))
    nano = shape(256, 512, 6, 8, 0, 256, 768)
    settings = dict(data=f'{tmp_path}/meta.json', T=512, batch=32, steps=10_000)
    out = said(capsys, '1xH100', nano, **settings)
    share = 1_003_854 / (20 * 5_180_672)
    assert f'1,003,854 at hand, {share:.3g} times that: 163.21 epochs' in out and f'{share:.3g}' == '0.00969'


@pytest.mark.parametrize('n_head, n_kv_head, saved', [
    (12, 12, '0%'), (12, 4, '67%'), (16, 2, '88%'), (8, 1, '88%')])
def test_the_cache_is_two_vectors_a_layer_and_head_and_groups_save_the_rest(capsys, n_head, n_kv_head, saved):
    config = shape(32768, 1024, 12, n_head, n_kv_head, 768)
    per_token = sum(2 * 2 * (768 // n_head) for _ in range(12) for _ in range(n_kv_head))   # k, v; bfloat16
    out = said(capsys, '8xH100', config)
    assert f'KV cache: {per_token:,} bytes a token, {per_token * 1024 / 1e6:,.1f} MB for 1,024' in out
    assert f'{n_kv_head} of {n_head} heads have one: saves {saved}' in out


def test_layers_shared_out_by_hand():
    config = shape(32768, 1024, 4, 4, 0, 256)
    cut, boundary, idle = model_parallel(config, 4, 8, 1000)
    one = 1000 * 256 * 2                                        # bfloat16 activations between two layers
    ring = 2 * 3 * (one / 4)                                    # two phases of n - 1 beats, a quarter in each
    assert cut == pytest.approx(4 * 4 * ring) and boundary == 2 * one
    # a schedule drawn as a table: 4 stages, 8 micro-batches, forward takes one beat on each stage
    beats = {(stage, micro + stage) for stage in range(4) for micro in range(8)}
    length = 1 + max(beat for _, beat in beats)
    assert idle == pytest.approx(1 - len(beats) / (4 * length)) == pytest.approx(3 / 11)
    assert model_parallel(config, 2, 1, 1000)[2] == 0.5
    assert model_parallel(config, 1, 5, 1000) == (0, 2 * one, 0)


def test_the_plan_prints_them(capsys):
    out = said(capsys, '16xA100', CODEPARROT)
    cut, boundary, idle = model_parallel(CODEPARROT, 16, 128, 512 * 1024)
    assert f'would send {cut / 1e9:.2f}; a pipeline {boundary / 1e9:.2f} over each' in out
    assert f'wait {idle:.1%} of the time (128 parts)' in out and idle == 15 / 143
    assert 'not built here' not in said(capsys, '1xA100', CODEPARROT)


@pytest.mark.parametrize('where, words', [
    ('16xA100', '36.96 hours at 40 % of the peak, $887.12, if one costs $1.5 an hour: affordable, if'),
    ('1xL4', 'not affordable: more than a month')])
def test_one_line_says_days_price_and_whether_that_is_affordable(capsys, where, words):
    line, = (line for line in said(capsys, where, CODEPARROT).splitlines() if 'affordable' in line)
    assert words in line
