"""
Questions that a model is asked, all of one form, and how its answers are graded.

    question = to_question({'question': '2 + 2?', 'answer': 'Count on. #### 4'})
    question['messages']                    # for a chat: [{'role': 'user', 'content': '2 + 2?'}]
    question['prompt']                      # for a base model: 'Question: 2 + 2?\\nAnswer:'
    job(question, 'It is 4.', chat=True)    # (program, tests, entry point) to run, or None
    outcome(question, 'It is 4.')           # {'outcome': 'passed', 'message': ''}
    judged('./my_judge', question, 'Four')  # {'outcome': 'judged', 'message': '7', 'score': 7.0}
"""
import ast, builtins, collections, difflib, itertools, json, math, pathlib, re, shlex, subprocess
import symtable, textwrap, warnings
from parts import Mistake
from parts.eval import problems, results
from parts.prepare import reading
from parts.train import records

# In the order in which eval.py does them.
TASKS = 'loss', 'problems', 'humaneval', 'mbpp', 'own', 'gsm8k', 'judge', 'learned', 'compare'
ELSEWHERE = ('multiple choice (MMLU, ARC, HellaSwag) and IFEval are scored by lm_eval, on the '
             'folder that python sample.py --export=hf writes: lm_eval --model hf --model_args '
             'pretrained=FOLDER/hf --tasks=ifeval,mmlu; see docs/measuring.md')


# --- from a record to a question ------------------------------------------------------------------
def to_question(record, is_graded=True):
    """Return the question that a record asks: the record itself and

        messages            what a chat is asked
        prompt              the text that a base model continues
        ends                a pattern: where its answer ends
        tests, entry_point  Python that judges the program in an answer, or ''
        rules               pairs (key, value) that an answer must keep; see RULES
        solution            a program that is known to pass the tests, or ''

    The keys of a record tell its kind. With "test" it is a function to complete, as in HumanEval
    and problems.py, with "test_list" one of MBPP. With "tests", "regex", "must_contain" or
    "must_not_contain" it is a question of your own, and with nothing but "answer" the answer is a
    number, as in GSM8K.
    is_graded=False: a judge or a reward model grades the answers. ValueError if nobody could."""
    if {'instruction_id_list', 'choices', 'endings'} & record.keys():
        raise Mistake(ELSEWHERE)
    if 'test_list' in record:
        solution = record.get('code') if is_graded else ''
        return to_question(of_mbpp(record), is_graded) | {'solution': solution}
    asked = record.get('prompt') or record.get('question') or (record.get('turns') or [''])[0]
    if not asked or not isinstance(asked, str | list):
        raise Mistake('the line has no prompt or question')
    tests = record.get('tests') or ''
    if not isinstance(tests, str):
        raise Mistake(f'"tests" must be a text, a program, not {tests!r:.80}')
    question = record | {'messages': records.messages_of(asked), 'prompt': asked,
                         'entry_point': record.get('entry_point') or '', 'solution': '',
                         'ends': r'(?<=\n)(?=Question:)'}
    if 'test' in record:
        texts = asked, record['test'], record.get('entry_point')
        if not all(isinstance(text, str) for text in texts):
            raise Mistake('"test" must be a text, and needs a text as its prompt, and an '
                          '"entry_point"; a question of your own has "tests"')
        text = record.get('asked') or f'Complete:\n{asked.rstrip()}'
        solution = record.get('canonical_solution') or ''
        # MBPP's solutions are not always indented as their docstrings, and its tests need math.
        indent = (re.search(r'^[ \t]+(?=\S)', solution, re.M) or [''])[0]
        whole = re.sub(r"\n[ \t]*'''", f"\n{indent}'''", asked + solution, count=1)
        if not record['test'].strip():
            raise Mistake('the test is empty: every answer would pass')
        tests = f'import math\n{record["test"]}'
        question |= {'messages': records.messages_of(text), 'solution': solution and whole,
                     'entry_point': record['entry_point'].strip(),
                     # before a line in column 0 that closes nothing
                     'ends': r'(?<=\n)(?=[^\s)\]}])'}
    elif 'prompt' not in record:
        question['prompt'] = f'Question: {asked}\nAnswer:'
    elif isinstance(asked, list):
        question['prompt'] = asked[-1]['content']
    question |= {'tests': '', 'rules': []}
    if is_graded:
        question |= {'tests': tests, 'rules': [] if 'test' in record else rules_of(record)}

    name = question['entry_point']
    if name and not (isinstance(name, str) and name.isidentifier()):
        raise Mistake(f'the entry_point {name!r:.80} must be the name of a function')
    compile(question['tests'], 'tests', 'exec')         # SyntaxError if they are no program
    hash(question.get('task_id'))                       # TypeError if no dict can hold it
    return question


def of_mbpp(record):
    """Return a problem of MBPP, whose two files have different keys, in HumanEval's layout. A chat
    is asked the text and shown the tests. A base model continues the function: what its solution
    imports, its signature, and a docstring of the same text and tests."""
    record = {'test_setup_code': '', 'test_imports': [], 'code': None} | record
    text, tests = record.get('text') or record.get('prompt'), record.pop('test_list')
    texts = {'text': text, 'code': record['code'], 'test_setup_code': record['test_setup_code']}
    lists = {'test_imports': record['test_imports'], 'test_list': tests}
    for key, value in (texts | lists).items():
        parts = value if key in lists else [value]
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise Mistake(f'"{key}" of a problem of MBPP must be a '
                          f'{"list of texts" if key in lists else "text"}, not {value!r:.80}')
    for key, code in ('code', record['code']), *(('test_list', test) for test in tests):
        if error := names_in(code)[2]:
            raise Mistake(f'"{key}" of a problem of MBPP is not Python: {error}')

    called = set.intersection(*[names_in(test)[1] for test in tests] or [set()])
    tree = ast.parse(record['code'])
    functions = [node for node in tree.body if getattr(node, 'name', '') in called]
    if not functions or not isinstance(functions[-1], ast.FunctionDef):
        raise Mistake('each test in the "test_list" of a problem of MBPP must call a function that '
                      'its "code" defines')
    function = functions[-1]
    shown = '\n'.join(tests)
    asked = f'{text.strip()}\n\nYour code should pass these tests:\n\n{shown}'
    function.body = [ast.Expr(ast.Constant(textwrap.indent(f'\n{asked}\n', '    ') + '    '))]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    # In HumanEval's layout check() is called last. The function of a problem has that name, too.
    checked = 'def check(candidate):\n    pass'
    return record | {
        'prompt': ast.unparse(ast.Module([*imports, function], [])) + '\n', 'asked': asked,
        'entry_point': function.name,
        'test': '\n'.join([record['test_setup_code'], *record['test_imports'], *tests, checked])}


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


def from_problems(n, seed, splits):
    """Return n questions of problems.py of each split."""
    asked = [problem | {'asked': problems.to_messages(problem)[0]['content']}
             for split in splits for problem in problems.problems(n, seed, split)]
    return identified('problems', f'{splits=}', [to_question(problem) for problem in asked])


def identified(task, source, questions):
    """Return the questions, each with a task_id: its own or TASK/NUMBER. ValueError if there are
    none, or two have the same."""
    if not questions:
        raise Mistake(f'{source} has no problem of {task}; it must have one on each line')
    for i, question in enumerate(questions):
        question.setdefault('task_id', question.get('question_id', f'{task}/{i}'))
    task_id, n = collections.Counter(q['task_id'] for q in questions).most_common(1)[0]
    if n > 1:
        raise Mistake(f'{source} has the task_id {task_id!r} twice; give each problem its own')
    return questions


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


# --- how good is an answer? -----------------------------------------------------------------------
def job(question, text, chat):
    """Return what has to run to grade an answer, (program, tests, entry point), or None."""
    if question['tests'] and text.strip() and not broken_rules(question['rules'], text):
        return trial(question, program(question, text, chat))
    return None


def trial(question, program):
    """Return a job of the sandbox: this program, judged by the tests of a question."""
    return program, question['tests'], question['entry_point']


def outcome(question, text, result=None):
    """Return the outcome of an answer and its reason. result: the sandbox's, of its job()."""
    if not text.strip():
        return {'outcome': 'empty', 'message': ''}
    if result:
        return {'outcome': result.outcome, 'message': result.message}
    broken = broken_rules(question['rules'], text)
    return {'outcome': 'wrong' if broken else 'passed', 'message': ', '.join(broken)}


WHY = {'passed': '', 'judged': '', 'wrong': 'wrong value', 'exception': 'other exception',
       'timeout': 'time'}


def why_failed(row):
    """Return why an answer did not pass: syntax, name, other exception, wrong value, time, or its
    outcome; '' if it did, or has a grade."""
    if re.match(r'(Name|UnboundLocal)Error\b', row.get('message', '')):
        return 'name'       # it uses an unknown name, or defines another than it was asked for
    return WHY.get(row['outcome'], row['outcome'])


def tested(questions):
    """Return the questions whose answers are programs, which have to run."""
    return [question for question in questions if question['tests']]


def named(question):
    """Return the task_id of a question, or else how it begins."""
    return question.get('task_id', question['messages'][-1]['content'][:60])


def check_harness(questions, run):
    """Run answers that are known to be right or wrong. Return the task_ids whose own solution
    fails, at most one or 1%, and which walls stand around programs. run: a list of (program, tests,
    entry point) -> their results. ValueError if right and wrong programs are not told apart."""
    some = tested(questions)
    if all('cell' in question for question in some):    # all pass: tests/test_problems.py
        some = some[::math.ceil(len(some) / 20)]
    solved = [question for question in some if question['solution']]
    empty = [trial(question, f'def {question["entry_point"] or "_"}(*args, **kwargs):\n    pass\n')
             for question in some]
    right = [trial(question, question['solution']) for question in solved]
    loop, *results = run([('while True:\n    pass', 'assert True', ''), *empty, *right])

    for question, result in zip(some, results):
        if result.outcome == 'passed':
            raise Mistake(f'no score: the tests of {named(question)!r} pass without an answer; '
                          'they must call it, or define check(candidate) next to an '
                          '"entry_point", the name of the function')
    left_out = []
    for question, job, result in zip(solved, right, results[len(some):]):
        # A solution that fails runs once more, alone, because a busy machine is slow.
        if result.outcome != 'passed' and [*run([job])][0].outcome != 'passed':
            left_out.append(named(question))
    may_fail = max(1, len(right) / 100) if len(right) > 1 else 0
    if len(left_out) > may_fail or loop.outcome != 'timeout':
        raise Mistake(f'no score: the test harness is broken. {len(left_out)} of {len(right)} '
                      f'known solutions fail {left_out[:3]}, and an endless loop ends as '
                      f'{loop.outcome!r}; fix the tests, or see: python -m pytest '
                      'tests/test_sandbox.py')
    if left_out:
        print('problems whose own solutions fail:', *left_out)
    walls = {name: value for name, value in vars(loop).items() if name.endswith('_denied')}
    missing = [name.removesuffix('_denied') for name, stands in walls.items() if not stands]
    if missing:
        print(f'warning: the sandbox is not complete here. Missing: {", ".join(missing)}. '
              'parts/eval/sandbox.py says what programs can do without them.')
    return left_out, walls


# --- code -----------------------------------------------------------------------------------------
# A line that opens a block: a fence, ```, ```` or ~~~, and what is in it. In front of it may be the
# mark of a list, or a sentence. A whole answer in ```markdown is no block, but those in it are.
OPENING = re.compile(r'^(?!.*[`~]{3}[ \t]*(?:markdown|md)\b)'
                     r'(?:([ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?:(`{3,})([^`\n]*)|(~{3,})(.*))'
                     r'|[^`\n]*(`{3,})[ \t]*([^`\s]*)[ \t]*)$', re.M)
# raw: its text; code: the same in column 0; defines, needs: names; error: why it is not Python
Block = collections.namedtuple('Block', 'name raw code defines needs error')


def names_in(code):
    """Return the names that a program defines, those that it takes from elsewhere, and why it is
    not Python, or ''.
    names_in('import math\ndef f(): return g(math.pi)') -> ({'math', 'f'}, {'g'}, '')"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')         # of '\d' in a text
            tables = [symtable.symtable(code, 'answer', 'exec')]
    except Exception as e:      # also null bytes, lone surrogates and deep nesting
        return set(), set(), str(e)
    for table in tables:        # the list grows
        tables += table.get_children()
    defines = {symbol.get_name() for symbol in tables[0].get_symbols()
               if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for table in tables for symbol in table.get_symbols()
            if symbol.is_referenced() and symbol.is_global()}
    return defines, uses - defines, ''


def to_block(name, raw, margin):
    """Return a Block. margin: columns in front of its fence, which are no part of the code."""
    raw = re.sub(rf'^[ \t]{{1,{margin}}}', '', raw, flags=re.M) if margin else raw
    # A text in three quotation marks may begin in column 0, so other lines are kept if they can be.
    code = textwrap.dedent(raw) if raw[:1].isspace() and names_in(raw)[2] else raw
    return Block(name, raw, code, *names_in(code))


def blocks_in(text):
    """Return the fenced Blocks of an answer."""
    text = text.replace('\r\n', '\n')
    blocks = []
    end = 0
    # A model that repeats itself may write thousands of fences, and each is looked for in the rest.
    while (opening := OPENING.search(text, end)) and len(blocks) < 100:
        before, *groups = opening.groups('')
        fence, name = ''.join(groups[::2]), ''.join(groups[1::2])
        start = opening.end() + 1
        # A line with nothing but a fence, at least as long, closes the block; or the answer is cut.
        closing = re.compile(rf'^[ \t]*{fence}{fence[0]}*[ \t]*$', re.M).finditer(text, start)
        spans = [match.span() for match in itertools.islice(closing, 20)] + [(len(text),) * 2]
        block_to = lambda stop: to_block(name.lower().strip().split(' ')[0], text[start:stop],
                                         len(before))
        for stop, after in spans:
            block, end = block_to(stop), after
            # In a docstring, a fence closes nothing. Only there would Python read on.
            if 'triple-quoted' not in block.error:
                break
        if block.error:
            stop, end = spans[0]
            block = block_to(stop)
            # perhaps it is closed at the end of a line: return 1```
            stop = text.find(fence, start, stop)
            if text[start:stop].strip() and stop >= 0 and not block_to(stop).error:
                block, end = block_to(stop), stop + len(fence)
        blocks.append(block)
    return blocks


def code_in(text, wanted=()):
    """Return the code of an answer in words: the blocks that define the names that are wanted, and
    those that define what these need; else the first block that is Python; else the first. Without
    blocks it is all of the text."""
    blocks = blocks_in(text)
    if not blocks or not names_in(text)[2]:     # Python may have a fence, too, in a docstring
        return text
    ordered = sorted(blocks, key=lambda block: ('py' not in block.name, block.name != ''))
    chosen = []
    names = [*wanted]
    for name in names:          # the list grows
        block = next((block for block in chosen + ordered if name in block.defines), None)
        if block and block not in chosen:
            chosen.append(block)
            names += sorted(block.needs - {*dir(builtins)})
    if not chosen:
        python = [block for block in ordered if not block.error and block.code.strip()]
        chosen = (python or ordered)[:1]
    return '\n'.join(block.code for block in blocks if block in chosen)


def program(question, text, chat):
    """Return what to run: the prompt and its completion; in a chat, or where these are no Python,
    for example because the prompt is prose, the code of the answer, and above it what stands above
    the function that had to be completed."""
    prompt, name = question['prompt'], question['entry_point']
    if not chat and not names_in(prompt + text)[2]:
        return prompt + text
    code = code_in(text, [name, *sorted(names_in(question.get('tests', ''))[1])])
    if 'test' not in question:
        return code
    if name not in names_in(code)[0]:       # perhaps the answer is the body of the function
        for body in text, *[block.raw for block in blocks_in(text)]:
            if re.match(r'\n*[ \t]', body) and not names_in(prompt + body)[2]:
                return prompt + body
        if not chat and code == text:
            return prompt + text
    return prompt[:max(0, prompt.rfind(f'def {name}'))] + code


# --- rules ----------------------------------------------------------------------------------------
# 1,200 is one number, and 2,3 are two. A minus between two numbers belongs to neither.
NUMBER = (r'(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)'
          r'(?:[eE][-+]?\d+\b)?')


def last_number(text):
    """Return the number behind ####, or else the last one, or None."""
    text = text.replace('\u2212', '-').replace('-$', '-')      # the minus sign of Unicode; -$5
    numbers = re.findall(rf'####[\s$*]*({NUMBER})', text) or re.findall(NUMBER, text)
    return float(numbers[-1].replace(',', '')) if numbers else None


def is_number(answer):
    """Is this a number, alone or behind ####: 18, '$1,200', '5 apples', '3 + 4 = 7. #### 7'? In other
    texts, a number may be a part of a name, a date or a list: 'Apollo 11', '2026-11-27', '1/2'."""
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return False
    text = str(answer).split('####')[-1]
    return (re.fullmatch(rf'[^\w.]*{NUMBER}\D*', text) is not None
            and math.isfinite(last_number(text)))


# By the keys of a record: does a text keep the rule?
RULES = {'must_contain': lambda text, value: value.lower() in text.lower(),
         'must_not_contain': lambda text, value: value.lower() not in text.lower(),
         'regex': lambda text, value: re.search(value, text, re.S),
         'answer': lambda text, value: last_number(text) == last_number(value)}


def broken_rules(rules, text):
    """Return the keys of the rules that a text breaks.
    broken_rules([('must_contain', 'a'), ('regex', '^b')], 'abc') -> ['regex']"""
    return [key for key, value in rules if not RULES[key](text, value)]


def rules_of(record):
    """Return all rules of a record. "answer" is one only where nothing else is checked. ValueError
    if a rule cannot be tried or cannot fail, or if nothing is checked."""
    if 'rules' in record:
        raise Mistake('"rules" are no longer read; a "regex" can say most of them, see '
                      'docs/measuring.md')
    rules = []
    for key in 'must_contain', 'must_not_contain', 'regex':
        values = record.get(key, [])
        values = [values] if isinstance(values, str) else values
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Mistake(f'"{key}" must be a text, or a list of texts, not {record[key]!r:.80}')
        rules += [(key, value) for value in values]
    if not rules and not record.get('tests'):
        if 'answer' not in record:
            raise Mistake('nothing is checked, every answer would pass; give one of '
                          f'{", ".join(RULES)}, tests')
        rules = [('answer', str(record['answer']))]

    for key, value in rules:
        if key == 'answer' and not is_number(record['answer']):
            raise Mistake(f'"answer" must be a number, not {record["answer"]!r:.80}; for a text '
                          'take "must_contain" or "regex", and in a solution write #### in front '
                          'of the number')
        RULES[key]('', value)       # an error, if the value is no pattern
        if value in ('', '.*', '^.*$'):
            raise Mistake(f'"{key}" has the value {value!r}: no answer can fail, or none can pass')
    return rules


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
