"""
The depth behind the lesson, in five rooms: tokenizer, prepare, train, eval, sample. Each is named after the file
that it serves first. A reader may skip all of them.
"""
