r"""
Byte-pair encoding in seconds: many merges are learned at a time, chunks are counted on all cores.

    learn_merges([b'low', b' lower', b' lowest'], [1, 1, 1], 2)     # ([(108, 111), (256, 119)], 10)
    count_chunks(['a b a', 'é']) == {'a': 1, ' b': 1, ' a': 1, 'é': 1}      # as in tokenizer.py
    findall(PATTERN, 'an été') == ['an', ' été']    # as regex.findall does, in half the time

# Merges

The plain loop (learn_merges in tokenizer.py: read that first) makes the most frequent pair of
tokens a new token, again and again. Of equally frequent pairs, the smaller ids come first. Here we
sort the pairs in that order, and merge as many of the first ones as we can at once: a *batch*. It
ends before the first pair that begins with the end of an earlier one, or ends with its beginning,
as `lo` and `ow`; and after one like `aa`.

Why this is exact. Let p and q be two pairs of a batch, p just before q. The loop merges p first.
Why does it still merge q next, with the same count?
- *Merging p takes no occurrence of q away.* It could do so only where the two overlap in the text,
  as `lo` and `ow` do in `low`, but then one begins with the end of the other.
- *Merging p makes no pair that comes before q.* Let p be `lo`. A new pair (x, `lo`) occurs only
  where (x, `l`) occurred, which is at least as frequent and has smaller ids. So if the new pair
  came before q, (x, `l`) would, too, and the batch would have ended between p and q. A new pair
  (`lo`, y) occurs only where (`o`, y) occurred. If it is as frequent as q, it comes after q, since
  `lo` has the largest id so far. If it were more frequent, so would (`o`, y) be, and again the
  batch would have ended. (`lo`, `lo`) occurs where (`o`, `l`) occurred. Only in `aaaa` was the pair
  that occurred there p itself, so a pair like `aa` is the last of its batch.

Why it is fast. The text is one array of symbols in which each place knows its neighbors, so a
merge is an assignment. All occurrences of a pair arise at once, with the newer of its two tokens;
later a pair only loses some. So pairs are numbered as they arise, each with a list of its places,
and there is no dictionary and no heap. 31 MB of Python have 134,000 different words, and 32,512
merges take about 1,000 batches.

# Chunks

Python's own re is twice as fast as regex, but it does not know \p{L}, and its \s has four more
characters. So for our own patterns we ask regex which characters they mean, and write them out:
[\p{L}] becomes [A-Za-zª-ªµ-µ...]. The rest of them means the same to both modules. Other
patterns go to regex. So do texts with a character beyond U+FFFF, such as an emoji, because re is
slow if a set has such characters.

Byte-pair encoding: Sennrich et al. 2016, arXiv:1508.07909. PATTERN and the count_chunks that counts
on one core are in tokenizer.py.
"""
import concurrent.futures, functools, itertools, multiprocessing, os, re
import numpy as np
import regex
import tokenizer


# --- merges, many at a time -----------------------------------------------------------------------
GONE = -1           # the symbol of a gap between two words, and of a place that a merge emptied
CANDIDATES = 512    # pairs that are kept in order; when they are used up, we look at all again


class Pairs:
    """A text of n places, with a gap between words, and a table of all pairs of symbols that it has
    or had.

    A place has a symbol; a weight, which is how often its word occurs; before and after, the places
    of its neighbors; and the number of the pair that begins here, or 0 for none.
    A pair has a key, left id * 2**32 + right id; a count, its weight in the text; and the places at
    which it ever began, place[start:start of the next pair]. A merge empties a place and makes at
    most two pairs, so there is room for 3n.
    """

    def __init__(self, words, counts):
        text = b'\0'.join([b'', *words, b''])
        n = len(text)
        lengths = np.array([len(word) + 1 for word in words])
        self.symbol = np.frombuffer(text, np.uint8).astype(np.int32)
        self.symbol[np.append(0, np.cumsum(lengths))] = GONE
        self.weight = np.append(0, np.repeat(np.array(counts, np.int64), lengths))
        self.before = np.arange(-1, n - 1, dtype=np.int32)
        self.after = np.arange(1, n + 1, dtype=np.int32)
        self.pair = np.zeros(n, np.int32)

        # np.empty takes no memory before it is written.
        self.key, self.count = np.empty((2, 3 * n + 2), np.int64)
        self.place, self.start = np.empty((2, 3 * n + 2), np.int32)
        self.key[0] = self.count[0] = self.start[0] = self.start[1] = 0
        self.n = 1
        self.add(np.flatnonzero((self.symbol[:-1] != GONE) & (self.symbol[1:] != GONE)))

    def add(self, places):
        """Give numbers to the pairs that begin at these places, which are all new. Return the
        numbers."""
        keys = self.symbol[places].astype(np.int64)
        keys <<= 32
        keys |= self.symbol[self.after[places]]
        order = np.argsort(keys, kind='stable')
        keys = keys[order]
        places = places[order]
        del order    # in the first call it is as long as the text
        is_first = np.append(True, keys[1:] != keys[:-1])[:len(keys)]
        first = np.flatnonzero(is_first)
        new = slice(self.n, self.n + len(first))
        begin = self.start[self.n]

        self.key[new] = keys[first]
        if len(first):
            self.count[new] = np.add.reduceat(self.weight[places], first)
        self.place[begin:begin + len(places)] = places
        self.start[new] = begin + first
        self.start[new.stop] = begin + len(places)
        self.pair[places] = self.n - 1 + np.cumsum(is_first)
        self.n = new.stop
        return np.arange(new.start, new.stop)

    def in_order(self, numbers):
        """Return these pairs, the most frequent first; equal ones in the order of their ids."""
        return numbers[np.lexsort((self.key[numbers], -self.count[numbers]))]

    def most_frequent(self, k):
        """Return the first k of all pairs in that order."""
        alive = np.flatnonzero(self.count[:self.n] > 0)
        if len(alive) > k:
            counts = self.count[alive]
            alive = alive[counts >= np.partition(counts, -k)[-k]]
        return self.in_order(alive)[:k]

    def find(self, batch):
        """Return the places where these pairs begin, and for each place the pair's index in the
        batch."""
        starts, stops = self.start[batch], self.start[batch + 1]
        # np.intp is numpy's own type of index, which is twice as fast here and below.
        places = np.concatenate([self.place[a:b] for a, b in zip(starts.tolist(), stops.tolist())],
                                dtype=np.intp)
        index = np.repeat(np.arange(len(batch)), stops - starts)
        here = self.pair[places] == batch[index]            # earlier merges destroyed some
        return places[here], index[here]

    def merge(self, batch, new_id):
        """Merge the pairs of a batch: the first becomes token new_id, the second new_id + 1, ...
        Return the new pairs."""
        left, index = self.find(batch)
        last = int(self.key[batch[-1]])
        # Only the last pair of a batch may be like `aa`.
        if last >> 32 == last & 0xffffffff:
            is_last = index == len(batch) - 1
            run = every_other(np.sort(left[is_last]), self.before)
            left = np.append(left[~is_last], run)
            index = index[:len(left)]
        right = self.after[left].astype(np.intp)
        behind = self.after[right].astype(np.intp)
        front = self.before[left].astype(np.intp)
        self.symbol[left] = new_id + index
        self.symbol[right] = GONE
        # Without the edges of words, and without places that are the right half of another merge.
        front = front[self.symbol[front] != GONE]

        # The pairs with the old neighbors lose these places.
        for places in (front, right):
            np.subtract.at(self.count, self.pair[places].astype(np.intp), self.weight[places])
        self.count[batch] = 0
        self.pair[left] = self.pair[right] = 0
        self.after[left] = behind
        self.before[behind] = left
        return self.add(np.append(front, left[self.symbol[behind] != GONE]))


def every_other(places, before):
    """Return those places that a merge takes, given all that begin a pair `aa`, from left to right:
    aaaaa becomes aa aa a, so every other one."""
    i = np.arange(len(places))
    # Does the place before this one begin a pair `aa` as well?
    touches = before[places] == np.append(-1, places[:-1])
    run = np.maximum.accumulate(np.where(touches, 0, i))    # where its run of `a` began
    return places[(i - run) % 2 == 0]


def without_overlap(keys):
    """Return how many of the first pairs make a batch: no pair begins with the end of another, and
    a pair like `aa` is the last."""
    lefts, rights = set(), set()
    for i, key in enumerate(keys):
        left, right = key >> 32, key & 0xffffffff
        if left in rights or right in lefts:
            return i
        if left == right:
            return i + 1
        lefts.add(left)
        rights.add(right)
    return len(keys)


def learn_merges(words, counts, n_merges):
    """Return what learn_merges of tokenizer.py returns. words: chunks as bytes, less than 0.7 GB;
    counts: how often each occurs, less than 2**63 bytes in all."""
    pairs = Pairs(words, counts)
    merges = []
    # All pairs down to the floor, so the best of them is the best of all. The floor is the count
    # and the key of the worst one. Counts only fall, so no other pair rises above it.
    candidates = np.empty(0, np.int64)
    floor = 0, 0
    while len(merges) < n_merges:
        count, key = pairs.count[candidates], pairs.key[candidates]
        candidates = candidates[(count > floor[0]) | ((count == floor[0]) & (key <= floor[1]))]
        if len(candidates):
            candidates = pairs.in_order(candidates)
        else:
            candidates = pairs.most_frequent(CANDIDATES)
            if not len(candidates):
                break
            floor = pairs.count[candidates[-1]], pairs.key[candidates[-1]]

        keys = pairs.key[candidates[:n_merges - len(merges)]].tolist()
        n = without_overlap(keys)
        born = pairs.merge(candidates[:n], 256 + len(merges))
        merges += [(key >> 32, key & 0xffffffff) for key in keys[:n]]
        candidates = np.append(candidates[n:], born)
    return merges, int(pairs.weight[pairs.symbol != GONE].sum())


# --- chunks, on all cores -------------------------------------------------------------------------
BATCH = 2_000_000       # characters that a process counts at a time, about


@functools.cache
def find_by_re(pattern):
    """Return re's findall for a pattern of ours, with each class of characters written out."""
    pattern = pattern.replace(r'\s{', r'[\s]{').replace(r'\S', r'[^\s]')
    for kind in r'\p{L}', r'\p{N}', r'\s':
        runs = regex.findall(f'{kind}+', ''.join(map(chr, range(0x10000))))
        ranges = [f'{re.escape(run[0])}-{re.escape(run[-1])}' for run in runs]
        pattern = pattern.replace(kind, ''.join(ranges))
    return re.compile(pattern).findall


def findall(pattern, text):
    """Return what regex.findall returns."""
    ours = tokenizer.PATTERN, tokenizer.SMALL_PATTERN
    if pattern in ours and (text.isascii() or max(text) < '\U00010000'):
        return find_by_re(pattern)(text)
    return regex.findall(pattern, text)


def in_batches(texts, characters=BATCH):
    """Yield lists of texts with about this many characters each."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    yield batch


def count_chunks(texts, pattern=tokenizer.PATTERN, processes=None):
    """Return a Counter of the chunks of an iterable of str; each text is held whole. This process
    counts the first batch, which is often the only one. The others go to worker processes, whose
    number does not change the sum. A system that cannot fork (Windows) has no workers."""
    count = functools.partial(tokenizer.count_chunks, pattern=pattern, findall=findall)
    batches = in_batches(texts)
    total = count(next(batches))        # before the fork, so that the workers have find_by_re
    n = processes or os.cpu_count()
    if n == 1 or 'fork' not in multiprocessing.get_all_start_methods():
        for batch in batches:
            total.update(count(batch))
        return total
    fork = multiprocessing.get_context('fork')
    with concurrent.futures.ProcessPoolExecutor(n, fork) as pool:
        # A few batches for each worker at a time, because a corpus may not fit into memory.
        while some := list(itertools.islice(batches, 4 * n)):
            for counts in pool.map(count, some):
                total.update(counts)
    return total
