"""
Preference optimisation: a model that answers, and pairs of a better and a worse answer -> a model that
prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=resume --out_dir=out/dpo --data_dir=data/pairs     # resumes
    python dpo.py --init_from=out/sft --data_dir=data/pairs --loss_type=rm --out_dir=out/reward

Reads init_from, a folder that sft.py wrote, and data_dir/train.jsonl and val.jsonl, lines of {"prompt",
"chosen", "rejected"}, the prompt as text or as messages; for kto also {"prompt", "completion", "label": true
or false}. Writes out_dir as train.py does. The reference is init_from itself: its log-probabilities are
computed once and kept in data_dir, so only one model is in memory. Copy this file with configurator.py,
model.py, tokenizer.py and parts/. The decision made here is the taste: who says which answer is better?

You should see a first preference_loss of ln 2 (dpo): policy and reference are still the same. Another value
ends the run. Then accuracy and margin rise. Often BOTH rewards, beta log(p / p_ref), fall. Why? The loss
asks for a difference only: it gains as much if the bad answer falls by 5 and the good one by 2 as if the good
one rises by 3. They share most of their tokens, so pushing one pushes the other; the probability moves to
answers that nobody compared. nll_weight holds the good answers up (Pang et al. 2024, arXiv:2404.19733). Try 0
and read samples.txt. docs/chat.md shows how DPO follows from RLHF (a reward model, then PPO).
"""
import functools, math, os, sys
import numpy as np
import torch
import torch.nn.functional as F
from configurator import configure, defaults, show
from model import IGNORE, load_checkpoint, save_checkpoint
from parts.train import adapters, checkpoint, journal, machine, optim, records, reference
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/sft'           # policy and reference: the folder of a run; or resume: continue in out_dir
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from prepare.py --kind=preference
data_from = ''                  # the command that makes data_dir: errors name it, other data are refused
out_dir = 'out/dpo'             # where the run writes
overwrite = False               # True: start over in an out_dir that holds a run, and delete that run
# the loss
loss_type = 'dpo'               # dpo | ipo | kto | orpo | simpo | rm: rm trains a reward model
beta: float | None = None       # > 0: how much leaving the reference costs; None = 0.1, for simpo 2
label_smoothing = 0.0           # [0, 0.5): dpo: share of pairs that are expected to have swapped labels
gamma = 1.0                     # >= 0: simpo: margin by which the better answer must lead
nll_weight = 1.0                # >= 0: dpo, ipo, kto, simpo: adds this * -log p(chosen) per token; papers: 0
# optimisation
epochs = 1.0                    # >= 0: how often each pair is seen
max_steps = 0                   # >= 0: updates, instead of epochs; 0 = as many as the epochs take
batch_size = 32                 # [1, 2**20]: pairs per step, over all devices and accumulation
micro_batch_size = 0            # >= 0: pairs per device and forward pass; 0 = all; lower saves memory
block_size = 0                  # >= 0: tokens of prompt and answer; 0 = the model's context; the rest is cut
lora = 0                        # >= 0: rank of the adapters that train instead of the weights; 0 = none
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 3e-5            # >= 0: for millions of parameters; from 100 million on 5e-7 to 5e-6
min_lr = 0.0                    # >= 0: where the schedule ends
warmup_steps = 10               # >= 0: linear rise
weight_decay = 0.0              # >= 0: of matrices only
beta1 = 0.9                     # [0, 1): AdamW's decay of the mean gradient
beta2 = 0.95                    # [0, 1): and of the mean square
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
# watching
log_interval = 10               # >= 1: steps
eval_interval = 0               # >= 0: steps; 0 = each epoch; also before the first and after the last
eval_pairs = 512                # >= 1: of val.jsonl, the first ones, always the same
save_interval = 250             # >= 1: steps
num_samples = 8                 # >= 1: held-out prompts that are answered at each evaluation: samples.txt
sample_tokens = 100             # >= 1: of an answer, at most
show_batch: int | None = None   # >= 0: print the pairs of this step's batch, train nothing
plan = ''                       # 8xH100, 2xcpu, ...: print memory, days and cost, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of matrix products; auto = native
compile = False                 # torch.compile; lengths vary, so it compiles twice
grad_checkpoint = False         # keep each block's input and compute the rest again: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())
config['stage'] = 'dpo'         # so eval.py will ask this model in conversations
if beta is None:
    beta = config['beta'] = 2.0 if loss_type == 'simpo' else 0.1
for name, its_type in ('label_smoothing', 'dpo'), ('gamma', 'simpo'):
    if config[name] != defaults[name] and loss_type != its_type:
        raise ValueError(f'{name}={config[name]} is for loss_type={its_type}, not {loss_type}')

# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
rank, world, local_rank = machine.ranks()       # one process per device; torchrun starts them
main_process = rank == 0
device, dtype = machine.choose(device, dtype, local_rank)
autocast = machine.autocast(device, dtype)
scaler = torch.amp.GradScaler(device.split(':')[0], enabled=dtype == 'float16')     # float16's range is small
per_rank, micro_batch_size = machine.shares(batch_size, micro_batch_size, world)    # per process, per pass
oom_advice = machine.OutOfMemoryAdvice(micro_batch_size, per_rank, grad_checkpoint)
last_path = checkpoint.check_out_dir(out_dir, init_from, overwrite)
log = journal.Journal(out_dir, main_process)
machine.join(device)
# --- end setup ---


# --- the losses ---------------------------------------------------------------------------------------------
def log_odds(m):
    """log(p / (1 - p)) for p = e^m, shape of m. p = 1 would have infinite odds, so m is at most -1e-30."""
    m = m.clamp(max=-1e-30)
    return m - torch.log(-torch.expm1(m))


def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len, rejected_len,
                    loss_type, beta, label_smoothing=0.0, gamma=1.0, kl=0.0):
    """Losses and the rewards of both answers, float32 (B,) each, for B pairs. policy_*, ref_*: log p of an
    answer, in nats, summed over its tokens (for rm: its score). *_len: the number of its tokens, 0 if a kto
    record has no such answer. kl: kto's zero point, a number: in the paper, beta KL(policy | reference).

    With r = log p - log p_ref for each of the two, and s = log sigmoid:
    dpo    -s(beta (r_c - r_r)); smoothed: a share of the pairs counted the other way round, cDPO. Rafailov et
           al. 2023, arXiv:2305.18290, eq. 7; sums over tokens, because p of an answer is a product.
    ipo    (r_c - r_r - 1 / (2 beta))^2. Azar et al. 2023, 2310.12036, eq. 17. Sums. The margin has a target.
           With dpo it grows for ever if all annotators agree, and beta no longer holds the policy back.
    kto    1 - sigmoid(beta r_c - kl)  or  1 - sigmoid(kl - beta r_r); the mean, if a pair has both answers.
           Ethayarajh et al. 2024, 2402.01306, eq. 8, with both weights 1. Sums.
    orpo   -m_c - beta s(log odds_c - log odds_r), with m = log p / length, odds = e^m / (1 - e^m). Hong et
           al. 2024, 2403.07691, eq. 6. No reference: the first term, SFT's loss, takes its place. Means per
           token: with sums every p would be near 0, where odds and p are the same.
    simpo  -s(beta m_c - beta m_r - gamma). Meng et al. 2024, 2405.14734, eq. 6. No reference. Means per
           token, so that a long answer neither loses nor wins by its length.
    rm     -s(score_c - score_r). Bradley and Terry 1952; for language models 2203.02155, eq. 1."""
    ratio_chosen = policy_chosen.float() - ref_chosen.float()
    ratio_rejected = policy_rejected.float() - ref_rejected.float()
    mean_chosen = policy_chosen.float() / chosen_len.clamp(min=1)
    mean_rejected = policy_rejected.float() / rejected_len.clamp(min=1)
    chosen, rejected = beta * ratio_chosen, beta * ratio_rejected               # the rewards
    if loss_type == 'dpo':
        margin = chosen - rejected
        losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    elif loss_type == 'ipo':
        losses = (ratio_chosen - ratio_rejected - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        has_chosen, has_rejected = (chosen_len > 0).float(), (rejected_len > 0).float()
        losses = has_chosen * (kl - chosen).sigmoid() + has_rejected * (rejected - kl).sigmoid()
        losses = losses / (has_chosen + has_rejected)
    elif loss_type == 'orpo':
        chosen, rejected = beta * mean_chosen, beta * mean_rejected
        losses = -mean_chosen - beta * F.logsigmoid(log_odds(mean_chosen) - log_odds(mean_rejected))
    elif loss_type == 'simpo':
        chosen, rejected = beta * mean_chosen, beta * mean_rejected
        losses = -F.logsigmoid(chosen - rejected - gamma)
    elif loss_type == 'rm':
        chosen, rejected = policy_chosen.float(), policy_rejected.float()
        losses = -F.logsigmoid(chosen - rejected)
    else:
        raise ValueError(f'loss_type={loss_type} must be dpo, ipo, kto, orpo, simpo or rm')
    return losses, chosen.detach(), rejected.detach()


class Scorer(torch.nn.Module):
    """Inputs and targets (N, T) -> (N,) float32: log p of the targets that are not IGNORE, summed. With a
    reward head (rm): the score that the head gives to the hidden state at the end of the answer."""

    def __init__(self, model, with_head=False):
        super().__init__()
        self.model, self.head = model, None
        if with_head:
            self.head = torch.nn.Linear(model.config.n_embd, 1, bias=False, device=device)
            torch.nn.init.zeros_(self.head.weight)      # so the first loss is ln 2

    def forward(self, x, y):
        if self.head is None:
            return -F.cross_entropy(self.model(x)[0].flatten(0, 1), y.flatten(), ignore_index=IGNORE,
                                    reduction='none').view_as(y).sum(1)                     # (N,)
        at = torch.arange(y.shape[1], device=y.device)                                      # (T,)
        end = torch.where(y != IGNORE, at, 0).amax(1) + 1   # (N,): where <|im_end|>, the last target, is
        rows = torch.arange(len(x), device=x.device)
        hidden = self.model.backbone(x)[rows, end.clamp(max=at[-1])]                        # (N, C)
        return self.head(hidden).float()[:, 0]


# --- model --------------------------------------------------------------------------------------------------
load = functools.partial(load_checkpoint, device=device)
model, state, tokenizer = checkpoint.to_fine_tune(init_from, last_path, load, Tokenizer.load,
                                                  writes=loss_type != 'rm' and init_from != 'resume')
if tokenizer.vocab_size > model.config.vocab_size:
    raise ValueError(f'{init_from} has never seen <|im_start|> and <|im_end|>; fine-tune it first: python '
                     f'sft.py --init_from={init_from}')
model = model.like(dropout=0.0)         # or policy and reference would differ
model.grad_checkpoint = grad_checkpoint
block_size = block_size or model.config.block_size
checkpoint.check_context(init_from, model.config.block_size, block_size)
if plan:
    from parts.train import planner
    planner.show(plan, config, vars(model.config), 'dpo')
    sys.exit()
pad = tokenizer.special.get('<|pad|>', 0)


# --- data ---------------------------------------------------------------------------------------------------
def collate(pairs, pad, n_newline):
    """Pairs -> inputs and targets, int64 (2 B, T): all chosen, then all rejected answers, padded right.
    Targets: the answer's tokens up to <|im_end|>, else IGNORE. n_newline: tokens of the newline behind it."""
    rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    T = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    x, y = np.full((len(rows), T), pad), np.full((len(rows), T), IGNORE)            # (2 B, T) each
    for row, (prompt, answer) in enumerate(rows):
        ids = [*prompt, *answer]
        scored = max(0, len(answer) - n_newline)
        x[row, :len(ids) - 1] = ids[:-1]
        y[row, len(prompt) - 1:len(prompt) - 1 + scored] = answer[:scored]
    return x, y


train_path, val_path = os.path.join(data_dir, 'train.jsonl'), os.path.join(data_dir, 'val.jsonl')
journal.check_data(data_dir, ['train.jsonl', 'val.jsonl'], data_from)
pairs, n_cut, n_same = records.read_pairs(train_path, block_size, tokenizer, loss_type)
held_out = records.read_pairs(val_path, block_size, tokenizer, loss_type)[0][:eval_pairs]
digests = [records.digest(train_path), records.digest(val_path)]
n_newline = len(tokenizer.encode_inside('\n'))
lengths = np.array([max(len(p) + len(a) for p, a in pair) for pair in pairs])
batches = records.Batches(lengths, batch_size, seed)
max_steps = max_steps or max(1, round(epochs * batches.per_epoch))
eval_interval = eval_interval or batches.per_epoch
warmup_steps = min(warmup_steps, max_steps)
optim.ends(max_steps, warmup_steps, learning_rate, min_lr)          # refuses an impossible schedule


def rows_of(step):
    """This process's pairs of a step, as micro-batches, (accumulated, micro_batch_size)."""
    return batches.of(step)[rank * per_rank:(rank + 1) * per_rank].reshape(-1, micro_batch_size)


def tensors(part):
    """Inputs and targets (2 B, T) and lengths of the answers (2, B) of B pairs, on the device."""
    x, y = machine.to_device(collate(part, pad, n_newline), device)
    return x, y, (y != IGNORE).sum(1).view(2, -1)


if show_batch is not None:
    for row, j in enumerate(batches.of(show_batch)):
        for (prompt, answer), name in zip(pairs[j], ('chosen', 'rejected')):
            print(f'--- step {show_batch}, pair {row} of {batch_size}, {name}\n{tokenizer.decode(prompt)}[['
                  f'{tokenizer.decode(answer[:len(answer) - n_newline])}]]')
    sys.exit()


# --- reference: its log-probabilities are computed once, so only one model is in memory ---------------------
@torch.no_grad()
def log_probs(model, pairs):
    """log p of the chosen and the rejected answers, float64 (n, 2). The processes share the work."""
    model.eval()
    found = np.zeros((len(pairs), 2))
    lengths = np.array([max(len(p) + len(a) for p, a in pair) for pair in pairs])
    mine = np.argsort(-lengths, kind='stable')[rank::world]     # longest first: too little memory fails early
    for i in range(0, len(mine), micro_batch_size):
        rows = mine[i:i + micro_batch_size]
        x, y, _ = tensors([pairs[j] for j in rows])
        with autocast:
            found[rows] = Scorer(model)(x, y).view(2, -1).T.cpu().double().numpy()          # (B, 2)
    model.train()
    return np.array(machine.all_sum(*found.ravel())).reshape(found.shape)


needs_reference = loss_type in ('dpo', 'ipo', 'kto')
ref, reference_hash = np.zeros((len(pairs) + len(held_out), 2)), None
if state:
    checkpoint.same_data(last_path, state.get('pairs'), f'{data_dir}/*.jsonl', digests, out_dir)
    checkpoint.must_agree(last_path, state['config'], config, ['loss_type', 'optimizer'])
if needs_reference:
    reference_hash = state['reference'] if state else reference.fingerprint(model)
    reference_path = reference.path_for(data_dir, reference_hash, digests, tokenizer.hash, block_size, dtype,
                                        eval_pairs)
    ref = reference.read(reference_path, len(ref))
    if machine.all_sum(ref is not None)[0] < world:       # not all can read it: all compute it
        if main_process:
            print(f'computing the reference log-probabilities of {len(pairs + held_out):,} pairs', flush=True)
        its_model = load(state['config']['init_from'])[0] if state else model
        if reference.fingerprint(its_model) != reference_hash:
            raise ValueError(f'{state["config"]["init_from"]} no longer holds the model that the run started '
                             'from: its log-probabilities, deleted or damaged, cannot be computed again')
        ref = np.concatenate([log_probs(its_model, pairs), log_probs(its_model, held_out)])
        if main_process:
            reference.write(reference_path, ref)
        del its_model
ref = torch.from_numpy(ref).float()                         # (n, 2)

# --- policy, optimizer, resume ------------------------------------------------------------------------------
step, best_val = 0, math.inf
adapters.adapt(model, lora, state)
policy = Scorer(model, with_head=loss_type == 'rm')
if loss_type == 'rm' and not model.config.tie_embeddings:
    model.head.requires_grad_(False)    # a score does not use it, and DDP would wait for its gradient
optimizers = optim.build(policy, optimizer, learning_rate, (beta1, beta2), weight_decay)
if state:
    optim.restore(model, None, optimizers, state['optimizers'])         # None: the model has its weights
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())      # {} without float16
    step, best_val = machine.agreed(last_path, state['step'], state['best_val'])
if loss_type == 'rm' and 'reward_head' in (rest := state or load(init_from)[1]):    # continue that head
    policy.head.load_state_dict({'weight': rest['reward_head']})
net = torch.compile(policy) if compile else policy
net = machine.wrap(net, 'ddp', device)


# --- schedule: same text in train.py, sft.py, dpo.py, rl.py ---
def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """The learning rate of update `step`, counted from 0: a linear rise that reaches learning_rate with the
    last warm-up step, then half a cosine down to min_lr at max_steps (SGDR, arXiv:1608.03983, no restarts).
    lr_at(step, 100, 10, 1.0, 0.1): 0.1 at step 0, 1.0 at 9 and 10, 0.55 at 55, 0.1 at 100. schedule='wsd'
    stays at the top and falls linearly in the last decay_steps (WSD, 2404.06395; linear: 2405.18392)."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        t = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))      # 0, then 0 .. 1
        return learning_rate - (learning_rate - min_lr) * t
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)        # 0 .. 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * t))
# --- end schedule ---


FIGURES = ('preference_loss', 'accuracy', 'margin', 'chosen_reward', 'rejected_reward', 'chosen_logp',
           'rejected_logp', 'kl')
shown = FIGURES[:{'rm': 5, 'orpo': 7, 'simpo': 7}.get(loss_type, 8)]    # no reference: no kl; rm: no log p
kto_kl = state.get('kto_kl', 0.0)       # from the step before, so it is the same on any number of processes


def losses_of(scorer, part, ref):
    """For B pairs: their losses (B,) and a table (10, B): FIGURES, then 1 or 0 for "has a chosen answer" and
    for "has a rejected answer". kl is the mean of log p_ref - log p over both answers. It estimates
    KL(reference | policy) if the reference wrote the answers."""
    x, y, n = tensors(part)                                                                 # n (2, B)
    ref = ref.to(device).T                                                                  # (2, B)
    with autocast:
        scores = scorer(x, y).view(2, -1)                                                   # (2, B)
    losses, chosen, rejected = preference_loss(*scores, *ref, *n, loss_type, beta, label_smoothing, gamma,
                                               kto_kl)
    with torch.no_grad():
        margin = chosen - rejected
        accuracy = 0.5 + 0.5 * margin.sign()            # a tie is half right
        drift = (ref - scores.detach()).sum(0) / (n > 0).sum(0)
        figures = torch.stack([losses.detach(), accuracy, margin, chosen, rejected, *scores.detach(), drift,
                               *(n > 0).float()])
    if nll_weight and loss_type in ('dpo', 'ipo', 'kto', 'simpo'):
        losses = losses - nll_weight * scores[0] / n[0].clamp(min=1)
    return losses, figures


def means(totals, n):
    """The means of FIGURES over n pairs. totals: this process's sums of the table of losses_of. An answer
    that a KTO record does not have is not counted."""
    *sums, n_chosen, n_rejected = machine.all_sum(*totals.tolist())
    found = {name: total / n for name, total in zip(FIGURES, sums)}
    for name in ('reward', 'logp'):
        found[f'chosen_{name}'] *= n / max(1, n_chosen)
        found[f'rejected_{name}'] *= n / max(1, n_rejected)
    return found | {'margin': found['chosen_reward'] - found['rejected_reward']}


@torch.no_grad()
def evaluate(pairs, ref, micro_batches, n):
    """The means of FIGURES over n pairs. micro_batches: index arrays of this process's pairs."""
    totals = torch.zeros(len(FIGURES) + 2, device=device)
    model.eval()
    for rows in micro_batches:
        totals += losses_of(policy, [pairs[j] for j in rows], ref[rows])[1].sum(1)
    model.train()
    return means(totals, n)


def answers():
    """The model's answers to the first held-out prompts: [(prompt, answer)], ids."""
    said = []
    for (prompt, _), _ in held_out[:num_samples]:
        room = max(0, min(sample_tokens, model.config.block_size - len(prompt)))
        with autocast:
            out = model.generate(torch.tensor([prompt], device=device), room, temperature=0,
                                 stop=tokenizer.stop)
        said.append((prompt, out[0, len(prompt):].tolist()))
    return said


def save(path, **more):
    """best.pt and last.pt: a GPT, as everywhere, and beside it the reward head."""
    if policy.head is not None:
        more['reward_head'] = policy.head.weight.detach()
    save_checkpoint(path, adapters.merged(model), step=step, best_val=best_val, config=config,
                    tokenizer_hash=tokenizer.hash, pairs=digests, **more)


# --- the banner: what is about to happen --------------------------------------------------------------------
first = {}
if not state and (needs_reference or (policy.head is not None and not policy.head.weight.any())):
    zero, one = torch.zeros(1), torch.ones(1)
    expected = preference_loss(zero, zero, zero, zero, one, one, loss_type, beta)[0].item()
    first = evaluate(pairs, ref, rows_of(0), batch_size)
    found, kl = first['preference_loss'], first['kl']
    if not (abs(found - expected) <= 1e-3 * max(1, expected) and abs(beta * kl) <= 0.01):       # or nan
        raise ValueError(f'the first {loss_type} loss is {found:.5f} and the KL {kl:.4f}, but policy and '
                         f'reference are the same model: {expected:.5f} and 0 are expected; try '
                         f'--dtype=float32, and delete {data_dir}/reference-*.npy')
log.begin(config, state, step, max_steps)
if main_process:
    tokenizer.save(log.path('tokenizer.json'))
log.keep(os.path.join(checkpoint.folder_of(last_path if state else init_from), 'data.json'))    # the base's
show(config, log.say)
log.say(f'  data     {len(pairs):,} pairs, {len(held_out):,} held out; the same answer twice: {n_same}; '
        f'cut to {block_size} tokens: {n_cut}')
log.say(f'  step     {batch_size} pairs = {world} processes x {per_rank // micro_batch_size} accumulated x '
        f'{micro_batch_size} at once; {device}, {dtype}')
log.say(f'  plan     {max_steps:,} steps, {batches.per_epoch:,} an epoch')
log.remarks(records.unusual(model, learning_rate, 5e-7, 5e-6, len(pairs), max_steps / batches.per_epoch))
if first:
    log.say(f'  expect   a first {loss_type} loss of {expected:.4f} and a margin of 0; found '
            f'{first["preference_loss"]:.4f} and {first["margin"]:+.4f}')

# --- the loop -----------------------------------------------------------------------------------------------
watch = optim.Guard(state, scaler)
probe = optim.probe(model)      # how far does a step move it?
first_step = step
stopping, trouble = False, ''    # Ctrl-C or a signal asked for the end; why the run cannot continue
timer = journal.Timer()
model.train()
while True:
    # 1. once in a while: evaluate. A resumed run has already evaluated its first step
    if (step % eval_interval == 0 or step == max_steps) and (step > first_step or step == 0) and not trouble:
        with timer.pause('eval'):
            mine = np.arange(len(held_out))[rank::world]
            micro_batches = [mine[i:i + micro_batch_size] for i in range(0, len(mine), micro_batch_size)]
            found = evaluate(held_out, ref[len(pairs):], micro_batches, len(held_out))
            val_loss = found['preference_loss']
            figures = {f'val_{name}': found[name] for name in shown[1:]}
            if main_process and loss_type != 'rm':
                said = answers()
                figures['val_response_len'] = sum(len(a) for _, a in said) / len(said)
                text = '\n\n'.join(tokenizer.decode(p + a) for p, a in said)
                log.say(f'--- step {step}, val_loss {val_loss:.4f}\n{text}\n', 'samples.txt')
            log.evaluation(step, max_steps, {'val_loss': val_loss, **figures})
            if step and val_loss < best_val:
                best_val = val_loss
                if main_process:
                    save(log.path('best.pt'))

    # 2. once in a while: save. Leave when all is done or someone asked to stop
    if (step % save_interval == 0 or step == max_steps or stopping) and step > first_step:
        with timer.pause('save'):
            if main_process:
                save(f'{last_path}.new', kto_kl=kto_kl, reference=reference_hash,
                     optimizers=optim.states(optimizers), scaler=scaler.state_dict(),
                     lora=adapters.adapters(model), **watch.state())
                checkpoint.rotate(last_path, keep=2)
    if step >= max_steps or stopping:
        break

    # 3. the gradient of the mean loss over the pairs of the global batch
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)
    lr = lr_at(step, max_steps, warmup_steps, learning_rate, min_lr)
    optim.set_lr(optimizers, lr)
    micro_batches = rows_of(step)                                   # (accumulated, micro_batch_size)
    n_all = batch_size
    loss_sum = 0.0
    totals = torch.zeros(len(FIGURES) + 2, device=device)
    for i, rows in enumerate(micro_batches):
        with machine.sync_if(net, i == len(micro_batches) - 1), oom_advice:
            losses, found = losses_of(net, [pairs[j] for j in rows], ref[rows])
            # this part's share of the mean; times world, because DDP divides the sum over processes by it
            scaler.scale(losses.sum() / n_all * world).backward()
            loss_sum += losses.detach().sum()
            totals += found.sum(1)
    if trouble := oom_advice.text:      # this step is not done: save those before it, then leave
        stopping = True
        continue

    # --- clip and step: same text in train.py, sft.py, dpo.py, rl.py ---
    for o in optimizers:
        scaler.unscale_(o)
    norm = machine.number(torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf))
    loss_sum, votes = machine.all_sum(float(loss_sum), len(machine.asked))
    loss = loss_sum / n_all     # of the whole global batch
    logging = (step + 1) % log_interval == 0 or step + 1 in (1, max_steps)
    event, text = watch.judge(step, loss, norm)
    if event:
        log.note(step, event, text)
        trouble = watch.trouble(step, text, last_path)
    stopping = votes > 0 or trouble != ''       # all processes, or the others would wait for ever
    before = probe.clone() if logging else None
    if event != 'skip':         # a skipped update (not finite, or a spike) never reaches the weights
        for o in optimizers:
            scaler.step(o)
    scaler.update()
    net.zero_grad(set_to_none=not hasattr(net, 'no_sync'))     # DDP's gradients stay in its buckets
    # --- end clip and step ---
    step += 1
    timer.step(2 * int(lengths[micro_batches].sum()) * world)       # 2 answers; about as many in each process
    figures = means(totals, n_all)
    kto_kl = max(0.0, -beta * figures['kl'])    # of these answers; the paper: of answers to other prompts

    # 4. log
    if logging:
        dt = timer.per_step()
        log.say(f'step {step:>6}/{max_steps} | loss: {loss:.4f} | acc: {figures["accuracy"]:.2f} | margin: '
                f'{figures["margin"]:+.3f} | rewards: {figures["chosen_reward"]:+.3f} '
                f'{figures["rejected_reward"]:+.3f} | lr: {lr:.2e} | gnorm: {norm:.2f} | '
                f'{dt * 1000:.0f} ms | eta {journal.clock(dt * (max_steps - step))}')
        log.metrics(step=step, loss=loss, lr=lr, grad_norm=norm, dt=dt, tok_s=timer.tok_s(),
                    update_ratio=optim.change(before, probe), skipped=watch.skipped, restarts=log.restarts,
                    comm_share=machine.comm_share(net, dt), memory_mb=journal.memory_mb(device),
                    **timer.shares(world), **{k: figures[k] for k in shown})
        timer.restart()

# --- summary ------------------------------------------------------------------------------------------------
command = ['sample.py', f'--ckpt={out_dir}', '--chat=True'] if loss_type != 'rm' else []
log.end(step, max_steps, timer.minutes(), best_val, command)
machine.leave(trouble)
