"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs=out/mine --reference=other_seeds.jsonl    # bench/curves.py wrote these

Reads metrics.jsonl, config.json, data.json, samples.txt and eval*.json of each run. Prints a
verdict on each run and draws them: panels for each stage, then those of the machine. Runs of the
same stage share panels. Losses of two tokenizers do not compare, bits per byte do.

The verdict (parts/eval/verdict.py) has two halves. The machine is healthy if tokens per second did
not fall by a fifth and less than a fifth of the time waits for data. The model is healthy if none
of these is true:
    - its loss is not a number, or after the warm-up still near ln(vocab_size), as in a model that
      knows nothing; it was rolled back twice
    - its held-out loss rises, or is flat: twice the steps brought less than 1%
    - its samples repeat themselves; eval.py found that it solves nothing. So a falling loss alone
      is not health.
    - of rl.py: no answer earns more than another, or the held-out reward falls, or does not
      rise from below 0.9
"""
import math, os, pathlib, re, textwrap, warnings
import numpy as np
from configurator import Mistake, configure, show
from parts.eval import verdict

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote, comma-separated
out = 'dashboard.png'       # or .svg, .pdf
reference = ''              # curves of other runs, drawn in gray behind these; '' = none
config = configure(globals())
if not out.endswith(('.png', '.svg', '.pdf')):
    raise Mistake(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')

# --- 1. panels: what is drawn, and how it looks if all is well ------------------------------------
# A panel is a title, a meaning and one or more metrics of metrics.jsonl. The first one counts: its
# line is thick. A meaning that begins with % is about fractions, which are drawn times 100.
LOSS = ('loss', 'nats per token: falls, ever slower', 'val_loss', 'loss')
GRADIENT = ('gradient norm', 'before it is clipped: few spikes', 'grad_norm')
PANELS = {
    'base': [
        LOSS,
        ('bits per byte', 'falls; thin: by source', 'val_bpb', r'val_.+_bpb'),
        ('samples', '% pass; thin: parse, repeat', 'pass_rate', 'parse_rate', 'repetition'),
        GRADIENT,
        ('update', '% of the weights: about 0.1', 'update_ratio'),
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
        ('KL', 'of an answer, in nats: a few', 'val_kl', 'kl')],
    'rl': [
        ('reward', 'mean of the answers: rises', 'val_reward', 'reward'),
        ('informative', '% of prompts that teach: never 0', 'informative'),
        ('length', 'tokens of an answer: steady', 'val_length', 'length'),
        ('entropy', 'nats per token: not 0; thin: KL', 'entropy', 'kl'),
        ('clipped', '% of the tokens: a few', 'clip_fraction')],
    'systems': [
        ('step time', 'seconds: flat', 'dt'),
        ('speed', 'tokens per second: flat', 'tok_s'),
        ('memory', 'MB: flat', 'memory_mb'),
        ('waits', '% for data: near 0; thin: evaluation', 'data_share', 'eval_share'),
        ('GPU', '% of its peak: 30 or more', 'mfu'),
        ('skipped', 'updates: none', 'skipped')]}

# --- 2. read, and judge ---------------------------------------------------------------------------
# A run is a dict: see verdict.read_run for what it has, and here for what is added.
all_runs = []
for folder in runs.split(','):
    run = verdict.read_run(folder.strip().rstrip('/'))
    if not run['rows']:
        raise Mistake(f'{run["name"]}/metrics.jsonl is missing or has no complete line yet; '
                      f'make a run: python train.py --out_dir={run["name"]}, or wait a minute')
    run['stage'] = run['config'].get('stage', 'base')
    run['color'] = f'C{len(all_runs)}'
    step = run['rows'][-1]['step']
    run['end'] = run['config'].get('max_steps') or step or 1
    run['title'] = f'{run["name"]} (step {step:,} of {run["end"]:,})'
    systems, model, run['why'] = verdict.verdict(run['rows'] + run['events'], run['config'])
    run['health'] = [f'operationally {systems}', f'scientifically {model}']

    # {metric: (steps, values)} of the metrics that have two numbers or more, and not only zeros
    run['curves'] = {}
    for key in sorted({key for row in run['rows'] for key in row}):
        finite = [row for row in run['rows'] if math.isfinite(row.get(key, math.nan))]
        values = verdict.column(finite, key)
        if len(values) > 1 and values.any():
            run['curves'][key] = verdict.column(finite, 'step'), values
    all_runs.append(run)

# Dicts of "stage", "metric", "seed", "steps" and "values".
curves = verdict.text_of(pathlib.Path(reference)) if reference else ''
others = [curve for curve in map(verdict.object_of, curves.splitlines()) if 'values' in curve]
if reference and not others:
    raise Mistake(f'reference={reference} is missing or has no curves; bench/curves.py writes them')
show(config)
for run in all_runs:
    print(f'{run["title"]}: {", ".join(run["health"])}: {run["why"]}')

# --- 3. one panel ---------------------------------------------------------------------------------
try:        # --help and the verdict do without
    from matplotlib import figure, rcParams
except ImportError as e:
    raise Mistake(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold what the font does not
GRAY = '#5c6570'
rcParams.update({
    'text.parse_math': False, 'lines.markerfacecolor': 'w', 'axes.grid': True, 'axes.xmargin': 0,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#b8bfc8',
    'grid.color': '#e7eaee', 'xtick.color': GRAY, 'ytick.color': GRAY})


def short(x, _=None):
    """0.1234 -> 0.123; 1234 -> 1,234"""
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def smooth(values):
    """Return the mean of the values around each one, over 2% of the run."""
    window = np.ones(len(values) // 100 * 2 + 1)    # an odd number, so that the middle is the value
    n_values = np.convolve(np.ones(len(values)), window, 'same')        # fewer at both ends
    return np.convolve(values, window, 'same') / n_values


def names_in(run, metrics):
    """Return the metrics of a panel that a run has. A name may be a pattern: several sources."""
    return [name for pattern in metrics for name in run['curves'] if re.fullmatch(pattern, name)]


def draw_panel(cell, group, of_machine, title, meaning, *metrics):
    """Draw a panel for a group of runs: over the steps, or for the machine over percent of them,
    because there runs of any length share it."""
    cell.text(0.14, 0.95, title, weight='bold', size=12)
    cell.text(0.14, 0.86, meaning, color=GRAY, size=9)
    ax = cell.inset_axes([0.14, 0.17, 0.65, 0.63])      # left, bottom, width, height in the cell

    scale = 100 if meaning.startswith('%') else 1
    for curve in others:
        if curve['stage'] == group[0]['stage'] and curve['metric'] == metrics[0] and not of_machine:
            ax.plot(curve['steps'], np.array(curve['values']) * scale, color='#aab2bb')
    visible = [0] if of_machine else []
    ends = []                       # (last value, color) of the first line of each run
    for run in group:
        names = names_in(run, metrics)
        for name in names:
            steps, values = run['curves'][name]
            x = steps * 100 / run['end'] if of_machine else steps
            y = smooth(values * scale)
            # What was measured is pale. Over it lies the smooth line, with circles if it has few
            # points, because a line through two of them says little.
            ax.plot(x, values * scale, color=run['color'], linewidth=0.8, alpha=0.3)
            ax.plot(x, y, 'o-' if len(x) < 16 else '-', color=run['color'],
                    linewidth=2.2 if name == metrics[0] else 1.2)
            visible += [*y[len(y) // 10:]]          # the first tenth is often far above the rest
            if name == names[0]:
                ends.append((y[-1], run['color']))

    low, high = np.quantile(visible, [0, 0.98])     # the highest 2% are spikes
    margin = 0.1 * (high - low or 1)
    low, high = low - margin, high + margin
    ax.set_ylim(low, high)
    ax.locator_params(nbins=3)
    ax.xaxis.set_major_formatter(short)
    ax.yaxis.set_major_formatter(short)

    height = -1         # of a number, in heights of the panel; the next one is at least 0.13 above
    for value, color in sorted(ends):
        height = max(height + 0.13, min(1, (value - low) / (high - low)))
        ax.text(1.03, height, short(value), transform=ax.transAxes, va='center', color=color,
                weight='bold')
    if not of_machine:
        mark_phases(ax, group)


def mark_phases(ax, group):
    """Shade where the rate rises (yellow) and where it is below half of its peak (blue); draw a
    hairline for each event."""
    if 'lr' in group[0]['curves']:
        steps, rates = group[0]['curves']['lr']
        peak = rates.argmax()
        ax.axvspan(0, steps[peak], color='#fdf4e1')
        late = steps[(steps > steps[peak]) & (rates < rates[peak] / 2)]
        if len(late):
            ax.axvspan(late[0], late[-1], color='#ebf2f9')
    for run in group:
        for event in run['events']:
            ax.axvline(event['step'], color=run['color'], linewidth=0.7, alpha=0.4)


# --- 4. the page: rows of up to four cells --------------------------------------------------------
def write(cell, text, color='black', size=10, weight='normal', family='sans-serif'):
    cell.text(0, 1, text, va='top', color=color, size=size, weight=weight, family=family)


# A row is its height in inches and its cells; a cell is a function, which draws into it, and the
# function's other arguments. All cells have the width of a panel, and text may run into the next.
page = [(0.3, [(write, 'model: are we flying to the right place?', 'black', 14, 'bold')]),
        (0.3, [(write, 'Across: steps, or for systems percent of them. Thick: what counts. Pale: '
                'as measured. Yellow: the learning rate rises; blue: it is below half of its peak. '
                'Hairlines: spikes, rollbacks and the like.', GRAY, 8)])]
for stage, panels in PANELS.items():
    is_machine = stage == 'systems'
    group = [run for run in all_runs if is_machine or run['stage'] == stage]
    cells = [(draw_panel, group, is_machine, *panel) for panel in panels
             if any(names_in(run, panel[2:]) for run in group)]
    if is_machine:
        page.append((0.4, [(write, 'systems: is the engine running?', 'black', 14, 'bold')]))
        group = []          # their verdicts and samples are above
    for run in group:
        head = [(write, f'━ {stage}: {run["title"]}', run['color'], 12, 'bold'), (write, '')]
        for health in run['health']:
            color = '#cf222e' if 'unhealthy' in health else '#1a7f37'
            head.append((write, f'● {health}', color, 10, 'bold'))
        page += [(0.25, head), (0.42, [(write, textwrap.fill(run['why'], 150))])]
        # The run's last sample goes behind the panels, into what is left of their last row.
        width = 42 * (4 - len(cells) % 4)
        lines = [line[:width] for line in run['sample'].expandtabs(4).splitlines()[:12]]
        if lines:
            cells.append((write, '\n'.join(lines), run['color'], 7.5, 'normal', 'monospace'))
    page += [(2, cells[i:i + 4]) for i in range(0, len(cells), 4)]

heights = [height for height, _ in page]
fig = figure.Figure(figsize=(12, sum(heights)), dpi=150)
grid = fig.subplots(len(page), 4, gridspec_kw={'height_ratios': heights})
fig.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0, hspace=0)
for cell in grid.flat:
    cell.axis('off')
for places, (_, cells) in zip(grid, page):
    for place, (draw, *arguments) in zip(places, cells):
        draw(place, *arguments)
fig.savefig(f'{out}.tmp', format=out.rpartition('.')[2], bbox_inches='tight')
os.replace(f'{out}.tmp', out)       # whoever watches the picture sees a whole one
print(f'{out} is written')
