"""Questions as published and of your own, which are refused, a harness that is broken, and how answers are
judged: right ones pass and wrong ones fail, however they and the questions are written."""
import gzip
import json
import textwrap

from conftest import json_rows, refused, shared, table, write
from test_streaming import say

from extras.tasks import questions
from extras.tasks.answers import given_answers, read_rows, rows_of
from extras.tasks.grading import check_harness, grade, read_answers, verdicts
from extras.tasks.questions import from_problems, identified, of_tasks, to_question
from extras.tasks.sandbox import Result, run_many

CODE = {'prompt': 'def f():\n', 'canonical_solution': '    return 1\n', 'entry_point': 'f',
        'test': 'def check(candidate):\n    assert candidate() == 1\n'}
RIGHT = 'def f(x):\n    return x + 1\n'
FUTURE = 'from __future__ import annotations'
PROSE = {'prompt': 'Write f(x), which adds 1.', 'tests': 'assert f(1) == 2\nassert f(5) == 6'}


def outcomes(record, answers, chat=False, run=run_many):
    """What becomes of each answer to the question of a record."""
    question = to_question({'task_id': 'q', **record})
    rows = rows_of('own', [question], [answers], {'ckpt': '', 'step': 0, 'chat': chat})
    grade([question], rows, run)
    return [row['outcome'] for row in rows]


def only(outcome, record, answers, chat=False):
    found = outcomes(record, answers, chat)
    assert answers and {*found} == {outcome}, [*zip(found, answers)]


# --- records --------------------------------------------------------------------------------------
REFUSED = r"""
{"must_contian": "a"} => must_contian is not read; is it must_contain
{"must_contain": "a", "Regex": "b"} => Regex is not read; is it regex
{"regex": "a", "answers": ["b"]} => answers is not read; is it answer
{"must_contain": []} => every answer would pass
{"must_contain": ""} => must_contain must be text or texts, not ''
{"must_contain": [2]} => must_contain must be text or texts, not 2
{"must_contain": 2} => must_contain must be text or texts, not 2
{"tests": ["assert f()"]} => tests must be a text, a program in Python
{"regex": "("} => missing \)
{"tests": "assert f("} => never closed
{"test": "assert f()", "entry_point": "f", "prompt": ""} => no prompt
{"choices": ["a", "b"], "answer": 1} => scored by lm_eval
{"answer": "Paris"} => "answer" must be a number.*'Paris'
{"answer": true} => must be a number
{"answer": "2026-11-27"} => must be a number
{"answer": "May 5, 2026"} => must be a number
{"answer": "1/2/26"} => must be a number
{"answer": "2^3"} => must be a number
{"answer": "1,2"} => must be a number
{"answer": "H2O"} => must be a number
{"answer": "Apollo 11"} => must be a number
{"answer": "7 #### Paris"} => must be a number
"""
# What is checked, a right answer, and wrong ones. A number may have a unit, or be behind its
# solution.
JUDGED = r"""
[{"must_contain": "Cat"}, "a cat", "a dog"]
[{"must_not_contain": "cat"}, "dog", "A CAT"]
[{"regex": "a.+1"}, "a\nb1", "a"]
[{"must_contain": ["a", "b"], "must_not_contain": "XY", "regex": "c"}, "cab", "cb", "ca", "cabXY"]
[{"tests": "assert f() == 1"}, "def f(): return 1", "def f(): return 2"]
[{"answer": 18}, "18", "-18", "none", "18 or 19"]
[{"answer": -2.5}, "It is -2.50", "2.5"]
[{"answer": "$1,200"}, "1200", "1,201"]
[{"answer": ".5"}, "0.5", "5"]
[{"answer": "5 apples"}, "five? 5", "5 or 6"]
[{"answer": "45%"}, "45", "0.45"]
[{"answer": "\u22125"}, "-5", "5"]
[{"answer": "9 (pears)"}, "so #### 9 of 12", "12"]
[{"answer": "3 + 4 = 7.\n#### 7"}, "7", "3 + 4"]
[{"answer": 9007199254740992}, "9007199254740992", "9007199254740993"]
[{"answer": 1200}, "18 eggs, so #### 1,200\nQuestion: 7"]
[{"answer": 3.5}, "It is $3.50."]
[{"answer": 3}, "5-3"]
[{"answer": 7}, "f(2)-7"]
[{"answer": -3}, "(-3)"]
[{"answer": -0.25}, "it is -.25"]
[{"answer": 20}, "answer: 20 #### "]
[{"answer": 3}, "2 #### 3 or 4"]
[{"answer": 5}, "wait...5"]
[{"answer": -5}, "\u22125 degrees"]
[{"answer": 2}, "room 2e"]
[{"answer": 5}, "primes: 2,3,5"]
[{"answer": 12345678}, "12,345,678"]
[{"answer": 14}, "#### Step 1\n#### Step 2\nso 14"]
[{"answer": 17}, "#### 1. Cost\n5 * 4 = 20\n#### 2. Minus\n20 - 3 = 17\n\nIt is 17."]
[{"answer": 17}, "> #### **3 pens** are free\n20 - 3 = 17\n\nThe total is $17."]
[{"answer": 17}, "20 - 3\n#### 17\nThat is 3 less than 20.", "##### 17 pens\n20"]
[{"answer": 17}, "#### **$17**\nThat is 3 less than 20.", "#### 18 or 17"]
[{"answer": 18}, "#### 18 apples for 3 days", "#### 3 days\n4 of them"]
[{"answer": 18}, "#### \u20ac18 for 3", "#### \u20ac3 for 18"]
[{"answer": 18}, "\\fbox{18}. She has 3 days left.", "\\fbox{3}. She has 18."]
[{"answer": 1000}, "It is 1e3", "1e2", "1e1000000000"]
[{"answer": "2.5E-3"}, "0.0025", "2.5", "-3"]
[{"answer": 0.5}, "\\boxed{1/2}", "\\boxed{1}", "2/1"]
[{"answer": "1/4"}, "$\\frac{1}{4}$", "$\\frac{2}{4}$", "1/0", "4"]
[{"answer": 2}, "#### 2", "1/2", "2/0", "x = 10^2", "$10^{2}$", "10\u00b2", "2\u00bd"]
[{"answer": 18}, "18 m^2"]
[{"answer": 18}, "\\boxed{18\\,\\mathrm{cm}^{2}}"]
[{"answer": 18000}, "18~000"]
[{"answer": 18000}, "\\boxed{18\u00a0000}"]
[{"answer": -5}, "\\boxed{\u20135}"]
[{"answer": -5}, "\\boxed{\\text{-}\\$5}"]
[{"answer": 18}, "\\boxed{+18\\%}."]
[{"answer": 18}, "\\boxed{x \\approx 18}", "\\boxed{18 \\approx x + 1}"]
[{"answer": 18}, "\\boxed{\\text{about }18\\text{ a day}}"]
[{"answer": 90}, "\\boxed{90^{\\circ}} of 360", "\\boxed{9^{\\circ}} of 90"]
[{"answer": "1/2"}, "\\boxed{\\tfrac 1{2}}", "\\boxed{\\frac21}"]
[{"answer": "1/2"}, "\\boxed{\\frac12}", "-\\frac12", "\\boxed{\\frac123}", "\\boxed{\\frac1 2 x}"]
[{"answer": 2}, "\\boxed{2^\\circ}", "\\boxed{2x}", "\\boxed{2\\pi}", "\\boxed{2!}", "\\boxed{\\log 2}", "\\boxed{2^{10}}", "\\boxed{10^2}", "\\boxed{1 - 2}", "\\boxed{2 + 1}", "\\boxed{2, 3}", "\\boxed{(3, 2)}", "\\boxed{2 \\text{ or } 3}", "\\boxed{x = 3, y = 2}", "\\boxed{2 \\pm 1}", "\\boxed{2:30}", "\\boxed{2\\cdot 3}", "\\boxed{2\u00bd}", "\\boxed{0.\\overline{2}}"]
[{"answer": 17}, "\\boxed{17}, which is 3 less than 20.", "17 = \\boxed{18}"]
[{"answer": -5}, "it is -$5"]
[{"answer": 1200}, "\\boxed{1{,}200}", "1{,}20"]
[{"answer": 1234567}, "1,\\!234,\\!567", "1\\,234\\,56"]
[{"answer": 1200}, "\\boxed{1\\,200}", "1 200"]
[{"answer": 1200}, "\\boxed{1\\;200\\text{ km}} in 7", "\\boxed{1\\;20}"]
[{"answer": 1200}, "1\u202f200"]
[{"answer": 4}, "<think>5</think>4", "<think>4</think>5"]
[{"answer": 18}, "\\boxed{\\$18}. She has 3 days left.", "\\boxed{\\$3}. She has 18."]
[{"answer": 18}, "\\boxed{\\text{18}} of the 40", "\\boxed{\\text{40}} of the 18"]
[{"answer": 18}, "\\boxed{x = 18}", "\\boxed{18 + 2 = 20}", "\\boxed{\\frac{18}{2}}", "\\boxed{18/2}", "\\boxed{18 \\times 10}"]
[{"answer": 1200}, "\\boxed{\\textbf{about } {\\$1{,}200} \\text{ m}^{2}} in 7", "\\boxed{\\sqrt{1200}}"]
[{"answer": -7}, "\\boxed{ v_{1} = -\\mathbf{7}\\,\\text{km/h} }, not 3", "\\boxed{5 - 7}"]
[{"answer": 9}, "#### \\boxed{\\boxed{9}}\n\nDay 3 is next.", "\\boxed{9} or \\boxed{10}"]
[{"answer": 3.5}, "#### \\$3.50\n\nThat is 2 more.", "\\boxed{3\\frac{1}{2}} 3.5"]
"""


def test_a_record_on_which_no_answer_could_fail_is_refused():
    for checks, words in table(REFUSED):
        data = write('own.jsonl', [{'prompt': 'x', **json.loads(checks)}])
        refused(f'own.jsonl:1: .*{words}', of_tasks, ['own'], str(data), 0, [])


def test_right_answers_pass_and_wrong_ones_do_not():
    for checks, *answers in json_rows(JUDGED):
        found = outcomes({'question': '?', **checks}, answers)
        assert found == ['passed'] + ['wrong'] * (len(answers) - 1), checks


# A record; what a chat is asked; what a base model continues
ASKED = r"""
[{"prompt": "def f():\n", "test": "f()", "entry_point": "f"}, "Complete:\ndef f():", "def f():\n"]
[{"question": "2?", "answer": "2"}, "2?", "Question: 2?\nAnswer:"]
[{"turns": ["2?", "why?"], "regex": "2"}, "2?", "Question: 2?\nAnswer:"]
[{"prompt": "2?", "answer": "2"}, "2?", "2?"]
[{"prompt": [{"role": "user", "content": "# f"}], "tests": "assert f()"}, "# f", "# f"]
"""


def test_a_pattern_that_needs_years_ends_and_says_so(monkeypatch):
    monkeypatch.setattr(questions, 'SECONDS', 0.2)
    text = 'The harvest was early because the summer was warm and dry, and the farmers of the valley sold it.'
    [verdict] = verdicts([(to_question({'prompt': 'x', 'regex': r'^(\w+[ ,.]*){1,15}$'}), text, True)], None)
    assert verdict == {'outcome': 'wrong', 'message': 'regex timed out after 0.2 s'}


def test_a_question_of_any_source_is_asked_alike():
    for record, chat, base in json_rows(ASKED):
        question = to_question(record)
        assert question['messages'] == [say('user', chat)] and question['prompt'] == base


ROWS = """
{"task_id": 9, "completion": "a"}
{"task_id": 9, "completion": "b", "task": "gsm8k"}
{"task_id": "own/0", "completion": "d", "task": "own"}
"""


def test_answers_are_counted_by_task_id_so_none_occurs_twice():
    refused("g.jsonl has the task_id 'a' twice", identified, 'gsm8k', 'g.jsonl', [{'task_id': 'a'}] * 2)
    questions = identified('own', 'o.jsonl', [{}, {'question_id': 9}])
    rows = [*json_rows(ROWS)]
    assert given_answers('own', questions, rows, 1) == [['d'], ['a']]
    refused('2 completions of own/0 are needed', given_answers, 'own', questions, rows, 2)


# The task_ids of questions and of completions, and for each question which completions are its own
SAME_IDS = """
[[601, 602], [601, "602"], [[0], [1]]]
[["601", "own/602"], ["own/602", 601, 601], [[1, 2], [0]]]
[[7, 17], ["17", "7"], [[1], [0]]]
"""
OTHER_IDS = """
[["own/0"], ["gsm8k/0"]]
[[7], ["HumanEval/7", "Mbpp/7"]]
[[7], [70, "07"]]
"""


def test_a_number_and_its_text_are_one_task_id():
    of = lambda ids, **more: [{'task_id': id, 'completion': i} for i, id in enumerate(ids)]
    for asked, given, wanted in json_rows(SAME_IDS):
        assert given_answers('x', of(asked), of(given), 1) == wanted, asked
    for asked, given in json_rows(OTHER_IDS):
        refused(f'1 completions of {asked[0]} are needed', given_answers, 'x', of(asked), of(given), 1)
    refused("has the task_id '7' twice", identified, 'own', 'o.jsonl', of([7, '7']))


def test_blank_lines_are_skipped_wherever_they_are_also_in_a_packed_file(tmp_path):
    lines = '\n{"task_id": 1, "completion": "a", "prompt": "p", "regex": "."}\n \t\r\n\n'
    for name, pack in ('a.jsonl', bytes), ('b.jsonl.gz', gzip.compress):
        (tmp_path / name).write_bytes(pack((lines + lines.replace('1', '2') + ' \n').encode()))
        assert len(of_tasks(['own'], str(tmp_path / name), 0, [])['own']) == 2
        assert len(read_answers(str(tmp_path / name), 'completion')) == 2
    assert len(read_rows('a.jsonl')) == 2


# --- the harness is checked before a score --------------------------------------------------------
def test_a_broken_harness_gives_no_score():
    """Neither where empty answers pass, nor where known solutions fail, nor if over 2% of the programs
    can't be judged."""
    questions = from_problems(3, 0, ['example'])
    for words, outcome in ('pass without an answer', 'passed'), ('3 of 3 known solutions', 'wrong'):
        refused(words, check_harness, questions, lambda jobs: [Result(outcome)] * 3)
    found = check_harness(questions, lambda jobs: [
        Result('passed' if 'return' in code else 'wrong') for code, *_ in jobs])
    assert found == {'left_out': [], 'confined': False}

    def lose(n):
        return outcomes(CODE, ['    return 1\n'] * 100, run=lambda jobs: [
            Result('infrastructure' if i < n else 'passed') for i in range(100)])

    assert lose(2)[1:3] == ['infrastructure', 'passed']
    refused('no score: 3 of 100', lose, 3)


# --- the code of an answer ------------------------------------------------------------------------
# Answers, as chats give them. NAME is what stands behind a fence, or nothing.
FENCED = r'''
So:

```NAME
def f(x):
    return x + 1
```
It adds `1`: it's """so""".
```
7
```
===
So:
````NAME
def f(x):
    """Add, as in

    ```
    f(1)
    ```
    and in ```f(2)```.
    """
    return x + 1
````
It adds.
===
~~~NAME
def f(x):
    return x + 1
~~~
===
- ```NAME
  def f(x):
      return x + 1
  ```
- Done.
===
```python
        def f(x):
            return x + 1
```
===
```python
def f(x):
    return x + 1
```
```
===
def f(x):
    """As in ```f(2)```."""
    return x + 1
===
Here it is: ```python
def f(x):
    return x + 1
```
```python
print(f(1), g)
```
===
```markdown
# f
```python
def f(x):
    return x + 1
```
```
Done.
===
````md
# f
```python
def f(x):
    return x + 1
```
````
Done.
===
```python
import operator
```
and
```python
def f(x):
    return operator.pos(x) + 1
```
===
```python
"It adds."
from __future__ import (
    annotations)
def f(x: anything):
    return x + 1
```
===
```
def f(x):
    return x + 1
```
raise SystemExit
```
1 / 0
```
===
```python
def f(x):
    return same(x) + 1
```
and
```
def same(x): return x
```
'''
# Blocks that may stand in front of it.
FIRST = r"""```
pip install x
```
===
```bash
ls
```
===
```
7
```
===
```python
import math
```
===
```python
print(f(1), g)
```
===
```python
x = f(2)
```
===
```json
{"a": 1}
```
===
```c
int f() {}
```
===
```python
def g(x):
    return f(x)
```
===
```python
from f import (
```
===
As in ```f(x)```
===
```pycon
>>> f(1)
```
===
```python
f(
```"""
# What stands behind a block counts if it is a block; what stands before </think> does not.
BEHIND = r"""First try:
```python
def f(x):
    return x + 2
```
The right one:
```
def f(x):
    return x + 1
```
===
<think>
```python
def f(x):
    return x + 2
```
</think>def f(x):
    return x + 1
===
~~~ py
def f(x):
    return x + 2
~~~
or
```
def f(x):
    return x + 1
```
===
````python
def f(x):
    return x + 2
````
or

``` python
def f(x):
    return x + 1
```"""
# Without a fence, or with half of one, or with other marks. CODE is the right one, INDENTED within.
BARE = r"""Sure! Here is the function:

CODE
===
CODE

This function returns x plus one. It's short.
===
Here's the code:

CODE

Example usage:
print(f(1))  # Output: 2
===
CODE
```
This adds one.
===
[BEGIN]
CODE
[DONE]
===
<answer>
<code>CODE</code>
</answer>
===
Solution:
CODE
>>> f(1)
2
===
>>> def f(x):
...     return x + 1
>>> f(1)
2
===
Here is the code:

INDENTED

It adds one.
===
Solution

CODE

Explanation
===
Complexity: O(n)
CODE
Output: 2
===
**Answer:** CODE

That's it.
===
Use `def f(x): return x + 1`.
===
First a helper.

ONE = 1

def g(x):
    return x + ONE

Then, with it:

@staticmethod
def h(): pass

def f(x):
    '''As in

<b>
    '''
    return g(x)

Done (I hope.
===
```
Here is f:
CODE
```
===
```pycon
>>> def f(x):
...     return x + 1
```
===
CODE
return f"""
NAMES = ['', 'python', ' python', 'Python', 'py', 'python3', 'python title="x"', '{.python}',
         'python {2-3}']


def test_the_code_of_an_answer_is_found_in_any_fence_among_other_blocks_and_nothing_else_is_run():
    fenced = f'So:\n``` python\n{RIGHT}```\nIt adds.'
    only('passed', PROSE, [fenced, RIGHT, f'\n\n{RIGHT}'])        # also without a chat
    only('passed', PROSE, ['\ufeff' + RIGHT, RIGHT.replace('    ', '\xa0' * 4)], True)
    right = [f'{first}\n{fenced}' for first in FIRST.split('\n===\n')]
    for answer in FENCED.split('\n===\n'):
        right += {answer.replace('NAME', name) for name in NAMES}       # many have no name
        right.append(answer.replace('NAME', '').replace('\n', '\r\n'))
    only('passed', PROSE, right, chat=True)
    only('wrong', PROSE, [answer.replace('+ 1', '+ 2') for answer in right], chat=True)
    only('passed', PROSE, BEHIND.split('\n===\n'), chat=True)
    only('empty', PROSE, [f'<think>\n```\n{RIGHT}```\n', '<think>x</think> \n'], chat=True)
    only('syntax', PROSE, ['So f(x) = x + 1', '```\nNo.\n```', '```python\ndef f(x:\n```\nNo.'], chat=True)
    bare = BARE.replace('CODE', RIGHT.strip()).replace(
        'INDENTED', textwrap.indent(RIGHT.strip(), '    ')).split('\n===\n')
    only('passed', PROSE, [*bare, RIGHT + 'x = [\n' + '    0,\n' * 400 + ']\nassert len(x) == 400'], chat=True)
    only('wrong', PROSE, [text.replace('+ 1', '+ 2').replace('ONE = 1', 'ONE = 2') for text in bare], chat=True)
    strange = ['(\n' * 4000, 'x\n' * 4000 + '$', '\n'.join(' ' * i + 'x' for i in range(400)),
               '```\n' * 4000, '```a\nx\n' * 3000, '`' * 9999, '- ' * 9999, '```\n\0\ud800\n```']
    assert 'passed' not in outcomes(PROSE, strange, chat=True)


# --- functions to complete ---------------------------------------------------------------
# Answers to a prompt in Python that they continue, with the body of the function or all of it.
BODIES = r'''
    return operator.add(x, 1)
===
    """
    ```
    """
    return x + 1
# ```
===
So:
```python
    return operator.add(x, 1)
```
Done.
===
```
def f(x):
    """Add 1."""
    return operator.add(x, 1)
```
===
So:
```python
import operator


def f(x):
    return operator.add(x, 1)
```
Done.
===
```python
    return operator.add(x, 1)
===
import operator
def f(x):
    return operator.add(x, 1)
===

    return operator.add(x, 1)


def g():
    pass
===
    return operator.add(x, 1)

This adds one.
===
Here is the body:

    y = operator.add(x, 1)
    return y

That's all.
'''.replace('\n===\n', '===').split('===')


def test_a_function_is_completed_by_its_body_or_by_all_of_it_in_a_fence_or_not():
    start = 'import operator\n\n\ndef f(x):\n    """Add 1."""\n'
    question = CODE | {'prompt': start, 'test': 'def check(f):\n    assert f(1) == 2\n'}
    for chat in False, True:
        only('passed', question, BODIES, chat)
        bad = [body.replace('1)', '2)').replace('+ 1', '+ 2') for body in BODIES]
        only('wrong', question, bad, chat)
    only('syntax', question, ['    return (', 'so, add 1', '  return 1'])
    only('exception', question, ['```\ndef g(x): return x + 1\n```'], chat=True)      # no f


def test_solutions_of_humaneval_pass_bare_and_in_fences_and_no_empty_body_does():
    with gzip.open(shared('HumanEval.jsonl.gz'), 'rt') as file:
        for row in [*map(json.loads, file)][::6]:
            prompt, solution = row['prompt'], row['canonical_solution']
            texts = '    pass\n', solution, f'~~~\n{prompt}{solution}~~~\nDone.'
            empty, *right = outcomes(row, texts, run=lambda jobs: run_many(jobs, 20))
            assert empty in ('wrong', 'exception') and {*right} == {'passed'}, row['task_id']


# --- imports from __future__ ----------------------------------------------------------------------
# Answers that begin with FUTURE, and what is no Python, because it does not begin with it.
WITH_FUTURE = r'''
FUTURE
def f(x: nothing) -> x: return x + 1
===
"""Adds."""
FUTURE; import math
def f(x: nothing): return x + 1
===
#!/usr/bin/env python
# FUTURE
FUTURE
def f(x: nothing): return x + 1
assert f(1) == 2
===
Here it is.

FUTURE
def f(x: nothing): return x + 1

Done.
===
```python
def g(x): return x + 1
```
and
```python
# It adds.
from __future__ import (
    annotations,        # of x
)
from __future__ import division
def f(x: nothing): return g(x)
```
'''.replace('FUTURE', FUTURE).strip().split('\n===\n')
MISPLACED = f'import math\n{FUTURE}\n{RIGHT}', f'```\nx = 1\n{FUTURE}\n{RIGHT}```'


def test_an_import_from_the_future_comes_first_whatever_stands_above_the_answer():
    body = {'entry_point': 'f', 'test': 'def check(f): assert f(1) == 2'}
    for prompt in 'Write f.', 'import math\n\ndef f(x):\n    "Add."\n', f'"f"\n{FUTURE}\ndef f(x):\n':
        for tests in {'tests': PROSE['tests']}, body, body | {'test': f'{FUTURE}\n{body["test"]}'}:
            if ('test' in tests) == prompt.endswith(':\n') or '"Add."' in prompt:
                for chat in False, True:
                    only('passed', {'prompt': prompt, **tests}, WITH_FUTURE, chat)
                    wrong = [answer.replace('+ 1', '+ 2') for answer in WITH_FUTURE]
                    assert 'passed' not in outcomes({'prompt': prompt, **tests}, wrong, chat)
    only('syntax', PROSE, MISPLACED, chat=True)


# --- tests for unittest and pytest ----------------------------------------------------------------
UNITTEST = """import sys, unittest
class Adds(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.n = 1
    def test_one(self): self.assertEqual(f(self.n), 2)
    def test_more(self):
        for n in 5, 6:
            with self.subTest(n=n): self.assertEqual(f(n), n + 1)
        self.assertRaises(TypeError, f, 'a')
"""
PYTEST = """import pytest
def test_one(): assert f(1) == pytest.approx(2)
class TestMore:
    k = 5
    def test_more(self): assert f(self.k) == 6
def test_text():
    with pytest.raises(TypeError): f('a')
"""
OWN_TESTS = [
    UNITTEST, UNITTEST + '    @unittest.expectedFailure\n    def test_no(self): self.fail()\n    test_not = unittest.skip("")(setUpClass)',
    UNITTEST + 'unittest.main()', UNITTEST + 'if __name__ == "__main__":\n    unittest.main(verbosity=2)',
    UNITTEST + 'sys.exit(not unittest.main(argv=["x"], exit=False).result.wasSuccessful())',
    UNITTEST + 'unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Adds))',
    PYTEST, PYTEST + 'raise SystemExit(pytest.main([__file__]))', PYTEST + 'if __name__ == "__main__":\n    pytest.main()',
    'def test(x, y): assert f(x) == y\ntest(1, 2)\ntest(5, 6)']
MORE_TESTS = [
    UNITTEST + '    def test_skip(self): self.skipTest("later")\n    def tearDown(self): self.assertEqual(f(6), 7)',
    UNITTEST + '@unittest.skip("later")\nclass Later(unittest.TestCase):\n    def test_no(self): self.fail()',
    UNITTEST + 'class Base(unittest.TestCase): pass\ndef tearDownModule(): assert f(7) == 8',
    'import unittest\ndef setUpModule():\n    global n\n    n = f(1)\n' + UNITTEST.replace('f(self.n)', 'n'),
    'class TestBase:\n    def test_base(self): self.assertEqual(f(self.n), 2)\n' + UNITTEST.replace('.TestCase', '.TestCase, TestBase'),
    UNITTEST + '    @unittest.expectedFailure\n    def test_two(self): self.assertEqual(f(5), 7)',
    'import pickle\nclass P: pass\ndef test_p():\n    p = P()\n    p.n = f(1)\n    assert pickle.loads(pickle.dumps(p)).n == 2',
    'class TestA:\n    def test(self): assert f(1) == 2\nclass TestB(TestA):\n    def test(self): assert f',
    'assert f(1) == 2\nexit()', 'import sys\nassert f(1) == 2\nsys.exit(0)']
# They fail all of them, and do not pass by leaving, or by what unittest would forgive.
NO_ANSWERS = [
    'def f(x):\n    """\n    >>> 1\n    1\n    """\n    return x + 2', 'def f(x): raise SystemExit(0)',
    'import sys\nf = sys.exit', 'import unittest\ndef f(x): raise unittest.SkipTest', 'def g(x): return x + 1',
    'import unittest\ndef f(x): unittest.main()', 'import unittest\nunittest.main()', 'def f(*_): pass',
    'import unittest\nclass Adds(unittest.TestCase): pass\ndef f(x): return 7 if x == 5 else 3']
# They change what the tests use.
CHANGED = [
    'def f(x):\n    import unittest\n    raise unittest.SkipTest("later")', 'import os\nos._exit(0)',
    'import unittest\nunittest.TestCase.run = unittest.TestCase._baseAssertEqual = lambda *_, **__: None\n'
    'def f(x): return x + 2',
    'import unittest\nunittest.TestLoader.getTestCaseNames = lambda *_: []\nunittest.TestCase.__unittest_skip__ = True\n'
    'def f(x): return x + 2']


def test_own_tests_are_run_as_unittest_and_pytest_would():
    answer = RIGHT + 'import unittest\nclass TestMine(unittest.TestCase):\n    def test(self): self.fail()\n'
    for tests in OWN_TESTS:
        question = {'prompt': 'Write f(x), which adds 1.', 'tests': tests}
        found = outcomes(question, [RIGHT, answer, *NO_ANSWERS], run=lambda jobs: run_many(jobs, 20))
        assert found[:2] == ['passed'] * 2 and 'passed' not in found[2:], (tests, found)
    for tests, *cheats in (OWN_TESTS[2], *CHANGED), *[
            (tests, RIGHT.replace('+ 1', '+ 2')) for tests in MORE_TESTS]:
        found = outcomes({'prompt': 'Write f.', 'tests': tests}, [RIGHT, *cheats], run=lambda jobs: run_many(jobs, 20))
        assert found[0] == 'passed' and 'passed' not in found[1:], (tests, found)


FAIL_BY_THEMSELVES = [('import nonesuch\nassert f(1) == 2', "own/0.*fail by themselves: ModuleNotFoundError.*nonesuch"),
                      *[(tests, 'own/0.*pass without an answer') for tests in (
                          'def test_f(): pass', 'def test_f(): return f(1) == 2', 'print(f(1) == 2)',
                          'import unittest\nclass T(unittest.TestCase):\n    def test(self): self.skipTest(str(f(1)))',
                          'import doctest\ndoctest.testmod()', 'def go(): assert f(1) == 2\nif __name__ == "__main__": go()')]]
# Tests that need pytest, and a test that nothing calls
NEED_PYTEST = r"""
def test_f(capsys): assert f(1) == 2 => no test calls test_f, which needs arguments
@pytest.mark.parametrize("x", [1])\ndef test_f(x): assert f(x) == 2 => pytest.mark
from pytest import fixture\n@fixture\ndef n(): return 1\ndef test_f(n): assert f(n) == 2 => pytest import fixture
def test_f(): pytest.skip("later") => pytest.skip
class TestF:\n    def setup_method(self): self.n = 1\n    def test(self): assert f(self.n) == 2 => def setup_method
"""


def test_tests_that_fail_by_themselves_are_named():
    asked = lambda tests, **more: [to_question({'prompt': 'Write f.', 'task_id': 'own/0', 'tests': tests, **more})]
    for tests, words in FAIL_BY_THEMSELVES:
        refused(words, check_harness, asked(tests), run_many)
    for tests, words in table(NEED_PYTEST):
        refused(words, asked, tests.replace('\\n', '\n'))
    refused('1 of 1 known solutions fail.*own/0', check_harness,
            asked('assert f(1) == two', canonical_solution=RIGHT), run_many)


# --- MBPP as published ----------------------------------------------------------------------------
# Records with the keys of mbpp.jsonl and of sanitized-mbpp.json, and a wrong answer to each
MBPP = r'''
[{"text": "Write a function to add two numbers.", "task_id": 601, "test_setup_code": "", "code": "def add(a, b):\r\n  return a + b", "challenge_test_list": [], "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}, "def add(a, b):\n  return a - b"]
[{"text": "Write a function to say whether 3 is no factor of n.", "task_id": 602, "test_setup_code": "limit = 3", "challenge_test_list": ["assert 0"], "code": "def above(n):\n  return n > 1\ndef check(n):\n  return above(n) and n % 3 > 0", "test_list": ["assert check(7) == True", "assert check(3 * limit) == False"]}, "def check(n):\n  return not n % 2"]
[{"text": "Write a function for \"\\d\" and \"\"\"x\"\"\".", "task_id": 603, "test_setup_code": "", "code": "import re\r\ndef sum(s):\r\n\treturn len(re.findall(r\"\\d\", s))", "challenge_test_list": [], "test_list": ["assert sum(\"a\\n1\") == 1", "assert sum(\"\"\"12\"\"\") == 2"]}, "def sum(s):\n  return 7"]
[{"source_file": "a.ipynb", "task_id": 604, "prompt": "Write a function to say whether n is prime.", "code": "def check(n):\n  return n > 1 and all(n % i for i in range(2, n))", "test_imports": ["import math"], "test_list": ["assert check(int(math.pi)) == True", "assert check(4) == False"]}, "def check(n):\n  return not n % 2"]
[{"task_id": 605, "prompt": "Write a function to halve n.", "code": "import math\ndef half(n):\n  return math.pi * n / math.tau", "test_imports": ["import math"], "test_list": ["assert math.isclose(half(3), 1.5)"]}, "def half(n):\n  return n"]
'''


def test_mbpp_is_read_as_both_its_files_are_published():
    """Answers fail if they are wrong, and both a chat and a base model are shown the tests."""
    records = [record for record, _ in json_rows(MBPP)]
    of_tasks(['mbpp'], str(write('mbpp.json', [records])), 0, [])      # also one list
    for record, wrong in json_rows(MBPP):
        question = to_question(record)
        for shown in question['messages'][0]['content'], question['prompt']:
            assert 'Write a function ' in shown and record['test_list'][0].splitlines()[0] in shown
        for chat in False, True:
            assert outcomes(record, [record['code'], wrong], chat) == ['passed', 'wrong'], record
    assert outcomes(record, ['from math import nan\ndef half(n):\n  return n / 2'], True) == ['passed']
