"""Settings arrive as the user meant them; an error ends a script as the table of exit codes says."""
import json
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, machine, mistake, ok, run

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from typing import Literal
from configurator import Mistake, configure, set_by

steps = 10                  # optimizer steps
rate = 0.5                  # peak, per step
name = 'base'               # what # the run is called
flag = False
seed: int | None = None     # None = the clock
note: str | None = None
warmup: int | float = 0.1
kind: Literal['none', 'big'] = 'none'
sweep = ()
sources = {'a': 1.0}        # weights
_hidden = 1
BOUNDS = {'steps': (1, 100)}
config = configure(globals(), BOUNDS)
later = 3                   # derived
assert all(globals()[key] == value for key, value in config.items() if key != 'preset')
print('RESULT ' + json.dumps(config), 'BY ' + json.dumps(set_by))
'''
DEFAULTS = {'steps': 10, 'rate': 0.5, 'name': 'base', 'flag': False, 'seed': None, 'note': None,
            'warmup': 0.1, 'kind': 'none', 'sweep': [], 'sources': {'a': 1.0}}
RUN = """
out_dir = 'out'
init_from = 'scratch'
overwrite = False
allow_code_execution = False
plan = ''
reward = 'problems'
batch_size = 8
device = 'auto'
config ="""


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
    return json.loads(ok(process).partition('RESULT ')[2].partition('BY ')[0])


def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, *words.split(' & '))
    assert len(process.stderr.splitlines()) == 1


# --- values -------------------------------------------------------------------------------------------------
def test_files_and_flags_apply_from_left_to_right_and_a_run_is_named_after_what_changed_it(play):
    for arguments, steps, name, preset in (
            ('', 10, 'base', 'defaults'), ('--seed=3', 10, 'base', 'defaults'),
            ('./a.py', 1, 'a', 'a.py'), ('a.py --seed=3', 1, 'a', 'a.py'),
            ('b.py a.py', 1, 'a', 'a.py'), ('--steps=3 a.py', 1, 'a', 'a.py'),
            ('--steps 3 b.py --name x', 2, 'x', 'b.py, command line')):
        got = result(play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2'))
        assert (got['steps'], got['name'], got['preset']) == (steps, name, preset), arguments


def test_a_value_takes_the_type_of_its_setting(play):
    for key, values in {
            'rate': {'2': 2.0, '1e-4': 1e-4, '0': 0.0}, 'steps': {'1e2': 100, '1': 1},
            'flag': {'True': True, 'false': False}, 'seed': {'None': None, '1e3': 1000},
            'name': {text: text for text in ('123', "'a'", 'a=b=c', "it's 🦜 café")},
            'note': {'7': '7', 'None': None}, 'warmup': {'4': 4, '0.5': 0.5},
            'kind': {'big': 'big'}, 'sweep': {'0,0.5': [0, 0.5], '()': []}}.items():
        for text, value in values.items():
            got = result(play(f'--{key}={text}'))
            assert got == DEFAULTS | {key: value, 'preset': got['preset']}, text
            assert type(got[key]) is type(value), text


def test_a_config_file_is_python(play):
    text = """import math
from math import sqrt
rate = 1
sources = {"pi": round(math.pi, 2)}
def half(n):
    m = n // 2
    return m
class Six:
    n = 6
for _i in (1, half(Six.n)): steps = _i
try: 1 / 0
except ZeroDivisionError as error: sweep = [0, 1]"""
    assert result(play('a.py', a=text)) == DEFAULTS | {
        'rate': 1.0, 'sources': {'pi': 3.14}, 'steps': 3, 'sweep': [0, 1], 'preset': 'a.py'}


def test_what_cannot_be_a_setting_is_one_line_that_names_it_its_value_and_where(play):
    """Flags, the text of wrong.py, or both -> words of the line."""
    for argument, words in (
            ('--step=3', 'there is no setting step; & closest is steps'),
            ('--_hidden=2', '_hidden'), ('--later=2', 'later'), ('--BOUNDS=2', 'BOUNDS'),
            ('--steps=1.5', 'steps=1.5 must be int, such as 10'), ('--rate=1e999', 'rate=inf must be'),
            ('--flag yes', "'yes' must be bool"), ('--flag=1', 'flag=1 must be bool'),
            ('--seed=1.5', 'seed=1.5 must be int or NoneType'), ('--kind=bigg', "'bigg' must be none or big"),
            ('--sources={[1]:2}', 'sources & must be dict'), ('--name=', "name='' must be str & 'base'"),
            ('--steps --rate=1', '--steps needs a value & --steps=10'),
            ('--flag', '--flag needs a value, such as --flag=True'),
            ('--steps=0', 'steps=0 & from 1 to 100'), ('--steps=101', 'steps=101'),
            ('--rate=-0.1', 'rate=-0.1'), ('--seed=-1', 'seed=-1'), ('--rate=nan', "'nan' must be float"),
            ('gone.py', 'gone.py is no file; & begins with --'), ('steps=3', 'steps=3 is no file'),
            ('.', '. is no file')):
        one_line(play(*argument.split()), words)
    for text, words in (
            ('steps, rat = 3, 0.1', 'there is no setting rat; the closest is rate'),
            ('for _ in (1, 2): stepz = _', 'stepz; the closest is steps'),
            ('Steps = 3', 'Steps; the closest is steps'), ('steps = 101', 'steps=101 must be'),
            ('name = 5', 'name=5 must be str'), ('rate = float("nan")', 'rate=nan must be'),
            ('import pathlib\nname = pathlib.Path("a")', "name=PosixPath('a') must be str"),
            ('steps = 1\nsteps = = 2', 'SyntaxError & line 2'), ('\nimport nowhere', 'line 2 & nowhere'),
            ('import json\nsteps = json.loads("{")', 'line 2 & JSONDecodeError')):
        one_line(play('wrong.py', wrong=text), f'{words} & wrong.py')
    one_line(play('--steps=0', processes=2), 'steps=0')         # said once, not by all processes


def test_help_prints_the_settings_as_flags_with_their_comments_and_types(play):
    """A comment is prose, whatever it looks like."""
    script = HEAD.replace('# optimizer steps', '# >= 11: [0, 9**9**9], open(x)')
    process = play('--steps=3', '--help', script=script)
    assert ok(process).startswith('A throw-away script.\n\nIt says what it was told.')
    assert [' '.join(line.split()) for line in process.stdout.splitlines()[3:]] == [
        '--steps=10 # >= 11: [0, 9**9**9], open(x)', '--rate=0.5 # peak, per step',
        "--name='base' # what # the run is called", '--flag=False',
        '--seed=None # None = the clock: int | None', '--note=None: str | None',
        '--warmup=0.1: int | float', "--kind='none': Literal['none', 'big']",
        '--sweep=()', "--sources={'a': 1.0} # weights"]
    assert ok(play('-h', script=script)) == process.stdout


# --- a run that resumes -------------------------------------------------------------------------------------
@pytest.fixture
def resume(play, tmp_path):
    """resume(*flags, env=None, **saved in config.json) -> the process; out/ has a run."""
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/last-1.pt').write_text('x')

    def resume(*flags, env=None, end='}\n', **saved):
        (tmp_path / 'out/config.json').write_text(json.dumps(saved)[:-1] + end)
        script = HEAD.replace('\nconfig =', RUN)
        return play('--init_from=resume', *flags, env=env, script=script, a='rate = 3')
    return resume


def test_a_resumed_run_has_the_settings_of_config_json_below_flags_and_files(resume):
    process = resume('--steps=7', 'a.py', steps=5, rate=2, seed=3, sweep=[1, 2], format='x', preset='p.py')
    got = result(process)
    assert (got['steps'], got['rate'], got['seed'], got['sweep']) == (7, 3, 3, [1, 2])
    assert 'format' not in got and got['preset'] == 'a.py, command line, p.py'
    typed = {'init_from': 'command line', 'steps': 'command line', 'rate': 'a.py'}
    assert json.loads(process.stdout.partition('BY ')[2]) == typed      # nothing of config.json


def test_a_foreign_config_json_cannot_permit_execute_or_redirect(resume):
    foreign = dict(allow_code_execution=True, overwrite=True, plan='1xL4', reward='/tmp/mine.py',
                   out_dir='elsewhere', init_from='elsewhere', _hidden=5, __name__='x', BOUNDS={})
    got = result(resume(**foreign))
    assert (got['allow_code_execution'], got['overwrite'], got['plan'], got['reward'], got['out_dir'],
            got['init_from']) == (False, False, '', 'problems', 'out', 'resume')
    assert result(resume('--reward=mine.py', **foreign))['reward'] == 'mine.py'


def test_what_is_wrong_in_config_json_is_one_line_that_names_it(resume):
    for value, end, words in (('x', '}', "steps='x' must be int"), (0, '}', 'steps=0 must be from 1'),
                              (3, '', ' is damaged & settings'), (3, '}}', ' is damaged')):
        one_line(resume(steps=value, end=end), f'out/config.json & {words}')


def test_auto_resumes_if_there_is_a_checkpoint_and_so_does_a_restart_by_torchrun(resume, tmp_path):
    def start(*flags, restart='0'):
        got = result(resume(*flags, env={'TORCHELASTIC_RESTART_COUNT': restart}, rate=2))
        return got['init_from'], got['rate']
    late = '--init_from=base', '--overwrite=True'
    assert start('--init_from=auto') == start(*late, restart='1') == ('resume', 2)
    assert start(*late)[0] == start('--init_from=base', restart='1')[0] == 'base'
    (tmp_path / 'out/last-1.pt').unlink()
    assert start('--init_from=auto')[0] == 'scratch' and start(*late, restart='1')[0] == 'base'


# --- how a script ends --------------------------------------------------------------------------------------
def test_what_the_user_can_mend_is_one_line(play):
    for body, words in (
            ('raise Mistake("two\\nlines")', 'two lines'),
            ('class Mistake(ValueError): pass\nexec("raise Mistake(\'of a copied file\')")', 'of a copied'),
            ('try:\n    int("x")\nexcept ValueError as e:\n    raise Mistake("no number") from e',
             'no number')):
        one_line(play(body=body), words)


def test_a_door_that_is_missing_is_one_line_that_names_its_file(play, tmp_path):
    """Also if the folder is there, and the file is not. An error in the file is a bug."""
    one_line(play(body='import extras.muon'), "named 'extras & copy extras, too & : import extras.muon")
    (tmp_path / 'extras').mkdir()
    (tmp_path / 'extras/__init__.py').write_text('')
    for line in ('from extras.muon import Muon', 'from extras import muon'):
        one_line(play(body=line), f'copy extras, too & : {line}')
    for text, body in (('import nowhere', 'from extras.muon import Muon'), ('', 'import nowhere'),
                       ('', 'from extras.muon import Mun')):
        (tmp_path / 'extras/muon.py').write_text(text)
        process = play(body=body)
        assert process.returncode == 1 and 'Error: ' in process.stderr.splitlines()[-1]


def test_the_machine_keeps_its_traceback_and_says_what_to_do(play):
    no_room, no_memory = 'error: the disk is full; make room', 'error: out of memory; try a smaller batch'
    limit = 'import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n'
    for body, words in (
            ('open("gone")', "No such file or directory: 'gone'"),
            ('with open("/dev/full", "w") as f: f.write("a line of the log")', no_room),
            (limit + 'with open("log", "a") as f: f.write("a line of the log" * 9999)', no_room),
            ('import numpy\nnumpy.zeros(10**6).tofile("/dev/full")', no_room),
            ('import torch\ntorch.save(torch.zeros(10**6), "/dev/full")', no_room),
            ('raise MemoryError', no_memory), ('import numpy\nnumpy.zeros(10**13)', no_memory),
            ('raise RuntimeError("std::bad_alloc")', no_memory),
            ('import torch\ntorch.zeros(10**13)', no_memory),
            ('import torch\nraise torch.OutOfMemoryError("CUDA out of memory. Tried")', no_memory)):
        machine(play(body=body), words)


def test_a_bug_keeps_its_traceback(play):
    for body, name in (
            ('import numpy\nnumpy.zeros(3).reshape(2, 2)', 'ValueError'),
            ('10.0 ** 1000', 'OverflowError'),                          # too large, no disk
            ('raise RuntimeError("ours")', 'RuntimeError')):
        process = play(body=body)
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), body
        assert body.splitlines()[-1] in process.stderr and name in process.stderr.splitlines()[-1], body


# whoever runs the tests may ignore SIGINT; the first one waits as if torch were imported
INTERRUPTED = """
import atexit, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import configurator
atexit.register(lambda: print("ending", flush=True) or time.sleep(60))
print("ready", flush=True)
time.sleep(60)
"""


def test_ctrl_c_is_one_line_and_130_also_before_configure_and_a_second_one_ends_at_once(tmp_path):
    shutil.copy(ROOT / 'configurator.py', tmp_path)
    codes = []
    for presses, text in (1, INTERRUPTED.replace(' or time.sleep(60)', '')), (2, INTERRUPTED):
        (tmp_path / 'alone.py').write_text(text)
        with subprocess.Popen([sys.executable, tmp_path / 'alone.py'], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            for _ in range(presses):
                process.stdout.readline()
                process.send_signal(signal.SIGINT)
            codes.append(process.wait(10))
            assert process.stderr.read() == 'stopped by Ctrl-C\n'
    assert codes == [130, -signal.SIGINT]


def test_under_torchrun_an_error_ends_its_process_while_others_wait(play):
    """A thread that never ends stands for a collective; the other process waits in a real one."""
    stuck = 'import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n'
    for body, code, words in (('raise Mistake("bad batch")', 2, 'error: bad batch'),
                              ('raise MemoryError', 2, 'error: out of memory; try a smaller batch'),
                              ('import sys\nsys.stderr = open("held", "w")\n1 / 0', 1, 'Traceback')):
        process = play(body=stuck + body, env={'RANK': '0'})
        assert process.returncode == code and words in process.stderr, body
    barrier = ('import os, torch.distributed as dist\ndist.init_process_group("gloo")\n'
               'if os.environ["RANK"] == "1": raise ValueError("of one rank")\ndist.barrier()')
    process = play(body=barrier, processes=2)
    assert process.returncode == 1 and 'of one rank' in process.stderr
