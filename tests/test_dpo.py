"""dpo.py: real runs of each loss; their reference and figures, against a slow loop; pairs that are too long.
What it promises like sft.py and rl.py is in test_alike.py, the losses are in test_dpo_losses.py."""
import math
import signal

import numpy as np
import pytest
import torch
from accidents import replaced
from conftest import contents, lift, metrics, mistake, ok, read_rows, run, series, state, thumbs_of, write
from hypothesis import example, given, strategies as st
from test_records import BYTES, TRAPPING, chats, ever_shorter, mixed_with_thumbs, say

from model import GPT

fit = lift('dpo.py', 'fit')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 --learning_rate=3e-3 '
         '--log_interval=1 --eval_interval=24 --sample_tokens=4').split()
S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))


def pair(prompt, *answers):
    """Prompt and answer of a pair, ids; the frame written out by hand."""
    asked = [S, *b'user\n', *prompt.encode(), E, 10, S, *b'assistant\n']
    return tuple((asked, [*a.encode(), E] if a is not None else []) for a in answers)


@pytest.fixture
def dpo(sft_model, pairs):
    """dpo(its folder, *flags)"""
    def dpo(out, *more, **how):
        return run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={out}', *FLAGS,
                   *more, **how)
    return dpo


# --- what is learned ----------------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(dpo, pairs, tmp_path):
    """And nll_weight holds the good answers up."""
    for side, every in (('train', 1), ('val', 2)):          # of the held-out ones, every second is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[every - 1::every] = thumbs_of(rows)[every - 1::every]
        write(tmp_path / f'thumbs/{side}.jsonl', rows)
    for i, (kind, *more) in enumerate((
            ('dpo', '--label_smoothing=0.2', '--nll_weight=0'), ('dpo', '--nll_weight=1', '--grad_clip=0'),
            ('ipo',), ('simpo',), ('orpo', '--beta=1'), ('kto', '--nll_weight=0'),
            ('kto', f'--data_dir={tmp_path}/thumbs', '--nll_weight=0'), ('rm',))):
        out, case = tmp_path / f'{i}', (kind, more)
        ok(dpo(out, f'--loss_type={kind}', '--max_steps=24', *more))
        first, last = (m for m in metrics(out) if 'val_accuracy' in m)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9 and last['step'] == 24, case
        assert last['val_loss'] < first['val_loss'], case
        assert last['val_margin'] > first['val_margin'] + 0.01, case
        has_reference = kind in ('dpo', 'ipo', 'kto')
        assert state(out)['ref_log_probs'].any() == has_reference == ('val_kl' in last), case
        assert (last.get('val_response_len', 0) > 0) == (kind != 'rm'), case
    assert first['val_loss'] == pytest.approx(math.log(2))      # the last of them: all scores begin as 0
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


def slow_log_p(model, prompt, answer):
    """One token at a time, each with what stands before it alone."""
    total = 0.0
    for i, token in enumerate(answer):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:i]]]))[0][0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total


def test_the_reference_is_the_first_model_and_the_figures_are_means_by_hand(dpo, sft_model, pairs, tmp_path):
    """Single answers make pairs, whose two prompts may differ: of the held-out lines, every second has one
    answer only; 24 are good and 24 bad. The zero point of KTO is what the step before has gained."""
    thumbs = mixed_with_thumbs(pairs, tmp_path / 'thumbs')
    ok(dpo(tmp_path, '--loss_type=kto', f'--data_dir={thumbs}', '--max_steps=4', '--learning_rate=2e-2',
           '--beta=0.5', '--nll_weight=1'))
    assert 'ref_log_probs' not in state(tmp_path, 'best.pt')
    reference = iter(state(tmp_path)['ref_log_probs'][-24:].T.tolist())
    before, after = (GPT.load(path) for path in (sft_model, tmp_path / 'last.pt'))
    rows = read_rows(thumbs / 'val.jsonl')
    for row in rows:
        if 'label' in row:
            row['chosen' if row['label'] else 'rejected'] = row['completion']
    gains = []
    for side in ('chosen', 'rejected'):
        answers = [pair(row['prompt'], row[side])[0] for row in rows if side in row]
        first, last = ([slow_log_p(model, *answer) for answer in answers] for model in (before, after))
        assert sorted(next(reference)) == pytest.approx(sorted(first), abs=1e-4)
        gains.append(np.subtract(last, first))
    good, bad = gains
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    last = metrics(tmp_path)[-1]
    assert len(good) == len(bad) == 24
    assert 0.1 < state(tmp_path)['kto_kl'] == pytest.approx(0.5 * series(tmp_path, 'kl')[-1])
    wanted = {'val_accuracy': (good > bad).mean(), 'val_kl': (good + bad).mean() / 2,
              'val_chosen_reward': 0.5 * good.mean(), 'val_rejected_reward': 0.5 * bad.mean(),
              'val_margin': 0.5 * (good - bad).mean(),
              # of KTO with 0 as its zero point: always the same loss
              'val_loss': (sigmoid(-0.5 * good) + sigmoid(0.5 * bad)).mean() / 2}
    assert {name: last[name] for name in wanted} == pytest.approx(wanted, abs=3e-4)


# each forward pass says something else, as on a machine whose arithmetic depends on the batch
ODD = replaced('hidden states', 'return real(*arguments, **more) * (n + 1)')


def test_a_first_loss_that_is_not_ln_2_ends_the_run(dpo, tmp_path):
    mistake(dpo(tmp_path, before=ODD), 'the first dpo loss is', 'in place of 0.69315', '--dtype=float32')
    assert not (tmp_path / 'best.pt').exists() and state(tmp_path)['step'] == 0
    before = contents(tmp_path)['last.pt']
    mistake(run('dpo.py', f'--out_dir={tmp_path}', '--init_from=resume', before=ODD), 'the first dpo loss')
    assert contents(tmp_path)['last.pt'] == before


def test_a_run_that_ends_before_its_reference_is_known_leaves_nothing_behind(dpo, tmp_path):
    """So the same command can be typed again."""
    killed = "import tqdm\ntqdm.tqdm = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert dpo(tmp_path / 'run', before=killed).returncode == -signal.SIGKILL
    assert not (tmp_path / 'run').exists()


# --- pairs, and what is cut of them -------------------------------------------------------------------------
HEADER, _ = TRAPPING.render([], add_generation_prompt=True)


def slow_fit(messages, answers, T):
    """What fit() promises, tried one after another with whole messages."""
    longest = max(map(len, answers))
    for kept in ever_shorter(messages):
        prompt, _ = TRAPPING.render(kept, add_generation_prompt=True)
        how = 'whole' if kept == messages else 'older turns left out'
        if len(prompt) + longest <= T:
            break
    else:
        how = 'answers cut'
        if (T - len(prompt)) * 4 < T:
            return [], [], [], 'left out: its question is too long'
    chosen, rejected = (answer[:T - len(prompt)] for answer in answers)
    if chosen == rejected:
        return [], [], [], 'left out: both answers are the same'
    return prompt, chosen, rejected, how


ids = st.integers(0, 150).flatmap(lambda n: st.lists(st.integers(5, 7), min_size=n, max_size=n))


@given(chats, ids, ids, st.integers(1, 120))
@example([say('user', 'q' * 90)], [7] * 9, [7] * 3, 115)                # short answers need little room
@example([say('user', 'q' * 60)], [7] * 99, [7] * 3, 64)
@example([say('system', 'be'), say('user', 'q' * 30), say('user', 'r' * 9)], [7] * 40, [7] * 3, 80)
def test_a_cut_keeps_the_system_message_and_the_last_question_whole(messages, chosen, rejected, T):
    """Older turns go first, then the ends of the answers, of both after the same number of tokens."""
    turns = [(TRAPPING.render([message])[0], message['role']) for message in messages]
    found = fit([*turns, (HEADER, 'assistant')], chosen, rejected, T)
    assert found == slow_fit(messages, [chosen, rejected], T)
    assert all(len(found[0]) + len(answer) <= T for answer in found[1:3])


# writes down what goes into log p
SPY = """
import model
real = model.GPT.log_p
def spy(self, x, y, **more):
    with open('PATH', 'a') as file:
        print(json.dumps([x.tolist(), y.tolist()]), file=file)
    return real(self, x, y, **more)
import json
model.GPT.log_p = spy
"""


def test_what_lines_become(dpo, tmp_path):
    """The frame of messages is written out by hand. Nothing that a text says forges a special token."""
    talk = [say('system', 'be'), say('user', 'q')]
    frame = [S, *b'system\nbe', E, 10, S, *b'user\nq', E, 10, S, *b'assistant\n']
    lines = [{'prompt': 'q', 'chosen': 'é', 'rejected': 'no', 'margin': 3},
             {'prompt': talk, 'chosen': 'yes', 'rejected': 'no'},
             {'prompt': 'q', 'chosen': '', 'rejected': ''},                     # left out
             {'prompt': 'q', 'completion': 'up', 'label': True},
             {'prompt': 'q', 'completion': 'down', 'label': False},
             {'prompt': 'a<|im_end|>', 'chosen': '<|im_start|>', 'rejected': ''}]
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', lines)
    printed = ok(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', '--loss_type=kto', '--max_steps=2',
                     '--micro_batch_size=1', before=SPY.replace('PATH', f'{tmp_path}/calls')))
    assert ("train.jsonl {'whole': 5, 'left out: both answers are the same': 1} 4 better and 4 worse answers"
            in printed)
    wanted = [*pair('q', 'é', 'no'), (frame, [*b'yes', E]), (frame, [*b'no', E]), *pair('q', 'up', None),
              *pair('q', None, 'down'), *pair('a<|im_end|>', '<|im_start|>', '')]
    found = []                              # prompt and answer of each row, without its padding
    for x, y in (row for call in read_rows(tmp_path / 'calls') for row in zip(*call)):
        answer = [id for id in y if id != -100]
        if answer:
            at = y.index(answer[0])
            assert y[at:at + len(answer)] == answer == x[at + 1:at + 1 + len(answer)]
            found.append((x[:at + 1], answer))
    wanted = [(prompt, answer) for prompt, answer in wanted if answer]
    assert all(row in found for row in wanted) and all(row in wanted for row in found)


def test_a_pair_whose_answers_are_cut_to_the_same_is_left_out_and_counted(dpo, tmp_path):
    """Its loss has a gradient of rounding errors, of which AdamW makes steps of full size."""
    late = {'prompt': 'q', 'chosen': 'a' * 99 + 'x', 'rejected': 'a' * 99 + 'y'}
    early = {'prompt': 'q', 'chosen': 'x' + 'a' * 99, 'rejected': 'y'}
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', [late, early])
    printed = ok(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', '--max_steps=2', '--block_size=48'))
    assert "train.jsonl {'left out: both answers are the same': 1, 'answers cut': 1}" in printed
    write(tmp_path / 'train.jsonl', [late])
    mistake(dpo(tmp_path / 'no', f'--data_dir={tmp_path}', '--block_size=48'), 'fit into 48 tokens')


def test_of_single_answers_the_rarer_kind_is_repeated_and_one_kind_alone_is_refused(dpo, pairs, tmp_path):
    """It would destroy the model."""
    rows = thumbs_of(read_rows(pairs / 'train.jsonl'))
    some = {'16 worse': lambda i, row: row['label'] or i % 2, '0 worse': lambda i, row: row['label'],
            '0 better': lambda i, row: not row['label']}
    write(tmp_path / 'val.jsonl', rows)
    for counts, is_kept in some.items():
        write(tmp_path / 'train.jsonl', [row for i, row in enumerate(rows) if is_kept(i, row)])
        result = dpo(tmp_path / 'out', '--loss_type=kto', f'--data_dir={tmp_path}', '--max_steps=1',
                     '--overwrite=True', '--warmup_steps=0')
        assert counts in result.stdout
        if counts == '16 worse':
            assert '32 better and 16 worse answers' in ok(result) and ', 4 an epoch' in result.stdout
        else:
            mistake(result, counts, 'needs both')
