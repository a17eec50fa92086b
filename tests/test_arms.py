"""bench/arms.py: when a difference counts, and that equal arms end equal."""
import json
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT, ok, run

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402

FIRST = [2.0, 2.01, 1.99, 2.0, 2.0]
HEAD = 'nn.Linear(c.n_embd, rows, bias=False)'


def test_a_difference_counts_with_five_seeds_and_two_standard_errors():
    for second, verdict in (
            ([2.1, 2.11, 2.09, 2.1, 2.1], 'counts'), ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'),
            ([1.998, 2.009, 1.987, 1.999, 1.997], 'counts')):           # by little, but with every seed
        mean, error, says = arms.difference(FIRST, second)
        assert says == verdict and abs(mean - (sum(second) - 10) / 5) < 1e-12 and 0 <= error < 0.1, second
        assert arms.difference(FIRST[:4], second[:4])[2] == 'too few seeds'


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='an arm is a commit')
def test_equal_arms_end_equal_bit_for_bit_and_are_kept(tmp_path):
    """One arm is the commit, the other a patch that changes only a comment; the second call runs nothing."""
    with arms.checkout('') as folder:
        model = pathlib.Path(folder, 'model.py')
        text = model.read_text(encoding='utf-8')
        model.write_text(text.replace(HEAD, f'{HEAD}     # as before'), encoding='utf-8')
        (tmp_path / 'same.diff').write_bytes(subprocess.check_output(['git', '-C', folder, 'diff']))
    (tmp_path / 'text.txt').write_text('The cat sat on the mat. A dog ran.\n' * 200, encoding='utf-8')
    ok(run('prepare.py', '--source=text.txt', '--tokenizer=char', '--out_dir=data', cwd=tmp_path))
    lines = [*'n_layer=1 n_head=1 n_embd=16 block_size=16 batch_size=2 max_steps=3 warmup_steps=1'.split(),
             'compile = False', 'dtype = "float32"', f'data_dir = {str(tmp_path / "data")!r}']
    (tmp_path / 'tiny.py').write_text('\n'.join(lines), encoding='utf-8')
    command = ['bench/arms.py', tmp_path / 'tiny.py', '--steps=2', '--seeds=1',
               f'--patch={tmp_path}/same.diff', f'--out={tmp_path}/kept']
    lines = ok(run(*command)).splitlines()
    assert lines[1] == 'b - a: +0.0000 ± nan: too few seeds'
    figures = json.loads(lines[2])
    assert figures['a'] == figures['b'] and 'torch' in figures['machine']

    kept, = tmp_path.glob('kept/*/a0.json')
    kept.write_text(json.dumps(json.loads(kept.read_bytes()) | {'nats': 1.25}), encoding='utf-8')
    assert ok(run(*command)).startswith('seed 0: 1.2500 and ')
