"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs=out/mine --reference=other_seeds.jsonl    # see bench/curves.py

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a
verdict on each run and draws them: panels for each stage, then those of the machine. Runs of the
same stage share panels. A run that was resumed is one curve, because it goes on in the same
metrics.jsonl, without the rows behind its checkpoint. Losses of two tokenizers do not compare, bits
per byte do.

The verdict (parts/eval/verdict.py) has two halves. The machine is healthy if tokens per second did
not fall by a fifth and less than a fifth of the time waits for data. The model is healthy if none
of these is true:
    - its loss is not a number, or after the warm-up still near ln(vocab_size), as in a model that
      knows nothing; it was rolled back twice
    - its held-out loss rises, or is flat: twice the steps brought less than 1%
    - its samples repeat themselves; eval.py found that it solves nothing. So a falling loss alone
      is not health.
    - of rl.py: no answer earns more than another, or the held-out reward does not rise
Spikes are train.py's: a loss or gradient spike_z deviations above those of the last spike_window
steps, because noise stays within a few.
"""
import math, os, pathlib, re, textwrap, warnings
import numpy as np
from configurator import Mistake, configure, show
from parts.eval import verdict

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote, comma-separated
out = 'dashboard.png'       # or .svg, .pdf
reference = ''              # curves to draw behind; '' = config/curves of the run's preset
config = configure(globals())
if not out.endswith(('.png', '.svg', '.pdf')):
    raise Mistake(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')

# --- 1. read, and judge ---------------------------------------------------------------------------
# A run is a dict: 'rows' and 'events' of its metrics.jsonl, 'config', 'sample' and what is added
# here, such as 'why': '19,446 tok/s, validation loss 3.19. To do: let it run.'
all_runs = []
for folder in runs.split(','):
    run = verdict.read_run(folder.strip().rstrip('/'))
    if not run['rows']:
        raise Mistake(f'{run["name"]}/metrics.jsonl is missing or has no complete line yet; '
                      f'make a run: python train.py --out_dir={run["name"]}, or wait a minute')
    step = run['rows'][-1]['step']
    run['end'] = run['config'].get('max_steps') or step or 1
    run['title'] = f'{run["name"]} (step {step:,} of {run["end"]:,})'
    run['color'] = f'C{len(all_runs)}'
    # A run that kept what matters of config/NAME.py still has its `expect`. So the curves of other
    # seeds in config/curves/NAME.jsonl are those of the same run.
    name = run['config'].get('expect') and run['config'].get('preset')
    curves = verdict.text_of(pathlib.Path(reference or f'config/curves/{name}.jsonl'))
    run['behind'] = [curve for curve in map(verdict.object_of, curves.splitlines())
                     if curve.get('stage') == run['config'].get('stage', 'base')]
    systems, model, run['why'] = verdict.verdict(run['rows'] + run['events'], run['config'])
    run['health'] = [f'operationally {systems}', f'scientifically {model}']
    all_runs.append(run)
if reference and not any(run['behind'] for run in all_runs):
    raise Mistake(f'reference={reference} has no curves of this stage; bench/curves.py writes them')
show(config)
for run in all_runs:
    print(f'{run["title"]}: {", ".join(run["health"])}: {run["why"]}')

# --- 2. panels ------------------------------------------------------------------------------------
# Each is a title, a meaning and metrics, first the one that counts. A meaning with a % says that
# the metrics are fractions, so they are drawn times 100.
LOSS = 'loss', 'nats per token', 'val_loss loss'
GRADIENT = 'gradient norm', 'before it is clipped', 'grad_norm'
SOURCES = sorted({key for run in all_runs for row in run['rows'] for key in row
                  if re.fullmatch('val_.+_bpb', key)})
OF_MODELS = {
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
           ('clipped', '% of the tokens', 'clip_fraction')]}
OF_MACHINES = [('step time', 'seconds', 'dt'), ('speed', 'tokens per second', 'tok_s'),
               ('memory', 'MB', 'memory_mb'),
               ('waits', '% for data; dashed: eval, save', 'data_share eval_share save_share'),
               ('GPU', '% of its peak', 'mfu'), ('skipped', 'updates', 'skipped')]


def points(run, key):
    """Return (steps, values) of a metric; () if it has fewer than two finite values, or only 0."""
    finite = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))]
    values = verdict.column(finite, key)
    return (verdict.column(finite, 'step'), values) if len(values) > 1 and values.any() else ()


# --- 3. one panel ---------------------------------------------------------------------------------
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


def short(x, _=None):
    """0.1234 -> 0.123; 1234 -> 1,234"""
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def smooth(values):
    """Return the mean of the values around each one, over 2% of the run."""
    width = len(values) // 100 * 2 + 1              # odd, so that the middle one is itself
    padded = np.pad(values, width // 2, 'edge')
    return np.convolve(padded, np.ones(width) / width, 'valid')


def draw(ax, group, title, meaning, metrics, of_machine=False):
    """Draw metrics of runs over their steps, or those of the machine over percent of the steps.
    What was measured is pale, and a smooth line lies over it, bold for the metric that counts."""
    metrics = metrics.split()
    visible = [0] * of_machine      # what must fit: not the first tenth, often far above the rest
    ends = []                       # (last value, color) of each bold line
    for run in group:
        for curve in run['behind']:
            if curve['metric'] in metrics:
                ax.plot(curve['steps'], curve['values'], color='#aab2bb', zorder=1)
                visible += curve['values']
        measured = [key for key in metrics if points(run, key)]
        for key in measured:
            x, y = points(run, key)
            x = x * (100 / run['end'] if of_machine else 1)
            y = y * (100 if '%' in meaning else 1)
            # loss and val_loss are one metric on two texts, so both are solid; others are dashed.
            style = '-' if metrics[0].endswith(key) else '--'
            style += 'o' if len(x) < 16 else ''
            ax.plot(x, y, color=run['color'], linewidth=0.8, alpha=0.3)
            ax.plot(x, smooth(y), style, color=run['color'],
                    linewidth=2.2 if key == measured[0] else 1.2)
            visible += [*smooth(y)[len(y) // 10:]]
            ends += [(y[-1], run['color'])] if key == measured[0] else []

    # The machine's axes begin at 0. The others fit what is drawn, but for the highest 2%.
    low, high = np.quantile(visible, [0, 0.98])
    margin = 0.1 * (high - low or 1)
    low, high = low and low - margin, high + margin
    ax.set_ylim(low, high)
    ax.locator_params(nbins=3)
    ax.xaxis.set_major_formatter(short)
    ax.yaxis.set_major_formatter(short)
    ax.set_title(title, loc='left', weight='bold', pad=20)
    ax.text(0, 1.06, meaning, transform=ax.transAxes, color=GREY)
    height = -1         # of a number, in heights of the panel; the next one is at least 0.13 above
    for value, color in sorted(ends):
        height = max(height + 0.13, min(1, (value - low) / (high - low)))
        ax.text(1.03, height, short(value), transform=ax.transAxes, va='center', color=color,
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


# --- 4. the picture: one long page ----------------------------------------------------------------
# Its unit is a line of text, 0.2 inches. The page has more lines than it needs, in four columns;
# the empty ones at the end are cut off. A panel takes 10 lines of one column:
#     0 to 2 title and meaning | 2 to 8 axes | 8 to 10 numbers of the steps, and air
LINES = 300
fig = figure.Figure(figsize=(12, LINES / 5), dpi=150)
grid = fig.add_gridspec(LINES, 4, left=0.04, right=0.95, bottom=0, top=1, wspace=0.55, hspace=0)


def write(line, text, x=0.0, **style):
    """Write text that begins at a line, x of the width from the left."""
    fig.text(x, 1 - line / LINES, text, va='top', **style)


def draw_panels(line, group, panels, of_machine=False):
    """Draw the panels of which a run has points, from a line on. Return how many they are."""
    panels = [panel for panel in panels
              if any(points(run, key) for run in group for key in panel[2].split())]
    for i, panel in enumerate(panels):
        top = line + 2 + i // 4 * 10
        draw(fig.add_subplot(grid[top:top + 6, i % 4]), group, *panel, of_machine)
    return len(panels)


write(0, 'model: are we flying to the right place?', size=14, weight='bold')
write(1.5, 'across: steps, or for systems percent of them; bold: what counts; circles: few points; '
      'yellow: the rate rises; blue: it is below half; hairlines: spikes, rollbacks and the like; '
      'gray: other seeds', color=GREY, size=9)
line = 3
for stage, panels in OF_MODELS.items():
    group = [run for run in all_runs if run['config'].get('stage', 'base') == stage]
    if not group:
        continue
    for run in group:
        write(line, f'━ {stage}: {run["title"]}', color=run['color'], weight='bold', size=12)
        for x, health in zip((0.73, 0.95), run['health']):
            color = '#cf222e' if 'unhealthy' in health else '#1a7f37'
            write(line, f'● {health}', x=x, color=color, weight='bold', ha='right')
        why = textwrap.wrap(run['why'], 140)
        write(line + 1.2, '\n'.join(why))
        line += 2 + len(why)

    # The last sample of each run is written into the columns that the last row of panels leaves.
    n_panels = draw_panels(line, group, panels)
    n_free = 4 - n_panels % 4
    line += n_panels // 4 * 10
    for i, run in enumerate(group):
        lines = run['sample'].expandtabs(4).splitlines()[:8 // len(group)]
        write(line + 1 + 3 * i, '\n'.join(text[:40 * n_free] for text in lines),
              x=1.03 - 0.25 * n_free, color=run['color'], family='monospace', size=8)
    line += 10 if n_free < 4 else 7
write(line, 'systems: is the engine running?', size=14, weight='bold')
draw_panels(line + 2, all_runs, OF_MACHINES, of_machine=True)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2], bbox_inches='tight')
os.replace(f'{out}.tmp', out)                   # whoever watches the picture sees a whole one
print(f'{out} is written')
