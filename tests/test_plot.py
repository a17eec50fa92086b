"""plot.py: the picture of finished and running runs, and the sentences on histories that we made up."""
import math
import random
import re
import shutil

import numpy as np
import pytest
from conftest import ROOT, lift, mistake, ok, run, write

read_rows, expected, _ = lift('plot.py', 'read_rows', 'expected', 'read')
CONFIG = {'max_steps': 1000, 'warmup_steps': 100, 'vocab_size': 4096}
LN_V = math.log(4096)
NAN = math.nan


# The sentences are printed without matplotlib, too, and the picture takes long.
NO_PICTURE = 'import sys; sys.modules["matplotlib"] = None'


def falling(step):
    return 3 + (LN_V - 3) * math.exp(-step / 300)


# What runs log that are well: {metric: a function of the step, or a number}
STEP = {'loss': falling, 'tokens': lambda step: 100 * step,
        'tok_s': lambda step: 20_000 + step % 7 * 100, 'dt': 0.2, 'data_s': 0.006,
        'mfu': None, 'lr': 1e-3, 'grad_norm': 0.8, 'memory_mb': 1800, 'skipped': 0}
EVALUATION = {'val_loss': falling, 'val_bpb': 1.5, 'val_tiny-web_bpb': 1.6}
RL_STEP = {'reward': lambda step: 0.5 + step / 500, 'informative': 0.5, 'loss': 0.001, 'kl': None,
           'entropy': 0.3, 'tok_s': 700, 'dt': 9}
RL_EVALUATION = {'val_reward': RL_STEP['reward']}


def rows_of(usual, steps, other):
    """Rows of metrics.jsonl. other: what this run logs in place of some of the usual."""
    usual = usual | {key: value for key, value in other.items() if key in usual}
    return [{'step': step} | {key: value(step) if callable(value) else value for key, value in usual.items()}
            for step in steps]


def history(steps=1000, **other):
    """The rows of a run of train.py."""
    rows = rows_of(STEP, range(10, steps + 1, 10), other)
    rows += rows_of(EVALUATION, range(0, steps + 1, 100), other)
    return sorted(rows, key=lambda row: row['step'])


def policy(**other):
    """The rows of a run of rl.py."""
    rows = rows_of(RL_STEP, range(2, 101, 2), other) + rows_of(RL_EVALUATION, range(0, 101, 20), other)
    return sorted(rows, key=lambda row: row['step'])


def home(folder, rows, config=CONFIG, half=''):
    """A run's folder. half: a line that is being written."""
    path = write(folder / 'metrics.jsonl', rows)
    path.write_text(path.read_text(encoding='utf-8').replace('NaN', 'null') + half, encoding='utf-8')
    write(folder / 'config.json', [config])
    (folder / 'samples.txt').write_text('--- step 0, val_loss 8\nx\n\n--- step 9, val_loss 3\n'
                                        'def f(x):\n\treturn "$\\frac{" + "\u6f22" * 99\n', encoding='utf-8')
    return folder


# --- the picture --------------------------------------------------------------------------------------------
def test_the_picture_has_the_sentences_on_each_run_and_panels_for_each_stage(tmp_path):
    """One is finished, one is being written, and every number of the third is NaN."""
    home(tmp_path / 'a', history())
    home(tmp_path / 'b', policy(entropy=NAN), RL,
         half='{"step": 410, "lo')
    home(tmp_path / 'c', history(200, loss=NAN, grad_norm=NAN, val_loss=NAN), {})
    result = run('plot.py', '--runs=a,b,c', '--out=a.svg', cwd=tmp_path)
    assert 'a (base, step 1,000 of 1,000):\n  The validation loss is 3.19 ' in ok(result)
    assert result.stderr == ''
    drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    for title in ('loss', 'nats: falls, ever slower', 'gradient norm', 'learning rate', 'reward',
                  'step time', 'def f(x):', 'a (base, step 1,000 of 1,000)'):
        assert f'<!-- {title} -->' in drawn, title
    assert not (tmp_path / 'a.svg.tmp').exists()
    assert drawn.count('<!-- loss -->') == 1 and '<!-- clipped -->' not in drawn     # rl has none

    n_thin = []                                 # a source's name may have a hyphen
    for other in {}, {'val_tiny-web_bpb': NAN}:
        home(tmp_path / 'a', history(**other))
        ok(run('plot.py', '--runs=a', '--out=a.svg', cwd=tmp_path))
        n_thin.append((tmp_path / 'a.svg').read_text(encoding='utf-8').count('stroke-width: 1.2'))
    assert n_thin[0] == n_thin[1] + 1


def test_a_pattern_means_the_runs_in_it(tmp_path):
    """Other files and runs without a complete line are left out; no run is drawn twice."""
    for name in 'a', 'b', 'c d':
        home(tmp_path / 'out' / name, history(20))
    home(tmp_path / 'out/early', [], half='{"step": 1')
    (tmp_path / 'out/notes.txt').write_text('', encoding='utf-8')
    for pattern, found in (
            ('out/*', ['a', 'b', 'c d']), ('out/b,out/*', ['b', 'a', 'c d']), ('out/[bx]/', ['b'])):
        printed = run('plot.py', f'--runs={pattern}', cwd=tmp_path, before=NO_PICTURE).stdout
        assert [line[4:].split(' (')[0] for line in printed.splitlines() if ' (base' in line] == found


def test_a_missing_run_is_answered_with_what_shows_those_that_are_there(tmp_path):
    words = 'out/base/metrics.jsonl is missing', "--runs='out/*'", 'python prepare.py && python train.py'
    mistake(run('plot.py', cwd=tmp_path), *words)
    for name in 'quickstart', 'mine':
        home(tmp_path / 'out' / name, history(20))
    mistake(run('plot.py', '--runs=out/mime', cwd=tmp_path), 'out/mime/metrics.jsonl is missing')
    said = run('plot.py', '--runs=out/*', cwd=tmp_path, before=NO_PICTURE).stdout
    assert re.findall(r'^(\S+) \(base, step', said, re.M) == ['out/mine', 'out/quickstart']


def test_mistakes_are_one_sentence(tmp_path):
    home(tmp_path / 'a', [], half='{"step": 1')
    home(tmp_path / 'b', history(20))
    home(tmp_path / 'c', [{'step': 0, 'val_loss': 8}])      # no step yet
    for flags, before, words in (
            ('--runs=b,nothing', '', 'nothing/metrics.jsonl is missing'),
            ('--runs=a', '', 'no complete line yet'), ('--runs=c', '', 'no complete line yet'),
            ('--runs=b --out=x.txt', '', "out='x.txt'"),
            ('--runs=b', NO_PICTURE, 'pip install')):
        mistake(run('plot.py', *flags.split(), cwd=tmp_path, before=before), words)


# --- what is read -------------------------------------------------------------------------------------------
def test_of_a_resumed_run_only_what_led_to_its_end_counts(tmp_path):
    """Steps are repeated, rows lie behind the save that it went on from, and the kill has cut a line."""
    row = lambda step, loss: {'step': step, 'loss': loss}
    val = lambda step, loss: {'step': step, 'val_loss': loss}
    rows = [val(0, 9), row(10, 8), row(20, 7), val(20, 7.5), row(30, 6), row(40, 5), val(40, 5.5),
            row(30, 6.1), row(50, 4.1), val(50, 4.5)]
    for again, steps in ((row(30, 6.1), [0, 10, 20, 20, 30, 50, 50]),
                         (val(20, 7.6), [0, 10, 20, 20, 50, 50])):
        rows[7] = again
        kept = read_rows(home(tmp_path / 'a', rows, half='{"step": 60, "lo') / 'metrics.jsonl')
        assert [r['step'] for r in kept] == steps and again in kept
        assert 5 not in [r.get('loss') for r in kept]


def test_the_end_of_a_run_is_compared_with_what_its_preset_expects_and_no_config_is_executed(tmp_path):
    """Copied with configurator.py alone. Only config/NAME.py beside it counts, and its text is read."""
    project = tmp_path / 'project'
    (project / 'config').mkdir(parents=True)
    for name in 'plot.py', 'configurator.py':
        shutil.copy(ROOT / name, project)
    mark = tmp_path / 'executed'
    text = f"open({str(mark)!r}, 'w')\n_expect = {{'val_loss': (3, 3.5),\n           'other': (0, 1)}}\n"
    for path in (project / 'config/mine.py', tmp_path / 'foreign.py'):
        path.write_text(text, encoding='utf-8')
    (project / 'config/silent.py').write_text('max_steps = 1000\n', encoding='utf-8')
    cases = [('mine.py', 1000, {}), ('config/mine.py', 1000, {}),           # older runs have the path
             ('mine.py', 900, {}), ('silent.py', 1000, {}), (None, 1000, {}), ('', 1000, {}),
             ('..', 1000, {}), ([1], 1000, {}), (str(tmp_path / 'foreign.py'), 1000, {}),
             ('mine.py', 1000, {'val_loss': NAN})]
    for i, (preset, steps, more) in enumerate(cases):
        home(tmp_path / f'run{i}', history(steps, **more), CONFIG | {'preset': preset})
    said = run(project / 'plot.py', '--runs=run?', cwd=tmp_path, before=NO_PICTURE).stdout
    parts = dict(part.split(' (', 1) for part in said.split('\nrun') if '(' in part)
    assert ['usual' in part for part in parts.values()] == [True, True, *[False] * 8], said
    assert said.count('At its end, val_loss 3.19 is in the usual 3 to 3.5.') == 2 and not mark.exists()


def test_each_preset_expects_pairs_of_numbers():
    found = {path.name: expected(path) for path in (ROOT / 'config').glob('*.py')}
    assert len([*filter(None, found.values())]) > 5
    for ranges in found.values():
        assert all(low < high for low, high in ranges.values())


# --- the sentences ------------------------------------------------------------------------------------------
RL = CONFIG | {'stage': 'rl', 'warmup_steps': 5, 'max_steps': 100}
# what is said of few of these runs
RARE = ('not a number', 'ln V', 'above the training', 'lowest', 'flat', 'falling', 'busy', 'speed fell',
        'waited', 'log ends', 'skipped', 'earned the same', 'no validation loss', 'usual')


def base(*words, config=CONFIG, **other):
    """Words that must be said, config, rows of a run of train.py."""
    return words, config, history(**other)


def rl(*words, **other):
    return words, RL, policy(**other)


def noisy(step):
    return falling(step) + random.Random(step).gauss(0, 0.03)


def after(step, first, last):
    """A function of the step that is `first`, a number or a function, before a step, and then `last`."""
    return lambda now: last if now >= step else first(now) if callable(first) else first


RUNS = {
    'falls': base('is 3.19 at step 1,000, from 8.32 at step 0, and still falling.'),
    'noise': base('still falling', loss=noisy),
    # it has learned since then
    'one_evaluation': base('The validation loss is 8.32 at step 0.', 'ln V', 'log ends', steps=50),
    # it learns its own text, and the held-out text is another
    'other_text': base('flat since step 0', 'busy', 'above the training',
                       'ln V = 8.32, the loss of guessing among its 4,096 tokens', val_loss=9.5),
    'exploded': base('flat since step 500', 'lowest at step 400', 'ln V', 'busy',
                     loss=after(500, falling, 50), val_loss=after(500, falling, 50)),
    # 10 noisy losses that happen to end low
    'same_but_noisy': base('flat since step 0', 'busy', val_loss=5,
                           loss=lambda step: 5 + random.Random(step + 17).gauss(0, 0.5)),
    'flat': base('is 4 at step 1,000; the machine is busy, and this has been flat since step 500.', 'busy',
                 loss=lambda step: max(4, falling(step)), val_loss=lambda step: max(4, falling(step))),
    'two_alike': base('is 5 at step 100.', 'log ends', steps=100, loss=5, val_loss=5),
    # it ends as runs do, slowly
    'slow_end': base('still falling', 'It is 0.097 above the training loss',
                     loss=lambda step: 1.9 + 6 * math.exp(-step / 150),
                     val_loss=lambda step: 2 + 6 * math.exp(-step / 150)),
    # no more on held-out text: it still learns its own
    'flat_val': base('flat since step 300', 'busy', 'above the training',
                     val_loss=lambda step: max(4, 5 - step / 300)),
    'guesses': base('ln V', 'busy', 'flat', loss=8.35, val_loss=8.36),
    'untrained': base('ln V', 'log ends', steps=20, loss=8.35, val_loss=8.4),
    'forgot': base('flat since step 500', 'lowest at step 400, 4.4', 'ln V', 'busy',
                   loss=after(500, falling, 8.4), val_loss=after(500, falling, 8.4)),
    'near': base('near or above ln V = 8.32', 'still falling', loss=lambda step: 8.3 - step / 2500,
                 val_loss=lambda step: 8.3 - step / 2500),
    'rises': base('is 4.69 at step 1,000; it was lowest at step 600, 4.22, and has risen by 0.47 since',
                  'It is 3.4 above the training', loss=lambda step: falling(step) - step / 500,
                  val_loss=lambda step: falling(step) + max(0, step - 400) / 400),
    'broken': base('no validation loss, or the last one is not a number', loss=after(600, falling, NAN),
                   val_loss=after(600, falling, NAN)),
    'skipped': base('Updates skipped, because of a spike or a NaN: 3.', 'still falling',
                    skipped=lambda step: 2 * (step >= 230) + (step >= 640)),
    'running': base('Its log ends at step 500 of 1,000: it still runs, or was stopped or killed.',
                    'still falling', steps=500),
    'slower': base('speed fell from 20,300 to 12,000 tokens/s', 'still falling',
                   tok_s=after(700, lambda step: 2e4 + step % 7 * 100, 1.2e4)),
    'waits': base('In the later half of the log, 50% of a step waited for data', 'still falling', data_s=0.1),
    'usual': base('At its end, val_loss 3.92 is in the usual 3.85 to 4.2.', 'still falling',
                  config=CONFIG | {'preset': 'quickstart.py'}, loss=lambda step: falling(step) + 0.73,
                  val_loss=lambda step: falling(step) + 0.73),
    'unusual': base('At its end, val_loss 3.19 is outside the usual 3.85 to 4.2.', 'still falling',
                    config=CONFIG | {'preset': 'quickstart.py'}),
    # the loss of dpo.py has a part that its validation loss has not
    'pairs': (('still falling', 'It is 0.27 above the training'), CONFIG | {'vocab_size': None},
              [row | {'preference_loss': row['loss'] - 0.3, 'loss': 9.9} if 'loss' in row else row
               for row in history()]),
    'late_evaluation': (('is 3.19 at step 1,000.',), CONFIG,
                        [row for row in history() if 'loss' in row or row['step'] == 1000]),
    'no_evaluation': (('no validation loss', 'not a number'), CONFIG,
                      [row for row in history() if 'loss' in row]),
    'rewarded': rl('is 0.70 at step 100; it was 0.50 at step 0 and highest at step 100, 0.70'),
    'fell': rl('is 0.05 at step 100; it was 0.97 at step 0 and highest at step 0, 0.97',
               val_reward=after(80, 0.97, 0.05)),
    'alike': rl('In the last 13 logged steps all answers to a prompt earned the same', 'busy',
                informative=0)}


@pytest.fixture(scope='module')
def said(tmp_path_factory):
    """{run: what plot.py says of it}"""
    folder = tmp_path_factory.mktemp('plot')
    for name, (_, config, rows) in RUNS.items():
        home(folder / 'out' / name, rows, config)
    printed = run('plot.py', '--runs=out/*', cwd=folder, before=NO_PICTURE).stdout
    parts = [part.partition(' (') for part in f'\n{printed}'.split('\nout/')[1:]]
    assert [name for name, *_ in parts] == sorted(RUNS)
    return {name: rest for name, _, rest in parts}


@pytest.mark.parametrize('name', RUNS)
def test_what_the_numbers_show_is_said_and_nothing_else(said, name):
    expected = RUNS[name][0]
    for words in expected:
        assert words in said[name], said[name]
    for words in RARE:
        assert (words in said[name]) == any(words in more for more in expected), (words, said[name])
    assert 'nan' not in said[name]


def test_no_run_is_called_good_or_bad(said):
    for name, text in said.items():
        for word in ('health', 'stuck', 'scientific', 'operational', 'good', 'bad', 'memori', 'To do'):
            assert word not in text, (name, text)


def test_our_own_base_models_fall_until_their_end(tmp_path):
    """Three seeds of the quickstart."""
    for curve in ([8.364, 5.108, 4.492, 4.117, 3.943], [8.372, 5.149, 4.516, 4.122, 3.939],
                  [8.379, 5.113, 4.482, 4.09, 3.918]):
        values = dict(zip(range(0, 501, 125), curve))
        rows = [{'step': step, 'val_loss': value} for step, value in values.items()]
        rows += [{'step': step, 'loss': float(np.interp(step, [*values], [*values.values()])), 'tok_s': 7400}
                 for step in range(25, 501, 25)]
        home(tmp_path / 'a', sorted(rows, key=lambda row: row['step']), CONFIG | {'max_steps': 500})
        text = run('plot.py', '--runs=a', cwd=tmp_path, before=NO_PICTURE).stdout
        assert 'still falling' in text
        assert 'busy' not in text and 'ln V' not in text and 'flat' not in text
