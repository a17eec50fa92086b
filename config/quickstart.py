# A language model of Python from Python's own source, in minutes on a laptop: what `bash run.sh` trains.
# 4.2M parameters: 4 layers, 256 wide, context 256. 500 steps of 8 x 256 = 2,048 tokens: 1.02M tokens, 0.4 of
# an epoch of what prepare.py makes of the standard library. Muon is at step 375 where AdamW (1.5e-3) was at
# step 700, and takes a fifth more time for a step.
# You should see val_loss 5.6 at step 125, 4.9 at 250, 4.5 at 375 and 4.3 (1.57 bits per byte) at 500, after 4
# minutes on two cores.
#
#   python prepare.py --out_dir=data/quickstart --vocab_size=4096
#   python train.py config/quickstart.py
data_dir = 'data/quickstart'
out_dir = 'out/quickstart'
n_layer = 4
n_head = 4              # heads of 64: as fast as six of 32 in a model of 192
n_embd = 256
block_size = 256
batch_size = 8
max_steps = 500
optimizer = 'muon'
learning_rate = 3e-3
warmup_steps = 50
eval_interval = 125
eval_tokens = 32_768
save_interval = 125
log_interval = 25
sample_prompt = 'def mean(values):\n'
