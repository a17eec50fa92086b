"""
Lists of yours say what goes: pages of some domains, documents with other licenses, texts with many
words of a list.

    python prepare.py --source=pages.jsonl --url_block=block.txt --url_allow=allow.txt
    python prepare.py --source=MY_CODE --licences=mit,bsd,apache-2.0,unknown
    python prepare.py --source=FOLDER --toxic_words=words.txt --max_toxic=2

    url_reason('https://a.b.spam.com/x', blocked={'spam.com'})      # 'blocked domain'
    licence_of({'license': ['MIT', 'BSD']})                 # 'mit, bsd'
    toxic_words('Damn! A damned classic.', {'damn', 'ass'})         # {'damn': 1}

Each stage of prepare.py here is a function, check(document, notes), that returns why a document is
dropped, or None.
"""
import collections, re, urllib.parse
from configurator import Mistake
from extras.records import lines_of

# --- addresses: only records that have a `url` are looked at --------------------------------------
URL_NAMES = 'url', 'func_code_url'      # of a record; the second is CodeSearchNet's
# Words count only as whole parts of a name: essex.ac.uk is a university.
SPAM_WORDS = re.compile(r'(?:^|[.\-])(?:xxx|sex|escort|casino|poker|betting|viagra|cialis|pills|'
                        r'payday|torrent|warez|crack|keygen)s?(?=$|[.\-])|porn')


def addresses(url_block, url_allow):
    """Return a stage of prepare.py. url_block and url_allow: files, or '' for none, of domains that
    are dropped, and of those that are never dropped."""
    blocked, allowed = domains_of(url_block), domains_of(url_allow)

    def check_url(document, notes):
        values = [document['record'].get(name) for name in URL_NAMES]
        url = next((value for value in values if value is not None), None)
        if url and isinstance(url, str):
            return url_reason(url, blocked, allowed)

    return check_url


def host_of(url):
    """Return 'a.org' for https://www.a.org/x; ValueError for what is no address."""
    host = urllib.parse.urlsplit(url if '//' in url else f'//{url}').hostname or ''
    if ' ' in host:
        raise ValueError(f'{url} is no address')
    return host.strip('.').removeprefix('www.')


def url_reason(url, blocked=(), allowed=()):
    """Return why an address is dropped, or None. blocked and allowed: sets of domains, which cover
    their subdomains; allowed wins."""
    try:
        host = host_of(url)
    except ValueError:                  # '[' without ']'
        return 'no address'
    names = host.split('.')
    domains = {'.'.join(names[i:]) for i in range(len(names))}      # uk, ac.uk, essex.ac.uk
    if not domains.isdisjoint(allowed):
        return None
    if not domains.isdisjoint(blocked):
        return 'blocked domain'
    return 'spam domain' if SPAM_WORDS.search(host) else None


def domains_of(path):
    """Return the set of domains in a file, one a line; # begins a comment."""
    try:
        return {*map(host_of, lines_of(path) if path else ())}
    except ValueError as error:         # [Adblock Plus 2.0]
        raise Mistake(f'{path} must have a domain on each line, such as example.org: '
                      f'{error}') from None


# --- licenses -------------------------------------------------------------------------------------
LICENCE_NAMES = 'licence', 'license', 'max_stars_repo_licenses'     # of a record; the last is The Stack's
OF_PATH = {'stdlib': 'psf', 'shakespeare': 'public domain'}


def licences(wanted, sources):
    """Return a stage of prepare.py that notes the license of each document. licences: those to
    keep, such as 'mit,bsd', or '' for all. sources: {name: (path, weight)}."""
    wanted = {name.strip() for name in wanted.lower().split(',')} - {''}

    def check_licence(document, notes):
        path, _ = sources[document['source']]
        licence = document['licence'] = OF_PATH.get(path) or licence_of(document['record'])
        if wanted and not wanted.issuperset(licence.split(', ')):
            return f'licence {licence}'

    return check_licence


def licence_of(record):
    """Return the license that a record names, in lower case, or 'unknown'."""
    value = next((record[name] for name in LICENCE_NAMES if record.get(name) is not None), '')
    if isinstance(value, list):
        value = ', '.join(map(str, value))
    return value.lower() if isinstance(value, str) and value else 'unknown'


# --- words ----------------------------------------------------------------------------------------
def words(path, max_toxic):
    """Return a stage of prepare.py that drops texts with more than max_toxic words of a list in
    1,000; with 0, not one may be in it. path: a file with a word on each line; # begins a
    comment."""
    listed = lines_of(path)

    def check_words(document, notes):
        text = '\n'.join(document['texts'])
        hits = toxic_words(text, listed)
        if hits.total() * 1000 > max_toxic * len(text.split()):
            notes['toxic words in what was dropped'].update(hits)
            return 'toxic'

    return check_words


def toxic_words(text, listed):
    """Return {word: count} of the listed words in a text. don't and well-known are single words."""
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())
    return collections.Counter(word for word in words if word in listed)
