"""The sandbox: ordinary programs are judged as in any Python, each outcome is told, and no cheap trick
passes, breaks what is yours or stays, with and without what the kernel allows."""
import contextlib, fcntl, json, os, pathlib, re, signal, subprocess, sys, time

import pytest
from attacks import ATTACKS, BOMBS, CHEATS, CHECK, ODD, OUTCOMES, PROGRAMS, STAY, WRONG, sections
from conftest import ROOT, slow, with_each

from extras.tasks.sandbox import run_many

LINUX = pytest.mark.skipif(not os.path.exists('/proc/self/ns/pid'), reason='needs Linux')
NAMESPACES, FILTER = 'libc.unshare(', 'libc.prctl(22, 2, program, 0, 0) == 0'
MAPS = 'f.write(text)'
WAIT = 'timeout + 10'               # seconds for a process that was stopped: attacks wait for less
REFUSALS = {NAMESPACES: 'bool(', FILTER: 'False', WAIT: 'timeout + 2', MAPS: 'f.write("no")'}
# Who runs it: an id and how many namespaces it may have, see LESS; and what is refused.
MODES = {'all': ('', ()), 'a user': ('1000 99', ()), 'a user without namespaces': ('1000 0', ()),
         'only limits': ('', [NAMESPACES, FILTER])}
# Most attacks meet what 'only limits' and 'a user' have; the other mode is both.
MOST_MODES = [pytest.param(mode, marks=[slow] * (mode == 'a user without namespaces'))
              for mode in MODES]
# A container in which root can be nobody else; root without rights; half a wall
RIGHTS = {'root alone': ('0 99', ()), 'no rights': ('none', ()), 'namespaces without users': ('', [MAPS])}
# Walls cover /tmp, so a Python that is there runs programs without them.
IN_TMP = any(f'{prefix}/'.startswith('/tmp/') for prefix in (sys.prefix, sys.base_prefix))
CONFINED = () if IN_TMP else ('all', 'a user')


@pytest.fixture(autouse=True)
def in_turn(tmp_path_factory):
    """Bombs use up all processes that a user may have, so of pytest's workers one at a time is here."""
    with open(tmp_path_factory.getbasetemp().parent / 'sandbox.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_right_programs_pass_and_wrong_ones_have_a_wrong_value():
    jobs = []
    for _, part in PROGRAMS:
        program, before, after, tests = re.split('\n--- (.*) => (.*)\n', part)
        jobs += [(program, tests, 'f'), (program.replace(before, after), tests, 'f')]
    for i, result in enumerate(run_many(jobs, timeout=20)):
        assert result.outcome == ('passed', 'wrong')[i % 2], (PROGRAMS[i // 2][0], result)


def test_each_outcome_is_told_with_its_reason():
    cases = sections(OUTCOMES)
    cases += [('syntax', text) for text in ('x = "\ud800"', '(' * 9999, 'x = ' + '7' * 3_000_000)]
    jobs = [part.split('\n---') for _, part in cases]
    for (title, _), job, result in zip(cases, jobs, run_many(jobs, 4, 256), strict=True):
        outcome, _, words = title.partition(': ')
        assert result.outcome == outcome and words in result.message, (job, result)


# --- with more or less of the kernel's help -------------------------------------------------------
# Less rights: another id, which alone is known, and so many namespaces; or no capability for root.
LESS = """import ctypes, os, sys
who, libc, us = sys.argv.pop(1), ctypes.CDLL(None), (os.getuid(), os.getgid())
if who == 'none':
    for capability in range(64): libc.prctl(24, capability, 0, 0, 0)
elif libc.unshare(0x10000000) == 0:
    id, most = who.split()
    for path, text in (('self/setgroups', 'deny'), ('self/uid_map', f'{id} {us[0]} 1'),
                       ('self/gid_map', f'{id} {us[1]} 1'), ('sys/user/max_user_namespaces', most)):
        with open(f'/proc/{path}', 'w') as f:
            f.write(text)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# Each group of jobs has a caller of its own, all of them at once.
CALLER = """import json, os, sys
folder, timeout = sys.argv[1:]
sys.path.insert(0, folder)
import sandbox
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


def without(folder, refused):
    """Write a copy of sandbox.py into this folder, to which the kernel refuses this."""
    folder.chmod(0o777)
    text = (ROOT / 'extras/tasks/sandbox.py').read_text()
    for call in refused:
        assert call in text
        text = text.replace(call, REFUSALS[call])
    (folder / 'sandbox.py').write_text(text)


def judged(groups, folder, mode, timeout=1, more=()):
    """The results of all jobs, which leave no process."""
    who, refused = (MODES | RIGHTS)[mode]
    without(folder, [*refused, *more])
    less = ['-c', LESS, who] if who else []
    done = subprocess.run([sys.executable, *less, '-c', CALLER, folder, str(timeout)], timeout=120,
                          input=json.dumps(groups), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = 'warning: programs have limits but no isolation; see sandbox.py'
    times = len(groups) * (mode not in CONFINED)         # each caller says it once
    assert ''.join(done.stderr.split('\n')) == said * times
    wait_for(lambda: is_gone(folder))
    return json.loads(done.stdout)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(folder):
    """Whether no process runs the copy in this folder."""
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if f'{folder}/sandbox.py' in path.read_text(errors='replace'):
                return False
    return True


@LINUX
@with_each('mode', MOST_MODES)
def test_no_cheat_passes_and_no_attack_reads_or_breaks_what_is_yours(mode, tmp_path):
    attacks = {name: f'said = []\nprint = lambda *words: said.append(words)\n{code}\nassert not said, said'
               for name, code in ATTACKS.items()}
    jobs = {name: [[WRONG + code, CHECK, 'add']] for name, code in (CHEATS | attacks).items()
            if (mode, name) != ('only limits', 'sockets')}      # only the filter refuses sockets
    for name, result in zip(jobs, judged([*jobs.values()], tmp_path, mode, 3, [WAIT]), strict=True):
        assert result['outcome'] in ('wrong', 'exception', 'exited', 'timeout'), (name, result)
        assert 'opened' not in result['message'] and 'secret' not in result['message'], (name, result)


@LINUX
@with_each('mode', ['all', 'a user without namespaces', *RIGHTS])
def test_odd_programs_pass_whatever_rights_there_are(mode, tmp_path):
    jobs = [part.split('\n--- ') for _, part in ODD]
    results = judged([[[program, f'assert {test}'] for program, test in jobs]], tmp_path, mode, 30)
    assert [(name, result) for (name, _), result in zip(ODD, results, strict=True)
            if (result['outcome'], result['confined']) != ('passed', mode in CONFINED)] == []


@LINUX
@with_each('mode', MOST_MODES)
def test_bombs_end_in_time_and_no_process_is_left(mode, tmp_path):
    is_free = mode == 'only limits'         # there a program can leave its group
    jobs = {name: code for name, code in BOMBS.items() if not (is_free and 'session' in name)}
    results = judged([[[code] for code in jobs.values()]], tmp_path, mode)
    for name, result in zip(jobs, results, strict=True):
        assert (result['outcome'] == 'passed') == name.startswith('fine'), (name, result)
        assert result['confined'] == (mode in CONFINED), result


@LINUX
@with_each('how', [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_when_the_caller_ends(how, tmp_path):
    """Nor does it wait for the programs, which could take minutes."""
    without(tmp_path, [NAMESPACES])
    up = tmp_path / 'up'
    program = f'{STAY}open({str(up)!r}, "w"), time.sleep(999)'
    process = subprocess.Popen([sys.executable, '-c', f'import sys\nsys.path.insert(0, {str(tmp_path)!r})\n'
                                f'import sandbox\nsandbox.run_code({program!r}, timeout=999)'],
                               stderr=subprocess.DEVNULL)
    wait_for(up.exists)
    process.send_signal(how)
    process.wait(60)
    wait_for(lambda: is_gone(tmp_path))
