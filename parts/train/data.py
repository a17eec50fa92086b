"""
Training data: token bins or a stream of text, and which sequences make up a step.

    meta, bins, identity = open_bins('data/quickstart', block_size=256)
    source = Blocks(bins, T=256, batch_size=8, seed=1337)
    x, y = source.take(step=0, rows=range(8))       # (8, 256) each, y one token later than x

Which blocks of a bin a step sees follows from (seed, step), so a run can be resumed at any step,
and a batch that made the loss jump can be printed again. A Stream has a position instead, which
checkpoints keep. Bins are memory-mapped, so a corpus may be larger than memory.
"""
import functools, glob, gzip, hashlib, itertools, json, os, pathlib, shlex, zlib
import numpy as np
from model import IGNORE
from parts import Mistake
from parts.train import folders
from tokenizer import Tokenizer


# --- bins -----------------------------------------------------------------------------------------
def read_meta(data_dir):
    """Return meta.json, its bytes and its content. Mistake if it is that of conversations or
    pairs."""
    text = pathlib.Path(data_dir, 'meta.json').read_bytes()
    meta = json.loads(text)
    if 'dtype' not in meta:
        raise Mistake(f'{data_dir} has {meta["config"]["kind"]} data, for sft.py or dpo.py; this '
                      'script needs tokens: prepare.py --kind=text')
    return text, meta


def open_bins(data_dir, block_size, config=None):
    """Return (meta, bins, identity): the content of meta.json; {'train': token ids, 'val': token
    ids}, memory-mapped, of a mixture also 'val_NAME' for each source; and what identifies these
    data, which is the hash of meta.json, the length of each bin with the hash of its first million
    tokens, and the names and sizes of a stream's files.

    With --write=text there is no train.bin. config: the settings of train.py, for streaming and
    vocab_size. Mistake: a file is missing, or does not fit the others."""
    config = config or {}
    folder = pathlib.Path(data_dir)
    if not (folder / 'meta.json').exists():
        raise Mistake(f'{data_dir} has no prepared data (no meta.json); run: '
                      f'{command_for(data_dir)}')
    text, meta = read_meta(data_dir)
    identity = {'meta.json': hashlib.sha256(text).hexdigest()}
    if config.get('streaming'):
        identity['shards'] = [[os.path.basename(path), os.path.getsize(path)]
                              for path in shards_of(config['streaming'])]
    bins = {}
    for side in ('train', 'val'):
        path = folder / f'{side}.bin'
        if side == 'train' and not path.exists():           # prepared with --write=text
            continue
        if not path.exists():
            raise Mistake(f'{path} is missing; run prepare.py again')
        bins[side] = np.memmap(path, meta['dtype'], mode='r')
        n = len(bins[side])
        if n != meta['tokens'][side]:
            raise Mistake(f'{path} has {n:,} tokens, meta.json says {meta["tokens"][side]:,}; '
                          'run prepare.py again')
        if n <= block_size:
            raise Mistake(f'{path} has {n:,} tokens, fewer than a sequence of '
                          f'block_size={block_size} and its target; lower --block_size or '
                          'prepare more text')
        identity[f'{side}.bin'] = [n, hashlib.sha256(bins[side][:2 ** 20]).hexdigest()]
    for name in meta['sources'] if len(meta['sources']) > 1 else ():
        path = folder / f'val_{name}.bin'
        if not path.exists():
            raise Mistake(f'{path} is missing; run prepare.py again')
        if path.stat().st_size > block_size * bins['val'].itemsize:     # it has a whole sequence
            bins[f'val_{name}'] = np.memmap(path, meta['dtype'], mode='r')
    tokenizer = Tokenizer.load(folder / 'tokenizer.json')
    if tokenizer.hash != meta['tokenizer_hash']:
        raise Mistake(f'{data_dir}/tokenizer.json is not the one that made these ids (hash '
                      f'{tokenizer.hash}, meta.json says {meta["tokenizer_hash"]}); run '
                      'prepare.py again')
    if config.get('vocab_size', 0) not in (0, tokenizer.vocab_size):
        raise Mistake(f'vocab_size={config["vocab_size"]}, but the data in {data_dir} have '
                      f'{tokenizer.vocab_size}; take theirs: --vocab_size=0')
    return meta, bins, identity


def command_for(data_dir, kind='text'):
    """Return the command that makes a folder of data. A default folder has a command of its own;
    for any other folder it is prepare.py with a FILE of the user."""
    default = {'text': 'data/quickstart', 'sft': 'data/sft', 'preference': 'data/pairs'}[kind]
    if os.path.normpath(data_dir) == default:
        return ' && '.join(folders.steps_to(default, default))
    flag = '' if kind == 'text' else f' --kind={kind}'
    return f'python prepare.py{flag} --source=FILE --out_dir={shlex.quote(data_dir)}'


def sequences(ids, starts, T):
    """Return inputs and targets at these starts of a bin: two int64 arrays (B, T), the second one
    token later."""
    rows = np.stack([ids[s:s + T + 1] for s in starts]).astype(np.int64)                # (B, T + 1)
    return rows[:, :-1], rows[:, 1:]


def evaluation(ids, T, n_tokens, micro_batch_size, here, hide=lambda x, y, rows: (x, y)):
    """Yield the batches of an evaluation on about n_tokens (0: all), each as the arguments of
    model.forward: always the same blocks of T tokens, spread evenly over a bin. hide:
    Objective.apply, which hides the same tokens each time. The processes share the blocks. FSDP
    needs all processes in each forward pass, so a process that has no block left gets one without
    targets."""
    n_blocks = (len(ids) - 1) // T
    n = max(1, min(n_blocks, (n_tokens or len(ids)) // T))
    blocks = np.linspace(0, n_blocks - 1, n).astype(np.int64)
    mine = blocks[here.rank::here.world]
    for i in range(0, len(blocks[::here.world]), micro_batch_size):
        part = mine[i:i + micro_batch_size]
        rows = part if len(part) else blocks[:1]
        x, y, *mask = hide(*sequences(ids, rows * T, T), rows)
        yield x, y if len(part) else np.full_like(y, IGNORE), *mask


# --- which sequences make up a step ---------------------------------------------------------------
def shuffled(n, seed, epoch):
    """Return range(n) in an order that follows from seed and epoch, int64 (n,)."""
    return np.random.default_rng([seed, epoch]).permutation(n)


class Blocks:
    """The sequences of a bin. From the 10 tokens 0 to 9, T=3 makes two blocks: 0 1 2 and 3 4 5, or,
    shifted by 2, 2 3 4 and 5 6 7. The targets of a block are its tokens one later: 1 2 3 for 0 1 2.
    An epoch visits every block once. Each epoch has its own order and its own shift, so that a text
    that is read again is not cut at the same positions again.

    The train.bin of a mixture has each source once, and meta.json says how many tokens and passes
    each source has. A source of 4 blocks and 2.5 passes gives 10 sequences to an epoch: each block
    twice, and two of the blocks, which are others in each epoch, a third time."""

    def __init__(self, bins, T, batch_size, seed, shuffle=True, meta=None):
        if 'train' not in bins:
            raise Mistake('there is no train.bin: the data were prepared with --write=text. Only '
                          'train.py reads them, with --streaming=DATA_DIR/shards')
        self.ids = bins['train']
        self.T = T
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.sources = [(len(self.ids), 1)]             # tokens, passes
        if meta and not meta.get('mixed', True):        # older folders are mixed on the disk
            self.sources = [(s['tokens'], s['passes']) for s in meta['sources'].values()]
        self.n_blocks = len(self.starts(0))
        self.position = None            # a Stream has one; here the step says which blocks are next

    @functools.lru_cache(1)     # noqa: B019, the order of one epoch is in memory: 8 bytes a block
    def starts(self, epoch):
        """Return where the sequences of an epoch begin, in their order, int64 (n_blocks,)."""
        starts, end = [], 0
        for n_tokens, passes in self.sources:
            n = max(1, n_tokens // self.T - 1)
            blocks = np.arange(max(1, round(passes * n))) % n
            begin = end
            if self.shuffle:
                rest = len(blocks) % n          # the last pass may be a part of one
                blocks[len(blocks) - rest:] = shuffled(n, self.seed, epoch)[:rest]
                begin += shuffled(max(1, n_tokens - n * self.T), self.seed, epoch)[0]
            starts.append(np.minimum(begin + blocks * self.T, len(self.ids) - self.T - 1))
            end += n_tokens
        starts = np.concatenate(starts)
        return starts[shuffled(len(starts), self.seed, epoch)] if self.shuffle else starts

    def start(self, i):
        """Return where sequence i of the run begins. Step s reads those from s * batch_size on."""
        epoch, i = divmod(i, self.n_blocks)
        return self.starts(epoch)[i]

    def go_to(self, positions):
        """Do nothing: take() is told the step. A Stream needs this method."""

    def take(self, step, rows):
        """Return inputs and targets, int64 (B, T), of these rows of a step's batch."""
        starts = [self.start(step * self.batch_size + row) for row in rows]
        return sequences(self.ids, starts, self.T)


def shards_of(streaming):
    """Return the .jsonl and .json files, gzipped or not, of a folder or a glob."""
    pattern = os.path.join(glob.escape(streaming), '*') if os.path.isdir(streaming) else streaming
    return sorted(path for path in glob.glob(pattern)
                  if path.removesuffix('.gz').endswith(('.jsonl', '.json')))


def text_of(line):
    """Return the text of a line of JSON, or None."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):        # it is not JSON
        return None
    if isinstance(record, dict):
        record = record.get('text', record.get('content'))
    return record if isinstance(record, str) else None


class Stream:
    """Sequences straight from text. A process reads its shards, which are files of JSON lines, and
    tokenizes them, over and over; no tokens are stored. The first pass gives the same tokens as a
    bin of the same documents, in the order of the files.

    position: [the shard and the line to read next, the ids that were read and not yet taken]. Lines
    without a document are skipped, and so is the rest of a damaged archive."""

    def __init__(self, streaming, here, tokenizer, T):
        paths = shards_of(streaming)
        if len(paths) < here.world:
            raise Mistake(f'streaming={streaming} has {len(paths)} shards (.jsonl or .json, also '
                          f'.gz), and each process needs one ({here.world} in all); prepare.py '
                          '--write=text makes them')
        if '<|endoftext|>' not in tokenizer.special:
            raise Mistake('the tokenizer has no <|endoftext|>, which separates the '
                          'documents of a stream; prepare the data with --tokenizer=bpe')
        self.paths = paths[here.rank::here.world]
        self.here = here
        self.tokenizer = tokenizer
        self.T = T
        self.go_to([[0, 0, []]] * here.world)

    def go_to(self, positions):
        """Go on from the positions that the streams of all processes had."""
        if None in positions:
            raise Mistake('this run reads train.bin; resume it without --streaming')
        if len(positions) != self.here.world:
            raise Mistake(f'this run reads {len(positions)} streams, one in each process; '
                          f'resume it with as many processes, not with {self.here.world}')
        shard, line, ids = positions[self.here.rank]
        self.position = [shard, line, list(ids)]
        self.documents = self.read(shard, line)

    def read(self, shard, line):
        """Yield the text of each document from a position on, without an end."""
        while True:
            path = self.paths[shard % len(self.paths)]
            try:
                with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
                    for number, data in itertools.islice(enumerate(f), line, None):
                        text = text_of(data)
                        if text is not None:
                            self.position[:2] = shard, number + 1
                            yield text
            except (EOFError, gzip.BadGzipFile, zlib.error):
                pass
            shard, line = shard + 1, 0
            if shard == len(self.paths) and self.position[:2] == [0, 0]:
                raise Mistake(f'{", ".join(self.paths[:3])}...: no line has a text or content')

    def take(self, step, rows):
        """Return the next inputs and targets, int64 (B, T). The last target is the first input of
        the next call. A stream goes on from its position, so it does not use step."""
        ids = self.position[2]
        n = len(rows) * self.T
        while len(ids) <= n:            # one more than n: the last target
            ids += [*self.tokenizer.encode_batch([next(self.documents)])[0],
                    self.tokenizer.special['<|endoftext|>']]
        taken = np.array(ids[:n + 1])                                                   # (n + 1,)
        del ids[:n]
        return sequences(taken, range(0, n, self.T), self.T)
