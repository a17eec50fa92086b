# The base model that `bash run.sh` trains: a language model of Python, from Python's own standard library.
# Size: 4 layers, 256 wide, context 256, vocabulary 4,096: 4,262,144 parameters.
# Steps: 500 x 8 sequences x 256 = 1,024,000 tokens, 0.44 of the 2,331,849 training tokens.
# At step 375 Muon has the loss that AdamW (1.5e-3) has at step 700. A step of Muon takes a fifth longer.
# You should see val_loss 5.6 at step 125, 4.9 at 250, 4.5 at 375 and 4.3 (1.57 bits per byte) at 500.
# --embedding_lr=10 ends at 1.48, but SFT of that model passed fewer problems: LOG.md, "own rate".
# Hardware: two CPU cores with native bfloat16 need about 4 minutes.
#
#   python train.py config/quickstart.py
data_from = 'python prepare.py --source=stdlib --tokenizer=bpe --vocab_size=4096 --out_dir=data/quickstart'
data_dir = 'data/quickstart'
out_dir = 'out/quickstart'
n_layer = 4
n_head = 4              # 64 wide; 7,400 tokens a second, against 7,900 with n_embd=192 and 6 heads
n_embd = 256
block_size = 256
batch_size = 8
max_steps = 500
optimizer = 'muon'
learning_rate = 3e-3
warmup_steps = 50
eval_interval = 125
eval_tokens = 32_768
save_interval = 125
log_interval = 25
sample_prompt = 'def mean(values):\n'
