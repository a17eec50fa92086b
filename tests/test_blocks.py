"""bench/blocks.py: the blocks that are compared with ours compute what they say, at the size they claim."""
import math
import sys

import pytest
import torch
from conftest import ROOT

import model

sys.path.append(str(ROOT / 'bench'))
import blocks  # noqa: E402

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
