"""
Questions that models are scored on: from a record of a file to graded rows of samples.jsonl.

    item = to_item('gsm8k', {'question': 'How many?', 'answer': 'So #### 4'})
    item['asked'], item['prompt']           # 'How many?', 'Question: How many?\\nAnswer:'
    job(item, 'def f(x): ...')              # (program, tests, entry point): what has to be run, or None
    outcome(item, 'def f(x): ...', result)  # {'outcome': 'passed', ...}. result: the sandbox's, of that job
    judged('./my_judge', item, 'Oak')       # {'outcome': 'judged', 'score': 7.0, ...}
    broken_rules([('max_words', 2)], 'a b c')               # ['max_words']
    bleu('a*b', 'a * b')                                    # 1.0: the same words and signs

An item is the record and: task; asked, the user's message in a chat; prompt, the text that a base model
continues; rules, tests and entry_point, which grade the answers. Of code: body, the reference's lines, and
reference, a whole program. An answer is graded by tests, by rules or by a judge.
"""
import collections, contextlib, difflib, json, math, re, shlex, subprocess

CODE = 'problems', 'humaneval', 'mbpp'
TASKS = *CODE, 'own', 'gsm8k', 'judge'
ELSEWHERE = ('multiple choice (MMLU, ARC, HellaSwag) and IFEval are scored by lm_eval, on the folder that '
             'python sample.py --export=hf writes: lm_eval --model hf --model_args pretrained=FOLDER/hf '
             '--tasks=ifeval,mmlu; see docs/measuring.md')
# where a base model's answer ends: code before a line that begins in column 0, but not with a bracket's end
ENDS = dict.fromkeys(CODE, r'\n(?=[^\s)\]}])') | dict.fromkeys(('own', 'gsm8k', 'judge'), r'\n(?=Question:)')


# --- from a record to an item -------------------------------------------------------------------------------
def asked(task, record):
    """A record's question: a text, or in training the messages of a conversation."""
    if task in CODE:                        # HumanEval's layout (arXiv:2107.03374)
        return record.get('asked') or f'Complete:\n{record["prompt"].rstrip()}'
    if {'instruction_id_list', 'choices', 'endings'} & record.keys():
        raise ValueError(ELSEWHERE)
    first_turn = record.get('turns', [''])[0]           # of MT-Bench
    if text := record.get('prompt') or record.get('question') or first_turn:
        return text
    raise ValueError('the line has no prompt or question')


def checked(tests, entry_point):
    """Return the tests. ValueError if they are not a program, or if entry_point names no function: they
    could not judge any answer. '' and None: no entry_point."""
    if entry_point and not (isinstance(entry_point, str) and entry_point.isidentifier()):
        raise ValueError(f'the entry_point {entry_point!r:.80} must be the name of a function')
    try:
        compile(tests, 'tests', 'exec')
    except (SyntaxError, TypeError) as e:
        raise ValueError(f'the tests are not Python: {e}') from e
    return tests


def to_task(record):
    """A task to train on, of a record {"prompt", "tests" or "answer"}, or HumanEval's, or GSM8K's: messages,
    task_id, and tests with entry_point and prompt, or answer. ValueError if no answer to it could fail."""
    is_humaneval = str(record.get('test') or '').strip() != ''
    prompt = asked('humaneval' if is_humaneval else 'own', record)
    messages = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
    task = {'messages': messages, 'task_id': record.get('task_id', f'{prompt!r:.60}')}

    if is_humaneval:
        solution = record.get('canonical_solution')
        return task | {'prompt': record['prompt'], 'entry_point': record['entry_point'],
                       'tests': checked(record['test'], record['entry_point']), 'reference': solution and
                       record['prompt'] + solution}
    if str(record.get('tests') or '').strip():
        name = record.get('entry_point', '')
        return task | {'prompt': '', 'tests': checked(record['tests'], name), 'entry_point': name}
    if not has_number(record.get('answer', '')):
        raise ValueError('the line has neither tests nor an answer with a number')
    return task | {'answer': str(record['answer'])}


def to_item(task, record):
    """The item of a record of a task's file, or an Exception."""
    item = record | {'task': task, 'rules': [], 'tests': None, 'body': None, 'asked': asked(task, record)}
    if not isinstance(item['asked'], str):
        raise TypeError(f'the question must be a text, not {item["asked"]!r:.80}')
    if 'question' in item or 'turns' in item:
        item['prompt'] = f'Question: {item["asked"]}\nAnswer:'

    if task in CODE:
        for key in ('prompt', 'canonical_solution', 'test', 'entry_point'):
            if not isinstance(record[key], str):
                raise TypeError(f'{key} must be a text')
        if not record['test'].strip():
            raise ValueError('the test is empty: every answer would pass')
        item['tests'] = record['test']
        item['body'] = record['canonical_solution']
        item['reference'] = record['prompt'] + record['canonical_solution']
    elif task == 'own':
        item['rules'] = rules_of(record)
        item['tests'] = record.get('tests') and checked(record['tests'], record.get('entry_point'))
    elif task == 'gsm8k':
        if not has_number(record['answer']):
            raise ValueError(f'the answer {record["answer"]!r} has no number')
        item['rules'] = [('number', str(record['answer']))]

    if task == 'mbpp':                      # its references have any indentation, its tests need math
        indent = re.search(r'^[ \t]+', item['body'], re.M)[0]
        item['reference'] = re.sub(r"\n[ \t]*'''", f"\n{indent}'''", item['reference'], count=1)
        item['tests'] = 'import math\n' + item['tests']
    return item


def has_number(answer):
    """Whether there is a number behind ####, or anywhere if there is no ####."""
    return re.search(r'\d', str(answer).split('####')[-1]) is not None


def identify(task, path, items):
    """The items, each with a task_id, its own or TASK/NUMBER. ValueError if there are none, or two of one."""
    if not items:
        raise ValueError(f'{path} holds no problem of {task}; it must have one on each line')
    known = set()
    for i, item in enumerate(items):
        item.setdefault('task_id', item.get('question_id', f'{task}/{i}'))
        if not isinstance(item['task_id'], str | int):
            raise ValueError(f'{path}: the task_id {item["task_id"]!r:.80} must be a text or a number')
        if item['task_id'] in known:
            raise ValueError(f'{path} has the task_id {item["task_id"]!r} twice; give each problem its own')
        known.add(item['task_id'])
    return items


def runs(items):
    """Whether programs decide."""
    return any(item['tests'] for item in items)


def read_stamp(path):
    """What the training data were searched for, {'ngram', 'problems'}, as prepare.py reports it, or None."""
    with contextlib.suppress(OSError, ValueError, AttributeError), open(path, encoding='utf-8') as f:
        return json.load(f).get('decontaminated')


def searched(stamp):
    if not stamp:
        return 'no data.json says that text of pretraining was checked against a benchmark'
    return f'text of pretraining shares no {stamp["ngram"]}-gram of words with {" ".join(stamp["problems"])}'


# --- from an item to rows -----------------------------------------------------------------------------------
def question(item, chat):
    return [{'role': 'user', 'content': item['asked']}] if chat else item['prompt']


def row_of(item, text, about):
    """The row of samples.jsonl of an answer, not yet graded. about: {'ckpt', 'step', 'chat'} of the model."""
    row = {key: item.get(key) for key in ('task_id', 'family', 'cell', 'split', 'task', 'prompt')}
    return row | {'messages': question(item, True) if about['chat'] else None, 'completion': text,
                  'outcome': 'ungraded', 'message': '', 'ckpt': about['ckpt'], 'step': about['step']}


def given_answers(task, items, rows, n):
    """The answers to each item in rows {"task_id", "completion"}: n or more, else ValueError."""
    answers = {item['task_id']: [] for item in items}
    if len({str(row.get('ckpt')) for row in rows}) > 1:
        raise ValueError('the completions are of several checkpoints; give those of one')
    for row in rows:
        task_id = row.get('task_id')
        if row.get('task', task) == task and isinstance(task_id, str | int) and task_id in answers:
            if not isinstance(row.get('completion'), str):
                raise ValueError(f'the completion of {task_id!r} must be a text')
            answers[task_id].append(row['completion'])
    for task_id, texts in answers.items():
        if len(texts) < n:
            raise ValueError(f'completions of {task_id}: {len(texts)}, but {n} are needed; add them')
    return list(answers.values())


# --- before a score -----------------------------------------------------------------------------------------
def check_harness(task, items, run):
    """The task_ids whose reference fails, at most one or 1 %; which walls stand around programs; a caution.
    run: a list of (program, tests, entry point) -> results. ValueError if it confuses right and wrong."""
    of_file = lambda item: task != 'own' and item.get('reference')      # of `own`, it is for a judge
    solved = [item for item in items if of_file(item)]
    if task == 'problems':                  # all known to pass (tests/test_problems.py)
        solved = solved[::math.ceil(len(solved) / 20)]
    right = [(item['reference'], item['tests'], item['entry_point']) for item in solved]
    empty = [(item['prompt'] + '    pass\n', item['tests'], item['entry_point']) for item in solved]
    broken = [i for i, result in enumerate(run(right)) if result.outcome != 'passed']
    broken = [i for i in broken if run([right[i]])[0].outcome != 'passed']      # once more, alone
    n_empty = sum(result.outcome == 'passed' for result in run(empty))
    loop, = run([('while True:\n    pass', 'assert True', '')])
    may_fail = max(1, len(right) / 100) if len(right) > 1 else 0
    if len(broken) > may_fail or n_empty or loop.outcome != 'timeout':
        raise ValueError(f'no score, for the harness cannot tell right from wrong: {len(broken)} of '
                         f'{len(right)} references fail {[solved[i]["task_id"] for i in broken[:3]]}, '
                         f'{n_empty} empty bodies pass, a loop ends as {loop.outcome!r}; mend the tests, or '
                         'see: python -m pytest tests/test_sandbox.py')

    own = [item for item in items if item['tests'] and not of_file(item)]
    names = [item.get('entry_point') or '' for item in own]
    nothing = [name and f'def {name}(*args, **kwargs):\n    pass\n' for name in names]
    for item, result in zip(own, run([*zip(nothing, [item['tests'] for item in own], names)])):
        if result.outcome == 'passed':
            raise ValueError(f'the tests of {item["task_id"]} pass without an answer; they must call it, or '
                             'define check(candidate) beside an "entry_point", the name of the function')

    left_out = [solved[i]['task_id'] for i in broken]
    walls = {name: value for name, value in vars(loop).items() if name.endswith('_denied')}
    if left_out:
        print('problems whose own solutions fail:', *left_out)
    if not all(walls.values()):
        print('warning: programs run here without all walls, see parts/eval/sandbox.py:', walls)
    return left_out, walls, {} if loop.reads_denied else {'caution': 'programs could read the tests'}


# --- how good is an answer? -----------------------------------------------------------------------
def job(item, text, chat=False):
    """What has to be run to grade an answer: (program, tests, entry point). None if nothing has."""
    if text.strip() and item['tests'] and not broken_rules(item['rules'], text):
        return program(item, text, chat), item['tests'], item.get('entry_point', '')
    return None


def outcome(item, text, result=None, chat=False):
    """The outcome of an answer and its reason; of code also bleu. result: the sandbox's, of its job()."""
    if not text.strip():
        return {'outcome': 'empty', 'message': ''}
    broken = broken_rules(item['rules'], text)
    row = {'outcome': 'wrong' if broken else 'passed', 'message': ', '.join(broken)}
    if result:
        row = {'outcome': result.outcome, 'message': result.message}
    if item['body']:
        body = re.sub(r'(?s)^.*?\bdef [^\n]*\n', '', code_in(text)) if chat else text
        row['bleu'] = bleu(body, item['body'])
    return row


WHY = {'syntax': 'syntax', 'wrong': 'wrong value', 'exception': 'other exception', 'timeout': 'time'}


def why_failed(row):
    """Return why an answer did not pass: syntax, name, other exception, wrong value, time, or its outcome."""
    if re.match(r'(Name|UnboundLocal)Error\b', row.get('message', '')):
        return 'name'       # it uses a name that it did not define, or defines another than it was asked for
    return WHY.get(row['outcome'], row['outcome'])


# --- code ---------------------------------------------------------------------------------------------------
def code_in(text):
    """The code of an answer in words: its first block of Python, else its first block, else all of it."""
    blocks = re.findall(r'```([\w.+#{}-]*)[ \t\r]*\n(.*?)(?:```|$)', text, re.S)
    python = [code for name, code in blocks if 'py' in name.lower()]
    return (python or [code for _, code in blocks] or [text])[0]


def program(item, text, chat):
    """What to run: the prompt and its completion; in a chat the answer, below a benchmark's imports."""
    if not chat:
        return item['prompt'] + text
    if item.get('task') == 'own':           # its prompt may be prose
        return code_in(text)
    above = item['prompt'].rfind(f'def {item.get("entry_point")}')
    return item['prompt'][:max(0, above)] + code_in(text)


def bleu(text, reference):
    """BLEU-4 of names, numbers, signs (Papineni et al. 2002), smoothed as by Lin & Och (2004): 0 to 1."""
    words = re.findall(r'\w+|[^\w\s]', text)
    wanted = re.findall(r'\w+|[^\w\s]', reference)
    total = min(0.0, 1 - len(wanted) / max(1, len(words)))      # few words are easily precise
    for n in range(1, 5):
        grams = collections.Counter(zip(*(words[i:] for i in range(n))))
        shared = grams & collections.Counter(zip(*(wanted[i:] for i in range(n))))
        extra = 1 if n > 1 else 0
        hits = shared.total() + extra
        total += math.log(hits / (grams.total() + extra)) / 4 if hits else -math.inf
    return math.exp(total)


def last_number(text):
    """The number behind ####, or else the last one; None if there is none. A minus between two is none."""
    number = r'(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+]?\d+\b)?'
    text = text.replace('\u2212', '-').replace('-$', '-')      # the minus sign of Unicode; -$5
    numbers = re.findall(rf'####[\s$*]*({number})', text) or re.findall(number, text)
    return float(numbers[-1].replace(',', '')) if numbers else None


# --- rules --------------------------------------------------------------------------------------------------
def is_json(text):
    try:
        json.loads(re.sub(r'^```\w*[ \t\r]*\n|\n```$', '', text.strip()))
        return True
    except (ValueError, RecursionError):
        return False


RULES = {'contains': lambda text, value: value.lower() in text.lower(),
         'not_contains': lambda text, value: value.lower() not in text.lower(),
         'min_words': lambda text, n: len(text.split()) - n >= 0,       # TypeError if n is a text
         'max_words': lambda text, n: len(text.split()) - n <= 0,
         'lines': lambda text, n: len(text.strip().split('\n')) - n == 0,
         'regex': lambda text, value: re.search(value, text, re.S),
         'number': lambda text, value: last_number(text) == last_number(value),
         'json': lambda text, _: is_json(text)}
CHECKS = 'rules', 'must_contain', 'must_not_contain', 'regex', 'tests'


def broken_rules(rules, text):
    """The kinds of the rules, pairs (kind, value), that a text breaks."""
    return [kind for kind, value in rules if not RULES[kind](text, value)]


def rules_of(record):
    """All rules of a record: "rules", "must_contain", "must_not_contain" (a text or several) and "regex".
    ValueError if one is unknown, misspelled, cannot be tried or cannot fail, or if nothing is checked."""
    for key in record.keys() - set(CHECKS):
        if close := difflib.get_close_matches(key, CHECKS, 1, 0.8):
            raise ValueError(f'there is no check {key!r}; did you mean {close[0]!r}?')
    rules = [(rule['kind'], rule.get('value')) for rule in record.get('rules', [])]
    for key, kind in (('must_contain', 'contains'), ('must_not_contain', 'not_contains')):
        values = record.get(key, [])
        rules += [(kind, value) for value in ([values] if isinstance(values, str) else values)]
    if 'regex' in record:
        rules.append(('regex', record['regex']))
    for kind, value in rules:
        if kind not in RULES:
            raise ValueError(f'there is no rule {kind!r}; there are: {", ".join(RULES)}')
        try:
            RULES[kind]('', value)
        except (AttributeError, TypeError, re.error) as e:
            raise ValueError(f'the rule {kind} cannot be checked with {value!r}: {e}') from e
        no_number = kind == 'number' and last_number(value) is None
        if no_number or kind not in ('json', 'max_words') and value in ('', 0, '.*', '^.*$'):
            raise ValueError(f'the rule {kind} has the value {value!r}, with which no answer can fail')
    if not rules and not record.get('tests'):
        raise ValueError(f'nothing is checked, every answer would pass; give one of {", ".join(CHECKS)}')
    return rules


# --- a judge ------------------------------------------------------------------------------------------------
def judged(judge, item, text):
    """The score of a judge, 1 to 10, and its reply. judge: a command, which gets JSON on stdin."""
    if not text.strip():
        return {'outcome': 'empty', 'message': '', 'score': 1.0}
    messages = [{'role': 'user', 'content': item['asked']}, {'role': 'assistant', 'content': text}]
    question = {'messages': messages, 'reference': item.get('reference'), 'category': item.get('category')}
    reply, score = ask_judge(judge, json.dumps(question))
    if score is None:
        reply += ' (a judge must reply with a number from 1 to 10)'
    return {'outcome': 'judged' if score else 'infrastructure', 'message': reply, 'score': score}


def ask_judge(judge, question):
    """The first 200 characters of a command's reply to a text on stdin, and the grade from 1 to 10, or None.
    A model wrote the answer and may have learned to ask for a 10: only a reply of one number is a grade."""
    try:
        done = subprocess.run(shlex.split(judge), input=question, capture_output=True, encoding='utf-8',
                              errors='replace', timeout=120)
        reply = f'it failed: {done.stderr}' if done.returncode else done.stdout
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:       # ValueError: an open quotation
        reply = f'it cannot be asked: {e}'
    grade = re.fullmatch(r'\s*(\[\[)?(\d+(?:\.\d+)?)(?(1)\]\])\s*', reply)
    score = float(grade[2]) if grade else 0.0
    return reply[:200], score if 1 <= score <= 10 else None
