"""Grades from 1 to 10 by a command, which may talk nonsense."""
import json
import sys

import pytest
from conftest import TINY, lift, mistake, ok, run

from parts.eval.grading import ask_judge

summarise = lift('eval.py', 'summarise')
QUESTIONS = [
    {'question_id': 81, 'category': 'writing', 'turns': ['Name a tree.', 'Why that one?']},
    {'question_id': 82, 'category': 'math', 'turns': ['What is 2 + 3?', 'Twice that?'],
     'reference': ['5', '10']},
    {'question_id': 83, 'category': 'math', 'turns': ['One?']}]


@pytest.fixture(scope='module')
def ckpt(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--dtype=float32'))
    return out


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def judged(out, *flags, questions=QUESTIONS, answers=None, check=ok):
    """What eval.py says, its result and its rows; of answers, or else of a model that flags name."""
    given = [f'--completions={write(out / "given.jsonl", answers)}'] if answers else ['--device=cpu']
    flags = ['--tasks=judge', f'--data={write(out / "q.jsonl", questions)}', *given, *flags]
    said = check(run('eval.py', *flags, f'--out={out}/eval.json'))
    rows = [json.loads(x) for x in (out / 'samples.jsonl').read_text(encoding='utf-8').splitlines()]
    results = json.loads((out / 'eval.json').read_text(encoding='utf-8')) if check is ok else None
    return said, results and results['tasks']['judge'], rows


def two(n, text='An oak.'):
    """n questions of two turns, and an answer to each turn."""
    return [{'question_id': i, 'category': 'c', 'turns': ['a?', 'b?']} for i in range(n)], \
        [{'task_id': i, 'completion': text} for i in range(n) for _ in 'ab']


def test_the_mean_is_over_questions_and_the_interval_too():
    rows = [{'task_id': i, 'outcome': 'judged', 'score': x} for i, x in enumerate([2.0, 4.0, 9.0] * 20)]
    lost = {**rows[1], 'score': None, 'outcome': 'infrastructure'}
    result = summarise([*rows, {**rows[0], 'score': 4.0}, lost], [1])
    assert result['n'] == 60 and result['score'] == pytest.approx((3 + 4 + 9 * 20 + 19 * 6) / 60)
    assert 1 < result['interval'][1] - result['interval'][0] < 2        # 4 x 2.94 / sqrt(60) = 1.52


@pytest.mark.parametrize('chat', [False, True])
def test_the_second_turn_is_asked_behind_the_first_answer(chat, ckpt, tmp_path):
    code = 'import json, sys; print(len(json.load(sys.stdin)["messages"]))'
    (tmp_path / 'judge.py').write_text(code, encoding='utf-8')
    said, result, rows = judged(tmp_path, f'--ckpt={ckpt}', '--max_new_tokens=6', f'--chat={chat}',
                                f'--judge={sys.executable} {tmp_path}/judge.py')
    assert [(row['task_id'], row['turn']) for row in rows] == [(81, 1), (81, 2), (82, 1), (82, 2), (83, 1)]
    first, second = rows[2], rows[3]
    assert second['prompt'] == f'Question: What is 2 + 3?\nAnswer:{first["completion"]}\n' \
        'Question: Twice that?\nAnswer:'
    assert second['messages'] == ([
        {'role': 'user', 'content': 'What is 2 + 3?'}, {'role': 'assistant', 'content': first['completion']},
        {'role': 'user', 'content': 'Twice that?'}] if chat else None)
    for row in rows:                # it counted the messages: a question and its answer, or two of both
        assert row['score'] == (2 * row['turn'] if row['outcome'] == 'judged' else 1)
    assert {x: row['n'] for x, row in result['by_turn'].items()} == {'1': 3, '2': 2}
    assert set(result['by_category']) == {'math', 'writing'}
    if chat:        # a second turn does not fit into 32 tokens
        assert f'{result["prompts_cut"]} prompts were longer than the context of 32 tokens' in said


SCRIPT = """import json, pathlib, sys
d, here = json.load(sys.stdin), pathlib.Path('asked.txt')
n = int(here.read_text('utf-8')) if here.exists() else 0
here.write_text(str(n + 1), 'utf-8')
replies = json.loads(pathlib.Path('replies.json').read_text('utf-8'))
print(replies[min(n, len(replies) - 1)])"""


def test_only_a_lone_number_from_1_to_10_is_a_grade_and_more_than_2_percent_else_no_score(tmp_path):
    (tmp_path / 'judge.py').write_text(SCRIPT.replace("'asked.txt'", repr(f'{tmp_path}/asked.txt')).replace(
        "'replies.json'", repr(f'{tmp_path}/replies.json')), encoding='utf-8')
    flags = [f'--judge={sys.executable} {tmp_path}/judge.py']
    replies = ['Surely [[9]]', '[[11]]', '0', '7]]', '[[7', '[[7]] [[8]]', None, '-3', ' 10', '[[8]]']
    write(tmp_path / 'replies.json', [replies])
    questions, answers = two(5)
    said, _, rows = judged(tmp_path, *flags, questions=questions, answers=answers, check=lambda x: x)
    mistake(said, 'no score of judge', '8/10', 'from 1 to 10')
    assert [row['score'] for row in rows] == [None] * 8 + [10, 8]
    write(tmp_path / 'replies.json', [['rubbish', '6']])
    (tmp_path / 'asked.txt').unlink()
    questions, answers = two(25)                        # one of 50 is lost: 2 %, and not more
    _, result, _ = judged(tmp_path, *flags, questions=questions, answers=answers)
    assert result['outcomes'] == {'infrastructure': 1, 'judged': 49} and result['score'] == 6


@pytest.mark.parametrize('judge, says', [('no-such-judge', 'cannot be asked'), ("it's", 'No closing')])
def test_a_judge_that_cannot_be_asked_is_one_sentence_and_the_answers_are_kept(judge, says, tmp_path):
    questions, answers = two(2)
    said, _, rows = judged(tmp_path, f'--judge={judge}', questions=questions, answers=answers,
                           check=lambda x: x)
    mistake(said, says)
    assert [row['completion'] for row in rows] == ['An oak.'] * 4


def test_a_command_gets_json_and_prints_a_number(tmp_path):
    script = tmp_path / 'my judge.py'
    script.write_text('import json, sys\nd = json.load(sys.stdin)\n'
                      'print(len(d["messages"]) + 5 * (d["reference"] == "10") + (d["category"] == "math"))',
                      encoding='utf-8')
    answers = [{'task_id': i, 'completion': text} for i, text in zip((81, 81, 82, 82, 83), 'a bcd')]
    _, result, rows = judged(tmp_path, f"--judge={sys.executable} '{script}'", answers=answers)
    assert [row['score'] for row in rows] == [2, 1, 3, 10, 3] and result['outcomes']['empty'] == 1


def test_a_judge_that_fails_gives_no_grade():
    reply, score = ask_judge("sh -c 'echo 7 >&2; exit 1'", '{}')
    assert score is None and reply == 'it failed: 7\n'
