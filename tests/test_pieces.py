"""A large file of records is shared out by its lines: the pieces together are the file, damaged or not."""
import gzip
import json

import pytest

from parts.prepare import files, reading

LINES = [json.dumps({'text': f'line {i} ' * (i % 7)}) for i in range(500)]
LINES[17:20] = ['', '{broken', json.dumps({'text': 'x' * 900})]


def pieces_of(path, kind='text'):
    shards = files.shards({'a': (str(path), None)}, '', kind)
    assert all(len(shard['files']) == 1 for shard in shards)
    return [shard['files'][0] for shard in shards]


@pytest.mark.parametrize('ending', ['\n', ''])
@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz', 'cut.jsonl.gz', 'one.jsonl'])
def test_the_pieces_together_are_the_file(name, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'SHARD', 100)
    data = ('\n'.join(LINES if name != 'one.jsonl' else LINES[6:7]) + ending).encode()
    if name.endswith('.gz'):
        data = gzip.compress(data, mtime=0)
    if name.startswith('cut'):
        data = data[:len(data) * 2 // 3]
    path = tmp_path / name
    path.write_bytes(data * (4 if name == 'one.jsonl' and ending else 1))
    whole = list(reading.entries([{'path': str(path)}], 100))       # 100 characters: a line is too long
    pieces = pieces_of(path)
    if name != 'one.jsonl':
        assert len(pieces) == files.PIECES
        assert any(why and 'longer' in why for _, _, _, why, _ in whole)
        assert any(why and 'Error' in why for _, _, _, why, _ in whole)
    assert [entry for piece in pieces for entry in reading.entries([piece], 100)] == whole


def test_no_piece_is_much_larger_than_another(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'SHARD', 100)
    (tmp_path / 'a.jsonl').write_text('\n'.join(LINES), encoding='utf-8')
    sizes = [len(list(reading.entries([piece]))) for piece in pieces_of(tmp_path / 'a.jsonl')]
    assert max(sizes) <= min(sizes) + 3


def test_small_files_and_conversations_stay_whole(tmp_path, monkeypatch):
    (tmp_path / 'a.jsonl').write_text('\n'.join(LINES), encoding='utf-8')
    assert pieces_of(tmp_path / 'a.jsonl') == [{'path': str(tmp_path / 'a.jsonl')}]
    monkeypatch.setattr(files, 'SHARD', 100)
    assert len(pieces_of(tmp_path / 'a.jsonl', 'sft')) == 1     # samples of one problem belong together
