"""
Duplicates: finding the documents of a corpus that say the same, without comparing each with each.

    a, b = shingles('the cat sat on the mat today'), shingles('the cat sat on the mat again')
    jaccard(a, b)                               # 0.5: they share two of four 5-grams
    keys = band_keys(minhash(a), bands=32)      # 32 numbers; nearly equal texts share at least one
    heads = clusters(columns, same)             # for each document, the first one of its cluster

MinHash (Broder 1997) turns a set into a short signature. Two signatures agree in a place with
probability J, the Jaccard similarity of the sets. Locality-sensitive hashing cuts signatures into
bands of rows and compares documents that agree in all rows of a band. That happens with
probability 1 - (1 - J^rows)^bands.

Copy this file alone: it needs numpy.
"""
import array, functools, re, zlib
import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio, odd
# A word is a run of letters, digits and _ in UTF-8. A character of three bytes or more is a word of
# its own, because Chinese has no spaces.
WORD = re.compile(rb'[a-z0-9_\x80-\xdf]+|[\xe0-\xef]..|[\xf0-\xff]...', re.S)
BLOCK = 500                 # shingles that minhash takes at once: their hashes stay in the cache


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): each bit of h changes all bits of the result."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


# --- sets of word n-grams -----------------------------------------------------------------------
def words_of(text):
    """The words of a text in lower case, as bytes."""
    return WORD.findall(text.encode('utf-8', 'surrogatepass').lower())


def ngrams(words, n):
    """The hash of each n words in a row, in order, uint64 (words - n + 1,)."""
    hashes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    total = np.zeros(max(0, len(words) - n + 1), np.uint64)
    for i in range(n):
        total = total * GOLDEN + hashes[i:i + len(total)]       # a polynomial, because order counts
    return mix(total)


def shingles(text, n=5):
    """The set of a text's word n-grams: sorted distinct hashes, uint64. A text of fewer than n
    words has one n-gram, which is all its words."""
    words = words_of(text)
    grams = np.sort(ngrams(words, max(1, min(n, len(words)))))
    # np.unique does the same, but takes three times as long for so few
    return np.append(grams[:1], grams[1:][grams[1:] != grams[:-1]])


def ngrams_of(texts, n):
    """The set of word n-grams of several texts; those of fewer than n words add none."""
    return np.unique(np.concatenate(
        [ngrams((), n), *(ngrams(words_of(text), n) for text in texts)]))


def has_ngram(text, known, n):
    """Whether a text has one of the known n-grams: sorted distinct hashes, at least one."""
    grams = ngrams_of([text], n)        # in order: searchsorted stays in one corner of the memory
    places = np.searchsorted(known, grams).clip(max=len(known) - 1)
    return bool((known[places] == grams).any())


def jaccard(a, b):
    """|A and B| / |A or B| of two sets of shingles; two empty sets have nothing in common: 0."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


# --- MinHash ------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=4)
def hash_functions(k):
    """The a and b of k functions a x + b mod 2^32, uint32 (k, 1) each."""
    random = mix(np.arange(2 * k, dtype=np.uint64)) >> np.uint64(32)
    a, b = random.astype(np.uint32).reshape(2, k, 1)
    return a | np.uint32(1), b          # an odd a maps no two x to one value


def minhash(shingles, k=256):
    """The signature of a set of shingles, uint32 (k,): the smallest value that each of k hash
    functions has in the set. The member of A or B with the smallest value is in A and in B with
    probability J, and then both signatures hold that value. An empty set has the largest number."""
    a, b = hash_functions(k)
    x = (shingles >> np.uint64(32)).astype(np.uint32)                   # (shingles,)
    signature = np.full(k, 2 ** 32 - 1, np.uint32)
    for i in range(0, len(x), BLOCK):
        hashes = a * x[i:i + BLOCK]                                     # (k, BLOCK)
        hashes += b
        signature = np.minimum(signature, hashes.min(1))                # (k,)
    return signature


def band_keys(signature, bands):
    """One hash for each band of rows, uint64 (bands,)."""
    rows = signature.reshape(bands, -1).astype(np.uint64)               # (bands, rows)
    return mix(rows @ GOLDEN ** np.arange(rows.shape[1], dtype=np.uint64))


def simhash(shingles):
    """64 bits, an int: each is the majority of that bit over all shingles (Charikar 2002). An empty
    set has 0."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return int.from_bytes(np.packbits(bits.sum(0) * 2 > len(bits)).tobytes(), 'big')


# --- clusters of documents that are alike -------------------------------------------------------
def near_keys(shingles, method, bands, rows):
    """The numbers by which documents like this one are found, uint64 (bands,); one for simhash."""
    if method == 'simhash':
        return [simhash(shingles)]
    return band_keys(minhash(shingles, bands * rows), bands)


def near_clusters(method, columns, shingles_of, min_similarity):
    """The clusters of documents whose Jaccard similarity is at least that; with simhash, whose
    fingerprints differ in at most 3 of 64 bits. columns: an iterator of near_keys by band, uint64
    (n,) each; shingles_of(i): the set of document i."""
    if method == 'simhash':
        [fingerprints] = columns
        return simhash_clusters(fingerprints.tolist())
    shingles_of = functools.lru_cache(512)(shingles_of)
    return clusters(columns, lambda i, j: jaccard(shingles_of(i), shingles_of(j)) >= min_similarity)


def simhash_clusters(fingerprints):
    """The clusters of documents whose fingerprints, ints, differ in at most 3 of 64 bits. One of
    the four blocks of 16 bits is the same in such fingerprints (Manku 2007). Documents without a
    word have 0, and nothing in common."""
    columns = np.array(fingerprints, np.uint64).view(np.uint16).reshape(-1, 4).T
    return clusters(columns, lambda i, j: (fingerprints[i] ^ fingerprints[j]).bit_count() <= 3
                    and fingerprints[i] != 0)


def clusters(columns, same):
    """For each document, the first one of its cluster, int64 (n,). Pairs connect documents
    (union-find). columns: for each band, the keys of all documents, (n,). same(i, j) decides
    whether two documents with one key belong together. A document is compared with the first of
    each of at most 50 groups with its key, because comparing all pairs would cost n^2."""
    parent = array.array('q')

    def find(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]       # path halving
        return i

    for keys in columns:
        parent = parent or array.array('q', range(len(keys)))
        order = np.argsort(keys, kind='stable')     # stable: of equal keys, earlier documents first
        new = np.flatnonzero(np.diff(keys[order])) + 1
        start, end = np.concatenate([[0], new]), np.concatenate([new, [len(keys)]])
        several = end - start > 1
        for a, b in zip(start[several], end[several]):
            heads = []
            for i in order[a:b].tolist():
                for head in heads[:50]:
                    x, y = find(head), find(i)
                    if x == y or same(head, i):
                        parent[max(x, y)] = min(x, y)
                        break
                else:
                    heads.append(i)
    return np.array([find(i) for i in range(len(parent))], np.int64)
