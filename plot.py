"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs='out/*'                                   # all

It reads metrics.jsonl in the folder of a run, and config.json and samples.txt if they are there. It
draws the curves of the model, and below them those of the machine. A fast machine on which a model
learns nothing costs as much as a good run, so look at both. Runs of the same stage share their
panels, and next to their names are their last val_bpb and the settings in which they differ.
Compare losses only between runs with the same tokenizer; bits per byte can be compared between any
two.

You should see a loss that falls ever slower, and a speed that stays. find_troubles() detects five
common failures in the losses and prints a sentence about each; docs/trouble.md says what to do,
under "While it trains". Copy this file with configurator.py; it needs numpy and matplotlib.
"""
import json, math, pathlib, re, textwrap, warnings
import numpy as np
from configurator import configure, find_paths, require, require_writable

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote; several: A,B or out/*
out = 'dashboard.png'       # or .svg, .pdf

# A panel: a title, a scale, how it looks if all is well, then names in metrics.jsonl, or patterns
# of them. The first name is drawn thick; without it there is no panel: rl.py has no val_loss, so
# its loss, which says little, is not drawn.
MODEL = [
    ('loss', 1, 'nats: falls, ever slower', 'val_loss', 'loss', 'preference_loss'),
    ('bits per byte', 1, 'falls; thin: by source', 'val_bpb', 'val_.+_bpb'),
    ('base text', 1, 'bits per byte: a rise is forgetting', 'base_bpb'),
    ('right order', 100, '% of the pairs: rises from 50', 'val_accuracy', 'accuracy'),
    ('margin', 1, 'lead of the better answer: rises', 'val_margin', 'margin'),
    ('reward', 1, 'mean of the answers: rises', 'val_reward', 'reward'),
    ('informative', 100, '% of prompts that teach: never 0', 'informative'),
    ('length', 1, 'tokens of an answer: steady', 'val_length', 'length'),
    ('entropy', 1, 'nats per token: not 0', 'entropy'),
    ('KL', 1, 'nats away from the reference: near 0', 'kl'),
    ('log ratio', 1, 'nats that both answers gained: near 0', 'log_ratio', 'val_log_ratio'),
    ('clipped', 100, '% of the tokens: a few', 'clip_fraction'),
    ('gradient norm', 1, 'before it is clipped: few spikes', 'grad_norm'),
    ('learning rate', 1, 'as planned: up, then down', 'lr')]
MACHINE = [
    ('step time', 1, 'seconds: flat', 'dt'),
    ('speed', 1, 'tokens per second: flat', 'tok_s'),
    ('memory', 1, 'MB: flat', 'memory_mb'),
    ('waits', 100, '% of the time, for data: near 0', 'data_share'),
    ('GPU', 100, '% of its peak: 30 or more', 'mfu'),
    ('skipped', 1, 'updates: none', 'skipped')]
COLUMNS, WIDTH, HEIGHT = 4, 14, 3.2             # panels in a row; inches, of a row


# --- what is read ---------------------------------------------------------------------------------
def read_text(path):
    """Return the text of a file, or '' if there is none."""
    return path.read_text('utf-8', 'replace') if path.is_file() else ''


def read_rows(path):
    """Return the rows of a metrics.jsonl that count, in the order of their steps.

    It has two kinds of rows, and a step may have one of each. Only a row of training has `loss`:
        {"step": 20, "loss": 3.1, "lr": 0.001, ...}        {"step": 20, "val_loss": 3.3, ...}
    A trainer only appends, so a run that was killed and resumed has some steps twice. The last row
    of a step counts. When steps go back, all later rows were lost with the killed run: of
    10 20 30 20 40, the rows 10 20' 40 remain."""
    kept, newest = {}, 0        # kept: {(step, is it an evaluation?): row}
    for line in read_text(path).splitlines():
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
    """Return steps and values, float (n,) each, of rows with a finite number. A nan is null."""
    points = [(row['step'], row[name]) for row in rows
              if row.get(name) is not None and math.isfinite(row[name])]
    return np.array(points, dtype=float).reshape(-1, 2).T


# --- what is seen ---------------------------------------------------------------------------------
FLAT = 1.01         # losses within 1% are equal: so much is noise between evaluations
LEARNED = 0.5       # nats that a model gains as soon as it knows how often each token occurs
STEADY = 0.8        # part of the usual speed that other programs on the machine leave to a run


def find_troubles(rows, V):
    """Yield a sentence for each trouble that the losses of a run show: it guesses, drifts upward,
    stays flat, or memorizes; or it does not learn on a machine that is fast.

    V is the number of tokens. A model that knows nothing gives each of them the probability 1 / V,
    so its loss is ln V. Of the validation losses 6 5 4 4.02 4 4.01 the last four are flat. If the
    last one were the lowest, the loss would still be falling."""
    steps, val = curve(rows, 'val_loss')
    if len(val) < 2:            # the first one is taken before the model has learned anything
        return
    last, best = val[-1], val.argmin()
    late = val[-max(4, len(val) // 4):]         # the last quarter; fewer than four may be chance
    trouble = ''
    if val[best] > math.log(V) - LEARNED:
        trouble = (f'The loss is {val[best]:.3g} at best, near ln V = {math.log(V):.2f}: that is '
                   'guessing.')
    elif last > FLAT * val[best]:
        trouble = (f'The loss drifts upward: it is {last:.3g} at step {steps[-1]:,.0f}, and was '
                   f'{val[best]:.3g} at step {steps[best]:,.0f}.')
    elif len(late) >= 4 and late.max() <= FLAT * late.min() and late.argmin() < len(late) - 1:
        trouble = f'A plateau: the loss is {last:.3g}, flat since step {steps[-len(late)]:,.0f}.'
    if trouble:
        yield trouble
    # dpo.py's loss may have a second part (--nll_weight), which val_loss and preference_loss lack.
    name = 'preference_loss' if any('preference_loss' in row for row in rows) else 'loss'
    at, losses = curve(rows, name)
    recent = losses[at <= steps[-1]][-10:]      # the ten before the last evaluation
    if len(recent) and last > FLAT * recent.max():      # also above the hardest batch
        gap = last - np.median(recent)
        yield f'It memorizes: the validation loss is {gap:.2g} above the loss of training.'
    speed = curve(rows, 'tok_s')[1][1:]         # the first step compiles
    if trouble and len(speed) > 20 and np.median(speed[-10:]) > STEADY * np.median(speed):
        yield 'The machine is as fast as before, but the model does not learn.'


def logged(panels, group):
    """Return the panels whose first name one of these runs has logged."""
    return [panel for panel in panels if any(curve(run['rows'], panel[3]).size for run in group)]


configure(globals())
require(out.endswith(('.png', '.svg', '.pdf')), f'{out=} must end with .png, .svg or .pdf')
require_writable(out)

# --- read, and say what is seen -------------------------------------------------------------------
all_runs = []                       # what is drawn of each
for log in dict.fromkeys(map(pathlib.Path, find_paths(runs, '/metrics.jsonl'))):
    require(log.exists(), f"{log} is missing; --runs='out/*' shows the runs that are there; for a "
            'first one, run: python clean.py && python prepare.py && python train.py')
    folder, rows = log.parent, read_rows(log)
    if not rows:
        print(f'{folder}: no step is logged yet')
        continue
    config = json.loads(read_text(folder / 'config.json') or '{}')
    stage = config.get('stage', 'base')
    # sft.py and dpo.py write `steps`, because with epochs their max_steps is 0
    end = config.get('steps') or config.get('max_steps') or rows[-1]['step']
    sample = read_text(folder / 'samples.txt').rpartition('\n--- step ')[2]       # the last one
    all_runs.append({'title': f'{folder} ({stage}, step {rows[-1]["step"]:,} of {end:,})',
                     'stage': stage, 'config': config, 'rows': rows, 'end': end,
                     'color': f'C{len(all_runs)}', 'sample': sample})
require(all_runs, f'{runs} has no step to draw yet')
parts = []                          # (headline, panels, runs, runs whose last sample is shown)
for stage in dict.fromkeys(run['stage'] for run in all_runs):
    group = [run for run in all_runs if run['stage'] == stage]
    for run in group:       # its title also says the last val_bpb, and the settings that differ
        facts = [f'val_bpb {value:.4f}' for value in curve(run['rows'], 'val_bpb')[1][-1:]]
        facts += [f'{name} {value}' for name, value in run['config'].items() if name != 'out_dir'
                  and any(other['config'].get(name, value) != value for other in group)]
        run['title'] = textwrap.fill(', '.join([run['title'], *facts]), 180)
        V = run['config'].get('vocab_size') or math.inf
        print(f'\n{run["title"]}', *find_troubles(run['rows'], V), sep='\n  ')
    parts.append((f'model, {stage}: are we flying to the right place?', logged(MODEL, group), group,
                  [run for run in group if run['sample']][:COLUMNS]))
parts.append(('systems: is the engine running? (across: % of the steps)',
              logged(MACHINE, all_runs), all_runs, []))
parts = [part for part in parts if part[1]]

# --- draw -----------------------------------------------------------------------------------------
from matplotlib import figure, rcParams     # noqa: E402    not at the top: what is said needs none
# a sample may hold $
rcParams.update({'text.parse_math': False, 'axes.grid': True, 'grid.alpha': 0.3})
warnings.filterwarnings('ignore', 'Glyph')      # and characters that the font lacks


def draw_panel(ax, group, is_machine, title, scale, meaning, *patterns):
    """Draw the curves of a panel, of each run of a group."""
    names = {name for run in group for row in run['rows'] for name in row
             if re.fullmatch('|'.join(patterns), name)}
    visible = []
    for run in group:
        for name in sorted(names):
            x, y = curve(run['rows'], name)
            width, label = (2, run['title']) if name == patterns[0] else (1.2, None)
            ax.plot(100 * x / run['end'] if is_machine else x, scale * y, color=run['color'],
                    marker='o' if len(x) < 16 else '', linewidth=width, label=label, markersize=3)
            # A loss begins far above its later values, so the first tenth of the steps does not
            # raise a model's axis. It may lower the axis, because an accuracy begins at the bottom.
            late = y[x >= x.max(initial=0) / 10]
            visible += [*(late if is_machine else np.minimum(y, late.max(initial=-math.inf)))]
    # 0.98 cuts off a model's spikes
    low, high = scale * np.quantile(visible, [0, 1 if is_machine else 0.98])
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1
    ax.set_ylim(low - margin, high + margin)
    ax.set_title(f'{title}\n{meaning}', loc='left', size=9)


n_rows = [math.ceil(len(shown + sampled) / COLUMNS) for _, shown, _, sampled in parts]
fig = figure.Figure((WIDTH, HEIGHT * sum(n_rows)), layout='constrained')
figures = fig.subfigures(len(parts), squeeze=False, height_ratios=n_rows)[:, 0]
for part, n, (headline, shown, group, sampled) in zip(figures, n_rows, parts):
    axes = part.subplots(n, COLUMNS, squeeze=False).flatten()
    for ax, panel in zip(axes, shown):
        draw_panel(ax, group, panel in MACHINE, *panel)
    part.legend(*axes[0].get_legend_handles_labels(), title=headline, title_fontsize=12, fontsize=8,
                loc='outside upper left', alignment='left', frameon=False, labelspacing=0.2)
    left = axes[len(shown):]            # places for the last samples of the first runs
    for ax in left:
        ax.set_axis_off()
    for ax, run in zip(left, sampled):
        lines = [line[:44] for line in run['sample'].splitlines()[1:15]]    # not its headline
        ax.text(0, 1, '\n'.join(lines), va='top', color=run['color'], size=7, family='monospace')
fig.savefig(out)
print(f'{out} is written')
