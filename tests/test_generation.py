"""Every new token is the model's, run afresh on the last block_size tokens; the cache only saves work."""
import math

from conftest import refused
from feedback import expect
import torch
from test_model import lively

from model import IGNORE, sample

BLOCK = 12
small = lambda **settings: lively(**{'block_size': BLOCK, **settings}).eval()
prompt = lambda B=3, T=5: torch.randint(50, (B, T), generator=torch.Generator().manual_seed(T))


def naive_sample(logits, temperature, top_k, top_p):
    """By nothing but sorting: the k largest, then the fewest that reach p, but at least one."""
    weights = torch.zeros(logits.shape)
    for row, scores in enumerate((logits.double() / temperature).tolist()):
        kept = sorted(range(len(scores)), key=lambda i: -scores[i])[:top_k or len(scores)]
        e = {i: math.exp(scores[i] - max(scores)) for i in kept}
        for i in kept:
            if weights[row].sum() < (top_p or 1) * sum(e.values()):
                weights[row, i] = e[i]
    return torch.multinomial(weights, 1)


def naive(model, idx, n, pick=lambda logits: logits.argmax(-1, keepdim=True)):
    with torch.no_grad():
        for _ in range(n):
            idx = torch.cat((idx, pick(model(idx[:, -BLOCK:])[0][:, -1])), 1)
    return idx


def test_cached_greedy_generation_equals_the_naive_loop_for_every_prompt_length():
    for kv in (1, 2, 4):
        model = small(n_kv_head=kv)
        for T in range(1, BLOCK + 4):
            ids = prompt(1 + kv, T)
            asked = (f'18 tokens after prompts of length {T}, greedy, with a cache, {BLOCK} tokens in '
                     f'the context, n_head=4, n_kv_head={kv}')
            expect(asked, naive(model, ids, 18), model.generate, ids, 18, temperature=0)


def test_cached_sampling_equals_a_naive_sampler_with_the_same_seed():
    model = small(n_kv_head=2)
    for top_k, top_p in ((None, None), (7, None), (0, 0.7), (9, 0.8), (1, None), (500, 1.0)):
        for T in range(1, BLOCK + 4, 3):
            pick = lambda logits: naive_sample(logits, 0.8, top_k, top_p)
            torch.manual_seed(T)
            wanted = naive(model, prompt(3, T), BLOCK, pick)
            torch.manual_seed(T)
            asked = f'{BLOCK} tokens after prompts of {T}: temperature 0.8, {top_k=}, {top_p=}, seed {T}'
            expect(asked, wanted, model.generate, prompt(3, T), BLOCK, 0.8, top_k, top_p)


def test_top_k_and_top_p_leave_the_most_probable_tokens_after_the_temperature():
    p = torch.tensor([0.15, 0.5, 0.05, 0.3])
    for temperature, top_k, top_p, wanted in (
            (1.0, None, None, [0, 1, 2, 3]), (1.0, 2, None, [1, 3]), (1.0, None, 0.7, [1, 3]),
            (1.0, None, 0.45, [1]), (0.5, None, 0.9, [1, 3]),   # 0.5 makes of them 0.062 0.685 0.007 0.247
            (1.0, 3, 0.83, [1, 3]),                             # the three are 0.16 0.53 0.32 of their sum
            (0, 3, 0.5, [1])):
        torch.manual_seed(0)
        asked = f'the ids that 1,000 draws give: p = 0.15 0.5 0.05 0.3, {temperature=}, {top_k=}, {top_p=}'
        logits = p.log().repeat(1000, 1)
        expect(asked, wanted, lambda: sorted({*sample(logits, temperature, top_k, top_p).tolist()}))


def test_a_step_within_the_context_costs_one_position_and_scores_as_float32_without_a_cache():
    for how, atol in (('float32', 1e-5), ('bfloat16', 0.05), ('autocast', 0.05)):
        model, exact = small(std=0.1, n_kv_head=2), small(std=0.1, n_kv_head=2)
        lengths, cached = [], []
        model.embedding.register_forward_hook(lambda m, given, out: lengths.append(given[0].shape[1]))
        model.head.register_forward_hook(lambda m, given, out: cached.append(out))
        if how == 'bfloat16':
            model.bfloat16()
        with torch.autocast('cpu', torch.bfloat16, enabled=how == 'autocast'):
            ids = model.generate(prompt(), BLOCK + 2, temperature=0)
        assert lengths == [5] + [1] * (BLOCK - 5) + [BLOCK] * 6, how
        for t, logits in zip(range(5, BLOCK + 7), cached, strict=True):
            assert (logits - exact(ids[:, max(0, t - BLOCK):t])[0][:, -1]).abs().max() < atol, how


def test_what_comes_later_leaves_earlier_logits_bit_identical():
    for T, kv in ((24, 1), (700, 2)):
        model, idx = small(block_size=T, n_kv_head=kv), prompt(2, T)
        logits = model(idx)[0]
        for t in range(0, T - 1, T // 24):
            changed = torch.cat((idx[:, :t + 1], (idx[:, t + 1:] + 1 + t % 49) % 50), 1)
            asked = (f'{T} tokens, of which all after position {t} change, n_kv_head={kv}: which positions '
                     'keep their logits, bit for bit?')
            wanted = [True] * (t + 1) + [False] * (T - t - 1)
            expect(asked, wanted, lambda: (model(changed)[0] == logits).all(-1).all(0).tolist())


def test_several_positions_behind_a_cache_see_what_their_mask_shows():
    model, idx = small(std=0.1), prompt(2, 9)

    def later(mask):
        cache = model.empty_cache(2, BLOCK)
        model.backbone(idx[:, :4], cache, 0)
        return model.head(model.backbone(idx[:, 4:], cache, 4, mask))
    asked = 'tokens 4 to 8 of 9 at once, the first 4 in the cache'
    past = torch.ones(9, 9, dtype=torch.bool).tril()[None, None, 4:]
    expect(f'the logits of {asked}, with a mask that hides the future', model(idx)[0][:, 4:], later, past,
           tolerance=1e-5)
    seen = past.clone()
    seen[..., 1:, 2] = False                # of the cached keys, one is hidden from all but the first
    expect(f'{asked}, and a mask that hides token 2 from tokens 5 to 8: which of 4 to 8 change their logits?',
           [False] + [True] * 4, lambda: ((later(seen) - later(past)).abs().amax((0, 2)) > 1e-3).tolist())


def test_a_row_that_met_a_stop_id_repeats_it_and_the_stream_ends_when_all_have():
    scripts = torch.tensor([[9, 7, 9, 9, 9], [9, 9, 9, 8, 9]]).T                # the draws of two rows
    for stop, expected in (((7, 8), [[9, 7, 7, 7], [9, 9, 9, 8]]), ((), scripts.T.tolist())):
        draws = iter(scripts)
        written = list(small().stream(prompt(2), 5, lambda logits, rows, t: next(draws)[rows], stop))
        assert torch.stack(written, dim=1).tolist() == expected


# --- rows of different lengths, seeds, log p ----------------------------------------------------------------
LENGTHS = [5, 2, 1, 9, 5, 12, 14, 5]
ROWS = [prompt(1, T)[0] for T in LENGTHS]     # three of them are equal
RAGGED = torch.stack([torch.cat((torch.full((14 - len(row),), IGNORE), row)) for row in ROWS])


def test_a_row_is_written_as_alone_whatever_its_length_also_past_the_context():
    """Greedy, and drawn with its seed, a number or a text; 12 tokens are the context."""
    model = small(n_kv_head=2)
    seeds = [3, 'three', 5, 6, '7', 8, 9, 10]
    for how in dict(temperature=0), dict(temperature=1.3, top_k=30, top_p=0.9):
        rows = model.generate(RAGGED, 20, **how, seeds=seeds)
        for row, seed, written in zip(ROWS, seeds, rows):
            alone = model.generate(row[None], 20, **how, seeds=[seed])[0]
            assert torch.equal(alone[len(row):], written[14:])
            if not how['temperature']:
                assert torch.equal(alone[None], naive(model, row[None], 20))
    backwards = model.generate(RAGGED.flip(0), 20, 1.3, 30, 0.9, seeds=seeds[::-1])
    assert torch.equal(backwards.flip(0), rows)
    assert len({tuple(rows[i, 14:].tolist()) for i in (0, 4, 7)}) == 3        # equal prompts, other seeds


def test_rows_that_meet_a_stop_id_end_and_the_others_go_on_as_if_alone():
    model, stop = small(), [*range(12)]
    rows, log_p = model.generate(RAGGED, 30, stop=stop, seeds=range(8), with_log_p=True)
    ends = []
    for i, row in enumerate(ROWS):
        alone = model.generate(row[None], 30, stop=stop, seeds=[i])[0][len(row):]
        new, end = rows[i, 14:], len(alone)
        assert torch.equal(new[:end], alone) and (new[end:] == new[end - 1]).all()
        assert end == 30 or (alone[-1] in stop and not torch.isin(alone[:-1], torch.tensor(stop)).any())
        assert (log_p[i, :end] < 0).all() and not log_p[i, end:].any()
        ends.append(end)
    assert len({*ends}) > 3 and rows.shape[1] - 14 == log_p.shape[1] == max(ends)


def test_log_p_of_generation_is_the_models():
    """1e-4: float32 sums in another order, at log p down to -12."""
    model = small(block_size=40)
    for temperature in 1.0, 0.6, 0:
        rows, log_p = model.generate(RAGGED, 20, temperature, seeds=range(8), with_log_p=True)
        for i, row in enumerate(ROWS):
            x = rows[i:i + 1, 14 - len(row):]
            y = x[:, 1:].clone()
            y[:, :len(row) - 1] = IGNORE
            assert (model.log_p(x[:, :-1], y, temperature or 1.0) - log_p[i]).abs().max() < 1e-4
    assert torch.equal(model.generate(RAGGED, 20, 0), rows)             # and without it, only the rows


def test_equal_prompts_are_read_once_and_rows_that_ended_leave_when_they_are_more_than_a_fifth():
    model, shapes, drawn = small(block_size=40), [], []
    model.embedding.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    ends = [9, 1, 9, 9, 9, 3, 4, 9]         # of the eight rows, the token at which they stop

    def draw(logits, rows, t):
        drawn.append(rows.tolist())
        assert len(logits) == len(rows)
        return torch.tensor([1 if t + 1 == ends[row] else 0 for row in rows.tolist()])

    assert len(list(model.stream(RAGGED, 12, draw, stop=[1]))) == 9
    assert shapes == [(6, 14), (8, 1), (8, 1), *[(6, 1)] * 6]       # 5 of 6 are not worth a copy
    assert drawn == [[row for row in range(8) if ends[row] > t] for t in range(9)]


def test_u_draws_the_id_at_which_the_sum_of_probabilities_reaches_it():
    logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log()
    u = torch.tensor([1e-9, 0.5, 0.500001, 0.6, 0.7001, 1.0])
    assert sample(logits.repeat(6, 1), u=u).tolist() == [0, 0, 1, 1, 3, 3]
    assert sample(logits.repeat(2, 1), top_k=2, u=torch.tensor([0.62, 0.63])).tolist() == [0, 3]    # 5/8, 3/8


def test_temperature_0_is_argmax_and_dropout_acts_only_in_training():
    x, dropout, plain = torch.randn(100, 50), lively(dropout=0.5), lively()
    asked = 'sample(logits, temperature=0, top_k=3, top_p=0.5) of 100 rows of 50 random logits'
    expect(asked, x.argmax(-1), sample, x, 0, 3, 0.5)
    assert not torch.equal(dropout.train()(prompt())[0], dropout(prompt())[0])
    assert torch.equal(dropout.generate(prompt(), 9, 0), plain.generate(prompt(), 9, 0))
    assert all(part.training for part in dropout.modules())                 # as before
    assert torch.equal(dropout.eval()(prompt())[0], plain.train()(prompt())[0])
    dropout.train().dropout.p = 0.0
    for block in dropout.blocks:            # now both of its sums add nothing to the embedding
        block.dropout.p = 1.0
    embedded = dropout.embedding(prompt())
    assert torch.equal(dropout(prompt())[0], dropout.head(dropout.norm(embedded)))


def test_more_tokens_than_the_context_are_refused():
    refused(f'{BLOCK + 1}.*block_size={BLOCK}', small(), prompt(2, BLOCK + 1))
