"""
Training data: the folder of token bins that eval.py measures, and the order of rows in an epoch.

    meta, bins, identity = open_bins('data/quickstart', block_size=256)

Bins are memory-mapped, so a corpus may be larger than memory.
"""
import hashlib, json, os, pathlib, shlex
import numpy as np
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


def open_bins(data_dir, block_size):
    """Return (meta, bins, identity): the content of meta.json; {'train': token ids, 'val': token
    ids}, memory-mapped, of a mixture also 'val_NAME' for each source; and what identifies these
    data, which is the hash of meta.json, and the length of each bin with the hash of its first
    million tokens. With --write=text there is no train.bin. Mistake: a file is missing, or does not
    fit the others."""
    folder = pathlib.Path(data_dir)
    if not (folder / 'meta.json').exists():
        raise Mistake(f'{data_dir} has no prepared data (no meta.json); run: '
                      f'{command_for(data_dir)}')
    text, meta = read_meta(data_dir)
    identity = {'meta.json': hashlib.sha256(text).hexdigest()}
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
    return meta, bins, identity


def command_for(data_dir):
    """Return the command that makes a folder of data. The default folder has a command of its own;
    for any other folder it is prepare.py with a FILE of the user."""
    if os.path.normpath(data_dir) == 'data/quickstart':
        return ' && '.join(folders.steps_to('data/quickstart', 'data/quickstart'))
    return f'python prepare.py --source=FILE --out_dir={shlex.quote(data_dir)}'


def sequences(ids, starts, T):
    """Return inputs and targets at these starts of a bin: two int64 arrays (B, T), the second one
    token later."""
    rows = np.stack([ids[s:s + T + 1] for s in starts]).astype(np.int64)                # (B, T + 1)
    return rows[:, :-1], rows[:, 1:]
