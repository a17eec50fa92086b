"""
A data card: the contents of a corpus, its skew, and the consequences for a model.

    genre('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n')                 # 'dialogue'
    shares(['en', 'en', 'de'])                                      # {'en': 0.667, 'de': 0.333}
    skew({'en': 1.0}, {'code': 1.0}, {'stdlib': 1.0}, {'psf': 9}, 2_000_000)        # sentences

A model shares the defects of its data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText reads
like a blog, C4's word list removed texts of minorities. The card counts such defects in your corpus.

Copy this file alone: it needs the standard library.
"""
import collections, re, statistics

SPEAKER = re.compile(r'^[A-Z][\w.\' -]{0,30}:(?:\s|$)', re.M)
QUESTION = re.compile(r'^(?:Q|Question|User|Human)\b[^\n]{0,20}:', re.M)
LIST = re.compile(r'^\s*(?:[-*•|]|\d+[.)])\s', re.M)
LICENCES = {'stdlib': 'psf', 'shakespeare': 'public domain'}
KNOWN = {       # of the sources that prepare.py knows
    'stdlib': "one project's style, reviewed code, hardly any scripts, notebooks or numerical code",
    'shakespeare': 'plays by one author, English of about 1600, nothing but speeches under names',
    'codeparrot': "GitHub's public Python up to 2021: much Python 2 style, many forks and copies, few tests"}


def licence(path, doc):
    """The licence of a document, in lower case: that of its source, or the one it names, or 'unknown'."""
    return LICENCES.get(path) or doc.get('licence', 'unknown').lower()


def genre(text):
    """The kind of a prose text, by its lines: questions, dialogue, list, verse or running text."""
    lines = [line for line in text[:20_000].split('\n') if line.strip()]
    head = '\n'.join(lines)
    if not lines:
        return 'running text'
    if len(QUESTION.findall(head)) * 20 > len(lines):
        return 'questions'
    if len(SPEAKER.findall(head)) * 8 > len(lines):
        return 'dialogue'
    if len(LIST.findall(head)) * 2 > len(lines):
        return 'list'
    capital = sum(line.lstrip()[:1].isupper() for line in lines)
    if len(lines) >= 8 and capital > 0.8 * len(lines) and statistics.median_high(map(len, lines)) < 60:
        return 'verse'
    return 'running text'


def shares(items):
    """{item: its share}, the most frequent first."""
    counts = collections.Counter(items)
    return {item: round(n / counts.total(), 3) for item, n in counts.most_common()}


def make(languages, genres, of_source, n_tokens, pretrained_on, overlap):
    """The card, as report.json holds it. languages, genres: of each text of a sample; of_source: the
    report's entry for each source; overlap: the result of dedup.overlap."""
    licences = collections.Counter()
    for source in of_source.values():
        licences.update(source['licences'])
    known = [f'{name}: {KNOWN[s["path"]]}' for name, s in of_source.items() if s['path'] in KNOWN]
    total = sum(source.get('tokens', 0) for source in of_source.values())
    of_tokens = {name: source.get('tokens', 1) / max(1, total) for name, source in of_source.items()}
    tables = shares(languages), shares(genres), dict(sorted(of_tokens.items(), key=lambda item: -item[1]))
    return {'languages': tables[0], 'genres': tables[1], 'licences': dict(licences.most_common()),
            'skew': known + skew(*tables, licences, n_tokens),
            'share': f'{n_tokens:,} training tokens are {n_tokens / pretrained_on:.3g} times the '
                     f'{pretrained_on:,} of a pretraining corpus',
            'overlap': f'{overlap[0]:.1%} of {overlap[1]:,} validation texts share {overlap[2]} words in a '
                       'row with training texts'}


def skew(languages, genres, sources, licences, tokens):
    """Sentences that name each dominant part of a corpus and its consequence for a model. languages, genres,
    sources: {name: share}; licences: {name: count}."""
    found = []
    for what, table, means in (
            ('the prose', languages, 'a model will hardly write any other language'),
            ('the documents', genres, 'a model will write this kind of text, whatever it is asked for'),
            ('the tokens', sources, 'the manner of this source will be the manner of the model')):
        name, share = next(iter(table.items()), ('', 0))
        if share >= 0.8 and (len(table) > 1 or table is not sources):
            found.append(f'{share:.0%} of {what}: {name}; {means}')
    unknown = licences.get('unknown', 0) / max(1, sum(licences.values()))
    if unknown >= 0.5:
        found.append(f'{unknown:.0%} of the documents name no licence: find out whether you may use them')
    if tokens < 100_000_000:
        found.append(f'{tokens:,} tokens are few: a model will know words and forms, hardly any facts')
    return found
