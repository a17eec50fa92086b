"""
Running programs that a model wrote, and judging them by tests.

    run_code('def add(a, b): return a + b', 'assert add(1, 2) == 3').outcome        # 'passed'
    run_code(prompt + completion, test, entry_point)        # HumanEval: test defines check(candidate)
    for result in run_many([(program, tests, entry_point), ...]): ...       # all cores, in order

A guard against accidents and cheating, NOT A SECURITY BOUNDARY: same kernel, same user, every file
readable that you can read. For a stranger's model, put all this into a container or a virtual machine.

Two processes: the judge runs the tests, the candidate runs the program. The judge asks the candidate to
call its functions, and receives plain data: None, numbers, str, bytes; list, tuple, set, dict of these.
So a program does not pass by leaving early, printing, patching builtins, returning objects that equal
everything, or searching memory for a password: there is none. It can still know answers by heart, lie
where tests trust its other functions (HumanEval/32, 38, 50) or, without tests, pretend that it finished.
Tests cannot use its classes, nor see changed arguments; other objects arrive as true and equal to nothing.

On Linux with user namespaces, a program has no network, cannot signal other processes, and can write only
to 64 MB of memory (before Linux 5.12 or under Ubuntu 24.04's AppArmor, to files, too). Sockets in the file
system, as Docker's, stay in reach. Elsewhere (many containers, macOS) it can write and kill all that you
can, the judge and the caller included, and may leave processes behind. Result says which case it was.
Limits hold for each of at most 64 processes; without namespaces, all of the user's count. macOS does not
enforce memory_mb.

Copy this file alone: it needs tqdm.
"""
import builtins, concurrent.futures, ctypes, dataclasses, functools, inspect, json, os, signal
import subprocess, sys, tempfile, time
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
    seconds: float = 0.0        # of wall-clock time, with what Python takes to start
    network_denied: bool = False
    writes_denied: bool = False


# A fresh Python gets pack() to start() as source: an import there costs each program some milliseconds.


def pack(value, others=False):
    """As JSON, which executes nothing, unlike pickle. Of a subclass, the plain base is sent."""
    value = value.tolist() if hasattr(value, 'tolist') else value       # NumPy's
    for kind in (list, tuple, set, frozenset, bytes, dict):
        if isinstance(value, kind):
            return {kind.__name__: [pack(v, others) for v in (value.items() if kind is dict else value)]}
    if isinstance(value, complex):
        return {'complex': [value.real, value.imag]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if others:
        return {'object': []}
    raise TypeError(f'{type(value).__name__} is not plain data')


def unpack(data):
    if not isinstance(data, dict):
        return data
    (kind, items), = data.items()
    kinds = {k.__name__: k for k in (list, tuple, set, frozenset, bytes, dict)}
    kinds |= {'complex': lambda parts: complex(*parts), 'object': lambda _: object()}
    return kinds[kind](map(unpack, items))


def candidate(requests, replies):
    program, name = unpack(json.loads(requests.readline()))
    module = sys.modules[name] = type(sys)(name)        # dataclasses and pickle look it up
    scope, sys.argv = vars(module), ['']
    call = lambda: exec(program, scope) or {k: getattr(v, '__name__', None) for k, v in scope.items()
                                            if callable(v) or isinstance(v, type(sys))}
    while True:
        try:
            reply = {'value': pack(call(), others=True)}
        except BaseException as e:
            base = next(c.__name__ for c in type(e).__mro__ if c.__module__ == 'builtins')
            reply = {'error': [type(e).__name__, base, str(e)[:500]]}
        print(json.dumps(reply), file=replies, flush=True)
        name, args, kwargs = unpack(json.loads(requests.readline()))
        call = lambda: scope[name](*args, **kwargs)


def judge(requests, replies, pid, end):
    def ask(*message):
        try:
            print(json.dumps(pack(message)), file=requests, flush=True)
        except TypeError as e:
            end('infrastructure', f'an argument in the tests: {e}')
        except BrokenPipeError:
            pass
        line = replies.readline()
        if not line:
            end('exited', f'status {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}; -n is signal n')
        reply = json.loads(line)
        if 'value' in reply:
            return unpack(reply['value'])
        name, base, text = reply['error']
        if base in ('SystemExit', 'StopIteration'):     # the latter would end an all(map(...)) well
            end('exited' if base == 'SystemExit' else 'exception', f'{name}: {text}')
        raise type(name, (getattr(builtins, base),),
                   {'__init__': lambda *_: None, '__str__': lambda _: text})

    program, tests, entry_point = json.load(sys.stdin)      # after the fork: candidates never see tests
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
        import traceback
        lines = [tests.split('\n')[line - 1].strip() for frame, line in
                 traceback.walk_tb(e.__traceback__) if frame.f_code.co_filename == 'tests.py']
        text = f'{type(e).__name__}: {e}' if str(e) or not lines else lines[-1]
        end('wrong' if isinstance(e, AssertionError) else 'exception', text)
    end('passed')


def isolate(libc, folder):
    """Returns whether the network, and writes outside of `folder`, are denied."""
    uid, gid, folder = os.geteuid(), os.getegid(), folder.encode()
    if libc.unshare(0x78020000):        # new mounts, IPC, users, PIDs of children, network, or none
        return False, False
    try:
        maps = {'setgroups': 'deny', 'uid_map': f'{uid} {uid} 1', 'gid_map': f'{gid} {gid} 1'}
        for name, text in maps.items():
            with open(f'/proc/self/{name}', 'w', encoding='utf-8') as f:
                f.write(text)
    except OSError:                         # AppArmor: the namespaces are there, without rights in them
        return True, False
    change = lambda path, flags, *sets: libc.syscall(           # mount_setattr
        442, -100, path, flags, (ctypes.c_uint64 * 4)(*sets), 32) == 0
    # everything becomes read-only, but the folder
    return True, (libc.mount(b'tmpfs', folder, b'tmpfs', 6, b'size=64m,mode=777') == 0
                  and change(b'/', 0x8000, 1, 0) and change(folder, 0, 0, 1))


def start(timeout, memory_mb, folder):
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
        os.write(verdict, json.dumps([outcome, message[:500]]).encode())
        os._exit(0)

    verdict, denied, prctl = os.dup(1), (False, False), lambda *_: 0
    os.dup2(2, 1)               # for what is printed
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        prctl = lambda option, value: libc.prctl(option, value, 0, 0, 0)
        if os.geteuid() == 0:
            libc.setresuid(65534, 0, 0)     # RLIMIT_NPROC does not bind whose real user is root
        denied = isolate(libc, folder)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # no capabilities
        prctl(38, 1), prctl(36, 1)      # NO_NEW_PRIVS: no sudo; CHILD_SUBREAPER: it gets the orphans
        prctl(4, 0)             # DUMPABLE: or the candidate opens `verdict` under /proc/PID/fd
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
        os.write(verdict, json.dumps([*denied, pid]).encode() + b'\n')
        for number in signal.SIGALRM, signal.SIGTERM:
            signal.signal(number, lambda *_: end('timeout', f'not done in {timeout} s'))
        signal.setitimer(signal.ITIMER_REAL, timeout)
        judge(open(request_out, 'w', encoding='utf-8'), open(reply_in, encoding='utf-8'), pid, end)
    for fd in verdict, request_out, reply_in, 0:
        os.close(fd)
    os.open(os.devnull, os.O_RDONLY)        # takes the free number: stdin
    os.setsid()
    prctl(4, 1), prctl(1, signal.SIGKILL)   # PDEATHSIG: dies with the judge
    candidate(open(request_in, encoding='utf-8'), open(reply_out, 'w', encoding='utf-8'))


CHILD = '\n'.join(['import builtins, ctypes, functools, json, os, resource, signal, sys',
                   *map(inspect.getsource, (pack, unpack, candidate, judge, isolate, start)),
                   'start(*json.loads(sys.argv[1]))'])


def run_code(program, tests='', entry_point='', timeout=3.0, memory_mb=512):
    """The Result of one program. tests: Python that raises AssertionError where it is wrong; with an
    entry_point, they define check(candidate), which gets that function. timeout: seconds of wall-clock
    time. RuntimeError on Windows."""
    if resource is None:
        raise RuntimeError('running programs needs Linux or macOS: Windows has no limits for them')
    payload, began = json.dumps([program, tests, entry_point]).encode(), time.monotonic()
    try:
        with tempfile.TemporaryFile() as out, \
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            env = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'HOME': folder, 'TMPDIR': folder,
                   'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MALLOC_ARENA_MAX': '1'}
            command = [sys.executable, '-I', '-u', '-c', CHILD, json.dumps([timeout, memory_mb, folder])]
            with subprocess.Popen(command, cwd='/', env=env, stdin=-1, stdout=-1, stderr=out,
                                  start_new_session=True) as process:
                try:
                    said = process.communicate(payload, timeout + 10)[0]
                except subprocess.TimeoutExpired as e:      # the judge is stuck, or was stopped
                    process.kill()
                    if said := e.output or b'':
                        os.kill(json.loads(said)[2], signal.SIGKILL)
                finally:
                    process.terminate()         # after Ctrl-C
            out.seek(0)
            stdout = out.read(64 << 10).decode('utf-8', 'replace')
    except OSError as e:
        return Result('infrastructure', f'{type(e).__name__}: {e}')
    seconds, (first, verdict) = time.monotonic() - began, (said.decode().split('\n') + [''])[:2]
    if not first:
        return Result('infrastructure', stdout.strip().split('\n')[-1], stdout, seconds)
    try:
        outcome, message = json.loads(verdict) if verdict else ('exited', 'the judge was killed')
    except ValueError:                      # cut off, or meddled with: it proves nothing
        outcome, message = 'infrastructure', f'no verdict but {verdict[:80]!r}'
    return Result(outcome, message, stdout, seconds, *json.loads(first)[:2])


def run_each(jobs, syntax_error, timeout=3.0, memory_mb=512):
    """The Results of (program, tests, entry point), a list. Equal jobs run once. A program does not run if
    syntax_error(program) returns a reason why it is not Python."""
    errors = {job: syntax_error(job[0]) for job in jobs}
    different = [job for job, error in errors.items() if not error]
    found = {job: Result('syntax', error) for job, error in errors.items() if error}
    results = run_many(different, timeout, memory_mb)
    found |= zip(different, tqdm(results, 'run', len(different), disable=None))
    return [found[job] for job in jobs]


def run_many(jobs, timeout=3.0, memory_mb=512, processes=0):
    """Yields the Result of each (program,), (program, tests) or (program, tests, entry_point), in order.
    processes: how many at once; 0 = one per core. A caller that leaves the loop waits for running ones."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    pool = concurrent.futures.ThreadPoolExecutor(processes or cores)
    try:
        yield from pool.map(lambda job: run_code(*job, timeout=timeout, memory_mb=memory_mb), jobs)
    finally:
        pool.shutdown(cancel_futures=True)
