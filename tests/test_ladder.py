"""The size ladder: a preset has the parameters that its first lines state, and the lesson's settings."""
import re
import runpy

from conftest import ROOT, ok, run

from model import GPTConfig
from parts.train.planner import count_parameters

LADDER = {'nano': 5_180_672, 'mini': 27_402_752, 'midi': 92_228_352, 'mega': 1_130_981_376,
          'codeparrot_small': 110_119_680, 'codeparrot': 1_532_059_200}
# the sizes that the lesson claims: with these flags, which the presets name
CLAIMED = {'nano': ({'n_ffn': 2048}, 11_078_912),
           'mini': ({'n_head': 11, 'n_embd': 704, 'n_ffn': 2112}, 51_736_256),
           'midi': ({'n_layer': 16, 'n_head': 16, 'n_embd': 1024, 'n_ffn': 2816}, 205_816_832)}
SEED = {'nano': (256, 8, 6, 768), 'mini': (512, 8, 8, 1536), 'midi': (768, 12, 12, 2304),
        'mega': (2048, 32, 22, 5632)}          # n_embd, n_head, n_layer, n_ffn: as the lesson has them


def config_of(text, **changes):
    """The settings of the config files that a preset's own comment names, and its GPTConfig."""
    settings = {}
    for path in re.search(r'train.py ((config/nano.py )?config/\w+.py)', text)[1].split():
        settings |= runpy.run_path(str(ROOT / path))
    settings |= changes
    shape = GPTConfig.__dataclass_fields__.keys() & settings.keys()
    return settings, GPTConfig(**{key: settings[key] for key in shape}).filled()


def test_a_preset_has_the_parameters_that_it_states_and_the_lessons_settings():
    for name, n in LADDER.items():
        text = (ROOT / 'config' / f'{name}.py').read_text(encoding='utf-8')
        settings, config = config_of(text)
        assert count_parameters(vars(config))['total'] == n, name
        assert re.search(rf'\b{n:,} parameters', text.replace('\n# ', ' ')), name
        assert settings['out_dir'] == f'out/{name}'
        if name in CLAIMED:
            flags, n = CLAIMED[name]
            assert count_parameters(vars(config_of(text, **flags)[1]))['total'] == n, name
            assert f'{n:,}' in text and ' '.join(f'--{key}={flags[key]}' for key in flags) in text, name
        if name in SEED:
            assert (config.n_embd, config.n_head, config.n_layer, config.n_ffn) == SEED[name]
            assert (settings['block_size'], settings['batch_size'], settings['vocab_size']) == (512, 32, 256)
            assert (settings['learning_rate'], settings['grad_clip']) == (3e-4, 1.0)
            assert (settings['max_steps'], settings['warmup_steps']) == (10_000, 1000)


def test_a_larger_size_of_the_ladder_follows_nano_on_the_command_line():
    out = ok(run('train.py', 'config/nano.py', 'config/mini.py', '--plan=1xL4', cwd=ROOT))
    assert f'{LADDER["mini"]:,} parameters' in out
