"""
Reinforcement learning: a model and a reward for its answers -> a model that earns more.

    python rl.py --init_from=out/sft --reward=mine.py       # prompts(), reward(prompt, completion)
    python rl.py --init_from=out/sft --reward=tasks.jsonl           # {"prompt", "answer"} lines
    python rl.py --init_from=out/sft --reward=problems --allow_code_execution=True  # and tests
    python rl.py --init_from=out/sft --reward=out/reward --kl_coef=0.05     # see RLHF below
    python rl.py --init_from=resume --out_dir=out/rl        # go on; on a CPU, bit for bit
    torchrun --nproc_per_node=8 rl.py --init_from=out/sft --reward=mine.py  # the same steps

It reads init_from, a folder that sft.py or dpo.py wrote, and writes out_dir. The loop is that of
sft.py, but the model writes the batch. You decide one thing, the reward: the model learns what
earns it, not what you mean.

The policy gradient. The model p writes an answer a to a prompt and earns R(a). Because grad log p
is grad p / p, grad p is p grad log p, and
    grad E[R] = sum over a of R(a) grad p(a)
              = sum over a of R(a) p(a) grad log p(a) = E[R(a) grad log p(a)]
(REINFORCE, Williams 1992). So we train on an answer as on an example, weighted by its reward. As
log p(a) is a sum over tokens, each token of an answer has the weight of the answer.

We subtract a baseline b from R, which removes noise. R - b is the advantage. If b does not depend
on a, the mean gradient stays as it is: E[b grad log p(a)] is b times the sum over a of grad p(a),
and that sum is 0, because all p(a) add up to 1 whatever the weights are. Our b is the mean reward
of the n = num_samples answers to the same prompt (GRPO, arXiv:2402.03300). One of them is a, but
    R - mean of all n = (1 - 1 / n) (R - mean of the others)
and the others do not depend on a. So the mean gradient gets shorter and keeps its direction.

RLHF. People compare answers, dpo.py --loss_type=rm trains a model to score as they would, and
--reward=FOLDER makes the policy write what that model likes, while kl_coef keeps it near its start
(InstructGPT, 2203.02155, which learned the baseline with a second network, PPO's critic).

You should see reward and val_reward rise, and entropy fall slowly: the mean of -log p over the
tokens that the model draws, 0 if it never hesitates, 0.69 if it always wavers between two tokens.
`informative` is the fraction of prompts whose answers differ in reward. If both fall to 0, the
policy has collapsed: lower the learning rate. If reward rises but samples.txt gets worse, the
reward is hacked: fix it, or raise kl_coef. If reward only scatters, the model learns nothing:
--reward=bench/random_reward.py shows how that looks.

Only train.py saves when it is stopped, keeps last-1.pt, locks out_dir, skips spikes, compiles,
shards, and has float16.
"""
import copy, hashlib, json, math, os, pathlib, re, runpy, shlex, shutil, signal, sys, time
from typing import Literal, NamedTuple
import numpy as np
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, rnn, vector_to_parameters
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
max_steps = 100                 # updates
# prompts and rewards
held_out = ''                   # what --reward takes, to evaluate with; '' = every tenth prompt
prompts = 'problems'            # for reward=FOLDER: problems or FILE.jsonl with "prompt"
allow_code_execution = False    # True: run programs of the model; first read extras/sandbox.py
timeout = 3.0                   # seconds for a program
# answers
batch_size = 32                 # prompts of a step, over all devices
num_samples = 8                 # answers to a prompt
max_new_tokens = 64             # tokens of an answer
temperature = 1.0               # divides the logits, in sampling and in training
# optimization
updates = 1                     # steps with the same answers
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
# a door to extras/, as are reward=problems, reward=FOLDER and programs that are tested
optimizer: Literal['adamw', 'muon'] = 'adamw'   # Muon for the blocks' matrices, AdamW for the rest
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'batch_size': (1, 1e6), 'num_samples': (2, 1e4), 'max_new_tokens': (1, 1e6),
          'temperature': (0.01, 100), 'updates': (1, 1e4), 'log_interval': (1, 1e9),
          'eval_interval': (1, 1e9), 'eval_prompts': (2, 1e6), 'save_interval': (1, 1e9),
          'seed': (0, 2 ** 32 - 1)}


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
    is 1, nothing is clipped, and the gradient is REINFORCE's, -A grad log p. With updates > 1 the
    model moves away from the one that wrote the answers. Then, of two tokens with the ratio 1.5,
    one should have become likelier, and the other less likely:

        A     ratio A    clipped    loss    d loss / d log p
        1     1.5        1.2        -1.2    0: it has become likelier by enough
        -1    -1.5       -1.2       1.5     1.5: descent makes it less likely again

    With the ratio 0.5 it is the other way round: below 1 - clip_low, A < 0 has no gradient.

    kl_coef adds k = r - 1 - log r, r = p_ref / p (k3, Schulman 2020; docs/chat.md says which KL it
    is). Of two tokens, one has become less likely than at the start of the run, the other more:

        p               0.5     0.5
        p_ref           0.8     0.2
        k               0.13    0.32    0 only if p is p_ref
        dk / d log p    -0.6    0.6     1 - r: both pull p towards p_ref"""
    ratio = (log_p - old_log_p).clamp(max=80).exp()             # e^80 is finite in float32
    loss = -torch.minimum(ratio * A, ratio.clamp(1 - clip_low, 1 + clip_high) * A)
    kl = torch.zeros_like(loss)
    if ref_log_p is not None:
        log_r = (ref_log_p - log_p).clamp(max=80)
        kl = log_r.exp() - 1 - log_r
    return loss + kl_coef * kl, ratio.detach(), kl.detach()


class Answer(NamedTuple):
    """What the model wrote to a prompt."""
    prompt: tuple           # ids
    ids: list               # with the one that ended it
    log_p: list             # of each of ids, when it was drawn
    text: str
    is_cut: bool            # at max_new_tokens: it did not end by itself


def collate(pairs):
    """Return inputs and targets, int64 (N, T), of N pairs of an answer and its advantage, and of
    the n targets the log p when they were drawn and the advantage, float32 (n,). For the prompt
    5 6 7 and the answer 8 9, drawn with the probabilities 0.5 and 0.1 (_ is IGNORE):

        x    5    6    7    8    9          old_log_p    -0.69    -2.3
        y    _    _    8    9    _          A            0.75     0.75"""
    x = [torch.tensor([*a.prompt, *a.ids]) for a, _ in pairs]
    y = [torch.tensor([IGNORE] * (len(a.prompt) - 1) + a.ids + [IGNORE]) for a, _ in pairs]
    return (rnn.pad_sequence(x, batch_first=True),
            rnn.pad_sequence(y, batch_first=True, padding_value=IGNORE),
            torch.tensor([log_p for a, _ in pairs for log_p in a.log_p]),
            torch.tensor([advantage for a, advantage in pairs for _ in a.ids]))


# 1,200 is one number, and 2,3 are two. A minus between two numbers belongs to neither.
NUMBER = (r'(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)'
          r'(?:[eE][-+]?\d+\b)?')


def is_right(text, answer):
    """Does a text give the answer? If that is a number, perhaps with words behind it, the last
    number of the text must be the same, else the whole text:

        answer          right               wrong
        1200            'It is $1,200.'     '1200 or 1201', 'Which one?'
        '2 + 5 #### 7'  'six, no, 7.0'      '2 + 5'             (#### as in GSM8K)
        'Yes'           'yes'               'no', 'It is yes'"""
    # the minus sign of Unicode, and -$5
    text, answer = (str(part).replace('\u2212', '-').replace('-$', '-') for part in (text, answer))
    answer = answer.rpartition('####')[2].strip()
    if not re.fullmatch(rf'[^\w.]*{NUMBER}\D*', answer):        # Apollo 11, 2026-11-27, 1/2
        return text.strip().lower() == answer.lower()
    numbers = re.findall(rf'####[\s$*]*({NUMBER})', text) or re.findall(NUMBER, text)
    value = lambda numbers: [float(number.replace(',', '')) for number in numbers[-1:]]
    return value(numbers) == value(re.findall(NUMBER, answer))


config = configure(globals(), BOUNDS)   # from the run that goes on, then from files, then flags
config['stage'] = 'rl'          # so eval.py will ask this model in conversations
require(reward, 'say what judges the answers: --reward=FILE.py with prompts() and reward(prompt, '
        'completion), FILE.jsonl with {"prompt", "answer"} lines, problems, which runs programs, '
        'or the FOLDER of a reward model; a FILE.py must also be typed when a run goes on')

# --- this process ---------------------------------------------------------------------------------
rank, world = 0, 1
if {'RANK', 'WORLD_SIZE', 'MASTER_ADDR'} <= os.environ.keys():      # torchrun started several
    rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
if device == 'auto':
    mps = torch.backends.mps.is_available() and world == 1      # no library joins several
    device = 'cuda' if torch.cuda.is_available() else 'mps' if mps else 'cpu'
if device == 'cuda':
    device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
try:
    kind = torch.empty(1, device=device).device.type        # cuda, of cuda:1
except (RuntimeError, AssertionError) as error:
    raise Mistake(f'{device=} is not here ({error}); try --device=auto') from None
if kind == 'cuda':
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


def summed(*values):
    """Return the sums of these numbers over all processes."""
    sums = torch.tensor(values, dtype=torch.float64, device=device if world > 1 else 'cpu')
    if world > 1:
        dist.all_reduce(sums)
    return sums.tolist()


# --- model ----------------------------------------------------------------------------------------
is_new = init_from != 'resume'
source = init_from if is_new else f'{out_dir}/last.pt'
folder = source if os.path.isdir(source) else os.path.dirname(source) or '.'
reference = None
try:
    # without dropout, because sampling and training must agree about probabilities
    model = GPT.load(source, dropout=0.0)
    state = {} if is_new else model.saved       # what a run needs to go on
    config['init_from'] = state.get('config', config)['init_from']
    if kl_coef:
        reference = GPT.load(config['init_from']).requires_grad_(False).to(device).eval()
    tokenizer = Tokenizer.load(f'{folder}/tokenizer.json')
    tokenizer.render([])                # refuses a tokenizer without <|im_start|> and <|im_end|>
except ValueError as error:
    raise Mistake(f'{error}; start from another model, or run: python sft.py') from None
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f'{folder}/tokenizer.json is not the tokenizer that {source} was trained with')
require(model.config.causal and 'reward_head' not in model.saved,
        f'{source} was made with --objective=mlm or is a reward model: it writes no answers')
longest = model.config.block_size - max_new_tokens      # tokens of a prompt


def bits_of(model):
    """Return a checksum of the weights."""
    return sum(p.detach().view(torch.int32).sum().item() for p in model.parameters())


# --- data: prompts, and a function that judges the answers to them --------------------------------
# of what must be the same when a run goes on: the optimizer, all that is read, the first model
fixed = optimizer, batch_size, num_samples, max_new_tokens, seed
data_hash = hashlib.sha256(f'{fixed} {reference and bits_of(reference)}'.encode())


def earned(function, prompt, text):
    """Return what the reward() of a FILE.py gives: a number, or the run ends with one sentence."""
    try:
        value = function(prompt, text)
        # with NaN, every comparison is false
        is_number = not isinstance(value, str) and abs(float(value)) <= 1e12
    except (Exception, SystemExit) as error:
        value, is_number = error, False
    require(is_number, f'reward({prompt!r:.80}, {text!r:.80}) must return a number up to 1e12, not '
            f'{value!r:.200}')
    return float(value)


def open_source(source, n_held_out=0):
    """Return prompts, each a text or messages; judge(prompts, texts), which returns what the texts
    earn as answers to these prompts; and bytes that identify both. n_held_out: problems that nobody
    trains on; 0 = those to train on."""
    if os.path.isdir(source):
        from extras.reward_scores import open_scores
        return open_scores(source, prompts, tokenizer, device, autocast)
    require(source == 'problems' or os.path.isfile(source), f'{source} does not exist; a reward is '
            'FILE.py, FILE.jsonl, problems, or the folder of a reward model')
    content = b'' if source == 'problems' else pathlib.Path(source).read_bytes()
    if source.endswith('.py'):
        # It may import what is beside it, but no file there hides a module of ours.
        sys.path.append(os.path.dirname(os.path.abspath(source)))
        try:
            file = runpy.run_path(source)
            asked, function = [*file['prompts']()], file['reward']
        except (Exception, SystemExit) as error:
            raise Mistake(f'{source} must define prompts(), texts or messages, and reward(prompt, '
                          f'completion), a number: {error!r}') from None
        return asked, lambda prompts, texts: [earned(function, prompt, text)
                                              for prompt, text in zip(prompts, texts)], content
    keys_of_tests = rb'"(question|tests?|test_list|regex|must_contain|must_not_contain)" *:'
    if source == 'problems' or re.search(keys_of_tests, content):
        from extras.reward_tests import open_tests
        return open_tests(source, content, n_held_out, allow_code_execution, timeout, rank, world)
    asked = []
    answer_of = {}          # by the prompt as text, because messages can be no key
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, answer = row['prompt'], row['answer']
            require(isinstance(prompt, str | list) and type(answer) in (str, int, float)
                    and str(answer).rpartition('####')[2].strip(), f'{prompt=!r:.80} must be a '
                    f'text or messages, and {answer=!r:.80} a number or a text')
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Mistake(f'{source}, line {number}: {type(error).__name__}: {error!s:.200}; needs '
                          '"prompt" and "answer" or "tests", see docs/chat.md') from None
        asked.append(prompt)
        answer_of[str(prompt)] = answer
    return asked, lambda prompts, texts: [is_right(text, answer_of[str(prompt)])
                                          for prompt, text in zip(prompts, texts)], content


def open_tasks(source, n_held_out=0):
    """Return {the ids of a prompt: the prompt}, of those that leave room for an answer, and the
    function that judges."""
    asked, judge, identity = open_source(source, n_held_out)
    data_hash.update(identity + repr(asked).encode())
    tasks = {}
    for prompt in asked:
        messages = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
        try:
            ids, _ = tokenizer.render(messages, add_generation_prompt=True)
        except (ValueError, TypeError) as error:
            raise Mistake(f'{source}: {prompt=!r:.80}: {error}') from None
        tasks[tuple(ids)] = prompt
    fitting = {ids: prompt for ids, prompt in tasks.items() if len(ids) <= longest}
    if rank == 0:
        print(f'{source}: prompts: {len(tasks):,}, left out, because they have more than {longest} '
              f'tokens: {len(tasks) - len(fitting):,}', flush=True)
    return fitting, judge


prompt_of, judge = open_tasks(reward)
val, val_judge = [*prompt_of][::10], judge
if held_out or reward == 'problems':
    others, val_judge = open_tasks(held_out or reward, eval_prompts)
    val = [*others]
    prompt_of |= others
held_out_ids = {*val}
train = [ids for ids in prompt_of if ids not in held_out_ids]       # tuples of ids, as in val
val = val[:eval_prompts]
require(train and val, f'{reward=}, prompts of at most {longest} tokens: {len(val)} to evaluate '
        f'on, {len(train)} others to train on; give more, or lower --max_new_tokens')
data_hash = data_hash.hexdigest()
at_once = (micro_batch_size or batch_size) * num_samples        # answers in a forward pass
warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)

# --- optimizer ------------------------------------------------------------------------------------
model.to(device)
model.grad_checkpoint = grad_checkpoint
params = [*model.parameters()]
options = {'betas': (0.9, 0.95), 'weight_decay': 0.0, 'fused': kind != 'mps', 'lr': learning_rate}
opt = torch.optim.AdamW(params, **options)
if optimizer == 'muon':
    from extras.muon import for_blocks
    opt = for_blocks(model, **options)
if state:
    require(state.get('data') == data_hash, f'{source} has other prompts, rewards or settings '
            f'than {reward=}, {held_out=}, {prompts=}, {optimizer=}, {batch_size=}, '
            f'{num_samples=}, {max_new_tokens=}, {seed=}, another first model if '
            f'{kl_coef=}, or is not of rl.py; a FILE.py must be typed again')
    opt.load_state_dict(copy.deepcopy(state['optimizer']))          # it is still in the file
step, tokens = state.get('step', 0), state.get('tokens', 0)     # tokens: of all answers so far
best_val = state.get('best_val', -math.inf)
state = model.saved = {}                # frees their memory
require(max(warmup_steps, step + 1) <= max_steps,
        f'{max_steps=} is too low for {warmup_steps=} or a run that is at {step=}')
# No checkpoint holds answers, so a run is saved, and goes on, between two batches of them.
require(not any(n % updates for n in (step, max_steps, eval_interval, save_interval)),
        f'max_steps, eval_interval, save_interval and {step=}, where the run is, must be multiples '
        f'of {updates=}')

# --- out_dir --------------------------------------------------------------------------------------
ours = ['last.pt', 'last-1.pt', 'best.pt', 'config.json', 'tokenizer.json', 'data.json',
        'metrics.jsonl', 'samples.txt', 'train.log', 'eval.json', 'samples.jsonl', 'compare.json']
out = pathlib.Path(out_dir)
if world > 1:           # processes that differ would wait for each other, or train a mixture
    theirs = [None] * world
    dist.all_gather_object(theirs, (config, data_hash, bits_of(model)))
    require(theirs[1:] == theirs[:-1], 'the processes have different settings, data or weights')
if rank == 0:
    old = [path for path in out.glob('*') if path.name.removesuffix('.tmp') in ours]
    is_origin = pathlib.Path(init_from).resolve().is_relative_to(out.resolve())
    require(not is_new or not old or overwrite and not is_origin, f'{out_dir} has a run: '
            '--init_from=resume goes on, --overwrite=True begins anew (from elsewhere)')
    for path in old:
        # A link could lead our writes anywhere. A .pt is safe, because save() renames.
        if is_new or path.is_symlink() and path.suffix != '.pt':
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / 'config.json.tmp').write_text(json.dumps(config, indent=1), 'utf-8')
    os.replace(out / 'config.json.tmp', out / 'config.json')
    tokenizer.save(out / 'tokenizer.json')
    if is_new and os.path.exists(f'{folder}/data.json'):
        shutil.copy(f'{folder}/data.json', out)     # what the base has read


def save(name):
    """Write a checkpoint for GPT.load under another name, then rename it: a crash leaves the old
    one. last.pt also has what a run needs to go on."""
    if rank == 0:
        checkpoint = {'format': 'nanoparrot-checkpoint-1', 'model_config': vars(model.config),
                      'model': model.state_dict(), 'config': config, 'step': step,
                      'tokens': tokens, 'best_val': best_val, 'tokenizer_hash': tokenizer.hash}
        if name == 'last.pt':
            checkpoint |= {'optimizer': opt.state_dict(), 'data': data_hash}
        torch.save(checkpoint, out / f'{name}.tmp')
        os.replace(out / f'{name}.tmp', out / name)


def log(**row):
    """Append figures to metrics.jsonl; those of a resumed run replace older ones. Print the first
    six."""
    if rank == 0:
        words = [f'{name}: {value:.4g}' for name, value in [*row.items()][:6]]
        print(f'step {step:>6}/{max_steps}', *words, sep=' | ', flush=True)
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with open(out / 'metrics.jsonl', 'a') as f:
            print(json.dumps({'step': step, 'tokens': tokens} | row), file=f)


def write_answers(asked, temperature, seeds=()):
    """Return an Answer to each prompt, a tuple of ids. Its seed alone draws it: other prompts, and
    other processes, change it by rounding only."""
    answers = []
    for i in range(0, len(asked), at_once):
        few = asked[i:i + at_once]
        idx = rnn.pad_sequence([torch.tensor(ids) for ids in few], batch_first=True,
                               padding_value=IGNORE, padding_side='left')               # (B, T)
        with autocast:
            idx, log_p = model.generate(idx.to(device), max_new_tokens, temperature,
                                        stop=tokenizer.stop, seeds=seeds[i:i + at_once],
                                        with_log_p=True)                # (B, T + n), (B, n)
        new = idx[:, -log_p.shape[1]:].tolist()
        for prompt, ids, values in zip(few, new, log_p.tolist()):
            n = min([ids.index(id) for id in tokenizer.stop if id in ids], default=len(ids))
            text = tokenizer.decode(ids[:n])            # ids[n], if there is one, ended the answer
            answers.append(Answer(prompt, ids[:n + 1], values[:n + 1], text, n == len(ids)))
    return answers


def means_of(answers, rewards):
    """Return means over the answers of all processes, and the number of their tokens."""
    rows = [[0] * 6]            # of a process without answers
    for a, reward in zip(answers, rewards):
        rows.append([1, reward, reward >= 1, a.is_cut, len(a.ids), -sum(a.log_p)])
    n, total, n_passed, n_cut, n_tokens, nats = summed(*map(sum, zip(*rows)))
    return {'reward': total / n, 'pass_rate': n_passed / n, 'length': n_tokens / n,
            'truncated': n_cut / n, 'entropy': nats / n_tokens}, n_tokens


def evaluate():
    """Answer the held-out prompts greedily. best.pt keeps the weights with the highest reward."""
    global best_val
    answers = write_answers(val[rank::world], temperature=0.0)
    rewards = val_judge([prompt_of[a.prompt] for a in answers], [a.text for a in answers])
    means, _ = means_of(answers, rewards)
    log(**{f'val_{name}': mean for name, mean in means.items()})
    if rank == 0:
        with open(out / 'samples.txt', 'a', encoding='utf-8') as f:
            for a, reward in [*zip(answers, rewards)][:3]:
                text = tokenizer.decode([*a.prompt, *a.ids])
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
again = f'python rl.py --out_dir={shlex.quote(out_dir)} --init_from=resume'
for name in 'reward', 'held_out', 'allow_code_execution':
    if str(config[name]).endswith(('.py', 'True')):     # no config.json sets these
        again += f' --{name}={shlex.quote(str(config[name]))}'
if rank == 0:
    print(f'{model.config}\nparameters: {sum(p.numel() for p in params):,}, prompts: '
          f'{len(train):,}, held out: {len(val):,}, processes: {world} ({device}, {dtype})')
if is_new:                      # shows whether there is room, and there is a run to resume
    save('last.pt')
saved_step = step
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
while True:
    # 5. Has the model learned more than its prompts? Held-out prompts say so.
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    if step > saved_step and (step % save_interval == 0 or step == max_steps):
        save('last.pt')
        saved_step = step
    if step == max_steps:
        break

    # 1. Each prompt becomes G = num_samples answers. To "What is 2 + 2?", with G = 4:
    #        text         It is 4    5        4        It is 3
    #        reward       1          0        1        0
    #        advantage    0.5        -0.5     0.5      -0.5
    # Each pass over the prompts has its own order. The first of two processes has the 1st, 3rd, ...
    began = time.perf_counter()
    first = step // updates * batch_size
    numbers = range(first + rank, first + batch_size, world)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(len(train))
              for epoch in {i // len(train) for i in numbers}}
    batch = [train[orders[i // len(train)][i % len(train)]] for i in numbers]               # P
    asked = [ids for ids in batch for _ in range(num_samples)]                              # P G
    seeds = [f'{seed} {i} {k}' for i in numbers for k in range(num_samples)]
    answers = write_answers(asked, temperature, seeds)

    # 2. The judge says what each answer earns.
    written = time.perf_counter()
    rewards = judge([prompt_of[a.prompt] for a in answers], [a.text for a in answers])
    judged = time.perf_counter()

    # 3. Advantages: is an answer better than the others to its prompt? One with the advantage 0 has
    # no gradient, unless kl_coef gives it one.
    A = advantages(torch.tensor(rewards, dtype=torch.float64).view(-1, num_samples), scale)
    chosen = [pair for pair in zip(answers, A.flatten().tolist()) if pair[1] or reference]
    chosen.sort(key=lambda pair: len(pair[0].prompt) + len(pair[0].ids))    # so little is padded
    means, n_tokens = means_of(answers, rewards)
    n_informative, n_used = summed(A.any(1).sum(), sum(len(a.ids) for a, each in chosen if each))

    # 4. The clipped gradient of the mean over all tokens of all answers (DAPO, 2503.14476, eq. 8).
    # In bfloat16 the first ratio is not quite 1 (0.001 away on average, at most 0.1): a model
    # that reads one token at a time rounds differently.
    tokens += int(n_tokens)
    for _ in range(updates):
        started = time.perf_counter()
        progress = max(0, step - warmup_steps) / max(1, max_steps - warmup_steps)
        # the learning rate: a linear rise, then half a cosine down to a tenth (progress: 0 to 1)
        lr = learning_rate * min(1, (step + 1) / max(1, warmup_steps))
        lr *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
        for group in opt.param_groups:
            group['lr'] = lr
        for p in params:        # a process without answers to learn from adds zeros
            p.grad = torch.zeros_like(p)
        loss = kl_sum = n_clipped = 0.0
        for i in range(0, len(chosen), at_once):
            x, y, old_log_p, token_A = (t.to(device) for t in collate(chosen[i:i + at_once]))
            with autocast:
                log_p = model.log_p(x, y, temperature)                                  # (n,)
                ref_log_p = reference.log_p(x, y, temperature) if reference else None
            losses, ratio, kl = policy_loss(log_p, old_log_p, token_A, clip_low, clip_high,
                                            ref_log_p, kl_coef)
            (losses.sum() / n_tokens).backward()
            loss += losses.detach().sum() / n_tokens
            kl_sum += kl.sum()
            n_clipped += ((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).sum()
        if world > 1:           # the gradients of all processes are added up, as one message
            parts = [p.grad for p in params]
            total = parameters_to_vector(parts)
            dist.all_reduce(total)
            vector_to_parameters(total, parts)

        norm = clip_grad_norm_(params, grad_clip or math.inf).item()
        loss, kl_sum, n_clipped = summed(loss, kl_sum, n_clipped)
        require(math.isfinite(loss + norm), f'step {step + 1}: the loss is {loss}, the norm of the '
                f'gradient {norm}; go on from step {saved_step} with a lower rate: {again} '
                f'--learning_rate={learning_rate / 4:g}')
        opt.step()
        step += 1
        if step in (1, max_steps) or step % log_interval == 0:
            train_s = time.perf_counter() - started
            dt = (judged - began) / updates + train_s
            log(**means, informative=n_informative / batch_size, loss=loss, lr=lr, grad_norm=norm,
                used=n_used / n_tokens, clip_fraction=n_clipped / n_tokens,
                kl=kl_sum / n_tokens if reference else math.nan, dt=dt, train_s=train_s,
                sample_s=(written - began) / updates, score_s=(judged - written) / updates,
                tok_s=n_tokens / updates / dt)

if rank == 0:
    print(f'done, highest val_reward {best_val:.4f}\n'
          f'next: python sample.py --ckpt={shlex.quote(out_dir)} --chat=True')
if world > 1:
    dist.barrier()              # the first process may still be writing
    dist.destroy_process_group()
