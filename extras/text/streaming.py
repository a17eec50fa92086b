"""
Streaming: train.py tokenizes text while it reads, for text whose tokens don't fit on your disk.

    python clean.py --source=codeparrot --out_dir=data/text
    python prepare.py --source=data/text --out_dir=data/code --vocab_size=32768 --write=val
    python train.py config/codeparrot.py --data_dir=data/code --streaming=data/text/shards

    stream = Stream('data/text/shards', rank, world, tokenizer, held_out_to)
    texts = stream.take(8, 256)             # the next 8 sequences, int64 (8, 257)
    positions = stream.positions()          # for a checkpoint: where each process is

A process reads shards of its own, over and over: lines {"text": ...} of .jsonl or .jsonl.gz, as
clean.py writes them. The first pass gives the same tokens as a bin of the same documents, in the
order of the files. data_dir gives the tokenizer and val.bin; documents that it holds out are left
out here, by the same hash.
"""
import glob, gzip, hashlib, itertools, json, os, zlib
import numpy as np
from configurator import UserError, find_paths, require
from files import record_of, replace_invalid_bytes


def text_in(row):
    """Return the text of a line of JSON, or '' if it has none, as prepare.py reads it."""
    record = record_of(row.decode('utf-8', 'surrogateescape'))
    text = record.get('text') if isinstance(record, dict) else ''
    text, _ = replace_invalid_bytes(text if isinstance(text, str) else '')
    return text if text and not text.isspace() else ''


class Stream:
    """The documents of this process's shards as sequences of tokens. position is a list: the number
    of the shard, the line to read next, and the ids that were read and not yet taken."""

    def __init__(self, streaming, rank, world, tokenizer, held_out_to=None):
        paths = sorted({path for found in find_paths(streaming)         # files and folders
                        for path in [found, *glob.glob(f'{glob.escape(found)}/*')]
                        if path.endswith(('.jsonl', '.jsonl.gz'))})
        require(len(paths) >= world, f'streaming={streaming} has {len(paths)} shards (.jsonl, '
                f'.jsonl.gz), and each process needs one ({world} in all); clean.py makes them')
        # the names and sizes of all shards: what identifies the data of a run
        names = [[os.path.basename(path), os.path.getsize(path)] for path in paths]
        self.identity = json.dumps(names).encode()
        self.paths = paths[rank::world]
        self.rank, self.world = rank, world
        self.tokenizer, self.held_out_to = tokenizer, held_out_to
        self.go_to([[0, 0, []]] * world)

    def go_to(self, positions):
        """Go on from where the streams of all processes were."""
        require(len(positions) == self.world, f'this run reads {len(positions)} streams, one in '
                f'each process; resume it with as many processes, not with {self.world}')
        shard, line, ids = positions[self.rank]
        self.position = [shard, line, list(ids)]
        self.documents = self.read(shard, line)

    def positions(self):
        """Return where the streams of all processes are. All processes must call this."""
        positions = [self.position] * self.world
        if self.world > 1:
            import torch.distributed as dist
            dist.all_gather_object(positions, self.position)
        return positions

    def read(self, shard, line):
        """Yield the text of each document from a position on, without an end."""
        n_empty = 0                         # shards in a row without a text
        while True:
            path = self.paths[shard % len(self.paths)]
            try:
                with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
                    for number, data in itertools.islice(enumerate(f), line, None):
                        text = text_in(data)
                        if text and not self.is_held_out(text):
                            self.position[:2] = shard, number + 1
                            n_empty = 0
                            yield text
            except (EOFError, OSError, zlib.error) as error:
                raise UserError(f'{path} cannot be read ({error}); run clean.py again') from None
            shard, line, n_empty = shard + 1, 0, n_empty + 1
            require(n_empty <= len(self.paths), f'{", ".join(self.paths[:3])}...: no line has a '
                    '"text", or all are held out')

    def is_held_out(self, text):
        """Whether prepare.py's split holds a text out: its hash is at most this."""
        digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
        return self.held_out_to is not None and int.from_bytes(digest, 'big') <= self.held_out_to

    def take(self, n_rows, T):
        """Return the next n_rows sequences with their last targets, int64 (n_rows, T + 1). A last
        target is also the first token of the next sequence."""
        ids = self.position[2]
        n = n_rows * T
        while len(ids) <= n:            # one more than n: the last target
            ids += [*self.tokenizer.encode_batch([next(self.documents)])[0],
                    self.tokenizer.special['<|endoftext|>']]
        taken = np.array(ids[:n + 1])                                                   # (n + 1,)
        del ids[:n]
        return np.stack([taken[i:i + T + 1] for i in range(0, n, T)])
