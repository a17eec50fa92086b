"""The model card that an export has quotes only what belongs to these weights, and its own example runs."""
import hashlib
import json
import re

import pytest
import torch
from test_publish import DATA

from model import GPT, GPTConfig
from parts.sample import model_card
from tokenizer import Tokenizer


def card(folder, state):
    return model_card.card(folder, folder / 'none', 'S.', 'ask', state)


@pytest.mark.parametrize('stage, keep', [('sft', lambda digest: {'conversations': digest}),
                                         ('dpo', lambda digest: {'pairs': [digest, 'of val']})])
@pytest.mark.parametrize('base', [DATA, None])
def test_the_report_of_the_conversations_is_quoted_while_they_are_the_same(stage, keep, base, tmp_path):
    """base: data.json of the base model; one of Hugging Face's has none."""
    (tmp_path / 'talk').mkdir()
    if base:
        (tmp_path / 'data.json').write_text(json.dumps(base))
    train = tmp_path / 'talk/train.jsonl'
    train.write_text('{"messages": []}')
    (tmp_path / 'talk/report.md').write_text('# talk\n\nshort: 45')
    state = keep(hashlib.sha256(train.read_bytes()).hexdigest())
    config = {'config': {'stage': stage, 'data_dir': f'{tmp_path}/talk'}}
    said = card(tmp_path, config | state)
    assert 'short: 45' in said and 'left out' not in said and ('There is no data.json' in said) == (not base)
    train.write_text('{"messages": [1]}')
    for changed in state, {}:                   # an older checkpoint does not say on what it was trained
        said = card(tmp_path, config | changed)
        assert 'short' not in said and f'{tmp_path}/talk is not known to hold the data of this run' in said


@pytest.mark.parametrize('name, content', [
    ('eval.json', {'tasks': None}), ('eval.json', [1]), ('data.json', {'sources': 5}),
    ('eval.json', {'tasks': {'x': {'pass@1': None, 'interval': [0, 1], 'n': 3}}})])
def test_an_odd_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'{tmp_path}/{name} is not as our scripts write it .* export again'):
        card(tmp_path, {})


@pytest.mark.parametrize('tied', [True, False])
def test_the_parameters_are_those_in_the_file_and_the_example_runs(tied, tmp_path):
    pytest.importorskip('transformers')
    safetensors = pytest.importorskip('safetensors.torch')
    tokenizer = Tokenizer.char('ROMEO: abcdefghij\n.,;')
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 0, 16, vocab_multiple=64, tie_embeddings=tied))
    model_card.write(tmp_path, model, tokenizer, 'hf', {})
    n = sum(t.numel() for t in safetensors.load_file(tmp_path / 'hf/model.safetensors').values())
    text = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
    assert f': {n:,} parameters' in text
    example = re.search('```python\n(.*?)```', text, re.S)[1].replace("'.'", repr(str(tmp_path / 'hf')))
    exec(example.replace('max_new_tokens=100', 'max_new_tokens=5'))
