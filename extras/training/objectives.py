"""
Training objectives, for train.py --objective and --document_mask: masked language modeling, span
corruption, and attention within documents. extras/models/fill.py fills gaps in a text with a model
that was trained this way.

    python train.py --objective=mlm         # or span, or --document_mask=True
    python -m extras.models.fill --ckpt=out/base --prompt='for i in <|mask|>(10):'

    objective = Objective('mlm', False, tokenizer, block_size=256, seed=1337)
    x, y = objective.apply(x, y, rows=np.arange(4), step=0)         # int64 (4, 256) each

All random numbers are functions of (seed, step, row of the global batch), so a batch is the same on
any number of devices.
"""
import numpy as np
import torch
from configurator import UserError, require
from model import IGNORE

MASK_RATE = 0.15        # fraction of tokens to predict
MEAN_SPAN = 3           # tokens
# A step that no run reaches. Every evaluation uses it, so evaluations hide the same tokens.
EVALUATION = 2 ** 40


def uniform(seed, step, rows, n, purpose):
    """Return uniform random numbers in [0, 1), float64 (len(rows), n), as a function of the
    arguments."""
    return np.stack([np.random.default_rng([seed, step, row, purpose]).random(n) for row in rows])


def hide_tokens(x, seed, step, rows, special, n_ordinary):
    """Masked language modeling (BERT, arXiv:1810.04805). Return inputs and targets (B, T): 15% of
    the tokens x (B, T) must be predicted, and of these 80% become <|mask|>, 10% become a random
    ordinary token, and 10% are unchanged."""
    chosen = uniform(seed, step, rows, x.shape[1], 0) < MASK_RATE
    how = uniform(seed, step, rows, x.shape[1], 1)
    other = (uniform(seed, step, rows, x.shape[1], 2) * n_ordinary).astype(np.int64)
    hidden = np.where(how < 0.8, special['<|mask|>'], np.where(how < 0.9, other, x))
    return np.where(chosen, hidden, x), np.where(chosen, x, IGNORE)


def span_lengths(T):
    """Return the number of text tokens that fit into a context of T, how many of them are hidden,
    and the number of spans."""
    for n_text in range(T, 1, -1):
        n_hidden = max(1, round(n_text * MASK_RATE))
        n_spans = max(1, round(n_hidden / MEAN_SPAN))
        if n_text + 2 * n_spans <= T:
            return n_text, n_hidden, n_spans
    raise UserError(f'a context of {T} tokens is too short for span corruption; raise --block_size')


def hide_spans(x, seed, step, rows, special, T):
    """Span corruption (T5, arXiv:1910.10683) for a decoder-only model, as a prefix-LM. To
    hide b c and f in a b c d e f g:

        a <0> d e <1> g | <0> b c <1> f <2>

    The prefix before the | has bidirectional attention and no targets.
    Return inputs and targets (B, n_text + 2 n_spans) of x (B, n_text), and the prefix's length."""
    n_text, n_hidden, n_spans = span_lengths(T)
    sentinels = [id for name, id in special.items() if name.startswith('<|span_')]
    require(n_spans < len(sentinels), f'{T} tokens have {n_spans} spans, the tokenizer '
            f'{len(sentinels)} sentinels; lower --block_size, or prepare with --tokenizer=bpe')

    def lengths(n, n_parts, purpose):
        """Return the lengths of n_parts parts, at least 1 each, into which n tokens are cut at
        random, (B, n_parts)."""
        u = uniform(seed, step, rows, n - 1, purpose)
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
    """Return the attention mask of packed documents x (B, T), bool (B, 1, T, T), and the position
    of each token in its document, int64 (B, T). <|endoftext|> is the first token of the document
    that follows it."""
    starts = x == end_of_text
    document = starts.cumsum(1, dtype=np.int32)
    mask = document[:, None, :, None] == document[:, None, None, :]
    mask &= np.tri(x.shape[1], dtype=bool)          # in place: a quarter of the time of tril()
    at = np.arange(x.shape[1])
    return mask, at - np.maximum.accumulate(np.where(starts, at, 0), axis=1)


class Objective:
    """clm, mlm or span: makes inputs, targets and masks. n_text: text tokens in a sequence."""

    def __init__(self, name, document_mask, tokenizer, block_size, seed):
        self.name = name
        self.block_size = block_size
        self.seed = seed
        self.special = tokenizer.special                # {name: id}
        self.n_ordinary = tokenizer.vocab_size - len(tokenizer.special)
        self.n_text = span_lengths(block_size)[0] if name == 'span' else block_size
        require(name == 'clm' or not document_mask,
                f'document_mask=True needs --objective=clm, not {name}')

    def apply(self, x, y, rows, step=None):
        """Return the arguments of model.forward for text x and its next tokens y, int64 (B,
        n_text) each: inputs and targets, with span also a mask, with document_mask a mask and
        positions. rows: row numbers in the batch of a step, or if step is None, block numbers of
        an evaluation."""
        x = x.numpy()
        step = EVALUATION if step is None else step
        if self.name == 'mlm':
            arrays = hide_tokens(x, self.seed, step, rows, self.special, self.n_ordinary)
        elif self.name == 'span':
            x, y, n_prefix = hide_spans(x, self.seed, step, rows, self.special, self.block_size)
            mask = np.tri(x.shape[1], dtype=bool)
            mask[:n_prefix, :n_prefix] = True                        # bidirectional
            arrays = x, y, mask[None, None]                             # (1, 1, T, T)
        else:
            mask, positions = document_mask(x, self.special['<|endoftext|>'])
            arrays = x, y.numpy(), mask, positions                      # (B, 1, T, T), (B, T)
        return [torch.from_numpy(array) for array in arrays]
