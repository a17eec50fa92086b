"""Requests that share a batch: each is written as if it were alone, whoever comes and goes beside it."""
import math
import queue
import random
import types

import pytest
import torch
from serving import small, until

from model import sample
from parts.sample.asking import Prompt
from parts.sample.batching import Batch, pick


@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture
def batch(pair):
    batch = Batch(*pair, slots=5, waiting=30)
    yield batch
    pair[0].gate.set()
    until(lambda: not (batch.live or batch.waiting))


def prompts_of(n):
    dice = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 90, (n,), generator=dice).tolist()
    ids = [torch.randint(0, 256, (length,), generator=dice).tolist() for length in lengths]
    return [Prompt(found, None, 0, '') for found in ids]


def events_of(events):
    found = []
    while not found or not found[-1].finish:
        found.append(events.get(timeout=60))
    return found


def draws(i):
    return {'max_tokens': 1 + 5 * i % 17, 'temperature': [0.0, 0.7, 1.0, 1.6][i % 4], 'seed': i,
            'top_k': [0, 5, 40][i % 3], 'top_p': [1.0, 0.9, 0.5, 0.0][i // 4 % 4], 'n_top': i % 4}


@torch.no_grad()
def slowly(pair, prompt, draw, seed):
    """Independent: no cache, no batch, probabilities sorted in Python."""
    model, tokenizer = pair
    dice = random.Random(f'{seed} 0')
    ids, found = list(prompt.ids), []
    while len(found) < draw['max_tokens'] and not (found and found[-1][0] in tokenizer.stop):
        log_p = model(torch.tensor([ids]))[0][0, -1].double().log_softmax(-1).tolist()
        u = dice.random()
        order = sorted(range(len(log_p)), key=lambda i: -log_p[i])
        heat = max(draw['temperature'], 1e-6)
        weights = [math.exp((log_p[i] - log_p[order[0]]) / heat) for i in order[:draw['top_k'] or None]]
        total = sum(weights)
        kept, before = [], 0.0
        for rank, weight in enumerate(weights):
            if rank and before / total >= draw['top_p']:
                break
            kept.append(weight)
            before += weight
        passed, place = 0.0, 0
        for place, weight in enumerate(kept):       # noqa: B007
            passed += weight
            if passed > u * sum(kept):
                break
        ids.append(order[place])
        found.append((order[place], log_p[order[place]]))
    return found


def test_a_request_among_twenty_others_is_the_request_alone(pair, batch):
    prompts = prompts_of(21)
    crowd = [batch.begin([prompt], **draws(i))[1] for i, prompt in enumerate(prompts)]
    crowd = [events_of(events) for events in crowd]
    assert len({len(events) for events in crowd}) > 8           # or no row is refilled at its own time
    for i, prompt in enumerate(prompts):
        alone = events_of(batch.begin([prompt], **draws(i))[1])
        expected = slowly(pair, prompt, draws(i), i)
        for events in (alone, crowd[i]):
            assert [event.id for event in events] == [id for id, _ in expected], i
            assert [event.log_p for event in events] == pytest.approx([p for _, p in expected], abs=1e-4)
            assert all(len(event.top) == i % 4 for event in events)
            assert events[-1].finish == ('stop' if expected[-1][0] in pair[1].stop else 'length')


def test_the_answers_of_one_request_differ_and_are_the_same_again(batch):
    def texts():
        choices, events = batch.begin(prompts_of(1) * 4, max_tokens=12, seed=3)
        ids = [[] for _ in choices]
        finished = 0
        while finished < 4:
            event = events.get(timeout=60)
            ids[event.index].append(event.id)
            finished += event.finish is not None
        return ids
    first = texts()
    assert first == texts() and len({tuple(ids) for ids in first}) == 4


def test_the_first_token_may_be_restricted_and_its_probability_is_that_among_the_allowed(pair, batch):
    prompt = prompts_of(1)[0]._replace(allowed=[65, 66], repeated=1)
    event = events_of(batch.begin([prompt], max_tokens=1, n_top=5)[1])[0]
    with torch.no_grad():
        two = pair[0](torch.tensor([prompt.ids]))[0][0, -1, [65, 66]].log_softmax(-1).tolist()
    assert event.id in (65, 66) and event.log_p == pytest.approx(two[event.id - 65], abs=1e-4)
    assert {id for id, _ in event.top} == {65, 66}


def test_an_answer_ends_where_the_context_ends(pair, batch):
    T = pair[0].config.block_size
    prompt = Prompt([7] * (T - 3), None, 0, '')
    events = events_of(batch.begin([prompt], max_tokens=50, temperature=0)[1])
    assert [event.finish for event in events] == [None] * 3 + ['length']
    with torch.no_grad():
        expected = pair[0].generate(torch.tensor([prompt.ids]), 3, temperature=0)[0, -3:].tolist()
    assert [event.id for event in events][:3] == expected
    for ids in ([], [7] * T):
        with pytest.raises(ValueError, match=f'{len(ids)} tokens.*{T}'):
            batch.begin([Prompt(ids, None, 0, '')])


def test_the_cache_grows_under_an_answer(pair, batch):
    prompt = Prompt(list(range(50)), None, 0, '')
    columns = batch.cache[0][0].shape[2]
    events = events_of(batch.begin([prompt], max_tokens=40, temperature=0)[1])
    with torch.no_grad():
        expected = pair[0].generate(torch.tensor([prompt.ids]), 40, temperature=0, stop=pair[1].stop)[0, 50:]
    assert columns < 50 + len(events) <= batch.cache[0][0].shape[2]
    assert [event.id for event in events] == expected.tolist()


def test_who_goes_away_frees_the_row_and_who_waits_is_counted(pair, batch):
    model = pair[0]
    model.gate.clear()
    running = [batch.begin(prompts_of(1), max_tokens=60)[0][0]]
    until(lambda: batch.live)
    running += [batch.begin(prompts_of(1), max_tokens=60)[0][0] for _ in range(4)]
    waiting = [batch.begin(prompts_of(1), max_tokens=2) for _ in range(30)]
    with pytest.raises(queue.Full):
        batch.begin(prompts_of(1))
    waiting[0][0][0].gone = True
    last = batch.begin(prompts_of(1), max_tokens=2)     # in the place of the one that went away
    with pytest.raises(queue.Full):                     # all or none
        batch.begin(prompts_of(2))
    for choice in running:
        choice.gone = True
    model.gate.set()
    assert len(events_of(last[1])) == 2
    assert all(choice.left > 50 for choice in running) and waiting[0][1].empty()


def test_an_error_ends_the_answers_that_were_being_written_and_nothing_else(pair, batch, capsys):
    model = pair[0]
    weight = model.embedding.weight.data
    before = weight[7].clone()
    weight[7] = math.nan
    assert events_of(batch.begin([Prompt([7, 7], None, 0, '')])[1])[-1].finish == 'error'
    weight[7] = before
    prompt = prompts_of(1)[0]
    expected = slowly(pair, prompt, draws(6), 6)
    again = events_of(batch.begin([prompt], **draws(6))[1])
    assert [event.id for event in again] == [id for id, _ in expected]
    assert 'not finite' in capsys.readouterr().err


@pytest.mark.parametrize('k, p', [(4, 0.8), (2, 0.5), (3, 0.65), (0, 0.9), (4, 1.0)])
def test_tokens_are_drawn_with_the_probabilities_of_sample(k, p):
    """20,000 draws each: a share has a standard error of 0.0035 at most; 0.02 is more than five."""
    logits = torch.tensor([[0.5, 2.0, 1.5, -1.0, 1.9, 0.0]])
    torch.manual_seed(0)
    choice = types.SimpleNamespace(temperature=0.7, top_k=k, top_p=p, allowed=None, dice=random.Random(0))
    ours = pick(logits.expand(20000, -1).clone(), [choice] * 20000)[0].bincount(minlength=6) / 20000
    theirs = sample(logits.expand(20000, -1), 0.7, k, p).bincount(minlength=6) / 20000
    assert (ours - theirs).abs().max() < 0.02 and (ours > 0).equal(theirs > 0)
