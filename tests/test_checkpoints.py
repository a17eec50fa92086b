"""What sample.py uses of parts/: checkpoints that are read."""
import errno
import math
import pickle
from unittest.mock import Mock

import pytest
import torch
from conftest import refused, save_run

from model import GPT, GPTConfig
from parts.model import checkpoints
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
    ours = {'format': checkpoints.FORMAT, **checkpoint()}
    torch.save(ours, path)
    whole = path.read_bytes()
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


def test_what_is_no_damage_keeps_its_error_and_weights_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    path = str(tmp_path / 'last.pt')
    torch.save({'format': checkpoints.FORMAT, **checkpoint()}, path)
    for error in OSError(errno.EIO, 'an error'), MemoryError(), RuntimeError("can't allocate memory"):
        with monkeypatch.context() as m, pytest.raises(type(error)):
            m.setattr(torch, 'load', Mock(side_effect=error))
            checkpoints.read(path)
    for value in (math.nan, math.inf):
        model = small()
        model.blocks[0].mlp.w_down.weight.data[3, 4] = value
        torch.save({'format': checkpoints.FORMAT, **checkpoint(model)}, path)
        refused('the weights blocks.0.mlp.w_down.weight are not finite', checkpoints.read, path)


def test_a_model_that_fills_gaps_or_scores_writes_no_answers(tmp_path):
    for more, words in (({'config': {'objective': 'mlm'}}, 'objective=mlm fills gaps'),
                        ({'reward_head': torch.zeros(16)}, 'is a reward model')):
        save_run(tmp_path, small(vocab_size=BYTES.vocab_size), BYTES, **more)
        refused(words, lambda: checkpoints.open_to_sample(str(tmp_path), continues=True))
