# Reinforcement learning of the quickstart SFT model: it answers problems of parts/eval/problems.py, and each
# answer that passes its tests earns 1. A few problems are among the demonstrations of SFT.
# Steps: 25 x 32 problems x 8 answers: 800 of the 2,000, none twice. More teach more: the default is 100.
# You should see reward and val_reward rise, and informative stay near 0.5: half of the problems have both
# answers that pass and answers that fail.
# It starts from SFT, not from DPO: after DPO the answers are less varied.
#
#   python rl.py config/quickstart_rl.py --allow_code_execution=True
init_from = 'out/quickstart_sft'
out_dir = 'out/quickstart_rl'
max_steps = 25
eval_interval = 25
save_interval = 25
micro_batch_size = 8            # of 32 problems: less memory, the same result
