"""Masked tokens, hidden spans, packed documents: what the model is given, and what it must not see."""

import numpy as np
import pytest
import torch
from conftest import mistake, ok, run, series, train, write
from hypothesis import given, strategies as st
from test_parallel import assert_equal_but_for_rounding

from parts.train.objectives import IGNORE, Objective, document_mask, hide_spans, hide_tokens, span_lengths
from model import GPT, GPTConfig, load_checkpoint
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
    for hide in (lambda *a: hide_tokens(*a, MASKED, N), lambda *a: hide_spans(*a, SPANS, 216)[:2]):
        whole = hide(X, 1, 7, range(64))
        parts = [hide(X[i:i + 8], 1, 7, range(i, i + 8)) for i in range(0, 64, 8)]      # eight devices
        for i in (0, 1):
            assert (whole[i] == np.concatenate([p[i] for p in parts])).all()
        for other in (hide(X, 2, 7, range(64)), hide(X, 1, 8, range(64)), hide(X, 1, 7, range(64, 128))):
            assert (whole[0] != other[0]).mean() > 0.1


def restored(x, y, n_prefix):
    """The text again: each sentinel of the prefix stands for what follows it in the answer."""
    answer = [*x[n_prefix:], y[-1]]
    spans, current = {}, None
    for token in answer:
        if token in SENTINELS:
            current = spans.setdefault(int(token), [])
        else:
            current.append(token)
    assert spans.pop(int(y[-1])) == []                              # the last sentinel ends the answer
    text = []
    for token in x[:n_prefix]:
        text += spans.pop(int(token)) if token in SENTINELS else [token]
    assert not spans
    return text


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


def test_how_many_targets_are_scored_is_known_without_looking():
    """So that no process waits for the others before it computes its loss."""
    tok = Tokenizer.byte(SPECIAL_TOKENS)
    for name in ('clm', 'mlm', 'span'):
        task = Objective(name, False, tok, 48, 7)
        text = np.random.default_rng(0).integers(0, 256, (6, task.n_text + 1))
        for step in (0, 3, 10 ** 6):
            for rows in range(2), range(2, 6), range(6):
                part = text[list(rows)]
                scored = task.apply(part[:, :-1], part[:, 1:], step, list(rows))[1] != IGNORE
                assert task.n_targets(step, rows) == scored.sum(), (name, step, rows)


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
    other = packed.clone()
    other[0, 1:21] = 7                                              # document A
    again = model(other, mask=mask, positions=torch.from_numpy(position))[0][0]
    assert (again[21:] == logits[21:]).all() and (again[5] != logits[5]).any()


def test_a_prefix_sees_both_directions_and_the_answer_only_back(model):
    task = Objective('span', False, Tokenizer.byte(SPECIAL_TOKENS), 48, 7)
    text = np.random.default_rng(0).integers(0, 256, (1, task.n_text + 1))
    x, y, mask = map(torch.from_numpy, task.apply(text[:, :-1], text[:, 1:], 0, [0]))
    last = int((y[0] != IGNORE).int().argmax())                     # of the prefix: it has the first target
    before = model(x, mask=mask)[0][0]
    for at, reach in ((last, 0), (last + 3, last + 3)):             # who may notice that token `at` changed
        other = x.clone()
        other[0, at] = 399 - other[0, at]
        changed = (model(other, mask=mask)[0][0] != before).any(-1)
        assert changed[reach:].all() and not changed[:reach].any()


@pytest.mark.parametrize('flags', [['--objective=mlm'], ['--document_mask=True']])
def test_every_objective_learns_and_two_processes_compute_what_one_does(data_dir, tmp_path, flags):
    flags = [*flags, '--learning_rate=3e-3', '--dtype=float32']
    ok(train(data_dir, tmp_path / 'one', *flags, '--micro_batch_size=8'))
    ok(train(data_dir, tmp_path / 'two', *flags, '--micro_batch_size=2', processes=2))
    assert_equal_but_for_rounding(tmp_path / 'one', tmp_path / 'two')
    losses = series(tmp_path / 'one', 'val_loss')
    assert losses[-1] < losses[0] - 0.2
    state = load_checkpoint(tmp_path / 'one/last.pt')[1]
    assert state['step'] == 12 and state['config']['objective'] in str(flags) + 'clm'


def test_a_tokenizer_without_mask_or_sentinels_cannot_serve(tmp_path):
    (tmp_path / 'one.txt').write_text('to be or not to be\n' * 200, encoding='utf-8')
    ok(run('prepare.py', f'--source={tmp_path}/one.txt', '--tokenizer=byte', f'--out_dir={tmp_path}/data'))
    for flag in ('--objective=mlm', '--objective=span', '--document_mask=True'):
        mistake(train(tmp_path / 'data', tmp_path / 'run', flag), 'special')


def test_what_packing_saves_counted_by_hand():
    """Documents of so many tokens, <|endoftext|> at their ends, in sequences of 4."""
    tok = Tokenizer.byte(SPECIAL_TOKENS[:4])
    task = Objective('clm', False, tok, 4, seed=0)
    for lengths, share in (([4, 4, 8], 16 / 16), ([1], 1 / 4), ([9], 9 / 12), ([5, 3, 4], 12 / 16)):
        ids = [id for n in lengths for id in [65] * (n - 1) + [tok.special['<|endoftext|>']]]
        line, = task.packing(np.array(ids, np.uint16))
        assert f'of its own, {share:.1%} would' in line, lengths
        assert task.packing(np.array(ids + [65] * 3)) == [line]         # one that is cut counts for nothing
    assert task.packing(np.array([65] * 99, np.uint16)) == []           # one text without documents


@pytest.fixture(scope='module')
def alphabet(tmp_path_factory):
    """Data of which a small model learns in seconds what stands in a gap."""
    folder = tmp_path_factory.mktemp('alphabet')
    rows = [{'text': ('abcdefgh ' * 200)[i % 9:1700 + i]} for i in range(60)]
    source = write(folder / 'x.jsonl', rows)
    ok(run('prepare.py', f'--source={source}', f'--out_dir={folder}/data', '--tokenizer=byte', '--mode=raw',
           '--dedup=none'))
    return folder / 'data'


@pytest.mark.parametrize('objective', ['mlm', 'span'])
def test_a_model_that_fills_gaps_fills_them(alphabet, tmp_path, objective):
    ok(train(alphabet, tmp_path, f'--objective={objective}', '--max_steps=150', '--n_embd=64',
             '--batch_size=16', '--optimizer=muon', '--learning_rate=4e-3', '--eval_interval=150',
             '--save_interval=150'))
    first, last = series(tmp_path, 'val_accuracy')
    assert first < 0.2 and last > 0.6           # there are nine letters
    # at T = 32, a span hides 4 of 30
    gap = 'c<|mask|>e<|mask|>' if objective == 'mlm' else '<|mask|>'
    text = ok(run('sample.py', f'--ckpt={tmp_path}', f'--prompt=fgh ab{gap}gh abcdefgh abcdefgh',
                  '--temperature=0'))
    assert text.splitlines()[-1] == 'fgh abcdefgh abcdefgh abcdefgh'
    mistake(run('sample.py', f'--ckpt={tmp_path}', '--prompt=aaa'), objective, '<|mask|>')
    mistake(run('sample.py', f'--ckpt={tmp_path}', f'--prompt={"abc " * 40}<|mask|>'), '161', '32')
    mistake(run('eval.py', f'--ckpt={tmp_path}', f'--data_dir={alphabet}'), objective, 'val_accuracy')
