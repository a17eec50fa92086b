"""
Pretraining: train a language model on the token files that prepare.py wrote. This stage decides the
model's size and what the model knows.

    python train.py config/quickstart.py                            # minutes on two CPU cores
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py --out_dir=out/base --init_from=resume           # resume, bit-identical on a CPU

Each batch is a function of (seed, step), each dropout mask of (seed, step, rank), and a stream
checkpoints its position, so a resumed run is identical to an uninterrupted one. batch_size is the
global batch size, such as 512 = 8 processes x 16 micro-batches x 4 sequences, so a run takes the
same steps on 1 device as on 8. Without dropout, the losses differ only by rounding: 1e-6 in
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
data_dir = 'data/quickstart'    # folder that prepare.py wrote
out_dir = 'out/base'            # folder for checkpoints, logs and samples
init_from = 'scratch'           # scratch, resume, a model (folder, .pt); auto: resume if possible
overwrite = False               # True: delete the run in out_dir
# model (GPTConfig in model.py)
n_layer = 6                     # transformer blocks
n_head = 6                      # query heads of width n_embd / n_head; 32 to 128 is usual
n_kv_head = 0                   # key/value heads; 0 = n_head; fewer make the KV cache smaller
n_embd = 192                    # width of the residual stream
n_ffn = 0                       # MLP hidden width; 0 = 8/3 n_embd rounded to a multiple of 64
block_size = 256                # context length, tokens
vocab_size = 0                  # 0 = the tokenizer's; set it for a --plan without data
vocab_multiple = 1              # pad the vocabulary to a multiple of this; 64 is fast on GPUs
tie_embeddings = True           # embedding and head share one matrix
dropout = 0.0                   # 0.1 to 0.2 if the data are repeated many times
# optimization
max_steps = 1000                # optimizer updates; the start of a run prints the epochs
batch_size = 32                 # sequences per step, over all devices and micro-batches
micro_batch_size = 0            # sequences per device at once, with gradient accumulation; 0 = all
learning_rate = 1e-3            # peak; lower for larger models
embedding_lr = 1.0              # learning-rate multiplier for the embedding (and the tied head)
min_lr: float | None = None     # learning rate at the end; None = learning_rate / 10
warmup_steps: int | float = 0.1  # steps of linear warmup; below 1: a fraction of max_steps
weight_decay = 0.1              # decoupled weight decay; matrices only
beta1 = 0.9                     # AdamW's decay rate for the mean gradient
beta2 = 0.95                    # AdamW's decay rate for squared gradients; 0.95 averages 20 steps
grad_clip = 1.0                 # maximum norm of the gradient; 0 = no clipping
spike_z = 8.0                   # skip updates with a higher z-score of the loss; 0 = skip none
# logging and evaluation
log_interval = 10               # steps between log lines
eval_interval = 250             # steps between evaluations; also before step 1 and after the last
eval_tokens = 65_536            # tokens of each val*.bin to evaluate, always the same; 0 = all
save_interval = 250             # steps between checkpoints
sample_prompt = ''              # prompt of the samples; '' = the start of a document
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest available
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'   # auto: bfloat16 if it is native
compile: bool | None = None     # use torch.compile; None = on CUDA only
grad_checkpoint = False         # recompute blocks in the backward pass: less memory, more time
seed = 1337                     # for initial weights, data order and dropout
# optional features: implemented in extras/ and imported only when switched on
# clm: causal, for generation; mlm: masked, for search (BERT); span: for filling gaps (T5)
objective: Literal['clm', 'mlm', 'span'] = 'clm'    # predict next, masked, or span tokens
document_mask = False           # with clm: no attention across documents
streaming = ''                  # folder or glob of .jsonl(.gz) shards to read instead of train.bin
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
shard: Literal['ddp', 'zero2', 'fsdp'] = 'ddp'      # zero2: shard gradients, moments; fsdp: all
plan = ''                       # 8xH100, 16xA100, 4x312:80 (TFLOPs:GB): print memory, days, cost
# (minimum, maximum) of some settings. All other numbers must be at least 0.
BOUNDS = dict.fromkeys(('n_layer', 'n_head', 'n_embd', 'block_size', 'vocab_multiple', 'max_steps',
                        'batch_size', 'log_interval', 'eval_interval', 'save_interval'), (1, 1e12))
BOUNDS |= {'dropout': (0, 0.99), 'beta1': (0, 0.9999), 'beta2': (0, 0.9999), 'seed': (0, 4e9)}


# --- data order, learning rate, loss spikes -------------------------------------------------------
@functools.lru_cache(3)         # epoch 0, and two at the end of an epoch; 8 bytes a sequence
def epoch_starts(epoch, n_tokens, T, seed):
    """Return the offsets of an epoch's sequences in a bin of n_tokens, shuffled, int64 (n,). Each
    epoch also has a random shift, so that epochs cut the text at different tokens: 10 tokens with
    T=3 give the sequences 0 1 2 and 3 4 5 or, shifted by 2, 2 3 4 and 5 6 7."""
    n = max(1, n_tokens // T - 1)       # one less than fits, which leaves room for the shift
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    return shuffled(n) * T + shuffled(n_tokens - n * T)[0]


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr):
    """Return the learning rate of update `step`, counted from 0: linear warmup, then cosine decay
    (arXiv:1608.03983). lr_at(step, 100, 10, 1.0, 0.1) is 0.1 at 0, 1.0 at 9 and 10, 0.55 at 55."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)     # from 0 to 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * progress))


def spike_limit(window, spike_z):
    """Return the loss above which an update is skipped, because one batch of noise, such as a
    damaged file, could undo hours of training. window: the losses of the last updates. If they
    alternate between 3.0 and 3.2, spike_z=8 gives 3.1 + 8 * 0.1 = 3.9. Fewer than 30 losses set no
    limit. Standard deviations below 1% of the mean, which may be chance, count as 1%."""
    if not spike_z or len(window) < 30:
        return math.inf
    return np.mean(window) + spike_z * max(np.std(window), 0.01 * np.mean(window))


# Config files and flags override the settings. explicit: {overridden setting: its previous value}
config = configure(globals(), BOUNDS, explicit := {})
if plan:
    from extras.training import planner
    sys.exit(planner.show(config))

# --- a new or resumed run, and the device ---------------------------------------------------------
# Settings in `fixed` cannot change on resume. eval_tokens is one of them, because best.pt is chosen
# by comparing losses over the same tokens.
source, state, changed = resume_or_start(
    config, explicit,
    fixed='optimizer objective document_mask batch_size block_size seed eval_tokens')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
min_lr = learning_rate / 10 if min_lr is None else min_lr
require(min_lr <= learning_rate, f'{min_lr=} is above {learning_rate=}; set a lower --min_lr')

device_type, device, dtype, rank, world = init_device(device, dtype, one_length=True)
on_gpu = device_type == 'cuda'
autocast = torch.autocast(device_type, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')

# --- data -----------------------------------------------------------------------------------------
meta_text = b''.join(path.read_bytes() for path in pathlib.Path(data_dir).glob('meta.json'))
require(b'"tokenizer_hash"' in meta_text and os.path.exists(f'{data_dir}/val.bin'),
        f'{data_dir} has no val.bin or meta.json of prepare.py; run the commands of your config or '
        'python clean.py --source=TEXT && python prepare.py --out_dir=NEW, then set --data_dir=NEW')
meta = json.loads(meta_text)
tokenizer = Tokenizer.load(f'{data_dir}/tokenizer.json', meta['tokenizer_hash'])
prompt = torch.tensor([tokenizer.encode(sample_prompt) or tokenizer.first], device=device)
V = tokenizer.vocab_size
require(vocab_size in (0, V), f'{vocab_size=}, but {data_dir} has {V} tokens; set --vocab_size=0')
T = block_size                  # text tokens in a sequence; fewer with span, which adds sentinels
batch_transform = stream = mixture = None
if objective != 'clm' or document_mask:
    from extras.training.objectives import Objective
    batch_transform = Objective(objective, document_mask, tokenizer, block_size, seed)
    T = batch_transform.n_text
bins = {}       # {'train': token ids, 'val': ..., and for a mixture 'val_SOURCE': ...}
data_hash = hashlib.sha256(meta_text)       # of the data, which cannot change on resume
for path in sorted(pathlib.Path(data_dir).glob('*.bin')):
    n = path.stat().st_size // np.dtype(meta['dtype']).itemsize
    if n > T:
        bins[path.stem] = ids = np.memmap(path, meta['dtype'], 'r', shape=(n,))
        data_hash.update(ids[:2 ** 24])     # at most 16.8 million tokens of a bin
        require(ids[:2 ** 24].max() < V and n == meta['tokens'].get(path.stem, n),
                f'{path} has {n} tokens with ids up to {ids[:2 ** 24].max()}; run prepare.py again')
if streaming:
    from extras.text.streaming import Stream
    stream = Stream(streaming, rank, world, tokenizer, meta)
    data_hash.update(stream.identity)
elif len(meta['sources']) > 1:
    from extras.training import mixture          # samples the sources by their weights
    epoch_starts = mixture.weighted(meta['sources'], T)
require('val' in bins and ('train' in bins or stream), f'{data_dir} needs a train.bin and a '
        f'val.bin of more than {block_size=} tokens; to read text shards, set --streaming=FOLDER')

# With batch_size=8 and micro_batch_size=2, rank 1 of 2 computes the rows [[4, 5], [6, 7]].
require(batch_size % world == 0, f'{batch_size=} must be a multiple of the {world} processes')
micro_batch_size = max(n for n in range(1, min(micro_batch_size or batch_size, batch_size) + 1)
                       if batch_size % (world * n) == 0)
my_rows = np.arange(batch_size).reshape(world, -1, micro_batch_size)[rank]
step_tokens = batch_size * block_size


def get_batch(ids, rows, step=None):
    """Return the arguments of model.forward, on the device: inputs and targets, (B, T) each, and a
    mask if the objective needs one. Targets are the inputs shifted by one token. rows: indices in
    the batch of a training step, or if step is None, block indices in a bin. Row 5 of step 7 is
    sequence 7 * batch_size + 5."""
    if step is None:
        sequences = [ids[i * T:i * T + T + 1] for i in rows]
    elif stream:
        sequences = stream.take(len(rows), T)
    else:
        n = len(epoch_starts(0, len(ids), T, seed))     # sequences in an epoch
        starts = [epoch_starts(i // n, len(ids), T, seed)[i % n] for i in step * batch_size + rows]
        sequences = [ids[start:start + T + 1] for start in starts]
    sequences = torch.from_numpy(np.stack(sequences).astype(np.int64))              # (B, T + 1)
    tensors = sequences[:, :-1], sequences[:, 1:]
    if batch_transform:
        tensors = batch_transform.apply(*tensors, rows, step)
    if on_gpu:                          # copies from pinned memory are asynchronous
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
    tokenizer_path = folder_of(source) / 'tokenizer.json'
    require(Tokenizer.load(tokenizer_path).hash == tokenizer.hash, f'{data_dir} was made with '
            f'another tokenizer than {source}; run prepare.py --tokenizer={tokenizer_path}')
if block_size > model.config.block_size:        # a longer context: see scale_frequencies()
    require('block_size' in explicit, f'{block_size=} is above the context length of {source}; '
            f'set --block_size={model.config.block_size}, or a larger one to extend the context')
    scaling = model.config.rope_scaling         # of an earlier extension, or ()
    original_T = scaling[3] if len(scaling) == 4 else model.config.block_size / (*scaling, 1)[0]
    model = GPT.load(source, dropout=dropout, causal=wanted.causal, block_size=block_size,
                     rope_scaling=(block_size / original_T, 1.0, 4.0, original_T))
# The architecture of a loaded model can't change. `wanted` has the defaults instead of 0, such as
# n_head for n_kv_head=0, so its values can be compared with the loaded model's.
actual = {name: getattr(model.config, name) for name in shape.keys() - {'block_size', 'vocab_size'}}
for name in explicit.keys() & actual.keys():
    require(getattr(wanted, name) == actual[name], f'{name} must be {actual[name]!r} for {source}')
config |= actual | {'vocab_size': V}

model.grad_checkpoint = grad_checkpoint
uncompiled = contextlib.nullcontext
if compile or (compile is None and on_gpu):
    for part in (*model.blocks, model.norm):        # one compilation, because all blocks are alike
        part.compile(dynamic=False)
    model.predict = torch.compile(model.predict, dynamic=False)
    torch._dynamo.config.optimize_ddp = False       # True would split blocks at DDP's buckets
    # generate() runs eagerly, because each new sequence length would be compiled again.
    uncompiled = functools.partial(torch.compiler.set_stance, 'force_eager')
# net is the model, or its wrapper: DDP, which averages gradients, or FSDP, which shards weights.
if shard == 'ddp':
    net = model.to(device)
    if world > 1:
        net = DDP(model, gradient_as_bucket_view=True, bucket_cap_mb=100)
else:
    from extras.training import sharding
    net = sharding.shard(model, shard, device_type, dtype)

# --- optimizer ------------------------------------------------------------------------------------
# The last group gets no weight decay: RMSNorm weights, which should stay near 1, and any other
# weights that you add to the model. AdamW ignores the keys use_muon, read by Muon, and lr_scale,
# read by the loop. named_parameters() lists a tied head only as the embedding.
groups = [{'params': [p for p in model.blocks.parameters() if p.dim() == 2], 'use_muon': True},
          {'params': [model.embedding.weight], 'lr_scale': embedding_lr},
          {'params': [p for name, p in model.named_parameters() if name == 'head.weight']}]
grouped = {p for group in groups for p in group['params']}
groups.append({'params': [p for p in model.parameters() if p not in grouped], 'weight_decay': 0.0})
Optimizer = torch.optim.AdamW
if optimizer == 'muon':
    from extras.training.muon import Muon as Optimizer
opt = Optimizer(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay,
                fused=device_type != 'mps')
step, skipped, window, best_val = 0, 0, [], math.inf    # window: losses of the last 100 updates
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir=} is not the data of {source}')
    step, skipped, window, best_val = map(state.get, ('step', 'skipped', 'window', 'best_val'))
    moments = state['optimizer'] if shard == 'ddp' else sharding.split(state['optimizer'], opt)
    opt.load_state_dict({**opt.state_dict(), 'state': moments})     # keeps the new learning rate
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())  # {} without float16
    if stream:
        stream.seek(state['positions'])
state, moments, model.saved = {}, {}, {}        # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)
    (out / 'data.json').write_text(json.dumps(meta | {'data_dir': data_dir}), 'utf-8')


def save(name):
    """Write a checkpoint: last.pt for resuming, or best.pt, without optimizer state, for inference.
    The previous last.pt becomes last-1.pt, because a crash or a full disk may damage last.pt."""
    checkpoint = {'model': model.state_dict(), 'config': config, 'tokenizer_hash': tokenizer.hash,
                  'data': data_hash.hexdigest(), 'step': step, 'tokens': step * step_tokens,
                  'best_val': best_val, 'window': window, 'skipped': skipped,
                  'scaler': scaler.state_dict(), 'positions': stream and stream.positions(),
                  'optimizer': opt.state_dict()['state'] if name == 'last.pt' else {}}
    if shard != 'ddp':
        checkpoint = sharding.whole(checkpoint)
    if rank == 0:
        model.save(out / f'{name}.new', **checkpoint)   # a crash leaves the old file intact
        if name == 'last.pt' and (out / name).exists():
            os.replace(out / name, out / 'last-1.pt')
        os.replace(out / f'{name}.new', out / name)


def log_text(text, file='train.log', show=True):
    """Append a text to a file in out_dir, and print it if `show` is true."""
    if rank == 0:
        if show:
            print(text, flush=True)
        with open(out / file, 'a', encoding='utf-8') as f:
            print(text, file=f)


def log_metrics(**row):
    """Print metrics and append them to metrics.jsonl, where a resumed run may repeat a step."""
    words = [f'{name}: {value:.4g}' for name, value in row.items() if value is not None]
    log_text(' | '.join([f'step {step:>6}/{max_steps}', *words]))
    row = {'step': step, 'tokens': step * step_tokens} | {      # JSON has neither NaN nor infinity
        name: value if math.isfinite(value or 0) else None for name, value in row.items()}
    log_text(json.dumps(row), 'metrics.jsonl', show=False)


def all_reduce_sum(*values):
    """Return the sum of each value over all processes, as Python floats. This waits for the GPU."""
    precision = torch.float32 if device_type == 'mps' else torch.float64
    sums = torch.stack([torch.as_tensor(value, dtype=precision, device=device) for value in values])
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


@torch.no_grad()
def validation_loss(ids):
    """Return the loss over about eval_tokens tokens of a bin, in nats per token and bits per byte.
    The blocks are always the same, and no random numbers are used, so evaluation never changes
    training. The blocks are split between the processes. FSDP and the compiler need batches of one
    shape, so the last batch is padded with repeated blocks, whose targets are ignored."""
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
        with autocast:                  # model, not net: DDP need not synchronize
            mean_loss = model(x, y, *mask, with_logits=False)[1]
        targets = y[y != IGNORE].tolist()                                               # (n,)
        sums += mean_loss.item() * len(targets), len(targets), text_bytes[targets].sum()
    model.train()
    nats, n_targets, n_bytes = all_reduce_sum(*sums)
    bits = nats / math.log(2) / max(1, n_bytes)         # mask and sentinel tokens have no bytes
    return nats / max(1, n_targets), bits if objective == 'clm' else None


def evaluate():
    """Compute validation losses, generate a sample, and save best.pt if val_loss is the lowest so
    far. All processes must call this function, because FSDP's forward pass needs all of them."""
    global best_val
    row = {}
    for name in [name for name in bins if name != 'train']:
        row[f'{name}_loss'], row[f'{name}_bpb'] = validation_loss(bins[name])
    val_loss = row['val_loss']
    log_metrics(**row, val_ppl=math.exp(min(val_loss, 700)))
    if objective == 'clm' and math.isfinite(val_loss):                  # NaN can't be sampled from
        with autocast, uncompiled():
            [ids] = model.generate(prompt, 100, 0.8, top_k=50, seeds=[seed],
                                   suppress=tokenizer.suppressed_tokens(model.config.vocab_size))
        text = f'--- step {step}, val_loss {val_loss:.4f}\n{tokenizer.decode(ids.tolist())}\n'
        # An untrained model generates control characters, which would garble the terminal.
        log_text(text, 'samples.txt', show=step > 0)
    if val_loss < best_val and step > 0:                # never the untrained model
        best_val = val_loss
        save('best.pt')


def request_stop(signal_number, frame):
    """Make the loop save and stop after this step. A second Ctrl-C kills the process at once."""
    stop_requests.append(signal_number)
    # In `train.py | tee run.log`, Ctrl-C also ends tee, so printing to stdout would raise an error.
    if signal_number == signal.SIGINT:
        sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- summary of the run ---------------------------------------------------------------------------
n_params, n_block = (sum(p.numel() for p in part.parameters()) for part in (model, model.blocks[0]))
epochs = max_steps * batch_size * T / meta['tokens']['train']
log_text('\n'.join([' '.join(sys.argv), *changed, f'from {source}, step {step}: {model.config}']))
log_text(f'parameters: {n_params:,}, {n_block:,} per block, ln(vocab_size): {math.log(V):.4f}, '
         f'tokens: {meta["tokens"]["train"]:,}, epochs: {epochs:.2f}\nprocesses: {world} '
         f'({device}, {dtype}), micro-batches: {len(my_rows)} x {micro_batch_size}')
if warmup_steps > max_steps:
    log_text(f'note: {warmup_steps=} is above {max_steps=}: no step has the full learning rate')
if mixture:
    log_text(mixture.described(meta['sources'], max_steps * batch_size, T))
peak_flops = None       # FLOP/s of the GPU, to compute mfu: model FLOPs utilization
if on_gpu and dtype != 'float32':
    with contextlib.suppress(ImportError):      # without extras/ there is no mfu
        from extras.training import planner
        peak_flops = planner.peak_of(torch.cuda.get_device_name())
        step_flops = planner.flops_per_token(model, T) * step_tokens / world

# --- the loop -------------------------------------------------------------------------------------
stop_requests = []                      # signals that this process has received
signal.signal(signal.SIGINT, request_stop)
signal.signal(signal.SIGTERM, request_stop)
stopping = skipped_in_a_row = 0         # stop requests of all processes; skipped updates in a row
require(all_reduce_sum(step)[0] == step * world, f'all processes must share {out_dir=}')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps and not stopping:
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # for dropout
    lr = lr_at(step, max_steps, warmup_steps, learning_rate, min_lr)
    for group in opt.param_groups:
        group['lr'] = lr * group.get('lr_scale', 1.0)

    # Accumulate the gradient of the mean loss over all targets of the step. If micro-batches of 30
    # and 90 targets have the mean losses a and b, the mean over all 120 is a / 4 + 3 b / 4. DDP and
    # FSDP average gradients over the processes; the factor `world` makes this average a sum.
    batches = [get_batch(bins.get('train'), rows, step) for rows in my_rows]
    data_s = time.perf_counter() - began
    n_targets = sum((y != IGNORE).sum() for x, y, *mask in batches)
    if world > 1:
        dist.all_reduce(n_targets)
    loss = 0.0
    for i, (x, y, *mask) in enumerate(batches):
        fraction = (y != IGNORE).sum() / n_targets.clamp(min=1)
        net.require_backward_grad_sync = i == len(batches) - 1      # DDP: after the last only
        with autocast:
            mean_loss = net(x, y, *mask, with_logits=False)[1]      # of the micro-batch
        scaler.scale(mean_loss * fraction * world).backward()
        loss += mean_loss.detach() * fraction

    # A parameter without a gradient belongs to a module that forward() does not use.
    if step == 0 and (unused := [name for name, p in model.named_parameters() if p.grad is None]):
        log_text(f'note: no gradient reaches {", ".join(unused)}, so it is not trained')
    # The step's loss is a sum over processes. The gradient norm is equal in all processes. A signal
    # to one process stops all processes.
    scaler.unscale_(opt)                # does nothing unless dtype is float16
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf)
    norm = norm.full_tensor() if shard != 'ddp' else norm
    loss, norm, stopping = all_reduce_sum(loss, norm / world, len(stop_requests))
    limit = spike_limit(window, spike_z)
    if math.isfinite(loss + norm) and loss <= limit:    # neither NaN nor a spike
        scaler.step(opt)
        window, skipped_in_a_row = [*window[-99:], loss], 0
    else:
        skipped, skipped_in_a_row = skipped + 1, skipped_in_a_row + 1
        log_text(f'step {step + 1}: update skipped, because the loss {loss:.4f} or gradient norm '
                 f'{norm:.4f} is not finite or the loss is above {limit:.4f} (see --spike_z)')
    scaler.update()
    opt.zero_grad(set_to_none=world == 1)       # DDP reuses its gradient buckets
    step += 1
    if step in (1, max_steps) or step % log_interval == 0:
        dt = time.perf_counter() - began
        log_metrics(loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=step_tokens / dt,
                    mfu=peak_flops and step_flops / dt / peak_flops, data_s=data_s, skipped=skipped,
                    minutes_left=dt * (max_steps - step) / 60,
                    memory_mb=torch.cuda.max_memory_allocated() / 2 ** 20 if on_gpu else None)
    # float16 gradients overflow until GradScaler has found a scale
    require(skipped_in_a_row < (30 if dtype == 'float16' else 3), f'{skipped_in_a_row} updates in '
            'a row were skipped; resume with --spike_z=0 if the text changes here, otherwise with '
            f'a lower --learning_rate; if this fails, first copy {out / "last-1.pt"} to last.pt')
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps or stopping:
        save('last.pt')

script = 'sample.py' if objective == 'clm' else '-m extras.models.fill'
# a stream can only be resumed with the same number of processes
log_text(f'done, best val_loss {best_val:.4f}; next: python {script} --ckpt={shlex.quote(out_dir)}'
         if step >= max_steps else f'stopped at step {step}; to resume, repeat the command with '
         f'--init_from=resume{" --overwrite=False" * overwrite} at its end')
