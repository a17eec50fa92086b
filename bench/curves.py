r"""
Write down the curves of runs, so that plot.py can draw them behind other people's: is my loss normal?

    python bench/curves.py config/quickstart.py out/s?/base > curves.jsonl
    python plot.py --runs=out/mine --reference=curves.jsonl

A config file is the preset of the folders that follow it. A line is one metric of one run:
{"preset": "config/quickstart.py", "stage": "base", "seed": 1, "metric": "val_loss", "steps": [0, 125], ...}

These commands made the files in config/curves, when SFT was evaluated after each epoch. The stages are those
of run.sh:

    python prepare.py --out_dir=data/quickstart --vocab_size=4096
    python prepare.py --kind=sft --out_dir=data/sft
    for seed in 1 2 1337; do                # 1337 is what a script takes without --seed
        o=out/s$seed
        python train.py config/quickstart.py --seed=$seed --out_dir=$o/base
        python sft.py config/quickstart_sft.py --seed=$seed --init_from=$o/base --out_dir=$o/sft
        python eval.py --ckpt=$o/sft --out=$o/sft/mined/eval.json --tasks=problems --splits=review,feedback \
            --n_problems=750 --num_samples=3 --batch_size=128 --max_new_tokens=64 --timeout=1 \
            --allow_code_execution=True
        python prepare.py --kind=preference --source=$o/sft/mined/samples.jsonl --prefer=both --dedup=exact \
            --out_dir=$o/pairs
        python dpo.py config/quickstart_dpo.py --seed=$seed --init_from=$o/sft --data_dir=$o/pairs \
            --out_dir=$o/dpo
        python rl.py config/quickstart_rl.py --seed=$seed --init_from=$o/sft --out_dir=$o/rl \
            --allow_code_execution=True
        python prepare.py --kind=sft --source=$o/sft/mined/samples.jsonl --dedup=exact --out_dir=$o/passed
        cat data/sft/train.jsonl >> $o/passed/train.jsonl
        python sft.py config/quickstart_rejection.py --seed=$seed --init_from=$o/sft --data_dir=$o/passed \
            --out_dir=$o/rejection
    done
    python bench/curves.py config/quickstart.py out/s*/base config/quickstart_sft.py out/s*/sft \
        config/quickstart_dpo.py out/s*/dpo config/quickstart_rl.py out/s*/rl > config/curves/quickstart.jsonl
    name=quickstart_rejection
    python bench/curves.py config/$name.py out/s*/rejection > config/curves/$name.jsonl

    python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char
    for name in shakespeare_cpu shakespeare_laptop; do
        for seed in 1 2 3; do python train.py config/$name.py --seed=$seed --out_dir=out/$name-$seed; done
        python bench/curves.py config/$name.py out/$name-? > config/curves/$name.jsonl
    done
"""
import json
import sys

import peers                # noqa: F401   it puts this checkout on the path
from parts.eval import run_log

# The thick lines of plot.py's panels about the model, apart from lr, update_ratio and clip_fraction
METRICS = ('val_loss', 'val_bpb', 'base_bpb', 'grad_norm', 'val_margin', 'val_accuracy', 'val_kl',
           'val_reward', 'informative', 'val_length', 'entropy')


def main():
    preset = ''
    for argument in sys.argv[1:]:
        if argument.endswith('.py'):
            preset = argument
            continue
        run = run_log.read_run(argument)
        if not run['rows']:
            print(f'error: {argument} is no folder of a run: metrics.jsonl is missing or empty',
                  file=sys.stderr)
            sys.exit(2)
        about = {'preset': preset, 'stage': run['stage'], 'seed': run['config'].get('seed')}
        for metric in METRICS:
            if metric in run['curves']:
                points = run['curves'][metric].T
                points = points[::-1 - (len(points) - 1) // 60][::-1]       # the last one is among them
                steps = [int(step) for step, _ in points]
                values = [float(f'{value:.4g}') for _, value in points]
                print(json.dumps({**about, 'metric': metric, 'steps': steps, 'values': values}))


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv} or not sys.argv[1:]:
        sys.exit(print(__doc__))
    main()
