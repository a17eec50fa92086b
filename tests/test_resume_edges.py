"""Resuming at its edges: what was changed counts, what was saved stays, and every way in has a way on."""
import json
import math
import os
import shutil

import pytest
import torch
from conftest import TINY, metrics, mistake, ok, run

from model import GPT, GPTConfig
from parts.train import checkpoint, guards, journal, start
from parts.train.streams import Stream
from tokenizer import Tokenizer


@pytest.fixture(scope='module')
def base(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('base')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY))
    return out


def resume(data_dir, base, to, *flags):
    shutil.copytree(base, to)
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={to}', *TINY, '--init_from=resume', *flags)


def test_changed_weight_decay_and_betas_are_used(data_dir, base, tmp_path):
    said = ok(resume(data_dir, base, tmp_path / 'a', '--max_steps=14', '--weight_decay=9', '--beta1=0.5'))
    assert 'changed  weight_decay: 0.1 before, 9.0 now' in said
    ok(resume(data_dir, base, tmp_path / 'b', '--max_steps=14'))
    a, b = (torch.load(tmp_path / name / 'last.pt', weights_only=True) for name in 'ab')
    groups = a['optimizers'][0]['param_groups']
    assert [group['weight_decay'] for group in groups] == [9.0, 0.0] and groups[0]['betas'] == (0.5, 0.95)
    assert a['model']['embedding.weight'].norm() < b['model']['embedding.weight'].norm()


@pytest.mark.parametrize('flag', ['--embedding_lr=10', '--tie_embeddings=False', '--batch_size=4',
                                  '--max_steps=8'])
def test_what_a_run_cannot_change_is_said(data_dir, base, tmp_path, flag):
    mistake(resume(data_dir, base, tmp_path / 'a', '--max_steps=14', flag), flag.strip('-').split('=')[0])


def test_after_three_spikes_a_resumed_run_judges_by_its_own_steps():
    notes = []
    guard = guards.Guard({}, lambda *note: notes.append(note), spike_z=8)
    assert all(guard.allows(step, 1.0 + step % 3 / 100, 1.0) for step in range(40))
    for step in range(40, 43):          # the text became harder, and stays so
        assert not guard.trouble and not guard.allows(step, 5.0, 1.0)
    assert guard.trouble.startswith('3 updates in a row') and [n[1] for n in notes] == ['skip'] * 3
    guard = guards.Guard(guard.state(), lambda *note: notes.append(note), spike_z=8)
    assert all(guard.allows(step, 5.0, 1.0) for step in range(40, 80)) and len(notes) == 3
    assert not guard.allows(80, 9.0, 1.0)


def test_a_run_that_ended_before_its_first_save_says_how_to_start_over(data_dir, base, tmp_path):
    out = tmp_path / 'a'
    out.mkdir()
    shutil.copy(base / 'best.pt', out)
    flags = [f'--data_dir={data_dir}', f'--out_dir={out}', *TINY]
    mistake(run('train.py', *flags), '--init_from=resume', '--overwrite=True')
    mistake(run('train.py', *flags, '--init_from=resume'), 'no run here was saved', '--overwrite=True')


def test_a_damaged_checkpoint_does_not_push_out_the_good_one(tmp_path):
    write = lambda name, step: checkpoint.write(tmp_path / name, {'step': step})
    load = lambda path: (GPT(GPTConfig(8, 4, 1, 1, 0, 8)), checkpoint.read(path))
    write('last-1.pt', 4)
    (tmp_path / 'last.pt').write_bytes(b'half a file')
    assert start.newest(str(tmp_path / 'last.pt'), load)[1]['step'] == 4
    write('last.pt.new', 8)
    checkpoint.rotate(str(tmp_path / 'last.pt'), keep=2)
    assert [checkpoint.read(tmp_path / name)['step'] for name in ('last.pt', 'last-1.pt')] == [8, 4]
    assert (tmp_path / 'last.pt.damaged').read_bytes() == b'half a file'


def test_overwrite_deletes_what_a_kill_left(data_dir, base, tmp_path):
    out = tmp_path / 'a'
    shutil.copytree(base, out)
    for name in ('last.pt.new', 'best.pt.tmp', 'eval-17.json', 'sheet.csv'):
        (out / name).write_text('old')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--overwrite=True'))
    assert not {'last.pt.new', 'best.pt.tmp', 'eval-17.json', 'sheet.csv'} & set(os.listdir(out))


def test_a_prompt_that_cannot_be_written_deletes_nothing(tmp_path):
    source, data, out = tmp_path / 'abc.txt', tmp_path / 'data', tmp_path / 'out'
    source.write_text('abcab\n' * 2000)
    ok(run('prepare.py', f'--source={source}', '--tokenizer=char', f'--out_dir={data}'))
    flags = [f'--data_dir={data}', f'--out_dir={out}', *TINY]
    ok(run('train.py', *flags))
    files = sorted(os.listdir(out))
    mistake(run('train.py', *flags, '--overwrite=True', '--sample_prompt=xyz'), "'x'")
    assert sorted(os.listdir(out)) == files
    with pytest.raises(ValueError, match='no <|endoftext|>'):
        Stream([], None, Tokenizer.load(data / 'tokenizer.json').special, 8)


def test_checkpoints_that_will_be_replaced_are_room(tmp_path, monkeypatch):
    log = journal.Journal(str(tmp_path), True)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: type('', (), {'free': 1000}))
    with pytest.raises(ValueError, match='the checkpoints need'):
        log.need_space(3000)
    (tmp_path / 'last.pt').write_bytes(bytes(2500))
    log.need_space(3000)


def test_a_rollback_that_is_saved_stays_in_the_metrics(tmp_path):
    rows = [{'step': 40, 'loss': 1.0}, {'step': 45, 'event': 'skip'}, {'step': 45, 'event': 'rollback'},
            {'step': 47, 'event': 'rollback'}, {'step': 41, 'loss': 1.0}]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    journal.Journal(str(tmp_path), True).cut_back(40, [45])
    assert metrics(tmp_path) == [rows[0], rows[2]]


def test_focal_has_a_gradient_where_a_target_is_certain():
    torch.manual_seed(0)
    model = GPT(GPTConfig(8, 4, 1, 1, 0, 8))
    model.focal = 0.5
    with torch.no_grad():
        model.head.weight[3] = 1e4 * torch.sign(model.backbone(torch.tensor([[1]]))[0, 0])   # p(3) = 1
    loss = model(torch.tensor([[1]]), torch.tensor([[3]]))[1]
    loss.backward()
    assert loss < 1e-3 and all(math.isfinite(p.grad.sum()) for p in model.parameters())


def test_a_plan_of_a_model_that_goes_on_is_that_of_its_shape(data_dir, base):
    said = ok(run('train.py', f'--data_dir={data_dir}', f'--init_from={base}', '--plan=1xH100'))
    assert 'n_layer=2, n_head=2' in said
