"""
Point clean.py at text and you get shards of clean text, and a table of what was dropped and why.

    python clean.py                                 # Python's own standard library, without network
    python clean.py --source=FOLDER --out_dir=data/mine
    python clean.py --source='web/*.jsonl.gz' --languages=en,de --audit=20
    python clean.py config/mix.py                   # sources = {'web': ('web/*.jsonl', 50), ...}
    python prepare.py                               # next: tokens for train.py

    per document, in parallel:      read -> normalization -> rules -> personal data
    across documents:               duplicates -> shards -> report

A document is a file of text, or a record of .jsonl. clean.py writes out_dir/shards/00000.jsonl.gz,
..., lines {"text": ..., "path": ..., "source": ...}, then the statistics of each filter, in
report.md and report.json, and meta.json. The same command resumes a run that was interrupted. You
should see 12 MB of Python become 9.6 in a few seconds. This stage decides what the model learns
from, and a model has the defects of its text, so read report.md before you continue.

The rules come first, because they are what you will change; the job, which puts all together, is
at the end. Without extras/ this file works with files.py, dedup.py and configurator.py beside it,
and --pii=False.
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
out_dir = 'data/clean'          # folder of results
overwrite = False               # True: replace the data of another source in out_dir
mode: Literal['auto', 'code', 'prose', 'raw'] = 'auto'      # auto: by the ending of the file
encoding = ''                   # of files of text, such as cp1250; '' = UTF-8, UTF-16 with its mark
text_field = ''                 # field of records that has the text; '' = text, content, code, ...
min_words = 20                  # prose: words; 0 switches a rule off, here and below
max_symbols = 0.3               # prose: fraction of visible characters that are symbols, such as #
max_repetition = 0.7            # prose: fraction of lines or words that repeat
max_gibberish = 0.2             # prose: fraction of words that hardly any language spells
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # the last two: near-duplicates
bands = 32                      # minhash: texts that agree in a band are compared
rows = 8                        # minhash: numbers of a band; more of them, fewer comparisons
min_similarity = 0.85           # minhash: Jaccard similarity of n-grams that makes a duplicate
max_files = 0                   # files of each source; 0 = all
num_workers = 0                 # processes that share the work; 0 = all cores
# optional features: implemented in extras/ and imported only when switched on
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
decontaminate = ''              # benchmark files, a,b,...: drop what shares 13 words in a row
audit = 0                       # documents to show in audit.md for each reason, and a data card
# settings that name files
LISTS = 'url_block url_allow perplexity_reference quality_good quality_bad decontaminate'.split()
OPTIONS = [*LISTS, 'licenses', 'languages', 'audit']        # they ask for extras/text/filters.py
# the lowest and the highest value; any other number must be at least 0
BOUNDS = {'bands': (1, 1024), 'rows': (1, 64), 'num_workers': (0, 1024), **dict.fromkeys(
    'max_symbols max_repetition max_gibberish min_similarity'.split(), (0, 1))}


# --- rules: why a document is not worth learning from ---------------------------------------------
# A rule of yours is two lines here, or a stage in make_stages.
# Each rule drops good documents, too, so each says its reason. Rules come before duplicates for two
# reasons: they need one document at a time, so processes can share the work; and of several
# duplicates the first one is kept, so if a rule dropped that one later, none would be left.
NO_SPACES = re.compile('[\u0e01-\U0010ffff]')       # scripts without spaces, such as Thai, Chinese


def prose_reason(text, min_words=20, max_symbols=0.3, max_repetition=0.7, max_gibberish=0.2):
    """Return why to drop a text of prose, or None. A limit of 0 switches its rule off."""
    head = text[:100_000]           # enough to judge by
    words = head.lower().split()
    # two characters of a script without spaces make about a word
    if len(words) < min_words and len(NO_SPACES.findall(text)) < 2 * min_words:
        return 'short'                                                  # Page not found
    if max_symbols and symbol_share(head, words) > max_symbols:
        return 'symbols'                                                # *** >>> $$$ <<< ***
    if max_repetition and repeated_share(head, words) > max_repetition:
        return 'repetitive'                                             # buy buy buy buy buy
    if max_gibberish and odd_share(words) > max_gibberish:
        return 'gibberish'                                              # qwrtzpl x4k9f2 bcdfghj


GENERATED = re.compile('auto-?generated|automatically generated|do not edit\\b|'
                       'generated (?:from|by|with|using)\\b', re.I)
CONFIG_OR_TEST = re.compile('unit tests?|test file|configuration file', re.I)


def code_reason(text, is_python=True):
    """Return why to drop a program, or None: the rules of CodeParrot, with its numbers.

    Two of them are right too seldom to drop all that they find, so CodeParrot draws for each find:
    with probability 0.7 it is dropped. Here a hash of the text draws, a number in [0, 1), and below
    0.7 the text is dropped: the next run drops the same texts. It must be another hash than the one
    by which prepare.py splits. There, texts below 0.1 are for validation, so of these the two rules
    would drop every find, and none of those above 0.7."""
    lines = text.split('\n')
    data = text.encode('utf-8', 'surrogatepass')
    head = '\n'.join(lines[:5])
    drawn = hash64(b'rules' + data) / 2 ** 64       # in [0, 1)
    if max(map(len, lines)) > 1000:
        return 'long line'                                              # DATA = 'eJzsvXl4VNX5...
    if sum(map(len, lines)) > 100 * len(lines):
        return 'long lines'                                             # minified code
    if len(data.translate(None, SIGNS)) < 0.25 * len(data):
        return 'few letters'                                            # [[], [], [[], []]]
    if GENERATED.search(head):
        return 'autogenerated'                                          # do not edit
    often = max(text.count('config'), text.count('test')) > 0.05 * len(lines)
    if drawn < 0.7 and (often or CONFIG_OR_TEST.search(head)):
        return 'config or test'                                         # Unit tests of f
    if not is_python:
        return None
    # the digits behind the first ten bits, so that the two rules draw independently
    if drawn * 1024 % 1 < 0.7 and not re.search(r'\b(?:def|class|for|while)\b', text):
        return 'no keywords'                                            # print(1)
    if text.count('=') < 5:
        return 'few assignments'                                        # import abc
    if not compiles(text):
        return 'does not parse'                                         # print 1


SIGNS = bytes(b for b in range(128) if not chr(b).isalnum())
RULER = re.compile(r'\n[ \t|+]*([^\w\s|+])\1{2,}(?:[ \t|+]+\1+)*[ \t|+]*$', re.M)    # |---|---|


def symbol_share(text, words):
    """Return the share of the visible characters that are no letters, digits, marks or rulers."""
    text = RULER.sub('', f'\n{text}')
    symbols = [c for c in {*text} if not c.isalnum() and not c.isspace()
               and unicodedata.category(c)[0] != 'M']
    return sum(map(text.count, symbols)) / max(1, sum(map(len, words)))


def repeated_share(text, words, window=200):
    """Return the share of the lines of a text that repeat, or, if that is larger, of the words in
    windows of 200. The share of all words would grow with length: 0.88 in Tiny Shakespeare."""
    share = lambda items: 1 - len(set(items)) / max(1, len(items))
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    lines = [*filter(None, map(str.strip, text.split('\n')))]
    return max(sum(map(share, windows)) / len(windows), share(lines) if len(lines) >= 5 else 0)


ODD_WORD = re.compile(r'[bcdfghjklmnpqrstvwxzßçðñþ]{6}|'     # qwrtzpl
                      r'[a-z]\d+[a-z]\w*\d|'                 # x4k9f2
                      r'[a-z0-9_]{31}')                        # aaaaaaaaaaa...


def odd_share(words):
    """Return the share of the different words that hardly any language spells so."""
    words = {*words}
    return sum(map(bool, map(ODD_WORD.search, words))) / max(1, len(words))


# --- normalization: texts differ in what they say, and not in how a source writes it --------------
# Otherwise a tokenizer spends its vocabulary on such differences, and a model learns to write them.
# A block of code in a text: between fences, or indented below an empty line.
FENCED = re.compile(r'''(
    ^(?: (?<!\S\n) | (?![ \t>]*~) )                     # ~~~ below a line makes a heading of it
    (?: [ \t>*+-] | \d+[.)] )*                          # the fence may be in a list or a quote
    (?P<fence> `{3,}(?=[^`\n]*$) | ~{3,} ) [^\n]*
    (?: \n.*?^ (?: [ \t>*+-] | \d+[.)] )* (?P=fence) [`~]* [ \t]*$ | .* )     # nothing may end it
    | (?<=\n\n)(?=[ \t]+\S) (?: \s*^(?:[ ]{3}|\t)[ \t]*\S[^\n]* )+ )''', re.M | re.S | re.X)


def normalise(text, mode):
    """Return a normalized text. Code: a newline ends a line. Prose: also no control characters,
    composed Unicode (NFC: e and its accent are one character), and one space in place of several.
    Raw: as it is."""
    if mode != 'raw':
        text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    text = without_controls(text, mode)
    if mode != 'prose':
        return text
    if not text.isascii():
        # a pile of accents would take NFC hours
        text = re.sub('([\u0300-\u036f]{30})[\u0300-\u036f]+', r'\1', text)
        text = unicodedata.normalize('NFC', text)
    text = re.sub(r'\A\s*\n', '', text)
    # prose, code, the mark of its fence, prose, code, ...; most texts have no such line
    pieces = FENCED.split(text) if re.search('```|~~~|\n\n(?:   |\t)', text) else [text]
    pieces = itertools.zip_longest(map(one_space, pieces[::3]), pieces[1::3], fillvalue='')
    return ''.join(itertools.chain(*pieces)).rstrip()


def one_space(text):
    """Put one space or empty line in place of several, but leave the indentation of lines."""
    # (?<=\S.) means: not at the beginning of a line. A single space, (?<! ), needs no change.
    text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text)
    return re.sub(r'\n\s*\n', '\n\n', text.replace(' \n', '\n'))


# It begins as sentences do, and no program: so most prose need not be compiled.
SENTENCE = re.compile(r'\s*[A-Z]\w*[ \t]+(?!(?:is|in|and|or|if|not)\b)[^\W\d]')
# x = 1, f(x), import abc: a line that does something
STATEMENT = re.compile(r'^[^#"\'\n]*[=(]|^[ \t]*(?:from|import)\b', re.M)


def mode_of(text, path):
    """Return how to treat a text, by the end of its path: 'code' is Python, 'prose' may hold code,
    which stays, and any other ending is 'other code', such as a.zig. Without an ending, what parses
    is Python, if it does something: `yes` and `a: b` do nothing."""
    # a.zig.gz ends with .zig; a.jsonl:7 and a repository, ann/discord.py/, have no ending
    if re.search(r'\.(?!(gz|zst|bz2|xz)$)[A-Za-z][\w+]*(\.(gz|zst|bz2|xz))?$', path):
        is_prose = ends_with(path, PROSE)
        return 'code' if ends_with(path, '.py') else 'prose' if is_prose else 'other code'
    may_be_code = not SENTENCE.match(text) and STATEMENT.search(text)
    return 'code' if may_be_code and compiles(text) else 'prose'


def compiles(program):
    """Whether Python can make a program of a text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')         # of wrong escapes in strings
            return bool(compile(program, 'program', 'exec', dont_inherit=True))
    except Exception:                               # deep nesting: MemoryError, RecursionError
        return False


# --- stages: each document by itself --------------------------------------------------------------
# A document is {'text': 'import abc\n...', 'path': 'lib/abc.py', 'source': 'stdlib', ...}. A stage
# is a function of a document, which it may change, and of stats. It returns the reason to drop the
# document, or None. stats has counters, which add up over all shards:
#     documents           {stage: documents that passed it}
#     bytes               {stage: their bytes}
#     dropped by STAGE    {reason: documents}
#     dropped, dropped bytes, changed, changed bytes      {reason or what: documents, their bytes}
#     and what else a stage likes to count, such as     documents taken as: {'prose': 12}


def check_text(document, stats):
    """Drop what could not be read or decoded, and what has nothing to learn from: the first stage.
    Up to one invalid byte in a thousand becomes \ufffd."""
    text, n_invalid = replace_invalid_bytes(document['text'])
    why = document['why'] or text is None and NOT_UTF8 or not text.strip() and 'empty'
    if n_invalid and not why:
        document['text'] = text
        stats['changed']['undecodable bytes'] += 1
        stats['changed bytes']['undecodable bytes'] += n_invalid
    return why


def normalization(config):
    """Return the stage that removes markup and normalizes a text. What says that a text has markup
    is the ending of its file, or the setting."""
    try:
        from extras.text import markup
    except ImportError:
        markup = None
        print('extras/text/markup.py is missing: HTML, LaTeX and wrong letters stay as they are')

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
        for what, function in steps:
            before, text = text, function(text)
            if text != before:
                stats['changed'][what] += 1
                stats['changed bytes'][what] += n_bytes(before) - n_bytes(text)
        document |= {'text': normalise(text, mode), 'mode': mode}
        stats['documents taken as'][mode] += 1
        return check_text(document, stats)

    return normalize


def check_rules(config, document, stats):
    """Drop a document by the rules of its kind."""
    if document['mode'] == 'prose':
        return prose_reason(document['text'], config.min_words, config.max_symbols,
                            config.max_repetition, config.max_gibberish)
    if document['mode'] != 'raw':
        return code_reason(document['text'], document['mode'] == 'code')


def hide_personal_data(hide, document, stats):
    """Put placeholders in place of personal data; hide is that of extras/text/pii.py."""
    found = collections.Counter()
    is_code = document.get('mode') == 'code' or ends_with(document['path'], '.r')
    document['text'] = hide(document['text'], found, is_code)
    stats['changed'].update([*+found])


@functools.lru_cache(1)
def make_stages(settings):
    """Return the settings, and {name: stage}, in the order in which a document meets them.
    settings: JSON, because a process that isn't forked makes its stages itself."""
    config = types.SimpleNamespace(**json.loads(settings))
    stages = {'found': lambda document, stats: None,        # drops nothing: it counts what comes in
              'read': check_text, 'normalization': normalization(config),
              'rules': functools.partial(check_rules, config)}
    if config.pii:
        from extras.text.pii import hide
        stages['personal data'] = functools.partial(hide_personal_data, hide)
    if any(vars(config)[name] for name in OPTIONS):
        from extras.text import filters
        stages = filters.with_options(stages, config, mode_of, normalise)
    return config, stages


# --- one shard: a piece of the work, which processes share ----------------------------------------
KEPT = ['text', 'path', 'source', *FACTS]       # of a document


def clean_shard(source, paths, folder, settings):
    """Send the documents of a shard through the stages, unless a run has done it: then FOLDER is
    there. Return its stats, and {reason: the path of its first document}. FOLDER has

        documents.jsonl     the documents that passed, one a line
        numbers             of each: where its line begins, its bytes, a hash that duplicates share,
                            whatever their white space, uint64 (documents, 3)
        signatures          of each, what near-duplicates share, bytes
        stats.json          what is returned"""
    folder = pathlib.Path(folder)
    if folder.exists():
        return json.loads((folder / 'stats.json').read_bytes())
    config, stages = make_stages(settings)
    stats, first = collections.defaultdict(collections.Counter), {}
    new = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))     # it gets its name when all is there

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
                if document['text'] is not text:        # most stages change nothing
                    text = document['text']
                    data = text.encode('utf-8', 'replace')
                    size = len(data) or document['lost']
                stats['documents'][name] += 1
                stats['bytes'][name] += size
            for what in (stats['changed'].keys() | stats['dropped'].keys()) - first.keys():
                first[what] = document['path']
            if not reason:
                exact = hash64(data.translate(None, b' \t\n\r\f\v'))    # blanks may differ
                numbers.write(np.array([f.tell(), len(data), exact], np.uint64))
                if config.dedup in ('minhash', 'simhash'):
                    signatures.write(signature(data, config.dedup, config.bands * config.rows))
                line = {name: document[name] for name in KEPT if name in document}
                f.write(json.dumps(line).encode() + b'\n')
    (new / 'stats.json').write_text(json.dumps([stats, first]))
    with contextlib.suppress(OSError):          # a cluster may do a thing twice
        new.rename(folder)
    return stats, first


def write_shard(folder, path, kept):
    """Write those lines of a shard that are kept, bool (n,). Return their hash."""
    digest = hashlib.sha256()
    # level 1: it is read a few times, and packed once
    with open(f'{folder}/documents.jsonl', 'rb') as f, gzip.GzipFile(path, 'wb', 1, mtime=0) as new:
        for line in itertools.compress(f, kept):
            new.write(line)
            digest.update(line)
    return digest.hexdigest()


# --- duplicates: of the documents that say the same, the first one is kept ------------------------
# MinHash is the default. SimHash, the other classic method, is here to compare with: it is faster,
# and finds fewer.
def find_duplicates(exact_hashes, folders, document, config, stats):
    """Return {reason: numbers of the documents to drop}, and the number of the document that is
    kept in place of each, (n,). document(i) reads one."""
    kept_for = exact_duplicates(exact_hashes)
    if config.dedup == 'none':
        return {}, kept_for
    is_first = kept_for == np.arange(len(kept_for))
    found = {'exact duplicate': np.flatnonzero(~is_first)}
    if config.dedup != 'exact' and len(kept_for):
        signatures = np.concatenate([np.fromfile(f'{folder}/signatures', np.uint8)
                                     for folder in folders]).reshape(len(kept_for), -1)
        shingles_of = lambda i: shingles(document(i)['text'].encode('utf-8', 'surrogatepass'))
        progress = functools.partial(tqdm, desc='compare', unit=' bands', disable=None)
        kept_for, n_open = near_duplicates(
            kept_for, signatures, functools.lru_cache(512)(shingles_of), config.dedup, config.bands,
            config.min_similarity, progress)
        found['near duplicate'] = np.flatnonzero(is_first & (kept_for != np.arange(len(kept_for))))
        stats['near duplicates']['groups left after 50 rounds'] = n_open
    return found, kept_for


# --- report: what came in, what was dropped or changed, what is left ------------------------------
def write_report(folder, title, stats, first, sources, card):
    """Write report.json and report.md, whose first part is printed."""
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
    tables = {how: {what: {'documents': n, 'bytes': stats[f'{how} bytes'][what] or None,
                           'example': first[what]} for what, n in stats[how].most_common()}
              for how in ('changed', 'dropped')}
    counts = {title: some for title, some in stats.items() if title.split()[0] not in tables}
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
FORMAT = 'nanoparrot-text-1'
RESULTS = r'shards|(audit|report)\.md|(report|meta)\.json'
# settings that change no text
HARMLESS = {'out_dir', 'overwrite', 'num_workers', 'cluster', 'preset'}
# Shards are cut by the sizes of files alone, each is cleaned into a folder of its own, and folders
# are read in order: the result is the same whatever number of processes shares the work.
SHARD = 16_000_000              # bytes


def find_sources(config):
    """Return {name: {'path', 'weight', 'files', ...}}, where the name of a single source is its
    path, and the shards, [(name, [path, ...]), ...]: 16 MB of texts, or a file of records, whatever
    its size."""
    sources = {config.source: {'path': config.source}}
    if config.sources is not None:
        from extras.training import mixture
        sources = mixture.sources_of(config.sources)
    shards = collections.defaultdict(list)
    for name, source in sources.items():
        paths, skipped = find_files(source['path'], max_files=config.max_files or None)
        if any(ends_with(path, TABLES) or path.endswith('.zst') for path in paths):
            from extras.text import formats     # noqa: F401  (without it, the run ends here)
        source |= {'files': len(paths), 'skipped': shown(skipped), 'documents': 0, 'bytes': 0}
        print(f'{name}: {len(paths):,} files; skipped: {shown(skipped)}')
        total = 0
        for path in paths:
            shards[name, total // SHARD].append(path)
            total += SHARD if ends_with(path, LINES + TABLES) else os.path.getsize(path)
    return sources, [(name, paths) for (name, _), paths in shards.items()]


def state_of(settings, paths):
    """Return the first part of the names of clean shards, a hash of all that decides about them.
    After a kill, the same command finds them again; after an edit, or with another flag, it does
    not."""
    here = pathlib.Path(__file__).parent
    paths = [*paths, *here.glob('*.py'), *here.glob('extras/text/*.*')]
    stamps = sorted((str(path), os.path.getsize(path), os.path.getmtime(path)) for path in paths)
    # Python's version, because it decides which programs parse
    return f'{hash64(json.dumps([settings, sys.version, stamps]).encode()):016x}'


def share(function, jobs, config):
    """Return what a function returns for each of the jobs, its arguments. As many processes as
    num_workers says share them, or those of a cluster: Dask is for who outgrows one machine."""
    if config.cluster:
        from dask.distributed import Client
        try:
            pool = Client(config.cluster).get_executor()
        except (OSError, ValueError) as error:
            raise UserError(f'--cluster={config.cluster}: {error}') from None
    else:               # forked processes share the models of the stages; only Linux forks well
        n = min(config.num_workers or os.cpu_count(), max(1, len(jobs)))
        context = multiprocessing.get_context('fork' if sys.platform == 'linux' else 'spawn')
        pool = concurrent.futures.ProcessPoolExecutor(
            n, context, signal.signal, (signal.SIGINT, signal.SIG_DFL))     # Ctrl-C ends them, too
    with pool:
        results = pool.map(function, *zip(*jobs))
        return [*tqdm(results, function.__name__, len(jobs), unit=' shards', disable=None)]


def clean(config):
    """Clean the sources that settings name into config.out_dir."""
    out_dir = pathlib.Path(config.out_dir).resolve()
    sources, shards = find_sources(config)      # {name: {'path', 'weight', ...}}, [(name, paths)]
    settings = json.dumps({name: value for name, value in vars(config).items()
                           if name not in HARMLESS})
    # A file or a package that an option lacks ends the run here, before the work begins.
    _, stages = make_stages(settings)
    # files and folders that settings name
    lists = [find_files(vars(config)[name])[0] for name in LISTS if vars(config)[name]]
    state = state_of(settings, itertools.chain(*lists, *(paths for _, paths in shards)))
    paths_of = lambda some: [os.path.normpath(source['path']) for source in some.values()]
    is_same = lambda meta: paths_of(meta['sources']) == paths_of(sources)
    work, lock = open_results(out_dir, FORMAT, RESULTS, is_same, config.overwrite, state)
    folders = [work / f'{state}-{i:05}' for i in range(len(shards))]

    # 1. Each document by itself: read it, normalize it, judge it, hide personal data.
    stats, first = collections.defaultdict(collections.Counter), {}
    stats['documents'].update(dict.fromkeys(stages, 0))         # in order, if nothing reaches them
    for some, firsts in share(clean_shard, [(*shard, str(folder), settings)
                                            for shard, folder in zip(shards, folders)], config):
        first = firsts | first          # an earlier shard's come first
        for title, counter in some.items():
            stats[title].update(counter)
    place = first.get('undecodable bytes', '')
    if os.path.isfile(place):           # of a record, the place has its line already
        found = map(SURROGATE.search, lines_of(place, config.encoding))
        first['undecodable bytes'] = f'{place}:{[*map(bool, found)].index(True) + 1}'

    # 2. Across documents: of those that say the same, the first one is kept.
    parts = [np.fromfile(folder / 'numbers', np.uint64).reshape(-1, 3) for folder in folders]
    begin, size, exact_hashes = np.concatenate(parts).T                         # (n,) each
    ends = np.cumsum([*map(len, parts)])

    def document(i):
        with open(folders[np.searchsorted(ends, i, 'right')] / 'documents.jsonl', 'rb') as f:
            f.seek(begin[i])
            return json.loads(f.readline())

    duplicates, kept_for = find_duplicates(exact_hashes, folders, document, config, stats)
    kept = np.ones(len(size), bool)
    for reason, which in duplicates.items():
        kept[which] = False
        stage = f'{reason}s'
        stats['documents'][stage] = int(kept.sum())
        stats['bytes'][stage] = int(size[kept].sum())
        if len(which):
            stats['dropped'][reason] = stats[f'dropped by {stage}'][reason] = len(which)
            stats['dropped bytes'][reason] = int(size[which].sum())
            first[reason] = document(which[0])['path']

    # 3. Shards of what is left.
    new = work / 'new'
    (new / 'shards').mkdir()
    jobs = []
    for i, (some, sizes) in enumerate(zip(np.split(kept, ends)[:-1], np.split(size, ends))):
        name, _ = shards[i]
        sources[name]['documents'] += int(some.sum())
        sources[name]['bytes'] += int(sizes[some].sum())
        if some.any():
            file = f'{name}-{i:05}.jsonl.gz' if config.sources else f'{i:05}.jsonl.gz'
            jobs.append((str(folders[i]), str(new / 'shards' / file), some))
    digests = share(write_shard, jobs, config)

    # 4. The report.
    card, more = None, {'licenses': {}}
    if any(vars(config)[name] for name in OPTIONS):
        from extras.text import filters
        card, more = filters.report(new, vars(config), stats, duplicates, kept_for, document,
                                    np.flatnonzero(kept), size, mode_of)
    write_report(new, out_dir, stats, first, sources, card)
    empty = [name for name, source in sources.items() if not source['documents']]
    dropped = {reason: first[reason] for reason in stats['dropped']}
    require(not empty, f'no documents are left of {" and ".join(empty)}: {shown(dropped)}; give '
            'more, or drop fewer')
    meta = {'format': FORMAT, 'sources': sources, 'config': json.loads(settings), **more,
            'sha256': hashlib.sha256(''.join(digests).encode()).hexdigest()}
    (new / 'meta.json').write_text(json.dumps(meta, indent=1))
    publish(out_dir, RESULTS)
    print(f'next: python prepare.py --source={shlex.quote(os.path.relpath(out_dir))}')


if __name__ == '__main__':      # config files and flags replace settings
    config = types.SimpleNamespace(**configure(globals(), BOUNDS))
    import clean as this        # under this name, other processes and machines find its functions
    this.clean(config)
