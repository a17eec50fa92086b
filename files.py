r"""
Read text files as documents, and replace the results in a folder. clean.py, prepare.py and chats.py
share these functions. A killed script leaves the old results, the new ones, or none.

    paths, skipped = find_files('web/*.jsonl.gz')       # a file, a folder or a glob, or several
    for document in read(paths[0]):
        print(document['text'], document['path'], document['error'])

    work, lock = open_results(out_dir, 'my-texts-1', r'.+\.txt|meta\.json', is_same, overwrite)
    (work / 'new/a.txt').write_text('a result')         # meta.json needs {'format': ...}
    publish(out_dir, r'.+\.txt|meta\.json')

A document is a text file, a part of one that ends with <|endoftext|>, or a record of a .jsonl file.
In a large data set some files are damaged. read() does not raise an exception for them: it yields a
document whose 'error' is the reason, and the caller skips it or stops. Tables, notebooks, .zst and
downloads need extras/text/.
"""
import bz2, codecs, collections, contextlib, functools, glob, gzip, io, itertools, json, lzma, math
import os, pathlib, re, shutil, sysconfig, zlib
from configurator import UserError, require, split_paths
import filelock, regex

# --- find -----------------------------------------------------------------------------------------
# file types, by extension
HTML = '.html', '.htm', '.xhtml'
PROSE = '.txt', '.md', '.markdown', '.rst', '.tex', '.org', '.adoc', *HTML
OTHER_CODE = tuple('.c .h .cc .cpp .cxx .hpp .cs .java .kt .scala .swift .js .jsx .ts .tsx .go .rs '
                   '.rb .php .pl .pm .lua .r .jl .hs .ml .sh .bash .sql .css .scss .vue .dart .ex '
                   '.erl .clj .lisp .f90 .pas .asm .s .yaml .yml .toml .ini .cmake'.split())
LINES = '.jsonl', '.ndjson', '.jsonlines'
TABLES = '.json', '.parquet', '.csv', '.tsv', '.ipynb'      # extras/text/formats.py reads these
TEXTS = (*PROSE, '.py', *OTHER_CODE, *LINES)
WORK = '.nanoparrot'            # subfolder of an output folder for unfinished results
# kinds of output folders: {kind: format in meta.json, or names of files that such a folder has}
KINDS = {'cleaned text': 'nanoparrot-text-1', 'tokens': 'nanoparrot-data-2',
         'chats': 'nanoparrot-chats-1', 'a run': 'last.pt last-1.pt best.pt',
         'a model of Hugging Face': 'tokenizer_config.json model.safetensors pytorch_model.bin',
         'unfinished results': WORK}
COMPRESSED = re.compile(r'\.(gz|zst|bz2|xz)$')
# folders of installed packages and of bytecode, which find_files skips
PACKAGES = set('node_modules bower_components site-packages dist-packages __pycache__'.split())


def ends_with(path, endings):
    """Return whether a path has one of these extensions, ignoring .gz, .zst, .bz2 and .xz:
    ends_with('a.jsonl.gz', LINES) is True."""
    return COMPRESSED.sub('', path.lower()).endswith(endings)


def meta_in(folder):
    """Return the contents of FOLDER/meta.json, or {} if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(pathlib.Path(folder, 'meta.json').read_bytes()))
    return {}


def kind_of(folder):
    """Return the kind of an output folder, such as 'tokens', or '' for any other folder."""
    found = {str(meta_in(folder).get('format')), *os.listdir(folder)}
    return next((kind for kind, names in KINDS.items() if found & {*names.split()}), '')


def find_files(source, endings=TEXTS + TABLES, max_files=None):
    """Return the paths of the text files in a source, and {reason: number of files skipped}. A
    source is a file, a folder, a glob, stdlib or a download of extras/text/hub.py, or several of
    these, 'a.txt, b'. The paths of each are sorted, so their order is the same on every machine,
    and duplicate paths are removed. max_files: maximum number of files per source."""
    found, skipped = [], collections.Counter()
    for part in split_paths(source):
        if re.match('hf:|shakespeare$|codeparrot$', part):
            from extras.text import hub
            paths = [hub.fetch(*file) for file in hub.find_files(part, 'data/raw')[:max_files]]
        elif part == 'stdlib':                  # 12 MB of Python; with its tests, 30 MB
            tests = {'test', 'tests', 'idle_test'}
            paths, _ = find_text(sysconfig.get_paths()['stdlib'], ('.py',), PACKAGES | tests)
        else:
            paths, skipped_here = find_text(part, endings)
            skipped += skipped_here
        found += paths[:max_files]
    return [*dict.fromkeys(found)], skipped


def find_text(source, endings, ignored=PACKAGES):
    """Return the sorted text files of a path or glob, and {reason: number of files skipped}.
    A file may have any extension if the source names it, as in a.log or *.log; wiki_* names files
    without an extension. Output folders of our scripts are skipped."""
    found, skipped = [], collections.Counter()
    paths = paths_at(source, ignored, skipped)
    require(paths or skipped, f'{source} does not exist; give a file, a folder, a glob or stdlib')

    @functools.cache
    def kind_above(folder):
        """Return the kind of output folder that a folder is or is in; '' if the source names it."""
        is_named = f'{source}/'.startswith(f'{folder}/') or folder == os.path.dirname(folder)
        return '' if is_named else kind_of(folder) or kind_above(os.path.dirname(folder))

    names_files = re.search(r'\w[^/]*$', source) and not os.path.isdir(source)
    for path in sorted(paths):
        ending = os.path.splitext(path)[1]
        if not os.path.isfile(path):                            # a folder, link or pipe
            skipped['folders' if os.path.isdir(path) else 'broken links'] += 1
        elif kind := kind_above(os.path.dirname(path)):
            skipped[f'files of {kind}'] += 1
        elif ends_with(path, endings) or names_files and source.endswith(ending):
            found.append(path)
        else:
            skipped[ending or 'no extension'] += 1
    require(found, f'no text at {source}, which has {shown(+skipped)}; a folder is searched for '
            f'{" ".join(sorted({*endings} - {*OTHER_CODE}))}; name others with a glob: X/*.json')
    return found, skipped


def paths_at(source, ignored, skipped):
    """Return the files in a folder, or the paths that match a glob. Count skipped files."""
    # for a/**/b.py, walk the folder a and match each path with b.py
    top, _, pattern = (source, '', '') if os.path.exists(source) else source.partition('**')
    require('**' not in pattern, f'{source!r} has more than one **; use only one')
    top, pattern = top or '.', pattern.strip('/') or '*'
    if not os.path.isdir(top):
        return [top] if os.path.exists(top) else glob.glob(top)
    kind = kind_of(top)
    require(kind in ('', 'cleaned text'), f'{source} has {kind}, not text; name a folder of text')
    top = os.path.join(top, 'shards' if kind else '', '')       # the shards of clean.py
    return [path for path in walk(top, ignored, skipped) if pathlib.PurePath(path).match(pattern)]


def walk(top, ignored, skipped):
    """Yield the files in a folder and its subfolders. Skip and count hidden files, ignored folders,
    and links to folders, because links may form a cycle."""
    unread = lambda error: skipped.update(["folders that can't be read"])
    for folder, inner, names in os.walk(top, onerror=unread):
        skipped['linked folders'] += sum(os.path.islink(f'{folder}/{name}') for name in inner)
        skipped['hidden files and folders'] += sum(name[0] == '.' for name in inner + names)
        skipped.update(ignored & {*inner})                      # counted by name
        inner[:] = [name for name in inner if name[0] != '.' and name not in ignored]
        yield from (os.path.join(folder, name) for name in names if name[0] != '.')


# --- read -----------------------------------------------------------------------------------------
# magic numbers: the first bytes of other formats, which a file may have despite its extension
MAGIC = {'.pdf': rb'%PDF-', '.rtf': rb'\{\\rtf', '.zip, .docx, .xlsx or .epub': rb'PK\x03\x04',
         '.gz': rb'\x1f\x8b\x08', '.bz2': rb'BZh\d1AY', '.xz': rb'\xfd7zXZ', '.warc': rb'WARC/\d',
         '.zst': rb'\x28\xb5/\xfd', '.parquet': rb'PAR1\x15', '.tar': rb'(?s).{257}ustar',
         '.jsonl or .json': rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"[^"\n]{0,99}"\s*:'}
# usual names of a record's text field, in order of preference; three are from CodeSearchNet
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
# fields with the repository and the path of a record
REPOS = 'repo_name', 'max_stars_repo_name', 'repository_name', 'repo'
PATHS = 'path', 'max_stars_repo_path', 'func_path_in_repository'
# fields of a record that a document keeps
METADATA = 'url license licence max_stars_repo_licenses'.split()
# A text of more than LONG characters is cut into documents of about PIECE characters, so that
# prepare.py can put about a tenth of them into validation.
LONG = 4_000_000
PIECE = 100_000
DAMAGE = OSError, EOFError, ValueError, zlib.error, lzma.LZMAError
NO_RECORD = 'not a JSON object {...} (a list of them must be a .json file)'
NOT_UTF8 = ('not UTF-8; name the encoding with clean.py --encoding=NAME (cp1252: Western, cp1251: '
            'Cyrillic, shift_jis, gb18030, utf-16-le ...)')


def read(path, text_field='', encoding='', longest=LONG):
    """Yield a document for each text or record of a file: {'text', 'path', 'record', 'error',
    'changes', 'raw_bytes', ...}. error: the reason why the text can't be used, or None. changes,
    {change: bytes}: undecodable bytes, which the text has as \ufffd, and each <|endoftext|> inside
    a line, which is plain text. raw_bytes: size of the record's line or of the unreadable file, 0
    for a text. The path of a record is file:line and the record's repository and path:
    'a.jsonl:7 ann/discord.py/src/main.py', whose extension is .py. A repository without a path ends
    with a /, so it has no extension: 'a.jsonl:7 ann/discord.py/'."""
    names = [text_field] if text_field else TEXT_NAMES
    for origin, text, size in entries(path, encoding, [*names, *REPOS, *PATHS, *METADATA], longest):
        record, error = {}, None
        if isinstance(text, Exception):
            text, error = '', str(text)
        elif isinstance(text, dict):
            record = text
            texts = {name: value for name, value in record.items() if isinstance(value, str)}
            # the first field that is not blank
            text = next((texts[name] for name in names if texts.get(name, '').strip()), '')
            where = '/'.join([*(texts[name] for name in REPOS if name in texts),
                              next((texts[name] for name in PATHS if name in texts), '')])
            if texts.keys().isdisjoint(names):
                where = f'it has {", ".join(record)}'[:200]
                wrong = (f'{n} ({type(record[n]).__name__})' for n in names if n in record)
                error = (f'no text in {next(wrong, text_field or "a usual field")}: name the field '
                         'with clean.py --text_field=NAME')
            origin = f'{origin} {where}'.strip()
        more = {name: record[name] for name in METADATA if record.get(name)}
        for part in texts_in(io.StringIO(text), longest) if len(text) > longest else [text]:
            valid, n_invalid = replace_invalid_bytes(part)
            n = {'undecodable bytes': n_invalid, f'{END} to plain text': part.count(END) * len(END)}
            yield dict(text=part if valid is None else valid, path=origin, record=record,
                       error=error or (NOT_UTF8 if valid is None else None),
                       changes=+collections.Counter(n), raw_bytes=size, **more)


def entries(path, encoding='', columns=None, longest=math.inf):
    """Yield (path, entry, size) for each text or record of a file. path: file:line for a record.
    entry: a text (str), a record (dict), or an exception if it can't be read. size: bytes of the
    record's line or of the unreadable file. columns: columns of a .parquet file; None = all."""
    has_records, number = ends_with(path, LINES + TABLES), 0
    try:
        with open(path, 'rb') as f:         # not decompressed
            if f.read(99).startswith(b'version https://git-lfs.github.com/spec/v1'):
                raise ValueError('a Git LFS pointer, without the data: run git lfs pull')
        if ends_with(path, TABLES):
            from extras.text import formats
            found = ((entry, 0) for entry in formats.records_of(path, encoding, columns))
        elif has_records:
            # \r{ begins a record, too: on old Macs, CR ends lines
            found = ((record_of(part), len(part.encode('utf-8', 'surrogateescape')))
                     for line in lines_of(path, encoding) for part in re.split('\r(?={)', line))
        else:
            found = ((text, 0) for text in texts_in(lines_of(path, encoding), longest))
        for number, (entry, size) in enumerate(found, 1):
            if entry is not None:
                yield f'{path}:{number}' if has_records else path, entry, size
    except UserError:           # a package is missing
        raise
    except DAMAGE as error:
        # without the file's name, so that equal errors of different files are counted together
        message = getattr(error, 'strerror', '') or error
        yield (f'{path}:{number + 1}' if has_records and number else path,
               error if isinstance(error, ValueError) else ValueError(f"can't be read ({message})"),
               os.path.getsize(path))


def object_of(pairs):
    """Return the dict of a JSON object, {'a': 1, 'b': 2} for [('a', 1), ('b', 2)], or a ValueError
    in its place if a key occurs twice, because a dict would lose one of the two values."""
    record = dict(pairs)
    return record if len(record) == len(pairs) else ValueError('a JSON object has a key twice')


# accepts control characters in strings, and integers with more digits than int() accepts
parse_json = json.JSONDecoder(object_pairs_hook=object_of, strict=False, parse_int=(
    lambda n: int(n) if len(n) < 4000 else float(n))).decode


def record_of(line):
    """Return the JSON object in a line, a ValueError if there is none, or None for a blank line."""
    record = line.strip('\0\ufeff \t\r\n') or None     # b.jsonl's BOM in `cat a.jsonl b.jsonl`
    with contextlib.suppress(ValueError, RecursionError):
        record = record and parse_json(record)
    return record if isinstance(record, dict | ValueError | None) else ValueError(NO_RECORD)


# a web page that declares an encoding other than UTF-8
DECLARED = re.compile(rb'(?:charset|encoding)\s*=\s*["\']?\s*(?!utf-?8)[\w:.-]', re.I)
# decode an invalid byte as a surrogate, which replace_invalid_bytes counts and replaces
codecs.register_error('surrogate', lambda error: ('\udc80' * (error.end - error.start), error.end))


def lines_of(path, encoding=''):
    """Return the decoded lines of a file, decompressed if necessary. The encoding is given by the
    byte order mark. Without one, it is UTF-8 if that decodes, or else the encoding that a web page
    declares, or `encoding`. Raise ValueError if the content doesn't match the extension, such as a
    PDF named a.txt."""
    f = open_bytes(path)
    start = f.peek(4096)
    may_be_json = ends_with(path, ('.py', '.yaml', '.yml', *LINES, *TABLES))
    for name, magic in MAGIC.items():
        if re.match(magic, start) and not (may_be_json and 'json' in name):
            raise ValueError(f'the content looks like a {name}: rename or unpack it (docs/data.md)')
    # Only JSON in UTF-16-LE without a byte order mark begins with a bracket and a zero byte.
    if bom := re.match(rb'(\xff\xfe\0\0|\0\0\xfe\xff)|(\xff\xfe|\xfe\xff)|[{[]\0', start):
        encoding = {1: 'utf-32', 2: 'utf-16'}.get(bom.lastindex, 'utf-16-le')
    elif encoding or ends_with(path, HTML) and DECLARED.search(start):
        from extras.text import formats
        encoding = formats.encoding_of(path, start, encoding)
    # CR ends a line of text, but in a record it may be part of a string
    return io.TextIOWrapper(f, encoding or 'utf-8-sig', 'surrogate', '\n' if may_be_json else '')


def open_bytes(path):
    """Open a file for reading bytes, decompressed if its extension is .gz, .bz2, .xz or .zst."""
    if path.lower().endswith('.zst'):
        from extras.text import formats
        return formats.open_zst(path)
    opens = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}
    return opens.get(os.path.splitext(path.lower())[1], open)(path, 'rb')


END = '<|endoftext|>'


def texts_in(lines, longest=LONG):
    """Yield the texts of a file, given its lines: one text, or several if <|endoftext|> ends lines.

    A text of more than `longest` characters might not fit into memory, so it is yielded in pieces.
    A piece ends before the first empty line after 100,000 characters, or before the first line
    after 200,000 characters."""
    pieces, n_piece, n_text = [[]], 0, 0    # lines; characters of the last piece, of all pieces
    for line in itertools.chain(lines, [END]):
        line = line.removeprefix('<|startoftext|>')     # from GPT-2's fine-tuning scripts
        if END in line and line.rstrip().endswith(END):     # the text of an empty file is empty
            yield ''.join(itertools.chain(*pieces, [line.rstrip().removesuffix(END)]))
            pieces, n_piece, n_text = [[]], 0, 0
            continue
        if n_piece > PIECE and (line.isspace() or n_piece > 2 * PIECE):
            pieces.append([])
            n_piece = 0
        pieces[-1].append(line)
        n_piece += len(line)
        n_text += len(line)
        while n_text > longest and len(pieces) > 1:     # all pieces but the last are complete
            yield ''.join(pieces.pop(0))


CONTROLS = '\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u2028\u2029\u2060\ufeff\ufff9-\ufffb'
# an unpaired UTF-16 surrogate: the result of an invalid byte, or of \udc80 in JSON
SURROGATE = re.compile('[\ud800-\udfff]')
# Control characters except tab and newline, terminal escape sequences (colors, links, titles), soft
# hyphens, zero-width characters and byte order marks. A zero-width space between two letters of
# Thai, Khmer and other scripts with line break class SA stays, because there it separates words.
CONTROL = regex.compile(
    r'(?:(?<!\p{Line_Break=SA})\u200b++|\u200b++(?!\p{Line_Break=SA})|'
    f'[{CONTROLS}])'
    r'(?:(?<=\x1b)(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|'
    r'[PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|(?<=\x9b)[\d;]*m)?')


def replace_invalid_bytes(text):
    """Replace invalid bytes and surrogates by \ufffd. Return the text and their number. The text is
    None if it is not UTF-8: for example, with more than one invalid byte per 1,000 characters."""
    found = [] if text.isascii() else SURROGATE.findall(text)
    n_invalid = sum('\udc80' <= each <= '\udcff' for each in found)
    n_zeros = len(re.findall('\0+', text)) if '\0' in text else 0
    # UTF-16 has many zero bytes, and ISO-2022-JP is ASCII with escape sequences
    is_japanese = '\x1b' in text and re.search(r'\x1b\$[()@AB]', text)
    if n_invalid > len(text) / 1000 or n_zeros > 2 + len(text) / 50 or is_japanese:
        return None, n_invalid
    return SURROGATE.sub('\ufffd', text) if found else text, len(found)


def without_controls(text, mode='prose'):
    """Return code without zero bytes, prose without control characters and terminal escape
    sequences, and raw text as it is. A form feed becomes a newline. A bold N of a man page, N\\bN,
    becomes N."""
    # Most texts have none. The module re finds this out in a fifth of the time that CONTROL needs.
    if mode != 'prose' or not re.search(f'[{CONTROLS}\u200b]', text):
        return text if mode == 'raw' else text.replace('\0', '')
    if '\b' in text:        # each backspace removes one character before it
        text = re.sub('([^\b\n]{0,80})(\b+)', lambda m: m[1][:-len(m[2])], text)
    return CONTROL.sub(lambda match: '\n' if match[0].isspace() else '', text)


# --- results --------------------------------------------------------------------------------------
def shown(values):
    """Format a dict for printing: {'short': 1200} becomes 'short: 1,200'."""
    return ', '.join(f'{name}: {value if isinstance(value, str) else f"{value:,}"}'
                     for name, value in values.items() if value not in ('', None)) or 'nothing'


def lock_folder(folder):
    """Create a folder if necessary and return its lock, which this process holds until release() or
    until it ends, even by kill -9. Raise UserError if the folder is locked or can't be written."""
    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / WORK / 'lock')
        lock.acquire(0)
    except OSError as error:
        reason = 'another run uses it' if isinstance(error, filelock.Timeout) else error.strerror
        raise UserError(f"can't write to {folder}: {reason}; choose another --out_dir") from None
    return lock


def open_results(out_dir, data_format, pattern, is_same, overwrite, keep=None):
    """Lock out_dir and return its subfolder .nanoparrot, which contains an empty folder `new` for
    results, and the lock. Raise UserError if another script wrote out_dir: its files don't match
    pattern (a regular expression), or its meta.json has another format. Without overwrite, also
    raise UserError if is_same(meta) is false for the old meta.json. keep: name prefix of folders in
    .nanoparrot that a resumed run reuses."""
    meta, work = meta_in(out_dir), out_dir / WORK
    # meta.json of a killed run; a run that ended by a UserError has left only empty folders
    unfinished = meta_in(work) if any(work.glob('*/*')) else {}
    # a run that was killed in publish() has left only the unfinished meta.json
    is_ours = {some.get('format') for some in (meta, unfinished) if some} == {data_format}
    harmless = {'.DS_Store', 'lost+found', WORK if is_ours or not unfinished else ''}
    names = {*os.listdir(out_dir)} - harmless if out_dir.is_dir() else ()
    others = [name for name in names if not is_ours or not re.fullmatch(pattern, name)]
    found = others and not is_ours and kind_of(out_dir) or min(others, default='')
    require(not others, f'{out_dir} has {found}, not from this script; choose another --out_dir')
    require(overwrite or not meta or is_same(meta), f'{out_dir} has results of an earlier run; '
            'replace them with --overwrite=True, or choose another --out_dir')
    lock = lock_folder(out_dir)
    (work / 'meta.json').write_text(json.dumps({'format': data_format}))
    clear(work, keep)
    (work / 'new').mkdir()
    return work, lock


def clear(work, keep=None):
    """Delete the subfolders of a folder, except those whose names begin with keep. Each one is
    renamed first, so a killed run can't leave a half-deleted folder under its old name."""
    removed = work / 'removed'          # may exist after a killed run
    for path in [removed, *work.iterdir()]:
        if path.is_dir() and not (keep and path.name.startswith(keep)):
            path.rename(removed)
            shutil.rmtree(removed)


def publish(out_dir, pattern):
    """Replace the results in out_dir by those in out_dir/.nanoparrot/new, file by file, because
    out_dir may be a mount point. meta.json marks complete results: it is removed first and added
    last, so a killed run leaves the old results, the new ones, or none that are complete."""
    work = out_dir / WORK
    for name in sorted(os.listdir(out_dir), key='meta.json'.__ne__):
        if re.fullmatch(pattern, name):
            os.replace(out_dir / name, work / f'old {name}')
    for name in sorted(os.listdir(work / 'new'), key='meta.json'.__eq__):
        os.replace(work / 'new' / name, out_dir / name)
    clear(work)
    # delete the lock file while the lock is held, so that no other process can acquire it
    shutil.rmtree(work, ignore_errors=True)
