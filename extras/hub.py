"""
Downloads: Tiny Shakespeare, CodeParrot or another data set of Hugging Face, fetched once.

    python prepare.py --source=shakespeare --tokenizer=char
    python prepare.py --source=hf:OWNER/NAME --download_dir=data/raw --keep_downloads=False

    fetch('https://host/a.txt', sha256, 'data/raw/a.txt')   # its path, when all of it is there

A transfer that breaks off is continued. A file gets its name only when its checksum is right. The
environment variable HF_ENDPOINT names another hub.

A file on a hub is named by a text that has all that fetches it, 'hf:URL SHA256 PATH'. So it can
wait until the process that reads it needs it.
"""
import gzip, hashlib, importlib, io, json, os, pathlib, re, tempfile
import requests, urllib3
from configurator import Mistake, require

SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/'
               'input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
# what prepare.py reads of a data set
RECORDS = re.compile(r'\.(jsonl|ndjson|jsonlines|json|parquet)(\.gz|\.zst)?$', re.I)
# a busy server is asked again, later and later, or when its Retry-After says
RETRY = urllib3.Retry(8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))


# --- what prepare.py asks for ---------------------------------------------------------------------
def find_files(source, folder):
    """Return the files of a source, sorted: paths, or 'hf:URL SHA256 PATH'."""
    if source == 'shakespeare':
        return [fetch(*SHAKESPEARE, os.path.join(folder, 'shakespeare.txt'))]
    return dataset_files('codeparrot/codeparrot-clean' if source == 'codeparrot' else source[3:],
                         folder)


def open_file(path):
    """Open a file to read its bytes, unpacked, after it was fetched if it is on a hub."""
    if path.startswith('hf:'):
        path = fetch(*path[3:].split(' ', 2))
    if path.endswith('.parquet'):
        return rows_of_parquet(path)
    if path.endswith('.zst'):
        return io.BufferedReader(Unpacked(path))
    return (gzip.open if path.lower().endswith('.gz') else open)(path, 'rb')


def delete(path):
    """Delete what was fetched of a file on a hub. A file of yours stays."""
    if path.startswith('hf:'):
        pathlib.Path(path.split(' ', 2)[2]).unlink(missing_ok=True)


# --- downloads ------------------------------------------------------------------------------------
def session():
    """Return a connection that is patient. Close it before a process forks, because two processes
    would share it."""
    new = requests.Session()
    for scheme in ('https://', 'http://'):
        new.mount(scheme, requests.adapters.HTTPAdapter(max_retries=RETRY))
    return new


def dataset_files(dataset, folder):
    """Return the files of records in a data set of Hugging Face, 'hf:URL SHA256 PATH', by path."""
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')
    folder = os.path.join(folder, dataset.replace('/', '--'))
    url = f'{hub}/api/datasets/{dataset}/tree/main?recursive=true'
    files = {}
    try:
        with session() as s:
            while url:                  # page by page
                page = s.get(url, timeout=30)
                page.raise_for_status()
                for entry in page.json():
                    name = entry['path']
                    if entry.get('lfs') and '..' not in name and RECORDS.search(name):
                        path = os.path.join(folder, *name.split('/'))
                        files[path] = (f'hf:{hub}/datasets/{dataset}/resolve/main/{name} '
                                       f'{entry["lfs"]["oid"]} {path}')
                url = page.links.get('next', {}).get('url')
    except requests.RequestException as error:
        raise Mistake(f"can't list {url} ({type(error).__name__}); without network, put the "
                      f'.json.gz files of {dataset} into a folder, or take those that are in '
                      f'{folder} already, and use --source=FOLDER') from None
    require(files, f'{hub}/datasets/{dataset} has no files of records, such as .jsonl.gz')
    return [files[path] for path in sorted(files)]


def fetch(url, sha256, path):
    """Fetch a file, unless it is there, and return its path."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with session() as s, open(f'{path}.part', 'ab') as f:
        before = -1
        while f.tell() > before:        # try again as long as more comes
            before = f.tell()
            headers = {'Range': f'bytes={before}-', 'Accept-Encoding': 'identity'}
            try:
                with s.get(url, headers=headers, stream=True, timeout=30) as r:
                    if r.status_code == 416:            # there is nothing after what we have
                        break
                    r.raise_for_status()
                    if r.status_code != 206:            # a server without ranges begins anew
                        f.truncate(0)
                    for chunk in r.iter_content(1 << 16):
                        f.write(chunk)
                break
            except requests.RequestException as error:
                problem = type(error).__name__
        else:
            raise Mistake(f"can't download {url} ({problem}); run the same command again, or put "
                          f'the file at {path}')

    found = sha256_of(f'{path}.part')
    if found != sha256:
        os.remove(f'{path}.part')
        raise Mistake(f'{url} has the checksum {found[:16]}..., expected {sha256[:16]}...; run the '
                      'same command again')
    os.replace(f'{path}.part', path)
    return path


def sha256_of(path):
    digest = hashlib.sha256()           # hashlib.file_digest would need Python 3.11
    with open(path, 'rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- packed formats -------------------------------------------------------------------------------
def need(package, path, install=''):
    """Import a package that only such files need."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise Mistake(f'{path} needs a package: pip install {install or package}') from None


class Unpacked(io.RawIOBase):
    """The bytes of a .zst file, unpacked. zstandard's own reader ends without a word where a file
    is cut off."""

    def __init__(self, path):
        self.zstandard = need('zstandard', path)
        self.file = open(path, 'rb')
        self.frame = None               # what unpacks the current frame of the file
        self.waiting = b''              # bytes that are unpacked and not yet read

    def readable(self):
        return True

    def close(self):
        self.file.close()
        super().close()

    def readinto(self, buffer):
        while not self.waiting:
            packed = self.frame.unused_data if self.frame and self.frame.eof else b''
            packed = packed or self.file.read(1 << 14)
            if not packed:
                if self.frame and not self.frame.eof:
                    raise EOFError('the file is cut off')
                return 0
            if not self.frame or self.frame.eof:
                self.frame = self.zstandard.ZstdDecompressor().decompressobj()
            try:
                self.waiting = memoryview(self.frame.decompress(packed))
            except self.zstandard.ZstdError as error:
                raise ValueError(error) from None
        n = min(len(buffer), len(self.waiting))
        buffer[:n], self.waiting = self.waiting[:n], self.waiting[n:]
        return n


def rows_of_parquet(path):
    """Return the rows of a .parquet file as lines of JSON, in a file without a name."""
    parquet = need('pyarrow.parquet', path, 'pyarrow').ParquetFile(path)
    f = tempfile.TemporaryFile()
    for batch in parquet.iter_batches(1000):
        f.writelines(json.dumps(row, default=str).encode() + b'\n' for row in batch.to_pylist())
    f.seek(0)
    return f
