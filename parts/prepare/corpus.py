"""
A corpus on its way to the disk. Nothing is in OUT_DIR before all of it is written.

    OUT_DIR/.work/STATE/00007.jsonl     a shard that is clean: its documents, one a line
                        00007.npy       what is known of them: COLUMNS, keys of near-duplicates
                        00007.json      its account, written last
                        00007.train     its token ids (or its lines), and 00007.val
    OUT_DIR/.work/new/                  the results, until publish moves them into OUT_DIR

    docs = Corpus('data/x', 'text', settings, files, [{'source': 'web'}])
    docs.write_shard(0, documents, keys_of, account)    # perhaps in another process
    docs.gather([0], account)
    docs.drop_copies(account, 'exact duplicate', docs.exact_copies())

A shard is there or not: that is the whole of resuming.
"""
import contextlib, gzip, hashlib, itertools, json, os, pathlib, re, shutil
import numpy as np
from tqdm import tqdm
from parts import Mistake
from parts.prepare import conversions
from parts.prepare.files import sha256_of

# of each document: where its line begins, the bytes of its text, a hash of the text, and one that
# decides about training or validation
COLUMNS = 'place', 'size', 'exact', 'split'
# what is stored of it beside its text
ABOUT = 'path', 'source', 'licence', 'url'
# what an earlier run may have left; other files are the user's
RESULTS = re.compile(r'meta\.json|report\.(md|json)|audit\.md|shards|'
                     r'(train|val)\.(bin|jsonl)|val_.+\.bin')


def hash64(data):
    """Return 64 bits that follow from these bytes alone; hash64(data) / 2 ** 64 is as if drawn from
    [0, 1)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


@contextlib.contextmanager
def new_file(path):
    """A file that gets its name when all of it is written."""
    part = f'{path}.{os.getpid()}'
    with open(part, 'wb') as f:
        yield f
    os.replace(part, path)


# --- the folder of the results --------------------------------------------------------------------
def check_out_dir(folder, inputs, kind):
    """Refuse a folder with files that we did not write, with data of another kind, or with an
    input."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    meta = ''
    if 'meta.json' in names:
        meta = pathlib.Path(folder, 'meta.json').read_text(encoding='utf-8')
    if names and 'nanoparrot-data-' not in meta and '.work' not in names:
        raise Mistake(f'{folder} has {min(names)}, which was not prepared there; choose '
                      'another --out_dir')
    # Else a trainer would find train.bin next to a meta.json of conversations.
    its_kind = json.loads(meta or '{}').get('config', {}).get('kind', kind)
    if its_kind != kind:
        raise Mistake(f'{folder} has data of --kind={its_kind}; choose another --out_dir')
    for path in inputs:                 # wherever links lead
        if os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
            raise Mistake(f'{path} is read, and results may replace it; choose another '
                          '--out_dir')


def new_folder(out_dir, inputs, kind, state=''):
    """Return an empty folder for results, OUT_DIR/.work/new. What an interrupted run left in .work
    goes, but for the folder of this state. Several processes may do this at once."""
    check_out_dir(out_dir, inputs, kind)
    new = pathlib.Path(out_dir, '.work/new')
    for path in new.parent.glob('*'):
        if path.name != state:
            shutil.rmtree(path, ignore_errors=True)
    new.mkdir(parents=True, exist_ok=True)
    return new


def publish(out_dir, meta, pages):
    """Move what is in .work/new into out_dir, with these pages, {name: text}, and a meta.json that
    knows the SHA-256 of the data. All of it is on the disk before old files go. meta.json goes
    first and comes last: a folder without it is not data."""
    out_dir = pathlib.Path(out_dir)
    new = out_dir / '.work/new'
    data = [path for path in sorted(new.rglob('*')) if path.suffix in ('.bin', '.jsonl', '.gz')]
    hashes = {path.stem.removesuffix('.jsonl'): sha256_of(path) for path in data}
    meta = {'format': 'nanoparrot-data-1', 'sha256': hashes, **meta}
    for name, text in {**pages, 'meta.json': json.dumps(meta, indent=1)}.items():
        (new / name).write_text(text, encoding='utf-8', errors='backslashreplace')

    def by_meta(path):
        return path.name == 'meta.json'
    old = new.with_name('old')
    old.mkdir()
    for path in sorted(out_dir.iterdir(), key=by_meta, reverse=True):
        if RESULTS.fullmatch(path.name):
            path.replace(old / path.name)
    for path in sorted(new.iterdir(), key=by_meta):
        path.replace(out_dir / path.name)
    shutil.rmtree(out_dir / '.work', ignore_errors=True)


# --- the documents --------------------------------------------------------------------------------
class Corpus:
    """The documents that the stages kept, in the order of their shards. They wait in a work folder:
    a finished shard is never made again. In memory are about 50 bytes of each that is left:

    size        bytes of text, uint64 (n,)
    exact       hash of the text, uint64 (n,): equal for copies
    split       hash that decides about training or validation, uint64 (n,)
    shard       the number of its shard, int64 (n,); owners[shard] is the source of this shard
    number      its number among those that the stages kept, int64 (n,); these were of the shards
                in `filled`"""

    def __init__(self, out_dir, kind, settings, files, shards):
        """Work that was done with other settings, or while one of these files, [{'path', perhaps
        'sha256'}], was another one, is thrown away. shards: dicts with the 'source' of each."""
        state = [settings]
        for file in files:
            path = file['path']
            state.append([path, file.get('sha256')
                          or [os.path.getsize(path), os.path.getmtime(path)]])
        name = f'{hash64(json.dumps(state).encode()):016x}'
        self.new = new_folder(out_dir, [file['path'] for file in files], kind, name)
        self.folder = self.new.with_name(name)
        self.folder.mkdir(exist_ok=True)
        self.owners = np.array([shard['source'] for shard in shards])

    def path(self, shard, ending):
        return self.folder / f'{shard:05}.{ending}'

    def has_shard(self, shard):
        return self.path(shard, 'json').exists()

    def write_shard(self, shard, documents, keys_of, account):
        """Store a shard. keys_of(text): the keys of its near-duplicates, uint64. account: complete
        after the last document.

        Two conversations with one question and different answers are no copies: they differ in
        copy_key. They share split_key, so that no held-out question is one of the training set."""
        rows = []
        with new_file(self.path(shard, 'jsonl')) as f:
            for doc in documents:
                text = conversions.to_text(doc)
                copy_key, split_key = map(hash64, conversions.identity(doc))
                rows.append((f.tell(), conversions.size_of(doc), copy_key, split_key,
                             *keys_of(text)))
                about = {key: doc[key] for key in ABOUT if key in doc}
                f.write(json.dumps({'text': text, **about}).encode() + b'\n')
        table = np.array(rows or np.zeros((0, len(COLUMNS))), np.uint64)
        with new_file(self.path(shard, 'npy')) as f:
            np.save(f, table.T.copy())          # column by column
        with new_file(self.path(shard, 'json')) as f:
            f.write(account.to_json().encode())

    def columns(self, shard, which):
        return np.array(np.load(self.path(shard, 'npy'), mmap_mode='r')[which])

    def gather(self, shards, account):
        """Take in shards 0, 1, 2, ... as they are finished, and add their accounts to this one."""
        tables = []
        for shard in shards:
            account.add(*json.loads(self.path(shard, 'json').read_bytes()))
            tables.append(self.columns(shard, slice(len(COLUMNS))))
        self.shard = np.repeat(np.arange(len(tables)), [table.shape[1] for table in tables])
        self.place, self.size, self.exact, self.split = np.concatenate(tables, 1)
        self.number = np.arange(len(self.shard))
        self.filled = np.unique(self.shard)

    def records(self, numbers):
        """Yield what is known of these documents: {'text', 'path', 'source', perhaps 'licence' and
        'url'}. Neighbors of a shard are read from one open file."""
        for shard, neighbors in itertools.groupby(numbers, self.shard.item):
            with open(self.path(shard, 'jsonl'), 'rb') as f:
                for i in neighbors:
                    f.seek(self.place[i])
                    yield json.loads(f.readline())

    def text(self, i):
        return next(self.records([i]))['text']

    def spread(self, weights, n):
        """Yield n records, evenly spread over the weights of all documents, (n documents,). A
        document of a large weight may come several times."""
        ends = np.cumsum(weights)
        yield from self.records(np.searchsorted(ends, (np.arange(n) + 0.5) / n * ends[-1], 'right'))

    def texts(self, which):
        """Yield the texts of the documents `which`, bool (n,)."""
        for record in self.records(tqdm(np.flatnonzero(which), 'reading', disable=None)):
            yield record['text']

    def band_keys(self):
        """Yield, for each band, its key of every document that is left, uint64 (n,)."""
        n_columns = len(self.columns(self.filled[0], slice(None)))
        for column in tqdm(range(len(COLUMNS), n_columns), 'near duplicates', unit=' bands',
                           disable=None):
            keys = [self.columns(shard, column) for shard in self.filled]
            yield np.concatenate(keys)[self.number]

    def exact_copies(self):
        """Return, for each document, the position of its first copy: [0, 1, 0] says that the third
        is a copy of the first."""
        _, first, which = np.unique(self.exact, return_index=True, return_inverse=True)
        return first[which]

    def drop_copies(self, account, reason, first_copies):
        """Keep the first of the documents that say the same, and count the others in the account.
        first_copies: as exact_copies returns them."""
        is_first = first_copies == np.arange(len(first_copies))
        for i in np.flatnonzero(~is_first):
            account.drop(f'{reason}s', reason, str(self.owners[self.shard[i]]))
            if account.n_samples:
                record = next(self.records([i]))
                account.sample(reason, record['path'], record['text'])
        for name in ('number', 'shard', *COLUMNS):
            setattr(self, name, getattr(self, name)[is_first])
        account.counts['bytes left'][f'{reason}s'] = int(self.size.sum())

    # --- from documents to files ------------------------------------------------------------------
    def batches(self, shard):
        """Yield numbers and records of the documents that are left of a shard, some MB at a
        time."""
        start, end = np.searchsorted(self.shard, (shard, shard + 1))
        numbers = np.arange(start, end)
        for some in np.array_split(numbers, 1 + int(self.size[start:end].sum()) // 4_000_000):
            yield some.tolist(), [*self.records(some)]

    def write_pieces(self, shard, documents, is_text):
        """Write a shard's pieces of the results. documents: tuples of side, length and data;
        is_text: its training documents are a result by themselves, shards/00007.jsonl.gz. Returns
        the lengths, int64."""
        lengths = []
        if is_text:
            (self.new / 'shards').mkdir(exist_ok=True)
            train = gzip.GzipFile(self.new / f'shards/{shard:05}.jsonl.gz', 'wb', 1, mtime=0)
        else:
            train = open(self.path(shard, 'train'), 'wb')
        with train, open(self.path(shard, 'val'), 'wb') as val:
            for side, n, data in documents:
                lengths.append(n)
                (train if side == 'train' else val).write(data)
        return np.array(lengths, np.int64)

    def join(self, name, which):
        """Write a result, such as train.bin or val_web.bin: the pieces of the shards that hold the
        documents `which`, bool (n,)."""
        side = 'train' if name.startswith('train.') else 'val'
        with open(self.new / name, 'wb') as f:
            for shard in np.unique(self.shard[which]):
                with open(self.path(shard, side), 'rb') as piece:
                    shutil.copyfileobj(piece, f)
