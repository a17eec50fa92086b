# "Mini" with the settings of a lesson that docs/claims.md checks: 27,402,752 parameters, not 50M. With
# --n_layer=8 --n_head=11 --n_embd=704 --n_ffn=2112 there are 51,736,256. 20 tokens a parameter are 548
# million, and Tiny Shakespeare has one million, so use your own data. We have not run it.
#
#   python train.py config/mini.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
data_dir = 'data/shakespeare_byte'
out_dir = 'out/mini'
n_layer = 8
n_head = 8
n_embd = 512
n_ffn = 1536
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
