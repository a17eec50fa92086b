"""LoRA: only the adapters train, they start as nothing, merged they are the same model; and a real run."""
import pytest
import torch
from conftest import ok, run, same, series, state

from extras import lora
from model import GPT, GPTConfig

IDX = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
SHAPES = ({}, {'qkv_bias': True}, {'qk_norm': True, 'head_dim': 16},        # Llama, Qwen2, Qwen3
          {'tie_embeddings': False, 'vocab_multiple': 64})


@pytest.mark.parametrize('shape', SHAPES)
def test_only_adapters_train_from_the_base_bit_for_bit_and_merged_equals_unmerged(shape):
    torch.manual_seed(0)
    model = GPT(GPTConfig(50, 32, 2, 4, 2, 32, n_ffn=48, **shape))
    for p in model.parameters():
        torch.nn.init.normal_(p, float(p.dim() == 1), 0.2)
    plain = GPT(model.config)
    logits = model(IDX)[0].detach()
    lora.adapt(model, 4)
    assert torch.equal(model(IDX)[0], logits)               # B begins as 0
    before = {name: p.clone() for name, p in model.state_dict().items()}
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        opt.zero_grad()
        model(IDX[:, :-1], IDX[:, 1:])[1].backward()
        opt.step()
    weights = model.state_dict()
    changed = {name for name, p in weights.items() if not torch.equal(p, before[name])}
    assert changed == {name for name in weights if '.lora_' in name} and len(changed) == 28
    merged = lora.merged(weights)
    plain.load_state_dict(merged)
    with torch.no_grad():
        after = model(IDX)[0]
        assert (after - logits).abs().max() > 0.1                       # it has learned
        assert (plain(IDX)[0] - after).abs().max() < 2e-5 * after.abs().max()       # float32
        part, x = model.blocks[1].mlp.w_down, torch.randn(3, 48)            # the formula of the paper
        want = part.weight @ x.T + 16 / 4 * (part.lora_B @ (part.lora_A @ x.T))
        assert torch.allclose(part(x), want.T, atol=1e-5)
    assert merged['embedding.weight'] is weights['embedding.weight']    # the rest is shared, not copied
    assert same(lora.merged(merged), merged)                        # without adapters nothing changes


def test_a_run_learns_and_its_folder_holds_a_plain_model(sft_model, pairs, tmp_path):
    ok(run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={tmp_path}', '--lora=4',
           '--learning_rate=0.01', '--device=cpu', '--dtype=float32', '--max_steps=12', '--batch_size=8',
           '--eval_interval=12', '--sample_tokens=4'))
    losses = series(tmp_path, 'val_loss')           # dpo.py refuses a first one that is not ln 2
    assert losses[-1] < losses[0] - 0.05
    first, saved = GPT.load(sft_model).state_dict(), state(tmp_path)
    for weights in state(tmp_path, 'best.pt')['model'], saved['model']:
        changed = {key for key in weights if not torch.equal(weights[key], first[key])}
        assert changed and all('.w_' in key for key in changed)
        assert weights.keys() == first.keys()                               # a plain model
    assert same({key: saved['weights'][key] for key in first}, dict(first))     # the base is as it was
    assert same(lora.merged(saved['weights']), saved['model'])
