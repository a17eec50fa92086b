"""Continuous batching: an answer is the same alone and beside others, and its log-probabilities are true."""
import numpy as np
import pytest
import torch

from model import GPT, GPTConfig, IGNORE
from parts.sample.rollouts import Answer, Policy, collate, draw, noise_of, pick, rollouts

L, STOP = 20, {0, 3}


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(97, 64, 2, 4, 2, 32))
    for p in model.parameters():        # sharper, so that some tokens are likely and others are not
        p.data *= 6 if p.dim() == 2 else 1
    return model


@pytest.fixture(scope='module')
def prompts():
    dice = np.random.default_rng(0)
    return [dice.integers(1, 97, dice.integers(1, 44)).tolist() for _ in range(40)]


@torch.no_grad()
def alone(model, ids, noise, temperature):
    """Without cache and without neighbours: every token from a run over the whole text."""
    said, log_probs = [], []
    while len(said) < L and not (said and said[-1] in STOP):
        logits = model(torch.tensor([ids + said]))[0][0, -1]
        p = (logits / (temperature or 1)).double().softmax(-1)
        passed = (p.cumsum(-1) > noise[len(said)] * p.sum()).nonzero()[0].item()
        said.append(passed if temperature else logits.argmax().item())
        log_probs.append(p[said[-1]].log().item())
    return said, log_probs


@pytest.mark.parametrize('slots, temperature', [(1, 1.0), (7, 1.0), (40, 0.6), (9, 0.0)])
def test_a_row_of_a_refilled_batch_is_the_row_alone(model, prompts, slots, temperature):
    """1e-4: of float32 sums in another order, at log p down to -15."""
    noise = noise_of(5, 2, range(24), L)
    answers = list(rollouts(model, prompts[:24], noise, STOP, slots, temperature))
    assert sorted(a.row for a in answers) == list(range(24))
    assert len({len(a.ids) for a in answers}) > 4           # or nothing is refilled
    for a in answers:
        said, log_probs = alone(model, prompts[a.row], noise[a.row], temperature)
        assert a.ids == said and a.ended == (said[-1] in STOP) and a.prompt == prompts[a.row]
        assert a.log_probs == pytest.approx(log_probs, abs=1e-4)


def test_the_model_is_left_as_it_was_even_if_nobody_takes_all_answers(model, prompts):
    model.train()
    assert next(rollouts(model, prompts, noise_of(5, 2, range(40), L), STOP, 8)).ids
    assert model.training


def test_fresh_answers_have_the_ratio_1(model, prompts):
    """What sampling and what training say of a token differs by rounding only."""
    answers = list(rollouts(model, prompts, noise_of(1, 0, range(40), L), STOP, 16, 0.7))
    x, y, old = map(torch.from_numpy, collate(answers, 0, IGNORE))
    log_probs = Policy(model, 0.7, IGNORE)(x, y)
    assert (log_probs - old).abs().max() < 1e-4 and (y != IGNORE).sum() == sum(len(a.ids) for a in answers)
    assert (log_probs[y == IGNORE] == 0).all()


def test_tokens_come_as_often_as_the_model_says():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20_000, 1)
    ids, log_p = pick(logits, np.random.default_rng(0).random(20_000), 1.0)
    shares = torch.bincount(ids, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)      # 4 sigma
    assert torch.allclose(log_p, logits.gather(1, ids[:, None])[:, 0])


def test_noise_belongs_to_its_row_and_draws_visit_every_prompt_once():
    assert (noise_of(1, 2, [5, 3], 4)[0] == noise_of(1, 2, [5], 4)[0]).all()
    assert len(np.unique([noise_of(*key, [0], 1) for key in ((1, 2), (2, 1), (1, 3))])) == 3
    for first in (0, 10):       # two epochs of 10 draws of 3 out of 30
        drawn = np.concatenate([draw(i, 3, 30, 7) for i in range(first, first + 10)])
        assert sorted(drawn) == list(range(30))
    assert draw(0, 30, 30, 7).tolist() != draw(1, 30, 30, 7).tolist() and sorted(draw(4, 7, 3, 0))[0] == 0


def test_golden_inputs_and_targets():
    a, b = Answer(0, [5, 6, 7], 0), Answer(1, [8], 0)
    a.ids, a.log_probs, b.ids, b.log_probs = [1], [-0.5], [2, 3], [-1.0, -2.0]
    x, y, old = collate([a, b], 9, -100)
    assert x.tolist() == [[5, 6, 7], [8, 2, 9]] and y.tolist() == [[-100, -100, 1], [2, 3, -100]]
    assert old.tolist() == [[0, 0, -0.5], [-1, -2, 0]]


@pytest.mark.parametrize('bad, at', [(torch.nan, slice(None)), (torch.inf, 2), (-torch.inf, slice(None))])
def test_scores_that_are_not_finite_are_refused_in_one_sentence(bad, at):
    logits = torch.zeros(3, 5)
    logits[1, at] = bad
    for temperature in (0, 1.0):
        with pytest.raises(ValueError, match='next token are not finite: use an earlier checkpoint'):
            pick(logits, [0.5] * 3, temperature)
    logits[1] = torch.tensor([0.0, *[-torch.inf] * 4])          # one that is masked is well
    assert pick(logits, [0.5] * 3, 1.0)[0].tolist() == [2, 0, 2]


@pytest.mark.parametrize('bad', [[], [1] * 45])
def test_a_prompt_that_cannot_be_continued_is_refused(model, bad):
    with pytest.raises(ValueError, match='1 to 44 tokens'):
        list(rollouts(model, [[1, 2], bad], noise_of(0, 0, range(2), L), STOP, 2))
