"""Several checkpoints at once: the pass rate over a run, what a later one knows less well; what is next."""
import json
import shutil

import pytest
import torch
from conftest import TINY, mistake, ok, run

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def ckpt(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--dtype=float32'))
    return out


def evaluate(out, *flags):
    said = ok(run('eval.py', '--device=cpu', f'--out={out}/eval.json', *flags))
    return said, json.loads((out / 'eval.json').read_text(encoding='utf-8'))['tasks']


@pytest.fixture(scope='module')
def shelf(ckpt, tmp_path_factory):
    """Three checkpoints of one run, whose names do not tell their order; a_late has other weights."""
    folder = tmp_path_factory.mktemp("it's a run")
    shutil.copy(ckpt / 'tokenizer.json', folder)
    model, state = load_checkpoint(ckpt)
    for name, step in ('a_late', 9), ('b_first', 1), ('c_same', 4):
        if name == 'b_first':
            before = {key: value.clone() for key, value in model.state_dict().items()}
        if name == 'a_late':
            late = GPT(GPTConfig(**vars(model.config)))
            torch.manual_seed(5)
            save_checkpoint(folder / f'{name}.pt', late, step=step, tokenizer_hash=state['tokenizer_hash'])
        else:
            model.load_state_dict(before)
            save_checkpoint(folder / f'{name}.pt', model, step=step, tokenizer_hash=state['tokenizer_hash'])
    return folder


def test_sampled_tasks_give_a_series_over_the_steps_of_a_run(shelf, tmp_path):
    """Each number is that of the checkpoint alone."""
    data = write(tmp_path / 'own.jsonl', [{'prompt': word, 'regex': '[a-m]'} for word in
                                          ('def f(', 'import ', 'x', 'return', 'self.', 'for i')])
    flags = ['--tasks=own', f'--data={data}', '--max_new_tokens=5', '--allow_code_execution=True']
    alone = {}
    for name in ('a_late', 'b_first', 'c_same'):
        alone[name] = evaluate(tmp_path / name, f'--ckpt={shelf}/{name}.pt', *flags)[1]['own']
    said, both = evaluate(tmp_path / 'all', f'--ckpt={shelf}/*.pt', *flags)
    series = both['own']['series']
    assert [result['step'] for result in series] == [1, 4, 9]
    for name, result in zip(('b_first', 'c_same', 'a_late'), series, strict=True):
        assert result == alone[name], name
    rows = [json.loads(line) for line in (tmp_path / 'all' / 'samples.jsonl').read_text('utf-8').splitlines()]
    said_at = {step: [row['completion'] for row in rows if row['step'] == step] for step in (1, 4, 9)}
    assert said_at[1] == said_at[4] != said_at[9]
    assert len(rows) == 18 and {row['step'] for row in rows} == {1, 4, 9}
    assert said.index('b_first.pt') < said.index('c_same.pt') < said.rindex('a_late.pt')


def test_each_checkpoint_is_asked_in_the_form_that_it_was_taught_and_refused_if_it_cannot_answer(
        shelf, tmp_path):
    """A base model and a tuned one, in either order; a reward model and one of mlm behind a good one."""
    data = write(tmp_path / 'own.jsonl', [{'prompt': 'def f(', 'regex': 'a'}])
    flags = ['--tasks=own', f'--data={data}', '--max_new_tokens=5', '--allow_code_execution=True']
    model, state = load_checkpoint(shelf / 'c_same.pt')
    shutil.copy(shelf / 'tokenizer.json', tmp_path)
    for name, more in (('sft', {'config': {'stage': 'sft'}}), ('rm', {'reward_head': torch.zeros(1, 32)}),
                       ('mlm', {'config': {'objective': 'mlm'}})):
        more |= {'tokenizer_hash': state['tokenizer_hash'], 'step': 7}
        save_checkpoint(tmp_path / f'{name}.pt', model, **more)
    base, tuned = f'{shelf}/c_same.pt', f'{tmp_path}/sft.pt'
    for i, paths in enumerate(([base, tuned], [tuned, base])):
        _, both = evaluate(tmp_path / str(i), f'--ckpt={",".join(paths)}', *flags)
        assert [result['chat'] for result in both['own']['series']] == [False, True]
        rows = [json.loads(line) for line in (tmp_path / str(i) / 'samples.jsonl').open(encoding='utf-8')]
        assert {row['ckpt']: row['messages'] is not None for row in rows} == {base: False, tuned: True}
    for name, says in ('rm', 'is a reward model'), ('mlm', 'objective=mlm'):
        mistake(run('eval.py', f'--ckpt={base},{tmp_path}/{name}.pt', *flags), f'{name}.pt', says)


def test_a_series_is_not_for_given_completions_nor_for_compare(shelf):
    mistake(run('eval.py', f'--ckpt={shelf}/*.pt', '--tasks=compare', '--compare=x'), 'takes one ckpt')


def test_what_a_later_checkpoint_knows_less_well_is_said(shelf, data_dir, tmp_path):
    """Two data folders, the second a row of A; a checkpoint that expects A is better there alone."""
    first, second = tmp_path / 'first', tmp_path / 'second'
    for folder in first, second:
        shutil.copytree(data_dir, folder, ignore=shutil.ignore_patterns('train.bin'))
    (second / 'val.bin').write_bytes(b'A\0' * ((first / 'val.bin').stat().st_size // 2))
    model, state = load_checkpoint(shelf / 'b_first.pt')
    flags = ['--tasks=loss', f'--data_dir={first},{second}', '--random_init=False', '--loss_tokens=3000']
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.shape[0] == model.config.vocab_size:       # the embedding, tied to the head
                parameter.copy_(parameter.flip(0))                  # it takes one token for another
                parameter[ord('A')] *= 30
    save_checkpoint(tmp_path / 'special.pt', model, step=9, tokenizer_hash=state['tokenizer_hash'])
    shutil.copy(shelf / 'tokenizer.json', tmp_path)
    said, found = evaluate(tmp_path, f'--ckpt={shelf}/b_first.pt,{tmp_path}/special.pt', *flags)
    bits = {key: row['bits_per_byte'] for key, row in found['loss'].items()}
    before = [bits[f'{shelf}/b_first.pt_{folder} val'] for folder in (first, second)]
    after = [bits[f'{tmp_path}/special.pt_{folder} val'] for folder in (first, second)]
    assert after[1] < before[1] and after[0] > 1.02 * before[0], (before, after)
    assert f'over-specialised? {tmp_path}/special.pt has {1 - after[1] / before[1]:.1%} fewer' in said
    assert f'{after[0] / before[0] - 1:.1%} more on' in said
    said, _ = evaluate(tmp_path, f'--ckpt={shelf}/b_first.pt,{shelf}/c_same.pt', *flags)
    assert 'over-specialised' not in said


def test_the_next_command_can_be_pasted_and_is_not_for_reward_models(shelf, data_dir, tmp_path):
    flags = ['--tasks=loss', f'--data_dir={data_dir}', '--random_init=False', '--loss_tokens=99']
    said, _ = evaluate(tmp_path, f'--ckpt={shelf}/b_first.pt', *flags)
    assert "next: python sample.py --ckpt='" in said and """it'"'"'s a run""" in said
    model, state = load_checkpoint(shelf / 'b_first.pt')
    save_checkpoint(tmp_path / 'rm.pt', model, reward_head=torch.zeros(1, 32), **{
        key: state[key] for key in ('tokenizer_hash',)})
    shutil.copy(shelf / 'tokenizer.json', tmp_path)
    assert 'sample.py' not in evaluate(tmp_path, f'--ckpt={tmp_path}/rm.pt', *flags)[0]
