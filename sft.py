"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python prepare.py --kind=sft --source=alpaca.json --out_dir=data/sft
    python sft.py --init_from=out/base --data_dir=data/sft
    python sft.py --init_from=resume --out_dir=out/sft --data_dir=data/sft      # go on, bit for bit
    torchrun --nproc_per_node=8 sft.py --init_from=out/base --data_dir=data/sft

Reads init_from, a folder that train.py wrote (or a Hugging Face folder of a Llama), and data_dir/train.jsonl
and val.jsonl, lines of {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}. Writes
out_dir as train.py does: last.pt, best.pt, config.json, tokenizer.json, metrics.jsonl, train.log,
samples.txt.

The loop is train.py's; `diff train.py sft.py` is the lesson. What is new is what the loss is of: only what
the assistant says, and the <|im_end|> after it, in every turn. A model that is also trained on the questions
learns to ask; one that is not trained on <|im_end|> never stops. Everything else is context, target IGNORE.

You should see one conversation with its trained parts in [[ ]], a first loss well above the base model's
(the format is new to it), a fall within the first hundred steps, and val_loss that falls with it. When it
rises while the loss falls, the conversations are being learned by heart: fewer epochs. With base_dir, the
loss on what the base model was trained on is measured too: what it forgets. A little of that beside the
conversations (replay; the pretraining mix of InstructGPT, arXiv:2203.02155) keeps most of it.
"""
import contextlib, dataclasses, functools, glob, hashlib, json, math, os, shutil, signal, sys, time
import numpy as np
import torch
import torch.distributed as dist
from configurator import configure
from model import IGNORE, GPT, load_checkpoint, save_checkpoint
from parts.data import batches_by_length, open_bins, sequence_starts, sequences
from tokenizer import Tokenizer

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/base'          # the model to start from: a run's folder; or resume: go on in out_dir
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from prepare.py --kind=sft
base_dir: str | None = None     # data of the base model, to measure what is forgotten
replay = 0                      # sequences of base_dir beside the conversations of a step, against forgetting
out_dir = 'out/sft'
overwrite = False               # True: start over in an out_dir that holds a run, and delete it
# optimisation
epochs = 3.0                    # times that each conversation is seen
max_steps = 0                   # instead of epochs; 0 = as many as they take
batch_size = 32                 # conversations per step, over all devices and accumulation
micro_batch_size = 0            # per device and forward pass; 0 = all; lower it to save memory
block_size = 0                  # tokens of a conversation; 0 = the model's context; longer ones are cut
optimizer = 'adamw'             # or muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 3e-4            # for millions of parameters; from 100 million on 1e-5 to 5e-5
min_lr = 0.0                    # where the schedule ends
warmup_steps = 10
schedule = 'cosine'             # or wsd: warm up, stay, and fall linearly in the last decay_steps
decay_steps = 0                 # of wsd; 0 = a fifth of max_steps
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
dropout = 0.0
# watching
log_interval = 10               # steps
eval_interval = 0               # steps; 0 = each epoch; also before the first and after the last
eval_conversations = 512        # of val.jsonl, the first ones, always the same
eval_tokens = 65_536            # of base_dir
save_interval = 250             # steps
sample_tokens = 100             # of the answer to the first held-out question, at each evaluation
# safety
spike_z = 8.0                   # a spike is so many deviations above the last spike_window steps; 0 = off
spike_window = 100              # steps
spike_action = 'skip'           # or rollback: to last.pt, with half the learning rate; or log: go on
show_batch: int | None = None   # print the conversations of this step's batch, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # of matrix products: float32, bfloat16, float16; auto = bfloat16 if native
compile = False                 # torch.compile; lengths vary, so it compiles several times
grad_checkpoint = False         # keep each block's input, compute the rest again: less memory, more time
seed = 1337
config = configure(globals())
config['stage'] = 'sft'         # eval.py and sample.py ask by conversation

for _name in ('batch_size', 'log_interval', 'save_interval', 'eval_conversations', 'sample_tokens'):
    if config[_name] < 1:
        raise ValueError(f'{_name}={config[_name]} must be at least 1')
for _name in ('epochs', 'max_steps', 'micro_batch_size', 'block_size', 'learning_rate', 'min_lr', 'replay',
              'warmup_steps', 'decay_steps', 'weight_decay', 'grad_clip', 'eval_interval', 'spike_z'):
    if config[_name] < 0:
        raise ValueError(f'{_name}={config[_name]} must not be negative')
for _name, _choices in (('optimizer', 'adamw muon'), ('schedule', 'cosine wsd'),
                        ('spike_action', 'skip rollback log')):
    if config[_name] not in _choices.split():
        raise ValueError(f'{_name}={config[_name]!r} must be one of: {_choices.replace(" ", ", ")}')
if show_batch is not None and show_batch < 0:
    raise ValueError(f'show_batch={show_batch} must not be negative')
if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and 0 <= seed < 2 ** 32 and spike_window >= 30):
    raise ValueError(f'beta1={beta1} and beta2={beta2} must be in [0, 1), seed={seed} in [0, 2^32), '
                     f'spike_window={spike_window} at least 30')

# --- setup: same text in train.py, sft.py, dpo.py ---
# One process per device. torchrun sets RANK, LOCAL_RANK and WORLD_SIZE; without it, this is process 0 of 1.
rank, local_rank = int(os.environ.get('RANK', 0)), int(os.environ.get('LOCAL_RANK', 0))
world = int(os.environ.get('WORLD_SIZE', 1))
main_process = rank == 0
if device == 'auto':
    device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
device_type = device.split(':')[0]
if device_type not in ('cpu', 'cuda', 'mps') or (device_type == 'cuda' and not torch.cuda.is_available()) \
        or (device_type == 'mps' and not torch.backends.mps.is_available()):
    raise ValueError(f'device={device} is not available here; try --device=auto')
if device_type == 'cuda':
    device = f'cuda:{local_rank}' if device == 'cuda' else device
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision('high')      # TF32 for what stays float32
if dtype == 'auto':     # before Ampere, and on CPUs without the instructions, bfloat16 is emulated and slow
    native = (device_type == 'cuda' and torch.cuda.get_device_capability(device)[0] >= 8) or \
        (device_type == 'cpu' and getattr(torch.cpu, '_is_avx512_bf16_supported', bool)())
    dtype = 'bfloat16' if native else 'float32'
if dtype not in ('float32', 'bfloat16', 'float16'):
    raise ValueError(f'dtype={dtype} must be auto, float32, bfloat16 or float16')
autocast = torch.autocast(device_type, getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')      # its range needs a scaled loss
if world > 1:
    dist.init_process_group('nccl' if device_type == 'cuda' else 'gloo')


def all_sum(*values):
    """Sums over all processes, as Python floats."""
    wide = torch.float32 if device_type == 'mps' else torch.float64
    total = torch.tensor(values, dtype=wide, device=device)
    if world > 1:
        dist.all_reduce(total)
    return total.tolist()


stop_asked = False      # by Ctrl-C or a scheduler's SIGTERM: finish the step, save, leave


def ask_to_stop(signum, frame):
    global stop_asked
    stop_asked = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)        # a second Ctrl-C ends at once


signal.signal(signal.SIGTERM, ask_to_stop)
signal.signal(signal.SIGINT, ask_to_stop)
# --- end setup ---

# --- shares: same text in train.py, sft.py, dpo.py ---
if batch_size % world:
    raise ValueError(f'batch_size={batch_size} sequences cannot be shared by {world} processes; nearest: '
                     f'--batch_size={max(1, round(batch_size / world)) * world}')
per_rank = batch_size // world
micro_batch_size = micro_batch_size or per_rank
if per_rank % micro_batch_size:
    divisors = [d for d in range(1, per_rank + 1) if per_rank % d == 0]
    raise ValueError(f'micro_batch_size={micro_batch_size} must divide the {per_rank} sequences of a process '
                     'and step; nearest: '
                     f'--micro_batch_size={min(divisors, key=lambda d: abs(d - micro_batch_size))}')
# --- end shares ---

# --- model --------------------------------------------------------------------------------------------------
# --- out_dir: same text in train.py, sft.py, dpo.py ---
last_path, best_path = os.path.join(out_dir, 'last.pt'), os.path.join(out_dir, 'best.pt')
folder = out_dir if init_from == 'resume' else init_from if os.path.isdir(init_from) else \
    os.path.dirname(init_from)                  # where the checkpoint lies that this run starts from
if init_from not in ('scratch', 'resume') and os.path.realpath(folder) == os.path.realpath(out_dir):
    raise ValueError(f'out_dir={out_dir} is the folder of the model that this run starts from, and would be '
                     'overwritten; choose another --out_dir')
if init_from != 'resume' and glob.glob(os.path.join(glob.escape(out_dir), '*.pt')) and not overwrite:
    raise ValueError(f'{out_dir} already holds a run; go on with --init_from=resume, or choose another '
                     '--out_dir, or start over with --overwrite=True')
# --- end out_dir ---
older_path = os.path.join(out_dir, 'last-1.pt')         # should last.pt be damaged
step, best_val, state = 0, math.inf, {}
origin = last_path if init_from == 'resume' else init_from
try:
    model, state = load_checkpoint(origin, device)
except (ValueError, FileNotFoundError) as e:
    if init_from != 'resume' or not os.path.exists(older_path):
        raise
    print(f'{e}\ngoing on from an older checkpoint')
    model, state = load_checkpoint(older_path, device)
tokenizer = Tokenizer.load(os.path.join(folder, 'tokenizer.json'))
if state.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'{origin} was trained with tokenizer {state["tokenizer_hash"]}, its tokenizer.json is '
                     f'{tokenizer.hash}')
model = model.grown(tokenizer.vocab_size)       # one of Hugging Face may be without tokens for chat
if not model.config.causal:
    raise ValueError(f'{init_from} was trained to name masked tokens: it cannot answer; --objective=clm can')
block_size = block_size or model.config.block_size
if block_size > model.config.block_size:
    raise ValueError(f'block_size={block_size} is more than the context of {init_from}, '
                     f'{model.config.block_size} tokens')
weights = model.state_dict()
model = GPT(dataclasses.replace(model.config, dropout=dropout)).to(device)      # dropout is of this run
model.load_state_dict(weights)
model.grad_checkpoint = grad_checkpoint
if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
    raise ValueError(f'the tokenizer of {init_from} has no <|im_start|> and <|im_end|>, which frame what is '
                     'said; pretrain with one that has: python prepare.py --tokenizer=bpe')
pad, im_start = tokenizer.special.get('<|pad|>', 0), tokenizer.special['<|im_start|>']


# --- data ---------------------------------------------------------------------------------------------------
def cut(ids, mask, T, im_start):
    """A conversation of at most T + 1 tokens. What is too much is cut: what follows the last answer, then the
    left, but not of the last answer, which keeps its header and is cut on the right if it is too long."""
    answer = end = len(mask) - mask[::-1].index(1) if 1 in mask else len(mask)
    while answer and mask[answer - 1]:
        answer -= 1
    header = max((i for i in range(answer) if ids[i] == im_start), default=0)
    start = max(0, min(end - (T + 1), header))
    return ids[start:start + T + 1], mask[start:start + T + 1]


def read_conversations(path, T):
    """[(ids, mask)] of the lines of a file that have something to train, and how many had not or were cut.
    A line that is no conversation is an error that names it: prepare.py writes none."""
    rows, empty, shortened = [], 0, 0
    try:
        with open(path, encoding='utf-8') as f:
            for number, line in enumerate(f, 1):
                try:
                    ids, mask = tokenizer.render(json.loads(line)['messages'])
                except (ValueError, KeyError, TypeError) as e:
                    raise ValueError(f'{path}, line {number}: {type(e).__name__}: {e}; prepare it: python '
                                     f'prepare.py --kind=sft --source={path} --out_dir=data/sft') from e
                short, mask = cut(ids, mask, T, im_start)
                shortened += len(short) < len(ids)
                if 1 in mask[1:]:
                    rows.append((short, mask))
                else:
                    empty += 1
    except FileNotFoundError as e:
        raise FileNotFoundError(f'{path} does not exist; make it: python prepare.py --kind=sft '
                                f'--source=FILE --out_dir={data_dir}') from e
    except UnicodeDecodeError as e:
        raise ValueError(f'{path} is not UTF-8 text: {e}') from e
    if not rows:
        raise ValueError(f'{path} has no conversation with an answer'
                         + f' of which something is left in {T} tokens' * (shortened > 0))
    return rows, empty, shortened


def collate(rows, pad):
    """Conversations -> inputs and targets, int64 (B, T), T the longest. A target is the next token, where it
    is to be learned, else IGNORE. Padding is on the right, where causal attention does not see it."""
    T = max(len(ids) for ids, _ in rows) - 1
    x, y = np.full((len(rows), T), pad), np.full((len(rows), T), IGNORE)
    for row, (ids, mask) in enumerate(rows):
        x[row, :len(ids) - 1] = ids[:-1]
        y[row, :len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORE)
    return x, y


def marked(ids, mask):
    """Text of a conversation, its trained parts in [[ ]]."""
    text, start = '', 0
    for i in range(1, len(ids) + 1):        # whole parts are decoded: one token may be half a character
        if i == len(ids) or mask[i] != mask[start]:
            part = tokenizer.decode(ids[start:i])
            text += f'[[{part}]]' if mask[start] else part
            start = i
    return text


train_path, val_path = (os.path.join(data_dir, f'{side}.jsonl') for side in ('train', 'val'))
conversations, n_empty, n_cut = read_conversations(train_path, block_size)
held_out = read_conversations(val_path, block_size)[0][:eval_conversations]
lengths = np.array([len(ids) for ids, _ in conversations])
n_trained = sum(sum(mask) for _, mask in conversations)
steps_per_epoch = max(1, len(conversations) // batch_size)
max_steps = max_steps or max(1, round(epochs * steps_per_epoch))
eval_interval = eval_interval or steps_per_epoch
warmup_steps = min(warmup_steps, max_steps)
decay_steps = (max_steps - warmup_steps) if schedule == 'cosine' else \
    decay_steps or min(max_steps // 5, max_steps - warmup_steps)
if min_lr > learning_rate or decay_steps > max_steps - warmup_steps:
    raise ValueError(f'min_lr={min_lr} must be at most learning_rate={learning_rate}, and decay_steps='
                     f'{decay_steps} at most max_steps - warmup_steps = {max_steps - warmup_steps}')
if replay % world or (replay and base_dir is None):
    raise ValueError(f'replay={replay} must be a multiple of the {world} processes, and needs '
                     '--base_dir=FOLDER')
base_sides = ('train', 'val') if replay else ('val',)
base_meta, base_bins = open_bins(base_dir, block_size, base_sides) if base_dir is not None else ({}, {})
if base_meta.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'base_dir={base_dir} was made with tokenizer {base_meta["tokenizer_hash"]}, '
                     f'{init_from} has {tokenizer.hash}')
token_bytes = np.array(tokenizer.text_bytes)
with open(train_path, 'rb') as f:
    digest = hashlib.sha256(f.read()).hexdigest()


@functools.lru_cache(1)
def batches_of(epoch):
    return batches_by_length(epoch, lengths, batch_size, seed)


def load_batch(step):
    """This process's part of a step's batch, as micro-batches; the tokens of the whole batch."""
    epoch, i = divmod(step, steps_per_epoch)
    rows = batches_of(epoch)[i]
    mine = rows[rank * per_rank:(rank + 1) * per_rank]
    batches = [[torch.from_numpy(a).to(device) for a in collate([conversations[j] for j in part], pad)]
               for part in np.split(mine, range(micro_batch_size, per_rank, micro_batch_size))]
    if replay:                  # all of whose tokens are trained
        starts = sequence_starts(step, replay, len(base_bins['train']), block_size, seed)[rank::world]
        batches += [[torch.from_numpy(a).to(device) for a in sequences(base_bins['train'], part, block_size)]
                    for part in np.split(starts, range(micro_batch_size, len(starts), micro_batch_size))]
    return batches, int(lengths[rows].sum()) + replay * block_size


if show_batch is not None:
    epoch, i = divmod(show_batch, steps_per_epoch)
    for row, j in enumerate(batches_of(epoch)[i]):
        print(f'--- step {show_batch}, conversation {row} of {batch_size}\n{marked(*conversations[j])}')
    sys.exit(0)

# --- optimizer, resume --------------------------------------------------------------------------------------
if init_from != 'resume':
    state = {}                  # its weights are all that this run takes from another one
# --- optimizers: same text in train.py, sft.py, dpo.py ---
groups, fused = model.parameter_groups(weight_decay), device_type in ('cpu', 'cuda')
if optimizer == 'muon':     # an update of a matrix is orthogonalised: every direction moves by as much
    in_blocks = {id(p) for p in model.blocks.parameters()}
    matrices = [p for p in groups[0]['params'] if id(p) in in_blocks]
    groups[0]['params'] = [p for p in groups[0]['params'] if id(p) not in in_blocks]
parts = [(torch.optim.AdamW, groups, {'lr': learning_rate, 'betas': (beta1, beta2), 'fused': fused})]
if optimizer == 'muon':     # scaled to AdamW's size of updates: one learning rate for both (arXiv:2502.16982)
    parts.append((torch.optim.Muon, matrices, {'lr': learning_rate, 'weight_decay': weight_decay,
                                               'adjust_lr_fn': 'match_rms_adamw'}))
# --- end optimizers ---
optimizers = [kind(params, **settings) for kind, params, settings in parts]
if init_from == 'resume':
    if state.get('conversations') != digest:
        raise ValueError(f'{train_path} is not what {last_path} was trained on; resume with that, or start '
                         f'from its weights: --init_from={out_dir} and another --out_dir')
    if state['config']['optimizer'] != optimizer:
        raise ValueError(f'{last_path} has optimizer={state["config"]["optimizer"]}, this run has '
                         f'{optimizer}; resume with that')
    for o, s in zip(optimizers, state['optimizers'], strict=True):
        o.load_state_dict(s)
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())     # {} without float16
    step, best_val = state['step'], state['best_val']
net = torch.compile(model, dynamic=True) if compile else model
if world > 1:
    device_ids = [device] if device_type == 'cuda' else None
    net = torch.nn.parallel.DistributedDataParallel(net, device_ids=device_ids, gradient_as_bucket_view=True)


# --- memory: same text in train.py, sft.py, dpo.py ---
@contextlib.contextmanager
def out_of_memory_advice():
    try:
        yield
    except RuntimeError as e:       # torch.OutOfMemoryError is one
        if 'out of memory' not in str(e).lower() and "can't allocate memory" not in str(e).lower():
            raise
        smaller = max([d for d in range(1, micro_batch_size) if per_rank % d == 0], default=0)
        advice = f'--micro_batch_size={smaller}: the result stays the same' if smaller else \
            '--grad_checkpoint=True' if not grad_checkpoint else \
            f'--block_size={block_size // 2}, or a smaller n_layer or n_embd'
        raise ValueError(f'out of memory; try {advice}') from e


def memory_mb():
    """The largest amount of memory so far: of the GPU, or of this process; None on Windows."""
    if device_type == 'cuda':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
# --- end memory ---

# --- logging: same text in train.py, sft.py, dpo.py ---
if main_process:
    os.makedirs(out_dir, exist_ok=True)
    metrics_path = os.path.join(out_dir, 'metrics.jsonl')
    lock = open(os.path.join(out_dir, 'train.log'), 'a', encoding='utf-8')
    try:                        # the system lifts the lock when this process ends, however it ends
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f'another run is writing to {out_dir}; wait, or choose another --out_dir') from None
    if init_from != 'resume':
        lock.truncate(0)
        for name in ('last*.pt', 'best.pt', 'metrics.jsonl', 'samples.txt'):
            for path in glob.glob(os.path.join(glob.escape(out_dir), name)):
                os.remove(path)
    elif os.path.exists(metrics_path):      # what came after the checkpoint will happen again
        with open(metrics_path, encoding='utf-8') as f:
            rows = [(json.loads(line), line) for line in f if line.endswith('}\n')]
        kept = [line for row, line in rows if row['step'] < step or row['step'] == step
                and row.get('event') not in ('spike', 'skip', 'rollback')]      # of the step that comes now
        with open(f'{metrics_path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            f.writelines(kept)
        os.replace(f'{metrics_path}.tmp', metrics_path)
    with open(os.path.join(out_dir, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
        json.dump(config, f, indent=1)


def say(text, file='train.log'):
    """To the terminal and to a file in out_dir, from the first process only."""
    if main_process:
        if file == 'train.log':
            print(text, flush=True)
        with open(os.path.join(out_dir, file), 'a', encoding='utf-8', newline='\n') as f:
            f.write(text + '\n')


def log_metrics(**values):
    say(json.dumps(values), 'metrics.jsonl')


def note(event, text):
    say(f'step {step}: {text}')
    log_metrics(step=step, event=event, text=text)
# --- end logging ---


# --- schedule: same text in train.py, sft.py, dpo.py ---
def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """The learning rate of update `step`, counted from 0: a linear rise that reaches learning_rate with the
    last warm-up step, then half a cosine down to min_lr at max_steps (SGDR, arXiv:1608.03983, no restarts).
    lr_at(step, 100, 10, 1.0, 0.1): 0.1 at step 0, 1.0 at 9 and 10, 0.55 at 55, 0.1 at 100. schedule='wsd'
    stays at the top and falls linearly in the last decay_steps (arXiv:2404.06395)."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        t = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))      # 0, then 0 .. 1
        return learning_rate - (learning_rate - min_lr) * t
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)        # 0 .. 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * t))
# --- end schedule ---


# --- spikes: same text in train.py, sft.py, dpo.py ---
def spike(window, loss, norm, limit):
    """Whether loss or gradient norm is `limit` standard deviations above the window of [loss, norm] before
    it: what to say, or None. Norms scatter by factors, so they are judged by their logarithm, and only
    factors of more than e^(0.3 limit) count: clipping takes care of the rest."""
    if not limit or len(window) < 30:       # the first steps say nothing about the next
        return None
    losses, norms = np.array(window).T
    logs, log = np.log(np.maximum(norms, 1e-12)), math.log(max(norm, 1e-12))
    for name, now, before, floor in (('loss', loss, losses, 0.01 * losses.mean()),
                                     ('log of the gradient norm', log, logs, 0.3)):
        deviations = (now - before.mean()) / max(before.std(), floor)
        if deviations > limit:
            return f'{name} {now:.3g}, {deviations:.0f} deviations above {before.mean():.3g}'
    return None
# --- end spikes ---


@torch.no_grad()
def held_out_loss():
    """Nats per trained token of the held-out conversations, shared by the processes."""
    nats = tokens = 0
    model.eval()
    rows = sorted(held_out, key=lambda row: len(row[0]))[rank::world]
    for i in range(0, len(rows), micro_batch_size):
        x, y = (torch.from_numpy(a).to(device) for a in collate(rows[i:i + micro_batch_size], pad))
        n = int((y != IGNORE).sum())
        with autocast:
            nats += model(x, y)[1].item() * n
        tokens += n
    model.train()
    nats, tokens = all_sum(nats, tokens)
    return nats / tokens


@torch.no_grad()
def base_bits():
    """Bits per byte on eval_tokens of base_dir's validation data: what pretraining taught, and what is left
    of it."""
    data, T = base_bins['val'], model.config.block_size
    n_blocks = (len(data) - 1) // T
    blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, eval_tokens // T))).astype(np.int64)
    mine, nats, n_bytes = blocks[rank::world] * T, 0.0, 0
    model.eval()
    for i in range(0, len(mine), micro_batch_size):
        x, y = (torch.from_numpy(a).to(device) for a in sequences(data, mine[i:i + micro_batch_size], T))
        with autocast:
            nats += model(x, y)[1].item() * y.numel()
        n_bytes += int(token_bytes[y.cpu().numpy()].sum())
    model.train()
    nats, n_bytes = all_sum(nats, n_bytes)
    return nats / math.log(2) / n_bytes


def answer():
    """What the model says to the first held-out question."""
    ids, mask = held_out[0]
    first = next(i for i in range(1, len(ids)) if mask[i] > mask[i - 1])    # a cut may begin within an answer
    prompt = torch.tensor([ids[:first]], device=device)
    with autocast:
        out = model.generate(prompt, sample_tokens, temperature=0, stop=tokenizer.stop)
    return tokenizer.decode(out[0].tolist())


def save_last():
    if main_process:
        save_checkpoint(f'{last_path}.new', model, step=step, best_val=best_val, skipped=skipped,
                        window=window, vals=vals, lr_scale=lr_scale, bad_steps=sorted(bad_steps),
                        tokens=tokens_seen, conversations=digest, scaler=scaler.state_dict(),
                        optimizers=[o.state_dict() for o in optimizers],
                        tokenizer_hash=tokenizer.hash, config=config)
        if os.path.exists(last_path):
            os.replace(last_path, older_path)
        os.replace(f'{last_path}.new', last_path)


def roll_back():
    """To the last checkpoint, with half the learning rate; the step that spiked will be skipped."""
    global step, window, lr_scale, rolled_back, tokens_seen
    bad_steps.add(step)
    model_then, then = load_checkpoint(last_path, device)
    model.load_state_dict(model_then.state_dict())
    for o, s in zip(optimizers, then['optimizers']):
        o.load_state_dict(s)
    lr_scale /= 2
    note('rollback', f'back to step {then["step"]}, learning rate x {lr_scale:g} from now on')
    step, window, rolled_back, tokens_seen = then['step'] - 1, then['window'], True, then['tokens'] - n_tokens


# --- what is about to happen --------------------------------------------------------------------------------
say(f'resumed at step {step}' if init_from == 'resume' else f'starting from {init_from}')
say(f'--- one conversation, what is trained in [[ ]]\n{marked(*conversations[0])}---')
say(f'  data     {len(conversations):,} conversations, {len(held_out):,} held out, {lengths.sum():,} tokens, '
    f'{n_trained / lengths.sum():.1%} of them trained')
if n_empty or n_cut:
    say(f'  note     dropped without an answer: {n_empty}; cut to {block_size} tokens: {n_cut}')
say(f'  machine  {world} x {device_type}, {dtype}')
say(f'  step     {batch_size} conversations = {world} processes x {per_rank // micro_batch_size} accumulated '
    f'x {micro_batch_size} at once')
say(f'  plan     {max_steps:,} steps = {max_steps / steps_per_epoch:.2f} epochs of {steps_per_epoch:,} steps')
say(f'  rates    learning rate to {learning_rate:g} in {warmup_steps} steps, then down to {min_lr:g}; clip '
    f'{grad_clip:g}')
watching = ('data_dir', 'base_dir', 'out_dir', 'init_from', 'overwrite', 'log_interval', 'eval_interval',
            'eval_conversations', 'eval_tokens', 'save_interval', 'sample_tokens', 'micro_batch_size',
            'grad_checkpoint')          # these change nothing in the training
for k, v in state.get('config', {}).items():
    if config.get(k, v) != v and (k not in watching or k == 'base_dir' and replay):
        say(f'  note     {k} was {v}, is now {config[k]}: the run goes on, but not as the straight run would')
n_parameters = sum(p.numel() for p in model.parameters())
if n_parameters > 1e8 and learning_rate > 1e-4:
    say(f'  note     for {n_parameters / 1e6:,.0f}M parameters a learning_rate of 1e-5 to 5e-5 is usual')
if max_steps > 3 * steps_per_epoch:
    say('  note     more than three epochs: watch val_loss, it is easy to learn conversations by heart')
if main_process:
    tokenizer.save(os.path.join(out_dir, 'tokenizer.json'))
    data_json = os.path.join(folder, 'data.json')           # what the base model was trained on
    if os.path.exists(data_json) and init_from != 'resume':
        shutil.copyfile(data_json, os.path.join(out_dir, 'data.json'))

# --- the loop -----------------------------------------------------------------------------------------------
first_step, skipped, skipped_in_a_row = step, state.get('skipped', 0), 0
window, vals = state.get('window', []), state.get('vals', [])      # [loss, gradient norm]; [step, val_loss]
lr_scale, bad_steps = state.get('lr_scale', 1.0), set(state.get('bad_steps', []))       # after a rollback
stopping = rolled_back = False              # what the processes have agreed on
probe = model.blocks[len(model.blocks) // 2].mlp.w_down.weight.detach()  # how much does an update change it?
eval_s, tokens_seen = 0.0, state.get('tokens', 0)
start_time = window_start = time.time()
window_steps = window_tokens = 0            # since the last log line
model.train()
while True:
    # 1. evaluate; a resumed run has the evaluation of its first step behind it
    if (step % eval_interval == 0 or step == max_steps) and (step > first_step or step == 0):
        began = time.time()
        val_loss, more = held_out_loss(), {}
        if base_dir is not None:
            more['base_bpb'] = base_bits()
        say(f'step {step:>6}/{max_steps} | val_loss: {val_loss:.4f}' + ''.join(
            f' | {name}: {value:.4f}' for name, value in more.items()))
        log_metrics(step=step, val_loss=val_loss, val_ppl=math.exp(min(val_loss, 700)), **more)
        if main_process:
            say(f'--- step {step}, val_loss {val_loss:.4f}\n{answer()}\n', 'samples.txt')
        vals.append([step, val_loss])
        if step and val_loss < best_val:
            best_val = val_loss
            if main_process:
                save_checkpoint(best_path, model, step=step, best_val=best_val, tokenizer_hash=tokenizer.hash,
                                config=config)
        elif step and val_loss > 1.02 * best_val and window and window[-1][0] < best_val:
            note('memorising', f'val_loss {val_loss:.3f} is above its best, {best_val:.3f}, and the loss '
                               'below: fewer epochs, or more conversations; best.pt has kept the best')
        eval_s += time.time() - began
        window_start, window_steps, window_tokens = time.time(), 0, 0       # evaluating is not training time

    # 2. save; stop
    if (step % save_interval == 0 or step == max_steps or stopping) and step > first_step:
        save_last()
    if step >= max_steps or stopping:
        break

    # 3. gradients of the mean loss over all trained tokens of the global batch
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # dropout follows from (seed, step, rank)
    lr = lr_scale * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    for group in (group for o in optimizers for group in o.param_groups):
        group['lr'] = lr
    batches, n_tokens = load_batch(step)
    n_scored = [int((y != IGNORE).sum()) for _, y in batches]
    n_all, loss_sum = all_sum(sum(n_scored))[0], 0.0        # a mean of means would favour short answers
    for i, (batch, n) in enumerate(zip(batches, n_scored)):
        last = i == len(batches) - 1
        with contextlib.nullcontext() if last or world == 1 else net.no_sync(), out_of_memory_advice():
            with autocast:
                loss = net(*batch)[1]
            # this part's share of the mean; times world, because DDP divides the sum over processes by it
            scaler.scale(loss * (n / n_all * world)).backward()
        loss_sum += loss.detach() * n

    # --- clip and step: same text in train.py, sft.py, dpo.py ---
    for o in optimizers:
        scaler.unscale_(o)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or math.inf)
    norm = getattr(norm, 'full_tensor', lambda: norm)().item()  # before clipping; of all shards, under fsdp
    loss_sum, votes = all_sum(float(loss_sum), stop_asked)
    stopping = votes > 0                                    # together, or those who stay would wait for ever
    loss = loss_sum / n_all
    finite = math.isfinite(norm) and math.isfinite(loss)
    trouble = f'loss {loss}, gradient norm {norm}: not finite' if not finite else \
        spike(window, loss, norm, spike_z)
    if trouble and finite and spike_action == 'log':
        note('spike', trouble)
        trouble = None
    logging, update_ratio = (step + 1) % log_interval == 0 or step + 1 in (1, max_steps), 0.0
    if trouble is None and step not in bad_steps:           # nothing that is not finite reaches the weights
        before = probe.clone() if logging else None
        for o in optimizers:
            scaler.step(o)
        if logging:             # of one matrix; about 1e-3 is usual, 1e-5 hardly moves, 1e-1 tears apart
            moved = (probe - before).norm() / before.norm().clamp(min=1e-12)
            update_ratio = getattr(moved, 'full_tensor', lambda: moved)().item()
        skipped_in_a_row = 0
        window = [*window, [loss, norm]][-spike_window:]
    else:
        skipped, skipped_in_a_row = skipped + 1, skipped_in_a_row + 1
        note('skip', f'{trouble or "a step that was rolled back before"}: update skipped; see it with '
                     f'--show_batch={step}')
        if finite and spike_action == 'rollback' and step not in bad_steps and os.path.exists(last_path):
            roll_back()
        if skipped_in_a_row >= (30 if scaler.is_enabled() else 3):  # float16 finds its scale by overflowing
            raise ValueError(f'{skipped_in_a_row} updates in a row were skipped, the last at step {step}, '
                             f'lr {lr:.2e}: {trouble}; {last_path} holds the last good checkpoint, if one '
                             'was saved: resume with a lower --learning_rate, or with --dtype=float32')
    scaler.update()
    for o in optimizers:
        o.zero_grad(set_to_none=True)
    # --- end clip and step ---
    step += 1
    tokens_seen += n_tokens
    window_steps, window_tokens = window_steps + 1, window_tokens + n_tokens
    if rolled_back:             # this step never was
        rolled_back, window_start, window_steps, window_tokens = False, time.time(), 0, 0
        continue

    # 4. log
    if logging:
        dt = (time.time() - window_start) / window_steps
        eta = dt * (max_steps - step)
        say(f'step {step:>6}/{max_steps} | loss: {loss:.4f} | lr: {lr:.2e} | gnorm: {norm:.2f} | '
            f'{dt * 1000:.0f} ms | {window_tokens / window_steps / dt:,.0f} tok/s | eta '
            f'{int(eta // 60)}m{int(eta % 60):02d}s')
        log_metrics(step=step, tokens=tokens_seen, loss=loss, lr=lr, grad_norm=norm, dt=dt,
                    tok_s=window_tokens / window_steps / dt, trained=n_all, update_ratio=update_ratio,
                    skipped=skipped, memory_mb=memory_mb(), eval_share=eval_s / (time.time() - start_time))
        window_start, window_steps, window_tokens = time.time(), 0, 0

# --- summary ------------------------------------------------------------------------------------------------
if step < max_steps:
    say(f'stopped at step {step}, as asked; {last_path} is saved; go on: same command with '
        '--init_from=resume')
else:
    say(f'done in {(time.time() - start_time) / 60:.1f} minutes, lowest val_loss {best_val:.4f}; all is in '
        f'{out_dir}')
    say(f'next: python sample.py --ckpt={out_dir} --chat=True\n      python eval.py --ckpt={out_dir} '
        '--tasks=problems --allow_code_execution=True')
# --- leaving: same text in train.py, sft.py, dpo.py ---
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)                 # torch's threads sometimes abort when the interpreter takes them down
# --- end leaving ---
