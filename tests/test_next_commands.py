"""What a script prints as the next command runs where it was printed; what several scripts refuse
alike."""
import re
import shlex
import shutil

import pytest
from conftest import PAID, ROOT, TINY, make_conversations, make_pairs, mistake, ok, run
from conftest import write

# Flags that make the run of a command small; a later flag wins.
STEPS = '--max_steps=2 --batch_size=2 --device=cpu'
SMALL = {'train.py': f'{STEPS} --n_layer=1 --n_head=2 --n_embd=32 --warmup_steps=0 '
                     '--eval_tokens=64',
         'sft.py': STEPS, 'dpo.py': STEPS,
         'rl.py': f'{STEPS} --num_samples=2 --max_new_tokens=4 --eval_prompts=4 --reward=paid.py',
         'prepare.py': '--vocab_size=400',
         'sample.py': '--max_new_tokens=4 --device=cpu', 'eval.py': '--loss_tokens=64 --device=cpu'}
CHATS = 'python chats.py --source=chats/train.jsonl --out_dir=data/chats'
LIKED = 'python chats.py --source=liked/train.jsonl --out_dir=data/liked'


@pytest.fixture
def typed(tmp_path, python_files):
    """typed(command) -> what happens if somebody types it in a folder that has chats and pairs.
    The standard library is a small part of it here."""
    make_conversations(tmp_path / 'chats')
    make_pairs(tmp_path / 'liked')
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    (tmp_path / 'paid.py').write_text(PAID, encoding='utf-8')

    def typed(command):
        _, script, *flags = shlex.split(command)
        small = SMALL.get(script, '').split()
        if script == 'clean.py':
            small = [f'--source={python_files}/email']
        elif script == 'chats.py' and '--source' not in command:
            small = ['--n_examples=20']
        return run(script, *flags, *small, cwd=tmp_path)
    return typed


def corrected(typed, command, done):
    """Type a command, and do what its mistake says, until it runs: add a flag, or run other
    commands first. Return what it prints. done: the commands that ran, in their order."""
    while (result := typed(command)).returncode:
        assert result.returncode == 2, result.stderr
        offer = re.search(r'(?:give one that does|one that can): (--\w+=\S+)', result.stderr)
        if offer:
            command += f' {offer[1]}'
            continue
        for step in re.search(' run: (.*)', result.stderr)[1].split(' && '):
            corrected(typed, step, done)
    done.append(command)
    return result.stdout


def follow(typed, *commands):
    """Type the commands, and after each the one that is printed as the next, if it is new. Return
    all that ran."""
    done, waiting = [], [*commands]
    while waiting:
        said = corrected(typed, waiting.pop(0), done)
        waiting[:0] = [line for line in re.findall('(?:^|; )next: (.*)', said, re.M)
                       if line not in done + waiting]
    return done


def test_after_run_sh_a_missing_default_is_answered_with_what_is_there(typed, tmp_path):
    """The defaults out/base and out/sft are not there, and names that are taken stay as they
    are."""
    for command in ('python clean.py', 'python prepare.py', 'python train.py config/quickstart.py',
                    'python chats.py', 'python sft.py config/quickstart_sft.py'):
        ok(typed(command))
    write(tmp_path / 'out/0/config.json', [1])              # of another program
    kept = (tmp_path / 'out/quickstart/best.pt').read_bytes()
    for script in 'sample.py', 'eval.py':
        corrected(typed, f'python {script}', done := [])
        assert done == [f'python {script} --ckpt=out/quickstart']
    corrected(typed, 'python sample.py --chat=True --ckpt=out/sftt', [])
    follow(typed, 'python clean.py', CHATS, LIKED,
           'python rl.py --init_from=out/quickstart_sft --out_dir=out/rl')
    assert (tmp_path / 'out/quickstart/best.pt').read_bytes() == kept


def test_in_an_empty_folder_the_commands_of_mistakes_and_the_next_ones_are_the_chain(typed,
                                                                                     tmp_path):
    """But for the pairs of dpo.py. What a command needs is made first, in whatever order one
    types."""
    scripts = [command.split()[1].removesuffix('.py') for command in follow(typed, LIKED)]
    chain = 'chats clean prepare train chats sft dpo eval'.split()
    assert [script for script in scripts if script != 'sample'] == chain
    for script in 'sample.py', 'rl.py':
        shutil.rmtree(tmp_path / 'out')
        corrected(typed, f'python {script}', [])
    assert 'chats.py --kind=preference' in typed('python dpo.py').stderr


# --- elsewhere ------------------------------------------------------------------------------------
# A Windows, as a script sees it, before its first line. The interpreter stays that of this system.
WINDOWS = """import multiprocessing
multiprocessing.get_all_start_methods = lambda: ['spawn']
sys.modules.update(fcntl=None, resource=None)
for name in 'SIGUSR1', 'SIGKILL':
    delattr(signal, name)
for name in 'fork sysconf sched_getaffinity pread getuid geteuid killpg setsid'.split():
    delattr(os, name)
import extras.sandbox, types
extras.sandbox.sys = types.SimpleNamespace(platform='win32', executable=sys.executable)
"""


def test_windows_trains_and_resumes_and_runs_no_programs(data_dir, sft_model, tmp_path):
    there = f'--out_dir={tmp_path}/there'
    ok(run('train.py', f'--data_dir={data_dir}', *TINY, there, '--max_steps=8', before=WINDOWS))
    ok(run('train.py', there, '--init_from=resume', '--max_steps=12', before=WINDOWS))
    tests = write(tmp_path / 'tests.jsonl', [{'prompt': f'{i}', 'tests': 'assert 1'}
                                             for i in range(20)])
    refused = run('rl.py', f'--init_from={sft_model}', f'--reward={tests}', '--max_new_tokens=2',
                  '--allow_code_execution=True', cwd=tmp_path, before=WINDOWS)
    mistake(refused, 'needs Linux or macOS', 'WSL')


def test_where_eval_py_cannot_write_it_says_so_before_anything_is_measured(base_run, data_dir):
    flags = f'--ckpt={base_run}', f'--data_dir={data_dir}', '--out=/proc/no/eval.json'
    result = run('eval.py', *flags)
    assert result.returncode == 1 and '/proc/no' in result.stderr
    assert 'nats' not in result.stdout
