"""plot.py: the picture of finished and running runs, and the verdict on histories that we made up."""
import json
import math

import numpy as np
from conftest import ROOT, lift, mistake, ok, read_rows, run, write
from matplotlib import figure

from parts.eval import dashboard
from parts.eval.run_log import read_run

diagnose, verdict, *_ = lift('plot.py', 'diagnose', 'verdict', 'column', 'median', 'faults_of_machine',
                             'faults_of_loss', 'faults_of_reward', 'next_step')

CONFIG = {'max_steps': 1000, 'warmup_steps': 100, 'vocab_size': 4096}
LN_V = math.log(4096)
NAN = math.nan


def falling(step):
    return 3 + (LN_V - 3) * math.exp(-step / 300)


# What runs log that are well: {metric: a function of the step, or a number}
STEP = {'loss': falling, 'tok_s': lambda step: 20_000 + step % 7 * 100, 'dt': 0.2, 'data_s': 0.006,
        'mfu': None, 'lr': 1e-3, 'grad_norm': 0.8, 'memory_mb': 1800, 'update_ratio': 1e-3}
EVALUATION = {'val_loss': falling, 'val_bpb': 1.5, 'val_tiny-web_bpb': 1.6, 'repetition': 0.15}
RL_STEP = {'reward': lambda step: 0.5 + step / 500, 'informative': 0.5, 'loss': 0.001, 'kl': None,
           'entropy': 0.3, 'tok_s': 700, 'dt': 9}
RL_EVALUATION = {'val_reward': RL_STEP['reward']}


def rows_of(usual, steps, other):
    """Rows of metrics.jsonl. other: what this run logs in place of some of the usual."""
    usual = usual | {key: value for key, value in other.items() if key in usual}
    return [{'step': step} | {key: value(step) if callable(value) else value for key, value in usual.items()}
            for step in steps]


def history(steps=1000, events=(), **other):
    """The rows of a run of train.py."""
    rows = rows_of(STEP, range(10, steps + 1, 10), other)
    rows += rows_of(EVALUATION, range(0, steps + 1, 100), other)
    rows += [{'step': step, 'event': kind, 'text': kind} for step, kind in events]
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
EVENTS = [(220, 'spike'), (230, 'skip'), (300, 'rollback'), (640, 'resume'), (700, 'something new')]


def test_the_picture_has_a_verdict_for_each_run_and_panels_for_each_stage(tmp_path):
    """One is finished, one is being written, and every number of the third is NaN."""
    home(tmp_path / 'a', history(lr=lambda step: 1e-5 * min(step, 1000 - step)))
    home(tmp_path / 'b', policy(entropy=NAN) + [{'step': 20, 'event': 'new', 'text': ''}], RL,
         half='{"step": 410, "lo')
    home(tmp_path / 'c', history(200, loss=NAN, grad_norm=NAN, val_loss=NAN), {})
    result = run('plot.py', '--runs=a,b,c', '--out=a.svg', cwd=tmp_path)
    assert 'a (step 1,000 of 1,000): operationally healthy' in ok(result) and not result.stderr
    drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    for title in ('loss', 'nats per token: falls, ever slower', 'gradient norm', 'learning rate', 'reward',
                  'step time', 'def f(x):'):
        assert f'<!-- {title} -->' in drawn, title
    assert not (tmp_path / 'a.svg.tmp').exists()
    for phase in ('#fdf4e1', '#ebf2f9'):        # the rate rises; it is below half of its peak
        assert f'fill: {phase}' in drawn

    n_thin = []                                 # a source's name may have a hyphen
    for other in {}, {'val_tiny-web_bpb': NAN}:
        home(tmp_path / 'a', history(**other))
        ok(run('plot.py', '--runs=a', '--out=a.svg', cwd=tmp_path))
        n_thin.append((tmp_path / 'a.svg').read_text(encoding='utf-8').count('stroke-width: 1.2'))
    assert n_thin[0] == n_thin[1] + 1


CURVES = [{'preset': f'config/{preset}.py', 'stage': stage, 'metric': 'val_loss', 'seed': seed,
           'steps': [0, 9], 'values': [8, 2 + seed]}
          for preset, stage, seeds in (('x', 'base', '12'), ('y', 'base', '3'), ('x', 'sft', '4'))
          for seed in map(int, seeds)]


def test_curves_of_other_seeds_are_drawn_behind_a_run_of_their_stage(tmp_path):
    """Those of its own preset, which are found; all in a file that is named."""
    write(tmp_path / 'config' / 'curves' / 'x.jsonl', CURVES)
    for preset, flags, n_curves in (
            (None, '', 0), ('x', '', 2), ('x', '--reference=none', 0),
            (None, '--reference=config/curves/x.jsonl', 3)):
        home(tmp_path / 'a', history(20), CONFIG | {'preset': preset and f'config/{preset}.py'})
        ok(run('plot.py', '--out=a.svg', '--runs=a', *flags.split(), cwd=tmp_path))
        drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8').count('stroke: #aab2bb')
        assert drawn == n_curves, (preset, flags)


def test_a_panel_shows_its_run_and_the_curves_behind_it():
    """A loss that stays at 8 shows that others fell to 3."""
    ax = figure.Figure().add_axes([0, 0, 1, 1])
    stuck = {'stage': 'base', 'color': 'C0', 'curves': {'val_loss': np.array([[0, 9], [8.3, 8.2]])}}
    dashboard.draw_curves(ax, [stuck], ('val_loss', 'loss'), 1, False, CURVES)
    low, high = ax.get_ylim()
    assert low < 3 and high > 8.2


def test_the_curves_are_those_of_the_runs(tmp_path):
    """Rounded to four digits, at most 60 points each and the last one among them."""
    home(tmp_path / 'a', history(1000), CONFIG | {'seed': 1})
    home(tmp_path / 'b', policy(), RL | {'seed': 2})
    lines = ok(run('bench/curves.py', 'a', 'config/quickstart_rl.py', 'b', cwd=tmp_path)).splitlines()
    found = {(curve['preset'], curve['stage'], curve['seed'], curve['metric']): curve
             for curve in map(json.loads, lines)}
    val = found['', 'base', 1, 'val_loss']
    assert val['steps'] == [*range(0, 1001, 100)]
    assert val['values'] == [float(f'{falling(step):.4g}') for step in val['steps']]
    assert found['config/quickstart_rl.py', 'rl', 2, 'val_reward']['values'][-1] == 0.7
    steps = found['', 'base', 1, 'grad_norm']['steps']
    assert steps == [*range(20, 1001, 20)]


def test_the_curves_that_we_measured_are_small_and_of_presets():
    """Each file has one preset of a stage, because a file that is named is drawn behind all of its stage."""
    files = [*(ROOT / 'config' / 'curves').glob('*.jsonl')]
    assert ROOT / 'config' / 'curves' / 'quickstart.jsonl' in files
    for file in files:
        curves = read_rows(file)
        assert file.stat().st_size < 20_000 and f'config/{file.stem}.py' in {c['preset'] for c in curves}
        assert all((ROOT / curve['preset']).exists() for curve in curves)
        of_stage = {(curve['stage'], curve['preset']) for curve in curves}
        assert len(of_stage) == len(dict(of_stage))
        for curve in curves:
            assert len(curve['steps']) == len(curve['values']) > 1, curve
            assert np.isfinite(curve['steps'] + curve['values']).all()


def test_mistakes_are_one_sentence(tmp_path):
    home(tmp_path / 'a', [], half='{"step": 1')
    home(tmp_path / 'b', history(20))
    for flags, before, words in (
            ('--runs=b,nothing', '', 'nothing/metrics.jsonl is missing'),
            ('--runs=a', '', 'no complete line yet'),
            ('--runs=b --out=x.txt', '', 'out=x.txt'),
            ('--runs=b --reference=typo.jsonl', '', 'reference=typo.jsonl is missing or has no curves'),
            ('--runs=b --reference=b/metrics.jsonl', '', 'bench/curves.py'),
            ('--runs=b', 'import sys; sys.modules["matplotlib"] = None', 'pip install')):
        mistake(run('plot.py', *flags.split(), cwd=tmp_path, before=before), words)


# --- what is read -------------------------------------------------------------------------------------------
def test_the_pass_rate_of_the_checkpoints_joins_the_run(tmp_path):
    folder = home(tmp_path / 'a', history(50, EVENTS), CONFIG | {'warmup_steps': 0.1}, half='{"st')
    several = {'series': [{'step': step, 'pass@1': step / 100} for step in (50, 20)]}
    for i, task in enumerate((several, {'step': 40, 'pass@1': 0.4}, {'step': None, 'pass@1': 0.5})):
        write(folder / f'eval-{i}.json', [{'tasks': {'problems': task}}])       # None: no model wrote them
    run = read_run(str(folder))
    rates = [(row['step'], row['pass_rate']) for row in run['rows'] if 'pass_rate' in row]
    assert rates == [(20, 0.2), (40, 0.4), (50, 0.5)] and len(run['events']) == 5
    assert (run['config']['pass@1'], run['config']['warmup_steps']) == (0.5, 100)


# --- the verdict --------------------------------------------------------------------------------------------
HEALTHY, EARLY = ('healthy', 'healthy'), 'too early to tell'
SYSTEMS, MODEL = ('unhealthy', 'healthy'), ('healthy', 'unhealthy')         # ... is what is unhealthy
# the loss of dpo.py has a part that its validation loss has not
of_pairs = [row | {'preference_loss': row['loss'], 'loss': 9.9} if 'loss' in row else row
            for row in history(loss=lambda step: falling(step) - step / 500,
                               val_loss=lambda step: falling(step) + max(0, step - 400) / 400)]
RL = CONFIG | {'stage': 'rl', 'warmup_steps': 5, 'max_steps': 100}
VERDICTS = [
    (CONFIG, history(), HEALTHY, 'To do: measure it with eval.py'),
    (CONFIG, history(500), HEALTHY, 'To do: let it run.'),
    (CONFIG | {'objective': 'span'}, history(), HEALTHY, 'To do: see it fill gaps: sample.py --prompt='),
    (CONFIG | {'stage': 'dpo', 'loss_type': 'rm'}, history(), HEALTHY, 'To do: let it reward answers: rl.py'),
    (CONFIG | {'pass@1': 0.125}, history(), HEALTHY, ', pass@1 12.5%. To do: try the next stage'),
    (CONFIG | {'pass@1': 0}, history(), MODEL, 'none of the problems (pass@1 0%). To do: read samples.jsonl'),
    (CONFIG | {'pass@1': 0}, history(150), ('healthy', EARLY), 'pass@1 0.0%'),
    (CONFIG, history(tok_s=lambda step: 2e4 if step < 700 else 1.2e4), SYSTEMS, 'throughput fell from '),
    (CONFIG, history(data_s=0.1), SYSTEMS, 'waiting for data takes '),
    (CONFIG, history(50, loss=NAN), MODEL, 'lower learning_rate'),
    (CONFIG | {'stage': 'dpo'}, of_pairs, MODEL, 'memorising'),
    (CONFIG, history(val_loss=8.2), MODEL, 'near ln V = 8.32'),
    (CONFIG, history(repetition=0.97), MODEL, 'repeat themselves (97%)'),
    (CONFIG, history(events=[(800, 'rollback'), (900, 'rollback')]), MODEL, 'rolled back 2 times'),
    (CONFIG, [], (EARLY, EARLY), 'no step is logged'),
    (RL, policy(informative=0), MODEL, 'all answers to a prompt earn the same'),
    (RL, policy(val_reward=0.0), MODEL, 'no held-out answer earned a reward'),
    (RL, policy(val_reward=lambda step: 0.97 if step < 80 else 0.05), MODEL, 'went from 0.97 to 0.05'),
    (RL, policy(val_reward=0.64), MODEL, 'went from 0.64 to 0.64'),
    (RL, policy(val_reward=lambda step: 0.97 if step < 80 else 0.96), HEALTHY, 'reward 0.69'),
    (RL, policy(), HEALTHY, 'reward 0.69')]


def test_the_verdict():
    for config, rows, expected, words in VERDICTS:
        systems, model, sentence = verdict(rows, config)
        assert (systems, model) == expected and words in sentence, (words, sentence)
        assert '. To do: ' in sentence and 'nan' not in sentence, sentence


SLOW = [[i, 4 + i / 1000] for i in range(0, 400, 100)]
NOISY = [[i, v] for i, v in zip(range(0, 800, 100), (6.2, 5, 4, 3.5, 3.6, 3.58, 3.7, 3.65))]
HALF = [[i, 2 * (i + 1) ** -0.02] for i in range(100, 1000, 100)]          # so many steps again bring 1.4 %


def test_one_diagnosis_names_what_ails_a_loss():
    for vals, loss, event in [
            ([[300, 6.2]], 6.2, 'stuck'), ([[300, 4.0]], 3.9, None), ([[100, 6.2]], 6.2, None),
            (HALF, 1.6, None), (SLOW, 3.0, 'memorising'), (SLOW, 4.6, 'drift'), (NOISY, 3.6, 'drift'),
            (NOISY[:5], 3.0, None),
            ([[i, 4 - i / 1e6] for i in range(0, 400, 100)], 3.9, 'plateau')]:
        illness = diagnose(vals, loss, vocab_size=512, warmup=10)
        assert (illness and illness[0]) == event, (vals, illness)
