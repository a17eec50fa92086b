"""
What goes: pages of some domains, documents with other licenses, texts with many words of a list,
and texts with the problems of a benchmark. And near-copies, known by one number of 64 bits a text.

    python prepare.py --source=pages.jsonl --url_block=block.txt --url_allow=allow.txt
    python prepare.py --source=MY_CODE --licences=mit,apache-2.0,bsd-3-clause
    python prepare.py --source=FOLDER --toxic_words=words.txt --max_toxic=2
    python prepare.py --source=MY_CODE --decontaminate=HumanEval.jsonl.gz,mbpp.jsonl
    python prepare.py --source=FOLDER --dedup=simhash

    url_reason('https://a.b.spam.com/x', blocked={'spam.com'})      # 'blocked domain'
    licence_of({'license': ['MIT', 'BSD']})                 # 'mit, bsd'
    toxic_words('Damn! A damned classic.', {'damn', 'ass'})         # {'damn': 1}

addresses, licences, words and benchmarks return stages of prepare.py: check(document, notes)
returns why a document is dropped, or None. with_options puts these, and those of text_quality.py
and audit.py, in their order.
"""
import collections, os, re, types, unicodedata, urllib.parse
import numpy as np
import regex
from configurator import Mistake, require
from extras import audit, records, text_quality
from extras.records import lines_of


# --- what prepare.py asks for ---------------------------------------------------------------------
def with_options(stages, config, find_files, documents_of, mode_of, normalise, words_of, ngrams,
                 hash64):
    """Return the stages of prepare.py, {name: check(document, notes)}, with those that settings ask
    for before and after the rules. config has the settings; the others are functions of
    prepare.py."""
    as_text = types.SimpleNamespace(kind='text', text_field=config.text_field)

    def texts_at(source):
        """Yield the texts at a path, in the form that documents have."""
        for path in find_files(source, True)[0] if source else ():
            for document in documents_of([[path]], as_text, print):
                [text] = document['texts']
                yield normalise(text, mode_of(text, document['path']))

    result = {name: stages[name] for name in ('read', 'normalise')}
    if config.licences or config.audit or config.languages:
        result['licenses'] = licences(config.licences, config.sources)
    if config.url_block or config.url_allow:
        result['addresses'] = addresses(config.url_block, config.url_allow)
    if config.languages:
        result['language'] = text_quality.language(config.languages)
    result['rules'] = stages['rules']
    if config.perplexity_reference:
        result['perplexity'] = text_quality.perplexity(texts_at(config.perplexity_reference),
                                                       config.min_bits, config.max_bits)
    if config.quality_good or config.quality_bad:
        result['quality'] = text_quality.quality(
            texts_at(config.quality_good), texts_at(config.quality_bad), config.min_quality)
    if config.toxic_words:
        result['toxic words'] = words(config.toxic_words, config.max_toxic)
    if config.decontaminate:
        result['benchmarks'] = benchmarks(config.decontaminate, normalise, words_of, ngrams)
    result |= stages                    # personal data, which come last; others keep their places
    return audit.watched(result, config.audit, hash64) if config.audit else result


def report(folder, config, notes, copied, documents, left, tokens, owners, sources, mode_of,
           hash64):
    """Write audit.md, if it is wanted. Return the data card, or None, and what meta.json says of
    benchmarks. left: the numbers of the documents that are left; tokens: those that each brings to
    train.bin; owners: the source of each; sources: what is known of each."""
    card = None
    if config['audit']:
        audit.write(folder, notes, copied, documents, config['audit'], hash64)
    if tokens.any() and (config['audit'] or config['languages']):
        read_tokens = tokens * [sources[name].get('passes', 1) for name in owners]
        some = documents(left[audit.spread(read_tokens, 1000)])
        card = audit.card(some, sources, tokens.sum(), mode_of)
    paths = [*filter(None, config['decontaminate'].split(','))]
    return card, {'decontaminated': {'problems': paths, 'ngram': NGRAM}} if paths else {}


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


def domain_of(line):
    """Return 'a.org' for a.org, https://www.a.org/x, *.a.org and ||a.org^; ValueError for a rule
    that says more than a domain."""
    found = re.fullmatch(r'(?:\*\.|\|\|)?([^*|^/]+)\^?|([^*|^]+)', line)
    if not found:
        raise ValueError(line)
    return host_of(found[1] or found[2])


def domains_of(path):
    """Return the set of domains in a file, one a line; # begins a comment."""
    try:
        return {*map(domain_of, lines_of(path))}
    except ValueError as error:         # [Adblock Plus 2.0]
        raise Mistake(f'{path} must have a domain on each line, such as example.org: '
                      f'{error}') from None


# --- licenses -------------------------------------------------------------------------------------
# of a record; the last is The Stack's
LICENCE_NAMES = 'licence', 'license', 'max_stars_repo_licenses'
OF_PATH = {'stdlib': 'psf', 'shakespeare': 'public domain'}


def licences(wanted, sources):
    """Return a stage of prepare.py that notes the license of each document. wanted: those to keep,
    such as 'mit,apache-2.0,unknown', or '' for all. sources: {name: (path, weight)}."""
    wanted = {name.strip() for name in wanted.lower().split(',')} - {''}

    def check_licence(document, notes):
        path, _ = sources[document['source']]
        licence = document['licence'] = OF_PATH.get(path) or licence_of(document['record'])
        if wanted and not wanted.issuperset(licence.split(', ')):
            return f'licence {licence}'
        notes[f'licenses of {document["source"]}'][licence] += 1

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
    listed = {unicodedata.normalize('NFC', word) for word in lines_of(path)}
    odd = sorted(word for word in listed if not toxic_words(word, {word}))
    require(not odd, f'{path} has {len(odd):,} lines that are no single word of letters, such as '
            f'{", ".join(odd[:3])!r:.80}; remove them')

    def check_words(document, notes):
        text = '\n'.join(document['texts'])
        hits = toxic_words(text, listed)
        if hits.total() * 1000 > max_toxic * len(text.split()):
            notes['toxic words in what was dropped'].update(hits)
            return 'toxic'

    return check_words


def toxic_words(text, listed):
    """Return {word: count} of the listed words in a text. don't and well-known are single words."""
    words = regex.findall(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*", text.lower())
    return collections.Counter(word for word in words if word in listed)


# --- benchmarks -----------------------------------------------------------------------------------
# A model that has read a problem knows the answer. Any text in a record of such a file counts:
# questions, solutions, tests. Nothing here finds a paraphrase. eval.py prints beside its scores
# which benchmarks were looked for.
NGRAM = 13                      # words in a row, as for GPT-3 (arXiv:2005.14165)


def benchmarks(paths, normalise, words_of, ngrams):
    """Return a stage of prepare.py. paths: files of records, 'a,b'. normalise(text, mode) is what
    happens to a document; ngrams(words, n) returns the hash of each n words in a row, uint64
    (words - n + 1,)."""
    known = np.zeros(0, np.uint64)
    for path in filter(None, paths.split(',')):
        require(os.path.exists(path), f'{path} does not exist; --decontaminate needs the files of '
                                      'benchmarks')
        errors = []
        entries = [*records.read(path, lambda *error: errors.append(error))]
        for place, error in errors[:1]:
            raise Mistake(f"{place} can't be read ({error}); it must be the file of a benchmark")
        grams = [ngrams(words_of(form), NGRAM) for _, record in entries
                 for text in strings_in(record) for form in variants(text, normalise)]
        grams = np.concatenate([known[:0], *grams])
        require(len(grams), f'{path} has no text of {NGRAM} words, so it could find nothing')
        known = np.union1d(known, grams)

    def check_benchmarks(document, notes):
        for text in document['texts']:
            # in order: the search stays in one corner of the memory
            grams = np.sort(ngrams(words_of(text), NGRAM))
            places = np.searchsorted(known, grams).clip(max=len(known) - 1)
            if (known[places] == grams).any():
                return 'in a benchmark'

    return check_benchmarks


def strings_in(value):
    """Yield every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ('role', 'from')]
    if isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def variants(text, normalise):
    """Return the forms that a problem may have in a document: as it was published, or as cleaning
    leaves it. Within LaTeX, every text loses its commands."""
    return {text, normalise(text, 'chat'), normalise(text, 'prose'),
            normalise(r'\emph{} ' + text, 'prose')}


# --- simhash --------------------------------------------------------------------------------------
# SimHash (Charikar 2002): each n-gram of a text has a hash, and each bit of the number is what most
# of these hashes have there, so near-copies differ in few bits. Three hashes of four bits:
#
#     0110
#     1100
#     0101
#     0100        2 of 3 have 0, all have 1, 2 have 0, 2 have 0
#
# It needs 8 bytes a document, next to 256 for MinHash, and finds what differs in a few words of a
# long text. Of copies in which 1 word in 100 is another one, it finds one in ten.
def simhash(shingles):
    """Return [the number] of a set of n-grams' hashes, uint64 (n,). An empty set has 0."""
    bits = np.unpackbits(shingles.view(np.uint8)).reshape(-1, 64)
    return [int.from_bytes(np.packbits(bits.sum(0) * 2 > len(bits)).tobytes(), 'big')]


def simhash_copies(columns, copies_in_bands):
    """Return what copies_in_bands(keys, similar) finds: which documents are near-copies of earlier
    ones. columns: one array of numbers, uint64 (n,). similar(i, j) says that two of them differ in
    at most 3 bits. Three bits are in at most three of the four blocks of 16 bits, so copies share a
    block (Manku 2007), and only what shares one is compared."""
    [numbers] = columns
    blocks = np.ascontiguousarray(numbers, np.uint64).view(np.uint16).reshape(-1, 4).T     # (4, n)
    numbers = numbers.tolist()

    def similar(i, j):
        # Documents without a word have 0, and nothing in common.
        return numbers[i] != 0 and (numbers[i] ^ numbers[j]).bit_count() <= 3

    return copies_in_bands(blocks, similar)
