"""A run that ends before its time saves what was good, and leaves with one line and a known exit code."""
import json
import math
import os
import shutil

import pytest
import torch
from conftest import TINY, accident, metrics, mistake, ok, run

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import checkpoint, journal
from tokenizer import SPECIAL_TOKENS, Tokenizer

POST = ['--max_steps=12', '--batch_size=4', '--micro_batch_size=2', '--warmup_steps=2', '--save_interval=50',
        '--eval_interval=4', '--log_interval=1', '--sample_tokens=2', '--device=cpu', '--dtype=float32']
# what happens in the n-th forward pass of training; the rehearsal of train.py makes two of them
PATCH = '''
import model, os, signal, torch
calls, forward = [], model.GPT.backbone
def spoiled(self, *a, **k):
    calls.append(self.training)
    n = sum(calls)
    if self.training and ({when}):
        {what}
    return forward(self, *a, **k)
model.GPT.backbone = spoiled
'''
OOM = 'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")'
USR1 = 'os.kill(os.getpid(), signal.SIGUSR1)'
NAN = 'return forward(self, *a, **k) * float("nan")'


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """Folders: a small model, conversations and pairs; and what each script's command is."""
    folder = tmp_path_factory.mktemp('start')
    for side in ('train', 'val'):
        (folder / f'{side}.jsonl').write_text(''.join(json.dumps({
            'messages': [{'role': 'user', 'content': f'say {i}'}, {'role': 'assistant', 'content': f'{i}'}],
            'prompt': f'say {i}', 'chosen': f'{i}', 'rejected': 'no'}) + '\n' for i in range(40)))
    (folder / 'model').mkdir()
    torch.manual_seed(0)
    tok = Tokenizer.byte(SPECIAL_TOKENS[:4])
    tok.save(folder / 'model/tokenizer.json')
    save_checkpoint(folder / 'model/best.pt', GPT(GPTConfig(tok.vocab_size, 64, 2, 2, 0, 32)), step=1)
    return folder


def command(script, start, data_dir, out):
    if script == 'train.py':
        return ['train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, *POST]
    return [script, f'--data_dir={start}', f'--init_from={start}/model', f'--out_dir={out}', *POST]


def resumed(arguments):
    return [a for a in arguments if not a.startswith('--init_from=')] + ['--init_from=resume']


@pytest.fixture(scope='module', params=['train.py', 'sft.py', 'dpo.py'])
def straight(request, start, data_dir, tmp_path_factory):
    """The script, and the losses of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp('straight') / 'run'
    ok(run(*command(request.param, start, data_dir, out)))
    return request.param, [m['loss'] for m in metrics(out) if 'loss' in m]


@pytest.mark.parametrize('what', [OOM, USR1], ids=['out of memory', 'SIGUSR1'])
def test_it_leaves_with_what_was_saved_and_resumes_to_the_same(straight, start, data_dir, tmp_path, what):
    script, losses = straight
    arguments = [*command(script, start, data_dir, tmp_path / 'run'), '--save_interval=5']
    n = 2 * 6 + 2 + (2 if script == 'train.py' else 0)      # the second half of the seventh step
    result = run(*arguments, before=PATCH.format(when=f'n == {n}', what=what))
    step = 5 if what is OOM else 7                          # a signal saves, a lack of memory cannot
    if what is OOM:
        mistake(result, 'out of memory', 'batch')
    else:
        assert f'stopped at step {step}; ' in ok(result) and '--init_from=resume' in result.stdout
    assert load_checkpoint(tmp_path / 'run/last.pt')[1]['step'] == step
    ok(run(*resumed(arguments)))
    assert [m['loss'] for m in metrics(tmp_path / 'run') if 'loss' in m] == losses


def test_out_of_memory_before_the_first_step_is_done_saves_nothing(data_dir, start, tmp_path):
    arguments = command('train.py', start, data_dir, tmp_path / 'run')
    rehearsal, step = (PATCH.format(when=f'n == {n}', what=OOM) for n in (1, 3))
    for spoil in rehearsal, step:
        mistake(run(*arguments, before=spoil), 'out of memory', 'batch')
    assert not list(tmp_path.glob('run/*.pt'))


def test_three_skipped_steps_in_a_row_keep_the_weights_before_them(straight, start, data_dir, tmp_path):
    script, losses = straight
    arguments = command(script, start, data_dir, tmp_path / 'run')
    spoil = PATCH.format(when='n > 10', what=NAN)
    if script == 'train.py':                        # in the sixth step and later
        spoil = accident('nan', 5, 6, 7)
    result = run(*arguments, before=spoil)
    mistake(result, '3 updates in a row were skipped', 'not finite', '--learning_rate', 'last.pt')
    model, state = load_checkpoint(tmp_path / 'run/last.pt')
    assert state['step'] == 8 and all(p.isfinite().all() for p in model.parameters())
    assert [m['loss'] for m in metrics(tmp_path / 'run') if 'loss' in m][:5] == losses[:5]
    saved = (tmp_path / 'run/last.pt').read_bytes()
    if script != 'train.py':                        # again, and not one update is taken: it stays as it is
        mistake(run(*resumed(arguments), before=spoil.replace('> 10', '> 0')), '3 updates in a row')
        assert (tmp_path / 'run/last.pt').read_bytes() == saved


def test_the_metrics_are_json_whatever_the_loss(start, tmp_path):
    spoil = PATCH.format(when='n > 10', what=NAN)
    mistake(run(*command('sft.py', start, None, tmp_path / 'run'), before=spoil), 'not finite')

    def refuse(word):
        raise ValueError(f'{word} is not JSON')
    lines = (tmp_path / 'run/metrics.jsonl').read_text(encoding='utf-8').splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row['loss'] for row in rows if 'loss' in row][5:] == [None] * 3
    assert journal.finite({'a': {'b': math.inf, 'c': 1.5}, 'd': math.nan, 'e': 'nan'}) == {
        'a': {'b': None, 'c': 1.5}, 'd': None, 'e': 'nan'}


@pytest.mark.parametrize('script', ['train.py', 'sft.py', 'dpo.py'])
def test_weights_that_are_not_finite_are_refused_at_the_start(script, start, data_dir, tmp_path):
    arguments = command(script, start, data_dir, tmp_path / 'run')
    ok(run(*arguments, '--max_steps=4', '--save_interval=2'))
    for name in ('last', 'last-1'):
        model, state = load_checkpoint(tmp_path / f'run/{name}.pt')
        with torch.no_grad():
            model.blocks[1].mlp.w_down.weight[3, 4] = math.nan if name == 'last' else math.inf
        save_checkpoint(tmp_path / f'run/{name}.pt', model, **state)
    shutil.copy(tmp_path / 'run/last.pt', tmp_path / 'run/best.pt')
    wrong = 'the weights blocks.1.mlp.w_down.weight are not finite'
    mistake(run(*resumed(arguments)), 'last-1.pt', wrong)               # neither of the two
    new = f'--init_from={tmp_path}/run', f'--out_dir={tmp_path}/new'
    mistake(run(*arguments, *new), wrong, str(tmp_path / 'run'))
    assert not (tmp_path / 'new').exists()


def test_at_no_moment_of_a_save_is_there_no_last_checkpoint(tmp_path, monkeypatch):
    model = GPT(GPTConfig(50, 16, 1, 2, 0, 16))
    last = str(tmp_path / 'last.pt')
    replace = os.replace
    look = lambda: seen.append(load_checkpoint(tmp_path / 'last.pt')[1])
    monkeypatch.setattr(os, 'replace', lambda a, b: (replace(a, b), step and look()))
    for keep in (1, 2, 3):
        for step in range(4):
            seen = []
            save_checkpoint(f'{last}.new', model, step=step)
            checkpoint.rotate(last, keep)
            assert len(seen) > keep - 1 or step < keep
    kept = [load_checkpoint(tmp_path / name)[1]['step'] for name in ('last.pt', 'last-1.pt', 'last-2.pt')]
    assert kept == [3, 2, 1] and len(list(tmp_path.iterdir())) == 3
    os.remove(last)             # a folder that an older commit left, killed between two renames
    assert load_checkpoint(tmp_path)[1]['step'] == 2
