"""Settings arrive as the user meant them; a mistake is one line and exit code 2, a bug a traceback."""
import json
import math
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, mistake, ok, run

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from configurator import Mistake, configure, show

steps = 10                  # optimizer steps
rate = 0.5                  # peak, per step
name = 'base'               # what # the run is called
flag = False
seed: int | None = None     # None = the clock
note: str | None = None
sources = {'a': 1.0}        # weights
_hidden = 1
config = configure(globals())
show(config)
later = 3                   # derived
assert config == {key: globals()[key] for key in config}
print('RESULT ' + json.dumps(config))
'''
DEFAULTS = {'steps': 10, 'rate': 0.5, 'name': 'base', 'flag': False, 'seed': None, 'note': None,
            'sources': {'a': 1.0}}


@pytest.fixture
def play(tmp_path):
    """play(*arguments, body=code after configure, **config files) -> the finished process."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)

    def play(*arguments, body='', **files):
        for name, text in {'script': HEAD + body, **files}.items():
            (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        return run(tmp_path / 'script.py', *arguments, cwd=tmp_path, env={'RANK': '0'})
    return play


def result(process):
    return json.loads(ok(process).partition('RESULT ')[2])


def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, *words.split(' & '))
    assert len(process.stderr.splitlines()) == 1


def test_files_and_flags_apply_from_left_to_right(play):
    for arguments, steps, name in (
            ('b.py a.py', 1, 'a'), ('--steps=3 a.py', 1, 'a'), ('--steps 3 b.py --name x', 2, 'x'),
            ('--steps=3 twice.py twice.py', 12, 'base')):
        process = play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2',
                       twice='steps = steps * 2')
        assert result(process) == DEFAULTS | {'steps': steps, 'name': name}, arguments


def test_a_value_takes_the_type_of_its_setting(play):
    for key, values in {
            'rate': {'2': 2.0, '-1e-4': -1e-4}, 'steps': {'1e3': 1000},
            'flag': {'True': True, 'false': False}, 'seed': {'None': None, '1e3': 1000},
            'name': {text: text for text in ('123', 'None', 'a=b=c', "it's 🦜 café")},
            'note': {'7': '7', 'None': None},
            'sources': {"{'b=c': 2, 'd': 0.5}": {'b=c': 2, 'd': 0.5}}}.items():
        for text, value in values.items():
            got = result(play(f'--{key}={text}'))
            assert got == DEFAULTS | {key: value} and type(got[key]) is type(value), text


def test_a_config_file_is_python(play):
    for text, changed in (
            ('"""Why."""\nfrom math import pi\nrate = 1\nsources = {"pi": round(pi, 2)}',
             {'rate': 1.0, 'sources': {'pi': 3.14}}),
            ('for count in (1, 2): steps = count', {'steps': 2}), ('globals()["seed"] = 5', {'seed': 5}),
            ('def half(n):\n    m = n // 2\n    return m\nclass Six:\n    n = 6\nsteps = half(Six.n)',
             {'steps': 3}),
            ('import math as m\n_n = 3\nfor i in (1, 2):\n    i = i + 1\nwith open("a.py") as f: steps = i\n'
             'try: 1 / 0\nexcept ZeroDivisionError as error: rate = m.e', {'steps': 3, 'rate': math.e})):
        assert result(play('a.py', a=text)) == DEFAULTS | changed, text


def test_an_unknown_key_is_a_mistake_and_names_the_closest_one(play):
    for text, name in (('steps, rat = 3, 0.1', 'rat'), ('for i in (1, 2): stepz = i', 'stepz')):
        one_line(play('a.py', a=text), f'a.py & unknown setting {name}; & did you mean')
    for argument, words in (
            ('--step=3', 'unknown setting step; & did you mean steps?'),
            ('--qqqqqqqq=1', 'qqqqqqqq & --help'), ('--_hidden=2', '_hidden'), ('--later=2', 'later')):
        one_line(play(argument), words)


def test_a_wrong_type_is_told_with_its_value_what_was_expected_and_where(play):
    for arguments, words in (
            ('--steps=1.5', 'steps=1.5 must be int, not float'), ('--steps=1e999', 'steps=inf & finite'),
            ('--flag yes', "'yes' must be bool"), ('--seed=1.5', 'seed=1.5 must be int or None'),
            ('--sources={[1]: 2}', 'sources & must be dict'),
            ('--steps --rate=1', '--steps has no value & 10'),
            ('--rate=1 --seed', '--seed has no value & None')):
        one_line(play(*arguments.split()), words)
    for text, words in (('name = 5', 'name=5 must be str'), ('name = ""', "name='' must be"),
                        ('import math as seed', 'seed & module')):
        one_line(play('wrong.py', wrong=text), f'{words} & wrong.py')


def test_a_broken_config_file_is_one_line_with_its_place(play):
    files = {'syntax': 'steps = 1\nsteps = = 2', 'nested': 'import json\nsteps = json.loads("{")',
             'leaves': 'raise SystemExit(3)'}
    for argument, words in (
            ('gone.py', "isn't a file & config files are in config/"), ('steps=3', 'begin with --'),
            ('syntax.py', 'syntax.py, SyntaxError & (syntax.py, line 2)'),
            ('nested.py', 'line 2 & JSONDecodeError'), ('leaves.py', 'line 1 & SystemExit: 3')):
        one_line(play(argument, **files), f'{argument} & {words}')


def test_a_rule_beside_the_setting_is_enforced_in_files_and_flags(play):
    for rule, good, bad in (
            ('>= 1: steps', '1', '0'), ('< 5: few', '4', '5'), ('1 | 2 | 4: a divisor', '4', '3'),
            ('[-2, 8)', '-2 7', '-3 8'), ('(2, 2**3]', '3 8', '2 9')):
        script = HEAD.replace('steps = 10                  # optimizer steps', f'steps = 4   # {rule}')
        for value in good.split():
            assert result(play(f'--steps={value}', script=script))['steps'] == int(value), rule
        for value in bad.split():
            expected = f'steps={value} & must be & {rule.partition(":")[0]}'
            one_line(play('a.py', script=script, a=f'steps = {value}'), expected + ' & a.py')
    one_line(play(script=HEAD.replace('# optimizer steps', '# >= 11')), 'steps=10 & >= 11')     # the default
    assert 'mean' not in play(script=HEAD.replace('# optimizer steps', '# > 10: few')).stderr      # > 10?
    script = HEAD.replace('# what # the run is called', '# base | large: how big')
    script = script.replace('# None =', '# >= 3: None =')
    one_line(play('--name=lage', script=script), "name='lage' must be base | large; did you mean large?")
    assert result(play('--name=large', '--seed=None', script=script)) == DEFAULTS | {'name': 'large'}


def test_a_comment_that_is_not_exactly_a_rule_is_prose_and_stops_nothing(play):
    for comment in ('<- change me', 'width | height, in pixels', '[0, 9**9**9]: x'):
        script = HEAD.replace('# optimizer steps', f'# {comment}')
        assert result(play('--steps=-5', script=script)) == DEFAULTS | {'steps': -5}, comment


def test_help_prints_the_meaning_then_the_rule_in_groups(play):
    script = HEAD.replace('steps = 10 ', '# the first ones\nsteps = 10 ').replace('# optimizer', '# >= 1:')
    script = script.replace('flag = False', '# --- and the rest ---\nflag = False')
    out = ok(play('--steps=3', '--help', script=script))
    assert out.startswith('A throw-away script.\n\nIt says what it was told.') and 'RESULT' not in out
    assert [' '.join(line.split()) for line in out.splitlines()[4:]] == [
        'the first ones', '--steps=10 steps [>= 1]', '--rate=0.5 peak, per step',
        "--name='base' what # the run is called", '', 'and the rest', '--flag=False',
        '--seed=None None = the clock', '--note=None', "--sources={'a': 1.0} weights"]


def test_help_into_a_pipe_that_nobody_reads_ends_quietly(play, tmp_path):
    play()
    process = subprocess.Popen([sys.executable, tmp_path / 'script.py', '--help'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b'' and process.wait() == 141


def test_what_was_changed_and_by_whom_is_known_also_where_it_is_the_default(play):
    out = ok(play('a.py', '--rate=0.25', a='seed = 3\nflag = False')).partition('RESULT')[0]
    assert out == 'settings of a.py and command line:\n  seed=3\n  rate=0.25\n'
    script = HEAD.replace(', configure', ', set_by, configure')
    script += 'print("BY", json.dumps(set_by))\n'
    files = {'a': 'steps = 10\nfor i in (1, 2): rate = 0.5\n_x = [seed for seed in (1, 2)]\n_y = name',
             'd': 'from e import *\n', 'e': 'steps, _ = 11, 5'}
    for arguments, by in (('a.py', {'steps': 'a.py', 'rate': 'a.py'}), ('', {}),
                          ('a.py d.py --rate=0.5', {'steps': 'd.py', 'rate': 'command line'})):
        printed = ok(play(*arguments.split(), script=script, **files))
        assert json.loads(printed.partition('BY ')[2]) == by, arguments


def test_what_the_user_can_mend_is_one_line(play, tmp_path):
    for body, words in (
            ('raise Mistake(\n    "bad "\n    "batch")', 'bad batch'),
            ('import dataclasses\n@dataclasses.dataclass\nclass Shape:\n    n: int\n    '
             'def __post_init__(self): raise ValueError(f"n={self.n} is odd")\nShape(3)', 'n=3 is odd'),
            ('open("gone")', 'gone: No such file or directory; choose another path'),
            ('open(name)', 'choose another --name than base'),
            ('class Mistake(ValueError): pass\nexec("raise Mistake(\'of a copied file\')")', 'of a copied'),
            ('raise MemoryError', 'out of memory; try ending other programs (MemoryError)'),
            ('raise RuntimeError("std::bad_alloc")', 'out of memory; try ending'),
            ('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', 'try ending'),
            ('try:\n    int("x")\nexcept ValueError as e:\n    raise Mistake("no number") from e',
             'no number')):
        one_line(play(body=body), words)


def test_a_bug_keeps_its_traceback(play):
    for body, name in (
            ('import numpy\nnumpy.zeros(3).reshape(2, 2)', 'ValueError'),
            ('raise ValueError("ours")', 'ValueError'), ('raise RuntimeError("ours")', 'RuntimeError')):
        process = play(body=body)
        assert process.returncode == 1 and process.stderr.startswith('Traceback'), body
        assert body.splitlines()[-1] in process.stderr and name in process.stderr.splitlines()[-1], body
