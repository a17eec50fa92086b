"""
The report of prepare.py: what became of each document, and a card of what is left.

    account = Account()
    account.counts['bytes left']['found'] += 90         # of a document
    account.counts['bytes left']['read'] += 90          # a stage let it pass
    account.drop('rules', 'short', 'web')               # and the next one did not
    account.notes['personal data in web']['email'] += 2
    account.passes({'texts': [...], ...}, STAGES)       # does all of this for a document
    account.stages()                                    # the rows of the table
    genre('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n')     # 'dialogue'

A model shares the defects of its data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText
reads like a blog, C4's word list removed texts of minorities. The card counts such defects in what
a model reads.
"""
import collections, json, re
import numpy as np
from parts.prepare import clean, conversions, corpus, files, text_models


# --- the account ----------------------------------------------------------------------------------
class Account:
    """What became of the documents:

    counts      {name: Counter}: 'read' of each source; 'dropped by STAGE' and 'dropped from SOURCE'
                for each reason; 'bytes left' of 'found' and then of each stage: what it let pass
    notes       {name: Counter} for the report: notes['licences of web']['mit'] documents
    samples     {reason: [[chance, path, text], ...]}, for --audit
    malformed   {path: [records that could not be read, where and why the first]}

    A shard has an account of its own, and they can be added."""

    def __init__(self, n_samples=0):
        self.counts = collections.defaultdict(collections.Counter)
        self.notes = collections.defaultdict(collections.Counter)
        self.samples = collections.defaultdict(list)
        self.malformed = {}
        self.n_samples = n_samples

    def to_json(self):
        return json.dumps([self.counts, self.notes, self.samples, self.malformed])

    def add(self, counts, notes, samples, malformed):
        """Add another account; the arguments are what its to_json holds."""
        for mine, new in (self.counts, counts), (self.notes, notes):
            for name, counter in new.items():
                mine[name].update(counter)
        for reason, documents in samples.items():
            for _, path, text in documents:
                self.sample(reason, path, text)
        for path, (n, first) in malformed.items():
            self.malformed.setdefault(path, [0, first])[0] += n     # a file may be several shards

    def passes(self, doc, stages):
        """Whether a document passes all stages, {name: function}. The first one that returns a
        reason drops it."""
        source = doc['source']
        self.counts['read'][source] += 1
        self.counts['bytes left']['found'] += conversions.size_of(doc)
        self.notes['documents taken as'][doc['mode']] += 1
        if 'encoding' in doc:
            self.notes['encodings of files'][doc['encoding']] += 1

        for name, stage in stages.items():
            reason = stage(doc, self.notes)
            if reason:
                self.drop(name, reason, source)
                break
            self.counts['bytes left'][name] += conversions.size_of(doc)
        else:
            self.notes[f'licences of {source}'][doc['licence']] += 1
        self.sample(reason or 'kept', doc['path'], '\n'.join(doc['texts']))
        return not reason

    def drop(self, stage, reason, source):
        self.counts[f'dropped by {stage}'][reason] += 1
        self.counts[f'dropped from {source}'][reason] += 1

    def sample(self, reason, path, text):
        """Keep the documents whose hash is smallest: a random sample that is always the same."""
        if self.n_samples:
            text = text[:2000]
            chance = corpus.hash64(text.encode('utf-8', 'surrogatepass'))
            samples = sorted([*self.samples[reason], [chance, path, text]])
            self.samples[reason] = samples[:self.n_samples]

    def reject(self, path, line, why):
        """A record could not be read."""
        self.malformed.setdefault(path, [0, f'line {line}: {why}'])[0] += 1

    def lost(self):
        """'files that could not be read: 2, the first a.txt, line 1: ...; dropped: short: 35'"""
        first = [f', the first {path}, {where}' for path, (_, where) in self.malformed.items()][:1]
        dropped = sum((counter for name, counter in self.counts.items()
                       if name.startswith('dropped by ')), collections.Counter())
        n = len(self.malformed)
        return f'files that could not be read: {n}{"".join(first)}; dropped: {shown(dropped)}'

    def stages(self):
        """The rows of the table, in the order in which the stages first saw a document."""
        rows = []
        n = self.counts['read'].total()
        (_, size), *stages = self.counts['bytes left'].items()
        for name, left in stages:
            dropped = by_size(self.counts[f'dropped by {name}'])
            row = {'name': name, 'docs_in': n, 'docs_out': n - sum(dropped.values()),
                   'bytes_in': size, 'bytes_out': left, 'dropped': dropped}
            rows.append(row)
            n, size = row['docs_out'], left
        return rows

    def report(self, docs, results, sources, lengths):
        """The content of report.json, and the sizes of the results, {name: {'documents', ...}}.
        results: {name: the documents of docs in it, bool (n,)}, with train and val among them;
        lengths: tokens, int64 (n,), or None. What is known of each source is added to sources,
        {name: {'path'}}."""
        def sizes(which):
            tokens = {} if lengths is None else {'tokens': int(lengths[which].sum())}
            return {'documents': int(which.sum()), **tokens, 'bytes': int(docs.size[which].sum())}

        sizes_of = {name: sizes(which) for name, which in results.items()}
        for name, s in sources.items():
            s |= {**sizes(results['train'] & (docs.owners[docs.shard] == name)),
                  'read': self.counts['read'][name],
                  'dropped': by_size(self.counts[f'dropped from {name}']),
                  'licences': by_size(self.notes[f'licences of {name}']),
                  'passed_over': files.passed_over(s['path'])}
        content = {'stages': self.stages(),
                   'malformed': sum(n for n, _ in self.malformed.values()),
                   'malformed_files': self.malformed,
                   **{what: {side: sizes_of[side][what] for side in ('train', 'val')}
                      for what in sizes_of['train']},
                   'sources': sources,
                   'counts': {name: by_size(counter, 100)
                              for name, counter in sorted(self.notes.items())}}
        if lengths is not None:
            # The card describes the corpus by 1,000 documents. A document is taken in proportion to
            # the tokens that a run reads of it, so a long one may be taken several times.
            passes = np.array([sources[name]['passes'] for name in docs.owners])[docs.shard]
            records = docs.spread(results['train'] * lengths * passes, 1000)
            content['card'] = card(records, sources, content['tokens']['train'])
        return content, sizes_of

    def audit_md(self):
        """The samples of what was kept, and of what was dropped for each reason, for people to
        read."""
        chapters = []
        for reason, samples in sorted(self.samples.items()):
            texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
            chapters.append(f'# {reason}\n' + '\n'.join(texts))
        return '\n'.join(chapters)


def by_size(counter, n=None):
    """{item: how many}, the n most frequent first."""
    return dict(counter.most_common(n))


# --- the card -------------------------------------------------------------------------------------
# a genre, the beginning of its lines, and more than how many of them have it
GENRES = (('questions', re.compile(r'(?:Q|Question|User|Human)\b.{0,20}:'), 1 / 20),
          ('dialogue', re.compile(r"[A-Z][\w.' -]{0,30}:(?:\s|$)"), 1 / 8),
          ('list', re.compile(r'\s*(?:[-*•|]|\d+[.)])\s'), 1 / 2))
# what most of a corpus makes of a model
SKEW = {'languages': '{:.0%} of the prose: {}; a model will hardly write any other language',
        'genres': '{:.0%} of the training tokens: {}; a model will write this kind of text, '
                  'whatever it is asked for',
        'sources': '{:.0%} of the training tokens: {}; the model will sound like this source'}
PRETRAINED_ON = 10_000_000_000  # tokens; 100 million are 1% of them, 5 billion are half
LICENCES = {'stdlib': 'psf', 'shakespeare': 'public domain'}
KNOWN = {       # sources by name
    'stdlib': "one project's style, reviewed code, hardly any scripts, notebooks or numerical code",
    'shakespeare': 'plays by one author, English of about 1600, nothing but speeches under names',
    'codeparrot': "GitHub's public Python up to 2021: much Python 2 style, many forks and copies, "
                  'few tests'}


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


def card(records, of_source, n_tokens):
    """The card, as report.json holds it: {'languages': {'en': 0.667, 'de': 0.333}, ...}. records:
    {'text', 'path', 'licence'} of places that are evenly spread over the training tokens;
    of_source: see Account.report."""
    counts = {name: collections.Counter() for name in ('languages', 'genres', 'licences')}
    for record in records:
        text = record['text']
        # a table of codes in a .py file is code, too
        is_code = clean.form_of(text, record['path']) != 'prose'
        counts['genres']['code' if is_code else genre(text)] += 1
        counts['licences'][record['licence']] += 1
        if not is_code:
            counts['languages'][text_models.language_of(text)] += 1
    if len(of_source) > 1:
        counts['sources'] = collections.Counter(
            {name: s['tokens'] * s['passes'] for name, s in of_source.items()})
    parts = {name: {item: round(n / counter.total(), 3) for item, n in counter.most_common()}
             for name, counter in counts.items()}

    skew = [f'{name}: {KNOWN[s["path"]]}' for name, s in of_source.items() if s['path'] in KNOWN]
    skew += [SKEW[name].format(part, item) for name in SKEW if name in parts
             for item, part in parts[name].items() if part >= 0.8 and item != 'unknown']
    unknown = parts['licences'].get('unknown', 0)
    if unknown >= 0.5:
        skew.append(f'{unknown:.0%} of the training tokens name no licence: find out whether you '
                    'may use them')
    if n_tokens < 100_000_000:
        skew.append(f'{n_tokens:,} tokens are few: a model will know words and forms, hardly any '
                    'facts')
    return {**parts, 'skew': skew,
            'size': f'{n_tokens:,} training tokens; a corpus for pretraining has {PRETRAINED_ON:,}'}


# --- the pages ------------------------------------------------------------------------------------
def shown(value):
    """A value of report.json for people: {'short': 1200} is 'short: 1,200'."""
    if isinstance(value, dict):
        return ', '.join(f'{name}: {shown(x)}' for name, x in value.items()) or 'none'
    if isinstance(value, list):
        return '; '.join(map(shown, value)) or 'none'
    return value if isinstance(value, str) else f'{value:,}'


def table(rows):
    """Rows, dicts with the same keys, as a Markdown table."""
    cells = [rows[0], ['---'] * len(rows[0]), *(row.values() for row in rows)]
    return ''.join(f'\n| {" | ".join(map(shown, row))} |' for row in cells) + '\n'


def summary(content, sizes_of):
    """What each stage dropped and what the files hold, two tables for the terminal and the report.
    content, sizes_of: see Account.report."""
    stages = [{**stage, 'dropped': {reason: f'{n:,} ({n / stage["docs_in"]:.1%})'
                                    for reason, n in stage['dropped'].items()}}
              for stage in content['stages']]
    sizes = [{'': what, **{name: size[what] for name, size in sizes_of.items()}}
             for what in sizes_of['train']]
    lines = [table(stages) + table(sizes)]
    lines += [f'files of other kinds, passed over: {s["passed_over"]}'
              for s in content['sources'].values() if s['passed_over']]
    lines.append(f'records that could not be read: {content["malformed"]}')
    if 'card' in content:
        lines.append(content['card']['size'])
    return '\n'.join(lines)


def report_md(title, content, sizes_of):
    """The report for people. content, sizes_of: see Account.report."""
    lines = [f'# {title}', summary(content, sizes_of)]
    lines += [f'- {path}: {n}, the first at {first}'
              for path, (n, first) in content['malformed_files'].items()]
    chapters = {f'Source: {name}': s for name, s in content['sources'].items()}
    chapters['Counts of documents'] = content['counts']
    if 'card' in content:
        chapters['Data card: fractions of the training tokens'] = content['card']
    for title, values in chapters.items():
        lines += ['', f'## {title}', '', *(f'- {name}: {shown(x)}' for name, x in values.items())]
    if any(s.get('passes', 0) > 4 for s in content['sources'].values()):
        lines += ['', 'An epoch reads a source more than 4 times: more than 4 passes add little.']
    return '\n'.join(lines) + '\n'
