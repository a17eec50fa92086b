"""The learning rate; Muon, against torch's in bits; who decays, at which rate."""
import numpy as np
import pytest
import torch
from accidents import PLACES
from conftest import lift, ok, refused, series, state, train, write_bins
from feedback import expect

from model import GPT, GPTConfig
from parts.train import optim
from tokenizer import SPECIAL_TOKENS, Tokenizer

lr_at = lift('train.py', 'lr_at')
SHAPES = [(8, 8), (24, 8), (8, 24), (64, 32), (1, 5)]


def exact(*expected):
    return pytest.approx(*expected, rel=1e-12)          # a handful of roundings in float64


# --- the learning rate --------------------------------------------------------------------------------------


def landmark(expected, step, max_steps, warmup_steps, schedule='cosine', decay_steps=0):
    asked = f'lr_at({step=}, {max_steps=}, {warmup_steps=}, learning_rate=1.0, min_lr=0.1, {schedule=}'
    asked += f', {decay_steps=})' if decay_steps else ')'
    expect(asked, exact(expected), lr_at, step, max_steps, warmup_steps, 1.0, 0.1, schedule, decay_steps)


def test_the_schedule_at_its_landmarks():
    at = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.55, 100: 0.1,         # warm-up; middle and end of the cosine
          40: 0.1 + 0.9 * 0.75, 70: 0.1 + 0.9 * 0.25}                   # cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    for step, expected in at.items():
        landmark(expected, step, 100, 10)
        assert optim.cosine(step, 100, 10, 1.0, 0.1) == exact(expected)     # of sft.py, dpo.py and rl.py
    landmark(1.0, 0, 100, 0)                            # without warm-up
    landmark(1.0, 5, 5, 5)                              # all warm-up: the cosine has no length
    for step, expected in {0: 0.1, 9: 1.0, 50: 1.0, 80: 1.0, 90: 0.55, 100: 0.1}.items():
        landmark(expected, step, 100, 10, 'wsd', 20)


def test_what_is_not_set_follows_from_the_rest_and_what_does_not_fit_is_refused():
    ends = optim.schedule_ends
    assert ends(5, 5, 1.0, None) == (5, 0.1, 0) and ends(200, 0.05, 1.0, 0.0)[:2] == (10, 0.0)
    assert ends(1, 0.05, 1.0, 0.0)[0] == 0              # the default warm-up fits into any run
    assert [ends(200, 10, 1.0, 0.0, n)[2] for n in (0, 190)] == [40, 190]
    assert ends(10, 9, 1.0, 0.0)[2] == 1          # the default fall takes what the warm-up leaves
    for arguments, words in (((5, 6, 1.0, None), '^warmup_steps=6 must be at most max_steps=5; set --'),
                             ((5, 5, 1.0, None, 1), 'decay_steps=1 .* --decay_steps=0'),
                             ((9, 1.5, 1.0, None), '^warmup_steps=1.5 .* a fraction of max_steps'),
                             ((5, 1, 1.0, 2.0), '^min_lr=2')):
        refused(words, ends, *arguments)


# --- Muon ---------------------------------------------------------------------------------------------------
def steps(make):
    """The parameters after five steps on the same gradients."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = make(params)
    for _ in range(5):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
    return params


def test_in_bfloat16_it_is_torch_s_bit_for_bit_and_in_float32_up_to_bfloat16_s_digits(monkeypatch):
    real = optim.orthogonal
    monkeypatch.setattr('.'.join(PLACES['orthogonal']), lambda g: real(g, torch.bfloat16))
    ours = steps(lambda p: optim.Muon([{'params': p, 'use_muon': True}], lr=3e-3, weight_decay=0.1))
    theirs = steps(lambda p: torch.optim.Muon(p, lr=3e-3, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    for shape in SHAPES:                    # measured: 0.009 to 0.014, of entries up to 0.87
        g = torch.randn(1, *shape)
        fine, coarse = real(g, torch.float32), real(g, torch.bfloat16).float()
        torch.testing.assert_close(fine, coarse, atol=0.03, rtol=0)


# --- groups of parameters -----------------------------------------------------------------------------------
def test_weight_decay_acts_on_matrices_only_and_muon_on_those_of_the_blocks():
    """On the gain of a norm it would pull towards 0 what begins at 1; nor on the biases of Qwen2."""
    model = GPT(GPTConfig(32, 8, 1, 2, 0, 8, tie_embeddings=False, qkv_bias=True, qk_norm=True))
    opt = optim.build(model, 'muon', 1e-2, 0.1)
    group_of = {p: group for group in opt.param_groups for p in group['params']}
    for name, p in model.named_parameters():
        assert group_of[p]['weight_decay'] == (0.1 if p.dim() == 2 else 0.0), name
        assert group_of[p].get('use_muon', False) == (p.dim() == 2 and 'blocks' in name), name


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_so_it_is_in_a_run_where_the_embedding_has_its_own_rate_also_after_a_resume(tmp_path, kind):
    """Adam's first step moves every weight by the rate; w_down begins at 0.02 / sqrt(2 * 2 layers)."""
    tok = Tokenizer.byte(SPECIAL_TOKENS)
    data = write_bins(tmp_path / 'data', np.arange(2000, dtype=np.uint16) % 256, tok)
    flags = [f'--optimizer={kind}', '--embedding_lr=3', '--tie_embeddings=False', '--learning_rate=4e-3']
    for more in ['--max_steps=2'], ['--init_from=resume', '--max_steps=3']:
        ok(train(data, tmp_path / 'run', *flags, '--warmup_steps=1', '--min_lr=4e-3', *more))
        groups = state(tmp_path / 'run')['moments']['param_groups']
        found = {name: (group['lr'], group['weight_decay']) for group in groups for name in group['params']}
        assert found.keys() == state(tmp_path / 'run')['model'].keys()
        for name, settings in found.items():
            assert settings == exact((12e-3 if name == 'embedding.weight' else 4e-3,
                                      0.0 if 'norm' in name else 0.1)), name
    if kind == 'adamw':
        assert series(tmp_path / 'run', 'update_ratio')[0] == pytest.approx(0.4, rel=0.05)
