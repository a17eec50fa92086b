"""Masked tokens, hidden spans, packed documents: what the model is given, and must not see."""
import re
import string

import numpy as np
import torch
from conftest import mistake, ok, read_rows, run, series, train, with_each, write_bins
from test_model import lively

from extras.training.objectives import document_mask, hide_spans, hide_tokens, span_lengths
from model import IGNORE
from tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS)
SPECIAL = TOKENIZER.special
X = np.random.default_rng(0).integers(0, 256, (64, 200))


def test_of_15_percent_80_are_masked_10_random_10_kept():
    """Within four standard deviations, and one random token of 256 is the same as before."""
    mask = SPECIAL['<|mask|>']
    x, y = hide_tokens(X, 1, 7, range(64), SPECIAL, 256)
    chosen = y != IGNORE
    assert (x[~chosen] == X[~chosen]).all() and (y[chosen] == X[chosen]).all()
    for share, found in ((0.15, chosen), (0.8, x[chosen] == mask), (0.1, x[chosen] == X[chosen])):
        assert abs(found.mean() - share) < 4 * (share * (1 - share) / found.size) ** 0.5 + 0.1 / 256


@with_each('T', [8, 33, 150, 299])
def test_spans_are_invertible_and_fill_the_context(T):
    n_text, n_hidden, n_spans = span_lengths(T)
    assert n_text + 2 * n_spans <= T < n_text + 2 * n_spans + 4
    assert n_hidden == max(1, round(0.15 * n_text))
    text = (string.ascii_letters * 9)[:n_text]
    x, y, n_prefix = hide_spans(np.array([TOKENIZER.encode(text)]), 3, T, [5], SPECIAL, T)
    shown = TOKENIZER.decode(x[0, :n_prefix])
    answer = TOKENIZER.decode([*x[0, n_prefix:], y[0, -1]])
    marks = [f'<|span_{i}|>' for i in range(n_spans + 1)]
    assert re.findall('<.*?>', answer) == marks and answer.endswith(marks[-1])
    for mark, part in re.findall('(<.*?>)([^<]+)', answer):
        shown = shown.replace(mark, part)
    assert shown == text
    assert y[0, :-1].tolist() == [IGNORE] * (n_prefix - 1) + x[0, n_prefix:].tolist()


def test_a_packed_document_is_read_as_if_it_were_alone():
    model = lively(vocab_size=TOKENIZER.vocab_size, block_size=64)
    end = SPECIAL['<|endoftext|>']
    documents = [torch.tensor([[end, *row]]) for row in (X[0, :20], X[1, :30])]
    packed = torch.cat(documents, 1)
    mask, positions = map(torch.from_numpy, document_mask(packed.numpy(), end))
    assert positions[0].tolist() == [*range(21), *range(31)]
    logits = model(packed, mask=mask, positions=positions)[0]
    alone = torch.cat([model(document)[0] for document in documents], 1)
    assert torch.allclose(logits, alone, atol=1e-5)     # sums of other kernels, float32


FLAGS = ('--max_steps=100 --n_embd=64 --batch_size=16 --optimizer=muon --learning_rate=1e-2 '
         '--eval_interval=100 --save_interval=100 --dtype=float32')


@with_each('objective', ['mlm', 'span'])
def test_a_model_that_fills_gaps_fills_them(objective):
    ids = np.array(TOKENIZER.encode('abcdefgh ' * 9000), np.uint16)
    write_bins('data', ids, TOKENIZER)
    ok(train('data', 'out', f'--objective={objective}', FLAGS))
    first, last = series('out', 'val_loss')
    assert last < first / 2
    assert all(row.get('val_bpb') is None for row in read_rows('out/metrics.jsonl'))
    gap = 'c<|mask|>e<|mask|>' if objective == 'mlm' else '<|mask|>'    # a span has 4 of 30
    fill = lambda prompt: run(f'extras.models.fill --ckpt=out --prompt={prompt}')
    text = ok(fill(f'fgh ab{gap}gh abcdefgh abcdefgh'))
    assert text.splitlines()[-1] == 'fgh abcdefgh abcdefgh abcdefgh'
    mistake(fill('aaa'), f'{objective} & <|mask|>')
    mistake(run('extras.models.fill --ckpt=out/gone --prompt=a'), 'out/gone does not exist')
    mistake(run('eval.py --ckpt=out --data_dir=data'), objective)
