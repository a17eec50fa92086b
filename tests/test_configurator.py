"""Settings arrive as the user meant them, and a mistake is one line and exit code 2 (a bug keeps its traceback)."""
import json
import shutil

import pytest
from conftest import ROOT, mistake, ok, run

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from configurator import configure

steps = 10                  # optimizer steps
rate = 0.5                  # peak, per step
name = 'base'               # what # the run is called
flag = False
seed: int | None = None     # None = the clock
note: str | None = None
sources = {'a': 1.0}        # weights
_hidden = 1
config = configure(globals())
later = 3                   # derived
assert config == {key: globals()[key] for key in config}
print('RESULT ' + json.dumps(config))
'''
DEFAULTS = {'steps': 10, 'rate': 0.5, 'name': 'base', 'flag': False, 'seed': None, 'note': None, 'sources': {'a': 1.0}}


@pytest.fixture
def play(tmp_path):
    """play(*arguments, body=code after configure, env=..., **config files) -> the finished process."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)

    def play(*arguments, body='', env=None, **files):
        (tmp_path / 'script.py').write_text(HEAD + body, encoding='utf-8')
        for name, text in files.items():
            (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        return run(tmp_path / 'script.py', *arguments, cwd=tmp_path, env={'RANK': '0', **(env or {})})
    return play


def result(process):
    lines = [line for line in ok(process).splitlines() if line.startswith('RESULT ')]
    return json.loads(lines[0].removeprefix('RESULT '))


@pytest.mark.parametrize('arguments, steps, name', [
    ([], 10, 'base'), (['a.py'], 1, 'a'), (['a.py', 'b.py'], 2, 'a'), (['b.py', 'a.py'], 1, 'a'),
    (['a.py', '--steps=3'], 3, 'a'), (['--steps=3', 'a.py'], 1, 'a'), (['--steps=3', 'b.py', '--name', 'x'], 2, 'x'),
    (['--steps=3', '--steps', '4'], 4, 'base'), (['--steps=3', 'double.py', 'double.py'], 12, 'base')])
def test_files_and_flags_apply_from_left_to_right(play, arguments, steps, name):
    process = play(*arguments, a='steps = 1\nname = "a"\n', b='steps = 2\n', double='steps = steps * 2\n')
    assert result(process) == DEFAULTS | {'steps': steps, 'name': name}


VALUES = [('rate', '2', 2.0), ('rate', '-1e-4', -1e-4), ('steps', '1e3', 1000), ('steps', '-3', -3), ('steps', '1_000', 1000),
          ('flag', 'True', True), ('flag', 'true', True), ('flag', 'false', False),
          ('name', '123', '123'), ('name', '1e3', '1e3'), ('name', 'True', 'True'), ('name', 'None', 'None'), ('name', '', ''),
          ('name', 'a=b=c', 'a=b=c'), ('name', '[1, 2]', '[1, 2]'), ('name', "it's 🦜 café", "it's 🦜 café"),
          ('seed', '7', 7), ('seed', 'None', None), ('seed', '1e3', 1000), ('note', '7', '7'), ('note', 'None', None),
          ('sources', "{'b=c': 2, 'd': 0.5}", {'b=c': 2, 'd': 0.5})]


@pytest.mark.parametrize('form', ['--{}={}', '--{} {}'])
def test_a_value_takes_the_type_of_its_setting(play, form):
    for key, text, value in VALUES:
        if form == '--{}={}':
            got = result(play(form.format(key, text)))
        else:
            got = result(play(f'--{key}', text))
        assert got == DEFAULTS | {key: value}, (key, text)
        assert type(got[key]) is type(value), (key, text)


def test_a_config_file_is_python(play):
    file = ('"""Why."""\nfrom math import pi\nimport os\n_rows = [i for i in range(4)]\ndef half(x):\n    return x // 2\n'
            'steps = half(len(_rows))\nrate = 1\nsources = {"pi": round(pi, 2)}\n')
    got = result(play('a.py', a=file))
    assert got == DEFAULTS | {'steps': 2, 'rate': 1.0, 'sources': {'pi': 3.14}}
    assert type(got['rate']) is float


@pytest.mark.parametrize('arguments, words', [
    (['--steps=1.5'], ['steps=1.5', 'float', 'expected int']), (['--steps=abc'], ["'abc'", 'expected int']),
    (['--steps=True'], ['steps=True', 'bool', 'expected int']), (['--steps=1e999'], ['steps=inf', 'expected int']),
    (['--flag=1'], ['flag=1', 'expected bool']), (['--flag', 'yes'], ["'yes'", 'expected bool']),
    (['--rate=fast'], ["'fast'", 'expected float']), (['--rate=nan'], ['rate', 'nan']), (['--rate=None'], ['expected float']),
    (['--rate=1' + 400 * '0'], ['rate']), (['--seed=1.5'], ['expected int or None']), (['--seed=x'], ["'x'"]),
    (['--sources=5'], ['sources=5', 'expected dict']), (['--steps'], ['--steps has no value']),
    (['--steps', '--rate=1'], ['--steps has no value', '10'])])
def test_a_wrong_type_on_the_command_line_says_value_and_expectation(play, arguments, words):
    mistake(play(*arguments), *words)


@pytest.mark.parametrize('line, words', [
    ('name = 5', ['name=5', 'expected str']), ('flag = 1', ['flag=1', 'expected bool']), ('steps = 2.5', ['expected int']),
    ('rate = float("nan")', ['rate', 'nan']), ('seed = "7"', ["seed='7'", 'expected int or None']),
    ('name = None', ['name=None', 'expected str'])])
def test_a_wrong_type_in_a_file_names_the_file_too(play, line, words):
    mistake(play('wrong.py', wrong=line), 'wrong.py', *words)


@pytest.mark.parametrize('arguments, words', [
    (['--step=3'], ['unknown setting step;', 'did you mean steps?']), (['--step', '3'], ['did you mean steps?']),
    (['typo.py'], ['typo.py', 'unknown setting source;', 'did you mean sources?']), (['--=3'], ['unknown setting']),
    (['--qqqqqqqq=1'], ['qqqqqqqq', 'script.py --help']), (['--_hidden=2'], ['_hidden']), (['--later=2'], ['later'])])
def test_an_unknown_key_names_the_closest_one(play, arguments, words):
    mistake(play(*arguments, typo='source = {}\n'), *words)


@pytest.mark.parametrize('argument, words', [
    ('gone.py', ['gone.py', 'No such file']), ('steps=3', ['steps=3', 'a flag begins with --']), ('folder.py', ['folder.py']),
    ('syntax.py', ['syntax.py, line 2', 'SyntaxError']), ('zero.py', ['zero.py, line 3', 'ZeroDivisionError']),
    ('nested.py', ['nested.py, line 2', 'JSONDecodeError']), ('lines.py', ['lines.py, line 1', 'RuntimeError', 'second']),
    ('latin.py', ['latin.py']), ('null.py', ['null.py'])])
def test_a_broken_config_file_is_one_line_with_its_place(play, tmp_path, argument, words):
    (tmp_path / 'folder.py').mkdir()
    (tmp_path / 'latin.py').write_bytes('name = "é"\n'.encode('latin-1'))
    process = play(argument, syntax='steps = 1\nsteps = = 2\n', zero='\n\nsteps = 1 / 0\n', null='steps = 1\n\0\n',
                   nested='import json\nsteps = json.loads("{")\n', lines='raise RuntimeError("first\\nsecond")\n')
    mistake(process, *words)
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help_prints_the_docstring_and_every_setting_with_its_comment(play, flag):
    out = ok(play('--steps=3', flag))
    assert out.startswith('A throw-away script.\n\nIt says what it was told.') and 'RESULT' not in out
    lines = [' '.join(line.split()) for line in out.splitlines() if line.startswith('  --')]
    assert lines == ['--steps=10 optimizer steps', '--rate=0.5 peak, per step', "--name='base' what # the run is called",
                     '--flag=False', '--seed=None None = the clock', '--note=None', "--sources={'a': 1.0} weights"]


def test_the_resolved_settings_are_printed_once_and_by_rank_0_only(play):
    out = ok(play('a.py', '--rate=0.25', a='seed = 3\n')).partition('RESULT')[0]
    for text in ('steps=10', '*rate=0.25', "name='base'", 'flag=False', '*seed=3', 'note=None', "sources={'a': 1.0}"):
        assert out.split().count(text.split()[0]) == 1, (text, out)
    assert ok(play('--rate=0.25', env={'RANK': '1'})).startswith('RESULT')
    silent = play('--rate=fast', env={'RANK': '1'})
    assert (silent.returncode, silent.stdout, silent.stderr) == (2, '', '')


@pytest.mark.parametrize('body, words', [
    ('raise ValueError("bad batch")', ['bad batch']), ('raise ValueError(\n    "bad "\n    "batch")', ['bad batch']),
    ('def check():\n    raise ValueError(f"steps={steps}")\ncheck()', ['steps=10']),
    ('if steps: raise ValueError("bad batch")', ['bad batch']),
    ('try:\n    int("x")\nexcept ValueError as e:\n    raise ValueError("no number") from e', ['no number']),
    ('open("gone.bin")', ['gone.bin', 'No such file']), ('raise ConnectionError("offline")', ['offline']),
    ('import shutil\nshutil.copy("gone.bin", "x")', ['gone.bin'])])
def test_what_the_user_can_mend_is_one_line(play, body, words):
    process = play(body=body)
    mistake(process, *words)
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize('body, name', [
    ('1 / 0', 'ZeroDivisionError'), ('import numpy\nnumpy.zeros(3).reshape(2, 2)', 'ValueError'), ('int("x")', 'ValueError'),
    ('a, b = 1, 2, 3', 'ValueError'), ('json.loads("{")', 'JSONDecodeError'), ('[].index(3)', 'ValueError'),
    ('raise RuntimeError("ours")', 'RuntimeError'), ('undefined', 'NameError'), ('{}["x"]', 'KeyError')])
def test_a_bug_keeps_its_traceback(play, body, name):
    process = play(body=body)
    assert process.returncode == 1
    assert process.stderr.startswith('Traceback') and name in process.stderr.splitlines()[-1]
    assert body.splitlines()[-1] in process.stderr
