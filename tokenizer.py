"""
Tokenizers: text <-> token ids. Byte-level BPE with its trainer, single bytes, single characters.

    python tokenizer.py --input=FOLDER --vocab_size=32768 --out=tokenizer.json      # train
    python tokenizer.py --load=tokenizer.json --report=FOLDER       # does it fit that text?
    python tokenizer.py --report=FOLDER     # is a new one better than GPT-2's and cl100k_base?

Byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; with bytes as the alphabet: GPT-2, 2019):
1. A regex cuts text into chunks: words, numbers, symbols, indentation. No token crosses an edge of
   a chunk. Otherwise `dog.`, `dog!` and `dog?` would become three tokens, and a model would learn
   each by itself. Chunks also save time, because training merges each different one only once.
2. Every chunk starts as its UTF-8 bytes. Each byte is a token, so any text can be encoded.
3. Training repeats: count adjacent pairs of tokens; make the most frequent pair the next token.
4. Encoding a text replays the merges in the order in which they were learned.

Ids: the 256 bytes, then the merges in order, then the special tokens. encode() never returns a
special token. The vocabulary decides how many tokens a text costs and how much text fits into a
context.

Copy this file alone: it needs regex and tiktoken. It then trains the naive way, which takes hours
for 32,768 tokens. With parts/tokenizer/bpe.py next to it, it learns the same tokens in seconds.
from_hf(), gpt2() and the command line need more of parts/. Only functions import it, because parts/
imports this file.
"""
import argparse, collections, functools, hashlib, json, math, os, sys
import regex, tiktoken

# Each line matches one kind of chunk, and the lines are tried from top to bottom. Here are the
# chunks of 'f(x):\n    x + 1234', and below each one the number of the line that matched it:
#     'f'  '(x'  '):\n    '  'x'  ' +'  ' '  '123'  '4'
#      1    1     3           1    3     6    2      2
# Python code needs fewer tokens with this pattern than with those of GPT-2 and cl100k, because
# symbols, a newline and the indentation after it are one chunk (docs/log.md). {1,256} has a bound,
# because a million spaces would overflow the stack of tiktoken's regex engine. \p{M} are the marks
# that follow their letter, such as the vowels of Hindi and Thai. GPT-2's pattern cuts before each
# of them, so the word "Hindi", six characters in Hindi, becomes six chunks. With the marks, a token
# of Hindi holds 1.8 times as many bytes (docs/log.md).
PATTERN = '|'.join([
    r'[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+',     # 1: a word and the space or symbol before it: `.join`
    r'[\p{N}]{1,3}',                        # 2: up to three digits
    r' ?[^\s\p{L}\p{N}]+(?:\r?\n[ \t]*)*',  # 3: symbols; newlines and indentation after them
    r'\s{0,256}\n[ \t]*',                   # 4: a newline, and the spaces before and after it
    r'\s{1,256}(?!\S)',                     # 5: spaces, except the last one before a word or symbol
    r'\s{1,256}'])                          # 6: a space before a digit, a tab before a symbol
# In a vocabulary below 16,384, only a space joins a word: '(' and 'x' are two chunks. A model that
# has read `(name` must often write ` name`. These are other tokens, and our small model copied such
# names wrongly (docs/log.md). With 32,768 tokens we keep the symbols, as code then needs 8% fewer.
SMALL_PATTERN = PATTERN.replace(r'[^\r\n\p{L}\p{N}]?', ' ?', 1)
OUR_PATTERNS = PATTERN, SMALL_PATTERN
BYTES = [bytes([b]) for b in range(256)]
FORMAT = 'nanoparrot-tokenizer-1'
FAST_BPE = os.path.join(os.path.dirname(__file__), 'parts/tokenizer/bpe.py')
# Longer chunks (DNA, base64) would stall the training, so they are cut after so many characters.
MAX_CHUNK = 256

# 64 names: for documents, chats and hidden tokens; for tools; for filling a gap (reserved); for
# hidden spans, as in T5.
SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|pad|>', '<|mask|>',
                  '<|tool_call|>', '<|tool_result|>',
                  '<|fim_prefix|>', '<|fim_middle|>', '<|fim_suffix|>',
                  *(f'<|span_{i}|>' for i in range(54))]

# What render() does, as a Jinja template for other programs.
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
                 "{{ m['content'] }}<|im_end|>\n"
                 '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')

# GPT-2 writes each byte as one visible character, because JSON holds text. Latin-1's visible
# characters stand for themselves; the other 68 bytes become U+0100 and the characters after it.
VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHERS = [b for b in range(256) if b not in VISIBLE]
BYTE_TO_CHAR = {b: chr(b) for b in VISIBLE} | {b: chr(256 + i) for i, b in enumerate(OTHERS)}
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


class Mistake(ValueError):
    """What a user can put right. Scripts print it as one line instead of a traceback."""


def printable(data):
    """b' a\\n' -> 'ĠaĊ'"""
    return ''.join(BYTE_TO_CHAR[b] for b in data)


def from_printable(text):
    """'ĠaĊ' -> b' a\\n'"""
    return bytes(CHAR_TO_BYTE[c] for c in text)


def to_utf8(text):
    """Return the UTF-8 of any str. A lone surrogate is half a character and has none, so it becomes
    U+FFFD, as in tiktoken."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace').encode()


# --- training -------------------------------------------------------------------------------------
def count_chunks(texts, pattern=PATTERN, findall=regex.findall):
    """Count the chunks of some texts: ['a b a'] -> {'a': 1, ' b': 1, ' a': 1}"""
    counts = collections.Counter()
    for text in texts:
        counts.update(findall(pattern, text))
    for chunk in [chunk for chunk in counts if len(chunk) > MAX_CHUNK]:
        n = counts.pop(chunk)
        for i in range(0, len(chunk), MAX_CHUNK):
            counts[chunk[i:i + MAX_CHUNK]] += n
    return counts


def merge(tokens, pair, token):
    """Replace each occurrence of a pair by one token, in place and from left to right. With the
    pair (a, a) and the token b, [a, a, a] becomes [b, a]."""
    i = 0
    while i + 1 < len(tokens):
        if (tokens[i], tokens[i + 1]) == pair:
            tokens[i:i + 2] = [token]
        i += 1


def learn_merges(words, counts, n_merges):
    """Learn byte-pair encoding, the naive way. words: chunks as bytes; counts: how often each
    occurs in the corpus. Return at most n_merges pairs of token ids, in the order of learning, and
    the number of tokens that the corpus has in the end.

        learn_merges([b'low', b' lower', b' lowest'], [1, 1, 1], 2)
        == ([(108, 111), (256, 119)], 10)

    (108, 111) is l + o, which becomes token 256; (256, 119) is lo + w, which becomes token 257.
    The corpus had 3 + 6 + 7 = 16 bytes and now has 1 + 4 + 5 = 10 tokens."""
    words = [list(word) for word in words]          # a byte is its own id

    merges = []
    while len(merges) < n_merges:
        frequency = collections.Counter()
        for word, n in zip(words, counts):
            for pair in zip(word, word[1:]):
                frequency[pair] += n
        if not frequency:                           # each chunk is a single token
            break

        # Pairs are often equally frequent. If the one that was counted first won, the order of the
        # texts would decide. So the one with the smaller ids wins, and a corpus gives the same
        # merges in any order, and with any number of processes that count.
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        for word in words:
            merge(word, best, 256 + len(merges))
        merges.append(best)
    return merges, sum(n * len(word) for word, n in zip(words, counts))


# --- the tokenizer --------------------------------------------------------------------------------
class Tokenizer:
    """Text <-> token ids. Make one with train(), byte(), char(), gpt2(), from_hf() or load()."""

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
        # Lists of ids. begin: what stands before a document, and so ends the one before it. first:
        # what a model reads if there is no prompt. stop: what ends its answer.
        ids_of = lambda name: [self.special[name]] if name in names else []
        self.begin = ids_of('<|endoftext|>')
        self.first = self.begin or [vocab.index(b'\n') if b'\n' in vocab else 0]
        self.stop = self.begin + ids_of('<|im_end|>')
        self.ranks = {token: i for i, token in enumerate(vocab)}    # lower ids merge first
        self._has_merges = kind == 'bpe' and len(vocab) > 256
        self._find = regex.compile(pattern).findall
        self._known = {}                            # chunk -> ids, because most chunks come again
        if kind == 'char':
            self.character_ids = {token.decode(): i for i, token in enumerate(vocab)}

    @classmethod
    def train(cls, texts, vocab_size, special_tokens=SPECIAL_TOKENS, pattern=None, processes=None):
        """Train BPE on an iterable of str, which is read once. vocab_size counts everything: bytes,
        merges and special tokens. pattern: None = PATTERN, or SMALL_PATTERN if the vocabulary is
        below 16,384. The order of the texts and the number of processes do not change the
        result."""
        texts = [texts] if isinstance(texts, str) else texts
        smallest = 256 + len({*special_tokens})
        if vocab_size < smallest:
            raise Mistake(f'{vocab_size=} is too small: bytes and special tokens are {smallest}')
        if pattern is None:
            pattern = PATTERN if vocab_size >= 16_384 else SMALL_PATTERN
        if pattern not in OUR_PATTERNS:
            compiled = regex.compile(pattern)
            # If a pattern has groups, findall returns the groups and not the chunks.
            if compiled.groups or compiled.match(''):
                raise Mistake(f'{pattern=} has groups, or matches ""; write (?:...)')
            pattern += r'|[\s\S]'       # a character that the pattern forgets is a chunk of its own

        # bpe.py counts and learns the same, in seconds instead of hours. If this file was copied
        # alone, its own two functions do it.
        count, learn = count_chunks, learn_merges
        if os.path.exists(FAST_BPE):
            from parts.tokenizer import bpe
            count = functools.partial(bpe.count_chunks, processes=processes)
            learn = bpe.learn_merges
        chunk_counts = count(texts, pattern)
        if not chunk_counts:
            raise Mistake('there is no text to train a tokenizer on')
        words = [to_utf8(chunk) for chunk in chunk_counts]
        counts = list(chunk_counts.values())
        pairs, n_tokens = learn(words, counts, vocab_size - smallest)

        vocab = [*BYTES]
        for left, right in pairs:
            vocab.append(vocab[left] + vocab[right])
        n_bytes = sum(n * len(word) for word, n in zip(words, counts))
        tokenizer = cls('bpe', vocab, special_tokens, pattern, n_bytes / n_tokens)
        if tokenizer.vocab_size < vocab_size:
            print(f'note: the text has few pairs to merge ({len(pairs):,}), so the vocabulary is '
                  f'{tokenizer.vocab_size:,}, not {vocab_size:,}', file=sys.stderr)
        return tokenizer

    @classmethod
    def byte(cls, special_tokens=()):
        """Return a tokenizer whose tokens are the 256 bytes: the ids of a text are its UTF-8."""
        return cls('bpe', BYTES, special_tokens)

    @classmethod
    def char(cls, text, special_tokens=()):
        """Return a tokenizer whose tokens are the distinct characters of text, in sorted order.
        text: one str or an iterable of str."""
        symbols = set().union(*map(set, [text] if isinstance(text, str) else text))
        return cls('char', [c.encode() for c in sorted(symbols)], special_tokens)

    @classmethod
    def gpt2(cls, folder=None, special_tokens=SPECIAL_TOKENS[:48]):
        """Return a tokenizer with GPT-2's 50,256 tokens and <|endoftext|>, then our other special
        tokens, up to 50,304 = 786 x 64. folder holds vocab.bpe and encoder.json. Without it,
        tiktoken looks into its cache, or asks the network."""
        from parts.tokenizer import fit
        encoding = fit.gpt2(folder)
        vocab = sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.get)
        return cls('bpe', vocab, special_tokens, encoding._pat_str)

    @classmethod
    def from_hf(cls, text):
        """Return a tokenizer from the text of Hugging Face's tokenizer.json. We add <|im_start|>
        and <|im_end|> if it lacks them; the model then needs rows for them: GPT.grown."""
        from extras import hf_tokenizer
        return hf_tokenizer.HFTokenizer(text)

    def never_in_answers(self, n_rows=0):
        """Return the ids that a model of n_rows rows must not draw: the special tokens that only
        prompts hold, such as <|im_start|> and <|mask|>, and the rows that have no token."""
        for_prompts = [id for id in self.special.values() if id not in self.stop]
        return for_prompts + [*range(self.vocab_size, n_rows)]

    # --- text -> ids -> text

    def encode(self, text):
        """Return the ids of a text, none of them special: if a user types '<|endoftext|>', that is
        thirteen characters like any others."""
        if not self._has_merges:
            return self._encode_single(text)
        # A long text goes to tiktoken, which merges as we do below and is faster, in Rust. A text
        # that is not ASCII goes there, too: tiktoken and regex may know different versions of
        # Unicode and so cut a recently added letter differently, and encode_batch(), which uses
        # tiktoken, must give the same ids.
        if len(text) > 300 or not text.isascii():
            return self._tiktoken.encode_ordinary(text)

        if len(self._known) > 100_000:                      # memory is finite
            self._known.clear()
        ids = []
        for chunk in self._find(text):
            if chunk not in self._known:
                self._known[chunk] = self._merge_chunk(chunk)
            ids += self._known[chunk]
        return ids

    def _merge_chunk(self, chunk):
        """Return the ids of a chunk. Merge the adjacent pair that was learned first (its token has
        the lowest id), then do so again, until no pair makes a token. If training has made the
        tokens 256 = lo, 257 = low and 258 = er, then `lower` becomes 257 258:

            l o w e r       l + o is 256, e + r is 258: the lower id is merged
            lo w e r        lo + w is 257, e + r is 258
            low e r         e + r is 258
            low er          low + er is no token

        This is the same as applying the merges 256, 257, 258, ... one after the other, as training
        did. A merge makes only pairs with its own token, and they were learned later than it."""
        pieces = [bytes([b]) for b in to_utf8(chunk)]
        while len(pieces) > 1:
            rank = lambda pair: self.ranks.get(b''.join(pair), math.inf)
            best = min(zip(pieces, pieces[1:]), key=rank)
            token = b''.join(best)
            if token not in self.ranks:
                break
            merge(pieces, best, token)
        return [self.ranks[piece] for piece in pieces]

    def _encode_single(self, text):
        """Return the ids of a text whose tokens are single bytes or single characters."""
        if self.kind == 'bpe':
            return list(to_utf8(text))
        try:
            return [self.character_ids[c] for c in text]
        except KeyError as e:
            [c] = e.args
            raise Mistake(f'character {c!r} at position {text.index(c)} is not among the '
                          f'{len(self.vocab)} of this char tokenizer; a byte or bpe tokenizer '
                          'takes any text') from None

    def encode_batch(self, texts):
        """Return [encode(text) for text in texts]. tiktoken does it on all cores."""
        if not self._has_merges:
            return [self.encode(text) for text in texts]
        return self._tiktoken.encode_ordinary_batch(list(texts), num_threads=os.cpu_count())

    def decode_bytes(self, ids):
        """Return the bytes of ids; a special token's are its name. A token can be a part of a
        character, so the bytes may begin or end within one."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise Mistake(f'token ids {min(ids)} to {max(ids)} do not fit {self.vocab_size} tokens')
        return b''.join([self.all_bytes[i] for i in ids])

    def decode(self, ids):
        """Return the text of ids. Where their bytes are not UTF-8, it has U+FFFD."""
        return self.decode_bytes(ids).decode('utf-8', 'replace')

    def heal(self, ids):
        """Token healing. A prompt may end with `):`, but where `):`, a newline and spaces are one
        token, the model has hardly ever read `):` alone. We drop the prompt's last token and let
        the model choose one that starts with the same bytes. Return (ids without the last, the ids
        to choose from), or (ids, None) if there is nothing to heal."""
        if not ids or not self.text_bytes[ids[-1]]:
            return ids, None
        last = self.all_bytes[ids[-1]]
        return ids[:-1], [i for i, token in enumerate(self.all_bytes)
                          if self.text_bytes[i] and token.startswith(last)]

    def render(self, messages, add_generation_prompt=False):
        r"""Return a chat in ChatML as ids, and its loss mask: 1 for what the assistant says and for
        the <|im_end|> after it, in every turn. A user's hi and the assistant's yo become
            <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n
            0           0   0 0 0         0 0           0        0 1 1         0
        Each part is encoded by itself, so that content cannot merge with its frame or forge a
        special token. The ids of a chat without its last answer, with add_generation_prompt, are
        exactly how the ids of the whole chat begin."""
        if not {'<|im_start|>', '<|im_end|>'} <= self.special.keys():
            raise Mistake('this tokenizer has no <|im_start|> and <|im_end|>; chat needs a bpe '
                          'tokenizer with them')
        ids, mask = [], []
        for message in messages:
            fields = message if isinstance(message, dict) else {}
            role, content = fields.get('role'), fields.get('content')
            if role not in ('system', 'user', 'assistant', 'tool') or not isinstance(content, str):
                raise Mistake('a message is a role (system, user, assistant, tool) and a content '
                              f'of text, not {message}')
            header = [self.special['<|im_start|>'], *self.encode(role + '\n')]
            body = [*self.encode(content), self.special['<|im_end|>']]
            tail = self.encode('\n')
            ids += header + body + tail
            mask += [0] * len(header) + [int(role == 'assistant')] * len(body) + [0] * len(tail)
        if add_generation_prompt:
            ids += [self.special['<|im_start|>'], *self.encode('assistant\n')]
            mask += [0] * (len(ids) - len(mask))
        return ids, mask

    # --- disk

    def to_json(self):
        as_text = bytes.decode if self.kind == 'char' else printable
        return {'format': FORMAT, 'kind': self.kind, 'pattern': self.pattern,
                'bytes_per_token': self.bytes_per_token, 'special_tokens': list(self.special),
                'vocab': [as_text(token) for token in self.vocab]}

    def save(self, path):
        """Write one JSON file. It gets its name last, so that a crash leaves the old file whole."""
        with open(f'{path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            json.dump(self.to_json(), f, ensure_ascii=False, indent=0)
        os.replace(f'{path}.tmp', path)

    @classmethod
    def load(cls, path):
        """Return the tokenizer of a file of ours, or of a tokenizer.json of Hugging Face."""
        try:
            with open(path, encoding='utf-8') as f:
                d = json.load(f)
            if 'added_tokens' in d:
                return cls.from_hf(json.dumps(d))
            if d['format'] != FORMAT:
                raise Mistake(f'format={d["format"]}')
            as_bytes = {'char': str.encode, 'bpe': from_printable}[d['kind']]
            vocab = [as_bytes(token) for token in d['vocab']]
            return cls(d['kind'], vocab, d['special_tokens'], d['pattern'], d['bytes_per_token'])
        except Exception as e:              # another program's JSON may fail at any line above
            why = e if isinstance(e, Mistake) else f'{type(e).__name__}: {e}'
            if isinstance(e, FileNotFoundError):
                why = 'no such file'
            raise Mistake(f'{path} is not a tokenizer of ours ({why}); copy the one of '
                          'the data or the run, or make one: python tokenizer.py '
                          '--input=FOLDER') from e

    @property
    def hash(self):
        """16 hex digits of all that decides the ids. Data, checkpoint and prompt must agree."""
        identity = {k: v for k, v in self.to_json().items() if k != 'bytes_per_token'}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_tiktoken(self):
        """Return a tiktoken.Encoding with the same ids."""
        if self.kind != 'bpe':
            raise Mistake(f'tiktoken has byte-level BPE only, and no {self.kind} tokenizer')
        return tiktoken.Encoding('nanoparrot', pat_str=self.pattern, mergeable_ranks=self.ranks,
                                 special_tokens=self.special)

    _tiktoken = functools.cached_property(to_tiktoken)      # made once, when it is first needed


# --- the command line -----------------------------------------------------------------------------
def read_documents(source):
    """Yield {'text', 'path', 'file', perhaps 'labels'} for each document that prepare.py would read
    with --source=source."""
    from parts.prepare import conversions, files, reading
    reasons = []

    def reject(path, line, why):
        reasons.append(f'{path} line {line}: {why}')

    for file in files.find_files(source):
        for doc in conversions.documents(reading.entries([file], reject), reject):
            yield {**doc, 'file': file['path'], 'text': doc['texts'][0]}
    if reasons:
        print(f'note: {len(reasons):,} files or records were not read; the first: {reasons[0]}',
              file=sys.stderr)


def train_on(documents, args):
    """Return a tokenizer as --vocab_size and --pattern ask for it."""
    from parts.tokenizer import fit
    texts = (document['text'] for document in documents)
    return Tokenizer.train(texts, args.vocab_size, pattern=fit.PATTERNS.get(args.pattern))


def train_and_save(args):
    """Train a tokenizer on --input and write it to --out."""
    os.makedirs(os.path.dirname(args.out) or '.', exist_ok=True)
    tokenizer = train_on(read_documents(args.input), args)
    tokenizer.save(args.out)
    print(f'{args.out}: {tokenizer.vocab_size:,} tokens, {tokenizer.bytes_per_token:.2f} '
          f'bytes/token, {tokenizer.hash}')


def report(args):
    """Print how well the tokenizer of --load or --input fits the text of --report. Without one,
    train it on nine tenths of that text and measure it on the rest."""
    from parts.tokenizer import fit
    documents = list(read_documents(args.report))
    if args.load or args.input:
        tokenizer = Tokenizer.load(args.load or args.out)
    else:
        rest, documents = fit.held_out(documents)
        tokenizer = train_on(rest, args)
        print(f'this: trained on nine tenths of {args.report}; the other tenth is measured')
    others = {name: Tokenizer.load(name) if name.endswith('.json')
              else fit.at_hand(name, args.gpt2_dir)
              for name in args.against.split(',') if name}
    print(fit.report(tokenizer, documents, others))


def main():
    # With argparse, because people copy this file without configurator.py.
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--input', help='train on stdlib, a file, a folder or a glob of files')
    source.add_argument('--load', help='a tokenizer.json, instead of training one')
    parser.add_argument('--vocab_size', type=int, default=32768,
                        help='bytes + merges + special tokens (32768)')
    parser.add_argument('--pattern', default='ours', choices=['ours', 'gpt2', 'cl100k'],
                        help='how text is cut into chunks (ours)')
    parser.add_argument('--out', default='tokenizer.json', help='where --input writes')
    parser.add_argument('--report',
                        help='measure the fit on this text; alone: train on nine tenths of it')
    parser.add_argument('--against', default='gpt2,cl100k_base',
                        help='compare with these, or with tokenizer.json files (gpt2,cl100k_base)')
    parser.add_argument('--gpt2_dir',
                        help="folder with GPT-2's vocab.bpe and encoder.json, if offline")
    args = parser.parse_args()
    if not (args.input or args.report):
        parser.error('give --input=PATH to train, or [--load=FILE] --report=PATH')
    try:
        if args.input:
            train_and_save(args)
        if args.report:
            report(args)
    except (ImportError, OSError, ValueError) as e:     # ImportError: copied without parts/
        parser.exit(2, f'error: {e}\n')


if __name__ == '__main__':
    main()
