"""A user's mistakes with sft.py end in one line that says what to do, and destroy nothing; those of the
source documents are shown. The helpers here are for test_sft_runs.py too."""
import json
import random

import pytest
import torch
from conftest import mistake, ok, run
from test_sft_data import E, TOKENIZER, collate, say, targets

from model import GPT, IGNORE, GPTConfig, save_checkpoint
from parts.prepare.conversions import messages_of
from tokenizer import Tokenizer

FLAGS = '--batch_size=8 --max_steps=20 --eval_interval=6 --save_interval=5 --log_interval=1 ' \
        '--sample_tokens=8 --learning_rate=1e-2 --dropout=0.1 --device=cpu --dtype=float32'


def sft(*arguments, before=''):
    return run('sft.py', *arguments, before=before)


def make_base(folder, tokenizer=TOKENIZER, gain=1.0, rest=(), **more):
    """An untrained base model, as train.py leaves one."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 128, 2, 2, 0, 32, **more))
    torch.nn.init.constant_(model.norm.weight, gain)
    tokenizer.save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'last.pt', model, step=0, tokenizer_hash=tokenizer.hash, config={}, **dict(rest))
    return folder


def sums(n, seed):
    """Conversations of one to three sums, some behind a message of a system or a tool."""
    dice, chats = random.Random(seed), [[] for _ in range(n)]
    for chat in chats:
        chat += [say(dice.choice(['system', 'tool']), 'é so')] * dice.randint(0, 1)
        for a in dice.sample(range(999), dice.randint(1, 3)):
            chat += [say('user', f'{a} + 7?'), say('assistant', f'{a + 7}')]
    return chats


def write(folder, train, val):
    folder.mkdir()
    for side, chats in (('train', train), ('val', val)):
        lines = '\n'.join(json.dumps({'messages': chat}) for chat in chats)
        (folder / f'{side}.jsonl').write_text(lines, encoding='utf-8')
    return folder


def begin(tmp_path_factory):
    """Flags of a run: base model, data, sizes."""
    folder = tmp_path_factory.mktemp('sft')
    data = write(folder / 'data', sums(60, 1), sums(20, 2))
    return [f'--init_from={make_base(folder / "base")}', f'--data_dir={data}', *FLAGS.split()]


start = pytest.fixture(begin, scope='module')


@pytest.mark.parametrize('flag, words', [
    ('--optimizer=sgd', ['sgd', 'muon']), ('--block_size=129', ['block_size=129', '128']),
    ('--init_from=nowhere', ['nowhere']), ('--init_from=resume', ['last.pt', 'does not exist']),
    ('--data_dir=nowhere', ['train.jsonl', 'prepare.py --kind=sft']), ('--base_dir=nowhere', ['meta.']),
    ('--block_size=1', ['train.jsonl', 'left in 1 tokens'])])
def test_settings_that_cannot_be(start, tmp_path, flag, words):
    mistake(sft(*start, f'--out_dir={tmp_path}/run', flag), *words)
    assert not (tmp_path / 'run').exists()


GOOD = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


@pytest.mark.parametrize('text, words', [
    (GOOD + GOOD[:40] + '\n', ['line 2', 'prepare.py']), (GOOD + '{"a": 1}', ['line 2', 'messages']),
    (GOOD + '[1]', ['line 2']), (GOOD.replace('user', 'wizard'), ['line 1', 'wizard']),
    (GOOD.replace('assistant', 'user'), ['no conversation with an answer']), ('\xff', ['utf-8', 'line 1'])])
def test_a_malformed_file_is_named_and_its_line(start, tmp_path, text, words):
    data = write(tmp_path / 'data', sums(9, 1), sums(9, 2))
    (data / 'train.jsonl').write_text(text, encoding='latin-1')
    mistake(sft(*start, f'--data_dir={data}', f'--out_dir={tmp_path}/run'), 'train.jsonl', *words)


def test_models_that_cannot_answer(start, tmp_path):
    for tokenizer, causal, word in ((Tokenizer.byte(), True, '<|im_end|>'), (TOKENIZER, False, 'mlm'),
                                    (Tokenizer.char('a'), True, '<|im_end|>')):
        base = make_base(tmp_path / tokenizer.hash, tokenizer, causal=causal)
        mistake(sft(*start, f'--init_from={base}', f'--out_dir={tmp_path}/run'), base.name, word)
    judge = make_base(tmp_path / 'judge', rest={'reward_head': torch.zeros(1, 32)})
    mistake(sft(*start, f'--init_from={judge}', f'--out_dir={tmp_path}/run'), 'judge', 'is a reward model')
    Tokenizer.byte(TOKENIZER.special).save(base / 'tokenizer.json')     # not that of its training
    mistake(sft(*start, f'--init_from={base}', f'--out_dir={tmp_path}/run'), 'tokenizer')


def test_a_run_is_neither_overwritten_nor_gone_on_with_other_data(start, tmp_path):
    contents = lambda: {p.name: p.read_bytes() for p in (tmp_path / 'run').iterdir()}
    other = f'--data_dir={write(tmp_path / "other", sums(61, 1), sums(20, 2))}'
    flags = [*start, f'--out_dir={tmp_path}/run', '--max_steps=2']
    before = ok(sft(*flags)) and contents()
    mistake(sft(*flags, '--seed=1'), '--init_from=resume', '--overwrite=True')
    mistake(sft(*flags, '--init_from=resume', other), 'train.jsonl', 'another --out_dir')
    assert contents() == before
    assert ok(sft(*flags, '--overwrite=True', '--seed=1')) and contents()['last.pt'] != before['last.pt']


def test_the_sources_convert_vicuna_to_none_and_train_on_the_questions_of_later_turns():
    chat = [say('user', 'q'), say('assistant', 'a'), say('user', 'SECRET'), say('assistant', 'b')]
    for key in ('instruction', 'user', 'assistant'):        # vicuna_to_alpaca, as it stands there
        assert [conv.get(key, 'None') for conv in chat] == ['None'] * 4
    ids, mask = TOKENIZER.render(messages_of({'conversation': chat}))
    p = len(TOKENIZER.render(chat[:1], add_generation_prompt=True)[0])  # sft_loss: labels[i, :p] = -100
    assert targets(ids, mask) == f'a{E}b{E}' and 'SECRET' in TOKENIZER.decode(ids[p:])


def test_the_sources_unlearn_stopping_where_padding_is_the_end_token_and_masked_by_id():
    end, chat = TOKENIZER.special[E], [say('user', 'q'), say('assistant', 'yo')]
    x, y = map(torch.from_numpy, collate([TOKENIZER.render(chat * n) for n in (1, 2)], end))
    for labels, ignored in ((x[:, 1:], end), (y[:, :-1], IGNORE)):      # ignore_index=PAD_ID; ours
        logits = torch.zeros(2, TOKENIZER.vocab_size, x.shape[1] - 1, requires_grad=True)
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=ignored).backward()
        assert (logits.grad[:, end] < 0).sum(1).tolist() == ([1, 2] if ignored == IGNORE else [0, 0])
