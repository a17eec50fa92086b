r"""
Tables and notebooks become records, and .zst is unpacked. files.py opens this file for their
endings.

    for record in records_of('a.csv', ['text,n\n', 'a,1\n', 'b\n']):    # .csv, .tsv, .json, .ipynb
        print(record)               # {'text': 'a', 'n': '1'}, and then an error: why there is none
    records_of('part.parquet', (), ['text', 'url'])     # it opens the file itself

A table takes a few MB of memory, whatever its size; a list in a .json file and a notebook are read
whole. A file that is not what its name says raises a ValueError with the reason. A file that is cut
off raises an EOFError or OSError in the words of the library that found it.
"""
import contextlib, csv, importlib, io, itertools, json, os, re
from configurator import UserError
from files import NO_RECORD, record_of

ROWS = 100                      # of a .parquet file, in memory at a time
LONGEST_CELL = 100_000_000      # characters; a quote that never ends takes no more than that
DAMAGED = ('not as many cells as the header has (or a quote does not end, or is written \\", which '
           'should be "")')


def package(path, *names):
    """Import the first of these modules that is installed. Without any, a UserError names the
    package of the last one."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise UserError(f'{path} needs a package: pip install {names[-1].removesuffix(".parquet")}')


def open_zst(path):
    """Open a .zst to read its bytes, unpacked. The package zstandard ends without a word where a
    file is cut off; this one, which Python 3.14 has, doesn't. 31: the largest window that
    zstd --long=31 writes, as in dumps of forums."""
    zstd = package(path, 'compression.zstd', 'backports.zstd')
    file = zstd.open(path, options={zstd.DecompressionParameter.window_log_max: 31})
    return io.BufferedReader(Unpacked(file, zstd.ZstdError))


class Unpacked(io.RawIOBase):
    """A file whose own kind of error becomes an OSError."""

    def __init__(self, file, error):
        self.file, self.error = file, error

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            return self.file.readinto(buffer)
        except self.error as error:
            raise OSError(str(error)) from None


# --- records --------------------------------------------------------------------------------------
def records_of(path, lines, columns=None):
    """Yield the records of a file, or for each that can't be read an error, why. lines: its lines.
    columns: those of a .parquet file to read; without any, all that are no bytes."""
    kind = os.path.splitext(re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()))[1]
    if kind == '.parquet':
        return rows_of_parquet(path, columns)
    return {'.csv': rows_of_csv, '.tsv': lambda lines: rows_of_csv(lines, '\t'),
            '.json': records_of_json, '.ipynb': record_of_notebook}[kind](lines)


def rows_of_parquet(path, columns):
    """Yield the rows of a .parquet file. The other columns stay on the disk, and are None."""
    parquet = package(path, 'pyarrow.parquet')
    # without pre_buffer, of a group of rows only the pages that are read are in memory
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        names = [field.name for field in file.schema_arrow if (
            field.name in columns if columns else 'binary' not in str(field.type))]
        # filters.py looks for these, also in a struct, as meta.url
        names += [part.name for field in file.schema_arrow for part in field.flatten()
                  if columns and re.search('(ur[il]|licen[cs]e)$', part.name, re.I)]
        others = dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=names):
            for i in range(len(batch)):
                row = {name: value_of(cells[i])
                       for name, cells in zip(batch.schema.names, batch.columns)}
                yield {**others, **row}


def value_of(cell):
    """Return the value of a cell. Many programs write texts as BINARY, without saying that they are
    texts. A byte that isn't UTF-8 becomes a lone surrogate, which no text has."""
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        value = cell.as_buffer().to_pybytes() if hasattr(cell, 'as_buffer') else None
    return value.decode('utf-8', 'surrogateescape') if isinstance(value, bytes) else value


def rows_of_csv(lines, delimiter=','):
    """Yield the rows of a table, whose first line names the columns. Each line of a .tsv is a row,
    whatever quotes it has. Excel's `sep=;` above the names says what separates the columns."""
    csv.field_size_limit(LONGEST_CELL)
    is_tsv, lines = delimiter == '\t', iter(lines)
    # where a lone CR ends the first row it ends all, as in Excel's CSV for a Mac; else it is a sign
    lines = itertools.chain(re.findall('[^\r]*\r\n?|[^\r]+', next(lines, '')), lines)
    first = next(lines, '')
    if sign := re.match('"?sep=(.)"?\\s*$', first, re.I):
        delimiter, first = sign[1], next(lines, '')
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True,
                      skipinitialspace=f'{delimiter} "' in first,
                      quoting=csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL)
    names, row = [], []
    while row is not None:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield ValueError(f'{DAMAGED} ({error})')
            continue
        row = [*map(unquoted, row)] if row and is_tsv else row
        if row and not names:
            names = [name.strip() for name in row]
            if len(names) == 1 and re.search('^#|[;|\t]', names[0]):
                raise ValueError('the first line of a .csv must name its columns, with commas; if '
                                 'they have others, such as ;, write the line sep=; above all')
        elif row:
            is_whole = len(row) == len(names)
            yield dict(zip(names, row)) if is_whole else ValueError(DAMAGED)


def unquoted(cell):
    """Return a cell without the quotes in which pandas and Excel put one that has a quote."""
    is_quoted = re.fullmatch('"(?:[^"]|"")*"', cell)
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def records_of_json(lines):
    """Return the records of a .json file: one list of them, or one on each line."""
    lines = filter(str.strip, lines)
    first = next(lines, '')
    if isinstance(record_of(first), dict):
        return map(record_of, itertools.chain([first], lines))
    try:
        records, why = json.loads(''.join([first, *lines])), ''
    except (ValueError, RecursionError) as error:
        records, why = None, f' ({getattr(error, "msg", error)})'
    if not isinstance(records, list):
        raise ValueError(f'no list [{{...}}, {{...}}] of records, and no record on each line{why}')
    return (record if isinstance(record, dict) else ValueError(NO_RECORD) for record in records)


def record_of_notebook(lines):
    """Yield one record: text and code of a Jupyter notebook (nbformat 4), in order, without what
    the code printed. Code stands in fences, as in Markdown, so that cleaning leaves it as it is."""
    try:
        notebook, texts = json.loads(''.join(lines)), []
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
