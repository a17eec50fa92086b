"""
Corpora for experiments: pieces of the standard library, copies of them, and secrets planted in them.
"""
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import peers  # noqa: F401  this checkout on the path

from tokenizer import Tokenizer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
END = '<|endoftext|>'


def prepare(*flags):
    """Run prepare.py; its error ends this script, too."""
    done = subprocess.run([sys.executable, f'{ROOT}/prepare.py', *flags], text=True, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.strip())


def read_ids(data, side='train'):
    with open(f'{data}/meta.json', encoding='utf-8') as f:
        return np.fromfile(f'{data}/{side}.bin', json.load(f)['dtype'])


def pieces(data, seed=0, size=1000):
    """Training documents cut at empty lines into texts of about `size` characters, shuffled."""
    tokenizer = Tokenizer.load(f'{data}/tokenizer.json')
    found = []
    for document in tokenizer.decode(read_ids(data).tolist()).split(END):
        text = ''
        for part in document.split('\n\n'):
            text += part + '\n\n'
            if len(text) >= size:
                found.append(text)
                text = ''
    np.random.default_rng(seed).shuffle(found)
    return found, tokenizer


def write_data(base, folder, ids):
    """A data folder with these training ids, and the tokenizer and the validation text of base."""
    os.makedirs(folder, exist_ok=True)
    with open(f'{base}/meta.json', encoding='utf-8') as f:
        meta = json.load(f)
    ids = np.array(ids, meta['dtype'])
    ids.tofile(f'{folder}/train.bin')
    meta['tokens']['train'] = len(ids)
    meta['sha256']['train'] = hashlib.sha256(ids.tobytes()).hexdigest()
    meta['sources'] = {}
    with open(f'{folder}/meta.json', 'w', encoding='utf-8') as f:
        json.dump(meta, f)
    for file in ('val.bin', 'tokenizer.json'):
        with open(f'{base}/{file}', 'rb') as old, open(f'{folder}/{file}', 'wb') as new:
            new.write(old.read())


def with_copies(ids, budget, share, one):
    """(`budget` token ids, how often the first document is in them). ids: documents, lists of ids. A `share`
    of the tokens are copies: of the first documents, once more; if `one`, of the first alone, repeatedly."""
    copies, i = [], 0
    while len(copies) < share * budget:
        copies += ids[0 if one else i]
        i += 1
    found = []
    for row in ids:
        if len(found) >= budget - len(copies):
            break
        found += row
    return found[:max(0, budget - len(copies))] + copies[:budget], 1 + (i if one else min(i, 1))


def number(rng):
    """Nine digits in the form of a US social security number that hide_pii knows."""
    return f'{rng.integers(100, 666)}-{rng.integers(10, 100)}-{rng.integers(1000, 10000)}'


def plant(texts, n, rng, times=(1, 10, 100)):
    """The first n texts and in them, for each k of times, two secrets: one `copied`, the end of a short
    document that is there k times, and one `spread` over k documents, a line in each. Returns the documents,
    shuffled, and {(way, k): (start of the line, secret)}."""
    documents, secrets = texts[:n], {}
    for way in ('copied', 'spread'):
        for k in times:
            name = ''.join(rng.choice([*'ABCDEFGHIJKLMNOPQRSTUVWXYZ'], 6))
            secrets[way, k] = f'\n# {name}:', f' {number(rng)}\n'
            line = ''.join(secrets[way, k])
            if way == 'copied':
                documents += [texts[n + len(secrets)][:200] + line] * k
            else:
                for i in rng.choice(n, k, replace=k > n):
                    documents[i] += line
    return rng.permutation(documents).tolist(), secrets
