"""
The command that trains on conversations or pairs, after the commands that make what it starts from,
if that is not there yet.

    next_command('sft', 'data/chats')
        # 'python prepare.py && python train.py && python sft.py --data_dir=data/chats
        #  --out_dir=out/chats', or only the last of the three if there is a model in out/base
"""
import json, os, pathlib, shlex

# a default folder: the command that makes it, and {flag: another folder that this command needs}
MADE_BY = {'data/quickstart': ('python prepare.py', {}),
           'data/sft': ('python prepare.py --kind=sft', {}),
           'out/base': ('python train.py', {'data_dir': 'data/quickstart'}),
           'out/sft': ('python sft.py', {'init_from': 'out/base', 'data_dir': 'data/sft'})}
# before other names: the folders of run.sh
USUAL = {'base': ['out/base', 'out/quickstart'], 'sft': ['out/sft', 'out/quickstart_sft']}


def next_command(kind, out_dir):
    """Return the command for data of this kind ('sft', 'preference') in out_dir."""
    if kind == 'sft':
        command, needs = 'python sft.py', {'init_from': 'out/base'}
    else:
        command, needs = 'python dpo.py', {'init_from': 'out/sft'}
    steps = with_needs(command, needs)
    rows = (json.loads(line) for side in ('train', 'val')
            for line in pathlib.Path(out_dir, f'{side}.jsonl').open(encoding='utf-8'))
    if kind == 'preference' and any('label' in row for row in rows):
        steps[-1] += ' --loss_type=kto'
    run = unused(f'out/{os.path.basename(os.path.realpath(out_dir))}')
    return (f'{" && ".join(steps)} --data_dir={shlex.quote(str(out_dir))} '
            f'--out_dir={shlex.quote(run)}')


def with_needs(command, needs):
    """Return the commands up to this one: those that make what it needs come first."""
    steps = []
    for flag, default in needs.items():
        folder, more = reach(default)
        steps += more
        if folder != default:
            command += f' --{flag}={shlex.quote(folder)}'
    return [*steps, command]


def reach(path):
    """Return a folder that does for a default one, and the commands that make it: none, if there is
    one. They write only where nothing is."""
    if there := folders_like(path):
        return there[0], []
    folder = unused(path)
    steps = with_needs(*MADE_BY[path])
    if folder != path:
        steps[-1] += f' --out_dir={shlex.quote(folder)}'
    return folder, steps


def folders_like(path):
    """Return the folders that do for a default one: data with a training file, or models that the
    next stage can start from."""
    if path == 'data/sft':
        return [path] if os.path.exists(f'{path}/train.jsonl') else []
    if path == 'data/quickstart':
        return [path] if os.path.exists(f'{path}/train.bin') and knows_messages(path) else []
    stage = path.removeprefix('out/')
    found = []
    for config in sorted(pathlib.Path('out').glob('*/config.json')):
        folder = config.parent
        try:
            made_with = json.loads(config.read_bytes())
        except ValueError:              # half written
            continue
        is_saved = any((folder / name).exists() for name in ('best.pt', 'last.pt'))
        # Other objectives fill gaps, and a reward model scores answers.
        writes = made_with.get('objective', 'clm') == 'clm' and made_with.get('loss_type') != 'rm'
        if is_saved and writes and made_with.get('stage', 'base') == stage:
            found += [folder.as_posix()] * knows_messages(folder)
    usual = [name for name in USUAL[stage] if name in found]
    return usual + [name for name in found if name not in usual]


def knows_messages(folder):
    """Whether the tokenizer in a folder has the tokens that frame a message. Those of single bytes
    or characters of one text have none, and sft.py refuses a model with such a tokenizer."""
    path = pathlib.Path(folder, 'tokenizer.json')
    return path.exists() and '"<|im_start|>"' in path.read_text('utf-8', errors='replace')


def unused(path):
    """Return path, or path_2, path_3, ..., the first one at which there is nothing yet."""
    names = (f'{path}_{i}' if i > 1 else path for i in range(1, 10_000))
    return next(name for name in names if not os.path.exists(name))
