"""
A corpus on its way to the disk: files that are never half written, counted again, and an account of what was
dropped.

Copy this file alone: it needs numpy and tqdm.
"""
import atexit, collections, concurrent.futures, hashlib, json, multiprocessing, os, threading, time
import numpy as np
from tqdm import tqdm

PIECE = 16_000_000              # characters, bytes or tokens held in memory at once


def write_file(path, content):
    """Text, under a temporary name first: there is never half a file. Names and samples may be no Unicode."""
    with open(f'{path}.tmp', 'w', encoding='utf-8', errors='backslashreplace', newline='\n') as f:
        f.write(content)
    os.replace(f'{path}.tmp', path)


class Bin:
    """A file of the result, under a temporary name until its maker renames it."""

    def __init__(self, path):
        self.path, self.sha256, self.file = path, hashlib.sha256(), open(f'{path}.tmp', 'wb')
        self.items = self.written = self.documents = self.bytes = 0
        atexit.register(lambda: os.path.exists(f'{path}.tmp') and os.remove(f'{path}.tmp'))

    def write(self, data, documents):
        """data: bytes, or an array of ids, also a memory map; documents: how many end in it."""
        for start in range(0, len(data), PIECE):
            self.file.write(block := data[start:start + PIECE])
            self.sha256.update(block)
        self.items += len(data)
        self.written += documents                           # a document that is repeated counts each time

    def check(self, dtype, separator):
        """Close the file and count again what the disk holds: items, and documents by their separator, if
        they have one ([] if not)."""
        self.file.close()
        found = os.path.getsize(f'{self.path}.tmp')
        if found != self.items * dtype.itemsize:
            raise OSError(f'{self.path}.tmp has {found:,} bytes, {self.items * dtype.itemsize:,} were '
                          'written: is the disk full?')
        n = sum(int(np.isin(np.fromfile(f'{self.path}.tmp', dtype, PIECE, offset=i * dtype.itemsize),
                            separator).sum()) for i in range(0, self.items, PIECE))
        if separator and found and n != self.written:
            raise ValueError(f'{self.path}.tmp holds {n:,} documents, not {self.written:,}: please report '
                             'this bug')


class Funnel:
    """What the report is made of: counters by name (a stage's documents, bytes and reasons; licences...), a
    few samples for each reason, and what could not be read. JSON-able, and two can be added."""

    def __init__(self, n_samples=3):
        self.counters, self.samples, self.malformed = collections.defaultdict(collections.Counter), {}, {}
        self.n_samples = n_samples

    def count(self, stage, reason, bytes_in, bytes_out):
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
        entry = self.malformed.setdefault(path, {'records': 0, 'first': f'line {line}: {why}'})
        entry['records'] += 1

    def add(self, counters, samples, malformed):
        for name, counter in counters.items():
            self.counters[name].update(counter)
        for reason, documents in samples.items():
            for document in documents:
                self.sample(reason, *document)
        self.malformed.update(malformed)

    def to_json(self):
        return json.dumps({'counters': self.counters, 'samples': self.samples, 'malformed': self.malformed})


def in_parallel(function, jobs, processes, what):
    """Yield function(job) for each job, in order, by so many processes (0 = one per core). They are forked,
    so they see all that the caller has defined; where a system cannot fork (Windows), this process does the
    work. They end when their parent does."""
    def watch(parent):
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    def bar(results):
        return tqdm(results, total=len(jobs), desc=what, unit=' shards', disable=None)

    n = min(processes or os.cpu_count(), len(jobs))
    if n <= 1 or 'fork' not in multiprocessing.get_all_start_methods():
        yield from bar(map(function, jobs))
        return
    with concurrent.futures.ProcessPoolExecutor(
            n, multiprocessing.get_context('fork'), initargs=(os.getpid(),),
            initializer=lambda pid: threading.Thread(target=watch, args=(pid,), daemon=True).start()) as pool:
        try:
            yield from bar(pool.map(function, jobs))
        except concurrent.futures.process.BrokenProcessPool as e:
            raise OSError('a process was killed, perhaps because memory ran out; try again with fewer, '
                          f'--processes={(n + 1) // 2}: what is done is kept') from e
