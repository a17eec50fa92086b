"""Runs that go on, or begin where something lies already: what differs is said, what cannot be is refused."""
import json
import os
import shutil

import pytest
import torch
from conftest import TINY, accident, metrics, mistake, ok, run

from model import GPT, GPTConfig, load_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

POST = ['--max_steps=8', '--batch_size=4', '--warmup_steps=2', '--save_interval=4', '--eval_interval=4',
        '--log_interval=1', '--sample_tokens=2', '--device=cpu']


@pytest.fixture(scope='module')
def base(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('base')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--dtype=float32'))
    return out


@pytest.fixture(scope='module')
def talk(tmp_path_factory):
    """Conversations and pairs, and an SFT run of four and of eight steps."""
    folder = tmp_path_factory.mktemp('talk')
    for side in ('train', 'val'):
        (folder / f'{side}.jsonl').write_text(''.join(json.dumps({
            'messages': [{'role': 'user', 'content': f'say {i}'}, {'role': 'assistant', 'content': f'{i}'}],
            'prompt': f'say {i}', 'chosen': f'{i}', 'rejected': 'no'}) + '\n' for i in range(20)))
    torch.manual_seed(0)
    tok = Tokenizer.byte(SPECIAL_TOKENS[:4])
    model = GPT(GPTConfig(tok.vocab_size, 64, 2, 2, 0, 32))
    model.save_hf(folder / 'llama')
    tok.save(folder / 'llama' / 'tokenizer.json')
    ok(run('sft.py', f'--init_from={folder}/llama', f'--data_dir={folder}', f'--out_dir={folder}/sft',
           *POST))
    return folder


def again(source, to, step=None):
    """A copy of a run, as if it had stopped at the checkpoint before the last."""
    shutil.copytree(source, to)
    if step is not None:
        os.replace(to / 'last-1.pt', to / 'last.pt')
        assert load_checkpoint(to / 'last.pt')[1]['step'] == step
    return to


def test_another_optimizer_is_refused_and_another_dtype_goes_on(data_dir, base, talk, tmp_path):
    out = again(base, tmp_path / 'x', 8)
    resume = ['--init_from=resume', f'--out_dir={out}']
    mistake(run('train.py', f'--data_dir={data_dir}', *resume, *TINY, '--optimizer=muon'), 'optimizer')
    ok(run('train.py', f'--data_dir={data_dir}', *resume, *TINY, '--dtype=float16'))
    out = again(talk / 'sft', tmp_path / 'y')
    resume = ['--init_from=resume', f'--out_dir={out}', f'--data_dir={talk}']
    mistake(run('sft.py', *resume, *POST, '--optimizer=muon'), 'optimizer', 'muon')
    mistake(run('train.py', f'--data_dir={data_dir}', '--init_from=resume', f'--out_dir={out}', *TINY),
            "stage='sft', this run has None")


def test_dpo_says_what_is_no_longer_as_it_was(talk, tmp_path):
    flags = [f'--data_dir={talk}', f'--out_dir={tmp_path}/dpo', *POST]
    ok(run('dpo.py', *flags, f'--init_from={talk}/sft', '--beta=0.3'))
    os.replace(tmp_path / 'dpo/last-1.pt', tmp_path / 'dpo/last.pt')
    (tmp_path / 'data.json').write_text('of others')
    said = ok(run('dpo.py', *flags, '--init_from=resume', '--num_samples=3', '--micro_batch_size=2',
                  cwd=tmp_path))
    assert not (tmp_path / 'dpo/data.json').exists()
    assert 'changed  beta: 0.3 before, 0.1 now' in said and 'changed  num_samples: 8 before, 3 now' in said
    assert said.count('changed  ') == 3         # and micro_batch_size: all are said, none is judged


def test_a_resumed_run_knows_where_it_began_and_on_what(talk, tmp_path):
    out = again(talk / 'sft', tmp_path / 'sft', 4)
    (out / 'data.json').write_text('of its base')
    (tmp_path / 'data.json').write_text('of others')
    ok(run('sft.py', '--init_from=resume', f'--data_dir={talk}', f'--out_dir={out}', *POST, cwd=tmp_path))
    assert (out / 'data.json').read_text() == 'of its base'
    assert json.loads((out / 'config.json').read_text())['init_from'] == f'{talk}/llama'
    best, last = (load_checkpoint(out / name)[1] for name in ('best.pt', 'last.pt'))
    assert best['conversations'] == last['conversations']               # the card compares it
    assert last['config']['init_from'] == f'{talk}/llama'


def test_a_skip_behind_the_checkpoint_is_told_once(data_dir, tmp_path):
    flags = [f'--data_dir={data_dir}', *TINY, '--dtype=float32']
    ok(run('train.py', *flags, f'--out_dir={tmp_path}/one', before=accident('nan', 8)))
    out = again(tmp_path / 'one', tmp_path / 'two', 8)
    ok(run('train.py', *flags, f'--out_dir={out}', '--init_from=resume', before=accident('nan', 0)))
    one, two = ([(m['step'], m.get('event'), m.get('loss')) for m in metrics(tmp_path / n)]
                for n in ('one', 'two'))
    assert one == two and (8, 'skip', None) in one
    assert json.loads((out / 'config.json').read_text())['init_from'] == 'scratch'


def test_nothing_that_lies_there_is_overwritten_unasked(data_dir, base, talk, tmp_path):
    llama = again(talk / 'llama', tmp_path / 'llama')
    mistake(run('sft.py', f'--init_from={llama}', f'--data_dir={talk}', f'--out_dir={llama}', *POST),
            'the model that this run starts from')
    mistake(run('train.py', f'--init_from={base}/best.pt', f'--data_dir={data_dir}', f'--out_dir={base}',
                *TINY, '--overwrite=True'), 'the model that this run starts from')
    inside = again(base, tmp_path / 'out/inside')
    ok(run('train.py', f'--init_from={inside}/last.pt', f'--data_dir={data_dir}', f'--out_dir={tmp_path}/out',
           *TINY, '--extend_vocab=True'))                   # its parent is another folder
    half = again(base, tmp_path / 'half')
    (half / 'last.pt').unlink()                             # killed between two renames
    mistake(run('train.py', f'--data_dir={data_dir}', f'--out_dir={half}', *TINY), 'already holds a run')


def test_settings_that_would_do_nothing_or_harm_are_refused(data_dir, base, talk, tmp_path):
    train = ['train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}/x', *TINY]
    mistake(run(*train, '--label_smoothing=1.5'), 'label_smoothing', '[0, 1)')
    mistake(run(*train, '--objective=mlm', '--document_mask=True'), 'document_mask', 'clm')
    mistake(run('train.py', f'--data_dir={talk}', *TINY), 'no prepared data')
    mistake(run(*train, '--min_lr=1'), 'min_lr=1', 'learning_rate')
    mistake(run(*train, '--schedule=wsd', '--decay_steps=1000'), 'decay_steps', '8')
    for script, setting in (('sft.py', '--spike_z=3'), ('dpo.py', '--schedule=wsd')):    # of train.py only
        mistake(run(script, setting), 'unknown setting')


def test_validation_data_of_hardly_a_sequence_are_enough(tmp_path):
    (tmp_path / 'a.txt').write_text('to be or not to be, that is\n' * 13)
    ok(run('prepare.py', f'--source={tmp_path}/a.txt', '--tokenizer=byte', f'--out_dir={tmp_path}/data'))
    n = json.loads((tmp_path / 'data/meta.json').read_text())['tokens']['val']
    assert 32 < n < 32 + 8
    ok(run('train.py', f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/x', *TINY))


def test_thumbs_are_averaged_over_those_there_are(talk, tmp_path):
    """Two thumbs up and four down of a batch: log p of either is that of pairs of the same answers."""
    found = {}
    for name, lines in (('pairs', [{'chosen': 'yes', 'rejected': 'no!'}] * 6),
                        ('thumbs', [{'completion': 'yes', 'label': True}] * 2
                         + [{'completion': 'no!', 'label': False}] * 4)):
        for side in ('train', 'val'):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f'{side}.jsonl').write_text(
                ''.join(json.dumps({'prompt': 'x', **line}) + '\n' for line in lines))
        ok(run('dpo.py', f'--data_dir={tmp_path}/{name}', f'--init_from={talk}/sft', '--loss_type=kto', *POST,
               f'--out_dir={tmp_path}/{name}/out', '--max_steps=1'))
        found[name] = next(m for m in metrics(tmp_path / name / 'out') if 'val_loss' in m)
    for key in ('val_chosen_logp', 'val_rejected_logp'):
        assert found['thumbs'][key] == pytest.approx(found['pairs'][key], rel=1e-4)
        assert found['pairs'][key] < -1
