"""The advantages and the loss of rl.py against their formulas in float64, at their edges, and by hand."""
import math

import numpy as np
import pytest
import torch
from conftest import lift

advantages, policy_loss = lift('rl.py', 'advantages', 'policy_loss')


def slow(log_p, old, advantage, low, high, ref=None, kl_coef=0.0):
    """One token, in float64."""
    ratio = math.exp(log_p - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    loss = -min(ratio * advantage, clipped * advantage)
    kl = 0.0 if ref is None else math.exp(ref - log_p) - 1 - (ref - log_p)
    return loss + kl_coef * kl, ratio, kl


@pytest.mark.parametrize('low, high, kl_coef', [(0.2, 0.2, 0), (0.2, 0.28, 0.1), (0, 0, 0), (1.0, 5.0, 2.0)])
def test_the_loss_is_its_formula_token_by_token(low, high, kl_coef):
    dice = np.random.default_rng(0)
    log_p, old, ref = (-dice.exponential(2, (6, 9)) for _ in range(3))
    log_p[0, 0], old[0, 0] = -60, -0.001                    # nearly forgotten
    log_p[1, 1], old[1, 1] = -0.001, -60                    # e^60 times as likely
    weights = np.array([1.0, -1.0, 0.5, -0.25, 0.0, 3.0])
    mask = dice.random((6, 9)) < 0.7
    mask[0, 0] = mask[1, 1] = True
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (log_p, old, weights)]
    tensors += [torch.tensor(mask), low, high, torch.tensor(ref).float(), kl_coef]
    losses, ratios, kl = policy_loss(*tensors)
    for i in range(6):
        for j in range(9):
            want = slow(log_p[i, j], old[i, j], weights[i], low, high, ref[i, j], kl_coef)
            want = want if mask[i, j] else (0, 0, 0)
            got = losses[i, j].item(), ratios[i, j].item(), kl[i, j].item()
            assert got == pytest.approx(want, rel=2e-5, abs=1e-5), (i, j)      # float32: 60 has 4e-6


def test_what_the_mask_hides_has_no_gradient_whatever_stands_there():
    log_p = torch.tensor([[-1.0, -math.inf, math.nan]], requires_grad=True)
    losses, ratios, kl = policy_loss(log_p, torch.tensor([[-1.0, -math.inf, 0.0]]), torch.tensor([2.0]),
                                     torch.tensor([[1, 0, 0]]), 0.2, 0.2, torch.zeros(1, 3), 0.5)
    losses.sum().backward()
    assert losses[0, 1:].tolist() == ratios[0, 1:].tolist() == kl[0, 1:].tolist() == [0, 0]
    assert log_p.grad[0, 0] != 0 and log_p.grad[0, 1:].tolist() == [0, 0]


@pytest.mark.parametrize('moved, advantage, moves', [
    (0.0, 1, True), (0.0, -1, True), (0.5, 1, False), (0.5, -1, True), (-0.5, 1, True), (-0.5, -1, False),
    (0.1, 1, True), (-0.1, -1, True)])
def test_no_update_gains_by_leaving_the_bounds_and_any_may_return(moved, advantage, moves):
    """With equal probabilities the gradient is -advantage, REINFORCE's."""
    log_p = torch.tensor([[-2.0 + moved]], requires_grad=True)
    weight = torch.tensor([float(advantage)])
    losses, *_ = policy_loss(log_p, torch.tensor([[-2.0]]), weight, torch.ones(1, 1))
    losses.sum().backward()
    want = -advantage * math.exp(moved) if moves else 0
    assert log_p.grad.item() == pytest.approx(want, rel=1e-5)


def test_an_overflowing_ratio_stays_finite_and_a_group_without_advantage_stays_zero():
    log_p = torch.tensor([[-0.0], [-0.0]], requires_grad=True)
    old = torch.tensor([[-500.0], [-500.0]])
    losses, *_ = policy_loss(log_p, old, torch.tensor([-1.0, 0.0]), torch.ones(2, 1))
    losses.sum().backward()
    assert losses.isfinite().all() and log_p.grad.isfinite().all() and losses[1] == 0 and log_p.grad[1] == 0


def test_the_kl_estimate_is_never_negative_and_its_mean_is_the_kl():
    p, q = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.4, 0.3, 0.3]).log()
    x = torch.multinomial(p.exp(), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    now, mask = p[x][None], torch.ones(1, len(x))
    kl = policy_loss(now, now, torch.zeros(1), mask, 0.2, 0.2, q[x][None], 1.0)[2]
    assert (kl >= 0).all() and kl.mean().item() == pytest.approx((p.exp() * (p - q)).sum().item(), abs=0.005)


def test_advantages_by_hand():
    found = advantages(torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 4]]))
    assert found.tolist() == [[.5, -.5, -.5, .5], [-1, -1, -1, 3]]
    scaled = advantages(torch.tensor([[1.0, 0, 0, 0]]), scale=True)
    assert scaled[0].tolist() == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], rel=1e-6)


@pytest.mark.parametrize('value', [0.0, 0.1, 1 / 3, -7.7, 1e30, 1e-30])
@pytest.mark.parametrize('scale', [False, True])
def test_equal_rewards_have_exactly_no_advantage(value, scale):
    rewards = torch.tensor([[value] * 7, [value] * 6 + [value + 1]])
    got = advantages(rewards, scale)
    assert got.dtype == torch.float32 and got[0].tolist() == [0] * 7 and got.isfinite().all()
    assert abs(got[1].sum().item()) < 1e-5
