"""Real runs of sft.py: what reaches the loss, two processes as one, resuming bit for bit, accidents."""
import json
import random
import sys
import time
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch
from conftest import ROOT, metrics, mistake, ok, run
from test_resume import assert_is_the_straight_run, kill_when, state
from test_sft_data import E, TOKENIZER
from test_sft_mistakes import begin, make_base, sft, sums, write

from model import IGNORE, load_checkpoint

SPY = """       # executed before sft.py: writes down what reaches the loss, and does a deed to one step
calls, forward, file = [], model.GPT.forward, open('PATH', 'w')
def spy(self, x, y=None, **more):
    logits, loss = forward(self, x, y, **more)
    if self.training:
        calls.append(print(json.dumps([x.tolist(), y.tolist()]), file=file, flush=True))
        if len(calls) == STEP:
            DEED
    return logits, loss
model.GPT.forward = spy
"""


def spying(path='/dev/null', step=0, deed='pass'):
    return SPY.replace('PATH', f'{path}').replace('STEP', f'{step}').replace('DEED', deed)


def series(out, key):
    return [m[key] for m in metrics(out) if key in m]


start = pytest.fixture(begin, scope='module')       # with dropout, so that lost random state shows


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
    out = tmp_path_factory.mktemp('straight') / 'run'
    said = ok(sft(*start, f'--out_dir={out}'))
    assert said.count(' note ') == 1 and ' note     60 rows, ' in said
    return out


def test_the_tensors_that_reach_the_loss_say_what_the_assistants_say(start, tmp_path):
    chats = {TOKENIZER.decode(TOKENIZER.render(chat)[0]): chat for chat in sums(60, 1)}
    flags = [*start, '--micro_batch_size=4', '--max_steps=7', f'--out_dir={tmp_path}/run']
    ok(sft(*flags, before=spying(tmp_path / 'calls')))
    calls = [json.loads(line) for line in open(tmp_path / 'calls', encoding='utf-8')]
    shown, seen, trained = ok(sft(*flags, '--show_batch=0', '--overwrite=True')), [], 0
    for i, (x, y) in enumerate(row for call in calls for row in zip(*call)):
        seen.append(TOKENIZER.decode(x).split('<|pad|>')[0] + '\n')
        said = [m['content'] + E for m in chats[seen[-1]] if m['role'] == 'assistant']
        assert TOKENIZER.decode([id for id in y if id != IGNORE]) == ''.join(said)
        assert all(after == id for after, id in zip(x[1:], y) if id != IGNORE)      # the very next token
        assert i >= 8 or all(f'[[{text}]]' in shown for text in said)
        trained += sum(id != IGNORE for id in y)
    assert len(calls) == 14 and len(seen) == 56 == len(set(seen))           # in an epoch, each once
    assert trained == sum(series(tmp_path / 'run', 'trained')) and shown.count('--- step 0, ') == 8


def test_one_process_at_once_or_accumulating_4_equals_two_accumulating_2(start, tmp_path):
    flags = [*start, '--dropout=0', '--max_steps=9', '--grad_clip=0.5']
    for n, size in ((1, 8), (4, 2)):
        ok(sft(*flags, f'--out_dir={tmp_path}/{n}', f'--micro_batch_size={size}'))
    two = ok(run('sft.py', *flags, f'--out_dir={tmp_path}/2', '--micro_batch_size=2', processes=2))
    assert '2 processes x 2 accumulated x 2' in two and two.count('step      1/9 | loss') == 1
    assert min(series(tmp_path / '1', 'grad_norm')) > 0.5           # or clipping would do nothing
    for key in ('loss', 'val_loss', 'grad_norm', 'trained', 'tokens'):
        one, *others = (series(tmp_path / n, key) for n in '142')
        assert len(one) > 2 and all(one == pytest.approx(other, abs=1e-5) for other in others), key
    one, *others = (state(tmp_path / n)['model'] for n in '142')
    assert max((one[k] - other[k]).abs().max() for other in others for k in one) < 1e-5


def test_kill_9_at_a_random_moment_then_resume_is_the_straight_run(start, straight, tmp_path):
    flags = [*start, f'--out_dir={tmp_path}/run']
    process = Popen([sys.executable, ROOT / 'sft.py', *flags], stdout=PIPE, text=True)
    next(line for line in process.stdout if 'step      6/20' in line)
    assert kill_when(process, lambda: time.sleep(random.random() / 5) or True)
    assert f'resumed at step {state(tmp_path / "run")["step"]}' in ok(sft(*flags, '--init_from=resume'))
    assert_is_the_straight_run(tmp_path / 'run', straight)


def test_sigterm_saves_and_the_resumed_run_is_the_straight_run(start, straight, tmp_path):
    flags = [*start, f'--out_dir={tmp_path}/run']
    said = ok(sft(*flags, before=spying(step=8, deed='os.kill(os.getpid(), 15)')))
    assert 'stopped at step 8' in said and metrics(tmp_path / 'run')[-1]['step'] == 8
    assert '  changed  ' not in ok(sft(*flags, '--init_from=resume'))
    assert_is_the_straight_run(tmp_path / 'run', straight)
    said = ok(sft(*flags, '--init_from=resume', '--grad_clip=3', '--eval_interval=7'))
    assert 'changed  grad_clip: 1.0 before, 3.0 now' in said and said.count('  changed  ') == 2


def test_a_crash_while_saving_leaves_a_checkpoint_and_an_older_one_helps(start, straight, tmp_path):
    crash = """save = torch.save
torch.save = lambda d, f: os.kill(os.getpid(), 9) if d['step'] == 15 else save(d, f)"""
    flags = [*start, f'--out_dir={tmp_path}/run']
    assert sft(*flags, before=crash).returncode == -9 and state(tmp_path / 'run')['step'] == 10
    (tmp_path / 'run/last.pt').write_bytes(b'damaged')
    said = ok(sft(*flags, '--init_from=resume'))
    assert 'resuming from an older checkpoint' in said and 'resumed at step 5' in said
    (tmp_path / 'run/last.pt.damaged').unlink()
    assert_is_the_straight_run(tmp_path / 'run', straight)


def test_evaluating_changes_nothing(start, straight, tmp_path):
    for n, interval in ((21, 1), (2, 100)):
        ok(sft(*start, f'--eval_interval={interval}', f'--out_dir={tmp_path}/{n}'))
        assert series(tmp_path / f'{n}', 'loss') == series(straight, 'loss')
        assert len(series(tmp_path / f'{n}', 'val_loss')) == n


def test_a_nan_costs_one_update_and_a_model_that_is_not_finite_ends_the_run(start, straight, tmp_path):
    run, base = tmp_path / 'run', make_base(tmp_path / 'base', gain=float('inf'))
    ok(sft(*start, f'--out_dir={run}', before=spying(step=7, deed="loss = loss * float('nan')")))
    assert [(m['step'], m['event']) for m in metrics(run) if 'event' in m] == [(6, 'skip')]
    assert series(run, 'loss')[:6] == series(straight, 'loss')[:6]
    assert all(w.isfinite().all() for w in state(run)['model'].values())
    mistake(sft(*start, f'--init_from={base}', f'--out_dir={tmp_path}/inf'), 'norm.weight', 'not finite')
    assert not list((tmp_path / 'inf').glob('*.pt'))


def test_learning_by_heart_is_noted_the_best_kept_and_what_is_forgotten_measured(start, tmp_path):
    data = write(tmp_path / 'data', sums(4, 1), sums(20, 2))
    ids = np.array(TOKENIZER.encode('Is it so? yo.\n' * 99), dtype=np.uint16)
    ids.tofile(data / 'val.bin')
    meta = {'dtype': 'uint16', 'tokens': {'val': len(ids)}, 'tokenizer_hash': TOKENIZER.hash}
    (data / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    flags = [*start, '--max_steps=60', '--dropout=0', f'--data_dir={data}', f'--base_dir={data}']
    assert '1 to 3 are usual' in ok(sft(*flags, f'--out_dir={tmp_path}/run'))
    out, (best, found) = tmp_path / 'run', load_checkpoint(tmp_path / 'run/best.pt')
    notes = [m for m in metrics(out) if m.get('event') == 'memorising']
    vals, bits = ({m['step']: m[k] for m in metrics(out) if k in m} for k in ('val_loss', 'base_bpb'))
    assert found['best_val'] == vals[found['step']] == min(v for step, v in vals.items() if step)
    assert series(out, 'loss')[-1] < found['best_val'] < vals[60] and found['step'] < notes[0]['step']
    n = (len(ids) - 1) // 128 * 128
    x, y = (torch.from_numpy(a.astype(np.int64)).view(-1, 128) for a in (ids[:n], ids[1:n + 1]))
    now = best.eval()(x, y)[1].item() * n / np.log(2) / len(TOKENIZER.decode_bytes(y.flatten().tolist()))
    assert bits[found['step']] == pytest.approx(now, rel=1e-5) and bits[60] > bits[0]


def test_the_out_dir_is_complete(straight):
    names = 'best.pt config.json last-1.pt last.pt metrics.jsonl samples.txt tokenizer.json train.log'
    assert sorted(p.name for p in straight.iterdir()) == names.split()
    assert '\n7' in ok(run('sample.py', f'--ckpt={straight}', '--prompt=7', '--max_new_tokens=5'))
