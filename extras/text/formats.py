r"""
Read tables and notebooks as records, and decompress .zst, for files.py, which imports this file for
these file extensions and for text that is not UTF-8.

    for record in records_of('a.csv'):          # .csv, .tsv, .json, .ipynb
        print(record)               # {'text': 'a', 'n': '1'}, or the error in this row
    records_of('part.parquet', columns=['text', 'url'])

A table needs a few MB of memory, whatever its size. A list in a .json file and a notebook are read
into memory. A file whose content doesn't match its extension raises a ValueError with the reason. A
truncated file raises the EOFError or OSError of the library that reads it.
"""
import codecs, collections, contextlib, csv, importlib, io, itertools, re
from configurator import UserError
from files import DAMAGE, HTML, NO_RECORD, ends_with, lines_of, open_bytes, parse_json, record_of

ROWS = 100                      # rows of a .parquet file in memory at a time
# Characters. This limits the memory that a cell with an unclosed quote needs.
LONGEST_CELL = 100_000_000
# Null values, which pandas also reads as missing. Databases write \N.
NULLS = {'NULL', 'null', 'NaN', 'nan', '<NA>', 'NA', 'N/A', 'n/a', '#N/A', 'None', '\\N'}
DAMAGED = ('not as many cells as the header (or a quote is not closed, or is escaped as \\", which '
           'must be "")')


def package(path, *names):
    """Import the first of these modules that is installed. If none is, raise a UserError: `path`,
    a file or a feature, needs the package of the last module."""
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    name = re.sub(r'\.(parquet|torch)$', '', names[-1])
    raise UserError(f'{path} needs a package: pip install {name}')


def open_zst(path):
    """Open a .zst file to read its decompressed bytes. The package zstandard reads a truncated file
    without an error; Python 3.14's module raises one. 31 is the window of zstd --long=31, which
    dumps of forums use."""
    zstd = package(path, 'compression.zstd', 'backports.zstd')

    class File(zstd.ZstdFile):
        def readinto(self, buffer):
            try:
                return super().readinto(buffer)
            except zstd.ZstdError as error:         # no OSError, unlike those of gzip
                raise OSError(str(error)) from None

    window = {zstd.DecompressionParameter.window_log_max: 31}
    return io.BufferedReader(File(path, options=window))


# --- encodings ------------------------------------------------------------------------------------
# The encoding that a page declares: <meta charset="koi8-r">, content="text/html; charset=koi8-r" or
# <?xml version="1.0" encoding="koi8-r"?>. Python calls x-sjis sjis, and windows-874 is 874.
CHARSET = re.compile(rb'<(?:meta|\?xml)\b[^>]*?\b(?:charset|encoding)\s*=\s*["\']?\s*'
                     rb'(?:x-|windows-)*([\w.:-]+?)(?:-[ie])?(?![\w.:-])', re.I)
# Like browsers, decode these encodings as the larger ones that their authors usually mean.
LARGER = {'ascii': 'cp1252', 'iso8859-1': 'cp1252', 'iso8859-9': 'cp1254', 'iso8859-11': 'cp874',
          'tis-620': 'cp874', 'shift_jis': 'cp932', 'gb2312': 'gb18030', 'gbk': 'gb18030',
          'euc_kr': 'cp949', 'big5': 'big5hkscs', 'euc_jp': 'euc_jis_2004'}


def encoding_of(path, start, encoding):
    """Return the encoding of a file that begins with the bytes `start`, or '' for UTF-8: the one
    that an HTML page declares, or else `encoding`."""
    try:
        'a'.encode(encoding or 'utf-8')
    except LookupError as error:
        raise UserError(f'--encoding={encoding}: {error}; use another name') from None
    named = CHARSET.findall(re.sub(rb'(?s)<!--.*?-->', b'', start)) if ends_with(path, HTML) else []
    for name in [*map(bytes.decode, named), encoding]:
        with contextlib.suppress(LookupError):          # Python doesn't know the name
            name = codecs.lookup(name).name
            if name != 'utf-8':
                return '' if is_utf8(path, name) else LARGER.get(name, name)
    return ''


def is_utf8(path, encoding):
    """Return whether a file is UTF-8 despite the declared `encoding`, that is, has more non-ASCII
    characters than invalid bytes and zeros. Pure ASCII may be Japanese mail (iso-2022-jp), so there
    the declaration wins, but not UTF-16, which would contain zeros."""
    n_letters = n_invalid = 0
    with contextlib.suppress(*DAMAGE):
        for line in open_bytes(path):
            text = line.decode('utf-8', 'surrogateescape')
            n_letters += len(text) - len(text.encode('ascii', 'ignore'))
            n_invalid += len(re.findall('[\0\udc80-\udcff]', text))
    return n_letters > 2 * n_invalid or '\n'.encode(encoding) != b'\n' and not n_invalid


# --- records --------------------------------------------------------------------------------------
def records_of(path, encoding='', columns=None):
    """Yield each record of a file, or an error for a record that can't be read. columns: the
    columns of a .parquet file to read; None = all except binary columns."""
    if ends_with(path, '.parquet'):
        return rows_of_parquet(path, columns)
    lines = lines_of(path, encoding)
    if ends_with(path, '.tsv'):
        return rows_of_tsv(path, encoding)
    if ends_with(path, '.csv'):
        return rows_of_csv(lines)
    return records_of_json(lines) if ends_with(path, '.json') else record_of_notebook(lines)


def check_names(names):
    """Raise a ValueError if two columns share a name, because a record can hold only one value."""
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise ValueError(f'two columns have the name {twice[0]}: rename one, or add a header line')


def rows_of_parquet(path, columns):
    """Yield the rows of a .parquet file. Columns that are not read from the disk are None."""
    parquet = package(path, 'pyarrow.parquet')
    # pre_buffer would load a row group into memory, instead of one page at a time
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        check_names(file.schema_arrow.names)
        # filters.py needs URLs and licenses, also from a struct, such as meta.url
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
    """Return the value of a cell. Bytes are decoded, because many programs write text as BINARY. An
    invalid byte becomes a lone surrogate, which no valid text contains. A value that Python can't
    represent, such as a date in the year 12000, becomes None."""
    try:
        value = cell.as_py()
    except (ValueError, OverflowError):
        value = cell.as_buffer().to_pybytes() if hasattr(cell, 'as_buffer') else None
    return value.decode('utf-8', 'surrogateescape') if isinstance(value, bytes) else value


def rows_of_tsv(path, encoding):
    """Return the rows of a .tsv file. Some programs quote a cell with several lines, as in a .csv
    file. Other programs never quote, so a quote is an ordinary character. It is one if the quotes
    are unbalanced, or if only without quoting every row has as many cells as the header. If both
    ways of reading are possible and give different rows, raise a ValueError."""
    read = lambda quoting: rows_of_csv(lines_of(path, encoding), '\t', quoting)
    # any line fits one column
    kind_of = lambda row: 'full' if isinstance(row, dict) and len(row) > 1 else type(row)
    quoted, lines = (collections.Counter(map(kind_of, read(quoting)))
                     for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE))
    if quoted.keys() == lines.keys() == {'full'} and quoted != lines:
        raise ValueError('quotes may enclose several lines or be text: save the table as .jsonl')
    is_unquoted = lines.keys() == {'full'} != quoted.keys() or csv.Error in quoted
    return read(csv.QUOTE_NONE if is_unquoted else csv.QUOTE_MINIMAL)


def rows_of_csv(lines, delimiter=',', quoting=csv.QUOTE_MINIMAL):
    """Yield the rows of a table, whose first line names the columns. A line `sep=;` above them, as
    Excel writes it, sets the delimiter."""
    csv.field_size_limit(LONGEST_CELL)
    lines = iter(lines)
    # If a lone CR ends the first row, it ends every row, as in Excel's CSV for a Mac. Otherwise a
    # lone CR is an ordinary character.
    lines = itertools.chain(re.findall('[^\r]*\r\n?|[^\r]+', next(lines, '')), lines)
    first = next(lines, '')
    if found := re.match('"?sep=(.)"?\\s*$', first, re.I):
        delimiter, first = found[1], next(lines, '').removeprefix('\ufeff')
    if delimiter not in first and re.search('^#|[;|\t]', first):
        raise ValueError('the first line must name columns, with commas; for tabs, name the file '
                         '.tsv; for ;, put sep=; above it')
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True,
                      skipinitialspace=f'{delimiter} "' in first, quoting=quoting)
    names, row = [], []
    while row is not None:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield csv.Error(f'{DAMAGED} ({error})')
            continue
        if row and not names:
            names = [name.strip() for name in row]
            check_names(names)
        elif row:
            # cat a.csv b.csv keeps the second header
            is_header = row[-1] == names[-1] and [cell.strip('\ufeff" ') for cell in row] == names
            why = DAMAGED if len(row) != len(names) else 'the header again' * is_header
            cells = [None if cell in NULLS else cell for cell in row]
            yield ValueError(why) if why else dict(zip(names, cells))


def records_of_json(lines):
    """Return the records of a .json file: a list of records, one record per line, or one record."""
    lines = filter(str.strip, lines)
    first = next(lines, '')
    record = record_of(first)
    if isinstance(record, dict) or isinstance(record, ValueError) and str(record) != NO_RECORD:
        return map(record_of, itertools.chain([first], lines))
    try:
        records, why = parse_json(''.join([first, *lines])), ''
    except (ValueError, RecursionError) as error:
        records, why = None, f' ({getattr(error, "msg", error)})'
    records = [records] if isinstance(records, dict | ValueError) else records
    if not isinstance(records, list):
        raise ValueError(f'neither a list [{{...}}, {{...}}] of records nor one per line{why}; '
                         'jq -c . a.json > a.jsonl writes one per line, or names the error')
    return (record if isinstance(record, dict | ValueError) else ValueError(NO_RECORD)
            for record in records)


def record_of_notebook(lines):
    """Yield one record: the text and code of a Jupyter notebook (nbformat 4), in order, without
    outputs. Code is in Markdown fences, so that cleaning doesn't change it."""
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
        raise ValueError('not a notebook of nbformat 4') from None
    yield {'text': '\n\n'.join(texts)}
