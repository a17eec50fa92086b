"""An interrupted run, resumed, is the straight run: bit for bit, however it was interrupted."""
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY, assert_is_the_straight_run, metrics, ok, run, state

# dropout, so that lost random state would show; saves and evaluations at different steps
BASE = [*TINY, '--dropout=0.1', '--learning_rate=3e-2', '--max_steps=50', '--eval_interval=6']


def arguments(data_dir, out, *more):
    return [f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more]


def start(data_dir, out, *more, wait_for='val_loss'):
    process = subprocess.Popen([sys.executable, ROOT / 'train.py', *arguments(data_dir, out, *more)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if wait_for in line:
            break
    return process


def resume(data_dir, out, *more, source=None):
    if source:
        shutil.copytree(source, out)
    return ok(run('train.py', *arguments(data_dir, out, '--dtype=float32', '--init_from=resume', *more)))


def kill_when(process, condition):
    while process.poll() is None and not condition():
        time.sleep(0.002)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def terminate(process):
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope='module')
def straight(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('straight') / 'run'
    ok(run('train.py', *arguments(data_dir, out, '--dtype=float32')))
    return out


@pytest.fixture(scope='module')
def stopped(data_dir, tmp_path_factory):        # by SIGTERM, between two saves; and what it said
    out = tmp_path_factory.mktemp('stopped') / 'run'
    return out, terminate(start(data_dir, out, '--dtype=float32', wait_for='step     10/50'))


def test_kill_9_at_random_moments(data_dir, straight, tmp_path):
    out, kills, rng = tmp_path / 'run', 0, random.Random(0)
    process = start(data_dir, out, '--dtype=float32')
    for _ in range(4):
        moment = time.time() + rng.random() / 2
        kills += kill_when(process, lambda: time.time() > moment)                       # noqa: B023
        again = ['--init_from=resume'] if (out / 'last.pt').exists() else ['--overwrite=True']
        process = start(data_dir, out, '--dtype=float32', *again)
    process.communicate()
    assert process.returncode == 0 and kills > 0
    assert_is_the_straight_run(out, straight)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_resuming_the_first_checkpoint_is_the_straight_run(data_dir, straight, tmp_path, dtype):
    if dtype != 'float32':
        straight = tmp_path / 'straight'
        ok(run('train.py', *arguments(data_dir, straight, f'--dtype={dtype}')))
    out = tmp_path / 'run'
    assert kill_when(start(data_dir, out, f'--dtype={dtype}'), (out / 'last.pt').exists)
    first = state(out)['step']
    assert first < 50 and f'resumed at step {first}' in resume(data_dir, out, f'--dtype={dtype}')
    assert_is_the_straight_run(out, straight)


def test_sigterm_saves_and_says_how_to_go_on(stopped):
    out, said = stopped
    step = state(out)['step']
    assert 0 < step < 50 and f'stopped at step {step}' in said and '--init_from=resume' in said
    assert metrics(out)[-1]['step'] == step                                             # not one step is lost


@pytest.mark.parametrize('more', ['', '{"step": 49, "loss": 1.0}\n{"step": 3, "lo'])
def test_after_sigterm_the_resumed_run_is_the_straight_run(data_dir, stopped, straight, tmp_path, more):
    """Whatever was logged after the checkpoint, or only half logged, is dropped."""
    out = shutil.copytree(stopped[0], tmp_path / 'run')
    with open(out / 'metrics.jsonl', 'a', encoding='utf-8') as f:
        f.write(more)
    resume(data_dir, out)
    assert_is_the_straight_run(out, straight)


def test_changed_settings_are_said(data_dir, stopped, tmp_path):
    said = resume(data_dir, tmp_path / 'run', '--grad_clip=0.5', '--weight_decay=0.2', source=stopped[0])
    for words in (('grad_clip', '1.0', '0.5'), ('weight_decay', '0.1', '0.2')):
        assert any(all(w in line for w in words) for line in said.splitlines() if 'changed' in line), said


def test_every_changed_setting_is_said_and_no_other(data_dir, stopped, tmp_path):
    said = resume(data_dir, tmp_path / 'moved', '--log_interval=3', '--sample_tokens=4', source=stopped[0])
    changed = {line.split()[1].rstrip(':') for line in said.splitlines() if line.startswith('  changed  ')}
    assert changed == {'log_interval', 'sample_tokens', 'out_dir'}, said


def test_resuming_a_finished_run_changes_nothing(data_dir, straight, tmp_path):
    resume(data_dir, tmp_path / 'run', source=straight)
    assert_is_the_straight_run(tmp_path / 'run', straight)
    assert (tmp_path / 'run/samples.txt').read_bytes() == (straight / 'samples.txt').read_bytes()


def test_sigterm_before_the_first_step_claims_no_checkpoint(data_dir, tmp_path):
    said = terminate(start(data_dir, tmp_path, '--sample_tokens=2000'))    # sampling: a second
    assert 'last.pt is saved' not in said or (tmp_path / 'last.pt').exists(), said
