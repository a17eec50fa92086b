"""GGUF files: read as llama.cpp's package writes them, and written as transformers reads them."""
import dataclasses
import json
import os
import pathlib
import re
import sys

import pytest
import torch
from accidents import full_disk
from conftest import contents, mistake, ok, run, same, save_run, table
from test_hf_model import BASES, BYTES, LLAMA, SMOL, SOURCE, published, same_logits, theirs_in
from test_model import lively
from test_templates import ids_of, said

from extras.models import hf_model, hf_tokenizer
from extras.training import tokenizer_report
from model import GPT
from tokenizer import Tokenizer, from_printable

gguf = pytest.importorskip('gguf')
safetensors = pytest.importorskip('safetensors.torch')
tokenizers = pytest.importorskip('tokenizers')
transformers = pytest.importorskip('transformers')
theirs_of = transformers.AutoTokenizer.from_pretrained
load_gguf_checkpoint = pytest.importorskip(
    'transformers.modeling_gguf_pytorch_utils').load_gguf_checkpoint

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason='transformers asks for the '
                                'version of gguf, which Python 3.10 does not find')

# llama.cpp's names of parts
PARTS = '''
input_layernorm attn_norm
post_attention_layernorm ffn_norm
self_attn.o_proj attn_output
self_attn. attn_
mlp. ffn_
_proj\x20
model.embed_tokens token_embd
model.layers blk
model.norm output_norm
lm_head output'''
# its names of settings, and those of transformers
SETTINGS = '''
context_length max_position_embeddings
block_count num_hidden_layers
embedding_length hidden_size
feed_forward_length intermediate_size
attention.head_count num_attention_heads
attention.head_count_kv num_key_value_heads
attention.layer_norm_rms_epsilon rms_norm_eps'''
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TRAINED = Tokenizer.train(SOURCE, 403, SPECIAL)
TEXT = "  it's 1234  56\r\n\tdef f(é, 漢):\n\n    return x <think>HE'LL ½"
SIZES = {'hidden_size': 64, 'intermediate_size': 96, 'num_attention_heads': 8,
         'num_key_value_heads': 2, 'vocab_size': 440, 'tie_word_embeddings': False}
CASES = {'SmolLM2': 'smollm', 'Qwen2.5': 'qwen2', 'Qwen3': 'gpt-2', 'Llama 3.1': 'llama-bpe'}


def write_file(path, model, pre='gpt-2', more=(), extra=()):
    """The file that llama.cpp's converter makes of a model of transformers, with matrices in Q8_0
    and F16, and this pre-tokenizer, and more fields and tensors. Return the weights in it."""
    c = model.config
    n, family, rope = c.vocab_size - 404, c.model_type, c.rope_parameters
    D = model.model.layers[0].self_attn.head_dim
    vocab = [*TRAINED.to_json()['vocab']]
    its = {key: getattr(c, name) for key, name in table(SETTINGS, ' ')}
    its |= {'attention.key_length': D, 'rope.freq_base': float(rope['rope_theta']),
            'rope.scaling.original_context_length': 32}
    fields = {f'{family}.{key}': value for key, value in its.items()} | {
        'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre,
        'tokenizer.ggml.tokens': [*vocab, *SPECIAL, '<think>', *(f'[PAD{i}]' for i in range(n))],
        'tokenizer.ggml.token_type': [1] * 400 + [3] * 3 + [4] + [5] * n,
        'tokenizer.ggml.merges': [*map(' '.join, hf_tokenizer.merges_of(vocab))],
        'tokenizer.ggml.add_bos_token': False, 'tokenizer.ggml.bos_token_id': 401,
        'tokenizer.ggml.eos_token_id': 402,
        'tokenizer.chat_template': SMOL} | dict(more)
    writer = gguf.GGUFWriter(path, family)
    for key, value in fields.items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    weights = {}
    for name, tensor in model.state_dict().items():
        kind = 'F32' if tensor.ndim == 1 else 'F16' if 'attn' in name else 'Q8_0'
        kind = gguf.GGMLQuantizationType[kind]
        data = gguf.quantize(tensor.numpy(), kind)
        weights[name] = torch.tensor(gguf.dequantize(data, kind))
        if family == 'llama' and name.endswith(('q_proj.weight', 'k_proj.weight')):
            # rows 0, D/2, 1, D/2 + 1, ... of each head
            data = data[[head + row for head in range(0, len(data), D)
                         for i in range(D // 2) for row in (i, i + D // 2)]]
        for theirs, ours in table(PARTS, ' '):
            name = name.replace(theirs, ours)
        writer.add_tensor(name, data, raw_dtype=kind)
    if rope['rope_type'] == 'llama3':
        plain = rope['rope_theta'] ** (-torch.arange(0, D, 2) / D)
        writer.add_tensor('rope_freqs.weight', (plain / model.model.rotary_emb.inv_freq).numpy())
    for name in extra:
        writer.add_tensor(name, torch.arange(1.0, 5.0).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize('name', CASES)
def test_a_file_becomes_the_folder_that_it_was_made_of_and_comes_back(out, tmp_path, name):
    """With the logits, ids and chats of transformers; only rows of q and k of a Llama moved."""
    pre = CASES[name]
    model = published(tmp_path / 'in', BASES[name] | SIZES)
    weights = write_file(tmp_path / 'a.gguf', model, pre)
    ok(run('extras.models.gguf', 'a.gguf', '--out=out', cwd=tmp_path))
    assert same(safetensors.load_file(tmp_path / 'out/model.safetensors'), weights)
    model.load_state_dict(weights)
    same_logits(model, GPT.load(out))
    same_logits(theirs_in(out), GPT.load(out))

    ours, theirs = Tokenizer.load(tmp_path / 'out/tokenizer.json'), theirs_of(out)
    assert 'You are "Smol' in ours.template and ours.stop == [402]
    assert ours.render(said(TEXT), True)[0] == ids_of(theirs, said(TEXT), True)
    peer = theirs_of(tmp_path, gguf_file='a.gguf')
    if pre == 'smollm':         # transformers leaves out that each digit is cut out first
        parts = tokenizers.pre_tokenizers
        peer.backend_tokenizer.pre_tokenizer = parts.Sequence(
            [parts.Digits(True), parts.ByteLevel(add_prefix_space=False)])
    assert ours.encode(TEXT) == peer(TEXT, add_special_tokens=False)['input_ids']
    assert ours.encode('<|im_end|><think>')[-1] == 403 and ours.decode(ours.encode(TEXT)) == TEXT

    ok(run('extras.models.export', '--ckpt=out --to=gguf --out=b.gguf', cwd=tmp_path))
    ok(run('extras.models.gguf', 'b.gguf', '--out=again', cwd=tmp_path))
    assert contents(out) == contents(tmp_path / 'again')


# A field that is odd, or a tensor too much => what is said of it
ODD = '''
{"general.architecture": "gemma3"} => gemma3 is none of
{"tokenizer.ggml.model": "llama"} => its tokenizer is llama
{"tokenizer.ggml.pre": "tekken"} => its pre-tokenizer tekken
{"split.count": 2} => one of 2 parts; join them: llama-gguf-split --merge
{"general.type": "adapter"} => of the type adapter
{"llama.rope.scaling.type": "yarn"} => RoPE of the kind yarn
{"llama.rope.dimension_count": 4} => turns 4 of 8
["rope_freqs.weight"] => rope_freqs.weight is not
["blk.0.attn_q.bias"] => no blk.0.attn_q.bias
{"llama.block_count": 3} => blk.2.'''


def test_what_model_py_cannot_be_or_is_cut_off_is_refused_by_name_and_leaves_nothing(tmp_path):
    model, path = published(tmp_path / 'in', LLAMA | SIZES), tmp_path / 'a.gguf'
    read = lambda *flags: run('extras.models.gguf', 'a.gguf', *flags, cwd=tmp_path)
    for odd, words in table(ODD):
        odd = json.loads(odd)
        write_file(path, model, **{'more' if isinstance(odd, dict) else 'extra': odd})
        mistake(read('--out=out'), 'a.gguf cannot be read', words)
    data = path.read_bytes()
    for broken in data[:-9000], data[:300], b'{}', b'', b'version https://git-lfs.github.com/spec/v1':
        path.write_bytes(broken)
        mistake(read('--out=out'), 'cannot be read')
    mistake(read(), '--out=FOLDER')
    mistake(read('--out=in'), '--out=in is there')
    assert not [*tmp_path.glob('out*')]


# --- our own runs as files ------------------------------------------------------------------------
TOKENIZERS = {'ours': Tokenizer.train(SOURCE, 600), 'byte': BYTES,
              'cl100k': Tokenizer.train(SOURCE, 600, pattern=tokenizer_report.PATTERNS['cl100k'])}


def as_theirs(path, hf):
    """What transformers makes of a file's weights and config, next to a folder with the same."""
    model = theirs_in(hf)
    found = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
    weights = {name: torch.as_tensor(array) for name, array in found['tensors'].items()}
    return weights, found['config'], model


@pytest.mark.parametrize('name', TOKENIZERS)
def test_transformers_finds_our_weights_and_ids_in_a_gguf_file_and_its_marks_are_ours(
        name, tmp_path):
    """Bit for bit. The run `ours` was trained on chats. On a full disk the old file stays."""
    tokenizer, is_chat = TOKENIZERS[name], name == 'ours'
    scaling = {'byte': (8., 1., 4., 24.), 'cl100k': (4.,)}.get(name, ())      # Llama 3.1's; linear
    model = lively(0.3, vocab_size=tokenizer.vocab_size, n_kv_head=2, rope_scaling=scaling,
                   tie_embeddings=name == 'byte')
    out, path = tmp_path / 'run', tmp_path / 'model-f32.gguf'
    save_run(out, model, tokenizer, config={'stage': 'sft'} if is_chat else {})
    export = lambda **how: run('extras.models.export', f'--to=gguf --ckpt={out}', **how)
    assert ("pattern=PATTERNS['cl100k']" in ok(export())) == is_chat
    before = (out / path.name).read_bytes()
    assert export(before=full_disk(30_000)).returncode == 1
    assert (out / path.name).read_bytes() == before
    (out / path.name).rename(path)

    hf_model.write(tmp_path / 'hf', *hf_model.translated(model))
    weights, config, theirs = as_theirs(path, tmp_path / 'hf')
    assert same(weights, safetensors.load_file(tmp_path / 'hf/model.safetensors'))
    wanted = theirs.config.to_dict() | {
        'rms_norm_eps': pytest.approx(1e-6), 'rope_theta': 10000.0,
        'bos_token_id': tokenizer.begin[0], 'eos_token_id': tokenizer.stop[0]}
    assert config == {key: wanted[key] for key in config}
    if name != 'byte':          # theirs insists on merges
        ids = tokenizer.encode('def f(é, 漢):')
        assert theirs_of(tmp_path, gguf_file=path.name)('def f(é, 漢):')['input_ids'] == (
            [] if is_chat else tokenizer.begin) + ids

    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f'tokenizer.ggml.{key}'].contents()
    for id, (token, kind) in enumerate(zip(get('tokens'), get('token_type'))):
        as_it_is = kind in (3, 4)           # special, or cut out of a text before the pattern acts
        assert (token.encode() if as_it_is else from_printable(token)) == tokenizer.all_bytes[id]
        assert (kind == 3) == (id in tokenizer.special.values())
        assert (kind == 4) == (is_chat and b'\n' in tokenizer.all_bytes[id])
    assert get('pre') == ('gpt-2' if name == 'byte' else 'llama-bpe')
    assert get('suppress_tokens') == tokenizer.suppressed_tokens()
    assert get('eot_token_id') == tokenizer.stop[1]
    assert ('tokenizer.chat_template' in fields) == is_chat

    ok(run('extras.models.gguf', path, f'--out={tmp_path}/again'))         # with its rope_scaling
    config = dataclasses.replace(model.config, vocab_multiple=1)
    assert GPT.load(tmp_path / 'again').config == config


# --- a real file ----------------------------------------------------------------------------------
def test_a_real_file_has_the_weights_ids_and_logits_of_transformers(tmp_path):
    """Of SmolLM2-135M-Instruct, for example: docs/real.md says where to get it."""
    path = pathlib.Path(os.environ.get('NANOPARROT_GGUF', ''))
    if not path.is_file():
        pytest.skip('NANOPARROT_GGUF names no file')
    ok(run('extras.models.gguf', path, f'--out={tmp_path}/real'))
    weights, config, theirs = as_theirs(path, tmp_path / 'real')
    assert same(weights, safetensors.load_file(tmp_path / 'real/model.safetensors'))
    assert config['rope_theta'] == theirs.config.rope_parameters['rope_theta']
    ours, tokenizer = GPT.load(tmp_path / 'real'), Tokenizer.load(tmp_path / 'real/tokenizer.json')
    chat, peer = said('What is a parrot?'), theirs_of(path.parent, gguf_file=path.name)
    ids = tokenizer.render(chat, True)[0]
    assert ids == ids_of(peer, chat, True)
    text = re.sub(r'\d', '', SOURCE)        # transformers cuts SmolLM2's digits in another way
    assert tokenizer.encode(text) == peer(
        text, add_special_tokens=False, split_special_tokens=True)['input_ids']
    idx = torch.tensor([ids])
    with torch.no_grad():
        a, b = theirs(idx).logits, ours.eval()(idx)[0]
    assert (a - b).abs().max() < 1e-5 * a.abs().max()
