"""
Fill in the middle: documents are rearranged, so that a model learns to write between two texts.

    infilling = Infilling(0.5, 'clm', tokenizer, seed=1337)
    x, y = infilling.apply(x, y, step, rows)            # int64 (B, T) each; half of the documents rearranged

An editor knows the text behind the cursor, a model that reads from left to right does not. Bavarian et al.
(arXiv:2207.14255) change the data and not the model: they move the middle of a document to its end.

    PSM     <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle <|endoftext|>
    SPM     <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle <|endoftext|>

Given all up to <|fim_middle|>, the model writes the middle, and with <|endoftext|> it says that the suffix
follows. In SPM nothing stands between prefix and middle: the model continues a text, as it always does, and
while a user types, the long suffix keeps its place in the cache. Half of the documents get each order, as in
the paper: one model then answers both. asking.between asks in PSM.

Cuts fall between characters, anywhere, as cursors do, and each part is encoded by itself. A model that saw
cuts between tokens only would meet `ret|urn` as two tokens that it has hardly ever seen in a row.

The pieces of documents within a block are rearranged, not whole documents before they are cut into blocks
(the paper's context level; of the two it was better). A long document would lose its middle or its suffix to
the next block. The result depends on (seed, step, row) and the block alone. The marks and the cuts
need about six tokens. These are dropped far from the gap, at the end of the suffix or at the beginning of
the prefix: a block keeps its length, and nothing is padded.

The loss is that of all tokens, as in the paper: prefix and suffix teach what they would teach anyway, and
<|endoftext|> must be learned. The cost: those tokens, a few per cent of short blocks, and some of a small
model's capacity (docs/training.md has the figures).

Copy this file alone: it needs numpy.
"""
import ast, re
import numpy as np

MARKS = '<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>', '<|endoftext|>'


# --- training: rearrange ------------------------------------------------------------------------------------
class Infilling:
    """Rearranges a share of the documents. tokenizer: as in tokenizer.py. ValueError if it has no marks."""

    def __init__(self, share, objective, tokenizer, seed):
        if objective != 'clm':
            raise ValueError(f'fim={share} is for --objective=clm, not {objective}, which fills gaps anyway')
        missing = [name for name in MARKS if name not in tokenizer.special]
        if missing:
            raise ValueError(f'fim={share}: the tokenizer of the data has no special token {missing[0]}; '
                             'prepare documents with --tokenizer=bpe')
        self.share = share
        self.tokenizer = tokenizer
        self.seed = seed
        self.marks = [tokenizer.special[name] for name in MARKS]

    def apply(self, x, y, step, rows):
        """Inputs and targets, int64 (B, T) each, of the same shape. rows: the numbers of the sequences in the
        global batch."""
        ids = np.concatenate([x, y[:, -1:]], axis=1)                                        # (B, T + 1)
        ids = np.stack([self.block(block, step, row) for block, row in zip(ids, rows)])     # (B, T + 1)
        return ids[:, :-1], ids[:, 1:]

    def block(self, ids, step, row):
        """A block (T + 1,) with a share of its documents rearranged, as (seed, step, row) decide."""
        ends = np.flatnonzero(ids == self.marks[-1])
        pieces = np.split(ids, ends + 1)                # each ends with <|endoftext|>, the last one may not
        dice = np.random.default_rng([self.seed, step, row]).random((len(pieces), 4))
        return np.concatenate([self.rearrange(piece, *cuts, spm < 0.5) if chance < self.share else piece
                               for piece, (chance, spm, *cuts) in zip(pieces, dice)])

    def rearrange(self, piece, cut, other_cut, spm):
        """As many ids as the piece has, rearranged; or the piece, if it is too short for the marks. The cuts,
        in [0, 1), are places in its text. A character that the block's border cuts is left out."""
        begin, suffix_follows, middle_follows, end = self.marks
        text = self.tokenizer.decode_bytes(piece[piece != end].tolist()).decode('utf-8', 'ignore')
        parts = split(text, cut, other_cut)
        prefix, middle, suffix = [self.tokenizer.encode_inside(part) for part in parts]
        excess = len(prefix) + len(middle) + len(suffix) + len(self.marks) - len(piece)
        if 0 <= excess <= len(suffix):
            suffix = suffix[:len(suffix) - excess]
        elif 0 <= excess <= len(prefix):
            prefix = prefix[excess:]
        else:
            return piece
        if spm:
            return np.array([begin, suffix_follows, *suffix, middle_follows, *prefix, *middle, end])
        return np.array([begin, *prefix, suffix_follows, *suffix, middle_follows, *middle, end])


def split(text, cut, other_cut):
    """(prefix, middle, suffix) of a text. split('abcdef', 0.8, 0.2) -> ('a', 'bcde', 'f')"""
    a, b = sorted(int(u * (len(text) + 1)) for u in (cut, other_cut))
    return text[:a], text[a:b], text[b:]


# --- measuring: gaps in functions ---------------------------------------------------------------------------
def functions(source):
    """Yield (text, where its body begins) of each function of a Python source that has two lines or more
    behind its docstring. SyntaxError if it is not Python."""
    starts = [0, *(m.end() for m in re.finditer(r'\r\n?|\n', source)), len(source)]        # of the lines
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body if ast.get_docstring(node) is None else node.body[1:]
        if body and node.lineno < body[0].lineno < node.end_lineno:
            begin = starts[node.lineno - 1]
            yield source[begin:starts[node.end_lineno]], starts[body[0].lineno - 1] - begin


def gaps(text, begin, kind, dice):
    """[(prefix, middle, suffix)] of a text behind character `begin`: each line that is not blank, behind its
    indentation (single-line); all from one such line to another (multi-line); one span (random-span)."""
    if kind == 'random-span':
        a, b = sorted(begin + dice.choice(len(text) - begin + 1, 2, replace=False))
        return [(text[:a], text[a:b], text[b:])]
    lines = []                                          # (begin, end) of those that are not blank
    for line in text[begin:].splitlines(keepends=True):
        if line.strip():
            indent = len(line) - len(line.lstrip())
            lines.append((begin + indent, begin + len(line.rstrip('\r\n'))))
        begin += len(line)
    if kind == 'single-line':
        spans = lines
    else:
        spans = [(a, b) for i, (a, _) in enumerate(lines) for _, b in lines[i + 1:]]
    return [(text[:a], text[a:b], text[b:]) for a, b in spans]
