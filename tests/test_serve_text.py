"""From tokens to text: the pieces that a client gets are the text that the tokens spell, up to a stop."""
import codecs
import queue
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parts.sample.asking import Prompt, Text
from parts.sample.decoding import Answer
from parts.sample.openai_api import as_text
from parts.sample.writer import Choice

BYTES = types.SimpleNamespace(decode_bytes=lambda ids: b''.join(PIECES[i] for i in ids))
PIECES = [bytes([b]) for b in range(256)] + [b'ab', b'\n\n', 'é'.encode(), b'abc', b'  x']


def choice(repeated=0, stop=(), limit=99):
    c = Choice(0, None, limit, None, queue.SimpleQueue())
    c.text = Text(Answer((1,), limit, None), BYTES, Prompt([1], None, repeated, ''), stop=stop)
    return c


def take(c, id, finish=None):
    """What take() passes on for one more id."""
    answer = c.text.answer
    answer.ids.append(id)
    answer.log_probs.append(-1.0)
    answer.top = [(id, -1.0), (65, -2.0)]
    answer.finish = finish
    c.take({0})
    return c.pieces.get()


def taken(c, ids, last='length'):
    """All that take() passes on for these ids, until it says that the answer ended."""
    pieces = []
    for i, id in enumerate(ids):
        pieces.append(take(c, id, last if i + 1 == len(ids) else None))
        if pieces[-1].finish:
            break
    return ''.join(p.text for p in pieces), [t for p in pieces for t in p.tokens], pieces[-1].finish


ids_of_text = st.lists(st.sampled_from([*range(0x61, 0x66), 0x0A, 0xC3, 0xA9, 0xE6, 0xFF, *range(256, 261)]),
                       min_size=1, max_size=12)
stops = st.lists(st.text('abc\n é', min_size=1, max_size=4), max_size=3)


@settings(max_examples=150)
@given(ids_of_text, stops)
def test_the_pieces_are_the_text_before_the_first_stop(ids, stop):
    text, tokens, finish = taken(choice(stop=stop), ids)
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


def test_text_that_may_begin_a_stop_is_held_back():
    c = choice(stop=['abX'])
    assert [take(c, ord(x)).text for x in 'zabaab'] == ['z', '', '', 'ab', 'a', '']
    assert take(c, ord('c')).text == 'abc'


def test_a_character_arrives_when_its_last_byte_does():
    c = choice()
    pieces = [take(c, b) for b in '漢x'.encode()]
    assert [p.text for p in pieces] == ['', '', '漢', 'x']
    assert [len(p.tokens) for p in pieces] == [0, 0, 3, 1]
    assert [t.offset for p in pieces for t in p.tokens] == [0, 0, 0, 1]
    assert as_text(b'\xe6') == 'bytes:\\xe6' and as_text('漢'.encode()) == '漢'


@pytest.mark.parametrize('id, ids', [(97, [97, 99]), (256, [256])])
def test_an_id_that_only_repeats_the_prompt_does_not_count(id, ids):
    """begin() allows one more for it: max_tokens=1 is a limit of 2."""
    c = choice(repeated=1, limit=2)
    first = take(c, id)
    if not first.finish:
        take(c, 99, 'length')
    assert c.text.answer.ids == ids and c.text.answer.finish == 'length'


@pytest.mark.parametrize('id, repeated, said', [(97, 1, ''), (256, 1, 'b'), (259, 2, 'c')])
def test_bytes_that_repeat_the_prompt_are_no_part_of_the_answer(id, repeated, said):
    text, tokens, _ = taken(choice(repeated=repeated), [id, 99])
    assert text == said + 'c'
    assert [token.data.decode() for token in tokens] == [*([said] if said else []), 'c']


def test_the_end_token_is_no_text():
    text, tokens, finish = taken(choice(), [97, 98, 0], last='stop')
    assert (text, len(tokens), finish) == ('ab', 2, 'stop')


def test_after_a_stop_the_row_is_given_up_and_its_tokens_end_there():
    c = choice(stop=['b\n'])
    text, tokens, finish = taken(c, [259, 256, 257])        # abc ab \n\n
    assert (text, finish, c.text.answer.finish) == ('abca', 'stop', 'stop')
    assert [token.data for token in tokens] == [b'abc', b'ab']
