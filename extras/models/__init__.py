"""
Import and export of models and tokenizers. Each line: a file, the option that imports it, and what
it does.

hf_model            --init_from, --ckpt=FOLDER of Hugging Face: reads and writes models
hf_tokenizer        reads and writes tokenizer.json files and chat templates of Hugging Face
graph               GPT.stream on a GPU: the forward pass of one token as a CUDA graph
gguf                export --to=gguf: writes a file for llama.cpp, ollama and LM Studio

Commands, python -m extras.models.NAME --help:
export              --to=hf, gguf, html: a folder to publish, a file for llama.cpp, a page
page.html           export --to=html: the page
demo.js             export --to=html: the forward pass of the model in JavaScript
fill                fills gaps with a model that was trained with --objective=mlm or span
"""
