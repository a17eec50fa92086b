"""Accidents, caused on purpose: what train.py does about them, and that what it did is written down."""
import math

import pytest
from accidents import accident
from conftest import metrics, ok, read_rows, refused, series, train

from model import load_checkpoint
from parts.train import guards

FLAGS = ['--max_steps=120', '--learning_rate=3e-3', '--eval_interval=40', '--save_interval=40',
         '--spike_window=40', '--dtype=float32']


def events(out):
    return [(m['step'], m['event']) for m in metrics(out) if 'event' in m]


@pytest.fixture(scope='module')
def quiet(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('quiet')
    ok(train(data_dir, out, *FLAGS))
    return out


@pytest.mark.parametrize('kind', ['nan', 'spike', 'badbatch'])
def test_an_accident_costs_one_update_and_is_written_down(data_dir, quiet, tmp_path, kind):
    ok(train(data_dir, tmp_path, *FLAGS, before=accident(kind, 110)))
    before = [m for m in metrics(quiet) if 'loss' in m and m['step'] <= 110]
    assert [m for m in metrics(tmp_path) if 'loss' in m and m['step'] <= 110] == before
    assert events(tmp_path) == [(110, 'skip')]
    model, state = load_checkpoint(tmp_path / 'last.pt')
    assert state['skipped'] == 1 and all(p.isfinite().all() for p in model.parameters())
    assert abs(series(tmp_path, 'val_loss')[-1] - series(quiet, 'val_loss')[-1]) < 0.1


def test_a_rollback_goes_to_the_last_checkpoint_with_half_the_rate(data_dir, tmp_path):
    ok(train(data_dir, tmp_path, *FLAGS, '--spike_action=rollback', before=accident('spike', 110)))
    assert events(tmp_path) == [(110, 'skip'), (110, 'rollback'), (110, 'skip')]    # again on the way back
    rates = [(m['step'], m['lr']) for m in metrics(tmp_path) if 'lr' in m]
    assert rates[109][0] == 110 and rates[110][0] == 81 and math.isclose(rates[110][1], rates[80][1] / 2)
    state = load_checkpoint(tmp_path / 'last.pt')[1]
    assert state['step'] == 120 and state['lr_scale'] == 0.5 and state['bad_steps'] == [110]


def test_a_logged_spike_changes_nothing(data_dir, tmp_path):
    ok(train(data_dir, tmp_path, *FLAGS, '--spike_action=log', before=accident('badbatch', 110)))
    assert events(tmp_path) == [(110, 'spike')] and load_checkpoint(tmp_path / 'last.pt')[1]['skipped'] == 0


def test_what_a_spike_is():
    spike = guards.spike
    window = [[3 + 0.1 * (i % 2), 1.0] for i in range(50)]              # mean 3.05, deviation 0.05
    assert spike(window, 3.4, 1.0, 8) is None and 'loss' in spike(window, 3.5, 1.0, 8)
    assert spike(window, 3.0, 10, 8) is None and 'gradient norm' in spike(window, 3.0, 12, 8)   # e^2.4 = 11
    assert spike(window[:29], 99, 99, 8) is None and spike(window, 99, 99, 0) is None
    assert spike([[3, 0.0]] * 50, 3, 0.0, 8) is None            # a batch in which nothing was scored


def test_a_quiet_run_is_left_alone_and_its_metrics_name_what_the_system_did(quiet):
    assert events(quiet) == []
    rows = read_rows(quiet / 'metrics.jsonl')
    logged = [row for row in rows if 'loss' in row]
    assert {'tok_s', 'tok_s_device', 'save_s', 'uptime_s', 'restarts', 'skipped'} <= logged[-1].keys()
    assert all(0 <= row['data_s'] < row['dt'] and row['memory_mb'] > 50 for row in logged)
    assert all(row['mfu'] is None for row in logged)                    # on a CPU, none is claimed
    assert 0 < logged[-1]['eval_share'] < 1


def test_the_third_skip_in_a_row_is_trouble_and_says_how_to_resume():
    guard = guards.Guard({}, lambda *_: None)
    assert guard.allows(0, 3.0, 1.0)
    for step in (1, 2, 3):
        assert not guard.trouble and not guard.allows(step, math.nan, 1.0)
    assert 'resume' in guard.trouble and 'step 3' in guard.trouble

    quiet = {'window': [[3.0, 1.0]] * 30}
    guard = guards.Guard(quiet, lambda *_: None, spike_z=8.0)
    assert guard.allows(30, 3.0, 1.0) and not any(guard.allows(step, 9.0, 1.0) for step in (31, 32, 33))
    assert 'step 33' in guard.trouble
    # resumed, it judges by what comes now: else it would stop again after three steps, for ever
    assert guards.Guard(guard.state(), lambda *_: None, spike_z=8.0).allows(34, 9.0, 1.0)

    first = guards.Guard({}, lambda *_: None)       # no update ever: nothing was saved
    assert not first.allows(0, math.nan, 1.0) and not first.allows(1, 3.0, math.inf)
    refused('3 updates in a row', first.allows, 2, math.nan, 1.0)
