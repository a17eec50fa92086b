"""
Reinforcement learning: a model that answers, and a reward for each answer -> a model that earns more.

    python rl.py --init_from=out/sft --allow_code_execution=True    # runs its answers to built-in problems
    python rl.py --init_from=out/sft --reward=tasks.jsonl           # {"prompt", "answer"} lines, or GSM8K's
    python rl.py --init_from=out/sft --reward=mine.py               # prompts() and reward(prompt, completion)

Reads a folder that sft.py or dpo.py wrote. Copy this file with configurator, model, tokenizer and parts/.
The decision made here is the reward: the model learns that, not what you mean.

The policy gradient. The model p writes an answer a to a prompt and earns R(a). Then
    grad E[R] = sum over a of R(a) grad p(a) = E[R(a) grad log p(a)]            (REINFORCE, Williams 1992)
so we train on an answer as on a demonstration, weighted by its reward. A baseline b that does not depend on a
removes noise and leaves the mean: E[b grad log p(a)] = b grad 1 = 0. Our b is the mean reward of num_samples
answers to one prompt, a among them (GRPO, arXiv:2402.03300): this only shrinks the mean, by 1 / num_samples.
R - b is the advantage. With updates > 1 the policy has moved since it wrote: each token counts by the ratio
p_now / p_then, clipped (PPO, 1707.06347).

You should see reward and val_reward rise, entropy fall slowly, and clip_fraction near 0 with updates=1. With
kl_coef, kl grows slowly. `informative` is the share of prompts whose answers differ in reward: 0.2 to 0.8
with rewards of 0 and 1. If entropy and informative fall to 0, the policy has collapsed: lower the learning
rate. If reward rises but samples.txt gets worse, the reward is hacked: fix it, or raise kl_coef. If reward
only scatters, the model learns nothing: --reward=random shows how that looks.
"""
import functools, hashlib, math, os, time
import numpy as np
import torch
from configurator import configure, set_by, show
from model import IGNORE, load_checkpoint, save_checkpoint
from parts.model import planner
from parts.train import checkpoint, devices, guards, journal, optim, processes, records, rollouts
from parts.train import start
from parts.sample import decoding
from parts.eval import problems, questions, sandbox
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/sft'           # the folder of the model to start from; or resume: continue in out_dir
out_dir = 'out/rl'              # where the run writes
overwrite = False               # True: start over in an out_dir that holds a run, and delete that run
# the reward
reward = 'problems'             # problems, random, FILE.jsonl or FILE.py: see tasks_of() below
held_out: str | None = None     # FILE.jsonl or FILE.py to evaluate on; None = every tenth prompt of reward
n_problems = 2000               # [2, 1e6]: for reward=problems and random: how many
problems_seed = 1               # >= 0: which ones; SFT's demonstrations have seed 0
allow_code_execution = False    # True: run programs of the model; first read parts/eval/sandbox.py
timeout = 3.0                   # [0.01, 86400]: seconds for a program
bad_reward = 'stop'             # stop | zero: when reward() raises or returns no number
# sampling
num_samples = 8                 # >= 2: answers to a prompt
max_new_tokens = 64             # >= 1: tokens of an answer
temperature = 1.0               # > 0: of the policy, in sampling and in training
slots = 128                     # >= 1: answers written at a time, on each device
# optimisation
max_steps = 100                 # >= 1: updates
batch_size = 32                 # >= 1: prompts per step, over all devices; each has num_samples answers
micro_batch_size = 0            # >= 0: prompts per device and forward pass; 0 = all
updates = 1                     # >= 1: steps with the same answers
scale = False                   # divide advantages by their group's deviation: see advantages()
clip_low = 0.2                  # [0, 1]: the ratio is clipped below 1 - clip_low
clip_high = 0.2                 # >= 0: and above 1 + clip_high; 0.28 keeps more variety
kl_coef = 0.0                   # >= 0: pull towards the first model; above 0 it stays in memory, too
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 2e-4            # >= 0: for millions of parameters; from 100 million on 1e-6 to 1e-5
min_lr: float | None = None     # >= 0: where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.05  # >= 0: steps in which the rate rises; below 1 a share of all steps
weight_decay = 0.0              # >= 0: of matrices only
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
# watching
log_interval = 1                # >= 1: steps
eval_interval = 20              # >= 1: steps; also before the first and after the last
eval_prompts = 200              # >= 2: held-out prompts, always the same, answered greedily
save_interval = 20              # >= 1: steps
expect: dict | None = None      # {'val_reward': (0.6, 0.8)}: the run's last line says whether it came
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of matrix products; auto = native
grad_checkpoint = False         # compute each block again in the backward pass: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())
config['stage'] = 'rl'          # so eval.py will ask this model in conversations
if eval_interval % updates or save_interval % updates or max_steps % updates:
    raise ValueError(f'eval_interval, save_interval and max_steps must be multiples of {updates=}')

# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
rank, world, local_rank = processes.ranks()     # one process per device; torchrun starts them
main_process = rank == 0
device, dtype, autocast, scaler = devices.set_up(device, dtype, local_rank)
per_rank, micro_batch_size = processes.per_process(batch_size, micro_batch_size, world)
only_reads = config.get('show_batch') is not None     # then out_dir may hold a run
last_path = start.check_out_dir(out_dir, init_from, overwrite, only_reads)
log = journal.Journal(out_dir, main_process)
timer = journal.Timer()
processes.join(device)
# --- end setup ---


# --- the loss -----------------------------------------------------------------------------------------------
def advantages(rewards, scale=False):
    """Rewards (P, G) of G answers to each of P prompts -> advantages, float32 (P, G): minus the mean of the
    group. Four answers to one prompt, one of them right: rewards 1 0 0 0, mean 0.25, advantages 0.75 -0.25
    -0.25 -0.25. So the right answer becomes likelier, and the three others less so.
    If all rewards of a group are equal, exactly 0: such a prompt teaches nothing.
    scale divides by the group's standard deviation, as GRPO does. It is 0.33 if 1 of 8 answers is right, 0.5
    if 4 are, so easy and hard prompts count more than others (Dr. GRPO, arXiv:2503.20783)."""
    rewards = rewards.double()
    centred = rewards - rewards.mean(1, keepdim=True)
    if scale:
        centred = centred / rewards.std(1, correction=0, keepdim=True)
    equal = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)              # (P, 1)
    return centred.masked_fill(equal, 0.0).float()


def policy_loss(log_probs, old_log_probs, advantages, mask, clip_low=0.2, clip_high=0.2, ref_log_probs=None,
                kl_coef=0.0):
    """Losses, ratios and KL of each token, float32 (N, T), all 0 where the mask is 0.

    log_probs, old_log_probs, ref_log_probs, float32 (N, T): log p of each token now, when it was sampled, at
    the start of the run. advantages (N,). mask (N, T): 1 at the tokens of the answers.
    With ratio = p / p_old, a token's loss is -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A): PPO,
    arXiv:1707.06347, eq. 7; separate bounds: DAPO, 2503.14476. Where A > 0, a ratio above 1 + clip_high earns
    nothing more: its gradient is 0. Where A < 0, the same holds below 1 - clip_low. kl_coef adds p_ref / p
    - 1 - log(p_ref / p). Its mean is KL(p | p_ref) (k3, Schulman 2020), its gradient KL(p_ref | p)'s."""
    mask = mask.bool()
    moved = torch.where(mask, log_probs.float() - old_log_probs.float(), 0.0).clamp(max=80)     # e^80: finite
    ratios = moved.exp()                                                                # (N, T)
    A = advantages.float()[:, None]                                                     # (N, 1)
    losses = -torch.minimum(ratios * A, ratios.clamp(1 - clip_low, 1 + clip_high) * A)
    kl = torch.zeros_like(losses)
    if ref_log_probs is not None:
        back = torch.where(mask, ref_log_probs.float() - log_probs.float(), 0.0).clamp(max=80)
        kl = back.exp() - 1 - back
        losses = losses + kl_coef * kl
    return losses * mask, ratios.detach() * mask, kl.detach() * mask


# --- model --------------------------------------------------------------------------------------------------
load = functools.partial(load_checkpoint, device=device)
model, state, tokenizer = start.open_to_tune(init_from, last_path, load, Tokenizer.load)
model = model.grown(tokenizer.vocab_size).like(dropout=0.0)     # dropout: sampling has none either
model.grad_checkpoint = grad_checkpoint


# --- tasks: prompts, and how their answers are judged -------------------------------------------------------
def tasks_of(reward, n, problems_seed, *splits):
    """A list of tasks. Each has the prompt, as messages and as ids, and one of three keys. tests: Python that
    runs after the model's code (with entry_point, it defines check(candidate)). answer: a text; the model
    must find the number after its ####, else its last. reward: a function of the model's text."""
    def with_ids(task):
        return task | {'ids': tokenizer.render(task['messages'], add_generation_prompt=True)[0]}

    if reward in ('problems', 'random'):        # of a problem's messages only the question
        return [with_ids(questions.to_task(p) | {'messages': problems.to_messages(p)[:1]})
                for split in splits for p in problems.problems(n // len(splits), problems_seed, split)]
    if reward.endswith('.py'):
        return [with_ids(task) for task in rollouts.tasks_of_file(reward, bad_reward == 'zero')]
    return records.read_jsonl(reward, lambda record: with_ids(questions.to_task(record)),
                              'a line has "prompt", and "tests" or "answer"; else: problems, random, FILE.py')


all_tasks = tasks_of(reward, n_problems, problems_seed, 'train', 'feedback')
if held_out or reward in ('problems', 'random'):
    exam = tasks_of(held_out or reward, eval_prompts, 0, 'validation', 'feedback_validation')
else:                       # every tenth prompt
    by_prompt = {tuple(task['ids']): task for task in all_tasks}
    exam = [*by_prompt.values()][::10]
exam_prompts = {tuple(task['ids']) for task in exam}
tasks = [task for task in all_tasks if tuple(task['ids']) not in exam_prompts]
if reward == 'random':      # a coin decides; held-out answers are still judged
    tasks = [{'ids': task['ids']} for task in tasks]
judged = [task for task in tasks + exam if 'tests' in task]
if judged and not allow_code_execution:
    raise ValueError(f'{reward=} runs programs of the model here (random: for the held-out prompts only); '
                     'read the top of parts/eval/sandbox.py, then give --allow_code_execution=True')
longest = model.config.block_size - max_new_tokens
tasks = [task for task in tasks if len(task['ids']) <= longest]
exam = [task for task in exam if len(task['ids']) <= longest][:eval_prompts]
if not tasks or not exam:
    raise ValueError(f'{reward=}, prompts of at most {longest} tokens: {len(exam)} to evaluate on, '
                     f'{len(tasks)} others to train on; give more prompts, or lower --max_new_tokens')
caution = {}
if judged and main_process:     # first answers that are known to be right or wrong
    run = lambda jobs: list(sandbox.run_many(jobs, timeout))
    *_, caution = questions.check_harness(reward, judged, run)
# whatever decides what a reward means: prompts, answers, tests, code of reward()
decides = [{key: value for key, value in task.items() if key != 'reward'} for task in tasks + exam]
digest = hashlib.sha256(repr(decides).encode()).hexdigest()


# --- answers, and their rewards -----------------------------------------------------------------------------
def answers_to(asked, noise, temperature):
    """A Rollout with its reward for each of the tasks; the seconds of writing, and of waiting for judges."""
    began = time.time()
    batch = decoding.Batch(model, tokenizer.stop, min(slots, len(asked)))
    with autocast, sandbox.Court(timeout) as court:
        def judge(task, text):          # the program runs while other answers are being written
            if 'tests' in task:
                program = questions.program(task, text, chat=True)
                return court.submit(program, task['tests'], task['entry_point'])

        answers = rollouts.write(batch, asked, noise, temperature, tokenizer.decode, judge)
        middle = time.time()
        warn = log.say if main_process else print
        for answer, task in zip(answers, asked):
            answer.reward = rollouts.reward_of(task, answer.text, answer.verdict, questions.last_number, warn)
    model.train()           # a batch is written in eval mode
    return answers, middle - began, time.time() - middle


def new_answers(number):
    """This process's answers, num_samples to each of its prompts, and figures of all processes."""
    first, last = rank * per_rank, (rank + 1) * per_rank                # this process's part of the prompts
    prompts = rollouts.draw(number, batch_size, len(tasks), seed)[first:last]
    asked = [tasks[j] for j in prompts for _ in range(num_samples)]
    rows = range(first * num_samples, last * num_samples)               # among the answers of all processes
    noise = rollouts.noise_of(seed, number, rows, max_new_tokens + 1)   # the last is for random's coin
    answers, sample_s, score_s = answers_to(asked, noise[:, :-1], temperature)
    if reward == 'random':
        for answer, coin in zip(answers, noise[:, -1]):
            answer.reward = float(coin < 0.5)
    earned = np.array([answer.reward for answer in answers]).reshape(-1, num_samples)       # (P, G)
    n_informative, = processes.all_sum((earned.min(1) < earned.max(1)).sum())
    return answers, rollouts.figures(answers, processes.all_sum) | {
        'informative': n_informative / batch_size, 'sample_s': sample_s, 'score_s': score_s}


# --- optimizer, resume --------------------------------------------------------------------------------------
optimizers = optim.build(model, optimizer, learning_rate, (0.9, 0.95), weight_decay)
guard = guards.Guard(state, log.note, scaler.is_enabled())
warmup_steps, min_lr, _ = optim.schedule_ends(max_steps, warmup_steps, learning_rate, min_lr)
step = state.get('step', 0)
best_val = state.get('best_val', -math.inf)
silent = state.get('silent', 0)         # batches in a row without an informative group
if state:
    start.same_run(last_path, state, {'tasks_and_rewards': digest}, ['tasks_and_rewards'])
    fixed = 'stage', 'optimizer', 'updates', 'batch_size', 'seed', 'num_samples', 'max_new_tokens'
    start.same_run(last_path, state['config'], config, fixed)
    optim.restore(optimizers, scaler, state)
    config['init_from'] = state['config']['init_from']      # the reference of kl_coef, not 'resume'
processes.same_start(last_path, config | {'tasks_and_rewards': digest, 'step': step})
net = processes.wrap(rollouts.Policy(model, temperature, IGNORE), 'ddp', device)
reference = None
if kl_coef:
    first_model = load(config['init_from'])[0].grown(tokenizer.vocab_size).eval()       # without dropout
    reference = rollouts.Policy(first_model, temperature, IGNORE).requires_grad_(False)


# --- evaluate, save -----------------------------------------------------------------------------------------
@timer.pause('eval')
def evaluate():
    """Greedy answers to the held-out prompts."""
    global best_val
    my_tasks = exam[rank::world]
    answers = answers_to(my_tasks, np.zeros((len(my_tasks), max_new_tokens)), 0.0)[0]
    means = rollouts.figures(answers, processes.all_sum)
    row = {f'val_{name}': value for name, value in means.items() if name != 'entropy'}      # greedy: none
    val_reward = row['val_reward']
    log.evaluation(step, max_steps, row)
    texts = [f'{tokenizer.decode([*a.prompt, *a.ids])}\n[reward {a.reward:g}]' for a in answers[:3]]
    log.say(f'--- step {step}, val_reward {val_reward:.4f}\n' + '\n\n'.join(texts) + '\n', 'samples.txt')
    if val_reward > best_val and step > 0:
        best_val = val_reward
        if main_process:
            save_checkpoint(log.path('best.pt'), model, step=step, best_val=best_val, config=config,
                            tokenizer_hash=tokenizer.hash)


@timer.pause('save')
def save():
    """Write last.pt, with all that resuming needs; the one before becomes last-1.pt."""
    if main_process:
        save_checkpoint(f'{last_path}.new', model, step=step, best_val=best_val, config=config,
                        tasks_and_rewards=digest, tokenizer_hash=tokenizer.hash,
                        optimizers=optim.states(optimizers), scaler=scaler.state_dict(), silent=silent,
                        **guard.state())
        checkpoint.rotate(last_path, keep=2)


# --- the banner: what is about to happen --------------------------------------------------------------------
config['expect'] = journal.expected(config, set_by)
log.begin(config, state, step, max_steps)
if main_process:
    tokenizer.save(log.path('tokenizer.json'))
log.copy_in(os.path.join(start.folder_of(last_path if state else init_from), 'data.json'))   # the base's
show(config, log.say)
log.row('tasks', f'prompts: {len(tasks):,}, held out: {len(exam):,}; not trained on: '
        f'{len(all_tasks) - len(tasks):,}')
for text in caution.values():
    log.row('caution', text)
log.row('model', planner.described(vars(model.config)))
log.row('step', f'prompts: {batch_size}, answers to each: {num_samples}; processes: {world}, '
        f'micro-batches of each: {per_rank // micro_batch_size}, prompts in one: {micro_batch_size}; '
        f'on {device}, in {dtype}')
log.row('plan', optim.described(max_steps, warmup_steps, learning_rate, min_lr, grad_clip))

# --- the loop -----------------------------------------------------------------------------------------------
probe = optim.probe(model)              # one matrix: how far does a step move it?
answers = None
if step == 0:
    evaluate()
timer.restart()
while step < max_steps:
    # answers, written by the policy as it is now, each with its advantage
    if step % updates == 0 or answers is None:
        answers, figures = new_answers(step // updates)
        by_group = torch.tensor([a.reward for a in answers], dtype=float).view(-1, num_samples)     # (P, G)
        weighted = [*zip(answers, advantages(by_group, scale).flatten().tolist())]
        n_written = sum(len(a.ids) for a in answers)
        n_used = sum(len(a.ids) for a, advantage in weighted if advantage)
        n_tokens, n_used = processes.all_sum(n_written, n_used)
        # without kl_coef, answers with advantage 0 are left out: no gradient. Each process keeps one, as DDP
        # waits for all processes. Answers of about one length share a forward pass
        useful = [pair for pair in weighted if pair[1] or reference]
        weighted = useful or weighted[:1]
        weighted.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].ids))
        silent = 0 if figures['informative'] else silent + 1
        if silent and silent % 10 == 0:
            log.note(step, 'silent', f'{silent} batches taught nothing: answers to a prompt earned the same, '
                     f'{figures["reward"]:.3g} on average (low: easier prompts, more SFT; high: harder ones)')

    # the gradient of the mean loss over all tokens of the global batch (DAPO, 2503.14476, eq. 8)
    began = time.time()
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, min_lr)         # lr_at() of train.py
    optim.set_lr(optimizers, lr)
    loss = kl_sum = n_clipped = 0.0
    for i in range(0, len(weighted), micro_batch_size * num_samples):
        part, weights = zip(*weighted[i:i + micro_batch_size * num_samples])
        arrays = rollouts.collate(part, tokenizer.special.get('<|pad|>', 0), IGNORE)
        x, y, old_log_probs = devices.to_device(arrays, device)                         # (N, T) each
        with processes.sync_if(net, i + len(part) == len(weighted)):
            with autocast:
                log_probs = net(x, y)                                                   # (N, T)
                ref_log_probs = reference(x, y) if reference else None
            losses, ratios, kl = policy_loss(log_probs, old_log_probs, torch.tensor(weights, device=device),
                                             y != IGNORE, clip_low, clip_high, ref_log_probs, kl_coef)
            share = losses.sum() / n_tokens         # every token of the global batch counts the same
            scaler.scale(share * world).backward()  # DDP divides the sum by world: undo that
        loss += share.detach()
        kl_sum += kl.sum()
        n_clipped += ((y != IGNORE) & ((ratios < 1 - clip_low) | (ratios > 1 + clip_high))).sum()

    # the update
    norm = optim.unscale_and_clip(optimizers, scaler, net, grad_clip).item()
    loss, kl_sum, n_clipped = processes.all_sum(float(loss), float(kl_sum), float(n_clipped))
    before = probe.clone()
    if guard.allows(step, loss, norm):      # no NaN; what it refuses is logged
        optim.step(optimizers, scaler)
    scaler.update()
    processes.clear_gradients(net)
    step += 1
    timer.step(int(n_tokens))

    # log
    if step % log_interval == 0 or step in (1, max_steps):
        speed = timer.figures(world)
        log.step(max_steps, ('reward', 'informative', 'entropy', 'length'), step=step, loss=loss, lr=lr,
                 grad_norm=norm, **figures, kl=kl_sum / n_tokens if reference else None,
                 clip_fraction=n_clipped / n_tokens, used=n_used / n_tokens, train_s=time.time() - began,
                 skipped=guard.skipped, update_ratio=optim.change(before, probe).item(),
                 restarts=log.restarts, memory_mb=journal.memory_mb(device), **speed)

    # evaluate, save, leave
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    stopping = guard.trouble or (processes.must_stop() and step % updates == 0)
    if step % save_interval == 0 or step == max_steps or stopping:
        save()
    if stopping:
        break

# --- summary ------------------------------------------------------------------------------------------------
log.end(step, max_steps, timer.minutes(), best_val, ['sample.py', f'--ckpt={out_dir}', '--chat=True'],
        what='highest val_reward')
processes.leave(guard.trouble)
