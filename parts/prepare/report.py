"""
The report of prepare.py: what became of each document, and a card of what is left.

    account = Account()
    account.bytes_left['found'] += 90                   # of a document
    account.bytes_left['read'] += 90                    # a stage let it pass
    account.ends['rules', 'short', 'web'] += 1          # and the next one did not
    account.notes['personal data in web']['email'] += 2
    account.stages()                                    # the rows of the table
    genre('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n')     # 'dialogue'
    proportions({'en': 2, 'de': 1})                     # {'en': 0.667, 'de': 0.333}

A model shares the defects of its data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText
reads like a blog, C4's word list removed texts of minorities. The card counts such defects in what
a model reads.
"""
import collections, json, re
from parts.prepare import clean, conversions, corpus, text_models


# --- the account ----------------------------------------------------------------------------------
class Account:
    """What became of the documents, each of which is counted once, where it ended:

    ends        Counter of (stage, reason, source); ('kept', 'kept', source) for what stays
    bytes_left  Counter of 'found' and then of the stages: the bytes that it let pass
    notes       {name of a list: Counter}: notes['licences of web']['mit'] documents
    samples     {reason: [[chance, path, text], ...]}, for --audit
    malformed   {path: [records that could not be read, where and why the first]}

    A shard has an account of its own, and they can be added."""

    def __init__(self, n_samples=0):
        self.ends = collections.Counter()
        self.bytes_left = collections.Counter()
        self.notes = collections.defaultdict(collections.Counter)
        self.samples = {}
        self.malformed = {}
        self.n_samples = n_samples

    def to_json(self):
        ends = [[*key, n] for key, n in self.ends.items()]
        return json.dumps([ends, self.bytes_left, self.notes, self.samples, self.malformed])

    def add(self, ends, bytes_left, notes, samples, malformed):
        """Add another account; the arguments are what its to_json holds."""
        self.ends.update({tuple(key): n for *key, n in ends})
        self.bytes_left.update(bytes_left)
        for name, counter in notes.items():
            self.notes[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        for path, (n, first) in malformed.items():
            self.malformed.setdefault(path, [0, first])[0] += n     # a file may be several shards

    def found(self, doc):
        """A document was read, and now comes to the stages."""
        self.bytes_left['found'] += conversions.size_of(doc)
        self.notes['documents taken as'][doc['mode']] += 1
        if 'encoding' in doc:
            self.notes['encodings of files'][doc['encoding']] += 1

    def end(self, doc, stage, reason):
        """A document was dropped by a stage for a reason; or, without a reason, it is kept."""
        source = doc['source']
        if not reason:
            stage = reason = 'kept'
            self.notes[f'licences of {source}'][doc['licence']] += 1
        self.ends[stage, reason, source] += 1
        text = '\n'.join(doc['texts'])
        chance = corpus.hash64(text.encode('utf-8', 'surrogatepass'))
        self.sample(reason, chance, doc['path'], text)

    def sample(self, reason, chance, path, text):
        """Keep the documents whose chance is smallest: a random sample that is always the same."""
        if self.n_samples:
            samples = self.samples.setdefault(reason, [])
            samples.append([chance, path, text[:2000]])
            samples.sort()
            del samples[self.n_samples:]

    def reject(self, path, line, why):
        """A record could not be read."""
        self.malformed.setdefault(path, [0, f'line {line}: {why}'])[0] += 1

    def dropped(self, stage=None, source=None):
        """{reason: documents}, the most frequent first, of a stage and a source or of all."""
        reasons = collections.Counter()
        for (where, reason, whose), n in self.ends.items():
            if where != 'kept' and stage in (None, where) and source in (None, whose):
                reasons[reason] += n
        return dict(reasons.most_common())

    def lost(self):
        """'files that could not be read: 2, the first a.txt, line 1: ...; dropped: short: 35'"""
        first = [f', the first {path}, {where}' for path, (_, where) in self.malformed.items()][:1]
        return (f'files that could not be read: {len(self.malformed)}{"".join(first)}; dropped: '
                f'{listed(self.dropped())}')

    def stages(self):
        """The rows of the table, in the order in which the stages first saw a document."""
        rows = []
        n = self.ends.total()
        (_, size), *stages = self.bytes_left.items()
        for name, left in stages:
            dropped = self.dropped(name)
            row = {'name': name, 'docs_in': n, 'docs_out': n - sum(dropped.values()),
                   'bytes_in': size, 'bytes_out': left, 'dropped': dropped}
            rows.append(row)
            n, size = row['docs_out'], left
        return rows

    def of_source(self, name):
        """A source's part of the report: its licences, and how many documents were read and
        dropped."""
        return {'licences': dict(self.notes[f'licences of {name}'].most_common()),
                'read': sum(n for (*_, source), n in self.ends.items() if source == name),
                'dropped': self.dropped(source=name)}

    def report(self, files_of, sources):
        """The content of report.json. files_of: {'train': {'documents', 'tokens', 'bytes'},
        ...}."""
        return {'stages': self.stages(),
                'malformed': sum(n for n, _ in self.malformed.values()),
                'malformed_files': self.malformed,
                **{what: {side: files_of[side][what] for side in ('train', 'val')}
                   for what in files_of['train']},
                'sources': sources,
                'counts': {name: dict(counter.most_common(100))
                           for name, counter in sorted(self.notes.items())}}

    def audit_md(self):
        """The samples of what was kept, and of what was dropped for each reason, for people to
        read."""
        chapters = []
        for reason, samples in sorted(self.samples.items()):
            texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
            chapters.append(f'# {reason}\n' + '\n'.join(texts))
        return '\n'.join(chapters)


# --- the card -------------------------------------------------------------------------------------
# a genre, the beginning of its lines, and more than how many of them have it
GENRES = (('questions', re.compile(r'(?:Q|Question|User|Human)\b.{0,20}:'), 1 / 20),
          ('dialogue', re.compile(r"[A-Z][\w.' -]{0,30}:(?:\s|$)"), 1 / 8),
          ('list', re.compile(r'\s*(?:[-*•|]|\d+[.)])\s'), 1 / 2))
PRETRAINED_ON = 10_000_000_000  # tokens; 100 million are 1% of them, 5 billion are half
LICENCES = {'stdlib': 'psf', 'shakespeare': 'public domain'}
KNOWN = {       # sources by name
    'stdlib': "one project's style, reviewed code, hardly any scripts, notebooks or numerical code",
    'shakespeare': 'plays by one author, English of about 1600, nothing but speeches under names',
    'codeparrot': "GitHub's public Python up to 2021: much Python 2 style, many forks and copies, few "
                  'tests'}


def licence(path, doc):
    """The licence of a document, in lower case: that of its source, or the one it names, or
    'unknown'."""
    return LICENCES.get(path) or doc.get('licence', 'unknown').lower()


def genre(text):
    """The kind of a prose text, by its lines: questions, dialogue, list or running text."""
    lines = [line for line in text[:20_000].split('\n') if line.strip()]
    for name, beginning, fraction in GENRES:
        if len([line for line in lines if beginning.match(line)]) > fraction * len(lines):
            return name
    return 'running text'


def proportions(counts):
    """{item: its fraction} of {item: how many}, the most frequent first."""
    counts = collections.Counter(counts)
    total = max(1, counts.total())
    return {item: round(n / total, 3) for item, n in counts.most_common()}


def card(sample, of_source, n_tokens):
    """The card, as report.json holds it. sample: records {'text', 'path', 'licence'}, and for how
    many places among the training tokens each stands; of_source: see Account.report."""
    languages, genres, licences = (collections.Counter() for _ in range(3))
    for record, n in sample:
        text = record['text']
        # a table of codes in a .py file is code, too
        is_code = clean.form_of(text, record['path']) != 'prose'
        genres['code' if is_code else genre(text)] += n
        licences[record['licence']] += n
        if not is_code:
            languages[text_models.language_of(text)] += n
    languages, genres, licences = map(proportions, (languages, genres, licences))
    read = {name: round(s['tokens'] * s['passes']) for name, s in of_source.items()}
    usual = [f'{name}: {KNOWN[s["path"]]}' for name, s in of_source.items() if s['path'] in KNOWN]
    return {'languages': languages, 'genres': genres, 'licences': licences,
            'skew': usual + skew(languages, genres, proportions(read) if len(read) > 1 else {},
                                  licences, n_tokens),
            'share': f'training tokens: {n_tokens:,}, {n_tokens / PRETRAINED_ON:.2g} of the '
                     f'{PRETRAINED_ON:,} of a pretraining corpus'}


def skew(languages, genres, sources, licences, n_tokens):
    """Sentences that name each dominant part of a corpus and its consequence for a model. All but
    n_tokens are {name: fraction}, the largest first."""
    sentences = []
    for what, parts, consequence in (
            ('the prose', languages, 'a model will hardly write any other language'),
            ('the training tokens', genres,
             'a model will write this kind of text, whatever it is asked for'),
            ('the training tokens', sources,
             'the manner of this source will be the manner of the model')):
        for name, part in parts.items():
            if part >= 0.8 and name != 'unknown':
                sentences.append(f'{part:.0%} of {what}: {name}; {consequence}')
    if licences.get('unknown', 0) >= 0.5:
        sentences.append(f'{licences["unknown"]:.0%} of the training tokens name no licence: find '
                         'out whether you may use them')
    if n_tokens < 100_000_000:
        sentences.append(f'{n_tokens:,} tokens are few: a model will know words and forms, hardly '
                         'any facts')
    return sentences


# --- the pages ------------------------------------------------------------------------------------
def table(rows):
    """Rows as a Markdown table; the first one is its head."""
    cells = [[f'{x:,}' if isinstance(x, int) else str(x) for x in row] for row in rows]
    cells.insert(1, ['---'] * len(rows[0]))
    return ''.join(f'\n| {" | ".join(row)} |' for row in cells) + '\n'


def listed(counter, form=','):
    return ', '.join(f'{name}: {n:{form}}' for name, n in counter.items()) or 'none'


def summary(content, files_of):
    """What each stage dropped and what the files hold, two tables for the terminal and the report.
    content: that of report.json; files_of: see Account.report."""
    rows = [('stage', 'documents in', 'out', 'bytes in', 'out', 'dropped')]
    for stage in content['stages']:
        *numbers, dropped = stage.values()
        rows.append([*numbers, ', '.join(f'{reason}: {n:,} ({n / stage["docs_in"]:.1%})'
                                         for reason, n in dropped.items())])
    names = 'documents', 'tokens', 'bytes'
    sizes = [(path, *(size.get(name, '') for name in names)) for path, size in files_of.items()]
    lines = [table(rows) + table([('file', *names), *sizes])]
    for s in content['sources'].values():
        if s['passed_over']:
            lines.append(f'files of other kinds, passed over: {s["passed_over"]}')
    lines.append(f'records that could not be read: {content["malformed"]}')
    if 'card' in content:
        lines.append(content['card']['share'])
    return '\n'.join(lines)


def report_md(title, content, files_of):
    """The report for people. content: that of report.json."""
    lines = [f'# {title}', summary(content, files_of)]
    for path, (n, first) in content['malformed_files'].items():
        lines.append(f'- {path}: {n}, the first at {first}')

    for name, s in content['sources'].items():
        lines += ['', f'{name} ({s["path"]}): licences: {listed(s["licences"])}',
                  f'documents read: {s["read"]:,}, dropped: {listed(s["dropped"])}']
        if 'passes' in s:
            read = s['tokens'] * s['passes'] / content['tokens']['train']
            warning = '; more than 4 passes add little' if s['passes'] > 4 else ''
            lines.append(f'to train on: documents: {s["documents"]:,}, tokens: {s["tokens"]:,} x '
                         f'{s["passes"]:.2f} passes = {read:.1%} of what a run reads{warning}')
    for name, counter in content['counts'].items():
        lines += ['', f'{name}: {listed(counter)}']

    if 'card' in content:
        card = content['card']
        lines += ['', '## Data card', '',
                  'Fractions of the training tokens, in a sample of 1,000 places:', '',
                  f'- languages of the prose: {listed(card["languages"], ".1%")}',
                  f'- genres: {listed(card["genres"], ".1%")}',
                  f'- licences: {listed(card["licences"], ".1%")}',
                  '', 'Known skew:', '',
                  *(f'- {line}' for line in card['skew'] or ['nothing stands out'])]
    return '\n'.join(lines) + '\n'
