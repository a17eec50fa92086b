"""What people bring to prepare.py: endings, encodings, shapes of JSON, folders, and what must not be lost."""
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import ROOT, contents, mistake, ok, read_json, refused, run, shared
from preparing import DOCUMENTS, RAW, documents, kept, prepare, prose, read, report, write, write_records

import prepare as script

TEXTS = [prose(i) for i in range(12)]
TEXT = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5


def read_file(path, *piece):
    """The records of a file, [(line, record)], and why others could not be read, [(line, why)]."""
    why = []
    reject = lambda place, error: why.append((int(place.removeprefix(f'{path}:')), str(error)))
    return [*script.read(str(path), reject, *piece)], why


def test_the_reader_of_records_is_the_same_text_in_extras():
    texts = [(ROOT / name).read_text('utf-8') for name in ('prepare.py', 'extras/records.py')]
    fences = [re.search('# --- records: same text.*?# --- end records', text, re.S)[0] for text in texts]
    assert fences[0] == fences[1]


def test_three_files_alone_do_the_job(tmp_path):
    for name in 'prepare.py', 'tokenizer.py', 'configurator.py':
        shutil.copy(ROOT / name, tmp_path)
    write(tmp_path / 'in', TEXTS)
    ok(subprocess.run([sys.executable, 'prepare.py', '--source=in', '--tokenizer=byte', '--out_dir=out'],
                      cwd=tmp_path, capture_output=True, text=True))
    assert kept(tmp_path / 'out') == sorted(TEXTS)


def test_endings_of_records_are_records_and_unknown_ones_are_refused_unless_raw(tmp_path):
    rows = [{'text': f'{text} Write to ann{i}@uni.edu.'} for i, text in enumerate(TEXTS)]
    for name in 'web.ndjson', 'web.jsonlines':
        prepare(tmp_path / 'out', write_records(tmp_path / name, rows))
        assert ''.join(kept(tmp_path / 'out')).count('<EMAIL>') == 12, name
    for name in 'a.csv', 'a.ipynb', 'a.tar.gz', 'a':
        (tmp_path / name).write_text('x,y\n' * 20, encoding='utf-8')
        mistake(run('prepare.py', f'--source={tmp_path}/{name}', f'--out_dir={tmp_path}/no'),
                'no text at', '--mode=raw')
    prepare(tmp_path / 'out', tmp_path / 'a.csv', '--mode=raw')
    (tmp_path / 'zero.txt').write_bytes(b'a\0' * 99)
    result = run('prepare.py', f'--source={tmp_path}/zero.txt', f'--out_dir={tmp_path}/no')
    mistake(result, 'zero.txt', 'iconv')


def test_a_lone_text_is_masked_and_shakespeare_stays_as_it_is(tmp_path):
    (tmp_path / 'chat.txt').write_text('Call me: (415) 555-2671, ann@uni.edu.\n' * 50, encoding='utf-8')
    said = prepare(tmp_path / 'out', tmp_path / 'chat.txt')
    assert 'email: 50' in said and 'phone: 50' in said
    _, tok, bins = read(tmp_path / 'out')
    assert '<PHONE>, <EMAIL>' in tok.decode(bins['train']) and '@' not in tok.decode(bins['train'])
    prepare(tmp_path / 'out', tmp_path / 'chat.txt', '--pii=False')
    assert '@' in tok.decode(read(tmp_path / 'out')[2]['train'])
    text = shared('tinyshakespeare.txt').read_text(encoding='utf-8')
    assert script.hide(text, found := script.collections.Counter()) == text and not found.total()


def test_text_of_any_ending_is_read_and_what_is_passed_over_is_said(tmp_path):
    source = write(tmp_path / 'in', TEXTS)
    names = 'A.PY b.markdown c.HTML c.rst d.tex d.org d.adoc x.c a.png b.png f e/a.pdf'.split()
    for name in *names, 'node_modules/x.js', '.venv/y.py', 'env/pyvenv.cfg', 'env/z.py':
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f'def f():\n\treturn  "{name}"\n', encoding='utf-8')
    said = prepare(tmp_path / 'out', source, *RAW)
    assert 'tokenizer: byte, 320' in said and len(kept(tmp_path / 'out')) == 12 + 8
    for text in said, (tmp_path / 'out/report.md').read_text(encoding='utf-8'):
        others, = re.findall('passed[ _]over: (.*2 .png, .*)', text)
        for other in '1 .pdf', '1 without ending', '1 node_modules/', '1 .venv/', '1 env/':
            assert other in others, text
    refused('it has 1 .pdf', script.find_files, str(source / 'e'))


def test_data_of_another_source_are_replaced_only_if_that_is_asked_for(tmp_path):
    a, b = write(tmp_path / 'a', TEXTS), write(tmp_path / 'b', TEXTS[:6])
    out = tmp_path / 'out'
    prepare(out, a)
    before = contents(out)
    result = run('prepare.py', f'--source={b}', f'--out_dir={out}')
    mistake(result, f'has data of --source={a}', '--overwrite')
    assert contents(out) == before
    ok(run('prepare.py', f'--source={a}', f'--out_dir={out}', '--tokenizer=byte'))      # the same again
    prepare(out, b)
    assert read_json(out / 'meta.json')['config']['source'] == str(b)


@pytest.mark.parametrize('n', [2, 3, 5])
def test_of_few_documents_at_least_one_is_held_out_and_one_is_not(n, tmp_path):
    prepare(tmp_path / 'out', write(tmp_path / 'in', TEXTS[:n]))
    sides = documents(tmp_path / 'out')
    assert len(sides['val']) >= 1 <= len(sides['train']) == n - len(sides['val'])
    hashes = np.array([7, 3, 9, 4], np.uint64) * np.uint64(2 ** 60)
    assert script.held_out(hashes, 0.1).tolist() == [False, True, False, False]
    assert script.held_out(hashes, 0.99).sum() == 3


def test_marks_of_byte_order_are_read_and_other_encodings_are_named(tmp_path):
    for encoding in 'utf-8-sig', 'utf-16':
        for name in 'a.txt', 'a.jsonl', 'a.jsonl.gz':
            text = 'naïve text\n' if name == 'a.txt' else json.dumps({'text': 'naïve text\n'}) + '\n'
            data = text.encode(encoding)
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('gz') else data)
            line = int('json' in name)
            assert read_file(tmp_path / name) == ([(line, {'text': 'naïve text\n'})], []), (encoding, name)
    for data, encoding in (TEXT.encode(), 'utf-8'), (b'', 'utf-8'), (TEXT.encode('cp1252'), 'cp1252'):
        for name in 'a.txt', 'a.md.gz':
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
            assert read_file(tmp_path / name) == ([(0, {'text': data.decode(encoding)})], [])
    for data in ('наивный текст'.encode('koi8-r'), b'\x89PNG\r\n\0\0', 'plain text'.encode('utf-16-le'),
                 b'a\0b' * 9, b'one word and a byte that is none: \x81'):
        (tmp_path / 'a.txt').write_bytes(data)
        records, [(line, why)] = read_file(tmp_path / 'a.txt')
        assert (records, line) == ([], 1) and 'iconv -f utf-16' in why, data


def test_other_shapes_of_json_and_unknown_fields_are_named(tmp_path):
    for text, words in [('[\n{"text": "a"},\n{"text": "b"}\n]\n', 'JSON over several lines'),
                        ('{\n "text": "a"\n}\n', 'JSON over several lines'),
                        ('{"text": "a"},\n', 'a comma at its end'), ('[{"text": "a"}, 1\n', 'a list')]:
        (tmp_path / 'a.jsonl').write_text(text, encoding='utf-8')
        assert words in str(read_file(tmp_path / 'a.jsonl')[1]), text
    rows = [{'title': 'x', 'article': text} for text in TEXTS]
    source = write_records(tmp_path / 'b.jsonl', rows)
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out'), 'it has title, article',
            '--text_field=NAME', 'could not be read: 12')
    prepare(tmp_path / 'out', source, '--text_field=article')
    assert kept(tmp_path / 'out') == sorted(TEXTS)


def test_long_texts_are_cut_at_paragraphs_and_lines_with_endoftext_divide_texts(tmp_path):
    text = '\n\n'.join(f'{i} ' + prose(i) for i in range(30_000))
    (tmp_path / 'a.txt').write_text(text, encoding='utf-8')
    pieces = [record['text'] for _, record in read_file(tmp_path / 'a.txt')[0]]
    assert ''.join(pieces) == text and len(pieces) > 2 and max(map(len, pieces)) < 8_000_000
    assert all(piece.endswith('.\n\n') for piece in pieces[:-1])
    stories = '<|endoftext|>\n'.join(f'{text}\n' for text in TEXTS)
    (tmp_path / 'b.txt').write_text(stories, encoding='utf-8')
    prepare(tmp_path / 'out', tmp_path / 'b.txt')
    assert kept(tmp_path / 'out') == sorted(TEXTS)


def test_a_source_of_a_mixture_that_is_too_short_to_be_measured_is_named(tmp_path):
    sources = {'long': (str(write(tmp_path / 'a', TEXTS)), 1),
               'tiny': (str(write(tmp_path / 'b', ['one two', 'three four', 'five six'])), 1)}
    (tmp_path / 'mix.py').write_text(f'{sources=}\n', encoding='utf-8')
    said = ok(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={tmp_path}/out', '--tokenizer=byte', *RAW))
    assert 'tiny is too short to be measured' in said


def test_a_foreign_work_folder_stays_and_a_second_prepare_is_refused(tmp_path):
    (tmp_path / 'out/.work').mkdir(parents=True)
    (tmp_path / 'out/.work/thesis').write_text('mine', encoding='utf-8')
    source = write(tmp_path / 'in', TEXTS)
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out'), 'not prepared there')
    assert (tmp_path / 'out/.work/thesis').exists()
    _, lock = script.work_folder(tmp_path / 'two', 'state', '')
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/two'), 'another prepare.py works')
    lock.close()


def test_a_source_that_changes_is_noticed_and_a_bomb_and_a_pipe_are_named(tmp_path):
    source = write_records(tmp_path / 'a.jsonl', [{'text': text} for text in TEXTS])
    change = f"""
import json
real = json.dumps
def dumps(value, **more):
    if 'texts' in value:
        with open({str(source)!r}, 'a') as f:
            f.write(' ')
    return real(value, **more)
json.dumps = dumps
"""
    flags = [f'--source={source}', f'--out_dir={tmp_path}/out', '--num_workers=1']
    mistake(run('prepare.py', *flags, before=change), 'changed while it was read')
    with gzip.open(tmp_path / 'bomb.txt.gz', 'wb') as f:
        f.write(bytes(20_000_000))
    mistake(run('prepare.py', f'--source={tmp_path}/bomb.txt.gz', f'--out_dir={tmp_path}/no'), 'bomb.txt.gz')
    os.mkfifo(tmp_path / 'pipe.txt')
    mistake(run('prepare.py', f'--source={tmp_path}/pipe.txt', f'--out_dir={tmp_path}/no'), 'pipe.txt')


def test_spawned_processes_give_the_same_bytes(tmp_path):
    for i in range(4):
        write_records(tmp_path / f'in/{i}.jsonl', [{'text': prose(i * 30 + j)} for j in range(30)])
    spawning = tmp_path / 'spawning.py'                     # the same program where it can't fork
    text = (ROOT / 'prepare.py').read_text('utf-8')
    assert "sys.platform == 'linux'" in text
    spawning.write_text(text.replace("sys.platform == 'linux'", 'False'), encoding='utf-8')
    made = []
    for program in ROOT / 'prepare.py', spawning:
        out = tmp_path / f'out_{program.stem}'
        ok(subprocess.run([sys.executable, program, f'--source={tmp_path}/in', f'--out_dir={out}',
                           '--tokenizer=byte', '--num_workers=2'], capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}))
        made.append([(out / name).read_bytes() for name in ('train.bin', 'val.bin', 'report.json')])
    assert made[0] == made[1]


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
            assert [script.text_of(record) for _, record in read_file(tmp_path / path)[0]] == texts, path


LINES = [json.dumps({'text': f'line {i} ' * (i % 7)}) for i in range(500)]
LINES[17:19] = ['', '{broken']


def test_the_pieces_of_a_large_file_are_together_the_file(tmp_path, monkeypatch):
    plain = '\n'.join(LINES).encode()
    packed = gzip.compress(plain)
    for name, data in ('a.jsonl', plain), ('a.jsonl.gz', packed), ('cut.jsonl.gz', packed[:-400]):
        path = tmp_path / name
        path.write_bytes(data)
        whole = read_file(path)
        pieces = [read_file(path, i, 8) for i in range(8)]
        for one, several in zip(whole, zip(*pieces)):       # records, what was rejected
            assert sorted(sum(several, []), key=lambda entry: entry[0]) == one, name
        assert len(whole[1]) == 1 + (name == 'cut.jsonl.gz')
        sizes = [len(records) for records, _ in pieces]
        assert max(sizes) <= min(sizes) + 3
    files = {'a': [str(tmp_path / 'a.jsonl')]}
    assert script.cut_into_shards(files) == [('a', [(*files['a'], 0, 1)])]
    monkeypatch.setattr(script, 'SHARD', 100)
    assert script.cut_into_shards(files) == [('a', [(*files['a'], i, 8)]) for i in range(8)]
    # judged answers to one problem belong together
    assert script.cut_into_shards(files, 'preference') == [('a', [(*files['a'], 0, 1)])]


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
        path = str(tmp_path / name)
        (tmp_path / name).write_bytes(data)
        rejected = []
        told = lambda place, error: rejected.append(place)
        config = types.SimpleNamespace(kind='text', text_field='')
        documents = script.documents_of([(path,)], config, told)
        assert [document['texts'][0] for document in documents] == texts, name
        assert rejected == [f'{path}:{line}' for line in lines], name


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


# --- folders ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(os.name == 'nt', reason='no links')
def test_links_to_files_are_read_and_those_to_folders_are_not(tmp_path):
    write(tmp_path / 'x', ['one'], 'one.txt')
    write(tmp_path / 'x/sub', ['two'], 'two.txt')
    write(tmp_path / 'x/.hidden', ['five'], 'five.txt')
    write(tmp_path / 'y', ['four'], 'four.txt')
    for name, to in (('a', '.'), ('b', '.'), ('sub/up', '..'), ('c.txt', 'one.txt'), ('far', '../y')):
        (tmp_path / 'x' / name).symlink_to(to)
    for pattern in ('', '/**', '/**/*.txt', '/sub/../**/*.txt'):
        found, _ = script.find_files(f'{tmp_path}/x{pattern}')
        paths = [os.path.relpath(path, tmp_path) for path in found]
        assert paths == ['x/c.txt', 'x/one.txt', 'x/sub/two.txt'], pattern


def test_what_prepare_has_written_is_not_read_as_text(tmp_path):
    source = write(tmp_path / 'docs', DOCUMENTS)
    for _ in range(2):
        prepare(source / 'out', source, *RAW, '--audit=2')
        assert len(kept(source / 'out')) == len(DOCUMENTS)
    (source / 'out/val.bin').unlink()           # then it is somebody else's folder
    assert len(script.find_files(str(source))[0]) > len(DOCUMENTS)


def test_a_tokenizer_that_is_missing_is_told_before_the_cleaning_and_so_is_that_nothing_is_left(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.txt').write_text('Page not found\n', encoding='utf-8')
    flags = [f'--source={tmp_path}', f'--out_dir={tmp_path}/out', '--num_workers=1']
    mistake(run('prepare.py', *flags, '--tokenizer=nowhere.json'), 'nowhere.json', 'no such file')
    assert not (tmp_path / 'out').exists()
    for dedup in 'none', 'exact', 'minhash', 'simhash':
        mistake(run('prepare.py', *flags, f'--dedup={dedup}'), 'no documents are left', 'short: 2')
