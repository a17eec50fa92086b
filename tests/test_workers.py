"""Several processes do the work as one does: a mistake is one line."""
import json
import os

import pytest
from conftest import mistake, run
from test_funnel import prose

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


def test_a_mistake_is_one_line_also_from_another_process(source, tmp_path):
    Tokenizer.char('abc', SPECIAL_TOKENS).save(tmp_path / 'small.json')
    mistake(prepare(source, tmp_path, '', f'--tokenizer={tmp_path}/small.json'), 'is not among the 3')


def test_a_defect_keeps_its_traceback(source, tmp_path):
    broken = "from parts.prepare import reading as r\nr.entries = lambda *_: {}['nine']"
    result = prepare(source, tmp_path, broken)
    assert result.returncode == 1 and result.stderr.splitlines()[-1] == "KeyError: 'nine'"
