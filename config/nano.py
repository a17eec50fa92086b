# "Nano-trickster": the settings of its lesson, verbatim. 5,180,672 parameters; the lesson says 11,234,816.
# What really has 11M is this with --n_ffn=2048 (11,078,912). One epoch is 61 steps, so 10,000 steps read the
# text 163 times: the lesson's training loss of 0.88 may be reached, its validation loss of 0.93 is not to be
# expected. best.pt keeps the lowest; --dropout=0.2 should lower it. Not run to the end here.
#
#   python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte
#   python train.py config/nano.py
data_dir = 'data/shakespeare_byte'
out_dir = 'out/nano'
n_layer = 6
n_head = 8
n_embd = 256
n_ffn = 768
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65 of them, so the loss falls to ln 65 = 4.17 at once
batch_size = 32         # the lesson's 16 x 2 accumulated; two devices take 16 each
micro_batch_size = 16
max_steps = 10_000
learning_rate = 3e-4    # the lesson's
min_lr = 3e-5
warmup_steps = 1000
grad_clip = 1.0
log_interval = 50
eval_interval = 500
eval_tokens = 111_539   # all of them
save_interval = 1000
sample_prompt = 'ROMEO:'
sample_tokens = 200
