# Supervised fine-tuning of the quickstart model on problems.py's demonstrations: 5,000 problems, each twice,
# because new prompts teach more than the same ones again.
# You should see val_loss fall from 5.4 to 0.2: the answers are short, and most of their tokens certain.
#
#   python parts/problems.py --n=5000 --out=data/problems/train.jsonl
#   python parts/problems.py --n=300 --split=validation --out=data/problems/val.jsonl
#   python sft.py config/quickstart_sft.py
init_from = 'out/quickstart'
data_dir = 'data/problems'
base_dir = 'data/quickstart'    # what is forgotten of the standard library; see also --replay=1
out_dir = 'out/quickstart_sft'
epochs = 2
batch_size = 32
optimizer = 'muon'
learning_rate = 3e-3
eval_tokens = 16_384
