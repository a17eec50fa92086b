"""
Devices and dtypes: where a run computes, and in which precision.

    device, dtype = choose('auto', 'auto')      # ('cuda:0', 'bfloat16'), ('cpu', 'float32'), ...
    with autocast(device, dtype): ...           # matrix products run in dtype
"""
import ctypes, os, sys
import numpy as np
import torch


def set_up(device, dtype, local_rank):
    """For training: choose(), the autocast() of that dtype, and a scaler of gradients."""
    device, dtype = choose(device, dtype, local_rank)
    scaler = torch.amp.GradScaler(device.split(':')[0], enabled=dtype == 'float16')     # its range is small
    return device, dtype, autocast(device, dtype), scaler


def choose(device, dtype, local_rank=0):
    """The settings -> a device that is there, and the dtype of matrix products, as text."""
    several = int(os.environ.get('WORLD_SIZE', 1)) > 1          # no library joins processes on mps
    available = {'cuda': torch.cuda.is_available(),
                 'mps': torch.backends.mps.is_available() and not several,
                 'cpu': True}
    if device == 'auto':
        device = next(name for name in available if available[name])
    kind = device.split(':')[0]
    if not available.get(kind):
        raise ValueError(f'device={device} is not available here; try --device=auto')
    if kind == 'cuda':
        device = f'cuda:{local_rank}' if device == 'cuda' else device
        n = torch.cuda.device_count()
        if int(device.removeprefix('cuda:')) >= n:
            raise ValueError(f'device={device} is not here: there are {n} GPUs; one process each, at most')
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')      # TF32 for products that stay float32
        torch.backends.cuda.enable_cudnn_sdp(False)     # it builds a plan, up to 1 s, for each new shape
    if kind == 'cpu' and sys.platform == 'linux':
        keep_freed_memory()
    if dtype == 'auto':
        dtype = 'bfloat16' if native_bfloat16(device) else 'float32'
    return device, dtype


def keep_freed_memory():
    """glibc returns large blocks to the system; asking for new pages takes an eighth of a step."""
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:                         # musl's libc has none
        mallopt(-4, 0)                  # M_MMAP_MAX: tensors get no mappings of their own
        mallopt(-1, 2 ** 31 - 1)        # M_TRIM_THRESHOLD: bytes that stay


def native_bfloat16(device):
    """Does the hardware multiply in bfloat16? GPUs before Ampere and many CPUs only emulate it, slowly."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device == 'cpu' and torch.cpu._is_avx512_bf16_supported()


def autocast(device, dtype):
    """A context in which matrix products run in dtype. It can be entered many times."""
    return torch.autocast(device.split(':')[0], getattr(torch, dtype), enabled=dtype != 'float32')


def to_device(arrays, device):
    """Numpy arrays as tensors on the device. From pinned memory the copy does not wait for the GPU."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    if device.startswith('cuda'):
        return [t.pin_memory().to(device, non_blocking=True) for t in tensors]
    return [t.to(device) for t in tensors]      # on mps a copy that does not wait may read freed memory


def rehearse(net, batch, autocast, eager=None):
    """Run net forward and backward on a batch: if it does not fit, that shows before the run writes anything.
    The gradients are 0 afterwards. eager: the model within net, if net is compiled, which happens here."""
    if eager is not None:
        with torch.no_grad(), autocast:
            eager(batch[0][:1])         # moves RoPE's tables to the device, or the next call compiles, too
    torch.backends.cuda.enable_cudnn_sdp(eager is not None)     # one shape; the choice is compiled in
    try:
        with autocast:
            loss = net(*batch)[1]
        loss.backward()
        loss.item()                     # waits for the device
    except Exception as e:
        if eager is None or 'memory' in str(e):
            raise
        raise ValueError(f'torch.compile failed ({type(e).__name__}); train without it, more slowly: '
                         '--compile=False') from e
    net.zero_grad(set_to_none=False)        # DDP's stay in its buckets
    torch.backends.cuda.enable_cudnn_sdp(False)
