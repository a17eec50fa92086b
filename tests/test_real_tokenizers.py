"""The tokenizer.json of SmolLM2's and Qwen's families, built as theirs are: the same ids, no text is lost."""
import json
import unicodedata

import pytest
from hypothesis import example, given, settings, strategies as st

from tokenizer import Tokenizer

tokenizers = pytest.importorskip('tokenizers')
T = ['def mean(values):\n    return sum(values) / len(values)\n', 'naïve café 1234567 漢字', "it's 2026"] * 5
# Qwen2's, as published: contractions, words, single digits, signs, newlines, blanks
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+")
CHATML = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']


def smollm2():
    """Digits one by one, then GPT-2's pattern; ChatML's tokens come first."""
    p = tokenizers.pre_tokenizers
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)])
    hf.decoder = tokenizers.decoders.ByteLevel()
    hf.train_from_iterator(T, tokenizers.trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=p.ByteLevel.alphabet(), special_tokens=[*CHATML, '<repo_name>']))
    return hf


def qwen():
    """NFC, a pattern of its own, ChatML's tokens after the vocabulary; <tool_call> is added, not special."""
    p = tokenizers.pre_tokenizers
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=False))
    hf.normalizer = tokenizers.normalizers.NFC()
    hf.pre_tokenizer = p.Sequence([p.Split(tokenizers.Regex(QWEN), 'isolated', False),
                                   p.ByteLevel(add_prefix_space=False, use_regex=False)])
    hf.decoder = tokenizers.decoders.ByteLevel()
    hf.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    hf.train_from_iterator(T, tokenizers.trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=p.ByteLevel.alphabet()))
    hf.add_special_tokens([*CHATML, '<|object_ref_start|>'])
    hf.add_tokens(['<tool_call>', '</tool_call>'])
    return hf


FAMILIES = {'SmolLM2': smollm2(), 'Qwen': qwen()}
OURS = {name: Tokenizer.from_hf(hf.to_str()) for name, hf in FAMILIES.items()}


@pytest.mark.parametrize('name', FAMILIES)
@given(text=st.text(max_size=40))
@example(text='é é')
@example(text="12345 don't  \r\n\n x<|im_end|>")
@settings(max_examples=100, deadline=None)
def test_its_ids_are_theirs_and_come_back_as_the_text(name, text):
    text = text.encode('utf-8', 'replace').decode()
    theirs, ours = tokenizers.Tokenizer.from_str(FAMILIES[name].to_str()), OURS[name]
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    want = unicodedata.normalize('NFC', text) if name == 'Qwen' else text       # Qwen's own normalizer
    assert ours.decode(ours.encode(text)) == want


@pytest.mark.parametrize('name', FAMILIES)
def test_chat_and_its_ends_are_theirs(name):
    ours, vocab = OURS[name], FAMILIES[name].get_vocab()
    assert ours.begin == [vocab['<|endoftext|>']]
    assert set(ours.stop) == {vocab['<|endoftext|>'], vocab['<|im_end|>']}
    ids, mask = ours.render([{'role': 'user', 'content': '1+1'}, {'role': 'assistant', 'content': '2'}])
    assert ours.decode_bytes(ids) == b'<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n'
    assert ours.decode_bytes([i for i, m in zip(ids, mask) if m]) == b'2<|im_end|>'
    assert ours.vocab_size == max(vocab.values()) + 1       # no token had to be added


def test_a_construction_that_is_not_known_is_refused_in_one_sentence():
    form = json.loads(FAMILIES['Qwen'].to_str())
    form['pre_tokenizer']['pretokenizers'][0]['type'] = 'SplitByMeaning'
    with pytest.raises(ValueError) as e:
        Tokenizer.from_hf(json.dumps(form))
    assert '\n' not in str(e.value)
