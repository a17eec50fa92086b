"""
Reinforcement learning: a model and a reward for its answers -> a model that earns more.

    python rl.py --init_from=out/sft --allow_code_execution=True    # built-in problems and tests
    python rl.py --init_from=out/sft --reward=tasks.jsonl           # {"prompt", "answer"} lines
    python rl.py --init_from=out/sft --reward=mine.py       # prompts(), reward(prompt, completion)
    python rl.py --init_from=out/sft --reward=out/reward --kl_coef=0.05     # see RLHF below

It reads init_from, a folder that sft.py or dpo.py wrote, and writes out_dir as train.py does. The
decision made here is the reward: the model learns what earns it, not what you mean.

The policy gradient. The model p writes an answer a to a prompt and earns R(a). Because grad log p
is grad p / p, grad p is p grad log p, and
    grad E[R] = sum over a of R(a) grad p(a)
              = sum over a of R(a) p(a) grad log p(a) = E[R(a) grad log p(a)]
(REINFORCE, Williams 1992). So we train on an answer as on an example, weighted by its reward.

We subtract a baseline b from R, which removes noise. R - b is the advantage. If b does not depend
on a, the mean gradient stays as it is: E[b grad log p(a)] is b times the sum over a of grad p(a),
and that sum is 0, because all p(a) add up to 1 whatever the weights are. Our b is the mean reward
of the n = num_samples answers to the same prompt (GRPO, arXiv:2402.03300). One of them is a, but
    R - mean of all n = (1 - 1 / n) (R - mean of the others)
and the others do not depend on a. So the mean gradient gets shorter and keeps its direction.

With updates > 1, the policy has moved since it wrote the answers. So each token counts by the ratio
p_now / p_then, clipped (PPO, 1707.06347).

RLHF. People compare answers, dpo.py --loss_type=rm trains a model to score as they would, and
--reward=FOLDER makes the policy write what that model likes, while kl_coef keeps it near its start.
So did InstructGPT (2203.02155), which learned the baseline with a second network, PPO's critic. Our
baseline, the group's mean, needs no network.

You should see reward and val_reward rise, entropy fall slowly, and clip_fraction near 0 with
updates=1. With kl_coef, kl grows slowly. `entropy` is the mean of -log p over the tokens that the
model draws: 0 if it never hesitates, 0.69 if it always wavers between two tokens. `informative` is
the fraction of prompts whose answers differ in reward: 0.2 to 0.8 with rewards of 0 and 1. If
entropy and informative fall to 0, the policy has collapsed: lower the learning rate. If reward
rises but samples.txt gets worse, the reward is hacked: fix it, or raise kl_coef. If reward only
scatters, the model learns nothing: --reward=bench/random_reward.py shows how that looks.
"""
import contextlib, dataclasses, math
from typing import Literal
from configurator import Mistake, configure, set_by
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel as DDP
# What is RL's own is here and in rollouts, which reads tasks, writes answers and rewards them.
# sandbox runs the programs in answers. The others serve train.py and sft.py as well.
from model import IGNORE
from parts.model import checkpoints, copies
from parts.train import data, guards, optim, processes, records, rollouts, runs

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/sft'           # a folder to start from, or resume: continue in out_dir
out_dir = 'out/rl'              # where the run writes
reward = 'problems'             # problems, FILE.jsonl, FILE.py, FOLDER: what judges answers
allow_code_execution = False    # True: run programs of the model; first read extras/sandbox.py
max_steps = 100                 # updates
batch_size = 32                 # prompts of a step, over all devices
num_samples = 8                 # answers to a prompt
max_new_tokens = 64             # tokens of an answer
learning_rate = 2e-4            # for millions of parameters; from 100 million on 1e-6 to 1e-5
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
# files
overwrite = False               # True: delete the run that out_dir holds, and start over
# the reward
prompts = 'problems'            # for reward=FOLDER: problems, FILE.py, FILE.jsonl with "prompt"
held_out: str | None = None     # problems or a file, for evaluation; None = every tenth prompt
n_problems = 2000               # number of built-in problems
problems_seed = 1               # seed of these problems; SFT saw none of them
timeout = 3.0                   # seconds for a program
bad_reward: Literal['stop', 'zero'] = 'stop'  # what to do if reward() raises or returns no number
# sampling
temperature = 1.0               # divides the logits, in sampling and in training
slots = 128                     # answers written at a time, on each device
# optimization
micro_batch_size = 0            # prompts per device and forward pass; 0 = all
updates = 1                     # steps with the same answers
scale = False                   # divide advantages by their group's deviation: see advantages()
clip_low = 0.2                  # the ratio is clipped below 1 - clip_low
clip_high = 0.2                 # and above 1 + clip_high; 0.28 keeps more variety
kl_coef = 0.0                   # pull towards the first model; above 0 it stays in memory
optimizer: Literal['adamw', 'muon'] = 'adamw'  # Muon for the matrices in the blocks
min_lr: float | None = None     # where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.05  # steps of the rise; below 1: this fraction of max_steps
weight_decay = 0.0              # pull of the weights towards 0; of matrices only
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 1                # steps between lines of the log
eval_interval = 20              # steps between evaluations, also at step 0 and the end
eval_prompts = 200              # held-out prompts, always the same, answered greedily
save_interval = 20              # steps between saves of last.pt
# machine
dtype: Literal['auto', 'float32', 'bfloat16', 'float16'] = 'auto'  # auto = bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # seed of the order of prompts and of sampling
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'max_steps': (1, 1e9), 'batch_size': (1, 1e6), 'num_samples': (2, 1e4),
          'max_new_tokens': (1, 1e6), 'n_problems': (2, 1e6), 'timeout': (0.01, 86400),
          'temperature': (0.01, 100), 'slots': (1, 1e6), 'updates': (1, 1e4), 'clip_low': (0, 1),
          'log_interval': (1, 1e9), 'eval_interval': (1, 1e9), 'eval_prompts': (2, 1e6),
          'save_interval': (1, 1e9), 'seed': (0, 2 ** 32 - 1)}
config = configure(globals(), BOUNDS)
config['stage'] = 'rl'          # so eval.py will ask this model in conversations

# --- 1. this run and this process -----------------------------------------------------------------
# --- resume: same text in dpo.py, rl.py ---
# state is {} in a new run. With --init_from=resume it is the newest checkpoint in out_dir. Then the
# settings in it replace those in config, except what a flag or a config file gives now (they are in
# set_by), and the second line copies config into the variables above. From then on init_from is no
# longer the word resume: it is what the run began with, a folder or scratch.
state = runs.take_over_settings(config, set_by)
globals().update(config)
# --- end resume ---
# --- setup: same text in dpo.py, rl.py ---
# `here` is this process: its rank, the number of processes (world), its device ('cuda:1'), the kind
# of device ('cuda') and the dtype of matrix products, as text.
here = processes.Process(config)
micro_batch_size = micro_batch_size or batch_size // here.world
autocast = torch.autocast(here.kind, getattr(torch, here.dtype), enabled=here.dtype != 'float32')
scaler = torch.amp.GradScaler(here.kind, enabled=here.dtype == 'float16')
# --- end setup ---
# A batch of answers serves `updates` steps, and no checkpoint holds answers. So last.pt and best.pt
# are written between two batches only, and a resumed run begins with new answers. With updates=4,
# batches begin at steps 0, 4, 8, ..., so a save after step 20 is between two of them, and one after
# step 10 would be in the middle of a batch.
if eval_interval % updates or save_interval % updates or max_steps % updates:
    raise Mistake(f'eval_interval, save_interval and max_steps must be multiples of {updates=}')

# --- 2. the model, and for kl_coef the one that it began as ---------------------------------------
class Policy(torch.nn.Module):
    """Inputs x and targets y, (N, T) -> log p of each target, float32 (N, T); 0 where it is IGNORE.
    A prompt is never a target. For the prompt 5 6 7 and the answer 8 9 (_ is IGNORE):

        x         5    6    7           8           9
        y         _    _    8           9           _
        log p     0    0    log p(8)    log p(9)    0"""

    def __init__(self, model, temperature):
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, x, y):
        mask = y != IGNORE                                                              # (N, T)
        # Only the n hidden states before a target go through the head, the largest matrix.
        hidden = self.model.backbone(x)[mask]                                           # (n, C)
        logits = self.model.head(hidden)[:, :self.model.config.vocab_size].float()      # (n, V)
        log_p = (logits / self.temperature).log_softmax(-1)
        target_log_p = log_p.gather(1, y[mask][:, None])[:, 0]                          # (n,)
        return torch.zeros(x.shape, device=x.device).masked_scatter(mask, target_log_p)


model, tokenizer = checkpoints.open_to_tune(config, state)
# There is no dropout, because answers are sampled without it, and sampling and training must agree
# about a token's probability.
model = copies.like(model, dropout=0.0).to(here.device)
model.grad_checkpoint = grad_checkpoint
policy = Policy(model, temperature)
net = DDP(policy, gradient_as_bucket_view=True) if here.world > 1 else policy
reference = None
if kl_coef:
    first = checkpoints.open_model(init_from, here.device)[0]
    reference = Policy(first.eval(), temperature).requires_grad_(False)
opt = optim.build(model, optimizer, learning_rate, weight_decay)
warmup_steps, min_lr, _ = optim.schedule_ends(max_steps, warmup_steps, learning_rate, min_lr)
step = state.get('step', 0)
tokens = state.get('tokens', 0)         # of the answers of all steps so far
best_val = state.get('best_val', -math.inf)
if state:
    processes.load_state(model, opt, scaler, state)

# --- 3. tasks: prompts, and what judges their answers ---------------------------------------------
# --reward has four forms. What an answer earns with each of them:
#     problems        1 if the program in it passes the tests of a built-in problem, else 0
#     FILE.jsonl      1 if it keeps the rules of its line and passes its tests, else 0
#     FILE.py         the number that the file's reward(prompt, completion) returns
#     FOLDER          the score of a reward model, which dpo.py --loss_type=rm wrote
# A task is a question in the form of eval.py, and the ids of its prompt. These are two tasks,
# without the keys that do not matter here:
#     {'messages': [{'role': 'user', 'content': 'What is 2 + 2?'}],
#      'ids': [4033, 1498, 10, 87, ...], 'rules': [('answer', '4')], 'tests': '', 'entry_point': ''}
#     {'messages': [{'role': 'user', 'content': 'Write double(x).'}],
#      'ids': [4033, 1498, 10, 610, ...], 'rules': [], 'tests': 'assert double(2) == 4',
#      'entry_point': ''}
# rules: what the answer must keep; here its last number must be 4.
# entry_point: the function that the tests' check(candidate) is called with; '' if the tests call
# the function by its name, as here.
longest = model.config.block_size - max_new_tokens      # tokens of a prompt
# val_tasks are held out. identity has the hashes of the files that a resumed run must find again.
tasks, val_tasks, identity = rollouts.open_tasks(config, tokenizer, longest, here)

# From here on the run writes into out_dir: train.log, metrics.jsonl and samples.txt by log, which
# also keeps other runs out of the folder, and checkpoints by save().
log = runs.Log(config, set_by, state, here, model, tokenizer, identity)
# The guard refuses the update of a step whose loss or gradient is a NaN.
guard = guards.Guard(state, log, here.dtype)
log.say(f'  tasks    prompts: {len(tasks):,}, held out: {len(val_tasks):,}')


# --- 4. a prompt becomes answers, rewards and advantages ------------------------------------------
@dataclasses.dataclass
class Answer:
    """What the model wrote to a prompt, and what that is worth."""
    prompt: list            # ids
    ids: list               # of the answer
    log_probs: list         # log p of each of its ids, when it was sampled
    ended: bool             # by itself, not at max_new_tokens
    text: str
    verdict: object         # a Future: result() waits for its tests; None if no tests judge it
    reward: float = 0.0
    advantage: float = 0.0  # above 0: better than the other answers to the same prompt


def advantages(rewards, scale=False):
    """Rewards (P, G) of G answers to each of P prompts -> advantages, float32 (P, G): minus the
    mean of the group. Four answers to one prompt, one of them right: rewards 1 0 0 0, mean 0.25,
    advantages 0.75 -0.25 -0.25 -0.25. So the right answer becomes likelier, and the others less so.
    If all rewards of a group are equal, exactly 0: such a prompt teaches nothing.
    scale divides by the group's standard deviation, as GRPO does. It is 0.33 if 1 of 8 answers is
    right, 0.5 if 4 are, so easy and hard prompts count more than others (Dr. GRPO, 2503.20783)."""
    rewards = rewards.double()
    centered = rewards - rewards.mean(1, keepdim=True)
    if scale:
        centered = centered / rewards.std(1, correction=0, keepdim=True)
    equal = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)              # (P, 1)
    return centered.masked_fill(equal, 0.0).float()


def answers_to(batch, n, temperature, noise):
    """Return n answers to each of the P tasks of a batch. To "What is 2 + 2?", with n = 4:

        text         It is 4    5        4        It is 3
        reward       1          0        1        0
        advantage    0.5        -0.5     0.5      -0.5

    noise: float64 (P n, max_new_tokens), for each token of an answer a random number u in [0, 1).
    The token drawn is the first at which the probabilities, added up, reach u. With probabilities
    0.5 0.2 0.3, u = 0.6 draws the second token."""
    asked = [task for task in batch for _ in range(n)]
    answers = [None] * len(asked)
    warn = log.say if bad_reward == 'zero' else None
    # Judges run the program in an answer and test it. submit() gives them an answer and returns at
    # once, with a Future for their verdict, so they work while other answers are being written.
    # rewards_of() waits for the verdicts. All processes share the CPU's cores.
    n_judges = max(1, min(16, rollouts.sandbox.CORES // here.world))
    with rollouts.sandbox.Court(timeout, processes=n_judges) as judges:
        with log.timed('sample'), autocast:
            written = rollouts.write(model, [task['ids'] for task in asked], noise, temperature,
                                     tokenizer.stop, slots)
            for i, ids, log_probs, ended in written:
                text = tokenizer.decode(ids[:-1] if ended else ids)
                verdict = rollouts.submit(judges, asked[i], text)
                answers[i] = Answer(asked[i]['ids'], ids, log_probs, ended, text, verdict)
        with log.timed('score'), autocast:
            rewards = [rollouts.rewards_of(task, answers[i * n:i * n + n], warn)
                       for i, task in enumerate(batch)]
    rewards = torch.tensor(rewards, dtype=torch.float64).view(len(batch), n)                # (P, n)
    for a, reward, advantage in zip(answers, rewards.flatten().tolist(),
                                    advantages(rewards, scale).flatten().tolist()):
        a.reward = reward
        a.advantage = advantage
    return answers


def sample_batch(number):
    """Return this process's part of a batch: num_samples answers to each of its prompts. Prompts
    and noise follow from (seed, number), however many processes share the batch."""
    # Of 4 prompts with 2 answers each, the second of 2 processes has prompts 2 and 3, and rows 4 to
    # 7 of the noise.
    numbers = np.arange(batch_size).reshape(here.world, -1)[here.rank]
    rows = np.arange(batch_size * num_samples).reshape(here.world, -1)[here.rank]
    batch = []
    for i in number * batch_size + numbers:
        epoch, position = divmod(i, len(tasks))
        batch.append(tasks[data.shuffled(len(tasks), seed, epoch)[position]])
    noise = rollouts.noise_of(seed, number, rows, max_new_tokens)
    return answers_to(batch, num_samples, temperature, noise)


# --- 5. the loss, the reward of held-out prompts, the checkpoint ----------------------------------
def collate(answers):
    """Return inputs and targets, int64 (N, T), as Policy shows them, and log p of each target when
    it was sampled, float32 (N, T). Padding is on the right, where attention does not see it."""
    x, y = records.collate([(a.prompt, a.ids) for a in answers])
    old_log_probs = torch.zeros(x.shape)
    old_log_probs[y != IGNORE] = torch.tensor([log_p for a in answers for log_p in a.log_probs])
    return x, y, old_log_probs


def policy_loss(log_probs, old_log_probs, advantages, mask, clip_low=0.2, clip_high=0.2,
                ref_log_probs=None, kl_coef=0.0):
    """Losses, ratios and KL of each token, float32 (N, T), all 0 where the mask is 0.

    log_probs, old_log_probs, ref_log_probs, float32 (N, T): log p of each token now, when it was
    sampled, at the start of the run. advantages (N,). mask (N, T): 1 at the tokens of the answers.
    With ratio = p / p_old, a token's loss is
        -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)
    (PPO, arXiv:1707.06347, eq. 7; separate bounds: DAPO, 2503.14476). At the first update the ratio
    is 1, nothing is clipped, and the gradient is REINFORCE's, -A grad log p. Later, of two tokens
    with the ratio 1.5, one should have become likelier, and the other less likely:

        A     ratio A    clipped    loss    d loss / d log p
        1     1.5        1.2        -1.2    0: it has become likelier by enough
        -1    -1.5       -1.2       1.5     1.5: descent makes it less likely again

    With the ratio 0.5 it is the other way round: below 1 - clip_low, A < 0 has no gradient.

    kl_coef adds k = r - 1 - log r, r = p_ref / p (k3, Schulman 2020). Of two tokens, one has become
    less likely than at the start of the run, and the other more:

        p               0.5     0.5
        p_ref           0.8     0.2
        k               0.13    0.32    0 only if p is p_ref
        dk / d log p    -0.6    0.6     1 - r: both pull p towards p_ref

    docs/chat.md says which KL divergence this is."""
    mask = mask.bool()
    # e^80 is finite in float32.
    moved = torch.where(mask, log_probs.float() - old_log_probs.float(), 0.0).clamp(max=80)
    ratios = moved.exp()                                                                # (N, T)
    A = advantages.float()[:, None]                                                     # (N, 1)
    losses = -torch.minimum(ratios * A, ratios.clamp(1 - clip_low, 1 + clip_high) * A)
    kl = torch.zeros_like(losses)
    if ref_log_probs is not None:
        back = torch.where(mask, ref_log_probs.float() - log_probs.float(), 0.0).clamp(max=80)
        kl = back.exp() - 1 - back
        losses = losses + kl_coef * kl
    return losses * mask, ratios.detach() * mask, kl.detach() * mask


def micro_batches_of(answers):
    """Return the answers that have a gradient, in micro-batches of answers of about one length. An
    answer whose advantage is 0 has no gradient, unless kl_coef gives it one. If none has, the first
    one stays, because DDP waits for a backward pass of each process."""
    chosen = [a for a in answers if a.advantage or reference] or answers[:1]
    chosen.sort(key=lambda a: len(a.prompt) + len(a.ids))
    n = micro_batch_size * num_samples
    return [chosen[i:i + n] for i in range(0, len(chosen), n)]


n_silent = 0            # batches in a row in which no prompt was informative


def figures_of(answers):
    """Return what the log says of a batch of answers. Every ten batches that taught nothing, warn
    the user."""
    global n_silent
    figures = rollouts.figures(answers, num_samples, here)
    n_silent = 0 if figures['informative'] else n_silent + 1
    if n_silent and n_silent % 10 == 0:
        log.note(step, 'silent', f'{n_silent} batches taught nothing: answers to a prompt earned '
                 f'the same, {figures["reward"]:.3g} on average (low: easier prompts, more SFT; '
                 'high: harder ones)')
    return figures


def evaluate():
    """Write greedy answers to the held-out prompts, and log what they earn. best.pt keeps the
    weights with the highest reward."""
    global best_val
    with log.timed('eval'):
        mine = val_tasks[here.rank::here.world]
        answers = answers_to(mine, 1, 0.0, np.zeros((len(mine), max_new_tokens)))
        means = rollouts.figures(answers, 1, here)
    val_reward = means['reward']
    log.evaluation(step, **{f'val_{name}': means[name]
                            for name in ('reward', 'pass_rate', 'truncated', 'length')})
    log.say(f'--- step {step}, val_reward {val_reward:.4f}', 'samples.txt')
    for a in answers[:3]:
        log.say(f'{tokenizer.decode([*a.prompt, *a.ids])}\n[reward {a.reward:g}]\n', 'samples.txt')
    if val_reward > best_val and step > 0:      # never the model that it began as
        best_val = val_reward
        save('best.pt')


def save(name='last.pt'):
    """Write all that resuming needs. The last.pt before becomes last-1.pt."""
    log.save(name, model, opt, scaler, guard, step=step, tokens=tokens, best_val=best_val)


# --- 6. the loop ----------------------------------------------------------------------------------
if step == 0:
    evaluate()
while step < max_steps:
    # The policy as it is now writes answers, which are judged and get their advantages. They serve
    # for `updates` steps.
    if step % updates == 0:
        answers = sample_batch(step // updates)
        n_tokens = here.sum(sum(len(a.ids) for a in answers))[0]        # of all processes
        figures = figures_of(answers)                                   # for the log
        micro_batches = micro_batches_of(answers)
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, min_lr)    # lr_at() of train.py
    for group in opt.param_groups:
        group['lr'] = lr

    with log.timed('train'):
        # the gradient of the mean loss over all tokens of the batch (DAPO, 2503.14476, eq. 8)
        loss = kl_sum = n_clipped = 0.0
        for i, part in enumerate(micro_batches):
            x, y, old_log_probs = [t.to(here.device) for t in collate(part)]            # (N, T)
            A = torch.tensor([a.advantage for a in part], device=here.device)           # (N,)
            # DDP averages the gradients over the processes after the last micro-batch only.
            is_last = i == len(micro_batches) - 1
            with contextlib.nullcontext() if is_last or not isinstance(net, DDP) else net.no_sync():
                with autocast:
                    log_probs = net(x, y)                                               # (N, T)
                    ref_log_probs = reference(x, y) if reference else None
                losses, ratios, kl = policy_loss(log_probs, old_log_probs, A, y != IGNORE, clip_low,
                                                 clip_high, ref_log_probs, kl_coef)
                share = losses.sum() / n_tokens     # each token of all processes counts the same
                # DDP divides the sum of all gradients by world; times world undoes it.
                scaler.scale(share * here.world).backward()
            loss += share.detach()
            kl_sum += kl.sum()
            # This counts all ratios outside of the bounds. Some still have a gradient: those above
            # 1 + clip_high with A < 0, and those below 1 - clip_low with A > 0.
            is_clipped = (ratios < 1 - clip_low) | (ratios > 1 + clip_high)
            n_clipped += (is_clipped & (y != IGNORE)).sum()

        # the update
        scaler.unscale_(opt)            # float16's gradients were scaled up; otherwise nothing
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf).item()
        # Ctrl-C may reach one process only. The sum tells all, so they stop after the same step.
        loss, kl_sum, n_clipped, stop_requests = here.sum(loss, kl_sum, n_clipped,
                                                          here.stop_requests)
        if guard.allows(step, loss, norm):      # no NaN; it logs what it refuses
            scaler.step(opt)
        scaler.update()
        opt.zero_grad(set_to_none=here.world == 1)  # DDP's gradients stay in its buckets, as zeros
    step += 1
    tokens += int(n_tokens)

    if step in (1, max_steps) or step % log_interval == 0:
        # The line of the log shows the four that are named first; metrics.jsonl has all.
        log.step(('reward', 'informative', 'entropy', 'length'), step=step, tokens=tokens,
                 loss=loss, lr=lr, grad_norm=norm, **figures,
                 kl=kl_sum / n_tokens if reference else None,
                 clip_fraction=n_clipped / n_tokens, skipped=guard.skipped)
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    # A run ends between two batches only, because no checkpoint holds the answers.
    stopping = (stop_requests or guard.trouble) and step % updates == 0
    if step % save_interval == 0 or step == max_steps or stopping:
        save()
    if stopping:
        break

# --- summary --------------------------------------------------------------------------------------
log.end(step, best_val, ['sample.py', f'--ckpt={out_dir}', '--chat=True'],
        what='highest val_reward')
here.leave(guard.trouble)                   # with trouble: one line, and exit code 2
