"""What README says is so: its table of files, its commands, its Python."""
import re
import shlex

import pytest
from conftest import ROOT, ok, run

README = (ROOT / 'README.md').read_text(encoding='utf-8')


def blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', README, re.S)


def commands():
    """Every `python X.py ...` of the shell blocks, without its comment."""
    lines = [line.split(' #')[0].strip() for block in blocks('bash') for line in block.splitlines()]
    return [line for line in lines if re.match(r'(python|torchrun --nproc_per_node=8) [\w/]+\.py', line)]


def words(command):
    """As bash splits it, $'...' included."""
    ansi = re.sub(r"\$'([^']*)'", lambda m: shlex.quote(m[1].encode().decode('unicode_escape')), command)
    return shlex.split(ansi)


def test_the_table_of_files_is_complete_and_its_line_counts_hold():
    rows = re.findall(r'^\| \[([\w/]+\.py)\]\(\1\) \| (\d+) \|', README, re.M)
    table = {name: int(lines) for name, lines in rows}
    assert table.keys() == {p.name for p in ROOT.glob('*.py')} | {f'parts/{p.name}' for p in (ROOT / 'parts').glob('[a-z]*.py')}
    for name, lines in table.items():
        found = len((ROOT / name).read_text(encoding='utf-8').splitlines())
        assert abs(found - lines) <= max(5, found // 20), (name, found, lines)


def test_every_config_is_named_in_its_own_commands():
    for path in (ROOT / 'config').glob('*.py'):
        assert f'config/{path.name}' in path.read_text(encoding='utf-8'), path


@pytest.mark.parametrize('command', commands())
def test_every_command_uses_settings_and_configs_that_exist(command):
    script = next(word for word in words(command) if word.endswith('.py'))
    for word in words(command):
        if word.startswith('config/'):
            assert (ROOT / word).exists()
    if script in ('tokenizer.py', 'model.py', 'parts/problems.py'):
        return
    block = (ROOT / script).read_text(encoding='utf-8').split('configure(globals())')[0]
    settings = set(re.findall(r'^(\w+)(?:: [^=]+)? = ', block, re.M))
    flags = {word[2:].split('=')[0] for word in words(command) if word.startswith('--')}
    assert flags - {'nproc_per_node'} <= settings


def test_the_laptops_commands_run_in_order(tmp_path, python_files):
    """The five of `On a laptop`, with flags added that make them small."""
    small = {'prepare.py': [f'--source={python_files}', '--vocab_size=512'],
             'train.py': ['--max_steps=4', '--warmup_steps=1', '--n_layer=1', '--n_embd=32',
                          '--block_size=32', '--eval_tokens=640', '--sample_tokens=4'],
             'sample.py': ['--max_new_tokens=9']}
    ran = [words(c) for c in commands() if re.search('out/short|prepare.py --out_dir=data/quickstart', c)]
    assert [c[1] for c in ran] == ['prepare.py', 'train.py', 'train.py', 'eval.py', 'sample.py']
    for _, script, *arguments in ran:
        arguments = [str(ROOT / a) if a.startswith('config/') else a for a in arguments]
        ok(run(script, *arguments, *small.get(script, []), cwd=tmp_path))
    assert (tmp_path / 'out/short/eval.json').exists()


def test_the_python_of_as_parts_runs(tmp_path, monkeypatch):
    (tmp_path / 'corpus.txt').write_text('def f(x):\n    return x\n' * 40, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    code = next(block for block in blocks('python') if 'import Tokenizer' in block)
    scope = {}
    exec('\n'.join(line for line in code.splitlines() if 'from_hf' not in line), scope)
    assert scope['tok'].decode(scope['ids']) == 'def f(x):\n    return x'
    assert scope['model'].config.vocab_size == scope['tok'].vocab_size
