"""
The order of a mixture of sources, each of which is read as often as its weight says.

    python prepare.py config/mix.py
    python train.py --data_dir=data/mix

    starts_of = weighted(meta['sources'])       # in place of the function of train.py
    starts_of(epoch=0, n_tokens=10_000, T=256, seed=1337)

train.bin has each source once, one after the other, and meta.json says how many tokens it has, and
how many passes over it an epoch makes. 2.5 passes over 4 blocks of T tokens make 10 sequences: each
block twice, and two of them, which are others in each epoch, a third time.
"""
import functools
import numpy as np


def weighted(sources):
    """Return a starts_of() for sources, {name: {'tokens': ..., 'passes': ...}}, in their order in
    train.bin."""
    @functools.lru_cache(2)         # 8 bytes a sequence
    def starts_of(epoch, n_tokens, T, seed):
        """Return where the sequences of an epoch begin, in the order in which they are read, int64
        (n,)."""
        shuffled = lambda n: np.random.default_rng([seed, epoch]).permutation(n)
        starts, begin = [], 0
        for source in sources.values():
            n = max(1, source['tokens'] // T - 1)
            blocks = np.arange(max(1, round(source['passes'] * n))) % n
            rest = len(blocks) % n              # the last pass may be a part of one
            blocks[len(blocks) - rest:] = shuffled(n)[:rest]
            shift = shuffled(max(1, source['tokens'] - n * T))[0]
            starts.append(np.minimum(begin + shift + blocks * T, n_tokens - T - 1))
            begin += source['tokens']
        starts = np.concatenate(starts)
        return starts[shuffled(len(starts))]

    return starts_of


def described(sources, epochs):
    """Return lines about a run of so many epochs: 'web: 80.0% of the tokens, read 1.60 times'. After
    four passes, a text teaches ever less (arXiv:2305.16264)."""
    n = sum(source['tokens'] * source['passes'] for source in sources.values())
    lines = []
    for name, source in sources.items():
        passes = source['passes'] * epochs
        lines.append(f'{name}: {source["tokens"] * source["passes"] / n:.1%} of the tokens, read '
                     f'{passes:.2f} times' + ', more than 4: it may be learned by heart' * (passes > 4))
    return '\n'.join(lines)
