"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python prepare.py --kind=sft && python sft.py       # small problems with their answers
    python sft.py --init_from=out/base --data_dir=data/alpaca
    python sft.py --out_dir=out/sft --init_from=resume              # resumes; on a CPU, bit for bit
    torchrun --nproc_per_node=8 sft.py --init_from=out/base         # eight GPUs, the same steps

It reads a model of train.py or of Hugging Face, and data_dir/train.jsonl and val.jsonl, lines of
{"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}. It writes out_dir.

The loop is that of train.py. One thing is new, the mask: the loss counts only the assistant's words
and the <|im_end|> after them. A model that is also trained on the questions learns to ask. Without
training on <|im_end|> it never stops. The conversations decide the form of an answer: the model
copies their length and tone.

You should see one conversation with its trained parts in [[ ]], a first loss well above the base
model's, and a fall of loss and val_loss within the first hundred steps. If val_loss rises while
the loss falls, the model memorizes: use fewer epochs. With base_dir, base_bpb shows how much the
model forgets; replay helps.

What train.py has and this file lacks: saving when it is stopped, last-1.pt, a lock of out_dir, a
comparison of processes, skipped spikes, the compiler, shards, float16.
"""
import collections, copy, hashlib, itertools, json, math, os, pathlib, shlex, shutil, signal, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, rnn
from configurator import Mistake, configure, require
from model import GPT, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/base'          # folder or .pt to start from; resume; auto: resume if it can
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from prepare.py --kind=sft
out_dir = 'out/sft'             # where the run writes
overwrite = False               # True: delete the run that out_dir holds, and start over
epochs = 3.0                    # how often each conversation is seen; 1 to 3 are usual
batch_size = 32                 # conversations per step, over all devices
learning_rate = 3e-4            # for millions of parameters; from 100 million on 1e-5 to 5e-5
# optimization
max_steps = 0                   # updates, instead of epochs; 0 = as many as the epochs take
micro_batch_size = 0            # most conversations per device and forward pass; 0 = all
block_size = 0                  # most tokens of a conversation; 0 = the context; more is cut
warmup_steps: int | float = 0.03  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
dropout = 0.0                   # fraction of activations that are set to 0
# watching
log_interval = 10               # steps
eval_interval = 0               # steps; also before the first and after the last; 0 = an epoch
save_interval = 250             # steps
sample_tokens = 100             # most tokens of the answer that goes into samples.txt
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of order and dropout
# doors to extras/
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
lora = 0                        # rank of adapters that train instead of the weights; 0 = none
base_dir = ''                   # data of the base model: measures how much of it is forgotten
replay = 0                      # sequences of base_dir that each step also trains on
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'dropout': (0, 0.99),
          'seed': (0, 2 ** 32 - 1), 'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- what is new: the mask, and conversations of all lengths --------------------------------------
def fit(turns, T):
    """Return ids and mask of a conversation, at most T + 1 each (T inputs and a last target), and
    how it was cut. turns: (ids, mask, role) of each message. A question that nobody answers goes.
    Then the oldest turns go, and only then the end of the answer, because without its beginning or
    its system message a question is another question:

        system  user  assistant  user  assistant        too long
        system                   user  assistant        older turns left out
        system                   user  assist           answer cut

    Without an answer, or if less than a quarter of T remains for it, ids and mask are empty."""
    while turns and 1 not in turns[-1][1]:
        turns = turns[:-1]
    if not turns:
        return [], [], 'left out: no answer'
    roles = [role for ids, mask, role in turns]
    head = next(i for i, role in enumerate(roles) if role != 'system')
    # A user may ask in several messages in a row: a question begins with the first of them.
    later = [i for i in range(head + 1, len(turns))
             if roles[i] == 'user' and roles[i - 1] != 'user']
    for start in [head, *later]:
        kept = turns[:head] + turns[start:]
        ids, mask = ([x for turn in kept for x in turn[part]] for part in (0, 1))
        end = len(mask) - mask[::-1].index(1)
        if end <= T + 1:
            return ids[:end], mask[:end], 'whole' if start == head else 'older turns left out'
    if T + 1 - mask.index(1) < T / 4:
        return [], [], 'left out: its question is too long'
    end = T + 1 - mask[T::-1].index(1)          # not in the middle of what a tool says
    return ids[:end], mask[:end], 'answer cut'


def collate(rows, pad=0):
    """Return inputs and targets, int64 (B, T), of B conversations, T the longest. A target is the
    next token if it is trained, else IGNORE (here _):

        x  <|im_start|> user 2+2? <|im_end|> <|im_start|> assistant 4           (pad)
        y  _            _    _    _          _            4         <|im_end|>  _

    Padding is on the right, where causal attention does not see it: any id will do."""
    x = [torch.tensor(ids[:-1]) for ids, mask in rows]
    y = [torch.tensor(np.where(mask[1:], ids[1:], IGNORE)) for ids, mask in rows]
    return (rnn.pad_sequence(x, batch_first=True, padding_value=pad).long(),            # (B, T)
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


def count_targets(rows):
    """Return how many tokens of these conversations are trained."""
    return int(sum(np.count_nonzero(mask[1:]) for ids, mask in rows))


def marked(ids, mask, tokenizer):
    """Return the text of a conversation, with its trained parts in [[ ]]."""
    text = ''
    for is_trained, part in itertools.groupby(zip(ids, mask), key=lambda pair: pair[1]):
        # One decode() for a whole part, because a token may be half a character.
        words = tokenizer.decode([id for id, bit in part])
        text += f'[[{words}]]' if is_trained else words
    return text


def numbers_of(step, lengths, batch_size, seed):
    """Return the indices of a step's conversations, (batch_size,). They follow from step and seed:
    the plan of the epoch is made again each time, so that a resumed run has the same batches and
    nothing is saved. They have about the same length, so that little is padded. An epoch has each
    at most once: those that do not fill a batch are left out. If there are too few for one batch,
    some are repeated."""
    per_epoch = max(1, len(lengths) // batch_size)
    epoch, i = divmod(step, per_epoch)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    batches = np.resize(shuffled(len(lengths)), (per_epoch, batch_size))
    # 32 batches at a time are sorted by length. The steps visit the batches in random order.
    batch = shuffled(per_epoch)[i]
    group = batches[batch - batch % 32:][:32].flatten()         # the 32 that this one belongs to
    order = np.argsort(lengths[group], kind='stable')
    return group[order].reshape(-1, batch_size)[batch % 32]


# The settings above take the values of the run that goes on, then of config files, then of flags.
# auto becomes resume if there is a run, else out/base.
config = configure(globals(), BOUNDS)
config['stage'] = 'sft'         # so eval.py will ask this model in conversations

# --- out_dir --------------------------------------------------------------------------------------
out = pathlib.Path(out_dir)
is_new = init_from != 'resume'
require(is_new or (out / 'last.pt').exists(), f'{out_dir} has no last.pt, so no run goes on there; '
        'leave --init_from=resume out, or name another --out_dir')
ours = ('last.pt last-1.pt best.pt config.json tokenizer.json data.json metrics.jsonl samples.txt '
        'train.log eval.json samples.jsonl compare.json').split()
old = [path for path in out.glob('*') if is_new and path.name in ours]
is_origin = pathlib.Path(init_from).resolve().is_relative_to(out.resolve())
require(not old or overwrite and not is_origin, f'{out_dir} has a run: --init_from=resume goes on, '
        '--overwrite=True begins anew (from elsewhere)')

# --- this process ---------------------------------------------------------------------------------
rank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))  # of torchrun
mps = torch.backends.mps.is_available() and world == 1          # it has no all_reduce
here = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
kind, _, number = (here[-1] if device == 'auto' else device).partition(':')     # cuda:1
require(kind in here and f'0{number}'.isdigit(), f'{device=} is not here; try --device=auto')
device = kind
if kind == 'cuda':
    device = f'cuda:{number or os.environ.get("LOCAL_RANK", 0)}'
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a batch
if dtype == 'auto':                     # older GPUs and many CPUs only emulate bfloat16, slowly
    is_native = kind == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    is_native |= kind == 'cuda' and torch.cuda.get_device_capability()[0] >= 8
    dtype = 'bfloat16' if is_native else 'float32'
autocast = torch.autocast(kind, torch.bfloat16, enabled=dtype == 'bfloat16')
if world > 1:
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo')
    dist.barrier()              # all read config.json before the first one replaces it

# --- model ----------------------------------------------------------------------------------------
source = pathlib.Path(init_from) if is_new else out / 'last.pt'
folder = source if source.is_dir() else source.parent
try:
    model = GPT.load(source, dropout=dropout)
    tokenizer = Tokenizer.load(f'{folder}/tokenizer.json')
    tokenizer.render([])                # refuses a tokenizer without <|im_start|> and <|im_end|>
except ValueError as error:
    raise Mistake(f'{error}; start from another model, or run: python train.py') from None
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{folder}/tokenizer.json is not the tokenizer that {source} was trained with')
require(model.config.causal and 'reward_head' not in model.saved,
        f'{source} was made with --objective=mlm or is a reward model: it writes no answers')
context = model.config.block_size
T = block_size or context               # most inputs of a row
require(T <= context, f'{block_size=} is more than the context of {source}, {context}; '
        'make it longer: python -m extras.longer_context')

# --- data -----------------------------------------------------------------------------------------
# A run goes on with the same of these settings, and of all that it reads.
fixed = f'{lora=}, {optimizer=}, {batch_size=}, {block_size=}, {replay=}, {seed=}'
data_hash = hashlib.sha256(fixed.encode())


def read(path):
    """Return the conversations of a file, (ids, mask) each: a 1 in the mask says that this id is
    trained. Print how many were cut or left out."""
    require(os.path.exists(path), f'{path} is missing; make it as your config says, or (with your '
            f'--source=FILE) run: python prepare.py --kind=sft --out_dir={shlex.quote(data_dir)}')
    text = pathlib.Path(path).read_bytes()
    data_hash.update(text)
    rows, counts = [], collections.Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)['messages']
            turns = [(*tokenizer.render([message]), message['role']) for message in messages]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Mistake(f'{path}, line {number}: {error!r:.200}; needs "messages", see '
                          'the top of sft.py, or prepare.py --kind=sft') from None
        ids, mask, how = fit(turns, T)
        counts[how] += 1
        if ids:                         # arrays take a tenth of the memory of lists
            rows.append((np.array(ids, np.int32), np.array(mask, bool)))
    if rank == 0:
        print(path, dict(counts), flush=True)
    require(rows, f'{path} has no conversation with an answer that fits into {T} tokens')
    return rows


train = read(f'{data_dir}/train.jsonl')
held_out = read(f'{data_dir}/val.jsonl')[:512]          # enough for a loss to two digits
lengths = np.array([len(ids) for ids, mask in train])                                   # (n,)
if base_dir or replay:
    from extras.mixture import Base
    base = Base(base_dir, tokenizer, T, context, replay, seed)
    data_hash.update(base.hash)
data_hash = data_hash.hexdigest()

per_epoch = max(1, len(train) // batch_size)                                            # steps
max_steps = config['steps'] = max_steps or max(1, round(epochs * per_epoch))
eval_interval = eval_interval or per_epoch
micro_batch_size = micro_batch_size or batch_size
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
if lora:
    from extras.lora import adapt, merged
    adapt(model, lora, tokenizer)
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [p for p in model.parameters() if p.requires_grad]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': kind != 'mps', 'lr': learning_rate}
opt = torch.optim.AdamW(params, **options)
if optimizer == 'muon':
    from extras.muon import for_blocks
    opt = for_blocks(model, **options)
step, tokens, best_val = 0, 0, math.inf
if not is_new:
    state = model.saved
    require(state.get('data') == data_hash, f'{source} is not of sft.py, or has other data or '
            f'settings than {data_dir=}, {base_dir=}, {fixed}')
    config['init_from'] = state['config']['init_from']
    model.load_state_dict(state['weights'])
    opt.load_state_dict(copy.deepcopy(state['optimizer']))  # mapped from a file that we replace
    step, tokens, best_val = state['step'], state['tokens'], state['best_val']
state = model.saved = {}                # frees their memory
require(max(warmup_steps, step + 1) <= max_steps,
        f'{max_steps=} is too low for {warmup_steps=} or a run that is at {step=}')

# --- what it writes -------------------------------------------------------------------------------
def save(name):
    """Write a checkpoint for GPT.load: with LoRA, weights and adapters merged. last.pt also has
    what a run needs to go on: adapters apart, moments."""
    if rank == 0:
        weights = model.state_dict()
        more = {'model': merged(weights)} if lora else {}
        if name == 'last.pt':
            # without LoRA, these weights are the model's, and are stored once
            more |= {'weights': weights, 'optimizer': opt.state_dict(), 'data': data_hash}
        model.save(out / name, config=config, step=step, tokens=tokens, best_val=best_val,
                   tokenizer_hash=tokenizer.hash, **more)


def log(**row):
    """Print figures, and append them to metrics.jsonl. A reader takes a step's last row."""
    if rank == 0:
        words = [f'{name}: {value:.4g}' for name, value in row.items()]
        print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with open(out / 'metrics.jsonl', 'a') as f:
            print(json.dumps({'step': step, 'tokens': tokens} | row), file=f)


def mean_loss(*groups):
    """Return the mean loss over all targets of these groups of rows, in all processes. Unless under
    no_grad, add this process's part of its gradient to p.grad. The first of two processes takes the
    rows 0, 2, 4, ... of a group; it may also get none."""
    n_targets = sum(map(count_targets, groups))
    loss = torch.zeros((), device=device)
    for rows in groups:
        mine = rows[rank::world]
        for i in range(0, len(mine), micro_batch_size):
            few = mine[i:i + micro_batch_size]
            x, y = collate(few)                                                         # (B, T)
            with autocast:
                mean = model(x.to(device), y.to(device), with_logits=False)[1]
            part = mean * count_targets(few) / n_targets
            if torch.is_grad_enabled():
                part.backward()
            loss += part.detach()
    if world > 1:
        dist.all_reduce(loss)
    return loss


@torch.no_grad()
def evaluate():
    """Measure the loss on held-out conversations, and on text of the base if there is some. Write
    the answer to the first held-out question. best.pt keeps the best weights."""
    global best_val
    model.eval()                # no dropout
    row = {'val_loss': mean_loss(held_out).item()}
    if base_dir:
        row['base_bpb'] = base.bits_per_byte(mean_loss(base.held_out).item())
    log(**row)
    if rank == 0:
        ids, mask = held_out[0]
        question = torch.tensor(ids[None, :mask.argmax()], device=device).long()        # (1, T)
        [ids] = model.generate(question, sample_tokens, temperature=0, stop=tokenizer.stop)
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            print(f'--- step {step}\n{tokenizer.decode(ids.tolist())}\n', file=f)
    model.train()
    if row['val_loss'] < best_val and step > 0:         # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def stop(number, frame):
    """End the run at Ctrl-C or SIGTERM. It saves nothing, and may not print or raise an error,
    because a signal comes at any moment: within a save, an update, a print."""
    if rank == 0:
        os.write(1, f'\nstopped; last.pt has step {saved_step}; resume: {again}\n'.encode())
    os._exit(128 + number)


# --- the loop -------------------------------------------------------------------------------------
again = f'python sft.py --out_dir={shlex.quote(out_dir)} --init_from=resume'
if rank == 0:
    for path in old + [out / f'{name}.tmp' for name in ours]:
        path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if is_new:                  # first: a full disk fails now, and without last.pt this is no run
        save('last.pt')
    (out / 'config.json.tmp').write_text(json.dumps(config, indent=1), 'utf-8')
    os.replace(out / 'config.json.tmp', out / 'config.json')
    tokenizer.save(out / 'tokenizer.json')
    if is_new and os.path.exists(f'{folder}/data.json'):
        shutil.copy(f'{folder}/data.json', out)     # what the base has read
    print(f'{model.config}\ntrained parameters: {len(gradient):,}, steps: {max_steps:,}, '
          f'{per_epoch:,} an epoch, processes: {world} ({device}, {dtype})\n'
          f'a conversation:\n{marked(*train[0], tokenizer)}')
saved_step = step
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
while True:
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step > saved_step and (step % save_interval == 0 or step == max_steps):
        save('last.pt')
        saved_step = step
    if step == max_steps:
        break
    began = time.perf_counter()
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)  # of dropout, other in each process
    # the learning rate: a linear rise, then half a cosine down to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr
    batch = [train[i] for i in numbers_of(step, lengths, batch_size, seed)]
    base_text = base.rows_of(step) if replay else []
    gradient.zero_()            # a process without a row adds zeros
    loss = mean_loss(batch, base_text)
    if world > 1:
        dist.all_reduce(gradient)

    norm = clip_grad_norm_(params, grad_clip or math.inf)
    loss, norm = torch.stack([loss, norm]).tolist()     # the CPU waits for the GPU: once a step
    require(math.isfinite(loss + norm), f'step {step + 1}: the loss is {loss}, the norm of the '
            f'gradient {norm}; go on from step {saved_step} with a lower rate: {again} '
            f'--learning_rate={learning_rate / 4:g}')
    opt.step()
    step_tokens = sum(len(ids) for ids, mask in batch + base_text)
    tokens += step_tokens
    step += 1
    if step in (1, max_steps) or step % log_interval == 0:
        dt = max(1e-9, time.perf_counter() - began)     # some clocks tick coarsely
        log(loss=loss, lr=lr, grad_norm=norm, trained=count_targets(batch + base_text), dt=dt,
            tok_s=step_tokens / dt, minutes_left=dt * (max_steps - step) / 60)

if rank == 0:
    print(f'done, lowest val_loss {best_val:.4f}\n'
          f'next: python sample.py --ckpt={shlex.quote(out_dir)} --chat=True')
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
