"""
Figures of text: is it Python, and what has the model that wrote it learned?

    syntax_error('x = = 1')                     # 'SyntaxError: invalid syntax (program, line 1)'
    levels(['we go, wo'], {'we', 'go'}, set())['words']     # 1.0: the last word may be cut off
"""
import re, warnings
import numpy as np
from tqdm import tqdm

WORD = r'[^\W\d]\w*'
# of a line: its indentation, and its first word or sign
BEGINNING = r'(?<=\n)[ \t]*(?:\w+|[^\w\s])'
BLOCK = r'\n\s*\n(?=\S)|<\|endoftext\|>'         # what ends a block: blank lines before column 0


def syntax_error(code):
    """Why a text is not Python, or None if it is. (ast.parse would accept a `return` outside a
    function.)"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')    # of odd escapes in strings
            compile(code, 'program', 'exec', dont_inherit=True)
    except Exception as e:          # lone surrogates: UnicodeEncodeError; deep nesting: MemoryError
        return f'{type(e).__name__}: {e}'


# --- what has been learned, at four levels --------------------------------------------------------
def vocabulary(bins, tokenizer):
    """The words of the texts of token ids (arrays), and the beginnings of their lines: two sets."""
    words, beginnings = set(), set()
    for ids in bins:
        # it cuts few words
        for i in tqdm(range(0, len(ids), 1_000_000), 'reading', disable=None):
            text = tokenizer.decode(ids[i:i + 1_000_000].tolist()).replace('<|endoftext|>', '\n')
            words.update(re.findall(WORD, text))
            beginnings.update(re.findall(BEGINNING, text))
    return words, beginnings


def excerpts(ids, tokenizer, n, n_tokens):
    """n texts of n_tokens, spread evenly over token ids (an array). Each begins where a block
    does."""
    texts = []
    for i in np.linspace(0, max(0, len(ids) - 3 * n_tokens), n).astype(int):
        text = tokenizer.decode(ids[i:i + 3 * n_tokens].tolist())
        text = re.split(BLOCK, text, maxsplit=1)[-1].partition('<|endoftext|>')[0]
        texts.append(tokenizer.decode(tokenizer.encode(text)[:n_tokens]))
    return texts


def levels(texts, words, beginnings):
    """Fractions, None where there is nothing to count: of characters, white space and punctuation;
    of words, those in `words`; of lines, those with one of the `beginnings`; of blocks, speeches,
    which are headed NAME: (a play's). The last word, line or block of a text may be cut off and is
    left out."""
    characters = ''.join(texts)
    blocks = [block for text in texts for block in re.split(BLOCK, text)[:-1]]
    counted = {
        'space': [c.isspace() for c in characters],
        'punctuation': [not (c.isspace() or c.isalnum()) for c in characters],
        'words': [word in words for text in texts for word in re.findall(WORD, text)[:-1]],
        'lines': [line in beginnings for text in texts
                  for line in re.findall(BEGINNING, f'\n{text}')[:-1]],
        'speeches': [bool(re.match(r'\s*[A-Z][^\n:]*:\s*(\n|$)', block)) for block in blocks]}
    return {name: sum(each) / len(each) if each else None for name, each in counted.items()}
