"""
Data: text from somewhere -> train.bin and val.bin, flat arrays of token ids that train.py maps into memory.

    python prepare.py                               # Python's own standard library, without network
    python prepare.py --source=FOLDER --out_dir=data/mine --vocab_size=32768
    python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char

A source is a file, a folder or a glob. Of .py .txt .md, a file is a document; of .jsonl .json, a record is
one, its text under `text` or `content`; any of them may be gzipped. Everything streams: memory does not grow
with the corpus. The source is read twice, to train the tokenizer on the training documents, then to encode.

Writes under out_dir: train.bin and val.bin (uint16, or uint32 above 65,536 ids; a document ends with
<|endoftext|>), tokenizer.json, meta.json, and report.md / report.json: what came in, what was dropped and
why, what is on the disk.

You should see about 12 MB of Python become 3.3 million tokens in a few seconds.

The decision made here is the corpus: a model can only know what these files hold, and it shares their
defects.
"""
import atexit, glob, gzip, hashlib, io, itertools, json, os, sysconfig, time, zlib
import numpy as np
import requests
from tqdm import tqdm
from configurator import configure
from tokenizer import SPECIAL_TOKENS, Tokenizer, to_utf8

# --- settings -----------------------------------------------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, or a file, folder or glob (.py .txt .md .jsonl .json)
out_dir = 'data/quickstart'     # train.bin, val.bin, tokenizer.json, meta.json, report.* go here
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or the path of a tokenizer.json
vocab_size = 4096               # for bpe: 256 bytes + merges + 64 special tokens
val_fraction = 0.1              # held out: of the documents, or of the characters if there is but one
max_docs = 0                    # stop after so many documents; 0 = all
gpt2_dir: str | None = None     # has GPT-2's vocab.bpe and encoder.json; None = tiktoken's cache or network
download_dir = 'data/raw'       # downloads are kept here
config = configure(globals())

if not 0 < val_fraction < 1:
    raise ValueError(f'val_fraction={val_fraction} must be between 0 and 1, for instance 0.1')
if tokenizer not in ('bpe', 'byte', 'char', 'gpt2') and not tokenizer.endswith('.json'):
    raise ValueError(f'tokenizer={tokenizer!r} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
start_time = time.time()
TEXT, RECORDS = ('.py', '.txt', '.md'), ('.jsonl', '.json')     # each also with .gz
PIECE = 16_000_000              # characters held in memory at once
DOWNLOADS = {                   # name -> address, sha256
    'shakespeare': ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/'
                    'input.txt',
                    '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')}

# --- sources: names and paths -> documents ------------------------------------------------------------------


def download(name):
    """Fetch a file of DOWNLOADS into download_dir, unless it is there. A transfer that broke off is
    continued; the file gets its name only when its checksum is right."""
    url, sha256 = DOWNLOADS[name]
    path = os.path.join(download_dir, f'{name}.txt')
    if os.path.exists(path):
        return path
    os.makedirs(download_dir, exist_ok=True)
    part = f'{path}.part'
    have = os.path.getsize(part) if os.path.exists(part) else 0
    try:
        with requests.get(url, headers={'Range': f'bytes={have}-'}, stream=True, timeout=30) as r:
            if r.status_code != 416:                # 416: there is nothing after `have`
                r.raise_for_status()
                with open(part, 'ab' if r.status_code == 206 else 'wb') as f:
                    for chunk in r.iter_content(1 << 16):
                        f.write(chunk)
    except requests.RequestException as e:
        raise ValueError(f'cannot download {url} ({type(e).__name__}); fetch it by other means, put it at '
                         f'{path} and run the same command again') from e
    digest = hashlib.sha256()
    with open(part, 'rb') as f:
        for chunk in iter(lambda: f.read(1 << 20), b''):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != sha256:
        os.remove(part)
        raise ValueError(f'{url} has the checksum {found[:16]}..., expected {sha256[:16]}...; run the same '
                         'command again')
    os.replace(part, path)
    return path


def is_kind(path, endings):
    return path.removesuffix('.gz').endswith(endings)


def find_files(source):
    """The files of a source, sorted, so that one folder gives the same bins on every machine."""
    if source in DOWNLOADS:
        return [download(source)]
    if os.path.isfile(source):
        return [source]
    if source == 'stdlib':      # 12 MB of Python in every interpreter; with its tests it would be 30 MB
        root = sysconfig.get_paths()['stdlib']
        skip = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
        found = [path for path in glob.iglob(os.path.join(root, '**', '*.py'), recursive=True)
                 if not skip & set(os.path.relpath(path, root).split(os.sep))]
    else:
        pattern = os.path.join(source, '**') if os.path.isdir(source) else source
        found = [path for path in glob.iglob(pattern, recursive=True)
                 if os.path.isfile(path) and is_kind(path, TEXT + RECORDS)]
    if not found:
        raise ValueError(f'source={source!r} is neither stdlib nor shakespeare, nor a file, folder or glob '
                         f'with {" ".join(TEXT + RECORDS)} (.gz) files')
    return sorted(found)


def open_bytes(path):
    """A file, decompressed."""
    return (gzip.open if path.endswith('.gz') else open)(path, 'rb')


def open_text(path):
    """A file as text, its line ends untouched."""
    return io.TextIOWrapper(open_bytes(path), encoding='utf-8', newline='')


def read_documents(files):
    """Yield the text of each document. A file or record that cannot be read is counted and passed over."""
    def reject(path, line, why):
        malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})['records'] += 1

    for path in files:
        line = 0
        try:
            with open_bytes(path) as f:
                if not is_kind(path, RECORDS):
                    yield f.read().decode()
                    continue
                one_list = is_kind(path, '.json') and f.read(1) == b'['     # else a record a line
                f.seek(0)
                for line, record in enumerate(json.load(f) if one_list else f, 1):
                    if not one_list:
                        try:
                            record = json.loads(record.decode())
                        except (ValueError, RecursionError) as e:   # not UTF-8, not JSON, nested too deep
                            if record.strip():
                                reject(path, line, f'{type(e).__name__}: {e}')
                            continue
                    if isinstance(record, dict):
                        record = record.get('text', record.get('content'))
                    if isinstance(record, str):
                        yield record
                    else:
                        reject(path, line, 'no text or content in it')
        except (ValueError, EOFError, OSError, zlib.error, RecursionError) as e:    # cut off, no UTF-8, ...
            reject(path, line + 1, f'{type(e).__name__}: {e}')


def pieces(path, start, end):
    """Characters start..end of a text file, at most PIECE at a time."""
    with open_text(path) as f:
        for position in range(0, end, PIECE):
            block = f.read(PIECE)
            if position + len(block) > start:
                yield block[max(start - position, 0):end - position]


def is_validation(document):
    """Decided by the document alone, so that copies of it are on one side, on every machine, in every run."""
    digest = hashlib.blake2b(to_utf8(document), digest_size=8).digest()
    return int.from_bytes(digest, 'big') < val_fraction * 2 ** 64


# --- the funnel: documents -> documents ---------------------------------------------------------------------
# A stage is a generator that counts what it passes on. The cleaning stages (normalise, filter, deduplicate,
# PII, decontaminate) have their place after `read`, in this order.


def stage(name, documents, reason_to_drop):
    """Pass on the documents for which reason_to_drop(document) is None; add a row to the report."""
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
    """Every document that survives. Each of the two passes over the source counts anew."""
    stages.clear()
    malformed.clear()
    survivors = stage('read', read_documents(files), lambda text: None if text.strip() else 'empty')
    yield from itertools.islice(survivors, max_docs or None)


os.makedirs(out_dir, exist_ok=True)
files, stages, malformed = find_files(source), [], {}
single = len(files) == 1 and not is_kind(files[0], RECORDS)
if single:      # one document: the last part of it is held out, and nothing separates documents
    try:
        with open_text(files[0]) as f:
            n_characters = sum(len(block) for block in iter(lambda: f.read(PIECE), ''))
    except (ValueError, EOFError, zlib.error) as e:
        raise ValueError(f'{files[0]} cannot be read as UTF-8 text: {e}') from e
    split = int(n_characters * (1 - val_fraction))
    train_texts, all_texts = pieces(files[0], 0, split), pieces(files[0], 0, n_characters)
    sides = (('train', pieces(files[0], 0, split)), ('val', pieces(files[0], split, n_characters)))
else:
    train_texts, all_texts = (d for d in documents() if not is_validation(d)), documents()
    sides = (('val' if is_validation(d) else 'train', [d]) for d in documents())

# --- the tokenizer ------------------------------------------------------------------------------------------


def progress(iterable, what):
    return tqdm(iterable, desc=what, unit=' docs', disable=None)        # None: only on a terminal


special_tokens = () if single and tokenizer in ('byte', 'char') else SPECIAL_TOKENS
if tokenizer == 'bpe':
    tok = Tokenizer.train(progress(train_texts, 'reading'), vocab_size, special_tokens)
elif tokenizer == 'char':           # of all texts: a character that only validation holds must have an id too
    tok = Tokenizer.char(progress(all_texts, 'reading'), special_tokens)
elif tokenizer == 'byte':
    tok = Tokenizer.byte(special_tokens)
else:
    tok = Tokenizer.gpt2(gpt2_dir) if tokenizer == 'gpt2' else Tokenizer.load(tokenizer)
separator = [] if single else [tok.special['<|endoftext|>']]
dtype = 'uint16' if tok.vocab_size <= 2 ** 16 else 'uint32'
print(f'tokenizer: {tok.kind}, {tok.vocab_size:,} tokens, hash {tok.hash}')

# --- encode -------------------------------------------------------------------------------------------------


class Bin:
    """A file of token ids, written under a temporary name."""

    def __init__(self, name):
        self.path, self.temporary = os.path.join(out_dir, name), os.path.join(out_dir, f'{name}.tmp')
        self.file, self.sha256 = open(self.temporary, 'wb'), hashlib.sha256()
        self.waiting, self.waiting_characters = [], 0
        self.documents = self.tokens = self.bytes = 0
        atexit.register(lambda: os.path.exists(self.temporary) and os.remove(self.temporary))

    def add(self, text):
        self.waiting.append(text)
        self.waiting_characters += len(text)
        if self.waiting_characters > PIECE // 2:
            self.flush()

    def flush(self):
        for text, ids in zip(self.waiting, tok.encode_batch(self.waiting)):
            data = np.array(ids + separator, dtype=dtype)
            self.file.write(data)
            self.sha256.update(data)
            self.tokens += len(data)
            self.bytes += len(to_utf8(text))
        self.waiting, self.waiting_characters = [], 0


bins = {'train': Bin('train.bin'), 'val': Bin('val.bin')}
for side, texts in progress(sides, 'encoding'):
    bins[side].documents += 1
    for text in texts:
        bins[side].add(text)
for b in bins.values():
    b.flush()
    b.file.close()
if not all(b.tokens for b in bins.values()):
    raise ValueError(f'{source} gives {bins["train"].documents} training and {bins["val"].documents} '
                     f'validation documents with text ({len(malformed)} files unreadable); both need some: '
                     'give more documents or another --val_fraction')
for b in bins.values():
    found, expected = os.path.getsize(b.temporary), b.tokens * np.dtype(dtype).itemsize
    if found != expected:
        raise OSError(f'{b.temporary} has {found:,} bytes, {expected:,} were written: is the disk full?')

# --- the report ---------------------------------------------------------------------------------------------
if single:
    size = sum(b.bytes for b in bins.values())
    stages.append({'name': 'read', 'docs_in': 1, 'docs_out': 1, 'bytes_in': size, 'bytes_out': size,
                   'dropped': {}})
report = {'stages': stages, 'malformed': sum(m['records'] for m in malformed.values()),
          'malformed_files': malformed,
          'documents': {side: b.documents for side, b in bins.items()},
          'tokens': {side: b.tokens for side, b in bins.items()},
          'bytes': {side: b.bytes for side, b in bins.items()},
          'sources': {source: {'files': len(files), 'weight': 1.0}}}
meta = {'format': 'nanoparrot-data-1', 'dtype': dtype, 'vocab_size': tok.vocab_size,
        'tokenizer_hash': tok.hash, 'separators': not single,
        **{k: report[k] for k in ('documents', 'tokens', 'bytes', 'sources')},
        'sha256': {side: b.sha256.hexdigest() for side, b in bins.items()}, 'config': config}
lines = [f'# {out_dir}', '',
         f'source {source}, {len(files):,} files; tokenizer {tok.kind} of {tok.vocab_size:,}, '
         f'hash {tok.hash}', '',
         '| stage | documents in | out | bytes in | out | dropped |', '|---|---|---|---|---|---|']
for s in stages:
    dropped = ', '.join(f'{reason}: {n:,}' for reason, n in s['dropped'].items())
    lines.append(f'| {s["name"]} | {s["docs_in"]:,} | {s["docs_out"]:,} | {s["bytes_in"]:,} | '
                 f'{s["bytes_out"]:,} | {dropped} |')
lines += ['', '| side | documents | tokens | bytes | bytes per token |', '|---|---|---|---|---|']
for side, b in bins.items():
    lines.append(f'| {side} | {b.documents:,} | {b.tokens:,} | {b.bytes:,} | {b.bytes / b.tokens:.2f} |')
lines += ['', f'{report["malformed"]} records could not be read']
lines += [f'- {path}: {m["records"]}, the first at {m["first"]}' for path, m in malformed.items()]

# --- the names; meta.json last, because a folder without it is no data: two runs never mix ------------------
meta_path = os.path.join(out_dir, 'meta.json')
if os.path.exists(meta_path):
    os.remove(meta_path)
for b in bins.values():
    os.replace(b.temporary, b.path)
tok.save(os.path.join(out_dir, 'tokenizer.json'))
for name, content in (('report.md', '\n'.join(lines) + '\n'), ('report.json', json.dumps(report, indent=1)),
                      ('meta.json', json.dumps(meta, indent=1))):
    with open(os.path.join(out_dir, f'{name}.tmp'), 'w', encoding='utf-8', newline='\n') as f:
        f.write(content)
    os.replace(os.path.join(out_dir, f'{name}.tmp'), os.path.join(out_dir, name))

for b in bins.values():
    print(f'{b.path}: {b.tokens:,} tokens ({dtype}), {b.documents:,} documents, {b.bytes / b.tokens:.2f} '
          'bytes per token')
if malformed:
    print(f'{report["malformed"]} records could not be read; {out_dir}/report.md says which')
print(f'{time.time() - start_time:.1f} s; next: python train.py config/quickstart.py --data_dir={out_dir}')
