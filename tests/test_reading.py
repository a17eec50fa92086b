"""Reading: text in its encoding, records in every form; what cannot be read is counted."""
import gzip
import json
import os
import random
import re

from accidents import PLACES
from preparing import DOCUMENTS, RAW, documents, prepare, prose, report, write

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
            (TEXT.encode(), 'utf-8'), (b'', 'utf-8'), (TEXT.encode('cp1252'), 'cp1252'),
            (b'a\0b', 'utf-8'), ('x = "ä, a longer one"\n'.encode('latin-1'), 'cp1252')]:
        for name in ('a.txt', 'a.py', 'a.md.gz'):
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
            text = {'text': data.decode(encoding), 'encoding': encoding}
            assert read_entries(tmp_path / name) == ([(0, text)], [])

    for data in ('наивный текст'.encode('koi8-r'), b'\x89PNG\r\n\0\0', random.Random(0).randbytes(999),
                 TEXT.encode('utf-16'), b'one word and a byte that is none: \x81'):
        (tmp_path / 'a.txt').write_bytes(data)
        read, ((line, why),) = read_entries(tmp_path / 'a.txt')
        assert (read, line) == ([], 1) and why.endswith('is neither UTF-8 nor a text in Windows-1252'), data


# --- records ------------------------------------------------------------------------------------------------
def test_every_form_of_record_gives_the_same_texts(tmp_path):
    texts = [*DOCUMENTS, 'lone \ud800 surrogate']
    forms = {'text.jsonl': [{'text': t, 'n': 1} for t in texts], 'list.json': [{'text': t} for t in texts],
             'content.jsonl': [{'text': ' ', 'content': t} for t in texts],
             'strings.jsonl': texts, 'strings.json': texts}
    for name, rows in forms.items():
        lines = '\n'.join(json.dumps(row) + '\n' for row in rows)       # with blank lines between
        if name.endswith('.json'):
            lines = f'\n {json.dumps(rows, indent=1)}'
        for path, data in ((name, f'\ufeff{lines}'.encode()), (f'{name}.gz', gzip.compress(lines.encode()))):
            (tmp_path / path).write_bytes(data)
            docs = conversions.documents(entries([{'path': str(tmp_path / path)}], None), None)
            assert [doc['texts'][0] for doc in docs] == texts, path


def test_a_json_is_a_list_or_has_a_record_a_line(tmp_path):
    for text, n_records, n_errors in [
            ('{"text": "a"}\n{"text": "b"}\n', 2, 0), ('{"text": "cut o\n{"text": "b"}\n', 1, 1),
            ('\n \n[{"text": "a"},\n{"text": "b"}]', 2, 0), ('[]', 0, 0), ('[{"text": "a"},', 0, 1)]:
        (tmp_path / 'a.json').write_text(text, encoding='utf-8')
        assert [*map(len, read_entries(tmp_path / 'a.json'))] == [n_records, n_errors], text


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
def jsonl(*lines):
    """Lines of text become records, bytes stay."""
    return b'\n'.join(x if isinstance(x, bytes) else json.dumps({'text': x}).encode() for x in lines)


def test_garbage_is_counted_with_file_and_line_and_what_is_good_arrives(tmp_path):
    good = [prose(i) for i in range(60)]
    write(tmp_path / 'files', good[:30])
    archive = gzip.compress(jsonl(good[30], random.Random(0).randbytes(60_000).hex()))
    contents = {       # name: bytes, records lost, line of the first
        'mixed.jsonl': (jsonl(good[31], b'{"text": "cut o', good[32], b'{"text": "a raw \0 byte"}',
                              'x' * 5_000_000, good[33], b'{"text": "na\xefve"}', b'[1, 2', b'null', b'',
                              b'[' * 100_000,
                              b'{"title": "x"}', b'17', b'{"text": null}', 'lone \ud800 surrogate'), 9, 2),
        'list.json': (json.dumps([{'text': good[34]}, 17, {'title': 'x'}, good[35], None, [good[36]],
                                  {'content': good[37]}]).encode(), 4, 2),
        'not_a_list.json': (b'{"a": 1}\n', 1, 1), 'cut_off.json': (json.dumps(good).encode()[:-9], 1, 1),
        'cut.jsonl.gz': (archive[:len(archive) // 2], 1, 2), 'no_archive.txt.gz': (b'x', 1, 1),
        'cut.txt.gz': (archive[:-100], 1, 1), 'no_deflate.txt.gz': (archive[:10] + b'\xff' * 100, 1, 1),
        'book.txt': (b'one word\n' * 130_000, 0, 0), 'cp1252.txt': (TEXT.encode('cp1252'), 0, 0),
        '\udce9.txt': (b'\xff', 1, 1), 'nul.txt': (b'a\0b', 0, 0), 'empty.txt': (b'', 0, 0),
        'empty.py.gz': (gzip.compress(b''), 0, 0), 'empty.jsonl.gz': (b'', 0, 0)}
    for name, (data, *_) in contents.items():
        (tmp_path / 'files' / name).write_bytes(data)
    prepare(tmp_path / 'out', tmp_path / 'files', *RAW)
    texts = [*good[:36], good[37], 'one word\n' * 130_000, TEXT, 'a\0b', 'lone \ufffd surrogate']
    assert sorted(sum(documents(tmp_path / 'out').values(), [])) == sorted(texts)
    r = report(tmp_path / 'out')
    lost = {os.path.basename(path): (n, int(re.match(r'line (\d+): .', first)[1]))
            for path, (n, first) in r['malformed_files'].items()}
    assert lost == {name: (n, line) for name, (_, n, line) in contents.items() if n}
    assert r['malformed'] == sum(n for n, _ in lost.values())
    assert r['stages'][0]['dropped'] == {'empty': 2, 'too long': 1}
    assert r['counts']['encodings of files']['cp1252'] == 1
    assert 'mixed.jsonl: 9, the first at line 2' in (tmp_path / 'out/report.md').read_text(encoding='utf-8')
