"""python tokenizer.py trains and reports with figures that can be recomputed, and mistakes are one line."""
import re

import pytest
import regex
from conftest import SHARED, mistake, ok, run
from transformers.convert_slow_tokenizer import bytes_to_unicode

from parts.prepare.reading import join_pieces
from parts.sample import gguf_file
from parts.tokenizer import known_vocabularies
from tokenizer import Tokenizer, from_printable, printable

OFFLINE = {'HTTPS_PROXY': 'http://127.0.0.1:9', 'HTTP_PROXY': 'http://127.0.0.1:9', 'NO_PROXY': ''}


@pytest.fixture(scope='module')
def trained(python_files, tmp_path_factory):
    """A folder with a tokenizer.json trained by the command and texts to report on; what was printed."""
    folder = tmp_path_factory.mktemp('cli')
    said = ok(run('tokenizer.py', f'--input={python_files}', '--vocab_size=600', cwd=folder))
    for name in ('text', 'empty'):
        (folder / name).mkdir()
    (folder / 'text' / 'a.md').write_text('zyxwvut zyxwvut zyxwvut, naïve 🦜 import\n' * 5, encoding='utf-8')
    (folder / 'text' / 'b.py').write_text('def self():\n    return None\n', encoding='utf-8')
    (folder / 'text' / 'c.bin').write_bytes(b'not text')
    return folder, said


def report(folder, *arguments):
    """[(vocabulary, size, bytes/token, tokens/file, tokens)] of the table, and all that was printed"""
    out = ok(run('tokenizer.py', '--load=tokenizer.json', *arguments, cwd=folder, env={
        **OFFLINE, 'TIKTOKEN_CACHE_DIR': str(folder / 'empty')}))
    rows = re.findall(r'^ *(this|gpt2|cl100k_base) +([\d,]+) +([\d.]+) +([\d,]+) +([\d,]+)$', out, re.M)
    return [(name, *(float(x.replace(',', '')) for x in numbers)) for name, *numbers in rows], out


def test_training_writes_what_the_library_trains(trained, python_files):
    folder, said = trained
    texts = [path.read_bytes().decode() for path in python_files.rglob('*.py')]
    tokenizer = Tokenizer.train(texts, 600)
    assert Tokenizer.load(folder / 'tokenizer.json').to_json() == tokenizer.to_json()
    for words in ('tokenizer.json', '600 tokens', f'{tokenizer.bytes_per_token:.2f} bytes', tokenizer.hash):
        assert words in said


def test_a_pattern_of_llama_cpp_is_trained_by_name(trained, python_files):
    folder, _ = trained
    ok(run('tokenizer.py', f'--input={python_files}/asyncio', '--vocab_size=500', '--pattern=cl100k',
           '--out=cl100k.json', cwd=folder))
    texts = [path.read_bytes().decode() for path in (python_files / 'asyncio').rglob('*.py')]
    found = Tokenizer.load(folder / 'cl100k.json')
    assert found.to_json() == Tokenizer.train(texts, 500, pattern=gguf_file.PATTERNS['cl100k']).to_json()
    cut = lambda text: regex.findall(found.pattern, text)
    assert cut("f(x):\n    don't 1234") == ['f', '(x', '):\n', '   ', ' don', "'t", ' ', '123', '4']
    assert found.decode(found.encode('\x00 ſ 漢字\n\n')) == '\x00 ſ 漢字\n\n'
    wrong = run('tokenizer.py', f'--input={python_files}', '--pattern=mine', cwd=folder)
    assert wrong.returncode == 2 and 'cl100k' in wrong.stderr and 'Traceback' not in wrong.stderr


def test_the_patterns_to_train_with_are_those_that_a_gguf_file_can_name():
    assert known_vocabularies.SPLIT_PATTERNS == gguf_file.PATTERNS


def test_the_pieces_of_a_long_text_are_one_document():
    docs = [{'path': path, 'texts': [text]} for path, text in [('a', '1'), ('a', '2'), ('b', '3')]]
    assert list(join_pieces(docs)) == [{'path': 'a', 'texts': ['12']}, {'path': 'b', 'texts': ['3']}]


def test_the_report_without_network_says_so_and_counts_right(trained):
    folder, _ = trained
    rows, out = report(folder, '--report=text')
    tokenizer = Tokenizer.load(folder / 'tokenizer.json')
    texts = [(folder / 'text' / name).read_text('utf-8') for name in ('a.md', 'b.py')]
    n, size = sum(len(tokenizer.encode(text)) for text in texts), sum(len(text.encode()) for text in texts)
    assert rows == [('this', 600, round(size / n, 2), round(n / 2), n)] and out.count('2 files') == 1
    assert out.count("'s vocabulary is not at hand") == 2 and '--gpt2=FOLDER' in out
    split = re.search(r'^ +15 +zyxwvut +this: (.*)$', out, re.M)
    assert split[1].split(' ') == [printable(tokenizer.vocab[i]) for i in tokenizer.encode(' zyxwvut')]
    for word in ('def', 'class', 'return', 'import', 'self', 'print', 'None'):
        assert f'{word} {len(tokenizer.encode(word))}/{len(tokenizer.encode(" " + word))}' in out
    for k in (4, 8, 12):
        alone, new_line = (len(tokenizer.encode(start + ' ' * k)) for start in ('', '\n'))
        assert f'{k} spaces {alone}/{new_line}' in out


@pytest.mark.skipif(not (SHARED / 'gpt2_vocab.bpe').exists(), reason='no gpt2_vocab.bpe')
def test_the_report_puts_gpt2_beside_it(trained, python_files):
    folder, _ = trained
    rows, out = report(folder, f'--report={python_files}', f'--gpt2={SHARED}')
    (_, _, fit, _, ours), (_, size, _, _, theirs), *_ = rows
    texts = [path.read_bytes().decode() for path in python_files.rglob('*.py')]
    assert size == 50257 and theirs == sum(map(len, Tokenizer.gpt2(SHARED).encode_batch(texts)))
    assert fit == round(sum(len(text.encode()) for text in texts) / ours, 2)
    for words in (f'gpt2 needs {theirs / ours:.2f} times the tokens', 'gpt2: 22 tokens: def | Ġsay | _',
                  f'hold as much as {1024 * theirs / ours:,.0f} of gpt2'):
        assert words in out


def test_the_report_on_a_char_tokenizer_is_about_its_own_characters(tmp_path):
    (tmp_path / 'x.txt').write_text('abba', encoding='utf-8')
    Tokenizer.char('ab').save(tmp_path / 'tokenizer.json')
    rows, out = report(tmp_path, '--report=x.txt')
    assert rows == [('this', 2, 1, 4, 4)] and 'keywords' not in out


def test_bytes_are_printed_as_gpt2_prints_them():
    assert {b: printable([b]) for b in range(256)} == bytes_to_unicode()
    assert printable(b' \n') == '\u0120\u010a' and from_printable(printable(range(256))) == bytes(range(256))


@pytest.mark.parametrize('arguments, words', [
    ('--input=gone', "'gone' is neither"), ('--report=empty', "'empty' is neither"),
    ('--input=empty', 'empty'), ('--load=tokenizer.json --report=text/b.py --against=gpt3', 'gpt3'),
    ('--input=text --vocab_size=319', '320'), ('--input=text --out=empty', '--out=empty is a folder'),
    ('--load=gone.json --report=text', 'make one: python tokenizer.py --input=FOLDER'),
    ('--load=tokenizer.json --report=gone', 'gone'),
    ('--load=text/b.py --report=text', 'text/b.py is not a tokenizer of ours'),
    ('--load=tokenizer.json --report=empty', 'empty'),
    ('--load=tokenizer.json --report=text --gpt2=empty', 'vocab.bpe'),
    ('--load=tokenizer.json --report=text --gpt2=gone', 'gone')])
def test_a_mistake_is_one_line(trained, arguments, words):
    folder, _ = trained
    mistake(run('tokenizer.py', *arguments.split(), cwd=folder, env=OFFLINE), words)


@pytest.mark.parametrize('arguments', [
    '', '--load=tokenizer.json', '--input=text --load=tokenizer.json --report=text',
    '--load=tokenizer.json --report=text --pattern=gpt2',
    '--input=text --vocab_size=many', '--inputs'])
def test_missing_arguments_show_the_usage(trained, arguments):
    result = run('tokenizer.py', *arguments.split(), cwd=trained[0], env=OFFLINE)
    assert (result.returncode, result.stdout) == (2, '') and result.stderr.startswith('usage: ')
    assert 'tokenizer.py: error: ' in result.stderr.splitlines()[-1]
