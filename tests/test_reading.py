"""Files as they come: other encodings, records over lines, what is too long, links to folders, odd names."""
import gzip
import json
import os

import pytest
from conftest import mistake, ok, run
from test_prepare import documents, prepare, report, write

from parts.prepare import files
from parts.prepare.reading import count_chars, encoding_of, entries

TEXT = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5


@pytest.mark.parametrize('name, data, encoding', [
    ('a.txt', TEXT.encode(), 'utf-8'), ('a.txt', TEXT.encode('cp1252'), 'cp1252'),
    ('a.txt', b'', 'utf-8'),
    ('a.md', (TEXT[:20] * 9 + '\x81').encode('latin-1'), 'latin-1'),
    ('a.txt', TEXT.encode('utf-16'), 'utf-16'),
    ('a.py', '# coding: koi8-r\nx = "да"\n'.encode('koi8-r'), 'koi8-r'),
    ('a.py', '# coding: nonsense\nx = "ä, a longer one"\n'.encode('latin-1'), 'cp1252'),
    ('a.py', 'x = 1\n\n\ny = "ä, a longer one"\n'.encode('latin-1'), 'cp1252')])
def test_a_text_has_the_encoding_that_it_most_probably_has(tmp_path, name, data, encoding):
    (tmp_path / name).write_bytes(data)
    assert encoding_of(str(tmp_path / name)) == encoding
    (_, line, record, why, _), = entries([{'path': str(tmp_path / name)}])
    assert (line, why) == (0, None) and record == {'text': data.decode(encoding), 'encoding': encoding}


@pytest.mark.parametrize('name', ['a.txt', 'a.py', 'a.txt.gz'])
@pytest.mark.parametrize('before, after', [('', b''), (TEXT, b'\xe2\x80'), (TEXT, b' \xe4hnlich')])
def test_utf_8_with_damage_stays_utf_8(tmp_path, name, before, after):
    data = before.encode() + b'naive \xc3\xa4 again\xc3' + after
    (gzip.open if name.endswith('.gz') else open)(tmp_path / name, 'wb').write(data)
    (_, _, record, why, _), = entries([{'path': str(tmp_path / name)}])
    assert not why and record['encoding'] == ('utf-8 damaged' if before else 'cp1252')
    if before:
        assert record['text'] == data.decode('utf-8', 'replace')
        assert count_chars(str(tmp_path / name)) == (len(record['text']), 'utf-8 damaged')


@pytest.mark.parametrize('data', ['наивный текст'.encode('koi8-r'), b'\x89PNG\r\n\0\0', os.urandom(999)])
def test_what_is_no_text_is_not_guessed(tmp_path, data):
    (tmp_path / 'a.txt').write_bytes(data)
    (_, _, record, why, _), = entries([{'path': str(tmp_path / 'a.txt')}])
    assert record is None and why.startswith('ValueError: neither UTF-8')


@pytest.mark.parametrize('codec', ['rot13', 'hex', 'zlib', 'base64', 'uu'])
def test_a_codec_that_is_not_of_text_is_counted(tmp_path, codec):
    (tmp_path / 'a.py').write_bytes(b'# coding: %s\nx = "\xe4"\n' % codec.encode())
    (_, _, record, why, _), = entries([{'path': str(tmp_path / 'a.py')}])
    assert record is None and why.startswith('LookupError: ')


def test_other_encodings_are_counted_and_a_single_text_has_one_too(tmp_path):
    source = write(tmp_path / 'files', [f'{i} plain' for i in range(40)])
    (source / 'old.txt').write_bytes(TEXT.encode('cp1252'))
    prepare(tmp_path / 'out', source, '--tokenizer=byte')
    assert report(tmp_path / 'out')['counts']['documents not in UTF-8'] == {'cp1252': 1}
    assert TEXT in sum(documents(tmp_path / 'out').values(), [])
    prepare(tmp_path / 'one', source / 'old.txt', '--tokenizer=char')
    assert report(tmp_path / 'one')['bytes']['train'] > 200
    assert report(tmp_path / 'one')['counts']['documents not in UTF-8'] == {'cp1252': 1}


@pytest.mark.parametrize('text, n', [
    (json.dumps({'text': 'a'}, indent=2), 1), (json.dumps([{'text': 'a'}, {'text': 'b'}], indent=2), 2),
    ('{"text": "a"}\n{"text": "b"}\n', 2), ('{"text": "cut o\n{"text": "b"}\n', 1),
    ('\n \n[{"text": "a"},\n{"text": "b"}]', 2), ('[]', 0), ('\ufeff\n{\n"text": "a"}', 1)])
def test_a_json_may_be_a_list_or_an_object_over_several_lines(tmp_path, text, n):
    (tmp_path / 'a.json').write_text(text, encoding='utf-8')
    found = [*entries([{'path': str(tmp_path / 'a.json')}])]
    assert sum(why is not None for _, _, _, why, _ in found) == ('cut o' in text)
    assert sum(record is not None for _, _, record, _, _ in found) == n


def test_what_is_too_long_is_counted_as_that(tmp_path):
    texts = [f'{i} ' * 40 for i in range(40)] + ['x ' * 500, 'y ' * 9000]
    (tmp_path / 'a.jsonl').write_text('\n'.join(json.dumps({'text': t}) for t in texts), encoding='utf-8')
    prepare(tmp_path / 'out', tmp_path / 'a.jsonl', '--tokenizer=byte', '--max_chars=900')
    r = report(tmp_path / 'out')
    assert r['malformed'] == 0 and r['stages'][0]['dropped'] == {'too long': 2}
    assert r['stages'][0]['docs_in'] == 42
    assert r['counts']['too long to be read'] == {str(tmp_path / 'a.jsonl'): 2}


@pytest.mark.skipif(not hasattr(os, 'symlink') or os.name == 'nt', reason='no links')
@pytest.mark.parametrize('pattern', ['', '/**', '/**/*.txt', '/sub/../**/*.txt'])
def test_links_to_files_are_read_and_those_to_folders_are_not(tmp_path, pattern):
    for name in ('one.txt', 'sub/two.txt', 'other/three.txt'):
        (tmp_path / 'x' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'x' / name).write_text(name, encoding='utf-8')
    for name, to in (('a', '.'), ('b', '.'), ('sub/up', '..'), ('c.txt', 'one.txt'), ('gone', 'nowhere')):
        (tmp_path / 'x' / name).symlink_to(to)
    (tmp_path / 'x/far').symlink_to(tmp_path / 'y')
    (tmp_path / 'y').mkdir()
    (tmp_path / 'y/four.txt').write_text('four', encoding='utf-8')
    found = files.find_files(f'{tmp_path}/x{pattern}')
    found = [os.path.relpath(os.path.normpath(file['path']), tmp_path) for file in found]
    assert found == ['x/c.txt', 'x/one.txt', 'x/other/three.txt', 'x/sub/two.txt']


def test_endings_in_capitals_are_read_and_what_is_passed_over_is_said(tmp_path):
    source = write(tmp_path / 'files', [f'{i} plain' for i in range(40)])
    for name in ('A.PY', 'b.markdown', 'c.HTML', 'd.rst', 'e.rst', 'f'):
        (source / name).write_text(f'{name} = 1\n', encoding='utf-8')
    prepare(tmp_path / 'out', source, '--tokenizer=byte')
    assert sum(report(tmp_path / 'out')['documents'].values()) == 43
    assert 'passed over: 2 .rst, 1 without ending' in (tmp_path / 'out/report.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('setting, words', [
    ('sources = {}', ['names no source']), ("sources = {'a': ('x', True)}", ['weight']),
    ("sources = {'a': ('x', float('inf'))}", ['weight']), ("sources = {1: ('x', 1)}", ['source name 1']),
    ("sources = {1: ('x', 1), 'b': ('x', 1)}", ['source name 1']), ('temperature = 1e-5', ['temperature']),
    ("out_dir = ''", ['out_dir']), ("part = '3'", ['part', '3/16']), ("part = '0/4'", ['part']),
    ("part = '5/4'", ['part'])])
def test_settings_that_cannot_be_are_one_line(tmp_path, setting, words):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/a.jsonl').write_text('{"text": "a"}\n', encoding='utf-8')
    source = '' if 'sources' in setting else "source = 'x'"
    (tmp_path / 'c.py').write_text(f"{source}\nout_dir = 'out'\n{setting}\n", encoding='utf-8')
    mistake(run('prepare.py', 'c.py', cwd=tmp_path), *words)


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / 'a.txt.gz').write_bytes(b'he')
    mistake(run('prepare.py', f'--source={tmp_path}/a.txt.gz', f'--out_dir={tmp_path}/out'), 'a.txt.gz')


def test_copies_of_an_earlier_source_are_said_to_be_copies(tmp_path):
    lines = ''.join(json.dumps({'text': f'{i} words'}) + '\n' for i in range(40))
    for name in 'ab':
        (tmp_path / f'{name}.jsonl').write_text(lines, encoding='utf-8')
    (tmp_path / 'c.py').write_text("sources = {'a': ('a.jsonl', 1), 'b': ('b.jsonl', 1)}\n", encoding='utf-8')
    flags = ['c.py', '--out_dir=out', '--tokenizer=byte', '--mode=raw', '--dedup=exact']
    mistake(run('prepare.py', *flags, cwd=tmp_path), 'source b', 'exact duplicate: 40', 'first one stays')
    ok(run('prepare.py', *flags, '--dedup=none', cwd=tmp_path))
