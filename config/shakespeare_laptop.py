# Tiny Shakespeare with one token per character, in half an hour on two CPU cores. It ends below the 1.4697
# that nanoGPT's README reports for its GPU preset, which has 10.7 million parameters and the same context.
# We measured it on servers' cores only, so a laptop will take some other time.
# Size: 6 layers, 128 wide, context 256: 1,148,800 parameters.
# Steps: 9,000 x 8 sequences x 256 = 18,432,000 characters, 18.4 epochs. That is why there is dropout, and a
# weight decay that is ten times the usual one (arXiv:2509.14786).
# You should see val_loss 1.70 at step 1,000, 1.60 at 4,000, 1.45 at 7,000, and 1.394 to 1.408 at 9,000 (five
# seeds), over all validation characters.
# Hardware: two CPU cores with native bfloat16 need 29.4 minutes.
# With tokens of 2.4 characters it gets as far (1.401 to 1.411, four seeds) in 12 minutes. val_loss is then
# per token; a character is a byte of this text, so val_bpb x ln 2 is the loss per character:
#   python prepare.py --source=shakespeare --vocab_size=1024 --out_dir=data/shakespeare_bpe
#   python train.py config/shakespeare_laptop.py --data_dir=data/shakespeare_bpe --max_steps=3000 \
#       --dropout=0.2
#
#   python train.py config/shakespeare_laptop.py
data_from = 'python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char'
data_dir = 'data/shakespeare_char'
out_dir = 'out/shakespeare_laptop'
n_layer = 6
n_head = 4
n_embd = 128
tie_embeddings = False
block_size = 256
dropout = 0.1
batch_size = 8
max_steps = 9000
optimizer = 'muon'
learning_rate = 3e-3
embedding_lr = 3.0
min_lr = 0.0
weight_decay = 1.0
warmup_steps = 50
eval_interval = 1000
eval_tokens = 0         # the whole validation set
save_interval = 1000
log_interval = 100
sample_prompt = 'ROMEO:'
sample_tokens = 300
