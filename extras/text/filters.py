"""
clean.py's optional filters. They drop pages of blocked domains, documents with other licenses, and
texts that contain benchmark problems.

    python clean.py --source=pages.jsonl --url_block=block.txt --url_allow=allow.txt
    python clean.py --source=MY_CODE --licenses=mit,apache-2.0,bsd-3-clause
    python clean.py --source=MY_CODE --decontaminate=HumanEval.jsonl.gz,mbpp.jsonl

A stage is a function check(document, stats) that returns the reason to drop a document, or None.
"""
import pathlib, re
import numpy as np
from configurator import find_paths, require
from dedup import ngrams, word_hashes
from extras.text import audit, markup, text_quality
from files import entries, find_files, read


# --- called by clean.py ---------------------------------------------------------------------------
def with_options(stages, config, mode_of, normalize):
    """Return clean.py's stages, {name: check(document, stats)}, plus the filters that the settings
    switch on, before and after the rules. mode_of(text, path) and normalize(text, mode) are
    functions of clean.py."""
    def examples(source):
        for path in find_files(source)[0] if source else ():
            for document in read(path, config.text_field):
                if document['text'].strip() and not document['error']:
                    yield normalize(document['text'], mode_of(document['text'], document['path']))

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
        after['benchmarks'] = benchmarks(config.decontaminate, normalize)
    all_stages = {}     # found, read, normalization, BEFORE, rules, AFTER, personal data
    for name, check in {**stages, 'found': note_columns}.items():
        here = {name: check}
        all_stages |= before | here | after if name == 'rules' else here
    return audit.with_samples(all_stages, config.audit) if config.audit else all_stages


def report(folder, config, stats, duplicates, parent, document, kept, size, mode_of):
    """Write audit.md, if --audit is set. Return the data card, or None, and the licenses and
    benchmarks for meta.json. duplicates, parent, document: see audit.write(); kept: indices of the
    kept documents; size: the bytes of each document; mode_of(text, path): clean.py's function."""
    card, columns = None, ', '.join(stats.pop('columns', ())) or 'none'
    for flag, n in stats.get('documents judged', {}).items():
        require(n or not config.get(flag, True), f'--{flag} could judge no document, because it '
                f'needs {NEEDS[flag]} (columns of the first document: {columns}); leave it out')
    if config['audit']:
        audit.write(folder, stats, duplicates, parent, document, config['audit'])
    if len(kept) and (config['audit'] or config['languages']):
        sampled = kept[::len(kept) // 1000 + 1]        # about 1,000
        card = audit.card(map(document, sampled), size[sampled], mode_of)
    meta = {'licenses': dict(stats.get('licenses of documents', {}))}
    if config['decontaminate']:
        meta['decontaminated'] = {'ngram': NGRAM, 'problems': find_paths(config['decontaminate'])}
    return card, meta


# --- requirements of filters ----------------------------------------------------------------------
# If a filter could judge no document, the user who switched it on must know.
NEEDS = {'url_block or url_allow': 'an address in a column whose name ends with url or uri',
         'licenses': 'a license in a column license, licence or max_stars_repo_licenses',
         'languages': 'prose with 20 letters or more', 'decontaminate': 'a text of 13 words'}


def parts_of(record):
    """Return a record and the dicts in it, because many data sets nest URL and license:
    {'text': 'abc', 'meta': {'url': 'a.org'}}."""
    return [record, *(value for value in record.values() if isinstance(value, dict))]


def note_columns(document, stats):
    """Record the columns of the first document in stats. This is clean.py's first stage."""
    if not stats['columns']:
        stats['columns'].update(name for part in parts_of(document['record']) for name in part)


# --- addresses of pages ---------------------------------------------------------------------------
# A word must be a whole part of a host name, because essex.ac.uk is a university.
SPAM_WORDS = re.compile(r'(?:^|[.\-])(?:xxx|sex|escort|casino|poker|betting|viagra|cialis|pills|'
                        r'payday|torrent|warez|crack|keygen)s?(?=$|[.\-])|porn')


def addresses(url_block, url_allow):
    """Return a stage of clean.py that drops pages by URL. The two files list domains, which include
    their subdomains, and paths: those to drop, and those to keep."""
    blocked, allowed = listed(url_block), listed(url_allow)

    def check_url(document, stats):
        url = url_of(document['record'])
        stats['documents judged']['url_block or url_allow'] += bool(url)
        host, path = host_and_path(url)
        names = host.split('.')
        # essex.ac.uk/a/b also matches ac.uk/a/b, essex.ac.uk/a, essex.ac.uk, ...
        ends = [match.start() for match in re.finditer('[/?#]|$', path)]
        prefixes = {'.'.join(names[i:]) + path[:end] for i in range(len(names)) for end in ends}
        if prefixes.isdisjoint(allowed):
            spam = 'spam domain' if SPAM_WORDS.search(host) else None
            return spam if prefixes.isdisjoint(blocked) else 'blocked domain'

    return check_url


def url_of(record):
    """Return the URL of a record's page, or ''. If several columns have one, take the column with
    the shortest name: url rather than image_url."""
    urls = [(name, value) for part in parts_of(record) for name, value in part.items()
             if isinstance(value, str) and re.search('ur[il]$', name, re.I)]    # WARC-Target-URI
    return min(urls, key=lambda pair: len(pair[0]), default=('', ''))[1]


def host_and_path(url):
    """Return ('a.org', '/x') for https://me@www.a.org:80/x/, at most 2,000 characters."""
    parts = re.match(r'(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:[^/?#]*@)?(?:www\.)?([^/?#:]*)[^/?#]*(.*)',
                     url[:2000].lower().strip(), re.S)
    return parts[1].strip('.'), parts[2].rstrip('/?')


def listed(paths):
    """Read files, 'a,b', with a domain or a path of a domain on each line and comments after #.
    Return the entries: {'spam.com', 'sites.org/bad/page'}."""
    # ASCII, because bücher.de is xn--bcher-kva.de in a URL
    place = re.compile(r'(https?://)?[\w.-]+(/[^*]*)?', re.ASCII)
    prefixes = set()
    for path in find_paths(paths):
        text = pathlib.Path(path).read_text('utf-8-sig', 'replace')
        require('\ufffd' not in text, f'{path} is not UTF-8; use iconv -f ENCODING -t utf-8')
        lines = {line.split('#')[0].strip() for line in text.lower().splitlines()} - {''}
        require(lines, f'{path} has no entries; write one on each line, or omit the flag')
        invalid = sorted(line for line in lines if not place.fullmatch(line))
        require(not invalid, f'{path} must have a domain on each line, such as example.org, not '
                f'{"".join(invalid[:1])}')
        prefixes |= {''.join(host_and_path(line)) for line in lines}
    return prefixes


# --- licenses -------------------------------------------------------------------------------------
LICENSE_NAMES = 'license', 'licence', 'max_stars_repo_licenses'      # the last one is of The Stack
OF_PATH = {'stdlib': 'psf', 'shakespeare': 'public domain'}


def licenses(wanted, sources):
    """Return a stage of clean.py that counts and filters licenses. wanted: those to keep,
    such as 'mit,apache-2.0,unknown', or '' for all. sources: {name: (path, weight)}, or {} if the
    source of a document is a path."""
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
# A model that was trained on a problem knows the answer. All strings in a benchmark's records
# count: questions, solutions, tests. Paraphrases are not found.
NGRAM = 13                      # words in a row, as for GPT-3 (arXiv:2005.14165)


def benchmarks(paths, normalize):
    """Return a stage of clean.py that drops texts with an n-gram of a benchmark. paths: 'a,b'."""
    def grams_of(text):         # the hash of each 13-gram of words, uint64 (words - 12,)
        return ngrams(word_hashes(text.encode('utf-8', 'surrogatepass')), NGRAM)

    known = []
    for path in find_paths(paths):
        lengths = []
        for place, problem, _ in entries(path):
            require(not isinstance(problem, Exception),
                    f'{place} is not a benchmark file: {problem}')
            grams = [grams_of(form) for part in strings_in(problem)
                     for form in forms_of(part, normalize)]
            known += grams
            lengths.append(sum(map(len, grams)))
        require(any(lengths), f'{path} has no text of {NGRAM} words, so no document can match it')
        if 0 in lengths:
            print(f"note: {lengths.count(0):,} of {len(lengths):,} problems in {path} have fewer "
                  f"than {NGRAM} words and can't be found")
    known = np.unique(np.concatenate(known))

    def check_benchmarks(document, stats):
        # sorted queries make searchsorted cache-friendly
        grams = np.sort(grams_of(document['text']))
        stats['documents judged']['decontaminate'] += len(grams) > 0
        positions = np.searchsorted(known, grams).clip(max=len(known) - 1)
        if (known[positions] == grams).any():
            return 'in a benchmark'

    return check_benchmarks


def strings_in(value):
    """Yield every string in a JSON value, also keys: in a table without a header, the first problem
    is read as the column names."""
    if isinstance(value, str):
        yield value
    if isinstance(value, (list, dict)):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from strings_in(inner)


def forms_of(text, normalize):
    """Return the variants of a problem in documents: as published, and normalized as prose, HTML or
    LaTeX."""
    # \emph{} is a command, as most LaTeX sources have
    forms = text, markup.strip_html(text), markup.strip_latex(r'\emph{} ' + text)
    return {text, *(normalize(form, 'prose') for form in forms)}
