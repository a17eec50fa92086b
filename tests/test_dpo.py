"""dpo.py: real runs of each loss; their reference and figures, against a slow loop; what lines
become. What it promises like sft.py and rl.py is in test_alike.py, the losses are in
test_dpo_losses.py."""
import json
import math

import numpy as np
import pytest
from accidents import SHORT_SAMPLES
from conftest import lift, metrics, mistake, ok, read_rows, run, series, state, write
from pytest import approx
from test_records import BYTES, say

from model import GPT

collate = lift('sft.py', 'collate')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 '
         '--learning_rate=3e-3 --log_interval=1 --eval_interval=24').split()


@pytest.fixture
def dpo(sft_model, pairs):
    """dpo(its folder, *flags)"""
    def dpo(out, *more, before=''):
        return run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={out}',
                   *FLAGS, *more, before=SHORT_SAMPLES + before)
    return dpo


# --- what is learned ------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(dpo, tmp_path):
    """Of equal models, each loss begins as the top of the file says; nll_weight holds the good
    answers up."""
    begins = math.log(2), math.log(2), 25, 0.5, math.log(2)
    for i, flags in enumerate(('dpo', 'dpo --nll_weight=1 --grad_clip=0', 'ipo', 'kto', 'rm', 'simpo',
                               'orpo --beta=1')):
        ok(dpo(tmp_path / f'{i}', '--max_steps=24', *f'--loss_type={flags}'.split()))
        first, last = (row for row in metrics(tmp_path / f'{i}') if 'val_accuracy' in row)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9, flags
        assert i > 4 or first['val_loss'] == approx(begins[i], abs=1e-5), flags
        assert last['val_margin'] > first['val_margin'] + 0.01, flags
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


def test_the_reference_is_the_first_model_and_the_figures_are_means_by_hand(dpo, sft_model, pairs,
                                                                            tmp_path):
    """The zero point of KTO is what the step before has gained."""
    ok(dpo(tmp_path, '--loss_type=kto', '--max_steps=4', '--learning_rate=2e-2', '--beta=0.5',
           '--nll_weight=1'))
    last, saved = metrics(tmp_path)[-1], state(tmp_path)

    def log_p(model, prompt, answer):
        """Of the answer and its end, behind its prompt."""
        chat = BYTES.render([say('user', prompt), say('assistant', answer)])
        return model.log_p(*collate([chat])).sum().item()

    rows = read_rows(pairs / 'val.jsonl')
    before, after = (np.array([[log_p(model, row['prompt'], row[side]) for row in rows]
                               for side in ('chosen', 'rejected')])
                     for model in (GPT.load(sft_model), GPT.load(tmp_path / 'last.pt')))
    good, bad = after - before
    assert 0.1 < saved['kto_kl'] == approx(0.5 * series(tmp_path, 'kl')[-1])
    wanted = {'val_accuracy': (good > bad).mean(), 'val_kl': (good + bad).mean() / 2,
              'val_chosen_reward': 0.5 * good.mean(), 'val_margin': 0.5 * (good - bad).mean()}
    assert {name: last[name] for name in wanted} == approx(wanted, abs=3e-4)


# --- pairs -------------------------------------------------------------------------------------
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


# the one with LONG! is left out
LINES = """{"prompt": "q", "chosen": "more", "rejected": "<|im_end|>", "margin": 3}
{"prompt": [{"role": "system", "content": "be"}, {"role": "user", "content": "q"}], "chosen": "yes", "rejected": ""}
{"prompt": "q", "chosen": "LONG", "rejected": "same"}
{"prompt": "q", "chosen": "LONG!", "rejected": "b"}
{"prompt": "q", "completion": "up", "label": true}
{"prompt": "q", "completion": "up", "label": true}
{"prompt": "q", "completion": "down", "label": false}"""


def test_what_lines_become_and_single_answers_of_one_kind_are_refused(dpo, tmp_path):
    """The frame of messages is written out by hand. No text forges a special token. What does not
    fit into the context of 96 is left out. Good answers alone would destroy the model."""
    S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))
    frame = [S, *b'user\nq', E, 10, S, *b'assistant\n']
    system = [S, *b'system\nbe', E, 10, *frame]
    long = 'a' * (96 - len(frame) - 1)
    lines = [json.loads(line) for line in LINES.replace('LONG', long).splitlines()]
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', lines)
    printed = ok(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', '--loss_type=kto', '--max_steps=2',
                     '--micro_batch_size=1', before=SPY.replace('PATH', f'{tmp_path}/calls')))
    assert 'train.jsonl has 7 lines, and 5 better and 4 worse answers that fit' in printed
    found = {}                              # {answer: the prompt of that row}
    for x, y in read_rows(tmp_path / 'calls'):
        answer = y[:y.index(E) + 1]
        first = answer.count(-100)
        assert x[first + 1:len(answer)] == answer[first:-1]
        found[bytes(answer[first:-1]).decode()] = x[:first + 1]
    answers = 'more', '<|im_end|>', long, 'same', 'up', 'down'
    assert found == {**dict.fromkeys(answers, frame), 'yes': system, '': system}
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', lines[4:6])
    mistake(dpo(tmp_path / 'no', f'--data_dir={tmp_path}', '--loss_type=kto'), '0 worse',
            'needs both')
