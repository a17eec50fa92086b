"""Every new token is the model's, run afresh on the last block_size tokens; the cache only saves work."""
import itertools
import math

import pytest
from conftest import refused
import torch
from test_model import lively

from model import IGNORE, sample

BLOCK = 12
small = lambda **settings: lively(**{'block_size': BLOCK, **settings}).eval()
prompt = lambda B=3, T=5: torch.randint(50, (B, T), generator=torch.Generator().manual_seed(T))


def nucleus_of(row, temperature, top_k, top_p):
    """{id: weight} by nothing but sorting: the k largest, then the fewest that reach p, but at least one."""
    row = (row.double() / temperature).tolist()
    kept = sorted(range(len(row)), key=lambda i: -row[i])[:top_k or len(row)]
    weight = {i: math.exp(row[i] - max(row)) for i in kept}
    nucleus = {}
    for i in kept:
        if not nucleus or sum(nucleus.values()) < top_p * sum(weight.values()):
            nucleus[i] = weight[i]
    return nucleus


def naive_sample(logits, temperature, top_k, top_p):
    rows = [nucleus_of(row, temperature, top_k, top_p or 1) for row in logits]
    weights = [[nucleus.get(i, 0.0) for i in range(logits.shape[1])] for nucleus in rows]
    return torch.multinomial(torch.tensor(weights), 1)


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
            assert torch.equal(model.generate(ids, 18, temperature=0), naive(model, ids, 18)), (kv, T)


def test_cached_sampling_equals_a_naive_sampler_with_the_same_seed():
    model = small(n_kv_head=2)
    for top_k, top_p in ((None, None), (7, None), (0, 0.7), (9, 0.8), (1, None), (500, 1.0)):
        for T in range(1, BLOCK + 4, 3):
            torch.manual_seed(T)
            ours = model.generate(prompt(3, T), BLOCK, 0.8, top_k, top_p)
            torch.manual_seed(T)
            pick = lambda logits: naive_sample(logits, 0.8, top_k, top_p)
            assert torch.equal(ours, naive(model, prompt(3, T), BLOCK, pick)), (top_k, top_p, T)


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
    for T, kv in ((24, 4), (24, 1), (700, 2)):
        model, idx = small(block_size=T, n_kv_head=kv), prompt(2, T)
        logits = model(idx)[0]
        for t in range(0, T - 1, T // 24):
            changed = torch.cat((idx[:, :t + 1], (idx[:, t + 1:] + 1 + t % 49) % 50), 1)
            same = (model(changed)[0] == logits).all(-1).all(0)
            assert same[:t + 1].all() and not same[t + 1:].any(), (T, t)


def test_several_positions_behind_a_cache_see_no_future_and_a_mask_decides_if_there_is_one():
    model, idx = small(std=0.1), prompt(2, 9)
    cache = model.empty_cache(2, BLOCK)
    model.backbone(idx[:, :4], cache, 0)
    later = lambda mask: model.head(model.backbone(idx[:, 4:], cache, 4, mask))
    assert (later(None) - model(idx)[0][:, 4:]).abs().max() < 1e-5
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    mask[5:, 2] = False                                         # of the cached keys, one is hidden from some
    seen = mask[None, None, 4:]
    kept = seen.clone()
    assert (later(seen) - model(idx, mask=mask[None, None])[0][:, 4:])[:, 0].abs().max() < 1e-5
    assert (later(seen) - later(None))[:, 1:].abs().max() > 1e-3 and torch.equal(seen, kept)


def test_rows_stop_alone_repeat_their_stop_id_and_the_last_one_ends_it():
    free = naive(small(), prompt(), 20)[:, 5:].tolist()
    for at in itertools.product(range(0, 9, 3), repeat=3):
        stop = [row[i] for row, i in zip(free, at)]
        first = [next(i for i, token in enumerate(row) if token in stop) for row in free]
        n = max(first) + 1
        expected = [row[:i + 1] + [row[i]] * (n - i - 1) for row, i in zip(free, first)]
        assert small().generate(prompt(), 20, 0, stop=stop)[:, 5:].tolist() == expected, at
    assert small().generate(prompt(), 20, 0, stop=[50])[:, 5:].tolist() == free


# --- prompts of different lengths ---------------------------------------------------------------------------
CONTEXT, LONGEST, NEW = 48, 39, 30      # tokens: a long prompt and its answer do not fit into the context


def padded(rows):
    T = max(len(row) for row in rows)
    return torch.tensor([[IGNORE] * (T - len(row)) + row for row in rows])


@pytest.fixture(scope='module')
def sharp():
    return small(block_size=CONTEXT, n_kv_head=2)


def alone(model, ids, u, stop, **how):
    """Independent: one row, no cache, the whole window afresh for each token."""
    ids = torch.tensor([ids])
    answer = []
    with torch.no_grad():
        while len(answer) < len(u) and not (answer and answer[-1] in stop):
            logits = model(ids[:, -CONTEXT:])[0][:, -1]
            token = sample(logits, u=u[len(answer)][None], **how)
            answer.append(token.item())
            ids = torch.cat((ids, token[None]), 1)
    return answer


def cut(row, stop):
    ends = [i for i, id in enumerate(row) if id in stop]
    return row[:ends[0] + 1] if ends else row


def test_rows_of_1_to_39_tokens_in_a_batch_are_what_they_are_alone_also_past_the_context(sharp):
    """Greedy, and sampled with the same numbers; whether the host looks at each token or at every 16th; and
    whichever rows are next to it: the batch, its halves in another order."""
    dice = torch.Generator().manual_seed(0)
    rows = [torch.randint(50, (n,), generator=dice).tolist() for n in range(1, LONGEST + 1)]
    u = 1 - torch.rand(LONGEST, NEW, generator=dice)
    for how, stop in (({'temperature': 0}, [3, 7]), ({'temperature': 0.9, 'top_k': 20, 'top_p': 0.9}, [3])):
        expected = [alone(sharp, row, numbers, stop, **how) for row, numbers in zip(rows, u)]
        assert len({len(answer) for answer in expected}) > 5
        for members in (range(LONGEST), range(LONGEST - 1, 0, -2)):
            numbers = u[list(members)]
            draw = lambda logits, left, i: sample(logits, u=numbers[left, i], **how)
            for look in (1, 16):
                new = sharp.stream(padded([rows[i] for i in members]), NEW, stop=stop, draw=draw, look=look)
                found = torch.stack(list(new), 1).tolist()
                assert [cut(row, stop) for row in found] == [expected[i] for i in members], (how, look)
                assert all(set(row[len(cut(row, stop)):]) <= {cut(row, stop)[-1]} for row in found)


def test_an_equal_prompt_runs_once_and_a_row_that_ended_costs_nothing_from_the_next_look_on():
    model = small(block_size=64)
    shapes = []                 # (rows, columns) of what enters the embedding
    model.embedding.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    idx = padded([[5, 6, 7], [8], [5, 6, 7], [5, 6, 7]])
    for look, sizes in (1, [4, 3, 3, 2, 2, 1]), (4, [4, 4, 4, 1, 1, 1]):
        for end in (True, False):           # rows end by IGNORE, or by an id of stop
            shapes.clear()
            ends = torch.tensor([1, 6, 3, 5]) if look == 1 else torch.tensor([2, 6, 0, 3])
            draw = lambda logits, rows, i: torch.where(i < ends[rows], 9, IGNORE if end else 7)
            tokens = torch.stack(list(model.stream(idx, 7, stop=[7], draw=draw, look=look)), 1)
            assert shapes[0] == (2, 3) and [n for n, _ in shapes[1:]] == sizes, (look, shapes)
            assert [row.count(9) for row in tokens.tolist()] == ends.tolist()
    shapes.clear()
    list(model.stream(prompt(2, 5), 4, 0))
    assert shapes == [(2, 5), (2, 1), (2, 1), (2, 1)]


def test_u_draws_the_id_at_which_the_sum_of_probabilities_reaches_it():
    logits = torch.tensor([0.5, 0.2, 0.0, 0.3]).log()
    for u, id in ((1e-9, 0), (0.5, 0), (0.500001, 1), (0.6, 1), (0.7001, 3), (1.0, 3)):
        assert sample(logits[None], u=torch.tensor([u])).tolist() == [id], u
    assert sample(logits.repeat(2, 1), top_k=2, u=torch.tensor([0.62, 0.63])).tolist() == [0, 3]    # 5/8, 3/8
    u = torch.linspace(0, 1, 10001)[1:]
    counts = sample(logits.repeat(10000, 1), u=u).bincount(minlength=4)
    assert (counts - torch.tensor([5000, 2000, 0, 3000])).abs().max() <= 1


LOGITS = torch.tensor([[0.5, 9.0, -1.0, 8.5, 0.0], [4.0, -math.inf, 3.0, 3.9, -math.inf]])


def test_at_the_limits_of_float32_a_tiny_temperature_is_the_argmax_and_a_huge_one_draws_any_allowed_token():
    for temperature in (0, 1e-300, 1e-40, 1e-20, 1e-6):
        for top_k, top_p in ((None, None), (3, None), (None, 1e-320), (2, 0.5)):
            assert sample(LOGITS, temperature, top_k, top_p).tolist() == [1, 0], (temperature, top_k, top_p)
    torch.manual_seed(0)
    many = LOGITS.repeat(200, 1)
    for temperature in (1e6, 1e30, 1e300, 1.7e308):
        ids = sample(many, temperature)
        assert set(ids[::2].tolist()) == {0, 1, 2, 3, 4}, temperature
        assert set(ids[1::2].tolist()) == {0, 2, 3}, temperature            # the others are masked


def test_scores_that_are_not_numbers_are_an_error_and_not_a_token():
    for bad in (math.nan, math.inf, -math.inf):
        for temperature in (0, 1e-40, 0.8, 1e300):
            for look in (1, 16):
                model = small(tie_embeddings=False)
                model.head.weight.data[7] = bad         # an id's score is infinite, or no number
                with pytest.raises(ValueError, match='not finite.*earlier checkpoint'):
                    list(model.stream(prompt(), 5, temperature, look=look))
    assert sample(torch.full((2, 3), math.nan), u=torch.ones(2)).max() < 3      # an id that exists


def test_temperature_0_is_argmax_and_dropout_acts_only_in_training():
    x, dropout, plain = torch.randn(100, 50), lively(dropout=0.5), lively()
    assert torch.equal(sample(x, 0, 3, 0.5), x.argmax(-1))
    assert not torch.equal(dropout.train()(prompt())[0], dropout(prompt())[0])
    assert torch.equal(dropout.generate(prompt(), 9, 0), plain.generate(prompt(), 9, 0))
    assert torch.equal(dropout.eval()(prompt())[0], plain.train()(prompt())[0])
    dropout.train().dropout.p = 0.0
    for block in dropout.blocks:            # now both of its sums add nothing to the embedding
        block.dropout.p = 1.0
    embedded = dropout.embedding(prompt())
    assert torch.equal(dropout(prompt())[0], dropout.head(dropout.norm(embedded)))


def test_bad_values_and_contexts_are_value_errors_and_the_mode_is_restored():
    model = small()
    for mode in (True, False):
        model.train(mode)
        for name, value in (('temperature', -0.1), ('temperature', math.nan), ('top_k', -1), ('top_p', 0.0),
                            ('top_p', 1.5)):
            refused(f'{name}={value}', model.generate, prompt(), 3, **{name: value})
        refused('empty', model.generate, prompt(2, 0), 3)
        refused(f'{BLOCK + 1}.*block_size={BLOCK}', model, prompt(2, BLOCK + 1))
        next(model.stream(prompt(), 9))
        model.generate(prompt(), 2)
        assert all(part.training is mode for part in model.modules())
