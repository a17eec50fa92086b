"""
Tokenizers: text <-> token ids. Byte-level BPE with its trainer, single bytes, single characters.

    python tokenizer.py --input=FOLDER --vocab_size=32768 --out=tokenizer.json

It reads text and writes one JSON file. With --input=stdlib, Python's standard library, you should
see 4.7 bytes/token: that text has 4.7 times as many bytes as tokens.

Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; with bytes as the alphabet: GPT-2, 2019):
1. A regex cuts text into chunks: words, numbers, symbols, indentation. No token crosses an edge of
   a chunk. Otherwise `dog.`, `dog!` and `dog?` would become three tokens, and a model would learn
   each by itself. Chunks also save time, because training merges each different one only once.
2. Every chunk starts as its UTF-8 bytes. Each byte is a token, so any text can be encoded.
3. Training repeats: count adjacent pairs of tokens; make the most frequent pair the next token.
4. Encoding a text replays the merges in the order in which they were learned.

Ids: the 256 bytes, then the merges in order, then the special tokens, which encode() never returns.
The vocabulary decides how many tokens a text costs and how much text fits into a context.

Copy this file alone: it needs numpy, regex and tiktoken, and its command configurator.py and
files.py. 32,768 tokens of --input=stdlib take 8 seconds of one core. `python -m
extras.training.tokenizer_report --input=FOLDER` compares a tokenizer with those of GPT-2 and GPT-4.
"""
import codecs, collections, functools, hashlib, heapq, json, math, operator, os, pathlib
import numpy as np
import regex, tiktoken

# Each line matches one kind of chunk, and the lines are tried from top to bottom. Here are the
# chunks of 'f(x):\n    x + 1234', and below each one the number of the line that matched it:
#     'f'  '(x'  '):\n    '  'x'  ' +'  ' '  '123'  '4'
#      1    1     3           1    3     6    2      2
# Python code needs fewer tokens with this pattern than with those of GPT-2 and cl100k, because
# symbols, a newline and the indentation after it are one chunk (docs/log.md). \p{M} are the marks
# that follow their letter, such as the vowels of Hindi and Thai, before which GPT-2 cuts. {1,256}
# has a bound, because a million spaces would overflow the stack of tiktoken's regex engine.
PATTERN = '|'.join([
    # 1: a word and the space or symbol before it: `.join`. Joiners are a part of words of Persian.
    r'[^\r\n\p{L}\p{N}]?[\p{L}\p{M}][\p{L}\p{M}\u200c\u200d]*',
    r'[\p{N}]{1,3}',                        # 2: up to three digits
    r' ?[^\s\p{L}\p{N}]+(?:\r?\n[ \t]*)*',  # 3: symbols; newlines and indentation after them
    r'\s{0,256}\n[ \t]*',                   # 4: a newline, and the spaces before and after it
    r'\s{1,256}(?!\S)',                     # 5: spaces, except the last one before a word or symbol
    r'\s{1,256}'])                          # 6: a space before a digit, a tab before a symbol
# In a vocabulary below 16,384, only a space joins a word: '(' and 'x' are two chunks. A model that
# has read `(name` must often write ` name`. These are other tokens, and our small model copied such
# names wrongly (docs/log.md). With 32,768 tokens we keep the symbols: code then needs 8% fewer.
SMALL_PATTERN = PATTERN.replace(r'[^\r\n\p{L}\p{N}]?', ' ?', 1)
BYTES = [bytes([b]) for b in range(256)]
GAP = -1                        # between two words, and where a merge has taken a byte away

SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|pad|>', '<|mask|>',
                  '<|tool_call|>', '<|tool_result|>',
                  '<|fim_prefix|>', '<|fim_middle|>', '<|fim_suffix|>',     # for models of yours
                  *(f'<|span_{i}|>' for i in range(54))]        # T5's hidden spans; 64 in all


class UserError(ValueError):
    """What a user can put right: our scripts print it as a sentence, without a traceback."""


# GPT-2 writes each byte as one visible character, because JSON holds text. Latin-1's visible
# characters stand for themselves; the other 68 bytes become U+0100 and the characters after it.
OTHERS = [b for b in range(256) if b == ord(' ') or not chr(b).isprintable()]
BYTE_TO_CHAR = {b: chr(256 + OTHERS.index(b) if b in OTHERS else b) for b in range(256)}
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def printable(data):
    """b' a\\n' -> 'ĠaĊ'"""
    return ''.join(BYTE_TO_CHAR[b] for b in data)


def from_printable(text):
    """'ĠaĊ' -> b' a\\n'"""
    return bytes(CHAR_TO_BYTE[c] for c in text)


def to_utf8(text):
    """Return the UTF-8 of a str. Half a character (a surrogate) becomes U+FFFD, as in tiktoken."""
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').encode()


# --- byte-pair encoding ---------------------------------------------------------------------------
def count_chunks(texts, pattern=PATTERN):
    """Count the chunks of some texts: ['a b a'] -> {'a': 1, ' b': 1, ' a': 1}"""
    counts = collections.Counter()
    for text in texts:
        counts.update(regex.findall(pattern, text))
    return counts


def learn_merges_slowly(words, counts, n_merges):
    """Learn byte-pair encoding. Read this function first; learn_merges() returns the same, fast.

    words: chunks as bytes; counts: how often each occurs in the corpus. Return at most n_merges
    pairs of token ids, in the order of learning, and how many tokens the corpus has in the end.

        learn_merges_slowly([b'low', b'lower', b'lowest'], [1, 1, 1], 3)
        == ([(108, 111), (256, 119), (257, 101)], 6)

        l o w   l o w e r   l o w e s t     l o and o w occur 3 times, w e twice, the others once
        lo w    lo w e r    lo w e s t      (108, 111) was l o. Now lo w occurs 3 times
        low     low e r     low e s t       (256, 119) was lo w. Now low e occurs twice
        low     lowe r      lowe s t        (257, 101) was low e. 14 bytes have become 6 tokens"""
    words, merges = [list(word) for word in words], []          # a byte is its own id
    while len(merges) < n_merges and any(len(word) > 1 for word in words):
        # 1. Count all adjacent pairs.
        frequency = collections.Counter()
        for word, n in zip(words, counts):
            for pair in zip(word, word[1:]):
                frequency[pair] += n
        # 2. Merge the most frequent pair. Of equally frequent pairs, the one with the smaller ids
        # wins, because the order of the texts must not decide.
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        for word in words:      # from left to right: a a a becomes aa a
            for i in range(len(word) - 1):
                if word[i:i + 2] == [*best]:
                    word[i:i + 2] = [256 + len(merges)]
        merges.append(best)                         # 3. Repeat.
    return merges, sum(n * len(word) for word, n in zip(words, counts))


def learn_merges(words, counts, n_merges):
    """Return what learn_merges_slowly() returns. To count all pairs before each merge would take
    days on 10 MB of text. Here pairs are counted once, and a merge counts only the new pairs around
    the places where it happened.

    Three things are different. All words are one array of ids, in which each place knows the place
    before and after it, so numpy merges all places of a pair at once. A merge turns the right place
    of the pair into a gap, which its neighbors skip: l o w becomes lo - w. And a heap keeps the
    most frequent pair on top, so nothing searches for it."""
    # a gap before, between and after the words; a byte is its own id
    ids = np.frombuffer(b'\0'.join([b'', *words, b'']), np.uint8).astype(np.int64)
    lengths = [len(word) + 1 for word in words]
    ids[np.cumsum([0, *lengths])] = GAP
    weight = np.repeat([0, *counts], [1, *lengths])     # how often the word of a place occurs
    before, after = np.arange(len(ids)) - 1, np.arange(len(ids)) + 1
    heap, merges = [], []       # on the heap: (-count, pair as a number, the places of its left id)

    def push(places):
        """Count the pairs whose left ids are at these places, and put each on the heap."""
        places = places[(ids[places] != GAP) & (ids[after[places]] != GAP)]
        pairs = ids[places] << 32 | ids[after[places]]
        order = np.argsort(pairs, kind='stable')
        pairs, places = pairs[order], places[order]
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        sums = np.add.reduceat(weight[places], first).tolist()
        for n, pair, its in zip(sums, pairs[first].tolist(), np.split(places, first[1:])):
            heapq.heappush(heap, (-n, pair, its))

    push(np.arange(len(ids) - 1))
    while len(merges) < n_merges and heap and heap[0][0] < 0:       # there is a pair
        # 1. The most frequent pair is on top; of equally frequent ones, the one with the smaller
        # ids. Since it was counted, other merges may have taken some of its places, so it is
        # counted again, and may sink. It never gains any: all places of a pair arise at once, when
        # the newer of its two tokens is made.
        n, pair, places = heapq.heappop(heap)
        left, right = pair >> 32, pair & 0xffffffff
        places = places[(ids[places] == left) & (ids[after[places]] == right)]
        now = int(weight[places].sum())
        if now < -n:
            heapq.heappush(heap, (-now, pair, places))
            continue
        # 2. Make it a token. A run such as a a a has the pair at two places that share an a, and
        # becomes aa a: of the places of each run, every second one, counted from 0, is merged.
        if left == right:
            number = np.arange(len(places))
            is_first = before[places] != np.append(GAP, places[:-1])
            places = places[(number - np.maximum.accumulate(number * is_first)) % 2 == 0]
        ends = after[places]
        front, behind = before[places], after[ends]
        ids[places], ids[ends] = 256 + len(merges), GAP
        after[places], before[behind] = behind, places
        push(np.append(front, places))
        merges.append((left, right))                            # 3. Repeat.
    return merges, int(weight[ids != GAP].sum())


def encode_chunk(chunk, ranks):
    """Return the ids of a chunk. ranks: token -> id. Merge the adjacent pair that was learned first
    (its token has the lowest id), then do so again, until no pair makes a token. If training has
    made the tokens 256 = lo, 257 = low and 258 = er, then `lower` becomes 257 258:

        l o w e r       l + o is 256, e + r is 258: the lower id is merged
        lo w e r        lo + w is 257, e + r is 258
        low e r         e + r is 258
        low er          low + er is no token

    This is the same as applying the merges 256, 257, 258, ... one after the other, as training did.
    A merge makes only pairs with its own token, and they were learned later than it.
    Read this function; Tokenizer.encode has tiktoken do the same, in Rust."""
    pieces = [bytes([b]) for b in to_utf8(chunk)]
    while True:
        merged = [*map(operator.add, pieces, pieces[1:])]
        best = min(range(len(merged)), key=lambda i: ranks.get(merged[i], math.inf), default=None)
        if best is None or merged[best] not in ranks:
            return [ranks[piece] for piece in pieces]
        pieces[best:best + 2] = [merged[best]]


# --- the tokenizer --------------------------------------------------------------------------------
def check_messages(messages):
    """Return the role and the content of each message, or refuse one that has none."""
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        role, content = fields.get('role'), fields.get('content')
        if role not in ('system', 'user', 'assistant', 'tool') or not isinstance(content, str):
            raise UserError('a message is a role (system, user, assistant, tool) and a content of '
                          f'text, not {message}')
    return [(message['role'], message['content']) for message in messages]


class Tokenizer:
    """Text <-> token ids. Make one with train(), byte(), char() or load()."""

    def __init__(self, kind, vocab, special_tokens=(), pattern=PATTERN, bytes_per_token=None):
        self.kind = kind            # 'bpe' (bytes are BPE without merges), 'char' or 'hf'
        self.vocab = vocab          # vocab[i] is token i as bytes; the special tokens follow
        self.pattern = pattern
        self.bytes_per_token = bytes_per_token      # of the text that trained it; None: untrained
        names = dict.fromkeys(special_tokens)
        self.special = {name: len(vocab) + i for i, name in enumerate(names)}
        self.vocab_size = len(vocab) + len(names)
        self.all_bytes = [*vocab, *(name.encode() for name in names)]
        # How many bytes of text each id stands for. A special token stands for none.
        self.text_bytes = [len(token) for token in vocab] + [0] * len(names)
        # Lists of ids. begin: the separator, which starts a document and ends the one before it.
        # first: what a model reads if there is no prompt. stop: what ends its answer; the last one
        # of them ends a turn of a chat.
        ids_of = lambda name: [self.special[name]] if name in names else []
        self.begin = ids_of('<|endoftext|>')
        self.first = self.begin or [vocab.index(b'\n') if b'\n' in vocab else 0]
        self.stop = self.begin + ids_of('<|im_end|>')
        self.ranks = {token: i for i, token in enumerate(vocab)}    # lower ids merge first

    @classmethod
    def train(cls, texts, vocab_size, special_tokens=SPECIAL_TOKENS, pattern=None):
        """Train BPE on an iterable of str, which is read once. vocab_size counts bytes, merges and
        special tokens. pattern: None = PATTERN, or SMALL_PATTERN if the vocabulary is below 16,384.
        The order of the texts does not change the result."""
        texts = [texts] if isinstance(texts, str) else texts
        smallest = 256 + len({*special_tokens})
        if vocab_size < smallest:
            raise UserError(f'{vocab_size=} is too small: bytes and special tokens are {smallest}')
        if not pattern:
            pattern = PATTERN if vocab_size >= 16_384 else SMALL_PATTERN
        elif regex.compile(pattern).groups:         # findall would return these, not the chunks
            raise UserError('a pattern must have no groups; write (?:...)')
        else:
            pattern += r'|[\s\S]'   # a character that the pattern forgets is a chunk of its own
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
            print(f'note: the text has few pairs to merge ({len(pairs):,}), so the vocabulary is '
                  f'{tokenizer.vocab_size:,}, not {vocab_size:,}')
        return tokenizer

    @classmethod
    def byte(cls, special_tokens=()):
        """Return a tokenizer whose tokens are the 256 bytes: the ids of a text are its UTF-8."""
        return cls('bpe', BYTES, special_tokens)

    @classmethod
    def char(cls, text, special_tokens=()):
        """Return a tokenizer of the characters in text, a str or an iterable of them, sorted."""
        characters = {c for part in text for c in part}
        return cls('char', [c.encode() for c in sorted(characters)], special_tokens)

    def suppressed_tokens(self, n_rows=0, prefix=b''):
        """Return the token ids to suppress when sampling: special tokens that only prompts have,
        such as <|im_start|> and <|mask|>, and ids from vocab_size to n_rows, the width of a model's
        logits. prefix: bytes that the next token must start with (token healing)."""
        suppressed = [id for id in self.special.values() if id not in self.stop]
        if prefix:
            suppressed = [id for id, token in enumerate(self.all_bytes)
                          if not self.text_bytes[id] or not token.startswith(prefix)]
        return suppressed + [*range(self.vocab_size, n_rows)]

    def encode(self, text):
        """Return the ids of a text. '<|endoftext|>' in it is 13 characters like any others."""
        if self.kind == 'char':
            try:
                return [self.ranks[c.encode()] for c in text]
            except KeyError as e:
                c = e.args[0].decode()
                raise UserError(f'{c!r} at position {text.index(c)} is no character of this char '
                              'tokenizer; a byte or bpe tokenizer takes any text') from None
        return self._tiktoken.encode_ordinary(text)     # ordinary: text makes no special token

    def encode_batch(self, texts):
        """Return [encode(text) for text in texts]. tiktoken does it on all cores."""
        if self.kind == 'char':
            return [self.encode(text) for text in texts]
        return self._tiktoken.encode_ordinary_batch(list(texts), num_threads=os.cpu_count())

    def decode_bytes(self, ids):
        """Return the bytes of ids; a special token's are its name. A token can be a part of a
        character, so the bytes may begin or end within one."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise UserError(f'ids {min(ids)} to {max(ids)} are not all below {self.vocab_size}')
        return b''.join([self.all_bytes[i] for i in ids])

    def decode(self, ids):
        """Return the text of ids. Where their bytes are not UTF-8, it has U+FFFD."""
        return self.decode_bytes(ids).decode('utf-8', 'replace')

    def render(self, messages, add_generation_prompt=False):
        r"""Return a chat in ChatML as ids, and its loss mask: 1 for what the assistant says and for
        the <|im_end|> after it, in every turn. A user's hi and the assistant's yo become
            <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n
            0           0   0 0 0         0 0           0        0 1 1         0
        Each part is encoded by itself, so that content cannot merge with its frame or forge a
        special token. The ids of a chat without its last answer, with add_generation_prompt, are
        exactly how the ids of the whole chat begin."""
        if not {'<|im_start|>', '<|im_end|>'} <= self.special.keys():
            raise UserError('this tokenizer has no <|im_start|> and <|im_end|>; chat needs them')
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
        """Write one JSON file. It gets its name last, so that a crash leaves the old file whole."""
        with open(f'{path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            json.dump(self.to_json(), f, ensure_ascii=False, indent=0)
        os.replace(f'{path}.tmp', path)

    @classmethod
    def load(cls, path, expected_hash=None):
        """Return the tokenizer of a file of ours, or of a tokenizer.json of Hugging Face. With the
        hash that a model or data name, refuse any other: the same ids would be another text."""
        try:
            d = json.loads(pathlib.Path(path).read_bytes())
            if 'added_tokens' in d:
                from extras.models.hf_tokenizer import HFTokenizer, chat_of
                tokenizer = HFTokenizer(json.dumps(d), chat_of(os.path.dirname(path)))
            else:
                kinds = {'nanoparrot-tokenizer-1': {'char': str.encode, 'bpe': from_printable}}
                as_bytes = kinds[d['format']][d['kind']]
                tokenizer = cls(d['kind'], [as_bytes(token) for token in d['vocab']],
                                d['special_tokens'], d['pattern'], d['bytes_per_token'])
        except ImportError:                 # of extras/
            raise
        except Exception as e:              # another program's JSON may fail at any line above
            why = 'no such file' if isinstance(e, FileNotFoundError) else f'{type(e).__name__}: {e}'
            raise UserError(f'{path} is not a tokenizer of ours ({why}); copy the one of the data '
                          'or the run there, or in a folder of Hugging Face, run AutoTokenizer.'
                          'from_pretrained(FOLDER).save_pretrained(FOLDER)') from e
        if expected_hash not in (None, tokenizer.hash):
            raise UserError(f'{path} is not the tokenizer with which this model was trained or '
                          'this data prepared; copy their own tokenizer.json there')
        return tokenizer

    @property
    def hash(self):
        """16 hex digits of all that decides the ids. Data, checkpoint and prompt must agree."""
        identity = {k: v for k, v in self.to_json().items() if k != 'bytes_per_token'}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_tiktoken(self):
        """Return a tiktoken.Encoding with the same ids."""
        if self.kind != 'bpe':
            raise UserError(f'tiktoken has byte-level BPE only, and no {self.kind} tokenizer')
        return tiktoken.Encoding('nanoparrot', pat_str=self.pattern, mergeable_ranks=self.ranks,
                                 special_tokens=self.special)

    _tiktoken = functools.cached_property(to_tiktoken)      # made once, when it is first needed


# --- an answer ------------------------------------------------------------------------------------
class Answer:
    """An answer of at most n tokens, while a model writes it: the ids of its prompt, and text from
    the tokens that are sampled. prompt: a text, or messages.

    A text may end with `):`, but where `):`, a newline and spaces are one token, the model has
    hardly ever read `):` alone. So the last token of a text is removed, and the first sampled token
    must start with its bytes (token healing). Messages end in a special token and need no healing.

    stop_pattern: a regex; the answer stops before its first match. Text that may be the beginning
    of a match is held back until it is certain, and so is half a character. With 'END':
        token       'a'     ' E'    'AT'    'END'
        append()    'a'     ' '     'EAT'   ''"""

    def __init__(self, tokenizer, prompt, n, stop_pattern=''):
        self.tokenizer, self.pattern = tokenizer, stop_pattern or '(?!)'   # matches nowhere
        self.n_left = n         # remaining tokens; 0: the answer is finished
        self.prefix = b''       # of the first token, see suppressed_tokens()
        self.seen = ''          # the prompt's last character, for a look-behind, then the answer
        self.decode = codecs.getincrementaldecoder('utf-8')('replace').decode
        if isinstance(prompt, str):
            self.seen = prompt[-1:]
            self.ids = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
            if len(self.ids) > 1 and tokenizer.text_bytes[self.ids[-1]]:
                *self.ids, last = self.ids
                self.prefix, self.n_left = tokenizer.all_bytes[last], n + 1
        else:
            self.ids, _ = tokenizer.render(prompt, add_generation_prompt=True)
        self.n_certain = len(self.seen)

    def append(self, id):
        """Take the next token. Return the text that has become certain."""
        self.n_left -= 1
        data = self.tokenizer.decode_bytes([id])[len(self.prefix):]
        if id in self.tokenizer.stop:
            self.n_left, data = 0, b''
        self.seen += self.decode(data, not self.n_left)
        self.prefix = b''
        # partial: the text may end with the beginning of a match
        found = regex.search(self.pattern, self.seen, pos=self.n_certain, partial=self.n_left > 0)
        if found and not found.partial:
            self.n_left = 0
        begin, self.n_certain = self.n_certain, found.start() if found else len(self.seen)
        return self.seen[begin:self.n_certain]


# --- the command ----------------------------------------------------------------------------------
input = 'stdlib'                # text: stdlib, a file, folder or glob, as clean.py's --source
vocab_size = 32_768             # bytes, merges and special tokens
out = 'tokenizer.json'          # where it is written

if __name__ == '__main__':
    from configurator import configure, require_writable
    from files import NOT_UTF8, find_files, read, replace_invalid_bytes, shown
    configure(globals(), {'vocab_size': (256 + len(SPECIAL_TOKENS), 1e6)})
    require_writable(out)
    paths, skipped = find_files(input)
    left_out = collections.Counter()

    def text_of(document):
        """Return a document's text, or '' without one. Count the reasons; print the first place."""
        text, _ = replace_invalid_bytes(document['text'])
        why = document['why'] or text is None and NOT_UTF8
        if why:
            left_out[why] += 1
            if left_out[why] == 1:
                print(f'left out: {document["path"]}: {why}')
        return text or ''

    tokenizer = Tokenizer.train((text_of(d) for path in paths for d in read(path)), vocab_size)
    tokenizer.save(out)
    print(f'{out}: {tokenizer.vocab_size:,} tokens, {tokenizer.bytes_per_token:.2f} bytes/token, '
          f'{tokenizer.hash}; left out: {shown(left_out)}; skipped files: {shown(skipped)}')
