"""Where a system refuses namespaces, and Landlock, too: no program forges a verdict or reads the caller."""
import json
import subprocess
import sys

import pytest
from conftest import ROOT
from test_sandbox_attacks import LANDLOCK, SECCOMP, without

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
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
print(json.dumps([vars(r) for r in sandbox.run_many(jobs, timeout=1, processes=2)]))
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
WRONG = 'def add(a, b):\n    return -1\n'
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


def judged(programs, path, *without_these):
    command = [sys.executable, '-c', REFUSED, '-c', CALLER, without(path, *without_these)]
    done = subprocess.run(command, input=json.dumps(programs), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('missing', [(LANDLOCK, SECCOMP), ()], ids=['no wall', 'Landlock and seccomp'])
def test_no_attack_becomes_a_verdict_a_secret_or_a_traceback(missing, tmp_path):
    failures = 'wrong', 'exception', 'exited', 'timeout', 'infrastructure'
    programs = [WRONG + ABOVE + attack for attack in ATTACKS.values()]
    for name, result in zip(ATTACKS, judged(programs, tmp_path / 'trial.py', *missing), strict=True):
        assert result['outcome'] in failures, (name, result)
        assert 'secret' not in result['stdout'] and 'opened' not in result['stdout'], (name, result)
        assert 'wrote' not in result['stdout'], (name, result)
        if missing:
            assert not result['writes_denied'] and not result['network_denied'], (name, result)
            assert not result['processes_denied'], (name, result)


def test_honest_programs_are_judged_right_without_any_wall(tmp_path):
    good, loop = 'def add(a, b):\n    return a + b\n', 'while True: pass'
    found = judged([good, WRONG, loop, good], tmp_path / 'trial.py', LANDLOCK, SECCOMP)
    assert [r['outcome'] for r in found] == ['passed', 'wrong', 'timeout', 'passed']
