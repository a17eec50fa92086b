"""What goes wrong in a training run, on purpose: for run(before=), executed in each process."""

DEEDS = {'nan': 'gradient.mul_(float("nan"))', 'spike': 'gradient.mul_(1e4)',
         'kill': 'os.kill(os.getpid(), signal.SIGKILL)', 'sigterm': 'os.kill(os.getpid(), signal.SIGTERM)',
         'sigusr1': 'os.kill(os.getpid(), signal.SIGUSR1)',
         'out of memory': 'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")'}


def full_disk(n_bytes):
    """No file grows beyond so many bytes: what a full disk does, as far as a program can see."""
    return f'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))'


def accident(kind, *updates):
    """It happens in these updates of a trainer, counted from 0, before the gradient is clipped. badbatch: in
    train.py, the batches of these steps are noise."""
    if kind == 'badbatch':
        return f'''
from parts.train import token_bins
take = token_bins.Blocks.take
def spoiled(self, step, rows):
    x, y = take(self, step, rows)
    if step in {updates}:
        x, y = (token_bins.mix(t.astype('uint64')).astype('int64') % 256 for t in (x, y))
    return x, y
token_bins.Blocks.take = spoiled
'''
    return f'''
import os, signal, torch
from parts.train import optim
clip, calls = optim.unscale_and_clip, []
def spoiled(optimizers, scaler, net, grad_clip):
    calls.append(1)
    if len(calls) - 1 in {updates}:
        *_, gradient = [p.grad for p in net.parameters() if p.grad is not None]     # of the last norm or head
        {DEEDS[kind]}
    return clip(optimizers, scaler, net, grad_clip)
optim.unscale_and_clip = spoiled
'''
