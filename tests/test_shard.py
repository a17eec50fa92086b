"""fsdp and zero1 are other places for the same numbers: two processes do what one does, and the checkpoints
say nothing of how they were shared out."""
import shutil

import pytest
import torch
from conftest import TINY, accident, metrics, mistake, ok, run

# float32; an odd width, so that not every matrix has two equal halves; clipping acts
BASE = [*TINY, '--dtype=float32', '--n_embd=36', '--n_ffn=50', '--grad_clip=0.3', '--learning_rate=1e-2',
        '--micro_batch_size=2', '--num_samples=2']


def train(data_dir, out, *more, processes=2, before=''):
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more, processes=processes,
               before=before)


def checkpoint(out):
    return torch.load(out / 'last.pt', weights_only=True)


def assert_equal_but_for_rounding(a, b, tolerance=2e-5):
    """The same sums in another order: 1e-5 is about 100 float32 roundings at 1."""
    for key in ('loss', 'val_loss', 'grad_norm', 'update_ratio', 'repetition'):
        x, y = ([m[key] for m in metrics(out) if key in m] for out in (a, b))
        assert x and x == pytest.approx(y, abs=tolerance), key
    a, b = checkpoint(a), checkpoint(b)
    assert a['model'].keys() == b['model'].keys()
    for key, value in a['model'].items():
        torch.testing.assert_close(value, b['model'][key], atol=tolerance, rtol=0)
    for one, two in zip(a['optimizers'], b['optimizers'], strict=True):
        assert one['state'].keys() == two['state'].keys()
        for i, moments in one['state'].items():
            for name, value in moments.items():
                torch.testing.assert_close(value, two['state'][i][name], atol=tolerance, rtol=0)


@pytest.fixture(scope='module', params=['adamw', 'muon'])
def one(request, data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('one')
    ok(train(data_dir, out, f'--optimizer={request.param}', processes=1))
    return request.param, out


@pytest.mark.parametrize('flags', [['--shard=fsdp'], ['--shard=fsdp', '--grad_checkpoint=True'],
                                   ['--shard=zero1']], ids=' '.join)
def test_two_processes_that_share_the_state_do_what_one_does(data_dir, one, flags, tmp_path):
    optimizer, straight = one
    if optimizer == 'muon' and flags != ['--shard=fsdp']:
        pytest.skip('the gathering is the same as with adamw')
    ok(train(data_dir, tmp_path / 'a', f'--optimizer={optimizer}', *flags))
    tolerance = 2e-5 if optimizer == 'adamw' else 5e-3      # Muon iterates in bfloat16, which rounds by 4e-3
    assert_equal_but_for_rounding(straight, tmp_path / 'a', tolerance)
    assert {p.name for p in straight.iterdir()} == {p.name for p in (tmp_path / 'a').iterdir()}


@pytest.mark.parametrize('change', ['fsdp to one process', 'one process to fsdp', 'ddp to fsdp'])
def test_a_run_goes_on_on_another_number_of_processes(data_dir, tmp_path, change):
    first, second = {'fsdp to one process': ((2, 'fsdp'), (1, 'ddp')),
                     'one process to fsdp': ((1, 'ddp'), (2, 'fsdp')),
                     'ddp to fsdp': ((2, 'ddp'), (2, 'fsdp'))}[change]
    ok(train(data_dir, tmp_path / 'a', f'--shard={first[1]}', '--keep=3', processes=first[0]))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    shutil.move(tmp_path / 'b' / 'last-1.pt', tmp_path / 'b' / 'last.pt')           # stopped at step 8
    said = ok(train(data_dir, tmp_path / 'b', f'--shard={second[1]}', '--keep=3', '--init_from=resume',
                    processes=second[0]))
    assert 'resumed at step 8' in said
    assert_equal_but_for_rounding(tmp_path / 'a', tmp_path / 'b')


def test_fsdp_rolls_back_and_its_folder_samples_in_one_process(data_dir, tmp_path):
    ok(train(data_dir, tmp_path, '--shard=fsdp', '--max_steps=60', '--spike_action=rollback',
             '--save_interval=20', '--spike_window=40', before=accident('spike', 50)))
    found = [(m['step'], m['event']) for m in metrics(tmp_path) if m.get('event') in ('skip', 'rollback')]
    assert found == [(50, 'skip'), (50, 'rollback'), (50, 'skip')]
    assert checkpoint(tmp_path)['lr_scale'] == 0.5 and checkpoint(tmp_path)['step'] == 60
    ok(run('sample.py', f'--ckpt={tmp_path}', '--max_new_tokens=5', '--device=cpu'))


def test_fsdp_is_nothing_in_one_process_and_refuses_float16(data_dir, tmp_path):
    ok(train(data_dir, tmp_path / 'one', '--shard=fsdp', processes=1))
    mistake(train(data_dir, tmp_path / 'x', '--shard=fsdp3', processes=1), 'shard', 'ddp, zero1, fsdp')
    result = train(data_dir, tmp_path / 'half', '--shard=fsdp', '--dtype=float16')
    assert result.returncode != 0 and 'error: shard=fsdp' in result.stderr, result.stderr
