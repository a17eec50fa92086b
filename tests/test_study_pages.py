"""The study notes name code that exists, and the decision page computes what it says."""
import ast
import re

import pytest
from conftest import ROOT

NOTES = (ROOT / 'docs/notes.md').read_text(encoding='utf-8')
DECIDE = (ROOT / 'docs/decide.md').read_text(encoding='utf-8')
LINKS = re.findall(r'`([\w/]+\.py):([\w.]+)`', NOTES)


def names(path):
    """Functions, classes, methods (Class.method) and settings of a file."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding='utf-8')).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f'{node.name}.{f.name}' for f in node.body if isinstance(f, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            found |= {ast.unparse(t) for t in getattr(node, 'targets', None) or [node.target]}
    return found


@pytest.mark.parametrize('file', sorted({file for file, _ in LINKS}))
def test_the_notes_name_code_that_exists(file):
    assert {name for its, name in LINKS if its == file} <= names(file)


def test_every_answer_of_the_notes_names_code():
    rows = [line for line in NOTES.splitlines() if line.startswith('| ') and line.count('|') == 4]
    questions = [row for row in rows if '?' in row.split('|')[1]]
    assert len(questions) >= 35 and len(LINKS) >= len(questions)
    assert all(re.search(r'`[\w/]+\.py:[\w.]+`', row.split('|')[3]) for row in questions)


def test_the_decision_page_computes_right():
    for says in ('100 million tokens are 1 % of 10 billion', '5 billion are 50 %', '60 MB at two bytes',
                 '$137 a day: 3.65 days', '77 to 186 days', '$20 a month, $240 a year',
                 '1 to 10 billion tokens', '$1.37 each, 45,700 tokens', '7 days on 16 A100, 2,688 GPU hours',
                 '2.3 million tokens: 0.02 %'):
        assert says in DECIDE, says
    a_day = 50_000 / 365
    assert (round(a_day), round(500 / a_day, 2)) == (137, 3.65)
    assert (round(10_500 / a_day), round(25_500 / a_day)) == (77, 186)
    assert (0.02 * 1000, 0.02 * 1000 * 12, 7 * 24 * 16, 30 * 2) == (20, 240, 2688, 60)
    assert round(50_000 / 36_500, 2) == 1.37 and round(50_000 / 36_500 / 30 * 1e6, -2) == 45_700
    assert round(30_000 / 30 * 1e6) == 1e9 and round(100 * 2_331_849 / 1e10, 2) == 0.02


def test_every_stage_has_its_decision():
    rows = DECIDE.split('## What each decision locks in')[1]
    for script in ('prepare', 'tokenizer', 'train', 'model', 'sft', 'dpo', 'eval'):
        assert f'[{script}.py](../{script}.py)' in rows, script
