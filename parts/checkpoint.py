"""
Checkpoints: one file of tensors, numbers, strings, lists and dicts, so that it loads with weights_only=True.

    write('last.pt', {'model': model.state_dict(), 'step': 3})
    state = read('last.pt')

Copy this file alone: it needs torch.
"""
import os
import torch


def write(path, state):
    """Written beside path, flushed to the disk, then renamed: a crash or a full disk leaves the old file whole."""
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(f'{path}.tmp', path)
    except (OSError, RuntimeError) as e:                # torch wraps a failed write in a RuntimeError
        if os.path.exists(f'{path}.tmp'):
            os.remove(f'{path}.tmp')
        raise OSError(f'cannot write {path} ({e}); what was there before is unchanged') from e


def find(path):
    """The checkpoint that is meant by path: a file; best.pt, or else last.pt, of the folder of a run; or the folder
    itself, if it is one of Hugging Face."""
    if os.path.isdir(path):
        for name in ('best.pt', 'last.pt'):
            if os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
        if any(name.endswith('.safetensors') for name in os.listdir(path)):
            return path
        raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; train there first: python '
                                f'train.py --out_dir={path}')
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; expected a checkpoint file or the out_dir of a run')
    return path


def read(path, device='cpu'):
    """What write() wrote."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as e:                          # torch raises many kinds for a damaged or foreign file
        raise unreadable(path, e) from e


def unreadable(path, e):
    """The error that says why path is not a checkpoint of ours."""
    reason = (str(e).strip().splitlines() or [''])[0]
    return ValueError(f'{path} is not a readable checkpoint of ours ({type(e).__name__}: {reason}); if it was '
                      'cut off, use another or train again')


def same_tokenizer(trained, its_hash, other, other_hash):
    """Refuse a model and data, or a tokenizer, whose ids mean different text. trained, other: names for the
    message, paths; a hash of None is not known, and passes."""
    if None not in (its_hash, other_hash) and its_hash != other_hash:
        raise ValueError(f'{trained} was trained with tokenizer {its_hash}, {other} has {other_hash}: their ids '
                         'mean different text')
