"""
The vocabularies of GPT-2 and GPT-4 (cl100k_base), as tiktoken reads them.

    gpt2('folder/with/its/files').encode_ordinary('ROMEO:')         # [33676, 4720, 25]

Copy this file alone: it needs tiktoken.
"""
import glob
import types

import tiktoken.load

FILES = {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',       # with SHA-256
         'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'}
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def gpt2(folder=None):
    """The tiktoken.Encoding of GPT-2, from a folder with its files, whose names may have a prefix; without a
    folder from tiktoken's cache or the network. ValueError if the folder lacks them or has others."""
    if folder is None:
        return tiktoken.get_encoding('gpt2')
    paths = [path for name in FILES for path in glob.glob(f'{glob.escape(str(folder))}/*{name}')]
    if len(paths) != len(FILES):
        raise ValueError(f'{folder} must hold {" and ".join(FILES)} of gpt2, once; it does not')
    try:
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(*paths, *FILES.values())
    except ValueError as e:             # tiktoken's: another checksum
        raise ValueError(f'{" and ".join(paths)}: not those of gpt2 ({e})') from e
    return tiktoken.Encoding('gpt2', pat_str=PATTERN, mergeable_ranks=ranks,
                             special_tokens={'<|endoftext|>': 50256})


def at_hand(name, folder=None):
    """Its encode, encode_batch, vocab_size and all_bytes, as a Tokenizer has them; None, with a note, if it
    is in no cache and the network is away. folder: for GPT-2."""
    if name not in ('gpt2', 'cl100k_base'):
        raise ValueError(f'{name!r} cannot be compared with; expected gpt2, cl100k_base or a tokenizer.json')
    try:
        e = gpt2(folder) if name == 'gpt2' else tiktoken.get_encoding(name)
    except OSError as error:                # requests' errors are OSErrors
        print(f"note: {name}'s vocabulary is not at hand ({type(error).__name__}). tiktoken fetches it once; "
              f'GPT-2 also takes --gpt2_dir=FOLDER with {" and ".join(FILES)}\n')
        return None
    all_bytes = {id: token for token, id in e._mergeable_ranks.items()}
    return types.SimpleNamespace(encode=e.encode_ordinary, encode_batch=e.encode_ordinary_batch,
                                 vocab_size=e.n_vocab, all_bytes=all_bytes)
