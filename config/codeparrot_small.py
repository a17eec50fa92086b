# A plan, of which we ran 20 steps: the shape of CodeParrot-small with a LLaMA block, 110,119,680 parameters
# (with GPT-2's block: 111,008,256). These steps on one H200, with micro_batch_size=24: 522,000 tokens a second,
# 41% of the peak, and 12.1 GB. So eight H200 need about 2 hours, plus the time to exchange gradients, which
# we haven't measured.
# Steps: 150,000 x 192 sequences x 1,024 = 29.5 billion tokens, 268 per parameter: 13 times Chinchilla's 20.
# Hardware: 8 GPUs of 24 GB. --plan computes 13.5 GB per device. The original is said to have taken a day on 16 A100.
#
#   python train.py config/codeparrot_small.py --plan=8xH100        # prints the plan and exits
#   torchrun --nproc_per_node=8 train.py config/codeparrot_small.py
_data_from = 'python clean.py --source=codeparrot --out_dir=data/github && ' \
             'python prepare.py --source=data/github --vocab_size=32768 --out_dir=data/codeparrot'
data_dir = 'data/codeparrot'
out_dir = 'out/codeparrot_small'
n_layer = 12
n_head = 12
n_embd = 768
block_size = 1024
vocab_size = 32768
batch_size = 192
# At most. With --compile=False, or if memory runs out, halve it: the losses change by rounding only.
micro_batch_size = 24
max_steps = 150_000
learning_rate = 5e-4
warmup_steps = 2000
eval_interval = 5000    # about five minutes on eight H100
eval_tokens = 1_048_576
save_interval = 5000
sample_prompt = 'def mean(values):\n'
