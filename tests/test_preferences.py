"""Preferences in their usual forms, and what speaks against a conversation or a preference."""
import json
import math

import pytest
from conftest import ok, run
from test_conversations import chat

from parts.prepare.filters import messages_reason, preference_reason, programs
from parts.prepare.conversions import preference_of

PAIR = {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}
LONG = chat('a', 'b', 'q', system='s')


def answered(messages, text):
    return messages + [{'role': 'assistant', 'content': text}]


@pytest.mark.parametrize('record, pair', [
    (PAIR, PAIR), ({'question': 'q', 'chosen': 'good', 'rejected': 'bad', 'id': 3}, PAIR),
    ({'instruction': 'q', 'chosen': 'good', 'rejected': 'bad'}, PAIR),
    # whole conversations, with and without the prompt beside them
    ({'prompt': 'q', 'chosen': chat('q', 'good'), 'rejected': chat('q', 'bad')}, PAIR),
    ({'chosen': chat('q', 'good'), 'rejected': chat('q', 'bad')}, PAIR),
    ({'chosen': answered(LONG, 'good'), 'rejected': answered(LONG, 'bad')}, {**PAIR, 'prompt': LONG}),
    # messages as prompt, and the answers alone as messages or texts
    ({'prompt': LONG, 'chosen': answered([], 'good'), 'rejected': answered([], 'bad')},
     {**PAIR, 'prompt': LONG}),
    ({'prompt': LONG, 'chosen': 'good', 'rejected': 'bad'}, {**PAIR, 'prompt': LONG}),
    ({'prompt': 'q', 'chosen': answered([], 'good'), 'rejected': answered([], 'bad')}, PAIR),
    ({'prompt': 'q', 'chosen': answered([], 'good')[0], 'rejected': 'bad'}, PAIR),
    ({'prompt': chat('q'), 'chosen': 'good', 'rejected': 'bad'}, PAIR),
    ({'prompt': [{'from': 'human', 'value': 'q'}], 'chosen': {'from': 'gpt', 'value': 'good'},
      'rejected': 'bad'}, PAIR),
    ({**PAIR, 'system': 's'}, {**PAIR, 'prompt': chat('q', system='s')}),
    ({'chosen': answered(LONG, 'good'), 'rejected': answered(LONG, 'bad'), 'system': 'x'},
     {**PAIR, 'prompt': LONG}),
    # kto: a thumb up or down
    ({'prompt': 'q', 'completion': 'c', 'label': 0}, {'prompt': 'q', 'completion': 'c', 'label': False}),
    ({'prompt': LONG, 'completion': 'c', 'label': True}, {'prompt': LONG, 'completion': 'c', 'label': True}),
    # how much better, and how many agreed
    ({**PAIR, 'score_chosen': 8, 'score_rejected': 5.5}, {**PAIR, 'margin': 2.5}),
    ({**PAIR, 'chosen_score': '8', 'rejected_score': 9}, {**PAIR, 'margin': -1.0}),
    ({**PAIR, 'margin': 0, 'score_chosen': 8, 'score_rejected': 5, 'agreement': 0.75},
     {**PAIR, 'margin': 0.0, 'agreement': 0.75}),
    ({**PAIR, 'score_chosen': 8, 'margin': None, 'agreement': None}, PAIR)])
def test_every_form_becomes_a_preference(record, pair):
    assert preference_of(record) == pair


@pytest.mark.parametrize('record, words', [
    (None, 'prompt, chosen and rejected'), (['chosen', 'rejected'], 'prompt, chosen and rejected'),
    ({'prompt': 'q', 'chosen': 'good'}, 'prompt, chosen and rejected'),
    ({'chosen': 'good', 'rejected': 'bad'}, 'need a prompt'), ({**PAIR, 'prompt': ''}, 'need a prompt'),
    ({**PAIR, 'prompt': 5}, 'a text'), ({**PAIR, 'prompt': [5]}, 'not an object'),
    ({**PAIR, 'chosen': None}, 'not an object'), ({**PAIR, 'chosen': 5}, 'not an object'),
    ({**PAIR, 'chosen': chat('q')}, 'and an answer'), ({**PAIR, 'chosen': []}, 'and an answer'),
    ({**PAIR, 'chosen': chat('q', 'good'), 'rejected': chat('Q', 'bad')}, 'different prompts'),
    ({**PAIR, 'chosen': chat('x', 'good')}, 'different prompts'),
    ({'prompt': 'q', 'completion': 'c', 'label': 'up'}, 'true or false'),
    ({'prompt': 'q', 'completion': 5, 'label': True}, 'not an object'),
    ({'completion': 'c', 'label': True}, 'need a prompt'),
    ({**PAIR, 'margin': 'much'}, 'numbers'), ({**PAIR, 'margin': []}, 'numbers'),
    ({**PAIR, 'agreement': 10 ** 400}, 'numbers'), ({**PAIR, 'agreement': math.inf}, 'numbers'),
    ({**PAIR, 'margin': math.nan}, 'numbers'), ({**PAIR, 'margin': 'nan'}, 'numbers'),
    ({**PAIR, 'prompt': chat('q', system='s')[:1]}, 'a question'),
    ({**PAIR, 'score_chosen': [], 'score_rejected': 1}, 'numbers')])
def test_malformed_preferences_raise_value_errors_that_say_why(record, words):
    with pytest.raises(ValueError, match=words):
        preference_of(record)


@pytest.mark.parametrize('change, reason', [
    ({}, None), ({'chosen': ' \n'}, 'empty answer'), ({'rejected': ''}, 'empty answer'),
    ({'chosen': ' bad\n'}, 'equal answers'), ({'margin': 0.9}, 'small margin'), ({'margin': 1.0}, None),
    ({'margin': -3.0}, 'small margin'), ({'agreement': 0.6}, 'little agreement'), ({'agreement': 0.7}, None)])
def test_reasons_against_a_preference(change, reason):
    assert preference_reason({**PAIR, **change}, min_margin=1.0, min_agreement=0.7) == reason


def test_without_limits_a_preference_for_the_worse_answer_is_dropped_and_a_tie_kept():
    assert preference_reason({**PAIR, 'margin': -0.1}) == 'small margin'
    assert preference_reason({**PAIR, 'margin': 0.0, 'agreement': 0.0}) is None


def test_thumbs_go_through_prepare_as_they_are(tmp_path):
    rows = [{'prompt': f'q{i}', 'completion': f'a{i}', 'label': i % 3 == 0} for i in range(30)]
    bad = [{**rows[0], 'label': 'up'}, {**rows[0], 'completion': ' '}]
    (tmp_path / 'x.jsonl').write_text('\n'.join(map(json.dumps, rows + bad)), encoding='utf-8')
    ok(run('prepare.py', '--kind=preference', f'--source={tmp_path}/x.jsonl', f'--out_dir={tmp_path}/out'))
    found = [json.loads(line) for side in ('train', 'val') for line in
             (tmp_path / f'out/{side}.jsonl').read_text(encoding='utf-8').splitlines()]
    r = json.loads((tmp_path / 'out/report.json').read_text(encoding='utf-8'))
    assert sorted(map(str, found)) == sorted(map(str, rows)) and r['malformed'] == 1
    assert [s['dropped'] for s in r['stages'] if s['dropped']] == [{'empty answer': 1}]


CODE = 'So:\n```python\n{}\n```\nDone.'
CALL = [*chat('a', 'call'), {'role': 'tool', 'content': 'found'}]


@pytest.mark.parametrize('messages, reason', [
    (chat('a', 'b'), None), (chat('a', 'b', 'c', 'd', system='s'), None),
    ([], 'no answer'), (chat(system='s'), 'no answer'), (chat('a'), 'no answer'),
    (chat('a', 'b')[::-1], 'roles do not alternate'),
    (chat('a', 'b') + chat('c', 'd')[1:], 'roles do not alternate'),
    (chat('a') + chat('b', 'c'), 'roles do not alternate'), (chat('a', ' \n'), 'empty answer'),
    (chat('a', '', 'b', 'c'), 'empty answer'), (chat('\n', 'b'), 'empty message'),
    (chat('a', 'b', system=' '), 'empty message'), (chat('a', CODE.format('x = = 1')), None),
    # a tool's results stand between two turns of the assistant
    (answered(CALL, 'b'), None), (answered(CALL + CALL[-1:], 'b'), None),
    (answered(CALL, 'b') + chat('c', 'd'), None),
    (answered(answered(CALL, 'b'), 'c'), 'roles do not alternate')])
def test_reasons_against_a_conversation(messages, reason):
    assert messages_reason(messages) == reason


@pytest.mark.parametrize('messages, found', [
    (chat('a', 'b'), []), (chat('a', CODE.format('x = 1')), ['x = 1\n']),
    (chat(CODE.format('x = = 1'), 'b'), []),                            # only what is learned
    (chat('a', '1. Run:\n\n   ```python\n   if x:\n       y\n   ```\n2. Done.'), ['if x:\n    y\n']),
    (chat('a', CODE.format('>>> 1 +\n1')), []), (chat('a', '```js\nx = = 1\n```'), []),
    (chat('a', CODE.format('x = 1') + CODE.format('(')), ['x = 1\n', '(\n'])])
def test_programs_are_the_python_blocks_of_the_answers(messages, found):
    assert [code.split('\n```')[0] for code in programs(messages)] == found


def test_a_conversation_whose_code_does_not_parse_is_dropped_unless_parse_is_off(tmp_path):
    good = [chat(f'q{i}', CODE.format(f'x = {i}')) for i in range(30)]
    bad = [chat('a', CODE.format('x = 1') + CODE.format('(')), chat('b', CODE.format('x = = 1'))]
    rows = '\n'.join(json.dumps({'messages': m}) for m in good + bad)
    (tmp_path / 'x.jsonl').write_text(rows, encoding='utf-8')
    for flag, dropped in (('True', [{'code does not parse': 2}]), ('False', [])):
        ok(run('prepare.py', '--kind=sft', f'--source={tmp_path}/x.jsonl', f'--out_dir={tmp_path}/{flag}',
               f'--parse={flag}', '--dedup=none'))
        r = json.loads((tmp_path / flag / 'report.json').read_text(encoding='utf-8'))
        assert [s['dropped'] for s in r['stages'] if s['dropped']] == dropped
