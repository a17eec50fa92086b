#!/usr/bin/env bash
# bash run.sh         the full run on this machine: text -> tokenizer -> base -> SFT -> DPO, RL, rejection sampling, all measured
# bash run.sh tour    one text through the whole pipeline: docs/tour.md, with the values of your models
# bash run.sh test    the tests; bash run.sh exercise [N]: functions for you to write, graded by the tests
set -euo pipefail
trap 'exit 130' INT     # train.py saves at Ctrl-C and ends well; nothing follows then
cd "$(dirname "$0")"
export PYTHONUTF8=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=
# Linux keeps the large blocks of memory that were freed: asking for new pages takes an eighth of a training step.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647
# install FILE: once, and again when the file changes. Python compiles the modules that it imports, and keeps them;
# pip would compile all of them, which is a third of the installation.
install() {
    [ -x .venv/bin/python ] || python3 -m venv .venv
    local stamp=".venv/installed-${1//\//-}"
    if ! cmp -s "$1" "$stamp"; then
        echo "== installing $1"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r "$1"
        cp "$1" "$stamp"
    fi
}
# What part of the time each command below takes, in percent: ours, on two cores without bfloat16.
shares=(1 0 25 1 0 20 3 5 0 4 3 0 23 3 0 0 7 3 0 1 0 1)
n=0
gone=0
python() {      # the commands below are what you would type
    local left=''
    if [ $gone -ge 20 ]; then
        left=", about $(( (SECONDS - began) * (100 - gone) / gone / 60 + 1 )) minutes to go"
    fi
    printf '\n== %d of %d (%d%% of our time), after %d minutes%s: python %s\n' \
        $((n + 1)) ${#shares[@]} "${shares[n]}" $((SECONDS / 60)) "$left" "$*"
    gone=$((gone + shares[n]))
    n=$((n + 1))
    .venv/bin/python "$@" || { echo "run.sh: failed while: python $*" >&2; exit 1; }
}

case "${1:-}" in ''|tour|test|exercise) ;; *) echo "run.sh: no $1 here; leave it out, or take tour, test or exercise" >&2; exit 2;; esac
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "run.sh: Python 3.10 or newer is needed")'
install requirements.txt
[ "${1:-}" != tour ] || exec .venv/bin/python learn/tour.py --allow_code_execution=True "${@:2}"
[ -z "${1:-}" ] || install tests/requirements.txt
[ "${1:-}" != exercise ] || exec .venv/bin/python learn/exercise.py "${@:2}"
[ -z "${1:-}" ] || exec .venv/bin/python -m pytest -q -rs -n auto --dist worksteal "${@:2}"

began=$SECONDS
# the models' answers are executed here, in extras/tasks/sandbox.py: a guard against accidents
answers='--allow_code_execution=True --batch_size=512 --max_new_tokens=64 --timeout=1 --overwrite=True'
held_out="$answers --tasks=loss,problems --splits=example,practice,unseen --num_samples=1 --loss_tokens=16384"

# 1. the base model: a language model of Python's own standard library; it solves none of 30 problems of each kind
python clean.py --overwrite=True
python prepare.py --vocab_size=4096 --overwrite=True
python train.py config/quickstart.py --overwrite=True
python eval.py --ckpt=out/quickstart $held_out --n_problems=30
# 2. SFT: 2,000 small problems with their answers; then one greedy answer to each of 500 other problems of a kind
python chats.py --overwrite=True
python sft.py config/quickstart_sft.py --overwrite=True
python eval.py --ckpt=out/quickstart_sft --random_init=False $held_out --n_problems=500
# 3. practice: it answers problems whose answers nobody wrote, three times each, and their tests score them
python eval.py --ckpt=out/quickstart_sft --out=out/quickstart_sft/mined/eval.json $answers \
    --tasks=problems --splits=example_train,practice_train --n_problems=750 --num_samples=3
#    DPO: two answers to a problem, one better than the other, are a pair
python chats.py --source=out/quickstart_sft/mined/samples.jsonl --prefer=both --out_dir=data/pairs --overwrite=True
python dpo.py config/quickstart_dpo.py --overwrite=True
python eval.py --ckpt=out/quickstart_dpo --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_dpo --out=out/quickstart_dpo/compare.json
# 4. reinforcement learning, from SFT: it answers such problems again and again, and what passes is rewarded
python rl.py config/quickstart_rl.py --overwrite=True --allow_code_execution=True
python eval.py --ckpt=out/quickstart_rl --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_rl --out=out/quickstart_rl/compare.json
# 5. the baseline, rejection sampling: the answers of step 3 that passed become examples, mixed with those of step 2
python chats.py --kind=sft --source=out/quickstart_sft/mined/samples.jsonl --prefer=passed \
    --out_dir=data/rejection --overwrite=True
cat data/sft/train.jsonl >> data/rejection/train.jsonl
python sft.py config/quickstart_rejection.py --overwrite=True
python eval.py --ckpt=out/quickstart_rejection --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_rejection --out=out/quickstart_rejection/compare.json
# 6. all in one table and one picture; next: python sample.py --ckpt=out/quickstart_rejection --chat=True
all=out/quickstart,out/quickstart_sft,out/quickstart_dpo,out/quickstart_rl,out/quickstart_rejection
python plot.py --runs=$all --out=out/quickstart/dashboard.png
python -m extras.tasks.chain_report --minutes=$((SECONDS / 60)).$((SECONDS % 60 / 6))
# ... and three of the models on a page that needs no Python
python -m extras.models.export --ckpt=out/quickstart,out/quickstart_sft,out/quickstart_rejection --to=html \
    --out=out/quickstart/demo.html --allow_code_execution=True
