"""
Write down the curves of runs, so that plot.py can draw them behind other people's: is my loss normal?

    mkdir -p config/curves
    for seed in 1 2 3; do python train.py config/quickstart.py --seed=$seed --out_dir=out/seed$seed; done
    python bench/curves.py out/seed1 out/seed2 out/seed3 > config/curves/quickstart.jsonl
    python plot.py --runs=out/mine --reference=config/curves/quickstart.jsonl

A line is one metric of one run, with at most 60 points:
{"stage": "base", "seed": 1, "metric": "val_loss", "steps": [0, 125, 250], "values": [8.368, 5.312, 4.697]}
"""
import json
import sys

import peers                # noqa: F401   it puts this checkout on the path
from parts.eval import run_log

# Of the panels of plot.py that are about the model, without the percentages.
METRICS = ('val_loss', 'loss', 'val_bpb', 'base_bpb', 'grad_norm', 'val_margin', 'val_kl', 'val_reward',
           'val_length', 'entropy')


def main():
    for run in map(run_log.read_run, sys.argv[1:]):
        about = {'stage': run['stage'], 'seed': run['config']['seed']}
        for metric in METRICS:
            rows = [row for row in run['rows'] if row.get(metric) is not None]
            if rows:
                rows = rows[::-1 - (len(rows) - 1) // 60][::-1]         # the last one is among them
                steps = [row['step'] for row in rows]
                values = [float(f'{row[metric]:.4g}') for row in rows]
                print(json.dumps({**about, 'metric': metric, 'steps': steps, 'values': values}))


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv} or not sys.argv[1:]:
        sys.exit(print(__doc__))
    main()
