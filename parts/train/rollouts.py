"""
Rollouts of rl.py: prompts and what judges their answers, the answers, and batches of them.

    tasks = read_tasks('tasks.jsonl', tokenizer, longest=192)       # {ids of a prompt: its task}
    noise = noise_of(seed=1, number=0, rows=[0, 1, 2], length=64)   # float64 (3, 64), in [0, 1)
    for i, ids, log_probs, ended in write(model, prompts, noise, 1.0, tokenizer.stop): ...
    reward_of({'answer': '4'}, 'It is 4')                           # 1.0
    x, y, old = collate(answers, pad=0)                             # (N, T) each
    log_probs = Policy(model, temperature=1.0)(x, y)                # (N, T)

The randomness of an answer is its row of noise. So, to rounding, an answer depends neither on those
that are written next to it nor on the process.
"""
import hashlib, os, runpy, sys
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from model import IGNORE
from parts.eval import problems, questions
from parts.sample import decoding
from parts.train import records


# --- tasks: prompts, and what judges their answers ------------------------------------------------
def read_tasks(source, tokenizer, longest, n=0, seed=0, splits=()):
    """Return {ids of a prompt, a tuple: its task}, of the prompts with at most `longest` tokens.
    source: FILE.jsonl, FILE.py, or problems: n of parts/eval/problems.py, of these splits. A prompt
    that comes twice is one task."""
    def with_ids(task):
        return task | {'ids': tokenizer.render(task['messages'], add_generation_prompt=True)[0]}

    if source == 'problems':            # of its two messages only the question
        tasks = [with_ids(questions.to_task(p) | {'messages': problems.to_messages(p)[:1]})
                 for split in splits for p in problems.problems(n // len(splits), seed, split)]
    elif source.endswith('.py'):
        tasks = [with_ids(task) for task in tasks_of_file(source)]
    else:
        read = lambda record: with_ids(questions.to_task(record))
        advice = 'a line has "prompt", and "tests" or "answer"; else: problems, FILE.py'
        tasks = records.read_jsonl(source, read, advice)
    return {tuple(task['ids']): task for task in tasks if len(task['ids']) <= longest}


def tasks_of_file(path):
    """Return the tasks of a FILE.py, which runs here and may import what is beside it. It defines
    prompts(), a list of texts or messages, and reward(prompt, completion), a number."""
    # At the end, so that it hides no module of ours; for good, because reward() may import, too.
    sys.path.append(os.path.dirname(os.path.abspath(path)))
    module = runpy.run_path(path)
    if not {'prompts', 'reward'} <= module.keys():
        raise ValueError(f'{path} must define prompts(), a list of texts or messages, and '
                         'reward(prompt, completion), a number')
    code = records.digest(path)
    tasks = []
    for prompt in module['prompts']():
        text = [{'role': 'user', 'content': prompt}]
        tasks.append({'messages': prompt if isinstance(prompt, list) else text, 'prompt': prompt,
                      'reward': module['reward'], 'code': code})
    return tasks


def digest(tasks):
    """Return a hash of what decides what rewards mean: prompts, answers, tests, reward()'s file."""
    facts = [{key: value for key, value in task.items() if key != 'reward'} for task in tasks]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


# --- answers --------------------------------------------------------------------------------------
def noise_of(seed, number, rows, length):
    """Return random numbers in [0, 1), float64 (rows, length). A row follows from (seed, number,
    row)."""
    # Without the 1, row 0 would use the numbers of data.shuffled: [seed, n] and [seed, n, 0] are
    # the same to numpy.
    return np.array([np.random.default_rng([seed, number, row, 1]).random(length) for row in rows])


def write(model, prompts, noise, temperature, stop, slots=128):
    """Yield (i, ids, log p of each id, whether the answer ended by itself) when the answer to
    prompts[i], a list of ids, is complete: short ones come first. noise: float64 (prompts, n), for
    at most n ids. slots: answers written at a time."""
    batch = decoding.Batch(model, stop, min(slots, len(prompts)))
    number_of = {}
    for i, (prompt, row) in enumerate(zip(prompts, noise.tolist())):
        answer = batch.add(prompt, len(row), iter(row).__next__, temperature=temperature,
                           scored_at=temperature or 1.0)
        number_of[answer] = i
    while batch.queue or batch.live:
        for answer in batch.step():
            if answer.finish:
                ended = answer.finish == 'stop'
                yield number_of[answer], answer.ids, answer.log_probs, ended
    model.train()           # a batch is written in eval mode


def submit(court, task, text):
    """Begin to run the program in an answer, if tests judge it. Return its future Result, or None.
    court: a sandbox.Court."""
    if 'tests' in task:
        program = questions.program(task, text, chat=True)
        return court.submit(program, task['tests'], task['entry_point'])


def reward_of(task, text, verdict=None, warn=None):
    """Return what a text earns as the answer to a task: 1.0 if its number is that of 'answer' or
    its tests pass, else 0.0; or what reward() says. verdict: what submit() returned. warn(text):
    told which rewards of a FILE.py count as 0; without it they are errors."""
    if 'answer' in task:
        return float(questions.last_number(text) == questions.last_number(task['answer']))
    if 'tests' in task:
        result = verdict.result()       # waits for the program
        if result.outcome == 'infrastructure':
            raise ValueError(f'no verdict on {task["messages"][-1]["content"]!r:.80}, by a fault '
                             f'of its tests or of the machine: {result.message}')
        return float(result.outcome == 'passed')
    # Nothing here ends a call that hangs.
    try:
        number = float(task['reward'](task['prompt'], text))
        # Comparing with <= refuses nan as well. Squares of much larger numbers are no float32.
        if abs(number) <= 1e12:
            return number
        why = f'returned {number}'
    except Exception as e:
        why = repr(e)
    why = f'reward({task["prompt"]!r:.80}, {text!r:.80}): {why}'
    if not warn:
        raise ValueError(f'{why}; it must return a number up to 1e12; --bad_reward=zero counts '
                         'others as 0')
    warn(f'counted as 0: {why}')
    return 0.0


def figures(answers, here):
    """Return means over the answers of all processes. entropy: nats per sampled token."""
    sums = np.zeros(6)          # a process without answers adds nothing
    for a in answers:
        sums += [1, a.reward, a.reward >= 1, not a.ended, len(a.ids), -sum(a.log_probs)]
    n, earned, passed, truncated, n_tokens, nats = here.sum(*sums)
    return {'reward': earned / n, 'pass_rate': passed / n, 'truncated': truncated / n,
            'length': n_tokens / n, 'entropy': nats / n_tokens}


# --- what is trained ------------------------------------------------------------------------------
def collate(answers, pad):
    """Return inputs and targets, int64 (N, T), and log p of each target when it was sampled,
    float32 (N, T). Only the tokens of answers are targets. Padding is on the right. For the prompt
    5 6 7 and the answer 8 9 (_ is IGNORE):

        x  5 6 7 8
        y  _ _ 8 9"""
    def padded(rows, value):
        rows = [torch.tensor(row) for row in rows]
        return pad_sequence(rows, batch_first=True, padding_value=value)

    x = padded([[*a.prompt, *a.ids][:-1] for a in answers], pad)
    y = padded([[IGNORE] * (len(a.prompt) - 1) + a.ids for a in answers], IGNORE)
    old = padded([[0.0] * (len(a.prompt) - 1) + a.log_probs for a in answers], 0.0)
    return x, y, old


class Policy(torch.nn.Module):
    """Inputs and targets (N, T) -> log p of each target, float32 (N, T); 0 where it is IGNORE."""

    def __init__(self, model, temperature):
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, x, y):
        mask = y != IGNORE
        hidden = self.model.backbone(x)[mask]           # (n, C): a prompt needs no logits
        logits = self.model.head(hidden)[:, :self.model.config.vocab_size].float()      # (n, V)
        log_p = (logits / self.temperature).log_softmax(-1)
        of_targets = log_p.gather(1, y[mask][:, None])[:, 0]                            # (n,)
        return torch.zeros(x.shape, device=x.device).masked_scatter(mask, of_targets)
