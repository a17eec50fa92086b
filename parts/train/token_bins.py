"""
Training data: memory-mapped token bins, the order of their blocks, and text that is tokenised on the fly.

    meta, bins = open_bins('data/quickstart', block_size=256)
    starts = sequence_starts(step=0, batch_size=8, n_tokens=len(bins['train']), block_size=256, seed=1337)
    x, y = sequences(bins['train'], starts, block_size=256)         # (8, 256) each, y one token later than x

The decision made here is the order: which text is seen at which step follows from the seed alone. It is
computed, not stored. So a run can be resumed at any step, a batch that hurt can be looked at again, and no
corpus is too large for memory. A Stream reads text that was never made into bins, and knows where it is.

Copy this file alone: it needs numpy.
"""
import glob, gzip, hashlib, json, os, shlex, zlib
import numpy as np

# --- bins ---------------------------------------------------------------------------------------------------
def open_bins(data_dir, block_size, sides=('train', 'val')):
    """meta.json, and {side: memory-mapped array of token ids}, whose sizes are checked. The system can drop
    pages of a memory map again, so a corpus may be larger than memory."""
    meta_path = os.path.join(data_dir, 'meta.json')
    if not os.path.exists(meta_path):
        raise FileNotFoundError(f'{data_dir} holds no prepared data (no meta.json); run: python prepare.py '
                                f'--source=PATH_OF_A_TEXT --out_dir={shlex.quote(data_dir)}')
    try:
        with open(meta_path, encoding='utf-8') as f:
            meta = json.load(f)
        if (kind := meta.get('config', {}).get('kind', 'text')) == 'text':
            itemsize = np.dtype(meta['dtype']).itemsize
            tokens = {side: meta['tokens'][side] for side in sides}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f'{meta_path} is damaged ({type(e).__name__}: {e}); run prepare.py again') from e
    if kind != 'text':
        raise ValueError(f'{data_dir} holds {kind} data, for sft.py or dpo.py; expected tokens (--kind=text)')
    bins = {}
    for side, n in tokens.items():
        path = os.path.join(data_dir, f'{side}.bin')
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path} does not exist; if the data were prepared with --write=text, '
                                    f'python train.py --data_dir={data_dir} --streaming={data_dir}/shards '
                                    'reads them')
        found = os.path.getsize(path)
        if found != n * itemsize:
            raise ValueError(f'{path} has {found:,} bytes, meta.json says {n * itemsize:,}: it is cut off or '
                             'from another run; run prepare.py again')
        if n < block_size + 1:
            raise ValueError(f'{path} has {n:,} tokens, fewer than a sequence of block_size={block_size} and '
                             'its target; lower --block_size or prepare more text')
        bins[side] = np.memmap(path, meta['dtype'], mode='r')
    return meta, bins


def open_sources(data_dir, meta, block_size):
    """{'val_<source>': ids} of a mixture, as memory maps; {} if the data have one source. A source with fewer
    tokens than a sequence is left out."""
    names = meta.get('sources', {})
    found = {}
    for name in names if len(names) > 1 else ():
        path = os.path.join(data_dir, f'val_{name}.bin')
        if os.path.getsize(path) > (block_size + 1) * np.dtype(meta['dtype']).itemsize:
            found[f'val_{name}'] = np.memmap(path, meta['dtype'], mode='r')
    return found


def sequences(data, starts, block_size):
    """Inputs and targets at the given starts: two int64 arrays (B, T), the second one token later. data: a
    bin, or a list with the bin of each row."""
    bins = data if isinstance(data, list) else [data] * len(starts)
    rows = [ids[s:s + block_size + 1].astype(np.int64) for ids, s in zip(bins, starts)]     # +1: last target
    rows = np.stack(rows)                                                                   # (B, T + 1)
    return rows[:, :-1], rows[:, 1:]


def spread(data, block_size, n_tokens, micro_batch_size=1, rank=0, world=1):
    """The blocks of an evaluation, about n_tokens in all, always the same, spread evenly over the bin. Yields
    this process's blocks, micro_batch_size at a time: where they begin, int64, and whether they count. FSDP
    needs all processes in each forward pass, so a process that has no block left gets one that does not
    count."""
    n_blocks = (len(data) - 1) // block_size
    blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, n_tokens // block_size)))
    starts = blocks.astype(np.int64) * block_size
    mine = starts[rank::world]
    for i in range(0, len(starts[::world]), micro_batch_size):
        part = mine[i:i + micro_batch_size]
        yield (part, True) if len(part) else (starts[:1], False)


def open_replay(replay_dir, block_size, n_replay, batch_size):
    """The training bin of earlier data, of which n_replay sequences of a step are taken, and its
    meta.json."""
    if not 0 < n_replay < batch_size:
        raise ValueError(f'replay_dir={replay_dir}: replay must make 1 to {batch_size - 1} of the '
                         f'{batch_size} sequences of a step, not {n_replay}; a stream has no replay')
    meta, bins = open_bins(replay_dir, block_size, ('train',))
    return bins['train'], meta


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
    one shape. Each entry is computed alone, without a list of n. A 4-round Feistel network permutes the
    numbers of 2b bits (Luby & Rackoff 1988). It is applied again to each number that falls outside range(n);
    so it permutes range(n)."""
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


def check_tokenizer(data_dir, tokenizer, vocab_size, sample_prompt):
    """Refuse data with another vocabulary size than the config asks for (0: any). Refuse a sample_prompt that
    the tokenizer of the data cannot encode: better now than in the middle of a run."""
    tokenizer.encode(sample_prompt)
    found = tokenizer.vocab_size
    if vocab_size not in (0, found):
        raise ValueError(f'vocab_size={vocab_size}, but the data in {data_dir} have {found}; leave it at 0, '
                         f'or prepare them with --vocab_size={vocab_size}')


# --- streams: text that was never made into bins ------------------------------------------------------------
def open_shards(streaming, rank, world, data_dir, meta):
    """This process's .jsonl and .json files, gzipped or not, of a folder or a glob, and {name: SHA-256} of
    them. Each is read once from end to end for its hash, 1.5 GB a second. data_dir/shards must hold the
    shards that meta.json lists, if it lists any."""
    pattern = os.path.join(glob.escape(streaming), '*') if os.path.isdir(streaming) else streaming
    shards = sorted(p for p in glob.glob(pattern) if p.removesuffix('.gz').endswith(('.jsonl', '.json')))
    if len(shards) < world:
        raise ValueError(f'streaming={streaming} has {len(shards)} shards (.jsonl or .json, also .gz), '
                         f'{world} processes need one each; prepare.py --write=text makes them')
    hashes = {}
    for path in shards[rank::world]:
        digest = hashlib.sha256()       # hashlib.file_digest would need Python 3.11
        with open(path, 'rb') as f:
            for block in iter(lambda: f.read(1 << 20), b''):
                digest.update(block)
        hashes[os.path.basename(path)] = digest.hexdigest()
    folder = os.path.join(data_dir, 'shards')
    listed = {shard['name']: shard['sha256'] for shard in meta.get('shards', {}).get('train', ())}
    if listed and os.path.realpath(os.path.dirname(shards[0])) == os.path.realpath(folder):
        other = [name for name in hashes if listed.get(name) != hashes[name]]
        if os.path.isdir(streaming):
            other += listed.keys() - {os.path.basename(path) for path in shards}
        if other:
            raise ValueError(f'{os.path.join(folder, min(other))} is not the shard that meta.json lists; run '
                             'prepare.py again')
    return shards[rank::world], hashes


class Stream:
    """Sequences straight from text: shards of JSON lines, .jsonl or .json, gzipped or not, are read and
    tokenised on the fly, over and over, and never stored.

    stream = Stream(['a.jsonl.gz', 'b.jsonl.gz'], tokenizer.encode_batch, tokenizer.special, block_size=256)
    x, y = stream.take(8)                                           # (8, 256) each
    stream.seek(position)                       # position: what stream.state was at some time

    The first pass gives the same sequences as a bin of the same documents, in the order of the files. state
    is JSON-able: the pass, shard, line and token of the next sequence. Lines without a document and the rest
    of a damaged archive are skipped; `malformed` counts them."""

    def __init__(self, paths, encode_batch, special, block_size):
        self.paths = paths
        self.encode_batch = encode_batch
        self.block_size = block_size
        if '<|endoftext|>' not in special:
            raise ValueError('the tokenizer has no <|endoftext|>, which stands between the documents of a '
                             'stream; prepare the data with --tokenizer=bpe')
        self.end_of_text = special['<|endoftext|>']
        self.malformed = 0
        self.seek([0, 0, 0, 0])

    def seek(self, state):
        """Continue at a position."""
        self.state = list(state)
        self.documents = self._documents(*state)
        self.waiting = []                   # [position, ids] of documents that were read and not yet taken

    def remarks(self):
        return [f'{self.malformed} lines or archives could not be read'] if self.malformed else []

    def _documents(self, epoch, first, line, token):
        """Yield the position and the ids of each document, from a position on, without end."""
        while True:
            found = False
            for shard in range(first, len(self.paths)):
                path = self.paths[shard]
                try:
                    with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
                        for number, data in enumerate(f):
                            if number < line or not data.strip():
                                continue
                            try:
                                record = json.loads(data.decode())
                                if isinstance(record, dict):
                                    record = record.get('text', record.get('content'))
                                text = record + ''                        # a TypeError if it is not a text
                                ids = self.encode_batch([text])[0] + [self.end_of_text]
                            except (ValueError, TypeError, RecursionError):     # not JSON, or no text in it
                                self.malformed += 1
                                continue
                            found = True
                            yield [epoch, shard, number, token], ids[token:]
                            line = token = 0
                except (EOFError, gzip.BadGzipFile, zlib.error):                # cut off
                    self.malformed += 1
                line = token = 0
            if not found and first == 0:
                raise ValueError(f'{", ".join(self.paths[:3])}...: no line has a text or content')
            epoch = epoch + 1
            first = 0

    def take(self, n):
        """The next n inputs and targets, two int64 arrays (n, T). The last target is the next input."""
        size = n * self.block_size
        have = sum(len(ids) for _, ids in self.waiting)
        while have <= size:                             # one more than size: the last target
            position, ids = next(self.documents)
            self.waiting.append([position, ids])
            have += len(ids)
        data = np.concatenate([ids for _, ids in self.waiting])[:size + 1].astype(np.int64)     # (n T + 1,)
        while size >= len(self.waiting[0][1]):          # drop the documents that are used up
            size -= len(self.waiting.pop(0)[1])
        position, ids = self.waiting[0]
        self.state = [*position[:3], position[3] + size]
        self.waiting[0] = [self.state, ids[size:]]
        return data[:-1].reshape(n, -1), data[1:].reshape(n, -1)
