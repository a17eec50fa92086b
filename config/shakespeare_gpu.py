# Tiny Shakespeare, one character a token, on one GPU (minutes) or a patient CPU. The budget of nanoGPT's GPU
# preset: 6 layers, 384 wide, context 256, 5,000 steps of 64 x 256 = 16,384 characters: 82M characters, 82
# epochs, hence the dropout. The best validation loss comes early and rises again: best.pt keeps it. nanoGPT
# reports 1.4697; not yet measured here.
#
#   python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char
#   python train.py config/shakespeare_gpu.py
data_dir = 'data/shakespeare_char'
out_dir = 'out/shakespeare_gpu'
n_layer = 6
n_head = 6
n_embd = 384            # 10.6M parameters
block_size = 256
dropout = 0.2
batch_size = 64
max_steps = 5000
learning_rate = 1e-3
warmup_steps = 100
eval_interval = 250
eval_tokens = 111_539   # all of them
save_interval = 500
log_interval = 50
sample_prompt = 'ROMEO:'
sample_tokens = 500
