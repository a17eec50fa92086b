"""
Records of files, one after the other, as prepare.py reads them, for other programs that read text.

    for line, record in read('shards/00000.jsonl.gz', reject=print):
        print(line, text_of(record))

The text between the two marks stands in prepare.py, too, word for word, because prepare.py works
without this folder. A test compares them.
"""
import contextlib, gzip, io, json, os, re, zlib
from configurator import require

# --- records: same text in prepare.py, extras/records.py ------------------------------------------
LINES = '.jsonl', '.ndjson', '.jsonlines'
RECORDS = LINES + ('.json', '.parquet')
# also The Stack's, CodeSearchNet's and CodeParrot's names
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
PIECE = 4_000_000               # bytes of a text in memory, and of a longer text's documents
LONGEST = 100_000_000           # bytes of a line; one that is longer is no record


def ends_with(path, endings):
    """Whether a file is of these kinds, packed or not: ends_with('a.jsonl.gz', RECORDS)."""
    return re.sub(r'\.(gz|zst)$', '', path.lower()).endswith(endings)


def open_file(path):
    """Open a file to read its bytes, unpacked, without the mark of its byte order."""
    if path.startswith('hf:') or path.lower().endswith(('.zst', '.parquet')):
        from extras import hub
        f = hub.open_file(path)
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
    than 4 MB: then it is cut where a text, a paragraph or at least a line ends."""
    rest, more = b'', True
    while more:
        new = f.read(PIECE)
        more, data = len(new) == PIECE, rest + new
        end = len(data)
        if more:
            signs = b'\n<|endoftext|>\n', b'\n\n', b'\n', b' '
            end = next((data.rfind(sign) + len(sign) for sign in signs if sign in data), end)
        rest = data[end:]
        text = decode(data[:end])
        if '<|endoftext|>' not in text:
            yield text
            continue
        texts = re.split(r'(?m)^<\|endoftext\|>(?:\r?\n|\Z)', text)
        yield from filter(str.strip, texts) if len(texts) > 1 else texts


def read(path, reject, piece=0, n_pieces=1):
    """Yield (line, record) for each record of a file, or each of a piece of its lines. A text is a
    record {'text': ...} at line 0. What can't be read goes to reject(place, error) and is never
    raised, because of a thousand files one is damaged."""
    line = 0
    try:
        with open_file(path) as f:
            if not ends_with(path, RECORDS):
                for text in texts_in(f):
                    yield 0, {'text': text}
                return
            if ends_with(path, '.json') and f.peek(99).lstrip().startswith(b'['):
                yield from enumerate(json.load(f), 1)
                return
            for line, row in enumerate(iter(lambda: f.readline(LONGEST), b''), 1):
                if line % n_pieces == piece and row.strip():
                    try:
                        record = json.loads(row)
                    except (ValueError, RecursionError) as e:
                        reject(f'{path}:{line}', shape_of(row, e))
                    else:
                        yield line, record
    except (ValueError, EOFError, OSError, zlib.error, RecursionError) as e:
        if (line + 1) % n_pieces == piece:          # cut off, no archive, not a text
            reject(f'{path}:{line + 1}', f'{type(e).__name__}: {e}')


def shape_of(row, error):
    """Say what a line that is no record looks like, and what is read."""
    shape = next((shape for pattern, shape in (
        (rb'[\[{]$', 'JSON over several lines'), (rb'.*[}\]"],$', 'a comma at its end'),
        (rb'\[.*', 'a list')) if re.match(pattern, row.strip())), f'no JSON ({error})')
    return (f'the line has {shape}; .jsonl has one {{"text": ...}} on each line, and .json may be '
            'one list of such records')


def text_of(record, names=TEXT_NAMES):
    """Return the text of a record. An empty column hides no other."""
    record = record if isinstance(record, dict) else {'text': record}
    texts = [record[name] for name in names if isinstance(record.get(name), str)]
    if not texts:
        raise ValueError(f'it has {", ".join(record) or "no field"}, and no {" or ".join(names)}; '
                         'name the field of the text: --text_field=NAME; conversations need '
                         '--kind=sft')
    return next(filter(str.strip, texts), texts[0])
# --- end records ----------------------------------------------------------------------------------


def lines_of(path):
    """Return the entries of a list, a file with one on each line, in lower case; # begins a
    comment. The set is empty for ''."""
    if not path:
        return set()
    require(os.path.isfile(path), f"{path} can't be read: No such file")
    with open_file(path) as f:
        lines = decode(f.read()).lower().splitlines()
    return {line.split('#')[0].strip() for line in lines} - {''}
