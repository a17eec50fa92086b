"""Workers: several processes do the work as one does; a mistake is one line, and so is a process killed."""
import json
import os
import random

import pytest
from conftest import mistake, ok, run
from preparing import prose

from parts.prepare import corpus
from parts.prepare.funnel import Funnel
from parts.prepare.workers import part_of
from tokenizer import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='without fork there is one process')


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    for shard in range(4):
        rows = [json.dumps({'text': prose(100 * shard + i)}) + '\n' for i in range(40)]
        (folder / f'{shard}.jsonl').write_text(''.join(rows), encoding='utf-8')
    return folder


def prepare(source, tmp_path, before='', tokenizer='byte'):
    return run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out', f'--tokenizer={tokenizer}',
               '--dedup=none', '--num_workers=2', before=before, timeout=100)


def test_a_mistake_is_one_line_also_from_another_process(source, tmp_path):
    Tokenizer.char('abc', SPECIAL_TOKENS).save(tmp_path / 'small.json')
    mistake(prepare(source, tmp_path, tokenizer=tmp_path / 'small.json'), 'is not among the 3')


def test_a_worker_that_is_killed_is_one_line_and_the_same_command_resumes(source, tmp_path):
    """As a system does whose memory is full."""
    before = '''
import os
from parts.prepare import corpus
write_shard = corpus.Corpus.write_shard
def spoiled(self, shard, *arguments):
    if shard == 2:
        os.kill(os.getpid(), 9)
    write_shard(self, shard, *arguments)
corpus.Corpus.write_shard = spoiled'''
    mistake(prepare(source, tmp_path, before), 'memory', '--num_workers=1')
    assert list(tmp_path.glob('out/.work/*/00000.json'))
    ok(prepare(source, tmp_path))


def test_each_part_of_the_work_is_done_once():
    for n in (1, 3, 16):
        parts = [part_of(range(20), f'{i}/{n}') for i in range(1, n + 1)]
        assert sorted(job for part in parts for job in part) == list(range(20))
    assert part_of(range(20), '') == range(20)


def test_a_worker_may_read_the_file_that_its_parent_has_begun_to_read(tmp_path):
    """A fork shares the place in an open file, so nobody may rely on a buffer."""
    texts = [random.Random(i).randbytes(1500).hex() for i in range(20)]
    docs = corpus.Corpus(tmp_path / 'work', 'state', Funnel(), ['a'])
    rows = [{'record': {'text': text}, 'size': len(text), 'split': 0} for text in texts]
    docs.write_shard(0, rows, Funnel())
    docs.gather([0])
    assert docs.text(0) == texts[0]
    child = os.fork()
    if not child:
        docs.text(19)
        os._exit(0)
    os.waitpid(child, 0)
    assert [docs.text(i) for i in range(20)] == texts
