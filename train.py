"""
Pretraining: a folder of token bins -> a language model. This decides its size and what it knows.

    python train.py config/quickstart.py                            # minutes on two CPU cores
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py --out_dir=out/base --init_from=resume           # resumes; on a CPU, bit for bit

Each batch is a function of (seed, step), each dropout mask of (seed, step, rank), and a stream
checkpoints its position, so a resumed run is identical to an uninterrupted one. batch_size counts
the sequences of all devices together, such as 512 = 8 processes x 16 micro-batches x 4, so a run
takes the same steps on 1 device as on 8. Without dropout they differ by rounding only: by 1e-6 in
float32.
"""
import contextlib, functools, hashlib, json, math, os, pathlib, shlex, signal, sys, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
from configurator import configure, require
from common import folder_of, init_device, resume_or_start, init_out_dir
from model import GPT, GPTConfig, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
data_dir = 'data/quickstart'    # from prepare.py
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, a model's folder or .pt, resume; auto: resume, or this
overwrite = False               # True: delete the run that out_dir holds
# model (GPTConfig in model.py)
n_layer = 6                     # blocks
n_head = 6                      # query heads, each n_embd / n_head wide; 32 to 128 is usual
n_kv_head = 0                   # key/value heads; 0 = n_head; fewer make the cache smaller
n_embd = 192                    # width of the residual stream
n_ffn = 0                       # hidden width of the MLP; 0 = 8/3 n_embd, to the nearest 64
block_size = 256                # context, tokens
vocab_size = 0                  # 0 = the data's; the plan of a run without data needs it
vocab_multiple = 1              # pads the vocabulary; 64 is fast on GPUs
tie_embeddings = True           # one matrix is both embedding and head
dropout = 0.0                   # 0.1 to 0.2 when the data are repeated many times
# optimization
max_steps = 1000                # updates
batch_size = 32                 # sequences per step, over all devices and accumulation
micro_batch_size = 0            # most sequences per device and forward pass; 0 = all
learning_rate = 1e-3            # peak; lower for larger models
embedding_lr = 1.0              # learning-rate multiplier for the embedding (and the tied head)
min_lr: float | None = None     # where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
weight_decay = 0.1              # pull of the weights towards 0; of matrices only
beta1 = 0.9                     # AdamW's decay of the mean gradient
beta2 = 0.95                    # its decay of the mean square; 0.95 averages 20 steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
spike_z = 8.0       # skip updates whose loss is so many standard deviations too high; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 250             # steps; also before the first and after the last
eval_tokens = 65_536            # tokens of each val*.bin to measure, always the same; 0 = all
save_interval = 250             # steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'   # auto: bfloat16 if it is fast
compile: bool | None = None     # torch.compile; None = on CUDA
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of weights, order and dropout
# optional features: implemented in extras/ and imported only when switched on
# clm writes text; mlm names hidden tokens, for search, as BERT; span fills gaps, as T5
objective: Literal['clm', 'mlm', 'span'] = 'clm'    # predict the next token, masked ones, or spans
document_mask = False           # clm: attention stays within a document
streaming = ''                  # folder or glob of .jsonl(.gz) shards, read instead of train.bin
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
shard: Literal['ddp', 'zero2', 'fsdp'] = 'ddp'      # split nothing, gradients and moments, or all
plan = ''                       # 8xH100, 16xA100, 4x312:80 (TFLOPs:GB): print memory, days, cost
# The least and the most of some numbers; all others are at least 0.
BOUNDS = dict.fromkeys(('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_multiple', 'max_steps',
                        'batch_size', 'log_interval', 'eval_interval', 'save_interval'), (1, 1e12))
BOUNDS |= {'dropout': (0, 0.99), 'beta1': (0, 0.9999), 'beta2': (0, 0.9999), 'seed': (0, 4e9)}


# --- which text a step reads, how far it goes, and when it is skipped -----------------------------
@functools.lru_cache(2)         # 8 bytes a sequence
def starts_of(epoch, n_tokens, T, seed):
    """Return where the blocks of an epoch begin in a bin of n_tokens, in reading order, int64 (n,).
    Each epoch has its own order and its own shift, so a text that is read again is cut elsewhere:
    of 10 tokens, T=3 makes the blocks 0 1 2 and 3 4 5 or, shifted by 2, 2 3 4 and 5 6 7."""
    n = max(1, n_tokens // T - 1)       # one less than fits, to leave room for the shift
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    return shuffled(n) * T + shuffled(n_tokens - n * T)[0]


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr):
    """Return the learning rate of update `step`, counted from 0: a linear rise, then half a cosine
    (arXiv:1608.03983). lr_at(step, 100, 10, 1.0, 0.1) is 0.1 at 0, 1.0 at 9 and 10, 0.55 at 55."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)     # from 0 to 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * progress))


def spike_limit(window, spike_z):
    """Return the loss above which an update is a spike, and skipped: one batch of noise, such as a
    damaged file, could undo hours of training. window: the losses of the last updates. If they are
    3.0 and 3.2 in turn, spike_z=8 gives 3.1 + 8 * 0.1 = 3.9. Fewer than 30 tell too little, and a
    deviation below 1% of the mean may be chance."""
    if not spike_z or len(window) < 30:
        return math.inf
    return np.mean(window) + spike_z * max(np.std(window), 0.01 * np.mean(window))


explicit = dict()           # what config files and flags set: {setting: the value it replaced}
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace the settings
if plan:
    from extras.training import planner
    sys.exit(planner.show(config))

# --- the run, new or resumed, and this process ----------------------------------------------------
# What cannot change on resume; eval_tokens, because best.pt compares equal measurements.
source, state, changed = resume_or_start(
    config, explicit,
    fixed='optimizer objective document_mask batch_size block_size seed eval_tokens')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
min_lr = learning_rate / 10 if min_lr is None else min_lr
require(min_lr <= learning_rate, f'{min_lr=} is above {learning_rate=}, so the rate would rise')

device_type, device, dtype, rank, world = init_device(device, dtype, one_length=True)
on_gpu = device_type == 'cuda'
autocast = torch.autocast(device_type, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')

# --- data -----------------------------------------------------------------------------------------
require(all(os.path.exists(f'{data_dir}/{name}') for name in ('val.bin', 'meta.json')),
        f'{data_dir} has no val.bin or no meta.json; make it as your config says, or from text: '
        'python clean.py --source=TEXT && python prepare.py --out_dir=NEW, and give --data_dir=NEW')
meta_text = pathlib.Path(data_dir, 'meta.json').read_bytes()
meta = json.loads(meta_text)
tokenizer = Tokenizer.load(f'{data_dir}/tokenizer.json', meta['tokenizer_hash'])
sample_ids = tokenizer.encode(sample_prompt) or tokenizer.first
V = tokenizer.vocab_size
require(vocab_size in (0, V), f'{vocab_size=}, but {data_dir} has {V} tokens; add --vocab_size=0')
T = block_size                  # tokens of text in a sequence; with span fewer: it adds sentinels
task = stream = mixture = None
if objective != 'clm' or document_mask:
    from extras.training.objectives import Objective
    task = Objective(objective, document_mask, tokenizer, block_size, seed)
    T = task.n_text
bins = {}       # {'train': token ids, 'val': ..., and of a mixture 'val_SOURCE': ...}
data_hash = hashlib.sha256(meta_text)       # of what a run reads, which cannot change on resume
for path in sorted(pathlib.Path(data_dir).glob('*.bin')):
    n = path.stat().st_size // np.dtype(meta['dtype']).itemsize
    if n > T:
        bins[path.stem] = ids = np.memmap(path, meta['dtype'], 'r', shape=(n,))
        data_hash.update(ids[:2 ** 24])     # 16.8 million tokens stand for a larger bin
        require(ids[:2 ** 24].max() < V and n == meta['tokens'].get(path.stem, n),
                f'{path} has {n} tokens, up to id {ids[:2 ** 24].max()}; run prepare.py again')
if streaming:
    from extras.text.streaming import Stream
    stream = Stream(streaming, rank, world, tokenizer, meta.get('held_out_to'))
    data_hash.update(stream.identity)
elif len(meta['sources']) > 1:
    from extras.training import mixture          # it reads each source as often as that weighs
    starts_of = mixture.weighted(meta['sources'], T)
require('val' in bins and ('train' in bins or stream), f'{data_dir} needs train.bin and val.bin '
        f'with more tokens than {block_size=}; shards of text need --streaming=FOLDER')

# Of a batch of 8 in micro-batches of 2, the second of 2 processes computes rows [[4, 5], [6, 7]].
require(batch_size % world == 0, f'{batch_size=} must be a multiple of the {world} processes')
micro_batch_size = max(n for n in range(1, min(micro_batch_size or batch_size, batch_size) + 1)
                       if batch_size % (world * n) == 0)
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
    if task:
        tensors = task.apply(*tensors, numbers, step)
    if on_gpu:                          # from pinned memory a GPU copies while the CPU goes on
        tensors = [t.pin_memory() for t in tensors]
    return [t.to(device, non_blocking=True) for t in tensors]


# --- model ----------------------------------------------------------------------------------------
torch.manual_seed(seed)
shape = {name: config[name] for name in vars(GPTConfig()) if name in config} | {'vocab_size': V}
wanted = GPTConfig(**shape, causal=objective != 'mlm')
if source == 'scratch':
    model = GPT(wanted)
else:
    model = GPT.load(source, dropout=dropout, causal=wanted.causal)
    beside = folder_of(source) / 'tokenizer.json'
    require(Tokenizer.load(beside).hash == tokenizer.hash, f'{data_dir} has another tokenizer than '
            f'{source}; prepare the text again, with --tokenizer={beside}')
if block_size > model.config.block_size:        # a longer context: see stretch() in model.py
    require('block_size' in explicit, f'{block_size=} is above the context of {source}; set it '
            f'explicitly: --block_size={model.config.block_size}, or more for a longer context')
    scaling = model.config.rope_scaling         # of an earlier one, or ()
    first = scaling[3] if len(scaling) == 4 else model.config.block_size / (*scaling, 1)[0]
    model = GPT.load(source, dropout=dropout, causal=wanted.causal, block_size=block_size,
                     rope_scaling=(block_size / first, 1.0, 4.0, first))
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir} has other data than {source} read')
    if stream:
        stream.go_to(state['positions'])
# A model keeps its shape. wanted has what a 0 stands for, such as n_kv_head=0.
kept = {name: getattr(model.config, name) for name in shape.keys() - {'block_size', 'vocab_size'}}
for name in explicit.keys() & kept.keys():
    require(getattr(wanted, name) == kept[name], f'{name} must be {kept[name]!r}, as in {source}')
config |= kept | {'vocab_size': V}

model.grad_checkpoint = grad_checkpoint
uncompiled = contextlib.nullcontext
if compile or (compile is None and on_gpu):
    for part in (*model.blocks, model.norm):        # all blocks are alike: it compiles one
        part.compile(dynamic=False)
    model.predict = torch.compile(model.predict, dynamic=False)
    torch._dynamo.config.optimize_ddp = False       # DDP's buckets may end within a block
    # generate() runs uncompiled, because the compiler would begin anew for each length of a text.
    uncompiled = functools.partial(torch.compiler.set_stance, 'force_eager')
# The loop calls net: the model, perhaps in DDP, which averages gradients, or split by FSDP.
if shard == 'ddp':
    net = model.to(device)
    if world > 1:
        net = DDP(model, gradient_as_bucket_view=True, bucket_cap_mb=100)
else:
    from extras.training import sharding
    net = sharding.shard(model, shard, device_type, dtype)

# --- optimizer ------------------------------------------------------------------------------------
# Weight decay pulls weights towards 0. The norms' gains (vectors) belong near 1, so they have none.
# AdamW ignores use_muon (for Muon) and lr_scale (for the loop). A tied head is the embedding.
groups = [{'params': [p for p in model.blocks.parameters() if p.dim() == 2], 'use_muon': True},
          {'params': [model.embedding.weight], 'lr_scale': embedding_lr},
          {'params': [p for name, p in model.named_parameters() if name == 'head.weight']},
          {'params': [p for p in model.parameters() if p.dim() == 1], 'weight_decay': 0.0}]
Optimizer = torch.optim.AdamW
if optimizer == 'muon':
    from extras.training.muon import Muon as Optimizer
opt = Optimizer(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay,
                fused=device_type != 'mps')
step, skipped, window, best_val = 0, 0, [], math.inf    # window: losses of the last 100 updates
if state:
    step, skipped, window, best_val = map(state.get, ('step', 'skipped', 'window', 'best_val'))
    moments = state['optimizer'] if shard == 'ddp' else sharding.split(state['optimizer'], opt)
    opt.load_state_dict({**opt.state_dict(), 'state': moments})     # its rates are those of now
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())  # {} without float16
state, moments, model.saved = {}, {}, {}        # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)
    (out / 'data.json').write_text(json.dumps(meta | {'data_dir': data_dir}), 'utf-8')


def save(name):
    """Write a checkpoint: last.pt for resuming, best.pt, which has no moments, for use. last-1.pt
    is the last.pt of the save before, because a crash or a full disk may damage the newest one."""
    checkpoint = {'model': model.state_dict(), 'config': config, 'tokenizer_hash': tokenizer.hash,
                  'data': data_hash.hexdigest(), 'step': step, 'tokens': step * step_tokens,
                  'best_val': best_val, 'window': window, 'skipped': skipped,
                  'scaler': scaler.state_dict(), 'positions': stream and stream.positions(),
                  'optimizer': opt.state_dict()['state'] if name == 'last.pt' else {}}
    if shard != 'ddp':
        checkpoint = sharding.whole(checkpoint)
    if rank == 0:
        model.save(out / f'{name}.new', **checkpoint)   # a crash leaves the old file
        if name == 'last.pt' and (out / name).exists():
            os.replace(out / name, out / 'last-1.pt')
        os.replace(out / f'{name}.new', out / name)


def say(text, file='train.log'):
    """Append a text to a file in out_dir, and print what goes to train.log."""
    if rank == 0:
        if file == 'train.log':
            print(text, flush=True)
        with open(out / file, 'a', encoding='utf-8') as f:
            print(text, file=f)


def log(**row):
    """Print figures, and append them to metrics.jsonl. A resumed run may write a step again."""
    words = [f'{name}: {value:.4g}' for name, value in row.items() if value is not None]
    say(' | '.join([f'step {step:>6}/{max_steps}', *words]))
    row = {name: value if value is not None and math.isfinite(value) else None
           for name, value in row.items()}
    say(json.dumps({'step': step, 'tokens': step * step_tokens} | row), 'metrics.jsonl')


def summed(*values):
    """Return the sums over all processes, as Python floats, for which the CPU waits."""
    exact = torch.float32 if device_type == 'mps' else torch.float64
    sums = torch.stack([torch.as_tensor(value, dtype=exact, device=device) for value in values])
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


@torch.no_grad()
def loss_of(ids):
    """Return nats a token and bits per byte of about eval_tokens of a bin, always the same blocks,
    without random numbers, so it changes no training. The processes share the blocks in batches of
    one shape, for FSDP and the compiler: some rows don't count."""
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
    return nats / max(1, n_targets), bits if objective == 'clm' else None


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
        with autocast, uncompiled():
            [ids] = model.generate(prompt, 100, 0.8, top_k=50, seeds=[seed],
                                   suppress=tokenizer.suppressed_tokens(model.config.vocab_size))
        text = f'--- step {step}, val_loss {val_loss:.4f}\n{tokenizer.decode(ids.tolist())}\n'
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


# --- what this run is -----------------------------------------------------------------------------
n_params, n_block = (sum(p.numel() for p in part.parameters()) for part in (model, model.blocks[0]))
epochs = max_steps * batch_size * T / meta['tokens']['train']
say('\n'.join([' '.join(sys.argv), *changed, f'from {source}, step {step}: {model.config}']))
say(f'parameters: {n_params:,}, {n_block:,} a block, ln(vocab_size): {math.log(V):.4f}, tokens: '
    f'{meta["tokens"]["train"]:,}, epochs: {epochs:.2f}\nprocesses: {world} ({device}, {dtype}), '
    f'micro-batches: {len(my_rows)} x {micro_batch_size}')
if mixture:
    say(mixture.described(meta['sources'], max_steps * batch_size, T))
peak = None             # FLOP/s that the GPU can do, for mfu, the fraction of them that is used
if on_gpu and dtype != 'float32':
    with contextlib.suppress(ImportError):      # without extras/ there is no mfu
        from extras.training import planner
        peak = planner.peak_of(torch.cuda.get_device_name())
        flops = planner.flops_per_token(model, T) * step_tokens / world

# --- the loop -------------------------------------------------------------------------------------
stop_requests = []                      # signals that this process has got
signal.signal(signal.SIGINT, ask_to_stop)
signal.signal(signal.SIGTERM, ask_to_stop)
stopping = refused = 0                  # requests to stop; updates in a row that were skipped
require(summed(step)[0] == step * world, 'all processes must see the same checkpoint in out_dir')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps and not stopping:
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # of dropout
    lr = lr_at(step, max_steps, warmup_steps, learning_rate, min_lr)
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

    # Each process has a part of the loss, the whole norm, and perhaps a signal.
    scaler.unscale_(opt)                # float16's gradients were scaled up; otherwise nothing
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf)
    norm = norm.full_tensor() if shard != 'ddp' else norm
    loss, norm, stopping = summed(loss, norm / world, len(stop_requests))    # the CPU waits
    limit = spike_limit(window, spike_z)
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
        dt = time.perf_counter() - began
        log(loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=step_tokens / dt,
            mfu=peak and flops / dt / peak, data_s=data_s, skipped=skipped,
            minutes_left=dt * (max_steps - step) / 60,
            memory_mb=torch.cuda.max_memory_allocated() / 2 ** 20 if on_gpu else None)
    require(refused < (30 if dtype == 'float16' else 3),    # float16 overflows to find its scale
            f'{refused} updates in a row were skipped; resume with a lower --learning_rate; if '
            f'that fails, go back to an older checkpoint: copy {out / "last-1.pt"} to last.pt')
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps or stopping:
        save('last.pt')

reader = 'sample.py' if objective == 'clm' else '-m extras.models.fill'
say(f'done, best val_loss {best_val:.4f}; next: python {reader} --ckpt={shlex.quote(out_dir)}'
    if step >= max_steps else f'stopped at step {step}; resume: python train.py '
    f'--out_dir={shlex.quote(out_dir)} --init_from=resume')
