"""
Point clean.py at text and you get shards of clean text, and a table of what was dropped and why.

    python clean.py                                 # Python's own standard library, without network
    python clean.py --source=FOLDER --out_dir=data/mine
    python clean.py --source='web/*.jsonl.gz' --languages=en,de --audit=20
    python clean.py config/mix.py                   # sources = {'web': ('web/*.jsonl', 50), ...}
    python prepare.py                               # next: tokens for train.py

    by itself, in processes:    read -> one form -> rules -> personal data
    with all the others:        duplicates -> shards -> report

A document is a file of text, or a record of .jsonl. It writes out_dir/shards/00000.jsonl.gz, ...,
lines {"text": ..., "path": ..., "source": ...}, the funnel in report.md and report.json, and
meta.json. The same command resumes a run that was interrupted. You should see 12 MB of Python
become 9.6 in a few seconds. The decision made here is the corpus: a model shares its defects. Read
report.md before you go on.

The rules come first, because they are what you will change; the job, which puts all together, is
at the end. Without extras/ this file works with dedup.py and configurator.py beside it, and
--pii=False.
"""
import array, ast, collections, concurrent.futures, contextlib, ctypes, functools, glob
import gzip, hashlib, io, itertools, json, keyword, multiprocessing, os, pathlib, re, shlex
import shutil, signal, sys, sysconfig, tempfile, types, unicodedata, warnings, zlib
from typing import Literal
from configurator import Mistake, configure, require
import filelock
import numpy as np
from dedup import exact_copies, hash64, near_copies, shingles, signature
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, codeparrot, hf:OWNER/NAME, file, folder, glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
out_dir = 'data/clean'          # folder of results
overwrite = False               # True: replace the data of another source in out_dir
mode: Literal['auto', 'code', 'prose', 'raw'] = 'auto'      # auto: by the ending of the file
encoding = ''                   # of files of text, such as cp1250; '' = UTF-8, UTF-16 with its mark
text_field = ''                 # field of records that has the text; '' = text, content, code, ...
min_words = 20                  # prose: words; 0 switches a rule off, here and below
max_symbols = 0.3               # prose: fraction of visible characters that are symbols, such as #
max_repetition = 0.7            # prose: fraction of lines or words that repeat
max_gibberish = 0.2             # prose: fraction of words that hardly any language spells
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # the last two drop near-copies
bands = 32                      # minhash: texts that agree in a band are compared
rows = 8                        # minhash: numbers of a band; more of them, fewer comparisons
min_similarity = 0.85           # minhash: Jaccard similarity of n-grams that makes a copy
max_files = 0                   # files of each source; 0 = all
num_workers = 0                 # processes that share the work; 0 = all cores
# options: a line that imports extras/ asks for what not everybody needs
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
markup: Literal['auto', 'none', 'html', 'latex'] = 'auto'   # what goes; auto: of .html and .tex
cluster = ''                    # address of a Dask scheduler, whose machines share this disk
url_block = ''                  # file of domains to drop, one a line
url_allow = ''                  # file of domains that are never dropped
licenses = ''                   # the only licenses to keep: mit,apache-2.0,unknown; '' = all
languages = ''                  # such as en,de: drop prose clearly in another one
perplexity_reference = ''       # good text: its n-grams predict each document
min_bits = 0.5                  # perplexity, bits per byte: below is boilerplate
max_bits = 5.0                  # perplexity, bits per byte: above is noise
quality_good = ''               # texts as you want them, to train a classifier
quality_bad = ''                # texts as you do not want them
toxic_words = ''                # file of words, one a line
decontaminate = ''              # benchmark files, a,b,...: drop what shares 13 words in a row
audit = 0                       # documents to show in audit.md for each reason, and a data card
# settings that name files
LISTS = ('url_block url_allow perplexity_reference quality_good quality_bad toxic_words '
         'decontaminate').split()
OPTIONS = [*LISTS, 'licenses', 'languages', 'audit']        # they ask for extras/text/filters.py
# the lowest and the highest value; any other number must be at least 0
BOUNDS = {'bands': (1, 1024), 'rows': (1, 64), 'num_workers': (0, 1024), **dict.fromkeys(
    'max_symbols max_repetition max_gibberish min_similarity'.split(), (0, 1))}


# --- rules: why a document is not worth learning from ---------------------------------------------
# A rule of yours is two lines here, or a stage in make_stages.
# Each rule drops good documents, too, so each says its reason. Rules come before duplicates for two
# reasons: they need one document at a time, so processes can share the work; and of several copies
# the first one stays, so if a rule dropped that one later, no copy would be left.
NO_SPACES = re.compile('[\u0e01-\U0010ffff]')       # scripts without spaces, such as Thai, Chinese


def prose_reason(text, min_words=20, max_symbols=0.3, max_repetition=0.7, max_gibberish=0.2):
    """Return why to drop a text of prose, or None. A limit of 0 switches its rule off."""
    head = text[:100_000]           # enough to judge by
    words = head.lower().split()
    # two characters of a script without spaces make about a word
    if len(words) < min_words and len(NO_SPACES.findall(text)) < 2 * min_words:
        return 'short'                                                  # Page not found
    if max_symbols and symbol_share(head) > max_symbols:
        return 'symbols'                                                # *** >>> $$$ <<< ***
    if max_repetition and repeated_share(head, words) > max_repetition:
        return 'repetitive'                                             # buy buy buy buy buy
    if max_gibberish and is_gibberish(head, max_gibberish):
        return 'gibberish'                                              # qwrtzpl x4k9f2 bcdfghj


GENERATED = re.compile('auto-?generated|automatically generated|do not edit\\b|'
                       'generated (?:from|by|with|using)\\b', re.I)
CONFIG_OR_TEST = re.compile('unit tests?|test file|configuration file', re.I)


def code_reason(text, is_python=True):
    """Return why to drop a program, or None: the rules of CodeParrot, with its numbers. Two rules
    drop only 7 in 10 of what they find: texts whose chance, in [0, 1), is below 0.7. The chance is
    a hash of the text, so the next run drops the same texts. It can't be the hash of the split:
    held-out texts are those with a hash below 0.1, so these rules would drop all that they find
    among them."""
    lines = text.split('\n')
    data = text.encode('utf-8', 'surrogatepass')
    head = '\n'.join(lines[:5])
    chance = hash64(b'rules' + data) / 2 ** 64
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
    if not compiles(text):
        return 'does not parse'                                         # print 1


SIGNS = bytes(b for b in range(128) if not chr(b).isalnum())
SPACES = bytes(b for b in range(128) if chr(b).isspace())
RULER = re.compile(r'\n[ \t|+]*([^\w\s|+])\1{2,}(?:[ \t|+]+\1+)*[ \t|+]*$', re.M)    # |---|---|


def symbol_share(text):
    """Return the share of the visible characters that are no letters, digits or marks, without
    rulers."""
    text = RULER.sub('', f'\n{text}')
    data = text.encode('ascii', 'ignore')           # most of the text, counted by tables
    others = collections.Counter('' if text.isascii() else re.sub('[\0-\x7f]+', '', text))
    letters = len(data.translate(None, SIGNS)) + sum(
        n for c, n in others.items() if c.isalnum() or unicodedata.category(c)[0] == 'M')
    visible = len(data.translate(None, SPACES)) + sum(
        n for c, n in others.items() if not c.isspace())
    return (visible - letters) / max(1, visible)


def repeated_share(text, words, window=200):
    """Return the share of the lines of a text that repeat, or, if that is larger, of the words in
    windows of 200. The share of all words would grow with length: 0.88 in Tiny Shakespeare."""
    share = lambda items: 1 - len(set(items)) / max(1, len(items))
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    lines = [*filter(None, map(str.strip, text.split('\n')))]
    return max(sum(map(share, windows)) / len(windows), share(lines) if len(lines) >= 5 else 0)


ODD_WORD = re.compile(r'\w*[^aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ\W\d_]{6}|'     # qwrtzpl
                      r'\w*[^\W\d_]\d+[^\W\d_]\w*\d|'                         # x4k9
                      r'\w{31}', re.I)                                        # aaaaaaaaaaa...
LATIN_WORD = re.compile('[A-Za-z0-9À-ÿ][A-Za-z0-9À-ÿ]+')        # {2,} would be slower
# of each character of Latin-1: a vowel (a), a consonant (c), a digit (1), or no part of a word
KINDS = bytes(ord(' ' if not LATIN_WORD.match(2 * c) else '1' if c.isdigit() else
                  'c' if ODD_WORD.match(6 * c) else 'a') for c in map(chr, range(256)))
LETTERS = bytes.maketrans(b'ac1', b'www')


def is_gibberish(text, limit):
    """Return whether more than this share of the words in Latin script are spelled as in hardly any
    language. Counting classes of characters gives an upper bound of that number at little cost,
    so only 1 text in 1,000 has so many that its words are looked at."""
    kinds = b' ' + text.encode('latin-1', 'replace').translate(KINDS)
    most = kinds.count(b'cccccc') + kinds.count(b'1c') + kinds.count(b'1a')
    kinds = kinds.translate(LETTERS)
    if most + kinds.count(31 * b'w') <= limit * kinds.count(b' ww'):
        return False
    words = LATIN_WORD.findall(text)
    return sum(map(bool, map(ODD_WORD.match, words))) > limit * len(words)


# --- one form: a text gets one form, whatever its source ------------------------------------------
# Otherwise a tokenizer spends its vocabulary on such differences, and a model learns to write them.
# Control characters but tab and newline, with what a terminal obeys (colors, links, titles), soft
# hyphens, zero-width signs, byte order marks.
CONTROL = re.compile(
    '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u2028\u2029\u2060\ufeff\ufff9-\ufffb]'
    r'(?:(?<=\x1b)(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|'
    r'[PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|(?<=\x9b)[\d;]*m)?')
PLAIN = bytes([*range(32, 127), *b'\t\n\r'])     # of ASCII, what needs no look at each character
ODD_SPACE = '[\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]'
LINE_ENDS = '\x0b\x0c\x1c\x1d\x1e\u2028\u2029'      # vertical tab, new page, separators
# A block of code in a text: between fences, those of Org and AsciiDoc, too, or indented below an
# empty line.
FENCED = re.compile(r'''
    ^(?: (?<!\S\n) | (?![ \t>]*~) )                     # ~~~ below a line makes a heading of it
    (?: (?: [ \t>*+-] | \d+[.)] )*                      # the fence may be in a list or a quote
      (?P<asciidoc> \[(?:(?i:source|listing|console)\b|[,%#.]|\w+=)[^\n]*\]\n(?=-{4,}$) )?
      (?P<fence> `{3,}(?=[^`\n]*$) | ~{3,} | \#\+(?=(?i:begin_(?:src|example)))
               | (?(asciidoc)-{4,}$|(?!)) )
      [^\n]* (?: \n.*?^ (?: [ \t>*+-] | \d+[.)] )* (?P=fence) (?: [`~]* | (?i:end_)\w+ ) [ \t]*$
               | .* )                                   # a fence that nothing closes
    | (?<=\n\n)(?=[ \t]+\S) (?: \s*^(?:[ ]{3}|\t)[ \t]*\S[^\n]* )+ )''', re.M | re.S | re.X)
SIGNS_OF_CODE = '```', '~~~', '#+', ']\n----', '\n\n   ', '\n\n\t'


def normalise(text, mode):
    """Return a text in one form. Code: a newline ends a line. Prose: no control characters, Unicode
    is composed (NFC: e and its accent are one character), one space in place of several. Raw: as it
    is."""
    if mode == 'raw':
        return text
    text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    text = without_controls(text, mode)
    if mode != 'prose':
        return text
    if not text.isascii():
        # a pile of accents would take NFC hours
        text = re.sub('([\u0300-\u036f]{30})[\u0300-\u036f]+', r'\1', text)
        text = unicodedata.normalize('NFC', text)
    text = re.sub(r'\A\s*\n', '', text)
    pieces, begin = [], 0
    for code in FENCED.finditer(text) if any(sign in text for sign in SIGNS_OF_CODE) else ():
        pieces += [one_space(text[begin:code.start()]), code[0]]
        begin = code.end()
    return ''.join([*pieces, one_space(text[begin:])]).rstrip()


def without_controls(text, mode):
    """Return code without zeros, and prose without control characters and what they make a terminal
    do, such as color a word. N, backspace, N is a bold N there: one N stays."""
    if mode == 'raw' or text.isascii() and not text.encode().translate(None, PLAIN):
        return text
    if mode != 'prose':
        return text.replace('\0', '')
    if '\b' in text:        # as many characters go as backspaces follow
        text = re.sub('([^\b\n]{0,80})(\b+)', lambda m: m[1][:-len(m[2])], text)
    return CONTROL.sub(lambda m: '\n' if m[0] in LINE_ENDS else '', text)


def one_space(text):
    """Put one space or empty line in place of several, but leave the indentation of lines."""
    if '  ' in text or re.search(ODD_SPACE, text):
        # (?<=\S.) means: not at the beginning of a line. A lone space, (?<! ), needs no change.
        text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text)
    return re.sub(r'\n\s*\n', '\n\n', text.replace(' \n', '\n'))


PYTHON = '|'.join(keyword.kwlist + keyword.softkwlist)
# two words in a row, of which none is Python's: no program begins so
SENTENCE = re.compile(rf'(?:\s|#[^\r\n]*[\r\n])*(?!(?:{PYTHON})\b)[^\W\d]\w*[ \t]+'
                      rf'(?!(?:{PYTHON})\b)[^\W\d]')


def mode_of(text, path):
    """Return how to treat a text, by the end of its path: 'code' is Python, 'other code' any other
    language, 'prose' may hold code, which stays. Without a known ending, what parses is Python, if
    it does something: `yes` and `a: b` do nothing."""
    for mode, endings in ('code', '.py'), ('prose', PROSE), ('other code', OTHER_CODE):
        if ends_with(path, endings):
            return mode
    tree = None if SENTENCE.match(text) else compiles(text, ast.PyCF_ONLY_AST)
    busy = [node for node in (tree.body if tree else ())
            if not isinstance(node, ast.Expr | ast.AnnAssign) or isinstance(node.value, ast.Call)]
    return 'code' if busy else 'prose'


def compiles(program, flags=0):
    """Return what Python makes of a text: a program, or a tree with flags=ast.PyCF_ONLY_AST, or
    None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')         # of odd escapes in strings
            return compile(program, 'program', 'exec', flags, dont_inherit=True)
    except Exception:                               # deep nesting: MemoryError, RecursionError
        return None


# --- kinds of files, by their endings -------------------------------------------------------------
HTML = '.html', '.htm', '.xhtml'
PROSE = '.txt', '.md', '.markdown', '.rst', '.tex', '.org', '.adoc', *HTML
OTHER_CODE = tuple('.c .h .cc .cpp .cxx .hpp .cs .java .kt .scala .swift .js .jsx .ts .tsx .go .rs '
                   '.rb .php .pl .pm .lua .r .jl .hs .ml .sh .bash .sql .css .scss .vue .dart .ex '
                   '.erl .clj .lisp .f90 .pas .asm .s .yaml .yml .toml .ini .cmake'.split())
LINES = '.jsonl', '.ndjson', '.jsonlines'
TABLES = '.json', '.parquet', '.csv', '.tsv', '.ipynb'      # extras/text/formats.py reads these
PACKED = '.zst', '.bz2', '.xz'                              # and these; .gz needs no help


def ends_with(path, endings):
    """Whether a file is of these kinds, packed or not: ends_with('a.jsonl.gz', LINES)."""
    return re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()).endswith(endings)


# --- read: a record becomes a document ------------------------------------------------------------
#     {'text': 'import abc\n...', 'path': 'lib/abc.py', 'source': 'stdlib', ...}
# A record's text has one of these names, whatever else is there; three are CodeSearchNet's.
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
PLACES = ('repo_name max_stars_repo_name repository_name repo '
          'path max_stars_repo_path func_path_in_repository').split()
# what is kept of a record beside its text
FACTS = 'url license licence max_stars_repo_licenses'.split()
KEPT = ['text', 'path', 'source', *FACTS]
LONG = 4_000_000                # characters; a longer text is cut into pieces, so short that
PIECE = 100_000                 # prepare.py can hold out about a tenth of it
NO_TEXT = 'no text in a usual field: name it with --text_field=NAME'
NOT_UTF8 = ('not UTF-8, nor what --encoding=NAME says (cp1252: Western, cp1251: Cyrillic, '
            'shift_jis, gb18030, utf-16-le ...)')
# A byte that means nothing is read as \udc80 to \udcff, half of a pair; others are from JSON.
HALF = re.compile('[\ud800-\udfff]')


def texts_at(source, text_field=''):
    """Yield the texts at a path, in the form that documents have."""
    for path in find_files(source)[0]:
        for document in read(path, text_field):
            if not check_text(document, collections.defaultdict(collections.Counter)):
                yield normalise(document['text'], mode_of(document['text'], document['path']))


def read(path, text_field='', encoding=''):
    """Yield a document for each text or record of a file. Its 'why' says why there is no text, or
    is None; 'lost' is the size in bytes of what can't be read. Nothing is raised, because one of a
    thousand files is damaged. text_field None: records, with all columns."""
    names = TEXT_NAMES if text_field == '' else [text_field]
    has_records = ends_with(path, LINES + TABLES)
    number = n_read = 0         # of the last text, line or row; bytes since then

    def counted(lines):
        nonlocal n_read
        for line in lines:
            n_read += n_bytes(line)
            yield line

    try:
        lines = counted(lines_of(path, encoding))
        if ends_with(path, TABLES):
            from extras.text import formats
            columns = None if text_field is None else [*names, *PLACES, *FACTS]
            entries = formats.records_of(path, lines, columns)
            n_read = 0          # a list is read before its first record
        else:
            entries = map(record_of, lines) if has_records else texts_in(lines)
        for number, entry in enumerate(entries, 1):
            lost, n_read = n_read, 0
            if has_records:
                yield from documents_in(entry, names, f'{path}:{number}', lost)
            else:
                yield {'text': entry, 'path': path, 'record': {}, 'why': None}
    except Mistake:             # a package that is missing
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # the words of a library, without the numbers in which files differ
        words = re.sub(r'0x[\da-f]+|\d+', 'N', getattr(error, 'strerror', '') or str(error))
        why = str(error) if isinstance(error, ValueError) else f"can't be read ({words})"
        yield {'text': '', 'path': f'{path}:{number + 1}' if has_records and number else path,
               'record': {}, 'why': why, 'lost': n_read if number else os.path.getsize(path)}


def documents_in(record, names, path, lost):
    """Yield the document in a record, or several if it is as long as a book; nothing for a blank
    line, ''. Any other text in place of a record says why there is none."""
    text, why, facts = '', record, {'record': {}}
    if isinstance(record, dict):
        texts = [record[name] for name in names if isinstance(record.get(name), str)]
        text = next(filter(str.strip, texts), '')       # an empty field hides no other
        place = '/'.join(record[name] for name in PLACES if isinstance(record.get(name), str))
        place, why = (place, None) if texts else (f'it has {", ".join(record)}'[:200], NO_TEXT)
        path = f'{path} {place}'.strip()
        facts = {'record': record, **{name: record[name] for name in FACTS if record.get(name)}}
    parts = texts_in(io.StringIO(text)) if len(text) > LONG else [text] * (record != '')
    for part in parts:
        yield {'text': part, 'path': path, 'why': why, 'lost': lost, **facts}


def record_of(line):
    """Return the record in a line of JSON, or why there is none; '' if the line is blank."""
    line = line.strip('\0 \t\r\n')
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(line, strict=False)         # a text may have control characters
        if isinstance(record, dict):
            return record
    return line and 'no JSON record (a list is a .json)'


def lines_of(path, encoding):
    """Yield the lines of a file. extras/text/formats.py knows all that is not plain UTF-8, and what
    has another form than its ending says; without it, a file is what it seems to be."""
    try:
        from extras.text import formats
    except ModuleNotFoundError:
        f = (gzip.open if path.lower().endswith('.gz') else open)(path, 'rb')
        return io.TextIOWrapper(f, 'utf-8-sig', 'surrogateescape', newline='\n')
    may_be_json = ends_with(path, ('.py', '.yaml', '.yml', *LINES, *TABLES))
    lines = formats.lines_of(path, encoding, ends_with(path, LINES), may_be_json)
    if ends_with(path, LINES):      # an old Mac ends them by CR
        return (part for line in lines for part in re.split('\r(?={)', line))
    return lines


def texts_in(lines):
    """Yield the texts of a file: one, unless lines <|endoftext|> divide it. A text above 4 million
    characters might not fit into memory: it comes in pieces of 100,000, cut before an empty line,
    or where there is none, before another one."""
    pieces, size, total = [[]], 0, 0        # of a text; characters of its last piece, of all
    for line in lines:
        if line.rstrip() == '<|endoftext|>':
            yield ''.join(itertools.chain(*pieces))
            pieces, size, total = [[]], 0, 0
            continue
        if size > PIECE and (line.isspace() or size > 2 * PIECE):
            pieces.append([])
            size = 0
        pieces[-1].append(line)
        size += len(line)
        total += len(line)
        while total > LONG and len(pieces) > 1:     # it is too long: whole pieces leave
            yield ''.join(pieces.pop(0))
    yield ''.join(itertools.chain(*pieces))         # the text of an empty file is empty


def n_bytes(text):
    return len(text) if text.isascii() else len(text.encode('utf-8', 'replace'))


# --- clean: each document by itself ---------------------------------------------------------------
# A stage is a function of a document, which it may change, and of notes. It returns the reason to
# drop the document, or None. Notes are counters, which add up over all shards:
#     documents           {stage: documents that passed it}
#     bytes               {stage: their bytes}
#     dropped by STAGE    {reason: documents}
#     dropped, dropped bytes, changed, changed bytes      {reason or what: documents, their bytes}
#     and what else a stage likes to count, such as     documents taken as: {'prose': 12}


def check_text(document, notes):
    """Drop what could not be read or decoded, and what has nothing to learn from: the first stage.
    Up to one odd byte in a thousand becomes \ufffd."""
    text = document['text']
    if document['why'] or not text.strip():
        return document['why'] or 'empty'
    halves = [] if text.isascii() else HALF.findall(text)
    n_odd = sum('\udc80' <= half <= '\udcff' for half in halves)
    n_zeros = len(re.findall('\0+', text)) if '\0' in text else 0
    # UTF-16 has many zeros, and Japanese mail is ASCII with escapes
    is_japanese = '\x1b' in text and re.search(r'\x1b\$[()@AB]', text)
    if n_odd > len(text) / 1000 or n_zeros > 2 + len(text) / 50 or is_japanese:
        return NOT_UTF8
    if halves:
        document['text'] = HALF.sub('\ufffd', text)
        notes['changed']['undecodable bytes'] += 1
        notes['changed bytes']['undecodable bytes'] += len(halves)


def one_form(config):
    """Return the stage that takes markup away and gives a text its form. What says that a text has
    markup is the ending of its file, or the setting."""
    try:
        from extras.text import markup
    except ModuleNotFoundError:
        markup = None
        print('extras/text/markup.py is missing: HTML, LaTeX and wrong letters stay as they are')

    def give_form(document, notes):
        text, path = document['text'], document['path']
        mode = mode_of(text, path)
        if config.mode != 'auto' and (config.mode, mode) != ('code', 'other code'):
            mode = config.mode
        kind = config.markup
        if kind == 'auto':
            kind = 'html' if ends_with(path, HTML) else 'latex' if ends_with(path, '.tex') else ''
        steps = [('control characters', lambda text: without_controls(text, mode))]
        if mode == 'prose' and markup:
            strip = {'html': markup.strip_html, 'latex': markup.strip_latex}.get(kind, str)
            steps[:0] = [('data: addresses', markup.without_data), (kind, strip),
                         ('wrong letters', markup.fix_mojibake)]
        for what, function in steps:
            before, text = text, function(text)
            if text != before:
                notes['changed'][what] += 1
                notes['changed bytes'][what] += n_bytes(before) - n_bytes(text)
        document |= {'text': normalise(text, mode), 'mode': mode}
        notes['documents taken as'][mode] += 1
        return check_text(document, notes)

    return give_form


def check_rules(config, document, notes):
    """Drop a document by the rules of its kind."""
    if document['mode'] == 'prose':
        return prose_reason(document['text'], config.min_words, config.max_symbols,
                            config.max_repetition, config.max_gibberish)
    if document['mode'] != 'raw':
        return code_reason(document['text'], document['mode'] == 'code')


def hide_personal_data(hide, document, notes):
    """Put placeholders in place of personal data; hide is that of extras/text/personal.py."""
    found = collections.Counter()
    is_code = document.get('mode') == 'code' or ends_with(document['path'], '.r')
    document['text'] = hide(document['text'], found, is_code)
    notes['changed'].update([*+found])


@functools.lru_cache(1)
def make_stages(settings):
    """Return the settings, and {name: stage}, in the order in which a document meets them.
    settings: JSON, because a process that isn't forked makes its stages itself."""
    config = types.SimpleNamespace(**json.loads(settings))
    stages = {'found': lambda document, notes: None,        # drops nothing: it counts what comes in
              'read': check_text, 'one form': one_form(config),
              'rules': functools.partial(check_rules, config)}
    if config.pii:
        from extras.text import personal         # without that file: --pii=False
        stages['personal data'] = functools.partial(hide_personal_data, personal.hide)
    if any(vars(config)[name] for name in OPTIONS):
        from extras.text import filters
        stages = filters.with_options(stages, config, texts_at, read, check_text, normalise)
    return config, stages


def clean_shard(source, paths, folder, settings):
    """Send the documents of a shard through the stages. If FOLDER is there, a run has done it:

        documents.jsonl     the documents that passed, one a line
        numbers.npy         of each: where its line begins, its bytes, a hash that copies share,
                            whatever their white space, uint64 (documents, 3)
        signatures          of each, what near-copies share, bytes
        notes.json          what came in, what was dropped or changed, the first document of each
                            reason, and what else the stages noted"""
    folder = pathlib.Path(folder)
    if folder.exists():
        return
    config, stages = make_stages(settings)
    notes, first = collections.defaultdict(collections.Counter), {}
    for title in 'documents', 'bytes':          # a stage that nothing has reached has 0
        notes[title].update(dict.fromkeys(stages, 0))
    numbers = array.array('Q')
    new = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))     # it gets its name when all is there

    with open(new / 'documents.jsonl', 'wb') as f, open(new / 'signatures', 'wb') as signatures:
        for document in itertools.chain.from_iterable(
                read(path, config.text_field, config.encoding) for path in paths):
            document['source'], reason, text, size = source, None, None, 0
            for name, stage in stages.items():
                if reason := stage(document, notes):
                    notes[f'dropped by {name}'][reason] += 1
                    notes['dropped'][reason] += 1
                    notes['dropped bytes'][reason] += size
                    first.setdefault(reason, document['path'])
                    break
                if document['text'] is not text:        # most stages change nothing
                    text = document['text']
                    data = text.encode('utf-8', 'replace')
                    size = len(data) or document.get('lost', 0)
                notes['documents'][name] += 1
                notes['bytes'][name] += size
            for what in notes['changed'].keys() - first.keys():
                first[what] = document['path']
            if not reason:
                exact = hash64(data.translate(None, b' \t\n\r\f\v'))    # blanks may differ
                numbers.extend((f.tell(), len(data), exact))
                if config.dedup in NEAR:
                    signatures.write(signature(data, config.dedup, config.bands * config.rows))
                line = {name: document[name] for name in KEPT if name in document}
                f.write(json.dumps(line).encode() + b'\n')
    np.save(new / 'numbers.npy', np.array(numbers, np.uint64).reshape(-1, 3))
    (new / 'notes.json').write_text(json.dumps([notes, first]))
    with contextlib.suppress(OSError):          # a cluster may do a thing twice
        new.rename(folder)


# --- shards: the pieces of work that processes share ----------------------------------------------
# They are cut by the sizes of files alone, each is cleaned into a folder of its own, and folders
# are read in order: the result is the same whatever number of processes shares the work.
SHARD = 16_000_000              # bytes


def states_of(config, settings, shards):
    """Return the name of each clean shard, a hash of all that decides about it: settings, its
    files, the lists that settings name, and our programs. After an edit or with another flag it has
    another name, and is done again."""
    lists = [path for name in LISTS for given in vars(config)[name].split(',') if given
             for path in find_files(given)[0]]                  # some are folders
    here = pathlib.Path(__file__).parent
    programs = sorted(map(str, [*here.glob('dedup.py'), *here.glob('extras/text/*.*')]))
    if config.encoding or any(ends_with(path, TABLES) or path.lower().endswith(PACKED)
                              for _, paths in shards for path in paths):
        from extras.text import formats     # without that file this ends the run
        programs.append(formats.__file__)
    stamps = lambda paths: [(path, os.path.getsize(path), os.path.getmtime(path)) for path in paths]
    # Python's version, because it decides which programs parse
    common = [settings, sys.version, stamps([__file__, *programs, *lists])]
    return [f'{hash64(json.dumps([common, source, stamps(paths)]).encode()):016x}'
            for source, paths in shards]


def begin_work():
    """A process does this first. Ctrl-C ends it, without a word, and so does its parent's end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # 1: PR_SET_PDEATHSIG


def share(name, jobs, config):
    """Return what the function of this name returns for each of the jobs, its arguments. As many
    processes as num_workers says share them, or those of a cluster."""
    if config.cluster:              # its machines find a function in clean, not in __main__
        import clean
        from dask.distributed import Client
        try:
            function, pool = getattr(clean, name), Client(config.cluster).get_executor()
        except (OSError, ValueError) as error:
            raise Mistake(f'--cluster={config.cluster}: {error}') from None
    else:               # forked processes share the models of the stages; only Linux forks well
        n = min(config.num_workers or os.cpu_count(), max(1, len(jobs)))
        context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
        function = globals()[name]
        pool = concurrent.futures.ProcessPoolExecutor(n, context, begin_work)
    with pool:
        results = pool.map(function, *zip(*jobs))
        return [*tqdm(results, name, len(jobs), unit=' shards', disable=None)]


# --- duplicates: of the documents that say the same, the first one stays --------------------------
NEAR = 'minhash', 'simhash'


def find_copies(exact, folders, document, config):
    """Return {reason: numbers of the documents that are copies of earlier ones}, the number of what
    stays in place of each, (n,), and {what: number} for the report. document(i) reads one."""
    stays = exact_copies(exact)
    if config.dedup == 'none':
        return {}, stays, {}
    copies, found = {'exact duplicate': np.flatnonzero(stays != np.arange(len(stays)))}, {}

    @functools.lru_cache(512)
    def shingles_of(i):
        return shingles(document(i)['text'].encode('utf-8', 'surrogatepass'))

    if config.dedup in NEAR and len(stays):
        with tempfile.TemporaryFile(dir=folders[0].parent) as f:    # memory may not hold them
            for folder in folders:
                with open(folder / 'signatures', 'rb') as some:
                    shutil.copyfileobj(some, f)
            f.flush()
            copies['near duplicate'], found = near_copies(
                stays, np.memmap(f, np.uint8, 'r').reshape(len(stays), -1), shingles_of,
                config.dedup, config.bands, config.min_similarity,
                functools.partial(tqdm, desc='compare', unit=' bands', disable=None))
    return copies, stays, found


def add_up(folders):
    """Return the notes of all shards, and the first document of each reason."""
    notes, first = collections.defaultdict(collections.Counter), {}
    for folder in folders:
        some, firsts = json.loads((folder / 'notes.json').read_bytes())
        first = firsts | first          # an earlier shard's come first
        for title, counter in some.items():
            notes[title].update(counter)
    return notes, first


def write_shard(folder, path, kept):
    """Write those lines of a shard that are kept, bool (n,). Return their hash."""
    digest = hashlib.sha256()
    # level 1: it is read a few times, and packed once
    with open(f'{folder}/documents.jsonl', 'rb') as f, gzip.GzipFile(path, 'wb', 1, mtime=0) as new:
        for line in itertools.compress(f, kept):
            new.write(line)
            digest.update(line)
    return digest.hexdigest()


# --- files ----------------------------------------------------------------------------------------
FORMAT = 'nanoparrot-text-1'
RESULTS = 'shards', 'audit.md', 'report.md', 'report.json', 'meta.json'
WORK, LOCK = '.nanoparrot-clean', 'lock'        # in out_dir: what is not done
# settings that change no text
HARMLESS = {'out_dir', 'overwrite', 'num_workers', 'cluster', 'preset'}
OF_COMMANDS = 'val.bin', 'last.pt', 'best.pt', 'model.safetensors', 'tokenizer_config.json'
OF_OTHERS = set('node_modules bower_components site-packages dist-packages __pycache__'.split())


def find_sources(config):
    """Return {name: {'path', 'weight', 'files', ...}}, where the name of a lone source is its path,
    and the shards, [(name, [path, ...]), ...]: 16 MB of texts, or a file of records, whatever its
    size."""
    sources = {config.source: {'path': config.source}}
    if config.sources is not None:
        from extras.training import mixture
        sources = mixture.sources_of(config.sources)
    shards = collections.defaultdict(list)
    for name, source in sources.items():
        paths, passed_over = find_files(source['path'], config.max_files, config.out_dir)
        source |= {'files': len(paths), 'passed over': shown(passed_over), 'documents': 0,
                   'bytes': 0}
        print(f'{name}: {len(paths):,} files', *(f'passed over: {what}: {n:,}'
                                                 for what, n in passed_over.items()), sep='\n')
        total = 0
        for path in paths:
            shards[name, total // SHARD].append(path)
            total += SHARD if ends_with(path, LINES + TABLES) else os.path.getsize(path)
    return sources, [(name, paths) for (name, _), paths in shards.items()]


def find_files(source, max_files=0, out_dir=None):
    """Return the files of a folder, glob or name, sorted, so that the same files give the same
    text everywhere, and {what is passed over: how many}. Those in out_dir, which are the results of
    an earlier run, are left out."""
    if re.match('hf:|shakespeare$|codeparrot$', source):
        from extras.text import hub
        found = hub.find_files(source, 'data/raw')[:max_files or None]
        return [hub.fetch(*file) for file in found], {}
    top, endings, skipped = source, (*PROSE, '.py', *OTHER_CODE, *LINES, *TABLES), OF_OTHERS
    if source == 'stdlib':                      # 12 MB of Python; with its tests, 30 MB
        top, endings = sysconfig.get_paths()['stdlib'], ('.py',)
        skipped = skipped | {'test', 'tests', 'idle_test'}
    # of a/**/b.py, os.walk finds the files in a: it follows no links, which may lead in circles
    top, _, pattern = top.partition('**')
    require('**' not in pattern, f'{source!r} has more than one **: give one at a time')
    top, pattern = top or '.', pattern.strip('/') or '*'
    kinds = [name for name in OF_COMMANDS if os.path.exists(os.path.join(top, name))]
    require(not kinds, f'{source} has {" and ".join(kinds)}, so it is no folder of text')
    found = [top] if os.path.exists(top) else glob.glob(top)
    require(found, f'{source} does not exist; it can be stdlib, shakespeare, codeparrot, '
            'hf:OWNER/NAME, or a file, folder or glob')
    passed_over = collections.Counter()
    unread = lambda error: passed_over.update(["folders that can't be read"])
    for folder, inner, names in os.walk(top, onerror=unread) if os.path.isdir(top) else ():
        passed_over['linked folders'] += sum(os.path.islink(f'{folder}/{name}') for name in inner)
        inner[:] = [name for name in inner if name[0] != '.' and name not in skipped]
        found += [os.path.join(folder, name) for name in names if name[0] != '.']
    if pattern == '*' and not os.path.isdir(top):
        passed_over['folders'] += sum(map(os.path.isdir, found))
    passed_over['links without a target'] += sum(not os.path.exists(path) for path in found)
    results = os.path.realpath(out_dir) + os.sep if out_dir else '\0'
    found = sorted(path for path in found if os.path.isfile(path)
                   and not os.path.realpath(path).startswith(results)
                   and pathlib.PurePath(path).match(pattern))
    paths = [path for path in found if path == source or ends_with(path, endings)]
    if source != 'stdlib':
        passed_over.update(os.path.splitext(path)[1] or 'no ending'
                           for path in sorted({*found} - {*paths}))
    passed_over = +passed_over
    require(paths, f'no text at {source!r}, which has {shown(passed_over)} (without --out_dir); '
            f'text is {" ".join(PROSE + LINES + TABLES)} and source code, packed (.gz) or not')
    return paths[:max_files or None], passed_over


def check_out_dir(out_dir, sources, overwrite):
    """Refuse a folder that has anything but results of this script, or results of other sources."""
    names = {*os.listdir(out_dir)} if out_dir.is_dir() else set()
    meta = {}
    with contextlib.suppress(OSError, ValueError, TypeError):   # not there, or somebody else's
        meta = dict(json.loads((out_dir / 'meta.json').read_bytes()))
    # without meta.json: a kill while they were published
    is_ours = meta.get('format') == FORMAT or not meta and WORK in names
    others = names - {'.DS_Store', 'lost+found', WORK, *(RESULTS if is_ours else ())}
    require(not others, f'{out_dir} has {min(others, default="")}, which clean.py did not write '
            'there; choose another --out_dir')
    old, new = ([os.path.normpath(source['path']) for source in some.values()]
                for some in (meta.get('sources', {}), sources))
    require(overwrite or old in ([], new), f'{out_dir} has data of {" and ".join(old)}; '
            '--overwrite=True replaces them, or choose another --out_dir')


def lock_folder(work):
    """Make the folder of what is not done, for one run at a time. Return its lock."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(work / LOCK)
        lock.acquire(0)
        return lock
    except OSError as error:
        why = 'another run does' if isinstance(error, filelock.Timeout) else error.strerror
        raise Mistake(f"can't write to {work.parent}: {why}; choose another --out_dir") from None


def clear(work, keep=()):
    """Remove the folders in a folder, but keep those of these names. Each loses its name before it
    is removed, so that a kill leaves no half of a shard that looks whole."""
    for folder in [*work.iterdir()]:
        if folder.name not in keep:
            shutil.rmtree(folder.rename(tempfile.mkdtemp(dir=work)))


def publish(work, out_dir):
    """Put the results in work/new in place of old ones, name by name, because a mounted folder
    can't be replaced. meta.json, which says that all is there, leaves first and comes last, so at
    any moment a kill leaves old results, new ones or none."""
    old, new = work / 'old', work / 'new'
    old.mkdir()
    for name, here, there in [*((name, out_dir, old) for name in reversed(RESULTS)),
                              *((name, new, out_dir) for name in RESULTS)]:
        if (here / name).exists():
            (here / name).rename(there / name)
    with contextlib.suppress(OSError):      # machines of a cluster may still write there
        clear(work, {LOCK})
        (work / LOCK).unlink()              # while it is held, so nobody can get this one
        work.rmdir()


def shown(values):
    """Return a dict for people: {'short': 1200} is 'short: 1,200'."""
    return ', '.join(f'{name}: {value if isinstance(value, str) else f"{value:,}"}'
                     for name, value in values.items() if value not in ('', None)) or 'nothing'


# --- report: what came in, what was dropped or changed, what is left ------------------------------
def write_report(folder, title, notes, first, sources, card):
    """Write report.json and report.md, whose first part is printed."""
    documents, n_bytes = notes.pop('documents'), notes.pop('bytes')
    stages, rows = [], ['| stage | docs in | docs out | bytes in | bytes out | dropped |',
                        '|---|---|---|---|---|---|']
    for before, name in itertools.pairwise(documents):
        dropped = dict(notes[f'dropped by {name}'].most_common())
        stages.append({'name': name, 'docs_in': documents[before], 'docs_out': documents[name],
                       'bytes_in': n_bytes[before], 'bytes_out': n_bytes[name],
                       'dropped': dropped})
        reasons = ', '.join(f'{reason}: {n:,} ({n / documents[before]:.1%})'
                            for reason, n in dropped.items())
        rows.append(f'| {name} | {documents[before]:,} | {documents[name]:,} | '
                    f'{n_bytes[before]:,} | {n_bytes[name]:,} | {reasons} |')
    tables = {how: {what: {'documents': n, 'bytes': notes[f'{how} bytes'][what] or None,
                           'example': first[what]} for what, n in notes[how].most_common()}
              for how in ('changed', 'dropped')}
    counts = {title: counter for title, counter in notes.items()
              if not title.startswith(('changed', 'dropped'))}
    rows += ['', *(f'- {how}: {what}: {shown(values)}' for how, table in tables.items()
                   for what, values in table.items())]
    print(*rows, sep='\n')
    rows += [f'- {name}: {shown(value) if isinstance(value, dict) else value}'
             for name, value in {**sources, **counts, **(card or {})}.items()]
    page = '\n'.join([f'# {title}', '', *rows, ''])
    (folder / 'report.md').write_text(page, 'utf-8', 'backslashreplace')
    (folder / 'report.json').write_text(json.dumps(
        {'stages': stages, **tables, 'documents': stages[-1]['docs_out'], 'sources': sources,
         'counts': counts, 'card': card}, indent=1))


# --- the job --------------------------------------------------------------------------------------
def clean(config):
    """Clean the sources that settings name into config.out_dir."""
    try:
        'a'.encode(config.encoding or 'utf-8')
    except LookupError as error:
        raise Mistake(f'--encoding={config.encoding}: {error}; name another') from None
    out_dir = pathlib.Path(config.out_dir).resolve()
    sources, shards = find_sources(config)      # {name: {'path', 'weight', ...}}, [(name, paths)]
    settings = json.dumps({name: value for name, value in vars(config).items()
                           if name not in HARMLESS})
    # A file or a package that an option lacks ends the run here, before the work begins.
    make_stages(settings)
    check_out_dir(out_dir, sources, config.overwrite)
    work = out_dir / WORK                                           # a kill leaves its shards
    folders = [work / name for name in states_of(config, settings, shards)]
    lock = lock_folder(work)
    clear(work, {LOCK, *(folder.name for folder in folders)})

    # 1. Each document by itself: read it, give it one form, judge it, hide personal data.
    share('clean_shard', [(*shard, str(folder), settings)
                          for shard, folder in zip(shards, folders)], config)

    # 2. With all the others: of documents that say the same, the first one stays.
    notes, first = add_up(folders)
    parts = [np.load(folder / 'numbers.npy') for folder in folders]             # (documents, 3)
    begin, size, exact = np.concatenate(parts).T                                # (n,) each
    ends = np.cumsum([*map(len, parts)])

    def document(i):
        with open(folders[np.searchsorted(ends, i, 'right')] / 'documents.jsonl', 'rb') as f:
            f.seek(begin[i])
            return json.loads(f.readline())

    copies, stays, notes['copies'] = find_copies(exact, folders, document, config)
    kept = np.ones(len(size), bool)
    for reason, which in copies.items():
        kept[which] = False
        stage = f'{reason}s'
        notes['documents'][stage] = int(kept.sum())
        notes['bytes'][stage] = int(size[kept].sum())
        if len(which):
            notes['dropped'][reason] = notes[f'dropped by {stage}'][reason] = len(which)
            notes['dropped bytes'][reason] = int(size[which].sum())
            first[reason] = document(which[0])['path']

    # 3. Shards of what is left.
    new = work / 'new'
    (new / 'shards').mkdir(parents=True)
    jobs = []
    for i, (some, sizes) in enumerate(zip(np.split(kept, ends)[:-1], np.split(size, ends))):
        name, _ = shards[i]
        sources[name]['documents'] += int(some.sum())
        sources[name]['bytes'] += int(sizes[some].sum())
        if some.any():
            file = f'{name}-{i:05}.jsonl.gz' if config.sources else f'{i:05}.jsonl.gz'
            jobs.append((str(folders[i]), str(new / 'shards' / file), some))
    digests = share('write_shard', jobs, config)

    # 4. The report.
    card, more = None, {'licenses': {}}
    if any(vars(config)[name] for name in OPTIONS):
        from extras.text import filters
        card, more = filters.report(new, vars(config), notes, copies, stays, document,
                                    np.flatnonzero(kept), size, mode_of)
    write_report(new, out_dir, notes, first, sources, card)
    empty = [name for name, source in sources.items() if not source['documents']]
    dropped = {reason: first[reason] for reason in notes['dropped']}
    require(not empty, f'no documents are left of {" and ".join(empty)}: {shown(dropped)}; give '
            'more, or drop fewer')
    meta = {'format': FORMAT, 'sources': sources, 'config': json.loads(settings), **more,
            'sha256': hashlib.sha256(''.join(digests).encode()).hexdigest()}
    (new / 'meta.json').write_text(json.dumps(meta, indent=1))
    publish(work, out_dir)
    lock.release()
    print(f'next: python prepare.py --source={shlex.quote(os.path.relpath(out_dir))}')


if __name__ == '__main__':      # config files and flags replace settings
    clean(types.SimpleNamespace(**configure(globals(), BOUNDS)))
