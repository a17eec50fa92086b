"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs='out/*'                                   # all

Reads what the trainers and eval.py have written into the folder of each run. Prints in sentences
what is seen in the numbers, and draws the curves. Runs of the same stage share their panels.
Compare their losses only if they have the same tokenizer; bits per byte can be compared between any
two. What to do about a sentence is in docs/trouble.md, under "While it trains".

A run that is still going on is drawn as far as it has come. A resumed run is one curve: of a step
that was logged twice the last row counts.
"""
import glob, math
from configurator import Mistake, configure
import numpy as np
from parts.eval import dashboard, run_log
from parts.train import folders

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote; several: A,B or out/*
out = 'dashboard.png'       # or .svg, .pdf
configure(globals())
if not out.endswith(('.png', '.svg', '.pdf')):
    raise Mistake(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')


# --- 1. sentences: what is seen -------------------------------------------------------------------
# Each sentence says what the rows of metrics.jsonl show, such as {'step': 500, 'loss': 2.1,
# 'tok_s': 21000.0, 'dt': 0.2, 'data_s': 0.01}, so you can check it in the curves. None of them says
# whether a run is good: that depends on what you want from it.
def column(rows, key):
    """Return the numbers under key, of the rows that have one."""
    return np.array([row[key] for row in rows if key in row], dtype=float)


def median(values):
    """Return the median of the finite values. If there are none it is nan, and as every comparison
    with nan is false, nothing is said of it."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else math.nan


def curve(rows, key):
    """Return the steps and the finite values of a metric, float (n,) each."""
    points = [(row['step'], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
    return np.array(points, dtype=float).reshape(-1, 2).T


def level(steps, values, a, b):
    """Return where a noisy curve is at step b, and the standard deviation of its points: the end of
    a line through the last ten that are after step a. Their mean would lag behind a curve that
    falls."""
    last = np.flatnonzero((steps > a) & (steps <= b))[-10:]
    if not len(last):
        return math.nan, math.nan
    line = np.polyfit(steps[last], values[last], min(1, len(last) - 1))
    return np.polyval(line, b), (values[last] - np.polyval(line, steps[last])).std()


def flat_since(steps, values):
    """Return the first index from which on all values are within 1% of each other, or None if they
    are fewer than four or begin in the last quarter of the steps."""
    near = [i for i in range(len(values)) if values[i:].max() <= 1.01 * values[i:].min()]
    long_enough = near and len(values) - near[0] >= 4 and steps[near[0]] <= 0.75 * steps[-1]
    return near[0] if long_enough else None


def times(n):
    return 'once' if n == 1 else f'{n} times'


def busy(train):
    return (f'The machine is busy ({median(column(train, "tok_s")):,.0f} tokens/s) while the model '
            'does not learn.')


def seen_in_machine(train):
    """Yield sentences on the machine. train: the rows that have a loss."""
    # Another program or a hot processor slows a run down, and no loss shows it. So the last quarter
    # of the steps is compared with those before, except for the first one, which compiles.
    n_last = max(3, len(train) // 4)
    speed = column(train[1:], 'tok_s')
    before = median(speed[:-n_last])
    now = median(speed[-n_last:])
    if len(speed) > 10 and now < 0.8 * before:
        yield (f'The speed fell from {before:,.0f} to {now:,.0f} tokens/s in the last quarter of '
               'the log.')

    # At first any disk is slow, because the data are in no cache yet, so only the later half of the
    # steps counts.
    later = train[len(train) // 2:]
    waiting = column(later, 'data_s').sum() / max(1e-9, column(later, 'dt').sum())
    if waiting > 0.2:
        yield f'In the later half of the log, waiting for data took {waiting:.0%} of the time.'


def seen_in_course(run, train):
    """Yield sentences on updates that were refused, and on the end of the run."""
    # Trainers count the updates that they refuse because of a NaN or a spike.
    at, skipped = curve(train, 'skipped')
    more = np.diff(skipped, prepend=0)
    if (more > 0).any():
        n = more[more > 0].sum()
        yield (f'{n:,.0f} update{"s were" if n > 1 else " was"} skipped, the last one by step '
               f'{at[more > 0][-1]:,.0f}.')
    step = train[-1]['step']
    if step < run['end']:
        yield (f'It was stopped at step {step:,} of {run["end"]:,}.' if run['stopped'] else
               f'Its log ends at step {step:,} of {run["end"]:,}: it is still running, or it was '
               'killed.')


def seen_in_loss(run, train):
    """Yield sentences on a model that learns from a loss, and last whether it does not learn."""
    # val_loss is compared with the training loss that measures the same. With --nll_weight, the
    # loss of dpo.py has a second part, and preference_loss is without it.
    key = 'preference_loss' if 'preference_loss' in train[-1] else 'loss'
    lost = [row['step'] for row in train if not math.isfinite(row[key])]
    if lost:
        yield (f'The loss is not a number at {len(lost)} of {len(train)} logged steps, the last '
               f'one is step {lost[-1]:,}.')

    # A jump is compared with the ten logged losses before it, and with how far they usually move.
    at, loss = curve(train, key)
    usual = np.array([median(loss[i - 10:i]) for i in range(10, len(loss))])
    rises = loss[10:] - usual
    jumps = np.flatnonzero(rises > np.maximum(8 * median(abs(rises)), 0.1 * usual))
    jumps = jumps[np.diff(jumps, prepend=-2) > 1]       # what stays high has jumped once
    if len(jumps):
        i = jumps[rises[jumps].argmax()]
        yield (f'The training loss jumps {times(len(jumps))}, farthest at step {at[10 + i]:,.0f}: '
               f'to {loss[10 + i]:.3g} from about {usual[i]:.3g}.')

    evaluations = [row for row in run['rows'] if 'val_loss' in row]
    steps, values = curve(evaluations, 'val_loss')
    if not len(steps) or steps[-1] < evaluations[-1]['step']:
        yield ('The last validation loss is not a number.' if evaluations else
               'There is no validation loss yet.')
        return
    end, last = steps[-1], values[-1]
    best = len(values) - 1 - values[::-1].argmin()      # of equal ones the last
    course = f'The validation loss is {last:.3g} at step {end:,.0f}'
    flat = flat_since(steps, values)
    before = max(0, np.searchsorted(steps, 0.75 * end, 'right') - 1)    # as the last quarter begins
    if flat is not None:
        course += (f': flat since step {steps[flat]:,.0f}, where {len(values) - flat} evaluations '
                   f'are between {values[flat:].min():.4g} and {values[flat:].max():.4g}')
    elif best == len(values) - 1 and (fall := values[before] - last) > 0:
        course += (f', from {values[0]:.3g} at step {steps[0]:,.0f}, and still falling: by '
                   f'{fall:.2g} ({fall / values[before]:.1%}) since step {steps[before]:,.0f}')
    if best < (len(values) - 1 if flat is None else flat):
        course += f'; it was lowest at step {steps[best]:,.0f}, {values[best]:.3g}'
        if last > values[best]:
            course += f', and has risen by {last - values[best]:.2g} since'
    yield f'{course}.'

    # A model that knows nothing gives each of V tokens the probability 1 / V, so its loss is ln V.
    # If the training loss was below ln V, the model has learned, though maybe from other texts than
    # those that it is validated on, or since the last evaluation.
    # dpo.py's losses are of pairs, not of tokens, so ln V says nothing about them.
    vocab_size = None if 'loss_type' in run['config'] else run['config'].get('vocab_size')
    ln_v = math.log(vocab_size or math.inf)
    knows_nothing = values.min() >= ln_v and not median(loss[-10:]) < ln_v - 0.1
    if knows_nothing:
        yield (f'It was never below ln V = {ln_v:.2f}, the loss of guessing among its '
               f'{vocab_size:,} tokens: the model has learned nothing yet.')
    elif last > ln_v - 0.5:
        where = 'above' if last > ln_v + 0.5 else 'near'
        yield (f'It is {where} ln V = {ln_v:.2f}, the loss of guessing among its {vocab_size:,} '
               'tokens.')

    levels, noise = np.array([level(at, loss, a, b) for a, b in zip([-1, *steps], steps)]).T
    gaps = values - levels
    since = len(gaps) - 1
    while since > 0 and gaps[since] > gaps[since - 1]:
        since -= 1
    # The end of a line through ten points is off by about 0.6 standard deviations of the points.
    if gaps[-1] > max(0.01 * last, 1.2 * noise[-1]):
        yield f'The training loss is {gaps[-1]:.2g} below the validation loss.'
        if since < len(gaps) - 3 and gaps[-1] - gaps[since] > 0.02 * last:
            yield ('The validation loss has moved farther above the training loss at each '
                   f'evaluation since step {steps[since]:,.0f}, where the gap was '
                   f'{gaps[since]:.2g}.')

    n_read, n_tokens = train[-1].get('tokens', 0), run['data_tokens']
    if n_tokens and n_read >= 2 * n_tokens:
        yield (f'It has read {n_read:,} tokens, {n_read / n_tokens:.1f} times the {n_tokens:,} of '
               'its training text.')

    half = len(loss) // 2
    stays = len(loss) > 7 and median(loss[-half // 2:]) > 0.99 * median(loss[half:-half // 2])
    is_flat = flat is not None and steps[flat] <= end / 2 and stays
    if knows_nothing and end > (run['config'].get('warmup_steps') or 0) or is_flat:
        yield busy(train)


def seen_in_reward(run, train):
    """Yield sentences on a run of rl.py, whose loss is about 0, whatever happens."""
    steps, rewards = curve(run['rows'], 'val_reward')
    n = max(1, len(train) // 4)
    reward = column(train, 'reward')
    yield (f'The reward of a step is {median(reward[-n:]):.2f} in the last quarter of the log and '
           f'{median(reward[:n]):.2f} in the first (medians).')
    if len(rewards) and not rewards.any():
        yield f'No held-out answer has earned a reward at any of {len(rewards)} evaluations.'
    elif len(rewards):
        best = rewards.argmax()
        yield (f'The held-out reward is {rewards[-1]:.2f} at step {steps[-1]:,.0f}; it was '
               f'{rewards[0]:.2f} at step {steps[0]:,.0f} and highest at step {steps[best]:,.0f}, '
               f'{rewards[best]:.2f}.')
    if not np.isfinite(column(train, 'loss')[-1]):
        yield 'The loss is not a number.'
    # An answer teaches only if it earned more, or less, than other answers to its prompt.
    informative = column(train, 'informative')[-n:]
    if len(informative) > 1 and not informative.any():
        yield f'In the last {n} logged steps, all answers to a prompt earned the same.'
        yield busy(train)


def seen(run):
    """Return the sentences on a run of run_log.read_run."""
    train = [row for row in run['rows'] if 'loss' in row]
    if not train:
        return ['No step is logged yet.']
    of_model = seen_in_reward if run['config'].get('stage') == 'rl' else seen_in_loss
    sentences = [f'At its end, {run_log.verdict(name, *numbers)}.'
                 for name, numbers in run_log.as_expected(run).items()]
    sentences += [*of_model(run, train), *seen_in_course(run, train), *seen_in_machine(train)]
    if 'pass@1' in run['config']:
        sentences.append(f'It solves {run["config"]["pass@1"]:.1%} of the problems that eval.py '
                         'asked (pass@1).')
    return sentences


# --- 2. panels: what is drawn, and how it looks if all is well ------------------------------------
# A panel is a title, a line of text that is printed below it, and metrics of metrics.jsonl:
#     ('right order', '% of the pairs: rises from 50', 'val_accuracy', 'accuracy')
# The first metric, val_accuracy, becomes a thick line, because it is the one to watch. The others
# are thin, and the text may name them behind "thin:". The program looks only at the first character
# of the text: % says that the metrics are fractions, so 0.25 is drawn as 25. The name of a metric
# may be a pattern: val_.+_bpb stands for val_web_bpb, val_code_bpb and all others of a mixture.
LOSS = ('loss', 'nats per token: falls, ever slower', 'val_loss', 'loss')
GRADIENT = ('gradient norm', 'before it is clipped: few spikes', 'grad_norm')
MODEL = {
    'base': [
        LOSS,
        ('bits per byte', 'falls; thin: by source', 'val_bpb', r'val_.+_bpb'),
        ('answers that pass', '%: rises', 'pass_rate'),
        GRADIENT,
        ('learning rate', 'as planned: up, then down', 'lr')],
    'sft': [
        LOSS,
        ('bits per byte', 'of the base data: a rise is forgetting', 'base_bpb'),
        ('answers that pass', '%: rises', 'pass_rate'),
        GRADIENT],
    'dpo': [
        ('margin', 'lead of the better answer: rises', 'val_margin', 'margin'),
        ('right order', '% of the pairs: rises from 50', 'val_accuracy', 'accuracy'),
        ('preference loss', 'nats: falls, of dpo from ln 2', 'val_loss', 'preference_loss'),
        ('log p - log p_ref', 'of an answer, in nats: near 0', 'val_kl', 'kl')],
    'rl': [
        ('reward', 'mean of the answers: rises', 'val_reward', 'reward'),
        ('informative', '% of prompts that teach: never 0', 'informative'),
        ('length', 'tokens of an answer: steady', 'val_length', 'length'),
        ('entropy', 'nats per token: not 0; thin: KL', 'entropy', 'kl'),
        ('clipped', '% of the tokens: a few', 'clip_fraction')]}
MACHINE = [
    ('step time', 'seconds: flat', 'dt'),
    ('speed', 'tokens per second: flat', 'tok_s'),
    ('memory', 'MB: flat', 'memory_mb'),
    ('waits', '% of the time, for data: near 0', 'data_share'),
    ('GPU', '% of its peak: 30 or more', 'mfu'),
    ('skipped', 'updates: none', 'skipped')]

# --- 3. read, say, draw ---------------------------------------------------------------------------
# run_log.read_run() returns a dict with these among others:
#     rows        of metrics.jsonl: [{'step': 10, 'loss': 5.1}, {'step': 20, 'val_loss': 4.9}, ...]
#     config      config.json. A warmup_steps below 1, which is a part of max_steps, is already in
#                 steps. If there is an eval.json, 'pass@1' is its result for the latest checkpoint.
#     end         max_steps; if a preset says in _expect what is usual there, a sentence compares
#     stopped     whether train.log ends with Ctrl-C or SIGTERM
#     data_tokens tokens of the training text of train.py, or None
all_runs = []
for pattern in runs.split(','):
    found = [run_log.read_run(folder.rstrip('/'))
             for folder in sorted(glob.glob(pattern.strip())) or [pattern.strip()]]
    found = [run for run in found if run['rows']]       # out/* may be other files, too
    if not found:
        there = [path.rpartition('/')[0] for path in sorted(glob.glob('out/*/metrics.jsonl'))]
        raise Mistake(f'{pattern}/metrics.jsonl is missing or has no complete line yet; ' + (
            f'give one that has: --runs={",".join(there)}' if there else
            f'make a run: {" && ".join(folders.steps_to("out/base", "out/base"))}'))
    all_runs += [run for run in found if run['name'] not in [other['name'] for other in all_runs]]
for run in all_runs:
    run['seen'] = seen(run)
for run in all_runs:
    print('\n  '.join([f'{run["title"]}:', *run['seen']]))
dashboard.draw(out, all_runs, MODEL, MACHINE)
print(f'{out} is written')
