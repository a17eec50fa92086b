# "Midi" with the settings of a lesson that docs/claims.md checks: 92,228,352 parameters, not 200M. With
# --n_layer=16 --n_head=16 --n_embd=1024 --n_ffn=2816 there are 205,816,832. 20 tokens a parameter are 1.8
# billion, so it needs a GPU and your own data. We have not run it.
#
#   python train.py config/midi.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
data_dir = 'data/shakespeare_byte'
out_dir = 'out/midi'
n_layer = 12
n_head = 12
n_embd = 768
n_ffn = 2304
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
