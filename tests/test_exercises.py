"""Every exercise can be begun and solved, and its grade refuses a usual mistake; the page lists them all."""
import ast
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from exercise import (
    EMPTY,
    EXERCISES,
    blanked,
    copy_project,
    grade,
    grade_cell,
    lines_of,
    part_to_write,
)

PAGE = (ROOT / 'docs/exercises.md').read_text(encoding='utf-8')
SOURCES = {e.name: (ROOT / e.file).read_text(encoding='utf-8') for e in EXERCISES}
# name -> a change of the right answer that makes a usual mistake: what stands there, what is put there
MISTAKES = {
    'pass_at_k': ('math.comb(n - c, k) / math.comb(n, k)', '(1 - c / n) ** k'),  # biased
    'schedule': ('(step + 1) / warmup_steps', 'step / warmup_steps'),  # begins at 0
    'rms_norm': ('x.float(), self', 'x.float() - x.float().mean(-1, keepdim=True), self'),  # LayerNorm's
    'rope': ('b * cos + a * sin', 'b * cos - a * sin'),  # not a rotation
    'top_p': ('p.cumsum(dim=-1) - p >=', 'p.cumsum(dim=-1) >='),  # drops the one that reaches p
    'chat_mask': ('[0] * len(header) + [int', "[int(role == 'assistant')] * len(header) + [int"),
    'targets': ('np.where(mask[1:], ids[1:]', 'np.where(mask[:-1], ids[1:]'),  # not shifted
    'dpo': ('-(1 - label_smoothing) * F.logsigmoid(margin)',
            '-(1 - label_smoothing) * torch.log(margin.sigmoid())'),  # -inf at -2000
    'bpe_encode': ('min(zip', 'max(zip'),
    'attention': ('.tril(start)', '.tril()'),  # forgets the cache's positions
    'minhash': ('a * x', 'x'),  # one order for all functions
    'accumulation': ('mean * share * here.world', 'mean'),  # a sum of means
    'batch_order': ('starts), self.seed, epoch)', 'starts), self.seed, 0)'),  # one order for all epochs
    'resume': ("'moments': moments,", "'moments': None,"),
    'bpe_train': ('(-frequency[pair], pair)', '(-frequency[pair], pair[::-1])'),  # other ties
}
# the fastest test of the exercise that refuses it, if that is not the first one
FASTEST = {
    'schedule': 'test_optim.py::test_the_schedule_at_its_landmarks',
    'attention': 'test_generation.py::'
                 'test_several_positions_behind_a_cache_see_no_future_and_a_mask_decides_if_there_is_one',
    'bpe_train': 'test_bpe.py::test_the_merges_are_those_of_the_naive_loop'}
REFUSES = {e.name: e.tests.split()[0] for e in EXERCISES} | FASTEST
# exercises whose tests do not use each other's functions share one run of pytest; runs that train are slow
ALONE, SLOW = [['chat_mask'], ['bpe_encode']], [['accumulation'], ['resume']]
TOGETHER = [[name for name in MISTAKES if [name] not in ALONE + SLOW], *ALONE]


SLOWLY = """from test_bpe import in_order
        return in_order(self, chunk)"""


def answer(e, source):
    """The lines that the reader writes, as they stand in the project, without their indent."""
    first, stop = lines_of(e, source)
    lines = source.splitlines()[first:stop]
    indent = len(lines[0]) - len(lines[0].lstrip())
    return '\n'.join(line[indent:] for line in lines)


def test_every_exercise_has_a_mistake_that_is_tried_and_a_row_of_the_page():
    assert sorted(MISTAKES) == sorted(e.name for e in EXERCISES)

    rows = re.findall(r'^\| (\d+) \| `(\w+)` \| `([\w/]+\.py)` \| ([^|]+) \|', PAGE, re.M)
    assert [(n, name, file) for n, name, file, _ in rows] == [
        (str(i), e.name, e.file) for i, e in enumerate(EXERCISES, 1)]
    for (*_, where), e in zip(rows, EXERCISES):
        assert (e.where or 'the loop') in where, e.name
        blank = blanked(e, SOURCES[e.name])
        assert blank.count(EMPTY) == 1 and ast.parse(blank) and answer(e, SOURCES[e.name]) not in blank
        part = part_to_write(e, SOURCES[e.name])
        assert blank.count(part) == part.count(EMPTY) == 1, e.name


def test_the_notebook_has_a_cell_with_the_signature_of_each_exercise():
    """Its docstrings may be older than ours: a grade takes them from the cell."""
    cells = json.loads((ROOT / 'docs/exercises.ipynb').read_text(encoding='utf-8'))['cells']
    texts = [''.join(cell['source']) for cell in cells]
    texts = {text.splitlines()[0]: text for text in texts if text.startswith('%%exercise ')}
    assert [*texts] == [f'%%exercise {e.name}' for e in EXERCISES], 'python learn/notebooks.py'
    for e, text in zip(EXERCISES, texts.values()):
        now = part_to_write(e, SOURCES[e.name])
        assert re.findall(' *def .*', text) == re.findall(' *def .*', now), 'python learn/notebooks.py'
        assert text.count(EMPTY) == 1


def test_a_cell_of_the_notebook_is_graded_as_a_part_of_its_file(capsys):
    e, = (e for e in EXERCISES if e.name == 'bpe_encode')
    cell = part_to_write(e, SOURCES[e.name])
    for written, verdict in ((EMPTY, 'still empty'), ('return (', 'is not Python'),
                             (SLOWLY, 'passed: 1 passed')):
        grade_cell(e.name, cell.replace(EMPTY, written))
        assert verdict in capsys.readouterr().out


@pytest.mark.parametrize('names', TOGETHER + SLOW, ids='-'.join)
def test_the_grade_refuses_a_usual_mistake(names, request):
    """The right answers pass: these tests are part of this suite."""
    if names in SLOW and not request.config.getoption('--slow'):
        pytest.skip('slow; run it with --slow')
    chosen = [e for e in EXERCISES if e.name in names]
    files = {e.file: SOURCES[e.name] for e in chosen}
    for e in chosen:
        right, wrong = MISTAKES[e.name]
        assert any(REFUSES[e.name].startswith(name) for name in e.tests.split()), e.name
        text = answer(e, SOURCES[e.name])
        assert text.count(right) == 1, e.name
        assert files[e.file].count(right) == 1, e.name
        files[e.file] = files[e.file].replace(right, wrong)
    said = grade([REFUSES[name] for name in names], files).stdout
    for name in names:
        assert f'FAILED tests/{REFUSES[name]}' in said, (name, said)


def test_a_reader_begins_is_told_what_is_missing_and_passes(tmp_path):
    """The whole way of one exercise, as `bash run.sh exercise` walks it, in a copy of the project."""
    copy_project(tmp_path)
    call = lambda *asked: subprocess.run([sys.executable, tmp_path / 'learn/exercise.py', *asked],
                                         text=True, capture_output=True)
    mine = tmp_path / 'exercises/bpe_encode/tokenizer.py'
    result = call('99')
    assert result.returncode == 2 and "no exercise '99'" in result.stderr and not mine.parent.exists()
    assert 'bpe_encode' in call().stdout
    result = call('9')
    assert result.returncode == 0 and 'exercises/bpe_encode/tokenizer.py, line ' in result.stdout
    blank = mine.read_text(encoding='utf-8')
    assert call('bpe_encode').returncode == 1 and mine.read_text(encoding='utf-8') == blank
    mine.write_text(blank.replace(EMPTY, 'return ('), encoding='utf-8')
    assert 'is not Python' in call('9').stdout
    mine.write_text(blank.replace(EMPTY, SLOWLY), encoding='utf-8')     # another right answer
    result = call('9')
    assert result.returncode == 0 and 'passed: 1 passed' in result.stdout, result.stdout
