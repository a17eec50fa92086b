"""Streams leave out what is held out; words, messages and lines for other tests."""
import gzip
import hashlib

from conftest import read_rows, refused, with_each, write
from hypothesis import strategies as st

from extras.text.streaming import Stream
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
    """A copy of this folder of pairs whose every second line is a single answer: now the better one,
    up, now the worse one, down."""
    for side in ('train', 'val'):
        rows = read_rows(f'{pairs}/{side}.jsonl')
        for i in range(1, len(rows), 2):
            is_better = i % 4 == 1
            rows[i] = {'prompt': rows[i]['prompt'], 'label': is_better,
                       'completion': rows[i]['chosen' if is_better else 'rejected']}
        write(f'{folder}/{side}.jsonl', rows)


# --- streams --------------------------------------------------------------------------------------
def taken(path, n_tokens, held_out_to=None):
    """The first documents of a stream, up to so many bytes."""
    stream = Stream(str(path), 0, 1, BYTES, {'held_out_to': held_out_to})
    ids = stream.take(1, n_tokens)[0].tolist()
    return BYTES.decode(ids).split('<|endoftext|>')[:-1]


@with_each('text', ['short', 'é漢🦜 ' * 3])
def test_a_document_is_held_out_if_its_hash_is_at_most_that_of_the_split(text):
    path = write('a.jsonl', [{'text': text}])
    border = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')
    for held_out_to in border - 1, None:
        assert {*taken(path, 99, held_out_to)} == {text}
    refused('all are held out', taken, path, 9, border)


def test_weights_of_a_mixture_are_refused_because_a_stream_reads_each_source_once():
    path = write('a.jsonl', [{'text': 'a'}])
    meta = lambda passes: {'sources': {'a': {'weight': 50, 'passes': 1.0}, 'b': {'weight': 7, 'passes': passes}}}
    Stream(str(path), 0, 1, BYTES, meta(1.0))
    refused("weights={'b': 7} of the data .* leave --streaming out", Stream, str(path), 0, 1, BYTES, meta(0.5))


def test_a_line_without_a_text_and_a_damaged_shard_are_refused_by_name(tmp_path):
    for odd in b'{oops', b'["x"]', b'3', b'{"body": "no"}', b'{"text": 3}', b'', b'null', b'{"text": "\xff"}':
        (tmp_path / 'a.jsonl').write_bytes(b'{"text": "a"}\n' + odd + b'\n')
        assert taken(tmp_path, 1) == ['a']
        refused('a.jsonl cannot be read.*each line must be', taken, tmp_path, 9)
    (tmp_path / 'a.jsonl').unlink()
    data = gzip.compress(b'{"text": "a"}\n' * 9)
    (tmp_path / 'a.jsonl.gz').write_bytes(data)
    assert taken(tmp_path, 20)[:9] == ['a'] * 9
    (tmp_path / 'a.jsonl.gz').write_bytes(data[:-9])
    refused('a.jsonl.gz cannot be read', taken, tmp_path, 100)
