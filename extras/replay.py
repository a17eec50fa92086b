"""
Replay: fine-tuning also reads some of the base model's data, so that less of it is forgotten; and
the base model's held-out text shows how much is forgotten.

    python sft.py --base_dir=data/quickstart                # base_bpb in the log
    python sft.py --base_dir=data/quickstart --replay=2     # and two sequences in each step

Every token of base text is a target, so replay weighs more than it seems to. If the answers in 32
conversations have 40 tokens each, they are 1,280 targets. replay=2 with block_size=256 adds 512,
which is 29% of the step's targets.
"""
import hashlib, json, math, pathlib
import numpy as np
from configurator import Mistake
from extras import mixture

EVAL_TOKENS = 65_536            # of val.bin, at each evaluation


class Base:
    """The data of the base model as rows, (ids, mask) like those of conversations: rows_of(step),
    of T tokens, to train on; held_out, as long as the context, to measure. hash identifies them."""

    def __init__(self, base_dir, tokenizer, T, context, replay, seed):
        if not base_dir:
            raise Mistake(f'{replay=} needs --base_dir=FOLDER, the data of the base model')
        try:
            text = pathlib.Path(base_dir, 'meta.json').read_bytes()
            meta = json.loads(text)
            sources = meta['sources']
            self.train, val = (np.memmap(f'{base_dir}/{name}.bin', meta['dtype'], 'r')
                               for name in ('train', 'val'))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Mistake(f'{base_dir} has no prepared data with meta.json, train.bin and val.bin '
                          f'({error}); base_dir is the --out_dir of prepare.py') from None
        if meta['tokenizer_hash'] != tokenizer.hash:
            raise Mistake(f'{base_dir} was prepared with another tokenizer than the model has; the '
                          'same ids mean different text')
        if len(self.train) <= T or len(val) <= context:
            raise Mistake(f'{base_dir} needs more than {T} tokens in train.bin and {context} in '
                          'val.bin, a sequence each; prepare more text')
        self.T, self.replay, self.seed = T, replay, seed
        if len(sources) < 2 or meta.get('mixed', True):     # else each is read as often as it weighs
            sources = {'all': {'tokens': len(self.train), 'passes': 1}}
        self.starts_of = mixture.weighted(sources)          # for one source, that of train.py
        self.n_blocks = len(self.starts_of(0, len(self.train), T, seed))
        pieces = [self.train[i:i + 1000] for i in range(0, len(self.train),
                                                        max(1000, len(self.train) // 64))]
        self.hash = hashlib.sha256(text + np.concatenate(pieces).tobytes()).digest() if replay else b''
        # about EVAL_TOKENS of val.bin, always the same, spread evenly over it
        n_blocks = (len(val) - 1) // context
        blocks = np.linspace(0, n_blocks - 1, max(1, min(n_blocks, EVAL_TOKENS // context)))
        self.held_out = [row(val, i * context, context) for i in blocks.astype(int)]
        text_bytes = np.array(tokenizer.text_bytes)                                     # (V,)
        n_bytes = sum(text_bytes[ids[1:]].sum() for ids, mask in self.held_out)
        self.tokens_per_byte = len(self.held_out) * context / max(1, n_bytes)

    def bits_per_byte(self, nats):
        """Return the loss in bits per byte of text, from the one in nats per token."""
        return float(nats / math.log(2) * self.tokens_per_byte)

    def rows_of(self, step):
        """Return the rows of a step."""
        n = self.n_blocks
        starts = [self.starts_of(i // n, len(self.train), self.T, self.seed)[i % n]
                  for i in range(step * self.replay, (step + 1) * self.replay)]
        return [row(self.train, start, self.T) for start in starts]


def row(ids, start, T):
    """Return T inputs and a last target, of which every token is trained."""
    return ids[start:start + T + 1].astype(np.int32), np.ones(T + 1, bool)
