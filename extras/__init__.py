"""
Optional features in four subpackages. Each file is one feature, imported only when a flag of a
script needs it. Without such a flag, the scripts work without this folder.

text/       what clean.py and chats.py read, mask, filter and audit
training/   other ways to train a model or a tokenizer
tasks/      questions, answers, and a sandbox that runs programs to grade the answers
models/     import and export: Hugging Face models and tokenizers, GGUF, an HTML page

The __init__.py of a subpackage lists its files and the flags that import them. Some files are also
commands: python -m extras.SUBPACKAGE.NAME --help
"""
