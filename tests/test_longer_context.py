"""A longer context for a trained model: each scaling is transformers'; the settings make the right one."""
import json
import math

import pytest
import torch
from conftest import TINY, mistake, ok, run

from model import GPT, GPTConfig, load_checkpoint, rope_table
from parts.train.start import longer_context

OLD = vars(GPTConfig(96, 32, 2, 2, 0, 32, rope_theta=500.0))
IDX = torch.randint(96, (2, 128), generator=torch.Generator().manual_seed(0))
CASES = {'linear': ('linear', 0, (4.0,)), 'llama3': ('llama3', 0, (4.0, 1.0, 4.0, 32.0)),
         'ntk': ('none', 5e4, ())}


@pytest.mark.parametrize('name', CASES)
def test_a_model_with_a_longer_context_is_the_same_in_transformers_both_ways(name, tmp_path):
    transformers = pytest.importorskip('transformers')
    scaling, theta, expected = CASES[name]
    torch.manual_seed(0)
    model = GPT(GPTConfig(**OLD))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    longer = model.like(**longer_context('x', OLD, 128, theta, scaling)).eval()
    assert longer.config.rope_scaling == expected and longer.config.block_size == 128
    assert longer.config.rope_theta == (theta or 500.0)
    longer.save_hf(tmp_path)
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()(IDX).logits
        mine = longer(IDX)[0]
        assert theirs.std() > 0.5 and (theirs - mine).abs().max() < 5e-5
        unscaled = model.like(block_size=128).eval()(IDX)[0]
        assert (unscaled - mine).abs().max() > 0.1
    assert GPT.from_hf(tmp_path).config == longer.config
    rope = json.loads((tmp_path / 'config.json').read_text(encoding='utf-8'))['rope_parameters']
    assert rope['rope_type'] == {'ntk': 'default'}.get(name, name)
    assert all(isinstance(rope[key], int) for key in rope if key == 'original_max_position_embeddings')


def test_linear_scaling_puts_every_fourth_position_where_the_first_training_had_it():
    old, new = rope_table(16, 32, 500.0), rope_table(16, 128, 500.0, (4.0,))
    assert all(torch.allclose(a, b[::4], atol=1e-5) for a, b in zip(old, new))


def test_llama_3_leaves_fast_frequencies_alone_and_divides_slow_ones():
    frequency = lambda scaling: torch.asin(rope_table(64, 2, 1e4, scaling)[1][1].double())
    ratio = frequency((4.0, 1.0, 4.0, 256.0)) / frequency(())
    turns = 256 * frequency(()) / (2 * math.pi)
    assert torch.allclose(ratio[turns > 4.001], torch.ones(1).double())
    assert torch.allclose(ratio[turns < 0.5], torch.full((1,), 0.25).double(), atol=2e-3)
    assert ratio.diff().max() < 1e-3                        # from 1 down to 1/4


@pytest.mark.parametrize('before, context, expected', [
    ((), 32, (8.0,)), ((2.0,), 64, (8.0,)), ((2.0, 1.0, 4.0, 32), 64, (8.0,))])
def test_a_second_extension_counts_from_the_first_context(before, context, expected):
    old = {**OLD, 'block_size': context, 'rope_scaling': before}
    assert longer_context('x', old, 256, 0, 'linear')['rope_scaling'] == expected
    assert longer_context('x', old, 256, 0, 'llama3')['rope_scaling'] == (8.0, 1.0, 4.0, 32)


def test_without_the_settings_nothing_changes():
    for block_size in (16, 32):
        changes = longer_context('x', OLD, block_size, 0, 'none')
        assert {**OLD, **changes} == OLD


@pytest.fixture(scope='module')
def base(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('base') / 'run'
    ok(run('train.py', f'--data_dir={data_dir}', *TINY, f'--out_dir={out}', '--rope_theta=500'))
    assert load_checkpoint(out)[0].config.rope_theta == 500.0
    return out


@pytest.mark.parametrize('flags, scaling, theta', [
    (['--rope_scaling=llama3'], (4.0, 1.0, 4.0, 32.0), 500.0), (['--rope_scaling=linear'], (4.0,), 500.0),
    (['--rope_theta=5e4'], (), 5e4)])
def test_train_py_continues_and_resumes_with_it(base, data_dir, tmp_path, flags, scaling, theta):
    flags = [f'--data_dir={data_dir}', *TINY, *flags, '--block_size=128', f'--out_dir={tmp_path}/a']
    ok(run('train.py', *flags, f'--init_from={base}', '--max_steps=5'))
    config = load_checkpoint(tmp_path / 'a')[0].config
    assert (config.block_size, config.rope_scaling, config.rope_theta) == (128, scaling, theta)
    ok(run('train.py', *flags, '--init_from=resume', '--max_steps=6'))
    assert load_checkpoint(tmp_path / 'a' / 'last.pt')[0].config == config
    if theta == 500.0:
        other = run('train.py', *flags, '--init_from=resume', '--max_steps=7', '--rope_scaling=none')
        mistake(other, 'rope_scaling=', "this run has 'none'")


@pytest.mark.parametrize('flags, words', [
    (['--block_size=128'], ['context of 32', 'block_size=128', '--rope_scaling=llama3']),
    (['--rope_scaling=linear'], ['rope_scaling=linear', '32 tokens', '--block_size']),
    (['--rope_scaling=yarn'], ['none, linear, llama3']), (['--rope_theta=-1'], ['>= 0'])])
def test_what_does_not_fit_is_one_sentence(base, data_dir, tmp_path, flags, words):
    mistake(run('train.py', f'--data_dir={data_dir}', *TINY, f'--init_from={base}', f'--out_dir={tmp_path}/a',
                *flags), *words)
