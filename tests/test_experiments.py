"""bench/experiments.py and the blocks it compares: their arithmetic, and one of them at its smallest."""
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import model

sys.path.append(str(ROOT / 'bench'))
import blocks  # noqa: E402
import corpora  # noqa: E402
import experiments  # noqa: E402

CONFIG = model.GPTConfig(50, 16, 2, 4, 0, 32, 64)


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(params=[name for name in blocks.PATCHES if name != 'ours'])
def patched(request, monkeypatch):
    for old, new in blocks.PATCHES[request.param].items():
        monkeypatch.setattr(model, old, new)
    torch.manual_seed(0)
    return request.param, model.GPT(CONFIG)


def test_a_patched_model_has_the_shape_and_the_parameters_that_are_claimed(patched):
    name, network = patched
    more = {'layernorm': 5 * 32, 'learned': 16 * 32, 'gelu': 0, 'postnorm': 0}[name]
    C, F = 32, 64
    assert count(network) == 50 * C + 2 * (4 * C * C + 3 * C * F + 2 * C) + C + more
    idx = torch.randint(50, (3, 16))
    logits, loss = network(idx, torch.randint(50, (3, 16)))
    assert logits.shape == (3, 16, 50) and abs(loss.item() - math.log(50)) < 0.3
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_patched_model_is_causal_and_its_cache_changes_nothing(patched):
    network = patched[1].eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.2)           # so that greedy choices are clear
        idx = torch.randint(50, (2, 16))
        assert torch.allclose(network(idx)[0][:, :9], network(idx[:, :9])[0], atol=1e-4)
        out = network.generate(idx[:, :4], 10, temperature=0)
        for t in range(4, 14):
            assert (network(out[:, :t])[0][:, -1].argmax(-1) == out[:, t]).all()


def test_the_patched_parts_compute_their_formulas():
    x = torch.randn(2, 3, 32)
    norm = blocks.LayerNorm(32, 1e-6)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-5)
    block = blocks.PostNorm(CONFIG)
    y = block(x, *model.rope_table(8, 3, 1e4))
    assert torch.allclose(y.pow(2).mean(-1), torch.ones(2, 3), atol=1e-3)       # the stream is normalised
    gelu = blocks.GELU(CONFIG)
    inner = x @ gelu.w_up.weight.T
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    assert torch.allclose(gelu(x), inner @ gelu.w_down.weight.T, atol=1e-6)


def test_learned_positions_tell_positions_apart_and_nothing_else_does():
    network = blocks.LearnedPositions(CONFIG).eval()
    same = torch.full((1, 8), 7)
    with torch.no_grad():
        at_8 = network(same, positions=torch.arange(8, 16)[None])[0]
        assert not torch.allclose(network(same)[0], at_8)
        network.position.weight.zero_()
        logits = network(same)[0][0]                    # equal tokens without positions: equal everywhere
    assert torch.allclose(logits, logits[:1].expand(8, -1), atol=1e-5)


@pytest.mark.parametrize('low, b, alpha', [(1.5, 20.0, 0.3), (0.0, 6.0, 0.1), (2.0, 300.0, 0.75)])
def test_the_fit_recovers_the_constants_of_a_power_law(low, b, alpha):
    n = np.array([1e5, 2e5, 4e5, 8e5, 2e6])
    found = experiments.fit_power(n, low + b * n ** -alpha)
    assert found == pytest.approx((low, b, alpha), rel=0.02, abs=0.01)
    assert found[0] + found[1] * 4e6 ** -found[2] == pytest.approx(low + b * 4e6 ** -alpha, rel=1e-3)


def test_the_fit_never_has_a_negative_floor():
    n = np.array([1e4, 2e4, 4e4, 8e4, 1.6e5])
    low, b, alpha = experiments.fit_power(n, 10 - np.log(n) / 2)        # no power law has this shape
    assert low == 0 and b > 0 and alpha > 0


def test_exposure_by_hand():
    others = -np.arange(1.0, 8.0)                       # seven candidates: 8 ranks, 3 bits
    assert experiments.exposure(0.0, others) == 3       # the likeliest
    assert experiments.exposure(-1.5, others) == 2      # second of 8
    assert experiments.exposure(-3.5, others) == 1      # fourth
    assert experiments.exposure(-9.0, others) == 0      # the least likely
    assert experiments.exposure(-1.0, others) == 2      # a tie counts against it


def test_log_probs_are_sums_over_the_tokens_of_a_row():
    network = model.GPT(CONFIG).eval()
    rows = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]]
    for row, found in zip(rows, experiments.log_probs(network, rows)):
        p = network(torch.tensor([row]))[0][0].log_softmax(-1)
        assert found == pytest.approx(sum(p[i, token].item() for i, token in enumerate(row[1:])), abs=1e-4)


def test_interval_and_rise_by_hand():
    mean, half = experiments.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / math.sqrt(3), abs=1e-3))
    assert math.isnan(experiments.interval([1.0])[1])
    assert experiments.shown([1.0, math.inf]) == 'diverged in 1 of 2'
    falling = np.linspace(6, 4, 50)
    assert experiments.largest_rise(falling) == 0
    rise = experiments.largest_rise(np.r_[falling, np.full(20, 5.5)])
    assert rise == pytest.approx(5.5 - falling[-10:].mean())


def test_secrets_are_planted_as_often_as_said_and_have_a_form_that_is_hidden():
    from parts import clean
    texts = [f'text {i} ' + 'and words ' * 40 for i in range(300)]
    documents, secrets = corpora.plant(list(texts), 200, np.random.default_rng(0))
    assert len(secrets) == 6 and len({secret for _, secret in secrets.values()}) == 6
    for (way, k), (start, secret) in secrets.items():
        holding = [text for text in documents if start + secret in text]
        assert sum(text.count(secret) for text in documents) == len(holding) == k
        assert len(set(holding)) == (1 if way == 'copied' else k)       # what deduplication can find
        assert clean.hide_pii(start + secret)[0] == f'{start} <SSN>\n'


def test_copies_take_the_share_that_is_said():
    ids = [[i] * 10 for i in range(200)]
    for share, one, times in ((0, False, 1), (0.1, False, 2), (0.5, False, 2), (0.1, True, 11)):
        found, said = corpora.with_copies(ids, 1000, share, one)
        counts = np.bincount(found, minlength=200) / 10
        assert len(found) == 1000 and said == counts[0] == times
        assert (counts[counts > 0] - 1).sum() == share * 100


def call(*arguments):
    return subprocess.run([sys.executable, ROOT / 'bench/experiments.py', *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)


def test_the_names_are_listed_and_one_prints_its_table(data_dir, tmp_path):
    listed = call().stdout
    assert all(f'\n{name} ' in f'\n{listed}' for name in experiments.EXPERIMENTS)
    result = call('beta2', '--seeds=1', '--steps=2', f'--data={data_dir}', f'--out={tmp_path}')
    rows = [line for line in result.stdout.splitlines() if line.startswith('| ')]
    assert result.returncode == 0 and len(rows) == 1 + 3, result.stderr
    assert [row.split(' | ')[0] for row in rows[1:]] == ['| beta2 0.95', '| beta2 0.99', '| beta2 0.999']
    assert all(1 < float(row.split(' | ')[2]) < 9 for row in rows[1:])
    assert len([*tmp_path.glob('*/done')]) == 3
