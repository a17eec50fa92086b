"""The model computes what its formulas say, writes it token by token, and keeps its files."""
import dataclasses
import math
import pathlib
import re
import runpy

import pytest
import torch
from conftest import ROOT, refused
from feedback import expect, short

from model import IGNORE, GPT, GPTConfig, RMSNorm, rope_table, rotate, sample
from extras import hf_model
from extras.planner import count_parameters, sketch


def lively(std=0.2, **settings):
    """A small model whose every weight matters: far from initialisation, gains away from 1."""
    torch.manual_seed(0)
    small = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48)
    model = GPT(GPTConfig(**{**small, **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, std)
    return model


def close(a, b, atol):
    torch.testing.assert_close([x.double() for x in a], [x.double() for x in b], rtol=0, atol=atol)


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
    angle = torch.tensor([[t * theta ** (-2 * i / D) for i in range(D // 2)] for t in range(T)])
    z = torch.complex(x[..., :D // 2].double(), x[..., D // 2:].double())
    z = z * torch.exp(1j * angle.double())
    return torch.cat((z.real, z.imag), -1)


def test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast():
    torch.manual_seed(0)
    rms = RMSNorm(48, 1e-6)
    torch.nn.init.normal_(rms.weight)
    for scale in (1e-4, 1.0, 1e4):          # at 1e-4 eps counts
        x = torch.randn(7, 48) * scale
        asked = ('RMSNorm(48, eps=1e-6) with random weights, x of 7 x 48 random numbers '
                 f'times {scale:g}')
        expect(f'{asked}, float32', norm(x, rms.weight), rms, x, tolerance=2e-6)
        with torch.autocast('cpu', torch.bfloat16):
            autocast = f'{asked}, under autocast to bfloat16'
            expect(f'{autocast}: its type for a float32', torch.float32, lambda: rms(x).dtype)
            expect(f'{autocast}, float32', norm(x, rms.weight), rms, x, tolerance=2e-6)
            rounded_once = norm(x.bfloat16(), rms.weight).bfloat16()
            expect(f'{asked}, bfloat16, rounded once, at the end', rounded_once, rms, x.bfloat16())


def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances():
    torch.manual_seed(0)
    for D, theta in ((2, 1e4), (8, 1e4), (64, 5e5)):
        x = torch.randn(3, 1, D).round(decimals=2).expand(3, 60, D)     # the same at every position
        cos, sin = rope_table(D, 60, theta)
        asked = (f'rotate(x, *rope_table({D}, 60, {theta:g})), x (3, 60, {D}) has a vector at '
                 f'every position, the first one is {short(x[0, 0].tolist())}')
        expect(asked, turn(x, theta), rotate, x, cos, sin, tolerance=2e-5)      # so it keeps norms
        y = rotate(x, cos, sin)
        scores = y[0] @ y[1].T
        for distance in range(-59, 60):
            line = scores.diagonal(distance)
            assert line.max() - line.min() <= 1e-4, distance
        assert (scores[0] - scores[0, 0]).abs().max() > 0.1, D
        assert (scores - scores.T).abs().max() > 0.1, D


def test_the_forward_equals_the_formulas():
    """Those of extras/hf_model.py, without anything of model.py; test_hf_model.py holds them to be
    transformers'."""
    for kv in (1, 2, 4):
        for tied in (True, False):
            model = lively(0.15, n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2)
            asked = (f'the logits (row, position, token) of 2 layers with 4 heads of queries and '
                     f'{kv} of keys, for 8 rows of 24 tokens, without a cache')
            wanted = torch.stack([hf_model.logits(*hf_model.translated(model), row)
                                  for row in batch()[0]])
            expect(asked, wanted, lambda: model(batch()[0])[0], tolerance=1e-5)


def test_loss_and_log_p_come_from_the_scored_positions_only_and_are_0_without_any():
    """So do their gradients. Only these go through the head, unless logits are asked for."""
    model, (idx, targets) = lively(), batch()
    scored, n_rows = targets != IGNORE, []
    logits = model(idx)[0]
    model.head.register_forward_hook(lambda head, x, y: n_rows.append(x[0][..., 0].numel()))
    for temperature in 3.0, 1.0:
        log_p = (logits.double() / temperature).log_softmax(-1)[scored]
        by_hand = log_p[range(len(log_p)), targets[scored]]
        close([model.log_p(idx, targets, temperature)], [by_hand], 1e-5)
    (returned, loss), (nothing, cheap) = model(idx, targets), model(idx, targets, with_logits=False)
    assert torch.equal(returned, logits) and nothing is None
    assert n_rows == [len(log_p), len(log_p), idx.numel(), len(log_p)]
    for found in loss, cheap, -model.log_p(idx, targets).mean():
        close([found], [-by_hand.mean()], 1e-5)
        close(gradients(model, found), gradients(model, -by_hand.mean()), 1e-6)

    none = torch.full_like(targets, IGNORE)
    for zero in (model(idx, none)[1], model(idx, none, with_logits=False)[1],
                 model.log_p(idx, none).sum()):
        assert zero.item() == 0 and not any(g.any() for g in gradients(model, zero))

    with torch.autocast('cpu', torch.bfloat16):
        rounded, near = model(idx, targets)
    assert rounded.dtype == near.dtype == torch.float32 and not torch.equal(rounded, logits)
    close([near], [loss], 0.01)


def test_dropout_acts_only_in_training():
    dropout, plain = lively(dropout=0.5).train(), lively()
    assert not torch.equal(dropout(prompt())[0], dropout(prompt())[0])
    assert torch.equal(dropout.generate(prompt(), 9, 0), plain.generate(prompt(), 9, 0))
    assert all(part.training for part in dropout.modules())                 # as before
    assert torch.equal(dropout.eval()(prompt())[0], plain(prompt())[0])
    dropout.train().dropout.p = 0.0
    for block in dropout.blocks:            # now both of its sums add nothing to the embedding
        block.dropout.p = 1.0
    embedded = dropout.norm(dropout.embedding(prompt()))
    assert torch.equal(dropout(prompt())[0], dropout.head(embedded))


# --- sizes ----------------------------------------------------------------------------------------
def test_the_first_loss_is_ln_V():
    """nano's shape at its full context; the exact mean over all targets, so no luck of the draw. A
    tied head favors the token it has just read, which among 65 weighs more: 0.12. A smaller
    embedding would fix that but costs training (docs/log.md), so the bound gives way."""
    for V, tied, most in ((65, True, 0.15), (32768, True, 0.1), (256, False, 0.1)):
        torch.manual_seed(0)
        model = GPT(GPTConfig(V, 512, 6, 8, 0, 256, 768, tie_embeddings=tied))
        with torch.no_grad():
            logits = model(torch.randint(V, (1, 512)))[0]
        first = (logits.logsumexp(-1) - logits.mean(-1)).mean().item()
        assert abs(first - math.log(V)) < most, (V, tied)


PRESETS = 'nano', 'mini', 'midi', 'mega', 'codeparrot_small', 'codeparrot'


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_has_the_parameters_that_it_states(name):
    """Three also state flags for the larger sizes that the lesson claims: 11M, 50M, 200M."""
    text = (ROOT / f'config/{name}.py').read_text(encoding='utf-8').replace('\n# ', ' ')
    settings = {}
    for path in re.search(r'train.py ((config/nano.py )?config/\w+.py)', text)[1].split():
        settings |= runpy.run_path(str(ROOT / path))

    def parameters(**larger):
        keys = GPTConfig.__dataclass_fields__.keys() & settings.keys()
        config = GPTConfig(**{key: (settings | larger)[key] for key in keys})
        return f'{count_parameters(sketch(config))["total"]:,}'

    assert re.search(rf'\b{parameters()} parameters', text), parameters()
    claims = re.findall(r'((?:--\w+=\d+ )+)there are ([\d,]+)\.', text)
    assert len(claims) == (name in ('nano', 'mini', 'midi'))
    for flags, n in claims:
        larger = {key: int(value) for key, value in re.findall(r'--(\w+)=(\d+)', flags)}
        assert parameters(**larger) == n


def test_padding_of_the_vocabulary_changes_no_loss_logit_or_gradient_and_is_never_sampled():
    """The padded rows would win each comparison."""
    for tied in (True, False):
        plain, (idx, targets) = lively(tie_embeddings=tied), batch()
        padded = lively(tie_embeddings=tied, vocab_multiple=64)
        weights = {name: torch.cat((w, torch.full((14, 32), 1000.0))) if len(w) == 50 else w
                   for name, w in plain.state_dict().items()}
        padded.load_state_dict(weights)         # which also says that matrices have 64 rows
        (a, loss_a), (b, loss_b) = plain(idx, targets), padded(idx, targets)
        close((a, loss_a), (b, loss_b), 1e-5)
        for grad, of in zip(gradients(padded, loss_b), gradients(plain, loss_a), strict=True):
            assert torch.allclose(grad[:len(of)], of, atol=1e-6) and not grad[len(of):].any()
        for draw in (dict(temperature=0), dict(temperature=5, top_k=99), dict(top_p=0.9)):
            a, b = (model.generate(idx[:, :3], 9, **draw, seeds=range(8))
                    for model in (plain, padded))
            assert b.max() < 50 and torch.equal(a, b), draw


# --- generation: each new token is the model's, run afresh on the last block_size tokens ----------
BLOCK = 12


def small(**settings):
    return lively(**{'block_size': BLOCK, **settings}).eval()


def prompt(B=3, T=5):
    return torch.randint(50, (B, T), generator=torch.Generator().manual_seed(T))


def naive(model, idx, n):
    with torch.no_grad():
        for _ in range(n):
            best = model(idx[:, -BLOCK:])[0][:, -1].argmax(-1)
            idx = torch.cat((idx, best[:, None]), 1)
    return idx


def test_cached_greedy_generation_equals_the_naive_loop_for_every_prompt_length():
    models = [(kv, small(n_kv_head=kv)) for kv in (4, 1, 2)]
    for T in range(1, BLOCK + 4):
        kv, model = models[T % 3]
        ids = prompt(1 + kv, T)
        asked = (f'18 tokens after prompts of length {T}, greedy, with a cache, {BLOCK} tokens in '
                 f'the context, n_head=4, n_kv_head={kv}')
        expect(asked, naive(model, ids, 18), model.generate, ids, 18, temperature=0)


def test_generation_draws_as_sample_does_from_the_logits_of_the_naive_loop():
    model, ids = small(n_kv_head=2), prompt(3, 5)
    for how in (0.8, 7, None), (0.8, None, 0.7), (1.3, 9, 0.8):
        wanted = ids
        torch.manual_seed(1)
        with torch.no_grad():
            for _ in range(BLOCK):
                new = sample(model(wanted[:, -BLOCK:])[0][:, -1], *how)
                wanted = torch.cat((wanted, new[:, None]), 1)
        torch.manual_seed(1)
        expect(f'{BLOCK} tokens, drawn with temperature, top_k, top_p = {how}', wanted,
               model.generate, ids, BLOCK, *how)


def test_top_k_and_top_p_leave_the_most_probable_tokens_after_the_temperature():
    p = torch.tensor([0.15, 0.5, 0.05, 0.3])
    for temperature, top_k, top_p, wanted in (
            (1.0, None, None, [0, 1, 2, 3]), (1.0, 2, None, [1, 3]), (1.0, None, 0.7, [1, 3]),
            (1.0, None, 0.45, [1]), (0.5, None, 0.9, [1, 3]),   # 0.5 makes 0.062 0.685 0.007 0.247
            (1.0, 3, 0.83, [1, 3]),                     # the three are 0.16 0.53 0.32 of their sum
            (1.0, 500, 1.0, [0, 1, 2, 3]), (0, 3, 0.5, [1])):
        torch.manual_seed(0)
        asked = ('the ids that 1,000 draws give: p = 0.15 0.5 0.05 0.3, '
                 f'{temperature=}, {top_k=}, {top_p=}')
        logits = p.log().repeat(1000, 1)
        expect(asked, wanted, lambda: sorted({*sample(logits, temperature, top_k, top_p).tolist()}))


def test_temperature_0_is_argmax_and_u_draws_the_id_at_which_the_sum_of_probabilities_reaches_it():
    x = torch.randn(100, 50)
    asked = 'sample(logits, temperature=0, top_k=3, top_p=0.5) of 100 rows of 50 random logits'
    expect(asked, x.argmax(-1), sample, x, 0, 3, 0.5)
    for top_k, u, wanted in ((None, [1e-9, 0.5, 0.500001, 0.6, 0.7001, 1.0], [0, 0, 1, 1, 3, 3]),
                             (2, [0.62, 0.63], [0, 3])):        # 5/8, 3/8
        logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log().repeat(len(u), 1)
        expect(f'p = 0.5 0.2 0 0.3, {top_k=}, {u=}', wanted,
               lambda: sample(logits, top_k=top_k, u=torch.tensor(u)).tolist())


def test_a_step_within_the_context_costs_one_position_and_scores_as_float32_without_a_cache():
    for how, atol in (('float32', 1e-5), ('bfloat16', 0.05), ('autocast', 0.05)):
        model, exact = small(std=0.1, n_kv_head=2), small(std=0.1, n_kv_head=2)
        lengths, cached = [], []
        model.embedding.register_forward_hook(lambda m, x, y: lengths.append(x[0].shape[1]))
        model.head.register_forward_hook(lambda m, x, y: cached.append(y))
        if how == 'bfloat16':
            model.bfloat16()
        with torch.autocast('cpu', torch.bfloat16, enabled=how == 'autocast'):
            ids = model.generate(prompt(), BLOCK + 2, temperature=0)
        assert lengths == [5] + [1] * (BLOCK - 5) + [BLOCK] * 6, how
        for t, logits in zip(range(5, BLOCK + 7), cached, strict=True):
            off = logits - exact(ids[:, max(0, t - BLOCK):t])[0][:, -1]
            assert off.abs().max() < atol, how


def test_what_comes_later_leaves_earlier_logits_bit_identical():
    for T, kv in ((24, 1), (700, 2)):
        model, idx = small(block_size=T, n_kv_head=kv), prompt(2, T)
        logits = model(idx)[0]
        for t in range(0, T - 1, T // 8):
            changed = torch.cat((idx[:, :t + 1], (idx[:, t + 1:] + 1 + t % 49) % 50), 1)
            asked = (f'{T} tokens, of which all after position {t} change, n_kv_head={kv}: which '
                     'positions keep their logits, bit for bit?')
            wanted = [True] * (t + 1) + [False] * (T - t - 1)
            expect(asked, wanted, lambda: (model(changed)[0] == logits).all(-1).all(0).tolist())


def test_several_positions_behind_a_cache_see_what_their_mask_shows():
    """As in one pass with the mask, and each position itself."""
    model, idx = small(std=0.1), prompt(2, 9)
    torch.manual_seed(0)
    for share in 1, 0.5:
        mask = (torch.rand(1, 1, 9, 9) < share).tril() | torch.eye(9, dtype=torch.bool)

        def later():
            cache = model.empty_cache(2, BLOCK)
            model.backbone(idx[:, :4], cache, 0, mask[..., :4, :4])
            return model.head(model.backbone(idx[:, 4:], cache, 4, mask[..., 4:, :]))
        wanted = model(idx, mask=mask if share < 1 else None)[0][:, 4:]
        asked = (f'the logits of tokens 4 to 8 of 9 at once, the first 4 in the cache, with a mask '
                 f'that shows {share} of the past')
        expect(asked, wanted, later, tolerance=1e-5)


# --- generation: rows of different length, seeds, ends, log p -------------------------------------
LENGTHS = [5, 2, 1, 9, 5, 12, 14, 5]
ROWS = [prompt(1, T)[0] for T in LENGTHS]     # three of them are equal
RAGGED = torch.stack([torch.cat((torch.full((14 - len(row),), IGNORE), row)) for row in ROWS])


def test_a_row_is_written_as_alone_whatever_its_length_its_end_and_the_other_rows():
    """Greedy, also past the context of 12 tokens; and drawn with its seed, a number or a text,
    until it meets a stop id, which it repeats."""
    model, seeds = small(n_kv_head=2), [3, 'three', 5, 6, '7', 8, 9, 10]
    for stop, how in (((), dict(temperature=0)),
                      (range(12), dict(temperature=1.3, top_k=30, top_p=0.9))):
        rows, log_p = model.generate(RAGGED, 20, **how, stop=stop, seeds=seeds, with_log_p=True)
        ends = []
        for row, seed, new, its in zip(ROWS, seeds, rows[:, 14:], log_p):
            alone = model.generate(row[None], 20, **how, stop=stop, seeds=[seed])[0, len(row):]
            n = len(alone)
            assert torch.equal(new[:n], alone) and (new[n:] == alone[-1]).all()
            *before, last = (id in stop for id in alone.tolist())
            assert not any(before) and (last or n == 20)
            assert (its[:n] < 0).all() and not its[n:].any()
            ends.append(n)
        assert new.shape == its.shape == (max(ends),)
    assert len({*ends}) > 2
    assert not torch.equal(rows[0, 14:], rows[4, 14:])          # equal prompts, other seeds


def test_log_p_of_generation_is_the_models():
    """1e-4: float32 sums in another order, at log p down to -12."""
    model = small(block_size=40)
    for temperature in 1.0, 0.6, 0:
        rows, log_p = model.generate(RAGGED, 20, temperature, seeds=range(8), with_log_p=True)
        for i, row in enumerate(ROWS):
            x = rows[i:i + 1, 14 - len(row):]
            y = x[:, 1:].clone()
            y[:, :len(row) - 1] = IGNORE
            off = model.log_p(x[:, :-1], y, temperature or 1.0) - log_p[i]
            assert off.abs().max() < 1e-4
    assert torch.equal(model.generate(RAGGED, 20, 0), rows)         # and without it, only the rows


def test_equal_prompts_are_read_once_and_rows_that_ended_leave_when_they_are_more_than_a_fifth():
    model, shapes = small(block_size=40), []
    model.embedding.register_forward_hook(lambda m, x, y: shapes.append((*x[0].shape,)))
    ends = torch.tensor([9, 1, 9, 9, 9, 3, 4, 9])       # of each row, the token at which it stops
    draw = lambda logits, rows, t: (ends[rows] == t + 1).long()
    assert len(list(model.stream(RAGGED, 12, draw, stop=[1]))) == 9
    assert shapes == [(6, 14), (8, 1), (8, 1), *[(6, 1)] * 6]       # 5 of 6 are not worth a copy


# --- files ----------------------------------------------------------------------------------------
def saved(path, **changes):
    """A checkpoint as it comes from a small model, but for these entries."""
    model = GPT(GPTConfig(50, 8, 1, 2, 0, 16))
    torch.save({'model': model.state_dict(), 'model_config': vars(model.config), **changes}, path)
    return path


def same_weights(a, b):
    return all(torch.equal(w, b.state_dict()[name]) for name, w in a.state_dict().items())


def test_what_was_saved_is_loaded_with_its_other_entries_and_changes_that_keep_the_shapes(tmp_path):
    model = lively(tie_embeddings=False, vocab_multiple=64)
    model.save(tmp_path / 'a.pt', step=3, config={'stage': 'sft'})
    changes = dict(dropout=0.5, causal=False, block_size=99, rope_scaling=(2.0,))
    back = GPT.load(tmp_path / 'a.pt', **changes)
    assert back.config == dataclasses.replace(model.config, **changes)
    assert same_weights(back, model) and back.training
    assert back.saved == {'format': 'nanoparrot-checkpoint-1', 'step': 3,
                          'config': {'stage': 'sft'}}
    lively().bfloat16().save(tmp_path / 'half.pt')
    assert {p.dtype for p in GPT.load(str(tmp_path / 'half.pt')).parameters()} == {torch.float32}
    tied = GPT.load(saved(tmp_path / 'tied.pt'))
    assert tied.head.weight is tied.embedding.weight
    old = GPT.load(ROOT / 'tests/old_run/run')              # of an older version
    assert old.saved['step'] and not {'model', 'model_config'} & old.saved.keys()


def test_of_a_runs_folder_the_best_model_counts_and_a_copy_over_its_file_changes_no_model(tmp_path):
    for n, name in enumerate(('last-1.pt', 'last.pt', 'best.pt')):
        lively().save(tmp_path / name, step=n)
        assert GPT.load(tmp_path).saved['step'] == n
    model = GPT.load(tmp_path)
    with open(tmp_path / 'best.pt', 'r+b') as f:        # as cp does, in place
        f.write(bytes(200_000))
    assert same_weights(model, lively())


ODD = {         # entries of a checkpoint, words of the refusal
    'n_heads': (3, 'n_heads'), 'n_head': (3, 'n_head=3'), 'n_layer': (2, 'blocks.1'),
    'rope_theta': (0.0, 'not finite'), 'n_embd': (10**14, ''),
    'vocab_size': (51, 'embedding.weight')}


def test_what_is_no_model_of_ours_is_one_sentence_with_its_path_and_what_is_odd(tmp_path):
    file, good = tmp_path / 'a.pt', saved(tmp_path / 'good.pt')
    config, weights = vars(GPT.load(good).config), GPT.load(good).state_dict()
    for content in b'', b'hello', good.read_bytes()[:-300]:
        file.write_bytes(content)
        refused(f'{file} cannot be loaded', GPT.load, file)
    for content in [1, 2], {'model': {}}, {'model_config': config}:
        torch.save(content, file)
        refused(f'{file} cannot be loaded', GPT.load, file)
    nan = {**weights, 'norm.weight': torch.full((16,), math.nan)}
    for odd, words in (3, ''), ({'norm.weight': 'x'}, ''), ({}, 'embedding'), (nan, 'not finite'):
        refused(f'{file}.*{words}', GPT.load, saved(file, model=odd))
    for key, (value, words) in ODD.items():
        refused(f'{file}.*{words}', GPT.load, saved(file, model_config={**config, key: value}))
    refused(f'{tmp_path}/x.pt', GPT.load, tmp_path / 'x.pt')
    (tmp_path / 'empty').mkdir()
    refused(f'{tmp_path}/empty.*no best.pt, last.pt', GPT.load, tmp_path / 'empty')
    refused('good.pt .*this model.py', GPT.load, good, n_layer=2)
    text = (ROOT / 'model.py').read_text(encoding='utf-8').replace('w_up', 'w_upper')
    (tmp_path / 'model.py').write_text(text, encoding='utf-8')
    edited = runpy.run_path(str(tmp_path / 'model.py'))['GPT']
    refused('good.pt .*this model.py .*w_upper', edited.load, good)


def test_an_impossible_shape_or_text_is_a_value_error_with_value_and_expectation():
    refused(['n_embd=12', 'even', 'n_head=4'], GPTConfig, n_head=4, n_embd=12)
    refused(['n_kv_head=3', 'n_head=4', 'multiple'], GPTConfig, n_head=4, n_embd=32, n_kv_head=3)
    refused(f'{BLOCK + 1}.*block_size={BLOCK}', small(), prompt(2, BLOCK + 1))


def test_no_file_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))
    saved(tmp_path / 'a.pt', more=Evil())
    # torch's own advice is to run it
    refused(r'a\.pt ((?!weights_only|option).)*$', GPT.load, tmp_path / 'a.pt')
    assert not (tmp_path / 'ran').exists()
    torch.load(tmp_path / 'a.pt', weights_only=False)['more'].close()
    assert (tmp_path / 'ran').exists()                  # it is a real one


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pt'
    lively().save(path, step=1)

    def died(state, f):
        pathlib.Path(f).write_bytes(b'half')
        raise OSError
    with monkeypatch.context() as m, pytest.raises(OSError):
        m.setattr('torch.save', died)
        lively().save(path, step=2)
    assert GPT.load(path).saved['step'] == 1
    lively().save(path, step=3)             # also if the last one died
    assert GPT.load(path).saved['step'] == 3 and [*tmp_path.iterdir()] == [path]
