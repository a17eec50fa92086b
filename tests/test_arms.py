"""bench/arms.py: when a difference counts."""
import subprocess
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402


def test_a_challenger_needs_a_lower_loss_in_hardly_more_time():
    def against(*losses, seconds=500, tokens=8):
        return [*arms.against(*([{'bits': bits, 'seconds': at, 'tokens': n, 'context': 7}
                                 for bits in series] for series, at, n in (
                                     ([2.0, 2.01, 1.99, 2.0, 2.0], 500, 8), (losses, seconds, tokens))))]

    lower = 1.9, 1.91, 1.89, 1.9, 1.9
    assert against(*lower, seconds=540) == []
    assert against(2.1, 2.11, 2.09, 2.1, 2.1) == ['the loss is higher']
    assert against(*lower, seconds=560) == ['560 seconds, and the record has 500']
    assert against(1.9, 2.1, 1.8, 2.2, 2.0) == ['does not count']
    # seed by seed it is lower, by less than seeds differ
    assert against(1.998, 2.009, 1.987, 1.999, 1.997) == []


def test_the_patch_of_each_row_of_the_board_applies_to_the_code_of_today():
    for path in (ROOT / 'bench/records').glob('*.diff'):
        subprocess.run(['git', 'apply', '--check', path], cwd=ROOT, check=True)
