"""
Preference optimization: a model that answers, and pairs of a better and a worse answer -> a model
that prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=resume --out_dir=out/dpo              # resumes; on a CPU, bit for bit
    python dpo.py --init_from=out/sft --data_dir=data/pairs --loss_type=rm --out_dir=out/reward

It reads init_from, a folder that sft.py wrote, and data_dir/train.jsonl and val.jsonl, lines of
{"prompt", "chosen", "rejected"}; a prompt is text or messages. kto also takes {"prompt",
"completion", "label"} lines. It writes out_dir as train.py does.
The decision made here is the taste: who says which answer is better?

DPO in four lines. The policy p is the model that trains. The reference p_ref is the same model at
the start. A prompt has a better answer c (chosen) and a worse answer r (rejected):

    reward(c) = beta (log p(c) - log p_ref(c))      # how much likelier c has become
    reward(r) = beta (log p(r) - log p_ref(r))
    margin = reward(c) - reward(r)
    loss = -log sigmoid(margin)                     # small if c has gained more than r

With beta = 0.1, log p_ref = -11 for both, log p(c) = -10 and log p(r) = -12, the rewards are 0.1
and -0.1, the margin is 0.2 and the loss 0.598. With beta = 1, a tenth of this change in log p would
give the same margin and loss. So a larger beta keeps the policy nearer to the reference.

val_loss is the mean of this loss over held-out pairs. At step 0, policy and reference are equal, so
the margin is 0 and val_loss is ln 2 = 0.693. If val_loss is anything else at step 0, the run ends.
`loss` is the same of the pairs of a training step, plus the term that nll_weight adds.

You should see accuracy and margin rise. Often BOTH rewards fall, because the loss asks for a
difference only. It gains as much if the bad answer falls by 5 and the good one by 2 as if the good
one rises by 3. The two share most of their tokens, so pushing the bad one down also pushes the good
one down. The probabilities of all answers to a prompt add up to 1, so what these two lose goes to
answers that nobody compared. --nll_weight=1 adds the loss of SFT on the better answers, which holds
them up (Pang et al. 2024, arXiv:2404.19733). It is no part of the papers' losses, so it is off.
"""
import contextlib, math, sys
from typing import Literal
from configurator import Mistake, configure, set_by
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
from tqdm import tqdm
from model import IGNORE
from parts.model import adapters, checkpoints, copies
from parts.train import guards, optim, processes, records, runs

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/sft'           # policy and reference: a run's folder; or resume: go on in out_dir
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from prepare.py --kind=preference
out_dir = 'out/dpo'             # where the run writes
loss_type: Literal['dpo', 'ipo', 'kto', 'orpo', 'simpo', 'rm'] = 'dpo'  # rm trains a reward model
beta: float | None = None       # how much leaving the reference costs; None = 0.1, for simpo 2
epochs = 1.0                    # how often each pair is seen; 1 to 3 are usual
batch_size = 32                 # pairs per step, over all devices and accumulation
learning_rate = 3e-5            # for millions of parameters; from 100 million on 5e-7 to 5e-6
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
# files
overwrite = False               # True: delete the run that out_dir holds, and start over
# the loss
label_smoothing = 0.0           # of dpo: fraction of pairs whose labels may be wrong
gamma = 1.0                     # of simpo: margin by which the better answer must lead
nll_weight = 0.0                # weight of -log p(chosen) per token; not in orpo and rm
# optimization
max_steps = 0                   # updates, instead of epochs; 0 = as many as the epochs take
micro_batch_size = 0            # pairs per device and forward pass; 0 = all
block_size = 0                  # tokens of prompt and answer; 0 = the context; more is cut
lora = 0                        # rank of adapters that train instead of the weights; 0 = none
optimizer: Literal['adamw', 'muon'] = 'adamw'  # Muon for the blocks' matrices, AdamW for the rest
warmup_steps: int | float = 0.1  # steps of the rise; below 1: this fraction of max_steps
weight_decay = 0.0              # pull of the weights towards 0; of matrices only
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 10               # steps between lines of the log
eval_interval = 0               # steps between evaluations, also at step 0; 0 = an epoch
eval_pairs = 512                # lines of val.jsonl to evaluate on, from the first on
save_interval = 250             # steps between saves of last.pt
num_samples = 8                 # held-out prompts answered at each evaluation: samples.txt
sample_tokens = 100             # most tokens of an answer
show_batch: int | None = None   # print the pairs of this step's batch, train nothing
# machine
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'  # auto = bfloat16 if it is fast
compile = False                 # torch.compile; lengths vary, so it compiles twice
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # seed of the order of the pairs
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 1e6), 'beta': (1e-9, 1e6),
          'label_smoothing': (0, 0.49), 'log_interval': (1, 1e9), 'save_interval': (1, 1e9),
          'eval_pairs': (1, 1e9), 'num_samples': (1, 1e4), 'sample_tokens': (1, 1e6),
          'seed': (0, 2 ** 32 - 1)}
config = configure(globals(), BOUNDS)
config['stage'] = 'dpo'         # so eval.py will ask this model in conversations

# --- 1. this run and this process -----------------------------------------------------------------
# state is {} in a new run. With --init_from=resume it is the newest checkpoint in out_dir. Then the
# settings in it replace those in config, except what a flag or a config file gives now (they are in
# set_by), and the second line copies config into the variables above. From then on init_from is no
# longer the word resume: it is what the run began with, a folder or scratch.
state = runs.take_over_settings(config, set_by)
globals().update(config)
if beta is None:
    beta = config['beta'] = 2.0 if loss_type == 'simpo' else 0.1
for name, users in {'label_smoothing': ['dpo'], 'gamma': ['simpo'],
                    'beta': ['dpo', 'ipo', 'kto', 'orpo', 'simpo'],
                    'nll_weight': ['dpo', 'ipo', 'kto', 'simpo']}.items():
    if name in set_by and config[name] and loss_type not in users:
        raise Mistake(f'{name}={config[name]} needs --loss_type={" or ".join(users)}, not '
                      f'{loss_type}; leave it out' + f', or type --{name}=0' * (name != 'beta'))

# torchrun starts one process for each device. The processes share the pairs of each step.
# `here` is this process: its rank, the number of processes (world), its device ('cuda:1'), the kind
# of device ('cuda') and the dtype of matrix products, as text.
here = processes.Process(config)
micro_batch_size = micro_batch_size or batch_size // here.world
autocast = torch.autocast(here.kind, getattr(torch, here.dtype), enabled=here.dtype != 'float32')
scaler = torch.amp.GradScaler(here.kind, enabled=here.dtype == 'float16')


# --- 2. the losses --------------------------------------------------------------------------------
def log_odds(m):
    """Return the log of the odds p / (1 - p), where m = log p: for p = 0.8 it is log 4 = 1.39. The
    odds of p = 1 would be infinite, so m is at most -1e-30."""
    m = m.clamp(max=-1e-30)
    # log p - log(1 - p). expm1(m) is e^m - 1 = p - 1. With 1 - e^m, a p near 1 would be rounded to
    # 1, and log(1 - p) would be infinite.
    return m - torch.log(-torch.expm1(m))


def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len,
                    rejected_len, loss_type, beta, label_smoothing=0.0, gamma=1.0, kl=0.0):
    """Return the losses, and the rewards of both answers, of B pairs: float32 (B,) each.

    Take the pair from the top of this file, and let c have 5 tokens and r 4. log p is -10 and -12,
    and -11 for both under the reference. With beta = 0.1, gamma = 1 and kl = 0:

                rewards     loss
        dpo     0.1, -0.1   the margin is 0.2: -log sigmoid(0.2) = 0.598
        ipo     0.1, -0.1   the log-ratios 1 and -1 differ by 2, the target is 5: (2 - 5)^2 = 9
        kto     0.1, -0.1   c is 0.1 above the zero point: 1 - sigmoid(0.1) = 0.475. r is 0.1 below
                            it, which costs as much, so the mean is 0.475
        orpo   -0.2, -0.3   SFT's loss is 2, and beta times 0.289 (see below) makes it 2.029
        simpo  -0.2, -0.3   c leads by 0.1 and should by 1: -log sigmoid(0.1 - 1) = 1.241. With
                            its default, beta = 2, c would lead by 2, and the loss be 0.313
        rm      -10, -12    -log sigmoid(2) = 0.127

    orpo compares the odds p / (1 - p), where log p is the mean over the tokens of an answer:

                log p               p       odds
        c       -10 / 5 = -2        0.135   0.157
        r       -12 / 4 = -3        0.050   0.052

    The odds are as 2.987 to 1. So -log sigmoid(log 2.987) = -log(2.987 / 3.987) = 0.289.

    policy_*, ref_*: log p of an answer, in nats, summed over its tokens (for rm: its score). *_len:
    how many tokens it has, 0 if a kto record has no such answer. kl: kto's zero point, explained
    next to its loss."""
    policy_chosen, policy_rejected = policy_chosen.float(), policy_rejected.float()
    ratio_chosen = policy_chosen - ref_chosen                       # log (p / p_ref)
    ratio_rejected = policy_rejected - ref_rejected
    mean_chosen = policy_chosen / chosen_len.clamp(min=1)           # log p per token
    mean_rejected = policy_rejected / rejected_len.clamp(min=1)
    chosen = beta * ratio_chosen                                    # the rewards
    rejected = beta * ratio_rejected

    if loss_type == 'dpo':
        # Rafailov et al. 2023, arXiv:2305.18290, eq. 7. Sums over tokens, because p of an answer is
        # a product. label_smoothing: this fraction of the pairs counts the other way round (cDPO).
        margin = chosen - rejected
        losses = (-(1 - label_smoothing) * F.logsigmoid(margin)
                  - label_smoothing * F.logsigmoid(-margin))
    elif loss_type == 'ipo':
        # If all annotators agree, dpo's margin grows for ever, and beta no longer holds the policy
        # back. Here the margin has a target. Azar et al. 2023, arXiv:2310.12036, eq. 17. As in the
        # paper, log p is the sum over the tokens of an answer (docs/chat.md converts TRL's beta).
        losses = (ratio_chosen - ratio_rejected - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        # No pairs: the reward of a good answer should be above a zero point, kl, and that of a bad
        # one below it. With 0 as the zero point, a policy that makes every answer likelier would
        # seem to get better at the good ones. So kl is what answers have gained on average: beta
        # times the mean of log p - log p_ref. If that mean is 0.3 and beta is 0.1, kl is 0.03, and
        # a good answer must earn more than 0.03. kl is never below 0, and has no gradient. We
        # average over the answers of the step before; in the first step kl is 0. The paper
        # estimates beta KL(policy | reference), with answers to other prompts.
        # A pair's loss is the mean of both. Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8
        has_chosen = (chosen_len > 0).float()
        has_rejected = (rejected_len > 0).float()
        losses = has_chosen * (kl - chosen).sigmoid() + has_rejected * (rejected - kl).sigmoid()
        losses = losses / (has_chosen + has_rejected)
    elif loss_type == 'orpo':
        # No reference: SFT's loss, the first term, takes its place. Means per token, because with
        # sums every p would be near 0, where odds and p are the same. Hong et al. 2024,
        # arXiv:2403.07691, eq. 6
        losses = -mean_chosen - beta * F.logsigmoid(log_odds(mean_chosen) - log_odds(mean_rejected))
        chosen = beta * mean_chosen
        rejected = beta * mean_rejected
    elif loss_type == 'simpo':
        # No reference. Means per token, so that a long answer neither loses nor wins by its length;
        # the better one must lead by gamma. Meng et al. 2024, arXiv:2405.14734, eq. 6
        chosen = beta * mean_chosen
        rejected = beta * mean_rejected
        losses = -F.logsigmoid(chosen - rejected - gamma)
    elif loss_type == 'rm':
        # The rewards are the scores. Bradley and Terry 1952; for language models arXiv:2203.02155,
        # eq. 1
        chosen = policy_chosen
        rejected = policy_rejected
        losses = -F.logsigmoid(chosen - rejected)
    else:
        raise ValueError(f'loss_type={loss_type} must be dpo, ipo, kto, orpo, simpo or rm')
    return losses, chosen.detach(), rejected.detach()


def answer_log_probs(logits, y):
    """Return log p of N answers, float32 (N,), from logits (N, T, V) and targets (N, T): the sum
    over their tokens. Targets that are IGNORE count nothing."""
    nats = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction='none')
    return -nats.view_as(y).sum(1)


# Only these three have a reference: orpo, simpo and rm need none. Policy and reference begin as the
# same model, so at first all their rewards are 0, and the first loss is known: with dpo it is ln 2.
first_losses = {'dpo': math.log(2), 'ipo': 1 / (2 * beta) ** 2, 'kto': 0.5}
has_reference = loss_type in first_losses

# --- 3. model and optimizer -----------------------------------------------------------------------
model, tokenizer = checkpoints.open_to_tune(config, state)
if not adapters.knows_chat(model, tokenizer):
    raise Mistake(f'{init_from} was not trained on <|im_start|> and <|im_end|>; fine-tune it '
                  f'first: python sft.py --init_from={init_from}')
block_size = block_size or model.config.block_size
model = copies.like(model, dropout=0.0).to(here.device)     # else policy and reference would differ
model.grad_checkpoint = grad_checkpoint
adapters.adapt(model, lora)
# The reward model's score is a new linear layer, n_embd -> 1 without bias, of the last block's
# hidden state (after the final norm) at the last token of the answer, <|im_end|> unless it was cut.
policy = adapters.RewardModel(model) if loss_type == 'rm' else model
opt = optim.build(policy, optimizer, learning_rate, weight_decay)
step = state.get('step', 0)
tokens = state.get('tokens', 0)
best_val = state.get('best_val', math.inf)
kto_kl = state.get('kto_kl', 0.0)       # kto's zero point, explained next to its loss
if state:
    processes.load_state(policy, opt, scaler, state)
net = torch.compile(policy) if compile else policy
if here.world > 1:      # averages the gradients of all processes while backward() is still running
    net = DDP(net, gradient_as_bucket_view=True)

# --- 4. data --------------------------------------------------------------------------------------
train, held_out, identity, summary = records.open_files(
    data_dir, records.read_pairs, block_size, tokenizer, loss_type)
pairs = train + held_out[:eval_pairs]       # rows, below, are numbers of pairs in this list
sizes = np.array([[len(prompt) + len(answer) for prompt, answer in pair]
                  for pair in pairs])                                               # (n, 2): tokens
# batches.of(step): the numbers of a step's pairs, which have about the same length, so that little
# is padded.
batches = records.Batches(sizes[:len(train)].max(1), batch_size, seed)
max_steps = max_steps or max(1, round(epochs * batches.per_epoch))
epochs = max_steps / batches.per_epoch
eval_interval = eval_interval or batches.per_epoch
warmup_steps = optim.schedule_ends(max_steps, warmup_steps, learning_rate, 0.0)[0]
if show_batch is not None:
    for row, j in enumerate(batches.of(show_batch)):
        for (prompt, answer), name in zip(pairs[j], ('chosen', 'rejected')):
            print(f'--- step {show_batch}, pair {row} of {batch_size}, {name}\n'
                  f'{tokenizer.decode(prompt)}[[{tokenizer.decode(answer)}]]')
    sys.exit()


def scores_of(net, rows):
    """Return log p of the chosen and of the rejected answers of B pairs (for rm: their scores), and
    how many tokens each has. (2, B) both."""
    # Rows 0 to B - 1 are the chosen answers, the others the rejected ones.
    x, y = records.collate([pairs[j][side] for side in (0, 1) for j in rows])       # (2 B, T) each
    x, y = x.to(here.device), y.to(here.device)
    with autocast:
        scores = net(x, y) if loss_type == 'rm' else answer_log_probs(net(x)[0], y)         # (2 B,)
    return scores.view(2, -1), (y != IGNORE).sum(1).view(2, -1)


def my_micro_batches(rows):
    """Return the micro-batches of rows that this process computes. If there are four of them and
    two processes, the first process has 0 and 2."""
    parts = [rows[i:i + micro_batch_size] for i in range(0, len(rows), micro_batch_size)]
    return parts[here.rank::here.world]


# ref: log p of all answers under the reference, (n, 2). It is computed once, now, while the policy
# still is the reference. So only one model is in memory.
ref = state.get('ref_log_probs', torch.zeros(len(pairs), 2))
if has_reference and not state:
    # The micro-batches of this process. The longest pairs come first, so that too little memory for
    # a forward pass shows at once.
    longest_first = my_micro_batches(np.argsort(-sizes.max(1)))
    with torch.no_grad():
        for rows in tqdm(longest_first, 'log p under the reference', disable=not here.is_main):
            scores, _ = scores_of(policy, rows)                                             # (2, B)
            ref[rows] = scores.T.cpu()                                                      # (B, 2)
    # Each process has filled the rows of its share and left 0 in the others. gather returns one
    # tensor (n, 2) of each process, and their sum has all rows.
    ref = sum(here.gather(ref))
ref = ref.to(here.device)

# --- 5. what is trained, what is shown, what is saved ---------------------------------------------
# From here on the run writes into out_dir: train.log, metrics.jsonl and samples.txt by log, which
# also keeps other runs out of the folder, and checkpoints by save().
log = runs.Log(config, set_by, state, here, model, tokenizer, identity, max_steps=max_steps)
# The guard refuses the update of a step whose loss or gradient is a NaN.
guard = guards.Guard(state, log, here.dtype)
log.say(f'  data     {summary}\n  plan     {max_steps:,} steps = {epochs:.2f} epochs of '
        f'{batches.per_epoch:,} steps')


def losses_of(net, rows):
    """Return the losses of B pairs, (B,), and what the log says of them: {name: a number for each
    pair, or for each answer that there is, because kto's may come alone}."""
    # scores, n (numbers of tokens) and ref_scores are (2, B): row 0 has the chosen answers, row 1
    # the rejected ones.
    scores, n = scores_of(net, rows)
    ref_scores = ref[rows].T
    losses, chosen, rejected = preference_loss(
        scores[0], scores[1], ref_scores[0], ref_scores[1], n[0], n[1],
        loss_type, beta, label_smoothing, gamma, kto_kl)
    has_chosen, has_rejected = n > 0                                                # (B,) each
    # A tie counts as half right. Without rounding, a model that has not learned anything yet would
    # win and lose by the last digits.
    figures = {'preference_loss': losses,
               'accuracy': 0.5 + 0.5 * (chosen - rejected).round(decimals=4).sign(),
               'chosen_reward': chosen[has_chosen],
               'rejected_reward': rejected[has_rejected]}
    if loss_type != 'rm':
        figures |= {'chosen_logp': scores[0][has_chosen], 'rejected_logp': scores[1][has_rejected]}
    if has_reference:
        # How much likelier the answers of a pair have become, (B,): the mean of log p - log p_ref.
        # For 1 and -0.4 it is 0.3. An answer that is missing adds 0, and is not counted. KL is the
        # mean over answers that the policy writes. These answers come from others, so this mean
        # says only how far the policy has moved on them, and it may be below 0.
        figures['kl'] = (scores - ref_scores).sum(0) / (n > 0).sum(0)
    if nll_weight and loss_type not in ('orpo', 'rm'):
        losses = losses - nll_weight * scores[0] / n[0].clamp(min=1)
    return losses, {name: values.detach().cpu() for name, values in figures.items()}


def means(parts):
    """Return the mean of each name over the micro-batches of all processes: 'accuracy' is 0.625 if
    two micro-batches have 1, 1 and 0.5, 0. If there is no such answer it is nan, which
    metrics.jsonl writes as null."""
    parts = [part for process_parts in here.gather(parts) for part in process_parts]
    row = {name: torch.cat([part[name] for part in parts]).double().mean().item()
           for name in parts[0]}
    row['margin'] = row['chosen_reward'] - row['rejected_reward']
    return row


@torch.no_grad()
def write_samples():
    """Write greedy answers to the first held-out prompts into samples.txt. Return their mean number
    of tokens."""
    log.say(f'--- step {step}', 'samples.txt')
    lengths = []
    for (prompt, _), _ in held_out[:num_samples]:
        ids = torch.tensor([prompt], device=here.device)                            # (1, T)
        with autocast:
            [ids] = model.generate(ids, sample_tokens, temperature=0, stop=tokenizer.stop).tolist()
        log.say(tokenizer.decode(ids) + '\n', 'samples.txt')
        lengths.append(len(ids) - len(prompt))
    return np.mean(lengths)


@torch.no_grad()
def evaluate():
    """Log the means over the held-out pairs, and write samples. best.pt keeps the best."""
    global best_val
    with log.timed('eval'):
        held_out_rows = my_micro_batches(np.arange(len(train), len(pairs)))
        row = means([losses_of(policy, rows)[1] for rows in held_out_rows])
        row = {'val_loss': row.pop('preference_loss'), **{f'val_{name}': row[name] for name in row}}
        if here.is_main and loss_type != 'rm':
            row['val_response_len'] = write_samples()
    log.evaluation(step, tokens=tokens, **row)
    if row['val_loss'] < best_val and step > 0:         # never the untrained model
        best_val = row['val_loss']
        save('best.pt')
    return row


def save(name='last.pt'):
    """Write all that resuming needs. The last.pt before becomes last-1.pt."""
    log.save(name, policy, opt, scaler, guard, step=step, tokens=tokens, best_val=best_val,
             kto_kl=kto_kl, ref_log_probs=ref)


# --- 6. the loop ----------------------------------------------------------------------------------
if step == 0:
    first = evaluate()
    if has_reference:
        # Policy and reference are still the same model, so all rewards are 0 and the loss is known,
        # but for rounding. Comparisons with nan are false, so `not` refuses nan as well.
        known = first_losses[loss_type]
        is_known = math.isclose(first['val_loss'], known, rel_tol=1e-3, abs_tol=1e-3)
        if not (is_known and abs(beta * first['val_kl']) <= 1e-2):
            raise Mistake(f'the first {loss_type} loss is {first["val_loss"]:.5f} and val_kl is '
                          f'{first["val_kl"]:.4f}, but policy and reference are the same model: '
                          f'{known:.5f} and 0 are expected; try --dtype=float32')
while step < max_steps:
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, 0.0)    # lr_at() of train.py
    for group in opt.param_groups:
        group['lr'] = lr

    # the gradient of the mean loss over the pairs of the step
    all_rows = batches.of(step)                                             # (batch_size,)
    micro_batches = my_micro_batches(all_rows)
    parts = []
    loss = 0.0
    for i, rows in enumerate(micro_batches):                                # (micro_batch_size,)
        # DDP averages the gradients over the processes after the last micro-batch only.
        is_last = i == len(micro_batches) - 1
        with contextlib.nullcontext() if is_last or not isinstance(net, DDP) else net.no_sync():
            losses, figures = losses_of(net, rows)
            share = losses.sum() / batch_size       # every pair of the step counts the same
            # DDP divides the sum of all gradients by world; times world undoes it.
            scaler.scale(share * here.world).backward()
        loss += share.item()
        parts.append(figures)

    # the update
    scaler.unscale_(opt)                        # float16's gradients were scaled up
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf).item()
    # Ctrl-C may reach one process only. The sum tells all, so they stop after the same step.
    loss, stop_requests = here.sum(loss, here.stop_requests)
    if loss_type == 'kto':
        # the zero point of the next step, explained next to the loss
        kto_kl = max(0.0, beta * means(parts)['kl'])
    if guard.allows(step, loss, norm):          # no NaN; it logs what it refuses
        scaler.step(opt)
    scaler.update()
    opt.zero_grad(set_to_none=here.world == 1)  # DDP's gradients stay in its buckets, as zeros
    tokens += int(sizes[all_rows].sum())
    step += 1

    if step in (1, max_steps) or step % log_interval == 0:
        log.step(('accuracy', 'margin'), step=step, tokens=tokens, loss=loss, lr=lr, grad_norm=norm,
                 skipped=guard.skipped, **means(parts))

    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    stopping = stop_requests or guard.trouble       # the same answer in all processes
    if step % save_interval == 0 or step == max_steps or stopping:
        save()
    if stopping:
        break

# --- summary --------------------------------------------------------------------------------------
command = ['sample.py', f'--ckpt={out_dir}', '--chat=True'] if loss_type != 'rm' else []
log.end(step, best_val, command)
here.leave(guard.trouble)
