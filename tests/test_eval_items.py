"""What eval.py refuses to score, what it reads as published, and what it says of the walls."""
import json
import shutil

import pytest
from conftest import ROOT, mistake, ok, run
from test_sandbox_attacks import LANDLOCK, NAMESPACES, SECCOMP, without

from parts.eval.benchmarks import to_item
from parts.eval.grading import RULES, rules_of

YES = '--allow_code_execution=True'


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


@pytest.mark.parametrize('checks, says', [
    ({}, 'nothing is checked'), ({'rules': []}, 'nothing is checked'), ({'tests': ''}, 'nothing is checked'),
    ({'must_contain': []}, 'nothing is checked'), ({'must_contian': 'a'}, "'must_contian'"),
    ({'must_contian': 'a', 'regex': 'b'}, "did you mean 'must_contain'"), ({'must_contain': ''}, 'contains'),
    ({'rule': [{'kind': 'json'}]}, "did you mean 'rules'"), ({'regex': ''}, 'regex'),
    ({'regex': '('}, 'regex'), ({'rules': [{'value': 'a'}]}, 'kind'),
    ({'rules': [{'kind': 'contain', 'value': 'a'}]}, "no rule 'contain'"),
    ({'rules': [{'kind': 'min_words', 'value': '2'}]}, 'min_words'), ({'rules': ['json']}, 'TypeError'),
    ({'rules': [{'kind': 'min_words'}]}, 'no answer can fail'),
    ({'rules': [{'kind': 'min_words', 'value': -3}]}, 'no answer can fail'),
    ({'rules': [{'kind': 'max_words', 'value': float('inf')}]}, 'whole number'),     # 1e999, as JSON reads it
    ({'rules': [{'kind': 'lines', 'value': 1.5}]}, 'whole number'), ({'regex': '.*'}, 'no answer can fail'),
    ({'regex': '^.*$'}, 'no answer can fail'), ({'regex': r'(?i)(yes)?'}, 'no answer can fail')])
def test_a_line_on_which_no_answer_fails_is_refused_by_file_line_and_name(checks, says, tmp_path):
    data = write(tmp_path / 'own.jsonl', [{'prompt': 'x', 'regex': 'a'}, {'prompt': 'x', **checks}])
    result = run('eval.py', '--tasks=own', f'--data={data}', '--completions=x', YES)
    mistake(result, 'own.jsonl, line 2', says)


CODE = {'prompt': 'def f():\n', 'canonical_solution': '    return 1\n', 'entry_point': 'f',
        'test': 'def check(candidate):\n    assert candidate() == 1\n'}


@pytest.mark.parametrize('task, record, says', [
    *(('gsm8k', {'question': 'x', 'answer': wrong}, 'no number') for wrong in ('seven', '7 #### ', None, '')),
    ('gsm8k', {'question': 'x'}, "'answer'"),
    *(('own', {'prompt': 'x', 'tests': tests}, 'tests') for tests in (['assert f()'], 5, 'assert f(')),
    *(('humaneval', {key: value for key, value in CODE.items() if key != lacks}, lacks) for lacks in CODE),
    ('humaneval', {**CODE, 'test': ['x']}, 'test'), ('humaneval', {**CODE, 'test': ' '}, 'every answer')])
def test_a_problem_that_no_answer_solves_is_refused(task, record, says):
    with pytest.raises((LookupError, TypeError, ValueError), match=says):
        to_item(task, record)


def test_a_problem_that_can_be_solved_is_taken_and_others_are_named_before_a_model_is_asked(tmp_path):
    assert to_item('gsm8k', {'question': 'x', 'answer': 7})['rules'] == [('number', '7')]
    assert to_item('humaneval', CODE)['reference'] == CODE['prompt'] + CODE['canonical_solution']
    data = write(tmp_path / 'd.jsonl', [{'question': 'x', 'answer': 7}, {'question': 'x', 'answer': None}])
    mistake(run('eval.py', '--tasks=gsm8k', f'--data={data}', f'--ckpt={tmp_path}/none'), 'd.jsonl, line 2')


@pytest.mark.parametrize('regex, fails', [
    ('^$', 'a'), (r'\A\s*$', 'a'), ('^(?!.*sorry)', 'sorry'), ('^[^!]*$', '!'), ('^.{0,500}$', 'a' * 501),
    ('.', ''), (r'^\d*$', 'a'), ('a*$|b^', None), (r'\b', ''), ('^a+', 'b'), (r'(?<!x)\Z', 'x'),
    ('(a)?(?(1)b|c)', 'd')])
def test_a_regex_that_can_fail_is_taken(regex, fails):
    assert rules_of({'regex': regex}) == [('regex', regex)]
    assert fails is None or not RULES['regex'](fails, regex)


@pytest.mark.parametrize('regex', ['.*', '.*?', 'a*', '^a*', '(?s)^.*', '(x|)', '[^a]*',
                                   r'(?:\w+\s?)*', '^.*$'])
def test_a_regex_that_is_refused_matches_whatever_there_is(regex):
    with pytest.raises(ValueError, match='no answer can fail'):
        rules_of({'regex': regex})
    for text in ('', 'a', 'b\n\nc', '\0', '!' * 999, ' x', '☃'):
        assert RULES['regex'](text, regex), text


def test_all_checks_of_a_record_are_rules_but_the_program():
    assert rules_of({'prompt': 'x', 'tests': 'assert True'}) == []
    assert rules_of({'must_contain': ['a', 'b'], 'regex': 'c'}) == [
        ('contains', 'a'), ('contains', 'b'), ('regex', 'c')]


def test_answers_are_counted_by_task_id_so_none_occurs_twice(tmp_path):
    rows = [{'task_id': id, 'question': 'How many?', 'answer': '#### 4'} for id in ('a', 'b', 'a')]
    data = write(tmp_path / 'g.jsonl', rows)
    mistake(run('eval.py', '--tasks=gsm8k', f'--data={data}', '--completions=x'), 'g.jsonl', "'a' twice")
    flags = ['--tasks=problems', YES, '--completions=x', '--n_problems=2']
    mistake(run('eval.py', *flags, '--splits=variation,cell,variation'), "'variation-0/0' twice")


@pytest.mark.parametrize('completion', [5, None, ['a']])
def test_a_completion_is_a_text(completion, tmp_path):
    data = write(tmp_path / 'g.jsonl', [{'question': 'How many?', 'answer': '#### 4'}])
    given = write(tmp_path / 'c.jsonl', [{'task_id': 'gsm8k/0', 'completion': completion}])
    result = run('eval.py', '--tasks=gsm8k', f'--data={data}', f'--completions={given}')
    mistake(result, "'gsm8k/0'", 'must be a text')


def test_gsm8k_from_a_file_as_published(tmp_path):
    """Two of three are right; one answer has no number."""
    data = write(tmp_path / 'g.jsonl', [
        {'question': 'Tom has 3 apples and buys 4.', 'answer': '3 + 4 = <<3+4=7>>7\n#### 7'},
        {'question': '1,200 eggs and one.', 'answer': '#### 1,201'},
        {'question': 'Half of 3?', 'answer': '#### 1.5'}])
    given = write(tmp_path / 'c.jsonl', [{'task_id': f'gsm8k/{i}', 'completion': text} for i, text in
                                         enumerate([' 3 and 4 are 7.', ' #### 1201', ' I do not know'])])
    flags = [f'--data={data}', f'--completions={given}', f'--out={tmp_path}/e.json']
    ok(run('eval.py', '--tasks=gsm8k', *flags))
    result = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))['tasks']['gsm8k']
    assert result['outcomes'] == {'passed': 2, 'wrong': 1}
    whole = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))       # no model wrote them
    assert whole['ckpt'] is None is result['ckpt'] and whole['completions'] == str(given)


@pytest.mark.parametrize('record', [
    {'prompt': 'x', 'instruction_id_list': ['punctuation:no_comma'], 'kwargs': [{}]},       # IFEval
    {'question': 'Which?', 'choices': ['a', 'b'], 'answer': 1},                              # MMLU, ARC
    {'ctx': 'x', 'endings': ['a', 'b'], 'label': 1}])                                       # HellaSwag
def test_what_lm_eval_scores_is_refused_with_its_command(record, tmp_path):
    data = write(tmp_path / 'd.jsonl', [record])
    for task in 'own', 'gsm8k':
        mistake(run('eval.py', f'--tasks={task}', f'--data={data}'), 'd.jsonl, line 1',
                'python sample.py --export=hf', 'lm_eval --model hf')
    mistake(run('eval.py', '--tasks=choice'), "unknown task 'choice'", 'lm_eval --model hf')


@pytest.mark.parametrize('flag', ['--timeout=1e300', '--timeout=0', '--seed=99999999999999999999999',
                                  '--seed=-1'])
def test_numbers_too_large_for_the_machine_are_refused(flag):
    mistake(run('eval.py', flag), flag[2:].split('=')[0])


def test_eval_says_in_one_line_and_in_eval_json_which_walls_stood(tmp_path):
    for file in ROOT.glob('*.py'):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / 'parts', tmp_path / 'parts')
    given = write(tmp_path / 'c.jsonl', [{'task_id': 'codeparrot/0', 'completion': '    return a * b\n'}])
    flags = ['--tasks=problems', f'--completions={given}', YES, '--n_problems=1', '--splits=codeparrot',
             f'--out={tmp_path}/e.json']
    for missing in (), (NAMESPACES, LANDLOCK, SECCOMP):
        without(tmp_path / 'parts' / 'eval' / 'trial.py', *missing)
        said = ok(run(tmp_path / 'eval.py', *flags, fresh=True))
        result = json.loads((tmp_path / 'e.json').read_text(encoding='utf-8'))
        assert list(result['confined']) == ['network_denied', 'writes_denied', 'processes_denied']
        assert result['tasks']['problems']['outcomes'] == {'passed': 1}
        warnings = [line for line in said.splitlines() if line.startswith('warning: programs run here')]
        assert len(warnings) == (not all(result['confined'].values())), said
    assert not any(result['confined'].values()) and "'network_denied': False" in warnings[0]
