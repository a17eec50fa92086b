"""The bases that people start from: the published shapes, shrunk in layers and widths, with random weights.
Each computes what transformers computes, trains, generates with a cache, and leaves as the same kind."""
import json

import pytest
import torch

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import optim, planner
from parts.sample import hf_model
from parts.sample.decoding import Batch

transformers = pytest.importorskip('transformers')
pytest.importorskip('safetensors')
torch.set_num_threads(1)

# config.json as published, but for sizes: widths / 8 or so, 2 layers, V = 96, T = 64; the ratios are theirs
SMOLLM2 = dict(
    architectures=['LlamaForCausalLM'], model_type='llama', attention_bias=False, attention_dropout=0.0,
    bos_token_id=0, eos_token_id=0, hidden_act='silu', hidden_size=72, initializer_range=0.041666666666666664,
    intermediate_size=192, is_llama_config=True, max_position_embeddings=64, mlp_bias=False,
    num_attention_heads=9, num_hidden_layers=2, num_key_value_heads=3, pretraining_tp=1, rms_norm_eps=1e-05,
    rope_interleaved=False, rope_scaling=None, rope_theta=100000, tie_word_embeddings=True,
    torch_dtype='bfloat16', use_cache=True, vocab_size=96)
TINYLLAMA = dict(
    architectures=['LlamaForCausalLM'], model_type='llama', bos_token_id=1, eos_token_id=2, hidden_act='silu',
    hidden_size=64, initializer_range=0.02, intermediate_size=176, max_position_embeddings=64,
    num_attention_heads=8, num_hidden_layers=2, num_key_value_heads=1, pretraining_tp=1, rms_norm_eps=1e-05,
    rope_scaling=None, tie_word_embeddings=False, torch_dtype='bfloat16', use_cache=True, vocab_size=96)
QWEN2 = dict(                   # 2.5: 896 wide, 14 heads of 64, 2 of them with keys; a bias in q, k and v
    architectures=['Qwen2ForCausalLM'], model_type='qwen2', attention_dropout=0.0, bos_token_id=0,
    eos_token_id=0, hidden_act='silu', hidden_size=112, initializer_range=0.02, intermediate_size=152,
    max_position_embeddings=64, max_window_layers=24, num_attention_heads=14, num_hidden_layers=2,
    num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=32, use_mrope=False,
    tie_word_embeddings=True, torch_dtype='bfloat16', use_cache=True, use_sliding_window=False, vocab_size=96)
QWEN3 = dict(                   # 0.6B: 1,024 wide, 16 heads of 128, so twice as wide; norms of q and k
    architectures=['Qwen3ForCausalLM'], model_type='qwen3', attention_bias=False, attention_dropout=0.0,
    bos_token_id=0, eos_token_id=1, head_dim=16, hidden_act='silu', hidden_size=64, initializer_range=0.02,
    intermediate_size=96, max_position_embeddings=64, max_window_layers=28, num_attention_heads=8,
    num_hidden_layers=2, num_key_value_heads=4, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000,
    sliding_window=None, tie_word_embeddings=True, torch_dtype='bfloat16', use_cache=True,
    use_sliding_window=False, vocab_size=96)
BASES = {'SmolLM2': SMOLLM2, 'TinyLlama': TINYLLAMA, 'Qwen2.5': QWEN2, 'Qwen3': QWEN3,
         'Qwen2.5, 3B and up: untied': {**QWEN2, 'tie_word_embeddings': False},
         'a Llama with wide heads': {**SMOLLM2, 'head_dim': 16}}
IDX = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(0))


def published(config, folder):
    """A model of transformers in which each weight matters, in a folder; config.json is as published."""
    torch.manual_seed(0)
    config.pop('torch_dtype', None)
    (folder / 'config.json').write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / 'config.json').write_text(json.dumps(config))
    return model.float().eval()


@pytest.fixture(scope='module', params=BASES)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('base')
    return published(dict(BASES[request.param]), folder), folder


def same_logits(theirs, ours, atol=2e-5):
    with torch.no_grad():
        a, b = theirs(IDX).logits, ours(IDX)[0]
    assert a.std() > 0.3 and (a - b).abs().max() < atol * max(1, a.abs().max()), (a - b).abs().max()


def test_its_logits_and_its_greedy_text_are_those_of_transformers(base):
    theirs, folder = base
    ours = GPT.from_hf(folder).eval()
    same_logits(theirs, ours)
    text = theirs.generate(IDX[:, :5], attention_mask=torch.ones(3, 5), do_sample=False, max_new_tokens=40,
                           eos_token_id=None, pad_token_id=0)
    assert torch.equal(text, ours.generate(IDX[:, :5], 40, temperature=0))      # with a cache


def test_it_leaves_as_the_same_kind_and_comes_back_bit_for_bit(base, tmp_path):
    theirs, folder = base
    ours = GPT.from_hf(folder)
    ours.save_hf(tmp_path)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(theirs) and not any(report.values()), report
    assert again.config.head_dim == theirs.config.head_dim if hasattr(theirs.config, 'head_dim') else True
    same_logits(again.eval(), ours)
    back = GPT.from_hf(tmp_path)
    assert back.config == ours.config
    assert all(torch.equal(back.state_dict()[k], v) for k, v in ours.state_dict().items())
    save_checkpoint(tmp_path / 'last.pt', ours)
    assert load_checkpoint(tmp_path / 'last.pt')[0].config == ours.config
    grown = ours.grown(99).like(dropout=0.1).eval()
    assert torch.equal(grown(IDX)[0][..., :96], ours.eval()(IDX)[0])


def test_the_planner_counts_its_parameters_and_no_bias_or_norm_decays(base):
    ours = GPT.from_hf(base[1])
    count = planner.count_parameters(vars(ours.config))
    assert count['total'] == sum(p.numel() for p in ours.parameters())
    assert count['per block'] == sum(p.numel() for p in ours.blocks[0].parameters())
    for kind in ('adamw', 'muon'):
        groups = [g for o in optim.build(ours, kind, 1e-3, (0.9, 0.95), 0.1) for g in o.param_groups]
        decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
        assert all(decay[id(p)] == (0.1 if p.dim() == 2 else 0.0) for p in ours.parameters())
        assert len(decay) == len(list(ours.parameters()))


def test_its_answers_in_a_batch_are_its_greedy_text(base):
    ours = GPT.from_hf(base[1])
    batch = Batch(ours, {999}, slots=2)
    answers = [batch.add(ids, 8, None, temperature=0) for ids in IDX[:, :5].tolist()]
    while batch.queue or batch.live:
        batch.step()
    assert [answer.ids for answer in answers] == ours.generate(IDX[:, :5], 8, temperature=0)[:, 5:].tolist()


@pytest.mark.parametrize('config, change, words', [
    (QWEN2, dict(use_sliding_window=True), 'use_sliding_window=True'),
    (QWEN3, dict(attention_bias=True), 'attention_bias=True'),
    (QWEN3, dict(model_type='qwen3_moe'), 'qwen3_moe'),
    (QWEN2, dict(rope_scaling=dict(type='yarn', factor=4.0)), 'yarn'),
    (SMOLLM2, dict(model_type='smollm3'), 'smollm3'), (SMOLLM2, dict(model_type='gemma3'), 'gemma3'),
    (SMOLLM2, dict(rope_interleaved=True), 'rope_interleaved'),
    (SMOLLM2, dict(quantization_config=dict(quant_method='fp8')), 'quantization_config=.*fp8')])
def test_a_feature_that_we_do_not_have_is_refused_by_name(config, change, words, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=f'config.json.*{words}') as e:
        GPT.from_hf(tmp_path)
    assert '\n' not in str(e.value)


def test_a_model_that_is_neither_kind_does_not_leave(tmp_path):
    model = GPT(GPTConfig(96, 64, 1, 2, 0, 16, qkv_bias=True, qk_norm=True))
    with pytest.raises(ValueError, match='qkv_bias and qk_norm'):
        model.save_hf(tmp_path)


def test_an_older_checkpoint_lacks_these_fields_and_loads(tmp_path):
    model = GPT(GPTConfig(96, 64, 1, 2, 0, 16))
    save_checkpoint(tmp_path / 'last.pt', model)
    state = torch.load(tmp_path / 'last.pt', weights_only=True)
    for name in ('head_dim', 'qkv_bias', 'qk_norm'):
        del state['model_config'][name]
    torch.save(state, tmp_path / 'old.pt')
    assert load_checkpoint(tmp_path / 'old.pt')[0].config == model.config
    config = dict(vars(model.config), vocab_size=5)
    del config['head_dim'], config['qkv_bias'], config['qk_norm']
    assert len(hf_model.layout(config)) == 11
