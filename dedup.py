"""
Find exact duplicates and near-duplicates among texts, and keep the first text of each cluster.

    python dedup.py                             # self-test: a dozen texts and their clusters
    find_duplicates(['one text', 'another', 'one  text'])       # array([0, 1, 0]): 2 duplicates 0

This file only needs numpy. MinHash (Broder 1997) finds near-duplicates without comparing all pairs.
Let text 1 have the n-grams a, b, c and text 2 the n-grams b, c, d. They share 2 of 4 n-grams: their
Jaccard similarity J is 0.5. A hash function maps each n-gram to a pseudo-random number:
    n-gram      a     b     c     d
    number      71    35    12    58
Both texts have the minimum 12, because n-gram c, which has the smallest of the four numbers, is in
both texts. If a or d had the smallest number, the minima would differ. Each of the four n-grams is
equally likely to have the smallest number, so the minima agree with probability 2 / 4 = J.

256 hash functions give each text 256 minima, in 32 bands of 8. All 8 minima of a band agree with
probability J^8, and at least one of 32 bands agrees with probability 1 - (1 - J^8)^32. Only texts
that agree in a band are compared. The fraction of the 256 minima that agree estimates J with a
standard error of about 0.02; near the threshold, J is computed from the n-grams.
    J                                   0.4     0.5     0.9
    probability of being compared       0.02    0.12    0.99999998
A duplicate of a duplicate is a duplicate: if A and B are near-duplicates of O, but not of each
other, all three are one cluster. Otherwise a model could train on A and be tested on B.
"""
import functools, hashlib
import numpy as np

# --- text -> n-grams -> signature -----------------------------------------------------------------
GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio, an odd number
CHUNK = 1 << 13                             # bytes that numpy hashes at once
POWERS = GOLDEN ** np.arange(CHUNK + 4, dtype=np.uint64)
INVERSE_POWERS = POWERS ** np.uint64(2 ** 62 - 1)         # POWERS * INVERSE_POWERS = 1 mod 2^64
# A word is a run of letters, digits and _ in UTF-8. A character of three or more bytes is a word of
# its own, because Chinese has no spaces. All other bytes become 0.
WORD_BYTES = bytes(b if chr(b).isalnum() or b == ord('_') or b > 127 else 0
                for b in bytes(range(256)).lower())


def hash64(data):
    """Return a 64-bit hash of bytes, the same in every process (Python's hash() is not)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def mix(h):
    """Apply SplitMix64's finalizer (Steele et al. 2014): all bits of h affect all output bits."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def word_hashes(data):
    """Return the hash of each word of a text in UTF-8, in order, uint64 (words,).

    A word's hash is a polynomial in x whose coefficients are the word's bytes. The bytes of `ab cd`
    are 97 98 0 99 100, because WORD_BYTES maps the space to 0. The polynomial of the whole text is
        97 + 98 x + 0 x^2 + 99 x^3 + 100 x^4
    The terms of `ab` are 97 + 98 x. The terms of `cd` are 99 x^3 + 100 x^4. Dividing them by x^3,
    because `cd` begins at byte 3, gives 99 + 100 x, the same at any position. With x = 10, the two
    hashes are 1077 and 1099. So numpy hashes all words at once: it multiplies by POWERS of x, sums
    over each word, and multiplies by INVERSE_POWERS. Here x is GOLDEN, and arithmetic is modulo
    2^64, where every odd x has an inverse."""
    data, begin, hashes = data.translate(WORD_BYTES) + b'\0', 0, []
    while begin < len(data):
        end = data.rfind(b'\0', begin, begin + CHUNK) + 1 or begin + CHUNK      # at a word boundary
        text = np.frombuffer(data[begin:end] + bytes(4), np.uint8)                      # (bytes,)
        is_word = text != 0
        is_start = is_word & ~np.append(False, is_word[:-1])
        long_chars = np.flatnonzero(text >= 0xE0)       # starts of 3- and 4-byte characters
        after = long_chars + 3 + (text[long_chars] >= 0xF0)
        is_start[long_chars] = True
        is_start[after] |= is_word[after]
        starts = np.flatnonzero(is_start)                                               # (words,)
        hashes.append(np.add.reduceat(text * POWERS[:len(text)], starts) * INVERSE_POWERS[starts])
        begin = end
    return mix(np.concatenate(hashes))


def ngrams(words, n):
    """Return the hash of each n-gram of words, in order, uint64 (words - n + 1,)."""
    total = np.zeros(max(0, len(words) - n + 1), np.uint64)
    for i in range(n):
        total = total * GOLDEN + words[i:i + len(total)]        # a polynomial depends on the order
    return mix(total)


def shingles(data, n=5):
    """Return the set of word n-grams of a text in UTF-8, as sorted hashes, uint64. A text of fewer
    than n words has one n-gram: all its words, or if it has no words, all its bytes."""
    words = word_hashes(data)
    if not len(words):
        return np.array([hash64(data)], np.uint64)
    grams = np.sort(ngrams(words, min(n, len(words))))      # np.unique takes three times as long
    return np.append(grams[:1], grams[1:][grams[1:] != grams[:-1]])


def jaccard(a, b):
    """Return |A and B| / |A or B| of two sets of shingles, and 0 for two empty sets."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


# a and b of k hash functions, uint32 (2 k,), computed once instead of once per text
random_numbers = functools.cache(lambda k: mix(np.arange(k, dtype=np.uint64)).view(np.uint32))


def minhash(shingles, k=256):
    """Return the MinHash of a set of shingles, uint32 (k,): the minimum over the set of each of k
    hash functions a x + b mod 2^32. The minimum of an empty set is 2^32 - 1."""
    a, b = random_numbers(k).reshape(2, k)
    a = a | np.uint32(1)                # with an odd a, no two x have the same hash
    x = (shingles >> np.uint64(32)).astype(np.uint32)                               # (shingles,)
    minima = np.full(k, 2 ** 32 - 1, np.uint32)
    for i in range(0, len(x), 120):     # arrays above 128 KB need a system call each
        hashes = a * x[i:i + 120, None] + b                                         # (120, k)
        minima = np.minimum(minima, hashes.min(0))                                  # (k,)
    return minima


def simhash(shingles):
    """Return the SimHash of shingles (Charikar 2002), uint8 (64,): the majority of each bit over
    the hashes. 0110, 1100 and 0101 become 0100. Near-duplicates differ in at most 3 bits, so
    one of four blocks of 16 bits agrees (Manku 2007). With 1 word in 100 changed, SimHash finds one
    near-duplicate in ten. It is included for comparison."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return (bits.sum(0) * 2 > len(bits)).astype(np.uint8)


def signature(data, method='minhash', k=256):
    """Return the signature of a text in UTF-8: the SimHash, uint8 (64,), or the low 8 bits of the
    MinHash's minima, uint8 (k,)."""
    grams = shingles(data)
    return simhash(grams) if method == 'simhash' else minhash(grams, k).astype(np.uint8)


# --- clusters: union-find -------------------------------------------------------------------------
# parent[i] is an earlier text of text i's cluster, or i if it is the first: the representative.
def find(parent, i):
    """Return the representative of the cluster of each text in i, (m,)."""
    while (parent[i] != i).any():
        i = parent[i]
    return i


def union(parent, i, j):
    """Update parent: merge the clusters of texts i[0] and j[0], those of i[1] and j[1], ..."""
    while len(i):
        i, j = find(parent, i), find(parent, j)
        i, j = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
        # If j occurs several times, its parent is the smallest i. The loop merges the rest later.
        np.minimum.at(parent, j, i)


def shared_keys(keys):
    """Return the texts whose key is not unique, and their keys, both sorted by key:
    7 5 7 8 5 -> 1 4 0 2, 5 5 7 7."""
    order = np.argsort(keys, kind='stable')         # stable: equal keys keep the order of texts
    keys = keys[order]
    shared = np.append(keys[1:] == keys[:-1], False)[:len(keys)]        # equal to the next key
    shared[1:] |= shared[:-1].copy()
    return order[shared], keys[shared]


def exact_duplicates(hashes):
    """Return parent, (n,), where texts with equal hashes form a cluster."""
    parent = np.arange(len(hashes))
    texts, keys = shared_keys(hashes)
    parent[texts] = texts[np.searchsorted(keys, keys)]      # the first text of each key
    return parent


def similarity(i, j, signatures, threshold, jaccard_of=None):
    """Return the similarity of texts i[0] and j[0], i[1] and j[1], ..., (m,): the fraction of
    signature entries that agree. Estimates within three standard deviations of the threshold are
    replaced by the exact jaccard_of(i, j), if given, which is slower."""
    k, similarities = signatures.shape[1], np.zeros(len(i))
    for m in range(0, len(i), 10_000):
        part = slice(m, m + 10_000)             # in parts, to save memory
        similarities[part] = np.count_nonzero(signatures[i[part]] == signatures[j[part]], 1) / k
    uncertain = np.abs(similarities - threshold) <= 3 * (threshold * (1 - threshold) / k) ** 0.5
    for m in np.flatnonzero(uncertain) if jaccard_of else ():
        similarities[m] = jaccard_of(i[m], j[m])
    return similarities


def near_duplicates(exact, signatures, shingles_of, method, bands, min_similarity, progress=iter):
    """Merge the clusters of near-duplicates. exact: parent after exact_duplicates(); signatures:
    uint8 (n, k); shingles_of(i): the shingles of text i. Return parent, (n,), and the number of
    buckets that were not finished after 50 rounds.

    Texts that agree in a band form a bucket. Each round compares a bucket's first text with the
    bucket's texts in other clusters, then removes the first text from the bucket. The limit of 50
    rounds prevents n^2 comparisons."""
    k = signatures.shape[1]
    # cached, because two texts may agree in several bands
    jaccard_of = functools.lru_cache(1 << 18)(lambda i, j: jaccard(shingles_of(i), shingles_of(j)))
    if method == 'simhash':
        bands, min_similarity, jaccard_of = 4, 61 / 64, None
    parent, n_unfinished = exact.copy(), 0
    distinct = np.flatnonzero(exact == np.arange(len(exact)))           # without exact duplicates
    for start in progress(range(0, k, k // bands)):
        keys = np.zeros(len(distinct), np.uint32)
        for column in signatures[distinct, start:start + k // bands].T:
            keys = keys * np.uint32(GOLDEN >> np.uint64(32)) + column
        texts, keys = shared_keys(keys)
        texts = distinct[texts]
        for n_rounds in range(51):
            begin = np.searchsorted(keys, keys)     # start of each text's bucket
            cluster = find(parent, texts)
            differs = cluster != cluster[begin]
            if n_rounds == 50 or not differs.any():
                n_unfinished += len(np.unique(keys[differs]))
                break
            i, j = texts[begin][differs], texts[differs]
            similarities = similarity(i, j, signatures, min_similarity, jaccard_of)
            union(parent, i[similarities >= min_similarity], j[similarities >= min_similarity])
            remaining = np.isin(keys, keys[differs]) & (begin < np.arange(len(keys)))
            texts, keys = texts[remaining], keys[remaining]
    return find(parent, parent), n_unfinished


def find_duplicates(texts, method='minhash', bands=32, rows=8, min_similarity=0.85):
    """Return parent, (n,): for each text of a list, the index of the text that represents it."""
    data = [text.encode('utf-8', 'surrogatepass') for text in texts]
    hashes = [hash64(x.translate(None, b' \t\n\r\f\v')) for x in data]         # without white space
    exact = exact_duplicates(np.array(hashes, np.uint64))
    if not data:
        return exact
    signatures = np.stack([signature(x, method, bands * rows) for x in data])
    return near_duplicates(exact, signatures, lambda i: shingles(data[i]), method, bands,
                           min_similarity)[0]


if __name__ == '__main__':      # self-test
    poem = ('The parrot sat on the old ship and said what the sailors had said before: the wind is '
            'fair, the rum is low, the cook is slow. It never asked what a word was for, and the '
            'sailors laughed, and taught it more, and so it said it all again on shore.')
    texts = [poem.split(' ', 5)[-1], f'Once upon a time, sailors, {poem}', poem, poem.upper(),
             poem.replace(' ', '\n'), poem.replace('ship', 'mast'), poem.replace('sat', 'stood'),
             poem[:70], f'{poem} {poem}', ' '.join(sorted(poem.split())), '旧船', '***', '...']
    sets, kept = [shingles(text.encode()) for text in texts], find_duplicates(texts)
    J = np.array([[jaccard(a, b) for b in sets] for a in sets])                         # (n, n)
    print('text   kept    nearest     J  minima that agree, of 256')
    for i, a in enumerate(sets):
        j = np.argmax(J[i] - (np.arange(len(J)) == i))
        agree = (minhash(a) == minhash(sets[j])).sum()
        print(f'{i:4}{kept[i]:7}{j:11}{J[i, j]:6.2f}{agree:8}  {texts[i][:55]!r}')
    print(f'0 and 1 have J = {J[0, 1]:.2f}, but 2 is a duplicate of both: one cluster, 0 is kept')
    cluster = np.linalg.matrix_power(J + np.eye(len(J)) >= 0.85, len(J))    # transitive closure
    assert (cluster.argmax(1) == kept).all()
    print('comparing all pairs: the same clusters; SimHash:', *find_duplicates(texts, 'simhash'))
