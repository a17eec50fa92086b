"""
Addresses: drop pages of the domains in a list of yours, and of domains whose names are spam.

    python prepare.py --source=pages.jsonl --url_block=block.txt --url_allow=allow.txt

    url_reason('https://a.b.spam.com/x', blocked={'spam.com'})      # 'blocked domain'
    url_reason('https://best-casino.com')       # 'spam domain', or None: nothing speaks against it

Only records that have a `url` are looked at.
"""
import re, urllib.parse
from configurator import Mistake
from extras.records import lines_of

URL_NAMES = 'url', 'func_code_url'      # of a record; the second is CodeSearchNet's
# Words count only as whole parts of a name: essex.ac.uk is a university.
SPAM_WORDS = re.compile(r'(?:^|[.\-])(?:xxx|sex|escort|casino|poker|betting|viagra|cialis|pills|'
                        r'payday|torrent|warez|crack|keygen)s?(?=$|[.\-])|porn')


def stage(url_block, url_allow):
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
