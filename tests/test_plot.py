"""plot.py: the picture of finished and running runs, and the sentences on made-up histories; the report of
run.sh."""
import math
import os
import re
from pathlib import Path

import pytest
from conftest import each_is_a_mistake, fill, json_rows, lift, ok, read_json, run, table, write
from matplotlib.figure import Figure

CONFIG = {'max_steps': 1000, 'vocab_size': 4096}
RL = {'stage': 'rl', 'max_steps': 100}
NAN = math.nan
# The sentences are printed without matplotlib, too, and the picture takes long.
NO_PICTURE = 'import sys; sys.modules["matplotlib"] = None'


def falling(step):
    return 3 + (math.log(4096) - 3) * math.exp(-step / 300)


def history(steps=1000, **other):
    """The rows of a run of train.py that is well, but for these: a number, or one of the step."""
    usual = {'loss': falling, 'val_loss': falling, 'lr': 1e-3, 'dt': 0.2, 'data_s': 0.006,
             'tok_s': lambda step: 20_000 + step % 7 * 100}
    return [{'step': step} | {name: value(step) if callable(value) else value
                              for name, value in (usual | other).items()}
            for step in range(0, steps + 1, 20)]


# the rows of a run of rl.py
POLICY = [{'step': step, 'loss': 0.001, 'reward': 0.5, 'entropy': NAN,
           'val_reward': 0.5 + step / 500} for step in range(0, 101, 2)]


def home(folder, rows, config=CONFIG):
    """A run's folder. The last line of its log is being written."""
    path = write(f'{folder}/metrics.jsonl', rows)
    path.write_text(path.read_text('utf-8').replace('NaN', 'null') + '{"step": 4')
    write(f'{folder}/config.json', [config])
    return path


def test_the_picture_has_panels_for_each_stage_and_tells_runs_by_their_val_bpb_and_the_settings_that_differ():
    """out_dir always differs; the settings of other stages are other settings. Every number of d is NaN."""
    for name, seed, bpb in ('a', 1, 2.5), ('b', 2, 2.4):
        home(name, history(val_bpb=bpb), CONFIG | {'seed': seed, 'out_dir': name})
    home('c', POLICY, RL | {'seed': 3, 'out_dir': 'c'})
    home('d', history(200, loss=NAN, val_loss=NAN), {'stage': 'sft'})
    said = ['a (base, step 1,000 of 1,000), val_bpb 2.5000, seed=1',
            'b (base, step 1,000 of 1,000), val_bpb 2.4000, seed=2', 'c (rl, step 100 of 100)', 'd (sft, step 200 of 200)']
    result = run('plot.py --runs=a,b,c,d --out=a.svg')
    assert '\n\n'.join(said) in ok(result) and not result.stderr
    drawn = {*re.findall('<!-- (.*) -->', Path('a.svg').read_text())}
    assert drawn > {'loss', 'learning rate', 'reward', 'step time', *said}


# whether it is a figure of the machine, the values of each run, and the bounds of the axis: of an accuracy in
# the fourth line, of a speed in the fifth
AXES = """
[false, [[9, 3, 2, 1]], 0.8, 3.2]
[false, [[9, 9, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1]], 0.9, 2.1]
[false, [[9, 9, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1], [9, 2, 1]], 0.9, 2.1]
[false, [[0, 8, 9]], -0.896, 9.856]
[true, [[0, 8, 9, 9]], 7.9, 9.1]
[false, [[5]], 4.5, 5.5]
"""


def test_the_first_tenth_of_the_steps_does_not_raise_the_axis():
    """Few evaluations or many, of a short and a long run. What begins at the bottom stays in sight."""
    draw_panel, _ = lift('plot.py', 'draw_panel', 'curve')
    for is_machine, values, *bounds in json_rows(AXES):
        ax = Figure().subplots()
        runs = [{'rows': [{'step': i * 10, 'y': y} for i, y in enumerate(ys)], 'end': 10 * len(ys),
                 'title': '', 'color': 'C0'} for ys in values]
        draw_panel(ax, runs, is_machine, 'title', 1, 'meaning', 'y')
        assert ax.get_ylim() == pytest.approx(bounds), values


MISSING = """
--runs=out/early => no step to draw yet
--out=x.txt => png
--runs=out/base => --runs='out/*' & run: python clean.py
"""


def test_a_pattern_means_the_runs_in_it_and_what_is_missing_is_one_sentence():
    """No run is drawn twice, and one without a complete line is left out. A run is its folder or its log."""
    for name in 'a', 'b', 'c d':
        home(f'out/{name}', history(20))
    home('out/early', [])
    printed = run('plot.py --runs=out/b/metrics.jsonl, out/*', before=NO_PICTURE).stdout
    assert re.findall(r'^out/(.+) \(base', printed, re.M) == ['b', 'a', 'c d']
    each_is_a_mistake(MISSING, 'plot.py', before=NO_PICTURE)


def test_of_a_resumed_run_only_what_led_to_its_end_counts():
    """It was killed after step 40, went on from 20, and half a row of it was written."""
    read_rows = lift('plot.py', 'read_rows')
    steps = 10, 20, 30, 40, 30, 50
    path = home('a', [{'step': step, 'loss': i} for i, step in enumerate(steps)])
    with open(path, 'a') as f:
        f.write('\n{"step": 60, "loss": 6}\n')
    found = {row['step']: row['loss'] for row in read_rows(path)}
    assert found == {10: 0, 20: 1, 30: 4, 50: 5, 60: 6}


SEEN = {        # words that must be said, and nothing else; its rows
    'falls': ([], history()),
    # the last evaluation is of step 980, so later losses say nothing about it
    'runs': ([], history() + [{'step': 1000 + i, 'loss': 1.0} for i in range(20)]),
    'diverged': (['drifts upward: it is 30', 'memorizes', 'does not learn'],
                 history(val_loss=lambda step: 30 if step > 900 else falling(step))),
    # it learns its own text, and the held-out text is another
    'guesses': (['9.5 at best, near ln V = 8.32', 'memorizes', 'does not learn'], history(val_loss=9.5)),
    'drifts': (['is 4.69 at step 1,000, and was 4.22 at step 580', 'memorizes',
                'does not learn'],
               history(val_loss=lambda step: falling(step) + max(0, step - 400) / 400,
                       loss=lambda step: falling(step) - step / 500)),
    'stays': (['plateau: the loss is 4.5, flat since step 780', 'does not learn'],
              history(val_loss=lambda step: max(4.5, falling(step)), loss=4.5)),
    'waits': (['plateau'], history(val_loss=4.5, loss=4.5,
                                   tok_s=lambda step: 20_000 if step < 700 else 9_000)),
    'broken': ([], history(val_loss=NAN)),
    'begins': ([], history(0)),
    'rewarded': ([], POLICY, RL)}


def test_five_troubles_are_said_of_the_runs_that_have_them():
    for name, (_, rows, *config) in SEEN.items():
        home(f'out/{name}', rows, *config)
    printed = run('plot.py --runs=out/*', before=NO_PICTURE).stdout
    said = dict(part.split(' (', 1) for part in ('\n' + printed).split('\nout/')[1:])
    assert said.keys() == SEEN.keys()
    for name, (wanted, *_) in SEEN.items():
        assert said[name].count('\n  ') == len(wanted), said[name]
        assert all(words in said[name] for words in wanted), said[name]


# --- the report at the end of run.sh, from runs made up by hand -----------------------------------
STAGES = 'quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl', 'quickstart_rejection'
# The files of stage N, whose preset is NAME.py
FILES = """
eval.json => {"tasks": {"loss": {"trained": {"bits_per_byte": 1.5}}, "problems": {"by_split": {"example": SCORE, "practice": SCORE, "unseen": SCORE}, "failures": {"name": 7, "syntax": N}}}}
compare.json => {"gain": {"example tasks": GAIN, "practice tasks": GAIN, "unseen combinations": GAIN}}
metrics.jsonl => {"step": 2, "val_loss": 4.0, "val_reward": 0.4}
config.json => {"preset": "NAME.py"}
samples.jsonl => {"split": "example", "preferred": N, "outcome": "passed"}
tokenizer.json => {}
last.pt => {}
""".replace('SCORE', '{"pass@1": 0.5, "interval": [0.4, 0.6]}').replace('GAIN', '[0.182, 0.141, 0.223]')
ROWS = """
| base | 50.0% (40% to 60%) | 50.0% (40% to 60%) | 50.0% (40% to 60%) | 0% | 1.500 | 1.5 |
- RL, why answers fail: name 7, syntax 3
- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)
- base: val_loss 4 is in the usual range, 3.85 to 4.2
- SFT: val_loss 4 is outside the usual range, 0.18 to 0.32; see
9.5 minutes on """


def test_the_report_has_a_row_a_stage_and_the_gains():
    for n, name in enumerate(STAGES):
        for file, row in table(FILES.replace('NAME', name).replace('N', f'{n}')):
            path = fill({file: f'{row}\n'}, f'out/{name}') / file
            seconds = 1e9 + 90 * (file == 'last.pt')
            os.utime(path, (seconds, seconds))
    ok(run('extras.tasks.chain_report --minutes=9.5'))
    text = Path('out/quickstart/REPORT.md').read_text()
    assert all(row in text for row in ROWS.split('\n')), text
    *_, rl, _ = read_json('out/quickstart/report.json')['stages']
    assert (rl['name'], rl['pass@1_practice'], rl['minutes']) == ('rl', 0.5, 1.5)
    assert rl['expect'] == {'val_reward': [0.4, 0.5, 0.81]}
