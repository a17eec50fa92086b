# Tiny Shakespeare with one token per character, on any CPU, with the token budget of nanoGPT's CPU preset.
# Size: 4 layers, 128 wide, context 64: 771,456 parameters.
# Steps: 2,000 x 12 sequences x 64 = 1,536,000 characters, 1.53 epochs.
# You should see val_loss 4.18 at step 0, 1.82 at 500, 1.68 at 1,000 and 1.52 at 2,000. eval.py measures all
# validation characters and prints about 1.547. AdamW at 1e-3 ends at 1.65.
# Hardware: two CPU cores with native bfloat16 need 1.8 minutes.
# nanoGPT's README reports 1.88 for this budget.
#
#   python train.py config/shakespeare_cpu.py
_data_from = 'python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char'
data_dir = 'data/shakespeare_char'
out_dir = 'out/shakespeare_cpu'
n_layer = 4
n_head = 4
n_embd = 128
tie_embeddings = False
block_size = 64
batch_size = 12
max_steps = 2000
optimizer = 'muon'
learning_rate = 4e-3
embedding_lr = 3.0
warmup_steps = 50
eval_interval = 100
eval_tokens = 20_000
save_interval = 500
log_interval = 50
sample_prompt = 'ROMEO:'
_expect = {'val_loss': (1.49, 1.57)}     # three seeds on one CPU: 1.519 to 1.534
