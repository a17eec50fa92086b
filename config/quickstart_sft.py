# SFT of the quickstart model on the examples of parts/eval/problems.py.
# Steps: 6 x 2,000 examples / 32 = 372, so each is seen six times.
# People have a few thousand examples, so this preset takes 2,000. New examples teach more than epochs of the
# same ones: of 30,000, each seen once, the model learns nearly everything (docs/practice.md).
# You should see val_loss fall to between 0.21 and 0.27. What still fails are mostly wrong values, then names.
# Bits per byte of the base data rise from 1.5 to 3.6: the model forgets. (The report of run.sh measures other
# tokens, the first ones: 1.3 and 3.3.) --replay=1 keeps most of what it knew: in a run of 312 steps they rose
# to 1.8 instead of 3.1.
# Hardware: two CPU cores with native bfloat16 need about 2.2 minutes.
#
#   python sft.py config/quickstart_sft.py
init_from = 'out/quickstart'
data_from = 'python prepare.py --kind=sft --out_dir=data/sft'
data_dir = 'data/sft'
base_dir = 'data/quickstart'    # measures how much of the base data is forgotten
out_dir = 'out/quickstart_sft'
epochs = 6
batch_size = 32
optimizer = 'muon'
learning_rate = 3e-3
warmup_steps = 0.032    # 12 of 372
eval_interval = 124     # two epochs
eval_tokens = 16_384
expect = {'val_loss': (0.18, 0.3)}      # five seeds, each of the base too: 0.215 to 0.265
