"""Byte-pair encoding: trainer and encoder do what naive programs and HF's do, whatever the documents' order,
the hash seed and the number of processes."""
import collections
import functools
import os
import random
import shutil
import subprocess
import sys

import pytest
import regex
from conftest import ROOT, refused
from feedback import expect
from hypothesis import given, settings, strategies as st

import tokenizer as tk
from parts.tokenizer import bpe
from tokenizer import MAX_CHUNK, PATTERN, SMALL_PATTERN, SPECIAL_TOKENS, Tokenizer, count_chunks, learn_merges

BYTES = [bytes([b]) for b in range(256)]


def naive(words, n_merges, learn=learn_merges):
    """tokenizer.py's own loop, of {chunk: count}."""
    return learn([word.encode() for word in words], list(words.values()), n_merges)


def expand(merges, alphabet=BYTES):
    return functools.reduce(lambda vocab, pair: [*vocab, vocab[pair[0]] + vocab[pair[1]]], merges, alphabet)


@pytest.fixture(scope='module')
def texts(python_files):
    return [path.read_text('utf-8') for path in sorted(python_files.rglob('*.py'))]


# --- merges -------------------------------------------------------------------------------------------------
def test_golden_low_lower_lowest():
    words = [b'low', b'lower', b'lowest'], [1, 1, 1], 3
    merges = [(108, 111), (256, 119), (257, 101)]               # l+o and o+w tie: smaller ids first
    for learn in (learn_merges, bpe.learn_merges):
        expect("learn_merges([b'low', b'lower', b'lowest'], [1, 1, 1], 3)", (merges, 6), learn, *words)
    tokenizer = Tokenizer.train(['low', 'lower', 'lowest'], 256 + 3, special_tokens=())
    assert tokenizer.vocab[256:] == [b'lo', b'low', b'lowe']


# few symbols: ties, runs and overlaps abound
few_symbols = st.sampled_from(['a', 'ab', 'abc', 'ab \n\0', 'aé🦜', 'abcdefghijkl']).flatmap(
    lambda few: st.dictionaries(st.text(few, min_size=1, max_size=16), st.integers(1, 3), min_size=1))


@settings(max_examples=250)
@given(few_symbols)
def test_the_merges_are_those_of_the_naive_loop(words):
    """Until no pair is left; batches also with few candidates at a time, so that these are used up often."""
    encoded = [word.encode() for word in words]
    fast = naive(words, 10 ** 6, bpe.learn_merges)
    expect(f'learn_merges({encoded}, {[*words.values()]}, 1000000)', fast, naive, words, 10 ** 6)
    expected = naive(words, 10 ** 6)
    assert naive(words, 9, bpe.learn_merges)[0] == expected[0][:9]
    for candidates in (1, 5, 512):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bpe, 'CANDIDATES', candidates)
            assert naive(words, 10 ** 6, bpe.learn_merges) == expected, candidates


def test_counts_may_exceed_32_and_53_bits():
    words = {'ab': 2 ** 32 + 1, 'cd': 2 ** 32 + 2, 'ef': 7, 'xy': 2 ** 60, 'zz': 2 ** 60 + 1}
    asked = f'the tokens that learn_merges makes of {[*words]}, which occur so often: {[*words.values()]}'
    expect(asked, [b'zz', b'xy', b'cd', b'ab', b'ef'], lambda: expand(naive(words, 5)[0])[256:])
    assert naive(words, 5, bpe.learn_merges) == naive(words, 5)


def test_the_tokens_are_those_of_hf(texts):
    """HF numbers the bytes by their printable characters, and ties go by that: for this test so do we."""
    tokenizers = pytest.importorskip('tokenizers')
    to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), 'isolated'), to_bytes])
    hf.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=2048, show_progress=False, initial_alphabet=to_bytes.alphabet()))
    theirs = [tk.from_printable(hf.id_to_token(i)) for i in range(2048)]
    new_id = {byte: i for i, byte in enumerate(sorted(range(256), key=lambda b: tk.printable([b])))}
    counts = count_chunks(texts)
    words = [bytes(new_id[b] for b in chunk.encode()) for chunk in counts]
    merges, _ = bpe.learn_merges(words, list(counts.values()), 2048 - 256)
    assert expand(merges, sorted(BYTES, key=tk.printable)) == theirs


# --- chunks -------------------------------------------------------------------------------------------------
def test_every_character_is_cut_as_the_package_regex_cuts():
    """Of re's and of regex's Unicode tables one may be newer, so this asks about all characters."""
    texts = [''.join(f"x{c} {c}y {c} 7{c}{c}'s{c}\n{c}" for c in characters)
             for characters in (map(chr, range(0x10000)), '🦜', '\U0001d7d8', '\U00020000')]
    for pattern in (PATTERN, SMALL_PATTERN, r"\p{Lu}?\p{Ll}*[^a-z\s]{1,2}|[\s\S]"):
        expected = [regex.findall(pattern, text) for text in texts]
        assert [bpe.findall(pattern, text) for text in texts] == expected
        assert bpe.count_chunks(texts, pattern) == collections.Counter(sum(expected, []))


@pytest.mark.parametrize('words', [
    ['हिन्दी', 'विकिपीडिया', 'संस्कृति'], ['தமிழ்', 'மொழி'], ['ภาษาไทย', 'ที่นี่'], ['తెలుగు'], ['বাংলা'], ['မြန်မာ'],
    ['مُحَمَّد', 'العَرَبِيَّة'], ['שָׁלוֹם'], ['cafe\u0301', 'n\u0303andu\u0301']])
def test_a_word_with_combining_marks_is_one_chunk(words):
    """Vowels and accents that follow their letter as characters of their own. A mark may also follow a
    symbol, as in a red heart, and then it stays with it."""
    text = ' '.join(words)
    for pattern in (PATTERN, SMALL_PATTERN):
        assert [chunk.strip() for chunk in count_chunks([text], pattern)] == list(dict.fromkeys(words))
        assert bpe.count_chunks([text], pattern) == count_chunks([text], pattern)
    assert [*count_chunks(['x \u2764\ufe0f y'], SMALL_PATTERN)] == ['x', ' \u2764\ufe0f', ' y']
    tokenizer = Tokenizer.train([text] * 9, 256 + 64 + 120, processes=1)
    assert len(tokenizer.encode(text)) == len(words) and tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_of_an_older_folder_keeps_its_pattern(tmp_path):
    older = SMALL_PATTERN.replace(r'\p{M}', '')
    Tokenizer.train(['a हिन्दी b'] * 9, 400, pattern=older, processes=1).save(tmp_path / 'old.json')
    old = Tokenizer.load(tmp_path / 'old.json')
    assert old.pattern.startswith(older) and len(old.encode('हिन्दी')) >= 6    # cut at each mark


def test_half_a_megabyte_without_a_break_trains():
    text = ''.join(random.Random(0).choices('ACGT', k=500_000))
    counts = count_chunks([text, text])
    assert max(map(len, counts)) <= MAX_CHUNK and sum(len(c) * n for c, n in counts.items()) == 1_000_000


# --- training -----------------------------------------------------------------------------------------------
ALONE = '''import sys, tokenizer
tokenizer.Tokenizer.train(open('text', newline='').read(), 330).save('alone.json')
assert 'numpy' not in sys.modules and not any(name.startswith('parts') for name in sys.modules)'''


def test_a_file_that_was_copied_alone_trains_the_same(tmp_path):
    text = 'low lower lowest é\r\n\0'
    shutil.copy(ROOT / 'tokenizer.py', tmp_path)
    (tmp_path / 'text').write_bytes(text.encode())
    subprocess.run([sys.executable, '-c', ALONE], cwd=tmp_path, check=True,
                   env={**os.environ, 'PYTHONPATH': '', 'PYTHONUTF8': '1'})
    alone = Tokenizer.load(tmp_path / 'alone.json')
    assert alone.to_json() == Tokenizer.train(text, 330).to_json()


TRAIN = '''import pathlib, sys, tokenizer
texts = [path.read_text('utf-8') for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.py'))]
texts *= 2_500_000 // sum(map(len, texts)) + 1      # three batches for the workers
print(tokenizer.Tokenizer.train(texts, 512, processes=int(sys.argv[2])).hash)'''


def test_hash_seed_processes_and_the_order_of_documents_change_nothing(python_files, texts):
    hashes = [subprocess.check_output([sys.executable, '-c', TRAIN, python_files, processes], cwd=ROOT,
                                      env={**os.environ, 'PYTHONHASHSEED': seed}).strip()
              for seed, processes in (('0', '1'), ('random', '2'))]
    assert len(hashes[0]) == 16 and hashes[0] == hashes[1]
    shuffled = random.Random(0).sample(texts, len(texts))
    assert Tokenizer.train(shuffled, 1024).hash == Tokenizer.train(texts, 1024).hash


def test_the_vocabulary_has_the_size_asked_for_and_no_token_twice(texts):
    for vocab_size in (320, 1000):
        tokenizer = Tokenizer.train(texts[:30], vocab_size)
        assert tokenizer.vocab_size == len(set(tokenizer.vocab)) + len(SPECIAL_TOKENS) == vocab_size
        tokens = sum(map(len, tokenizer.encode_batch(texts[:30])))  # encode finds what training ended with
        assert tokenizer.bytes_per_token == sum(len(text.encode()) for text in texts[:30]) / tokens


def test_too_little_text_or_room_or_a_pattern_with_a_mistake_is_said(capsys):
    tokenizer = Tokenizer.train(['aaaa'], 1000, special_tokens=())
    assert tokenizer.vocab[256:] == [b'aa', b'aaaa']
    assert {'258,', '1,000'} <= set(capsys.readouterr().err.split())
    refused('no text', Tokenizer.train, [''], 999)
    refused('too small.*320', Tokenizer.train, ['a'], 319)
    for pattern in (r'(\w)+', r'\w*'):
        refused('pattern', Tokenizer.train, ['a few words'], 300, special_tokens=(), pattern=pattern)
    own = Tokenizer.train(['a few words'], 262, special_tokens=(), pattern=r'\w+')
    assert own.decode(own.encode('a few, 🦜')) == 'a few, 🦜'          # what a pattern forgets is not lost


# --- encoding -----------------------------------------------------------------------------------------------
TEXT = 'aaab abab aab baba abcabc bcabca aaaa é🦜é🦜 ' * 3
ONE_CHUNK = Tokenizer.train([TEXT], 256 + 60, special_tokens=(), pattern=r'[\s\S]+', processes=1)


def in_order(tokenizer, chunk):
    """Each merge in the order it was learned, all over the chunk, from left to right. (BPE as published.)"""
    pieces = [bytes([b]) for b in chunk.encode()]
    for token in tokenizer.vocab[256:]:
        i = 0
        while i + 1 < len(pieces):
            if pieces[i] + pieces[i + 1] == token:
                pieces[i:i + 2] = [token]
            i += 1
    return [tokenizer.vocab.index(piece) for piece in pieces]


@settings(max_examples=300)
@given(st.text('aabbcé🦜 ', min_size=1, max_size=40))
def test_the_lowest_id_first_is_every_merge_in_order(chunk):
    inside = {token: id for token, id in ONE_CHUNK.ranks.items() if id > 255 and token in chunk.encode()}
    asked = f'_merge_chunk({chunk!r}), where these of its parts are tokens: {inside or "none"}'
    expect(asked, in_order(ONE_CHUNK, chunk), ONE_CHUNK.encode, chunk)
