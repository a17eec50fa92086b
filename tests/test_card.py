"""The model card of an export: a bare run invents nothing, an odd file is named, its own example runs."""
import re

import pytest
import torch

from model import GPT, GPTConfig
from parts.sample import model_card
from tokenizer import Tokenizer


def test_a_card_of_a_bare_run_invents_nothing(tmp_path):
    card = model_card.card(tmp_path, {})
    assert f'None yet: python eval.py --ckpt={tmp_path}' in card and 'license: other' in card
    assert 'of step None' in card and 'apply_chat_template' not in card


@pytest.mark.parametrize('name, content', [('eval.json', '[1]'), ('eval.json', '{"tasks'),
                                           ('data.json', '5')])
def test_an_odd_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f'{tmp_path}/{name} is not as our scripts write it .* export again'):
        model_card.card(tmp_path, {})


def test_the_example_of_the_card_runs(tmp_path):
    pytest.importorskip('transformers')
    pytest.importorskip('safetensors')
    tokenizer = Tokenizer.byte(('<|endoftext|>',))
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 0, 16, vocab_multiple=64))
    model_card.write(tmp_path, model, tokenizer, 'hf', {})
    text = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
    example = re.search('```python\n(.*?)```', text, re.S)[1].replace("'.'", repr(str(tmp_path / 'hf')))
    exec(example.replace('max_new_tokens=100', 'max_new_tokens=5'))
