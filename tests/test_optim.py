"""The learning rate; Muon, against torch's in bits; who decays, at which rate."""
import pytest
import torch
from accidents import PLACES, before
from conftest import lift, mistake, ok, series, state, train
from feedback import expect

from extras import muon

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
    landmark(1.0, 0, 100, 0)                            # without warm-up
    landmark(1.0, 5, 5, 5)                              # all warm-up: the cosine has no length
    for step, expected in {0: 0.1, 9: 1.0, 50: 1.0, 80: 1.0, 90: 0.55, 100: 0.1}.items():
        landmark(expected, step, 100, 10, 'wsd', 20)


def test_what_is_not_set_follows_from_the_rest_and_what_does_not_fit_is_refused(numbers, tmp_path):
    """Learning rates of runs: the default warm-up fits into any run; min_lr is a tenth; wsd falls in the last
    fifth."""
    def rates(name, *flags):
        base = '--eval_interval=100', '--save_interval=100', '--learning_rate=1', '--spike_z=0'
        ok(train(numbers, tmp_path / name, *base, *flags))
        return series(tmp_path / name, 'lr')
    assert rates('one', '--max_steps=1', '--warmup_steps=0.1') == exact([1.0])
    tenth = rates('tenth', '--max_steps=20', '--warmup_steps=0.1')
    assert tenth[:3] == exact([0.5, 1.0, 1.0]) and tenth[-1] == pytest.approx(0.1, abs=0.01)
    wsd = rates('wsd', '--max_steps=10', '--warmup_steps=2', '--schedule=wsd', '--min_lr=0')
    assert wsd == exact([0.5] + [1.0] * 8 + [0.5])              # the last is 1 of 2 steps from the end
    for flags, words in ((['--warmup_steps=13'], ['warmup_steps=13', 'max_steps=12']),
                         (['--schedule=wsd', '--warmup_steps=5', '--decay_steps=8'], ['decay_steps=8']),
                         (['--decay_steps=3'], ['decay_steps=3', '--schedule=wsd'])):
        mistake(train(numbers, tmp_path / 'no', *flags), *words)


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
    real = muon.orthogonal
    monkeypatch.setattr('.'.join(PLACES['orthogonal']), lambda g: real(g, torch.bfloat16))
    ours = steps(lambda p: muon.Muon([{'params': p, 'use_muon': True}], lr=3e-3, weight_decay=0.1))
    theirs = steps(lambda p: torch.optim.Muon(p, lr=3e-3, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    for shape in SHAPES:                    # measured: 0.009 to 0.014, of entries up to 0.87
        g = torch.randn(1, *shape)
        fine, coarse = real(g, torch.float32), real(g, torch.bfloat16).float()
        torch.testing.assert_close(fine, coarse, atol=0.03, rtol=0)


# --- groups of parameters -----------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_weight_decay_acts_on_matrices_only_and_the_embedding_has_its_own_rate_also_after_a_resume(
        numbers, tmp_path, kind):
    """On the gain of a norm it would pull towards 0 what begins at 1. A rate of 0.004 * 9 decays each weight
    by 3.6% a step. Without a gradient nothing else moves."""
    flags = [f'--optimizer={kind}', '--embedding_lr=3', '--tie_embeddings=False', '--learning_rate=4e-3',
             '--min_lr=4e-3', '--warmup_steps=1', '--save_interval=1', '--weight_decay=9', '--dtype=float32']
    still = before('clip', """
        arguments = [*arguments[0]], *arguments[1:]
        for p in arguments[0]:
            p.grad.zero_()""")
    for more in ['--max_steps=2'], ['--init_from=resume', '--max_steps=3']:
        ok(train(numbers, tmp_path / 'run', *flags, *more, before=still))
        after, earlier = (state(tmp_path / 'run', name)['model'] for name in ('last.pt', 'last-1.pt'))
        assert 'head.weight' in after and len(after) > 10
        for name, p in after.items():
            rate = 0 if p.dim() == 1 else 12e-3 if name == 'embedding.weight' else 4e-3
            torch.testing.assert_close(p, earlier[name] * (1 - 9 * rate), rtol=1e-6, atol=0, msg=name)


def test_adam_moves_every_weight_by_the_rate_and_the_embedding_by_its_own(numbers, tmp_path):
    """In its first step. Muon moves the blocks' matrices, whose entries then differ."""
    flags = ['--embedding_lr=3', '--tie_embeddings=False', '--learning_rate=4e-3', '--min_lr=4e-3',
             '--warmup_steps=1', '--weight_decay=0', '--dtype=float32', '--max_steps=1']
    for kind in 'adamw', 'muon':
        ok(train(numbers, tmp_path / kind, *flags, f'--optimizer={kind}'))
        after, earlier = (state(tmp_path / kind, name)['model'] for name in ('last.pt', 'last-1.pt'))
        for name, p in after.items():
            moved = (p - earlier[name]).abs()
            moved = moved[moved > 0].median().item()            # some tokens are in no batch
            if kind == 'adamw' or p.dim() == 1 or 'blocks' not in name:
                rate = 12e-3 if name == 'embedding.weight' else 4e-3
                assert moved == pytest.approx(rate, rel=0.02), name
            else:
                assert moved < 2e-3, name                       # RMS 0.2 times the rate
