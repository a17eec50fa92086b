r"""
Tables and notebooks become records, and .zst is unpacked. files.py opens this file for their
endings, and for texts that are not UTF-8.

    for record in records_of('a.csv'):          # .csv, .tsv, .json, .ipynb
        print(record)               # {'text': 'a', 'n': '1'}, or an error: why there is none
    records_of('part.parquet', columns=['text', 'url'])

A table takes a few MB of memory, whatever its size; a list in a .json file and a notebook are read
whole. A file that is not what its name says raises a ValueError with the reason. A file that is cut
off raises an EOFError or OSError in the words of the library that found it.
"""
import codecs, contextlib, csv, importlib, io, itertools, re
from configurator import UserError
from files import DAMAGE, HTML, NO_RECORD, ends_with, lines_of, open_bytes, parse_json, record_of

ROWS = 100                      # of a .parquet file, in memory at a time
LONGEST_CELL = 100_000_000      # characters; a quote that never ends takes no more than that
# cells that pandas reads as missing, too; \N is that of databases
NULLS = {'NULL', 'null', 'NaN', 'nan', '<NA>', 'NA', 'N/A', 'n/a', '#N/A', 'None', '\\N'}
DAMAGED = ('not as many cells as the header has (or a quote does not end, or is written \\", which '
           'should be "")')


def package(path, *names):
    """Import the first of these modules that is installed. Without any, a UserError says that this
    path, or whatever it is, needs the package of the last one."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    name = re.sub(r'\.(parquet|torch)$', '', names[-1])
    raise UserError(f'{path} needs a package: pip install {name}')


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


# --- encodings ------------------------------------------------------------------------------------
# What a page says of itself: <meta charset="koi8-r">, or content="text/html; charset=koi8-r", or
# <?xml version="1.0" encoding="koi8-r"?>. x-sjis is sjis, and Python knows windows-874 as 874.
CHARSET = re.compile(rb'<(?:meta|\?xml)\b[^>]*?\b(?:charset|encoding)\s*=\s*["\']?\s*'
                     rb'(?:x-|windows-)*([\w.:-]+?)(?:-[ie])?(?![\w.:-])', re.I)
# By these names people mean a larger encoding, that of Windows, and browsers read them so.
LARGER = {'ascii': 'cp1252', 'iso8859-1': 'cp1252', 'iso8859-9': 'cp1254', 'iso8859-11': 'cp874',
          'tis-620': 'cp874', 'shift_jis': 'cp932', 'gb2312': 'gb18030', 'gbk': 'gb18030',
          'euc_kr': 'cp949', 'big5': 'big5hkscs', 'euc_jp': 'euc_jis_2004'}


def encoding_of(path, start, encoding):
    """Return the encoding of a file that begins with these bytes, or '' if it is UTF-8: what a page
    says of itself, or else `encoding`."""
    try:
        'a'.encode(encoding or 'utf-8')
    except LookupError as error:
        raise UserError(f'--encoding={encoding}: {error}; name another') from None
    said = CHARSET.findall(re.sub(rb'(?s)<!--.*?-->', b'', start)) if ends_with(path, HTML) else []
    for name in [*map(bytes.decode, said), encoding]:
        with contextlib.suppress(LookupError):          # of a name that Python does not know
            name = codecs.lookup(name).name
            if name != 'utf-8':
                return '' if is_utf8(path, name) else LARGER.get(name, name)
    return ''


def is_utf8(path, encoding):
    """Whether a file is UTF-8, although something else is said of it: it has more letters beyond
    ASCII than invalid bytes and zeros. Pure ASCII may be Japanese mail (iso-2022-jp), so there what
    is said wins; it can't be UTF-16, which has zeros."""
    n_letters = n_invalid = 0
    with contextlib.suppress(*DAMAGE):
        for line in open_bytes(path):
            text = line.decode('utf-8', 'surrogateescape')
            n_letters += len(text) - len(text.encode('ascii', 'ignore'))
            n_invalid += len(re.findall('[\0\udc80-\udcff]', text))
    return n_letters > 2 * n_invalid or '\n'.encode(encoding) != b'\n' and not n_invalid


# --- records --------------------------------------------------------------------------------------
def records_of(path, encoding='', columns=None):
    """Yield the records of a file, or for each that can't be read an error, why. columns: those of
    a .parquet file to read; without any, all that are no bytes."""
    if ends_with(path, '.parquet'):
        return rows_of_parquet(path, columns)
    lines = lines_of(path, encoding)
    if ends_with(path, '.tsv'):
        return rows_of_tsv(path, encoding)
    if ends_with(path, '.csv'):
        return rows_of_csv(lines)
    return records_of_json(lines) if ends_with(path, '.json') else record_of_notebook(lines)


def check_names(names):
    """Refuse two columns of one name, because a record would have only one of them."""
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise ValueError(f'two columns have the name {twice[0]}: rename one, or add a header line')


def rows_of_parquet(path, columns):
    """Yield the rows of a .parquet file. The other columns stay on the disk, and are None."""
    parquet = package(path, 'pyarrow.parquet')
    # without pre_buffer, of a group of rows only the pages that are read are in memory
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        check_names(file.schema_arrow.names)
        # filters.py looks for an address or a license, also in a struct, as meta.url
        names = [part.name for field in file.schema_arrow for part in field.flatten() if (
            field.name in columns or re.search('(ur[il]|licen[cs]e)$', part.name, re.I)
            if columns else 'binary' not in str(field.type))]
        others = dict.fromkeys(file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=names):
            for i in range(len(batch)):
                row = {name: value_of(cells[i])
                       for name, cells in zip(batch.schema.names, batch.columns)}
                yield {**others, **row}


def value_of(cell):
    """Return the value of a cell. Many programs write texts as BINARY, without saying that they are
    texts. A byte that isn't UTF-8 becomes a lone surrogate, which no text has. What Python has no
    value for, such as a date in the year 12000, is None."""
    try:
        value = cell.as_py()
    except (ValueError, OverflowError):
        value = cell.as_buffer().to_pybytes() if hasattr(cell, 'as_buffer') else None
    return value.decode('utf-8', 'surrogateescape') if isinstance(value, bytes) else value


def rows_of_tsv(path, encoding):
    """Return the rows of a .tsv. Some programs put quotes around a cell with several lines, as in a
    .csv. Others never do, so there a quote is a sign like any other. Each line is a row if all have
    the cells that the header has, and also if the quotes don't add up."""
    read = lambda quoting: rows_of_csv(lines_of(path, encoding), '\t', quoting)
    is_line = lambda row: isinstance(row, dict) and len(row) > 1    # one column fits any line
    if all(map(is_line, read(csv.QUOTE_NONE))) or any(
            isinstance(row, csv.Error) for row in read(csv.QUOTE_MINIMAL)):
        return read(csv.QUOTE_NONE)
    return read(csv.QUOTE_MINIMAL)


def rows_of_csv(lines, delimiter=',', quoting=csv.QUOTE_MINIMAL):
    """Yield the rows of a table, whose first line names the columns. Excel's `sep=;` above the
    names says what separates the columns."""
    csv.field_size_limit(LONGEST_CELL)
    lines = iter(lines)
    # where a lone CR ends the first row it ends all, as in Excel's CSV for a Mac; else it is a sign
    lines = itertools.chain(re.findall('[^\r]*\r\n?|[^\r]+', next(lines, '')), lines)
    first = next(lines, '')
    if sign := re.match('"?sep=(.)"?\\s*$', first, re.I):
        delimiter, first = sign[1], next(lines, '')
    if delimiter not in first and re.search('^#|[;|\t]', first):
        raise ValueError('the first line must name columns, with commas; for ;, add a line sep=;')
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True,
                      skipinitialspace=f'{delimiter} "' in first, quoting=quoting)
    names, row = [], []
    while row is not None:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield csv.Error(f'{DAMAGED} ({error})')
            continue
        row = [*map(unquoted, row)] if row and quoting == csv.QUOTE_NONE else row
        if row and not names:
            names = [name.strip() for name in row]
            check_names(names)
        elif row:
            # cat a.csv b.csv leaves the second header
            again = row[-1] == names[-1] and [cell.strip('\ufeff" ') for cell in row] == names
            why = DAMAGED if len(row) != len(names) else 'the header again' * again
            cells = [None if cell in NULLS else cell for cell in row]
            yield ValueError(why) if why else dict(zip(names, cells))


def unquoted(cell):
    """Return a cell without the quotes in which pandas and Excel put one that has a quote."""
    is_quoted = re.fullmatch('"(?:[^"]|"")*"', cell)
    return cell[1:-1].replace('""', '"') if is_quoted else cell


def records_of_json(lines):
    """Return the records of a .json file: one list of them, or one on each line, or one in all."""
    lines = filter(str.strip, lines)
    first = next(lines, '')
    if isinstance(record_of(first), dict):
        return map(record_of, itertools.chain([first], lines))
    try:
        records, why = parse_json(''.join([first, *lines])), ''
    except (ValueError, RecursionError) as error:
        records, why = None, f' ({getattr(error, "msg", error)})'
    records = [records] if isinstance(records, dict) else records
    if not isinstance(records, list):
        raise ValueError(f'no list [{{...}}, {{...}}] of records, and no record on each line{why}')
    return (record if isinstance(record, dict) else ValueError(NO_RECORD) for record in records)


def record_of_notebook(lines):
    """Yield one record: text and code of a Jupyter notebook (nbformat 4), in order, without what
    the code printed. Code stands in fences, as in Markdown, so that cleaning leaves it as it is."""
    try:
        notebook, texts = parse_json(''.join(lines)), []
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
