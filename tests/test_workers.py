"""Several processes do the work as one does: they stop when there is enough, and a mistake is one line."""
import json
import os
import time

import pytest
from conftest import mistake, ok, run
from test_funnel import prose
from test_prepare import report

from parts.prepare import workers
from tokenizer import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='without fork there is one process')


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / 'files'
    folder.mkdir()
    for shard in range(4):
        rows = [json.dumps({'text': prose(100 * shard + i)}) + '\n' for i in range(40)]
        (folder / f'{shard}.jsonl').write_text(''.join(rows), encoding='utf-8')
    return folder


def prepare(source, tmp_path, before, *flags):
    return run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out', '--tokenizer=byte',
               '--dedup=none', '--processes=2', *flags, before=before, timeout=100)


def test_work_that_nobody_waits_for_is_ended(tmp_path):
    def job(i):
        time.sleep(3 * (i > 0))
        (tmp_path / str(i)).touch()
        return i
    job.__module__, job.__qualname__ = __name__, 'job'
    globals()['job'] = job
    results = workers.in_parallel(job, range(4), 2, 'waiting')
    assert next(results) == 0
    results.close()
    assert os.listdir(tmp_path) == ['0']


def test_with_enough_documents_the_work_on_the_others_ends(source, tmp_path):
    before = f"""
import pathlib
from parts.prepare import workers
from tokenizer import SPECIAL_TOKENS, Tokenizer
real = workers.in_parallel
def spy(*given):
    try:
        yield from real(*given)
    except GeneratorExit:
        pathlib.Path('{tmp_path}/closed').touch()
        raise
workers.in_parallel = spy"""
    ok(prepare(source, tmp_path, before, '--max_docs=30'))
    documents = report(tmp_path / 'out')['documents']
    assert documents['train'] + documents['val'] == 30 and (tmp_path / 'closed').exists()


def test_a_mistake_is_one_line_also_from_another_process(source, tmp_path):
    Tokenizer.char('abc', SPECIAL_TOKENS).save(tmp_path / 'small.json')
    mistake(prepare(source, tmp_path, '', f'--tokenizer={tmp_path}/small.json'), 'is not among the 3')


def test_a_defect_keeps_its_traceback(source, tmp_path):
    result = prepare(source, tmp_path, "from parts.prepare import reading\nreading.entries = lambda *_: {}['nine']")
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == "KeyError: 'nine'"
