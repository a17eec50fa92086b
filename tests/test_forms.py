"""Each form of chats, pairs, tables and packed files keeps its meaning, or is refused by name."""
import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import random
import sys

import pytest
from conftest import refused
from preparing import prepare, records, report, write_records
from test_records import say

from extras import formats, questions
from extras.chats import documents, to_line
from extras.records import read, text_of


def line_of(record, kind):
    """What a record becomes in train.jsonl, and the columns not used; or why it is refused."""
    told = []
    found = [*documents([('a.jsonl', 7, record)], lambda place, why: told.append(why), kind)]
    return (json.loads(to_line(found[0])), found[0]['unused']) if found else told[0]


user, assistant, system = (functools.partial(say, role) for role in ('user', 'assistant', 'system'))


AB = [user('a'), assistant('b')]
NODES = {'1': {'message': None, 'parent': None},
         '2': {'message': {'author': {'role': 'system'}, 'content': {'parts': ['']}},
               'parent': '1'},
         '3': {'message': {'author': {'role': 'user'}, 'content': {'parts': ['a']}}, 'parent': '2'},
         'old': {'message': {'author': {'role': 'assistant'}, 'content': {'parts': ['was edited']}},
                 'parent': '3'},
         '5': {'message': {'author': {'role': 'assistant'}, 'content': {'parts': ['b']}},
               'parent': '3'}}
# record: messages, the columns that were not used
CONVERSATIONS = [
    # Dolly, OpenOrca, SQuAD
    ({'instruction': 'When?', 'context': 'Built in 1932.', 'response': 'In 1932.',
      'category': 'qa'},
     [user('When?\n\nBuilt in 1932.'), assistant('In 1932.')], ['category']),
    ({'id': 'cot.1', 'system_prompt': 'Answer in French.', 'question': 'Say hello.',
      'response': 'Bonjour.'},
     [system('Answer in French.'), user('Say hello.'), assistant('Bonjour.')], ['id']),
    ({'title': 't', 'context': 'c', 'question': 'q', 'answers': {'text': ['x', 'y'],
                                                                 'answer_start': [1, 2]}},
     [user('q\n\nc'), assistant('x')], ['title']),
    # lists of messages under prompt and completion, as in TRL; parts of a text; a name
    ({'prompt': [system('s'), user('a')], 'completion': [assistant('b')]}, [system('s'), *AB], []),
    ({'messages': [{'role': 'user', 'name': 'Ann', 'content': [{'type': 'text', 'text': 'a'}, 'b']},
                   assistant('c')]},
     [user('a\nb'), assistant('c')], ['messages.name']),
    # other names of roles; pairs in one object; texts in turn, as in UltraChat
    ({'conversation': [{'role': 'prompter', 'content': 'a'}, {'role': 'Bing', 'content': 'b'}]}, AB,
     []),
    ({'conversation': [{'human': 'a', 'assistant': 'b'}, {'human': 'c', 'assistant': 'd'}],
      'category': 1},
     [*AB, user('c'), assistant('d')], ['category']),
    ({'id': '0', 'data': ['a', 'b', 'c', 'd']}, [*AB, user('c'), assistant('d')], ['id']),
    ({'question': 'Who?', 'answer': ['Ann', 'Ann B.']}, [user('Who?'), assistant('Ann')], []),
    ({'messages': [], 'prompt': 'a', 'response': 'b', 'data': '2024'}, AB, ['data']),
    # two questions in a row are one
    ({'messages': [user('a'), user('b'), assistant('c')]}, [user('a\n\nb'), assistant('c')], []),
    # ChatGPT's export is a tree: what was shown last counts
    ({'title': 'A chat', 'mapping': NODES, 'current_node': '5', 'create_time': 1.5}, AB, []),
    # a tool's answer is read, an empty list of calls hides nothing
    ({'messages': [user('a'), {**assistant('look'), 'tool_calls': []},
                   {'role': 'tool', 'content': 't'}, assistant('b')]},
     [user('a'), assistant('look'), {'role': 'tool', 'content': 't'}, assistant('b')], [])]
PAIR = {'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}
PAIRS = [
    ({'instruction': 'Translate.', 'input': 'The house.', 'chosen': 'Das Haus.',
      'rejected': 'Haus.'},
     {'prompt': 'Translate.\n\nThe house.', 'chosen': 'Das Haus.', 'rejected': 'Haus.'}, []),
    ({'instruction': 'And 2?', 'history': [['Which is 1?', 'Mercury.']], 'chosen': 'Venus.',
      'rejected': 'Mars.'},
     {'prompt': [user('Which is 1?'), assistant('Mercury.'), user('And 2?')], 'chosen': 'Venus.',
      'rejected': 'Mars.'}, []),
    ({'messages': [], **PAIR}, PAIR, []),           # an empty list hides no prompt
    # hh-rlhf; a text of one talk may have a line "Human:" in an answer only after a blank line
    ({'chosen': '\n\nHuman: a\n\nAssistant: b', 'rejected': '\n\nHuman: a\n\nAssistant: c'}, PAIR,
     []),
    ({'chosen': '\n\nHuman: a\n\nAssistant: b\n\nHuman: d\n\nAssistant: e\n\nf',
      'rejected': '\n\nHuman: a\n\nAssistant: b\n\nHuman: d\n\nAssistant: g'},
     {'prompt': [*AB, user('d')], 'chosen': 'e\n\nf', 'rejected': 'g'}, []),
    # LLaMA-Factory's files
    ({'conversations': [{'from': 'human', 'value': 'a'}], 'chosen': {'from': 'gpt', 'value': 'b'},
      'rejected': {'from': 'gpt', 'value': 'c'}}, PAIR, []),
    ({'messages': AB, 'label': 'false'}, {'prompt': 'a', 'completion': 'b', 'label': False}, []),
    ({'prompt': [user('a')], 'completion': [assistant('b')], 'label': True},
     {'prompt': 'a', 'completion': 'b', 'label': True}, []),
    # UltraFeedback: of many answers the best and the worst; and its pairs
    ({'source': 's', 'instruction': 'a', 'completions': [{'response': x, 'overall_score': y} for x,
                                                         y in (('d', 5), ('c', 2), ('b', 8.5))]},
     {**PAIR, 'margin': 6.5}, ['source']),
    ({'prompt': 'a', 'prompt_id': '1', 'chosen': [user('a'), assistant('b')],
      'rejected': [user('a'), assistant('c')],
      'messages': [user('a'), assistant('b')], 'score_chosen': 8, 'score_rejected': 6},
     {**PAIR, 'margin': 2.0}, ['messages', 'prompt_id'])]
REFUSED = [
    ('sft', {'messages': [user('a'), {**assistant(''), 'tool_calls': [{'id': 1}]}]},
     'calls a tool'),
    ('sft', {'conversations': [{'from': 'human', 'value': 'a'},
                               {'from': 'function_call', 'value': '{}'}]}, 'calls a tool'),
    ('sft', {'messages': [user('a'), {**assistant('7'), 'weight': 0}]}, '"weight": 0'),
    ('sft', {'messages': [user('a'), {**assistant('7'), 'train': False}]}, '"train": false'),
    ('sft', {'conversations': [{'from': 'gpt', 'value': 'b', 'loss': False}]}, '"loss": false'),
    ('sft', {'messages': [{'role': 'narrator', 'content': 'a'}]},
     "the role 'narrator'; known are user"),
    ('sft', {'messages': [user([{'type': 'image_url', 'image_url': 'x'}]), assistant('b')]},
     'of user is not text'),
    ('sft', {'messages': {'a': 1}}, 'messages are no list'), ('sft', {'messages': [3]},
                                                              'a message is 3'),
    ('sft', {'mapping': 3}, 'its mapping is 3'), ('sft', ['a'], 'not an object'),
    ('sft', {'instruction': 'a', 'input': 5, 'output': 'b'}, 'question is no text'),
    ('sft', {'instruction': 'a', 'output': None}, 'of assistant is not text'),
    ('sft', {'prompt': 'a', 'answer': 'b', 'history': [['x']]}, 'list of pairs'),
    ('sft', {'prompt': 'a', 'answer': 'b', 'system': 3}, 'system message'),
    ('sft', {'text': 'a'}, 'no messages, conversations, or instruction and output, only: text'),
    ('sft', {'instruction': 'a', 'output': 'b', 'history': [1]}, 'history'),
    ('sft', {'mapping': {'1': None}, 'current_node': '1'}, 'none'),
    ('preference', {'messages': 'hi', 'chosen': 'a', 'rejected': 'b'}, ''),
    ('preference', {'prompt': 'a', 'completion': 'b', 'label': 'up'}, "label is 'up'"),
    ('preference', {'instruction': 'a', 'completions': [{'response': 'b', 'overall_score': 3}] * 2},
     'no two different scores'),
    ('preference', {'instruction': 'a', 'completions': 3}, 'no two different scores'),
    ('preference', {'prompt': 'a', 'chosen': {'x': 1}, 'rejected': 'c'}, 'the role None'),
    ('preference', {**PAIR, 'score_chosen': 'good', 'score_rejected': 1}, 'must be numbers')]


@pytest.mark.parametrize('record, turns, unused', CONVERSATIONS)
def test_a_conversation_keeps_its_meaning(record, turns, unused):
    before = json.dumps(record)
    assert line_of(record, 'sft') == ({'messages': turns}, unused)
    assert json.dumps(record) == before


@pytest.mark.parametrize('record, pair, unused', PAIRS)
def test_a_pair_keeps_its_meaning(record, pair, unused):
    assert line_of(record, 'preference') == (pair, unused)


@pytest.mark.parametrize('kind, record, words', REFUSED)
def test_what_cannot_be_kept_is_refused_by_name(kind, record, words):
    assert words.lower() in str(line_of(record, kind)).lower()


def test_the_report_counts_bad_rows_and_columns_that_were_not_used(tmp_path):
    rows = [{'instruction': f'q{i}', 'context': 'c', 'response': f'a{i}', 'category': 'x',
             'ref': i % 2 or None} for i in range(40)]
    rows += [{'messages': [user('a'), {**assistant('b'), 'weight': 0}]}] * 7
    prepare(tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows), '--kind=sft')
    made = report(tmp_path / 'out')
    assert made['malformed'] == 7
    assert made['counts']['columns that were not used'] == {'category': 40, 'ref': 20}


# --- files ----------------------------------------------------------------------------------------
ROWS = [{'text': f'row {i}: ' + 'ä漢\n"x", y; ' * (i % 4), 'id': f'{i}'} for i in range(900)]
LINES = ''.join(json.dumps(row) + '\n' for row in ROWS).encode()


def table(delimiter, encoding):
    f = io.StringIO(newline='')
    rows = csv.writer(f, delimiter=delimiter)
    rows.writerows([['text', 'id'], *([row['text'], row['id']] for row in ROWS)])
    return f.getvalue().encode(encoding)


def arrived(path):
    told = []
    return [record for _, record in read(str(path), lambda place,
                                         why: told.append(f'{place} {why}'))], told


def test_packed_files_and_tables_are_records_and_a_cut_one_is_named(tmp_path):
    zstandard = pytest.importorskip('zstandard')
    half = LINES.index(b'\n',
                       len(LINES) // 2) - 3                  # two frames; the cut is within a line
    files = {'a.jsonl.gz': gzip.compress(LINES), 'a.jsonl.bz2': bz2.compress(LINES),
             'a.jsonl.xz': lzma.compress(LINES),
             'a.jsonl.zst': zstandard.compress(LINES[:half]) + zstandard.compress(LINES[half:])}
    for name, packed in files.items():
        for kind, data in (('', packed), ('cut_', packed[:-9]), ('no_', LINES)):
            path = tmp_path / f'{kind}{name}'
            path.write_bytes(data)
            rows, told = arrived(path)
            assert rows == ROWS[:len(rows)]
            assert (len(rows) == 900 and not told) == (kind == ''), (path, told)
            assert all(word.startswith(str(path)) for word in told)
    tables = {'a.csv': table(',', 'utf-8'), 'excel.csv': table(';', 'utf-8-sig'),
              'a.tsv': table('\t', 'utf-16')}
    tables |= {'a.csv.gz': gzip.compress(tables['a.csv']),
               'a.csv.zst': zstandard.compress(tables['a.csv'])}
    for name, data in tables.items():
        (tmp_path / name).write_bytes(data)
        assert arrived(tmp_path / name) == (ROWS, []), name


def test_a_row_of_a_table_that_has_other_cells_is_counted_and_the_next_ones_are_read(tmp_path):
    (tmp_path / 'a.csv').write_bytes('text,id\ncafé,1\nb,2,3\n"c"x,3\n\nd,4\n'.encode('cp1252'))
    rows, told = arrived(tmp_path / 'a.csv')
    assert rows == [{'text': 'café', 'id': '1'}, {'text': 'd', 'id': '4'}]
    assert len(told) == 2 and 'line 4' in told[1]
    assert 'line 3 has 3 cells, and 2 columns have names' in told[0]
    (tmp_path / 'pandas.csv').write_text(',text\n0,a\n')
    assert arrived(tmp_path / 'pandas.csv') == ([{'column 1': '0', 'text': 'a'}], [])
    (tmp_path / 'excel.csv').write_text('sep=;\ntext;n;\na;1;\n')
    assert arrived(tmp_path / 'excel.csv') == ([{'text': 'a', 'n': '1', 'column 3': ''}], [])
    (tmp_path / 'open.tsv').write_text('text\tn\na\t1\n"b\t2\nc\t3\n')
    rows, [told] = arrived(tmp_path / 'open.tsv')
    assert len(rows) == 1 and 'line 3 to line 4 are lost' in told
    for first in ('text,text\n1,2\n', 'text,,\n1,2\n', '\n'):
        (tmp_path / 'b.csv').write_text(first)
        assert 'must name each column' in arrived(tmp_path / 'b.csv')[1][0]


def test_parquet_is_read_without_its_vectors_and_pictures(tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    rows = [{**row, 'n': None if i % 2 else i, 'meta': {'a': [f'{i}']}} for i,
            row in enumerate(ROWS)]
    other = {'vector': [[0.5] * 64] * 900, 'ids': [[[1]]] * 900,
             'picture': [random.randbytes(99)] * 900}
    made = pyarrow.Table.from_pylist(rows)
    for name, column in other.items():
        made = made.append_column(name, pyarrow.array(column))
    parquet.write_table(made, tmp_path / 'a.parquet')
    assert arrived(tmp_path / 'a.parquet') == (rows, [])
    (tmp_path / 'cut.parquet').write_bytes((tmp_path / 'a.parquet').read_bytes()[:-9])
    rows, [told] = arrived(tmp_path / 'cut.parquet')
    assert not rows and 'cut.parquet' in told


def test_a_notebook_is_its_text_and_its_code_without_what_it_printed(tmp_path):
    cells = [{'cell_type': 'markdown', 'source': ['# A\n', 'b']},
             {'cell_type': 'raw', 'source': 'no'}, {'cell_type': 'code', 'source': ''},
             {'cell_type': 'code', 'source': 'x = 1', 'outputs': [{'text': 'no'}]}]
    (tmp_path / 'a.ipynb').write_text(json.dumps({'cells': cells, 'nbformat': 4}))
    old = {'worksheets': [{'cells': [{'cell_type': 'code', 'input': ['y = 2']}]}]}
    (tmp_path / 'old.ipynb').write_text(json.dumps(old))
    assert arrived(tmp_path / 'a.ipynb') == ([{'text': '# A\nb\n\n```python\nx = 1\n```'}], [])
    assert arrived(tmp_path / 'old.ipynb') == ([{'text': '```python\ny = 2\n```'}], [])
    for odd in '{"nbformat": 4}', '[]', '{"cells": null}', '':
        (tmp_path / 'a.ipynb').write_text(odd)
        rows, [told] = arrived(tmp_path / 'a.ipynb')
        assert not rows and 'a.ipynb' in told, odd


def test_a_table_of_questions_and_answers_becomes_conversations(tmp_path):
    rows = [f'"What is {i}, then?",It is {i}.,x\n' for i in range(30)]
    (tmp_path / 'faq.csv').write_text('question,answer,topic\n' + ''.join(rows))
    prepare(tmp_path / 'out', tmp_path / 'faq.csv', '--kind=sft', '--dedup=none')
    assert {'messages': [user('What is 7, then?'),
                         assistant('It is 7.')]} in records(tmp_path / 'out')


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch):
    for name, package in (('a.jsonl.zst', 'zstandard'), ('a.parquet', 'pyarrow')):
        monkeypatch.setitem(sys.modules, package, None)
        refused(f'pip install {package}', lambda name=name: formats.open_file(name).read())


def test_questions_of_eval_py_come_from_a_table_or_a_packed_file(tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    rows = [{'question': f'{i} + 1?', 'answer': f'So #### {i + 1}'} for i in range(9)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / 'a.parquet')
    lines = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    (tmp_path / 'a.jsonl').write_bytes(lines)
    (tmp_path / 'a.jsonl.xz').write_bytes(lzma.compress(lines))
    plain = questions.read('gsm8k', str(tmp_path / 'a.jsonl'))
    assert len(plain) == 9
    for name in 'a.parquet', 'a.jsonl.xz':
        found = questions.read('gsm8k', str(tmp_path / name))
        assert [(q['prompt'], q['rules']) for q in found] == [(q['prompt'], q['rules']) for q in plain]
    refused("can't be read", questions.read, 'gsm8k', str(tmp_path / 'none.parquet'))


def test_records_in_a_txt_and_columns_that_are_no_text_are_named(tmp_path):
    (tmp_path / 'a.txt').write_text('{"text": "a"}\n' * 9)
    assert arrived(tmp_path / 'a.txt')[1][0].endswith('rename it: .jsonl')
    (tmp_path / 'b.txt').write_text('{"a quotation"} and so on\n')
    assert arrived(tmp_path / 'b.txt') == ([{'text': '{"a quotation"} and so on\n'}], [])
    for value in None, ['a'], {'b': 1}:
        refused('text is .*, not a text', text_of, {'text': value, 'n': 1})
