"""
Benchmarks: the files that models are scored on, from a record to the rows of samples.jsonl.

    item = to_item('gsm8k', {'question': 'How many?', 'answer': 'So #### 4'})
    item['asked'], item['prompt']           # ['How many?'], 'Question: How many?\\nAnswer:'
    question(item)                          # [{'role': 'user', 'content': 'How many?'}], the prompt

An item is the record and: asked, the user's messages in a chat; prompt, the text that a base model continues.
Of code: reference, a whole program.
An answer is a pair (text, whether it ended by itself).
Copy this file alone: it needs the standard library.
"""
import json, math, os, re

CODE = 'problems', 'humaneval', 'mbpp'
ELSEWHERE = ('multiple choice (MMLU, ARC, HellaSwag) and IFEval are scored by lm_eval, on the folder that '
             'python sample.py --export=hf writes: lm_eval --model hf --model_args pretrained=FOLDER/hf '
             '--tasks=ifeval,mmlu; see docs/measuring.md')
# where a base model's answer ends: code before a line that begins in column 0, but not with a bracket's end
ENDS = dict.fromkeys(CODE, r'\n(?=[^\s)\]}])') | dict.fromkeys(('gsm8k', 'judge'), r'\n(?=Question:)')


def asked(task, record):
    """What a record asks: a text, or in training the messages of a conversation."""
    if task in CODE:                        # HumanEval's layout (arXiv:2107.03374)
        return record.get('asked') or f'Complete:\n{record["prompt"].rstrip()}'
    if {'instruction_id_list', 'choices', 'endings'} & record.keys():
        raise ValueError(ELSEWHERE)
    if found := record.get('prompt') or record.get('question'):
        return found
    raise ValueError('the line has no prompt or question')


def to_task(record):
    """A record {"prompt", "tests"} or {"prompt", "answer"}, or one of HumanEval or GSM8K, to train on: its
    messages, and tests with entry_point and prompt, or answer. ValueError if nothing in it can fail."""
    is_humaneval = str(record.get('test') or '').strip() != ''
    prompt = asked('humaneval' if is_humaneval else 'own', record)
    if not isinstance(prompt, str | list):
        raise ValueError(f'the prompt must be a text or messages, not {prompt!r:.80}')
    task = {'messages': [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt}
    if is_humaneval:
        return task | {'tests': python(record['test']), 'entry_point': record['entry_point'],
                       'prompt': record['prompt']}
    if str(record.get('tests') or '').strip():
        return task | {'tests': python(record['tests']), 'entry_point': record.get('entry_point', ''),
                       'prompt': ''}
    if not re.search(r'\d', str(record.get('answer', '')).split('####')[-1]):
        raise ValueError('the line has neither tests nor an answer with a number')
    return task | {'answer': str(record['answer'])}


def python(tests):
    """The tests. ValueError if they are not a program: no answer could be judged by them."""
    if not isinstance(tests, str):
        raise ValueError('tests must be a text')
    try:
        compile(tests, 'tests', 'exec')
    except SyntaxError as e:
        raise ValueError(f'the tests are not Python: {e}') from e
    return tests


def to_item(task, record):
    """The item of a record of a task's file. KeyError, TypeError or ValueError if it lacks something."""
    item = dict(record)
    item['asked'] = item['turns'] if task == 'judge' else [asked(task, record)]
    if task in CODE:
        for key in ('prompt', 'canonical_solution', 'test', 'entry_point'):
            if not isinstance(item[key], str):
                raise TypeError(f'{key} must be a text')
        item['reference'] = item['prompt'] + item['canonical_solution']
    if task == 'own' and item.get('tests'):
        python(item['tests'])
    if task == 'gsm8k':
        item['answer'] = str(item['answer'])
        if not re.search(r'\d', item['answer'].split('####')[-1]):
            raise ValueError(f'the answer {item["answer"]!r} has no number')

    if task == 'mbpp':                      # its references have any indentation, its tests need math
        indent = re.search(r'^[ \t]+', item['canonical_solution'], re.M)[0]
        item['reference'] = re.sub(r"\n[ \t]*'''", f"\n{indent}'''", item['reference'], count=1)
        item['test'] = 'import math\n' + item['test']

    texts = item['asked']
    if not isinstance(texts, list) or not texts or not all(isinstance(x, str) and x for x in texts):
        raise TypeError(f'{texts} must be a list of texts, none of them empty')
    if 'question' in item or 'turns' in item:
        item['prompt'] = f'Question: {item["asked"][0]}\nAnswer:'
    item.setdefault('prompt', item['asked'][0])
    return item


def runs(task, items):
    """Whether programs decide: the model's answers to these items are run."""
    return task in CODE or (task == 'own' and any(item.get('tests') for item in items))


def form(path, state, chat, tasks):
    """Whether to ask a checkpoint in a conversation: chat, or if that is None, whether it was taught to
    answer. ValueError if its objective is not clm, or if it is a reward model and the tasks need answers."""
    trained = state.get('config', {})
    if 'reward_head' in state and set(tasks) - {'loss', 'compare'}:
        raise ValueError(f'{path} is a reward model: it scores answers, it does not write them')
    if trained.get('objective', 'clm') != 'clm':
        raise ValueError(f'{path} has objective={trained["objective"]}: its loss is val_loss of train.py; '
                         'see what it does with sample.py')
    return trained.get('stage') in ('sft', 'dpo', 'rl') if chat is None else chat


def read_stamp(folder):
    """The benchmarks against which a checkpoint's training data were checked, as prepare.py reports them."""
    if not os.path.exists(path := os.path.join(folder, 'data.json')):
        return None
    with open(path, encoding='utf-8') as f:
        return json.load(f).get('decontaminated')


def identify(task, path, items):
    """The items, each with a task_id, its own or TASK/NUMBER. ValueError if there are none, or two of one."""
    if not items:
        raise ValueError(f'{path} holds no problem of {task}; it must have one on each line')
    seen = set()
    for i, item in enumerate(items):
        item.setdefault('task_id', item.get('question_id', f'{task}/{i}'))
        if item['task_id'] in seen:
            raise ValueError(f'{path} has the task_id {item["task_id"]!r} twice; give each problem its own')
        seen.add(item['task_id'])
    return items


def texts_of(item):
    """All texts of an item that the training data should not hold."""
    values = [item.get(key) for key in ('prompt', 'question', 'reference', 'answer')]
    values += item.get('turns') or ()
    return [x for x in values if isinstance(x, str)]


def question(item, before=()):
    """The question that follows these answers: the messages of a chat, and the text for a base model."""
    messages = []
    text = ''
    for turn, (answer, _) in zip(item['asked'], before):
        messages += [{'role': 'user', 'content': turn}, {'role': 'assistant', 'content': answer}]
        text += f'Question: {turn}\nAnswer:{answer}\n'
    turn = item['asked'][len(before)]
    messages.append({'role': 'user', 'content': turn})
    return messages, f'{text}Question: {turn}\nAnswer:' if before else item['prompt']


def rows_of(task, item, answers, chat):
    """For each answer its row of samples.jsonl, not yet graded, and the conversation before it."""
    for i, (text, _) in enumerate(answers):
        messages, prompt = question(item, answers[:i] if task == 'judge' else ())
        row = {key: item.get(key) for key in ('task_id', 'family', 'cell', 'split')}
        row |= {'task': task, 'prompt': prompt, 'messages': messages if chat else None, 'completion': text}
        row |= {'outcome': 'ungraded' if text.strip() else 'empty', 'message': ''}
        if task == 'judge':
            row |= {'turn': i + 1, 'category': item.get('category'), 'score': 1.0}
        yield row, messages


def given_answers(task, items, rows, n):
    """The answers to each item in rows {"task_id", "completion"}. ValueError if one is not a text, or if an
    item has fewer than n answers, or a dialogue fewer answers than turns."""
    given = {item['task_id']: [] for item in items}
    for row in rows:
        if row.get('task', task) == task and row.get('task_id') in given:
            if not isinstance(row.get('completion'), str):
                raise ValueError(f'the completion of {row["task_id"]!r} must be a text')
            given[row['task_id']].append((row['completion'], row.get('ended', True)))
    for item in items:
        found = given[item['task_id']]
        needed = len(item['asked']) if task == 'judge' else n
        if len(found) < needed:
            raise ValueError(f'{item["task_id"]} has {len(found)} completions and needs {needed}; add them')
    return [given[item['task_id']] for item in items]


def check_harness(task, items, run):
    """The task_ids whose reference fails, at most one or 1 %, and the result of an endless loop.
    run: a list of (program, tests, entry point) -> results. ValueError if it confuses right and wrong."""
    solved = items if task in CODE else []
    if task == 'problems':                  # all known to pass (tests/test_problems.py)
        solved = items[::math.ceil(len(items) / 20)]
    right = [(item['reference'], item['test'], item['entry_point']) for item in solved]
    empty = [(item['prompt'] + '    pass\n', item['test'], item['entry_point']) for item in solved]
    broken = [i for i, result in enumerate(run(right)) if result.outcome != 'passed']
    broken = [i for i in broken if run([right[i]])[0].outcome != 'passed']      # once more, alone
    n_empty = sum(result.outcome == 'passed' for result in run(empty))
    own = [item for item in items if task == 'own' and item.get('tests')]
    nothing = run([('', item['tests'], item.get('entry_point', '')) for item in own])
    for item, result in zip(own, nothing):
        if result.outcome == 'passed':
            raise ValueError(f'the tests of {item["task_id"]} pass without an answer; they must call it, or '
                             'define check(candidate) beside an "entry_point", the name of the function')
    loop = run([('while True:\n    pass', 'assert True', '')])[0]
    may_fail = max(1, len(right) / 100) if len(right) > 1 else 0
    if len(broken) > may_fail or n_empty or loop.outcome != 'timeout':
        raise ValueError(f'no score, for the harness cannot tell right from wrong: {len(broken)} of '
                         f'{len(right)} references fail, {n_empty} empty bodies pass, a loop ends as '
                         f'{loop.outcome!r}; see: python -m pytest tests/test_sandbox.py')
    return [solved[i]['task_id'] for i in broken], loop
