"""Pretraining: what a run writes, and what it depends on."""
import json
import math
import re
import shutil

import pytest
import torch
from conftest import TINY, accident, metrics, ok, run

from model import GPT, load_checkpoint
from tokenizer import Tokenizer

# with dropout, so that a step whose randomness came from elsewhere would show
BASE = [*TINY, '--dtype=float32', '--dropout=0.1', '--learning_rate=1e-2', '--max_steps=16']


def train(data_dir, out, *more):
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more))
    return out


def training(out, *fields):
    fields = fields or ('step', 'loss', 'grad_norm', 'lr')
    rows = [tuple(m[k] for k in fields) for m in metrics(out) if 'loss' in m]
    return rows if len(fields) > 1 else [value for value, in rows]


def weights(out, file='last.pt'):
    return torch.load(out / file, weights_only=True)['model']


def identical(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope='module')
def base(data_dir, tmp_path_factory):
    return train(data_dir, tmp_path_factory.mktemp('runs') / 'base')


def test_loss_starts_near_ln_v_and_falls(base):
    losses = training(base, 'loss')
    assert abs(losses[0] - math.log(512)) < 0.05        # 256 tokens under logits of spread 0.1
    assert max(losses[-3:]) < losses[0] - 0.3
    val = [m['val_loss'] for m in metrics(base) if 'val_loss' in m]
    assert len(val) == 5 and val[-1] < val[0] - 0.3 and min(val) == val[-1]


def test_an_untied_head_is_a_matrix_of_its_own_which_is_planned_trained_and_resumed(data_dir, tmp_path):
    flags = ['--tie_embeddings=False', '--embedding_lr=10', '--optimizer=muon']
    run_of = train(data_dir, tmp_path / 'whole', *flags)
    model = load_checkpoint(run_of / 'last.pt')[0]
    embedding, head = model.embedding.weight, model.head.weight
    assert embedding.shape == head.shape == (512, 32) and not torch.equal(embedding, head)
    torch.manual_seed(1337)
    first = GPT(model.config)
    assert (embedding - first.embedding.weight).norm() > 2 * (head - first.head.weight).norm()
    n = sum(p.numel() for p in model.parameters())
    assert f'  model    {n:,} parameters' in (run_of / 'train.log').read_text(encoding='utf-8')
    planned = ok(run('train.py', f'--data_dir={data_dir}', *BASE, *flags, '--plan=1xcpu'))
    assert re.search(rf'output +{512 * 32:,} parameters', planned)
    assert re.search(rf'total +{n:,} parameters', planned) and f'  {6 * (n - 512 * 32):,} + ' in planned

    halves = tmp_path / 'halves'
    folders = [f'--data_dir={data_dir}', f'--out_dir={halves}']
    killed = run('train.py', *folders, *BASE, *flags, before=accident('kill', 10))
    assert killed.returncode != 0 and load_checkpoint(halves / 'last.pt')[1]['step'] == 8
    train(data_dir, halves, *flags, '--init_from=resume')
    assert identical(weights(run_of), weights(halves))


def test_out_dir_is_complete(base, data_dir):
    assert {p.name for p in base.iterdir()} == {
        'last.pt', 'last-1.pt', 'best.pt', 'config.json', 'tokenizer.json', 'data.json', 'metrics.jsonl',
        'train.log', 'samples.txt'}
    model, state = load_checkpoint(base)                # best.pt: enough to use the model,
    assert state['step'] == 16 and state['tokenizer_hash'] == Tokenizer.load(data_dir / 'tokenizer.json').hash
    assert 'optimizers' in torch.load(base / 'last.pt', weights_only=True)   # last.pt: to go on
    config = json.loads((base / 'config.json').read_text(encoding='utf-8'))
    assert config['max_steps'] == 16 and config['dropout'] == 0.1 and config == state['config']
    assert (base / 'samples.txt').read_text(encoding='utf-8').count('--- step') == 5
    assert (base / 'tokenizer.json').read_bytes() == (data_dir / 'tokenizer.json').read_bytes()


def test_log_and_metrics_say_the_same(base):
    log = (base / 'train.log').read_text(encoding='utf-8').splitlines()
    assert sum('lr:' in line for line in log) == 16                     # `grep lr: train.log` is a loss curve
    assert any(f'{math.log(512):.4f}' in line for line in log)          # what to expect of the first loss
    with open(base / 'metrics.jsonl', encoding='utf-8') as f:
        lines = [json.loads(line) for line in f]
    steps = [m for m in lines if 'loss' in m]
    assert [m['step'] for m in steps] == list(range(1, 17))
    for m in steps:
        assert {'step', 'tokens', 'loss', 'lr', 'grad_norm', 'dt', 'tok_s'} <= m.keys()
        assert m['tokens'] == m['step'] * 8 * 32 and abs(m['tok_s'] * m['dt'] - 256) < 1e-6
        assert any(f'{m["step"]}/16' in line and f'loss: {m["loss"]:.4f}' in line for line in log)
    for m in lines:
        if 'val_loss' in m:
            assert m['val_ppl'] == pytest.approx(math.exp(m['val_loss']), rel=1e-12)
            assert 0 < m['val_bpb'] < m['val_loss']


def test_same_seed_same_run(base, data_dir, tmp_path):
    again = train(data_dir, tmp_path / 'again')
    assert metrics(again) == metrics(base) and identical(weights(again), weights(base))


def test_another_seed_is_another_run_and_overwrite_leaves_nothing_of_the_first(base, data_dir, tmp_path):
    other = train(data_dir, shutil.copytree(base, tmp_path / 'other'), '--seed=1', '--overwrite=True')
    assert [m['step'] for m in metrics(other)] == [m['step'] for m in metrics(base)]
    assert all(a != b for a, b in zip(training(other, 'loss'), training(base, 'loss')))


def test_watching_does_not_change_training(base, data_dir, tmp_path):
    watched = train(data_dir, tmp_path, '--eval_interval=3', '--eval_tokens=64', '--sample_tokens=40',
                    '--save_interval=5', '--log_interval=5', '--sample_prompt=import')
    assert training(watched) == [line for line in training(base) if line[0] in (1, 5, 10, 15, 16)]
    assert identical(weights(watched), weights(base))


def test_clipping_acts_on_the_update_and_the_logged_norm_is_the_one_before(base, data_dir, tmp_path):
    tight = train(data_dir, tmp_path, '--grad_clip=0.01')
    assert training(tight)[0] == training(base)[0] and min(training(tight, 'grad_norm')) > 0.01
    assert not identical(weights(tight), weights(base))


def test_accumulation_changes_nothing_but_rounding(data_dir, tmp_path):
    """The same sums in another order: 1e-5 is about 100 roundings of float32 at 1.
    grad_clip=0 is no clipping: were it a clipping to 0, nothing would be learned."""
    whole = train(data_dir, tmp_path / 'whole', '--dropout=0', '--grad_clip=0', '--micro_batch_size=8')
    parts = train(data_dir, tmp_path / 'parts', '--dropout=0', '--grad_clip=0', '--micro_batch_size=2')
    assert training(parts, 'loss') == pytest.approx(training(whole, 'loss'), abs=1e-5)
    assert training(parts, 'loss')[-1] < training(parts, 'loss')[0] - 0.3
    a, b = weights(whole), weights(parts)
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-5


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_trains_on_a_cpu_with_float32_weights(base, data_dir, tmp_path, dtype):
    out = train(data_dir, tmp_path, f'--dtype={dtype}')
    assert all(w.dtype == torch.float32 for w in weights(out).values())
    a, b = training(out, 'loss'), training(base, 'loss')
    assert a != b and a == pytest.approx(b, abs=0.02)   # products rounded to 8 bits, over 16 steps


def test_init_from_a_folder_starts_from_its_weights_at_step_0(base, data_dir, tmp_path):
    out = train(data_dir, tmp_path, f'--init_from={base}', '--n_layer=1', '--dropout=0',
                '--max_steps=3', '--warmup_steps=2')
    first, second = metrics(out)[:2]
    best = [m for m in metrics(base) if 'val_loss' in m][-1]
    assert first['step'] == 0 and first['val_loss'] == best['val_loss']     # the same model,
    assert second['step'] == 1 and second['lr'] == pytest.approx(0.5e-2)    # on a schedule of its own
    model, state = load_checkpoint(out / 'last.pt')
    assert state['step'] == 3 and model.config.n_layer == 2     # the checkpoint's architecture
    assert all(s['step'] == 3 for s in state['optimizers'][0]['state'].values())        # a new optimizer


def test_every_documented_setting_exists():
    text = ok(run('train.py', '--help'))
    for name in ('data_dir out_dir init_from n_layer n_head n_kv_head n_embd n_ffn block_size vocab_size '
                 'dropout batch_size micro_batch_size max_steps learning_rate min_lr warmup_steps '
                 'weight_decay beta1 beta2 grad_clip compile dtype device seed log_interval eval_interval '
                 'save_interval').split():
        assert f'--{name}=' in text, name
