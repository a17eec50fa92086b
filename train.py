"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                                    # minutes on a laptop
    torchrun --nproc_per_node=8 train.py config/codeparrot.py               # eight GPUs, the same file
    python train.py config/quickstart.py --init_from=resume                 # go on after any interruption, bit for bit

Reads data_dir (train.bin, val.bin, meta.json, tokenizer.json: made by prepare.py). Writes out_dir: last.pt (everything needed
to go on), best.pt (the weights with the lowest validation loss), config.json, tokenizer.json, metrics.jsonl, train.log,
samples.txt. The folder is complete: zip it and use it anywhere.

You should see: a first loss near ln(vocab_size), a fast fall over the warm-up, then a slow one; a validation loss close to the
training loss as long as the data are not repeated much.

Two rules make runs exact. The batch and the dropout of a step are functions of (seed, step, rank) alone, so nothing random has to
be saved: a resumed run is the straight run. And batch_size is the number of sequences in a step over all devices and all
accumulation, so the same config is the same training on one device or on eight, up to rounding.

The decision made here is the objective: predict the next token (causal language modelling), which is what completion needs.
"""
import contextlib, dataclasses, json, math, os, shutil, signal, time
import numpy as np
import torch
import torch.distributed as dist
from configurator import configure
from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from tokenizer import Tokenizer

# --- settings ---------------------------------------------------------------------------------------------------------
# files
data_dir = 'data/stdlib'    # made by prepare.py
out_dir = 'out/base'
init_from = 'scratch'       # scratch; resume = go on with out_dir/last.pt; a folder = start from its weights, step 0
overwrite = False           # True: scratch may start over in an out_dir that holds a run
# model (GPTConfig in model.py)
n_layer = 6
n_head = 6                  # query heads; n_embd / n_head is the head width, 32 to 128 is usual
n_kv_head = 0               # key/value heads; 0 = n_head; fewer make the generation cache smaller
n_embd = 192
n_ffn = 0                   # hidden width of the MLP; 0 = 8/3 n_embd
block_size = 256            # context length, tokens
vocab_size = 0              # 0 = as many as the data's tokenizer has
dropout = 0.0               # for data repeated many times; 0.1 to 0.2 then
# optimisation
batch_size = 32             # sequences per step, over all devices and accumulation
micro_batch_size = 0        # sequences per device and forward pass; 0 = all at once; lower it when memory runs out
max_steps = 1000
learning_rate = 1e-3        # peak; the larger the model, the lower
min_lr: float | None = None # where the cosine ends; None = learning_rate / 10
warmup_steps = 100          # linear rise from 0; 1 % to 10 % of max_steps
weight_decay = 0.1          # of matrices only
beta1 = 0.9
beta2 = 0.95                # 0.999 remembers 1,000 steps of squared gradients, too long for a changing loss
grad_clip = 1.0             # largest gradient norm; 0 = off
# watching
log_interval = 10           # steps
eval_interval = 250         # steps; also before the first and after the last
eval_tokens = 65536         # validation tokens per evaluation, always the same ones; eval.py measures all of them
save_interval = 250         # steps
sample_prompt = ''          # continued at each evaluation; '' = from the start of a document
sample_tokens = 100
# machine
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'              # of matrix products: float32, bfloat16, float16; auto = bfloat16 where the hardware has it
compile: bool | None = None # torch.compile; None = on CUDA
seed = 1337
config = configure(globals())

if min_lr is None:
    min_lr = learning_rate / 10
if max_steps < 1 or batch_size < 1 or log_interval < 1 or eval_interval < 1 or save_interval < 1:
    raise ValueError('max_steps, batch_size, log_interval, eval_interval and save_interval must be at least 1')
if not 0 <= warmup_steps <= max_steps:
    raise ValueError(f'warmup_steps={warmup_steps} must be between 0 and max_steps={max_steps}')
if seed < 0:
    raise ValueError(f'seed={seed} must not be negative')
if not 0 <= min_lr <= learning_rate:
    raise ValueError(f'min_lr={min_lr} must be between 0 and learning_rate={learning_rate}')

# --- setup: same text in train.py, sft.py, dpo.py ---
# One process per device. torchrun sets RANK, LOCAL_RANK and WORLD_SIZE; without it this is rank 0 of 1.
rank, local_rank, world = (int(os.environ.get(k, d)) for k, d in (('RANK', 0), ('LOCAL_RANK', 0), ('WORLD_SIZE', 1)))
main_process = rank == 0
if device == 'auto':
    device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
device_type = device.split(':')[0]
if device_type not in ('cpu', 'cuda', 'mps') or (device_type == 'cuda' and not torch.cuda.is_available()):
    raise ValueError(f'device={device} is not available here; try --device=auto')
if device_type == 'cuda':
    device = f'cuda:{local_rank}' if device == 'cuda' else device
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')      # TF32 for what stays float32
if dtype == 'auto':     # bfloat16 needs no loss scaling; before Ampere it is emulated and slow, as on most CPUs
    native = (device_type == 'cuda' and torch.cuda.get_device_capability(device)[0] >= 8) or \
        (device_type == 'cpu' and getattr(torch.cpu, '_is_avx512_bf16_supported', bool)())
    dtype = 'bfloat16' if native else 'float32'
if dtype not in ('float32', 'bfloat16', 'float16'):
    raise ValueError(f'dtype={dtype} must be auto, float32, bfloat16 or float16')
autocast = torch.autocast(device_type, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')     # float16's range needs a scaled loss
if world > 1:
    dist.init_process_group('nccl' if device_type == 'cuda' else 'gloo')


def all_sum(*values):
    """Sums over all processes, as Python floats."""
    total = torch.tensor(values, dtype=torch.float32 if device_type == 'mps' else torch.float64, device=device)
    if world > 1:
        dist.all_reduce(total)
    return total.tolist()


stop_asked = False          # Ctrl-C or a scheduler's SIGTERM: finish the step, save, leave


def ask_to_stop(signum, frame):
    global stop_asked
    stop_asked = True
    signal.signal(signum, signal.SIG_DFL)           # a second one ends the process at once


signal.signal(signal.SIGTERM, ask_to_stop)
signal.signal(signal.SIGINT, ask_to_stop)
# --- end setup ---

if batch_size % world:
    raise ValueError(f'batch_size={batch_size} sequences cannot be shared by {world} processes; nearest: '
                     f'--batch_size={max(1, round(batch_size / world)) * world}')
per_rank = batch_size // world
micro_batch_size = micro_batch_size or per_rank
if per_rank % micro_batch_size:
    divisors = [d for d in range(1, per_rank + 1) if per_rank % d == 0]
    raise ValueError(f'micro_batch_size={micro_batch_size} must divide the {per_rank} sequences of a device and step; nearest: '
                     f'--micro_batch_size={min(divisors, key=lambda d: abs(d - micro_batch_size))}')

# --- data -------------------------------------------------------------------------------------------------------------


def open_data(data_dir):
    """meta.json, tokenizer and {'train', 'val'} as memory-mapped arrays; each checked against the others."""
    meta_path = os.path.join(data_dir, 'meta.json')
    if not os.path.exists(meta_path):
        raise FileNotFoundError(f'{data_dir} holds no prepared data (no meta.json); run: python prepare.py --out_dir={data_dir}')
    with open(meta_path, encoding='utf-8') as f:
        meta = json.load(f)
    tokenizer = Tokenizer.load(os.path.join(data_dir, 'tokenizer.json'))
    if tokenizer.hash != meta['tokenizer_hash']:
        raise ValueError(f'{data_dir}: tokenizer.json has hash {tokenizer.hash}, the bins were made with '
                         f'{meta["tokenizer_hash"]}; run prepare.py again')
    bins = {}
    for side, n in meta['tokens'].items():
        path = os.path.join(data_dir, f'{side}.bin')
        expected, found = n * np.dtype(meta['dtype']).itemsize, os.path.getsize(path)
        if found != expected:
            raise ValueError(f'{path} has {found:,} bytes, meta.json says {expected:,}; it is cut off or from another run: '
                             'run prepare.py again')
        if n < block_size + 1:
            raise ValueError(f'{path} has {n:,} tokens, fewer than one sequence of block_size={block_size} and its target; '
                             'lower --block_size or prepare more text')
        bins[side] = np.memmap(path, meta['dtype'], mode='r')
    return meta, tokenizer, bins


def permute(i, n, key):
    """Entry i of a pseudo-random permutation of range(n) that depends on key, computed alone: no list of n entries, however
    large the corpus. A 4-round Feistel network permutes the 2b-bit numbers (Luby & Rackoff 1988); applied again to what
    falls outside range(n), it permutes range(n). i, key: uint64 arrays of one shape."""
    b = np.uint64(max(1, (int(n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(b)) - 1)

    def scramble(x):
        left, right = x >> b, x & mask
        for round_ in range(4):
            h = (right + key + np.uint64(round_)) * np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((h >> np.uint64(32)) & mask)
        return (left << b) | right

    x = scramble(i)
    while (outside := x >= n).any():
        x = np.where(outside, scramble(x), x)
    return x


def sequence_starts(step, batch_size, n_tokens, block_size, seed):
    """Where the step's sequences begin in the data, (batch_size,). An epoch visits each block of block_size tokens once, in an
    order of its own, and cuts the blocks at an offset of its own."""
    n_blocks = np.uint64((n_tokens - 1) // block_size)
    i = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
    key = (i // n_blocks + np.uint64(seed) * np.uint64(1_000_003)) * np.uint64(0xD6E8FEB86659FD93)     # of the epoch
    offset = (key >> np.uint64(33)) % np.uint64(block_size)
    starts = permute(i % n_blocks, n_blocks, key) * np.uint64(block_size) + offset
    return (starts % np.uint64(n_tokens - block_size)).astype(np.int64)


def load_batch(data, starts):
    """Sequences and their targets, the same one token later: two int64 tensors (B, T) on the device."""
    rows = np.stack([data[s:s + block_size + 1] for s in starts]).astype(np.int64)      # +1: the last target
    rows = torch.from_numpy(rows)
    if device_type == 'cuda':
        rows = rows.pin_memory().to(device, non_blocking=True)
    return rows[:, :-1].contiguous().to(device), rows[:, 1:].contiguous().to(device)


meta, tokenizer, bins = open_data(data_dir)
token_bytes = np.array([len(t) for t in tokenizer.vocab] + [0] * len(tokenizer.special))
vocab_size = vocab_size or meta['vocab_size']
if vocab_size != meta['vocab_size']:
    raise ValueError(f'vocab_size={vocab_size}, but the data in {data_dir} have {meta["vocab_size"]}; leave it at 0, or prepare '
                     f'with --vocab_size={vocab_size}')

# --- model, optimizer, resume -----------------------------------------------------------------------------------------
last_path, best_path = (os.path.join(out_dir, name) for name in ('last.pt', 'best.pt'))
torch.manual_seed(seed)
step, best_val, state = 0, math.inf, {}
model_config = GPTConfig(**{k: config[k] for k in ('block_size', 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'dropout')},
                         vocab_size=vocab_size)
if init_from == 'scratch':
    if os.path.exists(last_path) and not overwrite:
        raise ValueError(f'{out_dir} already holds a run; go on with --init_from=resume, or choose another --out_dir, or start '
                         'over with --overwrite=True')
    model = GPT(model_config).to(device)
elif init_from == 'resume':
    model, state = load_checkpoint(last_path, device)
    different = [k for k, v in vars(model_config).items() if v != getattr(model.config, k)]
    if different:
        k = different[0]
        raise ValueError(f'{last_path} has {k}={getattr(model.config, k)}, this run has {getattr(model_config, k)}; resume with the '
                         'settings of the run, or choose another --out_dir')
    step, best_val = state['step'], state['best_val']
else:                       # the architecture is the checkpoint's; dropout is a matter of this run
    source, state = load_checkpoint(init_from, device)
    model_config = dataclasses.replace(source.config, dropout=dropout)
    model = GPT(model_config).to(device)
    model.load_state_dict(source.state_dict())
    del source
    if model_config.vocab_size != vocab_size:
        raise ValueError(f'{init_from} has vocab_size={model_config.vocab_size}, the data in {data_dir} have {vocab_size}; prepare '
                         f'them with its tokenizer: --tokenizer={init_from}/tokenizer.json')
    if model_config.block_size < block_size:
        raise ValueError(f'{init_from} has a context of {model_config.block_size} tokens; set --block_size={model_config.block_size}')
if state and state.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'{init_from} was trained with tokenizer {state["tokenizer_hash"]}, {data_dir} was made with {tokenizer.hash}; '
                     'their ids mean different texts')

optimizer = torch.optim.AdamW(model.parameter_groups(weight_decay), learning_rate, betas=(beta1, beta2),
                              fused=device_type in ('cpu', 'cuda'))
if init_from == 'resume':
    optimizer.load_state_dict(state['optimizer'])
    scaler.load_state_dict(state['scaler'])

net, compiled = model, False
if compile or (compile is None and device_type == 'cuda'):
    try:                    # the compiler runs at the first call: call it, and throw the gradients away
        net = torch.compile(model)
        with autocast:
            net(*load_batch(bins['train'], np.zeros(micro_batch_size, dtype=np.int64)))[1].backward()
        compiled = True
    except Exception as e:
        net = model
        print(f'torch.compile failed ({type(e).__name__}); going on without it, more slowly')
    optimizer.zero_grad(set_to_none=True)
ddp = torch.nn.parallel.DistributedDataParallel(net, device_ids=[device] if device_type == 'cuda' else None) if world > 1 else net

# --- logging: same text in train.py, sft.py, dpo.py ---
if main_process:
    os.makedirs(out_dir, exist_ok=True)
    metrics_path = os.path.join(out_dir, 'metrics.jsonl')
    if init_from == 'resume' and os.path.exists(metrics_path):      # what came after the checkpoint will be lived again
        with open(metrics_path, encoding='utf-8') as f:
            kept = [line for line in f if line.endswith('}\n') and json.loads(line)['step'] <= step]
        with open(f'{metrics_path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            f.writelines(kept)
        os.replace(f'{metrics_path}.tmp', metrics_path)
    elif init_from != 'resume':
        for name in ('last.pt', 'best.pt', 'metrics.jsonl', 'train.log', 'samples.txt'):
            if os.path.exists(os.path.join(out_dir, name)):
                os.remove(os.path.join(out_dir, name))
    with open(os.path.join(out_dir, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
        json.dump(config, f, indent=1)


def say(text, file='train.log'):
    """To the terminal and a file of out_dir, from the first process only."""
    if main_process:
        if file == 'train.log':
            print(text, flush=True)
        with open(os.path.join(out_dir, file), 'a', encoding='utf-8', newline='\n') as f:
            f.write(text + '\n')


def log_metrics(**metrics):
    say(json.dumps(metrics), 'metrics.jsonl')
# --- end logging ---


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr):
    """The learning rate of update number `step`, from 0: a linear rise that reaches learning_rate with the last warm-up step, then
    half a cosine down to min_lr, reached with step max_steps. lr_at(0, 100, 10, 1.0, 0.1) = 0.1; at 10: 1.0; at 55: 0.55"""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * t))


@torch.no_grad()
def evaluate():
    """Loss in nats per token and bits per byte on eval_tokens of the validation data: fixed blocks, spread evenly, shared by
    the processes. Draws nothing random, so evaluating more or less often does not change the training."""
    data = bins['val']
    n_blocks = (len(data) - 1) // block_size
    blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, eval_tokens // block_size))).astype(np.int64)
    mine = blocks[rank::world] * block_size
    nats = tokens = n_bytes = 0.0
    model.eval()
    for i in range(0, len(mine), micro_batch_size):
        x, y = load_batch(data, mine[i:i + micro_batch_size])
        with autocast:
            loss = model(x, y)[1]
        nats += loss.item() * y.numel()
        tokens += y.numel()
        n_bytes += token_bytes[y.cpu().numpy()].sum()
    model.train()
    nats, tokens, n_bytes = all_sum(nats, tokens, n_bytes)
    return nats / tokens, nats / math.log(2) / max(1, n_bytes)


def sample_text():
    """What the model writes now, from the first process."""
    start = tokenizer.encode(sample_prompt) or [tokenizer.special.get('<|endoftext|>', int(bins['val'][0]))]
    with autocast:
        ids = model.generate(torch.tensor([start], device=device), sample_tokens, 0.8, top_k=50)[0].tolist()
    return tokenizer.decode(ids[0 if sample_prompt else 1:])


# --- the loop ---------------------------------------------------------------------------------------------------------
tokens_per_step = batch_size * block_size
n_parameters = sum(p.numel() for p in model.parameters())
epochs = max_steps * tokens_per_step / len(bins['train'])
say(f"""{'resumed at step ' + str(step) if init_from == 'resume' else 'starting from ' + init_from}
  data        {data_dir}: {len(bins['train']):,} training and {len(bins['val']):,} validation tokens, vocabulary {vocab_size:,}
  model       {n_parameters:,} parameters ({sum(p.numel() for p in model.blocks[0].parameters()):,} per block)
  device      {world} x {device_type}, {dtype}, {'compiled' if compiled else 'not compiled'}
  step        {batch_size} sequences of {block_size} = {tokens_per_step:,} tokens: {world} processes x {per_rank // micro_batch_size} \
accumulated x {micro_batch_size} at once
  plan        {max_steps:,} steps, {max_steps * tokens_per_step:,} tokens, {epochs:.2f} epochs; warm-up {warmup_steps}, \
learning rate {learning_rate:g} to {min_lr:g}, clip {grad_clip:g}
  expect      a first loss near ln({vocab_size}) = {math.log(vocab_size):.4f}
  output      {out_dir}""")
if epochs > 4:
    say(f'  note        the data are read {epochs:.0f} times; past about 4 the model starts to learn them by heart: watch val_loss')
for k, v in state.get('config', {}).items():
    if init_from == 'resume' and k in config and config[k] != v and k not in ('init_from', 'overwrite'):
        say(f'  note        {k} was {v}, is now {config[k]}: the run goes on, but no longer as the straight run')
if main_process:
    shutil.copyfile(os.path.join(data_dir, 'tokenizer.json'), os.path.join(out_dir, 'tokenizer.json'))


def save_last():
    if main_process:
        save_checkpoint(last_path, model, step=step, best_val=best_val, optimizer=optimizer.state_dict(),
                        scaler=scaler.state_dict(), tokenizer_hash=tokenizer.hash, config=config)


first_step, skipped, skipped_in_a_row, window_start, window_steps, start_time = step, 0, 0, time.time(), 0, time.time()
model.train()
while True:
    # 1. evaluate; a resumed run has this step's evaluation behind it
    if (step % eval_interval == 0 or step == max_steps) and (step != first_step or step == 0):
        val_loss, val_bpb = evaluate()
        say(f'step {step:>6}/{max_steps} | val_loss: {val_loss:.4f} | val_ppl: {math.exp(min(val_loss, 700)):.2f} | '
            f'val_bpb: {val_bpb:.4f}')
        log_metrics(step=step, tokens=step * tokens_per_step, val_loss=val_loss, val_ppl=math.exp(min(val_loss, 700)), val_bpb=val_bpb)
        if main_process:
            say(f'--- step {step}, val_loss {val_loss:.4f}\n{sample_text()}\n', 'samples.txt')
        if val_loss < best_val:
            best_val = val_loss
            if main_process and step > 0:
                save_checkpoint(best_path, model, step=step, best_val=best_val, tokenizer_hash=tokenizer.hash, config=config)
        window_start, window_steps = time.time(), 0     # evaluation is not training time

    # 2. save, stop
    if (step % save_interval == 0 or step == max_steps or stop_asked) and step > first_step:
        save_last()
    if step >= max_steps or stop_asked:
        break

    # 3. one step: gradients of the mean loss over the whole global batch, then clip, then update
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)          # dropout: a function of (seed, step, rank)
    lr = lr_at(step, max_steps, warmup_steps, learning_rate, min_lr)
    for group in optimizer.param_groups:
        group['lr'] = lr
    starts = sequence_starts(step, batch_size, len(bins['train']), block_size, seed)[rank * per_rank:(rank + 1) * per_rank]
    loss_sum = 0.0                                                      # over this process's tokens
    for i in range(0, per_rank, micro_batch_size):
        x, y = load_batch(bins['train'], starts[i:i + micro_batch_size])
        last = i + micro_batch_size >= per_rank
        with contextlib.nullcontext() if last or world == 1 else ddp.no_sync():    # DDP averages gradients once, at the end
            with autocast:
                loss = ddp(x, y)[1]
            # DDP divides the sum over processes by world: multiplied back, gradients are those of the global mean
            scaler.scale(loss * (y.numel() * world / tokens_per_step)).backward()
        loss_sum += loss.detach() * y.numel()

    # --- clip and step: same text in train.py, sft.py, dpo.py ---
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or math.inf).item()     # as it was before clipping
    loss_sum, stop_votes = all_sum(float(loss_sum), stop_asked)
    stop_asked = stop_votes > 0                                         # the processes stop together or not at all
    if math.isfinite(norm) and math.isfinite(loss_sum):
        scaler.step(optimizer)
        skipped_in_a_row = 0
    else:                                                               # nothing non-finite reaches the weights
        skipped, skipped_in_a_row = skipped + 1, skipped_in_a_row + 1
        say(f'step {step}: loss {loss_sum}, gradient norm {norm}: not finite, update skipped')
        if skipped_in_a_row >= (30 if scaler.is_enabled() else 3):      # float16 finds its scale by overflowing
            raise ValueError(f'{skipped_in_a_row} updates in a row were not finite, step {step}, lr {lr:.2e}; {last_path} is the last '
                             'good checkpoint, if there is one: resume with a lower --learning_rate or --dtype=float32')
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    # --- end clip and step ---
    step += 1
    window_steps += 1

    # 4. log
    if step % log_interval == 0 or step == first_step + 1 or step == max_steps:
        dt = (time.time() - window_start) / window_steps
        loss = loss_sum / tokens_per_step
        eta = dt * (max_steps - step)
        say(f'step {step:>6}/{max_steps} | loss: {loss:.4f} | lr: {lr:.2e} | gnorm: {norm:.2f} | {dt * 1000:.0f} ms | '
            f'{tokens_per_step / dt:,.0f} tok/s | eta {int(eta // 60)}m{int(eta % 60):02d}s')
        log_metrics(step=step, tokens=step * tokens_per_step, loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=tokens_per_step / dt,
                    skipped=skipped)
        if step == 1 and abs(loss - math.log(vocab_size)) > 1 and init_from == 'scratch':
            say(f'  warning: the first loss should be near ln({vocab_size}) = {math.log(vocab_size):.2f}')
        window_start, window_steps = time.time(), 0

# --- summary ----------------------------------------------------------------------------------------------------------
if step < max_steps:
    say(f'stopped at step {step} as asked, {last_path} is saved; go on: the same command with --init_from=resume')
else:
    say(f'done: best val_loss {best_val:.4f}, {(time.time() - start_time) / 60:.1f} minutes; {out_dir} has best.pt, last.pt, samples.txt\n'
        f'next: python sample.py --ckpt={out_dir}   python eval.py --ckpt={out_dir} --data_dir={data_dir}')
if world > 1:
    dist.destroy_process_group()
