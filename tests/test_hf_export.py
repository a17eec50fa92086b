"""A folder that save_hf writes works in transformers with nothing of ours: AutoTokenizer has the same ids and
its chat template too, and generate() stops where our own generation stops."""
import pytest
import torch
from conftest import ok, run

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

transformers = pytest.importorskip('transformers')
pytest.importorskip('tokenizers')

TEXTS = ['def f(x):\n    return x + 12345\n', ' naïve 漢字 \t\t\n\n', '', 'aaaaaaaa a' * 9,
         '<|endoftext|> <|im_end|>', "it's   _name\r\n  x=1", '\x00\x01 \ufeff  ' + 'low lower lowest ' * 20]
CHAT = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': ' a <|im_end|>b\n'[:3]},
        {'role': 'assistant', 'content': 'yo\n\n'}, {'role': 'user', 'content': '2 + 2'}]


def tokenizers():
    source = open(__file__, encoding='utf-8').read()
    return {'bpe': Tokenizer.train([source, 'low lower lowest ' * 50], 700),
            'byte': Tokenizer.byte(SPECIAL_TOKENS), 'char': Tokenizer.char(''.join(TEXTS)),
            'plain': Tokenizer.byte()}


TOKENIZERS = tokenizers()


def chain(tokenizer, steps):
    """A model that knows one thing: which token follows which. steps: {id: next id}"""
    V = tokenizer.vocab_size
    model = GPT(GPTConfig(V, 64, 1, 2, 0, V + -V % 4, tie_embeddings=False))
    with torch.no_grad():
        for p in model.blocks.parameters():
            p.zero_()
        model.embedding.weight.copy_(torch.eye(V, V + -V % 4))
        model.head.weight.zero_()
        for a, b in steps.items():
            model.head.weight[b, a] = 1.0
    return model.eval()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    made = {}
    for name, tokenizer in TOKENIZERS.items():
        made[name] = tmp_path_factory.mktemp('hf') / name
        model = chain(tokenizer, {i: i + 1 for i in range(tokenizer.vocab_size - 1)})
        model.save_hf(made[name], tokenizer)
    return made


@pytest.mark.parametrize('name', TOKENIZERS)
def test_auto_tokenizer_has_the_same_ids(folders, name):
    ours, theirs = TOKENIZERS[name], transformers.AutoTokenizer.from_pretrained(folders[name])
    assert len(theirs) == ours.vocab_size and theirs.model_max_length == 64
    for text in TEXTS:
        ids = theirs(text, split_special_tokens=True)['input_ids']
        assert ids == ours.begin + ours.encode(text), text
        assert theirs.decode(ids[len(ours.begin):]) == ours.decode(ours.encode(text))
    assert all(theirs.convert_tokens_to_ids(name) == id for name, id in ours.special.items())


def test_the_chat_template_is_our_rendering(folders):
    ours, theirs = TOKENIZERS['bpe'], transformers.AutoTokenizer.from_pretrained(folders['bpe'])
    for messages, add in ((CHAT, True), (CHAT[:3], False)):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=add, return_dict=False)
        assert theirs.decode(ids) == ours.decode(ours.render(messages, add)[0])
        assert ids.count(ours.special['<|im_end|>']) == len(messages)


@pytest.mark.parametrize('end', ['<|endoftext|>', '<|im_end|>'])
def test_generate_stops_at_either_end(tmp_path, end):
    tokenizer = TOKENIZERS['bpe']
    a, b = tokenizer.encode('a')[0], tokenizer.encode('b')[0]
    chain(tokenizer, {a: b, b: tokenizer.special[end]}).save_hf(tmp_path, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs.generate(**auto('a', return_tensors='pt', return_token_type_ids=False), max_new_tokens=30,
                          do_sample=False)
    assert ids[0].tolist() == [*tokenizer.begin, a, b, tokenizer.special[end]]
    assert 'ab' in ok(run('sample.py', f'--ckpt={tmp_path}', '--prompt=a', '--temperature=0', '--device=cpu'))


def test_our_own_reader_takes_the_folder_and_the_tokenizer_comes_back(folders, tmp_path):
    for name in ('bpe', 'byte'):
        ours, back = TOKENIZERS[name], Tokenizer.load(folders[name] / 'tokenizer.json')
        assert (back.vocab_size, back.begin, back.stop) == (ours.vocab_size, ours.begin, ours.stop)
        assert all(back.encode(text) == ours.encode(text) for text in TEXTS)
        assert back.special == ours.special and back.all_bytes == ours.all_bytes
        assert back.render(CHAT, True) == ours.render(CHAT, True)
        GPT.from_hf(folders[name]).save_hf(tmp_path / name, back)           # and once more
        again = Tokenizer.load(tmp_path / name / 'tokenizer.json')
        assert again.encode(TEXTS[0]) == ours.encode(TEXTS[0]) and again.stop == ours.stop
