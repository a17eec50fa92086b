"""
Which split pattern fits Python? Train on the standard library with its tests; measure on what was held out: a
tenth of its files (by hash of the name), and packages that training never saw.

    python bench/bpe_patterns.py --gpt2=FOLDER_WITH_VOCAB_BPE_AND_ENCODER_JSON [--packages=SITE_PACKAGES]
"""
import argparse
import hashlib
import os

import numpy
from peers import python_documents
from parts.tokenizer.tokenizer_report import SAMPLE, encoding
from tokenizer import PATTERN, Tokenizer, to_utf8

PATTERNS = {
    'gpt2': r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    'cl100k': r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?[\p{L}]+|[\p{N}]{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
              r"|\s*[\r\n]|\s+(?!\S)|\s+",
    'gpt2 + newline and indent': r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s*\n[ \t]*"
                                 r"|\s+(?!\S)|\s+",
    'cl100k + newline and indent': r"[^\r\n\p{L}\p{N}]?[\p{L}]+|[\p{N}]{1,3}| ?[^\s\p{L}\p{N}]+|\s*\n[ \t]*"
                                   r"|\s+(?!\S)|\s+",
    'ours: symbols, newline and indent': PATTERN,
    'ours, single digits': PATTERN.replace('{1,3}', ''),
    'ours, names with underscores': PATTERN.replace(r']?[\p{L}]+', r']?[\p{L}_]+'),
}

PACKAGES = ('torch', 'numpy', 'transformers')       # every fifth file of them

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('--gpt2', required=True)
parser.add_argument('--packages', default=os.path.dirname(os.path.dirname(numpy.__file__)))
parser.add_argument('--vocab_size', type=int, default=32_768)
args = parser.parse_args()

documents = python_documents()
held_out = {path for path, _ in documents if hashlib.sha256(os.path.basename(path).encode()).digest()[0] < 26}
train = [text for path, text in documents if path not in held_out]
tests = {'held-out files': [text for path, text in documents if path in held_out],
         'unseen packages': [text for path, text in python_documents(args.packages)
                             if path[len(args.packages):].split(os.sep)[1] in PACKAGES][::5]}
gpt2 = encoding('gpt2', args.gpt2)
size = {name: sum(len(to_utf8(t)) for t in texts) for name, texts in tests.items()}
base = {name: sum(map(len, gpt2.encode_ordinary_batch(texts))) for name, texts in tests.items()}
print(f'training: {len(train):,} files, {sum(map(len, train)) / 1e6:.1f} MB; vocabulary {args.vocab_size:,}')
for name in tests:
    print(f'{name}: {len(tests[name]):,} files, {size[name] / 1e6:.1f} MB, GPT-2 '
          f'{size[name] / base[name]:.2f} bytes/token')
print(f'{"pattern":<36}' + ''.join(f'{name + ": bytes/token":>30}{"x GPT-2":>9}' for name in tests)
      + f'{"tokens of the sample":>22}')
print(f'{"GPT-2 itself":<36}' + ''.join(f'{size[name] / base[name]:>30.2f}{1:>9.2f}' for name in tests)
      + f'{len(gpt2.encode_ordinary(SAMPLE)):>22}')
for name, pattern in PATTERNS.items():
    tokenizer = Tokenizer.train(iter(train), args.vocab_size, special_tokens=(), pattern=pattern)
    row = f'{name:<36}'
    for test, texts in tests.items():
        n = sum(map(len, tokenizer.encode_batch(texts)))
        row += f'{size[test] / n:>30.2f}{base[test] / n:>9.2f}'
    print(row + f'{len(tokenizer.encode(SAMPLE)):>22}', flush=True)
