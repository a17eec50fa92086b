"""
A corpus on its way to the disk. Nothing is in OUT_DIR before all of it is written.

    OUT_DIR/.work/STATE/00007.*     a shard that is clean: its documents, what is known of them, its account
    OUT_DIR/.work/new/              the results, until publish moves them into OUT_DIR

    docs = Corpus('data/x', 'what the work depends on', funnel, ['a source'])
    docs.write_shard(0, documents, funnel_of_shard)     # perhaps in another process
    docs.gather([0])
    docs.drop('rules', 'short', np.flatnonzero(docs.size < 100))

A shard is there or not: that is the whole of resuming.
"""
import contextlib, functools, gzip, hashlib, json, os, pathlib, shutil, zlib
import numpy as np

PIECE = 16_000_000              # bytes or tokens held in memory at once
RESULTS = ('meta.json', 'train.bin', 'val.bin', 'train.jsonl', 'val.jsonl', 'tokenizer.json', 'report.md',
           'report.json', 'audit.md', 'shards')
ROW = np.dtype([('packed', np.int64), ('size', np.int64), ('exact', np.uint64), ('split', np.uint64),
                ('is_code', bool)])


def hash64(data):
    """64 bits that follow from these bytes alone; hash64(data) / 2 ** 64 is as if drawn from [0, 1)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


@contextlib.contextmanager
def new_file(path):
    """A file that gets its name when all of it is written."""
    part = f'{path}.{os.getpid()}'
    with open(part, 'wb') as f:
        yield f
    os.replace(part, path)


def write_file(path, text):
    """Write a text; half a pair of surrogates is escaped."""
    with new_file(path) as f:
        f.write(text.encode('utf-8', 'backslashreplace'))


def check_out_dir(folder, inputs, kind):
    """Refuse a folder that holds an input, data of another kind, a model, or data that others wrote."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    meta = {}
    with contextlib.suppress(OSError, ValueError), open(f'{folder}/meta.json', 'rb') as f:
        meta = json.load(f)
    # Else a trainer would find train.bin next to a meta.json of conversations.
    its_kind = meta.get('config', {}).get('kind', kind)
    if its_kind != kind:
        raise ValueError(f'{folder} holds data of --kind={its_kind}; choose another --out_dir')
    is_ours = 'nanoparrot-data-' in meta.get('format', '') or '.work' in names      # was interrupted
    for name in names:
        if name in RESULTS and not is_ours or name.endswith(('.pt', '.safetensors')):
            raise ValueError(f'{folder} holds {name}, which was not prepared there; choose another '
                             '--out_dir')
    for path in inputs:
        place, name = os.path.split(os.path.realpath(path))         # wherever links lead
        if place == os.path.realpath(folder) and name in RESULTS or (
                place == os.path.realpath(f'{folder}/shards')):
            raise ValueError(f'{path} is read, and the results would replace it; choose another --out_dir')


def state_of(settings, files):
    """A text that changes with each setting and each file: {'path', maybe 'sha256'}."""
    state = [settings]
    for file in files:
        path = file['path']
        state.append([path, file.get('sha256') or [os.path.getsize(path), os.path.getmtime(path)]])
    return json.dumps(state)


# --- the documents ------------------------------------------------------------------------------------------
class Corpus:
    """The documents that the stages kept, numbered in the order of their shards. They wait in a work folder,
    compressed: a finished shard is never made again. In memory are about 60 bytes a document:

    size        bytes of text, int64 (n,)
    exact       hash of the text, uint64 (n,): equal for copies
    split       hash that decides about training or validation, uint64 (n,)
    is_code     bool (n,)
    keep        bool (n,): False for what a later pass dropped
    shard       the number of its shard, int64 (n,)
    first       the number of each shard's first document, and n, int64 (shards + 1,)"""

    def __init__(self, out_dir, state, funnel, owners):
        """state: a text; work of another state is thrown away. funnel: where drop counts. owners: the
        source of each shard. Several processes may begin with the same folder."""
        self.folder = pathlib.Path(out_dir, '.work', f'{hash64(state.encode()):016x}')
        self.funnel = funnel
        self.owners = np.array(owners)
        # without a buffer: a fork shares the place in the file, and would leave the buffer at another one
        self.open_shard = functools.lru_cache(64)(lambda shard: open(self.path(shard, 'records'), 'rb', 0))
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in {*self.folder.parent.iterdir()} - {self.folder}:
            shutil.rmtree(other, ignore_errors=True)

    def path(self, shard, ending):
        return self.folder / f'{shard:05}.{ending}'

    def has_shard(self, shard):
        return self.path(shard, 'json').exists()                # which is written last

    def write_shard(self, shard, documents, funnel):
        """Store a shard. documents: dicts of record (text, path, source...), size and split, perhaps exact,
        is_code and keys of near-duplicates. funnel: its account, complete after the last document."""
        rows = []
        keys = []
        with new_file(self.path(shard, 'records')) as f:
            for doc in documents:
                packed = zlib.compress(json.dumps(doc['record']).encode(), 1)
                f.write(packed)
                rows.append((len(packed), doc['size'], doc.get('exact', 0), doc['split'],
                             doc.get('is_code', False)))
                keys.append(doc.get('keys', []))
        with new_file(self.path(shard, 'rows.npy')) as f:
            np.save(f, np.array(rows, ROW))
        with new_file(self.path(shard, 'keys.npy')) as f:
            np.save(f, np.array(keys, np.uint64).T.copy())          # band by band
        write_file(self.path(shard, 'json'), funnel.to_json())

    def gather(self, shards):
        """Take in shards 0, 1, 2, ... as they are finished."""
        rows = []
        for shard in shards:
            self.funnel.add(**json.loads(self.path(shard, 'json').read_bytes()))
            rows.append(np.load(self.path(shard, 'rows.npy')))
        self.n_shards = len(rows)
        self.first = np.cumsum([0, *map(len, rows)])
        self.shard = np.repeat(np.arange(self.n_shards), np.diff(self.first))
        self.ends = np.concatenate([np.cumsum(r['packed']) for r in rows])      # in the shard's file
        rows = np.concatenate(rows)
        for name in ROW.names:
            setattr(self, name, rows[name].copy())
        self.keep = np.ones(len(rows), bool)

    def span(self, shard):
        return slice(self.first[shard], self.first[shard + 1])

    def record(self, i):
        """What is known of a document: {'text', 'path', 'source', perhaps 'licence' and 'url'}."""
        f = self.open_shard(self.shard[i])
        f.seek(self.ends[i] - self.packed[i])
        return json.loads(zlib.decompress(f.read(self.packed[i])))

    def text(self, i):
        return self.record(i)['text']

    def spread(self, weights, n):
        """Yield n records, evenly spread over the weights of all documents; at most as many as the weights
        sum to. weights: (n documents,), or a mask, of whose documents each comes once at most."""
        ends = np.cumsum(weights)
        n = min(n, int(ends[-1]))
        places = (np.arange(n) + 0.5) / n * ends[-1]
        yield from map(functools.lru_cache(1)(self.record), np.searchsorted(ends, places, 'right'))

    def keys(self, band):
        """A band's key of each document that is left, uint64; copied, so that no file stays open."""
        keys = [np.load(self.path(i, 'keys.npy'), mmap_mode='r')[band].copy() for i in range(self.n_shards)
                if self.first[i] < self.first[i + 1]]
        return np.concatenate(keys)[self.keep]

    def batches(self, shard):
        """Yield numbers and records of the documents that are left of a shard, some MB at a time."""
        here = self.span(shard)
        numbers = np.flatnonzero(self.keep[here]) + here.start
        for some in np.array_split(numbers, 1 + self.size[here].sum() // 4_000_000):
            yield some.tolist(), [self.record(i) for i in some]

    def write_ids(self, shard, documents):
        """Store the token ids of a shard, and its records if these replace train.bin. Returns each
        document's number of tokens, int64 (n,), 0 if it was dropped. documents: tuples (number, number of
        tokens, ending of the file, data)."""
        lengths = np.zeros(len(self.size[self.span(shard)]), np.int64)
        with open(self.path(shard, 'train'), 'wb') as train, open(self.path(shard, 'val'), 'wb') as val, \
                gzip.GzipFile(self.path(shard, 'jsonl.gz'), 'wb', 1, mtime=0) as records:
            outputs = {'train': train, 'val': val, 'jsonl.gz': records}
            for i, n_tokens, output, data in documents:
                lengths[i - self.first[shard]] = n_tokens
                outputs[output].write(data)
        return lengths

    def gather_ids(self, lengths, dtype):
        """Take in the results of write_ids. Sets lengths, int64 (n,), in tokens."""
        self.lengths = np.concatenate(list(lengths))
        self.dtype = dtype

    def ids(self, shard, side):
        path = self.path(shard, side)
        return np.memmap(path, self.dtype, 'r') if os.path.getsize(path) else ()

    def counts_of(self, source, in_train):
        """What a source has to train on: {'documents', 'tokens'}."""
        own = in_train & (self.owners[self.shard] == source)
        return {'documents': int(own.sum()), 'tokens': int(self.lengths[own].sum())}

    def write_source(self, source, bins, in_train, n_tokens):
        """Write n_tokens of a source to the Bin 'train': whole passes, then a part of it; its validation
        documents to 'val' and 'val_SOURCE'. in_train: bool (n,). Returns {'begins', 'mixed', 'epochs',
        'val_tokens'}: the first token, their number, the passes over the source, its tokens in 'val'."""
        if n_tokens == 0:
            raise ValueError(f'the source {source} gets no token; raise its weight, or leave it out')
        shards = np.flatnonzero(self.owners == source)
        own = in_train & (self.owners[self.shard] == source)
        n_own = int(self.lengths[own].sum())
        begins = bins['train'].items
        for _ in range(n_tokens // n_own):
            for shard in shards:
                bins['train'].write(self.ids(shard, 'train'))
        self.write_part(bins['train'], own, n_tokens % n_own)
        mixed = (bins['train'].items - begins) or n_tokens          # text in shards is not mixed

        n_val = bins['val'].items
        for side in bins.keys() & {'val', f'val_{source}'}:
            for shard in shards:
                bins[side].write(self.ids(shard, 'val'))
        return {'begins': begins, 'mixed': mixed, 'epochs': mixed / n_own,
                'val_tokens': bins['val'].items - n_val}

    def write_part(self, b, own, n_tokens):
        """Write n_tokens of the documents in a mask, bool (n,), to a Bin: those with the smallest hashes. The
        last one is cut, but keeps its separator."""
        order = np.flatnonzero(own)
        order = order[np.argsort(self.exact[order], kind='stable')]
        before = np.cumsum(self.lengths[order]) - self.lengths[order]
        take = np.zeros(len(own), np.int64)             # tokens of each document
        take[order] = np.clip(n_tokens - before, 0, self.lengths[order])
        for shard in np.unique(self.shard[take > 1]):
            here = self.span(shard)
            ids = self.ids(shard, 'train')
            lengths = np.where(own[here], self.lengths[here], 0)
            ends = np.cumsum(lengths)
            for i in np.flatnonzero(take[here] > 1):
                begin = ends[i] - lengths[i]
                b.write(ids[begin:begin + take[here][i] - 1])
                b.write(ids[ends[i] - 1:ends[i]])

    def write_lines(self, b, which):
        """Write the documents of a mask, bool (n,), to a Bin, one a line, in the order of their hashes."""
        for i in np.flatnonzero(which)[np.argsort(self.exact[which], kind='stable')]:
            b.write(np.frombuffer(self.text(i).encode() + b'\n', np.uint8))

    def drop(self, stage, reason, which):
        self.keep[which] = False
        left = int(self.size[self.keep].sum())
        self.funnel.count(stage, None, left, left, int(self.keep.sum()))
        if len(which):
            self.funnel.count(stage, reason, int(self.size[which].sum()), 0, len(which))
        for shard in self.shard[which]:
            self.funnel.counters[f'source {self.owners[shard]}'][reason] += 1
        for i in which[np.argsort(self.exact[which])][:self.funnel.n_samples].tolist():
            record = self.record(i)
            self.funnel.sample(reason, int(self.exact[i]), record['path'], record['text'])

    def exact_copies(self):
        """For each document that is left, the place of its first copy among those that are left."""
        _, first, which = np.unique(self.exact[self.keep], return_index=True, return_inverse=True)
        return first[which]

    def drop_copies(self, stage, reason, heads):
        """Keep the first document of each cluster. heads: its place, as in exact_copies."""
        left = np.flatnonzero(self.keep)
        self.drop(stage, reason, left[left != left[heads]])

    def write_shards(self, out_dir, in_train):
        """Let the records of write_ids take the place of train.bin. Returns {'train': [{'name',
        'documents', 'bytes', 'sha256'} of a shard]}, and the SHA-256 of them all."""
        shards = []
        whole = hashlib.sha256()
        folder = pathlib.Path(out_dir, '.work/new')
        (folder / 'train.bin').unlink()
        (folder / 'shards').mkdir()
        for i in range(self.n_shards):
            data = self.path(i, 'jsonl.gz').read_bytes()
            whole.update(data)
            shards.append({'name': f'{i:05}.jsonl.gz', 'documents': int(in_train[self.span(i)].sum()),
                           'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()})
            self.path(i, 'jsonl.gz').replace(folder / 'shards' / shards[-1]['name'])
        return {'train': shards}, whole.hexdigest()


# --- the files ----------------------------------------------------------------------------------------------
class Bin:
    """A file of the result. publish moves it into out_dir."""

    def __init__(self, out_dir, name):
        self.path = f'{out_dir}/{name}'
        os.makedirs(f'{out_dir}/.work/new', exist_ok=True)
        self.file = open(f'{out_dir}/.work/new/{name}', 'wb')
        self.sha256 = hashlib.sha256()
        self.items = 0                      # a document that is repeated counts each time
        self.documents = self.bytes = 0     # each once

    def write(self, data):
        """data: an array of ids or bytes, also a memory map."""
        for start in range(0, len(data), PIECE):
            block = data[start:start + PIECE]
            self.file.write(block)
            self.sha256.update(block)
        self.file.flush()
        self.items += len(data)

    def row(self):      # in report.summary
        return self.path, self.documents, self.items, self.bytes


def publish(out_dir, pages):
    """Move what is in .work/new into out_dir, with these pages, {name: text}. All of it is on the disk
    before old files go. meta.json goes first and comes last: a folder without it is not data."""
    out_dir = pathlib.Path(out_dir)
    new = out_dir / '.work/new'
    for name, text in pages.items():
        write_file(new / name, text)
    for path in [out_dir / 'meta.json', *out_dir.glob('val_*.bin'), out_dir / 'audit.md']:
        path.unlink(missing_ok=True)
    shutil.rmtree(out_dir / 'shards', ignore_errors=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == 'meta.json'):
        path.replace(out_dir / path.name)
    shutil.rmtree(out_dir / '.work', ignore_errors=True)
