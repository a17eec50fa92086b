"""Two models beside each other: only graded answers of one checkpoint each count, votes only of this sheet."""
import csv

import pytest
from conftest import mistake, run
from test_eval_own import write

from parts.compare import blind, by_problem, compare, count_votes, interval, write_sheet


def rows_of(name, outcomes, **more):
    return [{'task': 't', 'task_id': i, 'prompt': 'p', 'completion': f'{name} {i}', 'outcome': outcome, **more}
            for i, outcome in enumerate(outcomes)]


def test_an_answer_that_was_not_graded_is_not_wrong():
    good = by_problem(rows_of('a', ['passed', 'passed', 'passed', 'wrong']))
    lost = by_problem(rows_of('b', ['passed', 'infrastructure', 'ungraded', 'empty']))
    result = compare(good, lost)
    assert (result['n'], result['a'], result['b'], result['lost']) == (2, 0.5, 0.5, [])
    half = by_problem(rows_of('b', ['passed']) + rows_of('c', ['infrastructure']))
    assert compare(good, half)['b'] == 1


@pytest.mark.parametrize('rows, says', [
    (rows_of('a', ['passed'], ckpt='x.pt') + rows_of('b', ['wrong'], ckpt='y.pt'), 'x.pt'),
    ([{'task_id': 'a', 'completion': 'x'}], "'task'"), ([{'task': 't', 'task_id': 'a'}], "'outcome'")])
def test_answers_of_several_checkpoints_and_lines_that_no_one_graded_are_refused(rows, says, tmp_path):
    write(tmp_path / 'samples.jsonl', rows_of('a', ['passed']))
    other = write(tmp_path / 'other.jsonl', rows)
    mistake(run('eval.py', '--tasks=compare', f'--ckpt={tmp_path}/best.pt', f'--compare={other}',
                f'--out={tmp_path}/e.json'), 'other.jsonl', says)
