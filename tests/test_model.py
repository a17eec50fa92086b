"""The model computes what its formulas say; its sizes, its first loss, its copies; what model.py prints."""
import dataclasses
import math
import re

import pytest
import torch
from conftest import ok, run
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers

from model import IGNORE, GPT, GPTConfig, RMSNorm, rope_table, rotate
from parts.train.planner import count_parameters, flops_per_token

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


def test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast():
    torch.manual_seed(0)
    rms = RMSNorm(48, 1e-6)
    torch.nn.init.normal_(rms.weight)
    for scale in (1e-4, 1.0, 1e4):          # at 1e-4 eps counts
        x = torch.randn(7, 48) * scale
        same([rms(x)], [norm(x, rms.weight)], 2e-6)
        with torch.autocast('cpu', torch.bfloat16):
            assert rms(x).dtype == torch.float32
            same([rms(x)], [norm(x, rms.weight)], 2e-6)
            rounded_once = norm(x.bfloat16(), rms.weight).bfloat16()
            assert torch.equal(rms(x.bfloat16()), rounded_once), scale


def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances():
    torch.manual_seed(0)
    for D, theta in ((2, 1e4), (8, 1e4), (64, 5e5)):
        x = torch.randn(3, 1, D).expand(3, 60, D)           # the same vector at every position
        y = rotate(x, *rope_table(D, 60, theta))
        same(y, turn(x, theta), 2e-5)
        same(y.norm(dim=-1), x.norm(dim=-1), 1e-5)
        scores = y[0] @ y[1].T
        for distance in range(-59, 60):
            line = scores.diagonal(distance)
            same(line, line[:1].expand_as(line), 1e-4)
        assert (scores[0] - scores[0, 0]).abs().max() > 0.1, D
        assert (scores - scores.T).abs().max() > 0.1, D


def test_the_forward_equals_the_formulas():
    for kv in (1, 2, 4):
        for tied in (True, False):
            model = lively(0.15, n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2)
            same(model(batch()[0])[0], formula(model, batch()[0]), 1e-5)


def test_gqa_is_multi_head_attention_whose_heads_share_keys_and_values():
    idx = batch()[0]
    for kv in (1, 2, 4):
        gqa, mha = lively(0.15, n_kv_head=kv), lively(0.15, n_kv_head=0)
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


# --- sizes --------------------------------------------------------------------------------------------------
def counted(config):
    """{part: parameters} of the real model, whose tensors have shapes only."""
    with torch.device('meta'):
        model = GPT(config)
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters())
    return {'total': count(model), 'embedding': count(model.embedding), 'blocks': count(model.blocks),
            'per block': count(model.blocks[0]), 'final norm': count(model.norm),
            'output': 0 if config.tie_embeddings else count(model.head)}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(*[integers(1, n) for n in (300, 4, 4, 3, 8, 90)], booleans())
def test_the_planners_counts_are_those_of_the_model_and_the_closed_forms(V, L, kv, groups, half, m, tied):
    H, D, T = kv * groups, 2 * half, 7
    d = H * D
    config = GPTConfig(V, T, L, H, kv, d, m, tie_embeddings=tied)
    n = count_parameters(dataclasses.asdict(config))
    assert n == counted(config)
    block = 2 * d * d + 2 * d * kv * D + 3 * d * m + 2 * d
    assert (n['per block'], n['blocks'], n['embedding']) == (block, L * block, V * d)
    assert n['total'] == (1 if tied else 2) * V * d + L * block + d
    assert flops_per_token(dataclasses.asdict(config), T) == 6 * (V * d + L * block + d) + 12 * L * d * T


def test_the_first_loss_is_ln_V():
    """nano's shape at its full context; the exact mean over all targets: no luck of the draw. A tied head
    favours the token it has just read, which among 65 weighs more: 0.12. A smaller embedding would mend that
    but costs training (LOG.md, initialisation), so it is the bound that gives way."""
    for V, tied, most in ((65, True, 0.15), (256, True, 0.1), (32768, True, 0.1), (256, False, 0.1)):
        torch.manual_seed(0)
        model = GPT(GPTConfig(V, 512, 6, 8, 0, 256, 768, tie_embeddings=tied))
        with torch.no_grad():
            logits = model(torch.randint(V, (1, 512)))[0]
        excess = (logits.logsumexp(-1) - logits.mean(-1)).mean().item() - math.log(V)
        assert abs(excess) < most, (V, tied)


def test_an_impossible_config_is_a_value_error_with_value_and_expectation():
    for name, value, words in (('n_embd', 30, 'multiple n_head=4'), ('n_embd', 12, 'even n_head=4'),
                               ('n_kv_head', 3, 'n_head=4 multiple'), ('n_kv_head', 8, 'n_head=4 multiple'),
                               ('n_layer', 0, 'at least 1'), ('n_kv_head', -1, 'n_head=4 multiple')):
        with pytest.raises(ValueError) as e:
            GPTConfig(**{'n_head': 4, 'n_embd': 32, name: value})
        for word in (f'{name}={value}', *words.split()):
            assert word in str(e.value), (name, value)


def test_replacing_a_width_derives_again_what_follows_from_it_and_filled_numbers_are_taken():
    config = dataclasses.replace(GPTConfig(n_embd=16, n_head=2), n_embd=32)
    assert config.filled().head_dim == 16 and config.filled().n_ffn == 64
    old = vars(GPT(GPTConfig(50, 8, 1, 4, 0, 32)).config)               # as checkpoints have it
    assert (old['n_kv_head'], old['n_ffn'], old['head_dim']) == (4, 64, 8)
    assert GPTConfig(**old).filled() == GPTConfig(50, 8, 1, 4, 0, 32).filled()


def test_a_tied_head_is_the_embedding_and_a_copy_may_have_two_but_cannot_tie_them():
    tied = GPT(GPTConfig(50, 8, 1, 2, 0, 16))
    untied = tied.like(tie_embeddings=False)
    assert torch.equal(untied.head.weight, tied.head.weight)
    assert tied.head.weight.data_ptr() == tied.embedding.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    with pytest.raises(ValueError, match='tie_embeddings=True'):
        untied.like(tie_embeddings=True)


def test_without_arguments_it_prints_the_ladder_and_a_self_test():
    out = ok(run('model.py'))
    for name, total, n_layer, n_embd in (('nano', 5_180_672, 6, 256), ('mini', 27_402_752, 8, 512),
                                         ('midi', 92_228_352, 12, 768), ('mega', 1_130_981_376, 22, 2048)):
        line = next(line for line in out.splitlines() if line.startswith(name))
        blocks = total - 257 * n_embd           # without the embedding of 256 and the last norm
        numbers = {int(number.replace(',', '')) for number in re.findall(r'\b\d[\d,]*\b', line)}
        assert {total, 256 * n_embd, blocks, blocks // n_layer, n_embd} <= numbers, line
    assert '(4, 64) -> (4, 64, 256)' in out and '(1, 10) -> (1, 30)' in out
    assert abs(float(re.search(r'loss (\d\.\d+)', out)[1]) - 5.5452) < 0.1 and '5.5452' in out


def test_a_copy_has_the_weights_and_the_changed_config_and_grows_by_the_mean_row():
    torch.manual_seed(0)
    model = GPT(GPTConfig(50, 8, 2, 4, 2, 32, tie_embeddings=False)).eval()
    idx = torch.randint(50, (2, 8))
    copy = model.like(dropout=0.5, causal=False)
    assert copy.config == dataclasses.replace(model.config, dropout=0.5, causal=False)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), copy.state_dict().values()))
    assert not torch.equal(copy(idx)[0], copy(idx)[0])                          # it drops
    assert not torch.equal(copy.eval()(idx)[0], model(idx)[0])                  # it sees what comes
    grown = model.grown(53)
    assert model.grown(50) is model and grown.config.vocab_size == 53
    assert torch.equal(grown(idx)[0][..., :50], model(idx)[0])
    for name in ('embedding.weight', 'head.weight'):
        rows = model.state_dict()[name]
        assert torch.equal(grown.state_dict()[name], torch.cat([rows, rows.mean(0).expand(3, -1)]))
