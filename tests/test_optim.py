"""The learning rate; Muon, against torch's in bits and against singular values; who decays, at which rate."""
import math
import re

import pytest
import torch
from accidents import PLACES
from conftest import ROOT, lift, refused

from model import GPT, GPTConfig
from parts.train import optim

lr_at = lift('train.py', 'lr_at')
SHAPES = [(8, 8), (24, 8), (8, 24), (64, 32), (1, 5)]
NO_SCALER = torch.amp.GradScaler('cpu', enabled=False)


def exact(*expected):
    return pytest.approx(*expected, rel=1e-12)          # a handful of roundings in float64


# --- the learning rate --------------------------------------------------------------------------------------
def test_warm_up_is_linear_and_reaches_the_peak_with_its_last_step():
    rates = [lr_at(step, 100, 10, 3e-4, 3e-5) for step in range(10)]
    assert rates == exact([3e-5, 6e-5, 9e-5, 1.2e-4, 1.5e-4, 1.8e-4, 2.1e-4, 2.4e-4, 2.7e-4, 3e-4])
    assert lr_at(0, 100, 0, 1.0, 0.1) == 1.0            # without warm-up
    assert lr_at(5, 5, 5, 1.0, 0.1) == exact(1.0)       # all warm-up: the cosine has no length


def test_closed_form_at_the_landmarks_and_over_the_whole_schedule():
    at = {10: 1.0, 55: 0.55, 100: 0.1,                                  # start, middle and end of the cosine
          40: 0.1 + 0.9 * 0.75, 70: 0.1 + 0.9 * 0.25}                   # cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    for step, expected in at.items():
        assert lr_at(step, 100, 10, 1.0, 0.1) == exact(expected)
    wsd = [lr_at(step, 100, 10, 1.0, 0.1, 'wsd', 20) for step in (0, 9, 50, 80, 90, 100)]
    assert wsd == exact([0.1, 1.0, 1.0, 1.0, 0.55, 0.1])

    for max_steps, warmup, peak, low in ((100, 10, 1.0, 0.1), (50, 0, 6e-4, 6e-5), (7, 6, 1e-3, 0.0),
                                         (1, 0, 1.0, 0.5), (12, 12, 1.0, 0.1), (1, 1, 1.0, 0.1)):
        rates = [lr_at(step, max_steps, warmup, peak, low) for step in range(max_steps)]
        assert rates == [optim.cosine(step, max_steps, warmup, peak, low) for step in range(max_steps)]
        assert rates[:warmup] == exact([peak * (step + 1) / warmup for step in range(warmup)])
        for step, rate in enumerate(rates[warmup:]):
            angle = math.pi * step / (max_steps - warmup)
            assert rate == exact(low + (peak - low) * math.cos(angle / 2) ** 2)     # (1 + cos a) / 2


def test_what_is_not_set_follows_from_the_rest_and_what_does_not_fit_is_refused():
    ends = optim.schedule_ends
    for wsd in (False, True):
        assert ends(5, 5, 1.0, None, wsd) == (5, 0.1, 0)
        assert ends(200, 0.05, 1.0, 0.0, wsd)[:2] == (10, 0.0)      # 5 % of the steps
        assert [ends(200, 10, 1.0, 0.0, wsd, n)[2] for n in (0, 190)] == ([40, 190] if wsd else [0, 0])
    for arguments, words in (((5, 6, 1.0, None), '^warmup_steps=6 must be at most max_steps=5; set --'),
                             ((5, 5, 1.0, None, True, 1), 'decay_steps=1 .* --decay_steps=0'),
                             ((9, 1.5, 1.0, None), '^warmup_steps=1.5 .* a share of max_steps'),
                             ((5, 1, 1.0, 2.0), '^min_lr=2')):
        refused(words, ends, *arguments)


def test_a_warm_up_that_nobody_set_fits_into_a_run_of_any_length():
    for script in ('train', 'sft', 'dpo', 'rl'):
        text = (ROOT / f'{script}.py').read_text(encoding='utf-8')
        default = float(re.search(r'^warmup_steps: .* = (\S+)', text, re.M)[1])
        for max_steps in (1, 2, 10, 1000):
            assert optim.schedule_ends(max_steps, default, 1.0, 0.0)[0] <= 0.1 * max_steps


# --- Muon ---------------------------------------------------------------------------------------------------
def steps(make, n=5):
    """The parameters after n steps on the same gradients."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = make(params)
    for _ in range(n):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
    return params, optimizer


def test_in_bfloat16_it_is_torch_s_bit_for_bit_and_takes_over_its_state(monkeypatch):
    real = optim.orthogonal
    monkeypatch.setattr('.'.join(PLACES['orthogonal']), lambda g: real(g, torch.bfloat16))
    ours, mine = steps(lambda p: optim.Muon(p, 3e-3, 0.1))
    theirs, its = steps(lambda p: torch.optim.Muon(p, lr=3e-3, weight_decay=0.1,
                                                   adjust_lr_fn='match_rms_adamw'))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))

    _, other = steps(lambda p: optim.Muon(p, 1.0, 0.0), n=1)
    other.load_state_dict(its.state_dict())
    assert other.param_groups[0]['lr'] == 3e-3 and other.param_groups[0]['weight_decay'] == 0.1
    for a, b, c in zip(mine.state.values(), its.state.values(), other.state.values()):
        assert torch.equal(a['momentum_buffer'], b['momentum_buffer'])
        assert torch.equal(c['momentum_buffer'], b['momentum_buffer'])
    with pytest.raises(TypeError):          # a closure is refused, not ignored
        mine.step(lambda: 0)


def test_every_direction_of_the_update_is_about_as_long():
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(1)
            g = torch.randn(shape)
            update = optim.orthogonal(g[None], dtype)[0].float()
            s = torch.linalg.svdvals(update)            # Keller Jordan's coefficients leave 0.7 to 1.2
            assert update.shape == g.shape and s.min() > 0.3 and s.max() < 1.3, (shape, dtype)
            u, _, v = torch.linalg.svd(g, full_matrices=False)      # and it points where U V^T points
            assert ((u @ v) * update).sum() / (update.norm() * (u @ v).norm()) > 0.95, (shape, dtype)


# --- groups of parameters -----------------------------------------------------------------------------------
def value_of(optimizers, key):
    return {p: group[key] for o in optimizers for group in o.param_groups for p in group['params']}


def test_weight_decay_acts_on_matrices_only_and_the_embedding_has_its_own_rate_also_after_a_resume():
    """On the gain of a norm it would pull towards 0 what begins at 1; nor on the biases of Qwen2."""
    for kind, has_bias in (('adamw', False), ('muon', False), ('adamw', True), ('muon', True)):
        more = {'qkv_bias': True} if has_bias else {'qk_norm': True}
        model = GPT(GPTConfig(32, 8, 1, 2, 0, 8, tie_embeddings=False, **more))
        decay = value_of(optim.build(model, kind, 1e-2, (0.9, 0.95), 0.1, embedding_lr=3.0), 'weight_decay')
        for name, p in model.named_parameters():
            assert decay[p] == (0.1 if p.dim() == 2 else 0.0), (kind, name)
        assert len(decay) == len(list(model.parameters()))
    own = torch.nn.Sequential(torch.nn.Linear(8, 8))
    refused('matrices named blocks.*or use adamw', optim.build, own, 'muon', 1e-2, (0.9, 0.95), 0.1)

    for kind in ('adamw', 'muon'):
        model = GPT(GPTConfig(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=8))
        make = lambda scale: optim.build(model, kind, 1e-2, (0.9, 0.95), 0.1, embedding_lr=scale)
        optimizers = make(10.0)
        optim.set_lr(optimizers, 2e-2)
        rates = value_of(optimizers, 'lr')
        assert len(rates) == len(list(model.parameters()))
        for name, p in model.named_parameters():
            assert rates[p] == (0.2 if name == 'embedding.weight' else 0.02), name
            p.grad = torch.ones_like(p)
        optim.step(optimizers, NO_SCALER)
        again = make(10.0)
        optim.restore(again, NO_SCALER, {'optimizers': optim.states(optimizers), 'scaler': {}})
        optim.set_lr(again, 1e-2)
        assert {*value_of(again, 'lr').values()} == {0.01, 0.1}
        assert len(make(1.0)[0].param_groups) == 2      # as in the checkpoints of older runs


def test_update_ratio_is_the_change_of_the_weights_and_follows_the_rate():
    """Adam's first step moves every weight by the rate; w_down begins at 0.02 / sqrt(2 * 2 layers)."""
    for rate in (1e-3, 2e-3):
        torch.manual_seed(0)
        model, ids = GPT(GPTConfig(64, 32, 2, 2, 0, 32)), torch.randint(64, (4, 33))
        before = optim.probe(model).clone()
        model(ids[:, :-1], ids[:, 1:])[1].backward()
        optim.step(optim.build(model, 'adamw', rate, (0.9, 0.95), 0.0), NO_SCALER)
        assert optim.change(before, optim.probe(model)).item() == pytest.approx(rate / 0.01, rel=0.05)
