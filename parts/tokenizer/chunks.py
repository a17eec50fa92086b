"""
The chunks of ASCII text by tokenizer.py's PATTERN, cut and counted with numpy: the same, sooner.

    count(['a b a', 'é']) == ({'a': 1, ' b': 1, ' a': 1}, ['é'])

A regular expression walks from chunk to chunk and makes each a string. Here we look at all bytes at once.
Each has a kind (letter, digit, symbol, blank, newline), and a chunk begins where the kind changes, but:
- the last of some blanks begins a chunk; it takes the word behind it, or, if it is a space, the symbols;
- a word belongs to the one symbol before it, if that is not taken by a space;
- the first, fourth, seventh ... digit of a number begins a chunk;
- newlines belong to the symbols or blanks before them, and the blanks behind newlines belong to these.
Chunks of up to 8 bytes, 5 of 6, are read as 64-bit numbers, and counted by sorting the numbers.

Some parts of a text are left to the regular expression: those with a byte that is not ASCII, a NUL (it pads
our numbers), a vertical tab, a form feed, a carriage return without its newline, or more than 256 blanks and
newlines in a row, which PATTERN cuts. Such a part reaches from one safe place to the next: a safe place is
between a newline with its indentation and an ASCII character that is neither. PATTERN matches a newline in
two alternatives only, and both take all blanks behind it, so a chunk ends there; and as it never looks back,
what follows is cut as if the text began there.

Copy this file alone: it needs numpy.
"""
import collections
import string

import numpy as np

LETTER, DIGIT, SYMBOL, BLANK, NEWLINE, ODD, EDGE = range(7)
KIND = bytearray([SYMBOL] * 128 + [ODD] * 127 + [EDGE])     # no UTF-8 has byte 255; it stands between texts
for kind_, characters in {LETTER: string.ascii_letters, DIGIT: string.digits, BLANK: ' \t', NEWLINE: '\n\r',
                          ODD: '\0\v\f'}.items():
    for character in characters:
        KIND[ord(character)] = kind_

MOST_BLANKS = 256       # in a row, as in PATTERN
WIDE = 16               # bytes: the longest chunk that is read as 64-bit numbers
MASKS = np.array([256 ** n - 1 for n in range(9)], '<u8')   # the first n bytes of a little-endian number


def runs(mask):
    """The first and the last places of all runs of True; mask[0] and mask[-1] are False."""
    change = np.flatnonzero(mask[1:] != mask[:-1])
    return change[::2] + 1, change[1::2]


def odd_parts(kind, indents):
    """Where the parts that are left to the regular expression begin, and where they end. indents: the last
    places of the runs of blanks that follow a newline."""
    first, last = runs((kind == BLANK) | (kind == NEWLINE))
    odd = np.append(np.flatnonzero(kind == ODD), first[last - first >= MOST_BLANKS])
    if not len(odd):
        return [], []
    edges = np.flatnonzero(kind == EDGE)
    safe = np.append(np.flatnonzero(kind == NEWLINE), indents) + 1
    safe = np.sort(np.concatenate([safe[kind[safe] <= SYMBOL], edges, edges[:-1] + 1]))
    part = np.unique(np.searchsorted(safe, odd, 'right'))
    return safe[part - 1].tolist(), safe[part].tolist()


def starts_of_chunks(text, kind, blanks, indented):
    """Mask of the places at which a chunk begins. blanks: their runs; indented: those behind a newline."""
    start = np.append(True, kind[1:] != kind[:-1])
    first, last = blanks
    start[first[indented]] = False

    newline = np.flatnonzero(start & (kind == NEWLINE))
    before = kind[newline - 1]
    start[newline[(before == SYMBOL) | (before == BLANK)]] = False

    last = last[~indented & (kind[last + 1] <= SYMBOL)]
    behind = kind[last + 1]
    start[last] = True
    start[last[(behind == LETTER) | ((behind == SYMBOL) & (text[last] == ord(' ')))] + 1] = False

    word = np.flatnonzero(start & (kind == LETTER))
    start[word[(kind[word - 1] == SYMBOL) & start[word - 1]]] = False

    digit = np.flatnonzero(kind == DIGIT)
    number = np.maximum.accumulate(np.where(start[digit], digit, 0))        # where this digit's number begins
    start[digit[(digit - number) % 3 == 0]] = True
    return start


def count(texts):
    """How often each chunk occurs in a list of str, and the parts that are left to the regular expression."""
    data = b'\xff'.join([b'', *(text.encode('utf-8', 'surrogatepass') for text in texts), b''])
    text = np.frombuffer(data, np.uint8)
    kind = np.frombuffer(bytearray(data.translate(KIND)), np.uint8)
    returns = np.flatnonzero(text == ord('\r'))
    kind[returns[text[returns + 1] != ord('\n')]] = ODD

    blanks = runs(kind == BLANK)
    indented = kind[blanks[0] - 1] == NEWLINE
    start = starts_of_chunks(text, kind, blanks, indented)
    rest = []
    for a, b in zip(*odd_parts(kind, blanks[1][indented])):
        rest.append(data[a:b].decode('utf-8', 'surrogatepass'))
        kind[a:b] = EDGE
        start[b] = True
    start = np.flatnonzero(start)
    length = np.diff(start, append=len(text))
    counted = kind[start] != EDGE
    return count_slices(data, start[counted], length[counted]), rest


def count_slices(data, start, length):
    """Counter of the str that begin at these places of data and have these lengths, without NUL in them."""
    short, long = length <= 8, length > WIDE
    numbers = np.ndarray((len(data), WIDE // 8), '<u8', data + bytes(WIDE), strides=(1, 8))   # at each place

    narrow = numbers[start[short], 0] & MASKS[length[short]]
    narrow.sort()
    first = np.flatnonzero(np.append(True, narrow[1:] != narrow[:-1])[:len(narrow)])
    total = dict(zip(narrow[first].view('S8').tolist(), np.diff(first, append=len(narrow)).tolist()))

    middle = ~(short | long)
    wide = numbers[start[middle]]
    wide &= MASKS[np.clip(length[middle][:, None] - np.arange(0, WIDE, 8), 0, 8)]
    total |= collections.Counter(wide.view(f'S{WIDE}').ravel().tolist())

    total |= collections.Counter(data[a:a + n] for a, n in zip(start[long].tolist(), length[long].tolist()))
    return collections.Counter({chunk.decode(): n for chunk, n in total.items()})
