"""What rl.py samples and trains on: noise, prompts in turn, batches, and log-probabilities that agree."""
import types

import numpy as np
import torch

from model import GPT, GPTConfig, IGNORE
from parts.sample.decoding import Batch
from parts.sample.rollouts import Policy, collate, draw, noise_of


def test_fresh_answers_have_the_ratio_1():
    """What sampling and what training say of a token differs by rounding only."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(97, 64, 2, 4, 2, 32))
    for p in model.parameters():        # sharper, so that some tokens are likely and others are not
        p.data *= 6 if p.dim() == 2 else 1
    dice = np.random.default_rng(0)
    batch = Batch(model, {0, 3}, slots=16)
    answers = [batch.add(dice.integers(1, 97, dice.integers(1, 44)).tolist(), 20, iter(row).__next__,
                         temperature=0.7, scored_at=0.7) for row in noise_of(1, 0, range(40), 20).tolist()]
    while batch.queue or batch.live:
        batch.step()
    x, y, old = map(torch.from_numpy, collate(answers, 0, IGNORE))
    log_probs = Policy(model, 0.7, IGNORE)(x, y)
    assert (log_probs - old).abs().max() < 1e-4 and (y != IGNORE).sum() == sum(len(a.ids) for a in answers)
    assert (log_probs[y == IGNORE] == 0).all()


def test_noise_belongs_to_its_row_and_draws_visit_every_prompt_once():
    assert (noise_of(1, 2, [5, 3], 4)[0] == noise_of(1, 2, [5], 4)[0]).all()
    assert len(np.unique([noise_of(*key, [0], 1) for key in ((1, 2), (2, 1), (1, 3))])) == 3
    for first in (0, 10):       # two epochs of 10 draws of 3 out of 30
        drawn = np.concatenate([draw(i, 3, 30, 7) for i in range(first, first + 10)])
        assert sorted(drawn) == list(range(30))
    assert draw(0, 30, 30, 7).tolist() != draw(1, 30, 30, 7).tolist() and sorted(draw(4, 7, 3, 0))[0] == 0


def test_golden_inputs_and_targets():
    a = types.SimpleNamespace(prompt=[5, 6, 7], ids=[1], log_probs=[-0.5])
    b = types.SimpleNamespace(prompt=[8], ids=[2, 3], log_probs=[-1.0, -2.0])
    x, y, old = collate([a, b], 9, -100)
    assert x.tolist() == [[5, 6, 7], [8, 2, 9]] and y.tolist() == [[-100, -100, 1], [2, 3, -100]]
    assert old.tolist() == [[0, 0, -0.5], [-1, -2, 0]]
