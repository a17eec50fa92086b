"""
Duplicates: finding the documents of a corpus that say the same, without comparing each with each.

    a, b = shingles('the cat sat on the mat today'), shingles('the cat sat on the mat again')
    jaccard(a, b)                                   # shared word 5-grams / all word 5-grams
    keys = band_keys(minhash(a), bands=32)          # 32 numbers; similar documents share at least one
    heads = clusters(columns, same)                 # for each document, the first one of its cluster

MinHash (Broder 1997) turns a set into a short signature; two signatures agree in a place with probability J,
the Jaccard similarity of the sets. Locality-sensitive hashing cuts signatures into bands of rows. It compares
documents that agree in all rows of a band. That happens with probability 1 - (1 - J^rows)^bands.

Copy this file alone: it needs numpy.
"""
import array, functools, re
import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio; odd, so it has an inverse mod 2^64
INVERSE = np.uint64(pow(int(GOLDEN), -1, 2 ** 64))
# a byte -> 0 if it separates words, else itself in lower case: [A-Za-z0-9_] and all that is not ASCII
WORD_BYTES = re.sub(rb'[^0-9a-z_\x80-\xff]', b'\0', bytes(range(256)).lower())
WORD_BYTES = np.frombuffer(WORD_BYTES, np.uint8)


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): every bit of h matters for every bit of the result."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@functools.lru_cache(maxsize=4)
def powers(n):
    """GOLDEN^0..n and their inverses, mod 2^64."""
    return [np.cumprod(np.append(np.uint64(1), np.full(n, base))) for base in (GOLDEN, INVERSE)]


def word_hashes(text):
    """A 64-bit hash for each word of a text, uint64 (words,): its bytes times powers of GOLDEN, added. The
    place of a word does not matter. A character of three or more bytes (Chinese...) is a word of its own."""
    data = WORD_BYTES[np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8)]
    up, down = powers(1 << max(16, len(data).bit_length()))
    inside = data > 0
    first = inside.copy()
    first[1:] &= ~inside[:-1]
    if not text.isascii():
        first |= data >= 0xE0
        for size, lead in (3, data & 0xF0 == 0xE0), (4, data >= 0xF0):      # behind such a character
            first[size:] |= inside[size:] & lead[:-size]
    start = np.flatnonzero(first)
    return mix(np.add.reduceat(data * up[:len(data)], start) * down[start])     # what separates words adds 0


def word_ngrams(text, n):
    """The hash of each n words in a row, in order, uint64; of a shorter text, of all its words."""
    words = word_hashes(text)
    n = min(n, len(words))
    total = np.zeros(max(0, len(words) - n + 1) if n else 0, np.uint64)
    for i in range(n):
        total = total * GOLDEN + words[i:len(words) - n + 1 + i]     # a polynomial: their order counts
    return mix(total)


def distinct(hashes):
    """Each once, sorted; for a few hundred, np.unique takes three times as long."""
    hashes = np.sort(hashes)
    is_new = hashes[1:] != hashes[:-1]
    return np.concatenate([hashes[:1], hashes[1:][is_new]])


def shingles(text, n=5):
    """The set of a text's word n-grams: sorted distinct hashes, uint64."""
    return distinct(word_ngrams(text, n))


def ngrams_of(texts, n):
    """All word n-grams of these texts, sorted distinct hashes, uint64; texts of fewer words have none."""
    grams = [word_ngrams(text, n) for text in texts if len(word_hashes(text)) >= n]
    return distinct(np.concatenate([np.zeros(0, np.uint64), *grams]))


def places_in(ngrams, text, n):
    """Where a text's n-grams stand among these, which are sorted distinct hashes, one or more."""
    grams = distinct(word_ngrams(text, n))      # in order: searchsorted stays in one corner of the memory
    place = np.searchsorted(ngrams, grams).clip(max=len(ngrams) - 1)
    return place[ngrams[place] == grams]


def overlap(train_texts, val_texts, n=13):
    """Of the validation texts of n words or more: the share with n words in a row that the training texts
    have, too; their number; n."""
    wanted = [grams for grams in (ngrams_of([text], n) for text in val_texts) if len(grams)]
    ngrams = distinct(np.concatenate([np.zeros(0, np.uint64), *wanted]))
    hit = np.zeros(len(ngrams), bool)
    for text in train_texts if wanted else ():
        hit[places_in(ngrams, text, n)] = True
    n_seen = len([grams for grams in wanted if hit[np.searchsorted(ngrams, grams)].any()])
    return n_seen / max(1, len(wanted)), len(wanted), n


def jaccard(a, b):
    """|A and B| / |A or B| of two sets of shingles; two empty sets have nothing in common: 0."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


@functools.lru_cache(maxsize=4)
def probes(k):
    """For each of k bins, an order of all bins in which to look for a neighbour, (k, k)."""
    bins = np.arange(k, dtype=np.uint64)
    return np.argsort(mix(mix(bins[:, None] + np.uint64(1)) + bins * GOLDEN), axis=1)


def minhash(shingles, k=256):
    """The signature of a set of shingles, uint64 (k,): the smallest hash in each of k bins, which cut their
    range (one-permutation hashing, Li, Owen & Zhang 2012). An empty bin takes the entry of the first filled
    one in an order of its own (optimal densification, Shrivastava 2017)."""
    largest = np.uint64(2 ** 64 - 1)
    edges = np.append((np.arange(k) * (2 ** 64 / k)).astype(np.uint64), largest)
    shingles = np.append(shingles, largest)         # stands where no bin is filled
    where = np.searchsorted(shingles, edges)
    filled = where[:-1] < where[1:]
    signature = shingles[where[:-1]]
    empty = np.flatnonzero(~filled)
    order = probes(k)[empty]
    signature[empty] = signature[order[np.arange(len(empty)), filled[order].argmax(1)]]
    return signature


def band_keys(signature, bands):
    """One hash for each band of rows, uint64 (bands,). The band's number is part of it."""
    weights = GOLDEN ** np.arange(len(signature) // bands, dtype=np.uint64)     # the order of rows counts
    rows = mix(signature).reshape(bands, -1) * weights
    return mix(rows.sum(1) + np.arange(bands, dtype=np.uint64))


def simhash(shingles):
    """64 bits, an int: each is the majority of that bit over all shingles (Charikar 2002)."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return int.from_bytes(np.packbits(bits.sum(0) * 2 > len(bits)).tobytes(), 'big')


def simhash_keys(fingerprints, distance):
    """Blocks of n ints, uint64 (distance + 1, n): those within `distance` bits share one (Manku 2007)."""
    cuts = [64 * i // (distance + 1) for i in range(distance + 2)]
    columns = [[(f >> a) % (1 << (b - a)) for f in fingerprints] for a, b in zip(cuts, cuts[1:])]
    return np.array(columns, np.uint64)


def near_keys(shingles, method, bands, rows):
    """Numbers by which documents like this one are found, uint64 (bands,); of method 'simhash' only one."""
    if method == 'simhash':
        return [simhash(shingles)]
    return band_keys(minhash(shingles, bands * rows), bands)


def minhash_clusters(columns, shingles_of, min_similarity):
    """clusters of documents that share that much. columns: their band_keys; shingles_of: a function of i."""
    shingles_of = functools.lru_cache(512)(shingles_of)
    return clusters(columns, lambda i, j: jaccard(shingles_of(i), shingles_of(j)) >= min_similarity)


def simhash_clusters(fingerprints, distance):
    """clusters of documents whose fingerprints, ints, differ in at most so many bits."""
    columns = simhash_keys(fingerprints, distance)
    return clusters(columns, lambda i, j: (fingerprints[i] ^ fingerprints[j]).bit_count() <= distance)


def clusters(columns, same):
    """For each document, the first one of its cluster, int64 (n,): pairs connect documents (union-find).
    columns: for each band, the keys of all documents, uint64 (n,); same(i, j) decides about two candidates.
    In a bucket, a document is compared with the head of each of 50 groups; all pairs would cost n^2."""
    parent = array.array('q')

    def find(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]       # path halving
        return i

    for keys in columns:
        parent = parent or array.array('q', range(len(keys)))
        order = np.argsort(keys, kind='stable')     # stable: in a bucket, earlier documents come first
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
