# SFT of the quickstart model on the examples of parts/eval/problems.py.
# Steps: 5,000 problems x 2 epochs / 32 = 312. New problems teach more than more epochs of the same ones.
# You should see val_loss fall to about 0.2: the answers are short, and most of their tokens are easy.
# Bits per byte of the base data rise from 1.5 to 3.1: the model forgets. With --replay=1 they rise to 1.8.
# Hardware: two CPU cores with native bfloat16 need about 2 minutes.
#
#   python sft.py config/quickstart_sft.py
init_from = 'out/quickstart'
data_from = 'python prepare.py --kind=sft --out_dir=data/sft'
data_dir = 'data/sft'
base_dir = 'data/quickstart'    # measures how much of the base data is forgotten
out_dir = 'out/quickstart_sft'
epochs = 2
batch_size = 32
optimizer = 'muon'
learning_rate = 3e-3
warmup_steps = 0.032    # 10 of 312
eval_tokens = 16_384
expect = {'val_loss': (0.15, 0.24)}     # three seeds on one CPU: 0.162 to 0.219
