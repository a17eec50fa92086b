"""
Score answers to the questions of questions.py, by running tests or checking rules, for eval.py,
rl.py, and the commands rescore, compare and export.

    code_in('So:\\n```python\\nx = 1\\n```')       # 'x = 1\\n'
"""
import ast, builtins, collections, math, re, textwrap
from tqdm import tqdm
from configurator import require
from extras.tasks import problems
from extras.tasks.questions import broken_rules, joined, names_in, read


# --- verdicts -------------------------------------------------------------------------------------
WHY = {'passed': '', 'wrong': 'wrong value', 'exception': 'other exception', 'timeout': 'time'}


def grade(questions, rows, run):
    """Add the verdict, {'outcome', 'message', 'why'}, to each row of samples.jsonl. Refuse to
    score them if over 2% could not be run."""
    question_of = {question['task_id']: question for question in questions}
    cases = [(question_of[row['task_id']], row['completion'], bool(row['messages']))
             for row in rows]
    for row, verdict in zip(tqdm(rows, 'grade', disable=None), verdicts(cases, run)):
        row |= verdict
        if question_of[row['task_id']].get('tests'):    # a single return statement, as DPO prefers
            row['preferred'] = problems.preferred(row['completion'])
        # name: the program uses an undefined name, or defines another function than asked for
        is_name = re.match(r'(Name|UnboundLocal)Error\b', row['message'])
        row['why'] = 'name' if is_name else WHY.get(row['outcome'], row['outcome'])
    lost = [row['message'] for row in rows if row['outcome'] == 'infrastructure']
    require(len(lost) <= len(rows) / 50,
            f'no score: {len(lost)} of {len(rows)} answers could not be run: {lost[-1:]}')


def verdicts(cases, run):
    """Yield the verdict {'outcome', 'message'} on each case (question, answer, whether it was asked
    in a chat). run: [(program, tests, entry point)] -> results, in order."""
    found, jobs = [], []
    for question, text, chat in cases:
        # remove the reasoning before </think>, which may be truncated
        text = re.sub(r'(?s)^.*</think>|^\s*<think>.*', '', text)
        broken = broken_rules(question['rules'], text)
        outcome = 'empty' if not text.strip() else 'wrong' if broken else 'passed'
        if outcome == 'passed' and question['tests']:       # decided by the tests below
            outcome = ''
            jobs.append((program(question, text, chat), question['tests'], question['entry_point']))
        found.append({'outcome': outcome, 'message': ', '.join(broken)})
    results = iter(run(jobs) if jobs else ())
    for verdict in found:
        if not verdict['outcome']:
            result = next(results)
            verdict = {'outcome': result.outcome, 'message': result.message}
        yield verdict


# --- rows of samples.jsonl ------------------------------------------------------------------------
def read_answers(path, *keys):
    """Return the rows of a file of one checkpoint's answers. Each row must have these keys."""
    keys = {'task_id', *keys}

    def checked(row):
        text = {key: row[key] for key in keys}.get('completion', '')
        require(isinstance(text, str), f'"completion" must be text, not {text!r:.80}')
        return row

    rows = read(path, checked, f'each line must be a JSON object with {", ".join(sorted(keys))}')
    require(len({row.get('ckpt') for row in rows}) == 1,
            f'{path} must have answers of one checkpoint ("ckpt")')
    return rows


def mean(numbers):
    return sum(numbers) / len(numbers)


def group(rows, key):
    """Return {key(row): its rows}."""
    rows_of = collections.defaultdict(list)
    for row in rows:
        rows_of[key(row)].append(row)
    return rows_of


def by_problem(rows):
    """Return {problem: its rows}, without answers that have no verdict because they are ungraded or
    the machine failed (infrastructure). A problem is identified by its name and its prompt, because
    files without ids may use a name twice."""
    graded = [row for row in rows if row['outcome'] not in ('infrastructure', 'ungraded')]
    return group(graded, lambda row: (f'{row.get("task")} {row["task_id"]}',
                                      str(row.get('prompt'))))


def summarize(rows, ks, pass_at_k, interval):
    """Return pass@k of rows of samples.jsonl, the mean over problems with at least k scored
    answers; the interval of pass@1; why answers failed; and `by_split`, the same for each split of
    problems.py (questions from a file have no split). eval.py explains pass_at_k and interval."""
    def summary(rows):
        verdicts = [[row['outcome'] == 'passed' for row in own]     # [[True, False], [True, True]]
                    for own in by_problem(rows).values()]
        result = {'n': len(verdicts), 'samples': sum(map(len, verdicts))}
        for k in ks:
            chances = [pass_at_k(len(each), sum(each), k) for each in verdicts if len(each) >= k]
            result[f'pass@{k}'] = mean(chances) if chances else None
            if k == 1:
                result['interval'] = interval([*map(mean, verdicts)]) if verdicts else None
        why = collections.Counter(row.get('why', row['outcome']) for row in rows
                                  if row['outcome'] != 'passed')
        return result | {'failures': dict(why.most_common())}       # {'syntax': 5, 'name': 2}

    splits = group(rows, lambda row: row.get('split'))
    return summary(rows) | {
        'by_split': {split: summary(own) for split, own in splits.items() if split}}


# --- does the harness work here? ------------------------------------------------------------------
def check_harness(questions, run):
    """Run programs that are known to be wrong or right. Return {'left_out': the task_ids whose own
    solution fails, 'confined': whether the sandbox isolates programs}. Raise UserError if code
    execution is not allowed, if an empty function passes, or if over 1% of the solutions fail (and
    more than one)."""
    questions = [question for question in questions if question['tests']]
    if not questions:
        return {'left_out': []}
    require(run, 'these tests run programs that the model wrote; first read the top of '
            'extras/tasks/sandbox.py, then add --allow_code_execution=True')
    if all('composition' in question for question in questions):
        # tests/test_problems.py runs the solutions of problems.py, so here 20 are enough
        questions = questions[::math.ceil(len(questions) / 20)]
    named = lambda question: question.get('task_id', question['messages'][-1]['content'][:60])
    run_all = lambda cases: [*run([(code, q['tests'], q['entry_point']) for q, code in cases])]
    # An empty answer defines all functions that the tests call.
    called = [names_in(question['tests'])[1] - {*dir(builtins)} | {question['entry_point'] or '_'}
              for question in questions]
    empty = run_all([(q, ''.join(f'def {name}(*_, **__): pass\n' for name in sorted(names)))
                     for q, names in zip(questions, called)])
    for question, result in zip(questions, empty):
        require(not re.match('infrastructure|exception: ModuleNotFoundError', f'{result.outcome}: '
                f'{result.message}'), f'no score: the tests of {named(question)!r} fail by '
                f'themselves: {result.message}')
        require(result.outcome != 'passed', f'no score: the tests of {named(question)!r} pass '
                'without an answer, by functions that return None; do they call the answer? '
                'check(candidate) needs an "entry_point"')
    solved = [(question, question['solution']) for question in questions if question['solution']]
    failed = [case for case, result in zip(solved, run_all(solved)) if result.outcome != 'passed']
    # once more: a machine that was busy for a moment is no reason to leave a question out
    left_out = [named(question) for (question, _), result in zip(failed, run_all(failed))
                if result.outcome != 'passed']
    require(not left_out or len(left_out) <= max(1, len(solved) / 100) < len(solved), 'no score: '
            f'{len(left_out)} of {len(solved)} known solutions fail, {left_out[:3]}; fix the tests '
            'or raise the timeout, or see: python -m pytest tests/test_sandbox.py')
    if left_out:
        print('problems whose own solutions fail:', *left_out)
    return {'left_out': left_out, 'confined': empty[0].confined}


def check_tasks(questions_of, run):
    """Check the harness on all of {task: its questions}, and remove the questions whose own
    solution fails. Return what check_harness() returns."""
    report = check_harness(sum(questions_of.values(), []), run)
    for task, asked in questions_of.items():
        asked[:] = [question for question in asked if question['task_id'] not in report['left_out']]
        require(asked, f'no question of --tasks={task} is left: its own solutions fail its tests')
    return report


# --- code -----------------------------------------------------------------------------------------
# A line with a fence, ``` or ~~~, which may follow a sentence, and the lines up to a line with only
# the same fence. Fences named md are skipped, because they enclose a whole answer.
BLOCK = re.compile(r'^[^`~\n]*(`{3,}|~{3,})(?! *(?:md|markdown)\b)[^`\n]*\n'
                   r'(.*?)(?:^\s*\1[`~]*\s*$|\Z)', re.M | re.S)


# Markup on a line with code: > of a quote, Python's prompts, <answer>, [PYTHON], words and a colon.
TAG = re.compile(r'^(?:>>> ?|> ?|\.\.\. ?|<\w+>|\[\w+\]|.*[:*>\]] ?(?=(?:async )?def \w))'
                 r'|(?:</\w+>|\[/\w+\])\s*$', re.M)


def code_in(text, wanted=()):
    """Return the code in an answer that also has prose: the fenced blocks, or if these don't define
    the wanted names, the parts of the text that are Python. If nothing defines the names, return
    the last fenced block with Python, otherwise the last fenced block, or the whole text."""
    if not names_in(text)[2]:           # docstrings in Python code may contain fences, too
        return '\n'.join(python_in(text, len(text)))
    # remove characters that no program needs: byte order marks, and spaces from web pages
    text = re.sub('[\u200b\ufeff]', '', text).replace('\xa0', ' ')
    fenced = [textwrap.dedent(block) for _, block in BLOCK.findall(text)]
    python = [block for block in fenced if block.strip() and not names_in(block)[2]]
    return (definitions(fenced, wanted) or definitions(python_in(text), wanted)
            or definitions(re.findall('`([^`\n]+)`', text), wanted)
            or definitions(python_in(TAG.sub('', text)), wanted) or [text, *fenced, *python][-1])


def definitions(blocks, wanted):
    """Return one program: the last block that defines each wanted name, and the blocks that define
    the names used in these blocks."""
    found = [names_in(block) for block in blocks]
    last = {name: i for i, (defines, _, _) in enumerate(found) for name in defines}
    chosen, names = set(), [*wanted]
    for name in names:          # the list grows
        if name in last and last[name] not in chosen:
            chosen.add(last[name])
            names += sorted(found[last[name]][1])
    return joined(f'{blocks[i]}\n' for i in sorted(chosen))


def python_in(text, most=300):
    """Return the parts of a text that are Python. A part begins at a line and ends before the first
    syntax error, after at most `most` lines; it may be indented as a whole. Single words and
    numbers are removed, because they are usually prose:

        python_in('Answer\\nx = 1\\nThat is it.') -> ['\\nx = 1']"""
    is_word = lambda node: isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call) or (
        isinstance(node, ast.AnnAssign) and not node.value)
    lines, parts, start = text.split('\n'), [], 0
    while start < len(lines):
        above = ['if 1:'] * lines[start].startswith((' ', '\t'))
        end = min(start + most, len(lines))
        for _ in range(9):      # the code before an error may end within a statement
            part = [*above, *lines[start:end]]
            try:
                tree = ast.parse('\n'.join(part))
                compile(tree, 'answer', 'exec')
            except Exception as error:      # no lineno: null bytes, lone surrogates, deep nesting
                line = (getattr(error, 'lineno', 0) or 1) - 1 - len(above)
                end = max(start, min(end - 1, start + line))
                continue
            for node in filter(is_word, tree.body):
                for i in range(node.lineno - 1, node.end_lineno):
                    part[i] = ''
            parts.append('\n'.join(part))
            break
        start = max(end, start + 1)
    return parts


def program(question, text, chat):
    """Return the program to run: the prompt and its completion. In a chat, or if the two are not
    valid Python, return the code of the answer, preceded by what the prompt has above the function
    to complete, such as imports."""
    prompt, name = question['prompt'], question['entry_point']
    if not chat and not names_in(prompt + text)[2]:
        return joined([prompt, text])
    code = code_in(text, [name, *sorted(names_in(question['tests'])[1])])
    if 'test' not in question:
        return code
    if name not in names_in(code)[0]:       # the answer may be the function's body
        for body in text, *[block for _, block in BLOCK.findall(text)][::-1]:
            indented = re.search(r'(?m)^[ \t]+\S', body)
            whole = python_in(prompt + body[indented.start():])[0] if indented else ''
            if whole.count('\n') >= prompt.count('\n') > 0:
                return whole
    return joined([prompt[:max(0, prompt.rfind(f'def {name}'))], code])
