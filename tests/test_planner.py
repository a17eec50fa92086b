"""The plan of a run: against the cases of the papers and sums by hand."""
import re
import runpy

import pytest
from conftest import ROOT, fill, mistake, ok, run, table

from model import GPTConfig
from extras.training import planner

shape = lambda *sizes: vars(GPTConfig(*sizes))
CODEPARROT = shape(32768, 1024, 48, 25, 0, 1600)
LLAMA = shape(32000, 4096, 32, 32, 0, 4096, 11008) | {'tie_embeddings': False}


@pytest.fixture
def plan(capsys):
    """The plan of CodeParrot's settings as text, but for what a test changes."""
    def text(where, config=CODEPARROT, **settings):
        usual = {'batch_size': 512, 'micro_batch_size': 4, 'max_steps': 50_000, 'dtype': 'auto',
                 'data_dir': 'nowhere', 'init_from': 'scratch'}
        planner.show(config | usual | settings | {'plan': where})
        return capsys.readouterr().out
    return text


GB = '''
DDP shard=ddp 24.51 24.51 39.52 29.41
ZeRO-1 7.28
ZeRO-2 shard=zero2 4.40 1.53 16.86 6.75
ZeRO-3 shard=fsdp 1.53 1.53 14.00 3.89'''


def test_the_plan_of_codeparrot(plan):
    """GB of ZeRO's paper, of our 16 bytes a parameter, and with what autograd keeps of 4 sequences,
    compiled, without and with checkpoints: measured once, and copied."""
    out = plan('16xA100')
    hours = 10_136_073_600 * 50_000 * 512 * 1024 / (0.4 * 16 * 312e12) / 3600
    for text in f'''{hours:,.2f} hours, {hours / 24:,.1f} days, at 40%
${hours * 16 * 1.5:,.2f}, if one costs $1.5
nowhere/meta.json has no number of tokens
9,192,355,200 + 943,718,400 = 10,136,073,600 FLOPs
parameters: 1,532,059,200; blocks: 48
26,214,400,000 tokens planned, 17.1 a
30,641,184,000 would be compute-optimal'''.split('\n'):           # 20 a parameter
        assert text in out
    rows = re.findall(r' ((?:DDP|ZeRO-\d) .*)', out)
    assert [row.split() for row in rows] == table(GB, None)
    assert ': 156 TFLOP/s' in plan('16xA100', dtype='float32')         # as TF32
    assert 'train with --dtype=float16' in plan('8xT4') and '$' not in plan('16x312:80')
    grouped = shape(32768, 1024, 12, 16, 2, 768)    # keys, values; 12 layers, 2 heads of 48 numbers
    assert f'KV cache: {2 * 12 * 2 * 48 * 2:,} bytes a token' in plan('8xH100', grouped)


def test_a_preset_has_the_parameters_that_it_states(plan):
    for name in 'nano', 'mini', 'midi', 'mega', 'codeparrot_small', 'codeparrot':
        text = (ROOT / f'config/{name}.py').read_text().replace('\n# ', ' ')
        settings = {}
        for path in re.search(r'train.py ((config/nano.py )?config/\w+.py)', text)[1].split():
            settings |= runpy.run_path(str(ROOT / path))
        n = re.search('parameters: (.*?);', plan('H100', settings))[1]
        assert f' {n} parameters' in text


def test_it_says_what_fits_and_what_the_data_at_hand_are(plan):
    assert 'fits: nothing; try --micro_batch_size=1, more dev' in plan('1xA100', LLAMA)
    said = plan('8xA100 40GB', micro_batch_size=8)
    assert 'fits: shard=ddp with grad_checkpoint, shard=zero2, shard=fsdp\n' in said
    fill({'meta.json': '{"vocab_size": 336, "dtype": "uint16", "tokens": {"train": 4096}}'})
    out = plan('2xH100', {**shape(1, 64, 2, 4, 0, 64), 'vocab_size': 0}, batch_size=32,
               micro_batch_size=7, max_steps=16, data_dir='.')
    for words in ' + 4 sequences', 'vocab_size=336', ': 8.00 epochs':    # 4 divides 16, not 7
        assert words in out


def test_train_py_prints_a_plan_and_writes_nothing(tmp_path):
    out = ok(run('train.py --plan=RTX 4090 --out_dir=x --init_from=auto'))
    assert '1 x RTX 4090: 165 TFLOP/s and 24 GB each' in out and not list(tmp_path.iterdir())
    mistake(run('train.py --plan=8xH100 --n_head=7'), 'n_head=7')
    mistake(run('train.py --plan=8xH100 --batch_size=12'), 'batch_size=12 must be a multiple of the 8 processes')
    mistake(run('train.py --plan=8xP100'), '8xH100 & 4x312:80 & B200 & 8xP100')
