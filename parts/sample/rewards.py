"""
Rewards: what an answer earns, by tests, by a number or by the reward() of a FILE.py.

    reward_of({'answer': '4'}, 'It is 4', None, last_number, print)     # 1.0
    for task in tasks_of_file('mine.py', timeout=3.0, forgive=True):
        number, fault = task['reward']('an answer')     # (0.5, ''), or (0.0, 'reward(...): KeyError(...)')

Copy this file alone: it needs the standard library.
"""
import contextlib, faulthandler, functools, hashlib, os, pathlib, runpy, signal, sys, traceback


def reward_of(task, text, verdict, last_number, warn):
    """What a text earns as the answer to a task: by its 'answer', its 'reward' or its 'tests'; 0 if it has
    none of them. verdict: of a task with tests, the future result of the program. last_number(text): the
    number in it. warn(text): told why a reward counts as 0."""
    if 'answer' in task:
        return float(last_number(text) == last_number(task['answer']))
    if 'reward' in task:
        number, fault = task['reward'](text)
        if fault:
            warn(f'counted as 0: {fault}')
        return number
    if 'tests' not in task:
        return 0.0
    result = verdict.result()       # waits for the program
    if result.outcome == 'infrastructure':
        raise ValueError(f'no verdict on {task["messages"][-1]["content"]!r:.80}, by a fault of its tests or '
                         f'of the machine: {result.message}')
    return float(result.outcome == 'passed')


def tasks_of_file(path, timeout, forgive):
    """The tasks of a FILE.py. The file is executed here and may import files beside it. It defines
    prompts(), a list of texts or messages, and reward(prompt, completion), a number. 'code' is the hash of it
    and of what it imports beside it."""
    wanted = 'must define prompts(), a list, and reward(prompt, completion)'
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} does not exist; it {wanted}')
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.append(folder)             # for good: reward() may import, too
    before = {*sys.modules}
    try:
        module = runpy.run_path(path)
        missing = {'prompts', 'reward'} - module.keys()
        prompts = [] if missing else module['prompts']()
        if isinstance(prompts, str):
            raise TypeError('prompts() is a text')
        prompts = list(prompts)
    except (Exception, SystemExit) as e:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = lines[-1] if lines else getattr(e, 'lineno', None) or 1
        why = traceback.format_exception_only(e)[-1].strip()        # also if its __str__ raises
        raise ValueError(f'{path}, line {line}: {why}; it {wanted}') from e
    if missing or not all(isinstance(prompt, str | list) for prompt in prompts):
        raise ValueError(f'{path} {wanted}; ' + (f'it has no {missing}' if missing else
                                                 'each prompt is a text or messages'))
    new = [getattr(sys.modules[name], '__file__', None) or '' for name in sorted(sys.modules.keys() - before)]
    own = [file for file in new if file.startswith(folder + os.sep) and 'site-packages' not in file]
    code = hashlib.sha256(b'\n'.join(pathlib.Path(file).read_bytes() for file in (path, *own))).hexdigest()
    return [{'code': code,
             'messages': [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt,
             'reward': functools.partial(paid, module['reward'], prompt, timeout, forgive)}
            for prompt in prompts]


class TooLate(BaseException):
    """A reward's time is over. It is not an Exception: the reward may catch those."""


def paid(reward, prompt, timeout, forgive, text):
    """reward(prompt, text), a finite float, and ''. If it raises, returns something else, or takes longer
    than `timeout` seconds: ValueError, or with forgive 0.0 and why. Windows has no alarm, and no alarm is
    heard inside a C function such as sum(range(10**12)). So after ten times as long, the process ends with
    exit code 1 and the line of the reward that hangs."""
    def too_late(*_):
        raise TooLate(f'no reward after {timeout} s')

    faulthandler.dump_traceback_later(10 * timeout, exit=True, file=sys.__stderr__)
    has_alarm = hasattr(signal, 'SIGALRM')
    if has_alarm:
        before = signal.signal(signal.SIGALRM, too_late)
        signal.setitimer(signal.ITIMER_REAL, timeout, timeout)      # a bare `except:` may swallow the first
    try:
        number = float(reward(prompt, text))
        if abs(number) <= 1e12:     # nor nan; the squares of much larger ones are no float32
            return number, ''
        why = f'returned {number}'
    except KeyboardInterrupt:
        raise
    except BaseException as e:          # SystemExit and TooLate, too
        why = type(e).__name__
        with contextlib.suppress(BaseException):        # its __repr__ may raise
            why = repr(e)               # one line that can be printed, whatever its text is
    finally:
        faulthandler.cancel_dump_traceback_later()
        if has_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    why = f'reward({prompt!r:.80}, {text!r:.80}): {why}'
    if not forgive:
        raise ValueError(f'{why}; it must return a number up to 1e12; --bad_reward=zero counts others as 0')
    return 0.0, why
