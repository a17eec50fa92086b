"""Lines of JSON become token ids: what is cut, dropped and refused; batches of rows of about one length."""
import itertools

import numpy as np
import pytest
from conftest import refused, write
from hypothesis import strategies as st

from parts.train import records
from tokenizer import SPECIAL_TOKENS, Tokenizer

# one chunk for any text; each header is one token, and some tokens would swallow an edge of the frame
HEADERS = [word[:i].encode() for word in ('system\n', 'user\n', 'assistant\n', 'tool\n')
           for i in range(2, 11)]
TRAPS = [b'yo', b'\ny', b'\nyo', b'yo\n', b'>\n', b'|>', b'<|']
VOCAB = [*(bytes([b]) for b in range(256)), *HEADERS, *TRAPS]
TRAPPING = Tokenizer('bpe', list(dict.fromkeys(VOCAB)), SPECIAL_TOKENS, r'[\s\S]+')
BYTES = Tokenizer.byte(SPECIAL_TOKENS[:4])
S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))

words = st.sampled_from(['<|im_end|>', '<|im_start|>', 'yo', '\n', 'é'])
contents = st.text(max_size=9) | st.lists(words).map(''.join)
roles = st.sampled_from(['system', 'user', 'assistant', 'tool'])
chats = st.lists(st.fixed_dictionaries({'role': roles, 'content': contents}), min_size=1, max_size=6)


def say(role, content):
    return {'role': role, 'content': content}


def pair(prompt, *answers):
    """As read_pairs makes it; the frame written out by hand."""
    asked = [S, *b'user\n', *prompt.encode(), E, 10, S, *b'assistant\n']
    return tuple((asked, [*a.encode(), E] if a is not None else []) for a in answers)


def read(folder, *lines, T=96):
    return records.read_pairs(str(write(folder / 'pairs.jsonl', lines)), T, BYTES, 'kto')


# --- preferences --------------------------------------------------------------------------------------------
def test_what_lines_become(tmp_path):
    talk = [say('system', 'be'), say('user', 'q')]
    frame = [S, *b'system\nbe', E, 10, S, *b'user\nq', E, 10, S, *b'assistant\n']
    pairs, summary = read(
        tmp_path, {'prompt': 'q', 'chosen': 'é', 'rejected': 'no', 'margin': 3},
        {'prompt': talk, 'chosen': 'yes', 'rejected': 'no'},
        {'prompt': 'q', 'chosen': '', 'rejected': ''},
        {'prompt': 'q', 'completion': 'up', 'label': True},
        {'prompt': 'q', 'completion': 'no', 'label': False},
        {'prompt': 'a<|im_end|>', 'chosen': '<|im_start|>', 'rejected': ''})
    assert pairs == [pair('q', 'é', 'no'), ((frame, [*b'yes', E]), (frame, [*b'no', E])),
                     pair('q', 'up', None), pair('q', None, 'no'),
                     pair('a<|im_end|>', '<|im_start|>', '')]
    assert summary == 'cut to 96 tokens: 0; left out because both answers are the same: 1'
    assert sum(i >= 256 for i in pairs[-1][0][0] + pairs[-1][0][1]) == 4    # the frame's: none is forged


def test_too_long_pairs_lose_the_prompt_s_left_and_only_then_the_answer_s_right(tmp_path):
    for T, n_prompt, n_answer in itertools.product((2, 3, 10, 40, 95), (1, 5, 30, 99), (0, 2, 30, 99)):
        prompt, answer = list(range(n_prompt)), list(range(100, 100 + n_answer))
        p, a = records.fit_pair(prompt, answer, T)
        assert p and p == prompt[-len(p):] and a == answer[:len(a)]
        assert len(p) + len(a) == min(n_prompt + n_answer, T)       # nothing is cut in vain
        assert a == answer or len(p) == min(n_prompt, max(1, T // 4))     # only if 3/4 are too little


def test_a_pair_whose_answers_are_cut_to_the_same_is_dropped_and_counted(tmp_path):
    """Its loss has a gradient of rounding errors, of which AdamW makes steps of full size."""
    late = {'prompt': 'q', 'chosen': 'a' * 99 + 'x', 'rejected': 'a' * 99 + 'y'}
    early = {'prompt': 'q', 'chosen': 'x' + 'a' * 99, 'rejected': 'y'}
    pairs, summary = read(tmp_path, late, early, T=48)
    assert [chosen[1][:2] for chosen, _ in pairs] == [[*b'xa']] and ': 1; left out' in summary
    assert pairs[0][0][0] == pairs[0][1][0]         # one prompt
    refused('48 tokens', read, tmp_path, late, T=48)


# --- what is refused ----------------------------------------------------------------------------------------
PAIR = '{"prompt": "q", "chosen": "a", "rejected": "b"}'
UP = '{"prompt": "q", "completion": "a", "label": true}'


def test_a_line_that_cannot_be_used_is_named_by_its_number(tmp_path):
    pairs = lambda path: records.read_pairs(path, 96, BYTES, 'dpo')
    for reader, good, bad, word in (
            (pairs, PAIR, '{"prompt": ""}', 'chosen'),
            (pairs, PAIR, UP.replace('true', '"false"'), 'true or false'),
            (pairs, PAIR, PAIR.replace('"a"', 'null'), 'text')):
        (tmp_path / 'bad.jsonl').write_text(f'{good}\n{bad}', encoding='utf-8')
        refused(['bad.jsonl, line 2', word, 'prepare.py'], reader, str(tmp_path / 'bad.jsonl'))
    (tmp_path / 'up').write_text(UP, encoding='utf-8')
    refused('up has answers with a label .*=dpo .* add --loss_type=kto$', pairs, str(tmp_path / 'up'))


def epoch_of(batches, epoch):
    """The rows of its steps, (steps, batch_size)."""
    return np.array([batches.of(epoch * batches.per_epoch + i) for i in range(batches.per_epoch)])


@pytest.mark.parametrize('n, batch_size', [(2003, 8), (300, 7), (5, 8), (1, 3)])
def test_an_epoch_visits_each_row_at_most_once_and_epochs_differ(n, batch_size):
    lengths = np.random.default_rng(0).lognormal(4, 1, n).astype(int) + 2
    epochs = [epoch_of(records.Batches(lengths, batch_size, seed), epoch)
              for seed, epoch in ((1, 0), (1, 9), (2, 0))]
    for rows in epochs:
        assert rows.shape == (max(1, n // batch_size), batch_size)
        counts = np.bincount(rows.ravel(), minlength=n)
        assert len(counts) == n and counts.max() == max(1, -(-batch_size // n))     # a few: several times
    assert len({rows.tobytes() for rows in epochs}) == (3 if n > 1 else 1)


def test_a_batch_has_rows_of_about_one_length_and_short_and_long_ones_come_in_turn():
    lengths = np.random.default_rng(0).lognormal(4, 1, 2003).astype(int) + 2
    rows = epoch_of(records.Batches(lengths, 8, 1), 0)
    n_padded = (lengths[rows].max(1, keepdims=True) - lengths[rows]).sum()
    assert n_padded < 0.2 * lengths[rows].sum()             # 1.2 in any order
    assert 0.4 < (np.diff(lengths[rows].mean(1)) > 0).mean() < 0.6
