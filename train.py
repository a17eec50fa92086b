"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                            # minutes on a laptop
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py config/quickstart.py --init_from=resume          # go on where it stopped, bit for bit

Reads data_dir, made by prepare.py. Writes out_dir: last.pt (all that is needed to go on), best.pt (the
weights with the lowest validation loss), config.json, tokenizer.json, data.json (the data's meta.json),
metrics.jsonl, train.log, samples.txt. The folder is complete: zip it and use it anywhere.

You should see a first loss near ln(vocab_size), a fast fall during the warm-up and a slow one after it, and a
validation loss close to the training loss for as long as the data are not repeated often.

Two rules make runs exact. The batch and the dropout of a step follow from (seed, step, rank) alone, so there
is no random state to save and a resumed run is the straight run. And batch_size counts the sequences of a
step over all devices and all accumulation, so the same config is the same training on one device or on
eight, up to rounding.

The decision made here is the objective: predict the next token (causal language modelling), which is what
completing code asks for.
"""
import ast, contextlib, dataclasses, glob, json, math, os, re, shutil, signal, sys, time, warnings
import numpy as np
import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map
from configurator import configure
from parts import planner
from parts.data import Stream, open_bins, sequence_starts, sequences
from parts.objectives import IGNORE, document_starts, hide_spans, hide_tokens, span_lengths
from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from tokenizer import Tokenizer

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

# --- settings -----------------------------------------------------------------------------------------------
# files
data_dir = 'data/quickstart'    # made by prepare.py
out_dir = 'out/base'
init_from = 'scratch'           # or resume: go on with out_dir/last.pt; or a folder: its weights, from step 0
overwrite = False               # True: start over in an out_dir that holds a run, and delete it
extend_vocab = False            # init_from=FOLDER: take its weights over to another tokenizer
replay_dir: str | None = None   # data of before, with the same tokenizer, against forgetting
replay = 0.1                    # share of each step's sequences that comes from replay_dir
streaming: str | None = None    # folder or glob of .jsonl(.gz) shards, read instead of train.bin
shuffle = True                  # visit the blocks of train.bin in random order; a stream cannot
# objective
objective = 'clm'               # clm: the next token; mlm: masked tokens, both directions; span: hidden spans
document_mask = False           # clm: attention within a document only, positions begin anew in each
label_smoothing = 0.0           # share of a target's probability that is given to all tokens alike
focal = 0.0                     # loss times (1 - p)^focal: what is known counts less
# model (GPTConfig in model.py)
n_layer = 6
n_head = 6                      # query heads; n_embd / n_head is the head width, 32 to 128 is usual
n_kv_head = 0                   # key/value heads; 0 = n_head; fewer make the generation cache smaller
n_embd = 192
n_ffn = 0                       # hidden width of the MLP; 0 = 8/3 n_embd
block_size = 256                # context, tokens
vocab_size = 0                  # 0 = that of the data's tokenizer
dropout = 0.0                   # 0.1 to 0.2 when the data are repeated many times
# optimisation
batch_size = 32                 # sequences per step, over all devices and accumulation
micro_batch_size = 0            # sequences per device and forward pass; 0 = all; lower it to save memory
max_steps = 1000
optimizer = 'adamw'             # or muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 1e-3            # peak; the larger the model, the lower
lr_width = 0                    # n_embd that learning_rate is for: scaled by 1/sqrt(n_embd); 0 = off
min_lr: float | None = None     # where the schedule ends; None = learning_rate / 10
warmup_steps = 100              # linear rise; 1 % to 10 % of max_steps
schedule = 'cosine'             # or wsd: warm up, stay, and fall linearly in the last decay_steps
decay_steps = 0                 # of wsd; 0 = a fifth of max_steps
weight_decay = 0.1              # of matrices only
beta1 = 0.9
beta2 = 0.95                    # 0.999 would average squared gradients over 1,000 steps: too slow
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 250             # steps; also before the first and after the last
eval_tokens = 65_536            # validation tokens per evaluation, always the same ones; eval.py measures all
save_interval = 250             # steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
sample_tokens = 100             # of each sample
num_samples = 8                 # samples.txt shows the first; all count for `repetition` and `parse_rate`
# safety
save_minutes = 0.0              # save also when so many minutes have passed since; 0 = off
keep = 2                        # checkpoints to go on from: last.pt and, should that be damaged, last-1.pt
spike_z = 8.0                   # a spike is so many deviations above the last spike_window steps; 0 = off
spike_window = 100              # steps
spike_action = 'skip'           # or rollback: to last.pt, with half the learning rate; or log: go on
inject = ''                     # to practise: nan@50,spike@80,badbatch@60,slowdata@30,kill@120
show_batch: int | None = None   # print the documents of this step's batch, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # of matrix products: float32, bfloat16, float16; auto = bfloat16 if native
compile: bool | None = None     # torch.compile; None = on CUDA
shard = 'ddp'                   # what each process holds a part of: ddp: nothing; zero1: the optimizer's
                                # state; fsdp: weights and gradients too, a block's gathered when it works
grad_checkpoint = False         # keep each block's input, compute the rest again: less memory, more time
seed = 1337
config = configure(globals())

for _name in ('max_steps', 'batch_size', 'log_interval', 'eval_interval', 'save_interval', 'sample_tokens',
              'num_samples'):
    if config[_name] < 1:
        raise ValueError(f'{_name}={config[_name]} must be at least 1')
for _name, _choices in (('optimizer', 'adamw muon'), ('schedule', 'cosine wsd'),
                        ('objective', 'clm mlm span'), ('spike_action', 'skip rollback log'),
                        ('shard', 'ddp zero1 fsdp')):
    if config[_name] not in _choices.split():
        raise ValueError(f'{_name}={config[_name]!r} must be one of: {_choices.replace(" ", ", ")}')
if lr_width and init_from not in ('scratch', 'resume'):
    raise ValueError(f'lr_width={lr_width} scales by n_embd={n_embd}, but the width is that of {init_from}; '
                     'set the --learning_rate itself')
if lr_width:        # activations add up over n_embd terms, so steps must shrink with its root
    learning_rate *= math.sqrt(lr_width / n_embd)
if min_lr is None:
    min_lr = learning_rate / 10
if schedule == 'cosine':
    decay_steps = max_steps - warmup_steps
decay_steps = decay_steps or max_steps // 5
if not 0 <= min_lr <= learning_rate:
    raise ValueError(f'min_lr={min_lr} must be between 0 and learning_rate={learning_rate}')
if not 0 <= warmup_steps <= max_steps:
    raise ValueError(f'warmup_steps={warmup_steps} must be between 0 and max_steps={max_steps}')
if not 0 <= decay_steps <= max_steps - warmup_steps:
    raise ValueError(f'decay_steps={decay_steps} must be between 0 and max_steps - warmup_steps = '
                     f'{max_steps - warmup_steps}')
for _name in ('learning_rate', 'weight_decay', 'grad_clip', 'micro_batch_size', 'eval_tokens'):
    if config[_name] < 0:
        raise ValueError(f'{_name}={config[_name]} must not be negative')
if not 0 <= label_smoothing < 1 or focal < 0:
    raise ValueError(f'label_smoothing={label_smoothing} must be in [0, 1), focal={focal} not negative')
if document_mask and objective != 'clm':
    raise ValueError(f'document_mask is for --objective=clm, not {objective}')
drills = {}                     # {step: accident}
for _item in filter(None, inject.split(',')):
    _kind, _, _step = _item.partition('@')
    if _kind not in ('nan', 'spike', 'badbatch', 'slowdata', 'kill') or not _step.isdigit():
        raise ValueError(f'inject={inject}: {_item!r} must look like nan@50; there are nan, spike, badbatch, '
                         'slowdata, kill')
    drills[int(_step)] = _kind
if keep < 1 or spike_window < 30 or spike_z < 0 or save_minutes < 0:
    raise ValueError(f'keep={keep} must be at least 1, spike_window={spike_window} at least 30, '
                     f'spike_z={spike_z} and save_minutes={save_minutes} not negative')
if show_batch is not None and show_batch < 0:
    raise ValueError(f'show_batch={show_batch} must not be negative')
if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and 0 <= seed < 2 ** 32):
    raise ValueError(f'beta1={beta1} and beta2={beta2} must be in [0, 1), seed={seed} in [0, 2^32)')

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

sharded = shard == 'fsdp' and world > 1         # what costs a second to import is imported where it is used
if sharded and scaler.is_enabled():
    raise ValueError('shard=fsdp does not go with dtype=float16, whose scale the shards would have to agree '
                     'on; use --dtype=bfloat16 or --dtype=float32')
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

# --- data ---------------------------------------------------------------------------------------------------
meta, bins = open_bins(data_dir, block_size, ('train', 'val') if streaming is None else ('val',))
tokenizer = Tokenizer.load(os.path.join(data_dir, 'tokenizer.json'))
if tokenizer.hash != meta['tokenizer_hash']:
    raise ValueError(f'{data_dir}: tokenizer.json has hash {tokenizer.hash}, the bins were made with '
                     f'{meta["tokenizer_hash"]}; run prepare.py again')
if vocab_size not in (0, tokenizer.vocab_size):
    raise ValueError(f'vocab_size={vocab_size}, but the data in {data_dir} have {tokenizer.vocab_size}; '
                     f'leave it at 0, or prepare them with --vocab_size={vocab_size}')
vocab_size = tokenizer.vocab_size
token_bytes = np.array(tokenizer.text_bytes)                            # for bits per byte
mixed = meta.get('sources', {}) if len(meta.get('sources', {})) > 1 and streaming is None else {}
begins = [source['begins'] for source in mixed.values()]                # in train.bin
for _name in mixed:
    path = os.path.join(data_dir, f'val_{_name}.bin')
    if os.path.getsize(path) > (block_size + 1) * np.dtype(meta['dtype']).itemsize:
        bins[f'val_{_name}'] = np.memmap(path, meta['dtype'], mode='r')
n_replay = 0                    # sequences of a step
if replay_dir is not None:
    replay_meta, replay_bins = open_bins(replay_dir, block_size, ('train',))
    bins['replay'], n_replay = replay_bins['train'], round(batch_size * replay)
    if replay_meta['tokenizer_hash'] != tokenizer.hash or not 0 < n_replay < batch_size or streaming:
        raise ValueError(f'replay_dir={replay_dir} needs data of the same tokenizer, no stream, and a replay '
                         f'between 0 and 1 that makes 1 to {batch_size - 1} sequences, not {n_replay}')
n_train, shards = meta['tokens']['train'], []                           # shards of a stream
if streaming is not None:       # each process reads shards of its own
    pattern = os.path.join(glob.escape(streaming), '*') if os.path.isdir(streaming) else streaming
    shards = sorted(p for p in glob.glob(pattern) if p.removesuffix('.gz').endswith(('.jsonl', '.json')))
    if len(shards) < world:
        raise ValueError(f'streaming={streaming} has {len(shards)} shards (.jsonl or .json, also .gz), '
                         f'{world} processes need one each; prepare.py --write=text makes them')
end_of_text, mask_id = tokenizer.special.get('<|endoftext|>', -1), tokenizer.special.get('<|mask|>', -1)
sentinels = [id for name, id in tokenizer.special.items() if name.startswith('<|span_')]
if (objective == 'mlm' and mask_id < 0) or (objective == 'span' and not sentinels) or \
        (document_mask and end_of_text < 0):
    raise ValueError(f'objective={objective}, document_mask={document_mask}: the tokenizer of {data_dir} has '
                     'no special tokens for that; prepare several documents, or with --tokenizer=bpe')
n_text = span_lengths(block_size)[0] if objective == 'span' else block_size     # tokens of text in a sequence


def carry_over(weight, old, new):
    """Embeddings for another tokenizer's vocabulary, (V_new, C): a token of the old one keeps its row, any
    other begins as the mean of the rows of the old tokens that spell it, a new special token as the mean of
    all: near what it will have to be."""
    ids = {token: i for i, token in enumerate(old.all_bytes)}
    rows = []
    for token in new.all_bytes:
        text = token.decode('utf-8', 'replace')
        spelled = [ids[token]] if token in ids else [] if text in new.special else \
            old.encode(text) if '\ufffd' not in text else [ids[bytes([b])] for b in token]
        rows.append(weight[spelled].mean(0) if spelled else weight.mean(0))
    return torch.stack(rows)


def starts_of(step):
    """Where the sequences of a step begin, (batch_size,): the first n_replay of them in bins['replay']."""
    if streaming is not None:
        return np.arange(batch_size)
    new = sequence_starts(step, batch_size - n_replay, n_train, n_text, seed, shuffle)
    if not n_replay:
        return new
    old = sequence_starts(step, n_replay, len(bins['replay']), n_text, seed, shuffle)
    return np.concatenate([old, new])


def load_batch(side, starts, step, rows):
    """What model.forward takes: inputs and targets, int64 (B, T), and for some objectives mask and positions.
    rows: the numbers of these sequences in the global batch. From a stream, as many as there are starts."""
    if side == 'train' and streaming is not None:
        x, y = stream.take(len(starts))
    else:
        k = max(0, n_replay - rows[0]) if side == 'train' else 0
        parts = [sequences(bins[s], part, n_text) for s, part in (('replay', starts[:k]), (side, starts[k:]))
                 if len(part)]
        x, y = (np.concatenate(p) for p in zip(*parts))
    mask = positions = None
    if objective == 'mlm':
        x, y = hide_tokens(x, seed, step, rows, mask_id, len(tokenizer.vocab))
    elif objective == 'span':
        x, y, n_prefix = hide_spans(x, seed, step, rows, sentinels, block_size)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, None]
        mask[..., :n_prefix, :n_prefix] = True
    elif document_mask:
        document, positions = document_starts(x, end_of_text)
        mask = torch.from_numpy(document[:, None, :, None] == document[:, None, None, :]).tril()
        positions = torch.from_numpy(positions)                                         # mask: (B, 1, T, T)
    batch = [torch.from_numpy(np.ascontiguousarray(a)) for a in (x, y)]
    batch += [a for a in (mask, positions) if a is not None]
    if device_type == 'cuda':       # from pinned memory, the copy does not wait for the GPU
        batch = [a.pin_memory() for a in batch]
    return [a.to(device, non_blocking=True) for a in batch]


if show_batch is not None:
    if streaming is not None:
        raise ValueError('show_batch: a stream has no batch by number; prepare bins to look at it')
    shown = load_batch('train', starts_of(show_batch), show_batch, range(batch_size))[0]
    for row, x in enumerate(shown.tolist()):
        print(f'--- step {show_batch}, sequence {row} of {batch_size}\n{tokenizer.decode(x)}')
    sys.exit(0)

# --- model, optimizer, resume -------------------------------------------------------------------------------
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
step, best_val, state = 0, math.inf, {}
torch.manual_seed(seed)
if init_from == 'scratch':
    model = GPT(GPTConfig(vocab_size, block_size, n_layer, n_head, n_kv_head, n_embd, n_ffn, dropout,
                          causal=objective != 'mlm')).to(device)
elif init_from == 'resume':
    older = [p for p in (os.path.join(out_dir, f'last-{i}.pt') for i in range(1, 100)) if os.path.exists(p)]
    for path in [last_path, *older]:
        try:
            model, state = load_checkpoint(path, device)
            break
        except (ValueError, FileNotFoundError) as e:
            if not older or path == older[-1]:
                raise
            print(f'{e}\ngoing on from an older checkpoint')
    if 'data_sha256' not in state:
        raise ValueError(f'{last_path} was not written by train.py; resume with the script that wrote it')
    for k in ('n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'block_size', 'dropout', 'objective',
              'optimizer'):
        if config[k] != state['config'].get(k, config[k]):
            raise ValueError(f'{last_path} has {k}={state["config"][k]}, this run has {config[k]}; resume '
                             "with the run's own settings, or choose another --out_dir")
    vocab_size = model.config.vocab_size        # a run that began from a folder has the architecture of that
    if state['data_sha256'] != meta['sha256']['train']:
        raise ValueError(f'{data_dir}/train.bin is not what {last_path} was trained on; resume with that, '
                         f'or start from its weights: --init_from={out_dir} and another --out_dir')
    state = {'shards': [], 'stream': [], 'optimizers': [state.get('optimizer')]} | state  # of before
    if state['shards'] != [os.path.basename(p) for p in shards] or len(state['stream']) not in (0, world):
        raise ValueError(f'{last_path} comes from {len(state["shards"])} shards and {len(state["stream"])} '
                         f'processes, this run has {len(shards)} and {world}: a stream must go on as it was')
    step, best_val = state['step'], state['best_val']
else:                           # the architecture is that of the checkpoint; dropout is a matter of this run
    source, state = load_checkpoint(init_from, device)
    beside = os.path.join(folder, 'tokenizer.json')
    its = Tokenizer.load(beside) if extend_vocab or not state and os.path.exists(beside) else None
    if its and not state:       # of Hugging Face: perhaps without tokens for chat
        source = source.grown(its.vocab_size)
        state = {'tokenizer_hash': its.hash}
        if its.hash == tokenizer.hash and not extend_vocab:     # it may have rows that no token has
            vocab_size = source.config.vocab_size
    if extend_vocab:
        weights = source.state_dict()
        weights['embedding.weight'] = carry_over(weights['embedding.weight'], its, tokenizer)
        weights['head.weight'] = weights['embedding.weight'] if source.config.tie_embeddings else \
            carry_over(weights['head.weight'], its, tokenizer)
        source = GPT(dataclasses.replace(source.config, vocab_size=vocab_size)).to(device)
        source.load_state_dict(weights)
        state = {}
    if source.config.vocab_size != vocab_size:
        raise ValueError(f'{init_from} has vocab_size={source.config.vocab_size}, {data_dir} has '
                         f'{vocab_size}; prepare it with --tokenizer={init_from}/tokenizer.json, or take the '
                         'weights over with --extend_vocab=True')
    if source.config.block_size < block_size:
        raise ValueError(f'{init_from} has a context of {source.config.block_size} tokens, fewer than '
                         f'block_size={block_size}; set --block_size={source.config.block_size}')
    model = GPT(dataclasses.replace(source.config, dropout=dropout, causal=objective != 'mlm')).to(device)
    model.load_state_dict(source.state_dict())
    del source
if state.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'{init_from} was trained with tokenizer {state["tokenizer_hash"]}, {data_dir} was made '
                     f'with {tokenizer.hash}: their ids mean different text')
if init_from != 'resume':
    state = {}                  # its weights are all that this run takes from another one


def open_stream(position):
    return Stream(shards[rank::world], lambda text: tokenizer.encode_batch([text])[0], end_of_text,
                  block_size, position)


def whole(tree):
    """A state dict as one process would have it: shards are gathered, and kept by the first process only."""
    def gather(t):
        t = getattr(t, 'full_tensor', lambda: t)()                      # all processes take part
        return t if main_process else None
    return tree_map(gather, tree)


def restore(weights, states):
    """Take over a state dict and the optimizers' states as one process has them, whatever `shard` is now."""
    def own(value, p):          # this process's part of it
        return distribute_tensor(value, p.device_mesh, p.placements) \
            if sharded and value.shape == p.shape else value
    with torch.no_grad():
        for name, p in model.state_dict().items():
            p.copy_(own(weights[name], p))
    for o, s in zip(optimizers, states, strict=True):
        params = [p for group in o.param_groups for p in group['params']]
        moments = {i: {k: own(v, params[i]) for k, v in of_one.items()} for i, of_one in s['state'].items()}
        o.load_state_dict({**s, 'state': moments})


def unsharded():
    """The model as one process would have it, in the first process: to sample from and to save."""
    if not sharded:
        return model
    weights = whole(model.state_dict())
    if main_process:
        copy = GPT(model.config).to(device)
        copy.load_state_dict(weights)
        return copy


stream = open_stream(state['stream'][rank] if state else None) if streaming is not None else None
if sharded:                     # ZeRO, stage 3; the root keeps what is no block: embedding, last norm, head
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor
    mesh = init_device_mesh(device_type, (world,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
model.label_smoothing, model.focal, model.grad_checkpoint = label_smoothing, focal, grad_checkpoint
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
if shard == 'zero1' and world > 1:      # ZeRO, stage 1 (arXiv:1910.02054)
    from torch.distributed.optim import ZeroRedundancyOptimizer
    optimizers = [ZeroRedundancyOptimizer(params, kind, **settings) for kind, params, settings in parts]
else:
    optimizers = [kind(params, **settings) for kind, params, settings in parts]
if init_from == 'resume':
    restore(model.state_dict(), state['optimizers'])
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())     # {} without float16


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


def rehearse(net):
    """Seconds for the gradients of one micro-batch, which are thrown away. The first call compiles."""
    rows = np.arange(micro_batch_size)
    starts = rows % (len(bins['val']) - block_size)     # it may be hardly longer than a sequence
    for _ in range(2):
        start = time.time()
        with out_of_memory_advice():
            with autocast:
                loss = net(*load_batch('val', starts, 0, rows))[1]
            loss.backward()
        loss.item()                 # wait for the device
        model.zero_grad(set_to_none=True)
    return time.time() - start


net = model
if compile or (compile is None and device_type == 'cuda'):
    try:
        net = torch.compile(model)
        rehearsed = rehearse(net)
    except ValueError:              # out of memory, with the advice
        raise
    except Exception as e:
        net = model
        model.zero_grad(set_to_none=True)
        print(f'torch.compile failed ({type(e).__name__}): going on without it, more slowly')
compiled = net is not model
if not compiled:
    rehearsed = rehearse(net)
if world > 1 and not sharded:
    device_ids = [device] if device_type == 'cuda' else None
    net = torch.nn.parallel.DistributedDataParallel(net, device_ids=device_ids, gradient_as_bucket_view=True)

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
def evaluate(side='val', n_tokens=eval_tokens):
    """Nats per token and bits per byte on n_tokens of bins[side]: fixed blocks, spread evenly, shared by the
    processes. Draws nothing random, so how often one evaluates does not change the training."""
    n_blocks = (len(bins[side]) - 1) // block_size
    blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, n_tokens // block_size))).astype(np.int64)
    mine = blocks[rank::world] * block_size
    nats = tokens = n_bytes = 0
    model.eval()
    for i in range(0, math.ceil(len(blocks) / world), micro_batch_size):
        starts = mine[i:i + micro_batch_size]
        idle = len(starts) == 0                                 # takes part, as fsdp needs all, and counts 0
        starts = blocks[:1] if idle else starts
        batch = load_batch(side, starts, 2 ** 40, starts)       # the same tokens are hidden each time
        with autocast:
            loss = model(*batch)[1]
        scored = batch[1][batch[1] != IGNORE].cpu().numpy()[:0 if idle else None]
        nats += loss.item() * len(scored)
        tokens += len(scored)
        n_bytes += int(token_bytes[scored].sum())
    model.train()
    nats, tokens, n_bytes = all_sum(nats, tokens, n_bytes)
    return nats / tokens, nats / math.log(2) / max(1, n_bytes)


def samples(model):
    """What the model writes now, num_samples texts; of hidden tokens, what it takes them for, one text."""
    torch.manual_seed(seed)     # the same dice each time: what differs is the model
    if objective != 'clm':
        batch = load_batch('val', np.zeros(1, np.int64), 2 ** 40, [0])
        model.eval()
        with torch.no_grad(), autocast:
            said = model(*batch)[0].argmax(-1)[batch[1] != IGNORE].tolist()
        model.train()
        return ['\n'.join(f'{tokenizer.decode([a])!r} -> {tokenizer.decode([b])!r}' for a, b in zip(
            batch[1][batch[1] != IGNORE].tolist(), said))]
    prompt = tokenizer.encode(sample_prompt) or [tokenizer.special.get('<|endoftext|>', int(bins['val'][0]))]
    with autocast:
        prompts = torch.tensor([prompt] * num_samples, device=device)                   # (num_samples, T)
        ids = model.generate(prompts, sample_tokens, temperature=0.8, top_k=50)
    return [tokenizer.decode(row[0 if sample_prompt else 1:]) for row in ids.tolist()]


def repetition(texts, n=4):
    """The share of n-grams of words that the same text has had before: 0.9 and more is a model that turns in
    circles. repetition(['a b c d a b c d']): 1 of 5."""
    grams = [[tuple(words[i:i + n]) for i in range(len(words) - n + 1)] for words in map(str.split, texts)]
    return sum(len(g) - len(set(g)) for g in grams) / max(1, sum(map(len, grams)))


def parse_rate(texts):
    """The share of texts whose whole top-level statements, without the last, which the end may have cut, are
    Python; text that has no such statement is none."""
    good = 0
    for text in texts:
        whole = text[:max([m.start() for m in re.finditer(r'\n(?=[^\s#)\]}])', text)], default=0)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')                         # of odd escapes in strings
                good += len(ast.parse(whole).body) > 0
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return good / len(texts)


def save_last():
    positions, weights = [None] * world, unsharded()
    states = [whole(o.state_dict()) for o in optimizers] if sharded else []
    for o in optimizers if shard == 'zero1' and world > 1 else ():
        o.consolidate_state_dict(to=0)
    if streaming is not None and world > 1:
        dist.all_gather_object(positions, stream.state)
    elif streaming is not None:
        positions = [stream.state]
    if main_process:
        states = states or [o.state_dict() for o in optimizers]
        save_checkpoint(f'{last_path}.new', weights, step=step, best_val=best_val, skipped=skipped,
                        seen=seen.tolist(), window=window, vals=vals, lr_scale=lr_scale,
                        bad_steps=sorted(bad_steps),
                        optimizers=states, scaler=scaler.state_dict(),
                        tokenizer_hash=tokenizer.hash, data_sha256=meta['sha256']['train'], config=config,
                        stream=positions if streaming else [],
                        shards=[os.path.basename(p) for p in shards])
        names = [last_path] + [os.path.join(out_dir, f'last-{i}.pt') for i in range(1, keep)]
        for older, newer in zip(names[:0:-1], names[-2::-1]):       # last.pt -> last-1.pt -> last-2.pt
            if os.path.exists(newer):
                os.replace(newer, older)
        os.replace(f'{last_path}.new', last_path)


def roll_back():
    """To the last checkpoint, with half the learning rate; the step that spiked will be skipped."""
    global step, stream, window, lr_scale, rolled_back, seen
    bad_steps.add(step)
    model_then, then = load_checkpoint(last_path, device)
    restore(model_then.state_dict(), then['optimizers'])
    seen = np.array(then['seen'])
    if streaming is not None:
        stream = open_stream(then['stream'][rank])
    lr_scale /= 2
    note('rollback', f'back to step {then["step"]}, learning rate x {lr_scale:g} from now on')
    step, window, rolled_back = then['step'] - 1, then['window'], True


def diagnose(vals, loss, ln_v, step, warmup, max_steps):
    """What a series of [step, validation loss] and the training loss now say: (event, advice), or None."""
    if step >= max(200, 2 * warmup) and vals[-1][1] > ln_v - 0.5:
        return 'stuck', (f'val_loss {vals[-1][1]:.2f} is still near ln V = {ln_v:.2f}: too little data, a '
                         'learning rate too low or too high (look at gnorm), or a model too small')
    last = [v for _, v in vals[-4:]]
    if len(last) == 4 and last[0] < last[1] < last[2] < last[3]:
        return ('memorising', 'val_loss rises while the training loss falls: more data, dropout, or stop; '
                'best.pt has kept the best') if loss < last[0] else \
            ('drift', 'both losses creep up: the order of the data or the numerics; try --dtype=float32, and '
             'look at the documents with --show_batch')
    if len(last) == 4 and max(last) - min(last) < 0.002 * last[0] and step < 0.8 * max_steps:
        return 'plateau', 'val_loss has not moved for four evaluations: a higher or lower rate, or other data'
    return None


# --- what is about to happen --------------------------------------------------------------------------------
tokens_per_step = batch_size * block_size
new_per_step = (batch_size - n_replay) * n_text         # of this data
epochs = max_steps * new_per_step / max(1, n_train)
n_parameters, n_block = (sum(p.numel() for p in m.parameters()) for m in (model, model.blocks[0]))
say(f'resumed at step {step}' if init_from == 'resume' else f'starting from {init_from}')
say(f'  data     {streaming or data_dir}: {n_train:,} training tokens, {len(bins["val"]):,} for validation')
say(f'  model    {n_parameters:,} parameters, {n_block:,} per block; vocabulary {vocab_size:,}')
say(f'  machine  {world} x {device_type}, {dtype}, {"compiled" if compiled else "not compiled"}')
say(f'  step     {batch_size} sequences x {block_size} = {tokens_per_step:,} tokens = {world} processes x '
    f'{per_rank // micro_batch_size} accumulated x {micro_batch_size} sequences at once')
minutes = (max_steps - step) * (per_rank // micro_batch_size) * rehearsed / 60
say(f'  plan     {max_steps:,} steps = {max_steps * tokens_per_step:,} tokens = {epochs:.2f} epochs of '
    f'{n_train / new_per_step:,.0f} steps; about {minutes:,.1f} minutes, and what evaluating takes')
say(f'  rates    learning rate to {learning_rate:g} in {warmup_steps} steps, then down to {min_lr:g}; clip '
    f'{grad_clip:g}')
if init_from == 'scratch':
    say(f'  expect   a first loss near ln {vocab_size} = {math.log(vocab_size):.4f}')
for name, source in mixed.items():
    times = source['epochs'] * epochs
    say(f'  source   {name}: {source["mixed"] / n_train:.1%} of the tokens, read {times:.2f} times'
        + ', and beyond 4 that helps ever less' * (times > 4))
if epochs > 4:      # Muennighoff et al. 2023, arXiv:2305.16264
    say(f'  note     the data are read {epochs:.0f} times; beyond about 4 that helps ever less: watch '
        'val_loss')
need = (12 * (keep + 1) + 8) * n_parameters     # weights and moments, once more while saving; so best.pt
if main_process and (free := shutil.disk_usage(out_dir).free) < need:
    raise ValueError(f'{out_dir} has {free / 1e9:.2f} GB free, the checkpoints need {need / 1e9:.2f}; make '
                     'room, choose another --out_dir, or --keep=1')
watching = ('data_dir', 'out_dir', 'init_from', 'overwrite', 'log_interval', 'eval_interval', 'eval_tokens',
            'save_interval', 'sample_prompt', 'sample_tokens', 'num_samples', 'save_minutes', 'keep',
            'micro_batch_size', 'grad_checkpoint', 'shard', 'extend_vocab')   # change nothing in the training
for k, v in state.get('config', {}).items():
    if config.get(k, v) != v and k not in watching:
        say(f'  note     {k} was {v}, is now {config[k]}: the run goes on, but not as the straight run would')
if main_process:
    shutil.copyfile(os.path.join(data_dir, 'tokenizer.json'), os.path.join(out_dir, 'tokenizer.json'))
    shutil.copyfile(os.path.join(data_dir, 'meta.json'), os.path.join(out_dir, 'data.json'))

device_name = torch.cuda.get_device_name(device) if device_type == 'cuda' else ''
n_flops = planner.flops_per_token(dataclasses.asdict(model.config), block_size)
peak = planner.peak_flops(device_name)      # None: no MFU is claimed

# --- the loop -----------------------------------------------------------------------------------------------
first_step, skipped, skipped_in_a_row = step, state.get('skipped', 0), 0
window, vals = state.get('window', []), state.get('vals', [])      # [loss, gradient norm]; [step, val_loss]
eval_s = data_s = save_s = 0.0
last_save = time.time()
lr_scale, bad_steps = state.get('lr_scale', 1.0), set(state.get('bad_steps', []))       # after a rollback
stopping = rolled_back = False              # what the processes have agreed on
seen = np.array(state.get('seen') or [0] * len(mixed))                  # sequences of each source
probe = model.blocks[len(model.blocks) // 2].mlp.w_down.weight.detach()  # how much does an update change it?
documents = tokenizer.decode(bins['val'][:100_000].tolist()).split('<|endoftext|>')[:4]
is_code = parse_rate(documents) >= 0.5
start_time = window_start = time.time()
window_steps = 0                # since the last log line
model.train()
while True:
    # 1. evaluate; a resumed run has the evaluation of its first step behind it
    if (step % eval_interval == 0 or step == max_steps) and (step > first_step or step == 0):
        began = time.time()
        val_loss, val_bpb = evaluate()
        val_ppl = math.exp(min(val_loss, 700))
        say(f'step {step:>6}/{max_steps} | val_loss: {val_loss:.4f} | val_ppl: {val_ppl:.2f} | '
            f'val_bpb: {val_bpb:.4f}')
        more = {'shares': dict(zip(mixed, (seen / seen.sum()).round(4).tolist()))} if seen.any() else {}
        sides = [side for side in bins if side.startswith('val_')]
        if sides:
            more['val_bpb_by_source'] = {side[4:]: evaluate(side, eval_tokens // len(sides))[1]
                                         for side in sides}
        now = unsharded()
        if main_process:
            texts = samples(now)
            say(f'--- step {step}, val_loss {val_loss:.4f}\n{texts[0]}\n', 'samples.txt')
            if objective == 'clm':
                more['repetition'] = repetition(texts)
            if objective == 'clm' and is_code:
                more['parse_rate'] = parse_rate(texts)
        log_metrics(step=step, tokens=step * tokens_per_step, val_loss=val_loss, val_ppl=val_ppl,
                    val_bpb=val_bpb, **more)
        if val_loss < best_val and step > 0:
            best_val = val_loss
            if main_process:
                save_checkpoint(best_path, now, step=step, best_val=best_val, tokenizer_hash=tokenizer.hash,
                                config=config)
        vals.append([step, val_loss])
        found = diagnose(vals, window[-1][0] if window else math.inf, math.log(vocab_size), step,
                         warmup_steps, max_steps)
        if found and objective == 'clm':
            note(*found)
        eval_s += time.time() - began
        window_start, window_steps = time.time(), 0         # evaluating is not training time

    # 2. save; stop
    due = all_sum(save_minutes > 0 and time.time() - last_save > 60 * save_minutes)[0] if save_minutes else 0
    if (step % save_interval == 0 or step == max_steps or stopping or due) and step > first_step:
        began = time.time()
        save_last()
        last_save, save_s = time.time(), time.time() - began
    if step >= max_steps or stopping:
        break

    # 3. gradients of the mean loss over the whole global batch
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # dropout follows from (seed, step, rank)
    lr = lr_scale * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    for group in (group for o in optimizers for group in o.param_groups):
        group['lr'] = lr
    starts = starts_of(step)
    if mixed:
        seen += np.bincount(np.searchsorted(begins, starts[n_replay:], 'right') - 1, minlength=len(mixed))
    starts = starts[rank * per_rank:(rank + 1) * per_rank]
    rows, began = range(rank * per_rank, (rank + 1) * per_rank), time.time()
    batches = [load_batch('train', starts[i:i + micro_batch_size], step, rows[i:i + micro_batch_size])
               for i in range(0, per_rank, micro_batch_size)]
    accident = drills.pop(step, None)
    if accident == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if accident == 'slowdata':
        time.sleep(3)
    if accident == 'badbatch':      # noise instead of text
        for x, y, *_ in batches:
            x.random_(0, vocab_size)
            y.random_(0, vocab_size)
    data_s += time.time() - began
    if objective == 'clm':          # all are scored, and nothing waits for the GPU to count them
        n_scored, n_all = [batch[1].numel() for batch in batches], tokens_per_step
    else:
        n_scored = [int((batch[1] != IGNORE).sum()) for batch in batches]
        n_all = max(1, all_sum(sum(n_scored))[0])
    loss_sum = 0.0                                                      # over the targets of this process
    for i, (batch, n) in enumerate(zip(batches, n_scored)):
        last = i == len(batches) - 1
        with contextlib.nullcontext() if last or world == 1 or sharded else net.no_sync(), \
                out_of_memory_advice():
            with autocast:
                loss = net(*batch)[1]
            # this part's share of the mean; times world, because DDP divides the sum over processes by it
            scaler.scale(loss * (n / n_all * world)).backward()
            if accident in ('nan', 'spike'):
                model.norm.weight.grad.mul_(math.nan if accident == 'nan' else 1e4)
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
    window_steps += 1
    if rolled_back:             # this step never was
        rolled_back, window_start, window_steps, data_s = False, time.time(), 0, 0.0
        continue

    # 4. log
    if logging:
        dt = (time.time() - window_start) / window_steps
        eta = dt * (max_steps - step)
        say(f'step {step:>6}/{max_steps} | loss: {loss:.4f} | lr: {lr:.2e} | gnorm: {norm:.2f} | '
            f'{dt * 1000:.0f} ms | {tokens_per_step / dt:,.0f} tok/s | eta '
            f'{int(eta // 60)}m{int(eta % 60):02d}s')
        mfu = n_flops * tokens_per_step / dt / world / peak if peak else None
        log_metrics(step=step, tokens=step * tokens_per_step, loss=loss, lr=lr, grad_norm=norm, dt=dt,
                    tok_s=tokens_per_step / dt, mfu=mfu, update_ratio=update_ratio, skipped=skipped,
                    data_s=data_s / window_steps, save_s=save_s, memory_mb=memory_mb(),
                    eval_share=eval_s / (time.time() - start_time))
        window_start, window_steps, data_s = time.time(), 0, 0.0

# --- summary ------------------------------------------------------------------------------------------------
if step < max_steps:
    say(f'stopped at step {step}, as asked; {last_path} is saved; go on: same command with '
        '--init_from=resume')
else:
    say(f'done in {(time.time() - start_time) / 60:.1f} minutes, lowest val_loss {best_val:.4f}; all is in '
        f'{out_dir}')
    gap = " --prompt='a text with a <|mask|> in it'" if objective != 'clm' else ''
    say(f'next: python sample.py --ckpt={out_dir}{gap}')
    if objective == 'clm':
        say(f'      python eval.py --ckpt={out_dir} --data_dir={data_dir}')
    if stream and stream.malformed:
        say(f'note: {stream.malformed} lines or archives of {streaming} could not be read')
# --- leaving: same text in train.py, sft.py, dpo.py ---
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)                 # torch's threads sometimes abort when the interpreter takes them down
# --- end leaving ---
