"""
Find texts that say the same, or nearly the same, so that only the first one of them is kept.

    python dedup.py                             # a dozen texts, and which are duplicates of which
    find_duplicates(['one text', 'another', 'one  text'])       # array([0, 1, 0]): 2 repeats 0

It needs numpy alone. MinHash (Broder 1997) finds near-duplicates without comparing each text with
each. Let one text have the n-grams a, b, c and another one b, c, d. They share 2 of 4: their
Jaccard similarity J is 0.5. A hash function gives each n-gram a number that is as good as random:
    n-gram      a     b     c     d
    number      71    35    12    58
The smallest number of the first text is 12, and so is that of the second. They agree because c,
which has the smallest of the four numbers, is in both texts. If a or d had it, they would differ.
Each of the four is as likely to have it as the others, so they agree with probability 2 / 4 = J.

A text gets 256 such numbers from 256 hash functions, in 32 bands of 8. All 8 of a band agree with
probability J^8, and at least one band of 32 with 1 - (1 - J^8)^32. Only texts that agree in a band
are compared. The part of the 256 that agrees is J, to 0.02; if that can't decide, the n-grams do.
    J                                   0.4     0.5     0.9
    probability of being compared       0.02    0.12    0.99999998
A duplicate of a duplicate is a duplicate. If A and B are like O, but not like each other, all three
are one cluster, of which only the first text is kept. Otherwise a model could train on A and be
tested on B.
"""
import functools, hashlib
import numpy as np

# --- from a text to its n-grams, and from them to a signature -------------------------------------
GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio, odd
CHUNK = 1 << 13                             # bytes that are hashed at once
UP = GOLDEN ** np.arange(CHUNK + 4, dtype=np.uint64)
DOWN = UP ** np.uint64(2 ** 62 - 1)         # UP[i] * DOWN[i] = 1 mod 2^64
# A word is a run of letters, digits and _ in UTF-8. A character of three bytes or more is a word of
# its own, because Chinese has no spaces. All other bytes become 0.
LETTERS = bytes(b if chr(b).isalnum() or b == ord('_') or b > 127 else 0
                for b in bytes(range(256)).lower())


def hash64(data):
    """Return 64 bits that follow from these bytes alone, as if drawn at random."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): each bit of h changes all bits of the result."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def words_of(data):
    """Return a hash of each word of a text in UTF-8, in order, uint64 (words,).

    A word's hash is a polynomial in x of its bytes. The bytes of `ab cd` are 97 98 0 99 100, since
    LETTERS makes the space 0. The polynomial of the whole text is
        97 + 98 x + 0 x^2 + 99 x^3 + 100 x^4
    Its terms over `ab` are 97 + 98 x. Those over `cd` are 99 x^3 + 100 x^4, and divided by x^3,
    because `cd` begins at byte 3, they are 99 + 100 x, as anywhere else. With x = 10 the two hashes
    are 1077 and 1099. So numpy hashes all words at once: it multiplies by UP, the powers of x, sums
    over each word, and multiplies by DOWN, the powers of 1 / x. Here x is GOLDEN, and all is modulo
    2^64, where an odd x has an inverse."""
    data, begin, hashes = data.translate(LETTERS) + b'\0', 0, []
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
    fewer than n words has one n-gram: all its words, or where there are none, all its bytes."""
    words = words_of(data)
    if not len(words):
        return np.array([hash64(data)], np.uint64)
    grams = np.sort(ngrams(words, min(n, len(words))))      # np.unique takes three times as long
    return np.append(grams[:1], grams[1:][grams[1:] != grams[:-1]])


def jaccard(a, b):
    """Return |A and B| / |A or B| of two sets of shingles; two empty sets share nothing: 0."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


def minhash(shingles, k=256):
    """Return the k numbers of a set of shingles, uint32 (k,): the smallest value that each of k
    hash functions, a x + b mod 2^32, has in the set. An empty set has the largest number."""
    a, b = mix(np.arange(k, dtype=np.uint64)).view(np.uint32).reshape(2, k, 1)
    a |= np.uint32(1)                   # an odd a maps no two x to one value
    x = (shingles >> np.uint64(32)).astype(np.uint32)                               # (shingles,)
    numbers = np.full(k, 2 ** 32 - 1, np.uint32)
    for i in range(0, len(x), 120):     # for arrays above 128 KB, malloc asks the system each time
        hashes = a * x[i:i + 120] + b                                               # (k, 120)
        numbers = np.minimum(numbers, hashes.min(1))                                # (k,)
    return numbers


def simhash(shingles):
    """Return the second kind of signature (Charikar 2002), uint8 (64,): of each bit, what most of
    the hashes have. 0110, 1100 and 0101 make 0100. Near-duplicates differ in 3 bits, so they
    share one of four blocks of 16 (Manku 2007). With 1 word in 100 changed, it finds one in ten. It
    is here to compare with, because it is the other classic method."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return (bits.sum(0) * 2 > len(bits)).astype(np.uint8)


def signature(data, method='minhash', k=256):
    """Return the signature of a text in UTF-8, uint8 (k,) or (64,). Eight bits of a number do."""
    grams = shingles(data)
    return simhash(grams) if method == 'simhash' else minhash(grams, k).astype(np.uint8)


# --- clusters: union-find -------------------------------------------------------------------------
# parent[i] is an earlier text of the cluster of text i, or i itself: its representative, the first.
def find(parent, i):
    """Return the representative of the cluster of each text in i, (m,)."""
    while (parent[i] != i).any():
        i = parent[i]
    return i


def union(parent, i, j):
    """Merge, in parent, the clusters of the texts i[0] and j[0], of i[1] and j[1], ..."""
    while len(i):
        i, j = find(parent, i), find(parent, j)
        i, j = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
        np.minimum.at(parent, j, i)     # of several i, the least; the others are merged next time


def sharing(keys):
    """Return which of n texts share their key, and these keys: 7 5 7 8 5 -> 1 4 0 2, 5 5 7 7."""
    order = np.argsort(keys, kind='stable')         # stable: of equal keys, earlier texts first
    keys = keys[order]
    shared = np.append(keys[1:] == keys[:-1], False)[:len(keys)]        # equal to the next one
    shared[1:] |= shared[:-1].copy()
    return order[shared], keys[shared]


def exact_duplicates(hashes):
    """Return parent, (n,): texts whose hashes are equal are a cluster."""
    parent = np.arange(len(hashes))
    texts, keys = sharing(hashes)
    parent[texts] = texts[np.searchsorted(keys, keys)]      # where these keys begin
    return parent


def similarity(i, j, signatures, threshold, jaccard_of=None):
    """Return how similar the texts i[0] and j[0] are, i[1] and j[1], ..., (m,): the part of their
    signatures that agrees. Within three standard deviations of the threshold that can't decide, so
    there it is jaccard_of(i, j), if that is given: of the n-grams, which take longer."""
    k, found = signatures.shape[1], np.zeros(len(i))
    for m in range(0, len(i), 10_000):
        some = slice(m, m + 10_000)             # so many at once need little memory
        found[some] = np.count_nonzero(signatures[i[some]] == signatures[j[some]], 1) / k
    unsure = np.abs(found - threshold) <= 3 * (threshold * (1 - threshold) / k) ** 0.5
    for m in np.flatnonzero(unsure) if jaccard_of else ():
        found[m] = jaccard_of(i[m], j[m])
    return found


def near_duplicates(exact, signatures, shingles_of, method, bands, min_similarity, progress=iter):
    """Return parent, (n,): the clusters of exact, merged where texts are near-duplicates, and the
    number of groups that 50 rounds did not finish. signatures: uint8 (n, k), perhaps a file;
    shingles_of(i): those of text i.

    Texts that agree in a band are a group. Each round compares a group's first text with those of
    its others that are in another cluster, and then the first one leaves the group. There are at
    most 50 rounds, because comparing each with each would cost n^2."""
    k = signatures.shape[1]
    # remembered, because two texts may meet in several bands
    jaccard_of = functools.lru_cache(1 << 18)(lambda i, j: jaccard(shingles_of(i), shingles_of(j)))
    if method == 'simhash':
        bands, min_similarity, jaccard_of = 4, 61 / 64, None
    parent, n_open = exact.copy(), 0
    different = np.flatnonzero(exact == np.arange(len(exact)))          # no exact duplicates
    for columns in progress(range(0, k, k // bands)):
        keys = np.zeros(len(different), np.uint32)
        for numbers in signatures[different, columns:columns + k // bands].T:
            keys = keys * np.uint32(GOLDEN >> np.uint64(32)) + numbers
        texts, keys = sharing(keys)
        texts = different[texts]
        for turn in range(51):
            begin = np.searchsorted(keys, keys)     # of each text's group
            cluster = find(parent, texts)
            other = cluster != cluster[begin]
            if turn == 50 or not other.any():
                n_open += len(np.unique(keys[other]))
                break
            i, j = texts[begin][other], texts[other]
            found = similarity(i, j, signatures, min_similarity, jaccard_of)
            union(parent, i[found >= min_similarity], j[found >= min_similarity])
            stays = np.isin(keys, keys[other]) & (begin < np.arange(len(keys)))
            texts, keys = texts[stays], keys[stays]
    return find(parent, parent), n_open


def find_duplicates(texts, method='minhash', bands=32, rows=8, min_similarity=0.85):
    """Return the number of the text that is kept in place of each of a list, (n,)."""
    data = [text.encode('utf-8', 'surrogatepass') for text in texts]
    hashes = [hash64(one.translate(None, b' \t\n\r\f\v')) for one in data]      # blanks may differ
    exact = exact_duplicates(np.array(hashes, np.uint64))
    if not data:
        return exact
    signatures = np.stack([signature(one, method, bands * rows) for one in data])
    return near_duplicates(exact, signatures, lambda i: shingles(data[i]), method, bands,
                           min_similarity)[0]


if __name__ == '__main__':      # a check of itself
    poem = ('The parrot sat on the old ship and said what the sailors had said before: the wind is '
            'fair, the rum is low, the cook is slow. It never asked what a word was for, and the '
            'sailors laughed, and taught it more, and so it said it all again on shore.')
    texts = [poem.split(' ', 5)[-1], f'Once upon a time, sailors, {poem}', poem, poem.upper(),
             poem.replace(' ', '\n'), poem.replace('ship', 'mast'), poem.replace('sat', 'stood'),
             poem[:70], f'{poem} {poem}', ' '.join(sorted(poem.split())), '旧船', '***', '...']
    sets, kept = [shingles(text.encode()) for text in texts], find_duplicates(texts)
    J = np.array([[jaccard(a, b) for b in sets] for a in sets])                         # (n, n)
    print('text   kept  most like     J  of 256')
    for i, a in enumerate(sets):
        j = np.argmax(J[i] - (np.arange(len(J)) == i))
        agree = (minhash(a) == minhash(sets[j])).sum()
        print(f'{i:4}{kept[i]:7}{j:11}{J[i, j]:6.2f}{agree:8}  {texts[i][:55]!r}')
    print(f'0 and 1 share {J[0, 1]:.2f}, but both are near 2: one cluster, of which 0 is kept')
    cluster = np.linalg.matrix_power(J + np.eye(len(J)) >= 0.85, len(J))    # in any number of steps
    assert (cluster.argmax(1) == kept).all()
    print('comparing each with each finds the same; SimHash:', *find_duplicates(texts, 'simhash'))
