"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a verdict on each
run and draws them: each run has a colour, each event a hairline. A panel without figures is left out.
"""
import math, os, textwrap, time, warnings
import numpy as np
from configurator import configure, show
from parts.eval import verdict

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
def is_without_meaning(row, key):
    """The loss of rl.py is always about 0; dpo.py has losses of pairs and a KL of answers."""
    if row.keys() & {'margin', 'val_margin'}:
        return key in ('loss', 'val_loss', 'kl')
    return key == 'loss' and 'reward' in row


COLOURS = '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'   # by Okabe & Ito
all_runs = [verdict.read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
for run, colour in zip(all_runs, COLOURS):
    run['colour'] = colour
    path = os.path.join(run['name'], 'metrics.jsonl')
    if not os.path.exists(path):
        raise ValueError(f'{path} is missing; make a run: python train.py --out_dir={run["name"]}')
    last = run['rows'][-1]['step'] if run['rows'] else 0
    end = run['config'].get('max_steps')
    run['title'] = f'{run["name"]} (step {last:,})'
    if end:
        minutes = (time.time() - os.path.getmtime(path)) / 60
        age = f', {minutes:,.0f} min ago' if last < end else ''
        run['title'] = f'{run["name"]} (step {last:,} of {end:,}{age})'
    run['verdict'] = verdict.verdict(run['rows'] + run['events'], run['config'])[2]
    print(f'{run["title"]}: {run["verdict"]}')
drawable = [run for run in all_runs if run['rows']]
if not drawable:
    raise ValueError(f'{runs}: metrics.jsonl has no complete line yet; run this again in a minute')
metrics = {key for run in drawable for row in run['rows'] for key in row if not is_without_meaning(row, key)}

# --- panels --------------------------------------------------------------------------------------------
try:        # here, so that --help and the verdict do without
    import matplotlib.figure
except ImportError as e:
    raise ValueError(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold characters that the font does not
GREY = '#6b7480'
CARD = '#f5f6f8'
matplotlib.rcParams.update({
    'font.size': 8.5, 'text.color': '#22272e', 'text.parse_math': False, 'axes.titlelocation': 'left',
    'axes.edgecolor': '#b8bfc8', 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.ymargin': 0.08, 'grid.color': '#e7eaee', 'lines.markerfacecolor': 'w', 'lines.markersize': 4.5,
    'xtick.color': GREY, 'ytick.color': GREY, 'xtick.major.size': 0, 'ytick.major.size': 0})
last_step = max(1, *(run['rows'][-1]['step'] for run in drawable))
plan = drawable[0]['config']
warmup = plan.get('warmup_steps') or 0
end = plan.get('max_steps') or 0
decay = (warmup + end) / 2                      # from here on a cosine is below half
if plan.get('schedule') == 'wsd':
    decay = end - (plan.get('decay_steps') or end // 5)
events = [(event['step'], event['event'], run['colour']) for run in drawable for event in run['events']]
kinds = sorted({kind for _, kind, _ in events})


def curve(ax, run, key, scale, thick):
    """Draw a metric of a run: thin as it was logged, thicker its running mean. Returns its last figure."""
    rows = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))
            and not is_without_meaning(row, key)]
    if not rows:
        return None
    x = verdict.column(rows, 'step')
    y = scale * verdict.column(rows, key)
    window = np.hanning(min(len(y) // 100 * 2 + 3, len(y) + 2))[1:-1]       # 2 % of the run
    mean = np.convolve(y, window, 'same') / np.convolve(np.ones(len(y)), window, 'same')
    circles = 'o' if key.startswith('val') and len(x) < 40 else ''
    ax.plot(x, y, color=run['colour'], linewidth=0.7, alpha=0.3)
    ax.plot(x, mean, '-' if thick else '--', color=run['colour'], linewidth=1.7 if thick else 1.0,
            marker=circles)
    return y[-1]


def mark_phases(ax, names_events):
    """Warm-up yellow, decay blue, and a hairline for each event. names_events: say of which kind they are."""
    for a, b, shade in (0, warmup, '#fdf4e1'), (decay, end, '#ebf2f9'):
        ax.axvspan(min(a, last_step), min(b, last_step), facecolor=shade, zorder=0)
    for step, _, colour in events:
        ax.axvline(step, color=colour, linewidth=0.6, alpha=max(0.05, 0.35 - len(events) / 200))
    if not names_events:
        return
    height = {kind: 0.03 + 0.06 * i for i, kind in enumerate(kinds)}        # each has a row at the foot
    for step, kind, colour in events:
        ax.plot(step, height[kind], 'x', color=colour, transform=ax.get_xaxis_transform())
    for kind in kinds:
        ax.text(1.01, height[kind], kind[:9], color=GREY, va='center', transform=ax.transAxes, size=7)


def label_ends(ax, ends, floor):
    """Write (figure, text, colour) to the right of the curves, above floor, none on top of another."""
    gap = min(0.0125 / ax.get_position().height, 1 / max(1, len(ends)))
    to_axes = ax.transScale + ax.transLimits
    at = floor - gap
    for i, (y, text, colour) in enumerate(sorted(ends)):
        room_above = gap * (len(ends) - 1 - i)
        at = max(min(to_axes.transform((1, y))[1], 1 - room_above), at + gap)
        ax.text(1.01, at, text, color=colour, transform=ax.transAxes, va='center', fontsize=8)


def panel(ax, title, keys, scale=1, low='zero', limit=None, label=''):
    """The metrics of all runs. keys: the one that counts, then others. low: where the axis begins: zero, fit
    (lowest) or log. limit, label: a figure to compare with, its name."""
    wide = 'loss' in keys                       # the large panel
    foot = 0.07 * len(kinds) if wide else 0.0   # the share of its height that the events take
    ends = []
    for run in drawable:
        for key in keys:
            counts = key == keys[0]
            last = curve(ax, run, key, scale, thick=key == 'loss' if wide else counts)
            if last is None:
                continue
            if counts and abs(last) >= 100:
                ends.append((last, f'{last:,.0f}', run['colour']))
            elif counts:
                ends.append((last, f'{last:.4g}' if low == 'fit' else f'{last:.3g}', run['colour']))
            elif run is drawable[0] and not wide:
                ends.append((last, key.removeprefix('val_bpb ')[:10], GREY))

    if low == 'log':
        ax.set_yscale('log')
        ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5), numticks=5))
        ax.minorticks_off()
    ax.yaxis.set_major_formatter('{x:,.10g}')
    if low == 'zero':
        ax.update_datalim([(0, 0)])
    if low == 'log' and limit:
        ax.update_datalim([(0, limit)])
    ax.autoscale_view()
    bottom, top = ax.get_ylim()
    if bottom == -top:                          # all figures are 0
        bottom, top = 0, 1
    ax.set(title=title, xlim=(0, last_step), ylim=(bottom - foot * (top - bottom), top))
    if limit:
        ax.axhline(limit, color=GREY, linewidth=1.2, linestyle=':')
        ax.text(last_step, limit, label, ha='right', va='top' if wide else 'bottom', clip_on=True)
    mark_phases(ax, wide)
    label_ends(ax, ends, 0.85 * foot)


# --- the two dashboards --------------------------------------------------------------------------------
def dashboard(left, width, floor, title, rows):
    """A card with a title and rows of panels, of those whose metric some run has logged."""
    rows = [[p for p in row if metrics.intersection(p[1])] for row in rows]
    rows = [row for row in rows if row]
    shares = [1.8 if 'loss' in row[0][1] else 1 for row in rows]
    fig.add_artist(matplotlib.patches.Rectangle((left, 0.015), width, top - 0.015, fc=CARD, zorder=-1))
    fig.text(left + 0.012, top - 0.014, title, va='top', fontsize=13, weight='bold')
    at = top - 0.045
    for row, share in zip(rows, shares):
        height = (top - 0.06 - floor) * share / sum(shares)
        each = width / len(row)
        at -= height
        for i, p in enumerate(row):
            ax = fig.add_axes((left + each * i + 0.034, at + 0.025, each - 0.068, height - 0.056))
            panel(ax, *p)


fig = matplotlib.figure.Figure(figsize=(16, 10), dpi=100)
top = 0.98      # of what is still free
for run in all_runs:
    text = textwrap.wrap(run['verdict'], 225)
    fig.text(0.014, top, f'━━ {run["title"]}', color=run['colour'], weight='bold', va='top', fontsize=10)
    fig.text(0.034, top - 0.021, '\n'.join(text), va='top', fontsize=9.5)
    top -= 0.028 + 0.017 * len(text)
dashboard(0.01, 0.385, 0, 'systems: is the engine running?', [
    [('step time, ms', ['dt'], 1000), ('throughput, tok/s', ['tok_s'])],
    [('waits for data, %', ['data_share'], 100), ('evaluates, %', ['eval_share'], 100)],
    [('memory, GB', ['memory_mb'], 1 / 1024), ('saving a checkpoint, s', ['save_s'])],
    [('updates skipped so far', ['skipped']), ('MFU, % of the peak', ['mfu'], 100)]])
size = max(run['config']['vocab_size'] or 1 for run in drawable)
sources = sorted(key for key in metrics if key[:8] == 'val_bpb ')
samples = [run for run in drawable if run['sample']][:3]
dashboard(0.405, 0.585, 0.15 if samples else 0, 'model: are we flying to the right place?', [
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
for i, run in enumerate(samples):
    ax = fig.add_axes((0.439 + 0.521 * i / len(samples), 0.03, 0.51 / len(samples), 0.11))
    ax.set(title='latest sample', xticks=[], yticks=[])
    text = '\n'.join('\n'.join(textwrap.wrap(line, 112 // len(samples), drop_whitespace=False))
                     for line in run['sample'].expandtabs(4).splitlines()[:7])
    ax.text(0.01, 0.94, text, va='top', size=8, family='monospace', color=run['colour'], clip_on=True)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2])
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
