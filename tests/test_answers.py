"""eval.py and rl.py: right answers pass and wrong ones fail, however they and the questions are written."""
import gzip
import json
import textwrap

from conftest import mistake, ok, read_json, read_rows, run, shared, write

YES = '--allow_code_execution=True'
RIGHT = 'def f(x):\n    return x + 1\n'
WRONG = 'def f(x):\n    return x + 2\n'
PROSE = {'prompt': 'Write f(x), which adds 1.', 'tests': 'assert f(1) == 2\nassert f(5) == 6'}


def outcomes(tmp_path, question, answers, *flags, task='own'):
    """What eval.py says of each answer to a question."""
    data = write(tmp_path / 'q.jsonl', [question | {'task_id': 'q'}])
    given = write(tmp_path / 'given.jsonl', [{'task_id': 'q', 'completion': text} for text in answers])
    ok(run('eval.py', f'--tasks={task}', f'--data={data}', f'--completions={given}', YES,
           f'--out={tmp_path}/scored/eval.json', *flags))
    rows = read_rows(tmp_path / 'scored/samples.jsonl')
    assert [row['completion'] for row in rows] == answers
    return [row['outcome'] for row in rows]


def score(tmp_path, rows, texts, *flags, task, name='q.jsonl'):
    """pass@1 of a text for each question, and the number of questions that count."""
    data = write(tmp_path / name, rows)
    if name.endswith('.json'):
        data.write_text(json.dumps(rows, indent=1), encoding='utf-8')
    given = write(tmp_path / 'given.jsonl', [{'task_id': row['task_id'], 'completion': text}
                                             for row, text in zip(rows, texts)])
    ok(run('eval.py', f'--tasks={task}', f'--data={data}', f'--completions={given}', YES, *flags))
    result = read_json(tmp_path / 'scored/eval.json')['tasks'][task]
    return result['pass@1'], result['n']


def only(outcome, found, answers):
    other = [(verdict, text) for verdict, text in zip(found, answers) if verdict != outcome]
    assert answers and not other, other[:3]


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


def test_the_code_of_an_answer_is_found_in_any_fence_among_other_blocks(tmp_path):
    for code, verdict in (RIGHT, 'passed'), (WRONG, 'wrong'):
        answers = [*fenced(code)]
        only(verdict, outcomes(tmp_path, PROSE, answers, '--chat=True'), answers)


def test_nothing_but_the_code_of_an_answer_is_run(tmp_path):
    """The text behind a block would put it right, or end it."""
    answers = [f'{fence}{name}\n{WRONG}{fence}\n{more}' for fence in ('```', '````', '~~~')
               for name in NAMES[1:3]
               for more in (RIGHT, f'or\n{RIGHT}', f'or\n```\n{RIGHT}```', f'or\n\n``` python\n{RIGHT}```')]
    only('wrong', outcomes(tmp_path, PROSE, answers, '--chat=True'), answers)
    answers = [f'```{name}\n{RIGHT}```\nraise SystemExit\n```\n1 / 0\n```' for name in NAMES]
    only('passed', outcomes(tmp_path, PROSE, answers, '--chat=True'), answers)
    answers = [f'So: {RIGHT}', f'{RIGHT}\nIt adds 1.', '```\nNo.\n```', '```python\ndef f(x:\n```\nNo.']
    only('syntax', outcomes(tmp_path, PROSE, answers, '--chat=True'), answers)


def test_thousands_of_fences_and_characters_that_no_program_has_get_a_verdict(tmp_path):
    answers = ['```\n' * 4000, '```a\n' * 4000, '```a\nx\n' * 3000, '```\n"""\n' * 2000,
               '```\n"""\n' + '```\n' * 4000, '`' * 9999, '- ' * 9999,
               '```python\n' + '(' * 9999, '```\n\0\ud800\n```']
    found = outcomes(tmp_path, PROSE, answers, '--chat=True', '--timeout=20')
    assert 'passed' not in found


# --- prompts in prose and in Python -------------------------------------------------------------------------
def test_answers_to_prose_are_programs_also_without_a_chat(tmp_path):
    for code, verdict in (RIGHT, 'passed'), (WRONG, 'wrong'):
        answers = [f'Here it is:\n``` python\n{code}```\nIt adds.', f'```\n{code}```', code, f'\n\n{code}']
        for prompt in PROSE['prompt'], 'Write "f', [{'role': 'user', 'content': 'Write f, (it adds'}]:
            only(verdict, outcomes(tmp_path, PROSE | {'prompt': prompt}, answers), answers)
    prompt = 'import operator\ndef one(): return 1\ndef f(x):\n'        # Python that the answer continues
    answers = ['    return operator.add(x, one())\n', '    return x + one()\n# ```',
               '    """\n    ```\n    """\n    return x + one()']
    only('passed', outcomes(tmp_path, PROSE | {'prompt': prompt}, answers), answers)
    answers = ['    return operator.add(x, 2 * one())\n', '    return x + 2 * one()\n# ```']
    only('wrong', outcomes(tmp_path, PROSE | {'prompt': prompt}, answers), answers)


def test_a_function_is_completed_by_its_body_or_by_all_of_it_in_a_fence_or_not(tmp_path):
    start = 'import operator\n\n\ndef f(x):\n    """Add 1."""\n'
    question = {'prompt': start, 'entry_point': 'f', 'canonical_solution': '    return x + 1\n',
                'test': 'def check(candidate):\n    assert candidate(1) == 2\n'}
    for n, verdict in (1, 'passed'), (2, 'wrong'):
        body = f'    return operator.add(x, {n})\n'
        bare = [body, f'\n{body}', f'{body}\n\ndef g():\n    pass\n', start + body]
        packed = [f'So:\n```{name}\n{code}```\nDone.' for name in NAMES[1:3] for code in (body, start + body)]
        packed += [f'```\n{start[start.index("def"):]}{body}```', f'```python\n{body}']
        for chat in 'False', 'True':
            answers = packed + (bare if chat == 'False' else [body, start + body])
            found = outcomes(tmp_path, question, answers, f'--chat={chat}', task='humaneval')
            only(verdict, found, answers)
    answers = ['    return (', 'so, add 1', '  return 1', '    return 1\nIt adds.', '```\n    return (\n```']
    only('syntax', outcomes(tmp_path, question, answers, task='humaneval'), answers)
    answers = [f'```\n{RIGHT.replace("f(", "g(")}```']        # it defines another function
    assert outcomes(tmp_path, question, answers, '--chat=True', task='humaneval') == ['exception']


def test_solutions_of_humaneval_pass_bare_and_in_fences(tmp_path):
    with gzip.open(shared('HumanEval.jsonl.gz'), 'rt', encoding='utf-8') as file:
        problems = [json.loads(line) for line in file][::24]
    for form in '{1}', '``` python\n{1}```\nDone.', '~~~\n{0}{1}~~~\nDone.':
        texts = [form.format(row['prompt'], row['canonical_solution']) for row in problems]
        assert score(tmp_path, problems, texts, '--timeout=20', task='humaneval') == (1, len(problems)), form


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
    right = [row['code'] for row in FULL]
    wrong = ['def add(a, b):\n  return a - b', 'def check(n):\n  return not n % 2', 'def sum(s):\n  return 7']
    in_words = 'So:\n``` python\n{}\n```\nDone.'
    for codes, expected in (right, 1), (wrong, 0):
        for rows, task, form, flag, name in (
                (FULL, 'mbpp', '{}', '--chat=False', 'a.jsonl'),
                (SANITIZED, 'own', '{}', '--chat=True', 'b.jsonl'),
                (FULL, 'own', in_words, '--chat=True', 'c.jsonl'),
                (SANITIZED, 'mbpp', in_words, '--chat=False', 'sanitized-mbpp.json')):
            texts = [form.format(code) for code in codes]
            assert score(tmp_path, rows, texts, flag, task=task, name=name) == (expected, 3), (codes, name)
            for row, record in zip(read_rows(tmp_path / 'scored/samples.jsonl'), rows):
                shown = row['messages'][0]['content'] if row['messages'] else row['prompt']
                called = record['test_list'][0].split('(')[0].removeprefix('assert ')
                assert f'{called}(' in shown and FULL[0]['text'][:16] in shown


ODD = [{'text': None}, {'text': 5}, {'code': ''}, {'code': None}, {'code': 'def add('}, {'test_list': []},
       {'test_list': 'assert add(1, 2) == 3'}, {'test_list': [3]}, {'test_list': None},
       {'test_list': ['assert add(']},
       {'test_list': ['assert sub(1) == 1']}, {'test_imports': 'import math'}, {'test_setup_code': 3}]


def refused(tmp_path, model, row, *words, task='own'):
    """eval.py and rl.py refuse a line in one sentence."""
    data = write(tmp_path / 'refused.jsonl', [row])
    mistake(run('eval.py', f'--tasks={task}', f'--data={data}', f'--ckpt={model}', YES), 'line 1: ', *words)
    mistake(rl(tmp_path, model, data), 'line 1: ', *words)


def rl(tmp_path, model, reward):
    return run('rl.py', f'--init_from={model}', f'--reward={reward}', f'--out_dir={tmp_path}/rl', YES,
               '--device=cpu', '--max_steps=1', '--batch_size=2', '--num_samples=2', '--max_new_tokens=4',
               '--eval_prompts=2', '--overwrite=True')


def test_what_is_odd_in_a_problem_of_mbpp_is_one_sentence(tmp_path, sft_model):
    for change in ODD:
        refused(tmp_path, sft_model, FULL[0] | change, f'"{[*change][0]}"')
    refused(tmp_path, sft_model, {'text': 'x', 'test_list': ['assert f(1)']}, '"code"', task='mbpp')


def test_rl_rewards_answers_to_problems_of_mbpp(tmp_path, sft_model):
    code = {'code': 'def f(): return 1', 'test_list': ['assert f() == 1']}
    some = [FULL[0] | code | {'text': letter} for letter in 'abcdefghijkl']
    # The context is short: the model can't be asked more.
    said = ok(rl(tmp_path, sft_model, write(tmp_path / 'mbpp.jsonl', some)))
    assert 'reward' in said


# --- answers that are numbers, and other checks -------------------------------------------------------------
TEXTS = ['Paris', 'yes', 'No.', '', ' ', True, False, None, [4], ['a'], {'a': 1}, '2026-11-27', 'May 5, 2026',
         '27.11.2026', '10:30', '1/2', '1,2', 'H2O', 'Apollo 11', 'cm2', '25 m^2', '7 #### ', '7 #### Paris',
         '1e400', 10 ** 400, 'x = 4, y = 5']


def test_an_answer_that_is_no_number_is_told_to_be_another_check(tmp_path, sft_model):
    for answer in TEXTS:
        data = write(tmp_path / 'refused.jsonl', [{'prompt': 'x', 'answer': answer}])
        mistake(run('eval.py', '--tasks=own', f'--data={data}', f'--ckpt={sft_model}', YES), 'line 1: ',
                '"answer" must be a number', '"must_contain" or "regex"')


def test_a_number_may_have_a_unit_or_be_behind_its_solution(tmp_path):
    for answer, right, wrong in (
            (18, '18', '-18'), (-2.5, 'It is -2.50', '2.5'), ('$1,200', '1200', '1,201'), ('.5', '0.5', '5'),
            ('5 apples', 'five? 5', '5 or 6'), ('45%', '45', '0.45'), ('\u22125', '-5', '5'),
            ('9 (pears)', 'so #### 9 of 12', '12'),
            ('3 + 4 = 7.\n#### 7', '7', '3 + 4'), ('1e3', '1,000', '13')):
        found = outcomes(tmp_path, {'question': '?', 'answer': answer}, [right, wrong], task='gsm8k')
        assert found == ['passed', 'wrong'], answer


def test_checks_of_another_type_are_one_sentence(tmp_path, sft_model):
    for check in ({'must_contain': 4}, {'must_contain': None}, {'must_not_contain': [2]}, {'regex': {'a': 1}},
                  {'tests': ['assert f()']}, {'tests': 5}, {'test': ['assert f()'], 'entry_point': 'f'}):
        refused(tmp_path, sft_model, {'prompt': 'x', **check}, f'"{[*check][0]}" must be a text')


# --- numbers on the command line ----------------------------------------------------------------------------
def test_k_is_positive_integers(tmp_path):
    data = write(tmp_path / 'q.jsonl', [{'prompt': 'x', 'regex': 'a'}])
    given = write(tmp_path / 'given.jsonl', [{'task_id': 'own/0', 'completion': 'a'}])
    for k in ('9' * 5000, '1,' + '9' * 5000, '-1', '0', '1,0', '', ',', '1,,2', '1,', 'x', '1.5', '1e3',
              '1 2', '0x9', '\u00b2', '1' * 10, 'None'):
        mistake(run('eval.py', '--tasks=own', f'--data={data}', f'--completions={given}', f'--k={k}'), 'k=')
    found = outcomes(tmp_path, {'prompt': 'x', 'regex': 'a'}, ['a', 'b'], '--k=2,1,2')
    assert found == ['passed', 'wrong']
    assert read_json(tmp_path / 'scored/eval.json')['tasks']['own']['pass@2'] == 1
