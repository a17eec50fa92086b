"""The model computes what its formulas say, writes it token by token, and keeps its files."""
import dataclasses
import functools
import itertools
import json
import sys
import types
from pathlib import Path

import torch
from conftest import ROOT, refused, same, table

from extras.models import graph
from model import IGNORE, GPT, GPTConfig, RMSNorm, rope_table, rotate, sample

close = functools.partial(torch.testing.assert_close, rtol=0, check_dtype=False)
equal = functools.partial(torch.testing.assert_close, rtol=0, atol=0)       # also their type


def lively(std=0.2, **settings):
    """A small model whose every weight matters: far from initialisation, gains away from 1. But 14
    rows of the embedding belong to no token, and must change nothing."""
    torch.manual_seed(0)
    small = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48,
                 vocab_multiple=64)
    model = GPT(GPTConfig(**{**small, **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, std)
    return model


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)


def batch():
    torch.manual_seed(1)
    idx, targets = torch.randint(50, (2, 8, 24))
    return idx, targets.masked_fill(torch.rand(8, 24) < 0.4, IGNORE)


# --- the formulas ---------------------------------------------------------------------------------
def norm(x, gain, eps=1e-6):
    return gain.double() * x.double() / (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()


def turn(x, theta):
    """RoPE: x_i + j x_{i + D/2} at position t is multiplied by e^(j t theta^(-2i/D))."""
    T, D = x.shape[-2:]
    angle = torch.outer(torch.arange(T), theta ** (-torch.arange(0, D, 2).double() / D))
    z = torch.complex(*x.double().chunk(2, -1)) * torch.exp(1j * angle)
    return torch.cat((z.real, z.imag), -1)


def formula(model, idx):
    """The logits of the ids idx (B, T), from the weights alone."""
    c = model.config
    w = {name.removesuffix('.weight'): w.double() for name, w in model.state_dict().items()}
    D, x = c.n_embd // c.n_head, w['embedding'][idx]
    for b in (f'blocks.{i}' for i in range(c.n_layer)):
        y = norm(x, w[f'{b}.norm_1'], c.norm_eps)
        q, k, v = (y @ w[f'{b}.attention.w_{name}'].T for name in 'qkv')
        heads = []
        for h in range(c.n_head):
            mine, shared = (slice(i * D, i * D + D) for i in (h, h * c.n_kv_head // c.n_head))
            scores = turn(q[..., mine], c.rope_theta) @ turn(k[..., shared], c.rope_theta).mT
            e = (scores / D ** 0.5).exp().tril()
            heads.append(e / e.sum(-1, keepdim=True) @ v[..., shared])
        x = x + torch.cat(heads, -1) @ w[f'{b}.attention.w_o'].T
        y = norm(x, w[f'{b}.norm_2'], c.norm_eps)
        gate, up = (y @ w[f'{b}.mlp.w_{name}'].T for name in ('gate', 'up'))
        x = x + (gate / (1 + (-gate).exp()) * up) @ w[f'{b}.mlp.w_down'].T
    return (norm(x, w['norm'], c.norm_eps) @ w['head'].T)[..., :c.vocab_size]


def test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast():
    torch.manual_seed(0)
    rms = RMSNorm(48, 1e-6)
    torch.nn.init.normal_(rms.weight)
    for scale in (1e-4, 1.0, 1e4):          # at 1e-4 eps counts
        x = torch.randn(7, 48) * scale
        with torch.autocast('cpu', torch.bfloat16):
            close(rms(x), norm(x, rms.weight), atol=2e-6, msg=lambda said: f'{scale=}: {said}')
            equal(rms(x.bfloat16()), norm(x.bfloat16(), rms.weight).bfloat16())     # rounded once


def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances():
    """The last two follow from the first, with which it is compared."""
    torch.manual_seed(0)
    for D, theta in ((2, 1e4), (8, 1e4), (64, 5e5)):
        x = torch.randn(3, 1, D).expand(3, 60, D)           # the same at every position
        close(rotate(x, *rope_table(D, 60, theta)), turn(x, theta), atol=2e-5)


def test_the_forward_equals_the_formulas():
    """In float64, one head at a time. test_hf_model.py compares with transformers."""
    for kv, tied in itertools.product((1, 2, 4), (True, False)):
        model = lively(0.15, n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2)
        idx, _ = batch()
        close(model(idx)[0], formula(model, idx), atol=1e-5, msg=lambda said: f'n_kv_head={kv}: {said}')


def test_loss_and_log_p_come_from_the_scored_positions_only_and_are_0_without_any():
    """So do their gradients."""
    model, (idx, targets) = lively(), batch()
    at = targets != IGNORE
    for temperature in 3.0, 1.0:
        log_p = (model(idx)[0] / temperature).log_softmax(-1)[at]
        log_p = log_p.gather(1, targets[at][:, None])[:, 0]
        close(model.log_p(idx, targets, temperature), log_p, atol=1e-5)
    none = torch.full_like(targets, IGNORE)
    for loss_of in (lambda y: model(idx, y)[1], lambda y: model(idx, y, with_logits=False)[1],
                    lambda y: -model.log_p(idx, y).sum() / max(1, (y != IGNORE).sum())):
        close(loss_of(targets), -log_p.mean(), atol=1e-5)
        close(gradients(model, loss_of(targets)), gradients(model, -log_p.mean()), atol=1e-6)
        assert loss_of(none) == 0 and not any(g.any() for g in gradients(model, loss_of(none)))
    with torch.autocast('cpu', torch.bfloat16):
        logits, loss = model(idx, targets)
        assert logits.dtype == torch.float32 and abs(loss + log_p.mean()) < 0.01


def test_dropout_acts_only_in_training():
    """On the embedding and on both sums of a block. A generation leaves the model in training."""
    model, ids = lively(dropout=1.0), prompt()         # of a block, both sums add nothing
    assert torch.equal(model.generate(ids, 9, 0), lively().generate(ids, 9, 0)) and model.training
    model.dropout.p = 0.0
    assert torch.equal(model(ids)[0], model.predict(model.norm(model.embedding(ids)))[0])


# --- generation: each new token is the model's, run afresh on the last block_size tokens ----------
BLOCK = 12


def small(**settings):
    return lively(**{'block_size': BLOCK, **settings}).eval()


def prompt(B=3, T=5):
    return torch.randint(50, (B, T), generator=torch.Generator().manual_seed(T))


@torch.no_grad()
def naive(model, idx, n, *how):
    for _ in range(n):
        new = sample(model(idx[:, -BLOCK:])[0][:, -1], *how)
        idx = torch.cat((idx, new[:, None]), 1)
    return idx


def test_cached_greedy_generation_equals_the_naive_loop_for_every_prompt_length():
    """Each step reads one position. What is drawn at random is the same, too."""
    for T in range(1, BLOCK + 4):
        kv = (4, 1, 2)[T % 3]
        model, ids = small(n_kv_head=kv), prompt(1 + kv, T)
        equal(model.generate(ids, 18, temperature=0), naive(model, ids, 18, 0),
              msg=lambda said: f'a prompt of {T} tokens: {said}')
    torch.manual_seed(1)
    drawn, lengths = naive(model, prompt(), 18, 1.3, 9, 0.8), []
    torch.manual_seed(1)
    model.embedding.register_forward_hook(lambda m, x, y: lengths.append(x[0].shape[1]))
    assert torch.equal(drawn, model.generate(prompt(), 18, 1.3, 9, 0.8))
    assert lengths == [5] + [1] * (BLOCK - 5) + [BLOCK] * 10


# of p = 0.15 0.5 0.05 0.3: temperature, top_k and top_p, several u, and the ids that they draw
DRAWN = json.loads('''[
[1, null, null, [1e-9, 0.14, 0.16, 0.64, 0.66, 0.69, 0.71, 1], [0, 0, 1, 1, 2, 2, 3, 3]],
[1, 500, 1, [0.14, 0.64, 0.66, 0.71], [0, 1, 2, 3]],
[1, 2, null, [1e-9, 0.62, 0.63, 1], [1, 1, 3, 3]],
[1, null, 0.45, [1e-9, 1], [1, 1]],
[1, 3, 0.83, [1e-9, 0.62, 0.63, 1], [1, 1, 3, 3]],
[0.5, null, 0.9, [1e-9, 0.73, 0.74, 1], [1, 1, 3, 3]]]''')


def test_top_k_and_top_p_leave_the_most_probable_and_u_draws_where_the_sum_of_probabilities_reaches_it():
    """After the temperature: 0.5 makes 0.062 0.685 0.007 0.247; 0 is argmax. In the last row but one,
    the three most probable are 0.16 0.53 0.32 of their sum. Without u, the same ids are drawn."""
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    for *how, u, wanted in DRAWN:
        case = f'temperature, top_k, top_p: {how}; {u=}'
        assert sample(logits.repeat(len(u), 1), *how, torch.tensor(u)).tolist() == wanted, case
        assert {*sample(logits.repeat(1000, 1), *how).tolist()} == {*wanted}, case
    assert sample(logits[None], temperature=0, top_k=3, top_p=0.5).item() == 1


# --- generation: rows of different length, seeds, ends, log p -------------------------------------
ROWS = [prompt(1, T)[0] for T in (5, 2, 1, 9, 5, 12, 14, 5)]        # three of them are equal
RAGGED = torch.stack([torch.cat((torch.full((14 - len(row),), IGNORE), row)) for row in ROWS])


def test_a_row_is_written_as_alone_whatever_its_length_its_end_and_the_other_rows():
    """Greedy, also past the context of 12 tokens; and drawn with its seed, a number or a text,
    until it meets a stop id, which it repeats. Their log p: test_rl.py."""
    seeds = [3, 'three', 5, 6, '7', 8, 9, 10]
    for block, stop, how in (12, (), (0,)), (40, range(12), (1.3, 30, 0.9)):
        model, lengths = small(n_kv_head=2, block_size=block), set()
        rows = model.generate(RAGGED, 20, *how, stop=stop, seeds=seeds)[:, 14:]
        for row, seed, new in zip(ROWS, seeds, rows):
            alone = model.generate(row[None], 20, *how, stop=stop, seeds=[seed])[0, len(row):]
            n = len(alone)
            lengths.add(n)
            assert torch.equal(new[:n], alone) and (new[n:] == alone[-1]).all()
            assert n == min([i for i, id in enumerate(new.tolist(), 1) if id in stop] + [20])
    assert len(lengths) > 2 and not torch.equal(rows[0], rows[4])   # equal prompts, other seeds


# A GPU's way, on the CPU: the step that reads one token through `capture`, over the whole cache with
# a mask, and the heads that share a key as so many queries. What is captured is computed again.
def recompute(read, *inputs, cache):
    inputs = [x.clone() for x in inputs]

    def replay(*new):
        for old, x in zip(inputs, new):
            old.copy_(x)
        return read(*inputs, cache)
    return replay


# temperature, top_k and top_p; use_graph, and whether there is extras/
GRAPHS = '[[0, true, true], [1.3, 30, 0.9, true, true], [1.3, 30, 0.9, false, true], [0, true, false]]'


def test_what_a_gpu_captures_writes_the_same_rows_and_it_needs_no_extras(monkeypatch):
    """Also past the context, where nothing is replayed, and when half of the rows have ended."""
    text = (ROOT / 'model.py').read_text().replace('.is_cuda', '.is_cpu')
    other = types.ModuleType('other')
    sys.modules['other'] = other            # dataclasses look there
    exec(text.partition("if __name__")[0], vars(other))
    captured = []
    monkeypatch.setattr(graph, 'capture', lambda read, *inputs, cache: captured.append(
        cache.shape[2]) or recompute(read, *inputs, cache=cache))
    for block, kv, stop in (12, 4, range(12)), (12, 2, ()), (40, 2, range(12)), (40, 1, ()):
        model = small(n_kv_head=kv, block_size=block)
        twin = other.GPT(other.GPTConfig(**vars(model.config))).eval()
        twin.load_state_dict(model.state_dict())
        for *how, use_graph, has_extras in json.loads(GRAPHS):
            given = dict(stop=stop, seeds=range(8), with_log_p=True)
            rows, log_p = model.generate(RAGGED, 20, *how, **given)
            twin.use_graph = use_graph
            captured.clear()
            with monkeypatch.context() as patch:
                if not has_extras:
                    patch.setitem(sys.modules, 'extras.models.graph', None)
                found, twins = twin.generate(RAGGED, 20, *how, **given)
            assert found.equal(rows), (block, kv, use_graph)
            close(twins, log_p, atol=1e-5)
            # once, and again for the fewer rows that are left; a full window has nothing to capture
            is_captured = use_graph and has_extras and block > 14
            assert captured[:1] == [8] * is_captured and captured == sorted({*captured})[::-1]
            assert len(captured) > 1 or not (is_captured and stop)


# --- files ----------------------------------------------------------------------------------------
def saved(path, config=(), **more):
    """A checkpoint of a small model, with these changes of its config and further entries."""
    model = lively()
    torch.save({'model': model.state_dict(), 'model_config': vars(model.config) | dict(config),
                **more}, path)
    return path


def test_what_was_saved_is_loaded_with_its_other_entries_and_changes_that_keep_the_shapes():
    model = lively(tie_embeddings=False)
    model.save('last.pt', step=3)
    changes = dict(dropout=0.5, causal=False, block_size=99, rope_scaling=(2.0,))
    back = GPT.load('.', **changes)
    assert back.config == dataclasses.replace(model.config, **changes) and back.saved['step'] == 3
    assert same(dict(back.state_dict()), dict(model.state_dict()))
    lively().bfloat16().save('best.pt')          # which counts in a folder
    best = GPT.load('.')
    assert GPTConfig(n_embd=8, n_head=2).n_ffn == 64        # of 8/3 of 8, none is a multiple
    assert best.head.weight is best.embedding.weight and best.norm.weight.dtype == torch.float32
    # of an older commit: head_dim, n_kv_head and n_ffn are numbers there
    assert GPT.load(ROOT / 'tests/old_run.pt').saved['step']


# a setting that the weights don't have, and what is named
ODD = '''
n_heads 3 n_heads
n_layer 3 blocks.2
n_kv_head 3 n_kv_head=3
vocab_size 65 embedding'''


def test_what_is_no_model_of_ours_is_one_sentence_with_its_path_and_what_is_odd(monkeypatch):
    file = Path('a.pt')
    for content in b'hello', saved(file).read_bytes()[:-300]:
        file.write_bytes(content)
        refused(f'{file} cannot be loaded', GPT.load, file)
    for name, value, words in table(ODD, ' '):
        refused(f'{file}.*this model.py.*{words}', GPT.load, saved(file, {name: int(value)}))
    whole = torch.load(saved(file))
    other = {'model': {'transformer.wte.weight': torch.ones(2, 3)}, 'model_args': {}}    # nanoGPT's
    for odd in whole | {'model': 5}, {'model_config': whole['model_config']}, {'model': whole['model']}, \
            other, other['model']:
        torch.save(odd, file)
        refused(f'{file} is not a checkpoint of this model.py, because', GPT.load, file)
    torch.save(whole | {'model_config': None}, file)
    refused(f'{file} cannot be loaded into this model.py', GPT.load, file)
    for name in 'a.ckpt', 'a.pth':
        assert GPT.load(saved(name)).config
    saved(file)

    def slip(self, config):             # yours, in a model.py that you changed
        raise ValueError('slip')
    with monkeypatch.context() as patch:
        patch.setattr(GPT, '__init__', slip)
        refused('^slip$', GPT.load, file)
    Path('empty').mkdir()
    refused('empty.*give a folder that has best.pt, last.pt', GPT.load, 'empty')


def test_no_file_runs_code():
    class Evil:
        def __reduce__(self):
            return open, ('ran', 'w')
    file, ran = saved('a.pt', more=Evil()), Path('ran')
    refused(r'a\.pt ((?!weights_only|option).)*$', GPT.load, file)  # torch's advice is to run it
    assert not ran.exists()
    torch.load(file, weights_only=False)['more'].close()
    assert ran.exists()                                 # it is a real one

