"""Encoding replays the merges: taking the lowest id first equals going through all merges in order."""
from hypothesis import HealthCheck, given, settings, strategies as st

from tokenizer import Tokenizer

TEXT = 'aaab abab aab baba abcabc bcabca aaaa é🦜é🦜 ' * 3
ONE_CHUNK = Tokenizer.train([TEXT], 256 + 60, special_tokens=(), pattern=r'[\s\S]+', processes=1)
WORDS = Tokenizer.train(['low lower lowest newest widest ' * 5], 256 + 25, special_tokens=(), processes=1)


def in_order(tokenizer, chunk):
    """Each merge in the order it was learned, all over the chunk, from left to right. (BPE as published.)"""
    pieces = [bytes([b]) for b in chunk.encode()]
    for token in tokenizer.vocab[256:]:
        i = 0
        while i + 1 < len(pieces):
            if pieces[i] + pieces[i + 1] == token:
                pieces[i:i + 2] = [token]
            i += 1
    return [tokenizer.vocab.index(piece) for piece in pieces]


@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.text('aabbcé🦜 ', min_size=1, max_size=40))
def test_the_lowest_id_first_is_every_merge_in_order(chunk):
    assert ONE_CHUNK.encode(chunk) == in_order(ONE_CHUNK, chunk)


def test_known_words():
    assert WORDS.vocab[256:259] == [b'es', b'lo', b'est']        # equal counts: smaller ids first
    for word in ('lowest', 'slow', 'testest', 'l', 'wwww'):
        assert WORDS.encode(word) == in_order(WORDS, word)
        assert WORDS.decode(WORDS.encode(word)) == word
    assert len(WORDS.encode('lowest')) < 4
