"""
SimHash (Charikar 2002): one number of 64 bits for a text, and near-copies differ in few of them.

    python prepare.py --source=FOLDER --dedup=simhash

Each n-gram of a text has a hash, and each bit of the number is what most of these hashes have
there. Three hashes of four bits:

    0110
    1100
    0101
    0100        2 of 3 have 0, all have 1, 2 have 0, 2 have 0

It needs 8 bytes a document, next to 256 for MinHash, and finds what differs in a few words of a
long text. Of copies in which 1 word in 100 is another one, it finds one in ten.
"""
import numpy as np


def keys_of(shingles):
    """Return [the number] of a set of n-grams' hashes, uint64 (n,). An empty set has 0."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return [int.from_bytes(np.packbits(bits.sum(0) * 2 > len(bits)).tobytes(), 'big')]


def copies(columns, copies_in_bands):
    """Return what copies_in_bands(keys, similar) finds: which documents are near-copies of earlier
    ones. columns: one array of numbers, uint64 (n,). similar(i, j) says that two of them differ in
    at most 3 bits. Three bits are in at most three of the four blocks of 16 bits, so copies share a
    block (Manku 2007), and only what shares one is compared."""
    [numbers] = columns
    blocks = np.ascontiguousarray(numbers, np.uint64).view(np.uint16).reshape(-1, 4).T     # (4, n)
    numbers = numbers.tolist()

    def similar(i, j):
        # Documents without a word have 0, and nothing in common.
        return numbers[i] != 0 and (numbers[i] ^ numbers[j]).bit_count() <= 3

    return copies_in_bands(blocks, similar)
