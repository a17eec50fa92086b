"""bench/arms.py: when a difference between two ways to train counts, and a run of it at its smallest."""
import json
import sys

from conftest import ROOT, ok, run

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


def test_equal_arms_end_equal_bit_for_bit(data_dir):
    small = '--n_layer=1 --n_head=1 --n_embd=16 --block_size=16 --batch_size=2 --eval_tokens=64 --data_from='
    flags = f'{small} --data_dir={data_dir} --dtype=float32 --vocab_size=0 --compile=False'
    lines = ok(run('bench/arms.py', '--steps=2', '--seeds=1', f'--a={flags}', f'--b={flags}')).splitlines()
    assert lines[1] == 'b - a: +0.0000 ± nan: too few seeds'
    figures = json.loads(lines[2])
    assert figures['a'] == figures['b'] and 'torch' in figures['machine']
