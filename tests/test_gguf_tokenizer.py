"""A GGUF file holds the whole tokenizer: its tokens and merges alone give our ids; special tokens and chat
template are ours; the split pattern has llama.cpp's name."""
import pytest
import regex
from test_gguf import SOURCE, exported

from parts.sample import gguf_file
from parts.tokenizer import hf_tokenizer
from tokenizer import PATTERN, Tokenizer, from_printable

gguf = pytest.importorskip('gguf')
NAMES = 'ours', 'byte', 'gpt2', 'cl100k'
CHAT = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'a  b\nc'},
        {'role': 'assistant', 'content': 'yo\n'}, {'role': 'user', 'content': '2 + 2'}]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return exported(tmp_path_factory)


def replay(reader, pattern, text):
    """Ids by nothing but the file's tokens and merges: the first merge of its list, while there is one."""
    get = lambda name: reader.get_field(f'tokenizer.ggml.{name}').contents()
    tokens = {token: i for i, token in enumerate(get('tokens'))}
    ranks = {tuple(merge.split(' ')): i for i, merge in enumerate(get('merges'))}
    to_char = {b: c for c in map(chr, range(0x21, 0x144)) if len(b := bytes_of(c)) == 1}
    ids = []
    for chunk in regex.findall(pattern, text):
        parts = [to_char[bytes([b])] for b in chunk.encode()]
        while pairs := [(ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]:
            i = min(pairs)[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        ids += [tokens[part] for part in parts]
    return ids


def bytes_of(char):
    try:
        return from_printable(char)
    except KeyError:
        return b''


@pytest.mark.parametrize('name', ['gpt2', 'cl100k', 'byte'])
def test_tokens_and_merges_of_the_file_alone_give_our_ids(runs, name):
    _, tokenizer, reader = runs[name]
    for text in (SOURCE[:3000], ' naïve 漢字 \t\t\n\n x', "it's   _name\r\n  x=1234", 'aaaaaaaa a' * 9):
        assert replay(reader, tokenizer.pattern, text) == tokenizer.encode(text)


@pytest.mark.parametrize('name', NAMES)
def test_the_vocabulary_is_complete_and_its_ends_are_ours(runs, name):
    model, tokenizer, reader = runs[name]
    get = lambda key: reader.get_field(f'tokenizer.{key}').contents()
    tokens, types = get('ggml.tokens'), get('ggml.token_type')
    assert len(tokens) == len(types) == model.config.vocab_size
    for id, (token, kind) in enumerate(zip(tokens, types)):
        as_it_is = kind in (3, 4)           # special, or cut out of a text before the pattern acts
        assert (token.encode() if as_it_is else from_printable(token)) == tokenizer.all_bytes[id]
        assert (kind == 3) == (id in tokenizer.special.values())
        assert (kind == 4) == (name == 'ours' and b'\n' in tokenizer.all_bytes[id])
    assert get('ggml.pre') == ('gpt-2' if name in ('gpt2', 'byte') else 'llama-bpe')
    assert [get('ggml.bos_token_id'), get('ggml.eos_token_id'), get('ggml.eot_token_id')] == \
        [*tokenizer.begin, *tokenizer.stop]
    assert get('ggml.add_bos_token') == (name != 'ours')        # a run on conversations has none before them
    assert (reader.get_field('tokenizer.chat_template') is not None) == (name == 'ours')


def test_the_chat_template_is_our_rendering(runs):
    jinja2 = pytest.importorskip('jinja2')
    _, tokenizer, reader = runs['ours']
    template = reader.get_field('tokenizer.chat_template').contents()
    assert template == hf_tokenizer.CHAT_TEMPLATE
    for messages, add in ((CHAT, True), (CHAT[:3], False)):
        text = jinja2.Template(template).render(messages=messages, add_generation_prompt=add)
        assert text == tokenizer.decode(tokenizer.render(messages, add)[0])


def test_a_known_pattern_has_its_name_and_an_unknown_one_none():
    name = lambda pattern: gguf_file.pre_tokenizer(Tokenizer('bpe', [b'x'] * 300, pattern=pattern))
    assert name(PATTERN) is None
    assert name(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s") == 'gpt-2'
