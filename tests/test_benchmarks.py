"""What eval.py reads as published and what it refuses; a broken harness gives no score."""

import pytest
from conftest import ok, read_json, read_rows, refused, run, shared, write

from parts.eval.benchmarks import check_harness, given_answers, identify, to_item
from parts.eval.grading import rules_of
from parts.eval.problems import problems
from parts.eval.sandbox import Result, run_many

YES = '--allow_code_execution=True'
CODE = {'prompt': 'def f():\n', 'canonical_solution': '    return 1\n', 'entry_point': 'f',
        'test': 'def check(candidate):\n    assert candidate() == 1\n'}


# --- records ------------------------------------------------------------------------------------------------
def test_all_checks_of_a_question_become_rules_and_one_without_or_without_a_solution_is_refused():
    refused = [('gsm8k', {'question': 'x', 'answer': wrong}, 'no number') for wrong in ('7 #### ', None)]
    refused += [('own', {'prompt': 'x', 'tests': tests}, 'tests') for tests in (['assert f()'], 'assert f(')]
    refused += [('own', {'prompt': 'x', 'tests': 'assert f()', 'entry_point': name}, 'name of a function')
                for name in (5, ['f'], 'f;', 'f()')]
    for lacks in CODE:
        refused.append(('humaneval', {k: v for k, v in CODE.items() if k != lacks}, lacks))
    refused += [
        ('gsm8k', {'question': 'x'}, "'answer'"), ('judge', {'turns': []}, 'index'),
        ('humaneval', {**CODE, 'test': ['x']}, 'test'), ('humaneval', {**CODE, 'test': ' '}, 'every answer'),
        ('own', {'prompt': 'x', 'instruction_id_list': ['no_comma']}, 'lm_eval --model hf'),        # IFEval
        ('gsm8k', {'question': 'x', 'choices': ['a', 'b'], 'answer': 1}, 'sample.py --export=hf')]  # MMLU
    for task, record, words in refused:
        with pytest.raises((LookupError, TypeError, ValueError), match=words):
            to_item(task, record, rules_of)

    record = {'prompt': 'x', 'must_contain': ['a', 'b'], 'must_not_contain': 'XY', 'regex': 'c'}
    item = to_item('own', record | {'tests': 'assert f()'}, rules_of)
    assert item['rules'] == [('contains', 'a'), ('contains', 'b'), ('not_contains', 'XY'), ('regex', 'c')]
    assert (item['prompt'], item['tests']) == ('x', 'assert f()')


def test_answers_are_counted_by_task_id_so_none_occurs_twice():
    with pytest.raises(ValueError, match="g.jsonl has the task_id 'a' twice"):
        identify('gsm8k', 'g.jsonl', [{'task_id': id} for id in 'aba'])
    for bad in [1], {}, 1.5, None:
        refused('must be a text or a number', identify, 'gsm8k', 'g.jsonl', [{'task_id': bad}])
    refused('no problem of gsm8k', identify, 'gsm8k', 'g.jsonl', [])
    items = identify('own', 'o.jsonl', [{}, {'question_id': 9}, {'task_id': 'x'}])
    assert [item['task_id'] for item in items] == ['own/0', 9, 'x']

    rows = [{'task_id': 9, 'completion': 'a'}, {'task_id': 'x', 'completion': 'b'},
            {'task_id': 'x', 'completion': 'c', 'task': 'gsm8k'}, {'task_id': 'own/0', 'completion': 'd'}]
    assert given_answers('own', items, rows, 1) == [['d'], ['a'], ['b']]
    refused('completions of own/0: 1, but 2 are needed', given_answers, 'own', items, rows, 2)
    for one in 'a', ['a'], {}:
        refused('several checkpoints', given_answers, 'own', items, [{'ckpt': one}, {'ckpt': 'b'}], 1)
    with pytest.raises(ValueError, match="'x' must be a text"):
        given_answers('own', items, [{'task_id': [1]}, {'task_id': 'x', 'completion': 5}], 1)


# --- the harness is checked before a score ------------------------------------------------------------------
def honest(jobs):
    return list(run_many(jobs, timeout=0.5))


BROKEN = {
    'empty bodies pass': lambda program: 'timeout' if 'True:' in program else 'passed',
    'references fail': lambda program: 'wrong', '3 of 3 references fail': lambda program: 'infrastructure',
    "a loop ends as 'passed'": lambda program: 'wrong' if 'pass\n' in program else 'passed'}


def test_a_broken_harness_gives_no_score():
    items = [to_item('problems', p, rules_of) for p in problems(3, 0, 'variation')]
    for words, outcome_of in BROKEN.items():
        run_all = lambda jobs: [Result(outcome_of(program)) for program, *_ in jobs]
        refused('no score.*' + words, check_harness, 'problems', items, run_all)
    left_out, walls, _ = check_harness('problems', items, honest)
    assert left_out == [] and list(walls) == [
        'network_denied', 'writes_denied', 'processes_denied', 'reads_denied']


def test_tests_that_pass_without_an_answer_are_refused():
    check = 'def check(candidate):\n    assert candidate(2) == 4\n'
    for tests in check, 'def test_f():\n    assert f(2) == 4\n', '# soon':
        items = [{'task': 'own', 'task_id': 'own/1', 'tests': tests}]
        refused('own/1 pass without an answer.*entry_point', check_harness, 'own', items, honest)
    for good in {'tests': check, 'entry_point': 'f'}, {'tests': 'assert f(2) == 4'}:
        assert check_harness('own', [{'task': 'own', 'task_id': 'own/1', **good}], honest)[0] == []


# --- files as they are published ----------------------------------------------------------------------------
def score(task, data, answers, tmp_path, *flags):
    """eval.json, and what is said, of these answers."""
    given = write(tmp_path / 'c.jsonl', [{'task_id': id, 'completion': text} for id, text in answers])
    said = ok(run('eval.py', f'--tasks={task}', f'--data={data}', f'--completions={given}', *flags,
                  f'--out={tmp_path}/eval.json'))
    return read_json(tmp_path / 'eval.json'), said


def test_mbpp_is_scored_on_all_problems_whose_own_solution_passes(tmp_path):
    data = shared('mbpp_sanitized.jsonl')
    answers = [(row['task_id'], '    return 0\n') for row in read_rows(data)[:57]]
    results, _ = score('mbpp', data, answers, tmp_path, YES, '--n_problems=57')
    result = results['tasks']['mbpp']
    assert results['left_out'] == ['MbppEval/56'] and result['n'] == 56
    assert result['parse_rate'] == 1 and result['pass@1'] < 0.2


def test_gsm8k_from_a_file_as_published(tmp_path):
    """Two of three are right; one answer has no number. No model is needed, and nothing is run."""
    data = write(tmp_path / 'g.jsonl', [
        {'question': 'Tom has 3 apples and buys 4.', 'answer': '3 + 4 = <<3+4=7>>7\n#### 7'},
        {'question': '1,200 eggs and one.', 'answer': '#### 1,201'},
        {'question': 'Half of 3?', 'answer': '#### 1.5'}])
    texts = ' 3 and 4 are 7.', ' #### 1201', ' I do not know'
    answers = [(f'gsm8k/{i}', text) for i, text in enumerate(texts)]
    results, said = score('gsm8k', data, answers, tmp_path)
    assert results['tasks']['gsm8k']['outcomes'] == {'passed': 2, 'wrong': 1}
    assert results['ckpt'] is None is results['tasks']['gsm8k']['ckpt'] and 'own solutions' not in said
