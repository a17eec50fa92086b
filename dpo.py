"""
Preference optimization: a model that answers, and pairs of a better and a worse answer -> a model
that prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=out/sft --loss_type=rm --out_dir=out/reward   # a reward model
    python dpo.py --out_dir=out/dpo --init_from=resume              # resumes; on a CPU, bit for bit
    torchrun --nproc_per_node=8 dpo.py --init_from=out/sft          # eight GPUs, the same steps

It reads data_dir/train.jsonl and val.jsonl, lines of {"prompt", "chosen", "rejected"}; a prompt is
text or messages. kto also takes {"prompt", "completion", "label"}, with true or false as the label.
The loop is that of sft.py. The decision made here is the taste: who says which answer is better?

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
1 / (2 beta)^2, with kto 0.5; orpo and simpo have no reference). Then accuracy and margin rise.
Often BOTH rewards fall, because the loss asks for a difference only: it gains as much if the bad
answer falls by 5 and the good one by 2 as if the good one rises by 3. What both lose goes to
answers that nobody compared. --nll_weight=1 adds SFT's loss on the better answers, which holds them
up (arXiv:2404.19733).
"""
import hashlib, json, math, os, pathlib, shlex, time
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_, rnn
from configurator import UserError, configure, require
from common import load_model, init_device, resume_or_start, init_out_dir
from model import IGNORE

# --- settings -------------------------------------------------------------------------------------
init_from = 'out/sft'           # policy and reference: folder or .pt, resume; auto: resume, or this
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from chats.py --source=FILE
out_dir = 'out/dpo'             # where the run writes
overwrite = False               # True: delete the run that out_dir holds
loss_type: Literal['dpo', 'ipo', 'kto', 'orpo', 'simpo', 'rm'] = 'dpo'  # rm trains a reward model
beta: float | None = None       # scale of rewards, see above; None = 0.1, for simpo 2
gamma = 1.0                     # of simpo: margin by which the better answer must lead
nll_weight = 0.0                # weight of -log p(chosen) per token; orpo has it already, rm none
# optimization
epochs = 1.0                    # how often each pair is seen; 1 to 3 are usual
max_steps = 0                   # updates; above 0 they count instead of the epochs
batch_size = 32                 # pairs per step, over all devices
micro_batch_size = 0            # most pairs per device and forward pass; 0 = all
learning_rate = 3e-5            # for millions of parameters; from 100 million on 5e-7 to 5e-6
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps
eval_interval = 0               # steps between evaluations; 0 = an epoch; also first and last
save_interval = 250             # steps
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of the order of the pairs
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'beta': (1e-9, 1e6),
          'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- what is new: the losses ----------------------------------------------------------------------
def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len,
                    rejected_len, loss_type, beta, gamma=1.0, kl=0.0):
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
        # a product.
        losses = -F.logsigmoid(chosen - rejected)
    elif loss_type == 'ipo':
        # If all annotators agree, dpo's margin grows for ever, and beta no longer holds the policy
        # back. Here the margin has a target. Azar et al. 2023, arXiv:2310.12036, eq. 17
        losses = (ratios[0] - ratios[1] - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        # A good answer should earn more than a zero point, and a bad one less. Without it, a policy
        # that makes all answers likelier would seem to learn. It is the mean gain of the last step
        # (the paper's: of answers to other prompts), at least 0, without gradient: if log p - log
        # p_ref was 0.3 and beta is 0.1, kl is 0.03. Ethayarajh et al. 2024, 2402.01306, eq. 8
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


def indices_of(step, lengths, batch_size, seed):
    """Return the indices of a step's pairs, of about the same length, so that little is padded.
    They follow from step and seed; an epoch has each pair once, as in sft.py."""
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
config |= {'stage': 'dpo', 'steps': 0}      # eval.py asks a model of this stage in conversations

# --- the run, new or resumed, its model, and this process -----------------------------------------
source, state, changed = resume_or_start(config, explicit,
                                         fixed='loss_type beta gamma batch_size seed')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
for name, losses in {'beta': 'dpo ipo kto orpo simpo', 'gamma': 'simpo',
                     'nll_weight': 'dpo ipo kto simpo'}.items():
    require(name not in explicit or not config[name] or loss_type in losses.split(),
            f'{name} does nothing with {loss_type=}, only with {losses}; leave it out')
beta = config['beta'] = beta or (2.0 if loss_type == 'simpo' else 0.1)
has_reference = loss_type in ('dpo', 'ipo', 'kto')
# with dropout, policy and reference would differ
model, tokenizer = load_model(source, 'sft.py', scores=bool(state), dropout=0.0)
tokenizer.render([])                    # refuses a tokenizer without tokens for chat
T = model.config.block_size             # most ids of a prompt and its answer
end = tokenizer.stop[-1]                # what ends a turn
suppress = tokenizer.suppressed_tokens(model.config.vocab_size)     # no answer has <|im_start|>

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


# --- data -----------------------------------------------------------------------------------------
data_hash = hashlib.sha256()            # of what a run reads, which cannot change on resume


def read_pairs(path):
    """Return the pairs of a file, two rows each: (prompt, answer), ids."""
    require(os.path.exists(path), f'{path} is missing: needs pairs, not tokens or text; see config '
            'or chats.py --kind=preference --source=FILE --out_dir=NEW, and give --data_dir=NEW')
    content = pathlib.Path(path).read_bytes()
    data_hash.update(content)
    lines = content.strip().splitlines()
    rows = {'chosen': [], 'rejected': []}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            prompt = record['prompt']
            if isinstance(prompt, str):
                prompt = [{'role': 'user', 'content': prompt}]
            prompt, _ = tokenizer.render(prompt, add_generation_prompt=True)
            names = [*rows]
            if loss_type == 'kto' and 'completion' in record:
                names = [{True: 'chosen', False: 'rejected'}[record['label']]]
                record = {names[0]: record['completion']}
            answers = [[*tokenizer.encode(record[name]), end] for name in names]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path}, line {number}, is no pair ({error!r:.200}; conversations are '
                            f'for sft.py, labels for kto): {line[:60]}; see --help') from None
        if len(prompt) + max(map(len, answers)) <= T:
            for name, answer in zip(names, answers):    # arrays take a tenth of the memory of lists
                rows[name].append((np.array(prompt, np.int32), np.array(answer, np.int32)))
    better, worse = rows.values()
    found = (f'{path} has {len(lines)} lines, and {len(better)} better and {len(worse)} worse '
             f'answers that fit into {T} tokens with their prompts')
    require(better and worse, f'{found}; it needs both kinds: move lines here from the other file '
            'of the folder, or make both with a larger --val_fraction of chats.py')
    if rank == 0:
        print(found, flush=True)
    # kto's loss is a sum over answers, so any good one and any bad one make a row. The rarer kind
    # repeats.
    n = max(len(better), len(worse))
    return [(better[i % len(better)], worse[i % len(worse)]) for i in range(n)]


train = read_pairs(f'{data_dir}/train.jsonl')
pairs = train + read_pairs(f'{data_dir}/val.jsonl')[:512]   # enough for a loss to two digits
lengths = np.array([max(sum(map(len, row)) for row in pair) for pair in pairs])         # (n,)

per_epoch = math.ceil(len(train) / batch_size)                                          # steps
max_steps = config['steps'] = max_steps or max(1, round(epochs * per_epoch))
eval_interval = eval_interval or per_epoch
micro_batch_size = micro_batch_size or batch_size
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
score_of = log_p
if loss_type == 'rm':           # a score takes the place of log p
    from extras.tasks.rewards import add_head, score as score_of
    add_head(model, state.get('reward_head'))
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
opt = torch.optim.AdamW(params, learning_rate, betas=(0.9, 0.95), weight_decay=0.0,
                        fused=device_type != 'mps')
step, best_val = 0, math.inf
kto_kl = 0.0                    # kto's zero point, explained next to its loss
ref = torch.zeros(len(pairs), 2, device=device)         # log p of the reference
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir} has other data than {source} read')
    opt.load_state_dict(state['optimizer'])
    step, best_val = state['step'], state['best_val']
    ref, kto_kl = state['ref_log_probs'].to(device), state['kto_kl']
state, model.saved = {}, {}             # frees their memory


def scored(numbers):
    """Yield B of these pairs at a time, of this process (of two, the first takes 0, 2, 4, ... and
    may get none): their numbers, log p of the answers (for rm: scores), and how many tokens they
    have, (2, B) each. Row 0 has the chosen answers, row 1 the rejected ones."""
    my_numbers = numbers[rank::world]
    for i in range(0, len(my_numbers), micro_batch_size):
        batch = my_numbers[i:i + micro_batch_size]
        x, y = (t.to(device) for t in collate([pairs[number] for number in batch]))     # (2 B, T)
        with autocast:
            scores = score_of(model, x, y)
        yield batch, scores.view(2, -1), (y != IGNORE).sum(1).view(2, -1)


if step == 0 and has_reference:         # the policy is the reference: one model is in memory
    with torch.no_grad():
        # The longest come first: if memory is too small for them, this fails now.
        for batch, policy, _ in scored(np.argsort(-lengths)):
            ref[batch] = policy.T                                                         # (B, 2)
    if world > 1:               # each process has filled its rows, and left 0 in the others
        dist.all_reduce(ref)

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)


def save(name):
    """Write a checkpoint for GPT.load, a reward model's head apart. last.pt also has what
    resuming needs: moments, the reference."""
    if rank == 0:
        weights = dict(model.state_dict())
        more = {'reward_head': weights.pop('reward_head')} if loss_type == 'rm' else {}
        if name == 'last.pt':
            more |= {'optimizer': opt.state_dict(), 'data': data_hash.hexdigest(),
                     'ref_log_probs': ref, 'kto_kl': kto_kl}
        model.save(out / name, model=weights, config=config, step=step,
                   best_val=best_val, tokenizer_hash=tokenizer.hash, **more)


def log(row):
    """Print figures, and append them to metrics.jsonl, where the last row of a step counts."""
    words = [f'{name}: {value:.4g}' for name, value in row.items()]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


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
                [ids] = model.generate(ids, 100, 0, stop=tokenizer.stop, suppress=suppress)
                answer_lengths.append(len(ids) - len(prompt))
                print(f'--- step {step}\n{tokenizer.decode(ids.tolist())}\n', file=f)
        row['val_length'] = np.mean(answer_lengths)
    if rank == 0:
        log(row)
    if row['val_loss'] < best_val and step > 0:         # never the untrained model
        best_val = row['val_loss']
        save('best.pt')


def measure(numbers, zero_point=0.0):
    """Return means over these pairs, in all processes. Unless under no_grad, add this process's
    part of the gradient of their mean loss to p.grad. zero_point: kto's."""
    names = ['loss', 'preference_loss', 'accuracy', 'chosen_reward', 'rejected_reward',
             'chosen_logp', 'rejected_logp', 'log_ratio']
    sums = torch.zeros(len(names), device=device)       # a process may get no pair
    for batch, policy, n in scored(numbers):
        reference = ref[batch].T                                                          # (2, B)
        losses, chosen, rejected = preference_loss(                                     # (B,) each
            *policy, *reference, *n, loss_type, beta, gamma, zero_point)
        loss = losses - nll_weight * policy[0] / n[0]
        if torch.is_grad_enabled():
            (loss.sum() / len(numbers)).backward()
        # A tie is half right; rewards that are equal but for rounding are a tie.
        right = 0.5 + 0.5 * (chosen - rejected).round(decimals=4).sign()
        # It would be a KL over the policy's own answers; over these it may be below 0.
        log_ratio = (policy - reference).mean(0)
        figures = [loss, losses, right, chosen, rejected, *policy, log_ratio]
        sums += torch.stack(figures).detach().sum(1)
    if world > 1:
        dist.all_reduce(sums)
    row = dict(zip(names, (sums / len(numbers)).tolist()))
    row['margin'] = row['chosen_reward'] - row['rejected_reward']
    if not has_reference:
        del row['log_ratio']
    if loss_type == 'rm':       # its scores are the rewards
        del row['chosen_logp'], row['rejected_logp']
    return row


# --- the loop -------------------------------------------------------------------------------------
if rank == 0:
    print(*changed, f'{model.config}\nparameters: {len(gradient):,}, steps: {max_steps:,}, '
          f'{per_epoch:,} an epoch, processes: {world} ({device}, {dtype})\n'
          'a pair:', *[tokenizer.decode(np.concatenate(row)) for row in train[0]], sep='\n')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    began = time.perf_counter()
    # the learning rate: a linear rise, then half a cosine down to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr

    gradient.zero_()            # a process without a pair adds zeros
    batch = indices_of(step, lengths[:len(train)], batch_size, seed)
    row = measure(batch, kto_kl)        # forward and backward: it adds to p.grad
    kto_kl = max(0.0, beta * row.get('log_ratio', 0.0))     # the zero point of the next step
    if world > 1:
        dist.all_reduce(gradient)
    norm = clip_grad_norm_(params, grad_clip or math.inf).item()
    require(math.isfinite(row['loss'] + norm), f'step {step + 1}: the loss is {row["loss"]}, the '
            f'norm of the gradient {norm}; resume with a lower --learning_rate')
    opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        dt = time.perf_counter() - began
        n_tokens = sum(len(ids) for i in batch for side in pairs[i] for ids in side)
        log(row | {'lr': lr, 'grad_norm': norm, 'dt': dt, 'tok_s': n_tokens / dt,
                   'minutes_left': dt * (max_steps - step) / 60})
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    print(f'done, best val_loss {best_val:.4f}; next: python eval.py --ckpt={shlex.quote(out_dir)}')
