"""
prepare.py from end to end: MB/s and peak memory as the corpus grows tenfold. The corpus is Python from the
installed packages, over and over: each copy with a third of its names changed, so that it is another document
to every stage, and every tenth of them a second time with one line more: a near-duplicate.

    python bench/prepare_speed.py [--megabytes 30 300 3000] [--folder=/tmp/prepare_speed]
"""
import argparse
import json
import keyword
import os
import pathlib
import random
import re
import subprocess
import sys
import time

import numpy as np
from peers import ROOT, python_documents

WORD = re.compile(r'\b[a-z_]{4,}\b')
KEYWORDS = {*keyword.kwlist, *keyword.softkwlist, 'self', 'print', 'range'}


def changed(text, number):
    """Copy `number` of a text: a third of its names get an ending."""
    rng = random.Random(number)
    names = {w for w in set(WORD.findall(text)) - KEYWORDS if not w.startswith('__')}
    chosen = {w for w in sorted(names) if rng.random() < 0.33}
    return WORD.sub(lambda m: f'{m[0]}_{number}' if m[0] in chosen else m[0], text)


def write_corpus(folder, megabytes, documents):
    """.jsonl shards of 16 MB, unless they are there; returns the bytes of text in them."""
    if (folder / 'size').exists():
        return int((folder / 'size').read_text(encoding='utf-8'))
    folder.mkdir(parents=True, exist_ok=True)
    size, number, shard = 0, 0, None
    while size < megabytes * 1e6:
        for i, text in enumerate(documents):
            text = text if number == 0 else changed(text, number)
            for copy in [text, text + '\n# once more\n'] if i % 10 == 0 else [text]:
                if shard is None or shard.tell() > 16e6:
                    shard = open(folder / f'{size:012}.jsonl', 'w', encoding='utf-8')
                size += len(copy.encode())
                shard.write(json.dumps({'content': copy}) + '\n')
            if size >= megabytes * 1e6:
                break
        number += 1
    shard.close()
    (folder / 'size').write_text(str(size), encoding='utf-8')
    return size


def memory(pid):
    """Proportional set size of a process and its children, MB: shared pages count once."""
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            total += int(re.search(r'Pss:\s+(\d+)', pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text())[1])
            for task in os.listdir(f'/proc/{pid}/task'):
                waiting += map(int, pathlib.Path(f'/proc/{pid}/task/{task}/children').read_text().split())
        except (OSError, TypeError):
            pass
    return total / 1024


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--megabytes', default=[30, 300, 3000], type=float, nargs='+')
    parser.add_argument('--folder', default='/tmp/prepare_speed', type=pathlib.Path)
    options = parser.parse_args()
    packages = pathlib.Path(np.__file__).parent.parent
    documents = python_documents() + [d for name in ('torch', 'transformers', 'numpy')
                                      for d in python_documents(f'{packages}/{name}/')]
    documents = [text for _, text in documents if len(text) < 200_000]
    random.Random(0).shuffle(documents)
    print('      MB  documents  seconds   MB/s  peak MB       tokens   left after stages')
    for megabytes in options.megabytes:
        source, out = options.folder / f'{megabytes:g}', options.folder / 'out'
        size = write_corpus(source, megabytes, documents)
        start, peak = time.perf_counter(), 0
        with subprocess.Popen([sys.executable, f'{ROOT}/prepare.py', f'--source={source}',
                               f'--out_dir={out}', '--mode=code', '--vocab_size=32768'],
                              stdout=subprocess.DEVNULL) as p:
            while p.poll() is None:
                peak = max(peak, memory(p.pid))
                time.sleep(0.2)
        seconds = time.perf_counter() - start
        assert p.returncode == 0
        report = json.loads((out / 'report.json').read_text(encoding='utf-8'))
        left = ', '.join(f'{s["name"]} {s["docs_out"]:,}' for s in report['stages'] if s['dropped'])
        print(f'{size / 1e6:>8.0f}{report["stages"][0]["docs_in"]:>11,}{seconds:>9.1f}'
              f'{size / 1e6 / seconds:>7.2f}{peak:>9.0f}{report["tokens"]["train"]:>13,}   {left}',
              flush=True)
