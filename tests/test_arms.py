"""bench/arms.py: when a difference counts."""
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402

FIRST = [2.0, 2.01, 1.99, 2.0, 2.0]


def test_a_difference_counts_with_five_seeds_and_two_standard_errors():
    for second, verdict in (
            ([2.1, 2.11, 2.09, 2.1, 2.1], 'counts'), ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'),
            ([1.998, 2.009, 1.987, 1.999, 1.997], 'counts')):           # by little, but with every seed
        mean, error, says = arms.difference(FIRST, second)
        assert says == verdict and abs(mean - (sum(second) - 10) / 5) < 1e-12 and 0 <= error < 0.1, second
        assert arms.difference(FIRST[:4], second[:4])[2] == 'too few seeds'
