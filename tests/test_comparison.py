"""Two models beside each other: intervals, gains and losses, blind votes."""
import csv

import numpy as np
import pytest
from conftest import refused

from parts.eval import comparison
from parts.eval.comparison import blind, compare, count_votes, gains, interval, write_sheet


def rows_of(name, outcomes, **more):
    return [{'task': 't', 'task_id': i, 'prompt': 'p', 'completion': f'{name} {i}', 'outcome': outcome} | more
            for i, outcome in enumerate(outcomes)]


def by_problem(rows):
    return comparison.by_problem(rows, 'samples.jsonl')


def graded(name, passes):
    """The rows of a string of 0 and 1, by problem."""
    return by_problem(rows_of(name, ['passed' if c == '1' else 'wrong' for c in passes]))


# --- intervals ----------------------------------------------------------------------------------------------
def test_intervals_hold_the_truth_19_times_in_20():
    """Of 300 worlds each; and none is a point where all or no problems pass."""
    rng = np.random.default_rng(0)
    for n_samples in 1, 5:
        hits = 0
        for _ in range(300):
            chances = rng.beta(2, 3, size=60)           # of the problems; their mean is 0.4
            low, high = interval((rng.binomial(n_samples, chances) / n_samples).tolist())
            hits += low <= 0.4 <= high
        assert 0.90 < hits / 300 <= 0.99, (n_samples, hits)
    for scores in [0.0] * 20, [1.0] * 20:
        low, high = interval(scores)
        assert 0.05 < high - low < 0.3 and low <= scores[0] <= high + 1e-9
    assert interval([1] * 8 + [0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)     # Wilson by hand


def test_equal_scores_leave_a_doubt_that_shrinks_with_their_number():
    """0 of n problems differ: by Wilson, up to z^2 / (n + z^2) of all problems may."""
    widths = []
    for n in 2, 20, 200:
        low, high = interval([0.5] * n)
        assert low < 0.5 < high and low == pytest.approx(1 - high)
        same = graded('a', '10' * n)
        share = 1.96 ** 2 / (2 * n + 1.96 ** 2)
        assert compare(same, same)['interval'] == pytest.approx([-share, share])
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.15
    assert interval([0.5] * 200) == pytest.approx(interval([0, 1] * 100))       # as if of one sample each


# --- gained and lost ----------------------------------------------------------------------------------------
def test_two_models_are_compared_problem_by_problem():
    """10 problems: 7 gained, 1 lost, 2 alike. McNemar by hand: 2 (C(8,0) + C(8,1)) / 2^8."""
    result = compare(graded('a', '0001110000'), graded('b', '1110111111'))
    assert (result['n'], len(result['gained']), result['lost']) == (10, 7, ['t 3'])
    assert result['p'] == pytest.approx(2 * (1 + 8) / 2 ** 8)
    assert result['b'] - result['a'] == pytest.approx(0.6)
    low, high = result['interval']
    assert 0 < low < 0.6 < high
    refused('no problem in common', compare, graded('a', '1'), {})


def test_an_answer_that_was_not_graded_is_not_wrong_and_several_checkpoints_are_refused():
    good = by_problem(rows_of('a', ['passed', 'passed', 'passed', 'wrong']))
    lost = by_problem(rows_of('b', ['passed', 'infrastructure', 'ungraded', 'empty']))
    result = compare(good, lost)
    assert (result['n'], result['a'], result['b'], result['lost']) == (2, 0.5, 0.5, [])
    half = by_problem(rows_of('b', ['passed']) + rows_of('c', ['infrastructure']))
    assert compare(good, half)['b'] == 1

    several = rows_of('a', ['passed'], ckpt='x.pt') + rows_of('b', ['wrong'], ckpt='y.pt')
    refused('x.pt', by_problem, several)


def test_gains_are_told_by_kind_and_pool_the_splits_of_one():
    kinds = {'x': 'old', 'y': 'new', 'z': 'new'}
    both = [by_problem([row | {'split': 'xyz'[i // 2]} for i, row in enumerate(rows_of(name, outcomes))])
            for name, outcomes in (('a', ['wrong'] * 6), ('b', ['passed'] * 3 + ['wrong'] * 3))]
    by_kind = gains(*both, kinds)
    assert {kind: difference for kind, (difference, *_) in by_kind.items()} == {'old': 1.0, 'new': 0.25}
    assert all(low <= difference <= high for difference, low, high in by_kind.values())


# --- blind votes --------------------------------------------------------------------------------------------
def vote(path, sheet, votes):
    """A copy of the sheet with these votes, as an office program saves it: a byte order mark, other ends."""
    with open(path, 'w', encoding='utf-8-sig', newline='') as f:
        copy = csv.DictWriter(f, sheet[0])
        copy.writeheader()
        for row, word in zip(sheet, votes):
            copy.writerow({**row, 'vote': word, 'left': row['left'].replace('\r\n', '\n')})
    return path


def test_votes_are_blind_and_counted_with_their_agreement(tmp_path):
    a, b = graded('a\r\n', '0001110000'), graded('b', '1110111111')
    pairs = blind(a, b, 1)
    write_sheet(tmp_path / 'sheet.csv', pairs)
    with open(tmp_path / 'sheet.csv', encoding='utf-8', newline='') as f:
        sheet = list(csv.DictReader(f))
    assert {row['left'][0] for row in sheet} == {'a', 'b'} and len(sheet) == 10     # each is left at times
    assert [row['left'][0] for row in sheet] == [left for (left, _), _ in pairs]

    likes_b = ['Left' if row['left'][0] == 'b' else ' right' for row in sheet]
    other = {'Left': 'right', ' right': 'left'}
    ann = vote(tmp_path / 'ann.csv', sheet, likes_b)                # b always
    ben = vote(tmp_path / 'ben.csv', sheet, likes_b[:5] + [other[x] for x in likes_b[5:]])
    cat = vote(tmp_path / 'cat.csv', sheet, ['tie', ''] + ['left'])
    write_sheet(tmp_path / 'sheet.csv', pairs)          # nobody voted in it
    refused('ann.csv holds votes', write_sheet, ann, pairs)
    result = count_votes(pairs, [ann, ben, cat])
    assert result['votes'][ann] == {'b': 10} and result['votes'][ben] == {'b': 5, 'a': 5}
    assert result['votes'][cat] == {'tie': 1, pairs[2][0][0]: 1}
    assert result['votes']['tests'] == {'b': 7, 'a': 1, 'tie': 2}
    assert result['agreement'][f'{ann}, {ben}'] == {'n': 10, 'agree': 0.5}
    assert result['agreement'][f'tests, {ann}']['agree'] == 0.7
    assert result['agreement'][f'{ann}, {cat}']['n'] == 2           # the pairs that both voted on

    c = graded('c', '1111111111')
    for others in blind(a, b, 2), blind(a, c, 1), blind(c, b, 1):
        with pytest.raises(ValueError, match='other answers.*--seed'):
            count_votes(others, [vote(tmp_path / 'ann.csv', sheet, ['left'] * 10)])
    refused("left, right or tie.*'lft'", count_votes, pairs, [vote(tmp_path / 'ann.csv', sheet, ['lft'])])
