"""
Tokenizers: text <-> token ids. Byte-level BPE (with training), bytes, or characters.

    python tokenizer.py --input=FOLDER --vocab_size=32768 --out=tokenizer.json

This trains BPE on the text in FOLDER and writes one JSON file. With --input=stdlib, Python's
standard library, you should see 4.7 bytes/token: the text has 4.7 times as many bytes as tokens.

Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; with bytes as the alphabet: GPT-2, 2019):
1. A regex splits text into chunks: words, numbers, symbols, indentation. No token crosses a chunk
   boundary. Otherwise `dog.`, `dog!` and `dog?` would become three tokens, which a model learns
   separately. Chunks also save time, because training merges each distinct chunk only once.
2. Every chunk starts as its UTF-8 bytes. Each byte is a token, so any text can be encoded.
3. Training repeats: count adjacent pairs of tokens; merge the most frequent pair into a new token.
4. Encoding applies the merges to a text in the order in which training learned them.

Ids: the 256 bytes, then the merges in order, then the special tokens, which encode() never returns.
The vocabulary decides how many tokens a text costs and how much text fits into a context.

You can copy this file alone. Importing it needs numpy, regex and tiktoken; the command above also
needs configurator.py and files.py. Training 32,768 tokens on --input=stdlib takes 8 seconds of one
core.
python -m extras.training.tokenizer_report --input=FOLDER compares the trained tokenizer with those
of GPT-2 and GPT-4.
"""
import codecs, collections, functools, hashlib, heapq, json, math, operator, os, pathlib
import numpy as np
import regex, tiktoken

# Each alternative matches one type of chunk, and the first alternative that matches wins. These are
# the chunks of 'f(x):\n    x + 1234', and below each chunk the number of its alternative:
#     'f'  '(x'  '):\n    '  'x'  ' +'  ' '  '123'  '4'
#      1    1     3           1    3     6    2      2
# Python code needs fewer tokens with this pattern than with the patterns of GPT-2 and cl100k,
# because symbols, a newline and its indentation are one chunk (docs/log.md). \p{M} are combining
# marks, such as the vowels of Hindi and Thai; GPT-2 splits words before them. {1,256} is bounded,
# because a million spaces would overflow the stack of tiktoken's regex engine.
PATTERN = '|'.join([
    # 1: a word and the space or symbol before it: `.join`. Persian has zero-width (non-)joiners.
    r'[^\r\n\p{L}\p{N}]?[\p{L}\p{M}][\p{L}\p{M}\u200c\u200d]*',
    r'[\p{N}]{1,3}',                        # 2: up to three digits
    r' ?[^\s\p{L}\p{N}]+(?:\r?\n[ \t]*)*',  # 3: symbols; newlines and indentation after them
    r'\s{0,256}\n[ \t]*',                   # 4: a newline, and the spaces before and after it
    r'\s{1,256}(?!\S)',                     # 5: spaces, except the last one before a word or symbol
    r'\s{1,256}'])                          # 6: a space before a digit, a tab before a symbol
# In a vocabulary below 16,384 tokens, a word's chunk may begin with a space, but not with a symbol:
# '(' and 'x' are two chunks. Otherwise `(name` and ` name` are different tokens, and a small model
# that was trained on `(name` misspells ` name` (docs/log.md). With 32,768 tokens, chunks such as
# `(name` save 8% of the tokens of code.
SMALL_PATTERN = PATTERN.replace(r'[^\r\n\p{L}\p{N}]?', ' ?', 1)
BYTES = [bytes([b]) for b in range(256)]
GAP = -1                        # id between words, and at positions that a merge has freed

SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|pad|>', '<|mask|>',
                  '<|tool_call|>', '<|tool_result|>',
                  '<|fim_prefix|>', '<|fim_middle|>', '<|fim_suffix|>',     # reserved
                  *(f'<|span_{i}|>' for i in range(54))]        # T5's sentinels; 64 tokens in all


class UserError(ValueError):
    """An error that the user can fix. Our scripts print its message without a traceback."""


# JSON stores text, not bytes. As in GPT-2, each byte becomes a visible character: a byte that is
# visible in Latin-1 becomes itself, and the other 68 bytes become U+0100 to U+0143.
INVISIBLE = [b for b in range(256) if b == ord(' ') or not chr(b).isprintable()]
BYTE_TO_CHAR = {b: chr(256 + INVISIBLE.index(b) if b in INVISIBLE else b) for b in range(256)}
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def printable(data):
    """Return bytes as visible characters: b' a\\n' -> 'ĠaĊ'"""
    return ''.join(BYTE_TO_CHAR[b] for b in data)


def from_printable(text):
    """Return visible characters as bytes: 'ĠaĊ' -> b' a\\n'"""
    return bytes(CHAR_TO_BYTE[c] for c in text)


def to_utf8(text):
    """Encode a str as UTF-8. A lone surrogate becomes U+FFFD, as in tiktoken."""
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').encode()


# --- byte-pair encoding ---------------------------------------------------------------------------
def count_chunks(texts, pattern=PATTERN):
    """Count the chunks of the texts: ['a b a'] -> {'a': 1, ' b': 1, ' a': 1}"""
    counts = collections.Counter()
    for text in texts:
        counts.update(regex.findall(pattern, text))
    return counts


def learn_merges_slowly(words, counts, n_merges):
    """Train byte-pair encoding. Read this function first: learn_merges() is a fast version of it.

    words: chunks as bytes; counts: how often each chunk occurs in the corpus. Return up to n_merges
    pairs of token ids, in the order of training, and the number of tokens that the corpus then has.

        learn_merges_slowly([b'low', b'lower', b'lowest'], [1, 1, 1], 3)
        == ([(108, 111), (256, 119), (257, 101)], 6)

        l o w   l o w e r   l o w e s t     l o and o w occur 3 times, w e twice, e r, e s, s t once
        lo w    lo w e r    lo w e s t      (108, 111) is l o. Now lo w occurs 3 times
        low     low e r     low e s t       (256, 119) is lo w. Now low e occurs twice
        low     lowe r      lowe s t        (257, 101) is low e. 14 bytes have become 6 tokens"""
    words, merges = [list(word) for word in words], []          # a byte is its own id
    while len(merges) < n_merges and any(len(word) > 1 for word in words):
        # 1. Count all adjacent pairs.
        frequency = collections.Counter()
        for word, n in zip(words, counts):
            for pair in zip(word, word[1:]):
                frequency[pair] += n
        # 2. Merge the most frequent pair. Ties: the pair with the smaller ids, so that the order of
        # the texts does not change the result.
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        for word in words:      # from left to right: a a a becomes aa a
            for i in range(len(word) - 1):
                if word[i:i + 2] == [*best]:
                    word[i:i + 2] = [256 + len(merges)]
        merges.append(best)                         # 3. Repeat.
    return merges, sum(n * len(word) for word, n in zip(words, counts))


def learn_merges(words, counts, n_merges):
    """Return the same as learn_merges_slowly(), but in seconds instead of days for 10 MB of text.
    learn_merges_slowly() counts all pairs before each merge. This function counts all pairs once,
    and after each merge only the new pairs next to the merged tokens.

    One array holds the ids of all words, so numpy merges all occurrences of a pair at once. A merge
    replaces the pair's right token by GAP: l o w becomes lo GAP w. A linked list of positions skips
    the gaps, and a heap keeps the most frequent pair on top, so no search is needed."""
    # a gap before, between and after the words; a byte is its own id
    ids = np.frombuffer(b'\0'.join([b'', *words, b'']), np.uint8).astype(np.int64)
    lengths = [len(word) + 1 for word in words]
    ids[np.cumsum([0, *lengths])] = GAP
    weight = np.repeat([0, *counts], [1, *lengths])     # count of each position's word
    before, after = np.arange(len(ids)) - 1, np.arange(len(ids)) + 1
    heap, merges = [], []       # heap of (-count, pair as a number, positions of its left token)

    def push(positions):
        """Count the pairs whose left tokens are at these positions, and push them on the heap."""
        positions = positions[(ids[positions] != GAP) & (ids[after[positions]] != GAP)]
        pairs = ids[positions] << 32 | ids[after[positions]]
        order = np.argsort(pairs, kind='stable')
        pairs, positions = pairs[order], positions[order]
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        sums = np.add.reduceat(weight[positions], first).tolist()
        for n, pair, group in zip(sums, pairs[first].tolist(), np.split(positions, first[1:])):
            heapq.heappush(heap, (-n, pair, group))

    push(np.arange(len(ids) - 1))
    while len(merges) < n_merges and heap and heap[0][0] < 0:       # a pair is left
        # 1. Pop the most frequent pair; ties: the pair with the smaller ids. Its count may be
        # outdated, because later merges may have replaced its tokens. So count again, and if the
        # count has dropped, push the pair back. A count never rises: all occurrences of a pair
        # appear at once, when a merge creates the newer of its two tokens.
        n, pair, positions = heapq.heappop(heap)
        left, right = pair >> 32, pair & 0xffffffff
        positions = positions[(ids[positions] == left) & (ids[after[positions]] == right)]
        count = int(weight[positions].sum())
        if count < -n:
            heapq.heappush(heap, (-count, pair, positions))
            continue
        # 2. Merge the pair. In a run such as a a a, the pair (a, a) occurs at positions 0 and 1,
        # which overlap. The run becomes aa a: only the even occurrences of each run are merged.
        if left == right:
            number = np.arange(len(positions))
            is_first = before[positions] != np.append(GAP, positions[:-1])
            positions = positions[(number - np.maximum.accumulate(number * is_first)) % 2 == 0]
        rights = after[positions]
        left_neighbors, right_neighbors = before[positions], after[rights]
        ids[positions], ids[rights] = 256 + len(merges), GAP
        after[positions], before[right_neighbors] = right_neighbors, positions
        push(np.append(left_neighbors, positions))
        merges.append((left, right))                            # 3. Repeat.
    return merges, int(weight[ids != GAP].sum())


def encode_chunk(chunk, ranks):
    """Return the ids of a chunk. ranks: token -> id. Merge the adjacent pair that was learned first
    (its token has the lowest id) until no pair is a token. If training has made 256 = lo, 257 = low
    and 258 = er, then `lower` becomes 257 258:

        l o w e r       l + o is 256, e + r is 258: the lower id is merged
        lo w e r        lo + w is 257, e + r is 258
        low e r         e + r is 258
        low er          low + er is no token

    This equals applying the merges 256, 257, 258, ... one after the other, as training did, because
    a merge creates only pairs with its own token, and those have higher ids.
    This function is for reading; Tokenizer.encode calls tiktoken, which does the same in Rust."""
    pieces = [bytes([b]) for b in to_utf8(chunk)]
    while True:
        merged = [*map(operator.add, pieces, pieces[1:])]
        best = min(range(len(merged)), key=lambda i: ranks.get(merged[i], math.inf), default=None)
        if best is None or merged[best] not in ranks:
            return [ranks[piece] for piece in pieces]
        pieces[best:best + 2] = [merged[best]]


# --- the tokenizer --------------------------------------------------------------------------------
def check_messages(messages):
    """Return [(role, content), ...], or raise UserError for a message without role or content."""
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        role, content = fields.get('role'), fields.get('content')
        if role not in ('system', 'user', 'assistant', 'tool') or not isinstance(content, str):
            raise UserError('a message needs a role (system, user, assistant, tool) and a content '
                          f'string, not {message}')
    return [(message['role'], message['content']) for message in messages]


class Tokenizer:
    """Text <-> token ids. Make one with train(), byte(), char() or load()."""

    def __init__(self, kind, vocab, special_tokens=(), pattern=PATTERN, bytes_per_token=None):
        self.kind = kind            # 'bpe' (also for bytes: BPE without merges), 'char' or 'hf'
        self.vocab = vocab          # vocab[i] is token i as bytes, without the special tokens
        self.pattern = pattern
        self.bytes_per_token = bytes_per_token      # on its training text; None: not trained
        names = dict.fromkeys(special_tokens)
        self.special = {name: len(vocab) + i for i, name in enumerate(names)}
        self.vocab_size = len(vocab) + len(names)
        self.all_bytes = [*vocab, *(name.encode() for name in names)]
        # Number of text bytes of each id, 0 for a special token.
        self.text_bytes = [len(token) for token in vocab] + [0] * len(names)
        # Lists of ids. begin: the document separator, which also starts each prompt. first: the
        # ids of an empty prompt. stop: the ids that end an answer; stop[-1] ends a turn of a chat.
        ids_of = lambda name: [self.special[name]] if name in names else []
        self.begin = ids_of('<|endoftext|>')
        self.first = self.begin or [vocab.index(b'\n') if b'\n' in vocab else 0]
        self.stop = self.begin + ids_of('<|im_end|>')
        self.ranks = {token: i for i, token in enumerate(vocab)}    # lower ids merge first

    @classmethod
    def train(cls, texts, vocab_size, special_tokens=SPECIAL_TOKENS, pattern=None):
        """Train BPE on an iterable of str, which is read once. vocab_size counts bytes, merges and
        special tokens. pattern: None = PATTERN, or SMALL_PATTERN if vocab_size is below 16,384.
        The order of the texts does not change the result."""
        texts = [texts] if isinstance(texts, str) else texts
        smallest = 256 + len({*special_tokens})
        if vocab_size < smallest:
            raise UserError(f'{vocab_size=} is too small: bytes and special tokens need {smallest}')
        if not pattern:
            pattern = PATTERN if vocab_size >= 16_384 else SMALL_PATTERN
        elif regex.compile(pattern).groups:         # findall would return groups, not chunks
            raise UserError('pattern must not have capturing groups; write (?:...)')
        else:
            pattern += r'|[\s\S]'   # a character that the pattern doesn't match is one chunk
        chunk_counts = count_chunks(texts, pattern)
        if not chunk_counts:
            raise UserError('there is no text to train a tokenizer on')
        words = [to_utf8(chunk) for chunk in chunk_counts]
        counts = list(chunk_counts.values())
        pairs, n_tokens = learn_merges(words, counts, vocab_size - smallest)

        vocab = [*BYTES]
        for left, right in pairs:
            vocab.append(vocab[left] + vocab[right])
        n_bytes = sum(n * len(word) for word, n in zip(words, counts))
        tokenizer = cls('bpe', vocab, special_tokens, pattern, n_bytes / n_tokens)
        if tokenizer.vocab_size < vocab_size:
            print(f'note: the text has only {len(pairs):,} pairs to merge, so the vocabulary has '
                  f'{tokenizer.vocab_size:,} tokens, not {vocab_size:,}')
        return tokenizer

    @classmethod
    def byte(cls, special_tokens=()):
        """Return a byte-level tokenizer: the ids of a text are its UTF-8 bytes."""
        return cls('bpe', BYTES, special_tokens)

    @classmethod
    def char(cls, text, special_tokens=()):
        """Return a tokenizer of the characters in text, a str or an iterable of str, sorted."""
        characters = {c for part in text for c in part}
        return cls('char', [c.encode() for c in sorted(characters)], special_tokens)

    def suppressed_tokens(self, n_rows=0, prefix=b''):
        """Return the token ids to suppress when sampling: special tokens that occur only in
        prompts, such as <|im_start|> and <|mask|>, and ids from vocab_size to n_rows, the width of
        a model's logits. prefix: bytes that the next token must start with (token healing)."""
        suppressed = [id for id in self.special.values() if id not in self.stop]
        if prefix:
            suppressed = [id for id, token in enumerate(self.all_bytes)
                          if not self.text_bytes[id] or not token.startswith(prefix)]
        return suppressed + [*range(self.vocab_size, n_rows)]

    def encode(self, text):
        """Return the ids of a text. '<|endoftext|>' in a text is 13 plain characters."""
        if self.kind == 'char':
            try:
                return [self.ranks[c.encode()] for c in text]
            except KeyError as e:
                c = e.args[0].decode()
                raise UserError(f'{c!r} at position {text.index(c)} is not in the vocabulary of '
                              'this char tokenizer; byte and bpe encode any text') from None
        return self._tiktoken.encode_ordinary(text)     # ordinary: without special tokens

    def encode_batch(self, texts):
        """Return [encode(text) for text in texts], computed by tiktoken on all cores."""
        if self.kind == 'char':
            return [self.encode(text) for text in texts]
        return self._tiktoken.encode_ordinary_batch(list(texts), num_threads=os.cpu_count())

    def decode_bytes(self, ids):
        """Return the bytes of ids; a special token becomes its name. A token can be a part of a
        character, so the bytes may begin or end inside a character."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise UserError(f'ids {min(ids)} to {max(ids)} are not all in [0, {self.vocab_size})')
        return b''.join([self.all_bytes[i] for i in ids])

    def decode(self, ids):
        """Return the text of ids, with U+FFFD in place of invalid UTF-8."""
        return self.decode_bytes(ids).decode('utf-8', 'replace')

    def render(self, messages, add_generation_prompt=False):
        r"""Return the ids of a chat in ChatML, and its loss mask: 1 for the tokens of an assistant
        message and for its <|im_end|>. A user's hi and the assistant's yo become
            <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n
            0           0   0 0 0         0 0           0        0 1 1         0
        Header and content are encoded separately, so content can't merge with its header or forge a
        special token. The ids of messages[:-1] with add_generation_prompt are a prefix of the ids
        of messages, if the last message is an answer."""
        if not {'<|im_start|>', '<|im_end|>'} <= self.special.keys():
            raise UserError('chat needs <|im_start|> and <|im_end|>; this tokenizer lacks them')
        ids, mask = [], []
        for role, content in check_messages(messages):
            header = [self.special['<|im_start|>'], *self.encode(role + '\n')]
            body = [*self.encode(content), self.special['<|im_end|>']]
            tail = self.encode('\n')
            ids += header + body + tail
            mask += [0] * len(header) + [int(role == 'assistant')] * len(body) + [0] * len(tail)
        if add_generation_prompt:
            ids += [self.special['<|im_start|>'], *self.encode('assistant\n')]
            mask += [0] * (len(ids) - len(mask))
        return ids, mask

    def to_json(self):
        as_text = bytes.decode if self.kind == 'char' else printable
        return {'format': 'nanoparrot-tokenizer-1', 'kind': self.kind, 'pattern': self.pattern,
                'bytes_per_token': self.bytes_per_token, 'special_tokens': list(self.special),
                'vocab': [as_text(token) for token in self.vocab]}

    def save(self, path):
        """Write one JSON file, renamed to `path` at the end: a crash leaves the old file intact."""
        with open(f'{path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            json.dump(self.to_json(), f, ensure_ascii=False, indent=0)
        os.replace(f'{path}.tmp', path)

    @classmethod
    def load(cls, path, expected_hash=None):
        """Load a tokenizer that save() wrote, or Hugging Face's tokenizer.json. expected_hash: the
        hash in a checkpoint or meta.json; a tokenizer with another hash is refused."""
        try:
            d = json.loads(pathlib.Path(path).read_bytes())
            if 'added_tokens' in d:
                from extras.models.hf_tokenizer import HFTokenizer, read_chat_settings
                tokenizer = HFTokenizer(json.dumps(d), read_chat_settings(os.path.dirname(path)))
            else:
                kinds = {'nanoparrot-tokenizer-1': {'char': str.encode, 'bpe': from_printable}}
                as_bytes = kinds[d['format']][d['kind']]
                tokenizer = cls(d['kind'], [as_bytes(token) for token in d['vocab']],
                                d['special_tokens'], d['pattern'], d['bytes_per_token'])
        except ImportError:                 # extras/ or tokenizers is missing
            raise
        except Exception as e:              # any other JSON may fail at any line above
            why = 'no such file' if isinstance(e, FileNotFoundError) else f'{type(e).__name__}: {e}'
            raise UserError(f'{path} is not a tokenizer ({why}); copy the tokenizer.json of the '
                          'data or the run to this path; for Hugging Face, run AutoTokenizer.'
                          'from_pretrained(FOLDER).save_pretrained(FOLDER)') from e
        if expected_hash not in (None, tokenizer.hash):
            raise UserError(f'{path} is not the tokenizer with which this model was trained or '
                          'this data was prepared; replace it with that tokenizer.json')
        return tokenizer

    @property
    def hash(self):
        """16 hex digits that identify the mapping text -> ids, stored in data and checkpoints."""
        identity = {k: v for k, v in self.to_json().items() if k != 'bytes_per_token'}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_tiktoken(self):
        """Return a tiktoken.Encoding with the same ids."""
        if self.kind != 'bpe':
            raise UserError(f'tiktoken supports only byte-level BPE, not a {self.kind} tokenizer')
        return tiktoken.Encoding('nanoparrot', pat_str=self.pattern, mergeable_ranks=self.ranks,
                                 special_tokens=self.special)

    _tiktoken = functools.cached_property(to_tiktoken)      # built at first use


# --- an answer ------------------------------------------------------------------------------------
class Answer:
    """Encode a prompt (a str or messages), and decode the answer of at most n tokens, token by
    token.

    A prompt may end with `):`. If `):`, a newline and spaces are one token, the model has hardly
    ever seen `):` as a token of its own. So the last token of a str is removed from the prompt, and
    the first sampled token must start with the bytes of the removed token (token healing).
    Messages end in a special token and need no healing.

    stop_pattern: a regex; the answer stops before its first match. append() holds back a possible
    start of a match and an incomplete UTF-8 character until more tokens arrive. With 'END':
        token       'a'     ' E'    'AT'    'END'
        append()    'a'     ' '     'EAT'   ''"""

    def __init__(self, tokenizer, prompt, n, stop_pattern=''):
        self.tokenizer, self.pattern = tokenizer, stop_pattern or '(?!)'   # matches nowhere
        self.remaining = n      # tokens; 0: the answer is finished
        self.prefix = b''       # bytes of the first sampled token, see suppressed_tokens()
        self.text = ''          # the prompt's last character, for a look-behind, then the answer
        self.decode = codecs.getincrementaldecoder('utf-8')('replace').decode
        if isinstance(prompt, str):
            self.text = prompt[-1:]
            self.ids = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
            if len(self.ids) > 1 and tokenizer.text_bytes[self.ids[-1]]:
                *self.ids, last = self.ids
                self.prefix, self.remaining = tokenizer.all_bytes[last], n + 1
        else:
            self.ids, _ = tokenizer.render(prompt, add_generation_prompt=True)
        self.emitted = len(self.text)

    def append(self, id):
        """Append a sampled token. Return the new text of the answer that is not held back."""
        self.remaining -= 1
        data = self.tokenizer.decode_bytes([id])[len(self.prefix):]
        if id in self.tokenizer.stop:
            self.remaining, data = 0, b''
        self.text += self.decode(data, not self.remaining)
        self.prefix = b''
        # partial: a match may begin at the end of the text
        match = regex.search(self.pattern, self.text, pos=self.emitted, partial=self.remaining > 0)
        if match and not match.partial:
            self.remaining = 0
        begin, self.emitted = self.emitted, match.start() if match else len(self.text)
        return self.text[begin:self.emitted]


# --- the command ----------------------------------------------------------------------------------
input = 'stdlib'                # text: stdlib, a file, folder or glob, as clean.py's --source
vocab_size = 32_768             # bytes + merges + special tokens
out = 'tokenizer.json'          # path of the trained tokenizer

if __name__ == '__main__':
    from configurator import configure, require_writable
    from files import find_files, read, shown
    configure(globals(), {'vocab_size': (256 + len(SPECIAL_TOKENS), 1e6)})
    require_writable(out)
    paths, skipped = find_files(input)
    counts = collections.Counter()      # {reason or change: documents}

    def text_of(document):
        """Return a document's text, or '' to skip it. Print the first path of each count."""
        error = document['error']
        found = {f'skipped: {error}': 1} if error else document['changes']
        for name in sorted(found.keys() - counts.keys()):
            print(f'{name}, first {document["path"]}')
        counts.update(found.keys())
        return '' if error else document['text']

    tokenizer = Tokenizer.train((text_of(d) for path in paths for d in read(path)), vocab_size)
    tokenizer.save(out)
    print(f'{out}: {tokenizer.vocab_size:,} tokens, {tokenizer.bytes_per_token:.2f} bytes/token, '
          f'{tokenizer.hash}; skipped or changed: {shown(counts)}; skipped files: {shown(skipped)}')
