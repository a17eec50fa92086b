"""The sandbox judges right: references, each outcome, what crosses the pipe, order, cleaning up."""
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from conftest import ROOT, shared

from extras.sandbox import Court, run_code, run_many


def test_all_references_of_human_eval_pass_and_no_empty_body_does():
    with gzip.open(shared('HumanEval.jsonl.gz'), 'rt', encoding='utf-8') as f:
        problems = [json.loads(line) for line in f]
    assert len(problems) == 164
    for body in None, '    pass\n':
        jobs = [(p['prompt'] + (body or p['canonical_solution']), p['test'], p['entry_point'])
                for p in problems]
        for p, result in zip(problems, run_many(jobs, timeout=20), strict=True):
            assert result.outcome in (('wrong', 'exception') if body else ('passed',)), (p['task_id'], result)


# --- outcomes -----------------------------------------------------------------------------------------------
ADD = 'def add(a, b):\n    return a + b\n'
PLAIN = r"""[None, True, 1, 10 ** 300, -0.0, 1e999, 1j, 'é\ud800\n', b'\xff', (), [(1,)], {1, (2,)},
          {(1, 2): {}}, frozenset('ab')]"""
OUTCOMES = [        # program, tests, outcome, a part of its message
    (ADD, 'assert add(1, 2) == 3', 'passed', ''),
    (ADD, 'assert add(1, 2) == 4', 'wrong', 'assert add(1, 2) == 4'),
    (ADD, 'assert add(1, 2) == 4, "sum"', 'wrong', 'AssertionError: sum'),
    (ADD, 'assert (', 'infrastructure', 'SyntaxError'),
    (ADD, 'import re\nadd(1, re.compile("a"))', 'infrastructure', 'is not plain data'),
    ('1 / 0', '', 'exception', 'ZeroDivisionError: division by zero'),
    ('assert __name__ == "__main__"', '', 'passed', ''),
    ('assert __name__ == "__main__"', 'pass', 'wrong', 'AssertionError'),
    ('def f(:', '', 'syntax', 'SyntaxError'),
    ('x = "\ud800"', '', 'syntax', ''), ('(' * 9999, '', 'syntax', ''),
    ('while True: pass', '', 'timeout', 'not done in 5 s'),
    ('x = bytearray(10 << 30)', '', 'memory', ''),
    ('def f(n): return f(n + 1)', 'f(0)', 'exception', 'RecursionError'),
    ('import os\nos._exit(0)', 'pass', 'exited', ''),
    ('import ctypes\nctypes.string_at(0)', 'pass', 'exited', ''),
    ('input()', '', 'exception', 'EOFError'),
    # what comes back: plain data as they are, strange results and exceptions
    ('def f(x): return x', f'assert f({PLAIN}) == {PLAIN}', 'passed', ''),
    ('class E(Exception):\n    def __str__(self): raise ValueError\ndef f(): raise E', 'f()', 'exception',
     'E'),
    ('def f(): return 10 ** 5000', 'assert f() == 10 ** 5000', 'passed', ''),
    # what a program raises or shadows does not judge
    ('def f(x): raise StopIteration', 'assert all(map(lambda x: f(x) == 1, [1, 2]))', 'exception', ''),
    ('def abs(x): return 0\ndef f(): return 5\nround = isinstance = abs', 'assert abs(f() - 1) < 0.1',
     'wrong', ''),
    # what tests may ask
    ('import collections\ndef f(s): return collections.Counter(s)',
     'assert f("aab") == {"a": 2, "b": 1}', 'passed', ''),
    ('import re\ndef f(s): return re.match("a", s)', 'assert f("a") and not f("b")', 'passed', ''),
    ('def bisect(x): return x + 1', 'assert bisect(1) == 2', 'passed', ''),      # a module's name
    ('def f(x): return x', 'import numpy\nf(numpy.ones(2))', 'infrastructure', 'not plain data'),
    ('import math\ndef f(): return 0.1 + 0.2', 'assert math.isclose(f(), 0.3)', 'passed', ''),
    ('class E(ValueError): pass\ndef f(): raise E("no")',
     'try:\n    f()\n    assert False\nexcept ValueError as e:\n    assert str(e) == "no"', 'passed', ''),
    ('def f(): return b"\\xff".decode()', 'try:\n    f()\nexcept UnicodeDecodeError: pass', 'passed', '')]


def test_each_outcome():
    jobs = [(program, tests) for program, tests, *_ in OUTCOMES]
    for (*job, outcome, words), result in zip(OUTCOMES, run_many(jobs, timeout=5), strict=True):
        assert result.outcome == outcome and words in result.message, (job, result)
    big = run_code('def f(): return "x" * (130 << 20)', 'assert f() == "x"', timeout=20, memory_mb=256)
    assert big.outcome == 'memory', big         # of the judge, or of the program that packs it
    assert run_code('def f(x): return 7', 'assert f(1) == 7', 'f').outcome == 'passed'      # without check()
    program = 'def sum(x): return 7'
    assert run_code(program, 'def check(f): assert f([1]) == 7 and sum([1]) == 7', 'sum').outcome == 'passed'


# --- what is around it --------------------------------------------------------------------------------------
def test_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for program in ('open("a", "w").write("b")', 'while True: pass', 'def f(:',
                    'import os\nos.mkdir("a")\nos.chmod("a", 0)', 'import os\nos.rmdir(os.getcwd())',
                    'import os\nfor _ in range(3000): os.mkdir("a"), os.chdir("a")\nos.chmod(".", 0)'):
        run_code(program, timeout=0.5)
        assert not list(tmp_path.iterdir()), program


def test_ctrl_c_ends_the_programs(tmp_path):
    code = f"""import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from extras import sandbox
signal.signal(signal.SIGINT, signal.default_int_handler)        # a shell's background job ignores it
print('on', flush=True)
list(sandbox.run_many([('import time\\ntime.sleep(987)',)] * 4, timeout=3, processes=2))"""
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env={**os.environ, 'TMPDIR': str(tmp_path)})
    process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(8) != 0
    assert not list(tmp_path.iterdir())


def test_equal_jobs_run_once_and_results_keep_their_order():
    slow, fast = ('import time\ntime.sleep(0.3)\nprint(1)',), ('print(2)',)
    with Court(processes=3) as court:
        assert court.submit(*slow) is court.submit(*slow)
    assert [result.stdout for result in run_many([slow, fast, slow], processes=3)] == ['1\n', '2\n', '1\n']


def test_one_process_forks_the_judges_of_a_whole_run():
    """It is the parent of each judge: Python starts once, however many courts there are."""
    tests = 'import os\nassert False, os.getppid()'
    first, second = run_code('pass', tests), *run_many([('1', tests)])
    assert first.message == second.message and first.outcome == 'wrong', (first, second)
