"""
Point clean.py at text and you get shards of clean text, and a table of drop reasons with counts.

    python clean.py                                 # Python's standard library, no network needed
    python clean.py --source=FOLDER --out_dir=data/mine
    python clean.py --source='web/*.jsonl.gz' --languages=en,de --audit=20
    python clean.py config/mix.py                   # sources = {'web': ('web/*.jsonl', 50), ...}
    python prepare.py                               # next: tokens for train.py

    per document, in parallel:      read -> normalization -> rules -> personal data
    across documents:               duplicates -> shards -> report

A document is a text file, or a record of a .jsonl file. clean.py writes the documents that it keeps
to out_dir/shards/00000.jsonl.gz, ... as lines {"text": ..., "path": ..., "source": ...}, filter
statistics to report.md and report.json, and meta.json. If a run was interrupted, the same command
resumes it. You should see 12 MB of Python become 9.6 in a few seconds. This stage decides what the
model learns from, and a model learns the defects of its text, so read report.md before training.

The rules are at the top, because you will edit them; the code that runs them is at the bottom.
Without extras/, this file needs files.py, dedup.py and configurator.py, and --pii=False.
"""
import collections, concurrent.futures, contextlib, functools, gzip, hashlib, itertools, json
import multiprocessing, os, pathlib, re, shlex, signal, sys, tempfile, types, unicodedata, warnings
from typing import Literal
from configurator import UserError, configure, require
import numpy as np
from dedup import exact_duplicates, hash64, near_duplicates, shingles, signature
from files import (FACTS, HTML, LINES, NOT_UTF8, PROSE, SURROGATE, TABLES, ends_with, find_files,
                   lines_of, open_results, publish, read, replace_invalid_bytes, shown,
                   without_controls)
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, codeparrot, hf:OWNER/NAME, file, folder, glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
out_dir = 'data/clean'          # output folder
overwrite = False               # True: replace the data of another source in out_dir
mode: Literal['auto', 'code', 'prose', 'raw'] = 'auto'      # auto: by the file extension
encoding = ''                   # of text files, such as cp1250; '' = UTF-8, or UTF-16 with a BOM
text_field = ''                 # field of records with the text; '' = text, content, code, ...
min_words = 20                  # prose: minimum number of words; 0 disables a rule, here and below
max_symbols = 0.3               # prose: fraction of visible characters that are symbols, such as #
max_repetition = 0.7            # prose: fraction of repeated lines or words
max_gibberish = 0.2             # prose: fraction of words with spellings of hardly any language
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # the last two: near-duplicates
bands = 32                      # minhash: texts that agree in a band are compared
rows = 8                        # minhash: hashes per band; more hashes mean fewer comparisons
min_similarity = 0.85           # minhash: minimum Jaccard similarity of near-duplicates
max_files = 0                   # files of each source; 0 = all
num_workers = 0                 # number of processes; 0 = one per core
# optional features: implemented in extras/ and imported only when switched on
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
markup: Literal['auto', 'none', 'html', 'latex'] = 'auto'   # to strip; auto: by .html and .tex
cluster = ''                    # address of a Dask scheduler whose machines share this disk
url_block = ''                  # file of domains to drop, one a line
url_allow = ''                  # file of domains to keep, overrides url_block
licenses = ''                   # the only licenses to keep: mit,apache-2.0,unknown; '' = all
languages = ''                  # such as en,de: drop prose that is clearly in another language
perplexity_reference = ''       # good text, to train an n-gram model for perplexity
min_bits = 0.5                  # perplexity: minimum bits per byte; lower is boilerplate
max_bits = 5.0                  # perplexity: maximum bits per byte; higher is noise
quality_good = ''               # good texts, to train a quality classifier
quality_bad = ''                # bad texts, for the same classifier
decontaminate = ''              # benchmark files, a,b,...: drop texts that share 13 words in a row
audit = 0                       # examples in audit.md of each drop reason; above 0: a data card
# settings that are paths
PATHS = 'url_block url_allow perplexity_reference quality_good quality_bad decontaminate'.split()
FILTERS = [*PATHS, 'licenses', 'languages', 'audit']        # these need extras/text/filters.py
# minimum and maximum value; any other number must be at least 0
BOUNDS = {'bands': (1, 1024), 'rows': (1, 64), 'num_workers': (0, 1024), **dict.fromkeys(
    'max_symbols max_repetition max_gibberish min_similarity'.split(), (0, 1))}


# --- rules: reasons to drop a document ------------------------------------------------------------
# To add a rule, add two lines to a function here, or a stage to make_stages.
# Every rule also drops good documents, so each rule reports its reason. Rules run in parallel, one
# document at a time, and before deduplication: a later rule could drop the only document that
# deduplication has kept of a cluster.
UNSPACED = re.compile('[\u0e01-\U0010ffff]')       # scripts without spaces: Thai, Chinese


def prose_reason(text, min_words=20, max_symbols=0.3, max_repetition=0.7, max_gibberish=0.2):
    """Return the reason to drop a text of prose, or None. A threshold of 0 disables its rule."""
    head = text[:100_000]           # characters; enough to decide
    words = head.lower().split()
    # in a script without spaces, a word has about two characters
    if len(words) < min_words and len(UNSPACED.findall(text)) < 2 * min_words:
        return 'short'                                                  # Page not found
    if max_symbols and symbol_fraction(head, words) > max_symbols:
        return 'symbols'                                                # *** >>> $$$ <<< ***
    if max_repetition and repeated_fraction(head, words) > max_repetition:
        return 'repetitive'                                             # buy buy buy buy buy
    if max_gibberish and gibberish_fraction(words) > max_gibberish:
        return 'gibberish'                                              # qwrtzpl x4k9f2 bcdfghj


GENERATED = re.compile('auto-?generated|automatically generated|do not edit\\b|'
                       'generated (?:from|by|with|using)\\b', re.I)
CONFIG_OR_TEST = re.compile('unit tests?|test file|configuration file', re.I)


def code_reason(text, is_python=True):
    """Return the reason to drop a program, or None: CodeParrot's rules with its thresholds.

    Two rules, 'config or test' and 'no keywords', match too many good programs, so CodeParrot drops
    a match only with probability 0.7. Our random number in [0, 1) is a hash of the text, so every
    run drops the same programs: those below 0.7. prepare.py must split by another hash: it puts
    hashes below 0.1 into validation, so with the same hash these two rules would drop all of their
    matches in the validation split, but only two thirds of their matches in the training split."""
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
    is_frequent = max(text.count('config'), text.count('test')) > 0.05 * len(lines)
    if uniform < 0.7 and (is_frequent or CONFIG_OR_TEST.search(head)):
        return 'config or test'                                         # Unit tests of f
    if not is_python:
        return None
    # the bits after the first ten, so that the two rules decide independently
    if uniform * 1024 % 1 < 0.7 and not re.search(r'\b(?:def|class|for|while)\b', text):
        return 'no keywords'                                            # print(1)
    if text.count('=') < 5:
        return 'few assignments'                                        # import abc
    if not compiles(text):
        return 'does not parse'                                         # print 1


ASCII_SYMBOLS = bytes(b for b in range(128) if not chr(b).isalnum())
RULER = re.compile(r'\n[ \t|+]*([^\w\s|+])\1{2,}(?:[ \t|+]+\1+)*[ \t|+]*$', re.M)    # |---|---|


def symbol_fraction(text, words):
    """Return the fraction of visible characters that are not letters, digits, marks or rulers."""
    text = RULER.sub('', f'\n{text}')
    symbols = [c for c in {*text} if not c.isalnum() and not c.isspace()
               and unicodedata.category(c)[0] != 'M']
    return sum(map(text.count, symbols)) / max(1, sum(map(len, words)))


def repeated_fraction(text, words, window=200):
    """Return the fraction of repeated lines, or, if larger, of repeated words in windows of 200
    words. Without windows the fraction would grow with the length: 0.88 in Tiny Shakespeare."""
    repeats = lambda items: 1 - len(set(items)) / max(1, len(items))
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    lines = [*filter(None, map(str.strip, text.split('\n')))]
    return max(sum(map(repeats, windows)) / len(windows), repeats(lines) if len(lines) >= 5 else 0)


GIBBERISH_WORD = re.compile(r'[bcdfghjklmnpqrstvwxzßçðñþ]{6}|'     # qwrtzpl
                      r'[a-z]\d+[a-z]\w*\d|'                 # x4k9f2
                      r'[a-z0-9_]{31}')                        # aaaaaaaaaaa...


def gibberish_fraction(words):
    """Return the fraction of distinct words with a spelling that hardly any language has."""
    words = {*words}
    return sum(map(bool, map(GIBBERISH_WORD.search, words))) / max(1, len(words))


# --- normalization: the same text from two sources becomes the same characters --------------------
# Otherwise the tokenizer spends vocabulary on variants of a text, and the model learns all of them.
# A code block in Markdown: between fences, or indented after an empty line.
CODE_BLOCK = re.compile(r'''(
    ^(?: (?<!\S\n) | (?![ \t>]*~) )                     # ~~~ right below text underlines a heading
    (?: [ \t>*+-] | \d+[.)] )*                          # the fence may be in a list or a quote
    (?P<fence> `{3,}(?=[^`\n]*$) | ~{3,} ) [^\n]*
    (?: \n.*?^ (?: [ \t>*+-] | \d+[.)] )* (?P=fence) [`~]* [ \t]*$ | .* )     # or unclosed
    | (?<=\n\n)(?=[ \t]+\S) (?: \s*^(?:[ ]{3}|\t)[ \t]*\S[^\n]* )+ )''', re.M | re.S | re.X)


def normalise(text, mode):
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
    # prose, code, its fence, prose, code, ...; most texts have no code block: skip the slow regex
    pieces = CODE_BLOCK.split(text) if re.search('```|~~~|\n\n(?:   |\t)', text) else [text]
    pieces = itertools.zip_longest(map(collapse_spaces, pieces[::3]), pieces[1::3], fillvalue='')
    return ''.join(itertools.chain(*pieces)).rstrip()


def collapse_spaces(text):
    """Collapse runs of spaces and of empty lines, but keep the indentation of lines."""
    # (?<=\S.) excludes the beginning of a line, and (?<! ) a single space.
    text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text)
    return re.sub(r'\n\s*\n', '\n\n', text.replace(' \n', '\n'))


# The text begins like a sentence and not like a program, so mode_of need not compile it.
SENTENCE = re.compile(r'\s*[A-Z]\w*[ \t]+(?!(?:is|in|and|or|if|not)\b)[^\W\d]')
# a line with an effect: x = 1, f(x), import abc
STATEMENT = re.compile(r'^[^#"\'\n]*[=(]|^[ \t]*(?:from|import)\b', re.M)


def mode_of(text, path):
    """Return the mode of a text by its file extension: 'code' for Python, 'prose' for text formats,
    whose code blocks are kept, 'other code' for any other extension, such as a.zig. Without an
    extension, a text is Python if it parses and does something: `yes` and `a: b` do nothing."""
    # a.zig.gz has .zig; a.jsonl:7 and a repository, ann/discord.py/, have no extension
    if re.search(r'\.(?!(gz|zst|bz2|xz)$)[A-Za-z][\w+]*(\.(gz|zst|bz2|xz))?$', path):
        prose = ends_with(path, PROSE)
        return 'code' if ends_with(path, '.py') else 'prose' if prose else 'other code'
    may_be_code = not SENTENCE.match(text) and STATEMENT.search(text)
    return 'code' if may_be_code and compiles(text) else 'prose'


def compiles(program):
    """Return whether a text is a valid Python program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')         # about invalid escapes in strings
            return bool(compile(program, 'program', 'exec', dont_inherit=True))
    except Exception:                               # deep nesting: MemoryError, RecursionError
        return False


# --- stages: functions of one document ------------------------------------------------------------
# A document is {'text': 'import abc\n...', 'path': 'lib/abc.py', 'source': 'stdlib', ...}. A stage
# is called with a document, which it may change, and with stats. It returns the reason to drop the
# document, or None. stats is a dict of counters, which are summed over all shards:
#     documents           {stage: number of documents that passed it}
#     bytes               {stage: bytes of these documents}
#     dropped by STAGE    {reason: documents}
#     dropped, changed, dropped bytes, changed bytes        {reason or change: documents, or bytes}
#     and any counter of a stage, for example               documents taken as: {'prose': 12}


def check_text(document, stats):
    """Drop documents that can't be read or decoded, and empty ones. In all others, replace invalid
    bytes, at most one in a thousand, by \ufffd."""
    text, n_invalid = replace_invalid_bytes(document['text'])
    reason = document['why'] or text is None and NOT_UTF8 or not text.strip() and 'empty'
    if n_invalid and not reason:
        document['text'] = text
        stats['changed']['undecodable bytes'] += 1
        stats['changed bytes']['undecodable bytes'] += n_invalid
    return reason


def normalization(config):
    """Return the stage that strips markup and normalizes the text. The file extension says which
    markup a text has, unless --markup does."""
    try:
        from extras.text import markup
    except ImportError:
        markup = None
        print('extras/text/markup.py is missing: HTML and LaTeX stay, mojibake is not repaired')

    n_bytes = lambda text: len(text.encode('utf-8', 'replace'))

    def normalize(document, stats):
        text, path = document['text'], document['path']
        mode = mode_of(text, path)
        if config.mode != 'auto' and (config.mode, mode) != ('code', 'other code'):
            mode = config.mode
        kind = 'html' if ends_with(path, HTML) else 'latex' if ends_with(path, '.tex') else ''
        kind = kind if config.markup == 'auto' else config.markup
        steps = [('control characters', lambda text: without_controls(text, mode))]
        if mode == 'prose' and markup:
            strip = {'html': markup.strip_html, 'latex': markup.strip_latex}.get(kind, str)
            steps[:0] = [('data: addresses', markup.without_data), (kind, strip),
                         ('wrong letters', markup.fix_mojibake)]
        for name, function in steps:
            before, text = text, function(text)
            if text != before:
                stats['changed'][name] += 1
                stats['changed bytes'][name] += n_bytes(before) - n_bytes(text)
        document |= {'text': normalise(text, mode), 'mode': mode}
        stats['documents taken as'][mode] += 1
        return check_text(document, stats)

    return normalize


def check_rules(config, document, stats):
    """Apply the rules for the document's mode."""
    if document['mode'] == 'prose':
        return prose_reason(document['text'], config.min_words, config.max_symbols,
                            config.max_repetition, config.max_gibberish)
    if document['mode'] != 'raw':
        return code_reason(document['text'], document['mode'] == 'code')


def hide_personal_data(hide, document, stats):
    """Replace personal data by placeholders with `hide` of extras/text/pii.py."""
    counts = collections.Counter()
    is_code = document.get('mode') == 'code' or ends_with(document['path'], '.r')
    document['text'] = hide(document['text'], counts, is_code)
    stats['changed'].update([*+counts])


@functools.lru_cache(1)
def make_stages(settings):
    """Return the settings and the stages {name: function}, in execution order. settings: JSON,
    because a process that isn't forked builds its own stages."""
    config = types.SimpleNamespace(**json.loads(settings))
    stages = {'found': lambda document, stats: None,        # counts the input and drops nothing
              'read': check_text, 'normalization': normalization(config),
              'rules': functools.partial(check_rules, config)}
    if config.pii:
        from extras.text.pii import hide
        stages['personal data'] = functools.partial(hide_personal_data, hide)
    if any(vars(config)[name] for name in FILTERS):
        from extras.text import filters
        stages = filters.with_options(stages, config, mode_of, normalise)
    return config, stages


# --- one shard: the unit of parallel work ---------------------------------------------------------
SAVED_FIELDS = ['text', 'path', 'source', *FACTS]       # fields of a document


def clean_shard(source, paths, folder, settings):
    """Run the stages on the documents of a shard, unless an earlier run has written FOLDER. Return
    the stats, and examples, {reason: path of its first document}. FOLDER contains:

        documents.jsonl     the documents that passed all stages, one a line
        numbers             uint64 (documents, 3): the offset of each document's line, its size in
                            bytes, and a hash of its text without white space
        signatures          uint8: the MinHash or SimHash signature of each document
        stats.json          the return value"""
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
                if document['text'] is not text:        # most stages change no text
                    text = document['text']
                    data = text.encode('utf-8', 'replace')
                    size = len(data) or document['lost']
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
                f.write(json.dumps(line).encode() + b'\n')
    (new / 'stats.json').write_text(json.dumps([stats, examples]))
    with contextlib.suppress(OSError):          # Dask may run a shard twice
        new.rename(folder)
    return stats, examples


def write_shard(folder, path, kept):
    """Write the lines of a shard where `kept`, bool (n,), is True. Return their hash."""
    digest = hashlib.sha256()
    # level 1: the shard is read only a few times, so fast compression pays
    with open(f'{folder}/documents.jsonl', 'rb') as f, gzip.GzipFile(path, 'wb', 1, mtime=0) as new:
        for line in itertools.compress(f, kept):
            new.write(line)
            digest.update(line)
    return digest.hexdigest()


# --- deduplication: keep the first document of each cluster ---------------------------------------
# MinHash is the default. SimHash, the other classic method, is included for comparison: it is
# faster and finds fewer near-duplicates.
def find_duplicates(exact_hashes, folders, document, config, stats):
    """Return {reason: indices of the documents to drop}, and parent, (n,): for each document the
    index of the one that is kept in its place. document(i) reads document i."""
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
    """Write report.json and report.md, and print the tables of report.md."""
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
    tables = {title: {name: {'documents': n, 'bytes': stats[f'{title} bytes'][name] or None,
                             'example': examples[name]} for name, n in stats[title].most_common()}
              for title in ('changed', 'dropped')}
    counts = {key: counter for key, counter in stats.items() if key.split()[0] not in tables}
    rows += ['', *(f'- {title}: {name}: {shown(values)}' for title, table in tables.items()
                   for name, values in table.items())]
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
# settings that do not change the result
EXECUTION_SETTINGS = {'out_dir', 'overwrite', 'num_workers', 'cluster', 'preset'}
# Shards depend only on file sizes, each is cleaned into its own folder, and folders are read in
# order, so the result does not depend on the number of processes.
SHARD = 16_000_000              # bytes


def find_sources(config):
    """Return the sources {name: {'path', 'weight', 'files', ...}}; a single source is named by its
    path. Return also the shards [(name of the source, [path, ...]), ...]: each about 16 MB of text
    files, or one file of records of any size."""
    sources = {config.source: {'path': config.source}}
    if config.sources is not None:
        from extras.training import mixture
        sources = mixture.sources_of(config.sources)
    shards = collections.defaultdict(list)
    for name, source in sources.items():
        paths, skipped = find_files(source['path'], max_files=config.max_files or None)
        if any(ends_with(path, TABLES) or path.endswith('.zst') for path in paths):
            from extras.text import formats     # noqa: F401  (fail now if extras/ is missing)
        source |= {'files': len(paths), 'skipped': shown(skipped), 'documents': 0, 'bytes': 0}
        print(f'{name}: {len(paths):,} files; skipped: {shown(skipped)}')
        total = 0
        for path in paths:
            shards[name, total // SHARD].append(path)
            total += SHARD if ends_with(path, LINES + TABLES) else os.path.getsize(path)
    return sources, [(name, paths) for (name, _), paths in shards.items()]


def fingerprint(settings, paths):
    """Return a hash of everything that the cleaned shards depend on. Their folders are named by it,
    so after a kill the same command reuses them; with an edited file or another setting, the hash
    differs and the shards are cleaned again."""
    here = pathlib.Path(__file__).parent
    paths = [*paths, *here.glob('*.py'), *here.glob('extras/text/*.*')]
    stamps = sorted((str(path), os.path.getsize(path), os.path.getmtime(path)) for path in paths)
    # sys.version, because the rule 'does not parse' depends on it
    return f'{hash64(json.dumps([settings, sys.version, stamps]).encode()):016x}'


def run_parallel(function, jobs, config):
    """Return [function(*arguments) for arguments in jobs], computed by num_workers processes, or by
    the machines of a Dask cluster for data that one machine can't clean."""
    if config.cluster:
        from dask.distributed import Client
        try:
            pool = Client(config.cluster).get_executor()
        except (OSError, ValueError) as error:
            raise UserError(f'--cluster={config.cluster}: {error}') from None
    else:               # forked processes share the stages' models; fork is only safe on Linux
        n = min(config.num_workers or os.cpu_count(), max(1, len(jobs)))
        context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
        pool = concurrent.futures.ProcessPoolExecutor(
            n, context, signal.signal, (signal.SIGINT, signal.SIG_DFL))     # Ctrl-C ends workers
    with pool:
        results = pool.map(function, *zip(*jobs))
        return [*tqdm(results, function.__name__, len(jobs), unit=' shards', disable=None)]


def clean(config):
    """Clean the sources of the config into config.out_dir."""
    out_dir = pathlib.Path(config.out_dir).resolve()
    sources, shards = find_sources(config)      # {name: {'path', 'weight', ...}}, [(name, paths)]
    settings = json.dumps({name: value for name, value in vars(config).items()
                           if name not in EXECUTION_SETTINGS})
    # If a file or a package of an optional feature is missing, fail now, before the work begins.
    _, stages = make_stages(settings)
    # files that the shards also depend on: domain lists, reference texts, benchmarks
    lists = [find_files(vars(config)[name])[0] for name in PATHS if vars(config)[name]]
    state = fingerprint(settings, itertools.chain(*lists, *(paths for _, paths in shards)))
    paths_of = lambda sources: [os.path.normpath(source['path']) for source in sources.values()]
    is_same = lambda meta: paths_of(meta['sources']) == paths_of(sources)
    work, lock = open_results(out_dir, FORMAT, RESULTS, is_same, config.overwrite, state)
    folders = [work / f'{state}-{i:05}' for i in range(len(shards))]

    # 1. Per document, in parallel: read, normalize, apply the rules, mask personal data.
    stats, examples = collections.defaultdict(collections.Counter), {}
    stats['documents'].update(dict.fromkeys(stages, 0))         # fixes the order of the report
    jobs = [(*shard, str(folder), settings) for shard, folder in zip(shards, folders)]
    for shard_stats, shard_examples in run_parallel(clean_shard, jobs, config):
        examples = shard_examples | examples    # earlier shards win
        for title, counter in shard_stats.items():
            stats[title].update(counter)
    place = examples.get('undecodable bytes', '')
    if os.path.isfile(place):           # add the line number, which the place of a record has
        matches = map(SURROGATE.search, lines_of(place, config.encoding))
        examples['undecodable bytes'] = f'{place}:{[*map(bool, matches)].index(True) + 1}'

    # 2. Across documents: keep the first document of each cluster of duplicates.
    parts = [np.fromfile(folder / 'numbers', np.uint64).reshape(-1, 3) for folder in folders]
    begin, size, exact_hashes = np.concatenate(parts).T                         # (n,) each
    ends = np.cumsum([*map(len, parts)])

    def document(i):
        with open(folders[np.searchsorted(ends, i, 'right')] / 'documents.jsonl', 'rb') as f:
            f.seek(begin[i])
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
    card, more = None, {'licenses': {}}
    if any(vars(config)[name] for name in FILTERS):
        from extras.text import filters
        card, more = filters.report(new, vars(config), stats, duplicates, parent, document,
                                    np.flatnonzero(kept), size, mode_of)
    write_report(new, out_dir, stats, examples, sources, card)
    empty = [name for name, source in sources.items() if not source['documents']]
    dropped = {reason: examples[reason] for reason in stats['dropped']}
    require(not empty, f'no documents are left of {" and ".join(empty)}: {shown(dropped)}; give '
            'more text, or relax the filters')
    meta = {'format': FORMAT, 'sources': sources, 'config': json.loads(settings), **more,
            'sha256': hashlib.sha256(''.join(digests).encode()).hexdigest()}
    (new / 'meta.json').write_text(json.dumps(meta, indent=1))
    publish(out_dir, RESULTS)
    print(f'next: python prepare.py --source={shlex.quote(os.path.relpath(out_dir))}')


if __name__ == '__main__':      # config files and flags override settings
    config = types.SimpleNamespace(**configure(globals(), BOUNDS))
    import clean as this        # so that other processes and machines can import its functions
    this.clean(config)
