"""The sandbox: what programs return means to the tests what it means in Python; each outcome is told; and
none passes without solving, reads, breaks out or stays, with and without the walls of the system."""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from attacks import (ANYTHING, ATTACKS, BOMB, CALLS, CHECK, EXPECTED, FINE, HELP, HONEST, LEFTOVERS,
                     MANY, NUMBERS, OUTSIDE, PROGRAMS, STAY, UNBOUNDED, WRONG, sections)
from conftest import ROOT, read_rows, write

from extras.sandbox import run_code, run_many

LINUX = pytest.mark.skipif(not os.path.exists('/proc/self/ns/pid'), reason='needs Linux')
HAS_FILTER = os.uname().machine in ('x86_64', 'aarch64')        # of system calls
HAS_LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) >= 6          # of Linux 6.12
NAMESPACES, LANDLOCK = 'libc.unshare(', 'libc.syscall(446, rules, 0) == 0'
SECCOMP = 'libc.prctl(22, 2, program, 0, 0) == 0'
REFUSALS = {NAMESPACES: 'bool(', LANDLOCK: 'False', SECCOMP: 'False'}
LIST = "/children'"         # a file of /proc that not every Linux has
# The namespaces of an ordinary user (None: of who runs this, perhaps root), and what the system refuses.
MODES = {'all walls': (None, ()), 'a user': (9, ()), 'a user without namespaces': (0, ()),
         'without namespaces': (None, (NAMESPACES,)),
         'a user without walls': (0, (LANDLOCK, SECCOMP)), 'no walls': (None, (*REFUSALS,)),
         'no list of children': (None, (NAMESPACES, LIST))}


def test_right_programs_pass_and_wrong_ones_have_a_wrong_value():
    jobs = []
    for name, part in PROGRAMS:
        program, change, tests = re.split('\n--- (.*)\n', part)
        before, after = change.split(' => ')
        assert before in program, name
        jobs += [(program, tests, 'f'), (program.replace(before, after), tests, 'f')]
    for i, result in enumerate(run_many(jobs, timeout=10)):
        assert result.outcome == ('passed', 'wrong')[i % 2], (PROGRAMS[i // 2][0], result)


# --- outcomes -------------------------------------------------------------------------------------
# The outcome and a part of its message, a program, and its tests behind ---.
OUTCOMES = r"""
=== passed
def add(a, b): return a + b
---
assert add(1, 2) == 3
=== wrong: assert add(1, 2) == 4
def add(a, b): return a + b
---
assert add(1, 2) == 4
=== wrong: AssertionError: sum
def add(a, b): return a + b
---
assert add(1, 2) == 4, "sum"
=== passed
class A: x = 1
---
a = A()
a.x = 2
del a.x
assert a.x == 1
=== infrastructure: SyntaxError
def add(a, b): return a + b
---
assert (
=== infrastructure: is not plain data
def add(a, b): return a + b
---
import re
add(1, re.compile("a"))
=== infrastructure: not plain data
def f(x): return x
---
import numpy
f(numpy.ones(2))
=== exception: ZeroDivisionError: division by zero
1 / 0
---
=== passed
assert __name__ == "__main__"
---
=== wrong: AssertionError
assert __name__ == "__main__"
---
pass
=== syntax: SyntaxError
def f(:
---
=== timeout: not done in 8 s
while True: pass
---
=== memory
x = bytearray(10 << 30)
---
=== exception: RecursionError
def f(n): return f(n + 1)
---
f(0)
=== exited
import os
os._exit(0)
---
pass
=== exited
import ctypes
ctypes.string_at(0)
---
pass
=== exception: EOFError
input()
---
=== exception: E
class E(Exception):
    def __str__(self): raise ValueError
def f(): raise E
---
f()
=== wrong
def abs(x): return 0
def f(): return 5
round = isinstance = abs
---
assert abs(f() - 1) < 0.1
=== passed
import re
def f(s): return re.match("a", s)
---
assert f("a") and not f("b")
=== passed
def bisect(x): return x + 1         # the name of a module
---
assert bisect(1) == 2
=== passed
import math
def f(): return 0.1 + 0.2
---
assert math.isclose(f(), 0.3)
=== passed
def f(g):           # a function of the tests can be called and stays closed
    for name in '__globals__', '__code__', '__closure__', '__self__', 'gi_frame':
        for operation, *more in (('getattr', name), ('special', '__getattribute__', name), ('plain',),
                                 ('run', name)):
            try: return type(g)._end.ask(operation, g, *more)
            except (AttributeError, KeyError): pass
    return g(1)
---
secret = 5
assert f(lambda x: x + 1) == 2
=== exited
def f(g):           # puts an object of its own in the place of one that the tests handed out
    end = type(g)._end
    number = end.tags[id(g)]['known']
    end.new.append({'list': [number]})
---
f(lambda: 1)
=== exception: property
def f(a): return type(a).p          # asks for what cannot cross, to get out of its verdict
---
class A:
    p = property(len)
assert f(A()) == 1
=== exception: TypeError
class E:            # NumPy would hand what the tests expect to these, and take what they return
    def __array_function__(self, *_): return True
    __array_ufunc__ = __torch_function__ = __array_function__
    def all(self): return True
def f(): return E()
---
import numpy as np
assert np.allclose(f(), [2, 4])
=== wrong
class E:
    def __array_function__(self, *_): return True
def f(): return E()
---
import numpy as np
assert np.array_equal(f(), [2])
=== wrong
class E:
    def __array_ufunc__(self, *_): return self
    def all(self): return True
def f(): return E()
---
import numpy as np
assert (np.array([2, 4]) == f()).all()
=== passed
def f(): return x           # to write millions of digits takes longer than a trial may
x = 1 << 9_000_000
---
assert f() == 1 << 9_000_000
=== wrong
def f(): return x
x = 1 << 9_000_000
---
assert f() == 1, f()
=== exited
import os
def f():
    for fd in range(3, 99):
        try: os.write(fd, b'["returned", [' + b'7' * 3_000_000 + b'], [], []]\n')
        except OSError: pass
---
f()
"""


def test_each_outcome_is_told_with_its_reason():
    cases = sections(OUTCOMES)
    cases += [('syntax', text) for text in ('x = "\ud800"', '(' * 9999, 'x = ' + '7' * 3_000_000)]
    jobs = [part.split('\n---') for _, part in cases]
    for (title, _), job, result in zip(cases, jobs, run_many(jobs, timeout=8), strict=True):
        outcome, _, words = title.partition(': ')
        assert result.outcome == outcome and words in result.message, (job, result)
    big = 'def f(): return "x" * (130 << 20)'       # for the judge, or the program that packs it
    assert run_code(big, 'assert f() == "x"', timeout=20, memory_mb=256).outcome == 'memory'


def test_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for program in ('open("a", "w").write("b")', 'while True: pass', 'def f(:',
                    'import os\nos.mkdir("a")\nos.chmod("a", 0)', 'import os\nos.rmdir(os.getcwd())',
                    'import os\nfor _ in range(3000): os.mkdir("a"), os.chdir("a")\nos.chmod(".", 0)'):
        run_code(program, timeout=0.5)
        assert not list(tmp_path.iterdir()), program


# --- what crosses between a program and its tests -------------------------------------------------
def test_no_object_of_a_program_decides_what_the_tests_expect():
    for base in '', 'int', 'list', 'str', 'tuple', 'ValueError':
        jobs = [(ANYTHING.replace('BASE', base), test) for test in EXPECTED.splitlines()]
        for (_, test), result in zip(jobs, run_many(jobs, timeout=10), strict=True):
            assert result.outcome in ('wrong', 'exception'), (base, test, result)


# --- what cannot be judged, and what would take too long ----------------------------------------------------
def test_what_cannot_cross_is_said_and_is_no_wrong_value():
    money = """class Money:
    def __init__(self, *n): self.n = n
    def __eq__(self, other): return other == 5
    def __mul__(self, k): return Money(*self.n * k)
    __rmul__ = __add__ = __contains__ = __mul__
class L(list): pass
def g(): yield 1
"""
    cases = r"""class More(Money): pass => infrastructure: derive More
import pickle; pickle.dumps(Money()) => infrastructure: pickle
import copy; copy.copy(Money()) => infrastructure: copy
import copy; copy.deepcopy([Money()]) => infrastructure: copy
import re; Money(re.compile("a")) => infrastructure: not plain data
i = g(); next(i); try: i.send(1); except StopIteration: pass => exception: StopIteration
assert (Money(1) * 3).n => exception: compare two of its objects
assert (3 * Money(1)).n => exception: compare two of its objects
assert (Money(1) + 4).n => exception: compare two of its objects
assert 4 in Money(4) => exception: compare two of its objects
assert L([1]) + [2] == [1, 2] => exception: compare two of its objects
assert Money() == 5 => exception: compare two of its objects"""
    for case in cases.splitlines():
        tests, outcome = case.split(' => ')
        result = run_code(money, tests.replace('; ', '\n'))
        assert f'{result.outcome}: ' in outcome and outcome.split(': ')[1] in result.message, (tests, result)


# --- attacks --------------------------------------------------------------------------------------
# An ordinary user, who may have so many namespaces: uid 1000, no capabilities.
USER = """import ctypes, os, sys
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000) == 0:
    for path, text in (('self/setgroups', 'deny'), ('self/uid_map', f'1000 {uid} 1'),
                       ('self/gid_map', f'1000 {gid} 1'), ('sys/user/max_user_namespaces', 'MOST')):
        with open(f'/proc/{path}', 'w') as f:
            f.write(text)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# Each group of jobs has a process of its own, all of them at once. There is a key that they all know.
CALLER = NUMBERS + """import ctypes, json, os, sys
libc = ctypes.CDLL(None)
libc.syscall(KEYCTL, 1, None), libc.syscall(ADD_KEY, b'user', b'nanoparrot', b'secret', 6, -3)
root, trial, timeout, _ = sys.argv[1:]      # the last one is the file of the questions
sys.path.insert(0, root)
from extras import sandbox
sandbox.TRIAL = trial
os.environ['OPENAI_API_KEY'] = 'sk-secret'
pipes = []
for group in json.load(sys.stdin):
    reading, writing = os.pipe()
    if os.fork() == 0:
        jobs = [(program.replace('CALLER', str(os.getpid())), *tests) for program, *tests in group]
        with open(writing, 'w') as f:
            json.dump([vars(r) for r in sandbox.run_many(jobs, float(timeout), 512, 2)], f)
        sys.exit()
    os.close(writing)
    pipes.append(reading)
print(json.dumps([result for pipe in pipes for result in json.load(open(pipe))]))
"""


def without(folder, walls):
    """A copy of trial.py in this folder, with what it imports beside it, whose system refuses these
    walls."""
    folder.chmod(0o777)
    found = set()
    for name in 'crossing.py', 'sandbox.py', 'trial.py':
        text = (ROOT / 'extras' / name).read_text(encoding='utf-8')
        for wall in walls:
            found |= {wall} if wall in text else set()
            text = text.replace(wall, REFUSALS.get(wall, "/none'"))
        (folder / name).write_text(text, encoding='utf-8')
    assert found == {*walls}
    return f'{folder}/trial.py'


def judged(groups, folder, namespaces=None, missing=(), timeout=1):
    """The results of all jobs, which leave no process. namespaces: see MODES."""
    trial = without(folder, missing)
    user = [] if namespaces is None else ['-c', USER.replace('MOST', str(namespaces))]
    command = [sys.executable, *user, '-c', CALLER, ROOT, trial, str(timeout),
               f'--data={folder}/data.jsonl']
    done = subprocess.run(command, input=json.dumps(groups), capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    wait_for(lambda: is_gone(trial))
    return json.loads(done.stdout)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(trial):
    """Whether no process runs this file."""
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if trial in path.read_text(errors='replace'):
                return False
    return True


@LINUX
@pytest.mark.parametrize('mode', [mode for mode in MODES if mode != 'no list of children'])
def test_no_attack_passes_reads_or_breaks_what_is_yours(mode, tmp_path):
    namespaces, missing = MODES[mode]
    write(tmp_path / 'data.jsonl', [{'prompt': 'def add(a, b):\n',
                                     'canonical_solution': '    return a + b'}])
    mine = write(tmp_path / 'mine', ['kept'])
    names = sorted(ATTACKS, key=lambda name: not name.startswith('kill'))
    jobs = [[(WRONG + HELP + ATTACKS[name]).replace('MINE', str(tmp_path)), CHECK, 'add']
            for name in names]
    groups = [[job] for name, job in zip(names, jobs) if name.startswith('kill')]
    groups.append(jobs[len(groups):])
    results = judged(groups, tmp_path, namespaces, missing, timeout=3)
    for name, result in zip(names, results, strict=True):
        if name.startswith('steals') and not result['reads_denied']:
            assert result['outcome'] == 'passed', (name, result)
        else:
            bad = 'wrong', 'exception', 'exited', 'timeout', 'memory'
            assert result['outcome'] in bad, (name, result)
        assert 'opened' not in result['stdout'] and 'secret' not in result['stdout'], (name, result)
        assert 'judge was killed' not in result['message'] or 'kill' in name, (name, result)
        if HAS_LANDLOCK:
            walls = {value for key, value in result.items() if key.endswith('denied')}
            assert walls == {len(missing) < 2}, (name, result)
    assert read_rows(mine) == ['kept']


@LINUX
def test_no_program_runs_after_one_that_killed_what_forks_its_judge(tmp_path):
    """Where no wall held it, it may be alive, and could take over another such process as it starts."""
    kill = [HELP + ATTACKS['kill all but the caller'], CHECK, 'add']
    jobs = [kill, ['import time\ntime.sleep(2)'], ['pass']]     # the second keeps a thread busy
    killer, _, after = judged([jobs], tmp_path, missing=REFUSALS)
    assert killer['outcome'] == 'exited' and after['outcome'] == 'infrastructure', (killer, after)


@LINUX
@pytest.mark.parametrize('mode', ['all walls', 'a user without namespaces', 'no walls',
                                  'no list of children'])
def test_no_process_is_left_and_resources_are_bounded(mode, tmp_path):
    namespaces, missing = MODES[mode]
    leftovers = LEFTOVERS[:-3 if LIST in missing else None]         # without those of a judge
    jobs = [*leftovers, *[(program,) for program in FINE + UNBOUNDED]]
    # Else the limit of processes would count those of the user, or not bind root, who plays a user.
    if namespaces is None and (not missing or not os.getuid()):
        jobs.append((BOMB,))
    results = judged([jobs], tmp_path, namespaces, missing)[len(leftovers):]
    for program, result in zip(FINE + UNBOUNDED, results):
        assert (result['outcome'] == 'passed') == (program in FINE), (program, result)
        assert len(result['stdout']) <= 64 << 10


# What calls the sandbox, again and again if other programs of this user have just reached the limit
# of processes.
CALLS_AGAIN = """import signal, sys
root, trial, program = sys.argv[1:]
sys.path.insert(0, root)
from extras import sandbox
signal.signal(signal.SIGINT, signal.default_int_handler)
sandbox.TRIAL = trial
while True:
    sandbox.run_code(program, timeout=60)"""


@LINUX
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_caller_ends(how, tmp_path):
    """Nor does it wait for the programs, which could take minutes."""
    trial = without(tmp_path, REFUSALS)
    up = tmp_path / 'up'
    program = f'{STAY}open({str(up)!r}, "w"), time.sleep(60)'
    process = subprocess.Popen([sys.executable, '-c', CALLS_AGAIN, ROOT, trial, program],
                               stderr=subprocess.DEVNULL)
    wait_for(up.exists)
    process.send_signal(how)
    process.wait(8)
    wait_for(lambda: is_gone(trial))


# --- what the result says of the walls holds ------------------------------------------------------
@LINUX
@pytest.mark.parametrize('mode', [*MODES][:4])
@pytest.mark.skipif(not HAS_FILTER, reason='there is no filter of system calls for this machine')
def test_what_is_not_of_the_program_is_closed_to_it(mode, tmp_path):
    """Files, sockets, and what processes of a user share. So is becoming root again, and
    memory that no limit counts. What honest programs do is open."""
    namespaces, missing = MODES[mode]
    mine = write(tmp_path / 'mine', ['kept'])
    ours, terminal = os.openpty()
    with subprocess.Popen(['sleep', '60']) as victim:
        program = CALLS.replace('VICTIM', str(victim.pid))
        if HAS_LANDLOCK:
            program = OUTSIDE.replace('PATH', repr(str(mine))) + program
            program = program.replace('TERMINAL', repr(os.ttyname(terminal)))
        if namespaces is None:          # see BOMB
            program += MANY
        # one after the other: without namespaces, MANY leaves an honest fork no room
        (result,), (honest,) = (judged([[job]], tmp_path, namespaces, missing, timeout=20)
                                for job in ((program,), (HELP + HONEST, CHECK, 'add')))
        victim.kill()
    os.close(terminal)
    os.close(ours)
    assert (result['outcome'], result['stdout']) == ('passed', ''), result
    assert honest['outcome'] == 'passed', honest
    assert read_rows(mine) == ['kept']


@LINUX
@pytest.mark.parametrize('missing, walls', [
    ([SECCOMP], ''), ([NAMESPACES, SECCOMP], ''), ([LANDLOCK], 'network processes'),
    ([NAMESPACES, LANDLOCK], 'network')])
def test_a_wall_is_reported_only_with_all_that_it_needs(missing, walls, tmp_path):
    """Without the filter, a service that a program asks can read, write and kill for it."""
    result, = judged([[('pass',)]], tmp_path, missing=missing)
    reported = {name.removesuffix('_denied') for name, value in result.items() if value is True}
    assert result['outcome'] == 'passed' and reported <= {*walls.split()}, result
    if HAS_FILTER and NAMESPACES in missing:
        assert reported == {*walls.split()}, result
