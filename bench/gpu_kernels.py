"""Kernels of a compiled training step of 110M (micro 32), and of 32 tokens of generation at batch 16 and 256."""
import collections, os, sys, time
sys.path[:0] = ['.', 'bench']
import torch
import gpu_calls
from model import GPTConfig
from parts.train import processes
tiny = not torch.cuda.is_available()
device, _ = processes.choose('auto', 'auto')
c = GPTConfig(1024, 32, 2, 2, 0, 32) if tiny else GPTConfig(32768, 1024, 12, 12, 0, 768)

def profile(name, call, n):
    from torch.profiler import profile, ProfilerActivity
    acts = [ProfilerActivity.CPU] + ([] if tiny else [ProfilerActivity.CUDA])
    call(); call()
    gpu_calls.wait()
    began = time.time()
    for _ in range(n):
        call()
    gpu_calls.wait()
    wall = (time.time() - began) / n * 1e3
    with profile(activities=acts) as p:
        for _ in range(n):
            call()
        gpu_calls.wait()
    rows = []
    for e in p.key_averages():
        t = getattr(e, 'self_device_time_total', 0) / n / 1e3
        if t > 0 and 'cuda' in str(e.device_type).lower():
            rows.append((t, e.count / n, e.key))
    rows.sort(reverse=True)
    total = sum(r[0] for r in rows)
    print(f'== {name}: wall {wall:.2f} ms a call, kernels {total:.2f} ms in {sum(r[1] for r in rows):.0f} launches')
    for t, k, key in rows[:28]:
        print(f'{t:9.3f} ms {k:7.1f} x  {key[:110]}')
    sys.stdout.flush()

for who in ('ours', 'theirs') if len(sys.argv) < 2 else sys.argv[1:]:
    work, n = gpu_calls.work_of('train', who, c, device, 2 if tiny else 32, compiled=not tiny)
    profile(f'train {who}', work, 3)
    del work
    if not tiny:
        torch._dynamo.reset(); torch.cuda.empty_cache()
torch.backends.cuda.enable_cudnn_sdp(False)
for batch in (16, 256):
    work, n = gpu_calls.work_of('generate', 'ours', c, device, batch, new=32)
    profile(f'generate batch {batch}, 32 tokens', work, 2)
