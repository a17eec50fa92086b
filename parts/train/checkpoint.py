"""
Checkpoints: files that are never half written.

    write('last.pt', {'model': model.state_dict(), 'step': 3})
    state = read('last.pt')                     # tensors, numbers, strings, lists and dicts: weights_only
    rotate('out/base/last.pt', keep=2)          # last.pt.new -> last.pt -> last-1.pt
"""
import contextlib, os, pathlib
import torch


def write(path, state):
    """Write state beside path, flush it, then rename it: a crash or a full disk leaves the old file."""
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        torch.load(f'{path}.tmp', 'meta', weights_only=True)        # can it be read?
        os.replace(f'{path}.tmp', path)
    except Exception as e:    # torch wraps a failed write in a RuntimeError
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        if not isinstance(e, OSError | RuntimeError):
            e = ValueError('a value is not a tensor, number, text, list or dict, and could not be read again')
        raise OSError(f'cannot write {path} ({e}); the file that was there before is unchanged') from e


def find(path):
    """A file or a Hugging Face folder: itself. A run's folder: best.pt, else last.pt, else last-1.pt..."""
    if os.path.isdir(path):
        for name in ('best.pt', 'last.pt', *(f'last-{i}.pt' for i in range(1, 100))):
            if os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
        if any(name.endswith('.safetensors') for name in os.listdir(path)):
            return path
        raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; run train.py first')
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; give a checkpoint or a folder of a run: bash run.sh '
                                'makes out/quickstart and out/quickstart_sft')
    return path


def size(path):
    """Bytes of a checkpoint, see find(); of a Hugging Face folder, those of its weights."""
    path = pathlib.Path(find(path))
    return sum(file.stat().st_size for file in [*path.glob('*.safetensors')] or [path])


def read(path, device='cpu'):
    """The state that write() wrote. ValueError if the file is damaged or not a checkpoint."""
    with readable(path):
        return torch.load(path, map_location=device, weights_only=True)


@contextlib.contextmanager
def readable(path):
    """Turns every error inside `with` into one that says why path is not a checkpoint of ours: torch raises
    many kinds for a damaged or foreign file. An OSError of the system is none of them: it may pass."""
    try:
        yield
    except Exception as e:
        if isinstance(e, OSError) and e.errno:
            raise OSError(f'{path} cannot be read now ({e}); it was left as it is: try again') from e
        reason = (str(e).strip().splitlines() or [''])[0].split('. ')[0]    # not torch's advice to run it
        if 'memory' in reason:
            raise MemoryError(f'{path}: {reason}') from e
        raise ValueError(f'{path} is not a readable checkpoint ({type(e).__name__}: {reason}); '
                         'use another') from e


def rotate(path, keep):
    """path.new becomes path, the old path becomes path-1, and so on; `keep` files stay."""
    stem = path.removesuffix('.pt')
    names = [path, *(f'{stem}-{i}.pt' for i in range(1, keep))]
    for i in range(len(names) - 1, 1, -1):          # last-2.pt -> last-3.pt, then last-1.pt -> last-2.pt
        if os.path.exists(names[i - 1]):
            os.replace(names[i - 1], names[i])
    if keep > 1 and os.path.exists(path):
        pathlib.Path(names[1]).unlink(missing_ok=True)
        try:            # a second name for the same file: at no moment is there no last.pt
            os.link(path, names[1])
        except OSError:    # a file system without hard links
            os.replace(path, names[1])
    os.replace(f'{path}.new', path)
