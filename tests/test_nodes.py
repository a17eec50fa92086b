"""Two machines train as one: two agents of torchrun meet, and every process holds the same weights."""
import hashlib
import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY, metrics, ok, run

# train.py as it is, and at its end a file with a hash of this process's weights
WATCHED = '''
import hashlib, os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from parts.train import processes
leave = processes.leave
def told(trouble=''):
    weights = sys._getframe(1).f_globals['model'].state_dict()
    digest = hashlib.sha256(b''.join(weights[name].numpy().tobytes() for name in sorted(weights)))
    with open('rank' + os.environ['RANK'], 'w') as f:
        f.write(digest.hexdigest())
    leave(trouble)
processes.leave = told
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''


def test_two_agents_train_together_and_all_ranks_hold_the_same_weights(data_dir, tmp_path):
    (tmp_path / 'watched.py').write_text(WATCHED, encoding='utf-8')
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    page = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    flags = re.search(r'torchrun (--nnodes=2 .*) train\.py', page)[1]       # the command that the page gives
    flags = re.sub(r'--nproc_per_node=\d+', '--nproc_per_node=1', flags)
    flags = re.sub(r'--rdzv_endpoint=\S+', f'--rdzv_endpoint=127.0.0.1:{port}', flags)
    more = ['--dtype=float32', '--micro_batch_size=2']
    command = [sys.executable, '-m', 'torch.distributed.run', *flags.split(), 'watched.py', ROOT / 'train.py',
               f'--data_dir={data_dir}', '--out_dir=two', *TINY, *more, '--dropout=0.1']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    agents = [subprocess.Popen(command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT) for _ in range(2)]
    try:
        said = [agent.communicate(timeout=300)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert '2 processes x 2 accumulated x 2 sequences' in ''.join(said)

    weights = torch.load(tmp_path / 'two/last.pt', weights_only=True)['model']
    digest = hashlib.sha256(b''.join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()
    assert [(tmp_path / f'rank{i}').read_text(encoding='utf-8') for i in (0, 1)] == [digest] * 2
    rows = [m for m in metrics(tmp_path / 'two') if 'loss' in m]
    assert len(rows) == 12 and rows[-1]['loss'] < rows[0]['loss'] - 0.05
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}/one', *TINY, *more, '--max_steps=4'))
    one, two = (metrics(tmp_path / name)[0]['val_loss'] for name in ('one', 'two'))
    assert one == pytest.approx(two, abs=1e-5)              # the same model before the first step
