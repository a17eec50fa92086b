"""
Records: how far down does the loss come in 150 steps of config/quickstart.py?

    python prepare.py --out_dir=data/quickstart
    python bench/records.py                         # the table
    python bench/records.py embedding_lr_10         # runs the missing seeds of this record, then the table

A record is a folder in bench/records/ with record.json:

    {"track": "llama", "on": "quickstart", "flags": ["--embedding_lr=10"], "what": "a sentence"}

and perhaps change.diff, a patch of this repository, applied to a copy of it. "on" names the record that it
changes; all else is equal. Track llama: the weights still fit LlamaForCausalLM; track free: anything goes.
A run adds the machine, with the commit, and the bits per byte of each seed to record.json, and log.txt of its
first seed, which begins with what was run.

The rule of evidence: five seeds, and a mean that is lower than that of the record which it changes, by more
than two standard errors. Differences are taken seed by seed, because runs with the same seed begin with the
same weights and read the same batches.
"""
import json
import math
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from parts.train import journal    # noqa: E402
RECORDS = ROOT / 'bench/records'
SEEDS = range(5)
# the records so far were measured with a tied head, which the preset had then
FLAGS = ['--max_steps=150', '--warmup_steps=15', '--eval_interval=150', '--save_interval=150',
         '--sample_tokens=1', '--num_samples=1', '--overwrite=True', '--out_dir=out', '--tie_embeddings=True']


def read(name):
    path = RECORDS / name / 'record.json'
    if not path.exists():
        sys.exit(f'error: {path} is not there; write it as the top of bench/records.py says')
    return json.loads(path.read_text(encoding='utf-8'))


def processor():
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor()


def copy_of_repository(name, folder):
    """This repository's code in a folder, changed by the record's patch, and its data."""
    for part in ('config', 'parts'):
        shutil.copytree(ROOT / part, folder / part)
    for script in ROOT.glob('*.py'):
        shutil.copy(script, folder)
    (folder / 'data').symlink_to(ROOT / 'data')
    change = RECORDS / name / 'change.diff'
    if change.exists():
        subprocess.run(['patch', '-p1', '-s', '-i', change], cwd=folder, check=True)
    return change.read_text(encoding='utf-8') if change.exists() else ''


def run(name, record):
    """The seeds that are missing, one after the other; each is kept at once."""
    threads = os.environ.get('OMP_NUM_THREADS', 'all')
    record['machine'] = f'{processor()}, {threads} threads; {journal.machine_and_versions()}'
    bits = record.setdefault('bits_per_byte', {})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        change = copy_of_repository(name, folder)
        for seed in SEEDS:
            if str(seed) in bits:
                continue
            command = ['train.py', 'config/quickstart.py', *FLAGS, *record['flags'], f'--seed={seed}']
            print(name, *command, flush=True)
            done = subprocess.run([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                sys.exit(f'error: {name}: train.py ended with exit code {done.returncode}')
            rows = (folder / 'out/metrics.jsonl').read_text(encoding='utf-8').splitlines()
            bits[str(seed)] = [row['val_bpb'] for row in map(json.loads, rows) if 'val_bpb' in row][-1]
            (RECORDS / name / 'record.json').write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
            if seed == SEEDS[0]:
                log = (folder / 'out/train.log').read_text(encoding='utf-8')
                head = f'{record["machine"]}\npython {" ".join(command)}\n{change}\n'
                (RECORDS / name / 'log.txt').write_text(head + log, encoding='utf-8')


def mean_and_error(values):
    """The mean, and its standard error: nan for one value, which has none."""
    if len(values) == 1:
        return values[0], math.nan
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


def table(records):
    """Lowest last. Each is compared, seed by seed, with the record that it changes."""
    print('| record | track | bits per byte | seeds | difference from what it changes | what |')
    print('|---|---|---|---|---|---|')
    lowest_last = sorted(records, key=lambda name: -statistics.mean(records[name]['bits_per_byte'].values()))
    for name in lowest_last:
        record = records[name]
        bits = record['bits_per_byte']
        mean, error = mean_and_error([*bits.values()])
        verdict = ''
        if 'on' in record:
            before = records[record['on']]['bits_per_byte']
            gains = [bits[seed] - before[seed] for seed in bits if seed in before]
            gain, its_error = mean_and_error(gains)
            counts = 'counts' if gain < -2 * its_error else 'does not count'
            verdict = f'{gain:+.4f} ± {its_error:.4f}: {counts}'
            if len(gains) < len(SEEDS):
                verdict = f'{gain:+.4f}: too few seeds'
        interval = f' ± {error:.4f}' if len(bits) > 1 else ''
        print(f'| {name} | {record["track"]} | {mean:.4f}{interval} | {len(bits)} | {verdict} | '
              f'{record["what"]} |')


if __name__ == '__main__':
    for name in sys.argv[1:]:
        run(name, read(name))
    found = {folder.name: read(folder.name) for folder in sorted(RECORDS.iterdir())}
    table({name: record for name, record in found.items() if record.get('bits_per_byte')})
