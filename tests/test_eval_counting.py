"""The numbers of eval.py: pass@k against exact fractions, intervals, counts, answers in words."""
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from conftest import lift, mistake, ok, run

from parts.eval.comparison import interval
from parts.eval.grading import RULES, code_in, last_number

pass_at_k, summarise = lift('eval.py', 'pass_at_k', 'summarise')


def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_passing_sample():
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(map(any, draws)), len(draws))))
    assert pass_at_k(200, 0, 100) == 0 and pass_at_k(200, 200, 1) == 1 and pass_at_k(5, 3, 3) == 1
    exact = 1 - math.prod(Fraction(199 - i, 200 - i) for i in range(100))         # one of 200 passes
    assert exact == 0.5 and pass_at_k(200, 1, 100) == pytest.approx(0.5, abs=1e-12)


def test_k_above_the_number_of_samples_is_refused():
    flags = ['--tasks=problems', '--allow_code_execution=True', '--num_samples=4']
    mistake(run('eval.py', *flags, '--k=1,8'), 'pass@8', '--num_samples=8')
    mistake(run('eval.py', *flags, '--k=0'), "k='0'")


@pytest.mark.parametrize('flags, says', [
    (['--tasks=judge'], "--judge='python ask.py'"), (['--data=x'], "data='x'"),
    (['--tasks=gsm8k', '--data=x,y'], "'x,y'"), (['--n_problems=-1'], 'n_problems=-1'),
    (['--loss_tokens=-5'], 'loss_tokens=-5'), (['--tasks=family'], "unknown task 'family'"),
    (['--tasks=problems', '--splits=loss', '--allow_code_execution=True'], "unknown split 'loss'"),
    (['--batch_size=0'], 'batch_size=0'), (['--top_p=0'], 'top_p=0'),
    (['--dtype=float16'], "dtype='float16'"),
    (['--compare=x'], '--compare is for --tasks=compare, not loss'), (['--judge=x'], '--tasks=judge'),
    (['--votes=x.csv'], '--tasks=compare'),
    (['--tasks=judge', '--judge=x', '--num_samples=2'], '--num_samples=1, not 2')])
def test_settings_that_contradict_themselves_or_others_are_refused(flags, says):
    mistake(run('eval.py', *flags), says)


def test_intervals_hold_the_truth_19_times_in_20():
    """Of 300 worlds each; and none is a point where all or no problems pass."""
    rng, hits = np.random.default_rng(0), {'one': 0, 'many': 0}
    for _ in range(300):
        p = rng.beta(2, 3, size=60)                     # the problems' own chances; their mean is 0.4
        for name, n in ('one', 1), ('many', 5):
            low, high = interval((rng.binomial(n, p) / n).tolist())
            hits[name] += low <= 0.4 <= high
    assert all(0.90 < hit / 300 <= 0.99 for hit in hits.values()), hits
    for scores in ([0.0] * 20, [1.0] * 20):
        low, high = interval(scores)
        assert 0.05 < high - low < 0.3 and low <= scores[0] <= high + 1e-9
    assert interval([1] * 8 + [0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)  # Wilson by hand


def test_a_summary_counts_problems_and_leaves_out_what_the_machine_failed():
    outcomes = {'a': ['passed', 'wrong'], 'b': ['syntax', 'empty'], 'c': ['passed', 'infrastructure'],
                'd': ['infrastructure', 'infrastructure']}
    rows = [{'task_id': id, 'outcome': outcome, 'preferred': id == 'a'}
            for id, row in outcomes.items() for outcome in row]
    result = summarise(rows, [1, 2])
    assert (result['n'], result['samples']) == (3, 5)
    assert result['pass@1'] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert result['pass@2'] == pytest.approx((1 + 0) / 2)           # of c, there are no two samples
    assert result['parse_rate'] == pytest.approx(3 / 5) and result['preferred_rate'] == 1 / 2
    assert result['outcomes'] == {'passed': 2, 'wrong': 1, 'syntax': 1, 'empty': 1, 'infrastructure': 3}
    none = summarise([{**row, 'outcome': 'wrong'} for row in rows], [1])
    assert none['preferred_rate'] is None and none['pass@1'] == 0       # of no answer that passed


@pytest.mark.parametrize('text, number', [
    ('#### 18', 18), ('18 eggs, so #### 1,200\nQuestion: 7', 1200), ('It is $3.50.', 3.5), ('-4 or -5', -5),
    ('I know not', None), ('', None), ('x = 12.', 12), ('1,000,000 people', 1e6),
    ('5-3', 3), ('so 5 - 3 = 2', 2), ('f(2)-7', 7), ('(-3)', -3), ('x=-3', -3), ('$-3', -3), ('x = .5', 0.5),
    ('it is -.25', -0.25), ('see 1.2.3', 3), ('answer: 20 #### ', 20), ('2 #### 3 or 4', 3), ('wait...5', 5),
    ('2e3 grams', 2000), ('1.5e-3', 0.0015), ('\u22125 degrees', -5), ('room 2e', 2)])
def test_the_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize('before', ['', 'Sure: ', 'So:\r\n'])
@pytest.mark.parametrize('name', ['', 'py', 'Python ', 'python\r', 'python3.11', '{.python}', ' \t'])
def test_the_code_of_an_answer_is_in_its_fence_however_that_is_written(name, before):
    for end in ('\n```\nIt adds.', '\n```', '\n', ' # a `b`\n```'):
        assert code_in(f'{before}```{name}\nx = 1{end}').split('#')[0].strip() == 'x = 1'


def test_a_python_block_comes_before_others_and_an_answer_without_a_block_is_code():
    assert code_in('Run\n```bash\nls\n```\nthen\n```python\nx = 1\n```\n```py\ny\n```') == 'x = 1\n'
    assert code_in('```\nx = 1\n```\nprints\n```text\n1\n```') == 'x = 1\n'
    assert code_in('```bash\nls\n```') == 'ls\n' and code_in('x = 1') == 'x = 1'


def test_rules_of_instructions():
    for kind, value, good, bad in [
            ('contains', 'Cat', 'a cat', 'a dog'), ('not_contains', 'cat', 'dog', 'A CAT'),
            ('starts_with', 'Yes', ' Yes.', 'No'), ('ends_with', '.', 'a.\n', 'a'),
            ('min_words', 2, 'a b', 'a'),
            ('max_words', 2, 'a b', 'a b c'), ('lines', 2, 'a\nb\n', 'a'), ('regex', r'\d+', 'a\n1', 'a'),
            ('json', None, '```json \n{"a": [1]}\n```', '{a: 1}'), ('lowercase', None, 'a b', 'A b')]:
        assert RULES[kind](good, value) and not RULES[kind](bad, value), kind
    for kind in 'min_words', 'max_words', 'lines':      # a text is no number, and must not be just wrong
        with pytest.raises(TypeError):
            RULES[kind]('', '2')


def test_a_text_is_a_list_of_one_and_each_task_s_left_out_problems_are_kept(tmp_path):
    """Files with a BOM. The letters of 'abc' are in 'cab'; those of 'XY' in 'Y', in part."""
    code = [{'task_id': f'c{i}', 'prompt': 'def f():\n', 'canonical_solution': f'    return {i}\n',
             'test': 'def check(f):\n    assert f() == 1\n', 'entry_point': 'f'} for i in range(2)]
    own = [{'prompt': 'x', 'must_contain': 'abc'}, {'prompt': 'x', 'must_not_contain': 'XY'}]
    answers = [{'task_id': id, 'completion': x} for id, x in
               (('c1', '    return 1\n'), ('own/0', 'cab'), ('own/1', 'Y'))]
    for name, rows in ('code', code), ('own', own), ('answers', answers):
        text = '\ufeff' + ''.join(json.dumps(row) + '\n' for row in rows)
        (tmp_path / name).write_text(text, encoding='utf-8')
    ok(run('eval.py', '--tasks=humaneval,own', f'--data={tmp_path}/code,{tmp_path}/own', '--timeout=2',
           f'--completions={tmp_path}/answers', f'--out={tmp_path}/eval.json', '--memory_mb=4000',
           '--allow_code_execution=True'))
    rows = [json.loads(x) for x in (tmp_path / 'samples.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [row['outcome'] for row in rows] == ['passed', 'wrong', 'passed']
    assert json.loads((tmp_path / 'eval.json').read_text(encoding='utf-8'))['left_out'] == ['c0']
