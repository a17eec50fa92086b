"""The trainer equals a naive one, and HF's, whatever the corpus, its order, the hash seed, the processes."""
import collections, functools, os, random, subprocess, sys

import pytest, regex, tokenizers
from conftest import ROOT
from hypothesis import HealthCheck, given, settings, strategies as st

import tokenizer as tk
from parts.tokenizer import chunks, merges as batches
from tokenizer import MAX_CHUNK, PATTERN, SPECIAL_TOKENS, Tokenizer, count_chunks, learn_merges

BYTES = [bytes([b]) for b in range(256)]
calm = dict(deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
fuzz = lambda n: settings(max_examples=n, **calm)


def naive(chunks, n_merges):
    """tokenizer.py's own loop, of {chunk: count}."""
    return learn_merges([chunk.encode() for chunk in chunks], list(chunks.values()), n_merges)


def by_replacing(chunks, n_merges):
    """The same by another program: token i is the character i, and a merge is str.replace."""
    words, merges = [(chunk.encode().decode('latin-1'), n) for chunk, n in chunks.items()], []
    while len(merges) < n_merges and any(len(word) > 1 for word, _ in words):
        counts = collections.Counter()
        for word, n in words:
            for i in range(len(word) - 1):
                counts[word[i:i + 2]] += n
        best = sorted(counts, key=lambda pair: (-counts[pair], pair))[0]
        words = [(word.replace(best, chr(256 + len(merges))), n) for word, n in words]
        merges.append(tuple(map(ord, best)))
    return merges, sum(n * len(word) for word, n in words)


def expand(merges, alphabet=BYTES):
    return functools.reduce(lambda vocab, pair: [*vocab, vocab[pair[0]] + vocab[pair[1]]], merges, alphabet)


@pytest.fixture(scope='module')
def texts(python_files):
    return [path.read_text('utf-8') for path in sorted(python_files.rglob('*.py'))]


def test_golden_low_lower_lowest():
    tokenizer = Tokenizer.train(['low', 'lower', 'lowest'], 256 + 3, special_tokens=())
    assert tokenizer.vocab[256:] == [b'lo', b'low', b'lowe']    # l+o and o+w tie: smaller ids first
    words = [b'low', b'lower', b'lowest']
    assert learn_merges(words, [1, 1, 1], 3) == ([(108, 111), (256, 119), (257, 101)], 6)
    spaced = [b'low', b' lower', b' lowest']
    assert learn_merges(spaced, [1, 1, 1], 2) == ([(108, 111), (256, 119)], 10)
    assert '-> ([(108, 111), (256, 119)], 10)' in learn_merges.__doc__ and str(spaced) in learn_merges.__doc__
    assert batches.learn_merges(spaced, [1, 1, 1], 2) == learn_merges(spaced, [1, 1, 1], 2)


@fuzz(500)
@given(st.sampled_from(['a', 'ab', 'abc', 'ab \n', 'aé🦜']).flatmap(
    lambda few: st.dictionaries(st.text(few, min_size=1, max_size=16), st.integers(1, 3), min_size=1)))
def test_the_merges_are_those_of_another_program(chunks):      # few symbols: ties, runs and overlaps abound
    assert naive(chunks, 40) == by_replacing(chunks, 40)


@fuzz(200)
@given(st.lists(st.text('ab_. \n\t17\x1cé', min_size=1, max_size=40), min_size=1, max_size=4))
def test_training_is_the_chunks_of_the_regex_and_naive_merges(texts):
    counts = collections.Counter(chunk for text in texts for chunk in regex.findall(PATTERN, text))
    tokenizer = Tokenizer.train(texts, 256 + 20, special_tokens=(), processes=1)
    assert tokenizer.vocab == expand(naive(counts, 20)[0])


@fuzz(400)
@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_cut_as_regex_does(text):
    expected = collections.Counter(regex.findall(PATTERN, text))
    assert count_chunks([text]) == expected == chunks.count_chunks([text])


def test_the_tokens_are_those_of_hf(texts, monkeypatch):
    """HF numbers the bytes by their printable characters, and ties go by that: for this test so do we."""
    to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), 'isolated'), to_bytes])
    hf.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=2048, show_progress=False, initial_alphabet=to_bytes.alphabet()))
    theirs = [tk.from_printable(hf.id_to_token(i)) for i in range(2048)]
    new_id = {byte: i for i, byte in enumerate(sorted(range(256), key=lambda b: tk.printable([b])))}
    monkeypatch.setattr(tk, 'to_utf8', lambda text: bytes(new_id[b] for b in text.encode()))
    counts = count_chunks(texts)
    merges, _ = batches.learn_merges([*map(tk.to_utf8, counts)], list(counts.values()), 2048 - 256)
    assert expand(merges, sorted(BYTES, key=tk.printable)) == theirs


TRAIN = '''import pathlib, sys, tokenizer
texts = [path.read_text('utf-8') for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.py'))]
texts *= 2_500_000 // sum(map(len, texts)) + 1      # three batches for the workers
print(tokenizer.Tokenizer.train(texts, 512, processes=int(sys.argv[2])).hash)'''


def test_hash_seed_and_processes_change_nothing(python_files):
    hashes = [subprocess.check_output([sys.executable, '-c', TRAIN, python_files, processes], cwd=ROOT,
                                      env={**os.environ, 'PYTHONHASHSEED': seed}).strip()
              for seed, processes in [('0', '1'), ('1', '2'), ('random', '2')]]
    assert len(hashes[0]) == 16 and len(set(hashes)) == 1


def test_the_order_of_documents_changes_nothing(texts):
    shuffled = random.Random(0).sample(texts, len(texts))
    assert Tokenizer.train(shuffled, 1024).hash == Tokenizer.train(texts, 1024).hash


@pytest.mark.parametrize('vocab_size', [320, 321, 1000])
def test_the_vocabulary_has_the_size_asked_for_and_no_token_twice(texts, vocab_size):
    tokenizer = Tokenizer.train(texts, vocab_size)
    assert tokenizer.vocab_size == len(set(tokenizer.vocab)) + len(SPECIAL_TOKENS) == vocab_size
    tokens = sum(len(tokenizer.encode(text)) for text in texts)     # encode finds what training ended with
    assert tokenizer.bytes_per_token == sum(len(text.encode()) for text in texts) / tokens


def test_too_little_text_is_said_and_gives_a_smaller_vocabulary(capsys):
    tokenizer = Tokenizer.train(['aaaa'], 1000, special_tokens=())
    assert tokenizer.vocab[256:] == [b'aa', b'aaaa']
    assert {'258,', '1,000'} <= set(capsys.readouterr().err.split())


@pytest.mark.parametrize('corpus, vocab_size, words', [
    ([], 999, 'no text'), ([''], 999, 'no text'), (iter(()), 999, 'no text'), (['a'], 319, 'too small.*320')])
def test_no_text_or_no_room_is_a_value_error(corpus, vocab_size, words):
    with pytest.raises(ValueError, match=words):
        Tokenizer.train(corpus, vocab_size)


def test_counts_may_exceed_32_and_53_bits():
    counts = {'ab': 2 ** 32 + 1, 'cd': 2 ** 32 + 2, 'ef': 7, 'xy': 2 ** 60, 'zz': 2 ** 60 + 1}
    assert expand(naive(counts, 5)[0])[256:] == [b'zz', b'xy', b'cd', b'ab', b'ef']


@pytest.mark.parametrize('symbols, k', [('a', 10 ** 6), ('ACGT', 10 ** 6), ('é', MAX_CHUNK + 1)])
def test_a_megabyte_without_a_break_trains(symbols, k):
    text = ''.join(random.Random(0).choices(symbols, k=k))
    counts, tokenizer = count_chunks([text, text]), Tokenizer.train([text], 256 + 8, special_tokens=())
    assert max(map(len, counts)) <= MAX_CHUNK and sum(len(c) * n for c, n in counts.items()) == 2 * len(text)
    assert chunks.count_chunks([text, text]) == counts
    assert len(tokenizer.vocab) == 264 and tokenizer.decode(tokenizer.encode_batch([text])[0]) == text


@fuzz(100)
@given(st.text(st.characters(exclude_categories=['Cs', 'Cn'])))
def test_what_a_custom_pattern_forgets_is_not_lost(text):
    tokenizer = Tokenizer.train(['a few words', text], 256 + 9, special_tokens=(), pattern=r'\w+')
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text]) == [tokenizer.encode(text)]


@pytest.mark.parametrize('pattern', [r'(\w)+', r'(?P<word>\w+)|\s', r'\w+(', '['])
def test_capturing_groups_and_broken_patterns_are_value_errors(pattern):
    with pytest.raises(ValueError, match='pattern'):
        Tokenizer.train(['a few words'], 300, special_tokens=(), pattern=pattern)
