"""sft.py: trained is what the assistants say, and nothing else; real runs, replay, a user's mistakes."""
import re

import numpy as np
import pytest
import torch
from accidents import before
from conftest import RUN_FILES, base_text, contents, lift, make_conversations, metrics, mistake, ok
from conftest import read_rows, run, series, write
from feedback import expect
from test_records import BYTES, TRAPPING, say

from model import GPT, IGNORE, GPTConfig

E = '<|im_end|>'
END, PAD = TRAPPING.special[E], TRAPPING.special['<|pad|>']
collate = lift('sft.py', 'collate')
FLAGS = ('--batch_size=8 --max_steps=20 --eval_interval=6 --save_interval=5 --log_interval=1 '
         '--sample_tokens=8 --learning_rate=1e-2 --dropout=0.1 --device=cpu --dtype=float32').split()


# --- the loss -----------------------------------------------------------------------------------------------
def test_a_target_is_the_next_token_if_that_is_trained():
    rows = [([5, 6, 7, 8], [0, 0, 1, 1]), ([9, 3], [0, 1])]
    for name, i, wanted in (('x', 0, [[5, 6, 7], [9, 0, 0]]), ('y', 1, [[-100, 7, 8], [3, -100, -100]])):
        expect(f'{name} of collate({rows}, pad=0)', np.array(wanted), lambda: collate(rows, pad=0)[i])


def test_a_row_s_loss_and_gradient_are_its_own_whatever_is_beside_it_and_pads_it():
    torch.manual_seed(0)
    model = GPT(GPTConfig(TRAPPING.vocab_size, 64, 2, 2, 0, 32, tie_embeddings=False))
    rows = [TRAPPING.render([say('user', 'Q' + 'b' * i), say('assistant', 'c' * (i % 5)), say('user', 'Z')])
            for i in range(8)]

    def gradients(parts, pad=PAD):          # of the mean over all targets; parts as micro-batches
        model.zero_grad()
        batches = [tuple(map(torch.from_numpy, collate(part, pad))) for part in parts]
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
    model, x, *y = arguments
    if model.training:
        with open('PATH', 'a') as file:
            print(json.dumps([x.tolist(), y[0].tolist()]), file=file)""")


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
    calls = read_rows(tmp_path / 'calls')[1:]           # the first is the rehearsal
    texts = []
    n_trained = 0
    for x, y in (row for call in calls for row in zip(*call)):
        texts.append(BYTES.decode(x).split('\0')[0] + '\n')
        said = [m['content'] + E for m in chat_of[texts[-1]] if m['role'] == 'assistant']
        assert BYTES.decode([id for id in y if id != IGNORE]) == ''.join(said)
        assert all(after == id for after, id in zip(x[1:], y) if id != IGNORE)      # the very next token
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
    assert contents(tmp_path / 'run').keys() == RUN_FILES
    ok(sft(tmp_path / 'often', '--eval_interval=1'))
    assert series(tmp_path / 'often', 'loss') == series(tmp_path / 'run', 'loss')
    assert len(series(tmp_path / 'often', 'val_loss')) == 21
    assert ok(run('sample.py', f'--ckpt={tmp_path}/run', '--prompt=7', '--max_new_tokens=5')).startswith('7')


def test_the_question_it_answers_ends_where_an_answer_begins(sft, tmp_path):
    """Also of a conversation that was cut in the middle of an answer, so that its mask begins with 1 1."""
    turns = [say('user', 'q'), say('assistant', 'a' * 99), say('user', 'why?'), say('assistant', '7')]
    for side in ('train', 'val'):
        write(tmp_path / f'data/{side}.jsonl', [{'messages': turns}])
    ok(sft(tmp_path / 'run', f'--data_dir={tmp_path}/data', '--max_steps=1'))
    samples = (tmp_path / 'run/samples.txt').read_text(encoding='utf-8')
    question = BYTES.decode(BYTES.render(turns[2:3], add_generation_prompt=True)[0])
    assert re.match(rf'--- step 0, val_loss .*\na{{10,90}}{re.escape(E)}\n{re.escape(question)}', samples)


def test_when_it_learns_by_heart_the_best_is_kept_and_what_is_forgotten_measured(sft, tmp_path):
    data, out = make_conversations(tmp_path / 'data', 4), tmp_path / 'run'
    base_text(data, 99)
    ok(sft(out, '--max_steps=60', '--dropout=0', f'--data_dir={data}', f'--base_dir={data}'))
    best = GPT.load(out / 'best.pt').saved
    vals, bits = ({m['step']: m[k] for m in metrics(out) if k in m} for k in ('val_loss', 'base_bpb'))
    assert best['best_val'] == vals[best['step']] == min(v for step, v in vals.items() if step)
    assert series(out, 'loss')[-1] < best['best_val'] < vals[60] and bits[60] > bits[0]


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_that_cannot_be(sft, tmp_path):
    """tests/test_runs.py has models that cannot be tuned."""
    for flag, words in (
            ('--data_dir=nowhere', ['train.jsonl', 'prepare.py --kind=sft']),
            ('--block_size=1', ['train.jsonl', 'fits into 1 tokens']), ('--base_dir=nowhere', ['meta.']),
            ('--replay=2', ['replay=2', '--base_dir'])):
        mistake(sft(tmp_path / 'run', flag), *words)
    assert not (tmp_path / 'run').exists()
