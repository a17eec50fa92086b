"""A script knows its own folders and refuses those of others, also with --overwrite: a test for every
crossing of the scripts that write folders with the kinds of folders there are."""
import shutil

import pytest
from conftest import PAID, make_pairs, mistake, ok, run, write

STEPS = '--max_steps=2 --batch_size=4 --warmup_steps=0 --device=cpu'
TRAINERS = ['train.py', 'sft.py', 'dpo.py', 'rl.py']
# A script, what it writes, and a command for it: other data than those in the folder of its kind.
COMMANDS = f'''
clean.py cleaned --source=other.jsonl --min_words=0 --num_workers=1
prepare.py tokens --source=other.jsonl --tokenizer=byte
chats.py chats --source=other_chats.jsonl
train.py run --data_dir=tokens --n_layer=1 --n_head=2 --n_embd=16 --block_size=16 {STEPS}
sft.py run --init_from=model --data_dir=chats {STEPS}
dpo.py run --init_from=model --data_dir=pairs {STEPS}
rl.py run --init_from=model --reward=mine.py --num_samples=2 --max_new_tokens=4 {STEPS}
'''.strip().split('\n')
KINDS = 'cleaned', 'tokens', 'chats', 'run', 'hf'


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def place(sft_model, tmp_path_factory):
    """A folder of each kind, and what commands read."""
    base = tmp_path_factory.mktemp('place')
    for name in 'text', 'other':
        write(base / f'{name}.jsonl', [{'text': f'{name} {i} times {i} is {i * i}, a sum of many.'}
                                       for i in range(60)])
        write(base / f'{name}_chats.jsonl', [{'prompt': f'what about {name} {i}', 'completion': 'a'}
                                             for i in range(30)])
    shutil.copytree(sft_model, base / 'model')
    make_pairs(base / 'pairs')
    (base / 'mine.py').write_text(PAID)
    for line in COMMANDS[:4]:
        script, kind, *flags = line.replace('other', 'text').split()
        ok(run(script, *flags, f'--out_dir={kind}', cwd=base))
    for name in 'config.json', 'model.safetensors', 'tokenizer.json', 'README.md':
        write(base / 'hf' / name, [{}])
    write(base / 'mine/meta.json', [])              # of somebody else: no JSON
    return base


def test_a_folder_that_a_command_wrote_is_no_source_of_text_and_is_named(place, tmp_path):
    out = f'--out_dir={tmp_path}/out'
    for kind, words in [('tokens', 'tokens'), ('chats', 'chats'), ('run', 'a run'),
                        ('hf', 'a model of Hugging Face'), ('model', 'a run')]:
        mistake(run('prepare.py', f'--source={kind}', '--tokenizer=byte', out, cwd=place),
                f'{kind} has {words}, and --source must be text')
        mistake(run('clean.py', f'--source={kind}', out, cwd=place),
                f'{kind} has {words}, and --source must be text')
    assert not [*tmp_path.glob('out/[!.]*')]
    # in a folder of text, they are passed over
    write(tmp_path / 'in/text.jsonl', [{'text': f'{i} and {i + 1}'} for i in range(9)])
    for kind in 'tokens', 'run', 'hf':
        shutil.copytree(place / kind, tmp_path / 'in' / kind)
    said = ok(run('prepare.py', f'--source={tmp_path}/in', '--tokenizer=byte', out))
    for words in 'files of tokens: 5', 'files of a run: ', 'files of a model of Hugging Face: 4':
        assert words in said, said


@pytest.mark.parametrize('line', COMMANDS, ids=lambda line: line.split()[0])
def test_a_script_replaces_the_folder_of_its_own_kind_and_no_other(line, place, tmp_path):
    script, own, *flags = line.split()
    for kind in KINDS + ('own', 'mine') * (script not in TRAINERS):
        out = shutil.copytree(place / (own if kind == 'own' else kind), tmp_path / kind)
        if kind == 'own':               # with a file of yours
            (out / 'notes.txt').write_text('mine')
        before = files(out)
        command = lambda *more: run(script, *flags, f'--out_dir={out}', *more, cwd=place)
        if kind == own:
            mistake(command(), str(out), '--overwrite')
        else:
            mistake(command('--overwrite'), str(out), 'choose another --out_dir')
        assert files(out) == before, kind
        if kind == own:
            ok(command('--overwrite'))
            assert files(out) != before


def test_advice_leads_to_no_folder_of_others(place):
    for line in COMMANDS[3:]:
        script, _, *flags = line.split()
        if script != 'rl.py':
            result = run(script, *flags, '--data_dir=cleaned', '--out_dir=new', cwd=place)
            mistake(result, 'cleaned', '--out_dir=NEW, and give --data_dir=NEW')
    mistake(run('eval.py', '--ckpt=run, run', '--data_dir=chats', cwd=place), 'the val_loss of chats')
