"""
Processes: where this one computes, in which precision, and what it shares with the others of its
run.

    here = Process(config)                      # .rank 0, .world 1, .device 'cpu', .dtype 'float32'
    here.sum(3.0)                               # [6.0] if there are two processes
    weights, moments = state_of(model, opt)     # as one process would have them, however split

torchrun starts one process for each device. Everything here also works in a single process without
torchrun.
"""
import atexit, ctypes, datetime, os, signal, sys
import torch
import torch.distributed as dist
from parts import Mistake

# What torchrun says to each process: which one it is, of how many, and where the first one is.
TORCHRUN = 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'


class Process:
    """This process of a run. Public: rank, world (how many there are), is_main, device ('cuda:1'),
    kind ('cuda'), dtype (of matrix products, as text), stop_requests, to_device, sum, gather,
    same and leave. settings: of the run. They must be the same in all processes, which share its
    batch."""

    def __init__(self, settings):
        told = {name: os.environ.get(name, '') for name in TORCHRUN}
        rank, world = (told[name] for name in ('RANK', 'WORLD_SIZE'))
        is_whole = all(told.values()) and rank.isdecimal() and world.isdecimal()
        if rank + world and not (is_whole and int(rank) < int(world)):
            raise Mistake(f'{" ".join(f"{name}={told[name]}" for name in told)}: torchrun sets '
                          'all four, and they fit; start with torchrun, or unset RANK and '
                          'WORLD_SIZE')
        self.rank, self.world = int(rank or 0), int(world or 1)
        self.is_main = self.rank == 0
        self.device, self.dtype = choose(settings['device'], settings['dtype'])
        self.kind = self.device.split(':')[0]
        self.stop_requests = 0
        # One process of torchrun joins, too: so a single GPU can try out FSDP.
        if self.world > 1 or dist.is_torchelastic_launched():
            is_cuda = self.kind == 'cuda'
            # Two hours, because the first process saves alone. NCCL would give up after ten
            # minutes.
            patience = datetime.timedelta(hours=2)
            dist.init_process_group('nccl' if is_cuda else 'gloo', timeout=patience,
                                    device_id=torch.device(self.device) if is_cuda else None)
            # Otherwise its threads could abort the process when the interpreter ends.
            atexit.register(dist.destroy_process_group)
        for name in ('SIGTERM', 'SIGINT', 'SIGUSR1'):       # Windows has no SIGUSR1
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.ask_to_stop)
        # Before the other collectives: with models of two shapes one of them would hang.
        self.same(**settings)
        batch_size, size = settings['batch_size'], settings['micro_batch_size']
        if batch_size % (self.world * max(1, size)):
            raise Mistake(f'{batch_size=} must be a multiple of {self.world} processes x '
                          f'micro_batch_size={size}')

    def ask_to_stop(self, number, frame):
        """Ctrl-C, SIGTERM and SIGUSR1 only ask: the loop saves and leaves. A second Ctrl-C ends at
        once."""
        self.stop_requests += 1
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def to_device(self, arrays):
        """Return arrays of numpy as tensors on the device."""
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def sum(self, *values):
        """Return the sums over all processes, as Python floats."""
        if self.world > 1:
            total = torch.tensor(values, dtype=torch.float64, device=self.device)
            dist.all_reduce(total)
            values = total.tolist()
        return [float(value) for value in values]

    def gather(self, value):
        """Return the values of all processes, in the order of their ranks."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def same(self, **values):
        """Refuse to go on if the processes differ in a value: in a setting, or in a file that each
        one reads."""
        for others in self.gather(values):
            for name, value in values.items():
                if others[name] != value:
                    raise Mistake(f'{name} is {value!r:.70} in one process, '
                                  f'{others[name]!r:.70} in another; start all of them with the '
                                  'same settings and files')

    def leave(self, trouble=''):
        """The last call of a script. trouble: why the run ended before its time: one line and exit
        code 2."""
        if self.world > 1:
            dist.barrier()              # the first process may still be writing
        if trouble:
            raise Mistake(trouble)
        sys.stdout.flush()
        # The interpreter's own end takes a second with torch, and sometimes torch's threads abort
        # it.
        os._exit(0)


# --- the device and its precision -----------------------------------------------------------------
def choose(device, dtype):
    """Return a device that is there and the dtype of matrix products, as text: ('cuda:0',
    'bfloat16')."""
    several = int(os.environ.get('WORLD_SIZE', 1)) > 1          # no library joins processes on mps
    available = {'cuda': torch.cuda.is_available(),
                 'mps': torch.backends.mps.is_available() and not several,
                 'cpu': True}
    if device == 'auto':
        device = next(name for name in available if available[name])
    kind = device.split(':')[0]
    if not available.get(kind):
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
        dtype = 'bfloat16' if native_bfloat16(device) else 'float32'
    return device, dtype


def keep_freed_memory():
    """Make glibc keep large blocks that were freed: asking for new pages takes an eighth of a
    step."""
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt:                         # musl's libc has none
        mallopt(-4, 0)                  # M_MMAP_MAX: tensors get no mappings of their own
        mallopt(-1, 2 ** 31 - 1)        # M_TRIM_THRESHOLD: bytes that stay


def native_bfloat16(device):
    """Does the hardware multiply in bfloat16? GPUs before Ampere and many CPUs only emulate it,
    slowly."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device == 'cpu' and torch.cpu._is_avx512_bf16_supported()


def rehearse(net, model, opt, batch, autocast, compiled=False):
    """Run net forward and backward on one batch, before the run writes anything: if it does not fit
    into memory, you see it now. If net is compiled, that happens here, too. Afterwards the
    gradients are 0."""
    if not opt.state:
        # The first step would make Adam's moments. Made here, they take part in the rehearsal, and
        # a checkpoint has them even if the guard refuses the first update. A rate of 0 leaves the
        # weights as they are.
        for group in opt.param_groups:
            group['lr'] = 0.0           # the loop sets it before each step
            for p in group['params']:
                p.grad = torch.zeros_like(p)
        opt.step()
        for moments in opt.state.values():
            if 'step' in moments:
                moments['step'].zero_()         # this step does not count
    # Before the compiler sees RoPE's tables they must be on the device, or the second step compiles
    # again.
    model.cos, model.sin = model.cos.to(batch[0].device), model.sin.to(batch[0].device)
    # Training has one shape, so cuDNN's plan pays; the choice is compiled in.
    torch.backends.cuda.enable_cudnn_sdp(compiled)
    try:
        with autocast:
            loss = net(*batch, with_logits=False)[1]
        loss.backward()
        loss.item()                     # waits for the device
    except Exception as e:
        if not compiled or 'memory' in str(e):
            raise
        raise Mistake(f'torch.compile failed ({type(e).__name__}); train without it, more '
                      'slowly: --compile=False') from e
    net.zero_grad(set_to_none=False)    # DDP's stay in its buckets
    torch.backends.cuda.enable_cudnn_sdp(False)


# --- more than one process: what each of them holds -----------------------------------------------
def shard(model, how, here, compiled=False):
    """Split a model over the processes (ZeRO, arXiv:1910.02054). Each holds its part of the
    gradients and of Adam's moments; with how='fsdp' also of the weights, which are gathered, block
    by block, when they work."""
    if here.dtype == 'float16':
        raise Mistake(f'shard={how} does not work with dtype=float16; use --dtype=bfloat16')
    from torch.distributed.device_mesh import init_device_mesh      # costs a second to import
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.fsdp import register_fsdp_forward_method
    # In bfloat16 half as many bytes travel; gradients are summed in float32.
    half = torch.bfloat16 if here.dtype == 'bfloat16' else None
    options = {'mesh': init_device_mesh(here.kind, (here.world,)),
               'mp_policy': MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False),
               'reshard_after_forward': how == 'fsdp'}
    for block in model.blocks:
        if compiled:          # each by itself, because FSDP's hooks between them cannot be compiled
            block.compile(dynamic=False)
        fully_shard(block, **options)
    fully_shard(model, **options)
    # The residual stream stays float32.
    model.embedding.register_forward_hook(lambda module, x, y: y.float())
    # The cache grows with each token: the blocks would be compiled again for each length.
    model.generate = torch.compiler.set_stance('force_eager')(model.generate)
    register_fsdp_forward_method(model, 'generate')
    return torch.compile(model) if compiled else model


def state_of(model, optimizers):
    """Return weights and moments as one process would have them, in the memory of the first
    process's CPU; the others get {}. All processes must call this."""
    from torch.distributed.checkpoint import state_dict as whole_state    # costs a second to import
    options = whole_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
    return whole_state.get_state_dict(model, optimizers, options=options)


def load_state(model, opt, scaler, state):
    """Take over the weights, the moments and float16's scale of a checkpoint; each process keeps
    its part. Learning rate, weight decay and betas stay those of opt, so that a resumed run can
    change them."""
    from torch.distributed.checkpoint import state_dict as whole_state
    settings = [{name: value for name, value in group.items() if name != 'params'}
                for group in opt.param_groups]
    options = whole_state.StateDictOptions(full_state_dict=True)
    weights = state.get('unmerged', state['model'])         # with adapters or a reward head
    whole_state.set_state_dict(model, opt, model_state_dict=weights,
                               optim_state_dict=state['moments'], options=options)
    for group, own in zip(opt.param_groups, settings):
        group.update(own)
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())      # {} without float16


def whole(t):
    """Return a number or a matrix as one process would have it. All must call this: FSDP's parts
    are gathered."""
    return t.full_tensor() if hasattr(t, 'full_tensor') else t
