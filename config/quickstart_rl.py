# Reinforcement learning of the quickstart SFT model: it answers problems of parts/eval/problems.py, and each
# answer that passes its tests earns 1. Half of the problems are compositions that SFT did not show.
# Steps: 60 x 16 problems x 8 answers: 960 of the 2,000, none twice.
# Many small steps with a tenth of SFT's rate: larger batches, a second update with the same answers, and
# higher rates lose some of what SFT taught. Groups of 4 or 16 answers and prompts chosen by their pass rate
# teach no sooner (LOG.md, "No choice of prompts or groups makes RL learn sooner").
# You should see val_reward rise by 0.02 to 0.08, to between 0.67 and 0.75. reward stays near 0.5, with noise,
# because each step has other problems. informative is near 0.5: half of the problems have answers that pass
# and answers that fail, and only these teach.
# Rejection sampling gains as much or more in less time (config/quickstart_rejection.py; docs/practice.md).
# It starts from SFT, not from DPO: after DPO the answers are less varied.
# Hardware: two CPU cores with native bfloat16 need about 2.4 minutes.
#
#   python rl.py config/quickstart_rl.py --allow_code_execution=True
init_from = 'out/quickstart_sft'
out_dir = 'out/quickstart_rl'
batch_size = 16
optimizer = 'muon'
learning_rate = 3e-4
max_steps = 60
eval_interval = 20
save_interval = 20
log_interval = 5
micro_batch_size = 8            # of 16 problems: less memory, equal up to rounding
expect = {'val_reward': (0.61, 0.81)}    # five seeds, each of all stages: 0.675 to 0.75
