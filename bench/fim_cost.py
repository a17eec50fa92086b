"""
What does --fim cost from left to right, and what does it buy? A small model (2 layers, 64 wide, 128 tokens of
context) on the standard library's code, with --fim=0 and --fim=0.5, the same steps and the same blocks.

    python bench/fim_cost.py out/fim_cost [STEPS] [SEEDS]       # a folder that this script fills

val: bits per byte of held-out text, read from left to right. middle: bits per byte of lines that were cut out
of held-out functions. exact: the share of these that the most probable answer is. left to right: given the
text before the gap, and for exact the length of the line. fill: given both sides.
"""
import json
import math
import os
import subprocess
import sys

import infill
import torch
from model import load_checkpoint
from parts.sample import asking
from tokenizer import Tokenizer

SHAPE = ['--n_layer=2', '--n_head=2', '--n_embd=64', '--block_size=128', '--batch_size=16',
         '--optimizer=muon', '--learning_rate=1e-2', '--dtype=float32', '--device=cpu', '--eval_tokens=32768',
         '--sample_tokens=1', '--num_samples=1']
N = 300                             # gaps


def call(script, *arguments):
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', script)
    subprocess.run([sys.executable, here, *arguments], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, 'OMP_NUM_THREADS': '1'})


@torch.no_grad()
def nats_of(model, tokenizer, prompt, answer):
    """-ln of the probability that a text behind a prompt begins with the ids of an answer. Neither end of the
    answer need be the end of a token: of the first id, the bytes that the prompt has already are given; for
    the last, every token counts that begins with its bytes."""
    x = torch.tensor([(prompt.ids + answer)[-model.config.block_size - 1:]])                # (1, T + 1)
    log_p = model(x[:, :-1])[0][0, -len(answer):].log_softmax(-1)                           # (n, V)
    found = log_p[range(len(answer) - 1), answer[:-1]].sum()
    found += log_p[-1, tokenizer.heal(answer)[1]].logsumexp(0)
    if prompt.allowed:
        found -= log_p[0, prompt.allowed].logsumexp(0)
    return -found.item()


def bits_of(model, tokenizer, gaps, fill):
    """Bits per byte of the middles of gaps, given the prefix, or both sides. This is fair, because the gaps
    begin behind an indentation: tokens end there anyway."""
    T = model.config.block_size
    nats = n_bytes = 0
    for _, prefix, middle, suffix in gaps:
        if fill:
            prompt, answer = asking.between(tokenizer, prefix, suffix, T, T)[0], tokenizer.encode(middle)
        else:
            prompt = asking.encode(tokenizer, prefix)
            answer = (tokenizer.begin + tokenizer.encode(prefix + middle))[len(prompt.ids):]
        nats += nats_of(model, tokenizer, prompt, answer)
        n_bytes += len(middle.encode())
    return nats / math.log(2) / n_bytes


def arm(folder, share, steps, seed):
    """Train one model; {name: its figure}."""
    out = f'{folder}/fim{share}_{seed}'
    if not os.path.exists(f'{out}/last.pt'):
        call('train.py', f'--data_dir={folder}/data', f'--out_dir={out}', f'--fim={share}', f'--seed={seed}',
             f'--max_steps={steps}', f'--warmup_steps={steps // 20}', f'--eval_interval={steps}',
             f'--save_interval={steps}', *SHAPE)
    with open(f'{out}/metrics.jsonl', encoding='utf-8') as f:
        found = {'val': [json.loads(line) for line in f if '"val_bpb"' in line][-1]['val_bpb']}
    model = load_checkpoint(f'{out}/last.pt')[0].eval()
    tokenizer = Tokenizer.load(f'{out}/tokenizer.json')
    items = [item for item in infill.read(f'{folder}/data', tokenizer)
             if len(tokenizer.encode(item['text'])) < model.config.block_size * 3 // 4]
    gaps = infill.choose_gaps(items, 'single-line', N, 0)
    for fill in (False, True) if share else (False,):
        result = infill.summarise(infill.measure(model, tokenizer, gaps, 'single-line', fill))
        name = 'fill' if fill else 'left to right'
        found |= {f'middle, {name}': bits_of(model, tokenizer, gaps, fill), f'exact, {name}': result['exact']}
    return found | {'n': len(gaps)}


def main(folder, steps=300, seeds=3):
    if not os.path.exists(f'{folder}/data/meta.json'):
        call('prepare.py', '--source=stdlib', f'--out_dir={folder}/data', '--vocab_size=1024')
    found = {0.0: [], 0.5: []}
    for seed in range(seeds):
        for share, rows in found.items():
            rows.append(arm(folder, share, steps, seed))
            figures = ', '.join(f'{name} {figure:.4g}' for name, figure in rows[-1].items())
            print(f'fim {share}, seed {seed}: {figures}', flush=True)
    print(f'\n{steps} steps, {seeds} seeds, {found[0.0][0]["n"]} lines: mean (lowest to highest)\n')
    names = [name for name in found[0.5][0] if name != 'n']
    print('| --fim | ' + ' | '.join(names) + ' |\n' + '|---' * (len(names) + 1) + '|')
    for share, rows in found.items():
        cells = [[row[name] for row in rows if name in row] for name in names]
        cells = [f'{sum(c) / len(c):.3f} ({min(c):.3f} to {max(c):.3f})' if c else '' for c in cells]
        print(f'| {share:g} | ' + ' | '.join(cells) + ' |')
    differences = [b['val'] - a['val'] for a, b in zip(*found.values())]
    print('\nval, 0.5 minus 0, by seed: ' + ', '.join(f'{d:+.4f}' for d in differences))


if __name__ == '__main__':
    main(sys.argv[1], *map(int, sys.argv[2:]))
