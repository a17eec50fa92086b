"""Ids and text: nothing is lost, nothing forged, tiktoken agrees, and the vocabulary suits Python."""
import json, pathlib, re, sysconfig

import pytest, tiktoken
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tokenizer import SAMPLE, SPECIAL_TOKENS, Tokenizer, from_printable, printable

BYTES = [bytes([b]) for b in range(256)]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"     # as OpenAI wrote it
fuzz = settings(max_examples=300, deadline=None, derandomize=True, database=None)
hostile = st.lists(st.sampled_from([*SPECIAL_TOKENS, *'<| \n\r\ta1._"é🦜\0\x85\u3000'])).map(''.join)
assigned = st.text(st.characters(exclude_categories=['Cs', 'Cn']))      # what every version of Unicode knows
needs = lambda name: pytest.mark.skipif(not (SHARED / name).exists(), reason=f'{SHARED} has no {name}')


@pytest.fixture(scope='module')
def stdlib():
    root = pathlib.Path(sysconfig.get_paths()['stdlib'])
    skip = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test'}
    return [path.read_text('utf-8') for path in sorted(root.rglob('*.py'))
            if not skip & set(path.relative_to(root).parts)]


@pytest.fixture(scope='module')
def code(stdlib):
    return Tokenizer.train(stdlib, 8192)


@pytest.fixture(scope='module')
def gpt2():
    files = {'vocab_bpe_file': 'gpt2_vocab.bpe', 'encoder_json_file': 'gpt2_encoder.json'}
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(**{k: str(SHARED / name) for k, name in files.items()})
    return tiktoken.Encoding('reference', pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})


@fuzz
@given(text=st.text() | hostile)
def test_decoding_undoes_encoding_and_no_text_yields_a_special_id(code, text):
    for tokenizer in (code, Tokenizer.byte(SPECIAL_TOKENS), Tokenizer.char(text, SPECIAL_TOKENS)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and tokenizer.decode_bytes(ids) == text.encode()
        assert not {*ids, *tokenizer.encode_batch([text])[0]} & set(tokenizer.special.values())
    assert Tokenizer.byte().encode(text) == list(text.encode())


@fuzz
@given(text=st.text(st.characters(categories=['Cs']) | st.sampled_from('a \n')))
def test_lone_surrogates_become_the_replacement_character(code, text):
    text = re.sub('[\ud800-\udbff][\udc00-\udfff]', '', text)       # these are not lone
    for tokenizer in (code, Tokenizer.byte()):
        if not re.search('[\ud800-\udbff][\udc00-\udfff]', text):
            assert tokenizer.decode(tokenizer.encode(text)) == re.sub('[\ud800-\udfff]', '\ufffd', text)
            assert tokenizer.encode_batch([text]) == [tokenizer.encode(text)]


@fuzz
@given(data=st.binary())
def test_any_bytes_decode(code, data):
    assert code.decode_bytes(list(data)) == data and code.decode(list(data)) == data.decode('utf-8', 'replace')


@fuzz
@given(texts=st.lists(assigned | hostile))
def test_encode_is_tiktokens_and_the_batchs(code, texts):
    for tokenizer in (code, Tokenizer.byte()):
        expected = list(map(tokenizer.to_tiktoken().encode_ordinary, texts))
        assert list(map(tokenizer.encode, texts)) == expected == tokenizer.encode_batch(texts)


def test_encode_is_tiktokens_on_real_python(code, stdlib):
    expected = list(map(code.to_tiktoken().encode_ordinary, stdlib[::10]))
    assert list(map(code.encode, stdlib[::10])) == expected == code.encode_batch(stdlib[::10])


def test_every_character_is_cut_as_tiktoken_cuts_it():
    """Tokens of a letter or digit + a character's first byte show whether the two were cut apart."""
    tokenizer = Tokenizer('bpe', [*BYTES, *(bytes([first, lead]) for first in b'a1' for lead in range(192, 256))])
    reference = tokenizer.to_tiktoken()
    code_points = [*range(0xD800), *range(0xE000, 0x11000), *range(0x11000, 0x110000, 7)]
    texts = ['a' + c + '1' + c for c in map(chr, code_points)]
    assert [text for text in texts if tokenizer.encode(text) != reference.encode_ordinary(text)] == []
    pair = Tokenizer('bpe', [*BYTES, b'\x80a'])         # U+1D400, a letter, as a str of two surrogates
    assert pair.encode('\ud835\udc00a') == pair.to_tiktoken().encode_ordinary('\ud835\udc00a')


def test_a_megabyte_of_one_character_encodes(code):
    for text in ('.' * 1_000_000, '\n' * 1_000_000, ' ' * 1_000_000 + 'x'):
        assert code.decode(code.encode(text)) == text
        assert code.decode(code.encode_batch([text])[0]) == text


def test_ids_are_bytes_then_merges_then_specials(code):
    assert code.vocab[:256] == BYTES and code.vocab_size == 8192 == len(code.all_bytes)
    for i, new in enumerate(code.vocab[256:], 256):
        assert any(max(code.ranks.get(part, i) for part in (new[:k], new[k:])) < i for k in range(1, len(new)))
    assert code.special == {name: 8192 - 64 + i for i, name in enumerate(SPECIAL_TOKENS)}
    assert code.decode(code.special.values()) == ''.join(SPECIAL_TOKENS)
    for bad in ([-1], [0, 8192]):
        with pytest.raises(ValueError, match='8192'):
            code.decode(bad)


ODD = Tokenizer.train(['"it\'s" \\ 🦜 a b'] * 3, 299, ['<|a b|>', '"\\', '🦜\n'], pattern=r'''[^ "'\\]+|["'\\]+| ''')
GOOD = json.dumps(ODD.to_json())


@pytest.mark.parametrize('tokenizer', [ODD, Tokenizer.byte(['<|x|>']), Tokenizer.char('né🦜\n"\\\0\x85')])
def test_saving_and_loading_changes_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / 't.json')
    loaded = Tokenizer.load(tmp_path / 't.json')
    assert [path.name for path in tmp_path.iterdir()] == ['t.json'] and loaded.hash == tokenizer.hash
    for name in ('kind', 'vocab', 'pattern', 'special', 'ranks', 'all_bytes', 'bytes_per_token', 'vocab_size'):
        assert getattr(loaded, name) == getattr(tokenizer, name), name
    assert loaded.encode('né🦜\n"\\\0') == tokenizer.encode('né🦜\n"\\\0')


@pytest.mark.parametrize('content', [
    GOOD[:-9], '', '[]', 'null', '{}', '\udcff', '{"model": {"type": "BPE", "vocab": {"a": 0}}}', '{"a": 0}',
    GOOD.replace('"bpe"', '"unigram"'), GOOD.replace('tokenizer-1', 'other-2'), GOOD.replace('[^ ', '([^ ')])
def test_a_broken_or_foreign_file_is_a_value_error(content, tmp_path):
    (tmp_path / 'bad.json').write_bytes(content.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ValueError, match=r'bad\.json is not a tokenizer of ours'):
        Tokenizer.load(tmp_path / 'bad.json')


def test_the_hash_tells_tokenizers_apart():
    args, ab, cd = {'kind': 'bpe', 'special_tokens': 'xy', 'pattern': 'a+|.'}, [*BYTES, b'ab'], [*BYTES, b'cd']
    variants = [Tokenizer(**args | new) for new in (
        {'vocab': ab}, {'vocab': cd}, {'vocab': [*ab, b'cd']}, {'vocab': [*cd, b'ab']}, {'vocab': BYTES},
        {'vocab': ab, 'special_tokens': 'yx'}, {'vocab': ab, 'special_tokens': 'x'}, {'vocab': ab, 'pattern': '.'})]
    assert len({t.hash for t in [*variants, Tokenizer.char('ab'), Tokenizer.char('abc'), Tokenizer.byte()]}) == 11
    assert Tokenizer(**args, vocab=ab, bytes_per_token=3.5).hash == variants[0].hash    # a remark, not identity


@pytest.mark.parametrize('known, text, words', [
    ('RO', 'RO€', "'€' at position 2"), ('a\ufffd', 'a\ud800', 'position 1')])
def test_an_unknown_character_is_named_with_its_position(known, text, words):
    with pytest.raises(ValueError, match=words):
        Tokenizer.char(known).encode(text)


@needs('tinyshakespeare.txt')
def test_the_characters_of_tiny_shakespeare():
    text = (SHARED / 'tinyshakespeare.txt').read_text('utf-8')
    tokenizer = Tokenizer.char(text)
    assert tokenizer.vocab_size == 65 and tokenizer.decode(range(65)) == ''.join(sorted(set(text)))
    assert len(tokenizer.encode('ROMEO:')) == 6 and tokenizer.decode(tokenizer.encode(text)) == text


def test_bytes_are_printed_as_gpt2_prints_them():
    assert {b: printable([b]) for b in range(256)} == bytes_to_unicode() and printable(b' \n') == '\u0120\u010a'
    assert from_printable(printable(bytes(range(256)))) == bytes(range(256))
    assert len(Tokenizer.byte().encode('ROMEO:')) == 6 and Tokenizer.byte().vocab_size == 256


@needs('gpt2_vocab.bpe')
def test_gpt2s_vocabulary_encodes_as_gpt2(gpt2, stdlib):
    tokenizer = Tokenizer.gpt2(SHARED)
    assert tokenizer.vocab_size == 50304 and tokenizer.special['<|endoftext|>'] == 50256
    assert SAMPLE == 'def say_hello():\n    print("Hello, World!")\nsay_hello()\n'
    assert len(tokenizer.encode(SAMPLE)) == 22 and len(tokenizer.encode('ROMEO:')) == 3
    for text in [*stdlib[::50], ' \n\n  \t x  \n', "I'll we've 'S don''t", '🦜 naïve 你好 ½ Ⅷ\u3000x']:
        assert tokenizer.encode(text) == gpt2.encode_ordinary(text) == tokenizer.encode_batch([text])[0]


def test_keywords_and_indents_are_single_tokens(code):
    words = [lead + word for word in ('def', 'print', 'self', 'return', 'class', 'import') for lead in ('', ' ')]
    texts = words + [lead + ' ' * n for n in (4, 8, 12) for lead in ('', '\n')]
    assert [text for text in texts if len(code.encode(text)) != 1] == []


@needs('gpt2_vocab.bpe')
def test_gpt2_needs_twice_the_tokens_for_held_out_python(gpt2, stdlib):
    tokenizer = Tokenizer.train([text for i, text in enumerate(stdlib) if i % 10], 16384)
    ours, theirs = tokenizer.encode_batch(stdlib[::10]), gpt2.encode_ordinary_batch(stdlib[::10])
    print(sum(map(len, theirs)) / sum(map(len, ours)))
    assert sum(map(len, theirs)) >= 1.9 * sum(map(len, ours))
