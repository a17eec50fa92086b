"""The size ladder: a preset has the parameters that its first lines state, and the lesson's settings."""
import re
import runpy

import pytest
import torch
from conftest import ROOT, ok, run

from model import GPT, GPTConfig
from parts.train.planner import count_parameters

LADDER = {'nano': 5_180_672, 'mini': 27_402_752, 'midi': 92_228_352, 'mega': 1_130_981_376,
          'codeparrot_small': 110_119_680, 'codeparrot': 1_532_059_200}
# the sizes that the lesson claims: with these flags, which the presets name
CLAIMED = {'nano': ({'n_ffn': 2048}, 11_078_912, 11e6),
           'mini': ({'n_head': 11, 'n_embd': 704, 'n_ffn': 2112}, 51_736_256, 50e6),
           'midi': ({'n_layer': 16, 'n_head': 16, 'n_embd': 1024, 'n_ffn': 2816}, 205_816_832, 200e6),
           'mega': ({}, 1_130_981_376, 1.1e9)}
SEED = {'nano': (256, 8, 6, 768), 'mini': (512, 8, 8, 1536), 'midi': (768, 12, 12, 2304),
        'mega': (2048, 32, 22, 5632)}          # n_embd, n_head, n_layer, n_ffn: as the lesson has them
SHAPE = 'vocab_size', 'block_size', 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'vocab_multiple'


def files_of(name):
    """The config files that a preset's own comment names, in their order."""
    text = (ROOT / 'config' / f'{name}.py').read_text(encoding='utf-8')
    return re.search(rf'train.py ((config/nano.py )?config/{name}.py)', text)[1].split()


def config_of(name, **changes):
    settings = {}
    for path in files_of(name):
        settings |= runpy.run_path(str(ROOT / path))
    settings |= changes
    return settings, GPTConfig(**{key: settings[key] for key in SHAPE if key in settings}).filled()


@pytest.mark.parametrize('name', LADDER)
def test_a_preset_has_the_parameters_that_it_states(name):
    settings, config = config_of(name)
    with torch.device('meta'):
        n = sum(p.numel() for p in GPT(config).parameters())
    assert n == count_parameters(vars(config))['total'] == LADDER[name]
    head = (ROOT / 'config' / f'{name}.py').read_text(encoding='utf-8').split('out_dir')[0]
    assert re.search(rf'\b{n:,} parameters', head.replace('\n# ', ' ')), head
    assert settings['out_dir'] == f'out/{name}'


@pytest.mark.parametrize('name', CLAIMED)
def test_with_the_flags_that_it_names_a_preset_has_the_size_that_the_lesson_claims(name):
    flags, n, claimed = CLAIMED[name]
    text = (ROOT / 'config' / f'{name}.py').read_text(encoding='utf-8')
    assert f'{n:,}' in text and ' '.join(f'--{key}={value}' for key, value in flags.items()) in text
    config = config_of(name, **flags)[1]
    assert count_parameters(vars(config))['total'] == n == pytest.approx(claimed, rel=0.04)


@pytest.mark.parametrize('name', SEED)
def test_the_lessons_settings_are_verbatim(name):
    settings, config = config_of(name)
    assert (config.n_embd, config.n_head, config.n_layer, config.n_ffn) == SEED[name]
    assert (settings['block_size'], settings['batch_size'], settings['learning_rate']) == (512, 32, 3e-4)
    assert (settings['max_steps'], settings['warmup_steps'], settings['grad_clip']) == (10_000, 1000, 1.0)
    assert settings['vocab_size'] == 256


def test_a_larger_size_of_the_ladder_follows_nano_on_the_command_line():
    out = ok(run('train.py', *files_of('mini'), '--plan=1xL4'))
    assert len(files_of('mini')) == 2 and f'{LADDER["mini"]:,} parameters' in out
