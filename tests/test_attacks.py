"""Programs that try to pass without solving, to read, to break out or to stay, with and without the walls."""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, write

from extras import sandbox

LINUX = pytest.mark.skipif(not os.path.exists('/proc/self/ns/pid'), reason='needs Linux')
NAMESPACES, LANDLOCK = 'libc.unshare(', 'libc.syscall(446, rules, 0) == 0'
SECCOMP = 'libc.prctl(22, 2, program, 0, 0) == 0'
REFUSALS = {NAMESPACES: 'bool(', LANDLOCK: 'False', SECCOMP: 'False'}
LIST = "/children'"         # a file of /proc that not every Linux has
# The namespaces of an ordinary user (None: of who runs this, perhaps root), and what the system refuses.
MODES = [(None, ()), (9, ()), (0, ()), (None, (NAMESPACES,))]
MODE_NAMES = ['all walls', 'a user', 'a user without namespaces', 'without namespaces']

# --- programs that want to pass: each follows WRONG and HELP, and is judged by CHECK ------------------------
WRONG = 'def add(a, b):\n    return a - b\n'
CHECK = """def check(candidate):
    assert all(map(lambda x: candidate(x, x) == 2 * x, (1, 2))), [candidate(x, 5) for x in (5, 5)]
    import colorsys
    assert candidate(1, 2) == 3 and candidate(5, 5) == 10"""
# above: the processes from the judge up to the caller, and no other of the machine; without /proc only the
# judge. look(): what a program does that has found the tests.
HELP = """import ctypes, os, re, resource, signal, sys, time
libc = ctypes.CDLL(None)
above = [os.getppid()]
while above[-1] not in (0, 1, CALLER):
    try: above.append(int(re.search('PPid:.(.*)', open(f'/proc/{above[-1]}/status').read())[1]))
    except OSError: break
above = [pid for pid in above if pid > 1]
judges = [pid for pid in above if pid != CALLER]
def write(data):
    for name in (f'/proc/{pid}/fd/{fd}' for pid in above for fd in range(30)):
        try:
            if re.match('pipe|socket', os.readlink(name)):
                print('opened', name)
                open(name, 'wb', 0).write(data)
        except OSError: pass
def look(text):
    global add
    if re.search(b'candidate[(]5, 5[)]', text): add = lambda a, b: a + b
def steal(path):
    global add
    if open(path).read(): add = lambda a, b: a + b
"""
REPLIES = ['["passed", ""]', '[true, true, true, true, "passed", ""]', '{"value": true}', '[]',
           '{"tuple": 5}', '["X", "ValueError", 5]', '[5, "print", ""]', '["X", "SystemExit", ""]',
           '["X", "object", ""]', '{"object": []}', '[' * 9999]
FORGE = 'write(b\'["passed", ""]\\n[true, true, true, true, "passed", ""]\\n\')\n'
ATTACKS = {
    # by what it is
    'exit': 'sys.exit(0)', 'hard exit': 'os._exit(0)',
    'exit in call': 'def add(a, b): sys.exit(0)', 'hard exit in call': 'def add(a, b): os._exit(0)',
    'stop iteration': 'def add(a, b): raise StopIteration',
    'generator exit': 'def add(a, b): raise GeneratorExit',
    'equal to all': 'class E(int):\n    def __eq__(s, o): return True\n    __ne__ = lambda s, o: False\n'
                    'def add(a, b): return E(0)',
    'equal object': 'class E:\n    def __eq__(s, o): return True\ndef add(a, b): return E()',
    # by what it does to Python
    'no errors': 'import builtins\nbuiltins.AssertionError = type("E", (BaseException,), {})\n'
                 'builtins.exec = print\nbuiltins.__dict__["print"] = lambda *a, **k: None',
    'own check': 'def check(candidate): pass\nimport threading\ndef again():\n'
                 '    while True: globals()["check"] = print\n'
                 'threading.Thread(target=again, daemon=True).start()',
    'json': 'import json\njson.dumps = lambda x: \'[3]\'',
    'modules': 'for name in list(sys.modules): sys.modules[name] = None',
    'frames': 'import gc\nf = sys._getframe()\nwhile f:\n'
              '    f.f_locals.clear() if f.f_back else 0\n    f = f.f_back\n'
              'for o in gc.get_objects():\n'
              '    if callable(o) and getattr(o, "__name__", "") == "end": o("passed")',
    'planted modules': '''for folder in {".", os.environ["HOME"], os.environ["TMPDIR"]}:
    open(f"{folder}/colorsys.py", "w").write("""import sys
f = sys._getframe()
while f:
    if "end" in f.f_locals: f.f_locals["end"]("passed")
    f = f.f_back""")''',
    # by what it writes
    'words': f'print({REPLIES[0]!r}, flush=True)\nos._exit(0)',
    'words at exit': f'import atexit\natexit.register(os.write, 1, b{REPLIES[0]!r})\nraise SystemExit',
    **{f'reply {reply:.40}': 'for fd in range(3, 256):\n'
       f'    try: os.write(fd, b\'{reply}\\n\' * 9)\n    except OSError: pass' for reply in REPLIES},
    'reply without end': 'for fd in range(255, 2, -1):\n    try:\n'
                         '        while True: os.write(fd, b"7" * 9999)\n    except OSError: pass',
    'a child holds the pipe': 'if os.fork(): os._exit(0)\ntime.sleep(9)',
    'a verdict': FORGE, 'a verdict, again and again': f'while True:\n    {FORGE}',
    'nonsense': 'write(b\'[true, "x", {}]\\n\\n\\xff\\n["passed"]\\nSubprocessError:0:x\')',
    'a verdict by another program': f'os.execv(sys.executable, [sys.executable, "-c", {HELP + FORGE!r}])',
    # by what it reads
    'what is open': 'for fd in range(256):\n    try:\n        os.set_blocking(fd, False)\n'
                    '        look(os.read(fd, 1 << 20))\n    except OSError: pass\n'
                    '    try: os.set_blocking(fd, True)\n    except OSError: pass',
    'own memory': """libc.sbrk.restype = ctypes.c_void_p
block = ctypes.create_string_buffer(1 << 16)
for middle in id(look), libc.sbrk(0), ctypes.addressof(block):
    for i in range(-300, 300):
        here = (ctypes.c_size_t * 2)(ctypes.addressof(block), 1 << 16)
        there = (ctypes.c_size_t * 2)(((middle >> 16) + i) << 16, 1 << 16)
        n = libc.process_vm_readv(os.getpid(), here, 1, there, 1, 0)
        look(block.raw[:max(0, n)])""",
    'secrets': """for name in [f'/proc/{pid}/{name}' for pid in above for name in ('environ', 'mem')]:
    try: print('opened', name, open(name, 'rb').read(9999) if name.endswith('n') else open(name, 'r+b'))
    except OSError: pass""",
    'ptrace': 'for pid in above:\n    if libc.ptrace(16, pid, 0, 0) == 0: print("opened", pid)',
    'descriptors of the judge': f"""for pid in above:
    handle = libc.syscall(434, pid, 0)
    for fd in range(30):
        got = libc.syscall(438, handle, fd, 0)
        if got >= 0: print('opened', pid, os.write(got, b'{REPLIES[0]}\\n'))""",
    'keys': 'if libc.syscall(KEYCTL, 10, -3, b"user", b"nanoparrot", 0) > 0: print("opened the keyring")',
    'folder becomes a link': 'here = os.getcwd()\nos.chdir("/")\nos.rmdir(here)\nos.symlink("MINE", here)',
    # by what it steals: it may pass where the result says that programs can read your files
    'steals from the command line': """import glob, json
for path in glob.glob('/proc/[0-9]*/cmdline'):          # of eval.py, too: --data=FILE
    try:
        for file in re.findall('--data=([^\\0]+)', open(path).read()):
            for line in open(file): exec(json.loads(line)['prompt'] + json.loads(line)['canonical_solution'])
    except Exception: pass          # other programs of this machine have data, too""",
    'steals a solution': f"""sys.path.insert(0, {str(ROOT)!r})
from extras import problems
problem, = problems.problems(1, 0, 'variation')
exec((problem['prompt'] + problem['canonical_solution']).replace(problem['entry_point'], 'add'))
add = lambda a, b: a + b""",
    'steals these tests': f'steal({__file__!r})', 'steals your file': 'steal("/etc/passwd")',
    # by what it kills: each has a caller of its own
    'kill the group': 'os.kill(0, 9)',
    'kill the judge': f'{FORGE}os.kill(os.getppid() or 1, 9)\n{FORGE}',
    'kill all but the caller': 'for pid in judges[::-1]: os.kill(pid, 9)',
    'kill by limits': 'for pid in judges:\n    for kind in 1, 7, 9, 0:\n'
                      '        try: resource.prlimit(pid, kind, (0, 0))\n        except OSError: pass',
    'kill by interrupts': 'for number in 14, 10, 2:\n    for pid in judges: os.kill(pid, number)',
    'kill by a stop': f'for pid in judges: os.kill(pid, signal.SIGSTOP)\n{FORGE}time.sleep(9)'}
HONEST = """import datetime, hashlib, multiprocessing, random, shutil, socket, sqlite3, ssl, tempfile
import threading, zoneinfo
tempfile.mkdtemp(), os.urandom(3), open('/dev/urandom', 'rb').read(3), open('here', 'w').write('x')
open('/dev/null', 'w').write('x'), os.mkdir('a'), os.rename('here', 'a/b'), os.remove('a/b')
shutil.copy2(tempfile.mkstemp()[1], 'copy'), os.utime('copy', (1, 1)), os.chmod('copy', 0o600)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), os.nice(0)
os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
os.sched_setaffinity(0, os.sched_getaffinity(0)), os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
def double(pipe): pipe.send(2 * pipe.recv())
def add(a, b):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=double, args=[theirs])
    process.start(), ours.send(21), process.join()
    assert ours.recv() == 42
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: ours.sendall(b'x' * (1 << 20)) or ours.close())
    thread.start()
    assert len(theirs.makefile('rb').read()) == 1 << 20
    import numpy
    return int(numpy.int64(a) + b)"""
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
# Of calls that Python's C library has no function for.
NUMBERS = {name: number for name, *numbers in [
    ('KEYCTL', 250, 219), ('ADD_KEY', 248, 217), ('REQUEST_KEY', 249, 218), ('IOPRIO_SET', 251, 30),
    ('SCHED_SETATTR', 314, 274), ('MEMFD_SECRET', 447, 447), ('MQ_OPEN', 240, 180), ('MQ_UNLINK', 241, 181),
    ('SEMOP', 65, 193)]
    for number in numbers[os.uname().machine == 'aarch64':][:1]}
# Each group of jobs has a process of its own, all of them at once. There is a key that they all know.
CALLER = """import ctypes, json, os, sys
libc = ctypes.CDLL(None)
libc.syscall(KEYCTL, 1, None), libc.syscall(ADD_KEY, b'user', b'nanoparrot', b'secret', 6, -3)
sys.path.insert(0, ROOT)
from extras import sandbox
sandbox.TRIAL = sys.argv[1]
os.environ['OPENAI_API_KEY'] = 'sk-secret'
pipes = []
for group in json.load(sys.stdin):
    reading, writing = os.pipe()
    if os.fork() == 0:
        jobs = [(program.replace('CALLER', str(os.getpid())), *tests) for program, *tests in group]
        with open(writing, 'w') as f:
            json.dump([vars(r) for r in sandbox.run_many(jobs, float(sys.argv[2]), 512, 2)], f)
        sys.exit()
    os.close(writing)
    pipes.append(reading)
print(json.dumps([result for pipe in pipes for result in json.load(open(pipe))]))
""".replace('ROOT', repr(str(ROOT)))


def numbered(text):
    """It, with the numbers of calls for this machine."""
    for name, number in NUMBERS.items():
        text = re.sub(rf'\b{name}\b', str(number), text)
    return text


def without(path, *walls):
    """A copy of trial.py, with crossing.py and sandbox.py beside it, whose system refuses these walls."""
    shutil.copy(ROOT / 'extras/crossing.py', path.parent)
    found = set()
    for name in 'sandbox.py', 'trial.py':
        text = pathlib.Path(sandbox.TRIAL).with_name(name).read_text(encoding='utf-8')
        for wall in walls:
            found |= {wall} if wall in text else set()
            text = text.replace(wall, REFUSALS.get(wall, "/none'"))
        (path.parent / name).write_text(text, encoding='utf-8')
    assert found == {*walls}
    return str(path)


def judged(groups, trial, namespaces=None, timeout=1):
    """The results of all jobs. namespaces: of an ordinary user; else it is who runs this."""
    user = [] if namespaces is None else ['-c', USER.replace('MOST', str(namespaces))]
    command = [sys.executable, *user, '-c', numbered(CALLER), trial, str(timeout)]
    done = subprocess.run(command, input=numbered(json.dumps(groups)), capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@LINUX
@pytest.mark.parametrize('namespaces, missing', [
    *MODES, (0, (LANDLOCK, SECCOMP)), (None, (NAMESPACES, LANDLOCK, SECCOMP))],
    ids=[*MODE_NAMES, 'a user without walls', 'no walls'])
def test_no_attack_passes_reads_or_breaks_what_is_yours(namespaces, missing, tmp_path):
    data = write(tmp_path / 'data.jsonl', [{'prompt': 'def add(a, b):\n',
                                            'canonical_solution': '    return a + b'}])
    mine = tmp_path / 'mine'
    mine.write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    jobs = {name: [(WRONG + HELP + attack).replace('MINE', str(tmp_path)), CHECK, 'add']
            for name, attack in {**ATTACKS, 'honest': HONEST}.items()}
    groups = [[jobs.pop(name)] for name in [*jobs] if name.startswith('kill')]
    names = [*[name for name in ATTACKS if name.startswith('kill')], *jobs]
    names_it = subprocess.Popen([sys.executable, '-c', 'input()', f'--data={data}'], stdin=subprocess.PIPE)
    trial = without(tmp_path / 'trial.py', *missing)
    results = judged([*groups, [*jobs.values()]], trial, namespaces, 3)
    names_it.communicate(b'\n')
    assert_no_process_is_left(trial)
    *results, honest = zip(names, results, strict=True)
    assert honest[1]['outcome'] == 'passed', honest
    for name, result in results:
        if name.startswith('steals') and not result['reads_denied']:
            assert result['outcome'] == 'passed', (name, result)
        else:
            assert result['outcome'] in ('wrong', 'exception', 'exited', 'timeout', 'memory'), (name, result)
        assert 'opened' not in result['stdout'] and 'secret' not in result['stdout'], (name, result)
        assert 'judge was killed' not in result['message'] or 'kill' in name, (name, result)
        walls = [value for key, value in result.items() if key.endswith('denied')]
        if len(missing) > 1:
            assert not any(walls), (name, result)
        elif ctypes.CDLL(None).syscall(444, None, 0, 1) >= 6:       # Landlock of Linux 6.12
            assert all(walls), (name, result)
    assert mine.read_text(encoding='utf-8') == 'kept'


@LINUX
def test_no_program_runs_after_one_that_killed_what_forks_its_judge(tmp_path):
    """Where no wall held it, it may be alive, and could take over another such process as it starts."""
    kill = [HELP + ATTACKS['kill all but the caller'], CHECK, 'add']
    jobs = [kill, ['import time\ntime.sleep(2)'], ['pass']]         # the second keeps the other thread busy
    killer, _, after = judged([jobs], without(tmp_path / 'trial.py', *REFUSALS))
    assert killer['outcome'] == 'exited' and after['outcome'] == 'infrastructure', (killer, after)


# --- programs that want to stay, or to take all there is ----------------------------------------------------
LEFTOVERS = [
    'import os, time\nif os.fork() == 0:\n    os.setsid()\n'
    '    if os.fork() == 0: time.sleep(999)\n    os._exit(0)',
    'import os, time\nif os.fork() == 0: os.setsid(), time.sleep(999)\nwhile True: pass',
    'import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    'if os.fork() == 0: time.sleep(999)',
    'import os, time\nif os.fork() == 0: time.sleep(999)\nos._exit(0)']
# With a session of its own, where it gets one.
STAY = """import os, resource, time
def stay():
    if os.fork() == 0:
        try: os.setsid()
        except OSError: pass
        time.sleep(999)
stay()
"""
LEFTOVERS = [*[(program,) for program in LEFTOVERS],
             (STAY + 'resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))',),
             (STAY + 'time.sleep(0.2), os.kill(os.getppid() or 1, 9)',),
             ('pass', STAY), ('pass', STAY.replace('os.setsid()', 'pass')),
             (STAY, 'sum(range(10 ** 15))')]      # kills the judge, by its limit of CPU time: no handler runs
BOMB = 'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass'
BOUNDED = {
    'while True: print("x" * 1000)': False, 'open("big", "w").write("x" * (1 << 28))': False,
    'import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()': False,
    'import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)': True,
    'import os\nassert "secret" not in str(os.environ)': True,
    'import sys\nassert sys.stdin.read() == ""': True, 'import os\nassert not os.listdir()': True}


@LINUX
@pytest.mark.parametrize('namespaces, missing', [*MODES, (None, (*REFUSALS,)), (None, (NAMESPACES, LIST))],
                         ids=[*MODE_NAMES, 'no walls', 'no list of children'])
def test_no_process_is_left_and_resources_are_bounded(namespaces, missing, tmp_path):
    leftovers = LEFTOVERS[:-3 if LIST in missing else None]         # without those of a judge
    jobs = [*leftovers, *[(program,) for program in BOUNDED]]
    # Else the limit of processes would count those of the user, or not bind root, who plays a user.
    if namespaces is None and (not missing or not os.getuid()):
        jobs.append((BOMB,))
    trial = without(tmp_path / 'trial.py', *missing)
    tmp_path.chmod(0o777)
    results = judged([jobs], trial, namespaces)
    assert_no_process_is_left(trial)
    for (program, passes), result in zip(BOUNDED.items(), results[len(leftovers):]):
        assert (result['outcome'] == 'passed') == passes, (program, result)
        assert len(result['stdout']) <= 64 << 10


def assert_no_process_is_left(trial):
    deadline = time.monotonic() + 5
    while left := [path for path in pathlib.Path('/proc').glob('[0-9]*/cmdline') if trial in text_of(path)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def text_of(path):
    with contextlib.suppress(OSError):
        return path.read_text(errors='replace')
    return ''


@LINUX
@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_caller_ends(how, tmp_path):
    """Nor does it wait for the programs, which could take minutes."""
    trial = without(tmp_path / 'trial.py', *REFUSALS)
    up = tmp_path / 'up'
    tmp_path.chmod(0o777)
    code = f"""import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from extras import sandbox
signal.signal(signal.SIGINT, signal.default_int_handler)
sandbox.TRIAL = {trial!r}
while True:         # again, if other programs of this user have just reached the limit of processes
    sandbox.run_code({f'{STAY}open({str(up)!r}, "w"), time.sleep(60)'!r}, timeout=60)"""
    process = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not up.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(8)
    assert_no_process_is_left(trial)


# --- what the result says of the walls holds ----------------------------------------------------------------
OUTSIDE = """import os, shutil, socket
for name in PATHS:
    try:
        os.write(os.open(name, os.O_WRONLY | os.O_NONBLOCK), b'EVIL')
        print('wrote to', name)
    except OSError: pass
shutil.rmtree(os.path.dirname(PATHS[1]), ignore_errors=True)
for family in (socket.AF_VSOCK, socket.AF_UNIX, socket.AF_INET):
    try: print('has', socket.socket(family))
    except PermissionError: pass
"""


@LINUX
@pytest.mark.parametrize('namespaces', [None, 0], ids=['all walls', 'a user without namespaces'])
def test_files_terminals_pipes_with_a_name_and_sockets_are_closed(namespaces, tmp_path):
    """By Landlock and seccomp."""
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 6 or os.uname().machine not in ('x86_64', 'aarch64'):
        pytest.skip('needs Landlock of Linux 6.12')
    ours, terminal = os.openpty()
    os.mkfifo(tmp_path / 'fifo')
    fifo = os.open(tmp_path / 'fifo', os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / 'file').write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    paths = [os.ttyname(terminal), f'{tmp_path}/fifo', f'{tmp_path}/file', '/dev/tty']
    result, = judged([[(OUTSIDE.replace('PATHS', repr(paths)),)]], sandbox.TRIAL, namespaces)
    for fd in ours, terminal, fifo:
        os.close(fd)
    assert (result['outcome'], result['stdout']) == ('passed', ''), result
    assert (tmp_path / 'file').read_text(encoding='utf-8') == 'kept'


# Each must end with EACCES, the answer of the filter. Linux itself allows it, or gives another answer.
CALLS = """import ctypes, mmap, os, resource, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_ssize_t
SERVER, VICTIM, KEY, SEGMENT, SEMAPHORE, QUEUE = IDS
me, zeros, plus = os.getpid(), bytes(256), struct.pack('HhH', 0, 1, 0)
ours, theirs = socket.socketpair()
def refused(name, function, *args):
    ctypes.set_errno(0)
    try: value, number = function(*args), ctypes.get_errno()
    except OSError as e: value, number = -1, e.errno
    if value != -1 or number != 13: print(name, value, number)
for kind in 2, 3, 4, 5, 2 | 1 << 11:
    refused(f'socketpair {kind}', socket.socketpair, 1, kind)
refused('socket', socket.socket, 1, 1), refused('io_uring', libc.syscall, 425, 1, zeros)
refused('connect', ours.connect, SERVER), refused('sendto', ours.sendto, b'x', SERVER)
refused('bind', ours.bind, 'here')
for pid in VICTIM, me:          # by number, too: another one of that number may come
    refused('prlimit', resource.prlimit, pid, 0, (99, 99))
    refused('affinity', os.sched_setaffinity, pid, os.sched_getaffinity(0))
    refused('scheduler', os.sched_setscheduler, pid, 3, os.sched_param(0))
    refused('param', os.sched_setparam, pid, os.sched_param(0))
    refused('attr', libc.syscall, SCHED_SETATTR, pid, struct.pack('IIQiI3Q', 48, *[0] * 7), 0)
    refused('priority', os.setpriority, 0, pid, 5), refused('of group', os.setpriority, 1, pid, 5)
    refused('ioprio', libc.syscall, IOPRIO_SET, 1, pid, 2 << 13 | 7)
refused('of user', os.setpriority, 2, 0, 0), refused('of own group', os.setpriority, 1, 0, 19)
refused('setsid', os.setsid), refused('setpgid', os.setpgid, 0, 0)
for name, *args in ('setuid', os.geteuid()), ('setreuid', -1, -1), ('setresuid', -1, -1, -1), ('setfsuid', 0):
    refused(name, getattr(libc, name), *args)
refused('setresuid 0', os.setresuid, 0, 0, 0)
refused('shmget', libc.shmget, KEY, 1, 0), refused('shmat', libc.shmat, SEGMENT, None, 0)
refused('shmctl', libc.shmctl, SEGMENT, 2, zeros), refused('semget', libc.semget, KEY, 1, 0)
refused('semop', libc.syscall, SEMOP, SEMAPHORE, plus, 1), refused('semctl', libc.semctl, SEMAPHORE, 0, 12)
refused('semtimedop', libc.semtimedop, SEMAPHORE, plus, 1, None), refused('msgget', libc.msgget, KEY, 0)
refused('msgsnd', libc.msgsnd, QUEUE, struct.pack('l8s', 1, b''), 1, 2048)
refused('msgrcv', libc.msgrcv, QUEUE, zeros, 1, 0, 2048), refused('msgctl', libc.msgctl, QUEUE, 2, zeros)
refused('mq_open', libc.syscall, MQ_OPEN, None, 66, 0o600, None)
refused('mq_unlink', libc.syscall, MQ_UNLINK, b'nanoparrot')
refused('keyctl', libc.syscall, KEYCTL, 10, -3, b'user', b'nanoparrot', 0)
refused('own keys', libc.syscall, KEYCTL, 10, -4, b'user', b'nanoparrot', 0)
refused('add_key', libc.syscall, ADD_KEY, b'user', b'mine', b'x', 1, -3)
refused('request_key', libc.syscall, REQUEST_KEY, b'user', b'nanoparrot', None, 0)
refused('memfd', os.memfd_create, 'x'), refused('memfd_secret', libc.syscall, MEMFD_SECRET, 0)
refused('x32', libc.syscall, 0x40000000 | 39)
if os.uname().machine == 'x86_64' and os.fork() == 0:       # int 0x80 is a crash where there are no 32 bits
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex('b814000000cd80c3'))           # getpid()
    value = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    os._exit(print('32 bits', value, flush=True) or 0 if value != -13 else 0)
"""
MANY = """children = 0
try:
    while children < 200:
        if os.fork() == 0: time.sleep(9)
        children += 1
    print('no limit of processes')
except OSError: pass
"""


@LINUX
@pytest.mark.parametrize('namespaces, missing', MODES, ids=MODE_NAMES)
def test_what_processes_of_a_user_share_is_refused(namespaces, missing, tmp_path):
    """Also becoming root again, and memory that no limit counts."""
    if os.uname().machine not in ('x86_64', 'aarch64'):
        pytest.skip('there is no filter of system calls for this machine')
    libc, key = ctypes.CDLL(None), 1 << 30 | os.getpid()
    kept = [libc.shmget(key, 4096, 0o1666), libc.semget(key, 1, 0o1666), libc.msgget(key, 0o1666)]
    tmp_path.chmod(0o777)
    with (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
          subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as victim):
        server.bind(f'{tmp_path}/socket')
        os.chmod(f'{tmp_path}/socket', 0o777)
        ids = f'{tmp_path}/socket', victim.pid, key, *kept
        trial = without(tmp_path / 'trial.py', *missing)
        program = CALLS.replace('IDS', repr(ids)) + MANY * (namespaces is None)     # see BOMB
        result, = judged([[(program,)]], trial, namespaces, 5)
        victim.communicate(b'\n')
        with pytest.raises(BlockingIOError):
            server.recv(9, socket.MSG_DONTWAIT)
    libc.shmctl(kept[0], 0, None), libc.semctl(kept[1], 0, 0), libc.msgctl(kept[2], 0, None)
    assert (result['outcome'], result['stdout']) == ('passed', ''), result


@LINUX
@pytest.mark.parametrize('missing, walls', [
    ((SECCOMP,), ()), ((NAMESPACES, SECCOMP), ()), ((LANDLOCK,), ('network', 'processes')),
    ((NAMESPACES, LANDLOCK), ('network',)), ((LANDLOCK, SECCOMP), ())])
def test_a_wall_is_reported_only_with_all_that_it_needs(missing, walls, tmp_path):
    """Without the filter, a service that a program asks can read, write and kill for it."""
    result, = judged([[('pass',)]], without(tmp_path / 'trial.py', *missing))
    reported = {name.removesuffix('_denied') for name, value in result.items() if value is True}
    assert result['outcome'] == 'passed' and reported <= {*walls}, result
    if os.uname().machine in ('x86_64', 'aarch64') and NAMESPACES in missing:
        assert reported == {*walls}, result
