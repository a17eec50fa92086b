"""parts/tokenizer/merges.py and chunks.py learn and cut what the naive loop and the regular expression do."""
import random, sys

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from test_bpe_training import by_replacing, naive

from parts.tokenizer import chunks, merges
from tokenizer import MAX_CHUNK, PATTERN, Tokenizer, count_chunks

calm = dict(deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])


def read(folder):
    return [path.read_bytes().decode() for path in sorted(folder.rglob('*.py'))]


def in_batches(words, n_merges):
    return merges.learn_merges([word.encode() for word in words], list(words.values()), n_merges)


@settings(max_examples=200, **calm)
@given(st.sampled_from(['a', 'ab', 'abc', 'ab \n\0', 'aé🦜']).flatmap(
    lambda few: st.dictionaries(st.text(few, min_size=1, max_size=20), st.integers(1, 3), min_size=1)))
def test_batches_equal_the_naive_merges_where_ties_and_runs_abound(words):
    assert in_batches(words, 40) == naive(words, 40)


def random_words(seed):
    rng = random.Random(seed)
    alphabet, longest = rng.choice(['a', 'ab', 'abcd', 'abcdefghijkl']), rng.choice([3, 9, 40])
    words = (''.join(rng.choices(alphabet, k=rng.randint(1, longest))) * rng.randint(1, 3) for _ in range(30))
    return {word: rng.randint(1, rng.choice([1, 4, 2 ** 40])) for word in words}


@pytest.mark.parametrize('candidates', [1, 5, 512])
def test_batches_equal_the_loop_to_the_last_pair(candidates, monkeypatch):
    """Until no pair is left, also with few candidates at a time, so that these are used up often."""
    monkeypatch.setattr(merges, 'CANDIDATES', candidates)
    most = 0
    for seed in range(40):
        words = random_words(seed)
        pairs, n_tokens = by_replacing(words, 10 ** 6)
        assert in_batches(words, 10 ** 6) == (pairs, n_tokens), seed
        half = len(pairs) // 2
        assert in_batches(words, half) == by_replacing(words, half), seed
        most = max(most, len(pairs))
    assert most > 100


def test_several_pairs_are_merged_at_once_and_aa_is_the_last_of_its_batch():
    """(a, a) makes (aa, aa), which is more frequent than (b, c): a batch of both would be wrong."""
    words = {'a' * 16: 1, 'bc': 6, 'de': 9, 'fg': 9}
    pairs = merges.Pairs([word.encode() for word in words], list(words.values()))
    keys = pairs.key[pairs.most_frequent(9)].tolist()
    assert merges.without_overlap(keys) == 1 and len(keys) == 4
    assert merges.without_overlap(keys[1:]) == 3
    assert in_batches(words, 9) == naive(words, 9)


def test_counts_beyond_53_bits_stay_exact():
    words = {'ab': 2 ** 60, 'cd': 2 ** 60 + 1, 'abcd': 2 ** 40, 'ef': 2 ** 32 + 1, 'gh': 2 ** 32}
    assert in_batches(words, 9) == naive(words, 9)


def test_the_standard_librarys_first_merges_are_the_loops(python_files):
    texts = read(python_files)
    words = count_chunks(texts)
    assert in_batches(words, 200) == by_replacing(words, 200)
    assert Tokenizer.train(texts, 4096).vocab[256:] == Tokenizer.train(
        texts, 4096, pattern=f'(?:{PATTERN})').vocab[256:]      # another pattern: by the regular expression


def test_a_file_that_was_copied_alone_trains_the_same(python_files, monkeypatch):
    texts = read(python_files)
    texts = [*texts[:10], 'é\r\n\0']
    expected = Tokenizer.train(texts, 512)
    for part in 'parts.tokenizer.merges', 'parts.tokenizer.chunks':
        monkeypatch.setitem(sys.modules, part, None)        # importing it is an ImportError
        monkeypatch.delattr(f'{part}', raising=False)
    with pytest.raises(ImportError):
        from parts.tokenizer import merges    # noqa: F401
    assert Tokenizer.train(texts, 512).to_json() == expected.to_json()


@settings(max_examples=400, **calm)
@given(st.sampled_from(['ab_. \n\t17', 'a.\n ', 'a1.\r\n \t\x1c\0é', 'a\f\n\v .1', 'é\n a.\xa0\u3000',
                        'a.\ud800'])
       .flatmap(lambda few: st.lists(st.lists(st.sampled_from([*few, '\r\n', '\n    ', ' ' * 9]), max_size=30)
                                     .map(''.join), max_size=4)))
def test_bytes_are_cut_as_the_regular_expression_cuts(texts):
    assert chunks.count_batch(texts) == count_chunks(texts)


@pytest.mark.parametrize('n', [1, 2, 255, 256, 257, 300, 513])
@pytest.mark.parametrize('blank', [' ', '\n', '\t', ' \n', '\n ', '\r\n'])
def test_many_blanks_in_a_row_are_cut_as_the_regular_expression_cuts(n, blank):
    texts = [f'x = 1\ny{a}{(blank * n)[:n]}{b}\nz = 2\n'
             for a in ('', '.', '\n', ' ') for b in ('x', '.', '7', '')]
    assert chunks.count_batch(texts) == count_chunks(texts)


@pytest.mark.parametrize('n', [7, 8, 9, 15, 16, 17, 40, MAX_CHUNK, MAX_CHUNK + 1, 3 * MAX_CHUNK])
def test_short_and_long_chunks_are_counted(n):
    words = ['a' * n, 'b' * (n - 1), '=' * n, 'a' * n + 'c']
    texts = [f' {word} .{word}\n' * (i + 1) for i, word in enumerate(words)]
    assert chunks.count_batch(texts) == count_chunks(texts)


def test_only_the_lines_that_are_odd_are_left_to_the_regular_expression(python_files):
    texts = read(python_files)
    texts.append('a = 1\r\nb = 2\n\n    é = 3\n    d = "é"\nif e:\n    f = 5\0\n\ng = 6\rg\n')
    counted, rest = chunks.count_ascii(texts)
    assert rest[-4:] == ['b = 2\n\n    é = 3\n    ', 'd = "é"\n', 'f = 5\0\n\n', 'g = 6\rg\n']
    assert sum(map(len, rest)) < sum(map(len, texts)) / 20
    assert chunks.count_batch(texts) == count_chunks(texts)
