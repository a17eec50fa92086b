#!/usr/bin/env bash
# bash run.sh         the full run on this machine: text -> tokenizer -> base -> SFT -> DPO, RL, rejection sampling, all measured
#                     after Ctrl-C or a crash, the same command continues; bash run.sh --again starts over
# bash run.sh tour    one text through the whole pipeline: docs/tour.md with the values of your models
# bash run.sh test    run the tests; bash run.sh exercise [N]: write functions, which the tests grade
set -euo pipefail
# At Ctrl-C, train.py saves and exits with code 0. The trap keeps the next command from running.
trap 'echo "run.sh: stopped; bash run.sh continues from here" >&2; exit 130' INT
cd "$(dirname "$0")"
export PYTHONUTF8=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=
# glibc keeps large freed blocks of memory, because getting new pages takes an eighth of a training step.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647
case "${1:-}" in
    ''|--again|tour|test|exercise) ;;
    *) echo "run.sh: unknown argument $1; use --again, tour, test, exercise, or no argument" >&2; exit 2 ;;
esac

# Without --no-compile, pip would compile all modules, a third of the installation time. Python compiles what it imports.
pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check --no-compile "$@"
}
# install FILE: install a requirements file, once, and again after the file changes
install() {
    local stamp=".venv/installed-${1//\//-}" python=.venv/bin/python cpu=https://download.pytorch.org/whl/cpu
    [ -x $python ] || python=python3
    if ! $python -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "run.sh: $python is $($python -V 2>&1), but must be 3.10 or newer; with a newer Python, type" \
            "python3.12 -m venv --clear .venv (or: uv venv --clear --seed --python=3.12), then bash run.sh" >&2
        exit 2
    fi
    [ $python != python3 ] || python3 -m venv .venv
    cmp -s "$1" "$stamp" && return
    if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
        echo "run.sh: .venv has no pip (uv creates it without): type uv pip install pip (or rm -r .venv), then bash run.sh" >&2
        exit 2
    fi
    if [ "$1" = requirements.txt ] && [ "$(uname)" = Linux ] && ! nvidia-smi > /dev/null 2>&1; then
        echo "== no NVIDIA GPU: installing PyTorch for CPUs from $cpu, about 200 MB"
        # Only torch comes from this index, and torch from no other index: one in pip.conf may have the CUDA build.
        PIP_EXTRA_INDEX_URL=$cpu pip_install --index-url=$cpu --no-deps --retries=0 --timeout=10 "$(grep ^torch "$1")" ||
            echo "== could not install from $cpu: installing PyTorch with CUDA from your usual index, about 3 GB"
    fi
    echo "== installing $1"
    pip_install -r "$1"
    cp "$1" "$stamp"
}
install requirements.txt
case "${1:-}" in
    tour)
        exec .venv/bin/python learn/tour.py --allow_code_execution=True "${@:2}" ;;
    test)
        install tests/requirements.txt
        exec .venv/bin/python -m pytest -q -rs -n auto --dist worksteal "${@:2}" ;;
    exercise)
        install tests/requirements.txt
        exec .venv/bin/python learn/exercise.py "${@:2}" ;;
esac

# The record has a checksum of the scripts, then a line for each finished command: total seconds so far, command.
record=out/quickstart/ended.txt
scripts=$(cat requirements.txt ./*.py config/*.py extras/*/*.py | cksum)
if [ "${1:-}" = --again ] || ! grep -qsx "$scripts" $record; then
    [ ! -e $record ] || echo '== the full run starts over, because of --again or because a script has changed'
    mkdir -p out/quickstart
    echo "$scripts" > $record
fi
total=$(grep -c '^python ' run.sh)
n=0
python() {      # the commands below are what you would type; commands that finished in an earlier call are skipped
    n=$((n + 1))
    local command=$* ended
    ended=$(sed -n "$((n + 1))p" $record)
    if [ "${ended#* }" = "$command" ]; then
        SECONDS=${ended%% *}
        echo "== $n of $total finished before: python $command"
        return
    fi
    if [ -n "$ended" ]; then        # this command has changed, so run it and all later commands
        head -n $n $record > $record.new
        mv $record.new $record
    fi
    # A trainer writes config.json when it starts. A config.json newer than the record means an interrupted run.
    if [[ ${2:-} = config/* && out/$(basename "${2:-}" .py)/config.json -nt $record ]]; then
        set -- "${@/--overwrite=True/--init_from=auto}"
    fi
    printf '\n== %d of %d, after %d minutes: python %s\n' $n $total $((SECONDS / 60)) "$*"
    if ! .venv/bin/python "$@"; then
        echo "run.sh: failed: python $*; bash run.sh continues from here" >&2
        exit 1
    fi
    echo "$SECONDS $command" >> $record
}

# eval.py runs generated programs in extras/tasks/sandbox.py, a guard against accidents
answers='--allow_code_execution=True --batch_size=512 --max_new_tokens=64 --timeout=1 --overwrite=True'
held_out="$answers --tasks=loss,problems --splits=example,practice,unseen --num_samples=1 --loss_tokens=16384"

# 1. the base model, trained on Python's standard library; it solves none of 30 problems of each kind
python clean.py --overwrite=True
python prepare.py --vocab_size=4096 --overwrite=True
python train.py config/quickstart.py --overwrite=True
python eval.py --ckpt=out/quickstart $held_out --n_problems=30
# 2. SFT on 2,000 small problems with answers; then one greedy answer to each of 500 other problems of each kind
python chats.py --overwrite=True
python sft.py config/quickstart_sft.py --overwrite=True
python eval.py --ckpt=out/quickstart_sft --random_init=False $held_out --n_problems=500
# 3. practice: the SFT model answers problems without reference answers, three times each, and tests grade the answers
python eval.py --ckpt=out/quickstart_sft --out=out/quickstart_sft/mined/eval.json $answers \
    --tasks=problems --splits=example_train,practice_train --n_problems=750 --num_samples=3
#    DPO on preference pairs: two answers to a problem, one better than the other
python chats.py --source=out/quickstart_sft/mined/samples.jsonl --prefer=both --out_dir=data/pairs --overwrite=True
python dpo.py config/quickstart_dpo.py --overwrite=True
python eval.py --ckpt=out/quickstart_dpo --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_dpo --out=out/quickstart_dpo/compare.json
# 4. reinforcement learning, from the SFT model: it answers the same kinds of problems; passing answers are rewarded
python rl.py config/quickstart_rl.py --overwrite=True --allow_code_execution=True
python eval.py --ckpt=out/quickstart_rl --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_rl --out=out/quickstart_rl/compare.json
# 5. the baseline, rejection sampling: SFT on the passing answers of step 3 and the examples of step 2
python chats.py --kind=sft --source=out/quickstart_sft/mined/samples.jsonl --prefer=passed \
    --out_dir=data/mined --overwrite=True
mkdir -p data/rejection
cp data/mined/*.json* data/rejection/
cat data/sft/train.jsonl >> data/rejection/train.jsonl
python sft.py config/quickstart_rejection.py --overwrite=True
python eval.py --ckpt=out/quickstart_rejection --random_init=False $held_out --n_problems=500
python -m extras.tasks.compare out/quickstart_sft out/quickstart_rejection --out=out/quickstart_rejection/compare.json
# 6. all scores in one table and one picture; next: python sample.py --ckpt=out/quickstart_rejection --chat=True
all=out/quickstart,out/quickstart_sft,out/quickstart_dpo,out/quickstart_rl,out/quickstart_rejection
python plot.py --runs=$all --out=out/quickstart/dashboard.png
python -m extras.tasks.chain_report --minutes=$((SECONDS / 60)).$((SECONDS % 60 / 6))
# and three of the models on a page that needs no Python
python -m extras.models.export --ckpt=out/quickstart,out/quickstart_sft,out/quickstart_rejection --to=html \
    --out=out/quickstart/demo.html --allow_code_execution=True
echo "== done: out/quickstart has REPORT.md and demo.html; bash run.sh --again starts over"
