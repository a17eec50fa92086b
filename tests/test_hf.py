"""Hugging Face's Llama and ours are one model: the same logits and greedy text, both ways, bit for bit."""
import json

import pytest
import torch

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint

safetensors = pytest.importorskip('safetensors.torch')
transformers = pytest.importorskip('transformers')
torch.set_num_threads(1)        # on tensors this small, threads only wait for one another

IDX = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def llama(tmp_path):
    """A random Llama whose every weight matters, in tmp_path/hf, config.json edited -> model, folder"""
    def llama(edit=None, shard='1GB', dtype=torch.float32, **settings):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**{**dict(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters={'rope_type': 'default', 'rope_theta': 500.0}, eos_token_id=None), **settings})
        model = transformers.LlamaForCausalLM(config).to(dtype).eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
        folder = tmp_path / 'hf'
        model.save_pretrained(folder, max_shard_size=shard)
        hf = json.loads((folder / 'config.json').read_text())
        (edit or (lambda hf: None))(hf)
        (folder / 'config.json').write_text(json.dumps(hf))
        return model, folder
    return llama


def ours(**settings):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**dict(vocab_size=96, block_size=64, n_layer=2, n_head=4, n_embd=32, n_ffn=48,
                                    rope_theta=500.0, norm_eps=1e-3), **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    return model.eval()


def same_logits(hf, model, atol=2e-5):
    with torch.no_grad():
        theirs, mine = hf(IDX).logits, model(IDX)[0]
    assert theirs.std() > 0.5 and (theirs - mine).abs().max() < atol


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('kv', [1, 2, 4])
def test_an_imported_llama_has_its_logits_and_its_greedy_text(llama, tied, kv):
    hf, folder = llama(tie_word_embeddings=tied, num_key_value_heads=kv)
    model = GPT.from_hf(folder)
    same_logits(hf, model)
    text = hf.generate(IDX[:, :5], attention_mask=torch.ones(3, 5), do_sample=False, max_new_tokens=40)
    assert torch.equal(text, model.generate(IDX[:, :5], 40, temperature=0))


def old_place(hf):
    hf.update(rope_theta=hf.pop('rope_parameters')['rope_theta'], rope_scaling=None)


def new_place(hf):
    assert hf['rope_parameters']['rope_theta'] == 500.0 and 'rope_theta' not in hf


@pytest.mark.parametrize('edit', [old_place, new_place])
def test_rope_theta_is_found_in_its_old_and_its_new_place(llama, edit):
    hf, folder = llama(edit)
    model = GPT.from_hf(folder)
    assert model.config.rope_theta == 500.0
    same_logits(hf, model)


def test_the_scaled_positions_of_llama_3_are_its_both_ways(llama, tmp_path):
    rope = dict(rope_type='llama3', rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=24)
    hf, folder = llama(rope_parameters=rope, num_attention_heads=2)
    model = GPT.from_hf(folder)
    same_logits(hf, model)
    assert not torch.equal(model.cos, GPT(GPTConfig(**{**vars(model.config), 'rope_scaling': ()})).cos)
    model.save_hf(tmp_path / 'again')
    same_logits(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'again').eval(), model)
    assert GPT.from_hf(tmp_path / 'again').config == model.config
    save_checkpoint(tmp_path / 'last.pt', model)
    same_logits(hf, load_checkpoint(tmp_path / 'last.pt')[0])


def test_keys_that_hugging_face_may_omit_have_its_defaults(llama):
    def minimal(hf):
        for key in ('rope_parameters', 'num_key_value_heads', 'tie_word_embeddings', 'head_dim', 'mlp_bias'):
            hf.pop(key)
    rope = {'rope_type': 'default', 'rope_theta': 10000.0}
    hf, folder = llama(minimal, rope_parameters=rope, num_key_value_heads=4)
    same_logits(hf, GPT.from_hf(folder))


def test_shards_and_bfloat16_are_read(llama):
    _, folder = llama(shard='10KB', dtype=torch.bfloat16)
    assert len(list(folder.glob('*.safetensors'))) > 2
    hf = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    same_logits(hf, GPT.from_hf(folder))


@pytest.mark.parametrize('settings', [
    dict(), dict(n_kv_head=2, tie_embeddings=False), dict(n_kv_head=1, rope_theta=1e6, n_head=2)])
def test_an_exported_model_is_the_same_in_transformers_and_comes_back_bit_for_bit(tmp_path, settings):
    model = ours(**settings)
    model.save_hf(tmp_path / 'hf')
    hf, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert type(hf) is transformers.LlamaForCausalLM and not any(report.values()), report
    same_logits(hf.eval(), model)
    back = GPT.from_hf(tmp_path / 'hf')
    assert back.config == model.config and back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(back.state_dict()[k], v) for k, v in model.state_dict().items())
    assert (back.head.weight.data_ptr() == back.embedding.weight.data_ptr()) == model.config.tie_embeddings


@pytest.mark.parametrize('key, change', [
    ('attention_bias', dict(attention_bias=True)), ('mlp_bias', dict(mlp_bias=True)),
    ('use_sliding_window', dict(use_sliding_window=True)), ('hidden_act', dict(hidden_act='gelu')),
    ('model_type', dict(model_type='gemma')), ('q_proj.bias', dict(model_type='qwen2')),
    ('q_proj.weight', dict(head_dim=16)),
    ('low_freq_factor', dict(rope_parameters=dict(rope_type='llama3', factor=8.0, rope_theta=5e5))),
    ('rope_type.*yarn', dict(rope_parameters=dict(rope_type='yarn', factor=8.0, rope_theta=5e5))),
    ('rope_type.*dynamic', dict(rope_parameters=None, rope_scaling=dict(rope_type='dynamic', factor=2.0))),
    ('rope.*dynamic', dict(rope_parameters=None, rope_scaling=dict(type='dynamic', factor=2.0)))])   # as once
def test_what_is_not_a_plain_llama_is_a_value_error_naming_the_key(llama, key, change):
    _, folder = llama(lambda hf: hf.update(change))
    with pytest.raises(ValueError, match=f'(config.json|safetensors).*{key}'):
        GPT.from_hf(folder)


@pytest.mark.parametrize('how, words', [
    ('missing', 'model.layers.1.mlp.up_proj.weight'), ('shape', 'up_proj'), ('cut', 'model.safetensors'),
    ('config', 'config.json.*hidden_size'), ('json', 'config.json'), ('no weights', 'hf')])
def test_a_damaged_folder_is_one_sentence_with_the_name_of_what_is_wrong(llama, how, words):
    folder, name = llama()[1], 'model.layers.1.mlp.up_proj.weight'
    path, config = folder / 'model.safetensors', folder / 'config.json'
    tensors = safetensors.load_file(path)
    if how in ('missing', 'shape'):
        tensors[name] = tensors[name][:-1].clone()
        safetensors.save_file({k: v for k, v in tensors.items() if how != 'missing' or k != name}, path)
    if how == 'cut':
        path.write_bytes(path.read_bytes()[:-100])
    if how == 'config':
        config.write_text(config.read_text().replace('hidden_size', 'other'))
    if how == 'json':
        config.write_text('{"model_')
    if how == 'no weights':
        path.unlink()
    with pytest.raises(ValueError, match=words) as e:
        GPT.from_hf(folder)
    assert '\n' not in str(e.value)
