"""
A longer context: the weights of a model stay, and RoPE turns more slowly.

    python -m extras.longer_context --init_from=out/base --out_dir=out/longer --block_size=2048
    python train.py --init_from=out/longer --block_size=2048 --max_steps=50 --out_dir=out/tuned

    changes({'block_size': 256, ...}, 1024, 'llama3')   # what changes in the config of a model

A model is only good at positions that it was trained on, so a short training must follow. llama3
slows the slow rotations down by new / old context and keeps the fast ones, which tell neighbors
apart; linear slows all of them down. --rope_scaling=none --rope_theta=N raises the base of all
wavelengths instead: to its value times factor^(D / (D - 2)), where factor is new / old context and
D the width of a head.

Reads:  the model and the tokenizer in init_from
Writes: out_dir/best.pt and tokenizer.json
"""
import dataclasses, os, shlex
from typing import Literal
from configurator import Mistake, configure
from model import GPT
from tokenizer import Tokenizer

init_from = 'out/base'      # folder of a model, or one .pt file in it
out_dir = 'out/longer'      # folder to write, which must not exist
block_size = 1024           # tokens of the new context
rope_scaling: Literal['none', 'linear', 'llama3'] = 'llama3'
rope_theta = 0.0            # base of RoPE's wavelengths; 0 = the model's own


def changes(config, block_size, rope_scaling, rope_theta=0.0):
    """Return what changes in the config of a model, a dict, if it reads block_size tokens at a
    time. RoPE is stretched by block_size over the context of the first training."""
    old = config['rope_scaling']
    # An earlier stretching wrote down the context of the first training (llama3) or a factor.
    first_context = old[3] if len(old) == 4 else config['block_size'] / (old or [1])[0]
    factor = block_size / first_context
    scalings = {'none': old, 'linear': (factor,), 'llama3': (factor, 1.0, 4.0, first_context)}
    return {'block_size': block_size, 'rope_scaling': scalings[rope_scaling],
            'rope_theta': rope_theta or config['rope_theta']}


def open_model(path):
    """Return the model of a folder or a .pt file, and the tokenizer beside it."""
    beside = os.path.join(path if os.path.isdir(path) else os.path.dirname(path), 'tokenizer.json')
    try:
        model = GPT.load(path)
        tokenizer = Tokenizer.load(beside)
    except ValueError as e:
        raise Mistake(e) from e
    if 'reward_head' in model.saved:
        raise Mistake(f'{path} is a reward model, which scores texts and writes none; '
                      'start from the model that it was made of')
    if model.saved.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
        raise Mistake(f'{beside} is not the tokenizer that {path} was trained with; copy it there')
    return model, tokenizer


def write_folder(out_dir, model, tokenizer, trained):
    """Write a folder like one of train.py. trained: settings of the run that it comes from."""
    if os.path.exists(out_dir):
        raise Mistake(f'--out_dir={out_dir} is there already; name another, or move it away')
    os.makedirs(out_dir)
    tokenizer.save(os.path.join(out_dir, 'tokenizer.json'))
    model.save(os.path.join(out_dir, 'best.pt'), tokenizer_hash=tokenizer.hash, config=trained)


def next_command(script, out_dir, **settings):
    """Return the command that trains the model in out_dir, with those settings that are known."""
    settings = {'init_from': out_dir, 'out_dir': f'{out_dir.rstrip("/")}_trained'} | settings
    flags = [f'--{name}={value}' for name, value in settings.items()
             if value not in (None, 'clm')]         # clm is the default
    return shlex.join(['python', script, *flags])


if __name__ == '__main__':
    configure(globals())
    model, tokenizer = open_model(init_from)
    config, trained = vars(model.config), model.saved.get('config', {})
    if block_size <= config['block_size']:
        raise Mistake(f'--block_size={block_size} must be above the {config["block_size"]} tokens '
                      f'that {init_from} reads')
    longer = GPT(dataclasses.replace(
        model.config, **changes(config, block_size, rope_scaling, rope_theta)))
    longer.load_state_dict(model.state_dict())
    write_folder(out_dir, longer, tokenizer, trained)
    script = f'{trained.get("stage", "train")}.py'.replace('rl.py', 'sft.py')   # rl.py has no data
    print(f'{out_dir} reads {block_size:,} tokens; next, because it was not trained on that many:\n'
          + next_command(script, out_dir, block_size=block_size,
                         data_dir=trained.get('data_dir'), objective=trained.get('objective')))
