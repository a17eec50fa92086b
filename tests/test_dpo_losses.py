"""The losses of dpo.py: by hand, against their papers' formulas in float64, and at their edges."""
import itertools
import math

import torch
from conftest import lift, table
from pytest import approx

preference_loss = lift('dpo.py', 'preference_loss')
# log p of chosen and rejected, of the policy and of the reference; their lengths
NUMBERS = '''
-10 -12 -11 -11 5 4
-7.5 -3.25 -7 -4 3 9
-1 -80 -60 -2 4 40
-4 -4 -4 -4 2 2'''
NUMBERS = [[*map(float, row)] for row in table(NUMBERS, None)]
# the first of them by hand, as in the docstring: the rewards and the loss
BY_HAND = '''
dpo 0.1 -0.1 0.598
ipo 0.1 -0.1 9
kto 0.1 -0.1 0.475
orpo -0.2 -0.3 2.029
simpo -0.2 -0.3 1.241
rm -10 -12 0.127'''
BY_HAND = {kind: [*map(float, row)] for kind, *row in table(BY_HAND, None)}


def slow(pc, pr, rc, rr, nc, nr, kind, beta, gamma=1.0, kl=0.0):
    """The papers' formulas, in float64, one pair at a time."""
    s = torch.sigmoid
    odds = lambda m: m.exp() / (1 - m.exp())
    gain = pc - rc - (pr - rr)
    return {'dpo': lambda: -s(beta * gain).log(),
            'ipo': lambda: (gain - 1 / (2 * beta)) ** 2,
            'kto': lambda: (1 - s(beta * (pc - rc) - kl) + 1 - s(kl - beta * (pr - rr))) / 2,
            'orpo': lambda: -pc / nc - beta * s((odds(pc / nc) / odds(pr / nr)).log()).log(),
            'simpo': lambda: -s(beta * (pc / nc - pr / nr) - gamma).log(),
            'rm': lambda: -s(pc - pr).log()}[kind]()


def loss(numbers, kind, beta, **more):
    """preference_loss of some (pc, pr, rc, rr, nc, nr): losses, rewards, gradients of pc and pr."""
    inputs = [torch.tensor(column, dtype=torch.float32) for column in zip(*numbers)]
    policies = [x.requires_grad_() for x in inputs[:2]]
    losses, *rewards = preference_loss(*inputs, kind, beta, **more)
    losses.sum().backward()
    assert losses.dtype == torch.float32 and not any(r.requires_grad for r in rewards)
    return losses.detach(), rewards, [p.grad for p in policies]


def test_hand_computed():
    pair = -9, -5, -9, -5, 4, 3                                     # policy and reference are equal
    assert loss([pair], 'dpo', 0.1)[0].item() == approx(math.log(2))
    for kind, (*wanted, value) in BY_HAND.items():
        losses, rewards, _ = loss(NUMBERS[:1], kind, 0.1)
        assert losses.item() == approx(value, abs=5e-4), kind
        assert [reward.item() for reward in rewards] == approx(wanted, rel=1e-6), kind


def test_losses_and_gradients_are_those_of_the_formulas():
    """1e-4: float32 knows -80 to 8e-6."""
    cases = [*((kind, {}) for kind in BY_HAND), ('kto', {'kl': 0.7}), ('simpo', {'gamma': 0.3})]
    for (kind, more), n, beta in itertools.product(cases, NUMBERS, (0.1, 2.0)):
        inputs = torch.tensor(n, dtype=torch.float64, requires_grad=True)
        exact = slow(*inputs, kind, beta, **more)
        exact.backward()
        found, _, gradients = loss([n], kind, beta, **more)
        case = f'{kind}, log p and lengths {n}, {beta=}, {more}'
        assert found.item() == approx(exact.item(), rel=1e-5, abs=1e-6), case
        wanted = approx(inputs.grad[:2].tolist(), rel=1e-4, abs=1e-4)
        assert [gradient.item() for gradient in gradients] == wanted, case


def test_margins_of_2000_have_finite_losses_and_gradients():
    log_ps = (0, -2000), (-2000, 0), (-1e-9, 0), (-1e5, -1e5)
    for kind, (pc, pr) in itertools.product(BY_HAND, log_ps):
        for pair in (pc, pr, 0, 0, 1, 1), (0, 0, pc, pr, 3, 4):
            losses, _, gradients = loss([pair], kind, 1.0)
            found = torch.cat((losses, *gradients))
            assert found.isfinite().all(), f'{kind}, log p {pair[:4]}: {found.tolist()}'
