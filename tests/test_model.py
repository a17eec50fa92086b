"""The model computes what its formulas say: the parts, the whole forward, the loss, its gradients."""
import math

import pytest
import torch

from model import IGNORE, GPT, GPTConfig, RMSNorm, SwiGLU, rope_table, rotate

torch.set_num_threads(1)        # on tensors this small, threads only wait for one another


def lively(std=0.2, **settings):
    """A small model whose every weight matters: matrices far from initialisation, gains away from 1."""
    torch.manual_seed(0)
    small = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48)
    model = GPT(GPTConfig(**{**small, **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, std)
    return model


def norm(x, gain, eps=1e-6):
    return gain.double() * x.double() / (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()


def turn(x, theta):
    """RoPE in complex numbers: x_i + j x_{i + D/2} at position t is multiplied by e^(j t theta^(-2i/D))."""
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
    D, x = c.n_embd // c.n_head, w['embedding'][idx]
    for b in (f'blocks.{i}.' for i in range(c.n_layer)):
        q, k, v = (norm(x, w[b + 'norm_1'], c.norm_eps) @ w[f'{b}attention.w_{n}'].T for n in 'qkv')
        heads = []
        for h in range(c.n_head):
            mine, shared = (slice(i * D, i * D + D) for i in (h, h // (c.n_head // c.n_kv_head)))
            score = turn(q[..., mine], c.rope_theta) @ turn(k[..., shared], c.rope_theta).mT / math.sqrt(D)
            e = score.exp().tril()
            heads.append(e / e.sum(-1, keepdim=True) @ v[..., shared])
        x = x + torch.cat(heads, -1) @ w[b + 'attention.w_o'].T
        mlp = [w[f'{b}mlp.w_{n}'] for n in ('gate', 'up', 'down')]
        x = x + swiglu(norm(x, w[b + 'norm_2'], c.norm_eps), *mlp)
    return norm(x, w['norm'], c.norm_eps) @ w['head'].T


def same(a, b, atol):
    torch.testing.assert_close([x.double() for x in a], [x.double() for x in b], rtol=0, atol=atol)


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def batch(B=8, ignored=0.4):
    torch.manual_seed(1)
    idx, targets = torch.randint(50, (2, B, 24))
    return idx, targets.masked_fill(torch.rand(B, 24) < ignored, IGNORE)


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])     # at 1e-4 eps counts
def test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast(scale):
    torch.manual_seed(0)
    rms, x = RMSNorm(48, 1e-6), torch.randn(7, 48) * scale
    torch.nn.init.normal_(rms.weight)
    same([rms(x)], [norm(x, rms.weight)], 2e-6)
    with torch.autocast('cpu', torch.bfloat16):
        assert rms(x).dtype == torch.float32
        same([rms(x)], [norm(x, rms.weight)], 2e-6)
        assert torch.equal(rms(x.bfloat16()), norm(x.bfloat16(), rms.weight).bfloat16())    # one rounding


@pytest.mark.parametrize('D, theta', [(2, 1e4), (8, 1e4), (64, 5e5)])
def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances(D, theta):
    torch.manual_seed(0)
    x = torch.randn(3, 1, D).expand(3, 60, D)           # the same vector at every position
    y = rotate(x, *rope_table(D, 60, theta))
    same(y, turn(x, theta), 2e-5)
    same(y.norm(dim=-1), x.norm(dim=-1), 1e-5)
    scores = y[0] @ y[1].T
    for distance in range(-59, 60):
        line = scores.diagonal(distance)
        same(line, line[:1].expand_as(line), 1e-4)
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1 and (scores - scores.T).abs().max() > 0.1


def test_swiglu_equals_the_formula():
    torch.manual_seed(0)
    mlp, x = SwiGLU(GPTConfig(n_embd=12, n_head=1, n_ffn=20)), torch.randn(5, 12)
    same([mlp(x)], [swiglu(x.double(), mlp.w_gate.weight, mlp.w_up.weight, mlp.w_down.weight)], 1e-6)


@pytest.mark.parametrize('kv', [1, 2, 4])
@pytest.mark.parametrize('tied', [True, False])
def test_the_forward_equals_the_formulas(kv, tied):
    model = lively(0.15, n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2)
    same(model(batch()[0])[0], formula(model, batch()[0]), 1e-5)


@pytest.mark.parametrize('kv', [1, 2, 4])
def test_gqa_is_multi_head_attention_whose_heads_share_keys_and_values(kv):
    gqa, mha, idx = lively(0.15, n_kv_head=kv), lively(0.15, n_kv_head=0), batch()[0]
    repeat = lambda w: w.view(kv, 8, 32).repeat_interleave(4 // kv, 0).reshape(32, 32)
    mha.load_state_dict({k: repeat(w) if k.endswith(('w_k.weight', 'w_v.weight')) else w
                         for k, w in gqa.state_dict().items()})
    same(gqa(idx)[0], mha(idx)[0], 0 if kv == 4 else 1e-5)


def test_loss_and_gradient_come_from_the_scored_positions_only():
    model, (idx, targets) = lively(), batch()
    logits, loss = model(idx, targets)
    scored = [(b, t) for b in range(8) for t in range(24) if targets[b, t] != IGNORE]
    assert 50 < len(scored) < 150
    by_hand = -sum(logits[b, t].double().log_softmax(-1)[targets[b, t]] for b, t in scored) / len(scored)
    same([loss], [by_hand], 1e-5)
    same(gradients(model, model(idx, targets)[1]), gradients(model, by_hand), 1e-6)


def test_nothing_scored_gives_loss_0_and_finite_gradients():
    model, (idx, targets) = lively(), batch(ignored=1)
    loss = model(idx, targets)[1]
    assert loss.item() == 0 and all(g.isfinite().all() for g in gradients(model, loss))


def test_micro_batches_weighted_by_their_scored_tokens_equal_one_batch():
    model, (idx, targets) = lively(std=0.05), batch()
    total = sum(model(i, t)[1] * (t != IGNORE).sum() for i, t in zip(idx.split(2), targets.split(2)))
    whole = model(idx, targets)[1]
    parts = total / (targets != IGNORE).sum()
    same([parts, *gradients(model, parts)], [whole, *gradients(model, whole)], 1e-6)


def test_logits_and_loss_are_float32_under_autocast_and_the_scores_are_close():
    model, (idx, targets) = lively(std=0.1), batch()
    with torch.autocast('cpu', torch.bfloat16):
        logits, loss = model(idx, targets)
    assert logits.dtype == loss.dtype == torch.float32 and not torch.equal(logits, model(idx)[0])
    same([loss], [model(idx, targets)[1]], 0.01)
