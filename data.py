"""
Prepared data, as the trainers read it: memory-mapped bins, and the order in which their blocks are visited.

    meta, bins = open_bins('data/quickstart', block_size=256)
    starts = sequence_starts(step=0, batch_size=8, n_tokens=len(bins['train']), block_size=256, seed=1337)
    x, y = sequences(bins['train'], starts, block_size=256)         # (8, 256) each, y one token later than x

The order is computed, not stored: which sequences make up a step follows from (seed, step) alone. So a run
can be resumed at any step, a batch that hurt can be looked at again, and the memory needed does not grow with
the corpus.

Copy this file alone: it needs numpy.
"""
import json, os
import numpy as np


def open_bins(data_dir, block_size):
    """meta.json and {'train', 'val'} as memory-mapped arrays of token ids, checked against it. What is read
    of a memory map can be dropped again by the system, so a corpus larger than memory is no problem."""
    meta_path = os.path.join(data_dir, 'meta.json')
    if not os.path.exists(meta_path):
        raise FileNotFoundError(f'{data_dir} holds no prepared data (no meta.json); '
                                f'run: python prepare.py --out_dir={data_dir}')
    try:
        with open(meta_path, encoding='utf-8') as f:
            meta = json.load(f)
        itemsize = np.dtype(meta['dtype']).itemsize
        tokens = {side: meta['tokens'][side] for side in ('train', 'val')}
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f'{meta_path} is damaged ({type(e).__name__}: {e}); run prepare.py again') from e
    bins = {}
    for side, n in tokens.items():
        path = os.path.join(data_dir, f'{side}.bin')
        found = os.path.getsize(path)
        if found != n * itemsize:
            raise ValueError(f'{path} has {found:,} bytes, meta.json says {n * itemsize:,}: it is cut off or '
                             'from another run; run prepare.py again')
        if n < block_size + 1:
            raise ValueError(f'{path} has {n:,} tokens, fewer than a sequence of block_size={block_size} and '
                             'its target; lower --block_size or prepare more text')
        bins[side] = np.memmap(path, meta['dtype'], mode='r')
    return meta, bins


def sequences(data, starts, block_size):
    """Inputs and targets at the given starts: two int64 arrays (B, T), the second one token later."""
    rows = np.stack([data[s:s + block_size + 1] for s in starts]).astype(np.int64)      # +1: the last target
    return rows[:, :-1], rows[:, 1:]


def sequence_starts(step, batch_size, n_tokens, block_size, seed):
    """Where the sequences of a step begin, (batch_size,) int64. An epoch visits every block of block_size
    tokens once, in an order of its own, and shifts all blocks by an offset of its own, so that repeated data
    are not cut the same way again."""
    n_blocks = np.uint64((n_tokens - 1) // block_size)
    i = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
    epoch_key = (i // n_blocks + np.uint64(seed) * np.uint64(1_000_003)) * np.uint64(0xD6E8FEB86659FD93)
    offset = (epoch_key >> np.uint64(33)) % np.uint64(block_size)
    starts = permute(i % n_blocks, n_blocks, epoch_key) * np.uint64(block_size) + offset
    return (starts % np.uint64(n_tokens - block_size)).astype(np.int64)     # what passes the end wraps around


def permute(i, n, key):
    """Entry i of a pseudo-random permutation of range(n) that depends on key; i and key are uint64 arrays of
    one shape. Each entry is computed alone, without a list of n. A 4-round Feistel network permutes the
    numbers of 2b bits (Luby & Rackoff 1988); applied again to whatever falls outside range(n), it permutes
    range(n)."""
    b = np.uint64(max(1, (int(n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(b)) - 1)

    def scramble(x):
        left, right = x >> b, x & mask
        for round_ in range(4):         # with SplitMix64's finalizer (Steele et al. 2014) as round function
            h = key + (right * np.uint64(4) + np.uint64(round_)) * np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left, right = right, left ^ ((h ^ (h >> np.uint64(31))) & mask)
        return (left << b) | right

    x = scramble(i)
    while (outside := x >= n).any():
        x = np.where(outside, scramble(x), x)
    return x
