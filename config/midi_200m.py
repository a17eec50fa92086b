# "Midi" at the size that its lesson claims: 205,816,832 parameters (200M there; config/midi.py, with
# the lesson's own settings, has 92,228,352). Otherwise the settings are those of config/midi.py.
# 20 tokens a parameter are 4.12 billion, and Tiny Shakespeare has one million, so use your own data.
# Hardware: one GPU of 24 GB: weights, gradients and Adam's moments take 3.3 GB. We have not run it.
#
#   python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte
#   python train.py config/midi_200m.py --plan=1xL4        # prints what the run will take; trains nothing
#   python train.py config/midi_200m.py
data_dir = 'data/shakespeare_byte'
data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
out_dir = 'out/midi_200m'
n_layer = 16
n_head = 16
n_embd = 1024
n_ffn = 2816
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65, so the loss falls quickly to ln 65 = 4.17
batch_size = 32         # the lesson: 16, accumulated twice; two devices take 16 each
micro_batch_size = 8
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
