"""eval.py runs what a model wrote: the harness is checked first, each outcome is kept, the seed decides."""
import gzip
import json
import re
import shutil

import pytest
from conftest import ROOT, SHARED, TINY, mistake, ok, run

from parts.eval.problems import problems

HUMANEVAL = SHARED / 'HumanEval.jsonl.gz'
YES = '--allow_code_execution=True'


@pytest.fixture(scope='module')
def ckpt(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY))
    return out


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def score(task, completions, out, *flags, data=HUMANEVAL):
    flags = flags if task == 'problems' else [*flags, f'--data={data}']
    run_ = run('eval.py', f'--tasks={task}', f'--completions={completions}', YES,
               f'--out={out}/eval.json', *flags)
    ok(run_)
    return json.loads((out / 'eval.json').read_text(encoding='utf-8'))['tasks'][task]


def test_each_outcome_is_told_and_kept(tmp_path):
    """Four samples of one problem, four of another: pass@k by hand."""
    items = problems(2, 0, 'variation')
    good, twin = (p['canonical_solution'] for p in items)
    answers = [good, '    return None\n', '    return (\n', ' \n'], \
        [twin, twin, '    raise ValueError\n', '    while True: pass\n']
    given = write(tmp_path / 'c.jsonl', [{'task_id': p['task_id'], 'completion': text}
                                         for p, texts in zip(items, answers) for text in texts])
    result = score('problems', given, tmp_path / 'out', '--k=1,2,4', '--splits=variation', '--n_problems=2')
    assert result['n'] == 2 and result['samples'] == 8 and result['pass@1'] == pytest.approx(3 / 8)
    assert result['pass@2'] == pytest.approx((1 / 2 + 5 / 6) / 2) and result['pass@4'] == 1
    assert result['outcomes'] == {'passed': 3, 'wrong': 1, 'syntax': 1, 'empty': 1, 'exception': 1,
                                  'timeout': 1}
    assert set(result['by_split']) == {'variation'} and result['by_split']['variation']['n'] == 2
    rows = read(tmp_path / 'out' / 'samples.jsonl')
    assert [row['completion'] for row in rows] == [text for texts in answers for text in texts]
    assert rows[4]['outcome'] == 'passed' and rows[6]['message'] and rows[0]['prompt'] == items[0]['prompt']
    again = score('problems', tmp_path / 'out' / 'samples.jsonl', tmp_path / 'b', '--k=1,2,4',
                  '--splits=variation', '--n_problems=2')               # its own samples, scored again
    assert again == result


def test_the_two_problems_of_the_codeparrot_article_are_scored_as_there(tmp_path):
    """Its own four answers to each: 1 of 4 areas is right, 4 of 4 means are."""
    areas = ['a * b', 'math.sqrt(a * b)', 'a * b / 2.0', 'a * b / a']
    given = write(tmp_path / 'c.jsonl', [
        {'task_id': f'codeparrot/{i}', 'completion': f'    return {text}\n'}
        for i, texts in enumerate((areas, ['np.mean(a)'] * 4)) for text in texts])
    result = score('problems', given, tmp_path, '--splits=codeparrot', '--k=1,4')
    rates = {family: group['pass@1'] for family, group in result['by_family'].items()}
    assert rates == {'area_of_rectangle': 1 / 4, 'mean': 4 / 4} and result['pass@4'] == 1
    assert result['outcomes'] == {'passed': 5, 'wrong': 2, 'exception': 1}      # math is not imported


@pytest.mark.skipif(not HUMANEVAL.exists(), reason='needs HumanEval.jsonl.gz in shared/data')
@pytest.mark.parametrize('body, passed', [(None, 164), ('    pass\n', 0)])
def test_humaneval_s_references_all_pass_and_empty_bodies_all_fail(body, passed, tmp_path):
    with gzip.open(HUMANEVAL, 'rt', encoding='utf-8') as f:
        items = [json.loads(line) for line in f]
    given = write(tmp_path / 'c.jsonl', [
        {'task_id': p['task_id'], 'completion': body or p['canonical_solution']} for p in items])
    result = score('humaneval', given, tmp_path, '--timeout=20')
    assert result['n'] == 164 and result['outcomes'].get('passed', 0) == passed
    low, high = result['interval']
    assert low <= result['pass@1'] <= high + 1e-9 and 0.01 < high - low < 0.05


@pytest.mark.skipif(not (SHARED / 'mbpp_sanitized.jsonl').exists(), reason='needs mbpp_sanitized.jsonl')
def test_mbpp_is_scored_on_all_problems_whose_own_solution_passes(tmp_path):
    items = read(SHARED / 'mbpp_sanitized.jsonl')[:60]
    given = write(tmp_path / 'c.jsonl', [
        {'task_id': p['task_id'], 'completion': '    return 0\n'} for p in items])
    result = score('mbpp', given, tmp_path, '--n_problems=60', data=SHARED / 'mbpp_sanitized.jsonl')
    assert result['n'] == 59 and result['parse_rate'] == 1 and result['pass@1'] < 0.2
    assert json.loads((tmp_path / 'eval.json').read_text(encoding='utf-8'))['left_out'] == ['MbppEval/56']


@pytest.mark.parametrize('broken, says', [
    ("Result('passed')", 'empty bodies pass'), ("Result('wrong')", 'references fail'),
    ("Result('infrastructure')", 'references fail'),
    ("Result('timeout' if 'True:' in job[0] else 'passed')", 'empty bodies pass'),
    ("Result('wrong' if 'pass\\n' in job[0] else 'passed')", "a loop ends as 'passed'")])
def test_a_broken_harness_gives_no_score(broken, says, tmp_path):
    for file in ROOT.glob('*.py'):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / 'parts', tmp_path / 'parts')
    sandbox = (tmp_path / 'parts' / 'eval' / 'sandbox.py').read_text(encoding='utf-8')
    sandbox = sandbox[:sandbox.index('def run_many(')] + \
        f'def run_many(jobs, *_, **__):\n    for job in jobs:\n        yield {broken}\n'
    (tmp_path / 'parts' / 'eval' / 'sandbox.py').write_text(sandbox, encoding='utf-8')
    given = write(tmp_path / 'c.jsonl', [{'task_id': 'variation-0/0', 'completion': '    return 1\n'}])
    result = run(tmp_path / 'eval.py', '--tasks=problems', f'--completions={given}', YES, '--n_problems=1',
                 '--splits=variation')
    mistake(result, 'no score', re.sub(' +', ' ', says))
    assert not (tmp_path / 'scored' / 'eval.json').exists()


def test_nothing_runs_unless_allowed_and_mistakes_are_one_sentence(ckpt, tmp_path):
    mistake(run('eval.py', f'--ckpt={ckpt}', '--tasks=problems'), '--allow_code_execution=True', 'sandbox.py')
    mistake(run('eval.py', '--tasks=problem'), "'problem'", 'humaneval')
    mistake(run('eval.py', '--tasks=gsm8k'), 'gsm8k', '.jsonl')
    mistake(run('eval.py', '--tasks=compare'), '--compare=')
    bad = write(tmp_path / 'bad.jsonl', [{'task_id': 'x', 'prompt': 'def f():\n'}])
    mistake(run('eval.py', f'--ckpt={ckpt}', '--tasks=humaneval', f'--data={bad}', YES), 'canonical_solution')
    (tmp_path / 'no.jsonl').write_text('{"a": 1}\nno\n', encoding='utf-8')
    mistake(run('eval.py', f'--ckpt={ckpt}', '--tasks=own', f'--data={tmp_path}/no.jsonl', YES), 'no.jsonl')
    few = write(tmp_path / 'few.jsonl', [{'task_id': 'variation-0/0', 'completion': 'x'}])
    result = run('eval.py', '--tasks=problems', f'--completions={few}', YES, '--n_problems=2')
    mistake(result, 'variation-0/1')


def test_the_seed_decides_the_numbers(ckpt, tmp_path):
    flags = [f'--ckpt={ckpt}', '--tasks=problems', YES, '--n_problems=3', '--num_samples=3', '--k=3',
             '--max_new_tokens=24', '--splits=variation', '--device=cpu']
    for name, more in ('a', []), ('b', []), ('c', ['--seed=2']):
        ok(run('eval.py', *flags, f'--out={tmp_path}/{name}/eval.json', *more))
    a, b, c = (read(tmp_path / name / 'samples.jsonl') for name in 'abc')
    assert a == b and len(a) == 9 and [r['completion'] for r in a] != [r['completion'] for r in c]
    a, b = ((tmp_path / name / 'eval.json').read_text(encoding='utf-8') for name in 'ab')
    assert a == b and json.loads(a)['chat'] is False
