"""
Seconds of training until Tiny Shakespeare's validation loss is 1.8857, about where the CPU run of nanoGPT's
README ends (4 layers, 128 wide, context 64, 2,000 steps of 12 x 64 characters), beside nanoGPT itself.

    git clone https://github.com/karpathy/nanoGPT          # 3adf61e is what LOG.md compares with
    OMP_NUM_THREADS=1 python bench/time_to_loss.py tinyshakespeare.txt nanoGPT

Ours is train.py with config/shakespeare_cpu.py. `short` is the same model in a run made for this loss alone:
240 steps, and a higher rate, which falls linearly. nanoGPT's is its train.py, with the flags of its README.
Ours are judged on 38,400 fixed validation characters every 50 steps, `short` every 10, nanoGPT by its own
estimate on 38,400 random ones every 250. The seconds are those of the steps: judging is not counted.
"""
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

from peers import ROOT, median

TARGET, JUDGED = 1.8857, 38_400
SHORT = ['--max_steps=240', '--learning_rate=8e-3', '--min_lr=1e-3', '--warmup_steps=10', '--schedule=wsd',
         '--decay_steps=200']
README = ['--device=cpu', '--compile=False', '--block_size=64', '--batch_size=12', '--n_layer=4',
          '--n_head=4', '--n_embd=128', '--max_iters=2000', '--lr_decay_iters=2000', '--dropout=0.0']


def output_of(folder, *arguments):
    run = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    if run.returncode:
        sys.exit(print(run.stderr, file=sys.stderr) or 2)
    return run.stdout


def ours(scratch, flags=(), every=50):
    """[(seconds of training, validation loss)], from the run's metrics.jsonl."""
    output_of(ROOT, 'train.py', 'config/shakespeare_cpu.py', f'--data_dir={scratch}/data',
              f'--out_dir={scratch}/out', '--overwrite=True', f'--eval_interval={every}',
              f'--log_interval={every}', f'--eval_tokens={JUDGED}', '--num_samples=1', '--sample_tokens=1',
              *flags)
    with open(f'{scratch}/out/metrics.jsonl', encoding='utf-8') as f:
        rows = [json.loads(line) for line in f]
    dt = [row['dt'] for row in rows if 'dt' in row and row['step'] % every == 0]
    return [(every * sum(dt[:row['step'] // every]), row['val_loss']) for row in rows if 'val_loss' in row]


def nanogpt(scratch):
    """The same, from nanoGPT's 'step 250: train loss 2.1, val loss 2.2' and 'iter 250: ..., time 60ms, ...'.
    The time of a step that judges holds the judging, so these are left out of the mean."""
    printed = output_of(f'{scratch}/nanoGPT', 'train.py', 'config/train_shakespeare_char.py', *README,
                        '--eval_interval=250', '--log_interval=1', f'--eval_iters={JUDGED // (12 * 64)}')
    losses = re.findall(r'step (\d+): .* val loss ([\d.]+)', printed)
    times = re.findall(r'iter (\d+): .* time ([\d.]+)ms', printed)
    ms = [float(time) for step, time in times if int(step) % 250]
    return [(int(step) * sum(ms) / len(ms) / 1000, float(loss)) for step, loss in losses]


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    if len(sys.argv) != 3 or not os.path.exists(f'{sys.argv[2]}/config/train_shakespeare_char.py'):
        sys.exit(print(__doc__) or 2)
    with tempfile.TemporaryDirectory() as scratch:
        output_of(ROOT, 'prepare.py', f'--source={os.path.abspath(sys.argv[1])}', '--tokenizer=char',
                  f'--out_dir={scratch}/data')
        shutil.copytree(sys.argv[2], f'{scratch}/nanoGPT')
        shutil.copy(sys.argv[1], f'{scratch}/nanoGPT/data/shakespeare_char/input.txt')
        output_of(f'{scratch}/nanoGPT', 'data/shakespeare_char/prepare.py')

        runs = {'ours': ours, 'short': lambda scratch: ours(scratch, SHORT, 10), 'nanoGPT': nanogpt}
        results = {who: [] for who in runs}
        for _ in range(int(os.environ.get('ROUNDS', 2))):
            for who, train in runs.items():
                series = train(scratch)
                reached = next((seconds for seconds, loss in series if loss <= TARGET), math.inf)
                seconds, loss = series[-1]
                results[who].append((reached, seconds))
                print(f'{who}: {TARGET} after {reached:.1f} s; {loss:.4f} after {seconds:.1f} s', flush=True)
    theirs = results.pop('nanoGPT')
    for who, rows in results.items():
        seconds = median([row[0] for row in rows])
        sooner = median([q[1] / p[0] for p, q in zip(rows, theirs)])
        print(f"{who} to {TARGET}: {seconds:.1f} s; against nanoGPT's whole run: {sooner:.1f} times sooner")
