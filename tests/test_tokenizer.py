"""Ids and text: nothing is lost, nothing forged, tiktoken agrees, and the vocabulary suits Python."""
import json, pathlib, re, sysconfig

import pytest, tiktoken
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tokenizer import SAMPLE, SPECIAL_TOKENS, Tokenizer, from_printable, printable

BYTES = [bytes([b]) for b in range(256)]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"     # as OpenAI published it
fuzz = lambda n: settings(max_examples=n, deadline=None, derandomize=True, database=None)
assigned = st.text(st.characters(exclude_categories=['Cs', 'Cn']))      # what every version of Unicode knows
tricky = st.one_of(st.text(), st.text(' \n\r\t\x0b\x85\u3000._(")a1é🦜\0'), st.lists(st.sampled_from(
    [*SPECIAL_TOKENS[:6], '<|', '|>', 'a', ' '])).map(''.join))
needs = lambda name: pytest.mark.skipif(not (SHARED / name).exists(), reason=f'no {name} in {SHARED}')


@pytest.fixture(scope='module')
def stdlib():
    root = pathlib.Path(sysconfig.get_paths()['stdlib'])
    skip = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test'}
    paths = [path for path in sorted(root.rglob('*.py')) if not skip & set(path.relative_to(root).parts)]
    return [path.read_text('utf-8') for path in paths]


@pytest.fixture(scope='module')
def code(stdlib):
    return Tokenizer.train(stdlib, 8192)


@pytest.fixture(scope='module')
def gpt2():
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(SHARED / 'gpt2_vocab.bpe'), encoder_json_file=str(SHARED / 'gpt2_encoder.json'))
    return tiktoken.Encoding('reference', pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})


@fuzz(400)
@given(text=tricky)
def test_decoding_undoes_encoding(code, text):
    for tokenizer in (code, Tokenizer.byte()):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()
    assert Tokenizer.byte().encode(text) == list(text.encode())


@fuzz(200)
@given(text=st.text(st.one_of(st.characters(categories=['Cs']), st.sampled_from('a \n'))))
def test_lone_surrogates_become_the_replacement_character(code, text):
    whole = re.sub('[\ud800-\udbff][\udc00-\udfff]', 'x', text)         # pairs are no lone ones
    for tokenizer in (code, Tokenizer.byte()):
        assert tokenizer.decode(tokenizer.encode(whole)) == re.sub('[\ud800-\udfff]', '\ufffd', whole)
        assert tokenizer.encode_batch([whole]) == [tokenizer.encode(whole)]


@fuzz(200)
@given(data=st.binary())
def test_ids_of_arbitrary_bytes_decode(code, data):
    assert code.decode_bytes(list(data)) == data and code.decode(list(data)) == data.decode('utf-8', 'replace')


@fuzz(400)
@given(texts=st.lists(st.one_of(assigned, tricky.map(lambda text: ''.join(c for c in text if c.isascii())))))
def test_encode_is_tiktokens_and_the_batchs(code, texts):
    for tokenizer in (code, Tokenizer.byte()):
        expected = list(map(tokenizer.to_tiktoken().encode_ordinary, texts))
        assert list(map(tokenizer.encode, texts)) == expected == tokenizer.encode_batch(texts)


def test_encode_is_tiktokens_on_real_python(code, stdlib):
    texts = stdlib[::10]
    expected = list(map(code.to_tiktoken().encode_ordinary, texts))
    assert list(map(code.encode, texts)) == expected == code.encode_batch(texts)


def test_every_character_is_cut_as_tiktoken_cuts_it():
    """Tokens of a letter, a digit, a dot + half a character show where encode and tiktoken cut before it."""
    halves = [bytes([first, lead]) for first in b'a1.' for lead in range(0xC2, 0xF5)]
    tokenizer = Tokenizer('bpe', [*BYTES, *halves, b'\x80a'])
    reference = tokenizer.to_tiktoken()
    texts = [f'a{chr(i)}1{chr(i)}.{chr(i)}' for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    assert [t for t in [*texts, '\ud835\udc00a'] if tokenizer.encode(t) != reference.encode_ordinary(t)] == []


@pytest.mark.parametrize('text', [' ' * 1_000_000 + 'x', '\n' * 1_000_000, '.' * 1_000_000])
def test_a_megabyte_of_one_character_encodes(code, text):
    assert code.decode_bytes(code.encode_batch([text])[0]) == text.encode()
    assert code.decode(code.encode(text)) == text


@fuzz(200)
@given(text=st.lists(st.sampled_from([*SPECIAL_TOKENS, 'a', ' ', '\n', '<|'])).map(''.join))
def test_no_text_yields_a_special_id(code, text):
    for tokenizer in (code, Tokenizer.byte(SPECIAL_TOKENS), Tokenizer.char(''.join(SPECIAL_TOKENS) + 'a \n', ['a'])):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.special.values()) and tokenizer.encode_batch([text]) == [ids]
        assert tokenizer.decode(ids) == text


def test_ids_are_bytes_then_merges_then_specials(code):
    assert code.vocab[:256] == BYTES and code.vocab_size == 8192 == len(code.all_bytes)
    for i, token in enumerate(code.vocab[256:], 256):
        assert any(code.ranks.get(token[:k], i) < i > code.ranks.get(token[k:], i) for k in range(1, len(token)))
    assert code.special == {name: 8192 - 64 + i for i, name in enumerate(SPECIAL_TOKENS)}
    assert code.decode(code.special.values()) == ''.join(SPECIAL_TOKENS)
    for bad in ([-1], [8192], [0, 8192]):
        with pytest.raises(ValueError, match='8192'):
            code.decode(bad)


HOSTILE = Tokenizer.train(['"it\'s" \\ 🦜 a b'] * 3, 299, ['<|a b|>', '"\\', '🦜\n'], pattern=r'''[^ "'\\]+|["'\\]+| ''')


@pytest.mark.parametrize('tokenizer', [HOSTILE, Tokenizer.byte(['<|x|>']), Tokenizer.char('né🦜\n"\\\0\x85')])
def test_saving_and_loading_changes_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / 't.json')
    loaded = Tokenizer.load(tmp_path / 't.json')
    assert vars(loaded).keys() == vars(tokenizer).keys() and [path.name for path in tmp_path.iterdir()] == ['t.json']
    for name in ('kind', 'vocab', 'pattern', 'special', 'ranks', 'all_bytes', 'bytes_per_token', 'hash'):
        assert getattr(loaded, name) == getattr(tokenizer, name), name
    assert loaded.encode('né🦜\n"\\\0') == tokenizer.encode('né🦜\n"\\\0')


GOOD = json.dumps(HOSTILE.to_json())


@pytest.mark.parametrize('content', [
    GOOD[:-9], '', '[]', 'null', '{}', '\udcff', '{"model": {"type": "BPE", "vocab": {"a": 0}}}', '{"a": 0, "b": 1}',
    GOOD.replace('"bpe"', '"unigram"'), GOOD.replace('tokenizer-1', 'tokenizer-2'), GOOD.replace('[^', '[[^')])
def test_a_broken_or_foreign_file_is_a_value_error(content, tmp_path):
    (tmp_path / 'bad.json').write_bytes(content.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ValueError, match=r'bad\.json is not a tokenizer of ours'):
        Tokenizer.load(tmp_path / 'bad.json')


def test_the_hash_tells_tokenizers_apart():
    args = ('bpe', [*BYTES, b'ab', b'cd'], ['<|x|>', '<|y|>'], 'a+|.')
    changes = [(0, 'char'), (1, [*BYTES, b'cd', b'ab']), (1, [*BYTES, b'ab']), (2, ['<|y|>', '<|x|>']), (2, []), (3, '.')]
    hashes = [Tokenizer(*args[:i], new, *args[i + 1:]).hash for i, new in changes if new != 'char'] + [
        Tokenizer.char('ab').hash, Tokenizer.char('abc').hash, Tokenizer.byte().hash, Tokenizer(*args).hash]
    assert len(set(hashes)) == len(hashes) == 9
    assert Tokenizer(*args, bytes_per_token=3.5).hash == Tokenizer(*args).hash      # a remark, not identity


@needs('tinyshakespeare.txt')
def test_the_characters_of_tiny_shakespeare():
    text = (SHARED / 'tinyshakespeare.txt').read_text('utf-8')
    tokenizer = Tokenizer.char(text)
    assert tokenizer.vocab_size == 65 and tokenizer.decode(range(65)) == ''.join(sorted(set(text)))
    assert len(tokenizer.encode('ROMEO:')) == 6 and tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize('known, text, words', [('RO', 'RO€', "'€' at position 2"), ('a\ufffd', 'a\ud800', 'position 1')])
def test_an_unknown_character_is_named_with_its_position(known, text, words):
    with pytest.raises(ValueError, match=words):
        Tokenizer.char(known).encode(text)


def test_bytes_are_printed_as_gpt2_prints_them():
    assert {b: printable([b]) for b in range(256)} == bytes_to_unicode() and printable(b' a\n') == '\u0120a\u010a'
    assert from_printable(printable(bytes(range(256)))) == bytes(range(256))
    assert len(Tokenizer.byte().encode('ROMEO:')) == 6 and Tokenizer.byte().vocab_size == 256


@needs('gpt2_vocab.bpe')
def test_gpt2s_vocabulary_encodes_as_gpt2(gpt2, stdlib):
    tokenizer = Tokenizer.gpt2(SHARED)
    assert tokenizer.vocab_size == 50304 and tokenizer.special['<|endoftext|>'] == 50256
    assert tokenizer.encode('ROMEO:') == [33676, 4720, 25] and len(tokenizer.encode(SAMPLE)) == 22
    assert SAMPLE == 'def say_hello():\n    print("Hello, World!")\nsay_hello()\n'
    for text in [*stdlib[::50], ' \n\n  \t x  \n', "I'll we've 'S don''t", '🦜 naïve 你好 ½ Ⅷ\u3000x']:
        assert tokenizer.encode(text) == gpt2.encode_ordinary(text) == tokenizer.encode_batch([text])[0]


def test_keywords_and_indents_are_single_tokens(code):
    words = [lead + word for word in ('def', 'print', 'self', 'return', 'class', 'import') for lead in ('', ' ')]
    indents = [lead + ' ' * n for n in (4, 8, 12) for lead in ('', '\n')]
    assert {text: len(code.encode(text)) for text in words + indents} == dict.fromkeys(words + indents, 1)


@needs('gpt2_vocab.bpe')
def test_held_out_python_takes_half_the_tokens_of_gpt2(gpt2, stdlib):
    held_out = stdlib[::10]
    tokenizer = Tokenizer.train([text for i, text in enumerate(stdlib) if i % 10], 16384)
    ours, theirs = (sum(map(len, ids)) for ids in (tokenizer.encode_batch(held_out),
                                                   gpt2.encode_ordinary_batch(held_out)))
    print(theirs / ours)
    assert theirs / ours >= 1.9
