r"""
Read text files as documents; write folders of results atomically. clean.py, prepare.py and chats.py
do both through these functions, so they read a file alike, and a kill leaves old results or new.

    paths, skipped = find_files('web/*.jsonl.gz')       # a file, a folder or a glob, or several
    for document in read(paths[0]):
        print(document['text'], document['path'], document['why'])

    work, lock = open_results(out_dir, 'my-texts-1', r'.+\.txt|meta\.json', is_same, overwrite)
    (work / 'new/a.txt').write_text('a result')         # and meta.json, which names the format
    publish(out_dir, r'.+\.txt|meta\.json')

A document is a file of text, what lines <|endoftext|> cut it into, or a record of a .jsonl. One of
a thousand files is damaged, so a reader never raises and never counts: it yields the reason, 'why',
in place of the text, and each script decides what that means. Tables, notebooks, .zst and downloads
are read by extras/text/.
"""
import bz2, codecs, collections, contextlib, functools, glob, gzip, io, itertools, json, lzma, math
import os, pathlib, re, shutil, sysconfig, zlib
from configurator import UserError, require, split_paths
import filelock, regex

# --- find -----------------------------------------------------------------------------------------
# kinds of files, by their endings
HTML = '.html', '.htm', '.xhtml'
PROSE = '.txt', '.md', '.markdown', '.rst', '.tex', '.org', '.adoc', *HTML
OTHER_CODE = tuple('.c .h .cc .cpp .cxx .hpp .cs .java .kt .scala .swift .js .jsx .ts .tsx .go .rs '
                   '.rb .php .pl .pm .lua .r .jl .hs .ml .sh .bash .sql .css .scss .vue .dart .ex '
                   '.erl .clj .lisp .f90 .pas .asm .s .yaml .yml .toml .ini .cmake'.split())
LINES = '.jsonl', '.ndjson', '.jsonlines'
TABLES = '.json', '.parquet', '.csv', '.tsv', '.ipynb'      # extras/text/formats.py reads these
TEXTS = (*PROSE, '.py', *OTHER_CODE, *LINES)
# what a folder is that a command wrote, by the format in its meta.json or a file in it
WORK = '.nanoparrot'            # in a folder of results: what is not done
KINDS = {'cleaned text': 'nanoparrot-text-1', 'tokens': 'nanoparrot-data-2',
         'chats': 'nanoparrot-chats-1', 'a run': 'last.pt last-1.pt best.pt',
         'a model of Hugging Face': 'tokenizer_config.json model.safetensors pytorch_model.bin',
         'unfinished results': WORK}
PACKED = r'\.(gz|zst|bz2|xz)$'
# folders of packages and of what is made from code
PACKAGES = set('node_modules bower_components site-packages dist-packages __pycache__'.split())


def ends_with(path, endings):
    """Whether a file is of these kinds, packed or not: ends_with('a.jsonl.gz', LINES)."""
    return re.sub(PACKED, '', path.lower()).endswith(endings)


def meta_in(folder):
    """Return what is in FOLDER/meta.json, or {} if there is nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(pathlib.Path(folder, 'meta.json').read_bytes()))
    return {}


def kind_of(folder):
    """Return what one of our commands wrote into a folder, such as 'tokens', or ''."""
    marks = {str(meta_in(folder).get('format')), *os.listdir(folder)}
    return next((kind for kind, names in KINDS.items() if marks & {*names.split()}), '')


def find_files(source, endings=TEXTS + TABLES, max_files=None):
    """Return the files of text in a source, sorted, so that the same files give the same text
    everywhere, and {what is skipped: how many}. A source is a file, a folder, a glob, stdlib or a
    download of extras/text/hub.py. Of several, 'a.txt, b', the files of one follow those of the
    other, each file once. max_files: of each source."""
    found, skipped = [], collections.Counter()
    for part in split_paths(source):
        if re.match('hf:|shakespeare$|codeparrot$', part):
            from extras.text import hub
            paths = [hub.fetch(*file) for file in hub.find_files(part, 'data/raw')[:max_files]]
        elif part == 'stdlib':                  # 12 MB of Python; with its tests, 30 MB
            tests = {'test', 'tests', 'idle_test'}
            paths, _ = find_text(sysconfig.get_paths()['stdlib'], ('.py',), PACKAGES | tests)
        else:
            paths, others = find_text(part, endings)
            skipped += others
        found += paths[:max_files]
    return [*dict.fromkeys(found)], skipped


def find_text(source, endings, ignored=PACKAGES):
    """Return the files of text that a path or a glob names, sorted, and what else is there, {what:
    how many}. A file that is named may have any ending, and so may the files of a glob that names
    the ending: *.log, or wiki_*, files without one. Results of our commands are no text."""
    found, skipped = [], collections.Counter()
    paths = paths_at(source, ignored, skipped)
    require(paths or skipped, f'{source} does not exist; give a file, folder or glob, hf:OWNER/NAME'
            ' or stdlib')

    @functools.cache
    def kind_above(folder):
        """Return whose results a folder is or is in, unless the source names that folder, or ''."""
        is_named = f'{source}/'.startswith(f'{folder}/') or folder == os.path.dirname(folder)
        return '' if is_named else kind_of(folder) or kind_above(os.path.dirname(folder))

    is_glob = re.search(r'\w[^/]*$', source) and not os.path.exists(source)
    ending_of = lambda path: os.path.splitext(re.sub(PACKED, '', path))[1]      # of a.log.gz: .log
    for path in sorted(paths):
        kind = kind_above(os.path.dirname(path))
        if not os.path.isfile(path):                            # or a pipe
            skipped['folders' if os.path.isdir(path) else 'links without a target'] += 1
        elif kind:
            skipped[f'files of {kind}'] += 1
        elif (path == source or ends_with(path, endings)
              or is_glob and ending_of(path) == ending_of(source)):
            found.append(path)
        else:
            skipped[os.path.splitext(path)[1] or 'no ending'] += 1
    require(found, f'no text at {source}, which has {shown(+skipped)}; a folder is searched for '
            f'{" ".join(sorted({*endings} - {*OTHER_CODE}))}; name others by a pattern: X/*.json')
    return found, skipped


def paths_at(source, ignored, skipped):
    """Return all paths that a path or a glob names; of a folder, the files in it."""
    # of a/**/b.py, walk finds the files in a
    top, _, pattern = (source, '', '') if os.path.exists(source) else source.partition('**')
    require('**' not in pattern, f'{source!r} has more than one **: give one at a time')
    top, pattern = top or '.', pattern.strip('/') or '*'
    if not os.path.isdir(top):
        return [top] if os.path.exists(top) else glob.glob(top)
    kind = kind_of(top)
    require(kind in ('', 'cleaned text'),
            f'{source} has {kind}, and --source must be text; or name a file in it')
    top = os.path.join(top, 'shards' if kind else '', '')       # the text in it
    return [path for path in walk(top, ignored, skipped)
            if pathlib.PurePath(path).match(pattern)]


def walk(top, ignored, skipped):
    """Yield the files below a folder, and count in skipped what is hidden, folders with an ignored
    name, and links to folders, which may lead in circles."""
    unread = lambda error: skipped.update(["folders that can't be read"])
    for folder, inner, names in os.walk(top, onerror=unread):
        skipped['linked folders'] += sum(os.path.islink(f'{folder}/{name}') for name in inner)
        skipped['hidden files and folders'] += sum(name[0] == '.' for name in inner + names)
        skipped.update(ignored & {*inner})                      # by their names
        inner[:] = [name for name in inner if name[0] != '.' and name not in ignored]
        yield from (os.path.join(folder, name) for name in names if name[0] != '.')


# --- read -----------------------------------------------------------------------------------------
# how the content of other formats begins, also of a file with a wrong ending
MAGIC = {'.pdf': rb'%PDF-', '.rtf': rb'\{\\rtf', '.zip, .docx, .xlsx or .epub': rb'PK\x03\x04',
         '.gz': rb'\x1f\x8b\x08', '.bz2': rb'BZh\d1AY', '.xz': rb'\xfd7zXZ', '.warc': rb'WARC/\d',
         '.zst': rb'\x28\xb5/\xfd', '.parquet': rb'PAR1\x15', '.tar': rb'(?s).{257}ustar',
         '.jsonl or .json': rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"[^"\n]{0,99}"\s*:'}
# A record's text has one of these names, whatever else is there; three are CodeSearchNet's.
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
# where a record is from: only a path has an ending, and ann/discord.py is a repository
REPOS = 'repo_name', 'max_stars_repo_name', 'repository_name', 'repo'
PATHS = 'path', 'max_stars_repo_path', 'func_path_in_repository'
# what is kept of a record beside its text
FACTS = 'url license licence max_stars_repo_licenses'.split()
LONG = 4_000_000                # characters; a longer text is cut into pieces, so short that
PIECE = 100_000                 # prepare.py can hold out about a tenth of it
DAMAGE = OSError, EOFError, ValueError, zlib.error, lzma.LZMAError
NO_RECORD = 'no JSON record (a list is a .json)'
NOT_UTF8 = ('not UTF-8, nor what clean.py --encoding=NAME says (cp1252: Western, cp1251: Cyrillic, '
            'shift_jis, gb18030, utf-16-le ...)')


def read(path, text_field='', encoding='', longest=LONG):
    """Yield a document for each text or record of a file: {'text', 'path', 'record', 'why', 'lost',
    ...}. 'why' says why a document has no text, or is None; 'lost' is its size in bytes then. The
    'path' of a record is the file, the number of its line, and the path that the record names,
    whose ending says whether the text is code: 'a.jsonl:7 ann/discord.py/src/main.py'. A repository
    without a path ends with a /, because its name has no ending: 'a.jsonl:7 ann/discord.py/'."""
    names = [text_field] if text_field else TEXT_NAMES
    for place, text, lost in entries(path, encoding, [*names, *REPOS, *PATHS, *FACTS], longest):
        record, why = {}, None
        if isinstance(text, Exception):
            text, why = '', str(text)
        elif isinstance(text, dict):
            record = text
            texts = {name: value for name, value in record.items() if isinstance(value, str)}
            # an empty field hides no other
            text = next((texts[name] for name in names if texts.get(name, '').strip()), '')
            where = '/'.join([*(texts[name] for name in REPOS if name in texts),
                              next((texts[name] for name in PATHS if name in texts), '')])
            if texts.keys().isdisjoint(names):
                where = f'it has {", ".join(record)}'[:200]
                found = (f'{n}, but {type(record[n]).__name__}' for n in names if n in record)
                why = (f'no text in {next(found, text_field or "a usual field")}: clean.py '
                       '--text_field=NAME reads another')
            place = f'{place} {where}'.strip()
        facts = {name: record[name] for name in FACTS if record.get(name)}
        for part in texts_in(io.StringIO(text), longest) if len(text) > longest else [text]:
            yield {'text': part, 'path': place, 'record': record, 'why': why, 'lost': lost, **facts}


def entries(path, encoding='', columns=None, longest=math.inf):
    """Yield (place, entry, lost) for each text or record of a file. An entry is a text (str), a
    record (dict), or an error that says why there is none; lost: the bytes of the line then.
    columns: the columns to read of a .parquet, None for all."""
    has_records, number = ends_with(path, LINES + TABLES), 0
    try:
        with open(path, 'rb') as f:         # also of a packed file or a .parquet
            if f.read(99).startswith(b'version https://git-lfs.github.com/spec/v1'):
                raise ValueError('a pointer of Git LFS, without the data: git lfs pull')
        if ends_with(path, TABLES):
            from extras.text import formats
            found = ((entry, 0) for entry in formats.records_of(path, encoding, columns))
        elif has_records:
            found = ((record_of(line), len(line.encode('utf-8', 'surrogateescape')))
                     for line in lines_of(path, encoding))
        else:
            found = ((text, 0) for text in texts_in(lines_of(path, encoding), longest))
        for number, (entry, lost) in enumerate(found, 1):
            if entry is not None:
                yield f'{path}:{number}' if has_records else path, entry, lost
    except UserError:             # a package that is missing
        raise
    except DAMAGE as error:
        # the words of a library, without the numbers in which files differ
        words = re.sub(r'0x[\da-f]+|\d+', 'N', getattr(error, 'strerror', '') or str(error))
        yield (f'{path}:{number + 1}' if has_records and number else path,
               error if isinstance(error, ValueError) else ValueError(f"can't be read ({words})"),
               os.path.getsize(path))


# JSON with control characters in its strings, and with numbers of more digits than int() takes
parse_json = json.JSONDecoder(
    strict=False, parse_int=lambda n: int(n) if len(n) < 4000 else float(n)).decode


def record_of(line):
    """Return the record in a line of JSON, an error if there is none, or None for a blank line."""
    record = line.strip('\0\ufeff \t\r\n') or None     # cat a.jsonl b.jsonl leaves a mark within
    with contextlib.suppress(ValueError, RecursionError):
        record = record and parse_json(record)
    return record if record is None or isinstance(record, dict) else ValueError(NO_RECORD)


# a page that says in its first lines that it has another encoding
DECLARED = re.compile(rb'(?:charset|encoding)\s*=\s*["\']?\s*(?!utf-?8)[\w:.-]', re.I)
# Invalid bytes are read as surrogates, \udc80 to \udcff, which are replaced and counted below.
codecs.register_error('surrogate', lambda error: ('\udc80' * (error.end - error.start), error.end))


def lines_of(path, encoding=''):
    """Return the decoded lines of a file, packed or not. Its encoding is what its byte order mark
    says, or UTF-8, or what a page declares, or else `encoding`. A file whose content has another
    format than its ending says is refused by the name of that format."""
    f = open_bytes(path)
    start = f.peek(4096)
    may_be_json = ends_with(path, ('.py', '.yaml', '.yml', *LINES, *TABLES))
    for form, begin in MAGIC.items():
        if re.match(begin, start) and not (may_be_json and 'json' in form):
            raise ValueError(f'the content looks like a {form}: rename or unpack it (docs/data.md)')
    # no text but JSON in UTF-16 without a mark begins with a bracket and a zero
    if mark := re.match(rb'(\xff\xfe\0\0|\0\0\xfe\xff)|(\xff\xfe|\xfe\xff)|[{[]\0', start):
        encoding = {1: 'utf-32', 2: 'utf-16'}.get(mark.lastindex, 'utf-16-le')
    elif encoding or ends_with(path, HTML) and DECLARED.search(start):
        from extras.text import formats
        encoding = formats.encoding_of(path, start, encoding)
    # a CR ends lines of a text, too; in records it may be a sign of a text, or begin the next one
    lines = io.TextIOWrapper(f, encoding or 'utf-8-sig', 'surrogate', '\n' if may_be_json else '')
    records = (part for line in lines for part in re.split('\r(?={)', line))
    return records if ends_with(path, LINES) else lines


def open_bytes(path):
    """Open a file, packed or not, to read its bytes."""
    if path.lower().endswith('.zst'):
        from extras.text import formats
        return formats.open_zst(path)
    opens = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}
    return opens.get(os.path.splitext(path.lower())[1], open)(path, 'rb')


END = '<|endoftext|>'


def texts_in(lines, longest=LONG):
    """Yield the texts of a file, given its lines: one text, unless <|endoftext|> ends some lines.

    A text of more than `longest` characters might not fit into memory, so it is yielded in pieces.
    A piece has at least 100,000 characters. It ends before the next empty line, or if there is none
    within 200,000 characters, before the next line of any kind."""
    pieces, n_piece, n_text = [[]], 0, 0    # lines of each piece; characters of the last, of all
    for line in itertools.chain(lines, [END]):
        line = line.removeprefix('<|startoftext|>')     # GPT-2's fine-tuners write it before a text
        if line.rstrip().endswith(END):             # the text of an empty file is empty
            yield ''.join(itertools.chain(*pieces, [line.rstrip().removesuffix(END)]))
            pieces, n_piece, n_text = [[]], 0, 0
            continue
        if n_piece > PIECE and (line.isspace() or n_piece > 2 * PIECE):
            pieces.append([])
            n_piece = 0
        pieces[-1].append(line)
        n_piece += len(line)
        n_text += len(line)
        while n_text > longest and len(pieces) > 1:     # only the last piece can still grow
            yield ''.join(pieces.pop(0))


# Half a pair of UTF-16, which no text has: an invalid byte was read so, or JSON says \udc80.
SURROGATE = re.compile('[\ud800-\udfff]')
# Control characters but tab and newline, with what a terminal obeys (colors, links, titles), soft
# hyphens, zero-width signs, byte order marks. A zero-width space stays between two letters of Thai,
# Khmer and the like (SA), because nothing else separates their words.
CONTROL = regex.compile(
    r'(?:(?<!\p{Line_Break=SA})\u200b++|\u200b++(?!\p{Line_Break=SA})|'
    '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u2028\u2029\u2060\ufeff\ufff9-\ufffb])'
    r'(?:(?<=\x1b)(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|'
    r'[PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|(?<=\x9b)[\d;]*m)?')
LINE_ENDS = '\x0b\x0c\x1c\x1d\x1e\u2028\u2029'      # vertical tab, new page, separators


def replace_invalid_bytes(text):
    """Return a text with \ufffd in place of invalid bytes and surrogates, and their number; None in
    place of the text if they are more than one in a thousand, because then it is not UTF-8."""
    found = [] if text.isascii() else SURROGATE.findall(text)
    n_invalid = sum('\udc80' <= one <= '\udcff' for one in found)
    n_zeros = len(re.findall('\0+', text)) if '\0' in text else 0
    # UTF-16 has many zeros, and Japanese mail is ASCII with escapes
    is_japanese = '\x1b' in text and re.search(r'\x1b\$[()@AB]', text)
    if n_invalid > len(text) / 1000 or n_zeros > 2 + len(text) / 50 or is_japanese:
        return None, n_invalid
    return SURROGATE.sub('\ufffd', text) if found else text, len(found)


def without_controls(text, mode='prose'):
    """Return code without zeros, and prose without control characters and what they make a terminal
    do, such as color a word. N, backspace, N is a bold N there: one N stays."""
    if mode != 'prose':
        return text if mode == 'raw' else text.replace('\0', '')
    if '\b' in text:        # as many characters go as backspaces follow
        text = re.sub('([^\b\n]{0,80})(\b+)', lambda m: m[1][:-len(m[2])], text)
    return CONTROL.sub(lambda m: '\n' if m[0] in LINE_ENDS else '', text)


# --- results --------------------------------------------------------------------------------------
def shown(values):
    """Return a dict for people: {'short': 1200} is 'short: 1,200'."""
    return ', '.join(f'{name}: {value if isinstance(value, str) else f"{value:,}"}'
                     for name, value in values.items() if value not in ('', None)) or 'nothing'


def lock_folder(folder):
    """Make a folder, and return the lock that keeps other processes out of it, until release() or
    the end of this process, even by kill -9. A folder that can't be written is refused."""
    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / WORK / 'lock')
        lock.acquire(0)
    except OSError as error:
        why = 'another run does' if isinstance(error, filelock.Timeout) else error.strerror
        raise UserError(f"can't write to {folder}: {why}; choose another --out_dir") from None
    return lock


def open_results(out_dir, form, names, is_same, overwrite, keep=None):
    """Return out_dir/.nanoparrot, with an empty folder `new` for results, and the lock that keeps
    other runs out. Refuse an out_dir that has anything but results of this script (names: a regular
    expression, form: what meta.json says), or, without overwrite, other ones than is_same(meta).
    keep: the beginning of the names of folders that a run which was killed has finished."""
    meta, work = meta_in(out_dir), out_dir / WORK
    # of a run that was killed; a run that was refused has left only empty folders
    begun = meta_in(work) if any(work.glob('*/*')) else {}
    # a kill while results were replaced leaves no meta.json of results
    is_ours = {some.get('format') for some in (meta, begun) if some} == {form}
    harmless = {'.DS_Store', 'lost+found', WORK if is_ours or not begun else ''}
    there = {*os.listdir(out_dir)} - harmless if out_dir.is_dir() else ()
    others = [name for name in there if not is_ours or not re.fullmatch(names, name)]
    found = others and not is_ours and kind_of(out_dir) or min(others, default='')
    require(not others, f'{out_dir} has {found}, not of this script; choose another --out_dir')
    whose = ' and '.join(meta.get('sources') or ['an earlier run'])
    require(overwrite or not meta or is_same(meta), f'{out_dir} has results, of {whose}; '
            '--overwrite=True replaces them, or choose another --out_dir')
    lock = lock_folder(out_dir)
    (work / 'meta.json').write_text(json.dumps({'format': form}))
    clear(work, keep)
    for name in 'new', 'old':
        (work / name).mkdir()
    return work, lock


def clear(work, keep=None):
    """Remove the folders in a folder, except those whose names begin with keep. Each one loses its
    name first, so that a kill leaves no half of a folder that looks whole."""
    removed = work / 'removed'          # of a kill; then each of the others has this name
    for path in [removed, *work.iterdir()]:
        if path.is_dir() and not (keep and path.name.startswith(keep)):
            path.rename(removed)
            shutil.rmtree(removed)


def publish(out_dir, names):
    """Put what is in out_dir/.nanoparrot/new in place of old results, name by name, because a
    mounted folder can't be replaced. meta.json, which says that all is there, leaves first and
    comes last, so at any moment a kill leaves old results, new ones or none."""
    new, old = out_dir / WORK / 'new', out_dir / WORK / 'old'
    for name in sorted(os.listdir(out_dir), key='meta.json'.__ne__):
        if re.fullmatch(names, name):
            os.replace(out_dir / name, old / name)
    for name in sorted(os.listdir(new), key='meta.json'.__eq__):
        os.replace(new / name, out_dir / name)
    clear(out_dir / WORK)
    # the lock goes while it is held, so nobody can get this one
    shutil.rmtree(out_dir / WORK, ignore_errors=True)
