"""The thread that writes for many readers: who goes away frees a row, and an error ends little."""
import math
import queue

import pytest
import torch
from serving import small, until, writer_of

from parts.sample.asking import Prompt


@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture
def writer(pair):
    writer = writer_of(pair, slots=5, most=30)
    yield writer
    pair[0].gate.set()
    until(lambda: not (writer.batch.live or writer.waiting))


def prompts_of(n):
    dice = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 90, (n,), generator=dice).tolist()
    ids = [torch.randint(0, 256, (length,), generator=dice).tolist() for length in lengths]
    return [Prompt(each, None, 0, '') for each in ids]


def ids_of(choices, pieces):
    """The ids of the choices, when all have come to an end; and how each ended."""
    ends = {}
    while len(ends) < len(choices):
        piece = pieces.get(timeout=60)
        if piece.finish:
            ends[piece.index] = piece.finish
    return [choice.text.answer.ids for choice in choices], [ends[i] for i in range(len(choices))]


def test_the_answers_of_one_request_differ_and_are_the_same_again_in_a_crowd(writer):
    alone = ids_of(*writer.add(prompts_of(1) * 4, max_tokens=12, seed=3))[0]
    crowd = [writer.add([prompt], max_tokens=5 + i, seed=i) for i, prompt in enumerate(prompts_of(20))]
    assert ids_of(*writer.add(prompts_of(1) * 4, max_tokens=12, seed=3))[0] == alone
    assert len({tuple(ids) for ids in alone}) == 4
    for i, request in enumerate(crowd):
        assert ids_of(*writer.add([prompts_of(20)[i]], max_tokens=5 + i, seed=i)) == ids_of(*request)


def test_an_answer_ends_where_the_context_ends(pair, writer):
    T = pair[0].config.block_size
    prompt = Prompt([7] * (T - 3), None, 0, '')
    [ids], ends = ids_of(*writer.add([prompt], max_tokens=50, seed=0, temperature=0))
    with torch.no_grad():
        assert ids[:3] == pair[0].generate(torch.tensor([prompt.ids]), 3, temperature=0)[0, -3:].tolist()
    assert len(ids) == 4 and ends == ['length']
    for bad in ([], [7] * T):
        with pytest.raises(ValueError, match=f'{len(bad)} tokens.*{T}'):
            writer.add([Prompt(bad, None, 0, '')], 1, 0)


def test_who_goes_away_frees_the_row_and_who_waits_is_counted(pair, writer):
    model = pair[0]
    model.gate.clear()
    running = [writer.add(prompts_of(1), 60, 0)[0]]
    until(lambda: writer.batch.live)
    running += [writer.add(prompts_of(1), 60, 0)[0] for _ in range(4)]
    waiting = [writer.add(prompts_of(1), 2, 0) for _ in range(30)]
    with pytest.raises(queue.Full):
        writer.add(prompts_of(1), 2, 0)
    writer.end(waiting[0][0])
    last = writer.add(prompts_of(1), 2, 0)              # in the place of the one that went away
    with pytest.raises(queue.Full):                     # all or none
        writer.add(prompts_of(2), 2, 0)
    for choices in running:
        writer.end(choices)
    model.gate.set()
    assert len(ids_of(*last)[0][0]) == 2
    assert len(running[0][0].text.answer.ids) < 50 and waiting[0][1].empty() and waiting[0][0][0].text is None


def test_an_error_ends_the_answers_that_were_being_written_and_nothing_else(pair, writer, capsys):
    prompt = prompts_of(1)[0]
    before = ids_of(*writer.add([prompt], 9, 6))
    weight = pair[0].embedding.weight.data
    row = weight[7].clone()
    weight[7] = math.nan
    assert ids_of(*writer.add([Prompt([7, 7], None, 0, '')], 9, 0))[1] == ['error']
    weight[7] = row
    assert ids_of(*writer.add([prompt], 9, 6)) == before
    assert 'not finite' in capsys.readouterr().err
