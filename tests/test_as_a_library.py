"""Files that were copied into another project: what its author may try, beside what our scripts do."""
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_model import lively

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import optim
from parts.eval import grading

TINY = GPTConfig(50, 16, 1, 2, 0, 16)


@pytest.mark.parametrize('value', [np.float64(1.5), np.zeros(3), ROOT, [{'a': (object(), 1)}]])
def test_what_could_not_be_read_again_is_not_written(tmp_path, value):
    save_checkpoint(tmp_path / 'a.pt', GPT(TINY), step=1)
    with pytest.raises(OSError, match='not a tensor, number, text, list or dict'):
        save_checkpoint(tmp_path / 'a.pt', GPT(TINY), loss=value)
    assert load_checkpoint(tmp_path / 'a.pt')[1]['step'] == 1 and os.listdir(tmp_path) == ['a.pt']


def test_a_closure_is_refused_not_ignored():
    model = torch.nn.Linear(4, 4, bias=False)
    muon = optim.Muon(model.parameters(), lr=0.1, weight_decay=0.0)
    with pytest.raises(TypeError):
        muon.step(lambda: model(torch.ones(1, 4)).sum())


def test_a_copy_keeps_the_type_of_the_weights():
    model = GPT(TINY).bfloat16()
    assert {p.dtype for p in model.like(dropout=0.1).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.grown(60).parameters()} == {torch.bfloat16}


def test_a_model_that_was_made_without_memory_computes_when_its_weights_come():
    weights = lively().state_dict()
    with torch.device('meta'):
        model = GPT(lively().config)
    model.load_state_dict(weights, assign=True)
    idx = torch.randint(50, (2, 9))
    assert torch.equal(model.eval()(idx)[0], lively().eval()(idx)[0])


@pytest.mark.parametrize('text, expected', [('null', True), ('```json\nnull\n```', True), ('nul', False)])
def test_null_is_json(text, expected):
    assert grading.is_json(text) is expected
