"""
Point prepare.py at text and you get train.bin and val.bin: flat arrays of token ids for train.py.

    python prepare.py                               # Python's own standard library, without network
    python prepare.py --source=FOLDER --out_dir=data/mine --vocab_size=32768
    python prepare.py config/mix.py                 # several sources, weighted
    python prepare.py --kind=sft --source=chats.jsonl       # {"messages": [...]} for sft.py

A document is a file of text, or a record of .jsonl or .json. Functions come in the order in which a
document meets them, and the job itself is the page at the end: begin there.

    by itself, in processes:    read -> normalise -> rules -> personal data
    with all the others:        duplicates -> split -> tokenizer -> bins -> report

If the source is one file of text, such as Tiny Shakespeare, only its personal data are replaced: a
model trains on its first 90%, and the rest is held out. The same command resumes a run that was
interrupted. You should see 12 MB of Python become 2.5 million tokens in a few seconds, and a table
of what was dropped. The decision made here is the corpus: a model shares its defects. Read
report.md before you train.

Lines that import extras are doors: a flag, or a kind of file, asks for what not everybody needs.
Without extras/ this file works, with tokenizer.py and configurator.py beside it; in prose, LaTeX
and letters that were decoded wrongly then stay as they are.
"""
import ast, collections, concurrent.futures, contextlib, functools, glob, gzip, hashlib, html, io
import itertools, json, multiprocessing, os, pathlib, re, shlex, shutil, signal, sys
import sysconfig, textwrap, threading, time, types, unicodedata, warnings, zlib
from typing import Literal
from configurator import Mistake, configure, require, typed
import numpy as np
from tqdm import tqdm
from tokenizer import SPECIAL_TOKENS, Tokenizer

# --- settings: these are enough to begin ----------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, codeparrot, hf:OWNER/NAME, file, folder, glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
kind: Literal['text', 'sft', 'preference'] = 'text'  # documents, conversations, or pairs
out_dir = ''                    # folder of results; '' = data/quickstart, data/sft or data/pairs
overwrite = False               # True: replace the data of another source in out_dir
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or path of a tokenizer.json
vocab_size = 4096               # tokens of bpe: 256 bytes + merges + 64 special tokens
val_fraction = 0.1              # fraction of documents, or of a lone text, that is held out
mode: Literal['auto', 'code', 'prose', 'chat', 'raw'] = 'auto'  # auto looks; chat keeps markup
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # the last two drop near-copies
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
text_field = ''                 # field of records that has the text; '' = text, content, code, ...
max_files = 0                   # files of each source; 0 = all
max_docs = 0                    # documents of each source that pass the rules; 0 = all
num_workers = 0                 # processes that share the work; 0 = all cores
part = ''                       # 3/16: clean the third of 16 parts of the work; then run without it
# rules, 0 = off: skip them on a first reading
min_words = 20                  # prose: words
max_symbols = 0.3               # prose: fraction of characters that are symbols, such as #
max_repetition = 0.7            # prose: fraction of lines or words that repeat
max_gibberish = 0.2             # prose: fraction of words that hardly any language spells
parse = True                    # code: drop Python that does not compile, in answers, too
bands = 32                      # minhash: bands; texts that agree in one are compared
rows = 8                        # minhash: numbers in a band; more numbers, fewer comparisons
min_similarity = 0.85           # minhash: Jaccard similarity of n-grams that makes a copy
# doors to extras/
download_dir = 'data/raw'       # folder for downloads
keep_downloads = True           # False: delete each one when its text is clean
gpt2_dir: str | None = None     # folder with vocab.bpe and encoder.json; None = download
write: Literal['bins', 'text'] = 'bins'  # text: shards/*.jsonl.gz, for train.py --streaming
temperature = 1.0               # for sources without weights; above 1: more equal parts
url_block = ''                  # file of domains to drop, one a line
url_allow = ''                  # file of domains that are never dropped
licences = ''                   # the only licenses to keep: mit,apache-2.0,unknown; '' = all
languages = ''                  # such as en,de: drop prose and chat clearly in another one
perplexity_reference = ''       # good text: its n-grams predict each document
min_bits = 0.5                  # perplexity: bits per byte; documents below it are boilerplate
max_bits = 5.0                  # perplexity: bits per byte; above it is noise; 0 = no limit
quality_good = ''               # texts as you want them, to train a classifier
quality_bad = ''                # texts as you do not want them
min_quality = 0.5               # quality: probability that a text is like the good ones
toxic_words = ''                # file of words, one a line
max_toxic = 1.0                 # toxic words in 1,000 words; 0 = not one
decontaminate = ''              # benchmark files, a,b,...: drop what shares 13 words in a row
n_examples = 2000               # sft without a source: conversations to write; more teach more
prefer: Literal['passed', 'taste', 'both'] = 'passed'  # what makes one of eval.py's answers better
min_score: float | None = None  # sft: the score that a judge gave
min_margin = 0.0                # preference: score of chosen - score of rejected
min_agreement = 0.0             # preference: fraction of annotators who agree
audit = 0                       # documents to show in audit.md for each reason, and a data card
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'vocab_size': (1, 1e7), 'val_fraction': (1e-9, 0.999), 'num_workers': (0, 1024),
          'bands': (1, 1024), 'rows': (1, 64), 'n_examples': (1, 1e7), 'temperature': (0.05, 1e6),
          **dict.fromkeys(['min_score', 'min_margin'], (-1e18, 1e18)),
          **dict.fromkeys('max_symbols max_repetition max_gibberish min_similarity min_quality '
                          'min_agreement'.split(), (0, 1))}
# Settings that name files, and all those that add stages from extras.
LISTS = ('url_block url_allow perplexity_reference quality_good quality_bad toxic_words '
         'decontaminate').split()
OPTIONS = [*LISTS, 'licences', 'languages', 'audit']

# --- find: the files of a source, and shards, the pieces of work that processes share -------------
TEXTS = tuple('.py .txt .md .markdown .rst .tex .org .adoc .html .htm'.split())
OTHER_CODE = tuple('.c .h .cc .cpp .cxx .hpp .cs .java .kt .scala .swift .js .jsx .ts .tsx .go .rs '
                   '.rb .php .pl .pm .lua .r .jl .hs .ml .sh .bash .sql .css .scss .vue .dart .ex '
                   '.erl .clj .lisp .f90 .pas .asm .s .yaml .yml .toml .ini .cmake'.split())
OF_OTHERS = set('node_modules bower_components site-packages dist-packages __pycache__'.split())
STDLIB_TESTS = {'test', 'tests', 'idle_test'}
SHARD = 16_000_000              # bytes
N_PIECES = 8                    # of a larger .jsonl, each of every eighth line: processes share it


def files_under(top, pattern, skip, passed_over):
    """Yield the files in a folder, and in those under it, whose names match a pattern. No links to
    folders, no hidden folders, none of `skip`, and none that prepare.py wrote."""
    for folder, inner, names in os.walk(top):
        has_results = 'meta.json' in names and {'val.bin', 'val.jsonl'} & {*names}
        if folder != top and (has_results or 'pyvenv.cfg' in names):
            passed_over[f'{os.path.basename(folder)}/'] += 1
            inner.clear()
            continue
        others = [name for name in inner if name in skip or name[0] == '.']
        passed_over.update(f'{name}/' for name in others)
        inner[:] = {*inner} - {*others}
        yield from glob.glob(os.path.join(glob.escape(folder), pattern))


def find_files(source, any_ending=False, download_dir='data/raw'):
    """Return the files of a source, sorted, so that one folder gives the same bins everywhere, and
    what is passed over: '2 .png, 1 node_modules/'. any_ending is for a file that is named alone."""
    if re.match('hf:|shakespeare$|codeparrot$', source):
        from extras import hub
        return hub.find_files(source, download_dir), ''
    endings, skip, passed_over = RECORDS + TEXTS + OTHER_CODE, OF_OTHERS, collections.Counter()
    top, deep, pattern = source.partition('**')     # a/**/*.py: in a and the folders under it
    if source == 'stdlib':                          # 12 MB of Python; with its tests, 30 MB
        top, endings, skip = sysconfig.get_paths()['stdlib'], '.py', OF_OTHERS | STDLIB_TESTS
    elif os.path.exists(source):
        top, deep, pattern = source, '', ''         # whatever signs are in its name
    found = [top] if os.path.exists(top) else glob.glob(top or './')
    if deep or os.path.isdir(top):
        pattern = pattern.lstrip(os.sep) or '*'
        found = itertools.chain(*(files_under(start, pattern, skip, passed_over)
                                  for start in found))
    found = {path for path in found if not os.path.isdir(path)}
    paths = sorted(path for path in found if os.path.isfile(path) and (
        ends_with(path, endings) or any_ending and path == source))
    passed_over.update(os.path.splitext(path)[1] or 'without ending' for path in found - {*paths})
    in_order = collections.Counter(sorted(passed_over.elements()))
    others = ', '.join(f'{n} {ending}' for ending, n in in_order.most_common(9))
    require(paths, f'no text at {source!r}; it can be stdlib, shakespeare, codeparrot, '
            f'hf:OWNER/NAME, or a file, folder or glob with {" ".join(RECORDS + TEXTS)} files or '
            'source code, packed (.gz) or not; --mode=raw takes a file as it is; it has '
            f'{others or "nothing"}')
    return paths, '' if source == 'stdlib' else others


def cut_into_shards(files_of, kind):
    """Return the shards of {source: its files}: [(source, [(path, piece, n_pieces), ...]), ...]:
    16 MB of texts, or a file of records. A .jsonl of texts that is larger than 16 MB is eight
    pieces, each with every eighth of its lines. (Judged answers to one problem become pairs, so
    their file stays whole.)"""
    shards = collections.defaultdict(list)
    for source, paths in files_of.items():
        total = 0
        for path in paths:
            size = os.path.getsize(path) if os.path.exists(path) else SHARD     # on a hub
            can_share = kind == 'text' and size > SHARD and ends_with(path, LINES)
            n_pieces = N_PIECES if can_share else 1
            for piece in range(n_pieces):
                shards[source, total // SHARD].append((path, piece, n_pieces))
                total += SHARD if ends_with(path, RECORDS) else size
    return [(source, pieces) for (source, _), pieces in shards.items()]


# train.py --streaming reads records without this file, so extras/ has the next part once more.
# --- records: same text in prepare.py, extras/records.py ------------------------------------------
LINES = '.jsonl', '.ndjson', '.jsonlines'
RECORDS = LINES + ('.json', '.parquet', '.csv', '.tsv', '.ipynb')
# also The Stack's, CodeSearchNet's and CodeParrot's names
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
OF_CHATS = {'messages', 'conversations', 'instruction', 'prompt', 'question', 'output', 'response'}
PIECE = 4_000_000               # bytes of a text in memory, and of a longer text's documents
LONGEST = 100_000_000           # bytes of a line; one that is longer is no record


def ends_with(path, endings):
    """Whether a file is of these kinds, packed or not: ends_with('a.jsonl.gz', RECORDS)."""
    return re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()).endswith(endings)


def open_file(path):
    """Open a file to read its bytes, unpacked, without the mark of its byte order."""
    if path.startswith('hf:'):
        from extras import hub
        path = hub.fetched(path)
    if re.search(r'\.(parquet|csv|tsv|ipynb)(\.gz)?$|\.(zst|bz2|xz)$', path, re.I):
        from extras import formats
        f = formats.open_file(path)
    else:
        f = (gzip.open if path.lower().endswith('.gz') else open)(path, 'rb')
    if f.peek(3).startswith(b'\xef\xbb\xbf'):
        f.read(3)
    if f.peek(2).startswith((b'\xff\xfe', b'\xfe\xff')):            # as PowerShell writes it
        with f:
            return io.BufferedReader(io.BytesIO(f.read().decode('utf-16').encode()))
    return f


def decode(data):
    """Return bytes as text. If they aren't UTF-8, and most of them are ASCII, they are taken as
    Windows-1252. Anything else is refused, because a guess would be noise."""
    if data.count(b'\0') <= len(data) / 20:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode()
    n_others = len(re.findall(rb'[\x80-\xff]', data))
    if n_others <= 0.3 * len(data) and not re.search(rb'[\0-\x08\x0e-\x1f]', data):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode('cp1252')
    raise ValueError('neither UTF-8 nor a text in Windows-1252; if it is a text, convert it: '
                     'iconv -f utf-16 -t utf-8 OLD > NEW')


def texts_in(f):
    """Yield the texts of a file: one, unless lines <|endoftext|> divide it, or unless it is longer
    than 4 MB: then it is cut where a text, a paragraph, a line, a word or a character ends."""
    rest, more = b'', True
    while more:
        new = f.read(PIECE)
        more, data = len(new) == PIECE, rest + new
        end = len(data)
        if more:
            end -= len(re.search(rb'[\xc0-\xff]?[\x80-\xbf]*$', data[-4:])[0])     # half a letter?
            signs = b'\n<|endoftext|>\n', b'\n\n', b'\n', b' '
            end = next((data.rfind(sign) + len(sign) for sign in signs if sign in data), end)
        rest = data[end:]
        texts = [decode(data[:end])]
        if '<|endoftext|>' in texts[0]:
            texts = re.split(r'(?m)^<\|endoftext\|>(?:\r?\n|\Z)', texts[0])
        yield from filter(str.strip, texts) if len(texts) > 1 else texts


def read(path, reject, piece=0, n_pieces=1):
    """Yield (line, record) for each record of a file, or each of a piece of its lines. A text is a
    record {'text': ...} at line 0. What can't be read goes to reject(place, error) and is never
    raised, because of a thousand files one is damaged."""
    line = 0
    try:
        with open_file(path) as f:
            if not ends_with(path, RECORDS):
                if ends_with(path, '.txt') and re.match(rb'\s*\{"[^"\n]*": *["\[{\d]', f.peek(99)):
                    raise ValueError('its lines are records; rename it: .jsonl')
                for text in texts_in(f):
                    yield 0, {'text': text}
                return
            if ends_with(path, '.json') and f.peek(99).lstrip().startswith(b'['):
                yield from enumerate(json.load(f), 1)
                return
            for line, row in enumerate(iter(lambda: f.readline(LONGEST), b''), 1):
                if line % n_pieces == piece and row.strip():
                    try:
                        yield line, json.loads(row)
                    except (ValueError, RecursionError) as e:
                        reject(f'{path}:{line}', shape_of(row, e))
    except Mistake:             # a download that failed, a package that is missing
        raise
    except (ValueError, EOFError, OSError, zlib.error, RecursionError) as e:
        if (line + 1) % n_pieces == piece:          # cut off, no archive, not a text
            reject(f'{path}:{line + 1}', f'{type(e).__name__}: {e}')


def shape_of(row, error):
    """Say what a line that is no record looks like, and what is read."""
    if row.startswith(b'\0line '):      # formats.py says what is wrong with a row of a table
        return row[1:].decode().strip()
    shapes = ((rb'[\[{]$', 'JSON over several lines'), (rb'.*[}\]"],$', 'a comma at its end'),
              (rb'\[', 'a list'), (b'', f'no JSON ({error})'))
    shape = next(shape for start, shape in shapes if re.match(start, row.strip()))
    return (f'the line has {shape}; .jsonl has one {{"text": ...}} on each line, and .json may be '
            'one list of such records')


def text_of(record, names=TEXT_NAMES, columns=None):
    """Return the text of a record. An empty column hides no other. If no column has a usual name,
    the only long one is the text, unless the record looks like a conversation. columns, {name:
    records}, remembers it for the records that follow."""
    record = record if isinstance(record, dict) else {'text': record}
    if names is TEXT_NAMES and not ({*TEXT_NAMES} | OF_CHATS) & record.keys():
        long = [name for name, text in record.items()
                if isinstance(text, str) and len(text) >= 200 and ' ' in text]
        if columns or len(long) == 1:       # first what earlier records of this shard have chosen
            names = [*(columns or long)]
            if columns is not None:
                columns.update({*names} & record.keys())
    texts = [record[name] for name in names if isinstance(record.get(name), str)]
    if texts:
        return next(filter(str.strip, texts), texts[0])
    for name in names:
        if name in record:
            raise ValueError(f'{name} is {record[name]!r:.40}, not a text')
    raise ValueError(f'it has {", ".join(record) or "no field"}, and no {" or ".join(names)}; name '
                     'the field of the text: --text_field=NAME; conversations need --kind=sft')
# --- end records ----------------------------------------------------------------------------------


# --- a record becomes a document ------------------------------------------------------------------
#     {'texts': ['import abc\n...'], 'roles': [], 'path': 'lib/abc.py', ...}            a text
#     {'texts': ['Hi!', 'Hello.'], 'roles': ['user', 'assistant'], 'path': 'a.jsonl:7', ...}
PLACES = ('repo_name max_stars_repo_name repository_name repo '
          'path max_stars_repo_path func_path_in_repository').split()
# what is kept of a record beside its text
FACTS = 'url func_code_url licence license max_stars_repo_licenses'.split()


def documents_of(pieces, config, reject, columns=None):
    """Yield the documents in the files of a shard, [(path, piece, n_pieces), ...]. columns counts
    those that were taken for the text, see text_of()."""
    entries = ((path, *entry) for path, *piece in pieces for entry in read(path, reject, *piece))
    if config.kind != 'text':
        from extras import chats
        yield from chats.documents(entries, reject, config.kind, config.prefer)
        return
    for path, line, record in entries:
        names = [config.text_field] if config.text_field and line else TEXT_NAMES
        try:
            text = text_of(record, names, columns)
        except ValueError as e:
            reject(f'{path}:{line}', e)
            continue
        record = record if isinstance(record, dict) else {}
        place = '/'.join(record[name] for name in PLACES if isinstance(record.get(name), str))
        path = f'{path}:{line} {place}'.strip() if line else path
        yield {'texts': [text], 'roles': [], 'path': path, 'line': line, 'record': record}


def size_of(document):
    """Return the bytes of a document."""
    return sum(len(text.encode('utf-8', 'surrogatepass')) for text in document['texts'])


def mode_of(text, path):
    """Return how to treat a text, by the end of its path: 'code' is Python, 'other code' any other
    language, 'prose' may hold code, which stays. With any other ending or none, what parses is
    Python, if it does something: `yes` and `a: b` do nothing."""
    if ends_with(path, OTHER_CODE):
        return 'other code'
    if ends_with(path, '.py'):
        return 'code'
    if ends_with(path, ('.html', '.htm')):
        return 'prose'
    # the body of a function is indented
    tree = compiles(textwrap.dedent(text) if text[:1].isspace() else text, ast.PyCF_ONLY_AST)
    body = tree.body if tree else []
    idle = [node for node in body if isinstance(node, ast.Expr | ast.AnnAssign)
            and not isinstance(node.value, ast.Call)]
    return 'code' if len(idle) < len(body) else 'prose'


def compiles(program, flags=0):
    """Return what Python makes of a text: a program, or a tree with flags=ast.PyCF_ONLY_AST, or
    None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')         # of odd escapes in strings
            return compile(program, 'program', 'exec', flags, dont_inherit=True)
    except Exception:                               # deep nesting: MemoryError, RecursionError
        return None


# --- normalise: a text gets one form, whatever its source -----------------------------------------
# Otherwise a tokenizer spends its vocabulary on such differences, and a model learns to write them.
# control characters but tab and newline, soft hyphen, zero-width signs, byte order marks
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2028\u2029\u2060\ufeff\ufff9-\ufffb]')
LINE_ENDS = '\x0b\x0c\x1c\x1d\x1e\u2028\u2029'      # vertical tab, new page, separators
BLOCKS = ('br p div h1 h2 h3 h4 h5 h6 li ul ol dd dt td th tr table section article blockquote pre '
          'hr option title').split()
INLINE = ('a abbr aside b body button center cite code col dl em figure font footer form head '
          'header html i iframe img input label link main meta nav s select small span strong sub '
          'sup svg tbody textarea tfoot thead tt u video').split()
# Attributes or nothing follow the name of a tag. In prose, `a <b` may mean less than.
ATTRIBUTES = (r'\s+(?:[\w:.@-]+\s*=|(?:hidden|disabled|checked|selected|controls|nowrap|noshade|'
              r'open)\b)[^<>]*|\s*/?')
TAG = re.compile(rf'</?({"|".join(BLOCKS + INLINE)})(?:{ATTRIBUTES})>|<!doctype[^<>]*>', re.I)
# What has a start and no end stays; it is matched up to the text's end, to look for it once.
HIDDEN = [re.compile(f'{start}(?:.*?{end}|(?P<rest>.*))', re.S | re.I) for start, end in (
    ('<!--', '-->'), (r'<(script|style|noscript)\b[^<>]*>', r'</\1\s*>'))]
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')


def strip_html(text):
    """Remove tags, comments, scripts, and decode entities. `a < b` and `<stdio.h>` stay."""
    if TAG.search(text):
        for pattern in HIDDEN:
            text = pattern.sub(lambda m: ' ' if m['rest'] is None else m[0], text)
        text = TAG.sub(lambda m: '\n' if m[1] and m[1].lower() in BLOCKS else '', text)
    return ENTITY.sub(lambda m: html.unescape(m[0]), text)


def one_blank(text):
    """Put one blank or empty line in place of several, but leave the indentation of lines."""
    # (?<=\S.) means: not at the beginning of a line. A lone space, (?<! ), needs no change.
    text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text).replace(' \n', '\n')
    return re.sub(r'\n\s*\n', '\n\n', text)


def outside_fences(change, text):
    """Change a text, but not the code in it between lines of ```, perhaps in a quote or a list."""
    pieces = re.split(r'^((?:[ \t>*+-]|\d+[.)])*`{3,}[^`\n]*)$', text, flags=re.M)
    pieces[::4] = map(change, pieces[::4])          # text, fence, code, fence, text, ...
    return ''.join(pieces)


@functools.cache
def repairs():
    """Return what mends letters that were decoded wrongly, and what takes LaTeX away. Without
    extras/repair.py such texts stay as they are."""
    with contextlib.suppress(ModuleNotFoundError):
        from extras import repair
        return repair.fix_mojibake, repair.strip_latex
    return str, str


def normalise(text, mode):
    """Return a text in one form. Code: a newline ends a line. Prose: no markup, no control
    characters, Unicode is composed (NFC: e and its accent are one character), one blank in place
    of several. Chat: prose whose markup and blanks stay. Raw: as it is."""
    if not text.isascii():
        text = re.sub('[\ud800-\udfff]', '\ufffd', text)    # half of a pair, from JSON
    if mode == 'raw':
        return text
    text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    if mode in ('code', 'other code'):
        return text

    repair, strip_latex = repairs()
    before, text = None, repair(text)
    if mode == 'prose':
        text = outside_fences(lambda part: strip_latex(strip_html(part)), text)
    while text != before:           # a control character may have parted the bytes of a letter
        before = text
        text = CONTROL.sub(lambda m: '\n' if m[0] in LINE_ENDS else '', text)
        if not text.isascii():      # a pile of accents would take NFC hours
            text = re.sub('([\u0300-\u036f]{30})[\u0300-\u036f]+', r'\1', text)
            text = repair(unicodedata.normalize('NFC', text))
    if mode == 'chat':
        return text
    return re.sub(r'\A\s*\n', '', outside_fences(one_blank, text)).rstrip()


# --- rules: why a document is not worth learning from ---------------------------------------------
# A rule of yours is two lines in prose_reason or code_reason, or a stage in make_stages. Each rule
# drops good documents, too, so each says its reason. Rules come before duplicates for two reasons:
# they need one document at a time, so processes can share the work; and of several copies the first
# one stays, so if a rule dropped that one later, no copy would be left.
NO_SPACES = re.compile('[\u0e01-\U0010ffff]')       # scripts without spaces, such as Thai, Chinese
RULER = re.compile(r'\n[ \t|+]*([^\w\s|+])\1{2,}(?:[ \t|+]+\1+)*[ \t|+]*$', re.M)    # |---|---|
ODD_WORD = re.compile(r'\w*[^aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ\W\d_]{6}|'     # qwrtzpl
                      r'\w*[^\W\d_]\d+[^\W\d_]\w*\d|'                         # x4k9
                      r'\w{31}', re.I)                                        # aaaaaaaaaaa...
IS_ODD = functools.lru_cache(1 << 16)(ODD_WORD.match)       # texts share most of their words
GENERATED = re.compile('auto-?generated|automatically generated|do not edit\\b|'
                       'generated (?:from|by|with|using)\\b', re.I)
CONFIG_OR_TEST = re.compile('unit tests?|test file|configuration file', re.I)
SIGNS = bytes(b for b in range(128) if not chr(b).isalnum())


def prose_reason(text, min_words=20, max_symbols=0.3, max_repetition=0.7, max_gibberish=0.2):
    """Return why to drop a text of prose, or None. A limit of 0 switches its rule off."""
    n_words = len(text.split())
    if n_words < min_words:         # two characters of a script without spaces make about a word
        n_words = max(n_words, len(NO_SPACES.findall(text)) // 2)
    head = text[:100_000]           # enough to judge by
    if n_words < min_words:
        return 'short'                                                  # Page not found
    if max_symbols and symbol_share(head) > max_symbols:
        return 'symbols'                                                # *** >>> $$$ <<< ***
    if max_repetition and repeated_share(head) > max_repetition:
        return 'repetitive'                                             # buy buy buy buy buy
    if max_gibberish and gibberish(head) > max_gibberish:
        return 'gibberish'                                              # qwrtzpl x4k9f2 bcdfghj


def symbol_share(text):
    """Return the share of the visible characters that are no letters, digits or marks, without
    rulers."""
    text = RULER.sub('', f'\n{text}')
    # Signs and white space: a text has few different ones, so we ask about each of them only once.
    counts = {c: n for c, n in collections.Counter(text).items()
              if not c.isalnum() and unicodedata.category(c)[0] != 'M'}
    visible = len(text) - sum(n for c, n in counts.items() if c.isspace())
    return 1 - (len(text) - sum(counts.values())) / max(1, visible)


def repeated_share(text, window=200):
    """Return the share of the lines of a text that repeat, or, if that is larger, of the words in
    windows of 200. The share of all words would grow with length: 0.88 in Tiny Shakespeare."""
    share = lambda items: 1 - len(set(items)) / max(1, len(items))
    words = text.lower().split()
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    return max(sum(map(share, windows)) / len(windows), share(lines) if len(lines) >= 5 else 0)


def gibberish(text):
    """Return the share of the words in Latin script that hardly any language spells."""
    words = re.findall(r'[A-Za-z0-9À-ÿ]{2,}', text)
    return len([*filter(IS_ODD, words)]) / max(1, len(words))


def code_reason(text, is_python=True, parse=True, chance=None):
    """Return why to drop a program, or None: the rules of CodeParrot, with its numbers. Two rules
    drop only 7 in 10 of what they find: texts whose chance, in [0, 1), is below 0.7. It follows
    from the text, so the next run drops the same ones. It is not the hash of the split: what is
    held out is below 0.1 there, so these rules would drop all of it."""
    lines = text.split('\n')
    data = text.encode('utf-8', 'surrogatepass')
    head = '\n'.join(lines[:5])
    if chance is None:
        chance = hash64(b'rules' + data) / 2 ** 64
    if '\0' in text:
        return 'binary'                                                 # \x7fELF\0\0
    if max(map(len, lines)) > 1000:
        return 'long line'                                              # DATA = 'eJzsvXl4VNX5...
    if sum(map(len, lines)) > 100 * len(lines):
        return 'long lines'                                             # minified code
    if len(data.translate(None, SIGNS)) < 0.25 * len(data):
        return 'few letters'                                            # [[], [], [[], []]]
    if GENERATED.search(head):
        return 'autogenerated'                                          # do not edit
    often = max(text.count('config'), text.count('test')) > 0.05 * len(lines)
    if chance < 0.7 and (often or CONFIG_OR_TEST.search(head)):
        return 'config or test'                                         # Unit tests of f
    if not is_python:
        return None
    # other bits of the hash, so that the two rules draw independently
    if chance * 1024 % 1 < 0.7 and not re.search(r'\b(?:def|class|for|while)\b', text):
        return 'no keywords'                                            # print(1)
    if text.count('=') < 5:
        return 'few assignments'                                        # import abc
    if parse and not compiles(text):
        return 'does not parse'                                         # print 1


# --- personal data and keys become placeholders ---------------------------------------------------
# A model may recite what it has seen once. Versions, dates, hashes and example domains stay. So do
# names: to find those takes a model. A key is known by its beginning: `password = "x8..."` stays.
KEYS = '|'.join([
    r'A[KS]IA[0-9A-Z]{16}',                             # AKIA...: Amazon
    r'gh[oprsu]_[A-Za-z0-9]{36}|github_pat_\w{60,90}',  # ghp_...: GitHub
    r'glpat-[\w-]{20}',                                 # GitLab
    r'hf_[A-Za-z]{30,40}',                              # Hugging Face
    r'xox[abeprs]-[A-Za-z0-9-]{20,250}',                # xoxb-...: Slack
    r'AIza[\w-]{35}',                                   # Google
    r'npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}',
    r'sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{32,250}',  # sk-...: OpenAI, Anthropic
    r'[rs]k_live_[A-Za-z0-9]{20,}',                     # sk_live_...: Stripe
    r'eyJ[\w-]{10,500}\.eyJ[\w-]{10,}\.[\w-]{10,}'])    # eyJhbG...: a JSON web token
PRIVATE_KEY = (r'-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----'
               r'(?:\s|\\[nr]|["\'+,]|[\w-]+: [^\n]*\n)*[A-Za-z0-9+/]{40}[^-]*'
               r'(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?')
TLD = ('com|org|net|edu|gov|mil|int|info|biz|name|dev|app|io|ai|co|me|tv|eu|uk|us|ca|au|nz|de|at|'
       'ch|fr|be|nl|lu|it|es|pt|ie|dk|se|no|fi|is|pl|cz|sk|hu|ro|bg|gr|tr|ru|ua|by|lt|lv|ee|hr|si|'
       'rs|il|ir|in|pk|bd|lk|cn|hk|tw|jp|kr|sg|my|th|vn|id|ph|za|ng|ke|eg|ma|br|ar|cl|mx|pe|uy|'
       'COM|ORG|NET|EDU')
EMAIL = (r'(?<![\w.%+-])[\w%+-][\w.%+-]{0,63}@(?!self\.)(?:[A-Za-z0-9-]{1,63}\.){1,5}'
         rf'(?:{TLD})\b(?![\w(-]|\.\w)')
NOBODY = re.compile(r'@([\w-]+\.)*(example\.(com|org|net|edu)|test|invalid|localhost)$|^git@', re.I)
PHONES = '|'.join([
    r'\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,5}'      # +49 (0)30 1234 5678
    r'(?:(?:[ -]\d{2,8}){1,4}|(?:\.\d{2,8}){2,4})',
    r'(?:1[ -])?(?:\([2-9]\d\d\) ?|[2-9]\d\d-)[2-9]\d\d-\d{4}', # (212) 555-0123
    r'[2-9]\d\d\.[2-9]\d\d\.\d{4}',                             # 212.555.0123
    r'\+[1-9]\d{9,13}'])                                        # +493012345678
# Each phone number and SSN has + and a digit, or three digits and a sign, and then six more. Most
# texts have none, and this test is faster than all patterns above.
DIGITS = re.compile(r'[+\d](?:(?<=\+)[1-9]|(?<=\d)\d\d[-.)])[\d ().-]{6}')
KEY_SIGNS = ('AKIA ASIA ghp_ gho_ ghr_ ghs_ ghu_ github_pat_ xox AIza hf_ sk- k_live_ eyJ glpat- '
             'npm_ pypi- -----BEGIN').split()
# kind: the pattern; what stays
PERSONAL = {kind: (re.compile(pattern), stays) for kind, pattern, stays in (
    ('key', rf'{PRIVATE_KEY}|\b(?:{KEYS})(?![\w-])', None),
    ('email', EMAIL, NOBODY.search),
    ('ssn', r'(?<![\w.+-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-]|\.\d)', None),
    ('phone', rf'(?<![\w.+/=#-])(?!\+\d{{4}}-\d\d-\d\d\b)(?:{PHONES})(?![\w=-]|\.\d)',
     lambda value: not 8 <= sum(map(str.isdigit, value)) <= 15))}


def hide(text, found):
    """Return a text with <EMAIL>, <PHONE>, <SSN>, <KEY> in place of such data. found, {kind: n},
    counts them: 'mail to ann@uni.edu' becomes 'mail to <EMAIL>'."""
    has_number = DIGITS.search(text)            # fast tests, because most texts have nothing
    has = {'key': any(sign in text for sign in KEY_SIGNS), 'email': '@' in text,
           'ssn': has_number, 'phone': has_number}
    for kind, (pattern, stays) in PERSONAL.items():
        if has[kind]:
            label = f'<{kind.upper()}>'
            new = pattern.sub(lambda m: m[0] if stays and stays(m[0]) else label, text)
            found.update({kind: new.count(label) - text.count(label)})
            text = new
    return text


# --- clean: each document by itself ---------------------------------------------------------------
# Shards are cut by the sizes of files alone, each is cleaned into a folder of its own, and folders
# are read in order: the bins are the same whatever number of processes shares the work. A process
# has one document in memory (of a .json list all of them), and the parent a few numbers of each.
def check_text(document, notes):
    """Return why there is nothing to learn from: the first stage."""
    if not any(map(str.strip, document['texts'])):
        return 'empty'
    # a record that long is most often data; a file (its line is 0) may be a book
    if document['line'] and sum(map(len, document['texts'])) > 1_000_000:
        return 'too long'


@functools.lru_cache(1)
def make_stages(settings):
    """Return the settings, and {name: stage}, in the order in which a document meets them. A stage
    is a function of a document, which it may change, and of notes, {title: Counter}, which add up
    over all shards. It returns the reason to drop the document, or None. settings: JSON, because a
    process that isn't forked makes its stages itself."""
    config = types.SimpleNamespace(**json.loads(settings))

    def to_one_form(document, notes):
        mode = 'chat' if document['roles'] else mode_of(document['texts'][0], document['path'])
        if config.mode != 'auto' and (config.mode, mode) != ('code', 'other code'):
            mode = config.mode
        document['mode'] = mode
        notes['documents taken as'][document['mode']] += 1
        document['texts'] = [normalise(text, document['mode']) for text in document['texts']]
        return check_text(document, notes)

    def check_rules(document, notes):
        [text] = document['texts']
        if document['mode'] in ('code', 'other code'):
            return code_reason(text, document['mode'] == 'code', config.parse)
        if document['mode'] != 'raw':
            return prose_reason(text, config.min_words, config.max_symbols, config.max_repetition,
                                config.max_gibberish)

    def hide_personal_data(document, notes):
        found = notes['personal data']
        document['texts'] = [hide(text, found) for text in document['texts']]

    stages = {'read': check_text, 'normalise': to_one_form, 'rules': check_rules}
    if config.kind != 'text':
        from extras import chats
        stages['rules'] = chats.stage(config.kind, config.parse and compiles, config.min_score,
                                      config.min_margin, config.min_agreement)
    if config.pii:
        stages['personal data'] = hide_personal_data
    if any(vars(config)[name] for name in OPTIONS):
        from extras import filters          # it gets our functions, because it imports no script
        stages = filters.with_options(stages, config, find_files, documents_of, mode_of, normalise,
                                      words_of, ngrams, hash64)
    return config, stages


def passes(document, stages, notes):
    """Whether no stage has a reason to drop a document. The notes count what comes in, what each
    stage drops, and what it lets pass."""
    notes['documents']['found'] += 1
    notes['bytes']['found'] += size_of(document)
    for name, stage in stages.items():
        reason = stage(document, notes)
        if reason:
            notes[f'dropped by {name}'][reason] += 1
            return False
        notes['documents'][name] += 1
        notes['bytes'][name] += size_of(document)
    return True


def hash64(data):
    """Return 64 bits that follow from these bytes alone; hash64(data) / 2**64 is as if drawn from
    [0, 1)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


def hashes_of(texts, roles):
    """Return a hash that copies share, whatever their white space, and one that decides about the
    split: of the text, or of a chat's first question, whose answers are all on one side."""
    data = [text.encode() for text in texts]
    visible = [text.translate(None, b' \t\n\r\f\v') for text in data]
    first = next((i for i, role in enumerate(roles) if role != 'system'), 0)
    return hash64(b'\0'.join([*visible, *map(str.encode, roles)])), hash64(data[first])


def keys_of(texts, dedup, bands, rows):
    """Return the numbers by which near-copies are found."""
    if dedup == 'simhash':
        from extras import filters
        return filters.simhash(shingles('\n'.join(texts)))
    if dedup == 'minhash':
        return band_keys(minhash(shingles('\n'.join(texts)), bands * rows), bands)
    return []


def clean_shard(source, pieces, folder, settings):
    """Send the documents of a shard through the stages. If FOLDER is there, a run has done it:

        documents.jsonl     the documents that passed, one a line
        numbers             of each: where its line begins, its bytes, its two hashes, and the keys
                            of near-copies, uint64
        notes.json          what came in, what was dropped, and what else the stages noted"""
    if folder.exists():
        return
    config, stages = make_stages(settings)
    notes = collections.defaultdict(collections.Counter)
    new = folder.with_suffix(f'.{os.getpid()}')     # it gets its name when all is written
    new.mkdir(exist_ok=True)

    def reject(place, error):
        path = place.rpartition(':')[0]
        if path not in notes['could not be read']:      # the first one says why
            notes['first'][f'{place}: {error}'] += 1
        notes['could not be read'][path] += 1

    with open(new / 'documents.jsonl', 'wb') as f, open(new / 'numbers', 'wb') as numbers:
        columns = collections.Counter()
        for document in documents_of(pieces, config, reject, columns):
            document['source'] = source
            notes['documents of sources'][source] += 1
            if passes(document, stages, notes):
                record = document.pop('record')
                document |= {name: record[name] for name in FACTS
                             if name not in document and record.get(name)}
                texts = document['texts']
                row = [f.tell(), size_of(document), *hashes_of(texts, document['roles']),
                       *keys_of(texts, config.dedup, config.bands, config.rows)]
                numbers.write(np.array(row, np.uint64))
                f.write(json.dumps(document).encode() + b'\n')
                if notes['documents'][[*stages][-1]] == config.max_docs:        # that passed
                    break
    if columns:
        notes['column of the text'] = columns
    (new / 'notes.json').write_text(json.dumps(notes))
    with contextlib.suppress(OSError):              # two parts may have done the same
        new.rename(folder)
    if not config.keep_downloads:
        from extras import hub
        for path, *_ in pieces:
            hub.delete(path)            # if it was fetched; files of yours stay


def begin_work():
    """A process does this first. Ctrl-C is for its parent, and if that is killed, nobody waits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        while os.getppid() == parent.pid and parent.is_alive():
            time.sleep(0.2)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def in_processes(jobs, n):
    """Call clean_shard(*job) for each job, in n processes (0: one per core)."""
    bar = functools.partial(tqdm, total=len(jobs), unit=' shards', disable=None)
    n = min(n or os.cpu_count(), len(jobs))
    if n <= 1:
        for job in bar(jobs):
            clean_shard(*job)
        return
    # Forked processes share the models of the stages. macOS and Windows can't fork like that.
    context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
    with concurrent.futures.ProcessPoolExecutor(n, context, begin_work) as pool:
        try:
            list(bar(pool.map(clean_shard, *zip(*jobs))))
        except concurrent.futures.process.BrokenProcessPool as e:
            raise Mistake('a process was killed, perhaps because memory ran out; what is done is '
                          f'kept, try again with --num_workers={(n + 1) // 2}') from e
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def clean_shards(jobs, n, max_docs):
    """Clean shards in n processes, and return the jobs that were done. With max_docs they are done
    one, two, four, ... at a time, until each source has that many documents: of a data set on a hub
    nobody fetches more than that takes."""
    if not max_docs:
        in_processes(jobs, n)
        return jobs
    done, counts = [], collections.Counter()
    while jobs := [job for job in jobs if counts[job[0]] < max_docs]:
        some, jobs = jobs[:len(done) + 1], jobs[len(done) + 1:]
        in_processes(some, n)
        for source, _, folder, _ in some:
            with open(folder / 'documents.jsonl', 'rb') as f:
                counts[source] += sum(1 for _ in f)
        done += some
    return done


def gather(folders, n_numbers, path):
    """Return the notes of all shards, added up; the shard of each of the n documents, (n,); and the
    numbers of each, uint64 (n_numbers, n), in a file, because memory may not hold them."""
    notes, counts = collections.defaultdict(collections.Counter), []
    with open(path, 'wb') as f:
        for folder in folders:
            for title, counter in json.loads((folder / 'notes.json').read_bytes()).items():
                notes[title].update(counter)
            counts.append(f.write((folder / 'numbers').read_bytes()) // (8 * n_numbers))
    n = sum(counts)
    table = np.memmap(path, np.uint64, 'r+', shape=(max(1, n), n_numbers))[:n].T
    return notes, np.repeat(range(len(folders)), counts), table


def read_back(folders, shard, begin, numbers):
    """Yield the documents of these numbers. Neighbors of a shard are read from one open file."""
    for s, neighbors in itertools.groupby(numbers, shard.item):
        with open(folders[s] / 'documents.jsonl', 'rb') as f:
            for i in neighbors:
                f.seek(begin[i])
                yield json.loads(f.readline())


# --- duplicates: of the documents that say the same, the first one stays --------------------------
# MinHash finds near-duplicates without comparing each document with each. Let one text have the
# n-grams a, b, c and another one b, c, d. They share 2 of 4: their Jaccard similarity J is 0.5. A
# hash function gives each n-gram a number that is as good as random:
#     n-gram      a     b     c     d
#     number      71    35    12    58
# The smallest number of the first text is 12, and so is that of the second. They agree because c,
# which has the smallest of the four numbers, is in both texts. If a or d had it, they would differ.
# Each of the four is as likely to have it as the others, so they agree with probability 2 / 4 = J.
# A text gets 256 such numbers from 256 hash functions, in 32 bands of 8. All 8 of a band agree with
# probability J^8, and at least one band of 32 with 1 - (1 - J^8)^32. Only texts that agree in a
# band have their n-grams compared:
#     J                                   0.4     0.5     0.9
#     probability of being compared       0.02    0.12    0.99999998
GOLDEN = np.uint64(0x9E3779B97F4A7C15)      # 2^64 / golden ratio, odd
# A word is a run of letters, digits and _ in UTF-8. A character of three bytes or more is a word of
# its own, because Chinese has no spaces.
WORD = re.compile(rb'[a-z0-9_\x80-\xdf]+|[\xe0-\xef]..|[\xf0-\xff]...', re.S)


def mix(h):
    """SplitMix64's finalizer (Steele et al. 2014): each bit of h changes all bits of the result."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def words_of(text):
    """Return the words of a text in lower case, as bytes."""
    return WORD.findall(text.encode('utf-8', 'surrogatepass').lower())


def ngrams(words, n):
    """Return the hash of each n words in a row, in order, uint64 (words - n + 1,)."""
    hashes = np.fromiter(map(zlib.crc32, words), np.uint64, len(words))
    total = np.zeros(max(0, len(words) - n + 1), np.uint64)
    for i in range(n):
        total = total * GOLDEN + hashes[i:i + len(total)]       # a polynomial, because order counts
    return mix(total)


def shingles(text, n=5):
    """Return the set of a text's word n-grams, as sorted hashes, uint64. A text of fewer than n
    words has one n-gram, which is all its words."""
    words = words_of(text)
    grams = np.sort(ngrams(words, max(1, min(n, len(words)))))
    # np.unique does the same, but takes three times as long for so few
    return np.append(grams[:1], grams[1:][grams[1:] != grams[:-1]])


def jaccard(a, b):
    """Return |A and B| / |A or B| of two sets of shingles; two empty sets share nothing: 0."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(1, len(a) + len(b) - shared)


@functools.lru_cache(4)
def hash_functions(k):
    """Return the a and b of k functions a x + b mod 2^32, uint32 (k, 1) each."""
    random = mix(np.arange(2 * k, dtype=np.uint64)) >> np.uint64(32)
    a, b = random.astype(np.uint32).reshape(2, k, 1)
    return a | np.uint32(1), b          # an odd a maps no two x to one value


def minhash(shingles, k=256):
    """Return the signature of a set of shingles, uint32 (k,): the smallest value that each of k
    hash functions has in the set. An empty set has the largest number."""
    a, b = hash_functions(k)
    x = (shingles >> np.uint64(32)).astype(np.uint32)                               # (shingles,)
    signature = np.full(k, 2 ** 32 - 1, np.uint32)
    for i in range(0, len(x), 500):     # that many hashes stay in the cache
        hashes = a * x[i:i + 500]                                                   # (k, 500)
        hashes += b
        signature = np.minimum(signature, hashes.min(1))                            # (k,)
    return signature


def band_keys(signature, bands):
    """Return one hash for each band of rows, uint64 (bands,)."""
    rows = signature.reshape(bands, -1).astype(np.uint64)                           # (bands, rows)
    return mix(rows @ GOLDEN ** np.arange(rows.shape[1], dtype=np.uint64))


def near_copies(columns, similar):
    """Return which documents are near-copies of earlier ones, bool (n,). columns: for each band,
    the keys of all documents, (n,). similar(i, j) compares two that share a key. A copy of a copy
    is a copy: if 3 is found to be like 1, and 7 to be like 3, earlier is {3: 1, 7: 1}, and only 1
    stays. Where many share a key, each is compared with at most 50 of those that stay, because
    comparing each with each would cost n^2."""
    earlier = {}            # a copy: an earlier document that says the same

    def first_of(i):
        while i in earlier:
            i = earlier[i]
        return i

    for keys in columns:
        values, counts = np.unique(keys, return_counts=True)
        shared = np.flatnonzero(np.isin(keys, values[counts > 1]))
        shared = shared[np.argsort(keys[shared], kind='stable')]    # stable: earlier ones first
        for _, group in itertools.groupby(shared.tolist(), keys.item):      # those of one key
            different = []              # of the group, those that are unlike all before them
            for i in group:
                for other in different[:50]:
                    a, b = sorted([first_of(other), first_of(i)])
                    if a != b and similar(other, i):
                        earlier[b] = a
                    if first_of(i) == first_of(other):
                        break
                else:
                    different.append(i)
    return np.isin(np.arange(len(keys)), [*earlier])


def find_copies(exact, keys, documents, min_similarity, dedup):
    """Return {reason: numbers of the documents that are copies of earlier ones}. exact: a hash of
    each, uint64 (n,); keys: those of each band, (bands, n); documents(numbers) yields some."""
    if dedup == 'none' or not len(exact):
        return {}
    left = np.sort(np.unique(exact, return_index=True)[1])      # the first one of each
    copied = {'exact duplicate': np.setdiff1d(np.arange(len(exact)), left)}
    columns = (column[left] for column in tqdm(keys, 'near duplicates', disable=None))

    @functools.lru_cache(512)
    def shingles_of(i):
        return shingles('\n'.join(next(documents([left[i]]))['texts']))

    similar = lambda i, j: jaccard(shingles_of(i), shingles_of(j)) >= min_similarity
    if dedup == 'minhash':
        copied['near duplicate'] = left[near_copies(columns, similar)]
    elif dedup == 'simhash':
        from extras import filters
        copied['near duplicate'] = left[filters.simhash_copies([*columns], near_copies)]
    return copied


# --- split: training or validation, by a hash of the text -----------------------------------------
# A random number would put a document on another side in the next run, and its copies on both
# sides. With a hash of the text a document stays where it is, next to its copies.
def held_out(hashes, val_fraction):
    """Return which of n documents are for validation, bool (n,): those whose hash, as a number in
    [0, 1), is below val_fraction, but at least one and not all. Of four documents with the hashes
    0.7 0.3 0.9 0.4 and val_fraction=0.1 the second one is held out, because one must be."""
    if len(hashes) < 2:
        return np.ones(len(hashes), bool)
    n_below = np.sum(hashes / 2 ** 64 < val_fraction)
    highest = np.sort(hashes)[np.clip(n_below, 1, len(hashes) - 1) - 1]
    return hashes <= highest


# --- tokenizer and bins ---------------------------------------------------------------------------
def make_tokenizer(config, special_tokens=(), train_texts=(), all_texts=()):
    """Return the tokenizer that a setting names. Only training texts decide about bpe's merges, but
    with char the characters of validation texts need ids, too."""
    name = config['tokenizer']
    try:
        if name == 'bpe':
            tok = Tokenizer.train(train_texts, config['vocab_size'], special_tokens,
                                  processes=config['num_workers'] or None)
        elif name == 'char':
            tok = Tokenizer.char(all_texts, special_tokens)
        elif name == 'byte':
            tok = Tokenizer.byte(special_tokens)
        else:
            tok = Tokenizer.gpt2(config['gpt2_dir']) if name == 'gpt2' else Tokenizer.load(name)
    except (ValueError, ConnectionError) as error:
        raise Mistake(error) from None
    print(f'tokenizer: {name}, {tok.vocab_size:,} tokens, hash {tok.hash}')
    return tok


def dtype_of(tok):
    return 'uint16' if tok.vocab_size <= 2 ** 16 else 'uint32'


def write_bin(path, texts, tok, end=()):
    """Write the ids of texts, each with its end, and nothing else: a bin. Return how many each has,
    and the hash of the file. `x = 1` ends and `y = 2` begins:
        id        120     273     32      49      4032             121     ...     uint16, two bytes
        token     'x'     ' ='    ' '     '1'     <|endoftext|>    'y'     ..."""
    texts, lengths, digest = iter(texts), [], hashlib.sha256()
    with open(path, 'wb') as f:
        while some := [*itertools.islice(texts, 128)]:      # the tokenizer takes them to all cores
            try:
                rows = tok.encode_batch(some)
            except ValueError as e:             # a character that it doesn't have
                raise Mistake(e) from None
            for ids in rows:
                data = np.array([*ids, *end], dtype_of(tok))
                f.write(data)
                digest.update(data)
                lengths.append(len(data))
    return lengths, digest.hexdigest()


def write_lines(path, lines):
    """Write lines of JSON. Return the hash of the file."""
    digest = hashlib.sha256()
    with open(path, 'wb') as f:
        for line in lines:
            f.write(data := f'{line}\n'.encode())
            digest.update(data)
    return digest.hexdigest()


# --- report: what came in, what was dropped and why, what is left ---------------------------------
def lost(notes):
    """Return 'could not be read: 2, the first a.txt:1: ...; dropped: short: 35'."""
    dropped = [counter for title, counter in notes.items() if title.startswith('dropped by ')]
    first = ''.join(f', the first {place}' for place in [*notes['first']][:1])
    return (f'could not be read: {notes["could not be read"].total()}{first}; '
            f'dropped: {shown(sum(dropped, collections.Counter()))}')


def shown(values):
    """Return a dict for people: {'short': 1200} is 'short: 1,200'."""
    return ', '.join(f'{name}: {value if isinstance(value, str) else f"{value:,}"}'
                     for name, value in values.items() if value != '') or 'none'


def sums(which, measures):
    """Return {'documents': 90, 'bytes': 90000} of some documents, bool (n,). measures: {'bytes': of
    each document, ...}"""
    return {'documents': int(which.sum()),
            **{what: int(values[which].sum()) for what, values in measures.items()}}


def write_report(folder, title, notes, sizes, sources, card):
    """Write report.md, whose first part is printed, and report.json. sizes: what each file holds,
    {'train': {'documents': 90, ...}, ...}; sources: what is known of each. Return what
    meta.json repeats."""
    facts = {'sources': sources, **{what: {side: sizes[side][what] for side in ('train', 'val')}
                                    for what in sizes['train']}}
    documents, n_bytes, stages = notes['documents'], notes['bytes'], []
    rows = ['| stage | docs in | docs out | bytes in | bytes out | dropped |',
            '|---|---|---|---|---|---|']
    for before, name in itertools.pairwise(documents):
        numbers = documents[before], documents[name], n_bytes[before], n_bytes[name]
        dropped = dict(notes[f'dropped by {name}'].most_common())
        columns = 'name', 'docs_in', 'docs_out', 'bytes_in', 'bytes_out', 'dropped'
        stages.append(dict(zip(columns, (name, *numbers, dropped))))
        reasons = ', '.join(f'{reason}: {n:,} ({n / documents[before]:.1%})'
                            for reason, n in dropped.items())
        rows.append(f'| {name} | {" | ".join(map("{:,}".format, numbers))} | {reasons} |')
    rows += ['', *(f'- {name}: {shown(size)}' for name, size in sizes.items()), f'- {lost(notes)}']
    print(*rows, sep='\n')
    counts = {title: counter for title, counter in sorted(notes.items())
              if not re.match('dropped by |documents$|bytes$|first$|could not be read$', title)}
    rows += [f'- {title}: {shown(values)}' for title, values in {**sources, **counts}.items()]
    rows += [f'- {place}' for place in notes['first']]
    if card:
        rows += ['', 'Data card, in fractions of the training tokens:', '']
        rows += [f'- {name}: {value}' for name, value in card.items()]
    (folder / 'report.json').write_text(json.dumps({
        'stages': stages, 'malformed': notes['could not be read'].total(), **facts,
        'counts': counts, 'card': card}, indent=1))
    page = '\n'.join([f'# {title}', '', *rows, ''])
    (folder / 'report.md').write_text(page, 'utf-8', 'backslashreplace')
    return facts


def next_command(kind, out_dir, n_tokens, streaming=False):
    """Return the command that trains on the data. The preset reads 256 tokens at a time, and a bin
    must have more."""
    if kind != 'text':
        from extras import chats
        return chats.next_command(kind, out_dir)
    data, n = shlex.quote(str(out_dir)), min(n_tokens.values())
    flags = f'--block_size={n - 1} ' if n <= 256 else ''
    if streaming:
        flags += f'--streaming={data}/shards '
    name = f'out/{out_dir.resolve().name}'
    runs = itertools.chain([name], (f'{name}_{i}' for i in itertools.count(2)))
    run = next(itertools.filterfalse(os.path.exists, runs))
    return (f'python train.py config/quickstart.py --sample_prompt= {flags}--data_dir={data} '
            f'--out_dir={shlex.quote(run)}')


# --- out_dir: the folder of results ---------------------------------------------------------------
FOLDERS = {'text': 'data/quickstart', 'sft': 'data/sft', 'preference': 'data/pairs'}
# what an earlier run may have left; other files are the user's
RESULTS = re.compile(r'meta\.json|report\.(md|json)|audit\.md|shards|(train|val)\.(bin|jsonl)|'
                     r'val_.+\.bin')
WORK = '.prepare_py'            # in out_dir, while a run works
# settings that change no token
HARMLESS = {'out_dir', 'overwrite', 'num_workers', 'download_dir', 'keep_downloads', 'part',
            'audit', 'preset'}
# settings that are used after cleaning
LATER = set('tokenizer vocab_size gpt2_dir val_fraction write temperature min_similarity'.split())


def check_out_dir(out_dir, config, files):
    """Refuse a folder with files of others, with the data of other sources, or with an input."""
    names = os.listdir(out_dir) if out_dir.is_dir() else []
    meta = json.loads((out_dir / 'meta.json').read_text('utf-8')) if 'meta.json' in names else {}
    require(not names or 'nanoparrot-data-' in meta.get('format', '') or WORK in names,
            f'{out_dir} has {min(names, default="")}, which was not prepared there; choose another '
            '--out_dir')
    if meta and not config['overwrite']:
        for name in ('kind', 'sources', 'source'):
            old = meta.get('config', {}).get(name)
            require(json.dumps(old) == json.dumps(config[name]),
                    f'{out_dir} has data of --{name}={old}; --overwrite=True replaces them, or '
                    'choose another --out_dir')
    for path in files:                  # wherever links lead
        require(not os.path.realpath(path).startswith(os.path.realpath(out_dir) + os.sep),
                f'{path} is read, and results may replace it; choose another --out_dir')


def state_of(config, files):
    """Return what decides about clean shards: settings, and the sizes and times of what is read and
    of programs. What was done in another state is done again."""
    decisive = [config[name] for name in sorted({*config} - HARMLESS - LATER | {'audit'})]
    lists = [path for name in LISTS for path in config[name].split(',')]
    inner = [path for name in lists if os.path.exists(name) or glob.glob(name)
             for path in find_files(name, True)[0]]
    programs = glob.glob(os.path.join(os.path.dirname(__file__), 'extras/*.py'))
    stamps = [(path, os.path.exists(path) and (os.path.getsize(path), os.path.getmtime(path)))
              for path in [*files, *inner, __file__, *sorted(programs)]]
    return json.dumps([decisive, stamps])


def work_folder(out_dir, state, part):
    """Return out_dir/.prepare_py/HASH, with the shards that an interrupted run has cleaned in the
    same state, and a lock, which holds until this process ends. Parts share it."""
    top = out_dir / WORK
    require(not top.is_symlink(), f'{top} is a link, and what is there would go; remove it')
    top.mkdir(parents=True, exist_ok=True)
    lock = open(top / 'lock', 'a+')
    if os.name == 'posix':
        import fcntl
        try:
            fcntl.lockf(lock, (fcntl.LOCK_SH if part else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise Mistake(f'another prepare.py works in {out_dir}; wait for it, or choose another '
                          '--out_dir') from None
        except OSError:
            pass                        # some disks of clusters have no locks
    work = top / f'{hash64(state.encode()):016x}'
    if not part:
        for old in {*top.iterdir(), work / 'new'} - {work, top / 'lock'}:
            remove(old)
    (work / 'new').mkdir(parents=True, exist_ok=True)
    return work, lock


def remove(folder):
    """Delete a folder, under another name first: a kill leaves nothing that looks whole."""
    gone = folder.with_name(f'{folder.name}.gone')
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(OSError):          # Windows renames no folder with an open file
        folder.replace(gone)
    for left in gone, folder:
        shutil.rmtree(left, ignore_errors=True)


def publish(new, out_dir, meta, tok):
    """Move what is in the folder `new` into out_dir, with the tokenizer and meta.json. All of it is
    on the disk before old files go. meta.json goes first and comes last: a folder without it is no
    data."""
    if tok:
        tok.save(new / 'tokenizer.json')
        meta |= {'dtype': dtype_of(tok), 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash}
    meta = {'format': 'nanoparrot-data-1', 'mixed': False, **meta}
    new_meta = new.with_name('meta.json')
    new_meta.write_text(json.dumps(meta, indent=1))
    (out_dir / 'meta.json').unlink(missing_ok=True)
    for path in out_dir.iterdir():
        if RESULTS.fullmatch(path.name):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()
    for path in [*new.iterdir()]:
        path.replace(out_dir / path.name)
    new_meta.replace(out_dir / 'meta.json')
    remove(new.parent)
    shutil.rmtree(out_dir / WORK, ignore_errors=True)


# --- a lone text: a model trains on its beginning, and its end is held out ------------------------
FOR_LONE_TEXTS = set('source kind out_dir overwrite tokenizer vocab_size val_fraction pii '
                     'max_files num_workers download_dir keep_downloads gpt2_dir'.split())


def is_lone_text(files):
    """Whether these are one file of text, without lines <|endoftext|> that divide it."""
    if len(files) == 1 and not ends_with(files[0], RECORDS):
        unreadable = OSError, EOFError, ValueError, zlib.error
        with contextlib.suppress(*unreadable), open_file(files[0]) as f:
            return not any(re.fullmatch(rb'<\|endoftext\|>\r?\n?', line) for line in f)
        return True                     # it can't be read, which is said later


def prepare_lone_text(path, folder, config, tok):
    """Write train.bin and val.bin. Return the tokenizer, and what meta.json says of the text. One
    text needs no <|endoftext|>, so byte and char have no special tokens here: with char, Tiny
    Shakespeare has 65."""
    def refuse(place, error):
        raise Mistake(f"{path} can't be read: {error}")

    for name in typed - FOR_LONE_TEXTS:
        is_raw = name == 'mode' and config['mode'] == 'raw'         # a lone text stays as it is
        require(is_raw, f'{name}={config[name]} needs documents: a folder or .jsonl, not {path}')
    found, facts = collections.Counter(), {'sha256': {}, 'tokens': {}}
    text = ''.join(record['text'] for _, record in read(path, refuse))
    require('\0' not in text, f'{path} has zero bytes, so it is no text')
    text = hide(text, found) if config['pii'] else text
    print(f'personal data replaced: {shown(found)}')
    cut = int(len(text) * (1 - config['val_fraction']))
    require(0 < cut < len(text), f'{path} has {len(text)} characters, too few to hold some out')
    pieces = {side: [half[i:i + PIECE] for i in range(0, len(half), PIECE)]
              for side, half in (('train', text[:cut]), ('val', text[cut:]))}
    special_tokens = () if config['tokenizer'] in ('byte', 'char') else SPECIAL_TOKENS
    tok = tok or make_tokenizer(config, special_tokens, pieces['train'], text)
    for side, some in pieces.items():
        lengths, facts['sha256'][side] = write_bin(folder / f'{side}.bin', some, tok)
        facts['tokens'][side] = sum(lengths)
        print(f'{side}.bin: {sum(lengths):,} tokens')
    return tok, facts


# --- the job --------------------------------------------------------------------------------------
if __name__ == '__main__':
    config = configure(globals(), BOUNDS)       # config files and flags replace settings
    smallest = 256 + len(SPECIAL_TOKENS)
    require(tokenizer in ('bpe', 'byte', 'char', 'gpt2') or tokenizer.endswith('.json'),
            f'{tokenizer=} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
    require(tokenizer != 'bpe' or vocab_size >= smallest,
            f'{vocab_size=} must be >= {smallest}: bytes and special tokens')
    parts = [int(number) for number in re.findall(r'\d+', part or '1/1')]
    require(len(parts) == 2 and 1 <= parts[0] <= parts[1],
            f'{part=} must look like 3/16: the third of 16')
    require(not part or not max_docs, '--part shares all of the work; leave --max_docs out')
    require(kind == 'text' or write == 'bins', '--write=text needs --kind=text')
    writes_examples = kind != 'text' and not {'source', 'sources'} & typed
    require('n_examples' not in typed or kind == 'sft' and writes_examples,
            '--n_examples is the number of examples that we write: it needs --kind=sft and no '
            '--source')
    if sources is not None or temperature != 1:
        from extras import mixture
        mixture.check(config, typed)
    sources = {source: (source, None)} if sources is None else sources
    if kind != 'text':
        from extras import chats
        if kind == 'preference' and dedup != 'none':
            # near-copies stay: two pairs may differ in the word that they teach
            config['dedup'] = dedup = 'exact'
        if writes_examples:
            examples, sources = chats.examples(kind, n_examples, typed), {}
    out_dir = pathlib.Path(out_dir or FOLDERS[kind])

    files_of, passed_over = {}, {}
    for name, (path, _) in sources.items():
        paths, others = find_files(path, mode == 'raw', download_dir)
        files_of[name], passed_over[name] = paths[:max_files or None], others
        print(f'{name}: {len(files_of[name]):,} files' + (others and f'; passed over: {others}'))
    files = sum(files_of.values(), [])
    check_out_dir(out_dir, config, files)
    settings = json.dumps({**config, 'sources': sources})
    make_stages(settings)                   # a list that is missing is refused now
    is_lone = kind == 'text' and is_lone_text(files)
    tok = None
    if kind == 'text' and tokenizer not in ('bpe', 'byte', 'char'):     # is it there?
        tok = make_tokenizer(config)
        require(is_lone or '<|endoftext|>' in tok.special, f'{tokenizer} has no <|endoftext|> to '
                'end documents; use another, or --tokenizer=bpe')
    # meta.json, whose hash train.py remembers, gets only the settings that change the data.
    decisive = {name: value for name, value in config.items() if name not in HARMLESS}
    meta = {'config': decisive, 'sources': sources}
    state = state_of(config, files)
    work, lock = work_folder(out_dir, state, part)

    # A lone text and our own examples pass no stages.
    if is_lone or writes_examples:
        if is_lone:
            tok, facts = prepare_lone_text(files[0], work / 'new', config, tok)
        else:
            facts = {'sha256': {side: write_lines(work / f'new/{side}.jsonl', lines)
                                for side, lines in examples.items()}}
            print(f'{out_dir}: {n_examples:,} conversations to train on, 300 held out')
        publish(work / 'new', out_dir, meta | facts, tok)
        print('next:', next_command(kind, out_dir, facts.get('tokens')))
        sys.exit()

    # 1. clean: each document by itself; processes share the shards
    shards = cut_into_shards(files_of, kind)
    jobs = [(*shard, work / f'{i:05}', settings) for i, shard in enumerate(shards)]
    jobs = clean_shards(jobs[parts[0] - 1::parts[1]], num_workers, max_docs)
    require(state_of(config, files) == state,
            'a file changed while it was read; run the same command again')
    if part:
        print(f'part {part}: {len(jobs)} shards are clean; after all parts, run without --part')
        sys.exit()

    # 2. duplicates: of those that say the same, the first one stays
    n_numbers = 4 + len(keys_of([''], dedup, bands, rows))      # of a document, see clean_shard()
    folders = [folder for _, _, folder, _ in jobs]
    notes, shard, table = gather(folders, n_numbers, work / 'table')
    owners = np.array([source for source, *_ in jobs])[shard]       # the source of each document
    if max_docs:
        some = [np.flatnonzero(owners == name)[:max_docs] for name in sources]
        some = np.sort(np.concatenate(some))
        notes['dropped by max_docs'] = collections.Counter({'enough': len(owners) - len(some)})
        shard, owners, table = shard[some], owners[some], table[:, some]
        notes['documents']['max_docs'], notes['bytes']['max_docs'] = len(some), int(table[1].sum())
    if 'column of the text' in notes:
        print(f'the text is in the column {shown(notes["column of the text"])}')
    begin, size, exact, split, *keys = table                        # (n documents,) each
    documents = functools.partial(read_back, folders, shard, begin)     # of some numbers
    left, copied = np.arange(len(shard)), find_copies(exact, keys, documents, min_similarity, dedup)
    for reason, numbers in copied.items():
        left = np.setdiff1d(left, numbers)
        notes[f'dropped by {reason}s'] += collections.Counter({reason: len(numbers)})
        notes['documents'][f'{reason}s'] = len(left)
        notes['bytes'][f'{reason}s'] = int(size[left].sum())

    # 3. split by a hash: the same in every run
    owners = owners[left]
    in_val = held_out(split[left], val_fraction)
    of_source = {name: ~in_val & (owners == name) for name in sources}
    results = {'train': ~in_val, 'val': in_val}
    if kind == 'text' and len(sources) > 1:
        results |= {f'val_{name}': in_val & (owners == name) for name in sources}
    missing = [name for name, which in of_source.items() if not which.any()]
    if missing and (kind == 'text' or in_val.all()):
        if not len(shard):          # else other settings may do, for which the shards are clean
            remove(work)
            shutil.rmtree(out_dir / WORK)
        raise Mistake(f'no documents are left to train on from the source {" and ".join(missing)} '
                      f'({len(left)} in all; {lost(notes)}; of copies, the first one stays); give '
                      'more, drop fewer, or change --val_fraction')

    # 4. tokenizer: of training texts only, of at most a gigabyte, which a hash draws
    texts = lambda numbers: (document['texts'][0] for document in documents(numbers))
    if kind == 'text' and not tok:
        is_drawn = exact[left] / 2 ** 64 <= 1e9 / size[left[~in_val]].sum()
        tok = make_tokenizer(config, SPECIAL_TOKENS, texts(left[~in_val & is_drawn]), texts(left))

    # 5. bins; conversations and pairs are lines of JSON, which need no tokenizer
    hashes, n_tokens = {}, np.zeros(len(left), int)                 # of each document
    for name, which in results.items():
        path, some = work / f'new/{name}', left[which]
        if not tok:
            hashes[name] = write_lines(f'{path}.jsonl', map(chats.to_line, documents(some)))
            continue
        # with --write=text the ids of training texts are only counted
        path = os.devnull if (name, write) == ('train', 'text') else f'{path}.bin'
        end = [tok.special['<|endoftext|>']]
        n_tokens[which], hashes[name] = write_bin(path, texts(some), tok, end)
    if write == 'text':
        from extras import records
        hashes |= records.write_shards(work / 'new', shard[left[~in_val]],
                                       documents(left[~in_val]))

    # 6. report
    measures = {'tokens': n_tokens} if tok else {}
    measures['bytes'] = size[left]
    sizes = {name: sums(which, measures) for name, which in results.items()}
    about = {name: {'path': path, 'read': notes['documents of sources'][name],
                    'passed_over': passed_over[name], **sums(of_source[name], measures)}
             for name, (path, _) in sources.items()}
    if tok and len(sources) > 1:
        from extras import mixture
        mixture.add_passes(about, sources, temperature, sizes)
    card = None
    if any(config[name] for name in OPTIONS):
        from extras import filters
        card, benchmarks = filters.report(work / 'new', config, notes, copied, documents, left,
                                          n_tokens * ~in_val, owners, about, mode_of, hash64)
        meta |= benchmarks
    facts = write_report(work / 'new', out_dir, notes, sizes, about, card)
    publish(work / 'new', out_dir, {**meta, **facts, 'sha256': hashes}, tok)
    print('next:', next_command(kind, out_dir, facts.get('tokens'), write == 'text'))
