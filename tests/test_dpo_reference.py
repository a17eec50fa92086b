"""The reference of dpo.py: computed once, kept, never moved; used only where it is the right one."""
import json

import numpy as np
import pytest
import torch
from conftest import mistake, ok
from test_dpo_log_probs import pair, slow_log_p
from test_dpo_mistakes import contents, dpo, make_pairs, make_sft

from model import load_checkpoint

COMPUTING = 'computing the reference log-probabilities'


@pytest.fixture
def home(tmp_path):
    make_sft(tmp_path / 'sft')
    make_pairs(tmp_path / 'pairs', n=16)
    return tmp_path


def caches(home):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (home / 'pairs').glob('*.npy')}


def cache(home):
    path, = caches(home)
    return path


def test_it_is_what_init_from_says_before_and_after_training(home):
    before, first = contents(home / 'sft'), None
    for _ in range(2):
        said = ok(dpo(home, '--overwrite=True'))
        assert (COMPUTING in said) == (first is None)
        first = first or caches(home)
    assert caches(home) == first and contents(home / 'sft') == before       # the second run has read it
    model, ref, records = load_checkpoint(home / 'sft')[0].eval(), np.load(cache(home)), []
    for side in ('train', 'val'):
        records += map(json.loads, open(home / f'pairs/{side}.jsonl', encoding='utf-8'))
    wanted = [[slow_log_p(model, *side) for side in pair(r['prompt'], r['chosen'], r['rejected'])]
              for r in records[::5]]
    assert ref.shape == (48, 2) and abs(ref[::5] - wanted).max() < 1e-4
    moved, trained = load_checkpoint(home / 'out')[0], load_checkpoint(home / 'sft')[0]
    assert not torch.equal(moved.embedding.weight, trained.embedding.weight)    # a run that trained


def test_another_model_data_tokenizer_or_length_has_another_one(home):
    one = ['--max_steps=1', '--overwrite=True']
    ok(dpo(home, *one))
    make_sft(home / 'other', seed=1)
    make_sft(home / 'names', special=['<|pad|>', '<|im_end|>', '<|im_start|>', '<|endoftext|>'])
    for n, (more, init) in enumerate([([], 'other'), ([], 'names'), (['--block_size=40'], 'sft'),
                                      (['--dtype=bfloat16'], 'sft'), (['--eval_pairs=8'], 'sft')], 2):
        assert COMPUTING in ok(dpo(home, *one, *more, init=init)) and len(caches(home)) == n
    path = home / 'pairs/train.jsonl'
    path.write_text(path.read_text(encoding='utf-8').replace('sun', 'Sun', 1), encoding='utf-8')
    assert COMPUTING in ok(dpo(home, *one)) and len(caches(home)) == n + 1
    assert COMPUTING not in ok(dpo(home, *one, '--loss_type=ipo', '--beta=0.5', '--seed=3'))


def test_a_damaged_one_is_computed_again(home):
    ok(dpo(home, '--max_steps=1'))
    path, right = cache(home), cache(home).read_bytes()
    for wrong in (b'garbage', b'', right[:100], right[:-8], b'PK\3\4', np.zeros((3, 2)),
                  np.full((48, 2), np.nan)):
        np.save(path, wrong) if isinstance(wrong, np.ndarray) else path.write_bytes(wrong)
        said = ok(dpo(home, '--max_steps=1', '--overwrite=True'))
        assert f'{path} is damaged' in said and COMPUTING in said and path.read_bytes() == right


def test_a_deleted_one_is_computed_again_on_resume_from_the_model_of_the_start(home):
    ok(dpo(home))
    path, right = cache(home), cache(home).read_bytes()
    for steps in (13, 14):                  # resumed twice: it is known where the start was, still
        path.unlink()
        said = ok(dpo(home, f'--max_steps={steps}', init='resume'))
        assert COMPUTING in said and f'resumed at step {steps - 1}' in said
        assert path.read_bytes() == right
    make_sft(home / 'sft', seed=1)          # sft.py has run again since
    ok(dpo(home, '--max_steps=15', init='resume'))
    path.unlink()
    mistake(dpo(home, '--max_steps=16', init='resume'), 'sft no longer holds the model')
    assert not caches(home)


def test_one_with_other_numbers_is_refused(home):
    """Chosen answers moved; both moved by as much, which dpo's margins hide; and noise."""
    ok(dpo(home, '--max_steps=1'))
    path, right = cache(home), np.load(cache(home))
    noise = np.random.default_rng(0).normal(0, 9, right.shape)
    for tampered in (right + [0.1, 0], right + 1, right + noise):
        np.save(path, tampered)
        mistake(dpo(home, '--overwrite=True'), 'the first dpo loss is', 'delete')
    np.save(path, right)
    ok(dpo(home, '--max_steps=1', '--overwrite=True'))


def test_losses_without_a_reference_compute_none(home):
    for kind in ('simpo', 'orpo', 'rm'):
        assert COMPUTING not in ok(dpo(home, f'--loss_type={kind}', '--max_steps=1', out=kind))
    assert not caches(home)
