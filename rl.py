"""
Reinforcement learning: a model and a reward for its answers -> a model that earns more.

    python rl.py --init_from=out/sft --reward=mine.py
    python rl.py --init_from=resume --out_dir=out/rl --reward=mine.py       # on a CPU, bit for bit
    torchrun --nproc_per_node=8 rl.py --init_from=out/sft --reward=mine.py  # the same steps

It reads init_from, a folder that sft.py or dpo.py wrote, and writes out_dir. The loop is that of
sft.py, but the model writes the batch. You decide one thing, the reward, for example in mine.py.
The model learns what earns it, not what you mean:

    def prompts(): return ['What is 2 + 2?', 'What is 3 + 4?']          # texts or messages
    def reward(prompt, completion): return float(completion.strip().isdigit())
    def held_out(): return ['What is 5 + 6?']           # if it is missing, a tenth of prompts()

Tests of programs, files of answers and reward models are in extras/tasks/rewards.py:
--reward=problems, FILE.jsonl or FOLDER.

The policy gradient. The model p writes an answer a to a prompt and earns R(a). As grad p is
p grad log p, the gradient of the mean reward is a mean over answers, too:
    grad E[R] = sum over a of R(a) grad p(a) = E[R(a) grad log p(a)]
(REINFORCE, Williams 1992). So we train on an answer as on an example, weighted by its reward.
We subtract a baseline b, which removes noise: R - b is the advantage. If b does not depend on a,
the mean gradient stays as it is, because b times the sum over a of grad p(a) is 0: all p(a) add up
to 1. Our b is the mean reward of the G = num_samples answers to a prompt (GRPO, 2402.03300). One of
them is a itself, which only scales the gradient, by 1 - 1 / G.

You should see reward and val_reward rise over hundreds of steps; in the 60 of the quickstart both
are noisier than that, and only eval.py shows the gain. `entropy` is the mean of -log p over the
tokens that are drawn, and `informative` the fraction of prompts whose answers differ in reward. If
these two fall to 0 before the reward rises, lower the learning rate. If reward rises but
samples.txt gets worse, the reward is hacked: fix it, or raise kl_coef. Compare with
bench/random_reward.py, which teaches nothing.
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
init_from = 'out/sft'           # folder or .pt to start from, resume; auto: resume, or this
out_dir = 'out/rl'              # where the run writes
overwrite = False               # True: delete the run that out_dir holds
reward = ''                     # FILE.py, see above; problems, FILE.jsonl or FOLDER
allow_code_execution = False    # True: run a model's programs; first read extras/tasks/sandbox.py
learning_rate = 2e-4            # for millions of parameters; from 100 million on 1e-6 to 1e-5
max_steps = 100                 # batches of answers
# answers
batch_size = 32                 # prompts of a step, over all devices
num_samples = 8                 # answers to a prompt
max_new_tokens = 64             # tokens of an answer
temperature = 1.0               # divides the logits, in sampling and in training
# optimization
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
updates = 1                     # of the weights, with the answers of a step
micro_batch_size = 0            # prompts per device that are answered or trained at once; 0 = all
clip = 0.2                      # the ratio is clipped below 1 - clip and above 1 + clip
kl_coef = 0.0                   # pull towards the first model, which stays in memory and last.pt
warmup_steps: int | float = 0.05  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 1                # steps
eval_interval = 20              # steps; also before the first and after the last
eval_prompts = 200              # held-out prompts, always the same, answered greedily
save_interval = 20              # steps
# machine
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of the order of prompts and of the answers
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'batch_size': (1, 1e6), 'num_samples': (2, 1e4), 'max_new_tokens': (1, 1e6),
          'temperature': (0.01, 100), 'updates': (1, 1e4), 'log_interval': (1, 1e9),
          'eval_interval': (1, 1e9), 'save_interval': (1, 1e9), 'eval_prompts': (2, 1e6)}


# --- what is new: advantages, and a loss for answers that the model wrote -------------------------
def advantages(rewards):
    """Rewards (P, G) of G answers to each of P prompts -> advantages, float32 (P, G): minus the
    mean of the group. Four answers to one prompt, one of them right: rewards 1 0 0 0, mean 0.25,
    advantages 0.75 -0.25 -0.25 -0.25. So the right answer becomes likelier, and the others less so.
    Of equal rewards they are exactly 0: such a prompt teaches nothing. (GRPO also
    divides by the group's deviation, so that easy and hard prompts count more: 2503.20783.)"""
    rewards = rewards.double()
    equal = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)              # (P, 1)
    return (rewards - rewards.mean(1, keepdim=True)).masked_fill(equal, 0.0).float()


def policy_loss(log_p, old_log_p, A, clip=0.2, ref_log_p=None, kl_coef=0.0):
    """Return the loss, the ratio and the KL of each of n tokens, float32 (n,). log_p, old_log_p,
    ref_log_p (n,): log p of each token under the weights of now, those that drew it, and those at
    the start of the run. A (n,): the advantage of its answer. With ratio = p / p_old, the loss is
        -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)                (PPO, 1707.06347, eq. 7)
    At the first update the ratio is 1 (in bfloat16, nearly), and the gradient is REINFORCE's,
    -A grad log p. With updates > 1 the model moves away from the one that wrote the answers. Of two
    tokens with the ratio 1.5, one should become likelier:
        A     ratio A    clipped    loss    d loss / d log p
        1     1.5        1.2        -1.2    0: it has become likelier by enough
        -1    -1.5       -1.2       1.5     1.5: descent makes it less likely again

    kl_coef adds r - 1 - log r, r = p_ref / p (k3, Schulman 2020): 0.13 for p = 0.5, p_ref = 0.8."""
    ratio = (log_p - old_log_p).exp()
    loss = -torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A)
    log_r = (log_p if ref_log_p is None else ref_log_p) - log_p
    kl = log_r.exp() - 1 - log_r
    return loss + kl_coef * kl, ratio.detach(), kl.detach()


def collate(answers):
    """Return inputs and targets, int64 (N, T), of N answers, and of the n targets the log p when
    they were drawn and the advantage, float32 (n,). For the prompt 5 6 7 and the answer 8 9, drawn
    with the probabilities 0.5 and 0.1 (_ is IGNORE):
        x    5    6    7    8    9          old_log_p    -0.69    -2.3
        y    _    _    8    9    _          A            0.75     0.75"""
    x = [torch.tensor([*a['prompt'], *a['ids']]) for a in answers]
    y = [torch.tensor([IGNORE] * (len(a['prompt']) - 1) + a['ids'] + [IGNORE]) for a in answers]
    return (rnn.pad_sequence(x, batch_first=True),
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE),
            torch.tensor([value for a in answers for value in a['log_p']]),
            torch.tensor([a['advantage'] for a in answers for _ in a['ids']]))


explicit = dict()           # what config files and flags set: {setting: the value it replaced}
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace the settings
content = pathlib.Path(reward).read_bytes() if os.path.isfile(reward) else b''
# stage: eval.py asks it in conversations; reward_hash: on resume an edited file is said
config |= {'stage': 'rl', 'reward_hash': hashlib.sha256(content).hexdigest()[:16]}

# --- the run, new or resumed, its model, and this process -----------------------------------------
# What enables code execution is never restored from a checkpoint: pass it every time.
source, state, changed = resume_or_start(
    config, explicit, fixed='optimizer batch_size num_samples kl_coef seed',
    again='reward reward_hash allow_code_execution')
globals().update(config)                # on resume, the settings of the checkpoint
out = pathlib.Path(out_dir)
model, tokenizer = load_model(source, 'sft.py', dropout=0.0)    # so sampling and training agree

device_type, device, dtype, rank, world = init_device(device, dtype)
autocast = torch.autocast(device_type, torch.bfloat16, enabled=dtype == 'bfloat16')


def summed(*values):
    """Return the sums of these numbers over all processes."""
    sums = torch.tensor(values, dtype=torch.float64, device=device if world > 1 else 'cpu')
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


# --- data: prompts, and judge(prompts, texts), which says what answers to them earn ---------------
if reward.endswith('.py'):
    # It may import what is beside it, and start processes, which find its functions by its name. If
    # they are not forks, they run the main script again, unless it has no file.
    sys.path.append(os.path.dirname(os.path.abspath(reward)))
    program = types.ModuleType(pathlib.Path(reward).stem)
    program.__file__ = reward
    sys.modules.setdefault(program.__name__, program)
    del __file__
    exec(compile(content, reward, 'exec'), vars(program))
    require({'prompts', 'reward'} <= vars(program).keys(),
            f'{reward} does not exist, or must define prompts() and reward()')
    # to_ids() refuses what is no list, where a text would become its letters
    asked, held_out = ([(some,)] if isinstance(some, str | dict | None) else [*some] for some in
                       (program.prompts(), getattr(program, 'held_out', list)()))
    judge = lambda prompts, texts: map(program.reward, prompts, texts)
else:           # tests of programs, lines with answers, a reward model
    from extras.tasks.rewards import open_reward
    asked, held_out, judge = open_reward(reward, eval_prompts, allow_code_execution, tokenizer,
                                         device, autocast)
longest = model.config.block_size - max_new_tokens      # tokens of a prompt
suppress = tokenizer.suppressed_tokens(model.config.vocab_size)     # no answer has <|im_start|>


def to_ids(prompts):
    """Return {ids: prompt}, each once, of those that leave room for an answer."""
    prompt_of = {}
    for prompt in prompts:
        require(isinstance(prompt, str | list), f'{reward}: prompts() and held_out() return lists '
                f'of texts, or of lists of messages, but here is {prompt!r:.200}')
        messages = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]
        ids, _ = tokenizer.render(messages, add_generation_prompt=True)
        if len(ids) <= longest:
            prompt_of[tuple(ids)] = prompt
    return prompt_of


train, val = to_ids(asked), to_ids(held_out)
prompt_of = train | val
val = val or dict.fromkeys(random.Random(0).sample([*train], math.ceil(len(train) / 10)))
train = [ids for ids in train if ids not in val]
val = [*val][:eval_prompts]
data_hash = hashlib.sha256(repr(train).encode()).hexdigest()
require(train and val, f'{reward=}, prompts of at most {longest} tokens: {len(val)} to evaluate '
        f'on, {len(train)} others to train on; give more, or lower --max_new_tokens')
order = [train[i] for epoch in range(1 + max_steps * batch_size // len(train))
         for i in np.random.default_rng([seed, epoch]).permutation(len(train))]
at_once = (micro_batch_size or batch_size) * num_samples        # answers in a forward pass
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
model.to(device)
# the model that the run began with, which stays as it is
reference = GPT(model.config).eval().requires_grad_(False).to(device) if kl_coef else None
if reference:
    reference.load_state_dict(state.get('reference') or model.state_dict())
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
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
    """Write a checkpoint for GPT.load. last.pt also has what resuming needs."""
    if rank == 0:
        more = {'optimizer': opt.state_dict(), 'reference': reference and reference.state_dict()}
        model.save(out / name, config=config, step=step, best_val=best_val, data=data_hash,
                   tokenizer_hash=tokenizer.hash, **more if name == 'last.pt' else {})


def write_answers(asked, temperature, seeds=()):
    """Return an answer to each prompt: its ids, with the one that ends it, and log p of each when
    drawn. It depends on its own seed, and on other answers by rounding only."""
    answers = []
    for i in range(0, len(asked), at_once):
        prompts = asked[i:i + at_once]
        idx = rnn.pad_sequence([torch.tensor(ids) for ids in prompts], True, IGNORE, 'left')
        with autocast:          # (B, T), padded with IGNORE on the left -> (B, T + n), and (B, n)
            idx, log_p = model.generate(
                idx.to(device), max_new_tokens, temperature, stop=tokenizer.stop,
                seeds=seeds[i:i + at_once], with_log_p=True, suppress=suppress)
        new = idx[:, -log_p.shape[1]:].tolist()
        for prompt, ids, values in zip(prompts, new, log_p.tolist()):
            n = next((t for t, id in enumerate(ids, 1) if id in tokenizer.stop), len(ids))
            answers.append({'prompt': prompt, 'ids': ids[:n], 'log_p': values[:n]})
    return answers


def judge_all(answers):
    """Give each answer its reward. Return means over all processes, and how many tokens they have.
    An answer has passed if it earns 1 or more, and is truncated if no id ended it."""
    texts = [tokenizer.decode([id for id in a['ids'] if id not in tokenizer.stop]) for a in answers]
    rewards = judge([prompt_of[a['prompt']] for a in answers], texts)
    for a, earned in zip(answers, map(float, rewards)):
        require(abs(earned) < 1e9, f'{reward=} must give finite numbers below 1e9, not {earned}')
        a['reward'] = earned
    figures = np.array([(1, len(a['ids']), a['reward'], a['reward'] >= 1,
                         a['ids'][-1] not in tokenizer.stop, -sum(a['log_p'])) for a in answers])
    # a process may have no answers
    n, n_tokens, total, n_passed, n_cut, nats = summed(*figures.reshape(-1, 6).sum(0))
    return {'reward': total / n, 'pass_rate': n_passed / n, 'length': n_tokens / n,
            'truncated': n_cut / n, 'entropy': nats / n_tokens}, n_tokens


def log(row, n_shown=None):
    """Print the first figures, and append all to metrics.jsonl."""
    words = [f'{name}: {value:.4g}' for name, value in [*row.items()][:n_shown]]
    print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
    row = {name: value if math.isfinite(value) else None for name, value in row.items()}
    with open(out / 'metrics.jsonl', 'a') as f:
        print(json.dumps({'step': step} | row), file=f)


def evaluate():
    """Answer the held-out prompts greedily. best.pt keeps the weights with the highest reward."""
    global best_val
    answers = write_answers(val[rank::world], temperature=0.0)
    means, _ = judge_all(answers)
    # Of greedy answers, the mean of -log p says nothing about entropy.
    means['surprisal'] = means.pop('entropy')
    if rank == 0:
        log({f'val_{name}': mean for name, mean in means.items()})
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for a in answers[:3]:
                text = tokenizer.decode([*a['prompt'], *a['ids']])
                print(f'--- step {step}\n{text}\n[reward {a["reward"]:g}]\n', file=f)
    if means['reward'] > best_val and step > 0:         # never the model that it began as
        best_val = means['reward']
        save('best.pt')


def learn_from(answers, n_tokens):
    """Add to p.grad this process's part of the gradient of the clipped loss, a mean over all
    n_tokens of all answers (DAPO, eq. 8). Return its parts of the loss, of the sum of the KL, and
    of the number of tokens whose ratio was clipped."""
    sums = torch.zeros(3, device=device)        # a process may have no answers to learn from
    for i in range(0, len(answers), at_once):
        x, y, old_log_p, A = (t.to(device) for t in collate(answers[i:i + at_once]))
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
          f'{dtype})\nprompts: {len(train):,}, held out: {len(val):,}, left out as duplicates or '
          f'above {longest} tokens: {len(asked + held_out) - len(prompt_of):,}', sep='\n')
if step == 0:
    evaluate()
    save('last.pt')             # before the first step, so a full disk fails now
while step < max_steps:
    # 1. Each prompt gets G answers, and each answer a reward. Processes share the prompts.
    began = time.perf_counter()
    numbers = range(step * batch_size + rank, (step + 1) * batch_size, world)               # P
    asked = [order[i] for i in numbers for _ in range(num_samples)]                         # P G
    seeds = [f'{seed} {i} {k}' for i in numbers for k in range(num_samples)]
    answers = write_answers(asked, temperature, seeds)
    written = time.perf_counter()
    means, n_tokens = judge_all(answers)
    judged = time.perf_counter()

    # 2. How much better is each answer than the mean of its group? Where that is 0, only kl_coef
    # acts.
    rewards = torch.tensor([a['reward'] for a in answers], dtype=torch.float64)
    A = advantages(rewards.view(-1, num_samples))                                           # (P, G)
    for a, advantage in zip(answers, A.flatten().tolist()):
        a['advantage'] = advantage
    n_used = sum(len(a['ids']) for a in answers if a['advantage'])
    n_informative, n_used = summed(A.any(1).sum(), n_used)
    used = [a for a in answers if a['advantage'] or reference]
    used.sort(key=lambda a: len(a['prompt']) + len(a['ids']))       # so little is padded

    # The learning rate: a linear rise, then half a cosine down to a tenth.
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr
    # 3. The answers of positive advantage become likelier, the others less so.
    for _ in range(updates):
        gradient.zero_()
        sums = learn_from(used, n_tokens)
        if world > 1:
            dist.all_reduce(gradient)
        norm = clip_grad_norm_(params, grad_clip or math.inf).item()
        loss, kl_sum, n_clipped = summed(*sums)
        require(math.isfinite(loss + norm + means['entropy']), f'step {step + 1}: {loss=}, '
                f'grad_norm={norm}, {means=}; resume with a lower --learning_rate')
        opt.step()
    step += 1
    if rank == 0 and (step in (1, max_steps) or step % log_interval == 0):
        now = time.perf_counter()
        row = {'informative': n_informative / batch_size, 'loss': loss, 'lr': lr, 'grad_norm': norm,
               'used': n_used / n_tokens, 'clip_fraction': n_clipped / n_tokens,
               'kl': kl_sum / n_tokens if reference else math.nan, 'dt': now - began,
               'sample_s': written - began, 'score_s': judged - written,
               'train_s': now - judged, 'tok_s': n_tokens / (now - began)}
        log(means | row, n_shown=6)
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step % save_interval == 0 or step == max_steps:
        save('last.pt')

if rank == 0:
    print(f'done, best val_reward {best_val:g}; next: python eval.py --ckpt={shlex.quote(out_dir)}')
