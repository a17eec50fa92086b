"""What a GPU will meet, as far as a machine without one can tell; and bench/gpu.py at its smallest."""
import datetime
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from conftest import ROOT, TINY, lift, make_pairs, make_sft, metrics, ok, run
from test_dpo import dpo
from test_sft import begin, sft
from torch._dynamo.testing import CompileCounter
from torch.distributed.optim import zero_redundancy_optimizer as zero

from model import GPT, GPTConfig
from parts.train import devices, optim, processes


def test_a_model_that_was_moved_is_compiled_once(monkeypatch):
    """On another device than the CPU, where RoPE's tables are made. meta: a device without numbers."""
    monkeypatch.setattr(torch.Tensor, 'item', lambda self: 0.0)
    counter, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, 'compile', lambda model: real(model, backend=counter))
    torch._dynamo.reset()
    model = GPT(GPTConfig(64, 16, 2, 2, 0, 16)).to('meta')
    ids = torch.zeros(2, 16, dtype=torch.long, device='meta')
    net = processes.wrap(torch.compile(model), 'ddp', 'meta')
    devices.rehearse(net, (ids, ids), torch.autocast('cpu', enabled=False), model)
    assert net is not model and model.cos.device.type == 'meta'
    assert counter.frame_count == 1         # two calls, of which the second gives the seconds of a step


def test_more_processes_than_gpus_are_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(ValueError, match='device=cuda:2 is not here: there are 2 GPUs'):
        devices.choose('cuda', 'auto', local_rank=2)


def test_only_a_copy_to_cuda_does_not_wait(monkeypatch):
    """There pinned memory is held until the copy is done. On mps it may be freed and used again before."""
    calls = []
    monkeypatch.setattr(torch.Tensor, 'to', lambda self, *a, **k: calls.append((self, a, k)) or self)
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: self + 1)        # else they look alike
    devices.to_device([np.zeros(2)], 'mps')
    devices.to_device([np.zeros(2)], 'cuda:0')
    assert [(t.sum().item(), a, k) for t, a, k in calls] == \
        [(0, ('mps',), {}), (2, ('cuda:0',), {'non_blocking': True})]


def test_others_wait_for_a_save_longer_than_nccl_would(monkeypatch):
    joined = []
    monkeypatch.setattr(processes, 'ranks', lambda: [1, 2, 1])
    monkeypatch.setattr(processes.signal, 'signal', lambda *_: None)
    join = lambda *a, **k: joined.append((*a, k['timeout']))
    monkeypatch.setattr(processes.dist, 'init_process_group', join)
    monkeypatch.setattr(processes.dist, 'get_backend', lambda: 'nccl')
    processes.join('cuda:1')
    assert joined == [('nccl', datetime.timedelta(hours=2))]


# torch.compile up to its graphs, which are then run without a C++ compiler; at the end, how many there were
TRACE = """
import torch, parts.train.processes as m
from torch._dynamo.testing import CompileCounter
real, leave, counter = torch.compile, m.leave, CompileCounter()
torch.compile = lambda model, **more: real(model, backend=counter, **more)
m.leave = lambda *trouble: (print('graphs', counter.frame_count), leave(*trouble))
"""


@pytest.mark.parametrize('stage', ['sft', 'dpo'])
def test_blocks_with_checkpoints_are_compiled_for_all_lengths(stage, sft_model, conversations, tmp_path):
    """torch 2.13 fails at them with dynamic=True (pytorch#193194)."""
    flags = ['--compile=True', '--grad_checkpoint=True', '--max_steps=8', '--eval_interval=8']
    if stage == 'dpo':
        make_sft(tmp_path / 'sft', dropout=0.1)
        make_pairs(tmp_path / 'pairs')
        said = ok(dpo(tmp_path, *flags, before=TRACE))
    else:
        start = begin(sft_model, conversations)
        said = ok(sft(*start, *flags, f'--out_dir={tmp_path}/run', before=TRACE))
    assert 1 <= int(said.rpartition('graphs ')[2]) <= 4         # a static one first; not one for each length


def test_gradients_stay_in_the_buckets_of_ddp(data_dir, tmp_path):
    """Else those of all micro-batches but the last are a second set, as large as the model."""
    watch = 'import parts.train.processes as m\nsync_if, leave, seen = m.sync_if, m.leave, []\n' \
            'def look(net, last):\n' \
            '    seen.append(len({p.grad.untyped_storage().data_ptr() for p in net.parameters()}))\n' \
            '    return sync_if(net, last)\n' \
            'm.sync_if = look\n' \
            'm.leave = lambda *trouble: (print("storages", *sorted(set(seen))), leave(*trouble))'
    said = ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY,
                  '--micro_batch_size=1', env=TORCHRUN, before=watch))
    assert '\nstorages 1\n' in said


def test_moments_are_not_sent_byte_by_byte(monkeypatch):
    """ZeRO-1 of torch makes Python numbers of them: 78 ns a byte, minutes for a large model."""
    dist = torch.distributed
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(zero, 'ZeroRedundancyOptimizer', lambda *a, **k: 'shared')
    model = GPT(GPTConfig(64, 16, 2, 2, 0, 16))
    assert optim.build(model, 'muon', 1e-3, (0.9, 0.95), 0.1, zero1=True) == ['shared', 'shared']
    assert zero._broadcast_object is optim.broadcast

    sent = []
    monkeypatch.setattr(dist, 'broadcast_object_list', lambda *a: sent.append(a))
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda t: t.device.type)
    moments = {'state': {0: {'exp_avg': torch.zeros(2, device='meta')}}, 'lr': 0.5}
    assert zero._broadcast_object(moments, src_rank=1, group='all', device='cuda:0') == \
        {'state': {0: {'exp_avg': 'meta'}}, 'lr': 0.5}          # CUDA tensors would return to GPU 1
    assert [a[1:] for a in sent] == [(1, 'all', 'cuda:0')]


def test_grouped_heads_that_cuda_has_no_fast_kernel_for_are_repeated(monkeypatch):
    """With a mask, or in float32, torch would keep T x T scores. Here the CPU plays CUDA."""
    seen, real = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention',
                        lambda q, k, v, *a, **more: seen.append((k.shape[1], v.shape[1], more['enable_gqa']))
                        or real(q, k, v, *a, **more))
    model, idx = GPT(GPTConfig(64, 16, 1, 4, 2, 32)), torch.randint(64, (2, 16))
    mask = torch.ones(16, 16, dtype=torch.bool).tril()
    with torch.no_grad():
        plain = [model(idx)[0], model(idx, mask=mask)[0]]
        monkeypatch.setattr(torch.Tensor, 'is_cuda', True)
        repeated = [model(idx)[0], model(idx, mask=mask)[0]]
        model.bfloat16()(idx)
        model(idx, mask=mask)
    assert seen == [(2, 2, True)] * 2 + [(4, 4, False)] * 2 + [(2, 2, True), (4, 4, False)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, repeated))


@pytest.fixture(scope='module')
def alone(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('alone')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--dtype=float32'))
    return out


# the environment in which torchrun starts its only process
TORCHRUN = {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '0',
            'TORCHELASTIC_RUN_ID': 'test'}


@pytest.mark.parametrize('shard', ['zero1', 'fsdp'])
def test_torchrun_with_one_process_shards(data_dir, alone, shard, tmp_path):
    """Else a single GPU could not try what eight will do: --shard would be ignored."""
    ask = 'import torch.distributed as dist, parts.train.processes as m; real = m.unsharded\n' \
          'm.unsharded = lambda model, *more: (print(type(model).__name__, dist.get_backend()), ' \
          'real(model, *more))[1]'
    said = ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY, '--dtype=float32',
                  f'--shard={shard}', env=TORCHRUN, before=ask))
    assert ('\nFSDPGPT gloo\n' if shard == 'fsdp' else '\nGPT gloo\n') in said
    losses = [[m['loss'] for m in metrics(out) if 'loss' in m] for out in (alone, tmp_path)]
    assert losses[0] and losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_sharded_run_that_resumed_holds_no_whole_moments(data_dir, alone, tmp_path):
    """Those of the checkpoint are on each GPU when it is read, and as large as two models."""
    watch = 'import weakref, parts.train.optim as o, parts.train.processes as m\n' \
            'real, leave, kept = o.restore, m.leave, []\n' \
            'def restore(optimizers, scaler, state, *more):\n' \
            '    moments = [s for o in state["optimizers"] for s in o["state"].values()]\n' \
            '    kept.extend(weakref.ref(s["exp_avg"]) for s in moments)\n' \
            '    del moments\n' \
            '    real(optimizers, scaler, state, *more)\n' \
            'def end(trouble):\n' \
            '    print("alive", sum(r() is not None for r in kept), "of", len(kept))\n' \
            '    leave(trouble)\n' \
            'o.restore, m.leave = restore, end'
    shutil.copytree(alone, tmp_path / 'a')
    said = ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}/a', *TINY, '--dtype=float32',
                  '--shard=fsdp', '--init_from=resume', '--max_steps=13', env=TORCHRUN, before=watch))
    assert '\nalive 0 of 20\n' in said


def test_a_gathered_state_is_not_kept_on_the_gpu(monkeypatch):
    moved = []
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda t: moved.append(t.device.type) or torch.zeros(t.shape))
    state = processes.gathered({'state': {0: {'exp_avg': torch.zeros(3, device='meta')}}, 'lr': 0.5})
    assert moved == ['meta'] and state['lr'] == 0.5 and state['state'][0]['exp_avg'].device.type == 'cpu'


def bench(tmp_path, *flags, before=''):
    ok(run('bench/gpu.py', f'--out={tmp_path}', '--tiny=True', '--device=cpu', *flags, before=before))
    return [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]


def test_the_bench_measures_each_in_a_process_of_its_own(tmp_path):
    first, last = bench(tmp_path, '--only=machine')
    assert first['what'] == 'machine' and first['tflops_bf16'] > 0 and first['torch'] == torch.__version__
    assert (last['what'], last['results'], last['errors'], last['not_equal']) == ('all', 1, 0, [])


def test_a_measurement_that_fails_does_not_end_the_others(tmp_path):
    break_it = 'import parts.sample.decoding as d\n' \
               'def fail(*a, **k): raise OSError("no room")\nd.Batch = fail'
    rows = bench(tmp_path, '--measure=equal', before=break_it)
    broken = [row for row in rows if 'error' in row]
    assert [row['what'] for row in broken] == [f'equal, {a} heads: rollouts' for a in ('all', 'grouped')]
    assert {(row['error'], row['kind']) for row in broken} == {('no room', 'OSError')}
    assert len(rows) >= 13 and all(row['ok'] for row in rows if row not in broken)


def test_what_has_no_time_left_is_skipped_and_said(tmp_path):
    skipped, last = bench(tmp_path, '--only=machine', '--minutes=0.01')
    assert skipped['what'] == 'machine' and 'it needs' in skipped['skipped']
    assert (last['results'], last['skipped_ones']) == (1, 1)


def test_a_measurement_that_hangs_is_ended_with_those_that_it_started():
    script = 'sleep 100 & echo $!; sh -c "sleep 100; true" & wait'
    started = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE, text=True)
    assert int(started.stdout.readline()) > started.pid
    sys.path.append(str(ROOT / 'bench'))
    lift('bench/gpu.py', 'end')(started.pid)
    assert started.wait(10) == -signal.SIGKILL
    assert started.stdout.read() == ''          # nobody holds the pipe any more


def test_a_step_of_fixed_shapes_writes_the_same_tokens(monkeypatch):
    """The one that bench/gpu.py captures as a CUDA graph. Without a GPU it runs as it is."""
    monkeypatch.syspath_prepend(str(ROOT / 'bench'))
    import gpu_calls
    for more in {'n_kv_head': 2}, {'qk_norm': True}:
        torch.manual_seed(0)
        model = GPT(GPTConfig(300, 64, 2, 4, n_embd=64, **more)).eval()
        for p in model.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, 0, 0.2)        # so large that the tokens differ
        idx = torch.randint(300, (3, 7))
        written, _ = gpu_calls.fixed_generate(model, idx, 50, compiled=False)
        assert written.unique().numel() > 50
        assert torch.equal(written, model.generate(idx, 50, temperature=0)[:, 7:])
