"""bench/: when a difference counts, and what its interval holds; the measurements of a GPU."""
import gzip
import re
import shutil
import sys

import numpy as np
from conftest import ROOT, fill, lift, ok, python, read_rows, run, save_run, slow, table, with_each
from exercise import copy_project

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402

mean_and_half, interval = lift('bench/real.py', 'mean_and_half', 'interval')


AFTER = '''
1.9 2.01 1.8 2.1 1.71 => -0.0960 ± 0.0024: counts
1.9 2.2 1.8 2.3 1.9 => +0.0200 ± 0.0490: does not count
1.9 2.01 1.8 2.1 => -0.0975 ± 0.0025: too few seeds'''


def test_a_difference_counts_from_two_standard_errors_over_five_seeds():
    before = [2.0, 2.1, 1.9, 2.2, 1.8]
    for after, said in table(AFTER):
        after = [*map(float, after.split())]
        assert arms.verdict(before[:len(after)], after) == said


# how many problems, the logits of two ways, and the deviations way, seed, hardness and taste: as rejection
# sampling and more SFT, whose seeds differ; RL and SFT; HumanEval, where few pass, but always; MBPP
@with_each('numbers', [
    '300 1.3 1.8 0.4 0.4 1.5 0.7', '300 0 1 0.2 0.6 1.5 0.7', '164 -9 -8.6 0.05 0.05 7 0.7',
    '127 -10 -10.3 0.02 0.05 9 0.5'])
def test_an_interval_for_other_seeds_and_problems_holds_the_truth_in_95_of_100_experiments(numbers):
    """In each of 1,000, six seeds of two ways answer the same n problems. The logit of passing is
    its way's plus normal parts, whose deviations are given: of a seed, for both ways (seed) and for
    each (way), and of a problem (hardness, taste). An interval over seeds alone holds the truth,
    the mean of all experiments, in 92 to 95 of 100."""
    n, *logits, way, seed, hardness, taste = map(float, numbers.split())
    dice, n, ways = np.random.default_rng(0), int(n), np.reshape(logits, (2, 1, 1))
    found = []
    for _ in range(1000):
        logit = (ways + seed * dice.normal(size=(6, 1)) + way * dice.normal(size=(2, 6, 1))
                 + hardness * dice.normal(size=n) + taste * dice.normal(size=(2, 1, n)))
        passed = dice.random((2, 6, n)) < 1 / (1 + np.exp(-logit))
        found.append(mean_and_half(1.0 * passed[1] - passed[0]))
    means, halves = np.transpose(found)
    assert 940 <= (abs(means - means.mean()) <= halves).sum() <= 985


def test_an_interval_by_hand_and_what_the_page_says_is_what_the_command_prints():
    assert interval([3.0, 5.0, np.nan]) == '+4.0 (-8.7 to 16.7)'       # 4 ± 12.71 * 1
    assert interval([5.0]) == '+5.0' and interval([np.nan]) == ''
    printed, page = ok(run('bench/real.py')), (ROOT / 'docs/practice.md').read_text()
    rows = re.findall(r'^\|.*\|$', page.split('\n## SmolLM2')[1], re.M)
    assert len(rows) > 9 and not {*rows} - {*printed.splitlines()}


MBPP = (r'{"task_id": %d, "prompt": "Return x.", "code": "def f(x):\n    return x\n", '
        r'"test_list": ["assert f(1) == 1"]}')
HUMAN_EVAL = (r'{"task_id": "HumanEval/%d", "prompt": "def f(x):\n", "entry_point": "f", '
              r'"canonical_solution": "    return x\n", '
              r'"test": "def check(f):\n    assert f(1) == 1\n"}')


@slow
def test_every_run_of_real_py_leaves_a_row_behind_and_the_tables_are_printed(tmp_path):
    project = tmp_path / 'project'
    copy_project(project)
    shutil.copytree(ROOT / 'bench', project / 'bench')
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    save_run('model', GPT(GPTConfig(tokenizer.vocab_size, 1024, 1, 2, 2, 32)), tokenizer)
    lines = lambda form, n: '\n'.join(form % i for i in range(n))
    fill({'files/mbpp_sanitized.jsonl': lines(MBPP, 427),
          'files/HumanEval.jsonl.gz': gzip.compress(lines(HUMAN_EVAL, 164).encode())})
    names = 'unaided,sft,more,rejection,rl,fresh'
    printed = ok(python(project / 'bench/real.py', '--model=model', '--times=1', '--data=files', '--seed=99',
                        f'--runs={names}'))
    rows = [row for row in read_rows(project / 'bench/real.jsonl') if row['seed'] == 99]
    assert [row['run'] for row in rows] == names.split(',')
    assert all(bin(int(row[kind], 16)) == f'0b1{"0" * n}' for row in rows
               for kind, n in (('practice tasks', 300), ('HumanEval', 164), ('MBPP', 127)))
    assert printed.count('| new examples |') == 3       # with the rows that were there before


@slow
def test_the_measurements_of_a_gpu_run_whole_at_toy_sizes_on_a_cpu():
    ok(python(ROOT / 'bench/gpu.py', '--tiny=True', '--out=out'))
    rows = read_rows('out/results.jsonl')
    assert len(rows) > 20 and not [row for row in rows if 'error' in row or row.get('ok') is False]
