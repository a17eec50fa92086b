"""The plan of a run: its figures can be computed by hand, and it says what it does not know."""
import dataclasses
import json
import re
import runpy

import pytest
from conftest import ROOT

from model import GPTConfig
from parts.train.planner import GPUS, flops_per_token, machine_of, peak_flops, show

shape = lambda *sizes: dataclasses.asdict(GPTConfig(*sizes).filled())
CODEPARROT, N = shape(32768, 1024, 48, 25, 0, 1600), 1_532_059_200
SETTINGS = dict(T=1024, batch=512, micro=4, steps=50_000, data='nowhere/meta.json')


def test_the_plan_of_codeparrot(capsys):
    show('16xA100', CODEPARROT, **SETTINGS)
    out = capsys.readouterr().out
    hours = 10_136_073_600 * 50_000 * 512 * 1024 / (0.4 * 16 * 312e12) / 3600
    assert f'{hours:,.2f} hours at 40 %' in out and f'${hours * 16 * 1.5:,.2f}, if one costs $1.5' in out
    assert '9,192,355,200 + 943,718,400 = 10,136,073,600 FLOPs' in out and '1,532,059,200 parameters' in out
    assert '26,214,400,000 tokens planned, 17.1 a parameter: about comp' in out and f'{20 * N:,} would' in out
    assert re.search(r'shard=ddp +24\.51 ', out) and re.search(r'shard=fsdp +1\.53 ', out)
    assert 'sends 11.49 GB a step' in out
    assert 'nowhere/meta.json tells no tokens' in out and f'{2 * 48 * 1600 * 2:,} bytes a token' in out


def test_the_data_at_hand_give_the_vocabulary_and_the_epochs(tmp_path, capsys):
    (tmp_path / 'meta.json').write_text(json.dumps({'vocab_size': 336, 'tokens': {'train': 4096, 'val': 9}}))
    (tmp_path / 'train.jsonl').write_text('{}\n' * 16)
    small = {**shape(1, 64, 2, 4, 0, 64), 'vocab_size': 0}
    examples = '128 examples (8.00 times all 16) of'
    flops = {}
    for stage, data, more, words in (
            ('train', 'meta.json', {}, 'times that: 2.00 epochs'),
            ('sft', 'train.jsonl', {}, f'{examples} 1 x 64 tokens at most: 8,192'),
            ('dpo', 'train.jsonl', {'sequences': 2, 'reads': True}, f'{examples} 2 x 64 tokens at most: 16,'),
            ('simpo', 'train.jsonl', {'sequences': 2}, '(8.00 times all 16)')):
        show('1xH100', small, 64, batch=8, micro=0, steps=16, data=f'{tmp_path}/{data}', **more)
        out = capsys.readouterr().out
        assert words in out and 'tells no tokens' not in out
        assert ('4,096 at hand' in out) == ('vocab_size=336' in out) == (stage == 'train')
        flops[stage] = float(re.search(r'^  (\S+) FLOPs: ', out, re.M)[1])
    assert flops['dpo'] == pytest.approx(flops['sft'] * 2 * (1 + 1 / 3 / 8), rel=0.01)      # reference: once
    assert flops['simpo'] == pytest.approx(flops['sft'] * 2, rel=0.01)              # without a reference


def test_every_config_has_a_plan(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)         # whatever the folder data holds here
    names = {f.name for f in dataclasses.fields(GPTConfig)}
    for path in ROOT.glob('config/*.py'):
        found = runpy.run_path(str(path))
        fields = {name: value for name, value in found.items() if name in names}
        config = GPTConfig(**{name: value for name, value in fields.items() if value or value is False})
        show('8xH100', vars(config.filled()), config.block_size, found.get('batch_size', 32), 0, 100)
        assert 'shard=' in capsys.readouterr().out


def test_data_without_tokens_are_not_compared(capsys, tmp_path):
    (tmp_path / 'meta.json').write_text('{"config": {"kind": "preference"}}', encoding='utf-8')
    show('1xH100', vars(GPTConfig(n_layer=2).filled()), **SETTINGS | {'data': f'{tmp_path}/meta.json'})
    assert f'{tmp_path}/meta.json tells no tokens' in capsys.readouterr().out


def test_the_price_and_the_tokens_to_be_served_can_be_set(capsys):
    show('16xA100,price=2.5,served=1e13', CODEPARROT, **SETTINGS)
    out = capsys.readouterr().out
    assert 'if one costs $2.5 an hour' in out and 'with 1e+13 tokens generated' in out
    for option in ('price', 'price=', 'price=x', 'served=-1', 'cost=3', 'served=1e', ''):
        with pytest.raises(ValueError, match='must be like price=2 or served=1e13'):
            show(f'16xA100,{option}', CODEPARROT, **SETTINGS)


@pytest.mark.parametrize('steps, words', [
    (1, ' 0.044 minutes at 40 %'), (50_000, ' 36.96 hours at'), (500_000, ' 15.4 days at')])
def test_the_time_is_told_in_a_unit_in_which_it_is_not_0(capsys, steps, words):
    show('16xA100', CODEPARROT, **SETTINGS | {'steps': steps})
    assert words in capsys.readouterr().out


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
    flops = []
    for passes in (1, 3 / 2 + 1):       # one round, one update; three rounds, two updates and a reference
        show('1xH100', shape(1, 64, 2, 4, 0, 64), 64, batch=8, micro=0, steps=16, sequences=4, passes=passes)
        out = capsys.readouterr().out
        assert '128 examples of 4 x 64 tokens at most: 32,768' in out and '+  32 sequences' in out
        assert 'FLOPs of forward passes beside it' in out
        flops.append(float(re.search(r'^  (\S+) FLOPs: ', out, re.M)[1]))
    training = flops_per_token(shape(1, 64, 2, 4, 0, 64), 64) * 8 * 4 * 64 * 16
    want = [training * 4 / 3, training * (1 + (3 / 2 + 1) / 3)]     # forward passes: a third each
    assert flops == pytest.approx(want, rel=0.01)
