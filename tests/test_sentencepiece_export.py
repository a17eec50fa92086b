"""A SentencePiece tokenizer, as TinyLlama has it, leaves with its own end of a text, inside the model."""
import re

import pytest
from test_hf_tokenizer import OURS

from model import GPT, GPTConfig

transformers = pytest.importorskip('transformers')


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Our tokenizer, theirs, their model."""
    ours, folder = OURS['sentencepiece'], tmp_path_factory.mktemp('exported')
    GPT(GPTConfig(ours.vocab_size, 64, 1, 2, 0, 16)).save_hf(folder, ours)
    return ours, transformers.AutoTokenizer.from_pretrained(folder), \
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_its_end_is_the_end_of_the_exported_tokenizer_and_padding_is_inside_the_model(exported):
    ours, theirs, model = exported
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ('<s>', '</s>', '</s>')
    assert len(theirs) == ours.vocab_size == model.config.vocab_size
    batch = theirs(['a', 'a longer text'], padding=True, return_tensors='pt', return_token_type_ids=False)
    assert (batch['input_ids'] == ours.special['</s>']).any() and model(**batch).logits.isfinite().all()


def test_its_chats_have_a_blank_behind_each_special_token_in_transformers(exported):
    ours, theirs, _ = exported                          # docs/out-of-the-repository.md says so
    chat = [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'yo'}]
    found, want = theirs.apply_chat_template(chat, return_dict=False), ours.render(chat)[0]
    assert found != want
    behind = re.sub(rb'(<.im_(?:start|end).>)', rb'\1 ', ours.decode_bytes(want))
    assert ours.decode_bytes(found) == behind
