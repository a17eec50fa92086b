"""What sft.py trains on: all that the assistant says, with its <|im_end|>, and nothing else."""
import json
import random

import numpy as np
import torch
from conftest import lift
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parts.train.records import Batches, fit_conversation, read_conversations
from model import GPT, IGNORE, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

# one chunk for any text; each header is one token, and some tokens would swallow an edge of the frame
HEADERS = [word[:i].encode() for word in ('system\n', 'user\n', 'assistant\n', 'tool\n')
           for i in range(2, 11)]
TRAPS = [b'yo', b'\ny', b'\nyo', b'yo\n', b'>\n', b'|>', b'<|']
VOCAB = [*(bytes([b]) for b in range(256)), *HEADERS, *TRAPS]
TOKENIZER = Tokenizer('bpe', list(dict.fromkeys(VOCAB)), SPECIAL_TOKENS, r'[\s\S]+')
S, E = '<|im_start|>', '<|im_end|>'
START, END, PAD = (TOKENIZER.special[name] for name in (S, E, '<|pad|>'))
collate, marked = lift('sft.py', 'collate', 'marked')
collate.__globals__['IGNORE'] = IGNORE
fuzz = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
contents = st.text(max_size=9) | st.lists(st.sampled_from([E, S, 'yo', '\n', 'é'])).map(''.join)
roles = st.sampled_from(['system', 'user', 'assistant', 'tool'])
chats = st.lists(st.fixed_dictionaries({'role': roles, 'content': contents}), min_size=1, max_size=6)


def say(role, content):
    return {'role': role, 'content': content}


def targets(ids, mask):
    """The text of the trained targets of one conversation."""
    y = collate([(ids, mask)], PAD)[1]
    return TOKENIZER.decode(y[y != IGNORE].tolist())


def test_golden_inputs_and_targets():
    chat = [say('system', 's'), say('user', 'q'), say('assistant', 'ab'), say('tool', 't'),
            say('assistant', ''), say('user', 'yo'), say('assistant', 'yo')]
    short = [(S, None), ('user\n', None), ('q', None), (E, None), ('\n', None),
             (S, None), ('assistant\n', 'a'), ('a', 'b'), ('b', E), (E, None)]
    long = [(S, None), ('system\n', None), ('s', None), (E, None), ('\n', None), *short, ('\n', None),
            (S, None), ('tool\n', None), ('t', None), (E, None), ('\n', None),
            (S, None), ('assistant\n', E), (E, None), ('\n', None),
            (S, None), ('user\n', None), ('yo', None), (E, None), ('\n', None),
            (S, None), ('assistant\n', 'yo'), ('yo', E), (E, None)]
    x, y = collate([TOKENIZER.render(chat), TOKENIZER.render(chat[1:3])], PAD)
    read = lambda row: [TOKENIZER.decode([i]) if i != IGNORE else None for i in row.tolist()]
    assert x.dtype == y.dtype == np.int64 and list(zip(read(x[0]), read(y[0]), strict=True)) == long
    padding = [('<|pad|>', None)] * (len(long) - len(short))    # on the right, and not <|endoftext|>
    assert list(zip(read(x[1]), read(y[1]), strict=True)) == short + padding


def test_marked_shows_what_is_trained_and_whole_characters():
    chat = [say('user', 'é'), say('assistant', '漢'), say('assistant', '')]
    text = marked(*TOKENIZER.render(chat), TOKENIZER)
    assert text == f'{S}user\né{E}\n{S}assistant\n[[漢{E}]]\n{S}assistant\n[[{E}]]\n'


@fuzz
@given(chats, contents)
def test_what_is_trained_is_what_the_assistant_says_whatever_anyone_types(prompt, answer):
    chat = [*prompt, say('assistant', answer)]
    ids, mask = TOKENIZER.render(chat)
    assert targets(ids, mask) == ''.join(m['content'] + E for m in chat if m['role'] == 'assistant')
    assert ids.count(START) == ids.count(END) == len(chat)                  # typed ones are mere text
    x, y = (a[0].tolist() for a in collate([(ids, mask)], PAD))
    assert y.count(END) == sum(m['role'] == 'assistant' for m in chat) and START not in y
    asked = TOKENIZER.render(prompt, add_generation_prompt=True)[0]     # no token reaches over its end
    assert x[:len(asked)] == asked and y[len(asked) - 1:] == [*TOKENIZER.encode(answer), END, IGNORE]


@fuzz
@given(chats, contents, chats, st.integers(1, 70))
def test_cut_keeps_the_last_answer_and_of_its_prompt_the_right(prompt, answer, more, T):
    chat, more = [*prompt, say('assistant', answer)], [m for m in more if m['role'] == 'user']
    ids, mask = TOKENIZER.render(chat + more)
    header = len(TOKENIZER.render(prompt)[0])                   # where the last answer's begins
    end = len(TOKENIZER.render(chat)[0]) - 1                    # and where the answer ends
    start = header if end - header > T + 1 else max(0, end - (T + 1))   # what follows goes first
    short = fit_conversation(ids, mask, T, START)
    assert short == (ids[start:][:T + 1], mask[start:][:T + 1])
    assert len(ids) > T + 1 or short == (ids, mask)
    assert start == header or not T or targets(*short).endswith(answer + E)


def test_conversations_without_an_answer_are_dropped_and_counted(tmp_path):
    ask, lines = say('user', 'q' * 9), [say('assistant', 'a')]
    lines = [[ask], [ask, *lines], [], [ask] * 3 + lines]
    (tmp_path / 'a').write_text('\n'.join(json.dumps({'messages': c}) for c in lines), encoding='utf-8')
    rows, empty, shortened = read_conversations(str(tmp_path / 'a'), 20, TOKENIZER, 'make it')
    assert [targets(*row) for row in rows] == ['a' + E] * 2 and (empty, shortened) == (2, 1)


@fuzz
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 5), st.integers(0, 2 ** 32 - 1))
def test_an_epoch_visits_each_conversation_at_most_once(n, batch_size, epoch, seed):
    lengths = np.random.default_rng(n).integers(2, 99, n)
    batches = Batches(lengths, batch_size, seed).of_epoch(epoch)
    assert batches.shape == (max(1, n // batch_size), batch_size)
    counts = np.bincount(batches.ravel(), minlength=n)
    assert len(counts) == n and counts.max() == max(1, -(-batch_size // n))     # a few: several times
    assert (batches == Batches(lengths, batch_size, seed).of_epoch(epoch)).all()


def test_epochs_differ_leave_others_out_and_pad_little():
    lengths = np.random.default_rng(0).lognormal(4, 1, 2003).astype(int) + 2
    epochs = [Batches(lengths, 8, 1).of_epoch(epoch) for epoch in range(4)]
    assert len({batches.tobytes() for batches in [*epochs, Batches(lengths, 8, 2).of_epoch(0)]}) == 5
    left_out = [set(range(2003)) - set(batches.ravel()) for batches in epochs]
    assert all(len(left) == 3 for left in left_out) and not set.intersection(*left_out)
    plain = np.random.default_rng(0).permutation(2003)[:2000].reshape(-1, 8)
    padded, unsorted = ((lengths[b].max(1, keepdims=True) - lengths[b]).sum() / lengths[b].sum()
                        for b in (epochs[0], plain))
    assert padded < 0.2 < 1 < unsorted, (padded, unsorted)                      # as a share of the text
    longer = np.diff(lengths[epochs[0]].mean(1)) > 0
    assert 0.4 < longer.mean() < 0.6                            # short and long ones in turn, not sorted


def test_a_row_s_loss_and_gradient_are_its_own_whatever_is_beside_it_and_pads_it():
    torch.manual_seed(0)
    dice = random.Random(0)
    model = GPT(GPTConfig(TOKENIZER.vocab_size, 64, 2, 2, 0, 32, tie_embeddings=False))
    text = lambda: ''.join(dice.choices('abc yo', k=dice.randint(1, 12)))
    rows = [TOKENIZER.render([say('user', 'Q' + text()), say('assistant', text()), say('user', 'Z')])
            for _ in range(8)]

    def gradients(parts, pad=PAD):          # of the mean over all targets; parts as micro-batches
        model.zero_grad()
        batches = [tuple(map(torch.from_numpy, collate(part, pad))) for part in parts]
        counts, losses = [(y != IGNORE).sum().item() for _, y in batches], []
        for (x, y), n in zip(batches, counts):
            logits, loss = model(x, y)
            logits.retain_grad()
            (loss * n / sum(counts)).backward()
            losses.append(loss.item() * n / sum(counts))
            assert torch.equal(logits.grad.abs().sum(-1) > 0, y != IGNORE)      # no other logit
        return [torch.tensor(sum(losses)), *(p.grad.clone() for p in model.parameters())]

    together, alone = gradients([rows]), gradients([[row] for row in rows])
    assert len({len(ids) for ids, _ in rows}) > 4
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, alone))
    grad = model.embedding.weight.grad.abs().sum(-1)
    assert grad[ord('Q')] > 0 and grad[ord('Z')] == grad[PAD] == 0      # of context; of what follows
    for pad in (0, END, TOKENIZER.special['<|endoftext|>']):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, gradients([rows], pad)))
