"""Files that were copied into another project: what its author may try, beside what our scripts do."""
import os

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_model import lively

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.tokenizer import merges
from parts.train import optim
from parts.eval import grading
from tokenizer import Tokenizer

TINY = GPTConfig(50, 16, 1, 2, 0, 16)


@pytest.mark.parametrize('value', [np.float64(1.5), np.zeros(3), ROOT, [{'a': (object(), 1)}]])
def test_what_could_not_be_read_again_is_not_written(tmp_path, value):
    save_checkpoint(tmp_path / 'a.pt', GPT(TINY), step=1)
    with pytest.raises(OSError, match='not a tensor, number, text, list or dict'):
        save_checkpoint(tmp_path / 'a.pt', GPT(TINY), loss=value)
    assert load_checkpoint(tmp_path / 'a.pt')[1]['step'] == 1 and os.listdir(tmp_path) == ['a.pt']


def test_a_special_token_that_is_given_twice_is_one(tmp_path):
    texts = ['low lower lowest ' * 9, 'newer wider']
    tokenizer = Tokenizer.train(texts, 262, (name for name in ('<|a|>', '<|b|>', '<|a|>')))
    tokenizer.save(tmp_path / 't.json')
    again = Tokenizer.load(tmp_path / 't.json')
    assert tokenizer.special == again.special == {'<|a|>': 260, '<|b|>': 261}
    assert tokenizer.vocab_size == again.vocab_size == len(again.all_bytes) == len(again.text_bytes) == 262
    assert tokenizer.decode([261]) == again.decode([261]) == '<|b|>'


@pytest.mark.parametrize('pattern', [r'\w*', '', '[a-z]*', '(?:a|)'])
def test_a_pattern_that_matches_nothing_at_all_is_refused(pattern):
    with pytest.raises(ValueError, match='matches ""'):
        Tokenizer.train(['a text'], 290, (), pattern=pattern)


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


def test_the_example_of_the_merges_is_right():
    found = merges.learn_merges([b'low', b' lower', b' lowest'], [1, 1, 1], 2)
    assert found == ([(108, 111), (256, 119)], 10)
    text = (ROOT / 'parts/tokenizer/merges.py').read_text(encoding='utf-8')
    assert '# ([(108, 111), (256, 119)], 10)' in text
