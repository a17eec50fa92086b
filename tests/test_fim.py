"""Fill in the middle: a rearranged document can be put back, and a batch follows from seed, step and row."""
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parts.prepare import fim
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXT = 'def größe(x):\n    return x + 1  # 漢字 🙂\n\n' * 3
NAMES = '<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>', '<|endoftext|>'
SHARES = st.floats(0, 1, exclude_max=True)


@functools.cache
def infilling(share=1.0, kind='bpe', seed=7):
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    if kind == 'bpe':
        tokenizer = Tokenizer.train([TEXT * 3 + 'while True:\n    print("hello")\n'], 374, processes=1)
    return fim.Infilling(share, 'clm', tokenizer, seed)


def put_back(ids, tokenizer):
    """What stands before the gap, in it and behind it, as bytes: written apart from parts/prepare/fim.py."""
    begin, suffix_follows, middle_follows, end = map(tokenizer.special.get, NAMES)
    ids = list(ids)
    assert ids[0] == begin and ids[-1] == end and ids.count(suffix_follows) == ids.count(middle_follows) == 1
    a, b = ids.index(suffix_follows), ids.index(middle_follows)
    prefix, suffix, middle = ids[1:a], ids[a + 1:b], ids[b + 1:-1]      # SPM: no prefix; it is in the middle
    assert not {begin, suffix_follows, middle_follows, end} & {*prefix, *suffix, *middle}
    return [tokenizer.decode_bytes(part) for part in (prefix, middle, suffix)]


@pytest.mark.parametrize('kind, spm', [('bpe', True), ('bpe', False), ('byte', True), ('byte', False)])
def test_random_documents_are_rearranged_and_put_back(kind, spm):
    """1,000 in all. Each gets as many ids as it needs, so that nothing is dropped."""
    it, done = infilling(kind=kind), []

    @settings(max_examples=250)
    @given(st.text(max_size=60) | st.text('añ漢🙂 (:\n', min_size=20, max_size=60), SHARES, SHARES)
    def check(text, one, other):
        encode, text = it.tokenizer.encode, text.encode('utf-8', 'replace').decode()
        parts = fim.split(text, one, other)
        n = sum(len(encode(part)) for part in parts) + len(NAMES)
        ids = encode(text)
        found = it.rearrange(np.array(ids + [it.marks[-1]] * (n - len(ids))), one, other, spm)
        assert len(found) == n
        before, between, behind = map(bytes.decode, put_back(found, it.tokenizer))      # whole characters
        assert before + between + behind == text
        assert (before, between) == (('', parts[0] + parts[1]) if spm else parts[:2])
        done.append(text)

    check()
    assert len(done) >= 250


@pytest.mark.parametrize('kind', ['bpe', 'byte'])
def test_in_a_block_only_the_far_ends_are_lost_and_the_rest_stays(kind):
    """Blocks cut documents and characters anywhere; of a piece, only an end or a beginning is lost."""
    it, tokenizer = infilling(kind=kind), infilling(kind=kind).tokenizer
    end = tokenizer.special['<|endoftext|>']
    corpus = np.array([*tokenizer.encode(TEXT * 5), end, *tokenizer.encode(TEXT[:50]), end] * 4)
    as_they_were = whole = 0
    for start in range(0, len(corpus) - 161, 2 if kind == 'byte' else 1):
        ids = corpus[start:start + 161]
        block = it.block(ids, 3, start)
        assert block.shape == ids.shape and block.dtype == ids.dtype
        at = 0
        for piece in np.split(ids, np.flatnonzero(ids == end) + 1):
            found, at = block[at:at + len(piece)], at + len(piece)
            text = tokenizer.decode_bytes(piece[piece != end].tolist()).decode('utf-8', 'ignore').encode()
            if (found == piece).all():
                as_they_were += len(piece) >= 40        # the middle is nearly all of it
            else:
                back = b''.join(put_back(found, tokenizer))
                assert back in text and (text.startswith(back) or text.endswith(back))
                assert len(text) - len(back) < 60
                whole += 1
    assert whole > 20 * as_they_were and whole > 200


def batch(seed=7, step=3, rows=range(64), share=0.5):
    it = infilling(share, seed=seed)
    ids = np.array(it.tokenizer.encode('while x:\n    print(x)\n' * 99))[:129]
    x, y = np.tile(ids[:-1], (len(rows), 1)), np.tile(ids[1:], (len(rows), 1))
    found = it.apply(x, y, step, rows)
    assert (found[0][:, 1:] == found[1][:, :-1]).all()              # targets are the inputs, one later
    return found[0], (found[0] != x).any(1)


def test_a_batch_follows_from_seed_step_and_row_alone():
    whole = batch()[0]
    parts = [batch(rows=range(i, i + 8))[0] for i in range(0, 64, 8)]               # as eight devices would
    assert (whole == np.concatenate(parts)).all()
    for other in (batch(seed=8), batch(step=4), batch(rows=range(64, 128))):
        assert (whole != other[0]).any(1).mean() > 0.5


def test_the_share_is_that_of_the_documents_and_half_of_them_are_spm():
    n = 1000
    for share in (0.1, 0.5, 1.0):
        x, changed = batch(rows=range(n), share=share)
        margin = 4 * (share * (1 - share) / n) ** 0.5 + 0.03 * share    # some are too short
        assert abs(changed.mean() - share) <= margin
    marks = infilling().marks
    spm = x[changed, 1] == marks[1]
    assert abs(spm.mean() - 0.5) < 0.07


def test_functions_and_their_gaps_are_those_of_the_source():
    function = '    def f(self):\n        """Doc."""\n        a = 1\n\n        return a\n'
    others = 'def g(): return 2\ndef h():\n    """Only a\n    docstring."""\n'
    (text, begin), = fim.functions(f'import os\n\x0c\nclass A:\n{function}\n{others}')
    assert text == function
    assert text[begin:] == '        a = 1\n\n        return a\n'
    dice = np.random.default_rng(0)
    single, multi = (fim.gaps(text, begin, kind, dice) for kind in ('single-line', 'multi-line'))
    assert [middle for _, middle, _ in single] == ['a = 1', 'return a']
    assert [middle for _, middle, _ in multi] == ['a = 1\n\n        return a']
    spans = [fim.gaps(text, begin, 'random-span', dice)[0] for _ in range(200)]
    assert all(middle and len(prefix) >= begin for prefix, middle, _ in spans)
    assert all(''.join(gap) == text for gap in single + multi + spans) and len(set(spans)) > 150
