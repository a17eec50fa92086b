"""Real runs with --lora: resuming is the straight run, two processes are one, the folder is a plain one."""
import math

import pytest
import torch
from conftest import assert_is_the_straight_run, make_pairs, make_sft, metrics, mistake, ok, run
from conftest import series, state
from test_dpo import dpo
from test_sft import begin, sft

from model import load_checkpoint

start = pytest.fixture(begin, scope='module')
LORA = ['--lora=4', '--learning_rate=0.01']
STOP = """
from parts.train import optim
clip, n = optim.unscale_and_clip, []
def stop_at_8(*arguments):
    n.append(1)
    if len(n) == 8:
        os.kill(os.getpid(), 15)
    return clip(*arguments)
optim.unscale_and_clip = stop_at_8
"""


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
    out = tmp_path_factory.mktemp('straight') / 'run'
    ok(sft(*start, *LORA, f'--out_dir={out}'))
    return out


def base_of(start):
    return next(flag for flag in start if str(flag).startswith('--init_from=')).split('=')[1]


def test_the_run_learns_and_its_folder_holds_a_plain_model(start, straight):
    losses = series(straight, 'val_loss')
    assert losses[-1] < losses[0] - 0.1 and 0 < series(straight, 'update_ratio')[-1] < 1
    base = load_checkpoint(base_of(start))[0].state_dict()
    for name in ('best.pt', 'last.pt'):
        model, rest = load_checkpoint(straight / name)
        weights = model.state_dict()
        assert len(rest.get('lora', {})) == (7 * model.config.n_layer if name == 'last.pt' else 0)
        changed = {key for key in weights if weights[key].shape != base[key].shape
                   or not torch.equal(weights[key], base[key])}
        assert changed and all('.w_' in key for key in changed)
        for key, (W, B, A) in rest.get('lora', {}).items():
            assert torch.equal(W, base[f'{key}.weight'])
            assert torch.allclose(weights[f'{key}.weight'], W + 4 * B @ A, atol=1e-6)
    ok(run('sample.py', f'--ckpt={straight}', '--prompt=1+1', '--max_new_tokens=3', '--chat=True'))


def test_a_stopped_run_resumes_as_the_straight_one_without_its_base(start, straight, tmp_path):
    flags = [*start, *LORA, f'--out_dir={tmp_path}/run']
    ok(sft(*flags, before=STOP))
    ok(sft(*flags, '--init_from=resume'))
    assert_is_the_straight_run(tmp_path / 'run', straight)
    one, two = state(tmp_path / 'run')['lora'], state(straight)['lora']
    assert all(torch.equal(a, b) for key in one for a, b in zip(one[key], two[key]))
    for rank in (0, 8):
        mistake(sft(*start, f'--lora={rank}', f'--out_dir={tmp_path}/run', '--init_from=resume'),
                f'lora={rank}, but this run has lora=4')


def test_two_processes_are_one(start, tmp_path):
    flags = [*start, *LORA, '--dropout=0', '--max_steps=9']
    ok(sft(*flags, f'--out_dir={tmp_path}/1'))
    ok(run('sft.py', *flags, f'--out_dir={tmp_path}/2', '--micro_batch_size=2', processes=2))
    for key in ('loss', 'val_loss', 'grad_norm'):
        one, two = (series(tmp_path / n, key) for n in '12')
        assert len(one) > 2 and one == pytest.approx(two, abs=1e-4), key
    one, two = (state(tmp_path / n)['model'] for n in '12')
    assert max((one[k] - two[k]).abs().max() for k in one) < 1e-4


def test_dpo_starts_at_ln_2_learns_resumes_and_never_touches_the_base(tmp_path):
    make_sft(tmp_path / 'sft')
    make_pairs(tmp_path / 'pairs')
    flags = [*LORA, '--max_steps=12', '--eval_interval=6', '--save_interval=6']
    ok(dpo(tmp_path, *flags, out=tmp_path / 'straight'))
    first, *_, last = (m for m in metrics(tmp_path / 'straight') if 'val_accuracy' in m)
    assert first['val_loss'] == pytest.approx(math.log(2), abs=1e-6) and abs(first['val_margin']) < 1e-6
    assert last['val_loss'] < first['val_loss'] - 0.05
    rm = [*LORA, '--loss_type=rm', '--max_steps=4', '--eval_interval=4']
    ok(dpo(tmp_path, *rm, out=tmp_path / 'rm'))
    model, rest = load_checkpoint(tmp_path / 'straight' / 'last.pt')
    base = load_checkpoint(tmp_path / 'sft')[0].state_dict()
    assert torch.equal(model.embedding.weight, base['embedding.weight'])
    assert all(torch.equal(W, base[f'{key}.weight']) for key, (W, _, _) in rest['lora'].items())
