"""Real runs of dpo.py: what is learned, two processes as one, resuming bit for bit."""
import json
import signal

import pytest
import torch
from conftest import metrics, ok
from test_dpo_mistakes import dpo, make_pairs, make_sft, write
from test_resume import assert_is_the_straight_run, state


def series(out, key):
    return [m[key] for m in metrics(out) if key in m]


def thumbs(path):
    """Half of the pairs of a file taken apart: a thumb up here, a thumb down there, never both."""
    records = list(map(json.loads, open(path, encoding='utf-8')))
    write(path, [{'prompt': r['prompt'], 'completion': r[('chosen', 'rejected')[i // 2 % 2]],
                  'label': i // 2 % 2 == 0} if i % 2 or path.parent.name == 'thumbs' else r
                 for i, r in enumerate(records)])


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('dpo')
    make_sft(folder / 'sft')
    make_sft(folder / 'untied', tie_embeddings=False)
    for name in ('pairs', 'mixed', 'thumbs'):
        make_pairs(folder / name)
    for name in ('mixed/train', 'mixed/val', 'thumbs/train'):
        thumbs(folder / f'{name}.jsonl')
    return folder


@pytest.mark.parametrize('kind, data, more', [
    ('dpo', 'pairs', []), ('dpo', 'pairs', ['--label_smoothing=0.2', '--nll_weight=0']),
    ('ipo', 'pairs', []), ('simpo', 'pairs', []), ('orpo', 'pairs', ['--beta=1']),
    ('kto', 'pairs', ['--nll_weight=0']), ('kto', 'thumbs', ['--nll_weight=0']),
    ('rm', 'pairs', []), ('dpo', 'pairs', ['--optimizer=muon'])])
def test_held_out_answers_are_told_apart_after_24_steps(home, tmp_path, kind, data, more):
    out = tmp_path / 'run'
    flags = [f'--loss_type={kind}', '--max_steps=24', '--eval_interval=24', *more]
    ok(dpo(home, *flags, data=data, out=out))
    first, last = (m for m in metrics(out) if 'val_accuracy' in m)
    assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9 and last['step'] == 24
    assert last['val_loss'] < first['val_loss'] and last['val_margin'] > first['val_margin'] + 0.01
    rewards = last['val_chosen_reward'], last['val_rejected_reward']
    assert last['val_margin'] == pytest.approx(rewards[0] - rewards[1], abs=1e-5)


def test_a_smaller_beta_drifts_further_and_nll_holds_the_good_answers_up(home, tmp_path):
    def end(name, *more):
        ok(dpo(home, *more, '--max_steps=24', '--grad_clip=0', out=tmp_path / name))
        names = 'val_kl', 'val_chosen_logp', 'val_rejected_logp'
        return {k: series(tmp_path / name, k) for k in names}

    # ipo has a target, 1 / (2 beta), so that the drift is beta's doing and not the number of steps'
    ipo = ['--loss_type=ipo', '--nll_weight=0']
    tight, loose = (end(f'ipo{beta}', *ipo, f'--beta={beta}') for beta in (1, 0.05))
    gap = [a - b for a, b in zip(loose['val_chosen_logp'], loose['val_rejected_logp'])]
    assert abs(loose['val_kl'][-1]) > 3 * abs(tight['val_kl'][-1]) and gap[-1] > gap[0] + 5
    bare, held = end('bare', '--nll_weight=0'), end('held', '--nll_weight=1')
    assert held['val_chosen_logp'][-1] > held['val_chosen_logp'][0] + 5
    assert bare['val_chosen_logp'][-1] < held['val_chosen_logp'][-1] - 5


# two processes without torchrun's seconds: the second is forked before dpo.py begins
TWO = """
import socket
with socket.create_server(('127.0.0.1', 0)) as s:
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE='2')
os.environ['RANK'] = os.environ['LOCAL_RANK'] = str(int(os.fork() == 0))
"""


@pytest.mark.parametrize('kind, data, init', [('dpo', 'pairs', 'sft'), ('kto', 'mixed', 'sft'),
                                              ('rm', 'pairs', 'untied')])
def test_one_process_accumulating_4_equals_two_accumulating_2(home, tmp_path, kind, data, init):
    """Clipping and kto's KL are of the whole batch. 1e-5: the same float32 sums in another order."""
    one, two = tmp_path / 'one', tmp_path / 'two'
    flags = [f'--loss_type={kind}', '--micro_batch_size=2', '--grad_clip=0.1', '--max_steps=8',
             '--beta=0.5', '--learning_rate=1e-3']
    assert '1 processes x 4 accumulated x 2' in ok(dpo(home, *flags, data=data, init=init, out=one))
    said = ok(dpo(home, *flags, data=data, init=init, out=two, before=TWO))
    assert '2 processes x 2 accumulated x 2' in said and said.count('step      1/8 | loss') == 1
    assert min(series(one, 'grad_norm')) > 0.1 and len(series(one, 'loss')) == 8
    for key in ('loss', 'val_loss', 'grad_norm', 'margin', 'val_accuracy', 'chosen_reward'):
        assert series(one, key) == pytest.approx(series(two, key), abs=1e-5, rel=1e-5), key
    a, b = state(one), state(two)
    assert a['model'].keys() == b['model'].keys() and a['kto_kl'] == pytest.approx(b['kto_kl'], abs=1e-5)
    assert max((a['model'][k] - b['model'][k]).abs().max().item() for k in a['model']) < 1e-5
    assert kind != 'kto' or a['kto_kl'] > 0.01


# a real kill -9: right after so many checkpoints were written, best.pt or last.pt
KILL = """
n, save = [0], model.save_checkpoint
def spy(*a, **k):
    save(*a, **k)
    n[0] += 1
    if n[0] == WHEN:
        os.kill(os.getpid(), 9)
model.save_checkpoint = spy
"""


@pytest.mark.parametrize('kind, data', [('dpo', 'pairs'), ('kto', 'mixed'), ('rm', 'pairs')])
def test_a_killed_run_goes_on_as_the_straight_run_bit_for_bit(home, tmp_path, kind, data):
    straight, flags = tmp_path / 'straight', [f'--loss_type={kind}', '--beta=0.5']
    ok(dpo(home, *flags, data=data, out=straight))
    for when in (2, 3):         # best.pt of step 5; last.pt of step 8, before it has its name
        out = tmp_path / f'killed{when}'
        killed = dpo(home, *flags, data=data, out=out, before=KILL.replace('WHEN', str(when)))
        assert killed.returncode == -signal.SIGKILL
        said = ok(dpo(home, *flags, data=data, init='resume', out=out))
        assert 'resumed at step 4' in said
        assert_is_the_straight_run(out, straight)
    assert state(straight)['kto_kl'] > 0.01 or kind != 'kto'
    assert 'reward_head' in state(straight) or kind != 'rm'
    (out / 'last.pt').write_bytes(b'damaged')       # the one before is there for that
    said = ok(dpo(home, *flags, data=data, init='resume', out=out))
    assert 'resuming from an older checkpoint' in said and 'resumed at step 8' in said
    (out / 'last.pt.damaged').unlink()
    assert_is_the_straight_run(out, straight)


@pytest.mark.parametrize('kind', ['dpo', 'rm'])
def test_watching_changes_nothing(home, tmp_path, kind):
    for name, more in (('much', ['--eval_interval=1', '--save_interval=1', '--sample_tokens=20']),
                       ('little', ['--eval_interval=99', '--log_interval=7', '--eval_pairs=2'])):
        ok(dpo(home, f'--loss_type={kind}', *more, out=tmp_path / name))
    a, b = state(tmp_path / 'much'), state(tmp_path / 'little')
    assert all(torch.equal(a['model'][k], b['model'][k]) for k in b['model'])
    assert a['window'] == b['window']       # every loss and norm
