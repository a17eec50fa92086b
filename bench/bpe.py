"""
Byte-level BPE, beside HF tokenizers: training, and encoding in bulk. The whole standard library
with its tests, vocabulary 32,768, one pattern for all, one process per measurement, in turn.

    pip install -r bench/requirements.txt
    python bench/bpe.py train
    SPLIT=gpt2 python bench/bpe.py train        # GPT-2's pattern, or cl100k, in place of ours
    python bench/bpe.py encode                  # with our vocabulary, in batches of 4 MB, as in prepare.py

CPU seconds count all processes and threads, so they can be compared on a machine with other work, too.
"""
import hashlib
import importlib.metadata
import json
import os
import resource
import sys
import tempfile

import numpy as np
from peers import in_turn, median, ours_over, python_texts, timed
from configurator import Mistake
from extras import bpe, fit, hf_tokenizer
from tokenizer import PATTERN, Tokenizer

VOCAB = 32_768          # bytes and merges; no special tokens, so that all do the same work
NAME = os.environ.get('SPLIT')
if NAME not in (None, *fit.PATTERNS):
    raise Mistake(f'SPLIT={NAME} must be one of {", ".join(fit.PATTERNS)}')
SPLIT = fit.PATTERNS.get(NAME, PATTERN)
ROUNDS = int(os.environ.get('ROUNDS', 5))


# --- what is timed: a call, which returns the tokens or the ids ---------------------------------------------
def train_ours(texts):
    return lambda: Tokenizer.train(iter(texts), VOCAB, special_tokens=(), pattern=SPLIT).vocab


def train_hf(texts):
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior='isolated')
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    return lambda: t.train_from_iterator(texts, trainer)        # numbers the bytes differently: tests compare


def in_bulk(encode, texts):
    encode(['warm up'])                         # builds tables
    return lambda: [np.array(ids, np.uint16) for batch in bpe.in_batches(texts, 4_000_000)
                    for ids in encode(batch)]


def encode_ours(texts):
    return in_bulk(Tokenizer.load(os.environ['TOKENIZER']).encode_batch, texts)


def encode_hf(texts):
    import tokenizers
    form = hf_tokenizer.to_their_form(Tokenizer.load(os.environ['TOKENIZER']).to_json(), {})
    theirs = tokenizers.Tokenizer.from_str(json.dumps(form))
    return in_bulk(lambda batch: [e.ids for e in theirs.encode_batch(batch, add_special_tokens=False)], texts)


CONTESTANTS = {'train': {'ours': train_ours, 'hf': train_hf},
               'encode': {'ours': encode_ours, 'hf': encode_hf}}


def cpu_seconds():
    """Of this process with its threads, and of the processes that it started and that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def measured(what, who, texts):
    """What one contestant needs, and a name for what it returns: equal ids have equal names."""
    work = CONTESTANTS[what][who](texts)
    before = cpu_seconds()
    seconds, found = timed(work)
    cpu = cpu_seconds() - before
    name = hashlib.sha256(b'\0'.join(map(bytes, found))).hexdigest()[:16] if found else '-'
    return {'seconds': seconds, 'cpu': cpu, 'name': name}


def main():
    what, _, who = sys.argv[1].partition(':')
    texts = python_texts()
    if who:
        print(json.dumps(measured(what, who, texts)))
        return
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f'{len(texts):,} files, {size:.1f} MB, vocabulary {VOCAB:,}, {ROUNDS} rounds; Hugging Face: '
          f'tokenizers {importlib.metadata.version("tokenizers")}')
    with tempfile.TemporaryDirectory() as folder:
        if what == 'encode':
            os.environ['TOKENIZER'] = f'{folder}/tokenizer.json'
            Tokenizer.train(texts, VOCAB, special_tokens=()).save(os.environ['TOKENIZER'])
        results = in_turn([f'{what}:{who}' for who in CONTESTANTS[what]], ROUNDS, __file__)
    print(f'{"medians":>10}{"seconds":>10}{"ours / it":>12}{"CPU seconds":>14}{"ours / it":>12}   the same?')
    ours = results[f'{what}:ours']
    for name, rows in results.items():
        seconds, cpu = (median([row[key] for row in rows]) for key in ('seconds', 'cpu'))
        print(f'{name.split(":")[1]:>10}{seconds:>10.2f}{ours_over(ours, rows, "seconds"):>12.2f}'
              f'{cpu:>14.2f}{ours_over(ours, rows, "cpu"):>12.2f}   {rows[0]["name"]}')


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    if sys.argv[1:2] and sys.argv[1].partition(':')[0] in CONTESTANTS:
        main()
    else:
        sys.exit(__doc__)
