"""
Options of the scripts at the top, one idea a file. A script opens a file of this folder when a flag
asks for it, and works without the folder as long as no flag does.

    hf_model            folders of Hugging Face, read and written, and the card of one
    hf_tokenizer        tokenizer.json files of Hugging Face, read and written
    longer_context      a command: a model reads more tokens at a time
    lora                only small matrices train, beside the weights
    new_vocabulary      a command: a model gets another tokenizer
    planner             memory, days and price of a run, before it starts
    replay              sft.py also reads base text, and measures how much of it is forgotten
"""
