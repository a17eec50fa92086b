# "Mega", the shape of TinyLlama, from a lesson that docs/claims.md checks: 1,130,981,376 parameters. Weights,
# gradients and Adam's moments take 16 bytes a parameter: 18 GB, so one GPU of 40 GB or more. 20 tokens a
# parameter are 22.6 billion, so use your own data. We have not run it.
#
#   python train.py config/mega.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
data_dir = 'data/shakespeare_byte'
out_dir = 'out/mega'
n_layer = 22
n_head = 32
n_embd = 2048
n_ffn = 5632
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65, so the loss falls quickly to ln 65 = 4.17
batch_size = 32         # the lesson: 16, accumulated twice; two devices take 16 each
micro_batch_size = 4
max_steps = 10_000
learning_rate = 3e-4    # the lesson's; scaled by 1/sqrt(width) from nano it would be 1.1e-4
min_lr = 3e-5
warmup_steps = 1000
grad_clip = 1.0
log_interval = 50
eval_interval = 500
eval_tokens = 111_539   # the whole validation set
save_interval = 1000
sample_prompt = 'ROMEO:'
sample_tokens = 200
