# Tiny Shakespeare with one token per character. The budget is that of nanoGPT's GPU preset.
# nanoGPT's README reports 1.4697. Ours begins to learn the text by heart after 750 steps, so its lowest loss
# is 1.4908 (one run). config/shakespeare_laptop.py reaches 1.40 with a tenth of the parameters.
# Size: 6 layers, 384 wide, context 256: 10,670,976 parameters.
# Steps: 5,000 x 64 sequences x 256 = 81,920,000 characters, 82 epochs. That is why there is dropout.
# You should see the lowest validation loss at step 750, then a rise to 2.51; best.pt keeps the best weights.
# Hardware: one GPU. After compiling, an H200 took 2.7 minutes beside other work, and 27 s to the lowest loss.
#
#   python train.py config/shakespeare_gpu.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char'
data_dir = 'data/shakespeare_char'
out_dir = 'out/shakespeare_gpu'
n_layer = 6
n_head = 6
n_embd = 384
block_size = 256
vocab_multiple = 64     # 65 characters, 128 rows: a GPU multiplies 64 at a time
dropout = 0.2
batch_size = 64
max_steps = 5000
learning_rate = 1e-3
warmup_steps = 100
eval_interval = 250
eval_tokens = 0         # the whole validation set
save_interval = 500
log_interval = 50
sample_prompt = 'ROMEO:'
sample_tokens = 500
