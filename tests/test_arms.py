"""bench/: when a difference counts; the measurements of a GPU."""
import subprocess
import sys

import pytest
from conftest import ROOT, read_rows

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402


def test_a_challenger_needs_a_lower_loss_in_hardly_more_time():
    runs = lambda seconds, *losses: [
        {'bits': bits, 'seconds': seconds, 'tokens': 8, 'context': 7} for bits in losses]
    record, better = runs(500, 2.0, 2.01, 1.99, 2.0, 2.0), (1.9, 1.91, 1.89, 1.9, 1.9)
    for challenger, reasons in (
            (runs(540, *better), []),
            (runs(560, *better), ['560 seconds, and the record has 500']),
            (runs(500, 1.9, 2.1, 1.8, 2.2, 2.0), ['does not count'])):
        assert [*arms.against(record, challenger)] == reasons


@pytest.mark.slow
def test_the_measurements_of_a_gpu_run_whole_at_toy_sizes_on_a_cpu(tmp_path):
    subprocess.run([sys.executable, ROOT / 'bench/gpu.py', '--tiny=True', f'--out={tmp_path}'],
                   check=True)
    rows = read_rows(tmp_path / 'results.jsonl')
    assert len(rows) > 20 and not [row for row in rows if 'error' in row or row.get('ok') is False]
