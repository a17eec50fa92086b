"""
Log-probabilities of a reference model, computed once and kept in a file.

    path = path_for('data/pairs', fingerprint(model), digests, block_size)     # .../reference-1f2e.npy
    found = read(path, n_pairs)                 # float64 (n, 2), or None: not there, or damaged
    write(path, found)

Copy this file alone: it needs torch and numpy.
"""
import contextlib, hashlib, os
import numpy as np
import torch


def fingerprint(model):
    """A hash of the weights."""
    h = hashlib.sha256()
    for p in model.state_dict().values():
        h.update(p.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def path_for(folder, *decides):
    """The path of the file. decides: everything that the numbers depend on."""
    key = hashlib.sha256(repr(decides).encode()).hexdigest()[:16]
    return os.path.join(folder, f'reference-{key}.npy')


def read(path, n):
    """The log-probabilities in a file, float64 (n, 2); None if there is no file, or a damaged one."""
    if not os.path.exists(path):
        return None
    with contextlib.suppress(Exception):        # numpy raises many kinds for a damaged file
        found = np.load(path, allow_pickle=False)
        if found.shape == (n, 2) and np.isfinite(found).all():
            return found
    print(f'{path} is damaged', flush=True)


def write(path, found):
    own = f'{path}.{os.getpid()}.tmp'           # another run may be writing the same file
    with open(own, 'wb') as f:
        np.save(f, found)
    os.replace(own, path)
