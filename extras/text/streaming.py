"""
Streaming: train.py tokenizes text on the fly, for corpora whose tokens don't fit on your disk.

    python clean.py --source=codeparrot --out_dir=data/text
    python prepare.py --source=data/text --out_dir=data/code --vocab_size=32768 --write=val
    python train.py config/codeparrot.py --data_dir=data/code --streaming=data/text/shards

    stream = Stream('data/text/shards', rank, world, tokenizer, meta)   # meta.json of data_dir
    texts = stream.take(8, 256)             # the next 8 sequences, int64 (8, 257)
    positions = stream.positions()          # for a checkpoint: the position of each process

Each process cycles through its own shards: .jsonl or .jsonl.gz files of {"text": ...} lines, as
clean.py writes them. The first pass yields the same tokens as a bin of the same documents, in the
order of the files. They are not shuffled, and each source of a mixture is read once, so weights are
refused. The tokenizer and val.bin are in data_dir; documents of val.bin are skipped, by the hash
with which prepare.py splits.
"""
import glob, gzip, hashlib, itertools, json, os
import numpy as np
from configurator import UserError, find_paths, require
from files import DAMAGE


class Stream:
    """The documents of this process's shards as token sequences. position is a list: the index of
    the shard, the next line, and the buffered ids, which are tokenized but not yet returned."""

    def __init__(self, streaming, rank, world, tokenizer, meta):
        weights = {name: source['weight'] for name, source in meta.get('sources', {}).items()
                   if source.get('passes', 1) != 1}
        require(not weights, f'{weights=} of the data are for train.bin; a stream reads each '
                'source once: leave --streaming out, or clean and prepare without weights')
        paths = sorted({path for pattern in find_paths(streaming)         # files and folders
                        for path in [pattern, *glob.glob(f'{glob.escape(pattern)}/*')]
                        if path.endswith(('.jsonl', '.jsonl.gz')) and os.path.exists(path)})
        require(len(paths) >= world, f'streaming={streaming} has {len(paths)} shards (.jsonl, '
                f'.jsonl.gz), and each process needs one ({world} in all); clean.py makes them')
        # the names and sizes of all shards identify the data of a run
        names = [[os.path.basename(path), os.path.getsize(path)] for path in paths]
        self.identity = json.dumps(names).encode()
        self.paths = paths[rank::world]
        self.rank, self.world = rank, world
        self.tokenizer, self.held_out_to = tokenizer, meta.get('held_out_to')
        self.seek([[0, 0, []]] * world)

    def seek(self, positions):
        """Continue from the saved positions of all processes."""
        require(len(positions) == self.world, f'this run has {len(positions)} streams, one per '
                f'process; resume it with {len(positions)} processes, not with {self.world}')
        shard, line, ids = positions[self.rank]
        self.position = [shard, line, list(ids)]
        self.documents = self.read(shard, line)

    def positions(self):
        """Return the positions of all processes. All processes must call this (all_gather)."""
        positions = [self.position] * self.world
        if self.world > 1:
            import torch.distributed as dist
            dist.all_gather_object(positions, self.position)
        return positions

    def read(self, shard, line):
        """Yield the text of each document from a position on, in an endless cycle."""
        n_empty = 0                         # consecutive shards without a text
        while True:
            path = self.paths[shard % len(self.paths)]
            try:
                with (gzip.open if path.endswith('.gz') else open)(path, 'rb') as f:
                    for number, data in itertools.islice(enumerate(f), line, None):
                        text = json.loads(data)['text']
                        if not self.is_held_out(text):
                            self.position[:2] = shard, number + 1
                            n_empty = 0
                            yield text
            except (*DAMAGE, LookupError, TypeError, AttributeError) as error:
                raise UserError(f'{path} cannot be read ({error!r:.80}); each line must be '
                                '{"text": ...}; run clean.py') from None
            shard, line, n_empty = shard + 1, 0, n_empty + 1
            require(n_empty <= len(self.paths), f'{", ".join(self.paths[:3])}... have no '
                    'text, or all are held out')

    def is_held_out(self, text):
        """Return whether prepare.py put a text into validation: its hash is <= held_out_to."""
        digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
        return self.held_out_to is not None and int.from_bytes(digest, 'big') <= self.held_out_to

    def take(self, n_rows, T):
        """Return the next n_rows sequences, int64 (n_rows, T + 1): T inputs and the last target,
        which is also the first input of the next sequence."""
        ids = self.position[2]
        n = n_rows * T
        while len(ids) <= n:            # n inputs and the last target
            ids += [*self.tokenizer.encode_batch([next(self.documents)])[0],
                    self.tokenizer.special['<|endoftext|>']]
        tokens = np.array(ids[:n + 1])                                                   # (n + 1,)
        del ids[:n]
        return np.stack([tokens[i:i + T + 1] for i in range(0, n, T)])
