"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python prepare.py --kind=sft && python sft.py       # small problems with their answers
    python sft.py --init_from=out/base --data_dir=data/alpaca
    python sft.py --out_dir=out/sft --init_from=resume              # resumes; on a CPU, bit for bit
    torchrun --nproc_per_node=8 sft.py --init_from=out/base         # eight GPUs, the same steps

Reads init_from, a folder of train.py or a Hugging Face folder, and data_dir/train.jsonl and
val.jsonl, lines of {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}.
Writes out_dir: config.json, tokenizer.json, metrics.jsonl, samples.txt, last.pt, best.pt.

The loop is that of train.py. One thing is new, the mask: the loss counts only the assistant's words
and the <|im_end|> after them, in every turn. All other tokens are context, with IGNORE as target. A
model that is also trained on the questions learns to ask. Without training on <|im_end|> it never
stops. The decision made here is the form of an answer: the model copies the length and tone of the
conversations.

You should see one conversation with its trained parts in [[ ]], a first loss well above the base
model's, and a fall of loss and val_loss within the first hundred steps. If val_loss rises while
the loss falls, the model memorizes: use fewer epochs. With base_dir, base_bpb shows how much the
model forgets; replay helps.

Only train.py has: saves when a signal comes, last-1.pt, a guard against spikes, float16, sharding,
torch.compile.
"""
import collections, copy, glob, hashlib, itertools, json, math, os, pathlib, shlex, shutil, signal
import sys, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils.rnn import pad_sequence
from configurator import Mistake, configure, require, set_by
from model import GPT, IGNORE
from tokenizer import Tokenizer
try:
    import fcntl
except ImportError:             # Windows
    fcntl = None

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/base'          # folder or .pt to start from; resume: go on; auto: resume if it can
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
BOUNDS = {'batch_size': (1, 2 ** 20), 'dropout': (0, 0.99), 'log_interval': (1, 1e12),
          'save_interval': (1, 1e12), 'seed': (0, 2 ** 32 - 1)}


# --- what is new: the mask, and conversations of all lengths --------------------------------------
def fit(turns, T):
    """Return ids and mask of a conversation, at most T + 1 each (T inputs and a last target), and
    how they were cut. turns: (ids, mask, role) of each message.

    A question without its beginning is another question, and so is one without the system message.
    A conversation that is too long loses its oldest turns, and only then the end of the answer:

        system  user  assistant  user  assistant  user      too long
        system  user  assistant  user  assistant            what nobody answers always goes
        system                   user  assistant            older turns left out
        system                   user  assist               answer cut

    If system message and question leave less than a quarter of T for the answer, or if there is no
    answer, the conversation is left out, and ids and mask are empty."""
    all_ids = [id for ids, mask, role in turns for id in ids]
    all_mask = [bit for ids, mask, role in turns for bit in mask]
    if 1 not in all_mask:
        return [], [], 'left out: no answer'
    end = len(all_mask) - all_mask[::-1].index(1)
    begins = [0, *itertools.accumulate(len(ids) for ids, mask, role in turns)]
    roles = [role for ids, mask, role in turns]
    head = next(begin for begin, role in zip(begins, roles) if role != 'system')
    # Where a question begins: its user may have sent several messages in a row.
    questions = [begins[i] for i in range(len(roles))
                 if roles[i] == 'user' and roles[i - 1:i] != ['user'] and begins[i] < end]
    for start in [head, *questions]:
        ids, mask = (part[:head] + part[start:end] for part in (all_ids, all_mask))
        if len(ids) <= T + 1:
            return ids, mask, 'whole' if start == head else 'older turns left out'
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
    return (pad_sequence(x, batch_first=True, padding_value=pad).long(),                # (B, T)
            pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


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
    """Return the numbers of a step's conversations, (batch_size,). They have about the same length,
    so that little is padded. An epoch has each of them at most once: those that do not fill a batch
    are left out. If there are too few for one batch, some are repeated."""
    per_epoch = max(1, len(lengths) // batch_size)
    epoch, i = divmod(step, per_epoch)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    batches = np.resize(shuffled(len(lengths)), (per_epoch, batch_size))
    # 32 batches at a time are sorted by length. The steps visit the batches in random order.
    batch = shuffled(per_epoch)[i]
    group = batches[batch - batch % 32:][:32].flatten()
    order = np.argsort(lengths[group], kind='stable')
    return group[order].reshape(-1, batch_size)[batch % 32]


def lr_at(step, max_steps, warmup_steps, learning_rate):
    """Return the learning rate of update `step`, counted from 0: a linear rise, then half a cosine
    down to 0. lr_at(step, 100, 10, 1.0) is 0.1 at step 0, 1.0 at 9 and 10, 0.5 at 55."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)     # from 0 to 1
    return 0.5 * learning_rate * (1 + math.cos(math.pi * progress))


# Config files and flags replace the settings. config is a dict of the same values.
config = configure(globals(), BOUNDS)
config['stage'] = 'sft'         # so eval.py will ask this model in conversations

# --- this process ---------------------------------------------------------------------------------
# torchrun starts a process for each device, and tells each its rank and the size of the world.
rank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
if device == 'auto':
    mps = torch.backends.mps.is_available() and world == 1
    device = 'cuda' if torch.cuda.is_available() else 'mps' if mps else 'cpu'
if device == 'cuda':
    device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
try:
    kind = torch.empty(1, device=device).device.type        # cuda, of cuda:1
except (RuntimeError, AssertionError) as error:
    raise Mistake(f'{device=} is not available ({error}); try --device=auto') from None
if kind == 'cuda':
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a batch
if dtype == 'auto':                     # older GPUs and many CPUs only emulate bfloat16, slowly
    is_native = (torch.cuda.get_device_capability()[0] >= 8 if kind == 'cuda' else
                 kind == 'cpu' and torch.cpu._is_avx512_bf16_supported())
    dtype = 'bfloat16' if is_native else 'float32'
autocast = torch.autocast(kind, torch.bfloat16, enabled=dtype == 'bfloat16')
if world > 1:
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo')

# --- model ----------------------------------------------------------------------------------------
is_new = init_from != 'resume'          # a run that goes on has the settings of out_dir/config.json
last = f'{out_dir}/last.pt'
origin = init_from if is_new else last
folder = origin if os.path.isdir(origin) else os.path.dirname(origin) or '.'
anew = f'start a new run from its best model: --init_from={out_dir}/best.pt and another --out_dir'
try:
    model = GPT.load(origin, dropout=dropout)
except ValueError as error:
    models = [*glob.glob(f'{glob.escape(out_dir)}/best.pt'), *sorted(glob.glob('out/*/best.pt'))]
    advice = 'run: python prepare.py && python train.py'
    if models:
        advice = f'start a new run from one that can: --init_from={shlex.quote(models[0])}'
    raise Mistake(f'{error}; {advice}') from None
state = {} if is_new else model.saved   # the checkpoint of a run that goes on
require(is_new or 'weights' in state, f'{last} is not the last.pt of sft.py; {anew}')
saved_config = state.get('config', config)
for name in ('stage', 'batch_size', 'block_size', 'dropout', 'optimizer', 'lora', 'replay', 'seed'):
    value = saved_config.get(name)      # another one would be another run
    require(config[name] == value, f'{name}={config[name]!r}, but the run in {out_dir} has '
            f'{value!r}; leave {name} out, or {anew}')
config['init_from'] = saved_config['init_from']

tokenizer = Tokenizer.load(f'{folder}/tokenizer.json')
tokenizer.render([])                    # refuses a tokenizer without <|im_start|> and <|im_end|>
context = model.config.block_size
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{folder}/tokenizer.json is not the tokenizer that {origin} was trained with')
require(model.config.causal and 'reward_head' not in model.saved, f'{origin} fills gaps '
        '(--objective=mlm) or is a reward model, and writes no answers; use a model of clm or sft')
require(block_size <= context, f'{block_size=} is more than the context of {origin}, {context}; '
        'lower it, or make a longer one: python -m extras.longer_context')
T = block_size or context               # most inputs of a row
if lora:
    from extras.lora import adapt, merged
    adapt(model, lora, tokenizer)
if state:
    model.load_state_dict(state['weights'])
model.to(device)
model.grad_checkpoint = grad_checkpoint
trained = {name: p for name, p in model.named_parameters() if p.requires_grad}


# --- data -----------------------------------------------------------------------------------------
def read(path):
    """Return the conversations of a file, (ids, mask) each: a 1 in the mask says that this id is
    trained. Print how many were cut or left out."""
    rows, counts = [], collections.Counter()
    for number, line in enumerate(open(path, 'rb'), 1):
        if line.isspace():
            continue
        try:
            messages = json.loads(line)['messages']
            turns = [(*tokenizer.render([message]), message['role']) for message in messages]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Mistake(f'{path}, line {number}: {type(error).__name__}: {error!s:.200}; a line '
                          'needs "messages", see the top of sft.py; prepare.py --kind=sft writes '
                          'such lines') from None
        ids, mask, how = fit(turns, T)
        counts[how] += 1
        if ids:                         # arrays take a tenth of the memory of lists
            rows.append((np.array(ids, np.int32), np.array(mask, bool)))
    if rank == 0:
        print(path, dict(counts), flush=True)
    require(rows, f'{path} has no conversation with an answer that fits into {T} tokens')
    return rows


paths = [f'{data_dir}/train.jsonl', f'{data_dir}/val.jsonl']
source = '' if data_dir == 'data/sft' else ' --source=FILE'
require(all(map(os.path.exists, paths)), f'{" or ".join(paths)} is missing; make them as your '
        f'config file says, or run: python prepare.py --kind=sft{source} '
        f'--out_dir={shlex.quote(data_dir)}')
train, held_out = map(read, paths)
held_out = held_out[:512]               # enough for a loss to two digits
lengths = np.array([len(ids) for ids, mask in train])                                   # (n,)
data = b''.join(pathlib.Path(path).read_bytes() for path in paths)
if base_dir or replay:
    from extras.replay import Base
    base = Base(base_dir, tokenizer, T, context, replay, seed)
    data += base.hash
data_hash = hashlib.sha256(data).hexdigest()
require(state.get('data', data_hash) == data_hash, f'{data_dir} or {base_dir=} has other data than '
        f'the run in {out_dir} has read; resume with the same, or {anew}')

per_epoch = max(1, len(train) // batch_size)                                            # steps
if 'epochs' in set_by and 'max_steps' not in set_by:    # config.json has max_steps
    max_steps = 0
max_steps = config['max_steps'] = max_steps or max(1, round(epochs * per_epoch))
eval_interval = eval_interval or per_epoch
micro_batch_size = micro_batch_size or batch_size
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
step = state.get('step', 0)
require(max(warmup_steps, step + 1) <= max_steps,
        f'{max_steps=} is too low for {warmup_steps=} or a run that is at {step=}')

# --- optimizer ------------------------------------------------------------------------------------
Optimizer = torch.optim.AdamW           # it ignores use_muon
if optimizer == 'muon':
    from extras.muon import Muon as Optimizer
groups = [{'params': [p for name, p in trained.items()
                      if (name.startswith('blocks.') and p.dim() == 2) == use_muon],
           'use_muon': use_muon} for use_muon in (True, False)]
opt = Optimizer(groups, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=kind != 'mps')
if state:
    opt.load_state_dict(copy.deepcopy(state['optimizer']))
for p in trained.values():              # they stay in memory: a process may get no row of a batch
    p.grad = torch.zeros_like(p)
tokens = state.get('tokens', 0)
best_val = state.get('best_val', math.inf)
state = model.saved = {}                # frees its memory

# --- out_dir --------------------------------------------------------------------------------------
if world > 1:           # processes that differ would wait for each other, or train a mixture
    mine = config, data_hash, step, sum(
        p.detach().view(torch.int32).sum().item() for p in model.parameters())
    theirs = [None] * world
    dist.all_gather_object(theirs, mine)
    require(theirs.count(mine) == world, 'the processes have different settings, data or weights; '
            'start all of them with the same flags and files')
if rank == 0:
    ours = ['last.pt', 'last-1.pt', 'best.pt', 'config.json', 'tokenizer.json', 'data.json',
            'metrics.jsonl', 'samples.txt', 'train.log', 'eval.json', 'samples.jsonl']
    found = [name for name in ours if os.path.lexists(f'{out_dir}/{name}')]
    may_replace = overwrite and os.path.realpath(folder) != os.path.realpath(out_dir)
    require(not is_new or not found or may_replace, f'{out_dir} already has {found[:1]}; resume '
            'that run with --init_from=resume, choose another --out_dir or, unless this run starts '
            'from there, start over with --overwrite=True')
    os.makedirs(out_dir, exist_ok=True)
    lock = open(f'{out_dir}/.lock', 'a')
    try:                        # the system lifts the lock when this process ends, however it ends
        fcntl and fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Mistake(f'another run writes to {out_dir}; wait, or choose another') from None
    for name in ours:           # a link in the folder of a stranger could lead anywhere
        path = pathlib.Path(out_dir, name)
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        if is_new or path.is_symlink():
            path.unlink(missing_ok=True)


def save(name, **more):
    """Write a checkpoint under another name, then rename it, so that a crash or a full disk leaves
    the old one."""
    if rank == 0:
        path = f'{out_dir}/{name}'
        weights = model.state_dict()
        torch.save({'format': 'nanoparrot-checkpoint-1', 'model_config': vars(model.config),
                    'model': merged(weights) if lora else weights, 'config': config, 'step': step,
                    'tokens': tokens, 'best_val': best_val, 'data': data_hash,
                    'tokenizer_hash': tokenizer.hash, **more}, f'{path}.tmp')
        os.replace(f'{path}.tmp', path)


def append(name, text):
    with open(f'{out_dir}/{name}', 'a', encoding='utf-8', newline='\n') as f:
        f.write(text + '\n')


def log(**row):
    """Print a row of figures, and append it to metrics.jsonl, where a resumed run repeats steps:
    the last row of a step counts. JSON has no nan: null."""
    if rank == 0:
        words = [f'{name}: {value:.5g}' for name, value in row.items()]
        print(' | '.join([f'step {step:>6}/{max_steps}', *words]), flush=True)
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        append('metrics.jsonl', json.dumps({'step': step, 'tokens': tokens, **row}))


# --- loss -----------------------------------------------------------------------------------------
def losses_of(rows, size):
    """Yield the loss of each micro-batch of `size` rows in this process, in nats, summed over its
    targets. The first of two processes takes rows 0, 2, 4, ...; it may also get none."""
    mine = rows[rank::world]
    for i in range(0, len(mine), size):
        batch = collate(mine[i:i + size])                                               # (B, T)
        if kind == 'cuda':      # from pinned memory it copies while the CPU goes on
            batch = [t.pin_memory() for t in batch]
        with autocast:
            yield -model.log_p(*(t.to(device, non_blocking=True) for t in batch)).sum()


@torch.no_grad()
def mean_loss(rows):
    """Return the mean loss over the targets of these rows, without dropout. It draws no random
    numbers, so a run that is evaluated more often learns the same."""
    model.eval()
    nats = sum(losses_of(rows, micro_batch_size), torch.zeros((), device=device))
    if world > 1:
        dist.all_reduce(nats)
    model.train()
    return nats.item() / count_targets(rows)


def evaluate():
    """Measure the loss on held-out conversations, and on text of the base if there is some. Write
    the answer to the first held-out question. best.pt keeps the weights with the lowest loss."""
    global best_val
    row = {'val_loss': mean_loss(held_out)}
    if base_dir:
        row['base_bpb'] = base.bits_per_byte(mean_loss(base.held_out))
    log(**row)
    if rank == 0:
        ids, mask = held_out[0]
        question = torch.tensor(ids[None, :mask.argmax()], device=device).long()        # (1, T)
        with autocast:
            [ids] = model.generate(question, sample_tokens, temperature=0, stop=tokenizer.stop)
        append('samples.txt', f'--- step {step}\n{tokenizer.decode(ids.tolist())}\n')
    if row['val_loss'] < best_val and step > 0:         # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def stop(number, frame):
    """End the run at Ctrl-C or SIGTERM; a second Ctrl-C ends it at once. (print may be busy.)"""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.write(1, f'\nstopped; {last} has step {saved}; resume: {again}\n'.encode() * (rank == 0))
    sys.exit(128 + number)


# --- the loop -------------------------------------------------------------------------------------
again = f'python sft.py --out_dir={shlex.quote(out_dir)} --init_from=resume'
saved = step                    # what last.pt has
if rank == 0:
    pathlib.Path(f'{out_dir}/config.json.tmp').write_text(json.dumps(config, indent=1))
    os.replace(f'{out_dir}/config.json.tmp', f'{out_dir}/config.json')
    tokenizer.save(f'{out_dir}/tokenizer.json')
    if is_new and os.path.exists(f'{folder}/data.json'):        # what the base has read
        shutil.copy(f'{folder}/data.json', f'{out_dir}/data.json')
    n_trained = sum(p.numel() for p in trained.values())
    print(f'{model.config}\ntrained parameters: {n_trained:,}; processes: {world}, on {device}, in '
          f'{dtype}; steps: {max_steps:,}, {per_epoch:,} an epoch; a conversation:\n'
          f'{marked(*train[0], tokenizer)}')
if is_new:                      # now it shows whether there is room, and a run can be resumed
    save('last.pt', weights=model.state_dict(), optimizer=opt.state_dict())
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
if step == 0:
    evaluate()
seconds, logged = 0, (step, tokens)     # in steps since the last line of the log; where that was
while step < max_steps:
    began = time.perf_counter()
    # Dropout draws other numbers in each step and process.
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)
    lr = lr_at(step, max_steps, warmup_steps, learning_rate)
    for group in opt.param_groups:
        group['lr'] = lr
    batch = [train[i] for i in numbers_of(step, lengths, batch_size, seed)]
    base_text = base.rows_of(step) if replay else []    # long, so each goes through alone

    # Each process adds its part to the gradient of the mean loss over all targets of the step.
    n_targets = count_targets(batch + base_text)
    loss = torch.zeros((), device=device)
    for nats in itertools.chain(losses_of(batch, micro_batch_size), losses_of(base_text, 1)):
        (nats / n_targets).backward()
        loss += nats.detach() / n_targets
    if world > 1:               # all parts as one message
        parts = [loss, *(p.grad for p in trained.values())]
        total = torch.nn.utils.parameters_to_vector(parts)
        dist.all_reduce(total)
        torch.nn.utils.vector_to_parameters(total, parts)

    norm = torch.nn.utils.clip_grad_norm_(trained.values(), grad_clip or math.inf)
    loss, norm = torch.stack([loss, norm]).tolist()     # the CPU waits for the GPU: once a step
    require(math.isfinite(loss + norm), f'step {step + 1}: the loss is {loss}, the norm of the '
            f'gradient {norm}; go on from step {saved} with a lower rate: {again} '
            f'--learning_rate={learning_rate / 4:g}')
    opt.step()
    opt.zero_grad(set_to_none=False)
    tokens += sum(len(ids) for ids, mask in batch) + replay * T
    step += 1
    seconds += time.perf_counter() - began

    if step in (1, max_steps) or step % log_interval == 0:
        dt = max(seconds, 1e-9) / (step - logged[0])    # some clocks tick coarsely
        speed = (tokens - logged[1]) / (step - logged[0]) / dt
        log(loss=loss, lr=lr, grad_norm=norm, trained=n_targets, dt=dt, tok_s=speed,
            minutes_left=dt * (max_steps - step) / 60)
        seconds, logged = 0, (step, tokens)
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt', weights=model.state_dict(), optimizer=opt.state_dict())
        saved = step

if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
if rank == 0:
    print(f'done, lowest val_loss {best_val:.4f}\n'
          f'next: python sample.py --ckpt={shlex.quote(out_dir)} --chat=True')
