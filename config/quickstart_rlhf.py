# RLHF's third step: the quickstart SFT model learns to write what a reward model likes. The tests judge the
# held-out answers, so reward is what the reward model thinks and val_reward the fraction that is right.
# You should see reward rise from 0 to about 0.7, and val_reward stay near its start, 0.7: kl_coef holds it
# there. With --kl_coef=0 reward rises as much and val_reward falls to 0.3: the reward model is hacked.
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
