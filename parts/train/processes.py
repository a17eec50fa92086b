"""
Processes: where this process computes, in which precision, and what it shares with the other
processes of its run.

    here = Process(config)                      # .rank 0, .world 1, .device 'cpu', .dtype 'float32'
    here.sum(3.0)                               # [6.0] if there are two processes
    weights, moments = state_of(model, [opt])   # as one process would have them, however split

torchrun starts one process for each device. Everything here also works in a single process without
torchrun.
"""
import atexit, ctypes, datetime, os, re, signal, sys
import torch
import torch.distributed as dist
from extras.muon import is_native
from parts import Mistake

# What torchrun says to each process: which one it is, of how many, and where the first one is.
TORCHRUN = 'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'


class Process:
    """This process of a run. Public: rank, world (the number of processes), is_main (rank is 0),
    device ('cuda:1'), kind ('cuda'), dtype (of matrix products, as text), stop_requests, to_device,
    sum, gather, same and leave. settings: those of the run. The processes share its batch, so the
    settings must be the same in all of them."""

    def __init__(self, settings):
        told = {name: os.environ.get(name, '') for name in TORCHRUN}
        rank, world = (told[name] for name in ('RANK', 'WORLD_SIZE'))
        is_whole = all(told.values()) and rank.isdecimal() and world.isdecimal()
        if rank + world and not (is_whole and int(rank) < int(world)):
            raise Mistake(f'{" ".join(f"{name}={told[name]}" for name in told)}: all four must be '
                          'set, and RANK must be below WORLD_SIZE; start with torchrun, or unset '
                          'RANK and WORLD_SIZE')
        self.rank, self.world = int(rank or 0), int(world or 1)
        self.is_main = self.rank == 0
        self.device, self.dtype = choose(settings['device'], settings['dtype'])
        self.kind = self.device.split(':')[0]
        self.stop_requests = 0
        # A process that torchrun started alone also joins a group, so one GPU can try out FSDP.
        if self.world > 1 or dist.is_torchelastic_launched():
            is_cuda = self.kind == 'cuda'
            # While the first process saves, the others wait. NCCL would give up after ten minutes.
            patience = datetime.timedelta(hours=2)
            dist.init_process_group('nccl' if is_cuda else 'gloo', timeout=patience,
                                    device_id=torch.device(self.device) if is_cuda else None)
            # Otherwise the group's threads could abort the process when the interpreter ends.
            atexit.register(dist.destroy_process_group)
        for name in ('SIGTERM', 'SIGINT', 'SIGUSR1'):       # Windows has no SIGUSR1
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self.ask_to_stop)
        # This comes before any other exchange, which would hang with models of two shapes.
        self.same(**settings)
        batch_size, size = settings['batch_size'], settings['micro_batch_size']
        if batch_size % (self.world * max(1, size)):
            raise Mistake(f'{batch_size=} must be a multiple of {self.world} processes x '
                          f'micro_batch_size={size or 1}')

    def ask_to_stop(self, number, frame):
        """Count a Ctrl-C, a SIGTERM or a SIGUSR1: the loop will save and leave. A second Ctrl-C
        ends the process at once."""
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
        """End the script: the last call in it. trouble: why the run ended too early, which becomes
        one line and exit code 2."""
        if self.world > 1:
            dist.barrier()              # the first process may still be writing
        if trouble:
            raise Mistake(trouble)
        sys.stdout.flush()
        # The interpreter's own end takes a second, and torch's threads sometimes abort it.
        os._exit(0)


# --- the device and its precision -----------------------------------------------------------------
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


# --- more than one process: what each of them holds -----------------------------------------------
def state_of(model, optimizers):
    """Return weights and moments as one process would have them, on the CPU of the first process.
    The other processes get {}. All processes must call this."""
    from torch.distributed.checkpoint import state_dict as whole_state    # costs a second to import
    options = whole_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
    return whole_state.get_state_dict(model, optimizers, options=options)


def load_state(model, opt, scaler, state):
    """Take over the weights, the moments and float16's scale from a checkpoint; each process keeps
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
