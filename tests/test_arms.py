"""bench/arms.py: when a difference counts."""
import subprocess
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402


def test_a_challenger_has_to_solve_more_in_hardly_more_time():
    runs = lambda percentages, seconds: [{'solved': x, 'seconds': seconds} for x in percentages]
    record = runs([60, 61, 59, 60, 60.5], 500)
    assert [*arms.against(record[:2], runs([62, 63], 540), 'solved')] == ['too few seeds']
    for percentages, seconds, reasons in (
            ([62, 63, 61.5, 62, 62], 540, []), ([58, 59, 57.5, 58, 58], 540, ['it solves less']),
            ([62, 63, 61.5, 62, 62], 560, ['560 seconds, and the record has 500']),
            ([62, 58, 63, 57, 60], 400, ['does not count'])):
        assert [*arms.against(record, runs(percentages, seconds), 'solved')] == reasons, percentages
    losses = lambda *bits: [{'bits': x, 'seconds': 9, 'tokens': 8, 'context': 7} for x in bits]
    first = losses(2.0, 2.01, 1.99, 2.0, 2.0)
    assert [*arms.against(first, losses(2.1, 2.11, 2.09, 2.1, 2.1), 'bits')] == ['the loss is higher']
    # seed by seed it is lower, by less than seeds differ
    assert [*arms.against(first, losses(1.998, 2.009, 1.987, 1.999, 1.997), 'bits')] == []


def test_the_patches_of_the_records_apply_to_the_code_of_today():
    for path in (ROOT / 'bench/records').glob('*.diff'):
        done = subprocess.run(['git', 'apply', '--check', path], cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode, done.stderr
