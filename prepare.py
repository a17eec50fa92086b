"""
Point prepare.py at text and you get train.bin and val.bin: flat arrays of token ids for train.py.

    python clean.py && python prepare.py            # Python's own standard library, cleaned
    python prepare.py --source=data/mine --out_dir=data/mine_bins --vocab_size=32768
    python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare
    python train.py --data_dir=data/quickstart      # next

The input is a folder of clean.py, or any text files and .jsonl(.gz) files of {"text": ...} lines,
which are not cleaned. prepare.py writes train.bin, val.bin, tokenizer.json, report.md, meta.json,
and with several sources a val_NAME.bin for each. Documents are split by a hash of their text: the
split is stable across runs, and exact duplicates are in the same split. A single document, such as
Tiny Shakespeare, is cut: its first 90% are the training split. You should see 9.6 MB of clean
Python become 2.5 million tokens in a few seconds. This stage decides what is held out.

prepare.py needs tokenizer.py, files.py and configurator.py; several sources, gpt2, tables and
downloads also need extras/.
"""
import collections, contextlib, glob, hashlib, itertools, json, math, os, pathlib, shlex
from typing import Literal
from configurator import configure, require
from files import TEXTS, find_files, meta_in, open_results, publish, read, shown
import numpy as np
from tqdm import tqdm
from tokenizer import SPECIAL_TOKENS, Tokenizer

# --- settings -------------------------------------------------------------------------------------
source = 'data/clean'           # out_dir of clean.py; file, folder or glob of text; shakespeare
out_dir = 'data/quickstart'     # output folder
overwrite = False               # True: replace the data of another source in out_dir
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or path of a tokenizer.json
vocab_size = 4096               # tokens of bpe: 256 bytes + merges + 64 special tokens
val_fraction = 0.1              # fraction of the documents, or of a single one, for validation
# optional features: implemented in extras/ and imported only when switched on
write: Literal['bins', 'val'] = 'bins'  # val: no train.bin, if train.py streams the text
weights: dict | None = None     # weights of sources: {'web': 50, ...}; None = clean.py's weights
temperature = 1.0               # without weights, a source's weight is tokens ** (1 / temperature)
gpt2_dir: str | None = None     # folder with vocab.bpe and encoder.json; None = download
# minimum and maximum value; any other number must be at least 0
BOUNDS = {'vocab_size': (256 + len(SPECIAL_TOKENS), 1e6), 'val_fraction': (1e-9, 0.999),
          'temperature': (0.05, 1e6)}
FORMAT = 'nanoparrot-data-2'
RESULTS = r'(train|val|val_.+)\.bin|(meta|tokenizer)\.json|report\.md'


# --- documents ------------------------------------------------------------------------------------
def find_sources(source):
    """Return the sorted files of each source, {name: [path, ...]}, and clean.py's meta.json. If
    clean.py did not write the text, all of it is one source, and the metadata is {}."""
    clean_meta = meta_in(source)
    if clean_meta.get('format') == 'nanoparrot-text-1':
        files_of = {name: [] for name in clean_meta['sources']}
        for path in sorted(glob.glob(f'{glob.escape(source)}/shards/*.jsonl.gz')):
            # web-00012.jsonl.gz; if there is only one source, 00012.jsonl.gz
            name = os.path.basename(path).rpartition('-')[0] or [*files_of][0]
            files_of[name].append(path)
        return files_of, clean_meta
    require(source != 'data/clean' or os.path.exists(source), 'no text at data/clean; run python '
            'clean.py first, or set --source to a file, folder or glob of text or .jsonl')
    paths, skipped = find_files(source, TEXTS)
    print(f'skipped: {shown(skipped)}')
    return {source: paths}, {}


def documents_in(files_of, changes):
    """Yield (index of the source, text) for each document. Each call reads the files again, because
    they may not fit into memory. Count in changes, {change: bytes}, what read() changes in the
    texts, and print the first place of each change."""
    for i, paths in enumerate(files_of.values()):
        for path in paths:
            for document in read(path, longest=math.inf):
                path, error = document['path'], document['error']
                require(not error, f'{path}: {error}; clean.py skips such files')
                for name in sorted(document['changes'].keys() - changes.keys()):
                    print(f'{name}, first {path}')
                changes.update(document['changes'])
                if document['text'].strip():
                    yield i, document['text']


def text_id(meta):
    """Return an identifier of the text that meta describes: clean.py's hash, or else its path."""
    return (meta.get('cleaned') or {}).get('hash') or os.path.normpath(meta.get('source', ''))


def measure(documents):
    """Return three arrays (n,): each document's source index, hash and size in bytes."""
    def rows():
        for i, text in tqdm(documents, 'read', unit=' texts', disable=None):
            data = text.encode('utf-8', 'surrogatepass')
            yield i, int(hashlib.blake2b(data, digest_size=8).hexdigest(), 16), len(data)
    table = np.fromiter(rows(), 'u2, u8, i8')           # 18 bytes per document
    return [table[name] for name in table.dtype.names]


# --- split: training or validation, by a hash of the text -----------------------------------------
def validation_mask(hashes, val_fraction):
    """Return a mask of the validation documents, bool (n,): those with hash / 2^64 < val_fraction.
    Each split has at least one document, unless all documents are duplicates. With hashes 0.7 0.3
    0.9 0.4 and val_fraction=0.1, no hash is below 0.1, so validation is the lowest one, 0.3."""
    distinct = np.unique(hashes)                                                       # sorted
    n = np.clip(np.sum(distinct / 2 ** 64 < val_fraction), 1, len(distinct) - 1)
    return hashes <= distinct[n - 1]


# --- tokenizer and bins ---------------------------------------------------------------------------
PIECE = 4_000_000               # maximum number of characters per encode() call


def make_tokenizer(config, special_tokens=(), train_texts=(), all_texts=()):
    """Train or load the tokenizer of config['tokenizer']. bpe learns its merges only from training
    texts; char needs ids for the characters of all texts, including validation texts."""
    name = config['tokenizer']
    if name == 'bpe':
        tok = Tokenizer.train(train_texts, config['vocab_size'], special_tokens)
    elif name == 'char':
        tok = Tokenizer.char(all_texts, special_tokens)
    elif name == 'byte':
        tok = Tokenizer.byte(special_tokens)
    elif name == 'gpt2':
        from extras.training import tokenizer_report
        tok = tokenizer_report.tokenizer_of_gpt2(config['gpt2_dir'])
    else:
        tok = Tokenizer.load(name)
    print(f'tokenizer: {name}, {tok.vocab_size:,} tokens, hash {tok.hash}')
    return tok


def write_bins(folder, texts, masks, tok, dtype, separator_ids=()):
    """Tokenize texts, [(index of the document, text), ...], and write the ids to the bins, with
    separator_ids after each document. masks: {name of a bin: mask of its documents, bool (n,)}.
    Return the tokens per document, (n,), and the hash of each bin. `x = 1` and `y = 2` become:
        id        120     273     32      49      4032             121     ...     uint16, two bytes
        token     'x'     ' ='    ' '     '1'     <|endoftext|>    'y'     ..."""
    n_tokens = np.zeros(len(masks['val']), int)
    digests = {name: hashlib.sha256() for name in masks}
    pieces = ((i, text[begin:begin + PIECE], begin + PIECE >= len(text))
              for i, text in texts for begin in range(0, len(text), PIECE))
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / f'{name}.bin', 'wb')) for name in masks}
        while batch := [*itertools.islice(pieces, 128)]:     # encode_batch uses all cores
            ids_of = tok.encode_batch([piece for _, piece, _ in batch])
            for ids, (i, _, is_last) in zip(ids_of, batch):
                data = np.array([*ids, *separator_ids] if is_last else ids, dtype)
                n_tokens[i] += len(data)
                for name, mask in masks.items():
                    if mask[i]:
                        files[name].write(data)
                        digests[name].update(data)
    return n_tokens, {name: digest.hexdigest() for name, digest in digests.items()}


# --- the job --------------------------------------------------------------------------------------
config = configure(globals(), BOUNDS)       # config files and flags override the settings
require(tokenizer in ('bpe', 'byte', 'char', 'gpt2') or os.path.isfile(tokenizer),
        f'{tokenizer=} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
out_dir = pathlib.Path(os.path.realpath(out_dir))
files_of, clean_meta = find_sources(source)
sources = {name: {'path': name, 'files': len(paths), **clean_meta.get('sources', {}).get(name, {})}
           for name, paths in files_of.items()}
if len(sources) > 1 or weights or temperature != 1:
    from extras.training import mixture
    mixture.check(sources, weights, temperature, write)
cleaned = {'hash': clean_meta['sha256'], 'licenses': clean_meta.get('licenses'),
           'decontaminated': clean_meta.get('decontaminated')} if clean_meta else None
meta = {'format': FORMAT, 'source': source, 'cleaned': cleaned}
# train.py would also read the validation part of a single document, and it reads no other files
require(write == 'bins' or sum(each.get('documents', 0) for each in sources.values()) > 1,
        '--write=val needs a folder of clean.py with at least two documents, whose shards train.py '
        f'reads; run python clean.py --source={shlex.quote(source)} first, or use --write=bins')
# load an existing tokenizer first, so that a missing file ends the run before the work begins
tok = None if tokenizer in ('bpe', 'byte', 'char') else make_tokenizer(config)
work, lock = open_results(out_dir, FORMAT, RESULTS,
                          lambda old: text_id(old) == text_id(meta), overwrite)
new = work / 'new'

# 1. read
changes = collections.Counter()
documents = lambda: documents_in(files_of, changes)     # each call reads the files again
source_of, hashes, n_bytes = measure(documents())                       # (n documents,) each
require(len(hashes), f'{source} has no text')
print(f'changed bytes: {shown(changes)}')       # before the files are read again

# 2. split
separator, held_out_to = ['<|endoftext|>'], None        # held_out_to: highest validation hash
if len(hashes) > 1:
    in_val = validation_mask(hashes, val_fraction)
    held_out_to = int(hashes[in_val].max())
else:       # cut a single document: no separator between its training and its validation part
    _, text = next(documents())
    cut = max(1, int(len(text) * (1 - val_fraction)))
    documents = lambda: [(0, text[:cut]), (0, text[cut:])]
    source_of, hashes, n_bytes = measure(documents())
    separator, in_val = [], np.array([False, True])
masks = {'train': ~in_val, 'val': in_val}
if len(sources) > 1:
    masks |= {f'val_{name}': in_val & (source_of == i) for i, name in enumerate(sources)}
train_masks = {name: ~in_val & (source_of == i) for i, name in enumerate(sources)}
for name, mask in train_masks.items():
    require(mask.any(), f'all documents of {name} are in the validation split; add text')
texts = lambda mask: itertools.compress((text for _, text in documents()), mask)

# 3. tokenizer, trained on a sample of the training texts: about 1 GB, and at least one text
lower_bits = hashes % 2 ** 32   # random, but independent of the split, which uses the upper bits
threshold = max(lower_bits[~in_val].min(), 2 ** 32 * 1e9 / n_bytes[~in_val].sum())
# a single document has no separator, so byte and char need no special tokens
tok = tok or make_tokenizer(config, SPECIAL_TOKENS if separator or tokenizer == 'bpe' else (),
                            texts(~in_val & (lower_bits <= threshold)), texts(in_val | ~in_val))
require({*separator} <= {*tok.special}, f'{tokenizer} has no <|endoftext|> to separate documents; '
        'use another tokenizer, such as --tokenizer=bpe')

# 4. bins
bins = {name: mask for name, mask in masks.items() if name != 'train' or write == 'bins'}
written = in_val | (write == 'bins')
numbered_texts = tqdm(zip(np.flatnonzero(written), texts(written)), 'tokenize', int(written.sum()),
                      unit=' texts', disable=None)
dtype = 'uint16' if tok.vocab_size <= 2 ** 16 else 'uint32'
n_tokens, sha256 = write_bins(new, numbered_texts, bins, tok, dtype,
                              [tok.special[name] for name in separator])
if write == 'val':          # estimate the number of training tokens by val's tokens per byte
    n_tokens[~in_val] = np.round(n_bytes[~in_val] * (n_tokens.sum() / n_bytes[in_val].sum()))
    print('the numbers of training tokens are estimates from the tokens per byte of val.bin')
tok.save(new / 'tokenizer.json')

# 5. report
total = lambda mask: {'documents': int(mask.sum()), 'tokens': int(n_tokens[mask].sum()),
                      'bytes': int(n_bytes[mask].sum())}
totals = {name: total(mask) for name, mask in masks.items()}
for name, mask in train_masks.items():
    sources[name] |= total(mask)
if len(sources) > 1:
    mixture.add_passes(sources, weights, temperature)
lines = [f'- {name}: {shown(values)}' for name, values in totals.items()]
lines += [f'- {name}, training split: {shown(values)}' for name, values in sources.items()]
lines += [f'- {n_bytes[in_val].sum() / n_bytes.sum():.1%} of the bytes are held out; if that is '
          f'far from {val_fraction:.0%}, split long documents, because they are not cut']
print(*lines, sep='\n')
# fsencode, because a file name in a report may be invalid UTF-8
(new / 'report.md').write_bytes(os.fsencode('\n'.join([f'# {out_dir}', '', *lines, ''])))
meta |= {'dtype': dtype, 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash,
         'sha256': sha256, 'sources': sources, 'held_out_to': held_out_to, 'write': write}
for unit in 'documents', 'tokens', 'bytes':
    meta[unit] = {split: totals[split][unit] for split in ('train', 'val')}
(new / 'meta.json').write_text(json.dumps(meta, indent=1))
publish(out_dir, RESULTS)
streaming = f' --streaming={shlex.quote(f"{source}/shards")}'
print(f'next: python train.py --data_dir={shlex.quote(os.path.relpath(out_dir))}'
      f'{streaming if write == "val" else ""}')
if not clean_meta:
    print('this text is not cleaned of duplicates, personal data and markup; run python clean.py '
          f'--source={shlex.quote(source)} first')
