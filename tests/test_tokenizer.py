"""Merges, ids and chats are those of naive programs, of tiktoken and of Hugging Face, whatever the
order of the texts and the hash seed. Nothing is lost or forged. The report and the command."""
import functools
import gzip
import hashlib
import itertools
import json
import random
import re
import shutil
import time
import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken
import tiktoken.load
from conftest import each_is_a_mistake, fill, mistake, ok, refused, run, shared, shared_fixture
from hypothesis import example, given, settings, strategies as st
from test_streaming import TRAPPING, chats, say

from extras.models import hf_model
from extras.training import tokenizer_report
from extras.models.hf_tokenizer import HFTokenizer
from model import GPT, GPTConfig
from tokenizer import (PATTERN, SMALL_PATTERN, SPECIAL_TOKENS, Tokenizer, count_chunks, encode_chunk,
                       learn_merges, learn_merges_slowly)

BYTES = [bytes([b]) for b in range(256)]
# as OpenAI wrote it
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ODD = Tokenizer.train(['"it\'s" \\ 🦜'] * 3, 269, ['<|a b|>', '"\\', '🦜\n'],
                      r'''[^ "'\\]+|["'\\]+| ''')
hostile = st.lists(st.sampled_from([*SPECIAL_TOKENS, *'<| \n\r\ta1._"é🦜\0\x85\u3000']))
hostile = hostile.map(''.join)


@shared_fixture
def texts(python_files):
    return [path.read_text('utf-8') for path in sorted(python_files.rglob('*.py'))]


@shared_fixture
def code(texts):
    return Tokenizer.train(texts, 2048)


# --- merges ---------------------------------------------------------------------------------------
def test_golden_low_lower_lowest():
    merges = [(108, 111), (256, 119), (257, 101)]           # l+o and o+w tie: smaller ids first
    for learn in learn_merges, learn_merges_slowly:
        assert learn([b'low', b'lower', b'lowest'], [1, 1, 1], 3) == (merges, 6)


# few symbols: ties, runs and overlaps abound; large counts lose no bit
counts = st.integers(1, 3) | st.integers(2 ** 54, 2 ** 54 + 3)
few_symbols = st.sampled_from(['a', 'ab', 'abc', 'ab \n\0', 'aé🦜', 'abcdefghijkl']).flatmap(
    lambda few: st.dictionaries(st.text(few, min_size=1, max_size=16), counts, min_size=1))


@settings(max_examples=120)
@given(few_symbols)
def test_the_merges_are_those_of_the_naive_loop(words):
    """Until no pair is left, or before."""
    corpus = [word.encode() for word in words], [*words.values()]
    for n_merges in 9, 10 ** 6:
        assert learn_merges(*corpus, n_merges) == learn_merges_slowly(*corpus, n_merges)


# --- chunks ---------------------------------------------------------------------------------------
MARKED = 'हिन्दी தமிழ் ภาษาไทย ที่นี่ తెలుగు বাংলা مُحَمَّد שָׁלוֹם cafe\u0301 n\u0303andu\u0301'


JOINED = 'می\u200cخواهم خانه\u200cها क्\u200dष ශ්\u200dරී ni\u200c\u200cx ه\u200d'


def test_marks_and_joiners_are_parts_of_their_word_and_emoji_stay_together():
    """Vowels and accents follow their letter as characters of their own; a joiner is between
    letters, or at the end of a word, where it gives a letter its form."""
    for size, pattern in (16_383, SMALL_PATTERN), (16_384, PATTERN):
        assert Tokenizer.train(['f(name)'], size).pattern == pattern
        for words in MARKED, JOINED:
            assert [chunk.strip() for chunk in count_chunks([words], pattern)] == words.split()
        families = ' 👨\u200d👩\u200d👧', ' 🏳\u200d🌈', ' \u200d', ' a', ' -', '\u200c-'
        assert [*count_chunks([''.join(families)], pattern)] == [*families[:4], ' -\u200c-']
    word = Tokenizer.train([f'{JOINED.split()[0]} '] * 9, 300, ())
    assert JOINED.split()[0].encode() in word.vocab


def test_a_chunk_of_half_a_million_letters_is_learned_in_seconds():
    """DNA has no spaces. A loop over the pairs of a chunk would take hours."""
    dna = ''.join(random.Random(0).choices('ACGT', k=500_000))
    assert [*count_chunks([dna])] == [dna]
    began = time.process_time()
    tokenizer = Tokenizer.train([dna], 400, ())
    assert time.process_time() - began < 20 and tokenizer.vocab_size == 400


# --- training -------------------------------------------------------------------------------------
def test_the_order_of_documents_changes_nothing(texts, code):
    """Other hash seeds: test_a_tokenizer_json_is_the_same_to_the_last_byte_as_ever."""
    assert Tokenizer.train(texts[::-1], 2048).hash == code.hash
    assert len({*code.vocab}) + len(SPECIAL_TOKENS) == 2048


def test_too_little_text_or_room_or_a_pattern_with_a_mistake_is_said(capsys):
    assert Tokenizer.train(['aaaa'], 1000, ()).vocab[256:] == [b'aa', b'aaaa']
    assert '258' in capsys.readouterr().out
    refused('no text', Tokenizer.train, [''], 999)
    refused('too small', Tokenizer.train, ['a'], 255)
    refused('pattern', Tokenizer.train, ['a few words'], 900, pattern=r'(\w)+')
    own = Tokenizer.train(['a few words'], 262, (), r'\w+')
    assert own.decode(own.encode('a few, 🦜')) == 'a few, 🦜'      # what a pattern forgets stays
    refused("'€' at position 2", Tokenizer.char('RO').encode, 'RO€')


# --- encoding -------------------------------------------------------------------------------------
ONE_CHUNK = Tokenizer.train(['aaab abab aab baba abcabc bcabca aaaa ' * 3], 256 + 40, (), r'[\s\S]+')


def test_the_lowest_id_first_gives_the_ids_of_tiktoken():
    for chunk in map(''.join, itertools.product('abc ', repeat=6)):
        inside = {token: id for token, id in ONE_CHUNK.ranks.items() if id > 255 and token in chunk.encode()}
        assert encode_chunk(chunk, ONE_CHUNK.ranks) == ONE_CHUNK.encode(chunk), f'{chunk!r} with ranks {inside}'


# Cn: characters that are not assigned (yet)
@given(text=st.text(st.characters(exclude_categories=['Cn'])) | hostile)
@example(text='a\ud800 \udc00\ud83e\udd9c')
def test_decoding_undoes_encoding_and_no_text_yields_a_special_id(code, text):
    """Half a character becomes U+FFFD. By hand, chunk by chunk, the ids are the same."""
    whole = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    for tokenizer in code, Tokenizer.byte(SPECIAL_TOKENS), Tokenizer.char(whole, SPECIAL_TOKENS):
        ids = tokenizer.encode(whole)
        assert tokenizer.decode(ids) == whole and tokenizer.decode_bytes(ids) == whole.encode()
        assert tokenizer.encode_batch([whole] * 2) == [ids] * 2
        assert not {*ids} & {*tokenizer.special.values()}
    chunks = regex.findall(code.pattern, whole)
    assert code.encode(text) == sum([encode_chunk(chunk, code.ranks) for chunk in chunks], [])


def test_ids_are_bytes_then_merges_then_specials(code):
    assert code.vocab[:256] == BYTES and len(code.all_bytes) == 2048
    assert code.special == {name: 1984 + i for i, name in enumerate(SPECIAL_TOKENS)}
    assert code.decode(b'\xc3\xa9\xff') == 'é\ufffd'           # ids are a model's: any bytes
    refused('0 to 2048', code.decode, [0, 2048])
    for_prompts = {*range(1984, 2050)} - {*code.stop}
    assert len(code.stop) == 2 and code.suppressed_tokens(2050) == sorted(for_prompts)


def test_gpt2s_vocabulary_encodes_as_gpt2(texts):
    vocab, encoder = (str(shared(f'gpt2_{name}')) for name in ('vocab.bpe', 'encoder.json'))
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(vocab, encoder)
    gpt2 = tiktoken.Encoding('reference', pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    fill({'vocab.bpe': '{}'})
    refused('Hash mismatch|No such file', tokenizer_report.tokenizer_of_gpt2, str(Path.cwd()))
    shutil.copy(vocab, 'vocab.bpe')
    shutil.copy(encoder, 'encoder.json')
    tokenizer = tokenizer_report.tokenizer_of_gpt2('.')
    assert tokenizer.vocab_size == 50304 and tokenizer.special['<|endoftext|>'] == 50256
    for text in [*texts[::20], ' \n\n  \t x  \n', "I'll 'S", 'naïve 你好 ½ Ⅷ\u3000x']:
        assert tokenizer.encode(text) == gpt2.encode_ordinary(text)


# --- chats ----------------------------------------------------------------------------------------
@given(chats)
def test_only_the_assistants_words_and_their_end_are_trained(messages):
    for tokenizer in (TRAPPING, Tokenizer.byte(SPECIAL_TOKENS)):
        start, end = tokenizer.special['<|im_start|>'], tokenizer.special['<|im_end|>']
        expected_ids, expected_mask = [], []
        for message in messages:
            content = tokenizer.encode(message['content'])
            head = [start, *tokenizer.encode(message['role'] + '\n')]
            expected_ids += [*head, *content, end, 10]
            trained = int(message['role'] == 'assistant')
            expected_mask += [0] * len(head) + [trained] * (len(content) + 1) + [0]
        ids, mask = tokenizer.render(messages)
        assert ids == expected_ids
        assert mask == expected_mask, f'{ids=}'
        # what a chat with the next answer begins with
        head = [start, *tokenizer.encode('assistant\n')]
        assert tokenizer.render(messages, True) == (ids + head, mask + [0] * len(head))


def test_a_bad_message_or_a_tokenizer_without_the_special_tokens_is_a_value_error():
    for message in say('human', 'hi'), say('user', 7), 'hi':
        with pytest.raises(ValueError, match='role'):
            TRAPPING.render([say('user', 'hi'), message])
    refused('<|im_end|>', Tokenizer.byte(['<|im_start|>']).render, [say('user', 'hi')])


# --- files ----------------------------------------------------------------------------------------
def test_saving_and_loading_changes_nothing_and_the_hash_tells_tokenizers_apart():
    for tokenizer in ODD, Tokenizer.char('né🦜\n"\\\0\x85'):
        tokenizer.save('t.json')
        again = Tokenizer.load('t.json')
        assert again.to_json() == tokenizer.to_json() and again.hash == tokenizer.hash
    hash_of = lambda *special, **more: Tokenizer('bpe', BYTES, special, **more).hash
    assert len({hash_of(), hash_of('x', 'y'), hash_of('y', 'x'), hash_of(pattern='.')}) == 4


def test_a_broken_or_foreign_file_is_a_value_error():
    good = json.dumps(ODD.to_json())
    refused('no such file', Tokenizer.load, 'bad.json')
    damaged = '{"added_tokens": [], "model": {}}'           # as if it were Hugging Face's
    later = good.replace('nanoparrot-tokenizer-1', 'nanoparrot-tokenizer-2')
    for content in good[:-9], '[' * 100_000, good.replace('"bpe"', '"unigram"'), damaged, later:
        fill({'bad.json': content})
        refused(r'bad\.json is not a tokenizer', Tokenizer.load, 'bad.json')


# --- the command ----------------------------------------------------------------------------------
CODE = 'def mean(values):\n    return sum(values) / len(values)\n'
FLAGS = '''
--input=gone => gone does not exist
--input=c --out=c => can't write to c & directory & choose another --out
--input=c --out=c/b.jsonl/t.json => can't write to c/b.jsonl/t.json & choose another --out
--input=c --out=/proc/t.json => can't write to /proc/t.json
--input=c/b.jsonl => no text to train
--input=empty.txt => no text to train
--input=none => no text at none
--input=c --vocab_size=300 => vocab_size'''


def test_a_tokenizer_json_is_the_same_to_the_last_byte_as_ever():
    """A file decides about all tokens of a run. Text, lines of JSON, packed lines, ties; what is
    no text and what is hidden does not count."""
    random_words = random.Random(0).choices(['ab', 'ba', 'cd', 'dc', 'f(x)', 'é🦜', '漢字\n'], k=900)
    lines = b'{"text": "a\\u2028b \\u00e9"}\n\n{"text": "\xf0\x9f\xa6\x9c 12345", "n": 1}\n'
    fill({
        'a.md': ' '.join(random_words), 'b.txt': '\ufeffab ba\r\n', 'sub/c.jsonl': lines,
        'd.jsonl.gz': gzip.compress(lines), 'e.png': b'\x89P', '.hidden.txt': 'zzzz ' * 900}, 'text')
    said = ok(run('tokenizer.py --input=text --vocab_size=330 --out=t.json'))
    digest = hashlib.sha256(Path('t.json').read_bytes()).hexdigest()
    assert digest[:16] == '413b66a3daf57bd0' and '.png: 1' in said
    assert re.search(r'330 tokens, [\d.]+ bytes/token, \w{16}', said)


def test_the_command_counts_and_names_what_it_leaves_out_and_names_mistakes():
    """As clean.py and prepare.py do: of each reason the first place."""
    cut = gzip.compress(random.Random(0).randbytes(9000))[:-900]
    fill({'c/b.jsonl': '{"title": "no text"}\n' * 3, 'c/cut.txt.gz': cut, 'empty.txt': '',
                    'c/list.jsonl': '[1, 2]', 'c/latin.txt': b'caf\xe9 ' * 9, 'none/.hidden': ''})
    result = run('tokenizer.py --input=c')
    mistake(result, 'no text to train')
    for file in 'b.jsonl:1', 'cut.txt.gz', 'list.jsonl:1', 'latin.txt':
        assert f', first c/{file}' in result.stdout and 'b.jsonl:2' not in result.stdout
    fill({'c/good.txt': b'a few words ' * 99 + b'\xff', 'c/joined.txt': 'a <|endoftext|> b'})
    said = ok(run('tokenizer.py --input=c --vocab_size=330'))
    assert re.search('skipped or changed: skipped: .*no text in a usual field: .* clean.py .*: 3,.* not UTF-8.*: 1', said), said
    assert 'undecodable bytes, first c/good.txt\n' in said and 'plain text, first c/joined.txt\n' in said
    assert ', undecodable bytes: 1, ' in said and ', <|endoftext|> to plain text: 1, ' in said
    each_is_a_mistake(FLAGS, 'tokenizer.py')


def test_the_report_next_to_others_says_what_fits_without_a_network(tmp_path):
    fill({f'c/{i}.py': f'# {i}\n' + CODE * (i + 1) for i in range(20)})
    env = {'HTTPS_PROXY': 'http://127.0.0.1:9', 'TIKTOKEN_CACHE_DIR': str(tmp_path)}
    command = functools.partial(run, 'extras.training.tokenizer_report', env=env)
    code = Tokenizer.train([CODE], 330)
    code.save('code.json')
    out = ok(command('--input=c --load=code.json --against=code.json,cl100k_base'))
    n = sum(len(code.encode(path.read_text())) for path in Path('c').glob('*.py'))
    assert len(re.findall(rf'^(?:this|code).* {n:,}$', out, re.M)) == 2 and '\n.py ' in out, out
    assert "cl100k_base's vocabulary could not be read" in out
    # without --load it trains on nine tenths, and reports on the others
    assert 'files: 2,' in ok(command('--input=c --vocab_size=340 --against=none'))
    assert "gpt3's vocabulary could not be read" in ok(command('--input=c --load=code.json --against=gpt3'))
    each_is_a_mistake('--input=c --load=gone.json => gone.json\n--input=gone => gone\n=> --input=PATH', command)


# --- Hugging Face's: theirs as ours ---------------------------------------------------------------
# Qwen2's, as published: contractions, words, single digits, signs, newlines, blanks
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")


@shared_fixture
def theirs():
    """With a pattern of their own; special tokens follow. <tool_call> is added, but not special."""
    import tokenizers
    p, hf = tokenizers.pre_tokenizers, tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.normalizer = tokenizers.normalizers.NFC()
    hf.pre_tokenizer = p.Sequence([p.Split(tokenizers.Regex(QWEN), 'isolated'),
                                   p.ByteLevel(False, use_regex=False)])
    hf.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330,
                                             initial_alphabet=p.ByteLevel.alphabet())
    hf.train_from_iterator([CODE, 'naïve café 1234567 漢字', "it's"] * 5, trainer)
    hf.add_special_tokens(['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|object_ref_start|>'])
    hf.add_tokens(['<tool_call>'])
    hf.encode_special_tokens = True             # '<|im_end|>' in a text is ten characters
    return hf


@given(text=st.text(max_size=60))
# nobody who types special tokens forges them
@example(text="12345 don't  \r\n\n x<|im_end|> é <|endoftext|>")
def test_ids_of_their_tokenizers_are_theirs_and_come_back_as_the_text(theirs, text):
    text = text.encode('utf-8', 'replace').decode()
    ours = HFTokenizer(theirs.to_str())
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    want = unicodedata.normalize('NFC', text).encode()                  # their own normalizer
    assert ours.decode_bytes(ids) == want
    assert sum(ours.text_bytes[i] for i in ids) == len(want)


# --- ours as theirs -------------------------------------------------------------------------------
SOURCE = open(__file__).read()
PIECES = [*"'s 'LL 12345 _x é 漢字 🙂 ﬁ ſ İ ا e\u0301 ३ Ⅷ <|endoftext|> <|im_end|>".split(),
          *' \t\n\r\0\x1c\x85\xa0\u2003\u2028\ufeff', *re.findall('.{9}', SOURCE[:9000])]


def test_exported_tokenizers_have_our_ids_and_come_back(tmp_path):
    import transformers
    dice = random.Random(0)
    texts = [''.join(dice.choices(PIECES, k=i % 20 + 1)) for i in range(500)]
    for ours in Tokenizer.byte(SPECIAL_TOKENS), Tokenizer.train([SOURCE, ''.join(PIECES) * 9], 800):
        there = tmp_path / f'{ours.vocab_size}'
        model = GPT(GPTConfig(ours.vocab_size, 64, 1, 2, 0, 16))
        hf_model.write(there, *hf_model.translated(model), ours)
        back = Tokenizer.load(there / 'tokenizer.json')
        assert (back.special, back.all_bytes, back.stop) == (ours.special, ours.all_bytes, ours.stop)
        theirs = transformers.AutoTokenizer.from_pretrained(there)
        theirs.backend_tokenizer.encode_special_tokens = True
        for text, expected in zip(texts, ours.encode_batch(texts)):
            assert theirs.backend_tokenizer.encode(text).ids == ours.begin + expected
            assert theirs.decode(expected) == text and back.encode(text) == expected
            assert sum(back.text_bytes[id] for id in expected) == len(text.encode())
    file = (there / 'tokenizer.json').read_text()
    refused('add_prefix_space', HFTokenizer, file.replace('prefix_space": false', 'prefix_space": true'))
