"""Masked tokens, hidden spans, packed documents: what the model is given, and what it must not see."""
import itertools

import numpy as np
import pytest
import torch
from conftest import mistake, ok, refused, run, series, train, write_bins
from hypothesis import given, strategies as st

from extras.objectives import Objective, document_mask, hide_spans, hide_tokens, span_lengths
from model import GPT, GPTConfig, IGNORE
from tokenizer import SPECIAL_TOKENS, Tokenizer

MASK, N = 500, 400          # ids of text are below N
X = np.random.default_rng(0).integers(0, N, (64, 200))
SENTINELS = list(range(500, 554))
SPANS = {f'<|span_{i}|>': id for i, id in enumerate(SENTINELS)}
MASKED = {'<|mask|>': MASK}


def test_of_15_percent_80_are_masked_10_random_10_kept():
    x, y = hide_tokens(X, 1, 7, range(64), MASKED, N)
    chosen = y != IGNORE
    assert (x[~chosen] == X[~chosen]).all() and (y[chosen] == X[chosen]).all()
    n = chosen.sum()
    assert abs(n / X.size - 0.15) < 4 * (0.15 * 0.85 / X.size) ** 0.5
    for share, found in ((0.8, x[chosen] == MASK), (0.1, x[chosen] == X[chosen])):
        assert abs(found.mean() - share) < 4 * (share * (1 - share) / n) ** 0.5 + 0.1 / N
    other = x[chosen & (x != MASK) & (x != X)]
    assert 0 <= other.min() and other.max() < N and len(set(other.tolist())) > 50


def test_what_is_hidden_follows_from_seed_step_and_row_alone():
    """Of copies of one text. In an evaluation, without a step, it is the same each time."""
    for name in 'mlm', 'span':
        task = Objective(name, False, Tokenizer.byte(SPECIAL_TOKENS), 200, 7)
        text = torch.from_numpy(X[:1, :task.n_text] % 256)
        copies = lambda rows: text.repeat(len(rows), 1)
        hidden = lambda rows, *step: task.apply(copies(rows), copies(rows), np.array(rows), *step)[1]
        rows = [*range(64)]
        for step in [], [0]:
            parts = [hidden(rows[i:i + 8], *step) for i in range(0, 64, 8)]             # eight devices
            assert torch.equal(hidden(rows, *step), torch.cat(parts))
        task.seed, other = 8, hidden(rows, 0)
        made = [other, hidden(rows, 0), hidden(rows, 1), hidden(rows), hidden(rows[::-1], 0)]
        assert all((a != b).float().mean() > 0.1 for a, b in itertools.combinations(made, 2))


def restored(x, y, n_prefix):
    """The text again: each sentinel of the prefix stands for what follows it in the answer."""
    answer = np.append(x[n_prefix:], y[-1])
    spans = {span[0]: span[1:] for span in np.split(answer, np.flatnonzero(answer >= N)) if len(span)}
    assert len(spans.pop(y[-1])) == 0                               # the last sentinel ends the answer
    text = np.concatenate([spans.pop(token, [token]) for token in x[:n_prefix]])
    assert not spans
    return text.tolist()


@given(st.integers(8, 300), st.integers(0, 1000))
def test_spans_are_invertible_and_fill_the_context(T, step):
    n_text, n_hidden, n_spans = span_lengths(T)
    assert n_text + 2 * n_spans <= T < n_text + 2 * n_spans + 4
    assert abs(n_hidden - 0.15 * n_text) <= 0.5 or n_hidden == 1
    texts = np.tile(np.arange(n_text), (4, 1))
    x, y, n_prefix = hide_spans(texts, 3, step, range(4), SPANS, T)
    assert x.shape == y.shape == (4, n_text + 2 * n_spans)
    for row in range(4):
        assert restored(x[row], y[row], n_prefix) == list(range(n_text))
        assert (y[row, :n_prefix - 1] == IGNORE).all()
        assert (y[row, n_prefix - 1:-1] == x[row, n_prefix:]).all()
        assert [t for t in x[row, :n_prefix] if t in SENTINELS] == SENTINELS[:n_spans]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(600, 64, 2, 2, 1, 32, 64)).eval()


def test_a_packed_document_is_read_as_if_it_were_alone(model):
    a, b = torch.randint(0, 400, (20,)), torch.randint(0, 400, (30,))
    end = torch.tensor([555])
    packed = torch.cat([end, a, end, b])[None]
    mask, position = document_mask(packed.numpy(), 555)
    assert position[0].tolist() == [*range(21), *range(31)]
    mask = torch.from_numpy(mask)
    logits = model(packed, mask=mask, positions=torch.from_numpy(position))[0][0]
    alone = [model(torch.cat([end, part])[None])[0][0] for part in (a, b)]
    assert torch.allclose(logits, torch.cat(alone), atol=1e-5)      # sums of other kernels, float32


def test_a_prefix_sees_both_directions_and_the_answer_only_back(model):
    task = Objective('span', False, Tokenizer.byte(SPECIAL_TOKENS), 48, 7)
    text = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, task.n_text + 1)))
    x, y, mask = task.apply(text[:, :-1], text[:, 1:], [0], 0)
    last = int((y[0] != IGNORE).int().argmax())                     # of the prefix: it has the first target
    before = model(x, mask=mask)[0][0]
    for at, reach in ((last, 0), (last + 3, last + 3)):             # who may notice that token `at` changed
        other = x.clone()
        other[0, at] = 399 - other[0, at]
        changed = (model(other, mask=mask)[0][0] != before).any(-1)
        assert changed[reach:].all() and not changed[:reach].any()


def test_a_tokenizer_without_mask_or_sentinels_cannot_serve():
    for name, mask, word in (('mlm', False, '<.mask.>'), ('span', False, '<.span_0.>'),
                             ('clm', True, '<.endoftext.>'), ('mlm', True, 'document_mask=True needs')):
        refused(word, Objective, name, mask, Tokenizer.byte([]), 32, 0)


# --- a model that fills gaps --------------------------------------------------------------------------------
@pytest.mark.parametrize('objective', ['mlm', 'span'])
def test_a_model_that_fills_gaps_fills_them(tmp_path, objective):
    tok = Tokenizer.byte(SPECIAL_TOKENS)
    data = write_bins(tmp_path / 'data', np.array(tok.encode('abcdefgh ' * 9000), np.uint16), tok)
    ok(train(data, tmp_path / 'run', f'--objective={objective}', '--max_steps=150', '--n_embd=64',
             '--batch_size=16', '--optimizer=muon', '--learning_rate=4e-3', '--eval_interval=150',
             '--save_interval=150'))
    first, last = series(tmp_path / 'run', 'val_loss')
    assert last < first / 2
    # at T = 32, a span hides 4 of 30
    gap = 'c<|mask|>e<|mask|>' if objective == 'mlm' else '<|mask|>'
    flags = f'--ckpt={tmp_path}/run', '--temperature=0'
    text = ok(run('sample.py', *flags, f'--prompt=fgh ab{gap}gh abcdefgh abcdefgh'))
    assert text.splitlines()[-1] == 'fgh abcdefgh abcdefgh abcdefgh'
    mistake(run('sample.py', *flags, '--prompt=aaa'), objective, '<|mask|>')
    mistake(run('eval.py', f'--ckpt={tmp_path}/run', f'--data_dir={data}'), objective)
