"""Accidents on purpose: neither NaN nor a spike reaches the weights, and what happened is written down."""
import re
import subprocess

import pytest
from accidents import accident
from conftest import mistake, ok, read_rows, run, same, series, state, train

# steps 40 and 39 are saved; step 40 meets the accident, so its batch has the number 39
FLAGS = ['--max_steps=40', '--learning_rate=1e-3', '--eval_interval=40', '--save_interval=39',
         '--dtype=float32']


@pytest.fixture(scope='module')
def begin(numbers, tmp_path_factory):
    """A run from a model that has learned most, so that its losses are nearly alike."""
    start = tmp_path_factory.mktemp('learned') / 'run'
    ok(train(numbers, start, '--max_steps=100', '--learning_rate=2e-2', '--eval_interval=100',
             '--save_interval=100'))
    return lambda out, *more, **how: train(numbers, out, f'--init_from={start}', *FLAGS, *more, **how)


def skips(out):
    """The numbers of the steps that train.log says were skipped."""
    log = (out / 'train.log').read_text(encoding='utf-8')
    return [int(n) for n in re.findall(r'step (\d+): update skipped', log)]


@pytest.mark.parametrize('kind', ['nan', 'badbatch'])
def test_an_accident_costs_one_update_reaches_no_weight_and_is_written_down(begin, tmp_path, kind):
    ok(begin(tmp_path, before=accident(kind, 39)))
    assert skips(tmp_path) == [40]
    after, before = state(tmp_path), state(tmp_path, 'last-1.pt')
    assert (after['step'], before['step']) == (40, 39)
    for part in 'model', 'optimizer', 'window':
        assert same(after[part], before[part]), part
    assert (after['skipped'], before['skipped']) == (1, 0)
    row = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'loss' in row][-1]
    assert row['skipped'] == 1 and (row['grad_norm'] is None) == (kind == 'nan')     # JSON has no nan
    [line] = re.findall('.*update skipped.*', (tmp_path / 'train.log').read_text(encoding='utf-8'))
    assert ('nan' in line) == (kind == 'nan') and f'{row["loss"]:.4f}' in line


def test_without_a_limit_a_spike_is_an_update_and_nan_still_is_none(begin, tmp_path):
    ok(begin(tmp_path / 'spike', '--spike_z=0', before=accident('badbatch', 39)))
    ok(begin(tmp_path / 'nan', '--spike_z=0', before=accident('nan', 39)))
    assert skips(tmp_path / 'spike') == [] and skips(tmp_path / 'nan') == [40]
    spike = [state(tmp_path / 'spike', name)['model']['norm.weight'] for name in ('last.pt', 'last-1.pt')]
    assert not same(*spike)


def test_the_first_steps_say_nothing_about_the_next(begin, tmp_path):
    """Only after 30 updates is there a usual loss."""
    ok(begin(tmp_path, '--max_steps=24', before=accident('badbatch', 23)))
    assert skips(tmp_path) == []


def test_a_run_goes_on_after_one_and_after_two_accidents(numbers, tmp_path):
    ok(train(numbers, tmp_path, '--max_steps=12', before=accident('nan', 2, 5, 6, 8, 9)))
    assert skips(tmp_path) == [3, 6, 7, 9, 10] and state(tmp_path)['skipped'] == 5


@pytest.mark.parametrize('kind, updates', [('nan', (5, 6, 7)), ('nan', (0, 1, 2)),
                                           ('badbatch', (40, 41, 42))])
def test_three_in_a_row_end_the_run_and_its_advice_works_as_it_is_typed(begin, tmp_path, kind, updates):
    result = begin(tmp_path, '--max_steps=46', '--save_interval=4', before=accident(kind, *updates))
    mistake(result, '3 updates in a row were skipped', '--learning_rate', 'resume')
    assert skips(tmp_path) == [n + 1 for n in updates]
    saved = state(tmp_path)
    assert saved['step'] == updates[0] // 4 * 4 or saved['step'] == updates[-1] + 1
    assert all(p.isfinite().all() for p in saved['model'].values())

    again = f'--out_dir={tmp_path}', '--init_from=resume', '--learning_rate=1e-4'
    resume = lambda: ok(run('train.py', *again))
    resume()
    assert state(tmp_path)['step'] == 46 and series(tmp_path, 'lr')[-2] < 1e-4
    assert all(p.isfinite().all() for p in state(tmp_path)['model'].values())
    [command] = re.findall(r'cp \S+ \S+', result.stderr)
    subprocess.run(command, shell=True, check=True)
    assert state(tmp_path)['step'] == 44
    resume()
    assert state(tmp_path)['step'] == 46


def test_a_run_that_explodes_by_itself_ends_and_goes_on_with_a_lower_rate(numbers, tmp_path):
    """Its rate rises for 60 steps, far too high."""
    flags = ['--max_steps=100', '--warmup_steps=60', '--learning_rate=60', '--grad_clip=0',
             '--save_interval=5', '--eval_interval=100', '--dtype=float32']
    mistake(train(numbers, tmp_path, *flags), '3 updates in a row')
    steps = state(tmp_path)['step']
    ok(run('train.py', f'--out_dir={tmp_path}', '--init_from=resume', '--learning_rate=1e-3'))
    assert steps < 100 == state(tmp_path)['step']


def test_float16_may_look_for_its_scale(numbers, tmp_path):
    """It overflows on purpose, so more refusals in a row are allowed."""
    ok(train(numbers, tmp_path, '--dtype=float16', '--max_steps=12', before=accident('nan', *range(2, 8))))
    assert state(tmp_path)['skipped'] >= 6 and state(tmp_path)['step'] == 12
