# Rejection sampling, the baseline of rl.py: SFT on the quickstart model's own answers that passed their
# tests, mixed with the examples that it began with. It uses the answers that dpo.py makes pairs of.
# Steps: 3,277 conversations / 32 = 102, each seen once, with a third of SFT's rate.
# The examples stay, because answers that passed are mostly to easy problems (docs/practice.md).
# Hardware: two CPU cores with native bfloat16 need about half a minute, and 0.8 minutes for the answers.
#
#   python sft.py config/quickstart_rejection.py
init_from = 'out/quickstart_sft'
_data_from = 'python prepare.py --kind=sft --source=out/quickstart_sft/mined/samples.jsonl ' \
             '--dedup=exact --out_dir=data/rejection && ' \
             'cat data/sft/train.jsonl >> data/rejection/train.jsonl'
data_dir = 'data/rejection'
base_dir = 'data/quickstart'    # measures how much of the base data is forgotten
out_dir = 'out/quickstart_rejection'
epochs = 1
batch_size = 32
optimizer = 'muon'
learning_rate = 1e-3
warmup_steps = 0.1
_expect = {'val_loss': (0.03, 0.11)}    # five seeds, and Python 3.10 to 3.14: 0.044 to 0.077
