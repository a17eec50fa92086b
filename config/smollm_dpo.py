# DPO of the model that config/smollm_sft.py makes: 134,515,008 parameters. pairs.jsonl has lines of
# {"prompt", "chosen", "rejected"}: your own, or a published set such as UltraFeedback.
# Rates of 5e-7 to 5e-6 and one epoch are usual from 100M parameters on; small models bear the upper end.
# You should see a first preference_loss of ln 2 = 0.6931 and a margin that rises from 0.
# Hardware: as for config/smollm_sft.py; each pair is two sequences. We have not run it.
#
#   python dpo.py config/smollm_dpo.py
data_from = 'python prepare.py --kind=preference --source=pairs.jsonl --out_dir=data/smollm_pairs'
data_dir = 'data/smollm_pairs'
init_from = 'out/smollm_sft'
out_dir = 'out/smollm_dpo'
block_size = 1024
epochs = 1
batch_size = 32
micro_batch_size = 4
learning_rate = 5e-6
warmup_steps = 30
