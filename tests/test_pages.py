"""The pages are true: their links, names, numbers and commands; the tour prints what it shows; every exercise
can be begun and solved. No file runs a stranger's code, and a copy of extras/ needs no script."""
import ast
import codeop
import math
import re
import runpy
import shlex
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT, mistake, ok, read_json, run, save_run, write
from exercise import EMPTY, EXERCISES, blanked, copy_project, grade_cell, lines_of, part_to_write, verdict
from notebooks import begin, exercise_cells, notebook, tour_cells
from tour import BLOCK, NOTHING, OURS, PAGE, YOURS, pieces
from wrong_answers import WRONG

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer


def text_of(name):
    return (ROOT / name).read_text(encoding='utf-8')


PAGES = {path: path.read_text(encoding='utf-8')
         for path in [*(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'bench/records.md')),
                      *sorted(ROOT.glob('docs/*.md'))]}
README, NUMBERS, TOUR = text_of('README.md'), text_of('docs/numbers.md'), PAGE.read_text(encoding='utf-8')
SCRIPTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
           for folder in ('*.py', 'extras/*.py') for path in sorted(ROOT.glob(folder))}


# --- names, links and numbers -------------------------------------------------------------------------------
def names_in(*folder):
    return sorted(path.stem for path in ROOT.joinpath(*folder).glob('*.py') if path.stem != '__init__')


def anchors(page):
    """As GitHub makes them of headings: `## A run's folder` is #a-runs-folder."""
    text = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.S)
    headings = re.findall(r'^#+ (.+)$', text, re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}


def test_maps_links_and_names_of_files_functions_and_tests_are_right_and_every_page_is_linked():
    assert sorted(re.findall(r'^(?:\| )?\[(\w+)\.py\]\(\1\.py\)', README, re.M)) == names_in()
    assert sorted(re.findall(r'^    (\w+) +\S', text_of('extras/__init__.py'), re.M)) == names_in('extras')
    rows = text_of('tests/README.md').split('## Which file tests what')[1].splitlines()[4:]
    named = [f'test_{name}' for row in rows for name in row.split('|')[2].split()]
    assert sorted(named) == [name for name in names_in('tests') if name.startswith('test_')]
    linked = set()
    for path, text in PAGES.items():
        prose = re.sub(r'```.*?```', '', text, flags=re.S)
        for target in re.findall(r'\]\(([^)\s]+)\)', prose):
            if not target.startswith(('http://', 'https://')):
                file, _, anchor = target.partition('#')
                page = (path.parent / file).resolve() if file else path
                assert page.exists(), (path.name, target)
                assert not anchor or anchor in anchors(page), (path.name, target)
                linked.add(page)
        for name in re.findall(r'(?<![\w./:])((?:tests|bench|extras|config|docs)/[\w/]+\.\w+)', text):
            assert (ROOT / name).exists(), (path.name, name)
    assert {path for path in PAGES if path.parent.name == 'docs'} <= linked
    tests = re.findall(r'`(test_\w+\.py)::(\w+)`', text_of('tests/README.md'))
    functions = re.findall(r'`([\w/]+\.py):([\w.]+)`', ''.join(PAGES.values()))
    for file, names in [*((f'tests/{file}', name) for file, name in tests), *functions]:
        nodes = ast.parse(text_of(file)).body
        for name in names.split('.'):           # a class, and its method
            nodes = [child for node in nodes if getattr(node, 'name', '') == name for child in node.body]
        assert nodes, (file, names)


def test_readme_and_presets_repeat_the_numbers_of_the_page():
    rows = re.findall(r'^\| (config/\w+\.py).*? \| (.*?) \|', NUMBERS, re.M)
    assert len(rows) > 5
    for name, row in [*rows, ('README.md', NUMBERS)]:
        text = text_of(name)
        if name == 'README.md':         # the table of the full run
            text = text.split('## What you will see')[1].split('\n## ')[0].replace('95% interval', '')
        numbers = re.findall(r'need (?:about )?([\d.]+) minutes|(\d[\d.]*%)', text)
        for number in map(''.join, numbers):
            assert number in re.findall(r'[\d.]+%?', row), (name, number)
    assert len(numbers) > 10
    table = README.split('## Talk')[0]
    rows = re.findall(r'^\| (SFT|DPO|RL|rejection sampling)\b[^|]*\| (.*) \|$', table, re.M)
    assert len(rows) == 4
    for stage, cells in rows:
        shares = ', '.join(re.findall(r'\d+\.\d%', cells))
        assert re.search(rf'^\| {stage}\b[^|]*\| {shares} \|', NUMBERS, re.M), (stage, shares)


# --- who imports whom ---------------------------------------------------------------------------------------
def imported(node):
    """The names of the modules that a statement imports."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
    return [node.module] if isinstance(node, ast.ImportFrom) else names


def test_no_data_is_loaded_as_code_and_no_import_would_fail_in_a_copy():
    installed = set(re.findall(r'^[\w-]+', text_of('requirements.txt'), re.M))
    leaves = {'configurator', 'model', 'tokenizer'}
    for name, text in SCRIPTS.items():
        tree = ast.parse(text)
        everywhere = {module.split('.')[0] for node in ast.walk(tree) for module in imported(node)}
        top = {module.split('.')[0] for node in tree.body for module in imported(node)}
        assert not everywhere & {'pickle', 'dill', 'marshal', 'shelve', 'joblib'}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'torch.load':
                assert 'weights_only=True' in [ast.unparse(keyword) for keyword in node.keywords], name
        is_extra = name.startswith('extras/')
        assert not everywhere & ({*names_in()} - leaves) or not is_extra, name
        assert name != 'extras/muon.py' or not everywhere & {'extras', *leaves}     # it is copied alone
        assert 'extras' not in top or is_extra, f'{name} would not work without extras'
        foreign = top - sys.stdlib_module_names - leaves - {'extras', 'sandbox', 'crossing'}      # neighbors
        assert foreign <= installed, (name, foreign - installed)


# --- commands -----------------------------------------------------------------------------------------------
def settings(script):
    """What may follow `--`: a script's assignments above configure(), or its argparse options."""
    text = text_of(script)
    above, *below = re.split(r'^ *(?:config = )?configure\(globals\(\)', text, flags=re.M)
    return set(re.findall(r'^([a-z]\w*)(?:: [^=\n]+)? = ', above, re.M) if below else
               re.findall(r"add_argument\('--(\w+)", text))


def blocks(language, text):
    return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def commands(text):
    """Every `python X.py ...` of the shell blocks and between single backticks, without its comment."""
    lines = [line.split(' #')[0].strip() for block in blocks('bash', text) for line in block.splitlines()]
    lines += re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.S))
    lines += [line.split(' #')[0].strip(' #') for line in text.splitlines()      # of a docstring or a comment
              if re.match(r'(#? {4}|# )(python|torchrun) \S', line)]
    program = r'(python|torchrun --nproc_per_node=8) ([\w/]+\.py|-m extras\.)'
    return [line for line in lines if re.match(program, line)]


def words(command):
    """As bash splits it, $'...' included."""
    ansi = re.sub(r"\$'([^']*)'", lambda m: shlex.quote(m[1].encode().decode('unicode_escape')), command)
    return shlex.split(ansi)


def test_every_command_uses_settings_and_configs_that_exist():
    run_sh = text_of('run.sh').replace('\\\n', ' ')
    for name, value in reversed(re.findall(r'^(\w+)=(.*)$', run_sh, re.M)):       # the last variable first
        run_sh = run_sh.replace(f'${name}', value.strip("'\""))
    presets = [path.read_text(encoding='utf-8') for path in ROOT.glob('config/*.py')]
    texts = [*PAGES.values(), *SCRIPTS.values(), *presets, f'```bash\n{run_sh}```']
    stages = {f'{name}.py' for name in ('prepare', 'train', 'sft', 'dpo', 'rl', 'eval', 'plot')}
    assert stages <= {words(command)[1] for command in commands(texts[-1])}
    typed = sorted({command for text in texts for command in commands(text.replace('\\\n', ' '))})
    assert len(typed) > 100
    for command in typed:
        program = re.sub(r'^python -m (\S+)', lambda m: m[1].replace('.', '/') + '.py', command)
        script = next(word for word in words(program) if word.endswith('.py'))
        flags = {word[2:].split('=')[0] for word in words(command) if word.startswith('--')}
        for path in (word for word in words(command) if word.startswith('config/')):
            preset = ast.parse(text_of(path)).body
            flags |= {ast.unparse(t) for node in preset if isinstance(node, ast.Assign) for t in node.targets}
        flags = {flag for flag in flags if flag[0] != '_'}              # notes, no settings
        assert flags - {'nproc_per_node', 'help'} <= settings(script), command


def test_the_command_for_the_data_of_a_preset_makes_what_it_reads():
    n = 0
    for path in ROOT.glob('config/*.py'):
        preset = runpy.run_path(str(path))
        made = [c for c in preset.get('_data_from', '').split(' && ') if 'prepare.py' in c]
        n += len(made) > 0
        for command in made[-1:]:
            flags = dict(word[2:].split('=', 1) for word in words(command)[2:])
            assert flags.keys() <= settings('prepare.py') and flags['out_dir'] == preset['data_dir'], path
            for name in {'vocab_size'} & flags.keys() & preset.keys():
                assert int(flags[name]) == preset[name], path
    assert n > 5


def test_the_commands_for_your_own_text_and_settings_run_in_order(tmp_path, python_files):
    """Files and models of the run that README begins with are replaced, and flags make the runs small."""
    answer = {'role': 'assistant', 'content': 'I am a parrot.'}
    write(tmp_path / 'chats.jsonl', [{'messages': [{'role': 'user', 'content': f'Who are you, {i}?'}, answer]}
                                     for i in range(40)])
    small = {'prepare.py': '--vocab_size=512 --dedup=none',
             'train.py': '--max_steps=4 --warmup_steps=1 --n_layer=1 --n_embd=32 --data_dir=data/mine '
                         '--block_size=64 --eval_tokens=640 --sample_tokens=4',
             'sft.py': '--max_steps=2 --init_from=out/mine --base_dir=data/mine --sample_tokens=4',
             'sample.py': '--max_new_tokens=9', 'eval.py': '--loss_tokens=640'}
    instead = {'FOLDER': str(python_files), 'chats.json': 'chats.jsonl', 'out/quickstart': 'out/mine',
               'data/quickstart': 'data/mine', ' config/': f' {ROOT}/config/'}
    own = [c for c in commands(README) if re.search('(data|out)/(mine|chats|short)', c)]
    assert ' '.join(words(c)[1] for c in own) == ('prepare.py train.py sample.py prepare.py sft.py sample.py '
                                                  'train.py eval.py')
    for command in own:
        for old, new in instead.items():
            command = command.replace(old, new)
        _, script, *arguments = words(command)
        ok(run(script, *arguments, *small[script].split(), cwd=tmp_path))
    assert (tmp_path / 'out/short/eval.json').exists() and (tmp_path / 'out/chats/best.pt').exists()


def test_the_one_liners_print_what_their_comments_say(data_dir, conversations, base_run):
    printed = []
    for line in blocks('bash', text_of('docs/trouble.md').split('## One-liners')[1])[0].splitlines():
        for name, folder in (('data/quickstart', data_dir), ('data/sft', conversations),
                             ('out/quickstart', base_run), ('python ', f'{sys.executable} ')):
            line = line.replace(name, str(folder))
        printed.append(subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout)
    tokens, number, size, rates = printed
    assert tokens == f"{read_json(data_dir / 'meta.json')['tokens']}\n"
    assert int(number) == len((conversations / 'train.jsonl').read_text().splitlines())
    assert re.match(r'parameters: [\d,]+', size) and size.count('\n') == 1 and re.search(r'lr: 0\.\d+', rates)


# --- the tour -----------------------------------------------------------------------------------------------
NUMBER = re.compile(r'-?\d+\.\d+(?:e-?\d+)?')       # whole numbers are compared as text


def outputs_of(page):
    """[(words, numbers)] of each output, without the bars, which say the same as the numbers before them."""
    outputs = [re.sub(r' =+$', '', block[4], flags=re.M) for block in BLOCK.finditer(page)]
    return [(NUMBER.sub('?', text).split(), [float(n) for n in NUMBER.findall(text)]) for text in outputs]


def test_the_tour_prints_what_is_below_its_blocks_and_can_be_pasted_line_by_line(tmp_path):
    page = ''.join(pieces(TOUR))
    (tmp_path / 'tour.md').write_text(page, encoding='utf-8')       # to be copied, if the page has to change
    now, before = outputs_of(page), outputs_of(TOUR)
    assert len(now) == len(before) == TOUR.count('```python') > 9
    for (words, numbers), (old_words, old_numbers) in zip(now, before):
        assert words == old_words, f'now: {tmp_path}/tour.md'
        for a, b in zip(numbers, old_numbers):
            assert abs(a - b) <= max(0.02, 0.05 * abs(b)), (numbers, old_numbers, f'now: {tmp_path}/tour.md')
    # at a prompt, an empty line ends a function, and what follows a loop needs one before it
    for block in BLOCK.finditer(TOUR):
        typed = []
        for line in [*block[2].splitlines(), '']:
            typed.append(line)
            if codeop.compile_command('\n'.join(typed)):
                typed = []
        assert not typed, block[2]


def test_it_prints_the_values_of_two_models_of_the_reader_below_ours(tmp_path):
    """A model of bytes, untrained, is a base model and a chat model. Without what it prints and the labels,
    the page is ours, letter by letter."""
    tokenizer, allow = Tokenizer.byte(SPECIAL_TOKENS[:4]), '--allow_code_execution=True'
    save_run(tmp_path, GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 32)), tokenizer)
    page = ok(run('learn/tour.py', allow, tmp_path, tmp_path))
    n_parameters = sum(p.numel() for p in GPT.load(tmp_path).parameters())
    assert f'parameters: {n_parameters}\n' in page and 'pass at 1: 0.0000' in page
    theirs = rf'(?:{YOURS}\n\n```\n(.+?)```|{re.escape(NOTHING)})\n\n'
    added = re.compile(rf'```\n\n{theirs}{OURS}\n\n(?=```\n)', re.S)
    outputs = added.findall(page)
    assert added.sub('```\n', page) == TOUR
    assert len(outputs) > 8 and outputs.count('') == 2                 # both trainings are skipped
    assert f'ln V: {math.log(260):.4f}\n' in ''.join(outputs) and '```' not in ''.join(outputs)
    for arguments, said in (([], 'bash run.sh tour'), ([allow, tmp_path], 'two runs'),
                            ([allow, 'none', 'none'], 'none does not exist')):
        mistake(run('learn/tour.py', *arguments), said)


def test_the_notebooks_are_the_pages_of_today_and_find_the_project_or_say_how_to_get_it(tmp_path):
    assert text_of('docs/tour.ipynb') == notebook(tour_cells()), 'python learn/notebooks.py'
    # of an exercise the signature counts: a grade takes its docstring from the cell
    kept = re.compile(f'%%exercise .*| *def .*|{re.escape(EMPTY)}')
    written, now = ([kept.findall(''.join(cell['source'])) for cell in cells] for cells in (
        read_json(ROOT / 'docs/exercises.ipynb')['cells'], exercise_cells()))
    assert written == now and len(now) > len(EXERCISES), 'python learn/notebooks.py'

    def after(folder, package='torch'):
        text = ''.join(begin('tour.ipynb', 'requirements.txt', package)['source'])
        text += '\nimport learn.tour, os\nprint(os.getcwd())'
        return subprocess.run([sys.executable, '-I', '-c', text], cwd=folder, capture_output=True, text=True)
    assert 'command that clones it' in after(tmp_path).stderr
    (tmp_path / 'nanoparrot').symlink_to(ROOT)
    assert after(ROOT / 'docs').stdout.strip() == str(ROOT) and after(tmp_path).returncode == 0
    assert 'has no absent. Run %pip install' in after(ROOT, 'absent').stderr


# --- exercises ----------------------------------------------------------------------------------------------
BY_NAME = {e.name: e for e in EXERCISES}
SLOWLY = """from test_tokenizer import in_order
    return in_order(chunk, ranks)"""


def answered(exercise, answer):
    """Return the exercise's file with an answer in its hole."""
    blank = blanked(exercise, text_of(exercise.file))
    indent = re.search(f'^( *){re.escape(EMPTY)}', blank, re.M)[1]
    return blank.replace(indent + EMPTY, textwrap.indent(answer.strip('\n'), indent))


def test_every_exercise_has_a_row_of_the_page_tests_that_exist_and_a_hole_without_its_answer():
    page = text_of('docs/exercises.md')
    rows = re.findall(r'^\| (\d+) \| `(\w+)` \| `([\w/]+\.py)` \| ([^|]+) \|', page, re.M)
    assert [tuple(row[:3]) for row in rows] == [(str(i), e.name, e.file) for i, e in enumerate(EXERCISES, 1)]
    for (*_, where), e in zip(rows, EXERCISES):
        assert (e.where or 'the loop') in where, e.name
        source = text_of(e.file)
        first, stop = lines_of(e, source)
        blank, part = blanked(e, source), part_to_write(e, source)
        assert ast.parse(blank) and ''.join(source.splitlines(keepends=True)[first:stop]) not in blank
        assert e.name != 'pass_at_k' or not re.search(r'C\(n|math\.comb', blank)         # nor in words
        assert blank.count(EMPTY) == blank.count(part) == part.count(EMPTY) == 1, e.name
        for file, _, test in (name.partition('::') for name in e.tests.split()):
            assert f'def {test.split("[")[0]}' in text_of(f'tests/{file}'), test


def test_a_cell_is_graded_as_a_part_of_its_file_and_an_endless_loop_is_told(capsys, monkeypatch):
    e = BY_NAME['bpe_encode']
    cell = part_to_write(e, text_of(e.file))
    for written, said in ((EMPTY, 'still empty'), ('return (', 'is not Python'),
                          (SLOWLY, 'passed: 1 passed')):
        grade_cell(e.name, cell.replace(EMPTY, written))
        assert said in capsys.readouterr().out
    monkeypatch.setattr('exercise.PATIENCE', 2)
    e = BY_NAME['pass_at_k']
    assert verdict(e, answered(e, 'while True:\n    pass'), e.file) == 1
    assert capsys.readouterr().out == (
        'not yet: the tests have not ended after 2 seconds. Is there an endless loop?\n')


def test_a_reader_begins_is_told_what_is_missing_and_passes(tmp_path):
    """The whole way of one exercise, as `bash run.sh exercise` walks it, in a copy of the project."""
    copy_project(tmp_path)
    call = lambda *asked: subprocess.run([sys.executable, tmp_path / 'learn/exercise.py', *asked],
                                         text=True, capture_output=True)
    mine = tmp_path / 'exercises/bpe_encode/tokenizer.py'
    assert "no exercise '99'" in call('99').stderr and 'bpe_encode' in call().stdout
    assert 'exercises/bpe_encode/tokenizer.py, line ' in ok(call('9'))
    blank = mine.read_text(encoding='utf-8')
    for answer, code, said in ((EMPTY, 1, ''), ('return []', 1, 'not yet (1 failed)'),
                               (SLOWLY, 0, 'passed: 1 passed')):
        mine.write_text(blank.replace(EMPTY, answer), encoding='utf-8')
        result = call('9')
        assert result.returncode == code and said in result.stdout, result.stdout
        assert mine.read_text(encoding='utf-8') == blank.replace(EMPTY, answer)         # never overwritten


# Each grade is a pytest of its own, so most of them wait for --slow.
QUICK = 'pass_at_k', 'rms_norm', 'targets', 'schedule'


@pytest.mark.parametrize('name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
                                  for name in BY_NAME])
def test_who_fails_reads_the_input_what_was_found_and_what_was_expected(name, capsys):
    """In three lines, also if the answer raises an error."""
    assert len(WRONG[name]) == 2
    for answer, *hints in WRONG[name]:
        assert verdict(BY_NAME[name], answered(BY_NAME[name], answer), BY_NAME[name].file) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4 and lines[3].startswith('not yet (1 failed'), lines
        asked, found, expected = lines[:3]
        assert found.startswith('  found:    ') and expected.startswith('  expected: '), lines
        assert found.split(maxsplit=1)[1] != expected.split(maxsplit=1)[1], lines
        for hint, line in zip(hints, lines):
            assert hint in line and len(line) < 270, (hint, line)
