"""The size ladder: each preset has the number of parameters that its first lines state, and the presets with
the lesson's own settings have its shapes."""
import re
import runpy

import pytest
import torch
from conftest import ROOT

from model import GPT, GPTConfig
from parts.train.planner import count_parameters

# claimed by the lesson; its own settings; the size that it claims
LADDER = {'nano': 5_180_672, 'nano_11m': 11_078_912, 'mini': 27_402_752, 'mini_50m': 51_736_256,
          'midi': 92_228_352, 'midi_200m': 205_816_832, 'mega': 1_130_981_376,
          'codeparrot_small': 110_119_680, 'codeparrot': 1_532_059_200}
CLAIMED = {'nano_11m': 11e6, 'mini_50m': 50e6, 'midi_200m': 200e6, 'mega': 1.1e9}
SEED = {'nano': (256, 8, 6, 768), 'mini': (512, 8, 8, 1536), 'midi': (768, 12, 12, 2304),
        'mega': (2048, 32, 22, 5632)}          # n_embd, n_head, n_layer, n_ffn: as the lesson has them
SHAPE = 'vocab_size', 'block_size', 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'vocab_multiple'


def config_of(name):
    found = runpy.run_path(str(ROOT / 'config' / f'{name}.py'))
    return found, GPTConfig(**{key: found[key] for key in SHAPE if key in found})


@pytest.mark.parametrize('name', LADDER)
def test_a_preset_has_the_parameters_that_it_states(name):
    found, config = config_of(name)
    with torch.device('meta'):
        n = sum(p.numel() for p in GPT(config).parameters())
    assert n == count_parameters(vars(config.filled()))['total'] == LADDER[name]
    head = (ROOT / 'config' / f'{name}.py').read_text(encoding='utf-8').split('data_dir')[0]
    assert re.search(rf'\b{n:,} parameters', head.replace('\n# ', ' ')), head
    assert found['out_dir'] == f'out/{name}' and found['data_dir'] in head


@pytest.mark.parametrize('name', CLAIMED)
def test_the_true_sizes_are_those_that_the_lesson_claims(name):
    assert LADDER[name] == pytest.approx(CLAIMED[name], rel=0.04)


@pytest.mark.parametrize('name', SEED)
def test_the_lessons_settings_are_verbatim(name):
    found, config = config_of(name)
    assert (config.n_embd, config.n_head, config.n_layer, config.n_ffn) == SEED[name]
    assert (found['block_size'], found['batch_size'], found['learning_rate']) == (512, 32, 3e-4)
    assert (found['max_steps'], found['warmup_steps'], found['grad_clip']) == (10_000, 1000, 1.0)
    assert found['vocab_size'] == 256
