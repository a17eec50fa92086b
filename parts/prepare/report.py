"""
The report of prepare.py: what each stage dropped and why, and a card of what is left.

    funnel = Funnel(n_samples=20)
    funnel.count('rules', 'short', 90, 90)              # a document of 90 bytes was dropped by the rules
    funnel.count('rules', None, 500, 490)               # another one passed them, 10 bytes lighter
    funnel.stages()                                     # the rows of the table
    genre('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n')     # 'dialogue'
    proportions({'en': 2, 'de': 1})                     # {'en': 0.667, 'de': 0.333}
    skew({'en': 1.0}, {'code': 1.0}, {'stdlib': 1.0}, {'psf': 1.0}, 2_000_000)      # sentences

A model shares the defects of its data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText reads
like a blog, C4's word list removed texts of minorities. The card counts such defects in what a model reads.
"""
import collections, json, pathlib, re, shlex, statistics


# --- the funnel -----------------------------------------------------------------------------------
FIELDS = {'language', 'lang', 'source', 'pile_set_name'}        # of records: is one kind dropped more often?

class Funnel:
    """Counters by name, a few samples for each reason, and what could not be read. Two can be added."""

    def __init__(self, n_samples=0):
        self.counters = collections.defaultdict(collections.Counter)        # {name: {what: how many}}
        self.samples = {}               # {reason: [[chance, path, text], ...]}
        self.malformed = {}             # {path: {'records': how many, 'first': where and why}}
        self.n_samples = n_samples

    def count(self, stage, reason, bytes_in, bytes_out, n=1):
        """n documents passed a stage, or were dropped by it for a reason."""
        row = self.counters[f'stage {stage}']
        row['docs_in'] += n
        row['bytes_in'] += bytes_in
        if reason:
            row[f'dropped {reason}'] += n
        else:
            row['docs_out'] += n
            row['bytes_out'] += bytes_out

    def document(self, doc, reason, original, chance):
        """A document went through all stages. original: its text before them; chance: see sample."""
        self.counters['documents taken as'][doc['mode']] += 1
        if doc.get('encoding', 'utf-8') != 'utf-8':
            self.counters['documents not in UTF-8'][doc['encoding']] += 1
        for field in doc.get('labels', {}).keys() & FIELDS:
            kept = 'dropped' if reason else 'kept'
            self.counters[f'documents by {field}'][f'{doc["labels"][field]}, {kept}'] += 1
        own = self.counters[f'source {doc["source"]}']
        own['documents read'] += 1
        if reason:
            own[reason] += 1
        else:
            self.counters[f'licences of {doc["source"]}'][doc['licence']] += 1
        if self.n_samples:
            self.sample(reason, chance, doc['path'], original)

    def sample(self, reason, chance, path, text):
        """Keep the documents whose chance is smallest: a random sample that is always the same."""
        samples = self.samples.setdefault(reason or 'kept', [])
        samples.append([chance, path, text[:2000]])
        samples.sort()
        del samples[self.n_samples:]

    def reject(self, path, line, why, size=0):
        """A record could not be read; or, with a size in bytes, it was too long."""
        if size:
            self.count('read', 'too long', size, size)
            self.counters['too long to be read'][path] += 1
            return
        self.malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})
        self.malformed[path]['records'] += 1

    def of_source(self, name):
        """A source's part of the report: its licences, and how many documents were read and dropped."""
        dropped = dict(self.counters[f'source {name}'].most_common())
        return {'licences': dict(self.counters[f'licences of {name}'].most_common()),
                'read': dropped.pop('documents read', 0), 'dropped': dropped}

    def dropped(self):
        """{reason: how many documents the stages dropped for it}, the most frequent first."""
        reasons = collections.Counter()
        for stage in self.stages():
            reasons.update(stage['dropped'])
        return dict(reasons.most_common())

    def lost(self):
        """'files that could not be read: 2, the first a.txt, line 1: ...; dropped: 35 short'"""
        texts = [f'files that could not be read: {len(self.malformed)}']
        texts += [f'the first {path}, {entry["first"]}' for path, entry in self.malformed.items()][:1]
        dropped = [f'{n} {reason}' for reason, n in self.dropped().items()]
        return f'{", ".join(texts)}; dropped: {", ".join(dropped) or 0}'

    def add(self, counters, samples, malformed):
        """Add another funnel; the arguments are the fields of its to_json."""
        for name, counter in counters.items():
            self.counters[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        for path, entry in malformed.items():       # several parts of a file
            self.malformed.setdefault(path, {**entry, 'records': 0})
            self.malformed[path]['records'] += entry['records']

    def to_json(self):
        return json.dumps({'counters': self.counters, 'samples': self.samples, 'malformed': self.malformed})

    def stages(self):
        """The rows of the table, in the order in which the stages first saw a document."""
        rows = []
        for name, row in self.counters.items():
            if name.startswith('stage '):
                counts = {key: row[key] for key in ('docs_in', 'docs_out', 'bytes_in', 'bytes_out')}
                dropped = {key[8:]: n for key, n in row.most_common() if key.startswith('dropped ')}
                rows.append({'name': name[6:], **counts, 'dropped': dropped})
        return rows

    def report(self, bins, sources):
        """The content of report.json. bins: {'train', 'val', perhaps more}."""
        counts = {name: dict(counter.most_common(100)) for name, counter in sorted(self.counters.items())
                  if not name.startswith(('stage ', 'licences ', 'source '))}
        return {'stages': self.stages(),
                'malformed': sum(entry['records'] for entry in self.malformed.values()),
                'malformed_files': self.malformed,
                'documents': {side: bins[side].documents for side in ('train', 'val')},
                'bytes': {side: bins[side].bytes for side in ('train', 'val')},
                'sources': sources,
                'counts': counts}

    def audit_md(self):
        """The samples of what was kept, and of what was dropped for each reason, for people to read."""
        chapters = []
        for reason, samples in sorted(self.samples.items()):
            texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
            chapters.append(f'# {reason}\n' + '\n'.join(texts))
        return '\n'.join(chapters)

# a genre, the beginning of its lines, and more than how many of them have it
GENRES = (('questions', re.compile(r'(?:Q|Question|User|Human)\b.{0,20}:'), 1 / 20),
          ('dialogue', re.compile(r"[A-Z][\w.' -]{0,30}:(?:\s|$)"), 1 / 8),
          ('list', re.compile(r'\s*(?:[-*•|]|\d+[.)])\s'), 1 / 2))
PRETRAINED_ON = 10_000_000_000  # tokens; 100 million are 1 % of them, 5 billion are half
LICENCES = {'stdlib': 'psf', 'shakespeare': 'public domain'}
KNOWN = {       # sources by name
    'stdlib': "one project's style, reviewed code, hardly any scripts, notebooks or numerical code",
    'shakespeare': 'plays by one author, English of about 1600, nothing but speeches under names',
    'codeparrot': "GitHub's public Python up to 2021: much Python 2 style, many forks and copies, few tests"}


# --- the card -----------------------------------------------------------------------------------------------
def licence(path, doc):
    """The licence of a document, in lower case: that of its source, or the one it names, or 'unknown'."""
    return LICENCES.get(path) or doc.get('licence', 'unknown').lower()


def genre(text):
    """The kind of a prose text, by its lines: questions, dialogue, list, verse or running text."""
    lines = [line for line in text[:20_000].split('\n') if line.strip()]
    for name, beginning, share in GENRES:
        if len([line for line in lines if beginning.match(line)]) > share * len(lines):
            return name
    capital = sum(line.lstrip()[:1].isupper() for line in lines)
    if len(lines) >= 8 and capital > 0.8 * len(lines) and statistics.median_high(map(len, lines)) < 60:
        return 'verse'
    return 'running text'


def proportions(counts):
    """{item: its share} of {item: how many} or a list of items, the most frequent first."""
    counts = collections.Counter(counts)
    total = max(1, counts.total())
    return {item: round(n / total, 3) for item, n in counts.most_common()}


def make(sample, form_of, language_of, of_source, n_tokens, overlap):
    """The card, as report.json holds it. sample: records {'text', 'path', 'licence'}, each for as many
    training tokens; form_of(text, path): code or prose; language_of: a function of a text; of_source: see the
    report; overlap: the result of duplicates.overlap."""
    languages, genres, licences = collections.Counter(), collections.Counter(), collections.Counter()
    for record in sample:
        text = record['text']
        is_code = form_of(text, record['path']) != 'prose'      # a table of codes in a .py file is code, too
        genres['code' if is_code else genre(text)] += 1
        licences[record['licence']] += 1
        if not is_code:
            languages[language_of(text)] += 1
    languages, genres, licences = map(proportions, (languages, genres, licences))
    sources = proportions({name: source['mixed'] for name, source in of_source.items()})
    usual = [f'{name}: {KNOWN[s["path"]]}' for name, s in of_source.items() if s['path'] in KNOWN]
    part = f'{n_tokens / PRETRAINED_ON:.0%}'
    if n_tokens < PRETRAINED_ON / 100:
        part = f'one in {PRETRAINED_ON / max(1, n_tokens):,.0f}'
    return {'languages': languages, 'genres': genres, 'licences': licences,
            'skew': usual + skew(languages, genres, sources, licences, n_tokens),
            'share': f'training tokens: {n_tokens:,}, {part} of the {PRETRAINED_ON:,} of a pretraining '
                     'corpus',
            'overlap': f'{overlap[0]:.1%} of {overlap[1]:,} validation texts share {overlap[2]} words in a '
                       'row with training texts (20,000 of them)'}


def skew(languages, genres, sources, licences, n_tokens):
    """Sentences that name each dominant part of a corpus and its consequence for a model. All but n_tokens
    are {name: share}, the largest first."""
    sentences = []
    for what, table, consequence in (
            ('the prose', languages, 'a model will hardly write any other language'),
            ('the training tokens', genres, 'a model will write this kind of text, whatever it is asked for'),
            ('the training tokens', sources, 'the manner of this source will be the manner of the model')):
        name, share = next(iter(table.items()), ('', 0))
        if share >= 0.8 and name != 'unknown' and (len(table) > 1 or table is not sources):
            sentences.append(f'{share:.0%} of {what}: {name}; {consequence}')
    if licences.get('unknown', 0) >= 0.5:
        sentences.append(f'{licences["unknown"]:.0%} of the training tokens name no licence: find out '
                         'whether you may use them')
    if n_tokens < 100_000_000:
        sentences.append(f'{n_tokens:,} tokens are few: a model will know words and forms, hardly any facts')
    return sentences


# --- the pages ----------------------------------------------------------------------------------------------
def table(rows):
    """Rows as a Markdown table; the first one is its head."""
    cells = [[f'{x:,}' if isinstance(x, int) else str(x) for x in row] for row in rows]
    cells.insert(1, ['---'] * len(rows[0]))
    return ''.join(f'\n| {" | ".join(row)} |' for row in cells) + '\n'


def listed(counter, form=','):
    return ', '.join(f'{name}: {n:{form}}' for name, n in counter.items()) or 'none'


def summary(report, files):
    """What each stage dropped and what the files hold, two tables for the terminal and the report. files:
    rows of path, documents, tokens (or bytes, where there are none), bytes of text."""
    unit = 'tokens' if 'tokens' in report else 'bytes'
    rows = [('stage', 'documents in', 'out', 'bytes in', 'out', 'dropped')]
    for stage in report['stages']:
        dropped = [f'{reason}: {n:,} ({n / stage["docs_in"]:.1%})' for reason, n in stage['dropped'].items()]
        rows.append([*list(stage.values())[:-1], ', '.join(dropped)])
    text = table(rows) + table([('file', 'documents', unit, 'bytes of text'), *files])
    over = [f'\nfiles of other kinds, passed over: {s["passed_over"]}'
            for s in report['sources'].values() if s['passed_over']]
    share = f'\n{report["card"]["share"]}' if 'card' in report else ''
    blind = [f'\n{name}, {s["mixed"] / report["tokens"]["train"]:.1%} of the training tokens, has no '
             'validation document, so no figure will measure it: give more of it, or raise --val_fraction'
             for name, s in report['sources'].items() if s.get('val_tokens') == 0]
    unread = f'\nrecords that could not be read: {report["malformed"]}'
    return f'{text}{"".join(over)}{unread}{share}{"".join(blind)}'


def next_command(report, kind, folder, is_streamed):
    """The next stage as a line to type. Its run gets the name of the data."""
    sources = [source['path'] for source in report['sources'].values()]
    script, preset = {'text': ('train', 'quickstart'), 'sft': ('sft', 'quickstart_sft'),
                      'preference': ('dpo', 'quickstart_dpo')}[kind]
    flags = [f'--data_dir={folder}', f'--out_dir=out/{pathlib.Path(folder).resolve().name}']
    if sources == ['shakespeare']:
        preset = 'shakespeare_cpu'
    elif kind == 'text' and sources != ['stdlib']:
        flags.append('--sample_prompt=')        # the preset's is for Python
    if is_streamed:
        flags.append(f'--streaming={folder}/shards')
    if report['counts'].get('preferences', {}).get('labels'):
        flags.append('--loss_type=kto')
    return f'next: python {script}.py config/{preset}.py {shlex.join(flags)}'


def report_md(title, report, files):
    """The report for people. report: the content of report.json; files: see summary."""
    lines = [f'# {title}', summary(report, files)]
    for path, bad in report['malformed_files'].items():
        lines.append(f'- {path}: {bad["records"]}, the first at {bad["first"]}')

    for name, s in report['sources'].items():
        n = sum(s['dropped'].values())
        lines += ['', f'{name} ({s["path"]}): files: {s["files"]}, licences: {listed(s["licences"])}',
                  f'documents read: {s["read"]:,}, dropped: {n:,} ({listed(s["dropped"])})']
        if s.get('epochs'):
            share = s['mixed'] / report['tokens']['train']
            warning = '; more than 4 passes add little' if s['epochs'] > 4 else ''
            lines.append(f'to train on: documents: {s["documents"]:,}, tokens: {s["tokens"]:,} x '
                         f'{s["epochs"]:.2f} passes = {share:.1%} of the training tokens{warning}')
    for name, counter in report['counts'].items():
        lines += ['', f'{name}: {listed(counter)}']

    if 'card' in report:
        card = report['card']
        lines += ['', '## Data card', '',
                  'Shares of the training tokens, in a sample of 1,000 places:', '',
                  f'- languages of the prose: {listed(card["languages"], ".1%")}',
                  f'- genres: {listed(card["genres"], ".1%")}',
                  f'- licences: {listed(card["licences"], ".1%")}',
                  f'- validation and training: {card["overlap"]}',
                  '', 'Known skew:', '', *(f'- {line}' for line in card['skew'] or ['nothing stands out'])]
    return '\n'.join(lines) + '\n'
