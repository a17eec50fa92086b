"""
clean.py opens this file for its optional filters. They drop pages of some domains, documents with
other licenses, and texts with the problems of a benchmark.

    python clean.py --source=pages.jsonl --url_block=block.txt --url_allow=allow.txt
    python clean.py --source=MY_CODE --licenses=mit,apache-2.0,bsd-3-clause
    python clean.py --source=MY_CODE --decontaminate=HumanEval.jsonl.gz,mbpp.jsonl

A stage is a function check(document, stats), which returns why a document is dropped, or None.
"""
import os, pathlib, re
import numpy as np
from configurator import find_paths, require
from dedup import ngrams, words_of
from extras.text import audit, markup, text_quality
from files import entries, find_files, read, replace_invalid_bytes


# --- what clean.py asks for -----------------------------------------------------------------------
def with_options(stages, config, mode_of, normalise):
    """Return the stages of clean.py, {name: check(document, stats)}, with those that the settings
    in config ask for, before and after the rules. mode_of(text, path) and normalise(text, mode) are
    clean.py's."""
    def examples(source):
        for path in find_files(source)[0] if source else ():
            for document in read(path, config.text_field):
                text, _ = replace_invalid_bytes(document['text'])
                if text and not text.isspace():
                    yield normalise(text, mode_of(text, document['path']))

    before, after = {}, {}
    if config.licenses or config.audit or config.languages:
        before['licenses'] = licenses(config.licenses, config.sources or {})
    if config.url_block or config.url_allow:
        before['addresses'] = addresses(config.url_block, config.url_allow)
    if config.languages:
        before['language'] = text_quality.language(config.languages)
    if config.perplexity_reference:
        after['perplexity'] = text_quality.perplexity(
            examples(config.perplexity_reference), config.min_bits, config.max_bits)
    if config.quality_good or config.quality_bad:
        after['quality'] = text_quality.quality(
            examples(config.quality_good), examples(config.quality_bad))
    if config.decontaminate:
        after['benchmarks'] = benchmarks(config.decontaminate, normalise)
    all_stages = {}     # found, read, normalization, BEFORE, rules, AFTER, personal data
    for name, check in {**stages, 'found': note_columns}.items():
        here = {name: check}
        all_stages |= before | here | after if name == 'rules' else here
    return audit.watched(all_stages, config.audit) if config.audit else all_stages


def report(folder, config, stats, duplicates, kept_for, document, left, size, mode_of):
    """Write audit.md, if it is wanted. Return the data card, or None, and what meta.json says about
    licenses and benchmarks. duplicates, kept_for, document: see audit.write(); left: the numbers of
    the documents that are kept; size: the bytes of each document; mode_of(text, path) is
    clean.py's."""
    card, columns = None, ', '.join(stats.pop('columns', ())) or 'none'
    for flag, n in stats.get('documents judged', {}).items():
        require(n or not config.get(flag, True), f'--{flag} could judge no document, because it '
                f'needs {NEEDS[flag]} (columns of the first document: {columns}); leave it out')
    for flag, n in stats.get('documents not judged', {}).items():
        print(f'note: --{flag} could not judge {n:,} documents, which lack {NEEDS[flag]}')
    if config['audit']:
        audit.write(folder, stats, duplicates, kept_for, document, config['audit'])
    if len(left) and (config['audit'] or config['languages']):
        some = left[::len(left) // 1000 + 1]        # about 1,000
        card = audit.card(map(document, some), size[some], mode_of)
    meta = {'licenses': dict(stats.get('licenses of documents', {}))}
    if config['decontaminate']:
        meta['decontaminated'] = {'ngram': NGRAM, 'problems': find_paths(config['decontaminate'])}
    return card, meta


# --- what a filter needs --------------------------------------------------------------------------
# A filter that could judge no document did nothing, and whoever asked for it should know.
NEEDS = {'url_block or url_allow': 'an address in a column whose name ends with url or uri',
         'licenses': 'a license in a column license, licence or max_stars_repo_licenses',
         'languages': 'prose with 20 letters or more', 'decontaminate': 'a text of 13 words'}


def parts_of(record):
    """Return a record and the dicts in it, where many data sets have an address or a license:
    {'text': 'abc', 'meta': {'url': 'a.org'}}."""
    return [record, *(value for value in record.values() if isinstance(value, dict))]


def note_columns(document, stats):
    """Note the columns of the first document: the first stage of clean.py."""
    if not stats['columns']:
        stats['columns'].update(name for part in parts_of(document['record']) for name in part)


# --- addresses of pages ---------------------------------------------------------------------------
# Words count only as whole parts of a name: essex.ac.uk is a university.
SPAM_WORDS = re.compile(r'(?:^|[.\-])(?:xxx|sex|escort|casino|poker|betting|viagra|cialis|pills|'
                        r'payday|torrent|warez|crack|keygen)s?(?=$|[.\-])|porn')


def addresses(url_block, url_allow):
    """Return a stage of clean.py. Files of domains, with their subdomains, and of paths below one:
    to drop, and to keep."""
    blocked, allowed = listed(url_block), listed(url_allow)

    def check_url(document, stats):
        url = url_of(document['record'])
        stats['documents judged']['url_block or url_allow'] += bool(url)
        if not url:
            stats['documents not judged']['url_block or url_allow'] += 1
        host, path = host_and_path(url)
        names = host.split('.')
        # of essex.ac.uk/a/b also ac.uk/a/b, essex.ac.uk/a, essex.ac.uk, ...
        ends = [match.start() for match in re.finditer('[/?#]|$', path)]
        places = {'.'.join(names[i:]) + path[:end] for i in range(len(names)) for end in ends}
        if places.isdisjoint(allowed):
            spam = 'spam domain' if SPAM_WORDS.search(host) else None
            return spam if places.isdisjoint(blocked) else 'blocked domain'

    return check_url


def url_of(record):
    """Return the address of a record's page, or ''. Of several, the shortest name tells: url is
    surer than image_url."""
    found = [(name, value) for part in parts_of(record) for name, value in part.items()
             if isinstance(value, str) and re.search('ur[il]$', name, re.I)]    # WARC-Target-URI
    return min(found, key=lambda pair: len(pair[0]), default=('', ''))[1]


def host_and_path(url):
    """Return ('a.org', '/x') for https://me@www.a.org:80/x/, at most 2,000 characters."""
    parts = re.match(r'(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#]*@)?(?:www\.)?([^/?#:]*)[^/?#]*(.*)',
                     url[:2000].lower().strip(), re.S)
    return parts[1].strip('.'), parts[2].rstrip('/')


def listed(paths):
    """Return the places in files, 'a,b', which have one on each line, a domain or a path below one;
    # begins a comment: {'spam.com', 'sites.org/bad/page'}."""
    # in a url, bücher.de is xn--bcher-kva.de
    place = re.compile(r'(https?://)?[\w.-]+(/.*)?', re.ASCII)
    places = set()
    for path in find_paths(paths):
        require(os.path.isfile(path), f'{path} is no file')
        text = pathlib.Path(path).read_text('utf-8-sig', 'replace')
        require('\ufffd' not in text, f'{path} is not UTF-8; use iconv -f ENCODING -t utf-8')
        lines = {line.split('#')[0].strip() for line in text.lower().splitlines()} - {''}
        require(lines, f'{path} has no entries; write one on each line, or leave the flag out')
        odd = sorted(line for line in lines if not place.fullmatch(line))
        require(not odd, f'{path} must have a domain on each line, such as example.org, and not '
                f'{"".join(odd[:1])}')
        places |= {''.join(host_and_path(line)) for line in lines}
    return places


# --- licenses -------------------------------------------------------------------------------------
LICENSE_NAMES = 'license', 'licence', 'max_stars_repo_licenses'      # the last is The Stack's
OF_PATH = {'stdlib': 'psf', 'shakespeare': 'public domain'}


def licenses(wanted, sources):
    """Return a stage of clean.py that counts the licenses of each document. wanted: those to keep,
    such as 'mit,apache-2.0,unknown', or '' for all. sources: {name: (path, weight)}; where there
    are none, a document's source is a path."""
    names = {*re.split('[,;] *', wanted.lower().strip())}

    def check_license(document, stats):
        path = sources.get(document['source'], document['source'])
        path = path if isinstance(path, str) else path[0]
        license = OF_PATH.get(path) or license_of(document['record'])
        document['license'] = license
        stats['documents judged']['licenses'] += license != 'unknown'
        if wanted and not names.issuperset(license.split(', ')):
            return f'license {license}'
        stats['licenses of documents'][license] += 1

    return check_license


def license_of(record):
    """Return the license that a record names, in lower case, or 'unknown'."""
    value = next((part[name] for part in parts_of(record) for name in LICENSE_NAMES
                  if part.get(name) is not None), '')
    if isinstance(value, list):
        value = ', '.join(map(str, value))
    return value.lower() if isinstance(value, str) and value else 'unknown'


# --- benchmarks -----------------------------------------------------------------------------------
# A model that has read a problem knows the answer. Any text in a record of such a file counts:
# questions, solutions, tests. Nothing here finds a paraphrase.
NGRAM = 13                      # words in a row, as for GPT-3 (arXiv:2005.14165)


def benchmarks(paths, normalise):
    """Return a stage of clean.py. paths: files of records, 'a,b'."""
    def grams_of(text):         # the hash of each 13 words in a row, uint64 (words - 12,)
        return ngrams(words_of(text.encode('utf-8', 'surrogatepass')), NGRAM)

    known = []
    for path in find_paths(paths):
        require(os.path.exists(path), f'{path} does not exist; --decontaminate needs the files of '
                                      'benchmarks')
        lengths = []
        for place, problem, _ in entries(path):
            require(not isinstance(problem, Exception),
                    f'{place} is no file of a benchmark: {problem}')
            grams = [grams_of(form) for part in strings_in(problem)
                     for form in forms_of(part, normalise)]
            known += grams
            lengths.append(sum(map(len, grams)))
        require(any(lengths), f'{path} has no text of {NGRAM} words, so it could find nothing')
        if 0 in lengths:
            print(f"note: {lengths.count(0):,} of {len(lengths):,} problems in {path} have fewer "
                  f"than {NGRAM} words and can't be found")
    known = np.unique(np.concatenate(known))

    def check_benchmarks(document, stats):
        # in order: the search stays in one corner of the memory
        grams = np.sort(grams_of(document['text']))
        stats['documents judged']['decontaminate'] += len(grams) > 0
        places = np.searchsorted(known, grams).clip(max=len(known) - 1)
        if (known[places] == grams).any():
            return 'in a benchmark'

    return check_benchmarks


def strings_in(value):
    """Yield every text in a JSON value, names as well: the first problem of a table without a
    header is where the names of its columns should be."""
    if isinstance(value, str):
        yield value
    if isinstance(value, (list, dict)):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from strings_in(inner)


def forms_of(text, normalise):
    """Return the forms that a problem may have in a document: as it was published, or as cleaning
    leaves it, also of a page or a paper."""
    # a paper with commands also loses the signs of its formulas
    forms = text, markup.strip_html(text), markup.strip_latex(r'\emph{} ' + text)
    return {text, *(normalise(form, 'prose') for form in forms)}
