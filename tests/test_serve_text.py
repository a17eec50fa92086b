"""From tokens to text: the pieces that a client gets are the text that the tokens spell, up to a stop."""
import codecs
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parts.sample.asking import Prompt
from parts.sample.batching import Choice, Event
from parts.sample.openai_api import as_text

BYTES = types.SimpleNamespace(decode_bytes=lambda ids: b''.join(PIECES[i] for i in ids))
PIECES = [bytes([b]) for b in range(256)] + [b'ab', b'\n\n', 'é'.encode(), b'abc', b'  x']


def choice(repeated=0, **draw):
    return Choice(BYTES, Prompt([1], None, repeated, ''), 0, None, draw)


def taken(choice, ids, last='length'):
    """All that take() gives for these ids, until it says that the answer ended."""
    found = []
    for i, id in enumerate(ids):
        top = [(id, -1.0), (65, -2.0)]
        found.append(choice.take(Event(0, id, -1.0, top, last if i + 1 == len(ids) else None)))
        if found[-1][2]:
            break
    return ''.join(f[0] for f in found), [t for f in found for t in f[1]], found[-1][2]


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
    assert [c.take(Event(0, ord(x), 0.0, [], None))[0] for x in 'zabaab'] == ['z', '', '', 'ab', 'a', '']
    assert c.take(Event(0, ord('c'), 0.0, [], None))[0] == 'abc'


def test_a_character_arrives_when_its_last_byte_does():
    c = choice()
    found = [c.take(Event(0, b, -0.5, [], None)) for b in '漢x'.encode()]
    assert [f[0] for f in found] == ['', '', '漢', 'x']
    assert [len(f[1]) for f in found] == [0, 0, 3, 1]
    assert [t.offset for f in found for t in f[1]] == [0, 0, 0, 1]
    assert as_text(b'\xe6') == 'bytes:\\xe6' and as_text('漢'.encode()) == '漢'


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
    assert (text, finish, c.gone) == ('abca', 'stop', True)
    assert [token.data for token in tokens] == [b'abc', b'ab']
