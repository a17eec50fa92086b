"""
The questions of eval.py: which files they are read from, and what is written down about an answer.
The form of a question is in extras/questions.py, and how an answer is graded in extras/grading.py.

    of_tasks(['gsm8k'], ['test.jsonl'], n=100, seed=0, splits=())       # {'gsm8k': its questions}
    judged('./my_judge', question, 'Four')  # {'outcome': 'judged', 'message': '7', 'score': 7.0}
"""
import collections, difflib, json, pathlib, re, shlex, subprocess
from extras import problems
from extras.grading import check_harness, job, outcome, tested, why_failed    # noqa: F401
from extras.questions import ELSEWHERE, from_problems, identified, to_question
from parts import Mistake
from parts.eval import results
from parts.prepare import reading

# In the order in which eval.py does them.
TASKS = 'loss', 'problems', 'humaneval', 'mbpp', 'own', 'gsm8k', 'judge', 'learned', 'compare'


# --- which questions? -----------------------------------------------------------------------------
def of_tasks(tasks, files, n, seed, splits):
    """Return {task: its questions}, at most n of each file, or n of each split of problems.py (100
    if n is None). files: one for each task that needs one, in the order of the tasks."""
    for task in tasks:
        if task not in TASKS:
            near = [f'did you mean {name}? ' for name in difflib.get_close_matches(task, TASKS, 1)]
            raise Mistake(f'--tasks={task}: there is no such task; {"".join(near)}tasks: '
                          f'{", ".join(TASKS)}; {ELSEWHERE}')
    need_file = [task for task in tasks if task not in ('loss', 'problems', 'learned', 'compare')]
    if len(files) != len(need_file):
        raise Mistake(f'--data={",".join(files)} must name a .jsonl file for each of these '
                      f'tasks, in this order: {", ".join(need_file) or "none"}')
    asked = {task: read(task, path)[:n] for task, path in zip(need_file, files)}
    if 'problems' in tasks:
        asked['problems'] = from_problems(n or 100, seed, splits)
    return asked


def read(task, path):
    """Return the questions in the file of a task."""
    asked = reading.read_jsonl(path, lambda record: to_question(record, task != 'judge'),
                               f'each line is a problem of {task}; see the top of eval.py')
    if len({question['ends'] for question in asked}) > 1:
        raise Mistake(f'{path} has functions to complete ("test") and other questions; give '
                      'each kind a file of its own')
    return identified(task, path, asked)


def read_decontaminated(folder):
    """Return what prepare.py searched the training data of a run for, {'ngram', 'problems'}, or
    None."""
    path = pathlib.Path(folder, 'data.json')
    return json.loads(path.read_bytes()).get('decontaminated') if path.exists() else None


def searched(found):
    """Return the sentence that a score comes with. found: what read_decontaminated() returned."""
    if not found:
        return ('no data.json says that the pretraining text was searched for these problems; see '
                '--decontaminate of prepare.py')
    return (f'text of pretraining shares no {found["ngram"]}-gram of words with '
            f'{" ".join(found["problems"])}')


# --- from a question to rows of samples.jsonl -----------------------------------------------------
def row_of(task, question, text, metadata):
    """Return the row of an answer, not yet graded. metadata: {'ckpt', 'step', 'chat'} of its
    model."""
    row = {key: question.get(key) for key in ('task_id', 'family', 'cell', 'split', 'prompt')}
    row |= {'task': task, 'messages': question['messages'] if metadata['chat'] else None,
            'completion': text, 'outcome': 'ungraded', 'message': '', 'ckpt': metadata['ckpt'],
            'step': metadata['step']}
    if question['tests']:
        row['preferred'] = problems.preferred(text)     # a single line, which DPO teaches
    return row


def given_answers(task, questions, path, n):
    """Return the answers to each question in a file of {"task_id", "completion"}: at least n."""
    answers = collections.defaultdict(list)
    for row in results.answers_in(path, ('task_id', 'completion'),
                                  'each line needs a "task_id" and a "completion"'):
        if row.get('task', task) == task:
            answers[row['task_id']].append(row['completion'])
    for question in questions:
        task_id = question['task_id']
        if len(answers[task_id]) < n:
            raise Mistake(f'completions of {task_id}: {len(answers[task_id])}, but {n} are '
                          'needed; add them')
    return [answers[question['task_id']] for question in questions]


# --- a judge --------------------------------------------------------------------------------------
def judged(judge, question, text):
    """Return the grade of a judge, 1 to 10, and its reply. judge: a command, which gets JSON on
    stdin. A model wrote the answer and may have learned to ask for a 10, so only a reply of a lone
    number is a grade."""
    if not text.strip():
        return {'outcome': 'empty', 'message': '', 'score': 1.0}
    messages = [*question['messages'], {'role': 'assistant', 'content': text}]
    conversation = {'messages': messages, 'reference': question.get('reference'),
                    'category': question.get('category')}
    try:
        done = subprocess.run(shlex.split(judge), input=json.dumps(conversation), timeout=120,
                              capture_output=True, encoding='utf-8', errors='replace')
        reply = f'it failed: {done.stderr}' if done.returncode else done.stdout
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:   # ValueError: an open quotation
        reply = f'it cannot be asked: {e}'
    grade = re.fullmatch(r'\s*(\[\[)?(\d+(?:\.\d+)?)(?(1)\]\])\s*', reply)
    score = float(grade[2]) if grade else 0.0
    if 1 <= score <= 10:
        return {'outcome': 'judged', 'message': reply[:200], 'score': score}
    return {'outcome': 'infrastructure', 'score': None,
            'message': f'{reply[:200]} (a judge must reply with a number from 1 to 10)'}
