"""
Running programs that a model wrote, and judging them by tests.

    run_code('def add(a, b): return a + b', 'assert add(1, 2) == 3').outcome        # 'passed'
    run_code(prompt + completion, test, entry_point)        # HumanEval: test defines check(candidate)
    for result in run_many([(program, tests, entry_point), ...]): ...       # all cores, in order

A guard against accidents and cheating, NOT A SECURITY BOUNDARY: same kernel, same user, every file
readable that you can read. For a stranger's model, put all this into a container or a virtual machine.

Two processes for each program: the judge runs the tests, the candidate runs the program. The judge asks the
candidate to call its functions, and receives plain data: None, numbers, str, bytes; list, tuple, set, dict
of these. So a program does not pass by leaving early, printing, patching builtins, returning objects that
equal everything, or searching memory for a password: there is none. It can still know answers by heart, lie
where tests trust its other functions (HumanEval/32, 38, 50) or, without tests, pretend that it finished.
Tests cannot use its classes, nor see changed arguments; other objects arrive as true and equal to nothing.

Three walls, on Linux; Result says which of them stood.
- network_denied: by a namespace, or by a filter of system calls (seccomp: x86-64, ARM64), which alone also
  closes Docker's socket and virtual machines' (AF_VSOCK).
- writes_denied: by read-only mounts and 64 MB of memory, or by Landlock (Linux 6.2), under which modes and
  dates of files can be changed. Only Landlock (5.13) closes devices, terminals and named pipes.
- processes_denied, no signal to others and no look into them: by a namespace, or by Landlock (6.12). Else a
  program can kill or stop what you can, leave processes behind and spoil the programs beside it.
Even without walls it cannot forge a verdict: caller and judge are not dumpable, which closes their memory,
pipes and environment, and a judge that was killed has judged nothing. Limits hold for each of at most 64
processes; without namespaces, all of the user's count. macOS has no walls and does not enforce memory_mb.

Copy this file alone: it needs tqdm.
"""
import builtins, concurrent.futures, ctypes, dataclasses, errno, functools, inspect, itertools
import json, os, queue, shutil, signal, struct, subprocess, sys, tempfile, threading
import time, traceback
from tqdm import tqdm
try:
    import resource
except ImportError:         # Windows
    resource = None


@dataclasses.dataclass
class Result:
    # passed | wrong: an assertion failed | exception | syntax: does not parse | timeout | memory |
    # exited: left before the end | infrastructure: harness or tests failed: not the model's fault
    outcome: str
    message: str = ''           # the last line of the traceback; of a bare assertion, its source
    stdout: str = ''            # and stderr: the first 64 KB
    seconds: float = 0.0        # of wall-clock time
    network_denied: bool = False
    writes_denied: bool = False
    processes_denied: bool = False


# --- the other side: a fresh Python gets all up to serve() as source ----------------------------------------
class Foreign:
    """What the program returned and is not plain data: true, and equal to nothing."""


def pack(value, others=False):
    """As JSON, which executes nothing, unlike pickle. Of a subclass, the plain base is sent."""
    value = value.tolist() if hasattr(value, 'tolist') else value       # NumPy's
    for kind in (list, tuple, set, frozenset, bytes, dict):
        if isinstance(value, kind):
            return {kind.__name__: [pack(v, others) for v in (value.items() if kind is dict else value)]}
    if isinstance(value, complex):
        return {'complex': [value.real, value.imag]}
    if isinstance(value, int) and abs(value) >> 64:         # decimals are refused beyond 4,300 digits
        return {'int': [hex(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if others:
        return {'object': []}
    if isinstance(value, Foreign):
        raise ValueError('tests pass on an object that the program returned, and it is not plain data')
    raise TypeError(f'{type(value).__name__} is not plain data')


def unpack(data):
    if not isinstance(data, dict):
        return data
    (kind, items), = data.items()
    kinds = {k.__name__: k for k in (list, tuple, set, frozenset, bytes, dict)}
    kinds |= {'complex': lambda parts: complex(*parts), 'int': lambda parts: int(*parts, 16),
              'object': lambda _: Foreign()}
    return kinds[kind](map(unpack, items))


def answer(call):
    """A line of JSON: the value of a call, or the name, the builtin base and the text of its exception."""
    try:
        return json.dumps({'value': pack(call(), others=True)}).encode() + b'\n'
    except BaseException as e:
        error = [type(e).__name__, next(c.__name__ for c in type(e).__mro__ if c.__module__ == 'builtins')]
        try:
            text = json.dumps(str(e)[:500])
        except BaseException:           # its __str__ raises
            text = '""'
        return f'{{"error": [{json.dumps(error)}, {text}]}}\n'.encode()


def candidate(requests, replies):
    program, name = unpack(json.loads(requests.readline()))
    module = sys.modules[name] = type(sys)(name)        # dataclasses and pickle look it up
    scope, sys.argv = vars(module), ['']
    call = lambda: exec(program, scope) or {k: getattr(v, '__name__', None) for k, v in scope.items()
                                            if callable(v) or isinstance(v, type(sys))}
    while True:
        replies.write(answer(call))
        name, args, kwargs = unpack(json.loads(requests.readline()))
        call = lambda: scope[name](*args, **kwargs)


def judge(job, requests, replies, pid, end):
    def ask(*message):
        try:
            print(json.dumps(pack(message)), file=requests, flush=True)
        except TypeError as e:
            end('infrastructure', f'an argument in the tests: {e}')
        except ValueError as e:
            end('exception', str(e))
        except BrokenPipeError:
            pass
        line = replies.readline()
        if not line:
            end('exited', f'status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}; -n is signal n')
        reply = json.loads(line)
        if 'value' in reply:
            return unpack(reply['value'])
        (name, base), text = reply['error']
        if base in ('SystemExit', 'StopIteration'):     # the latter would end an all(map(...)) well
            end('exited' if base == 'SystemExit' else 'exception', f'{name}: {text}')
        raise type(name, (getattr(builtins, base),),
                   {'__init__': lambda *_: None, '__str__': lambda _: text})

    program, tests, entry_point = job
    for source, outcome in (program, 'syntax'), (tests, 'infrastructure'):
        try:
            code = compile(source, 'tests.py', 'exec')
        except Exception as e:      # lone surrogates: UnicodeEncodeError; deep nesting: MemoryError
            end(outcome, f'{type(e).__name__}: {e}')
    scope = {'__name__': 'tests'}
    try:
        for name, original in ask(program, 'candidate' if tests else '__main__').items():
            if name != entry_point and (name.startswith('__') or name in vars(builtins)):
                continue            # its own abs() would judge it
            scope[name] = functools.partial(lambda *args, **kwargs: ask(args[0], args[1:], kwargs), name)
            if name == original and name in sys.stdlib_module_names:    # tests use its `import math`
                scope[name] = __import__(name)
        function = eval(entry_point or 'None', scope)
        exec(code, scope)
        if entry_point:
            scope['check'](function)
    except MemoryError:
        end('memory')
    except BaseException as e:
        lines = [tests.split('\n')[line - 1].strip() for frame, line in
                 traceback.walk_tb(e.__traceback__) if frame.f_code.co_filename == 'tests.py']
        text = f'{type(e).__name__}: {e}' if str(e) or not lines else lines[-1]
        end('wrong' if isinstance(e, AssertionError) else 'exception', text)
    end('passed')


def refuse_sockets(libc):
    """Whether a filter of system calls (seccomp) refuses socket() from now on, also by way of io_uring and of
    32-bit programs."""
    known = {'x86_64': (0xC000003E, 41), 'aarch64': (0xC00000B7, 198)}
    if os.uname().machine not in known:
        return False
    kind, number = known[os.uname().machine]
    lines = [(0x20, 0, 0, 4), (0x15, 0, 5, kind),           # load the architecture; another one: refuse
             (0x20, 0, 0, 0), (0x15, 3, 0, number), (0x15, 2, 0, 425), (0x35, 1, 0, 0x40000000),
             (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x50000 | errno.EACCES)]         # allow; refuse
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in lines))
    return libc.prctl(22, 2, struct.pack('HP', len(lines), ctypes.addressof(code)), 0, 0) == 0


def landlock(libc, folder):
    """Whether Landlock denies writes outside of `folder` from now on, and signals to processes outside."""
    version = libc.syscall(444, None, 0, 1)                 # landlock_create_ruleset
    if version < 1:
        return False, False
    writes = {1: 0x1FF2, 2: 0x3FF2, 3: 0x7FF2, 4: 0x7FF2}.get(version, 0xFFF2)
    rules = libc.syscall(444, (ctypes.c_uint64 * 3)(writes, 0, 3 if version >= 6 else 0), 24, 0)
    for path, allowed in (folder, writes), (os.devnull, writes & 0x4002):
        opened = os.open(path, os.O_PATH)
        libc.syscall(445, rules, 1, struct.pack('=Qi', allowed, opened), 0)
    denied = libc.syscall(446, rules, 0) == 0               # landlock_restrict_self
    return denied and version >= 3, denied and version >= 6         # before, files can be truncated


def isolate(libc, folder):
    """Whether namespaces deny the network, writes outside of `folder`, and the sight of other processes."""
    uid, gid, folder = os.geteuid(), os.getegid(), folder.encode()
    if libc.unshare(0x78020000):        # new mounts, IPC, users, PIDs of children, network, or none
        return False, False, False
    try:
        maps = {'setgroups': 'deny', 'uid_map': f'{uid} {uid} 1', 'gid_map': f'{gid} {gid} 1'}
        for name, text in maps.items():
            with open(f'/proc/self/{name}', 'w', encoding='utf-8') as f:
                f.write(text)
    except OSError:                         # AppArmor: the namespaces are there, without rights in them
        return True, False, True
    change = lambda path, flags, *sets: libc.syscall(           # mount_setattr
        442, -100, path, flags, (ctypes.c_uint64 * 4)(*sets), 32) == 0
    # everything becomes read-only, but the folder
    return True, (libc.mount(b'tmpfs', folder, b'tmpfs', 6, b'size=64m,mode=777') == 0
                  and change(b'/', 0x8000, 1, 0) and change(folder, 0, 0, 1)), True


def start(timeout, memory_mb, folder):
    """Fork the candidate and be the judge. Neither knows the program yet; only the judge gets to know the
    tests. Does not return."""
    def end(outcome, message=''):
        signal.setitimer(signal.ITIMER_REAL, 0)
        children = [pid]
        while children:         # in a namespace the candidate is process 1: all others die with it
            for child in children:
                for kill in os.kill, os.killpg:
                    try:
                        kill(int(child), signal.SIGKILL)
                    except OSError:
                        pass
            try:
                os.waitpid(-1, 0)
                with open(f'/proc/self/task/{os.getpid()}/children', encoding='utf-8') as f:
                    children = f.read().split()
            except OSError:
                break
        line = json.dumps([*walls, outcome, message[:300]])     # below 4 KB: written at once, or not
        os.write(verdict, line.encode() + b'\n')
        os._exit(0)

    verdict, walls, prctl = os.dup(1), (False, False, False), lambda *_: 0
    os.dup2(2, 1)               # for what is printed
    os.mkdir(folder)
    os.environ |= {'HOME': folder, 'TMPDIR': folder}
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        prctl = lambda option, value: libc.prctl(option, value, 0, 0, 0)
        if os.geteuid() == 0:
            libc.setresuid(65534, 0, 0)     # RLIMIT_NPROC does not bind whose real user is root
        walls = isolate(libc, folder)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # no capabilities
        prctl(38, 1), prctl(36, 1)      # NO_NEW_PRIVS: no sudo; CHILD_SUBREAPER: it gets the orphans
        prctl(4, 0), prctl(1, signal.SIGKILL)   # not DUMPABLE; PDEATHSIG: dies with serve()
    os.chdir(folder)
    (request_in, request_out), (reply_in, reply_out) = os.pipe(), os.pipe()
    pid = os.fork()
    limits = {'CPU': int(timeout) + 2, 'AS': memory_mb << 20, 'FSIZE': 16 << 20, 'NOFILE': 256}
    for name, value in (limits | {'NPROC': 64, 'CORE': 0}).items():
        kind = getattr(resource, f'RLIMIT_{name}')
        hard = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (value if hard < 0 else min(value, hard),) * 2)
        except (ValueError, OSError):       # macOS, AS
            pass
    if pid:
        os.close(request_in), os.close(reply_out)
        requests, replies = open(request_out, 'w', encoding='utf-8'), open(reply_in, encoding='utf-8')
        walls = json.loads(replies.readline())      # no program has run yet
        if not (job := sys.stdin.readline()):       # the caller has left
            os._exit(1)
        signal.signal(signal.SIGALRM, lambda *_: end('timeout', f'not done in {timeout} s'))
        signal.setitimer(signal.ITIMER_REAL, timeout)
        judge(json.loads(job), requests, replies, pid, end)
    for fd in verdict, request_out, reply_in, 0:
        os.close(fd)
    os.open(os.devnull, os.O_RDONLY)        # takes the free number: stdin
    os.setsid()
    prctl(4, 1), prctl(1, signal.SIGKILL)
    requests, replies = open(request_in, encoding='utf-8'), open(reply_out, 'wb', 0)
    if sys.platform == 'linux':             # the judge needs no more walls: it runs no program
        more = refuse_sockets(libc), *landlock(libc, folder)
        walls = [one or other for one, other in zip(walls, more)]
    replies.write(json.dumps(walls).encode() + b'\n')
    candidate(requests, replies)


def serve(timeout, memory_mb, base):
    """Fork a judge for each program, one after the other, until one does not end by itself."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)      # not DUMPABLE, nor are its forks: no moment to break in
    for number in itertools.count():
        pid = os.fork()
        if not pid:
            start(timeout, memory_mb, f'{base}/{number}')
        if os.waitpid(pid, 0)[1]:
            return


SOURCE = inspect.getsource(sys.modules[__name__])
CHILD = ('import builtins, collections, ctypes, errno, functools, itertools, json, math, os, re, resource\n'
         'import signal, struct, sys, traceback, typing\n'
         f'{SOURCE[SOURCE.index("class Foreign"):SOURCE.index("SOURCE =")]}serve(*json.loads(sys.argv[1]))')


# --- this side ----------------------------------------------------------------------------------------------
class Judges:
    """A process that forks a judge for each program: Python starts once, before any program runs."""

    def __init__(self, timeout, memory_mb):
        self.timeout, self.count, self.walls, self.error = timeout, 0, [False] * 3, ''
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.said = tempfile.TemporaryFile('a+b')           # by programs and judges
        env = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'OMP_NUM_THREADS': '1',
               'OPENBLAS_NUM_THREADS': '1', 'MALLOC_ARENA_MAX': '1'}
        limits = json.dumps([timeout, memory_mb, self.folder.name])
        self.process = subprocess.Popen([sys.executable, '-I', '-u', '-c', CHILD, limits], cwd='/', env=env,
                                        stdin=-1, stdout=-1, stderr=self.said, start_new_session=True)
        first = self.run('')            # an empty program: all is there before any other runs
        if first.outcome != 'passed':
            self.error = first.stdout.strip().split('\n')[-1] or first.message

    def run(self, program, tests='', entry_point=''):
        if self.error:
            return Result('infrastructure', self.error, '', 0.0, *self.walls)
        began = time.monotonic()
        os.ftruncate(self.said.fileno(), 0)
        alarm = threading.Timer(self.timeout + 10, self.process.kill)       # if the judge is stopped
        alarm.start()
        try:
            self.process.stdin.write(json.dumps([program, tests, entry_point]).encode() + b'\n')
            self.process.stdin.flush()
            *walls, outcome, message = line = json.loads(self.process.stdout.readline())
            if [*map(type, line)] != [bool, bool, bool, str, str]:
                raise ValueError(line)
            self.walls = walls
        except (OSError, ValueError, TypeError):        # anything but a verdict proves nothing
            outcome, message = 'exited', 'the judge was killed or stopped'
            self.error = 'a program killed or stopped its judge, and there is no other'
            self.process.kill()
        alarm.cancel()
        shutil.rmtree(f'{self.folder.name}/{self.count}', ignore_errors=True)
        self.count += 1
        said = os.pread(self.said.fileno(), 64 << 10, 0).decode('utf-8', 'replace')
        return Result(outcome, message, said, time.monotonic() - began, *self.walls)

    def close(self):
        self.process.communicate()      # closes stdin: the judge that waits leaves, the process after it
        self.said.close()
        self.folder.cleanup()


RUNNING = []            # of each run_many under way, whether this process was dumpable before


def run_code(program, tests='', entry_point='', timeout=3.0, memory_mb=512):
    """The Result of one program. tests: Python that raises AssertionError where it is wrong; with an
    entry_point, they define check(candidate), which gets that function. timeout: seconds of wall-clock
    time. RuntimeError on Windows."""
    result, = run_many([(program, tests, entry_point)], timeout, memory_mb, 1)
    return result


def run_each(jobs, syntax_error, timeout=3.0, memory_mb=512):
    """The Results of (program, tests, entry point), a list. Equal jobs run once. A program does not run if
    syntax_error(program) returns a reason why it is not Python."""
    errors = {job: syntax_error(job[0]) for job in jobs}
    found = {job: Result('syntax', error) for job, error in errors.items() if error}
    different = [job for job in errors if job not in found]
    results = run_many(different, timeout, memory_mb)
    found |= zip(different, tqdm(results, 'run', len(different), disable=None))
    return [found[job] for job in jobs]


def run_many(jobs, timeout=3.0, memory_mb=512, processes=0):
    """Yields the Result of each (program,), (program, tests) or (program, tests, entry_point), in order.
    processes: how many at once; 0 = one per core. A caller that leaves the loop waits for running ones."""
    if resource is None:
        raise RuntimeError('running programs needs Linux or macOS: Windows has no limits for them')
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    prctl = ctypes.CDLL(None).prctl if sys.platform == 'linux' else lambda *_: 0
    pool = concurrent.futures.ThreadPoolExecutor(processes or cores)
    idle, jobs, everyone = queue.SimpleQueue(), list(jobs), []

    def run(job):
        judges = idle.get()
        result = judges.run(*job)
        if judges.error and result.processes_denied:    # else a program could look into the new one's start
            judges = Judges(timeout, memory_mb)
            everyone.append(judges)
        idle.put(judges)
        return result

    RUNNING.append(prctl(3, 0, 0, 0, 0))
    prctl(4, 0, 0, 0, 0)        # not DUMPABLE: it closes our memory, environment and pipes to programs
    try:
        for _ in range(min(processes or cores, len(jobs))):
            everyone.append(Judges(timeout, memory_mb))
            idle.put(everyone[-1])
        yield from pool.map(run, jobs)
    finally:
        pool.shutdown(cancel_futures=True)
        for judges in everyone:
            judges.close()
        before = RUNNING.pop()
        prctl(4, 0 if RUNNING else before, 0, 0, 0)
