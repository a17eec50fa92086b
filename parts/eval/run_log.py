"""
The log of a run: what train.py, sft.py, dpo.py, rl.py and eval.py have written into its folder.

    run = read_run('out/quickstart')                    # finished, or still running
    run['rows'][-1]                                     # {'step': 500, 'val_loss': 3.92, ...}
    as_expected(run)                                    # {'val_loss': (3.92, 3.85, 4.2)}

A line may be half written, and files may not be there yet: what is missing is left out.
"""
import ast, contextlib, json, math, pathlib
import numpy as np

PRESETS = pathlib.Path(__file__).parents[2] / 'config'


def text_of(path):
    return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''


def object_of(text):
    """Return the object in a text of JSON; {} if the text is half written or has none."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


def objects_in(path):
    """Return the objects in a file that has one on each line."""
    return [*filter(None, map(object_of, text_of(pathlib.Path(path)).splitlines()))]


def row_of(metrics):
    """Return a row of metrics.jsonl with the fraction of its time that waits for data."""
    # JSON has no nan: null stands for it, and for what could not be measured.
    row = {key: math.nan if value is None else value for key, value in metrics.items()}
    if 'data_s' in row and 'dt' in row:
        row['data_share'] = row['data_s'] / row['dt']
    return row


def valid_rows(rows):
    """Return the rows of a metrics.jsonl that count, in the order of their steps.

    A trainer only appends, so a run that was killed and resumed has some steps twice. The last row
    of a step counts. When steps go back, what lies behind them was lost with the killed run: of
    10 20 30 20 40, the rows 10 20' 40 remain. A step and its evaluation are two rows."""
    kept = {}
    newest = 0
    for row in rows:
        step = row.get('step')
        if step is None or 'event' in row:      # older logs have notes for people between the rows
            continue
        if step < newest:
            kept = {key: old for key, old in kept.items() if key[0] <= step}
        newest = step
        kept[step, any(name.startswith('val_') for name in row)] = row
    return [kept[key] for key in sorted(kept)]


def read_scores(path):
    """Return the pass rates in a file of eval.py, as rows of the steps whose checkpoints were
    evaluated; not those of checkpoints in other folders."""
    home = path.parent.resolve()
    problems = object_of(text_of(path)).get('tasks', {}).get('problems', {})
    scores = problems.get('series', [problems])
    return [{'step': score['step'], 'pass_rate': score['pass@1']} for score in scores
            if score.get('step') is not None
            and home.name in pathlib.Path(score.get('ckpt', home)).parts]


def read_run(folder):
    """Return what is on the disk now: the run's name, stage and title, the rows of metrics.jsonl
    and their curves, the config, the last step and the last sample."""
    home = pathlib.Path(folder)
    rows = [*map(row_of, valid_rows(objects_in(home / 'metrics.jsonl')))]
    scores = sum(map(read_scores, sorted(home.glob('eval*.json'))), [])
    rows = sorted(rows + scores, key=lambda row: row['step'])

    # {metric: (steps, values)} of the metrics that have two numbers or more, and not only zeros
    curves = {}
    for key in sorted({key for row in rows for key in row}):
        points = [(row['step'], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
        if len(points) > 1 and any(value for _, value in points):
            curves[key] = np.array(points, dtype=float).T

    config, data = (object_of(text_of(home / f'{name}.json')) for name in ('config', 'data'))
    config['vocab_size'] = config.get('vocab_size') or data.get('vocab_size')
    if 0 < (config.get('warmup_steps') or 0) < 1:       # a part of max_steps
        config['warmup_steps'] *= config['max_steps']
    if scores:
        config['pass@1'] = max(scores, key=lambda row: row['step'])['pass_rate']
    last_sample = ('\n' + text_of(home / 'samples.txt')).split('\n--- step ')[-1]
    sample = last_sample.partition('\n')[2].strip('\n')     # without the rest of its head line
    step = rows[-1]['step'] if rows else 0
    end = config.get('max_steps') or step or 1
    last_line = text_of(home / 'train.log').rstrip('\n').rpartition('\n')[2]
    # data.json of a fine-tuned model is about the text of its base; a stream is read once.
    reads_bins = 'stage' not in config and not config.get('streaming')
    return {'name': folder, 'stage': config.get('stage', 'base'), 'rows': rows,
            'title': f'{folder} (step {step:,} of {end:,})', 'end': end, 'curves': curves,
            'config': config, 'sample': sample, 'stopped': last_line.startswith('stopped at step'),
            'data_tokens': data.get('tokens', {}).get('train') if reads_bins else None}


def expected(preset):
    """Return what a config file of this project says in _expect: {'val_loss': (3.85, 4.2)}, or {}.

    The folder of a run may come from a stranger, so only the name of its preset counts, the file is
    ours, and nothing in it is executed."""
    path = PRESETS / pathlib.Path(str(preset or '')).name
    if path.is_file():
        for node in ast.parse(text_of(path)).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_expect':
                return ast.literal_eval(node.value)
    return {}


def as_expected(run):
    """Return {metric: (value at the end, low, high)} of what the preset of a run expects. It is {}
    before the end, and for settings that are not the preset's."""
    ends = {name: row[name] for row in run['rows'] if row['step'] == run['end'] for name in row}
    ranges = expected(run['config'].get('preset'))
    return {name: (ends[name], *ranges[name]) for name in ranges
            if math.isfinite(ends.get(name, math.nan))}


def verdict(name, value, low, high):
    """'val_loss 3.918 is in the usual range, 3.85 to 4.2'"""
    if low <= value <= high:
        return f'{name} {value:.4g} is in the usual range, {low:g} to {high:g}'
    off, way = (low - value, 'low') if value < low else (value - high, 'high')
    return (f'{name} {value:.4g} is {off:.2g} too {way}: the usual range is {low:g} to {high:g}; '
            'see "My numbers differ" in docs/trouble.md')
