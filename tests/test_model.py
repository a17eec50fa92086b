"""The model computes what its formulas say: sizes, parts, the whole forward, the loss, its gradients."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers

from model import IGNORE, GPT, GPTConfig, RMSNorm, SwiGLU, count_parameters, rope_table, rotate


def lively(**settings):
    """A small model whose every weight matters: matrices far from initialisation, gains away from 1."""
    torch.manual_seed(0)
    small = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48)
    model = GPT(GPTConfig(**{**small, **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.3)
    return model


def norm(x, gain, eps=1e-6):
    return gain.double() * x.double() / (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()


def turn(x, theta):
    """RoPE in complex numbers: z_i = x_i + j x_{i + D/2} at position t is multiplied by e^(j t theta^(-2i/D))."""
    T, D = x.shape[-2:]
    angle = torch.tensor([[t * theta ** (-2 * i / D) for i in range(D // 2)] for t in range(T)]).double()
    z = torch.complex(x[..., :D // 2].double(), x[..., D // 2:].double()) * torch.exp(1j * angle)
    return torch.cat((z.real, z.imag), -1)


def swiglu(x, gate, up, down):
    g = x @ gate.double().T
    return g / (1 + (-g).exp()) * (x @ up.double().T) @ down.double().T


def formula(model, idx):
    """The whole forward in float64, one head at a time, from the state dict alone."""
    c, w = model.config, {k.removesuffix('.weight'): v.double() for k, v in model.state_dict().items()}
    D, T = c.n_embd // c.n_head, idx.shape[1]
    x = w['embedding'][idx]
    for b in (f'blocks.{i}.' for i in range(c.n_layer)):
        q, k, v = (norm(x, w[b + 'norm_1'], c.norm_eps) @ w[f'{b}attention.w_{n}'].T for n in 'qkv')
        heads = []
        for h in range(c.n_head):
            mine, shared = (slice(i * D, i * D + D) for i in (h, h // (c.n_head // c.n_kv_head)))
            score = turn(q[..., mine], c.rope_theta) @ turn(k[..., shared], c.rope_theta).mT / math.sqrt(D)
            e = score.exp().tril()
            heads.append(e / e.sum(-1, keepdim=True) @ v[..., shared])
        x = x + torch.cat(heads, -1) @ w[b + 'attention.w_o'].T
        x = x + swiglu(norm(x, w[b + 'norm_2'], c.norm_eps), *(w[f'{b}mlp.w_{n}'] for n in ('gate', 'up', 'down')))
    return norm(x, w['norm'], c.norm_eps) @ w['head'].T


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def same(a, b, atol):
    torch.testing.assert_close([x.double() for x in a], [x.double() for x in b], rtol=0, atol=atol)


@pytest.mark.parametrize('n, size', [(5_180_672, (6, 8, 256, 768)), (27_402_752, (8, 8, 512, 1536)),
                                     (92_228_352, (12, 12, 768, 2304)), (1_130_981_376, (22, 32, 2048, 5632))])
def test_the_ladder_has_exactly_these_parameters(n, size):
    n_layer, n_head, n_embd, n_ffn = size
    assert count_parameters(GPTConfig(256, 512, n_layer, n_head, 0, n_embd, n_ffn))['total'] == n


@settings(max_examples=40, deadline=None, derandomize=True)
@given(*[integers(1, n) for n in (300, 4, 4, 3, 8, 90)], booleans())
def test_counts_equal_the_closed_form(V, L, kv, groups, half, m, tied):
    H, D = kv * groups, 2 * half
    d = H * D
    n = count_parameters(GPTConfig(V, 8, L, H, kv, d, m, tie_embeddings=tied))
    block = 2 * d * d + 2 * d * kv * D + 3 * d * m + 2 * d
    assert (n['per block'], n['blocks'], n['embedding']) == (block, L * block, V * d)
    assert n['total'] == (1 if tied else 2) * V * d + L * block + d


def test_a_tied_head_is_the_embeddings_storage():
    tied, untied = (GPT(GPTConfig(256, 8, 1, 4, 0, 256, tie_embeddings=tie)) for tie in (True, False))
    assert tied.head.weight.data_ptr() == tied.embedding.weight.data_ptr() != untied.head.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == 65_536


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('V', [65, 256, 32768])
def test_the_first_loss_is_ln_V(V, tied):
    torch.manual_seed(0)
    model, idx = GPT(GPTConfig(V, 512, 6, 8, 0, 256, 768, tie_embeddings=tied)), torch.randint(V, (2, 257))
    with torch.no_grad():
        assert abs(model(idx[:, :-1], idx[:, 1:])[1].item() - math.log(V)) < 0.1


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])     # at 1e-4 eps counts
def test_rmsnorm_equals_the_formula_in_float32_under_autocast_too(scale):
    torch.manual_seed(0)
    rms, x = RMSNorm(48, 1e-6), torch.randn(7, 48) * scale
    torch.nn.init.normal_(rms.weight)
    same([rms(x)], [norm(x, rms.weight)], 2e-6)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(rms(x), RMSNorm.forward(rms, x).float()) and rms(x).dtype == torch.float32
        same([rms(x)], [norm(x, rms.weight)], 2e-6)
        half = x.bfloat16()                             # bfloat16 in: no rounding but the last
        assert torch.equal(rms(half), norm(half, rms.weight).bfloat16())


@pytest.mark.parametrize('D, theta', [(2, 1e4), (8, 1e4), (64, 5e5)])
def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_distances_alone(D, theta):
    torch.manual_seed(0)
    x, table = torch.randn(3, 1, D), rope_table(D, 60, theta)
    y = rotate(x.expand(3, 60, D), *table)              # the same vectors at every position
    same(y, turn(x.expand(3, 60, D), theta), 2e-5)
    same(y.norm(dim=-1), x.norm(dim=-1).expand(3, 60), 1e-5)
    scores = y[0] @ y[1].T
    for distance in range(-59, 60):
        line = scores.diagonal(distance)
        same(line, line[0].expand_as(line), 1e-4)
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1 and (scores - scores.T).abs().max() > 0.1


def test_swiglu_equals_the_formula():
    torch.manual_seed(0)
    mlp, x = SwiGLU(GPTConfig(n_embd=12, n_head=1, n_ffn=20)), torch.randn(5, 12)
    same([mlp(x)], [swiglu(x.double(), mlp.w_gate.weight, mlp.w_up.weight, mlp.w_down.weight)], 1e-6)


@pytest.mark.parametrize('kv', [1, 2, 4])
@pytest.mark.parametrize('tied', [True, False])
def test_the_forward_equals_the_formulas(kv, tied):
    model = lively(n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2, n_layer=3)
    idx = torch.randint(50, (3, 24))
    same(model(idx)[0], formula(model, idx), 1e-5)
