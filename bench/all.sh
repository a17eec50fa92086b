#!/usr/bin/env bash
# Every speed that LOG.md compares with a peer's, one after the other. One that fails, as where a peer is not
# installed, is one line, and the rest still runs. Nothing else should run on the machine.
#
#     pip install -r bench/requirements.txt; git clone https://github.com/karpathy/nanoGPT
#     bash bench/all.sh tinyshakespeare.txt HumanEval.jsonl.gz nanoGPT | tee all.txt      # the two files are yours
shakespeare=$(realpath "$1") humaneval=$(realpath "$2") nanogpt=$(realpath "$3") scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$(dirname "$0")/.." || exit
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" TOKENIZERS_PARALLELISM=true

row() {     # row COMMAND...: its output, or the last line of its error
    printf '\n== %s\n' "$*"
    local began=$SECONDS
    "$@" 2>"$scratch/errors" || echo "failed: $(grep . "$scratch/errors" | tail -n 1)"
    echo "($((SECONDS - began)) s)"
}

lscpu | grep -E 'Model name|^CPU\(s\)'
grep -q avx512_bf16 /proc/cpuinfo && echo 'native bfloat16' || echo 'no native bfloat16'
git rev-parse --short HEAD
row env OMP_NUM_THREADS=1 python bench/time_to_loss.py "$shakespeare" "$nanogpt"
row python bench/transformers_speed.py train
row python bench/transformers_speed.py generate
row python bench/bpe.py train
row env SPLIT=gpt2 python bench/bpe.py train
row python bench/bpe.py encode
row python bench/prepare_speed.py --megabytes 30 300
row python bench/sandbox_speed.py "$humaneval"
