"""GGUF files: written as transformers reads them, and refused where a model is read."""
import sys
from pathlib import Path

import pytest
import torch
from accidents import full_disk
from conftest import (contents, fill, mistake, ok, read_json, refused, run, same, save_run, with_each,
                      write)
from test_hf_model import BASES, BYTES, SMOL, SOURCE, published, theirs_in
from test_model import lively

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

SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TRAINED = Tokenizer.train(SOURCE, 403, SPECIAL)
TEXT = "  it's 1234  56\r\n\tdef f(é, 漢):\n\n    return x <think>HE'LL ½"
# llama.cpp's name of a split pattern, and the patterns
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
PATTERNS = {'gpt-2': [], 'smollm': [r'\p{N}'], 'qwen2': [WORDS.replace('{1,3}', '')], 'llama-bpe': [WORDS]}
CASES = {'SmolLM2': 'smollm', 'Qwen2.5': 'qwen2', 'Qwen3': 'gpt-2', 'Llama 3.1': 'llama-bpe'}


@with_each('name', CASES)
def test_a_published_model_becomes_a_file_with_its_weights_ids_and_chats(out, tmp_path, name):
    """As transformers reads the folder and the file."""
    pre = CASES[name]
    published(out, BASES[name] | {'vocab_size': 440, 'hidden_size': 64, 'num_attention_heads': 8,
                                  'num_key_value_heads': 2})
    hf_tokenizer.write(out, TRAINED, 64)
    spec = read_json(out / 'tokenizer.json')
    split = {'type': 'Split', 'behavior': 'Isolated', 'invert': False}
    spec['pre_tokenizer']['pretokenizers'] = [
        *(split | {'pattern': {'Regex': pattern}} for pattern in PATTERNS[pre]),
        {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True,
         'use_regex': pre in ('gpt-2', 'smollm')}]
    think = spec['added_tokens'][-1] | {'id': 403, 'content': '<think>', 'special': False}
    spec['added_tokens'].append(think)
    write(out / 'tokenizer.json', [spec])
    settings = read_json(out / 'tokenizer_config.json')
    write(out / 'tokenizer_config.json', [settings | {'chat_template': SMOL}])
    ok(run('extras.models.export --ckpt=out --to=gguf --out=a.gguf'))

    weights, _, theirs = as_theirs('a.gguf', out)
    wanted = theirs.state_dict()
    assert wanted.keys() - weights.keys() <= {'lm_head.weight'}
    assert same(weights, {key: wanted[key] for key in weights})
    fields = gguf.GGUFReader('a.gguf').fields
    get = lambda key: fields[f'tokenizer.{key}'].contents()
    assert get('ggml.pre') == pre and get('chat_template') == SMOL
    assert get('ggml.tokens')[400:405] == [*SPECIAL, '<think>', '[PAD404]']
    assert get('ggml.token_type')[399:405] == [1, 3, 3, 3, 4, 5]
    peer = theirs_of(tmp_path, gguf_file='a.gguf')
    if pre == 'smollm':         # transformers omits that each digit is split off first
        parts = tokenizers.pre_tokenizers
        peer.backend_tokenizer.pre_tokenizer = parts.Sequence(
            [parts.Digits(True), parts.ByteLevel(add_prefix_space=False)])
    ids = Tokenizer.load(out / 'tokenizer.json').encode(TEXT)
    assert ids == peer(TEXT, add_special_tokens=False)['input_ids'] and 403 in ids


def test_a_gguf_file_is_refused_in_a_sentence_that_says_what_to_download():
    """Whether it is whole, one part of several, or damaged, and in ollama, whose files have no
    suffix; also a folder with nothing else."""
    words = 'a GGUF file is not read: download the Hugging Face folder it was made from'
    save_run('run', lively(vocab_size=BYTES.vocab_size), BYTES)
    ok(run('extras.models.export --ckpt=run --to=gguf --out=new/whole.gguf'))
    data = contents('new')['whole.gguf']
    files = {'whole.gguf': data, 'm-00001-of-00002.gguf': data[:len(data) // 2],
             'cut.gguf': data[:20], 'empty.gguf': b'', 'sha256-4d2396b1': data}
    fill(files)
    for name in files:
        refused(words, GPT.load, name)
        refused(words, hf_model.read, Path(name))
    refused(words, GPT.load, 'new')
    for command in 'sample.py --ckpt=sha256-4d2396b1', 'dpo.py --init_from=m-00001-of-00002.gguf':
        mistake(run(command), command.split('=')[1], words)


# --- our own runs as files ------------------------------------------------------------------------
TOKENIZERS = {'ours': Tokenizer.train(SOURCE, 600), 'byte': BYTES,
              'cl100k': Tokenizer.train(SOURCE, 600, pattern=tokenizer_report.PATTERNS['cl100k'])}


def as_theirs(path, hf):
    """What transformers makes of a file's weights and config, next to a folder with the same."""
    model = theirs_in(hf)
    found = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
    weights = {name: torch.as_tensor(array) for name, array in found['tensors'].items()}
    return weights, found['config'], model


@with_each('name', TOKENIZERS)
def test_transformers_finds_our_weights_and_ids_in_a_gguf_file_and_its_marks_are_ours(
        name, tmp_path):
    """Bit for bit. The run `ours` was trained on chats. On a full disk the old file stays."""
    tokenizer, is_chat = TOKENIZERS[name], name == 'ours'
    scaling = (8., 1., 4., 24.) if name == 'byte' else ()       # as of Llama 3.1
    model = lively(0.3, vocab_size=tokenizer.vocab_size, n_kv_head=2, rope_scaling=scaling,
                   tie_embeddings=name == 'byte')
    out, path = tmp_path / 'run', tmp_path / 'model-f32.gguf'
    save_run(out, model, tokenizer, config={'stage': 'sft'} if is_chat else {})
    export = lambda **how: run(f'extras.models.export --to=gguf --ckpt={out}', **how)
    assert ("pattern=PATTERNS['cl100k']" in ok(export())) == is_chat
    before = (out / path.name).read_bytes()
    assert export(before=full_disk(30_000)).returncode == 1
    assert (out / path.name).read_bytes() == before
    (out / path.name).rename(path)

    hf_model.write('hf', *hf_model.translated(model))
    weights, config, theirs = as_theirs(path, 'hf')
    assert same(weights, safetensors.load_file('hf/model.safetensors'))
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

    rope = {key.removeprefix('llama.rope.'): field.contents() for key, field in fields.items()
            if key.startswith('llama.rope.scaling')}
    assert rope == ({'scaling.original_context_length': 24} if name == 'byte' else {})
    model.config.rope_scaling = 4.,
    save_run(out, model, tokenizer)
    mistake(export(), "llama with rope_scaling=(4.0,) isn't supported", 'convert_hf_to_gguf.py')
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in gguf.GGUFReader(path).tensors}
    assert ('rope_freqs.weight' in tensors) == (name == 'byte')
    if name == 'byte':          # Llama 3.1's four numbers
        D = model.config.head_dim
        plain = model.config.rope_theta ** (-torch.arange(0, D, 2) / D)
        wanted = plain / theirs.model.rotary_emb.inv_freq
        assert torch.allclose(tensors['rope_freqs.weight'], wanted) and wanted.max() > 1
