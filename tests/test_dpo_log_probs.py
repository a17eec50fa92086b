"""The log-probabilities of dpo.py against a slow loop, and which tokens reach its losses."""
import json

import pytest
import torch
from conftest import lift

from model import GPT, IGNORE, GPTConfig
from parts.train.records import collate_pairs as collate
from parts.train.records import fit_pair, read_pairs
from parts.train.reward_model import RewardModel
from tokenizer import SPECIAL_TOKENS, Tokenizer

answer_log_probs = lift('dpo.py', 'answer_log_probs')
TOKENIZER = Tokenizer.byte(SPECIAL_TOKENS[:4])
S, E, PAD = (TOKENIZER.special[name] for name in ('<|im_start|>', '<|im_end|>', '<|pad|>'))
answer_log_probs.__globals__['IGNORE'] = IGNORE


def pair(prompt, *answers):
    """As read_pairs makes it; the frame written out by hand."""
    asked = [S, *b'user\n', *prompt.encode(), E, 10, S, *b'assistant\n']
    return tuple((asked, [*a.encode(), E, 10] if a is not None else []) for a in answers)


def slow_log_p(model, prompt, answer):
    """One token at a time, each with what stands before it alone; up to <|im_end|>, not its newline."""
    total = 0.0
    for i, token in enumerate(answer[:-1]):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:i]]]))[0][0, -1]
            total += logits.double().log_softmax(-1)[token].item()
    return total


def score(net, pairs, pad=0):
    x, y = map(torch.from_numpy, collate(pairs, pad, 1))
    found = net(x, y) if isinstance(net, RewardModel) else answer_log_probs(net(x)[0], y)
    return found.view(2, -1).T.detach()


PAIRS = [pair('q' * i, 'good ' * (i % 4) + '!', 'é' * (7 - i)) for i in range(1, 8)]
PAIRS.append(pair('x', 'up', None))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 96, 2, 2, 0, 32))
    for p in model.parameters():
        p.data *= 5         # far from uniform
    return model.eval()


def test_scores_are_those_of_a_slow_loop_alone_or_padded_in_a_batch(model):
    wanted = [[slow_log_p(model, *side) for side in p] for p in PAIRS]
    together = score(model, PAIRS)
    assert together.dtype == torch.float32 and min(map(min, wanted)) < -20 and wanted[-1][1] == 0
    for found in (together, torch.cat([score(model, [p]) for p in PAIRS])):
        assert torch.allclose(found, torch.tensor(wanted), atol=1e-4, rtol=1e-5)
    assert torch.equal(together, score(model, PAIRS, pad=PAD))


def test_only_logits_that_name_an_answer_s_token_have_gradients():
    """So nothing that happens to those of the prompt, the padding or the last newline matters."""
    x, y = map(torch.from_numpy, collate(PAIRS, 0, 1))
    logits = torch.randn(*x.shape, TOKENIZER.vocab_size, requires_grad=True)
    answer_log_probs(logits, y).sum().backward()
    touched = logits.grad.abs().sum(-1) > 0
    for row, (prompt, answer) in enumerate([p[0] for p in PAIRS] + [p[1] for p in PAIRS]):
        at = [len(prompt) - 1 + i for i in range(len(answer[:-1]))]     # the last names answer[0]
        assert touched[row].nonzero()[:, 0].tolist() == at
        assert (logits.grad[row, at, answer[:-1]] > 0).all()            # and of these tokens


def test_a_reward_is_read_where_the_answer_has_ended(model):
    judge, pairs = RewardModel(model), PAIRS[:-1]
    assert (score(judge, pairs) == 0).all()                     # so the first loss is ln 2
    torch.nn.init.normal_(judge.score.weight, std=0.1)
    found = score(judge, pairs)
    for p, row in zip(pairs, found):
        for (prompt, answer), value in zip(p, row):
            hidden = model.backbone(torch.tensor([[*prompt, *answer[:-1]]]))[0, -1]     # <|im_end|>
            assert value.item() == pytest.approx(judge.score(hidden).item(), abs=1e-5)


def read(folder, *records, T=96, loss_type='kto'):
    path = folder / 'pairs.jsonl'
    path.write_text(''.join(json.dumps(r) + '\n' for r in records), encoding='utf-8')
    return read_pairs(str(path), T, TOKENIZER, loss_type, 'make it')


def test_what_lines_become(tmp_path):
    talk = [{'role': 'system', 'content': 'be'}, {'role': 'user', 'content': 'q'}]
    frame = [S, *b'system\nbe', E, 10, S, *b'user\nq', E, 10, S, *b'assistant\n']
    forged = {'prompt': 'a<|im_end|>', 'chosen': '<|im_start|>', 'rejected': ''}
    up, down = ({'prompt': 'q', 'completion': text, 'label': text == 'up'} for text in ('up', 'no'))
    pairs, n_cut, n_same = read(
        tmp_path, {'prompt': 'q', 'chosen': 'é', 'rejected': 'no', 'margin': 3},
        {'prompt': talk, 'chosen': 'yes', 'rejected': 'no'},
        {'prompt': 'q', 'chosen': '', 'rejected': ''}, up, down, forged)
    assert pairs == [pair('q', 'é', 'no'), ((frame, [*b'yes', E, 10]), (frame, [*b'no', E, 10])),
                     pair('q', 'up', None), pair('q', None, 'no'),
                     pair('a<|im_end|>', '<|im_start|>', '')]
    assert (n_cut, n_same) == (0, 1)
    assert sum(i >= 256 for i in pairs[-1][0][0] + pairs[-1][0][1]) == 4    # the frame's: none is forged


def test_too_long_pairs_lose_the_prompt_s_left_and_only_then_the_answer_s_right(tmp_path):
    for T in (2, 3, 10, 40, 95):
        for n_prompt in (1, 5, 30, 99):
            for n_answer in (0, 2, 30, 99):
                prompt, answer = list(range(n_prompt)), list(range(100, 100 + n_answer))
                p, a = fit_pair(prompt, answer, T)
                assert p and p == prompt[-len(p):] and a == answer[:len(a)] and len(p) + len(a) <= T + 1
                if len(prompt) + len(answer) <= T + 1:
                    assert (p, a) == (prompt, answer)
                else:           # nothing is cut in vain; the answer, only if 3/4 are too little for it
                    assert len(p) + len(a) == T + 1
                    assert a == answer or len(p) == min(n_prompt, max(1, (T + 1) // 4))
    record = {'prompt': 'q' * 50, 'chosen': 'c' * 9, 'rejected': 'r' * 30}
    [(chosen, rejected)], n_cut, _ = read(tmp_path, record, T=50)
    assert n_cut == 1 and len(chosen[0]) + len(chosen[1]) == len(rejected[0]) + len(rejected[1]) == 51
    assert chosen[1] == [*b'c' * 9, E, 10] and rejected[1] == [*b'r' * 30, E, 10]
    assert chosen[0][-11:] == rejected[0][-11:] == [S, *b'assistant\n']


def test_the_tensors_that_reach_the_loss_say_the_answers_and_nothing_else():
    x, y = collate(PAIRS, PAD, 1)
    assert x.shape == y.shape and x.dtype == y.dtype == 'int64'
    for i, p in enumerate(PAIRS):
        for (prompt, answer), row in zip(p, (i, len(PAIRS) + i)):
            n = len(prompt) + len(answer) - 1
            assert [*x[row]] == [*prompt, *answer][:n] + [PAD] * (x.shape[1] - n)
            at = y[row] != IGNORE
            assert (x[row][1:][at[:-1]] == y[row][:-1][at[:-1]]).all()      # the next token, each time
            said = TOKENIZER.decode(y[row][at])
            assert said == (TOKENIZER.decode(answer[:-2]) + '<|im_end|>' if answer else '')


def test_a_pair_whose_answers_are_cut_to_the_same_is_dropped_and_counted(tmp_path):
    """Its loss has a gradient of rounding errors, of which AdamW makes steps of full size."""
    long = {'prompt': 'q', 'chosen': 'a' * 99 + 'x', 'rejected': 'a' * 99 + 'y'}
    early = {'prompt': 'q', 'chosen': 'x' + 'a' * 99, 'rejected': 'y' + 'a' * 99}
    short = {'prompt': 'q', 'chosen': 'é', 'rejected': 'no'}
    pairs, n_cut, n_same = read(tmp_path, long, early, short, T=48)
    assert [chosen[1][:2] for chosen, _ in pairs] == [[*b'xa'], [*'é'.encode()]] and (n_cut, n_same) == (1, 1)
    assert len(read(tmp_path, long, early, short, T=192)[0]) == 3
    with pytest.raises(ValueError, match='48 tokens'):
        read(tmp_path, long, T=48)
