#!/usr/bin/env bash
# The full run as a record: all training that ends in OUT, the folder of the model that is measured. The base model
# trains on DATA. A patch may change anything here and in the scripts: stages, their order, settings, examples.
#
#     bash bench/full_run.sh PYTHON DATA OUT SEED [flags of the last stage]       # bench/arms.py runs and measures it
set -euo pipefail
python=$1 data=$(realpath "$2") out=$(realpath -m "$3") seed=$4
cd "$(dirname "$0")/.."
"$python" train.py config/quickstart.py --data_dir="$data" --out_dir="$out-base" --seed="$seed"
"$python" prepare.py --kind=sft --out_dir="$out-examples"
"$python" sft.py config/quickstart_sft.py --init_from="$out-base" --data_dir="$out-examples" --base_dir="$data" \
    --out_dir="$out-sft" --seed="$seed"
"$python" rl.py config/quickstart_rl.py --init_from="$out-sft" --out_dir="$out" --seed="$seed" \
    --allow_code_execution=True "${@:5}"
