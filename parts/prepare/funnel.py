"""
The funnel: an account of what came in, what was dropped and why, and what came out; and the report about it.

    funnel = Funnel(n_samples=20)
    funnel.count('rules', 'short', 90, 90)              # a document of 90 bytes was dropped by the rules
    funnel.count('rules', None, 500, 490)               # another one passed them, 10 bytes lighter
    funnel.stages(['rules'])                            # the rows of the table

Copy this file alone: it needs the standard library.
"""
import collections, hashlib, json, os, re, shlex


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
            known = self.malformed.setdefault(path, {**entry, 'records': 0})
            known['records'] += entry['records']

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

    def report(self, names, bins, sources, clusters):
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
                'duplicates': clusters,
                'counts': counts}


def table(rows):
    """Rows as a Markdown table; the first one is its head."""
    lines = []
    for row in rows:
        cells = [f'{x:,}' if isinstance(x, int) else str(x) for x in row]
        lines.append('| ' + ' | '.join(cells) + ' |\n')
    return '\n' + lines[0] + '|---' * len(rows[0]) + '|\n' + ''.join(lines[1:])


def listed(counter, form=','):
    return ', '.join(f'{name}: {n:{form}}' for name, n in counter.items()) or 'none'


def summary(report, meta, bins):
    """What each stage dropped and what the files hold, two tables for the terminal and the report."""
    rows = [('stage', 'documents in', 'out', 'bytes in', 'out', 'dropped')]
    for s in report['stages']:
        row = [s[key] for key in ('name', 'docs_in', 'docs_out', 'bytes_in', 'bytes_out')]
        dropped = [f'{reason}: {n:,} ({n / s["docs_in"]:.1%})' for reason, n in s['dropped'].items()]
        rows.append([*row, ', '.join(dropped)])
    text = table(rows)
    config = meta['config']
    rows = [('file', 'documents', 'tokens' if 'dtype' in meta else 'bytes', 'bytes of text')]
    for side, b in bins.items():
        if config['write'] == 'text' and side == 'train':       # shards take its place
            rows.append((f'{config["out_dir"]}/shards', b.documents, meta['tokens'][side], b.bytes))
        else:
            rows.append((b.path, b.written, b.items, b.bytes or ''))
    share = f'\n{report["card"]["share"]}' if 'card' in report else ''
    return f'{text}{table(rows)}\n{report["malformed"]} records could not be read{share}'


def report_md(report, meta, funnel, bins):
    """The report for people. report, meta: the contents of report.json and meta.json."""
    config = meta['config']
    lines = [f'# {config["out_dir"]}', summary(report, meta, bins)]
    lines += [f'- {path}: {m["records"]}, the first at {m["first"]}' for path, m in funnel.malformed.items()]

    for name, s in report['sources'].items():
        lines += ['', f'{name} ({s["path"]}): {s["files"]} files, licences {listed(s["licences"])}']
        if s.get('passed_over'):
            lines.append(f'files of other kinds, passed over: {s["passed_over"]}')
        if s.get('read'):
            n = sum(s['dropped'].values())
            lines.append(f'{s["read"]:,} documents read, {n:,} dropped ({n / s["read"]:.1%}): '
                         f'{listed(s["dropped"])}')
        if s.get('epochs'):
            share = s['mixed'] / meta['tokens']['train']
            lines.append(f'{s["documents"]:,} documents, {s["tokens"]:,} training tokens x '
                         f'{s["epochs"]:.2f} passes = {share:.1%} of train.bin')
            if s['epochs'] > 4:
                lines[-1] += '; more than 4 passes add little'
    for name, counter in report['counts'].items():
        lines += ['', f'{name}: {listed(counter)}']

    often = funnel.counters['words in'].most_common(50_000)
    kept = funnel.counters['words out']
    gone = [word for word, n in often if n >= 10 and not kept[word]]
    if 'card' in report:
        lines.append(card_md(report['card']))
    if gone:
        lines += ['', f'words of ten documents or more that are gone: {", ".join(gone[:200])}']
    return '\n'.join(lines) + '\n'


def card_md(card):
    """The card as a chapter of report.md. card: its entry in report.json."""
    return '\n'.join([
        '', '## Data card', '',
        f'- languages of the prose, in a sample: {listed(card["languages"], ".1%")}',
        f'- genres, in a sample: {listed(card["genres"], ".1%")}',
        f'- licences: {listed(card["licences"])}',
        f'- tokens: {card["share"]}',
        f'- validation and training: {card["overlap"]}',
        '', 'Known skew:', '', *(f'- {sentence}' for sentence in card['skew'] or ['nothing stands out'])])


def manifest(docs, which):
    """{'train': [{'name', 'documents', 'bytes', 'sha256'}]}, a Corpus's shards of records; and the SHA-256 of
    all those, one after the other. which: bool (n,), the documents that are in them."""
    shards = []
    whole = hashlib.sha256()
    for i, base in enumerate(docs.bases):
        path = f'{base}.jsonl.gz'
        own = hashlib.sha256()
        with open(path, 'rb') as f:
            while block := f.read(1 << 24):
                own.update(block)
                whole.update(block)
        shards.append({'name': f'{i:05}.jsonl.gz', 'documents': int(which[docs.span(i)].sum()),
                       'bytes': os.path.getsize(path), 'sha256': own.hexdigest()})
    return {'train': shards}, whole.hexdigest()


def listing(docs, in_val):
    """Yield a line of JSON for each document that is left of a Corpus: its side and what is known of it."""
    for shard in range(docs.n_shards):
        for i, about in enumerate(docs.about(shard), docs.first[shard]):
            if docs.keep[i]:
                yield json.dumps({'side': 'val' if in_val[i] else 'train', **about}) + '\n'


def decontaminated(funnel, benchmarks, n):
    """The entry of meta.json on the benchmarks, {path: records}, whose n-grams were looked for."""
    dropped = funnel.counters['stage decontaminate']['dropped in a benchmark']
    problems = {path: len(found) for path, found in benchmarks.items()}
    return {'problems': problems, 'ngram': n, 'dropped': dropped}


def next_command(config, tokenizer_kind):
    """The command that trains on the result."""
    out_dir = config['out_dir']
    scripts = {'text': 'train.py config/quickstart.py', 'sft': 'sft.py', 'preference': 'dpo.py'}
    command = ['python', *scripts[config['kind']].split(), f'--data_dir={out_dir}']
    if config['write'] == 'text':
        command.append(f'--streaming={out_dir}/shards')
    if tokenizer_kind == 'char':        # the config's prompt may have other characters
        command.append('--sample_prompt=')
    usual = {'source': 'stdlib', 'sources': None, 'tokenizer': 'bpe', 'vocab_size': 4096}
    same = all(config[name] == value for name, value in usual.items())
    if os.path.realpath(out_dir) == os.path.realpath('data/quickstart') and not same:
        command.append('--data_from=')  # the config asks for the standard library there
    return shlex.join(command)


def audit_md(funnel):
    """The samples of what was kept, and of what was dropped for each reason, for people to read."""
    chapters = []
    for reason, samples in sorted(funnel.samples.items()):
        texts = [f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples]
        chapters.append(f'# {reason}\n' + '\n'.join(texts))
    return '\n'.join(chapters)
