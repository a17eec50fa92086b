"""What rl.py samples, trains on and pays: noise, batches, log-probabilities that agree, rewards."""
import sys
import textwrap
import types

import numpy as np
import pytest
import torch
from conftest import lift, refused, save_run, sharpen
from test_records import BYTES

from model import GPT, GPTConfig, IGNORE
from extras import questions
from extras.sandbox import Result
from parts.train import data, rollouts
from parts.train.rollouts import noise_of
from tokenizer import Tokenizer

Policy, collate = lift('rl.py', 'Policy', 'collate')


def test_fresh_answers_have_the_ratio_1():
    """What sampling and what training say of a token differs by rounding only."""
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(97, 64, 2, 4, 2, 32)))
    dice = np.random.default_rng(0)
    prompts = [dice.integers(1, 97, dice.integers(1, 44)).tolist() for _ in range(40)]
    written = [*rollouts.write(model, prompts, noise_of(1, 0, range(40), 20), 0.7, {0, 3}, slots=16)]
    answers = [types.SimpleNamespace(prompt=prompts[i], ids=ids, log_probs=log_probs)
               for i, ids, log_probs, _ in written]
    assert {ended for *_, ended in written} == {True, False} and model.training
    order = [i for i, *_ in written]        # as they end
    assert order != sorted(order) == [*range(40)]
    x, y, old = collate(answers)
    log_probs = Policy(model, 0.7)(x, y)
    assert (log_probs - old).abs().max() < 1e-4 and (y != IGNORE).sum() == sum(len(a.ids) for a in answers)
    assert (log_probs[y == IGNORE] == 0).all()


def test_a_model_that_diverged_is_named_instead_of_drawing_from_nothing():
    model = GPT(GPTConfig(97, 64, 2, 4, 2, 32))
    with torch.no_grad():
        model.norm.weight[0] = float('nan')
    refused('diverged', lambda: [*rollouts.write(model, [[1, 2]], noise_of(1, 0, [0], 3), 0.7, {0})])


def test_each_seed_and_step_has_its_noise_and_it_is_not_the_order_of_the_prompts():
    """That it belongs to its row: test_processes.py."""
    assert len(np.unique([noise_of(*key, [0], 1) for key in ((1, 2), (2, 1), (1, 3))])) == 3
    assert noise_of(1, 2, [0], 30)[0].argsort().tolist() != data.shuffled(30, 1, 2).tolist()


# --- a reward model -----------------------------------------------------------------------------------------
def test_a_reward_model_scores_the_whole_answer_with_its_end_whatever_is_next_to_it(tmp_path):
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(BYTES.vocab_size, 48, 2, 2, 0, 32))).eval()
    save_run(tmp_path / 'reward', model, BYTES, reward_head=torch.randn(1, 32))
    score = rollouts.reward_model(str(tmp_path / 'reward'), 'out/sft', BYTES, 'cpu')
    head = GPT.load(tmp_path / 'reward').saved['reward_head']
    task = questions.to_question({'prompt': 'hi'}, is_graded=False)
    task['ids'] = BYTES.render(task['messages'], add_generation_prompt=True)[0]
    texts = ['yo', '', 'a longer one', 'é' * 30]
    found = score(task, texts)
    for text, value in zip(texts, found):
        answer = [*text.encode(), BYTES.special['<|im_end|>']]
        ids = [*task['ids'][-max(48 - len(answer), 12):], *answer][:48]     # its context is short
        wanted = model.backbone(torch.tensor([ids]))[0, -1] @ head[0]
        assert value == pytest.approx(wanted.item(), rel=1e-4)
    assert len({*found}) == 4
    answers = [types.SimpleNamespace(text=text) for text in texts]
    assert rollouts.rewards_of(task | {'score': score}, answers) == found
    refused('with the tokenizer of hash', rollouts.reward_model, str(tmp_path / 'reward'), 'out/sft',
            Tokenizer.byte(['<|im_start|>', '<|im_end|>']), 'cpu')


# --- rewards: whatever a FILE.py does, rl.py gets a number, or a sentence that says why not -----------------
def earned(tmp_path, body, text, warn=None):
    """What reward() of a FILE.py with this body pays for a text."""
    head = 'def prompts():\n    return ["1 and 2"]\n\ndef reward(prompt, completion):\n'
    (tmp_path / 'mine.py').write_text(head + textwrap.indent(body, '    '), encoding='utf-8')
    task, = rollouts.tasks_of_file(str(tmp_path / 'mine.py'))
    return rollouts.reward_of(task, text, warn=warn)


def test_a_reward_file_may_import_what_lies_beside_it_also_late(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    (tmp_path / 'late_rule.py').write_text('rule = len', encoding='utf-8')
    assert earned(tmp_path, 'import late_rule\nreturn late_rule.rule(completion)', 'four') == 4.0
    assert sys.path[-1] == str(tmp_path)        # at the end: nothing that we import is hidden by a file there


def test_a_reward_is_a_number_or_a_sentence_that_says_why_not(tmp_path):
    for body, why in (('raise KeyError("a")', "KeyError('a')"), ('return float("nan")', 'returned nan'),
                      ('return 1e13', 'returned 1'), ('return None', 'TypeError')):
        refused(["reward('1 and 2', 'yes'): ", why, '--bad_reward=zero'], earned, tmp_path, body, 'yes')
        said = []
        assert earned(tmp_path, body, 'yes', said.append) == 0.0
        assert said[0].startswith("counted as 0: reward('1 and 2', 'yes'): ") and why in said[0]
    assert earned(tmp_path, 'return -1e12', 'yes') == -1e12 and earned(tmp_path, 'return True', 'yes') == 1.0
    with pytest.raises(KeyboardInterrupt):
        earned(tmp_path, 'raise KeyboardInterrupt', 'yes', print)
    for text in 'import numpyy', 'def prompts(:', 'def prompts(): pass', 'def prompts():\n    return [1]':
        (tmp_path / 'mine.py').write_text(f'{text}\nreward = len', encoding='utf-8')
        refused('mine.py must define prompts', rollouts.tasks_of_file, str(tmp_path / 'mine.py'))


def test_what_each_kind_of_task_pays():
    def paid(task, outcome=''):
        verdict = types.SimpleNamespace(result=lambda: Result(outcome, 'no space'))
        court = types.SimpleNamespace(submit=lambda program, tests, entry_point: verdict)
        return rollouts.reward_of(task, 'it is 4', rollouts.submit(court, task, 'it is 4'))
    tests = questions.to_question({'prompt': 'write f', 'tests': 'assert 1'})
    paying = questions.to_question({'prompt': 'four'}, is_graded=False)
    paying['reward'] = lambda prompt, text: len(prompt) / len(text)
    right, wrong, regex = (questions.to_question({'prompt': '2 + 2?'} | check) for check in
                           ({'answer': 'so #### 4'}, {'answer': '5'}, {'regex': '^it'}))
    assert [paid(task) for task in (right, paying, wrong, regex)] == [1.0, 4 / 7, 0.0, 1.0]
    assert [paid(tests, outcome) for outcome in ('passed', 'wrong', 'timeout')] == [1.0, 0.0, 0.0]
    refused("no verdict on 'write f': .*no space", paid, tests, 'infrastructure')
