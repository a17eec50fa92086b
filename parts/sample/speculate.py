"""
Look-up speculation: one answer at temperature 0, several tokens a pass, and the same tokens exactly.

    model = Lookup(model, 'float32')            # its stream() speculates where it can
    for token in model.stream(idx, 100, temperature=0):     # idx (1, T); token (1,)

A token needs all weights once, whether the pass holds one position or nine: a CPU or a GPU waits for memory.
So guess what comes next and let one pass judge all guesses: at each of them it says what the model itself
writes there. Guesses count up to the first that differs, and the model's own token replaces that one. A pass
yields at least one token, as without guesses (Leviathan et al. 2022, arXiv:2211.17192). In that paper a small
model guesses. Here the text does: where its last three tokens stood before, we guess the tokens that followed
(prompt look-up decoding, Saxena 2023). Code repeats itself, and so does greedy generation.

Exactly the same? A pass of nine positions adds its sums in another order than nine passes do, so scores
differ in the last bits. Where the two largest are closer than that, the passes are repeated one by one.
Copy this file alone: it needs torch and a model like that of model.py.
"""
import torch

MOST = 8            # guesses in a pass: on CPUs nine positions cost 1.4 to 2.6 times as much as one (LOG.md)
CONTEXT = 3         # tokens that must have stood before; with two, more guesses are wrong than they are worth
ROUNDING = 2e-5     # of the largest score; between passes of 1 and 9, scores differ by 4e-6 of it (LOG.md)


class Lookup:
    """A model that writes a single answer at temperature 0 sooner. dtype: of its weights, as text."""

    def __init__(self, model, dtype):
        self.model = model
        self.dtype = dtype

    def __getattr__(self, name):
        return getattr(self.model, name)

    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=(), first=None,
               given=()):
        """GPT.stream(). The model itself does several rows, other temperatures, forced tokens, and all that
        rounds more coarsely: GPUs, and weights of bfloat16 or int8."""
        fine = idx.device.type == 'cpu' and self.dtype in ('float32', 'float16')
        if fine and len(idx) == 1 and 0 <= temperature < 1e-6 and not any(given):
            return greedy(self.model, idx, max_new_tokens, stop, first)
        return self.model.stream(idx, max_new_tokens, temperature, top_k, top_p, stop, first, given)


def guess(ids, places, n):
    """The n tokens that followed where the last CONTEXT tokens of ids stood before; [] if they did not.
    places: where the token behind each CONTEXT tokens is. A copy past the end of ids repeats itself."""
    place = places.get(tuple(ids[-CONTEXT:]), len(ids))
    return (ids[place:place + n] * n)[:n]


@torch.no_grad()
def greedy(model, idx, max_new_tokens, stop=(), first=None):
    """Yields the tokens (1,) of model.stream(idx, max_new_tokens, 0, stop=stop, first=first), idx (1, T)."""
    c = model.config
    ids = idx[0].tolist()
    end = len(ids) + max_new_tokens
    shape = (1, c.n_kv_head, min(end, c.block_size), c.head_dim)
    cache = [[torch.empty(shape) for _ in 'kv'] for _ in model.blocks]
    cached = 0          # positions whose keys and values are known
    single = 0          # those that model.stream() computes alike, to the bit: the prompt and single tokens
    places = {tuple(ids[i - CONTEXT:i]): i for i in range(CONTEXT, len(ids))}
    n_guess = MOST
    was_training = model.training
    model.eval()

    def scores_of(new, start, n):
        """A pass over new ids at start, start + 1, ... -> the scores behind the last n of them, (n, V)."""
        hidden = model.backbone(torch.tensor([new]), cache, start)[0, -n:]                  # (n, C)
        return model.head(hidden)[:, :c.vocab_size].float()

    try:
        while len(ids) < min(end, c.block_size + 1):
            room = min(end - 1, c.block_size) - len(ids)
            guessed = guess(ids, places, min(n_guess, room)) if cached else []
            scores = scores_of(ids[cached:] + guessed, cached, len(guessed) + 1)            # (n, V)
            if cached == 0 and first is not None:
                scores = scores.masked_fill(~first, -torch.inf)
            written = scores.argmax(-1).tolist()
            top = scores.topk(2).values                                                     # (n, 2)
            if not top[:, 0].isfinite().all():
                raise ValueError('the scores of the next token are not finite: use an earlier checkpoint')
            sure = (top[:, 0] - top[:, 1] > ROUNDING * top[:, 0].abs()).tolist()
            if single == cached and not guessed:
                single = len(ids)
                sure = [True]

            n = 0
            while n < len(guessed) and sure[n] and guessed[n] == written[n]:
                n += 1
            new = written[:n + 1]
            if not sure[n]:     # too close: repeat what was computed several at a time, one by one
                known = ids + guessed[:n]
                for at in range(single, len(known)):
                    scores = scores_of(known[at:at + 1], at, 1)                             # (1, V)
                single = len(known)
                new[n] = scores.argmax(-1).item()
            n_guess = min(MOST, 2 * n + 1) if guessed else n_guess      # few after a wrong one

            for token in new:
                places[tuple(ids[-CONTEXT:])] = len(ids)
                ids.append(token)
                yield torch.tensor([token])
                if token in stop:
                    return
            cached = len(ids) - 1
        if len(ids) < end:      # past the context every pass computes the whole window
            first = None if cached else first       # the first token was chosen before
            yield from model.stream(torch.tensor([ids]), end - len(ids), 0, stop=stop, first=first)
    finally:
        model.train(was_training)
