"""
Shared by the benchmarks: this checkout's leaves on the path, the whole standard library as documents, and a
process of its own for every measurement, so that peak memory is that of one contestant.
"""
import os
import pathlib
import resource
import subprocess
import sys
import sysconfig
import time

ROOT = str(pathlib.Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)
from configurator import one_line_for_mistakes      # noqa: E402
sys.excepthook = one_line_for_mistakes              # in each benchmark that imports this


def python_documents(folder=None):
    """The .py files below a folder, the standard library with its tests by default: [(path, text)]."""
    folder = folder or sysconfig.get_paths()['stdlib']
    documents = []
    for root, _, names in os.walk(folder):
        if 'site-packages' in root[len(folder):]:
            continue
        for name in names:
            if name.endswith('.py'):
                try:
                    with open(os.path.join(root, name), encoding='utf-8', newline='') as f:
                        documents.append((os.path.join(root, name), f.read()))
                except UnicodeDecodeError:
                    pass
    return sorted(documents)


def in_turn(contestants, rounds, script):
    """Run `script NAME` for each name, round after round (A B C A B C ...), because machines drift while the
    ratios within a round do not. Each prints 'seconds megabytes note'. Returns {name: rows of these}. One
    that fails, as does a peer that is not installed, is left out, with a line that says why."""
    results = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in list(results):
            run = subprocess.run([sys.executable, script, name], capture_output=True, text=True)
            if run.returncode:
                print(f'{name} failed: {run.stderr.strip().splitlines()[-1]}', flush=True)
                del results[name]
                continue
            seconds, megabytes, note = run.stdout.strip().splitlines()[-1].split(' ', 2)
            results[name].append((float(seconds), float(megabytes), note))
    return results


def timed(work):
    """Seconds that work() takes, the process's peak memory in MB, and what it returns."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, value


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def cpu_of(row):
    """The CPU seconds of a row of in_turn(), if the note begins with them."""
    return float(row[2].split()[0])


def ours_over(results, name, of):
    """The median over the rounds of of(our row) / of(the other's row)."""
    return median([of(ours) / of(other) for ours, other in zip(results['ours'], results[name])])
