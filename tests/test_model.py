"""The model computes what its formulas say: sizes, parts, the whole forward, the loss, its gradients."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import IGNORE, GPT, GPTConfig, RMSNorm, SwiGLU, count_parameters, rope_table, rotate


def lively(seed=0, **kwargs):
    """A small model whose every weight matters: far from initialisation, gains away from 1."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48), **kwargs}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.3)
    return model


def turn(x, theta):
    """RoPE in complex numbers, x (..., T, D) float64: z_i = x_i + j x_{i + D/2} is multiplied by e^(j t theta^(-2i/D))."""
    T, D = x.shape[-2:]
    angle = torch.tensor([[t * theta ** (-2 * i / D) for i in range(D // 2)] for t in range(T)], dtype=torch.float64)
    z = torch.complex(x[..., :D // 2], x[..., D // 2:]) * torch.exp(1j * angle)
    return torch.cat((z.real, z.imag), -1)


def formula(model, idx):
    """The whole forward in float64, one head at a time, from the state dict alone."""
    c, w = model.config, {k.removesuffix('.weight'): v.double() for k, v in model.state_dict().items()}
    D, T = c.n_embd // c.n_head, idx.shape[1]
    norm = lambda x, gain: gain * x / (x.pow(2).mean(-1, keepdim=True) + c.norm_eps).sqrt()
    future = torch.ones(T, T).triu(1).bool()
    x = w['embedding'][idx]
    for i in range(c.n_layer):
        b = f'blocks.{i}.'
        q, k, v = (norm(x, w[b + 'norm_1']) @ w[f'{b}attention.w_{n}'].T for n in 'qkv')
        out = []
        for h in range(c.n_head):
            g = h // (c.n_head // c.n_kv_head)          # neighbouring query heads share a key/value head
            q_h, k_h, v_h = q[..., h * D:h * D + D], k[..., g * D:g * D + D], v[..., g * D:g * D + D]
            e = (turn(q_h, c.rope_theta) @ turn(k_h, c.rope_theta).mT / D ** 0.5).masked_fill(future, -math.inf).exp()
            out.append(e / e.sum(-1, keepdim=True) @ v_h)
        x = x + torch.cat(out, -1) @ w[b + 'attention.w_o'].T
        y = norm(x, w[b + 'norm_2'])
        gate = y @ w[b + 'mlp.w_gate'].T
        x = x + (gate / (1 + (-gate).exp()) * (y @ w[b + 'mlp.w_up'].T)) @ w[b + 'mlp.w_down'].T
    return norm(x, w['norm']) @ w['head'].T


@pytest.mark.parametrize('n, size', [(5_180_672, (6, 8, 256, 768)), (27_402_752, (8, 8, 512, 1536)),
                                     (92_228_352, (12, 12, 768, 2304)), (1_130_981_376, (22, 32, 2048, 5632))])
def test_the_ladder_has_exactly_these_parameters(n, size):
    n_layer, n_head, n_embd, n_ffn = size
    config = GPTConfig(256, 512, n_layer, n_head, 0, n_embd, n_ffn)
    assert count_parameters(config)['total'] == n


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 8), st.integers(1, 90),
       st.booleans())
def test_counts_equal_the_closed_form(V, L, kv, groups, half, m, tied):
    H, D = kv * groups, 2 * half
    d = H * D
    n = count_parameters(GPTConfig(V, 8, L, H, kv, d, m, tie_embeddings=tied))
    block = 2 * d * d + 2 * d * kv * D + 3 * d * m + 2 * d
    assert (n['per block'], n['blocks'], n['embedding'], n['output']) == (block, L * block, V * d, 0 if tied else V * d)
    assert n['total'] == (1 if tied else 2) * V * d + L * block + d


def test_a_tied_head_is_the_embeddings_storage():
    tied, untied = lively(vocab_size=256, n_embd=256), lively(vocab_size=256, n_embd=256, tie_embeddings=False)
    assert tied.head.weight.data_ptr() == tied.embedding.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    count = lambda model: sum(p.numel() for p in model.parameters())
    assert count(untied) - count(tied) == 65_536


@pytest.mark.parametrize('V', [65, 256, 32768])
def test_the_first_loss_is_ln_V(V):
    torch.manual_seed(0)
    model, idx = GPT(GPTConfig(V, 64, 2, 8, 0, 256, 768)), torch.randint(V, (8, 65))
    with torch.no_grad():
        assert abs(model(idx[:, :-1], idx[:, 1:])[1].item() - math.log(V)) < 0.1


def naive_norm(x, gain, eps):
    return torch.stack([gain.double() * v / math.sqrt(sum(e * e for e in v.tolist()) / len(v) + eps) for v in x.double()])


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])     # 1e-4: eps counts
def test_rmsnorm_equals_the_formula_in_float64(scale):
    torch.manual_seed(0)
    norm, x = RMSNorm(48, 1e-6), torch.randn(7, 48) * scale
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x).double(), naive_norm(x, norm.weight, 1e-6), rtol=1e-5, atol=1e-6)


def test_rmsnorm_computes_in_float32_under_autocast():
    torch.manual_seed(0)
    norm, x = RMSNorm(48, 1e-6), torch.randn(7, 48)
    torch.nn.init.normal_(norm.weight)
    with torch.autocast('cpu', torch.bfloat16):
        full, half = norm(x), norm(x.bfloat16())
    assert full.dtype == torch.float32 and torch.equal(full, norm(x))
    # bfloat16 in: exact but for the last rounding
    torch.testing.assert_close(half.float(), naive_norm(x.bfloat16(), norm.weight, 1e-6).bfloat16().float(), rtol=2 ** -8, atol=0)
    assert (half.double() != naive_norm(x.bfloat16(), norm.weight, 1e-6).bfloat16().double()).float().mean() < 0.01


@pytest.mark.parametrize('D, theta', [(2, 1e4), (8, 1e4), (64, 5e5)])
def test_rope_equals_complex_rotation_and_keeps_the_norm(D, theta):
    x = torch.randn(2, 3, 40, D, generator=torch.Generator().manual_seed(0))
    y = rotate(x, *rope_table(D, 40, theta))
    torch.testing.assert_close(y.double(), turn(x.double(), theta), rtol=0, atol=2e-5)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)


def test_rope_makes_q_dot_k_depend_on_the_distance_alone():
    torch.manual_seed(0)
    T = 60
    q, k = torch.randn(16).expand(1, 1, T, 16), torch.randn(16).expand(1, 1, T, 16)
    scores = (rotate(q, *rope_table(16, T, 1e4)) @ rotate(k, *rope_table(16, T, 1e4)).mT)[0, 0]
    for distance in range(-T + 1, T):
        diagonal = scores.diagonal(distance)
        assert (diagonal - diagonal[0]).abs().max() < 3e-5
    assert scores[0].std() > 0.1 and (scores - scores.T).abs().max() > 0.1      # and it does depend on it, sign included


def test_swiglu_equals_the_formula():
    torch.manual_seed(0)
    mlp, x = SwiGLU(GPTConfig(n_embd=12, n_head=1, n_ffn=20)), torch.randn(5, 12)
    gate, up, down = (w.weight.double() for w in (mlp.w_gate, mlp.w_up, mlp.w_down))
    g = x.double() @ gate.T
    torch.testing.assert_close(mlp(x).double(), (g * torch.sigmoid(g) * (x.double() @ up.T)) @ down.T, rtol=0, atol=1e-6)
