"""
One trial of a program: the judge runs the tests, the candidate runs the program, behind walls.

    python -I parts/eval/trial.py '[3.0, 512, "/tmp/folder"]'        # as sandbox.py starts it
    [program, tests, entry point] -> [network, writes, processes, reads denied, outcome, message]

Reads jobs from stdin and writes verdicts to stdout, as lines of JSON. Judge and candidate are forked before
the job is read, and only the judge reads it: no memory of the candidate has ever held the tests. The walls
go up in three steps: once, a root of its own around all of them; for each program, its own processes and a
folder that vanishes with it; then seccomp and Landlock around the candidate.
See sandbox.py for what they promise. Copy this file alone: it needs the standard library, on Linux or macOS.
"""
import builtins, contextlib, ctypes, errno, functools, itertools, json, os, resource, signal, site, struct
import sys, traceback
import collections, math, re, typing  # noqa: F401, for programs: an import costs each of them milliseconds

# What a program may read: the interpreter, its library, the libraries of both, four devices. No /proc: it
# holds the command lines of others. No folder of sys.path: an editable install puts a repository there.
READABLE = sorted(filter(os.path.exists, {
    sys.executable, f'{sys.prefix}/pyvenv.cfg', f'{sys.base_prefix}/lib', os.path.dirname(os.__file__),
    *site.getsitepackages(), '/lib', '/lib64', '/usr/lib', '/usr/lib64', '/etc/alternatives',
    '/etc/ld.so.cache', '/usr/share/zoneinfo', '/dev/null', '/dev/zero', '/dev/random', '/dev/urandom'}))


class Foreign:
    """An object that the program returned and that is not plain data: true, and equal to nothing else."""


def pack(value, others=False):
    """A value for JSON, which executes nothing, unlike pickle. A subclass is sent as its plain base."""
    if others and hasattr(value, 'tolist'):     # NumPy's
        value = value.tolist()
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
    scope = vars(module)
    sys.argv = ['']
    call = lambda: exec(program, scope) or {k: isinstance(v, type(sys)) and v.__name__ for k, v in
                                            scope.items() if callable(v) or isinstance(v, type(sys))}
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
                   {'__init__': lambda *_: None, '__str__': lambda _: str(text)})

    program, tests, entry_point = job
    for source, file, outcome in (program, 'program', 'syntax'), (tests, 'tests.py', 'infrastructure'):
        try:
            code = compile(source, file, 'exec')
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
        if entry_point and 'check' in scope:
            scope['check'](function)
    except MemoryError:
        end('memory')
    except BaseException as e:
        lines = [tests.splitlines()[line - 1].strip() for frame, line in
                 traceback.walk_tb(e.__traceback__) if frame.f_code.co_filename == 'tests.py']
        text = f'{type(e).__name__}: {e}' if str(e) or not lines else lines[-1]
        end('wrong' if isinstance(e, AssertionError) else 'exception', text)
    end('passed')


def refuse_sockets(libc):
    """Whether a filter of system calls (seccomp) refuses sockets from now on, also by io_uring."""
    known = {'x86_64': (0xC000003E, 41), 'aarch64': (0xC00000B7, 198)}      # and the number of socket()
    kind, number = known.get(os.uname().machine, (0, 0))
    lines = [(0x20, 0, 0, 4), (0x15, 0, 5, kind),           # load the architecture; another one: refuse
             (0x20, 0, 0, 0), (0x15, 3, 0, number), (0x15, 2, 0, 425), (0x35, 1, 0, 0x40000000),
             (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x50000 | errno.EACCES)]         # allow; refuse
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in lines))
    filter = struct.pack('HP', len(lines), ctypes.addressof(code))
    return number > 0 and libc.prctl(22, 2, filter, 0, 0) == 0


def landlock(libc, folder):
    """Whether Landlock denies writes outside of `folder`, signals to others, and reading all but READABLE."""
    version = libc.syscall(444, None, 0, 1)                 # landlock_create_ruleset
    everything = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}.get(version, 0xFFFF)
    rules = libc.syscall(444, (ctypes.c_uint64 * 3)(everything, 0, 3 if version >= 6 else 0), 24, 0)
    rights = {path: 0xD if os.path.isdir(path) else 0x5 for path in READABLE}       # execute, read
    for path, allowed in (rights | {folder: everything, os.devnull: everything & 0x4006}).items():
        opened = os.open(path, os.O_PATH)
        libc.syscall(445, rules, 1, struct.pack('=Qi', allowed, opened), 0)
        os.close(opened)
    denied = libc.syscall(446, rules, 0) == 0               # landlock_restrict_self
    return denied and version >= 3, denied and version >= 6, denied         # before 3, files can be truncated


def isolate(libc, base):
    """Whether this process has no network from now on, and a root that holds READABLE and nothing else, and
    that nobody can write to. It keeps the right to give each program a folder there, in `base`."""
    def need(status):
        if status:
            raise OSError

    maps = {'setgroups': 'deny', 'uid_map': f'{os.geteuid()} {os.geteuid()} 1',
            'gid_map': f'{os.getegid()} {os.getegid()} 1'}
    closed = (ctypes.c_uint64 * 4)(1)           # read-only
    try:
        need(libc.unshare(0x50020000))          # new mounts, users, network
        for name, text in maps.items():         # AppArmor may refuse
            with open(f'/proc/self/{name}', 'w', encoding='utf-8') as f:
                f.write(text)
        need(libc.mount(b'tmpfs', base.encode(), b'tmpfs', 6, b'mode=755'))
        for path in READABLE:
            inside = base + path
            if not os.path.exists(inside):      # else it lies in one before it
                os.makedirs(inside if os.path.isdir(path) else os.path.dirname(inside), exist_ok=True)
                os.path.isdir(path) or os.mknod(inside)
                need(libc.mount(path.encode(), inside.encode(), None, 0x5000, None))        # the same there
        os.makedirs(base + base)
        os.chdir(base)
        need(libc.syscall(155 if os.uname().machine == 'x86_64' else 41, b'.', b'.'))       # pivot_root
        need(libc.umount2(b'.', 2) or libc.syscall(442, -100, b'/', 0x8000, closed, 32))    # mount_setattr
        return True
    except OSError:
        return False


def start(timeout, memory_mb, base, number, isolated):
    """Fork the candidate and be the judge, which alone gets to know the tests. Does not return."""
    def end(outcome, message=''):
        signal.setitimer(signal.ITIMER_REAL, 0)
        children = [pid]
        while children:         # in a namespace the candidate is process 1: all others die with it
            for child in children:
                for kill in os.kill, os.killpg:
                    with contextlib.suppress(OSError):
                        kill(int(child), signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
                with open(f'/proc/self/task/{os.getpid()}/children', encoding='utf-8') as f:
                    children = f.read().split()
            except OSError:
                break
        line = json.dumps([*walls, outcome, message[:300]])     # below 4 KB: written at once, or not
        os.write(verdict, line.encode() + b'\n')
        os._exit(0)

    verdict = os.dup(1)
    walls = [False] * 4
    prctl = lambda *_: 0
    os.dup2(2, 1)               # for what is printed
    folder = f'{base}/{number}'
    os.environ |= {'HOME': folder, 'TMPDIR': folder}
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        prctl = lambda option, value: libc.prctl(option, value, 0, 0, 0)
        if isolated:            # new mounts, IPC, PIDs of children
            if libc.unshare(0x28020000) or libc.mount(b'tmpfs', base.encode(), b'tmpfs', 6,
                                                      b'size=64m,mode=777'):
                raise OSError('no namespaces or no memory for one more program')
            walls = [True] * 4
        elif libc.unshare(0x78020000) == 0:     # with users and network, but without rights in them
            walls = [True, False, True, False]
    os.mkdir(folder)
    if sys.platform == 'linux':
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # no capabilities
        prctl(38, 1)                    # NO_NEW_PRIVS: no sudo
        prctl(36, 1)                    # CHILD_SUBREAPER: it gets the orphans
        prctl(4, 0)                     # not DUMPABLE
        prctl(1, signal.SIGKILL)        # PDEATHSIG: it dies with serve()
    os.chdir(folder)
    (request_in, request_out), (reply_in, reply_out) = os.pipe(), os.pipe()
    pid = os.fork()
    limits = {'CPU': int(timeout) + 2, 'AS': memory_mb << 20, 'FSIZE': 16 << 20, 'NOFILE': 256}
    for name, value in (limits | {'NPROC': 64, 'CORE': 0}).items():
        kind = getattr(resource, f'RLIMIT_{name}')
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):      # macOS, AS
            resource.setrlimit(kind, (value if hard < 0 else min(value, hard),) * 2)
    if pid:
        os.close(request_in)
        os.close(reply_out)
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
    prctl(4, 1)
    prctl(1, signal.SIGKILL)
    requests, replies = open(request_in, encoding='utf-8'), open(reply_out, 'wb', 0)
    if sys.platform == 'linux':             # the judge needs no more walls: it runs no program
        more = refuse_sockets(libc), *landlock(libc, folder)
        walls = [one or other for one, other in zip(walls, more)]
    replies.write(json.dumps(walls).encode() + b'\n')
    candidate(requests, replies)


def serve(timeout, memory_mb, base):
    """Fork a judge for each program, one after the other, until one does not end by itself."""
    isolated = False
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        if os.geteuid() == 0:
            libc.setresuid(65534, 0, 0)     # RLIMIT_NPROC does not bind whose real user is root
        if (pid := os.fork()) == 0:         # a rehearsal: where it fails, there is no way back
            os._exit(not isolate(libc, base))
        isolated = os.waitpid(pid, 0)[1] == 0 and isolate(libc, base)
        libc.prctl(4, 0, 0, 0, 0)           # not DUMPABLE, nor are its forks: no moment to break in
    for number in itertools.count():
        pid = os.fork()
        if not pid:
            start(timeout, memory_mb, base, number, isolated)
        if os.waitpid(pid, 0)[1]:
            return


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    serve(*json.loads(sys.argv[1]))
