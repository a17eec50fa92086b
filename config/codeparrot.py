# CodeParrot's shape with a LLaMA block: 48 layers, 1,600 wide, context 1,024, vocabulary 32,768:
# 1,532,059,200 parameters (the original GPT-2 block: 1,529,628,800). Its schedule: 512 sequences x 1,024 =
# 524,288 tokens a step, 50,000 steps = 26.2B tokens, 17 a parameter. The original took a week on 16 A100.
# Weights, gradients and Adam moments are 24.5 GB on every GPU.
#
#   python prepare.py --source=codeparrot --out_dir=data/codeparrot --vocab_size=32768
#   torchrun --nproc_per_node=8 train.py config/codeparrot.py
#   python model.py config/codeparrot.py                            # the plan, without running it
data_dir = 'data/codeparrot'
out_dir = 'out/codeparrot'
n_layer = 48
n_head = 25
n_embd = 1600
block_size = 1024
vocab_size = 32768
batch_size = 512
micro_batch_size = 4    # a guess for 80 GB cards; halve it when memory runs out, nothing else changes
max_steps = 50_000
learning_rate = 2e-4
warmup_steps = 750
weight_decay = 0.1
log_interval = 10
eval_interval = 500
eval_tokens = 1_048_576
save_interval = 500
sample_prompt = 'def mean(values):\n'
