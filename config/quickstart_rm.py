# A reward model from the quickstart model's own answers, the pairs that bash run.sh makes for DPO: an answer
# that passed its tests is better than one that failed; of two that passed, the one with a single return
# statement is better. rl.py config/quickstart_rlhf.py then trains a policy to earn its scores (RLHF).
# You should see val_accuracy near 0.72: this fraction of the held-out pairs is in the right order. Our SFT
# model had seen 5,000 examples when we measured this. Today's has seen 30,000, so your pairs will differ.
# With so few pairs, more than three epochs only learn them by heart: val_loss rises.
# Hardware: two CPU cores need one minute, or four if other programs share them.
#
#   python dpo.py config/quickstart_rm.py
init_from = 'out/quickstart_sft'
data_dir = 'data/pairs'
out_dir = 'out/quickstart_rm'
loss_type = 'rm'
epochs = 3
learning_rate = 2e-4
