"""The pages are true: their links, names and commands; the tour prints what it shows; every exercise
can be begun and solved; the notebook finds the project. No file runs a stranger's code."""
import ast
import codeop
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, fill, mistake, ok, python, read_rows, run, save_run, table, with_each, write
from exercise import EMPTY, EXERCISES, blanked, copy_project, grade, ids_of, verdict
from tour import BLOCK, OURS, PAGE, YOURS, pieces

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer


def text_of(name):
    return (ROOT / name).read_text()


def texts_of(*patterns):
    """{path: text} of the files that match, in order."""
    return {path: text_of(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))}


PAGES = texts_of('README.md', 'CONTRIBUTING.md', 'docs/*.md')
# without the commands of older commits, whose files and flags are gone
PAGES = {path: re.sub('`git switch --detach [^`]*`', '', text) for path, text in PAGES.items()}
SCRIPTS = texts_of('*.py', 'extras/*/*.py')
README, TOUR = text_of('README.md'), text_of(PAGE)


# --- names, links and numbers ---------------------------------------------------------------------
def names_in(folder=''):
    return [path.stem for path in texts_of(f'{folder}*.py') if path.stem != '__init__']


def without_code(text):
    return re.sub('```.*?```', '', text, flags=re.S)


def anchors(path):
    """As GitHub makes them of headings: `## A run's folder` is #a-runs-folder."""
    headings = re.findall(r'^#+ (.+)$', without_code(text_of(path)), re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).strip().replace(' ', '-')
            for heading in headings}


def test_maps_links_and_names_of_files_functions_and_tests_are_right_and_every_page_is_linked():
    assert sorted(re.findall(r'^(?:\| )?\[(\w+)\.py\]\(\1\.py\)', README, re.M)) == names_in()
    rooms = re.findall(r'^(\w+)/ +\S', text_of('extras/__init__.py'), re.M)
    assert sorted(rooms) == sorted(path.parent.name for path in ROOT.glob('extras/*/__init__.py'))
    for room in rooms:
        doors = re.findall(r'^(\w+)  +\S', text_of(f'extras/{room}/__init__.py'), re.M)
        assert sorted(doors) == names_in(f'extras/{room}/')
    map_of_tests = text_of('tests/README.md')
    rows = map_of_tests.split('## Which file tests what')[1].splitlines()[4:]
    tests = [f'test_{name}' for row in rows for name in row.split('|')[2].split()]
    assert sorted(tests) == [name for name in names_in('tests/') if name.startswith('test_')]

    linked = set()
    for path, text in PAGES.items():
        for target in re.findall(r'\]\((?!https?://|\.\./\.\./deployments)([^)\s]+)\)', without_code(text)):
            file, _, anchor = target.partition('#')
            page = (path.parent / file).resolve() if file else path
            assert page.exists() and (not anchor or anchor in anchors(page)), (path, target)
            linked.add(page)
        folders = r'(?<![\w./:])((?:tests|bench|extras|config|docs)/[\w/]+\.\w+)'
        for name in re.findall(folders, text):
            assert (ROOT / name).exists(), (path, name)
    assert {path for path in PAGES if path.parent.name == 'docs'} <= linked
    named = re.findall(r'`([\w/]+\.py)::?([\w.]+)`', ''.join(PAGES.values()) + map_of_tests)
    for file, names in named:
        text = text_of(f'tests/{file}' if file.startswith('test_') else file)
        for name in names.split('.'):           # a class, and its method
            assert re.search(rf'^ *(def|class) {name}\b', text, re.M), (file, name)


# --- who imports whom -----------------------------------------------------------------------------
def imported(nodes):
    """The names of the modules that these statements import, up to their first dot."""
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split('.')[0] for name in froms + names}


def test_no_data_are_loaded_as_code_no_stage_is_imported_and_python_3_10_reads_all():
    # clean.py runs no job then
    leaves = {'configurator', 'common', 'model', 'tokenizer', 'dedup', 'files', 'clean'}
    for path, text in SCRIPTS.items():
        tree = ast.parse(text, feature_version=(3, 10))
        everywhere, top = imported([*ast.walk(tree)]), imported(tree.body)
        assert not everywhere & {'pickle', 'dill', 'marshal', 'shelve', 'joblib', 'tomllib'}, path
        assert text.count('torch.load(') == text.count('weights_only=True'), path
        assert not everywhere & ({*names_in()} - leaves), path
        assert path.parent.parent.name == 'extras' or 'extras' not in top, path    # options are doors


# --- commands -------------------------------------------------------------------------------------
@functools.cache
def help_of(program):
    """What a script, or a module of extras/, prints with --help."""
    module = program[:-3].replace('/', '.') if program.startswith('extras/') else program
    return ok(run(module, '--help'))


def blocks(language, text):
    return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def commands(text):
    """Every `python X.py ...` of the shell blocks, between single backticks, of a docstring and of
    a comment, without what follows it."""
    text = text.replace('\\\n', ' ')
    lines = '\n'.join(blocks('bash', text)).splitlines()
    lines += re.findall('`([^`\n]+)`', without_code(text))
    lines += re.findall(r'^(?:#? {4}|# )((?:python|torchrun) \S.*)', text, re.M)
    program = r'(\w+=\S+ )*(python|torchrun)( --\S+)* ([\w/]+\.py|-m extras\.)'
    lines = [part for line in lines for part in line.split(' #')[0].strip(' #').split(' && ')]
    return [line for line in lines if re.match(program, line)]


def words(command):
    """As bash splits it, $'...' included."""
    return shlex.split(command.replace("$'", "'").replace('\\n', '\n'))


def script_of(command):
    module = re.search(r'python -m (\S+)', command)
    return module[1].replace('.', '/') + '.py' if module else re.search(r'\S+\.py', command)[0]


def flags_of(command):
    behind = re.search(r' (?:\S+\.py|-m \S+)(.*)', command)[1]
    return dict(word[2:].partition('=')[::2] for word in words(behind) if word[:2] == '--')


def test_every_command_uses_settings_and_configs_that_exist():
    run_sh = text_of('run.sh')
    n_commands = len(re.findall('^python ', run_sh, re.M))      # how run.sh counts them
    for name, value in reversed(re.findall(r'^(\w+)=(.*)$', run_sh, re.M)):     # the last one first
        run_sh = run_sh.replace(f'${name}', value.strip("'\""))
    run_sh = commands(f'```bash\n{run_sh}```')
    assert n_commands == len(run_sh) == 22
    configs = texts_of('config/*.py')
    texts = {**PAGES, **SCRIPTS, **configs}
    del texts[ROOT / 'docs/log.md']      # its commands are those of the commits that they name
    froms = ['`{}`'.format(''.join(re.findall("'(.*)'", lines))) for text in configs.values()
             for lines in re.findall("^_data_from = (.*(?:\n +'.*)*)", text, re.M)]
    typed = run_sh + [command for text in [*texts.values(), *froms] for command in commands(text)]
    assert len(froms) > 9 and len(typed) > 150
    for command in typed:
        known = [help_of(script_of(command)), *map(text_of, re.findall(r' (config/\S+)', command))]
        for flag in {*flags_of(command)} - {'help'}:
            assert re.search(rf'(?m)^( +--)?{flag}\b', '\n'.join(known)), command
    known = '\n'.join(map(help_of, {*map(script_of, typed)}))
    for path in PAGES.keys() & texts:       # in a sentence: `--flag=1` and `script.py --flag`
        for code in re.findall(r'`((?:\w+\.py )?--[^`\n]+)`', without_code(PAGES[path])):
            program, _, _ = code.rpartition(' --')
            said = help_of(program) if program.endswith('.py') else known
            for flag in {*re.findall(r'--(\w+)', code)} - {'help', 'apply_chat_template'}:     # lm_eval's
                assert re.search(rf'(?m)^( +--)?{flag}\b', said), (path, code)
    section = text_of('docs/use.md').split('## Changing a script')[1]
    for name in re.findall(r'`(\w+)(?:\(.*?\))?`', section):
        assert re.search(rf'\b{name}\b', ''.join(SCRIPTS.values())), name


SMALL = """
clean.py => --dedup=none
prepare.py => --vocab_size=512
chats.py => --pii=True
train.py => --max_steps=4 --warmup_steps=1 --n_layer=1 --n_embd=32 --data_dir=data/mine --block_size=64 --eval_tokens=640
sft.py => --max_steps=2 --init_from=out/mine --base_dir=data/mine
sample.py => --max_new_tokens=9"""


def test_the_commands_for_your_own_text_and_settings_run_in_order(python_files):
    """Files and models of the run that README begins with are replaced; flags make runs small."""
    write('chats.jsonl', [{'instruction': f'Who is {i}?', 'output': 'A parrot.'}
                                     for i in range(40)])
    small = {name: flags.split() for name, flags in table(SMALL, ' => ')}
    own = [c for c in commands(README) if re.search('(data|out)/(mine|chats)', c)]
    assert {*map(script_of, own)} == {*small} and len(own) == 7
    for command in own:
        command = command.replace('=docs ', f'={python_files} ')
        command = re.sub('/quickstart(?= |$)', '/mine', command)
        _, script, *arguments = words(command.replace(' config/', f' {ROOT}/config/'))
        ok(run(script, *arguments, *small[script]))


def test_the_one_liners_print_what_their_comments_say(data_dir, conversations, base_run):
    for name, folder in (('data/quickstart', data_dir), ('data/sft', conversations),
                         ('out/quickstart', base_run)):
        shutil.copytree(folder, name)
    lines = blocks('bash', text_of('docs/trouble.md').split('## One-liners')[1])[0]
    printed = subprocess.check_output(lines.replace('python ', f'{sys.executable} '), shell=True, text=True)
    assert re.fullmatch(r"\{'train': \d.*\n60\n.*parameters: .*\n(.* lr: 0\.\d.*\n)+", printed), printed


# --- the full run ---------------------------------------------------------------------------------
# A Python that writes down its arguments. A trainer makes the file that it would make as it begins.
# The command that the file `end` names ends as that file says.
PYTHON = """#!/bin/bash
[ "$1" = -c ] && exec ./old
[ "$1" = -V ] && exec echo Python 3.9.18
[ "$*" = '-m pip --version' ] && exec ./pip
echo "$*" >> calls
case "$2" in config/*)
    out=out/$(basename "$2" .py)
    mkdir -p "$out"
    sleep 0.02      # files that are made within a tick of the kernel's clock have one time
    touch "$out/config.json" ;;
esac
read -r how command < end
[ "$*" != "$command" ] || eval "$how"
"""
KILL, CTRL_C, FAIL = 'kill${IFS}-9${IFS}0', 'kill${IFS}-INT${IFS}0;sleep${IFS}9', 'exit${IFS}1'
AUTO = ' --init_from=auto'


@pytest.fixture
def full_run(tmp_path):
    """full_run(*arguments, end='') -> the exit code, what it printed, and the commands that ran."""
    for name in 'config/a.py', 'extras/tasks/b.py', 'data/mined/train.jsonl', 'data/sft/train.jsonl':
        write(name, [name])
    shutil.copy(ROOT / 'run.sh', '.')
    shell = '#!/bin/sh'
    fill(dict.fromkeys(['model.py', 'requirements.txt', '.venv/installed-requirements.txt'], ''))
    fill({'.venv/bin/python': PYTHON, 'old': shell, 'pip': shell, 'uname': 'echo Linux', 'nvidia-smi': 'exit 9'})
    for name in '.venv/bin/python', 'old', 'pip', 'uname', 'nvidia-smi':
        os.chmod(name, 0o755)

    def full_run(*arguments, end=''):
        fill({'end': f'{end}\n', 'calls': ''})
        done = subprocess.run(['bash', 'run.sh', *arguments], text=True,
                              capture_output=True, start_new_session=True,
                              env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'})
        return done.returncode, done.stdout + done.stderr, Path('calls').read_text().splitlines()
    return full_run


# which command is interrupted, how, and the exit code of run.sh
INTERRUPTED = f"""
0 {KILL} -9
2 {CTRL_C} 130
5 {FAIL} 1
7 {KILL} -9
9 {KILL} -9
12 {CTRL_C} 130
16 {KILL} -9
21 {CTRL_C} 130"""


def test_a_full_run_that_was_interrupted_goes_on_there(full_run):
    """Killed, by Ctrl-C or by a command that fails. The command that was interrupted runs again; a
    trainer that had begun resumes."""
    code, printed, calls = full_run()
    assert (code, len(calls)) == (0, 22) and '22 of 22, after 0 minutes' in printed, printed
    assert 'full run starts over' not in printed and full_run()[::2] == (0, [])
    for i, how, code in table(INTERRUPTED, None):
        i, code = int(i), int(code)
        begun = full_run('--again', end=f'{how} {calls[i]}')
        assert 'full run starts over' in begun[1] and begun[::2] == (code, calls[:i + 1]), begun
        assert code == -9 or 'continues from here' in begun[1]
        resumed = full_run()
        first = calls[i].replace(' --overwrite=True', AUTO) if ' config/' in calls[i] else calls[i]
        assert resumed[::2] == (0, [first, *calls[i + 1:]]), resumed
        assert f'{i} of 22 finished before' in resumed[1] or i == 0
        mixed = read_rows('data/rejection/train.jsonl')
        assert mixed == ['data/mined/train.jsonl', 'data/sft/train.jsonl']


def test_a_full_run_with_another_script_begins_anew_and_with_another_command_from_there(full_run):
    calls = full_run()[2]
    full_run('--again', end=f'{KILL} {calls[9]}')
    write('model.py', [1])
    code, printed, again = full_run()
    assert 'because a script has changed' in printed and (code, again) == (0, calls)
    fill({'run.sh': text_of('run.sh').replace('dpo.py --overwrite', 'dpo.py --beta=1 --overwrite')})
    changed = [call.replace('dpo.py --over', 'dpo.py --beta=1 --over') for call in calls]
    assert full_run()[::2] == (0, changed[9:]) and calls[9] != changed[9]
    assert full_run()[::2] == (0, [])


def test_without_a_gpu_pytorch_is_the_one_for_cpus_and_the_usual_one_if_its_index_is_silent(full_run):
    """Nothing else comes from PyTorch's index. A .venv that can't install is said."""
    fill({'requirements.txt': 'torch>=2\nnumpy\n'})
    shutil.copy('requirements.txt', '.venv/installed-tests-requirements.txt')
    pip = '-m pip install --disable-pip-version-check --no-compile'
    cpu = (f'{pip} --index-url=https://download.pytorch.org/whl/cpu --no-deps --retries=0 '
           '--timeout=10 torch>=2')
    usual = [f'{pip} -r requirements.txt', 'learn/tour.py --allow_code_execution=True']
    stamp = Path('.venv/installed-requirements.txt')
    for how in 'true', 'false':
        stamp.unlink()
        code, printed, calls = full_run('tour', end=f'{how} {cpu}')
        assert (code, calls) == (0, [cpu, *usual]) and 'about 200 MB' in printed, printed
        assert ('about 3 GB' in printed) == (how == 'false')
    assert full_run('tour')[2] == usual[1:]                         # once
    fill({'nvidia-smi': '#!/bin/sh'})
    stamp.unlink()
    assert full_run('tour')[2] == usual
    for lacks, said in ('pip', 'uv pip install pip'), ('old', '.venv/bin/python is Python 3.9.18'):
        fill({lacks: '#!/bin/sh\nexit 1', stamp: ''})
        code, printed, calls = full_run('tour')
        assert code == 2 and said in printed and not calls


# --- the tour -------------------------------------------------------------------------------------
NUMBER = re.compile(r'-?\d+\.\d+(?:e-?\d+)?')       # whole numbers are compared as text


def test_the_tour_prints_what_is_below_its_blocks_and_can_be_pasted_line_by_line(tmp_path):
    now, before = (''.join(re.sub(' =+$', '', block[4], flags=re.M)
                           for block in BLOCK.finditer(page))
                   for page in (''.join(pieces(TOUR)), TOUR))
    (tmp_path / 'now').write_text(now)    # to be copied, if it has to change
    assert NUMBER.sub('?', now).split() == NUMBER.sub('?', before).split(), tmp_path
    for a, b in zip(NUMBER.findall(now), NUMBER.findall(before)):
        assert float(a) == pytest.approx(float(b), rel=0.05, abs=0.02), tmp_path
    # at a prompt, an empty line ends a function, and what follows a loop needs one before it
    for block in BLOCK.finditer(TOUR):
        typed = []
        for line in [*block[2].splitlines(), '']:
            typed.append(line)
            if codeop.compile_command('\n'.join(typed)):
                typed = []
        assert not typed, block[2]


def test_it_prints_the_values_of_two_models_of_the_reader_below_ours(tmp_path):
    """A model of bytes, untrained, is both."""
    tokenizer, allow = Tokenizer.byte(SPECIAL_TOKENS[:4]), '--allow_code_execution=True'
    save_run(tmp_path, GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 32)), tokenizer)
    page = ok(run('learn/tour.py', allow, tmp_path, tmp_path))
    theirs = re.findall(rf'{YOURS}\n\n```\n(.+?)```\n\n{OURS}', page, re.S)
    assert 'ln V: 5.5607\n' in ''.join(theirs)         # of 260 tokens
    mistake(run('learn/tour.py'), 'bash run.sh tour')


# --- exercises ------------------------------------------------------------------------------------
def test_every_exercise_has_a_row_of_the_page_tests_that_exist_and_a_hole_without_its_answer():
    rows = re.findall(r'^(\d+)\. `(\w+)` \(([\w/]+\.py)\)', text_of('docs/exercises.md'), re.M)
    assert rows == [(str(i), e.name, e.file) for i, e in enumerate(EXERCISES, 1)]
    for e in EXERCISES:
        blank = blanked(e, text_of(e.file))
        assert ast.parse(blank) and blank.count(EMPTY) == 1, e.name
        assert e.name != 'pass_at_k' or not re.search(r'C\(n|math\.comb', blank)     # nor in words
        assert type(e.seconds) is int, e.name


# the usual mistake of each exercise: what it replaces in our file, and by what
MISTAKES = r'''
pass_at_k: math.comb(n - c, k) / math.comb(n, k) => (1 - c / n) ** k
schedule: (step + 1) / warmup_steps => step / warmup_steps
rms_norm: F.rms_norm(x.float(), => F.rms_norm(x.float() - x.float().mean(-1, True),
rope: b * cos + a * sin => b * cos - a * sin
top_p: p.cumsum(dim=-1) - p >= top_p => p.cumsum(dim=-1) >= top_p
chat_mask: mask += [0] * len(header) => mask += [int(role == 'assistant')] * len(header)
targets: np.where(mask[1:] => np.where(mask[:-1]
dpo: -F.logsigmoid(chosen - rejected) => -torch.sigmoid(chosen - rejected).log()
bpe_encode: ranks.get(merged[i], math.inf) => -ranks.get(merged[i], -1)
attention: mask is None and x.shape[1] > 1 => mask is None
minhash: a * x[i:i + 120, None] + b => x[i:i + 120, None] + b
accumulation: (y != IGNORE).sum() / n_targets.clamp(min=1) => 1.0
batch_order: default_rng([seed, epoch]) => default_rng([seed])
resume: opt.state_dict()['state'] if name == 'last.pt' else {} => {}
bpe_train: (-frequency[pair], pair) => (-frequency[pair], -pair[0], -pair[1])'''
MISTAKES = {name: change.split(' => ') for name, change in table(MISTAKES, ': ')}
# They would also spoil the others' tests, of attention or of a run.
LATER = {*'targets bpe_encode attention accumulation resume'.split()}


@with_each('names', [set(), MISTAKES.keys() - LATER, LATER])
def test_every_exercise_is_passed_by_our_function_and_failed_by_its_usual_mistake(names):
    answers = {e.file: text_of(e.file) for e in EXERCISES}
    for e in EXERCISES:
        if e.name in names:
            answers[e.file] = answers[e.file].replace(*MISTAKES[e.name])
            assert answers[e.file] != text_of(e.file), e.name
    graded = [e for e in EXERCISES if not names or e.name in names]
    result = grade([name for e in graded for name in ids_of(e)], answers, '-rf', seconds=300)
    assert result.returncode == bool(names), result.stdout[-2000:] + result.stderr
    failed = re.findall('^FAILED tests/(.+?)(?: - .*)?$', result.stdout, re.M)
    for e in graded:
        spoiled = [name for name in failed if name.startswith(tuple(ids_of(e)))]
        assert bool(spoiled) == (e.name in names), (e.name, failed)


def test_an_answer_that_takes_much_memory_or_computes_in_float32_without_a_scaler_fails():
    one_array = text_of('dedup.py').replace('120', '10 ** 9')
    plain = text_of('train.py').replace('        with autocast:\n            mean_loss = net(',
                                        '        if True:\n            mean_loss = net(')
    plain = plain.replace('scaler.scale(mean_loss * fraction * world)', '(mean_loss * fraction * world)')
    tests = [name for e in EXERCISES if e.name in ('minhash', 'accumulation') for name in ids_of(e)[2:]]
    result = grade(tests, {'dedup.py': one_array, 'train.py': plain})
    assert len(tests) == 3 and '3 failed' in result.stdout and 'passed' not in result.stdout


def test_a_reader_begins_is_told_what_is_missing_or_wrong_and_passes(tmp_path):
    """The whole way of one exercise, in a copy of the project."""
    copy_project(tmp_path)
    call = functools.partial(python, tmp_path / 'learn/exercise.py', '1')
    assert 'exercises/pass_at_k/eval.py, line ' in ok(call())
    mine = tmp_path / 'exercises/pass_at_k/eval.py'
    begun = mine.read_text()
    for answer, words in ((EMPTY, 'still empty'), ('return (', 'is not Python'),
                          ('return min(1.0, c * k / n)', r'assert 1\.0 == 0\.8333.*not yet'),
                          ('return 1 - math.comb(n - c, k) / math.comb(n, k)', 'passed: 1 passed')):
        answered = begun.replace(EMPTY, answer)
        mine.write_text(answered)
        assert re.search(words, call().stdout, re.S), answer
        assert mine.read_text() == answered         # never overwritten


def test_an_endless_loop_ends_after_seconds_and_its_line_is_said(capsys):
    exercise = EXERCISES[0]._replace(seconds=1)
    looping = blanked(exercise, text_of('eval.py')).replace(EMPTY, 'while True: pass')
    assert verdict(exercise, looping, 'mine.py') == 1
    line = [line.strip() for line in looping.splitlines()].index('while True: pass') + 1
    assert f'endless loop at line {line}?' in capsys.readouterr().out
