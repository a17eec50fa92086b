"""sft.py: trained is what the assistants say, and nothing else; what is cut, and what is forgotten. What it
promises like dpo.py and rl.py is in test_alike.py."""
import re

import torch
from accidents import before
from conftest import base_text, lift, ok, read_json, read_rows, run, series, state, write
from feedback import expect
from hypothesis import example, given, strategies as st
from test_records import BYTES, TRAPPING, chats, ever_shorter, say

from model import GPT, IGNORE, GPTConfig

E = '<|im_end|>'
END, PAD = TRAPPING.special[E], TRAPPING.special['<|pad|>']
collate, fit = lift('sft.py', 'collate', 'fit')
FLAGS = ('--batch_size=8 --max_steps=20 --eval_interval=10 --log_interval=1 --sample_tokens=8 '
         '--learning_rate=1e-2 --device=cpu --dtype=float32').split()


def sft(start, data, out, *more, **how):
    return ok(run('sft.py', f'--init_from={start}', f'--data_dir={data}', f'--out_dir={out}', *FLAGS, *more,
                  **how))


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


# writes down what reaches the loss
SPY = before('forward', """
    model, x, y = arguments
    if model.training:
        with open('PATH', 'a') as file:
            print(json.dumps([x.tolist(), y.tolist()]), file=file)""")


def test_the_tensors_that_reach_the_loss_say_what_the_assistants_say(sft_model, conversations, tmp_path):
    """Every answer of a conversation and its end, also of an empty one; never a question or padding."""
    rows = read_rows(conversations / 'train.jsonl')
    rows = [row for row in rows if len(row['messages']) < 6]            # none is cut
    rows[0]['messages'][-1]['content'] = ''
    for side in ('train', 'val'):
        write(tmp_path / f'data/{side}.jsonl', rows)
    chat_of = {BYTES.decode(BYTES.render(row['messages'])[0]): row['messages'] for row in rows}
    printed = sft(sft_model, tmp_path / 'data', tmp_path / 'run', '--micro_batch_size=4', '--max_steps=4',
                  before=SPY.replace('PATH', f'{tmp_path}/calls'))
    assert re.search(r'assistant\n\[\[\d*<\|im_end\|>]]', printed)       # what is trained, for you to see
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


def test_what_is_forgotten_is_measured_and_replay_keeps_it(sft_model, conversations, tmp_path):
    base_text(tmp_path / 'base', 300)
    for replay in (0, 2):
        sft(sft_model, conversations, tmp_path / f'{replay}', f'--base_dir={tmp_path}/base', '--dropout=0.1',
            f'--replay={replay}')
    without, beside = tmp_path / '0', tmp_path / '2'
    trained = zip(series(without, 'trained'), series(beside, 'trained'))
    assert [b - a for a, b in trained] == [2 * 96] * 20                 # every token of two sequences
    assert series(without, 'base_bpb')[-1] > series(beside, 'base_bpb')[-1] + 0.5
    assert series(beside, 'val_loss')[-1] < series(beside, 'val_loss')[0] - 1


def test_the_steps_of_some_epochs_can_be_raised_when_a_run_goes_on(sft_model, conversations, tmp_path):
    flags = [f'--data_dir={conversations}', f'--out_dir={tmp_path}/run', '--device=cpu', '--batch_size=30']
    ok(run('sft.py', *flags, f'--init_from={sft_model}', '--epochs=1'))
    for more, steps in (('--epochs=3', 6), ('--max_steps=8', 8)):
        ok(run('sft.py', *flags, '--init_from=resume', more))
        assert state(tmp_path / 'run')['step'] == steps                 # plot.py and the report read it, too
        assert read_json(tmp_path / 'run/config.json')['steps'] == steps


# --- conversations that are too long ------------------------------------------------------------------------
def slow_fit(messages, T):
    """What fit() promises, tried one after another with whole messages: the parts of a conversation, from all
    of it to its last question with the answers to that."""
    if 'assistant' not in [message['role'] for message in messages]:
        return 'left out: no answer', []
    while messages[-1]['role'] != 'assistant':
        messages = messages[:-1]
    for kept in ever_shorter(messages):
        ids, mask = TRAPPING.render(kept)
        end = max(i for i, bit in enumerate(mask) if bit) + 1
        if end <= T + 1:
            return 'whole' if kept == messages else 'older turns left out', ids[:end]
    if (T + 1 - mask.index(1)) * 4 < T:
        return 'left out: its question is too long', []
    return 'answer cut', ids[:max(i for i, bit in enumerate(mask[:T + 1]) if bit) + 1]


def turns_of(messages):
    return [(*TRAPPING.render([message]), message['role']) for message in messages]


@given(chats, st.integers(1, 90))
@example([say('user', 'q' * 5), say('user', 'r' * 5), say('assistant', 'b' * 60)], 40)        # answer cut
@example([say('user', 'q' * 60), say('assistant', 'a' * 5)], 64)        # its question is too long
@example([say('user', 'q'), say('assistant', 'a'), say('tool', 't' * 60), say('assistant', 'b')], 60)
def test_a_cut_keeps_the_system_message_and_the_last_question_whole(messages, T):
    """Older turns go first, then the end of the answer; what follows the last answer always goes."""
    ids, mask, found = fit(turns_of(messages), T)
    assert (found, ids) == slow_fit(messages, T)
    assert len(ids) == len(mask) <= T + 1
    assert not ids or mask[-1] == 1                                     # nothing is read in vain


def test_two_questions_whose_answers_do_not_fit_get_their_own_answers(sft_model, tmp_path):
    """Once, only the ends of such answers were trained, without their questions. What it answers for
    samples.txt is the last question of a conversation that was too long."""
    for side, n in (('train', 200), ('val', 20)):
        write(tmp_path / f'{side}.jsonl', [{'messages': [
            say('user', 'q'), say('assistant', 'a' * 99), say('user', f'Say {color}, number {i}.'),
            say('assistant', f'# {color}\n' + 'x = 1\n' * 40)]} for i in range(n // 2)
            for color in ('red', 'blue')])
    printed = sft(sft_model, tmp_path, tmp_path / 'run', '--learning_rate=5e-3', '--max_steps=200',
                  '--batch_size=16', '--eval_interval=200')
    assert "train.jsonl {'answer cut': 200}" in printed
    model = GPT.load(tmp_path / 'run')
    asked = lambda text: BYTES.render([say('user', text)], add_generation_prompt=True)[0]
    for color in ('red', 'blue'):
        ids = asked(f'Say {color}, number 7.')
        answer = model.generate(torch.tensor([ids]), 7, temperature=0)[0, len(ids):]
        assert BYTES.decode(answer.tolist()).startswith(f'# {color}')
    samples = (tmp_path / 'run/samples.txt').read_text(encoding='utf-8')
    assert samples.startswith(f'--- step 0\n{BYTES.decode(asked("Say red, number 0."))}')
