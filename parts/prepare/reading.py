"""
Reading a file: text, in the encoding that it most probably has, or records of JSON.

    for path, line, record, why, size in entries([{'path': 'a.jsonl.gz'}], max_chars=1_000_000):
        print(line, why or record)
    encoding_of('old.txt')                          # 'cp1252'
    ''.join(pieces('book.txt', 0, 500))             # its first 500 characters

Files of records end in RECORDS, all others hold text; any of them may be gzipped.
A record that cannot be read is yielded with the reason, never raised: of a thousand shards, one is damaged.
"""
import codecs, contextlib, gzip, itertools, json, os, zlib

RECORDS = ('.jsonl', '.json')           # also with .gz
WHOLE = ('.py', '.html', '.htm')        # such a file is one document; other text is cut into pieces
LONGEST = 100_000                       # characters of a piece: far more than a context of our models
BLOCK = 16_000_000                      # characters held in memory at once
CONTROL = bytes(b for b in range(32) if b not in b'\t\n\v\f\r')          # no text has them
# not UTF-8 or JSON, cut off, not allowed, not an archive, nested too deep
UNREADABLE = ValueError, EOFError, OSError, zlib.error, RecursionError


def is_kind(path, endings):
    return path.lower().removesuffix('.gz').endswith(endings)


def open_file(path, mode='rb', **settings):
    return (gzip.open if path.lower().endswith('.gz') else open)(path, mode, **settings)


def open_text(path, encoding):
    """A file of text, its line ends as they are."""
    return open_file(path, 'rt', encoding=encoding.split()[0], errors='replace', newline='')


def entries(files, max_chars=1_000_000):
    """Yield (path, *entry of entries_of) for [{'path', perhaps 'part': (i, n), every n-th line}]."""
    for file in files:
        for entry in entries_of(file['path'], max_chars, *file.get('part', ())):
            yield file['path'], *entry


def entries_of(path, max_chars, part=0, n_parts=1):
    """Yield (line, record, None, 0) for each record of a file; for a file of text, line is 0 and a record is
    {'text', 'encoding', perhaps 'begins', how the file does}. One that cannot be read is (line, None, why,
    0). One of more than max_chars (records: 8 max_chars bytes) is (line, None, why, bytes)."""
    if is_kind(path, RECORDS):
        yield from read_records(path, 8 * max_chars, part, n_parts)     # bytes: a character may be \\u20ac
        return
    try:
        encoding = encoding_of(path)
        with open_text(path, encoding) as f:
            if is_kind(path, WHOLE):
                text = f.read(max_chars + 1)
                if len(text) > max_chars:
                    yield 0, None, f'longer than {max_chars:,} characters', os.path.getsize(path)
                else:
                    yield 0, {'text': text, 'encoding': encoding}, None, 0
                return
            rest = f.read(LONGEST + 1)
            begins = rest[:LONGEST]
            while len(rest) > LONGEST:
                cut = rest.rfind('\n', 0, LONGEST) + 1 or LONGEST
                yield 0, {'text': rest[:cut], 'encoding': encoding, 'begins': begins}, None, 0
                rest = rest[cut:]
                rest += f.read(LONGEST + 1 - len(rest))
            yield 0, {'text': rest, 'encoding': encoding, 'begins': begins}, None, 0
    except UNREADABLE as e:
        yield 0, None, f'{type(e).__name__}: {e}', 0


# --- text ---------------------------------------------------------------------------------------------------
def encoding_of(path):
    """The encoding of a file of text, judged by its first MB: UTF-8; UTF-16 by its mark; 'utf-8 damaged', if
    most of what is not ASCII is UTF-8; Windows-1252, if most bytes are ASCII; else ValueError."""
    with open_file(path) as f:
        head = f.read(1 << 20)
        at_end = not f.read(1)          # else head may end within a character
    decode = codecs.getincrementaldecoder('utf-8')
    with contextlib.suppress(UnicodeDecodeError):
        decode().decode(head, at_end)
        return 'utf-8'
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 'utf-16'
    if not any(b in head for b in CONTROL):
        characters = decode('replace').decode(head, at_end)
        n_damaged = characters.count('\ufffd')
        n_other = sum(c > '\x7f' for c in characters) - n_damaged
        if n_damaged < n_other:
            return 'utf-8 damaged'
        if sum(b >= 128 for b in head) <= 0.3 * len(head):
            return 'cp1252'
    raise ValueError('neither UTF-8 nor a text in Windows-1252')


def slices(texts, size=100_000, most=1 << 62):
    """The texts, or slices of them, at most so many characters each and so many of them."""
    some = (text[i:i + size] for text in texts for i in range(0, len(text), size))
    return itertools.islice(some, most)


def pieces(path, start=0, end=1 << 62, encoding='utf-8'):
    """Characters start..end of a text file, some MB at a time."""
    position = 0
    with open_text(path, encoding) as f:
        while position < end and (block := f.read(BLOCK)):
            if position + len(block) > start:
                yield block[max(start - position, 0):end - position]
            position += len(block)


def count_chars(path):
    """How many characters a file has, and its encoding; ValueError if it is not text."""
    try:
        encoding = encoding_of(path)
        return sum(map(len, pieces(path, encoding=encoding))), encoding
    except UNREADABLE as e:
        raise ValueError(f'{path} cannot be read as text: {type(e).__name__}: {e}') from e


# --- records ------------------------------------------------------------------------------------------------
def lines_of(f, longest):
    """Yield (number from 1, beginning, size) of each line of a file. It holds no line longer than that."""
    n = 0
    while data := f.readline(longest):
        n += 1
        size = len(data)
        rest = data
        while len(rest) == longest and not rest.endswith(b'\n'):
            rest = f.readline(longest)
            size += len(rest)
        yield n, data, size


def read_records(path, longest=1 << 30, part=0, n_parts=1):
    """entries_of a file of records of at most `longest` bytes, one a line, or a .json with a list. With
    n_parts only those lines whose number leaves the remainder `part`."""
    line = 0
    try:
        with open_file(path) as f:
            beginning = f.read(1000).removeprefix(codecs.BOM_UTF8).lstrip()
            f.seek(0)
            if is_kind(path, '.json') and beginning.startswith(b'['):
                for line, record in enumerate(json.loads(f.read().decode('utf-8-sig')), 1):
                    yield line, record, None, 0
                return
            for line, data, size in lines_of(f, longest):
                if line % n_parts != part or not data.strip():
                    continue
                if size > longest:
                    yield line, None, f'longer than {longest:,} bytes', size
                    continue
                try:
                    yield line, json.loads(data.decode('utf-8-sig')), None, 0
                except (ValueError, RecursionError) as e:
                    yield line, None, f'{type(e).__name__}: {e}', 0
    except UNREADABLE as e:
        if (line + 1) % n_parts == part:        # one part tells that the file is damaged
            yield line + 1, None, f'{type(e).__name__}: {e}', 0


def read_problems(path):
    """The records of a benchmark; ValueError if one cannot be read, or there are none."""
    problems = []
    for line, problem, why, _ in read_records(path):
        if why:
            raise ValueError(f'{path}, line {line}, cannot be read ({why}); expected the file of a benchmark')
        problems.append(problem)
    if not problems:
        raise ValueError(f'{path} is empty; expected the file of a benchmark')
    return problems
