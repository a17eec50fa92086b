"""
How a model or a tokenizer trains in another way. A line a file: who opens it, and why.

objectives          train.py --objective=mlm, span, --document_mask: what is hidden
sharding            train.py --shard: each process holds a part of gradients, moments and weights
muon                --optimizer=muon: for the matrices of the blocks; it may be copied alone
mixture             sources = {...}: each is read as often as it weighs; sft.py --replay
lora                sft.py --lora: only small matrices train, beside the weights
planner             train.py --plan: memory, days and price of a run, before it starts

Commands, python -m extras.training.NAME --help:
tokenizer_report    does a tokenizer fit a text? next to GPT-2's
"""
