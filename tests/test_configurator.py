"""Settings arrive as the user meant them; an error ends a script with a code that says its kind."""
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import FORGET, ROOT, each_is_a_mistake, fill, mistake, ok, run, table

from configurator import find_paths, require_writable, split_paths

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from typing import Literal
from configurator import UserError, configure

steps = 10                  # optimizer steps, not epochs
rate = 0.5                  # >= 11: [0, 9**9**9], open(x)
name = 'base'               # what # the run is called
flag = False
sample_prompt = ''
out = ''
seed: int | None = None     # None = the clock
note: str | None = None
warmup: int | float = 0.1
kind: Literal['none', 'big'] = 'none'
sweep = ()
page_rows = 1
sources = {'a': 1.0}        # weights
_hidden = 1
BOUNDS = {'steps': (1, 100)}
config = configure(globals(), BOUNDS, explicit := {})
later = 3                   # derived
assert all(globals()[key] == value for key, value in config.items() if key != 'preset')
print('RESULT ' + json.dumps({**config, 'typed': sorted(explicit)}))
'''


@pytest.fixture
def play(tmp_path):
    """play(*arguments, body=code after configure, **config files) -> the finished process."""
    shutil.copy(ROOT / 'configurator.py', '.')

    def play(*arguments, body='', processes=1, before='', **files):
        fill({f'{name}.py': text for name, text in {'script': HEAD + body, **files}.items()})
        return run(tmp_path / 'script.py', *arguments, before=before,
                   processes=processes)
    return play


def result(process):
    """The settings of that script, their preset, and which of them were typed."""
    return json.loads(ok(process).partition('RESULT ')[2])


def test_what_a_terminal_cannot_show_becomes_a_question_mark(play):
    narrow = 'sys.stdout.reconfigure(encoding="cp1252")'
    printed = ok(play(before=narrow, body="print('\\u4e2d', '\\ufffd')"))
    assert printed.splitlines()[-1] == '? ?'


def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, words)
    assert len(process.stderr.splitlines()) == 1


# --- values ---------------------------------------------------------------------------------------
# arguments => steps, the name, the preset, and what was typed
ORDER = '''
--seed=3 => 10 base defaults seed
./a.py --seed=3 => 1 a a.py name seed steps
--steps=3 b.py a.py => 1 a a.py name steps
--steps=3 b.py --name=x => 2 x b.py name steps'''


def test_files_and_flags_apply_from_left_to_right_and_a_run_is_named_after_its_last_file(play):
    for arguments, wanted in table(ORDER):
        got = result(play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2'))
        found = [str(got[key]) for key in ('steps', 'name', 'preset')] + got['typed']
        assert found == wanted.split(), arguments


# Flags => the value as Python writes it.
VALUES = '''--rate=2 => 2.0
--rate=1e-4 => 0.0001
--steps=1e2 => 100
--flag=true => True
--flag => True
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
--name=~/a,~/b => 'HOME/a,HOME/b'
--name=~ => 'HOME'
--name=a~/b => 'a~/b'
--name=~/a, ~/b , c => 'HOME/a,HOME/b,c'
--sample_prompt=~/x, y => '~/x, y'
--sample_prompt=~ => '~'
--out=~/a, b  => 'HOME/a, b '
--note= => ''
--sweep=0,0.5 => [0, 0.5]'''


def test_a_value_takes_the_type_of_its_setting(play):
    """A tilde in front of a path, or behind a comma, is the home folder, and the parts of a list have
    no blanks around them. A prompt and the name of what is written stay as they were typed."""
    defaults = result(play())
    for flag, value in table(VALUES.replace('HOME', os.path.expanduser('~'))):
        got, key = result(play(flag)), re.match('--([a-z_]+)', flag)[1]
        assert repr(got[key]) == value, flag
        assert got == defaults | {key: got[key], 'typed': [key]}


# Names of files: what a comma, a glob, a shell, a URL or a flag would make something else of.
NAMES = """x [1], y|lr[1e-3]|lr=1e-3,wd=0.1| a |b?,*|a**b|,|it's, "so"|-x, -y|é, 漢|#1; $a""".split('|')


def test_a_path_that_exists_is_one_path_whatever_is_in_its_name(play, tmp_path, monkeypatch):
    """Beside it are files that its parts and its pattern would match."""
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in 'x', 'x [1]', 'y', 'x 1, y', 'lr1', 'lr=1e-3', 'wd=0.1', 'a', 'b1,2', 'ab':
        fill({f'{name}/in.txt': ''})
    for name in NAMES:
        fill({f'{name}/in.txt': ''})
        for path in name, f'{tmp_path}/{name}', f'./{name}', f'{name}/in.txt':
            assert split_paths(path) == find_paths(path) == [path]
        assert find_paths(name, '/in.txt') == [f'{name}/in.txt']
        assert split_paths(f'~/{name}') == find_paths(f'~/{name}') == [f'{tmp_path}/{name}']
        assert result(play(f'--name={name}'))['name'] == name
    # what doesn't exist is parts; what isn't there of these is a pattern, and stays if it matches nothing
    assert find_paths('y, x [[]1], ~/x*, ,gone/*') == [
        'y', 'x [1]', *(f'{tmp_path}/{name}' for name in ('x', 'x 1, y', 'x [1]', 'x [1], y')), 'gone/*']
    assert find_paths('lr?, y', '/in.txt') == ['lr1/in.txt', 'y/in.txt']
    assert find_paths('') == split_paths(' , ') == []


def test_a_config_file_is_python(play):
    text = """import math
from math import sqrt
sources = {"pi": round(math.pi, 2)}
name = "~/a"
def half(n): return n // 2
for _i in (1, half(6)): steps = _i
try: 1 / 0
except ZeroDivisionError as error: sweep = 0, 1"""
    got = result(play('a.py', a=text))
    assert (got['sources'], got['steps'], got['sweep']) == ({'pi': 3.14}, 3, [0, 1])
    assert got['name'] == os.path.expanduser('~/a')


def test_a_config_file_may_set_numbers_of_numpy_and_paths(play):
    text = """import numpy as np
from pathlib import Path
rate = 3e-4 * np.sqrt(4)
steps = np.int64(7)
warmup = np.float32(0.5)
flag = np.bool_(True)
name = Path("~") / "a"
seed = np.array(2)
kind = np.str_("big")"""
    got = result(play('a.py', a=text))
    assert [got[key] for key in ('rate', 'steps', 'warmup', 'flag', 'seed', 'kind')] == [6e-4, 7, 0.5, True, 2, 'big']
    assert got['name'] == os.path.expanduser('~/a')
    one_line(play('a.py', a=f'{text}\nsteps = np.float64(7.5)'), 'a.py: steps=np.float64(7.5) must be int')


# Flags => words of the line that refuses them. A list of commas and blanks is no empty one: else --languages=,,
# would switch a filter off in silence.
FLAGS = '''--step=3 => --step: no setting has this name; closest: steps
--_hidden=2 => _hidden
--later=2 => later
--steps=1.5 => --steps='1.5' must be int, such as 10
--steps=1,000 => --steps='1,000' must be int
--Steps=3 => closest: steps
--steps=101 => --steps=101 must be from 1 to 100
--steps --rate=1 => --steps needs a value: int, such as 10
--name --rate=1 => --name needs a value: str, such as 'base'
--kind => --kind needs a value: none or big
--flag yes => yes is not a config file & --name=value
--flag=yes => --flag='yes' must be bool
--flags => --flags: no setting & flag
--z_loss=1 => --z_loss: no setting & closest: none; see --help
--pr=1 => closest: page_rows;
--num_epochs=1 => closest: steps;
--epoch=1 => closest: steps;
--use_clock => closest: seed;
--sam=a => closest: sample_prompt;
--a(b=1 => --a(b: no setting & closest: none
--seed=1.5 => --seed='1.5' must be int or NoneType
--kind=bigg => 'bigg' must be none or big
--sources={[1]:2} => must be dict
--name= => name='' must be str
--note=, => --note=
'--note= ' => --note=
'--note= , ,' => --note=
--rate=-0.1 => --rate=-0.1
--rate=nan => 'nan' must be float
gone.py => gone.py is not a config file & --name=value
notes.txt => notes.txt is not a config file
steps=3 => steps=3 is not a config file'''
# Config file, in which / is the end of a line => words of what it sets, or of what Python says of it.
FILES = '''
for _ in (1, 2): stepz = _ => stepz: no setting has this name; closest: steps
z_loss = 1 => z_loss: no setting & closest: none
name = 5 => must be str
steps = True => steps=True must be int
rate = float("nan") => rate=nan must be
import json/kind = json.JSONDecoder => kind=<class & must be none or big
def steps(n): return n => steps=<function & must be int
import math as rate => rate=<module & must be float
import numpy/steps = numpy.ones(2) => steps=array([1., 1.]) must be int
steps = = 2 => invalid syntax & line 1
if 1:/steps = 2 => indented block & line 2
rate = "0.1 => unterminated & line 1'''
# A config file whose code fails => the line in it that the traceback names, and its last line.
FAILING = {'\nimport nowhere': ("line 2, in <module>", "ModuleNotFoundError: No module named 'nowhere'"),
           'def half(n):\n  return n / 0\n\nsteps = half(3)': ('line 4, in <module>', 'ZeroDivisionError: division by zero')}


def test_what_cannot_be_a_setting_is_one_line_that_names_it_its_value_and_where(play):
    each_is_a_mistake(FLAGS, play)
    for text, words in table(FILES, ' => '):
        text = text.replace('/', '\n')
        one_line(play('wrong.py', wrong=text), f'{words} & wrong.py')
    one_line(play('--steps=0', processes=2), 'steps=0')         # said once, not by all processes


def test_code_of_a_config_file_that_fails_keeps_its_traceback(play):
    for text, (line, words) in FAILING.items():
        process = play('wrong.py', wrong=text)
        assert process.returncode == 1 and process.stderr.splitlines()[-1] == words
        assert f'wrong.py", {line}' in process.stderr


def test_help_prints_the_settings_with_their_comments_and_types(play):
    """A comment is prose, whatever it looks like."""
    said = ok(play('--steps=3 --help'))
    assert said.startswith('A throw-away script.\n\nIt says what it was told.')
    assert '''
steps = 10                  # optimizer steps, not epochs
rate = 0.5                  # >= 11: [0, 9**9**9], open(x)
name = 'base'               # what # the run is called
flag = False
sample_prompt = ''
out = ''
seed: int | None = None     # None = the clock
''' in said and '_hidden' not in said and 'later' not in said


# --- how a script ends ----------------------------------------------------------------------------
# What the user can put right, in one line; a bug or the machine, whose traceback stays.
MISTAKES = '''
raise UserError("two\\nlines") => two lines
import extras.training.muon => copy extras/, used by
exec("x = = 1") => invalid syntax
import model => no even number'''
BUGS = '''
10.0 ** 1000 => OverflowError
raise RuntimeError("ours") => RuntimeError
import numpy; numpy.zeros(3).reshape(2, 2) => ValueError
import nowhere => nowhere
open("gone") => No such file or directory: 'gone'
raise OSError(28, "No space left on device") => No space left'''


def test_a_mistake_is_one_line_and_the_machine_and_a_bug_keep_their_traceback(play):
    refusing = {'model': 'class UserError(ValueError): pass\nraise UserError("no even number")', 'before': FORGET}
    for body, words in table(MISTAKES):
        one_line(play(body=body, **refusing), words)
    Path('extras/training').mkdir(parents=True)          # the file alone is missing; then there is one
    for _ in range(2):
        for line in 'from extras.training.muon import Muon', 'from extras.training import muon':
            one_line(play(body=line), f'muon & copy extras/, used by: {line}')
        fill({'extras/__init__.py': '', 'extras/training/__init__.py': ''})
    fill({'extras/training/muon.py': ''})               # an older one, without the name
    one_line(play(body=line.replace('import muon', 'import sgd')), 'sgd & copy extras/')
    one_line(play(body='from extras.training.muon import Mun'), 'Mun & copy extras/')
    for body, name in table(BUGS):
        process = play('--note=', body=body)        # an empty value names no file
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), body
        assert body in process.stderr and name in process.stderr.splitlines()[-1]
    for slip in 'a, b = 1, 2, 3', 'raise ValueError("odd")':        # of whoever edits model.py
        process = play(body='import model', before=FORGET, model=slip)
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), slip


def test_what_a_script_does_when_it_ends_is_done_once_however_it_ends(play):
    body = 'import configurator, os\nconfigurator.at_exit.callback(os.write, 1, b"freed.")\n'
    for end in '', 'raise UserError("x")', '1 / 0', 'import sys; sys.exit(3)', 'raise KeyboardInterrupt':
        for before in '', 'import os; os.environ["RANK"] = "0"':        # as torchrun does
            assert play(body=body + end, before=before).stdout.count('freed.') == 1, end


def test_a_copied_model_py_says_what_is_wrong_under_any_name(play):
    gptx = (ROOT / 'model.py').read_text('utf-8')
    for body, words in {'GPTConfig(n_embd=30, n_head=12)': 'head_dim=2.5 must be even', 'GPT.load("gone.pt")': 'gone.pt'}.items():
        one_line(play(body=f'from gptx import GPT, GPTConfig\n{body}', gptx=gptx), words)


IMPORTS = """import sys
state = lambda: (sys.excepthook, sys.stdout.errors, sys.stderr.errors, sys.stdout.encoding, [*sys.argv])
before = state()
import clean, files, dedup, model, tokenizer, common, configurator
import extras.text.filters, extras.tasks.compare, extras.tasks.questions, extras.models.export
assert state() == before
tokenizer.Tokenizer.load('gone.json')
"""


def test_importing_a_script_changes_nothing_of_an_interactive_python(tmp_path):
    """An error is a traceback there, and the session lives."""
    result = run(fill({'session.py': IMPORTS}, tmp_path) / 'session.py', before=f'{FORGET}\nsys.path.insert(1, {str(ROOT)!r})')
    assert result.returncode == 1 and result.stderr.startswith('Traceback'), result.stderr
    assert 'gone.json' in result.stderr.splitlines()[-1] and 'AssertionError' not in result.stderr


# --- the chain ------------------------------------------------------------------------------------
CHAIN = '''
clean.py out_dir -> prepare.py source
prepare.py out_dir -> train.py data_dir
train.py out_dir -> sft.py init_from
train.py out_dir -> sample.py ckpt
train.py out_dir -> eval.py ckpt
train.py out_dir -> plot.py runs
chats.py out_dir -> sft.py data_dir
'''


def test_each_script_reads_by_default_what_the_one_before_it_writes():
    for ends in table(CHAIN, ' -> '):
        first, second = (re.search(rf"^{name} = '(.*?)'", (ROOT / script).read_text(), re.M)[1]
                         for script, name in map(str.split, ends))
        assert first == second, ends


def test_trying_a_file_leaves_what_was_there():
    """Also an empty file, such as /dev/null."""
    Path('empty').touch()
    for name in 'empty', 'new/file':
        require_writable(name)
    assert [*map(str, sorted(Path().rglob('*')))] == ['empty', 'new']
