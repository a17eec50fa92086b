"""Several machines, shards of text, pairs: the same bytes, hashes of all, copies told from others."""
import gzip
import hashlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT, mistake, ok, run
from test_prepare import report

WORDS = 'old mill by the river where water rose each spring until it reached second step of stair'.split()


def text(i):
    words = (WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(40))
    return ' '.join(word + str(i * j % 11) * (j % 3 == 0) for j, word in enumerate(words))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    for i in range(5):
        rows = [{'text': text(i * 30 + j), 'license': 'MIT', 'url': f'https://a.org/{j}', 'repo_name': 'r',
                 'path': f'{j}'} for j in range(30)]
        (folder / f'{i}.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    return folder


def flags(folder, out, *more):
    return ['prepare.py', f'--source={folder}', f'--out_dir={out}', '--vocab_size=330', '--min_words=5',
            '--max_repetition=0', '--max_gibberish=0', '--processes=1', *more]


def results(out):
    return [(out / name).read_bytes() for name in ('train.bin', 'val.bin', 'tokenizer.json', 'report.json')]


def test_parts_together_give_what_one_process_gives(folder, tmp_path):
    ok(run(*flags(folder, tmp_path / 'one')))
    command = [sys.executable, ROOT / 'prepare.py', *flags(folder, tmp_path / 'many')[1:]]
    some = [subprocess.Popen([*command, f'--part={i}/3'], stdout=subprocess.DEVNULL) for i in (1, 2)]
    assert [p.wait(120) for p in some] == [0, 0]            # both began at once
    assert len([*(tmp_path / 'many').glob('.work/*/?????.json')]) == 4
    assert not (tmp_path / 'many/meta.json').exists()
    assert '1 are left' in ok(run(*flags(folder, tmp_path / 'many', '--part=1/3')))         # nothing to do
    assert '1 shards are clean, 0 are left' in ok(run(*flags(folder, tmp_path / 'many', '--part=3/3')))
    ok(run(*flags(folder, tmp_path / 'many')))
    assert results(tmp_path / 'many') == results(tmp_path / 'one')
    (tmp_path / 'a.txt').write_text(text(1) * 9, encoding='utf-8')
    mistake(run(*flags(tmp_path / 'a.txt', tmp_path / 'single', '--part=1/2')), 'part', 'needs documents')


def test_shards_of_text_say_what_they_are_and_where_each_document_is_from(folder, tmp_path):
    ok(run(*flags(folder, tmp_path, '--write=text')))
    meta = json.loads((tmp_path / 'meta.json').read_text(encoding='utf-8'))
    n, whole = 0, hashlib.sha256()
    assert [s['name'] for s in meta['shards']['train']] == sorted(p.name for p in tmp_path.glob('shards/*'))
    for shard in meta['shards']['train']:
        data = (tmp_path / 'shards' / shard['name']).read_bytes()
        whole.update(data)
        lines = gzip.decompress(data).splitlines()
        assert shard == {'name': shard['name'], 'documents': len(lines), 'bytes': len(data),
                         'sha256': hashlib.sha256(data).hexdigest()}
        for line in map(json.loads, lines):
            assert line['licence'] == 'mit' and line['url'].startswith('https://a.org/') and line['text']
            assert line['source'] == str(folder) and ' r/' in line['path']
        n += len(lines)
    val = hashlib.sha256((tmp_path / 'val.bin').read_bytes())
    assert meta['sha256'] == {'train': whole.hexdigest(), 'val': val.hexdigest()}
    assert n == meta['documents']['train']
    card = report(tmp_path)['card']
    assert card['licences'] == {'mit': 150} and card['languages'] and '10,000,000,000' in card['share']
    s = report(tmp_path)['sources'][str(folder)]
    assert s['read'] == 150 == sum(s['dropped'].values()) + sum(meta['documents'].values())


LONG = 'a long question that both pairs share and that has many words ' * 20
KTO = [{'prompt': LONG, 'completion': LONG[::-1], 'label': label} for label in (0, 1)]
SWAPPED = [{'prompt': LONG, 'chosen': a, 'rejected': b} for a, b in (('yes', 'no'), ('no', 'yes'))]
SPLIT = [{'prompt': 'q', 'chosen': a, 'rejected': b} for a, b in (('2', '22'), ('22', '2'))]


@pytest.mark.parametrize('dedup', ['exact', 'minhash', 'simhash'])
@pytest.mark.parametrize('rows', [KTO, SWAPPED, SPLIT])
def test_pairs_are_copies_only_if_every_field_and_the_label_are(tmp_path, rows, dedup):
    others = [{'prompt': f'{text(i)}', 'chosen': f'yes {i}', 'rejected': f'no {i}'} for i in range(20)]
    lines = [json.dumps(row) for row in [*rows, *rows, *others]]         # rows are there twice
    (tmp_path / 'x.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    ok(run('prepare.py', '--kind=preference', f'--source={tmp_path}/x.jsonl', f'--out_dir={tmp_path}/out',
           f'--dedup={dedup}'))
    assert sum(report(tmp_path / 'out')['documents'].values()) == 22


def test_answers_are_filtered_by_score_length_and_phrases(tmp_path):
    rows = [{'instruction': f'q{i}', 'output': f'answer {i}', 'score': 9} for i in range(30)]
    rows += [{'instruction': 'a', 'output': 'answer', 'score': 2},
             {'instruction': 'b', 'output': 'no', 'rating': 9},
             {'instruction': 'c', 'output': 'x' * 99}, {'instruction': 'd', 'output': 'As an AI model, no.'}]
    (tmp_path / 'x.json').write_text(json.dumps(rows), encoding='utf-8')
    (tmp_path / 'phrases').write_text('as an AI model\n', encoding='utf-8')
    ok(run('prepare.py', '--kind=sft', f'--source={tmp_path}/x.json', f'--out_dir={tmp_path}/out',
           '--dedup=none', '--min_score=5', '--min_answer=3', '--max_answer=50',
           f'--unwanted={tmp_path}/phrases'))
    dropped, = [s['dropped'] for s in report(tmp_path / 'out')['stages'] if s['dropped']]
    assert dropped == {'low score': 1, 'short answer': 1, 'long answer': 1, 'unwanted phrase': 1}
