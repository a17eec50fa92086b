"""
The funnel: an account of what came in, what was dropped and why, and what came out; and the report about it.

    funnel = Funnel()
    funnel.count('rules', 'short', 90, 90)              # a document of 90 bytes was dropped by the rules
    funnel.count('rules', None, 500, 490)               # another one passed them, 10 bytes lighter
    funnel.stages(['rules'], bins)                      # the table, if it agrees with the files that came out

Copy this file alone: it needs the standard library.
"""
import collections, json, os, re


class Funnel:
    """What the report is made of: counters by name (a stage's documents, bytes and reasons; licences...), a
    few samples for each reason, and what could not be read. JSON-able, and two can be added."""

    def __init__(self, n_samples=3):
        self.counters, self.samples, self.malformed = collections.defaultdict(collections.Counter), {}, {}
        self.n_samples = n_samples

    def count(self, stage, reason, bytes_in, bytes_out):
        """One document passed a stage, or was dropped by it for a reason."""
        row = self.counters[f'stage {stage}']
        row.update({'docs_in': 1, 'bytes_in': bytes_in})
        row.update({f'dropped {reason}': 1} if reason else {'docs_out': 1, 'bytes_out': bytes_out})

    def sample(self, reason, chance, path, text):
        """Keep the documents whose chance is smallest: a random sample that is always the same."""
        samples = self.samples.setdefault(reason or 'kept', [])
        samples.append([chance, path, text[:2000]])
        samples.sort()
        del samples[self.n_samples:]

    def reject(self, path, line, why):
        """A record could not be read."""
        entry = self.malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})
        entry['records'] += 1

    def unread(self):
        """'2 files could not be read, a.txt because of line 1: ...'"""
        first = [f', {path} because of {m["first"]}' for path, m in self.malformed.items()][:1]
        return f'{len(self.malformed)} files could not be read' + ''.join(first)

    def count_words(self, text, kept):
        """Which words a document holds, to see later which of them vanished."""
        words = set(re.findall(r'[^\W\d_]{3,}', text.lower()))
        self.counters['words in'].update(words)
        if kept:
            self.counters['words out'].update(words)

    def vanished(self):
        """Words of ten documents or more that are in none that is kept."""
        often = self.counters['words in'].most_common(50_000)
        return [word for word, n in often if n >= 10 and not self.counters['words out'][word]]

    def add(self, counters, samples, malformed):
        for name, counter in counters.items():
            self.counters[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        self.malformed.update(malformed)

    def to_json(self):
        return json.dumps({'counters': self.counters, 'samples': self.samples, 'malformed': self.malformed})

    def stages(self, names, bins):
        """The rows of the table, in the order of names. Each is checked against the next, and the last one
        against the files that come out: objects with `documents` and `bytes`."""
        rows = []
        for name in names:
            if row := self.counters.get(f'stage {name}'):
                dropped = {key[8:]: n for key, n in row.most_common() if key.startswith('dropped ')}
                counts = {key: row[key] for key in ('docs_in', 'docs_out', 'bytes_in', 'bytes_out')}
                rows.append({'name': name, **counts, 'dropped': dropped})
        left = {'docs_in': sum(b.documents for b in bins), 'bytes_in': sum(b.bytes for b in bins)}
        for row, after in zip(rows, [*rows[1:], left]):
            lost = row['docs_in'] - row['docs_out'] - sum(row['dropped'].values())
            if lost or (row['docs_out'], row['bytes_out']) != (after['docs_in'], after['bytes_in']):
                raise ValueError(f'the figures after {row["name"]} do not add up: please report this bug')
        return rows

    def report(self, names, bins, sources, clusters):
        """What report.json holds. bins: {'train', 'val', perhaps more}."""
        both = {side: bins[side] for side in ('train', 'val')}
        counts = {name: dict(counter.most_common(100)) for name, counter in sorted(self.counters.items())
                  if not name.startswith(('stage ', 'words ', 'licences '))}
        return {'stages': self.stages(names, both.values()),
                'malformed': sum(m['records'] for m in self.malformed.values()),
                'malformed_files': self.malformed,
                'documents': {side: b.documents for side, b in both.items()},
                'bytes': {side: b.bytes for side, b in both.items()},
                'sources': sources, 'duplicates': clusters, 'counts': counts}


def table(*rows):
    """Lines of a Markdown table; the first row is its head."""
    lines = []
    for row in rows:
        cells = [f'{x:,}' if isinstance(x, int) else str(x) for x in row]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return ['', lines[0], '|' + '---|' * len(rows[0]), *lines[1:]]


def listed(counter):
    """'mit: 20, gpl: 1,000'"""
    return ', '.join(f'{name}: {n:,}' for name, n in counter.items()) or 'none'


def shown(meta, bins):
    """The files of ids or records that stay: with write=text, shards take the place of train.bin."""
    return [b for side, b in bins.items() if meta['config']['write'] == 'bins' or side != 'train']


def summary(report, meta, bins):
    """Lines for the terminal: what each stage dropped, and what the files hold."""
    lines = []
    for s in report['stages']:
        if s['dropped']:
            lines.append(f'{s["name"]}: {s["docs_in"]:,} -> {s["docs_out"]:,} documents '
                         f'({listed(s["dropped"])})')
    unit = f'tokens ({meta["dtype"]})' if 'dtype' in meta else 'bytes'
    for b in shown(meta, bins):
        line = f'{b.path}: {b.written:,} documents, {b.items:,} {unit}'
        if 'dtype' in meta and b.bytes and b.items and b.documents == b.written:        # each of them once
            line += f', {b.bytes / b.items:.2f} bytes per token'
        lines.append(line)
    if meta['config']['write'] == 'text':
        lines.append(f'{meta["config"]["out_dir"]}/shards: {report["documents"]["train"]:,} documents, '
                     f'{meta["tokens"]["train"]:,} tokens, as text')
    if report['malformed']:
        lines.append(f'{report["malformed"]} records could not be read; report.md says which')
    return lines


def report_md(report, meta, funnel, bins):
    """The report for people. report, meta: what report.json and meta.json hold."""
    config = meta['config']
    made_from = listed({f'{name}, files': s['files'] for name, s in report['sources'].items()})
    lines = [f'# {config["out_dir"]}', '', f'Made from {made_from}']
    if 'dtype' in meta:
        lines[-1] += (f'; tokenizer {config["tokenizer"]} of {meta["vocab_size"]:,}, hash '
                      f'{meta["tokenizer_hash"]}')

    rows = [('stage', 'documents in', 'out', 'bytes in', 'out', 'dropped')]
    for s in report['stages']:
        dropped = [f'{reason}: {n:,} ({n / s["docs_in"]:.1%})' for reason, n in s['dropped'].items()]
        rows.append((*(s[key] for key in ('name', 'docs_in', 'docs_out', 'bytes_in', 'bytes_out')),
                     ', '.join(dropped)))
    lines += table(*rows)
    lines += ['', f'{report["malformed"]} records could not be read']
    lines += [f'- {path}: {m["records"]}, the first at {m["first"]}' for path, m in funnel.malformed.items()]

    rows = [('file', 'documents', 'tokens' if config['kind'] == 'text' else 'bytes', 'bytes of text')]
    rows += [(os.path.basename(b.path), b.written, b.items, b.bytes or '') for b in shown(meta, bins)]
    lines += table(*rows)

    for name, s in report['sources'].items():
        licences = listed(dict([*s['licences'].items()][:20]))
        lines += ['', f'{name} ({s["path"]}): licences {licences}']
        if 'epochs' in s:
            line = f'{s["documents"]:,} documents, {s["tokens"]:,} training tokens'
            if config['write'] == 'bins':
                share = s['mixed'] / max(1, meta['tokens']['train'])
                line += f' x {s["epochs"]:.2f} passes = {share:.1%} of train.bin'
            lines.append(line + ('; more than 4 passes add little' if s['epochs'] > 4 else ''))
    for stage, found in report['duplicates'].items():
        lines += ['', f'{stage}, clusters by size: {listed(found["sizes"])}']
        lines += [f'- {n:,} copies of {path}' for n, path in found['largest']]
    for name, counter in report['counts'].items():
        lines += ['', f'{name}: {listed(counter)}']

    lines += ['', 'decontaminated: no (--decontaminate=HumanEval.jsonl.gz)']
    if 'decontaminated' in meta:
        problems = ', '.join(meta['decontaminated']['problems'])
        lines[-1] = f'decontaminated: {problems}, by {config["decontaminate_ngram"]}-grams of words'
    if config['audit']:
        words = ', '.join(funnel.vanished()[:200])
        lines += ['', f'words of ten documents or more that are gone (who writes them?): {words}']

    rows = [('reason', 'for example', 'begins')]
    for reason, samples in sorted(funnel.samples.items()):
        for _, path, text in samples[:3]:
            begin = ' '.join(re.sub('[`|]', ' ', text[:90]).split())
            rows.append((reason, path, f'`{begin}`'))
    return '\n'.join(lines + table(*rows)) + '\n'


def audit_md(funnel):
    """The samples in full, for people to read."""
    chapters = []
    for reason, samples in sorted(funnel.samples.items()):
        texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
        chapters.append(f'# {reason}\n' + '\n'.join(texts))
    return '\n'.join(chapters)


def pages(report, meta, funnel, bins):
    """{name: text} of all files that tell of a run."""
    found = {'report.md': report_md(report, meta, funnel, bins), 'report.json': json.dumps(report, indent=1),
             'meta.json': json.dumps(meta, indent=1)}
    if meta['config']['audit']:
        found['audit.md'] = audit_md(funnel)
    return found
