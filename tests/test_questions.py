"""Questions as published, what is refused, a harness that is broken, and how answers are graded."""
import re
import shlex
import sys

import pytest
from conftest import refused, write

from extras.grading import (check, check_harness, code_in, given_answers, job, judged, outcome, program,
                            read_answers, verdicts)
from extras.questions import broken_rules, from_problems, identified, last_number, read, to_question
from extras.sandbox import Result, run_many

CODE = {'prompt': 'def f():\n', 'canonical_solution': '    return 1\n', 'entry_point': 'f',
        'test': 'def check(candidate):\n    assert candidate() == 1\n'}


# --- records ------------------------------------------------------------------------------------------------
REFUSED = [
    ({'must_contian': 'a'}, 'give one of must_contain'),
    ({'must_contain': []}, 'nothing is checked'), ({'must_contain': [2]}, 'list of texts'),
    ({'answer': '7 #### '}, 'must be a number'), ({'answer': '1/2'}, 'must be a number'),
    ({'regex': '.*'}, 'can fail'), ({'regex': '('}, 'unterminated'),
    ({'tests': 'assert f('}, 'never closed'), ({**CODE, 'prompt': ''}, 'no prompt'),
    ({'test': 'assert f()'}, 'needs a text as its prompt'), ({**CODE, 'prompt': ['a']}, 'needs a text'),
    ({'tests': 'assert f()', 'entry_point': 'f()'}, 'name of a function'),
    ({'tests': 'assert f()', 'entry_point': 5}, 'name of a function'),
    ({**CODE, 'test': ' '}, 'every answer'), ({'regex': 'a', 'task_id': [1]}, 'unhashable'),
    ({'choices': ['a', 'b'], 'answer': 1}, 'lm_eval --model hf')]             # MMLU


def test_each_rule_tells_good_from_bad_and_a_record_on_which_no_answer_fails_is_refused():
    for key, value, good, bad in [
            ('must_contain', 'Cat', 'a cat', 'a dog'), ('must_not_contain', 'cat', 'dog', 'A CAT'),
            ('regex', r'\d+', 'a\n1', 'a'), ('answer', '7', 'it is 7.0', '7 or 8')]:
        assert not broken_rules([(key, value)], good), key
        assert broken_rules([(key, value)], bad) == [key]
    for checks, words in REFUSED:
        with pytest.raises((AttributeError, TypeError, ValueError, SyntaxError, re.error), match=words):
            to_question({'prompt': 'x', **checks})
    record = {'prompt': 'x', 'must_contain': ['a', 'b'], 'must_not_contain': 'XY', 'regex': 'c'}
    rules = [('must_contain', 'a'), ('must_contain', 'b'), ('must_not_contain', 'XY'), ('regex', 'c')]
    assert to_question(record)['rules'] == rules


SAME_FORM = [       # a record; what a chat is asked; what a base model continues; a right and a wrong answer
    (CODE, 'Complete:\ndef f():', 'def f():\n', '    return 1\n', '    return 2\n'),
    ({'question': '2?', 'answer': 'so #### 2'}, '2?', 'Question: 2?\nAnswer:', ' 2', ' 3'),
    ({'turns': ['2?', 'why?'], 'regex': '2'}, '2?', 'Question: 2?\nAnswer:', ' 2', ' 3'),
    ({'prompt': '2?', 'answer': '2'}, '2?', '2?', 'it is 2', 'it is 3'),
    ({'prompt': [{'role': 'user', 'content': '# f'}], 'tests': 'assert f() == 1'}, '# f', '# f',
     '\ndef f(): return 1', '\ndef f(): return 2')]


def test_a_question_of_any_source_is_asked_and_graded_alike():
    for record, chat, base, *answers in SAME_FORM:
        question = to_question(record)
        assert question['messages'] == [{'role': 'user', 'content': chat}] and question['prompt'] == base
        jobs = [job(question, text, chat=False) for text in answers]
        results = run_many(jobs) if all(jobs) else [None, None]
        found = [outcome(question, text, result)['outcome'] for text, result in zip(answers, results)]
        assert found == ['passed', 'wrong'], record
        unjudged = to_question(record, is_graded=False)     # a reward model grades the answers
        assert not unjudged['tests'] and not unjudged['rules']


def test_answers_are_counted_by_task_id_so_none_occurs_twice(tmp_path):
    refused("g.jsonl has the task_id 'a' twice", identified, 'gsm8k', 'g.jsonl', [{'task_id': 'a'}] * 2)
    refused('no problem of gsm8k', identified, 'gsm8k', 'g.jsonl', [])
    mixed = write(tmp_path / 'mixed.jsonl', [CODE, {'prompt': 'x', 'regex': 'a'}])
    refused('give each kind a file of its own', read, 'own', str(mixed))
    questions = identified('own', 'o.jsonl', [{}, {'question_id': 9}])
    assert [question['task_id'] for question in questions] == ['own/0', 9]

    def given(rows, n=1):
        return given_answers('own', questions, read_answers(str(write(tmp_path / 'c.jsonl', rows))), n)

    rows = [{'task_id': 9, 'completion': 'a'}, {'task_id': 9, 'completion': 'c', 'task': 'gsm8k'},
            {'task_id': 'own/0', 'completion': 'd'}]
    assert given(rows) == [['d'], ['a']]
    refused('completions of own/0: 1, but 2 are needed', given, rows, 2)
    refused('several checkpoints', given, [rows[0] | {'ckpt': 'a'}, rows[1] | {'ckpt': 'b'}])
    for wrong in {'task_id': 'x'}, {'task_id': 'x', 'completion': 4}, {'task_id': ['x'], 'completion': '4'}:
        refused('line 2: .*each line needs a "task_id" and a "completion"', given, [rows[0], wrong])


# --- the harness is checked before a score ------------------------------------------------------------------
def honest(jobs):
    return list(run_many(jobs, timeout=0.5))


BROKEN = {
    'pass without an answer': lambda program: 'timeout' if 'True:' in program else 'passed',
    'solutions fail': lambda program: 'timeout' if 'True:' in program else 'wrong',
    '3 of 3 known solutions fail': lambda program: 'infrastructure',
    "loop ends as 'passed'": lambda program: 'wrong' if '*args' in program else 'passed'}


def test_a_broken_harness_gives_no_score(capsys):
    questions = from_problems(3, 0, ['variation'])
    for words, outcome_of in BROKEN.items():
        run_all = lambda jobs: [Result(outcome_of(program)) for program, *_ in jobs]
        refused('no score.*' + words, check_harness, questions, run_all)
    left_out, walls = check_harness(questions, honest)
    assert left_out == [] and list(walls) == [
        'network_denied', 'writes_denied', 'processes_denied', 'reads_denied']
    unsolved = [question | {'solution': ''} for question in questions]
    for is_open in False, True:
        capsys.readouterr()
        has_walls = {**dict.fromkeys(walls, True), 'reads_denied': not is_open}
        results = [Result(outcome, **has_walls) for outcome in ('timeout', *['wrong'] * 3)]
        check_harness(unsolved, lambda _: results)
        said = capsys.readouterr().out
        assert ('not complete here. Missing: reads. ' in said) == is_open == bool(said)


def test_a_question_whose_own_solution_fails_is_left_out_and_programs_wait_for_permission():
    asked = identified('own', 'f', [to_question(CODE | {'prompt': f'def f():  # {i}\n'}) for i in range(3)])
    asked[1]['solution'] = 'def f():\n    return 2\n'
    words = identified('own', 'w', [to_question({'prompt': 'x', 'regex': 'a'})])
    assert check({'own': words}, None) == ({'own': words}, {})
    refused('--allow_code_execution=True', check, {'own': words, 'humaneval': asked}, None)
    kept, harness = check({'w': words, 'humaneval': asked}, honest)
    assert kept == {'w': words, 'humaneval': [asked[0], asked[2]]} and harness['left_out'] == ['own/1']


def test_more_than_2_percent_without_a_verdict_are_no_score():
    asked = [to_question(CODE)] * 100
    for n_lost in 2, 3:
        run_all = lambda jobs: [Result('infrastructure')] * n_lost + [Result('passed')] * (len(jobs) - n_lost)
        found = verdicts(asked, [['    return 1\n']] * 100, False, run_all)
        some = [next(found)['outcome'] for _ in range(100)]
        assert some.count('infrastructure') == n_lost
        if n_lost == 3:
            refused('no score: 3/100', list, found)
        else:
            assert [*found] == []


def test_tests_that_pass_without_an_answer_are_refused():
    check = {'prompt': 'f of 2?', 'tests': 'def check(candidate):\n    assert candidate(2) == 4\n'}
    refused("'f of 2.' pass without an answer.*entry_point", check_harness, [to_question(check)], honest)
    assert check_harness([to_question(check | {'entry_point': 'f'})], honest)[0] == []


# --- numbers and code in an answer --------------------------------------------------------------------------
NUMBERS = {
    '18 eggs, so #### 1,200\nQuestion: 7': 1200, 'It is $3.50.': 3.5, '': None, '5-3': 3, 'f(2)-7': 7,
    '(-3)': -3, 'it is -.25': -0.25, 'see 1.2.3': 3, 'answer: 20 #### ': 20, '2 #### 3 or 4': 3,
    'wait...5': 5, '1.5e-3': 0.0015, '\u22125 degrees': -5, 'room 2e': 2, 'primes: 2,3,5': 5,
    '12,345,678': 12345678, '#### Step 1\n#### Step 2\nso 14': 14, 'it is -$5': -5}


def test_the_last_number_and_the_code_in_a_fence_however_that_is_written():
    for text, number in NUMBERS.items():
        assert last_number(text) == number, text

    for name in '', 'py', 'python\r', 'python3.11', '{.python}', ' \t':
        for end in '\n```\nIt adds.', '\n', ' # a `b`\n```':
            answer = f'So:\r\n```{name}\nx = 1{end}'
            assert code_in(answer).split('#')[0].strip() == 'x = 1', answer
    assert code_in('Run\n```bash\nls\n```\nthen\n```python\nx = 1\n```') == 'x = 1\n'
    assert code_in('- So:\n  ```\n  x = 1\n  y = 2\n  ```') == 'x = 1\ny = 2\n'
    asked = {'prompt': 'import math\nWrite `def f(x):`', 'entry_point': 'f'}
    assert program(asked, '```\nx = 1\n```', chat=True) == 'x = 1\n'
    assert program(asked | {'test': '1'}, 'x = 1', chat=True) == 'import math\nWrite `x = 1'


# --- a judge ------------------------------------------------------------------------------------------------
def test_only_a_lone_number_from_1_to_10_is_a_grade(tmp_path):
    """A model wrote the answer, and may have learned to ask for a 10."""
    grades = {'Surely [[9]]': None, '[[11]]': None, '[[7': None, ' 10': 10, '[[8]]': 8, '7.5\n': 7.5}
    question = to_question({'prompt': 'Twice 5?', 'reference': '10'}, is_graded=False)
    for reply, score in grades.items():
        row = judged(shlex.join(['printf', '%s', reply]), question, 'So')
        assert (row['score'], row['outcome']) == (score, 'judged' if score else 'infrastructure'), reply
    assert judged("sh -c 'echo 7 >&2; exit 1'", question, 'So')['message'].startswith('it failed: 7\n')
    assert 'it cannot be asked' in judged('no-such-judge', question, 'So')['message']
    script = tmp_path / 'my judge.py'           # it gets the conversation as JSON
    script.write_text('import json, sys\nd = json.load(sys.stdin)\n'
                      'print(len(d["messages"]) + 5 * (d["reference"] == "10"))', encoding='utf-8')
    assert judged(f"{sys.executable} -S '{script}'", question, 'ten')['score'] == 7
    assert judged('no-such-judge', question, ' \n') == {'outcome': 'empty', 'message': '', 'score': 1.0}
