"""
A run's folder: read its log and judge it: does the run go well, and does the model improve?

    run = read_run('out/quickstart')                    # finished, or still running
    machine, model, why = verdict(run['rows'] + run['events'], run['config'])
    # 'healthy', 'unhealthy', 'validation loss rises (drift). To do: try --dtype=float32.'
    diagnose(vals, loss, vocab_size, warmup)            # one illness of a loss, or None
"""
import contextlib, json, math, pathlib
import numpy as np


# --- read -----------------------------------------------------------------------------------------
def text_of(path):
    return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''


def object_of(text):
    """The object in a text of JSON; {} if it is half written."""
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return {}


def row_of(line):
    """Return the metrics in a line of metrics.jsonl, and the share of time that waits for data; {}
    if the line is half written."""
    # JSON has no nan: null stands for it, and for what could not be measured.
    row = {key: math.nan if value is None else value for key, value in object_of(line).items()}
    if 'data_s' in row and 'dt' in row:
        row['data_share'] = row['data_s'] / row['dt']
    return row


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
    """Return what is on disk now: its rows and events in metrics.jsonl, its config, its last
    sample. A line may be half written, and files may not be there yet."""
    home = pathlib.Path(folder)
    rows = [*filter(None, map(row_of, text_of(home / 'metrics.jsonl').splitlines()))]
    events = [row for row in rows if 'event' in row]
    scores = sum(map(read_scores, sorted(home.glob('eval*.json'))), [])
    rows = sorted([row for row in rows if 'event' not in row] + scores, key=lambda row: row['step'])

    config, data = (object_of(text_of(home / f'{name}.json')) for name in ('config', 'data'))
    config['vocab_size'] = config.get('vocab_size') or data.get('vocab_size')
    if 0 < (config.get('warmup_steps') or 0) < 1:       # a share of the steps
        config['warmup_steps'] *= config['max_steps']
    if scores:
        config['pass@1'] = max(scores, key=lambda row: row['step'])['pass_rate']
    last_sample = ('\n' + text_of(home / 'samples.txt')).split('\n--- step ')[-1]
    sample = last_sample.partition('\n')[2].strip('\n')     # without the rest of its head line
    return {'name': folder, 'rows': rows, 'events': events, 'config': config, 'sample': sample}


# --- judge ----------------------------------------------------------------------------------------
def column(rows, key):
    """Return the numbers under key, of the rows that have one."""
    return np.array([row[key] for row in rows if key in row], dtype=float)


def middle(values):
    """Return the median of the finite values. Of none it is nan: every comparison is false."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else math.nan


EARLY = 'too early to tell'


def next_step(config):
    """Return what to do after a run that went well."""
    if config.get('objective', 'clm') != 'clm':
        return "see it fill gaps: sample.py --prompt='for i in <|mask|>(10):'"
    if config.get('loss_type') == 'rm':
        return 'let it reward answers: rl.py --reward=FOLDER_OF_THIS_RUN'
    if 'pass@1' in config:
        return 'try the next stage of README.md'
    return 'measure it with eval.py'


def verdict(metrics, config):
    """Return how the machine does and how the model does, each 'healthy', 'unhealthy' or 'too early
    to tell'; then a sentence: why, and what to do. metrics: the rows and events of a run."""
    train = [m for m in metrics if 'loss' in m]
    if not train:
        return EARLY, EARLY, 'no step is logged. To do: look again soon.'
    step = train[-1]['step']
    max_steps = config.get('max_steps') or step
    early = step <= (config.get('warmup_steps') or 0) + 0.1 * max_steps

    # Lists of (why, what to do), one for each thing that is wrong.
    machine = list(engine(train))
    if config.get('stage') == 'rl':         # whose loss is about 0, whatever happens
        course = list(course_of_rl(train, column(metrics, 'val_reward'), early))
        result = f'reward {middle(column(train, "reward")[-5:]):.2f}'
    else:
        course = list(course_of_loss(train, metrics, config, early))
        val_loss = column(metrics, 'val_loss')[-1:]
        result = f'validation loss {val_loss[0]:.2f}' if len(val_loss) else 'not evaluated yet'
    if 'pass@1' in config:
        result += f', pass@1 {config["pass@1"]:.1%}'
        if not early and config['pass@1'] < 0.0005:         # 0.0%
            course.append(('it solves none of the problems (pass@1 0%)',
                           'read samples.jsonl: if the answers have the right form, train longer '
                           'or on easier problems; if not, show it examples (python sft.py)'))

    said = machine + course
    if not course:
        said.append((f'{train[-1]["tok_s"]:,.0f} tok/s, {result}',
                     'let it run' if step < max_steps else next_step(config)))
    model = 'unhealthy' if course else EARLY if early else 'healthy'
    return 'unhealthy' if machine else 'healthy', model, (
        f'{"; ".join(why for why, _ in said)}. To do: {"; ".join(to_do for _, to_do in said)}.')


def diagnose(vals, loss, vocab_size, warmup):
    """Return (event, why, what to do) if something ails a loss, else None. vals: [step, validation
    loss] of each evaluation. loss: of training, now."""
    step, now = vals[-1]
    values = [value for _, value in vals]
    ln_v = math.log(vocab_size or math.inf)         # the loss of a model that knows nothing
    if step >= max(200, 2 * warmup) and now > ln_v - 0.5:
        return 'stuck', f'validation loss {now:.2f} is still near ln V = {ln_v:.2f}', (
            'try a third of the learning rate and three times as much; then give it more data, or '
            'take a larger model')
    if len(vals) < 4:
        return None

    best = min(values)
    a, b, c, d = values[-4:]
    rises = a < b < c < d or min(c, d) > 1.01 * best
    if rises and loss < best:
        return 'memorising', 'validation loss rises above the training loss', (
            'more data, fewer epochs or dropout; best.pt is kept')
    if rises:
        return 'drift', 'validation loss rises', (
            'see the data with --show_batch, try --dtype=float32; with dropout, fewer epochs')

    half = len(values) // 2                         # twice the steps should bring more than 1 %
    first, second = min(values[:half]), min(values[half:])
    if second > 0.99 * first:
        return 'plateau', (f'validation loss is flat: {first:.2f} in the first half of the way, '
                           f'{second:.2f} in the second'), 'a higher or lower rate, or other data'


def engine(train):
    """Yield (why, what to do) for what ails the machine. The last quarter of the steps is compared
    with those before; the first one compiles, so it does not count."""
    n_last = max(3, len(train) // 4)
    speed = column(train[1:], 'tok_s')
    before = middle(speed[:-n_last])
    now = middle(speed[-n_last:])
    if len(speed) > 10 and now < 0.8 * before:
        yield f'throughput fell from {before:,.0f} to {now:,.0f} tok/s', 'stop what else runs'

    later = train[len(train) // 2:]
    waiting = column(later, 'data_s').sum() / max(1e-9, column(later, 'dt').sum())
    if waiting > 0.2:
        yield f'waiting for data takes {waiting:.0%} of time', 'move the data to a fast disk'


def course_of_loss(train, metrics, config, early):
    """Yield (why, what to do) for what ails a model that learns from a loss."""
    # like dpo.py's val_loss without the part of nll_weight
    loss = column(train, 'preference_loss' if 'preference_loss' in train[-1] else 'loss')
    if not np.isfinite([loss[-1], *column(metrics, 'val_loss')[-1:]]).all():
        yield 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0'
    rollbacks = sum(m.get('event') == 'rollback' for m in metrics)
    if rollbacks >= 2:
        yield f'it was rolled back {rollbacks} times', 'lower learning_rate'
    if early:
        return

    warmup = config.get('warmup_steps') or 0
    vals = [(m['step'], m['val_loss']) for m in metrics
            if m['step'] > warmup and math.isfinite(m.get('val_loss', math.nan))]
    recent = middle(loss[-(len(loss) // 10 + 1):])
    illness = vals and diagnose(vals, recent, config.get('vocab_size'), warmup)
    if illness:
        event, why, to_do = illness
        yield f'{why} ({event})', to_do
    repeats = middle(column(metrics, 'repetition')[-1:])
    if repeats >= 0.9:
        yield f'samples repeat themselves ({repeats:.0%})', 'look for duplicates in the data'


def course_of_rl(train, held_out, early):
    """Yield (why, what to do) for what ails a run of rl.py. held_out: val_reward."""
    if not np.isfinite(column(train, 'loss')[-1]):
        yield 'the loss is not a number', 'lower learning_rate'
    informative = column(train, 'informative')
    if len(train) >= 8 and middle(informative[-(len(train) // 4):]) == 0:
        yield ('all answers to a prompt earn the same, so nothing is learned',
               'take easier prompts if the reward is low, harder ones if it is high')
    if not early and len(held_out) and not held_out.any():
        yield ('no held-out answer earned a reward',
               'take easier prompts, or show the model more examples: python sft.py')
    elif not early and len(held_out) > 2:
        first, last = held_out[0], held_out[-1]
        # From 0.9 on little is left to gain, and a hundredth less is chance.
        if last <= first < 0.9 or last < first - 0.05:
            yield (f'the held-out reward went from {first:.2f} to {last:.2f}',
                   'use best.pt and read samples.txt; lower learning_rate, or raise it if kl stays '
                   'near 0')
