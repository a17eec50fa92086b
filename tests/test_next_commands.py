"""What a script prints as the next command runs where it was printed; what several scripts refuse alike."""
import ast
import gzip
import json
import re
import shlex
import shutil
import subprocess

import pytest
from conftest import PAID, ROOT, TINY, machine, make_conversations, make_pairs, mistake, ok, refused, run
from conftest import series, thumbs_of, write

from extras import questions

# Flags that make the run of a command small; a later flag wins.
SMALL = {'train.py': ['--n_layer=1', '--n_head=2', '--n_embd=32', '--batch_size=2', '--max_steps=2',
                      '--warmup_steps=0', '--eval_tokens=64', '--sample_tokens=4'],
         'sft.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4'],
         'dpo.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4'],
         'rl.py': ['--max_steps=1', '--batch_size=2', '--num_samples=2', '--max_new_tokens=4',
                   '--micro_batch_size=2', '--eval_prompts=4', '--reward=paid.py'],
         'sample.py': ['--max_new_tokens=4'], 'eval.py': ['--loss_tokens=64'], 'prepare.py': []}


class Desk:
    """A folder in which somebody types commands."""

    def __init__(self, folder, text):
        self.folder = folder
        self.text = text
        (folder / 'config').symlink_to(ROOT / 'config')
        (folder / 'paid.py').write_text(PAID, encoding='utf-8')

    def typed(self, command):
        """What happens if somebody types it. The standard library is a small part of it here."""
        python, script, *words = shlex.split(command)
        assert python == 'python', command
        small = [*SMALL[script]]
        if script == 'prepare.py' and not re.search('--source|--kind', command):
            small = [f'--source={self.text}', '--vocab_size=400']
        elif '--kind=sft' in words and '--source' not in command:
            small = ['--n_examples=20']
        device = [] if script == 'prepare.py' else ['--device=cpu']
        return run(script, *words, *small, *device, cwd=self.folder)

    def follow(self, *commands):
        """Type the commands, then each command that is printed as the next one, until none is new.
        Return for each that was typed the scripts that it ran."""
        done = []
        waiting = [*commands]
        while waiting:
            done.append(waiting.pop(0))
            for command in done[-1].split(' && '):
                result = self.typed(command)
                assert result.returncode == 0, (done, result.stdout, result.stderr)
            found = re.findall('(?:^|; )next: (.*)', result.stdout, re.M)
            waiting += [line for line in found if line not in done]
        return [re.findall(r'\w+\.py', line.replace('config/quickstart.py', '')) for line in done]

    def corrected(self, command):
        """Type a command, and do what its mistake says, until it runs: add a flag, or run other commands
        first. Return the command that ran."""
        while (result := self.typed(command)).returncode:
            assert result.returncode == 2, result.stderr
            offer = re.search(r'(?:give one that does|one that can): (--\w+=\S+)', result.stderr)
            if offer:
                command += f' {offer[1]}'
                continue
            for step in re.search(' run: (.*)', result.stderr)[1].split(' && '):
                self.corrected(step)
        return command


@pytest.fixture
def desk(tmp_path, python_files):
    make_conversations(tmp_path / 'chats')
    make_pairs(tmp_path / 'liked')
    return Desk(tmp_path, python_files / 'email')


CHATS = 'python prepare.py --kind=sft --source=chats/train.jsonl --out_dir=data/chats'
LIKED = 'python prepare.py --kind=preference --source=liked/train.jsonl --dedup=none --out_dir=data/liked'


def test_after_run_sh_each_next_command_runs_and_a_missing_default_is_answered_with_what_is_there(desk):
    """The defaults out/base and out/sft are not there, and names that are taken stay as they are."""
    for command in (
            'python prepare.py --out_dir=data/quickstart',
            'python train.py config/quickstart.py',
            'python prepare.py --kind=sft --out_dir=data/sft',
            'python sft.py config/quickstart_sft.py',
            'python prepare.py --kind=preference --source=liked/train.jsonl --out_dir=data/pairs',
            'python dpo.py config/quickstart_dpo.py',
            'python rl.py config/quickstart_rl.py'):
        ok(desk.typed(command))
    base = desk.folder / 'out/quickstart/best.pt'
    kept = base.read_bytes()
    for script in 'sample.py', 'eval.py':
        assert desk.corrected(f'python {script}') == f'python {script} --ckpt=out/quickstart'
    desk.corrected('python sample.py --chat=True --ckpt=out/sftt')
    found = desk.follow(
        'python prepare.py --out_dir=data/quickstart', 'python prepare.py --kind=sft', CHATS, LIKED,
        'python rl.py --init_from=out/quickstart_sft --out_dir=out/rl',
        'python eval.py --ckpt=out/quickstart_dpo,out/quickstart')
    assert {*found[0], *found[1], *found[6]} == {'prepare.py', 'train.py'}
    assert found.count(['sft.py']) == 2 and found.count(['dpo.py']) == 1
    assert base.read_bytes() == kept


def test_in_an_empty_folder_the_commands_of_mistakes_and_the_next_ones_are_the_whole_chain(desk):
    """But for the pairs of dpo.py. What a command needs is made first, in whatever order one types."""
    assert desk.follow(LIKED)[1] == ['prepare.py', 'train.py', 'prepare.py', 'sft.py', 'dpo.py']
    assert desk.follow(CHATS)[1] == ['sft.py']
    pairs = [json.loads(line) for line in open(desk.folder / 'liked/train.jsonl')]
    write(desk.folder / 'thumbs.jsonl', thumbs_of(pairs))
    desk.follow('python prepare.py --kind=preference --source=thumbs.jsonl --out_dir=data/thumbs',
                'python prepare.py --write=text --out_dir="a b"', 'python prepare.py --kind=sft')
    for script in 'sample.py', 'eval.py', 'rl.py':
        shutil.rmtree(desk.folder / 'out')
        desk.corrected(f'python {script}')
    assert 'prepare.py --kind=preference' in desk.typed('python dpo.py').stderr
    shutil.rmtree(desk.folder / 'out')
    shutil.rmtree(desk.folder / 'data')
    assert desk.follow(CHATS)[1] == ['prepare.py', 'train.py', 'sft.py']


def test_a_model_that_cannot_answer_is_no_start_and_a_short_text_gets_a_short_context(desk):
    """A model of the characters of one text knows no messages, and one of gaps writes nothing. They stay as
    they are. A model under a name of the user does."""
    for name, times in ('short', 8), ('one', 80):
        text = 'To be, or not to be, that is the question.\n' * times
        (desk.folder / f'{name}.txt').write_text(text, 'utf-8')
    desk.follow('python prepare.py --source=short.txt --tokenizer=byte --out_dir=data/short',
                'python prepare.py --source=one.txt --tokenizer=char')
    ok(desk.typed('python train.py'))
    files = [desk.folder / name for name in ('out/base/best.pt', 'data/quickstart/meta.json')]
    kept = [file.read_bytes() for file in files]
    desk.follow(CHATS)
    assert kept == [file.read_bytes() for file in files]
    ok(desk.typed('python train.py --data_dir=data/quickstart_2 --out_dir="out/my gaps" --objective=mlm'))
    shutil.move(desk.folder / 'out/base_2', desk.folder / 'out/my own')
    assert "--init_from='out/my own'" in ok(desk.typed(CHATS))


# --- every program ------------------------------------------------------------------------------------------
# all that a user can start: the scripts, and the programs of the folders; trial.py is sandbox.py's
PROGRAMS = [path for folder in ('*.py', 'extras/*.py', 'bench/*.py', 'learn/*.py')
            for path in sorted(ROOT.glob(folder)) if path.stem != 'trial'
            if re.search(r"^(if __name__ == '__main__'|config = configure\()", path.read_text('utf-8'), re.M)]
# names that came after 3.10
NEWER = re.compile(r'hashlib\.file_digest|tomllib|itertools\.batched|TaskGroup|datetime\.UTC|StrEnum|'
                   r'catch_warnings\(action|typing\.Self|add_note|sqlite3\.autocommit')


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


def test_help_says_what_each_program_does_and_does_nothing(tmp_path):
    assert len(PROGRAMS) > 15
    for path in PROGRAMS:
        name = path.relative_to(ROOT).as_posix()
        result = run(name[:-3].replace('/', '.') if name.startswith('extras/') else name, '--help',
                     cwd=tmp_path)
        about = ast.get_docstring(ast.parse(path.read_text('utf-8'))).splitlines()[0]
        assert ok(result).startswith('usage: ') or about in result.stdout, (path, result)
        assert not result.stderr and not any(tmp_path.iterdir()), (path, result.stderr)
    done = subprocess.run(['bash', ROOT / 'run.sh', 'tuor'], capture_output=True, text=True)
    assert done.returncode == 2 and 'no tuor here' in done.stderr and not done.stdout


def test_every_file_is_python_3_10():
    """Its grammar, and none of the names that came later."""
    for path in [path for folder in ('*.py', 'extras/*.py', 'config/*.py') for path in ROOT.glob(folder)]:
        text = path.read_text(encoding='utf-8')
        assert ast.parse(text, feature_version=(3, 10)) and not NEWER.search(re.sub(r'#.*', '', text)), path


def test_windows_prepares_trains_and_resumes_and_runs_no_programs(python_files, sft_model, tmp_path):
    flags = [f'--data_dir={tmp_path}/data', *TINY, '--dtype=float32', '--schedule=wsd', '--decay_steps=1']
    text = (ROOT / 'prepare.py').read_text(encoding='utf-8')
    assert "os.name == 'posix'" in text         # where pathlib finds it, too, so it can't be another here
    (tmp_path / 'prepare.py').write_text(text.replace("os.name == 'posix'", 'False'), encoding='utf-8')
    for name in 'configurator.py', 'tokenizer.py':
        shutil.copy(ROOT / name, tmp_path)
    ok(run(tmp_path / 'prepare.py', f'--source={python_files}/asyncio', f'--out_dir={tmp_path}/data',
           '--vocab_size=400', '--num_workers=4', before=WINDOWS))
    there = f'--out_dir={tmp_path}/there'
    ok(run('train.py', *flags, there, '--max_steps=8', before=WINDOWS))
    ok(run('train.py', there, '--init_from=resume', '--max_steps=12', before=WINDOWS))
    ok(run('train.py', *flags, f'--out_dir={tmp_path}/here'))
    assert series(tmp_path / 'here', 'loss') == series(tmp_path / 'there', 'loss')
    tests = write(tmp_path / 'tests.jsonl', [{'prompt': f'{i}', 'tests': 'assert 1'} for i in range(20)])
    mistake(run('rl.py', f'--init_from={sft_model}', f'--reward={tests}', f'--out_dir={tmp_path}/rl',
                '--max_new_tokens=2', '--eval_prompts=2', '--allow_code_execution=True', before=WINDOWS),
            'needs Linux or macOS', 'WSL')


# --- a file of the wrong kind, or none ----------------------------------------------------------------------
LINES = ''.join(json.dumps({'prompt': f'Say {i}.', 'answer': str(i)}) + '\n' for i in range(40))
WRONG = {'cut.jsonl.gz': gzip.compress(LINES.encode())[:-40], 'none.jsonl.gz': b'he', 'number.jsonl': b'5\n',
         'half.jsonl': b'{"prompt": "a",\n', 'bytes.jsonl': b'\xff\xfe\0', 'deep.jsonl': b'[' * 100_000}


def test_a_file_that_is_not_what_it_should_be_is_one_sentence(base_run, data_dir, tmp_path):
    for name, data in WRONG.items():
        (tmp_path / name).write_bytes(data)
        words = rf'{name}, line \d+: \w+: .*; each line is a problem of own; see the top of eval.py'
        refused(words, questions.read, 'own', str(tmp_path / name))
    (tmp_path / 'folder.jsonl').mkdir()
    refused("folder.jsonl can't be read", questions.read, 'own', str(tmp_path / 'folder.jsonl'))
    (tmp_path / 'whole.jsonl.gz').write_bytes(gzip.compress(LINES.encode()))
    assert len(questions.read('own', str(tmp_path / 'whole.jsonl.gz'))) == 40

    shutil.copy(base_run / 'best.pt', tmp_path / 'folder.jsonl')
    for command, *words in (
            ('eval.py --tasks=gsm8k --data=cut.jsonl.gz --completions=x', 'cut.jsonl.gz', 'top of eval.py'),
            ('prepare.py --decontaminate=none.json', 'none.json does not exist', '--decontaminate needs'),
            ('prepare.py --perplexity_reference=bytes.jsonl', 'reference', 'no text'),
            ('sample.py --ckpt=nowhere', 'nowhere'), ('sample.py --ckpt=.', 'best.pt', 'train.py'),
            ('sample.py --ckpt=folder.jsonl', 'tokenizer.json')):
        script, *flags = command.split()
        source = [f'--source={ROOT}/extras', '--out_dir=out'] if script == 'prepare.py' else []
        mistake(run(script, *source, *flags, cwd=tmp_path), *words)
    result = run('eval.py', f'--ckpt={base_run}', f'--data_dir={data_dir}', '--out=/proc/no/eval.json')
    machine(result, '/proc/no')
    assert 'nats' not in result.stdout          # refused before anything is measured
