"""A GGUF file, as the package gguf reads it: the model bit for bit, and tokens and merges of our ids."""
import numpy as np
import pytest
from accidents import full_disk
from conftest import machine, mistake, ok, refused, run, save_run
from test_model import lively

from extras import export as exports, hf_model, hf_tokenizer
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer, from_printable

gguf = pytest.importorskip('gguf')
safetensors = pytest.importorskip('safetensors.torch')
SOURCE = open(__file__, encoding='utf-8').read()
TOKENIZERS = {'ours': Tokenizer.train(SOURCE, 600), 'byte': Tokenizer.byte(SPECIAL_TOKENS),
              **{name: Tokenizer.train(SOURCE, 600, pattern=pattern)
                for name, pattern in zip(('gpt2', 'cl100k', 'possessive'), exports.NAMES)}}


def a_run(folder, tokenizer, **settings):
    """The folder of a run, with random weights."""
    small = dict(vocab_size=tokenizer.vocab_size, block_size=64, n_kv_head=2, n_embd=64, n_ffn=96)
    model = lively(0.3, **small, vocab_multiple=64, **settings)
    save_run(folder, model, tokenizer)
    return model


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """{name: (model, tokenizer, reader)}; ours was trained on conversations."""
    made = {}
    for name, tokenizer in TOKENIZERS.items():
        folder = tmp_path_factory.mktemp('gguf') / name
        model = a_run(folder, tokenizer, tie_embeddings=name == 'byte')
        model.saved = {'config': {'stage': 'sft'}} if name == 'ours' else {}
        said = exports.publish_gguf(folder, model, tokenizer)
        assert ('--pattern=cl100k' in said) == (name == 'ours'), said
        made[name] = model, tokenizer, gguf.GGUFReader(folder / 'model-f32.gguf')
    return made


# --- the weights --------------------------------------------------------------------------------------------
def halves_again(array, D=16):
    """Row by row: what llama.cpp turns as the pair 2i, 2i + 1 of a head, we turn as i, i + D/2."""
    back = np.empty_like(array)
    for row in range(len(array)):
        head, j = divmod(row, D)
        back[head * D + j // 2 + (j % 2) * D // 2] = array[row]
    return back


def test_tensors_are_equal_bit_for_bit_with_q_and_k_turned_back(runs, tmp_path):
    """To those that transformers gets (test_hf_model.py), by the names that the package gguf gives them."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name in ('ours', 'byte'):
        model, _, reader = runs[name]
        hf_model.write(tmp_path / name, model)
        theirs = safetensors.load_file(tmp_path / name / 'model.safetensors')
        wanted = {names.get_name(key, ('.weight',)): w.numpy() for key, w in theirs.items()}
        arrays = {t.name: t.data for t in reader.tensors}
        assert arrays.keys() == wanted.keys() and len(arrays) == 2 + (name == 'ours') + 9 * 2
        for key, w in wanted.items():
            turned = 'attn_q' in key or 'attn_k' in key
            assert np.array_equal(halves_again(arrays[key]) if turned else arrays[key], w), key
            assert not turned or not np.array_equal(arrays[key], w)
        sizes = {'attention.head_count': 4, 'attention.head_count_kv': 2, 'attention.key_length': 16,
                 'attention.value_length': 16, 'context_length': 64}
        for key, n in sizes.items():
            assert reader.get_field(f'llama.{key}').contents() == n, key


def test_llama_3_s_frequencies_are_divided_by_the_numbers_in_the_file(tmp_path):
    model = a_run(tmp_path / 'run', TOKENIZERS['byte'], rope_scaling=(8., 1., 4., 24.), rope_theta=500.)
    exports.publish_gguf(tmp_path / 'run', model, TOKENIZERS['byte'])
    reader = gguf.GGUFReader(tmp_path / 'run/model-f32.gguf')
    assert reader.get_field('llama.rope.scaling.type') is None          # that would scale a second time
    factors, = (t.data for t in reader.tensors if t.name == 'rope_freqs.weight')
    angle = 5 * 500. ** (-np.arange(0, 16, 2) / 16) / factors
    assert np.allclose(np.cos(angle), model.cos[5], atol=1e-5)
    assert np.allclose(np.sin(angle), model.sin[5], atol=1e-5)


def test_the_command_writes_it_and_what_cannot_be_is_one_sentence(tmp_path):
    a_run(tmp_path / 'run', TOKENIZERS['cl100k'])
    export = f'--ckpt={tmp_path}/run', '--export=gguf'
    assert 'model-f32.gguf' in ok(run('sample.py', *export))
    before = (tmp_path / 'run/model-f32.gguf').read_bytes()
    result = run('sample.py', *export, before=full_disk(100_000))
    machine(result, 'the disk is full', 'what was saved stays')
    assert (tmp_path / 'run/model-f32.gguf').read_bytes() == before and not list(tmp_path.rglob('*.tmp'))
    mistake(run('sample.py', *export, before="sys.modules['gguf'] = None"), 'pip install gguf')
    hf_model.write(tmp_path / 'theirs', GPT(GPTConfig(600, 64, 1, 2, 0, 16)), TOKENIZERS['cl100k'])
    mistake(run('sample.py', f'--ckpt={tmp_path}/theirs', '--export=gguf'), 'convert_hf_to_gguf.py')
    for other in {'qkv_bias': True}, {'qk_norm': True}:
        model = lively(**other)
        refused('a plain Llama, but', gguf_file.publish, tmp_path, model, TOKENIZERS['byte'])


# --- the tokenizer ------------------------------------------------------------------------------------------
def test_the_vocabulary_is_complete_and_its_ends_are_ours(runs):
    for name, (model, tokenizer, reader) in runs.items():
        get = lambda key: reader.get_field(f'tokenizer.{key}').contents()
        tokens, types = get('ggml.tokens'), get('ggml.token_type')
        assert len(tokens) == len(types) == model.config.vocab_size
        for id, (token, kind) in enumerate(zip(tokens, types)):
            as_it_is = kind in (3, 4)           # special, or cut out of a text before the pattern acts
            assert (token.encode() if as_it_is else from_printable(token)) == tokenizer.all_bytes[id]
            assert (kind == 3) == (id in tokenizer.special.values())
            assert (kind == 4) == (name == 'ours' and b'\n' in tokenizer.all_bytes[id])
        assert get('ggml.pre') == ('gpt-2' if name in ('gpt2', 'possessive', 'byte') else 'llama-bpe')
        assert [get('ggml.bos_token_id'), get('ggml.eos_token_id'), get('ggml.eot_token_id')] == \
            [*tokenizer.begin, *tokenizer.stop]
        assert get('ggml.suppress_tokens') == tokenizer.never_in_answers()
        assert get('ggml.add_bos_token') == (name != 'ours')    # a run on conversations has none before them
        template = reader.get_field('tokenizer.chat_template')
        expected = hf_tokenizer.CHAT_TEMPLATE if name == 'ours' else None
        assert (template.contents() if template else None) == expected
