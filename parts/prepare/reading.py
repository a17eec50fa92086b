"""
Reading a file: a text in UTF-8 or Windows-1252, or records of JSON.

    for path, line, record in entries([{'path': 'a.jsonl.gz'}], reject=print):
        print(line, record)
    text_of('old.txt')                            # ('Caf\u00e9 ...', 'cp1252')

Files of records end in RECORDS, all others hold text. Any of them may be gzipped.
What can't be read goes to reject(path, line, why) and is never raised, because of a thousand
shards one is damaged.
"""
import contextlib, gzip, json, os, re, zlib
from parts import Mistake

RECORDS = ('.jsonl', '.json')           # also with .gz
CONTROL = re.compile(rb'[\0-\x08\x0e-\x1f]')             # no text has these bytes
NOT_ASCII = re.compile(rb'[\x80-\xff]')
# not UTF-8 or JSON, cut off, not allowed, not an archive, nested too deep
UNREADABLE = ValueError, EOFError, OSError, zlib.error, RecursionError


def is_kind(path, endings):
    return path.lower().removesuffix('.gz').endswith(endings)


def open_file(path):
    return (gzip.open if path.lower().endswith('.gz') else open)(path, 'rb')


def entries(files, reject):
    """Yield (path, line, record) for each record of some files, [{'path', perhaps 'part': (i, n)
    for every n-th line}]. A file of text is one record, {'text', 'encoding'}, at line 0."""
    for file in files:
        path = file['path']
        if is_kind(path, RECORDS):
            for line, record in records(path, reject, *file.get('part', ())):
                yield path, line, record
            continue
        try:
            text, encoding = text_of(path)
        except Mistake as e:
            reject(path, 1, str(e))
        else:
            yield path, 0, {'text': text, 'encoding': encoding}


# --- text -----------------------------------------------------------------------------------------
def text_of(path):
    """The text of a file as it is, and its encoding: UTF-8; else Windows-1252, if most bytes are
    ASCII; else it is refused, because a guess would be noise."""
    try:
        with open_file(path) as f:
            data = f.read()
    except UNREADABLE as e:
        raise Mistake(f"{path} can't be read: {e}") from e
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode('utf-8'), 'utf-8'
    if not CONTROL.search(data) and len(NOT_ASCII.findall(data)) <= 0.3 * len(data):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode('cp1252'), 'cp1252'
    raise Mistake(f'{path} is neither UTF-8 nor a text in Windows-1252')


# --- records --------------------------------------------------------------------------------------
def records(path, reject, part=0, n_parts=1):
    """Yield (line, record) of a file of records, one a line, or of a .json with a list. With
    n_parts, only those lines whose number leaves the remainder `part`."""
    line = 0
    try:
        with open_file(path) as f:
            beginning = f.read(1000).removeprefix(b'\xef\xbb\xbf').lstrip()
            f.seek(0)
            if is_kind(path, '.json') and beginning.startswith(b'['):
                yield from enumerate(json.loads(f.read()), 1)
                return
            for line, data in enumerate(f, 1):
                if line % n_parts != part or not data.strip():
                    continue
                try:
                    record = json.loads(data)
                except (ValueError, RecursionError) as e:
                    reject(path, line, f'{type(e).__name__}: {e}')
                else:
                    yield line, record
    except UNREADABLE as e:
        if (line + 1) % n_parts == part:        # one part tells that the file is damaged
            reject(path, line + 1, f'{type(e).__name__}: {e}')


def read_jsonl(path, convert, advice):
    """Return [convert(record)] of a file of records. A Mistake names the first line that can't be
    read or that convert() refuses. advice: how to make such a file."""
    if not os.path.exists(path):
        raise Mistake(f'{path} does not exist; {advice}')
    rows, errors = [], []
    for line, record in records(path, lambda *error: errors.append(error[1:])):
        try:
            rows.append(convert(record))
        except Exception as e:              # a missing key, a number in place of a text, ...
            errors.append((line, e if isinstance(e, Mistake) else f'{type(e).__name__}: {e}'))
    for line, why in errors[:1]:
        raise Mistake(f'{path}, line {line}: {why}; {advice}')
    return rows
