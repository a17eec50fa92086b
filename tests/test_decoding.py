"""Many answers in one batch: each is the answer alone, whoever comes and goes beside it."""
import random

import numpy as np
import pytest
from conftest import sharpen
import torch
from test_generation import nucleus_of
from test_model import lively

from model import GPT, GPTConfig
from parts.sample.decoding import Batch

CONTEXT, STOP = 24, {0, 3}


def sharp(**settings):
    torch.manual_seed(0)
    return sharpen(GPT(GPTConfig(97, CONTEXT, 2, 4, 2, 32, **settings)).eval())


@pytest.fixture(scope='module')
def model():
    return sharp()


def prompts_of(n):
    dice = random.Random(n)
    prompts = [[dice.randrange(1, 97) for _ in range(dice.randint(1, CONTEXT + 4))] for _ in range(n)]
    return prompts + prompts[:n // 2]           # some are equal


def written(batch):
    """Run the batch to its end; how many answers took an id in each step."""
    sizes = []
    while batch.queue or batch.live:
        sizes.append(len(batch.step()))
    return sizes


def test_greedy_answers_are_those_of_generate_alone_also_past_the_context(model):
    prompts = prompts_of(20)
    limits = [1 + 7 * i % 40 for i in range(len(prompts))]
    alone = [model.generate(torch.tensor([ids]), limit, 0, stop=STOP)[0, len(ids):].tolist()
             for ids, limit in zip(prompts, limits)]
    for slots in (1, 5, 60):
        batch = Batch(model, STOP, slots)
        answers = [batch.add(ids, limit, None, temperature=0) for ids, limit in zip(prompts, limits)]
        written(batch)
        assert len({len(answer.ids) for answer in answers}) > 8     # or no row is refilled at its own time
        assert sum(answer.length > CONTEXT + 1 for answer in answers) > 5
        for answer, expected in zip(answers, alone):
            assert answer.ids == expected, slots
            assert answer.finish == ('stop' if expected[-1] in STOP else 'length')
            assert answer.log_probs == []           # nobody asked for them


def how(i):
    return {'temperature': [0, 0.7, 1, 1.6][i % 4], 'top_k': [0, 5, 40][i % 3],
            'top_p': [1.0, 0.9, 0.5, 0.0][i // 4 % 4], 'scored_at': [None, 1.0, 0.7][i % 3], 'n_top': i % 5}


@torch.no_grad()
def slowly(model, ids, limit, seed, temperature, top_k, top_p, scored_at, n_top):
    """Independent: no cache, no batch, weights sorted in Python. -> ids, log p of each"""
    dice = random.Random(seed)
    ids = list(ids)
    answer, log_probs = [], []
    while len(answer) < limit and not (answer and answer[-1] in STOP):
        logits = model(torch.tensor([ids[-CONTEXT:]]))[0][0, -1].double()
        u = dice.random()
        nucleus = nucleus_of(logits, max(temperature, 1e-6), top_k, top_p)
        passed = 0.0
        for i in sorted(nucleus):               # in the order of ids
            passed += nucleus[i]
            if passed > u * sum(nucleus.values()):
                break
        answer.append(i)
        ids.append(i)
        log_probs.append((logits / (scored_at or 1)).log_softmax(-1)[i].item())
    return answer, log_probs if scored_at else []


def test_each_answer_is_drawn_as_it_wants_with_its_own_dice(model):
    """1e-4: of float32 sums in another order, at log p down to -15."""
    prompts = prompts_of(24)
    alone = [slowly(model, ids, 1 + i % 17, i, **how(i)) for i, ids in enumerate(prompts)]
    for slots in (1, 7, 64):
        batch = Batch(model, STOP, slots)
        answers = [batch.add(ids, 1 + i % 17, random.Random(i).random, **how(i))
                   for i, ids in enumerate(prompts)]
        written(batch)
        for i, (answer, (ids, log_probs)) in enumerate(zip(answers, alone)):
            assert answer.ids == ids, (slots, i)
            assert answer.log_probs == pytest.approx(log_probs, abs=1e-4), (slots, i)
            assert len(answer.top) == (i % 5 if answer.scored_at else 0)
            assert answer.top == sorted(answer.top, key=lambda pair: -pair[1])


def test_log_probs_in_bfloat16_are_near_those_of_float32():
    """Logits within 0.05, as test_generation.py holds for GPT.stream; log p adds the rounding of the sum."""
    for kind in 'bfloat16', 'autocast':
        model, exact = (lively(std=0.1, n_kv_head=2, block_size=CONTEXT).eval() for _ in range(2))
        batch = Batch(model.bfloat16() if kind == 'bfloat16' else model, STOP, 4)
        with torch.autocast('cpu', torch.bfloat16, enabled=kind == 'autocast'):
            answers = [batch.add([1 + i, 2, 3][:i], 12, random.Random(i).random, scored_at=1.0)
                       for i in range(1, 4)]
            written(batch)
        for answer in answers:
            for i, id in enumerate(answer.ids):
                logits = exact(torch.tensor([[*answer.prompt, *answer.ids[:i]]]))[0][0, -1]
                assert abs(logits.log_softmax(-1)[id].item() - answer.log_probs[i]) < 0.06, kind


def test_equal_prompts_are_run_once_and_a_step_costs_a_position_of_each_live_row():
    model = sharp()
    shapes = []                 # (rows, columns) of what enters the embedding
    model.embedding.register_forward_hook(lambda module, inputs, out: shapes.append(tuple(inputs[0].shape)))
    batch = Batch(model, set(), slots=6)
    for limit in (1, 2, 3, 4, 4, 4, 2, 1):
        batch.add([5, 6, 7, 8], limit, None, temperature=0)
    written(batch)
    # one prompt for all eight: the last two copy it from a row that is being written. Then the batch shrinks
    assert shapes == [(1, 3), (6, 1), (6, 1), (6, 1), (3, 1)]


def test_the_cache_grows_under_an_answer(model):
    model = lively(block_size=200).eval()
    batch = Batch(model, set(), 3)
    answers = [batch.add([1, 2, 3], n, None, temperature=0) for n in (150, 20, 90)]
    batch.step()
    columns = batch.cache.keys.shape[3]
    written(batch)
    assert columns < 100 < batch.cache.keys.shape[3] <= 200
    alone = model.generate(torch.tensor([[1, 2, 3]]), 150, 0)[0, 3:].tolist()
    assert [answer.ids for answer in answers] == [alone[:150], alone[:20], alone[:90]]


def test_the_first_token_may_be_restricted_and_ids_that_the_tokenizer_lacks_are_never_drawn(model):
    batch = Batch(model, STOP)
    batch.add([5], 3, random.Random(1).random)
    answer = batch.add([9, 8], 1, random.Random(1).random, allowed=[65, 66], scored_at=1.0, n_top=5)
    written(batch)
    with torch.no_grad():
        two = model(torch.tensor([[9, 8]]))[0][0, -1, [65, 66]].log_softmax(-1).tolist()
    assert answer.ids[0] in (65, 66)
    assert answer.log_probs[0] == pytest.approx(two[answer.ids[0] - 65], abs=1e-4)
    assert {id for id, _ in answer.top} == {65, 66}

    batch = Batch(model, (), never=range(50, model.config.vocab_size))
    answers = [batch.add([i], 30, np.random.default_rng(i).random, temperature=3.0) for i in range(9)]
    written(batch)
    assert max(max(answer.ids) for answer in answers) < 50


