"""
Copies: drop what shares 13 words in a row with a benchmark's problem, else a model knows the answers;
and another way to find near-copies, by one number of 64 bits for a text.

    python prepare.py --source=MY_CODE --decontaminate=HumanEval.jsonl.gz,mbpp.jsonl
    python prepare.py --source=FOLDER --dedup=simhash

Any text in a record of a benchmark counts: questions, solutions, tests. Nothing here finds a
paraphrase. eval.py prints beside its scores which benchmarks were looked for.

SimHash (Charikar 2002): each n-gram of a text has a hash, and each bit of the number is what most
of these hashes have there, so near-copies differ in few bits. Three hashes of four bits:

    0110
    1100
    0101
    0100        2 of 3 have 0, all have 1, 2 have 0, 2 have 0

It needs 8 bytes a document, next to 256 for MinHash, and finds what differs in a few words of a
long text. Of copies in which 1 word in 100 is another one, it finds one in ten.
"""
import os
import numpy as np
from configurator import Mistake, require

NGRAM = 13                      # words in a row, as for GPT-3 (arXiv:2005.14165)


# --- benchmarks -----------------------------------------------------------------------------------
def benchmarks(paths, read, normalise, words_of, ngrams):
    """Return a stage of prepare.py. paths: files of records, 'a,b'. read(path, reject) yields
    (line, record) of a file; normalise(text, mode) is what happens to a document; ngrams(words, n)
    returns the hash of each n words in a row, uint64 (words - n + 1,)."""
    known = np.zeros(0, np.uint64)
    for path in filter(None, paths.split(',')):
        require(os.path.exists(path), f'{path} does not exist; --decontaminate needs the files of '
                                      'benchmarks')
        errors = []
        records = [record for _, record in read(path, lambda *error: errors.append(error))]
        for place, error in errors[:1]:
            raise Mistake(f"{place} can't be read ({error}); it must be the file of a benchmark")
        grams = [ngrams(words_of(form), NGRAM) for text in strings_in(records)
                 for form in variants(text, normalise)]
        grams = np.concatenate([known[:0], *grams])
        require(len(grams), f'{path} has no text of {NGRAM} words, so it could find nothing')
        known = np.union1d(known, grams)

    def check_benchmarks(document, notes):
        if any(has_one_of(known, ngrams(words_of(text), NGRAM)) for text in document['texts']):
            return 'in a benchmark'

    return check_benchmarks


def has_one_of(known, grams):
    """Whether one of these numbers is known. known: sorted, at least one."""
    grams = np.sort(grams)              # in order: the search stays in one corner of the memory
    places = np.searchsorted(known, grams).clip(max=len(known) - 1)
    return bool((known[places] == grams).any())


def strings_in(value):
    """Yield every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ('role', 'from')]
    if isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def variants(text, normalise):
    """Return the forms that a problem may have in a document: as it was published, or as cleaning
    leaves it. Within LaTeX, every text loses its commands."""
    return {text, normalise(text, 'chat'), normalise(text, 'prose'),
            normalise(r'\emph{} ' + text, 'prose')}


# --- simhash --------------------------------------------------------------------------------------
def simhash(shingles):
    """Return [the number] of a set of n-grams' hashes, uint64 (n,). An empty set has 0."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return [int.from_bytes(np.packbits(bits.sum(0) * 2 > len(bits)).tobytes(), 'big')]


def simhash_copies(columns, copies_in_bands):
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
