# The base model that `bash run.sh` trains: a language model of Python, from Python's own standard library.
# Size: 4 layers, 256 wide, context 256, vocabulary 4,096: 5,310,720 parameters.
# Steps: 500 x 8 sequences x 256 = 1,024,000 tokens, 0.43 of the 2,354,461 training tokens.
# Muon needs half of AdamW's steps, and a step takes a fifth longer. The embedding has ten times the learning
# rate and is not tied to the head, because after SFT such a model passes more problems. docs/log.md has this
# comparison under "The base model with the lowest loss is not the best start".
# You should see val_loss 5.1 at step 125, 4.5 at 250, 4.1 at 375 and 3.9 (1.50 bits per byte) at 500.
# Hardware: two CPU cores with native bfloat16 need about 3.1 minutes.
#
#   python train.py config/quickstart.py
_data_from = 'python clean.py && python prepare.py --vocab_size=4096'
data_dir = 'data/quickstart'
out_dir = 'out/quickstart'
n_layer = 4
n_head = 4              # 64 wide; 7,400 tokens a second, against 7,900 with n_embd=192 and 6 heads
n_embd = 256
tie_embeddings = False
block_size = 256
batch_size = 8
max_steps = 500
optimizer = 'muon'
learning_rate = 3e-3
embedding_lr = 10.0
warmup_steps = 0.1      # a tenth of max_steps: 50
eval_interval = 125
eval_tokens = 32_768
save_interval = 125
log_interval = 25
sample_prompt = 'def mean(values):\n'
# The text is that of your Python version. With one seed each in float32, 3.10 ends at 4.00, 3.11 at 3.92, 3.12 at 4.12,
# 3.13 and 3.14 at 3.99; five seeds of 3.11 in bfloat16 at 3.918 to 3.968.
_expect = {'val_loss': (3.85, 4.20)}
