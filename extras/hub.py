"""
Downloads: Tiny Shakespeare, CodeParrot or a data set of Hugging Face, all of it or a part.

    python prepare.py --source=shakespeare --tokenizer=char
    python prepare.py --source=hf:OWNER/NAME                        # each file of texts or records
    python prepare.py --source=hf:OWNER/NAME/sub/folder --max_files=2
    python prepare.py --source='hf:OWNER/NAME@REVISION/data/train-*.parquet' --keep_downloads=False

    fetch('https://host/a.txt', sha256, 'data/raw/a.txt')   # its path, when all of it is there

A transfer that breaks off is continued. A file gets its name only when its checksum is right. The
environment variable HF_ENDPOINT names another hub. HF_TOKEN opens a data set whose terms you have
accepted; it goes to the hub's own address, to nobody else, and into no file.

A file on a hub is named by a text that has all that fetches it, 'hf:URL HASH PATH'. So it can wait
until the process that reads it needs it.
"""
import fnmatch, hashlib, os, pathlib, re, urllib.parse
import requests, urllib3
from configurator import Mistake, require

SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/'
               'input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
# what prepare.py reads of a data set, and what only describes one
RECORDS = re.compile(r'\.(jsonl|ndjson|jsonlines|json|parquet|csv|tsv|txt)(\.(gz|zst|bz2|xz))?$',
                     re.I)
ABOUT = re.compile(r'(^|/)(dataset_(infos?|dict)|state|config|requirements)\.(json|txt)$')
# a path that a server names to write elsewhere than into its folder
UNSAFE = re.compile(r'^/|[\\:\0\n]|(^|/)\.\.(/|$)')
# a busy server is asked again, later and later, or when its Retry-After says
RETRY = urllib3.Retry(8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
MOST_PAGES = 1000               # of a listing; one that goes on and on is no listing


# --- what prepare.py asks for ---------------------------------------------------------------------
def find_files(source, folder):
    """Return the files of a source, sorted: paths, or 'hf:URL HASH PATH' of those that are in
    hf:OWNER/NAME[@REVISION][/FOLDER or glob]."""
    if source == 'shakespeare':
        return [fetch(*SHAKESPEARE, os.path.join(folder, 'shakespeare.txt'))]
    name = 'codeparrot/codeparrot-clean' if source == 'codeparrot' else source[3:]
    match = re.fullmatch(r'([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/(.*))?', name)
    require(match, f'hf:{name} must look like hf:OWNER/NAME, with @REVISION or /FOLDER behind it')
    dataset, revision, part = match[1], match[2] or 'main', (match[3] or '').strip('/')
    top = part          # The hub lists a folder: this one, or the one in which a glob begins.
    while re.search(r'[*?[]|\.\w+$', top):
        top = top.rpartition('/')[0]
    place = os.path.join(folder, dataset.replace('/', '--') + (f'@{match[2]}' if match[2] else ''))
    url = f'{hub()}/api/datasets/{dataset}/tree/{revision}/{top}'.rstrip('/') + '?recursive=true'
    try:
        listed = dict(listing(url))
    except requests.RequestException as error:
        status = getattr(error.response, 'status_code', type(error).__name__)
        raise Mistake(f"can't list {url} ({status}); without network, put the files of {dataset} "
                      f'into a folder, or take those that are in {place} already, and use '
                      '--source=FOLDER') from None
    files = []
    for path, digest in sorted(listed.items()):
        is_asked = part in ('', path) or path.startswith(f'{part}/')
        is_asked |= fnmatch.fnmatchcase(path, part)
        if is_asked and RECORDS.search(path) and not (ABOUT.search(path) or UNSAFE.search(path)):
            files.append(f'hf:{hub()}/datasets/{dataset}/resolve/{revision}/'
                         f'{urllib.parse.quote(path)} {digest} '
                         f'{os.path.join(place, *path.split("/"))}')
    require(files, f'{hub()}/datasets/{dataset} has no files of records at {part or "its top"!r}, '
            f'such as .parquet or .jsonl.gz, among its {len(listed)} files')
    return files


def fetched(path):
    """Return where the file 'hf:URL HASH PATH' is, after it was fetched."""
    url, digest, file = path[3:].split(' ', 2)
    try:
        return fetch(url, digest, file)
    except OSError as error:            # or the file would be left out, as damaged
        raise Mistake(f'{file} can\'t be written: {error}') from None


def delete(path):
    """Delete what was fetched of a file on a hub. A file of yours stays."""
    if path.startswith('hf:'):
        pathlib.Path(path.split(' ', 2)[2]).unlink(missing_ok=True)


# --- downloads ------------------------------------------------------------------------------------
def hub():
    return os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')


def session():
    """Return a connection that is patient. Close it before a process forks, because two processes
    would share it."""
    new = requests.Session()
    for scheme in ('https://', 'http://'):
        new.mount(scheme, requests.adapters.HTTPAdapter(max_retries=RETRY))
    return new


def get(s, url, headers=None, **more):
    """Ask a server, with the token if it is the hub. (requests drops it if the hub sends us on to
    another host.)"""
    token = os.environ.get('HF_TOKEN', '').strip()
    secret = {'Authorization': f'Bearer {token}'} if token and url.startswith(f'{hub()}/') else {}
    response = s.get(url, headers={**(headers or {}), **secret}, timeout=30, **more)
    if response.status_code in (401, 403):
        what = 'the HF_TOKEN that is set does not open it' if token else (
            'if you may read it, run: export HF_TOKEN=hf_... (from the settings of your account)')
        response.close()
        raise Mistake(f'{url} is private, does not exist, or its terms must be accepted first, on '
                      f'its page; {what}')
    if response.status_code != 416:     # what was fetched before is all of a file
        response.raise_for_status()
    return response


def listing(url):
    """Yield the path and the hash of each file in a list, which a hub sends page by page."""
    with session() as s:
        for _ in range(MOST_PAGES):
            page = get(s, url)
            entries = page.json()
            require(isinstance(entries, list) and all(
                isinstance(entry, dict) and isinstance(entry.get('path'), str)
                for entry in entries), f'{url} sent no list of files; is HF_ENDPOINT a hub?')
            for entry in entries:
                large = entry.get('lfs') if isinstance(entry.get('lfs'), dict) else entry
                digest = str(large.get('oid'))
                is_file = entry.get('type') != 'directory'
                if is_file and re.fullmatch('[0-9a-f]{40}|[0-9a-f]{64}', digest):
                    yield entry['path'], digest
            url = page.links.get('next', {}).get('url')
            if not url:
                return
    raise Mistake(f'{url} is page {MOST_PAGES} of a list, and there is no end')


def fetch(url, digest, path):
    """Fetch a file, unless it is there, and return its path. digest: see hash_of()."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with session() as s, open(f'{path}.part', 'ab') as f:
        before = -1
        while f.tell() > before:        # try again as long as more comes
            before = f.tell()
            headers = {'Range': f'bytes={before}-', 'Accept-Encoding': 'identity'}
            try:
                with get(s, url, headers=headers, stream=True) as r:
                    if r.status_code == 416:            # there is nothing after what we have
                        break
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

    found = hash_of(f'{path}.part', digest)
    if found != digest:
        os.remove(f'{path}.part')
        raise Mistake(f'{url} has the checksum {found[:16]}..., expected {digest[:16]}...; run the '
                      'same command again')
    os.replace(f'{path}.part', path)
    return path


def hash_of(path, like):
    """Return the hash of a file of the same kind as another: SHA-256, or the 40 digits that git
    gives to small files, the SHA-1 of "blob SIZE", a zero byte and the content."""
    digest = hashlib.sha256()           # hashlib.file_digest would need Python 3.11
    if len(like) == 40:
        digest = hashlib.sha1(f'blob {os.path.getsize(path)}\0'.encode())
    with open(path, 'rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
