"""The advantages and the loss of rl.py: by hand, against their formulas in float64, and at their edges."""
import math

import numpy as np
import torch
from conftest import lift
from pytest import approx

advantages, policy_loss = lift('rl.py', 'advantages', 'policy_loss')


def slow(log_p, old, advantage, low, high, ref, kl_coef):
    """One token, in float64: its loss, its ratio, its KL."""
    ratio = math.exp(log_p - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    kl = math.exp(ref - log_p) - 1 - (ref - log_p)
    return -min(ratio * advantage, clipped * advantage) + kl_coef * kl, ratio, kl


def test_the_loss_is_its_formula_token_by_token():
    dice = np.random.default_rng(0)
    log_p, old, ref = (-dice.exponential(2, (6, 9)) for _ in range(3))
    log_p[0, 0], old[0, 0] = -60, -0.001                    # nearly forgotten
    log_p[1, 1], old[1, 1] = -0.001, -60                    # e^60 times as likely
    weights = np.array([1.0, -1.0, 0.5, -0.25, 0.0, 3.0])
    mask = dice.random((6, 9)) < 0.7
    mask[0, 0] = mask[1, 1] = True
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (log_p, old, weights)]

    for low, high, kl_coef in ((0.2, 0.2, 0), (0.2, 0.28, 0.1), (0, 0, 0), (1.0, 5.0, 2.0)):
        found = policy_loss(*tensors, torch.tensor(mask), low, high, torch.tensor(ref).float(), kl_coef)
        for i, j in np.ndindex(6, 9):
            want = slow(log_p[i, j], old[i, j], weights[i], low, high, ref[i, j], kl_coef)
            got = [each[i, j].item() for each in found]                 # losses, ratios, KL
            assert got == approx(want if mask[i, j] else (0, 0, 0), rel=2e-5, abs=1e-5), (low, high, i, j)


def test_what_the_mask_hides_has_no_gradient_whatever_stands_there():
    log_p = torch.tensor([[-1.0, -math.inf, math.nan]], requires_grad=True)
    found = policy_loss(log_p, torch.tensor([[-1.0, -math.inf, 0.0]]), torch.tensor([2.0]),
                        torch.tensor([[1, 0, 0]]), 0.2, 0.2, torch.zeros(1, 3), 0.5)
    found[0].sum().backward()
    assert [each[0, 1:].tolist() for each in found] == [[0, 0]] * 3
    assert log_p.grad[0, 0] != 0 and log_p.grad[0, 1:].tolist() == [0, 0]

    log_p = torch.zeros(2, 1, requires_grad=True)           # 500 nats above: e^500 is no float32
    found, *_ = policy_loss(log_p, log_p.detach() - 500, torch.tensor([-1.0, 0.0]), torch.ones(2, 1))
    found.sum().backward()
    assert found.isfinite().all() and log_p.grad.isfinite().all() and found[1] == log_p.grad[1] == 0


def test_no_update_gains_by_leaving_the_bounds_and_any_may_return():
    """With equal probabilities the gradient is -advantage, REINFORCE's."""
    for moved, advantage, moves in (
            (0.0, 1, True), (0.0, -1, True), (0.5, 1, False), (0.5, -1, True), (-0.5, 1, True),
            (-0.5, -1, False), (0.1, 1, True), (-0.1, -1, True)):
        log_p = torch.tensor([[-2.0 + moved]], requires_grad=True)
        losses, *_ = policy_loss(log_p, torch.tensor([[-2.0]]), torch.tensor([float(advantage)]),
                                 torch.ones(1, 1))
        losses.sum().backward()
        want = -advantage * math.exp(moved) if moves else 0
        assert log_p.grad.item() == approx(want, rel=1e-5), (moved, advantage)


def test_advantages_by_hand():
    """Also of rewards that float32 cannot tell apart."""
    assert advantages(torch.tensor([[1e9, 1e9 + 1]], dtype=torch.float64)).tolist() == [[-.5, .5]]
    groups = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 4]])
    assert advantages(groups).tolist() == [[.5, -.5, -.5, .5], [-1, -1, -1, 3]]
    scaled = advantages(torch.tensor([[1.0, 0, 0, 0], [.1] * 4]), scale=True)
    assert scaled[0].tolist() == approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], rel=1e-6)
    assert scaled[1].tolist() == [0] * 4        # equal rewards: exactly none
