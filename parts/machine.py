"""
The machine: which device and dtype to use.

    device, dtype = choose('auto', 'auto')      # ('cuda:0', 'bfloat16'), ('cpu', 'float32'), ...

Copy this file alone: it needs torch.
"""
import torch


def choose(device, dtype, local_rank=0):
    """Settings 'auto', 'cuda', 'bfloat16', ... -> a device that is there, and the dtype of matrix products,
    both as text. auto: the GPU; bfloat16 where the hardware has it."""
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    kind = device.split(':')[0]
    there = {'cpu': True, 'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available()}
    if not there.get(kind):
        raise ValueError(f'device={device} is not available here; try --device=auto')
    if kind == 'cuda':
        device = f'cuda:{local_rank}' if device == 'cuda' else device
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')      # TF32 for what stays float32
    if dtype == 'auto':     # before Ampere, and on CPUs without the instructions, bfloat16 is emulated and slow
        native = kind == 'cuda' and torch.cuda.get_device_capability(device)[0] >= 8
        native = native or kind == 'cpu' and getattr(torch.cpu, '_is_avx512_bf16_supported', bool)()
        dtype = 'bfloat16' if native else 'float32'
    return device, dtype


def autocast(device, dtype):
    """A context in which matrix products run in dtype; a fresh one at each call."""
    return torch.autocast(device.split(':')[0], getattr(torch, dtype), enabled=dtype != 'float32')
