"""
A longer context: bits per byte by position, up to four times the context of the first training, for the ways
to extend it, before and after a short continued training. The tiny model and its data are made first.

    python bench/context.py out/context         # a folder that this script fills; minutes on one core

"none" leaves RoPE as it is. "ntk" raises rope_theta by 4^(D / (D - 2)), so that the slowest frequency is
divided by 4 and the fastest stays. linear and llama3 are those of train.py's --rope_scaling.
"""
import os
import subprocess
import sys

import numpy as np
import torch
import peers
from model import load_checkpoint
from parts.train.checkpoint import longer_context
from tokenizer import Tokenizer

T, D, FACTOR = 64, 32, 4
STEPS, MORE = 600, 60
SHAPE = ['--n_layer=4', '--n_head=4', '--n_embd=128', '--dtype=float32', '--device=cpu',
         '--eval_tokens=4096', '--sample_tokens=1', '--num_samples=1']
ARMS = {'none': ('none', 1e4), 'ntk': ('none', 1e4 * FACTOR ** (D / (D - 2))), 'linear': ('linear', 0.0),
        'llama3': ('llama3', 0.0)}          # rope_scaling, rope_theta


def run(script, *arguments):
    here = os.path.dirname(os.path.abspath(peers.__file__))
    subprocess.run([sys.executable, os.path.join(here, '..', script), *arguments], check=True,
                   stdout=subprocess.DEVNULL)


@torch.no_grad()
def by_position(model, ids, token_bytes, n_windows=200):
    """Bits per byte in each quarter of windows of FACTOR T tokens, spread evenly over ids."""
    starts = np.linspace(0, len(ids) - FACTOR * T - 1, n_windows).astype(np.int64)
    nats, n_bytes = np.zeros(FACTOR * T), np.zeros(FACTOR * T)
    for part in starts.reshape(-1, 10):
        tokens = np.stack([ids[s:s + FACTOR * T + 1].astype(np.int64) for s in part])       # (10, 4 T + 1)
        logits = model.eval()(torch.from_numpy(tokens[:, :-1]))[0]
        targets = torch.from_numpy(tokens[:, 1:])
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction='none')
        nats += losses.sum(0).numpy()
        n_bytes += token_bytes[tokens[:, 1:]].sum(0)
    quarters = lambda x: x.reshape(FACTOR, T).sum(1)
    return quarters(nats) / np.log(2) / quarters(n_bytes)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = sys.argv[1]
    data = f'--data_dir={folder}/data'
    if not os.path.exists(f'{folder}/data/meta.json'):
        run('prepare.py', f'--out_dir={folder}/data', '--vocab_size=1024')
    if not os.path.exists(f'{folder}/base/best.pt'):
        run('train.py', data, f'--out_dir={folder}/base', f'--block_size={T}', f'--max_steps={STEPS}',
            '--warmup_steps=50', '--learning_rate=3e-3', *SHAPE)
    base = load_checkpoint(f'{folder}/base')[0]
    ids = np.memmap(f'{folder}/data/val.bin', 'uint16', mode='r')
    token_bytes = np.array(Tokenizer.load(f'{folder}/data/tokenizer.json').text_bytes)

    print(f'bits per byte at positions 0-{T - 1}, ..., {3 * T}-{4 * T - 1}; the model has seen {T}')
    for name, (scaling, theta) in ARMS.items():
        changes = longer_context(folder, vars(base.config), FACTOR * T, theta, scaling)
        before = by_position(base.like(**changes), ids, token_bytes)
        out = f'{folder}/{name}'
        if not os.path.exists(f'{out}/last.pt'):
            run('train.py', data, f'--init_from={folder}/base', f'--out_dir={out}',
                f'--block_size={FACTOR * T}', f'--rope_scaling={scaling}', f'--rope_theta={theta}',
                f'--max_steps={MORE}', '--batch_size=8', '--warmup_steps=5', '--learning_rate=1e-3', *SHAPE)
        after = by_position(load_checkpoint(f'{out}/last.pt')[0], ids, token_bytes)
        print(f'{name:>8}  as it is: {" ".join(f"{x:.3f}" for x in before)}   after {MORE} steps: '
              f'{" ".join(f"{x:.3f}" for x in after)}', flush=True)
