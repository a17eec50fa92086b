#!/bin/bash
# rlx.sh NAME SEED FLAGS...
n=$1; s=$2; shift 2
/tmp/x $C .venv/bin/python rl.py config/quickstart_rl.py --init_from=out/quickstart_sft --seed=$s --problems_seed=$((s+1)) --out_dir=out/x/$n --overwrite=True --allow_code_execution=True --expect=None --log_interval=1 --max_steps=50 --eval_interval=50 --save_interval=50 "$@" && rm -f out/x/$n/last-1.pt out/x/$n/best.pt && ./ev.sh $C out/x/$n >> /tmp/q/res
