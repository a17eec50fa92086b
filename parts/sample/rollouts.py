"""
Rollouts: which prompts a step of reinforcement learning draws, and a model's answers as batches to train on.

    noise = noise_of(seed=1, number=0, rows=[0, 1, 2], length=64)       # float64 (3, 64), in [0, 1)
    answers = write(batch, tasks, noise, 1.0, tokenizer.decode, judge)  # a Rollout for each task
    x, y, old = collate(answers, pad=0, ignore=-100)                    # (N, T) each
    log_probs = Policy(model, temperature=1.0, ignore=-100)(x, y)       # (N, T)

The randomness of an answer comes from a row of noise, so, to rounding, it depends neither on the answers
beside it nor on the process.
Copy this file alone: it needs torch, numpy, a model like that of model.py and a Batch like decoding.py's.
"""
import dataclasses
import numpy as np
import torch


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
