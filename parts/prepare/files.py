"""
The files of a source: found on the disk, or fetched from the network once, with resuming and a checksum.

    find_files('stdlib')                            # [{'path': '/usr/lib/python3.11/abc.py'}, ...], sorted
    find_files('codeparrot')                        # [{'path', 'url', 'sha256', 'size'}, ...]: not there yet
    fetch('https://host/a.txt', sha256, 'data/raw/a.txt')           # its path, when all of it is there

Copy this file alone: it needs requests.
"""
import collections, glob, gzip, hashlib, json, math, os, re, sysconfig, zlib
import requests, urllib3

RECORDS = '.jsonl', '.jsonl.gz', '.json', '.json.gz'
CRAWLS = '.warc', '.warc.gz', '.wet', '.wet.gz'
ENDINGS = tuple(f'.{name}{gz}' for name in ('py', 'txt', 'md', 'markdown', 'html', 'htm', 'jsonl', 'json')
                for gz in ('', '.gz')) + CRAWLS
SHARD = 16_000_000              # bytes of a shard
PIECES = 8                      # of a larger file of records: so many processes can share it
SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
STDLIB_SKIPS = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
# a busy server is asked again, later and later, or when its Retry-After says
RETRY = urllib3.Retry(8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))


def find_files(source, folder='data/raw', hub='https://huggingface.co',
               dataset='codeparrot/codeparrot-clean'):
    """The files of a source, [{'path', ...}], sorted, so that one folder gives the same bins everywhere.
    Those of a hub also have url, sha256 and size, and need not be there yet."""
    if source == 'codeparrot':
        return dataset_files(hub, dataset, folder)
    if source == 'shakespeare':
        return [{'path': fetch(*SHAKESPEARE, os.path.join(folder, 'shakespeare.txt'))}]
    if os.path.isfile(source):
        return [{'path': source}]
    if source == 'stdlib':      # 12 MB of Python in every interpreter; with its tests it would be 30 MB
        found = [path for path in all_files(sysconfig.get_paths()['stdlib'], STDLIB_SKIPS)
                 if path.endswith('.py')]
    else:
        found = [path for path in all_files(source) if path.lower().endswith(ENDINGS)]
    if not found:
        raise ValueError(f'source={source!r} is neither stdlib, shakespeare nor codeparrot, nor a file, '
                         'folder or glob with .py .txt .md .html .jsonl .json .warc (.gz) files')
    return [{'path': path} for path in found]


def all_files(source, skip=()):
    """The files under a folder or that a glob matches, sorted, but no hidden ones; each real file once, under
    its own name if that is among them, so that links in a circle end."""
    before, deep, after = source.partition('**')
    if os.path.isdir(source):
        before = glob.escape(source)
        deep = '**'
        after = ''
    found = glob.glob(before or './')
    if deep:
        found = [path for top in found for folder in walk(top, skip)
                 for path in glob.glob(os.path.join(glob.escape(folder), after.lstrip(os.sep) or '*'))]
    found.sort(key=lambda path: (os.path.islink(path), path), reverse=True)     # the last one wins
    return sorted({os.path.realpath(path): path for path in found if os.path.isfile(path)}.values())


def walk(top, skip=()):
    """Yield top and the folders under it, but no hidden ones, no prepared data; those of links come last."""
    seen = set()
    waiting = [top]
    for start in waiting:               # which grows
        for folder, inner, _ in os.walk(start):
            if os.path.realpath(folder) in seen:
                inner.clear()
                continue
            seen.add(os.path.realpath(folder))
            yield folder
            inner[:] = sorted(name for name in inner if not name.startswith('.') and name not in skip
                              and not is_prepared(os.path.join(folder, name)))
            waiting += [path for name in inner if os.path.islink(path := os.path.join(folder, name))]


def is_prepared(folder):
    """Whether prepare.py has written a folder: then its report is not a text to learn from."""
    path = os.path.join(folder, 'meta.json')
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as f:
        return b'"nanoparrot-data-' in f.read(100)


def passed_over(source):
    """'3 .c, 1 .rst': the endings of the files in a folder that are not read."""
    names = all_files(source) if os.path.isdir(source) else []
    endings = collections.Counter(os.path.splitext(name)[1] or 'without ending' for name in names
                                  if not name.lower().endswith(ENDINGS))
    return ', '.join(f'{n} {ending}' for ending, n in endings.most_common(5))


def chosen(source, sources, default):
    """{name: (path, weight or None)}: the sources of a config file, or the one source, but not both."""
    if sources is None:
        return {source: (source, None)}
    if source != default:
        raise ValueError(f'source={source} beside sources={list(sources)}: leave one of them out')
    return sources


def shards(sources, folder, hub, dataset, kind='text'):
    """The files of several sources, {name: (path, weight or None)}, cut into shards of work: [{'source',
    'files'}]. A file of records ends a shard, as do 16 MB of small files. A larger .jsonl of texts is cut
    into pieces, a shard each: 'lines' are the (first, end) of the piece's lines, counted from 0."""
    found = []
    if not sources:
        raise ValueError("sources={} names no source; expected {'name': ('path', weight), ...}")
    for name, value in sources.items():
        well_formed = isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str)
        weight = value[1] if well_formed else -1
        if weight is not None and not (type(weight) in (int, float) and 0 < weight < math.inf):
            raise ValueError(f"sources[{name!r}]={value!r} must look like ('path', weight), the weight a "
                             'positive number or None')
        if not isinstance(name, str) or (len(sources) > 1 and not re.fullmatch(r'[\w.-]+', name)):
            raise ValueError(f'source name {name!r} becomes a file name: a text of letters, digits, _ . -')
    weights = [weight for _, weight in sources.values()]
    if None in weights and any(weights):
        raise ValueError('give every source a weight, or none of them')

    for name, (path, _) in sources.items():
        size = SHARD                    # each source begins a shard
        for file in find_files(path, folder, hub, dataset):
            if size >= SHARD:
                found.append({'source': name, 'files': []})
                size = 0
            pieces = pieces_of(file) if kind == 'text' else [file]
            found[-1]['files'].append(pieces[0])
            found += [{'source': name, 'files': [piece]} for piece in pieces[1:]]
            large = file['path'].lower().endswith(RECORDS + CRAWLS)
            size += SHARD if large else os.path.getsize(file['path'])
    return found


def pieces_of(file):
    """A file of records, or several that are equal parts of its lines. A gzipped file can only be read from
    its beginning: a piece costs the unpacking of those before it, which is little beside the cleaning."""
    path = file['path']
    name = path.lower()
    if 'url' in file or not name.removesuffix('.gz').endswith('.jsonl') or os.path.getsize(path) <= SHARD:
        return [file]
    n_lines = 0
    try:
        with (gzip.open if name.endswith('.gz') else open)(path, 'rb') as f:
            while block := f.read(1 << 20):
                n_lines += block.count(b'\n')
    except (OSError, EOFError, zlib.error):         # damaged: the lines before it are shared out
        pass
    cuts = [n_lines * i // PIECES for i in range(PIECES)] + [None]      # the last ends where the file does
    return [{**file, 'lines': (cuts[i], cuts[i + 1])} for i in range(PIECES)]


# --- downloads ----------------------------------------------------------------------------------------------
def session():
    """A connection that is patient. Close it before a process forks: two processes would share it."""
    new = requests.Session()
    for scheme in ('https://', 'http://'):
        new.mount(scheme, requests.adapters.HTTPAdapter(max_retries=RETRY))
    return new


def fetch_all(some):
    """Fetch those of some files that have a url; returns their paths."""
    return [fetch(file['url'], file['sha256'], file['path']) for file in some if 'url' in file]


def fetch(url, sha256, path):
    """Fetch a file, unless it is there; returns its path. A transfer that broke off is continued. The file
    gets its name only when its checksum is right; OSError if it never comes or is another file."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    before = -1
    with open(f'{path}.part', 'a+b') as f:
        while f.tell() > before:            # try again as long as more comes
            before = f.tell()
            try:
                fetch_rest(url, f)
                break
            except requests.RequestException as e:
                problem = type(e).__name__
        else:
            raise OSError(f'cannot download {url} ({problem}); run the same command again, or put the file '
                          f'at {path}')
        f.seek(0)
        digest = hashlib.sha256()       # hashlib.file_digest would need Python 3.11
        for block in iter(lambda: f.read(1 << 20), b''):
            digest.update(block)
        found = digest.hexdigest()

    if found != sha256:
        os.remove(f'{path}.part')
        raise OSError(f'{url} has the checksum {found[:16]}..., expected {sha256[:16]}...; '
                      'run the same command again')
    os.replace(f'{path}.part', path)
    return path


def fetch_rest(url, f):
    """Append to a file what follows its bytes; a server without ranges begins anew."""
    headers = {'Range': f'bytes={f.tell()}-', 'Accept-Encoding': 'identity'}
    with session() as s, s.get(url, headers=headers, stream=True, timeout=30) as r:
        if r.status_code == 416:            # there is nothing after what we have
            return
        r.raise_for_status()
        if r.status_code != 206:
            f.seek(0)
            f.truncate()
        for chunk in r.iter_content(1 << 16):
            f.write(chunk)


def dataset_files(hub, dataset, folder):
    """The files of a dataset that end like RECORDS: [{path, url, sha256, size}]. path: the place of the file
    under folder. The list is kept there, for work without network."""
    folder = os.path.join(folder, dataset.replace('/', '--'))
    listing = os.path.join(folder, 'files.json')
    if not os.path.exists(listing):
        found = []
        for entry in list_dataset(hub, dataset):
            name = entry['path']
            if entry.get('lfs') and name.endswith(RECORDS) and '..' not in name:    # it stays in the folder
                found.append({'path': os.path.join(folder, *name.split('/')), 'size': entry['size'],
                              'sha256': entry['lfs']['oid'],
                              'url': f'{hub}/datasets/{dataset}/resolve/main/{name}'})
        if not found:
            raise ValueError(f'{hub}/datasets/{dataset} has no {" ".join(RECORDS)} files')
        os.makedirs(folder, exist_ok=True)
        with open(f'{listing}.{os.getpid()}', 'w', encoding='utf-8') as f:      # others may do the same now
            json.dump(sorted(found, key=lambda f: f['path']), f, indent=1)
        os.replace(f'{listing}.{os.getpid()}', listing)
    with open(listing, encoding='utf-8') as f:
        return json.load(f)


def list_dataset(hub, dataset):
    """The entries that a hub lists for a dataset, page by page."""
    url = f'{hub}/api/datasets/{dataset}/tree/main?recursive=true'
    entries = []
    try:
        with session() as s:
            while url:
                answer = s.get(url, timeout=30)
                answer.raise_for_status()
                entries += answer.json()
                url = answer.links.get('next', {}).get('url')
    except requests.RequestException as e:
        raise ValueError(f'cannot list {url} ({type(e).__name__}); without network, put the .json.gz '
                         f'files of {dataset} into a folder and use --source=FOLDER') from e
    return entries
