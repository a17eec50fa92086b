"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a verdict on each
run and draws them: a row for each stage, with its own axis of steps. Runs of the same stage share a row.
"""
import math, os, re, textwrap, time, warnings
import numpy as np
from configurator import configure, show
from parts.eval import verdict

# --- settings ------------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote, comma-separated
out = 'dashboard.png'       # or .svg, .pdf
config = configure(globals())

if not out.endswith(('.png', '.svg', '.pdf')):
    raise ValueError(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')
if not os.path.isdir(os.path.dirname(out) or '.'):
    raise ValueError(f'out={out}: its folder does not exist; make it, or choose another --out')
if runs.count(',') > 5:
    raise ValueError(f'runs={runs} has more than 6 folders; draw several pictures, each with its --out')
# --- read ----------------------------------------------------------------------------------------------
COLOURS = '#0072b2', '#d55e00', '#009e73', '#b5508c', '#b88a00', '#3f9bd1'
all_runs = [verdict.read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
rows = {}           # {stage: its runs}
for run, colour in zip(all_runs, COLOURS):
    path = os.path.join(run['name'], 'metrics.jsonl')
    if not os.path.exists(path):
        raise ValueError(f'{path} is missing; make a run: python train.py --out_dir={run["name"]}')
    run['colour'] = colour
    run['config']['continued_by'] = [other['name'] for other in all_runs
                                     if run['home'] in (other['start'], other['start'].parent)]
    last = run['rows'][-1]['step'] if run['rows'] else 0
    run['end'] = run['config'].get('max_steps') or max(1, last)
    age = (time.time() - os.path.getmtime(path)) / 60
    age = f', {age:,.0f} min ago' if last < run['end'] else ''
    run['title'] = f'{run["name"]} (step {last:,} of {run["end"]:,}{age})'
    run['systems'], run['model'], sentence = verdict.verdict(run['rows'] + run['events'], run['config'])
    run['sentence'] = sentence
    run['advice'] = textwrap.wrap(sentence.partition(': ')[2], 185)     # before it is the health
    if run['rows']:
        rows.setdefault(run['config'].get('stage', 'base'), []).append(run)
drawable = sum(rows.values(), [])
if not drawable:
    raise ValueError(f'{runs}: metrics.jsonl has no complete line yet; run this again in a minute')
show(config)
for run in all_runs:
    print(f'{run["title"]}: {run["sentence"]}')

# --- panels ---------------------------------------------------------------------------------------------
# title; meaning, of shares with % in front; metrics, first the one that counts; axis: zero, fit or log
LOSS = 'loss', 'nats per token', ['val_loss', 'loss']
GRADIENT = 'gradient norm', 'dashed: update / weight, ‰', ['grad_norm', 'update_ratio'], 'log'
KEYS = {key for run in drawable for row in run['rows'] for key in row}
SOURCES = sorted(key for key in KEYS if re.fullmatch('val_.+_bpb', key))
PANELS = {
    'base': [(*LOSS, 'fit'), ('bits per byte', 'dashed: by source', ['val_bpb', *SOURCES], 'fit'),
             ('samples that pass', '%; dashed: parse, repeat', ['pass_rate', 'parse_rate', 'repetition']),
             GRADIENT, ('learning rate', 'as planned', ['lr'])],
    'sft': [(*LOSS, 'log'), ('bits per byte', 'of the base data: forgotten?', ['base_bpb'], 'fit'),
            ('answers that pass', '%', ['pass_rate']), GRADIENT],
    'dpo': [('margin', 'the better answer leads by', ['val_margin', 'margin'], 'fit'),
            ('right order', '% of the pairs', ['val_accuracy', 'accuracy'], 'fit'),
            ('preference loss', 'nats', ['val_preference_loss', 'preference_loss'], 'fit'),
            ('KL', 'of an answer, nats', ['val_kl', 'kl'], 'fit')],
    'rl': [('reward', 'mean of the answers', ['val_reward', 'reward'], 'fit'),
           ('informative', '% of prompts: rewards differ', ['informative']),
           ('length', 'tokens of an answer', ['val_length', 'length'], 'fit'),
           ('entropy', 'nats per token; dashed: KL', ['entropy', 'kl']),
           ('clipped', '% of the tokens', ['clip_fraction'])],
    'systems': [('step time', 'seconds', ['dt'], 'log'), ('speed', 'tokens per second', ['tok_s']),
                ('memory', 'GB', ['memory_mb']),
                ('waits', '% for data; dashed: eval, save', ['data_share', 'eval_share', 'save_share']),
                ('GPU', '% of its peak', ['mfu']), ('network', '% waiting for it', ['comm_share']),
                ('skipped', 'updates', ['skipped'])]}
FACTORS = {'update_ratio': 1000, 'memory_mb': 1 / 1024}


def points(run, key):
    """(steps, figures) of a metric; none if it has nothing to say: fewer than two figures, or only 0."""
    finite = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))]
    figures = verdict.column(finite, key)
    return (verdict.column(finite, 'step'), figures) if len(figures) > 1 and figures.any() else ((), ())


# --- the picture, in pixels from the top left -----------------------------------------------------------
try:        # --help and the verdict do without
    from matplotlib import figure, rcParams, ticker, transforms
except ImportError as e:
    raise ValueError(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold characters that the font does not
GREY = '#5c6570'
HEALTH = {'healthy': '#1a7f37', 'unhealthy': '#cf222e', 'unknown': GREY}
rcParams.update({
    'font.size': 12, 'text.parse_math': False, 'lines.markerfacecolor': 'w', 'axes.grid': True,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#b8bfc8',
    'grid.color': '#e7eaee', 'xtick.color': GREY, 'ytick.color': GREY})
WIDTH, HEIGHT = 1600, 4000          # the empty rest is cut off
LEFT, RIGHT = 16, 1584
fig = figure.Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)


def write(x, y, text, **style):
    fig.text(x / WIDTH, 1 - y / HEIGHT, text, va='top', **style)


def box(x, y, right, bottom, **style):
    at = x / WIDTH, 1 - bottom / HEIGHT, (right - x) / WIDTH, (bottom - y) / HEIGHT
    return fig.add_axes(at, **style)


def short(x, _=None):
    """0.1234 -> 0.123; 1234 -> 1,234; 123456 -> 123k"""
    if abs(x) >= 10_000:
        return f'{x / 1e6:.3g}M' if abs(x) >= 1e6 else f'{x / 1000:.3g}k'
    if abs(x) >= 100:
        return f'{x:,.0f}'
    return f'{x:.3g}' if abs(x) >= 0.01 else f'{x:.2g}'


def draw(ax, group, meaning, keys, low='zero', share=False):
    """Metrics of runs, over their steps or the share that is done."""
    ends = []
    seen = []           # without the first tenth: often far above the rest
    for run in group:
        its_keys = [key for key in keys if len(points(run, key)[0])]
        for key in its_keys:
            x, y = points(run, key)
            x = x * (100 / run['end'] if share else 1)
            y = y * (100 if meaning[0] == '%' else FACTORS.get(key, 1))
            of_training = keys[0] == f'val_{key}'       # held-out figures count more
            counts = key == keys[0] or of_training and keys[0] not in its_keys
            style = '-' if counts or of_training else '--'
            if len(x) < 16 and key[:4] in ('val_', 'base'):
                style += 'o'
            window = np.hanning(min(len(y) // 100 * 2 + 3, len(y) + 2))[1:-1]       # 2 % of the run
            mean = np.convolve(y, window, 'same') / np.convolve(np.ones(len(y)), window, 'same')
            ax.plot(x, y, color=run['colour'], linewidth=0.8, alpha=0.3)
            ax.plot(x, mean, style, color=run['colour'], linewidth=2.2 if counts else 1.3)
            ends += [(y[-1], run['colour'])] if counts else []
            seen += [*mean[len(y) // 10:]]

    ax.xaxis.set_major_locator(ticker.MaxNLocator(2 if share else 3, integer=True))
    ax.yaxis.set_major_locator(ticker.MaxNLocator(3))
    bottom, top = (0 if low == 'zero' else min(seen)), max(seen)
    margin = 0.1 * (top - bottom or 1)
    ax.set_ylim(bottom - margin if bottom else 0, top + margin)
    if low == 'log' and top > 3 * bottom:
        ax.set(yscale='log', ylim=(0.8 * max(bottom, top / 1000), 1.2 * top))
        subs = (1, 2, 5) if top < 50 * bottom else (1,)
        ax.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
        ax.minorticks_off()
    ax.set_xlim(0, 100 if share else max(run['rows'][-1]['step'] for run in group))
    ax.xaxis.set_major_formatter('{x:.0f} %' if share else short)
    ax.yaxis.set_major_formatter(short)
    if not share:
        mark(ax, group)

    gap = 18 / HEIGHT / ax.get_position().height        # so that no figure lies on another
    at = -gap
    for i, (last, colour) in enumerate(sorted(ends)):
        room_above = gap * (len(ends) - 1 - i)
        at = max(min((ax.transScale + ax.transLimits).transform((1, last))[1], 1 - room_above), at + gap)
        ax.text(1.03, at, short(last), color=colour, transform=ax.transAxes, va='center', weight='bold')


def mark(ax, group):
    """Yellow up to the highest rate, blue where it is below half; a hairline for each event."""
    x, lr = points(group[0], 'lr')
    if len(x):
        top = lr.argmax()
        ax.axvspan(0, x[top], facecolor='#fdf4e1', zorder=0)
        for i in top + np.flatnonzero(lr[top:] < lr[top] / 2)[:1]:
            ax.axvspan(x[i], x[-1], facecolor='#ebf2f9', zorder=0)
    for run in group:
        for event in run['events']:
            ax.axvline(event['step'], color=run['colour'], linewidth=0.7, alpha=0.4)


def card(start, y, tall, stage, group, title, texts):
    """Panels, at most five cells a line; in the last are texts: (text, colour). Returns where it ends."""
    panels = [p for p in PANELS[stage] if any(len(points(run, key)[0]) for run in group for key in p[2])]
    n_lines = len(panels) // 5 + 1
    n_columns = 5 if n_lines == 1 else math.ceil((len(panels) + 1) / n_lines)
    cell = (RIGHT - LEFT) / n_columns
    for i, (name, meaning, *how) in enumerate(panels):
        x = LEFT + i % n_columns * cell + 16
        top = y + i // n_columns * tall
        write(x, top + 4, name, weight='bold', fontsize=13)
        write(x, top + 26, meaning, color=GREY, fontsize=11)
        ax = box(x + 42, top + 52, x + cell - 82, top + tall - 32)
        draw(ax, group, meaning, *how, share=stage == 'systems')

    x = LEFT + len(panels) % n_columns * cell + 16
    bottom = y + n_lines * tall
    top = bottom - tall
    write(x, top + 4, title, weight='bold', fontsize=13)
    box(x, top + 30, RIGHT - 16, bottom - 12, xticks=[], yticks=[])
    n = 10 // len(texts)
    for i, (text, colour) in enumerate(texts):
        lines = []
        for line in text.expandtabs(4).splitlines():
            lines += textwrap.wrap(line, int((RIGHT - x) / 9.4), drop_whitespace=False) or ['']
        shown = '\n'.join(lines[:n] if stage in ('base', 'systems') else lines[-n:])   # of a chat the answer
        write(x + 6, top + 36 + 19 * n * i, shown, color=colour, family='monospace', fontsize=10.5)
    box(LEFT, start, RIGHT, bottom, facecolor='#f3f5f7', xticks=[], yticks=[], zorder=-1)
    return bottom


write(LEFT, 14, 'model: are we flying to the right place?', fontsize=17, weight='bold')
y = 50
for stage, group in rows.items():
    start = y
    for run in group:
        write(32, y + 10, f'━ {stage}: {run["title"]}', color=run['colour'], weight='bold', fontsize=14)
        for x, name in (1370, 'systems'), (1568, 'model'):
            write(x, y + 12, f'● {name} {run[name]}', color=HEALTH[run[name]], weight='bold', ha='right')
        write(32, y + 36, '\n'.join(run['advice']), linespacing=1.15)
        y += 42 + 20 * len(run['advice'])
    samples = [(run['sample'], run['colour']) for run in group]
    y = 12 + card(start, y, 240, stage, group, 'latest sample', samples)
write(LEFT, y + 4, 'systems: is the engine running?', fontsize=17, weight='bold')
kinds = sorted({event['event'] for run in drawable for event in run['events']}) or ['events']
KEY = ('across: steps, here in %\ncircles: held out\nyellow: the rate rises\nblue: it is below half\n'
       f'hairlines: {", ".join(kinds)}')
y = 16 + card(y + 40, y + 40, 206, 'systems', drawable, 'legend', [(KEY, GREY)])
whole = transforms.Bbox.from_extents(0, (HEIGHT - y) / 100, WIDTH / 100, HEIGHT / 100)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2], bbox_inches=whole)
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
