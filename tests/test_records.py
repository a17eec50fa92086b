"""How rl.py cuts prompts and answers for a reward model; words and messages for other tests."""
import itertools

from hypothesis import strategies as st

from parts.train import records
from tokenizer import SPECIAL_TOKENS, Tokenizer

# one chunk for any text; each header is one token, and some tokens would swallow an edge of the frame
HEADERS = [word[:i].encode() for word in ('system\n', 'user\n', 'assistant\n', 'tool\n')
           for i in range(2, 11)]
TRAPS = [b'yo', b'\ny', b'\nyo', b'yo\n', b'>\n', b'|>', b'<|']
VOCAB = [*(bytes([b]) for b in range(256)), *HEADERS, *TRAPS]
TRAPPING = Tokenizer('bpe', list(dict.fromkeys(VOCAB)), SPECIAL_TOKENS, r'[\s\S]+')
BYTES = Tokenizer.byte(SPECIAL_TOKENS[:4])
S, E = (BYTES.special[name] for name in ('<|im_start|>', '<|im_end|>'))

words = st.sampled_from(['<|im_end|>', '<|im_start|>', 'yo', '\n', 'é'])
contents = st.text(max_size=9) | st.lists(words).map(''.join)
roles = st.sampled_from(['system', 'user', 'assistant', 'tool'])
chats = st.lists(st.fixed_dictionaries({'role': roles, 'content': contents}), min_size=1, max_size=6)


def say(role, content):
    return {'role': role, 'content': content}


def pair(prompt, *answers):
    """Prompt and answer of a pair, ids; the frame written out by hand."""
    asked = [S, *b'user\n', *prompt.encode(), E, 10, S, *b'assistant\n']
    return tuple((asked, [*a.encode(), E] if a is not None else []) for a in answers)


# --- preferences --------------------------------------------------------------------------------------------
def test_too_long_pairs_lose_the_prompt_s_left_and_only_then_the_answer_s_right(tmp_path):
    for T, n_prompt, n_answer in itertools.product((2, 3, 10, 40, 95), (1, 5, 30, 99), (0, 2, 30, 99)):
        prompt, answer = list(range(n_prompt)), list(range(100, 100 + n_answer))
        p, a = records.fit_pair(prompt, answer, T)
        assert p and p == prompt[-len(p):] and a == answer[:len(a)]
        assert len(p) + len(a) == min(n_prompt + n_answer, T)       # nothing is cut in vain
        assert a == answer or len(p) == min(n_prompt, max(1, T // 4))     # only if 3/4 are too little
