# RLHF's third step: the quickstart SFT model learns to write what a reward model likes. The tests judge the
# held-out answers, so reward is what the reward model thinks and val_reward the fraction that is right.
# You should see reward rise and val_reward stay near its start, because kl_coef keeps it there. With
# --kl_coef=0 reward rises as much and val_reward falls: the policy hacks the reward model. When we measured
# this, val_reward went from 0.70 to 0.68, or to 0.30 with --kl_coef=0. Our SFT model had seen 5,000 examples
# then. Today's has seen 30,000, so your run will start higher.
# Hardware: about 9 minutes on two CPU cores that other programs shared.
#
#   python rl.py config/quickstart_rlhf.py --allow_code_execution=True
init_from = 'out/quickstart_sft'
reward = 'out/quickstart_rm'
held_out = 'problems'
kl_coef = 0.05
out_dir = 'out/quickstart_rlhf'
batch_size = 16
learning_rate = 1e-4
max_steps = 50
eval_interval = 10
save_interval = 50
log_interval = 5
micro_batch_size = 8            # of 16 problems: less memory, the same result
