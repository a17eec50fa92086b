"""What people bring to prepare.py: endings, encodings, shapes of JSON, folders, and what must not be lost."""
import gzip
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, contents, mistake, ok, read_json, run, shared
from preparing import RAW, documents, dropped, kept, prepare, prose, read, write, write_records

import prepare as script

TEXTS = [prose(i) for i in range(12)]


def read_file(path, **more):
    """The records of a file, and why others could not be read."""
    why = []
    return [record for _, record in script.read(str(path), lambda *error: why.append(error), **more)], why


def test_the_reader_of_records_is_the_same_text_in_extras():
    pages = [(ROOT / name).read_text('utf-8') for name in ('prepare.py', 'extras/records.py')]
    fences = [re.search('# --- records: same text.*?# --- end records', page, re.S)[0] for page in pages]
    assert fences[0] == fences[1]


def test_three_files_alone_do_the_job(tmp_path):
    for name in 'prepare.py', 'tokenizer.py', 'configurator.py':
        shutil.copy(ROOT / name, tmp_path)
    source = write(tmp_path / 'in', TEXTS)
    ok(subprocess.run([sys.executable, 'prepare.py', '--source=in', '--tokenizer=byte', '--out_dir=out'],
                      cwd=tmp_path, capture_output=True, text=True))
    assert kept(tmp_path / 'out') == sorted(TEXTS)
    result = subprocess.run([sys.executable, 'prepare.py', f'--source={source}', '--languages=en'],
                            cwd=tmp_path, capture_output=True, text=True)
    mistake(result, 'copy extras, too')


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
    mistake(run('prepare.py', f'--source={tmp_path}/zero.txt', f'--out_dir={tmp_path}/no'),
            'zero.txt', 'iconv')


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


def test_what_is_passed_over_is_said_and_other_code_is_read(tmp_path):
    source = write(tmp_path / 'in', TEXTS)
    for name in 'a.png', 'b.png', 'node_modules/x.js', '.venv/y.py', 'env/pyvenv.cfg', 'env/z.py':
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text('def f(): pass\n', encoding='utf-8')
    (source / 'x.c').write_text('int f(void) {\n\treturn  1;\n}\n', encoding='utf-8')
    said = prepare(tmp_path / 'out', source, *RAW)
    assert 'passed over: 2 .png, ' in said
    assert all(f'1 {name}/' in said for name in ('node_modules', '.venv', 'env'))
    assert len(kept(tmp_path / 'out')) == 13 and script.mode_of('x', 'x.c') == 'other code'


def test_data_of_another_source_are_replaced_only_if_that_is_asked_for(tmp_path):
    a, b = write(tmp_path / 'a', TEXTS), write(tmp_path / 'b', TEXTS[:6])
    out = tmp_path / 'out'
    prepare(out, a)
    before = contents(out)
    mistake(run('prepare.py', f'--source={b}', f'--out_dir={out}'),
            f'has data of --source={a}', '--overwrite')
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
            assert read_file(tmp_path / name) == ([{'text': 'naïve text\n'}], []), (encoding, name)
    (tmp_path / 'a.txt').write_bytes('plain text'.encode('utf-16-le'))
    assert 'iconv -f utf-16' in str(read_file(tmp_path / 'a.txt')[1])


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
    pieces = [record['text'] for record in read_file(tmp_path / 'a.txt')[0]]
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
    command = ['prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out', '--num_workers=1']
    mistake(run(*command, before=change), 'changed while it was read')
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


def test_near_copies_are_dropped_and_said(tmp_path):
    texts = [prose(i, 300) for i in range(8)]
    prepare(tmp_path / 'out', write(tmp_path / 'in', [
        *texts, f'{texts[0]} more', texts[1].replace(' ', '\n')]))
    assert dropped(tmp_path / 'out') == {'exact duplicate': 1, 'near duplicate': 1}
