"""
The pictures of README and docs/, from the files that runs leave: cards (SVG), plot.py's dashboard, the page.

    bash run.sh                             # leaves out/quickstart* and data/clean
    python bench/pictures.py                # all pictures; also from another folder that has out/ and data/
    python bench/pictures.py funnel page    # some of them

These show what was measured, so they are drawn again when it is. The other pictures of docs/img explain an
idea (what drew those is in 97e99de). A picture whose files are missing stays as it is. To draw turning_green,
which moves, programs that the models wrote run in extras/sandbox.py. Lengths are pixels, from the top left.
"""
import functools, html, json, pathlib, re, subprocess, sys, textwrap
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from peers import ROOT
from extras import grading, problems, sandbox
import practice

WIDTH, LEFT = 880, 28
INK, GREY, LINE, PALE = '#1f2328', '#59636e', '#d0d7de', '#eef1f4'
BLUE, ORANGE, GREEN, RED = '#0969a8', '#d9730d', '#1a7f37', '#cf222e'
MIDDLE, ROUND = 'text-anchor="middle"', 'rx="5"'
STYLE = """text { font-family: -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif }
.code { font-family: 'DejaVu Sans Mono', Menlo, Consolas, monospace }"""
# A shape that moves begins hidden or grey. Without animation it is in its final state, so a reader who asked
# for less motion sees a still picture.
MOTION = """@keyframes appear { from { fill-opacity: 0 } }
@keyframes judge { from { fill: #8c959f } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important } }"""
STAGES = {'base model': 'quickstart', 'after SFT': 'quickstart_sft', 'after practice': 'quickstart_rejection'}
SPLIT = 'feedback_variation'
RUNS = {'sft': 'SFT', 'more': 'more SFT', 'rl': 'RL', 'rejection': 'rejection sampling', 'dpo': 'DPO'}
BUGS = {'middle': 'batches dropped', 'means': 'mean of means'}
PATTERNS = {'space': '', 'symbol': 'older pattern, ', 'cl100k': 'cl100k, '}


# --- shapes -------------------------------------------------------------------------------------------------
def words(x, y, text, size=12, colour=INK, more=''):
    text = html.escape(text).replace('  ', '\xa0\xa0')      # SVG collapses spaces
    return f'<text x="{x:.4g}" y="{y:.4g}" font-size="{size}" fill="{colour}" {more}>{text}</text>'


def bold(x, y, text, size=14, colour=INK):
    return words(x, y, text, size, colour, 'font-weight="bold"')


def code(x, y, text, colour=INK, more='', size=15.5):
    return words(x, y, text, size, colour, f'class="code" xml:space="preserve" {more}')


def cut(text, most):
    """Return the text if it fits, else its beginning with an ellipsis."""
    return text if len(text) <= most else text[:most - 1] + '…'


def appear(second, kind='appear'):
    return f'style="animation: {kind} .2s {second:.4g}s both"'


def typed(x, y, text, begin, seconds):
    """Return a line of code whose letters appear one after the other."""
    letters = [f'<tspan {appear(begin + i * seconds)}>{html.escape(letter)}</tspan>'
               for i, letter in enumerate(text.replace(' ', '\xa0'))]
    return code(x, y, 'LETTERS').replace('LETTERS', ''.join(letters))


def box(x, y, width, height, colour, more=''):
    return f'<rect x="{x:.4g}" y="{y:.4g}" width="{width:.4g}" height="{height:.4g}" fill="{colour}" {more}/>'


def card(title, below, height, shapes):
    head = [bold(LEFT, 40, title, 19), words(LEFT, 62, below, 12, GREY)]
    return picture(title, WIDTH, height, STYLE, [*head, *shapes])


def picture(title, width, height, style, shapes):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    frame = box(0.5, 0.5, width - 1, height - 1, 'white', f'{ROUND} stroke="{LINE}"')
    return '\n'.join([head, f'<title>{title}</title><style>{style}</style>', frame, *shapes, '</svg>', ''])


# --- pictures: each is a card, from files below this folder -------------------------------------------------
def read_json(path):
    return json.loads(pathlib.Path(path).read_bytes())


def passed(problem, row):
    """[whether the answer in a row of samples.jsonl passes each test]"""
    check, *tests = problem['test'].strip().split('\n')
    program = grading.program(problem, row['completion'], row['messages'] is not None)
    results = sandbox.run_many([(program, f'{check}\n{test}', problem['entry_point']) for test in tests])
    return [result.outcome == 'passed' for result in results]


def choose(base, sft, learned):
    """Return the first problem that practice solves and SFT doesn't, preferably one that SFT solves in part,
    whose answers fit, and to which practice writes no more lines. All: {problem: row of samples.jsonl}."""
    every = problems.problems(len(base), 0, SPLIT)      # the base model answered the first ones only
    right = lambda rows, p: rows[p['task_id']]['outcome'] == 'passed'
    lines = lambda rows, p: rows[p['task_id']]['completion'].strip().split('\n')
    solved = [p for p in every if right(learned, p)]
    fixed = [p for p in solved if not right(sft, p)]
    fits = [p for p in fixed if len(lines(learned, p)) <= len(lines(sft, p))
            and max(map(len, lines(learned, p) + lines(sft, p))) <= 34]
    partly = (p for p in fits if any(passed(p, sft[p['task_id']])))
    return next(partly, (fits + fixed + solved)[0])


def turning_green():
    """One question, the answers of three stages, and their tests, one after the other. clock: seconds."""
    answers, shares = {}, {}
    for stage, folder in STAGES.items():
        with open(f'out/{folder}/samples.jsonl', encoding='utf-8') as f:
            rows = [row for row in map(json.loads, f) if row['split'] == SPLIT]
        shares[stage] = np.mean([row['outcome'] == 'passed' for row in rows])
        answers[stage] = {row['task_id']: row for row in reversed(rows)}        # the first of each problem
    problem = choose(*answers.values())
    n_problems = len(answers['after practice'])
    answers = {stage: rows[problem['task_id']] for stage, rows in answers.items()}
    programs = {stage: [line for line in row['completion'].split('\n') if line.strip()]
                for stage, row in answers.items()}
    tests = [' → '.join(test) for test in re.findall(r'candidate\((.*)\) == (.*)', problem['test'])]
    shown = sorted(range(len(tests)), key=lambda i: len(tests[i]) > 25)[:5]     # the first that fit
    n_more = len(tests) - len(shown)
    n_lines = len(shown) + (n_more > 0)
    n_lines = max(n_lines, *(len(programs[stage]) for stage in STAGES if stage != 'base model'))

    width, left, pitch, clock = 640, 22, 21, 0.5
    signature, doc = problem['prompt'].strip().split('\n')
    doc = textwrap.wrap(doc.strip(), 63, initial_indent='    ', subsequent_indent='    ')
    y = pitch * (1 + len(doc)) + 22
    shapes = [box(1, 1, width - 2, y, PALE, ROUND)]
    for i, text in enumerate([signature, *doc]):
        shapes.append(typed(left, 30 + pitch * i, text, clock, 0.02))
        clock += 0.02 * len(text)

    for stage, lines in programs.items():
        passes = passed(problem, answers[stage])
        solves = f'solves {100 * shares[stage]:.0f}% of such problems'
        shapes += [bold(left, y + 34, stage, 18), words(left + 156, y + 34, solves, 15, GREY),
                   box(left, y + 46, width - 2 * left, pitch * n_lines + 12, PALE, ROUND)]
        clock += 0.5
        for i, text in enumerate(lines[:n_lines] or ['(nothing)']):
            clock += 0.2
            shapes.append(code(left + 12, y + 66 + pitch * i, cut(text, 34), INK, appear(clock)))
        clock += 0.4
        for i, number in enumerate(shown):
            clock += 0.2
            mark, colour = ('✓', GREEN) if passes[number] else ('✗', RED)
            test = cut(tests[number], 26)
            shapes += [code(374, y + 66 + pitch * i, mark, colour, appear(clock), 14),
                       code(392, y + 66 + pitch * i, test, colour, appear(clock, 'judge'), 14)]
        if n_more:
            y_more = y + 66 + pitch * len(shown)
            shapes.append(code(392, y_more, f'… and {n_more} more', GREY, appear(clock), 14))
        clock += 0.3
        colour = GREEN if all(passes) else RED
        shapes.append(words(width - left, y + 34, f'{sum(passes)} of {len(tests)} tests pass', 18, colour,
                            f'font-weight="bold" text-anchor="end" {appear(clock)}'))
        y += pitch * n_lines + 60

    for i, text in enumerate(['No stage was shown an answer to a problem like this one. We picked one on',
                              f'which the stages differ; the percentages are of all {n_problems} problems.']):
        shapes.append(words(left, y + 24 + 18 * i, text, 13, GREY))
    return picture('The same question, stage after stage', width, y + 56, f'{STYLE}\n{MOTION}', shapes)


def funnel():
    stages = read_json('data/clean/report.json')['stages']
    before, after = stages[0]['bytes_in'] / 1e6, stages[-1]['bytes_out'] / 1e6
    rows = [('stay', stages[-1]['docs_out'], BLUE)]
    for stage in stages:
        rows += [(f'{stage["name"]}: {why}', n, RED) for why, n in stage['dropped'].items()]
    shapes = []
    for i, (name, n, colour) in enumerate(rows):
        y, long = 104 + 28 * i, 480 * n / stages[0]['docs_in']
        shapes += [words(LEFT, y, name, 13), box(230, y - 14, long, 19, colour),
                   bold(238 + long, y, f'{n:,}', 13, colour)]
    below = f'{before:.1f} MB become {after:.1f} MB'
    return card('clean.py says what it drops, and why', f"Files of Python's standard library: {below}",
                104 + 28 * len(rows), shapes)


def dashboard(path=f'{ROOT}/docs/img/dashboard.png'):
    """plot.py's picture, smaller and in 32 colors: a quarter of the bytes."""
    pathlib.Path('out/quickstart/metrics.jsonl').stat()         # is there a run?
    subprocess.run([sys.executable, f'{ROOT}/plot.py', '--runs=out/quickstart', f'--out={path}'], check=True)
    picture = Image.open(path).convert('RGB')
    picture.thumbnail((1200, 1200))
    picture.quantize(32, Image.Quantize.FASTOCTREE, dither=0).save(path, optimize=True)


def page(path=f'{ROOT}/docs/img/page.png'):
    """The page in Chromium, as run.sh leaves it: the first problem solved after practice, not after SFT."""
    file = pathlib.Path('out/quickstart/demo.html').resolve()
    found = re.search('<script id="models".*?>(.*?)</script>', file.read_text(encoding='utf-8'), re.S)
    data = json.loads(found[1])
    _, sft, learned = ({name for name, found in model['judged'].items() if found['outcome'] == 'passed'}
                       for model in data['models'])
    shown = [each['task_id'] for each in data['problems']]
    problem = next((name for name in shown if name in learned - sft), shown[0])
    command = ['chromium', '--headless', '--no-sandbox', '--window-size=1200,640', f'--screenshot={path}',
               '--virtual-time-budget=60000', f'{file.as_uri()}#{problem}']
    subprocess.run(command, check=True)
    picture = Image.open(path).convert('RGB')
    picture.quantize(32, Image.Quantize.FASTOCTREE, dither=0).save(path, optimize=True)


def practiced(experiment):
    """Draw practice tasks, solved greedily, where two bases are there: a line for each base, a dot for the mean. Of
    several numbers of examples, draw gains over SFT: what SFT solves differs by more than any gain."""
    is_gain = experiment == 'examples'
    rows, axes, named = practice.found(practice.ROWS), plt.figure(figsize=(8.8, 4)).gca(), {}
    seeds = sorted({seed for *_, seed in rows})
    ticks, width = {}, 0
    for pattern, examples, runs in sorted(practice.EXPERIMENTS[experiment], key=lambda some: some[1]):
        table = np.array([[rows.get((pattern, examples, run, seed), {}).get('practice tasks', np.nan)
                           for run in ('sft', *runs)] for seed in seeds])       # (seeds, runs)
        shown = np.flatnonzero(np.isfinite(table).sum(0) > 1)
        solved = f'\nSFT solves {np.nanmean(table[:, 0]):.0f}%' if is_gain and len(shown) else ''
        table -= is_gain * table[:, :1]
        for line in table[:, shown]:
            axes.plot(width + shown, line, '.-', color=GREY, linewidth=0.6)
        for i in shown:
            name, _, bug = ('sft', *runs)[i].partition('_')
            run = f'{RUNS[name]}, {BUGS[bug]}' if bug else RUNS[name]
            named[run], = axes.plot(width + i, np.nanmean(table[:, i]), 'o', markersize=9, color=f'C{i}')
        if len(shown):
            ticks[width + shown.mean()] = f'{PATTERNS[pattern]}{examples:,} examples{solved}'
            width += len(runs) + 1
    axes.set_xticks([*ticks], ticks.values())
    axes.set_ylabel('gain over SFT, points' if is_gain else 'practice tasks solved, %')
    axes.legend(named.values(), named, ncols=4, loc='lower center', bbox_to_anchor=(0.5, 1), frameon=False)
    axes.figure.savefig(f'{ROOT}/docs/img/practice_{experiment}.svg', bbox_inches='tight')


CARDS = {p.__name__: p for p in (turning_green, funnel)}
PICTURES = {p.__name__: p for p in (dashboard, page)}
PICTURES |= {name: functools.partial(practiced, name) for name in practice.EXPERIMENTS}


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    if set(sys.argv[1:]) - {*CARDS, *PICTURES}:
        sys.exit(print(__doc__) or 2)
    for name in sys.argv[1:] or [*CARDS, *PICTURES]:
        try:
            if name in PICTURES:
                PICTURES[name]()
            else:
                pathlib.Path(ROOT, f'docs/img/{name}.svg').write_text(CARDS[name](), encoding='utf-8')
        except FileNotFoundError as e:
            print(f'{name} is not drawn: {e.filename} is missing; bash run.sh makes what is in out/')
