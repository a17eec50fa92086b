"""
Processes, one for each device, joined by torchrun; ways to share their work: DDP, ZeRO-1, FSDP.

    rank, world, local_rank = ranks()           # 0, 1, 0 without torchrun
    join(device)                                # the other processes; catches Ctrl-C
    total, = all_sum(3)                         # over all processes

Every function also works in a single process.
"""
import atexit, contextlib, datetime, os, re, signal, sys, threading
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

# --- the processes ------------------------------------------------------------------------------------------
signals = []            # those by which this process was asked to stop
stop_votes = 0          # of all processes, at the last all_sum()
fsdp = False            # did shard() split the model?


def ranks():
    """RANK, WORLD_SIZE and LOCAL_RANK, as torchrun sets them, or 0, 1, 0. ValueError if they do not fit."""
    texts = {'RANK': '0', 'WORLD_SIZE': '1', 'LOCAL_RANK': '0'}
    texts = {name: os.environ.get(name, default) for name, default in texts.items()}
    if not all(map(str.isdecimal, texts.values())) or int(texts['RANK']) >= int(texts['WORLD_SIZE']):
        raise ValueError(f'{" ".join(f"{name}={text}" for name, text in texts.items())}: this environment is '
                         'not of torchrun; start with torchrun, or unset these variables')
    return [*map(int, texts.values())]


def join(device):
    """Join the other processes. One process of torchrun joins, too: so one GPU can try DDP and FSDP.
    From now on Ctrl-C, SIGTERM and SIGUSR1 only ask to stop."""
    rank, world, _ = ranks()
    if world > 1 or dist.is_torchelastic_launched():
        patience = datetime.timedelta(hours=2)      # the first process saves; NCCL would wait ten minutes
        waiting = threading.Timer(20, print, [f'process {rank} still waits for the others of {world}: was '
                                              'each of them started, and can it reach MASTER_ADDR?'])
        waiting.daemon = True
        waiting.start()
        sys.excepthook = without_traceback(sys.excepthook)
        try:
            dist.init_process_group('nccl' if device.startswith('cuda') else 'gloo', timeout=patience)
        except ValueError as e:
            raise ValueError(f'{e}; start the {world} processes with torchrun') from e
        waiting.cancel()
        if dist.get_backend() == 'gloo':        # at the interpreter's end its threads could abort the process
            atexit.register(dist.destroy_process_group)
    for name in ('SIGTERM', 'SIGINT', 'SIGUSR1'):       # Windows has no SIGUSR1
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), ask_to_stop)


def without_traceback(hook):
    """An excepthook for which an error of the connection, as when another process has died, is one line."""
    def says(kind, error, tb):
        if isinstance(error, RuntimeError) and re.search('gloo|NCCL|Dist.*Error|by peer', repr(error)):
            kind = OSError
            error = OSError('another process of this run cannot be reached; if it died, its own error says '
                            f'why; resume with --init_from=resume ({str(error).splitlines()[0]:.200})')
        hook(kind, error, tb)
    return says


def ask_to_stop(number, frame):
    signals.append(number)
    signal.signal(signal.SIGINT, signal.SIG_DFL)        # a second Ctrl-C ends at once


def must_stop():
    """Was any process asked to stop? All processes have the same answer: it came with the last all_sum()."""
    return stop_votes > 0


def noise_seed(seed, step):
    """The seed of a step's dropout. It follows from (seed, step, rank), so no random state is saved."""
    return (seed * 1_000_003 + step) * 4096 + ranks()[0]


def per_process(batch_size, micro_batch_size, world):
    """Sequences per process and step, and per forward pass (0: all). ValueError if they do not divide."""
    if batch_size % world:
        nearest = max(1, round(batch_size / world)) * world
        raise ValueError(f'batch_size={batch_size} cannot be shared by {world} processes; nearest: '
                         f'--batch_size={nearest}')
    per_rank = batch_size // world
    micro_batch_size = micro_batch_size or per_rank
    if per_rank % micro_batch_size:
        smaller = max(d for d in range(1, micro_batch_size) if per_rank % d == 0)
        raise ValueError(f'micro_batch_size={micro_batch_size} must divide {per_rank}, the sequences of '
                         f'a process and step; use --micro_batch_size={smaller}')
    return per_rank, micro_batch_size


def all_sum(*values):
    """Sums over all processes, as Python floats. The votes to stop travel with them."""
    global stop_votes
    values = [*values, len(signals)]
    if dist.is_initialized():
        device = 'cuda' if dist.get_backend() == 'nccl' else 'cpu'
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        values = total.tolist()
    *sums, stop_votes = [float(value) for value in values]
    return sums


def gather(value):
    """The values of all processes, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_have(path):
    """Do all processes see this file? Their disks may differ."""
    return all_sum(os.path.exists(path))[0] == ranks()[1]


def same_start(path, values):
    """Refuse to start if the processes differ in values, {name: value}: settings, hashes of what they read,
    and the step of the checkpoint at path."""
    for others in gather(values):
        for name, value in values.items():
            if others[name] != value:
                raise ValueError(f'{name} is {value!r:.70} on one machine, {others[name]!r:.70} on another; '
                                 f'start all with the same settings and files, and the newest {path}')


# --- ways to share the work ---------------------------------------------------------------------------------
def shard(model, how, dtype, device):
    """FSDP, ZeRO stage 3 (arXiv:1910.02054): from now on each process holds a part of every weight, its
    gradient and its moments; the weights of a block are gathered when it works."""
    global fsdp
    fsdp = how == 'fsdp' and dist.is_initialized()
    if not fsdp:
        model.to(device)
        return
    if dtype == 'float16':
        raise ValueError('shard=fsdp does not go with dtype=float16; use --dtype=bfloat16')
    from torch.distributed.device_mesh import init_device_mesh      # costs a second to import
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh(device.split(':')[0], (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)       # a model on the CPU moves part by part
    fully_shard(model, mesh=mesh)


def wrap(net, how, device):
    """net in DDP, unless FSDP shards it: backward() averages the gradients of all processes."""
    if how == 'fsdp' or not dist.is_initialized():
        return net
    for p in net.parameters():      # DDP takes them into its buckets; made later they would be a second set
        if p.requires_grad:
            p.grad = torch.zeros_like(p)
    device_ids = [device] if device.startswith('cuda') else None
    return DistributedDataParallel(net, device_ids=device_ids, gradient_as_bucket_view=True)


def sync_if(net, last):
    """A context for the passes of a micro-batch: DDP averages the gradients only once, in the last."""
    if isinstance(net, DistributedDataParallel) and not last:
        return net.no_sync()
    return contextlib.nullcontext()


def clear_gradients(net):
    """DDP's gradients stay in its buckets, as zeros; others are dropped, and their memory is free."""
    net.zero_grad(set_to_none=not isinstance(net, DistributedDataParallel))


def comm_share(net, micro_batches):
    """The share of a step's passes that waits for gradients, as DDP measured it last; or None."""
    ns = net._get_ddp_logging_data() if isinstance(net, DistributedDataParallel) else {}
    if 'backward_comm_time' not in ns:
        return None
    alone = ns['backward_comm_time'] - ns['backward_compute_comm_overlap_time']
    passes = micro_batches * (ns['forward_compute_time'] + ns['backward_compute_time'])
    return alone / (passes + alone)


def full(t):
    """A tensor as one process would have it. All must call this: FSDP's parts are gathered."""
    if not fsdp:
        return t
    from torch.distributed.tensor import DTensor
    return t.full_tensor() if isinstance(t, DTensor) else t


def own_part(value, p):
    """The part of a whole tensor that this process holds, if p, a parameter, is split by FSDP."""
    if not fsdp or value.shape != p.shape:      # a step counter, for instance, is not split
        return value
    from torch.distributed.tensor import distribute_tensor
    return distribute_tensor(value, p.device_mesh, p.placements)


@torch.no_grad()
def load_weights(model, weights):
    for name, p in model.state_dict().items():
        p.copy_(own_part(weights[name], p))


def gathered(tree):
    """A state dict as one process would have it, in the CPU's memory: a GPU may have no room."""
    def to_first(t):
        t = full(t)
        if ranks()[0] > 0:
            return None
        return t.cpu() if torch.is_tensor(t) else t
    return torch.utils._pytree.tree_map(to_first, tree)


def unsharded(model, kind, device):
    """The model as one process would have it, to sample from and to save: itself. Under FSDP it is a copy in
    the first process, None in the others. All must call this. kind: the model's class."""
    if not fsdp:
        return model
    weights = gathered(model.state_dict())
    if dist.get_rank() > 0:
        return None
    copy = kind(model.config).to(device)
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
