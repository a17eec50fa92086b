"""
Characters, bytes or BPE? The same small model (4 layers, 128 wide, 64 tokens of context) on the same text,
with the same number of training tokens and, beside it, with the same FLOPs: bits per byte on the held-out
tenth. Loss per token cannot be compared, because a token of BPE holds several characters.

    python bench/characters_or_bpe.py SOURCE [STEPS] [SEEDS]        # shakespeare, stdlib, a file or a folder

SOURCE is that of prepare.py. All arms hold out the same text, and all of it is measured.
"""
import json
import os
import subprocess
import sys

import peers  # noqa: F401, puts this checkout on the path
from parts.train import planner

MODEL = {'n_layer': 4, 'n_head': 4, 'n_kv_head': 4, 'n_embd': 128, 'n_ffn': 320, 'block_size': 64,
         'vocab_size': 0}                       # that of the data
BATCH = 12
ARMS = {'characters': ['--tokenizer=char'], 'bytes': ['--tokenizer=byte'],
        'BPE 1,000': ['--vocab_size=1000'], 'BPE 4,096': ['--vocab_size=4096']}
WORK = 'out/characters_or_bpe'
ONE_THREAD = {**os.environ, 'OMP_NUM_THREADS': '1'}     # a model this small loses by threads


def call(*command):
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=ONE_THREAD)


def read(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)


def prepared(arm, source):
    """The folder of an arm's data. No rules: every arm gets the same text."""
    folder = f'{WORK}/{arm.replace(" ", "_").replace(",", "")}'
    few = ['--max_docs=150'] if source == 'stdlib' else []
    call('prepare.py', f'--source={source}', f'--out_dir={folder}', '--mode=raw', '--dedup=none',
         '--pii=False', *few, *ARMS[arm])
    return folder


def bits(data, steps, seed):
    """Train for so many steps; bits per byte of all held-out text."""
    call('train.py', f'--data_dir={data}', f'--out_dir={WORK}/run', '--overwrite=True', f'--seed={seed}',
         *(f'--{name}={value}' for name, value in MODEL.items()), f'--batch_size={BATCH}',
         f'--max_steps={steps}', f'--warmup_steps={steps // 10}', '--optimizer=adamw', '--learning_rate=2e-3',
         f'--eval_interval={steps}', f'--save_interval={steps}', '--eval_tokens=2048', '--device=cpu',
         '--dtype=float32', '--sample_prompt=', '--sample_tokens=1')
    call('eval.py', f'--ckpt={WORK}/run', f'--data_dir={data}', '--random_init=False', '--device=cpu',
         f'--out={WORK}/eval.json')
    return read(f'{WORK}/eval.json')['tasks']['loss']['trained']['bits_per_byte']


def main(source, steps=500, seeds=3):
    print(f'{source}; {steps} steps of {BATCH} x {MODEL["block_size"]} tokens, or the FLOPs of that with '
          f'characters; AdamW, {seeds} seeds: mean and range\n')
    print('| arm | vocabulary | bytes per token | MFLOPs per token | steps | bits per byte |')
    print('|---|---|---|---|---|---|')
    base = None
    for arm in ARMS:
        folder = prepared(arm, source)
        meta = read(f'{folder}/meta.json')
        shape = MODEL | {'vocab_size': meta['vocab_size'], 'tie_embeddings': True}
        per_token = planner.flops_per_token(shape, MODEL['block_size'])
        length = meta['bytes']['val'] / meta['tokens']['val']
        base = base or per_token
        same_flops = round(steps * base / per_token)
        for n in (steps, same_flops) if same_flops < 0.95 * steps else (steps,):
            found = [bits(folder, n, seed) for seed in range(seeds)]
            print(f'| {arm} | {meta["vocab_size"]:,} | {length:.2f} | {per_token / 1e6:.2f} | {n} | '
                  f'{sum(found) / seeds:.3f} ({min(found):.3f} to {max(found):.3f}) |', flush=True)


if __name__ == '__main__':
    main(sys.argv[1], *map(int, sys.argv[2:]))
