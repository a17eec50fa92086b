"""
Preference optimization: a model that answers, and pairs of a better and a worse answer -> a model
that prefers the better ones. DPO and related losses, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=out/sft --loss_type=rm --out_dir=out/reward   # a reward model
    python dpo.py --out_dir=out/dpo --init_from=resume              # resume, bit-identical on a CPU
    torchrun --nproc_per_node=8 dpo.py --init_from=out/sft          # eight GPUs, the same steps

data_dir has train.jsonl and val.jsonl, with lines of {"prompt", "chosen", "rejected"}. A prompt is
a text or a list of messages. kto also takes {"prompt", "completion", "label"}, label true or false.
The training loop is that of sft.py. This stage decides what counts as a better answer.

DPO in four lines. The policy p is the model in training. The reference p_ref is the model at step
0. A prompt has a better answer c (chosen) and a worse answer r (rejected):

    reward(c) = beta (log p(c) - log p_ref(c))      # how much more likely c has become
    reward(r) = beta (log p(r) - log p_ref(r))
    margin = reward(c) - reward(r)
    loss = -log sigmoid(margin)                     # small if c has gained more than r

With beta = 0.1, log p_ref = -11 for both, log p(c) = -10 and log p(r) = -12, the rewards are 0.1
and -0.1, the margin is 0.2 and the loss 0.598. With beta = 1, a tenth of this change in log p would
give the same loss. So a larger beta keeps the policy closer to the reference.

At step 0, policy and reference are equal, so the margin is 0 and val_loss is ln 2 = 0.693 (with ipo
1 / (2 beta)^2, with kto 0.5; orpo and simpo have no reference). Then accuracy and margin rise.
Often BOTH rewards fall, because the loss depends on their difference only: it is the same whether
log p(r) falls by 5 and log p(c) by 2, or log p(c) rises by 3. The probability mass that both
answers lose goes to answers that are in no pair. --nll_weight=1 adds SFT's loss on the chosen
answers, which keeps them likely (arXiv:2404.19733).
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
init_from = 'out/sft'           # resume, a model (folder, .pt); auto: resume if possible, else this
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from chats.py --source=FILE
out_dir = 'out/dpo'             # folder for checkpoints, metrics and samples
overwrite = False               # True: delete the run in out_dir
loss_type: Literal['dpo', 'ipo', 'kto', 'orpo', 'simpo', 'rm'] = 'dpo'  # rm trains a reward model
beta: float | None = None       # scale of the rewards; None = 0.1, or 2 with simpo
gamma = 1.0                     # with simpo: target margin between the two rewards
nll_weight = 0.0                # weight of SFT's loss on chosen answers; not with orpo or rm
# optimization
epochs = 1.0                    # passes over the pairs; 1 to 3 are usual
max_steps = 0                   # optimizer updates; 0 = computed from epochs
batch_size = 32                 # pairs per step, over all devices
micro_batch_size = 0            # maximum pairs per device and forward pass; 0 = all
learning_rate = 3e-5            # peak; above 100 million parameters, 5e-7 to 5e-6
warmup_steps: int | float = 0.1  # steps of linear warmup; below 1: a fraction of max_steps
grad_clip = 1.0                 # maximum norm of the gradient; 0 = no clipping
# logging and evaluation
log_interval = 10               # steps between log lines
eval_interval = 0               # steps between evaluations; also before training; 0 = an epoch
save_interval = 250             # steps between checkpoints
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest available
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is native
grad_checkpoint = False         # recompute blocks in the backward pass: less memory, more time
seed = 1337                     # for the order of the pairs
# (minimum, maximum) of some settings. All other numbers must be at least 0.
BOUNDS = {'epochs': (1e-6, 1e6), 'batch_size': (1, 2 ** 20), 'beta': (1e-9, 1e6),
          'log_interval': (1, 1e12), 'save_interval': (1, 1e12)}


# --- the new part: the losses ---------------------------------------------------------------------
def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len,
                    rejected_len, loss_type, beta, gamma=1.0, kl=0.0):
    """Return the losses, chosen rewards and rejected rewards of B pairs, float32 (B,) each. For the
    pair in this file's docstring, if c has 5 tokens and r 4, with beta = 0.1, gamma = 1, kl = 0:

                rewards     loss
        dpo     0.1, -0.1   the margin is 0.2: -log sigmoid(0.2) = 0.598
        ipo     0.1, -0.1   the log-ratios 1 and -1 differ by 2, the target is 5: (2 - 5)^2 = 9
        kto     0.1, -0.1   0.1 above and 0.1 below the reference point: 1 - sigmoid(0.1) = 0.475
        orpo   -0.2, -0.3   SFT's loss is 2, the odds p / (1 - p) of c, with log p = -10 / 5, are
                            2.987 times those of r: 2 - 0.1 log(2.987 / 3.987) = 2.029
        simpo  -0.2, -0.3   the margin is 0.1, the target is 1: -log sigmoid(0.1 - 1) = 1.241
        rm      -10, -12    -log sigmoid(2) = 0.127

    policy_*, ref_*: log p of the answers, in nats, summed over tokens (with rm: scores). *_len:
    their numbers of tokens. kl: the reference point of kto, explained in its branch below."""
    policy = torch.stack([policy_chosen, policy_rejected])                              # (2, B)
    ratios = policy - torch.stack([ref_chosen, ref_rejected])           # log (p / p_ref)
    means = policy / torch.stack([chosen_len, rejected_len])            # log p per token
    chosen, rejected = beta * (means if loss_type in ('orpo', 'simpo') else ratios)    # rewards

    if loss_type == 'dpo':
        # Rafailov et al. 2023, arXiv:2305.18290, eq. 7. log p is summed over tokens, because p of
        # an answer is a product.
        losses = -F.logsigmoid(chosen - rejected)
    elif loss_type == 'ipo':
        # If all annotators agree, dpo's margin grows without bound, whatever beta is. ipo gives the
        # margin a target. Azar et al. 2023, arXiv:2310.12036, eq. 17
        losses = (ratios[0] - ratios[1] - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        # A chosen reward should be above a reference point, and a rejected one below. Without the
        # reference point, a policy that makes all answers more likely would seem to learn. The
        # reference point, kl, is the mean reward in the previous step (in the paper: of answers to
        # other prompts), at least 0, without gradient: if log p - log p_ref was 0.3 and beta is
        # 0.1, kl is 0.03.
        # Ethayarajh et al. 2024, 2402.01306, eq. 8
        losses = ((kl - chosen).sigmoid() + (rejected - kl).sigmoid()) / 2
    elif loss_type == 'orpo':
        # SFT's loss replaces the reference. log p is a mean per token, because with sums every p
        # would be near 0, where odds and p are equal. Hong et al. 2024, arXiv:2403.07691, eq. 6
        m = means.clamp(max=-1e-30)                     # The odds of p = 1 are infinite.
        log_odds = m - torch.log(-torch.expm1(m))       # expm1 is e^m - 1, not rounded to 0
        losses = -means[0] - beta * F.logsigmoid(log_odds[0] - log_odds[1])
    elif loss_type == 'simpo':
        # There is no reference. log p is a mean per token, so that the length of an answer
        # has no effect. The margin should exceed gamma. Meng et al. 2024, arXiv:2405.14734, eq. 6
        losses = -F.logsigmoid(chosen - rejected - gamma)
    elif loss_type == 'rm':
        # The rewards are the scores. Bradley and Terry 1952; arXiv:2203.02155, eq. 1
        chosen, rejected = policy
        losses = -F.logsigmoid(chosen - rejected)
    return losses, chosen.detach(), rejected.detach()


# --- batches of pairs of all lengths --------------------------------------------------------------
def collate(pairs):
    """Return inputs and targets, int64 (2 B, T): B rows with chosen answers, then B with rejected
    ones. A pair is ((prompt, chosen), (prompt, rejected)). A reward model reads the score of a row
    at its last input before the padding. For ((5 6, 7 8 9), (5 6, 7 4)), where _ is IGNORE:

        x    5 6 7 8 9      y    _ 7 8 9 _
             5 6 7 4 0           _ 7 4 _ _"""
    rows = [pair[i] for i in (0, 1) for pair in pairs]
    x = [torch.tensor(np.concatenate(row)) for row in rows]
    y = [F.pad(torch.tensor(answer), (len(prompt) - 1, 1), value=IGNORE) for prompt, answer in rows]
    return (rnn.pad_sequence(x, batch_first=True).long(),                               # (2 B, T)
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE).long())


def log_p(model, x, y):
    """Return log p of N answers, (N,), summed over the tokens of each."""
    # model.log_p returns log p of the targets of all rows, one row after the other, (n,)
    parts = model.log_p(x, y).split((y != IGNORE).sum(1).tolist())
    return torch.stack([part.sum() for part in parts])


def batch_indices(step, lengths, batch_size, seed):
    """Return the indices of a step's pairs, which have similar lengths, so there is little padding.
    Batches are a function of (step, seed). An epoch has each pair once, as in sft.py."""
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
config |= {'stage': 'dpo', 'steps': 0}      # with a stage, eval.py uses chat templates

# --- a new or resumed run, its model, and the device ----------------------------------------------
# A new number of epochs also replaces the max_steps of the checkpoint, which would override it.
source, state, changed = resume_or_start(config, explicit, 'loss_type beta gamma batch_size seed',
                                         'max_steps' if 'epochs' in explicit else '')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
for name, loss_types in {'beta': 'dpo ipo kto orpo simpo', 'gamma': 'simpo',
                         'nll_weight': 'dpo ipo kto simpo'}.items():
    require(name not in explicit or not config[name] or loss_type in loss_types.split(),
            f'{name} has no effect with {loss_type=}, only with {loss_types}; remove it')
beta = config['beta'] = beta or (2.0 if loss_type == 'simpo' else 0.1)
has_reference = loss_type in ('dpo', 'ipo', 'kto')
# with dropout, policy and reference would differ
model, tokenizer = load_model(source, 'sft.py', allow_reward_model=bool(state), dropout=0.0)
tokenizer.render([])                    # an error if the tokenizer has no chat tokens
T = model.config.block_size             # maximum tokens of a prompt and its answer
suppress = tokenizer.suppressed_tokens(model.config.vocab_size)     # token ids

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


# --- data -----------------------------------------------------------------------------------------
data_hash = hashlib.sha256()            # of the data, which cannot change on resume


def read_pairs(path):
    """Return the pairs of a file, ((prompt, chosen), (prompt, rejected)), in token ids."""
    require(os.path.exists(path), f'{path} is missing: dpo.py needs pairs; see your config or run: '
            'python chats.py --kind=preference --source=FILE --out_dir=NEW, and set --data_dir=NEW')
    content = pathlib.Path(path).read_bytes()
    data_hash.update(content)
    lines = [line for line in enumerate(content.splitlines(), 1) if line[1].strip()]
    rows = {'chosen': [], 'rejected': []}
    for number, line in lines:
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
            # the last stop token ends a turn
            answers = [[*tokenizer.encode(record[name]), tokenizer.stop[-1]] for name in names]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path}, line {number}, is not a pair ({error!r:.200}; sft.py reads '
                            f'conversations, kto labels): {line[:60]}; see dpo.py --help') from None
        if len(prompt) + max(map(len, answers)) <= T:
            for name, answer in zip(names, answers):    # arrays take a tenth of the memory of lists
                rows[name].append((np.array(prompt, np.int32), np.array(answer, np.int32)))
    chosen, rejected = rows.values()
    found = (f'{path} has {len(lines)} lines, with {len(chosen)} chosen and {len(rejected)} '
             f'rejected answers that fit into {T} tokens with their prompts')
    require(chosen and rejected, f'{found}; dpo.py needs both: move lines here from the other '
            'file of the folder, or run chats.py again with a larger --val_fraction')
    if rank == 0:
        print(found, flush=True)
    # kto's loss is a sum over answers, so any chosen and any rejected answer can form a pair. The
    # answers of the smaller kind are repeated.
    n = max(len(chosen), len(rejected))
    return [(chosen[i % len(chosen)], rejected[i % len(rejected)]) for i in range(n)]


train = read_pairs(f'{data_dir}/train.jsonl')
pairs = train + read_pairs(f'{data_dir}/val.jsonl')[:512]   # enough for two digits of the loss
lengths = np.array([max(sum(map(len, row)) for row in pair) for pair in pairs])         # (n,)

per_epoch = math.ceil(len(train) / batch_size)                                          # steps
max_steps = config['steps'] = max_steps or max(1, round(epochs * per_epoch))
eval_interval = eval_interval or per_epoch
micro_batch_size = micro_batch_size or batch_size
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
score_fn = log_p
if loss_type == 'rm':           # scores replace log p
    from extras.tasks.rewards import add_head, score as score_fn
    add_head(model, state.get('reward_head'))
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce sums all gradients; p.grad must stay this view
opt = torch.optim.AdamW(params, learning_rate, betas=(0.9, 0.95), weight_decay=0.0,
                        fused=device_type != 'mps')
step, best_val, kto_kl = 0, math.inf, 0.0               # kto_kl: the reference point of kto
ref_log_p = torch.zeros(len(pairs), 2, device=device)   # of chosen and rejected
if state:
    require(state['data'] == data_hash.hexdigest(), f'{data_dir=} is not the data of {source}')
    opt.load_state_dict(state['optimizer'])
    step, best_val, kto_kl = map(state.get, ('step', 'best_val', 'kto_kl'))
    ref_log_p = state['ref_log_probs'].to(device)
state, model.saved = {}, {}             # frees their memory


def micro_batches(indices):
    """Yield micro-batches of B pairs: their indices, log p of their answers (with rm: scores), and
    the answers' numbers of tokens, (2, B) each, first chosen, then rejected. Process r of n
    computes indices r, r + n, r + 2n and so on. A process may have no pairs."""
    my_indices = indices[rank::world]
    for i in range(0, len(my_indices), micro_batch_size):
        batch = my_indices[i:i + micro_batch_size]
        x, y = (t.to(device) for t in collate([pairs[index] for index in batch]))       # (2 B, T)
        with autocast:
            scores = score_fn(model, x, y)
        yield batch, scores.view(2, -1), (y != IGNORE).sum(1).view(2, -1)


if step == 0 and has_reference:         # the policy still is the reference
    with torch.no_grad():
        # The longest pairs come first, so an out-of-memory error would occur at once.
        for batch, policy, _ in micro_batches(np.argsort(-lengths)):
            ref_log_p[batch] = policy.T                                                   # (B, 2)
    if world > 1:               # the rows of other processes are 0
        dist.all_reduce(ref_log_p)

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)


def save(name):
    """Write a checkpoint for GPT.load. The head of a reward model is stored separately from the
    weights. last.pt also has the state for resuming."""
    if rank == 0:
        weights = dict(model.state_dict())
        more = {'reward_head': weights.pop('reward_head')} if loss_type == 'rm' else {}
        if name == 'last.pt':
            more |= {'optimizer': opt.state_dict(), 'data': data_hash.hexdigest(),
                     'ref_log_probs': ref_log_p, 'kto_kl': kto_kl}
        model.save(out / name, model=weights, config=config, step=step,
                   best_val=best_val, tokenizer_hash=tokenizer.hash, **more)


def log_metrics(metrics):
    """Print metrics and append them to metrics.jsonl, where a resumed run may repeat a step."""
    words = [f'{name}: {value:.4g}' for name, value in metrics.items()]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


@torch.no_grad()
def evaluate():
    """Compute the metrics of the validation pairs, and write the answers to the first 8 prompts to
    samples.txt. Save best.pt if val_loss is the lowest so far. kto's reference point is 0 here, so
    that the losses of different steps are comparable."""
    global best_val
    means = forward_backward(range(len(train), len(pairs)), forward_only=True)
    metrics = {f'val_{name}': value for name, value in means.items()}
    metrics['val_loss'] = metrics.pop('val_preference_loss')    # without the SFT term of nll_weight
    if rank == 0 and loss_type != 'rm':
        answer_lengths = []
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for (prompt, _), _ in pairs[len(train):][:8]:
                ids = torch.tensor(prompt[None], device=device).long()                  # (1, T)
                [ids] = model.generate(ids, 100, 0, stop=tokenizer.stop, suppress=suppress)
                answer_lengths.append(len(ids) - len(prompt))
                print(f'--- step {step}\n{tokenizer.decode(ids.tolist())}\n', file=f)
        metrics['val_length'] = np.mean(answer_lengths)
    if rank == 0:
        log_metrics(metrics)
    if metrics['val_loss'] < best_val and step > 0:     # never the untrained model
        best_val = metrics['val_loss']
        save('best.pt')


def forward_backward(indices, reference_point=0.0, forward_only=False):
    """Return the mean metrics over these pairs. Unless forward_only, also add this process's part
    of the gradient of the mean loss to p.grad. reference_point: kl of kto's loss."""
    names = ['loss', 'preference_loss', 'accuracy', 'chosen_reward', 'rejected_reward',
             'chosen_logp', 'rejected_logp', 'log_ratio']
    sums = torch.zeros(len(names), device=device)       # a process may get no pair
    for batch, policy, n_tokens in micro_batches(indices):
        reference = ref_log_p[batch].T                                                    # (2, B)
        losses, chosen, rejected = preference_loss(                                     # (B,) each
            *policy, *reference, *n_tokens, loss_type, beta, gamma, reference_point)
        loss = losses - nll_weight * policy[0] / n_tokens[0]
        if not forward_only:
            (loss.sum() / len(indices)).backward()
        # A tie counts as half right. Rewards that differ by rounding only are a tie.
        accuracy = 0.5 + 0.5 * (chosen - rejected).round(decimals=4).sign()
        # Over answers sampled from the policy, the mean of log_ratio would be the KL divergence.
        # Over the answers of the data, it can be negative.
        log_ratio = (policy - reference).mean(0)
        values = [loss, losses, accuracy, chosen, rejected, *policy, log_ratio]
        sums += torch.stack(values).detach().sum(1)
    if world > 1:
        dist.all_reduce(sums)
    means = dict(zip(names, (sums / len(indices)).tolist()))
    means['margin'] = means['chosen_reward'] - means['rejected_reward']
    if not has_reference:
        del means['log_ratio']
    if loss_type == 'rm':       # the rewards are the scores
        del means['chosen_logp'], means['rejected_logp']
    return means


# --- the loop -------------------------------------------------------------------------------------
if rank == 0:
    print(*changed, f'{model.config}\nparameters: {len(gradient):,}, steps: {max_steps:,}, '
          f'{per_epoch:,} per epoch, processes: {world} ({device}, {dtype})\n'
          'a pair:', *[tokenizer.decode(np.concatenate(row)) for row in train[0]], sep='\n')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    began = time.perf_counter()
    # learning rate: linear warmup, then cosine decay to 0
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.5 * (1 + math.cos(math.pi * progress))
    opt.param_groups[0]['lr'] = lr

    gradient.zero_()            # a process without pairs contributes zeros
    batch = batch_indices(step, lengths[:len(train)], batch_size, seed)
    metrics = forward_backward(batch, kto_kl)
    kto_kl = max(0.0, beta * metrics.get('log_ratio', 0.0))     # for the next step
    if world > 1:
        dist.all_reduce(gradient)
    norm = clip_grad_norm_(params, grad_clip or math.inf).item()
    require(math.isfinite(metrics['loss'] + norm), f'step {step + 1}: the loss is '
            f'{metrics["loss"]}, the gradient norm {norm}; resume with a lower --learning_rate')
    opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        dt = time.perf_counter() - began
        n_tokens = sum(len(ids) for i in batch for part in pairs[i] for ids in part)
        log_metrics(metrics | {'lr': lr, 'grad_norm': norm, 'dt': dt, 'tok_s': n_tokens / dt,
                               'minutes_left': dt * (max_steps - step) / 60})
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    command = 'rl.py --kl_coef=0.05 --reward=' if loss_type == 'rm' else 'eval.py --ckpt='
    print(f'done, best val_loss {best_val:.4f}; next: python {command}{shlex.quote(out_dir)}')
