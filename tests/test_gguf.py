"""A GGUF file holds the model bit for bit, with the rows of q and k in llama.cpp's order, as the package gguf
reads it."""
import numpy as np
import pytest
import torch
from conftest import mistake, ok, run

from model import GPT, GPTConfig, save_checkpoint
from parts.sample import gguf_file
from tokenizer import SPECIAL_TOKENS, Tokenizer

gguf = pytest.importorskip('gguf')
SOURCE = open(__file__, encoding='utf-8').read()
TOKENIZERS = {'ours': Tokenizer.train(SOURCE, 600), 'byte': Tokenizer.byte(SPECIAL_TOKENS),
              **{name: Tokenizer.train(SOURCE, 600, pattern=pattern)
                 for name, pattern in gguf_file.PATTERNS.items()}}
TENSORS = {'norm_1': 'attn_norm', 'attention.w_q': 'attn_q', 'attention.w_k': 'attn_k',
           'attention.w_v': 'attn_v', 'attention.w_o': 'attn_output', 'norm_2': 'ffn_norm',
           'mlp.w_gate': 'ffn_gate', 'mlp.w_up': 'ffn_up', 'mlp.w_down': 'ffn_down'}


def a_run(folder, tokenizer, objective='clm', **settings):
    """The folder of a run, with random weights."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**dict(vocab_size=tokenizer.vocab_size, block_size=64, n_layer=2, n_head=4,
                                    n_kv_head=2, n_embd=64, n_ffn=96, vocab_multiple=64), **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.3)
    folder.mkdir()
    tokenizer.save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'best.pt', model, tokenizer_hash=tokenizer.hash,
                    config={'objective': objective})
    return model


def exported(tmp_path_factory):
    """{name: (model, tokenizer, reader)}; ours was trained on conversations."""
    made = {}
    for name, tokenizer in TOKENIZERS.items():
        folder = tmp_path_factory.mktemp('gguf') / name
        model = a_run(folder, tokenizer, tie_embeddings=name == 'byte')
        state = {'config': {'stage': 'sft'}} if name == 'ours' else {}
        said = gguf_file.write(folder, model, tokenizer, 'gguf', state)
        assert ('--pattern=cl100k' in said) == (name == 'ours'), said
        made[name] = model, tokenizer, gguf.GGUFReader(folder / 'model-f32.gguf')
    return made


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return exported(tmp_path_factory)


def expected(model):
    """{name in the file: weights of ours}"""
    weights = dict(model.state_dict())
    V = model.config.vocab_size
    found = {'token_embd': weights['embedding.weight'][:V], 'output_norm': weights['norm.weight']}
    if not model.config.tie_embeddings:
        found['output'] = weights['head.weight'][:V]
    for i in range(model.config.n_layer):
        for ours, theirs in TENSORS.items():
            found[f'blk.{i}.{theirs}'] = weights[f'blocks.{i}.{ours}.weight']
    return {f'{name}.weight': w.numpy() for name, w in found.items()}


def halves_again(array, D=16):
    """Row by row: what llama.cpp turns as the pair 2i, 2i + 1 of a head, we turn as i, i + D/2."""
    back = np.empty_like(array)
    for row in range(len(array)):
        head, j = divmod(row, D)
        back[head * D + j // 2 + (j % 2) * D // 2] = array[row]
    return back


@pytest.mark.parametrize('name', ['ours', 'byte'])
def test_tensors_are_equal_bit_for_bit_with_q_and_k_turned_back(runs, name):
    model, _, reader = runs[name]
    wanted, found = expected(model), {t.name: t.data for t in reader.tensors}
    assert found.keys() == wanted.keys() and len(found) == 2 + (name == 'ours') + 9 * 2
    for key, w in wanted.items():
        turned = 'attn_q' in key or 'attn_k' in key
        assert np.array_equal(halves_again(found[key]) if turned else found[key], w), key
        assert not turned or not np.array_equal(found[key], w)
    sizes = {'head_count': 4, 'head_count_kv': 2, 'key_length': 16, 'value_length': 16}
    assert all(reader.get_field(f'llama.attention.{key}').contents() == n for key, n in sizes.items())
    assert reader.get_field('llama.context_length').contents() == 64


@pytest.mark.parametrize('kind, close', [('gguf-f16', 2 ** -11), ('gguf-q8_0', 1 / 254 + 2 ** -11)])
def test_smaller_types_differ_by_half_a_step_at_most(runs, tmp_path, kind, close):
    model, tokenizer, _ = runs['cl100k']
    gguf_file.write(tmp_path, model, tokenizer, kind, {})
    path, = tmp_path.iterdir()
    assert path.name == f'model-{kind[5:]}.gguf'
    wanted = expected(model)
    for tensor in gguf.GGUFReader(path).tensors:
        w = wanted[tensor.name]
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
        if w.ndim == 1:
            assert np.array_equal(array, w)
            continue
        back = halves_again(array) if 'attn_q' in tensor.name or 'attn_k' in tensor.name else array
        size = np.abs(w.reshape(-1, 32))                # of blocks; q8_0's step is that of their largest
        size = size.max(1, keepdims=True) if 'q8' in kind else size
        assert (np.abs(back - w).reshape(-1, 32) <= size * close + 1e-7).all(), tensor.name


def test_llama_3_s_frequencies_are_divided_by_the_numbers_in_the_file(tmp_path):
    model = a_run(tmp_path / 'run', TOKENIZERS['byte'], rope_scaling=(8., 1., 4., 24.), rope_theta=500.)
    gguf_file.write(tmp_path / 'run', model, TOKENIZERS['byte'], 'gguf', {})
    reader = gguf.GGUFReader(tmp_path / 'run/model-f32.gguf')
    found, = (t.data for t in reader.tensors if t.name == 'rope_freqs.weight')
    assert found[0] < 1.1 and found[-1] == pytest.approx(8, rel=1e-4) and (np.diff(found) > -1e-5).all()
    angle = 5 * 500. ** (-np.arange(0, 16, 2) / 16) / found
    assert np.allclose(np.cos(angle), model.cos[5], atol=1e-5)
    assert np.allclose(np.sin(angle), model.sin[5], atol=1e-5)
    of_qwen = a_run(tmp_path / 'qwen', TOKENIZERS['byte'], rope_scaling=(8., 1., 4., 24.), qk_norm=True)
    with pytest.raises(ValueError, match="Llama 3.1's rope_scaling"):      # llama.cpp could not load it
        gguf_file.write(tmp_path / 'qwen', of_qwen, TOKENIZERS['byte'], 'gguf', {})
    of_qwen = a_run(tmp_path / 'linear', TOKENIZERS['byte'], rope_scaling=(8.,), qk_norm=True)
    assert 'model-f32' in gguf_file.write(tmp_path / 'linear', of_qwen, TOKENIZERS['byte'], 'gguf', {})


def test_the_command_writes_it_and_what_cannot_be_is_one_sentence(tmp_path):
    model = a_run(tmp_path / 'run', TOKENIZERS['cl100k'])
    export = f'--ckpt={tmp_path}/run', '--export=gguf'
    assert 'model-f32.gguf' in ok(run('sample.py', *export))
    before = (tmp_path / 'run/model-f32.gguf').read_bytes()
    full = 'import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); ' \
           'resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))'
    mistake(run('sample.py', *export, before=full), 'cannot write', 'model-f32.gguf', 'unchanged')
    assert (tmp_path / 'run/model-f32.gguf').read_bytes() == before and not list(tmp_path.rglob('*.tmp'))
    mistake(run('sample.py', *export, before="sys.modules['gguf'] = None"), 'pip install gguf')
    mistake(run('sample.py', export[0], '--export=gguf-q4'), 'gguf-q8_0')
    with pytest.raises(ValueError, match='byte-level BPE'):
        gguf_file.write(tmp_path, model, Tokenizer.char('abc'), 'gguf', {})
    GPT(GPTConfig(600, 64, 1, 2, 0, 16)).save_hf(tmp_path / 'theirs', TOKENIZERS['cl100k'])
    export = run('sample.py', f'--ckpt={tmp_path}/theirs', '--export=gguf')
    mistake(export, '--export=hf', 'convert_hf_to_gguf.py')
    a_run(tmp_path / 'mlm', TOKENIZERS['byte'], causal=False)
    mistake(run('sample.py', f'--ckpt={tmp_path}/mlm', '--export=gguf'), 'causal=False')
    a_run(tmp_path / 'span', TOKENIZERS['byte'], 'span')
    for kind in 'gguf', 'hf':
        mistake(run('sample.py', f'--ckpt={tmp_path}/span', f'--export={kind}'), '=span fills gaps')
    assert not [*(tmp_path / 'span').glob('hf*'), *(tmp_path / 'span').glob('model*')]
