"""
Plot training runs: does the model learn, and does the machine run at full speed?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs='out/*'                                   # all runs in out

plot.py reads metrics.jsonl in a run's folder, and config.json if it exists. It
draws the metrics of the model, and below them those of the machine. A fast machine on which a model
learns nothing costs as much as a good run, so look at both. Runs of the same stage share panels,
and the legend shows each run's last val_bpb and the settings that differ between the runs. Losses
can be compared only between runs with the same tokenizer, bits per byte between any two runs.

You should see a loss that falls ever more slowly, and a constant speed. plot.py also detects five
common failures, and prints a sentence about each; for the remedies see docs/trouble.md, "While it
trains". To use plot.py elsewhere, copy configurator.py, too, and install numpy and matplotlib.
"""
import json, math, pathlib, re, textwrap
import numpy as np
from configurator import configure, find_paths, require, require_writable

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders of runs; several: A,B or out/*
out = 'dashboard.png'       # or .svg, .pdf

# A panel is (title, scale, unit and healthy values, *regexes of metric names in metrics.jsonl). The
# first metric has a thick line. If no run logs it, the panel is omitted: rl.py logs no val_loss, so
# its loss, which does not measure progress, is not drawn.
MODEL = [
    ('loss', 1, 'nats: falls, ever more slowly', 'val_loss', 'loss', 'preference_loss'),
    ('bits per byte', 1, 'falls; thin lines: sources', 'val_bpb', 'val_.+_bpb'),
    ('base text', 1, 'bits per byte: a rise means forgetting', 'base_bpb'),
    ('accuracy', 100, '% of the pairs: rises from 50', 'val_accuracy', 'accuracy'),
    ('margin', 1, 'chosen minus rejected reward: rises', 'val_margin', 'margin'),
    ('reward', 1, 'mean of the answers: rises', 'val_reward', 'reward'),
    ('informative', 100, '% with non-zero advantages: above 0', 'informative'),
    ('length', 1, 'tokens per answer: constant', 'val_length', 'length'),
    ('entropy', 1, 'nats per token: not 0', 'entropy'),
    ('KL', 1, 'nats from the reference model: near 0', 'kl'),
    ('log ratio', 1, 'log policy / reference, nats: near 0', 'log_ratio', 'val_log_ratio'),
    ('clipped', 100, '% of the tokens: a few', 'clip_fraction'),
    ('gradient norm', 1, 'before clipping: few spikes', 'grad_norm'),
    ('learning rate', 1, 'warmup, then decay', 'lr')]
MACHINE = [
    ('step time', 1, 'seconds: flat', 'dt'),
    ('speed', 1, 'tokens per second: flat', 'tok_s'),
    ('memory', 1, 'MB: flat', 'memory_mb'),
    ('data loading', 100, '% of the step time: near 0', 'data_share'),
    ('MFU', 100, '% of the peak FLOPS: 30 or more', 'mfu'),
    ('skipped', 1, 'optimizer updates: 0', 'skipped')]
COLUMNS, WIDTH, HEIGHT = 4, 14, 3.2             # panels per row; inches per row


# --- read metrics.jsonl ---------------------------------------------------------------------------
def read_rows(path):
    """Return the rows of metrics.jsonl, sorted by step, without those that were replaced on resume.

    A step has at most one training row and one evaluation row. Only the training row has `loss`:
        {"step": 20, "loss": 3.1, "lr": 0.001, ...}        {"step": 20, "val_loss": 3.3, ...}
    Trainers only append, so a resumed run logs the steps after its checkpoint again. A repeated row
    replaces the first one. Where the step decreases, the run was resumed, so the rows of later
    steps are dropped: of the steps 10 20 30 20 40, the rows 10 20' 40 remain."""
    kept, newest = {}, 0        # kept: {(step, is_evaluation): row}
    for line in path.read_text('utf-8', 'replace').splitlines():
        try:
            row = json.loads(line)
        except ValueError:      # the line is being written, or was when the run was killed
            continue
        step = row['step']
        if step < newest:
            kept = {key: old for key, old in kept.items() if key[0] <= step}
        newest = step
        if row.get('data_s') and row.get('dt'):
            row['data_share'] = row['data_s'] / row['dt']
        kept[step, 'loss' not in row] = row
    return [kept[key] for key in sorted(kept)]


def curve(rows, name):
    """Return steps and values of a metric, float (n,), without rows where it is missing or nan."""
    points = [(row['step'], row[name]) for row in rows
              if row.get(name) is not None and math.isfinite(row[name])]
    return np.array(points, dtype=float).reshape(-1, 2).T


# --- detect failures ------------------------------------------------------------------------------
FLAT = 1.01         # losses within 1% count as equal, because evaluations are noisy
LEARNED = 0.5       # nats below ln V that token frequencies alone achieve
STEADY = 0.8        # fraction of the median speed that still counts as full speed


def find_failures(rows, V):
    """Yield a sentence for each failure of a run: the model guesses, its loss rises, its loss stays
    flat, it memorizes, or it does not learn although the machine runs at full speed.

    V is the vocabulary size. A model that knows nothing gives each token the probability 1 / V, so
    its loss is ln V. In the validation losses 6 5 4 4.02 4 4.01, the last four are a plateau. If
    the last loss were the lowest, the loss would still be falling."""
    steps, val = curve(rows, 'val_loss')
    if len(val) < 2:            # the first evaluation precedes training
        return
    last, best = val[-1], val.argmin()
    late = val[-max(4, len(val) // 4):]         # the last quarter; fewer than four may be chance
    failure = ''
    if val[best] > math.log(V) - LEARNED:
        failure = (f'The loss is {val[best]:.3g} at best, near ln V = {math.log(V):.2f}, the loss '
                   'of guessing.')
    elif last > FLAT * val[best]:
        failure = (f'The loss drifts upward: it is {last:.3g} at step {steps[-1]:,.0f}, and was '
                   f'{val[best]:.3g} at step {steps[best]:,.0f}.')
    elif len(late) >= 4 and late.max() <= FLAT * late.min() and late.argmin() < len(late) - 1:
        failure = f'A plateau: the loss is {last:.3g}, flat since step {steps[-len(late)]:,.0f}.'
    if failure:
        yield failure
    # dpo.py's loss may have a second part (--nll_weight), which val_loss and preference_loss lack.
    name = 'preference_loss' if any('preference_loss' in row for row in rows) else 'loss'
    at, losses = curve(rows, name)
    recent = losses[at <= steps[-1]][-10:]      # ten batches before the last evaluation
    if len(recent) and last > FLAT * recent.max():      # above even the hardest batch
        gap = last - np.median(recent)
        yield f'It memorizes: the validation loss is {gap:.2g} above the training loss.'
    speed = curve(rows, 'tok_s')[1][1:]         # the first step compiles
    if failure and len(speed) > 20 and np.median(speed[-10:]) > STEADY * np.median(speed):
        yield 'The machine is as fast as before, but the model does not learn.'


def logged_panels(panels, group):
    """Return the panels whose first metric at least one run of the group has logged."""
    return [panel for panel in panels if any(curve(run['rows'], panel[3]).size for run in group)]


configure(globals())
require(out.endswith(('.png', '.svg', '.pdf')), f'{out=} must end with .png, .svg or .pdf')
require_writable(out)

# --- read the runs and print their failures -------------------------------------------------------
all_runs = []                       # a dict for each run
runs = runs.replace('/metrics.jsonl', '')       # a run's folder, given the file in it
for log in dict.fromkeys(map(pathlib.Path, find_paths(runs, '/metrics.jsonl'))):
    require(log.exists(), f"{log} is missing; --runs='out/*' shows all runs in out; for a first "
            'one, run: python clean.py && python prepare.py && python train.py')
    folder, rows = log.parent, read_rows(log)
    if not rows:
        print(f'{folder}: no step has been logged yet')
        continue
    config = json.loads(path.read_bytes()) if (path := folder / 'config.json').exists() else {}
    stage = config.get('stage', 'base')
    # sft.py and dpo.py write `steps`, because with epochs their max_steps is 0
    end = config.get('steps') or config.get('max_steps') or rows[-1]['step']
    all_runs.append({'title': f'{folder} ({stage}, step {rows[-1]["step"]:,} of {end:,})',
                     'stage': stage, 'config': config, 'rows': rows, 'end': end,
                     'color': f'C{len(all_runs)}'})
require(all_runs, f'{runs} has no step to draw yet')
parts = []                          # (headline, panels, runs)
for stage in dict.fromkeys(run['stage'] for run in all_runs):
    group = [run for run in all_runs if run['stage'] == stage]
    for run in group:       # add the last val_bpb and the settings that differ to its title
        facts = [f'val_bpb {value:.4f}' for value in curve(run['rows'], 'val_bpb')[1][-1:]]
        facts += [f'{name}={value}' for name, value in run['config'].items() if name != 'out_dir'
                  and any(other['config'].get(name, value) != value for other in group)]
        run['title'] = textwrap.fill(', '.join([run['title'], *facts]), 180)
        V = run['config'].get('vocab_size') or math.inf
        print(f'\n{run["title"]}', *find_failures(run['rows'], V), sep='\n  ')
    parts.append((f'model, {stage}: does it learn?', logged_panels(MODEL, group), group))
parts.append(('machine: does it run at full speed? (x axis: % of the steps)',
              logged_panels(MACHINE, all_runs), all_runs))
parts = [part for part in parts if part[1]]

# --- draw -----------------------------------------------------------------------------------------
from matplotlib import figure, rcParams     # noqa: E402    so text works without it
# a folder's name may contain $
rcParams.update({'text.parse_math': False, 'axes.grid': True, 'grid.alpha': 0.3})


def draw_panel(ax, group, is_machine, title, scale, subtitle, *patterns):
    """Draw one panel: the metrics that match patterns, of each run of a group."""
    names = {name for run in group for row in run['rows'] for name in row
             if re.fullmatch('|'.join(patterns), name)}
    visible = []
    for run in group:
        for name in sorted(names):
            x, y = curve(run['rows'], name)
            width, label = (2, run['title']) if name == patterns[0] else (1.2, None)
            ax.plot(100 * x / run['end'] if is_machine else x, scale * y, color=run['color'],
                    marker='o' if len(x) < 16 else '', linewidth=width, label=label, markersize=3)
            # A loss begins high, so the first tenth of the steps does not raise the upper limit of
            # the y axis. An accuracy begins low, so these steps may lower the lower limit.
            late = y[x >= x.max(initial=0) / 10]
            visible += [*(late if is_machine else np.minimum(y, late.max(initial=-math.inf)))]
    # the quantile 0.98 cuts off spikes of a model's metrics
    low, high = scale * np.quantile(visible, [0, 1 if is_machine else 0.98])
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1
    ax.set_ylim(low - margin, high + margin)
    ax.set_title(f'{title}\n{subtitle}', loc='left', size=9)


n_rows = [math.ceil(len(shown) / COLUMNS) for _, shown, _ in parts]
fig = figure.Figure((WIDTH, HEIGHT * sum(n_rows)), layout='constrained')
figures = fig.subfigures(len(parts), squeeze=False, height_ratios=n_rows)[:, 0]
for part, n, (headline, shown, group) in zip(figures, n_rows, parts):
    axes = part.subplots(n, COLUMNS, squeeze=False).flatten()
    for ax, panel in zip(axes, shown):
        draw_panel(ax, group, panel in MACHINE, *panel)
    part.legend(*axes[0].get_legend_handles_labels(), title=headline, title_fontsize=12, fontsize=8,
                loc='outside upper left', alignment='left', frameon=False, labelspacing=0.2)
    for ax in axes[len(shown):]:
        ax.set_axis_off()
fig.savefig(out)
print(f'written to {out}')
