# Reinforcement learning of the quickstart SFT model: it answers problems of parts/eval/problems.py, and each
# answer that passes its tests earns 1. Half of the problems are compositions that SFT did not show.
# Steps: 50 x 16 problems x 8 answers: 800 of the 2,000, none twice.
# Many small steps with a tenth of SFT's rate: larger batches, a second update with the same answers, and
# higher rates lose some of what SFT taught. Groups of 4 or 16 answers and prompts chosen by their pass rate
# teach no sooner (LOG.md, "No choice of prompts or groups makes RL learn sooner").
# You should see reward above 0.9 from the first step on, because SFT saw many examples, and informative near
# 0.2: only a fifth of the problems have both answers that pass and answers that fail. So RL has little to
# teach here. After SFT on fewer examples it has more (docs/practice.md).
# It starts from SFT, not from DPO: after DPO the answers are less varied.
# Hardware: two CPU cores with native bfloat16 need about 1.5 minutes.
#
#   python rl.py config/quickstart_rl.py --allow_code_execution=True
init_from = 'out/quickstart_sft'
out_dir = 'out/quickstart_rl'
batch_size = 16
optimizer = 'muon'
learning_rate = 3e-4
max_steps = 50
eval_interval = 25
save_interval = 25
log_interval = 5
micro_batch_size = 8            # of 16 problems: less memory, equal up to rounding
expect = {'val_reward': (0.90, 1.0)}    # one run: 0.965
