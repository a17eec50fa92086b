"""
Rollouts of rl.py: the prompts of a step, a model's answers to them, and what each answer earns.

    noise = noise_of(seed=1, number=0, rows=[0, 1, 2], length=64)       # float64 (3, 64), in [0, 1)
    answers = write(batch, tasks, noise, 1.0, tokenizer.decode, judge)  # a Rollout for each task
    reward_of({'answer': '4'}, 'It is 4', None, last_number, print)     # 1.0
    x, y, old = collate(answers, pad=0, ignore=-100)                    # (N, T) each
    log_probs = Policy(model, temperature=1.0, ignore=-100)(x, y)       # (N, T)

The randomness of an answer comes from a row of noise, so, to rounding, it depends neither on the answers
beside it nor on the process. batch: a Batch of decoding.py.
Rewards come from tests, from a number, or from the reward() of a FILE.py:

    for task in tasks_of_file('mine.py', forgive=True):
        number, fault = task['reward']('an answer')     # (0.5, ''), or (0.0, 'reward(...): KeyError(...)')
"""
import contextlib, dataclasses, functools, hashlib, os, pathlib, runpy, sys, traceback
import numpy as np
import torch


# --- answers --------------------------------------------------------------------------------------
@dataclasses.dataclass
class Rollout:
    """An answer to a prompt, and what it earned."""
    prompt: list            # ids
    ids: list               # of the answer
    log_probs: list         # log p of each of its ids, when it was sampled
    ended: bool             # by itself
    text: str
    verdict: object = None  # what the judge returned
    reward: float = 0.0


def noise_of(seed, number, rows, length):
    """Uniform random numbers, float64 (rows, length). Each row follows from (seed, number, row) alone."""
    return np.array([np.random.default_rng([seed, number, row]).random(length) for row in rows])


def draw(number, batch_size, n, seed):
    """Which of n prompts make up the number-th batch, (batch_size,). Each pass over n has its own order."""
    places = number * batch_size + np.arange(batch_size)
    orders = {epoch: np.random.default_rng([seed, epoch, 0, 1]).permutation(n) for epoch in set(places // n)}
    return np.array([orders[place // n][place % n] for place in places])


def write(batch, tasks, noise, temperature, decode, judge):
    """A Rollout for each task; a task has 'ids', its prompt. noise: float64 (tasks, n), for at most n ids.
    judge(task, text) is called when an answer is complete: a program may run beside other answers."""
    answers = [batch.add(task['ids'], noise.shape[1], iter(row).__next__, temperature=temperature,
                         scored_at=temperature or 1.0) for task, row in zip(tasks, noise.tolist())]
    task_of = dict(zip(answers, tasks))
    rollouts = {}
    while batch.queue or batch.live:
        for answer in batch.step():
            if answer.finish:
                ended = answer.finish == 'stop'
                text = decode(answer.ids[:-1] if ended else answer.ids)
                verdict = judge(task_of[answer], text)
                rollouts[answer] = Rollout(answer.prompt, answer.ids, answer.log_probs, ended, text, verdict)
    return [rollouts[answer] for answer in answers]


def figures(answers, all_sum):
    """Means over the answers of all processes, which all_sum adds up. entropy: nats per sampled token."""
    sums = np.zeros(6)          # a process without answers adds nothing
    for a in answers:
        sums += [1, a.reward, a.reward >= 1, not a.ended, len(a.ids), -sum(a.log_probs)]
    n, earned, passed, truncated, n_tokens, nats = all_sum(*sums)
    return {'reward': earned / n, 'pass_rate': passed / n, 'truncated': truncated / n, 'length': n_tokens / n,
            'entropy': nats / n_tokens}


def collate(answers, pad, ignore):
    """N answers -> inputs and targets, int64 (N, T), and log p of each target when it was sampled, float32
    (N, T). Targets are the answers' tokens, else ignore. Padding is on the right."""
    T = max(len(a.prompt) + len(a.ids) for a in answers) - 1
    x, y = np.full((len(answers), T), pad), np.full((len(answers), T), ignore)          # (N, T) each
    old = np.zeros((len(answers), T), dtype=np.float32)                                 # (N, T)
    for row, a in enumerate(answers):
        begin, end = len(a.prompt) - 1, len(a.prompt) + len(a.ids) - 1
        x[row, :end] = [*a.prompt, *a.ids][:-1]
        y[row, begin:end] = a.ids
        old[row, begin:end] = a.log_probs
    return x, y, old


class Policy(torch.nn.Module):
    """Inputs and targets (N, T) -> log p of each target, float32 (N, T); 0 where the target is `ignore`."""

    def __init__(self, model, temperature, ignore):
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.ignore = ignore

    def forward(self, x, y):
        mask = y != self.ignore
        hidden = self.model.backbone(x)[mask]           # (n, C): a prompt needs no logits
        logits = self.model.head(hidden)[:, :self.model.config.vocab_size].float()              # (n, V)
        log_p = (logits / self.temperature).log_softmax(-1)
        of_targets = log_p.gather(1, y[mask][:, None])[:, 0]                                    # (n,)
        return torch.zeros(x.shape, device=x.device).masked_scatter(mask, of_targets)


# --- rewards --------------------------------------------------------------------------------------
def reward_of(task, text, verdict, last_number, warn):
    """What a text earns as the answer to a task: by its 'answer', its 'reward' or its 'tests'; 0 if it has
    none of them. verdict: of a task with tests, the future result of the program. last_number(text): the
    number in it. warn(text): told why a reward counts as 0."""
    if 'answer' in task:
        return float(last_number(text) == last_number(task['answer']))
    if 'reward' in task:
        number, fault = task['reward'](text)
        if fault:
            warn(f'counted as 0: {fault}')
        return number
    if 'tests' not in task:
        return 0.0
    result = verdict.result()       # waits for the program
    if result.outcome == 'infrastructure':
        raise ValueError(f'no verdict on {task["messages"][-1]["content"]!r:.80}, by a fault of its tests or '
                         f'of the machine: {result.message}')
    return float(result.outcome == 'passed')


def tasks_of_file(path, forgive):
    """The tasks of a FILE.py. The file is executed here and may import files beside it. It defines
    prompts(), a list of texts or messages, and reward(prompt, completion), a number. 'code' is the hash of it
    and of what it imports beside it."""
    wanted = 'must define prompts(), a list, and reward(prompt, completion)'
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} does not exist; it {wanted}')
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.append(folder)             # for good: reward() may import, too
    before = {*sys.modules}
    try:
        module = runpy.run_path(path)
        missing = {'prompts', 'reward'} - module.keys()
        prompts = [] if missing else module['prompts']()
        if isinstance(prompts, str):
            raise TypeError('prompts() is a text')
        prompts = list(prompts)
    except (Exception, SystemExit) as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = lines[-1] if lines else getattr(e, 'lineno', None) or 1
        why = traceback.format_exception_only(e)[-1].strip()        # also if its __str__ raises
        raise ValueError(f'{path}, line {line}: {why}; it {wanted}') from e
    if missing or not all(isinstance(prompt, str | list) for prompt in prompts):
        raise ValueError(f'{path} {wanted}; ' + (f'it has no {missing}' if missing else
                                                 'each prompt is a text or messages'))
    new = [getattr(sys.modules[name], '__file__', None) or '' for name in sorted(sys.modules.keys() - before)]
    own = [file for file in new if file.startswith(folder + os.sep) and 'site-packages' not in file]
    code = hashlib.sha256(b'\n'.join(pathlib.Path(file).read_bytes() for file in (path, *own))).hexdigest()
    return [{'code': code,
             'messages': [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt,
             'reward': functools.partial(paid, module['reward'], prompt, forgive)}
            for prompt in prompts]


def paid(reward, prompt, forgive, text):
    """reward(prompt, text), a finite float, and ''. If it raises or returns something else: ValueError, or
    with forgive 0.0 and why. Nothing here ends a call that hangs."""
    try:
        number = float(reward(prompt, text))
        if abs(number) <= 1e12:     # nor nan; the squares of much larger ones are no float32
            return number, ''
        why = f'returned {number}'
    except KeyboardInterrupt:
        raise
    except BaseException as e:          # SystemExit, too
        why = type(e).__name__
        with contextlib.suppress(BaseException):        # its __repr__ may raise
            why = repr(e)               # one line that can be printed, whatever its text is
    why = f'reward({prompt!r:.80}, {text!r:.80}): {why}'
    if not forgive:
        raise ValueError(f'{why}; it must return a number up to 1e12; --bad_reward=zero counts others as 0')
    return 0.0, why
