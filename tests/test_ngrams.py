"""Byte n-grams and the model over them: probabilities as plain dictionaries give them."""
import collections
import math
import random

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parts.prepare.text_models import NgramModel, byte_ngrams


def naive_bits(reference, text, order, a):
    """The same mean from counts in a dictionary of byte strings, one byte after the other."""
    counts = collections.Counter()
    for document in reference:
        data = document.encode('utf-8', 'surrogatepass')
        counts[b''] += len(data)
        counts.update(data[i:i + n] for n in range(1, order + 1) for i in range(len(data) - n + 1))
    data, bits = text.encode('utf-8', 'surrogatepass'), 0.0
    for i in range(len(data)):
        p = 1 / 256
        for n in range(1, min(order, i + 1) + 1):
            gram = data[i - n + 1:i + 1]
            p = (counts[gram] + a * p) / (counts[gram[:-1]] + a)
        bits -= math.log2(p)
    return bits / len(data) if data else 0.0


def distinct(texts, n, buckets):
    """Whether equal n-grams, and no others, fall into the same bucket."""
    data = [text.encode('utf-8', 'surrogatepass') for text in texts]
    grams = [d[i:i + n] for d in data for i in range(len(d) - n + 1)]
    ids = np.concatenate([byte_ngrams(text, n, buckets) for text in texts]).tolist()
    return len(set(zip(grams, ids, strict=True))) == len(set(grams)) == len(set(ids))


TEXT = st.text(st.sampled_from('ab e\né漢') | st.characters(exclude_categories=[]), max_size=40)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=3).filter(any), TEXT, st.integers(1, 6), st.floats(0.1, 50))
def test_bits_per_byte_are_those_of_plain_dictionaries(reference, text, order, a):
    assume(all(distinct([*reference, text], n, 1 << 18) for n in range(1, order + 1)))
    model = NgramModel(reference, order, buckets=1 << 18)
    assert model.bits_per_byte(text, a) == pytest.approx(naive_bits(reference, text, order, a), abs=1e-6)


@pytest.mark.parametrize('text', ['', 'a', 'ab', 'abc', 'abcd', 'é', '漢字'])
def test_ngrams_of_texts_shorter_than_n(text):
    data = text.encode()
    for n in range(1, 9):
        assert len(byte_ngrams(text, n, 100)) == max(0, len(data) - n + 1)


@given(TEXT, TEXT, st.integers(1, 6))
def test_equal_ngrams_and_no_others_fall_into_the_same_bucket(a, b, n):
    assert distinct([a, b], n, 1 << 62)


def test_ngrams_spread_evenly_over_the_buckets():
    ids = np.unique(byte_ngrams(' '.join(map(str, range(40_000))), 8, 1 << 62))
    for buckets in (256, 1000):
        counts = np.bincount(ids % buckets, minlength=buckets)
        assert ((counts - counts.mean()) ** 2).sum() / counts.mean() < buckets + 5 * (2 * buckets) ** 0.5


GERMAN = """Die Kinder spielten noch im Garten, als es am späten Nachmittag zu regnen begann, und keines von
ihnen wollte ins Haus. Ihre Großmutter stand am Fenster, schüttelte den Kopf und setzte schließlich Wasser auf
für den Tee. Bald saßen alle um den großen Tisch, nass und zufrieden, und erzählten von ihren Abenteuern."""


def test_stock_phrases_then_english_then_german_then_noise():
    if not (SHARED / 'tinyshakespeare.txt').exists():
        pytest.skip('no tinyshakespeare.txt')
    text = (SHARED / 'tinyshakespeare.txt').read_text(encoding='utf-8')
    model, rng = NgramModel([text[:900_000]]), random.Random(0)
    letters = ''.join(rng.choice('abcdefghijklmnopqrstuvwxyz ') for _ in range(1000))
    noise = ''.join(map(chr, rng.choices(range(128), k=1000)))
    texts = ['I will not be the king of ' * 50, text[1_000_000:1_002_000], GERMAN, letters, noise]
    bits = [model.bits_per_byte(t) for t in texts]
    assert bits == sorted(bits) and bits[1] < 3 and bits[2] > 4 and bits[4] > 6, bits
    for start in range(900_000, 1_110_000, 10_000):             # every unseen page, not only on average
        assert bits[0] < model.bits_per_byte(text[start:start + 2000]) < bits[2]
    assert model.bits_per_byte('zq;' * 500) > bits[2]           # repetition of what is new stays surprising
