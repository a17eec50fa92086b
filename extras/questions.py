"""
Questions that a model is asked, all of one form, whatever the records of their file look like.

    question = to_question({'question': '2 + 2?', 'answer': 'Count on. #### 4'})
    question['messages']                    # for a chat: [{'role': 'user', 'content': '2 + 2?'}]
    question['prompt']                      # for a base model: 'Question: 2 + 2?\\nAnswer:'
    broken_rules(question['rules'], 'It is 4.')         # [], none
    of_tasks(['own'], 'own.jsonl', 9, 0, '')          # {'own': its first nine questions}

grading.py says how good an answer is.
"""
import ast, collections, gzip, json, math, pathlib, re, symtable, textwrap, warnings
from decimal import Decimal       # exact: a float has 16 digits
from configurator import Mistake
from extras import formats, problems

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
    question = record | {'messages': messages_of(asked), 'prompt': asked,
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
        question |= {'messages': messages_of(text), 'solution': solution and whole,
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


def messages_of(prompt):
    """Return the messages of a prompt: itself, or one message of the user if it is text."""
    return prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]


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


# --- files of questions and of answers ------------------------------------------------------------
def of_tasks(tasks, data, n, seed, splits):
    """Return {task: its questions}, at most n of each file, or n of each split of problems.py (0 is
    a whole file, or 100). data: 'A.jsonl,B.jsonl', a file for each task that needs one, in their
    order. splits: 'variation,cell'."""
    files = data.split(',') if data else []
    need_file = [task for task in tasks if task != 'problems']
    if len(files) != len(need_file):
        raise Mistake(f'--data={data} must name a .jsonl file for each of these '
                      f'tasks, in this order: {", ".join(need_file) or "none"}')
    asked = {task: read(task, path)[:n or None] for task, path in zip(need_file, files)}
    if 'problems' in tasks:
        asked['problems'] = from_problems(n or 100, seed, splits.split(','))
    return asked


def read(task, path):
    """Return the questions in the file of a task."""
    asked = convert(path, content_of(path), lambda record: to_question(record, task != 'judge'),
                    f'each line is a problem of {task}; see the top of eval.py')
    if len({question['ends'] for question in asked}) > 1:
        raise Mistake(f'{path} has functions to complete ("test") and other questions; give '
                      'each kind a file of its own')
    return identified(task, path, asked)


def content_of(path):
    """Return the bytes of a file; of a table, such as .parquet, lines of JSON."""
    try:
        is_other = formats.OTHER.search(path)
        with formats.open_file(path) if is_other else open(path, 'rb') as f:
            return f.read()
    except (OSError, EOFError, ValueError) as error:
        raise Mistake(f"{path} can't be read: {error}") from None


def convert(path, content, function, hint):
    """Return [function(record)] of a file with this content: records of JSON, one a line or all in
    one list, perhaps gzipped. A Mistake names the first line that can't be read or that function()
    refuses. hint: what a line must be."""
    number, results = 0, []
    try:
        if content[:2] == b'\x1f\x8b':
            content = gzip.decompress(content)
        content = content.removeprefix(b'\xef\xbb\xbf')         # a byte order mark
        is_list = content.lstrip()[:1] == b'['
        for part in json.loads(content) if is_list else content.splitlines():
            number += 1
            if is_list or part.strip():
                results.append(function(part if is_list else json.loads(part)))
    except Exception as error:      # half an archive, a missing key, a pattern that is none, ...
        kind = '' if isinstance(error, Mistake) else f'{type(error).__name__}: '
        raise Mistake(f'{path}, line {number}: {kind}{error}; {hint}') from error
    return results


def contamination(folder):
    """Return what prepare.py searched the training data of a run for, {'ngram', 'problems'}, or
    None. Print the sentence that a score comes with."""
    path = pathlib.Path(folder, 'data.json')
    found = json.loads(path.read_bytes()).get('decontaminated') if path.exists() else None
    if found:
        print(f'contamination: text of pretraining shares no {found["ngram"]}-gram of words with '
              f'{" ".join(found["problems"])}')
    else:
        print('contamination: no data.json says that the pretraining text was searched for these '
              'problems; see --decontaminate of prepare.py')
    return found


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


# --- rules ----------------------------------------------------------------------------------------
# 1,200 is one number, and 2,3 are two. A minus between two numbers belongs to neither.
NUMBER = (r'(?:(?<![\w)])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)'
          r'(?:[eE][-+]?\d{1,9}\b)?')


def last_number(text):
    """Return the number behind ####, or else the last one, or None."""
    text = text.replace('\u2212', '-').replace('-$', '-')      # the minus sign of Unicode; -$5
    numbers = re.findall(rf'####[\s$*]*({NUMBER})', text) or re.findall(NUMBER, text)
    return Decimal(numbers[-1].replace(',', '')) if numbers else None


def is_number(answer):
    """Is this a number, alone or behind ####: 18, '$1,200', '5 apples', '3 + 4 = 7. #### 7'? In
    others, a number may be a part of a name, a date or a list: 'Apollo 11', '2026-11-27', '1/2'."""
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
        if not is_number(record['answer']):
            raise Mistake(f'"answer" must be a number, not {record["answer"]!r:.80}; for a text '
                          'take "must_contain" or "regex", and in a solution write #### in front '
                          'of the number')
        rules = [('answer', str(record['answer']))]

    for key, value in rules:
        RULES[key]('', value)       # an error, if the value is no pattern
        if value in ('', '.*', '^.*$'):
            raise Mistake(f'"{key}" has the value {value!r}: no answer can fail, or none can pass')
    return rules
