"""What prepare.py is given: every form of record, damaged files, mistakes; and what it leaves then."""
import gzip
import json
import os
import re

import pytest
from conftest import mistake, ok, run
from test_prepare import DOCUMENTS, FOX, documents, prepare, report, write

from parts.prepare.files import find_files
from tokenizer import Tokenizer

TEXTS = [text.replace('\ufeff', '') for text in DOCUMENTS]


def test_every_form_of_record_gives_the_same_bins(tmp_path):
    texts, bins = [*TEXTS, 'lone \ud800 surrogate'], set()
    forms = {'text.jsonl': [{'text': t, 'n': 1} for t in texts], 'list.json': [{'text': t} for t in texts],
             'content.jsonl': [{'text': ' ', 'content': t} for t in texts],
             'strings.jsonl': texts, 'strings.json': texts}
    for name, records in forms.items():
        lines = json.dumps(records, indent=1) if name.endswith('.json') else \
            '\n'.join(json.dumps(r) + '\n' for r in records)            # with blank lines between
        lines = '\ufeff' * (name == 'text.jsonl') + lines
        for path, data in ((name, lines.encode()), (f'{name}.gz', gzip.compress(lines.encode()))):
            (tmp_path / path).write_bytes(data)
            prepare(tmp_path / 'out', tmp_path / path, '--tokenizer=byte')
            bins.add(tuple((tmp_path / 'out' / f'{side}.bin').read_bytes() for side in ('train', 'val')))
            assert report(tmp_path / 'out')['malformed'] == 0
    found = documents(tmp_path / 'out')
    assert sorted(found['train'] + found['val']) == sorted([*TEXTS, 'lone \ufffd surrogate'])
    assert len(bins) == 1


def jsonl(*lines):
    return b''.join(x if isinstance(x, bytes) else b'{"text": "%s"}\n' % x.encode() for x in lines)


LONG = [f'{i}: ' + os.urandom(1000).hex() for i in range(40)]           # does not compress away
BROKEN = gzip.compress(jsonl(*LONG))
DAMAGED = {     # file -> bytes, the line its report must name, how many records are lost to it
    'not_json.jsonl': (jsonl('one', 'two', b'{"text": "cut o\n', 'four'), 3, 1),
    'no_text.jsonl': (jsonl('one', b'{"title": "x"}\n', b'17\n', b'{"text": null}\n', 'five'), 2, 3),
    'not_utf8.txt': ('наивный текст'.encode('koi8-r'), 1, 1),
    'not_utf8.jsonl': (jsonl('one', 'two', b'{"text": "na\xefve"}\n', 'four'), 3, 1),
    'not_a_list.json': (b'{"a": 1}\n', 1, 1),
    'cut_off.json': (json.dumps(TEXTS).encode()[:-9], 1, 1),
    'cut_off.txt.gz': (BROKEN[:-100], 1, 1),
    'no_gzip.txt.gz': (b'plain text', 1, 1),
    'deep.jsonl': (jsonl('one', b'[' * 100_000 + b'\n', 'three'), 2, 1),
    'no_deflate.txt.gz': (BROKEN[:10] + b'\xff' * 100, 1, 1)}


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_file_is_counted_named_and_never_fatal(tmp_path, name):
    data, line, lost = DAMAGED[name]
    source = write(tmp_path / 'files', TEXTS)
    (source / name).write_bytes(data)
    prepare(tmp_path / 'out', source, '--tokenizer=byte')
    r, found = report(tmp_path / 'out'), documents(tmp_path / 'out')
    assert r['malformed'] == lost
    (path, entry), = r['malformed_files'].items()
    assert path == str(source / name) and entry['records'] == lost
    assert entry['first'].startswith(f'line {line}: '), entry
    good = re.findall(r'"text": "(\w+)"', data.decode('latin-1')) if name.endswith('.jsonl') else []
    assert sorted(found['train'] + found['val']) == sorted(TEXTS + [t for t in good if t.isascii()])


def test_what_came_before_the_cut_in_an_archive_is_kept(tmp_path):
    (tmp_path / 'cut.jsonl.gz').write_bytes(BROKEN[:-len(BROKEN) // 4])
    prepare(tmp_path / 'out', tmp_path / 'cut.jsonl.gz', '--tokenizer=byte', '--val_fraction=0.3')
    r, found = report(tmp_path / 'out'), documents(tmp_path / 'out')
    n = len(found['train'] + found['val'])
    assert n >= 20 and sorted(found['train'] + found['val']) == sorted(LONG[:n])     # whole records
    (entry,) = r['malformed_files'].values()
    assert r['malformed'] == 1 and entry['first'].startswith(f'line {n + 1}: ')


def test_a_run_that_fails_leaves_what_was_there(tmp_path):
    prepare(tmp_path / 'out', write(tmp_path / 'files', TEXTS))
    before = {p.name: p.read_bytes() for p in (tmp_path / 'out').iterdir()}
    assert not any(name.endswith('.tmp') for name in before)
    source = write(tmp_path / 'one', [FOX], '{}.md')
    (source / 'two.jsonl').write_text('not json\n', encoding='utf-8')
    bad = ['prepare.py', f'--source={source}', '--tokenizer=byte', '--mode=raw']
    mistake(run(*bad, f'--out_dir={tmp_path}/out'), 'documents')
    assert {p.name: p.read_bytes() for p in (tmp_path / 'out').iterdir()} == before
    mistake(run(*bad, f'--out_dir={tmp_path}/new'), 'documents')
    assert list((tmp_path / 'new').iterdir()) == []


@pytest.mark.parametrize('files, words', [
    ({}, ['neither', '.jsonl']), ({'a.txt': b''}, ['text', '(0 files could']),
    ({'a.md': b'a\xef\0', 'b.md': b'b'}, ['(1 file could not']),
    ({'a.md': b'', 'b.md': b' \n'}, ['documents']),
    ({'a.txt': b'a\xef\0'}, ['a.txt', 'UTF-8']), ({'a.txt.gz': gzip.compress(b'x' * 99)[:-5]}, ['a.txt.gz']),
    ({'a.txt.gz': gzip.compress(b'x')[:10] + b'\xff' * 99}, ['a.txt.gz']), ({'a.png': b'x'}, ['neither']),
    ({'a.warc.gz': b'x'}, ['warcio', 'docs/data.md'])])
def test_sources_without_text(tmp_path, files, words):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    source = tmp_path / next(iter(files)) if len(files) == 1 and 'a.png' not in files else tmp_path
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out', '--tokenizer=byte'), *words)
    assert not list(tmp_path.glob('out/*'))


@pytest.mark.parametrize('flag', [
    'decontaminate=ten.jsonl', 'mix_tokens=9', 'temperature=2', 'write=text', 'languages=en', 'licences=mit',
    'audit=3', 'toxic_words=ten.jsonl', 'perplexity_reference=ten.jsonl'])
def test_what_needs_documents_is_not_for_a_single_text(tmp_path, flag):
    (tmp_path / 'one.txt').write_text(FOX * 20, encoding='utf-8')
    (tmp_path / 'ten.jsonl').write_text('\ufeff{"prompt": "%s"}' % (FOX.strip() * 2), encoding='utf-8')
    flags = ['--out_dir=out', '--tokenizer=byte', '--mode=raw', '--dedup=none', f'--{flag}']
    mistake(run('prepare.py', '--source=one.txt', *flags, cwd=tmp_path), 'one.txt', flag, '.jsonl')
    assert not (tmp_path / 'out').exists()
    if flag == 'decontaminate=ten.jsonl':
        write(tmp_path / 'many', [*TEXTS, FOX * 2])
        ok(run('prepare.py', '--source=many', *flags, cwd=tmp_path))
        dropped = [s['dropped'] for s in report(tmp_path / 'out')['stages'] if s['dropped']]
        assert dropped == [{'in a benchmark': 1}]


def test_what_prepare_has_written_is_not_read_as_text(tmp_path):
    source = write(tmp_path / 'docs', TEXTS)
    for _ in range(2):
        prepare(source / 'out', source, '--tokenizer=byte', '--audit=2')
        assert sum(report(source / 'out')['documents'].values()) == len(TEXTS)
    (source / 'out/meta.json').write_text('{}', encoding='utf-8')          # somebody else's
    assert len(find_files(str(source))) > len(TEXTS)


def test_a_tokenizer_that_cannot_end_documents_is_refused_before_they_are_read(tmp_path):
    source = write(tmp_path / 'docs', TEXTS)
    Tokenizer.byte().save(tmp_path / 'byte.json')
    flags = f'--out_dir={tmp_path}/out', f'--tokenizer={tmp_path}/byte.json'
    mistake(run('prepare.py', f'--source={source}', *flags), 'byte.json', '<|endoftext|>')
    assert not (tmp_path / 'out').exists()
    ok(run('prepare.py', f'--source={source}/000.txt', *flags, '--val_fraction=0.5'))


@pytest.mark.parametrize('flags, words', [
    (['--tokenizer=wordpiece'], ['wordpiece', 'bpe']), (['--vocab_size=100'], ['vocab_size', '320']),
    (['--val_fraction=1'], ['val_fraction']), (['--kind=sft'], ['5 files', 'sft needs records']),
    (['--tokenizer=no.json'], ['no.json'])])
def test_settings_of_prepare_that_cannot_be(python_files, tmp_path, flags, words):
    mistake(run('prepare.py', f'--source={python_files}/json', f'--out_dir={tmp_path}', *flags), *words)
