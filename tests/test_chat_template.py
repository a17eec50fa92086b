"""A chat becomes ids and a mask that trains the assistant's words and its <|im_end|>, and nothing else."""
from conftest import refused
from hypothesis import given
from test_records import TRAPPING, chats, contents, say

from tokenizer import SPECIAL_TOKENS, Tokenizer


@given(chats)
def test_only_the_assistants_words_and_their_end_are_trained(messages):
    for tokenizer in (TRAPPING, Tokenizer.byte(SPECIAL_TOKENS)):
        start, end = tokenizer.special['<|im_start|>'], tokenizer.special['<|im_end|>']
        ids, mask = tokenizer.render(messages)
        expected_ids, expected_mask = [], []
        for message in messages:
            content = tokenizer.encode(message['content'])
            head = [start, *tokenizer.encode(message['role'] + '\n')]
            expected_ids += [*head, *content, end, 10]
            trained = int(message['role'] == 'assistant')
            expected_mask += [0] * len(head) + [trained] * (len(content) + 1) + [0]
        assert (ids, mask) == (expected_ids, expected_mask)
        assert tokenizer.decode(ids) == ''.join(
            f'<|im_start|>{m["role"]}\n{m["content"]}<|im_end|>\n' for m in messages)


@given(chats, contents)
def test_the_prompt_is_the_exact_prefix_of_the_chat_with_its_answer(messages, answer):
    prompt, prompt_mask = TRAPPING.render(messages, add_generation_prompt=True)
    ids, mask = TRAPPING.render([*messages, say('assistant', answer)])
    assert ids[:len(prompt)] == prompt and mask[:len(prompt)] == prompt_mask
    assert ids[len(prompt):] == [*TRAPPING.encode(answer), TRAPPING.special['<|im_end|>'], 10]
    assert mask[len(prompt):] == [1] * (len(ids) - len(prompt) - 1) + [0]


@given(chats)
def test_nobody_who_types_a_special_token_forges_one(messages):
    specials = [i for i in TRAPPING.render(messages)[0] if i in TRAPPING.special.values()]
    assert specials == [TRAPPING.special['<|im_start|>'], TRAPPING.special['<|im_end|>']] * len(messages)


def test_a_bad_message_or_a_tokenizer_without_the_special_tokens_is_a_value_error():
    for message in (say('human', 'hi'), say('user', 7), 'hi'):
        refused('role', TRAPPING.render, [say('user', 'hi'), message])
    refused('im_end', Tokenizer.byte(['<|im_start|>']).render, [say('user', 'hi')])
