"""
What the tests share: running scripts as a user does, lifting functions out of them, small data.

run() is the machinery. A script runs in a fork of a process that has imported torch (its file,
fork_server.py, explains how), so a run costs tenths of a second instead of seconds. Each test
begins in an empty folder of its own, tmp_path, so relative paths are paths in there. made_once()
makes a folder that several test files read, such as data or a trained model, only once, whatever the
number of pytest's workers; the fixtures at the end of this file are such folders, and no test may
change one. All else is plain helpers: ok() and mistake() judge how a run ended; metrics(),
state(), contents() and same() compare two runs; make_...() write small models and data.
"""
import fcntl
import functools
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig

import hypothesis
import numpy as np
import pytest
from accidents import SHORT_SAMPLES

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'learn')]
from tour import lift     # noqa: E402, F401

os.environ.setdefault('OMP_NUM_THREADS', '1')      # models this small lose by threads
# Tests in the background of a shell (bash run.sh test &) inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import torch    # noqa: E402

from common import load_model        # noqa: E402
from model import GPT, GPTConfig     # noqa: E402
from tokenizer import SPECIAL_TOKENS, Tokenizer       # noqa: E402

# real files that this project does not contain
SHARED = pathlib.Path(os.environ.get('NANOPARROT_TEST_DATA', ROOT.parent / 'shared' / 'data'))
# the same examples in every run, so that a test which fails tells of the change before it; to look
# for new ones: pytest --hypothesis-profile=new. No example has a deadline: the machine may be busy
patient = hypothesis.settings(deadline=None, suppress_health_check=[*hypothesis.HealthCheck])
hypothesis.settings.register_profile('new', patient)
hypothesis.settings.register_profile('same', patient, derandomize=True)
hypothesis.settings.load_profile('same')


def shared(name):
    """The path of one of those files. A test that needs it skips where it is not."""
    if not (SHARED / name).exists():
        pytest.skip(f'{SHARED} has no {name}')
    return SHARED / name


@functools.cache
def server():
    """The process that forks for each run. It ends with its stdin, that is with us."""
    return subprocess.Popen([sys.executable, ROOT / 'tests' / 'fork_server.py'], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run(*command, cwd=None, processes=1, env=None, timeout=300, before='', grace=2):
    """A script of this checkout, or with python -m a module, as its user runs it. Each part of the
    command may have several flags, 'train.py --n=2 --name=a b'. Paths in them are relative to cwd,
    which is the test's own folder. `before` is executed in each process first. grace: seconds that
    the other processes have when one has failed."""
    script, *arguments = [part for parts in command for part in re.split(' (?=--)', str(parts)) if part]
    job = {'script': str(ROOT / script) if str(script).endswith('.py') else script,
           'arguments': arguments, 'before': before, 'env': env or {},
           'cwd': str(cwd or os.getcwd()), 'processes': processes, 'timeout': timeout,
           'grace': grace}
    print(json.dumps(job), file=server().stdin, flush=True)
    return subprocess.CompletedProcess(script, *json.loads(server().stdout.readline()))


def python(*arguments, **how):
    """The same for a Python that is no fork: as another program starts it."""
    return subprocess.run([sys.executable, *arguments], text=True, capture_output=True, **how)


# before=FORGET: the process has imported the modules of this checkout, and forgets them first, so
# that a script which was copied alone imports what is beside it.
FORGET = '''
import sys
for name in 'model', 'tokenizer', 'configurator', 'common', 'files', 'dedup', 'clean', 'extras':
    sys.modules.pop(name, None)
'''


def ok(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def mistake(result, *words):
    """The script ended as it must at a user's mistake: exit code 2, no traceback, and one line that
    begins with `error: ` and has the words, which ` & ` separates, too."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert 'Traceback' not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, result.stderr
    for word in ' & '.join(words).split(' & '):
        assert word in lines[0], (word, lines[0])


def table(text, between=' => '):
    """The rows of a table, each a list of its cells; None: between them is white space."""
    return [line.split(between) for line in text.strip().splitlines()]


def json_rows(text):
    """The rows of a table whose lines are JSON."""
    return map(json.loads, text.strip().splitlines())


# a fixture that the tests of a file share
shared_fixture = pytest.fixture(scope='module')
with_each = pytest.mark.parametrize


def each_line(text, **how):
    """The test runs with each line of this text."""
    return with_each('line', text.strip().split('\n'), **how)


def each_is_a_mistake(text, command, *more, **how):
    """In each line of this table, `flags => words`, a command with the flags ends as a mistake with
    the words, which ` & ` separates. A command may be a function, too, such as a fixture."""
    command = command if callable(command) else functools.partial(run, command)
    for flags, words in table(text, '=> '):
        mistake(command(*more, *shlex.split(flags), **how), words)


def refused(words, function, *arguments, **more):
    """It raises one sentence, which matches words, a regular expression."""
    with pytest.raises((ValueError, OSError), match=words) as error:
        function(*arguments, **more)
    assert '\n' not in str(error.value)


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='also the tests that take minutes')


slow = pytest.mark.skipif('not config.getoption("--slow")', reason='it takes minutes: --slow')


# figures that no two runs share
TIMES = 'dt tok_s data_s memory_mb mfu sample_s score_s train_s minutes_left'.split()
RUN_FILES = {*('best.pt last.pt last-1.pt config.json data.json metrics.jsonl samples.txt '
               'tokenizer.json train.log').split()}


def metrics(out_dir):
    """metrics.jsonl without those figures and without the notes of resuming. A resumed run repeats
    steps, so of two rows of the same kind and step the last one counts."""
    rows = {}
    for row in read_rows(pathlib.Path(out_dir) / 'metrics.jsonl'):
        if row.get('event') != 'resumed':
            rows[(row['step'], *row)] = {k: v for k, v in row.items() if k not in TIMES}
    return [*rows.values()]


def series(out_dir, key):
    return [row[key] for row in metrics(out_dir) if key in row]


def state(out_dir, file='last.pt'):
    """All of a checkpoint but where it lies."""
    state = torch.load(pathlib.Path(out_dir) / file, weights_only=True)
    return {**state, 'config': {**state['config'], 'out_dir': ''}}


def same(a, b):
    """Are these trees of tensors, dicts, lists and numbers equal, bit for bit?"""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def expect_same_run(out, straight):
    """Nothing tells the two runs apart."""
    assert metrics(out) == metrics(straight)
    for file in 'last.pt', 'best.pt':
        a, b = state(out, file), state(straight, file)
        assert not [k for k in a | b if not same(a.get(k), b.get(k))], file
    assert contents(out).keys() == contents(straight).keys()                        # no leftovers
    config = {**read_json(straight / 'config.json'), 'out_dir': str(out)}   # also where it began
    assert read_json(out / 'config.json') == config


def assert_same_sums(a, b, bound=1e-6):
    """The two runs added the same numbers in another order. Around a loss of 5, float32 has a
    number each 5e-7, and two orders differ by one of these or by none; bound is two."""
    for key in ('step', 'tokens', 'loss', 'val_loss', 'val_bpb', 'grad_norm'):
        assert series(a, key) == pytest.approx(series(b, key), abs=bound), key
    one, two = state(a)['model'], state(b)['model']
    torch.testing.assert_close(one, two, atol=bound, rtol=0)        # no name has DDP's prefix
    assert contents(a).keys() == contents(b).keys()


def contents(folder):
    """{name: bytes} of its files."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def read_json(path):
    return json.loads(pathlib.Path(path).read_text())


def read_rows(path):
    """The lines of a file of JSON lines."""
    with open(path) as f:
        return [json.loads(line) for line in f]


def numbered(text, n):
    """So many records. The text of one is given, and N in it is its number."""
    return [json.loads(text.replace('N', str(i))) for i in range(n)]


def write(path, rows):
    """A file of JSON lines."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def fill(files, folder=''):
    """A folder with these files: {name: text or bytes}."""
    folder = pathlib.Path(folder)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def save_run(folder, model, tokenizer, **more):
    """As a trainer leaves them: best.pt and tokenizer.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / 'tokenizer.json')
    model.save(folder / 'best.pt', **{'tokenizer_hash': tokenizer.hash, **more})


def make_sft(folder, **more):
    """An untrained model of bytes, as sft.py leaves one. more: of GPTConfig."""
    folder = pathlib.Path(folder)
    torch.manual_seed(0)
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS[:4])
    model = GPT(GPTConfig(tokenizer.vocab_size, 96, 2, 2, 0, 32, **more))
    save_run(folder, model, tokenizer, config={'stage': 'sft'})
    (folder / 'data.json').write_text('{}')
    return folder


def write_bins(folder, ids, tokenizer, **more):
    """A folder of token bins as prepare.py leaves one; train.bin is val.bin. more: of meta.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    tokenizer.save(folder / 'tokenizer.json')
    meta = {'dtype': str(ids.dtype), 'tokens': dict.fromkeys(['train', 'val'], len(ids)), 'sources': {},
            'tokenizer_hash': tokenizer.hash, **more}
    return fill({'train.bin': ids.tobytes(), 'val.bin': ids.tobytes(), 'meta.json': json.dumps(meta)}, folder)


def base_text(folder, sentences):
    """Text of the base of that model, as bins of sequences."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS[:4])
    ids = np.array(tokenizer.encode('Is it so? yo.\n' * sentences), dtype=np.uint16)
    write_bins(folder, ids, tokenizer)


def make_pairs(folder):
    """Of unequal lengths; whether an answer holds sun or fog makes it better or worse."""
    dice = random.Random(0)
    some = lambda word='': ''.join(dice.choices('abcdefgh', k=dice.randint(1, 5))) + word
    for side, k in (('train', 64), ('val', 32)):
        write(f'{folder}/{side}.jsonl', [
            {'prompt': some(), 'chosen': some(' sun ') + some(), 'rejected': some(' fog ') + some()}
            for _ in range(k)])
    return pathlib.Path(folder)


# a file for rl.py --reward: more is paid for signs of the lower half of ASCII; an untrained byte
# model writes them a quarter of the time
PAID = """
def prompts():
    return [f'{i} and {"x" * (i % 7)}' for i in range(40)]

def reward(prompt, completion):
    return sum(c < '@' for c in completion) / 8
"""


def make_conversations(folder):
    """Of one to three sums each, some behind a message of a system or a tool."""
    dice = random.Random(1)
    for side, k in ('train', 60), ('val', 20):
        rows = []
        for _ in range(k):
            said = [(dice.choice(['system', 'tool']), 'é so')] * dice.randint(0, 1)
            for a in dice.sample(range(999), dice.randint(1, 3)):
                said += [('user', f'{a} + 7?'), ('assistant', f'{a + 7}')]
            rows.append({'messages': [{'role': role, 'content': text} for role, text in said]})
        write(f'{folder}/{side}.jsonl', rows)
    return pathlib.Path(folder)


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path):
    os.chdir(tmp_path)
    yield
    os.chdir(ROOT)


@pytest.fixture
def out(tmp_path):
    """A folder for results, which is not there yet."""
    return tmp_path / 'out'


# --- folders that several test files read, and none may change ------------------------------------
def made_once(name, make, needs=''):
    """A fixture: the folder that make(folder) fills, or make(folder, the one that it needs). Of the
    processes of pytest-xdist, one makes it."""
    @pytest.fixture(scope='session', name=name)
    def fixture(tmp_path_factory, request):
        needed = [request.getfixturevalue(needs)] if needs else []
        base = tmp_path_factory.getbasetemp()
        folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / name
        with open(f'{folder}.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                try:
                    folder.mkdir()
                    make(folder, *needed)
                except BaseException:
                    shutil.rmtree(folder)
                    raise
        return folder
    return fixture


def copy_python(folder):
    """Some real Python: three packages of the standard library, about 0.6 MB."""
    for package in 'asyncio', 'json', 'logging':
        source = pathlib.Path(sysconfig.get_paths()['stdlib']) / package
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns('__pycache__'))


def prepare_python(out, python_files):
    """Bins of it: a vocabulary of 512."""
    text = out.with_name('data_text')
    ok(run('clean.py', f'--source={python_files} --out_dir={text}'))
    ok(run('prepare.py', f'--source={text} --out_dir={out} --vocab_size=512'))


# a training run of seconds; tests add what they are about
TINY = ('--n_layer=2 --n_head=2 --n_embd=32 --block_size=32 --batch_size=8 --max_steps=12 '
        '--warmup_steps=4 --eval_interval=4 --save_interval=4 --log_interval=1 --eval_tokens=2048 '
        '--device=cpu')


def train(data_dir, out, *flags, before='', **how):
    return run('train.py', f'--data_dir={data_dir} --out_dir={out}', TINY, *flags,
               before=SHORT_SAMPLES + before, **how)


def square_numbers(folder):
    """Token bins that are the same on every machine: 300 documents of bytes."""
    tok, ids = Tokenizer.byte(SPECIAL_TOKENS), []
    for n in range(300):
        ids += [*tok.encode(f'{n} times {n} is {n * n}.\n'), tok.special['<|endoftext|>']]
    write_bins(folder, np.array(ids, np.uint16), tok)


def make_babbler(folder, base_run):
    """A model of the shape of that run, whose large random weights do not repeat its last token."""
    model, tokenizer = load_model(base_run)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    save_run(folder, model, tokenizer)


python_files = made_once('python_files', copy_python)
data_dir = made_once('data_dir', prepare_python, 'python_files')
# of 12 steps
base_run = made_once('base_run', lambda out, data: ok(train(data, out, '--dtype=float32')), 'data_dir')
babbler = made_once('babbler', make_babbler, 'base_run')
numbers = made_once('numbers', square_numbers)
sft_model = made_once('sft_model', make_sft)        # for sft.py, dpo.py and rl.py to begin from
pairs = made_once('pairs', make_pairs)
conversations = made_once('conversations', make_conversations)
