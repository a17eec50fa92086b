"""Settings arrive as the user meant them; an error ends a script as the table of exit codes says."""
import json
import os
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


def config(process):
    return json.loads(ok(process).partition('RESULT ')[2].partition('BY ')[0])


def result(process):
    return {name: value for name, value in config(process).items() if name != 'preset'}


def by(process):
    return json.loads(ok(process).partition('BY ')[2])


def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, *words.split(' & '))
    assert len(process.stderr.splitlines()) == 1


# --- values -------------------------------------------------------------------------------------------------
def test_files_and_flags_apply_from_left_to_right(play):
    for arguments, steps, name in (
            ('b.py a.py', 1, 'a'), ('--steps=3 a.py', 1, 'a'), ('--steps 3 b.py --name x', 2, 'x')):
        process = play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2')
        assert result(process) == DEFAULTS | {'steps': steps, 'name': name}, arguments


def test_a_value_takes_the_type_of_its_setting(play):
    for key, values in {
            'rate': {'2': 2.0, '1e-4': 1e-4}, 'steps': {'1e2': 100},
            'flag': {'True': True, 'false': False}, 'seed': {'None': None, '1e3': 1000},
            'name': {text: text for text in ('123', "'a'", 'a=b=c', "it's 🦜 café")},
            'note': {'7': '7', 'None': None}, 'warmup': {'4': 4, '1e3': 1000, '0.5': 0.5},
            'kind': {'none': 'none', 'big': 'big'}, 'sweep': {'0,0.5': [0, 0.5], '()': []}}.items():
        for text, value in values.items():
            got = result(play(f'--{key}={text}'))
            assert got == DEFAULTS | {key: value} and type(got[key]) is type(value), text


def test_a_config_file_is_python(play):
    for text, changed in (
            ('"""Why."""\nimport math\nrate = 1\nsources = {"pi": round(math.pi, 2)}',
             {'rate': 1.0, 'sources': {'pi': 3.14}}),
            ('for _i in (1, 2): steps = _i\nsweep = [0, 1]', {'steps': 2, 'sweep': [0, 1]}),
            ('globals()["steps"] = 5\nfrom math import sqrt', {'steps': 5}),
            ('def half(n):\n    m = n // 2\n    return m\nclass Six:\n    n = 6\nsteps = half(Six.n)',
             {'steps': 3}),
            ('_n = 3\nwith open("a.py") as _f: steps = len(_f.read(_n))\n'
             'try: 1 / 0\nexcept ZeroDivisionError as error: rate = 0.1', {'steps': 3, 'rate': 0.1})):
        assert result(play('a.py', a=text)) == DEFAULTS | changed, text


def test_an_unknown_key_is_a_mistake_and_names_the_closest_one(play):
    for text, name in (('steps, rat = 3, 0.1', 'rat'), ('for _ in (1, 2): stepz = _', 'stepz'),
                       ('Steps = 3', 'Steps'), ('ratee = [1]', 'ratee'),
                       ('import pathlib\nnam = pathlib.Path("a")', 'nam')):
        closest = {'S': 'steps', 's': 'steps', 'r': 'rate', 'n': 'name'}[name[0]]
        one_line(play('a.py', a=text), f'a.py: there is no setting {name}; the closest is {closest}')
    for argument, words in (
            ('--step=3', 'there is no setting step; & closest is steps'),
            ('--_hidden=2', '_hidden'), ('--later=2', 'later'), ('--BOUNDS=2', 'BOUNDS')):
        one_line(play(argument), words)


def test_a_wrong_type_is_told_with_its_value_what_was_expected_and_where(play):
    for arguments, words in (
            ('--steps=1.5', 'steps=1.5 must be int, such as 10'), ('--rate=1e999', 'rate=inf must be'),
            ('--rate=1e19', 'rate=1e+19 must be'), ('--flag yes', "'yes' must be bool"),
            ('--flag=1', 'flag=1 must be bool'), ('--seed=1.5', 'seed=1.5 must be int or NoneType'),
            ('--sources={[1]:2}', 'sources & must be dict'), ('--kind=bigg', "'bigg' must be none or big"),
            ('--name=', "name='' must be str, such as 'base'"),
            ('--steps --rate=1', '--steps needs a value & --steps=10'),
            ('--flag', '--flag needs a value, such as --flag=True')):
        one_line(play(*arguments.split()), words)
    for text, words in (('name = 5', 'name=5 must be str'), ('name = ""', "name='' must be"),
                        ('kind = "x"', 'kind & none or big'), ('rate = float("nan")', 'rate=nan must be'),
                        ('import pathlib\nname = pathlib.Path("a")', "name=PosixPath('a') must be str")):
        one_line(play('wrong.py', wrong=text), f'{words} & wrong.py')


def test_a_number_keeps_to_its_bounds_and_is_not_negative_without_any(play):
    for flag in ('--steps=1', '--steps=100', '--rate=0'):
        ok(play(flag))
    for flag, words in (('--steps=0', 'steps=0 & from 1 to 100'), ('--steps=101', 'steps=101'),
                        ('--rate=-0.1', 'rate=-0.1'), ('--seed=-1', 'seed=-1'), ('--rate=nan', 'rate')):
        one_line(play(flag), words)
    one_line(play('a.py', a='steps = 101'), 'a.py: steps=101 must be')


def test_a_comment_is_prose_and_stops_nothing(play):
    for comment in ('>= 11: few', 'width | height', '[0, 9**9**9]: x', "open('x')"):
        script = HEAD.replace('# optimizer steps', f'# {comment}')
        assert result(play('--steps=5', script=script)) == DEFAULTS | {'steps': 5}, comment


def test_a_config_file_that_is_missing_or_broken_is_one_line(play):
    files = {'syntax': 'steps = 1\nsteps = = 2', 'nested': 'import json\nsteps = json.loads("{")',
             'lacks': 'steps = 1\nimport nowhere'}
    for argument in 'gone.py', 'steps=3', '.':
        one_line(play(argument), f'{argument} is no file; & begins with --')
    for name, words in (('syntax', 'SyntaxError & line 2'), ('lacks', 'line 2 & nowhere'),
                        ('nested', 'line 2 & JSONDecodeError')):
        one_line(play(f'{name}.py', **files), f'{name}.py & {words}')


def test_help_prints_the_settings_as_flags_with_their_comments_and_types(play):
    for flag in '--help', '-h':
        process = play('--steps=3', flag)
        assert ok(process).startswith('A throw-away script.\n\nIt says what it was told.')
        assert [' '.join(line.split()) for line in process.stdout.splitlines()[3:]] == [
            '--steps=10 # optimizer steps', '--rate=0.5 # peak, per step',
            "--name='base' # what # the run is called", '--flag=False',
            '--seed=None # None = the clock: int | None', '--note=None: str | None',
            '--warmup=0.1: int | float', "--kind='none': Literal['none', 'big']",
            '--sweep=()', "--sources={'a': 1.0} # weights"]


def test_who_set_what_is_known_also_where_it_is_the_default(play):
    files = {'a': 'steps = 10\nfor _i in (1, 2): rate = 0.5\n_x = [seed for seed in (1, 2)]\n_y = 1',
             'd': 'from e import *\n', 'e': 'steps, _ = 11, 5'}
    for arguments, expected in (('a.py', {'steps': 'a.py', 'rate': 'a.py'}), ('', {}),
                                ('a.py d.py --rate=0.5', {'steps': 'd.py', 'rate': 'command line'})):
        assert by(play(*arguments.split(), **files)) == expected, arguments


def test_a_run_is_that_of_its_config_file_unless_a_flag_changes_its_results(play):
    files = {'a': 'steps = 9\nbatch_size = 4', 'b': 'rate = 1', 'script': HEAD.replace('\nconfig =', RUN)}
    for arguments, preset in (('a.py', 'a.py'), ('a.py --device=cpu --out_dir=x', 'a.py'),
                              ('./a.py', 'a.py'), ('a.py --rate=0.5', 'a.py, command line'),
                              ('a.py b.py', 'a.py, b.py'), ('--rate=1', 'command line'), ('', 'defaults'),
                              ('--device=cpu', 'defaults'), ('a.py --init_from=auto', 'a.py')):
        assert config(play(*arguments.split(), **files))['preset'] == preset, arguments


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
    process = resume('--steps=7', 'a.py', steps=5, rate=2, seed=3, sweep=[1, 2], format='x', later=4)
    got = result(process)
    assert (got['steps'], got['rate'], got['seed'], got['sweep']) == (7, 3, 3, [1, 2])
    typed = {'init_from': 'command line', 'steps': 'command line', 'rate': 'a.py'}
    assert by(process) == typed                                         # nothing of config.json
    assert 'format' not in got and 'later' not in got


def test_a_resumed_run_is_that_of_all_files_and_flags_that_made_it(resume):
    for flags, before, now in (('--device=cpu', 'p.py', 'p.py'), ('a.py', 'a.py', 'a.py'),
                               ('a.py', 'p.py', 'a.py, p.py'), ('a.py', 'defaults', 'a.py, defaults'),
                               ('--rate=1', 'p.py', 'command line, p.py'), ('', 'defaults', 'defaults'),
                               ('a.py', 'a.py, command line', 'a.py, a.py, command line')):
        assert config(resume(*flags.split(), preset=before))['preset'] == now, (flags, before)


def test_a_foreign_config_json_cannot_permit_execute_or_redirect(resume, tmp_path):
    foreign = dict(allow_code_execution=True, overwrite=True, plan='1xL4', reward='/tmp/mine.py',
                   out_dir='elsewhere', init_from='elsewhere', _hidden=5, __name__='x', BOUNDS={})
    got = result(resume(**foreign))
    assert (got['allow_code_execution'], got['overwrite'], got['plan'], got['reward'], got['out_dir'],
            got['init_from']) == (False, False, '', 'problems', 'out', 'resume')
    assert result(resume('--reward=mine.py', **foreign))['reward'] == 'mine.py'


def test_what_is_wrong_in_config_json_is_one_line_that_names_it(resume):
    for value, words in (('x', "steps='x' must be int"), (0, 'steps=0 must be from 1')):
        one_line(resume(steps=value), f'out/config.json: & {words}')
    for end in ('', ',}', '}}'):
        one_line(resume(steps=3, end=end), 'out/config.json is damaged & settings')


def test_auto_resumes_if_there_is_a_checkpoint_and_so_does_a_restart_by_torchrun(resume, tmp_path):
    assert result(resume('--init_from=auto', rate=2))['rate'] == 2
    again = {'TORCHELASTIC_RESTART_COUNT': '1'}
    late = '--init_from=base', '--overwrite=True'
    assert result(resume(*late, env=again, rate=2))['init_from'] == 'resume'
    assert result(resume(*late, env={'TORCHELASTIC_RESTART_COUNT': '0'}, rate=2))['init_from'] == 'base'
    assert result(resume('--init_from=base', env=again, rate=2))['init_from'] == 'base'
    (tmp_path / 'out/last-1.pt').unlink()
    assert result(resume('--init_from=auto', rate=2))['init_from'] == 'scratch'
    assert result(resume(*late, env=again, rate=2))['init_from'] == 'base'


# --- how a script ends --------------------------------------------------------------------------------------
def test_what_the_user_can_mend_is_one_line(play):
    for body, words in (
            ('raise Mistake(\n    "bad "\n    "batch")', 'bad batch'),
            ('raise Mistake("two\\nlines")', 'two lines'),
            ('class Mistake(ValueError): pass\nexec("raise Mistake(\'of a copied file\')")', 'of a copied'),
            ('try:\n    int("x")\nexcept ValueError as e:\n    raise Mistake("no number") from e',
             'no number')):
        one_line(play(body=body), words)


def test_a_door_that_is_missing_is_one_line_that_names_its_file(play, tmp_path):
    for line in ('from extras.muon import Muon', 'import extras.muon', 'from extras import muon'):
        one_line(play(body=f'if not flag:\n    {line}'), f"named 'extras & copy extras, too & : {line}")
    (tmp_path / 'extras').mkdir()
    (tmp_path / 'extras/__init__.py').write_text('')
    for line in ('from extras.muon import Muon', 'from extras import muon'):
        one_line(play(body=line), f'copy extras, too & : {line}')
    for text, body in (('import nowhere', 'from extras.muon import Muon'), ('', 'import nowhere'),
                       ('', 'from extras.muon import Mun')):    # bugs, or a package
        (tmp_path / 'extras/muon.py').write_text(text)
        process = play(body=body)
        assert process.returncode == 1 and 'Error: ' in process.stderr.splitlines()[-1]


def test_the_machine_keeps_its_traceback_and_says_what_to_do(play):
    no_room, no_memory = 'error: the disk is full; make room', 'error: out of memory; try a smaller batch'
    limit = 'import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n'
    for body, words in (
            ('open("gone")', "No such file or directory: 'gone'"),
            ('open("/proc/no/x", "w")', '/proc/no/x'),
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
            ('10.0 ** 1000', 'OverflowError'), ('chr(2 ** 70)', 'OverflowError'),   # too large, no disk
            ('raise ValueError("ours")', 'ValueError'), ('raise RuntimeError("ours")', 'RuntimeError')):
        process = play(body=body)
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), body
        assert body.splitlines()[-1] in process.stderr and name in process.stderr.splitlines()[-1], body


def start(tmp_path, text, *arguments, **env):
    """A script in a process of its own, as a user starts it."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)
    (tmp_path / 'alone.py').write_text(text)
    return subprocess.Popen([sys.executable, *arguments, tmp_path / 'alone.py'], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, **env})


# whoever runs the tests may ignore SIGINT
READY = 'import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n'
WAIT = 'print("ready", flush=True)\ntime.sleep(60)\n'


def test_ctrl_c_is_one_line_and_130_also_before_configure(tmp_path):
    for text in (READY + 'import configurator\n' + WAIT,        # as while torch is imported
                 READY + '"""x"""\nfrom configurator import configure\nconfigure(globals())\n' + WAIT):
        process = start(tmp_path, text)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130 and process.stderr.read() == 'stopped by Ctrl-C\n'


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    late = 'import atexit, configurator\natexit.register(lambda: print(1, flush=True) or time.sleep(60))\n'
    process = start(tmp_path, READY + late + WAIT)
    for _ in range(2):
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT and process.stderr.read() == 'stopped by Ctrl-C\n'


def test_a_profile_is_written_and_literals_are_known_to_the_profiler(play, tmp_path):
    ok(play())
    command = [sys.executable, '-m', 'cProfile', '-o', 'profile', 'script.py']
    done = subprocess.run([*command, '--seed=3', '--kind=big'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / 'profile').stat().st_size > 1000, done.stderr
    done = subprocess.run([*command, '--kind=bigg'], cwd=tmp_path, capture_output=True, text=True)
    assert 'must be none or big' in done.stderr


def test_under_torchrun_an_error_ends_its_process_while_others_wait(play):
    """A thread that never ends stands for a collective; the other process waits in a real one."""
    stuck = 'import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n'
    for body, code, words in (('raise Mistake("bad batch")', 2, 'error: bad batch'),
                              ('1 / 0', 1, 'Traceback'),
                              ('raise MemoryError', 2, 'error: out of memory; try a smaller batch'),
                              ('import sys\nsys.stderr = open("held", "w")\n1 / 0', 1, 'Traceback')):
        process = play(body=stuck + body, env={'RANK': '0'})
        assert process.returncode == code and words in process.stderr, body
    barrier = ('import os, torch.distributed as dist\ndist.init_process_group("gloo")\n'
               'if os.environ["RANK"] == "1": raise ValueError("of one rank")\ndist.barrier()')
    process = play(body=barrier, processes=2)
    assert process.returncode == 1 and 'of one rank' in process.stderr


def test_a_mistake_of_all_processes_is_said_once(play):
    one_line(play('--steps=0', processes=2), 'steps=0')
