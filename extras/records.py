"""
Records of files, one after the other, as prepare.py reads them, for other programs that read text.
Streaming is one of them: train.py tokenizes text while it reads, for text whose tokens don't fit on
your disk.

    for line, record in read('shards/00000.jsonl.gz', reject=print):
        print(line, text_of(record))

    python prepare.py --source=codeparrot --out_dir=data/text --vocab_size=32768 --write=text
    python train.py config/codeparrot.py --data_dir=data/text --streaming=data/text/shards

    stream = Stream('data/text/shards', rank, world, tokenizer)
    texts = stream.take(8, 256)             # the next 8 sequences, int64 (8, 257)
    positions = stream.positions()          # for a checkpoint: where each process is

A process reads shards of its own, over and over. The first pass gives the same tokens as a bin of
the same documents, in the order of the files. data_dir still gives the tokenizer and val.bin.

The text between the two marks stands in prepare.py, too, word for word, because prepare.py works
without this folder. A test compares them.
"""
import contextlib, glob, gzip, hashlib, io, itertools, json, os, re, zlib
import numpy as np
from configurator import Mistake, require

# --- records: same text in prepare.py, extras/records.py ------------------------------------------
LINES = '.jsonl', '.ndjson', '.jsonlines'
RECORDS = LINES + ('.json', '.parquet', '.csv', '.tsv', '.ipynb')
# also The Stack's, CodeSearchNet's and CodeParrot's names
TEXT_NAMES = 'text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'
OF_CHATS = {'messages', 'conversations', 'instruction', 'prompt', 'question', 'output', 'response'}
PIECE = 4_000_000               # bytes of a text in memory, and of a longer text's documents
LONGEST = 100_000_000           # bytes of a line; one that is longer is no record


def ends_with(path, endings):
    """Whether a file is of these kinds, packed or not: ends_with('a.jsonl.gz', RECORDS)."""
    return re.sub(r'\.(gz|zst|bz2|xz)$', '', path.lower()).endswith(endings)


def open_file(path):
    """Open a file to read its bytes, unpacked, without the mark of its byte order."""
    if path.startswith('hf:'):
        from extras import hub
        path = hub.fetched(path)
    if re.search(r'\.(parquet|csv|tsv|ipynb)(\.gz)?$|\.(zst|bz2|xz)$', path, re.I):
        from extras import formats
        f = formats.open_file(path)
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
    than 4 MB: then it is cut where a text, a paragraph, a line, a word or a character ends."""
    rest, more = b'', True
    while more:
        new = f.read(PIECE)
        more, data = len(new) == PIECE, rest + new
        end = len(data)
        if more:
            end -= len(re.search(rb'[\xc0-\xff]?[\x80-\xbf]*$', data[-4:])[0])     # half a letter?
            signs = b'\n<|endoftext|>\n', b'\n\n', b'\n', b' '
            end = next((data.rfind(sign) + len(sign) for sign in signs if sign in data), end)
        rest = data[end:]
        texts = [decode(data[:end])]
        if '<|endoftext|>' in texts[0]:
            texts = re.split(r'(?m)^<\|endoftext\|>(?:\r?\n|\Z)', texts[0])
        yield from filter(str.strip, texts) if len(texts) > 1 else texts


def read(path, reject, piece=0, n_pieces=1):
    """Yield (line, record) for each record of a file, or each of a piece of its lines. A text is a
    record {'text': ...} at line 0. What can't be read goes to reject(place, error) and is never
    raised, because of a thousand files one is damaged."""
    line = 0
    try:
        with open_file(path) as f:
            if not ends_with(path, RECORDS):
                if ends_with(path, '.txt') and re.match(rb'\s*\{"[^"\n]*": *["\[{\d]', f.peek(99)):
                    raise ValueError('its lines are records; rename it: .jsonl')
                for text in texts_in(f):
                    yield 0, {'text': text}
                return
            if ends_with(path, '.json') and f.peek(99).lstrip().startswith(b'['):
                yield from enumerate(json.load(f), 1)
                return
            for line, row in enumerate(iter(lambda: f.readline(LONGEST), b''), 1):
                if line % n_pieces == piece and row.strip():
                    try:
                        yield line, json.loads(row)
                    except (ValueError, RecursionError) as e:
                        reject(f'{path}:{line}', shape_of(row, e))
    except Mistake:             # a download that failed, a package that is missing
        raise
    except (ValueError, EOFError, OSError, zlib.error, RecursionError) as e:
        if (line + 1) % n_pieces == piece:          # cut off, no archive, not a text
            reject(f'{path}:{line + 1}', f'{type(e).__name__}: {e}')


def shape_of(row, error):
    """Say what a line that is no record looks like, and what is read."""
    if row.startswith(b'\0line '):      # formats.py says what is wrong with a row of a table
        return row[1:].decode().strip()
    shapes = ((rb'[\[{]$', 'JSON over several lines'), (rb'.*[}\]"],$', 'a comma at its end'),
              (rb'\[', 'a list'), (b'', f'no JSON ({error})'))
    shape = next(shape for start, shape in shapes if re.match(start, row.strip()))
    return (f'the line has {shape}; .jsonl has one {{"text": ...}} on each line, and .json may be '
            'one list of such records')


def text_of(record, names=TEXT_NAMES, columns=None):
    """Return the text of a record. An empty column hides no other. If no column has a usual name,
    the only long one is the text, unless the record looks like a conversation. columns, {name:
    records}, remembers it for the records that follow."""
    record = record if isinstance(record, dict) else {'text': record}
    if names is TEXT_NAMES and not ({*TEXT_NAMES} | OF_CHATS) & record.keys():
        long = [name for name, text in record.items()
                if isinstance(text, str) and len(text) >= 200 and ' ' in text]
        if columns or len(long) == 1:       # first what earlier records of this shard have chosen
            names = [*(columns or long)]
            if columns is not None:
                columns.update({*names} & record.keys())
    texts = [record[name] for name in names if isinstance(record.get(name), str)]
    if texts:
        return next(filter(str.strip, texts), texts[0])
    for name in names:
        if name in record:
            raise ValueError(f'{name} is {record[name]!r:.40}, not a text')
    raise ValueError(f'it has {", ".join(record) or "no field"}, and no {" or ".join(names)}; name '
                     'the field of the text: --text_field=NAME; conversations need --kind=sft')
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


# --- streaming ------------------------------------------------------------------------------------
def write_shards(folder, numbers, documents):
    """Write documents as FOLDER/shards/00000.jsonl.gz, ...: lines {"text": ..., "path": ...}.
    numbers: the shard of each document. Return the hash of each file."""
    (folder / 'shards').mkdir()
    hashes = {}
    for number, some in itertools.groupby(zip(numbers, documents), lambda pair: pair[0]):
        path = folder / f'shards/{number:05}.jsonl.gz'
        with gzip.GzipFile(path, 'wb', 1, mtime=0) as f:
            for _, document in some:
                facts = {name: value for name, value in document.items()
                         if name not in ('texts', 'roles', 'line', 'mode')}
                f.write(json.dumps({'text': document['texts'][0], **facts}).encode() + b'\n')
        hashes[f'{number:05}'] = hashlib.sha256(np.memmap(path, mode='r')).hexdigest()
    return hashes


class Stream:
    """position: [the shard and the line to read next, the ids that were read and not yet taken].
    Lines without a document are skipped, and so is the rest of a damaged archive."""

    def __init__(self, streaming, rank, world, tokenizer):
        pattern = streaming
        if os.path.isdir(streaming):
            pattern = os.path.join(glob.escape(streaming), '*')
        paths = sorted(path for path in glob.glob(pattern) if ends_with(path, RECORDS))
        if len(paths) < world:
            raise Mistake(f'streaming={streaming} has {len(paths)} shards (.jsonl, .parquet, ..., '
                          f'packed or not), and each process needs one ({world} in all); '
                          'prepare.py --write=text makes them')
        if '<|endoftext|>' not in tokenizer.special:
            raise Mistake('the tokenizer has no <|endoftext|>, which separates the '
                          'documents of a stream; prepare the data with --tokenizer=bpe')
        # The names and sizes of all shards: what identifies the data of a run.
        names = [[os.path.basename(path), os.path.getsize(path)] for path in paths]
        self.identity = json.dumps(names).encode()
        self.paths = paths[rank::world]
        self.rank, self.world = rank, world
        self.tokenizer = tokenizer
        self.go_to([[0, 0, []]] * world)

    def go_to(self, positions):
        """Go on from where the streams of all processes were."""
        if len(positions) != self.world:
            raise Mistake(f'this run reads {len(positions)} streams, one in each process; '
                          f'resume it with as many processes, not with {self.world}')
        shard, line, ids = positions[self.rank]
        self.position = [shard, line, list(ids)]
        self.documents = self.read(shard, line)

    def positions(self):
        """Return where the streams of all processes are. All processes must call this."""
        positions = [self.position] * self.world
        if self.world > 1:
            import torch.distributed as dist
            dist.all_gather_object(positions, self.position)
        return positions

    def read(self, shard, line):
        """Yield the text of each document from a position on, without an end."""
        n_empty = 0         # shards in a row without a text
        while True:
            path = self.paths[shard % len(self.paths)]
            try:
                with open_file(path) as f:
                    for number, data in itertools.islice(enumerate(f), line, None):
                        # A line that is no JSON object, or has no text, is skipped.
                        with contextlib.suppress(ValueError, TypeError, RecursionError):
                            text = text_of(json.loads(data) | {})
                            self.position[:2] = shard, number + 1
                            n_empty = 0
                            yield text
            except Mistake:             # a package that is missing
                raise
            except (ValueError, EOFError, OSError, zlib.error) as error:        # a damaged file
                if getattr(error, 'errno', None):       # no file, no permission, a broken disk
                    raise
            shard, line, n_empty = shard + 1, 0, n_empty + 1
            if n_empty > len(self.paths):
                raise Mistake(f'{", ".join(self.paths[:3])}...: no line has a text or content')

    def take(self, n_rows, T):
        """Return the next n_rows sequences with their last targets, int64 (n_rows, T + 1). A last
        target is also the first token of the next sequence."""
        ids = self.position[2]
        n = n_rows * T
        while len(ids) <= n:            # one more than n: the last target
            ids += [*self.tokenizer.encode_batch([next(self.documents)])[0],
                    self.tokenizer.special['<|endoftext|>']]
        taken = np.array(ids[:n + 1])                                                   # (n + 1,)
        del ids[:n]
        return np.stack([taken[i:i + T + 1] for i in range(0, n, T)])
