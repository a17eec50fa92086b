# A plan, of which we ran 396 steps: "nano-trickster" of a lesson that docs/exercises.md checks, with
# 5,180,672 parameters, not 11,234,816. With --n_ffn=2048 there are 11,078,912. mini.py, midi.py and mega.py
# change the size: pass them after nano.py.
# Steps: one epoch is 1,003,854 / (32 x 512) = 61 steps, so 10,000 steps are 163 epochs.
# You should see val_loss below 2 at step 500: ours was 2.36 at 300 and 1.96 at 396, where we stopped, after
# an hour on two CPU cores that also had other work.
# Later the training loss falls far below val_loss: best.pt has the lowest val_loss, and --dropout=0.2 should
# help. For larger sizes use your own data: 20 tokens per parameter are 548 million for mini, 22.6 billion for
# mega.
#
#   python train.py config/nano.py
#   python train.py config/nano.py config/mini.py --plan=1xL4       # prints the plan and exits
_data_from = 'python prepare.py --source=shakespeare --tokenizer=byte --out_dir=data/shakespeare_byte'
data_dir = 'data/shakespeare_byte'
out_dir = 'out/nano'
n_layer = 6
n_head = 8
n_embd = 256
n_ffn = 768
block_size = 512
vocab_size = 256        # bytes; Tiny Shakespeare uses 65, so the loss falls quickly to ln 65 = 4.17
batch_size = 32         # the lesson has 16, accumulated twice
micro_batch_size = 16   # at most, per device: 16 on each of two devices, 4 on each of eight
max_steps = 10_000
learning_rate = 3e-4
min_lr = 3e-5
warmup_steps = 1000
grad_clip = 1.0
log_interval = 50
eval_interval = 500
eval_tokens = 0         # the whole validation set
save_interval = 1000
sample_prompt = 'ROMEO:'
