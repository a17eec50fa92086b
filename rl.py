"""
Reinforcement learning: a model and a reward for its answers -> a model that earns more.

    python rl.py --init_from=out/sft --reward=mine.py       # prompts(), reward(prompt, completion)
    python rl.py --init_from=out/sft --reward=tasks.jsonl           # {"prompt", "answer"} lines
    python rl.py --init_from=out/sft --reward=problems --allow_code_execution=True  # programs
    python rl.py --init_from=out/sft --reward=out/reward --kl_coef=0.05     # of dpo.py: RLHF
    python rl.py --init_from=resume --out_dir=out/rl        # go on; on a CPU, bit for bit
    torchrun --nproc_per_node=8 rl.py --init_from=out/sft --reward=mine.py  # the same steps

It reads init_from, a folder that sft.py or dpo.py wrote, and writes out_dir. The loop is that of
sft.py, but the model writes the batch. You decide one thing, the reward, for example in mine.py.
The model learns what earns it, not what you mean:

    def prompts(): return ['What is 2 + 2?', 'What is 3 + 4?']          # texts or messages
    def reward(prompt, completion): return float(completion.strip().isdigit())

The policy gradient. The model p writes an answer a to a prompt and earns R(a). As grad p is
p grad log p, the gradient of the mean reward is a mean over answers, too:
    grad E[R] = sum over a of R(a) grad p(a) = E[R(a) grad log p(a)]
(REINFORCE, Williams 1992). So we train on an answer as on an example, weighted by its reward.
We subtract a baseline b, which removes noise: R - b is the advantage. If b does not depend on a,
the mean gradient stays as it is, because b times the sum over a of grad p(a) is 0: all p(a) add up
to 1. Our b is the mean reward of the G = num_samples answers to a prompt (GRPO, 2402.03300). One of
them is a, but R - mean of all G = (1 - 1 / G) (R - mean of the others): the gradient gets shorter.

You should see reward and val_reward rise, and entropy fall slowly: the mean of -log p over the
tokens that are drawn. `informative` is the fraction of prompts whose answers differ in reward. If
both fall to 0 before reward has risen, lower the learning rate. If reward rises but samples.txt
gets worse, the reward is hacked: fix it, or raise kl_coef. Compare with bench/random_reward.py,
which teaches nothing.

What train.py has and this file lacks: saving when it is stopped, last-1.pt, a lock of out_dir, a
comparison of processes, skipped spikes, the compiler, shards, float16.
"""
import contextlib, copy, hashlib, json, math, os, pathlib, random, re, runpy, shlex, shutil, signal
import sys, time
from decimal import Decimal       # exact: a float has 16 digits
from typing import Literal
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, rnn
from configurator import Mistake, configure, require
from model import GPT, IGNORE
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
init_from = 'out/sft'           # folder or .pt to start from; resume; auto: resume if it can
out_dir = 'out/rl'              # where the run writes
overwrite = False               # True: delete the run that out_dir holds, and start over
reward = ''                     # FILE.py, FILE.jsonl, problems or FOLDER: what judges answers
learning_rate = 2e-4            # for millions of parameters; from 100 million on 1e-6 to 1e-5
max_steps = 100                 # batches of answers
# prompts and answers
held_out = ''                   # what --reward takes, to evaluate with; '' = a tenth of the prompts
prompts = 'problems'            # for reward=FOLDER: problems or FILE.jsonl with "prompt"
allow_code_execution = False    # True: run programs of the model; first read extras/sandbox.py
timeout = 3.0                   # seconds for a program
batch_size = 32                 # prompts of a step, over all devices
num_samples = 8                 # answers to a prompt
max_new_tokens = 64             # tokens of an answer
temperature = 1.0               # divides the logits, in sampling and in training
# optimization
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
updates = 1                     # of the weights, with the answers of a step
micro_batch_size = 0            # prompts per device that are answered or trained at once; 0 = all
scale = False                   # divide advantages by their group's deviation: see advantages()
clip_low = 0.2                  # the ratio is clipped below 1 - clip_low
clip_high = 0.2                 # and above 1 + clip_high; 0.28 keeps more variety
kl_coef = 0.0                   # pull towards the first model; above 0 it stays in memory
warmup_steps: int | float = 0.05  # steps of the rise; below 1: this fraction of max_steps
grad_clip = 1.0                 # largest norm of the gradient; 0 = off
# watching
log_interval = 1                # steps
eval_interval = 20              # steps; also before the first and after the last
eval_prompts = 200              # held-out prompts, always the same, answered greedily
save_interval = 20              # steps
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'      # auto: bfloat16 if it is fast
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # of the order of prompts and of the answers
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'batch_size': (1, 1e6), 'num_samples': (2, 1e4), 'max_new_tokens': (1, 1e6),
          'temperature': (0.01, 100), 'timeout': (0.01, 86400), 'updates': (1, 1e4),
          'log_interval': (1, 1e9), 'eval_interval': (1, 1e9), 'save_interval': (1, 1e9),
          'eval_prompts': (2, 1e6)}


# --- what is new: advantages, and a loss for answers that the model wrote -------------------------
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


def policy_loss(log_p, old_log_p, A, clip_low=0.2, clip_high=0.2, ref_log_p=None, kl_coef=0.0):
    """Return the loss, the ratio and the KL of each of n tokens, float32 (n,). log_p, old_log_p,
    ref_log_p (n,): of a token now, when it was drawn, at the start of the run. A (n,): the
    advantage of its answer. With ratio = p / p_old, the loss is
        -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)
    (PPO, arXiv:1707.06347, eq. 7; separate bounds: DAPO, 2503.14476). At the first update the ratio
    is 1, and the gradient is REINFORCE's, -A grad log p. With updates > 1 the model moves away from
    the one that wrote the answers. Of two tokens with the ratio 1.5, one should become likelier:
        A     ratio A    clipped    loss    d loss / d log p
        1     1.5        1.2        -1.2    0: it has become likelier by enough
        -1    -1.5       -1.2       1.5     1.5: descent makes it less likely again

    kl_coef adds r - 1 - log r, r = p_ref / p (k3, Schulman 2020): 0.13 for p = 0.5, p_ref = 0.8."""
    ratio = (log_p - old_log_p).clamp(max=80).exp()             # e^80 is finite in float32
    loss = -torch.minimum(ratio * A, ratio.clamp(1 - clip_low, 1 + clip_high) * A)
    log_r = ((log_p if ref_log_p is None else ref_log_p) - log_p).clamp(max=80)
    kl = log_r.exp() - 1 - log_r
    return loss + kl_coef * kl, ratio.detach(), kl.detach()


def collate(rows):
    """Return inputs and targets, int64 (N, T), of N answers, and of the n targets the log p when
    they were drawn and the advantage, float32 (n,). For the prompt 5 6 7 and the answer 8 9, drawn
    with the probabilities 0.5 and 0.1 (_ is IGNORE):
        x    5    6    7    8    9          old_log_p    -0.69    -2.3
        y    _    _    8    9    _          A            0.75     0.75"""
    x = [torch.tensor([*prompt, *ids]) for prompt, ids, log_p, A in rows]
    y = [torch.tensor([IGNORE] * (len(prompt) - 1) + ids + [IGNORE]) for prompt, ids, *_ in rows]
    return (rnn.pad_sequence(x, batch_first=True),
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE),
            torch.tensor([value for prompt, ids, log_p, A in rows for value in log_p]),
            torch.tensor([A for prompt, ids, log_p, A in rows for id in ids]))


# 1,200 is one number, and 2,3 are two. A minus between two numbers belongs to neither.
NUMBER = (r'(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)'
          r'(?:[eE][-+]?\d{1,9}\b)?')


def is_right(text, answer):
    """Does a text give the answer? If that is a number, perhaps with words behind it, the last
    number of the text must be the same, else the whole text:
        answer          right               wrong
        1200            'It is $1,200.'     '1200 or 1201', 'Which one?'
        '2 + 5 #### 7'  'six, no, 7.0'      '2 + 5'             (#### as in GSM8K)
        'Yes'           'yes'               'no', 'It is yes'"""
    text, answer = (str(part).replace('\u2212', '-').replace('-$', '-') for part in (text, answer))
    answer = answer.rpartition('####')[2].strip()
    if not re.fullmatch(rf'[^\w.]*{NUMBER}\D*', answer):        # Apollo 11 and 1/2 are texts
        return text.strip().lower() == answer.lower()
    numbers = re.findall(rf'####[\s$*]*({NUMBER})', text) or re.findall(NUMBER, text)
    values = [Decimal(n.replace(',', '')) for n in numbers[-1:] + re.findall(NUMBER, answer)[-1:]]
    return len(values) == 2 and values[0] == values[1]


config = configure(globals(), BOUNDS)   # from the run that goes on, then from files, then flags
config['stage'] = 'rl'          # so eval.py will ask this model in conversations

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


def summed(*values):
    """Return the sums of these numbers over all processes."""
    sums = torch.tensor(values, dtype=torch.float64, device=device if world > 1 else 'cpu')
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


# --- model ----------------------------------------------------------------------------------------
source = pathlib.Path(init_from) if is_new else out / 'last.pt'
folder = source if source.is_dir() else source.parent
try:
    # without dropout, because sampling and training must agree about probabilities
    model = GPT.load(source, dropout=0.0)
    if not is_new:
        config['init_from'] = model.saved['config']['init_from']
    reference = None
    if kl_coef:
        reference = GPT.load(config['init_from']).eval().requires_grad_(False).to(device)
    tokenizer = Tokenizer.load(f'{folder}/tokenizer.json')
    tokenizer.render([])                # refuses a tokenizer without <|im_start|> and <|im_end|>
except ValueError as error:
    raise Mistake(f'{error}; start from another model, or run: python sft.py') from None
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{folder}/tokenizer.json is not the tokenizer that {source} was trained with')
require(model.config.causal and 'reward_head' not in model.saved,
        f'{source} was made with --objective=mlm or is a reward model: it writes no answers')
longest = model.config.block_size - max_new_tokens      # tokens of a prompt

# --- data: prompts, and judges, which say what answers to them earn -------------------------------
# A run goes on with the same of these settings, of the first model, and of all that it reads.
fixed = f'{optimizer=}, {batch_size=}, {num_samples=}, {max_new_tokens=}, {seed=}'
first = [p.view(torch.int32).sum().item() for p in reference.parameters()] if reference else []
data_hash = hashlib.sha256(f'{fixed}, {first}'.encode())


def open_program(path):
    """Return the prompts of a FILE.py, and judge_texts(prompts, texts), which yields rewards."""
    # It may import what is beside it, but no file there hides a module of ours.
    sys.path.append(os.path.dirname(os.path.abspath(path)))
    try:
        program = runpy.run_path(path)
        asked, reward_of = [*program['prompts']()], program['reward']
    except (Exception, SystemExit) as error:
        raise Mistake(f'{path} must define prompts() and reward(): {error!r:.200}') from None

    def judge_texts(prompts, texts):
        for prompt, text in zip(prompts, texts):
            try:
                value = reward_of(prompt, text)
                require(math.fabs(value) <= 1e12, f'it is {value}')         # refuses NaN, too
                yield float(value)
            except (Exception, SystemExit) as error:
                raise Mistake(f'reward({prompt!r:.80}, {text!r:.80}) must return a number up to '
                              f'1e12: {error!r:.200}') from None

    return asked, judge_texts


def open_lines(path, content):
    """Return the prompts of {"prompt", "answer"} lines, and judge_texts(prompts, texts)."""
    asked = []
    answer_of = {}          # by the prompt as text, because messages can be no key
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, answer = row['prompt'], row['answer']
            require(isinstance(prompt, str | list) and type(answer) in (str, int, float)
                    and str(answer).rpartition('####')[2].strip(), row)
            require(answer_of.setdefault(str(prompt), answer) == answer, f'not as above: {row}')
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Mistake(f'{path}, line {number}: {error!r:.200}; needs "prompt" and "answer", a '
                          'number or a text, or "tests", see docs/chat.md') from None
        asked.append(prompt)
    return asked, lambda prompts, texts: [is_right(text, answer_of[str(prompt)])
                                          for prompt, text in zip(prompts, texts)]


def open_tasks(source, n_held_out=0):
    """Return prompts, tuples of ids that leave room for an answer, and judge(answers), which says
    what they earn. n_held_out: built-in problems that nobody trains on; 0 = those to train on."""
    flag = '--reward' if source == reward else '--held_out'
    require(source == 'problems' or os.path.exists(source), f'{flag}={source} does not exist; it '
            'is FILE.py (typed again on resume), FILE.jsonl, problems or a FOLDER, see --help')
    require(not source.endswith('.pt'), f'{flag}={source} is a file; name its folder')
    content = pathlib.Path(source).read_bytes() if os.path.isfile(source) else b''
    keys_of_tests = rb'"(question|tests?|test_list|regex|must_contain|must_not_contain)" *:'
    if source.endswith('.py'):
        asked, judge_texts = open_program(source)
    elif os.path.isdir(source):
        from extras.rewards import open_scores
        asked, judge_texts, content = open_scores(source, prompts, tokenizer, device, autocast)
    elif source == 'problems' or re.search(keys_of_tests, content):
        from extras.rewards import open_tests
        asked, judge_texts, content = open_tests(source, content, n_held_out,
                                                 allow_code_execution, timeout, rank, world)
    else:
        asked, judge_texts = open_lines(source, content)
    data_hash.update(content + repr(asked).encode())
    prompt_of = {}
    for prompt in asked:
        messages = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]
        try:
            ids, _ = tokenizer.render(messages, add_generation_prompt=True)
        except (ValueError, TypeError) as error:
            raise Mistake(f'{source}: {prompt=!r:.80}: {error}') from None
        if len(ids) <= longest:
            prompt_of[tuple(ids)] = prompt
    if rank == 0:
        print(f'{source}: prompts: {len(asked):,}, left out, because they come twice or have more '
              f'than {longest} tokens: {len(asked) - len(prompt_of):,}', flush=True)
    return [*prompt_of], lambda answers: judge_texts(
        [prompt_of[prompt] for prompt, ids, log_p in answers],
        [tokenizer.decode([id for id in ids if id not in tokenizer.stop]) for _, ids, _ in answers])


train, judge = open_tasks(reward)
if held_out or reward == 'problems':
    val, val_judge = open_tasks(held_out or reward, eval_prompts)
else:
    val, val_judge = random.Random(0).sample(train, math.ceil(len(train) / 10)), judge
data_hash = data_hash.hexdigest()
held = {*val}
train = [ids for ids in train if ids not in held]
val = val[:eval_prompts]
require(train and val, f'{reward=}, prompts of at most {longest} tokens: {len(val)} to evaluate '
        f'on, {len(train)} others to train on; give more, or lower --max_new_tokens')
order = [train[i] for epoch in range(1 + max_steps * batch_size // len(train))
         for i in np.random.default_rng([seed, epoch]).permutation(len(train))]
at_once = (micro_batch_size or batch_size) * num_samples        # answers in a forward pass
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
model.to(device)
if kind == 'cuda':
    with contextlib.suppress(ImportError):      # if it is there, answers come sooner
        from extras import cuda_graph
        cuda_graph.use(model)
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
gradient = torch.zeros(sum(p.numel() for p in params), device=device)
for p, part in zip(params, gradient.split([p.numel() for p in params])):
    p.grad = part.view_as(p)    # so one all_reduce adds all gradients; never set one to None
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': kind != 'mps', 'lr': learning_rate}
opt = torch.optim.AdamW(params, **options)
if optimizer == 'muon':
    from extras.muon import for_blocks
    opt = for_blocks(model, **options)
step, tokens, best_val = 0, 0, -math.inf        # tokens: of all answers so far
if not is_new:
    state = model.saved
    require(state.get('data') == data_hash, f'{source} is not of rl.py, or of other prompts, '
            'rewards, a first model or settings than '
            f'{reward=}, {held_out=}, {eval_prompts=}, {prompts=}, {kl_coef=}, {fixed}')
    opt.load_state_dict(copy.deepcopy(state['optimizer']))  # mapped from a file that we replace
    step, tokens, best_val = state['step'], state['tokens'], state['best_val']
state = model.saved = {}                # frees their memory
require(max(warmup_steps, step + 1) <= max_steps,
        f'{max_steps=} is too low for {warmup_steps=} or a run that is at {step=}')

# --- what it writes -------------------------------------------------------------------------------
def save(name):
    """Write a checkpoint for GPT.load. last.pt also has what a run needs to go on."""
    if rank == 0:
        more = {'optimizer': opt.state_dict(), 'data': data_hash} if name == 'last.pt' else {}
        model.save(out / name, config=config, step=step, tokens=tokens, best_val=best_val,
                   tokenizer_hash=tokenizer.hash, **more)


def log(**row):
    """Append figures to metrics.jsonl, and print the first six."""
    if rank == 0:
        words = [f'{name}: {value:.4g}' for name, value in [*row.items()][:6]]
        print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with open(out / 'metrics.jsonl', 'a') as f:
            print(json.dumps({'step': step, 'tokens': tokens} | row), file=f)


def write_answers(asked, judge, temperature, seeds=()):
    """Return (prompt, ids, log_p) of an answer to each prompt: its ids, with the one that ends it,
    and log p of each when drawn. It depends on its own seed, and on other answers by rounding only.
    Also return the rewards, in parts: one may still be judged while the next is written."""
    answers, parts = [], []
    for i in range(0, len(asked), at_once):
        few = asked[i:i + at_once]
        idx = rnn.pad_sequence([torch.tensor(ids) for ids in few], True, IGNORE, 'left').to(device)
        with autocast:          # (B, T), padded with IGNORE on the left -> (B, T + n), and (B, n)
            idx, log_p = model.generate(idx, max_new_tokens, temperature, stop=tokenizer.stop,
                                        seeds=seeds[i:i + at_once], with_log_p=True)
        new = idx[:, -log_p.shape[1]:].tolist()
        for prompt, ids, values in zip(few, new, log_p.tolist()):
            n = next((t for t, id in enumerate(ids, 1) if id in tokenizer.stop), len(ids))
            answers.append((prompt, ids[:n], values[:n]))
        parts.append(judge(answers[i:]))        # of those just written: rewards, or a generator
    return answers, parts


def judged(answers, parts):
    """Get the rewards, and return them, means over all processes, and how many tokens. An
    answer has passed if it earns 1 or more, and is truncated if no id ended it."""
    rewards = [reward for part in parts for reward in part]         # here reward() may be called
    rows = [(1, reward, reward >= 1, ids[-1] not in tokenizer.stop, len(ids), -sum(log_p))
            for (prompt, ids, log_p), reward in zip(answers, rewards)]
    n, total, n_passed, n_cut, n_tokens, nats = summed(*np.reshape(rows, (-1, 6)).sum(0))
    return rewards, {'reward': total / n, 'pass_rate': n_passed / n, 'length': n_tokens / n,
                     'truncated': n_cut / n, 'entropy': nats / n_tokens}, n_tokens


def evaluate():
    """Answer the held-out prompts greedily. best.pt keeps the weights with the highest reward."""
    global best_val
    answers, parts = write_answers(val[rank::world], val_judge, temperature=0.0)
    rewards, means, _ = judged(answers, parts)
    log(**{f'val_{name}': mean for name, mean in means.items()})
    if rank == 0:
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for (prompt, ids, _), reward in zip(answers[:3], rewards):
                text = tokenizer.decode([*prompt, *ids])
                print(f'--- step {step}\n{text}\n[reward {reward:g}]\n', file=f)
    if means['reward'] > best_val and step > 0:         # never the model that it began as
        best_val = means['reward']
        save('best.pt')


def stop(number, frame):
    """End the run at Ctrl-C or SIGTERM. (print may be busy; reward() could catch an exception.)"""
    if rank == 0:
        os.write(1, f'\nstopped; last.pt has step {saved_step}; resume: {again}\n'.encode())
    os._exit(128 + number)


# --- the loop -------------------------------------------------------------------------------------
typed = [f'--{name}={config[name]}' for name in ('reward', 'held_out', 'allow_code_execution')
         if str(config[name]).endswith(('.py', 'True'))]        # a config.json must not run code
again = shlex.join(['python', 'rl.py', f'--out_dir={out_dir}', '--init_from=resume', *typed])
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
    print(f'{model.config}\nparameters: {len(gradient):,}, prompts: {len(train):,}, held out: '
          f'{len(val):,}, processes: {world} ({device}, {dtype})')
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

    # 1. Each prompt gets G answers, and each answer a reward. Processes share the prompts.
    began = time.perf_counter()
    numbers = range(step * batch_size + rank, (step + 1) * batch_size, world)               # P
    asked = [order[i] for i in numbers for _ in range(num_samples)]                         # P G
    seeds = [f'{seed} {i} {k}' for i in numbers for k in range(num_samples)]
    answers, parts = write_answers(asked, judge, temperature, seeds)
    written = time.perf_counter()
    rewards, means, n_tokens = judged(answers, parts)
    scored = time.perf_counter()

    # 2. How much better is it than the mean of its group? Where that is 0, only kl_coef acts.
    A = advantages(torch.tensor(rewards, dtype=torch.float64).view(-1, num_samples), scale)
    rows = [(*answer, a) for answer, a in zip(answers, A.flatten().tolist()) if a or reference]
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))        # so little is padded
    n_informative, n_used = summed(A.any(1).sum(), sum(len(ids) for _, ids, _, a in rows if a))

    # 3. The gradient of the clipped loss, a mean over all tokens of all answers (DAPO, eq. 8).
    progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)       # from 0 to 1
    # the learning rate: a linear rise, then half a cosine down to a tenth
    lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
    lr *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
    for group in opt.param_groups:
        group['lr'] = lr
    for _ in range(updates):
        gradient.zero_()        # a process without answers to learn from adds zeros
        loss = kl_sum = n_clipped = 0.0
        for i in range(0, len(rows), at_once):
            x, y, old_log_p, token_A = (t.to(device) for t in collate(rows[i:i + at_once]))
            with autocast:
                log_p = model.log_p(x, y, temperature)                                  # (n,)
                ref_log_p = reference.log_p(x, y, temperature) if reference else None
            losses, ratio, kl = policy_loss(log_p, old_log_p, token_A, clip_low, clip_high,
                                            ref_log_p, kl_coef)
            (losses.sum() / n_tokens).backward()
            loss += losses.detach().sum() / n_tokens
            kl_sum += kl.sum()
            n_clipped += (ratio != ratio.clamp(1 - clip_low, 1 + clip_high)).sum()
        if world > 1:
            dist.all_reduce(gradient)
        norm = clip_grad_norm_(params, grad_clip or math.inf).item()
        loss, kl_sum, n_clipped = summed(loss, kl_sum, n_clipped)
        require(math.isfinite(loss + norm + means['entropy']), f'step {step + 1}: {loss=}, '
                f'grad_norm={norm}, {means=}; go on from step {saved_step} with a lower rate: '
                f'{again} --learning_rate={learning_rate / 4:g}')
        opt.step()
    step += 1
    tokens += int(n_tokens)
    if step in (1, max_steps) or step % log_interval == 0:
        now = time.perf_counter()
        log(**means, informative=n_informative / batch_size, loss=loss, lr=lr, grad_norm=norm,
            used=n_used / n_tokens, clip_fraction=n_clipped / n_tokens,
            kl=kl_sum / n_tokens if reference else math.nan, dt=now - began, train_s=now - scored,
            sample_s=written - began, score_s=scored - written, tok_s=n_tokens / (now - began))

if rank == 0:
    print(f'done, highest val_reward {best_val:.4f}\n'
          f'next: python sample.py --ckpt={shlex.quote(out_dir)} --chat=True')
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
