"""A checkpoint comes back bit for bit, runs no code, survives a failed write; all else is one sentence."""
import os
import pickle
import random

import numpy as np
import pytest
import torch
from conftest import refused, same

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import checkpoint

SMALL = dict(vocab_size=50, block_size=16, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)


def model(seed=0, **settings):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**SMALL, **settings))


def equal(a, b):
    return same(a.state_dict(), b.state_dict())


def test_a_checkpoint_comes_back_bit_for_bit_with_its_ties_and_its_extras(tmp_path):
    for settings in ({}, dict(tie_embeddings=False, dropout=0.1, rope_theta=5e5)):
        saved = model(**settings)
        extras = {'step': 7, 'best_val': 1.25, 'config': {'a': [1, None]}, 'rng': torch.get_rng_state()}
        save_checkpoint(tmp_path / 'a.pt', saved, **extras)
        assert os.listdir(tmp_path) == ['a.pt']
        loaded, rest = load_checkpoint(tmp_path / 'a.pt')
        assert equal(loaded, saved) and loaded.config == saved.config
        shared = loaded.head.weight.data_ptr() == loaded.embedding.weight.data_ptr()
        assert shared == saved.config.tie_embeddings
        assert rest.keys() == {*extras, 'format'} and all(same(rest[key], extras[key]) for key in extras)


def test_a_file_a_run_folder_and_a_hugging_face_folder_load(tmp_path):
    pytest.importorskip('safetensors')
    run, hf = tmp_path / 'run', tmp_path / 'hf'
    run.mkdir()
    save_checkpoint(run / 'last.pt', model(1), step=20)
    assert equal(load_checkpoint(run)[0], model(1)) and load_checkpoint(str(run))[1]['step'] == 20
    save_checkpoint(run / 'best.pt', model(2), step=10)
    assert equal(load_checkpoint(run)[0], model(2)) and load_checkpoint(run)[1]['step'] == 10
    assert equal(load_checkpoint(run / 'last.pt')[0], model(1))
    model(3).save_hf(hf)
    loaded, rest = load_checkpoint(hf)
    assert equal(loaded, model(3)) and rest == {}


class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir(__import__('os').environ['BOMB'])",)


BOMB, WEIGHTS = {'x': Bomb()}, model().state_dict()
FOREIGN = {
    'random': random.Random(0).randbytes(5000), 'text': b'hi', 'pickle': pickle.dumps(BOMB, 2), 'torch': BOMB,
    'bomb in ours': {'model_config': SMALL, 'model': WEIGHTS, **BOMB}, 'list': [1, 2],
    'theirs': {'model': WEIGHTS, 'iter_num': 3}, 'tensor': torch.zeros(3),
    'key': {'model_config': {**SMALL, 'no_such_setting': 1}, 'model': WEIGHTS},
    'shapes': {'model_config': {**SMALL, 'n_embd': 64}, 'model': WEIGHTS},
    'a wrapper': {'model_config': SMALL, 'model': {f'_orig_mod.{k}': v for k, v in WEIGHTS.items()}}}


def test_a_foreign_file_is_refused_in_one_sentence_and_its_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('BOMB', str(tmp_path / 'exploded'))
    path = tmp_path / 'a.pt'
    save_checkpoint(path, model())
    whole = path.read_bytes()
    n = len(whole)
    cut = {f'cut at {stop}': whole[:stop] for stop in (0, 1, 4, 100, n // 10, n // 2, n - 100, n - 1)}
    for name, content in (FOREIGN | cut).items():
        path.write_bytes(content) if type(content) is bytes else torch.save(content, path)
        refused(r'a\.pt((?!weights_only).)*$', load_checkpoint, path)     # torch's own advice is to run it
        assert not (tmp_path / 'exploded').exists(), name
    pickle.loads(FOREIGN['pickle'])
    assert (tmp_path / 'exploded').exists()             # the bomb is a real one
    refused('no.pt.* does not exist', load_checkpoint, tmp_path / 'no.pt')
    os.remove(path)
    refused([str(tmp_path), 'best.pt', 'last.pt', 'train.py'], load_checkpoint, tmp_path)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / 'a.pt'
    save_checkpoint(path, model(), step=1)
    for value in (np.float64(1.5), np.zeros(3), tmp_path, [{'a': (object(), 1)}]):
        refused('not a tensor, number, text, list or dict', save_checkpoint, path, model(), loss=value)
    assert load_checkpoint(path)[1]['step'] == 1 and os.listdir(tmp_path) == ['a.pt']


def test_at_no_moment_of_a_save_is_there_no_last_checkpoint(tmp_path, monkeypatch):
    last = str(tmp_path / 'last.pt')
    replace = os.replace
    steps = []

    def watched(a, b):
        replace(a, b)
        if step:
            steps.append(load_checkpoint(tmp_path / 'last.pt')[1]['step'])
    monkeypatch.setattr(os, 'replace', watched)
    for keep in (1, 2, 3):
        for step in range(4):
            steps.clear()
            save_checkpoint(f'{last}.new', model(), step=step)
            checkpoint.rotate(last, keep)
            assert len(steps) >= keep or step < keep
    names = ('last.pt', 'last-1.pt', 'last-2.pt')
    assert [load_checkpoint(tmp_path / name)[1]['step'] for name in names] == [3, 2, 1]
    assert len(list(tmp_path.iterdir())) == 3
    os.remove(last)             # a folder that an older commit left, killed between two renames
    assert load_checkpoint(tmp_path)[1]['step'] == 2
