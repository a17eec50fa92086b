"""sft.py: trained is what the assistants say, and nothing else; what is cut, and what is forgotten.
What it promises like dpo.py and rl.py is in test_alike.py."""
import torch
from accidents import SHORT_SAMPLES, before
from conftest import base_text, lift, ok, read_rows, run, save_run, series, table, write
from test_streaming import BYTES

from model import GPT, IGNORE

collate, render_truncated = lift('sft.py', 'collate', 'render_truncated')
FLAGS = ('--batch_size=8 --max_steps=20 --eval_interval=10 --log_interval=1 --learning_rate=1e-2 '
         '--device=cpu --dtype=float32')


def sft(start, data, out, *more, before=''):
    return ok(run(f'sft.py --init_from={start} --data_dir={data} --out_dir={out}',
                  FLAGS, *more, before=SHORT_SAMPLES + before))


# --- the loss -------------------------------------------------------------------------------------
def test_a_target_is_the_next_token_if_that_is_trained():
    x, y = collate([([5, 6, 7, 8], [0, 0, 1, 1]), ([9, 3], [0, 1])])
    assert x.tolist() == [[5, 6, 7], [9, 0, 0]]
    assert y.tolist() == [[-100, 7, 8], [3, -100, -100]]
    assert x.dtype == y.dtype == torch.int64


# writes down what reaches the loss
SPY = before('forward', """
    model, x, y = arguments
    if model.training:
        with open('calls', 'a') as file:
            for row in zip(x.tolist(), y.tolist()):
                print(json.dumps(row), file=file)""")


def test_the_tensors_that_reach_the_loss_say_what_the_assistants_say(sft_model, conversations):
    """Every answer of a conversation and its end, also of an empty one; never a question or
    padding. In an epoch, each conversation once."""
    rows = [row for row in read_rows(conversations / 'train.jsonl') if len(row['messages']) < 6]
    rows[0]['messages'][-1]['content'] = ''
    for side in ('train', 'val'):
        write(f'{side}.jsonl', rows)
    save_run('start', GPT.load(sft_model), BYTES, step=0)
    printed = sft('start', '.', 'run', '--micro_batch_size=4 --max_steps=4', before=SPY)
    assert f'train.jsonl: {len(rows)} conversations; skipped' in printed
    assert 'its trained part:\n' in printed and 'note: 4 steps teach little' in printed
    chat_of = {BYTES.decode(BYTES.render(row['messages'])[0]): row['messages'] for row in rows}
    calls = read_rows('calls')
    # of four batches of at most 8, some have 7, because an epoch is cut evenly
    assert 28 <= len(calls) == len({str(x) for x, _ in calls}) < 32
    for x, y in calls:
        trained = [(i, id) for i, id in enumerate(y) if id != IGNORE]
        *_, (last, end) = trained
        text = [*x[:last + 1], end]                         # the last target is no input
        assert all(text[i + 1] == id for i, id in trained)              # the very next token
        said = [m['content'] + '<|im_end|>' for m in chat_of[BYTES.decode(text) + '\n']
                if m['role'] == 'assistant']
        assert BYTES.decode([id for _, id in trained]) == ''.join(said)


def test_what_is_forgotten_is_measured_and_replay_keeps_it(sft_model, conversations):
    base_text('base', 300)
    for replay in '02':
        sft(sft_model, conversations, replay, f'--base_dir=base --replay={replay}', before=SPY)
    # every token of two sequences a step
    seen = [len(y) for _, y in read_rows('calls') if IGNORE not in y]
    assert seen == [96] * 40
    assert series('0', 'base_bpb')[-1] > series('2', 'base_bpb')[-1] + 0.5


# --- conversations that are too long --------------------------------------------------------------
NAMES = {'s': 'system', 'q': 'user', 'a': 'assistant', 't': 'tool'}
# Roles, T => the tokens that are left of turns of four tokens each: the turn's number, four times.
# Of an answer, the first one is its head and the last one its newline, which nobody learns.
CUTS = """
sqaqa 18 => 0000111122223333444
sqaqa 17 => 00003333444
sqaqa 10 => 00003333444
sqaqa 9 =>\x20
sq 99 =>\x20
qaqqa 10 => 22223333444
qaqqa 9 =>\x20
qata 14 => 000011112222333
qata 13 =>\x20
qaq 99 => 0000111
qaqaq 9 => 2222333"""


def four_tokens_each(messages):
    return ([message['content'] for message in messages for _ in range(4)],
            [bit and message['role'] == 'assistant' for message in messages for bit in (0, 1, 1, 0)])


def test_a_long_conversation_loses_its_oldest_turns_and_no_question_or_answer_is_cut():
    """The system message stays; what follows the last answer always goes."""
    for given, left in table(CUTS):
        roles, T = given.split()
        messages = [{'role': NAMES[role], 'content': i} for i, role in enumerate(roles)]
        ids, mask = render_truncated(messages, four_tokens_each, int(T))
        assert ''.join(map(str, ids)) == left, given
        assert len(ids) == len(mask) and all(mask[-1:])                 # nothing is read in vain
