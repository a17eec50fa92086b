"""
The funnel: an account of what came in, what was dropped and why, and what came out.

    funnel = Funnel(n_samples=20)
    funnel.count('rules', 'short', 90, 90)              # a document of 90 bytes was dropped by the rules
    funnel.count('rules', None, 500, 490)               # another one passed them, 10 bytes lighter
    funnel.stages(['rules'])                            # the rows of the table

Copy this file alone: it needs the standard library.
"""
import collections, json, re


class Funnel:
    """Counters by name (a stage's documents, bytes and reasons; licences...), a few samples for each reason,
    and what could not be read. JSON-able, and two can be added."""

    def __init__(self, n_samples=0):
        self.counters = collections.defaultdict(collections.Counter)
        self.samples = {}               # {reason: [[chance, path, text], ...]}
        self.malformed = {}             # {path: {'records': how many, 'first': where and why}}
        self.n_samples = n_samples

    def count(self, stage, reason, bytes_in, bytes_out):
        """One document passed a stage, or was dropped by it for a reason."""
        row = self.counters[f'stage {stage}']
        row['docs_in'] += 1
        row['bytes_in'] += bytes_in
        if reason:
            row[f'dropped {reason}'] += 1
        else:
            row['docs_out'] += 1
            row['bytes_out'] += bytes_out

    def document(self, doc, reason, original, chance):
        """A document went through all stages: count its form and its fate. original: its text before them;
        chance: the documents with the smallest ones are kept as samples, for people to read."""
        self.counters['documents taken as'][doc['mode']] += 1
        if doc.get('encoding', 'utf-8') != 'utf-8':
            self.counters['documents not in UTF-8'][doc['encoding']] += 1
        own = self.counters[f'source {doc["source"]}']
        own['documents read'] += 1
        if reason:
            own[reason] += 1
        else:
            self.counters[f'licences of {doc["source"]}'][doc['licence']] += 1
        if self.n_samples:
            self.sample(reason, chance, doc['path'], original)
            words = set(re.findall(r'[^\W\d_]{3,}', original.lower()))
            self.counters['words in'].update(words)         # some may vanish
            self.counters['words out'].update(() if reason else words)

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
        entry = self.malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})
        entry['records'] += 1

    def of_source(self, name):
        """A source's part of the report: its licences, and how many documents were read and dropped."""
        dropped = dict(self.counters[f'source {name}'].most_common())
        return {'licences': dict(self.counters[f'licences of {name}'].most_common()),
                'read': dropped.pop('documents read', 0), 'dropped': dropped}

    def dropped(self, reason):
        """How many documents the stages dropped for a reason."""
        return sum(row[f'dropped {reason}'] for row in self.counters.values())

    def lost(self, names):
        """'2 files could not be read, a.txt because of line 1: ...; dropped: 35 short'; names: of stages"""
        reasons = collections.Counter()
        for stage in self.stages(names):
            reasons.update(stage['dropped'])
        dropped = ', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))
        first = next((f', {path} because of {m["first"]}' for path, m in self.malformed.items()), '')
        n = len(self.malformed)
        ending = f'; dropped: {dropped}' if dropped else ''
        return f'{n} file{"s" if n != 1 else ""} could not be read{first}{ending}'

    def add(self, counters, samples, malformed):
        """Add another funnel; the arguments are the fields of its to_json."""
        for name, counter in counters.items():
            self.counters[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        for path, entry in malformed.items():       # a large file is read in pieces, in order
            total = self.malformed.setdefault(path, {**entry, 'records': 0})
            total['records'] += entry['records']

    def to_json(self):
        return json.dumps({'counters': self.counters, 'samples': self.samples, 'malformed': self.malformed})

    def stages(self, names):
        """The rows of the table, in the order of names."""
        rows = []
        for name in names:
            if row := self.counters.get(f'stage {name}'):
                dropped = {key[8:]: n for key, n in row.most_common() if key.startswith('dropped ')}
                counts = {key: row[key] for key in ('docs_in', 'docs_out', 'bytes_in', 'bytes_out')}
                rows.append({'name': name, **counts, 'dropped': dropped})
        return rows

    def report(self, names, bins, sources):
        """The content of report.json. bins: {'train', 'val', perhaps more}."""
        both = {side: bins[side] for side in ('train', 'val')}
        counts = {name: dict(counter.most_common(100)) for name, counter in sorted(self.counters.items())
                  if not name.startswith(('stage ', 'words ', 'licences ', 'source '))}
        return {'stages': self.stages(names),
                'malformed': sum(m['records'] for m in self.malformed.values()),
                'malformed_files': self.malformed,
                'documents': {side: b.documents for side, b in both.items()},
                'bytes': {side: b.bytes for side, b in both.items()},
                'sources': sources,
                'counts': counts}

    def vanished(self):
        """The words of ten documents or more that no document has after the stages, at most 200."""
        often = self.counters['words in'].most_common(50_000)
        return [word for word, n in often if n >= 10 and not self.counters['words out'][word]][:200]

    def audit_md(self):
        """The samples of what was kept, and of what was dropped for each reason, for people to read."""
        chapters = []
        for reason, samples in sorted(self.samples.items()):
            texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
            chapters.append(f'# {reason}\n' + '\n'.join(texts))
        return '\n'.join(chapters)
