"""
One trial of a program: the judge runs the tests, the candidate runs the program, behind walls.

    caller -> serve()       [timeout, memory_mb, folder], with a socket and a file for what is printed
    candidate -> caller     [network, writes, processes, reads denied], through that socket
    caller -> judge         [program, tests, entry point]
    judge -> caller         [outcome, message]

All are lines of JSON, and sandbox.py is the caller. Judge and candidate are two processes, forked
before the job comes, and only the judge reads it: no memory of the candidate has ever held the
tests. Copy this file alone: it needs the standard library, on Linux or macOS.
"""
import builtins, contextlib, ctypes, functools, json, linecache, os, resource, signal, site
import socket, struct, sys, traceback
# For programs: an import costs each of them milliseconds.
import collections, math, re, typing  # noqa: F401

LINUX = sys.platform == 'linux'
libc = ctypes.CDLL(None)
# What a program may read, with rights of Landlock (4: read, 8: list, 1: execute): the interpreter,
# its library, the libraries of both, four devices. Not /proc: it holds the command lines of others.
# No folder of sys.path: an editable install puts a repository there.
READABLE = {path: 0xD if os.path.isdir(path) else 0x5 for path in [
    sys.executable, f'{sys.prefix}/pyvenv.cfg', f'{sys.base_prefix}/lib',
    os.path.dirname(os.__file__), *site.getsitepackages(), '/lib', '/lib64', '/usr/lib',
    '/usr/lib64', '/etc/alternatives', '/etc/ld.so.cache', '/usr/share/zoneinfo', '/dev/zero',
    '/dev/random', '/dev/urandom'] if os.path.exists(path)}


# --- what crosses the pipe ------------------------------------------------------------------------
# How each kind of data is sent that JSON does not know.
KINDS = {tuple: list, set: list, frozenset: list, bytes: list, complex: str,
         dict: lambda value: [*value.items()]}


def pack(value, other):
    """Return plain data as what JSON knows; unlike pickle, JSON executes nothing. A subclass is
    sent as its plain base. other(value): what is sent for anything else.

    (1, {2}) -> {'tuple': [1, {'set': [2]}]}"""
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, list):
        return [pack(v, other) for v in value]
    for kind, parts in KINDS.items():
        if isinstance(value, kind):
            return {kind.__name__: pack(parts(value), other)}
    return other(value)


def unpack(line):
    """Return what a line of JSON says, with the plain data that pack() sent."""
    kinds = {kind.__name__: kind for kind in KINDS}

    def build(tagged):
        (kind, parts), = tagged.items()
        return kinds[kind](parts)

    return json.loads(line, object_hook=build)


def tell(file, message):
    """Send a line."""
    file.write(json.dumps(message) + '\n')
    file.flush()


# --- the candidate --------------------------------------------------------------------------------
def described(value):
    """Return data of NumPy as plain data, and any other object as a text: <Match>."""
    if hasattr(value, 'tolist'):
        return pack(value.tolist(), described)
    return f'<{type(value).__name__}>'


def candidate(channel):
    """Run the program that comes first, then the calls of its functions. Answer each with its
    value, or with the name, the builtin base and the text of what it raised."""
    def run():
        exec(program, scope)
        return {name: isinstance(value, type(sys)) for name, value in scope.items()}

    program, (name,), _ = unpack(channel.readline())
    module = sys.modules[name] = type(sys)(name)        # dataclasses and pickle look it up
    scope = vars(module)
    sys.argv = ['']
    call = run
    while True:
        try:
            tell(channel, pack([call()], described))
        except BaseException as e:
            base = next(c for c in type(e).__mro__ if c.__module__ == 'builtins')
            tell(channel, [type(e).__name__, base.__name__, str(e) or type(e).__name__])
        name, args, kwargs = unpack(channel.readline())
        call = lambda: scope[name](*args, **kwargs)


# --- the judge ------------------------------------------------------------------------------------
def judge(job, channel, end):
    """Run the tests and end() with a verdict. To them, the names of the program are functions,
    whose calls the candidate answers."""
    def refuse(value):
        end('infrastructure', f'the tests pass a {type(value).__name__}, which is not plain data')

    def ask(name, /, *args, **kwargs):
        line = ''
        with contextlib.suppress(OSError):
            tell(channel, pack([name, args, kwargs], refuse))
            line = channel.readline()
        if not line:
            end('exited', 'the program left, or was killed')
        value, *error = unpack(line)
        if not error:
            return value
        base, text = error
        # Tests could catch the first; the second would end an all(map(...)) well.
        if base in ('SystemExit', 'StopIteration'):
            end('exited' if base == 'SystemExit' else 'exception', f'{value}: {text}')
        raise type(value, (getattr(builtins, base),),
                   {'__init__': lambda *_: None, '__str__': lambda _: str(text)})

    program, tests, entry_point = job
    for source, file, outcome in (program, 'program', 'syntax'), (tests, 'tests', 'infrastructure'):
        try:
            code = compile(source, file, 'exec')
        except Exception as e:      # lone surrogates: UnicodeEncodeError; deep nesting: MemoryError
            end(outcome, f'{type(e).__name__}: {e}')
    linecache.cache['tests'] = 0, None, tests.splitlines(), 'tests'
    scope = {}
    try:
        for name, is_module in ask(program, 'candidate' if tests else '__main__').items():
            if is_module and name in sys.stdlib_module_names:
                scope[name] = __import__(name)              # tests use its `import math`
            # Its own abs() would judge it.
            elif name == entry_point or not (name.startswith('__') or hasattr(builtins, name)):
                scope[name] = functools.partial(ask, name)
        exec(code, scope)
        if entry_point and 'check' in scope:
            scope['check'](eval(entry_point, scope))
    except MemoryError:
        end('memory')
    except BaseException as e:
        *_, frame = traceback.extract_tb(e.__traceback__)
        text = f'{type(e).__name__}: {e}' if str(e) else frame.line     # of a bare assertion
        end('wrong' if isinstance(e, AssertionError) else 'exception', text)
    end('passed')


# --- the walls ------------------------------------------------------------------------------------
def refuse_sockets():
    """Return whether a filter of system calls (seccomp) refuses sockets from now on, also by
    io_uring and by the calls of other architectures."""
    known = {'x86_64': (0xC000003E, 41), 'aarch64': (0xC00000B7, 198)}  # and the number of socket()
    kind, number = known.get(os.uname().machine, (0, 0))
    code = ctypes.create_string_buffer(struct.pack(
        'HBBI' * 8,
        0x20, 0, 0, 4,                      # load the architecture
        0x15, 0, 5, kind,                   # another one: refuse
        0x20, 0, 0, 0,                      # load the number of the call
        0x15, 3, 0, number,                 # socket: refuse
        0x15, 2, 0, 425,                    # io_uring_setup: refuse
        0x35, 1, 0, 0x40000000,             # a call of x32: refuse
        0x06, 0, 0, 0x7FFF0000,             # allow
        0x06, 0, 0, 0x5000D))               # refuse: EACCES
    program = struct.pack('HP', 8, ctypes.addressof(code))
    return number > 0 and libc.prctl(22, 2, program, 0, 0) == 0


def landlock(folder):
    """Return whether Landlock denies writing outside of a folder, signals to others, and reading
    all but READABLE."""
    version = libc.syscall(444, None, 0, 1)                 # landlock_create_ruleset
    everything = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}.get(version, 0xFFFF)
    handled = (ctypes.c_uint64 * 3)(everything, 0, 3 if version >= 6 else 0)
    rules = libc.syscall(444, handled, 24, 0)
    for path, allowed in (READABLE | {folder: everything, os.devnull: 0x6}).items():
        opened = os.open(path, os.O_PATH)
        libc.syscall(445, rules, 1, struct.pack('=Qi', allowed, opened), 0)
        os.close(opened)
    denied = libc.syscall(446, rules, 0) == 0               # landlock_restrict_self
    return denied and version >= 3, denied and version >= 6, denied     # 3: truncating is a right


# --- both -----------------------------------------------------------------------------------------
def start(timeout, memory_mb, folder, caller, printed):
    """Fork the candidate and be the judge, which alone gets to know the tests. Does not return.
    caller, printed: descriptors."""
    def end(outcome, message=''):
        signal.setitimer(signal.ITIMER_REAL, 0)
        children = [pid]
        with contextlib.suppress(OSError):      # none is left, or there is no /proc
            while True:
                for child in children:
                    for kill in os.kill, os.killpg:
                        with contextlib.suppress(OSError):
                            kill(int(child), signal.SIGKILL)
                os.waitpid(-1, 0)
                with open(f'/proc/self/task/{os.getpid()}/children', encoding='utf-8') as f:
                    children = f.read().split()
        tell(wire, [outcome, message[:300]])
        os._exit(0)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.environ |= {'HOME': folder, 'TMPDIR': folder}
    os.chdir(folder)
    # Users, IPC and, for children, PIDs of its own: the candidate is alone.
    apart = LINUX and libc.unshare(0x38000000) == 0
    if LINUX:
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())      # none
        # NO_NEW_PRIVS: no sudo. SUBREAPER: it gets the orphans. PDEATHSIG: it dies with serve().
        for option, value in (38, 1), (36, 1), (4, 0), (1, signal.SIGKILL):
            libc.prctl(option, value, 0, 0, 0)
    wire = socket.socket(fileno=caller).makefile('rw')
    ours, theirs = socket.socketpair()
    pid = os.fork()
    limits = {'CPU': int(timeout) + 2, 'AS': memory_mb << 20, 'FSIZE': 16 << 20, 'NOFILE': 256,
              'NPROC': 64, 'CORE': 0}
    for name, value in limits.items():
        with contextlib.suppress(ValueError, OSError):      # a lower one stands; macOS, AS
            resource.setrlimit(getattr(resource, f'RLIMIT_{name}'), (value, value))
    if pid:
        theirs.close()
        channel = ours.makefile('rw')
        job = json.loads(wire.readline())
        signal.signal(signal.SIGALRM, lambda *_: end('timeout', f'not done in {timeout} s'))
        signal.setitimer(signal.ITIMER_REAL, timeout)
        judge(job, channel, end)
    ours.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setsid()
    walls = [False] * 4
    if LINUX:           # the judge needs no more walls: it runs no program
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        network, (writes, processes, reads) = refuse_sockets(), landlock(folder)
        walls = [network, writes, processes or apart, reads]
    tell(wire, walls)           # then the caller sends the job, which only the judge reads
    os.close(caller)
    candidate(theirs.makefile('rw'))


def serve():
    """Fork a judge for each line that comes, with two descriptors: for the job, and for what is
    printed."""
    if LINUX:
        if os.geteuid() == 0:
            libc.setresuid(65534, 0, 0)     # RLIMIT_NPROC does not bind whose real user is root
        libc.prctl(4, 0, 0, 0, 0)           # not DUMPABLE, nor are its forks: no moment to break in
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    line = socket.socket(fileno=0)
    line.send(b'.')
    while True:
        limits, files, *_ = socket.recv_fds(line, 4096, 2)
        if not files:
            break
        if not os.fork():
            start(*json.loads(limits), *files)
        for fd in files:
            os.close(fd)
    with contextlib.suppress(ChildProcessError):
        os.wait()       # the caller was killed; until the last judge has ended


if __name__ == '__main__':
    serve()
