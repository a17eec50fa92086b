"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python prepare.py --kind=sft && python sft.py       # small problems with their answers
    python sft.py --init_from=out/base --data_dir=data/alpaca
    python sft.py --out_dir=out/sft --init_from=resume              # resumes

Reads init_from, a folder that train.py wrote (or a Hugging Face folder of a Llama), and
data_dir/train.jsonl and val.jsonl, lines of {"messages": [{"role": "user", "content": ...},
{"role": "assistant", ...}]}. Writes out_dir as train.py does.

Loop and loss are those of train.py. One thing is new, the mask: the loss counts only the
assistant's words and the <|im_end|> after them, in every turn. All other tokens are context, with
IGNORE as target. A model that is also trained on the questions learns to ask. Without training on
<|im_end|> it never stops. The decision made here is the form of an answer: the model copies the
length and tone of the conversations.

You should see one conversation with its trained parts in [[ ]], a first loss well above the base
model's, and a fall of loss and val_loss within the first hundred steps. If val_loss rises while
the loss falls, the model memorizes: use fewer epochs. With base_dir, base_bpb shows how much the
model forgets; replay helps.
"""
import contextlib, itertools, math, sys
from typing import Literal
from configurator import Mistake, configure, set_by
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel as DDP
from model import IGNORE
from parts.model import adapters, checkpoints, copies
from parts.train import data, guards, optim, processes, records, runs

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/base'          # folder of the model to start from; or resume: continue in out_dir
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from prepare.py --kind=sft
out_dir = 'out/sft'             # where the run writes
epochs = 3.0                    # how often each conversation is seen; 1 to 3 are usual
batch_size = 32                 # conversations per step, over all devices
learning_rate = 3e-4            # for millions of parameters; from 100 million on 1e-5 to 5e-5
lora = 0                        # rank of adapters that train instead of the weights; 0 = none
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
# files
base_dir = ''                   # data of the base model: measures how much of it is forgotten
replay = 0                      # sequences of base_dir that each step also trains on
overwrite = False               # True: delete the run that out_dir holds, and start over
# optimization
max_steps = 0                   # updates, instead of epochs; 0 = as many as the epochs take
micro_batch_size = 0            # conversations per device and forward pass; 0 = all
block_size = 0                  # most tokens of a conversation; 0 = the context; more is cut
optimizer: Literal['adamw', 'muon'] = 'adamw'  # Muon for the blocks' matrices, AdamW for the rest
warmup_steps: int | float = 0.03  # steps of the rise; below 1: this fraction of max_steps
weight_decay = 0.0              # pull of the weights towards 0; of matrices only
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
dropout = 0.0                   # fraction of activations that are set to 0
# watching
log_interval = 10               # steps between lines of the log
eval_interval = 0               # steps between evaluations, also at step 0; 0 = an epoch
eval_conversations = 512        # lines of val.jsonl to evaluate on, from the first on
eval_tokens = 65_536            # tokens of base_dir at each evaluation; 0 = all
save_interval = 250             # steps between saves of last.pt
sample_tokens = 100             # most tokens of the answer that goes into samples.txt
show_batch: int | None = None   # print the conversations of this step's batch, train nothing
# machine
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'  # auto = bfloat16 if it is fast
compile = False                 # torch.compile; lengths vary, so it compiles twice
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # seed of weights, order and dropout
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 1e6), 'dropout': (0, 0.99),
          'log_interval': (1, 1e9), 'save_interval': (1, 1e9), 'eval_conversations': (1, 1e9),
          'sample_tokens': (1, 1e6), 'seed': (0, 2 ** 32 - 1)}
# Config files and flags replace the values above. config is a dict of the same values, which the
# log and the checkpoints keep. The code below computes with the variables.
config = configure(globals(), BOUNDS)
config['stage'] = 'sft'         # so eval.py will ask this model in conversations

# --- 1. this run and this process -----------------------------------------------------------------
# --- resume: same text in train.py, sft.py, dpo.py, rl.py ---
# state is {} in a new run. With --init_from=resume it is the newest checkpoint in out_dir. Then the
# settings in it replace those in config, except what a flag or a config file gives now (they are in
# set_by), and the second line copies config into the variables above. From then on init_from is no
# longer the word resume: it is what the run began with, a folder or scratch.
state = runs.take_over_settings(config, set_by)
globals().update(config)
# --- end resume ---
# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
# `here` is this process: its rank, the number of processes (world), its device ('cuda:1'), the kind
# of device ('cuda') and the dtype of matrix products, as text.
here = processes.Process(config)
micro_batch_size = micro_batch_size or batch_size // here.world
autocast = torch.autocast(here.kind, getattr(torch, here.dtype), enabled=here.dtype != 'float32')
scaler = torch.amp.GradScaler(here.kind, enabled=here.dtype == 'float16')
# --- end setup ---

# --- 2. model -------------------------------------------------------------------------------------
model, tokenizer = checkpoints.open_to_tune(config, state)
model = copies.like(model, dropout=dropout).to(here.device)
adapters.adapt(model, lora)                 # does nothing if lora is 0
model.grad_checkpoint = grad_checkpoint
block_size = block_size or model.config.block_size
net = torch.compile(model) if compile else model
if here.world > 1:
    net = DDP(net, gradient_as_bucket_view=True)


# --- 3. data --------------------------------------------------------------------------------------
def collate(rows, pad=0):
    """Return inputs and targets, int64 (B, T), of B conversations, T the longest. A target is the
    next token if it is trained, else IGNORE (here _):

        x  <|im_start|> user 2+2? <|im_end|> <|im_start|> assistant 4           (pad)
        y  _            _    _    _          _            4         <|im_end|>  _

    Padding is on the right, where causal attention does not see it: any id will do."""
    T = max(len(ids) for ids, _ in rows) - 1
    x = np.full((len(rows), T), pad)                                            # (B, T)
    y = np.full_like(x, IGNORE)                                                 # (B, T)
    for row, (ids, mask) in enumerate(rows):
        n = len(ids) - 1
        x[row, :n] = ids[:-1]
        y[row, :n] = np.where(mask[1:], ids[1:], IGNORE)
    return x, y


def marked(ids, mask, tokenizer):
    """Return the text of a conversation, with its trained parts in [[ ]]."""
    text = ''
    for is_trained, part in itertools.groupby(zip(ids, mask), key=lambda pair: pair[1]):
        # One decode() for a whole part, because a token may be half a character.
        words = tokenizer.decode([i for i, _ in part])
        text += f'[[{words}]]' if is_trained else words
    return text


def question_of(ids, mask):
    """Return the ids of a conversation up to its first answer, which begins where the mask goes
    from 0 to 1. That need not be the first 1: a long conversation has lost its beginning, perhaps
    in the middle of an answer. Of the mask 1 1 0 0 0 1 1, the first five ids are returned."""
    return ids[:mask.index(1, mask.index(0))]


# conversations and held_out are lists of (ids, mask); a 1 in the mask says that this id is trained.
# summary is a line for the log. identity has hashes of these data. Checkpoints keep it, so that no
# run resumes on other data.
conversations, held_out, identity, summary = records.open_files(
    data_dir, records.read_conversations, block_size, tokenizer)
lengths = np.array([len(ids) for ids, _ in conversations])              # (n,): tokens
# by_length.of(step): the numbers of a step's conversations, which have about the same length, so
# that little is padded.
by_length = records.Batches(lengths, batch_size, seed)
max_steps = max_steps or max(1, round(epochs * by_length.per_epoch))
eval_interval = eval_interval or by_length.per_epoch
warmup_steps = optim.schedule_ends(max_steps, warmup_steps, learning_rate, 0.0)[0]
# With base_dir, we measure how much the model forgets of it, in sequences as long as the model's
# context. With replay, we also train on it, in sequences of block_size tokens, the length of the
# longest conversations. open_bins refuses data that are too short for one sequence.
if base_dir:
    meta, base, base_identity = data.open_bins(base_dir, model.config.block_size)
    checkpoints.same_tokenizer(init_from, tokenizer.hash, base_dir, meta['tokenizer_hash'],
                               f'prepare it with --tokenizer={init_from}/tokenizer.json')
if replay:
    if not base_dir:
        raise Mistake(f'replay={replay} needs --base_dir=FOLDER, the data of the base model')
    identity |= base_identity
    blocks = data.Blocks(base, block_size, replay, seed, meta=meta)
# The rows of a step are batch_size conversations and, after them, `replay` sequences of base text.
# my_rows has the micro-batches of this process. A sequence of base text is long, so it is alone in
# its micro-batch. With batch_size=4, micro_batch_size=2 and replay=2, a single process has
#     [0, 1]  [2, 3]  [4]  [5]        4 and 5 are base text
# Its array of base text is [4, 5], and None makes a column of it, [[4], [5]].
#
# Every token of base text is a target, so replay weighs more than it seems to. If the answers in
# 32 conversations have 40 tokens each, they are 1,280 targets. replay=2 with block_size=256 adds
# 512, which is 29% of the step's targets.
my_rows = [*np.arange(batch_size).reshape(here.world, -1, micro_batch_size)[here.rank],
           *np.arange(batch_size, batch_size + replay)[here.rank::here.world, None]]


def get_batch(step, rows):
    """Return x and y (B, T) of a micro-batch of a step: conversations, or base text, of which every
    token is trained. Which ones they are follows from (seed, step) alone."""
    if rows[0] >= batch_size:       # base text
        return here.to_device(blocks.take(step, rows - batch_size))
    return here.to_device(collate([conversations[j] for j in by_length.of(step)[rows]]))


if show_batch is not None:
    for row, j in enumerate(by_length.of(show_batch)):
        print(f'--- step {show_batch}, conversation {row} of {batch_size}\n'
              f'{marked(*conversations[j], tokenizer)}')
    sys.exit()

# --- 4. optimizer ---------------------------------------------------------------------------------
opt = optim.build(model, optimizer, learning_rate, weight_decay)
step = state.get('step', 0)
tokens = state.get('tokens', 0)
best_val = state.get('best_val', math.inf)
if state:
    processes.load_state(model, opt, scaler, state)
# Do the longest conversations fit into memory, and does the model compile? A run that fails here
# has written nothing yet, and deleted nothing.
longest = [conversations[j] for j in np.argsort(lengths)[-micro_batch_size:]]
processes.rehearse(net, model, opt, here.to_device(collate(longest)), autocast, compile)

# --- 5. the log, the loss on held-out conversations, an answer, the checkpoint --------------------
# From here on the run writes into out_dir: train.log, metrics.jsonl and samples.txt by log, which
# also keeps other runs out of the folder, and checkpoints by save().
log = runs.Log(config, set_by, state, here, model, tokenizer, identity, max_steps=max_steps)
# The guard refuses the update of a step whose loss or gradient is a NaN.
guard = guards.Guard(state, log, here.dtype)
log.say('--- one conversation, its trained parts in [[ ]]\n'
        f'{marked(*conversations[0], tokenizer)}---\n'
        f'  data     {summary}\n  plan     {max_steps:,} steps = '
        f'{max_steps / by_length.per_epoch:.2f} epochs of {by_length.per_epoch:,} steps')


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
    """Measure the loss on held-out conversations, and on text of the base if there is some. Write
    the answer to the first held-out question. best.pt keeps the weights with the lowest loss."""
    global best_val
    with log.timed('eval'):
        mine = held_out[here.rank:eval_conversations:here.world]
        batches = [collate(mine[i:i + micro_batch_size])
                   for i in range(0, len(mine), micro_batch_size)]
        row = {'val_loss': loss_of(batches)[0]}
        if base_dir:                        # how much of the pretraining is left?
            row['base_bpb'] = loss_of(data.evaluation(
                base['val'], model.config.block_size, eval_tokens, micro_batch_size, here))[1]
        question = torch.tensor([question_of(*held_out[0])], device=here.device)        # (1, T)
        with autocast:
            ids = model.generate(question, sample_tokens, temperature=0, stop=tokenizer.stop)
        log.say(f'--- step {step}, val_loss {row["val_loss"]:.4f}\n'
                f'{tokenizer.decode(ids[0].tolist())}\n', 'samples.txt')
    log.evaluation(step, tokens=tokens, **row)
    if row['val_loss'] < best_val and step > 0:     # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def save(name='last.pt'):
    """Write all that resuming needs. The last.pt before becomes last-1.pt."""
    log.save(name, model, opt, scaler, guard, step=step, tokens=tokens, best_val=best_val)


# --- 6. the loop ----------------------------------------------------------------------------------
if step == 0:
    evaluate()
while step < max_steps:
    # Dropout draws other numbers in each step and process. The sum below counts like a clock: ranks
    # are its seconds, steps its minutes of 4,096 seconds, and seeds its hours of 1,000,003 minutes.
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + here.rank)
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, 0.0)    # lr_at() of train.py
    for group in opt.param_groups:
        group['lr'] = lr

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
    tokens += int(lengths[by_length.of(step)].sum()) + replay * block_size
    step += 1

    if step in (1, max_steps) or step % log_interval == 0:
        log.step(step=step, tokens=tokens, loss=loss, lr=lr, grad_norm=norm, trained=int(n_targets),
                 skipped=guard.skipped)

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
log.end(step, best_val, ['sample.py', f'--ckpt={out_dir}', '--chat=True'])
here.leave(guard.trouble)                   # with trouble: one line, and exit code 2
