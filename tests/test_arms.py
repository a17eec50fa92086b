"""bench/: when a difference counts; the measurements of a GPU."""
import subprocess
import sys

from conftest import ROOT, read_rows, slow

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402


def test_a_difference_counts_from_two_standard_errors_over_five_seeds():
    before = [2.0, 2.1, 1.9, 2.2, 1.8]
    for after, said in (([1.9, 2.01, 1.8, 2.1, 1.71], '-0.0960 ± 0.0024: counts'),
                        ([1.9, 2.2, 1.8, 2.3, 1.9], '+0.0200 ± 0.0490: does not count'),
                        ([1.9, 2.01, 1.8, 2.1], '-0.0975 ± 0.0025: too few seeds')):
        assert arms.verdict(before[:len(after)], after) == said


@slow
def test_the_measurements_of_a_gpu_run_whole_at_toy_sizes_on_a_cpu(tmp_path):
    subprocess.run([sys.executable, ROOT / 'bench/gpu.py', '--tiny=True', f'--out={tmp_path}'],
                   check=True)
    rows = read_rows(tmp_path / 'results.jsonl')
    assert len(rows) > 20 and not [row for row in rows if 'error' in row or row.get('ok') is False]
