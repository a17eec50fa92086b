"""
The funnel: an account of what came in, what was dropped and why, and what came out.

    funnel = Funnel(n_samples=20)
    funnel.count('rules', 'short', 90, 90)              # a document of 90 bytes was dropped by the rules
    funnel.count('rules', None, 500, 490)               # another one passed them, 10 bytes lighter
    funnel.stages()                                     # the rows of the table

Copy this file alone: it needs the standard library.
"""
import collections, json

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
