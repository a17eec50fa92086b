"""A chat becomes ids and a mask that trains the assistant's words and its <|im_end|>, and nothing else."""
from conftest import refused
from feedback import attempt, expect, told
from hypothesis import given
from test_records import TRAPPING, chats, contents, say

from tokenizer import SPECIAL_TOKENS, Tokenizer


@given(chats)
def test_only_the_assistants_words_and_their_end_are_trained(messages):
    for tokenizer in (TRAPPING, Tokenizer.byte(SPECIAL_TOKENS)):
        start, end = tokenizer.special['<|im_start|>'], tokenizer.special['<|im_end|>']
        expected_ids, expected_mask = [], []
        for message in messages:
            content = tokenizer.encode(message['content'])
            head = [start, *tokenizer.encode(message['role'] + '\n')]
            expected_ids += [*head, *content, end, 10]
            trained = int(message['role'] == 'assistant')
            expected_mask += [0] * len(head) + [trained] * (len(content) + 1) + [0]
        ids, mask = attempt(f'render({messages})', 'ids and a mask', tokenizer.render, messages)
        expect(f'the ids of render({messages})', expected_ids, lambda: ids)
        expect(f'the mask of render({messages}), whose ids are {ids}', expected_mask, lambda: mask)
        assert tokenizer.decode(ids) == ''.join(
            f'<|im_start|>{m["role"]}\n{m["content"]}<|im_end|>\n' for m in messages)


@given(chats, contents)
def test_the_prompt_is_the_exact_prefix_of_the_chat_with_its_answer(messages, answer):
    ids, mask = TRAPPING.render([*messages, say('assistant', answer)])
    said = [*TRAPPING.encode(answer), TRAPPING.special['<|im_end|>'], 10]
    n = len(ids) - len(said)                    # of the prompt
    asked = f'render({messages}, add_generation_prompt=True)'
    prompt, prompt_mask = attempt(asked, 'ids and a mask', TRAPPING.render, messages, True)
    expect(f'the ids of {asked}', ids[:n], lambda: prompt)
    expect(f'the mask of {asked}', mask[:n], lambda: prompt_mask)
    assert ids[n:] == said and mask[n:] == [1] * (len(said) - 1) + [0]


@given(chats)
def test_nobody_who_types_a_special_token_forges_one(messages):
    wanted = [TRAPPING.special['<|im_start|>'], TRAPPING.special['<|im_end|>']] * len(messages)
    expect(f'the special ids in render({messages})', wanted,
           lambda: [i for i in TRAPPING.render(messages)[0] if i in TRAPPING.special.values()])


def complaint(render, messages):
    """Return what a ValueError says."""
    try:
        return f'no error, but {render(messages)}'
    except ValueError as error:
        return f'ValueError: {error}'


def test_a_bad_message_or_a_tokenizer_without_the_special_tokens_is_a_value_error():
    alone = Tokenizer.byte(['<|im_start|>'])
    cases = [(TRAPPING, message, 'role') for message in (say('human', 'hi'), say('user', 7), 'hi')]
    for tokenizer, message, word in [*cases, (alone, say('user', 'hi'), 'im_end')]:
        messages = [say('user', 'hi'), message]
        asked = f'render({messages}), with the special tokens {", ".join(list(tokenizer.special)[:3])}'
        wanted = f'a ValueError that says {word!r}'
        found = attempt(asked, wanted, complaint, tokenizer.render, messages)
        assert found.startswith('ValueError') and word in found, told(asked, found, wanted)
        refused(word, tokenizer.render, messages)
