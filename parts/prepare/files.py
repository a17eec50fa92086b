"""
The files of a source: found on the disk, or fetched from the network once, with resuming and a
checksum.

    find_files('stdlib')                # [{'path': '/usr/lib/python3.11/abc.py'}, ...], sorted
    find_files('hf:codeparrot/codeparrot-clean')    # [{'path', 'url', 'sha256'}, ...]
    fetch('https://host/a.txt', sha256, 'data/raw/a.txt')     # its path, when all of it is there
"""
import collections, glob, hashlib, math, os, re, sysconfig
import requests, urllib3
from parts import Mistake
from parts.prepare.reading import RECORDS, is_kind

# each also with .gz
ENDINGS = RECORDS + ('.py', '.txt', '.md', '.markdown', '.rst', '.tex', '.org', '.adoc', '.html',
                     '.htm')
SHARD = 16_000_000              # bytes of a shard
PIECES = 8                      # of a larger .jsonl: so many processes can share it
RESULTS = {'val.bin', 'val.jsonl'}      # prepare.py leaves one of them beside meta.json
SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/'
               'input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
STDLIB_SKIPS = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
# a busy server is asked again, later and later, or when its Retry-After says
RETRY = urllib3.Retry(8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))


def find_files(source, folder='data/raw'):
    """The files of a source, [{'path', ...}], sorted, so that one folder gives the same bins
    everywhere. Those of hf:OWNER/NAME also have url and sha256, and need not be there yet."""
    if source == 'codeparrot':
        source = 'hf:codeparrot/codeparrot-clean'
    if source.startswith('hf:'):
        return dataset_files(source[3:], folder)
    if source == 'shakespeare':
        return [{'path': fetch(*SHAKESPEARE, os.path.join(folder, 'shakespeare.txt'))}]
    # 12 MB of Python in every interpreter; with its tests it would be 30 MB
    if source == 'stdlib':
        paths = all_files(sysconfig.get_paths()['stdlib'], STDLIB_SKIPS)
        return [{'path': path} for path in paths if path.endswith('.py')]

    paths = [path for path in all_files(source) if is_kind(path, ENDINGS)]
    # a file that the user names is read, whatever its ending
    if os.path.isfile(source):
        paths = [source]
    if not paths:
        there = passed_over(source)
        raise Mistake(f'no text at {source!r}; it can be stdlib, shakespeare, codeparrot, '
                      'hf:OWNER/NAME, or a file, folder or glob with '
                      f'{" ".join(ENDINGS)} (.gz) files'
                      + (f'; it has {there}' if there else ''))
    return [{'path': path} for path in paths]


def all_files(source, skip=()):
    """The files under a folder or of a glob, sorted; none that are hidden, or behind links to
    folders."""
    if os.path.isdir(source):
        source = os.path.join(glob.escape(source), '**')
    # a/**/*.py: the folders under a/, and *.py in each
    top, deep, pattern = source.partition('**')
    paths = glob.glob(top or './')
    for folder in [folder for path in paths if deep for folder in folders_under(path, skip)]:
        paths += glob.glob(os.path.join(glob.escape(folder), pattern.lstrip(os.sep) or '*'))
    return sorted({path for path in paths if os.path.isfile(path)})


def folders_under(top, skip=()):
    """Yield top and the folders under it, but no hidden ones, and none that prepare.py has
    written."""
    for folder, inner, names in os.walk(top):
        if folder != top and 'meta.json' in names and RESULTS & {*names}:
            inner.clear()
            continue
        yield folder
        inner[:] = [name for name in inner if not name.startswith('.') and name not in skip]


def passed_over(source):
    """'3 .c, 1 .pdf': the endings of the files in a folder that are not read."""
    names = all_files(source) if os.path.isdir(source) else []
    endings = collections.Counter(os.path.splitext(name)[1] or 'without ending' for name in names
                                  if not is_kind(name, ENDINGS))
    return ', '.join(f'{n} {ending}' for ending, n in endings.most_common(5))


def sources_of(source, sources, both):
    """{name: (path, weight or None)}: the sources of a config file, or the one source.
    both: the user gave a source, too."""
    if sources is None:
        return {source: (source, None)}
    if both:
        raise Mistake(f'source={source} beside sources={list(sources)}: leave one of them out')
    for name, value in sources.items():
        match name, value:
            case str(), (str(), None | int() | float() as weight) if (
                    re.fullmatch(r'[\w.-]+', name) and (weight is None or 0 < weight < math.inf)):
                continue
        raise Mistake(f"sources[{name!r}]={value!r} must look like 'name': ('path', weight), "
                      'with a name for a file (letters, digits, _ . -) and a positive weight or '
                      'None')
    if len({weight is None for _, weight in sources.values()}) != 1:
        raise Mistake(f'{sources=} must name a source, and give a weight to all sources, or to '
                      'none')
    return sources


def shards(sources, folder, kind='text'):
    """The files of several sources, {name: (path, weight)}, as shards of work: [{'source',
    'files'}]. A file of records ends a shard, as do 16 MB of small files. A larger .jsonl of texts
    is several shards: `part`, (i, n), stands for those of a file's lines whose number leaves the
    remainder i when divided by n."""
    shards = []
    for name, (path, _) in sources.items():
        size = SHARD                    # each source begins a shard
        for file in find_files(path, folder):
            n_bytes = 0 if 'url' in file else os.path.getsize(file['path'])
            is_large = n_bytes > SHARD and is_kind(file['path'], '.jsonl')
            n = PIECES if is_large and kind == 'text' else 1
            for i in range(n):
                if size >= SHARD:
                    shards.append({'source': name, 'files': []})
                    size = 0
                shards[-1]['files'].append({**file, 'part': (i, n)})
                size += SHARD if is_kind(file['path'], RECORDS) else n_bytes
    return shards


# --- downloads ------------------------------------------------------------------------------------
def session():
    """A connection that is patient. Close it before a process forks: two processes would share
    it."""
    new = requests.Session()
    for scheme in ('https://', 'http://'):
        new.mount(scheme, requests.adapters.HTTPAdapter(max_retries=RETRY))
    return new


def fetch_all(files):
    """Fetch those of the files that have a url; returns their paths."""
    return [fetch(file['url'], file['sha256'], file['path']) for file in files if 'url' in file]


def fetch(url, sha256, path):
    """Fetch a file, unless it is there; returns its path. A transfer that broke off is continued.
    The file gets its name only when its checksum is right; OSError if it never comes or is another
    file."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
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
            except requests.RequestException as e:
                problem = type(e).__name__
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


def dataset_files(dataset, folder):
    """The files of records in a Hugging Face dataset, [{path, url, sha256}], sorted."""
    hub = os.environ.get('HF_ENDPOINT', 'https://huggingface.co')
    folder = os.path.join(folder, dataset.replace('/', '--'))
    url = f'{hub}/api/datasets/{dataset}/tree/main?recursive=true'
    files = []
    try:
        with session() as s:
            while url:                  # page by page
                page = s.get(url, timeout=30)
                page.raise_for_status()
                files += [{'path': os.path.join(folder, *entry['path'].split('/')),
                           'sha256': entry['lfs']['oid'],
                           'url': f'{hub}/datasets/{dataset}/resolve/main/{entry["path"]}'}
                          for entry in page.json()
                          if entry.get('lfs') and '..' not in entry['path']
                          and is_kind(entry['path'], RECORDS)]
                url = page.links.get('next', {}).get('url')
    except requests.RequestException as e:
        raise Mistake(f"can't list {url} ({type(e).__name__}); without network, put the "
                      f'.json.gz files of {dataset} into a folder, or take those that are in '
                      f'{folder} already, and use --source=FOLDER') from e
    if not files:
        raise Mistake(f'{hub}/datasets/{dataset} has no {" ".join(RECORDS)} files')
    return sorted(files, key=lambda file: file['path'])
