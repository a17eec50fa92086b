"""
Running programs that a model wrote, and judging them by tests.

    run_code('def add(a, b): return a + b', 'assert add(1, 2) == 3').outcome        # 'passed'
    run_code(prompt + completion, test, entry_point)        # HumanEval: test defines check(candidate)
    for result in run_many([(program, tests, entry_point), ...]): ...       # all cores, in order

A guard against accidents and cheating, NOT A SECURITY BOUNDARY: same kernel, same user. For a stranger's
model, put all this into a container or a virtual machine.

Two processes for each program: the judge runs the tests, the candidate runs the program. The judge asks the
candidate to call its functions, and receives plain data: None, numbers, str, bytes; list, tuple, set, dict
of these. So a program does not pass by leaving early, printing, patching builtins, returning objects that
equal everything, or searching memory for a password: there is none. It can still know answers by heart, lie
where tests trust its other functions (HumanEval/32, 38, 50) or, without tests, pretend that it finished.
Tests cannot use its classes or constants, nor see changed arguments. Other objects arrive as true, and equal
to nothing.

Four walls, on Linux; Result says which of them stood.
- network_denied: by a namespace, or by a filter of system calls (seccomp: x86-64, ARM64), which alone closes
  virtual machines' sockets (AF_VSOCK).
- writes_denied: by a read-only root and 64 MB of memory, or by Landlock (Linux 6.2), under which modes and
  dates of files can be changed.
- processes_denied, no signal to others and no look into them: by a namespace, or by Landlock (6.12). Else a
  program can kill or stop what you can, leave processes behind and spoil the programs beside it.
- reads_denied, no file but those of Python, its packages and the system's libraries, and no /proc: by a root
  of its own, or by Landlock (5.13), which leaves names and sizes of files visible. Else a program can read
  what you can, also the tests and their solutions.
Without walls, too, verdicts come only from the judge: on Linux, caller and judge are not dumpable, which
closes their memory, pipes and environment; a judge that was killed has judged nothing. But whoever can write
your files can change these scripts. Limits hold for each of at most 64 processes; without namespaces, all of
the user's count. macOS has no walls and does not enforce memory_mb.

Copy this file and trial.py, the other side of the pipe: they need the standard library.
"""
import concurrent.futures, ctypes, dataclasses, json, os, queue, shutil, subprocess, sys, tempfile
import threading, time

CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
TRIAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'trial.py')


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
    reads_denied: bool = False


class Judges:
    """A process that forks a judge for each program: Python starts once, before any program runs."""

    def __init__(self, timeout, memory_mb):
        self.timeout = timeout
        self.count = 0
        self.walls = [False] * 4
        self.error = ''
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.printed = tempfile.TemporaryFile(buffering=0)      # by programs and judges
        env = {'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8', 'OMP_NUM_THREADS': '1',
               'OPENBLAS_NUM_THREADS': '1', 'MALLOC_ARENA_MAX': '1'}
        limits = json.dumps([timeout, memory_mb, self.folder.name])
        self.process = subprocess.Popen([sys.executable, '-I', '-u', TRIAL, limits], cwd='/', env=env,
                                        stdin=-1, stdout=-1, stderr=self.printed, start_new_session=True)
        first = self.run('')            # an empty program: all is there before any other runs
        if first.outcome != 'passed':
            self.error = first.stdout.strip().split('\n')[-1] or first.message

    def run(self, program, tests='', entry_point=''):
        if self.error:
            return Result('infrastructure', self.error, '', 0.0, *self.walls)
        began = time.monotonic()
        self.printed.truncate(self.printed.seek(0))
        alarm = threading.Timer(self.timeout + 10, self.process.kill)       # if the judge is stopped
        alarm.start()
        try:
            self.process.stdin.write(json.dumps([program, tests, entry_point]).encode() + b'\n')
            self.process.stdin.flush()
            *walls, outcome, message = line = json.loads(self.process.stdout.readline())
            if [*map(type, line)] != [bool] * 4 + [str] * 2:
                raise ValueError(line)
            self.walls = walls
        except (OSError, ValueError, TypeError):        # anything but a verdict proves nothing
            outcome, message = 'exited', 'the judge was killed or stopped'
            self.error = 'a program killed or stopped its judge, and there is no other'
            self.process.kill()
        alarm.cancel()
        shutil.rmtree(f'{self.folder.name}/{self.count}', ignore_errors=True)
        self.count += 1
        text = os.pread(self.printed.fileno(), 64 << 10, 0).decode('utf-8', 'replace')
        return Result(outcome, message, text, time.monotonic() - began, *self.walls)

    def close(self):
        self.process.communicate()      # closes stdin: the judge that waits leaves, the process after it
        self.printed.close()
        self.folder.cleanup()


RUNNING = []            # of each Court at work, whether this process was dumpable before
FREED = []              # why no more programs may run here: one that no wall holds may still be alive


class Court:
    """Judges on all cores: with Court() as court: court.submit(program, tests, entry_point).result(). Equal
    jobs run once. processes: how many at once; 0 = one per core. Leaving waits for the programs that run."""

    def __init__(self, timeout=3.0, memory_mb=512, processes=0):
        self.timeout = timeout
        self.memory_mb = memory_mb
        self.processes = processes or CORES
        self.pool = concurrent.futures.ThreadPoolExecutor(self.processes)
        self.prctl = ctypes.CDLL(None).prctl if sys.platform == 'linux' else lambda *_: 0
        self.idle = queue.SimpleQueue()
        self.everyone = []
        self.known = {}

    def __enter__(self):
        return self

    def submit(self, *job):
        """The future Result of a program, perhaps with tests and an entry point. ValueError on Windows."""
        if sys.platform == 'win32':
            raise ValueError('running programs needs Linux or macOS, or WSL: Windows has no limits for them')
        if not self.known:
            if FREED:
                raise ValueError(FREED[0])
            RUNNING.append(self.prctl(3, 0, 0, 0, 0))
            self.prctl(4, 0, 0, 0, 0)   # not DUMPABLE: our memory, environment and pipes are closed to them
            for _ in range(self.processes):     # all, before any program runs
                self.call_judges()
        if job not in self.known:
            self.known[job] = self.pool.submit(self.run, job)
        return self.known[job]

    def call_judges(self):
        self.everyone.append(Judges(self.timeout, self.memory_mb))
        self.idle.put(self.everyone[-1])

    def run(self, job):
        judges = self.idle.get()
        was_well = not judges.error
        result = judges.run(*job)
        if judges.error and result.processes_denied:    # else a program could look into the new one's start
            self.call_judges()
            return result
        if judges.error and was_well:
            FREED.append('a program that no wall held killed its judge, and may wait for the next: run the '
                         'rest in a new process, better where user namespaces or Landlock are allowed')
        self.idle.put(judges)
        return result

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)
        for judges in self.everyone:
            judges.close()
        if self.known:
            before = RUNNING.pop()
            self.prctl(4, 0 if RUNNING else before, 0, 0, 0)


def run_code(program, tests='', entry_point='', timeout=3.0, memory_mb=512):
    """The Result of one program. tests: Python that raises AssertionError where it is wrong; with an
    entry_point, they define check(candidate), which gets that function. timeout: seconds."""
    result, = run_many([(program, tests, entry_point)], timeout, memory_mb, 1)
    return result


def run_many(jobs, timeout=3.0, memory_mb=512, processes=0):
    """Yields the Result of each (program,), (program, tests) or (program, tests, entry_point), in order."""
    jobs = list(jobs)
    with Court(timeout, memory_mb, min(processes or CORES, len(jobs))) as court:
        for future in [court.submit(*job) for job in jobs]:
            yield future.result()
