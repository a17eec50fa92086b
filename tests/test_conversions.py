"""Conversions: every usual form becomes texts, messages or pairs; what is malformed is told with a reason."""
import json
import math

import pytest
from conftest import mistake, read_rows, refused, run, shared
from preparing import dropped, prepare, recipe, records, report, write_records

from parts.prepare.conversions import documents as documents_of, from_record, from_samples, messages_of
from parts.prepare.conversions import to_record
from parts.prepare.filters import messages_reason, programs


def chat(*contents, system=None):
    """Messages of a user and an assistant in turn."""
    turns = [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(contents)]
    return turns if system is None else [{'role': 'system', 'content': system}, *turns]


def answered(messages, text):
    return [*messages, {'role': 'assistant', 'content': text}]


def rejected(record, kind):
    """Why a record is malformed."""
    reasons = []
    assert not [*documents_of([('a.jsonl', 7, record)], lambda *told: reasons.append(told), kind)], record
    (path, line, why), = reasons
    assert (path, line) == ('a.jsonl', 7)
    return why


def prepared(tmp_path, kind, rows, *flags):
    prepare(tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows), f'--kind={kind}', *flags)
    return tmp_path / 'out'


# --- conversations ------------------------------------------------------------------------------------------
AC = chat('a', 'c')
SAC = chat('a', 'c', system='s')
CONVERSATIONS = [
    ({'instruction': 'a', 'input': 'b', 'output': 'c'}, chat('a\n\nb', 'c')),
    ({'conversations': [{'from': 'developer', 'value': 's'}, {'from': 'Human', 'value': 'a'},
                        {'from': 'gpt', 'value': 'c'}]}, SAC),
    # a system beside the turns, unless there is one among them
    ({'system': 's', 'prompt': 'a', 'completion': 'c'}, SAC), ({'system': 'other', 'messages': SAC}, SAC),
    # cut off at either end: an answer to nothing, a question without an answer
    ({'system': 's', 'messages': [*answered([], 'x'), *chat('a', 'c', 'd')]}, SAC),
    ({'system': 's', 'messages': chat('a')}, []),
    # a column of null does not hide another
    ({'messages': None, 'instruction': None, 'prompt': 'a', 'output': None, 'answer': 'c'}, AC)]


def test_every_form_becomes_messages_and_malformed_records_are_told():
    for record, messages in CONVERSATIONS:
        before = json.dumps(record)
        assert messages_of(record) == messages, record
        assert json.dumps(record) == before
    for record in (None, {}, {'messages': [*AC, {'role': 'assistant', 'content': 3}]}, {'instruction': 'a'},
                   {'instruction': 'a', 'output': 'c', 'history': [['x']]}):
        assert rejected(record, 'sft')
    assert 'wizard' in rejected({'messages': [{'role': 'wizard', 'content': 'a'}]}, 'sft')


def test_the_conversion_of_the_source_returns_only_None_and_ours_does_not():
    """The guide looks up a role's name as a key, but the keys of a message are role and content."""
    messages = chat('What is 2 + 2?', '4', 'And 3 + 3?', '6', system='s')
    assert {message.get(key, 'None') for message in messages
            for key in ('instruction', 'user', 'assistant')} == {'None'}
    alpaca = recipe('chat.md', 'to_alpaca')(messages)
    assert alpaca == {'instruction': 'And 3 + 3?', 'input': '', 'output': '6', 'system': 's',
                      'history': [['What is 2 + 2?', '4']]}
    vicuna = recipe('chat.md', 'to_vicuna')(messages)
    assert vicuna['conversations'][3:] == [{'from': 'human', 'value': 'And 3 + 3?'},
                                           {'from': 'gpt', 'value': '6'}]
    assert messages_of(alpaca) == messages_of(vicuna) == messages
    refused('.', recipe('chat.md', 'to_alpaca'), messages[:-1])


@pytest.mark.parametrize('name, n, n_dropped', [
    ('code_alpaca_2k.json', 2017, 2), ('vicuna_dummy_conversation.json', 500, 0)])
def test_every_record_of_real_files_arrives(name, n, n_dropped, tmp_path):
    prepare(tmp_path, shared(name), '--kind=sft', '--dedup=none')
    assert len(records(tmp_path)) + n_dropped == n


def test_conversations_with_one_beginning_stay_together_and_a_system_message_is_none(tmp_path):
    rows = [{'system': 'be brief', 'messages': chat(f'q{i % 30}', f'a{i}')} for i in range(90)]
    out = prepared(tmp_path, 'sft', rows, '--dedup=exact')
    sides = [{row['messages'][1]['content'] for row in read_rows(out / f'{side}.jsonl')}
             for side in ('train', 'val')]
    assert len(records(out)) == 90 and len(sides[0] | sides[1]) == 30
    assert sides[0] and sides[1] and not sides[0] & sides[1]


# --- what speaks against a conversation ---------------------------------------------------------------------
CODE = 'So:\n```python\n{}\n```\nDone.'
CALL = [*chat('a', 'call'), {'role': 'tool', 'content': 'found'}]


def test_reasons_against_a_conversation():
    for messages, reason in [
            (chat('a', 'b', 'c', 'd', system='s'), None), ([], 'no answer'),
            (chat('a', 'b')[::-1], 'roles do not alternate'),
            (chat('a') + chat('b', 'c'), 'roles do not alternate'),
            (chat('a', ' \n'), 'empty answer'), (chat('\n', 'b'), 'empty message'),
            # a tool's results stand between two turns of the assistant
            (answered(CALL + CALL[-1:], 'b'), None)]:
        assert messages_reason(messages) == reason, messages

    for scores, is_low in [
            ({'score': '4.5'}, False), ({'score': None}, False), ({'score': 3.9}, True),
            ({'score': 'good'}, True)]:
        doc = from_record({'messages': AC, **scores}, 'x', 'sft')
        score = doc.get('score', math.inf)
        assert messages_reason(AC, score, 4) == ('low score' if is_low else None), doc
        assert messages_reason(AC, score) is None


def test_programs_are_the_python_blocks_of_answers_and_drop_the_conversation_if_they_do_not_parse(tmp_path):
    for answer, blocks in [
            (CODE.format('x = 1'), ['x = 1\n']), (CODE.format('>>> 1 +\n1'), []),
            ('1. Run:\n\n   ```python\n   if x:\n       y\n   ```\n2. Done.', ['if x:\n    y\n']),
            ('```js\nx = = 1\n```', [])]:
        assert programs(chat(CODE.format('x = = 1'), answer)) == blocks, answer      # only what is learned
    rows = [{'messages': chat(f'q{i}', CODE.format(f'x = {i}'))} for i in range(30)]
    rows += [{'messages': chat('b', CODE.format('x = 1') + CODE.format('x = = 1'))}]
    assert dropped(prepared(tmp_path, 'sft', rows, '--dedup=none')) == {'code does not parse': 1}


# --- preferences --------------------------------------------------------------------------------------------
PAIR = {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}
LONG = chat('a', 'b', 'q', system='s')
PREFERENCES = [
    # whole conversations, with and without the prompt beside them
    ({'question': 'q', 'chosen': chat('q', 'good'), 'rejected': chat('q', 'bad'), 'id': 3}, PAIR),
    ({'chosen': answered(LONG, 'good'), 'rejected': answered(LONG, 'bad'), 'system': 'x'},
     {**PAIR, 'prompt': LONG}),
    # messages as prompt, and the answers alone as messages or texts
    ({'prompt': LONG, 'chosen': answered([], 'good'), 'rejected': 'bad'}, {**PAIR, 'prompt': LONG}),
    ({**PAIR, 'chosen': answered([], 'good')[0], 'system': 's'}, {**PAIR, 'prompt': chat('q', system='s')}),
    # kto: a thumb up or down
    ({'prompt': 'q', 'completion': 'c', 'label': 0}, {'prompt': 'q', 'completion': 'c', 'label': False}),
    # how much better, and how many agreed
    ({**PAIR, 'score_chosen': 8, 'score_rejected': 5.5, 'margin': None}, {**PAIR, 'margin': 2.5}),
    ({**PAIR, 'margin': 0, 'score_chosen': 8, 'score_rejected': 5, 'agreement': 0.75},
     {**PAIR, 'margin': 0.0, 'agreement': 0.75}),
    ({**PAIR, 'score_chosen': 8, 'margin': None, 'agreement': None}, PAIR)]
NO_PREFERENCES = [
    ({'prompt': 'q', 'chosen': 'good'}, "KeyError: 'rejected'"),
    ({'chosen': 'good', 'rejected': 'bad'}, 'a question'),
    ({**PAIR, 'chosen': chat('q', 'good'), 'rejected': chat('Q', 'bad')}, 'different prompts'),
    ({**PAIR, 'agreement': 10 ** 400}, 'Overflow'), ({**PAIR, 'margin': 'nan'}, 'numbers')]


def test_every_form_becomes_a_preference_or_an_error_that_says_why():
    for record, pair in PREFERENCES:
        assert to_record(from_record(record, 'x', 'preference')) == pair, record
    for record, words in NO_PREFERENCES:
        assert words in rejected(record, 'preference'), record


def test_pairs_and_thumbs_go_through_prepare_as_they_are_but_for_what_the_limits_drop(tmp_path):
    pairs = [{'prompt': f'q{i}', 'chosen': 'yes', 'rejected': 'no', 'margin': i / 10, 'agreement': 1 - i / 50}
             for i in range(20)]
    thumbs = [{'prompt': f't{i}', 'completion': f'a{i}', 'label': i % 3 == 0} for i in range(30)]
    bad = [{'prompt': 'same', 'chosen': 'x', 'rejected': ' x'}, {'prompt': 'p'}, {**thumbs[0], 'label': 'up'},
           {**thumbs[0], 'completion': ' '}]
    out = prepared(tmp_path, 'preference', pairs + thumbs + bad, '--min_margin=0.5', '--min_agreement=0.7')
    assert dropped(out) == {'small margin': 5, 'little agreement': 4, 'equal answers': 1, 'empty answer': 1}
    assert report(out)['malformed'] == 2
    assert sorted(map(str, records(out))) == sorted(map(str, pairs[5:16] + thumbs))


# --- answers that eval.py has judged ------------------------------------------------------------------------
def sampled(task_id, *answers):
    asked = [{'role': 'user', 'content': f'do {task_id}'}]
    return [{'task': 'problems', 'task_id': task_id, 'messages': asked, 'completion': text,
             'outcome': outcome, 'preferred': liked} for text, outcome, liked in answers]


ONE = sampled(1, ('a', 'passed', True), ('b', 'wrong', False), ('c', 'passed', False),
              ('a', 'passed', True), ('d', 'timeout', False), ('e', 'infrastructure', False),
              ('f', 'exception', True))
SAMPLES = ONE[::2] + sampled(2, ('g', 'passed', True)) + sampled(3, ('h', 'wrong', False)) + ONE[1::2]


def test_passed_answers_win_over_failed_ones_tasteful_ones_over_others_and_are_demonstrations_once():
    pairs = lambda prefer: [(p['prompt'][0]['content'], p['chosen'], p['rejected'])
                            for p in from_samples(SAMPLES, 'preference', prefer)]
    passed = pairs('passed')
    assert len(passed) == 3 == len(set(passed)) and {p for p, *_ in passed} == {'do 1'}
    assert {c for _, c, _ in passed} == set('ac') and {r for *_, r in passed} == set('bdf')
    assert pairs('taste') == [('do 1', 'a', 'c')] and pairs('both') == passed + pairs('taste')
    many = sampled(1, ('x', 'wrong', False), *((str(i), 'passed', False) for i in range(9)))
    for kind in ('preference', 'sft'):
        assert len([*from_samples(many, kind)]) == 4
    answers = lambda *how: sorted(r['messages'][-1]['content'] for r in from_samples(SAMPLES, 'sft', *how))
    assert answers() == ['a', 'c', 'g'] and answers('taste') == ['a', 'g']


def test_prepare_turns_samples_into_data_for_both_stages_or_says_why_not(tmp_path):
    rows = [row for i in range(40) for row in sampled(
        i, (f'def f{i}(x):\n    return x + {i}', 'passed', True),
        (f'def f{i}(x):\n    return x - {i}', 'wrong', True))]
    pairs = records(prepared(tmp_path, 'preference', rows, '--dedup=exact'))
    assert len(pairs) == 40 and all('+' in p['chosen'] and '-' in p['rejected'] for p in pairs)
    assert [p['prompt'] for p in pairs if p['chosen'].startswith('def f7(')] == ['do 7']
    # two that are damaged are skipped
    rows += [row | change for row in rows[:1] for change in (
        {'completion': None}, {'task_id': 99, 'messages': [{'role': 'wizard', 'content': 'do 1'}]})]
    demonstrations = records(prepared(tmp_path / 'sft', 'sft', rows, '--dedup=exact'))
    assert len(demonstrations) == 40
    assert all('+' in r['messages'][1]['content'] for r in demonstrations)

    source = write_records(tmp_path / 'bad.jsonl', sampled(1, ('a', 'wrong', False), ('b', 'timeout', False)))
    mistake(run('prepare.py', '--kind=sft', f'--source={source}', f'--out_dir={tmp_path}/no'),
            'none of 2 samples', 'better than another')
