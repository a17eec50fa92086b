"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still going on

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a verdict on each,
writes the picture: a colour per run, events as hairlines. A panel of what no run has logged is left out.
"""
import json, math, os, pathlib, textwrap, time, warnings
import numpy as np
from configurator import configure, show

# --- settings ------------------------------------------------------------------------------------------
runs = 'out/quickstart'     # folders that train.py wrote, comma-separated; the first gives the phases
out = 'dashboard.png'       # or .svg, .pdf
config = configure(globals())

if not out.endswith(('.png', '.svg', '.pdf')):
    raise ValueError(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')
if runs.count(',') > 5:
    raise ValueError(f'runs={runs} has more than 6 folders; draw several pictures, each with its --out')
show(config)


# --- the verdict ---------------------------------------------------------------------------------------
def column(rows, key):
    """The figures under key, of the rows that have one."""
    return np.array([row[key] for row in rows if row.get(key) is not None], dtype=float)


def middle(values, at_least=1, percent=50):
    """The median, nan of fewer than at_least finite values: no comparison with nan is true."""
    values = np.array(values)[np.isfinite(values)]
    return np.percentile(values, percent) if len(values) >= at_least else math.nan


def verdict(metrics, config):
    """(systems, model, sentence): twice 'healthy', 'unhealthy' or 'unknown'; then why, and what to do."""
    train, evals = ([m for m in metrics if m.get(key) is not None] for key in ('loss', 'val_loss'))
    if not train:
        return 'unknown', 'unknown', 'too early to tell: no step is logged. To do: look again soon.'
    step, half = train[-1]['step'], len(train) // 2
    max_steps, warmup = config.get('max_steps') or step, config.get('warmup_steps') or 0
    early = step <= warmup + 0.1 * max_steps

    # systems: the last quarter against what came before; the first step compiles, so it does not count
    speed, dt, last = column(train[1:], 'tok_s'), column(train[half + 1:], 'dt'), max(3, len(train) // 4)
    was, now = middle(speed[:-last], 8), middle(speed[-last:])
    slow = middle(dt, 8, percent=90) / middle(dt)
    waiting = column(train[half:], 'data_s').sum() / max(1e-9, column(train[half:], 'dt').sum())
    skips = np.diff(column(train, 'skipped'), prepend=0)[half:]         # in each log interval
    in_a_row = (skips >= 3).any() or ((skips[1:] > 0) & (skips[:-1] > 0)).any()
    evaluating = middle(column(metrics, 'eval_share')[-1:])
    engine = [      # (is it so?, why, what to do)
        (now < 0.8 * was, f'throughput fell from {was:,.0f} to {now:,.0f} tok/s', 'stop what else runs'),
        (slow > 1.5, f'one step in ten takes {slow:.1f} times the usual', 'look at loader and saving'),
        (waiting > 0.2, f'waiting for data takes {waiting:.0%} of time', 'move the data to a fast disk'),
        (not early and evaluating > 0.2, f'evaluating takes {evaluating:.0%}', 'raise eval_interval'),
        (in_a_row, f'{skips.sum():.0f} skips, several in a row', 'lower learning_rate, or grad_clip=1')]

    # model: the validation loss after warm-up where there is enough of it, else the training loss
    loss, warm = column(train, 'loss'), [m for m in train if m['step'] > warmup]
    odd, recent = ~np.isfinite(loss), middle(loss[-max(1, len(loss) // 10):])
    broken = odd[-1] or odd[half:].sum() >= 3 or not np.isfinite(column(evals, 'val_loss')[-1:]).all()
    rollbacks = sum(m.get('event') == 'rollback' and m['step'] > step / 2 for m in metrics)
    ln_v = math.log(config.get('vocab_size') or math.inf)               # what an untrained model has
    after = [m for m in evals if m['step'] > warmup and math.isfinite(m['val_loss'])]
    val = column(after, 'val_loss')
    best = min(after, key=lambda m: m['val_loss'], default={'step': 0, 'val_loss': math.nan})
    rising = len(val) >= 4 and min(val[-2:]) > 1.01 * best['val_loss']
    rose = f'validation loss rose from {best["val_loss"]:.2f} at step {best["step"]:,}'
    fell = recent < 0.99 * middle(
        [m['loss'] for m in train if 0 <= best['step'] - m['step'] < max_steps / 10])
    name, curve = ('validation', val) if len(val) >= 4 else \
        ('training', [middle(part, 2) for part in np.array_split(column(warm, 'loss'), 8)])
    first, second = (min(part) for part in np.array_split(curve, 2))
    norms, update = column(warm, 'grad_norm'), middle(column(warm, 'update_ratio'), 5)
    norm_was, norm_now = middle(norms[:len(norms) // 2], 5), middle(norms[-max(3, len(norms) // 4):])
    repeats = middle(column(evals, 'repetition')[-1:])
    course = [      # the first two at any time, the others when warm-up is some way behind
        (broken, 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0'),
        (rollbacks >= 2, f'it was rolled back {rollbacks} times', 'lower learning_rate'),
        (recent > ln_v - 0.5, f'the loss, {recent:.2f}, is still near ln V = {ln_v:.2f}: guessing',
         'check the data, the learning-rate schedule, the gradient norms and the size of the model'),
        (rising, rose + (', training loss fell: it is memorising' if fell else ', a slow drift of both'),
         'use best.pt; more data or dropout=0.1' if fell else 'check data order; lower learning_rate'),
        (second > 0.99 * first and recent <= ln_v - 0.5 and not rising,
         f'{name} loss is flat: {first:.2f} in the first half of the way, {second:.2f} in the second',
         'raise learning_rate if it is low; else more varied data or a larger model'),
        (norm_now > 3 * norm_was, f'gradient norms grew from {norm_was:.2g} to {norm_now:.2g}',
         'lower learning_rate, keep grad_clip=1.0'),
        (update < 1e-5 or update > 3e-2, f'an update is {update:.0e} of the weights, 1e-3 is usual',
         'raise learning_rate' if update < 1e-5 else 'lower learning_rate'),
        (repeats >= 0.9, f'samples repeat themselves ({repeats:.0%})', 'look for duplicates in the data')
    ][:2 if early else None]

    ill, lost = ([(why, do) for wrong, why, do in checks if wrong] for checks in (engine, course))
    systems = 'unhealthy' if ill else 'healthy'
    model = 'unhealthy' if lost else 'unknown' if early else 'healthy'
    figure = f'validation loss {val[-1]:.2f}' if len(val) else f'training loss {loss[-1]:.2f}'
    reasons, advice = zip(*ill + lost or [(f'{train[-1]["tok_s"]:,.0f} tok/s, {figure}', 'let it run' if
                          step < max_steps else 'measure it with eval.py and read what it writes')])
    course = 'too early to tell' if model == 'unknown' else model
    return systems, model, (f'operationally {systems}, scientifically {course}: {"; ".join(reasons)}. '
                            f'To do: {"; ".join(advice)}.')


# --- read ----------------------------------------------------------------------------------------------
def read_run(folder):
    """What is on disk now: maybe in the middle of a line, maybe not all files yet."""
    text = [path.read_text(encoding='utf-8', errors='replace') if path.exists() else '' for path in map(
        pathlib.Path(folder).joinpath, ('metrics.jsonl', 'config.json', 'data.json', 'samples.txt'))]
    rows, events = [], []
    for line in text[0].splitlines():
        try:
            row = {k: math.nan if v is None else v for k, v in json.loads(line).items()     # JSON has no nan
                   if v is not None or k in ('loss', 'val_loss', 'grad_norm')}
            step = row['step'] + 0              # a number
        except (ValueError, KeyError, TypeError, AttributeError):
            continue                            # half written
        while 'event' not in row and rows and (rows[-1]['step'] > step or (
                rows[-1]['step'] == step and ('loss' in rows[-1]) == ('loss' in row))):
            rows.pop()                          # the run went back to a checkpoint and took a new course
        row |= {f'val_bpb {k}': v for k, v in row.get('val_bpb_by_source', {}).items()}
        row |= {'data_share': row['data_s'] / row['dt']} if row.keys() >= {'data_s', 'dt'} else {}
        (events if 'event' in row else rows).append(row)
    for path in pathlib.Path(folder).glob('eval*.json'):            # by eval.py, maybe while the run goes on
        found = json.loads(path.read_text(encoding='utf-8'))['tasks'].get('problems', {})
        rows += [{'step': one['step'], 'pass_rate': one['pass@1']} for one in found.get('series', [found])
                 if one.keys() >= {'step', 'pass@1'}]
    settings, data = (json.loads(part or '{}') for part in text[1:3])
    settings['vocab_size'] = settings.get('vocab_size') or data.get('vocab_size')
    sample = ('\n' + text[3]).split('\n--- step ')[-1].partition('\n')[2].strip('\n')
    rows.sort(key=lambda row: row['step'])
    return {'name': folder, 'rows': rows, 'events': events, 'config': settings, 'sample': sample}


COLOURS = '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'   # by Okabe & Ito
read = [read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
for run, run['colour'] in zip(read, COLOURS):
    path = os.path.join(run['name'], 'metrics.jsonl')
    if not os.path.exists(path):
        raise ValueError(f'{path} is missing; make a run: python train.py --out_dir={run["name"]}')
    last, end = run['rows'][-1]['step'] if run['rows'] else 0, run['config'].get('max_steps') or 0
    age = f', {(time.time() - os.path.getmtime(path)) / 60:,.0f} min ago' * (last < end)
    run['title'] = f'{run["name"]} (step {last:,}' + f' of {end:,}' * bool(end) + f'{age})'
    run['verdict'] = verdict(run['rows'] + run['events'], run['config'])[2]
    print(f'{run["title"]}: {run["verdict"]}')
drawn = [run for run in read if run['rows']]
if not drawn:
    raise ValueError(f'{runs}: metrics.jsonl has no complete line yet; run this again in a minute')
logged = {key for run in drawn for row in run['rows'] for key in row}

# --- panels --------------------------------------------------------------------------------------------
try:        # here, so that --help and the verdict do without
    import matplotlib.figure
except ImportError as e:
    raise ValueError(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold characters that the font does not
GREY, CARD = '#6b7480', '#f5f6f8'
matplotlib.rcParams.update({
    'font.size': 8.5, 'text.color': '#22272e', 'text.parse_math': False, 'axes.titlelocation': 'left',
    'axes.edgecolor': '#b8bfc8', 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.ymargin': 0.08, 'grid.color': '#e7eaee', 'lines.markerfacecolor': 'w', 'lines.markersize': 4.5,
    'xtick.color': GREY, 'ytick.color': GREY, 'xtick.major.size': 0, 'ytick.major.size': 0})
last_step, plan = max(1, *(run['rows'][-1]['step'] for run in drawn)), drawn[0]['config']
warmup, end = plan.get('warmup_steps') or 0, plan.get('max_steps') or 0
decay = end - (plan.get('decay_steps') or end // 5) if plan.get('schedule') == 'wsd' \
    else (warmup + end) / 2                     # from where a cosine is below half
events = [(event['step'], event['event'], run['colour']) for run in drawn for event in run['events']]
kinds = sorted({kind for _, kind, _ in events})


def panel(ax, title, keys, scale=1, low='zero', limit=None, said=''):
    """The metrics of all runs: thin as logged, thick a running mean. keys: the one that counts, then others.
    low: where the axis begins: zero, fit (lowest) or log. limit, said: a figure to compare with, its name."""
    wide, ends, foot = 'loss' in keys, [], 0.07 * len(kinds) * ('loss' in keys)
    for run in drawn:
        for i, key in enumerate(keys):
            rows = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))]
            x, y = column(rows, 'step'), scale * column(rows, key)
            if not rows:
                continue
            thick = key == 'loss' or not (i or wide)
            window = np.hanning(min(len(y) // 100 * 2 + 3, len(y) + 2))[1:-1]       # 2% of the run
            mean = np.convolve(y, window, 'same') / np.convolve(np.ones(len(y)), window, 'same')
            ax.plot(x, y, color=run['colour'], linewidth=0.7, alpha=0.3)
            ax.plot(x, mean, '-' if thick else '--', color=run['colour'], linewidth=1 + 0.7 * thick,
                    marker='o' if key[:3] == 'val' and len(x) < 40 else '')
            text = f'{y[-1]:,.0f}' if abs(y[-1]) >= 100 else f'{y[-1]:.{4 if low == "fit" else 3}g}'
            if i == 0 or (run is drawn[0] and not wide):
                text = key.removeprefix('val_bpb ')[:10] if i else text
                ends.append((y[-1], text, GREY if i else run['colour']))
    if low == 'log':
        ax.set_yscale('log')
        ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5), numticks=5))
        ax.minorticks_off()
    ax.yaxis.set_major_formatter('{x:,.10g}')
    ax.update_datalim([(0, 0)] * (low == 'zero') + [(0, limit)] * (low == 'log' and bool(limit)))
    ax.autoscale_view()
    bottom, top = ax.get_ylim()                 # below, a row for each kind of event
    bottom, top = (0, 1) if bottom == -top else (bottom, top)           # all 0
    ax.set(title=title, xlim=(0, last_step), ylim=(bottom - foot * (top - bottom), top))
    if limit:
        ax.axhline(limit, color=GREY, linewidth=1.2, linestyle=':')
        ax.text(last_step, limit, said, ha='right', va='top' if wide else 'bottom', clip_on=True)
    for a, b, shade in (0, warmup, '#fdf4e1'), (decay, end, '#ebf2f9'):
        ax.axvspan(min(a, last_step), min(b, last_step), facecolor=shade, zorder=0)
    for step, kind, colour in events:
        ax.axvline(step, color=colour, linewidth=0.6, alpha=max(0.05, 0.35 - len(events) / 200))
        if wide:
            ax.plot(step, 0.03 + 0.06 * kinds.index(kind), 'x', color=colour,
                    transform=ax.get_xaxis_transform())
    for i, kind in enumerate(kinds * wide):
        ax.text(1.01, 0.03 + 0.06 * i, kind[:9], color=GREY, va='center', transform=ax.transAxes, size=7)
    gap = min(0.0125 / ax.get_position().height, 1 / max(1, len(ends)))
    at, to_axes = 0.85 * foot - gap, ax.transScale + ax.transLimits
    for left, (y, text, colour) in zip(range(len(ends))[::-1], sorted(ends)):   # none above another
        at = max(min(to_axes.transform((1, y))[1], 1 - gap * left), at + gap)
        ax.text(1.01, at, text, color=colour, transform=ax.transAxes, va='center', fontsize=8)


# --- the two dashboards --------------------------------------------------------------------------------
def dashboard(left, width, floor, title, rows):
    """A card with a title and rows of panels, of those whose metric some run has logged."""
    rows = [there for row in rows if (there := [p for p in row if logged.intersection(p[1])])]
    shares = [1.8 if 'loss' in row[0][1] else 1 for row in rows]
    fig.add_artist(matplotlib.patches.Rectangle((left, 0.015), width, top - 0.015, fc=CARD, zorder=-1))
    fig.text(left + 0.012, top - 0.014, title, va='top', fontsize=13, weight='bold')
    at = top - 0.045
    for row, share in zip(rows, shares):
        tall, wide = (top - 0.06 - floor) * share / sum(shares), width / len(row)
        at -= tall
        for i, p in enumerate(row):
            panel(fig.add_axes((left + wide * i + 0.034, at + 0.025, wide - 0.068, tall - 0.056)), *p)


fig, top = matplotlib.figure.Figure(figsize=(16, 10), dpi=100), 0.98
for run in read:
    text = textwrap.wrap(run['verdict'], 225)
    fig.text(0.014, top, f'━━ {run["title"]}', color=run['colour'], weight='bold', va='top', fontsize=10)
    fig.text(0.034, top - 0.021, '\n'.join(text), va='top', fontsize=9.5)
    top -= 0.028 + 0.017 * len(text)
dashboard(0.01, 0.385, 0, 'systems: is the engine running?', [
    [('step time, ms', ['dt'], 1000), ('throughput, tok/s', ['tok_s'])],
    [('data, gradients: waits, %', ['data_share', 'comm_share'], 100), ('evaluates, %', ['eval_share'], 100)],
    [('memory, GB', ['memory_mb'], 1 / 1024), ('saving a checkpoint, s', ['save_s'])],
    [('updates skipped so far', ['skipped']), ('MFU, % of the peak', ['mfu'], 100)]])
size = max(run['config']['vocab_size'] or 1 for run in drawn)
sources = sorted(key for key in logged if key[:8] == 'val_bpb ')
told = [run for run in drawn if run['sample']][:3]
dashboard(0.405, 0.585, 0.15 * bool(told), 'model: are we flying to the right place?', [
    [('loss, nats per token (circles, figures: validation; yellow: warm-up, blue: decay)',
      ['val_loss', 'loss'], 1, 'fit', math.log(size), f'ln {size:,} = {math.log(size):.2f}: guessing')],
    [('bits per byte', ['val_bpb', *sources], 1, 'fit'), ('gradient norm', ['grad_norm'], 1, 'log'),
     ('learning rate', ['lr'])],
    [('update / weight', ['update_ratio'], 1, 'log', 1e-3, 'usual'),
     ('samples that parse, repeat, pass tests', ['parse_rate', 'repetition', 'pass_rate'])]])
for i, run in enumerate(told):
    ax = fig.add_axes((0.439 + 0.521 * i / len(told), 0.03, 0.51 / len(told), 0.11))
    ax.set(title='latest sample', xticks=[], yticks=[])
    text = '\n'.join('\n'.join(textwrap.wrap(line, 112 // len(told), drop_whitespace=False))
                     for line in run['sample'].expandtabs(4).splitlines()[:7])
    ax.text(0.01, 0.94, text, va='top', size=8, family='monospace', color=run['colour'], clip_on=True)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2])
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
