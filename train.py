"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                            # minutes on two CPU cores
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py --out_dir=out/base --init_from=resume           # resumes; on a CPU, bit for bit
    python train.py config/codeparrot.py --plan=8xH100              # says what that run would take

It reads data_dir, which prepare.py made, and writes out_dir, a folder that you can zip and use
anywhere. The decision made here is the objective: a model of clm continues texts, one of mlm or
span fills gaps in them. You should see a first loss near ln(vocab_size) and a fast fall.

To read this file: the loop is section 6, at the end. Sections 1 to 5 make what it uses, in this
order: the rows of the batch that this process computes, get_batch(), the model, the optimizer, the
learning rate, the log, evaluate() and save(). You can skip what is in parts/ on a first reading.

Two rules make runs reproducible. First, the text of a step follows from (seed, step), and its
dropout from (seed, step, rank), so a resumed run equals one that was never interrupted. Second,
batch_size counts the sequences of all devices together, so 1 and 8 devices compute the same steps.
Without dropout, they differ by rounding only: by 1e-7 in float32, and by more in bfloat16, where it
grows with the steps. With --streaming, the text follows from a position, which the checkpoint
keeps, and each device reads shards of its own, so another number of devices reads other text.
"""
import contextlib, math, sys
from typing import Literal
from configurator import Mistake, configure, set_by
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel as DDP
from model import GPT, GPTConfig, IGNORE
from parts.model import checkpoints, planner
from parts.prepare import texts
from parts.train import data, guards, objectives, optim, processes, runs
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
# The first eleven are enough to begin. Read the others when you need one: their defaults work.
# the first ones to change
data_dir = 'data/quickstart'    # made by prepare.py
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, resume (from out_dir/last.pt), or the folder of a model
n_layer = 6                     # blocks
n_head = 6                      # query heads, each n_embd / n_head wide; 32 to 128 is usual
n_embd = 192                    # width of the residual stream
block_size = 256                # context, tokens
max_steps = 1000                # updates
batch_size = 32                 # sequences per step, over all devices and accumulation
learning_rate = 1e-3            # peak; lower for larger models
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
# files
data_from = ''                  # printed if data_dir is missing: a config's 'python prepare.py ...'
overwrite = False               # True: delete the run that out_dir holds, and start over
extend_vocab = False            # True: the tokenizer isn't init_from's; keep rows of common tokens
streaming: str | None = None    # folder or glob of .jsonl(.gz) shards, read instead of train.bin
shuffle = True                  # visit the blocks of train.bin in random order
# objective
objective: Literal['clm', 'mlm', 'span'] = 'clm'  # predict the next token, masked ones, or spans
document_mask = False           # clm: attention stays within a document
# model (GPTConfig in model.py)
n_kv_head = 0                   # key/value heads; 0 = n_head; fewer make the cache smaller
n_ffn = 0                       # hidden width of the MLP; 0 = 8/3 n_embd, to the nearest 64
rope_theta = 0.0                # base of RoPE's wavelengths; 0 = 10,000 or init_from's
rope_scaling: Literal['none', 'linear', 'llama3'] = 'none'  # to a longer block_size
vocab_size = 0                  # 0 = that of the data's tokenizer; another one is refused
tie_embeddings = True           # one matrix is both embedding and head
vocab_multiple = 1              # pads the vocabulary; 64 is fast on GPUs
dropout = 0.0                   # 0.1 to 0.2 when the data are repeated many times
# optimization
micro_batch_size = 0            # sequences per device and forward pass; 0 = all
optimizer: Literal['adamw', 'muon'] = 'adamw'  # Muon for the blocks' matrices, AdamW for the rest
embedding_lr = 1.0              # factor of the embedding's (and a tied head's) learning rate
min_lr: float | None = None     # where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
schedule: Literal['cosine', 'wsd'] = 'cosine'  # wsd stays at the peak, then falls in decay_steps
decay_steps = 0                 # steps of the final fall of wsd; 0 = a fifth of max_steps
weight_decay = 0.1              # pull of the weights towards 0; of matrices only
beta1 = 0.9                     # AdamW's decay of the mean gradient
beta2 = 0.95                    # its decay of the mean square; 0.95 averages 20 steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 250             # steps; also before the first and after the last
eval_tokens = 65_536            # tokens of each val*.bin to measure, always the same; 0 = all
save_interval = 250             # steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
sample_tokens = 100             # length of a sample
num_samples = 8                 # samples per evaluation; samples.txt shows the first one
expect: dict | None = None      # {'val_loss': (4.05, 4.13)}: usual range; the last line compares
keep = 2                        # checkpoints: last.pt, last-1.pt, ...
spike_z = 8.0                   # standard deviations that make a loss a spike; 0 = off
spike_window = 100              # number of last steps that a loss is compared with
spike_action: Literal['skip', 'rollback', 'log'] = 'skip'  # rollback = to last.pt, at half the rate
show_batch: int | None = None   # print this step's (a stream's first) batch, then end
plan = ''                       # 8xH100, 2x8xA100, 4x312:80 (TFLOPs:GB): print memory, days, cost
# machine
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'  # auto = bfloat16 if it is fast
compile: bool | None = None     # torch.compile; None = on CUDA
shard: Literal['ddp', 'zero2', 'fsdp'] = 'ddp'  # split nothing, gradients and moments, or all
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # seed of weights, order and dropout
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'n_layer': (1, 1e4), 'n_head': (1, 1e4), 'n_embd': (1, 1e6), 'block_size': (1, 1e7),
          'max_steps': (1, 1e9), 'batch_size': (1, 1e6), 'vocab_multiple': (1, 65536),
          'dropout': (0, 0.99), 'beta1': (0, 0.9999), 'beta2': (0, 0.9999),
          'log_interval': (1, 1e9), 'eval_interval': (1, 1e9), 'save_interval': (1, 1e9),
          'sample_tokens': (1, 1e6), 'num_samples': (1, 1e4), 'keep': (1, 99),
          'spike_window': (30, 1e6), 'seed': (0, 2 ** 32 - 1)}
# Config files and flags replace the values above. config is a dict of the same values, which the
# log and the checkpoints keep. The code below computes with the variables.
config = configure(globals(), BOUNDS)

# --- 1. this run and this process -----------------------------------------------------------------
# --- resume: same text in train.py, sft.py, dpo.py, rl.py ---
# state is {} in a new run. With --init_from=resume it is the newest checkpoint in out_dir. Then the
# settings in it replace those in config, except what a flag or a config file gives now (they are in
# set_by), and the second line copies config into the variables above. From then on init_from is no
# longer the word resume: it is what the run began with, a folder or scratch.
state = runs.take_over_settings(config, set_by)
globals().update(config)
# --- end resume ---
if plan:
    planner.show(config)
    sys.exit()

# torchrun starts one process for each device. They share the batch of each step, for instance
#     512 sequences = 8 processes x 16 micro-batches x 4 sequences
# so the number of devices changes the speed and, up to rounding, not the result. (A stream is
# different: each process reads shards of its own.)
# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
# `here` is this process: its rank, the number of processes (world), its device ('cuda:1'), the kind
# of device ('cuda') and the dtype of matrix products, as text.
here = processes.Process(config)
micro_batch_size = micro_batch_size or batch_size // here.world
autocast = torch.autocast(here.kind, getattr(torch, here.dtype), enabled=here.dtype != 'float32')
scaler = torch.amp.GradScaler(here.kind, enabled=here.dtype == 'float16')
# --- end setup ---
# The rows of the batch that this process computes. Of a batch of 8 in micro-batches of 2, the
# second of 2 processes has [[4, 5], [6, 7]].
my_rows = np.arange(batch_size).reshape(here.world, -1, micro_batch_size)[here.rank]

# --- 2. data --------------------------------------------------------------------------------------
# meta is the content of meta.json, bins is {'train': token ids, 'val': token ids}. identity has
# hashes of these data, which checkpoints keep, so that no run resumes on other data.
meta, bins, identity = data.open_bins(data_dir, block_size, config)
tokenizer = Tokenizer.load(f'{data_dir}/tokenizer.json')
# masking is what the objective does to a sequence. With clm it does nothing. mlm and span hide some
# of its tokens, and the model must predict those. masking.n_text is the number of tokens of text in
# a sequence: block_size, less with span.
masking = objectives.Objective(objective, tokenizer, block_size, seed, document_mask=document_mask)
# source has the text of each step: blocks of train.bin, or what comes next in a stream.
if streaming:
    source = data.Stream(streaming, here, tokenizer, masking.n_text)
else:
    source = data.Blocks(bins, masking.n_text, batch_size, seed, shuffle=shuffle, meta=meta)


def get_batch(step, rows):
    """Return the arguments of model.forward for these sequences of a step. With clm they are token
    ids x and y, (B, T) each. For a sequence that begins at token i of train.bin,

        x = ids[i:i + T]
        y = ids[i + 1:i + 1 + T]        # the same text, one token later

    With mlm and span, x hides some tokens, and y asks for those only. span adds a mask,
    document_mask adds a mask and the positions in the documents. Which i a step has follows from
    (seed, step) alone. A stream goes on from its position."""
    return here.to_device(masking.apply(*source.take(step, rows), rows, step))


if show_batch is not None:
    for row, x in enumerate(get_batch(show_batch, my_rows.flatten())[0]):
        print(f'--- step {show_batch}, sequence {row} of {batch_size}')
        print(tokenizer.decode(x.tolist()))
    sys.exit()

# --- 3. model: from nothing, from where this run stopped, or from the weights of another ----------
torch.manual_seed(seed)
if state:           # section 4 loads its weights, together with the optimizer's moments
    model = GPT(GPTConfig(**state['model_config']))
elif init_from == 'scratch':
    if extend_vocab or rope_scaling != 'none':
        raise Mistake('extend_vocab and rope_scaling change a model; name it: --init_from=FOLDER')
    try:
        shape = GPTConfig(
            vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head,
            n_kv_head=n_kv_head, n_embd=n_embd, n_ffn=n_ffn, dropout=dropout,
            causal=objective != 'mlm', rope_theta=rope_theta or 1e4, vocab_multiple=vocab_multiple,
            tie_embeddings=tie_embeddings)
    except ValueError as e:         # these numbers don't fit together
        raise Mistake(e) from e
    model = GPT(shape)
else:
    model = checkpoints.from_weights(config, set_by, tokenizer)
model.grad_checkpoint = grad_checkpoint
compile = here.kind == 'cuda' if compile is None else compile
# The loop calls net, which is the model, perhaps compiled and wrapped in DDP, or split by FSDP.
# Without torchrun there is one process and nothing to split, so every value of shard does the same.
if shard == 'ddp' or not torch.distributed.is_initialized():
    model.to(here.device)
    net = torch.compile(model) if compile else model
    if here.world > 1:
        # DDP gives all processes the average of their gradients. It collects these in buckets. We
        # make one as large as a block for speed alone, because the compiler cuts its graph where a
        # bucket ends. (It also needs at least 1 MB.)
        block_mb = sum(p.nbytes for p in model.blocks[0].parameters()) / 1_048_576
        net = DDP(net, gradient_as_bucket_view=True, bucket_cap_mb=max(1, block_mb))
else:
    net = processes.shard(model, shard, here, compile)

# --- 4. optimizer ---------------------------------------------------------------------------------
# Weight decay pulls weights towards 0. The norms' gains (vectors) belong near 1, so they have none.
# All matrices have it, the embedding and the head included.
# use_muon and lr_scale are ours, and AdamW ignores them. With --optimizer=muon, the first group,
# the matrices of the blocks, is Muon's, and optim.Muon updates the groups without use_muon as AdamW
# does. The loop multiplies the learning rate of a group by its lr_scale. Checkpoints hold both
# names, so they must stay.
groups = [{'params': [p for p in model.blocks.parameters() if p.dim() == 2],
           'use_muon': optimizer == 'muon'},
          {'params': [model.embedding.weight], 'lr_scale': embedding_lr},
          {'params': [p for p in model.parameters() if p.dim() == 1], 'weight_decay': 0.0}]
if model.head.weight is not model.embedding.weight:     # tied, they are one matrix
    groups.append({'params': [model.head.weight]})
Optimizer = optim.Muon if optimizer == 'muon' else torch.optim.AdamW
opt = Optimizer(groups, lr=learning_rate, betas=(beta1, beta2), weight_decay=weight_decay,
                fused=here.kind != 'mps')


def restore(state):
    """Go on from a checkpoint that save() wrote, when a run resumes or rolls back: take over its
    weights, moments and scale, and the positions of streams. Return its step."""
    processes.load_state(model, opt, scaler, state)
    source.go_to(state['positions'])
    return state['step']


step = restore(state) if state else 0
best_val = state.get('best_val', math.inf)
# Does a micro-batch fit into memory, and does it compile? A run that fails here has written nothing
# yet, and deleted nothing.
processes.rehearse(net, model, opt, here.to_device(masking.blank(micro_batch_size)), autocast,
                   compile)

# --- 5. the schedule, the log, the loss on held-out text, the checkpoint --------------------------
if decay_steps and schedule == 'cosine':
    raise Mistake(f'{decay_steps=} needs --schedule=wsd; add it, or leave decay_steps out')
warmup_steps, min_lr, decay_steps = optim.schedule_ends(
    max_steps, warmup_steps, learning_rate, min_lr, decay_steps)
tokens_per_step = batch_size * block_size


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """Return the learning rate of update `step`, counted from 0: a linear rise, then half a cosine
    (SGDR, arXiv:1608.03983), or with 'wsd' a constant rate and a linear fall at the end
    (2404.06395). lr_at(step, 100, 10, 1.0, 0.1) is 0.1 at step 0, 1.0 at 9 and 10, 0.55 at 55. The
    settings are arguments, so that tests and docs/tour.md can call it without a run."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        # If the last 20 of 100 steps are the decay_steps: 0 up to step 80, 0.5 at 90, 1 at 100.
        fall = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))
        return learning_rate - (learning_rate - min_lr) * fall
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)     # from 0 to 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * progress))


# From here on the run writes into out_dir. log writes train.log, metrics.jsonl and samples.txt, and
# keeps other runs out of the folder; save() writes the checkpoints.
log = runs.Log(config, set_by, state, here, model, tokenizer, identity)
# The guard refuses the update of a step whose loss or gradient is a NaN or a spike.
guard = guards.Guard(state, log, here.dtype, spike_z, spike_window, spike_action)
log.say(masking.described(meta, bins, batch_size, max_steps))


# --- loss: same text in train.py, sft.py ---
@torch.no_grad()
def loss_of(batches):
    """Return nats a target and bits per byte of text, over these batches of all processes. It draws
    no random numbers, so a run that is evaluated more often learns the same."""
    text_bytes = np.array(tokenizer.text_bytes)                                         # (V,)
    sums = np.zeros(3)                                                  # nats, targets, bytes
    model.eval()
    for arrays in batches:
        targets = arrays[1][arrays[1] != IGNORE]                                        # (n,)
        # Here we call model, not net: DDP has no gradients to average, and the compiler would
        # compile net a second time. FSDP splits model itself, so it gathers weights here as well.
        with autocast:
            mean = model(*here.to_device(arrays), with_logits=False)[1]
        sums += mean.item() * len(targets), len(targets), text_bytes[targets].sum()
    model.train()
    nats, n_targets, n_bytes = here.sum(*sums)
    return nats / max(1, n_targets), nats / math.log(2) / max(1, n_bytes)
# --- end loss ---


def evaluate():
    """Measure the loss on held-out text, of each source if there are several, and write samples.
    best.pt keeps the weights with the lowest loss."""
    global best_val
    with log.timed('eval'):
        row = {}
        for name in bins:                   # val, and each source of a mixture: val_web, ...
            if name != 'train':
                held_out = data.evaluation(bins[name], masking.n_text, eval_tokens,
                                           micro_batch_size, here, hide=masking.apply)
                row[f'{name}_loss'], row[f'{name}_bpb'] = loss_of(held_out)
        if objective == 'clm' and math.isfinite(row['val_loss']):       # nothing is drawn from NaN
            torch.manual_seed(seed)         # the same numbers each time: only the model differs
            with autocast:                  # under FSDP all processes take part
                samples, figures = texts.write(model, tokenizer, sample_prompt, num_samples,
                                               sample_tokens, bins['val'])
            log.say(f'--- step {step}, val_loss {row["val_loss"]:.4f}\n{samples[0]}\n',
                    'samples.txt')
            row |= figures
    log.evaluation(step, tokens=step * tokens_per_step, **row)
    if row['val_loss'] < best_val and step > 0:     # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def save(name='last.pt'):
    """Write all that resuming needs. The last.pt before becomes last-1.pt. best.pt is for use:
    without Adam's moments it is a third as large.

    Without the moments, the first steps of the resumed run would be as wild as those of a new one;
    without step, it would see the same text again, at the wrong learning rate; without positions,
    the same shards of a stream; without scaler, float16 would overflow until it has found its scale
    again; without the guard's window, it would not know what a spike is. The hashes of tokenizer
    and data tell it whether it continues with the same ones."""
    with log.timed('save'):
        weights, moments = processes.state_of(model, [opt] if name == 'last.pt' else [])
        positions = here.gather(source.position)        # of the streams, or None
        if weights:                     # {} in all processes but the first
            checkpoints.write(f'{out_dir}/{name}', keep, {
                'model': weights, 'model_config': vars(model.config), 'moments': moments,
                'scaler': scaler.state_dict(), 'config': config, 'tokenizer_hash': tokenizer.hash,
                'data': identity, 'positions': positions, 'step': step,
                'tokens': step * tokens_per_step, 'best_val': best_val, **guard.state()})


# --- 6. the loop ----------------------------------------------------------------------------------
# One matrix is watched: update_ratio in the log says how far a step moves it, relative to its size.
watched = model.blocks[-1].mlp.w_down.weight.detach()
if step == 0:
    evaluate()
while step < max_steps:
    # Dropout draws other numbers in each step and process. The sum below counts like a clock: ranks
    # are its seconds, steps its minutes of 4,096 seconds, and seeds its hours of 1,000,003 minutes.
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + here.rank)
    # guard.lr_factor is 1. Each rollback after a spike, below, halves it.
    lr = guard.lr_factor * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule,
                                 decay_steps)
    for group in opt.param_groups:
        group['lr'] = lr * group.get('lr_scale', 1.0)
    watched_before = watched.clone()        # the update below changes watched

    # --- step: same text in train.py, sft.py ---
    # the gradient of the mean loss over all targets of the step, in all processes
    with log.timed('data'):
        batches = [get_batch(step, rows) for rows in my_rows]
    # The inner sum counts the targets of this process. With 30 here and 90 in the other process,
    # here.sum returns [120.0] in both of them, a list because it can take several values at once.
    # *mask is what get_batch() returns besides x and y: most often nothing.
    n_targets = here.sum(sum((y != IGNORE).sum() for x, y, *mask in batches))[0]
    loss = 0.0
    for i, (x, y, *mask) in enumerate(batches):
        # The fraction of all targets that are in this micro-batch: of two with 30 and 90 targets,
        # the first counts 1/4. With 1/2 each, one of the first would weigh three times as much.
        fraction = (y != IGNORE).sum() / max(1, n_targets)
        # DDP averages the gradients over the processes after the last micro-batch only.
        is_last = i == len(batches) - 1
        with contextlib.nullcontext() if is_last or not isinstance(net, DDP) else net.no_sync():
            with autocast:
                mean = net(x, y, *mask, with_logits=False)[1]   # over the micro-batch's targets
            # DDP and FSDP average the gradients of the processes, and times world makes a sum of
            # that. Let two processes have 30 and 90 targets with means a and b. We want the mean
            # over all 120, which is a / 4 + 3 b / 4. One process calls backward() on 2 a / 4, the
            # other one on 6 b / 4, and the average of the two is what we want.
            scaler.scale(mean * fraction * here.world).backward()
        loss += mean.detach() * fraction

    # the update
    scaler.unscale_(opt)                    # float16's gradients were scaled up; otherwise nothing
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf)
    # Under FSDP the norm is spread over the processes. whole() makes one number of it.
    norm = processes.whole(norm).item()
    # Each process has a part of the loss. The same call adds up the requests to stop (Ctrl-C,
    # SIGTERM): so all processes agree on whether this step is the last.
    loss, stop_requests = here.sum(loss, here.stop_requests)
    if guard.allows(step, loss, norm):      # no NaN, no spike; it logs what it refuses
        scaler.step(opt)
    scaler.update()
    # A single process frees its gradients. With several, they stay in memory and become 0, because
    # DDP's are parts of its buckets, the memory in which it averages them.
    opt.zero_grad(set_to_none=here.world == 1)
    # --- end step ---
    # After a spike, --spike_action=rollback goes on from the last save, at half the learning rate.
    if guard.wants_rollback:
        step = restore(guard.roll_back(step))
        continue
    step += 1

    if step in (1, max_steps) or step % log_interval == 0:
        # Under FSDP a process has a part of the matrix, so whole() is needed as for the norm.
        moved = (watched - watched_before).norm() / watched_before.norm()
        log.step(step=step, tokens=step * tokens_per_step, loss=loss, lr=lr, grad_norm=norm,
                 update_ratio=processes.whole(moved).item(), skipped=guard.skipped)

    # --- leave: same text in train.py, sft.py, dpo.py ---
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    stopping = stop_requests or guard.trouble       # the same answer in all processes
    if step % save_interval == 0 or step == max_steps or stopping:
        save()
    if stopping:
        break
    # --- end leave ---

# --- summary --------------------------------------------------------------------------------------
prompt = [] if objective == 'clm' else ['--prompt=a text with a <|mask|> in it']
log.end(step, best_val, ['sample.py', f'--ckpt={out_dir}', *prompt])     # the next command
here.leave(guard.trouble)                   # with trouble: one line, and exit code 2
