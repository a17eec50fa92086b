"""Words and messages for other tests."""
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
