"""Conversations: every usual form becomes messages, what is malformed raises ValueError, and the way back
gives the same conversation."""
import json
import math

import pytest
from conftest import SHARED, ok, run
from hypothesis import given
from hypothesis import strategies as st

from parts.prepare.filters import messages_reason
from parts.prepare.conversions import from_record, messages_of, preference_of, to_alpaca, to_vicuna


def chat(*contents, system=None):
    """Messages of a user and an assistant in turn."""
    return [{'role': 'system', 'content': system}] * (system is not None) + \
        [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(contents)]


@pytest.mark.parametrize('record, messages', [
    ({'instruction': 'a', 'input': 'b', 'output': 'c'}, chat('a\n\nb', 'c')),
    ({'instruction': 'a', 'input': '', 'output': 'c'}, chat('a', 'c')),
    ({'instruction': 'a', 'input': None, 'output': 'c'}, chat('a', 'c')),
    ({'instruction': 'a', 'output': 'c', 'id': 7}, chat('a', 'c')),
    ({'instruction': '', 'input': 'b', 'output': 'c'}, chat('b', 'c')),
    ({'instruction': 'a', 'output': 'c', 'system': 's', 'history': [['d', 'e'], ['f', 'g']]},
     chat('d', 'e', 'f', 'g', 'a', 'c', system='s')),
    ({'instruction': 'a', 'output': 'c', 'system': '', 'history': None}, chat('a', 'c')),
    ({'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'gpt', 'value': 'c'}]}, chat('a', 'c')),
    ({'conversations': [{'from': 'system', 'value': 's'}, {'from': 'Human', 'value': 'a'},
                        {'from': 'chatgpt', 'value': 'c'}]}, chat('a', 'c', system='s')),
    ({'conversation': [{'role': 'user', 'content': 'a'}, {'role': 'bot', 'content': 'c'}]}, chat('a', 'c')),
    ({'messages': chat('a', 'c', 'd', 'e', system='s')}, chat('a', 'c', 'd', 'e', system='s')),
    ({'prompt': 'a', 'completion': 'c'}, chat('a', 'c')), ({'prompt': 'a', 'response': 'c'}, chat('a', 'c')),
    ({'question': 'a', 'answer': 'c'}, chat('a', 'c')),
    # a system beside the turns, unless there is one among them
    ({'system': 's', 'conversations': [{'from': 'gpt', 'value': 'x'}, {'from': 'human', 'value': 'a'},
                                       {'from': 'gpt', 'value': 'c'}]}, chat('a', 'c', system='s')),
    ({'system': 's', 'prompt': 'a', 'completion': 'c'}, chat('a', 'c', system='s')),
    ({'system': 'other', 'messages': chat('a', 'c', system='s')}, chat('a', 'c', system='s')),
    ({'system': 's', 'messages': chat('a')}, []),
    # cut off at either end: an answer to nothing, a question without an answer
    ({'messages': [{'role': 'assistant', 'content': 'x'}, *chat('a', 'c', 'd')]}, chat('a', 'c')),
    ({'messages': []}, []), ({'messages': chat('a')}, []),
    # a column of null does not hide another
    ({'messages': None, 'conversations': chat('a', 'c')}, chat('a', 'c')),
    ({'instruction': None, 'prompt': 'a', 'output': None, 'answer': 'c'}, chat('a', 'c'))])
def test_every_form_becomes_messages(record, messages):
    before = json.dumps(record)
    assert messages_of(record) == messages and json.dumps(record) == before


@pytest.mark.parametrize('record', [
    None, 3, 'messages', ['messages'], {}, {'text': 'a'}, {'messages': None}, {'messages': 'hello'},
    {'messages': ['hello']}, {'messages': [{'role': 'user'}]}, {'messages': [{'content': 'a'}]},
    {'messages': [{'role': 'wizard', 'content': 'a'}]}, {'messages': [{'role': 'user', 'content': 3}]},
    {'messages': [{'role': ['user'], 'content': 'a'}]}, {'instruction': 'a'}, {'output': 'a'},
    {'instruction': 3, 'output': 'c'}, {'instruction': 'a', 'output': None},
    {'instruction': 'a', 'input': ['b'], 'output': 'c'}, {'instruction': 'a', 'output': 'c', 'system': 3},
    *({'instruction': 'a', 'output': 'c', 'history': h} for h in (
        5, 'ab', ['ab'], [['x']], [['x', 3]], [3], {'ab': 1}, [{'x': 1, 'y': 2}]))])
def test_malformed_records_raise_value_errors(record):
    with pytest.raises(ValueError):
        messages_of(record)


KEYS = st.sampled_from('messages conversations conversation instruction input output system history prompt '
                       'completion question answer role content from value chosen rejected margin agreement '
                       'score_chosen score_rejected chosen_score'.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.just(10 ** 400) | st.floats() | \
    st.sampled_from(['', 'a', 'user', 'human', 'gpt', 'assistant', 'system', 'messages', 'chosen'])
JSON = st.recursive(SCALARS, max_leaves=12, extend=lambda inner: st.lists(inner, max_size=3) |
                    st.dictionaries(KEYS, inner, max_size=5))


@given(JSON | st.dictionaries(KEYS, JSON, max_size=8))
def test_any_json_is_converted_or_a_value_error(record):
    for convert in (messages_of, preference_of):
        try:
            found = convert(record)
        except ValueError:
            continue
        if convert is messages_of:
            assert all(isinstance(m['content'], str) for m in found)
            assert not found or found[-1]['role'] == 'assistant' != found[0]['role']
        else:
            assert isinstance(found['chosen'], str) and isinstance(found['rejected'], str)
            assert isinstance(found['prompt'], (str, list)) and isinstance(found.get('margin', 0.0), float)


TURNS = st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4)
CHATS = st.builds(lambda turns, system: chat(*sum(turns, ()), system=system),
                  TURNS, st.none() | st.text(min_size=1))


@given(CHATS)
def test_alpaca_and_vicuna_and_back_is_the_same_conversation(messages):
    alpaca, vicuna = json.loads(json.dumps(to_alpaca(messages))), json.loads(json.dumps(to_vicuna(messages)))
    assert messages_of(alpaca) == messages_of(vicuna) == messages_of({'messages': messages}) == messages
    assert alpaca['instruction'] == messages[-2]['content'] and alpaca['output'] == messages[-1]['content']


@pytest.mark.parametrize('messages', [
    [], chat(system='s'), chat('a'), chat('a', 'b', 'c'), chat('a', 'b')[::-1], chat('a', 'b') + chat('c'),
    [{'role': 'user', 'content': 'a'}, {'role': 'tool', 'content': 'b'}]])
def test_alpaca_refuses_what_it_cannot_hold(messages):
    with pytest.raises(ValueError):
        to_alpaca(messages)


def test_conversations_that_share_only_a_system_message_go_to_both_sides(tmp_path):
    (tmp_path / 'x.jsonl').write_text('\n'.join(json.dumps(
        {'system': 'be brief', 'messages': chat(f'q{i}', f'a{i}')}) for i in range(30)), encoding='utf-8')
    ok(run('prepare.py', '--kind=sft', f'--source={tmp_path}/x.jsonl', f'--out_dir={tmp_path}/out',
           '--dedup=exact'))
    counts = json.loads((tmp_path / 'out/report.json').read_text(encoding='utf-8'))['documents']
    assert counts['train'] + counts['val'] == 30 and counts['train'] and counts['val']


@pytest.mark.parametrize('record, kept', [
    ({'score': 5}, True), ({'score': '4.5'}, True), ({}, True), ({'score': 3.9}, False),
    ({'score': '1'}, False), ({'score': math.nan}, False), ({'score': {'overall': 5}}, False),
    ({'score': 'good'}, False), ({'score': None, 'rating': 1}, False), ({'score': None}, True)])
def test_a_score_that_does_not_reach_the_limit_or_is_not_a_number_is_low(record, kept):
    doc = from_record({'messages': chat('a', 'c'), **record}, 'x', 'sft')
    assert messages_reason(chat('a', 'c'), doc.get('score', math.inf), 4) == (None if kept else 'low score')
    assert messages_reason(chat('a', 'c'), doc.get('score', math.inf)) is None


def test_the_source_document_s_converter_returns_nothing_but_none():
    def vicuna_to_alpaca(conversation):             # as it stands there
        user = [conv.get("user", "None") for conv in conversation]
        assistant = [conv.get("assistant", "None") for conv in conversation]
        instruct = [conv.get("instruction", "None") for conv in conversation]
        return instruct, user, assistant
    messages = chat('What is 2 + 2?', '4', 'And 3 + 3?', '6')
    shared_gpt = to_vicuna(messages)['conversations']
    assert vicuna_to_alpaca(messages) == vicuna_to_alpaca(shared_gpt) == (['None'] * 4,) * 3
    assert to_alpaca(messages_of({'conversations': shared_gpt})) == {
        'instruction': 'And 3 + 3?', 'input': '', 'output': '6', 'history': [['What is 2 + 2?', '4']]}


@pytest.mark.parametrize('name, n', [('code_alpaca_2k.json', 2017), ('vicuna_dummy_conversation.json', 500),
                                     ('gsm8k_train.jsonl', 7473)])
def test_every_record_of_real_files_converts(name, n):
    if not (SHARED / name).exists():
        pytest.skip(f'no {name}')
    text = (SHARED / name).read_text(encoding='utf-8')
    records = json.loads(text) if text[0] == '[' else [json.loads(line) for line in text.strip().split('\n')]
    assert len(records) == n
    for record in records:
        messages = messages_of(record)
        assert messages_reason(messages) in (None, 'empty answer'), record
        assert messages_of(to_alpaca(messages)) == messages_of(to_vicuna(messages)) == messages
        texts = [t['value'] for t in record.get('conversations', [])] or \
            [record[k] for k in ('instruction', 'input', 'output', 'question', 'answer') if k in record]
        assert all(any(text in m['content'] for m in messages) for text in texts)
