"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                            # minutes on two CPU cores
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py --out_dir=out/base --init_from=resume           # resumes; on a CPU, bit for bit
    python train.py config/codeparrot.py --plan=8xH100              # says what that run would take

It reads data_dir, which prepare.py made, and writes out_dir, a folder that you can zip and use
anywhere. You should see a first loss near ln(vocab_size) and a fast fall. A line that imports
extras is a door: one setting opens it.

Two rules make runs reproducible. First, the text of a step follows from (seed, step), and its
dropout from (seed, step, rank), so a resumed run equals one that was never interrupted. Second,
batch_size counts the sequences of all devices together, for instance 512 = 8 processes x 16
micro-batches x 4, so 1 and 8 devices compute the same steps. Without dropout they differ by
rounding only: by 1e-7 in float32, and by more in bfloat16, where it grows with the steps.
"""
import contextlib, copy, datetime, functools, hashlib, json, math, os, pathlib, shutil, signal
import sys, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from configurator import Mistake, configure, require, set_by
from model import GPT, GPTConfig, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
# files
data_dir = 'data/quickstart'    # made by prepare.py
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, resume, auto (resume if it can), a model's folder or .pt
overwrite = False               # True: delete the run that out_dir holds, and start over
# model (GPTConfig in model.py)
n_layer = 6                     # blocks
n_head = 6                      # query heads, each n_embd / n_head wide; 32 to 128 is usual
n_kv_head = 0                   # key/value heads; 0 = n_head; fewer make the cache smaller
n_embd = 192                    # width of the residual stream
n_ffn = 0                       # hidden width of the MLP; 0 = 8/3 n_embd, to the nearest 64
block_size = 256                # context, tokens
vocab_size = 0                  # 0 = that of the data's tokenizer; another one is refused
vocab_multiple = 1              # pads the vocabulary; 64 is fast on GPUs
tie_embeddings = True           # one matrix is both embedding and head
dropout = 0.0                   # 0.1 to 0.2 when the data are repeated many times
# optimization
max_steps = 1000                # updates
batch_size = 32                 # sequences per step, over all devices and accumulation
micro_batch_size = 0            # most sequences per device and forward pass; 0 = all
learning_rate = 1e-3            # peak; lower for larger models
embedding_lr = 1.0              # factor of the embedding's (and a tied head's) learning rate
min_lr: float | None = None     # where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
schedule: Literal['cosine', 'wsd'] = 'cosine'   # wsd stays at the peak, then falls in decay_steps
decay_steps = 0                 # steps of the final fall of wsd; 0 = a fifth of max_steps
weight_decay = 0.1              # pull of the weights towards 0; of matrices only
beta1 = 0.9                     # AdamW's decay of the mean gradient
beta2 = 0.95                    # its decay of the mean square; 0.95 averages 20 steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
spike_z = 8.0                   # standard deviations that make a loss a spike, skipped; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 250             # steps; also before the first and after the last
eval_tokens = 65_536            # tokens of each val*.bin to measure, always the same; 0 = all
save_interval = 250             # steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
sample_tokens = 100             # length of that sample
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'   # auto: bfloat16 if it is fast
compile: bool | None = None     # torch.compile; None = on CUDA
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of weights, order and dropout
# doors to extras/
objective: Literal['clm', 'mlm', 'span'] = 'clm'    # predict the next token, masked ones, or spans
document_mask = False           # clm: attention stays within a document
streaming = ''                  # folder or glob of .jsonl(.gz) shards, read instead of train.bin
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
shard: Literal['ddp', 'zero2', 'fsdp'] = 'ddp'      # split nothing, gradients and moments, or all
plan = ''                       # 8xH100, 2x8xA100, 4x312:80 (TFLOPs:GB): print memory, days, cost
# What some numbers may be; all others are at least 0.
BOUNDS = {**dict.fromkeys('n_layer n_head n_embd block_size vocab_multiple max_steps batch_size '
                          'log_interval eval_interval save_interval sample_tokens'.split(),
                          (1, 1e12)),
          **dict.fromkeys(('dropout', 'beta1', 'beta2'), (0, 0.9999)), 'seed': (0, 2 ** 32 - 1)}


# --- which text a step reads, and how far it goes -------------------------------------------------
@functools.lru_cache(2)         # 8 bytes a sequence
def starts_of(epoch, n_tokens, T, seed):
    """Return where the sequences of an epoch begin in a bin of n_tokens, in the order in which they
    are read, int64 (n,). Each block of T tokens is there once. Each epoch has its own order and its
    own shift, so a text that is read again is cut elsewhere: of 10 tokens, T=3 makes the blocks
    0 1 2 and 3 4 5 or, shifted by 2, 2 3 4 and 5 6 7."""
    n = max(1, n_tokens // T - 1)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    return shuffled(n) * T + shuffled(n_tokens - n * T)[0]


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """Return the learning rate of update `step`, counted from 0: a linear rise, then half a cosine
    (SGDR, arXiv:1608.03983), or with 'wsd' a constant rate and a linear fall at the end
    (2404.06395). lr_at(step, 100, 10, 1.0, 0.1) is 0.1 at step 0, 1.0 at 9 and 10, 0.55 at 55."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        # If the last 20 of 100 steps are the decay_steps: 0 up to step 80, 0.5 at 90, 1 at 100.
        fall = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))
        return learning_rate - (learning_rate - min_lr) * fall
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)     # from 0 to 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * progress))


# Config files and flags replace the values above. config is a dict of the same values.
config = configure(globals(), BOUNDS)
if plan:
    from extras import planner
    sys.exit(planner.show(config))

# --- this process ---------------------------------------------------------------------------------
# torchrun starts a process for each device, and tells each its rank and the size of the world.
rank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
if device == 'auto':
    device = 'mps' if torch.backends.mps.is_available() and world == 1 else 'cpu'
    device = 'cuda' if torch.cuda.is_available() else device
if device == 'cuda':
    device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
kind = device.split(':')[0]             # cuda, of cuda:1
try:
    torch.empty(1, device=device)
except (RuntimeError, AssertionError) as error:
    raise Mistake(f'{device=} is not here ({error}); try --device=auto') from None
if kind == 'cuda':
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
if dtype == 'auto':                     # older GPUs and many CPUs only emulate bfloat16, slowly
    is_native = (torch.cuda.get_device_capability()[0] >= 8 if kind == 'cuda' else
                 kind == 'cpu' and torch.cpu._is_avx512_bf16_supported())
    dtype = 'bfloat16' if is_native else 'float32'
autocast = torch.autocast(kind, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(kind, enabled=dtype == 'float16')
if 'WORLD_SIZE' in os.environ:
    print(f'process {rank} of {world} waits for the others', flush=True)
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo',
                            timeout=datetime.timedelta(minutes=30),         # a save may take long
                            device_id=torch.device(device) if kind == 'cuda' else None)


def summed(*values):
    """Return the sums over all processes, as Python floats, for which the CPU waits."""
    exact = torch.float32 if kind == 'mps' else torch.float64
    sums = torch.stack([torch.as_tensor(value, dtype=exact, device=device) for value in values])
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


stop_requests = []                      # signals that this process has got


def ask_to_stop(number, frame):
    """Ask the loop to save and stop. A second Ctrl-C ends the process at once."""
    stop_requests.append(number)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


for name in {'SIGINT', 'SIGTERM', 'SIGUSR1'} & {*dir(signal)}:          # Windows has no SIGUSR1
    signal.signal(getattr(signal, name), ask_to_stop)

# --- the schedule --------------------------------------------------------------------------------
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
min_lr = learning_rate / 10 if min_lr is None else min_lr
if schedule == 'wsd':
    decay_steps = decay_steps or max(0, min(max_steps // 5, max_steps - warmup_steps))
require(batch_size % world == 0, f'{batch_size=} must be a multiple of the {world} processes')
require(schedule == 'wsd' or not decay_steps, f'{decay_steps=} needs --schedule=wsd')
require(warmup_steps + decay_steps <= max_steps,
        f'{warmup_steps=} and {decay_steps=} must fit into {max_steps=}; try --warmup_steps=0.1')

# --- data -----------------------------------------------------------------------------------------
require(os.path.exists(f'{data_dir}/meta.json'),
        f'{data_dir} has no meta.json; prepare it as your config file says, or from your text: '
        f'python prepare.py --source=FILE --out_dir={data_dir}')
meta_text = pathlib.Path(data_dir, 'meta.json').read_bytes()
meta = json.loads(meta_text)
tokenizer = Tokenizer.load(f'{data_dir}/tokenizer.json')
V = tokenizer.vocab_size
require(meta.get('tokenizer_hash') == tokenizer.hash and 'dtype' in meta and vocab_size in (0, V),
        f'{data_dir} must have token ids of its tokenizer.json, which has {V} tokens; run '
        'prepare.py again, or leave --vocab_size out')
T = block_size                  # tokens of text in a sequence; span adds sentinels to them
hide = stream = None
if objective != 'clm' or document_mask:
    from extras.objectives import Objective
    hide = Objective(objective, document_mask, tokenizer, block_size, seed)
    T = hide.n_text
# {'train': token ids, 'val': ..., and of a mixture a 'val_web' for each source}, memory-mapped
bins = {}
data_hash = hashlib.sha256(meta_text)   # of what a run reads: it goes on with the same
sources = meta['sources'] if len(meta['sources']) > 1 else {}
for name in ('train', 'val', *[f'val_{source}' for source in sources]):
    path = f'{data_dir}/{name}.bin'
    if os.path.exists(path) and os.path.getsize(path) > T * np.dtype(meta['dtype']).itemsize:
        bins[name] = ids = np.memmap(path, meta['dtype'], 'r')
        # 64 pieces, which of a bin of up to 16 million tokens are all
        starts = np.linspace(0, max(0, len(ids) - 2 ** 18), 64).astype(int)
        pieces = np.concatenate([ids[i:i + 2 ** 18] for i in starts])
        data_hash.update(pieces)
        require(pieces.max() < V, f'{path} has ids above {V}, the size of the vocabulary')
if streaming:
    from extras.streaming import Stream
    stream = Stream(streaming, rank, world, tokenizer)
    data_hash.update(stream.identity)
elif sources and not meta.get('mixed', True):       # each is read as often as it weighs
    from extras import mixture
    starts_of = mixture.weighted(sources)
require('val' in bins and ('train' in bins or stream), f'{data_dir} needs train.bin and val.bin, '
        f'of more than {T} tokens each; shards of text need --streaming=FOLDER')
data_hash = data_hash.hexdigest()

# The rows of a step's batch that this process computes. Of a batch of 8 in micro-batches of 2, the
# second of 2 processes has [[4, 5], [6, 7]]. A micro-batch is the largest that divides its rows.
per_process = batch_size // world
micro_batch_size = max(n for n in range(1, per_process + 1)
                       if per_process % n == 0 and n <= (micro_batch_size or per_process))
my_rows = np.arange(batch_size).reshape(world, -1, micro_batch_size)[rank]


def get_batch(ids, numbers, step=None):
    """Return the arguments of model.forward, on the device: inputs and targets, (B, T) each, the
    same text one token later, and perhaps a mask. numbers: rows of the batch of a step, or, if step
    is None, blocks of held-out text. Row 5 of step 7 is sequence 7 * batch_size + 5 of the run, an
    epoch has n sequences. A stream goes on from its position instead."""
    if stream and step is not None:
        texts = stream.take(len(numbers), T)                                        # (B, T + 1)
    else:
        starts = numbers * T
        if step is not None:
            n = len(starts_of(0, len(ids), T, seed))
            starts = [starts_of(i // n, len(ids), T, seed)[i % n]
                      for i in step * batch_size + numbers]
        texts = np.stack([ids[i:i + T + 1] for i in starts]).astype(np.int64)       # (B, T + 1)
    tensors = torch.from_numpy(texts[:, :-1]), torch.from_numpy(texts[:, 1:])
    if hide:
        tensors = hide.apply(*tensors, numbers, step)
    if kind == 'cuda':                  # from pinned memory a GPU copies while the CPU goes on
        tensors = [t.pin_memory() for t in tensors]
    return [t.to(device, non_blocking=True) for t in tensors]


# --- model: new, of the run that goes on, or of a folder ------------------------------------------
torch.manual_seed(seed)
changes = {'dropout': dropout, 'causal': objective != 'mlm'}
shape = {name: config[name] for name in ('n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn',
                                         'vocab_multiple', 'tie_embeddings')}
try:
    wanted = GPTConfig(vocab_size=V, block_size=block_size, **shape, **changes)
    if init_from == 'scratch':
        model = GPT(wanted)
    elif init_from != 'resume':
        model = GPT.load(init_from, **changes)
    else:
        try:
            model = GPT.load(f'{out_dir}/last.pt', **changes)
        except ValueError as error:     # the disk was full, or the power failed
            print(f'{error}; trying last-1.pt')
            model = GPT.load(f'{out_dir}/last-1.pt', **changes)
except ValueError as error:
    raise Mistake(error) from None
state = model.saved if init_from == 'resume' else {}    # what resuming needs besides the weights
before = vars(model.config) | state.get('config', {})
for name in [*shape, 'optimizer', 'objective', 'document_mask', 'batch_size', 'seed']:
    value = getattr(wanted, name, config[name])
    require(name not in set_by or value == before.get(name, value),
            f'{init_from}: {name} is {before.get(name)!r} there, not {value!r}; leave {name} out')
config |= {name: getattr(model.config, name) for name in shape}
require(block_size <= model.config.block_size, f'{block_size=} is above the context of {init_from},'
        f' {model.config.block_size}; make it longer: python -m extras.longer_context')
require(getattr(model, 'saved', {}).get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{init_from} has another tokenizer than {data_dir}; prepare the data with its '
        'tokenizer.json, or see python -m extras.new_vocabulary')
if state:
    require(state.get('data') == data_hash,
            f'the run in {out_dir} has read other data than {data_dir}, or is not of this train.py')
    require(state['step'] < max_steps, f'{out_dir} is at {max_steps=}; to go on, raise it')
    config['init_from'] = state['config']['init_from']
    if stream:
        stream.go_to(state['positions'])
if world > 1:           # processes that differ would hang, or train two models that mix
    weights = init_from != 'scratch' and [
        p.detach().view(torch.int32).sum().item() for p in model.parameters()]
    mine = config, data_hash, weights, state.get('step')
    theirs = [None] * world
    dist.all_gather_object(theirs, mine)
    require(theirs.count(mine) == world, 'the processes have different settings, data or weights; '
            'start all of them with the same flags and files')

# The loop calls net: the model, perhaps compiled, and in DDP, which averages gradients.
compile = kind == 'cuda' if compile is None else compile
model.grad_checkpoint = grad_checkpoint
if shard == 'ddp':
    model.to(device)
    net = torch.compile(model) if compile else model
    if world > 1:               # large buckets, because the compiler cuts its graph between them
        net = DDP(net, gradient_as_bucket_view=True, bucket_cap_mb=100)
else:
    from extras import sharding
    net = sharding.shard(model, shard, kind, dtype, compile)

# --- optimizer ------------------------------------------------------------------------------------
# Weight decay pulls weights towards 0. The norms' gains (vectors) belong near 1, so they have none.
# AdamW ignores use_muon and lr_scale: the first is for Muon, the second for the loop.
groups = [{'params': [p for p in model.blocks.parameters() if p.dim() == 2],
           'use_muon': optimizer == 'muon'},
          {'params': [model.embedding.weight], 'lr_scale': embedding_lr},
          {'params': [p for p in model.parameters() if p.dim() == 1], 'weight_decay': 0.0}]
if not model.config.tie_embeddings:
    groups.append({'params': [model.head.weight]})
Optimizer = torch.optim.AdamW
if optimizer == 'muon':
    from extras.muon import Muon as Optimizer
opt = Optimizer(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay,
                fused=kind != 'mps')
if state:               # the moments; rates, decay and betas stay those of now
    moments = state['optimizer'] if shard == 'ddp' else sharding.split(state['optimizer'], opt)
    opt.load_state_dict({**opt.state_dict(), 'state': copy.deepcopy(moments)})
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())      # {} without float16
step = state.get('step', 0)
best_val = state.get('best_val', math.inf)
window = state.get('window', [])        # losses of the last 100 updates
skipped = state.get('skipped', 0)       # updates
state = moments = model.saved = {}      # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    ours = ['last.pt', 'last-1.pt', 'best.pt', 'config.json', 'tokenizer.json', 'data.json',
            'metrics.jsonl', 'samples.txt', 'train.log', 'eval.json', 'samples.jsonl']
    is_origin = os.path.realpath(init_from).startswith(os.path.realpath(out_dir))
    is_there = any(os.path.exists(f'{out_dir}/{name}') for name in ours[:4])
    require(not is_there or init_from == 'resume' or overwrite and not is_origin,
            f'{out_dir} has a run or a model; choose another --out_dir, resume with '
            '--init_from=resume or, unless it starts from there, --overwrite=True')
    os.makedirs(out_dir, exist_ok=True)
    lock = open(f'{out_dir}/.lock', 'w')        # the system lifts it when this process ends
    with contextlib.suppress(ImportError):      # Windows has no such locks
        import fcntl
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake(f'another run writes to {out_dir}; wait, or choose another') from None
    for path in pathlib.Path(out_dir).iterdir():        # a link could lead our writes anywhere
        if path.name.removesuffix('.tmp') in ours and (init_from != 'resume' or path.is_symlink()):
            path.unlink()
    tokenizer.save(f'{out_dir}/tokenizer.json')
    shutil.copy(f'{data_dir}/meta.json', f'{out_dir}/data.json')


def save(name):
    """Write what resuming needs under another name, then rename it: a crash or a full disk leaves
    the old file. Without the moments, the first steps of a resumed run would be as wild as those of
    a new one. best.pt is for use and has none."""
    path = f'{out_dir}/{name}'
    checkpoint = {'format': 'nanoparrot-checkpoint-1', 'model': model.state_dict(),
                  'model_config': vars(model.config), 'config': config,
                  'optimizer': opt.state_dict()['state'] if name == 'last.pt' else {},
                  'scaler': scaler.state_dict(), 'tokenizer_hash': tokenizer.hash,
                  'data': data_hash, 'step': step, 'tokens': step * batch_size * block_size,
                  'best_val': best_val, 'window': window, 'skipped': skipped,
                  'positions': stream and stream.positions()}
    if shard != 'ddp':
        checkpoint = sharding.whole(checkpoint)
    if rank == 0:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save(checkpoint, f)
            f.flush()
            os.fsync(f.fileno())
        if name == 'last.pt' and os.path.exists(path):
            os.replace(path, f'{out_dir}/last-1.pt')
        os.replace(f'{path}.tmp', path)
        pathlib.Path(f'{out_dir}/config.json.tmp').write_text(json.dumps(config, indent=1), 'utf-8')
        os.replace(f'{out_dir}/config.json.tmp', f'{out_dir}/config.json')


def say(text, file='train.log'):
    """Append a text to a file in out_dir, and print what goes to train.log."""
    if rank == 0:
        if file == 'train.log':
            print(text, flush=True)
        with open(f'{out_dir}/{file}', 'a', encoding='utf-8', newline='\n') as f:
            f.write(text + '\n')


def log(**row):
    """Print a row of figures, and append it to metrics.jsonl, where a resumed run repeats steps:
    the last row of a step counts. JSON has no nan, so it becomes null."""
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    words = [f'{name}: {value:.4g}' for name, value in row.items() if value is not None]
    say(' | '.join([f'step {step:>6}/{max_steps}', *words]))
    row = {'step': step, 'tokens': step * batch_size * block_size, **row}
    say(json.dumps(row), 'metrics.jsonl')


@torch.no_grad()
def loss_of(ids):
    """Return nats a token and bits per byte of text, of about eval_tokens of a bin: always the same
    blocks, spread evenly over it. It draws no random numbers, so it changes no training. The
    processes share the blocks; FSDP and the compiler want batches of one shape from all of them, so
    a row that is too many has no targets."""
    text_bytes = np.array(tokenizer.text_bytes)                                         # (V,)
    n_blocks = (len(ids) - 1) // T
    n = max(1, min(n_blocks, (eval_tokens or len(ids)) // T))
    blocks = np.linspace(0, n_blocks - 1, n).astype(np.int64)
    sums = np.zeros(3)                                                  # nats, targets, bytes
    model.eval()
    for i in range(0, n, world * micro_batch_size):
        rows = np.arange(i + rank, i + world * micro_batch_size, world)
        x, y, *mask = get_batch(ids, blocks[rows % n])
        y = y.masked_fill(torch.tensor(rows >= n, device=device)[:, None], IGNORE)
        with autocast:                  # model, not net, which would be compiled a second time
            mean = model(x, y, *mask, with_logits=False)[1]
        targets = y[y != IGNORE].tolist()                                               # (n,)
        sums += mean.item() * len(targets), len(targets), text_bytes[targets].sum()
    model.train()
    nats, n_targets, n_bytes = summed(*sums)
    return nats / max(1, n_targets), nats / math.log(2) / max(1, n_bytes)


def evaluate():
    """Measure the loss on held-out text, of each source if there are several, and write a sample.
    best.pt keeps the weights with the lowest loss."""
    global best_val
    losses = {name: loss_of(ids) for name, ids in bins.items() if name != 'train'}
    val_loss = losses['val'][0]
    row = {'val_loss': val_loss, 'val_ppl': math.exp(min(val_loss, 700))}
    for name, (nats, bits_per_byte) in losses.items():
        row |= {f'{name}_loss': nats, f'{name}_bpb': bits_per_byte}
    log(**row)
    if objective == 'clm' and math.isfinite(val_loss):                  # nothing is drawn from NaN
        torch.manual_seed(seed)         # the same numbers each time: only the model differs
        prompt = torch.tensor([tokenizer.encode(sample_prompt) or tokenizer.first], device=device)
        torch.backends.cuda.enable_cudnn_sdp(False)     # it would plan anew for each length
        with autocast:                  # under FSDP all processes take part
            [ids] = model.generate(prompt, sample_tokens, temperature=0.8, top_k=50).tolist()
        torch.backends.cuda.enable_cudnn_sdp(True)
        say(f'--- step {step}, val_loss {val_loss:.4f}\n{tokenizer.decode(ids)}\n', 'samples.txt')
    if val_loss < best_val and step > 0:                # never the untrained model
        best_val = val_loss
        save('best.pt')


# --- the loop -------------------------------------------------------------------------------------
n_params = sum(p.numel() for p in model.parameters())
epochs = max_steps * batch_size * T / meta['tokens']['train']
say(f'{" ".join(sys.argv)}\n{model.config}\nparameters: {n_params:,}; ln(vocab_size): '
    f'{math.log(V):.4f}; tokens: {meta["tokens"]}; epochs: {epochs:.2f} (from 4 on, more teach '
    f'less and less)\nprocesses: {world}, on {device}, in {dtype}; micro-batches: '
    f'{len(my_rows)} x {micro_batch_size}')
if sources and not stream:
    say(mixture.described(sources, epochs))
# FLOPs of a token, forward and backward (PaLM, arXiv:2204.02311, appendix B), and what a GPU can do
# in a second in bfloat16: mfu is the fraction that the run reaches, null on other devices.
flops = 6 * n_params + 12 * model.config.n_layer * model.config.n_embd * T
peaks = {'H200': 989e12, 'H100': 989e12, 'A100': 312e12, 'L40S': 362e12, 'L4': 121e12}
gpu = torch.cuda.get_device_name() if kind == 'cuda' else ''
peak = next((peaks[word] for word in gpu.replace('-', ' ').split() if word in peaks), math.nan)
stopping = refused = 0                  # requests to stop; updates in a row that were skipped
seconds = []                            # of the steps since the last log, and of their data
while True:
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps or stopping:
        save('last.pt')
    if step == max_steps or stopping:
        break
    began = time.perf_counter()
    # Dropout draws other numbers in each step and process.
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)
    lr = lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    for group in opt.param_groups:
        group['lr'] = lr * group.get('lr_scale', 1.0)

    # The gradient of the mean loss over all targets of the step, in all processes. If micro-batches
    # have 30 and 90 targets with the means a and b, the mean over all 120 is a / 4 + 3 b / 4. DDP
    # and FSDP average the gradients of the processes; times world makes a sum of that.
    batches = [get_batch(bins.get('train'), rows, step) for rows in my_rows]
    data_s = time.perf_counter() - began
    n_targets = sum((y != IGNORE).sum() for x, y, *mask in batches)
    if world > 1:
        dist.all_reduce(n_targets)
    loss = 0.0
    for i, (x, y, *mask) in enumerate(batches):
        fraction = (y != IGNORE).sum() / n_targets.clamp(min=1)
        net.require_backward_grad_sync = i == len(batches) - 1      # DDP: with the last one only
        with autocast:
            mean = net(x, y, *mask, with_logits=False)[1]           # over the micro-batch's targets
        scaler.scale(mean * fraction * world).backward()
        loss += mean.detach() * fraction

    # Each process has a part of the loss, and a request to stop may have reached one only. For the
    # sums the CPU waits for the GPU, once a step.
    scaler.unscale_(opt)                # float16's gradients were scaled up; otherwise nothing
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf)
    norm = norm.full_tensor() if shard != 'ddp' else norm
    loss, norm, stopping = summed(loss, norm / world, len(stop_requests))
    usual = np.mean(window) if len(window) >= 30 else math.inf
    limit = usual + spike_z * max(np.std(window or 0), 0.01 * usual) if spike_z else math.inf
    is_finite = math.isfinite(loss + norm)
    if is_finite and loss <= limit:     # neither NaN nor a spike reaches the weights
        scaler.step(opt)
        window, refused = [*window[-99:], loss], 0
    else:
        skipped, refused = skipped + 1, refused + 1
        say(f'step {step + 1}: update skipped, loss {loss:.4f} and gradient norm {norm:.4f} are '
            + (f'above the limit of {limit:.4f}: a spike' if is_finite else 'not finite'))
    scaler.update()
    opt.zero_grad(set_to_none=world == 1)       # DDP's gradients stay in its buckets, as zeros
    step += 1
    seconds.append((time.perf_counter() - began, data_s))

    if step in (1, max_steps) or step % log_interval == 0:
        dt, data_s = np.maximum(np.mean(seconds, axis=0), 1e-9)     # some clocks tick coarsely
        speed = batch_size * block_size / dt
        memory = torch.cuda.max_memory_allocated() / 2 ** 20 if kind == 'cuda' else math.nan
        log(loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=speed, data_s=data_s, skipped=skipped,
            mfu=flops * speed / world / peak, memory_mb=memory,
            minutes_left=dt * (max_steps - step) / 60)
        seconds = []
    # float16 finds its scale by overflowing, so it may have more refusals in a row.
    require(refused < (30 if dtype == 'float16' else 3),
            f'{refused} updates in a row were skipped (see train.log); resume with a lower '
            f'--learning_rate; if that fails, too, first: cp {out_dir}/last-1.pt {out_dir}/last.pt')

say(f'done, lowest val_loss {best_val:.4f}; next: python sample.py --ckpt={out_dir}'
    if step == max_steps else f'stopped at step {step}, {out_dir}/last.pt is saved; resume: '
    f'python train.py --out_dir={out_dir} --init_from=resume')
if world > 1:
    dist.barrier()              # the first process may still be writing
    sys.stdout.flush()
    os._exit(0)                 # the interpreter's own end waits for gloo's threads, or aborts
