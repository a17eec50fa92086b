"""Settings arrive as the user meant them; a mistake is one line and exit code 2, a bug a traceback."""
import json
import shutil

import pytest
from conftest import ROOT, mistake, ok, run

HEAD = '''"""A throw-away script.

It says what it was told."""
import json
from configurator import configure, show

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
    """play(*arguments, body=code after configure, env=..., **config files) -> the finished process."""
    shutil.copy(ROOT / 'configurator.py', tmp_path)

    def play(*arguments, body='', env=None, **files):
        for name, text in {'script': HEAD + body, **files}.items():
            (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
        return run(tmp_path / 'script.py', *arguments, cwd=tmp_path, env={'RANK': '0', **(env or {})})
    return play


def result(process):
    return json.loads(ok(process).partition('RESULT ')[2])


def one_line(process, words):
    """words: what the line must hold, separated by ' & '"""
    mistake(process, *words.split(' & '))
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize('arguments, steps, name', [
    ('', 10, 'base'), ('a.py', 1, 'a'), ('a.py b.py', 2, 'a'), ('b.py a.py', 1, 'a'),
    ('a.py --steps=3', 3, 'a'), ('--steps=3 a.py', 1, 'a'), ('--steps 3 b.py --name x', 2, 'x'),
    ('--steps=3 --steps 4', 4, 'base'), ('--steps=3 twice.py twice.py', 12, 'base')])
def test_files_and_flags_apply_from_left_to_right(play, arguments, steps, name):
    process = play(*arguments.split(), a='steps = 1\nname = "a"', b='steps = 2', twice='steps = steps * 2')
    assert result(process) == DEFAULTS | {'steps': steps, 'name': name}


@pytest.mark.parametrize('joined', [True, False])
@pytest.mark.parametrize('key, values', [
    ('rate', {'2': 2.0, '-1e-4': -1e-4, '1': 1.0}), ('steps', {'1e3': 1000, '-3': -3, '1_000': 1000}),
    ('flag', {'True': True, 'true': True, 'false': False}), ('seed', {'7': 7, 'None': None, '1e3': 1000}),
    ('name', {text: text for text in ('123', '1e3', 'True', 'None', '', 'a=b=c', '[1, 2]', "it's 🦜 café")}),
    ('note', {'7': '7', 'None': None}), ('sources', {"{'b=c': 2, 'd': 0.5}": {'b=c': 2, 'd': 0.5}})])
def test_a_value_takes_the_type_of_its_setting(play, key, values, joined):
    for text, value in values.items():
        got = result(play(f'--{key}={text}') if joined else play(f'--{key}', text))
        assert got == DEFAULTS | {key: value} and type(got[key]) is type(value), (text, got[key])


def test_a_config_file_is_python(play):
    got = result(play('a.py', a='"""Why."""\nfrom math import pi\nimport os\n_rows = [i for i in range(4)]\n'
                                'def half(x):\n    y = x // 2\n    return y\n'
                                'steps = half(len(_rows))\nglobals()["seed"] = 5\nrate = 1\n'
                                'sources = {"pi": round(pi, 2)}'))
    assert got == DEFAULTS | {'steps': 2, 'rate': 1.0, 'seed': 5, 'sources': {'pi': 3.14}}
    assert type(got['rate']) is float


@pytest.mark.parametrize('text, changed', [
    ('for count in (1, 2): steps = count', {'steps': 2}),
    ('with open("a.py") as f:\n    steps = len(f.read())\n    lines = 3', {'steps': 63}),
    ('def half(n):\n    m = n // 2\n    return m\nclass Six:\n    n = 6\nsteps = half(Six.n)', {'steps': 3}),
    ('import os, json as j\nfrom math import floor\nos.environ["X"] = "1"\nsteps = floor(7.5)', {'steps': 7}),
    ('_n, steps = 3, 4', {'steps': 4}), ('if not flag:\n    steps = 5\nelse:\n    rate = 1.0', {'steps': 5}),
    ('steps = sum(i for i in range(4))', {'steps': 6}), ('steps += 1', {'steps': 11}),
    ('try:\n    import gone\nexcept ImportError:\n    steps = 8', {'steps': 8})])
def test_loops_files_functions_classes_and_imports_are_helpers(play, text, changed):
    assert result(play('a.py', a=text)) == DEFAULTS | changed


@pytest.mark.parametrize('text, name', [
    ('stepz = 3', 'stepz'), ('stepz: int = 3', 'stepz'), ('steps, rat = 3, 0.1', 'rat'),
    ('steps = stepz = 3', 'stepz'), ('import os\nROOT = os.getcwd()', 'ROOT'), ('stepz = None', 'stepz')])
def test_an_unknown_name_that_the_top_level_assigns_is_a_mistake(play, text, name):
    one_line(play('a.py', a=text), f'a.py & unknown setting {name}')


@pytest.mark.parametrize('arguments, words', [
    ('--steps=1.5', 'steps=1.5 & float & expected int'), ('--steps=abc', "steps='abc' & str & expected int"),
    ('--steps=True', 'steps=True & bool & expected int'), ('--steps=1e999', 'steps=inf & finite'),
    ('--rate=inf', 'rate=inf & finite'), ('--rate=-Infinity', 'rate=-Infinity & finite'),
    ("globals()['steps'] = 'x'", "steps='x' & expected int"), ('import math as seed', 'seed & module'),
    ('del steps', 'steps=None & expected int'),
    ('--flag=1', 'flag=1 & expected bool'), ('--flag yes', "'yes' & expected bool"), ('--rate=nan', 'nan'),
    ('--rate=fast', "'fast' & expected float"), ('--rate=None', 'expected float'), ('--seed=x', "'x'"),
    ('--rate=1' + 400 * '0', 'rate'), ('--seed=1.5', 'seed=1.5 & expected int or None'),
    ('--sources=5', 'sources=5 & expected dict'), ('--steps', '--steps has no value'),
    ('--steps --rate=1', '--steps has no value & 10'), ('name = 5', 'name=5 & expected str'),
    ('flag = 1', 'flag=1 & expected bool'), ('steps = 2.5', 'steps=2.5 & expected int'),
    ('rate = float("nan")', 'rate & nan'), ('seed = "7"', "seed='7' & expected int or None")])
def test_a_wrong_type_is_told_with_its_value_what_was_expected_and_where(play, arguments, words):
    typed = arguments.startswith('--')
    one_line(play(*arguments.split()) if typed else play('wrong.py', wrong=arguments),
             words if typed else words + ' & wrong.py')


@pytest.mark.parametrize('arguments, words', [
    ('--step=3', 'unknown setting step; & did you mean steps?'), ('--step 3', 'did you mean steps?'),
    ('typo.py', 'typo.py & unknown setting source; & did you mean sources?'), ('--=3', 'unknown setting'),
    ('--qqqqqqqq=1', 'qqqqqqqq & script.py --help'), ('--_hidden=2', '_hidden'), ('--later=2', 'later')])
def test_an_unknown_key_names_the_closest_one(play, arguments, words):
    one_line(play(*arguments.split(), typo='source = {}\n'), words)


@pytest.mark.parametrize('argument, words', [
    ('gone.py', 'gone.py & No such file'), ('steps=3', 'steps=3 & begin with --'), ('folder.py', 'folder.py'),
    ('syntax.py', 'syntax.py, line 2 & SyntaxError'), ('zero.py', 'zero.py, line 3 & ZeroDivisionError'),
    ('nested.py', 'nested.py, line 2 & JSONDecodeError'), ('lines.py', 'lines.py, line 1 & RuntimeError'),
    ('latin.py', 'latin.py'), ('null.py', 'null.py'), ('leaves.py', 'leaves.py, line 1 & SystemExit: 3')])
def test_a_broken_config_file_is_one_line_with_its_place(play, tmp_path, argument, words):
    (tmp_path / 'folder.py').mkdir()
    (tmp_path / 'latin.py').write_bytes('name = "é"\n'.encode('latin-1'))
    one_line(play(argument, syntax='steps = 1\nsteps = = 2', zero='\n\nsteps = 1 / 0', null='steps = 1\n\0\n',
                  nested='import json\nsteps = json.loads("{")', lines='raise RuntimeError("a\\nb")',
                  leaves='raise SystemExit(3)'), words)


@pytest.mark.parametrize('rule, good, bad', [
    ('>= 1: steps', '1 2 1e3', '0 -1'), ('> 0', '1', '0 -3'), ('<= 5', '5 -7', '6'), ('< 5: few', '4', '5'),
    ('[2, 8)', '2 7', '1 8'), ('(2, 2**3]', '3 8', '2 9'), ('[-1, 5]: low', '-1 5', '-2 6')])
def test_a_rule_beside_the_setting_is_enforced_in_files_and_flags(play, rule, good, bad):
    script = HEAD.replace('steps = 10                  # optimizer steps', f'steps = 4   # {rule}')
    for value in good.split():
        assert result(play(f'--steps={value}', script=script))['steps'] == int(float(value))
    for value in bad.split():
        expected = f'steps={value} & must be & {rule.split(":")[0]}'
        one_line(play(f'--steps={value}', script=script), expected)
        one_line(play('a.py', script=script, a=f'steps = {value}'), expected + ' & a.py')


def test_choices_name_the_closest_one_and_none_passes(play):
    script = HEAD.replace('# what # the run is called', '# base | large: how big')
    script = script.replace('# None =', '# >= 3: None =')
    one_line(play('--name=lage', script=script), "name='lage' & one of: base, large & did you mean large?")
    one_line(play('--name=', script=script), "name='' & one of")
    one_line(play('--seed=2', script=script), 'seed=2 & must be >= 3')
    assert result(play('--name=large', '--seed=None', script=script)) == DEFAULTS | {'name': 'large'}


@pytest.mark.parametrize('comment', [
    '<- change me', 'width | height, in pixels', '(cosine) peak', '>= many: steps', '[0, 1: steps',
    '> 1, steps', '>= -: x', '>= e: x', '[0, 9**9**9]: x', 'many | few: no default', '|', ' | ', '10 |', ':'])
def test_a_comment_that_is_not_exactly_a_rule_is_prose_and_stops_nothing(play, comment):
    script = HEAD.replace('# optimizer steps', f'# {comment}')
    assert result(play('--steps=-5', script=script)) == DEFAULTS | {'steps': -5}


def test_a_default_that_breaks_its_own_rule_is_an_error(play):
    one_line(play(script=HEAD.replace('# optimizer steps', '# >= 11')), 'steps=10 & >= 11')


@pytest.mark.parametrize('call', ['config = configure(globals())', 'configure(globals())'])
def test_an_imported_name_that_is_assigned_below_the_call_is_no_setting(play, call):
    """config.json of rl.py held a module: it imported `start`, and assigned `start` in its loop."""
    head = HEAD.partition('config = ')[0]
    script = f'{head}from os import path as start\n{call}\nstart = 3   # >= 4: a step\n'
    assert '--start' not in ok(play('--help', script=script))
    one_line(play('--start=5', script=script), 'unknown setting start')


def test_full_memory_names_the_micro_batch_only_where_there_is_one(play):
    one_line(play(body='raise MemoryError'), 'out of memory; try a smaller batch:')
    script = f'micro_batch_size = 8\n{HEAD}raise MemoryError'
    one_line(play(script=script), '(--micro_batch_size changes no result)')


def test_the_module_can_be_imported_whole(play):
    script = HEAD.replace('from configurator import configure, show', 'import configurator')
    script = script.replace('configure(globals())', 'configurator.configure(globals())')
    script = script.replace('show(config)', 'configurator.show(config)')
    assert result(play('--steps=3', script=script)) == DEFAULTS | {'steps': 3}


def test_a_mistake_that_a_part_raises_is_one_line(play, tmp_path):
    (tmp_path / 'parts').mkdir()
    leak = 'def f():\n    raise ValueError(\n        "leak")\n'
    (tmp_path / 'parts' / 'plumbing.py').write_text(leak, encoding='utf-8')
    one_line(play(body='from parts import plumbing\nplumbing.f()'), 'leak')


def test_help_prints_the_docstring_and_every_setting_with_its_comment(play):
    out = ok(play('--steps=3', '--help'))
    assert out.startswith('A throw-away script.\n\nIt says what it was told.') and 'RESULT' not in out
    assert [' '.join(line.split()) for line in out.splitlines() if line.startswith('  --')] == [
        '--steps=10 optimizer steps', '--rate=0.5 peak, per step', "--name='base' what # the run is called",
        '--flag=False', '--seed=None None = the clock', '--note=None', "--sources={'a': 1.0} weights"]


def test_what_differs_from_the_defaults_is_printed_once_and_by_rank_0_only(play):
    out = ok(play('a.py', '--rate=0.25', a='seed = 3\nflag = False')).partition('RESULT')[0]
    assert out == 'settings: rate=0.25  seed=3\n'
    assert ok(play()).startswith('settings: the defaults\n')
    assert ok(play('--rate=0.25', env={'RANK': '1'})).startswith('RESULT')


def test_the_settings_are_printed_in_lines_of_at_most_110_columns(play):
    lines = ok(play(f'--name={"a long name " * 30}', '--rate=2')).partition('RESULT')[0].splitlines()
    assert len(lines) > 3 and max(map(len, lines)) <= 110 and lines[0].startswith('settings: rate=2.0')
    assert all(line.startswith('  ') for line in lines[1:])


@pytest.mark.parametrize('body, words', [
    ('raise ValueError("bad")', 'bad'), ('raise ValueError(\n    "bad "\n    "batch")', 'bad batch'),
    ('def f():\n    raise ValueError(f"steps={steps}")\nf()', 'steps=10'), ('open("gone")', 'gone & No such'),
    ('if steps: raise ValueError("bad")', 'bad'), ('raise ConnectionError("offline")', 'offline'),
    ('with open("script.py") as f:\n    raise ValueError("bad")', 'bad'),
    ('raise MemoryError', 'out of memory'),
    ('try:\n    raise ValueError("bad")\nfinally:\n    steps = 3', 'bad'),
    ('try:\n    raise ValueError("bad")\nexcept ValueError:\n    steps = 3\n    raise', 'bad'),
    ('raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")', 'out of memory; try a smaller'),
    ('try:\n    int("x")\nexcept ValueError as e:\n    raise ValueError("no number") from e', 'no number'),
    ('shutil = __import__("shutil")\nshutil.copy("gone.bin", "x")', 'gone.bin')])
def test_what_the_user_can_mend_is_one_line(play, body, words):
    one_line(play(body=body), words)


@pytest.mark.parametrize('body, name', [
    ('1 / 0', 'ZeroDivisionError'), ('import numpy\nnumpy.zeros(3).reshape(2, 2)', 'ValueError'),
    ('int("x")', 'ValueError'), ('a, b = 1, 2, 3', 'ValueError'), ('json.loads("{")', 'JSONDecodeError'),
    ('x = "raise ValueError"; int("raise ")', 'ValueError'), ('with open(__file__): int("x")', 'ValueError'),
    ('def f():\n    try: int("x")\n    except ValueError: raise\nf()', 'ValueError'),
    ('def f():\n    try: int("x")\n    finally: print()\nf()', 'ValueError'),
    ('raise RuntimeError("ours")', 'RuntimeError'), ('undefined', 'NameError'), ('{}["x"]', 'KeyError')])
def test_a_bug_keeps_its_traceback(play, body, name):
    process = play(body=body)
    assert process.returncode == 1 and process.stderr.startswith('Traceback')
    assert body.splitlines()[-1] in process.stderr and name in process.stderr.splitlines()[-1]


def test_annotations_of_a_stranger_s_script(play):
    """typing.Optional, an annotation without a value, and a rule with numbers as words."""
    script = HEAD.replace('steps = 10 ', 'heads = 2  # 1 | 2 | 4: a divisor\nlater_on: int\nsteps = 10 ')
    script = script.replace('seed: int | None', 'seed: typing.Optional[int]')
    script = script.replace('import json', 'import json\nimport typing', 1)
    script = script.replace('# None =', '# >= 3: None =')
    got = result(play('--heads=4', '--seed=3', script=script))
    assert (got['heads'], got['seed'], 'later_on' in got) == (4, 3, False)
    one_line(play('--heads=3', script=script), 'heads=3 must be one of: 1, 2, 4')
    one_line(play('--sources={[1]: 2}', script=script), "sources='{[1]: 2}' is of type str, expected dict")
