"""
Options in four rooms: each file is what one user wants, and a flag of a script opens it. The
scripts work without this folder as long as no flag asks for a file of it.

text/       what clean.py and chats.py read, mask, filter and look at
training/   how a model or a tokenizer trains in another way
tasks/      questions, answers, and programs that run to see whether an answer is right
models/     models and tokenizers of others, and files for other programs

Each room's __init__.py says in a line a file what it is and who opens it. Some files are commands,
too: python -m extras.ROOM.NAME --help
"""
