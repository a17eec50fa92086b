"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still going on

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a verdict on each,
writes the picture: a colour per run, events as hairlines. A panel of what no run has logged is left out.
"""
import json, math, os, pathlib, textwrap, time, warnings
import numpy as np
from configurator import configure, show
from parts import verdict

# --- settings ------------------------------------------------------------------------------------------
runs = 'out/quickstart'     # folders that trainers wrote, comma-separated; the first gives the phases
out = 'dashboard.png'       # or .svg, .pdf
config = configure(globals())

if not out.endswith(('.png', '.svg', '.pdf')):
    raise ValueError(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')
if runs.count(',') > 5:
    raise ValueError(f'runs={runs} has more than 6 folders; draw several pictures, each with its --out')
show(config)


# --- read ----------------------------------------------------------------------------------------------
def read_object(text):
    """The JSON object in a text; {} if it is none, or only half written."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_run(folder):
    """What is on disk now: maybe in the middle of a line, maybe not all files yet."""
    text = [path.read_text(encoding='utf-8', errors='replace') if path.exists() else '' for path in map(
        pathlib.Path(folder).joinpath, ('metrics.jsonl', 'config.json', 'data.json', 'samples.txt'))]
    rows, events = [], []
    for line in text[0].splitlines():
        try:
            row = {k: math.nan if v is None else v for k, v in json.loads(line).items()     # JSON has no nan
                   if (v is not None or k in ('loss', 'val_loss', 'grad_norm'))
                   and (k in ('event', 'text') or not isinstance(v, str | list))}
            step = row['step'] + 0              # a number
        except (ValueError, KeyError, TypeError, AttributeError):
            continue                            # half written
        while 'event' not in row and rows and (rows[-1]['step'] > step or (
                rows[-1]['step'] == step and ('loss' in rows[-1]) == ('loss' in row))):
            rows.pop()                          # the run went back to a checkpoint and took a new course
        row |= {f'val_bpb {k}': v for k, v in row.get('val_bpb_by_source', {}).items()}
        row |= {'val_preference_loss': row['val_loss']} if row.keys() >= {'val_loss', 'val_margin'} else {}
        row |= {'data_share': row['data_s'] / row['dt']} if row.keys() >= {'data_s', 'dt'} else {}
        (events if 'event' in row else rows).append(row)
    for path in pathlib.Path(folder).glob('eval*.json'):            # by eval.py, maybe while the run goes on
        tasks = read_object(path.read_text(encoding='utf-8', errors='replace')).get('tasks')
        found = tasks.get('problems') if isinstance(tasks, dict) else None
        found = found if isinstance(found, dict) else {}
        rows += [{'step': one['step'], 'pass_rate': one['pass@1']} for one in found.get('series', [found])
                 if 'pass@1' in one and isinstance(one.get('step'), int)]
    settings, data = (read_object(part) for part in text[1:3])
    settings['vocab_size'] = settings.get('vocab_size') or data.get('vocab_size')
    sample = ('\n' + text[3]).split('\n--- step ')[-1].partition('\n')[2].strip('\n')
    rows.sort(key=lambda row: row['step'])
    return {'name': folder, 'rows': rows, 'events': events, 'config': settings, 'sample': sample}


def without_meaning(row, key):
    """The loss of rl.py is about 0, whatever happens; that of dpo.py is of pairs, its KL of whole answers."""
    if row.keys() & {'margin', 'val_margin'}:
        return key in ('loss', 'val_loss', 'kl')
    return key == 'loss' and 'reward' in row


COLOURS = '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'   # by Okabe & Ito
read = [read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
for run, run['colour'] in zip(read, COLOURS):
    path = os.path.join(run['name'], 'metrics.jsonl')
    if not os.path.exists(path):
        raise ValueError(f'{path} is missing; make a run: python train.py --out_dir={run["name"]}')
    last, end = run['rows'][-1]['step'] if run['rows'] else 0, run['config'].get('max_steps') or 0
    age = f', {(time.time() - os.path.getmtime(path)) / 60:,.0f} min ago' * (last < end)
    run['title'] = f'{run["name"]} (step {last:,}' + f' of {end:,}' * bool(end) + f'{age})'
    run['verdict'] = verdict.verdict(run['rows'] + run['events'], run['config'])[2]
    print(f'{run["title"]}: {run["verdict"]}')
drawn = [run for run in read if run['rows']]
if not drawn:
    raise ValueError(f'{runs}: metrics.jsonl has no complete line yet; run this again in a minute')
logged = {key for run in drawn for row in run['rows'] for key in row if not without_meaning(row, key)}

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
            rows = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))
                    and not without_meaning(row, key)]
            x, y = verdict.column(rows, 'step'), scale * verdict.column(rows, key)
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
    [('preference loss (circles: held out)', ['val_preference_loss', 'preference_loss'], 1, 'fit'),
     ('pairs in the right order, %', ['val_accuracy', 'accuracy'], 100, 'fit'),
     ('margin of the rewards', ['val_margin', 'margin'], 1, 'fit')],
    [('reward (circles: held out)', ['val_reward', 'reward'], 1, 'fit'),
     ('entropy, KL of a token, nats', ['entropy', 'kl']), ('tokens of an answer', ['length'])],
    [('informative prompts, %', ['informative'], 100), ('clipped tokens, %', ['clip_fraction'], 100)],
    [('bits per byte', ['val_bpb', *sources], 1, 'fit'), ('gradient norm', ['grad_norm'], 1, 'log'),
     ('learning rate', ['lr'])],
    [('update / weight', ['update_ratio'], 1, 'log', 1e-3, 'usual'),
     ('samples that parse, repeat, pass tests', ['parse_rate', 'repetition', 'pass_rate', 'val_pass_rate'])]])
for i, run in enumerate(told):
    ax = fig.add_axes((0.439 + 0.521 * i / len(told), 0.03, 0.51 / len(told), 0.11))
    ax.set(title='latest sample', xticks=[], yticks=[])
    text = '\n'.join('\n'.join(textwrap.wrap(line, 112 // len(told), drop_whitespace=False))
                     for line in run['sample'].expandtabs(4).splitlines()[:7])
    ax.text(0.01, 0.94, text, va='top', size=8, family='monospace', color=run['colour'], clip_on=True)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2])
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
