"""
Running programs that a model wrote, and judging them by tests.

    run_code('def add(a, b): return a + b', 'assert add(1, 2) == 3').outcome        # 'passed'
    run_code(prompt + completion, test, entry_point)    # HumanEval: test defines check(candidate)
    for result in run_many([(program, tests, entry_point), ...]): ...       # in parallel, in order

A guard against accidents and cheating, NOT A SECURITY BOUNDARY: same kernel, same user. For a
stranger's model, put all this into a container or a virtual machine.

Two processes for each program: the judge runs the tests, the candidate runs the program. The judge
asks the candidate to call its functions, and receives plain data: None, numbers, str, bytes; list,
tuple, set, dict of these. Any other object arrives as a text, such as '<Match>'. So a program does
not pass by leaving early, printing, patching builtins, returning objects that equal everything, or
searching memory for a password: there is none. It can still know answers by heart, lie where tests
trust its other functions (HumanEval/32, 38, 50) or, without tests, pretend that it finished. Tests
cannot use its classes or constants, nor see changed arguments.

Four walls stand around a candidate on Linux, one mechanism for each; Result says which stood.
- network_denied: a filter of system calls (seccomp) refuses sockets, on x86-64 and ARM64.
- writes_denied: Landlock (Linux 6.2) refuses to write outside of the program's folder. Modes and
  dates of your files can still be changed, and the disk can be filled until the program ends.
- reads_denied: Landlock (5.13) refuses to read any file but those of Python, its packages and the
  system's libraries; names and sizes stay visible. Without it a program can read what you can, also
  the tests and their solutions.
- processes_denied: a user namespace hides other processes, or, where none is allowed, Landlock
  (6.12) refuses signals to them. Without both a program can kill or stop what you can, leave
  processes behind and spoil the programs beside it.
Without walls, too, verdicts come only from judges. Nothing but the judge reads the job, and the
caller, the judge and what forks it are not dumpable on Linux, which closes their memory, pipes and
environment, from the first program until the caller ends (a debugger needs root, too). A judge that
was killed has judged nothing. But whoever can write your files can change these scripts. Limits
hold for each of at most 64 processes; without namespaces these are all of the user's. macOS has no
walls and does not enforce memory_mb.

Copy this file and trial.py, the other side of the pipe: they need the standard library.
"""
import atexit, concurrent.futures, contextlib, ctypes, dataclasses, functools, json, os, socket
import subprocess, sys, tempfile, time

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
TRIAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'trial.py')


class Mistake(ValueError):
    """What a user can put right. Scripts print it as one line instead of a traceback."""


@dataclasses.dataclass
class Result:
    # passed | wrong: an assertion failed | exception | syntax: does not parse | timeout | memory |
    # exited: left before the end | infrastructure: harness or tests failed, not the model
    outcome: str
    message: str = ''           # the last line of the traceback; of a bare assertion, its source
    stdout: str = ''            # and stderr: the first 64 KB
    seconds: float = 0.0        # of wall-clock time
    network_denied: bool = False
    writes_denied: bool = False
    processes_denied: bool = False
    reads_denied: bool = False


@functools.cache
def forker():
    """Start the process that forks a judge for each program, and return the socket to it. A caller
    has one for life: Python starts once. If a program kills it, no other starts, because in the
    moment of its start that program could take it over."""
    if sys.platform == 'win32':
        raise Mistake('running programs needs Linux or macOS, or WSL, because Windows has no '
                      'limits for them')
    if sys.platform == 'linux':
        # Not DUMPABLE: our memory, environment and pipes are closed to programs.
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    env = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'OMP_NUM_THREADS': '1',
           'MALLOC_ARENA_MAX': '1'}
    line, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, '-I', '-u', '-X', 'int_max_str_digits=0', TRIAL], cwd='/', env=env,
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
    atexit.register(process.kill)
    line.recv(1)            # from now on it is not dumpable, either
    return line


def run_code(program, tests='', entry_point='', timeout=3.0, memory_mb=512):
    """Return the Result of one program. tests: Python that raises AssertionError where it is wrong;
    with an entry_point, they define check(candidate), which gets that function. timeout: seconds.
    Mistake on Windows."""
    line = forker()
    began = time.monotonic()
    walls = []
    outcome, message = 'infrastructure', f'{TRIAL} did not start, or was killed by a program'
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout + 10)           # for a judge that was stopped
    with (ours, tempfile.TemporaryFile() as printed,
          tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder):
        with contextlib.suppress(OSError, ValueError), ours.makefile('rw') as judge:
            with theirs:
                limits = json.dumps([timeout, memory_mb, folder]).encode()
                socket.send_fds(line, [limits], [theirs.fileno(), printed.fileno()])
            walls = json.loads(judge.readline())        # of the candidate that waits
            # Anything but a verdict proves nothing.
            outcome, message = 'exited', 'the judge was killed or stopped'
            print(json.dumps([program, tests, entry_point]), file=judge, flush=True)
            outcome, message = json.loads(judge.readline())
        text = os.pread(printed.fileno(), 64 << 10, 0).decode('utf-8', 'replace')
    return Result(outcome, message, text, time.monotonic() - began, *walls)


class Court:
    """Judges at work: with Court() as court: court.submit(program, tests, entry_point).result().
    Equal jobs run once. processes: how many at once; 0 = one per core, at most 16. Leaving waits
    for the programs that run, and drops those that wait."""

    def __init__(self, timeout=3.0, memory_mb=512, processes=0):
        self.limits = timeout, memory_mb
        self.pool = concurrent.futures.ThreadPoolExecutor(processes or min(16, CORES))
        self.known = {}

    def submit(self, program, tests='', entry_point=''):
        """Return the future Result of a program."""
        forker()            # here, because threads of the pool would start several
        job = program, tests, entry_point
        if job not in self.known:
            self.known[job] = self.pool.submit(run_code, *job, *self.limits)
        return self.known[job]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)


def run_many(jobs, timeout=3.0, memory_mb=512, processes=0):
    """Yield the Result of each (program,), (program, tests) or (program, tests, entry_point), in
    order."""
    with Court(timeout, memory_mb, processes) as court:
        for future in [court.submit(*job) for job in jobs]:
            yield future.result()
