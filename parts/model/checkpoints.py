"""
Checkpoints: how they are written, found and read, and what may be done with the model in one.

    model, rest = open_model('out/base')                # also one file, or a folder of Hugging Face
    model, tokenizer, rest = open_to_sample('out/sft')

A model knows one tokenizer, so every function that opens both checks that they belong together.
"""
import contextlib, errno, glob, os, pathlib
import torch
from extras.lora import knows_chat
from model import GPT, GPTConfig
from parts import Mistake
from parts.train import folders
from tokenizer import Tokenizer

FORMAT = 'nanoparrot-checkpoint-1'      # as in model.py
SHAPE = 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'tie_embeddings'


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


def write(path, keep, state):
    """Write a checkpoint. If path is last.pt, an older last.pt becomes last-1.pt, last-1.pt becomes
    last-2.pt, ... and the newest `keep` of them stay."""
    with replacing(path) as new:
        with open(new, 'wb') as f:
            torch.save({'format': FORMAT, **state}, f)
            f.flush()
            os.fsync(f.fileno())
        # After a crash in this loop there may be no last.pt, but then newest() finds last-1.pt.
        if os.path.basename(path) == 'last.pt':
            names = names_of(os.path.dirname(path))[:keep]
            for newer, older in reversed([*zip(names, names[1:])]):
                if os.path.exists(newer):
                    os.replace(newer, older)


def read(path, device='cpu'):
    """Return the dict that write() wrote. It is a Mistake if the file is damaged or not ours, or if
    a weight is not finite."""
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


def names_of(out_dir):
    """Return the paths of a run's checkpoints, as it names them, the newest first."""
    names = ['last.pt', *(f'last-{i}.pt' for i in range(1, 100))]
    return [os.path.join(out_dir, name) for name in names]


def newest(out_dir):
    """Return the newest checkpoint in out_dir that can be read, to resume from it. A damaged one
    is renamed to *.damaged."""
    for path in filter(os.path.exists, names_of(out_dir)):
        try:
            state = read(path)
        except ValueError as e:
            print(f'{e}\nlooking for an older checkpoint', flush=True)
            # If it kept its name, the next save would move it down and push out a good one.
            with contextlib.suppress(OSError):
                os.replace(path, f'{path}.damaged')
            continue
        if not state.get('moments'):
            raise Mistake(f'{path} has a model but no run to resume; start a new '
                          f'run from its weights: --init_from={path} and another --out_dir')
        return state
    raise Mistake(f'{out_dir} has no checkpoint to resume from; to start a new run, leave out '
                  '--init_from=resume')


def find(path, flag=''):
    """Return the path of a folder's best checkpoint, or path itself if it is a file or a folder of
    Hugging Face. flag: the name of the setting that has the path, for a message."""
    if not os.path.exists(path):
        raise Mistake(f'{path} does not exist; {folders.instead_of(path, flag)}')
    if os.path.isdir(path):
        for file in (os.path.join(path, 'best.pt'), *names_of(path)):
            if os.path.exists(file):
                return file
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
    rest = state.keys() - {'model', 'unmerged', 'moments'}
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
    tokenizer = Tokenizer.load(beside)
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash,
                   f"copy the run's own tokenizer.json back into {folder_of(ckpt)}")
    return tokenizer


def check_context(init_from, context, block_size):
    """Refuse sequences that are longer than a model's context."""
    if block_size > context:
        raise Mistake(f'{init_from} has a context of {context} tokens, less than '
                      f'block_size={block_size}; set --block_size={context}, or extend it: '
                      'python -m extras.longer_context')


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


def open_to_tune(config, state):
    """Return the model to fine-tune and its tokenizer: from the checkpoint `state` of a run that is
    resumed, or else from config['init_from']."""
    origin = config['out_dir'] if state else config['init_from']
    if state:               # processes.load_state() loads the weights, with the optimizer's moments
        model, saved = GPT(GPTConfig(**state['model_config'])), state
    else:
        model, saved = open_model(origin, flag='init_from')
        refuse_reward_model(origin, saved)
    if not model.config.causal:
        raise Mistake(f'{origin} was trained with --objective=mlm and cannot answer; use a '
                      'model of clm')
    tokenizer = tokenizer_beside(origin, saved)
    if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
        raise Mistake(f'the tokenizer of {origin} has no <|im_start|> and <|im_end|>, which '
                      'frame each message; pretrain with one that has: python prepare.py '
                      '--tokenizer=bpe')
    if config.get('lora') and not knows_chat(model, tokenizer):
        raise Mistake(f'lora={config["lora"]} cannot train the new rows of <|im_start|> and '
                      '<|im_end|>; set --lora=0')
    check_context(origin, model.config.block_size, config.get('block_size', 0))
    return model, tokenizer
