"""What rl.py samples, trains on and pays: noise, batches, log-probabilities that agree, rewards."""
import sys
import textwrap
import types

import numpy as np
import pytest
import torch
from conftest import refused, sharpen

from model import GPT, GPTConfig, IGNORE
from parts.train import rollouts
from parts.sample.decoding import Batch
from parts.train.rollouts import Policy, collate, draw, noise_of


def test_fresh_answers_have_the_ratio_1():
    """What sampling and what training say of a token differs by rounding only."""
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(97, 64, 2, 4, 2, 32)))
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


# --- rewards: whatever a FILE.py does, rl.py gets a number, or a sentence that says why not -----------------
def reward_of(tmp_path, body):
    """reward() of a FILE.py with this body, of the first prompt."""
    text = 'def prompts():\n    return ["1 and 2"]\n\ndef reward(prompt, completion):\n'
    (tmp_path / 'mine.py').write_text(text + textwrap.indent(body, '    '), encoding='utf-8')
    return rollouts.tasks_of_file(str(tmp_path / 'mine.py'), True)[0]['reward']


def test_a_reward_file_may_import_what_lies_beside_it_also_late(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    (tmp_path / 'late_rule.py').write_text('rule = len', encoding='utf-8')
    assert reward_of(tmp_path, 'import late_rule\nreturn late_rule.rule(completion)')('four') == (4.0, '')
    assert sys.path[-1] == str(tmp_path)        # at the end: nothing that we import is hidden by a file there


def test_a_reward_that_leaves_has_paid_nothing_and_ctrl_c_is_not_its_fault(tmp_path):
    for body in ('exit()', 'raise GeneratorExit', 'import asyncio\nraise asyncio.CancelledError'):
        number, fault = reward_of(tmp_path, body)('yes')
        assert number == 0.0 and fault.startswith("reward('1 and 2', 'yes'): "), fault
    with pytest.raises(KeyboardInterrupt):
        reward_of(tmp_path, 'raise KeyboardInterrupt')('yes')


def test_what_each_kind_of_task_pays():
    number = lambda text: text.split()[-1]
    messages = []
    pay = lambda task, verdict=None: rollouts.reward_of(task, 'it is 4', verdict, number, messages.append)
    assert pay({'answer': 'so 4'}) == 1.0 and pay({'answer': '5'}) == 0.0 and pay({}) == 0.0
    assert pay({'reward': lambda text: (0.5, '')}) == 0.5 and not messages
    assert pay({'reward': lambda text: (0.0, 'KeyError')}) == 0.0 and messages == ['counted as 0: KeyError']
    verdict = lambda outcome: types.SimpleNamespace(
        result=lambda: types.SimpleNamespace(outcome=outcome, message='no space'))
    task = {'tests': 'assert 1', 'messages': [{'content': 'write f'}]}
    assert pay(task, verdict('passed')) == 1.0 and pay(task, verdict('failed')) == 0.0
    refused("no verdict on 'write f', .*no space", pay, task, verdict('infrastructure'))
