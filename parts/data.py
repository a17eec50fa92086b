"""
Data on the disk: how prepare.py writes it, with an account of what was dropped, and how the trainers read it:
memory-mapped bins, and the order in which their blocks are visited.

    meta, bins = open_bins('data/quickstart', block_size=256)
    starts = sequence_starts(step=0, batch_size=8, n_tokens=len(bins['train']), block_size=256, seed=1337)
    x, y = sequences(bins['train'], starts, block_size=256)         # (8, 256) each, y one token later than x

The order is computed, not stored: which sequences make up a step follows from (seed, step) alone. So a run
can be resumed at any step, a batch that hurt can be looked at again, and the memory needed does not grow with
the corpus. A Stream reads text that was never made into bins, and remembers where it is.

Copy this file alone: it needs numpy and tqdm.
"""
import atexit, collections, concurrent.futures, gzip, hashlib, json, multiprocessing, os, threading, time
import zlib
import numpy as np
from tqdm import tqdm

PIECE = 16_000_000              # characters, bytes or tokens held in memory at once

# --- reading ------------------------------------------------------------------------------------------------


def open_bins(data_dir, block_size, sides=('train', 'val')):
    """meta.json and {'train', 'val'} as memory-mapped arrays of token ids, checked against it. What is read
    of a memory map can be dropped again by the system, so a corpus larger than memory is no problem."""
    meta_path = os.path.join(data_dir, 'meta.json')
    if not os.path.exists(meta_path):
        raise FileNotFoundError(f'{data_dir} holds no prepared data (no meta.json); '
                                f'run: python prepare.py --out_dir={data_dir}')
    try:
        with open(meta_path, encoding='utf-8') as f:
            meta = json.load(f)
        if (kind := meta.get('config', {}).get('kind', 'text')) == 'text':
            itemsize = np.dtype(meta['dtype']).itemsize
            tokens = {side: meta['tokens'][side] for side in sides}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f'{meta_path} is damaged ({type(e).__name__}: {e}); run prepare.py again') from e
    if kind != 'text':
        raise ValueError(f'{data_dir} holds {kind} data, for sft.py or dpo.py, and tokens are wanted')
    bins = {}
    for side, n in tokens.items():
        path = os.path.join(data_dir, f'{side}.bin')
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path} does not exist; were the data prepared with --write=text? Then '
                                    f'python train.py --streaming={data_dir}/shards reads them')
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
    return (starts % np.uint64(n_tokens - block_size)).astype(np.int64)     # what passes the end wraps around


def batches_by_length(epoch, lengths, batch_size, seed):
    """The batches of an epoch, (n // batch_size, batch_size): every one of n rows at most once, at random,
    but with others of about its length, so that little is padded: within 32 batches they are sorted. What
    is left over is left out of this epoch."""
    dice = np.random.default_rng([seed, epoch])
    order = np.resize(dice.permutation(len(lengths)), max(1, len(lengths) // batch_size) * batch_size)
    parts = [part[np.argsort(lengths[part], kind='stable')] for part in
             np.split(order, range(32 * batch_size, len(order), 32 * batch_size))]
    return dice.permutation(np.concatenate(parts).reshape(-1, batch_size))


def permute(i, n, key):
    """Entry i of a pseudo-random permutation of range(n) that depends on key; i and key are uint64 arrays of
    one shape. Each entry is computed alone, without a list of n. A 4-round Feistel network permutes the
    numbers of 2b bits (Luby & Rackoff 1988); applied again to whatever falls outside range(n), it permutes
    range(n)."""
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


# --- objectives: what is hidden from the model, and what it must say ----------------------------------------
# Drawn from (seed, step, row of the global batch): a batch can be made again, on any number of devices.
IGNORE = -100       # a target that is not scored


def chances(seed, step, rows, n, purpose):
    """Uniform random numbers in [0, 1), float64 (len(rows), n), that follow from the arguments alone."""
    with np.errstate(over='ignore'):
        key = mix(np.uint64(seed) * np.uint64(0xD6E8FEB86659FD93) + np.uint64(step * 4 + purpose))
        key = mix(key + np.asarray(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        h = mix(key[:, None] + np.arange(n, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9))
    return (h >> np.uint64(11)) / 2 ** 53


def hide_tokens(x, seed, step, rows, mask_id, n_ordinary, rate=0.15):
    """Masked language modelling (BERT, arXiv:1810.04805). Of the tokens x (B, T), 15 % are to be named; of
    these 80 % become mask_id, 10 % a random ordinary token, 10 % stay. Returns inputs, targets (B, T)."""
    chosen = chances(seed, step, rows, x.shape[1], 0) < rate
    how = chances(seed, step, rows, x.shape[1], 1)
    other = (chances(seed, step, rows, x.shape[1], 2) * n_ordinary).astype(np.int64)
    hidden = np.where(how < 0.8, mask_id, np.where(how < 0.9, other, x))
    return np.where(chosen, hidden, x), np.where(chosen, x, IGNORE)


def span_lengths(T, rate=0.15, mean=3):
    """For a context of T: how many tokens of text fit, how many of them are hidden, in how many spans. Inputs
    are the text without the spans, a sentinel for each, then the spans, each behind its sentinel; targets
    also a last sentinel."""
    for n_text in range(T, 1, -1):
        n_hidden = max(1, round(n_text * rate))
        n_spans = max(1, round(n_hidden / mean))
        if n_text + 2 * n_spans <= T:
            return n_text, n_hidden, n_spans
    raise ValueError(f'a context of {T} tokens is too short for span corruption')


def hide_spans(x, seed, step, rows, sentinels, T):
    """Span corruption (T5, arXiv:1910.10683), for a decoder alone: a prefix-LM. x (B, n_text) -> inputs and
    targets (B, n_text + 2 n_spans), and the length of the prefix, which may see itself in both directions
    and is not scored.

    a b c d e f g, hiding b c and f:   a <0> d e <1> g | <0> b c <1> f <2>"""
    n_text, n_hidden, n_spans = span_lengths(T)
    if n_spans >= len(sentinels):
        raise ValueError(f'a context of {T} tokens has {n_spans} spans, the tokenizer {len(sentinels)} '
                         'sentinels; lower --block_size')

    def lengths(n, n_parts, purpose):       # n cut into parts of at least 1 at random, (B, n_parts)
        u = chances(seed, step, rows, n - 1, purpose)
        cuts = np.sort(np.argsort(u, axis=1)[:, :n_parts - 1], axis=1) + 1
        ends = np.concatenate([cuts, np.full((len(cuts), 1), n)], axis=1)
        return np.diff(ends, axis=1, prepend=0)

    hidden = lengths(n_hidden, n_spans, 0)
    shown = lengths(n_text - n_hidden + 2, n_spans + 1, 1)
    shown[:, [0, -1]] -= 1                  # a span may be where the text begins or ends, and need not be
    out = []
    for tokens, gaps, spans in zip(x[:, :n_text], shown, hidden):
        prefix, answer, at = [], [], 0
        for sentinel, gap, span in zip(sentinels, gaps, spans):
            prefix += [*tokens[at:at + gap], sentinel]
            answer += [sentinel, *tokens[at + gap:at + gap + span]]
            at += gap + span
        out.append([*prefix, *tokens[at:], *answer, sentinels[n_spans]])
    out, n_prefix = np.array(out, dtype=np.int64), n_text - n_hidden + n_spans
    targets = out[:, 1:].copy()
    targets[:, :n_prefix - 1] = IGNORE
    return out[:, :-1], targets, n_prefix


def document_starts(x, end_of_text):
    """For packed documents, x (B, T): each token's document, by number, and its position in it, int64 (B, T).
    <|endoftext|> counts as the beginning of the document that follows it."""
    starts = x == end_of_text
    at = np.arange(x.shape[1])
    return starts.cumsum(1), at - np.maximum.accumulate(np.where(starts, at, 0), axis=1)


# --- streams: text that was never made into bins ------------------------------------------------------------


class Stream:
    """Sequences straight from text: shards of JSON lines, .jsonl or .json, gzipped or not, are read and
    tokenised on the fly, over and over, and never stored.

    stream = Stream(['a.jsonl.gz', 'b.jsonl.gz'], tokenizer.encode, end_of_text_id, block_size=256)
    x, y = stream.take(8)                                           # (8, 256) each
    Stream(..., state=stream.state).take(8)                         # the next ones

    In its first pass it gives what `sequences` gives of the bin that holds the same documents, in the order
    of the file. state is JSON-able: the pass, shard, line and token of the next sequence. Lines that are no
    document, and what follows the cut in a damaged archive, are passed over; `malformed` counts them."""

    def __init__(self, paths, encode, end_of_text, block_size, state=None):
        self.paths, self.encode, self.end_of_text, self.block_size = paths, encode, end_of_text, block_size
        self.state = list(state or (0, 0, 0, 0))
        self.documents = self._documents(*self.state)
        self.waiting, self.malformed = [], 0        # waiting: [position, ids] of what was read and not taken

    def _documents(self, epoch, first, line, token):
        """Without end: the position and the ids of each document, from a position on."""
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
                                ids = self.encode(record + '') + [self.end_of_text]
                            except (ValueError, TypeError, RecursionError):     # no JSON, no text in it
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
            epoch, first = epoch + 1, 0

    def take(self, n):
        """The next n inputs and targets, two int64 arrays (n, T). The last target is the next input."""
        size = n * self.block_size
        have = sum(len(ids) for _, ids in self.waiting)
        while have <= size:                             # one more than size: the last target
            position, ids = next(self.documents)
            self.waiting.append([position, ids])
            have += len(ids)
        data = np.concatenate([ids for _, ids in self.waiting])[:size + 1].astype(np.int64)
        while size >= len(self.waiting[0][1]):
            size -= len(self.waiting.pop(0)[1])
        position, ids = self.waiting[0]
        self.state = [*position[:3], position[3] + size]
        self.waiting[0] = [self.state, ids[size:]]
        return data[:-1].reshape(n, -1), data[1:].reshape(n, -1)


# --- writing ------------------------------------------------------------------------------------------------


def write_file(path, content):
    """Text, under a temporary name first: there is never half a file. Names and samples may be no Unicode."""
    with open(f'{path}.tmp', 'w', encoding='utf-8', errors='backslashreplace', newline='\n') as f:
        f.write(content)
    os.replace(f'{path}.tmp', path)


class Bin:
    """A file of the result, under a temporary name until its maker renames it."""

    def __init__(self, path):
        self.path, self.sha256, self.file = path, hashlib.sha256(), open(f'{path}.tmp', 'wb')
        self.items = self.written = self.documents = self.bytes = 0
        atexit.register(lambda: os.path.exists(f'{path}.tmp') and os.remove(f'{path}.tmp'))

    def write(self, data, documents):
        """data: bytes, or an array of ids, also a memory map; documents: how many end in it."""
        for start in range(0, len(data), PIECE):
            self.file.write(block := data[start:start + PIECE])
            self.sha256.update(block)
        self.items += len(data)
        self.written += documents                           # a document that is repeated counts each time

    def check(self, dtype, separator):
        """Close the file and count again what the disk holds: items, and documents by their separator, if
        they have one ([] if not)."""
        self.file.close()
        found = os.path.getsize(f'{self.path}.tmp')
        if found != self.items * dtype.itemsize:
            raise OSError(f'{self.path}.tmp has {found:,} bytes, {self.items * dtype.itemsize:,} were '
                          'written: is the disk full?')
        n = sum(int(np.isin(np.fromfile(f'{self.path}.tmp', dtype, PIECE, offset=i * dtype.itemsize),
                            separator).sum()) for i in range(0, self.items, PIECE))
        if separator and found and n != self.written:
            raise ValueError(f'{self.path}.tmp holds {n:,} documents, not {self.written:,}: please report '
                             'this bug')


class Funnel:
    """What the report is made of: counters by name (a stage's documents, bytes and reasons; licences...), a
    few samples for each reason, and what could not be read. JSON-able, and two can be added."""

    def __init__(self, n_samples=3):
        self.counters, self.samples, self.malformed = collections.defaultdict(collections.Counter), {}, {}
        self.n_samples = n_samples

    def count(self, stage, reason, bytes_in, bytes_out):
        row = self.counters[f'stage {stage}']
        row.update({'docs_in': 1, 'bytes_in': bytes_in})
        row.update({f'dropped {reason}': 1} if reason else {'docs_out': 1, 'bytes_out': bytes_out})

    def sample(self, reason, chance, path, text):
        """Keep the documents whose chance is smallest: a random sample that is always the same."""
        samples = self.samples.setdefault(reason or 'kept', [])
        samples.append([chance, path, text[:2000]])
        samples.sort()
        del samples[self.n_samples:]

    def reject(self, path, line, why):
        entry = self.malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})
        entry['records'] += 1

    def add(self, counters, samples, malformed):
        for name, counter in counters.items():
            self.counters[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        self.malformed.update(malformed)

    def to_json(self):
        return json.dumps({'counters': self.counters, 'samples': self.samples, 'malformed': self.malformed})


def in_parallel(function, jobs, processes, what):
    """Yield function(job) for each job, in order, by so many processes (0 = one per core). They are forked,
    so they see all that the caller has defined; where a system cannot fork (Windows), this process does the
    work. They end when their parent does."""
    def watch(parent):
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    def bar(results):
        return tqdm(results, total=len(jobs), desc=what, unit=' shards', disable=None)

    n = min(processes or os.cpu_count(), len(jobs))
    if n <= 1 or 'fork' not in multiprocessing.get_all_start_methods():
        yield from bar(map(function, jobs))
        return
    with concurrent.futures.ProcessPoolExecutor(
            n, multiprocessing.get_context('fork'), initargs=(os.getpid(),),
            initializer=lambda pid: threading.Thread(target=watch, args=(pid,), daemon=True).start()) as pool:
        try:
            yield from bar(pool.map(function, jobs))
        except concurrent.futures.process.BrokenProcessPool as e:
            raise OSError('a process was killed, perhaps because memory ran out; try again with fewer, '
                          f'--processes={(n + 1) // 2}: what is done is kept') from e
