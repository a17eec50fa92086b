# CodeParrot-small's shape with a LLaMA block: 12 layers, 768 wide, context 1,024, vocabulary 32,768:
# 110,119,680 parameters (the original GPT-2 block: 111,008,256). Its schedule: 192 sequences x 1,024 =
# 196,608 tokens a step, 150,000 steps = 29.5B tokens, 13 times Chinchilla's 20 a parameter. The original took
# a day on 16 A100.
#
#   python prepare.py --source=codeparrot --out_dir=data/codeparrot --vocab_size=32768
#   torchrun --nproc_per_node=8 train.py config/codeparrot_small.py
#   python model.py config/codeparrot_small.py                      # the plan, without running it
data_dir = 'data/codeparrot'
out_dir = 'out/codeparrot_small'
n_layer = 12
n_head = 12
n_embd = 768
block_size = 1024
vocab_size = 32768
batch_size = 192
micro_batch_size = 12   # a guess for 24 GB cards; halve it when memory runs out, nothing else changes
max_steps = 150_000
learning_rate = 5e-4
warmup_steps = 2000
weight_decay = 0.1
log_interval = 10
eval_interval = 1000
eval_tokens = 1_048_576
save_interval = 1000
sample_prompt = 'def mean(values):\n'
