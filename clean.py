"""
Point clean.py at text and you get shards of clean text, and a table of filter statistics.

    python clean.py                                 # Python's standard library, no network needed
    python clean.py --source=FOLDER --out_dir=data/mine
    python clean.py --source='web/*.jsonl.gz' --languages=en,de --audit=20
    python clean.py config/mix.py                   # sources = {'web': ('web/*.jsonl', 50), ...}
    python prepare.py                               # next: tokens for train.py

    per document, in parallel:      read -> normalization -> rules -> personal data
    across documents:               duplicates -> shards -> report

A document is a text file, or a record of a .jsonl file. clean.py writes the remaining documents to
out_dir/shards/00000.jsonl.gz, ... as lines {"text": ..., "path": ..., "source": ...}. It writes the
number of documents dropped for each reason to report.md and report.json, and metadata to meta.json.
To resume an interrupted run, repeat its command. You should see 12 MB of Python become 9.6 in a few
seconds. This stage decides what the model learns from, and a model learns the defects of its text,
so read report.md before training.

The rules are at the top, because you will edit them; the code that runs them is at the bottom.
Without the folder extras/, set --pii=False. files.py, dedup.py and configurator.py are required.
"""
import collections, concurrent.futures, contextlib, functools, gzip, hashlib, itertools, json
import multiprocessing, os, pathlib, re, shlex, signal, sys, tempfile, types, unicodedata, warnings
from typing import Literal
from configurator import UserError, configure, require
import numpy as np
from dedup import exact_duplicates, hash64, near_duplicates, shingles, signature
from files import (HTML, LINES, METADATA, PROSE, SURROGATE, TABLES, ends_with, find_files,
                   lines_of, open_results, publish, read, shown, without_controls)
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, codeparrot, hf:OWNER/NAME, file, folder, glob
sources: dict | None = None     # replaces source: {'name': ('path', weight), ...}
out_dir = 'data/clean'          # output folder
overwrite = False               # True: replace the data of another source in out_dir
mode: Literal['auto', 'code', 'prose', 'raw'] = 'auto'      # auto: by the file extension
encoding = ''                   # encoding of text files, such as cp1250; '' = UTF-8, or by the BOM
text_field = ''                 # name of the text field in records; '' = text, content, code, ...
min_words = 20                  # prose: minimum number of words; 0 disables a rule, here and below
max_symbols = 0.3               # prose: maximum fraction of visible characters that are symbols
max_repetition = 0.7            # prose: maximum fraction of repeated lines or words
max_gibberish = 0.2             # prose: maximum fraction of words such as x4k9f2
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # last two: also near-duplicates
bands = 32                      # minhash: number of bands; texts with an equal band are compared
rows = 8                        # minhash: hashes per band; more rows mean fewer comparisons
min_similarity = 0.85           # minhash: minimum Jaccard similarity of near-duplicates
max_files = 0                   # maximum number of files per source; 0 = all
num_workers = 0                 # number of processes; 0 = one per core
# optional features: implemented in extras/ and imported only when switched on
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
markup: Literal['auto', 'none', 'html', 'latex'] = 'auto'   # stripped markup; auto: by extension
cluster = ''                    # address of a Dask scheduler; its workers must share this disk
url_block = ''                  # file of domains to drop, one per line
url_allow = ''                  # file of domains to keep; overrides url_block
licenses = ''                   # the only licenses to keep: mit,apache-2.0,unknown; '' = all
languages = ''                  # such as en,de: drop prose that is clearly in another language
perplexity_reference = ''       # good text to train the n-gram model of the perplexity filter
min_bits = 0.5                  # perplexity: minimum bits per byte; lower is boilerplate
max_bits = 5.0                  # perplexity: maximum bits per byte; higher is noise
quality_good = ''               # good texts to train a quality classifier
quality_bad = ''                # bad texts to train the quality classifier
decontaminate = ''              # benchmark files a,b,...: drop texts that share 13 words in a row
audit = 0                       # examples per drop reason in audit.md; above 0 adds a data card
# settings whose values are paths
PATHS = 'url_block url_allow perplexity_reference quality_good quality_bad decontaminate'.split()
FILTERS = [*PATHS, 'licenses', 'languages', 'audit']        # need extras/text/filters.py
# minimum and maximum value; any other number must be at least 0
BOUNDS = {'bands': (1, 1024), 'rows': (1, 64), 'num_workers': (0, 1024), **dict.fromkeys(
    'max_symbols max_repetition max_gibberish min_similarity'.split(), (0, 1))}


# --- rules: reasons to drop a document ------------------------------------------------------------
# To add a rule, add two lines to a function here, or a stage to make_stages.
# Every rule also drops good documents, so the report counts the documents per reason. Rules come
# before deduplication: if they came after it, a rule could drop the one document of a cluster that
# deduplication has kept, and the other documents of the cluster would be gone, too.
UNSPACED = re.compile('[\u0e01-\U0010ffff]')       # scripts without spaces: Thai, Chinese


def prose_reason(text, min_words=20, max_symbols=0.3, max_repetition=0.7, max_gibberish=0.2):
    """Return the reason to drop a text of prose, or None. A threshold of 0 disables its rule."""
    head = text[:100_000]           # enough characters to decide
    words = head.lower().split()
    # in a script without spaces, a word has about two characters
    if len(words) < min_words and len(UNSPACED.findall(text)) < 2 * min_words:
        return 'short'                                                  # Page not found
    if max_symbols and symbol_fraction(head, words) > max_symbols:
        return 'symbols'                                                # *** >>> $$$ <<< ***
    if max_repetition and repeated_fraction(head, words) > max_repetition:
        return 'repetitive'                                             # buy buy buy buy buy
    if max_gibberish and gibberish_fraction({*words}) > max_gibberish:
        return 'gibberish'                                              # qwrtzpl x4k9f2 bcdfghj


GENERATED = re.compile('auto-?generated|automatically generated|do not edit\\b|'
                       'generated (?:from|by|with|using)\\b', re.I)
CONFIG_OR_TEST = re.compile('unit tests?|test file|configuration file', re.I)


def code_reason(text, is_python=True):
    """Return the reason to drop a program, or None: CodeParrot's rules with its thresholds.

    Two rules, 'config or test' and 'no keywords', also match many good programs, so CodeParrot
    drops a match with probability 0.7. Here a match is dropped if a hash of its text, scaled to
    [0, 1), is below 0.7, so every run drops the same programs. The hash must differ from the one
    that prepare.py splits by: texts with a hash below 0.1 are validation texts, so with the same
    hash all matches in the validation split would be dropped."""
    lines = text.split('\n')
    data = text.encode('utf-8', 'surrogatepass')
    head = '\n'.join(lines[:5])
    uniform = hash64(b'rules' + data) / 2 ** 64       # in [0, 1)
    if max(map(len, lines)) > 1000:
        return 'long line'                                              # DATA = 'eJzsvXl4VNX5...
    if sum(map(len, lines)) > 100 * len(lines):
        return 'long lines'                                             # minified code
    if len(data.translate(None, ASCII_SYMBOLS)) < 0.25 * len(data):
        return 'few letters'                                            # [[], [], [[], []]]
    if GENERATED.search(head):
        return 'autogenerated'                                          # do not edit
    many_mentions = max(text.count('config'), text.count('test')) > 0.05 * len(lines)
    if uniform < 0.7 and (many_mentions or CONFIG_OR_TEST.search(head)):
        return 'config or test'                                         # Unit tests of f
    if not is_python:
        return None
    # skip the first ten bits of the hash, so that this decision is independent of the one above
    if uniform * 1024 % 1 < 0.7 and not re.search(r'\b(?:def|class|for|while)\b', text):
        return 'no keywords'                                            # print(1)
    if text.count('=') < 5:
        return 'few assignments'                                        # import abc
    if not compiles(text):
        return 'does not parse'                                         # print 1


ASCII_SYMBOLS = bytes(b for b in range(128) if not chr(b).isalnum())
# deleting bytes is many times as fast as a test of each character
ASCII_NO_SYMBOLS = bytes(b for b in range(128) if chr(b).isalnum() or chr(b).isspace())
RULER = re.compile(r'\n[ \t|+]*([^\w\s|+])\1{2,}(?:[ \t|+]+\1+)*[ \t|+]*$', re.M)    # |---|---|


def symbol_fraction(text, words):
    """Return the fraction of visible characters that are symbols: not letters, digits or combining
    marks. Rulers, such as ---- and |---|---|, are ignored."""
    text = RULER.sub('', f'\n{text}')
    n_ascii = len(text.encode('ascii', 'ignore').translate(None, ASCII_NO_SYMBOLS))
    others = [c for c in ('' if text.isascii() else {*text}) if c > '\x7f' and not c.isalnum()
              and not c.isspace() and unicodedata.category(c)[0] != 'M']
    return (n_ascii + sum(map(text.count, others))) / max(1, sum(map(len, words)))


def repeated_fraction(text, words, window=200):
    """Return the fraction of repeated lines or the fraction of repeated words, whichever is larger.
    The fraction of repeated words is a mean over windows of 200 words, because over a whole text it
    grows with the length: it is 0.88 for Tiny Shakespeare."""
    repeats = lambda items: 1 - len(set(items)) / max(1, len(items))
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    lines = [*filter(None, map(str.strip, text.split('\n')))]
    return max(sum(map(repeats, windows)) / len(windows), repeats(lines) if len(lines) >= 5 else 0)


GIBBERISH_WORD = re.compile(r'[bcdfghjklmnpqrstvwxzßçðñþ]{6}|'     # qwrtzpl
                      r'[a-z]\d+[a-z]\w*\d|'                 # x4k9f2
                      r'[a-z0-9_]{31}')                        # aaaaaaaaaaa...


def gibberish_fraction(words):
    """Return the fraction of a set of words that look like random characters."""
    return len([*filter(GIBBERISH_WORD.search, words)]) / max(1, len(words))


# --- normalization of newlines, spaces and Unicode ------------------------------------------------
# Without it, the tokenizer would spend vocabulary on variants of the same text.
# A code block in Markdown: between fences, or indented after an empty line.
CODE_BLOCK = re.compile(r'''(
    ^(?: (?<!\S\n) | (?![ \t>]*~) )                     # directly below text, ~~~ marks a heading
    (?: [ \t>*+-] | \d+[.)] )*                          # the fence may be in a list or a quote
    (?P<fence> `{3,}(?=[^`\n]*$) | ~{3,} ) [^\n]*
    (?: \n.*?^ (?: [ \t>*+-] | \d+[.)] )* (?P=fence) [`~]* [ \t]*$ | .* )     # or no end
    | (?<=\n\n)(?=[ \t]+\S) (?: \s*^(?:[ ]{3}|\t)[ \t]*\S[^\n]* )+ )''', re.M | re.S | re.X)


def normalize(text, mode):
    """Return the normalized text. Code: newlines become \\n. Prose: also remove control characters,
    compose Unicode (NFC: e and its accent become one character), and collapse spaces. Raw: no
    change."""
    if mode != 'raw':
        text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    text = without_controls(text, mode)
    if mode != 'prose':
        return text
    if not text.isascii():
        # NFC would take hours on thousands of accents in a row
        text = re.sub('([\u0300-\u036f]{30})[\u0300-\u036f]+', r'\1', text)
        text = unicodedata.normalize('NFC', text)
    text = re.sub(r'\A\s*\n', '', text)
    # [prose, code, fence, prose, code, ...]; the slow regex is skipped if there is no code block
    pieces = CODE_BLOCK.split(text) if re.search('```|~~~|\n\n(?:   |\t)', text) else [text]
    pieces = itertools.zip_longest(map(collapse_spaces, pieces[::3]), pieces[1::3], fillvalue='')
    return ''.join(itertools.chain(*pieces)).rstrip()


def collapse_spaces(text):
    """Collapse runs of spaces and of empty lines, but keep the indentation of lines."""
    # (?<=\S.) skips the indentation of a line, (?<! ) skips single spaces
    text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text)
    return re.sub(r'\n\s*\n', '\n\n', text.replace(' \n', '\n'))


# the beginning of a sentence, such as `The cat`; mode_of then need not compile the text
SENTENCE = re.compile(r'\s*[A-Z]\w*[ \t]+(?!(?:is|in|and|or|if|not)\b)[^\W\d]')
# an assignment, a call or an import: x = 1, f(x), import abc
STATEMENT = re.compile(r'^[^#"\'\n]*[=(]|^[ \t]*(?:from|import)\b', re.M)


# more extensions of prose; a record that has the text of a.pdf may name a.pdf as its path
DOCUMENTS = tuple('.pdf .doc .docx .odt .rtf .epub .ppt .pptx .srt .vtt .log .eml .mbox'.split())


def mode_of(text, path):
    """Return the mode of a text by its file extension: 'code' for Python, 'prose' for text formats,
    'other code' for any other extension, such as .zig. A text without an extension is Python if it
    compiles and contains an assignment, a call or an import: `yes` and `a: b` are prose."""
    # The extension of a.zig.gz is .zig. A record, a.jsonl:7, has none, and neither has a
    # repository, ann/discord.py/.
    if re.search(r'\.(?!(gz|zst|bz2|xz)$)[A-Za-z][\w+]*(\.(gz|zst|bz2|xz))?$', path):
        prose = ends_with(path, PROSE + DOCUMENTS)
        return 'code' if ends_with(path, '.py') else 'prose' if prose else 'other code'
    may_be_code = not SENTENCE.match(text) and STATEMENT.search(text)
    return 'code' if may_be_code and compiles(text) else 'prose'


@functools.lru_cache(1)         # mode_of and the rules ask about the same text
def compiles(program):
    """Return whether a text is a valid Python program."""
    # deep nesting raises MemoryError or RecursionError
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter('ignore')             # of invalid escape sequences
        return bool(compile(program, 'program', 'exec', dont_inherit=True))
    return False


# --- stages: functions of one document ------------------------------------------------------------
# A document is {'text': 'import abc\n...', 'path': 'lib/abc.py', 'source': 'stdlib', ...}. A stage
# is a function stage(document, stats) that may change the document. It returns the reason to drop
# the document, or None. stats is a dict of counters, which are summed over all shards:
#     documents           {stage: number of documents that passed the stage}
#     bytes               {stage: bytes of these documents}
#     dropped by STAGE    {reason: number of documents}
#     dropped             {reason: number of documents}     dropped bytes   {reason: bytes}
#     changed             {change: number of documents}     changed bytes   {change: bytes}
# A stage may add counters, for example                      documents taken as: {'prose': 12}


def check_text(document, stats):
    """Drop unreadable, undecodable and empty documents. A document with more than one invalid byte
    per 1,000 characters is undecodable. In the others, read() has replaced invalid bytes."""
    reason = document['error'] or not document['text'].strip() and 'empty'
    if not reason:
        for name, n in document['changes'].items():
            stats['changed'][name] += 1
            stats['changed bytes'][name] += n
    return reason


def make_normalization(config):
    """Return the stage that strips markup and normalizes the text. With --markup=auto, the file
    extension determines the markup."""
    try:
        from extras.text import markup
    except ImportError:
        markup = None
        print('extras/text/markup.py is missing: HTML, LaTeX and mojibake are left unchanged')

    n_bytes = lambda text: len(text.encode('utf-8', 'replace'))

    def normalize_document(document, stats):
        text, path = document['text'], document['path']
        mode = mode_of(text, path)
        if config.mode != 'auto' and (config.mode, mode) != ('code', 'other code'):
            mode = config.mode
        kind = 'html' if ends_with(path, HTML) else 'latex' if ends_with(path, '.tex') else ''
        kind = kind if config.markup == 'auto' else config.markup
        steps = [('control characters', lambda text: without_controls(text, mode))]
        if mode == 'prose' and markup:
            strip = {'html': markup.strip_html, 'latex': markup.strip_latex}.get(kind, str)
            steps[:0] = [('embedded data', markup.without_data), (kind, strip),
                         ('wrong letters', markup.fix_mojibake)]
        for name, function in steps:
            before, text = text, function(text)
            if text != before:
                stats['changed'][name] += 1
                stats['changed bytes'][name] += n_bytes(before) - n_bytes(text)
        document |= {'text': normalize(text, mode), 'mode': mode}
        stats['documents taken as'][mode] += 1
        return not document['text'].strip() and 'empty'

    return normalize_document


def check_rules(config, document, stats):
    """Apply the rules for the document's mode."""
    if document['mode'] == 'prose':
        return prose_reason(document['text'], config.min_words, config.max_symbols,
                            config.max_repetition, config.max_gibberish)
    if document['mode'] != 'raw':
        return code_reason(document['text'], document['mode'] == 'code')


def hide_personal_data(hide, document, stats):
    """Replace personal data by placeholders. hide: the function of extras/text/pii.py."""
    counts = collections.Counter()
    is_code = document.get('mode') == 'code' or ends_with(document['path'], '.r')
    document['text'] = hide(document['text'], counts, is_code)
    stats['changed'].update([*+counts])


@functools.lru_cache(1)
def make_stages(settings):
    """Return the config and the stages {name: function}, in execution order. settings: the config
    as JSON, so that each worker process can build its own stages."""
    config = types.SimpleNamespace(**json.loads(settings))
    stages = {'found': lambda document, stats: None,        # counts the input and drops nothing
              'read': check_text, 'normalization': make_normalization(config),
              'rules': functools.partial(check_rules, config)}
    if config.pii:
        from extras.text.pii import hide
        stages['personal data'] = functools.partial(hide_personal_data, hide)
    if any(vars(config)[name] for name in FILTERS):
        from extras.text import filters
        stages = filters.with_options(stages, config, mode_of, normalize)
    return config, stages


# --- one shard: the unit of parallel work ---------------------------------------------------------
SAVED_FIELDS = ['text', 'path', 'source', *METADATA]       # written to the shards


def clean_shard(source, paths, folder, settings):
    """Run the stages on the documents of a shard and write FOLDER, or reuse FOLDER if it exists.
    Return stats, and examples, {reason: path of its first document}. FOLDER contains:

        documents.jsonl     the documents that passed all stages, one a line
        numbers             uint64 (documents, 3): the offset of each document's line, its size in
                            bytes, and a hash of its text without white space
        signatures          uint8: the MinHash or SimHash signature of each document
        stats.json          the return value, as JSON"""
    folder = pathlib.Path(folder)
    if folder.exists():
        return json.loads((folder / 'stats.json').read_bytes())
    config, stages = make_stages(settings)
    stats, examples = collections.defaultdict(collections.Counter), {}
    new = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))     # renamed to `folder` when complete

    with (open(new / 'documents.jsonl', 'wb') as f, open(new / 'numbers', 'wb') as numbers,
          open(new / 'signatures', 'wb') as signatures):
        for document in itertools.chain.from_iterable(
                read(path, config.text_field, config.encoding) for path in paths):
            document['source'], reason, text, size = source, None, None, 0
            for name, stage in stages.items():
                if reason := stage(document, stats):
                    stats[f'dropped by {name}'][reason] += 1
                    stats['dropped'][reason] += 1
                    stats['dropped bytes'][reason] += size
                    break
                if document['text'] is not text:        # skip if unchanged
                    text = document['text']
                    data = text.encode('utf-8', 'replace')
                    size = len(data) or document['raw_bytes']
                stats['documents'][name] += 1
                stats['bytes'][name] += size
            for name in (stats['changed'].keys() | stats['dropped'].keys()) - examples.keys():
                examples[name] = document['path']
            if not reason:
                exact = hash64(data.translate(None, b' \t\n\r\f\v'))    # ignores white space
                numbers.write(np.array([f.tell(), len(data), exact], np.uint64))
                if config.dedup in ('minhash', 'simhash'):
                    signatures.write(signature(data, config.dedup, config.bands * config.rows))
                line = {name: document[name] for name in SAVED_FIELDS if name in document}
                f.write(json.dumps(line, default=str).encode() + b'\n')
    (new / 'stats.json').write_text(json.dumps([stats, examples]))
    with contextlib.suppress(OSError):          # Dask may run a shard twice
        new.rename(folder)
    return stats, examples


def write_shard(folder, path, kept):
    """Write the lines of a shard where `kept`, bool (n,), is True. Return their hash."""
    digest = hashlib.sha256()
    # level 1 compresses fast, and a shard is read only a few times
    with open(f'{folder}/documents.jsonl', 'rb') as f, gzip.GzipFile(path, 'wb', 1, mtime=0) as new:
        for line in itertools.compress(f, kept):
            new.write(line)
            digest.update(line)
    return digest.hexdigest()


# --- deduplication: keep the first document of each cluster ---------------------------------------
# MinHash is the default. SimHash, the other classic method, is included for comparison: it is
# faster and finds fewer near-duplicates.
def find_duplicates(exact_hashes, folders, document, config, stats):
    """Return {reason: indices of the documents to drop}, and parent, (n,): for each document, the
    index of the document that its cluster keeps. document(i) reads document i."""
    parent = exact_duplicates(exact_hashes)
    if config.dedup == 'none':
        return {}, parent
    is_root = parent == np.arange(len(parent))
    duplicates = {'exact duplicate': np.flatnonzero(~is_root)}
    if config.dedup != 'exact' and len(parent):
        signatures = np.concatenate([np.fromfile(f'{folder}/signatures', np.uint8)
                                     for folder in folders]).reshape(len(parent), -1)
        shingles_of = lambda i: shingles(document(i)['text'].encode('utf-8', 'surrogatepass'))
        progress = functools.partial(tqdm, desc='compare', unit=' bands', disable=None)
        parent, n_unfinished = near_duplicates(
            parent, signatures, functools.lru_cache(512)(shingles_of), config.dedup, config.bands,
            config.min_similarity, progress)
        duplicates['near duplicate'] = np.flatnonzero(is_root & (parent != np.arange(len(parent))))
        stats['near duplicates']['groups left after 50 rounds'] = n_unfinished
    return duplicates, parent


# --- report: documents and bytes before and after each stage, reasons, examples -------------------
def write_report(folder, title, stats, examples, sources, card):
    """Write report.json and report.md, and print the tables of report.md. card: {field: value} of
    the data card, or None."""
    documents, n_bytes = stats.pop('documents'), stats.pop('bytes')
    stages, rows = [], ['| stage | docs in | docs out | bytes in | bytes out | dropped |',
                        '|---|---|---|---|---|---|']
    for before, name in itertools.pairwise(documents):
        dropped = dict(stats[f'dropped by {name}'].most_common())
        stages.append({'name': name, 'docs_in': documents[before], 'docs_out': documents[name],
                       'bytes_in': n_bytes[before], 'bytes_out': n_bytes[name], 'dropped': dropped})
        reasons = ', '.join(f'{reason}: {n:,} ({n / documents[before]:.1%})'
                            for reason, n in dropped.items())
        rows.append(f'| {name} | {documents[before]:,} | {documents[name]:,} | '
                    f'{n_bytes[before]:,} | {n_bytes[name]:,} | {reasons} |')
    tables = {key: {name: {'documents': n, 'bytes': stats[f'{key} bytes'][name] or None,
                           'example': examples[name]} for name, n in stats[key].most_common()}
              for key in ('changed', 'dropped')}
    counts = {key: counter for key, counter in stats.items() if key.split()[0] not in tables}
    rows += ['', *(f'- {key}: {name}: {shown(values)}' for key, table in tables.items()
                   for name, values in table.items())]
    for reason, n in stats['dropped by read'].items():      # such as a missing --encoding
        if n > documents['read'] or stats['dropped bytes'][reason] > n_bytes['read']:
            rows.append(f'WARNING: most of the text is dropped, first {examples[reason]}: {reason}')
    print(*rows, sep='\n')
    rows += [f'- {name}: {shown(value) if isinstance(value, dict) else value}'
             for name, value in {**sources, **counts, **(card or {})}.items()]
    page = '\n'.join([f'# {title}', '', *rows, ''])
    (folder / 'report.md').write_text(page, 'utf-8', 'backslashreplace')
    (folder / 'report.json').write_text(json.dumps(
        {'stages': stages, **tables, 'documents': stages[-1]['docs_out'], 'sources': sources,
         'counts': counts, 'card': card}, indent=1))


# --- the job --------------------------------------------------------------------------------------
FORMAT = 'nanoparrot-text-1'
RESULTS = r'shards|(audit|report)\.md|(report|meta)\.json'
# settings that the cleaned text does not depend on
EXECUTION_SETTINGS = {'out_dir', 'overwrite', 'num_workers', 'cluster', 'preset'}
# The result does not depend on the number of processes, because files are grouped into shards only
# by size, each shard is cleaned into its own folder, and the folders are read in order.
SHARD = 16_000_000              # bytes


def find_sources(config):
    """Return the sources, {name: {'path', 'weight', 'files', ...}}, and the shards, [(name of the
    source, [path, ...]), ...]. The name of a single source is its path. A shard is about 16 MB of
    text files, or one file of records of any size."""
    sources = {config.source: {'path': config.source}}
    if config.sources is not None:
        from extras.training import mixture
        sources = mixture.sources_of(config.sources)
    shards = collections.defaultdict(list)
    for name, source in sources.items():
        paths, skipped = find_files(source['path'], max_files=config.max_files or None)
        if any(ends_with(path, TABLES) or path.endswith('.zst') for path in paths):
            from extras.text import formats     # noqa: F401  (fails without extras/)
        source |= {'files': len(paths), 'skipped': shown(skipped), 'documents': 0, 'bytes': 0}
        print(f'{name}: {len(paths):,} files; skipped: {shown(skipped)}')
        total = 0
        for path in paths:
            shards[name, total // SHARD].append(path)
            total += SHARD if ends_with(path, LINES + TABLES) else os.path.getsize(path)
    return sources, [(name, paths) for (name, _), paths in shards.items()]


def fingerprint(settings, paths):
    """Return a hash of everything that the cleaned shards depend on. The names of the shards'
    folders contain the hash, so a resumed run reuses the folders of the interrupted run, unless a
    file or a setting has changed."""
    here = pathlib.Path(__file__).parent
    paths = [*paths, *here.glob('*.py'), *here.glob('extras/text/*.*')]
    stamps = sorted((str(path), os.path.getsize(path), os.path.getmtime(path)) for path in paths)
    # sys.version, because the rule 'does not parse' depends on the Python version
    return f'{hash64(json.dumps([settings, sys.version, stamps]).encode()):016x}'


def run_parallel(function, jobs, config):
    """Return [function(*arguments) for arguments in jobs], computed by num_workers processes, or by
    the workers of a Dask cluster with --cluster."""
    if config.cluster:
        from dask.distributed import Client
        try:
            pool = Client(config.cluster).get_executor()
        except (OSError, ValueError) as error:
            raise UserError(f'--cluster={config.cluster}: {error}') from None
    else:       # forked processes share the memory of the models; only on Linux is fork safe
        n = min(config.num_workers or os.cpu_count(), max(1, len(jobs)))
        context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
        pool = concurrent.futures.ProcessPoolExecutor(
            n, context, signal.signal, (signal.SIGINT, signal.SIG_DFL))     # Ctrl-C ends workers
    with pool:
        results = pool.map(function, *zip(*jobs))
        return [*tqdm(results, function.__name__, len(jobs), unit=' shards', disable=None)]


def clean(config):
    """Clean the config's sources and write the result to config.out_dir."""
    out_dir = pathlib.Path(config.out_dir).resolve()
    sources, shards = find_sources(config)      # {name: {'path', 'weight', ...}}, [(name, paths)]
    settings = json.dumps({name: value for name, value in vars(config).items()
                           if name not in EXECUTION_SETTINGS})
    # domain lists, reference texts and benchmarks, which the shards also depend on
    references = [find_files(vars(config)[name])[0] for name in PATHS if vars(config)[name]]
    # fails now, before the work begins, if a file or package of an optional feature is missing
    _, stages = make_stages(settings)
    cache_key = fingerprint(settings, itertools.chain(*references, *(paths for _, paths in shards)))
    paths_of = lambda sources: [os.path.normpath(source['path']) for source in sources.values()]
    is_same = lambda meta: paths_of(meta['sources']) == paths_of(sources)
    work, lock = open_results(out_dir, FORMAT, RESULTS, is_same, config.overwrite, cache_key)
    folders = [work / f'{cache_key}-{i:05}' for i in range(len(shards))]

    # 1. Per document, in parallel: read, normalize, apply the rules, mask personal data.
    stats, examples = collections.defaultdict(collections.Counter), {}
    stats['documents'].update(dict.fromkeys(stages, 0))         # fixes the order of the report
    jobs = [(*shard, str(folder), settings) for shard, folder in zip(shards, folders)]
    for shard_stats, shard_examples in run_parallel(clean_shard, jobs, config):
        examples = shard_examples | examples    # earlier shards take precedence
        for title, counter in shard_stats.items():
            stats[title].update(counter)
    path = examples.get('undecodable bytes', '')
    if os.path.isfile(path):    # a text file: add a line number, as the path of a record has
        matches = map(SURROGATE.search, lines_of(path, config.encoding))
        examples['undecodable bytes'] = f'{path}:{[*map(bool, matches)].index(True) + 1}'

    # 2. Across documents: keep the first document of each cluster of duplicates.
    parts = [np.fromfile(folder / 'numbers', np.uint64).reshape(-1, 3) for folder in folders]
    offset, size, exact_hashes = np.concatenate(parts).T                         # (n,) each
    ends = np.cumsum([*map(len, parts)])

    def document(i):
        with open(folders[np.searchsorted(ends, i, 'right')] / 'documents.jsonl', 'rb') as f:
            f.seek(offset[i])
            return json.loads(f.readline())

    duplicates, parent = find_duplicates(exact_hashes, folders, document, config, stats)
    kept = np.ones(len(size), bool)
    for reason, indices in duplicates.items():
        kept[indices] = False
        stage = f'{reason}s'
        stats['documents'][stage] = int(kept.sum())
        stats['bytes'][stage] = int(size[kept].sum())
        if len(indices):
            stats['dropped'][reason] = stats[f'dropped by {stage}'][reason] = len(indices)
            stats['dropped bytes'][reason] = int(size[indices].sum())
            examples[reason] = document(indices[0])['path']

    # 3. Write the shards.
    new = work / 'new'
    (new / 'shards').mkdir()
    jobs = []
    for i, (mask, sizes) in enumerate(zip(np.split(kept, ends)[:-1], np.split(size, ends))):
        name, _ = shards[i]
        sources[name]['documents'] += int(mask.sum())
        sources[name]['bytes'] += int(sizes[mask].sum())
        if mask.any():
            file = f'{name}-{i:05}.jsonl.gz' if config.sources else f'{i:05}.jsonl.gz'
            jobs.append((str(folders[i]), str(new / 'shards' / file), mask))
    digests = run_parallel(write_shard, jobs, config)

    # 4. The report.
    card, metadata = None, {'licenses': {}}
    if any(vars(config)[name] for name in FILTERS):
        from extras.text import filters
        card, metadata = filters.report(new, vars(config), stats, duplicates, parent, document,
                                        np.flatnonzero(kept), size, mode_of)
    write_report(new, out_dir, stats, examples, sources, card)
    empty = [name for name, source in sources.items() if not source['documents']]
    dropped = {reason: examples[reason] for reason in stats['dropped']}
    require(not empty, f'no documents of {" and ".join(empty)} are left: {shown(dropped)}; add '
            'text to the source, or relax the filters')
    meta = {'format': FORMAT, 'sources': sources, 'config': json.loads(settings), **metadata,
            'sha256': hashlib.sha256(''.join(digests).encode()).hexdigest()}
    (new / 'meta.json').write_text(json.dumps(meta, indent=1))
    publish(out_dir, RESULTS)
    print(f'next: python prepare.py --source={shlex.quote(os.path.relpath(out_dir))}')


if __name__ == '__main__':      # config files and flags override settings
    config = types.SimpleNamespace(**configure(globals(), BOUNDS))
    import clean as this        # so that worker processes can import its functions
    this.clean(config)
