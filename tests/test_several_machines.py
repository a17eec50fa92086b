"""What only several machines or GPUs meet: disks of their own, ZeRO-1's moments, a process without work."""
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY, accident, make_sft, metrics, ok, run
from test_rl import FLAGS

BASE = [*TINY, '--device=cpu', '--dtype=float32', '--out_dir=out', '--log_interval=1', '--sample_tokens=2']


def apart(folder, *flags, before=''):
    """Two processes as on two machines: each writes and reads in a folder of its own. (exit code, output)"""
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    processes = []
    for rank in range(2):
        (folder / f'disk{rank}').mkdir(exist_ok=True)
        env = {**os.environ, 'RANK': str(rank), 'LOCAL_RANK': '0', 'WORLD_SIZE': '2', 'OMP_NUM_THREADS': '1',
               'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        start = f'import runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n{before}\nsys.argv.pop(0)\n' \
                'runpy.run_path(sys.argv[0], run_name="__main__")'
        command = [sys.executable, '-c', start, ROOT / 'train.py', *BASE, *flags]
        processes.append(subprocess.Popen(command, cwd=folder / f'disk{rank}', env=env, text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    try:
        said = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said)]


def test_two_disks_with_different_checkpoints_refuse_to_resume(data_dir, tmp_path):
    data = f'--data_dir={data_dir}'
    ok(run('train.py', *BASE, data, '--max_steps=4', '--save_interval=4', cwd=tmp_path))
    for rank in range(2):
        shutil.copytree(tmp_path / 'out', tmp_path / f'disk{rank}/out')
    ok(run('train.py', *BASE, data, '--init_from=resume', '--max_steps=6', cwd=tmp_path / 'disk0'))
    first, second = apart(tmp_path, data, '--init_from=resume', '--max_steps=8')
    assert first[0] == second[0] == 2, (first, second)
    assert 'error: out/last.pt is at step 4 on one machine, 6 on another' in first[1]


def test_a_rollback_that_one_disk_cannot_do_is_left_out_by_all(data_dir, tmp_path):
    flags = ['--spike_action=rollback', '--spike_window=30', '--learning_rate=2e-3', '--max_steps=40',
             '--save_interval=20']
    found = apart(tmp_path, f'--data_dir={data_dir}', *flags, before=accident('spike', 38))
    assert [code for code, _ in found] == [0, 0], found
    events = [row['event'] for row in metrics(tmp_path / 'disk0/out') if 'event' in row]
    assert 'skip' in events and 'rollback' not in events
    assert [(tmp_path / f'disk{i}/out/last.pt').exists() for i in (0, 1)] == [True, False]


# torch's ZeRO-1 moves `step` to the CPU, where AdamW fused for CUDA refuses it. meta stands for a GPU
ZERO_1 = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from parts.train import optim
os.environ.update(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
real = torch.Tensor.cpu
torch.Tensor.cpu = lambda t: torch.tensor(3.0) if t.is_meta else real(t)
model = torch.nn.ModuleDict({'embedding': torch.nn.Linear(4, 4, device='meta')})
[optimizer] = optim.build(model, 'adamw', 1e-3, (0.9, 0.95), 0.1, zero1=True)
moments = {i: {'step': torch.tensor(3.0), 'exp_avg': torch.zeros_like(p), 'exp_avg_sq': torch.zeros_like(p)}
           for i, p in enumerate(p for group in optimizer.param_groups for p in group['params'])}
groups = [{**group, 'params': [i], 'fused': True} for i, group in enumerate(optimizer.param_groups)]
for group in [*optimizer.param_groups, *optimizer.optim.param_groups]:
    group['fused'] = True
checkpoint = {'scaler': {}, 'optimizers': [{'state': moments, 'param_groups': groups}]}
optim.restore([optimizer], torch.amp.GradScaler('cpu', enabled=False), checkpoint)
print({str(value.device) for moment in optimizer.optim.state.values() for value in moment.values()})
"""


def test_zero_1_resumes_with_all_its_moments_where_the_weights_are():
    done = subprocess.run([sys.executable, '-c', ZERO_1, ROOT], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "{'meta'}", done.stdout + done.stderr


# only every fourth prompt has answers whose rewards differ: often one of three processes has none of them
REWARD = """
def prompts():
    return [f'number {i}' for i in range(40)]

def reward(prompt, completion):
    return float(int(prompt[7:]) % 4 == 0 and sum(c < '@' for c in completion) / 8)
"""


@pytest.mark.parametrize('kl_coef', [0.0, 0.1])
def test_a_process_without_an_informative_prompt_changes_no_gradient(tmp_path, kl_coef):
    make_sft(tmp_path / 'sft')
    (tmp_path / 'paid.py').write_text(REWARD, encoding='utf-8')
    flags = [f'--init_from={tmp_path}/sft', f'--reward={tmp_path}/paid.py', *FLAGS, '--batch_size=6',
             '--micro_batch_size=1', '--max_steps=4', f'--kl_coef={kl_coef}',
             '--learning_rate=1e-3', '--min_lr=1e-3']
    for n in (1, 3):
        ok(run('rl.py', *flags, f'--out_dir={tmp_path}/{n}', processes=n))
    for key in ('grad_norm', 'reward', 'informative'):
        one, three = ([m[key] for m in metrics(tmp_path / str(n)) if key in m] for n in (1, 3))
        assert len(one) == 4 and one == pytest.approx(three, abs=1e-5), key
    one, three = (torch.load(tmp_path / f'{n}/last.pt', weights_only=True)['model'] for n in (1, 3))
    for key, value in one.items():
        torch.testing.assert_close(value, three[key], atol=2e-5, rtol=0)


BUCKETS = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig
from parts.train import devices, processes
dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
graphs = []
real = torch.compile
def count(module, inputs):
    graphs.append(module)
    return module.forward
torch.compile = lambda model: real(model, backend=count)
torch.manual_seed(0)
model = GPT(GPTConfig(4096, 32, 6, 8, 0, 512))
ids = torch.randint(4096, (2, 33))
batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
plain = torch.autograd.grad(model(*batch)[1], list(model.parameters()))
net = processes.wrap(torch.compile(model), sys.argv[2], 'cpu')
devices.rehearse(net, batch, devices.autocast('cpu', 'float32'), model)
processes.clear_gradients(net)
net(*batch)[1].backward()
same = all(torch.allclose(p.grad, g, atol=1e-6) for p, g in zip(model.parameters(), plain))
print(len(graphs), type(net).__name__, same)
"""


@pytest.mark.parametrize('how, expected', [('ddp', '4 DistributedDataParallel True'),
                                           ('fsdp', '1 OptimizedModule True')])
def test_a_compiled_model_of_ddp_has_a_graph_for_each_bucket_of_gradients(how, expected):
    done = subprocess.run([sys.executable, '-c', BUCKETS, ROOT, how], capture_output=True, text=True,
                          timeout=200, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.stdout.strip() == expected, done.stdout + done.stderr
