"""
The chunks of texts, counted on all cores; those of ASCII text by tokenizer.py's PATTERN with numpy.

    count_chunks(['a b a', 'é']) == {'a': 1, ' b': 1, ' a': 1, 'é': 1}      # as in tokenizer.py
    count_ascii(['a b a', 'é']) == ({'a': 1, ' b': 1, ' a': 1}, ['é'])

A regular expression walks from chunk to chunk and makes each a string. Here we look at all bytes at once.
Each has a kind (letter, digit, symbol, blank, newline), and a chunk begins where the kind changes, but:
- the last of some blanks begins a chunk; it takes the word behind it, or, if it is a space, the symbols;
- a word belongs to the one symbol before it, if that is not taken by a space;
- the first, fourth, seventh ... digit of a number begins a chunk;
- newlines belong to the symbols or blanks before them, and the blanks behind newlines belong to these.
Chunks of up to 8 bytes, 5 of 6, are read as 64-bit numbers, and counted by sorting the numbers.

A text is odd if it has a character that is not ASCII, a NUL (it pads our numbers), a vertical tab, a form
feed, a carriage return without its newline, or more than 256 blanks and newlines in a row, which PATTERN
cuts. The regular expression cuts the odd lines of such a text, see BLOCK.

It needs numpy, and of tokenizer.py PATTERN and the regular expression's count_chunks.
"""
import collections
import functools
import itertools
import multiprocessing
import re
import string

import numpy as np

from tokenizer import MAX_CHUNK, PATTERN
from tokenizer import count_chunks as count_by_regex

LETTER, DIGIT, SYMBOL, BLANK, NEWLINE, ODD, EDGE = range(7)
KIND = bytearray([SYMBOL] * 128 + [ODD] * 127 + [EDGE])     # no UTF-8 has byte 255; it stands between texts
for kind_, characters in {LETTER: string.ascii_letters, DIGIT: string.digits, BLANK: ' \t', NEWLINE: '\n\r',
                          ODD: '\0\v\f'}.items():
    for character in characters:
        KIND[ord(character)] = kind_

MOST_BLANKS = 256       # in a row, as in PATTERN
BATCH = 1_000_000       # characters that a process counts at a time
MASKS = np.array([256 ** n - 1 for n in range(9)], '<u8')   # the first n bytes of a little-endian number

# A text up to a newline with its indentation before an ASCII character that is neither. PATTERN matches a
# newline in two alternatives only, and both take all blanks behind it, so a chunk ends there. It never looks
# back, so what follows is cut as if the text began there.
BLOCK = re.compile(r'(?:.*\n)+?[ \t]*(?=[!-~])|(?s:.+)')


def in_batches(texts, characters=BATCH):
    """Lists of texts, each of about so many characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    yield batch


def count_chunks(texts, pattern=PATTERN, processes=None):
    """Counter of the chunks of an iterable of str, in constant memory: batches go to worker processes, whose
    number does not change the sum. Where a system cannot fork (Windows), this process does the work."""
    count = count_batch if pattern == PATTERN else functools.partial(count_by_regex, pattern=pattern)
    batches = in_batches(texts)
    first = list(itertools.islice(batches, 2))              # is there more than one batch?
    batches = itertools.chain(first, batches)

    total = collections.Counter()
    if len(first) == 1 or processes == 1 or 'fork' not in multiprocessing.get_all_start_methods():
        for batch in batches:
            total.update(count(batch))
        return total
    with multiprocessing.get_context('fork').Pool(processes) as pool:
        for counts in pool.imap_unordered(count, batches):
            total.update(counts)
    return total


def count_batch(texts):
    """Counter of the chunks of a list of str by PATTERN."""
    counts, odd = count_ascii(texts)
    of_blocks, odd = count_ascii([block for text in odd for block in BLOCK.findall(text)])
    counts.update(of_blocks)
    counts.update(count_by_regex(odd))
    return counts


def runs(mask):
    """The first and the last places of all runs of True; mask[0] and mask[-1] are False."""
    change = np.flatnonzero(mask[1:] != mask[:-1])
    return change[::2] + 1, change[1::2]


def starts_of_chunks(text, kind):
    """Mask of the places at which a chunk begins."""
    start = np.append(True, kind[1:] != kind[:-1])
    first, last = runs(kind == BLANK)
    indentation = kind[first - 1] == NEWLINE
    start[first[indentation]] = False

    newline = np.flatnonzero(start & (kind == NEWLINE))
    before = kind[newline - 1]
    start[newline[(before == SYMBOL) | (before == BLANK)]] = False

    last = last[~indentation & (kind[last + 1] <= SYMBOL)]
    behind = kind[last + 1]
    start[last] = True
    start[last[(behind == LETTER) | ((behind == SYMBOL) & (text[last] == ord(' ')))] + 1] = False

    word = np.flatnonzero(start & (kind == LETTER))
    start[word[(kind[word - 1] == SYMBOL) & start[word - 1]]] = False

    digit = np.flatnonzero(kind == DIGIT)
    number = np.maximum.accumulate(np.where(start[digit], digit, 0))        # where this digit's number begins
    start[digit[(digit - number) % 3 == 0]] = True
    return start


def count_ascii(texts):
    """Counter of the chunks of those of some texts that are not odd, and the odd ones."""
    data = b'\xff'.join([b'', *(text.encode('utf-8', 'surrogatepass') for text in texts), b''])
    text = np.frombuffer(data, np.uint8)
    kind = np.frombuffer(bytearray(data.translate(KIND)), np.uint8)
    returns = np.flatnonzero(text == ord('\r'))
    kind[returns[text[returns + 1] != ord('\n')]] = ODD
    first, last = runs((kind == BLANK) | (kind == NEWLINE))
    odd = np.append(np.flatnonzero(kind == ODD), first[last - first >= MOST_BLANKS])
    edges = np.flatnonzero(kind == EDGE)
    odd = np.unique(np.searchsorted(edges, odd) - 1).tolist()       # numbers of texts
    for i in odd:
        kind[edges[i]:edges[i + 1]] = EDGE

    start = np.flatnonzero(starts_of_chunks(text, kind))
    length = np.diff(start, append=len(text))
    long = length > MAX_CHUNK
    cuts = [np.arange(a + MAX_CHUNK, a + n, MAX_CHUNK) for a, n in zip(start[long], length[long])]
    start = np.sort(np.concatenate([start, *cuts]))
    length = np.diff(start, append=len(text))
    counted = kind[start] != EDGE
    return count_slices(data, start[counted], length[counted]), [texts[i] for i in odd]


def count_slices(data, start, length):
    """Counter of the str that begin at these places of data and have these lengths, without NUL in them."""
    short = length <= 8
    eight = np.ndarray(len(data), '<u8', data + bytes(8), strides=1)    # at each place, 8 bytes as a number
    numbers = np.sort(eight[start[short]] & MASKS[length[short]])
    first = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1])[:len(numbers)])
    times = np.diff(first, append=len(numbers))
    total = dict(zip(numbers[first].view('S8').tolist(), times.tolist()))

    longer = zip(start[~short].tolist(), length[~short].tolist())
    total |= collections.Counter(data[a:a + n] for a, n in longer)
    return collections.Counter({chunk.decode(): n for chunk, n in total.items()})
