"""Who reads an answer gets the text that its tokens spell, up to a stop; after an error the next is right."""
import codecs
import math
import types

import pytest
from conftest import refused
import torch
from hypothesis import given, strategies as st
from test_serve import small, until, writer_of

from parts.sample.asking import Prompt, Text
from parts.sample.decoding import Answer
from parts.sample.writer import Reader

PIECES = [bytes([b]) for b in range(256)] + [b'ab', b'\n\n', 'é'.encode(), b'abc', b'  x']
BYTES = types.SimpleNamespace(decode_bytes=lambda ids: b''.join(PIECES[i] for i in ids))


# --- from tokens to text ------------------------------------------------------------------------------------
def reader_of(repeated=0, stop=()):
    """The reader of an answer; the prompt ended with `repeated` bytes that its first id writes again."""
    return Reader(Text(Answer((1,), 99, None), BYTES, Prompt([1], None, repeated, ''), stop=stop))


def take(reader, id, finish=None):
    """The text and the tokens that the reader gets for one more id."""
    answer = reader.text.answer
    answer.ids.append(id)
    answer.log_probs.append(-1.0)
    answer.finish = finish
    reader.take({0})
    if reader.pieces.empty():
        return '', []
    return reader.pieces.get()[:2]


def take_all(reader, ids, last='length'):
    """All text, all tokens and the end that the reader gets for these ids."""
    text, tokens = '', []
    for i, id in enumerate(ids):
        new, more = take(reader, id, last if i + 1 == len(ids) else None)
        text += new
        tokens += more
        if reader.text.answer.finish:
            break
    return text, tokens, reader.text.answer.finish


ids_of_text = st.lists(st.sampled_from([*range(0x61, 0x66), 0x0A, 0xC3, 0xA9, 0xE6, 0xFF, *range(256, 261)]),
                       min_size=1, max_size=12)
stops = st.lists(st.text('abc\n é', min_size=1, max_size=4), max_size=3)


@given(ids_of_text, stops)
def test_the_pieces_are_the_text_before_the_first_stop(ids, stop):
    text, tokens, finish = take_all(reader_of(stop=stop), ids)
    for n in range(1, len(ids) + 1):        # the first moment at which the text so far holds a stop
        decoder = codecs.getincrementaldecoder('utf-8')('replace')
        whole = decoder.decode(BYTES.decode_bytes(ids[:n]), final=n == len(ids))
        places = [whole.find(s) for s in stop if s in whole]
        if places:
            assert (text, finish) == (whole[:min(places)], 'stop')
            break
    else:
        assert (text, finish) == (whole, 'length')
        assert b''.join(token.data for token in tokens) == BYTES.decode_bytes(ids)
    assert not any(s in text for s in stop)
    assert all(0 <= token.offset <= len(text) for token in tokens)


def test_a_character_arrives_with_its_last_byte_and_no_bytes_of_the_prompt_or_of_a_stop_do():
    reader = reader_of()
    pieces = [take(reader, b) for b in '漢x'.encode()]
    assert [text for text, _ in pieces] == ['', '', '漢', 'x']
    assert [len(tokens) for _, tokens in pieces] == [0, 0, 3, 1]
    assert [token.offset for _, tokens in pieces for token in tokens] == [0, 0, 0, 1]

    for id, repeated, begin in (97, 1, ''), (256, 1, 'b'), (259, 2, 'c'):
        text, tokens, _ = take_all(reader_of(repeated), [id, 99])
        assert text == begin + 'c', id
        assert [token.data.decode() for token in tokens] == [*([begin] if begin else []), 'c'], id

    text, tokens, finish = take_all(reader_of(), [97, 98, 0], last='stop')
    assert (text, len(tokens), finish) == ('ab', 2, 'stop')


# --- the thread ---------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture
def writer(pair):
    writer = writer_of(*pair, slots=5, most=30)
    yield writer
    until(lambda: not (writer.batch.live or writer.batch.queue))


PROMPT = Prompt([100, 101, 102, 32], None, 0, '')


def end_of(reader):
    """The ids of an answer and how it ended, when it has."""
    finish = None
    while not finish:
        finish = reader.pieces.get(timeout=60).finish
    return reader.text.answer.ids, finish


def test_an_answer_ends_where_the_context_ends(pair, writer):
    T = pair[0].config.block_size
    prompt = Prompt([7] * (T - 3), None, 0, '')
    ids, finish = end_of(writer.add(prompt, 50, 0, temperature=0))
    greedy = pair[0].generate(torch.tensor([prompt.ids]), 3, temperature=0)[0, -3:].tolist()
    assert (ids[:3], len(ids), finish) == (greedy, 4, 'length')
    for bad in ([], [7] * T):
        refused(f'{len(bad)} tokens.*{T}', writer.add, Prompt(bad, None, 0, ''), 1, 0)


def test_an_error_ends_the_answers_of_its_moment_and_the_next_are_right(pair, writer, capsys):
    before = end_of(writer.add(PROMPT, 9, 6))
    weight = pair[0].embedding.weight.data
    row = weight[7].clone()
    weight[7] = math.nan
    assert end_of(writer.add(Prompt([7, 7], None, 0, ''), 9, 0))[1] == 'error'
    weight[7] = row
    assert end_of(writer.add(PROMPT, 9, 6)) == before
    assert 'not finite' in capsys.readouterr().err
