"""
The picture of plot.py: for each stage what is seen in its runs, the curves and a sample of each.

    draw('dashboard.png', runs, MODEL, MACHINE)     # all four: see plot.py

The figure is one inch wide and high, so its coordinates are inches. Everything hangs below it, x to
the right of the left margin and y, which is negative, below the upper one. bbox_inches='tight'
saves whatever was drawn, wherever it is.
"""
import math, os, re, textwrap, warnings
import numpy as np
from parts import Mistake

GRAY = '#5c6570'
LEGEND = ('Across: steps, or for systems percent of them. Thick: what counts. Pale: as measured. '
          'Yellow: the learning rate rises; blue: it is below half of its peak. '
          'Circles: few points.')


def draw(path, runs, model_panels, machine_panels):
    """Write the picture. runs: of run_log.read_run, and plot.py added 'seen', sentences."""
    try:        # --help and the sentences do without
        from matplotlib import figure, rcParams
    except ImportError as e:
        raise Mistake(f'the picture needs matplotlib ({e}): pip install matplotlib') from e
    warnings.filterwarnings('ignore', 'Glyph')      # a sample may hold what the font does not
    rcParams.update({
        'text.parse_math': False, 'lines.markerfacecolor': 'w', 'axes.grid': True,
        'axes.xmargin': 0, 'axes.spines.top': False, 'axes.spines.right': False,
        'axes.edgecolor': '#b8bfc8', 'grid.color': '#e7eaee', 'xtick.color': GRAY,
        'ytick.color': GRAY})
    for i, run in enumerate(runs):
        run['color'] = f'C{i}'

    fig = figure.Figure((1, 1), dpi=150)
    fig.text(0, 0, 'model: are we flying to the right place?', va='top', size=14, weight='bold')
    fig.text(0, -0.3, LEGEND, va='top', size=8, color=GRAY)
    y = -0.6
    for stage, panels in model_panels.items():
        group = [run for run in runs if run['stage'] == stage]
        for run in group:
            fig.text(0, y, f'━ {stage}: {run["title"]}', va='top', size=12, color=run['color'],
                     weight='bold')
            lines = textwrap.wrap(' '.join(run['seen']), 150)
            fig.text(0, y - 0.25, '\n'.join(lines), va='top')
            y -= 0.37 + 0.17 * len(lines)
        y = draw_panels(fig, y, group, panels, False)
    fig.text(0, y, 'systems: is the engine running?', va='top', size=14, weight='bold')
    draw_panels(fig, y - 0.4, runs, machine_panels, True)
    fig.savefig(f'{path}.tmp', format=path.rpartition('.')[2], bbox_inches='tight')
    os.replace(f'{path}.tmp', path)     # whoever watches the picture sees a whole one


def names_in(run, metrics):
    """Return the metrics of a panel that a run has."""
    return [name for pattern in metrics for name in run['curves'] if re.fullmatch(pattern, name)]


def draw_panels(fig, y, group, panels, is_machine):
    """Draw the panels for which the runs of a group have curves, in rows of four. The last sample
    of each run comes behind them. Return the y of what is below."""
    panels = [panel for panel in panels if any(names_in(run, panel[2:]) for run in group)]
    samples = [] if is_machine else [run for run in group if run['sample']]
    n_cells = len(panels) + len(samples)
    cells = [(0.42 + i % 4 * 3, y - i // 4 * 2) for i in range(n_cells)]
    for (x, top), (title, meaning, *metrics) in zip(cells, panels):
        fig.text(x, top, title, va='top', size=12, weight='bold')
        fig.text(x, top - 0.2, meaning, va='top', size=9, color=GRAY)
        ax = fig.add_axes([x, top - 1.6, 1.95, 1.2])      # left, bottom, width, height
        draw_curves(ax, group, metrics, 100 if meaning[0] == '%' else 1, is_machine)
        if not is_machine:
            mark_phases(ax, group)
    for (x, top), run in zip(cells[len(panels):], samples):
        # The last sample may be as wide as the cells that are left in its row.
        n_free = 1 if run is not samples[-1] else round((12.42 - x) / 3)
        lines = [line[:42 * n_free] for line in run['sample'].expandtabs(4).splitlines()[:12]]
        fig.text(x, top, '\n'.join(lines), va='top', size=7.5, color=run['color'],
                 family='monospace')
    return y - 2 * math.ceil(n_cells / 4)


def draw_curves(ax, group, metrics, scale, is_machine):
    """Draw the metrics of a panel over the steps. Those of the machine are drawn over percent of
    the steps, because runs of any length share its panels."""
    visible = [0] if is_machine else []
    ends = []                       # (last value, color) of the first line of each run
    for run in group:
        names = names_in(run, metrics)
        for name in names:
            steps, values = run['curves'][name]
            x = steps * 100 / run['end'] if is_machine else steps
            y = smooth(values * scale)
            # What was measured is pale. Over it lies the smooth line, with circles if it has few
            # points, because a line through two of them says little.
            ax.plot(x, values * scale, color=run['color'], linewidth=0.8, alpha=0.3)
            ax.plot(x, y, 'o-' if len(x) < 16 else '-', color=run['color'],
                    linewidth=2.2 if name == metrics[0] else 1.2)
            visible += [*y[len(y) // 10:]]          # the first tenth is often far above the rest
            if name == names[0] and re.fullmatch(metrics[0], name):
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


def short(x, _=None):
    """0.1234 -> 0.123; 1234 -> 1,234"""
    return f'{x:,.0f}' if abs(x) >= 100 else f'{x:.3g}'


def smooth(values):
    """Return the mean of the values around each one, over 2% of the run."""
    window = np.ones(len(values) // 100 * 2 + 1)    # an odd number, so that the middle is the value
    sums = np.convolve(values, window, 'same')
    return sums / np.convolve(np.ones_like(values), window, 'same')     # fewer values at both ends


def mark_phases(ax, group):
    """Shade where the rate rises (yellow) and where it is below half of its peak (blue)."""
    if 'lr' in group[0]['curves']:
        steps, rates = group[0]['curves']['lr']
        peak = rates.argmax()
        ax.axvspan(0, steps[peak], color='#fdf4e1')
        late = steps[peak:][rates[peak:] < rates[peak] / 2]
        if len(late):
            ax.axvspan(late[0], late[-1], color='#ebf2f9')
