"""README and docs/ are true: their links, pictures, table of files, commands and Python."""
import ast
import json
import re
import shlex
import subprocess
import sys

from conftest import ROOT, ok, run, write
from test_house import settings

sys.path.append(str(ROOT / 'bench'))
import pictures     # noqa: E402

README = (ROOT / 'README.md').read_text(encoding='utf-8')
MAP = (ROOT / 'parts/__init__.py').read_text(encoding='utf-8')
PAGES = {path: path.read_text(encoding='utf-8')
         for path in [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md'))]}


def blocks(language, text):
    return re.findall(rf'```{language}\n(.*?)```', text, re.S)


def commands(text):
    """Every `python X.py ...` of the shell blocks and between single backticks, without its comment."""
    lines = [line.split(' #')[0].strip() for block in blocks('bash', text) for line in block.splitlines()]
    lines += re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.S))
    lines += [line.split(' #')[0].strip(' #') for line in text.splitlines()      # of a docstring or a comment
              if re.match(r'(#? {4}|# )(python|torchrun) \S', line)]
    return [line for line in lines if re.match(r'(python|torchrun --nproc_per_node=8) [\w/]+\.py', line)]


def words(command):
    """As bash splits it, $'...' included."""
    ansi = re.sub(r"\$'([^']*)'", lambda m: shlex.quote(m[1].encode().decode('unicode_escape')), command)
    return shlex.split(ansi)


def test_the_table_of_files_is_complete():
    rows = re.findall(r'^(?:\| )?\[(\w+\.py)\]\(\1\)', README, re.M)
    assert sorted(rows) == sorted(path.name for path in ROOT.glob('*.py'))


def test_the_readme_names_the_stack_of_decisions_and_each_stage_its_own():
    assert 'stack of decisions: the corpus, the tokenizer, the objective, the infrastructure' in README
    assert '](docs/decide.md' in README
    for stage in 'prepare tokenizer model train sft dpo rl eval'.split():
        docstring = ast.get_docstring(ast.parse((ROOT / f'{stage}.py').read_text(encoding='utf-8')))
        assert re.search(r'[Tt]he\sdecision made here is the \w+', docstring), stage


def test_the_map_of_parts_has_one_line_for_each_file():
    text = ast.get_docstring(ast.parse(MAP))
    rooms = re.split(r'^(\w+)/.*\n', text, flags=re.M)[1:]         # room, its lines, room, ...
    lines = {room: re.findall(r'^    (\w+) +\w', its, re.M) for room, its in zip(rooms[::2], rooms[1::2])}
    assert list(lines) == ['tokenizer', 'prepare', 'train', 'eval', 'sample']
    for room, names in lines.items():
        assert sorted(names) == sorted(path.stem for path in (ROOT / 'parts' / room).glob('*.py')), room


def test_every_link_resolves_and_every_page_is_linked():
    linked = set()
    for path, text in PAGES.items():
        prose = re.sub(r'```.*?```', '', text, flags=re.S)
        for target in re.findall(r'\]\(([^)\s]+)\)', prose):
            if not target.startswith(('http://', 'https://')):
                page = (path.parent / target.split('#')[0]).resolve()
                assert page.exists(), (path.name, target)
                linked.add(page)
    assert {path for path in PAGES if path.parent.name == 'docs'} <= linked


def test_each_picture_stands_on_a_page_is_below_40_kb_and_shows_today_s_figures():
    shown = {}
    for page, text in PAGES.items():
        for words, path in re.findall(r'!\[([^]]*)\]\(([^)\s]+)\)', text):
            shown[(page.parent / path).resolve()] = words
    for path, words in shown.items():
        assert words and path.stat().st_size < 40_000, path
    assert {path.name for path in shown} == {path.name for path in ROOT.glob('docs/img/*g')}
    for name in ('rl', 'depth', 'memory'):                   # those that need no run
        assert pictures.CARDS[name]() == (ROOT / f'docs/img/{name}.svg').read_text(encoding='utf-8'), name


def test_every_file_and_section_of_the_log_that_is_named_exists():
    for path, text in PAGES.items():
        for name in re.findall(r'(?<![\w./:])((?:tests|bench|parts|config|docs)/[\w/]+\.\w+)', text):
            assert (ROOT / name).exists(), (path.name, name)

    log = (ROOT / 'LOG.md').read_text(encoding='utf-8')
    for path, text in PAGES.items():
        for title in re.findall(r'LOG\.md, "([^"]+)"', text):
            assert title in log, (path.name, title)

    for path in (ROOT / 'config').glob('*.py'):
        assert f'config/{path.name}' in path.read_text(encoding='utf-8'), path


def test_every_command_uses_settings_and_configs_that_exist():
    scripts = [*ROOT.glob('*.py'), *ROOT.glob('parts/*/*.py'), *ROOT.glob('config/*.py')]
    texts = [*PAGES.values(), *(path.read_text(encoding='utf-8') for path in scripts)]
    typed = sorted({command for text in texts for command in commands(text.replace('\\\n', ' '))})
    assert len(typed) > 100
    for command in typed:
        script = next(word for word in words(command) if word.endswith('.py'))
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


def test_the_one_liners_print_what_their_comments_say(data_dir, conversations, base_run):
    page = PAGES[ROOT / 'docs/trouble.md'].split('## One-liners')[1]
    printed = []
    for line in blocks('bash', page)[0].splitlines():
        for name, folder in (('data/quickstart', data_dir), ('data/problems', conversations),
                             ('out/quickstart', base_run), ('python ', f'{sys.executable} ')):
            line = line.replace(name, str(folder))
        printed.append(subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout)
    tokens, number, size, rates = printed
    assert tokens == f"{json.loads((data_dir / 'meta.json').read_text())['tokens']}\n"
    assert int(number) == len((conversations / 'train.jsonl').read_text().splitlines())
    assert re.search(r' [\d,]+ parameters', size) and size.count('\n') == 1
    assert re.search(r'lr: \d\.\d\de-\d\d', rates)


def test_the_python_of_copying_a_file_runs_and_gives_what_it_says(tmp_path, monkeypatch):
    (tmp_path / 'corpus.txt').write_text('def f(x):\n    return x\n' * 40, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    page = PAGES[ROOT / 'docs/use.md']
    code = next(block for block in blocks('python', page) if 'import Tokenizer' in block)
    scope = {}
    exec('\n'.join(line for line in code.splitlines() if 'from_hf' not in line), scope)
    assert scope['tok'].decode(scope['ids']) == 'def f(x):\n    return x'
    assert scope['model'].config.vocab_size == scope['tok'].vocab_size
    call, value = re.search(r'^(jaccard\(.*\)) +# (\S+)$', code, re.M).groups()
    assert eval(call, scope) == float(value)


def test_the_map_of_the_tests_names_each_file_and_no_other():
    text = (ROOT / 'tests/README.md').read_text(encoding='utf-8')
    rows = text.split('## Which file tests what')[1].splitlines()[4:]
    names = sorted(name for row in rows for name in row.split('|')[2].split())
    assert names == sorted(path.stem.removeprefix('test_') for path in ROOT.glob('tests/test_*.py'))
    for file, name in re.findall(r'`(test_\w+\.py)::(\w+)`', text):
        assert f'def {name}(' in (ROOT / 'tests' / file).read_text(encoding='utf-8'), name
