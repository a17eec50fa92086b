"""Reading: text in its encoding, records in every form; what cannot be read is counted."""
import gzip
import json
import random

from accidents import PLACES
from preparing import DOCUMENTS, RAW, kept, prepare, prose, report, write

from parts.prepare import conversions, files
from parts.prepare.reading import entries

TEXT = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5


def read_entries(path, **part):
    """What entries yields of a file, [(line, record)], and what it rejects, [(line, why)]."""
    rejected = []
    read = [*entries([{'path': str(path), **part}], lambda _, line, why: rejected.append((line, why)))]
    return [(line, record) for _, line, record in read], rejected


def test_a_text_is_utf8_or_else_cp1252_and_what_is_neither_is_not_guessed(tmp_path):
    for data, encoding in [
            (TEXT.encode(), 'utf-8'), (b'', 'utf-8'), (TEXT.encode('cp1252'), 'cp1252'), (b'a\0b', 'utf-8')]:
        for name in ('a.txt', 'a.md.gz'):
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
            text = {'text': data.decode(encoding), 'encoding': encoding}
            assert read_entries(tmp_path / name) == ([(0, text)], [])

    for data in ('наивный текст'.encode('koi8-r'), b'\x89PNG\r\n\0\0', TEXT.encode('utf-16'),
                 b'one word and a byte that is none: \x81'):
        (tmp_path / 'a.txt').write_bytes(data)
        read, ((line, why),) = read_entries(tmp_path / 'a.txt')
        assert (read, line) == ([], 1) and why.endswith('is neither UTF-8 nor a text in Windows-1252'), data


# --- records ------------------------------------------------------------------------------------------------
def test_every_form_of_record_gives_the_same_texts(tmp_path):
    texts = [*DOCUMENTS, 'lone \ud800 surrogate']
    forms = {'text.jsonl': [{'text': t, 'n': 1} for t in texts], 'strings.jsonl': texts,
             'content.jsonl': [{'text': ' ', 'content': t} for t in texts], 'list.json': texts}
    for name, rows in forms.items():
        lines = '\n'.join(json.dumps(row) + '\n' for row in rows)       # with blank lines between
        if name == 'list.json':
            lines = f'\n {json.dumps(rows, indent=1)}'
        for path, data in ((name, f'\ufeff{lines}'.encode()), (f'{name}.gz', gzip.compress(lines.encode()))):
            (tmp_path / path).write_bytes(data)
            docs = conversions.documents(entries([{'path': str(tmp_path / path)}], None), None)
            assert [doc['texts'][0] for doc in docs] == texts, path


LINES = [json.dumps({'text': f'line {i} ' * (i % 7)}) for i in range(500)]
LINES[17:19] = ['', '{broken']


def test_the_parts_of_a_large_file_are_together_the_file(tmp_path, monkeypatch):
    plain = '\n'.join(LINES).encode()
    packed = gzip.compress(plain)
    for name, data in ('a.jsonl', plain), ('a.jsonl.gz', packed), ('cut.jsonl.gz', packed[:-400]):
        path = tmp_path / name
        path.write_bytes(data)
        whole = read_entries(path)
        parts = [read_entries(path, part=(i, 8)) for i in range(8)]
        for one, several in zip(whole, zip(*parts)):        # records, what was rejected
            assert sorted(sum(several, []), key=lambda entry: entry[0]) == one, name
        assert len(whole[1]) == 1 + (name == 'cut.jsonl.gz')
        sizes = [len(records) for records, _ in parts]
        assert max(sizes) <= min(sizes) + 3

    source = {'a': (str(tmp_path / 'a.jsonl'), None)}
    assert files.shards(source, '')[0]['files'] == [{'path': str(tmp_path / 'a.jsonl'), 'part': (0, 1)}]
    monkeypatch.setattr('.'.join(PLACES['size of a shard']), 100)
    assert [s['files'][0]['part'] for s in files.shards(source, '')] == [(i, 8) for i in range(8)]
    assert len(files.shards(source, '', 'sft')) == 1            # samples of one problem belong together


# --- garbage ------------------------------------------------------------------------------------------------
MIXED = [b'{"text": "a"}', b'{"text": "cut o', b'{"text": "b"}', b'{"text": "a raw \0 byte"}',
         b'{"text": "na\xefve"}', b'[' * 100_000, b'null', b'', b'{"title": "x"}', b'{"text": null}', b'"c"']
NOISE = json.dumps({'text': random.Random(0).randbytes(60_000).hex()}).encode()
ARCHIVE = gzip.compress(MIXED[0] + b'\n' + NOISE)
FILES = [       # name, bytes, texts that arrive, lines that cannot be read
    ('a.jsonl', b'\n'.join(MIXED), ['a', 'b', 'c'], [2, 4, 5, 6, 7, 9, 10]),
    ('a.json', b'{"text": "cut o\n{"text": "b"}\n', ['b'], [1]),
    ('a.json', b'\n \n[{"text": "a"}, 17,\n["b"], {"content": "c"}]', ['a', 'c'], [2, 3]),
    ('a.json', b'[]', [], []), ('a.json', b'[{"text": "a"},', [], [1]),
    ('a.jsonl.gz', ARCHIVE[:len(ARCHIVE) // 2], ['a'], [2]), ('a.jsonl.gz', b'', [], []),
    ('a.txt.gz', b'x', [], [1]), ('a.txt.gz', ARCHIVE[:-100], [], [1]),
    ('a.txt.gz', ARCHIVE[:10] + b'\xff' * 100, [], [1]), ('\udce9.txt', b'\xff', [], [1]),
    ('a.txt', b'', [''], [])]


def test_garbage_is_told_with_its_line_and_what_is_good_arrives(tmp_path):
    for name, data, texts, lines in FILES:
        (tmp_path / name).write_bytes(data)
        rejected = []
        told = lambda path, line, why: rejected.append((path, line))
        docs = [*conversions.documents(entries([{'path': str(tmp_path / name)}], told), told)]
        assert [doc['texts'][0] for doc in docs] == texts, name
        assert rejected == [(str(tmp_path / name), line) for line in lines], name


def test_a_run_counts_garbage_and_drops_records_but_not_books_that_are_too_long(tmp_path):
    book = 'one word\n' * 130_000
    source = write(tmp_path / 'files', [*(prose(i) for i in range(30)), book, TEXT, ''])
    lines = [*MIXED, json.dumps({'text': book}).encode(), b'{"text": "lone \\ud800 surrogate"}']
    (source / 'mixed.jsonl').write_bytes(b'\n'.join(lines))
    (source / '031.txt').write_bytes(TEXT.encode('cp1252'))
    (source / '\udce9.txt').write_bytes(b'\xff')
    prepare(tmp_path / 'out', source, *RAW)
    texts = kept(tmp_path / 'out')
    assert {book, TEXT, 'lone \ufffd surrogate'} < {*texts} and len(texts) == 36
    r = report(tmp_path / 'out')
    assert r['malformed'] == 8
    assert r['stages'][0]['dropped'] == {'empty': 1, 'too long': 1}
    page = (tmp_path / 'out/report.md').read_text(encoding='utf-8')
    assert 'mixed.jsonl:2: ' in page and '\\udce9.txt:1: ' in page
