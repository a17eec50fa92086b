"""Each form of chats, pairs, tables and packed files keeps its meaning, or is refused by name."""
import bz2
import collections
import csv
import gzip
import io
import json
import lzma
import random
import re
import sys

import pytest
from conftest import refused
from preparing import RAW, as_text, line_of, prepare, records, report, write_records

from extras import formats
from extras.records import read

# A record, and what prepare.py makes of it, with the columns that it counts as not used; or why it
# refuses the record.
CONVERSATIONS = r'''
{"instruction": "a", "input": "b", "output": "c"}
-> user: a\n\nb | assistant: c
{"instruction": "c", "output": "d", "history": [["a", "b"]]}
-> user: a | assistant: b | user: c | assistant: d
{"instruction": "When?", "context": "In 1932.", "response": "1932.", "category": "qa"}
-> user: When?\n\nIn 1932. | assistant: 1932. | unused: category
{"id": "cot.1", "system_prompt": "s", "question": "a", "response": "b"}
-> system: s | user: a | assistant: b | unused: id
{"title": "t", "context": "c", "question": "q", "answers": {"text": ["x", "y"],
 "answer_start": [1, 2]}}
-> user: q\n\nc | assistant: x | unused: title
{"question": "a", "answer": ["b", "B"]}
-> user: a | assistant: b
{"instruction": "a", "question": "q", "response": "b"}
-> user: a | assistant: b | unused: question
{"conversations": [{"from": "system", "value": ""}, {"from": "gpt", "value": "x"},
 {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
-> user: a | assistant: b
{"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b
{"prompt": "a", "completion": "b", "label": true}
-> user: a | assistant: b | unused: label
{"prompt": "a", "completion": "b", "label": false}
-> refused: thumb down
{"conversations": [{"from": "developer", "value": "s"}, {"from": "Human", "value": "a"},
 {"from": "gpt", "value": "b"}]}
-> system: s | user: a | assistant: b
{"conversation": [{"role": "prompter", "content": "a"}, {"role": "Bing", "content": "b"}]}
-> user: a | assistant: b
{"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}
-> user: a | assistant: b | user: c | assistant: d
{"id": "0", "data": ["a", "b", "c", "d"]}
-> user: a | assistant: b | user: c | assistant: d | unused: id
{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
 "completion": [{"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b
{"messages": [{"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a"}, "b"]},
 {"role": "assistant", "content": "c"}]}
-> user: a\nb | assistant: c | unused: messages.name
{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"},
 {"role": "assistant", "content": "c"}]}
-> user: a\n\nb | assistant: c
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b",
 "tool_calls": []}, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "c"}]}
-> user: a | assistant: b | tool: t | assistant: c
{"system": "x", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b
{"system": "s", "messages": [{"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
 {"role": "user", "content": "c"}]}
-> system: s | user: a | assistant: b
{"messages": [], "instruction": null, "prompt": "a", "output": null, "answer": "b", "data": "2024"}
-> user: a | assistant: b | unused: data
{"title": "ChatGPT's export is a tree", "current_node": "4", "mapping": {"1": {"message": null,
 "parent": null}, "2": {"message": {"author": {"role": "system"}, "content": {"parts": [""]}},
 "parent": "1"}, "3": {"message": {"author": {"role": "user"}, "content": {"parts": ["a"]}},
 "parent": "2"}, "old": {"message": {"author": {"role": "assistant"},
 "content": {"parts": ["was edited"]}}, "parent": "3"},
 "4": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["b"]}}, "parent": "3"}}}
-> user: a | assistant: b
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "",
 "tool_calls": [{"id": 1}]}]}
-> refused: calls a tool
{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]}
-> refused: calls a tool
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
-> refused: "weight": 0
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": false}]}
-> refused: "train": false
{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "loss": false}]}
-> refused: "loss": false
{"messages": [{"role": "narrator", "content": "a"}]}
-> refused: the role 'narrator'; known are user
{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
 {"role": "assistant", "content": "b"}]}
-> refused: of user is not text
{"messages": {"a": 1}}
-> refused: no list
{"messages": [3]}
-> refused: a message is 3
{"mapping": {"1": null}, "current_node": "1"}
-> refused: AttributeError
{"mapping": 3}
-> refused: its mapping is 3
["a"]
-> refused: not an object
{"instruction": "a", "input": 5, "output": "b"}
-> refused: question is no text
{"instruction": "a", "output": null}
-> refused: of assistant is not text
{"prompt": "a", "answer": "b", "history": [["x"]]}
-> refused: "history" must be a list of pairs
{"prompt": "a", "answer": "b", "system": 3}
-> refused: system message
{"text": "a"}
-> refused: no messages, conversations, or instruction and output, only: text
'''
PAIRS = r'''
{"messages": [], "instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}
-> user: a\n\nb | chosen: c | rejected: d
{"instruction": "c", "history": [["a", "b"]], "chosen": "d", "rejected": "e"}
-> user: a | assistant: b | user: c | chosen: d | rejected: e
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
-> user: a | chosen: b | rejected: c
{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d\n\ne",
 "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: f"}
-> user: a | assistant: b | user: c | chosen: d\n\ne | rejected: f
{"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": "d", "rejected": "e"}
-> user: a | assistant: b | user: c | chosen: d | rejected: e
{"instruction": "Human: a", "input": "b", "chosen": "c", "rejected": "d", "system": " "}
-> user: Human: a\n\nb | chosen: c | rejected: d
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "", "score_chosen": "3", "score_rejected": 1}
-> user: a | chosen: b | rejected: c | margin: 2.0
{"prompt": "Human: a\n\nAssistant:", "completion": "b", "label": true}
-> user: a | completion: b | label: true
{"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"},
 "rejected": {"from": "gpt", "value": "c"}}
-> user: a | chosen: b | rejected: c
{"system": "s", "prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}
-> system: s | user: a | chosen: b | rejected: c
{"prompt": [{"role": "user", "content": "a"}],
 "chosen": [{"role": "assistant", "content": "b"}, {"role": "tool", "content": "c"},
 {"role": "assistant", "content": "d"}], "rejected": [{"role": "assistant", "content": "b"},
 {"role": "tool", "content": "c"}, {"role": "assistant", "content": "e"}]}
-> user: a | assistant: b | tool: c | chosen: d | rejected: e
{"chosen": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}
-> assistant: x | user: a | chosen: b | rejected: c
{"system": "s", "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "a"}],
 "chosen": "b", "rejected": "c"}
-> system: s | user: a | chosen: b | rejected: c
{"prompt": "a", "chosen": [{"user": "", "assistant": ""}, {"user": "", "assistant": ""}],
 "rejected": "b"}
-> refused: needs a question and an answer
{"prompt": "a", "prompt_id": "1", "messages": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "chosen": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "c"}], "score_chosen": 8, "score_rejected": 5.5}
-> user: a | chosen: b | rejected: c | margin: 2.5 | unused: messages, prompt_id
{"source": "s", "instruction": "a", "completions": [{"response": "d", "overall_score": 5},
 {"response": "c", "overall_score": 2}, {"response": "b", "overall_score": 8.5}]}
-> user: a | chosen: b | rejected: c | margin: 6.5 | unused: source
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8, "score_rejected": 5,
 "margin": 0, "agreement": 0.75}
-> user: a | chosen: b | rejected: c | margin: 0.0 | agreement: 0.75
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8, "margin": null,
 "agreement": null}
-> user: a | chosen: b | rejected: c
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
 "label": "false"}
-> user: a | completion: b | label: false
{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
 "completion": "b", "label": 1}
-> system: s | user: a | completion: b | label: true
{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": 5, "rejected_rating": "4"}
-> user: a | chosen: b | rejected: c | margin: 1.0
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "", "score_chosen": "", "score_rejected": 1}
-> user: a | chosen: b | rejected: c
{"prompt": "q", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "chosen": "a", "rejected": "b"}
-> refused: needs a question and an answer
{"prompt": [{"role": "assistant", "content": "q"}], "chosen": "a", "rejected": "b"}
-> refused: needs a question and an answer
{"messages": "hi", "chosen": "a", "rejected": "b"}
-> refused: TypeError
{"prompt": "a", "completion": "b", "label": "up"}
-> refused: label is 'up'
{"prompt": "a", "chosen": "b"}
-> refused: no chosen and rejected
{"chosen": "b", "rejected": "c"}
-> refused: only: chosen, rejected
{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
 "rejected": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "c"}]}
-> refused: different prompts
{"instruction": "a", "completions": [{"response": "b", "overall_score": 3},
 {"response": "c", "overall_score": 3}]}
-> refused: no two different scores
{"prompt": "a", "chosen": {"x": 1}, "rejected": "c"}
-> refused: the role None
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "nan"}
-> refused: must be numbers
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": "good", "score_rejected": 1}
-> refused: must be numbers
'''


@pytest.mark.parametrize('kind, table', [('sft', CONVERSATIONS), ('preference', PAIRS)])
def test_each_form_keeps_its_meaning_or_is_refused_by_name(kind, table, tmp_path):
    expected, unused, reasons = [], collections.Counter(), {}
    for i, (record, words) in enumerate(re.findall(r'(?s:([{\[].*?))\n-> (.*)', table)):
        write_records(tmp_path / f'in/{i:02}.jsonl', [json.loads(record)])
        words, _, columns = words.partition(' | unused: ')
        unused.update(filter(None, columns.split(', ')))
        if words.startswith('refused: '):
            reasons[i] = words.removeprefix('refused: ')
        else:
            expected.append(line_of(words))
    out = tmp_path / 'out'
    prepare(out, tmp_path / 'in', f'--kind={kind}', *RAW)
    assert as_text(records(out)) == as_text(expected)
    made, page = report(out), (out / 'report.md').read_text('utf-8')
    for i, words in reasons.items():
        assert re.search(rf'/{i:02}.jsonl:1: .*{re.escape(words)}', page), words
    assert made['malformed'] == len(reasons)
    assert made['counts']['columns that were not used'] == unused


# --- files ----------------------------------------------------------------------------------------
ROWS = [{'text': f'row {i}: ' + 'ä漢\n"x", y; ' * (i % 4), 'id': f'{i}'} for i in range(900)]
LINES = ''.join(json.dumps(row) + '\n' for row in ROWS).encode()


def table(delimiter, encoding):
    f = io.StringIO(newline='')
    writer = csv.DictWriter(f, ['text', 'id'], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return f.getvalue().encode(encoding)


def arrived(path, data=None):
    """The records of a file, which is written first if there are data, and what is said of it."""
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    told = []
    return [record for _, record in read(str(path), lambda *place: told.append(place))], told


def test_packed_files_and_tables_are_records_and_a_cut_one_is_named(tmp_path):
    zstandard = pytest.importorskip('zstandard')
    half = LINES.index(b'\n', len(LINES) // 2) - 3          # two frames; the cut is within a line
    files = {'a.jsonl.gz': gzip.compress(LINES), 'a.jsonl.bz2': bz2.compress(LINES),
             'a.jsonl.xz': lzma.compress(LINES), 'a.csv.gz': gzip.compress(table(',', 'utf-8')),
             'a.jsonl.zst': b''.join(map(zstandard.compress, (LINES[:half], LINES[half:])))}
    for name, packed in files.items():
        assert arrived(tmp_path / name, packed) == (ROWS, []), name
        for damaged in packed[:-9], LINES:
            rows, told = arrived(tmp_path / name, damaged)
            assert rows == ROWS[:len(rows)] and told[0][0].startswith(str(tmp_path / name)), name
    assert arrived(tmp_path / 'excel.csv', table(';', 'utf-8-sig')) == (ROWS, [])
    assert arrived(tmp_path / 'a.tsv', table('\t', 'utf-16')) == (ROWS, [])


def test_a_row_of_a_table_that_has_other_cells_is_counted_and_the_next_ones_are_read(tmp_path):
    broken = 'text,id\ncafé,1\nb,2,3\n"c"x,3\n\nd,4\n'.encode('cp1252')
    rows, told = arrived(tmp_path / 'a.csv', broken)
    assert rows == [{'text': 'café', 'id': '1'}, {'text': 'd', 'id': '4'}]
    assert 'line 3 has 3 cells, and 2 columns have names' in told[0][1] and 'line 4' in told[1][1]
    rows, [told] = arrived(tmp_path / 'a.tsv', 'text\tn\na\t1\n"b\t2\nc\t3\n')
    assert rows == [{'text': 'a', 'n': '1'}] and 'line 3 to line 4 are lost' in told[1]
    rows, _ = arrived(tmp_path / 'a.csv', 'text\ncafé\nViel Spaß“\n'.encode('cp1252'))
    assert rows == [{'text': 'café'}, {'text': 'Viel Spaß“'}]
    late = 'text\n' + 'plain\n' * 20_000 + 'café\n'         # after what is looked at first
    rows, told = arrived(tmp_path / 'a.csv', late.encode('cp1252'))
    assert len(rows) == 20_001 and rows[-1] == {'text': 'café'} and not told
    # the index of pandas, and what Excel adds
    assert arrived(tmp_path / 'a.csv', ',text\n0,a\n') == ([{'column 1': '0', 'text': 'a'}], [])
    found = arrived(tmp_path / 'a.csv', 'sep=;\ntext;n;\na;1;\n')
    assert found == ([{'text': 'a', 'n': '1', 'column 3': ''}], [])
    for names in 'text,text\n1,2\n', 'text,,\n1,2\n', '\n':
        [told] = arrived(tmp_path / 'a.csv', names)[1]
        assert 'must name each column' in told[1]


def test_parquet_is_read_without_its_vectors_and_pictures(tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    rows = [{**row, 'n': None if i % 2 else i, 'meta': {'a': [f'{i}']}}
            for i, row in enumerate(ROWS)]
    others = {'vector': [0.5] * 64, 'ids': [[1]], 'picture': random.randbytes(99)}
    made = pyarrow.Table.from_pylist([{**row, **others} for row in rows])
    parquet.write_table(made, tmp_path / 'a.parquet')
    assert arrived(tmp_path / 'a.parquet') == (rows, [])
    rows, told = arrived(tmp_path / 'cut.parquet', (tmp_path / 'a.parquet').read_bytes()[:-9])
    assert not rows and 'cut.parquet' in told[0][0]


def test_a_notebook_is_its_text_and_its_code_without_what_it_printed(tmp_path):
    for notebook, text in {
            '''{"cells": [{"cell_type": "markdown", "source": ["# A\\n", "b"]},
                {"cell_type": "raw", "source": "no"}, {"cell_type": "code", "source": ""},
                {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "no"}]}]}''':
            '# A\nb\n\n```python\nx = 1\n```',
            '{"worksheets": [{"cells": [{"cell_type": "code", "input": ["y = 2"]}]}]}':
            '```python\ny = 2\n```'}.items():
        assert arrived(tmp_path / 'a.ipynb', notebook) == ([{'text': text}], [])
    for odd in '{"nbformat": 4}', '[]', '{"cells": null}', '':
        rows, [told] = arrived(tmp_path / 'a.ipynb', odd)
        assert not rows and 'a.ipynb' in told[0], odd


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    refused('pip install pyarrow', formats.open_file('a.parquet').read)
