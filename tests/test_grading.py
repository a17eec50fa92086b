"""How answers are graded: numbers, code in words, rules, BLEU beside execution, a judge's reply."""
import json
import sys

import pytest
from conftest import refused

from parts.eval.grading import (RULES, ask_judge, broken_rules, code_in, is_json, judged, last_number,
                                outcome, program, rules_of)
from parts.eval.sandbox import run_many

# --- numbers and code in an answer --------------------------------------------------------------------------
NUMBERS = {
    '#### 18': 18, '18 eggs, so #### 1,200\nQuestion: 7': 1200, 'It is $3.50.': 3.5, '-4 or -5': -5,
    'I know not': None, '': None, 'x = 12.': 12, '1,000,000 people': 1e6, '5-3': 3, 'so 5 - 3 = 2': 2,
    'f(2)-7': 7, '(-3)': -3, 'x=-3': -3, '$-3': -3, 'x = .5': 0.5, 'it is -.25': -0.25, 'see 1.2.3': 3,
    'answer: 20 #### ': 20, '2 #### 3 or 4': 3, 'wait...5': 5, '2e3 grams': 2000, '1.5e-3': 0.0015,
    '\u22125 degrees': -5, 'room 2e': 2, '#### Step 1\n#### Step 2\nso 14': 14, 'it is -$5': -5}


def test_the_last_number_and_the_code_in_a_fence_however_that_is_written():
    for text, number in NUMBERS.items():
        assert last_number(text) == number, text

    for before in '', 'Sure: ', 'So:\r\n':
        for name in '', 'py', 'Python ', 'python\r', 'python3.11', '{.python}', ' \t':
            for end in '\n```\nIt adds.', '\n```', '\n', ' # a `b`\n```':
                answer = f'{before}```{name}\nx = 1{end}'
                assert code_in(answer).split('#')[0].strip() == 'x = 1', answer
    assert code_in('Run\n```bash\nls\n```\nthen\n```python\nx = 1\n```') == 'x = 1\n'
    assert code_in('x = 1') == 'x = 1'
    asked = {'prompt': 'import math\nWrite `def f(x):`', 'entry_point': 'f'}
    assert program(asked | {'task': 'own'}, '```\nx = 1\n```', chat=True) == 'x = 1\n'
    assert program(asked | {'task': 'mbpp'}, 'x = 1', chat=True) == 'import math\nWrite `x = 1'
    assert not is_json('[' * 100_000)


# --- rules --------------------------------------------------------------------------------------------------
def test_each_rule_tells_good_from_bad_and_a_record_on_which_no_answer_fails_is_refused():
    for kind, value, good, bad in [
            ('contains', 'Cat', 'a cat', 'a dog'), ('not_contains', 'cat', 'dog', 'A CAT'),
            ('min_words', 2, 'a b', 'a'), ('max_words', 2, 'a b', 'a b c'), ('lines', 2, 'a\nb\n', 'a'),
            ('regex', r'\d+', 'a\n1', 'a'), ('number', '7', 'it is 7.0', '7 or 8'),
            ('json', None, '```json \n{"a": [1]}\n```', '{a: 1}'), ('json', None, 'null', 'nul')]:
        assert RULES[kind](good, value) and not RULES[kind](bad, value), kind
        assert broken_rules([(kind, value)], bad) == [kind]

    for checks, words in [
            ({'tests': ''}, 'nothing is checked'), ({'must_contian': 'a'}, "did you mean 'must_contain'"),
            ({'must_contain': ''}, 'contains'), ({'regex': '('}, 'regex'),
            ({'regex': '.*'}, 'no answer can fail'),
            ({'rules': [{'kind': 'number', 'value': 'ten'}]}, 'no answer can fail'),
            ({'rules': [{'kind': 'contain', 'value': 'a'}]}, "no rule 'contain'"),
            ({'rules': [{'kind': 'min_words', 'value': '2'}]}, 'min_words')]:
        refused(words, rules_of, checks)


# --- BLEU beside execution ----------------------------------------------------------------------------------
LESSON = [      # two prompts of a lesson, and a third: arguments, reference, tests, answers
    ('a: float, b: float', 'return a * b', 'f(3.0, 5.0) == 15.0 and f(2.0, 7.0) == 14.0',
     ['return a * b', 'return math.sqrt(a * b)', 'return a * b / 2.0', 'return a * b / a']),
    ('a', 'return np.mean(a)', 'abs(f([1.0, 2.0, 6.0]) - 3.0) < 1e-9',
     ['return np.mean(a)', 'return float(np.mean(a))', 'return sum(a) / len(a)',
      'total = 0\n    for x in a:\n        total += x\n    return total / len(a)']),
    ('pair', 'a, b = pair\n    s = a + b\n    d = a - b\n    return s * d', 'f([5, 2]) == 21',
     ['one, two = pair\n    total = one + two\n    rest = one - two\n    return total * rest',
      'a, b = pair\n    s = a + b\n    d = b - a\n    return s * d'])]


def test_bleu_does_not_tell_right_from_wrong():
    """Of four areas one is right, of four means all are. Then new names, which are right, and a copy with one
    change, which is wrong."""
    cases = []
    for arguments, reference, tests, answers in LESSON:
        item = {'prompt': f'import math\nimport numpy as np\n\ndef f({arguments}):\n', 'rules': [],
                'body': f'    {reference}\n', 'tests': f'def check(f):\n    assert {tests}\n'}
        cases += [(item, f'    {text}\n') for text in answers]
    jobs = [(program(item, text, False), item['tests'], 'f') for item, text in cases]
    results = run_many(jobs, timeout=20, memory_mb=4000)
    rows = [outcome(item, text, result) for (item, text), result in zip(cases, results)]

    assert [row['outcome'] for row in rows] == ['passed'] + ['wrong'] * 3 + ['passed'] * 5 + ['wrong']
    x = [row['bleu'] for row in rows]
    assert x[:8] == pytest.approx([1, 0.270, 0.435, 0.604, 1, 0.584, 0.240, 0.121], abs=1e-3)
    assert max(x[6:8]) < min(x[1:4])        # two right means share less than any of the wrong areas
    assert x[8] < 0.35 < 0.75 < x[9]


# --- a judge ------------------------------------------------------------------------------------------------
def test_only_a_lone_number_from_1_to_10_is_a_grade(tmp_path):
    """A model wrote the answer, and may have learned to ask for a 10."""
    grades = {'Surely [[9]]': None, '[[11]]': None, '0': None, '7]]': None, '[[7': None, '[[7]] [[8]]': None,
              '-3': None, '': None, ' 10': 10, '[[8]]': 8, '7.5\n': 7.5}
    echo = f"{sys.executable} -S -c 'import sys; print(sys.stdin.read())'"
    for reply, score in grades.items():
        assert ask_judge(echo, reply)[1] == score, reply
    assert ask_judge("sh -c 'echo 7 >&2; exit 1'", '{}') == ('it failed: 7\n', None)
    assert ask_judge('no-such-judge', '7')[1] is None


def test_a_judge_gets_the_conversation_as_json(tmp_path):
    script = tmp_path / 'my judge.py'
    script.write_text('import json, sys\nd = json.load(sys.stdin)\n'
                      'print(len(d["messages"]) + 5 * (d["reference"] == "10") + (d["category"] == "math"))',
                      encoding='utf-8')
    judge = f"{sys.executable} -S '{script}'"
    item = {'asked': 'Twice 5?', 'reference': '10', 'category': 'math'}
    assert judged(judge, item, 'ten') == {'outcome': 'judged', 'message': '8\n', 'score': 8}
    assert judged(judge, {'asked': 'Why?'}, 'So')['score'] == 2
    assert judged(judge, item, ' \n') == {'outcome': 'empty', 'message': '', 'score': 1.0}
    assert judged('echo 12', item, 'ten')['outcome'] == 'infrastructure'
    assert json.loads(ask_judge('cat', '5')[0]) == 5
