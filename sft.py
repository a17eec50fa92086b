"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python chats.py && python sft.py                    # small problems with their answers
    python sft.py --init_from=out/base --data_dir=data/alpaca
    python sft.py --out_dir=out/sft --init_from=resume              # resume, bit-identical on a CPU
    torchrun --nproc_per_node=8 sft.py --init_from=out/base         # eight GPUs, the same steps

init_from is a model of train.py or of Hugging Face. data_dir has train.jsonl and val.jsonl, with
lines of {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}.

The training loop is a shorter version of train.py's. The new part is the loss mask: only the tokens
of the assistant and the <|im_end|> after them are trained. A model that is also trained on the
questions learns to ask. Without training on <|im_end|>, it never stops. The model copies the length
and tone of the answers in your conversations.

You should see one conversation and its trained part, a first loss well above that of the base
model, and a falling loss and val_loss within the first hundred steps. If val_loss rises while the
loss falls, the model memorizes the conversations: use fewer epochs.
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
init_from = 'out/base'          # resume, a model (folder, .pt); auto: resume if possible, else this
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from chats.py
out_dir = 'out/sft'             # folder for checkpoints, metrics and samples
overwrite = False               # True: delete the run in out_dir
epochs = 3.0                    # passes over the conversations; 1 to 3 are usual
batch_size = 32                 # conversations per step, over all devices
learning_rate = 3e-4            # peak; above 100 million parameters, 1e-5 to 5e-5
# optimization
max_steps = 0                   # optimizer updates; 0 = computed from epochs
block_size = 0                  # maximum length, tokens; longer chats lose old turns; 0 = context
micro_batch_size = 0            # maximum conversations per device and forward pass; 0 = all
warmup_steps: int | float = 0.03  # steps of linear warmup; below 1: a fraction of max_steps
grad_clip = 1.0                 # maximum norm of the gradient; 0 = no clipping
dropout = 0.0                   # dropout probability
# logging and evaluation
log_interval = 10               # steps between log lines
eval_interval = 0               # steps between evaluations; also before training; 0 = an epoch
save_interval = 250             # steps between checkpoints
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest available
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is native
grad_checkpoint = False         # recompute blocks in the backward pass: less memory, more time
seed = 1337                     # for data order and dropout
# optional features: implemented in extras/ and imported only when switched on
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
lora = 0                        # rank of LoRA adapters; 0 = train the weights
base_dir = ''                   # data of the base model, to measure how much of it is forgotten
replay = 0                      # sequences of base_dir to add to each step
# (minimum, maximum) of some settings. All other numbers must be at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'dropout': (0, 0.99),
          'seed': (0, 2 ** 32 - 1), 'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- the new parts: the loss mask, and batches of conversations of all lengths --------------------
def render_truncated(messages, render, T):
    """Return the ids and mask of a conversation, at most T + 1 each: T inputs and a last target. A
    longer conversation loses its oldest turns, but never its system message:

        system  user  assistant  user  assistant        too long
        system                   user  assistant        without the oldest turns

    If the last turn is too long, ids and mask are empty, because a model that is trained on
    truncated answers does not learn to stop. They are also empty if the conversation has no answer.
    Messages after the last answer are dropped."""
    # the length up to the last trained token, 0 if no token is trained
    end_of = lambda mask: max((i for i, bit in enumerate(mask, 1) if bit), default=0)
    ids, mask = render(messages)
    roles = [message['role'] for message in messages]
    n_system = next((i for i, role in enumerate(roles) if role != 'system'), 0)
    # A user may send several messages in a row. A turn begins with the first of them.
    for i in range(n_system + 1, len(roles)):
        if roles[i] == 'user' and roles[i - 1] != 'user' and end_of(mask) > T + 1:
            ids, mask = render(messages[:n_system] + messages[i:])
    end = end_of(mask)
    return (ids[:end], mask[:end]) if end <= T + 1 else ([], [])


def collate(rows):
    """Return the inputs and targets of B conversations, int64 (B, T), T the longest. A target is
    the next token if its mask is 1, else IGNORE (here _):

        x  <|im_start|> user 2+2? <|im_end|> <|im_start|> assistant 4           (pad)
        y  _            _    _    _          _            4         <|im_end|>  _

    Padding is on the right, where causal attention can't see it, so its id doesn't matter."""
    x = [torch.tensor(ids[:-1]) for ids, mask in rows]
    y = [torch.tensor(np.where(mask[1:], ids[1:], IGNORE)) for ids, mask in rows]
    return (rnn.pad_sequence(x, batch_first=True).long(),                               # (B, T)
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


def batch_indices(step, lengths, batch_size, seed):
    """Return the indices of a step's conversations, which have similar lengths, so there is little
    padding. Batches are a function of (step, seed), so a resumed run has the same ones. An epoch
    has each conversation once: batch_size=32 splits 63 conversations into batches of 31 and 32."""
    per_epoch = math.ceil(len(lengths) / batch_size)
    epoch, i = divmod(step, per_epoch)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    # Each group of 32 batches is sorted by length. The steps visit the batches in random order: the
    # batch of this step is b.
    b = shuffled(per_epoch)[i]
    batches = np.array_split(shuffled(len(lengths)), per_epoch)[b - b % 32:][:32]     # b's group
    group = np.concatenate(batches)
    order = np.argsort(lengths[group], kind='stable')
    return np.array_split(group[order], len(batches))[b % 32]


# Config files and flags override the settings. explicit: {overridden setting: its previous value}
config = configure(globals(), BOUNDS, explicit := {})
config |= {'stage': 'sft', 'steps': 0}      # with a stage, eval.py uses chat templates

# --- a new or resumed run, its model, and the device ----------------------------------------------
# A new number of epochs also replaces the max_steps of the checkpoint, which would override it.
source, state, changed = resume_or_start(
    config, explicit, fixed='lora optimizer batch_size block_size replay seed',
    not_restored='max_steps' if 'epochs' in explicit else '')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
model, tokenizer = load_model(source, dropout=dropout)
tokenizer.render([])                    # an error if the tokenizer has no chat tokens
T = block_size or model.config.block_size       # maximum input tokens of a conversation
require(T <= model.config.block_size, f'{block_size=} is above the context length of {source}, '
        f'{model.config.block_size}; extend it: train.py --init_from={source} --block_size={T}')

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


# --- data -----------------------------------------------------------------------------------------
data_hash = hashlib.sha256()            # of the data, which cannot change on resume


def read_conversations(path):
    """Return the conversations of a file, (ids, mask) each. The mask is true for trained tokens."""
    require(os.path.exists(path), f'{path} is missing: sft.py needs conversations; see your config '
            'file, or run: python chats.py --source=FILE --out_dir=NEW, then set --data_dir=NEW')
    rows, content = [], pathlib.Path(path).read_bytes()
    data_hash.update(content)
    lines = [line for line in enumerate(content.splitlines(), 1) if line[1].strip()]
    for number, line in lines:
        try:
            ids, mask = render_truncated(json.loads(line)['messages'], tokenizer.render, T)
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f'{path}, line {number}, is not a conversation ({error!r:.200}; dpo.py '
                            f'reads pairs and labels): {line[:60]}; see sft.py --help') from None
        if ids:                         # arrays take a tenth of the memory of lists
            rows.append((np.array(ids, np.int32), np.array(mask, bool)))
    if rank == 0:
        print(f'{path}: {len(rows):,} conversations; skipped, because they have no answer or more '
              f'than {T} tokens: {len(lines) - len(rows):,}', flush=True)
    require(rows, f'{path} has no conversation with an answer that fits into {T} tokens')
    return rows


train = read_conversations(f'{data_dir}/train.jsonl')
val = read_conversations(f'{data_dir}/val.jsonl')[:512]    # enough for two digits of the loss
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
    p.grad = part.view_as(p)    # so one all_reduce sums all gradients; p.grad must stay this view
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': device_type != 'mps'}
opt = torch.optim.AdamW(params, learning_rate, **options)
if optimizer == 'muon':
    from extras.training.muon import for_blocks
    opt = for_blocks(model, lr=learning_rate, **options)
step, best_val = 0, math.inf
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir=} must hold the data of {source}')
    step, best_val = state['step'], state['best_val']
    model.load_state_dict(state['weights'])
    opt.load_state_dict(state['optimizer'])
state, model.saved = {}, {}             # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)


def save(name):
    """Write a checkpoint for GPT.load. last.pt also has the state for resuming."""
    if rank == 0:
        more = {'model': merged(model.state_dict())} if lora else {}
        if name == 'last.pt':           # LoRA is merged in 'model', not in 'weights'
            more |= {'weights': model.state_dict(), 'optimizer': opt.state_dict()}
        model.save(out / name, config=config, step=step, best_val=best_val,
                   data=data_hash.hexdigest(), tokenizer_hash=tokenizer.hash, **more)


def log_metrics(metrics):
    """Print metrics and append them to metrics.jsonl, where a resumed run may repeat a step."""
    words = [f'{name}: {value:.4g}' for name, value in metrics.items()]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


@torch.no_grad()
def evaluate():
    """Compute the validation loss and, with base_dir, the bits per byte on the base model's data.
    Write the answer to the first validation prompt to samples.txt. Save best.pt if val_loss is the
    lowest so far."""
    global best_val
    model.eval()                # no dropout
    metrics = {'val_loss': forward_backward(val, forward_only=True)}
    if base_dir:
        metrics['base_bpb'] = base.bits_per_byte(forward_backward(base.val, forward_only=True))
    if rank == 0:
        log_metrics(metrics)
        ids, mask = val[0]              # the prompt ends before the first trained token
        prompt = torch.tensor(ids[None, :mask.argmax()], device=device).long()          # (1, T)
        [answer] = model.generate(prompt, 100, temperature=0, stop=tokenizer.stop,
                                  suppress=tokenizer.suppressed_tokens(model.config.vocab_size))
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            print(f'--- step {step}\n{tokenizer.decode(answer.tolist())}\n', file=f)
    model.train()
    if metrics['val_loss'] < best_val and step > 0:     # never the untrained model
        best_val = metrics['val_loss']
        save('best.pt')


def forward_backward(*groups, forward_only=False):
    """Return the mean loss over all targets of these groups of rows, (ids, mask) each. Unless
    forward_only, also add this process's part of the gradient to p.grad. Process r of n computes
    rows r, r + n, r + 2n and so on of each group. A process may have no rows."""
    n_targets = sum(int(mask[1:].sum()) for rows in groups for ids, mask in rows)
    loss = torch.zeros((), device=device)
    for rows in groups:
        my_rows = rows[rank::world]
        for i in range(0, len(my_rows), micro_batch_size):
            x, y = collate(my_rows[i:i + micro_batch_size])                             # (B, T)
            with autocast:
                mean_loss = model(x.to(device), y.to(device), with_logits=False)[1]
            part = mean_loss * int((y != IGNORE).sum()) / n_targets
            if not forward_only:
                part.backward()
            loss += part.detach()
    if world > 1:
        dist.all_reduce(loss)
    return loss.item()


# --- the loop -------------------------------------------------------------------------------------
if rank == 0:
    ids, mask = train[0]
    print(*changed, model.config,
          f'trained parameters: {len(gradient):,}, steps: {max_steps:,}, processes: {world} '
          f'({device}, {dtype})',
          f'a conversation:\n{tokenizer.decode(ids.tolist())}',
          f'its trained part:\n{tokenizer.decode(ids[mask].tolist())}', sep='\n', flush=True)
    if max_steps < 20:
        print(f'note: {max_steps} steps teach little: raise --epochs, or lower --batch_size')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)  # for dropout
    # learning rate: linear warmup, then cosine decay to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr

    batch = [train[i] for i in batch_indices(step, lengths, batch_size, seed)]
    base_text = base.rows_of(step) if replay else []
    gradient.zero_()            # a process without rows contributes zeros
    loss = forward_backward(batch, base_text)
    if world > 1:
        dist.all_reduce(gradient)
    norm = clip_grad_norm_(params, grad_clip or math.inf).item()
    require(math.isfinite(loss + norm), f'step {step + 1}: the loss is {loss}, the gradient norm '
            f'{norm}; resume with a lower --learning_rate')
    opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        dt = time.perf_counter() - began
        n_tokens = sum(len(ids) for ids, mask in batch + base_text)
        log_metrics({'loss': loss, 'lr': lr, 'grad_norm': norm, 'dt': dt, 'tok_s': n_tokens / dt,
                     'minutes_left': dt * (max_steps - step) / 60})
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    print(f'done, best val_loss {best_val:.4f}; next: python sample.py '
          f'--ckpt={shlex.quote(out_dir)} --chat=True')
