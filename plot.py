"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart                        # a run that is finished, or still going on
    python plot.py --runs=out/quickstart,out/shakespeare_cpu --out=both.png

Reads metrics.jsonl, config.json, data.json and samples.txt of each run. Writes the picture, and prints a
verdict on each run. The two halves fail separately: a run can be fast and stable and learn nothing.

You should see thin lines for raw figures and thick ones for smoothed figures, the phases of the learning
rate as shades, and events (spike, skip, rollback, resume) as marks at the foot of the loss and as hairlines
everywhere. The figures of the first step are not scaled for: it compiles and allocates. A panel whose metric
no run has logged is left out.

This is the only script that needs matplotlib: pip install matplotlib
"""
import json, math, os, textwrap, time, warnings
import numpy as np
from configurator import configure

# --- settings -----------------------------------------------------------------------------------------------
runs = 'out/quickstart'     # folders that train.py wrote, comma-separated; the first gives the phases
out = 'dashboard.png'       # or .svg, .pdf
smoothing = 0.02            # width of the running mean over a curve, as a share of the run; 0 = off
dpi = 100                   # of a picture of 16 x 10 inches
config = configure(globals())

if not out.endswith(('.png', '.svg', '.pdf')):
    raise ValueError(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')
if runs.count(',') > 5:
    raise ValueError(f'runs names {runs.count(",") + 1} folders, more than the 6 that colours tell apart; '
                     'draw several pictures, each with an --out of its own')
if not 0 <= smoothing <= 1 or not 20 <= dpi <= 1000:
    raise ValueError(f'smoothing={smoothing} must be between 0 and 1, dpi={dpi} between 20 and 1000; try '
                     '--smoothing=0.02 --dpi=100')


# --- the verdict --------------------------------------------------------------------------------------------
def column(rows, key):
    """The figures under key, nan where there is none."""
    return np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def middle(values, at_least=1):
    """The median, nan of fewer than at_least finite values: no comparison with nan is true."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) >= at_least else math.nan


def verdict(metrics, config):
    """(systems, model, sentence): two times 'healthy', 'unhealthy' or 'unknown'; then why, and what to do.

    metrics: the lines of metrics.jsonl, as dicts; config: the run's, vocab_size filled in where it is known.
    The thresholds are rules of thumb, well outside what healthy runs did here."""
    train, evals = ([m for m in metrics if key in m] for key in ('loss', 'val_loss'))
    if not train:
        return 'unknown', 'unknown', 'too early to tell: no step is logged. To do: look again in a minute.'
    step, half = train[-1]['step'], len(train) // 2
    max_steps, warmup = config.get('max_steps') or step, config.get('warmup_steps') or 0
    early = step <= warmup + 0.1 * max_steps

    # the engine: its last quarter against what came before; the first step compiles, so it does not count
    speed, dt = column(train[1:], 'tok_s'), column(train[half + 1:], 'dt')
    quarter = max(3, len(speed) // 4)
    was, now = middle(speed[:-quarter], 8), middle(speed[-quarter:])
    usual, slow = middle(dt, 8), np.percentile(dt, 90) if len(dt) else math.nan
    waits = [m for m in train[half:] if m.get('data_s') is not None]
    waiting = column(waits, 'data_s').sum() / max(1e-9, column(waits, 'dt').sum())
    skips = np.nan_to_num(np.diff(column(train, 'skipped'), prepend=0)[half:])      # in each log interval
    in_a_row = (skips >= 3).any() or ((skips[1:] > 0) & (skips[:-1] > 0)).any()
    evaluating = middle(column(evals, 'eval_share')[-1:])
    engine = [
        (now < 0.8 * was, f'throughput fell from {was:,.0f} to {now:,.0f} tok/s',
         'look for other processes, swapping, a hot device, slow disks'),
        (now >= 0.8 * was and slow > 1.5 * usual, f'one step in ten takes {slow / usual:.1f} times the usual',
         'look for other processes, slow saving, a loader that stalls'),
        (waiting > 0.2, f'{waiting:.0%} of the time is waiting for data',
         'move the data to a local disk or tokenise them beforehand'),
        (in_a_row, f'{skips.sum():.0f} updates were skipped lately, several in a row',
         'resume with a lower learning_rate, grad_clip=1.0 or dtype=float32'),
        (not early and evaluating > 0.2, f'evaluating takes {evaluating:.0%} of the time',
         'raise eval_interval')]

    # the course: judged from the end of the warm-up on, by the validation loss where there is enough of it
    warm, after = ([m for m in rows if m['step'] > warmup] for rows in (train, evals))
    loss, val = column(train, 'loss'), column(after, 'val_loss')
    broken = not np.isfinite([*loss[-1:], *val[-1:]]).all() or (~np.isfinite(loss[half:])).sum() >= 3
    recent = middle(loss[-max(1, len(loss) // 10):])
    ln_v = math.log(config['vocab_size']) if config.get('vocab_size') else \
        next((m['val_loss'] for m in evals if m['step'] == 0), math.nan)        # what an untrained model has
    stuck = recent > ln_v - 0.5
    name, curve = ('validation', val) if len(val) >= 4 else \
        ('training', np.array([middle(part) for part in np.array_split(column(warm, 'loss'), 8)]))
    curve = curve[np.isfinite(curve)] if len(val) >= 4 or len(warm) >= 16 else curve[:0]
    first, second = np.array_split(curve, 2)
    flat = len(curve) >= 4 and second.min() > 0.99 * first.min()
    best = after[int(np.nanargmin(val))] if np.isfinite(val).any() else {'step': 0, 'val_loss': math.nan}
    final = val[-1] if len(val) else math.nan
    rising = len(val) >= 4 and min(val[-2:]) > 1.01 * best['val_loss']
    then, lately = (middle(column([m for m in train if end - max_steps / 10 < m['step'] <= end], 'loss'))
                    for end in (best['step'], step))
    memorising = rising and lately < 0.99 * then
    rise = f'validation loss rose from {best["val_loss"]:.2f} at step {best["step"]:,} to {final:.2f}'
    norms = column(warm, 'grad_norm')
    norm_was, norm_now = middle(norms[:len(norms) // 2], 5), middle(norms[-max(3, len(norms) // 4):])
    repeats = middle(column(evals, 'repetition')[-1:])
    rollbacks = sum(m.get('event') == 'rollback' and m['step'] > step / 2 for m in metrics)
    course = [
        (broken, 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0, use '
         'dtype=bfloat16 or float32, look at the batch where it began'),
        (rollbacks >= 2, f'it was rolled back {rollbacks} times', 'lower learning_rate')]
    course += [] if early else [
        (stuck, f'the loss, {recent:.2f}, is still near ln V = {ln_v:.2f}, which is guessing', 'check the '
         'size of the data set, the learning-rate schedule, the gradient norms and the size of the model'),
        (memorising, f'{rise} while training loss fell from {then:.2f} to {lately:.2f}: it is memorising',
         'use best.pt; then more data, fewer steps or dropout=0.1'),
        (rising and not memorising, f'{rise}, and training loss did not fall: a slow drift up',
         'look at the order of the data and at the precision; resume with a lower learning_rate'),
        (flat and not stuck and not rising, flat and f'{name} loss is flat: {first.min():.2f} in the first '
         f'half of the way, {second.min():.2f} in the second',
         'raise learning_rate if it is low; else more varied data or a larger model'),
        (norm_now > 3 * norm_was, f'gradient norms grew from {norm_was:.2g} to {norm_now:.2g}',
         'lower learning_rate, keep grad_clip=1.0'),
        (repeats >= 0.9, f'samples repeat themselves ({repeats:.0%})',
         'read samples.txt, look for duplicates in the data')]

    found = [(why, do) for wrong, why, do in engine + course if wrong]
    systems = 'unhealthy' if any(wrong for wrong, *_ in engine) else 'healthy'
    model = 'unhealthy' if any(wrong for wrong, *_ in course) else 'unknown' if early else 'healthy'
    if not found:
        found = [(f'{column(train, "tok_s")[-1]:,.0f} tok/s, ' + (
            f'validation loss {final:.2f}' if len(val) else f'training loss {loss[-1]:.2f}'),
            'let it run' if step < max_steps else 'measure it with eval.py and read what it writes')]
    reasons, advice = zip(*found)
    return systems, model, (f'operationally {systems}, scientifically '
                            f'{"too early to tell" if model == "unknown" else model}: {"; ".join(reasons)}. '
                            f'To do: {"; ".join(advice)}.')


# --- read ---------------------------------------------------------------------------------------------------
def read_json(*path):
    try:
        with open(os.path.join(*path), encoding='utf-8') as f:
            return json.load(f)
    except (OSError, ValueError):               # older runs lack some, and one may be being written
        return {}


def read_run(folder):
    """What is on disk now, maybe in the middle of a line."""
    path = os.path.join(folder, 'metrics.jsonl')
    if not os.path.exists(path):
        raise ValueError(f'{folder} holds no run, it has no metrics.jsonl; make one with python train.py '
                         f'--out_dir={folder}, or name another folder: --runs=out/quickstart')
    rows, events, broken = [], [], 0
    with open(path, encoding='utf-8', errors='replace') as f:
        for line in f:
            try:
                row = json.loads(line)
                step = row['step'] + 0          # a number
            except (ValueError, KeyError, TypeError):
                broken += line.endswith('\n')   # without it, it is still being written
                continue
            while 'event' not in row and rows and (rows[-1]['step'] > step or (
                    rows[-1]['step'] == step and ('loss' in rows[-1]) == ('loss' in row))):
                rows.pop()                      # the run went back to a checkpoint: the new course counts
            row |= {f'val_bpb {k}': v for k, v in (row.get('val_bpb_by_source') or {}).items()}
            if row.get('data_s') is not None and row.get('dt'):
                row['data_share'] = row['data_s'] / row['dt']
            (events if 'event' in row else rows).append(row)
    if broken:
        print(f'{path}: {broken} lines cannot be read and are left out')
    tokens, run_config, sample = read_json(folder, 'tokenizer.json'), read_json(folder, 'config.json'), ''
    run_config['vocab_size'] = run_config.get('vocab_size') or read_json(folder, 'data.json').get(
        'vocab_size', len(tokens.get('vocab', [])) + len(tokens.get('special_tokens', [])))
    if os.path.exists(os.path.join(folder, 'samples.txt')):
        with open(os.path.join(folder, 'samples.txt'), encoding='utf-8', errors='replace') as f:
            sample = ('\n' + f.read()).split('\n--- step ')[-1].partition('\n')[2].strip('\n')
    return {'name': folder, 'rows': rows, 'events': events, 'config': run_config, 'sample': sample,
            'age': time.time() - os.path.getmtime(path)}


read = [read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
for run in read:
    run['systems'], run['model'], run['sentence'] = verdict(run['rows'] + run['events'], run['config'])
    last, end = run['rows'][-1]['step'] if run['rows'] else 0, run['config'].get('max_steps') or 0
    run['where'] = f'step {last:,}' + f' of {end:,}' * (end > 0) \
        + f', {run["age"] / 60:,.0f} min ago' * (last < end)
    print(f'{run["name"]} ({run["where"]}): {run["sentence"]}')
if not any(run['rows'] for run in read):
    raise ValueError(f'{runs}: metrics.jsonl has no complete line yet, so there is nothing to draw; run this '
                     'again when train.py has logged its first step')

# --- draw: the page -----------------------------------------------------------------------------------------
try:        # here, so that --help and the verdict do without
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
    from matplotlib.patches import FancyBboxPatch
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
except ImportError as e:
    raise ValueError(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
matplotlib.use('Agg')                           # no window, so no screen is needed
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold characters that the font does not
INK, GREY, GRID, CARD = '#22272e', '#6b7480', '#e7eaee', '#f5f6f8'
DOTTED, DASHED = (0, (1, 2)), (0, (4, 2))
COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9']    # Okabe & Ito: for all eyes
MARKS = {'spike': '^', 'skip': 'x', 'rollback': '<', 'resume': '>', 'drift': 'd', 'plateau': 's',
         'stuck': 'o'}
matplotlib.rcParams.update({
    'font.size': 8.5, 'text.color': INK, 'text.parse_math': False, 'axes.edgecolor': '#b8bfc8',
    'axes.linewidth': 0.6, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True,
    'axes.grid': True, 'grid.color': GRID, 'grid.linewidth': 0.6, 'xtick.color': GREY, 'ytick.color': GREY,
    'xtick.major.size': 0, 'ytick.major.size': 0, 'xtick.minor.size': 0, 'ytick.minor.size': 0,
    'lines.solid_capstyle': 'round', 'legend.frameon': False, 'legend.labelcolor': GREY})
for run, colour in zip(read, COLOURS):
    run['colour'] = colour
fig = Figure(figsize=(16, 10), dpi=dpi, facecolor='white')
drawn = [run for run in read if run['rows']]
last_step = max(run['rows'][-1]['step'] for run in drawn)


def words(parts, x, y, corner, where, size=9.5):
    """(text, colour, weight) after one another on one line, with this corner of theirs at (x, y)."""
    boxes = [TextArea(text, textprops={'color': colour, 'weight': weight, 'size': size})
             for text, colour, weight in parts]
    return AnchoredOffsetbox(corner, child=HPacker(children=boxes, pad=0, sep=6), pad=0, borderpad=0,
                             frameon=False, bbox_to_anchor=(x, y), bbox_transform=where)


def note(ax, x, y, text, **how):
    ax.annotate(text, (x, y), xytext=(0, 2), textcoords='offset points', color=GREY, fontsize=7.5, **how)


def known(run, key):
    """(steps, figures) of the lines that have one."""
    rows = [row for row in run['rows'] if isinstance(row.get(key), (int, float))]
    return column(rows, 'step'), column(rows, key)


def dress(ax, title, values=()):
    """What every panel has: title, the last figures where there is room, phases, events."""
    box = ax.get_position()
    ax.set_title(title, loc='left', fontsize=9.5, pad=5)
    if values and 0.075 * (len(title) + sum(len(text) + 1 for text, *_ in values)) < 16 * box.width:
        ax.add_artist(words(values, 1, 1 + 0.006 / box.height, 'lower right', ax.transAxes))
    warmup, end = (drawn[0]['config'].get(k) or 0 for k in ('warmup_steps', 'max_steps'))
    for name, a, b, shade in [('warm-up', 0, warmup, '#fdf4e1'), ('main', warmup, (warmup + end) / 2, 'none'),
                              ('decay', (warmup + end) / 2, end, '#ebf2f9')]:
        b = min(b, last_step)
        if a < b:                               # decay: where the cosine is below half
            ax.axvspan(a, b, facecolor=shade, edgecolor='none', zorder=0)
            if title.startswith(('loss', 'step time')) and (a == 0 or (b - a) * 16 * box.width > last_step):
                ax.text((a + b) / 2 if a else 0.006 * last_step, 0.98, name, ha='center' if a else 'left',
                        va='top', color=GREY, fontsize=7.5, transform=ax.get_xaxis_transform())
    for run in drawn:
        ax.vlines(column(run['events'], 'step'), 0, 1, color=run['colour'], linewidth=0.6,
                  alpha=min(0.35, 5 / max(1, len(run['events']))), transform=ax.get_xaxis_transform())
    ax.set_xlim(0, max(1, last_step))
    ax.xaxis.set_major_locator(MaxNLocator(min(8, int(36 * box.width)), integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(lambda x, _: f'{x / 1000:g}k' if x and last_step >= 10_000 else f'{x:g}')


def smooth(y):
    """A running mean over the figures that are numbers, twice; its window shrinks towards both ends."""
    i = np.arange(len(y))
    half = np.minimum(np.minimum(i, i[::-1]), math.ceil(smoothing * len(y) / 2))
    for _ in range(2):
        good = np.isfinite(y)
        sums, counts = (np.append(0, np.cumsum(a)) for a in (np.where(good, y, 0), good))
        n = counts[i + half + 1] - counts[i - half]
        y = np.where(n > 0, (sums[i + half + 1] - sums[i - half]) / np.maximum(n, 1), math.nan)
    return y


def panel(ax, title, keys, form, scale=1, low='zero', limit=None, limit_is='too much'):
    """The first metric of all runs; thinner, and with their names at the ends of the lines, the other ones.
    keys: {key: name}. low: where the axis begins: zero, fit (a bit below the lowest figure) or log."""
    values, seen, ends = [], [], []
    for run in drawn:
        for i, (key, name) in enumerate(keys.items()):
            x, y = known(run, key)
            y = y * scale
            if len(y) > 300:
                ax.plot(x, y, color=run['colour'], linewidth=0.6, alpha=0.25)
            ax.plot(x, smooth(y) if len(y) > 300 else y, color=run['colour'], linewidth=0.9 if i else 1.6,
                    alpha=0.7 if i else 1, linestyle=DASHED if key == 'parse_rate' else '-',
                    marker='' if i or len(x) > 15 else '.')
            seen += [*(y[1:] if len(y) > 3 else y)]     # the first step is an exception
            if len(y) and i == 0:
                values.append((form.format(y[-1]), run['colour'], 'bold'))
            if len(y) and len(keys) > 1 and run is drawn[0]:
                ends.append((y[-1], name))
    seen = [y for y in seen if math.isfinite(y)]
    lowest, highest = min(seen, default=0), max(seen, default=0)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=title.startswith('updates')))
    ax.yaxis.set_major_formatter(lambda y, _: f'{y:,.10g}')
    if not seen:
        ax.text(0.5, 0.45, 'n/a', transform=ax.transAxes, ha='center', color=GREY, fontsize=12)
        ax.set_yticks([])
    elif low == 'log' and lowest > 0:
        ax.set_yscale('log')
        ax.set_ylim(lowest / 1.3, highest * 1.3)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        ax.yaxis.set_major_formatter(lambda y, _: f'{y:g}')
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        bottom = lowest - 0.1 * (highest - lowest) if low == 'fit' else min(0, lowest)
        ax.set_ylim(bottom, bottom + (1.15 * (highest - bottom) or 1))
    if limit is not None:
        ax.axhline(limit, color=GREY, linewidth=1.2, linestyle=DOTTED)
        note(ax, 0.995, limit, limit_is, xycoords=ax.get_yaxis_transform(), ha='right', annotation_clip=True)
    if ends:                                    # room for the names, and none above another
        left, bottom, width, height = ax.get_position().bounds
        ax.set_position((left, bottom, width - 0.02, height))
        at, (bottom, top) = -1, ax.get_ylim()
        for y, name in sorted(ends):
            at = max((y - bottom) / (top - bottom), at + 0.1)
            ax.text(1.015, at, name, transform=ax.transAxes, va='center', color=GREY, fontsize=7.5)
    dress(ax, title, values)


def draw_loss(ax):
    values, seen = [('validation', GREY, 'normal')], []
    for run in drawn:
        (x, loss), (at, val) = known(run, 'loss'), known(run, 'val_loss')
        ax.plot(x, loss, color=run['colour'], linewidth=0.8, alpha=0.3)
        ax.plot(x, smooth(loss), color=run['colour'], linewidth=1.8)
        ax.plot(at, val, color=run['colour'], linewidth=1, linestyle=DASHED, clip_on=False,
                marker='o' if len(at) < 40 else '', markersize=5, markeredgewidth=1.4, markerfacecolor='w')
        values += [(f'{val[-1]:.3f}', run['colour'], 'bold')] if len(val) else []
        seen += [*smooth(loss), *val]
    seen = [y for y in seen if math.isfinite(y)] or [0, 1]
    low, high = min(seen), max(seen)
    sizes = {run['config']['vocab_size'] for run in drawn} - {0}
    guessing = math.log(max(sizes, default=1))
    if high > 0.5 * guessing:                   # a continued run begins far below: do not squash it
        high = max(guessing, min(high, 1.3 * guessing or high))
        for size in sizes:
            ax.axhline(math.log(size), color=GREY, linewidth=1.2, linestyle=DOTTED)
            note(ax, 0.995, math.log(size), f'ln {size:,} = {math.log(size):.2f}: guessing', ha='right',
                 xycoords=ax.get_yaxis_transform())
    ax.set_ylim(low - 0.12 * (high - low + 0.1), high + 0.14 * (high - low + 0.1))
    legend = [Line2D([], [], color=GREY, linewidth=1.8, label='training'),
              Line2D([], [], color=GREY, linewidth=1, linestyle=DASHED, marker='o', markersize=5,
                     markerfacecolor='white', label='validation')]
    for kind, mark in MARKS.items():
        for run in drawn:
            at = [event['step'] for event in run['events'] if event['event'] == kind]
            ax.plot(at, [0.045] * len(at), mark, color=run['colour'], transform=ax.get_xaxis_transform())
        if any(event['event'] == kind for run in drawn for event in run['events']):
            legend.append(Line2D([], [], color=GREY, linestyle='', marker=mark, label=kind))
    dress(ax, 'loss, nats per token, by step', values)
    ax.legend(handles=legend, loc='upper right', bbox_to_anchor=(1, 0.86), fontsize=8, ncols=2)


def draw_sample(ax):
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title('latest sample', loc='left', fontsize=9.5, pad=5)
    told, box = [run for run in drawn if run['sample']][:3], ax.get_position()
    columns = int(16 * box.width / len(told) / (0.602 * 8 / 72)) - 4            # 8 points, 0.602 wide
    lines = int(9.2 * box.height / (1.3 * 8 / 72))
    for i, run in enumerate(told):
        text = [part for line in run['sample'].expandtabs(4).splitlines()
                for part in textwrap.wrap(line, columns, drop_whitespace=False) or ['']][:lines]
        ax.text(i / len(told) + 0.008, 0.94, '\n'.join(text), transform=ax.transAxes, va='top', fontsize=8,
                family='monospace', linespacing=1.3, color=run['colour'] if len(told) > 1 else INK)


# --- draw: the two dashboards -------------------------------------------------------------------------------
def dashboard(left, width, title, question, key, rows):
    """A card with a title, the verdicts, and rows of panels: (relative height, [(draw, arguments)])."""
    fig.add_artist(FancyBboxPatch((left, 0.015), width, top - 0.015, mutation_aspect=1.6, facecolor=CARD,
                                  boxstyle='round,pad=0,rounding_size=0.008', edgecolor='none', zorder=-1))
    fig.add_artist(words([(title, INK, 'bold'), (question, GREY, 'normal')], left + 0.012, top - 0.014,
                         'upper left', fig.transFigure, 13))
    states = [({'healthy': '●', 'unhealthy': '▲', 'unknown': '○'}[run[key]]
               + f'  {run[key]}' * (len(read) < 3), run['colour'], 'bold') for run in read]
    fig.add_artist(words(states, left + width - 0.012, top - 0.014, 'upper right', fig.transFigure, 10))
    at = top - 0.047
    for share, panels in rows:
        tall, wide = (top - 0.065) * share / sum(share for share, _ in rows), width / len(panels)
        at -= tall
        for i, (draw, arguments) in enumerate(panels):
            draw(fig.add_axes((left + wide * i + 0.034, at + 0.025, wide - 0.05, tall - 0.058)), *arguments)


def in_rows(panels, columns):
    """Of those whose metric some run has."""
    logged = {key for run in drawn for row in run['rows'] for key in row}
    there = [(panel, p) for p in panels if logged & p[1].keys()]
    columns = columns(len(there))
    return [(1, there[i:i + columns]) for i in range(0, len(there), columns)]


sources = {f'val_bpb {name}': name[:10] for run in drawn for row in run['rows']
           for name in row.get('val_bpb_by_source') or {}}
top = 0.975
for run in read:                                # the legend, and what there is to say
    fig.add_artist(words([('━━', run['colour'], 'bold'), (run['name'], INK, 'bold'),
                          (run['where'], GREY, 'normal')], 0.014, top, 'upper left', fig.transFigure, 11))
    for line in textwrap.wrap(run['sentence'], 230, max_lines=2 if len(read) < 4 else 1, placeholder=' ...'):
        top -= 0.02
        fig.text(0.036, top, line, va='top', fontsize=9.5)
    top -= 0.03
dashboard(0.01, 0.385, 'systems', 'is the engine running?', 'systems', in_rows([
    ('step time, ms', {'dt': ''}, '{:,.0f}', 1000),
    ('throughput, tok/s', {'tok_s': ''}, '{:,.0f}'),
    ('waiting for data, %', {'data_share': ''}, '{:.1f}', 100, 'zero', 20),
    ('MFU, % of the peak', {'mfu': ''}, '{:.1f}', 100),
    ('memory, GB', {'memory_mb': ''}, '{:.1f}', 1 / 1024),
    ('saving a checkpoint, s', {'save_s': ''}, '{:.1f}'),
    ('updates skipped so far', {'skipped': ''}, '{:.0f}'),
    ('evaluating, % of time', {'eval_share': ''}, '{:.1f}', 100, 'zero', 20)], lambda n: 1 if n <= 3 else 2))
small = in_rows([
    ('bits per byte', {'val_bpb': 'all', **sources}, '{:.3f}', 1, 'fit'),
    ('gradient norm', {'grad_norm': ''}, '{:.2f}', 1, 'log'),
    ('learning rate', {'lr': ''}, '{:.1e}'),
    ('update / weight', {'update_ratio': ''}, '{:.1e}', 1, 'log', 1e-3, 'usual'),
    ('samples', {'repetition': 'repetition', 'parse_rate': 'parses'}, '{:.2f}')],
    lambda n: 3 if n in (3, 5) else 2)
sample = [(0.9, [(draw_sample, ())])] if any(run['sample'] for run in drawn) else []
dashboard(0.405, 0.585, 'model', 'are we flying to the right place?', 'model',
          [(1.7, [(draw_loss, ())]), *small, *sample])
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2])
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
