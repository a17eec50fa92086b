# Tiny Shakespeare with one token per character, in half an hour on a laptop. It ends below the 1.4697 that
# nanoGPT's README reports for its GPU preset, which has 10.7 million parameters.
# Size: 6 layers, 128 wide, context 128: 1,148,800 parameters.
# Steps: 2,500 x 32 sequences x 128 = 10,240,000 characters, 10.2 epochs. That is why there is dropout.
# You should see val_loss 1.78 at step 250, 1.54 at 1,000, 1.45 at 2,000 and 1.446 at 2,500 (with
# --seed=2: 1.447), over all validation characters.
# Hardware: two CPU cores with native bfloat16 need about 16 minutes, a Zen 3 without it about 24.
#
#   python train.py config/shakespeare_laptop.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char'
data_dir = 'data/shakespeare_char'
out_dir = 'out/shakespeare_laptop'
n_layer = 6
n_head = 4
n_embd = 128
tie_embeddings = False
block_size = 128
dropout = 0.1
batch_size = 32
max_steps = 2500
optimizer = 'muon'
learning_rate = 4e-3
embedding_lr = 3.0
min_lr = 0.0
warmup_steps = 50
eval_interval = 250
eval_tokens = 111_539   # the whole validation set
save_interval = 500
log_interval = 50
sample_prompt = 'ROMEO:'
sample_tokens = 300
