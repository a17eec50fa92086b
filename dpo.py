"""
Preference optimisation: a model that answers, and pairs of a better and a worse answer -> a model that
prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=out/sft --data_dir=data/pairs --loss_type=simpo --beta=2
    python dpo.py --init_from=resume --out_dir=out/dpo --data_dir=data/pairs     # go on, bit for bit
    python dpo.py --init_from=out/sft --data_dir=data/pairs --loss_type=rm --out_dir=out/reward

Reads init_from, a folder that sft.py wrote, and data_dir/train.jsonl and val.jsonl, lines of {"prompt",
"chosen", "rejected"}, the prompt as text or as messages; for kto also {"prompt", "completion", "label":
true or false}. Writes out_dir as train.py does. The reference is init_from itself: its log-probabilities
are computed once and kept in data_dir, so that only one model is in memory.

You should see a first loss of ln 2 (dpo), because policy and reference are still the same, or the run is
refused; then accuracy and margin rise. And, in many a run, BOTH rewards fall. Why? The loss asks for a
difference only: to push a bad answer down by 5 and the good one by 2 serves it as well as to raise the good
one, and since the two share most of their tokens, pushing one pushes the other. The probability goes to
answers that nobody compared. nll_weight holds the good answers up (Pang et al. 2024, arXiv:2404.19733):
without it, small models unlearn to answer; try --nll_weight=0 and read samples.txt.

What preference data make: helpful, harmless and honest answers are what people were asked to prefer. RLHF
fits a reward model to their choices (--loss_type=rm) and lets the policy maximise it by PPO, minus a KL
penalty; DPO solves that same problem in closed form, so that a classification loss is left. PPO samples
anew at each step, DPO learns from a fixed set: sampling again from the new model, round after round, is
the cheap half of the difference.
"""
import contextlib, dataclasses, functools, glob, hashlib, json, math, os, shutil, signal, sys, time
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from configurator import configure
from parts.data import batches_by_length
from model import IGNORE, GPT, load_checkpoint, save_checkpoint
from tokenizer import Tokenizer

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/sft'           # policy and reference: a run's folder; or resume: go on in out_dir
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from prepare.py --kind=preference
out_dir = 'out/dpo'
overwrite = False               # True: start over in an out_dir that holds a run, and delete it
# the loss
loss_type = 'dpo'               # dpo, ipo, kto, orpo, simpo; rm: a reward model
beta: float | None = None       # how dear a departure from the reference is; None = 0.1, for simpo 2
label_smoothing = 0.0           # dpo: share of pairs that may be labelled the wrong way round (cDPO)
gamma = 1.0                     # simpo: by how much the better answer has to lead
nll_weight = 1.0                # of -log p(chosen) per token, beside dpo, ipo, kto, simpo; 0 = as published
# optimisation
epochs = 1.0                    # times that each pair is seen
max_steps = 0                   # instead of epochs; 0 = as many as they take
batch_size = 32                 # pairs per step, over all devices and accumulation
micro_batch_size = 0            # pairs per device and forward pass; 0 = all; lower it to save memory
block_size = 0                  # tokens of prompt and answer; 0 = the model's context; longer ones are cut
optimizer = 'adamw'             # or muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 3e-5            # for millions of parameters; 5e-7 to 5e-6 for billions
min_lr = 0.0                    # where the schedule ends
warmup_steps = 10
schedule = 'cosine'             # or wsd: warm up, stay, and fall linearly in the last decay_steps
decay_steps = 0                 # of wsd; 0 = a fifth of max_steps
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 0               # steps; 0 = each epoch; also before the first and after the last
eval_pairs = 512                # of val.jsonl, the first ones, always the same
save_interval = 250             # steps
num_samples = 8                 # held-out prompts that are answered at each evaluation: samples.txt
sample_tokens = 100             # of an answer, at most
# safety
spike_z = 8.0                   # a spike is so many deviations above the last spike_window steps; 0 = off
spike_window = 100              # steps
spike_action = 'skip'           # or rollback: to last.pt, with half the learning rate; or log: go on
show_batch: int | None = None   # print the pairs of this step's batch, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # of matrix products: float32, bfloat16, float16; auto = bfloat16 if native
compile = False                 # torch.compile; lengths vary, so it compiles several times
grad_checkpoint = False         # keep each block's input, compute the rest again: less memory, more time
seed = 1337
config = configure(globals())
config['stage'] = 'dpo'         # eval.py and sample.py ask by conversation

for _name in ('batch_size', 'log_interval', 'save_interval', 'eval_pairs', 'num_samples', 'sample_tokens'):
    if config[_name] < 1:
        raise ValueError(f'{_name}={config[_name]} must be at least 1')
for _name in ('epochs', 'max_steps', 'micro_batch_size', 'block_size', 'learning_rate', 'min_lr',
              'warmup_steps', 'decay_steps', 'weight_decay', 'grad_clip', 'eval_interval', 'spike_z', 'gamma',
              'nll_weight'):
    if config[_name] < 0:
        raise ValueError(f'{_name}={config[_name]} must not be negative')
for _name, _choices in (('optimizer', 'adamw muon'), ('schedule', 'cosine wsd'),
                        ('spike_action', 'skip rollback log'), ('loss_type', 'dpo ipo kto orpo simpo rm')):
    if config[_name] not in _choices.split():
        raise ValueError(f'{_name}={config[_name]!r} must be one of: {_choices.replace(" ", ", ")}')
if beta is None:
    beta = config['beta'] = 2.0 if loss_type == 'simpo' else 0.1
if show_batch is not None and show_batch < 0:
    raise ValueError(f'show_batch={show_batch} must not be negative')
if beta <= 0:
    raise ValueError(f'beta={beta} must be more than 0, for instance 0.1')
if not 0 <= label_smoothing < 0.5 or (label_smoothing and loss_type != 'dpo'):
    raise ValueError(f'label_smoothing={label_smoothing} must be in [0, 0.5), and goes with loss_type=dpo, '
                     f'not {loss_type}')
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


# --- the losses ---------------------------------------------------------------------------------------------
def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len, rejected_len,
                    loss_type, beta, label_smoothing=0.0, gamma=1.0, kl=0.0):
    """Losses and the rewards of both answers, float32 (B,) each, for B pairs. policy_*, ref_*: log p of an
    answer, in nats, summed over its tokens (of rm: its score); *_len: how many these are; 0 where kto has no
    such answer. kl: kto's estimate of beta KL(policy | reference), a number.

    With r = log p - log p_ref for each of the two, and s = log sigmoid:
    dpo    -s(beta (r_c - r_r)); smoothed: a share of the pairs counted the other way round, cDPO. Rafailov et
           al. 2023, arXiv:2305.18290, eq. 7; sums over tokens, because p of an answer is a product.
    ipo    (r_c - r_r - 1 / (2 beta))^2. Azar et al. 2023, 2310.12036, eq. 17. Sums. A target instead of an
           ever larger margin: pairs that always agree do not drive beta's effect to nothing.
    kto    1 - sigmoid(beta r_c - kl)  and  1 - sigmoid(kl - beta r_r), each alone. Ethayarajh et al. 2024,
           2402.01306, eq. 8, with both weights 1; the mean of the two where a pair has both. Sums.
    orpo   -m_c - beta s(log odds_c - log odds_r), with m = log p / length, odds = e^m / (1 - e^m). Hong et
           al. 2024, 2403.07691, eq. 6. No reference: the first term, SFT's, holds it. Means per token, or
           every answer's p would be near 0 and the odds its p.
    simpo  -s(beta m_c - beta m_r - gamma). Meng et al. 2024, 2405.14734, eq. 6. No reference; means, as in
           generation, so that a long answer does not lose, nor win, by its length.
    rm     -s(score_c - score_r). Bradley and Terry 1952; for language models 2203.02155, eq. 1."""
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = (
        x.float() for x in (policy_chosen, policy_rejected, ref_chosen, ref_rejected))
    ratio_chosen, ratio_rejected = policy_chosen - ref_chosen, policy_rejected - ref_rejected
    mean_chosen, mean_rejected = policy_chosen / chosen_len.clamp(min=1), \
        policy_rejected / rejected_len.clamp(min=1)
    rewards = beta * ratio_chosen, beta * ratio_rejected
    if loss_type == 'dpo':
        margin = rewards[0] - rewards[1]
        losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    elif loss_type == 'ipo':
        losses = (ratio_chosen - ratio_rejected - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        has = (chosen_len > 0).float(), (rejected_len > 0).float()
        losses = (has[0] * (kl - rewards[0]).sigmoid() + has[1] * (rewards[1] - kl).sigmoid()) / sum(has)
    elif loss_type == 'orpo':
        rewards = beta * mean_chosen, beta * mean_rejected
        certain = -1e-6                     # p = 1 has infinite odds
        odds = [m - torch.log(-torch.expm1(m)) for m in (mean_chosen.clamp(max=certain),
                                                         mean_rejected.clamp(max=certain))]
        losses = -mean_chosen - beta * F.logsigmoid(odds[0] - odds[1])
    elif loss_type == 'simpo':
        rewards = beta * mean_chosen, beta * mean_rejected
        losses = -F.logsigmoid(rewards[0] - rewards[1] - gamma)
    elif loss_type == 'rm':
        rewards = policy_chosen, policy_rejected
        losses = -F.logsigmoid(policy_chosen - policy_rejected)
    else:
        raise ValueError(f'loss_type={loss_type} must be dpo, ipo, kto, orpo, simpo or rm')
    return losses, *(r.detach() for r in rewards)


class Scorer(torch.nn.Module):
    """Inputs and targets (N, T) -> (N,) float32: log p of the targets that are not IGNORE, summed; with a
    reward head, what it makes of the hidden state where the answer has ended."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        if not hasattr(self.model, 'reward_head'):
            logits = self.model(x)[0]                                                       # (N, T, V)
            return -F.cross_entropy(logits.transpose(1, 2), y, ignore_index=IGNORE, reduction='none').sum(1)
        at = torch.arange(y.shape[1], device=y.device)
        end = ((y != IGNORE) * at).amax(1) + 1          # where <|im_end|>, the last target, is the input
        hidden = self.model.backbone(x)[torch.arange(len(x), device=x.device), end.clamp(max=at[-1])]
        return self.model.reward_head(hidden).float()[:, 0]


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
if tokenizer.vocab_size > model.config.vocab_size:
    raise ValueError(f'{init_from} has never seen <|im_start|> and <|im_end|>; fine-tune it first: python '
                     f'sft.py --init_from={init_from}')
if not model.config.causal:
    raise ValueError(f'{init_from} was trained to name masked tokens: it cannot answer; --objective=clm can')
block_size = block_size or model.config.block_size
if block_size > model.config.block_size:
    raise ValueError(f'block_size={block_size} is more than the context of {init_from}, '
                     f'{model.config.block_size} tokens')
weights = model.state_dict()
model = GPT(dataclasses.replace(model.config, dropout=0.0)).to(device)      # or policy and reference differ
model.load_state_dict(weights)
model.grad_checkpoint = grad_checkpoint
pad = tokenizer.special.get('<|pad|>', 0)


# --- data ---------------------------------------------------------------------------------------------------
def fit(prompt, answer, T):
    """Prompt and answer, ids, of at most T + 1 tokens together: too much is cut on the prompt's left, and on
    the answer's right only if a quarter of the context, left for the prompt, is not enough."""
    keep = max(T + 1 - len(answer), (T + 1) // 4, 1)
    prompt = prompt[-keep:] if len(prompt) > keep else prompt
    return prompt, answer[:T + 1 - len(prompt)]


def read_pairs(path, T):
    """[(prompt ids, chosen ids, rejected ids)], each answer with its <|im_end|>, or [] where kto's thumb is
    about the other. How many were cut, and how many dropped, because both answers are the same."""
    pairs, n_cut, n_same = [], 0, 0
    try:
        with open(path, encoding='utf-8') as f:
            for number, line in enumerate(f, 1):
                try:
                    record = json.loads(line)
                    asked = record['prompt']
                    asked = asked if isinstance(asked, list) else [{'role': 'user', 'content': asked}]
                    thumb = 'completion' in record
                    said = [record[k] for k in (('completion',) if thumb else ('chosen', 'rejected'))]
                    if not all(isinstance(text, str) for text in said):
                        raise ValueError('an answer is a text')
                    if thumb and record['label'] not in (True, False):
                        raise ValueError('a label is true or false')
                    if thumb and loss_type != 'kto':
                        raise ValueError(f'a thumb up or down is for --loss_type=kto, not {loss_type}')
                    sides = [*said, None][::1 if record['label'] else -1] if thumb else said
                    prompt = tokenizer.render(asked, add_generation_prompt=True)[0]
                    answers = [] if sides[0] == sides[1] else [
                        [] if side is None else tokenizer.render([*asked, {
                            'role': 'assistant', 'content': side}])[0][len(prompt):] for side in sides]
                except (ValueError, KeyError, TypeError) as e:
                    raise ValueError(f'{path}, line {number}: {type(e).__name__}: {e}; a line is {{"prompt", '
                                     '"chosen", "rejected"}: see prepare.py --kind=preference') from e
                if not answers:
                    n_same += 1
                    continue
                fitted = [fit(prompt, answer, T) for answer in answers]
                n_cut += any(len(p) + len(a) < len(prompt) + len(answer)
                             for (p, a), answer in zip(fitted, answers))
                pairs.append((fitted[0], fitted[1]))
    except FileNotFoundError as e:
        raise FileNotFoundError(f'{path} does not exist; make it: python prepare.py --kind=preference '
                                f'--source=FILE --out_dir={data_dir}') from e
    except UnicodeDecodeError as e:
        raise ValueError(f'{path} is not UTF-8 text: {e}') from e
    if not pairs:
        raise ValueError(f'{path} has no pair of two different answers')
    return pairs, n_cut, n_same


def collate(pairs, pad, newline):
    """Pairs -> inputs and targets, int64 (2 B, T): the chosen answers, then the rejected ones, padded on the
    right. Targets are the answer's tokens up to <|im_end|>, all else IGNORE; newline: how many tokens of the
    frame follow it."""
    rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    T = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    x, y = np.full((len(rows), T), pad), np.full((len(rows), T), IGNORE)
    for row, (prompt, answer) in enumerate(rows):
        ids, scored = [*prompt, *answer], max(0, len(answer) - newline)
        x[row, :len(ids) - 1] = ids[:-1]
        y[row, len(prompt) - 1:len(prompt) - 1 + scored] = answer[:scored]
    return x, y


train_path, val_path = (os.path.join(data_dir, f'{side}.jsonl') for side in ('train', 'val'))
pairs, n_cut, n_same = read_pairs(train_path, block_size)
held_out = read_pairs(val_path, block_size)[0][:eval_pairs]
newline = len(tokenizer.encode_inside('\n'))
lengths = np.array([max(len(p) + len(a) for p, a in pair) for pair in pairs])
steps_per_epoch = max(1, len(pairs) // batch_size)
max_steps = max_steps or max(1, round(epochs * steps_per_epoch))
eval_interval = eval_interval or steps_per_epoch
warmup_steps = min(warmup_steps, max_steps)
decay_steps = (max_steps - warmup_steps) if schedule == 'cosine' else \
    decay_steps or min(max_steps // 5, max_steps - warmup_steps)
if min_lr > learning_rate or decay_steps > max_steps - warmup_steps:
    raise ValueError(f'min_lr={min_lr} must be at most learning_rate={learning_rate}, and decay_steps='
                     f'{decay_steps} at most max_steps - warmup_steps = {max_steps - warmup_steps}')


@functools.lru_cache(1)
def batches_of(epoch):
    return batches_by_length(epoch, lengths, batch_size, seed)


def tensors(some):
    """Inputs, targets, lengths of the answers (2, B) of some pairs, on the device."""
    x, y = (torch.from_numpy(a).to(device) for a in collate(some, pad, newline))
    return x, y, (y != IGNORE).sum(1).view(2, -1)


if show_batch is not None:
    epoch, i = divmod(show_batch, steps_per_epoch)
    for row, j in enumerate(batches_of(epoch)[i]):
        for (prompt, answer), name in zip(pairs[j], ('chosen', 'rejected')):
            print(f'--- step {show_batch}, pair {row} of {batch_size}, {name}\n{tokenizer.decode(prompt)}[['
                  f'{tokenizer.decode(answer[:len(answer) - newline])}]]')
    sys.exit(0)


# --- reference ----------------------------------------------------------------------------------------------
@torch.no_grad()
def reference_log_probs(model, pairs):
    """log p of the chosen and the rejected answers under the model, float64 (n, 2), each process a share."""
    model.eval()
    found, by_length = np.zeros((len(pairs), 2)), np.argsort([-max(len(p) + len(a) for p, a in pair)
                                                              for pair in pairs], kind='stable')
    mine = by_length[rank::world]
    for i in range(0, len(mine), micro_batch_size):
        x, y, _ = tensors([pairs[j] for j in mine[i:i + micro_batch_size]])
        with autocast:
            found[mine[i:i + micro_batch_size]] = Scorer(model)(x, y).view(2, -1).T.double().cpu().numpy()
    model.train()
    return np.array(all_sum(*found.ravel())).reshape(found.shape)


def cached(path, n):
    """The log-probabilities in a file, float64 (n, 2), or None: no file, or not what was written."""
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == (n, 2) and np.isfinite(found).all():
            return found
    except FileNotFoundError:
        return None
    except Exception:           # numpy raises many kinds for a damaged file
        pass
    if main_process:
        print(f'{path} is damaged', flush=True)


def fingerprint(model):
    """A hash of the weights."""
    h = hashlib.sha256()
    for p in model.state_dict().values():
        h.update(p.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


needs_reference = loss_type in ('dpo', 'ipo', 'kto')
digests = []
for path in (train_path, val_path):
    with open(path, 'rb') as f:
        digests.append(hashlib.sha256(f.read()).hexdigest())
if init_from == 'resume':
    if state.get('pairs') != digests or state['config']['loss_type'] != loss_type:
        raise ValueError(f'{last_path} was trained on other pairs, or with another loss_type than '
                         f'{loss_type}; resume with those, or start from its weights: '
                         f'--init_from={out_dir} and another --out_dir')
    config['init_from'] = state['config']['init_from']      # where the reference is
ref, reference_hash = np.zeros((len(pairs) + len(held_out), 2)), None
if needs_reference:
    reference_hash = state['reference'] if init_from == 'resume' else fingerprint(model)
    decides = reference_hash, digests, tokenizer.hash, block_size, dtype, eval_pairs
    key = hashlib.sha256(repr(decides).encode()).hexdigest()[:16]
    reference_path = os.path.join(data_dir, f'reference-{key}.npy')
    found = cached(reference_path, len(ref))
    if all_sum(found is not None)[0] < world:               # not all can read it: all compute it
        if main_process:
            print(f'computing the reference log-probabilities of {len(ref):,} pairs', flush=True)
        reference = load_checkpoint(config['init_from'], device)[0] if init_from == 'resume' else model
        if fingerprint(reference) != reference_hash:
            raise ValueError(f'{config["init_from"]} no longer holds the model that this run started from: '
                             'its log-probabilities, deleted or damaged, cannot be computed again')
        found = np.concatenate([reference_log_probs(reference, some) for some in (pairs, held_out)])
        if main_process:
            with open(f'{reference_path}.tmp', 'wb') as f:
                np.save(f, found)
            os.replace(f'{reference_path}.tmp', reference_path)
        del reference
    ref = found
ref = torch.from_numpy(ref).float()

# --- reward head, optimizer, resume -------------------------------------------------------------------------
if loss_type == 'rm':
    model.reward_head = torch.nn.Linear(model.config.n_embd, 1, bias=False, device=device)
    if not model.config.tie_embeddings:
        model.head.requires_grad_(False)        # no part of a score; DDP would wait for its gradient
    with torch.no_grad():       # zero: the first loss is ln 2
        model.reward_head.weight.copy_(state['reward_head'] if init_from == 'resume' else
                                       torch.zeros(1, model.config.n_embd))
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
    if state['config']['optimizer'] != optimizer:
        raise ValueError(f'{last_path} has optimizer={state["config"]["optimizer"]}, this run has '
                         f'{optimizer}; resume with that')
    for o, s in zip(optimizers, state['optimizers'], strict=True):
        o.load_state_dict(s)
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())     # {} without float16
    step, best_val = state['step'], state['best_val']
policy = Scorer(model)
net = torch.compile(policy, dynamic=True) if compile else policy
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


FIGURES = ('preference_loss', 'accuracy', 'margin', 'chosen_reward', 'rejected_reward', 'chosen_logp',
           'rejected_logp', 'kl')
shown = FIGURES[:5] if loss_type == 'rm' else FIGURES if needs_reference else FIGURES[:7]


def losses_of(scorer, some, ref):
    """The losses of some pairs (B,), and FIGURES of each, and whether it has either answer, (10, B). kl:
    log p_ref - log p, the mean over both answers: an estimate of KL(reference | policy), if the reference is
    who wrote them."""
    x, y, n = tensors(some)
    ref = ref.to(device).T                                                                  # (2, B)
    with autocast:
        scores = scorer(x, y).view(2, -1)                                                   # (2, B)
    losses, chosen, rejected = preference_loss(*scores, *ref, *n, loss_type, beta, label_smoothing, gamma,
                                               kto_kl)
    with torch.no_grad():
        margin = chosen - rejected
        drift = (ref - scores.detach()).sum(0) / (n > 0).sum(0)
        figures = torch.stack([losses.detach(), (margin > 0).float() + 0.5 * (margin == 0), margin, chosen,
                               rejected, *scores.detach(), drift, *(n > 0).float()])
    if nll_weight and loss_type in ('dpo', 'ipo', 'kto', 'simpo'):
        losses = losses - nll_weight * scores[0] / n[0].clamp(min=1)
    return losses, figures


def means(totals, n):
    """The means of FIGURES over n pairs, from all processes' sums of what losses_of gives. Where kto's lines
    have one answer each, those of the other kind do not count."""
    *sums, n_chosen, n_rejected = all_sum(*totals.tolist())
    found = {name: total / n for name, total in zip(FIGURES, sums)}
    for name in ('reward', 'logp'):
        found[f'chosen_{name}'] *= n / max(1, n_chosen)
        found[f'rejected_{name}'] *= n / max(1, n_rejected)
    return found | {'margin': found['chosen_reward'] - found['rejected_reward']}


@torch.no_grad()
def held_out_figures():
    """The means of FIGURES over the held-out pairs, shared by the processes."""
    totals = torch.zeros(len(FIGURES) + 2, device=device)
    model.eval()
    mine = range(len(held_out))[rank::world]
    for i in range(0, len(mine), micro_batch_size):
        part = mine[i:i + micro_batch_size]
        found = losses_of(policy, [held_out[j] for j in part], ref[[len(pairs) + j for j in part]])[1]
        totals += found.sum(1)
    model.train()
    return means(totals, len(held_out))


def answers():
    """What the model says to the first held-out prompts."""
    said = []
    for (prompt, _), _ in held_out[:num_samples]:
        room = max(0, min(sample_tokens, model.config.block_size - len(prompt)))
        with autocast:
            out = model.generate(torch.tensor([prompt], device=device), room, temperature=0,
                                 stop=tokenizer.stop)
        said.append((prompt, out[0, len(prompt):].tolist()))
    return said


def save(path, **more):
    head = model._modules.pop('reward_head', None)          # a checkpoint's `model` is a GPT, no more
    try:
        more |= {'reward_head': head.weight.detach()} if head else {}
        save_checkpoint(path, model, step=step, best_val=best_val, tokenizer_hash=tokenizer.hash,
                        config=config, **more)
    finally:
        if head:
            model.reward_head = head


def save_last():
    if main_process:
        save(f'{last_path}.new', skipped=skipped, window=window, lr_scale=lr_scale, kto_kl=kto_kl,
             bad_steps=sorted(bad_steps), pairs=digests, reference=reference_hash,
             optimizers=[o.state_dict() for o in optimizers], scaler=scaler.state_dict())
        if os.path.exists(last_path):
            os.replace(last_path, older_path)
        os.replace(f'{last_path}.new', last_path)


def roll_back():
    """To the last checkpoint, with half the learning rate; the step that spiked will be skipped."""
    global step, window, lr_scale, rolled_back, kto_kl
    bad_steps.add(step)
    model_then, then = load_checkpoint(last_path, device)
    model.load_state_dict(model_then.state_dict(), strict=False)            # a reward head is not in it
    if loss_type == 'rm':
        model.reward_head.load_state_dict({'weight': then['reward_head']})
    for o, s in zip(optimizers, then['optimizers']):
        o.load_state_dict(s)
    lr_scale /= 2
    note('rollback', f'back to step {then["step"]}, learning rate x {lr_scale:g} from now on')
    step, window, rolled_back, kto_kl = then['step'] - 1, then['window'], True, then['kto_kl']


# --- what is about to happen --------------------------------------------------------------------------------
say(f'resumed at step {step}' if init_from == 'resume' else f'starting from {init_from}')
say(f'  data     {len(pairs):,} pairs, {len(held_out):,} held out; the same answer twice: {n_same}; cut to '
    f'{block_size} tokens: {n_cut}')
say(f'  machine  {world} x {device_type}, {dtype}')
say(f'  step     {batch_size} pairs = {world} processes x {per_rank // micro_batch_size} accumulated x '
    f'{micro_batch_size} at once')
say(f'  plan     {max_steps:,} steps = {max_steps / steps_per_epoch:.2f} epochs of {steps_per_epoch:,} steps')
say(f'  rates    {loss_type}, beta {beta:g}, nll {nll_weight:g}; learning rate to {learning_rate:g} in '
    f'{warmup_steps} steps, then down to {min_lr:g}; clip {grad_clip:g}')
watching = ('data_dir', 'out_dir', 'init_from', 'overwrite', 'log_interval', 'eval_interval', 'eval_pairs',
            'save_interval', 'num_samples', 'sample_tokens', 'micro_batch_size', 'grad_checkpoint')
for k, v in state.get('config', {}).items():
    if config.get(k, v) != v and k not in watching:
        say(f'  note     {k} was {v}, is now {config[k]}: the run goes on, but not as the straight run would')
if main_process:
    tokenizer.save(os.path.join(out_dir, 'tokenizer.json'))
    data_json = os.path.join(folder, 'data.json')           # what the base model was trained on
    if os.path.exists(data_json) and init_from != 'resume':
        shutil.copyfile(data_json, os.path.join(out_dir, 'data.json'))
kto_kl = state.get('kto_kl', 0.0)       # of the step before: so it is the same on any number of processes
if init_from != 'resume' and (needs_reference or loss_type == 'rm'):
    zero, one = torch.zeros(1), torch.ones(1)
    should = preference_loss(zero, zero, zero, zero, one, one, loss_type, beta)[0].item()
    rows = batches_of(0)[0][rank * per_rank:(rank + 1) * per_rank]
    model.eval()
    with torch.no_grad():
        first = sum(losses_of(policy, [pairs[j] for j in part], ref[part])[1][[0, 2, 7]].sum(1)
                    for part in np.split(rows, range(micro_batch_size, per_rank, micro_batch_size)))
    model.train()
    first_loss, first_margin, first_kl = np.array(all_sum(*first.tolist())) / batch_size
    say(f'  expect   a first {loss_type} loss of {should:.4f} and a margin of 0; found {first_loss:.4f} and '
        f'{first_margin:+.4f}')
    if not (abs(first_loss - should) <= 1e-3 * max(1, should) and abs(beta * first_kl) <= 0.01):
        raise ValueError(f'the first {loss_type} loss is {first_loss:.5f} and the KL {first_kl:.4f}, but '
                         f'policy and reference are the same model: {should:.5f} and 0 are expected; try '
                         f'--dtype=float32, and delete {data_dir}/reference-*.npy')

# --- the loop -----------------------------------------------------------------------------------------------
first_step, skipped, skipped_in_a_row = step, state.get('skipped', 0), 0
window = state.get('window', [])            # [loss, gradient norm] of the last steps
lr_scale, bad_steps = state.get('lr_scale', 1.0), set(state.get('bad_steps', []))       # after a rollback
stopping = rolled_back = False              # what the processes have agreed on
probe = model.blocks[len(model.blocks) // 2].mlp.w_down.weight.detach()  # how much does an update change it?
eval_s = 0.0
start_time = window_start = time.time()
window_steps = 0                            # since the last log line
model.train()
while True:
    # 1. evaluate; a resumed run has the evaluation of its first step behind it
    if (step % eval_interval == 0 or step == max_steps) and (step > first_step or step == 0):
        began, found = time.time(), held_out_figures()
        val_loss, found = found['preference_loss'], {k: found[k] for k in shown[1:]}
        if main_process and loss_type != 'rm':
            said = answers()
            found['response_len'] = sum(len(a) for _, a in said) / len(said)
            say(f'--- step {step}, val_loss {val_loss:.4f}\n' + '\n\n'.join(
                tokenizer.decode(p + a) for p, a in said) + '\n', 'samples.txt')
        say(f'step {step:>6}/{max_steps} | val_loss: {val_loss:.4f} | ' + ' | '.join(
            f'{k}: {v:.3f}' for k, v in found.items()))
        log_metrics(step=step, val_loss=val_loss, **{f'val_{k}': v for k, v in found.items()})
        if step and val_loss < best_val:
            best_val = val_loss
            if main_process:
                save(best_path)
        eval_s += time.time() - began
        window_start, window_steps = time.time(), 0         # evaluating is not training time

    # 2. save; stop
    if (step % save_interval == 0 or step == max_steps or stopping) and step > first_step:
        save_last()
    if step >= max_steps or stopping:
        break

    # 3. gradients of the mean loss over the pairs of the global batch
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # dropout follows from (seed, step, rank)
    lr = lr_scale * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    for group in (group for o in optimizers for group in o.param_groups):
        group['lr'] = lr
    epoch, i = divmod(step, steps_per_epoch)
    rows = batches_of(epoch)[i]
    mine = rows[rank * per_rank:(rank + 1) * per_rank]
    parts = np.split(mine, range(micro_batch_size, per_rank, micro_batch_size))
    n_all, loss_sum, figures = batch_size, 0.0, torch.zeros(len(FIGURES) + 2, device=device)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        with contextlib.nullcontext() if last or world == 1 else net.no_sync(), out_of_memory_advice():
            losses, found = losses_of(net, [pairs[j] for j in part], ref[part])
            # this part's share of the mean; times world, because DDP divides the sum over processes by it
            scaler.scale(losses.sum() / n_all * world).backward()
        loss_sum += losses.detach().sum()
        figures += found.sum(1)

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
        rolled_back, window_start, window_steps = False, time.time(), 0
        continue
    figures = means(figures, n_all)
    kto_kl = max(0.0, -beta * figures['kl'])

    # 4. log
    if logging:
        dt = (time.time() - window_start) / window_steps
        eta = dt * (max_steps - step)
        say(f'step {step:>6}/{max_steps} | loss: {loss:.4f} | acc: {figures["accuracy"]:.2f} | margin: '
            f'{figures["margin"]:+.3f} | rewards: {figures["chosen_reward"]:+.3f} '
            f'{figures["rejected_reward"]:+.3f} | lr: {lr:.2e} | gnorm: {norm:.2f} | {dt * 1000:.0f} ms | '
            f'eta {int(eta // 60)}m{int(eta % 60):02d}s')
        log_metrics(step=step, loss=loss, lr=lr, grad_norm=norm, dt=dt, update_ratio=update_ratio,
                    skipped=skipped, memory_mb=memory_mb(), tok_s=2 * int(lengths[rows].sum()) / dt,
                    eval_share=eval_s / (time.time() - start_time), **{k: figures[k] for k in shown})
        window_start, window_steps = time.time(), 0

# --- summary ------------------------------------------------------------------------------------------------
if step < max_steps:
    say(f'stopped at step {step}, as asked; {last_path} is saved; go on: same command with '
        '--init_from=resume')
else:
    say(f'done in {(time.time() - start_time) / 60:.1f} minutes, lowest val_loss {best_val:.4f}; all is in '
        f'{out_dir}')
    if loss_type != 'rm':
        say(f'next: python sample.py --ckpt={out_dir} --chat=True\n      python eval.py --ckpt={out_dir} '
            '--tasks=problems --allow_code_execution=True')
# --- leaving: same text in train.py, sft.py, dpo.py ---
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)                 # torch's threads sometimes abort when the interpreter takes them down
# --- end leaving ---
