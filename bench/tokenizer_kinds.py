"""
Kinds of tokenizers side by side: trained on nine tenths of the standard library (without its tests), measured
on the other tenth. Unknown: the share of tokens that are [UNK]. Round trip: whether decoding gives every text
back. Speed: time of GPT-2's tiktoken / its own, one thread, all in one process.

    pip install -r bench/requirements.txt
    python bench/tokenizer_kinds.py [--gpt2=FOLDER] [--vocab_size=32768]

FOLDER has vocab.bpe and encoder.json, and perhaps cl100k_base.tiktoken. Without it tiktoken's cache or the
network is asked.
"""
import argparse
import collections
import os
import time

import peers  # noqa: F401, puts this checkout on the path
import tokenizers
from parts.tokenizer import tokenizer_report
from parts.prepare import files
from tokenizer import Tokenizer, to_utf8
from tokenizers import decoders, models, pre_tokenizers, trainers

UNKNOWN = '[UNK]'


class Symbols:
    """A fixed list of symbols; any other is [UNK]. split: text -> symbols, join: the reverse."""

    def __init__(self, texts, split, join, most=None):
        self.split, self.join = split, join
        counts = collections.Counter(symbol for text in texts for symbol in split(text))
        self.names = [UNKNOWN, *(symbol for symbol, _ in counts.most_common(most))]
        self.ids = {name: i for i, name in enumerate(self.names)}
        self.vocab_size = len(self.names)

    def encode(self, text):
        return [self.ids.get(symbol, 0) for symbol in self.split(text)]

    def decode(self, ids):
        return self.join(self.names[i] for i in ids)


class HF:
    """One of Hugging Face's algorithms, with white space cut away before it."""

    def __init__(self, texts, model, trainer, decoder):
        self.it = tokenizers.Tokenizer(model)
        self.it.pre_tokenizer = pre_tokenizers.Whitespace()
        self.it.train_from_iterator(texts, trainer)
        self.it.decoder = decoder
        self.vocab_size = self.it.get_vocab_size()
        self.unknown = self.it.token_to_id(UNKNOWN)

    def encode(self, text):
        return self.it.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.it.decode(ids)


class Existing:
    """A tiktoken.Encoding"""

    def __init__(self, encoding):
        self.encode = encoding.encode_ordinary
        self.decode = encoding.decode
        self.vocab_size = encoding.n_vocab


def kinds(texts, vocab_size, folder):
    """Yield (name, tokenizer), trained one after the other."""
    for name in tokenizer_report.FILES:
        try:
            yield f'{name} (tiktoken)', Existing(tokenizer_report.encoding(name, folder))
        except (OSError, ValueError) as e:
            print(f'| {name} is not at hand: {type(e).__name__} |')
    yield 'words between white space, all', Symbols(texts, str.split, ' '.join)
    yield 'the most frequent of them', Symbols(texts, str.split, ' '.join, vocab_size - 1)
    yield 'characters', Symbols(texts, list, ''.join)
    yield 'bytes', Tokenizer.byte()
    options = {'vocab_size': vocab_size, 'special_tokens': [UNKNOWN], 'show_progress': False}
    yield 'BPE of characters, in words (HF)', HF(
        texts, models.BPE(unk_token=UNKNOWN), trainers.BpeTrainer(**options), decoders.BPEDecoder())
    yield 'WordPiece, in words (HF)', HF(
        texts, models.WordPiece(unk_token=UNKNOWN), trainers.WordPieceTrainer(**options),
        decoders.WordPiece())
    yield 'Unigram, in words (HF)', HF(
        texts, models.Unigram(), trainers.UnigramTrainer(**options, unk_token=UNKNOWN), decoders.Metaspace())
    yield 'BPE of bytes (ours)', Existing(Tokenizer.train(iter(texts), vocab_size).to_tiktoken())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--gpt2')
    parser.add_argument('--vocab_size', type=int, default=32_768)
    args = parser.parse_args()
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'

    documents = []
    for file in files.find_files('stdlib'):
        with open(file['path'], encoding='utf-8', newline='', errors='replace') as f:
            documents.append({'text': f.read()})
    train, held_out = ([d['text'] for d in part] for part in tokenizer_report.held_out(documents))
    n_bytes = sum(len(to_utf8(text)) for text in held_out)
    print(f'trained on {len(train)} files, {sum(map(len, train)) / 1e6:.1f} MB; measured on {len(held_out)} '
          f'files, {n_bytes / 1e6:.2f} MB\n')
    print('| tokenizer | vocabulary | bytes per token | unknown | round trip | speed |')
    print('|---|---|---|---|---|---|')
    base = None
    for name, tokenizer in kinds(train, args.vocab_size, args.gpt2):
        start = time.process_time()
        ids = [tokenizer.encode(text) for text in held_out]
        seconds = time.process_time() - start
        base = base or seconds
        n = sum(map(len, ids))
        no_id = 0 if isinstance(tokenizer, Symbols) else getattr(tokenizer, 'unknown', None)
        unknown = sum(i == no_id for text in ids for i in text) / n if no_id is not None else 0
        same = all(tokenizer.decode(i) == text for i, text in zip(ids, held_out))
        print(f'| {name} | {tokenizer.vocab_size:,} | {n_bytes / n:.2f} | {unknown:.2%} | '
              f'{"yes" if same else "no"} | {base / seconds:.2f} |', flush=True)


if __name__ == '__main__':
    main()
