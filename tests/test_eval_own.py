"""Programs as checks of your own questions: the tests call the answer, and they can fail."""
import json

import pytest
from conftest import mistake, ok, run

YES = '--allow_code_execution=True'


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def score(tmp_path, records, answers, *flags):
    """The run, and the outcomes of the answers to these records."""
    given = [{'task_id': f'own/{i}', 'completion': text} for i, text in enumerate(answers)]
    result = run('eval.py', '--tasks=own', f'--data={write(tmp_path / "own.jsonl", records)}', '--chat=True',
                 f'--completions={write(tmp_path / "c.jsonl", given)}', f'--out={tmp_path}/e.json', *flags)
    samples = tmp_path / 'samples.jsonl'
    lines = samples.read_text(encoding='utf-8').splitlines() if samples.exists() else []
    return result, [json.loads(line)['outcome'] for line in lines]


CHECK = 'def check(candidate):\n    assert candidate(2) == 4\n'


def test_the_entry_point_of_tests_is_called(tmp_path):
    record = {'prompt': 'Double it.', 'tests': CHECK, 'entry_point': 'f'}
    answers = ['def f(x):\n    return 2 * x\n', 'def f(x):\n    return 5\n', 'def g(x):\n    return 2 * x\n']
    plain = {'prompt': 'Double it.', 'tests': 'assert f(2) == 4'}
    result, outcomes = score(tmp_path, [record] * 3 + [plain] * 3, answers * 2, YES)
    ok(result)
    assert outcomes == ['passed', 'wrong', 'exception'] * 2


@pytest.mark.parametrize('tests', [CHECK, 'def test_f():\n    assert f(2) == 4\n', ' \n', '# soon'])
def test_tests_that_pass_without_an_answer_are_refused(tests, tmp_path):
    records = [{'prompt': 'x', 'tests': 'assert f(2) == 4'}, {'prompt': 'x', 'regex': 'a', 'tests': tests}]
    mistake(score(tmp_path, records, ['a', 'a'], YES)[0], 'own/1', 'entry_point')
    assert not (tmp_path / 'e.json').exists()


def test_questions_without_programs_need_no_leave_to_run_any(tmp_path):
    records = [{'prompt': 'x', 'regex': 'a'}, {'prompt': 'x', 'tests': 'assert f()'}]
    result, outcomes = score(tmp_path, records[:1], ['a'])
    assert ok(result) and outcomes == ['passed'] and 'own solutions' not in result.stdout
    mistake(score(tmp_path, records, ['a', 'a'])[0], '--allow_code_execution=True', 'sandbox.py')


def test_the_interval_stands_behind_the_score_that_it_is_of(tmp_path):
    """Two answers to each of four questions: pass@1 is 1/2, pass@2 is 1."""
    records = [{'prompt': str(i), 'regex': 'a'} for i in range(4)]
    given = [{'task_id': f'own/{i}', 'completion': text} for i in range(4) for text in 'ab']
    data = write(tmp_path / 'own.jsonl', records)
    said = ok(run('eval.py', '--tasks=own', f'--data={data}', '--k=1,2', YES,
                  f'--completions={write(tmp_path / "c.jsonl", given)}', f'--out={tmp_path}/e.json'))
    head, row = (line.replace('95 % from', 'from').split() for line in said.splitlines()
                 if line.startswith(('own ', 'all ')))
    score, low, high, other = map(float, row[3:7])
    assert head[3:7] == ['pass@1', 'from', 'to', 'pass@2'] and low < score == 0.5 < high < other == 1
