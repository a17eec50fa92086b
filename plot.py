"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a
verdict on each run and draws them: panels for each stage, then those of the machine. Runs of the
same stage share panels.
"""
import math, os, re, textwrap, warnings
import numpy as np
from configurator import Mistake, configure, show
from parts.eval import verdict

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote, comma-separated
out = 'dashboard.png'       # or .svg, .pdf
config = configure(globals())
if not out.endswith(('.png', '.svg', '.pdf')):
    raise Mistake(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')

# --- read -----------------------------------------------------------------------------------------
all_runs = [verdict.read_run(folder.strip().rstrip('/')) for folder in runs.split(',')]
for run in all_runs:
    if not run['rows']:
        raise Mistake(f'{run["name"]}/metrics.jsonl is missing or has no complete line yet; '
                      f'make a run: python train.py --out_dir={run["name"]}, or wait a minute')
    last = run['rows'][-1]['step']
    run['end'] = run['config'].get('max_steps') or last or 1
    run['title'] = f'{run["name"]} (step {last:,} of {run["end"]:,})'
    *_, run['sentence'] = verdict.verdict(run['rows'] + run['events'], run['config'])
show(config)
for i, run in enumerate(all_runs):
    run['color'] = f'C{i}'
    print(f'{run["title"]}: {run["sentence"]}')

# --- panels ---------------------------------------------------------------------------------------
# title; meaning, of shares with a %; metrics, first the one that counts
LOSS = 'loss', 'nats per token', 'val_loss loss'
GRADIENT = 'gradient norm', 'before it is clipped', 'grad_norm'
SOURCES = sorted({key for run in all_runs for row in run['rows'] for key in row
                  if re.fullmatch('val_.+_bpb', key)})
PANELS = {
    'base': [LOSS, ('bits per byte', 'dashed: by source', ' '.join(['val_bpb', *SOURCES])),
             ('samples', '% pass; dashed: parse, repeat', 'pass_rate parse_rate repetition'),
             GRADIENT, ('update', '% of the weights', 'update_ratio'),
             ('learning rate', 'as planned', 'lr')],
    'sft': [LOSS, ('bits per byte', 'of the base data: forgotten?', 'base_bpb'),
            ('answers that pass', '%', 'pass_rate'), GRADIENT],
    'dpo': [('margin', 'the better answer leads by', 'val_margin margin'),
            ('right order', '% of the pairs', 'val_accuracy accuracy'),
            ('preference loss', 'nats', 'val_preference_loss preference_loss'),
            ('KL', 'of an answer, nats', 'val_kl kl')],
    'rl': [('reward', 'mean of the answers', 'val_reward reward'),
           ('informative', '% of prompts: rewards differ', 'informative'),
           ('length', 'tokens of an answer', 'val_length length'),
           ('entropy', 'nats per token; dashed: KL', 'entropy kl'),
           ('clipped', '% of the tokens', 'clip_fraction')],
    'systems': [('step time', 'seconds', 'dt'), ('speed', 'tokens per second', 'tok_s'),
                ('memory', 'MB', 'memory_mb'),
                ('waits', '% for data; dashed: eval, save', 'data_share eval_share save_share'),
                ('GPU', '% of its peak', 'mfu'), ('network', '% waiting for it', 'comm_share'),
                ('skipped', 'updates', 'skipped')]}


def points(run, key):
    """Return (steps, figures) of a metric; () if it has fewer than two figures, or only 0."""
    finite = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))]
    figures = verdict.column(finite, key)
    return (verdict.column(finite, 'step'), figures) if len(figures) > 1 and figures.any() else ()


# --- the picture: a long page of four columns -----------------------------------------------------
try:        # --help and the verdict do without
    from matplotlib import figure, rcParams
except ImportError as e:
    raise Mistake(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold what the font does not
GREY = '#5c6570'
rcParams.update({
    'text.parse_math': False, 'lines.markerfacecolor': 'w', 'axes.grid': True, 'axes.xmargin': 0,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#b8bfc8',
    'grid.color': '#e7eaee', 'xtick.color': GREY, 'ytick.color': GREY})
LINES = 300         # of text, 0.2 inches each; the empty ones at the end are cut off
fig = figure.Figure(figsize=(12, LINES / 5), dpi=150)
grid = fig.add_gridspec(LINES, 4, left=0.04, right=0.95, bottom=0, top=1, wspace=0.55, hspace=0)


def write(line, text, x=0.0, **style):
    """Write text that begins at a line, x of the width from the left."""
    fig.text(x, 1 - line / LINES, text, va='top', **style)


def short(x, _=None):
    """0.1234 -> 0.123; 1234 -> 1,234"""
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def draw(ax, group, of_machine, name, meaning, keys):
    """Draw metrics of runs over their steps, and those of the machine over percent of the steps."""
    keys = keys.split()
    seen = [0] * of_machine     # without the first tenth: often far above the rest
    ends = []
    for run in group:
        has = [key for key in keys if points(run, key)]
        for key in has:
            x, y = points(run, key)
            x = x * (100 / run['end'] if of_machine else 1)
            y = y * (100 if '%' in meaning else 1)
            width = len(y) // 100 * 2 + 1           # 2% of the run
            mean = np.convolve(np.pad(y, width // 2, 'edge'), np.ones(width) / width, 'valid')
            style = '-' if keys[0].endswith(key) else '--'
            style += 'o' if len(x) < 16 else ''
            ax.plot(x, y, color=run['color'], linewidth=0.8, alpha=0.3)
            ax.plot(x, mean, style, color=run['color'], linewidth=2.2 if key == has[0] else 1.2)
            seen += [*mean[len(y) // 10:]]
            ends += [(y[-1], run['color'])] if key == has[0] else []

    # The machine's axes begin at 0. The others fit what is drawn, but for the highest 2%.
    low, high = np.quantile(seen, [0, 0.98])
    margin = 0.1 * (high - low or 1)
    low, high = low and low - margin, high + margin
    ax.set_ylim(low, high)
    ax.locator_params(nbins=3)
    ax.xaxis.set_major_formatter(short)
    ax.yaxis.set_major_formatter(short)
    ax.set_title(name, loc='left', weight='bold', pad=20)
    ax.text(0, 1.06, meaning, transform=ax.transAxes, color=GREY)
    at = -1             # no number lies on another
    for last, color in sorted(ends):
        at = max(at + 0.13, min(1, (last - low) / (high - low)))
        ax.text(1.03, at, short(last), transform=ax.transAxes, va='center', color=color,
                weight='bold')
    if not of_machine:
        mark(ax, group)


def mark(ax, group):
    """Shade where the rate rises (yellow) and where it is below half of its peak (blue); draw a
    hairline for each event."""
    if lr := points(group[0], 'lr'):
        steps, rates = lr
        peak = rates.argmax()
        ax.axvspan(0, steps[peak], color='#fdf4e1')
        for step in steps[peak:][rates[peak:] < rates[peak] / 2][:1]:
            ax.axvspan(step, steps[-1], color='#ebf2f9')
    for run in group:
        for event in run['events']:
            ax.axvline(event['step'], color=run['color'], linewidth=0.7, alpha=0.4)


write(0, 'model: are we flying to the right place?', size=14, weight='bold')
write(1.5, 'across: steps, or for systems percent of them; bold: what counts; circles: few points; '
      'yellow: the rate rises; blue: it is below half; hairlines: spikes, rollbacks and the like',
      color=GREY, size=9)
line = 3
for stage, panels in PANELS.items():
    of_machine = stage == 'systems'
    group = [run for run in all_runs if of_machine or run['config'].get('stage', 'base') == stage]
    models = [] if of_machine else group
    if not group:
        continue
    if of_machine:
        write(line, 'systems: is the engine running?', size=14, weight='bold')
        line += 2
    for run in models:
        write(line, f'━ {stage}: {run["title"]}', color=run['color'], weight='bold', size=12)
        health, _, advice = run['sentence'].partition(': ')
        for i, half in enumerate(health.split(', ')):
            color = '#cf222e' if 'unhealthy' in half else '#1a7f37'
            write(line, f'● {half}', x=0.73 + 0.22 * i, color=color, weight='bold', ha='right')
        advice = textwrap.wrap(advice, 140)
        write(line + 1.2, '\n'.join(advice))
        line += 2 + len(advice)
    panels = [panel for panel in panels
              if any(points(run, key) for run in group for key in panel[2].split())]
    for i, panel in enumerate(panels):
        top = line + 2 + i // 4 * 10
        draw(fig.add_subplot(grid[top:top + 6, i % 4]), group, of_machine, *panel)
    n_free = 4 - len(panels) % 4
    line += len(panels) // 4 * 10
    for i, run in enumerate(models):
        lines = run['sample'].expandtabs(4).splitlines()[:8 // len(group)]
        write(line + 1 + 3 * i, '\n'.join(text[:40 * n_free] for text in lines),
              x=1.03 - 0.25 * n_free, color=run['color'], family='monospace', size=8)
    line += 10 if n_free < 4 else 7
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2], bbox_inches='tight')
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
