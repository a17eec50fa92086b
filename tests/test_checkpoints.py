"""What eval.py and sample.py use of parts/: checkpoints that are read, and folders of bins."""
import errno
import math
import os
import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import refused, save_run, write, write_bins

from model import GPT, GPTConfig
from parts.model import checkpoints
from parts.train import data
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
RUN = {'config': {}, 'data': {}, 'moments': {'state': {}}, 'tokens': 0}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{'vocab_size': 50, 'block_size': 8, 'n_layer': 1, 'n_head': 2, 'n_kv_head': 0,
                            'n_embd': 16, **changes}))


def checkpoint(model=None, **more):
    model = model or small()
    return {'model': model.state_dict(), 'model_config': vars(model.config), **RUN, **more}


# --- checkpoints --------------------------------------------------------------------------------------------
class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir(__import__('os').environ['BOMB'])",)


BOMB = {'x': Bomb()}


def test_a_foreign_file_is_refused_in_one_sentence_and_its_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('BOMB', str(tmp_path / 'exploded'))
    path = tmp_path / 'a.pt'
    checkpoints.write(str(path), 1, checkpoint())
    whole = path.read_bytes()
    ours = {'format': checkpoints.FORMAT, **checkpoint()}
    for content in (pickle.dumps(BOMB, 2), BOMB, ours | BOMB, [1, 2], {'model': {}, 'iter_num': 3}, b'',
                    whole[:len(whole) // 2], whole[:-1]):
        torch.save(content, path)
        if type(content) is bytes:
            path.write_bytes(content)
        # torch's own advice is to run it
        refused(r'a\.pt is not a readable((?!weights_only|option).)*$', checkpoints.read, str(path))
        assert not (tmp_path / 'exploded').exists(), content
    pickle.loads(pickle.dumps(BOMB, 2))
    assert (tmp_path / 'exploded').exists()             # the bomb is a real one
    refused('no.pt does not exist', checkpoints.find, str(tmp_path / 'no.pt'))
    refused(['best.pt', 'last.pt', 'train.py'], checkpoints.find, str(tmp_path))


def test_the_newest_readable_checkpoint_is_taken_and_only_damage_puts_one_aside(tmp_path, monkeypatch):
    """A damaged one is put aside: else the next save would push a good one out."""
    out = f'{tmp_path}/'                                # as the shell completes it
    save = lambda step, **more: checkpoints.write(f'{out}/last.pt', 2, checkpoint(step=step, **more))
    refused('has no checkpoint', checkpoints.newest, out)
    save(8)
    save(12)
    for error in OSError(errno.EIO, 'an error'), MemoryError(), RuntimeError("can't allocate memory"):
        with monkeypatch.context() as m, pytest.raises(type(error)):
            m.setattr(torch, 'load', Mock(side_effect=error))
            checkpoints.newest(out)
    assert checkpoints.newest(out)['step'] == 12
    (tmp_path / 'last.pt').write_bytes(b'half a file')
    assert checkpoints.newest(out)['step'] == 8
    assert (tmp_path / 'last.pt.damaged').read_bytes() == b'half a file'
    for value in (math.nan, math.inf):
        model = small()
        model.blocks[0].mlp.w_down.weight.data[3, 4] = value
        save(16, model=model)
        refused('the weights blocks.0.mlp.w_down.weight are not finite', checkpoints.read, f'{out}/last.pt')
    save(16, moments=None)
    refused(['last.pt', 'no run to resume', f'--init_from={out}'], checkpoints.newest, out)


@pytest.mark.parametrize('keep, renames', [(1, 0), (2, 0), (2, 1), (3, 2)])
def test_a_save_keeps_so_many_checkpoints_and_wherever_it_ends_one_can_be_resumed(tmp_path, monkeypatch, keep,
                                                                                  renames):
    out, rename = str(tmp_path), os.replace
    save = lambda step: checkpoints.write(f'{out}/last.pt', keep, checkpoint(step=step))
    for step in range(4):
        save(step)
    steps = [checkpoints.read(name)['step'] for name in checkpoints.names_of(out)[:keep]]
    assert steps == [3, 2, 1][:keep] and len(os.listdir(out)) == keep
    left = [rename] * renames                           # then the power fails
    with monkeypatch.context() as m, pytest.raises(IndexError):
        m.setattr(os, 'replace', lambda old, new: left.pop()(old, new))
        save(4)
    assert checkpoints.newest(out)['step'] == checkpoints.read(checkpoints.find(out))['step'] == 3
    save(4)
    assert checkpoints.newest(out)['step'] == 4


def test_a_model_that_cannot_do_it_is_refused(tmp_path):
    tune = lambda: checkpoints.open_to_tune({'init_from': str(tmp_path)}, {})
    sample = lambda: checkpoints.open_to_sample(str(tmp_path), continues=True)
    mlm, plain = {'config': {'objective': 'mlm'}}, ['<|endoftext|>']
    for command, special, config, more, words in (
            (tune, SPECIAL_TOKENS[:4], {'causal': False}, mlm, 'objective=mlm.* use a model of clm'),
            (sample, SPECIAL_TOKENS[:4], {}, mlm, 'objective=mlm fills gaps'),
            (tune, SPECIAL_TOKENS[:4], {}, {'reward_head': torch.zeros(16)}, 'is a reward model'),
            (tune, plain, {}, {}, 'no <.im_start.> .* frame each message')):
        tokenizer = Tokenizer.byte(special)
        save_run(tmp_path, small(vocab_size=tokenizer.vocab_size, **config), tokenizer, **more)
        refused(words, command)
    refused(['block_size=9', 'context of 8 tokens', 'extras.longer_context'], checkpoints.check_context,
            'out', 8, 9)


# --- bins, for eval.py --------------------------------------------------------------------------------------
def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    made = write_bins(tmp_path, np.arange(100, dtype=np.uint16), BYTES)
    assert all(isinstance(bin, np.memmap) for bin in data.open_bins(made, 8)[1].values())  # of any size
    write(made / 'meta.json', [{'config': {'kind': 'sft'}}])
    refused('has sft data, .*--kind=text', data.open_bins, made, 8)
    assert data.command_for('data/pairs', kind='sft').endswith('sft --source=FILE --out_dir=data/pairs')
    assert data.command_for('data/mine').endswith('prepare.py --source=FILE --out_dir=data/mine')
