"""
Models and tokenizers of others, and files for other programs. A line a file: who opens it, and why.

hf_model            --init_from, --ckpt=FOLDER of Hugging Face: read and written
hf_tokenizer        tokenizer.json files of Hugging Face and their chat templates: read and written
graph               GPT.stream on a GPU: the forward pass of one token as a CUDA graph
gguf                of export: writes a file for llama.cpp, ollama and LM Studio

Commands, python -m extras.models.NAME --help:
export              --to=hf, gguf, html: a folder to publish, a file for llama.cpp, a page
page.html           of export: what the page shows
demo.js             of export: the model once more, in JavaScript, which answers there
fill                a model that was trained with --objective=mlm or span fills gaps
"""
