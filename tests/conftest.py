"""What the tests share: running scripts as a user does, lifting functions out of them, small data."""
import ast
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import types

import hypothesis
import pytest

# the same examples in every run, so that a test which fails tells of the change before it; to look for new
# ones: pytest --hypothesis-profile=default
hypothesis.settings.register_profile('same', derandomize=True)
hypothesis.settings.load_profile('same')
ROOT = pathlib.Path(__file__).resolve().parent.parent
# real files that this project does not contain; tests that need one skip without it
SHARED = pathlib.Path(os.environ.get('NANOPARROT_TEST_DATA', ROOT.parent / 'shared' / 'data'))
sys.path.insert(0, str(ROOT))
os.environ.setdefault('OMP_NUM_THREADS', '1')      # models this small lose by threads, and much under load


def lift(script, *names):
    """Functions of a flat script, compiled without running it: its package imports, then those."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    own = {p.stem for p in ROOT.glob('*.py')}
    imports = [node for node in tree.body if isinstance(node, ast.Import)
               or (isinstance(node, ast.ImportFrom) and node.module not in own)]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {f.name for f in functions} == set(names), f'{script} does not define all of {names}'
    scope = {}
    exec(compile(ast.Module(imports + functions, []), script, 'exec'), scope)
    return scope[names[0]] if len(names) == 1 else [scope[name] for name in names]


SERVER = """    # starting Python with torch takes seconds: one process has done it, and forks for each run
import json, os, runpy, signal, sys, tempfile, torch, torch._dynamo
sys.path.insert(0, sys.argv[1])
import model, tokenizer

def end(code):
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)                  # taking the interpreter down takes longer than many a run

for line in sys.stdin:
    before, cwd, env, seconds, script, *arguments = json.loads(line)
    said = [tempfile.NamedTemporaryFile('w+', encoding='utf-8') for _ in 'oe']
    if not (pid := os.fork()):
        signal.alarm(seconds)
        for number, file in enumerate([open(os.devnull), *said]):
            os.dup2(file.fileno(), number)
        os.chdir(cwd)
        os.environ.update(env)
        sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(script)
        try:
            exec(before)
            runpy.run_path(script, run_name='__main__')
        except BaseException:
            try:
                kind, error, where = sys.exc_info()
                if kind is SystemExit and isinstance(error.code, str):
                    print(error.code, file=sys.stderr)
                    end(1)
                end(error.code or 0 if kind is SystemExit else sys.excepthook(kind, error, where) or 1)
            except SystemExit as e:
                end(e.code)
        end(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([code, *(open(f.name, encoding='utf-8').read() for f in said)]), flush=True)
"""
server = functools.cache(lambda: subprocess.Popen(      # it ends with its stdin, that is with us
    [sys.executable, '-c', SERVER, ROOT], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))


def run(script, *arguments, cwd=None, processes=1, env=None, timeout=300, before='', fresh=False):
    """A script of this checkout, as its user runs it; paths in arguments are relative to cwd. `before` is
    executed in its process first. fresh: a new interpreter, as several processes get in any case."""
    arguments = [str(ROOT / script), *map(str, arguments)]
    if processes == 1 and not fresh and hasattr(os, 'fork'):
        job = [before, str(cwd or os.getcwd()), env or {}, timeout, *arguments]
        print(json.dumps(job), file=server().stdin, flush=True)
        return subprocess.CompletedProcess(arguments, *json.loads(server().stdout.readline()))
    launcher = [sys.executable]
    if processes > 1:
        launcher += ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        if before:
            start = f'import os, runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n{before}\n' \
                    'sys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name="__main__")'
            launcher += ['--no-python', sys.executable, '-c', start]
    return subprocess.run([*launcher, *arguments], cwd=cwd, text=True, capture_output=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def accident(kind, *calls):
    """For run(before=): what happens to train.py in its n-th updates, counted from 0: nan or spike of the
    gradient, kill of the process, or badbatch, a batch of noise."""
    return f'''
import os, signal
from parts.train import optim, token_bins
clip, take, n = optim.unscale_and_clip, token_bins.Blocks.take, []
def spoiled_clip(optimizers, scaler, net, grad_clip):
    n.append(1)
    if len(n) - 1 in {calls}:
        if {kind!r} == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        gradient = [p.grad for name, p in net.named_parameters() if name.endswith('norm.weight')][-1]
        gradient.mul_(dict(nan=float('nan'), spike=1e4).get({kind!r}, 1))
    return clip(optimizers, scaler, net, grad_clip)
def spoiled_take(self, step, rows):
    x, y = take(self, step, rows)
    if {kind!r} == 'badbatch' and step in {calls}:
        x, y = (token_bins.mix(t.astype('uint64')).astype('int64') % 256 for t in (x, y))
    return x, y
optim.unscale_and_clip, token_bins.Blocks.take = spoiled_clip, spoiled_take
'''


def ok(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def mistake(result, *words):
    """The script ended as it must at a user's mistake: exit code 2, one line with the words, no traceback."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert 'Traceback' not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


# a minute each: python -m pytest --slow runs them, too
SLOW = {'test_eval_code', 'test_other_programs', 'test_problem_mutants', 'test_serve_browser'}


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='also the tests that take longest')


def pytest_collection_modifyitems(config, items):
    for item in items if not config.getoption('--slow') else ():
        if item.module.__name__ in SLOW:
            item.add_marker(pytest.mark.skip(reason='slow; run it with --slow'))


TIMES = ('dt', 'tok_s', 'tok_s_device', 'data_s', 'memory_mb', 'eval_share', 'save_s', 'mfu', 'uptime_s',
         'comm_share', 'restarts', 'sample_s', 'score_s', 'train_s')


def metrics(out_dir):
    """metrics.jsonl without the figures that no two runs share."""
    with open(pathlib.Path(out_dir) / 'metrics.jsonl', encoding='utf-8') as f:
        return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in f]


@pytest.fixture(autouse=True)
def nothing_was_freed():
    """Some tests let a program kill its judge; parts/eval/sandbox.py remembers that for the whole process."""
    sys.modules.get('parts.eval.sandbox', types.SimpleNamespace(FREED=[])).FREED.clear()


@pytest.fixture(scope='session')
def python_files(tmp_path_factory):
    """A folder with some real Python: three packages of the standard library, about 1 MB."""
    folder = tmp_path_factory.mktemp('python')
    for package in ('asyncio', 'email', 'json', 'http', 'logging', 'importlib'):
        shutil.copytree(pathlib.Path(sysconfig.get_paths()['stdlib']) / package, folder / package,
                        ignore=shutil.ignore_patterns('__pycache__'))
    return folder


@pytest.fixture(scope='session')
def data_dir(python_files, tmp_path_factory):
    """That folder, prepared: a vocabulary of 512."""
    out = tmp_path_factory.mktemp('data')
    ok(run('prepare.py', f'--source={python_files}', f'--out_dir={out}', '--vocab_size=512'))
    return out


# a training run of seconds; tests add what they are about
TINY = ['--n_layer=2', '--n_head=2', '--n_embd=32', '--block_size=32', '--batch_size=8', '--max_steps=12',
        '--warmup_steps=4', '--eval_interval=4', '--save_interval=4', '--log_interval=1',
        '--eval_tokens=2048', '--sample_tokens=8', '--device=cpu']
