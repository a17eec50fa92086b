"""
Benchmarks: the files that models are scored on. Each record is read into one form, asked, and its answers
become rows of samples.jsonl.

    item = to_item('gsm8k', {'question': 'How many?', 'answer': 'So #### 4'})
    item['asked'], item['prompt']       # ['How many?'], 'Question: How many?\\nAnswer:'
    broken_rules([('max_words', 2)], 'a b c')                       # ['max_words']

An item is the record and: asked, the user's messages in a chat; prompt, the text that a base model continues;
rules, pairs (kind, value) that an answer must keep. Of code: reference, a whole program. Of choice: options,
and right, the number of the correct one.
Copy this file alone: it needs the standard library.
"""
import json, math, re

CODE = 'problems', 'humaneval', 'mbpp'
# where a base model's answer ends: code before the next line in column 0, HumanEval's stop words among them
ENDS = dict.fromkeys(CODE, r'\n(?=[^\s)\]}])') | dict.fromkeys(('gsm8k', 'judge'), r'\n(?=Question:)')


# --- from a record to an item -------------------------------------------------------------------------------
def to_item(task, record):
    """One record of a task's file as an item. KeyError, TypeError or ValueError if it lacks something."""
    item = dict(record)
    if task in CODE:
        of_code(task, item)
    elif task == 'judge':
        item['asked'] = list_of_texts('turns', item['turns'])
        list_of_texts('reference, if there is one,', item.get('reference') or ['none'])
    else:
        item['asked'] = [item.get('prompt') or item.get('question') or item['ctx']]
    if task == 'choice':
        of_choice(item)
    if 'question' in item or 'turns' in item:
        item['prompt'] = as_text(conversation(item['asked'][:1]))
    item.setdefault('prompt', item['asked'][0])
    item['rules'] = rules_of(item)
    return item


def of_code(task, item):
    """HumanEval's layout (arXiv:2107.03374). References of MBPP have any indentation, and some of its tests
    need `import math`."""
    item.setdefault('asked', [f'Complete:\n{item["prompt"].rstrip()}'])
    item['reference'] = item['prompt'] + item['canonical_solution']
    if task == 'mbpp':
        indent = re.search(r'^[ \t]+', item['canonical_solution'], re.M)[0]
        item['reference'] = re.sub(r"\n[ \t]*'''", f"\n{indent}'''", item['reference'], count=1)
        item['test'] = 'import math\n' + item['test']


def of_choice(item):
    """MMLU: question, choices, answer. HellaSwag: ctx, endings, label. ARC: choices with labels of their
    own."""
    options = item.get('choices') or item['endings']
    right = str(item.get('answer', item.get('label')))
    if isinstance(options, dict):
        right = str(options['label'].index(item['answerKey']))
        options = options['text']
    item['options'] = list_of_texts('choices or endings', options)
    if '' in options:
        raise ValueError('of choices or endings none may be empty')
    item['right'] = 'ABCDEFGHIJ'.index(right) if right in 'ABCDEFGHIJ' else int(right)


def list_of_texts(name, value):
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise TypeError(f'{name} must be a list of texts')
    return value


def numbered(task, items, path):
    """The items, each with a task_id. ValueError if there are none."""
    if not items:
        raise ValueError(f'{path} holds no problem of {task}; it must have one on each line')
    for i, item in enumerate(items):
        item.setdefault('task_id', item.get('question_id', f'{task}/{i}'))
    return items


def texts_of(item):
    """All texts of what an item asks and expects, which the training data should not hold."""
    found = []
    for key in ('prompt', 'question', 'ctx', 'turns', 'options', 'reference', 'answer'):
        value = item.get(key)
        found += [x for x in (value if isinstance(value, list) else [value]) if isinstance(x, str)]
    return found


# --- rules that a program can check -------------------------------------------------------------------------
def is_json(text):
    try:
        return json.loads(re.sub(r'^```\w*\n|\n```$', '', text.strip())) is not None
    except ValueError:
        return False


RULES = {'contains': lambda text, value: value.lower() in text.lower(),
         'not_contains': lambda text, value: value.lower() not in text.lower(),
         'starts_with': lambda text, value: text.strip().startswith(value),
         'ends_with': lambda text, value: text.strip().endswith(value),
         'min_words': lambda text, n: len(text.split()) >= n,
         'max_words': lambda text, n: len(text.split()) <= n,
         'lines': lambda text, n: len(text.strip().split('\n')) - n == 0,      # TypeError if n is a text
         'regex': lambda text, value: re.search(value, text, re.S),
         'json': lambda text, _: is_json(text),
         'lowercase': lambda text, _: text == text.lower()}


def broken_rules(rules, text):
    """The kinds of the rules, pairs (kind, value), that a text breaks."""
    return [kind for kind, value in rules if not RULES[kind](text, value)]


def rules_of(record):
    """All rules of a record: "rules", "must_contain", "must_not_contain" (a text or several) and "regex"."""
    rules = [(rule['kind'], rule.get('value')) for rule in record.get('rules', [])]
    for key, kind in (('must_contain', 'contains'), ('must_not_contain', 'not_contains')):
        values = record.get(key, [])
        rules += [(kind, value) for value in ([values] if isinstance(values, str) else values)]
    if 'regex' in record:
        rules.append(('regex', record['regex']))
    try:
        broken_rules(rules, '')             # a rule that cannot be tried is found before a model runs
    except (AttributeError, re.error) as e:
        raise ValueError(f'one of the rules {rules} cannot be checked: {e}') from e
    return rules


# --- asking -------------------------------------------------------------------------------------------------
def conversation(turns, answers=()):
    """The messages of a chat: turns, each with its answer behind it if there is one."""
    messages = []
    for i, turn in enumerate(turns):
        messages.append({'role': 'user', 'content': turn})
        if i < len(answers):
            messages.append({'role': 'assistant', 'content': answers[i]})
    return messages


def as_text(messages):
    """A conversation for a base model: text that ends where the next answer begins."""
    form = {'user': 'Question: {}\nAnswer:', 'assistant': '{}\n'}
    return ''.join(form[message['role']].format(message['content']) for message in messages)


def question(item, before=()):
    """The next question, if the answers before it are these pairs (text, ended): as messages, and as a
    text."""
    messages = conversation(item['asked'][:len(before) + 1], [text for text, _ in before])
    return messages, as_text(messages) if before else item['prompt']


def converse(items, chat, write):
    """The answers to each item, pairs (text, whether it ended by itself), and how many prompts were cut. Turn
    by turn: the second question stands behind the answer to the first. write: prompts -> for each a list of
    such pairs, and how many were cut."""
    answers, n_cut = [[] for _ in items], 0
    for turn in range(max(len(item['asked']) for item in items)):
        now = [i for i, item in enumerate(items) if turn < len(item['asked'])]
        both = [question(items[i], answers[i]) for i in now]
        new, cut = write([messages if chat else text for messages, text in both])
        n_cut += cut
        for i, pairs in zip(now, new):
            answers[i] += pairs
    return answers, n_cut


def rows_of(task, item, answers, chat):
    """For each answer, a pair (text, whether it ended by itself), its row of samples.jsonl, which is to be
    graded, and the conversation before it."""
    for i, (text, ended) in enumerate(answers):
        messages, prompt = question(item, answers[:i] if task == 'judge' else ())
        row = {key: item.get(key) for key in ('task_id', 'family', 'cell', 'split')}
        row |= {'task': task, 'prompt': prompt, 'messages': messages if chat else None, 'completion': text}
        row |= {'outcome': 'ungraded' if text.strip() else 'empty', 'message': ''}
        if task == 'judge':
            row |= {'turn': i + 1, 'category': item.get('category'), 'ended': ended, 'score': 1.0}
        yield row, messages


def given_answers(task, items, rows, n):
    """For each item its answers in rows {"task_id", "completion"}, as pairs (text, whether it ended by
    itself). ValueError if one has fewer than n; a dialogue needs one for each turn."""
    given = {item['task_id']: [] for item in items}
    for row in rows:
        if row.get('task', task) == task and row.get('task_id') in given:
            given[row['task_id']].append((row.get('completion', ''), row.get('ended', True)))
    needed = {item['task_id']: len(item['asked']) if task == 'judge' else n for item in items}
    short = [id for id in needed if len(given[id]) < needed[id]]
    if short:
        raise ValueError(f'{len(short)} of the {len(items)} problems of {task} have fewer completions than '
                         f'k={n} (judge: turns), such as {short[0]}; add them')
    return [given[item['task_id']] for item in items]


# --- can the harness tell right from wrong? -----------------------------------------------------------------
def check_harness(task, items, run):
    """Of a benchmark's own solutions one or 1 % may fail, no empty body may pass, an endless loop must be
    stopped. Our own problems are known to pass (tests/test_problems.py): twenty are enough. run: a list of
    (program, tests, entry point) -> their results, which have an outcome. Returns the task_ids whose own
    solution fails, and the result of the loop. ValueError if the harness cannot tell."""
    solved = items if task in CODE else []
    if task == 'problems':
        solved = items[::math.ceil(len(items) / 20)]
    right = [(item['reference'], item['test'], item['entry_point']) for item in solved]
    empty = [(item['prompt'] + '    pass\n', item['test'], item['entry_point']) for item in solved]
    broken = [i for i, result in enumerate(run(right)) if result.outcome != 'passed']
    broken = [i for i in broken if run([right[i]])[0].outcome != 'passed']      # once more, alone
    n_empty = sum(result.outcome == 'passed' for result in run(empty))
    loop = run([('while True:\n    pass', 'assert True', '')])[0]
    may_fail = max(1, len(right) / 100) if len(right) > 1 else 0
    if len(broken) > may_fail or n_empty or loop.outcome != 'timeout':
        raise ValueError(f'no score, for the harness cannot tell right from wrong: {len(broken)} of '
                         f'{len(right)} references fail, {n_empty} empty bodies pass, a loop ends as '
                         f'{loop.outcome!r}; see: python -m pytest tests/test_sandbox.py')
    return [solved[i]['task_id'] for i in broken], loop
