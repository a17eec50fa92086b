# The shape of CodeParrot with a LLaMA block: 1,532,059,200 parameters (with GPT-2's block: 1,529,628,800).
# Not yet run as it is. Before we had a GPU, we expected 38 to 42% of the peak of eight H100, so 22 to 25
# hours, and 52 GB on each. With --shard=fsdp --grad_checkpoint=True, one H200 read 21,000 tokens a second:
# 22% of its peak, with 28 GB. Eight such GPUs would need 43 hours, but that way computes each block twice, so
# we don't know which it will be. If you have them, please send us the first lines of the run's log.
# Steps: 50,000 x 512 sequences x 1,024 = 26.2 billion tokens, 17 a parameter.
# Hardware: 8 GPUs of 80 GB. On smaller ones add --shard=fsdp --grad_checkpoint=True. Weights, gradients and
# Adam's moments take 16 bytes a parameter: 24.5 GB. The original is said to have taken a week on 16 A100.
#
#   python train.py config/codeparrot.py --plan=8xH100      # prints what it will take; trains nothing
#   torchrun --nproc_per_node=8 train.py config/codeparrot.py
_data_from = 'python prepare.py --source=codeparrot --vocab_size=32768 --out_dir=data/codeparrot'
data_dir = 'data/codeparrot'
out_dir = 'out/codeparrot'
n_layer = 48
n_head = 25
n_embd = 1600
block_size = 1024
vocab_size = 32768
batch_size = 512
# A guess for 80 GB. If memory runs out, halve it: that changes the losses by bfloat16's rounding only.
micro_batch_size = 8
max_steps = 50_000
learning_rate = 2e-4
warmup_steps = 750
eval_interval = 2000
eval_tokens = 1_048_576
save_interval = 2000    # 18.4 GB, so perhaps half a minute each
sample_prompt = 'def mean(values):\n'
