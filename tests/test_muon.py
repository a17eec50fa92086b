"""Muon of parts/train/optim.py against torch's, bit for bit in bfloat16, and against the singular values."""
import pytest
import torch

from model import GPT, GPTConfig
from parts.train import optim

SHAPES = [(8, 8), (24, 8), (8, 24), (64, 32), (1, 5)]


def steps(make, n=5):
    """The parameters after n steps on the same gradients."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = make(params)
    for _ in range(n):
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
    return params, optimizer


def torchs(params):
    return torch.optim.Muon(params, lr=3e-3, weight_decay=0.1, adjust_lr_fn='match_rms_adamw')


def test_in_bfloat16_it_is_torch_s_bit_for_bit(monkeypatch):
    real = optim.orthogonal
    monkeypatch.setattr(optim, 'orthogonal', lambda g: real(g, torch.bfloat16))
    ours, theirs = (steps(make) for make in (lambda p: optim.Muon(p, 3e-3, 0.1), torchs))
    for a, b in zip(ours[0], theirs[0]):
        assert torch.equal(a, b)
    for a, b in zip(ours[1].state.values(), theirs[1].state.values()):
        assert torch.equal(a['momentum_buffer'], b['momentum_buffer'])


def test_it_takes_over_the_state_of_torch_s():
    _, theirs = steps(torchs)
    params, ours = steps(lambda p: optim.Muon(p, 1.0, 0.0), n=1)
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]['lr'] == 3e-3 and ours.param_groups[0]['weight_decay'] == 0.1
    for a, b in zip(ours.state.values(), theirs.state.values()):
        assert torch.equal(a['momentum_buffer'], b['momentum_buffer'])
    ours.step()


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_direction_of_the_update_is_about_as_long(shape, dtype):
    torch.manual_seed(1)
    g = torch.randn(shape)
    found = optim.orthogonal(g[None], dtype)[0].float()
    assert found.shape == g.shape
    s = torch.linalg.svdvals(found)             # Keller Jordan's coefficients leave 0.7 to 1.2
    assert s.min() > 0.3 and s.max() < 1.3
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    assert ((u @ v) * found).sum() / (found.norm() * (u @ v).norm()) > 0.95     # and point where U V^T points


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_the_embedding_has_its_own_rate_also_after_a_resume(kind):
    model = GPT(GPTConfig(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=8))
    make = lambda scale: optim.build(model, kind, 1e-2, (0.9, 0.95), 0.1, embedding_lr=scale)
    optimizers = make(10.0)
    optim.set_lr(optimizers, 2e-2)
    rates = {id(p): group['lr'] for o in optimizers for group in o.param_groups for p in group['params']}
    assert len(rates) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        assert rates[id(p)] == (0.2 if name == 'embedding.weight' else 0.02), name
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for o in optimizers:
        o.step()
    again = make(10.0)
    scaler = torch.amp.GradScaler('cpu', enabled=False)
    optim.restore(again, scaler, {'optimizers': optim.states(optimizers), 'scaler': {}})
    optim.set_lr(again, 1e-2)
    assert sorted({group['lr'] for o in again for group in o.param_groups}) == [0.01, 0.1]
    assert len(make(1.0)[0].param_groups) == 2      # as in the checkpoints of older runs


def test_weight_decay_acts_on_matrices_only():
    """On the gain of a norm it would pull towards 0 what begins at 1."""
    model = GPT(GPTConfig(vocab_size=32, block_size=8, n_layer=1, n_head=2, n_embd=8, tie_embeddings=False))
    for kind in ('adamw', 'muon'):
        optimizers = optim.build(model, kind, 1e-2, (0.9, 0.95), 0.1, embedding_lr=3.0)
        decay = {p: g['weight_decay'] for o in optimizers for g in o.param_groups for p in g['params']}
        for name, p in model.named_parameters():
            assert decay[p] == (0.1 if p.dim() == 2 else 0.0), (kind, name)
