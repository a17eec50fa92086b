"""
BPE training, beside HF tokenizers and rustbpe: the whole standard library with its tests, vocabulary 32,768,
our pattern for all, documents in memory before the clock starts, one process per measurement, in turn.

    pip install -r bench/requirements.txt
    python bench/bpe_train.py
"""
import hashlib
import sys

from peers import in_turn, median, python_documents, timed
from tokenizer import PATTERN, Tokenizer, count_chunks_parallel, learn_merges

VOCAB = 32_768          # bytes and merges; no special tokens, so that all do the same work


def ours(texts):
    return Tokenizer.train(iter(texts), VOCAB, special_tokens=()).vocab


def one_process(texts):
    chunks = count_chunks_parallel(iter(texts), processes=1)
    merges, _ = learn_merges(chunks, VOCAB - 256)
    vocab = [bytes([b]) for b in range(256)]
    for a, b in merges:
        vocab.append(vocab[a] + vocab[b])
    return vocab


def hf(texts):
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior='isolated')
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


def rustbpe(texts):
    import rustbpe
    t = rustbpe.Tokenizer()
    t.train_from_iterator(iter(texts), VOCAB, pattern=PATTERN)
    return [bytes(token) for token, _ in sorted(t.get_mergeable_ranks(), key=lambda pair: pair[1])]


CONTESTANTS = {'ours': ours, 'ours_one_process': one_process, 'hf': hf, 'rustbpe': rustbpe}

if __name__ == '__main__':
    if len(sys.argv) > 1:
        texts = [text for _, text in python_documents()]
        seconds, megabytes, vocab = timed(lambda: CONTESTANTS[sys.argv[1]](texts))
        as_list = isinstance(vocab, list)       # HF numbers the bytes differently: tests compare with it
        print(seconds, megabytes, hashlib.sha256(b'\0'.join(vocab)).hexdigest()[:16] if as_list else '-')
    else:
        texts = [text for _, text in python_documents()]
        size = sum(len(text.encode()) for text in texts) / 1e6
        print(f'{len(texts):,} files, {size:.1f} MB, vocabulary {VOCAB:,}, 5 rounds')
        results = in_turn(CONTESTANTS, 5, __file__)
        print(f'{"":>18}{"seconds (min, median, max)":>32}{"peak MB":>10}{"ours / it":>12}   vocabulary')
        for name, rows in results.items():
            seconds = [s for s, _, _ in rows]
            ratio = median([a[0] / b[0] for a, b in zip(results['ours'], rows)])
            print(f'{name:>18}{min(seconds):>12.2f}{median(seconds):>10.2f}{max(seconds):>10.2f}'
                  f'{max(m for _, m, _ in rows):>10.0f}{ratio:>12.2f}   {rows[0][2]}')
