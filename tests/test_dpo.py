"""dpo.py: real runs; their reference, against a slow loop; pairs that are too long; a user's mistakes."""
import math
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from accidents import accident, killed_while_saving, replaced
from alike import FILES, TORCHRUN, copied, each_death, expect_a_full_disk_leaves_the_last_checkpoint
from alike import expect_a_signal_names_the_save, expect_all_end, expect_links_lead_nowhere
from alike import expect_nan_stays_out, expect_no_run_is_replaced
from alike import expect_straight, resumed
from conftest import contents, lift, make_sft, metrics, mistake, ok, read_rows, run
from conftest import save_run, series, state, thumbs_of, write
from feedback import expect
from hypothesis import given, strategies as st
from test_records import BYTES, TRAPPING, chats, say
from test_sft import epoch_of

from extras.rewards import open_scores
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

collate, fit, numbers_of = lift('dpo.py', 'collate', 'fit', 'numbers_of')
goes_on = resumed('dpo.py')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=8 --max_steps=12 --warmup_steps=2 --learning_rate=3e-3 '
         '--log_interval=1 --eval_interval=5 --save_interval=4 --sample_tokens=4').split()


def pair(prompt, *answers):
    """Prompt and answer of a pair, ids; the frame written out by hand."""
    S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))
    asked = [S, *b'user\n', *prompt.encode(), E, 10, S, *b'assistant\n']
    return tuple((asked, [*a.encode(), E] if a is not None else []) for a in answers)


@pytest.fixture(scope='module')
def dpo(sft_model, pairs):
    """dpo(its folder, *flags)"""
    def dpo(out, *more, **how):
        return run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={out}', *FLAGS,
                   *more, **how)
    return dpo


@pytest.fixture(scope='module')
def thumbs(pairs, tmp_path_factory):
    """A folder of pairs and, every second line, single answers, some good and some bad."""
    folder = tmp_path_factory.mktemp('thumbs')
    for side in ('train', 'val'):
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    return folder


# --- what is learned ----------------------------------------------------------------------------------------
def test_held_out_answers_are_told_apart_after_24_steps(dpo, pairs, tmp_path):
    for side, every in (('train', 1), ('val', 2)):          # of the held-out ones, every second is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[every - 1::every] = thumbs_of(rows)[every - 1::every]
        write(tmp_path / f'thumbs/{side}.jsonl', rows)
    for i, (kind, *more) in enumerate((
            ('dpo', '--label_smoothing=0.2', '--nll_weight=0'), ('ipo',), ('simpo',), ('orpo', '--beta=1'),
            ('kto', '--nll_weight=0'), ('kto', f'--data_dir={tmp_path}/thumbs', '--nll_weight=0'), ('rm',))):
        out, case = tmp_path / f'{i}', (kind, more)
        ok(dpo(out, f'--loss_type={kind}', '--max_steps=24', '--eval_interval=24', *more))
        first, last = (m for m in metrics(out) if 'val_accuracy' in m)
        assert 0.2 < first['val_accuracy'] < 0.8 and last['val_accuracy'] > 0.9 and last['step'] == 24, case
        assert last['val_loss'] < first['val_loss'], case
        assert last['val_margin'] > first['val_margin'] + 0.01, case
        has_reference = kind in ('dpo', 'ipo', 'kto')
        assert state(out)['ref_log_probs'].any() == has_reference == ('val_kl' in last), case
        assert (last.get('val_response_len', 0) > 0) == (kind != 'rm'), case
    assert first['val_loss'] == pytest.approx(math.log(2))      # the last of them: all scores begin as 0


def test_the_smaller_beta_the_further_from_the_reference(dpo, tmp_path):
    gaps = []           # of the log-ratios: how much more the better answer has gained than the worse one
    for beta in (0.03, 1, 10):
        out = tmp_path / f'{beta}'
        ok(dpo(out, f'--beta={beta}', '--nll_weight=0', '--max_steps=24', '--eval_interval=24'))
        gaps.append(series(out, 'val_margin')[-1] / beta)
    assert gaps[0] > 1.5 * gaps[1] > 1.5 * 1.5 * gaps[2] > 0, gaps


def test_nll_weight_holds_the_good_answers_up(dpo, tmp_path):
    for weight in (0, 1):
        ok(dpo(tmp_path / f'{weight}', f'--nll_weight={weight}', '--max_steps=24', '--grad_clip=0'))
    bare, held = (series(tmp_path / name, 'val_chosen_logp') for name in '01')
    assert held[-1] > held[0] + 5 and bare[-1] < held[-1] - 5


def test_the_out_dir_is_complete_and_evaluating_changes_nothing(dpo, done, tmp_path):
    assert contents(done).keys() == FILES
    rows = read_rows(done / 'metrics.jsonl')
    means = {'accuracy', 'margin', 'chosen_reward', 'rejected_reward', 'chosen_logp', 'rejected_logp', 'kl'}
    every = {'step', 'tokens'}
    assert {*every, *means, 'loss', 'preference_loss', 'lr', 'grad_norm', 'dt', 'tok_s'} < rows[1].keys()
    assert {*every, *(f'val_{name}' for name in means), 'val_loss', 'val_response_len'} == rows[0].keys()
    ok(dpo(tmp_path / 'often', '--eval_interval=1'))
    assert series(tmp_path / 'often', 'loss') == series(done, 'loss')
    assert len(series(tmp_path / 'often', 'val_loss')) == 13
    assert ok(run('sample.py', f'--ckpt={done}', '--prompt=7', '--max_new_tokens=5')).startswith('7')


def test_single_answers_make_pairs_and_the_figures_are_means_over_them(dpo, sft_model, thumbs, tmp_path):
    """Of the held-out lines, every second has one answer only: 24 are good and 24 bad. A pair may have two
    prompts. By hand, from the formulas."""
    ok(dpo(tmp_path, '--loss_type=kto', f'--data_dir={thumbs}', '--max_steps=4', '--learning_rate=2e-2',
           '--beta=0.5', '--nll_weight=1'))
    before, after = (GPT.load(path) for path in (sft_model, tmp_path / 'last.pt'))
    gains = {'chosen': [], 'rejected': []}
    for row in read_rows(thumbs / 'val.jsonl'):
        if 'label' in row:
            row['chosen' if row['label'] else 'rejected'] = row['completion']
        for side in gains.keys() & row.keys():
            gains[side].append(np.subtract(*(slow_log_p(model, *pair(row['prompt'], row[side])[0])
                                             for model in (after, before))))
    good, bad = (np.array(gains[side]) for side in ('chosen', 'rejected'))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    last = metrics(tmp_path)[-1]
    assert state(tmp_path)['kto_kl'] > 0.1 and len(good) == len(bad) == 24
    wanted = {'val_accuracy': (good > bad).mean(), 'val_kl': (good + bad).mean() / 2,
              'val_chosen_reward': 0.5 * good.mean(), 'val_rejected_reward': 0.5 * bad.mean(),
              'val_margin': 0.5 * (good - bad).mean(),
              # of KTO with 0 as its zero point: always the same loss
              'val_loss': (sigmoid(-0.5 * good) + sigmoid(0.5 * bad)).mean() / 2}
    assert {name: last[name] for name in wanted} == pytest.approx(wanted, abs=3e-4)


def test_the_rarer_kind_of_single_answers_is_repeated(dpo, pairs, tmp_path):
    rows = read_rows(pairs / 'train.jsonl')
    for side in ('train', 'val'):
        write(tmp_path / f'{side}.jsonl', [{'prompt': row['prompt'], 'completion': row['chosen' if i % 4 else
                                            'rejected'], 'label': i % 4 > 0} for i, row in enumerate(rows)])
    printed = ok(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', '--loss_type=kto', '--max_steps=24'))
    assert '48 better and 16 worse answers' in printed and ', 6 an epoch' in printed
    assert series(tmp_path / 'run', 'val_accuracy')[-1] > 0.9


def test_the_zero_point_of_kto_is_what_the_step_before_has_gained(dpo, tmp_path):
    ok(dpo(tmp_path, '--loss_type=kto', '--learning_rate=3e-2', '--beta=0.5'))
    kl = series(tmp_path, 'kl')
    assert state(tmp_path)['kto_kl'] == pytest.approx(max(0, 0.5 * kl[-1])) and max(kl) > 0.1


# --- the reference ------------------------------------------------------------------------------------------
def slow_log_p(model, prompt, answer):
    """One token at a time, each with what stands before it alone."""
    total = 0.0
    for i, token in enumerate(answer):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer[:i]]]))[0][0, -1]
        total += logits.double().log_softmax(-1)[token].item()
    return total


def test_the_reference_is_what_init_from_says_before_and_after_training(done, sft_model, pairs):
    ref = state(done)['ref_log_probs']
    assert 'ref_log_probs' not in state(done, 'best.pt')
    model = GPT.load(sft_model).eval()
    rows = sum((read_rows(pairs / f'{side}.jsonl') for side in ('train', 'val')), [])
    wanted = [[slow_log_p(model, *side) for side in pair(row['prompt'], row['chosen'], row['rejected'])]
              for row in rows[::5]]
    assert ref.shape == (96, 2) and (ref[::5] - torch.tensor(wanted)).abs().max() < 1e-4


# each forward pass says something else, as on a machine whose arithmetic depends on the batch
ODD = replaced('hidden states', 'return real(*arguments, **more) * (n + 1)')


def test_a_first_loss_that_is_not_ln_2_ends_the_run(dpo, tmp_path):
    mistake(dpo(tmp_path, before=ODD), 'the first dpo loss is', 'in place of 0.69315', '--dtype=float32')
    assert not (tmp_path / 'best.pt').exists() and state(tmp_path)['step'] == 0
    before = contents(tmp_path)['last.pt']
    mistake(run('dpo.py', f'--out_dir={tmp_path}', '--init_from=resume', before=ODD), 'the first dpo loss')
    assert contents(tmp_path)['last.pt'] == before


# --- pairs that are too long --------------------------------------------------------------------------------
HEADER, _ = TRAPPING.render([], add_generation_prompt=True)


def turns_of(messages):
    turns = [(TRAPPING.render([message])[0], message['role']) for message in messages]
    return [*turns, (HEADER, 'assistant')]


def slow_fit(messages, answers, T):
    """What fit() promises, tried one after another with whole messages."""
    n = next((i for i, message in enumerate(messages) if message['role'] != 'system'), len(messages))
    system, rest, how = messages[:n], messages[n:], 'whole'
    while True:
        prompt, _ = TRAPPING.render(system + rest, add_generation_prompt=True)
        if len(prompt) + max(map(len, answers)) <= T:
            break
        # the next message that begins a question: of a user, and not after another one of a user
        later = [i for i in range(1, len(rest)) if rest[i]['role'] == 'user' != rest[i - 1]['role']]
        if not later:
            how = 'answers cut'
            break
        rest, how = rest[later[0]:], 'older turns left out'
    if (T - len(prompt)) * 4 < T:
        return 'left out: its question is too long', [], [], []
    chosen, rejected = (answer[:T - len(prompt)] for answer in answers)
    if chosen == rejected:
        return 'left out: both answers are the same', [], [], []
    return how, prompt, chosen, rejected


ids = st.integers(0, 150).flatmap(lambda n: st.lists(st.integers(5, 7), min_size=n, max_size=n))


@given(chats, ids, ids, st.integers(1, 120))
def test_a_cut_keeps_the_system_message_and_the_last_question_whole(messages, chosen, rejected, T):
    """Older turns go first, then the ends of the answers, of both after the same number of tokens."""
    *kept, found = fit(turns_of(messages), chosen, rejected, T)
    how, *wanted = slow_fit(messages, [chosen, rejected], T)
    assert (found, kept) == (how, wanted)
    assert all(len(kept[0]) + len(answer) <= T for answer in kept[1:])


def test_what_is_cut_is_what_the_page_shows():
    system = say('system', 'S' * 5)
    user, assistant = (lambda c, n: say('user', c * n)), (lambda c, n: say('assistant', c * n))
    talk = [system, user('q', 5), assistant('a', 5), user('r', 5)]
    for messages, c, d, T, how, kept in (
            (talk, 8, 3, 200, 'whole', 'SSSSS qqqqq aaaaa rrrrr'),
            (talk, 8, 3, 40, 'older turns left out', 'SSSSS rrrrr'),
            (talk, 40, 3, 40, 'answers cut', 'SSSSS rrrrr'), (talk, 9, 40, 40, 'answers cut', 'SSSSS rrrrr'),
            ([user('q', 5), user('r', 5)], 99, 3, 40, 'answers cut', 'qqqqq rrrrr'),
            ([user('q', 60)], 9, 3, 64, 'left out: its question is too long', ''),
            ([user('q', 90)], 9, 3, 115, 'whole', 'q' * 90),        # short answers need little room
            (talk, 3, 3, 200, 'left out: both answers are the same', '')):
        prompt, chosen, rejected, found = fit(turns_of(messages), [7] * c, [7] * d, T)
        text = re.sub(r'<[^>]*>(system|user|assistant)?', ' ', TRAPPING.decode(prompt))
        assert (found, ' '.join(re.findall('S+|q+|r+|a+', text))) == (how, kept)
        wanted = tuple(min(n, T - len(prompt)) for n in (c, d)) if prompt else (0, 0)
        assert (len(chosen), len(rejected)) == wanted


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


# --- tensors ------------------------------------------------------------------------------------------------
def test_a_target_is_the_next_token_of_an_answer():
    pairs = [(([5, 6], [7, 8, 9]), ([5, 6], [7, 4]))]
    for name, i, wanted in (('x', 0, [[5, 6, 7, 8, 9], [5, 6, 7, 4, 0]]),
                            ('y', 1, [[-100, 7, 8, 9, -100], [-100, 7, 4, -100, -100]])):
        expect(f'{name} of collate({pairs})', torch.tensor(wanted), lambda: collate(pairs)[i])


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
    S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))
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
    found = []
    for x, y in (row for call in read_rows(tmp_path / 'calls') for row in zip(*call)):
        n = sum(id != -100 for id in y)
        at = next((i for i, id in enumerate(y) if id != -100), None)
        if n:
            assert y[at:at + n] == x[at + 1:at + 1 + n]
            found.append((x[:at + 1], x[at + 1:at + 1 + n]))
    wanted = [(prompt, answer) for prompt, answer in wanted if answer]
    assert all(row in found for row in wanted) and all(row in wanted for row in found)


# --- which pairs make up a step -----------------------------------------------------------------------------
@pytest.mark.parametrize('n, batch_size', [(2003, 8), (300, 7), (5, 8), (1, 3)])
def test_an_epoch_is_that_of_sft(n, batch_size):
    lengths = np.random.default_rng(0).lognormal(4, 1, n).astype(int) + 2
    per_epoch = max(1, n // batch_size)
    for seed, epoch in ((1, 0), (1, 9), (2, 0)):
        rows = [numbers_of(epoch * per_epoch + i, lengths, batch_size, seed) for i in range(per_epoch)]
        assert np.array_equal(rows, epoch_of(lengths, batch_size, seed, epoch))


# --- it goes on where it was --------------------------------------------------------------------------------
CASES = {'kto': ['--loss_type=kto', '--learning_rate=3e-2'],
         'a reward model and lora': ['--loss_type=rm', '--lora=4', '--micro_batch_size=3']}


@pytest.mark.parametrize('case', CASES)
def test_a_run_that_was_killed_three_times_is_the_straight_one_bit_for_bit(case, thumbs, pairs, tmp_path):
    """The model that it began with may be gone by then."""
    start = make_sft(tmp_path / 'start', dropout=0.1)
    data = thumbs if case == 'kto' else pairs
    flags = ['dpo.py', f'--init_from={start}', f'--data_dir={data}', *FLAGS, '--max_steps=18', *CASES[case]]
    ok(run(*flags, f'--out_dir={tmp_path}/straight'))
    out = tmp_path / 'run'
    killed = [run(*flags, f'--out_dir={out}', before=accident('kill', 2))]
    shutil.rmtree(start)
    killed += [goes_on(out, before=killed_while_saving(8)), goes_on(out, before=accident('kill', 8))]
    finished = expect_straight(out, tmp_path / 'straight', killed, goes_on, 12, 18)
    assert 'reference:' not in finished.stdout + finished.stderr


@pytest.fixture(scope='module')
def done(dpo, tmp_path_factory):
    """The folder of a run; no test may change it."""
    out = tmp_path_factory.mktemp('done') / 'run'
    ok(dpo(out))
    return out


def test_another_run_is_not_resumed_as_this_one(dpo, sft_model, pairs, done, tmp_path):
    before = contents(done)
    again = lambda *flags, out=done: run('dpo.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=14',
                                         *flags)
    for flag in ('--lora=2', '--loss_type=ipo', '--beta=0.2', '--block_size=60'):
        mistake(again(flag), 'other data or settings')
    for side in ('train', 'val'):
        shutil.copytree(pairs, tmp_path / side)
        with open(tmp_path / side / f'{side}.jsonl', 'a') as f:
            f.write('\n')
        mistake(again(f'--data_dir={tmp_path}/{side}'), 'other data')
    out = shutil.copytree(done, tmp_path / 'best')
    shutil.copy(out / 'best.pt', out / 'last.pt')
    mistake(again(out=out), 'is not of dpo.py')
    mistake(again(out=tmp_path / 'none'), 'last.pt')
    assert contents(done) == before
    moved = shutil.copytree(pairs, tmp_path / 'moved')                              # the same data
    ok(again(f'--data_dir={moved}', '--learning_rate=1e-3', out=shutil.copytree(done, tmp_path / 'more')))
    assert series(tmp_path / 'more', 'loss')[:12] == series(done, 'loss')


def test_the_best_model_is_the_best_and_never_the_untrained_one(dpo, done, tmp_path):
    assert min(series(done, 'val_loss')[1:]) == state(done)['best_val'] == GPT.load(done).saved['best_val']
    ok(dpo(tmp_path / 'run', '--learning_rate=3', '--warmup_steps=0', '--max_steps=1'))
    before, after = series(tmp_path / 'run', 'val_loss')
    assert before < after == GPT.load(tmp_path / 'run').saved['best_val']


def test_a_run_is_not_replaced_by_accident_nor_what_it_starts_from_at_all(dpo, done, tmp_path):
    before = contents(done)
    mistake(dpo(done, '--overwrite=True', '--warmup_steps=99'), 'warmup_steps')
    assert contents(done) == before
    expect_no_run_is_replaced(dpo, done, tmp_path / 'run', '--warmup_steps=0')


def test_links_in_a_folder_of_a_stranger_lead_nowhere(done, tmp_path):
    expect_links_lead_nowhere(done, tmp_path, goes_on)


# --- it ends early ------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_signal_ends_it_with_the_step_that_was_saved(dpo, name, code, tmp_path):
    expect_a_signal_names_the_save(dpo, tmp_path / 'run', 'dpo.py', name, code, 6, 4, 12)


def test_what_is_not_finite_ends_it_before_the_weights_and_the_advice_works(dpo, tmp_path):
    expect_nan_stays_out(dpo, tmp_path / 'run', 6, 4, '0.00075', 12)


def test_the_first_save_comes_before_the_first_step(dpo, done, tmp_path):
    assert dpo(tmp_path / 'run', before=accident('kill', 0)).returncode == -signal.SIGKILL
    assert state(tmp_path / 'run')['step'] == 0
    ok(run('dpo.py', f'--out_dir={tmp_path}/run', '--init_from=resume'))
    assert metrics(tmp_path / 'run') == metrics(done)


def test_a_full_disk_leaves_the_last_checkpoint(done, tmp_path):
    expect_a_full_disk_leaves_the_last_checkpoint(done, tmp_path / 'run', goes_on)


# --- several processes --------------------------------------------------------------------------------------
@pytest.mark.parametrize('n, batch_size, kind', [(2, 7, 'dpo'), (4, 3, 'kto'), (2, 5, 'rm')])
def test_any_batch_is_shared_by_any_number_of_processes(dpo, n, batch_size, kind, thumbs, pairs, tmp_path):
    """Of 4 processes and 3 pairs, one has nothing to learn from. One of the runs has small micro-batches, and
    computes its blocks twice."""
    flags = (f'--batch_size={batch_size}', '--max_steps=6', f'--loss_type={kind}', '--grad_clip=0.3',
             f'--data_dir={thumbs if kind == "kto" else pairs}')
    ok(dpo(tmp_path / 'one', *flags))
    ok(dpo(tmp_path / 'more', *flags, '--micro_batch_size=2', '--grad_checkpoint=True', processes=n))
    for key in ('loss', 'grad_norm', 'accuracy', 'chosen_reward', 'margin', 'tokens', 'val_loss'):
        one, more = (series(tmp_path / name, key) for name in ('one', 'more'))
        for a, b in zip(one, more):
            assert a == b if a is None else a == pytest.approx(b, rel=1e-6, abs=2e-6), key
    one, two = (state(tmp_path / name)['model'] for name in ('one', 'more'))
    assert one.keys() == two.keys()


@each_death
def test_when_a_process_ends_the_others_do_not_wait(dpo, deed, rank, tmp_path):
    expect_all_end(dpo, tmp_path / 'run', deed, rank)


# --- copied -------------------------------------------------------------------------------------------------
def test_with_its_three_leaves_alone_it_trains_in_one_and_in_two_processes(sft_model, pairs, tmp_path):
    """dpo, ipo, orpo, simpo, and kto; and a flag whose file is not there is told by name."""
    call = copied('dpo.py', tmp_path)
    flags = ['dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', *FLAGS, '--max_steps=3']
    for command, out in (([sys.executable], 'one'), (TORCHRUN, 'two')):
        ok(call(*command, *flags, f'--out_dir={out}'))
        ok(call(*command, 'dpo.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=5'))
        assert len(series(tmp_path / out, 'loss')) == 5
    for kind in ('ipo', 'orpo', 'simpo', 'kto'):
        ok(call(sys.executable, *flags, f'--loss_type={kind}', f'--out_dir={kind}'))
    for flag, file in (('--lora=2', 'lora'), ('--loss_type=rm', 'rewards')):
        mistake(call(sys.executable, *flags, '--out_dir=three', flag), 'copy extras, too', f'extras.{file}')


# --- the reward model ---------------------------------------------------------------------------------------
@pytest.mark.parametrize('more', [[], ['--lora=4']])
def test_a_reward_model_is_a_plain_model_and_a_head_and_its_scores_are_those_of_the_run(dpo, sft_model, pairs,
                                                                                        more, tmp_path):
    ok(dpo(tmp_path / 'run', '--loss_type=rm', *more))
    saved = state(tmp_path / 'run', 'last.pt')
    assert saved['model'].keys() == GPT.load(sft_model).state_dict().keys()
    assert saved['reward_head'].shape == (1, 32) and saved['reward_head'].any()
    (tmp_path / 'run/best.pt').unlink()             # so last.pt is read
    autocast = torch.autocast('cpu', enabled=False)
    asked, judge, _ = open_scores(str(tmp_path / 'run'), str(pairs / 'val.jsonl'), BYTES, 'cpu', autocast)
    rows = read_rows(pairs / 'val.jsonl')
    assert asked == [row['prompt'] for row in rows]
    ends = [a - b for a, b in (judge([row['prompt']] * 2, [row['chosen'], row['rejected']]) for row in rows)]
    assert np.mean(ends) == pytest.approx(series(tmp_path / 'run', 'val_margin')[-1], abs=1e-5)


def test_a_run_that_ends_before_its_reference_is_known_leaves_nothing_behind(dpo, tmp_path):
    """So the same command can be typed again."""
    killed = "import tqdm\ntqdm.tqdm = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert dpo(tmp_path / 'run', before=killed).returncode == -signal.SIGKILL
    assert not (tmp_path / 'run').exists()
    ok(dpo(tmp_path / 'run', '--max_steps=2'))


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_and_files_that_cannot_be_used(dpo, tmp_path):
    write(tmp_path / 'train.jsonl', [{'prompt': 'q', 'chosen': 'a', 'rejected': 'a'}])
    for flag, words in (
            ('--beta=0', 'beta=0'), ('--loss_type=orpo --nll_weight=1', '--nll_weight orpo'),
            ('--loss_type=rm --nll_weight=1', '--nll_weight rm'), ('--gamma=2', '--gamma dpo simpo'),
            ('--label_smoothing=0.1 --loss_type=ipo', '--label_smoothing ipo'),
            ('--beta=0.2 --loss_type=rm', '--beta rm'),
            ('--label_smoothing=0.5', 'label_smoothing=0.5'),
            ('--block_size=97', 'block_size=97 96 extras.longer_context'), ('--device=tpu', '--device=auto'),
            ('--beta=1e-300', 'beta=1e-300'), ('--epochs=1e15', 'epochs=1000000000000000.0'),
            ('--warmup_steps=13', 'warmup_steps=13 max_steps=12'), ('--block_size=1', '0 better 1 tokens'),
            ('--data_dir=nowhere', 'nowhere --kind=preference'),
            ('--init_from=gone', 'gone python sft.py'),
            (f'--data_dir={tmp_path}', 'train.jsonl 0 better 0 worse answers differ')):
        mistake(dpo(tmp_path / 'out', *flag.split()), *words.split())
    assert not (tmp_path / 'out').exists()


def test_answers_of_one_kind_would_destroy_the_model(dpo, pairs, tmp_path):
    rows = thumbs_of(read_rows(pairs / 'train.jsonl'))
    write(tmp_path / 'val.jsonl', rows)
    for label, counts in ((True, '32 better and 0 worse'), (False, '0 better and 32 worse')):
        write(tmp_path / 'train.jsonl', [row for row in rows if row['label'] == label])
        result = dpo(tmp_path / 'out', '--loss_type=kto', f'--data_dir={tmp_path}')
        mistake(result, counts, 'needs both')
        assert f'{counts} answers' in result.stdout
    assert not (tmp_path / 'out').exists()


def test_a_model_that_cannot_answer_is_no_start(dpo, tmp_path):
    def start(special=SPECIAL_TOKENS[:4], saved=(), **config):
        tokenizer = Tokenizer.byte(special)
        model = GPT(GPTConfig(tokenizer.vocab_size, 96, 1, 2, 0, 32, **config))
        if saved == 'new rows':         # as GPT.load gives them to a model of others
            model.embedding.weight.data[-4:] = model.embedding.weight.data[:-4].mean(0)
            saved = ()
        shutil.rmtree(tmp_path / 'start', ignore_errors=True)
        save_run(tmp_path / 'start', model, tokenizer, **dict(saved))
        return f'--init_from={tmp_path}/start'
    for how, flags, word in (
            ([SPECIAL_TOKENS[:1]], [], '<|im_start|>'), ({'causal': False}, [], 'mlm'),
            ({'saved': {'reward_head': torch.zeros(2)}}, [], 'reward model'),
            ({'saved': {'tokenizer_hash': 'x'}}, [], 'tokenizer.json is not'),
            ({'saved': 'new rows'}, ['--lora=2'], '<|im_start|>')):
        base = start(*how) if isinstance(how, list) else start(**how)
        mistake(dpo(tmp_path / 'run', base, *flags), word)
    assert not (tmp_path / 'run').exists()


PAIR = '{"prompt": "q", "chosen": "a", "rejected": "b"}'
UP = '{"prompt": "q", "completion": "a", "label": true}'


def test_a_line_that_cannot_be_used_is_named_by_its_number(dpo, tmp_path):
    (tmp_path / 'val.jsonl').write_text(f'{PAIR}\n', encoding='utf-8')
    for bad, kind, word in (
            ('{"prompt": ""}', 'dpo', 'chosen'), (UP, 'dpo', 'for kto'), ('[1]', 'dpo', 'TypeError'),
            (UP.replace('true', '"false"'), 'kto', 'true or false'),
            (PAIR.replace('"a"', 'null'), 'dpo', 'text'), (PAIR.replace('"a"', '[1]'), 'dpo', 'text'),
            (PAIR.replace('"q"', 'null'), 'dpo', 'prompt'),
            (PAIR.replace('"q"', '["q"]'), 'dpo', 'role'), (PAIR[:-5], 'dpo', 'JSON'),
            ('[' * 100_000, 'dpo', 'Recursion'), (b'\xff\xfe', 'dpo', 'Decode')):
        (tmp_path / 'train.jsonl').write_bytes(PAIR.encode() + b'\n' + (
            bad if isinstance(bad, bytes) else bad.encode()))
        mistake(dpo(tmp_path / 'run', f'--data_dir={tmp_path}', f'--loss_type={kind}'), 'train.jsonl, line 2',
                word, '"chosen"')
    assert not (tmp_path / 'run').exists()
