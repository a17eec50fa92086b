"""Streams leave out what is held out, and damage costs what is damaged; words, messages and lines
for other tests."""
import gzip
import hashlib
import json

import pytest
from conftest import read_rows, refused, thumbs_of, write
from hypothesis import strategies as st

from extras.records import Stream
from tokenizer import SPECIAL_TOKENS, Tokenizer

# one chunk for any text; each header is one token, and some tokens would swallow an edge of the frame
HEADERS = [word[:i].encode() for word in ('system\n', 'user\n', 'assistant\n', 'tool\n')
           for i in range(2, 11)]
TRAPS = [b'yo', b'\ny', b'\nyo', b'yo\n', b'>\n', b'|>', b'<|']
VOCAB = [*(bytes([b]) for b in range(256)), *HEADERS, *TRAPS]
TRAPPING = Tokenizer('bpe', list(dict.fromkeys(VOCAB)), SPECIAL_TOKENS, r'[\s\S]+')
BYTES = Tokenizer.byte(SPECIAL_TOKENS[:4])

words = st.sampled_from(['<|im_end|>', '<|im_start|>', 'yo', '\n', 'é'])
contents = st.text(max_size=9) | st.lists(words).map(''.join)
roles = st.sampled_from(['system', 'user', 'assistant', 'tool'])
chats = st.lists(st.fixed_dictionaries({'role': roles, 'content': contents}), min_size=1, max_size=6)


def say(role, content):
    return {'role': role, 'content': content}


def mixed_with_thumbs(pairs, folder):
    """A copy of this folder of pairs whose every second line is a single answer, some good and some bad."""
    for side in ('train', 'val'):
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    return folder


# --- streams --------------------------------------------------------------------------------------
def taken(path, n_tokens, held_out_to=None):
    """The first documents of a stream, up to so many bytes."""
    stream = Stream(str(path), 0, 1, BYTES, held_out_to)
    ids = stream.take(1, n_tokens)[0].tolist()
    return BYTES.decode(ids).split('<|endoftext|>')[:-1]


@pytest.mark.parametrize('text', ['short', 'é漢🦜 ' * 3, 'half \ud800'])
def test_a_document_is_held_out_if_its_hash_is_at_most_that_of_the_split(tmp_path, text):
    path = write(tmp_path / 'a.jsonl', [{'text': text}, {'text': 'x', 'path': 'text'}])
    data = text.encode('utf-8', 'surrogatepass')
    border = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')
    x = int.from_bytes(hashlib.blake2b(b'x', digest_size=8).digest(), 'big')
    for held_out_to in border, border - 1, None:
        left = [some for some, number in ((text, border), ('x', x))
                if held_out_to is None or number > held_out_to]
        if left:
            assert {*taken(path, 99, held_out_to)} == {t.replace('\ud800', '\ufffd') for t in left}
    refused('all are held out', taken, path, 9, 2 ** 64)


def test_every_usual_name_is_read_and_a_line_that_is_no_record_is_skipped(tmp_path):
    rows = [json.dumps({name: name, 'title': 'no'}) for name in (
        'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code')]
    odd = ['{oops', '[' * 100_000, '["x"]', '3', '{"text": 3}', '{"body": "no"}', '', '{"text": " "}']
    lines = '\n'.join(sum(map(list, zip(rows, odd)), []) + odd).encode() + b'\n{"text": "\xff"}\n'
    data = gzip.compress(lines)
    (tmp_path / 'a.jsonl.gz').write_bytes(data + gzip.compress(b'{"text": "end"}\n')[:-9])
    names = taken(tmp_path, 200)
    assert names[:6] == [json.loads(row)['title'] == 'no' and next(iter(json.loads(row)))
                         for row in rows]
    assert {*names[6:]} <= {*names[:6], 'end'}
