"""Clusters as brute force connects them, and copies with small edits planted among real files."""
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from parts.prepare.duplicates import band_keys, clusters, jaccard, minhash, shingles, simhash, simhash_keys


def connected(columns, same, n):
    """For each document the first one that pairs connect it with, by flooding until nothing changes."""
    first = list(range(n))
    while True:
        before = list(first)
        for i in range(n):
            for j in range(n):
                if same(i, j) and any(keys[i] == keys[j] for keys in columns):
                    first[i] = first[j] = min(first[i], first[j])
        if first == before:
            return first


@settings(deadline=None)
@given(st.data())
def test_clusters_are_the_connected_documents(data):
    n, bands = data.draw(st.integers(0, 25)), data.draw(st.integers(1, 4))
    group = data.draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    row = st.lists(st.integers(0, 8) | st.just(2 ** 64 - 1), min_size=n, max_size=n)
    columns = [np.array(data.draw(row), np.uint64) for _ in range(bands)]
    same = lambda i, j: group[i] == group[j]
    found = clusters(iter(columns), same)
    assert found.dtype == np.int64 and found.tolist() == connected(columns, same, n)


def test_no_columns_no_clusters():
    assert clusters([], None).tolist() == []


def test_a_bucket_of_copies_costs_one_comparison_a_copy_whatever_the_bands():
    asked = []
    columns = [np.full(500, band, np.uint64) for band in range(8)]
    assert not clusters(columns, lambda i, j: asked.append((i, j)) or True).any()
    assert len(asked) == 499


def test_nothing_depends_on_the_process():
    code = "from parts.prepare.duplicates import *; " \
           "s = shingles('The cat sat on the mat, 漢字 café ' * 3); m = minhash(s); " \
           "print(s, m, band_keys(m, 32), simhash(s), simhash_keys([simhash(s)], 3))"
    found = {subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, check=True,
                            env={**os.environ, 'PYTHONHASHSEED': seed}).stdout for seed in ('1', '2')}
    assert len(found) == 1


@pytest.fixture(scope='module')
def files():
    """Files of the standard library of 300 words and more, none a near-copy of another (compared by sets)."""
    stdlib, kept = pathlib.Path(sysconfig.get_paths()['stdlib']), []
    for path in sorted(stdlib.glob('*.py')) + sorted(stdlib.glob('[a-z]*/*.py')):
        if path.parent.name not in ('site-packages', 'test', 'encodings'):      # encodings: one table, often
            text = path.read_text(encoding='utf-8', errors='replace')
            words = re.findall(r'\w+', text)
            grams = {tuple(words[i:i + 5]) for i in range(len(words) - 4)}
            if len(words) >= 300 and len(kept) < 320 and \
                    not any(2 * len(grams & g) >= len(grams | g) for _, g in kept
                            if len(g) <= 2 * len(grams) <= 4 * len(g)):
                kept.append((text, grams))
    assert len(kept) == 320
    return [text for text, _ in kept]


def edit(text, rng, similarity):
    """A copy with as many single words changed, left out or added as make that Jaccard similarity: each takes
    about five 5-grams away and brings five new ones."""
    parts = re.split(r'(\w+)', text)
    at = range(1, len(parts), 2)
    edits = (1 - similarity) / (1 + similarity) * len({tuple(parts[i:i + 10:2]) for i in at}) / 5
    for i in rng.sample(at, max(1, round(edits))):
        new = f'new{rng.randrange(10 ** 6)}'
        parts[i] = rng.choice(['', new, f'{parts[i]} {new}'])
    return ''.join(parts)


def excerpts(files):
    """30 words from the middle of each file."""
    middles = [re.findall(r'\w+', text) for text in files]
    return [' '.join(words[len(words) // 2:][:30]) for words in middles]


def edit_end(text, rng, similarity):
    """In 30 words a change in the middle is a change of a third: so one at an end."""
    words = text.split(' ')
    return ' '.join(rng.choice([words[1:-1], words + ['two', 'more'], words[:-1] + ['other'],
                                ['other'] + words[1:], words[:-2] + ['other', words[-1]]]))


def minhash_clusters(documents, threshold=0.7):
    sets = [shingles(text) for text in documents]
    keys = np.array([band_keys(minhash(s), 32) for s in sets])
    loose = clusters(keys.T, lambda i, j: True)
    return sets, loose, clusters(keys.T, lambda i, j: jaccard(sets[i], sets[j]) >= threshold)


@pytest.mark.parametrize('shorten, edit', [(list, edit), (excerpts, edit_end)], ids=['files', '30 words'])
def test_minhash_finds_planted_near_copies_and_nothing_else(files, shorten, edit):
    originals, rng = shorten(files), random.Random(0)
    originals = sorted(set(originals), key=originals.index)
    n = len(originals)
    sets, loose, found = minhash_clusters(originals + [edit(text, rng, 0.9) for text in originals])
    similar = np.array([jaccard(sets[i], sets[n + i]) for i in range(n)])
    assert 0.86 < np.median(similar) < 0.94 and similar.min() > 0.8
    print(f'{n} documents, similarity {similar.min():.2f} to {similar.max():.2f}, recall '
          f'{(found[n:] == found[:n]).mean():.3f}, wrongly joined {(found[:n] != np.arange(n)).mean():.3f}, '
          f'without comparing {(loose[:n] != np.arange(n)).mean():.3f}')
    assert (found[n:] == found[:n]).mean() >= 0.95
    assert (found[:n] != np.arange(n)).mean() <= 0.02 and (loose[:n] != np.arange(n)).mean() <= 0.02


def test_simhash_finds_what_its_angle_allows_which_is_little(files):
    """Of copies at a Jaccard similarity of 0.9, distance 3 finds one in ten; at 0.98, two thirds.
    A bit differs with probability angle / pi, and a block of 16 bits is shared whenever three or fewer do."""
    n, rng = len(files), random.Random(0)
    recall = {}
    for similarity in (0.9, 0.98, 0.995):
        sets = [shingles(text) for text in files + [edit(text, rng, similarity) for text in files]]
        prints = [simhash(s) for s in sets]
        found = clusters(simhash_keys(prints, 3),
                         lambda i, j, prints=prints: (prints[i] ^ prints[j]).bit_count() <= 3)
        recall[similarity] = (found[n:] == found[:n]).mean()
        expected = []
        for a, b in zip(sets[:n], sets[n:]):
            shared = len(a) + len(b) - len(np.union1d(a, b))
            p = math.acos(min(1, shared / (len(a) * len(b)) ** 0.5)) / math.pi
            expected.append(sum(math.comb(64, d) * p ** d * (1 - p) ** (64 - d) for d in range(4)))
        print(f'similarity {similarity}: recall {recall[similarity]:.3f}, expected {np.mean(expected):.3f}, '
              f'wrongly joined {(found[:n] != np.arange(n)).mean():.3f}')
        assert abs(recall[similarity] - np.mean(expected)) <= 4 * (0.25 / n) ** 0.5
        assert (found[:n] != np.arange(n)).mean() <= 0.02
    assert recall[0.9] < 0.5 < recall[0.98] < recall[0.995]
