"""plot.py: the picture of finished and running runs, and the sentences on made-up histories."""
import math
import re
import shutil

from conftest import ROOT, lift, mistake, ok, run, write

read_rows, expected, _ = lift('plot.py', 'read_rows', 'expected', 'read')
CONFIG = {'max_steps': 1000, 'warmup_steps': 100, 'vocab_size': 4096}
RL = {'stage': 'rl', 'max_steps': 100}
NAN = math.nan
# The sentences are printed without matplotlib, too, and the picture takes long.
NO_PICTURE = 'import sys; sys.modules["matplotlib"] = None'


def falling(step):
    return 3 + (math.log(4096) - 3) * math.exp(-step / 300)


def after(step, first, last):
    """A function of the step that is `first`, a function, before a step, and then `last`."""
    return lambda now: last if now >= step else first(now)


def rows_of(steps, **values):
    """Rows of metrics.jsonl. A value is a number or a function of the step."""
    return [{'step': step} | {key: value(step) if callable(value) else value
                              for key, value in values.items()} for step in steps]


def history(steps=1000, val_loss=falling, **other):
    """The rows of a run of train.py that is well, but for these."""
    usual = {'loss': falling, 'lr': 1e-3, 'grad_norm': 0.8, 'dt': 0.2, 'data_s': 0.006, 'mfu': None,
             'skipped': 0, 'tok_s': lambda step: 20_000 + step % 7 * 100}
    rows = rows_of(range(10, steps + 1, 10), **usual | other)
    rows += rows_of(range(0, steps + 1, 100), val_loss=val_loss, val_bpb=1.5)
    return sorted(rows, key=lambda row: row['step'])


def policy(val_reward=lambda step: 0.5 + step / 500, **other):
    """The rows of a run of rl.py."""
    usual = {'reward': 0.5, 'informative': 0.5, 'loss': 0.001, 'kl': None, 'entropy': 0.3}
    rows = rows_of(range(2, 101, 2), **usual | other)
    rows += rows_of(range(0, 101, 20), val_reward=val_reward)
    return sorted(rows, key=lambda row: row['step'])


def home(folder, rows, config=CONFIG, half=''):
    """A run's folder. half: a line that is being written."""
    path = write(folder / 'metrics.jsonl', rows)
    path.write_text(path.read_text('utf-8').replace('NaN', 'null') + half, encoding='utf-8')
    write(folder / 'config.json', [config])
    (folder / 'samples.txt').write_text('--- step 0, val_loss 8\nx\n\n--- step 9, val_loss 3\n'
                                        'def f(x):\n\treturn "$\\frac{" + "\u6f22" * 99\n', 'utf-8')
    return folder


# --- the picture ----------------------------------------------------------------------------------
def test_the_picture_has_the_sentences_on_each_run_and_panels_for_each_stage(tmp_path):
    """One is finished, one is being written, and every number of the third is NaN."""
    home(tmp_path / 'a', history())
    home(tmp_path / 'b', policy(entropy=NAN), RL, half='{"step": 410, "lo')
    home(tmp_path / 'c', history(200, loss=NAN, grad_norm=NAN, val_loss=NAN), {})
    result = run('plot.py', '--runs=a,b,c', '--out=a.svg', cwd=tmp_path)
    assert 'a (base, step 1,000 of 1,000):\n  The validation loss is 3.19 ' in ok(result)
    assert result.stderr == '' and not (tmp_path / 'a.svg.tmp').exists()
    drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    for title in ('loss', 'nats: falls, ever slower', 'gradient norm', 'learning rate', 'reward',
                  'step time', 'def f(x):', 'a (base, step 1,000 of 1,000)'):
        assert f'<!-- {title} -->' in drawn, title
    assert drawn.count('<!-- loss -->') == 1 and '<!-- clipped -->' not in drawn    # rl has none


def test_a_pattern_means_the_runs_in_it_and_what_is_missing_is_one_sentence(tmp_path):
    """Other files and runs without a complete line are left out; no run is drawn twice."""
    words = "--runs='out/*'", 'python prepare.py && python train.py'
    mistake(run('plot.py', cwd=tmp_path), 'out/base/metrics.jsonl is missing', *words)
    for name in 'a', 'b', 'c d':
        home(tmp_path / 'out' / name, history(20))
    home(tmp_path / 'out/early', rows_of([0], val_loss=8), half='{"step": 1')
    for pattern, found in ('out/b,out/*', ['b', 'a', 'c d']), ('out/[bx]/', ['b']):
        printed = run('plot.py', f'--runs={pattern}', cwd=tmp_path, before=NO_PICTURE).stdout
        assert re.findall(r'^out/(.+) \(base', printed, re.M) == found
    for flags, before, words in (
            ('--runs=out/b,x', '', 'x/metrics.jsonl is missing'),
            ('--runs=out/early', '', 'no complete line yet'),
            ('--runs=out/b --out=x.txt', '', "out='x.txt'"),
            ('--runs=out/b', NO_PICTURE, 'pip install')):
        mistake(run('plot.py', *flags.split(), cwd=tmp_path, before=before), words)


# --- what is read ---------------------------------------------------------------------------------
def test_of_a_resumed_run_only_what_led_to_its_end_counts(tmp_path):
    """Steps are repeated, rows lie behind the save that it went on from, and a line is cut."""
    before = rows_of([10, 20, 30, 40], loss=5) + rows_of([0, 20, 40], val_loss=5)
    rows = sorted(before, key=lambda row: row['step'])
    for again, steps in ((rows_of([30], loss=4), [0, 10, 20, 20, 30, 50]),
                         (rows_of([20], val_loss=4), [0, 10, 20, 20, 50])):
        log = rows + again + rows_of([50], loss=3)
        kept = read_rows(home(tmp_path / 'a', log, half='{"step": 60, "lo') / 'metrics.jsonl')
        assert [row['step'] for row in kept] == steps and again[0] in kept


def test_the_end_is_compared_with_what_its_preset_expects_and_no_config_is_executed(tmp_path):
    """Only config/NAME.py beside plot.py counts, and its text is read."""
    project, mark = tmp_path / 'project', tmp_path / 'executed'
    (project / 'config').mkdir(parents=True)
    for name in 'plot.py', 'configurator.py':
        shutil.copy(ROOT / name, project)
    text = f"open({str(mark)!r}, 'w')\n_expect = {{'val_loss': (3, 3.5),\n 'other': (0, 1)}}\n"
    for path in project / 'config/mine.py', tmp_path / 'foreign.py':
        path.write_text(text, encoding='utf-8')
    cases = [('mine.py', 1000, falling), ('config/mine.py', 1000, falling),     # older runs: a path
             ('mine.py', 900, falling), ('mine.py', 1000, NAN), ('none.py', 1000, falling),
             *((odd, 1000, falling) for odd in (None, '..', [1], str(tmp_path / 'foreign.py')))]
    for i, (preset, steps, loss) in enumerate(cases):
        home(tmp_path / f'run{i}', history(steps, loss), CONFIG | {'preset': preset})
    said = run(project / 'plot.py', '--runs=run?', cwd=tmp_path, before=NO_PICTURE).stdout
    usual = ['At its end, val_loss 3.19 is in the usual 3 to 3.5.' in part
             for part in said.split('\nrun')[1:]]
    assert usual == [True, True] + [False] * 7 and not mark.exists(), said


def test_each_preset_expects_pairs_of_numbers():
    found = {path.name: expected(path) for path in (ROOT / 'config').glob('*.py')}
    assert len([*filter(None, found.values())]) > 5
    for ranges in found.values():
        assert all(low < high for low, high in ranges.values())


# --- the sentences --------------------------------------------------------------------------------
# what is said of few of these runs
RARE = ('not a number', 'ln V', 'above the training', 'lowest', 'flat', 'falling',
        'speed fell', 'waited', 'log ends', 'skipped', 'earned the same',
        'no validation loss', 'usual')
QUICKSTART = CONFIG | {'preset': 'quickstart.py'}
SEEN = {        # words that must be said, its rows, its settings
    'falls': (['is 3.19 at step 1,000, from 8.32 at step 0, and still falling.'], history()),
    'one_evaluation': (['loss is 8.32 at step 0.', 'ln V', 'log ends'], history(50)),
    'two_alike': (['is 5 at step 100.', 'log ends'], history(100, 5, loss=5)),
    # it learns its own text, and the held-out text is another
    'other_text': (['flat since step 0', 'flat', 'above the training', 'ln V = 8.32, the loss of '
                    'guessing among its 4,096 tokens'], history(val_loss=9.5)),
    'exploded': (['flat since step 500', 'lowest at step 400', 'ln V', 'flat'],
                 history(1000, after(500, falling, 50), loss=after(500, falling, 50))),
    'flat': (['is 4 at step 1,000; it has been flat since step 500.',
              'flat'],
             history(1000, lambda step: max(4, falling(step)),
                     loss=lambda step: max(4, falling(step)))),
    'rises': (['is 4.69 at step 1,000; it was lowest at step 600, 4.22, and has risen by 0.47 '
               'since',
               'It is 3.4 above the training'],
              history(1000, lambda step: falling(step) + max(0, step - 400) / 400,
                      loss=lambda step: falling(step) - step / 500)),
    'broken': (['no validation loss, or the last one is not a number'],
               history(1000, after(600, falling, NAN), loss=after(600, falling, NAN))),
    'skipped': (['Updates skipped, because of a spike or a NaN: 3.', 'still falling'],
                history(skipped=lambda step: 2 * (step >= 230) + (step >= 640))),
    'running': (['Its log ends at step 500 of 1,000: it still runs, or was stopped or killed.',
                 'still falling'], history(500)),
    'slower': (['speed fell from 20,300 to 12,000 tokens/s', 'still falling'],
               history(tok_s=after(700, lambda step: 2e4 + step % 7 * 100, 1.2e4))),
    'waits': (['In the later half of the log, 50% of a step waited for data', 'still falling'],
              history(data_s=0.1)),
    'unusual': (['At its end, val_loss 3.19 is outside the usual 3.85 to 4.2.', 'still falling'],
                history(), QUICKSTART),
    # the loss of dpo.py has a part that its validation loss has not
    'pairs': (['still falling', 'It is 0.27 above the training'],
              history(loss=9.9, preference_loss=lambda step: falling(step) - 0.3),
              CONFIG | {'vocab_size': None}),
    'rewarded': (['is 0.70 at step 100; it was 0.50 at step 0 and highest at step 100, 0.70'],
                 policy(), RL),
    'alike': (['In the last 13 logged steps all answers to a prompt earned the same', 'busy'],
              policy(informative=0), RL),
    # our own base model falls until its end
    'quickstart': (['still falling', 'in the usual 3.85 to 4.2.'],
                   rows_of([0, 125, 250, 375, 500], val_loss=dict(zip(
                       range(0, 501, 125), [8.364, 5.108, 4.492, 4.117, 3.943])).get)
                   + rows_of([500], loss=3.94), QUICKSTART | {'max_steps': 500})}


def test_what_the_numbers_show_is_said_and_nothing_else(tmp_path):
    """No run is called good or bad."""
    for name, (_, rows, *config) in SEEN.items():
        home(tmp_path / 'out' / name, rows, *config)
    printed = run('plot.py', '--runs=out/*', cwd=tmp_path, before=NO_PICTURE).stdout
    parts = [part.partition(' (') for part in f'\n{printed}'.split('\nout/')[1:]]
    assert [name for name, *_ in parts] == sorted(SEEN)
    for name, _, said in parts:
        wanted = SEEN[name][0]
        assert [words for words in wanted if words not in said] == [], said
        assert [words for words in RARE if words in said] == [
            words for words in RARE if any(words in more for more in wanted)], said
        for word in 'nan', 'health', 'stuck', 'good', 'bad', 'memori', 'To do':
            assert word not in said, (name, said)
