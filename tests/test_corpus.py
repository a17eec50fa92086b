"""A corpus on the disk: several machines, shards of text with their hashes, copies told from others."""
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT, read_json, refused, write
from preparing import prepare, prose, report

from parts.prepare.conversions import from_record, identity
from parts.prepare.corpus import check_out_dir

BPE = ['--tokenizer=bpe', '--vocab_size=330', '--num_workers=1']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    for i in range(5):
        write(folder / f'{i}.jsonl', [
            {'text': prose(i * 30 + j, 60 if j else 9), 'license': 'MIT', 'url': f'https://a.org/{j}',
             'repo_name': 'r', 'path': f'{j}'} for j in range(30)])
    return folder


OURS = '{"format": "nanoparrot-data-1"}'
OUT_DIRS = [        # files that are there, what is read, a part of what is said, or None
    ({'meta.json': OURS, 'train.bin': ''}, ['a.txt', 'out.txt'], None),
    ({'.work': '', 'train.jsonl': ''}, ['a.txt'], None),
    ({'meta.json': '{}'}, [], 'has meta.json'), ({'notes.txt': '', 'z.pt': ''}, [], 'has notes.txt'),
    ({'meta.json': OURS[:-1] + ', "config": {"kind": "sft"}}'}, ['a.txt'], 'has data of --kind=sft'),
    ({'meta.json': OURS, 'val.jsonl': ''}, ['link.jsonl'], 'link.jsonl is read')]       # it points to that


def test_nothing_of_others_is_replaced(tmp_path, monkeypatch):
    for i, (files, inputs, words) in enumerate(OUT_DIRS):
        (tmp_path / f'{i}').mkdir()
        monkeypatch.chdir(tmp_path / f'{i}')
        os.mkdir('out')
        os.symlink('out/val.jsonl', 'link.jsonl')
        for name, content in files.items():
            pathlib.Path('out', name).write_text(content, encoding='utf-8')
        if words:
            refused(words, check_out_dir, 'out', inputs, 'text')
        else:
            check_out_dir('out', inputs, 'text')


def test_parts_together_give_what_one_process_gives(folder, tmp_path):
    prepare(tmp_path / 'one', folder, *BPE)
    command = [sys.executable, ROOT / 'prepare.py', f'--source={folder}', f'--out_dir={tmp_path}/many', *BPE]
    some = [subprocess.Popen([*command, f'--part={i}/2'], stdout=subprocess.PIPE, text=True) for i in (1, 2)]
    printed = [process.communicate(timeout=120)[0] for process in some]         # both began at once
    assert 'part 1/2: 3 shards are clean' in printed[0] and 'part 2/2: 2 shards are clean' in printed[1]
    assert not (tmp_path / 'many/meta.json').exists()
    prepare(tmp_path / 'many', folder, *BPE)
    for name in ('train.bin', 'val.bin', 'tokenizer.json', 'report.json'):
        assert (tmp_path / 'many' / name).read_bytes() == (tmp_path / 'one' / name).read_bytes(), name


def test_shards_of_text_say_what_they_are_and_where_each_document_is_from(folder, tmp_path):
    prepare(tmp_path, folder, '--write=text')
    meta = read_json(tmp_path / 'meta.json')
    n = 0
    for i in range(5):
        data = (tmp_path / f'shards/{i:05}.jsonl.gz').read_bytes()
        lines = gzip.decompress(data).splitlines()
        assert meta['sha256'][f'{i:05}'] == hashlib.sha256(data).hexdigest()
        for line in map(json.loads, lines):
            assert line['license'] == 'MIT' and line['url'].startswith('https://a.org/') and line['text']
            assert line['source'] == str(folder) and ' r/' in line['path']
        n += len(lines)
    assert n == meta['documents']['train']
    s = report(tmp_path)['sources'][str(folder)]
    assert s['read'] == 150 == 5 + sum(meta['documents'].values())


def test_pairs_are_copies_only_if_every_field_and_the_label_are():
    rows = [{'prompt': 'q', 'completion': 'q', 'label': label} for label in (0, 1)]
    rows += [{'prompt': 'q', 'chosen': a, 'rejected': b} for a, b in (('2', '22'), ('22', '2'), ('q', 'q'))]
    key_of = lambda row: identity(from_record(row, 'a.jsonl:1', 'preference'))[0]
    assert len({*map(key_of, rows)}) == len(rows)
    assert key_of({'prompt': ' q', 'chosen': '2\n', 'rejected': '2 2'}) == key_of(rows[2])
