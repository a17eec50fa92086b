"""
Streams: text that was never made into bins is read and tokenised while a run trains.

    stream = open_stream('data/web/shards', 0, 1, 'data/web', meta, tokenizer, block_size=256)
    x, y = stream.take(step=0, rows=range(8))                       # (8, 256) each
"""
import glob, gzip, hashlib, json, os, zlib
import numpy as np


def open_stream(streaming, rank, world, data_dir, meta, tokenizer, block_size):
    """The Stream of this process, of .jsonl and .json files, gzipped or not, of a folder or a glob. It reads
    all of them for their hashes, 1.5 GB a second. data_dir/shards must be what meta.json lists."""
    pattern = os.path.join(glob.escape(streaming), '*') if os.path.isdir(streaming) else streaming
    shards = sorted(p for p in glob.glob(pattern) if p.removesuffix('.gz').endswith(('.jsonl', '.json')))
    if len(shards) < world:
        raise ValueError(f'streaming={streaming}: shards (.jsonl or .json, also .gz): {len(shards)}; each '
                         f'process needs one, so {world}; prepare.py --write=text makes them')
    hashes = {os.path.basename(path): sha256(path) for path in shards[rank::world]}
    folder = os.path.join(data_dir, 'shards')
    listed = {shard['name']: shard['sha256'] for shard in meta.get('shards', {}).get('train', ())}
    if listed and os.path.realpath(os.path.dirname(shards[0])) == os.path.realpath(folder):
        wrong = [name for name in hashes if listed.get(name) != hashes[name]]
        if os.path.isdir(streaming):
            wrong += listed.keys() - {os.path.basename(path) for path in shards}
        if wrong:
            raise ValueError(f'{os.path.join(folder, min(wrong))} is not the shard that meta.json lists; run '
                             'prepare.py again')
    return Stream(shards[rank::world], tokenizer.encode_batch, tokenizer.special, block_size, hashes)


def sha256(path):
    data = np.memmap(path, np.uint8, 'r') if os.path.getsize(path) else b''     # may exceed memory
    return hashlib.sha256(data).hexdigest()


class Stream:
    """Sequences straight from text: shards of JSON lines are read and tokenised, over and over, and never
    stored. The first pass gives the same sequences as a bin of the same documents, in the order of the files.

    state, for seek(): the pass, shard, line and token of the next sequence. Lines without a document and the
    rest of a damaged archive are skipped; `malformed` counts them."""

    def __init__(self, paths, encode_batch, special, block_size, hashes=None):
        self.paths = paths
        self.encode_batch = encode_batch
        self.block_size = block_size
        if '<|endoftext|>' not in special:
            raise ValueError('the tokenizer has no <|endoftext|>, which stands between the documents of a '
                             'stream; prepare the data with --tokenizer=bpe')
        self.end_of_text = special['<|endoftext|>']
        self.malformed = 0
        self.hashes = hashes            # {shard: SHA-256}, so that a run resumes on the same text
        self.seek([0, 0, 0, 0])

    def seek(self, state):
        self.state = list(state)
        self.documents = self._documents(*state)
        self.waiting = []               # [position, ids] of documents that were read and not yet taken
        self.began = {}                 # step -> the position of its first sequence: see take()

    def shares(self, sources, n_steps):
        return {}                       # it reads all documents, one shard after another

    def notes(self):
        return [f'{self.malformed} lines or archives could not be read'] if self.malformed else []

    def ids_of(self, line):
        """The ids of the document in a line of JSON, or None."""
        try:
            record = json.loads(line.decode())
            if isinstance(record, dict):
                record = record.get('text', record.get('content'))
            if isinstance(record, str):
                return self.encode_batch([record])[0] + [self.end_of_text]
        except (ValueError, RecursionError):
            pass                        # it is not JSON
        self.malformed += 1

    def _lines(self, path):
        """Yield the lines of a file and their numbers. The rest of a damaged archive is skipped."""
        opener = gzip.open if path.endswith('.gz') else open
        try:
            with opener(path, 'rb') as f:
                yield from enumerate(f)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self.malformed += 1

    def _documents(self, epoch, shard, line, token):
        """Yield the position and the ids of each document, from a position on, without end."""
        documents = 0                   # of this pass
        complete = shard == 0
        while True:
            for number, data in self._lines(self.paths[shard]):
                if number < line or not data.strip():
                    continue
                ids = self.ids_of(data)
                if ids is not None:
                    yield [epoch, shard, number, token], ids[token:]
                    documents += 1
                    line = token = 0
            line = token = 0
            shard += 1
            if shard == len(self.paths):
                if documents == 0 and complete:
                    raise ValueError(f'{", ".join(self.paths[:3])}...: no line has a text or content')
                epoch += 1
                shard = documents = 0
                complete = True

    def take(self, step, rows):
        """The next len(rows) inputs and targets, two int64 arrays (B, T). The last target is the next input.
        Where a step begins is noted: its first batch may be loaded before the checkpoint of that step."""
        if step not in self.began:
            self.began = {step: self.state}
        size = len(rows) * self.block_size
        have = sum(len(ids) for _, ids in self.waiting)
        while have <= size:    # one more than size: the last target
            position, ids = next(self.documents)
            self.waiting.append([position, ids])
            have += len(ids)
        data = np.concatenate([ids for _, ids in self.waiting])[:size + 1].astype(np.int64)     # (n T + 1,)
        while size >= len(self.waiting[0][1]):          # drop the documents that are used up
            size -= len(self.waiting.pop(0)[1])
        position, ids = self.waiting[0]
        self.state = [*position[:3], position[3] + size]
        self.waiting[0] = [self.state, ids[size:]]
        return data[:-1].reshape(len(rows), -1), data[1:].reshape(len(rows), -1)

    def position(self, step):
        """Where the sequences of a step begin, for a checkpoint."""
        return self.began.get(step, self.state)
