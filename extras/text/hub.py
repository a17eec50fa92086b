"""
Downloads for files.py: Tiny Shakespeare, CodeParrot, or a data set of the Hugging Face Hub, or a
part of one.

    python clean.py --source=hf:OWNER/NAME                          # all text and record files
    python clean.py --source='hf:OWNER/NAME@REVISION/data/train-*.parquet' --max_files=2

    fetch('https://host/a.txt', sha256, 'data/raw/a.txt')   # download it; return its path

Interrupted downloads are resumed. A file gets its final name after its checksum is verified. The
environment variable HF_ENDPOINT selects another hub. HF_TOKEN is for data sets whose terms you have
accepted; the token is sent only to the hub's own host and never stored.
"""
import fnmatch, hashlib, os, re, urllib.parse
import requests, urllib3
from configurator import UserError, require
from files import LINES, TABLES, ends_with

SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/'
               'input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
# metadata files of a data set
ABOUT = re.compile(r'(^|/)(dataset_(infos?|dict)|state|config|requirements)\.(json|txt)$')
# path traversal: a path from a server that leaves the data set's folder
UNSAFE = re.compile(r'^/|[\\:\0\n]|(^|/)\.\.(/|$)')
# retry a busy server with exponential backoff, or after its Retry-After header
RETRY = urllib3.Retry(8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))


def find_files(source, folder):
    """Return fetch()'s arguments (url, checksum, path) for each file of shakespeare, codeparrot or
    hf:OWNER/NAME[@REVISION][/FOLDER or glob], sorted."""
    if source == 'shakespeare':
        return [(*SHAKESPEARE, os.path.join(folder, 'shakespeare.txt'))]
    name = 'codeparrot/codeparrot-clean' if source == 'codeparrot' else source[3:]
    match = re.fullmatch(r'([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/(.*))?', name)
    require(match, f'hf:{name} must look like hf:OWNER/NAME, optionally @REVISION or /FOLDER')
    dataset, revision, part = match[1], match[2] or 'main', (match[3] or '').strip('/')
    place = os.path.join(folder, dataset.replace('/', '--') + (f'@{match[2]}' if match[2] else ''))
    url = f'{hub()}/api/datasets/{dataset}/tree/{revision}?recursive=true'
    try:
        listed = sorted(listing(url))
    except (requests.RequestException, LookupError, TypeError) as error:
        raise UserError(f"can't list {url} ({error!s:.80}); without network, put the files of "
                      f'{dataset} into a folder, or take those that are in {place} already, and '
                      'use --source=FOLDER') from None
    files = [(f'{hub()}/datasets/{dataset}/resolve/{revision}/{urllib.parse.quote(path)}', checksum,
              os.path.join(place, *path.split('/')))
             for path, checksum in listed
             if not part or path.startswith(f'{part}/') or fnmatch.fnmatchcase(path, part)
             if ends_with(path, (*LINES, *TABLES, '.txt'))
             if not (ABOUT.search(path) or UNSAFE.search(path))]
    require(files, f'{hub()}/datasets/{dataset} has no files of records at {part or "its top"!r}, '
            f'such as .parquet or .jsonl.gz, among its {len(listed)} files')
    return files


def hub():
    return os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')


def get(url, headers=None, **more):
    """Send a GET request, with the token if the host is the hub. (requests drops the token if the
    hub redirects to another host.)"""
    token = os.environ.get('HF_TOKEN', '').strip()
    auth = {'Authorization': f'Bearer {token}'} if token and url.startswith(f'{hub()}/') else {}
    with requests.Session() as session:
        for scheme in ('https://', 'http://'):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=RETRY))
        response = session.get(url, headers={**(headers or {}), **auth}, timeout=30, **more)
    require(response.status_code not in (401, 403), f'{url} is private, does not exist, or its '
            'terms must be accepted first, on its page; if you may read it, run: export '
            'HF_TOKEN=hf_... with the token of your account')
    if response.status_code != 416:     # 416: the partial file is already complete
        response.raise_for_status()
    return response


def listing(url):
    """Yield (path, checksum) for each file of the hub's paginated list."""
    while url:
        page = get(url)
        for entry in page.json():
            if entry['type'] != 'directory':    # an LFS file's outer oid is of its pointer
                yield entry['path'], (entry.get('lfs') or entry)['oid']
        url = page.links.get('next', {}).get('url')


def fetch(url, checksum, path):
    """Download a file, unless it exists, and return its path. checksum: see checksum_of()."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(f'{path}.part', 'ab') as f:
        before = -1
        while f.tell() > before:        # retry as long as bytes arrive
            before = f.tell()
            headers = {'Range': f'bytes={before}-', 'Accept-Encoding': 'identity'}
            try:
                with get(url, headers, stream=True) as response:
                    if response.status_code == 200:     # no range support: start over
                        f.truncate(0)
                    for chunk in response.iter_content(1 << 16):
                        f.write(chunk if response.status_code != 416 else b'')
                break
            except requests.RequestException as error:
                problem = type(error).__name__
        else:
            raise UserError(f"can't download {url} ({problem}); run the same command again, or put "
                          f'the file at {path}')
    digest = checksum_of(f'{path}.part', len(checksum))
    if digest != checksum:
        os.remove(f'{path}.part')
        raise UserError(f'{url} has checksum {digest[:16]}..., expected {checksum[:16]}...; run '
                      'the same command again')
    os.replace(f'{path}.part', path)
    return path


def checksum_of(path, n_digits):
    """Return the SHA-256 of a file, or, for 40 digits, its git blob hash: the SHA-1 of "blob SIZE",
    a zero byte and the content."""
    digest = hashlib.sha256()           # hashlib.file_digest would need Python 3.11
    if n_digits == 40:
        digest = hashlib.sha1(f'blob {os.path.getsize(path)}\0'.encode())
    with open(path, 'rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
