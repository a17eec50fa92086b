"""The plan of a run: its figures can be computed by hand, and it says what it does not know."""
import dataclasses
import json
import math
import re
import runpy

import pytest
from conftest import ROOT

from model import GPTConfig
from parts.train.planner import GPUS, flops_per_token, machine_of, peak_flops, show

shape = lambda *sizes: dataclasses.asdict(GPTConfig(*sizes))
CODEPARROT, N = shape(32768, 1024, 48, 25, 0, 1600), 1_532_059_200
SETTINGS = dict(data_dir='nowhere', block_size=1024, batch_size=512, micro_batch_size=4, max_steps=50_000)


def test_the_plan_of_codeparrot(capsys):
    show('16xA100', SETTINGS, CODEPARROT, 'train')
    out = capsys.readouterr().out
    hours = 10_136_073_600 * 50_000 * 512 * 1024 / (0.4 * 16 * 312e12) / 3600
    assert f'{hours:,.2f} hours at 40 %' in out and f'${hours * 16 * 1.5:,.2f}, if one costs $1.5' in out
    assert '9,192,355,200 + 943,718,400 = 10,136,073,600 FLOPs' in out and '1,532,059,200 parameters' in out
    assert '26,214,400,000 tokens planned, 17.1 a parameter: about comp' in out and f'{20 * N:,} would' in out
    assert re.search(r'shard=ddp +24\.51 ', out) and re.search(r'shard=fsdp +1\.53 ', out)
    young = math.sqrt(2 * (12 * N / 1e9) * (50_000 / 16 * 3600)) / 3600
    assert 'sends 11.49 GB a step' in out and f'save every {young:.2f} hours' in out
    assert 'nowhere has no meta.json with tokens' in out and f'{2 * 48 * 1600 * 2:,} bytes a token' in out


def test_the_data_at_hand_give_the_vocabulary_and_the_epochs(tmp_path, capsys):
    (tmp_path / 'meta.json').write_text(json.dumps({'vocab_size': 336, 'tokens': {'train': 4096, 'val': 9}}))
    (tmp_path / 'train.jsonl').write_text('{}\n' * 16)
    settings = dict(data_dir=str(tmp_path), block_size=64, batch_size=8, micro_batch_size=0, max_steps=16,
                    loss_type='dpo')
    small = {**shape(1, 64, 2, 4, 0, 64), 'vocab_size': 0}
    flops = {}
    for stage, words in (('train', 'times that: 2.00 epochs'), ('sft', '128 records (8.00 times all 16)'),
                         ('dpo', '128 records (8.00 times all 16), at most 16,384 tokens')):
        show('1xH100', {**settings, 'block_size': 0 if stage == 'sft' else 64}, small, stage)
        out = capsys.readouterr().out
        assert words in out and 'not there' not in out
        assert ('4,096 at hand' in out) == ('vocab_size=336' in out) == (stage == 'train')
        flops[stage] = float(re.search(r'^  (\S+) FLOPs:', out, re.M)[1])
    assert flops['dpo'] == pytest.approx(flops['sft'] * 2 * (1 + 1 / 3 / 8), rel=0.01)      # reference: once
    show('1xH100', {**settings, 'loss_type': 'simpo'}, small, 'dpo')                # without a reference
    flops['simpo'] = float(re.search(r'^  (\S+) FLOPs:', capsys.readouterr().out, re.M)[1])
    assert flops['simpo'] == pytest.approx(flops['sft'] * 2, rel=0.01)


def test_every_config_has_a_plan(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)         # whatever the folder data holds here
    names = {f.name for f in dataclasses.fields(GPTConfig)}
    for path in ROOT.glob('config/*.py'):
        found = runpy.run_path(str(path))
        fields = {name: value for name, value in found.items() if name in names}
        config = GPTConfig(**{name: value for name, value in fields.items() if value or value is False})
        show('8xH100', {**SETTINGS, 'micro_batch_size': 0, **found}, vars(config), 'train')
        assert 'shard=' in capsys.readouterr().out


def test_data_without_tokens_are_not_compared(capsys, tmp_path):
    (tmp_path / 'meta.json').write_text('{"config": {"kind": "preference"}}', encoding='utf-8')
    show('1xH100', {**SETTINGS, 'data_dir': str(tmp_path)}, vars(GPTConfig(n_layer=2)), 'train')
    assert f'{tmp_path} has no meta.json with tokens' in capsys.readouterr().out


def test_a_machine_is_a_number_and_a_known_name_and_this_one_is_measured():
    assert machine_of('8xH100') == (8, 'H100', *GPUS['H100']) and machine_of('1 x rtx4090')[1] == 'RTX 4090'
    n, name, peak, memory, price = machine_of('2xcpu')
    assert (n, name, price) == (2, 'cpu', 0) and 1e8 < peak < 1e14 and 1e8 < memory < 1e14
    for where in ('8', 'H100', '0xH100', '8xH1000', '-1xH100', 'x', '8xH100x'):
        with pytest.raises(ValueError, match=r'8xH100; the names are H200, .*RTX 4090, cpu$'):
            machine_of(where)


@pytest.mark.parametrize('name, peak', [
    ('NVIDIA H100 80GB HBM3', 989e12), ('NVIDIA L40S', 362e12), ('NVIDIA L4', 121e12), ('NVIDIA L40', None),
    ('NVIDIA GeForce RTX 4090', 165e12), ('NVIDIA A100-SXM4-80GB', 312e12), ('Tesla T4', None), ('', None)])
def test_a_gpu_is_known_by_the_name_that_torch_gives_it(name, peak):
    assert peak_flops(name) == peak


def test_the_plan_of_reinforcement_learning_counts_the_sampling_too(capsys):
    settings = dict(data_dir='', block_size=64, batch_size=8, micro_batch_size=0, max_steps=16, num_samples=4)
    flops = []
    for more in ({'rounds': 1, 'updates': 1, 'kl_coef': 0.0}, {'rounds': 3, 'updates': 2, 'kl_coef': 0.1}):
        show('1xH100', settings | more, shape(1, 64, 2, 4, 0, 64), 'rl')
        out = capsys.readouterr().out
        assert '8 prompts x 4 answers x at most 64 tokens a step' in out and '+  32 sequences' in out
        flops.append(float(re.search(r'^  (\S+) FLOPs:', out, re.M)[1]))
    training = flops_per_token(shape(1, 64, 2, 4, 0, 64), 64) * 8 * 4 * 64 * 16
    want = [training * 4 / 3, training * (1 + (3 / 2 + 1) / 3)]     # forward passes: a third each
    assert flops == pytest.approx(want, rel=0.01)
