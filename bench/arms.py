"""
Two ways to train, compared seed by seed: which one ends with fewer bits per byte?

    python bench/arms.py --b='--min_lr=0'               # config/quickstart.py, 150 steps, five seeds
    python bench/arms.py config/exercise.py --a='--dropout=0.1' --b='--dropout=0.2' --steps=600
    git worktree add ../changed                         # to compare other code: change it there, then
    python bench/arms.py --b_in=../changed

Each run is train.py in a process of its own. Runs with the same seed begin with the same weights and read the
same batches, so the difference is taken seed by seed. It counts if there are five seeds or more, and if its
mean is at least two standard errors from 0. The last line is JSON, for LOG.md.
"""
import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile

from peers import ROOT
from parts.train import journal

ENOUGH = 5          # seeds


def final_bits(code, config, steps, flags, seed):
    """Bits per byte at the end of a run of the train.py in the folder `code`."""
    with tempfile.TemporaryDirectory() as out:
        length = [f'--max_steps={steps}', f'--warmup_steps={max(1, steps // 10)}',
                  f'--eval_interval={steps}', f'--save_interval={steps}']
        command = [f'{code}/train.py', config, *length, *shlex.split(flags), f'--seed={seed}',
                   '--num_samples=1', '--sample_tokens=1', f'--out_dir={out}/run']
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with open(f'{out}/run/metrics.jsonl', encoding='utf-8') as f:
            rows = [json.loads(line) for line in f]
    return [row['val_bpb'] for row in rows if 'val_bpb' in row][-1]


def difference(a, b):
    """Mean and standard error of b - a, seed by seed, and the verdict. a, b: bits per byte of each seed.

    >>> difference([2.0, 2.1], [1.9, 2.0])[2]
    'too few seeds'
    """
    differences = [after - before for before, after in zip(a, b, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < ENOUGH:
        return mean, math.nan, 'too few seeds'
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, 'counts' if abs(mean) >= 2 * error else 'does not count'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('config', nargs='?', default='config/quickstart.py')
    parser.add_argument('--a', default='', help='settings of the first arm')
    parser.add_argument('--b', default='', help='settings of the second arm')
    parser.add_argument('--a_in', default=ROOT, help='a checkout of this repository')
    parser.add_argument('--b_in', default=ROOT, help='another one')
    parser.add_argument('--seeds', type=int, default=ENOUGH)
    parser.add_argument('--steps', type=int, default=150)
    args = parser.parse_args()

    bits = {'a': [], 'b': []}
    for seed in range(args.seeds):
        for arm, code, flags in (('a', args.a_in, args.a), ('b', args.b_in, args.b)):
            bits[arm].append(final_bits(os.path.abspath(code), args.config, args.steps, flags, seed))
        print(f'seed {seed}: {bits["a"][-1]:.4f} and {bits["b"][-1]:.4f} bits per byte', flush=True)

    mean, error, verdict = difference(bits['a'], bits['b'])
    print(f'b - a: {mean:+.4f} ± {error:.4f}: {verdict}')
    print(json.dumps({'command': shlex.join(sys.argv), 'machine': journal.machine_and_versions(), **bits}))


if __name__ == '__main__':
    main()
