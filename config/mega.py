# "Mega", verbatim: 1,130,981,376 parameters, TinyLlama's shape. 18 GB of weights, gradients and Adam moments
# in float32: one GPU of 40 GB or more. Wants 20 billion tokens.
#
#   python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte
#   python train.py config/mega.py
data_dir = 'data/shakespeare_byte'
out_dir = 'out/mega'
n_layer = 22
n_head = 32
n_embd = 2048
n_ffn = 5632
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65 of them, so the loss falls to ln 65 = 4.17 at once
batch_size = 32         # the lesson's 16 x 2 accumulated; two devices take 16 each
micro_batch_size = 4
max_steps = 10_000
learning_rate = 3e-4    # the lesson's; 1e-4 is safer at this width
min_lr = 3e-5
warmup_steps = 1000
grad_clip = 1.0
log_interval = 50
eval_interval = 500
eval_tokens = 111_539   # all of them
save_interval = 1000
sample_prompt = 'ROMEO:'
sample_tokens = 200
