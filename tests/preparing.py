"""What the tests of clean.py and prepare.py share: small texts, their commands, and what they leave."""
import gzip
import json
import pathlib
import random

import numpy as np
from conftest import ok, read_json, run
from conftest import write as write_records  # noqa: F401

from tokenizer import Tokenizer

RAW = ['--mode=raw', '--dedup=none', '--pii=False']         # nothing is cleaned
# 60 documents; among them what encoders stumble over
DOCUMENTS = [f'# {i}\n' + ''.join(f'def f{i}_{j}(x):\n    return x + {i * j}\n'
                                 for j in range(i % 7 + 1)) for i in range(54)]
DOCUMENTS += ['a\r\nb\r\n', 'no newline', '<|endoftext|> typed by a user\n', 'naïve 漢字 🦜\n',
              '\ttab and trailing blank \n\n\n', 'a \ufeffbyte order mark\n']
PROSE = ['The old mill stood by the river, and every spring the water rose until it reached the '
         f'second step of the stair; in the year {1800 + i} it came as far as the door, and nobody '
         'slept that night.\n'
         for i in range(0, 120, 3)]
WORDS = [''.join(random.Random(i).choice('bdfklmnprst') + random.Random(i + j * 1e6).choice('aeiou')
                 for j in range(2, 3 + i % 3)) for i in range(2000)]


def prose(seed, n=60):
    """A sentence of n words that nobody else has."""
    return ' '.join(random.Random(seed).choices(WORDS, k=n)).capitalize() + '.'


def write(folder, texts, name='{:03}.txt'):
    """A folder with a file for each text."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / name.format(i)).write_bytes(text.encode())
    return folder


# Results are in the folder out of the test's own folder, unless a test says otherwise.
def clean(source, *flags, out='out'):
    """Run clean.py; returns what it prints."""
    return ok(run(f'clean.py --source={source} --out_dir={out} --overwrite=True', *flags))


def lines(out='out'):
    """The lines of its shards, in order."""
    return [json.loads(line) for path in sorted((pathlib.Path(out) / 'shards').iterdir())
            for line in gzip.decompress(path.read_bytes()).splitlines()]


def kept(out='out'):
    """Their texts, sorted."""
    return sorted(line['text'] for line in lines(out))


def prepare(source, *flags, out='out'):
    """Run prepare.py, with bytes as tokens unless a flag says otherwise; returns what it prints."""
    return ok(run(f'prepare.py --source={source} --out_dir={out} --tokenizer=byte --overwrite=True', *flags))


def read(out='out'):
    """meta, tokenizer, {'train', 'val'}: token ids"""
    meta = read_json(f'{out}/meta.json')
    bins = {side: np.fromfile(f'{out}/{side}.bin', meta['dtype']) for side in ('train', 'val')}
    return meta, Tokenizer.load(f'{out}/tokenizer.json'), bins


def documents(out='out'):
    """{'train', 'val'}: the documents that the bins hold, in order"""
    _, tok, bins = read(out)
    texts = {}
    for side, ids in bins.items():
        ends = np.flatnonzero(ids == tok.special['<|endoftext|>'])
        assert ends[-1] == len(ids) - 1             # every document ends, the last one too
        texts[side] = [tok.decode(part[:-1]) for part in np.split(ids, ends + 1)[:-1]]
    return texts


def report(out='out'):
    return read_json(f'{out}/report.json')


def dropped(out='out'):
    """{reason: documents} of all stages"""
    return {reason: n for stage in report(out)['stages'] for reason, n in stage['dropped'].items()}
