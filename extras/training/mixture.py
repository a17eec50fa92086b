"""
Weighted sources, for clean.py, prepare.py and train.py: a source is sampled in proportion to its
weight. Replay, for sft.py --replay: fine-tuning also trains on some of the base model's data, so
that the model forgets less of it.

    python clean.py config/mix.py --out_dir=data/mix_clean    # sources = {'web': ('PATH', 50), ...}
    python prepare.py --source=data/mix_clean --out_dir=data/mix
    python prepare.py --source=data/mix_clean --temperature=2   # no weights: flatten the sizes
    python sft.py --base_dir=data/quickstart --replay=2         # adds two sequences to each step

    passes_of({'web': 900, 'books': 100}, {'web': 50, 'books': 50})    # {'web': 0.56, 'books': 5.0}

train.bin has each source once, one after the other, and an epoch reads as many tokens as train.bin
has. With 900 tokens of web and 100 of books, both of weight 50, an epoch reads 500 of each: 500 /
900 = 0.56 passes over web and 500 / 100 = 5 over books. Sequences start at evenly spaced tokens of
a source, so the sequences of books overlap, and each pass cuts the text at other tokens. After four
passes, a text teaches little (arXiv:2305.16264).

Every token of replayed text is a target, so replay has a larger weight than it seems. If answers in
32 conversations have 40 tokens each, they are 1,280 targets. replay=2 with block_size=256 adds 512,
which is 29% of the step's targets.
"""
import functools, hashlib, json, math, pathlib, re
import numpy as np
from configurator import require


def is_weight(value):
    return type(value) in (int, float) and 0 < value < math.inf


# --- clean.py: several sources --------------------------------------------------------------------
def sources_of(sources):
    """Return {'web': {'path', 'weight'}} for {'web': ('PATH', 50)}. The weight of a plain 'PATH' is
    1, and None leaves it to prepare.py."""
    result = {}
    for name, value in sources.items():
        path, weight = value if isinstance(value, tuple | list) else (value, 1)
        require(isinstance(name, str) and re.fullmatch(r'[\w.-]+', name) and type(path) is str and (
            weight is None or is_weight(weight)),
            f"sources[{name!r}]={value!r} must look like 'name': ('path', weight), with a name for "
            'a file (letters, digits, _ . -) and a positive weight or None')
        result[name] = {'path': path, 'weight': weight}
    require(len({source['weight'] is None for source in result.values()}) == 1,
            f'{sources=} must name a source, and give a weight to all sources or to none')
    return result


# --- prepare.py: from weights to passes -----------------------------------------------------------
def check(sources, weights, temperature, write):
    """Refuse weights and settings that don't fit together. sources: {name: {'weight', ...}} from
    clean.py. weights: {name: weight} to use instead, or None."""
    require(len(sources) > 1, 'weights and --temperature need several sources; name them in a '
            "config file of clean.py: sources = {'web': ('PATH', 50), ...}")
    require(not weights or sources.keys() == weights.keys() and all(
        map(is_weight, weights.values())),
        f'{weights=} must give a positive number to each of {", ".join(sources)}')
    given = weights or [*filter(None, (source.get('weight') for source in sources.values()))]
    require(temperature == 1 or not given, '--temperature needs sources without weights')
    require(write == 'bins' or not given and temperature == 1, 'a stream reads each source '
            "once: use --write=bins, or clean again without weights: {'web': ('PATH', None), ...}")


def passes_of(n_tokens, weights):
    """Return how many passes an epoch makes over each source. n_tokens, weights: {name: number}."""
    epoch = sum(n_tokens.values()) / sum(weights.values())      # tokens that a weight of 1 reads
    return {name: round(weights[name] * epoch / n, 6) for name, n in n_tokens.items()}


def add_passes(sources, weights, temperature):
    """Add 'weight' and 'passes' to each source, in place. weights: {name: weight} or None. Without
    weights, weight = tokens ** (1 / temperature), so temperature=2 takes square roots."""
    n_tokens = {name: source['tokens'] for name, source in sources.items()}
    weights = {name: (weights or {}).get(name) or source.get('weight')
               or source['tokens'] ** (1 / temperature) for name, source in sources.items()}
    for name, passes in passes_of(n_tokens, weights).items():
        sources[name] |= {'weight': weights[name], 'passes': passes}


# --- train.py: from passes to sequences -----------------------------------------------------------
def n_sequences(source, T):
    """Return how many sequences of T tokens an epoch reads from a source."""
    return max(1, round(source['passes'] * source['tokens'] / T))


def weighted(sources, T):
    """Return the epoch_starts() of a mixture. sources: {name: {'tokens': ..., 'passes': ...}}, in
    the order of train.bin. A source shorter than a sequence is refused, because its sequences
    would continue in the next source."""
    for name, source in sources.items():
        n = source['tokens']
        require(n > T, f'the source {name} has {n} tokens to train on, fewer than a sequence with '
                f'its last target, {T + 1}: lower --block_size, add text, or remove the source')

    @functools.lru_cache(3)         # as in train.py: 8 bytes a sequence
    def epoch_starts(epoch, n_tokens, T, seed):
        """Return the offsets of an epoch's sequences, in the order in which they are read, int64
        (n,)."""
        starts, begin = [], 0
        for source in sources.values():
            n = n_sequences(source, T)
            n_starts = source['tokens'] - T             # possible starts
            # Starts are evenly spaced, and by the golden ratio, epochs interleave theirs.
            phase = (seed + epoch) * 0.618034 % 1
            spread = (np.arange(n) + phase) * n_starts / n
            starts.append(np.minimum(begin + spread.astype(np.int64), n_tokens - T - 1))
            begin += source['tokens']
        return np.random.default_rng([seed, epoch]).permutation(np.concatenate(starts))

    return epoch_starts


def described(sources, n_read, T):
    """Return a line per source for a run that reads n_read sequences of T tokens, such as 'web:
    80.0% of the tokens, read 1.60 times'."""
    n_epoch = sum(n_sequences(source, T) for source in sources.values())
    lines = []
    for name, source in sources.items():
        part = n_sequences(source, T) / n_epoch
        passes = part * n_read * T / source['tokens']
        note = ', more than 4: the model may memorize it' if passes > 4 else ''
        lines.append(f'{name}: {part:.1%} of the tokens, read {passes:.2f} times{note}')
    return '\n'.join(lines)


# --- sft.py: replay -------------------------------------------------------------------------------
class Base:
    """The base model's data as rows (ids, mask), like conversations. rows_of(step) returns training
    rows of T tokens, and val has validation rows of the context length. hash identifies replayed
    data: it is a hash of meta.json, which contains the hashes of the bins."""

    def __init__(self, base_dir, tokenizer, T, context, replay, seed):
        paths = [pathlib.Path(base_dir, name) for name in ('meta.json', 'train.bin', 'val.bin')]
        require(base_dir and all(path.exists() for path in paths), f'{base_dir=} has no meta.json, '
                f'train.bin and val.bin; {replay=} needs --base_dir=FOLDER, the data of the base '
                'model, which prepare.py wrote as its --out_dir')
        text = paths[0].read_bytes()
        meta = json.loads(text)
        require(meta.get('tokenizer_hash') == tokenizer.hash, f'{base_dir} was prepared with '
                'another tokenizer than the model; run prepare.py with the tokenizer of the model')
        sources = meta['sources']
        self.train, val = (np.memmap(path, meta['dtype'], 'r') for path in paths[1:])
        require(len(self.train) > T and len(val) > context, f'{base_dir} needs more than {T} '
                f'tokens in train.bin and {context} in val.bin; prepare more text')
        if len(sources) < 2:
            sources = {'all': {'tokens': len(self.train), 'passes': 1}}
        self.T, self.replay, self.seed = T, replay, seed
        self.epoch_starts = weighted(sources, T)
        self.n_blocks = len(self.epoch_starts(0, len(self.train), T, seed))
        self.hash = hashlib.sha256(text).digest() if replay else b''
        # about 16,384 tokens of val.bin, always the same, spread evenly over it
        n_blocks = (len(val) - 1) // context
        blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, 16_384 // context)))
        self.val = [row(val, i * context, context) for i in blocks.astype(int)]
        text_bytes = np.array(tokenizer.text_bytes)                                     # (V,)
        n_bytes = sum(text_bytes[ids[1:]].sum() for ids, mask in self.val)
        self.tokens_per_byte = len(self.val) * context / max(1, n_bytes)

    def bits_per_byte(self, nats):
        """Return the loss in bits per byte of text, given the loss in nats per token."""
        return float(nats / math.log(2) * self.tokens_per_byte)

    def rows_of(self, step):
        """Return the training rows that are added to a step."""
        starts = [self.epoch_starts(i // self.n_blocks, len(self.train), self.T, self.seed)[
                  i % self.n_blocks] for i in range(step * self.replay, (step + 1) * self.replay)]
        return [row(self.train, start, self.T) for start in starts]


def row(ids, start, T):
    """Return T inputs and a last target, and a mask that trains on every token."""
    return ids[start:start + T + 1].astype(np.int32), np.ones(T + 1, bool)
