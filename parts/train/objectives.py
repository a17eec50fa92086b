"""
Objectives: which tokens are hidden from the model, and which it must predict.
Masked tokens, spans, and documents that do not see each other.

    x, y = hide_tokens(x, seed, step, rows, special, n_ordinary)        # int64 (B, T) each

Every choice follows from (seed, step, row of the global batch): a batch can be made again, on any
number of devices.
"""
import numpy as np
from model import IGNORE
from parts import Mistake

MASK_RATE = 0.15        # of the tokens are hidden
MEAN_SPAN = 3           # tokens
# A step that no run reaches: what is hidden in it is hidden in every evaluation.
EVALUATION = 2 ** 40


def chances(seed, step, rows, n, purpose):
    """Return uniform random numbers in [0, 1), float64 (len(rows), n), that follow from the
    arguments alone."""
    return np.stack([np.random.default_rng([seed, step, row, purpose]).random(n) for row in rows])


def hide_tokens(x, seed, step, rows, special, n_ordinary):
    """Masked language modeling (BERT, arXiv:1810.04805). Return inputs and targets (B, T): 15% of
    the tokens x (B, T) must be predicted, and of these 80% become <|mask|>, 10% become a random
    ordinary token, and 10% stay."""
    chosen = chances(seed, step, rows, x.shape[1], 0) < MASK_RATE
    how = chances(seed, step, rows, x.shape[1], 1)
    other = (chances(seed, step, rows, x.shape[1], 2) * n_ordinary).astype(np.int64)
    hidden = np.where(how < 0.8, special['<|mask|>'], np.where(how < 0.9, other, x))
    return np.where(chosen, hidden, x), np.where(chosen, x, IGNORE)


def span_lengths(T):
    """Return how many tokens of text fit into a context of T, how many of them are hidden, and in
    how many spans."""
    for n_text in range(T, 1, -1):
        n_hidden = max(1, round(n_text * MASK_RATE))
        n_spans = max(1, round(n_hidden / MEAN_SPAN))
        if n_text + 2 * n_spans <= T:
            return n_text, n_hidden, n_spans
    raise Mistake(f'a context of {T} tokens is too short for span corruption; raise --block_size')


def hide_spans(x, seed, step, rows, special, T):
    """Span corruption (T5, arXiv:1910.10683) for a decoder alone, which makes it a prefix-LM. To
    hide b c and f in a b c d e f g:

        a <0> d e <1> g | <0> b c <1> f <2>

    The part before the | is the prefix. It sees itself in both directions, and it is not scored.
    Return inputs and targets (B, n_text + 2 n_spans) of x (B, n_text), and the prefix's length."""
    n_text, n_hidden, n_spans = span_lengths(T)
    sentinels = [id for name, id in special.items() if name.startswith('<|span_')]
    if n_spans >= len(sentinels):
        raise Mistake(f'{T} tokens have {n_spans} spans, the tokenizer {len(sentinels)} '
                      'sentinels; lower --block_size')

    def lengths(n, n_parts, purpose):
        """Return the lengths of n_parts parts, at least 1 each, into which n tokens are cut at
        random, (B, n_parts)."""
        u = chances(seed, step, rows, n - 1, purpose)
        cuts = np.sort(np.argsort(u, axis=1)[:, :n_parts - 1], axis=1) + 1
        return np.diff(cuts, axis=1, prepend=0, append=n)

    # How many tokens are shown, hidden, shown, ..., shown in turn.
    parts = np.empty((len(x), 2 * n_spans + 1), np.int64)
    parts[:, ::2] = lengths(n_text - n_hidden + 2, n_spans + 1, 1)
    parts[:, 1::2] = lengths(n_hidden, n_spans, 0)
    parts[:, [0, -1]] -= 1                  # a span may touch the beginning or the end of the text
    out = []
    for tokens, ends in zip(x, parts.cumsum(1)):
        *pieces, rest, _ = np.split(tokens, ends)
        prefix = []
        answer = []
        for sentinel, shown, hidden in zip(sentinels, pieces[::2], pieces[1::2]):
            prefix += [*shown, sentinel]
            answer += [sentinel, *hidden]
        out.append([*prefix, *rest, *answer, sentinels[n_spans]])
    out = np.array(out, dtype=np.int64)                                # (B, n_text + 2 n_spans + 1)
    n_prefix = n_text - n_hidden + n_spans
    targets = out[:, 1:].copy()
    targets[:, :n_prefix - 1] = IGNORE
    return out[:, :-1], targets, n_prefix


def document_mask(x, end_of_text):
    """Return, for packed documents x (B, T), which keys a query sees, bool (B, 1, T, T), and the
    position of each token in its document, int64 (B, T). <|endoftext|> begins the document that
    follows it."""
    starts = x == end_of_text
    document = starts.cumsum(1, dtype=np.int32)
    mask = document[:, None, :, None] == document[:, None, None, :]
    mask &= np.tri(x.shape[1], dtype=bool)          # in place: a quarter of the time of tril()
    at = np.arange(x.shape[1])
    return mask, at - np.maximum.accumulate(np.where(starts, at, 0), axis=1)


class Objective:
    """clm, mlm or span: which tokens are hidden, and which are predicted. n_text: the number of
    tokens of text in a sequence."""

    def __init__(self, name, tokenizer, block_size, seed, document_mask=False):
        self.name = name
        self.document_mask = document_mask
        self.block_size = block_size
        self.seed = seed
        self.special = tokenizer.special                # {name: id}
        self.n_ordinary = tokenizer.vocab_size - len(tokenizer.special)
        self.n_text = span_lengths(block_size)[0] if name == 'span' else block_size
        if document_mask and name != 'clm':
            raise Mistake(f'document_mask=True needs --objective=clm, not {name}')
        needs = {'clm': '<|endoftext|>', 'mlm': '<|mask|>', 'span': '<|span_0|>'}[name]
        if (document_mask or name != 'clm') and needs not in self.special:
            raise Mistake(f'objective={name}, document_mask={document_mask}: the tokenizer of '
                          f'the data has no special token {needs}; prepare documents, or with '
                          '--tokenizer=bpe')

    def apply(self, x, y, rows, step=EVALUATION):
        """Return the arguments of model.forward for a text x and its next tokens y, int64 (B,
        n_text): inputs and targets, with span also a mask, with document_mask a mask and positions.
        rows: the numbers of the sequences in the step's batch."""
        if self.name == 'mlm':
            return hide_tokens(x, self.seed, step, rows, self.special, self.n_ordinary)
        if self.name == 'span':
            x, y, n_prefix = hide_spans(x, self.seed, step, rows, self.special, self.block_size)
            mask = np.tri(x.shape[1], dtype=bool)
            mask[:n_prefix, :n_prefix] = True                        # the prefix sees all of itself
            return x, y, mask[None, None]                               # (1, 1, T, T)
        if self.document_mask:
            return x, y, *document_mask(x, self.special['<|endoftext|>'])     # (B, 1, T, T), (B, T)
        return x, y

    def blank(self, B):
        """Return what apply() returns for B sequences of any text, to try whether they fit into
        memory."""
        x = np.zeros((B, self.n_text), np.int64)
        return self.apply(x, x, range(B))

    def described(self, meta, bins, batch_size, max_steps):
        """Return lines for the log: 'data     tokens: 4,096, sequences: 16, steps an epoch: 2.0,
        epochs: 1.50; tokens held out: 512', then a line for each source of a mixture. Text that is
        read more than about four times teaches less (arXiv:2305.16264)."""
        n = meta['tokens']['train']
        sequences = n / self.n_text
        epochs = max_steps * batch_size / sequences
        less = '; beyond 4 epochs that helps less and less: a smaller model may be as good'
        lines = [f'  data     tokens: {n:,}, sequences: {sequences:,.0f}, steps an epoch: '
                 f'{sequences / batch_size:,.1f}, epochs: {epochs:.2f}; tokens held out: '
                 f'{meta["tokens"]["val"]:,}{less if epochs > 4 else ""}']
        for name, source in meta['sources'].items() if len(meta['sources']) > 1 else ():
            passes = source.get('passes') or source['epochs']       # older folders say epochs
            warning = less if passes * epochs > 4 else ''
            if f'val_{name}' not in bins:
                warning += (f'; val_{name}.bin has no whole sequence, so nothing measures this '
                            'source')
            lines.append(f'  data     {name}: {passes * source["tokens"] / n:.1%} of the tokens, '
                         f'read {passes * epochs:.2f} times{warning}')
        return '\n'.join(lines)
