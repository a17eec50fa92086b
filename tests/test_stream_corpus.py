"""A stream is resumed on the corpus it began with, and data_dir/shards hold what meta.json lists."""
import gzip
import hashlib
import json
import shutil

import pytest
from conftest import TINY, metrics, mistake, ok, run

from model import load_checkpoint, save_checkpoint


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """A folder of prepare.py with three shards, as its meta.json lists them."""
    out = tmp_path_factory.mktemp('corpus')
    for i in range(3):
        rows = [{'text': f'document {j} of shard {i}: ' + 'abc ' * 30} for j in range(20)]
        (out / f'{i}.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    ok(run('prepare.py', f'--source={out}/*.jsonl', f'--out_dir={out}/data', '--tokenizer=byte', '--mode=raw',
           '--dedup=none', '--write=text', '--val_fraction=0.2'))
    assert len(shards(out / 'data')) == 3
    describe(out / 'data')
    return out / 'data'


def shards(folder):
    return sorted(folder.glob('shards/*.jsonl.gz'))


def describe(folder):
    meta = json.loads((folder / 'meta.json').read_text(encoding='utf-8'))
    meta['shards'] = {'train': [{
        'name': p.name, 'documents': len(gzip.open(p).readlines()), 'bytes': p.stat().st_size,
        'sha256': hashlib.sha256(p.read_bytes()).hexdigest()} for p in shards(folder)]}
    (folder / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')


def other_text(path):
    """The same number of documents and of characters, but not the same text."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'abc', b'xyz')))


def train(folder, out, *more):
    flags = [f'--data_dir={folder}', f'--streaming={folder}/shards', f'--out_dir={out}', *TINY]
    return run('train.py', *flags, *more)


@pytest.mark.parametrize('change', ['a text', 'a name', 'a shard less', 'a shard more'])
def test_shards_that_the_manifest_does_not_list_are_refused(corpus, tmp_path, change):
    folder = shutil.copytree(corpus, tmp_path / 'data')
    first, second, _ = shards(folder)
    if change == 'a text':
        other_text(second)
    elif change == 'a name':
        second.rename(folder / 'shards/zz.jsonl.gz')
    elif change == 'a shard less':
        second.unlink()
    else:
        shutil.copy(second, folder / 'shards/zz.jsonl.gz')
    mistake(train(folder, tmp_path / 'run'), 'zz.jsonl.gz' if change == 'a shard more' else second.name,
            'meta.json lists', 'prepare.py')
    assert not (tmp_path / 'run').exists()


def test_another_corpus_is_refused_on_resume_also_without_a_manifest(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / 'data')
    meta = json.loads((folder / 'meta.json').read_text(encoding='utf-8'))
    del meta['shards']                                      # as an older commit wrote it
    (folder / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    ok(train(folder, tmp_path / 'run'))
    mine = shards(folder)
    original = mine[0].read_bytes()
    other_text(mine[0])
    mistake(train(folder, tmp_path / 'run', '--init_from=resume', '--max_steps=14'), 'shard_sha256=', 'data')
    mine[0].write_bytes(original)
    right, meta['sha256']['train'] = meta['sha256']['train'], '0' * 64      # as if it had been prepared again
    (folder / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    result = train(folder, tmp_path / 'run', '--init_from=resume', '--max_steps=14')
    mistake(result, 'data_sha256=', 'data')
    meta['sha256']['train'] = right
    (folder / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    shutil.copytree(tmp_path / 'run', tmp_path / 'older')
    ok(train(folder, tmp_path / 'run', '--init_from=resume', '--max_steps=14'))
    assert [m['step'] for m in metrics(tmp_path / 'run') if 'loss' in m][-1] == 14

    model, state = load_checkpoint(tmp_path / 'older/last.pt')      # of an older commit, without their hashes
    assert set(state.pop('shard_sha256')[0]) == {p.name for p in mine}
    save_checkpoint(tmp_path / 'older/last.pt', model, **state)
    ok(train(folder, tmp_path / 'older', '--init_from=resume', '--max_steps=14'))


def test_a_part_of_the_shards_is_read_if_a_pattern_asks_for_it(corpus, tmp_path):
    one = f'--streaming={shards(corpus)[1]}'
    ok(run('train.py', f'--data_dir={corpus}', one, f'--out_dir={tmp_path}', *TINY, '--max_steps=4'))
