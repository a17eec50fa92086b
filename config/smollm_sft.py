# SFT of a model that others pretrained: 134,515,008 parameters. Its folder has config.json,
# model.safetensors and tokenizer.json of https://huggingface.co/HuggingFaceTB/SmolLM2-135M.
# Rates of 1e-5 to 5e-5 and one to three epochs are usual from 100M parameters on.
# You should see val_loss fall within the first hundred steps, and hardly more after the first epoch.
# Hardware: one GPU of 24 GB: parts/model/planner.py counts 15.0 GB, with grad_checkpoint=True 7.9. We have
# not run it.
#
#   python sft.py config/smollm_sft.py
data_from = 'python prepare.py --kind=sft --source=alpaca.json --out_dir=data/alpaca'
data_dir = 'data/alpaca'
init_from = 'SmolLM2-135M'
out_dir = 'out/smollm_sft'
block_size = 1024
epochs = 2
batch_size = 32
micro_batch_size = 8
learning_rate = 3e-5
warmup_steps = 30
save_interval = 500
