"""LoRA: only the adapters train, they start as nothing, merged they are the same model; and real runs."""
import torch
from conftest import ok, run, same, series, state
from test_model import lively

from extras import lora
from extras.muon import for_blocks
from model import GPT

IDX = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
SHAPES = ({}, {'qkv_bias': True}, {'qk_norm': True, 'head_dim': 16},        # Llama, Qwen2, Qwen3
          {'tie_embeddings': False, 'vocab_multiple': 64})


def base(**settings):
    return lively(**{'block_size': 32, 'n_kv_head': 2, **settings})


def test_with_B_0_it_is_the_base_bit_for_bit_and_else_the_formula_of_the_paper():
    model = base()
    logits = model(IDX)[0]
    lora.adapt(model, 4)
    assert torch.equal(model(IDX)[0], logits)
    part = model.blocks[1].mlp.w_down
    torch.nn.init.normal_(part.lora_B)
    x = torch.randn(3, 48)
    want = part.weight @ x.T + 16 / 4 * (part.lora_B @ (part.lora_A @ x.T))
    assert torch.allclose(part(x), want.T, atol=1e-5)


def test_merged_equals_unmerged_and_the_model_goes_on_unmerged():
    for shape in SHAPES:
        model, plain = base(**shape), base(**shape)
        logits = model(IDX)[0]
        lora.adapt(model, 4)
        before = {name: p.clone() for name, p in model.state_dict().items()}
        opt = for_blocks(model, lr=1e-2, weight_decay=0.1)
        for _ in range(3):
            opt.zero_grad()
            model(IDX[:, :-1], IDX[:, 1:])[1].backward()
            opt.step()
        weights = model.state_dict()
        changed = {name for name, p in weights.items() if not torch.equal(p, before[name])}
        assert changed == {name for name in weights if '.lora_' in name} and len(changed) == 28, shape
        merged = lora.merged(weights)
        plain.load_state_dict(merged)
        with torch.no_grad():
            after = model(IDX)[0]
            assert (after - logits).abs().max() > 0.1                       # it has learned
            assert (plain(IDX)[0] - after).abs().max() < 2e-5 * after.abs().max()       # float32
        assert merged['embedding.weight'] is weights['embedding.weight']    # the rest is shared, not copied
        assert same(lora.merged(merged), merged)                        # without adapters nothing changes


# --- real runs ----------------------------------------------------------------------------------------------
LORA = ['--lora=4', '--learning_rate=0.01', '--warmup_steps=2', '--log_interval=1', '--device=cpu',
        '--dtype=float32', '--max_steps=12', '--batch_size=8', '--eval_interval=6', '--save_interval=6',
        '--sample_tokens=4']


def test_a_run_learns_and_its_folder_holds_a_plain_model(sft_model, pairs, tmp_path):
    ok(run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={tmp_path}', *LORA))
    losses = series(tmp_path, 'val_loss')           # dpo.py refuses a first one that is not ln 2
    assert losses[-1] < losses[0] - 0.05
    first = GPT.load(sft_model).state_dict()
    for name in ('best.pt', 'last.pt'):
        weights = state(tmp_path, name)['model']
        changed = {key for key in weights if not torch.equal(weights[key], first[key])}
        assert changed and all('.w_' in key for key in changed)
        assert weights.keys() == first.keys()                               # a plain model
    saved = state(tmp_path)
    assert same({key: saved['weights'][key] for key in first}, dict(first))     # the base is as it was
    assert same(lora.merged(saved['weights']), saved['model'])
