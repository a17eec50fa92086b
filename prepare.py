"""
Data: text from somewhere -> train.bin and val.bin, flat arrays of token ids that train.py maps into memory.

    python prepare.py                                                       # Python's own standard library,
    no network python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char      #
    downloads 1.1 MB, once python prepare.py --source=FOLDER --out_dir=data/mine --vocab_size=32768

A source is a file, a folder or a glob of .py .txt .md (a file is a document) or .jsonl .json (a record is a
document, its text under `text` or `content`), gzipped or not. Everything streams: memory does not grow with
the corpus.

Reads the source twice: once to train the tokenizer on the training documents, once to encode. Writes under
out_dir: train.bin, val.bin (uint16, or uint32 above 65,536 ids; documents end with <|endoftext|>),
tokenizer.json, meta.json, and report.md / report.json: what came in, what was dropped and why, what is on
disk.

The decision made here is the corpus: a model can only know what these files hold, and shares their defects.
"""
import atexit, glob, gzip, hashlib, itertools, json, os, sys, sysconfig, time
import numpy as np
import requests
from tqdm import tqdm
from configurator import configure
from tokenizer import SPECIAL_TOKENS, Tokenizer, to_utf8

# --- settings ---------------------------------------------------------------------------------------------------------
source = 'stdlib'           # stdlib, shakespeare, or a path: file, folder or glob of .py .txt .md .jsonl .json (.gz)
out_dir = 'data/stdlib'     # train.bin, val.bin, tokenizer.json, meta.json, report.* go here
tokenizer = 'bpe'           # bpe (trained here), byte, char, gpt2, or the path of a tokenizer.json
vocab_size = 4096           # bpe only: 256 bytes + merges + 64 special tokens
val_fraction = 0.1          # share of the documents (of the characters, if there is one document) held out
max_docs = 0                # stop after so many documents; 0 = all
gpt2_dir: str | None = None # folder with GPT-2's vocab.bpe and encoder.json; None = tiktoken's cache or the network
download_dir = 'data/raw'   # where downloads are kept
config = configure(globals())

if not 0 < val_fraction < 1:
    raise ValueError(f'val_fraction={val_fraction} must be between 0 and 1, for instance 0.1')
if tokenizer not in ('bpe', 'byte', 'char', 'gpt2') and not tokenizer.endswith('.json'):
    raise ValueError(f'tokenizer={tokenizer!r} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
start_time = time.time()
DOWNLOADS = {   # name -> address, sha256
    'shakespeare': ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt',
                    '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')}
TEXT, RECORDS = ('.py', '.txt', '.md'), ('.jsonl', '.json')
PIECE = 16_000_000          # characters; a longer text is encoded in pieces, so that memory stays constant


# --- sources: a path -> documents -------------------------------------------------------------------------------------

def download(name):
    """Fetch a file of DOWNLOADS into download_dir, unless it is there. An interrupted transfer is continued;
    the file gets its name only once its checksum is right."""
    url, sha256 = DOWNLOADS[name]
    path = os.path.join(download_dir, f'{name}.txt')
    if not os.path.exists(path):
        os.makedirs(download_dir, exist_ok=True)
        part = f'{path}.part'
        have = os.path.getsize(part) if os.path.exists(part) else 0
        try:
            with requests.get(url, headers={'Range': f'bytes={have}-'} if have else {}, stream=True, timeout=30) as r:
                if r.status_code != 416:                # 416: nothing is left to fetch
                    r.raise_for_status()
                    with open(part, 'ab' if r.status_code == 206 else 'wb') as f:
                        for chunk in r.iter_content(1 << 20):
                            f.write(chunk)
        except requests.RequestException as e:
            raise ValueError(f'cannot download {url} ({type(e).__name__}); fetch it by other means, put it '
                             f'at {path} and run the same command again') from e
        with open(part, 'rb') as f:
            found = hashlib.file_digest(f, 'sha256').hexdigest()
        if found != sha256:
            os.remove(part)
            raise ValueError(f'{url} has the checksum {found[:16]}..., expected {sha256[:16]}...; run the '
                             'same command again')
        os.replace(part, path)
    return path


def find_files(source):
    """Files of a source, sorted, so that the same folder gives the same bins on every machine."""
    if source == 'stdlib':      # 12 MB of Python in every interpreter; its tests would be two thirds of the corpus
        root = sysconfig.get_paths()['stdlib']
        skip = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
        files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names
                 if name.endswith('.py') and not skip & set(os.path.relpath(folder, root).split(os.sep))]
    elif source in DOWNLOADS:
        files = [download(source)]
    elif os.path.isfile(source):
        return [source]
    else:
        found = glob.glob(os.path.join(source, '**') if os.path.isdir(source) else source, recursive=True)
        files = [f for f in found if os.path.isfile(f) and f.removesuffix('.gz').endswith(TEXT + RECORDS)]
        if not files:
            raise ValueError(f'source={source!r} is neither {", ".join(["stdlib", *DOWNLOADS])} nor a file, '
                             f'folder or glob with {" ".join(TEXT + RECORDS)} (.gz) files in it')
    return sorted(files)


def open_text(path):
    """A file as text, decompressed, its line ends untouched."""
    return (gzip.open if path.endswith('.gz') else open)(path, 'rt', encoding='utf-8', newline='')


def read_documents(files):
    """Yield the text of each document. A file or record that cannot be read is counted in `malformed` and passed over."""
    def reject(path, line, why):
        malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})['records'] += 1

    for path in files:
        line = 0
        try:
            with open_text(path) as f:
                if not path.removesuffix('.gz').endswith(RECORDS):
                    yield f.read()
                    continue
                whole = path.removesuffix('.gz').endswith('.json') and f.read(1) == '['     # one list, or a record a line?
                f.seek(0)
                for line, record in enumerate(json.load(f) if whole else f, 1):
                    try:
                        record = record if whole or not record.strip() else json.loads(record)
                    except ValueError:
                        reject(path, line, 'not JSON')
                        continue
                    if isinstance(record, dict):
                        record = record.get('text', record.get('content'))
                    if isinstance(record, str):
                        yield record
                    else:
                        reject(path, line, 'no text or content in it')
        except (ValueError, EOFError, OSError) as e:    # not UTF-8, a truncated archive, no permission
            reject(path, line + 1, f'{type(e).__name__}: {e}')


def is_validation(document):
    """Decided by the document alone, so that copies of it are on one side, on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(to_utf8(document), digest_size=8).digest(), 'big') < val_fraction * 2 ** 64


# --- the funnel: documents -> documents ---------------------------------------------------------------------------------
# A stage is a generator that counts what it passes on. The cleaning stages (normalise, filter, deduplicate,
# PII, decontaminate) have their place after `read`, in this order.

def stage(name, documents, reason_to_drop):
    """Pass on the documents for which reason_to_drop(document) is None; add this stage's line to the report."""
    row = {'name': name, 'docs_in': 0, 'docs_out': 0, 'bytes_in': 0, 'bytes_out': 0, 'dropped': {}}
    stages.append(row)
    for document in documents:
        size, reason = len(to_utf8(document)), reason_to_drop(document)
        row['docs_in'] += 1
        row['bytes_in'] += size
        if reason:
            row['dropped'][reason] = row['dropped'].get(reason, 0) + 1
        else:
            row['docs_out'] += 1
            row['bytes_out'] += size
            yield document


def documents():
    """Every document that survives. The source is read twice, to train the tokenizer and to encode; each pass counts anew."""
    stages.clear()
    malformed.clear()
    survivors = stage('read', read_documents(files), lambda text: None if text.strip() else 'empty')
    yield from itertools.islice(survivors, max_docs or None)


# --- one text file is one document: split at a character, no separators -------------------------------------------------

def pieces(start, end):
    """Characters start..end of the single file."""
    with open_text(files[0]) as f:
        for position in range(0, end, PIECE):
            block = f.read(PIECE)
            if position + len(block) > start:
                yield block[max(start - position, 0):end - position]


os.makedirs(out_dir, exist_ok=True)
files, stages, malformed = find_files(source), [], {}
single = len(files) == 1 and not files[0].removesuffix('.gz').endswith(RECORDS)
if single:
    try:
        with open_text(files[0]) as f:
            n_characters = sum(len(block) for block in iter(lambda: f.read(PIECE), ''))
    except UnicodeDecodeError as e:
        raise ValueError(f'{files[0]} is not UTF-8 text: {e}') from e
    split = int(n_characters * (1 - val_fraction))
    sides = [('train', pieces(0, split)), ('val', pieces(split, n_characters))]
    train_texts, all_texts = pieces(0, split), pieces(0, n_characters)
else:
    sides = ((('val' if is_validation(document) else 'train'), [document]) for document in documents())
    train_texts, all_texts = (d for d in documents() if not is_validation(d)), documents()


# --- tokenizer: trained on the training documents only ------------------------------------------------------------------

def progress(texts, what):
    return tqdm(texts, desc=what, unit=' docs', disable=not sys.stderr.isatty())


special_tokens = () if single and tokenizer in ('byte', 'char') else SPECIAL_TOKENS
if tokenizer == 'bpe':
    tok = Tokenizer.train(progress(train_texts, 'reading'), vocab_size, special_tokens)
elif tokenizer == 'byte':
    tok = Tokenizer.byte(special_tokens)
elif tokenizer == 'char':
    tok = Tokenizer.char(progress(all_texts, 'reading'), special_tokens)
elif tokenizer == 'gpt2':
    tok = Tokenizer.gpt2(gpt2_dir)
else:
    tok = Tokenizer.load(tokenizer)
separator = [] if single else [tok.special['<|endoftext|>']]
print(f'tokenizer: {tok.kind}, {tok.vocab_size:,} tokens, hash {tok.hash}')


# --- encode -------------------------------------------------------------------------------------------------------------

class Bin:
    """A file of token ids that gets its name when all is well."""

    def __init__(self, name, dtype):
        self.path, self.dtype, self.tokens, self.bytes, self.documents = os.path.join(out_dir, name), dtype, 0, 0, 0
        self.sha256, self.file, self.waiting, self.size = hashlib.sha256(), open(f'{self.path}.tmp', 'wb'), [], 0
        atexit.register(lambda: os.path.exists(f'{self.path}.tmp') and os.remove(f'{self.path}.tmp'))

    def add(self, text):
        self.waiting.append(text)
        self.size += len(text)
        if self.size > PIECE // 2:
            self.flush()

    def flush(self):
        for text, ids in zip(self.waiting, tok.encode_batch(self.waiting)):
            data = np.array(ids + separator, dtype=self.dtype)
            self.file.write(data)
            self.sha256.update(data)
            self.tokens += len(data)
            self.bytes += len(to_utf8(text))
        self.waiting, self.size = [], 0


dtype = 'uint16' if tok.vocab_size <= 2 ** 16 else 'uint32'
bins = {'train': Bin('train.bin', dtype), 'val': Bin('val.bin', dtype)}
for side, texts in progress(sides, 'encoding'):
    bins[side].documents += 1
    for text in texts:
        bins[side].add(text)
for side, b in bins.items():
    b.flush()
    b.file.close()
    if b.tokens == 0:
        counts = ', '.join(f'{b.documents} {name}' for name, b in bins.items())
        raise ValueError(f'{source} gives no {side} tokens (documents: {counts}; unreadable: '
                         f'{len(malformed)}); a source needs text, and enough documents for '
                         f'val_fraction={val_fraction}')
    if os.path.getsize(f'{b.path}.tmp') != b.tokens * np.dtype(dtype).itemsize:
        raise OSError(f'{b.path}.tmp holds {os.path.getsize(b.path + ".tmp")} bytes, not {b.tokens} {dtype}; '
                      'disk full?')

# --- the report, and the names -------------------------------------------------------------------------------------------
if single:
    size = sum(b.bytes for b in bins.values())
    stages.append({'name': 'read', 'docs_in': 1, 'docs_out': 1, 'bytes_in': size, 'bytes_out': size, 'dropped': {}})
per_side = lambda field: {side: getattr(b, field) for side, b in bins.items()}      # noqa: E731
report = {'stages': stages, 'malformed': sum(m['records'] for m in malformed.values()), 'malformed_files': malformed,
          'documents': per_side('documents'), 'tokens': per_side('tokens'), 'bytes': per_side('bytes'),
          'sources': {source: {'files': len(files), 'weight': 1.0}}}
meta = {'format': 'nanoparrot-data-1', 'dtype': dtype, 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash,
        'documents': report['documents'], 'tokens': report['tokens'], 'bytes': report['bytes'], 'sources': report['sources'],
        'sha256': {side: b.sha256.hexdigest() for side, b in bins.items()}, 'separators': not single, 'config': config}
rows = [f'| {s["name"]} | {s["docs_in"]:,} | {s["docs_out"]:,} | {s["bytes_in"]:,} | {s["bytes_out"]:,} | '
        + ', '.join(f'{reason}: {n}' for reason, n in s['dropped'].items()) + ' |' for s in stages]
text = '\n'.join([
    '# '
    f'{out_dir}', '', f'source {source}, {len(files):,} files; tokenizer {tok.kind} of {tok.vocab_size:,}, '
                      f'hash {tok.hash}', '',
    '| stage | documents in | out | bytes in | out | dropped |', '|---|---|---|---|---|---|', *rows, '',
    '| side | documents | tokens | bytes | bytes per token |', '|---|---|---|---|---|',
    *(f'| {side} | {b.documents:,} | {b.tokens:,} | {b.bytes:,} | {b.bytes / b.tokens:.2f} '
      '|' for side, b in bins.items()), '',
    f'{report["malformed"]} malformed '
    'records', *(f'- {path}: {m["records"]}, first at {m["first"]}' for path, m in malformed.items()),
    ''])

meta_path = os.path.join(out_dir, 'meta.json')
if os.path.exists(meta_path):               # a folder without meta.json is no data: never a mixture of two runs
    os.remove(meta_path)
for b in bins.values():
    os.replace(f'{b.path}.tmp', b.path)
tok.save(os.path.join(out_dir, 'tokenizer.json'))
for name, content in (('report.md', text), ('report.json', json.dumps(report, indent=1)), ('meta.json', json.dumps(meta, indent=1))):
    with open(os.path.join(out_dir, name), 'w', encoding='utf-8', newline='\n') as f:
        f.write(content)

for side, b in bins.items():
    print(f'{b.path}: {b.tokens:,} tokens ({dtype}), {b.documents:,} documents, {b.bytes / b.tokens:.2f} '
          'bytes per token')
if report['malformed']:
    print(f'{report["malformed"]} records could not be read; {out_dir}/report.md says which')
print(f'{time.time() - start_time:.1f} s; next: python train.py --data_dir={out_dir}')
