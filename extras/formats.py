"""
Files of other forms, read as lines of JSON, a record a line: tables, notebooks, packed files.

    with open_file('part.parquet') as f:            # .parquet, .csv, .tsv, .ipynb
        for line in f:                              # b'{"text": "..."}\n'
            print(json.loads(line))
    open_file('part.jsonl.zst')                     # .gz, .zst, .bz2, .xz: unpacked; also a.csv.xz

A file of any size takes a few MB of memory, and one that is cut off is noticed. A notebook is one
record: its code and its text, without what the code printed.
"""
import bz2, codecs, csv, gzip, importlib, io, json, lzma, os, re
from configurator import Mistake
from extras import records

# what prepare.py can't read by itself
OTHER = re.compile(r'\.(parquet|csv|tsv|ipynb)(\.gz)?$|\.(zst|bz2|xz)$', re.I)
PIECE = 1 << 16                 # bytes that are unpacked at a time
LONGEST = 100_000_000           # characters of a cell in a .csv
ROWS = 100                      # of a .parquet file, in memory at a time


def open_file(path):
    """Open a file to read its bytes: unpacked, and a table as lines of JSON."""
    found = (read for ending, read in READERS.items() if records.ends_with(path, ending))
    pieces_of = next(found, unpack)
    return io.BufferedReader(Generated(pieces_of(path)), PIECE)


def need(package, path):
    """Import a package that only such files need."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise Mistake(f'{path} needs a package: pip install {package}') from None


class Generated(io.RawIOBase):
    """A file to read, whose bytes a generator yields, piece by piece."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.waiting = b''              # what was yielded and not yet read

    def readable(self):
        return True

    def close(self):
        self.pieces.close()
        super().close()

    def readinto(self, buffer):
        while not self.waiting:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.waiting = memoryview(piece)
        n = min(len(buffer), len(self.waiting))
        buffer[:n] = self.waiting[:n]
        self.waiting = self.waiting[n:]
        return n


# --- packed files ---------------------------------------------------------------------------------
def unpack(path):
    """Yield the bytes of a file, unpacked, a piece at a time."""
    ending = os.path.splitext(path.lower())[1]
    if ending == '.zst':
        yield from unpack_zst(path)
        return
    packed = {'.gz': gzip.open, '.bz2': bz2.open, '.xz': lzma.open}.get(ending, open)
    try:
        with packed(path, 'rb') as f:
            while piece := f.read(PIECE):
                yield piece
    except lzma.LZMAError as error:
        raise ValueError(error) from None


def unpack_zst(path):
    """Yield the bytes of a .zst file, which may have several frames, one after the other.
    zstandard's own reader ends without a word where a file is cut off, and after one frame."""
    zstandard = need('zstandard', path)
    frame, packed = None, b''
    with open(path, 'rb') as f:
        while packed := packed or f.read(1024):     # of zeros it may become 30 MB
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise ValueError(error) from None
            packed = b''
            if frame.eof:               # what follows is another frame
                frame, packed = None, frame.unused_data
    if frame:
        raise EOFError('the file is cut off')


# --- tables and notebooks -------------------------------------------------------------------------
def line_of(record):
    return json.dumps(record, default=str).encode() + b'\n'         # default: dates become texts


def rows_of_parquet(path):
    """Yield the rows of a .parquet file. Columns of bytes and lists of numbers (images, vectors)
    stay on the disk: nobody reads them as text."""
    need('pyarrow', path)
    from pyarrow import parquet, types

    def is_read(kind):
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = kind.value_type
            if types.is_integer(kind) or types.is_floating(kind):
                return False
        # Hugging Face keeps an image as {'bytes', 'path'}
        parts = [field.type for field in kind] if types.is_struct(kind) else [kind]
        return not any(types.is_binary(part) or types.is_large_binary(part) for part in parts)

    # without pre_buffer, of a group of rows only the pages that are read are in memory
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=PIECE) as file:
        names = [field.name for field in file.schema_arrow if is_read(field.type)]
        for batch in file.iter_batches(ROWS, columns=names):
            yield b''.join(map(line_of, batch.to_pylist()))


def as_cp1252(error):
    """What turns out not to be UTF-8 in a .csv is Windows-1252, as Excel writes it."""
    return error.object[error.start:error.end].decode('cp1252'), error.end


codecs.register_error('cp1252', as_cp1252)


def rows_of_csv(path):
    """Yield the rows of a .csv or .tsv file, whose first line names the columns. A row with more or
    fewer cells than names is no record: its line begins with a zero byte and says what is wrong."""
    csv.field_size_limit(LONGEST)
    with io.BufferedReader(Generated(unpack(path)), 1 << 20) as f:
        head = f.peek(1 << 20)
        has_16 = head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding, errors = ('utf-16', 'strict') if has_16 else ('utf-8-sig', 'cp1252')
        decoder = codecs.getincrementaldecoder(encoding)()          # a character may be cut
        try:
            head = decoder.decode(head)
        except UnicodeDecodeError:      # then all of it is Windows-1252, where ß“ is two letters
            encoding, head = 'cp1252', records.decode(head)     # which refuses what is no text
        first = head.partition('\n')[0]
        is_tsv = '.tsv' in os.path.basename(path).lower()
        rows = csv.reader(io.TextIOWrapper(f, encoding, errors, newline=''), strict=True,
                          delimiter='\t' if is_tsv else max(',;\t', key=first.count))
        names = next(rows, [])
        if names and names[0].startswith('sep='):       # a line for Excel
            names = next(rows, [])
        if names.count('') == 1:        # the index of pandas, an empty column of Excel
            names[names.index('')] = f'column {names.index("") + 1}'
        if not names or not all(names) or len({*names}) < len(names):
            raise ValueError(f'the first line must name each column, once; it has {names!r:.200}')
        while True:
            began = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:              # the next line may be right
                yield (f'\0line {began} to line {rows.line_num} are lost ({error}): a cell that '
                       'begins with a quote (") must end with one\n').encode()
                continue
            if row is None:
                return
            if len(row) == len(names):
                yield line_of(dict(zip(names, row)))
            elif row:
                yield (f'\0line {rows.line_num} has {len(row)} cells, and {len(names)} columns '
                       'have names\n').encode()


def cells_of_notebook(path):
    """Yield one record: text and code of a Jupyter notebook, in order. Code stands in fences, as in
    Markdown, so that prepare.py leaves it as it is."""
    notebook = json.loads(b''.join(unpack(path)))
    try:
        sheets = notebook.get('worksheets') or [notebook]       # the first ones had sheets
        cells = [cell for sheet in sheets for cell in sheet['cells']]
        texts = []
        for cell in cells:
            text = ''.join(cell.get('source') or cell.get('input') or '')
            if cell.get('cell_type') == 'code' and text.strip():
                text = f'```python\n{text.rstrip()}\n```'
            texts += [text] * (cell.get('cell_type') in ('code', 'markdown'))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f'it is no notebook ({error!r})') from None
    yield line_of({'text': '\n\n'.join(filter(str.strip, texts))})


READERS = {'.parquet': rows_of_parquet, '.csv': rows_of_csv, '.tsv': rows_of_csv,
           '.ipynb': cells_of_notebook}
