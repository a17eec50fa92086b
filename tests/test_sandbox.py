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
from conftest import ROOT, SHARED

from parts.eval.sandbox import run_code, run_many
from parts.eval.trial import pack, unpack

ADD = 'def add(a, b):\n    return a + b\n'


@pytest.fixture(scope='module')
def human_eval():
    path = SHARED / 'HumanEval.jsonl.gz'
    if not path.exists():
        pytest.skip(f'{path} is not there')
    with gzip.open(path, 'rt', encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def test_all_references_of_human_eval_pass(human_eval):
    jobs = [(p['prompt'] + p['canonical_solution'], p['test'], p['entry_point']) for p in human_eval]
    results = list(run_many(jobs, timeout=20))
    assert [r.outcome for r in results] == ['passed'] * 164, \
        [(p['task_id'], r) for p, r in zip(human_eval, results) if r.outcome != 'passed']


def test_no_empty_body_passes_human_eval(human_eval):
    jobs = [(p['prompt'] + '    pass\n', p['test'], p['entry_point']) for p in human_eval]
    assert {r.outcome for r in run_many(jobs, timeout=20)} <= {'wrong', 'exception'}


@pytest.mark.parametrize('program, tests, outcome, message', [
    (ADD, 'assert add(1, 2) == 3', 'passed', ''),
    (ADD, 'assert add(1, 2) == 4', 'wrong', 'assert add(1, 2) == 4'),
    (ADD, 'assert add(1, 2) == 4, "sum"', 'wrong', 'AssertionError: sum'),
    (ADD, 'assert add(1, "2") == 3', 'exception', 'TypeError: unsupported operand'),
    (ADD, 'assert sub(1, 2) == 3', 'exception', "NameError: name 'sub' is not defined"),
    (ADD, 'assert (', 'infrastructure', 'SyntaxError'),
    (ADD, 'add(1, print)', 'infrastructure', 'is not plain data'),
    ('1 / 0', '', 'exception', 'ZeroDivisionError: division by zero'),
    ('print(2)', '', 'passed', ''),
    ('assert __name__ == "__main__"', '', 'passed', ''),
    ('assert __name__ == "__main__"', 'pass', 'wrong', 'AssertionError'),
    ('def f(:', '', 'syntax', 'SyntaxError'),
    ('x = "\0"', '', 'syntax', ''), ('x = "\ud800"', '', 'syntax', ''), ('(' * 9999, '', 'syntax', ''),
    ('print(ascii("\\ud800"), "漢")', '', 'passed', ''),
    ('while True: pass', '', 'timeout', 'not done in 1 s'),
    ('x = bytearray(10 << 30)', '', 'memory', ''),
    ('def f(n): return f(n + 1)', 'f(0)', 'exception', 'RecursionError'),
    ('import sys\nsys.exit(0)', 'pass', 'exited', 'SystemExit: 0'),
    ('import os\nos._exit(0)', 'pass', 'exited', 'status 0'),
    ('import ctypes\nctypes.string_at(0)', 'pass', 'exited', 'status -11'),
    ('input()', '', 'exception', 'EOFError'),
])
def test_each_outcome(program, tests, outcome, message):
    result = run_code(program, tests, timeout=1 if outcome == 'timeout' else 20)
    assert result.outcome == outcome and message in result.message, result


@pytest.mark.parametrize('program, tests, outcome', [
    ('def f(): return object()', 'g = f()\nassert str(f) and f(g)', 'exception'),
    ('def f(x): return x', 'f(print)', 'infrastructure'),       # the tests made this one
    ('class E(Exception):\n    def __str__(self): raise ValueError\ndef f(): raise E', 'f()', 'exception'),
    ('class E(SystemExit):\n    def __str__(self): raise ValueError\ndef f(): raise E', 'f()', 'exited'),
    ('def f(): return 10 ** 5000', 'assert f() == 10 ** 5000', 'passed'),
    ('def f(): return -10 ** 5000', 'assert f() == 10 ** 5000', 'wrong'),
    ('def f(): return "x" * (200 << 20)', 'assert f() == "x"', 'memory')])
def test_strange_results_and_exceptions_count_as_what_they_are(program, tests, outcome):
    assert run_code(program, tests, timeout=20).outcome == outcome


def test_plain_data_crosses_the_pipe_and_comes_back_equal():
    values = [None, True, 1, 10 ** 300, -0.0, math.inf, 1j, 'é\ud800\n', b'\xff', (), [(1,)],
              {1, (2,)}, {(1, 2): {}}, frozenset('ab')]
    assert [unpack(json.loads(json.dumps(pack(v)))) for v in values] == values
    tests = f'values = {values!r}'.replace('inf', '1e999') + '\nassert same(values) == values'
    assert run_code('def same(x): return x', tests).outcome == 'passed'


@pytest.mark.parametrize('program, tests', [
    ('import collections\ndef f(s): return collections.Counter(s)',
     'assert f("aab") == {"a": 2, "b": 1}'),
    ('import re\ndef f(s): return re.match("a", s)', 'assert f("a") and not f("b")'),
    ('import math\ndef f(): return 0.1 + 0.2', 'assert math.isclose(f(), 0.3)'),
    ('class E(ValueError): pass\ndef f(): raise E("no")',
     'try:\n    f()\n    assert False\nexcept ValueError as e:\n    assert str(e) == "no"'),
    ('def f(): return b"\\xff".decode()', 'try:\n    f()\nexcept UnicodeDecodeError: pass'),
    ('def sum(x): return 7', 'def check(f): assert f([1]) == 7 and sum([1]) == 7')])
def test_what_tests_may_ask(program, tests):
    result = run_code(program, tests, 'sum' if 'def sum' in program else '')
    assert result.outcome == 'passed', result


def test_results_come_in_order_and_output_is_kept():
    jobs = [(f'import time\ntime.sleep({(5 - i) / 20})\nprint({i})',) for i in range(6)]
    assert [r.stdout for r in run_many(jobs, processes=3, timeout=20)] == [f'{i}\n' for i in range(6)]


def test_nothing_stays_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for program in ('open("a", "w").write("b")', 'while True: pass', 'def f(:',
                    'import os\nos.mkdir("a")\nos.chmod("a", 0)', 'import os\nos.rmdir(os.getcwd())'):
        run_code(program, timeout=1)
        assert not list(tmp_path.iterdir()), program


def test_a_broken_interpreter_is_not_the_models_fault(monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    assert run_code('pass').outcome == 'infrastructure'
    monkeypatch.setattr(sys, 'executable', '/nonexistent')
    with pytest.raises(FileNotFoundError):
        run_code('pass')


def test_windows_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'win32')
    with pytest.raises(ValueError, match='needs Linux or macOS'):
        run_code('pass')


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
