# DPO on the quickstart model's own answers, judged by execution: an answer that passed over one that failed,
# and of those that passed, one return statement over several ("taste", which the demonstrations do not show).
# You should see the margin rise from 0 to about 0.3 within one epoch, of a dozen steps. For more of them take
# 3e-5: at 1e-4, forty cost four points of what SFT had taught (LOG.md). Pairs say little, and much can be
# unlearned.
#
#   python eval.py --ckpt=out/quickstart_sft --tasks=problems --splits=train --problems_seed=1 \
#       --n_problems=500 --num_samples=8 --batch_size=64 --allow_code_execution=True \
#       --out=out/quickstart_sft/mined/eval.json
#   python prepare.py --kind=preference --source=out/quickstart_sft/mined/samples.jsonl --prefer=both \
#       --dedup=exact --out_dir=data/pairs
#   python dpo.py config/quickstart_dpo.py
init_from = 'out/quickstart_sft'
data_dir = 'data/pairs'
out_dir = 'out/quickstart_dpo'
epochs = 1
batch_size = 32
beta = 0.1
nll_weight = 1.0
learning_rate = 1e-4
