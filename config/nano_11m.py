# "Nano" at the size that its lesson claims: 11,078,912 parameters (11,234,816 there; config/nano.py, with
# the lesson's own settings, has 5,180,672). Otherwise the settings are those of config/nano.py.
# 20 tokens a parameter are 222 million, and Tiny Shakespeare has one million, so use your own data.
# Hardware: one GPU, or a CPU and patience: weights, gradients and Adam's moments take 0.2 GB. We have not run
# it.
#
#   python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte
#   python train.py config/nano_11m.py --plan=1xL4        # prints what the run will take; trains nothing
#   python train.py config/nano_11m.py
data_dir = 'data/shakespeare_byte'
data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
out_dir = 'out/nano_11m'
n_layer = 6
n_head = 8
n_embd = 256
n_ffn = 2048
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65, so the loss falls quickly to ln 65 = 4.17
batch_size = 32         # the lesson: 16, accumulated twice; two devices take 16 each
micro_batch_size = 16
max_steps = 10_000
learning_rate = 3e-4    # the lesson's
min_lr = 3e-5
warmup_steps = 1000
grad_clip = 1.0
log_interval = 50
eval_interval = 500
eval_tokens = 111_539   # the whole validation set
save_interval = 1000
sample_prompt = 'ROMEO:'
sample_tokens = 200
