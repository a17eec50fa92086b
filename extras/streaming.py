"""
Streaming: sequences straight from text, in files of JSON lines; no tokens are stored.

    python train.py --streaming=data/mine/shards --data_dir=data/mine

    stream = Stream('data/mine/shards', rank, world, tokenizer)
    texts = stream.take(8, 256)             # the next 8 sequences, int64 (8, 257)
    positions = stream.positions()          # for a checkpoint: where each process is

A process reads shards of its own, over and over, and tokenizes them. The first pass gives the same
tokens as a bin of the same documents, in the order of the files. data_dir still gives the tokenizer
and val.bin.
"""
import glob, gzip, itertools, json, os, zlib
import numpy as np
import torch.distributed as dist
from configurator import Mistake
from extras import records


def shards_of(streaming):
    """Return the .jsonl and .json files, gzipped or not, of a folder or a glob."""
    pattern = os.path.join(glob.escape(streaming), '*') if os.path.isdir(streaming) else streaming
    return sorted(path for path in glob.glob(pattern) if records.ends_with(path, records.RECORDS))


def text_of(line):
    """Return the text of a line of JSON, or None."""
    try:
        return records.text_of(json.loads(line))
    except (ValueError, RecursionError):        # it is not JSON, or has no text
        return None


class Stream:
    """position: [the shard and the line to read next, the ids that were read and not yet taken].
    Lines without a document are skipped, and so is the rest of a damaged archive."""

    def __init__(self, streaming, rank, world, tokenizer):
        paths = shards_of(streaming)
        if len(paths) < world:
            raise Mistake(f'streaming={streaming} has {len(paths)} shards (.jsonl or .json, also '
                          f'.gz), and each process needs one ({world} in all); prepare.py '
                          '--write=text makes them')
        if '<|endoftext|>' not in tokenizer.special:
            raise Mistake('the tokenizer has no <|endoftext|>, which separates the '
                          'documents of a stream; prepare the data with --tokenizer=bpe')
        # The names and sizes of all shards: what identifies the data of a run.
        names = [[os.path.basename(path), os.path.getsize(path)] for path in paths]
        self.identity = json.dumps(names).encode()
        self.paths = paths[rank::world]
        self.rank, self.world = rank, world
        self.tokenizer = tokenizer
        self.go_to([[0, 0, []]] * world)

    def go_to(self, positions):
        """Go on from where the streams of all processes were."""
        if len(positions) != self.world:
            raise Mistake(f'this run reads {len(positions)} streams, one in each process; '
                          f'resume it with as many processes, not with {self.world}')
        shard, line, ids = positions[self.rank]
        self.position = [shard, line, list(ids)]
        self.documents = self.read(shard, line)

    def positions(self):
        """Return where the streams of all processes are. All processes must call this."""
        positions = [self.position] * self.world
        if self.world > 1:
            dist.all_gather_object(positions, self.position)
        return positions

    def read(self, shard, line):
        """Yield the text of each document from a position on, without an end."""
        while True:
            path = self.paths[shard % len(self.paths)]
            try:
                with records.open_file(path) as f:
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
