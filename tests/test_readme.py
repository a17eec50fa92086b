"""README and docs/ are true: their links, maps of files, commands and Python."""
import json
import re
import shlex
import shutil
import subprocess
import sys

from conftest import ROOT, ok, run, write
from test_house import settings

README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = {path: path.read_text(encoding='utf-8')
         for path in [*(ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'bench/records.md')),
                      *sorted(ROOT.glob('docs/*.md'))]}


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


def anchors(page):
    """As GitHub makes them of headings: `## A run's folder` is #a-runs-folder."""
    text = re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.S)
    headings = re.findall(r'^#+ (.+)$', text, re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}


def names_in(*folder):
    return sorted(path.stem for path in ROOT.joinpath(*folder).glob('*.py') if path.stem != '__init__')


def test_the_three_maps_name_each_file_and_no_other():
    """README's table; the map of extras/; the table of the tests."""
    assert sorted(re.findall(r'^(?:\| )?\[(\w+)\.py\]\(\1\.py\)', README, re.M)) == names_in()
    text = (ROOT / 'extras/__init__.py').read_text(encoding='utf-8')
    assert sorted(re.findall(r'^    (\w+) +\S', text, re.M)) == names_in('extras')
    text = (ROOT / 'tests/README.md').read_text(encoding='utf-8')
    rows = text.split('## Which file tests what')[1].splitlines()[4:]
    named = [f'test_{name}' for row in rows for name in row.split('|')[2].split()]
    assert sorted(named) == [name for name in names_in('tests') if name.startswith('test_')]
    for file, name in re.findall(r'`(test_\w+\.py)::(\w+)`', text):
        assert f'def {name}(' in (ROOT / 'tests' / file).read_text(encoding='utf-8'), name


def test_every_link_and_each_file_that_is_named_exists_and_every_page_is_linked():
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
        for name in re.findall(r'(?<![\w./:])((?:tests|bench|parts|extras|config|docs)/[\w/]+\.\w+)', text):
            assert (ROOT / name).exists(), (path.name, name)
    assert {path for path in PAGES if path.parent.name == 'docs'} <= linked


def test_every_command_uses_settings_and_configs_that_exist():
    folders = '*.py', 'extras/*.py', 'config/*.py'
    scripts = [path for folder in folders for path in ROOT.glob(folder)]
    texts = [*PAGES.values(), *(path.read_text(encoding='utf-8') for path in scripts)]
    run_sh = (ROOT / 'run.sh').read_text(encoding='utf-8').replace('\\\n', ' ')
    for name, value in reversed(re.findall(r'^(\w+)=(.*)$', run_sh, re.M)):       # the last variable first
        run_sh = run_sh.replace(f'${name}', value.strip("'\""))
    texts.append(f'```bash\n{run_sh}```')
    stages = {f'{name}.py' for name in ('prepare', 'train', 'sft', 'dpo', 'rl', 'eval', 'plot')}
    assert stages <= {words(command)[1] for command in commands(texts[-1])}
    typed = sorted({command for text in texts for command in commands(text.replace('\\\n', ' '))})
    assert len(typed) > 100
    for command in typed:
        script = re.sub(r'^python -m (\S+).*', lambda m: m[1].replace('.', '/') + '.py', command)
        script = next(word for word in words(script) if word.endswith('.py'))
        assert (ROOT / script).exists(), command
        for word in words(command):
            assert not word.startswith('config/') or (ROOT / word).exists(), command
        flags = {word[2:].split('=')[0] for word in words(command) if word.startswith('--')}
        assert flags - {'nproc_per_node', 'help'} <= settings(script.removesuffix('.py')), command


def test_the_commands_for_your_own_text_and_settings_run_in_order(tmp_path, python_files):
    """Files and models of the run that README begins with are replaced, and flags make the runs small."""
    answer = {'role': 'assistant', 'content': 'I am a parrot.'}
    write(tmp_path / 'chats.jsonl', [{'messages': [{'role': 'user', 'content': f'Who are you, {i}?'}, answer]}
                                     for i in range(40)])
    small = {'prepare.py': ['--vocab_size=512', '--dedup=none'],
             'train.py': ['--max_steps=4', '--warmup_steps=1', '--n_layer=1', '--n_embd=32',
                          '--data_dir=data/mine', '--block_size=64', '--eval_tokens=640',
                          '--sample_tokens=4'],
             'sft.py': ['--max_steps=2', '--init_from=out/mine', '--base_dir=data/mine', '--sample_tokens=4'],
             'sample.py': ['--max_new_tokens=9'], 'eval.py': ['--loss_tokens=640']}
    instead = {'FOLDER': str(python_files), 'chats.json': 'chats.jsonl', 'out/quickstart': 'out/mine',
               'data/quickstart': 'data/mine'}
    own = [words(c) for c in commands(README) if re.search('(data|out)/(mine|chats|short)', c)]
    assert ' '.join(c[1] for c in own) == ('prepare.py train.py sample.py prepare.py sft.py sample.py '
                                           'train.py eval.py')
    for _, script, *arguments in own:
        for old, new in instead.items():
            arguments = [a.replace(old, new) for a in arguments]
        arguments = [str(ROOT / a) if a.startswith('config/') else a for a in arguments]
        ok(run(script, *arguments, *small[script], cwd=tmp_path))
    assert (tmp_path / 'out/short/eval.json').exists() and (tmp_path / 'out/chats/best.pt').exists()


def test_readme_repeats_the_numbers_of_the_full_run():
    numbers = PAGES[ROOT / 'docs/numbers.md']
    table = README.split('## Talk')[0]
    rows = re.findall(r'^\| (SFT|DPO|RL|rejection sampling)\b[^|]*\| (.*) \|$', table, re.M)
    assert len(rows) == 4
    for stage, cells in rows:
        shares = ', '.join(re.findall(r'\d+\.\d%', cells))
        assert re.search(rf'^\| {stage}\b[^|]*\| {shares} \|', numbers, re.M), (stage, shares)


def test_the_one_liners_print_what_their_comments_say(data_dir, conversations, base_run):
    page = PAGES[ROOT / 'docs/trouble.md'].split('## One-liners')[1]
    printed = []
    for line in blocks('bash', page)[0].splitlines():
        for name, folder in (('data/quickstart', data_dir), ('data/sft', conversations),
                             ('out/quickstart', base_run), ('python ', f'{sys.executable} ')):
            line = line.replace(name, str(folder))
        printed.append(subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout)
    tokens, number, size, rates = printed
    assert tokens == f"{json.loads((data_dir / 'meta.json').read_text())['tokens']}\n"
    assert int(number) == len((conversations / 'train.jsonl').read_text().splitlines())
    assert re.match(r'parameters: [\d,]+', size) and size.count('\n') == 1
    assert re.search(r'lr: 0\.\d+', rates)


USE = """
import sandbox, torch
assert tok.decode(ids) == 'def f(x):\\n    return x'
x = torch.tensor([ids])
model(x, x)[1].backward()
torch.optim.AdamW(model.parameters()).step()
assert model.generate(x, 4).shape == (1, len(ids) + 4)
model.save('model.pt', step=3)
assert GPT.load('model.pt').saved['step'] == 3
assert sandbox.run_code('def f(): return 1', 'assert f() == 1').outcome == 'passed'
assert 'extras' not in sys.modules
"""


def test_files_that_were_copied_into_an_empty_folder_work(tmp_path):
    """The Python of docs/use.md, and more. configurator.py alone: test_configurator.py."""
    for name in ('configurator', 'tokenizer', 'model', 'prepare', 'extras/sandbox', 'extras/trial',
                 'extras/crossing'):
        shutil.copy(ROOT / f'{name}.py', tmp_path)
    (tmp_path / 'corpus.txt').write_text('def f(x):\n    return x\n' * 40, encoding='utf-8')
    pages = blocks('python', PAGES[ROOT / 'docs/use.md'])
    code = next(page for page in pages if 'import Tokenizer' in page)
    code = re.sub(".*GPT.load\\('path.*", '', code)
    code = re.sub(r'^(jaccard.*\)) +# (\S+)$', r'assert \1 == \2', code, flags=re.M)
    assert code.count('assert') == 1
    command = [sys.executable, '-I', '-c', f'import sys\nsys.path.insert(0, ".")\n{code}{USE}']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
