"""
Shared by the benchmarks: this checkout's leaves on the path, the whole standard library as texts, and a
process of its own for every measurement, so that no contestant meets what another one left in memory.
"""
import json
import pathlib
import subprocess
import sys
import sysconfig
import time
from statistics import median_high as median

ROOT = str(pathlib.Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)
import configurator     # noqa: E402, F401      # each benchmark ends as the scripts do


def python_texts():
    """The .py files of the standard library, with its tests; those that are not UTF-8 are left out."""
    texts = []
    for path in sorted(pathlib.Path(sysconfig.get_paths()['stdlib']).rglob('*.py')):
        if 'site-packages' not in path.parts:
            try:
                texts.append(path.read_bytes().decode())
            except UnicodeDecodeError:
                pass
    return texts


def in_turn(contestants, rounds, script):
    """Run `script NAME` for each name, round after round (A B C A B C ...), because machines drift while the
    ratios within a round do not. Each prints what it measured as a line of JSON, {'seconds': 1.5, ...}.
    Returns {name: what it measured in each round}. One that fails, as does a peer that is not installed, is
    left out, with a line that says why."""
    results = {name: [] for name in contestants}
    for _ in range(rounds):
        for name in list(results):
            run = subprocess.run([sys.executable, script, name], capture_output=True, text=True)
            if run.returncode:
                print(f'{name} failed: {run.stderr.strip().splitlines()[-1]}', flush=True)
                del results[name]
                continue
            results[name].append(json.loads(run.stdout.splitlines()[-1]))
    return results


def timed(work):
    """Seconds that work() takes, and what it returns."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def ours_over(ours, others, key):
    """The median over the rounds of our number / the other's number."""
    return median([a[key] / b[key] for a, b in zip(ours, others)])
