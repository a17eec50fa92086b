"""
Optional ways to train a model or a tokenizer. Each line: a file, the option that imports it, and
what it does.

objectives          train.py --objective=mlm, span, --document_mask: inputs, targets and masks
sharding            train.py --shard: each process holds a part of gradients, moments and weights
muon                --optimizer=muon: for the matrices of the blocks; you can copy this file alone
mixture             sources = {...}: samples sources by their weights; sft.py --replay
lora                sft.py --lora: trains small matrices added to the frozen weights
planner             train.py --plan: memory, days and cost of a run, before it starts

Commands, python -m extras.training.NAME --help:
tokenizer_report    compares a tokenizer with GPT-2's on a text
"""
