"""bench/rl_controls.py resumes where it stopped, and an arm that was stopped halfway is run again."""
import re
import sys

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import rl_controls  # noqa: E402

DONE = 'resumed at step 20\ndone in 28.6 minutes, highest val_reward 0.8950; see x\nnext: python sample.py\n'
STOPPED = 'step     20/160 | reward: 0.7\nstopped at step 20; x/last.pt is saved; resume: the same command\n'


@pytest.mark.parametrize('log, again', [(DONE, False), (STOPPED, True), (DONE + STOPPED, True), (None, True)])
def test_an_arm_is_finished_when_its_log_says_done(tmp_path, monkeypatch, log, again):
    for arm in 'rl', 'more':
        (tmp_path / arm).mkdir()
        (tmp_path / arm / 'last.pt').write_bytes(b'')
        if log:
            (tmp_path / arm / 'train.log').write_text(log, encoding='utf-8')
    called, counted = [], []
    monkeypatch.setattr(rl_controls, 'call', lambda *command: called.append(command[0]))
    monkeypatch.setattr(rl_controls, 'trained_tokens', lambda run: counted.append(run) or 32 * 24)
    for arm in 'rl', 'more':
        rl_controls.train(arm, str(tmp_path), 0, 160)
    assert called == (['rl.py', 'sft.py'] if again else [])
    assert bool(counted) != again           # the other arms follow the tokens of a whole run of rl only


def test_no_two_commands_of_its_docstring_share_a_folder_and_its_problems():
    commands = re.findall(r'python bench/rl_controls\.py (\S+)', rl_controls.__doc__)
    assert len(commands) == 2 == len(set(commands))
