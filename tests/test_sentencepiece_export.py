"""A SentencePiece tokenizer, as TinyLlama has it, leaves with its own end of a text, inside the model."""
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
