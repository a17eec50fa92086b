"""LoRA: only the adapters train, they start as nothing, and merged they are the same model."""
import math

import pytest
import torch

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import adapters, optim

torch.set_num_threads(1)
IDX = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(0))
SHAPES = {'llama': {}, 'qwen2': {'qkv_bias': True}, 'qwen3': {'qk_norm': True, 'head_dim': 16},
          'untied, padded': {'tie_embeddings': False, 'vocab_multiple': 64}}


def base(**settings):
    torch.manual_seed(0)
    model = GPT(GPTConfig(50, 32, 2, 4, 2, 32, 48, **settings))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    return model


def step(model, n=3, rate=1e-2, kind='adamw'):
    optimizers = optim.build(model, kind, rate, (0.9, 0.95), 0.1)
    for _ in range(n):
        model.zero_grad()
        model(IDX[:, :-1], IDX[:, 1:])[1].backward()
        for o in optimizers:
            o.step()
    return optimizers


@pytest.mark.parametrize('rank', [1, 8, 40])
def test_with_B_0_it_is_the_base_bit_for_bit(rank):
    model = base()
    logits = model(IDX)[0]
    adapters.adapt(model, rank)
    assert torch.equal(model(IDX)[0], logits)
    assert all(B.shape[1] == len(A) == rank and not B.any() and A.any()
               for _, B, A in adapters.weights_of(model).values())


def test_rank_0_is_the_base_and_an_adapter_of_rank_0_adds_nothing():
    model = base()
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    adapters.adapt(model, 0)
    assert adapters.merged(model) is model and adapters.weights_of(model) == {}
    assert weights.keys() == model.state_dict().keys() and all(p.requires_grad for p in model.parameters())
    linear = model.blocks[0].mlp.w_up
    x = torch.randn(3, 32)
    assert torch.equal(adapters.Adapted(linear, 0, None)(x), linear(x))


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
@pytest.mark.parametrize('shape', SHAPES)
def test_only_the_adapters_train_and_all_of_them(shape, kind):
    model = base(**SHAPES[shape])
    before = {name: p.clone() for name, p in model.state_dict().items()}
    adapters.adapt(model, 2)
    first = adapters.weights_of(model)
    first = {name: [p.clone() for p in parts] for name, parts in first.items()}
    assert len(first) == 14
    optimizers = step(model, kind=kind)
    for name, p in before.items():
        assert torch.equal(model.state_dict()[name], p), name
    for name, (W, B, A) in adapters.weights_of(model).items():
        assert torch.equal(W, first[name][0])
        assert B.any() and not torch.equal(A, first[name][2]), name
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(2 * sum(W.shape) for W, _, _ in first.values())
    moments = sum(value.numel() for o in optimizers for state in o.state.values()
                  for key, value in state.items() if key != 'step')
    assert moments == trained * (2 if kind == 'adamw' else 1)
    assert sum(p.grad.numel() for p in model.parameters() if p.grad is not None) == trained


@pytest.mark.parametrize('shape', SHAPES)
def test_merged_equals_unmerged_and_the_model_goes_on_unmerged(shape):
    model = base(**SHAPES[shape])
    logits = model(IDX)[0]
    adapters.adapt(model, 4)
    step(model)
    with torch.no_grad():
        after = model(IDX)[0]
        plain = adapters.merged(model)
        assert (after - logits).abs().max() > 0.1                       # it has learned
        assert (plain(IDX)[0] - after).abs().max() < 2e-5 * after.abs().max()       # float32
        assert torch.equal(model(IDX)[0], after) and len(adapters.weights_of(model)) == 14
    assert adapters.weights_of(plain) == {}
    assert plain.state_dict().keys() == base(**SHAPES[shape]).state_dict().keys()
    assert plain.embedding.weight is model.embedding.weight             # shared, not copied
    assert (plain.head.weight is plain.embedding.weight) == model.config.tie_embeddings
    text = model.generate(IDX[:, :5], 10, temperature=0)
    assert torch.equal(text, plain.generate(IDX[:, :5], 10, temperature=0))


def test_it_is_the_formula_of_the_paper():
    model = base()
    adapters.adapt(model, 4)
    part = model.blocks[1].mlp.w_down
    torch.nn.init.normal_(part.B)
    x = torch.randn(3, 48)
    want = part.weight @ x.T + 16 / 4 * (part.B @ (part.A @ x.T))
    assert torch.allclose(part(x), want.T, atol=1e-5)


def test_a_checkpoint_gives_back_every_bit_and_refuses_another_rank(tmp_path):
    model = base()
    adapters.adapt(model, 4)
    step(model)
    save_checkpoint(tmp_path / 'last.pt', adapters.merged(model), lora=adapters.weights_of(model))
    again, state = load_checkpoint(tmp_path / 'last.pt')
    with torch.no_grad():
        assert (again(IDX)[0] - model(IDX)[0]).abs().max() < 1e-4       # as everyone else sees it: merged
    for rank, found, before in ((8, state, 4), (0, state, 4), (4, {'step': 1}, 0)):
        with pytest.raises(ValueError, match=f'lora={rank}, but this run has lora={before}'):
            adapters.adapt(again, rank, found)
    adapters.adapt(again, 4, state)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_the_matrix_that_is_watched_trains():
    model = base()
    assert optim.probe(model).data_ptr() == model.blocks[1].mlp.w_down.weight.data_ptr()
    adapters.adapt(model, 2)
    step(model, 1)
    probe = optim.probe(model)
    before = probe.clone()
    step(model, 2)
    assert 0 < optim.change(before, probe) < math.inf and before.any()
