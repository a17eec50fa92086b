"""A script knows its own folders and refuses those of others, also with --overwrite: a test for every
crossing of the scripts that write folders with the kinds of folders there are."""
import shutil

import pytest
from conftest import PAID, make_pairs, mistake, ok, run, write

STEPS = '--max_steps=2 --batch_size=4 --warmup_steps=0 --device=cpu'
TRAINERS = ['train.py', 'sft.py', 'dpo.py', 'rl.py']
# whose check of folders is not in this branch yet; then this list is empty
WAITING = []
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
    (base / 'hf').mkdir()
    for name in 'config.json', 'model.safetensors', 'tokenizer.json', 'README.md':
        (base / 'hf' / name).write_text('{}')
    return base


@pytest.mark.parametrize('line', COMMANDS, ids=lambda line: line.split()[0])
def test_a_script_replaces_the_folder_of_its_own_kind_and_no_other(line, place, tmp_path):
    script, own, *flags = line.split()
    if script in WAITING:
        pytest.skip(f'{script} does not check folders yet')
    for kind in KINDS + ('own',) * (script not in TRAINERS):
        out = shutil.copytree(place / (own if kind == 'own' else kind), tmp_path / kind)
        if kind == 'own':               # with a file of yours
            (out / 'notes.txt').write_text('mine')
        before = files(out)
        for overwrite in False, True:
            result = run(script, *flags, f'--out_dir={out}', f'--overwrite={overwrite}', cwd=place)
            if kind == own and overwrite:
                ok(result)
                assert files(out) != before
            else:
                mistake(result, str(out), '--overwrite' if kind == own else 'choose another --out_dir')
                assert files(out) == before, (kind, overwrite)


def test_advice_leads_to_no_folder_of_others_and_what_cannot_be_written_is_said_first(place):
    (place / 'lost').symlink_to('nowhere/at/all')
    for line in COMMANDS[3:]:
        script, _, *flags = line.split()
        for out in 'mine.py/run', 'lost':
            mistake(run(script, *flags, f'--out_dir={out}', cwd=place), f"can't write to {out}")
        if script != 'rl.py':
            mistake(run(script, *flags, '--data_dir=cleaned', '--out_dir=new', cwd=place),
                    'cleaned has other things (meta.json, report', 'give another --data_dir')
    mistake(run('eval.py', '--ckpt=run, run', '--data_dir=chats', cwd=place), 'chats has other things')
