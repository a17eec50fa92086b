"""Accidents on purpose: what train.py does about them, and that what it did is written down."""
import math
from unittest.mock import Mock

import pytest
from accidents import accident
from conftest import metrics, mistake, ok, read_rows, refused, same, series, state, train

from parts.train import guards

# step 52 meets the accident: its batch has the number 51
FLAGS = ['--max_steps=60', '--learning_rate=1e-2', '--eval_interval=30', '--save_interval=8',
         '--spike_window=30', '--dtype=float32']


def events(out):
    return [(row['step'], row['event']) for row in metrics(out) if 'event' in row]


@pytest.mark.parametrize('kind, action', [('nan', 'skip'), ('spike', 'skip'), ('badbatch', 'skip'),
                                          ('badbatch', 'log')])
def test_an_accident_costs_at_most_one_update_and_is_written_down(data_dir, tmp_path, kind, action):
    ok(train(data_dir, tmp_path, *FLAGS, f'--spike_action={action}', before=accident(kind, 51)))
    assert events(tmp_path) == [(52, 'skip' if action == 'skip' else 'spike')]
    assert '--show_batch=51' in series(tmp_path, 'text')[0]
    after = state(tmp_path)
    assert after['skipped'] == (action == 'skip') and all(p.isfinite().all() for p in after['model'].values())


def test_a_rollback_returns_to_the_checkpoint_at_half_the_rate_also_if_the_run_is_killed(data_dir, tmp_path):
    straight, killed = tmp_path / 'straight', tmp_path / 'killed'
    flags = *FLAGS, '--spike_action=rollback'
    ok(train(data_dir, straight, *flags, before=accident('spike', 51)))
    assert events(straight) == [(49, 'rollback'), (52, 'skip')]         # the way back skips it
    rows = [row for row in metrics(straight) if 'loss' in row]
    assert [row['step'] for row in rows] == [*range(1, 61)] and rows[48]['lr'] < 0.51 * rows[47]['lr']
    # killed behind the rollback, before the next save, and once more after it
    for more, spike, kill in (([], 51, 54), (['--init_from=resume'], 3, 13)):
        before = accident('spike', spike) + accident('kill', kill)
        assert train(data_dir, killed, *flags, *more, before=before).returncode < 0
    ok(train(data_dir, killed, *flags, '--init_from=resume'))
    after = state(killed)
    assert same(after, state(straight)) and after['lr_scale'] == 0.5 and after['bad_steps'] == [51]
    assert metrics(killed) == metrics(straight)


def test_three_skipped_updates_in_a_row_end_the_run_with_the_weights_before_them(data_dir, tmp_path):
    result = train(data_dir, tmp_path, before=accident('nan', 5, 6, 7))
    mistake(result, '3 updates in a row were skipped', 'not finite', '--learning_rate', 'last.pt')
    assert events(tmp_path) == [(step, 'skip') for step in (6, 7, 8)]
    after = state(tmp_path)
    assert after['step'] == 8 and all(p.isfinite().all() for p in after['model'].values())
    assert series(tmp_path, 'grad_norm')[5:] == [None] * 3              # JSON has no nan


def test_what_a_spike_is():
    spike = guards.spike
    window = [[3 + 0.1 * (i % 2), 1.0] for i in range(50)]              # mean 3.05, deviation 0.05
    assert spike(window, 3.4, 1.0, 8) is None and 'loss' in spike(window, 3.5, 1.0, 8)
    assert spike(window, 3.0, 10, 8) is None and 'gradient norm' in spike(window, 3.0, 12, 8)   # e^2.4 = 11
    assert spike(window[:29], 99, 99, 8) is None and spike(window, 99, 99, 0) is None
    assert spike([[3, 0.0]] * 50, 3, 0.0, 8) is None            # a batch in which nothing was scored


def test_the_metrics_of_a_run_name_what_the_system_did(base_run):
    logged = [row for row in read_rows(base_run / 'metrics.jsonl') if 'loss' in row]
    assert {'tok_s', 'tok_s_device', 'save_s', 'uptime_s', 'skipped'} <= logged[-1].keys()
    assert all(0 <= row['data_s'] < row['dt'] and row['memory_mb'] > 50 for row in logged)
    assert all(row['mfu'] is None for row in logged)                    # on a CPU, none is claimed
    assert 0 < logged[-1]['eval_share'] < 1


def test_the_third_skip_in_a_row_is_trouble_and_says_how_to_resume():
    guard = guards.Guard({'window': [[3.0, 1.0]] * 30}, Mock(), spike_z=8.0)
    assert guard.allows(0, 3.0, 1.0)
    for step, loss, norm in (1, math.nan, 1.0), (2, 3.0, math.inf), (3, 9.0, 1.0):
        assert not guard.trouble and not guard.allows(step, loss, norm)
    assert 'resume' in guard.trouble and 'step 4' in guard.trouble
    # resumed, it judges by what comes now: else it would stop again after three steps, for ever
    assert guards.Guard(guard.state(), Mock(), spike_z=8.0).allows(34, 9.0, 1.0)

    first = guards.Guard({}, Mock())                # no update ever: nothing was saved
    assert not first.allows(0, math.nan, 1.0) and not first.allows(1, 3.0, math.inf)
    refused('3 updates in a row', first.allows, 2, math.nan, 1.0)
