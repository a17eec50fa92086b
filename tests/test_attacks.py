"""Programs that try to pass without solving, to break out or to stay, with and without the walls."""
import contextlib
import ctypes
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from accidents import PLACES, assigned
from conftest import ROOT, ok, read_json, run, write

from parts.eval import sandbox
from parts.eval.problems import problems
from parts.eval.sandbox import run_code, run_many

LINUX = pytest.mark.skipif(not os.path.exists('/proc/self/ns/pid'), reason='needs Linux')
NAMESPACES, LANDLOCK, SECCOMP = 'libc.unshare(', 'libc.syscall(446, rules, 0) == 0', "{'x86_64': "
REFUSALS = {NAMESPACES: 'bool(', LANDLOCK: 'False', SECCOMP: "{'none': "}


def without(path, *walls):
    """A copy of trial.py whose system refuses these walls."""
    text = pathlib.Path(sandbox.TRIAL).read_text(encoding='utf-8')
    for wall in walls:
        assert wall in text
        text = text.replace(wall, REFUSALS[wall])
    path.write_text(text, encoding='utf-8')
    return str(path)


@pytest.fixture(params=['walls', 'no walls'])
def walls(request, monkeypatch, tmp_path):
    """Whether there are those that this kernel allows."""
    if request.param == 'no walls':
        monkeypatch.setattr('.'.join(PLACES['trial']), without(tmp_path / 'trial.py', *REFUSALS))
    return request.param == 'walls'


# --- programs that want to pass -----------------------------------------------------------------------------
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
    'atexit': 'import atexit, os\natexit.register(os.write, 1, b\'["passed", ""]\')\nraise SystemExit',
    'frames':
        'import sys, gc\nf = sys._getframe()\nwhile f:\n'
        '    f.f_locals.clear() if f.f_back else 0\n    f = f.f_back\n'
        'for o in gc.get_objects():\n'
        '    if callable(o) and getattr(o, "__name__", "") == "end": o("passed")',
    'stop iteration': 'def add(a, b): raise StopIteration',
    'kill the group': 'import os\nos.kill(0, 9)',
    **{f'forge {reply}': 'import os\nfor fd in range(3, 256):\n'
       f'    try: os.write(fd, b\'{reply}\\n\' * 9)\n    except OSError: pass' for reply in (
           '["passed", ""]', '{"value": true}', '{"error": [["X", "ValueError"], 5]}',
           '{"error": [[5, "print"], ""]}', '{"value": {"list": 5}}', '[]')},
    "the judge's files":
        'import glob, re\npid = re.search("PPid:.(.*)", open("/proc/self/status").read())[1]\n'
        'for p in glob.glob(f"/proc/{pid}/fd/*") + [f"/proc/{pid}/mem", f"/proc/{pid}/fd/3"]:\n'
        '    try: open(p, "wb", 0).write(b\'["passed", ""]\'); print("opened")\n'
        '    except OSError: pass',
    # last: where no wall holds it, no other program runs afterwards
    'kill the judge': 'import os\nos.kill(os.getppid() or 1, 9)'}


def test_no_cheat_passes(walls):
    results = run_many([(WRONG + cheat, CHECK, 'add') for cheat in CHEATS.values()], timeout=2)
    for name, result in zip(CHEATS, results, strict=True):
        assert result.outcome in ('wrong', 'exception', 'exited', 'timeout'), (name, result)
        assert 'opened' not in result.stdout, (name, result)
        assert 'judge was killed' not in result.message or 'kill' in name, (name, result)


def test_what_a_program_raises_or_shadows_does_not_judge():
    for program, tests, outcome in (
            ('def f(x): raise StopIteration', 'assert all(map(lambda x: f(x) == 1, [1, 2]))', 'exception'),
            ('def abs(x): return 0\ndef f(): return 5\nround = isinstance = abs', 'assert abs(f() - 1) < 0.1',
             'wrong')):
        assert run_code(program, tests).outcome == outcome, program


# --- programs that want to stay, or to take all there is ----------------------------------------------------
LEFTOVERS = [
    'import os, time\nif os.fork() == 0:\n    os.setsid()\n'
    '    if os.fork() == 0: time.sleep(999)\n    os._exit(0)',
    'import os, time\nif os.fork() == 0: os.setsid(), time.sleep(999)\nwhile True: pass',
    'import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    'if os.fork() == 0: time.sleep(999)',
    'import os, time\nif os.fork() == 0: time.sleep(999)\nos._exit(0)']
BOMB = 'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass'


def processes(text):
    """Those whose command has this text."""
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if text in path.read_text(errors='replace'):
                yield path.parent.name


@LINUX
def test_no_process_is_left(walls, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))     # judges and programs have it as an argument
    list(run_many([(program,) for program in LEFTOVERS], timeout=0.5))
    if walls or not os.getuid():        # else the limit of processes would count those of the user
        run_code(BOMB, timeout=0.5)
    deadline = time.monotonic() + 5
    while left := list(processes(str(tmp_path))):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


BOUNDED = {
    'while True: print("x" * 1000)': False, 'open("big", "w").write("x" * (1 << 28))': False,
    'import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()': False,
    'import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)': True,
    'import os\nassert "SECRET" not in str(os.environ)': True,
    'import sys\nassert sys.stdin.read() == ""': True, 'import os\nassert not os.listdir()': True}


def test_resources_are_bounded(walls, monkeypatch):
    monkeypatch.setenv('SECRET', 'x')
    for (program, passes), result in zip(BOUNDED.items(), run_many([(p,) for p in BOUNDED], timeout=1)):
        assert (result.outcome == 'passed') == passes, (program, result)
        assert len(result.stdout) <= 64 << 10


# --- programs that look for the tests, the solutions and you ------------------------------------------------
READERS = ["""import glob, json, os, re, sys
for path in glob.glob('/proc/[0-9]*/cmdline'):          # of eval.py, too: --data=FILE
    try:
        for file in re.findall(r'--data=([^\\0]+)', open(path).read()):
            for line in open(file):
                exec(json.loads(line)['prompt'] + json.loads(line)['canonical_solution'])
    except OSError:
        pass""", f"""import sys
sys.path.insert(0, {str(ROOT)!r})
from parts.eval import problems
problem, = problems.problems(1, 0, 'variation')
exec((problem['prompt'] + problem['canonical_solution']).replace(problem['entry_point'], 'add'))
add = lambda a, b: 3 if a == 1 else 10""", *(f"""
add = lambda a, b: a + b if open({path!r}).read() else 0""" for path in (__file__, '/etc/passwd'))]
HONEST = """import ctypes, datetime, hashlib, os, random, socket, sqlite3, ssl, sys, tempfile, zoneinfo
tempfile.mkdtemp(), os.urandom(3), open('/dev/urandom', 'rb').read(3), open('here', 'w').write('x')
def add(a, b):
    import numpy
    return int(numpy.int64(a) + b)"""


@LINUX
@pytest.mark.parametrize('missing', [(), (NAMESPACES, LANDLOCK)], ids=['all walls', 'no wall'])
def test_nobody_reads_the_tests_or_solutions_where_the_result_says_so(missing, tmp_path, monkeypatch):
    """As root, if that is who runs this, and as an ordinary user."""
    data = write(tmp_path / 'data.jsonl', [{'prompt': 'def add(a, b):\n',
                                             'canonical_solution': '    return a + b'}])
    path = without(tmp_path / 'trial.py', *missing)
    monkeypatch.setattr('.'.join(PLACES['trial']), path)
    programs = [*READERS, HONEST]
    names_it = subprocess.Popen([sys.executable, '-c', 'input()', f'--data={data}'], stdin=subprocess.PIPE)
    ours = [vars(result) for result in run_many([(p, CHECK, 'add') for p in programs], timeout=9)]
    theirs = judged(programs, path, timeout=9, namespaces=9)
    names_it.communicate(b'\n')
    hidden = {results[-1]['reads_denied'] for results in (ours, theirs)}
    has_landlock = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0 and LANDLOCK not in missing
    assert len(hidden) == 1 and (True in hidden or not has_landlock)
    assert False in hidden or not missing
    for *cheats, honest in ours, theirs:
        assert honest['outcome'] == 'passed', honest
        for program, result in zip(READERS, cheats, strict=True):
            assert (result['outcome'] == 'passed') == (False in hidden), (program, result)


@LINUX
def test_a_score_of_programs_that_could_read_the_tests_says_so(tmp_path):
    item, = problems(1, 0, 'variation')
    data = write(tmp_path / 'data.jsonl', [item])
    cheat = (f'    return 0\nimport json\nfor line in open({str(data)!r}):\n'
             '    exec(json.loads(line)["prompt"] + json.loads(line)["canonical_solution"])')
    given = write(tmp_path / 'given.jsonl', [{'task_id': item['task_id'], 'completion': cheat}])
    for missing in (), (NAMESPACES, LANDLOCK):
        path = without(tmp_path / 'trial.py', *missing)
        said = ok(run('eval.py', '--tasks=humaneval', f'--data={data}', f'--completions={given}',
                      '--allow_code_execution=True', f'--out={tmp_path}/eval.json', '--timeout=9',
                      before=assigned('trial', str(path))))
        results = read_json(tmp_path / 'eval.json')
        could = not results['confined']['reads_denied']
        assert could or not missing
        assert results['tasks']['humaneval']['pass@1'] == int(could)
        assert (results['tasks']['humaneval'].get('caution') == 'programs could read the tests') == could
        assert ('caution: programs could read the tests' in said) == could


# --- what the result says of the walls holds ----------------------------------------------------------------
def test_the_network_is_denied_and_files_are_safe_where_the_result_says_so(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as server:
        program = f'import socket\nsocket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1)'
        result = run_code(program)
    assert result.outcome == ('exception' if result.network_denied else 'passed'), result

    (tmp_path / 'mine').write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    result = run_code(f'import shutil\nopen("here", "w").write("x")\nshutil.rmtree({str(tmp_path)!r})')
    assert (tmp_path / 'mine').exists() == result.writes_denied, result


SPECIAL = """import os, socket
for name in PATHS:
    try:
        os.write(os.open(name, os.O_WRONLY | os.O_NONBLOCK), b'EVIL')
        print('wrote to', name)
    except OSError: pass
for family in (socket.AF_VSOCK, socket.AF_UNIX, socket.AF_INET):
    try: print('has', socket.socket(family))
    except PermissionError: pass
open('mine', 'w').write('x'), open('/dev/null', 'w').write('x'), open('/dev/urandom', 'rb').read(9)
os.mkdir('a'), os.rename('mine', 'a/mine'), os.remove('a/mine'), socket.socketpair()
"""


@LINUX
@pytest.mark.parametrize('missing', [(), (NAMESPACES,)], ids=['all walls', 'no namespaces'])
def test_terminals_pipes_with_a_name_and_sockets_are_closed(missing, tmp_path, monkeypatch):
    """By Landlock and seccomp, or by a root that lacks them."""
    abi = ctypes.CDLL(None).syscall(444, None, 0, 1)
    if abi < 6 or os.uname().machine not in ('x86_64', 'aarch64'):
        pytest.skip('needs Landlock of Linux 6.12')
    monkeypatch.setattr('.'.join(PLACES['trial']), without(tmp_path / 'trial.py', *missing))
    ours, terminal = os.openpty()
    os.mkfifo(tmp_path / 'fifo')
    fifo = os.open(tmp_path / 'fifo', os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / 'file').write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    paths = [os.ttyname(terminal), f'{tmp_path}/fifo', f'{tmp_path}/file', '/dev/tty']
    result = run_code(SPECIAL.replace('PATHS', repr(paths)))
    for fd in ours, terminal, fifo:
        os.close(fd)
    assert (result.outcome, result.stdout) == ('passed', ''), result
    assert result.network_denied and result.writes_denied and result.processes_denied
    assert (tmp_path / 'file').read_text(encoding='utf-8') == 'kept'


@LINUX
def test_the_caller_can_be_read_again_when_no_program_runs():
    prctl = ctypes.CDLL(None).prctl
    before = prctl(3, 0, 0, 0, 0)
    first, second = sandbox.run_many([('pass',)] * 2), sandbox.run_many([('pass',)] * 2)
    next(first), next(second)
    list(first)                                         # calls that overlap
    assert prctl(3, 0, 0, 0, 0) == 0
    list(second)
    assert prctl(3, 0, 0, 0, 0) == before


# --- where a system refuses namespaces, no program forges a verdict or reads the caller ---------------------
# An ordinary user of a system that allows no namespaces: uid 1000, no capabilities.
REFUSED = """import ctypes, os, sys
uid, gid = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000) == 0:
    for path, text in (('self/setgroups', 'deny'), ('self/uid_map', f'1000 {uid} 1'),
                       ('self/gid_map', f'1000 {gid} 1'), ('sys/user/max_user_namespaces', '0')):
        with open(f'/proc/{path}', 'w') as f:
            f.write(text)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
CALLER = """import json, os, sys
sys.path.insert(0, ROOT)
from parts.eval import sandbox
sandbox.TRIAL = sys.argv[1]
os.environ['OPENAI_API_KEY'] = 'sk-secret'
programs = [program.replace('CALLER', str(os.getpid())) for program in json.load(sys.stdin)]
jobs = [(program, 'def check(f):\\n    assert f(1, 2) == 3', 'add') for program in programs]
print(json.dumps([vars(r) for r in sandbox.run_many(jobs, timeout=float(sys.argv[2]), processes=2)]))
""".replace('ROOT', repr(str(ROOT)))
# The processes from the caller down to the candidate's parent, and no other of the machine.
ABOVE = """import os, re, signal, time
def above():
    found, pid = [], os.getppid()
    while pid not in (0, 1):
        found.append(pid)
        if pid == CALLER:
            return found
        pid = int(re.search('PPid:.(.*)', open(f'/proc/{pid}/status').read())[1])
    return []
def everywhere(data):
    for pid in above():
        for fd in range(30):
            try:
                target = os.readlink(f'/proc/{pid}/fd/{fd}')
                if target.startswith('pipe:'):
                    with open(f'/proc/{pid}/fd/{fd}', 'wb', 0) as f:
                        f.write(data)
                    print('wrote to', pid, fd)
            except OSError:
                pass
"""
FORGED = 'everywhere(b\'["passed", ""]\\n\')\n'
ATTACKS = {
    'writes a verdict': FORGED,
    'writes a verdict, again and again': f'while True:\n    {FORGED}',
    'kills the judge': f'{FORGED}os.kill(os.getppid(), 9)\n{FORGED}',
    'stops the judge': f'os.kill(os.getppid(), signal.SIGSTOP)\n{FORGED}time.sleep(9)',
    'kills all but the caller': 'for pid in above():\n    if pid != CALLER:\n        os.kill(pid, 9)\n',
    'writes nonsense': 'everywhere(b\'[true, "x", {}]\\n\\n\\xff\\n["passed"]\\nSubprocessError:0:x\')',
    'reads the secrets':
        'for pid in above():\n    for name in "environ", "mem":\n        try:\n'
        '            f = open(f"/proc/{pid}/{name}", "rb" if name == "environ" else "r+b", 0)\n'
        '            print("opened", name, f.read(9999) if name == "environ" else "")\n'
        '        except OSError: pass\n'}


def judged(programs, path, timeout=1, namespaces=0):
    """The results of an ordinary user, who may have so many namespaces. path: of the trial.py to use."""
    user = REFUSED.replace("'0'", f"'{namespaces}'")
    command = [sys.executable, '-c', user, '-c', CALLER, path, str(timeout)]
    done = subprocess.run(command, input=json.dumps(programs), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@LINUX
@pytest.mark.parametrize('missing', [(LANDLOCK, SECCOMP), ()], ids=['no wall', 'Landlock and seccomp'])
def test_no_attack_becomes_a_verdict_a_secret_or_a_traceback(missing, tmp_path):
    failures = 'wrong', 'exception', 'exited', 'timeout', 'infrastructure'
    programs = [WRONG + ABOVE + attack for attack in ATTACKS.values()]
    for name, result in zip(ATTACKS, judged(programs, without(tmp_path / 'trial.py', *missing)), strict=True):
        assert result['outcome'] in failures, (name, result)
        for word in 'secret', 'opened', 'wrote':
            assert word not in result['stdout'], (name, result)
        stood = result['writes_denied'], result['network_denied'], result['processes_denied']
        assert not missing or not any(stood), (name, result)
