"""Conversations and pairs: every usual form is read; what is malformed or dropped is told with a reason."""
import json

import pytest
from conftest import mistake, read_rows, refused, run, shared
from preparing import dropped, prepare, recipe, records, report, write_records

from extras import chats, judged_answers


def chat(*contents, system=None):
    """Messages of a user and an assistant in turn."""
    turns = [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(contents)]
    return turns if system is None else [{'role': 'system', 'content': system}, *turns]


def answered(turns, text):
    return [*turns, {'role': 'assistant', 'content': text}]


def read(record, kind):
    """The document of a record, as a record again; or why it is malformed."""
    told = []
    entries = [('a.jsonl', 7, record)]
    documents = [*chats.documents(entries, lambda *why: told.append(why), kind)]
    if not documents:
        [(place, error)] = told
        assert place == 'a.jsonl:7'
        return error
    [document] = documents
    assert (document['path'], document['record']) == ('a.jsonl:7', record) and not told
    return json.loads(chats.to_line(document)) if document['texts'] else {'messages': []}


def dropped_by(record, kind, **limits):
    """The reason against a record."""
    fields = chats.fields_of(record, kind)
    check = chats.stage(kind, **{'compiles': lambda program: '= =' not in program, **limits})
    assert check({**fields, 'mode': 'raw'}, {}) is None
    return check({**fields, 'mode': 'chat'}, {})


def prepared(tmp_path, kind, rows, *flags):
    prepare(tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows), f'--kind={kind}', *flags)
    return tmp_path / 'out'


# --- conversations ------------------------------------------------------------------------------------------
AC = chat('a', 'c')
SAC = chat('a', 'c', system='s')
CONVERSATIONS = [
    ({'instruction': 'a', 'input': 'b', 'output': 'c'}, chat('a\n\nb', 'c')),
    ({'instruction': 'b', 'output': 'd', 'history': [['a', 'c']]}, chat('a', 'c', 'b', 'd')),
    ({'conversations': [{'from': 'developer', 'value': 's'}, {'from': 'Human', 'value': 'a'},
                        {'from': 'gpt', 'value': 'c'}]}, SAC),
    # a system beside the turns, unless there is one among them
    ({'system': 's', 'prompt': 'a', 'completion': 'c'}, SAC), ({'system': 'other', 'messages': SAC}, SAC),
    # cut off at either end: an answer to nothing, a question without an answer
    ({'system': 's', 'messages': [*answered([], 'x'), *chat('a', 'c', 'd')]}, SAC),
    ({'system': 's', 'messages': chat('a')}, []),
    # a column of null does not hide another
    ({'messages': None, 'instruction': None, 'prompt': 'a', 'output': None, 'answer': 'c'}, AC)]
NO_CONVERSATIONS = [
    (None, 'not an object'), ({'foo': 1}, 'no messages, conversations'), ({'instruction': 'a'}, 'not text'),
    ({'messages': [*AC, {'role': 'assistant', 'content': 3}]}, 'not text'),
    ({'instruction': 'a', 'output': 'c', 'history': [['x']]}, 'list of pairs'),
    ({'messages': [{'role': 'wizard', 'content': 'a'}]}, 'wizard')]


def test_every_form_becomes_messages_and_malformed_records_are_told():
    for record, turns in CONVERSATIONS:
        before = json.dumps(record)
        assert read(record, 'sft') == {'messages': turns}, record
        assert json.dumps(record) == before
    for record, words in NO_CONVERSATIONS:
        assert words in read(record, 'sft'), record


def test_the_conversion_of_the_source_returns_only_None_and_ours_does_not():
    """The guide looks up a role's name as a key, but the keys of a message are role and content."""
    turns = chat('What is 2 + 2?', '4', 'And 3 + 3?', '6', system='s')
    assert {message.get(key, 'None') for message in turns
            for key in ('instruction', 'user', 'assistant')} == {'None'}
    alpaca = recipe('chat.md', 'to_alpaca')(turns)
    assert alpaca == {'instruction': 'And 3 + 3?', 'input': '', 'output': '6', 'system': 's',
                      'history': [['What is 2 + 2?', '4']]}
    vicuna = recipe('chat.md', 'to_vicuna')(turns)
    assert vicuna['conversations'][3:] == [{'from': 'human', 'value': 'And 3 + 3?'},
                                           {'from': 'gpt', 'value': '6'}]
    assert chats.messages_of(alpaca) == chats.messages_of(vicuna) == turns
    refused('.', recipe('chat.md', 'to_alpaca'), turns[:-1])


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
TOOL = {'role': 'tool', 'content': 'found'}


def test_reasons_against_a_conversation():
    for turns, reason in [
            (chat('a', 'b', 'c', 'd', system='s'), None), ([], 'no answer'),
            (chat('a') + chat('b', 'c'), None),           # two questions in a row are one
            (chat('a', 'b') + chat('x', 'c')[1:], 'roles do not alternate'),
            ([TOOL, *chat('a', 'b')], 'roles do not alternate'),
            (chat('a', ' \n'), 'empty answer'), (chat('\n', 'b'), 'empty message'),
            # a tool's results stand between two turns of the assistant
            (answered([*chat('a', 'call'), TOOL, TOOL], 'b'), None)]:
        assert dropped_by({'messages': turns}, 'sft') == reason, turns

    for scores, is_low in [
            ({'score': '4.5'}, False), ({'score': None}, False), ({'rating': 3.9}, True),
            ({'score': 'good'}, True), ({'score': 10 ** 400}, True)]:
        record = {'messages': AC, **scores}
        assert dropped_by(record, 'sft', min_score=4) == ('low score' if is_low else None), scores
        assert dropped_by(record, 'sft') is None

    document = chats.fields_of({'messages': chat('sorry', 'yes', 'b', 'I am SORRY, no')}, 'sft')
    for limits, reason in [
            ({'lengths': (3, 14)}, None), ({'lengths': (4, 99)}, 'short answer'),
            ({'lengths': (0, 13)}, 'long answer'), ({'unwanted': ['sorry']}, 'unwanted phrase'),
            ({'unwanted': ['sorry, yes', 'b']}, None)]:             # only in answers, each by itself
        assert chats.reason_of(document, **limits) == reason, limits


def test_programs_are_the_python_blocks_of_answers_and_drop_the_conversation_if_they_do_not_parse(tmp_path):
    for answer, blocks in [
            (CODE.format('x = 1'), ['x = 1\n']), (CODE.format('>>> 1 +\n1'), []),
            ('1. Run:\n\n   ```python\n   if x:\n       y\n   ```\n2. Done.', ['if x:\n    y\n']),
            ('```js\nx = = 1\n```', [])]:
        assert chats.programs([answer]) == blocks, answer
    wrong = CODE.format('x = = 1')
    assert dropped_by({'messages': chat(wrong, 'a')}, 'sft') is None            # only what is learned
    assert dropped_by({'messages': chat('a', wrong)}, 'sft', compiles=None) is None
    rows = [{'messages': chat(f'q{i}', CODE.format(f'x = {i}'))} for i in range(30)]
    rows += [{'messages': chat('b', CODE.format('x = 1') + wrong)}]
    assert dropped(prepared(tmp_path, 'sft', rows, '--dedup=none')) == {'code does not parse': 1}


# --- pairs --------------------------------------------------------------------------------------------------
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
    ({'prompt': LONG, 'completion': 'c', 'label': True}, {'prompt': LONG, 'completion': 'c', 'label': True}),
    # how much better, and how many agreed
    ({**PAIR, 'score_chosen': 8, 'score_rejected': 5.5, 'margin': None}, {**PAIR, 'margin': 2.5}),
    ({**PAIR, 'margin': 0, 'score_chosen': 8, 'score_rejected': 5, 'agreement': 0.75},
     {**PAIR, 'margin': 0.0, 'agreement': 0.75}),
    ({**PAIR, 'score_chosen': 8, 'margin': None, 'agreement': None}, PAIR)]
NO_PREFERENCES = [
    ({'prompt': 'q', 'chosen': 'good'}, 'no chosen and rejected'),
    ({'chosen': 'good', 'rejected': 'bad'}, 'only: chosen, rejected'),
    ({'prompt': 'q', 'completion': 'c', 'label': 'up'}, "label is 'up'"),
    ({**PAIR, 'chosen': chat('q', 'good'), 'rejected': chat('Q', 'bad')}, 'different prompts'),
    ({**PAIR, 'agreement': 10 ** 400}, 'numbers'), ({**PAIR, 'margin': 'nan'}, 'numbers')]


def test_every_form_becomes_a_preference_or_an_error_that_says_why():
    for record, pair in PREFERENCES:
        assert read(record, 'preference') == pair, record
    for record, words in NO_PREFERENCES:
        assert words in read(record, 'preference'), record
    assert chats.pair_of(PAIR)['roles'] == ['user', 'chosen', 'rejected']       # by which copies are known


def test_pairs_and_thumbs_go_through_prepare_as_they_are_but_for_what_the_limits_drop(tmp_path):
    rows = [{'prompt': f'q{i}', 'chosen': 'yes', 'rejected': 'no', 'margin': i / 10, 'agreement': 1 - i / 50}
            for i in range(20)]
    thumbs = [{'prompt': f't{i}', 'completion': f'a{i}', 'label': i % 3 == 0} for i in range(30)]
    bad = [{'prompt': 'same', 'chosen': 'x', 'rejected': ' x'}, {'prompt': 'p'}, {**thumbs[0], 'label': 'up'},
           {**thumbs[0], 'completion': ' '}, {**rows[0], 'rejected': ''}]
    out = prepared(tmp_path, 'preference', rows + thumbs + bad, '--min_margin=0.5', '--min_agreement=0.7')
    assert dropped(out) == {'small margin': 5, 'little agreement': 4, 'equal answers': 1, 'empty answer': 2}
    assert report(out)['malformed'] == 2
    assert sorted(map(str, records(out))) == sorted(map(str, rows[5:16] + thumbs))


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
    from_samples = judged_answers.from_samples
    pairs_of = lambda prefer: [(p['prompt'][0]['content'], p['chosen'], p['rejected'])
                               for p in from_samples(SAMPLES, 'preference', prefer)]
    passed = pairs_of('passed')
    assert len(passed) == 3 == len(set(passed)) and {p for p, *_ in passed} == {'do 1'}
    assert {c for _, c, _ in passed} == set('ac') and {r for *_, r in passed} == set('bdf')
    assert pairs_of('taste') == [('do 1', 'a', 'c')] and pairs_of('both') == passed + pairs_of('taste')
    many = sampled(1, ('x', 'wrong', False), *((str(i), 'passed', False) for i in range(9)))
    for kind in ('preference', 'sft'):
        assert len([*from_samples(many, kind)]) == 4
    answers = lambda *how: sorted(r['messages'][-1]['content'] for r in from_samples(SAMPLES, 'sft', *how))
    assert answers() == ['a', 'c', 'g'] and answers('taste') == ['a', 'g']


def test_prepare_turns_samples_into_data_for_both_stages_or_says_why_not(tmp_path):
    rows = [row for i in range(40) for row in sampled(
        i, (f'def f{i}(x):\n    return x + {i}', 'passed', True),
        (f'def f{i}(x):\n    return x - {i}', 'wrong', True))]
    made = records(prepared(tmp_path, 'preference', rows, '--dedup=exact'))
    assert len(made) == 40 and all('+' in p['chosen'] and '-' in p['rejected'] for p in made)
    assert [p['prompt'] for p in made if p['chosen'].startswith('def f7(')] == ['do 7']
    # two that are damaged are skipped
    rows += [row | change for row in rows[:1] for change in (
        {'completion': None}, {'task_id': 99, 'messages': [{'role': 'wizard', 'content': 'do 1'}]})]
    demonstrations = records(prepared(tmp_path / 'sft', 'sft', rows, '--dedup=exact'))
    assert len(demonstrations) == 40
    assert all('+' in r['messages'][1]['content'] for r in demonstrations)

    source = write_records(tmp_path / 'bad.jsonl', sampled(1, ('a', 'wrong', False), ('b', 'timeout', False)))
    mistake(run('prepare.py', '--kind=sft', f'--source={source}', f'--out_dir={tmp_path}/no'),
            'none of 2 samples', 'better than another')
