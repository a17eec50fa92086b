"""sft.py: trained is what the assistants say, and nothing else; real runs, replay, a user's mistakes."""
import json
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from accidents import accident, before, killed_while_saving
from alike import FILES, TORCHRUN, copied, each_death, expect_a_full_disk_leaves_the_last_checkpoint
from alike import expect_a_signal_names_the_save, expect_all_end, expect_links_lead_nowhere
from alike import expect_nan_stays_out, expect_no_run_is_replaced
from alike import expect_straight, resumed
from conftest import base_text, contents, lift, make_conversations, metrics, read_json, mistake, ok
from conftest import read_rows, run, save_run, series, state, write
from feedback import expect
from hypothesis import given, strategies as st
from test_records import BYTES, TRAPPING, chats, say

from model import GPT, IGNORE, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

E = '<|im_end|>'
END, PAD = TRAPPING.special[E], TRAPPING.special['<|pad|>']
collate, fit, numbers_of = lift('sft.py', 'collate', 'fit', 'numbers_of')
goes_on = resumed('sft.py')
FLAGS = ('--batch_size=8 --max_steps=20 --eval_interval=6 --save_interval=5 --log_interval=1 '
         '--sample_tokens=8 --learning_rate=1e-2 --dropout=0.1 --device=cpu --dtype=float32').split()


# --- the loss -----------------------------------------------------------------------------------------------
def test_a_target_is_the_next_token_if_that_is_trained():
    rows = [([5, 6, 7, 8], [0, 0, 1, 1]), ([9, 3], [0, 1])]
    for name, i, wanted in (('x', 0, [[5, 6, 7], [9, 0, 0]]), ('y', 1, [[-100, 7, 8], [3, -100, -100]])):
        expect(f'{name} of collate({rows}, pad=0)', torch.tensor(wanted), lambda: collate(rows, pad=0)[i])


def test_a_row_s_loss_and_gradient_are_its_own_whatever_is_beside_it_and_pads_it():
    torch.manual_seed(0)
    model = GPT(GPTConfig(TRAPPING.vocab_size, 64, 2, 2, 0, 32, tie_embeddings=False))
    rows = [TRAPPING.render([say('user', 'Q' + 'b' * i), say('assistant', 'c' * (i % 5)), say('user', 'Z')])
            for i in range(8)]

    def gradients(parts, pad=PAD):          # of the mean over all targets; parts as micro-batches
        model.zero_grad()
        batches = [collate(part, pad) for part in parts]
        counts = [(y != IGNORE).sum().item() for _, y in batches]
        for (x, y), n in zip(batches, counts):
            (model(x, y)[1] * n / sum(counts)).backward()
        return [p.grad.clone() for p in model.parameters()]

    together = gradients([rows])
    for other in gradients([[row] for row in rows]), gradients([rows], pad=END):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, other))
    grad = gradients([rows])[0].abs().sum(-1)               # of the embedding
    assert grad[ord('Q')] > 0 and grad[ord('Z')] == grad[PAD] == 0      # of context; of what follows


# --- runs ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def sft(sft_model, conversations):
    """sft(its folder, *flags). It has dropout, so that lost random state shows."""
    def sft(out, *more, **how):
        return run('sft.py', f'--init_from={sft_model}', f'--data_dir={conversations}', f'--out_dir={out}',
                   *FLAGS, *more, **how)
    return sft


# writes down what reaches the loss
SPY = before('forward', """
    model, x, y = arguments
    if model.training:
        with open('PATH', 'a') as file:
            print(json.dumps([x.tolist(), y.tolist()]), file=file)""")


def test_the_tensors_that_reach_the_loss_say_what_the_assistants_say(sft, conversations, tmp_path):
    """Every answer of a conversation and its end, also of an empty one; never a question or padding."""
    rows = read_rows(conversations / 'train.jsonl')
    rows = [row for row in rows if len(row['messages']) < 6]            # none is cut
    rows[0]['messages'][-1]['content'] = ''
    for side in ('train', 'val'):
        write(tmp_path / f'data/{side}.jsonl', rows)
    chat_of = {BYTES.decode(BYTES.render(row['messages'])[0]): row['messages'] for row in rows}
    ok(sft(tmp_path / 'run', f'--data_dir={tmp_path}/data', '--micro_batch_size=4', '--max_steps=4',
           before=SPY.replace('PATH', f'{tmp_path}/calls')))
    calls = read_rows(tmp_path / 'calls')
    texts = []
    n_trained = 0
    for x, y in (row for call in calls for row in zip(*call)):
        texts.append(BYTES.decode(x).split('\0')[0] + E + '\n')     # the last target is no input
        said = [m['content'] + E for m in chat_of[texts[-1]] if m['role'] == 'assistant']
        assert BYTES.decode([id for id in y if id != IGNORE]) == ''.join(said)
        *places, _ = (i for i, id in enumerate(y) if id != IGNORE)
        assert all(x[i + 1] == y[i] for i in places)            # the very next token
        n_trained += sum(id != IGNORE for id in y)
    assert len(calls) == 8 and len(texts) == 32 == len(set(texts))          # in an epoch, each once
    assert n_trained == sum(series(tmp_path / 'run', 'trained'))


def test_with_replay_the_base_text_is_learned_beside_the_answers(sft, tmp_path):
    base_text(tmp_path / 'base', 300)
    for replay in (0, 2):
        ok(sft(tmp_path / f'{replay}', f'--base_dir={tmp_path}/base', f'--replay={replay}'))
    without, beside = tmp_path / '0', tmp_path / '2'
    trained = zip(series(without, 'trained'), series(beside, 'trained'))
    assert [b - a for a, b in trained] == [2 * 96] * 20                 # every token of two sequences
    assert series(beside, 'base_bpb')[-1] < series(without, 'base_bpb')[-1] - 0.5
    assert series(beside, 'val_loss')[-1] < series(beside, 'val_loss')[0] - 1


def test_the_out_dir_is_complete_and_evaluating_changes_nothing(sft, tmp_path):
    printed = ok(sft(tmp_path / 'run'))
    assert re.search(r'assistant\n\[\[\d+<\|im_end\|>]]', printed)        # what is trained
    assert contents(tmp_path / 'run').keys() == FILES
    rows = read_rows(tmp_path / 'run/metrics.jsonl')
    assert {'step', 'tokens', 'loss', 'lr', 'grad_norm', 'trained', 'dt', 'tok_s'} <= rows[1].keys()
    assert {'step', 'tokens', 'val_loss'} == rows[0].keys()
    ok(sft(tmp_path / 'often', '--eval_interval=1'))
    assert series(tmp_path / 'often', 'loss') == series(tmp_path / 'run', 'loss')
    assert len(series(tmp_path / 'often', 'val_loss')) == 21
    assert ok(run('sample.py', f'--ckpt={tmp_path}/run', '--prompt=7', '--max_new_tokens=5')).startswith('7')


def test_the_question_it_answers_ends_where_an_answer_begins(sft, tmp_path):
    """It is the last one of a conversation that was too long."""
    turns = [say('user', 'q'), say('assistant', 'a' * 99), say('user', 'why?'), say('assistant', '7')]
    for side in ('train', 'val'):
        write(tmp_path / f'data/{side}.jsonl', [{'messages': turns}])
    ok(sft(tmp_path / 'run', f'--data_dir={tmp_path}/data', '--max_steps=1'))
    samples = (tmp_path / 'run/samples.txt').read_text(encoding='utf-8')
    question = BYTES.decode(BYTES.render(turns[2:3], add_generation_prompt=True)[0])
    assert samples.startswith(f'--- step 0\n{question}')


def test_when_it_learns_by_heart_the_best_is_kept_and_what_is_forgotten_measured(sft, tmp_path):
    data, out = make_conversations(tmp_path / 'data', 4), tmp_path / 'run'
    base_text(data, 99)
    ok(sft(out, '--max_steps=60', '--dropout=0', f'--data_dir={data}', f'--base_dir={data}'))
    best = GPT.load(out / 'best.pt').saved
    vals, bits = ({m['step']: m[k] for m in metrics(out) if k in m} for k in ('val_loss', 'base_bpb'))
    assert best['best_val'] == vals[best['step']] == min(v for step, v in vals.items() if step)
    assert series(out, 'loss')[-1] < best['best_val'] < vals[60] and bits[60] > bits[0]


# --- conversations that are too long ------------------------------------------------------------------------
def turns_of(messages):
    return [(*TRAPPING.render([message]), message['role']) for message in messages]


def slow_fit(messages, T):
    """What fit() promises, tried one after another with whole messages: the parts of a conversation, from all
    of it to its last question with the answers to that."""
    roles = [message['role'] for message in messages]
    if 'assistant' not in roles:
        return 'left out: no answer', []
    while messages[-1]['role'] != 'assistant':
        messages = messages[:-1]
    n = next(i for i, role in enumerate(roles) if role != 'system')
    system, rest, how = messages[:n], messages[n:], 'whole'
    while True:
        ids, mask = TRAPPING.render(system + rest)
        end = max(i for i, bit in enumerate(mask) if bit) + 1
        if end <= T + 1:
            return how, ids[:end]
        # the next message that begins a question: of a user, and not after another one of a user
        later = [i for i in range(1, len(rest)) if rest[i]['role'] == 'user' != rest[i - 1]['role']]
        if not later:
            break
        rest, how = rest[later[0]:], 'older turns left out'
    first = mask.index(1)
    if (T + 1 - first) * 4 < T:
        return 'left out: its question is too long', []
    return 'answer cut', ids[:max(i for i, bit in enumerate(mask[:T + 1]) if bit) + 1]


@given(chats, st.integers(1, 90))
def test_a_cut_keeps_the_system_message_and_the_last_question_whole(messages, T):
    """Older turns go first, then the end of the answer; what follows the last answer always goes."""
    how, wanted = slow_fit(messages, T)
    ids, mask, found = fit(turns_of(messages), T)
    assert (found, ids) == (how, wanted)
    assert len(ids) == len(mask) <= T + 1
    if ids:
        assert mask[-1] == 1                                            # nothing is read in vain


def test_what_is_cut_is_what_the_page_shows():
    system, tool = say('system', 'S' * 5), say('tool', 't' * 60)
    user, assistant = (lambda c, n: say('user', c * n)), (lambda c, n: say('assistant', c * n))
    for messages, T, how, kept in (
            ([system, user('q', 5), assistant('a', 5), user('r', 5), assistant('b', 5), user('z', 9)], 200,
             'whole', 'SSSSS qqqqq aaaaa rrrrr bbbbb'),
            ([system, user('q', 5), assistant('a', 5), user('r', 5), assistant('b', 5)], 30,
             'older turns left out', 'SSSSS rrrrr bbbbb'),
            ([user('q', 5), user('r', 5), assistant('b', 60)], 40, 'answer cut', f'qqqqq rrrrr {"b" * 21}'),
            ([user('q', 5), assistant('a', 5), tool, assistant('b', 9)], 60, 'answer cut', 'qqqqq aaaaa'),
            ([user('q', 60), assistant('a', 5)], 64, 'left out: its question is too long', ''),
            ([system, user('q', 5)], 64, 'left out: no answer', '')):
        ids, mask, found = fit(turns_of(messages), T)
        words = re.findall('S+|q+|r+|a+|b+|t+', re.sub(r'<[^>]*>(system|user|assistant|tool)?', ' ',
                                                       TRAPPING.decode(ids)))
        assert (found, ' '.join(words)) == (how, kept)


def test_two_questions_whose_answers_do_not_fit_get_their_own_answers(sft_model, tmp_path):
    """Once, only the ends of such answers were trained, without their questions."""
    for side, n in (('train', 200), ('val', 20)):
        write(tmp_path / f'{side}.jsonl', [{'messages': [
            say('user', f'Say {color}, number {i}.'), say('assistant', f'# {color}\n' + 'x = 1\n' * 40)]}
            for i in range(n // 2) for color in ('red', 'blue')])
    printed = ok(run('sft.py', f'--init_from={sft_model}', f'--data_dir={tmp_path}',
                     f'--out_dir={tmp_path}/run', '--learning_rate=5e-3', '--max_steps=200',
                     '--batch_size=16', '--device=cpu', '--dtype=float32', '--eval_interval=100',
                     '--sample_tokens=4'))
    assert "train.jsonl {'answer cut': 200}" in printed
    model = GPT.load(tmp_path / 'run')
    for color in ('red', 'blue'):
        ids = BYTES.render([say('user', f'Say {color}, number 7.')], add_generation_prompt=True)[0]
        answer = model.generate(torch.tensor([ids]), 7, temperature=0)[0, len(ids):]
        assert BYTES.decode(answer.tolist()).startswith(f'# {color}')


# --- which conversations make up a step ---------------------------------------------------------------------
def epoch_of(lengths, batch_size, seed, epoch):
    """The conversations of its steps, (steps, batch_size)."""
    n = max(1, len(lengths) // batch_size)
    return np.array([numbers_of(epoch * n + i, lengths, batch_size, seed) for i in range(n)])


@pytest.mark.parametrize('n, batch_size', [(2003, 8), (300, 7), (5, 8), (1, 3)])
def test_an_epoch_visits_each_row_at_most_once_and_epochs_differ(n, batch_size):
    lengths = np.random.default_rng(0).lognormal(4, 1, n).astype(int) + 2
    epochs = [epoch_of(lengths, batch_size, seed, epoch) for seed, epoch in ((1, 0), (1, 9), (2, 0))]
    for rows in epochs:
        assert rows.shape == (max(1, n // batch_size), batch_size)
        counts = np.bincount(rows.ravel(), minlength=n)
        assert len(counts) == n and counts.max() == max(1, -(-batch_size // n))     # a few: several times
    assert len({rows.tobytes() for rows in epochs}) == (3 if n > 1 else 1)


def test_a_batch_has_rows_of_about_one_length_and_short_and_long_ones_come_in_turn():
    lengths = np.random.default_rng(0).lognormal(4, 1, 2003).astype(int) + 2
    rows = epoch_of(lengths, 8, 1, 0)
    n_padded = (lengths[rows].max(1, keepdims=True) - lengths[rows]).sum()
    assert n_padded < 0.2 * lengths[rows].sum()             # 1.2 in any order
    assert 0.4 < (np.diff(lengths[rows].mean(1)) > 0).mean() < 0.6


# --- it goes on where it was --------------------------------------------------------------------------------
CASES = {'dropout': [], 'lora, muon and replay': ['--lora=4', '--optimizer=muon', '--replay=2',
                                                  '--micro_batch_size=4']}
@pytest.mark.parametrize('case', CASES)
def test_a_run_that_was_killed_three_times_is_the_straight_one_bit_for_bit(sft, case, tmp_path):
    base_text(tmp_path / 'base', 300)
    more = [*CASES[case], f'--base_dir={tmp_path}/base']
    ok(sft(tmp_path / 'straight', *more))
    out = tmp_path / 'run'
    killed = [sft(out, *more, before=accident('kill', 2)), goes_on(out, before=killed_while_saving(10)),
              goes_on(out, before=accident('kill', 8))]
    expect_straight(out, tmp_path / 'straight', killed, goes_on, 10, 20)
    assert contents(out).keys() == FILES


@pytest.fixture(scope='module')
def done(sft, tmp_path_factory):
    """The folder of a run; no test may change it."""
    out = tmp_path_factory.mktemp('done') / 'run'
    ok(sft(out, '--max_steps=6'))
    return out


def test_another_run_is_not_resumed_as_this_one(sft_model, conversations, done, tmp_path):
    before = contents(done)
    again = lambda *flags, out=done: run('sft.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=9',
                                         *flags)
    base_text(tmp_path / 'base', 300)
    for flags in (['--optimizer=muon'], ['--lora=2'], ['--seed=5'], ['--batch_size=4'],
                  ['--replay=1', f'--base_dir={tmp_path}/base']):
        mistake(again(*flags), 'other data or settings', flags[-1][2:6])
    shutil.copytree(conversations, tmp_path / 'data')
    with open(tmp_path / 'data/val.jsonl', 'a') as f:
        f.write('\n')
    mistake(again(f'--data_dir={tmp_path}/data'), 'other data')
    out = shutil.copytree(done, tmp_path / 'damaged')
    (out / 'last.pt').write_bytes((out / 'last.pt').read_bytes()[:999])
    mistake(again(out=out), 'last.pt', 'start from another model')
    ok(run('sft.py', f'--init_from={out}/best.pt', f'--data_dir={conversations}', '--max_steps=1',
           f'--out_dir={tmp_path}/new', '--device=cpu'))
    shutil.copy(out / 'best.pt', out / 'last.pt')
    mistake(again(out=out), 'is not of sft.py')
    mistake(again(out=tmp_path / 'none'), 'last.pt')
    assert contents(done) == before
    moved = shutil.copytree(conversations, tmp_path / 'moved')                      # the same data
    ok(again(f'--data_dir={moved}', '--learning_rate=1e-3', out=shutil.copytree(done, tmp_path / 'more')))
    assert series(tmp_path / 'more', 'loss')[:6] == series(done, 'loss')


def test_the_best_model_is_the_best_of_all_parts_of_a_run(done, tmp_path):
    out = shutil.copytree(done, tmp_path / 'run')
    best = min(series(out, 'val_loss')[1:])
    ok(run('sft.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=12', '--learning_rate=3'))
    assert series(out, 'val_loss')[-1] > best == state(out)['best_val'] == GPT.load(out).saved['best_val']


def test_the_best_model_is_never_the_untrained_one(sft, tmp_path):
    ok(sft(tmp_path / 'run', '--learning_rate=3', '--warmup_steps=0', '--max_steps=1'))
    before, after = series(tmp_path / 'run', 'val_loss')
    assert before < after == GPT.load(tmp_path / 'run').saved['best_val']


def test_the_steps_of_some_epochs_can_be_raised_when_a_run_goes_on(sft_model, conversations, tmp_path):
    flags = [f'--data_dir={conversations}', f'--out_dir={tmp_path}/run', '--device=cpu', '--batch_size=30']
    ok(run('sft.py', *flags, f'--init_from={sft_model}', '--epochs=1'))
    ok(run('sft.py', *flags, '--init_from=resume', '--epochs=3'))
    assert state(tmp_path / 'run')['step'] == 6
    assert read_json(tmp_path / 'run/config.json')['steps'] == 6        # plot.py and the report read it
    ok(run('sft.py', *flags, '--init_from=resume', '--max_steps=8'))
    assert state(tmp_path / 'run')['step'] == 8


def test_a_run_is_not_replaced_by_accident_nor_what_it_starts_from_at_all(sft, done, tmp_path):
    expect_no_run_is_replaced(sft, done, tmp_path / 'run')


def test_links_in_a_folder_of_a_stranger_lead_nowhere(done, tmp_path):
    expect_links_lead_nowhere(done, tmp_path, goes_on)


# --- it ends early ------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_signal_ends_it_with_the_step_that_was_saved(sft, name, code, tmp_path):
    assert not expect_a_signal_names_the_save(sft, tmp_path / 'run', 'sft.py', name, code, 7, 5, 20).stderr


def test_what_is_not_finite_ends_it_before_the_weights_and_the_advice_works(sft, tmp_path):
    expect_nan_stays_out(sft, tmp_path / 'run', 7, 5, '0.0025', 20)


def test_the_first_save_comes_before_the_first_step(sft, sft_model, tmp_path):
    assert sft(tmp_path / 'run', before=accident('kill', 0)).returncode == -signal.SIGKILL
    assert state(tmp_path / 'run')['step'] == 0
    ok(run('sft.py', f'--out_dir={tmp_path}/run', '--init_from=resume'))
    assert series(tmp_path / 'run', 'val_loss')[0] == pytest.approx(5.54, abs=0.05)


def test_a_full_disk_leaves_the_last_checkpoint(done, tmp_path):
    expect_a_full_disk_leaves_the_last_checkpoint(done, tmp_path / 'run', goes_on)


# --- several processes --------------------------------------------------------------------------------------
@pytest.mark.parametrize('n, batch_size', [(2, 7), (4, 3)])
def test_any_batch_is_shared_by_any_number_of_processes(sft, n, batch_size, tmp_path):
    """Of 4 processes and 3 conversations, one has nothing to learn from."""
    flags = f'--batch_size={batch_size}', '--dropout=0', '--max_steps=6'
    for processes in (1, n):
        ok(sft(tmp_path / str(processes), *flags, processes=processes))
    for key in ('loss', 'grad_norm', 'trained', 'val_loss'):
        one, more = (series(tmp_path / str(processes), key) for processes in (1, n))
        assert one == pytest.approx(more, abs=2e-6), key


@each_death
def test_when_a_process_ends_the_others_do_not_wait(sft, deed, rank, tmp_path):
    expect_all_end(sft, tmp_path / 'run', deed, rank)


# --- copied -------------------------------------------------------------------------------------------------
def test_with_its_three_leaves_alone_it_trains_in_one_and_in_two_processes(sft_model, conversations,
                                                                           tmp_path):
    """And a flag whose file is not there is told by name."""
    call = copied('sft.py', tmp_path)
    flags = ['sft.py', f'--init_from={sft_model}', f'--data_dir={conversations}', *FLAGS, '--max_steps=3']
    for command, out in (([sys.executable], 'one'), (TORCHRUN, 'two')):
        ok(call(*command, *flags, f'--out_dir={out}'))
        ok(call(*command, 'sft.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=5'))
        assert len(series(tmp_path / out, 'loss')) == 5
    for flag, file in (('--lora=2', 'lora'), ('--optimizer=muon', 'muon'), ('--base_dir=x', 'mixture')):
        mistake(call(sys.executable, *flags, '--out_dir=three', flag), 'copy extras, too', file)


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_that_cannot_be(sft, tmp_path):
    for flag, words in (
            ('--data_dir=nowhere', ['train.jsonl', '--source=FILE',
                                    'run: python prepare.py --kind=sft --out_dir=nowhere']),
            ('--block_size=1', ['train.jsonl', 'fits into 1 tokens']), ('--base_dir=nowhere', ['meta.json']),
            ('--block_size=97', ['block_size=97', '96', 'extras.longer_context']),
            ('--replay=2', ['replay=2', '--base_dir']), ('--device=tpu', ['tpu', '--device=auto']),
            ('--warmup_steps=21', ['warmup_steps=21', 'max_steps=20']), ('--dropout=1', ['dropout']),
            ('--init_from=gone', ['gone', 'run: python train.py'])):
        mistake(sft(tmp_path / 'run', flag, cwd=tmp_path), *words)
    assert not (tmp_path / 'run').exists()


def test_a_model_that_cannot_answer_is_no_start(sft, tmp_path):
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
            ({'saved': 'new rows'}, ['--lora=2'], '--lora=0')):
        base = start(*how) if isinstance(how, list) else start(**how)
        mistake(sft(tmp_path / 'run', base, *flags), word)
    assert not (tmp_path / 'run').exists()


def test_a_line_that_cannot_be_used_is_named_by_its_number(sft, conversations, tmp_path):
    good = (conversations / 'train.jsonl').read_text(encoding='utf-8').splitlines()[0]
    chat = {'messages': [say('user', 'q'), say('assistant', 'a')]}
    of = lambda **change: json.dumps({'messages': [chat['messages'][0], {**chat['messages'][1], **change}]})
    (tmp_path / 'val.jsonl').write_text(good + '\n', encoding='utf-8')
    for bad, word in (('{"a": 1}', 'messages'), ('{"messages": null}', 'messages'), ('[1]', 'messages'),
                      ('{"messages": "q"}', 'role'), (good[:-9], 'JSON'), ('[' * 100_000, 'Recursion'),
                      (of(role='wizard'), 'wizard'), (of(content=None), 'None'), (b'\xff\xfe', 'Decode')):
        (tmp_path / 'train.jsonl').write_bytes(good.encode() + b'\n' + (
            bad if isinstance(bad, bytes) else bad.encode()))
        mistake(sft(tmp_path / 'run', f'--data_dir={tmp_path}'), 'train.jsonl, line 2', word, 'prepare.py')
    for text in ('', json.dumps({'messages': chat['messages'][:1]}) + '\n'):
        (tmp_path / 'train.jsonl').write_text(text, encoding='utf-8')
        mistake(sft(tmp_path / 'run', f'--data_dir={tmp_path}'), 'train.jsonl has no conversation')
    assert not (tmp_path / 'run').exists()
