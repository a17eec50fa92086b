"""Fifteen questions have answers that name code that exists; the decision page computes what it says."""
import ast
import re

from conftest import ROOT

EXERCISES = (ROOT / 'docs/exercises.md').read_text(encoding='utf-8')
QUESTIONS, ANSWERS = re.search(r'## Fifteen questions(.*)### Answers(.*)## One function each',
                               EXERCISES, re.S).groups()
DECIDE = (ROOT / 'docs/decide.md').read_text(encoding='utf-8')
LINKS = re.findall(r'`([\w/]+\.py):([\w.]+)`', ANSWERS)


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


def test_the_answers_name_code_that_exists():
    for file, name in LINKS:
        assert name in names(file), (file, name)


def test_every_question_has_its_answer_and_every_answer_names_code():
    questions = re.findall(r'^(\d+)\. .*\?', QUESTIONS, re.M)
    answers = re.split(r'^(\d+)\. ', ANSWERS, flags=re.M)[1:]     # number, text, number, text, ...
    assert questions == answers[::2] == [str(n) for n in range(1, 16)]
    for text in answers[1::2]:
        assert re.search(r'\(`[\w/]+\.py:[\w.]+`\)\.$', text.strip()), text


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
