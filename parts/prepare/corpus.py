"""
A corpus on its way to the disk. Nothing is in OUT_DIR before all of it is written.

    OUT_DIR/.work/STATE/00007.jsonl     a shard that is clean: its documents, one a line
                        00007.*.npy     what is known of them, and their keys of near-duplicates
                        00007.json      its account, written last
                        00007.train     its token ids (or its lines), and 00007.val
    OUT_DIR/.work/new/                  the results, until publish moves them into OUT_DIR

    docs = Corpus('data/x', 'what the work depends on', ['a source'])
    docs.write_shard(0, documents, account)             # perhaps in another process
    docs.gather([0], total)
    docs.drop(total, 'duplicates', 'a copy', np.array([7]))

A shard is there or not: that is the whole of resuming.
"""
import contextlib, gzip, hashlib, json, os, pathlib, shutil
import numpy as np

PIECE = 16_000_000              # bytes held in memory at once
ROW = np.dtype([('line', np.int64), ('size', np.int64), ('exact', np.uint64),
                ('split', np.uint64)])


def hash64(data):
    """64 bits that follow from these bytes alone; hash64(data) / 2 ** 64 is as if drawn from
    [0, 1)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


@contextlib.contextmanager
def new_file(path):
    """A file that gets its name when all of it is written."""
    part = f'{path}.{os.getpid()}'
    with open(part, 'wb') as f:
        yield f
    os.replace(part, path)


def check_out_dir(folder, inputs, kind):
    """Refuse a folder with files that we did not write, with data of another kind, or with an
    input."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    meta = ''
    if 'meta.json' in names:
        meta = pathlib.Path(folder, 'meta.json').read_text(encoding='utf-8')
    if names and 'nanoparrot-data-' not in meta and '.work' not in names:
        raise ValueError(f'{folder} holds {min(names)}, which was not prepared there; choose '
                         'another --out_dir')
    # Else a trainer would find train.bin next to a meta.json of conversations.
    its_kind = json.loads(meta or '{}').get('config', {}).get('kind', kind)
    if its_kind != kind:
        raise ValueError(f'{folder} holds data of --kind={its_kind}; choose another --out_dir')
    for path in inputs:                 # wherever links lead
        if os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
            raise ValueError(f'{path} is read, and results may replace it; choose another '
                             '--out_dir')


def state_of(settings, files):
    """A text that changes with each setting and each file: {'path', maybe 'sha256'}."""
    state = [settings]
    for file in files:
        path = file['path']
        state.append([path, file.get('sha256') or [os.path.getsize(path), os.path.getmtime(path)]])
    return json.dumps(state)


# --- the documents --------------------------------------------------------------------------------
class Corpus:
    """The documents that the stages kept, numbered in the order of their shards. They wait in a
    work folder: a finished shard is never made again. In memory are about 50 bytes a document:

    size        bytes of text, int64 (n,)
    exact       hash of the text, uint64 (n,): equal for copies
    split       hash that decides about training or validation, uint64 (n,)
    keep        bool (n,): False for what a later pass dropped
    shard       the number of its shard, int64 (n,)
    first       the number of each shard's first document, and n, int64 (shards + 1,)"""

    def __init__(self, out_dir, state, owners):
        """state: a text; work of another state is thrown away. owners: the source of each shard.
        Several processes may begin with the same folder."""
        work = pathlib.Path(out_dir, '.work')
        self.folder = work / f'{hash64(state.encode()):016x}'
        self.new = work / 'new'
        self.owners = np.array(owners)
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in {*work.iterdir()} - {self.folder}:
            shutil.rmtree(other, ignore_errors=True)
        self.new.mkdir(exist_ok=True)

    def path(self, shard, ending):
        return self.folder / f'{shard:05}.{ending}'

    def has_shard(self, shard):
        return self.path(shard, 'json').exists()

    def write_shard(self, shard, documents, account):
        """Store a shard. documents: dicts of record (text, path, source...), size, exact, split and
        keys of near-duplicates. account: complete after the last document."""
        rows, keys = [], []
        with new_file(self.path(shard, 'jsonl')) as f:
            for doc in documents:
                line = json.dumps(doc['record']).encode() + b'\n'
                f.write(line)
                rows.append((len(line), *(doc[name] for name in ROW.names[1:])))
                keys.append(doc['keys'])
        with new_file(self.path(shard, 'rows.npy')) as f:
            np.save(f, np.array(rows, ROW))
        with new_file(self.path(shard, 'keys.npy')) as f:
            np.save(f, np.array(keys, np.uint64).T.copy())          # band by band
        with new_file(self.path(shard, 'json')) as f:
            f.write(account.to_json().encode())

    def gather(self, shards, total):
        """Take in shards 0, 1, 2, ... as they are finished, and add their accounts to the total."""
        rows, places = [], []
        for shard in shards:
            total.add(*json.loads(self.path(shard, 'json').read_bytes()))
            rows.append(np.load(self.path(shard, 'rows.npy')))
            places.append(np.cumsum(rows[-1]['line']) - rows[-1]['line'])
        self.first = np.cumsum([0, *map(len, rows)])
        self.shard = np.repeat(np.arange(len(rows)), np.diff(self.first))
        self.place = np.concatenate(places)         # where its line begins
        rows = np.concatenate(rows)
        for name in ROW.names:
            setattr(self, name, rows[name].copy())
        self.keep = np.ones(len(rows), bool)

    def span(self, shard):
        return slice(self.first[shard], self.first[shard + 1])

    def record(self, i):
        """What is known of a document: {'text', 'path', 'source', perhaps 'licence' and 'url'}."""
        with open(self.path(self.shard[i], 'jsonl'), 'rb') as f:
            f.seek(self.place[i])
            return json.loads(f.readline())

    def text(self, i):
        return self.record(i)['text']

    def spread(self, weights, n):
        """Yield records and how many of n places are theirs. The places are evenly spread over the
        weights of all documents, (n documents,)."""
        ends = np.cumsum(weights)
        places = np.searchsorted(ends, (np.arange(n) + 0.5) / n * ends[-1], 'right')
        for i, times in zip(*np.unique(places, return_counts=True)):
            yield self.record(i), int(times)

    def keys(self, band):
        """A band's key of each document that is left, uint64."""
        keys = [np.load(self.path(shard, 'keys.npy'), mmap_mode='r')[band].copy()
                for shard in np.unique(self.shard)]
        return np.concatenate(keys)[self.keep]

    def drop(self, account, stage, reason, which):
        """Drop the documents whose numbers are in `which`, and say so in the account."""
        self.keep[which] = False
        account.bytes_left[stage] = int(self.size[self.keep].sum())
        for i in which.tolist():
            source = str(self.owners[self.shard[i]])
            account.ends['kept', 'kept', source] -= 1
            account.ends[stage, reason, source] += 1
            if account.n_samples:
                record = self.record(i)
                account.sample(reason, int(self.exact[i]), record['path'], record['text'])

    def exact_copies(self):
        """For each document that is left, the place of its first copy among those that are left."""
        _, first, which = np.unique(self.exact[self.keep], return_index=True, return_inverse=True)
        return first[which]

    def drop_copies(self, account, reason, heads):
        """Keep the first document of each cluster. heads: its place, as in exact_copies."""
        left = np.flatnonzero(self.keep)
        self.drop(account, f'{reason}s', reason, left[left != left[heads]])

    # --- from documents to files ------------------------------------------------------------------
    def batches(self, shard):
        """Yield numbers and records of the documents that are left of a shard, some MB at a
        time."""
        numbers = np.flatnonzero(self.keep[self.span(shard)]) + self.first[shard]
        for some in np.array_split(numbers, 1 + self.size[numbers].sum() // 4_000_000):
            yield some.tolist(), [self.record(i) for i in some]

    def write_pieces(self, shard, documents, is_gzipped):
        """Write a shard's pieces of the results. documents: tuples of side, length and data;
        is_gzipped: is the piece for training? Returns the lengths, int64."""
        lengths = []
        with contextlib.ExitStack() as stack:
            files = {side: stack.enter_context(open(self.path(shard, side), 'wb'))
                     for side in ('train', 'val')}
            if is_gzipped:
                files['train'] = stack.enter_context(
                    gzip.GzipFile('', 'wb', 1, files['train'], mtime=0))
            for side, n, data in documents:
                lengths.append(n)
                files[side].write(data)
        return np.array(lengths, np.int64)

    def join(self, name, ending, source=None):
        """Write a result: the pieces of all shards (of a source), one after another."""
        with open(self.new / name, 'wb') as f:
            for shard in np.flatnonzero((self.owners == source) | (not source)):
                with open(self.path(shard, ending), 'rb') as piece:
                    shutil.copyfileobj(piece, f, PIECE)

    def write_shards(self):
        """Let the pieces for training take the place of train.bin: shards of text."""
        (self.new / 'shards').mkdir()
        for shard in range(len(self.owners)):
            self.path(shard, 'train').replace(self.new / f'shards/{shard:05}.jsonl.gz')


def hashes(out_dir):
    """{name: SHA-256} of the results that publish will move: {'train': ..., 'val': ...}."""
    found = {}
    for path in sorted(pathlib.Path(out_dir, '.work/new').rglob('*')):
        if path.is_file():
            digest = hashlib.sha256()
            with open(path, 'rb') as f:
                while block := f.read(PIECE):
                    digest.update(block)
            found[path.stem.removesuffix('.jsonl')] = digest.hexdigest()
    return found


def publish(out_dir, pages):
    """Move what is in .work/new into out_dir, with these pages, {name: text}. All of it is on the
    disk before old files go. meta.json goes first and comes last: a folder without it is not
    data."""
    out_dir = pathlib.Path(out_dir)
    new = out_dir / '.work/new'
    new.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (new / name).write_text(text, encoding='utf-8', errors='backslashreplace')
    for name in ('meta.json', 'report.md', 'report.json', 'audit.md'):
        (out_dir / name).unlink(missing_ok=True)
    for path in out_dir.glob('*.bin'):
        if path.name.startswith(('train.', 'val.', 'val_')):        # not a file of the user's
            path.unlink()
    shutil.rmtree(out_dir / 'shards', ignore_errors=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == 'meta.json'):
        path.replace(out_dir / path.name)
    shutil.rmtree(out_dir / '.work', ignore_errors=True)
