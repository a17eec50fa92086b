"""
Near-duplicates: from texts to MinHash signatures of 256 entries, beside datasketch's MinHash of 256
permutations in bulk form, with its own hash (SHA-1) and with the fastest of the standard library (CRC-32).
The documents are in memory before the clock starts; word 5-grams for all; ours also makes the 32 keys of the
bands. Everything runs in one process on one core, one after the other, round after round.

    pip install -r bench/requirements.txt
    python bench/minhash.py [--source=FOLDER]
"""
import argparse
import re
import sys
import time
import zlib

import numpy as np
from peers import median, python_documents      # puts this checkout's leaves on the path

from parts.prepare import duplicates


def ours_shingles(texts):
    return [duplicates.shingles(text) for text in texts]


def ours_minhash(sets):
    signatures = [duplicates.minhash(s) for s in sets]
    for signature in signatures:
        duplicates.band_keys(signature, 32)
    return np.array(signatures)


def tokens(texts):
    """The sets of word 5-grams as datasketch takes them: bytes."""
    sets = []
    for text in texts:
        words = re.findall(r'\w+', text.lower())
        grams = zip(*(words[i:] for i in range(5))) if len(words) > 5 else [words]
        sets.append({' '.join(gram).encode('utf-8', 'surrogatepass') for gram in grams})
    return sets


def datasketch(sets, **settings):
    from datasketch import MinHash
    return np.array([m.hashvalues for m in MinHash.bulk(sets, num_perm=256, **settings)])


CONTESTANTS = {'ours': (ours_shingles, ours_minhash), 'datasketch, SHA-1': (tokens, datasketch),
               'datasketch, CRC-32': (tokens, lambda sets: datasketch(sets, hashfunc=zlib.crc32))}

if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--source', help='a folder of .py files; the standard library without it')
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    texts = [text for _, text in python_documents(options.source)]
    if not texts:
        sys.exit(f'error: no .py files in {options.source}')
    print(f'{len(texts):,} documents, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB, '
          f'{options.rounds} rounds; documents a second, median')
    seconds = {name: [] for name in CONTESTANTS}
    for _ in range(options.rounds):
        for name, (cut, sign) in CONTESTANTS.items():
            start = time.perf_counter()
            sets = cut(texts)
            middle = time.perf_counter()
            signatures = sign(sets)
            end = time.perf_counter()
            seconds[name].append((middle - start, end - middle, end - start))
            assert signatures.shape == (len(texts), 256)
            del sets
    print(f'{"":>20}{"shingles":>10}{"minhash":>10}{"both":>10}{"ours is faster (min, median, max)":>36}')
    for name, rows in seconds.items():
        ratios = [b[2] / a[2] for a, b in zip(seconds['ours'], rows)]
        rates = [len(texts) / median([row[part] for row in rows]) for part in range(3)]
        print(f'{name:>20}{rates[0]:>10,.0f}{rates[1]:>10,.0f}{rates[2]:>10,.0f}'
              f'{min(ratios):>18.1f}{median(ratios):>9.1f}{max(ratios):>9.1f}')
