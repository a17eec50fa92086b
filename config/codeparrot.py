# A plan, of which we ran 20 steps: the shape of CodeParrot with a LLaMA block, 1,532,059,200 parameters
# (with GPT-2's block: 1,529,628,800). These steps ran the micro-batches of one GPU on one H200: 43,100 tokens
# a second, 44% of the peak, 51.7 GB, and 53 s from the start to the end of the first step. So eight GPUs need
# about 21 hours, plus the time to exchange gradients, which we haven't measured. If you have eight GPUs,
# please send us the run's log.
# Steps: 50,000 x 512 sequences x 1,024 = 26.2 billion tokens, 17 per parameter.
# Hardware: 8 GPUs of 80 GB. --plan computes these GB per device:
#   8 of 80 GB          as is: 51.5. With --shard=zero2 also --micro_batch_size=16: 54.2
#   8 of 40 or 48 GB    --shard=zero2: 30.3, or --shard=fsdp: 27.5
#   8 of 24 GB          --shard=fsdp --micro_batch_size=4: 15.5
# Use grad_checkpoint last, because it adds a third of the computation. It pays for GPUs without NVLink, where
# each micro-batch moves 10.7 GB over PCIe, so that a few large ones are better: --micro_batch_size=16 or 32.
# Disk: 61 GB, because a save writes the new last.pt before it deletes last-1.pt. The original is said to have taken a
# week on 16 A100.
#
#   python train.py config/codeparrot.py --plan=8xH100      # prints the plan and exits
#   torchrun --nproc_per_node=8 train.py config/codeparrot.py
_data_from = 'python clean.py --source=codeparrot --out_dir=data/github && ' \
             'python prepare.py --source=data/github --vocab_size=32768 --out_dir=data/codeparrot'
data_dir = 'data/codeparrot'
out_dir = 'out/codeparrot'
n_layer = 48
n_head = 25
n_embd = 1600
block_size = 1024
vocab_size = 32768
batch_size = 512
micro_batch_size = 8    # at most; if memory runs out, halve it: the losses change by bfloat16's rounding only
max_steps = 50_000
learning_rate = 2e-4
warmup_steps = 750
eval_interval = 2000
eval_tokens = 1_048_576
save_interval = 2000    # 50 minutes of work; 18.4 GB, so perhaps a minute each (estimated)
sample_prompt = 'def mean(values):\n'
