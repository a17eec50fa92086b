"""Every exercise can be begun and solved, and its tests notice a usual mistake; the page lists them all."""
import ast
import re
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT, lift, read_json
from exercise import EMPTY, EXERCISES, blanked, copy_project, grade_cell, lines_of, part_to_write, verdict
from notebooks import exercise_cells
from wrong_answers import WRONG

PAGE = (ROOT / 'docs/exercises.md').read_text(encoding='utf-8')
SOURCES = {e.name: (ROOT / e.file).read_text(encoding='utf-8') for e in EXERCISES}


SLOWLY = """from test_tokenizer import in_order
    return in_order(chunk, ranks)"""


def test_every_exercise_has_a_row_of_the_page_tests_that_exist_and_two_wrong_answers():
    """Whether its tests notice the wrong answers is tried at the end of this file."""
    rows = re.findall(r'^\| (\d+) \| `(\w+)` \| `([\w/]+\.py)` \| ([^|]+) \|', PAGE, re.M)
    assert [(n, name, file) for n, name, file, _ in rows] == [
        (str(i), e.name, e.file) for i, e in enumerate(EXERCISES, 1)]
    for (*_, where), e in zip(rows, EXERCISES):
        assert (e.where or 'the loop') in where, e.name
        source = SOURCES[e.name]
        first, stop = lines_of(e, source)
        answer = ''.join(source.splitlines(keepends=True)[first:stop])
        blank = blanked(e, source)
        assert blank.count(EMPTY) == 1 and ast.parse(blank) and answer not in blank
        assert e.name != 'pass_at_k' or not re.search(r'C\(n|math\.comb', blank)         # nor in words
        part = part_to_write(e, source)
        assert blank.count(part) == part.count(EMPTY) == 1, e.name
        for file, _, test in (name.partition('::') for name in e.tests.split()):
            assert f'def {test.split("[")[0]}' in (ROOT / 'tests' / file).read_text(encoding='utf-8'), test
        assert len(WRONG[e.name]) == 2, e.name


def test_the_notebook_has_a_cell_with_the_signature_of_each_exercise():
    """Its docstrings may be older than ours: a grade takes them from the cell."""
    kept = re.compile(f'%%exercise .*| *def .*|{re.escape(EMPTY)}')
    written, now = ([kept.findall(''.join(cell['source'])) for cell in cells] for cells in (
        read_json(ROOT / 'docs/exercises.ipynb')['cells'], exercise_cells()))
    assert written == now and len(now) > len(EXERCISES), 'python learn/notebooks.py'


def test_a_cell_of_the_notebook_is_graded_as_a_part_of_its_file(capsys):
    e, = (e for e in EXERCISES if e.name == 'bpe_encode')
    cell = part_to_write(e, SOURCES[e.name])
    for written, said in ((EMPTY, 'still empty'), ('return (', 'is not Python'),
                          (SLOWLY, 'passed: 1 passed')):
        grade_cell(e.name, cell.replace(EMPTY, written))
        assert said in capsys.readouterr().out


def test_who_writes_an_endless_loop_is_told_so_and_who_waits_no_longer_too(capsys, monkeypatch):
    monkeypatch.setattr('exercise.PATIENCE', 2)
    e = EXERCISES[0]
    assert verdict(e, answered(e, 'while True:\n    pass'), e.file) == 1
    assert capsys.readouterr().out == (
        'not yet: the tests have not ended after 2 seconds. Is there an endless loop?\n')

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('subprocess.run', stopped)
    assert verdict(e, answered(e, 'return 1'), e.file) == 1
    assert capsys.readouterr().out.startswith('not yet: you stopped the tests.')


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
    mine.write_text(blank.replace(EMPTY, 'return []'), encoding='utf-8')
    result = call('9')
    assert result.returncode == 1 and 'not yet (1 failed)' in result.stdout
    mine.write_text(blank.replace(EMPTY, SLOWLY), encoding='utf-8')     # another right answer
    result = call('9')
    assert result.returncode == 0 and 'passed: 1 passed' in result.stdout, result.stdout


def test_a_lifted_function_has_the_constants_of_its_script_that_it_uses(tmp_path):
    """Nothing else of the script runs: a letter is a local name, and a size of a run is nobody's constant."""
    script = tmp_path / 'script.py'
    script.write_text("""import math
IGNORE = -100
BOUNDS = {'a': (0, IGNORE)}
T = undefined
OTHER = undefined
def of(x):
    T = x
    return T + BOUNDS['a'][1] + math.pi
""", encoding='utf-8')
    assert abs(lift(script, 'of')(0) + 96.858) < 1e-3


def answered(exercise, answer):
    """Return the exercise's file with an answer in its hole."""
    blank = blanked(exercise, SOURCES[exercise.name])
    indent = re.search(f'^( *){re.escape(EMPTY)}', blank, re.M)[1]
    return blank.replace(indent + EMPTY, textwrap.indent(answer.strip('\n'), indent))


# Each grade is a pytest of its own, so most of them wait for --slow.
QUICK = 'pass_at_k', 'rms_norm', 'targets', 'schedule'


@pytest.mark.parametrize('exercise', [
    pytest.param(exercise, id=exercise.name, marks=() if exercise.name in QUICK else pytest.mark.slow)
    for exercise in EXERCISES])
def test_who_fails_reads_the_input_what_was_found_and_what_was_expected(exercise, capsys):
    """In three lines, also if the answer raises an error."""
    for answer, *words in WRONG[exercise.name]:
        assert verdict(exercise, answered(exercise, answer), exercise.file) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4 and lines[3].startswith('not yet (1 failed'), lines
        asked, found, expected = lines[:3]
        assert found.startswith('  found:    ') and expected.startswith('  expected: '), lines
        assert found.split(maxsplit=1)[1] != expected.split(maxsplit=1)[1], lines
        for word, line in zip(words, lines):
            assert word in line and len(line) < 270, (word, line)
