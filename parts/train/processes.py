"""
Processes: where a script that samples or measures computes, and in which precision.

    choose('auto', 'auto')                      # ('cpu', 'float32')
"""
import ctypes, os, re, sys
import torch
from extras.muon import is_native
from parts import Mistake


def choose(device, dtype):
    """Return a device that this machine has, and the dtype of matrix products, as text:
    ('cuda:0', 'bfloat16')."""
    several = int(os.environ.get('WORLD_SIZE', 1)) > 1          # no library joins processes on mps
    available = {'cuda': torch.cuda.is_available(),
                 'mps': torch.backends.mps.is_available() and not several,
                 'cpu': True}
    if device == 'auto':
        device = next(name for name in available if available[name])
    kind = device.split(':')[0]
    if not available.get(kind) or not re.fullmatch(r'cpu|mps|cuda(:\d+)?', device):
        raise Mistake(f'device={device} is not available here; try --device=auto')
    if kind == 'cuda':
        device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if device == 'cuda' else device
        n = torch.cuda.device_count()
        if int(device.removeprefix('cuda:')) >= n:
            raise Mistake(f'device={device} does not exist: this machine has {n} GPUs; start '
                          'at most one process for each')
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')      # TF32 for products that stay float32
        # cuDNN's attention would build a plan, up to a second, for each new shape.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if kind == 'cpu' and sys.platform == 'linux':
        keep_freed_memory()
    if dtype == 'auto':
        dtype = 'bfloat16' if is_native(torch.device(device)) else 'float32'
    return device, dtype


def keep_freed_memory():
    """Make glibc keep large blocks that were freed, because asking the system for new pages takes
    an eighth of a step."""
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:                         # musl's libc has none
        mallopt(-4, 0)                  # M_MMAP_MAX: tensors get no mappings of their own
        mallopt(-1, 2 ** 31 - 1)        # M_TRIM_THRESHOLD: bytes that stay
