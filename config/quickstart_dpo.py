# DPO on the quickstart model's own answers, compared by tests: an answer that passes is better than one that
# fails. Of two that pass, one with a single return statement is better than one without; SFT did not teach this.
# nll_weight adds SFT's loss on the better answers, so this is DPO with an SFT term. Without this
# term, DPO has no measurable gain here, even at its best learning rate (docs/practice.md).
# You should see margin 0 at the first step and a rising margin after it. One epoch is 26 steps.
# In bash run.sh, single-return answers go from 54% to 94% of those that pass, and the model solves 3 points
# more of the practice tasks (5 on average over five seeds).
# For longer runs use 3e-5 (docs/log.md, "What we called DPO was DPO with an SFT term").
# Hardware: two CPU cores with native bfloat16 need about 1 minute, including the answers.
#
#   python dpo.py config/quickstart_dpo.py
init_from = 'out/quickstart_sft'
_data_from = 'python eval.py --ckpt=out/quickstart_sft --tasks=problems ' \
             '--splits=example_train,practice_train --n_problems=750 --num_samples=3 --batch_size=512 --max_new_tokens=64 ' \
             '--allow_code_execution=True --out=out/quickstart_sft/mined/eval.json && ' \
             'python chats.py --source=out/quickstart_sft/mined/samples.jsonl --prefer=both ' \
             '--out_dir=data/pairs'
data_dir = 'data/pairs'
out_dir = 'out/quickstart_dpo'
epochs = 1
batch_size = 32
learning_rate = 1e-4
nll_weight = 1.0
warmup_steps = 0.75     # a long warmup, so that the first updates are small
_expect = {'val_loss': (0.48, 0.7)}      # five seeds, and Python 3.10 to 3.14: 0.553 to 0.643
