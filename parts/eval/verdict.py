"""
A run's folder: read its log and judge it: does the run go well, and does the model improve?

    run = read_run('out/quickstart')                    # finished, or still running
    systems, model, sentence = verdict(run['rows'] + run['events'], run['config'])
    # 'healthy', 'unhealthy' or 'unknown', twice
    diagnose(vals, loss, vocab_size, warmup)            # one illness of a loss, or None; train.py logs it

Copy this file alone: it needs numpy.
"""
import json, math, pathlib
import numpy as np


# --- read ---------------------------------------------------------------------------------------------------
def text_of(path):
    return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''


def read_object(text):
    """The JSON object in a text; {} if there is none, or only a half-written one."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def row_of(line):
    """The metrics in a line of metrics.jsonl, and those that follow from them; {} if it is half written."""
    row = {}
    for key, value in read_object(line).items():
        if value is None and key in ('loss', 'val_loss', 'grad_norm'):
            value = math.nan                    # JSON has no nan
        if isinstance(value, int | float | dict) or key in ('event', 'text'):
            row[key] = value
    if not isinstance(row.get('step'), int | float):
        return {}
    for source, bits in row.get('val_bpb_by_source', {}).items():
        row[f'val_bpb {source}'] = bits
    if 'val_loss' in row and 'val_margin' in row:
        row['val_preference_loss'] = row['val_loss']
    if 'data_s' in row and 'dt' in row:
        row['data_share'] = row['data_s'] / row['dt']
    return row


def is_void(before, row):
    """Whether the run went back to a checkpoint between the two, and took the first one's step again."""
    if before['step'] == row['step']:           # a step may have one row of training and one of evaluation
        return ('loss' in before) == ('loss' in row)
    return before['step'] > row['step']


def read_scores(path):
    """The pass rates in a file of eval.py, as rows of the steps whose checkpoints were evaluated."""
    tasks = read_object(text_of(path)).get('tasks')
    problems = tasks.get('problems') if isinstance(tasks, dict) else None
    if not isinstance(problems, dict):
        return []
    scores = problems.get('series', [problems])
    return [{'step': score['step'], 'pass_rate': score['pass@1']} for score in scores
            if 'pass@1' in score and isinstance(score.get('step'), int)]


def read_run(folder):
    """What is on disk now: its rows and events in metrics.jsonl, its config, its last sample. A line may be
    half written, and files may not be there yet."""
    home = pathlib.Path(folder)
    rows = []
    events = []
    for line in text_of(home / 'metrics.jsonl').splitlines():
        row = row_of(line)
        if 'event' in row:
            events.append(row)
        elif row:
            while rows and is_void(rows[-1], row):
                rows.pop()
            rows.append(row)
    for path in home.glob('eval*.json'):
        rows += read_scores(path)
    rows.sort(key=lambda row: row['step'])

    config = read_object(text_of(home / 'config.json'))
    data = read_object(text_of(home / 'data.json'))
    config['vocab_size'] = config.get('vocab_size') or data.get('vocab_size')
    last_sample = ('\n' + text_of(home / 'samples.txt')).split('\n--- step ')[-1]
    sample = last_sample.partition('\n')[2].strip('\n')             # without the rest of its head line
    return {'name': folder, 'rows': rows, 'events': events, 'config': config, 'sample': sample}


# --- judge --------------------------------------------------------------------------------------------------
def column(rows, key):
    """The figures under key, of the rows that have one."""
    return np.array([row[key] for row in rows if row.get(key) is not None], dtype=float)


def middle(values, at_least=1, percent=50):
    """The median, or another percentile; nan of fewer than at_least finite values: nan > x is False."""
    values = np.array(values)[np.isfinite(values)]
    return np.percentile(values, percent) if len(values) >= at_least else math.nan


def verdict(metrics, config):
    """(systems, model, sentence): twice 'healthy', 'unhealthy' or 'unknown'; then why, and what to do."""
    if config.get('stage') == 'dpo':    # its loss has nll_weight's part, val_loss has not; neither knows ln V
        metrics = [m | {'loss': m.get('preference_loss', m['loss'])} if 'loss' in m else m for m in metrics]
        config = config | {'vocab_size': None}
    train = [m for m in metrics if m.get('loss') is not None]
    if not train:
        return 'unknown', 'unknown', 'too early to tell: no step is logged. To do: look again soon.'
    step = train[-1]['step']
    max_steps = config.get('max_steps') or step
    warmup = config.get('warmup_steps') or 0
    early = step <= warmup + 0.1 * max_steps

    if config.get('stage') == 'rl':         # whose loss is about 0, whatever happens
        course = course_of_rl(train, column(metrics, 'val_reward'))
        figure = f'reward {middle(column(train, "reward")[-5:]):.2f}'
    else:
        course, figure = course_of_loss(train, metrics, config, warmup)
    if early:
        course = course[:2]                 # the others need steps after warm-up
    machine = [row for row in engine(train, metrics, early) if row[0]]
    course = [row for row in course if row[0]]

    systems = 'unhealthy' if machine else 'healthy'
    model = 'unknown' if early else 'healthy'
    if course:
        model = 'unhealthy'
    reasons = [why for _, why, _ in machine + course]
    advice = [to_do for _, _, to_do in machine + course]
    if not reasons:
        reasons = [f'{train[-1]["tok_s"]:,.0f} tok/s, {figure}']
        advice = ['let it run' if step < max_steps else 'measure it with eval.py and read what it writes']
    science = 'too early to tell' if model == 'unknown' else model
    return systems, model, (f'operationally {systems}, scientifically {science}: {"; ".join(reasons)}. '
                            f'To do: {"; ".join(advice)}.')


def diagnose(vals, loss, vocab_size, warmup, name='val_loss', cure='dropout'):
    """(event, why, what to do) if something ails a loss, else None. vals: [step, validation loss] of each
    evaluation. loss: of training, now. name: of vals, in the text. cure: against memorising."""
    step, now = vals[-1]
    values = [value for _, value in vals]
    ln_v = math.log(vocab_size or math.inf)         # the loss of a model that knows nothing
    if step >= max(200, 2 * warmup) and now > ln_v - 0.5:
        return 'stuck', f'{name} {now:.2f} is still near ln V = {ln_v:.2f}', (
            'too little data, a learning rate too low or too high (look at gnorm), or a model too small')
    if len(vals) < 4:
        return None

    best = min(values)
    a, b, c, d = values[-4:]
    rises = a < b < c < d or min(c, d) > 1.01 * best
    if rises and loss < best:
        return 'memorising', f'{name} rises above the training loss', f'more data or {cure}; best.pt is kept'
    if rises:
        return 'drift', 'both losses creep up', 'see the data with --show_batch, or try --dtype=float32'

    half = len(values) // 2                         # twice the steps should bring more than 1 %
    first, second = min(values[:half]), min(values[half:])
    if second > 0.99 * first:
        return 'plateau', (f'{name} is flat: {first:.2f} in the first half of the way, {second:.2f} in the '
                           'second'), 'a higher or lower rate, or other data'


def engine(train, metrics, early):
    """What may be wrong with the machine: (is it so?, why, what to do). The last quarter of the steps against
    those before; the first one compiles, so it does not count."""
    n_last = max(3, len(train) // 4)
    speed = column(train[1:], 'tok_s')
    before = middle(speed[:-n_last], 8)
    now = middle(speed[-n_last:])
    later = train[len(train) // 2:]
    dt = column(later[1:], 'dt')
    slow = middle(dt, 8, percent=90) / middle(dt)
    waiting = column(later, 'data_s').sum() / max(1e-9, column(later, 'dt').sum())
    skips = np.diff(column(train, 'skipped'), prepend=0)[len(train) // 2:]          # in each log interval
    twice = (skips[1:] > 0) & (skips[:-1] > 0)
    evaluating = middle(column(metrics, 'eval_share')[-1:])
    return [
        (now < 0.8 * before, f'throughput fell from {before:,.0f} to {now:,.0f} tok/s',
         'stop what else runs'),
        (slow > 1.5, f'one step in ten takes {slow:.1f} times the usual', 'look at loader and saving'),
        (waiting > 0.2, f'waiting for data takes {waiting:.0%} of time', 'move the data to a fast disk'),
        (not early and evaluating > 0.2, f'evaluating takes {evaluating:.0%}', 'raise eval_interval'),
        (twice.any() or (skips >= 3).any(), f'{skips.sum():.0f} skips, close together',
         'lower learning_rate, or grad_clip=1')]


def course_of_loss(train, metrics, config, warmup):
    """What may go wrong with the model: (is it so?, why, what to do), the first two at any time, the others
    not early in a run; and a figure to show. With fewer than four validation losses after warm-up, eight
    medians of the training loss stand for them."""
    loss = column(train, 'loss')
    numbers = np.isfinite(loss)
    val_is_number = np.isfinite(column(metrics, 'val_loss')[-1:]).all()
    no_number = not numbers[-1] or not val_is_number or (~numbers[len(loss) // 2:]).sum() >= 3
    half = train[-1]['step'] / 2
    rollbacks = len([m for m in metrics if m.get('event') == 'rollback' and m['step'] > half])

    warm = [m for m in train if m['step'] > warmup]
    evaluations = [m for m in metrics if m['step'] > warmup and m.get('val_loss') is not None]
    vals = [(m['step'], m['val_loss']) for m in evaluations if math.isfinite(m['val_loss'])]
    figure = f'validation loss {vals[-1][1]:.2f}' if vals else f'training loss {loss[-1]:.2f}'
    name = 'validation loss'
    if len(vals) < 4:
        name = 'training loss'
        parts = [part for part in np.array_split(warm, 8) if len(part) >= 2]
        vals = [(part[-1]['step'], middle(column(part, 'loss'))) for part in parts]
    cure = 'fewer epochs' if config.get('stage') == 'dpo' else 'dropout'
    recent = middle(loss[-max(1, len(loss) // 10):])
    illness = vals and diagnose(vals, recent, config.get('vocab_size'), warmup, name, cure)
    event, why, to_do = illness or ('', '', '')

    norms = column(warm, 'grad_norm')
    norm_before = middle(norms[:len(norms) // 2], 5)
    norm_now = middle(norms[-max(3, len(norms) // 4):])
    update = middle(column(warm, 'update_ratio'), 5)
    repeats = middle(column(metrics, 'repetition')[-1:])
    return [
        (no_number, 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0'),
        (rollbacks >= 2, f'it was rolled back {rollbacks} times', 'lower learning_rate'),
        (illness, f'{why} ({event})', to_do),
        (norm_now > 3 * norm_before, f'gradient norms grew from {norm_before:.2g} to {norm_now:.2g}',
         'lower learning_rate, keep grad_clip=1.0'),
        (update < 1e-5 or update > 3e-2, f'an update is {update:.0e} of the weights, 1e-3 is usual',
         'raise learning_rate' if update < 1e-5 else 'lower learning_rate'),
        (repeats >= 0.9, f'samples repeat themselves ({repeats:.0%})', 'look for duplicates in the data')
    ], figure


def course_of_rl(train, held_out):
    """What may go wrong in reinforcement learning: (is it so?, why, what to do). held_out: val_reward."""
    n_last = max(1, len(train) // 4)
    entropy = column(train, 'entropy')
    informative = column(train, 'informative')
    entropy_now = middle(entropy[-n_last:])
    entropy_before = middle(entropy[:n_last])
    informative_now = middle(informative[-n_last:])
    informative_before = middle(informative[:n_last])
    best = max(held_out, default=0.0)
    best_later = max(held_out[1:], default=0.0)         # in best.pt
    fell = len(held_out) > 1 and best - held_out[-1] > 0.2 * max(abs(held_out))
    return [
        (not np.isfinite(column(train, 'loss')[-1]), 'the loss is not a number', 'lower learning_rate'),
        (len(train) >= 8 and informative_now == 0,
         'all answers to a prompt earn the same, so nothing is learned',
         'take easier prompts if the reward is low, harder ones if it is high, or a larger num_samples'),
        (fell, f'the held-out reward fell from {best:.2f} to {held_out[-1:].sum():.2f}',
         'use best.pt; lower learning_rate' if best_later == best else 'lower learning_rate'),
        (entropy_now < 0.3 * entropy_before and informative_now < 0.5 * informative_before,
         f'a collapse: entropy fell from {entropy_before:.2g} to {entropy_now:.2g}, informative prompts from '
         f'{informative_before:.0%} to {informative_now:.0%}',
         'use best.pt; lower learning_rate, or raise kl_coef'),
        (len(held_out) > 2 and best_later <= held_out[0] and not fell,
         f'nothing is learned: the held-out reward has not risen above {held_out[:1].sum():.2f}',
         'read samples.txt and the reward; raise learning_rate if clip_fraction and kl stay near 0')]
