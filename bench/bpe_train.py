"""
BPE training, beside HF tokenizers and rustbpe: the whole standard library with its tests, vocabulary 32,768,
one pattern for all, documents in memory before the clock starts, one process per measurement, in turn.

    pip install -r bench/requirements.txt
    python bench/bpe_train.py
    SPLIT=gpt2 python bench/bpe_train.py            # GPT-2's pattern, or cl100k, in place of ours

CPU seconds count all processes and threads, so they can be compared on a machine with other work, too.
"""
import hashlib
import os
import resource
import sys

from peers import cpu_of, in_turn, median, ours_over, python_documents, timed
from parts.sample import gguf_file
from tokenizer import PATTERN, Tokenizer

VOCAB = 32_768          # bytes and merges; no special tokens, so that all do the same work
SPLIT = gguf_file.PATTERNS.get(os.environ.get('SPLIT'), PATTERN)
ROUNDS = int(os.environ.get('ROUNDS', 5))


def documents():
    return [text for _, text in python_documents()]


def ours(texts):
    return Tokenizer.train(iter(texts), VOCAB, special_tokens=(), pattern=SPLIT).vocab


def hf(texts):
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior='isolated')
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


def rustbpe(texts):
    import rustbpe
    t = rustbpe.Tokenizer()
    t.train_from_iterator(iter(texts), VOCAB, pattern=SPLIT)
    return [bytes(token) for token, _ in sorted(t.get_mergeable_ranks(), key=lambda pair: pair[1])]


CONTESTANTS = {'ours': ours, 'hf': hf, 'rustbpe': rustbpe}


def cpu_seconds():
    """Of this process with its threads, and of the processes that it started and that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


if __name__ == '__main__':
    if sys.argv[1:]:
        texts = documents()
        before = cpu_seconds()
        seconds, megabytes, vocab = timed(lambda: CONTESTANTS[sys.argv[1]](texts))
        cpu = cpu_seconds() - before
        as_list = isinstance(vocab, list)       # HF numbers the bytes differently: tests compare with it
        name = hashlib.sha256(b'\0'.join(vocab)).hexdigest()[:16] if as_list else '-'
        print(seconds, megabytes, cpu, name)
    else:
        texts = documents()
        size = sum(len(text.encode()) for text in texts) / 1e6
        print(f'{len(texts):,} files, {size:.1f} MB, vocabulary {VOCAB:,}, {ROUNDS} rounds')
        results = in_turn(CONTESTANTS, ROUNDS, __file__)
        print(f'{"":>18}{"seconds (min, median, max)":>32}{"ours / it":>12}{"CPU seconds":>14}'
              f'{"ours / it":>12}{"peak MB":>10}   vocabulary')
        for name, rows in results.items():
            seconds = [row[0] for row in rows]
            ratio, cpu_ratio = (ours_over(results, name, of) for of in (lambda row: row[0], cpu_of))
            print(f'{name:>18}{min(seconds):>12.2f}{median(seconds):>10.2f}{max(seconds):>10.2f}{ratio:>12.2f}'
                  f'{median(map(cpu_of, rows)):>14.2f}{cpu_ratio:>12.2f}{max(m for _, m, _ in rows):>10.0f}'
                  f'   {rows[0][2].split()[1]}')
