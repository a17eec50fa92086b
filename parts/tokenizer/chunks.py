r"""
The chunks of texts by any split pattern, counted on all cores, twice as fast as the package regex finds them.

    count_chunks(['a b a', 'é']) == {'a': 1, ' b': 1, ' a': 1, 'é': 1}      # as in tokenizer.py
    findall(r'\p{L}+', 'an été') == ['an', 'été']                           # as regex.findall

Python's own re is twice as fast as regex, but it does not know \p{L}, and its \s has four characters more. So
we ask regex which characters it means, and write them out: \p{L} becomes [A-Za-zª-ªµ-µ...]. The rest of a
pattern means the same to both modules, if it has nothing but what ALIKE lists. All other patterns go to
regex. So do texts with a character beyond U+FFFF, such as an emoji: re is slow where a set has those, too.

It needs regex, and of tokenizer.py PATTERN and count_chunks, which counts on one core.
"""
import collections
import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import re

import regex

import tokenizer

BATCH = 2_000_000       # characters that a process counts at a time
BEYOND = re.compile('[\U00010000-\U0010ffff]')

KIND = r'\\p\{[LMNPSZ][a-z]?\}|\\[sS]'                                  # of characters: letters, numbers ...
SET = rf'\[\^?(?:{KIND}|\\[nrt]|[a-zA-Z\d]-[a-zA-Z\d]|[^\]\[\\|&~-])+\]'
ALIKE = rf'(?:{SET}|{KIND}|\\[nrt]|\(\?[:=!]|\{{\d+,?\d*\}}|[^\[\\({{])+'


@functools.cache
def members(kind):
    r"""The characters up to U+FFFF that regex means, as ranges for a set: r'\p{L}' -> 'A-Za-zª-ªµ-µ...'"""
    runs = regex.findall(kind + '+', ''.join(map(chr, range(0x10000))))
    return ''.join(f'{re.escape(run[0])}-{re.escape(run[-1])}' for run in runs)


@functools.cache
def find_by_re(pattern):
    """The findall of re for this pattern, or None."""
    if not regex.fullmatch(ALIKE, pattern):
        return None
    only_sets = regex.sub(f'{SET}|{KIND}', lambda m: m[0] if m[0][0] == '[' else f'[{m[0]}]', pattern)
    try:
        return re.compile(regex.sub(KIND, lambda m: members(m[0]), only_sets)).findall
    except re.error:                    # Python 3.10 does not know `++`
        return None


def findall(pattern, text):
    """What regex.findall finds."""
    find = find_by_re(pattern)
    if find and (text.isascii() or not BEYOND.search(text)):
        return find(text)
    return regex.findall(pattern, text)


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


def count_chunks(texts, pattern=tokenizer.PATTERN, processes=None):
    """Counter of the chunks of an iterable of str; each text is held whole. Batches go to worker processes,
    whose number does not change the sum. Where a system cannot fork (Windows), this process does the work."""
    find_by_re(pattern)    # before the fork, so that the workers have it
    count = functools.partial(tokenizer.count_chunks, pattern=pattern, findall=findall)
    batches = in_batches(texts)
    first = list(itertools.islice(batches, 2))              # is there more than one batch?
    batches = itertools.chain(first, batches)

    total = collections.Counter()
    n = processes or os.cpu_count()
    if len(first) == 1 or n == 1 or 'fork' not in multiprocessing.get_all_start_methods():
        for batch in batches:
            total.update(count(batch))
        return total
    with concurrent.futures.ProcessPoolExecutor(n, multiprocessing.get_context('fork')) as pool:
        begun = collections.deque()
        for batch in batches:
            begun.append(pool.submit(count, batch))
            if len(begun) == 4 * n:                         # the reader waits for the workers
                total.update(begun.popleft().result())
        for job in begun:
            total.update(job.result())
    return total
