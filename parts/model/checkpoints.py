"""
Checkpoints: how they are found and read, and what may be done with the model in one.

    model, rest = open_model('out/base')                # also one file, or a folder of Hugging Face
    model, tokenizer, rest = open_to_sample('out/sft')

A model knows one tokenizer, so every function that opens both checks that they belong together.
"""
import contextlib, errno, glob, os, pathlib
import torch
from model import GPT, GPTConfig
from parts import Mistake
from parts.train import folders
from tokenizer import Tokenizer

FORMAT = 'nanoparrot-checkpoint-1'      # as in model.py


# --- files ----------------------------------------------------------------------------------------
@contextlib.contextmanager
def replacing(path):
    """Give the name of a new file next to path and rename it to path at the end, so that a crash or
    a full disk leaves the old file."""
    try:
        yield f'{path}.tmp'
    except (OSError, RuntimeError) as e:        # torch wraps a failed write in a RuntimeError
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        raise OSError(f'cannot write {path} ({e}); the file that was there before is '
                      'unchanged') from e
    os.replace(f'{path}.tmp', path)


def read(path, device='cpu'):
    """Return the dict of a checkpoint. It is a Mistake if the file is damaged or not ours, or if a
    weight is not finite."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state['format'] != FORMAT:
            raise ValueError(f'format={state["format"]}')
    except Exception as e:
        # A disk that does not answer or a full memory is no damage to the file. But some files that
        # were cut off raise an OSError with EINVAL.
        if isinstance(e, OSError) and e.errno != errno.EINVAL or 'memory' in repr(e).lower():
            raise
        # Only torch's first sentence, because the next ones advise to let the file run code.
        raise Mistake(f'{path} is not a readable checkpoint ({type(e).__name__}: '
                      f'{str(e).split(". ")[0]:.100}); use another') from e
    for name, p in state['model'].items():
        if not p.isfinite().all():
            raise Mistake(f'{path}: the weights {name} are not finite; start from another '
                          'checkpoint')
    return state


def find(path, flag=''):
    """Return the path of a folder's best checkpoint, or path itself if it is a file or a folder of
    Hugging Face. flag: the name of the setting that has the path, for a message."""
    if not os.path.exists(path):
        raise Mistake(f'{path} does not exist; {folders.instead_of(path, flag)}')
    if os.path.isdir(path):
        for name in ('best.pt', 'last.pt', 'last-1.pt'):
            if os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
        if not glob.glob(os.path.join(glob.escape(path), '*.safetensors')):
            raise Mistake(f'{path} has no best.pt, last.pt or *.safetensors; run train.py first')
    return path


def folder_of(path):
    """Return the folder of a run, given that folder or a checkpoint in it."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def open_model(path, device='cpu', flag=''):
    """Return the GPT of a checkpoint, a run's folder or a folder of Hugging Face, and the rest of
    what was saved. flag: as in find()."""
    path = find(path, flag)
    if os.path.isdir(path):
        return GPT.load(path).to(device), {}
    state = read(path, device)
    model = GPT(GPTConfig(**state['model_config'])).to(device)
    model.load_state_dict(state['model'])
    rest = state.keys() - {'model', 'weights', 'optimizer', 'unmerged', 'moments'}
    return model, {name: state[name] for name in rest}


# --- from the weights of another run --------------------------------------------------------------
def same_tokenizer(one, one_hash, other, other_hash, remedy):
    """Refuse the models or data at the paths `one` and `other` if their tokenizers differ. None is
    an unknown hash. remedy: what the user can do."""
    if None not in (one_hash, other_hash) and one_hash != other_hash:
        raise Mistake(f'{one} was made with the tokenizer of hash {one_hash}, {other} has '
                      f'{other_hash}: the same ids mean different text; {remedy}')


def tokenizer_beside(ckpt, state):
    """Return the tokenizer in a checkpoint's folder. Refuse it if the model was trained with a
    different one."""
    beside = os.path.join(folder_of(ckpt), 'tokenizer.json')
    try:
        tokenizer = Tokenizer.load(beside)
    except ValueError as error:
        raise Mistake(error) from None
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash,
                   f"copy the run's own tokenizer.json back into {folder_of(ckpt)}")
    return tokenizer


def refuse_reward_model(ckpt, state):
    if 'reward_head' in state:
        raise Mistake(f'{ckpt} is a reward model: it scores answers and writes none (how well: '
                      'val_accuracy in its metrics.jsonl); use the model of sft.py')


def open_to_sample(ckpt, device='cpu', continues=False):
    """Return a model to sample from, its tokenizer and what else the checkpoint holds. continues:
    refuse a model that fills gaps."""
    model, state = open_model(ckpt, device, 'ckpt')
    if continues and (objective := state.get('config', {}).get('objective', 'clm')) != 'clm':
        raise Mistake(f'{ckpt}: a model of --objective={objective} fills gaps; --serve, --export '
                      'and eval.py need one that continues texts; its val_loss is in '
                      "metrics.jsonl; see it fill a gap: sample.py --prompt='a <|mask|>'")
    refuse_reward_model(ckpt, state)
    tokenizer = tokenizer_beside(ckpt, state)
    return model, tokenizer, state
