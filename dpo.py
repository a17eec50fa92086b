"""
Preference optimization: a model that answers, and pairs of a better and a worse answer -> a model
that prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=out/sft --loss_type=rm --out_dir=out/reward   # a reward model
    python dpo.py --out_dir=out/dpo --init_from=resume              # resumes; on a CPU, bit for bit
    torchrun --nproc_per_node=8 dpo.py --init_from=out/sft          # eight GPUs, the same steps

It reads a model of sft.py, and data_dir/train.jsonl and val.jsonl, lines of {"prompt", "chosen",
"rejected"}; a prompt is text or messages. kto also takes {"prompt", "completion", "label"} lines.
It writes out_dir. The loop is that of sft.py. The decision made here is the taste: who says which
answer is better?

DPO in four lines. The policy p is the model that trains. The reference p_ref is the same model at
the start. A prompt has a better answer c (chosen) and a worse answer r (rejected):

    reward(c) = beta (log p(c) - log p_ref(c))      # how much likelier c has become
    reward(r) = beta (log p(r) - log p_ref(r))
    margin = reward(c) - reward(r)
    loss = -log sigmoid(margin)                     # small if c has gained more than r

With beta = 0.1, log p_ref = -11 for both, log p(c) = -10 and log p(r) = -12, the rewards are 0.1
and -0.1, the margin is 0.2 and the loss 0.598. With beta = 1, a tenth of this change in log p would
give the same loss. So a larger beta keeps the policy nearer to the reference.

At step 0, policy and reference are equal, so the margin is 0 and val_loss is ln 2 = 0.693 (with ipo
1 / (2 beta)^2, with kto 0.5). If it is anything else, the run ends. Then you should see accuracy
and margin rise. Often BOTH rewards fall, because the loss asks for a difference only. It gains as
much if the bad answer falls by 5 and the good one by 2 as if the good one rises by 3. What both
lose goes to answers that nobody compared. --nll_weight=1 adds SFT's loss on the better answers,
which holds them up (arXiv:2404.19733).
"""
import collections, copy, hashlib, json, math, os, pathlib, shlex, shutil, signal, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_, rnn
from tqdm import tqdm
from configurator import Mistake, configure, require, set_by
from model import GPT, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/sft'           # policy and reference: a folder or .pt; or resume: go on in out_dir
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from prepare.py --kind=preference
out_dir = 'out/dpo'             # where the run writes
overwrite = False               # True: delete the run that out_dir holds, and start over
loss_type: Literal['dpo', 'ipo', 'kto', 'orpo', 'simpo', 'rm'] = 'dpo'  # rm trains a reward model
beta: float | None = None       # scale of rewards, see above; None = 0.1, for simpo 2
epochs = 1.0                    # how often each pair is seen; 1 to 3 are usual
batch_size = 32                 # pairs per step, over all devices
learning_rate = 3e-5            # for millions of parameters; from 100 million on 5e-7 to 5e-6
# the loss
label_smoothing = 0.0           # of dpo: fraction of pairs whose labels may be wrong
gamma = 1.0                     # of simpo: margin by which the better answer must lead
nll_weight = 0.0                # weight of -log p(chosen) per token; not in orpo and rm
# optimization
max_steps = 0                   # updates, instead of epochs; 0 = as many as the epochs take
micro_batch_size = 0            # most pairs per device and forward pass; 0 = all
block_size = 0                  # most tokens of prompt and answer; 0 = the context; more is cut
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 0               # steps; also before the first and after the last; 0 = an epoch
save_interval = 250             # steps
sample_tokens = 100             # most tokens of the eight answers that go into samples.txt
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of the order of the pairs
lora = 0                        # rank of adapters that train instead of the weights; 0 = none
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'beta': (1e-9, 1e6),
          'label_smoothing': (0, 0.49), 'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- what is new: the losses ----------------------------------------------------------------------
def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len,
                    rejected_len, loss_type, beta, label_smoothing=0.0, gamma=1.0, kl=0.0):
    """Return the losses, and the rewards of both answers, of B pairs: float32 (B,) each. For the
    pair at the top of this file, where c has 5 tokens and r 4, with beta = 0.1, gamma = 1, kl = 0:

                rewards     loss
        dpo     0.1, -0.1   the margin is 0.2: -log sigmoid(0.2) = 0.598
        ipo     0.1, -0.1   the log-ratios 1 and -1 differ by 2, the target is 5: (2 - 5)^2 = 9
        kto     0.1, -0.1   c is 0.1 above the zero point, r as far below: 1 - sigmoid(0.1) = 0.475
        orpo   -0.2, -0.3   SFT's loss is 2, the odds p / (1 - p) of c, with log p = -10 / 5, are
                            2.987 times those of r: 2 - 0.1 log(2.987 / 3.987) = 2.029
        simpo  -0.2, -0.3   c leads by 0.1 and should by 1: -log sigmoid(0.1 - 1) = 1.241
        rm      -10, -12    -log sigmoid(2) = 0.127

    policy_*, ref_*: log p of an answer, in nats, summed over its tokens (for rm: its score). *_len:
    how many tokens it has. kl: kto's zero point, explained next to its loss."""
    policy = torch.stack([policy_chosen, policy_rejected])                              # (2, B)
    ratios = policy - torch.stack([ref_chosen, ref_rejected])           # log (p / p_ref)
    means = policy / torch.stack([chosen_len, rejected_len])            # log p per token
    chosen, rejected = beta * (means if loss_type in ('orpo', 'simpo') else ratios)    # rewards

    if loss_type == 'dpo':
        # Rafailov et al. 2023, arXiv:2305.18290, eq. 7. Sums over tokens, because p of an answer is
        # a product. label_smoothing: this fraction of the pairs counts the other way round (cDPO).
        margin = chosen - rejected
        losses = (-(1 - label_smoothing) * F.logsigmoid(margin)
                  - label_smoothing * F.logsigmoid(-margin))
    elif loss_type == 'ipo':
        # If all annotators agree, dpo's margin grows for ever, and beta no longer holds the policy
        # back. Here the margin has a target. Azar et al. 2023, arXiv:2310.12036, eq. 17
        losses = (ratios[0] - ratios[1] - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        # A good answer should earn more than a zero point, and a bad one less. Without it, a policy
        # that makes all answers likelier would seem to learn. It is the mean gain of the step
        # before: if log p - log p_ref was 0.3 and beta is 0.1, kl is 0.03. It is at least 0, and
        # has no gradient. (The paper estimates it with answers to other prompts.) Ethayarajh et
        # al. 2024, arXiv:2402.01306, eq. 8
        losses = ((kl - chosen).sigmoid() + (rejected - kl).sigmoid()) / 2
    elif loss_type == 'orpo':
        # SFT's loss takes the place of the reference. Means per token, because with sums every p
        # would be near 0, where odds and p are the same. Hong et al. 2024, arXiv:2403.07691, eq. 6
        m = means.clamp(max=-1e-30)                     # The odds of p = 1 would be infinite.
        log_odds = m - torch.log(-torch.expm1(m))       # expm1 is e^m - 1, not rounded to 0
        losses = -means[0] - beta * F.logsigmoid(log_odds[0] - log_odds[1])
    elif loss_type == 'simpo':
        # No reference. Means per token, so that a long answer neither loses nor wins by its length;
        # the better one must lead by gamma. Meng et al. 2024, arXiv:2405.14734, eq. 6
        losses = -F.logsigmoid(chosen - rejected - gamma)
    elif loss_type == 'rm':
        # The rewards are the scores. Bradley and Terry 1952; arXiv:2203.02155, eq. 1
        chosen, rejected = policy
        losses = -F.logsigmoid(chosen - rejected)
    return losses, chosen.detach(), rejected.detach()


# --- pairs of all lengths -------------------------------------------------------------------------
def fit(turns, chosen, rejected, T):
    """Return prompt, chosen and rejected, ids, and how they were cut to T, as in sft.py: the oldest
    turns go, then the ends of both answers. All are empty if both answers are the same, or if less
    than a quarter of T remains for them. turns: (ids, role) of each message, and of a header."""
    roles = [role for ids, role in turns]
    head = next(i for i, role in enumerate(roles) if role != 'system')
    longest = max(len(chosen), len(rejected))
    # A user may ask in several messages in a row: a question begins with the first of them.
    later = [i for i in range(head + 1, len(turns))
             if roles[i] == 'user' and roles[i - 1] != 'user']
    for start in [head, *later]:
        prompt = [id for ids, role in turns[:head] + turns[start:] for id in ids]
        how = 'whole' if start == head else 'older turns left out'
        if len(prompt) + longest <= T:
            break
    room = T - len(prompt)
    if room < min(longest, T / 4):
        return [], [], [], 'left out: its question is too long'
    if chosen[:room] == rejected[:room]:
        return [], [], [], 'left out: both answers are the same'
    return prompt, chosen[:room], rejected[:room], how if longest <= room else 'answers cut'


def collate(pairs):
    """Return inputs and targets, int64 (2 B, T), of the B better and then of the B worse answers.
    A pair is two rows, (prompt, answer). Of 5 6, 7 8 9 and 5 6, 7 4 (_ is IGNORE; a reward model
    reads its score from the last input of a row, before the padding):

        x    5 6 7 8 9      y    _ 7 8 9 _
             5 6 7 4 0           _ 7 4 _ _"""
    rows = [pair[side] for side in (0, 1) for pair in pairs]
    x = [torch.tensor(np.concatenate(row)) for row in rows]
    y = [F.pad(torch.tensor(answer), (len(prompt) - 1, 1), value=IGNORE) for prompt, answer in rows]
    return (rnn.pad_sequence(x, batch_first=True).long(),                               # (2 B, T)
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


def log_p(model, x, y):
    """Return log p of N answers, (N,), each the sum over its tokens."""
    # model.log_p: of all targets, one row after the other, (n,)
    parts = model.log_p(x, y).split((y != IGNORE).sum(1).tolist())
    return torch.stack([part.sum() for part in parts])


def numbers_of(step, lengths, batch_size, seed):
    """Return the indices of a step's pairs, (batch_size,), of about the same length: see sft.py.
    They follow from step and seed, so a resumed run has the same ones."""
    per_epoch = max(1, len(lengths) // batch_size)
    epoch, i = divmod(step, per_epoch)
    shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
    batches = np.resize(shuffled(len(lengths)), (per_epoch, batch_size))
    # 32 batches at a time are sorted by length. The steps visit the batches in random order.
    batch = shuffled(per_epoch)[i]
    group = batches[batch - batch % 32:][:32].flatten()
    order = np.argsort(lengths[group], kind='stable')
    return group[order].reshape(-1, batch_size)[batch % 32]


config = configure(globals(), BOUNDS)   # from the run that goes on, then from files, then flags
config['stage'] = 'dpo'         # so eval.py will ask this model in conversations
for name, those in {'label_smoothing': 'dpo', 'gamma': 'simpo', 'beta': 'dpo ipo kto orpo simpo',
                    'nll_weight': 'dpo ipo kto simpo'}.items():
    require(not config[name] or name not in set_by or loss_type in those.split(),
            f'--{name} does nothing for {loss_type}, only for {those}; leave it out, or type '
            f'--{name}={"None" if name == "beta" else 0} if a config file sets it')
beta = config['beta'] = beta or (2.0 if loss_type == 'simpo' else 0.1)
has_reference = loss_type in ('dpo', 'ipo', 'kto')
# With a reference all rewards are 0 at the start, and with a new head of zeros: the loss is known.
first_loss = {'dpo': math.log(2), 'ipo': 1 / (2 * beta) ** 2, 'kto': 0.5, 'rm': math.log(2)}

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
    model = GPT.load(source, dropout=0.0)       # with dropout, policy and reference would differ
    tokenizer = Tokenizer.load(f'{folder}/tokenizer.json')
    header, _ = tokenizer.render([], add_generation_prompt=True)    # needs <|im_start|>
except ValueError as error:
    raise Mistake(f'{error}; start from another model, or run: python sft.py') from None
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{folder}/tokenizer.json is not the tokenizer that {source} was trained with')
require(not is_new or model.config.causal and 'reward_head' not in model.saved,
        f'{source} was made with --objective=mlm or is a reward model: it writes no answers')
start, end = (tokenizer.special[name] for name in ('<|im_start|>', '<|im_end|>'))
# A model of Hugging Face without these tokens got the same row for both, see extras/hf_model.py.
require(not model.embedding.weight[start].equal(model.embedding.weight[end]), f'{source} was not '
        f'trained on <|im_start|>; first run: python sft.py --init_from={shlex.quote(str(source))}')
context = model.config.block_size
T = block_size or context               # most ids of a prompt and its answer
require(T <= context, f'{block_size=} is more than the context of {source}, {context}; '
        'make it longer: python -m extras.longer_context')

# --- data -----------------------------------------------------------------------------------------
# A run goes on with the same of these settings, which decide about val_loss and the batches, and of
# all that it reads.
fixed = (f'{loss_type=}, {beta=}, {gamma=}, {label_smoothing=}, {block_size=}, {lora=}, '
         f'{batch_size=}, {seed=}')
data_hash = hashlib.sha256(fixed.encode())


def read(path):
    """Return the pairs of a file, two rows each: (prompt, answer), ids. Print what was cut."""
    require(os.path.exists(path), f'{path} is missing; prepare.py --kind=preference makes it')
    text = pathlib.Path(path).read_bytes()
    data_hash.update(text)
    better, worse, counts = [], [], collections.Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            prompt = record['prompt']
            if isinstance(prompt, str):
                prompt = [{'role': 'user', 'content': prompt}]
            turns = [(tokenizer.render([message])[0], message['role']) for message in prompt]
            names = 'chosen', 'rejected'
            if loss_type == 'kto' and 'completion' in record:
                names = {True: ('completion', None), False: (None, 'completion')}[record['label']]
            answers = [[*tokenizer.encode(record[name]), end] if name else [] for name in names]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Mistake(f'{path}, line {number}: {error!r:.200}; needs texts "prompt", "chosen", '
                          '"rejected", for kto "completion" and "label", true or false') from None
        prompt, *answers, how = fit([*turns, (header, 'assistant')], *answers, T)
        counts[how] += 1
        for rows, answer in zip((better, worse), answers):
            if answer:                  # arrays take a tenth of the memory of lists
                rows.append((np.array(prompt, np.int32), np.array(answer, np.int32)))
    found = f'{len(better)} better and {len(worse)} worse answers'
    if rank == 0:
        print(path, dict(counts), found, flush=True)
    require(better and worse, f'{path} has {found} that differ and fit into {T} tokens; needs both')
    # kto's single answers: any two make a pair, because its loss is a sum. The rarer kind repeats.
    n = max(len(better), len(worse))
    return [(better[i % len(better)], worse[i % len(worse)]) for i in range(n)]


train = read(f'{data_dir}/train.jsonl')
pairs = train + read(f'{data_dir}/val.jsonl')[:512]     # enough for a loss to two digits
lengths = np.array([max(sum(map(len, row)) for row in pair) for pair in pairs])         # (n,)
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
score_of = log_p
if loss_type == 'rm':           # a score takes the place of log p
    from extras.rewards import add_head, score as score_of
    add_head(model)
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [p for p in model.parameters() if p.requires_grad]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
opt = torch.optim.AdamW(params, learning_rate, betas=(0.9, 0.95), weight_decay=0.0,
                        fused=kind != 'mps')
step, tokens, best_val = 0, 0, math.inf
kto_kl = 0.0                    # kto's zero point, explained next to its loss
ref = torch.zeros(len(pairs), 2, device=device)         # log p of the reference
if not is_new:
    state = model.saved
    require(state.get('data') == data_hash, f'{source} is not of dpo.py, or has other '
            f'data or settings than {data_dir=}, {fixed}')
    config['init_from'] = state['config']['init_from']
    model.load_state_dict(state['weights'])
    opt.load_state_dict(copy.deepcopy(state['optimizer']))  # mapped from a file that we replace
    step, tokens, best_val = state['step'], state['tokens'], state['best_val']
    ref, kto_kl = state['ref_log_probs'].clone().to(device), state['kto_kl']
state = model.saved = {}                # frees their memory
require(max(warmup_steps, step + 1) <= max_steps,
        f'{max_steps=} is too low for {warmup_steps=} or a run that is at {step=}')


def scored(numbers):
    """Yield B of these pairs at a time, of this process (of two, the first takes 0, 2, 4, ... and
    may get none): their numbers, log p of the answers (for rm: scores), and how many tokens they
    have, (2, B) each. Row 0 has the chosen answers, row 1 the rejected ones."""
    mine = numbers[rank::world]
    for i in range(0, len(mine), micro_batch_size):
        few = mine[i:i + micro_batch_size]
        x, y = (part.to(device) for part in collate([pairs[i] for i in few]))           # (2 B, T)
        with autocast:
            scores = score_of(model, x, y)
        yield few, scores.view(2, -1), (y != IGNORE).sum(1).view(2, -1)


if is_new and has_reference:    # Now the policy is the reference. So only one model is in memory.
    longest_first = np.argsort(-lengths)        # if memory runs out, it does so now
    n_parts = math.ceil(len(pairs) / world / micro_batch_size)
    with torch.no_grad():
        for few, policy, _ in tqdm(scored(longest_first), 'reference', n_parts, disable=rank > 0):
            ref[few] = policy.T                                                         # (B, 2)
    if world > 1:               # each process has filled its rows, and left 0 in the others
        dist.all_reduce(ref)

# --- what it writes -------------------------------------------------------------------------------
def save(name):
    """Write a checkpoint for GPT.load: adapters merged, a reward model's head apart. last.pt also
    has what a run needs to go on: the weights as they train, moments, the reference."""
    if rank == 0:
        weights = model.state_dict()
        more = {'model': merged(weights) if lora else dict(weights)}
        if loss_type == 'rm':
            more['reward_head'] = more['model'].pop('reward_head')
        if name == 'last.pt':
            more |= {'weights': weights, 'optimizer': opt.state_dict(), 'data': data_hash,
                     'ref_log_probs': ref, 'kto_kl': kto_kl}
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


def measure(numbers, zero_point=0.0):
    """Return means over these pairs, in all processes. Unless under no_grad, add this process's
    part of the gradient of their mean loss to p.grad. zero_point: kl of preference_loss."""
    names = ['loss', 'preference_loss', 'accuracy', 'chosen_reward', 'rejected_reward']
    if loss_type != 'rm':
        names += ['chosen_logp', 'rejected_logp']
    if has_reference:
        names += ['kl']
    sums = torch.zeros(len(names), device=device)       # a process may get no pair
    for few, policy, n in scored(numbers):
        ref_chosen, ref_rejected = ref[few].T
        losses, chosen, rejected = preference_loss(                                     # (B,) each
            policy[0], policy[1], ref_chosen, ref_rejected, n[0], n[1], loss_type, beta,
            label_smoothing, gamma, zero_point)
        loss = losses - nll_weight * policy[0] / n[0]
        if torch.is_grad_enabled():
            (loss.sum() / len(numbers)).backward()
        # A tie is half right. Unrounded, an untrained model would win and lose by the last digits.
        right = 0.5 + 0.5 * (chosen - rejected).round(decimals=4).sign()
        figures = {'loss': loss, 'preference_loss': losses, 'accuracy': right,
                   'chosen_reward': chosen, 'rejected_reward': rejected,
                   'chosen_logp': policy[0], 'rejected_logp': policy[1],
                   # over answers of the policy itself it would be KL; here it may be below 0
                   'kl': (policy - ref[few].T).mean(0)}
        sums += torch.stack([figures[name] for name in names]).detach().sum(1)
    if world > 1:
        dist.all_reduce(sums)
    row = dict(zip(names, (sums / len(numbers)).tolist()))
    row['margin'] = row['chosen_reward'] - row['rejected_reward']
    return row


@torch.no_grad()
def evaluate():
    """Measure the held-out pairs, and answer the first of their prompts. best.pt keeps the best
    weights; so that it compares equal losses, the zero point of kto is 0 here."""
    global best_val
    row = {f'val_{name}': value for name, value in measure(range(len(train), len(pairs))).items()}
    row['val_loss'] = row.pop('val_preference_loss')            # without nll_weight's part
    if rank == 0 and loss_type != 'rm':
        answer_lengths = []
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for (prompt, _), _ in pairs[len(train):][:8]:
                ids = torch.tensor(prompt[None], device=device).long()                  # (1, T)
                [ids] = model.generate(ids, sample_tokens, temperature=0, stop=tokenizer.stop)
                answer_lengths.append(len(ids) - len(prompt))
                print(f'--- step {step}\n{tokenizer.decode(ids.tolist())}\n', file=f)
        row['val_response_len'] = np.mean(answer_lengths)
    log(**row)
    known = first_loss.get(loss_type, row['val_loss'])
    require(step > 0 or math.isclose(row['val_loss'], known, rel_tol=1e-3, abs_tol=1e-3),
            f'the first {loss_type} loss is {row["val_loss"]:.5f} in place of {known:.5f}, but '
            'nothing is trained yet; begin again with --dtype=float32 --overwrite=True')
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
again = f'python dpo.py --out_dir={shlex.quote(out_dir)} --init_from=resume'
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
          'a pair:', *[tokenizer.decode(np.concatenate(row)) for row in train[0]], sep='\n')
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
    # the learning rate: a linear rise, then half a cosine down to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr

    gradient.zero_()            # a process without a pair adds zeros
    batch = numbers_of(step, lengths[:len(train)], batch_size, seed)
    row = measure(batch, kto_kl)        # forward and backward: it adds to p.grad
    kto_kl = max(0.0, beta * row.get('kl', 0.0))        # the zero point of the next step
    if world > 1:
        dist.all_reduce(gradient)

    norm = clip_grad_norm_(params, grad_clip or math.inf).item()
    require(math.isfinite(row['loss'] + norm), f'step {step + 1}: the loss is {row["loss"]}, the '
            f'norm of the gradient {norm}; go on from step {saved_step} with a lower rate: {again} '
            f'--learning_rate={learning_rate / 4:g}')
    opt.step()
    step_tokens = sum(len(ids) for i in batch for side in pairs[i] for ids in side)
    tokens += step_tokens
    step += 1
    if step in (1, max_steps) or step % log_interval == 0:
        dt = max(1e-9, time.perf_counter() - began)     # some clocks tick coarsely
        log(**row, lr=lr, grad_norm=norm, dt=dt, tok_s=step_tokens / dt,
            minutes_left=dt * (max_steps - step) / 60)

if rank == 0:
    print(f'done, lowest val_loss {best_val:.4f}')
    if loss_type != 'rm':
        print(f'next: python sample.py --ckpt={shlex.quote(out_dir)} --chat=True')
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
