# SFT of the quickstart model on the examples of parts/eval/problems.py.
# Steps: 30,000 problems / 32 = 937. Each is seen once: new problems teach more than epochs of the same
# ones (docs/practice.md, "When do examples run out?").
# You should see val_loss fall to about 0.04: the answers are short, and most of their tokens are easy.
# Bits per byte of the base data rise from 1.5 to 3.6: the model forgets. --replay=1 keeps most of what it
# knew: in a run of 312 steps they rose to 1.8 instead of 3.1.
# Hardware: two CPU cores with native bfloat16 need about 3.3 minutes.
#
#   python sft.py config/quickstart_sft.py
init_from = 'out/quickstart'
data_from = 'python prepare.py --kind=sft --out_dir=data/sft'
data_dir = 'data/sft'
base_dir = 'data/quickstart'    # measures how much of the base data is forgotten
out_dir = 'out/quickstart_sft'
epochs = 1
batch_size = 32
optimizer = 'muon'
learning_rate = 3e-3
warmup_steps = 0.032    # 30 of 937
eval_tokens = 16_384
expect = {'val_loss': (0.03, 0.07)}     # two runs: 0.043, 0.046
