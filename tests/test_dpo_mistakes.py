"""A user's mistakes with dpo.py end in one line that says what to do, and destroy nothing. The helpers
here are for the other test_dpo_*.py too."""
import json
import os
import random
import shutil

import pytest
import torch
from conftest import mistake, run

from model import GPT, GPTConfig, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

FLAGS = ['--device=cpu', '--dtype=float32', '--batch_size=8', '--max_steps=12', '--warmup_steps=2',
         '--learning_rate=3e-3', '--log_interval=1', '--eval_interval=5', '--save_interval=4',
         '--num_samples=2', '--sample_tokens=4']


def dpo(folder, *arguments, init='sft', data='pairs', out='out', before=''):
    init, out = (name if name == 'resume' else os.path.join(folder, name) for name in (init, out))
    arguments = [f'--init_from={init}', f'--data_dir={folder / data}', f'--out_dir={out}',
                 *FLAGS, *map(str, arguments)]
    return run('dpo.py', *arguments, before=before)


def write(path, records):
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(json.dumps(r) + '\n' for r in records), encoding='utf-8')


def make_sft(folder, seed=0, special=SPECIAL_TOKENS[:4], **more):
    """An untrained model, as sft.py leaves one."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    tokenizer = Tokenizer.byte(special)
    tokenizer.save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'best.pt', GPT(GPTConfig(tokenizer.vocab_size, 96, 2, 2, 0, 32, **more)),
                    tokenizer_hash=tokenizer.hash, config={'stage': 'sft'})
    (folder / 'data.json').write_text('{}', encoding='utf-8')
    return folder


def make_pairs(folder, n=64):
    """Of unequal lengths; whether an answer holds sun or fog is all that makes it better or worse."""
    dice = random.Random(0)
    some = lambda: ''.join(dice.choices('abcdefgh', k=dice.randint(1, 5)))
    for side, k in (('train', n), ('val', 32)):
        write(folder / f'{side}.jsonl', [{'prompt': some(), 'chosen': f'{some()} sun {some()}',
                                          'rejected': f'{some()} fog {some()}'} for _ in range(k)])


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('dpo')
    make_sft(folder / 'sft')
    make_pairs(folder / 'pairs')
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize('flag, words', [
    ('--label_smoothing=0.1 --loss_type=ipo', ['label_smoothing=0.1', 'not ipo']),
    ('--label_smoothing=0.5', ['label_smoothing=0.5']), ('--beta=0', ['beta=0']),
    ('--beta=-1', ['beta=-1']), ('--loss_type=ppo', ['ppo', 'dpo, ipo, kto']),
    ('--nll_weight=-1', ['nll_weight']), ('--gamma=2', ['gamma=2', 'loss_type=simpo, not dpo']),
    ('--batch_size=0', ['batch_size']), ('--micro_batch_size=3', ['nearest: --micro_batch_size=2']),
    ('--block_size=97', ['block_size=97', '96']), ('--show_batch=-1', ['show_batch=-1']),
    ('--data_dir=nowhere', ['nowhere', '--kind=preference']),
    ('--init_from=nowhere', ['nowhere', 'does not exist']), ('--data_dir=sft', ['train.jsonl'])])
def test_settings_that_cannot_be(home, flag, words):
    before = contents(home / 'pairs')
    mistake(dpo(home, *flag.split()), *words)
    assert not (home / 'out').exists() and contents(home / 'pairs') == before


GOOD = {'prompt': 'q', 'chosen': 'a', 'rejected': 'b'}
UP = {'prompt': 'q', 'completion': 'a', 'label': True}


@pytest.mark.parametrize('line, words, more', [
    ('{"prompt": "q", "cho', ['line 2'], ''), ('[]', ['line 2'], ''), ('{"prompt": ""}', ['chosen'], ''),
    (UP, ['label', '--loss_type=kto, not dpo'], ''), (UP, ['label', 'not rm'], '--loss_type=rm'),
    ({**UP, 'label': 'false'}, ['true or false'], '--loss_type=kto'),
    ({**UP, 'completion': None}, ['text'], '--loss_type=kto'), ({**GOOD, 'chosen': None}, ['text'], ''),
    ({**GOOD, 'prompt': 5}, ['role'], ''), ({**GOOD, 'prompt': [{'role': 'x'}]}, ['role'], '')])
def test_a_line_that_is_no_preference_is_named_by_its_number(home, tmp_path, line, words, more):
    shutil.copytree(home / 'sft', tmp_path / 'sft')
    write(tmp_path / 'pairs/val.jsonl', [GOOD])
    text = line if isinstance(line, str) else json.dumps(line)
    (tmp_path / 'pairs/train.jsonl').write_text(f'{json.dumps(GOOD)}\n{text}\n', encoding='utf-8')
    mistake(dpo(tmp_path, *more.split()), 'train.jsonl, line 2', *words)
    assert not (tmp_path / 'out').exists()
