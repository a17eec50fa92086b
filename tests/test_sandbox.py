"""The sandbox judges right: references, each outcome, what crosses the pipe, order, cleaning up."""
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from accidents import PLACES
from conftest import ROOT, refused, shared

from parts.eval import sandbox
from parts.eval.sandbox import Court, run_code, run_many
from parts.eval.trial import pack, unpack


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
OUTCOMES = [        # program, tests, outcome, a part of its message
    (ADD, 'assert add(1, 2) == 3', 'passed', ''),
    (ADD, 'assert add(1, 2) == 4', 'wrong', 'assert add(1, 2) == 4'),
    (ADD, 'assert add(1, 2) == 4, "sum"', 'wrong', 'AssertionError: sum'),
    (ADD, 'assert add(1, "2") == 3', 'exception', 'TypeError: unsupported operand'),
    (ADD, 'assert (', 'infrastructure', 'SyntaxError'),
    (ADD, 'add(1, print)', 'infrastructure', 'is not plain data'),
    ('1 / 0', '', 'exception', 'ZeroDivisionError: division by zero'),
    ('assert __name__ == "__main__"', '', 'passed', ''),
    ('assert __name__ == "__main__"', 'pass', 'wrong', 'AssertionError'),
    ('def f(:', '', 'syntax', 'SyntaxError'),
    ('x = "\0"', '', 'syntax', ''), ('x = "\ud800"', '', 'syntax', ''), ('(' * 9999, '', 'syntax', ''),
    ('while True: pass', '', 'timeout', 'not done in 5 s'),
    ('x = bytearray(10 << 30)', '', 'memory', ''),
    ('def f(n): return f(n + 1)', 'f(0)', 'exception', 'RecursionError'),
    ('import sys\nsys.exit(0)', 'pass', 'exited', 'SystemExit: 0'),
    ('import os\nos._exit(0)', 'pass', 'exited', 'status 0'),
    ('import ctypes\nctypes.string_at(0)', 'pass', 'exited', 'status -11'),
    ('input()', '', 'exception', 'EOFError'),
    # strange results and exceptions
    ('def f(): return object()', 'g = f()\nassert str(f) and f(g)', 'exception', ''),
    ('def f(x): return x', 'f(print)', 'infrastructure', ''),       # the tests made this one
    ('class E(Exception):\n    def __str__(self): raise ValueError\ndef f(): raise E', 'f()', 'exception',
     ''),
    ('def f(): return 10 ** 5000', 'assert f() == 10 ** 5000', 'passed', ''),
    ('def f(): return "x" * (200 << 20)', 'assert f() == "x"', 'memory', ''),
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
    assert run_code('print(2)').stdout == '2\n'
    assert run_code('def f(x): return 7', 'assert f(1) == 7', 'f').outcome == 'passed'      # without check()
    program = 'def sum(x): return 7'
    assert run_code(program, 'def check(f): assert f([1]) == 7 and sum([1]) == 7', 'sum').outcome == 'passed'


def test_plain_data_crosses_the_pipe_and_comes_back_equal():
    values = [None, True, 1, 10 ** 300, -0.0, math.inf, 1j, 'é\ud800\n', b'\xff', (), [(1,)],
              {1, (2,)}, {(1, 2): {}}, frozenset('ab')]
    assert [unpack(json.loads(json.dumps(pack(v)))) for v in values] == values
    tests = f'values = {values!r}'.replace('inf', '1e999') + '\nassert same(values) == values'
    assert run_code('def same(x): return x', tests).outcome == 'passed'


# --- what is around it --------------------------------------------------------------------------------------
def test_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for program in ('open("a", "w").write("b")', 'while True: pass', 'def f(:',
                    'import os\nos.mkdir("a")\nos.chmod("a", 0)', 'import os\nos.rmdir(os.getcwd())'):
        run_code(program, timeout=0.5)
        assert not list(tmp_path.iterdir()), program


def test_a_broken_interpreter_is_not_the_models_fault(monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    assert run_code('pass').outcome == 'infrastructure'


def test_ctrl_c_ends_the_programs(tmp_path):
    code = f"""import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from parts.eval import sandbox
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


# --- Court: judges for programs that come one by one --------------------------------------------------------
@pytest.fixture
def events(monkeypatch):
    """What happens in which order: a judge starts, a program runs. No process is started."""
    seen = []

    class Judges:
        error = ''

        def __init__(self, timeout, memory_mb):
            seen.append('judge')

        def run(self, program, tests='', entry_point=''):
            seen.append(program)
            if program.startswith('kill'):
                self.error = 'killed'
                return sandbox.Result('exited', processes_denied=program == 'kill, held')
            time.sleep(float(program))
            return sandbox.Result('passed', program)

        def close(self):
            seen.append('closed')

    monkeypatch.setattr('.'.join(PLACES['judges']), Judges)
    return seen


def test_results_come_in_order_and_equal_jobs_run_once(events):
    with Court(processes=2) as court:
        futures = [court.submit('0', 'assert f()', 'f') for _ in range(5)]
        futures.append(court.submit('0', 'assert g()', 'g'))
        assert len({id(f.result()) for f in futures}) == 2
    assert events.count('0') == 2
    assert [r.message for r in run_many([('0.02',), ('0',), ('0.01',), ('0',)])] == ['0.02', '0', '0.01', '0']


def test_a_judge_that_was_killed_is_replaced_only_where_a_wall_held_the_program(events):
    """Else it may be alive, and could look into the start of the next judge."""
    with Court(processes=1) as court:
        court.submit('kill, held').result()
        assert court.submit('0').result().outcome == 'passed' and events.count('judge') == 2
    with Court(processes=1) as court:
        court.submit('kill').result()
        court.submit('0').result()
        assert events.count('judge') == 3           # no new one starts
    before = list(events)
    refused('killed its judge', list, run_many([('0',)]))
    assert events == before
