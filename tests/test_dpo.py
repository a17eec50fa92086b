"""dpo.py: real runs; their reference, against a slow loop; a user's mistakes."""
import math

import pytest
import torch
from accidents import replaced
from conftest import metrics, mistake, ok, read_rows, run, series, state, thumbs_of, write
from test_records import pair

from model import GPT

FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 --learning_rate=3e-3 '
         '--log_interval=1 --eval_interval=5 --save_interval=4 --num_samples=2 --sample_tokens=4').split()


@pytest.fixture(scope='module')
def dpo(sft_model, pairs):
    """dpo(its folder, *flags)"""
    def dpo(out, *more, **how):
        return run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={out}', *FLAGS,
                   *more, **how)
    return dpo


# --- what is learned ----------------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(dpo, pairs, tmp_path):
    for side, every in (('train', 1), ('val', 2)):          # of the held-out ones, every second is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[every - 1::every] = thumbs_of(rows)[every - 1::every]
        write(tmp_path / f'thumbs/{side}.jsonl', rows)
    for i, (kind, *more) in enumerate((
            ('dpo', '--label_smoothing=0.2', '--nll_weight=0'), ('ipo',), ('simpo',), ('orpo', '--beta=1'),
            ('kto', '--nll_weight=0'), ('kto', f'--data_dir={tmp_path}/thumbs', '--nll_weight=0'), ('rm',))):
        out, case = tmp_path / f'{i}', (kind, more)
        ok(dpo(out, f'--loss_type={kind}', '--max_steps=24', '--eval_interval=24', *more))
        first, last = (m for m in metrics(out) if 'val_accuracy' in m)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9 and last['step'] == 24, case
        assert last['val_loss'] < first['val_loss'], case
        assert last['val_margin'] > first['val_margin'] + 0.01, case
        has_reference = kind in ('dpo', 'ipo', 'kto')
        assert state(out)['ref_log_probs'].any() == has_reference == ('val_kl' in last), case
        assert (last.get('val_response_len', 0) > 0) == (kind != 'rm'), case
    assert first['val_loss'] == pytest.approx(math.log(2))      # the last of them: all scores begin as 0


def test_the_smaller_beta_the_further_from_the_reference(dpo, tmp_path):
    gaps = []           # of the log-ratios: how much more the better answer has gained than the worse one
    for beta in (0.03, 1, 10):
        out = tmp_path / f'{beta}'
        ok(dpo(out, f'--beta={beta}', '--nll_weight=0', '--max_steps=24', '--eval_interval=24'))
        gaps.append(series(out, 'val_margin')[-1] / beta)
    assert gaps[0] > 1.5 * gaps[1] > 1.5 * 1.5 * gaps[2] > 0, gaps


def test_nll_weight_holds_the_good_answers_up(dpo, tmp_path):
    for weight in (0, 1):
        ok(dpo(tmp_path / f'{weight}', f'--nll_weight={weight}', '--max_steps=24', '--grad_clip=0'))
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


# --- the reference ------------------------------------------------------------------------------------------
def slow_log_p(model, prompt, answer):
    """One token at a time, each with what stands before it alone."""
    total = 0.0
    for i, token in enumerate(answer):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:i]]]))[0][0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total


def test_the_reference_is_what_init_from_says_before_and_after_training(dpo, sft_model, pairs, tmp_path):
    ok(dpo(tmp_path))
    ref = state(tmp_path)['ref_log_probs']
    assert torch.equal(ref, state(tmp_path, 'last-1.pt')['ref_log_probs'])
    model = GPT.load(sft_model).eval()
    rows = sum((read_rows(pairs / f'{side}.jsonl') for side in ('train', 'val')), [])
    wanted = [[slow_log_p(model, *side) for side in pair(row['prompt'], row['chosen'], row['rejected'])]
              for row in rows[::5]]
    assert ref.shape == (96, 2) and (ref[::5] - torch.tensor(wanted)).abs().max() < 1e-4


# each forward pass says something else, as on a machine whose arithmetic depends on the batch
ODD = replaced('forward', """
    logits, loss = real(*arguments, **more)
    return logits * (n + 1), loss""")


def test_a_first_loss_that_is_not_ln_2_ends_the_run(dpo, tmp_path):
    mistake(dpo(tmp_path, before=ODD), 'the first dpo loss is', '0.69315 and 0 are expected')
    assert not list(tmp_path.glob('*.pt'))


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_and_files_that_cannot_be_used(dpo, tmp_path):
    write(tmp_path / 'train.jsonl', [{'prompt': 'q', 'chosen': 'a', 'rejected': 'a'}])
    for flag, words in (
            ('--label_smoothing=0.1 --loss_type=ipo', 'label_smoothing=0.1 ipo'), ('--beta=0', 'beta=0'),
            ('--loss_type=rm --beta=3', 'beta=3.0 rm'), ('--loss_type=orpo --nll_weight=1', 'nll_weight=1.0'),
            ('--label_smoothing=0.5', 'label_smoothing=0.5'), ('--gamma=2', 'gamma=2 loss_type=simpo'),
            ('--block_size=97', 'block_size=97 96'),
            ('--data_dir=nowhere', 'nowhere --kind=preference'),
            (f'--data_dir={tmp_path}', 'train.jsonl no pair of two different answers')):
        mistake(dpo(tmp_path / 'out', *flag.split()), *words.split())
    assert not (tmp_path / 'out').exists()
