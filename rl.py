"""
Reinforcement learning: a model and a reward function -> a model that gets higher rewards.

    python rl.py --init_from=out/sft --reward=mine.py
    python rl.py --init_from=resume --out_dir=out/rl --reward=mine.py       # bit-identical on a CPU
    torchrun --nproc_per_node=8 rl.py --init_from=out/sft --reward=mine.py  # the same steps

init_from is a folder that sft.py or dpo.py wrote. The training loop is sft.py's, but the model
samples the answers that it is trained on. You define the reward, for example in mine.py below. The
model maximizes this reward, even if it is not what you meant.

    def prompts(): return ['What is 2 + 2?', 'What is 3 + 4?']          # texts or messages
    def reward(prompt, completion): return float(completion.strip().isdigit())
    def held_out(): return ['What is 5 + 6?']           # optional; default: a tenth of prompts()

extras/tasks/rewards.py implements --reward=problems (generated problems and their tests),
FILE.jsonl (prompts with tests or reference answers) and FOLDER (a reward model).

The policy gradient. The model p samples an answer a to a prompt and gets the reward R(a). As grad p
is p grad log p, the gradient of the mean reward is also a mean over sampled answers:
    grad E[R] = sum over a of R(a) grad p(a) = E[R(a) grad log p(a)]
(REINFORCE, Williams 1992). So the loss of an answer is its SFT loss, weighted by its reward.
Subtracting a baseline b reduces the variance of the gradient: R - b is the advantage. If b does not
depend on a, the expected gradient stays the same, because b times the sum over a of grad p(a) is 0:
all p(a) add up to 1. The baseline here is the mean reward of the G = num_samples answers to a
prompt (GRPO, arXiv:2402.03300). This mean includes R(a), which only scales the expected gradient,
by 1 - 1 / G.

You should see reward and val_reward rise over hundreds of steps. In the 60 steps of the quickstart,
noise hides the gain, and only eval.py shows it. `entropy` is the mean of -log p over the sampled
tokens. `informative` is the fraction of prompts with non-zero advantages, because the rewards of
their answers differ. If both metrics fall to 0 before the reward rises, lower the learning rate. If
the reward rises but samples.txt gets worse, the model hacks the reward: fix the reward, or raise
kl_coef. As a control, train on the random rewards of bench/random_reward.py.
"""
import hashlib, json, math, os, pathlib, random, shlex, sys, time, types
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, rnn
from configurator import configure, require
from common import load_model, init_device, resume_or_start, init_out_dir
from model import GPT, IGNORE

# --- settings -------------------------------------------------------------------------------------
init_from = 'out/sft'           # resume, a model (folder, .pt); auto: resume if possible, else this
out_dir = 'out/rl'              # folder for checkpoints, metrics and samples
overwrite = False               # True: delete the run in out_dir
reward = ''                     # FILE.py as above, problems, FILE.jsonl or FOLDER
allow_code_execution = False    # True: run generated programs; first read extras/tasks/sandbox.py
learning_rate = 2e-4            # peak; above 100 million parameters, 1e-6 to 1e-5
max_steps = 100                 # batches of answers to sample and train on
# answers
batch_size = 32                 # prompts per step, over all devices
num_samples = 8                 # answers per prompt: the generations, or rollouts, of a group
max_new_tokens = 64             # maximum length of an answer, the completion, in tokens
temperature = 1.0               # divides the logits, both when sampling and when training
# optimization
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
updates = 1                     # optimizer updates per step, on the same answers
micro_batch_size = 0            # maximum prompts per device and backward pass; 0 = all
clip = 0.2                      # PPO's probability ratio is clipped to 1 - clip and 1 + clip
kl_coef = 0.0                   # weight of the KL penalty; the initial model then stays in memory
warmup_steps: int | float = 0.05  # steps of linear warmup; below 1: a fraction of max_steps
grad_clip = 1.0                 # maximum norm of the gradient; 0 = no clipping
# logging and evaluation
log_interval = 1                # steps between log lines
eval_interval = 20              # steps between evaluations; also before the first, after the last
eval_prompts = 200              # maximum validation prompts, always the same, with greedy answers
save_interval = 20              # steps between checkpoints
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest available
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is native
grad_checkpoint = False         # recompute blocks in the backward pass: less memory, more time
seed = 1337                     # for the order of prompts and for sampling
# {setting: (minimum, maximum)}; all other numeric settings must be at least 0
BOUNDS = {'batch_size': (1, 1e6), 'num_samples': (2, 1e4), 'max_new_tokens': (1, 1e6),
          'temperature': (0.01, 100), 'updates': (1, 1e4), 'log_interval': (1, 1e9),
          'eval_interval': (1, 1e9), 'save_interval': (1, 1e9), 'eval_prompts': (2, 1e6)}


# --- advantages and the policy loss ---------------------------------------------------------------
def advantages(rewards):
    """Return the advantages, float32 (P, G), from rewards (P, G) of G answers to each of P prompts:
    each reward minus the mean of its group. For four answers to one prompt, one of them right:
    rewards 1 0 0 0, mean 0.25, advantages 0.75 -0.25 -0.25 -0.25. So the right answer becomes more
    likely, and the wrong answers less. If all rewards of a prompt are equal, its advantages, and so
    its policy gradient, are exactly 0. (GRPO also divides by the group's standard deviation, which
    gives easy and hard prompts more weight: arXiv:2503.20783.)"""
    rewards = rewards.double()
    equal = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)              # (P, 1)
    return (rewards - rewards.mean(1, keepdim=True)).masked_fill(equal, 0.0).float()


def policy_loss(log_p, old_log_p, A, clip=0.2, ref_log_p=None, kl_coef=0.0):
    """Return the loss, the ratio and the KL of each of n tokens, float32 (n,). The inputs are (n,),
    too: log_p under the current weights, old_log_p under the weights that sampled the token,
    ref_log_p under the initial weights, and A, the advantage. With ratio = p / p_old, the loss is
        -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)          (PPO, arXiv:1707.06347, eq. 7)
    At the first update the ratio is 1 (in bfloat16, nearly), and the gradient is REINFORCE's,
    -A grad log p. With updates > 1, the later updates are off-policy, and the ratio differs from 1.
    For two tokens with the ratio 1.5:
        A     ratio A    clipped    loss    d loss / d log p
        1     1.5        1.2        -1.2    0: clipped, so the token gets no more likely
        -1    -1.5       -1.2       1.5     1.5: descent makes the token less likely again

    The KL is r - 1 - log r, r = p_ref / p (k3, Schulman 2020): 0.13 for p = 0.5, p_ref = 0.8."""
    ratio = (log_p - old_log_p).exp()
    loss = -torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
    log_r = (log_p if ref_log_p is None else ref_log_p) - log_p
    kl = log_r.exp() - 1 - log_r
    return loss + kl_coef * kl, ratio.detach(), kl.detach()


def collate(answers):
    """Return inputs x and targets y of N answers, int64 (N, T), and float32 (n,) for the n targets
    that are not IGNORE (_ below): old_log_p and the advantage A. For the prompt 5 6 7 and the
    answer 8 9, sampled with the probabilities 0.5 and 0.1:
        x    5    6    7    8    9          old_log_p    -0.69    -2.3
        y    _    _    8    9    _          A            0.75     0.75"""
    x = [torch.tensor([*a['prompt'], *a['ids']]) for a in answers]
    y = [torch.tensor([IGNORE] * (len(a['prompt']) - 1) + a['ids'] + [IGNORE]) for a in answers]
    return (rnn.pad_sequence(x, batch_first=True),
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE),
            torch.tensor([value for a in answers for value in a['log_p']]),
            torch.tensor([a['advantage'] for a in answers for _ in a['ids']]))


# Config files and flags override the settings. explicit: {overridden setting: its previous value}
config = configure(globals(), BOUNDS, explicit := {})
content = pathlib.Path(reward).read_bytes() if os.path.isfile(reward) else b''
# eval.py uses the chat format if a checkpoint has a stage. reward_hash detects an edited FILE.py.
config |= {'stage': 'rl', 'reward_hash': hashlib.sha256(content).hexdigest()[:16]}

# --- a new or resumed run, its model, and the device ----------------------------------------------
# Settings in not_restored enable code execution and are never restored: pass them every time.
source, state, changed = resume_or_start(
    config, explicit, fixed='optimizer batch_size num_samples kl_coef seed',
    not_restored='reward reward_hash allow_code_execution')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
model, tokenizer = load_model(source, 'sft.py', dropout=0.0)    # also in training

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


def all_reduce_sum(*values):
    """Return the sum of each value over all processes."""
    sums = torch.tensor(values, dtype=torch.float64, device=device if world > 1 else 'cpu')
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


# --- data: prompts, and reward_fn(prompts, texts), which yields the reward of each text -----------
if reward.endswith('.py'):
    # FILE.py may import modules next to it, and start processes that unpickle its functions by
    # module name. A spawned process would run rl.py again if rl.py had a __file__.
    sys.path.append(os.path.dirname(os.path.abspath(reward)))
    program = types.ModuleType(pathlib.Path(reward).stem)
    program.__file__ = reward
    sys.modules.setdefault(program.__name__, program)
    del __file__
    exec(compile(content, reward, 'exec'), vars(program))
    require(all(callable(vars(program).get(name)) for name in ('prompts', 'reward')),
            f'--reward={reward} does not exist, or does not define prompts() and reward()')
    # [*'text'] would be a list of letters, and each process orders a set differently, so
    # encode_prompts() gets such data in a tuple, which it refuses.
    prompts, val_prompts = ([(data,)] if isinstance(data, str | dict | set | None) else [*data] for
                            data in (program.prompts(), getattr(program, 'held_out', list)()))
    reward_fn = lambda prompts, texts: map(program.reward, prompts, texts)
else:           # problems, FILE.jsonl or FOLDER
    from extras.tasks.rewards import open_reward
    prompts, val_prompts, reward_fn = open_reward(
        reward, eval_prompts, allow_code_execution, tokenizer, device, autocast)
max_prompt_len = max(0, model.config.block_size - max_new_tokens)       # tokens
suppress = tokenizer.suppressed_tokens(model.config.vocab_size)     # token ids


def encode_prompts(prompts):
    """Return {token ids: prompt}, without duplicates and without prompts that are too long."""
    prompt_of = {}
    for prompt in prompts:
        require(isinstance(prompt, str | list), f'{reward}: prompts() and held_out() must return '
                f'a list of texts or of lists of messages; found {prompt!r:.200}')
        messages = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]
        ids, _ = tokenizer.render(messages, add_generation_prompt=True)
        if len(ids) <= max_prompt_len:
            prompt_of[tuple(ids)] = prompt
    return prompt_of


train, val = encode_prompts(prompts), encode_prompts(val_prompts)
prompt_of = train | val
val = val or dict.fromkeys(random.Random(0).sample([*train], math.ceil(len(train) / 10)))
train = [ids for ids in train if ids not in val]
val = [*val][:eval_prompts]
data_hash = hashlib.sha256(repr(train).encode()).hexdigest()
require(train and val, f'{reward=} has {len(train)} training and {len(val)} validation prompts of '
        f'at most {max_prompt_len} tokens; add prompts, or lower --max_new_tokens')
shuffled = [train[i] for epoch in range(1 + max_steps * batch_size // len(train))
            for i in np.random.default_rng([seed, epoch]).permutation(len(train))]
max_rows = (micro_batch_size or batch_size) * num_samples       # answers per backward pass
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
model.to(device)
# a frozen copy of the initial model
reference = GPT(model.config).eval().requires_grad_(False).to(device) if kl_coef else None
if reference:
    reference.load_state_dict(state.get('reference') or model.state_dict())
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # one all_reduce sums all gradients; never replace p.grad
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': device_type != 'mps'}
opt = torch.optim.AdamW(params, learning_rate, **options)
if optimizer == 'muon':
    from extras.training.muon import for_blocks
    opt = for_blocks(model, lr=learning_rate, **options)
step, best_val = 0, -math.inf
if state:
    require(state['data'] == data_hash, f'the prompts of {reward=} have changed')
    opt.load_state_dict(state['optimizer'])
    step, best_val = state['step'], state['best_val']
state, model.saved = {}, {}             # frees their memory

# --- out_dir --------------------------------------------------------------------------------------
if rank == 0:
    init_out_dir(config, source, tokenizer)


def save(name):
    """Write a checkpoint for GPT.load. last.pt also has the state for resuming."""
    if rank == 0:
        more = {'optimizer': opt.state_dict(), 'reference': reference and reference.state_dict()}
        model.save(out / name, config=config, step=step, best_val=best_val, data=data_hash,
                   tokenizer_hash=tokenizer.hash, **more if name == 'last.pt' else {})


def generate_answers(prompt_ids, temperature, seeds=()):
    """Return a dict for each prompt: the `prompt`, the `ids` of its answer with the stop token, and
    their `log_p`. Each answer has its own seed, so the other answers change it by rounding only."""
    answers, n_rows = [], 2 * max_rows          # without gradients, twice as many answers fit
    for i in range(0, len(prompt_ids), n_rows):
        prompts = prompt_ids[i:i + n_rows]
        idx = rnn.pad_sequence([torch.tensor(ids) for ids in prompts], True, IGNORE, 'left')
        with autocast:          # left-padded idx (B, T) -> idx (B, T + n), log_p (B, n)
            idx, log_p = model.generate(
                idx.to(device), max_new_tokens, temperature, stop=tokenizer.stop,
                seeds=seeds[i:i + n_rows], with_log_p=True, suppress=suppress)
        new = idx[:, -log_p.shape[1]:].tolist()
        for prompt, ids, values in zip(prompts, new, log_p.tolist()):
            n = next((t for t, id in enumerate(ids, 1) if id in tokenizer.stop), len(ids))
            answers.append({'prompt': prompt, 'ids': ids[:n], 'log_p': values[:n]})
    return answers


def compute_rewards(answers):
    """Set the reward of each answer. Return metrics and the number of tokens, over the answers of
    all processes. Answers with a reward of at least 1 pass; those without a stop token are
    truncated."""
    texts = [tokenizer.decode([id for id in a['ids'] if id not in tokenizer.stop]) for a in answers]
    for a, value in zip(answers, reward_fn([prompt_of[a['prompt']] for a in answers], texts)):
        require(hasattr(value, '__float__') and abs(float(value)) < 1e9,
                f'{reward=} must return finite numbers below 1e9, not {value!r:.80}')
        a['reward'] = float(value)
    values = np.array([(1, len(a['ids']), a['reward'], a['reward'] >= 1,
                        a['ids'][-1] not in tokenizer.stop, -sum(a['log_p'])) for a in answers])
    # a process may have no answers
    n, n_tokens, total, n_passed, n_cut, nats = all_reduce_sum(*values.reshape(-1, 6).sum(0))
    return {'reward': total / n, 'pass_rate': n_passed / n, 'length': n_tokens / n,
            'truncated': n_cut / n, 'entropy': nats / n_tokens}, n_tokens


def log_metrics(row, n_shown=None):
    """Print the first n_shown metrics, and append all of them to metrics.jsonl."""
    words = [f'{name}: {value:.4g}' for name, value in [*row.items()][:n_shown]]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


def evaluate():
    """Compute the mean reward of greedy answers to the validation prompts. Save best.pt if this
    mean is the highest so far."""
    global best_val
    answers = generate_answers(val[rank::world], temperature=0.0)
    means, _ = compute_rewards(answers)
    # The mean of -log p estimates the entropy of sampled answers, but not of greedy ones.
    means['surprisal'] = means.pop('entropy')
    if rank == 0:
        log_metrics({f'val_{name}': mean for name, mean in means.items()})
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for a in answers[:3]:
                text = tokenizer.decode([*a['prompt'], *a['ids']])
                print(f'--- step {step}\n{text}\n[reward {a["reward"]:g}]\n', file=f)
    if means['reward'] > best_val and step > 0:         # never the initial model
        best_val = means['reward']
        save('best.pt')


def forward_backward(answers, n_tokens):
    """Accumulate the gradient of the loss on this process's answers in p.grad. The loss is the mean
    over the n_tokens of all processes (DAPO, arXiv:2503.14476, eq. 8). Return three sums (3,) over
    the tokens of this process: loss / n_tokens, KL, and clipped ratios."""
    sums = torch.zeros(3, device=device)        # a process may have no answers
    for i in range(0, len(answers), max_rows):
        x, y, old_log_p, A = (t.to(device) for t in collate(answers[i:i + max_rows]))
        with autocast:
            log_p = model.log_p(x, y, temperature, suppress)                            # (n,)
            ref_log_p = reference.log_p(x, y, temperature, suppress) if reference else None
        losses, ratio, kl = policy_loss(log_p, old_log_p, A, clip, ref_log_p, kl_coef)
        loss = losses.sum() / n_tokens
        loss.backward()
        is_clipped = ratio != ratio.clamp(1 - clip, 1 + clip)
        sums += torch.stack([loss.detach(), kl.sum(), is_clipped.sum()])
    return sums


# --- the loop -------------------------------------------------------------------------------------
if rank == 0:
    print(*changed, f'{model.config}\nparameters: {len(gradient):,}, processes: {world} ({device}, '
          f'{dtype})\nprompts: {len(train):,} train, {len(val):,} validation; skipped (duplicates, '
          f'> {max_prompt_len} tokens): {len(prompts + val_prompts) - len(prompt_of):,}', sep='\n')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    # 1. Sample G answers to each of this process's P prompts, and compute their rewards.
    started_at = time.perf_counter()
    indices = range(step * batch_size + rank, (step + 1) * batch_size, world)               # P
    prompt_ids = [shuffled[i] for i in indices for _ in range(num_samples)]                    # P G
    seeds = [f'{seed} {i} {k}' for i in indices for k in range(num_samples)]
    answers = generate_answers(prompt_ids, temperature, seeds)
    sampled_at = time.perf_counter()
    means, n_tokens = compute_rewards(answers)
    scored_at = time.perf_counter()

    # 2. How much better is each answer than the mean of its group? Without a KL penalty, answers
    # with advantage 0 have no gradient, so they are skipped.
    rewards = torch.tensor([a['reward'] for a in answers], dtype=torch.float64)
    A = advantages(rewards.view(-1, num_samples))                                           # (P, G)
    for a, advantage in zip(answers, A.flatten().tolist()):
        a['advantage'] = advantage
    n_used_tokens = sum(len(a['ids']) for a in answers if a['advantage'])
    n_informative, n_used_tokens = all_reduce_sum(A.any(1).sum(), n_used_tokens)
    batch = [a for a in answers if a['advantage'] or reference]
    batch.sort(key=lambda a: len(a['prompt']) + len(a['ids']))       # less padding

    # Learning rate: linear warmup, then cosine decay to a tenth.
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr
    # 3. Answers with positive advantages become more likely, and those with negative ones less.
    for _ in range(updates):
        gradient.zero_()
        sums = forward_backward(batch, n_tokens)
        if world > 1:
            dist.all_reduce(gradient)
        norm = clip_grad_norm_(params, grad_clip or math.inf).item()
        loss, kl_sum, n_clipped = all_reduce_sum(*sums)
        require(math.isfinite(loss + norm + means['entropy']), f'step {step + 1}: {loss=}, '
                f'grad_norm={norm}, {means=}; resume with a lower --learning_rate')
        opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        now = time.perf_counter()
        row = {'informative': n_informative / batch_size, 'loss': loss, 'lr': lr, 'grad_norm': norm,
               'used': n_used_tokens / n_tokens, 'clip_fraction': n_clipped / n_tokens,
               'kl': kl_sum / n_tokens if reference else math.nan, 'dt': now - started_at,
               'sample_s': sampled_at - started_at, 'score_s': scored_at - sampled_at,
               'train_s': now - scored_at, 'tok_s': n_tokens / (now - started_at)}
        log_metrics(means | row, n_shown=6)
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    print(f'done, best val_reward {best_val:g}; next: python eval.py --ckpt={shlex.quote(out_dir)}')
