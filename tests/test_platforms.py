"""Other systems and Pythons, as far as this one can tell: scripts do their work there, or say why not."""
import ast
import functools
import re
import shutil
import subprocess

from conftest import ROOT, TINY, metrics, mistake, ok, run, write


# A Windows, as a script sees it, before its first line. torch and the interpreter stay those of this system.
WINDOWS = """import multiprocessing
multiprocessing.get_all_start_methods = lambda: ['spawn']
sys.modules.update(fcntl=None, resource=None)
for name in 'SIGUSR1', 'SIGKILL':
    delattr(signal, name)
for name in 'fork', 'sysconf', 'sched_getaffinity', 'pread', 'getuid', 'geteuid', 'killpg', 'setsid':
    delattr(os, name)
import extras.sandbox, types
extras.sandbox.sys = types.SimpleNamespace(platform='win32', executable=sys.executable)
"""
windows = functools.partial(run, before=WINDOWS)
# names that came after 3.10
NEWER = re.compile(r'hashlib\.file_digest|tomllib|itertools\.batched|TaskGroup|datetime\.UTC|StrEnum|'
                   r'catch_warnings\(action|typing\.Self|add_note|sqlite3\.autocommit')
FOLDERS = '*.py', 'extras/*.py', 'config/*.py'
FILES = [path for folder in FOLDERS for path in ROOT.glob(folder)]


def test_prepare_train_and_resume_need_nothing_that_windows_lacks(python_files, tmp_path):
    flags = [f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run', *TINY, '--dtype=float32']
    text = (ROOT / 'prepare.py').read_text(encoding='utf-8')
    assert "os.name == 'posix'" in text         # where pathlib finds it, too, so it can't be another here
    (tmp_path / 'prepare.py').write_text(text.replace("os.name == 'posix'", 'False'), encoding='utf-8')
    for name in 'configurator.py', 'tokenizer.py':
        shutil.copy(ROOT / name, tmp_path)
    ok(windows(tmp_path / 'prepare.py', f'--source={python_files}/asyncio', f'--out_dir={tmp_path}/data',
               '--vocab_size=400', '--num_workers=4'))
    ok(windows('train.py', *flags))
    ok(run('train.py', *[f.replace('/run', '/here') for f in flags]))
    mine, theirs = (metrics(tmp_path / name) for name in ('here', 'run'))
    assert [m['loss'] for m in mine if 'loss' in m] == [m['loss'] for m in theirs if 'loss' in m]
    ok(windows('train.py', *flags, '--init_from=resume', '--max_steps=13'))     # rotates without links
    assert (tmp_path / 'run/last-1.pt').exists()


def test_lora_runs_there_and_programs_do_not(conversations, sft_model, tmp_path):
    base = f'--init_from={sft_model}'
    tests = write(tmp_path / 'tests.jsonl', [{'prompt': f'{i}', 'tests': 'assert 1'} for i in range(20)])
    ok(windows('sft.py', base, f'--data_dir={conversations}', '--lora=2', '--max_steps=2', '--batch_size=4',
               f'--out_dir={tmp_path}/run', '--device=cpu'))
    ok(windows('sample.py', f'--ckpt={tmp_path}/run', '--prompt=1', '--max_new_tokens=2'))
    mistake(windows('rl.py', base, f'--reward={tests}', f'--out_dir={tmp_path}/rl', '--max_new_tokens=2',
                    '--eval_prompts=2', '--allow_code_execution=True'), 'needs Linux or macOS', 'WSL')


def test_every_file_is_python_3_10():
    """Its grammar, and none of the names that came later."""
    assert len(FILES) > 50
    for path in FILES:
        text = path.read_text(encoding='utf-8')
        assert ast.parse(text, feature_version=(3, 10)) and not NEWER.search(re.sub(r'#.*', '', text)), path


def test_ci_does_what_a_newcomer_types_and_then_the_lint(tmp_path):
    """With programs in the places of the real ones that only say how they were called."""
    shutil.copytree(ROOT / '.ci', tmp_path / '.ci')
    for name, ends in (('run.sh', 0), ('.venv/bin/python', 0), ('.venv/bin/ruff', 3)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{tmp_path}/calls"\nexit {ends}\n')
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([tmp_path / '.ci/run'], cwd='/')
    assert (tmp_path / 'calls').read_text().splitlines() == ['run.sh test', '.venv/bin/ruff check .']
    assert done.returncode == 3                 # what fails there fails here
    assert '- run: .ci/run\n' in (ROOT / '.github/workflows/tests.yml').read_text(encoding='utf-8')
