#!/usr/bin/env bash
# The full run as a record: all training that ends in OUT, the folder of the model that is measured. The base model
# trains on DATA. A patch may change anything here and in the scripts: stages, their order, settings. The only answers
# are the 2,000 that prepare.py --kind=sft writes, because with 30,000 the board would measure who writes more.
#
#     bash bench/full_run.sh PYTHON DATA OUT SEED [flags of the last stage]       # bench/arms.py runs and measures it
set -euo pipefail
python=$1 data=$(realpath "$2") out=$(realpath -m "$3") seed=$4
cd "$(dirname "$0")/.."
"$python" train.py config/quickstart.py --data_dir="$data" --out_dir="$out-base" --seed="$seed"
"$python" prepare.py --kind=sft --out_dir="$out-examples"
"$python" sft.py config/quickstart_sft.py --init_from="$out-base" --data_dir="$out-examples" --base_dir="$data" \
    --out_dir="$out-sft" --seed="$seed"
"$python" eval.py --ckpt="$out-sft" --out="$out-mined/eval.json" --tasks=problems --allow_code_execution=True --batch_size=512 \
    --max_new_tokens=64 --timeout=1 --splits=review,feedback --n_problems=750 --num_samples=3 --seed="$seed"
"$python" prepare.py --kind=sft --source="$out-mined/samples.jsonl" --dedup=exact --out_dir="$out-passed"
cat "$out-examples/train.jsonl" >> "$out-passed/train.jsonl"
"$python" sft.py config/quickstart_rejection.py --init_from="$out-sft" --data_dir="$out-passed" --base_dir="$data" \
    --out_dir="$out" --seed="$seed" "${@:5}"
