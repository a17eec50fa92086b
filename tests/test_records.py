"""Words, messages and lines for other tests."""
from conftest import read_rows, thumbs_of, write
from hypothesis import strategies as st

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


def ever_shorter(messages):
    """A conversation, and what is left of it as older turns go: behind its system messages, it begins with
    one of its questions. A question is one or several messages in a row of a user."""
    n = next((i for i, message in enumerate(messages) if message['role'] != 'system'), len(messages))
    system, rest = messages[:n], messages[n:]
    questions = [i for i in range(1, len(rest)) if rest[i]['role'] == 'user' != rest[i - 1]['role']]
    return [system + rest[i:] for i in (0, *questions)]


def mixed_with_thumbs(pairs, folder):
    """A copy of this folder of pairs whose every second line is a single answer, some good and some bad."""
    for side in ('train', 'val'):
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    return folder
