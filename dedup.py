"""
Which texts are copies of which: of texts that say the same, or nearly the same, the first one stays.

    python dedup.py         # a dozen lines: which is a copy of which, and why

    find_copies(['one text', 'another', 'one  text'])       # array([0, 1, 0]): the third is the first

clean.py calls it for files that don't fit into memory. To copy this file alone, you need numpy. The
decision made here is what counts as a copy, because a model recites what it has read many times.

**MinHash** (Broder 1997) finds near-copies without comparing each text with each. Let one text have
the n-grams a, b, c and another one b, c, d. They share 2 of 4: their Jaccard similarity J is 0.5. A
hash function gives each n-gram a number that is as good as random:

    n-gram      a     b     c     d
    number      71    35    12    58

The smallest number of the first text is 12, and so is that of the second. They agree because c,
which has the smallest of the four numbers, is in both texts. If a or d had it, they would differ.
Each of the four is as likely to have it as the others, so they agree with probability 2 / 4 = J.

A text gets 256 such numbers from 256 hash functions, in 32 bands of 8. All 8 of a band agree with
probability J^8, and at least one band of 32 with 1 - (1 - J^8)^32. Only texts that agree in a band
are compared:

    J                                   0.4     0.5     0.9
    probability of being compared       0.02    0.12    0.99999998

The fraction of the 256 numbers that agree tells J to about 0.02. Where this is too rough to decide,
the n-grams themselves are compared. We keep 8 bits of each number: 256 bytes a text.

**SimHash** (Charikar 2002) needs 8 bytes a text. Each n-gram has a hash, and each bit of the number
is what most of these hashes have there: 0110, 1100 and 0101 make 0100. Near-copies differ in three
bits at most, so they share one of four blocks of 16 bits (Manku 2007). It finds what differs in a
few words of a long text. Of copies in which 1 word in 100 is another one, it finds one in ten.

**A copy of a copy is a copy.** If A and B are both like O, but not like each other, they are one
family, and only its first text stays. Otherwise a model could train on A and be tested on B.
"""
import functools, hashlib
import numpy as np

# --- from a text to its n-grams -------------------------------------------------------------------
GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio, odd
# A word is a run of letters, digits and _ in UTF-8. A character of three bytes or more is a word of
# its own, because Chinese has no spaces. All other bytes become 0.
LETTERS = bytes(b if chr(b).isalnum() or b == ord('_') or b > 127 else 0
                for b in bytes(range(256)).lower())
CHUNK = 1 << 16                             # bytes that are hashed at once: they stay in the cache
UP, DOWN = (np.multiply.accumulate(np.append(np.uint64(1), np.full(CHUNK + 4, g, np.uint64)))
            for g in (GOLDEN, pow(int(GOLDEN), -1, 2 ** 64)))      # UP[i] * DOWN[i] = 1 mod 2^64


def hash64(data):
    """Return 64 bits that follow from these bytes alone; hash64(data) / 2**64 is as if drawn from
    [0, 1)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def exact_hash(data):
    """Return what texts in UTF-8 share that are equal but for white space."""
    return hash64(data.translate(None, b' \t\n\r\f\v'))


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): each bit of h changes all bits of the result."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def words_of(data):
    """Return a hash of each word of a text in UTF-8, in lower case and in order, uint64 (words,): a
    polynomial of its bytes. numpy does all words at once: the text is one polynomial, of which the
    part that begins at s is the word's times GOLDEN^s."""
    data, begin, hashes = data.translate(LETTERS) + b'\0', 0, [np.zeros(0, np.uint64)]
    while begin < len(data):
        end = data.rfind(b'\0', begin, begin + CHUNK) + 1 or begin + CHUNK      # between two words
        text = np.frombuffer(data[begin:end] + bytes(4), np.uint8)                      # (bytes,)
        is_word = text != 0
        is_start = is_word & ~np.append(False, is_word[:-1])
        at = np.flatnonzero(text >= 0xE0)       # where a character of three or four bytes begins
        after = at + 3 + (text[at] >= 0xF0)
        is_start[at] = True
        is_start[after] |= is_word[after]
        starts = np.flatnonzero(is_start)                                               # (words,)
        if len(starts):
            hashes.append(np.add.reduceat(text * UP[:len(text)], starts) * DOWN[starts])
        begin = end
    return mix(np.concatenate(hashes))


def ngrams(words, n):
    """Return the hash of each n words in a row, in order, uint64 (words - n + 1,)."""
    total = np.zeros(max(0, len(words) - n + 1), np.uint64)
    for i in range(n):
        total = total * GOLDEN + words[i:i + len(total)]        # a polynomial, because order counts
    return mix(total)


def shingles(data, n=5):
    """Return the set of the word n-grams of a text in UTF-8, as sorted hashes, uint64. A text of
    fewer than n words has one n-gram, which is all its words; without any word, all its bytes."""
    words = words_of(data)
    if not len(words):
        return np.array([hash64(data)], np.uint64)
    grams = np.sort(ngrams(words, min(n, len(words))))
    # np.unique does the same, but takes three times as long for so few
    return np.append(grams[:1], grams[1:][grams[1:] != grams[:-1]])


def jaccard(a, b):
    """Return |A and B| / |A or B| of two sets of shingles; two empty sets share nothing: 0."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


# --- from n-grams to a signature ------------------------------------------------------------------
@functools.lru_cache(1)
def hash_functions(k):
    """Return the a and b of k functions a x + b mod 2^32, uint32 (k, 1) each."""
    random = mix(np.arange(2 * k, dtype=np.uint64)) >> np.uint64(32)
    a, b = random.astype(np.uint32).reshape(2, k, 1)
    return a | np.uint32(1), b          # an odd a maps no two x to one value


def minhash(shingles, k=256):
    """Return the k numbers of a set of shingles, uint32 (k,): the smallest value that each of k
    hash functions has in the set. An empty set has the largest number."""
    a, b = hash_functions(k)
    x = (shingles >> np.uint64(32)).astype(np.uint32)                               # (shingles,)
    numbers = np.full(k, 2 ** 32 - 1, np.uint32)
    for i in range(0, len(x), 500):     # that many hashes stay in the cache
        hashes = a * x[i:i + 500]                                                   # (k, 500)
        hashes += b
        numbers = np.minimum(numbers, hashes.min(1))                                # (k,)
    return numbers


def simhash(shingles):
    """Return the number of a set of shingles as bytes, uint8 (8,)."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return np.packbits(bits.sum(0) * 2 > len(bits))


def signature(data, method='minhash', k=256):
    """Return what near-copies of a text in UTF-8 have in common, uint8 (k,), or (8,) of simhash."""
    grams = shingles(data)
    return simhash(grams) if method == 'simhash' else minhash(grams, k).astype(np.uint8)


# --- which texts are copies -----------------------------------------------------------------------
# first, (n,), has for each text one of its family that comes before it, or the text itself.
ROUNDS = 50                     # comparing each with each would cost n^2


def first_of(i, first):
    """Return the first text of the family of each text in i, (m,)."""
    while (first[i] != i).any():
        i = first[i]
    return i


def join(i, j, first):
    """Make one family of those of the texts i[0] and j[0], of i[1] and j[1], ..."""
    while len(i):
        i, j = first_of(i, first), first_of(j, first)
        i, j = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
        np.minimum.at(first, j, i)      # of several, the earliest; the others are joined next time


def sharing(keys):
    """Return the numbers of those of n texts whose key is also another's, and these keys, sorted:
    7 5 7 8 5 -> 1 4 0 2 and 5 5 7 7."""
    order = np.argsort(keys, kind='stable')         # stable: of equal keys, earlier texts first
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    shared = np.append(same, False)[:len(keys)]
    shared[1:] |= same
    return order[shared], keys[shared]


def groups(keys):
    """Return where groups of equal keys begin, and how many are in each: 5 5 7 7 -> 0 2, 2 2."""
    begin = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[:len(keys)])
    return begin, np.diff(begin, append=len(keys))


def exact_copies(hashes):
    """Return first, (n,), of n texts: those whose hashes are equal are a family."""
    first = np.arange(len(hashes))
    texts, keys = sharing(hashes)
    begin, sizes = groups(keys)
    first[texts] = np.repeat(texts[begin], sizes)
    return first


def near_copies(first, signatures, shingles_of, method='minhash', bands=32, min_similarity=0.85,
                progress=iter):
    """Join the families of near-copies in first, which has those of exact ones. signatures: uint8
    (n, bytes), perhaps a file; shingles_of(i) returns those of text i. Return what a report should
    say, {what: number}.

    In a round, the first text of each group that agrees in a band is compared with those of other
    families, and leaves, so no two are compared twice. After 50 rounds a group is left alone."""
    if method == 'simhash':
        bands, min_similarity = 4, 61 / 64
    n_rows = signatures.shape[1] // bands
    # three standard deviations of the fraction of numbers that agree
    rough = 3 * (min_similarity * (1 - min_similarity) / signatures.shape[1]) ** 0.5

    @functools.lru_cache(1 << 18)
    def jaccard_of(i, j):
        return jaccard(shingles_of(i), shingles_of(j))

    def similarity(i, j):
        """Return how similar texts i[0] and j[0] are, i[1] and j[1], ..., (m,)."""
        found = np.zeros(len(i))
        for some in range(0, len(i), 10_000):       # so many at once need little memory
            a, b = (signatures[texts[some:some + 10_000]] for texts in (i, j))
            if method == 'simhash':
                a, b = np.unpackbits(a, axis=1), np.unpackbits(b, axis=1)
            found[some:some + 10_000] = np.count_nonzero(a == b, axis=1) / a.shape[1]
        if method == 'minhash':
            for pair in np.flatnonzero(np.abs(found - min_similarity) <= rough).tolist():
                found[pair] = jaccard_of(int(i[pair]), int(j[pair]))
        return found

    different = np.flatnonzero(first == np.arange(len(first)))      # no exact copies
    n_cut = 0
    for band in progress(range(bands)):
        keys = np.zeros(len(different), np.uint64)
        for numbers in signatures[different, band * n_rows:(band + 1) * n_rows].T:
            keys *= GOLDEN
            keys += numbers
        texts, keys = sharing(keys)
        texts = different[texts]
        for turn in range(ROUNDS + 1):
            begin, sizes = groups(keys)
            family = first_of(texts, first)
            is_other = family != np.repeat(family[begin], sizes)
            is_open = np.logical_or.reduceat(is_other, begin)
            if turn == ROUNDS or not is_open.any():
                break
            i, j = np.repeat(texts[begin], sizes)[is_other], texts[is_other]
            is_copy = similarity(i, j) >= min_similarity
            join(i[is_copy], j[is_copy], first)
            stays = np.repeat(is_open, sizes)
            stays[begin] = False
            texts, keys = texts[stays], keys[stays]
        n_cut += int(is_open.sum())

    first[:] = first_of(first, first)
    copies = different[first[different] != different]
    direct = similarity(first[copies], copies)
    far = direct[direct < min_similarity]
    return {'copies of copies': len(far), 'their lowest similarity': round(far.min(initial=1), 2),
            'pairs whose n-grams were compared': jaccard_of.cache_info().misses,
            f'groups left after {ROUNDS} rounds': n_cut}


def find_copies(texts, method='minhash', bands=32, rows=8, min_similarity=0.85):
    """Return the number of the text that stays in place of each text in a list, (n,)."""
    data = [text.encode('utf-8', 'surrogatepass') for text in texts]
    first = exact_copies(np.array([exact_hash(one) for one in data], np.uint64))
    signatures = np.stack([signature(one, method, bands * rows) for one in data])
    near_copies(first, signatures, lambda i: shingles(data[i]), method, bands, min_similarity)
    return first


# --- a check of itself ----------------------------------------------------------------------------
if __name__ == '__main__':
    poem = ('The parrot sat on the old ship and said what the sailors had said before: the wind is '
            'fair, the rum is low, the captain snores, the cook is slow. It never asked what a '
            'word was for, and the sailors laughed, and taught it more, and it said it on shore.')
    demo = {'without its first five words': poem.split(' ', 5)[5],
            'without its last five words': poem.rsplit(' ', 5)[0], 'the poem': poem,
            'with other white space': poem.replace(' ', '\n'), 'in capitals': poem.upper(),
            'with fog for wind': poem.replace('wind', 'fog'),
            'and tea for rum': poem.replace('wind', 'fog').replace('rum', 'tea'),
            'its words in order': ' '.join(sorted(poem.split())), 'the poem twice': poem + poem,
            'in Chinese': '鹦鹉坐在旧船上，说着水手们说过的话。', 'stars': '* * *', 'a line': '---'}
    texts = [*demo.values()]
    sets = [shingles(text.encode()) for text in texts]
    signatures, bits = (np.stack([signature(text.encode(), method) for text in texts])
                        for method in ('minhash', 'simhash'))
    first, by_simhash = find_copies(texts), find_copies(texts, 'simhash')
    J = np.array([[jaccard(a, b) for b in sets] for a in sets])                         # (n, n)
    print('text  most like     J  of 256  of 32 bands  bits apart  what stays: MinHash  SimHash')
    for i, name in enumerate(demo):
        j = int(np.argmax(J[i] * (np.arange(len(J)) != i)))
        agree = signatures[i] == signatures[j]
        apart = np.unpackbits(bits[i] ^ bits[j]).sum()
        print(f'{i:4}{j:11}{J[i, j]:6.2f}{agree.sum():8}{agree.reshape(32, 8).all(1).sum():13}'
              f'{apart:12}{first[i]:21}{by_simhash[i]:9}  {name}')
    print(f'0 and 1 share {J[0, 1]:.2f}, but both are copies of 2: one family, whose first stays')

    # A family is what can be reached in any number of steps, each from a text to a copy.
    is_copy = (J >= 0.85) | np.eye(len(J), dtype=bool)
    for k in range(len(J)):
        is_copy |= is_copy[:, k:k + 1] & is_copy[k]
    assert (is_copy.argmax(1) == first).all()
    print('comparing each with each gives the same families')
