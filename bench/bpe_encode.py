"""
Encoding in bulk, beside HF tokenizers with the same vocabulary: the whole standard library with its tests, in
memory before the clock starts, in batches of 4 MB, as in prepare.py; one process per measurement, in turn.

    pip install -r bench/requirements.txt
    python bench/bpe_encode.py
"""
import hashlib
import json
import os
import sys
import tempfile

import numpy as np
from bpe_train import ROUNDS, cpu_seconds, documents
from peers import cpu_of, in_turn, median, ours_over, timed

from parts.tokenizer import chunks, hf_tokenizer
from tokenizer import Tokenizer


def ours(texts):
    return Tokenizer.load(os.environ['TOKENIZER']).encode_batch


def hf_encode_batch(texts, fast=False):
    import tokenizers
    tok = Tokenizer.load(os.environ['TOKENIZER'])
    theirs = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer.to_their_form(tok.to_json(), {})))
    encode = theirs.encode_batch_fast if fast else theirs.encode_batch
    return lambda texts: [e.ids for e in encode(texts, add_special_tokens=False)]


CONTESTANTS = {'ours': ours, 'hf_encode_batch': hf_encode_batch,
               'hf_encode_batch_fast': lambda texts: hf_encode_batch(texts, fast=True)}

if __name__ == '__main__':
    texts = documents()
    size = sum(len(text.encode()) for text in texts) / 1e6
    if sys.argv[1:]:
        encode = CONTESTANTS[sys.argv[1]](texts)
        encode(['warm up'])                     # builds tables
        before, digest, n = cpu_seconds(), hashlib.sha256(), 0

        def work():
            global n
            for batch in chunks.in_batches(texts, 4_000_000):
                for ids in encode(batch):
                    data = np.array(ids, np.uint16)
                    digest.update(data)
                    n += len(data)

        seconds, megabytes, _ = timed(work)
        print(seconds, megabytes, cpu_seconds() - before, n, digest.hexdigest()[:16])
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ['TOKENIZER'] = f'{folder}/tokenizer.json'
            Tokenizer.train(texts, 32_768, special_tokens=()).save(os.environ['TOKENIZER'])
            print(f'{len(texts):,} files, {size:.1f} MB, vocabulary 32,768, {ROUNDS} rounds')
            results = in_turn(CONTESTANTS, ROUNDS, __file__)
        print(f'{"":>22}{"MB/s":>8}{"ours / it":>12}{"MB per CPU second":>20}{"ours / it":>12}'
              f'{"peak MB":>10}   ids')
        for name, rows in results.items():
            rates = [lambda row: size / row[0], lambda row: size / cpu_of(row)]     # MB a second
            rate, cpu_rate = (median(map(of, rows)) for of in rates)
            faster, cpu_faster = (ours_over(results, name, of) for of in rates)
            print(f'{name:>22}{rate:>8.1f}{faster:>12.2f}{cpu_rate:>20.1f}'
                  f'{cpu_faster:>12.2f}{max(m for _, m, _ in rows):>10.0f}   {rows[0][2].split()[2]}')
