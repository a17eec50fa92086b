"""Two models beside each other: intervals, gains and losses."""
import pathlib
import tempfile

import numpy as np
import pytest
from conftest import lift, refused, write

from parts.eval import results

interval = lift('eval.py', 'interval')


def rows_of(name, outcomes, **more):
    return [{'task': 't', 'task_id': i, 'prompt': 'p', 'completion': f'{name} {i}', 'outcome': outcome} | more
            for i, outcome in enumerate(outcomes)]


def by_problem(rows):
    with tempfile.TemporaryDirectory() as folder:
        return results.read(str(write(pathlib.Path(folder, 'samples.jsonl'), rows)))


def compare(a, b):
    return results.compare(a, b, interval)


def graded(name, passes):
    """The rows of a string of 0 and 1, by problem."""
    return by_problem(rows_of(name, ['passed' if c == '1' else 'wrong' for c in passes]))


# --- intervals ----------------------------------------------------------------------------------------------
def test_intervals_hold_the_truth_19_times_in_20():
    """Of 300 worlds each; and none is a point where all or no problems pass. Wilson's interval of several
    answers may be too wide. The bootstrap's would be too narrow where few pass."""
    bootstrap = lambda scores: results.bootstrap(scores, interval)
    rng = np.random.default_rng(0)
    for method, n_samples, a, b, most in (
            (interval, 1, 2, 3, 0.99), (bootstrap, 5, 2, 3, 0.99), (interval, 5, 2, 3, 1),
            (interval, 8, 0.1, 9.9, 1)):
        hits = 0
        for _ in range(300):
            chances = rng.beta(a, b, size=60)           # of the problems; their mean is a / (a + b)
            low, high = method((rng.binomial(n_samples, chances) / n_samples).tolist())
            hits += low <= a / (a + b) <= high
        assert 0.90 < hits / 300 <= most, (method, n_samples, hits)
    assert interval([0.0] * 29 + [1 / 8])[1] > interval([0.0] * 30)[1] > 0.1
    assert interval([1] * 8 + [0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)     # Wilson by hand
    assert interval([0.5] * 200) == pytest.approx(interval([0, 1] * 100))       # as if of one sample each
    same = graded('a', '10' * 20)           # 0 of 40 problems differ, and up to z^2 / (40 + z^2) of all may
    share = 1.96 ** 2 / (40 + 1.96 ** 2)
    assert compare(same, same)['interval'] == pytest.approx([-share, share])


# --- gained and lost ----------------------------------------------------------------------------------------
def test_two_models_are_compared_problem_by_problem():
    """10 problems: 7 gained, 1 lost, 2 alike."""
    result = compare(graded('a', '0001110000'), graded('b', '1110111111'))
    assert (result['n'], len(result['gained']), result['lost']) == (10, 7, ['t 3'])
    assert 0 < result['interval'][0] < result['b'] - result['a'] == pytest.approx(0.6)
    refused('no problem in common', compare, graded('a', '1'), {})


def test_an_answer_that_was_not_graded_is_not_wrong_and_several_checkpoints_are_refused():
    good = by_problem(rows_of('a', ['passed', 'passed', 'passed', 'wrong']))
    lost = by_problem(rows_of('b', ['passed', 'infrastructure', 'ungraded', 'empty']))
    result = compare(good, lost)
    assert (result['n'], result['a'], result['b'], result['lost']) == (2, 0.5, 0.5, [])
    several = rows_of('a', ['passed'], ckpt='x.pt') + rows_of('b', ['wrong'], ckpt='y.pt')
    refused('x.pt', by_problem, several)
    refused("KeyError: 'prompt'; take a samples.jsonl", by_problem, [{'task': 't', 'task_id': 1}])


def test_gains_are_told_by_kind_and_pool_the_splits_of_one(capsys):
    splits = 'variation', 'cell', 'feedback', 'feedback_variation', None
    both = [by_problem([row | {'split': splits[i // 2]} for i, row in enumerate(rows_of(name, outcomes))])
            for name, outcomes in (('a', ['wrong'] * 9), ('b', ['passed'] * 3 + ['wrong'] * 5 + ['passed']))]
    result = compare(*both)
    gain = {kind: difference for kind, (difference, *_) in result['gain'].items()}
    assert gain == {'example tasks': 1.0, 'unseen combinations': 0.5, 'practice tasks': 0.0}
    assert all(low <= difference <= high for difference, low, high in result['gain'].values())
    results.print_comparison(result)
    said = capsys.readouterr().out
    assert 'gained: t 0, t 1, t 2, t 8\nlost: none\n' in said and '\ngain in example tasks: 1.000, ' in said
