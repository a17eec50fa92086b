#!/usr/bin/env bash
# Every speed that LOG.md compares with a peer's, in one go, each in a process of its own. One that fails, as
# where a peer is not installed or a file is missing, is one line, and the rest still runs.
#
#     pip install -r bench/requirements.txt
#     SHAKESPEARE=tinyshakespeare.txt HUMANEVAL=HumanEval.jsonl.gz bash bench/all.sh | tee all.txt
#     bash bench/all.sh --tiny        # a minute or two on an idle machine: does all of it run?
#
# Also: PYTHON, THREADS (1: of nanoGPT's budget), CKPT (out/quickstart: generation), LIMIT (3600: seconds of a
# row), ROUNDS. Without SHAKESPEARE the text is downloaded. Nothing else should run: only ratios survive that.
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python} threads=${THREADS:-1} ckpt=${CKPT:-out/quickstart}
rounds() { [ -n "$tiny" ] && echo 1 || echo "${ROUNDS:-$1}"; }
tiny= scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[ "${1:-}" = --tiny ] && tiny=yes

row() {     # NAME COMMAND...: its output, or why there is none, and how long it took
    echo; echo "== $1"; shift
    local began=$SECONDS
    timeout "${LIMIT:-3600}" "$@" 2>"$scratch/errors" ||
        echo "failed: $(grep -v '^ *$' "$scratch/errors" | tail -n 1 | cut -c 1-300)"
    echo "($((SECONDS - began)) s)"
}

shakespeare() {     # the data, then both runs
    $python prepare.py --source="${SHAKESPEARE:-shakespeare}" --tokenizer=char --out_dir="$scratch/char" \
        >"$scratch/prepared" && $python bench/time_to_loss.py "$scratch/char" "$threads"
}
export -f shakespeare
export python threads scratch SHAKESPEARE

flag() { grep -qE 'avx512_bf16|amx_bf16|\bbf16\b' /proc/cpuinfo && echo yes || echo no; }
echo "machine: $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), $(nproc --all) cores, native bfloat16: $(flag)," \
    "$($python -c 'import torch; print("torch", torch.__version__)')," \
    "commit $(git rev-parse --short HEAD 2>/dev/null), load $(cut -d ' ' -f 1 /proc/loadavg)," \
    "$(date +%F)${tiny:+, tiny: these figures mean nothing}"

row "seconds to 1.8857 on nanoGPT's CPU budget, $threads thread(s)" \
    env ROUNDS="$(rounds 2)" ${tiny:+STEPS=50} bash -c shakespeare
row "training, beside transformers' Llama" \
    env ROUNDS="$(rounds 3)" ${tiny:+STEPS=2} "$python" bench/train_speed.py ${tiny:+shakespeare_cpu}
row 'BPE training, 32,768 tokens, beside HF tokenizers and rustbpe' \
    env ROUNDS="$(rounds 5)" "$python" bench/bpe_train.py ${tiny:+1}
row 'encoding, beside HF tokenizers' \
    env ROUNDS="$(rounds 5)" ${tiny:+MEGABYTES=1} "$python" bench/bpe_encode.py
row "generation, beside transformers' generate" \
    env ROUNDS="$(rounds 3)" ${tiny:+NEW=4} "$python" bench/generate_speed.py ${tiny:+quickstart}
[ -n "$tiny" ] || row 'generation from a checkpoint' \
    env ROUNDS="$(rounds 3)" "$python" bench/generate_speed.py "$ckpt"
row 'prepare.py: MB/s and memory' \
    "$python" bench/prepare_speed.py --megabytes="$([ -n "$tiny" ] && echo 1 || echo 30,300)" \
    --folder="$scratch/prepare"
if [ -n "$tiny" ] && [ -n "${HUMANEVAL:-}" ]; then
    zcat "$HUMANEVAL" | head -n 8 | gzip >"$scratch/few.jsonl.gz"
    HUMANEVAL=$scratch/few.jsonl.gz
fi
row 'programs a second in the sandbox, beside plain processes' \
    "$python" bench/sandbox_speed.py "${HUMANEVAL:-HumanEval.jsonl.gz}" --rounds="$(rounds 3)"
