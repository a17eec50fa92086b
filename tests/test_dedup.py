"""dedup.py: words and n-grams, signatures, clusters of duplicates; what clean.py makes of them."""
import collections
import functools
import itertools
import random
import re
import tracemalloc
from pathlib import Path

import dedup
import numpy as np
import pytest
from conftest import with_each
from dedup import find_duplicates, jaccard, minhash, ngrams, shingles, simhash, word_hashes
from preparing import clean, dropped, kept, prose, write


# --- words and n-grams ----------------------------------------------------------------------------
def test_words_are_those_of_a_regular_expression_and_ngrams_have_an_order():
    """Runs of letters, digits, _ and two-byte characters; a character of three or four bytes by itself."""
    known = {}                          # a hash, and its word
    for i in range(600):
        long = 'ab ' * 9000 if i == 0 else ''                           # more than is hashed at once
        text = long + ''.join(random.Random(i).choices('aAbB_1 .\né×\u07ff\u0800漢字😀\ud800', k=i % 50))
        words = re.findall('[a-z0-9_\x80-\u07ff]+|[\u0800-\U0010ffff]', text.lower())
        hashes = word_hashes(text.encode('utf-8', 'surrogatepass')).tolist()
        assert len(hashes) == len(words)
        assert all(known.setdefault(h, word) == word for h, word in zip(hashes, words))
    assert len({*known.values()}) == len(known) > 500
    first, second, third = ngrams(word_hashes(b'a b a b'), 2)
    assert first == third != second
    assert jaccard(shingles(b'x'), shingles(b'X.')) == 1 and jaccard(shingles(b'-'), shingles(b'.')) == 0


# --- signatures -----------------------------------------------------------------------------------
def random_pair(rng, size, shared):
    """Two sets of that many random shingles, some of them shared, and their Jaccard similarity."""
    pool = rng.integers(0, 2 ** 64 - 1, 2 * size - shared, np.uint64, endpoint=True)
    return np.sort(pool[:size]), np.sort(pool[size - shared:]), shared / (2 * size - shared)


def test_a_signature_of_a_union_is_the_smaller_of_two():
    equal = functools.partial(np.testing.assert_array_equal, strict=True)       # also their type
    # for all time: other people keep such numbers, and a run is resumed with another numpy
    wanted = np.array([1680779919, 97898140, 882506754, 1819921278], np.uint32)
    equal(minhash(shingles(b'the cat sat on the mat'), 4), wanted)
    a, b, _ = random_pair(np.random.default_rng(0), 2500, 0)
    equal(minhash(a[:0], 4), np.full(4, 2 ** 32 - 1, np.uint32))
    equal(minhash(np.append(a, b)), np.minimum(minhash(a), minhash(b)))


def test_a_signature_of_a_long_text_needs_little_memory():
    """Far from 4 bytes for each pair of a shingle and a hash function, which are 51 MB here."""
    grams, *_ = random_pair(np.random.default_rng(0), 50_000, 0)
    tracemalloc.start()
    minhash(grams)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6, f'{peak / 1e6:.0f} MB for {len(grams):,} shingles'


@with_each('bands, rows, size', [(32, 8, 1000), (64, 4, 5)])
def test_texts_share_a_band_as_often_as_the_formula_says(bands, rows, size):
    """Up to four sigma of 200 pairs."""
    rng = np.random.default_rng(bands)
    for share in (0.5, 0.8, 0.9, 1):
        hits = []
        for _ in range(200):
            *sets, j = random_pair(rng, size, int(share * size))
            a, b = (minhash(some, bands * rows).reshape(bands, rows) for some in sets)
            hits.append((a == b).all(1).any())
        p = 1 - (1 - j ** rows) ** bands
        assert np.mean(hits) == pytest.approx(p, abs=4 * (p * (1 - p) / 200) ** 0.5 + 1 / 200), j


def test_a_bit_of_simhash_is_what_most_hashes_have():
    grams = np.array([0b0110, 0b1100, 0b0101], np.uint64)
    assert simhash(grams).tolist() == [*[0] * 5, 1, *[0] * 58]       # its first byte has the lowest bits


# --- clusters -------------------------------------------------------------------------------------
def clusters_of(texts, limit):
    """The slow way: each is compared with each, and a cluster is all that can be reached."""
    sets, first = [shingles(text.encode()) for text in texts], [*range(len(texts))]
    for i, j in itertools.combinations(first, 2):
        if jaccard(sets[i], sets[j]) >= limit:
            old, new = sorted([first[i], first[j]], reverse=True)
            first = [new if cluster == old else cluster for cluster in first]
    return first


@with_each('seed, limit', [(0, 0.85), (1, 0.85), (2, 0.7)])
def test_clusters_are_those_of_comparing_each_with_each_and_simhash_finds_some(seed, limit):
    """Some pairs are near the limit, and some clusters are chains whose ends are unlike. Of 200
    words, one takes about five 5-grams away, and brings five."""
    dice = random.Random(seed)
    texts = ['', '...', '---', 'one', 'One!']
    for i in range(25):
        texts.append(prose(100 * seed + i, dice.randrange(60, 300)))
        for _ in range(dice.randrange(6)):
            words = dice.choice(texts[-3:]).split()
            for _ in words and range(dice.choice([1, 2, 4, 8])):
                words[dice.randrange(len(words))] = f'new{dice.random()}'
            texts.append(' '.join(words))
        texts.append(texts[-1].replace(' ', '\n'))
    dice.shuffle(texts)
    wanted = clusters_of(texts, limit)
    assert find_duplicates(texts, bands=64, rows=4, min_similarity=limit).tolist() == wanted
    assert 30 < len({*wanted}) < 0.6 * len(texts)
    found = find_duplicates(texts, 'simhash')
    assert len({*found}) < len({' '.join(text.split()) for text in texts}) - 2
    assert limit > 0.7 or all(wanted[i] == wanted[first] for i, first in enumerate(found))


def test_a_chain_is_a_cluster_also_if_its_texts_meet_in_one_band_only():
    """Each is like the next one, 0.89, and not like the one after that, 0.79."""
    sets = [np.arange(6 * i, 6 * i + 100, dtype=np.uint64) for i in range(5)]
    for order in itertools.permutations(range(5)):
        exact = np.arange(5)
        parent, n_open = dedup.near_duplicates(
            exact, np.zeros((5, 4), np.uint8), [sets[i] for i in order].__getitem__, 'minhash', 1, 0.85)
        assert not parent.any() and not n_open, order
        assert exact.tolist() == [0, 1, 2, 3, 4], 'no argument is changed'


def test_ngrams_of_a_pair_are_compared_once_and_what_50_rounds_leave_is_counted(monkeypatch):
    """80 texts share 180 of 200 words, so all are like all, but no duplicates."""
    frame, compared = prose(0, 180), collections.Counter()
    sets = [shingles(f'{frame} {prose(i, 20)}'.encode()) for i in range(1, 81)]
    monkeypatch.setattr(dedup, 'jaccard', lambda a, b: compared.update([frozenset((id(a), id(b)))]) or jaccard(a, b))
    signatures = np.array([minhash(one, 64) for one in sets]).astype(np.uint8)
    for n, is_left in (80, True), (51, False):
        compared.clear()
        parent, n_open = dedup.near_duplicates(
            np.arange(n), signatures[:n], sets.__getitem__, 'minhash', 32, 0.85)
        assert (parent == np.arange(n)).all() and {*compared.values()} == {1}
        assert (n_open > 0) == is_left
    assert len(compared) > 1000


def test_simhash_finds_what_differs_in_capitals():
    texts = [prose(i) for i in range(9)]
    clean(write('in', texts + [text.upper() for text in texts[:4]]), '--dedup=simhash')
    assert dropped() == {'near duplicate': 4} and kept() == sorted(texts)


def test_a_duplicate_of_a_duplicate_goes_and_a_reader_sees_what_is_kept():
    """Of O, A and B, the two last are like O, but not like each other. So no cluster is split between
    training and validation."""
    texts = []
    for i in range(60):
        words, own = prose(i, 400).split(), prose(1000 + i, 40).split()
        texts += map(' '.join, (words, words[:380] + own[:20], own[20:] + words[20:]))
    random.Random(0).shuffle(texts)
    clean(write('in', texts), '--audit=9 --max_gibberish=0')
    assert dropped() == {'near duplicate': 120}
    page = Path('out/audit.md').read_text().split('# near duplicate')[1]
    pairs = re.findall(r'^## .*/(\d+).txt\n(?s:.+?)^kept, (0\.\d\d) alike: .*/(\d+).txt$', page, re.M)
    assert len(pairs) == 9
    for copy, alike, kept_one in pairs:
        a, b = (shingles(texts[int(i)].encode()) for i in (copy, kept_one))
        assert float(alike) == round(jaccard(a, b), 2) > 0.8
