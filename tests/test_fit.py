"""`tokenizer.py --report` reads what prepare.py reads, tells the groups of a corpus apart, and answers."""
import base64, gzip, hashlib, json, re

import pytest
from conftest import ROOT, SHARED, mistake, ok, run

from parts.tokenizer import known_vocabularies, tokenizer_report
from tokenizer import Tokenizer

CODE = 'def mean(values):\n    return sum(values) / len(values)\n'
PROSE = {'en': 'The being and the nothing are one being. ', 'fr': "L'être et le néant ne font qu'un être. "}


def write(path, records):
    path.write_bytes(gzip.compress('\n'.join(map(json.dumps, records)).encode()))


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """A folder of code and prose, in files and records; a tokenizer of the code alone."""
    folder = tmp_path_factory.mktemp('fit')
    (folder / 'c' / 'src').mkdir(parents=True)
    (folder / 'c' / 'docs').mkdir()
    for i in range(20):
        (folder / 'c' / 'src' / f'{i}.py').write_text(f'# {i}\n' + CODE * 4, encoding='utf-8')
    (folder / 'c' / 'docs' / 'a.md').write_text(PROSE['en'] * 9, encoding='utf-8')
    write(folder / 'c' / 'docs' / 'b.jsonl.gz',
          [{'text': text * 5, 'language': lang} for lang, text in PROSE.items()] + [{'title': 'no text'}]
          + [{'content': CODE, 'repo_name': 'a/b', 'path': 'x/y.py'}])
    Tokenizer.train([CODE], 300, special_tokens=()).save(folder / 'code.json')
    Tokenizer.train(PROSE.values(), 300, special_tokens=()).save(folder / 'prose.json')
    return folder


def report(folder, *arguments):
    return ok(run('tokenizer.py', *arguments, cwd=folder))


def groups(out, label):
    """{name: (files, bytes per token of each tokenizer)} of one table"""
    table = out.split(f'by {label} ')[1].split('\n\n')[0]
    rows = re.findall(r'^(\S+) +([\d,]+) +[\d.]+ +[\d.]+((?: +[\d.]+)+)(?: |$)', table, re.M)
    return {name: (int(n), [float(x) for x in fits.split()]) for name, n, fits in rows}


def test_records_and_archives_are_read_and_each_group_is_measured(corpus):
    out = report(corpus, '--load=code.json', '--report=c', '--against=prose.json')
    ours, theirs = Tokenizer.load(corpus / 'code.json'), Tokenizer.load(corpus / 'prose.json')
    fits = lambda text: [round(len(text.encode()) / len(t.encode(text)), 2) for t in (ours, theirs)]
    assert '24 files' in out
    by_kind = groups(out, 'kind')
    assert {name: n for name, (n, _) in by_kind.items()} == {'.py': 21, '.md': 1, '.jsonl': 2}
    assert by_kind['.md'][1] == fits(PROSE['en'] * 9)
    assert {name: n for name, (n, _) in groups(out, 'folder').items()} == {'src': 20, 'docs': 4}
    by_language = groups(out, 'language')
    assert {name: n for name, (n, _) in by_language.items()} == {'-': 22, 'en': 1, 'fr': 1}
    assert by_language['fr'][1] == fits(PROSE['fr'] * 5)
    assert groups(out, 'repo_name')['a/b'] == (1, fits(CODE))


def test_a_record_without_text_is_named(corpus):
    said = run('tokenizer.py', '--load=code.json', '--report=c', '--against=', cwd=corpus)
    assert said.returncode == 0 and re.search(r'note: 1 .*b\.jsonl\.gz line 3: .*no text', said.stderr)


def test_the_last_sentence_says_what_a_tokenizer_of_ones_own_would_save(corpus):
    tokenizers = [Tokenizer.load(corpus / f'{name}.json') for name in ('code', 'prose')]
    text = (corpus / 'c' / 'src' / '0.py').read_text('utf-8')
    n, m = (len(t.encode(text)) for t in tokenizers)
    last = report(corpus, '--load=code.json', '--report=c/src/0.py', '--against=prose.json').splitlines()[-1]
    assert n < m and f'saves {1 - n / m:.1%} of the tokens of prose.json' in last
    last = report(corpus, '--load=prose.json', '--report=c/src/0.py', '--against=code.json').splitlines()[-1]
    assert f'Yes, code.json: this one needs {m / n - 1:.1%} more tokens' in last
    last = report(corpus, '--load=code.json', '--report=c', '--against=').splitlines()[-1]
    assert 'To know, type: python tokenizer.py --report=PATH' in last


def test_without_a_tokenizer_one_is_trained_on_nine_tenths(corpus):
    out = report(corpus, '--report=c/src', '--vocab_size=340', '--against=prose.json')
    texts = [path.read_text('utf-8') for path in sorted((corpus / 'c' / 'src').iterdir())]
    tokenizer = Tokenizer.train([t for i, t in enumerate(texts) if i % 10 != 9], 340)
    n = sum(len(tokenizer.encode(text)) for text in texts[9::10])
    assert '2 files' in out and re.search(rf'^ *this +340 +[\d.]+ +[\d.]+ +{n}$', out, re.M)
    many = [{'text': str(i)} for i in range(30)]
    rest, held_out = tokenizer_report.held_out(many)
    assert held_out == [many[9], many[19], many[29]] and rest == [d for d in many if d not in held_out]
    documents = [{'text': 'a' * 100}, {'text': 'b' * 10}]
    assert tokenizer_report.held_out(documents) == ([{'text': 'a' * 90}, {'text': 'b' * 9}],
                                       [{'text': 'a' * 10}, {'text': 'b'}])


def test_training_joins_the_pieces_of_a_long_text(tmp_path):
    text = ''.join(f'line {i}\n    indented\n' for i in range(8_000))       # read in pieces of 100,000
    (tmp_path / 'a.txt').write_text(text, encoding='utf-8')
    ok(run('tokenizer.py', '--input=a.txt', '--vocab_size=400', cwd=tmp_path))
    assert Tokenizer.load(tmp_path / 'tokenizer.json').to_json() == Tokenizer.train([text], 400).to_json()


def test_a_vocabulary_is_checked_before_it_is_compared_with(corpus, tmp_path, monkeypatch):
    data = b'\n'.join(base64.b64encode(bytes([b])) + b' %d' % b for b in range(256)) + b'\nYWI= 256\n'
    (tmp_path / 'cl100k_base.tiktoken').write_bytes(data)
    mistake(run('tokenizer.py', '--load=code.json', '--report=c', f'--gpt2={tmp_path}',
                '--against=cl100k_base', cwd=corpus), 'cl100k_base.tiktoken', '223921b7')
    right = {'cl100k_base.tiktoken': hashlib.sha256(data).hexdigest()}
    monkeypatch.setitem(known_vocabularies.FILES, 'cl100k_base', right)
    tokenizer = known_vocabularies.at_hand('cl100k_base', tmp_path)
    assert tokenizer.encode('abc') == [256, 99] and tokenizer.all_bytes[256] == b'ab'


@pytest.mark.skipif(not (SHARED / 'cl100k_base.tiktoken').exists(), reason='no cl100k_base.tiktoken')
def test_cl100k_needs_14_tokens_for_the_sample(corpus):
    out = report(corpus, '--load=code.json', '--report=c', f'--gpt2={SHARED}', '--against=cl100k_base')
    assert re.search(r'^ *cl100k_base +100,277 ', out, re.M) and 'cl100k_base: 14 tokens: def | Ġsay' in out


def test_the_three_ways_to_a_vocabulary_in_the_docs_do_as_they_say():
    page = (ROOT / 'docs' / 'data.md').read_text('utf-8')
    code = next(c for c in re.findall(r'```python\n(.*?)```', page, re.S) if 'wordpiece' in c)
    scope = {}
    exec(code, scope)
    assert (scope['bpe'], scope['wordpiece'], scope['dropped']) == (('u', 'g'), ('g', 's'), 'ug')
    words = [word for word, n in scope['words'].items() for _ in range(n)]
    vocab = Tokenizer.train(words, 256 + 1, special_tokens=()).vocab
    assert vocab[256] == b'ug' and scope['cut']('hugs', scope['count'])[1] == ['hugs']
