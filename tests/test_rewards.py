"""The rewards of a FILE.py: whatever it does, rl.py gets a number, or a sentence that says why not."""
import re
import signal
import sys
import textwrap
import types

import pytest
from conftest import ROOT

from parts.sample import rewards
from parts.sample.rewards import tasks_of_file


def reward_of(tmp_path, body, timeout=5.0):
    """reward() of a FILE.py with this body, of the first prompt."""
    text = 'def prompts():\n    return ["1 and 2"]\n\ndef reward(prompt, completion):\n'
    (tmp_path / 'mine.py').write_text(text + textwrap.indent(body, '    '), encoding='utf-8')
    return tasks_of_file(str(tmp_path / 'mine.py'), timeout, True)[0]['reward']


@pytest.mark.parametrize('body', ['exit()', 'import sys\nsys.exit(0)', 'raise GeneratorExit',
                                  'import asyncio\nraise asyncio.CancelledError'])
def test_a_reward_that_leaves_has_paid_nothing(tmp_path, body):
    number, fault = reward_of(tmp_path, body)('yes')
    assert number == 0.0 and fault.startswith("reward('1 and 2', 'yes'): "), fault


def test_what_each_kind_of_task_pays():
    number = lambda text: text.split()[-1]
    messages = []
    pay = lambda task, verdict=None: rewards.reward_of(task, 'it is 4', verdict, number, messages.append)
    assert pay({'answer': 'so 4'}) == 1.0 and pay({'answer': '5'}) == 0.0 and pay({}) == 0.0
    assert pay({'reward': lambda text: (0.5, '')}) == 0.5 and not messages
    assert pay({'reward': lambda text: (0.0, 'KeyError')}) == 0.0 and messages == ['counted as 0: KeyError']
    verdict = lambda outcome: types.SimpleNamespace(
        result=lambda: types.SimpleNamespace(outcome=outcome, message='no space'))
    task = {'tests': 'assert 1', 'messages': [{'content': 'write f'}]}
    assert pay(task, verdict('passed')) == 1.0 and pay(task, verdict('failed')) == 0.0
    with pytest.raises(ValueError, match="no verdict on 'write f', .*no space"):
        pay(task, verdict('infrastructure'))


def test_ctrl_c_is_not_a_fault_of_the_reward(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        reward_of(tmp_path, 'raise KeyboardInterrupt')('yes')


def test_the_commands_of_the_docs_allow_what_their_reward_needs():
    page = (ROOT / 'docs/chat.md').read_text(encoding='utf-8')
    commands = re.findall(r'^python rl\.py [^#\n]*', page, re.M)
    programs = [c for c in commands if '--reward' not in c or '--reward=random' in c]
    assert len(programs) >= 3 and all('--allow_code_execution=True' in c for c in programs), programs


def test_a_reward_that_catches_exceptions_still_ends(tmp_path):
    body = 'while True:\n    try:\n        sum(range(1000))\n    except Exception:\n        pass'
    assert 'no reward after 0.2 s' in reward_of(tmp_path, body, 0.2)('yes')[1]


def test_a_reward_that_swallows_one_alarm_meets_the_next(tmp_path):
    body = 'try:\n    while True:\n        pass\nexcept:\n    while True:\n        pass'
    assert 'no reward after 0.2 s' in reward_of(tmp_path, body, 0.2)('yes')[1]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)           # and none comes later


def test_a_reward_file_may_import_what_lies_beside_it_and_may_do_so_late(tmp_path):
    for name in 'early_rule', 'late_rule':
        (tmp_path / f'{name}.py').write_text('def rule(text):\n    return len(text)\n', encoding='utf-8')
    text = 'import early_rule\ndef prompts():\n    return ["1"]\ndef reward(prompt, text):\n' \
           '    import late_rule\n    return early_rule.rule(text) + late_rule.rule(text)\n'
    (tmp_path / 'mine.py').write_text(text, encoding='utf-8')
    before = list(sys.path)
    try:
        assert tasks_of_file(str(tmp_path / 'mine.py'), 5.0, True)[0]['reward']('four') == (8.0, '')
        assert sys.path[:len(before)] == before         # nothing that we import is hidden by a file there
    finally:
        sys.path[:] = before
