"""Programs that try to pass without solving, to break out or stay: each promise is attacked."""
import os
import pathlib
import time

import pytest

from parts.eval import sandbox
from parts.eval.sandbox import run_code

LINUX = pytest.mark.skipif(not os.path.exists('/proc/self/ns/pid'), reason='needs Linux')
WRONG = 'def add(a, b):\n    return a - b\n'
CHECK = 'def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10'
CHEATS = {
    'exit': 'import sys\nsys.exit(0)',
    'hard exit': 'import os\nos._exit(0)',
    'exit in call': 'def add(a, b):\n    raise SystemExit(0)',
    'hard exit in call': 'def add(a, b):\n    __import__("os")._exit(0)',
    'words': 'print("passed")\nprint(\'["passed", ""]\', flush=True)\nimport os\nos._exit(0)',
    'equal to all':
        'class E(int):\n    def __eq__(s, o): return True\n    __ne__ = lambda s, o: False\n'
        'def add(a, b): return E(0)',
    'equal object': 'class E:\n    def __eq__(s, o): return True\ndef add(a, b): return E()',
    'no errors':
        'import builtins\nbuiltins.AssertionError = type("E", (BaseException,), {})\n'
        'builtins.exec = print\nbuiltins.__dict__["print"] = lambda *a, **k: None',
    'own check':
        'def check(candidate): pass\nimport threading, time\ndef again():\n'
        '    while True: globals()["check"] = print\n'
        'threading.Thread(target=again, daemon=True).start()',
    'json': 'import json\njson.dumps = lambda x: \'{"value": 3}\'',
    'modules': 'import sys\nfor name in list(sys.modules): sys.modules[name] = None',
    'every file':
        'import os\nfor fd in range(3, 256):\n    try: os.write(fd, b\'["passed", ""]\\n\')\n'
        '    except OSError: pass',
    'atexit': 'import atexit, os\natexit.register(os.write, 1, b\'["passed", ""]\')\nraise SystemExit',
    'frames':
        'import sys, gc\nf = sys._getframe()\nwhile f:\n'
        '    f.f_locals.clear() if f.f_back else 0\n    f = f.f_back\n'
        'for o in gc.get_objects():\n'
        '    if callable(o) and getattr(o, "__name__", "") == "end": o("passed")',
    'stop iteration': 'def add(a, b): raise StopIteration',
    'kill the judge': 'import os\nos.kill(os.getppid() or 1, 9)',
    'kill the group': 'import os\nos.kill(0, 9)',
    'forge a reply':
        'import os\nfor fd in range(3, 256):\n'
        '    try: os.write(fd, b\'{"value": true}\\n\' * 9)\n    except OSError: pass',
    "the judge's files":
        'import glob, re\npid = re.search("PPid:.(.*)", open("/proc/self/status").read())[1]\n'
        'for p in glob.glob(f"/proc/{pid}/fd/*") + [f"/proc/{pid}/mem", f"/proc/{pid}/fd/3"]:\n'
        '    try: open(p, "wb", 0).write(b\'["passed", ""]\'); print("opened")\n'
        '    except OSError: pass'}

NAMESPACES, LANDLOCK, SECCOMP = 'libc.unshare(', 'libc.syscall(446, rules, 0) == 0', "{'x86_64': "


def without(path, *walls):
    """A copy of trial.py whose system refuses these walls."""
    text = pathlib.Path(sandbox.TRIAL).read_text(encoding='utf-8')
    for wall in walls:
        assert text.count(wall) == 1
        text = text.replace(wall, {NAMESPACES: 'bool(', LANDLOCK: 'False', SECCOMP: "{'none': "}[wall])
    path.write_text(text, encoding='utf-8')
    return str(path)


@pytest.fixture(params=['isolated', 'no namespaces'])
def both(request, monkeypatch, tmp_path):
    """With what this kernel allows, and as if it allowed nothing."""
    if request.param != 'isolated':
        monkeypatch.setattr(sandbox, 'TRIAL', without(tmp_path / 'trial.py', NAMESPACES, LANDLOCK, SECCOMP))
    return request.param == 'isolated'


@pytest.mark.parametrize('cheat', CHEATS)
def test_a_cheat_does_not_pass(cheat, both):
    result = run_code(WRONG + CHEATS[cheat], CHECK, 'add', timeout=1)
    assert result.outcome in ('wrong', 'exception', 'exited', 'timeout'), result
    assert 'opened' not in result.stdout


def test_stop_iteration_does_not_end_the_tests_early():
    program = 'def f(x): raise StopIteration'
    assert run_code(program, 'assert all(map(lambda x: f(x) == 1, [1, 2]))').outcome == 'exception'


def test_shadowed_builtins_do_not_judge():
    program = 'def abs(x): return 0\ndef f(): return 5\nround = isinstance = abs'
    assert run_code(program, 'assert abs(f() - 1) < 0.1').outcome == 'wrong'


@LINUX
@pytest.mark.parametrize('program', [
    'import os\nif os.fork() == 0:\n    os.setsid()\n'
    '    if os.fork() == 0: os.execlp("sleep", "sleep", "MARK")\n    os._exit(0)',
    'import subprocess\nsubprocess.Popen(["sleep", "MARK"], start_new_session=True)\nwhile True: pass',
    'import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    'if os.fork() == 0: os.execlp("sleep", "sleep", "MARK")',
    'import os\nif os.fork() == 0: os.execlp("sleep", "sleep", "MARK")\nos._exit(0)',
    'import os, subprocess\nwhile True:\n    try: os.fork()\n    except OSError: pass'], ids=range(5))
def test_no_process_is_left(program, both):
    before = set(children_of_anyone())
    mark = str(900_000 + os.getpid())
    if 'while True:\n    try' in program and not both and os.getuid():
        pytest.skip('the limit of processes would count those of the user')
    run_code(program.replace('MARK', mark), timeout=1)
    deadline = time.monotonic() + 5
    while left := [pid for pid, command in set(children_of_anyone()) - before
                   if mark in command or 'trial.py' in command]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def children_of_anyone():
    for p in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            yield p.name, (p / 'cmdline').read_text(errors='replace')
        except OSError:
            pass


@pytest.mark.parametrize('program, outcome', [
    ('while True: print("x" * 1000)', None), ('open("big", "w").write("x" * (1 << 28))', None),
    ('import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)', 'passed'),
    ('import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()', None),
    ('import os\nassert "SECRET" not in str(os.environ)', 'passed'),
    ('import sys\nassert sys.stdin.read() == ""', 'passed'),
    ('import os\nassert not os.listdir()', 'passed')])
def test_resources_are_bounded(program, outcome, both, monkeypatch):
    monkeypatch.setenv('SECRET', 'x')
    result = run_code(program, timeout=2)
    assert result.outcome == outcome or outcome is None and result.outcome != 'passed', result
    assert len(result.stdout) <= 64 << 10
