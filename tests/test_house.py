"""The rules of the house, held by parsing: who imports whom, what is repeated, what is promised."""
import ast
import graphlib
import re
import sys

from conftest import ROOT

FILES = [path for folder in ('*.py', 'extras/*.py') for path in sorted(ROOT.glob(folder))]
TREES = {p.relative_to(ROOT).as_posix()[:-3]: ast.parse(p.read_text(encoding='utf-8')) for p in FILES}
EXTRAS = [name for name in TREES if name.startswith('extras/')]
SCRIPTS = TREES.keys() - {*EXTRAS}
OWN = SCRIPTS | {'extras'}


# --- who imports whom ---------------------------------------------------------------------------------------
LEAVES = {'configurator', 'model', 'tokenizer'}
ARROWS = {'configurator': set(), 'model': {'extras'}, 'tokenizer': {'configurator', 'extras'},
          'plot': {'configurator'}, 'prepare': {'configurator', 'tokenizer', 'extras'},
          **dict.fromkeys([*SCRIPTS - LEAVES - {'plot', 'prepare'}, *EXTRAS], LEAVES | {'extras'})}
# People take these away, so they import nothing of ours.
COPIED = {'extras/sandbox', 'extras/trial', 'extras/crossing', 'extras/muon'}
ARROWS |= dict.fromkeys(COPIED, set())


def imports_of(tree, *, top=False):
    """{'os.path', 'extras/trial', ...}: the modules that a file imports, anywhere or only at its top."""
    modules = set()
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            inner = {f'{node.module}.{alias.name}' for alias in node.names}
            modules |= {name if name.replace('.', '/') in TREES else node.module for name in inner}
    return {name.replace('.', '/') if name.split('.')[0] in OWN else name for name in modules}


def test_every_file_imports_only_what_the_arrows_allow():
    for name, tree in TREES.items():
        modules = {module.split('/')[0].split('.')[0] for module in imports_of(tree)}
        assert modules & OWN <= ARROWS[name], name
        says = 'copy this file' in ' '.join(ast.get_docstring(tree).lower().split())
        assert not says or name in COPIED or '/' not in name, name
        top = {module.split('/')[0] for module in imports_of(tree, top=True)}
        assert name in EXTRAS or 'extras' not in top, f'{name} would not work without extras'
        assert not modules & {'pickle', 'dill', 'marshal', 'shelve', 'joblib'}, name


def test_no_imports_go_in_a_circle():
    """model and tokenizer import others only inside the functions that need them. These are not counted."""
    graph = {name: imports_of(tree, top=name in ('model', 'tokenizer')) & TREES.keys()
             for name, tree in TREES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())      # or CycleError


def packages(*files):
    """Names of the packages in requirements files, as one imports them."""
    lines = [line for file in files for line in (ROOT / file).read_text(encoding='utf-8').splitlines()]
    names = re.findall(r'^[\w-]+', '\n'.join(lines), re.M)
    return {{'pillow': 'PIL'}.get(name, name) for name in names}


def test_what_a_file_imports_is_in_its_requirements():
    """Inside a function, a file may import what comes with the tests: it says if that is missing."""
    base, tests = packages('requirements.txt'), packages('requirements.txt', 'tests/requirements.txt')
    theirs = {'bench': packages('requirements.txt', 'bench/requirements.txt'), 'learn': base, 'tests': tests}
    others = [path for folder in theirs for path in sorted((ROOT / folder).glob('*.py'))]
    ours = OWN | theirs.keys() | {path.stem for path in others} | {name.split('/')[-1] for name in COPIED}
    found = set()
    for path in FILES + others:
        for top in True, False:
            modules = imports_of(ast.parse(path.read_text(encoding='utf-8')), top=top)
            foreign = {re.match(r'\w+', module)[0] for module in modules} - ours - sys.stdlib_module_names
            allowed = theirs.get(path.relative_to(ROOT).parts[0], base if top else tests)
            assert foreign <= allowed, f'{path.name} imports {foreign - allowed}, which no requirement brings'
            found |= foreign
    assert {'torch', 'regex', 'safetensors', 'pytest'} <= found


# --- texts --------------------------------------------------------------------------------------------------
def test_checkpoints_are_loaded_as_data_never_as_code():
    loads = [(name, node) for name, tree in TREES.items() for node in ast.walk(tree)
             if isinstance(node, ast.Call) and ast.unparse(node.func) == 'torch.load']
    assert loads
    for name, node in loads:
        assert 'weights_only=True' in [ast.unparse(keyword) for keyword in node.keywords], name


def settings(script):
    """What may follow `--`: a script's assignments above configure(), or its argparse options."""
    text = (ROOT / f'{script}.py').read_text(encoding='utf-8')
    above, *below = re.split(r'^ *(?:config = )?configure\(globals\(\)', text, flags=re.M)
    if below:
        return set(re.findall(r'^([a-z]\w*)(?:: [^=\n]+)? = ', above, re.M))
    return set(re.findall(r"add_argument\('--(\w+)", text))


def test_configs_assign_only_settings_of_the_script_they_are_for():
    for path in ROOT.glob('config/*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        names = {ast.unparse(t) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}
        names = {name for name in names if not name.startswith('_')}        # notes, no settings
        scripts = 'train', 'sft', 'dpo', 'rl', 'prepare'
        assert any(names <= settings(s) for s in scripts if s in OWN), path.name
