"""LoRA: only the adapters train, they start as nothing, merged they are the same model; and real runs."""
import math

import pytest
import torch
from conftest import ok, refused, run, series
from test_model import lively

from model import load_checkpoint
from parts.model import adapters
from parts.train import optim

IDX = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
SHAPES = ({}, {'qkv_bias': True}, {'qk_norm': True, 'head_dim': 16},        # Llama, Qwen2, Qwen3
          {'tie_embeddings': False, 'vocab_multiple': 64})


def base(**settings):
    return lively(**{'block_size': 32, 'n_kv_head': 2, **settings})


def step(model, kind='adamw'):
    optimizers = optim.build(model, kind, 1e-2, (0.9, 0.95), 0.1)
    for _ in range(3):
        model.zero_grad()
        model(IDX[:, :-1], IDX[:, 1:])[1].backward()
        for o in optimizers:
            o.step()
    return optimizers


def test_with_B_0_it_is_the_base_bit_for_bit_and_else_the_formula_of_the_paper():
    for rank in (1, 8, 40):
        model = base()
        logits = model(IDX)[0]
        adapters.adapt(model, rank)
        assert torch.equal(model(IDX)[0], logits)
        assert all(B.shape[1] == len(A) == rank and not B.any() and A.any()
                   for _, B, A in adapters.weights_of(model).values())

    model = base()
    adapters.adapt(model, 4)
    part = model.blocks[1].mlp.w_down
    torch.nn.init.normal_(part.B)
    x = torch.randn(3, 48)
    want = part.weight @ x.T + 16 / 4 * (part.B @ (part.A @ x.T))
    assert torch.allclose(part(x), want.T, atol=1e-5)


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_only_the_adapters_train_and_all_of_them(kind):
    for shape in SHAPES:
        model = base(**shape)
        adapters.adapt(model, 2)
        before = {name: p.clone() for name, p in model.state_dict().items()}
        optimizers = step(model, kind)
        changed = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
        of_adapters = {f'{name}.{part}' for name in adapters.weights_of(model) for part in 'AB'}
        assert changed == of_adapters and len(changed) == 28, shape
        moments = sum(value.numel() for o in optimizers for state in o.state.values()
                      for key, value in state.items() if key != 'step')
        trained = sum(before[name].numel() for name in changed)
        assert moments == trained * (2 if kind == 'adamw' else 1)


def test_merged_equals_unmerged_and_the_model_goes_on_unmerged():
    for shape in SHAPES:
        model = base(**shape)
        logits = model(IDX)[0]
        adapters.adapt(model, 4)
        step(model)
        with torch.no_grad():
            after = model(IDX)[0]
            plain = adapters.merged(model)
            assert (after - logits).abs().max() > 0.1                       # it has learned
            assert (plain(IDX)[0] - after).abs().max() < 2e-5 * after.abs().max()       # float32
            assert torch.equal(model(IDX)[0], after)
        assert adapters.weights_of(plain) == {}
        assert plain.state_dict().keys() == base(**shape).state_dict().keys()
        assert plain.embedding.weight is model.embedding.weight             # shared, not copied
        assert (plain.head.weight is plain.embedding.weight) == model.config.tie_embeddings


def test_another_rank_than_that_of_the_run_is_refused():
    model = base()
    adapters.adapt(model, 4)
    saved = {'lora': adapters.weights_of(model)}
    for rank, state, before in ((8, saved, 4), (0, saved, 4), (4, {'step': 1}, 0)):
        refused(f'lora={rank}, but this run has lora={before}', adapters.adapt, base(), rank, state)


# --- real runs ----------------------------------------------------------------------------------------------
LORA = ['--lora=4', '--learning_rate=0.01', '--warmup_steps=2', '--log_interval=1', '--device=cpu',
        '--dtype=float32', '--max_steps=12', '--batch_size=8', '--eval_interval=6', '--save_interval=6',
        '--sample_tokens=4']


@pytest.mark.parametrize('script', ['sft', 'dpo'])
def test_a_run_learns_and_its_folder_holds_a_plain_model(script, sft_model, conversations, pairs, tmp_path):
    data, gain, more = pairs, 0.05, []
    if script == 'sft':
        data, gain, more = conversations, 0.1, ['--block_size=64', '--dropout=0.1']
    flags = [f'--init_from={sft_model}', f'--data_dir={data}', f'--out_dir={tmp_path}']
    ok(run(f'{script}.py', *flags, *LORA, *more))
    losses = series(tmp_path, 'val_loss')
    assert losses[-1] < losses[0] - gain and 0 < series(tmp_path, 'update_ratio')[-1] < 1
    if script == 'dpo':         # the policy starts as its reference
        assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    first = load_checkpoint(sft_model)[0].state_dict()
    for name in ('best.pt', 'last.pt'):
        model, rest = load_checkpoint(tmp_path / name)
        weights = model.state_dict()
        assert len(rest.get('lora', {})) == (7 * model.config.n_layer if name == 'last.pt' else 0)
        changed = {key for key in weights if not torch.equal(weights[key], first[key])}
        assert changed and all('.w_' in key for key in changed)
        for key, (W, B, A) in rest.get('lora', {}).items():
            assert torch.equal(W, first[f'{key}.weight'])
            assert torch.allclose(weights[f'{key}.weight'], W + 4 * B @ A, atol=1e-6)
