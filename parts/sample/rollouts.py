"""
Rollouts: a model's answers to many prompts, each token with its log-probability.

    noise = noise_of(seed=1, number=0, rows=[0, 1, 2], length=64)       # float64 (3, 64), in [0, 1)
    for answer in rollouts(model, prompts, noise, stop={0}, slots=64):      # as soon as one is finished
        print(answer.row, answer.ids, answer.log_probs, answer.ended)       # row: of its prompt

Rows of a batch do not wait for the longest: where an answer ends, a waiting prompt takes its place
(continuous batching; Orca, Yu et al. 2022). The randomness of a token comes from `noise` at its row and
position, so, to rounding, an answer depends neither on the rows beside it nor on the process.

How rows of different lengths share one cache: all write their next key and value into the same column t.
A row that begins later has its prompt in the columns before t. It does not see the columns before those.

    columns   0 1 2 3 4 5 t
    row 0     a b c d e f g     began at once
    row 1     . . . x y z u     took the place of a shorter answer: its prompt is x y z

Keys are rotated by their position within the row, not by the column, so columns can be moved.
Copy this file alone: it needs torch, numpy and a model like that of model.py.
"""
import collections
import numpy as np
import torch


def noise_of(seed, number, rows, length):
    """Uniform random numbers, float64 (rows, length). Each row follows from (seed, number, row) alone."""
    return np.array([np.random.default_rng([seed, number, row]).random(length) for row in rows])


def draw(number, batch_size, n, seed):
    """Which of n prompts make up the number-th batch, (batch_size,). All n come once, at random, then all n
    again in another order."""
    places = number * batch_size + np.arange(batch_size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(n) for epoch in set(places // n)}
    return np.array([orders[place // n][place % n] for place in places])


def informative(groups, differ):
    """The groups for which differ(group) holds. If there are none: the first one with empty answers, which
    have no weight in any mean. So a process without such a group takes part and changes nothing."""
    found = [group for group in groups if differ(group)]
    if found:
        return found
    for answer in groups[0]:
        answer.ids = []
        answer.log_probs = []
    return groups[:1]


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


class Answer:
    """An answer that is being written in a row of the batch: the number and ids of its prompt, the column in
    which the prompt begins, its own ids with log p of each, and whether it ended by itself."""

    def __init__(self, row, prompt, begin):
        self.row = row
        self.prompt = prompt
        self.begin = begin
        self.ids = []
        self.log_probs = []
        self.ended = False


def pick(logits, noise, temperature):
    """logits (B, V), noise (B,) -> the ids (B,) at which the running sum of p passes noise, and their log p
    (B,). p is the softmax of logits / temperature. Temperature 0 takes the largest logit, and log p is that
    of temperature 1. ValueError if a logit is not finite."""
    if not logits.amax(-1).isfinite().all():
        raise ValueError('the scores of the next token are not finite: use an earlier checkpoint')
    log_p = (logits.float() / (temperature or 1.0)).log_softmax(-1)                     # (B, V)
    if temperature == 0:
        ids = logits.argmax(-1)                                                         # (B,)
    else:
        wide = torch.float32 if logits.device.type == 'mps' else torch.float64
        cdf = log_p.exp().cumsum(-1, dtype=wide)                                        # (B, V)
        u = torch.as_tensor(noise, dtype=wide, device=cdf.device)[:, None] * cdf[:, -1:]
        ids = torch.searchsorted(cdf, u, right=True)[:, 0].clamp(max=cdf.shape[1] - 1)  # (B,)
    return ids, log_p.gather(1, ids[:, None])[:, 0]


class Policy(torch.nn.Module):
    """Inputs and targets (N, T) -> log p of each target, float32 (N, T); 0 where the target is `ignore`. p is
    that of pick()."""

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
        found = log_p.gather(1, y[mask][:, None])[:, 0]                                         # (n,)
        return torch.zeros(x.shape, device=x.device).masked_scatter(mask, found)


@torch.no_grad()
def rollouts(model, prompts, noise, stop, slots, temperature=1.0):
    """Yields the Answer to each prompt, in the order in which they end.

    prompts: lists of ids. noise: float64 (len(prompts), L); an answer has at most L tokens, the last of them
    an id of `stop` if it ended by itself. slots: how many are written at once. ValueError for an empty
    prompt, and for one that leaves no room for L tokens in the context."""
    L = noise.shape[1]
    if not prompts:
        return
    longest = max(len(ids) for ids in prompts)
    if longest + L > model.config.block_size or min(len(ids) for ids in prompts) == 0:
        raise ValueError(f'prompts must have 1 to {model.config.block_size - L} tokens, {L} fewer than the '
                         f'context of {model.config.block_size}; the longest has {longest}')
    was_training = model.training
    model.eval()
    try:
        yield from batch_of_slots(model, prompts, noise, set(stop), slots, temperature, longest)
    finally:
        model.train(was_training)


def batch_of_slots(model, prompts, noise, stop, slots, temperature, longest):
    """rollouts() without its checks. longest: the most tokens of a prompt."""
    device = next(model.parameters()).device
    L = noise.shape[1]
    columns = min(model.config.block_size, longest + 2 * L)
    waiting = collections.deque(range(len(prompts)))
    cache = empty_cache(model, min(slots, len(prompts)), columns)
    live = [None] * min(slots, len(prompts))        # an Answer, or None: free
    token = torch.zeros(len(live), dtype=torch.long, device=device)                     # (B,): the last one
    t = longest - 1                                 # the column of the tokens that are fed next

    while waiting or any(live):
        if t == columns:                            # no column is left: drop those that nobody sees
            used = max([longest - 1, *(t - answer.begin for answer in live if answer)])
            shift_left(cache, t, used, live)
            t = used

        free = [i for i, answer in enumerate(live) if answer is None]
        if waiting and (len(free) >= max(1, len(live) // 8) or not any(live)):  # a few at a time
            new = [(i, waiting.popleft()) for i in free[:len(waiting)]]
            prefill(model, cache, t, [i for i, _ in new], [prompts[row][:-1] for _, row in new])
            for i, row in new:
                live[i] = Answer(row, prompts[row], t - (len(prompts[row]) - 1))
            token[[i for i, _ in new]] = torch.tensor([prompts[row][-1] for _, row in new], device=device)
        elif not waiting and len(free) * 2 > len(live):         # nothing to fill them with: a smaller batch
            kept = [i for i, answer in enumerate(live) if answer]
            cache = [[stored[kept] for stored in layer] for layer in cache]
            live = [live[i] for i in kept]
            token = token[kept]

        begin = torch.tensor([answer.begin if answer else t for answer in live], device=device)     # (B,)
        seen = torch.arange(t + 1, device=device) >= begin[:, None]                     # (B, t + 1)
        hidden = model.backbone(token[:, None], cache, t, seen[:, None, None], (t - begin)[:, None])
        u = [noise[answer.row, len(answer.ids)] if answer else 0.0 for answer in live]
        logits = model.head(hidden[:, -1])[:, :model.config.vocab_size]                 # (B, V)
        token, log_p = pick(logits, u, temperature)                                     # (B,) each
        t += 1
        for i, (id, value) in enumerate(zip(token.tolist(), log_p.tolist())):
            if answer := live[i]:
                answer.ids.append(id)
                answer.log_probs.append(value)
                answer.ended = id in stop
                if answer.ended or len(answer.ids) == L:
                    live[i] = None
                    yield answer


def empty_cache(model, rows, columns):
    """Keys and values of each layer, (rows, K, columns, D) each. Zeros: what is hidden must be finite."""
    c = model.config
    weight = model.embedding.weight
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    shape = (rows, c.n_kv_head, columns, c.head_dim)
    return [[torch.zeros(shape, dtype=dtype, device=weight.device) for _ in 'kv'] for _ in range(c.n_layer)]


def prefill(model, cache, t, rows, prompts):
    """Write the keys and values of the prompts into these rows of the cache, in the columns before t. Equal
    prompts, as of one group, are computed once."""
    distinct = {tuple(ids): i for i, ids in enumerate(dict.fromkeys(map(tuple, prompts)))}
    width = max(map(len, distinct))
    if width == 0:
        return
    device = cache[0][0].device
    pads = torch.tensor([width - len(ids) for ids in distinct], device=device)          # (R,): on the left
    x = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in distinct], device=device)     # (R, W)
    at = torch.arange(width, device=device)                                             # (W,)
    seen = torch.ones(width, width, dtype=torch.bool, device=device).tril()             # (W, W)
    itself = torch.eye(width, dtype=torch.bool, device=device)      # so that no row of the softmax is empty
    seen = seen & (at >= pads[:, None, None]) | itself                                  # (R, W, W)
    own = empty_cache(model, len(distinct), width)
    model.backbone(x, own, 0, seen[:, None], (at - pads[:, None]).clamp(min=0))
    which = [distinct[tuple(ids)] for ids in prompts]
    for layer, new_layer in zip(cache, own):
        for stored, new in zip(layer, new_layer):
            stored[rows, :, t - width:t] = new[which]


def shift_left(cache, t, used, live):
    """Move the last `used` of the t columns to the front."""
    for layer in cache:
        for stored in layer:
            stored[:, :, :used] = stored[:, :, t - used:t].clone()
    for answer in live:
        if answer:
            answer.begin -= t - used
