"""
Fill in the middle: documents are rearranged, so that a model learns to write between two texts.

    split('abcdef', 0.8, 0.2)                               # ('a', 'bcde', 'f')
    rearrange(ids, 0.5, 128, tokenizer, seed=7)             # ids of a document, half of its pieces rearranged

A model that reads from left to right does not know the text behind an editor's cursor. Bavarian et al.
(arXiv:2207.14255) change the data and not the model: they move the middle of a text to its end.

    PSM     <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle <|endoftext|>
    SPM     <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle <|endoftext|>

Given all up to <|fim_middle|>, the model writes the middle; <|endoftext|> says that the suffix follows. In
SPM nothing stands between prefix and middle, and while a user types, the long suffix keeps its place in the
cache. Half of the pieces get each order, so one model answers both.

A long document is cut into pieces first: else it would lose its middle to another block of training. Cuts
fall between characters, as cursors do, and each part is encoded by itself: a model that saw cuts between
tokens only would meet `ret|urn` as two tokens that it has hardly ever seen in a row.
"""
import contextlib, json, os
import numpy as np

MARKS = '<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>', '<|endoftext|>'


def split(text, cut, other_cut):
    """(prefix, middle, suffix) of a text. The cuts, in [0, 1), are places in it."""
    a, b = sorted(int(u * (len(text) + 1)) for u in (cut, other_cut))
    return text[:a], text[a:b], text[b:]


def is_known(folder):
    """Has the model in a run's folder read documents that were rearranged?"""
    path = os.path.join(folder, 'data.json')
    with contextlib.suppress(OSError, ValueError, AttributeError), open(path, encoding='utf-8') as f:
        return json.load(f).get('config', {}).get('fim', 0) > 0


def rearrange(ids, share, length, tokenizer, seed):
    """The ids of a document, list -> list that ends with <|endoftext|>. The seed decides which share of its
    pieces of `length` ids is rearranged, and how. ValueError if the tokenizer lacks a mark."""
    missing = [name for name in MARKS if name not in tokenizer.special]
    if missing:
        raise ValueError(f'the tokenizer has no {missing[0]}, which marks a gap; use one of --tokenizer=bpe')
    begin, suffix_follows, middle_follows, end = [tokenizer.special[name] for name in MARKS]
    dice = np.random.default_rng(seed)
    result = []
    for start in range(0, len(ids), length):
        piece = ids[start:start + length]
        chance, order, *cuts = dice.random(4)
        if chance >= share:
            result += piece
            continue
        text = tokenizer.decode_bytes(piece).decode('utf-8', 'ignore')
        prefix, middle, suffix = [tokenizer.encode_inside(part) for part in split(text, *cuts)]
        if order < 0.5:
            result += [begin, suffix_follows, *suffix, middle_follows, *prefix, *middle, end]
        else:
            result += [begin, *prefix, suffix_follows, *suffix, middle_follows, *middle, end]
    return result if result[-1:] == [end] else [*result, end]
