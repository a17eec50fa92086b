"""Duplicates: as slow programs find them and their theory says; planted copies and problems are found."""
import io
import random
import re
import string

import numpy as np
from feedback import expect, told
from hypothesis import given, strategies as st
from preparing import RAW, dropped, kept, prepare, prose, read, write, write_records
from tqdm import tqdm

from parts.prepare.duplicates import band_keys, jaccard, minhash, near_clusters, ngrams, shingles, simhash
from parts.prepare.duplicates import simhash_clusters, words_of

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
TEXT = st.text(st.sampled_from('aAbB_1 .\né×\u07ff\u0800漢字😀\ud800') | st.characters(exclude_categories=[]))


# --- words and sets of them ---------------------------------------------------------------------------------
@given(st.lists(TEXT, min_size=1, max_size=4), st.integers(1, 6))
def test_words_and_ngrams_are_those_of_a_regular_expression(texts, n):
    """Runs of letters, digits, _ and two-byte characters; a character of three or four bytes by itself."""
    hashes, naive = [], []
    for text in texts:
        words = re.findall('[a-z0-9_\x80-\u07ff]+|[\u0800-\U0010ffff]', text.translate(LOWER))
        assert [word.decode('utf-8', 'surrogatepass') for word in words_of(text)] == words
        grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
        naive += grams
        hashes += ngrams(words_of(text), n).tolist()
        five = ngrams(words_of(text), max(1, min(5, len(words))))
        assert shingles(text).tolist() == sorted({*five.tolist()})
    # two hashes are equal where, and only where, the n-grams are
    assert len(set(zip(hashes, naive, strict=True))) == len(set(hashes)) == len(set(naive))


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_jaccard_is_that_of_sets(a, b):
    arrays = [np.array(sorted(s), np.uint64) for s in (a, b)]
    assert jaccard(*arrays) == (len(a & b) / len(a | b) if a | b else 0)


# --- signatures ---------------------------------------------------------------------------------------------
def random_pair(rng, size, shared):
    """Two sets of that many random shingles, some of them shared, and their Jaccard similarity."""
    pool = rng.integers(0, 2 ** 64 - 1, 2 * size - shared, np.uint64, endpoint=True)
    return np.sort(pool[:size]), np.sort(pool[size - shared:]), shared / (2 * size - shared)


def test_a_signature_of_a_union_is_the_smaller_of_two():
    # for all time: other people keep such numbers, and a run is resumed with another numpy
    expect("minhash(shingles('the cat sat on the mat'), 4)",
           np.array([2336241653, 392179490, 1402237318, 518363992], np.uint32),
           lambda: minhash(shingles('the cat sat on the mat'), 4))
    a, b, _ = random_pair(np.random.default_rng(0), 2500, 0)
    expect('minhash of an empty set, 4 functions', np.full(4, 2 ** 32 - 1, np.uint32), minhash, a[:0], 4)
    wanted = np.minimum(minhash(a), minhash(b))
    expect('minhash of the union of two sets of 2,500, 256 functions; the smaller of their two signatures is '
           'expected', wanted, minhash, np.append(a, b))


def test_documents_share_a_band_as_often_as_the_formula_says():
    for bands, rows, size in ((32, 8, 2000), (16, 16, 60), (64, 4, 5)):
        rng = np.random.default_rng(bands)
        for share in (0, 0.5, 0.7, 0.8, 0.9, 0.95, 1):
            agree, hits = [], []
            for _ in range(400):
                *sets, j = random_pair(rng, size, int(share * size))
                a, b = map(minhash, sets)
                agree.append((a == b).mean())
                hits.append((band_keys(a, bands) == band_keys(b, bands)).any())
            # each number agrees with probability J, and none says what another one says
            case = f'400 pairs of sets of {size} shingles with the Jaccard similarity {j:.4f}'
            mean = f'{case}: the mean fraction of the 256 numbers of minhash that agree'
            assert abs(np.mean(agree) - j) <= 4 * np.std(agree) / 400 ** 0.5, told(mean, np.mean(agree), j)
            spread, most = np.std(agree), 1.3 * (j * (1 - j) / 256) ** 0.5
            deviation = f'{case}: the standard deviation of that fraction'
            assert spread <= most, told(deviation, spread, f'at most {most:.4g}')
            p = 1 - (1 - j ** rows) ** bands
            shared = f'{case}: the fraction of pairs that share one of {bands} bands of {rows}'
            wrong = abs(np.mean(hits) - p) - 4 * (p * (1 - p) / 400) ** 0.5
            assert wrong <= 1 / 400, told(shared, np.mean(hits), p)


def test_simhash_joins_what_differs_in_three_bits_and_not_in_four():
    a = random_pair(np.random.default_rng(0), 1001, 0)[0]           # each bit is a majority of 1,001
    naive = sum((sum(x >> bit & 1 for x in a.tolist()) > 500) << bit for bit in range(64))
    assert simhash(a).to_bytes(8, 'big') == naive.to_bytes(8, 'little')
    dice = random.Random(0)
    firsts = [dice.getrandbits(64) for _ in range(100)]
    for n, heads in ((3, range(100)), (4, range(100, 200))):
        copies = [first ^ sum(1 << bit for bit in dice.sample(range(64), n)) for first in firsts]
        assert simhash_clusters([*firsts, *copies]).tolist() == [*range(100), *heads], n
        bar = tqdm([np.array([*firsts, *copies], np.uint64)], file=io.StringIO())
        near_clusters('simhash', iter(bar), None, None)
        assert bar.n == 1                       # all of it was read, so the bar of a run ends
    wordless = [simhash(shingles(text)) for text in ('---', '+++ ***')]
    assert simhash_clusters(wordless).tolist() == [0, 1]


# --- planted copies -----------------------------------------------------------------------------------------
def edited(text, n, rng):
    """A copy with n single words changed: each takes about five 5-grams away and brings five new ones."""
    words = text.split()
    for i in rng.sample(range(len(words)), n):
        words[i] = f'new{rng.randrange(10 ** 6)}'
    return ' '.join(words)


def test_prepare_drops_planted_copies_and_nothing_else(tmp_path):
    texts = [prose(i, 400) for i in range(100)]
    rng = random.Random(0)
    family = {text: i for i, text in enumerate(texts)}      # text: number of what it is a copy of
    family |= {edited(text, 4, rng): i for i, text in enumerate(texts[:60])}        # J of about 0.9
    family |= {edited(text, 25, rng): i for i, text in enumerate(texts[60:80], 100)}    # of 0.5: another text
    family |= {text.replace(' ', '\n\n'): family[text] for text in texts[40:80]}
    everything = rng.sample(sorted(family), len(family))
    source = write(tmp_path / 'files', everything)
    flags = [source, *RAW, '--min_similarity=0.8', '--val_fraction=0.4']
    prepare(tmp_path / 'minhash', *flags, '--dedup=minhash')
    first = {i: next(text for text in everything if family[text] == i) for i in range(120)}
    assert len({*kept(tmp_path / 'minhash')} ^ {*first.values()}) <= 3      # recall 0.95 of 60
    assert dropped(tmp_path / 'minhash')['exact duplicate'] == 40
    prepare(tmp_path / 'simhash', *flags, '--dedup=simhash')        # of such copies it finds one in ten
    assert 0 < dropped(tmp_path / 'simhash')['near duplicate'] < 15


# --- planted problems of a benchmark ------------------------------------------------------------------------
PROBLEMS = [
    r'Let $x$ and $y$ be real numbers with $\frac{x}{y} + \frac{y}{x} = \sqrt{7}$ and $\binom{x}{2} \leq y$. '
    r'Find the value of $\frac{x^2}{y^2} + \frac{y^2}{x^2}$ and $\cos \theta$ when $\theta = \frac{\pi}{3}$.',
    'Is <b>a</b> and <i>b</i> if <b>c</b> is <i>x</i> times <b>d</b> and <i>e</i> is <b>six</b> by <i>f</i>',
    'Write to ann@firm.com, bob@firm.com or eve@firm.com before noon, and ask joe@firm.com what ida@firm.com '
    'and max@firm.com and tim@firm.com sold to sue@firm.com and una@firm.com today.']


def test_planted_benchmark_problems_are_all_found_and_nothing_else(tmp_path):
    """In whatever form the cleaning has left them: with or without LaTeX, HTML, addresses, capitals."""
    prompts = [prose(1000 + i, 40) for i in range(40)] + PROBLEMS
    path = write_records(tmp_path / 'own.jsonl', [{'id': 1, 'tests': {'prompt': [p]}} for p in prompts])
    innocent = [prose(i) for i in range(10)]        # and some that share twelve words, one too few
    innocent += [f'{prose(i)} {" ".join(prompts[i].split()[7:19])} {prose(i)}' for i in range(10, 30)]
    guilty = [f'{prose(i)}\n\n{prompt}\n\n{prose(i + 99)}' for i, prompt in enumerate(prompts)]
    guilty += [text.upper().replace(' ', '  ') for text in guilty[:20]]
    guilty += [r'\section{One} ' + guilty[40], rf'\emph{{One}} {guilty[42]}', f'<p>{guilty[42]}</p>']
    source = write(tmp_path / 'files', random.Random(1).sample(innocent + guilty, len(innocent + guilty)))
    for flags in [], ['--strip_markup=False'], ['--pii=False'], ['--mode=raw']:
        prepare(tmp_path / 'out', source, '--dedup=none', '--val_fraction=0.3', f'--decontaminate={path}',
                *flags)
        assert kept(tmp_path / 'out') == sorted(innocent), flags
        assert read(tmp_path / 'out')[0]['decontaminated'] == {'problems': [str(path)], 'ngram': 13}
