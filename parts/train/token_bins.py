"""
Training data: memory-mapped token bins, the order of their blocks, and batches that are loaded early.

    meta, bins = open_bins('data/quickstart', block_size=256)
    starts = sequence_starts(step=0, batch_size=8, n_tokens=len(bins['train']), block_size=256, seed=1337)
    x, y = sequences(bins['train'], starts, block_size=256)         # (8, 256) each, y one token later than x

The decision made here is the order: which text is seen at which step follows from the seed alone. It is
computed, not stored. So a run can be resumed at any step, a batch that hurt can be looked at again, and no
corpus is too large for memory.
"""
import hashlib, json, os, shlex
import numpy as np

EVALUATION = 2 ** 40    # a step that no run reaches: the tokens hidden in it are those of every evaluation

# --- bins ---------------------------------------------------------------------------------------------------
def open_bins(data_dir, block_size, sides=('train', 'val'), data_from=''):
    """meta.json, and {side: memory-mapped array of token ids}, whose sizes and hashes are checked. The system
    can drop pages of a memory map, so a corpus may exceed memory. data_from: a command that may make it."""
    meta_path = os.path.join(data_dir, 'meta.json')
    if not os.path.exists(meta_path):
        own = f'python prepare.py --source=FILE --out_dir={shlex.quote(str(data_dir))}'
        make = data_from if str(data_dir) in data_from else own
        raise FileNotFoundError(f'{data_dir} holds no prepared data (no meta.json); run: {make}')
    try:
        with open(meta_path, encoding='utf-8') as f:
            meta = json.load(f)
        kind = meta.get('config', {}).get('kind', 'text')
        if kind == 'text':
            itemsize = np.dtype(meta['dtype']).itemsize
            tokens = {side: int(meta['tokens'][side]) for side in sides}
            meta['sha256'] = dict(meta.get('sha256', {}))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f'{meta_path} is damaged ({type(e).__name__}: {e}); run prepare.py again') from e
    if kind != 'text':
        raise ValueError(f'{data_dir} holds {kind} data, for sft.py or dpo.py; expected tokens (--kind=text)')

    bins = {}
    for side, n in tokens.items():
        path = os.path.join(data_dir, f'{side}.bin')
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path} does not exist; --streaming={data_dir}/shards reads what was '
                                    'prepared with --write=text')
        size = os.path.getsize(path)
        if size != n * itemsize:
            raise ValueError(f'{path} has {size:,} bytes, meta.json says {n * itemsize:,}; run prepare.py '
                             'again')
        if n < block_size + 1:
            raise ValueError(f'tokens in {path}: {n:,}, fewer than a sequence of block_size={block_size} and '
                             'its target; lower --block_size or prepare more text')
        bins[side] = open_bin(path, meta, side)
    return meta, bins


def open_bin(path, meta, side):
    """A bin as a memory map. ValueError if its hash is not the one in meta.json. Of a bin above 256 MB only
    samples are hashed, so a small change in it can go unnoticed."""
    is_large = os.path.getsize(path) > 1 << 28
    wanted = meta.get('sampled_sha256' if is_large else 'sha256', {}).get(side)
    if wanted and sha256(path, is_large) != wanted:
        raise ValueError(f'{path} is not the file that prepare.py wrote: its SHA-256 is not the one in '
                         'meta.json; run prepare.py again')
    return np.memmap(path, meta['dtype'], mode='r')


def sha256(path, sampled=False):
    """The SHA-256 of a file, or of the first MB in each 64 MB of it."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        for start in range(0, os.path.getsize(path), 1 << (26 if sampled else 20)):
            f.seek(start)
            digest.update(f.read(1 << 20))
    return digest.hexdigest()


def open_sources(data_dir, meta, block_size):
    """{source: ids of its validation set} of a mixture, as memory maps, of those with a whole sequence."""
    names = meta.get('sources', {})
    ids = {}
    for name in names if len(names) > 1 else ():
        path = os.path.join(data_dir, f'val_{name}.bin')
        if os.path.getsize(path) > (block_size + 1) * np.dtype(meta['dtype']).itemsize:
            ids[name] = open_bin(path, meta, f'val_{name}')
    return ids


def sequences(ids, starts, block_size):
    """Inputs and targets at these starts of a bin: two int64 arrays (B, T), the second one token later."""
    rows = np.stack([ids[s:s + block_size + 1] for s in starts]).astype(np.int64)           # (B, T + 1)
    return rows[:, :-1], rows[:, 1:]


def evaluation_blocks(ids, block_size, n_tokens, micro_batch_size=1, rank=0, world=1):
    """The blocks of an evaluation, about n_tokens in all, always the same, spread evenly over the bin. Yields
    this process's blocks, micro_batch_size at a time: where they begin, int64, and whether they count: a
    process that has no block left gets one that does not, for FSDP needs all in each forward pass."""
    n_blocks = (len(ids) - 1) // block_size
    blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, n_tokens // block_size)))
    starts = blocks.astype(np.int64) * block_size
    mine = starts[rank::world]
    for i in range(0, len(starts[::world]), micro_batch_size):
        part = mine[i:i + micro_batch_size]
        yield (part, True) if len(part) else (starts[:1], False)


def sequence_starts(step, batch_size, n_tokens, block_size, seed, shuffle=True):
    """Where the sequences of a step begin, (batch_size,) int64. An epoch visits every block of block_size
    tokens once, in an order of its own, and shifts all blocks by an offset of its own, so that repeated data
    are not cut the same way again. Without shuffle: the blocks as they lie in the file."""
    n_blocks = np.uint64((n_tokens - 1) // block_size)
    i = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.uint64)
    if not shuffle:
        return (i % n_blocks * np.uint64(block_size)).astype(np.int64)
    epoch_key = (i // n_blocks + np.uint64(seed) * np.uint64(1_000_003)) * np.uint64(0xD6E8FEB86659FD93)
    offset = (epoch_key >> np.uint64(33)) % np.uint64(block_size)
    starts = permute(i % n_blocks, n_blocks, epoch_key) * np.uint64(block_size) + offset
    return (starts % np.uint64(n_tokens - block_size)).astype(np.int64)     # past the end: wrap around


def permute(i, n, key):
    """Entry i of a pseudo-random permutation of range(n) that depends on key; i and key are uint64 arrays of
    one shape. Each entry is computed alone. A 4-round Feistel network permutes the numbers of 2b bits (Luby
    & Rackoff 1988); applied again to what falls outside range(n), it permutes range(n)."""
    b = np.uint64(max(1, (int(n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(b)) - 1)

    def scramble(x):
        left, right = x >> b, x & mask
        for round_ in range(4):
            h = mix(key + (right * np.uint64(4) + np.uint64(round_)) * np.uint64(0x9E3779B97F4A7C15))
            left, right = right, left ^ (h & mask)
        return (left << b) | right

    x = scramble(i)
    while (outside := x >= n).any():
        x = np.where(outside, scramble(x), x)
    return x


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): every bit of the result depends on every bit of h."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


# --- batches ------------------------------------------------------------------------------------------------
class Blocks:
    """The sequences of a bin, in the order that follows from the seed. A source for Loader, as a Stream."""

    def __init__(self, ids, block_size, batch_size, seed, shuffle=True):
        self.ids = ids
        self.block_size = block_size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle

    def starts(self, step):
        return sequence_starts(step, self.batch_size, len(self.ids), self.block_size, self.seed, self.shuffle)

    def take(self, step, rows):
        """Inputs and targets, int64 (B, T), of these rows of a step's global batch."""
        return sequences(self.ids, self.starts(step)[rows], self.block_size)

    def shares(self, sources, n_steps):
        """{source of a mixture: its share of the sequences of the first n_steps, at most 1,000 of them}"""
        begins = [source['begins'] for source in sources.values()]              # in train.bin
        read = np.zeros(len(sources), dtype=np.int64)
        for step in range(0, n_steps, 1 + n_steps // 1000):
            at = np.searchsorted(begins, self.starts(step), 'right') - 1
            read += np.bincount(at, minlength=len(begins))
        return dict(zip(sources, (read / max(1, read.sum())).round(4).tolist()))

    def notes(self):
        return []                       # a Stream says what it could not read


class Loader:
    """This process's micro-batches, loaded while the device works.

    A GPU runs by itself: backward() returns before the work is done. When the loop asks for the next
    micro-batch, the one before is still being computed, and this is the time to load it.

    source: Blocks or a Stream. rows: numbers of this process's sequences in the global batch, one row for
    each micro-batch, (n, B). hide(x, y, step, rows): the arguments of model.forward; to_device moves them.
    stopwatch: a context that measures the seconds of loading. place: (rank, world)."""

    def __init__(self, source, rows, hide, to_device, stopwatch, place=(0, 1)):
        self.source = source
        self.rows = rows
        self.hide = hide
        self.to_device = to_device
        self.stopwatch = stopwatch
        self.place = place
        self.ready = {}             # (step, i) -> the micro-batch that was loaded early

    def load(self, step, i):
        if (step, i) not in self.ready:
            with self.stopwatch():
                x, y = self.source.take(step, self.rows[i])                                 # (B, T) each
                self.ready = {(step, i): self.to_device(self.hide(x, y, step, self.rows[i]))}
        return self.ready[step, i]

    def batches(self, step, max_steps):
        """Yield the micro-batches of a step. The first one of the next step is loaded with the last."""
        for i in range(len(self.rows)):
            yield self.load(step, i)
            if i + 1 < len(self.rows):
                self.load(step, i + 1)
            elif step + 1 < max_steps:
                self.load(step + 1, 0)

    def evaluation(self, ids, n_tokens):
        """Yield batches as evaluation_blocks() does, with the same tokens hidden each time."""
        T = self.source.block_size
        for starts, counts in evaluation_blocks(ids, T, n_tokens, self.rows.shape[1], *self.place):
            x, y = sequences(ids, starts, T)                                                # (B, T) each
            yield self.to_device(self.hide(x, y, EVALUATION, starts)), counts

    def seek(self, positions):
        """Continue where the sources of all processes were, at a checkpoint."""
        if positions:
            self.source.seek(positions[self.place[0]])
        self.ready = {}

    def show(self, step, tokenizer):
        for i, rows in enumerate(self.rows):
            for row, x in zip(rows, self.load(step, i)[0]):
                print(f'--- step {step}, sequence {row} of {self.rows.size * self.place[1]}')
                print(tokenizer.decode(x.tolist()))


def described(meta, n_text, batch_size, epochs):
    """'tokens: 4,096, sequences: 16, steps an epoch: 2.0, epochs: 1.50; tokens held out: 512'"""
    n = meta['tokens']['train']
    return (f'tokens: {n:,}, sequences: {n / n_text:,.0f}, steps an epoch: {n / n_text / batch_size:,.1f}, '
            f'epochs: {epochs:.2f}; tokens held out: {meta["tokens"]["val"]:,}')


def repeats(meta, epochs, measured):
    """A line for each source of a mixture: its share of the tokens, how often a run reads it, and whether it
    is among the `measured`. Data that are read more than about four times help less (arXiv:2305.16264)."""
    if epochs > 4:
        yield (f'the data are read {epochs:.0f} times; beyond about 4 that helps less and less: a smaller '
               'model in fewer steps may be as good')
    sources = meta.get('sources', {})
    for name, source in sources.items() if len(sources) > 1 else ():
        times = source['epochs'] * epochs
        share = source['mixed'] / meta['tokens']['train']
        warning = ', and beyond 4 that helps less and less' if times > 4 else ''
        if name not in measured:
            warning += f'; val_{name}.bin has no whole sequence, so no figure measures this source'
        yield f'{name}: {share:.1%} of the tokens, read {times:.2f} times{warning}'
