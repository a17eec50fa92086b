"""Two processes do what one does: batch_size is global, so sharing a step out is a matter of rounding."""
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY, metrics, ok, run

# norms are about 0.6, so clipping acts: done before the processes' gradients are added, the runs would part
BASE = [*TINY, '--dtype=float32', '--grad_clip=0.3', '--micro_batch_size=2', '--learning_rate=1e-2']


def train(data_dir, out, *more, processes=1):
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more, processes=processes)


def series(out, key):
    return [m[key] for m in metrics(out) if key in m]


def weights(out):
    return torch.load(out / 'last.pt', weights_only=True)['model']


@pytest.fixture(scope='module')
def one(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('one') / 'run'
    assert '1 processes x 4 accumulated x 2 sequences' in ok(train(data_dir, out))
    return out


@pytest.fixture(scope='module')
def two(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('two') / 'run'
    said = ok(train(data_dir, out, processes=2))
    assert '2 processes x 2 accumulated x 2 sequences' in said
    assert said.count('step      1/12 | loss') == 1     # only the first process speaks
    return out


def assert_equal_but_for_rounding(a, b):
    """The same float32 sums in another order: 1e-5 is about 100 roundings at 1."""
    for key in ('loss', 'val_loss', 'grad_norm', 'val_bpb'):
        assert series(a, key) and series(a, key) == pytest.approx(series(b, key), abs=1e-5), key
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys() and max((a[k] - b[k]).abs().max().item() for k in a) < 1e-5


def test_one_process_accumulating_4_equals_two_accumulating_2(one, two):
    assert min(series(one, 'grad_norm')) > 0.3 and series(one, 'loss')[-1] < series(one, 'loss')[0] - 0.1
    assert_equal_but_for_rounding(one, two)
    assert [m['step'] for m in metrics(one)] == [m['step'] for m in metrics(two)]       # each line once


def test_a_run_of_two_processes_goes_on_in_one(data_dir, one, two, tmp_path):
    for source, out in ((one, tmp_path / 'one'), (two, tmp_path / 'two')):
        shutil.copytree(source, out)
        assert 'resumed at step 12' in ok(train(data_dir, out, '--init_from=resume', '--max_steps=16'))
    assert [m['step'] for m in metrics(tmp_path / 'two') if 'loss' in m] == list(range(1, 17))
    assert_equal_but_for_rounding(tmp_path / 'one', tmp_path / 'two')


def test_two_processes_write_checkpoints_without_prefixes(one, two):
    assert weights(one).keys() == weights(two).keys() and not any('module' in k for k in weights(two))
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}


def test_a_batch_that_cannot_be_shared_is_one_line(data_dir, tmp_path):
    result = train(data_dir, tmp_path, '--batch_size=7', '--micro_batch_size=0', processes=2)
    lines = result.stderr.splitlines()          # on a busy machine `process 1: error: ...` comes, too
    errors = [line for line in lines if line.startswith('error: batch_size=7')]
    assert result.returncode != 0 and len(errors) == 1, result.stderr
    assert '2 processes' in errors[0] and '--batch_size=8' in errors[0]
    assert 'train.py", line' not in result.stderr   # torchrun has a traceback of its own, but none of ours
    assert not (tmp_path / 'train.log').exists()


def test_the_codeparrot_config_runs_on_two_processes(data_dir, tmp_path):
    if not (ROOT / 'config/codeparrot.py').exists():
        pytest.skip('config/codeparrot.py is not written yet')
    small = ['--vocab_size=0', '--n_layer=1', '--n_head=2', '--n_embd=32', '--block_size=32',
             '--batch_size=8', '--micro_batch_size=2', '--max_steps=3', '--warmup_steps=1',
             '--eval_tokens=2048', '--device=cpu']
    said = ok(run('train.py', ROOT / 'config/codeparrot.py', f'--data_dir={data_dir}',
                  f'--out_dir={tmp_path}', *small, processes=2))
    assert '2 processes x 2 accumulated x 2 sequences' in said
    assert metrics(tmp_path)[-1]['step'] == 3 and (tmp_path / 'last.pt').exists()


def test_processes_asked_to_stop_at_different_moments_stop_together(data_dir, tmp_path):
    """SIGTERM comes while process 0 writes its sample; process 1 is in the next step already."""
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    command = [sys.executable, ROOT / 'train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *BASE,
               '--sample_tokens=2000']
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={
        **os.environ, 'RANK': str(rank), 'LOCAL_RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost',
        'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1'}) for rank in (0, 1)]
    try:
        next(line for line in both[0].stdout if 'val_loss' in line)
        for process in both:
            process.send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60)[0] for process in both]        # they hang, if they disagree
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0] and 'stopped' in said[0]
