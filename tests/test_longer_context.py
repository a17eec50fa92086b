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


def test_a_model_with_a_longer_context_is_the_same_in_transformers_both_ways(tmp_path):
    transformers = pytest.importorskip('transformers')
    for name, (scaling, theta, expected) in CASES.items():
        torch.manual_seed(0)
        model = GPT(GPTConfig(**OLD))
        for p in model.parameters():
            torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
        longer = model.like(**longer_context('x', OLD, 128, theta, scaling)).eval()
        c = longer.config
        assert (c.rope_scaling, c.block_size, c.rope_theta) == (expected, 128, theta or 500.0)
        longer.save_hf(tmp_path / name)
        with torch.no_grad():
            theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()(IDX).logits
            ours = longer(IDX)[0]
            unscaled = model.like(block_size=128).eval()(IDX)[0]
        assert theirs.std() > 0.5 and (theirs - ours).abs().max() < 5e-5, name
        assert (unscaled - ours).abs().max() > 0.1, name
        assert GPT.from_hf(tmp_path / name).config == c, name
        rope = json.loads((tmp_path / name / 'config.json').read_text(encoding='utf-8'))['rope_parameters']
        assert rope['rope_type'] == {'ntk': 'default'}.get(name, name)
        assert isinstance(rope.get('original_max_position_embeddings', 32), int)


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


def test_a_second_extension_counts_from_the_first_context_and_without_the_settings_nothing_changes():
    for before, context in (((), 32), ((2.0,), 64), ((2.0, 1.0, 4.0, 32), 64)):
        old = {**OLD, 'block_size': context, 'rope_scaling': before}
        assert longer_context('x', old, 256, 0, 'linear')['rope_scaling'] == (8.0,), before
        assert longer_context('x', old, 256, 0, 'llama3')['rope_scaling'] == (8.0, 1.0, 4.0, 32), before
    for block_size in (16, 32):
        assert {**OLD, **longer_context('x', OLD, block_size, 0, 'none')} == OLD


def test_train_py_continues_and_resumes_with_it_and_refuses_what_does_not_fit(base_run, data_dir, tmp_path):
    train = lambda *flags: run('train.py', f'--data_dir={data_dir}', *TINY, f'--out_dir={tmp_path}/a', *flags)
    for flags, words in ((['--block_size=128'], ['context of 32', 'block_size=128', '--rope_scaling=llama3']),
                         (['--rope_scaling=linear'], ['rope_scaling=linear', '32 tokens', '--block_size']),
                         (['--rope_scaling=yarn'], ['none, linear, llama3'])):
        mistake(train(f'--init_from={base_run}', *flags), *words)

    flags = ['--rope_scaling=llama3', '--rope_theta=5e4', '--block_size=128']
    ok(train(*flags, f'--init_from={base_run}', '--max_steps=5'))
    config = load_checkpoint(tmp_path / 'a')[0].config
    assert (config.block_size, config.rope_scaling, config.rope_theta) == (128, (4.0, 1.0, 4.0, 32.0), 5e4)
    ok(train(*flags, '--init_from=resume', '--max_steps=6'))
    assert load_checkpoint(tmp_path / 'a' / 'last.pt')[0].config == config
    mistake(train(*flags, '--init_from=resume', '--max_steps=7', '--rope_scaling=none'), 'rope_scaling=',
            "this run has 'none'")
