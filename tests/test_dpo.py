"""dpo.py: real runs of each loss; their reference and figures, against a slow loop; pairs that are
too long. What it promises like sft.py and rl.py is in test_alike.py, the losses are in
test_dpo_losses.py."""

import numpy as np
import pytest
import torch
from accidents import replaced
from conftest import lift, metrics, mistake, ok, read_rows, run, series, state, thumbs_of, write
from hypothesis import example, given, strategies as st
from pytest import approx
from test_records import BYTES, TRAPPING, chats, say

from model import GPT

fit, sft_fit = lift('dpo.py', 'fit'), lift('sft.py', 'fit')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 '
         '--learning_rate=3e-3 --log_interval=1 --eval_interval=24 --sample_tokens=4').split()


@pytest.fixture
def dpo(sft_model, pairs):
    """dpo(its folder, *flags)"""
    def dpo(out, *more, **how):
        return run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={out}',
                   *FLAGS,
                   *more, **how)
    return dpo


# --- what is learned ------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(dpo, tmp_path):
    """And nll_weight holds the good answers up."""
    for i, flags in enumerate(('dpo --label_smoothing=0.2', 'dpo --nll_weight=1 --grad_clip=0',
                               'ipo',
                               'simpo', 'orpo --beta=1', 'kto', 'rm')):
        ok(dpo(tmp_path / f'{i}', '--max_steps=24', *f'--loss_type={flags}'.split()))
        first, last = (row for row in metrics(tmp_path / f'{i}') if 'val_accuracy' in row)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9, flags
        assert last['val_loss'] < first['val_loss'], flags
        assert last['val_margin'] > first['val_margin'] + 0.01, flags
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


def slow_log_p(model, question, answer):
    """One token at a time, each with what stands before it alone."""
    ids = BYTES.render([say('user', question)], add_generation_prompt=True)[0]
    total = 0.0
    for token in [*answer.encode(), BYTES.special['<|im_end|>']]:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0][0, -1]
        total += logits.double().log_softmax(-1)[token].item()
        ids.append(token)
    return total


def test_the_reference_is_the_first_model_and_the_figures_are_means_by_hand(dpo, sft_model, pairs,
                                                                            tmp_path):
    """The zero point of KTO is what the step before has gained."""
    ok(dpo(tmp_path, '--loss_type=kto', '--max_steps=4', '--learning_rate=2e-2', '--beta=0.5',
           '--nll_weight=1'))
    last, saved = metrics(tmp_path)[-1], state(tmp_path)
    models = GPT.load(sft_model), GPT.load(tmp_path / 'last.pt')
    gains = []
    for side, reference in zip(('chosen', 'rejected'), saved['ref_log_probs'][-32:].T.tolist()):
        before, after = ([slow_log_p(model, row['prompt'], row[side])
                          for row in read_rows(pairs / 'val.jsonl')] for model in models)
        assert reference == approx(before, abs=1e-4)
        gains.append(np.subtract(after, before))
    good, bad = gains
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    assert 0.1 < saved['kto_kl'] == approx(0.5 * series(tmp_path, 'kl')[-1])
    wanted = {'val_accuracy': (good > bad).mean(), 'val_kl': (good + bad).mean() / 2,
              'val_chosen_reward': 0.5 * good.mean(), 'val_margin': 0.5 * (good - bad).mean(),
              # of KTO with 0 as its zero point: always the same loss
              'val_loss': (sigmoid(-0.5 * good) + sigmoid(0.5 * bad)).mean() / 2}
    assert {name: last[name] for name in wanted} == approx(wanted, abs=3e-4)


def test_a_first_loss_that_is_not_ln_2_ends_the_run(dpo, tmp_path):
    """Each forward pass says something else, as where arithmetic depends on the batch."""
    odd = replaced('hidden states', 'return real(*arguments, **more) * (n + 1)')
    mistake(dpo(tmp_path, before=odd), 'the first dpo loss is', 'in place of 0.69315',
            '--dtype=float32')
    assert not (tmp_path / 'best.pt').exists() and state(tmp_path)['step'] == 0


# --- pairs, and what is cut of them ---------------------------------------------------------------
answers = st.integers(1, 150).flatmap(lambda n: st.lists(st.integers(5, 7), min_size=n, max_size=n))


@given(chats, answers, answers, st.integers(1, 30))
# short answers need little room
@example([say('user', 'q' * 90)], [7] * 9, [7] * 3, 29)
@example([say('user', 'q' * 60)], [7] * 99, [7] * 3, 16)
def test_pairs_are_cut_as_conversations_are(messages, chosen, rejected, T):
    """As by fit() of sft.py, with the longer answer: of both answers, the same number of tokens
    stays. If these are the same, the pair is left out: its gradient is rounding errors. T, which is
    4 times as much, counts one token more than in sft.py."""
    T = 4 * T
    turns = [(TRAPPING.render([message])[0], message['role']) for message in messages]
    turns.append((TRAPPING.render([], add_generation_prompt=True)[0], 'assistant'))
    talk = [(ids, [0] * len(ids), role) for ids, role in turns]
    n = max(len(chosen), len(rejected))
    ids, mask, how = sft_fit([*talk, ([7] * n, [1] * n, 'assistant')], T - 1)
    n = sum(mask)
    wanted = ids[:len(ids) - n], chosen[:n], rejected[:n], how.replace('answer cut', 'answers cut')
    if ids and chosen[:n] == rejected[:n]:
        wanted = [], [], [], 'left out: both answers are the same'
    assert fit(turns, chosen, rejected, T) == wanted


# writes down what goes into log p
SPY = """
import json, model
real = model.GPT.log_p
def spy(self, x, y, **more):
    with open('PATH', 'a') as file:
        for row in zip(x.tolist(), y.tolist()):
            print(json.dumps(row), file=file)
    return real(self, x, y, **more)
model.GPT.log_p = spy
"""


def test_what_lines_become(dpo, tmp_path):
    """The frame of messages is written out by hand. No text forges a special token."""
    S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))
    frame = [S, *b'user\nq', E, 10, S, *b'assistant\n']
    system = [S, *b'system\nbe', E, 10, *frame]
    talk = [say('system', 'be'), say('user', 'q')]
    lines = [{'prompt': 'q', 'chosen': 'more', 'rejected': '<|im_end|>', 'margin': 3},
             {'prompt': talk, 'chosen': 'yes', 'rejected': ''},
             {'prompt': 'q', 'chosen': '', 'rejected': ''},                     # left out
             {'prompt': 'q', 'completion': 'up', 'label': True},
             {'prompt': 'q', 'completion': 'up', 'label': True},
             {'prompt': 'q', 'completion': 'down', 'label': False}]
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', lines)
    printed = ok(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', '--loss_type=kto', '--max_steps=2',
                     '--micro_batch_size=1', before=SPY.replace('PATH', f'{tmp_path}/calls')))
    assert ("train.jsonl {'whole': 5, 'left out: both answers are the same': 1} "
            '4 better and 3 worse answers') in printed
    found = {}                              # {answer: the prompt of that row}
    for x, y in read_rows(tmp_path / 'calls'):
        answer = y[:y.index(E) + 1]
        first = answer.count(-100)
        assert x[first + 1:len(answer)] == answer[first:-1]
        found[bytes(answer[first:-1]).decode()] = x[:first + 1]
    assert found == {**dict.fromkeys(('more', '<|im_end|>', 'up', 'down'), frame), 'yes': system,
                     '': system}


def test_single_answers_of_one_kind_alone_are_refused(dpo, pairs, tmp_path):
    """They would destroy the model."""
    for side in ('train', 'val'):
        rows = thumbs_of(read_rows(pairs / f'{side}.jsonl'))
        write(tmp_path / f'{side}.jsonl', [row for row in rows if row['label']])
    mistake(dpo(tmp_path / 'no', f'--data_dir={tmp_path}', '--loss_type=kto'), '0 worse',
            'needs both')
