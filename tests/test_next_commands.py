"""Each command that a script prints as the next one runs where it was printed, whatever is there."""
import re
import shlex
import shutil

import pytest
from conftest import PAID, ROOT, make_conversations, make_pairs, ok, read_rows, run, thumbs_of, write

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
        Return all that were typed."""
        done = []
        waiting = [*commands]
        while waiting:
            done.append(waiting.pop(0))
            for command in done[-1].split(' && '):
                result = self.typed(command)
                assert result.returncode == 0, (done, result.stdout, result.stderr)
            for line in re.findall('(?:^|; )next: (.*)', result.stdout, re.M):
                if line not in done:
                    waiting.append(line)
        return done

    def scripts(self, *commands):
        return [re.findall(r'\w+\.py', line.replace('config/quickstart.py', ''))
                for line in self.follow(*commands)]


@pytest.fixture
def desk(tmp_path, python_files):
    make_conversations(tmp_path / 'chats')
    make_pairs(tmp_path / 'liked')
    return Desk(tmp_path, python_files / 'email')


@pytest.fixture
def like_run_sh(desk):
    """A folder as run.sh leaves it, with tiny models."""
    out = desk.folder / 'out'
    for command in (
            'python prepare.py --out_dir=data/quickstart',
            'python train.py config/quickstart.py',
            'python prepare.py --kind=sft --out_dir=data/sft',
            'python sft.py config/quickstart_sft.py',
            'python prepare.py --kind=preference --source=liked/train.jsonl --out_dir=data/pairs',
            'python dpo.py config/quickstart_dpo.py',
            'python rl.py config/quickstart_rl.py'):
        ok(desk.typed(command))
    shutil.copytree(out / 'quickstart_sft', out / 'quickstart_rejection')
    return desk


CHATS = 'python prepare.py --kind=sft --source=chats/train.jsonl --out_dir=data/chats'
LIKED = 'python prepare.py --kind=preference --source=liked/train.jsonl --dedup=none --out_dir=data/liked'


def test_after_run_sh_each_next_command_runs(like_run_sh):
    """The defaults out/base and out/sft are not there, and names that are taken stay as they are."""
    before = (like_run_sh.folder / 'out/quickstart/best.pt').read_bytes()
    found = like_run_sh.scripts(
        'python prepare.py --out_dir=data/quickstart', 'python prepare.py --kind=sft', CHATS, LIKED,
        'python rl.py --init_from=out/quickstart_sft --out_dir=out/rl',
        'python eval.py --ckpt=out/quickstart_dpo,out/quickstart')
    assert {*found[0], *found[1], *found[6]} == {'prepare.py', 'train.py'}
    assert found.count(['sft.py']) == 2 and found.count(['dpo.py']) == 1
    assert (like_run_sh.folder / 'out/quickstart/best.pt').read_bytes() == before


def test_the_defaults_lead_from_one_to_the_next(desk):
    """Also typed in another order: what a command needs is made first."""
    assert desk.scripts(LIKED)[1] == ['prepare.py', 'train.py', 'prepare.py', 'sft.py', 'dpo.py']
    assert desk.scripts(CHATS)[1] == ['sft.py']
    write(desk.folder / 'thumbs.jsonl', thumbs_of(read_rows(desk.folder / 'liked/train.jsonl')))
    desk.follow('python prepare.py --kind=preference --source=thumbs.jsonl --out_dir=data/thumbs')
    desk.follow('python prepare.py', 'python eval.py', 'python rl.py', 'python prepare.py --kind=sft')


def test_the_first_next_command_of_conversations_makes_a_base(desk):
    assert desk.scripts(CHATS)[1] == ['prepare.py', 'train.py', 'sft.py']


def test_a_model_that_cannot_answer_is_no_start(desk):
    """A model of the characters of one text knows no messages, and one of gaps writes nothing. They stay as
    they are. A model under a name of the user does."""
    (desk.folder / 'one.txt').write_text('To be, or not to be, that is the question.\n' * 80, 'utf-8')
    desk.follow('python prepare.py --source=one.txt --tokenizer=char')
    ok(desk.typed('python train.py'))
    files = [desk.folder / name for name in ('out/base/best.pt', 'data/quickstart/meta.json')]
    kept = [file.read_bytes() for file in files]
    lines = desk.follow(CHATS)
    assert '--out_dir=data/quickstart_2' in lines[1] and '--init_from=out/base_2' in lines[1]
    assert kept == [file.read_bytes() for file in files]
    ok(desk.typed('python train.py --data_dir=data/quickstart_2 --out_dir="out/my gaps" --objective=mlm'))
    shutil.move(desk.folder / 'out/base_2', desk.folder / 'out/my own')
    assert "--init_from='out/my own'" in desk.follow(CHATS)[1]


def test_a_short_text_gets_a_short_context(desk):
    for n in (30, 900):
        (desk.folder / 'short.txt').write_text(''.join(f'{i} birds. ' for i in range(n)), 'utf-8')
        desk.follow(f'python prepare.py --source=short.txt --tokenizer=byte --out_dir=data/short{n}')


# --- mistakes -----------------------------------------------------------------------------------------------
def corrected(desk, command):
    """Type a command, and do what its mistake says: add a flag, or run other commands first."""
    result = desk.typed(command)
    assert result.returncode == 2, (command, result.stdout)
    offer = r'(?:give one that does|one that can): (--\w+=\S+)((?: \(or .*\))?)'
    if found := re.search(offer, result.stderr):
        for other in re.findall(r'out/\w+', found[2]):
            assert (desk.folder / other).is_dir()
        return f'{command} {found[1]}'
    for step in re.search(' run: (.*)', result.stderr)[1].split(' && '):
        ok(desk.typed(step))
    return command


def test_a_default_that_is_not_there_is_answered_with_what_is(like_run_sh):
    words = {'sample.py': '--ckpt=out/quickstart', 'eval.py': '--ckpt=out/quickstart'}
    for script, flag in words.items():
        command = corrected(like_run_sh, f'python {script}')
        assert command == f'python {script} {flag}'
        ok(like_run_sh.typed(command))
    assert 'out/quickstart_rl' in like_run_sh.typed('python sample.py').stderr
    command = corrected(like_run_sh, 'python sample.py --chat=True --ckpt=out/sftt')
    ok(like_run_sh.typed(command))


def test_a_missing_default_is_made_by_the_commands_of_its_mistake(desk):
    """In an empty folder they are the whole chain, but for the pairs of dpo.py."""
    for script in 'sample.py', 'eval.py', 'rl.py', 'sft.py':
        shutil.rmtree(desk.folder / 'out', ignore_errors=True)
        if script == 'rl.py':       # it names sft.py, which says what that needs
            assert ' run: python sft.py' in desk.typed('python rl.py').stderr
            ok(desk.typed(corrected(desk, corrected(desk, 'python sft.py'))))      # a base, its data
            ok(desk.typed('python rl.py'))
            continue
        command = corrected(desk, f'python {script}')
        if script == 'sft.py':      # the examples may be missing, too
            shutil.rmtree(desk.folder / 'data/sft')
            command = corrected(desk, command)
        ok(desk.typed(command))
    assert 'prepare.py --kind=preference' in desk.typed('python dpo.py').stderr
