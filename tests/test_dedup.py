"""Words and shingles as a regular expression finds them, MinHash and SimHash as their theory says."""
import math
import re
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts.prepare.duplicates import band_keys, jaccard, minhash, shingles, simhash, simhash_keys, word_hashes
from parts.prepare.duplicates import word_ngrams

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
TEXT = st.text(st.sampled_from('aAbB_1 .\né×\u07ff\u0800漢字😀\ud800') | st.characters(exclude_categories=[]))


def naive_words(text):
    """Runs of letters, digits, _ and two-byte characters; a character of three or four bytes by itself."""
    return re.findall('[a-z0-9_\x80-\u07ff]+|[\u0800-\U0010ffff]', text.translate(LOWER))


def naive_ngrams(text, n):
    words = naive_words(text)
    n = min(n, len(words))
    return [tuple(words[i:i + n]) for i in range(len(words) - n + 1)] if n else []


def same_partition(hashes, items):
    """Two hashes are equal where, and only where, the items are."""
    pairs = set(zip(hashes.tolist(), items, strict=True))
    return len(pairs) == len({h for h, _ in pairs}) == len({item for _, item in pairs})


@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 6))
def test_words_and_ngrams_are_those_of_a_regular_expression_wherever_they_stand(texts, n):
    for hashes, naive in ((word_hashes, naive_words),
                          (lambda t: word_ngrams(t, n), lambda t: naive_ngrams(t, n))):
        assert same_partition(np.concatenate([hashes(t) for t in texts]), sum((naive(t) for t in texts), []))


@given(TEXT)
def test_shingles_are_the_sorted_distinct_ngrams(text):
    found = shingles(text)
    assert found.dtype == np.uint64 and (found[:-1] < found[1:]).all()
    assert len(found) == len(set(naive_ngrams(text, 5)))


@pytest.mark.parametrize('text, words', [
    ('', 0), (' .,;\n', 0), ('a', 1), ('def f(x_1): return 1', 5), ('漢字', 2), ('漢字かな abc한글', 7),
    ('漢abc', 2), ('😀ab', 2), ('naïve café', 2), ('в доме', 2), ('\ud800x', 2)])
def test_words_of_known_texts(text, words):
    assert len(word_hashes(text)) == words
    assert len(word_ngrams(text, 5)) == (max(1, words - 4) if words else 0)


def test_case_spacing_and_place_do_not_matter_and_order_does():
    a, b = word_hashes('The cat sat'), word_hashes('x' * 70_000 + '  cat,THE\tSaT.')
    assert set(a.tolist()) == set(b[1:].tolist()) and a.tolist() != b[1:].tolist()
    assert jaccard(shingles('a b c d e f'), shingles('A, b; C d\n(e) f!')) == 1
    assert jaccard(shingles('a b c d e'), shingles('e d c b a')) == 0


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_jaccard_is_that_of_sets(a, b):
    arrays = [np.array(sorted(s), np.uint64) for s in (a, b)]
    assert jaccard(*arrays) == (len(a & b) / len(a | b) if a | b else 0)


def random_pair(rng, size, shared):
    """Two sets of that many random shingles, some of them shared, and their Jaccard similarity."""
    pool = rng.integers(0, 2 ** 64 - 1, 2 * size - shared, np.uint64, endpoint=True)
    return np.sort(pool[:size]), np.sort(pool[size - shared:]), shared / (2 * size - shared)


@pytest.mark.parametrize('size, k, pairs', [(1, 256, 20), (5, 256, 1500), (5, 7, 1500), (60, 256, 400),
                                            (300, 256, 300), (300, 100, 300), (3000, 256, 200)])
def test_minhash_agrees_with_probability_j(size, k, pairs):
    rng = np.random.default_rng(size + k)
    for share in (0, 0.2, 0.6, 0.8, 1):
        agree = []
        for _ in range(pairs):
            a, b, j = random_pair(rng, size, int(share * size))
            agree.append((minhash(a, k) == minhash(b, k)).mean())
            assert minhash(a, k).shape == (k,) and np.isin(minhash(a, k), a).all()
        assert abs(np.mean(agree) - j) <= 4 * np.std(agree) / pairs ** 0.5, (share, np.mean(agree), j)


def test_minhash_of_extreme_sets():
    top = np.array([2 ** 64 - 1], np.uint64)
    assert (minhash(top) == top).all() and (minhash(top[:0]) == top).all()
    assert (minhash(np.array([0, 2 ** 64 - 1], np.uint64)) == 0).all()          # no bin holds 2^64 - 1


@pytest.mark.parametrize('bands, rows', [(32, 8), (16, 16), (64, 4)])
def test_documents_share_a_band_as_often_as_the_formula_says(bands, rows):
    rng, pairs = np.random.default_rng(bands), 400
    for share in (0.5, 0.7, 0.8, 0.9, 0.95):
        hits = 0
        for _ in range(pairs):
            a, b, j = random_pair(rng, 2000, int(share * 2000))
            hits += (band_keys(minhash(a), bands) == band_keys(minhash(b), bands)).any()
        p = 1 - (1 - j ** rows) ** bands
        assert abs(hits / pairs - p) <= 4 * (p * (1 - p) / pairs) ** 0.5 + 1 / pairs, (j, hits / pairs, p)


def test_simhash_is_the_majority_of_each_bit_and_near_as_the_angle_says():
    rng = np.random.default_rng(0)
    for share in (0, 0.5, 0.9, 0.99):
        found = []
        for _ in range(300):
            a, b, _ = random_pair(rng, 1001, int(share * 1001))
            found.append((simhash(a) ^ simhash(b)).bit_count())
        naive = [[sum(x >> bit & 1 for x in s.tolist()) > 500 for bit in range(64)] for s in (a, b)]
        assert found[-1] == sum(x != y for x, y in zip(*naive))
        expected = 64 * math.acos(int(share * 1001) / 1001) / math.pi       # Goemans & Williamson 1995
        assert abs(np.mean(found) - expected) <= 4 * np.std(found) / 300 ** 0.5, (share, expected)
    assert simhash(a[:0]) == 0


@given(st.integers(0, 2 ** 64 - 1), st.integers(0, 12), st.data())
def test_fingerprints_that_differ_in_d_bits_share_a_block(fingerprint, distance, data):
    other = fingerprint
    for bit in data.draw(st.sets(st.integers(0, 63), max_size=distance)):
        other ^= 1 << bit
    a, b = simhash_keys([fingerprint, other], distance).T
    assert len(a) == distance + 1 and (a == b).any() and (other == fingerprint or (a != b).any())
