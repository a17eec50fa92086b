#!/usr/bin/env bash
# bash run.sh         the whole chain on this machine: text -> tokenizer -> model -> measured -> written text
# bash run.sh test    the tests
# Either makes .venv and installs what it needs the first time; after that, nothing uses the network.
set -euo pipefail
cd "$(dirname "$0")"
export PYTHONUTF8=1 TOKENIZERS_PARALLELISM=false
current='starting'
trap 'echo "run.sh: failed while: $current" >&2' ERR

install() {     # install FILE: once, and again when the file changes
    if [ ! -x .venv/bin/python ]; then
        current='making .venv (needs python3 with the venv module, 3.10 or newer)'
        python3 -c 'import sys; assert sys.version_info >= (3, 10), "Python 3.10 or newer is needed"'
        python3 -m venv .venv
    fi
    local stamp=".venv/installed-${1//\//-}"
    if ! cmp -s "$1" "$stamp"; then
        current="installing $1"
        echo "== $current"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
        cp "$1" "$stamp"
    fi
}

stage() {       # stage SCRIPT ARGUMENTS
    current="python $*"
    echo; echo "== $current"
    .venv/bin/python "$@"
}

install requirements.txt
if [ "${1:-}" = test ]; then
    install tests/requirements.txt
    current='the tests'
    .venv/bin/python -m pytest -q -n auto --dist loadscope "${@:2}"
    exit
fi

began=$SECONDS
stage prepare.py --out_dir=data/quickstart --vocab_size=4096
stage train.py config/quickstart.py --overwrite=True
stage eval.py --ckpt=out/quickstart --data_dir=data/quickstart
stage sample.py --ckpt=out/quickstart --prompt=$'def mean(values):\n    ' --num_samples=3 --stop_at=function
current='the report'
.venv/bin/python - $((SECONDS - began)) <<'PYTHON'
import json, os, platform, sys
import torch
out, minutes = 'out/quickstart', int(sys.argv[1]) / 60
with open(f'{out}/metrics.jsonl', encoding='utf-8') as f:
    steps = [json.loads(line) for line in f]
with open(f'{out}/eval.json', encoding='utf-8') as f:
    loss = json.load(f)['tasks']['loss']
with open('data/quickstart/meta.json', encoding='utf-8') as f:
    data = json.load(f)
trained, untrained = loss['trained'], loss['untrained']
train_s = sum(m['dt'] for m in steps if 'dt' in m) / max(1, sum('dt' in m for m in steps)) * steps[-1]['step']
machine = f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}'
rows = [('corpus', 'training tokens', f'{data["tokens"]["train"]:,}', '2.3 million'),
        ('tokenizer', 'bytes per token', f'{data["bytes"]["val"] / data["tokens"]["val"]:.2f}', '3.96'),
        ('untrained', 'bits per byte', f'{untrained["bits_per_byte"]:.3f}', '3.05'),
        ('base', 'first loss, nats', f'{next(m["loss"] for m in steps if "loss" in m):.3f}', 'ln 4096 = 8.318'),
        ('base', 'validation loss, nats', f'{trained["nats"]:.3f}', '4.49'),
        ('base', 'bits per byte', f'{trained["bits_per_byte"]:.3f}', '1.635'),
        ('base', 'training, minutes', f'{train_s / 60:.1f}', '3.7 on two cores'),
        ('all', 'minutes', f'{minutes:.1f}', 'under 6 on two cores')]
table = ['| stage | figure | here | you should see |', '|---|---|---|---|', *('| ' + ' | '.join(r) + ' |' for r in rows)]
with open(f'{out}/REPORT.md', 'w', encoding='utf-8') as f:
    f.write('\n'.join([f'# quickstart on {machine}', '', *table, '']))
with open(f'{out}/report.json', 'w', encoding='utf-8') as f:
    json.dump({'stages': [{'name': 'base', 'val_bpb': trained['bits_per_byte'], 'val_nats': trained['nats'],
                           'untrained_bpb': untrained['bits_per_byte'], 'minutes': train_s / 60}],
               'minutes': minutes, 'machine': machine}, f, indent=1)
print(f'\n== {out}/REPORT.md', *table, sep='\n')
print(f"""
next: .venv/bin/python sample.py --ckpt={out} --prompt=$'import os\\n' --max_new_tokens=100
      .venv/bin/python tokenizer.py --load={out}/tokenizer.json --report=.
      .venv/bin/python prepare.py --source=YOUR_FOLDER --out_dir=data/mine
      .venv/bin/python train.py config/quickstart.py --data_dir=data/mine --out_dir=out/mine""")
PYTHON
