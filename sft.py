"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python chats.py && python sft.py                    # small problems with their answers
    python sft.py --init_from=out/base --data_dir=data/alpaca
    python sft.py --out_dir=out/sft --init_from=resume              # resumes; on a CPU, bit for bit
    torchrun --nproc_per_node=8 sft.py --init_from=out/base         # eight GPUs, the same steps

It reads a model of train.py or of Hugging Face, and data_dir/train.jsonl and val.jsonl, lines of
{"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}. It writes out_dir.

The loop is train.py's, without what only long runs need. One thing is new, the mask: the loss
counts only the assistant's words and the <|im_end|> after them. A model that is also trained on the
questions learns to ask. Without training on <|im_end|> it never stops. The conversations decide the
form of an answer: the model copies their length and tone.

You should see one conversation and what of it is trained, a first loss well above the base
model's, and a fall of loss and val_loss within the first hundred steps. If val_loss rises while
the loss falls, the model memorizes: use fewer epochs.
"""
import hashlib, json, math, os, pathlib, shlex, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, rnn
from configurator import UserError, configure, require
from common import load_model, init_device, resume_or_start, init_out_dir
from model import IGNORE

# --- settings -------------------------------------------------------------------------------------
init_from = 'out/base'          # folder or .pt to start from, resume; auto: resume, or this
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from chats.py
out_dir = 'out/sft'             # where the run writes
overwrite = False               # True: delete the run that out_dir holds
epochs = 3.0                    # how often each conversation is seen; 1 to 3 are usual
batch_size = 32                 # conversations per step, over all devices
learning_rate = 3e-4            # for millions of parameters; from 100 million on 1e-5 to 5e-5
# optimization
max_steps = 0                   # updates; above 0 they count instead of the epochs
block_size = 0                  # most tokens; a longer one loses its oldest turns; 0 = the context
micro_batch_size = 0            # most conversations per device and forward pass; 0 = all
warmup_steps: int | float = 0.03  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
dropout = 0.0                   # fraction of activations that are set to 0
# watching
log_interval = 10               # steps
eval_interval = 0               # steps between evaluations; 0 = an epoch; also first and last
save_interval = 250             # steps
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of order and dropout
# optional features: implemented in extras/ and imported only when switched on
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
lora = 0                        # rank of adapters that train instead of the weights; 0 = none
base_dir = ''                   # data of the base model: measures how much of it is forgotten
replay = 0                      # sequences of base_dir that are added to each step
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'dropout': (0, 0.99),
          'seed': (0, 2 ** 32 - 1), 'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- what is new: the mask, and conversations of all lengths --------------------------------------
def fit(messages, render, T):
    """Return ids and mask of a conversation, at most T + 1 each: T inputs and a last target. If it
    is too long, its oldest turns go, but never its system message:

        system  user  assistant  user  assistant        too long
        system                   user  assistant        without the oldest turns

    If that is too long, ids and mask are empty: who learns half answers does not learn to stop.
    They are empty, too, if there is no answer. What follows the last answer goes."""
    end_of = lambda mask: max((i for i, bit in enumerate(mask, 1) if bit), default=0)   # the last 1
    ids, mask = render(messages)
    roles = [message['role'] for message in messages]
    head = next((i for i, role in enumerate(roles) if role != 'system'), 0)
    # A user may ask in several messages in a row: a question begins with the first of them.
    for i in range(head + 1, len(roles)):
        if roles[i] == 'user' and roles[i - 1] != 'user' and end_of(mask) > T + 1:
            ids, mask = render(messages[:head] + messages[i:])
    end = end_of(mask)
    return (ids[:end], mask[:end]) if end <= T + 1 else ([], [])


def collate(rows):
    """Return inputs and targets, int64 (B, T), of B conversations, T the longest. A target is the
    next token if it is trained, else IGNORE (here _):

        x  <|im_start|> user 2+2? <|im_end|> <|im_start|> assistant 4           (pad)
        y  _            _    _    _          _            4         <|im_end|>  _

    Padding is on the right, where causal attention does not see it: any id will do."""
    x = [torch.tensor(ids[:-1]) for ids, mask in rows]
    y = [torch.tensor(np.where(mask[1:], ids[1:], IGNORE)) for ids, mask in rows]
    return (rnn.pad_sequence(x, batch_first=True).long(),                               # (B, T)
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


def indices_of(step, lengths, batch_size, seed):
    """Return the indices of a step's conversations, of about the same length, so that little is
    padded. They follow from step and seed: a resumed run has the same batches. An epoch has each
    conversation once: with a batch_size of 32, 63 of them make two batches, of 31 and 32."""
    per_epoch = math.ceil(len(lengths) / batch_size)
    epoch, i = divmod(step, per_epoch)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    # 32 batches at a time are sorted by length. The steps visit the batches in random order.
    b = shuffled(per_epoch)[i]
    batches = np.array_split(shuffled(len(lengths)), per_epoch)[b - b % 32:][:32]     # b is in them
    group = np.concatenate(batches)
    order = np.argsort(lengths[group], kind='stable')
    return np.array_split(group[order], len(batches))[b % 32]


explicit = dict()           # what config files and flags set: {setting: the value it replaced}
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace the settings
config |= {'stage': 'sft', 'steps': 0}      # eval.py asks a model of this stage in conversations

# --- the run, new or resumed, its model, and this process -----------------------------------------
source, state, changed = resume_or_start(
    config, explicit, fixed='lora optimizer batch_size block_size replay seed')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
model, tokenizer = load_model(source, dropout=dropout)
tokenizer.render([])                    # refuses a tokenizer without tokens for chat
T = block_size or model.config.block_size       # most inputs of a row
require(T <= model.config.block_size, f'{block_size=} is above the context of {source}, '
        f'{model.config.block_size}; train.py --init_from --block_size makes it longer')

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


# --- data -----------------------------------------------------------------------------------------
data_hash = hashlib.sha256()            # of what a run reads, which cannot change on resume


def read_conversations(path):
    """Return the conversations of a file, (ids, mask) each; the mask says which ids are trained."""
    require(os.path.exists(path), f'{path} is missing: needs chats, not tokens or text; see your '
            'config, or run: python chats.py --source=FILE --out_dir=NEW, and give --data_dir=NEW')
    rows, content = [], pathlib.Path(path).read_bytes()
    data_hash.update(content)
    lines = content.strip().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            ids, mask = fit(json.loads(line)['messages'], tokenizer.render, T)
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f'{path}, line {number}, is no conversation ({error!r:.200}; pairs and '
                            f'labels are for dpo.py): {line[:60]}; see sft.py --help') from None
        if ids:                         # arrays take a tenth of the memory of lists
            rows.append((np.array(ids, np.int32), np.array(mask, bool)))
    if rank == 0:
        print(f'{path}: {len(rows):,} conversations; left out, because they have no answer or more '
              f'than {T} tokens: {len(lines) - len(rows):,}', flush=True)
    require(rows, f'{path} has no conversation with an answer that fits into {T} tokens')
    return rows


train = read_conversations(f'{data_dir}/train.jsonl')
held_out = read_conversations(f'{data_dir}/val.jsonl')[:512]    # enough for a loss to two digits
lengths = np.array([len(ids) for ids, mask in train])                                   # (n,)
if base_dir or replay:
    from extras.training.mixture import Base
    base = Base(base_dir, tokenizer, T, model.config.block_size, replay, seed)
    data_hash.update(base.hash)

per_epoch = math.ceil(len(train) / batch_size)                                          # steps
max_steps = config['steps'] = max_steps or max(1, round(epochs * per_epoch))
eval_interval = eval_interval or per_epoch
micro_batch_size = micro_batch_size or batch_size
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
if lora:
    from extras.training.lora import adapt, merged
    adapt(model, lora, tokenizer)
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [p for p in model.parameters() if p.requires_grad]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': device_type != 'mps'}
opt = torch.optim.AdamW(params, learning_rate, **options)
if optimizer == 'muon':
    from extras.training.muon import for_blocks
    opt = for_blocks(model, lr=learning_rate, **options)
step, best_val = 0, math.inf
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir} has other data than {source} read')
    step, best_val = state['step'], state['best_val']
    model.load_state_dict(state['weights'])
    opt.load_state_dict(state['optimizer'])
state, model.saved = {}, {}             # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)


def save(name):
    """Write a checkpoint for GPT.load. last.pt also has what resuming needs."""
    if rank == 0:
        more = {'model': merged(model.state_dict())} if lora else {}
        if name == 'last.pt':           # with LoRA, 'model' has the adapters added in
            more |= {'weights': model.state_dict(), 'optimizer': opt.state_dict()}
        model.save(out / name, config=config, step=step, best_val=best_val,
                   data=data_hash.hexdigest(), tokenizer_hash=tokenizer.hash, **more)


def log(row):
    """Print figures, and append them to metrics.jsonl, where the last row of a step counts."""
    words = [f'{name}: {value:.4g}' for name, value in row.items()]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


@torch.no_grad()
def evaluate():
    """Measure the loss on held-out conversations, and on text of the base if there is some. Write
    the answer to the first held-out question. best.pt keeps the best weights."""
    global best_val
    model.eval()                # no dropout
    row = {'val_loss': mean_loss(held_out).item()}
    if base_dir:
        row['base_bpb'] = base.bits_per_byte(mean_loss(base.held_out).item())
    if rank == 0:
        log(row)
        ids, mask = held_out[0]         # up to its first answer, (1, T)
        question = torch.tensor(ids[None, :mask.argmax()], device=device).long()
        [answered] = model.generate(question, 100, temperature=0, stop=tokenizer.stop,
                                    suppress=tokenizer.suppressed_tokens(model.config.vocab_size))
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            print(f'--- step {step}\n{tokenizer.decode(answered.tolist())}\n', file=f)
    model.train()
    if row['val_loss'] < best_val and step > 0:         # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def mean_loss(*groups):
    """Return the mean loss over all targets of these groups of rows, in all processes. With
    gradients on, also add this process's part of the gradient to p.grad. Rows are dealt out in
    turn: of two processes, the first takes 0, 2, 4, ...; a process may get none."""
    n_targets = sum(int(mask[1:].sum()) for rows in groups for ids, mask in rows)
    loss = torch.zeros((), device=device)
    for rows in groups:
        my_rows = rows[rank::world]
        for i in range(0, len(my_rows), micro_batch_size):
            x, y = collate(my_rows[i:i + micro_batch_size])                             # (B, T)
            with autocast:
                mean = model(x.to(device), y.to(device), with_logits=False)[1]
            part = mean * int((y != IGNORE).sum()) / n_targets
            if torch.is_grad_enabled():
                part.backward()
            loss += part.detach()
    if world > 1:
        dist.all_reduce(loss)
    return loss


# --- the loop -------------------------------------------------------------------------------------
if rank == 0:
    ids, mask = train[0]
    print(*changed, model.config,
          f'trained parameters: {len(gradient):,}, steps: {max_steps:,}, processes: {world} '
          f'({device}, {dtype})',
          f'a conversation:\n{tokenizer.decode(ids.tolist())}',
          f'of which is trained:\n{tokenizer.decode(ids[mask].tolist())}', sep='\n', flush=True)
    if max_steps < 20:
        print('note: so few steps teach little: raise --epochs, or lower --batch_size')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)  # of dropout, other in each process
    # the learning rate: a linear rise, then half a cosine down to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr

    batch = [train[i] for i in indices_of(step, lengths, batch_size, seed)]
    base_text = base.rows_of(step) if replay else []
    gradient.zero_()            # a process without a row adds zeros
    loss = mean_loss(batch, base_text)          # forward and backward: it adds to p.grad
    if world > 1:
        dist.all_reduce(gradient)
    norm = clip_grad_norm_(params, grad_clip or math.inf)
    loss, norm = torch.stack([loss, norm]).tolist()     # the CPU waits for the GPU: once a step
    require(math.isfinite(loss + norm), f'step {step + 1}: the loss is {loss}, the norm of the '
            f'gradient {norm}; resume with a lower --learning_rate')
    opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        dt = time.perf_counter() - began
        n_tokens = sum(len(ids) for ids, mask in batch + base_text)
        log({'loss': loss, 'lr': lr, 'grad_norm': norm, 'dt': dt, 'tok_s': n_tokens / dt,
             'minutes_left': dt * (max_steps - step) / 60})
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    print(f'done, best val_loss {best_val:.4f}; next: python sample.py '
          f'--ckpt={shlex.quote(out_dir)} --chat=True')
