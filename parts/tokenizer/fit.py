"""
Report whether a tokenizer fits some texts, next to tokenizers that exist.

    print(report(tokenizer, [{'text': 'import this'}, ...], printable, {'gpt2': at_hand('gpt2')}))
    gpt2('folder/with/its/files').encode_ordinary('ROMEO:')         # [33676, 4720, 25]

A tokenizer is any object with encode(text), encode_batch(texts), vocab_size, all_bytes (id -> bytes); the one
that is reported on also has kind, and bytes_per_token on the text it was trained on, or None.
The vocabularies of GPT-2 and GPT-4 (cl100k_base) are read as tiktoken reads them.
"""
import collections
import glob
import os
import re
import types

import tiktoken.load

SAMPLE = 'def say_hello():\n    print("Hello, World!")\nsay_hello()\n'


# --- the texts ----------------------------------------------------------------------------------------------
def held_out(documents):
    """(nine tenths to train on, a tenth to measure): every tenth document; below 20, the end of each."""
    if len(documents) >= 20:
        return [d for i, d in enumerate(documents) if i % 10 != 9], documents[9::10]
    cut = [len(d['text']) * 9 // 10 for d in documents]
    return ([{**d, 'text': d['text'][:n]} for d, n in zip(documents, cut)],
            [{**d, 'text': d['text'][n:]} for d, n in zip(documents, cut)])


def labels(documents):
    """For each of {'file', 'path', perhaps 'labels'}: the kind and the folder of the file, and the labels."""
    folders = [os.path.dirname(d['file']) or '.' for d in documents]
    top = os.path.commonpath(folders)
    return [{'kind': os.path.splitext(doc['path'].replace('.gz', ''))[1].split(':')[0],     # a.jsonl.gz:3
             'folder': os.path.relpath(folder, top).split(os.sep)[0], **doc.get('labels', {})}
            for doc, folder in zip(documents, folders)]


def count_words(texts, most):
    """[(word, how often)] of the most frequent words"""
    return collections.Counter(w for text in texts for w in re.findall(r'[^\W\d]\w+', text)).most_common(most)


def tokens_per_word(tokenizer, top):
    """The mean over [(word, how often)], each with the space before it"""
    return sum(n * len(tokenizer.encode(' ' + w)) for w, n in top) / max(1, sum(n for _, n in top))


# --- the report ---------------------------------------------------------------------------------------------
def report(tokenizer, documents, printable, others=None):
    """Text to print. documents: [{'text'}], perhaps with what labels() takes. printable: bytes -> str, to
    show a token. others: {name: tokenizer or None} to compare with."""
    documents = [d for d in documents if d['text']]
    texts = [d['text'] for d in documents]
    if not texts:
        raise ValueError('there is no text to report on')
    n_bytes = [len(text.encode('utf-8', 'replace')) for text in texts]
    others = {name.removesuffix('/tokenizer.json'): t for name, t in (others or {}).items() if t}
    tokenizers = {'this': tokenizer} | others
    counts = {name: [len(ids) for ids in t.encode_batch(texts)] for name, t in tokenizers.items()}

    lines = sizes(tokenizers, n_bytes, counts)
    if tokenizer.kind != 'char':        # it splits every word, and the sample may have unknown characters
        if 'file' in documents[0]:
            lines += by_label(tokenizer, texts, n_bytes, counts, labels(documents))
        lines += split_words(tokenizers, texts, printable)
        lines += ['', SAMPLE.rstrip()]
        for name, t in tokenizers.items():
            pieces = [printable(t.all_bytes[i]) for i in t.encode(SAMPLE)]
            lines.append(f'  {name:>5}: {len(pieces)} tokens: ' + ' | '.join(pieces))
    return '\n'.join([*lines, '', verdict(tokenizer, {name: sum(n) for name, n in counts.items()})])


def sizes(tokenizers, n_bytes, counts):
    """The table: vocabulary, bytes per token, tokens; the cost of the difference. n_bytes: of each text."""
    total = sum(n_bytes)
    compared = ['']
    lines = [f'files: {len(n_bytes):,}, {total / 1e6:.2f} MB', '',
             f'{"vocabulary":>12} {"size":>7} {"bytes/token":>12} {"tokens/file":>12} {"tokens":>12}']
    for name, t in tokenizers.items():
        n = sum(counts[name])
        lines.append(f'{name[-12:]:>12} {t.vocab_size:>7,} {total / n:>12.2f} {n / len(n_bytes):>12,.0f} '
                     f'{n:>12,}')
        if name != 'this':
            ratio = n / sum(counts['this'])
            compared += [f'{name} needs {ratio:.2f} times the tokens, and FLOPs, for the same text: 1,024 '
                         'tokens of', f'this tokenizer hold as much as {1024 * ratio:,.0f} of {name}.']
    if home := tokenizers['this'].bytes_per_token:
        compared.append(f'On the text that it was trained on, this tokenizer has {home:.2f} bytes/token.')
    return lines + compared


def by_label(tokenizer, texts, n_bytes, counts, labels):
    """For each label a table of its largest groups, if there are several."""
    lines = []
    for label in dict.fromkeys(key for names in labels for key in names):
        groups = collections.defaultdict(list)
        for i, names in enumerate(labels):
            groups[names.get(label, '-')].append(i)
        if len(groups) == 1:
            continue
        size = {name: sum(n_bytes[i] for i in group) for name, group in groups.items()}
        lines += ['', f'{"by " + label:<24} {"files":>7} {"MB":>8} {"tokens/word":>12} {"bytes/token:":>13}'
                  + ''.join(f'{name[-12:]:>13}' for name in counts)]
        for name in sorted(groups, key=size.get, reverse=True)[:12]:
            words = tokens_per_word(tokenizer, count_words([texts[i] for i in groups[name]], 2_000))
            fits = [size[name] / sum(n[i] for i in groups[name]) for n in counts.values()]
            lines.append(f'{name[-24:]:<24} {len(groups[name]):>7,} {size[name] / 1e6:>8.2f} {words:>12.2f} '
                         f'{"":>13}' + ''.join(f'{fit:>13.2f}' for fit in fits))
    return lines


def split_words(tokenizers, texts, printable):
    """Tokens per word, and the frequent words that get split, with a space before them or without."""
    top = count_words(texts, 20_000)
    lines = ['', 'tokens per word (with the space before it; the 20,000 most frequent words, weighted): '
             + ', '.join(f'{name} {tokens_per_word(t, top):.2f}' for name, t in tokenizers.items()),
             'the most frequent words that get split:']
    encode = tokenizers['this'].encode
    split = [(w, n) for w, n in top if min(len(encode(w)), len(encode(' ' + w))) > 1]
    for w, n in split[:15]:
        pieces = [f'{name}: ' + ' '.join(printable(t.all_bytes[i]) for i in t.encode(' ' + w))
                  for name, t in tokenizers.items()]
        lines.append(f'  {n:>8,}  {w:<20} ' + '   '.join(pieces))
    return lines


def verdict(tokenizer, totals):
    """One sentence: does an existing tokenizer fit these texts? totals: {name: tokens}"""
    question = 'Does an existing tokenizer fit your text? '
    if len(totals) == 1 or tokenizer.bytes_per_token is None:
        return question + 'To know, type: python tokenizer.py --report=PATH --against=gpt2,tokenizer.json'
    best = min(list(totals)[1:], key=totals.get)
    saved = 1 - totals['this'] / totals[best]
    if saved < 0:
        return question + f'Yes, {best}: this one needs {-saved:.1%} more tokens.'
    return question + f'This one saves {saved:.1%} of the tokens of {best}, the best one here.'


# --- the vocabularies of GPT-2 and GPT-4 ----------------------------------------------------------
FILES = {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',       # with SHA-256
         'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'}
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def gpt2(folder=None):
    """The tiktoken.Encoding of GPT-2, from a folder with its files, whose names may have a prefix; without a
    folder from tiktoken's cache or the network. ValueError if the folder lacks them or has others."""
    if folder is None:
        return tiktoken.get_encoding('gpt2')
    paths = [path for name in FILES for path in glob.glob(f'{glob.escape(str(folder))}/*{name}')]
    if len(paths) != len(FILES):
        raise ValueError(f'{folder} must hold {" and ".join(FILES)} of gpt2, once; it does not')
    try:
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(*paths, *FILES.values())
    except ValueError as e:             # tiktoken's: another checksum
        raise ValueError(f'{" and ".join(paths)}: not those of gpt2 ({e})') from e
    return tiktoken.Encoding('gpt2', pat_str=PATTERN, mergeable_ranks=ranks,
                             special_tokens={'<|endoftext|>': 50256})


def at_hand(name, folder=None):
    """Its encode, encode_batch, vocab_size and all_bytes, as a Tokenizer has them; None, with a note, if it
    is in no cache and the network is away. folder: for GPT-2."""
    if name not in ('gpt2', 'cl100k_base'):
        raise ValueError(f'{name!r} cannot be compared with; expected gpt2, cl100k_base or a tokenizer.json')
    try:
        e = gpt2(folder) if name == 'gpt2' else tiktoken.get_encoding(name)
    except OSError as error:                # requests' errors are OSErrors
        print(f"note: {name}'s vocabulary is not at hand ({type(error).__name__}). tiktoken fetches it once; "
              f'GPT-2 also takes --gpt2_dir=FOLDER with {" and ".join(FILES)}\n')
        return None
    all_bytes = {id: token for token, id in e._mergeable_ranks.items()}
    return types.SimpleNamespace(encode=e.encode_ordinary, encode_batch=e.encode_ordinary_batch,
                                 vocab_size=e.n_vocab, all_bytes=all_bytes)
