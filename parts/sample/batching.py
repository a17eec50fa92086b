"""
Batching: requests that come and go share one batch, and each is written as if it were alone.

    batch = Batch(model, tokenizer, slots=16, waiting=64)       # begins a thread, which writes
    choices, events = batch.begin([Prompt([5, 9], None, 0, '')], max_tokens=20, temperature=0.8, seed=1)
    event = events.get()                                        # the next token of any of the choices
    text, tokens, finish = choices[event.index].take(event)     # finish: None, 'stop', 'length' or 'error'
    choices[0].gone = True                                      # nobody reads it: its row becomes free

Where an answer ends, the next waiting one takes its row (continuous batching; Orca, Yu et al. 2022). Each row
of the cache begins in column 0 and grows by itself. A row therefore sees exactly its own tokens, and its dice
follow from its seed. Only rounding depends on the neighbours: sums of another shape differ by about 1e-6.

A prompt has ids, allowed and repeated, as encode() in asking.py returns it. model, tokenizer: as in model.py,
tokenizer.py. Copy this file alone: it needs torch.
"""
import codecs, collections, queue, random, threading, traceback
import torch

# index: of the choice. log_p: of the id, at temperature 1. top: the most probable pairs (id, log p)
Event = collections.namedtuple('Event', 'index id log_p top finish')
# data: its bytes. top: pairs (data, log p). offset: the character of the text at which it begins
Token = collections.namedtuple('Token', 'data log_p top offset')
DRAW = 'max_tokens', 'seed', 'temperature', 'top_k', 'top_p', 'n_top', 'stop'


class Choice:
    """One answer. A batch writes its ids; the thread that asked takes its text."""

    def __init__(self, tokenizer, prompt, index, events, draw):
        """draw: max_tokens, seed, temperature, top_k, top_p, n_top (how many of `top`), stop (texts)."""
        if unknown := draw.keys() - DRAW:
            raise TypeError(f'{", ".join(unknown)}: expected some of {", ".join(DRAW)}')
        self.ids = list(prompt.ids)
        self.allowed = prompt.allowed       # the ids that may come first; None: any
        self.repeated = prompt.repeated     # bytes of the prompt that the first token writes again
        self.index = index
        self.events = events
        self.left = draw.get('max_tokens', 16)
        self.temperature = draw.get('temperature', 1.0)
        self.top_k = draw.get('top_k', 0)               # 0: all
        self.top_p = draw.get('top_p', 1.0)
        self.n_top = draw.get('n_top', 0)
        self.stop = draw.get('stop', ())
        self.dice = random.Random(f'{draw.get("seed", 0)} {index}')
        self.gone = False

        self.decode = lambda id, drop: tokenizer.decode_bytes([id])[drop:]
        self.to_drop = prompt.repeated
        self.decoder = codecs.getincrementaldecoder('utf-8')('replace')     # waits for whole characters
        self.text = ''
        self.sent = 0           # characters that take() has handed out
        self.kept = []          # Tokens that begin behind them

    def take(self, event):
        """An Event -> the text that is now certain, its Tokens, and how the answer ended or None. Text that
        may begin a stop is held back. The text ends before the first stop."""
        finish = event.finish
        if finish == 'error':
            return '', [], finish
        data = b''
        if finish != 'stop':
            data = self.decode(event.id, self.to_drop)
        if data:                # else it only repeats the prompt
            top = [(self.decode(id, self.to_drop), log_p) for id, log_p in event.top]
            self.kept.append(Token(data, event.log_p, top, len(self.text)))
        self.to_drop = 0
        self.text += self.decoder.decode(data, final=finish is not None)

        found = [place for stop in self.stop if (place := self.text.find(stop, self.sent)) >= 0]
        if found:
            self.text = self.text[:min(found)]
            self.kept = [token for token in self.kept if token.offset < len(self.text)]
            self.gone = True
            finish = 'stop'
        certain = len(self.text)
        if not finish:
            certain -= max([n for stop in self.stop for n in range(1, len(stop))
                            if self.text.endswith(stop[:n])], default=0)
        new = self.text[self.sent:certain]
        ready = [token for token in self.kept if finish or token.offset < certain]
        self.kept = self.kept[len(ready):]
        self.sent = certain
        return new, ready, finish


class Batch:
    """Writes at most `slots` choices at a time. `waiting` more may wait."""

    def __init__(self, model, tokenizer, slots=16, waiting=64):
        if not model.config.causal:
            raise ValueError('causal=False: this model cannot continue a text; train with --objective=clm')
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.context = model.config.block_size
        self.slots = slots
        self.most = waiting
        self.waiting = collections.deque()
        self.live = []                      # the choice of each row
        self.cache = self.room_for(1, [])
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def begin(self, prompts, **draw):
        """Queue a choice for each prompt: all, or none and queue.Full. -> the choices, the queue of their
        Events. An answer has no more tokens than fit the context. ValueError for an empty prompt, or
        one that leaves no room. draw: see Choice."""
        wrong = [len(prompt.ids) for prompt in prompts if not 0 < len(prompt.ids) < self.context]
        if wrong:
            raise ValueError(f'the prompt has {wrong[0]} tokens; the context of {self.context} needs 1 to '
                             f'{self.context - 1}')
        events = queue.SimpleQueue()
        choices = [Choice(self.tokenizer, prompt, i, events, draw) for i, prompt in enumerate(prompts)]
        with self.changed:
            waiting = [choice for choice in self.waiting if not choice.gone]
            if len(waiting) + len(choices) > self.most + self.slots - len(self.live):
                raise queue.Full
            self.waiting = collections.deque([*waiting, *choices])
            self.changed.notify()
        return choices, events

    def run(self):
        """Write for ever. An error ends the answers that were being written, and nothing else."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.live or self.waiting)
            try:
                self.step()
            except Exception:       # out of memory, weights that are not finite
                traceback.print_exc()
                for choice in self.live:
                    choice.events.put(Event(choice.index, None, 0.0, [], 'error'))
                self.live = []
                self.cache = self.room_for(1, [])

    @torch.no_grad()
    def step(self):
        """One more token for each row; first, rows that became free take waiting prompts."""
        for row in reversed(range(len(self.live))):
            if self.live[row].gone:
                self.free(row)
        with self.changed:
            new = []
            while self.waiting and len(self.live) + len(new) < self.slots:
                choice = self.waiting.popleft()
                if not choice.gone:
                    new.append(choice)
            self.live += new
        if not self.live:
            return
        self.cache = self.room_for(max(len(choice.ids) for choice in self.live), self.cache)
        device = self.model.embedding.weight.device
        for row in range(len(self.live) - len(new), len(self.live)):
            choice = self.live[row]
            if len(choice.ids) > 1:         # all but the last token, by itself: its row as a batch of one
                own = [[stored[row:row + 1] for stored in layer] for layer in self.cache]
                self.model.backbone(torch.tensor([choice.ids[:-1]], device=device), own)

        at = torch.tensor([len(choice.ids) - 1 for choice in self.live], device=device)         # (B,)
        width = int(at.max()) + 1
        seen = torch.arange(width, device=device) <= at[:, None]                                # (B, width)
        rows = [[Rows(stored, at) for stored in layer] for layer in self.cache]
        last = torch.tensor([[choice.ids[-1]] for choice in self.live], device=device)          # (B, 1)
        hidden = self.model.backbone(last, rows, width - 1, seen[:, None, None], at[:, None])   # (B, 1, C)
        logits = self.model.head(hidden[:, -1])[:, :self.tokenizer.vocab_size].float()          # (B, V)
        ids, log_p = pick(logits, self.live)
        chosen = log_p.gather(1, ids[:, None])[:, 0].tolist()
        best = log_p.topk(min(max(choice.n_top for choice in self.live), log_p.shape[1]))       # (B, n) each
        best = [list(zip(*pair)) for pair in zip(best.indices.tolist(), best.values.tolist())]

        for row, id in reversed(list(enumerate(ids.tolist()))):
            choice = self.live[row]
            choice.ids.append(id)
            if choice.allowed is None or choice.decode(id, choice.repeated):
                choice.left -= 1
            choice.allowed = None
            finish = 'length' if choice.left <= 0 or len(choice.ids) > self.context else None
            if id in self.tokenizer.stop:
                finish = 'stop'
            top = [pair for pair in best[row][:choice.n_top] if pair[1] > -float('inf')]
            if finish:
                self.free(row)
            choice.events.put(Event(choice.index, id, chosen[row], top, finish))

    def free(self, row):
        """Take a choice out of the batch; the last row takes its place."""
        last = len(self.live) - 1
        for stored in [stored for layer in self.cache for stored in layer if row < last]:
            stored[row] = stored[last]
        self.live[row] = self.live[last]
        self.live.pop()

    def room_for(self, columns, cache):
        """The cache with at least so many columns: keys and values of each layer, (slots, K, columns, D)."""
        have = cache[0][0].shape[2] if cache else 0
        if have >= columns:
            return cache
        c = self.model.config
        weight = self.model.embedding.weight
        shape = (self.slots, c.n_kv_head, min(c.block_size, max(columns, 2 * have, 64)), c.head_dim)
        larger = [[torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2)]
                  for _ in range(c.n_layer)]        # zeros: what is hidden must be finite
        for old, new in zip(cache, larger):
            for i in range(2):
                new[i][:, :, :have] = old[i]
        return larger


class Rows:
    """The keys or values of a layer, for Attention in model.py: it writes one column, the same for all rows,
    and reads the columns up to it. Here each row writes its own column, `at` (B,)."""

    def __init__(self, stored, at):
        self.stored = stored
        self.at = at

    def __setitem__(self, where, new):
        self.stored[torch.arange(len(new), device=new.device), :, self.at] = new[:, :, 0]

    def __getitem__(self, where):
        return self.stored[:len(self.at)][where]


def pick(logits, choices):
    """logits (B, V) -> the next ids (B,), and log p of all (B, V) at temperature 1. Temperature, top_k and
    top_p (arXiv:1904.09751) are those of each choice, and so are the dice. ValueError if not finite."""
    for row, choice in enumerate(choices):
        if choice.allowed is not None:
            hidden = torch.ones(logits.shape[1], dtype=torch.bool)
            hidden[choice.allowed] = False
            logits[row, hidden.to(logits.device)] = -float('inf')
    if not logits.amax(-1).isfinite().all():
        raise ValueError('the scores of the next token are not finite: use an earlier checkpoint')
    log_p = logits.log_softmax(-1)                                                              # (B, V)
    V = logits.shape[1]
    column = lambda values: torch.tensor(list(values), device=logits.device)[:, None]           # (B, 1)
    temperature = column(float(choice.temperature) for choice in choices)
    top_p = column(float(choice.top_p) for choice in choices)
    top_k = column(choice.top_k or V for choice in choices)

    scores, order = (log_p / temperature.clamp(1e-6, 1e30)).sort(dim=-1, descending=True, stable=True)
    among = torch.arange(V, device=scores.device) < top_k                                       # (B, V)
    p = scores.masked_fill(~among, -float('inf')).softmax(-1)
    keep = among & (p.cumsum(-1) - p < top_p)                                                   # (B, V)
    keep[:, 0] = True
    wide = torch.float32 if p.device.type == 'mps' else torch.float64
    cdf = (p * keep).cumsum(-1, dtype=wide)                                                     # (B, V)
    dice = torch.tensor([[choice.dice.random()] for choice in choices], dtype=wide, device=p.device)
    place = torch.searchsorted(cdf, dice * cdf[:, -1:], right=True)                             # (B, 1)
    place = place.minimum(keep.sum(-1, keepdim=True) - 1)       # those that are kept come first
    place = torch.where(temperature < 1e-6, 0, place)           # the most probable
    return order.gather(1, place)[:, 0], log_p
