r"""
Tables, notebooks and packed files, read as lines of JSON, a record a line.

    with open_file('part.parquet', ['text', 'url']) as f:       # .csv, .tsv, .json, .ipynb
        for line in f:                                          # b'{"text": "...", "url": "..."}\n'
            print(json.loads(line))
    open_file('part.jsonl.zst')                     # .gz, .zst, .bz2, .xz: unpacked; also a.csv.xz

A table takes a few MB of memory, whatever its size; a list in a .json file and a notebook are read
whole. What is not the file that its name says is a ValueError with the reason; what is cut off, an
EOFError or OSError. A row that can't be read becomes a line with a zero byte and the reason, and
the rows after it are read. Tables and notebooks are UTF-8, UTF-16 with its mark, or `encoding`.
"""
import bz2, codecs, contextlib, csv, gzip, io, itertools, json, lzma, os, re
from configurator import Mistake

PIECE = 1 << 16                 # bytes that are unpacked at a time
ROWS = 100                      # of a .parquet file, in memory at a time
LONGEST_CELL = 10_000_000       # characters; a quote that never ends takes no more than that
BROKEN = re.compile('[\udc80-\udcff]')                          # a byte that could not be decoded
DAMAGED = ('not as many cells as the header has: a quote does not end, so what is behind it is '
           'lost, or is written \\", which should be "", or a cell of a .tsv has a line end')


def open_file(path, columns=None, encoding=''):
    """Open a file to read its bytes: unpacked, and a table as lines of JSON. columns: those of a
    .parquet file to read; None = all that are no bytes."""
    kind = os.path.splitext(re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()))[1]
    if kind == '.parquet':
        return buffered(lines_of(rows_of_parquet(path, columns), 'not UTF-8'))
    f = buffered(unpack(path))
    readers = {'.csv': rows_of_csv, '.tsv': lambda lines: rows_of_csv(lines, '\t'),
               '.json': records_of_json, '.ipynb': record_of_notebook}
    if kind not in readers:
        return f
    has_16 = f.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # '\n': a lone \r ends no line, because it would end a text; an escaped byte costs only its row
    text = io.TextIOWrapper(f, encoding or ('utf-16' if has_16 else 'utf-8-sig'),
                            'surrogateescape', newline='\n')
    return buffered(lines_of(readers[kind](text),
                             f'not {encoding or "UTF-8"}: name it with --encoding=NAME'))


def buffered(pieces):
    return io.BufferedReader(Generated(pieces), PIECE)


class Generated(io.RawIOBase):
    """A file to read, whose bytes a generator yields, piece by piece."""

    def __init__(self, pieces):
        self.pieces, self.rest = pieces, b''

    def readable(self):
        return True

    def readinto(self, buffer):
        self.rest = self.rest or memoryview(next(self.pieces, b''))
        n = min(len(buffer), len(self.rest))
        buffer[:n], self.rest = self.rest[:n], self.rest[n:]
        return n


def unpack(path):
    """Yield the bytes of a file, unpacked, a piece at a time."""
    # zstandard's own reader ends without a word where a file is cut off; pyarrow's does not
    packed = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open, '.zst': lambda path, mode:
              import_pyarrow(path).CompressedInputStream(path, 'zstd')}
    try:
        with packed.get(os.path.splitext(path.lower())[1], open)(path, 'rb') as f:
            while piece := f.read(PIECE):
                yield piece
    except lzma.LZMAError as error:
        raise OSError(error) from None


def import_pyarrow(path):
    try:
        import pyarrow.parquet
        return pyarrow
    except ImportError:
        raise Mistake(f'{path} needs a package: pip install pyarrow') from None


def lines_of(records, not_decoded):
    """Yield a line for each record. One that is a text says why a row can't be read."""
    for record in records:
        why = record if isinstance(record, str) else ''
        line = json.dumps(record, default=str, ensure_ascii=False)      # str: of dates
        if BROKEN.search(line):
            why = not_decoded
        # half of an emoji, from JSON, becomes ?
        yield b'\0%b\n' % why.encode() if why else line.encode('utf-8', 'replace') + b'\n'


def rows_of_parquet(path, columns):
    """Yield the rows of a .parquet file. The other columns stay on the disk, and are None."""
    pyarrow = import_pyarrow(path)
    # without pre_buffer, of a group of rows only the pages that are read are in memory
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PIECE) as file:
        names = [field.name for field in file.schema_arrow if (
            field.name in columns if columns else 'binary' not in str(field.type))]
        others = dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=names):
            for i in range(len(batch)):
                row = {name: value_of(cells[i])
                       for name, cells in zip(batch.schema.names, batch.columns)}
                # bytes in `content` that are no text don't matter beside a `text`
                filled = [name for name in columns or () if row.get(name)]
                row |= {name: None for name in filled[1:] if row[name] == '\udc80'}
                yield {**others, **row}


def value_of(cell):
    """Return the value of a cell, '\udc80' for one that is not UTF-8. Many programs write a text as
    BINARY, without saying that it is one."""
    try:
        value = cell.as_py()
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return '\udc80'


def rows_of_csv(lines, delimiter=','):
    """Yield the rows of a table, whose first line names the columns. Each line of a .tsv is a row,
    whatever quotes it has."""
    csv.field_size_limit(LONGEST_CELL)
    is_tsv = delimiter == '\t'
    rows = csv.reader(lines, delimiter=delimiter, strict=True,
                      quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL)
    names, row = [], []
    while row is not None:
        try:
            row = next(rows, None)
        except csv.Error:
            yield DAMAGED
            continue
        row = [*map(unquoted, row)] if row and is_tsv else row
        if row and not names:
            names = [name.strip() for name in row]
            if len(names) == 1 and re.search('[;\t]', names[0]):
                raise ValueError('commas separate the columns of a .csv')
        elif row and len(row) == len(names):
            yield dict(zip(names, row))
        elif row:
            yield DAMAGED


def unquoted(cell):
    """Return a cell without the quotes in which pandas and Excel put one that has a quote."""
    is_quoted = re.fullmatch('"(?:[^"]|"")*"', cell)
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def records_of_json(lines):
    """Yield the records of a .json file: one list of them, or one on each line."""
    lines = filter(str.strip, lines)
    first = next(lines, '')
    if isinstance(parsed(first), dict):
        records = map(parsed, itertools.chain([first], lines))
    else:
        records = parsed(''.join([first, *lines]))
        if not isinstance(records, list):
            raise ValueError('no list [{...}, {...}] of records, and no record on each line')
    for record in records:
        yield record if isinstance(record, dict) else 'no JSON record'


def parsed(text):
    """Return the value of a text in JSON, or None."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)


def record_of_notebook(f):
    """Yield one record: text and code of a Jupyter notebook (nbformat 4), in order, without what
    the code printed. Code stands in fences, as in Markdown, so that cleaning leaves it as it is."""
    try:
        notebook, texts = json.load(f), []
        metadata = notebook.get('metadata') or {}
        language = (metadata.get('language_info') or {}).get('name') or ''
        for cell in notebook['cells']:
            text = ''.join(cell['source'])
            if cell['cell_type'] == 'raw' or not text.strip():
                continue
            if cell['cell_type'] == 'code':
                ticks = max(['``', *re.findall('`{3,}', text)], key=len) + '`'
                text = f'{ticks}{language.lower()}\n{text.rstrip()}\n{ticks}'
            texts.append(text)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError('no notebook of nbformat 4') from None
    yield {'text': '\n\n'.join(texts)}
