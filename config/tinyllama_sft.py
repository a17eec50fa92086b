# SFT of TinyLlama-1.1B (https://huggingface.co/TinyLlama/TinyLlama_v1.1): 1,100,048,384 parameters.
# You should see val_loss fall within the first hundred steps, and hardly more after the first epoch.
# Hardware: one GPU of 40 GB; the state takes 17.6, and activations are computed again. We have not run it.
#
#   python sft.py config/tinyllama_sft.py --plan=1xA100
#   python sft.py config/tinyllama_sft.py
data_from = 'python prepare.py --kind=sft --source=alpaca.json --out_dir=data/alpaca'
data_dir = 'data/alpaca'
init_from = 'TinyLlama_v1.1'
out_dir = 'out/tinyllama_sft'
block_size = 1024
epochs = 2
batch_size = 64
micro_batch_size = 4
grad_checkpoint = True
learning_rate = 2e-5
warmup_steps = 30
save_interval = 500
