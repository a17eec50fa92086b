"""bench/arms.py: when a difference counts."""
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402

FIRST = [2.0, 2.01, 1.99, 2.0, 2.0]


def test_a_difference_counts_with_five_seeds_and_two_standard_errors():
    for second, verdict in (
            ([2.1, 2.11, 2.09, 2.1, 2.1], 'counts'), ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'),
            ([1.998, 2.009, 1.987, 1.999, 1.997], 'counts'), ([2.2, 2.2], 'too few seeds')):
        mean, _, says = arms.difference(FIRST[:len(second)], second)
        assert says == verdict and (mean > 0) == (sum(second) > 2 * len(second)), second


def test_a_challenger_has_to_solve_more_in_hardly_more_time():
    runs = lambda percentages, seconds: [{'solved': x, 'seconds': seconds} for x in percentages]
    record = runs([60, 61, 59, 60, 60.5], 500)
    for percentages, seconds, reasons in (
            ([62, 63, 61.5, 62, 62], 540, []), ([58, 59, 57.5, 58, 58], 540, ['it solves less']),
            ([62, 63, 61.5, 62, 62], 560, ['560 seconds, and the record has 500']),
            ([62, 58, 63, 57, 60], 400, ['does not count'])):
        assert [*arms.against(record, runs(percentages, seconds), 'solved')] == reasons, percentages
    losses = lambda change: [{'bits': x + change, 'seconds': 9, 'tokens': 8, 'context': 7} for x in FIRST]
    assert [*arms.against(losses(0), losses(0.1), 'bits')] == ['the loss is higher']
    assert [*arms.against(losses(0), losses(-0.1), 'bits')] == []
