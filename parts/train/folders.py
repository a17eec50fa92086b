"""
The folders that scripts read by default: which ones are there, and the commands that make the rest.

    reach('out/base')       # ('out/base', []): it is there
    reach('out/base')       # ('out/quickstart', []): only this one is there; bash run.sh made it
    reach('out/base')       # ('out/base', ['python prepare.py', 'python train.py']): neither is
    models()                # ['out/quickstart', 'out/quickstart_sft', ...]

It is for prepare.py and plot.py, too, so it needs no torch.
"""
import json, os, pathlib, shlex

# The models that scripts start from, and those of run.sh: the stage that each one comes from.
STAGES = {'out/base': 'base', 'out/quickstart': 'base', 'out/sft': 'sft',
          'out/quickstart_sft': 'sft'}


def knows_messages(folder):
    """Does the tokenizer in a folder have the tokens that frame a message? Those of single bytes
    or characters of one text have none, and sft.py refuses a model with such a tokenizer."""
    path = pathlib.Path(folder, 'tokenizer.json')
    return path.exists() and '"<|im_start|>"' in path.read_text(encoding='utf-8', errors='replace')


def models(stage=None):
    """Return the folders in out/ that hold a model which writes text: of any stage, or only those
    of `stage` that the next stage can start from. Those in STAGES come first."""
    found = []
    for path in sorted(pathlib.Path('out').glob('*/config.json')):
        try:
            config = json.loads(path.read_bytes())
        except ValueError:          # half written
            continue
        # Other objectives fill gaps, and a reward model scores answers.
        writes = config.get('objective', 'clm') == 'clm' and config.get('loss_type') != 'rm'
        is_saved = any((path.parent / name).exists() for name in ('best.pt', 'last.pt'))
        fits = stage is None or config.get('stage', 'base') == stage and knows_messages(path.parent)
        if writes and is_saved and fits:
            found.append(path.parent.as_posix())
    return [name for name in STAGES if name in found] + [name for name in found
                                                         if name not in STAGES]


def unused(path):
    """Return path, or path_2, path_3, ..., the first one at which there is nothing yet."""
    names = (f'{path}_{i}' if i > 1 else path for i in range(1, 10_000))
    return next(name for name in names if not os.path.exists(name))


def flag(name, value, default):
    """Return ' --name=value', or '' for the default."""
    return '' if value == default else f' --{name}={shlex.quote(value)}'


def reach(path):
    """Return the folder that does for a default one, and the commands that make it, [] if it is
    there. The commands write only where nothing is."""
    if path in ('out/base', 'out/sft') and (there := models(STAGES[path])):
        return there[0], []
    if (path == 'data/quickstart' and os.path.exists(f'{path}/train.bin')
            and knows_messages(path)):
        return path, []
    if path in ('data/sft', 'data/pairs') and os.path.exists(f'{path}/train.jsonl'):
        return path, []
    folder = unused(path)
    return folder, steps_to(path, folder)


def steps_to(path, folder):
    """Return the commands that make in `folder` what a default folder, path, has by default."""
    out = flag('out_dir', folder, path)
    if path == 'data/quickstart':
        return [f'python prepare.py{out}']
    if path == 'data/sft':
        return [f'python prepare.py --kind=sft{out}']
    if path == 'out/base':
        data, steps = reach('data/quickstart')
        return [*steps, f'python train.py{flag("data_dir", data, "data/quickstart")}{out}']
    if path == 'out/sft':
        base, steps = reach('out/base')
        data, more = reach('data/sft')
        return [*steps, *more, f'python sft.py{flag("init_from", base, "out/base")}'
                f'{flag("data_dir", data, "data/sft")}{out}']
    # The pairs are the answers of a model, judged by their tests.
    model, steps = reach('out/sft')
    ckpt = shlex.quote(model)
    return [*steps, f'python eval.py --ckpt={ckpt} --tasks=problems --splits=review '
            '--n_problems=250 --num_samples=8 --allow_code_execution=True '
            f'--out={ckpt}/mined/eval.json',
            f'python prepare.py --kind=preference --source={ckpt}/mined/samples.jsonl '
            f'--prefer=both --dedup=exact{out}']


def instead_of(path, name):
    """Return what to do if there is no model at path. name: the flag that has the path, or ''."""
    path = os.path.normpath(path)
    there = models(STAGES.get(path) if name == 'init_from' else None)
    if there:
        more = f'{", ".join(there[1:6])}{", ..." if len(there) > 6 else ""}'
        return (f'give one that does: {name and f"--{name}="}{shlex.quote(there[0])}'
                f'{more and f" (or {more})"}')
    if path in ('out/base', 'out/sft'):
        return f'run: {" && ".join(steps_to(path, path))}'
    return ('give a checkpoint or a folder of a run: bash run.sh makes out/quickstart and '
            'out/quickstart_sft')
