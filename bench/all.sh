#!/usr/bin/env bash
# Every speed that docs/numbers.md compares with a peer's, one after the other. One that fails, as where a
# peer is not installed, is one line, and the rest still runs. Nothing else should run on the machine.
#
#     pip install -r bench/requirements.txt
#     bash bench/all.sh | tee all.txt
scratch=$(mktemp -d)
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
row python bench/transformers_speed.py train
row python bench/transformers_speed.py generate
row python bench/bpe.py train
row env SPLIT=gpt2 python bench/bpe.py train
row python bench/bpe.py encode
