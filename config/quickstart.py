# A language model of Python from Python's own source, in minutes on a laptop: what `bash run.sh` trains.
# 4.2M parameters: 4 layers, 256 wide, context 256. 700 steps of 8 x 256 = 2,048 tokens: 1.43M tokens, 0.6 of
# an epoch of what prepare.py makes of the standard library.
# You should see val_loss 5.7 at step 175, 5.0 at 350, 4.7 at 525 and 4.5 (1.65 bits per byte) at 700, after 4
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
max_steps = 700
learning_rate = 1.5e-3
warmup_steps = 50
eval_interval = 175
eval_tokens = 32_768
save_interval = 175
log_interval = 25
sample_prompt = 'def mean(values):\n'
