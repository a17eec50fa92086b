r"""
Tables, notebooks and packed files, read as lines of JSON, a record a line.

    with open_file('part.parquet', ['text', 'url']) as f:       # .csv, .tsv, .json, .ipynb
        for line in f:                                          # b'{"text": "...", "url": "..."}\n'
            print(json.loads(line))
    open_file('part.jsonl.zst')                     # .gz, .zst, .bz2, .xz: unpacked; also a.csv.xz

A table takes a few MB of memory, whatever its size; a .json list and a notebook are read whole.
What is not the file that its name says is a ValueError with the reason; what is cut off, an
EOFError or OSError. A row that can't be read becomes a line with a zero byte and the reason, and
the rows after it are read.
"""
import bz2, codecs, csv, gzip, io, json, lzma, os, re
from configurator import Mistake

# what can't be read as text or as lines of JSON
OTHER = re.compile(r'\.(parquet|csv|tsv|ipynb)(\.gz)?$|\.(zst|bz2|xz)$', re.I)
PIECE = 1 << 16                 # bytes that are unpacked at a time
ROWS = 100                      # of a .parquet file, in memory at a time
LONGEST_CELL = 10_000_000       # characters; a quote that never ends takes no more than that
LONGEST_NAME = 59               # characters of a column's name; a longer one is somebody's text


def open_file(path, columns=None, encoding=''):
    """Open a file to read its bytes: unpacked, and a table as lines of JSON. columns: those of a
    .parquet file to read; None = all that are no bytes. encoding: of a .csv or .tsv; '' = UTF-8, or
    UTF-16 with its mark."""
    kind = os.path.splitext(re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()))[1]
    if kind == '.parquet':
        return buffered(rows_of_parquet(path, columns))
    f = buffered(unpack(path))
    if kind in ('.csv', '.tsv'):
        return buffered(rows_of_csv(f, encoding))
    readers = {'.json': records_of_json, '.ipynb': record_of_notebook}
    return buffered(readers[kind](f)) if kind in readers else f


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
    packed = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open, '.zst': open_zst}
    try:
        with packed.get(os.path.splitext(path.lower())[1], open)(path, 'rb') as f:
            while piece := f.read(PIECE):
                yield piece
    except lzma.LZMAError as error:
        raise OSError(error) from None


def open_zst(path, mode):
    """zstandard's own reader ends without a word where a file is cut off; pyarrow's does not."""
    pyarrow = import_pyarrow(path)
    return pyarrow.CompressedInputStream(pyarrow.OSFile(path), 'zstd')


def import_pyarrow(path):
    try:
        import pyarrow.parquet
        return pyarrow
    except ImportError:
        raise Mistake(f'{path} needs a package: pip install pyarrow') from None


def line_of(record):
    return json.dumps(record, default=str).encode() + b'\n'         # default: dates become texts


# --- tables ---------------------------------------------------------------------------------------
def rows_of_parquet(path, columns):
    """Yield the rows of a .parquet file. The other columns stay on the disk, and are None."""
    pyarrow = import_pyarrow(path)
    is_bytes = lambda field: field.type in (pyarrow.binary(), pyarrow.large_binary())
    # without pre_buffer, of a group of rows only the pages that are read are in memory
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PIECE) as file:
        fields = [field for field in file.schema_arrow
                  if (field.name in columns if columns else not is_bytes(field))]
        # many programs write a text as BINARY, without saying that it is one
        texts = [field.name for field in fields if is_bytes(field)]
        others = dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=[field.name for field in fields]):
            for row in batch.to_pylist():
                row.update({name: row[name] and row[name].decode() for name in texts})
                yield line_of({**others, **row})


def rows_of_csv(f, encoding):
    """Yield the rows of a table, whose first line names the columns. Between tabs, a quote is a
    sign like any other, as .tsv says, unless it begins a cell and another one ends it: so Excel
    writes a cell with a tab or a line end. If a cell has both, two lone quotes have met."""
    csv.field_size_limit(LONGEST_CELL)
    has_16 = f.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # '\n': a lone \r ends no line, because it would end a text
    lines = io.TextIOWrapper(f, encoding or ('utf-16' if has_16 else 'utf-8-sig'), newline='\n')
    first = next(lines, '')
    delimiter = max(',;\t', key=first.count)
    try:
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:
        names = []
    named = [*filter(None, names)]              # pandas and Excel add columns without a name
    if not named or len({*named}) < len(named) or len(max(named, key=len)) > LONGEST_NAME:
        raise ValueError("no header: the first line must be the columns' names")
    read = []                                   # the lines of the row at hand

    def remembered():
        for line in lines:
            read.append(line)
            yield line

    rows = csv.reader(remembered(), delimiter=delimiter, strict=True)
    while True:
        read.clear()
        try:
            row = next(rows, None)
        except csv.Error:
            row = []
        if row is None:
            return
        some = [row]
        if len(row) != len(names) or delimiter == '\t' and any(
                '\t' in cell and '\n' in cell for cell in row):
            some = [line.strip('\r\n').split('\t') if delimiter == '\t' else [] for line in read]
        for row, line in zip(some, read):
            if len(row) == len(names):
                yield line_of({name: cell for name, cell in zip(names, row) if name})
            elif line.strip():
                why = 'a backslash before a quote, which .csv doubles ("")' if '\\"' in line else (
                    'a line with other cells than the header has, or a quote that does not end')
                yield b'\0' + why.encode() + b'\n'


# --- .json and notebooks --------------------------------------------------------------------------
def records_of_json(f):
    """Yield the records of a .json file: one list of them, or one on each line."""
    try:
        if re.match(rb'(\xef\xbb\xbf)?\s*\[', f.peek(PIECE)):
            yield from map(line_of, json.load(f))
            return
        first = next(filter(bytes.strip, f), b'{}')
        json.loads(first)
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError):
        raise ValueError('no list [{...}, {...}] of records, and no record on each line') from None
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from f


def record_of_notebook(f):
    """Yield one record: text and code of a Jupyter notebook, in order, without what the code
    printed. Code stands in fences, as in Markdown, so that cleaning leaves it as it is."""
    try:
        notebook = json.load(f)
        about = notebook.get('metadata') or {}
        language = (about.get('kernelspec', {}).get('language')
                    or about.get('language_info', {}).get('name', ''))
        sheets = notebook.get('worksheets') or [notebook]       # nbformat 3 had sheets,
        texts = []
        for cell in [cell for sheet in sheets for cell in sheet['cells']]:
            kind, text = cell['cell_type'], ''.join(cell.get('source') or cell.get('input') or '')
            if kind == 'code' and text.strip():                 # a language in each cell
                fence = f'```{(language or cell.get("language", "")).lower()}'
                text = f'{fence}\n{text.rstrip()}\n```'
            if kind == 'heading':                               # and headings
                text = f'{"#" * cell["level"]} {text}'
            texts += [text] * (kind in ('code', 'markdown', 'heading'))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError('no notebook') from None
    yield line_of({'text': '\n\n'.join(filter(str.strip, texts))})
