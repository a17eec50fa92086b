"""train.py --streaming: text tokenised on the fly gives what the bins give, and goes on where it stopped."""
import gzip
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from accidents import accident
from conftest import metrics, mistake, ok, run, same, series, state, train

from model import load_checkpoint
from parts.train.streams import Stream


def streamed(folder, out, *more, **how):
    return train(folder, out, f'--streaming={folder}/shards', *more, **how)


@pytest.fixture(scope='module')
def both(python_files, tmp_path_factory):
    """The same documents as bins and as shards."""
    out = tmp_path_factory.mktemp('stream')
    records = out / 'records'
    records.mkdir()
    files = sorted(python_files.rglob('*.py'))
    for i in range(4):
        with gzip.open(records / f'{i}.jsonl.gz', 'wt', encoding='utf-8') as f:
            f.writelines(json.dumps({'content': p.read_text(encoding='utf-8')}) + '\n' for p in files[i::4])
    for form in ('bins', 'text'):
        ok(run('prepare.py', f'--source={records}', f'--out_dir={out}/{form}', '--vocab_size=512',
               '--mode=code', f'--write={form}'))
    return out


def test_a_stream_gives_the_batches_of_the_bins_and_trains_the_same_model(both, tmp_path):
    ok(train(both / 'bins', tmp_path / 'bins', '--shuffle=False'))
    ok(streamed(both / 'text', tmp_path / 'text'))
    assert metrics(tmp_path / 'bins') == metrics(tmp_path / 'text')
    assert same(*(state(tmp_path / w)['model'] for w in ('bins', 'text')))


@pytest.mark.parametrize('processes', [1, 2])
def test_a_stream_that_was_killed_goes_on_bit_for_bit(both, tmp_path, processes):
    data, out, flags = both / 'text', tmp_path / 'killed', ['--max_steps=14']
    ok(streamed(data, tmp_path / 'straight', *flags, processes=processes))
    streamed(data, out, *flags, processes=processes, before=accident('kill', 9))
    before = load_checkpoint(tmp_path / 'killed/last.pt')[1]
    assert before['step'] == 8 and len(before['stream']) == processes
    ok(streamed(data, out, *flags, '--init_from=resume', processes=processes))
    assert series(tmp_path / 'killed', 'loss') == series(tmp_path / 'straight', 'loss')
    if processes == 1:
        result = streamed(data, out, *flags, '--init_from=resume', processes=2)
        assert result.returncode and 'streams=1, this run has 2' in result.stderr


def stream_of(paths, T):
    """Bytes as tokens."""
    return Stream(paths, lambda texts: [list(t.encode()) for t in texts], {'<|endoftext|>': 256}, T)


@pytest.mark.parametrize('cut', range(7))
def test_a_stream_is_its_documents_joined_wherever_it_is_resumed(tmp_path, cut):
    """Empty texts, lines that are no records, and several passes."""
    texts, T, sizes = ['ab', '', 'é\nb', 'a' * 23, 'b a', ''], 3, [1, 4, 2, 1, 3, 4]
    for i in (0, 1):
        with open(tmp_path / f'{i}.jsonl', 'w', encoding='utf-8') as f:
            f.writelines(json.dumps({'text': t}) + '\n\nnot json\n' for t in texts[i::2])
    paths = [str(tmp_path / f'{i}.jsonl') for i in (0, 1)]
    ids = np.array([b for i in (0, 1) for t in texts[i::2] for b in [*t.encode(), 256]] * 2)
    stream, at = stream_of(paths, T), 0
    for i, n in enumerate(sizes):
        if i == cut:                                                        # through JSON, as a checkpoint
            state = json.loads(json.dumps(stream.state))
            stream = stream_of(paths, T)
            stream.seek(state)
        x, y = stream.take(i, range(n))
        assert (x.ravel() == ids[at:at + n * T]).all() and (y.ravel() == ids[at + 1:at + n * T + 1]).all()
        at += n * T


def test_damaged_shards_cost_what_is_damaged(tmp_path):
    lines = [json.dumps({'text': os.urandom(400).hex()}) + '\n' for _ in range(50)]
    whole = gzip.compress(''.join(lines).encode())
    (tmp_path / 'a.jsonl.gz').write_bytes(whole[:len(whole) // 2])
    (tmp_path / 'b.jsonl').write_bytes(b'{"text": 3}\n\xff\xfe\n{"text": "good"}\n[1]\n')
    paths = [str(tmp_path / name) for name in ('a.jsonl.gz', 'b.jsonl')]
    stream = stream_of(paths, 8)
    text = bytes(i % 256 for i in stream.take(0, range(7000))[0].ravel())
    assert text.count(b'good') >= 2 and stream.malformed >= 8               # passes go on


def test_streams_that_cannot_be(both, tmp_path):
    data, out = both / 'text', tmp_path / 'run'
    mistake(train(data, out, f'--streaming={tmp_path}/nowhere'), 'nowhere', '--write=text')
    (tmp_path / 'empty.jsonl').write_text('\n', encoding='utf-8')
    mistake(train(data, out, f'--streaming={tmp_path}/empty.jsonl'), 'empty.jsonl', 'text')


# --- a stream is that of its meta.json ----------------------------------------------------------------------
def other_text(path):
    """The same number of documents and of characters, but not the same text."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'def', b'fed')))


def test_shards_that_meta_json_does_not_list_are_refused(both, tmp_path):
    more = lambda shard: shutil.copy(shard, shard.with_name('zz.jsonl.gz'))
    for i, change in enumerate((other_text, pathlib.Path.unlink, more)):
        folder = shutil.copytree(both / 'text', tmp_path / f'{i}')
        first, *_ = sorted(folder.glob('shards/*.jsonl.gz'))
        change(first)
        wrong = 'zz.jsonl.gz' if change == more else first.name
        mistake(streamed(folder, tmp_path / 'run'), wrong, 'meta.json lists', 'prepare.py')
    assert not (tmp_path / 'run').exists()
