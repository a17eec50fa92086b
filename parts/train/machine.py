"""
The machine: devices and dtypes; several processes, one per device; DDP, ZeRO-1 and FSDP.

    rank, world, local_rank = ranks()           # 0, 1, 0 without torchrun
    device, dtype = choose('auto', 'auto')      # ('cuda:0', 'bfloat16'), ('cpu', 'float32'), ...
    join(device)                                # the other processes; catches Ctrl-C

Every function also works in a single process. Copy this file alone: it needs torch and numpy.
"""
import atexit, contextlib, ctypes, datetime, os, signal, sys, time
import numpy as np
import torch
import torch.distributed as dist

# --- the device ---------------------------------------------------------------------------------------------
def choose(device, dtype, local_rank=0):
    """The settings -> a device that is there, and the dtype of matrix products, as text."""
    mps = torch.backends.mps.is_available() and ranks()[1] == 1     # no library joins processes on mps
    there = {'cuda': torch.cuda.is_available(), 'mps': mps, 'cpu': True}
    if device == 'auto':
        device = next(name for name, found in there.items() if found)
    kind = device.split(':')[0]
    if not there.get(kind):
        raise ValueError(f'device={device} is not available here; try --device=auto')
    if kind == 'cuda':
        device = f'cuda:{local_rank}' if device == 'cuda' else device
        if int(device.removeprefix('cuda:')) >= (n := torch.cuda.device_count()):
            raise ValueError(f'device={device} is not here: there are {n} GPUs; one process each, at most')
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision('high')      # TF32 for products that stay float32
        torch.backends.cuda.enable_cudnn_sdp(False)     # it builds a plan, up to 1 s, for each new shape
    if kind == 'cpu' and sys.platform == 'linux':       # keep freed memory: new pages take 1/8 of a step
        mallopt = getattr(ctypes.CDLL(None), 'mallopt', lambda *_: 0)       # musl's libc has none
        mallopt(-4, 0)                                  # M_MMAP_MAX: tensors get no mappings of their own
        mallopt(-1, 2 ** 31 - 1)                        # M_TRIM_THRESHOLD: bytes that stay
    if dtype == 'auto':     # before Ampere, and on many CPUs, bfloat16 is emulated and slow
        native = kind == 'cuda' and torch.cuda.get_device_capability(device)[0] >= 8
        if kind == 'cpu':
            native = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)()    # bool() is False: older torch
        dtype = 'bfloat16' if native else 'float32'
    return device, dtype


def autocast(device, dtype):
    """A context in which matrix products run in dtype. It can be entered many times."""
    return torch.autocast(device.split(':')[0], getattr(torch, dtype), enabled=dtype != 'float32')


def to_device(arrays, device):
    """Numpy arrays as tensors on the device. From pinned memory the copy does not wait for the GPU."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    if not device.startswith('cuda'):       # on mps a copy that does not wait may read what is freed by then
        return [t.to(device) for t in tensors]
    return [t.pin_memory().to(device, non_blocking=True) for t in tensors]


class OutOfMemoryAdvice(contextlib.AbstractContextManager):
    """A context that turns an out-of-memory error into one sentence of advice, .text ('' until then). A
    single process can then save. One of several raises a ValueError: the others would wait for ever."""

    def __init__(self, micro_batch_size, per_rank, grad_checkpoint):
        smaller = max((d for d in range(1, micro_batch_size) if per_rank % d == 0), default=0)
        self.text = ''
        self.advice = 'a smaller model or --block_size' if grad_checkpoint else '--grad_checkpoint=True'
        if smaller:
            self.advice = f'--micro_batch_size={smaller}: the result stays the same'

    def __exit__(self, kind, error, traceback):
        said = str(error).lower()       # of a RuntimeError; torch.OutOfMemoryError is one
        if isinstance(error, RuntimeError) and ('out of memory' in said or "can't allocate memory" in said):
            self.text = f'out of memory; try {self.advice}'
            if ranks()[1] > 1:
                raise ValueError(self.text) from error
            return True                 # resume behind the context


def compiled(model, compiling, batch, autocast, out_of_memory_advice, how='ddp'):
    """The model, compiled if that is asked for and works, in wrap(how), and the seconds of a forward and a
    backward pass of the batch. The gradients are thrown away. compiling: None = on CUDA only."""
    def rehearse(net):
        began = time.time()
        with out_of_memory_advice, sync_if(net, False):     # no process waits for another
            with autocast:
                loss = net(*batch)[1]
            loss.backward()
            loss.item()             # wait for the device
        if out_of_memory_advice.text:
            raise ValueError(out_of_memory_advice.text)
        model.zero_grad(set_to_none=not hasattr(net, 'no_sync'))
        return time.time() - began

    compiling = compiling or (compiling is None and batch[0].is_cuda)
    # DDP first: torch then compiles a part for each bucket, and exchanges its gradients during the next part
    net = wrap(torch.compile(model) if compiling else model, how, str(batch[0].device))
    if compiling:
        with torch.no_grad(), autocast:     # moves tables to the device: else the second call compiles again
            model(batch[0][:1])
    try:
        torch.backends.cuda.enable_cudnn_sdp(compiling)     # one shape; the choice is compiled in
        rehearse(net)               # the first call compiles
    except Exception as e:
        if not compiling or out_of_memory_advice.text:
            raise
        print(f'torch.compile failed ({type(e).__name__}): training without it, more slowly')
        if hasattr(net, 'no_sync'):
            net.module = model      # DDP stays, so a process whose compiler fails keeps none waiting
        else:
            net = model
        rehearse(net)
    torch.backends.cuda.enable_cudnn_sdp(False)
    return net, rehearse(net)


# --- the processes ------------------------------------------------------------------------------------------
asked = []          # the signals by which this process was asked to stop


def ranks():
    """This process's number, the number of processes, its number on this machine, as torchrun sets them."""
    return [int(os.environ.get(name, default)) for name, default in
            (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0))]


def join(device):
    """Join the other processes. A single process of torchrun joins, too: so one GPU can try DDP and FSDP.
    From now on Ctrl-C and a scheduler's SIGTERM or SIGUSR1 only ask to stop."""
    if ranks()[1] > 1 or dist.is_torchelastic_launched():
        patience = datetime.timedelta(hours=2)      # the first process saves; NCCL would wait ten minutes
        dist.init_process_group('nccl' if device.startswith('cuda') else 'gloo', timeout=patience)
        if dist.get_backend() == 'gloo':        # at the interpreter's end its threads could abort the process
            atexit.register(dist.destroy_process_group)
    for name in ('SIGTERM', 'SIGINT', 'SIGUSR1'):       # Windows has no SIGUSR1
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ask_to_stop)


def ask_to_stop(number, frame):
    asked.append(number)
    signal.signal(signal.SIGINT, signal.SIG_DFL)        # a second Ctrl-C ends at once


def shares(batch_size, micro_batch_size, world):
    """Sequences per process and step, and per forward pass (0: all). ValueError if they do not divide."""
    if batch_size % world:
        raise ValueError(f'batch_size={batch_size} sequences cannot be shared by {world} processes; nearest: '
                         f'--batch_size={max(1, round(batch_size / world)) * world}')
    per_rank = batch_size // world
    micro_batch_size = micro_batch_size or per_rank
    if per_rank % micro_batch_size:
        divisors = [d for d in range(1, per_rank + 1) if per_rank % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - micro_batch_size))
        raise ValueError(f'micro_batch_size={micro_batch_size} must divide the {per_rank} sequences of a '
                         f'process and step; nearest: --micro_batch_size={nearest}')
    return per_rank, micro_batch_size


def all_sum(*values):
    """Sums over all processes, as Python floats."""
    if not dist.is_initialized():
        return [float(value) for value in values]
    device = 'cuda' if dist.get_backend() == 'nccl' else 'cpu'
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def gather(value):
    """The values of all processes, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def agreed(path, step, *more):
    """step and more, which each process read from path. ValueError if the steps differ."""
    steps = gather(step)
    if len(set(steps)) > 1:
        raise ValueError(f'{path} is at step {min(steps)} on one machine, {max(steps)} on another; put '
                         'out_dir on a disk that all of them see, or copy the newest to each')
    return step, *more


# --- ways to share the work ---------------------------------------------------------------------------------
def shard(model, how, dtype, device):
    """FSDP, ZeRO stage 3 (arXiv:1910.02054): from now on each process holds a part of every weight, its
    gradient and its moments; the weights of a block are gathered when it works."""
    if how != 'fsdp' or not dist.is_initialized():
        return model.to(device)
    if dtype == 'float16':
        raise ValueError('shard=fsdp does not go with dtype=float16; use --dtype=bfloat16')
    from torch.distributed.device_mesh import init_device_mesh      # costs a second to import
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh(device.split(':')[0], (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)       # a model on the CPU moves part by part
    fully_shard(model, mesh=mesh)


def wrap(net, how, device):
    """Wrap net in DDP, unless FSDP shards it: backward() averages the gradients of all processes."""
    if how == 'fsdp' or not dist.is_initialized():
        return net
    for p in net.parameters():      # DDP takes them into its buckets; made later they would be a second set
        if p.requires_grad:
            p.grad = torch.zeros_like(p)
    device_ids = [device] if device.startswith('cuda') else None
    return torch.nn.parallel.DistributedDataParallel(net, device_ids=device_ids, gradient_as_bucket_view=True)


def sync_if(net, last):
    """A context for the backward pass of a micro-batch: DDP averages the gradients only once, in the last."""
    return contextlib.nullcontext() if last or not hasattr(net, 'no_sync') else net.no_sync()


def comm_share(net, dt):
    """The share of a step of dt seconds that waits for gradients, as DDP measures it; None without DDP."""
    if not hasattr(net, 'no_sync'):
        return None
    found = net._get_ddp_logging_data()         # in ns; empty before the first measured pass
    alone = found.get('backward_comm_time', 0) - found.get('backward_compute_comm_overlap_time', 0)
    return alone / 1e9 / dt


def number(t):
    """A tensor of one element as a Python number. Under FSDP all shards are combined first."""
    return getattr(t, 'full_tensor', lambda: t)().item()


def whole(tree):
    """A state dict as one process would have it, in the first one's own memory: a GPU may have no room."""
    def gathered(t):
        t = getattr(t, 'full_tensor', lambda: t)()                      # all processes take part
        if ranks()[0] > 0:
            return None
        return t.cpu() if torch.is_tensor(t) else t
    return torch.utils._pytree.tree_map(gathered, tree)


def unsharded(model, build):
    """The model as one process would have it, to sample from and to save; under FSDP None in all processes
    but the first. build() makes a model of the same architecture."""
    if not hasattr(model, 'unshard'):                                   # not FSDP's
        return model
    weights = whole(model.state_dict())
    if dist.get_rank() == 0:
        copy = build()
        copy.load_state_dict(weights)
        return copy


def leave(trouble=''):
    """The last call of a script. trouble: why the run ended before its time: one line and exit code 2."""
    if dist.is_initialized():
        dist.barrier()              # the first process may still be writing
        dist.destroy_process_group()
        atexit.unregister(dist.destroy_process_group)
    if trouble:
        raise ValueError(trouble)
    sys.stdout.flush()      # stderr is flushed line by line
    os._exit(0)     # the interpreter's own end takes a second with torch; sometimes torch's threads abort
