"""The reference of dpo.py: computed once, kept in last.pt, never moved."""
import json

import pytest
import torch
from conftest import mistake, ok
from test_dpo_log_probs import pair, slow_log_p
from test_dpo_mistakes import contents, dpo, make_pairs, make_sft
from test_resume import state

from model import load_checkpoint

COMPUTING = 'computing the reference log-probabilities of 48 pairs'


@pytest.fixture
def home(tmp_path):
    make_sft(tmp_path / 'sft')
    make_pairs(tmp_path / 'pairs', n=16)
    return tmp_path


def test_it_is_what_init_from_says_before_and_after_training(home):
    before, pairs = contents(home / 'sft'), contents(home / 'pairs')
    assert COMPUTING in ok(dpo(home))
    ref = state(home / 'out')['ref_log_probs']
    assert contents(home / 'sft') == before and contents(home / 'pairs') == pairs       # no file beside them
    assert torch.equal(ref, torch.load(home / 'out/last-1.pt', weights_only=True)['ref_log_probs'])
    model, records = load_checkpoint(home / 'sft')[0].eval(), []
    for side in ('train', 'val'):
        records += map(json.loads, open(home / f'pairs/{side}.jsonl', encoding='utf-8'))
    wanted = [[slow_log_p(model, *side) for side in pair(r['prompt'], r['chosen'], r['rejected'])]
              for r in records[::5]]
    assert ref.shape == (48, 2) and (ref[::5] - torch.tensor(wanted)).abs().max() < 1e-4
    moved, trained = load_checkpoint(home / 'out')[0], load_checkpoint(home / 'sft')[0]
    assert not torch.equal(moved.embedding.weight, trained.embedding.weight)    # a run that trained


def test_a_resumed_run_needs_no_model_of_the_start(home):
    ok(dpo(home))
    ref = state(home / 'out')['ref_log_probs']
    for steps in (13, 14):                  # resumed twice
        make_sft(home / 'sft', seed=steps)  # sft.py has run again since
        said = ok(dpo(home, f'--max_steps={steps}', init='resume'))
        assert COMPUTING not in said and f'resumed at step {steps - 1}' in said
        assert torch.equal(state(home / 'out')['ref_log_probs'], ref)


@pytest.mark.parametrize('other', ['--block_size=40', '--eval_pairs=8'])
def test_a_run_resumes_with_the_same_pairs_of_the_same_length(home, other):
    ok(dpo(home, '--max_steps=1'))
    mistake(dpo(home, '--max_steps=2', other, init='resume'), other[2:].partition('=')[0], "the run's own")


# each forward pass says something else, as on a machine whose arithmetic depends on the batch
ODD = """
passes, forward = [0], model.GPT.forward
def odd(self, *a, **k):
    passes[0] += 1
    logits, loss = forward(self, *a, **k)
    return logits * passes[0], loss
model.GPT.forward = odd
"""


def test_a_first_loss_that_is_not_ln_2_ends_the_run(home):
    mistake(dpo(home, before=ODD), 'the first dpo loss is', '0.69315 and 0 are expected')
    assert not list((home / 'out').glob('*.pt'))


def test_losses_without_a_reference_compute_none(home):
    for kind in ('simpo', 'orpo', 'rm'):
        said = ok(dpo(home, f'--loss_type={kind}', '--max_steps=1', out=kind))
        assert 'computing the reference' not in said
        assert 'ref_log_probs' not in state(home / kind)
