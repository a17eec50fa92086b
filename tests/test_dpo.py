"""dpo.py: log-probabilities against a slow loop; real runs, their reference, resuming; a user's mistakes."""
import os

import pytest
import torch
from accidents import replaced
from conftest import lift, make_pairs, make_sft, metrics, mistake, ok, read_rows, run
from conftest import series, state, thumbs_of, write
from test_records import BYTES, PAIRS, pair, sides_of

from model import load_checkpoint
from parts.train.records import collate

answer_log_probs = lift('dpo.py', 'answer_log_probs')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 --learning_rate=3e-3 '
         '--log_interval=1 --eval_interval=5 --save_interval=4 --num_samples=2 --sample_tokens=4').split()


def dpo(folder, *arguments, init='sft', data='pairs', out='out', **more):
    init, out = (name if name == 'resume' else os.path.join(folder, name) for name in (init, out))
    return run('dpo.py', f'--init_from={init}', f'--data_dir={folder / data}', f'--out_dir={out}', *FLAGS,
               *arguments, **more)


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A model, pairs, and thumbs, which are held out together with pairs."""
    folder = tmp_path_factory.mktemp('dpo')
    make_sft(folder / 'sft')
    make_pairs(folder / 'pairs')
    for side in ('train', 'val'):
        rows = read_rows(folder / f'pairs/{side}.jsonl')
        every = 1 if side == 'train' else 2
        rows[every - 1::every] = thumbs_of(rows)[every - 1::every]
        write(folder / f'thumbs/{side}.jsonl', rows)
    return folder


# --- log p of the answers -----------------------------------------------------------------------------------
def slow_log_p(model, prompt, answer):
    """One token at a time, each with what stands before it alone."""
    total = 0.0
    for i, token in enumerate(answer):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:i]]]))[0][0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total


def test_scores_are_those_of_a_slow_loop_alone_or_padded_in_a_batch(home):
    model = load_checkpoint(home / 'sft')[0].eval()
    for p in model.parameters():
        p.data *= 5         # far from uniform

    def score(pairs, pad=0):
        x, y = collate(sides_of(pairs), pad)
        return answer_log_probs(model(x)[0], y).view(2, -1).T.detach()

    pairs = [*PAIRS, pair('x', 'up', None)]
    wanted = [[slow_log_p(model, *side) for side in p] for p in pairs]
    together = score(pairs)
    assert together.dtype == torch.float32 and min(map(min, wanted)) < -20 and wanted[-1][1] == 0
    for scores in (together, torch.cat([score([p]) for p in pairs])):
        assert torch.allclose(scores, torch.tensor(wanted), atol=1e-4, rtol=1e-5)
    assert torch.equal(together, score(pairs, pad=BYTES.special['<|pad|>']))


# --- what is learned ----------------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(home, tmp_path):
    for i, (kind, data, *more) in enumerate((
            ('dpo', 'pairs', '--label_smoothing=0.2', '--nll_weight=0'), ('ipo', 'pairs'), ('simpo', 'pairs'),
            ('orpo', 'pairs', '--beta=1'), ('kto', 'pairs', '--nll_weight=0'),
            ('kto', 'thumbs', '--nll_weight=0'), ('rm', 'pairs'))):
        out, case = tmp_path / f'{i}', (kind, data, more)
        flags = [f'--loss_type={kind}', '--max_steps=24', '--eval_interval=24', *more]
        ok(dpo(home, *flags, data=data, out=out))
        first, last = (m for m in metrics(out) if 'val_accuracy' in m)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9 and last['step'] == 24, case
        assert last['val_loss'] < first['val_loss'], case
        assert last['val_margin'] > first['val_margin'] + 0.01, case
        has_reference = kind in ('dpo', 'ipo', 'kto')
        assert state(out)['ref_log_probs'].any() == has_reference == ('val_kl' in last), case
        assert (last.get('val_response_len', 0) > 0) == (kind != 'rm'), case


def test_the_smaller_beta_the_further_from_the_reference(home, tmp_path):
    gaps = []           # of the log-ratios: how much more the better answer has gained than the worse one
    for beta in (0.03, 1, 10):
        out = tmp_path / f'{beta}'
        ok(dpo(home, f'--beta={beta}', '--nll_weight=0', '--max_steps=24', '--eval_interval=24', out=out))
        gaps.append(series(out, 'val_margin')[-1] / beta)
    assert gaps[0] > 1.5 * gaps[1] > 1.5 * 1.5 * gaps[2] > 0, gaps


def test_nll_weight_holds_the_good_answers_up(home, tmp_path):
    for weight in (0, 1):
        flags = [f'--nll_weight={weight}', '--max_steps=24', '--grad_clip=0']
        ok(dpo(home, *flags, out=tmp_path / f'{weight}'))
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


# --- the reference ------------------------------------------------------------------------------------------
def test_the_reference_is_what_init_from_says_before_and_after_training(home, tmp_path):
    ok(dpo(home, out=tmp_path / 'out'))
    ref = state(tmp_path / 'out')['ref_log_probs']
    assert torch.equal(ref, state(tmp_path / 'out', 'last-1.pt')['ref_log_probs'])
    model = load_checkpoint(home / 'sft')[0].eval()
    rows = sum((read_rows(home / f'pairs/{side}.jsonl') for side in ('train', 'val')), [])
    wanted = [[slow_log_p(model, *side) for side in pair(row['prompt'], row['chosen'], row['rejected'])]
              for row in rows[::5]]
    assert ref.shape == (96, 2) and (ref[::5] - torch.tensor(wanted)).abs().max() < 1e-4


# each forward pass says something else, as on a machine whose arithmetic depends on the batch
ODD = replaced('forward', """
    logits, loss = real(*arguments, **more)
    return logits * (n + 1), loss""")


def test_a_first_loss_that_is_not_ln_2_ends_the_run(home, tmp_path):
    mistake(dpo(home, before=ODD, out=tmp_path), 'the first dpo loss is', '0.69315 and 0 are expected')
    assert not list(tmp_path.glob('*.pt'))


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_and_files_that_cannot_be_used(home, tmp_path):
    write(tmp_path / 'train.jsonl', [{'prompt': 'q', 'chosen': 'a', 'rejected': 'a'}])
    for flag, words in (
            ('--label_smoothing=0.1 --loss_type=ipo', 'label_smoothing=0.1 ipo'), ('--beta=0', 'beta=0'),
            ('--loss_type=rm --beta=3', 'beta=3.0 rm'), ('--loss_type=orpo --nll_weight=1', 'nll_weight=1.0'),
            ('--epochs=0', 'epochs=0'), ('--label_smoothing=0.5', 'label_smoothing=0.5'),
            ('--loss_type=ppo', 'ppo dpo | ipo | kto'),
            ('--gamma=2', 'gamma=2 loss_type=simpo'), ('--block_size=97', 'block_size=97 96'),
            ('--data_dir=nowhere', 'nowhere --kind=preference'),
            (f'--data_dir={tmp_path}', 'train.jsonl no pair of two different answers')):
        mistake(dpo(home, *flag.split()), *words.split())
    assert not (home / 'out').exists()
