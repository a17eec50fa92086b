"""Every new token is the model's, run afresh on the last block_size tokens; the cache only saves work."""
import math

from conftest import refused
from feedback import expect
import torch
from test_model import lively

from model import sample

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


def test_several_positions_behind_a_cache_see_no_future_and_a_mask_decides_if_there_is_one():
    model, idx = small(std=0.1), prompt(2, 9)

    def later(mask):
        cache = model.empty_cache(2, BLOCK)
        model.backbone(idx[:, :4], cache, 0)
        return model.head(model.backbone(idx[:, 4:], cache, 4, mask))
    asked = 'tokens 4 to 8 of 9 at once, the first 4 in the cache'
    expect(f'the logits of {asked}', model(idx)[0][:, 4:], later, None, tolerance=1e-5)
    seen = torch.ones(9, 9, dtype=torch.bool).tril()[None, None, 4:]
    seen[..., 1:, 2] = False                # of the cached keys, one is hidden from all but the first
    expect(f'{asked}, and a mask that hides token 2 from tokens 5 to 8: which of 4 to 8 change their logits?',
           [False] + [True] * 4, lambda: ((later(seen) - later(None)).abs().amax((0, 2)) > 1e-3).tolist())


def test_a_row_that_met_a_stop_id_repeats_it_and_the_stream_ends_when_all_have():
    scripts = torch.tensor([[9, 7, 9, 9, 9], [9, 9, 9, 8, 9]]).T                # the draws of two rows
    for stop, expected in (((7, 8), [[9, 7, 7, 7], [9, 9, 9, 8]]), ((), scripts.T.tolist())):
        draws = iter(scripts)
        written = list(small().stream(prompt(2), 5, lambda logits: next(draws), stop))
        assert torch.stack(written, dim=1).tolist() == expected


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
