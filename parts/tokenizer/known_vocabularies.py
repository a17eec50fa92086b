"""
The vocabularies of GPT-2 and GPT-4 (cl100k_base), as tiktoken reads them.

    encoding('gpt2', 'folder/with/its/files').encode_ordinary('ROMEO:')         # [33676, 4720, 25]

Copy this file alone: it needs tiktoken.
"""
import os
import types

import tiktoken
import tiktoken.load

# OpenAI's files with their SHA-256, what reads them, how they cut text, and the last special token
FILES = {'gpt2': {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
                  'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'},
         'cl100k_base': {'cl100k_base.tiktoken':
                         '223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7'}}
READ = {'gpt2': tiktoken.load.data_gym_to_mergeable_bpe_ranks, 'cl100k_base': tiktoken.load.load_tiktoken_bpe}
PATTERNS = {
    'gpt2': r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    'cl100k_base': r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"""
                   r""" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""}
# Split patterns to train a tokenizer with. llama.cpp has no others, and it reads `cl100k` as Llama 3 does.
SPLIT_PATTERNS = {
    'gpt2': r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    'cl100k': r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
              r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}
SPECIAL = {'gpt2': {'<|endoftext|>': 50256}, 'cl100k_base': {'<|endofprompt|>': 100276}}


def files_in(folder, name):
    """The paths of a vocabulary's files in a folder, or []; their names may have a prefix."""
    paths = [os.path.join(folder, file) for end in FILES[name]
             for file in sorted(os.listdir(folder)) if file.endswith(end)]
    return paths if len(paths) == len(FILES[name]) else []


def encoding(name, folder=None):
    """The tiktoken.Encoding of gpt2 or cl100k_base, from a folder with its files, or from tiktoken's cache or
    the network. ValueError if they are not in the folder, or are others; OSError if they cannot be read."""
    if folder is None:
        return tiktoken.get_encoding(name)
    paths = files_in(folder, name)
    if not paths:
        raise ValueError(f'{folder} must hold {" and ".join(FILES[name])} of {name}; it does not')
    try:
        ranks = READ[name](*paths, *FILES[name].values())
    except ValueError as e:             # tiktoken's: another checksum
        raise ValueError(f'{" and ".join(paths)}: not those of {name} ({e})') from e
    return tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks,
                             special_tokens=SPECIAL[name])


def at_hand(name, folder=None):
    """Its encode, encode_batch, vocab_size and all_bytes; None, with a note, if it is in no cache and the
    network is away. A folder that has only the other vocabulary's files counts as none."""
    if name not in FILES:
        raise ValueError(f'{name!r} cannot be compared with; expected {", ".join(FILES)} or a tokenizer.json')
    if folder and not files_in(folder, name) and any(files_in(folder, other) for other in FILES):
        folder = None
    try:
        e = encoding(name, folder)
    except OSError as error:                # requests' errors are OSErrors
        if folder:
            raise
        print(f"{name}'s vocabulary is not at hand ({type(error).__name__}); for the comparison: "
              f'--gpt2=FOLDER with its {" and ".join(FILES[name])}\n')
        return None
    all_bytes = {id: token for token, id in e._mergeable_ranks.items()}
    return types.SimpleNamespace(encode=e.encode_ordinary, encode_batch=e.encode_ordinary_batch,
                                 vocab_size=e.n_vocab, all_bytes=all_bytes)
