"""Filling gaps: what parts/sample/gaps.py does with a model whose answers are known beforehand."""
import types

import pytest
import torch

from parts.sample import gaps
from tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS)


class Known(torch.nn.Module):
    """A model whose most probable tokens are known: of each position, or with a mask of each step."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.asked = answers, []
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = types.SimpleNamespace(block_size=64)

    def forward(self, x, y=None, mask=None):
        logits = torch.zeros(*x.shape, TOKENIZER.vocab_size)
        if mask is None:
            logits[0, range(x.shape[1]), self.answers] = 9
        else:
            logits[0, -1, self.answers[len(self.asked)]] = 9
        self.asked.append((x, mask))
        return logits, None


def test_each_mask_becomes_the_most_probable_token():
    ids, marks = gaps.with_marks('a<|mask|>c<|mask|>', TOKENIZER, 'mlm', 64)
    assert ids == [97, marks[0], 99, marks[0]] and marks[0] == TOKENIZER.special['<|mask|>']
    filled, candidates = gaps.fill_tokens(Known([0, 98, 0, 100]), ids, marks[0])
    assert TOKENIZER.decode(filled) == 'abcd'
    assert [best[0][0] for best in candidates] == [98, 100] and all(len(best) == 5 for best in candidates)
    assert all(p >= q for best in candidates for (_, p), (_, q) in zip(best, best[1:]))


def test_spans_are_put_where_their_marks_stand_and_the_prompt_sees_itself_whole():
    ids, marks = gaps.with_marks('x<|mask|>y<|mask|>', TOKENIZER, 'span', 64)
    span = [TOKENIZER.special[f'<|span_{i}|>'] for i in range(3)]
    assert marks == span and ids == [120, span[0], 121, span[1]]
    model = Known([97, 98, span[1], 99, span[2]])
    pick = lambda logits: logits.argmax(-1)
    assert gaps.fill_spans(model, TOKENIZER, ids, marks, 40, pick) == 'xabyc'
    x, mask = model.asked[0]
    assert x.tolist() == [[*ids, span[0]]] and mask[0, 0, :4, :4].all() and not mask[0, 0, :4, 4].any()
    assert gaps.fill_spans(Known([97] * 9), TOKENIZER, ids, marks, 3, pick) == 'xaay<|span_1|>'    # no room


def test_more_gaps_than_marks_are_refused():
    with pytest.raises(ValueError, match='2 gaps'):
        gaps.with_marks('<|mask|><|mask|>', Tokenizer.byte(['<|mask|>', '<|span_0|>']), 'span', 64)
