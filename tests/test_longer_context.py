"""python -m extras.longer_context: a model reads more tokens, and train.py goes on from the folder."""
import dataclasses

import pytest
import torch
from conftest import mistake, ok, run, save_run, series, train

from extras.longer_context import changes
from model import GPT, GPTConfig
from tokenizer import Tokenizer

longer = lambda *flags: run('extras.longer_context', *flags)


def test_a_second_extension_counts_from_the_first_context():
    config = vars(GPTConfig(96, 32, 2, 2, 0, 32, rope_theta=500.0))
    for before, block_size in ((), 32), ((2.0,), 64), ((2.0, 1.0, 4.0, 32), 64):
        old = {**config, 'block_size': block_size, 'rope_scaling': before}
        assert changes(old, 256, 'linear')['rope_scaling'] == (8.0,), before
        assert changes(old, 256, 'llama3')['rope_scaling'] == (8.0, 1.0, 4.0, 32), before
        assert changes(old, 256, 'none', 9e3) == {'block_size': 256, 'rope_scaling': before,
                                                  'rope_theta': 9e3}


def test_it_writes_a_folder_from_which_train_py_goes_on_and_resumes(base_run, data_dir, tmp_path):
    out = tmp_path / 'longer'
    said = ok(longer(f'--init_from={base_run}', f'--out_dir={out}', '--block_size=128', '--rope_theta=5e4'))
    assert f'python train.py --init_from={out} --block_size=128' in said
    old, new = GPT.load(base_run), GPT.load(out)
    stretched = dict(block_size=128, rope_scaling=(4.0, 1.0, 4.0, 32.0), rope_theta=5e4)
    assert new.config == dataclasses.replace(old.config, **stretched)
    assert all(torch.equal(w, new.state_dict()[name]) for name, w in old.state_dict().items())
    assert new.saved['config']['objective'] == 'clm'
    assert (out / 'tokenizer.json').read_bytes() == (base_run / 'tokenizer.json').read_bytes()

    flags = [f'--init_from={out}', '--block_size=128']
    ok(train(data_dir, tmp_path / 'a', *flags, '--max_steps=5'))
    assert GPT.load(tmp_path / 'a').config == new.config
    assert series(tmp_path / 'a', 'val_loss')
    mistake(train(data_dir, tmp_path / 'b', f'--init_from={base_run}', '--block_size=128'),
            'python -m extras.longer_context')


def test_what_it_cannot_do_is_one_sentence_and_writes_nothing(base_run, tmp_path):
    reward, foreign, out = tmp_path / 'reward', tmp_path / 'foreign', tmp_path / 'out'
    save_run(reward, GPT.load(base_run), Tokenizer.load(base_run / 'tokenizer.json'),
             reward_head=torch.zeros(1, 32))
    save_run(foreign, GPT.load(base_run), Tokenizer.byte(), tokenizer_hash='another')
    (tmp_path / 'empty').mkdir()
    for flags, words in (
            ([f'--init_from={base_run}', '--block_size=32'], ['--block_size=32', '32 tokens']),
            ([f'--init_from={base_run}', '--rope_scaling=yarn'], ['rope_scaling', 'yarn', 'llama3']),
            ([f'--init_from={tmp_path}/none'], ['--init_from', 'none']),
            ([f'--init_from={tmp_path}/empty'], ['--init_from', 'no best.pt']),
            ([f'--init_from={base_run}/metrics.jsonl'], ['--init_from', 'metrics.jsonl']),
            ([f'--init_from={reward}'], ['reward model']), ([f'--init_from={foreign}'], ['tokenizer'])):
        mistake(longer(f'--out_dir={out}', *flags), *words)
        assert not out.exists()
    mistake(longer(f'--init_from={base_run}', f'--out_dir={reward}'), f'--out_dir={reward}', 'already')


@pytest.mark.parametrize('name', ['best.pt', 'last.pt'])
def test_it_also_takes_one_file_of_a_run(base_run, tmp_path, name):
    ok(longer(f'--init_from={base_run}/{name}', f'--out_dir={tmp_path}/out', '--block_size=64'))
    assert GPT.load(tmp_path / 'out').config.block_size == 64
