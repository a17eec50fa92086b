"""Questions as published and of your own, which are refused, a harness that is broken, and how answers are
judged: right ones pass and wrong ones fail, however they and the questions are written."""
import gzip
import json
import shlex
import sys
import textwrap

from conftest import refused, shared, write

from extras.grading import (check, check_harness, given_answers, judged, program, read_answers,
                            verdicts)
from extras.questions import broken_rules, from_problems, identified, last_number, read, to_question
from extras.rewards import open_tests
from extras.sandbox import Result, run_many

CODE = {'prompt': 'def f():\n', 'canonical_solution': '    return 1\n', 'entry_point': 'f',
        'test': 'def check(candidate):\n    assert candidate() == 1\n'}
RIGHT = 'def f(x):\n    return x + 1\n'
WRONG = 'def f(x):\n    return x + 2\n'
PROSE = {'prompt': 'Write f(x), which adds 1.', 'tests': 'assert f(1) == 2\nassert f(5) == 6'}


def outcomes(question, answers, chat=False, timeout=3.0):
    """What becomes of each answer to a question."""
    judge = lambda jobs: run_many(jobs, timeout)
    return [verdict['outcome'] for verdict in verdicts([to_question(question)], [answers], chat, judge)]


def only(outcome, question, answers, chat=False):
    found = outcomes(question, answers, chat)
    other = [(verdict, text) for verdict, text in zip(found, answers, strict=True) if verdict != outcome]
    assert answers and not other, other[:3]


# --- records ------------------------------------------------------------------------------------------------
REFUSED = r"""
{"must_contian": "a"} => give one of must_contain
{"must_contain": []} => nothing is checked
{"must_contain": [2]} => list of texts
{"regex": ".*"} => can fail
{"regex": "("} => unterminated
{"regex": "a", "task_id": [1]} => unhashable
{"tests": "assert f("} => never closed
{"tests": "assert f()", "entry_point": "f()"} => name of a function
{"tests": "assert f()", "entry_point": 5} => name of a function
{"test": "assert f()"} => needs a text as its prompt
{"test": "assert f()", "entry_point": "f", "prompt": ""} => no prompt
{"test": "assert f()", "entry_point": "f", "prompt": ["a"]} => needs a text
{"test": " ", "entry_point": "f"} => every answer
{"choices": ["a", "b"], "answer": 1} => lm_eval --model hf
{"must_contain": 4} => "must_contain" must be a text
{"must_contain": null} => "must_contain" must be a text
{"must_not_contain": [2]} => "must_not_contain" must be a text
{"regex": {"a": 1}} => "regex" must be a text
{"tests": ["assert f()"]} => "tests" must be a text
{"tests": 5} => "tests" must be a text
{"test": ["assert f()"], "entry_point": "f"} => "test" must be a text
"""
# each an "answer" that is no number
TEXTS = json.loads('''["Paris", "No.", "", " ", true, null, [4], {"a": 1}, "2026-11-27", "May 5, 2026",
    "10:30", "1/2", "1,2", "H2O", "Apollo 11", "25 m^2", "7 #### ", "7 #### Paris", "1e400",
    "x = 4, y = 5"]''')


def test_each_rule_tells_good_from_bad_and_a_record_on_which_no_answer_fails_is_refused(tmp_path):
    for key, value, good, bad in [
            ('must_contain', 'Cat', 'a cat', 'a dog'), ('must_not_contain', 'cat', 'dog', 'A CAT'),
            ('regex', r'\d+', 'a\n1', 'a'), ('answer', '7', 'it is 7.0', '7 or 8')]:
        assert not broken_rules([(key, value)], good), key
        assert broken_rules([(key, value)], bad) == [key]
    cases = [line.split(' => ') for line in REFUSED.strip().splitlines()]
    for text in TEXTS:
        cases.append((json.dumps({'answer': text}), '"answer" must be a number.*"must_contain" or "regex"'))
    for checks, words in cases:
        data = write(tmp_path / 'own.jsonl', [{'prompt': 'x', **json.loads(checks)}])
        refused(f'own.jsonl, line 1: .*{words}', read, 'own', str(data))
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
        assert outcomes(record, answers) == ['passed', 'wrong'], record
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


# --- the code of an answer ----------------------------------------------------------------------------------
NAMES = ['', 'python', ' python', 'Python', 'py', 'python3', 'python title="x"', '{.python}', 'python {2-3}']
DOCSTRING = '''def f(x):
    """Add, as in

    ```
    f(1)
    ```
    and in ```f(2)```.
    """
'''


def fenced(code):
    """Answers that hold this code, a function f."""
    long = code.replace('def f(x):\n', DOCSTRING)
    inside = lambda n, text: textwrap.indent(text, ' ' * n)
    for fence, names in ('```', NAMES), ('````', ['', ' py']), ('~~~', ['', 'python a="`"']):
        for name in names:
            for body in code, long:
                yield f'So:\n\n{fence}{name}\n{body}{fence}\nIt adds `1`: it\'s """so""".\n```\n7\n```'
            yield f'{fence}{name}\r\n{code}{fence}\r\nIt adds.'.replace('\n', '\r\n').replace('\r\r', '\r')
            yield f'1. So:\n\n   {fence}{name}\n{inside(3, long)}   {fence}\n2. Done.'
            yield f'- {fence}{name}\n{inside(2, code)}  {fence}\n- Done.'
    for body in code, long:
        for end in '', '\n', '```', '```\n```\n':               # cut, or closed twice
            yield f'```python\n{body}{end}'
        yield body
    call = '```python\nprint(f(1), g)\n```\n'
    last = f'```python\n{code}```\n{call}'
    for first in ('```\npip install x\n```', '```bash\nls\n```', '```\n7\n```', '```python\nimport math\n```',
                  call, '```python\nx = f(2)\n```', '```json\n{"a": 1}\n```', '```c\nint f() {}\n```',
                  '```python\ndef g(x):\n    return f(x)\n```', '```python\nfrom f import (\n```',
                  'As in ```f(x)```', '```pycon\n>>> f(1)\n```', '```python\nf(\n```'):
        yield f'{first}\nSo:\n{last}'
    yield f'Here it is: ```python\n{code}```\n{call}'
    yield f'```python\n{code.rstrip()}```\nIt adds.\n{call}'
    yield f'```markdown\n# f\n{last}```\nDone.'
    yield f'````md\n# f\n{last}````\nDone.'
    yield f'```python\n{inside(8, code)}```'
    positive = code.replace('x +', 'operator.pos(x) +')
    yield f'```python\nimport operator\n```\nand\n```python\n{positive}```\n{call}'
    same = code.replace('return x', 'return same(x)')
    yield f'```python\n{same}```\nand\n```\ndef same(x): return x\n```\n{call}'
    head, body = code.splitlines()
    yield f'1. So:\n   ```\n   {head}\n       """\nIn column 0.\n"""\n   {body}\n   ```'


def test_the_code_of_an_answer_is_found_in_any_fence_among_other_blocks_and_nothing_else_is_run():
    """The text behind a block would put it right, or end it."""
    only('passed', PROSE, [*fenced(RIGHT)], chat=True)
    only('wrong', PROSE, [*fenced(WRONG)], chat=True)
    only('wrong', PROSE, [
        f'{fence}{name}\n{WRONG}{fence}\n{more}' for fence in ('```', '````', '~~~') for name in NAMES[1:3]
        for more in (RIGHT, f'or\n{RIGHT}', f'or\n```\n{RIGHT}```', f'or\n\n``` python\n{RIGHT}```')],
        chat=True)
    only('passed', PROSE, [f'```{name}\n{RIGHT}```\nraise SystemExit\n```\n1 / 0\n```' for name in NAMES],
         chat=True)
    only('syntax', PROSE, [f'So: {RIGHT}', f'{RIGHT}\nIt adds 1.', '```\nNo.\n```',
                           '```python\ndef f(x:\n```\nNo.'], chat=True)
    strange = ['```\n' * 4000, '```a\n' * 4000, '```a\nx\n' * 3000, '```\n"""\n' * 2000,
               '```\n"""\n' + '```\n' * 4000, '`' * 9999, '- ' * 9999, '```python\n' + '(' * 9999,
               '```\n\0\ud800\n```']
    assert 'passed' not in outcomes(PROSE, strange, chat=True, timeout=20)


# --- prompts in prose and in Python -------------------------------------------------------------------------
def test_answers_to_prose_are_programs_also_without_a_chat():
    for code, verdict in (RIGHT, 'passed'), (WRONG, 'wrong'):
        answers = [f'Here it is:\n``` python\n{code}```\nIt adds.', f'```\n{code}```', code, f'\n\n{code}']
        for prompt in PROSE['prompt'], 'Write "f', [{'role': 'user', 'content': 'Write f, (it adds'}]:
            only(verdict, PROSE | {'prompt': prompt}, answers)
    prompt = 'import operator\ndef one(): return 1\ndef f(x):\n'        # Python that the answer continues
    only('passed', PROSE | {'prompt': prompt}, [
        '    return operator.add(x, one())\n', '    return x + one()\n# ```',
        '    """\n    ```\n    """\n    return x + one()'])
    only('wrong', PROSE | {'prompt': prompt}, [
        '    return operator.add(x, 2 * one())\n', '    return x + 2 * one()\n# ```'])


def test_a_function_is_completed_by_its_body_or_by_all_of_it_in_a_fence_or_not():
    start = 'import operator\n\n\ndef f(x):\n    """Add 1."""\n'
    question = {'prompt': start, 'entry_point': 'f', 'canonical_solution': '    return x + 1\n',
                'test': 'def check(candidate):\n    assert candidate(1) == 2\n'}
    for n, verdict in (1, 'passed'), (2, 'wrong'):
        body = f'    return operator.add(x, {n})\n'
        packed = [f'So:\n```{name}\n{code}```\nDone.' for name in NAMES[1:3] for code in (body, start + body)]
        packed += [f'```\n{start[start.index("def"):]}{body}```', f'```python\n{body}', body, start + body]
        only(verdict, question, packed, chat=True)
        only(verdict, question, [*packed, f'\n{body}', f'{body}\n\ndef g():\n    pass\n'])
    only('syntax', question, ['    return (', 'so, add 1', '  return 1', '    return 1\nIt adds.',
                              '```\n    return (\n```'])
    only('exception', question, [f'```\n{RIGHT.replace("f(", "g(")}```'], chat=True)    # another function


def test_solutions_of_humaneval_pass_bare_and_in_fences():
    with gzip.open(shared('HumanEval.jsonl.gz'), 'rt', encoding='utf-8') as file:
        problems = [json.loads(line) for line in file][::24]
    for row in problems:
        answers = [form.format(row['prompt'], row['canonical_solution'])
                   for form in ('{1}', '``` python\n{1}```\nDone.', '~~~\n{0}{1}~~~\nDone.')]
        assert outcomes(row, answers, timeout=20) == ['passed'] * 3, row['task_id']


# --- MBPP as published --------------------------------------------------------------------------------------
FULL = [    # the keys of mbpp.jsonl
    {'text': 'Write a function to add two numbers.', 'code': 'def add(a, b):\r\n  return a + b',
     'task_id': 601, 'test_setup_code': '', 'challenge_test_list': [],
     'test_list': ['assert add(1, 2) == 3', 'assert add(2, 2) == 4']},
    {'text': 'Write a function to say whether n is prime.', 'task_id': 602, 'test_setup_code': 'limit = 3',
     'code': 'def above(n):\n  return n > 1\n'
             'def check(n):\n  return above(n) and all(n % i for i in range(2, n))',
     'test_list': ['assert check(7) == True', 'assert check(3 * limit) == False'],
     'challenge_test_list': ['assert 0']},
    {'text': 'Write a function for "\\d" and """x""".', 'task_id': 603, 'test_setup_code': '',
     'code': 'import re\r\ndef sum(s):\r\n\treturn len(re.findall(r"\\d", s))', 'challenge_test_list': [],
     'test_list': ['assert sum("a\\n1") == 1', 'assert sum("""12""") == 2']}]
# those of sanitized-mbpp.json
SANITIZED = [{'source_file': 'a.ipynb', 'task_id': row['task_id'], 'prompt': row['text'], 'code': row['code'],
              'test_imports': ['import math'], 'test_list': row['test_list'][:1]} for row in FULL]
SANITIZED[1]['test_list'] = ['assert check(int(math.pi)) == True', 'assert check(4) == False']


def test_mbpp_is_read_as_both_its_files_are_published(tmp_path):
    """Answers fail if they are wrong, and both a chat and a base model are told the name."""
    files = write(tmp_path / 'mbpp.jsonl', FULL), tmp_path / 'sanitized-mbpp.json'
    files[1].write_text(json.dumps(SANITIZED, indent=1), encoding='utf-8')
    wrong = ['def add(a, b):\n  return a - b', 'def check(n):\n  return not n % 2', 'def sum(s):\n  return 7']
    for path, task in zip(files, ('mbpp', 'own')):
        for question, row, bad in zip(read(task, str(path)), FULL, wrong, strict=True):
            called = row['test_list'][0].split('(')[0].removeprefix('assert ')
            for shown in question['messages'][0]['content'], question['prompt']:
                assert f'{called}(' in shown and FULL[0]['text'][:16] in shown
            for chat in False, True:
                texts = [form.format(code) for code in (row['code'], bad)
                         for form in ('{}', 'So:\n``` python\n{}\n```\nDone.')]
                found = verdicts([question], [texts], chat, run_many)
                assert [verdict['outcome'] for verdict in found] == ['passed'] * 2 + ['wrong'] * 2, row
    prompts, judge, _ = open_tests('mbpp.jsonl', files[0].read_bytes(), 0, True, 3.0, 0, 1)     # of rl.py
    assert [*judge(prompts, [f'```\n{row["code"]}\n```' for row in FULL])] == [1.0] * 3


ODD = """{"text": null}, {"text": 5}, {"code": ""}, {"code": null}, {"code": "def add("}, {"test_list": []},
    {"test_list": "assert add(1, 2) == 3"}, {"test_list": [3]}, {"test_list": null},
    {"test_list": ["assert add("]}, {"test_list": ["assert sub(1) == 1"]}, {"test_imports": "import math"},
    {"test_setup_code": 3}"""


def test_what_is_odd_in_a_problem_of_mbpp_is_one_sentence(tmp_path):
    for change in json.loads(f'[{ODD}]'):
        data = write(tmp_path / 'odd.jsonl', [FULL[0] | change])
        refused(f'odd.jsonl, line 1: .*"{[*change][0]}"', read, 'mbpp', str(data))


# --- answers that are numbers -------------------------------------------------------------------------------
def test_a_number_may_have_a_unit_or_be_behind_its_solution():
    for answer, right, wrong in (
            (18, '18', '-18'), (-2.5, 'It is -2.50', '2.5'), ('$1,200', '1200', '1,201'), ('.5', '0.5', '5'),
            ('5 apples', 'five? 5', '5 or 6'), ('45%', '45', '0.45'), ('\u22125', '-5', '5'),
            ('9 (pears)', 'so #### 9 of 12', '12'), ('3 + 4 = 7.\n#### 7', '7', '3 + 4'),
            ('1e3', '1,000', '13')):
        assert outcomes({'question': '?', 'answer': answer}, [right, wrong]) == ['passed', 'wrong'], answer


NUMBERS = {
    '18 eggs, so #### 1,200\nQuestion: 7': 1200, 'It is $3.50.': 3.5, '': None, '5-3': 3, 'f(2)-7': 7,
    '(-3)': -3, 'it is -.25': -0.25, 'see 1.2.3': 3, 'answer: 20 #### ': 20, '2 #### 3 or 4': 3,
    'wait...5': 5, '1.5e-3': 0.0015, '\u22125 degrees': -5, 'room 2e': 2, 'primes: 2,3,5': 5,
    '12,345,678': 12345678, '#### Step 1\n#### Step 2\nso 14': 14, 'it is -$5': -5}


def test_the_last_number_and_the_program_of_an_answer():
    for text, number in NUMBERS.items():
        assert last_number(text) == number, text

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
