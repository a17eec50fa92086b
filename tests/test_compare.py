"""Two models beside each other: graded answers of one checkpoint each; votes of this very sheet."""
import csv

import pytest
from conftest import mistake, run
from test_eval_own import write

from parts.eval.comparison import blind, by_problem, compare, count_votes, gains, interval, write_sheet


def rows_of(name, outcomes, **more):
    return [{'task': 't', 'task_id': i, 'prompt': 'p', 'completion': f'{name} {i}', 'outcome': outcome} | more
            for i, outcome in enumerate(outcomes)]


def test_an_answer_that_was_not_graded_is_not_wrong():
    good = by_problem(rows_of('a', ['passed', 'passed', 'passed', 'wrong']))
    lost = by_problem(rows_of('b', ['passed', 'infrastructure', 'ungraded', 'empty']))
    result = compare(good, lost)
    assert (result['n'], result['a'], result['b'], result['lost']) == (2, 0.5, 0.5, [])
    half = by_problem(rows_of('b', ['passed']) + rows_of('c', ['infrastructure']))
    assert compare(good, half)['b'] == 1


def test_gains_are_told_by_kind_and_pool_the_splits_of_one():
    kinds = {'x': 'old', 'y': 'new', 'z': 'new'}
    both = [by_problem([row | {'split': 'xyz'[i // 2]} for i, row in enumerate(rows_of(name, outcomes))])
            for name, outcomes in (('a', ['wrong'] * 6), ('b', ['passed'] * 3 + ['wrong'] * 3))]
    found = gains(*both, kinds)
    assert {kind: difference for kind, (difference, *_) in found.items()} == {'old': 1.0, 'new': 0.25}
    assert all(low <= difference <= high for difference, low, high in found.values())


def test_a_judge_votes_for_the_answer_with_the_higher_score():
    both = []
    for name, scores in ('a', [3.0, 5.0, 9.0]), ('b', [7.0, 5.0, 2.0]):
        rows = rows_of(name, ['judged'] * 3)
        both.append(by_problem([row | {'score': score} for row, score in zip(rows, scores)]))
    assert count_votes(*blind(*both, 0), [])['votes']['tests'] == {'a': 1, 'b': 1, 'tie': 1}


def test_equal_scores_leave_a_doubt_that_shrinks_with_their_number():
    """0 of n problems differ: by Wilson, up to z^2 / (n + z^2) of all problems may."""
    widths = []
    for n in 2, 20, 200:
        low, high = interval([0.5] * n)
        assert low < 0.5 < high and low == pytest.approx(1 - high)
        same = by_problem(rows_of('a', ['passed', 'wrong'] * n))
        result = compare(same, same)
        share = 1.96 ** 2 / (2 * n + 1.96 ** 2)
        assert result['interval'] == pytest.approx([-share, share])
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.15
    assert interval([0.5] * 200) == pytest.approx(interval([0, 1] * 100))       # as if of one sample each


@pytest.mark.parametrize('rows, says', [
    (rows_of('a', ['passed'], ckpt='x.pt') + rows_of('b', ['wrong'], ckpt='y.pt'), 'x.pt'),
    ([{'task_id': 'a', 'completion': 'x'}], "'task'"), ([{'task': 't', 'task_id': 'a'}], "'outcome'")])
def test_answers_of_several_checkpoints_and_lines_that_no_one_graded_are_refused(rows, says, tmp_path):
    write(tmp_path / 'samples.jsonl', rows_of('a', ['passed']))
    other = write(tmp_path / 'other.jsonl', rows)
    mistake(run('eval.py', '--tasks=compare', f'--ckpt={tmp_path}/best.pt', f'--compare={other}',
                f'--out={tmp_path}/e.json'), 'other.jsonl', says)


def test_votes_are_counted_only_of_a_sheet_with_the_same_answers_on_the_same_sides(tmp_path):
    a, b, c = (by_problem(rows_of(name, ['passed'] * 9)) for name in ('a\r\n', 'b', 'c'))
    pairs, sides = blind(a, b, 1)
    write_sheet(tmp_path, pairs, sides)
    with open(tmp_path / 'sheet.csv', encoding='utf-8', newline='') as f:
        sheet = list(csv.DictReader(f))

    def votes(*said, pairs=pairs, sides=sides):
        with open(tmp_path / 'ann.csv', 'w', encoding='utf-8', newline='') as f:
            out = csv.DictWriter(f, sheet[0])
            out.writeheader()
            for row, vote in zip(sheet, said):      # an office program writes other ends of lines
                out.writerow({**row, 'vote': vote, 'left': row['left'].replace('\r\n', '\n')})
        return count_votes(pairs, sides, [tmp_path / 'ann.csv'])['votes'][tmp_path / 'ann.csv']

    assert votes(' Left', 'tie', '') == {sides[0]['left']: 1, 'tie': 1}
    with pytest.raises(ValueError, match="left, right or tie.*'lft'"):
        votes('left', 'lft')
    for other in blind(a, b, 2), blind(a, c, 1), blind(c, b, 1), (pairs, sides[1:] + sides[:1]):
        with pytest.raises(ValueError, match='other answers.*--seed'):
            votes(*['left'] * 9, pairs=other[0], sides=other[1])
