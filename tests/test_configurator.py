"""Settings arrive as the user meant them; an error ends a script with a code that says its kind."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, each_is_a_mistake, machine, mistake, ok, run

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from typing import Literal
from configurator import Mistake, configure, set_by

steps = 10                  # optimizer steps
rate = 0.5                  # >= 11: [0, 9**9**9], open(x)
name = 'base'               # what # the run is called
flag = False
seed: int | None = None     # None = the clock
note: str | None = None
warmup: int | float = 0.1
kind: Literal['none', 'big'] = 'none'
sweep = ()
sources = {'a': 1.0}        # weights
out_dir = 'out'
init_from = 'scratch'
overwrite = False
allow_code_execution = False
reward = 'problems'
_hidden = 1
BOUNDS = {'steps': (1, 100)}
config = configure(globals(), BOUNDS)
later = 3                   # derived
assert all(globals()[key] == value for key, value in config.items() if key != 'preset')
print('RESULT ' + json.dumps(config))
'''


@pytest.fixture
def play(tmp_path):
    """play(*arguments, body=code after configure, **config files) -> the finished process."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)

    def play(*arguments, body='', processes=1, env=None, **files):
        for name, text in {'script': HEAD + body, **files}.items():
            (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        return run(tmp_path / 'script.py', *arguments, cwd=tmp_path, env=env, processes=processes)
    return play


def result(process):
    """The settings of that script, and their preset."""
    return json.loads(ok(process).partition('RESULT ')[2])


def test_what_a_terminal_cannot_show_becomes_a_question_mark(tmp_path):
    shutil.copy(ROOT / 'configurator.py', tmp_path)
    (tmp_path / 'script.py').write_text(HEAD + "print('\\u4e2d', '\\ufffd')", encoding='utf-8')
    narrow = {**os.environ, 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
    printed = subprocess.check_output([sys.executable, 'script.py'], cwd=tmp_path, env=narrow)
    assert printed.splitlines()[-1] == b'? ?'


# As in Python 3.14: the annotations of a module are made when it is asked for them.
LATER = '''
import sys, types
class Module(types.ModuleType):
    @property
    def __annotations__(self):
        return {'seed': int | None, 'kind': Literal['none', 'big']}
sys.modules['__main__'].__class__ = Module
globals().pop('__annotations__', None)
'''


def test_types_are_known_though_the_module_makes_them_late(play):
    script = HEAD.replace('BOUNDS =', f'{LATER}BOUNDS =')
    assert result(play('--seed=3', script=script))['seed'] == 3
    mistake(play('--kind=small', script=script), "kind='small' must be none or big")

def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, *words.split(' & '))
    assert len(process.stderr.splitlines()) == 1


# --- values ---------------------------------------------------------------------------------------
def test_files_and_flags_apply_from_left_to_right_and_a_run_is_named_after_what_changed_it(play):
    for arguments, steps, name, preset in (
            ('--seed=3', 10, 'base', 'defaults'), ('./a.py --seed=3', 1, 'a', 'a.py'),
            ('--steps=3 b.py a.py', 1, 'a', 'a.py'),
            ('--steps 3 b.py --name x', 2, 'x', 'b.py, command line')):
        got = result(play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2'))
        assert (got['steps'], got['name'], got['preset']) == (steps, name, preset), arguments


# Flags => the value as Python writes it.
VALUES = '''--rate=2 => 2.0
--rate=1e-4 => 0.0001
--steps=1e2 => 100
--flag=true => True
--seed=1e3 => 1000
--seed=None => None
--name=123 => '123'
--name='a' => "'a'"
--name=🦜=b => '🦜=b'
--note=7 => '7'
--note=None => None
--warmup=4 => 4
--warmup=0.5 => 0.5
--kind=big => 'big'
--sweep=0,0.5 => [0, 0.5]'''


def test_a_value_takes_the_type_of_its_setting(play):
    defaults = result(play())
    for line in VALUES.splitlines():
        flag, value = line.split(' => ')
        got, key = result(play(flag)), re.match('--([a-z]+)', flag)[1]
        assert repr(got[key]) == value, flag
        assert got | {'preset': 'defaults', key: defaults[key]} == defaults


def test_a_config_file_is_python(play):
    text = """import math
from math import sqrt
sources = {"pi": round(math.pi, 2)}
def half(n): return n // 2
for _i in (1, half(6)): steps = _i
try: 1 / 0
except ZeroDivisionError as error: sweep = [0, 1]"""
    got = result(play('a.py', a=text))
    assert (got['sources'], got['steps'], got['sweep']) == ({'pi': 3.14}, 3, [0, 1])


# Flags => words of the line that refuses them.
FLAGS = '''--step=3 => there is no setting step; & closest is steps
--_hidden=2 => _hidden
--later=2 => later
--steps=1.5 => steps=1.5 must be int, such as 10
--steps=101 => steps=101 must be from 1 to 100
--steps --rate=1 => --steps needs a value & --steps=10
--flag yes => 'yes' must be bool
--seed=1.5 => seed=1.5 must be int or NoneType
--kind=bigg => 'bigg' must be none or big
--sources={[1]:2} => must be dict
--name= => name='' must be str
--rate=-0.1 => rate=-0.1
--rate=nan => 'nan' must be float
gone.py => gone.py is no file; & begins with --
steps=3 => steps=3 is no file'''
FILES = {'for _ in (1, 2): stepz = _': 'stepz; the closest is steps', 'name = 5': 'must be str',
         'rate = float("nan")': 'rate=nan must be',
         'steps = 1\nsteps = = 2': 'SyntaxError & line 2',
         '\nimport nowhere': 'line 2 & nowhere', 's\0t\0e\0p\0s\0=\x003\0': 'is no Python'}


def test_what_cannot_be_a_setting_is_one_line_that_names_it_its_value_and_where(play):
    each_is_a_mistake(FLAGS, play)
    for text, words in FILES.items():
        one_line(play('wrong.py', wrong=text), f'{words} & wrong.py')
    one_line(play('--steps=0', processes=2), 'steps=0')         # said once, not by all processes


def test_help_prints_the_settings_as_flags_with_their_comments_and_types(play):
    """A comment is prose, whatever it looks like."""
    said = ok(play('--steps=3', '--help'))
    assert said.startswith('A throw-away script.\n\nIt says what it was told.')
    assert '''
  --steps=10                  # optimizer steps
  --rate=0.5                  # >= 11: [0, 9**9**9], open(x)
  --name='base'               # what # the run is called
  --flag=False
  --seed=None     # None = the clock: int | None
''' in said and '_hidden' not in said


# --- a run that resumes ---------------------------------------------------------------------------
@pytest.fixture
def resume(play, tmp_path):
    """resume(*flags, env=None, **saved in config.json) -> the process; out/ has a run."""
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/last-1.pt').write_text('x')

    def resume(*flags, env=None, **saved):
        (tmp_path / 'out/config.json').write_text(json.dumps(saved))
        return play('--init_from=resume', *flags, env=env, a='rate = 3')
    return resume


def test_a_resumed_run_has_the_settings_of_config_json_below_flags_and_files(resume, play,
                                                                             tmp_path):
    got = result(resume('--steps=7', 'a.py', steps=5, rate=2, seed=3, sweep=[1, 2], preset='p.py'))
    assert (got['steps'], got['rate'], got['seed'], got['sweep']) == (7, 3, 3, [1, 2])
    assert got['preset'] == 'a.py, command line, p.py'
    one_line(resume(steps=0), 'out/config.json & steps=0 must be from 1')
    (tmp_path / 'out/config.json').write_text('{"steps": 3')
    one_line(play('--init_from=resume'), 'out/config.json is damaged & settings')


def test_a_text_that_looks_like_a_program_is_resumed(resume):
    assert result(resume(name='# setup.py'))['name'] == '# setup.py'


def test_a_foreign_config_json_cannot_permit_execute_or_redirect(resume):
    foreign = dict(allow_code_execution=True, overwrite=True, reward='/tmp/mine.py',
                   out_dir='elsewhere', init_from='elsewhere', _hidden=5, __name__='x', BOUNDS={})
    usual = result(resume())
    assert result(resume(**foreign)) == usual
    assert result(resume('--reward=mine.py', **foreign))['reward'] == 'mine.py'


def test_auto_resumes_if_there_is_a_checkpoint_and_else_begins(resume, tmp_path):
    """After a crash, torchrun starts a run with --overwrite again: that goes on, too."""
    crashed = resume('--init_from=base', '--overwrite=True',
                     env={'TORCHELASTIC_RESTART_COUNT': '1'})
    for process in crashed, resume('--init_from=auto'):
        assert result(process)['init_from'] == 'resume'
    (tmp_path / 'out/last-1.pt').unlink()
    assert result(resume('--init_from=auto'))['init_from'] == 'scratch'


# --- how a script ends ----------------------------------------------------------------------------
NO_ROOM, NO_MEMORY = 'error: the disk is full; make room', 'error: out of memory; try a smaller'
# What the user can put right, in one line; the machine, whose traceback stays; a bug.
MISTAKES = {'raise Mistake("two\\nlines")': 'two lines',
            'import extras.muon': 'copy extras, too & : import extras.muon'}
MACHINE = {'open("gone")': "No such file or directory: 'gone'",
           'with open("/dev/full", "w") as f: f.write("a line of the log")': NO_ROOM,
           'import numpy\nnumpy.zeros(10**6).tofile("/dev/full")': NO_ROOM,
           'import torch\ntorch.save(torch.zeros(10**6), "/dev/full")': NO_ROOM,
           'import numpy\nnumpy.zeros(10**13)': NO_MEMORY,
           'import torch\ntorch.zeros(10**13)': NO_MEMORY,
           'import torch\nraise torch.OutOfMemoryError("CUDA out of memory")': NO_MEMORY}
BUGS = {'10.0 ** 1000': 'OverflowError', 'raise RuntimeError("ours")': 'RuntimeError',
        'import numpy\nnumpy.zeros(3).reshape(2, 2)': 'ValueError', 'import nowhere': 'nowhere',
        'from extras.muon import Mun': 'Mun'}


def test_a_mistake_is_one_line_and_the_machine_and_a_bug_keep_their_traceback(play, tmp_path):
    for body, words in MISTAKES.items():
        one_line(play(body=body), words)
    for body, words in MACHINE.items():
        machine(play(body=body), words)
    (tmp_path / 'extras').mkdir()           # the door alone is missing; then there is one
    one_line(play(body='from extras.muon import Muon'), 'copy extras, too')
    (tmp_path / 'extras/muon.py').write_text('')
    for body, name in BUGS.items():
        process = play('--note', '', body=body)     # an empty value names no file
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), body
        assert body.splitlines()[-1] in process.stderr and name in process.stderr.splitlines()[-1]


# whoever runs the tests may ignore SIGINT; the first one waits as if torch were imported
INTERRUPTED = """
import atexit, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import configurator
atexit.register(lambda: print("ending", flush=True) or time.sleep(60))
print("ready", flush=True)
time.sleep(60)
"""


def test_ctrl_c_is_one_line_also_before_configure_and_a_second_one_ends_at_once(tmp_path):
    """That the first one alone has the code 130, test_alike.py says."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)
    with subprocess.Popen([sys.executable, '-c', INTERRUPTED], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for _ in range(2):
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert process.stderr.read() == 'stopped by Ctrl-C\n'
