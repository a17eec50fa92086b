"""Other systems and Pythons, as far as this one can tell: scripts do their work there, or say why not."""
import ast
import functools
import re
import sys

from conftest import ROOT, TINY, metrics, mistake, ok, run, write


# A Windows, as a script sees it, before its first line. torch and the interpreter stay those of this system.
WINDOWS = """import multiprocessing
multiprocessing.get_all_start_methods = lambda: ['spawn']
sys.modules.update(fcntl=None, resource=None)
for name in 'SIGUSR1', 'SIGKILL', 'SIGALRM', 'setitimer', 'alarm':
    delattr(signal, name)
for name in 'fork', 'sysconf', 'sched_getaffinity', 'pread', 'getuid', 'geteuid', 'killpg', 'setsid':
    delattr(os, name)
import parts.prepare.corpus, parts.eval.sandbox, types
parts.prepare.corpus.os = types.SimpleNamespace(**{**vars(os), 'name': 'nt'})
parts.eval.sandbox.sys = types.SimpleNamespace(platform='win32', executable=sys.executable)
"""
windows = functools.partial(run, before=WINDOWS)
# modules that left the library until Python 3.13, and names that came after 3.10
GONE = set('''aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp lib2to3 mailcap msilib
    nis nntplib ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib'''.split())
NEWER = re.compile(r'hashlib\.file_digest|tomllib|itertools\.batched|TaskGroup|datetime\.UTC|StrEnum|'
                   r'catch_warnings\(action|typing\.Self|add_note|sqlite3\.autocommit')
FILES = [path for folder in ('*.py', 'parts/*/*.py', 'config/*.py') for path in ROOT.glob(folder)]


def test_prepare_train_and_resume_need_nothing_that_windows_lacks(python_files, tmp_path):
    flags = [f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/run', *TINY, '--dtype=float32']
    ok(windows('prepare.py', f'--source={python_files}/asyncio', f'--out_dir={tmp_path}/data',
               '--vocab_size=400', '--num_workers=4'))
    ok(windows('train.py', *flags))
    ok(run('train.py', *[f.replace('/run', '/here') for f in flags]))
    mine, theirs = (metrics(tmp_path / name) for name in ('here', 'run'))
    assert [m['loss'] for m in mine if 'loss' in m] == [m['loss'] for m in theirs if 'loss' in m]
    ok(windows('train.py', *flags, '--init_from=resume', '--max_steps=13'))     # rotates without links
    assert (tmp_path / 'run/last-1.pt').exists()


def test_lora_runs_there_programs_and_a_plan_for_its_cpu_do_not(conversations, sft_model, tmp_path):
    base = f'--init_from={sft_model}'
    tests = write(tmp_path / 'tests.jsonl', [{'prompt': f'{i}', 'tests': 'assert 1'} for i in range(20)])
    ok(windows('sft.py', base, f'--data_dir={conversations}', '--lora=2', '--max_steps=2', '--batch_size=4',
               f'--out_dir={tmp_path}/run', '--device=cpu'))
    ok(windows('sample.py', f'--ckpt={tmp_path}/run', '--prompt=1', '--max_new_tokens=2'))
    mistake(windows('rl.py', base, f'--reward={tests}', f'--out_dir={tmp_path}/rl', '--max_new_tokens=2',
                    '--eval_prompts=2', '--allow_code_execution=True'), 'needs Linux or macOS', 'WSL')
    mistake(windows('sft.py', base, '--plan=1xcpu'), 'plan=1xcpu', 'Windows', '1xL4')


def test_every_file_is_python_3_10_and_imports_nothing_that_3_13_removed():
    assert len(FILES) > 60 and (3, 10) <= sys.version_info[:2] <= (3, 13)
    for path in FILES:
        text = path.read_text(encoding='utf-8')
        code = re.sub(r'#.*', '', text)
        assert not NEWER.search(code), (path, NEWER.search(code))
        tree = ast.parse(text, feature_version=(3, 10))
        nodes = list(ast.walk(tree))
        found = {(n.module or '').split('.')[0] for n in nodes if isinstance(n, ast.ImportFrom)}
        found |= {a.name.split('.')[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
        assert not found & GONE, (path, found & GONE)


def test_the_workflow_tests_the_oldest_and_the_newest_torch_on_three_systems():
    text = (ROOT / '.github/workflows/tests.yml').read_text(encoding='utf-8')
    oldest, above = re.search(r'torch>=([\d.]+),<2\.(\d+)', (ROOT / 'requirements.txt').read_text()).groups()
    assert {f'{oldest}.0', f'2.{int(above) - 1}.0'} == set(re.findall(r"torch: '([\d.]+)'", text))
    assert {'ubuntu', 'macos', 'windows'} == set(re.findall(r'os: (\w+)-latest', text))
    assert {'3.10', '3.13'} <= set(re.findall(r"python: '([\d.]+)'", text))
    named = re.findall(r'tests/(?:test_\w+\.py|requirements\.txt)', text)
    assert len(named) > 8 and all((ROOT / name).exists() for name in named)
