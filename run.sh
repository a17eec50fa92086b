#!/usr/bin/env bash
# bash run.sh         the whole chain on this machine: text -> tokenizer -> base model -> SFT -> DPO, each measured
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
    echo "$1 $((SECONDS - began))" >> out/quickstart_minutes
}

install requirements.txt
if [ "${1:-}" = test ]; then
    install tests/requirements.txt
    current='the tests'
    .venv/bin/python -m pytest -q -n auto --dist loadscope "${@:2}"
    exit
fi

# What the models write is executed here, in sandbox.py: no network, no files, seconds. It is a guard against
# accidents; these models know nothing but the standard library and problems.py.
judged='--allow_code_execution=True --num_samples=8 --k=1,8 --batch_size=64 --max_new_tokens=64 --loss_tokens=40_000'
began=$SECONDS
mkdir -p out data/problems
rm -f out/quickstart_minutes
stage prepare.py --out_dir=data/quickstart --vocab_size=4096
stage train.py config/quickstart.py --overwrite=True
stage eval.py --ckpt=out/quickstart --tasks=loss,problems --n_problems=40 $judged

stage parts/problems.py --n=5000 --out=data/problems/train.jsonl
stage parts/problems.py --n=300 --split=validation --out=data/problems/val.jsonl
stage sft.py config/quickstart_sft.py --overwrite=True
stage eval.py --ckpt=out/quickstart_sft --tasks=loss,problems --random_init=False --n_problems=40 $judged

stage eval.py --ckpt=out/quickstart_sft --tasks=problems --splits=train --problems_seed=1 --n_problems=250 $judged \
    --out=out/quickstart_sft/mined/eval.json
stage prepare.py --kind=preference --source=out/quickstart_sft/mined/samples.jsonl --prefer=both --dedup=exact \
    --out_dir=data/pairs
stage dpo.py config/quickstart_dpo.py --overwrite=True
stage eval.py --ckpt=out/quickstart_dpo --tasks=loss,problems --random_init=False --n_problems=40 $judged
stage eval.py --tasks=compare --ckpt=out/quickstart_sft --compare=out/quickstart_dpo \
    --out=out/quickstart_dpo/compare.json

current='the report'
.venv/bin/python - <<'PYTHON'
import json, os, platform
import torch

def read(path):
    with open(path, encoding='utf-8') as f:
        return json.load(f)

with open('out/quickstart_minutes', encoding='utf-8') as f:
    ends = [int(line.split()[1]) / 60 for line in f]
took = [b - a for a, b in zip([0] + ends, ends)]
minutes = {'base': sum(took[:2]), 'sft': sum(took[3:6]), 'dpo': sum(took[7:10])}       # without evaluating
table = ['| stage | bits per byte | parses | pass@1, new variations | pass@8 | pass@1, new compositions | '
         'pass@1, new families | preferred way | minutes |', '|---' * 9 + '|']
stages = []
for name, folder in (('base', 'quickstart'), ('sft', 'quickstart_sft'), ('dpo', 'quickstart_dpo')):
    tasks = read(f'out/{folder}/eval.json')['tasks']
    loss, split = tasks['loss']['trained'], tasks['problems']['by_split']
    new, cell, family = split['variation'], split['cell'], split['family']
    stages.append({'name': name, 'val_bpb': loss['bits_per_byte'], 'val_nats': loss['nats'],
                   'parse_rate': new['parse_rate'], 'pass@1': new['pass@1'], 'pass@8': new['pass@8'],
                   'interval': new['interval'], 'pass@1_cells': cell['pass@1'],
                   'pass@1_families': family['pass@1'], 'preferred_rate': new['preferred_rate'],
                   'minutes': minutes[name]})
    low, high = new['interval']
    liked = f'{new["preferred_rate"]:.0%}' if new['preferred_rate'] is not None else '-'
    table.append(f'| {name} | {loss["bits_per_byte"]:.3f} | {new["parse_rate"]:.0%} | {new["pass@1"]:.1%} '
                 f'({low:.0%} to {high:.0%}) | {new["pass@8"]:.1%} | {cell["pass@1"]:.1%} | {family["pass@1"]:.1%} | '
                 f'{liked} | {minutes[name]:.1f} |')
untrained = read('out/quickstart/eval.json')['tasks']['loss']['untrained']['bits_per_byte']
machine = f'{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}'
with open('out/quickstart_dpo/metrics.jsonl', encoding='utf-8') as f:
    accuracy = [row['val_accuracy'] for row in map(json.loads, f) if 'val_accuracy' in row][-1]
beside = read('out/quickstart_dpo/compare.json')['tasks']['compare']
notes = [f'untrained: {untrained:.3f} bits per byte. {ends[-1]:.1f} minutes in all, on {machine}.',
         f'DPO: the better of two held-out answers has the higher reward in {accuracy:.0%} of the pairs.',
         'DPO beside SFT on the same {n} problems: pass@1 {gain:+.1%} (95 % interval {interval[0]:+.1%} to '
         '{interval[1]:+.1%}).'.format(gain=beside['b'] - beside['a'], **beside),
         'What SFT forgets of the standard library shows in bits per byte; sft.py --replay=1 keeps most of it.']
with open('out/quickstart/REPORT.md', 'w', encoding='utf-8') as f:
    f.write('\n'.join(['# quickstart', '', *table, '', *notes, '']))
with open('out/quickstart/report.json', 'w', encoding='utf-8') as f:
    json.dump({'stages': stages, 'reward_accuracy': accuracy, 'untrained_bpb': untrained, 'minutes': ends[-1],
               'machine': machine}, f, indent=1)
print('\n== out/quickstart/REPORT.md', *table, *notes, sep='\n')
print("""
next: .venv/bin/python sample.py --ckpt=out/quickstart_dpo --chat=True
      .venv/bin/python sample.py --ckpt=out/quickstart --prompt='def mean(values):' --stop_at=function
      .venv/bin/python prepare.py --source=YOUR_FOLDER --out_dir=data/mine
      .venv/bin/python train.py config/quickstart.py --data_dir=data/mine --out_dir=out/mine""")
PYTHON
