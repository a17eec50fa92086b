"""
Pretraining: a folder of token bins -> a language model. This decides its size and what it knows.

    python train.py config/quickstart.py                            # minutes on two CPU cores
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py --out_dir=out/base --init_from=resume           # goes on, on a CPU bit for bit

A line that imports from extras runs only if a setting asks for it. The text of a step, unless it
is streamed, follows from (seed, step), and its dropout from (seed, step, rank), so a resumed run
equals one that was never interrupted. batch_size counts the sequences of all devices together,
such as 512 = 8 processes x 16 micro-batches x 4, so 1 and 8 devices compute the same steps.
Without dropout they differ by rounding only: by 1e-6 in float32.
"""
import copy, functools, hashlib, json, math, os, pathlib, shlex, signal, sys, time
from typing import Literal
from configurator import Mistake, configure, require, set_by
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from model import GPT, GPTConfig, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
data_dir = 'data/quickstart'    # made by prepare.py
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, resume, a model's folder or .pt; auto: resume if it can
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
BOUNDS = dict.fromkeys(('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_multiple', 'max_steps',
                        'batch_size', 'log_interval', 'eval_interval', 'save_interval'), (1, 1e12))
BOUNDS |= {'dropout': (0, 0.99), 'beta1': (0, 0.9999), 'beta2': (0, 0.9999), 'seed': (0, 4e9)}


# --- which text a step reads, and how far it goes -------------------------------------------------
@functools.lru_cache(2)         # 8 bytes a sequence
def starts_of(epoch, n_tokens, T, seed):
    """Return where the blocks of an epoch begin in a bin of n_tokens, in reading order, int64 (n,).
    Each epoch has its own order and its own shift, so a text that is read again is cut elsewhere:
    of 10 tokens, T=3 makes the blocks 0 1 2 and 3 4 5 or, shifted by 2, 2 3 4 and 5 6 7."""
    n = max(1, n_tokens // T - 1)       # one less than fits, to leave room for the shift
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


# The defaults, or those of the run that goes on; then files and flags. auto: resume or scratch.
config = configure(globals(), BOUNDS)
if plan:
    from extras import planner
    sys.exit(planner.show(config))
require(schedule == 'wsd' or not decay_steps, f'{decay_steps=} needs --schedule=wsd')
decay_steps = decay_steps or (max_steps // 5 if schedule == 'wsd' else 0)
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
require(warmup_steps + decay_steps <= max_steps,
        f'{warmup_steps=} and {decay_steps=} must fit into {max_steps=}; try --warmup_steps=0.1')
min_lr = learning_rate / 10 if min_lr is None else min_lr

# --- this process ---------------------------------------------------------------------------------
# torchrun starts a process for each device, and tells each its rank and the size of the world.
told = [os.environ.get(name) for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')]
rank, world = (int(told[0]), int(told[1])) if all(told) else (0, 1)
mps = torch.backends.mps.is_available() and world == 1          # no backend joins several
here = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
kind, _, number = (here[-1] if device == 'auto' else device).partition(':')     # cuda:1
require(kind in here and f'0{number}'.isdigit(), f'{device=} is not here; try --device=auto')
device = kind
if kind == 'cuda':
    device = f'cuda:{number or os.environ.get("LOCAL_RANK", 0)}'
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
if dtype == 'auto':                     # older GPUs and many CPUs only emulate bfloat16, slowly
    is_native = kind == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    is_native |= kind == 'cuda' and torch.cuda.get_device_capability()[0] >= 8
    dtype = 'bfloat16' if is_native else 'float32'
autocast = torch.autocast(kind, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(kind, enabled=dtype == 'float16')
if all(told):
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo')

# --- data -----------------------------------------------------------------------------------------
require(os.path.exists(f'{data_dir}/meta.json'), f'{data_dir} has no meta.json; make it as your '
        f'config says, or run: python prepare.py --out_dir={shlex.quote(data_dir)}; from your own '
        f'text: python prepare.py --source=FILE --out_dir={shlex.quote(data_dir)}')
meta_text = pathlib.Path(data_dir, 'meta.json').read_bytes()
meta = json.loads(meta_text)
require('dtype' in meta, f'{data_dir} has no token ids; run prepare.py without --kind')
try:
    tokenizer = Tokenizer.load(f'{data_dir}/tokenizer.json')
    sample_ids = tokenizer.encode(sample_prompt) or tokenizer.first
except ValueError as error:
    raise Mistake(error) from None
V = tokenizer.vocab_size
require(meta.get('tokenizer_hash') == tokenizer.hash, f'{data_dir} has ids of another tokenizer '
        'than its tokenizer.json; run prepare.py again')
require(vocab_size in (0, V), f'{vocab_size=}, but {data_dir} has {V} tokens; leave the flag out')
T = block_size                  # tokens of text in a sequence; with span fewer: it adds sentinels
hide = stream = mixture = None
if objective != 'clm' or document_mask:
    from extras.objectives import Objective
    hide = Objective(objective, document_mask, tokenizer, block_size, seed)
    T = hide.n_text
bins = {}       # {'train': token ids, 'val': ..., and of a mixture 'val_SOURCE': ...}
data_hash = hashlib.sha256(meta_text)   # of what a run reads: it goes on with the same
for path in sorted(pathlib.Path(data_dir).glob('*.bin')):
    n = path.stat().st_size // np.dtype(meta['dtype']).itemsize
    if n > T:
        bins[path.stem] = ids = np.memmap(path, meta['dtype'], 'r', shape=(n,))
        data_hash.update(ids[:2 ** 24])         # 16.8 million tokens stand for a larger bin
        require(ids[:2 ** 24].max() < V and n == meta['tokens'].get(path.stem, n),
                f'{path} has {n} tokens, up to id {ids[:2 ** 24].max()}; run prepare.py again')
if streaming:
    from extras.records import Stream
    stream = Stream(streaming, rank, world, tokenizer)
    data_hash.update(stream.identity)
elif len(meta['sources']) > 1 and not meta.get('mixed', True):
    from extras import mixture          # it reads each source as often as that weighs
    starts_of = mixture.weighted(meta['sources'])
require('val' in bins and ('train' in bins or stream), f'{data_dir} needs train.bin and val.bin '
        f'with more tokens than {block_size=}; shards of text need --streaming=FOLDER')
data_hash = data_hash.hexdigest()

# Of a batch of 8 in micro-batches of 2, the second of 2 processes computes rows [[4, 5], [6, 7]].
require(batch_size % world == 0, f'{batch_size=} must be a multiple of the {world} processes')
micro_batch_size = max(n for n in range(1, (micro_batch_size or batch_size) + 1)
                       if batch_size // world % n == 0)
my_rows = np.arange(batch_size).reshape(world, -1, micro_batch_size)[rank]
step_tokens = batch_size * block_size


def get_batch(ids, numbers, step=None):
    """Return the arguments of model.forward, on the device: inputs and targets, (B, T) each, the
    same text one token later, and perhaps a mask. numbers: rows of the batch of a step, or without
    a step, blocks of held-out text. Row 5 of step 7 is sequence 7 * batch_size + 5 of the run."""
    if step is None:
        texts = [ids[i * T:i * T + T + 1] for i in numbers]
    elif stream:
        texts = stream.take(len(numbers), T)
    else:
        n = len(starts_of(0, len(ids), T, seed))        # sequences in an epoch
        starts = [starts_of(i // n, len(ids), T, seed)[i % n] for i in step * batch_size + numbers]
        texts = [ids[start:start + T + 1] for start in starts]
    texts = torch.from_numpy(np.stack(texts).astype(np.int64))                      # (B, T + 1)
    tensors = texts[:, :-1], texts[:, 1:]
    if hide:
        tensors = hide.apply(*tensors, numbers, step)
    if kind == 'cuda':                  # from pinned memory a GPU copies while the CPU goes on
        tensors = [t.pin_memory() for t in tensors]
    return [t.to(device, non_blocking=True) for t in tensors]


# --- model: new, of the run that goes on, or of a folder ------------------------------------------
# A loaded model has its shape, and a run that goes on also its optimizer, batches and seed. All
# these are `fixed`: a flag that says otherwise is refused.
torch.manual_seed(seed)
shape = {name: config[name] for name in vars(GPTConfig()) if name in config} | {'vocab_size': V}
changes = {'dropout': dropout, 'causal': objective != 'mlm'}
sources = [f'{out_dir}/last.pt', f'{out_dir}/last-1.pt'] if init_from == 'resume' else [init_from]
require(init_from != 'resume' or any(map(os.path.exists, sources)), f'{out_dir} has no last.pt, so '
        'no run goes on there; leave --init_from=resume out, or name another --out_dir')
for source in sources:
    try:
        wanted = GPTConfig(**{**shape, **changes})
        model = GPT(wanted) if init_from == 'scratch' else GPT.load(source, **changes)
        break
    except ValueError as error:         # a crash or a full disk may have damaged last.pt
        require(source != sources[-1], error)
        print(f'{error}; trying {sources[-1]}')
state = model.saved if init_from == 'resume' else {}    # what a run needs to go on
now = config | vars(wanted)             # with what a 0 stands for, such as n_kv_head=0
differ = [f'--{name}={value}' for name, value in state.get('config', {}).items() if name in now
          and name not in {*set_by} | {'out_dir', 'init_from', 'overwrite', 'preset'}
          and json.dumps(now[name]) != json.dumps(value)]
require(not differ, f'{out_dir}/config.json is gone, or not of {source}; type also: '
        f'{shlex.join(differ)}')
require(block_size <= model.config.block_size, f'{block_size=} is above the context of {source}, '
        f'{model.config.block_size}; make it longer: python -m extras.longer_context')
is_same = model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash
if 'tokenizer_hash' not in model.saved and os.path.exists(f'{source}/tokenizer.json'):
    try:                                # Hugging Face's folders name no hash
        beside, text = Tokenizer.load(f'{source}/tokenizer.json'), meta_text.decode()
        is_same = beside.encode(text) == tokenizer.encode(text)
    except ValueError:                  # a char tokenizer can't encode every text
        is_same = False
require(is_same, f'{data_dir} has another tokenizer than {source}; use that, or '
        'python -m extras.new_vocabulary')
fixed = {name: getattr(model.config, name) for name in shape}
fixed |= {'block_size': block_size, 'vocab_size': V}    # a model may have more rows than V
if state:
    require(state.get('data') == data_hash, f'{source} has read other data than {data_dir}')
    require(state['step'] < max_steps, f'{out_dir} is at step {state["step"]}; raise {max_steps=}')
    fixed |= {name: state['config'][name] for name in ('optimizer', 'objective', 'document_mask',
                                                       'batch_size', 'block_size', 'seed')}
    config['init_from'] = state['config']['init_from']      # where the run began
    if stream:
        stream.go_to(state['positions'])
for name, value in fixed.items():
    require(name not in set_by or now[name] == value, f'leave {name} out: {source} has {value!r}')
config |= fixed
if world > 1:           # processes that differ would hang, or train two models that mix
    mine = config, data_hash, [hashlib.sha256(p.detach().numpy()).digest()
                               for p in model.parameters() if init_from != 'scratch']
    theirs = [None] * world
    dist.all_gather_object(theirs, mine)
    require(theirs.count(mine) == world, 'the processes have different settings, data or weights')

model.grad_checkpoint = grad_checkpoint
if compile or (compile is None and kind == 'cuda'):
    for part in (*model.blocks, model.norm):        # all blocks are alike: it compiles one
        part.compile(dynamic=False)
    model.predict = torch.compile(model.predict, dynamic=False)
    torch._dynamo.config.optimize_ddp = False       # DDP's buckets may end within a block
# The loop calls net: the model, perhaps in DDP, which averages gradients, or split by FSDP.
if shard == 'ddp':
    net = model.to(device)
    if world > 1:
        net = DDP(model, gradient_as_bucket_view=True, bucket_cap_mb=100)
else:
    from extras import sharding
    net = sharding.shard(model, shard, kind, dtype)

# --- optimizer ------------------------------------------------------------------------------------
# Weight decay pulls weights towards 0. The norms' gains (vectors) belong near 1, so they have none.
# AdamW ignores use_muon (for Muon) and lr_scale (for the loop). A tied head is the embedding.
groups = [{'params': [p for p in model.blocks.parameters() if p.dim() == 2], 'use_muon': True},
          {'params': [model.embedding.weight], 'lr_scale': embedding_lr},
          {'params': [p for name, p in model.named_parameters() if name == 'head.weight']},
          {'params': [p for p in model.parameters() if p.dim() == 1], 'weight_decay': 0.0}]
Optimizer = torch.optim.AdamW
if optimizer == 'muon':
    from extras.muon import Muon as Optimizer
opt = Optimizer(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay,
                fused=kind != 'mps')
if state:               # the moments; rates, decay and betas stay those of now
    moments = state['optimizer'] if shard == 'ddp' else sharding.split(state['optimizer'], opt)
    moments = copy.deepcopy(moments) if kind == 'cpu' else moments      # mapped from source
    opt.load_state_dict({**opt.state_dict(), 'state': moments})
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())      # {} without float16
step, skipped = state.get('step', 0), state.get('skipped', 0)           # updates
window = state.get('window', [])        # losses of the last 100 updates
best_val = state.get('best_val', math.inf)
state = moments = model.saved = {}      # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
ours = ['last.pt', 'last-1.pt', 'best.pt', 'config.json', 'tokenizer.json', 'data.json',
        'metrics.jsonl', 'samples.txt', 'train.log', 'eval.json', 'samples.jsonl', 'compare.json']
out = pathlib.Path(out_dir)
if rank == 0:
    old = [path for path in out.glob('*') if path.name.removesuffix('.tmp') in ours]
    # A run that was killed before its first save leaves a lock, these, and no row but the first.
    begun = {'tokenizer.json', 'data.json', 'train.log', 'metrics.jsonl', 'samples.txt'}
    n_rows = sum(path.read_bytes().count(b'\n') for path in old if path.name == 'metrics.jsonl')
    is_begun = (out / '.lock').exists() and n_rows < 2 and {
        path.name for path in old if path.suffix != '.tmp'} <= begun
    has_run = any(out.glob('*.pt')) or old and not is_begun
    is_origin = init_from != 'scratch' and pathlib.Path(init_from).resolve().is_relative_to(
        out.resolve())
    require(init_from == 'resume' or not has_run or overwrite and not is_origin, f'{out_dir} has a '
            'run or its files: --init_from=resume goes on, --overwrite=True starts from elsewhere')
    out.mkdir(parents=True, exist_ok=True)
    lock = open(out / '.lock', 'a')             # the system lifts it when this process ends
    try:
        import fcntl
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Mistake(f'another run writes to {out_dir}; wait, or choose another') from None
    except (ImportError, OSError):
        pass                    # Windows has no such locks, and some disks of clusters have none
    if init_from != 'resume':
        for path in old:
            path.unlink()
    if source == f'{out_dir}/last-1.pt':        # the damaged last.pt must not take its name
        (out / 'last.pt').unlink(missing_ok=True)
    tokenizer.save(out / 'tokenizer.json')
    (out / 'data.json').write_bytes(meta_text)


def save(name):
    """Write what resuming needs under another name, then rename it: a crash or a full disk leaves
    the old file. best.pt is for use, so it has no moments."""
    checkpoint = {'format': 'nanoparrot-checkpoint-1', 'model': model.state_dict(),
                  'model_config': vars(model.config), 'config': config,
                  'optimizer': opt.state_dict()['state'] if name == 'last.pt' else {},
                  'scaler': scaler.state_dict(), 'tokenizer_hash': tokenizer.hash,
                  'data': data_hash, 'step': step, 'tokens': step * step_tokens,
                  'best_val': best_val, 'window': window, 'skipped': skipped,
                  'positions': stream and stream.positions()}
    if shard != 'ddp':
        checkpoint = sharding.whole(checkpoint)
    if rank == 0:
        with open(out / f'{name}.tmp', 'wb') as f:
            torch.save(checkpoint, f)
            f.flush()
            os.fsync(f)
        if name == 'last.pt' and (out / name).exists():
            os.replace(out / name, out / 'last-1.pt')
        os.replace(out / f'{name}.tmp', out / name)
        if name == 'last.pt':           # whose settings it has
            (out / 'config.json.tmp').write_text(json.dumps(config, indent=1), 'utf-8')
            os.replace(out / 'config.json.tmp', out / 'config.json')


def say(text, file='train.log'):
    """Append a text to a file in out_dir, and print what goes to train.log."""
    if rank == 0:
        if file == 'train.log':
            print(text, flush=True)
        with open(out / file, 'a', encoding='utf-8', newline='\n') as f:
            f.write(text + '\n')


def log(**row):
    """Print figures, and append them to metrics.jsonl. A resumed run may write a step again."""
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    words = [f'{name}: {value:.4g}' for name, value in row.items() if value is not None]
    say(' | '.join([f'step {step:>6}/{max_steps}', *words]))
    say(json.dumps({'step': step, 'tokens': step * step_tokens} | row), 'metrics.jsonl')


def summed(*values):
    """Return the sums over all processes, as Python floats, for which the CPU waits."""
    exact = torch.float32 if kind == 'mps' else torch.float64
    sums = torch.stack([torch.as_tensor(value, dtype=exact, device=device) for value in values])
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


@torch.no_grad()
def loss_of(ids):
    """Return nats a token and bits per byte of about eval_tokens of a bin: always the same blocks,
    spread evenly over it. It draws no random numbers, so it changes no training. The processes
    share the blocks in batches of one shape, for FSDP and the compiler: some rows don't count."""
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
        with autocast:                  # model, not net: DDP would exchange for nothing
            mean = model(x, y, *mask, with_logits=False)[1]
        targets = y[y != IGNORE].tolist()                                               # (n,)
        sums += mean.item() * len(targets), len(targets), text_bytes[targets].sum()
    model.train()
    nats, n_targets, n_bytes = summed(*sums)
    bits = nats / math.log(2) / max(1, n_bytes)         # masks and sentinels stand for no bytes
    return nats / max(1, n_targets), bits if objective == 'clm' else math.nan


def evaluate():
    """Measure held-out loss and write a sample (all processes, for FSDP). Keep the best weights."""
    global best_val
    row = {}
    for name in [name for name in bins if name != 'train']:
        row[f'{name}_loss'], row[f'{name}_bpb'] = loss_of(bins[name])
    val_loss = row['val_loss']
    log(**row, val_ppl=math.exp(min(val_loss, 700)))
    if objective == 'clm' and math.isfinite(val_loss):                  # nothing is drawn from NaN
        prompt = torch.tensor([sample_ids], device=device)
        torch.backends.cuda.enable_cudnn_sdp(False)     # it would plan anew for each length
        with autocast, torch.compiler.set_stance('force_eager'):        # so would the compiler
            [ids] = model.generate(prompt, sample_tokens, 0.8, top_k=50, seeds=[seed]).tolist()
        torch.backends.cuda.enable_cudnn_sdp(True)
        text = f'--- step {step}, val_loss {val_loss:.4f}\n{tokenizer.decode(ids)}\n'
        say(text, 'samples.txt')
        if rank == 0 and step > 0:      # an untrained model also writes control characters
            print(text, flush=True)
    if val_loss < best_val and step > 0:                # never the untrained model
        best_val = val_loss
        save('best.pt')


def ask_to_stop(number, frame):
    """Ask the loop to save and stop. A second Ctrl-C ends the process at once."""
    stop_requests.append(number)
    if number == signal.SIGINT:         # Ctrl-C also ends `| tee run.log`, which read our stdout
        sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- the loop -------------------------------------------------------------------------------------
n_params, n_block = (sum(p.numel() for p in part.parameters()) for part in (model, model.blocks[0]))
epochs = max_steps * batch_size * T / meta['tokens']['train']
say(f'{" ".join(sys.argv)}\nfrom {source}, step {step}: {model.config}\nparameters: {n_params:,}, '
    f'{n_block:,} a block, ln(vocab_size): {math.log(V):.4f}, tokens: {meta["tokens"]["train"]:,}, '
    f'epochs: {epochs:.2f}\nprocesses: {world} ({device}, {dtype}), '
    f'micro-batches: {len(my_rows)} x {micro_batch_size}')
if mixture:
    say(mixture.described(meta['sources'], epochs))
c = model.config                        # an embedding that is no head is only looked up
n_used = n_params - (0 if c.tie_embeddings else model.embedding.weight.numel())
flops = (6 * n_used + 12 * c.n_layer * c.n_head * c.head_dim * T) * step_tokens / world
gpu = torch.cuda.get_device_name() if kind == 'cuda' else 'none'    # mfu: arXiv:2204.02311, B
peak = 989e12 if 'H100' in gpu or 'H200' in gpu else 312e12 if 'A100' in gpu else math.nan
stop_requests = []                      # signals that this process has got
for name in {'SIGINT', 'SIGTERM', 'SIGUSR1'} & {*dir(signal)}:          # Windows has no SIGUSR1
    signal.signal(getattr(signal, name), ask_to_stop)
stopping = refused = 0                  # requests of all; updates in a row that were skipped
quoted = shlex.quote(out_dir)           # for a command that a user types
resumed_at = step if init_from == 'resume' else None       # measured and saved before
while True:
    if (step % eval_interval == 0 or step == max_steps) and step != resumed_at:
        evaluate()
    if (step % save_interval == 0 or step == max_steps or stopping) and step != resumed_at:
        save('last.pt')
    if step == max_steps or stopping:
        break
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # of dropout
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

    # Each process has a part of the loss, and perhaps a signal. For their sums the CPU waits.
    scaler.unscale_(opt)                # float16's gradients were scaled up; otherwise nothing
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf)
    norm = norm.full_tensor() if shard != 'ddp' else norm
    loss, norm, stopping = summed(loss, norm / world, len(stop_requests))
    limit = math.inf
    if spike_z and len(window) >= 30:
        limit = np.mean(window) + spike_z * max(np.std(window), 0.01 * np.mean(window))
    if math.isfinite(loss + norm) and loss <= limit:    # neither NaN nor a spike gets in
        scaler.step(opt)
        window, refused = [*window[-99:], loss], 0
    else:
        skipped, refused = skipped + 1, refused + 1
        say(f'step {step + 1}: update skipped, loss {loss:.4f} or gradient norm {norm:.4f} is not '
            f'finite, or the loss is a spike, above {limit:.4f} (--spike_z=0 lets spikes in)')
    scaler.update()
    opt.zero_grad(set_to_none=world == 1)       # DDP's gradients stay in its buckets, as zeros
    step += 1
    if step in (1, max_steps) or step % log_interval == 0:
        dt = max(1e-9, time.perf_counter() - began)     # some clocks tick coarsely
        log(loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=step_tokens / dt, mfu=flops / dt / peak,
            data_s=data_s, skipped=skipped, minutes_left=dt * (max_steps - step) / 60,
            memory_mb=torch.cuda.max_memory_allocated() / 2 ** 20 if kind == 'cuda' else math.nan)
    require(refused < (30 if dtype == 'float16' else 3),    # float16 overflows to find its scale
            f'{refused} updates in a row were skipped; resume with a lower --learning_rate; if '
            f'that fails, and there is one, go back: cp {quoted}/last-1.pt {quoted}/last.pt')

start = 'python' if world == 1 else f'torchrun --nproc_per_node={world}'
again = f'{start} train.py --out_dir={quoted} --init_from=resume'
say(f'stopped at step {step}; resume: {again}' if step < max_steps else
    f'done, lowest val_loss {best_val:.4f}; next: python sample.py --ckpt={quoted}')
if world > 1:
    dist.destroy_process_group()
