"""
Decoding: many answers share one batch, and each is written as if it were alone.

    batch = Batch(model, stop={0}, slots=16)
    batch.add([5, 9], limit=20, dice=random.Random(1).random, temperature=0.8)
    while batch.queue or batch.live:
        for answer in batch.step():         # one more id for each answer that is being written
            print(answer.ids[-1], answer.finish)

Where an answer ends, the next waiting one takes its row (continuous batching; Orca, Yu et al. 2022). Rows do
not see each other, and each has its own dice. Only rounding depends on the neighbours: about 1e-6.
"""
import collections, dataclasses, math
import torch
import torch.nn.functional as F


@dataclasses.dataclass(eq=False)
class Answer:
    """How an answer is to be written, and what has been written of it."""
    prompt: tuple               # ids
    limit: int                  # the most ids that it may have
    dice: object                # a function without arguments -> a number in [0, 1), called once for each id
    temperature: float = 1.0    # 0: always the most probable id
    top_k: int = 0              # draw among the k most probable ids; 0: among all
    top_p: float = 1.0          # ... and among the fewest of them that reach this probability (1904.09751)
    allowed: list | None = None             # the first id must be one of these; None: any
    scored_at: float | None = None          # note log p of each id, at this temperature; None: do not
    n_top: int = 0                          # ... and log p of the n most probable ids
    ids: list = dataclasses.field(default_factory=list)             # the answer
    log_probs: list = dataclasses.field(default_factory=list)       # of each of its ids
    top: list = dataclasses.field(default_factory=list)             # n_top pairs (id, log p), at the last id
    finish: str | None = None               # 'stop', 'length', or what a reader sets who wants no more

    @property
    def length(self):
        return len(self.prompt) + len(self.ids)


class Cache:
    """Keys and values of all layers: two tensors (n_layer, rows, K, columns, D). Each row begins in column 0
    and grows by itself. The answers that are being written have the first rows:

        column   0 1 2 3 4 5 6
        row 0    a b c d e . .      a prompt a b c, then d and e; the next id comes into column 5
        row 1    x y . . . . .      the next id comes into column 2
        row 2    p q r s . . .      nobody's: what is left of an answer that ended
    """

    def __init__(self, model, rows, columns):
        c = model.config
        weight = model.embedding.weight
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        shape = (c.n_layer, rows, c.n_kv_head, columns, c.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=weight.device)   # what is masked must be finite
        self.values = torch.zeros_like(self.keys)
        self.most = c.block_size

    def make_room(self, columns):
        """Let there be at least so many columns. They double, so this happens seldom."""
        have = self.keys.shape[3]
        if columns > have:
            missing = min(self.most, max(columns, 2 * have)) - have
            self.keys = F.pad(self.keys, (0, 0, 0, missing))
            self.values = F.pad(self.values, (0, 0, 0, missing))

    def copy(self, other, source, target, columns):
        """Copy the first columns of rows `source` of a cache, perhaps this one, into rows `target`."""
        self.keys[:, target, :, :columns] = other.keys[:, source, :, :columns]
        self.values[:, target, :, :columns] = other.values[:, source, :, :columns]


class OwnColumn:
    """The keys (or values) of a layer, for Attention in model.py. It writes new ones into one column, then it
    reads the columns up to that one. Here each row has a column of its own to write into."""

    def __init__(self, stored, columns):
        self.stored = stored[:len(columns)]         # (B, K, columns, D)
        self.columns = columns                      # (B,)

    def __setitem__(self, where, new):
        rows = torch.arange(len(new), device=new.device)
        self.stored[rows, :, self.columns] = new[:, :, 0]                           # from (B, K, 1, D)

    def __getitem__(self, where):
        return self.stored[where]


class Sampler:
    """Draws the next id of each of B answers, as each of them wants it."""

    def __init__(self, answers, V, device):
        table = [[float(a.temperature), a.top_k or V, a.top_p, a.scored_at or 1.0] for a in answers]
        temperature, self.top_k, self.top_p, self.scored_at = torch.tensor(table, device=device).T[..., None]
        self.temperature = temperature.clamp(1e-6, 1e30)                            # (B, 1), as the others
        self.greedy = temperature[:, 0] < 1e-6                                      # (B,)
        self.answers = answers
        self.all_greedy = all(a.temperature < 1e-6 for a in answers)
        self.has_limits = any(a.top_k or a.top_p < 1 for a in answers)
        self.has_scores = any(a.scored_at for a in answers)
        self.n_best = min(V, max(a.top_k or V for a in answers))
        self.n_top = min(V, max(a.n_top for a in answers))

    def draw(self, logits):
        """logits (B, V) -> ids (B,). ValueError if a logit is not finite."""
        for row, answer in enumerate(self.answers):
            if answer.allowed is not None and not answer.ids:
                possible = logits[row, answer.allowed]
                logits[row] = -math.inf
                logits[row, answer.allowed] = possible
        if not logits.amax(-1).isfinite().all():
            raise ValueError('the scores of the next token are not finite: use an earlier checkpoint, or '
                             'train with a lower --learning_rate')
        most_probable = logits.argmax(-1)                                           # (B,)
        if self.all_greedy:
            return most_probable

        scores = logits / self.temperature                                          # (B, V)
        if self.has_limits:
            scores = self.limited(scores)
        # the id at which the running sum of p passes a random number; MPS has no float64
        wide = torch.float32 if scores.device.type == 'mps' else torch.float64
        sums = scores.softmax(-1).cumsum(-1, dtype=wide)                            # (B, V)
        u = torch.tensor([[answer.dice()] for answer in self.answers], dtype=wide, device=sums.device)
        ids = torch.searchsorted(sums, u * sums[:, -1:], right=True)[:, 0]          # (B,)
        return torch.where(self.greedy, most_probable, ids.clamp(max=sums.shape[1] - 1))

    def limited(self, scores):
        """scores (B, V) with -inf where top_k or top_p leaves an id out."""
        best, ids = scores.topk(self.n_best)                                        # (B, n), largest first
        rank = torch.arange(self.n_best, device=scores.device)
        best = best.masked_fill(rank >= self.top_k, -math.inf)
        p = best.softmax(-1)
        before = p.cumsum(-1) - p       # the probability of the ids that are more probable
        best = best.masked_fill((before >= self.top_p) & (rank > 0), -math.inf)
        return torch.full_like(scores, -math.inf).scatter(1, ids, best)

    def score(self, logits, ids):
        """Note log p of the ids (B,) in the answers that want it."""
        scores = logits / self.scored_at                                            # (B, V)
        total = scores.logsumexp(-1, keepdim=True)                                  # (B, 1)
        log_p = scores.gather(1, ids[:, None]) - total                              # (B, 1)
        best = scores.topk(self.n_top)                                              # (B, n)
        top = zip(best.indices.tolist(), (best.values - total).tolist())
        for answer, [value], pairs in zip(self.answers, log_p.tolist(), top):
            if answer.scored_at:
                answer.log_probs.append(value)
                answer.top = [pair for pair in zip(*pairs) if pair[1] > -math.inf][:answer.n_top]


class Batch:
    """Writes `slots` answers at a time, each up to an id of `stop`. It draws no id of `never`."""

    def __init__(self, model, stop, slots=16, never=()):
        if not model.config.causal:
            raise ValueError('causal=False: this model cannot continue a text; train with --objective=clm')
        self.model = model.eval()
        self.context = model.config.block_size
        self.stop = set(stop)
        self.slots = slots
        self.vocab_size = model.config.vocab_size
        self.device = model.embedding.weight.device
        self.never = torch.tensor(list(never), dtype=torch.long, device=self.device)
        self.clear()

    def clear(self):
        """Forget all answers, and their keys and values."""
        self.queue = collections.deque()
        self.live = []              # the answer in each row of the cache
        self.cache = None
        self.sampler = None         # None: other answers are live than in the last step

    def add(self, prompt, limit, dice, **how):
        """Queue an answer to a prompt, a list of ids; how: see Answer. ValueError if the prompt is empty."""
        if not prompt:
            raise ValueError('the prompt is empty; begin with a token, such as <|endoftext|>')
        answer = Answer(tuple(prompt[-self.context:]), limit, dice, **how)
        self.queue.append(answer)
        return answer

    @torch.no_grad()
    def step(self):
        """Let go the answers that ended, let waiting ones in, write one more id of each. -> the answers"""
        self.let_go()
        self.let_in()
        if not self.live:
            return []
        if self.sampler is None:
            self.sampler = Sampler(list(self.live), self.vocab_size, self.device)
            self.ids = torch.tensor([(a.ids or a.prompt)[-1] for a in self.live], device=self.device)   # (B,)
            self.at = torch.tensor([a.length - 1 for a in self.live], device=self.device)   # (B,): its place
        logits = self.model.head(self.hidden())[:, :self.vocab_size].float()        # (B, V)
        logits[:, self.never] = -math.inf
        self.ids = self.sampler.draw(logits)
        self.at = self.at + 1
        if self.sampler.has_scores:
            self.sampler.score(logits, self.ids)
        for answer, id in zip(self.live, self.ids.tolist()):
            answer.ids.append(id)
            if id in self.stop:
                answer.finish = 'stop'
            elif len(answer.ids) >= answer.limit:
                answer.finish = 'length'
        return self.sampler.answers

    def hidden(self):
        """Hidden states of the last id of each live answer, (B, C). Keys and values of the ids before are in
        the cache. An answer that is longer than the context continues from its last block_size ids, as in
        GPT.stream: each id moves this window and changes every key, so the whole window is run again."""
        width = min(self.context, max(answer.length for answer in self.live))
        self.cache.make_room(width)
        at = self.at.clamp(max=width - 1)                                           # (B,)
        mask = torch.arange(width, device=self.device) <= at[:, None]               # (B, width)
        layers = [(OwnColumn(keys, at), OwnColumn(values, at))
                  for keys, values in zip(self.cache.keys, self.cache.values)]
        x = self.model.backbone(self.ids[:, None], layers, width - 1, mask[:, None, None], at[:, None])[:, 0]
        too_long = [row for row, answer in enumerate(self.live) if answer.length > self.context]
        if too_long:
            windows = [[*self.live[row].prompt, *self.live[row].ids][-self.context:] for row in too_long]
            x[too_long] = self.model.backbone(torch.tensor(windows, device=self.device))[:, -1]
        return x

    def let_go(self):
        """Take out the answers that are finished. The last row moves into a row that becomes free."""
        for row in reversed(range(len(self.live))):
            if self.live[row].finish:
                self.sampler = None
                last = self.live.pop()
                if row < len(self.live):
                    self.live[row] = last
                    self.cache.copy(self.cache, len(self.live), row, last.length)

    def let_in(self):
        """Give rows to waiting answers, with keys and values of their prompts, but of each one's last id: the
        next step feeds it. Equal prompts are run once. Padding is on the right, where no id sees it."""
        first = len(self.live)
        if self.slots - first < max(1, first // 8):     # a few at a time: their prompts share a pass
            return
        while self.queue and len(self.live) < self.slots:
            answer = self.queue.popleft()
            if not answer.finish:           # else its reader went away
                self.live.append(answer)
                self.sampler = None
        new = self.live[first:]
        if not new:
            return
        width = max(len(answer.prompt) for answer in new)
        if self.cache is None:
            self.cache = Cache(self.model, self.slots, min(self.context, 64))
        self.cache.make_room(width)
        row_of = {self.live[row].prompt: row for row in reversed(range(len(self.live)))}
        prompts = [prompt for prompt, row in row_of.items() if row >= first]
        if prompts and width > 1:
            x = [[*ids, *[0] * (width - len(ids))][:-1] for ids in prompts]
            own = Cache(self.model, len(prompts), width - 1)
            self.model.backbone(torch.tensor(x, device=self.device), list(zip(own.keys, own.values)))
            self.cache.copy(own, slice(None), [row_of[prompt] for prompt in prompts], width - 1)
        for row, answer in enumerate(new, first):
            if row != row_of[answer.prompt]:
                self.cache.copy(self.cache, row_of[answer.prompt], row, width - 1)
