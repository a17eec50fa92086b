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
    log_p, old, ref = (-dice.exponential(2, 54) for _ in range(3))
    log_p[0], old[0] = -60, -0.001                    # nearly forgotten
    log_p[1], old[1] = -0.001, -60                    # e^60 times as likely
    A = np.resize([1.0, -1.0, 0.5, -0.25, 0.0, 3.0], 54)
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (log_p, old, A)]

    for low, high, kl_coef in ((0.2, 0.2, 0), (0.2, 0.28, 0.1), (0, 0, 0), (1.0, 5.0, 2.0)):
        found = policy_loss(*tensors, low, high, torch.tensor(ref).float(), kl_coef)
        for i in range(54):
            want = slow(log_p[i], old[i], A[i], low, high, ref[i], kl_coef)
            got = [each[i].item() for each in found]                    # loss, ratio, KL
            assert got == approx(want, rel=2e-5, abs=1e-5), (low, high, i)
    loss, _, kl = policy_loss(*tensors)
    assert kl.tolist() == [0] * 54 and loss[4].item() == 0


def test_a_ratio_that_no_float32_holds_has_a_finite_loss_and_gradient():
    log_p = torch.zeros(2, requires_grad=True)              # 500 nats above
    found, *_ = policy_loss(log_p, log_p.detach() - 500, torch.tensor([-1.0, 0.0]))
    found.sum().backward()
    assert found.isfinite().all() and log_p.grad.isfinite().all() and found[1] == log_p.grad[1] == 0


def test_no_update_gains_by_leaving_the_bounds_and_any_may_return():
    """With equal probabilities the gradient is -advantage, REINFORCE's."""
    for moved, advantage, moves in (
            (0.0, 1, True), (0.0, -1, True), (0.5, 1, False), (0.5, -1, True), (-0.5, 1, True),
            (-0.5, -1, False), (0.1, 1, True), (-0.1, -1, True)):
        log_p = torch.tensor([-2.0 + moved], requires_grad=True)
        loss, *_ = policy_loss(log_p, torch.tensor([-2.0]), torch.tensor([float(advantage)]))
        loss.sum().backward()
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


def test_the_numbers_of_the_docstring_are_its_numbers():
    loss, ratio, _ = policy_loss(torch.log(torch.tensor([0.3, 0.3])), torch.log(torch.tensor([0.2, 0.2])),
                                 torch.tensor([1.0, -1.0]))
    assert ratio.tolist() == approx([1.5, 1.5]) and loss.tolist() == approx([-1.2, 1.5])
    p = torch.tensor([0.5, 0.5]).log().requires_grad_()
    loss, _, kl = policy_loss(p, p.detach(), torch.zeros(2), ref_log_p=torch.tensor([0.8, 0.2]).log(),
                              kl_coef=1.0)
    loss.sum().backward()
    assert kl.tolist() == approx([0.13, 0.32], abs=5e-3) and p.grad.tolist() == approx([-0.6, 0.6])
