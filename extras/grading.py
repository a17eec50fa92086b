"""
How good are answers to questions of questions.py? Tests run their programs, or a rule decides.
eval.py, rl.py and the server take their verdicts from here: job() is what has to run of an answer,
and outcome() the verdict. code_in('So:\\n```python\\nx = 1\\n```') is 'x = 1\\n'.
"""
import collections, math, re, textwrap
from configurator import require
from extras import problems
from extras.questions import broken_rules, names_in


# --- answers --------------------------------------------------------------------------------------
def given_answers(task, questions, rows, n):
    """Return the answers to each question among rows of {"task_id", "completion"}: at least n."""
    answers = collections.defaultdict(list)
    for row in rows:
        if row.get('task', task) == task:
            answers[row['task_id']].append(row['completion'])
    for task_id in [question['task_id'] for question in questions]:
        require(len(answers[task_id]) >= n, f'completions of {task_id}: {len(answers[task_id])}, '
                f'but {n} are needed; add them')
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
            if question.get('tests'):       # is it a single line? DPO teaches it
                rows[-1]['preferred'] = problems.preferred(text)
    return rows


# --- verdicts -------------------------------------------------------------------------------------
WHY = {'passed': '', 'wrong': 'wrong value', 'exception': 'other exception', 'timeout': 'time'}


def verdicts(questions, texts, chat, run):
    """Yield the verdict on each of several texts that answer each question, in order: {'outcome',
    'message', 'why'}. chat: were the questions asked in a conversation? run: [(program, tests,
    entry point)] -> their results. A Mistake in the end, if more than 2% could not be judged."""
    cases = [(question, text) for question, several in zip(questions, texts) for text in several]
    # A job is a program with its tests, or None, because answers in words and empty ones don't run.
    jobs = [job(*case, chat) for case in cases]
    results = iter(run([job for job in jobs if job])) if any(jobs) else None    # in their order
    lost = []
    for case, is_run in zip(cases, jobs):
        verdict = outcome(*case, next(results) if is_run else None)
        why = WHY.get(verdict['outcome'], verdict['outcome'])
        # name: it uses an unknown name, or defines another than it was asked for
        is_name = re.match(r'(Name|UnboundLocal)Error\b', verdict['message'])
        yield verdict | {'why': 'name' if is_name else why}
        lost += [verdict['message']] * (verdict['outcome'] == 'infrastructure')
    require(len(lost) <= len(cases) / 50,
            f'no score: {len(lost)}/{len(cases)} could not be graded: {lost[-1:]}')


def final(text):
    """Return an answer without the thinking before </think>, which may be cut off."""
    return re.sub(r'(?s)^.*</think>|^\s*<think>.*', '', text)


def job(question, text, chat):
    """Return what has to run to grade an answer, (program, tests, entry point), or None."""
    if question['tests'] and final(text).strip() and not broken_rules(
            question['rules'], final(text)):
        return program(question, text, chat), question['tests'], question['entry_point']
    return None


def outcome(question, text, result=None):
    """Return the outcome of an answer and its reason. result: the sandbox's, of its job()."""
    if not final(text).strip():
        return {'outcome': 'empty', 'message': ''}
    if result:
        return {'outcome': result.outcome, 'message': result.message}
    broken = broken_rules(question['rules'], final(text))
    return {'outcome': 'wrong' if broken else 'passed', 'message': ', '.join(broken)}


# --- does the harness work here? ------------------------------------------------------------------
def check_harness(questions, run):
    """Run answers to questions with tests that are known to be right or wrong. Return {'left_out':
    the task_ids whose own solution fails, at most one or 1%, 'confined': whether walls stand around
    programs}. run: [(program, tests, entry point)] -> their results. A Mistake if nothing may run,
    or if right and wrong programs are not told apart."""
    questions = [question for question in questions if question['tests']]
    if not questions:
        return {'left_out': []}
    require(run, 'these tests run programs that the model wrote; first read the top of '
            'extras/sandbox.py, then add --allow_code_execution=True')
    if all('cell' in question for question in questions):       # all pass: tests/test_problems.py
        questions = questions[::math.ceil(len(questions) / 20)]
    named = lambda question: question.get('task_id', question['messages'][-1]['content'][:60])
    trial = lambda question, text: (text, question['tests'], question['entry_point'])
    solved = [question for question in questions if question['solution']]
    empty = [trial(question, f'def {question["entry_point"] or "_"}(*args, **kwargs):\n    pass\n')
             for question in questions]
    right = [trial(question, question['solution']) for question in solved]
    loop, *results = run([('while True:\n    pass', 'assert True', ''), *empty, *right])

    for question, result in zip(questions, results):
        require(result.outcome != 'passed', f'no score: the tests of {named(question)!r} pass '
                'without an answer; they must call it, or define check(candidate) next to an '
                '"entry_point", the name of the function')
    left_out = []
    for question, job, result in zip(solved, right, results[len(questions):]):
        # A solution that fails runs once more, alone, because a busy machine is slow.
        if result.outcome != 'passed' and [*run([job])][0].outcome != 'passed':
            left_out.append(named(question))
    may_fail = max(1, len(right) / 100) if len(right) > 1 else 0
    require(len(left_out) <= may_fail and loop.outcome == 'timeout', 'no score: the test harness '
            f'is broken. {len(left_out)} of {len(right)} known solutions fail {left_out[:3]}, and '
            f'an endless loop ends as {loop.outcome!r}; fix the tests, or see: python -m pytest '
            'tests/test_sandbox.py')
    if left_out:
        print('problems whose own solutions fail:', *left_out)
    if not loop.confined:
        print('warning: programs have only limits here, no walls; see the top of extras/sandbox.py')
    return {'left_out': left_out, 'confined': loop.confined}


# --- code -----------------------------------------------------------------------------------------
# A line with a fence: what stands before it (a list's mark, a sentence), ``` or ~~~, and a name.
FENCE = re.compile(r'([^`~]*)(`{3,}|~{3,}) *([^`]*)')


def blocks_in(text):
    """Return the code blocks of an answer. A fence with a name begins one, even in another, which
    is then no code, such as a whole answer in ```markdown. A lone fence ends it, or begins one."""
    blocks, fence = [], ''          # fence: of the block that is open
    for line in text.replace('\r\n', '\n').splitlines(keepends=True):
        found = FENCE.fullmatch(line.rstrip())
        if found and found[3] or found and not fence:
            fence = found[2]
            blocks.append('')
        elif found and found[2].startswith(fence) and not found[1].strip():
            fence = ''
        elif fence:
            blocks[-1] += line
    return blocks


def code_in(text, wanted=()):
    """Return the code of an answer in words: of each name that is wanted, the last block that
    defines it, with the blocks that define what this one needs. If none does, it is the last block
    that is Python, or the last one. Without blocks it is all of the text."""
    text = final(text)
    blocks = [textwrap.dedent(block) for block in blocks_in(text)]
    if not blocks or not names_in(text)[2]:     # Python may have a fence, too, in a docstring
        return text
    found = [names_in(block) for block in blocks]
    chosen, names = set(), [*wanted]
    for name in names:          # the list grows
        defining = [i for i, (defines, _, _) in enumerate(found) if name in defines]
        if defining and not chosen & {*defining}:
            chosen.add(defining[-1])
            names += sorted(found[defining[-1]][1])
    if not chosen:
        python = [i for i, (_, _, error) in enumerate(found) if not error and blocks[i].strip()]
        chosen = {(python or [-1])[-1] % len(blocks)}
    return '\n'.join(blocks[i] for i in sorted(chosen))


def program(question, text, chat):
    """Return what to run: the prompt and its completion; in a chat, or where these are no Python,
    for example because the prompt is prose, the code of the answer, and above it what stands above
    the function that had to be completed."""
    prompt, name, text = question['prompt'], question['entry_point'], final(text)
    if not chat and not names_in(prompt + text)[2]:
        return prompt + text
    code = code_in(text, [name, *sorted(names_in(question.get('tests', ''))[1])])
    if 'test' not in question:
        return code
    if name not in names_in(code)[0]:       # perhaps the answer is the body of the function
        for body in text, *reversed(blocks_in(text)):
            if re.match(r'\n*[ \t]', body) and not names_in(prompt + body)[2]:
                return prompt + body
        if not chat and code == text:
            return prompt + text
    return prompt[:max(0, prompt.rfind(f'def {name}'))] + code
