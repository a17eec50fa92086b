"""Look-up speculation writes the tokens of greedy generation, in fewer passes; what it cannot, it leaves."""
import pytest
import torch
from test_model import lively

from parts.sample import speculate

BLOCK = 30
small = lambda **settings: lively(**{'block_size': BLOCK, **settings}).eval()
prompt = lambda T=5, seed=0: torch.randint(50, (1, T), generator=torch.Generator().manual_seed(seed))


def lengths_of(model):
    """A list that fills with how many positions each pass has."""
    found = []
    model.embedding.register_forward_hook(lambda m, given, out: found.append(given[0].shape[1]))
    return found


def written(model, *arguments, **settings):
    return [token.tolist() for token in model.stream(*arguments, **settings)]


@pytest.mark.parametrize('kv', [1, 4])
def test_the_tokens_are_those_of_stream_for_prompts_within_and_past_the_context(kv):
    model = small(n_kv_head=kv)
    for T in (1, 2, 3, 4, 9, 22, BLOCK - 1, BLOCK, BLOCK + 1):
        plain = written(model, prompt(T, T), BLOCK + 9, 0)
        assert written(speculate.Lookup(model, 'float32'), prompt(T, T), BLOCK + 9, 0) == plain, T


def test_what_repeats_itself_takes_fewer_passes_and_at_most_nine_positions():
    model = small(std=0.02, block_size=200)
    with torch.no_grad():                   # it writes 3 behind 2, 4 behind 3, ... 2 behind 9
        for block in model.blocks:
            block.attention.w_o.weight.zero_(), block.mlp.w_down.weight.zero_()
        model.embedding.weight.copy_(torch.eye(50, 32))
        model.head.weight = torch.nn.Parameter(torch.eye(50, 32).roll(1, 0))
        model.head.weight[2, 9] = 2
    lengths = lengths_of(model)
    tokens = sum(written(speculate.Lookup(model, 'float32'), torch.tensor([[2, 3]]), 150, 0), [])
    assert tokens == [2 + (2 + i) % 8 for i in range(150)]
    assert lengths[:9] == [2] + [1] * 8 and max(lengths) == 9 and len(lengths) < 9 + 150 / 8


def test_guesses_are_what_followed_and_a_copy_at_the_end_repeats_itself():
    places = {(1, 2, 3): 3, (7, 7, 7): 6}
    assert speculate.guess([1, 2, 3, 4, 5, 1, 2, 3], places, 4) == [4, 5, 1, 2]
    assert speculate.guess([1, 2, 3, 7, 7, 7, 7, 7, 7][:7], places, 4) == [7] * 4
    assert speculate.guess([4, 5], places, 3) == speculate.guess([1, 2, 3, 4, 1, 2, 3], places, 0) == []


@pytest.mark.parametrize('stop', [range(0, 50, 7), [50]])
def test_a_stop_id_and_a_forced_first_token_act_as_in_stream(stop):
    model, first = small(), torch.zeros(50, dtype=torch.bool)
    first[[11, 13]] = True
    for T in (3, 9):
        tokens, expected = (written(m, prompt(T), 30, 0, stop=stop, first=first)
                            for m in (speculate.Lookup(model, 'float32'), model))
        assert tokens == expected and expected[0][0] in (11, 13)


def test_a_choice_that_rounding_turns_is_made_again_as_stream_makes_it(monkeypatch):
    """All guesses are right, but passes of several positions lower their largest score by `error` of it."""
    model = small()
    plain = sum(written(model, prompt(9), 19, 0), [])
    whole = prompt(9)[0].tolist() + plain
    monkeypatch.setattr(speculate, 'guess', lambda ids, places, n: whole[len(ids):len(ids) + n])

    def disturb(module, given, out):
        top = out.max(-1, keepdim=True)
        return out.scatter(-1, top.indices, top.values - error * top.values.abs()) if len(out) > 1 else out
    model.head.register_forward_hook(disturb)
    lengths = lengths_of(model)
    error = 0
    assert sum(written(speculate.Lookup(model, 'float32'), prompt(9), 19, 0), []) == plain
    assert lengths == [9, 9, 9]
    error = 0.3
    assert sum(written(speculate.Lookup(model, 'float32'), prompt(9), 19, 0), []) != plain
    monkeypatch.setattr(speculate, 'ROUNDING', 1.0)
    assert sum(written(speculate.Lookup(model, 'float32'), prompt(9), 19, 0), []) == plain


@pytest.mark.parametrize('settings', [
    dict(temperature=0.5), dict(temperature=0, dtype='int8'), dict(temperature=0, dtype='bfloat16'),
    dict(temperature=0, rows=2), dict(temperature=0, given=[[1, 2]])])
def test_the_rest_is_left_to_the_model(settings, monkeypatch):
    settings = {'dtype': 'float32', 'rows': 1, **settings}
    monkeypatch.setattr(speculate, 'greedy', None)
    model, idx = small(), prompt(5).expand(settings.pop('rows'), -1)
    lookup = speculate.Lookup(model, settings.pop('dtype'))
    torch.manual_seed(0)
    expected = written(model, idx, 9, **settings)
    torch.manual_seed(0)
    assert written(lookup, idx, 9, **settings) == expected
    assert lookup.config is model.config and lookup.training is False


def test_the_mode_is_restored_and_scores_that_are_not_finite_are_an_error():
    model = small().train()
    written(speculate.Lookup(model, 'float32'), prompt(), 5, 0)
    assert model.training
    torch.nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match='not finite'):
        written(speculate.Lookup(model, 'float32'), prompt(), 5, 0)
    assert model.training
