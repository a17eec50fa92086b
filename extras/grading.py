"""
How good are answers to questions of questions.py? Tests run their programs, or a rule or a judge
decides. eval.py and rl.py take their verdicts from here.

    run = sandbox.run_many                  # programs with their tests -> what became of them
    left_out, confined = check_harness(questions, run)  # can the tests tell right from wrong?
    for verdict in verdicts([question], [['It is 4.']], chat=True, run=run):
        print(verdict)              # {'outcome': 'passed', 'message': '', 'why': ''}
    code_in('So:\\n```python\\nx = 1\\n```')        # 'x = 1\\n'
"""
import builtins, collections, itertools, json, math, re, shlex, subprocess, textwrap
from configurator import Mistake
from extras import problems
from extras.questions import broken_rules, content_of, convert, names_in


# --- answers --------------------------------------------------------------------------------------
def read_answers(path):
    """Return the rows of a file of answers, {"task_id", "completion"}, all of one checkpoint."""
    def checked(row):
        hash(row['task_id'])            # TypeError if no dict can hold it
        if not isinstance(row['completion'], str):
            raise Mistake('"completion" must be a text')
        return row

    rows = convert(path, content_of(path), checked,
                   'each line needs a "task_id" and a "completion"')
    ckpts = {str(row.get('ckpt')) for row in rows}
    if len(ckpts) > 1:
        raise Mistake(f'{path} has answers of several checkpoints, {sorted(ckpts)}; run eval.py '
                      'for one of them, with an --out of its own')
    return rows


def given_answers(task, questions, rows, n):
    """Return the answers to each question among rows of {"task_id", "completion"}: at least n."""
    answers = collections.defaultdict(list)
    for row in rows:
        if row.get('task', task) == task:
            answers[row['task_id']].append(row['completion'])
    for question in questions:
        task_id = question['task_id']
        if len(answers[task_id]) < n:
            raise Mistake(f'completions of {task_id}: {len(answers[task_id])}, but {n} are '
                          'needed; add them')
    return [answers[question['task_id']] for question in questions]


def rows_of(task, questions, texts, metadata):
    """Return the rows of samples.jsonl of several answers to each question, not yet judged.
    metadata: {'ckpt', 'step', 'chat'} of their model."""
    rows = []
    for question, several in zip(questions, texts):
        row = {key: question.get(key) for key in ('task_id', 'family', 'cell', 'split', 'prompt')}
        row |= {'task': task, 'messages': question['messages'] if metadata['chat'] else None,
                'kind': problems.KINDS.get(row['split'])}
        for text in several:
            rows.append(row | {'completion': text, 'outcome': 'ungraded', 'message': '',
                               'ckpt': metadata['ckpt'], 'step': metadata['step']})
            if question['tests']:       # is it a single line? DPO teaches it
                rows[-1]['preferred'] = problems.preferred(text)
    return rows


# --- verdicts -------------------------------------------------------------------------------------
def verdicts(questions, texts, chat, run, judge=''):
    """Yield the verdict on each of several texts that answer each question, in order: {'outcome',
    'message', 'why'}, and a judge's 'score'. chat: were the questions asked in a conversation?
    run: [(program, tests, entry point)] -> their results. judge: a command, see judged(). A Mistake
    in the end, if more than 2% could not be judged."""
    cases = [(question, text) for question, several in zip(questions, texts) for text in several]
    # A job is a program with its tests, or None, because answers in words and empty ones don't run.
    jobs = [job(*case, chat) for case in cases]
    results = iter(run([job for job in jobs if job])) if any(jobs) else None    # in their order
    lost = []
    for (question, text), is_run in zip(cases, jobs):
        if judge and not question['rules'] and not question['tests']:
            verdict = judged(judge, question, text)
        else:
            verdict = outcome(question, text, next(results) if is_run else None)
        yield verdict | {'why': why_failed(verdict)}
        lost += [verdict['message']] * (verdict['outcome'] == 'infrastructure')
    if len(lost) > len(cases) / 50:
        raise Mistake(f'no score: {len(lost)}/{len(cases)} could not be graded: {lost[-1]}')


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


def why_failed(verdict):
    """Return why an answer did not pass, such as `wrong value`; '' if it did, or has a grade."""
    if re.match(r'(Name|UnboundLocal)Error\b', verdict['message']):
        return 'name'       # it uses an unknown name, or defines another than it was asked for
    words = {'passed': '', 'judged': '', 'wrong': 'wrong value', 'exception': 'other exception',
             'timeout': 'time'}
    return words.get(verdict['outcome'], verdict['outcome'])


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


# --- does the harness work here? ------------------------------------------------------------------
def named(question):
    """Return the task_id of a question, or else how it begins."""
    return question.get('task_id', question['messages'][-1]['content'][:60])


def check(questions_of, run):
    """Return {task: questions} without the questions whose own solution fails, and what eval.json
    says of the harness: these questions, and whether walls stand around programs."""
    some = [question for question in sum(questions_of.values(), []) if question['tests']]
    if not some:
        return questions_of, {}
    if not run:
        raise Mistake('these tasks run programs that the model wrote; first read the top of '
                      'extras/sandbox.py, then add --allow_code_execution=True')
    left_out, confined = check_harness(some, run)
    harness = {'left_out': left_out, 'confined': confined}
    return {task: [question for question in questions if question['task_id'] not in left_out]
            for task, questions in questions_of.items()}, harness


def check_harness(questions, run):
    """Run answers to questions with tests that are known to be right or wrong. Return the task_ids
    whose own solution fails, at most one or 1%, and whether walls stand around them. run: a list
    of (program, tests, entry point) -> their results. ValueError if right and wrong programs are
    not told apart."""
    if all('cell' in question for question in questions):       # all pass: tests/test_problems.py
        questions = questions[::math.ceil(len(questions) / 20)]
    solved = [question for question in questions if question['solution']]
    empty = [trial(question, f'def {question["entry_point"] or "_"}(*args, **kwargs):\n    pass\n')
             for question in questions]
    right = [trial(question, question['solution']) for question in solved]
    loop, *results = run([('while True:\n    pass', 'assert True', ''), *empty, *right])

    for question, result in zip(questions, results):
        if result.outcome == 'passed':
            raise Mistake(f'no score: the tests of {named(question)!r} pass without an answer; '
                          'they must call it, or define check(candidate) next to an '
                          '"entry_point", the name of the function')
    left_out = []
    for question, job, result in zip(solved, right, results[len(questions):]):
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
    if not loop.confined:
        print('warning: programs have only limits here, no walls; see the top of extras/sandbox.py')
    return left_out, loop.confined


# --- code -----------------------------------------------------------------------------------------
# A line that opens a block: a fence, ```, ```` or ~~~, and what is in it. In front of it may be the
# mark of a list, or a sentence. A whole answer in ```markdown is no block, but those in it are.
OPENING = re.compile(r'^(?!.*[`~]{3}[ \t]*(?:markdown|md)\b)'
                     r'(?:([ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?:(`{3,})([^`\n]*)|(~{3,})(.*))'
                     r'|[^`\n]*(`{3,})[ \t]*([^`\s]*)[ \t]*)$', re.M)
# raw: its text; code: the same in column 0; defines, needs: names; error: why it is not Python
Block = collections.namedtuple('Block', 'name raw code defines needs error')


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
    code = '\n'.join(block.code for block in blocks if block in chosen)
    return on_top(code) if len(chosen) > 1 else code


def on_top(code):
    """Return a program that was put together: `from __future__` may stand only at its top."""
    pattern = r'(?m)^from __future__ import (?:\([^)]*\)|(?:.*\\\n)*.*)'
    return '\n'.join([*re.findall(pattern, code), re.sub(pattern, '', code)])


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
    return on_top(prompt[:max(0, prompt.rfind(f'def {name}'))] + code)
