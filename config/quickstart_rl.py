# Reinforcement learning of the quickstart SFT model: it answers problems of parts/eval/problems.py, and each
# answer that passes its tests earns 1. Half of the problems are compositions that SFT did not show.
# Steps: 100 x 16 problems x 8 answers: 1,600 of the 2,000, none twice.
# Many small steps at half of the default rate: larger batches, a second update with the same answers, and
# higher rates lose some of what SFT taught. Groups of 4 or 16 answers and prompts chosen by their pass rate
# teach no sooner (LOG.md, "No choice of prompts or groups makes RL learn sooner").
# You should see reward and val_reward rise, and informative near 0.5: half of the problems have both answers
# that pass and answers that fail.
# It starts from SFT, not from DPO: after DPO the answers are less varied.
# Hardware: two CPU cores with native bfloat16 need about 2.7 minutes.
#
#   python rl.py config/quickstart_rl.py --allow_code_execution=True
init_from = 'out/quickstart_sft'
out_dir = 'out/quickstart_rl'
batch_size = 16
learning_rate = 1e-4
max_steps = 100
eval_interval = 50
save_interval = 50
log_interval = 5
micro_batch_size = 8            # of 16 problems: less memory, equal up to rounding
expect = {'val_reward': (0.65, 0.88)}   # six runs on one CPU: 0.685 to 0.835
