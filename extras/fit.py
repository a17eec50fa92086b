"""
Report whether a tokenizer fits some texts, next to tokenizers that exist.

    python -m extras.fit --input=FOLDER                 # is a new one better than GPT-2's?
    python -m extras.fit --input=FOLDER --load=tokenizer.json       # does this one fit?
    python -m extras.fit --input=FOLDER --pattern=cl100k --out=tokenizer.json   # llama.cpp has it

    print(report(tokenizer, documents, others('gpt2,my/tokenizer.json')))
    gpt2('folder/with/its/files').encode_ordinary('ROMEO:')         # [33676, 4720, 25]

A tokenizer is any object with encode(text), encode_batch(texts), vocab_size and all_bytes (id ->
bytes).
"""
import collections, os, re, sys, types
from typing import Literal
import tiktoken.load
import clean        # it runs nothing: its job is under __main__
from configurator import Mistake, configure, require
from tokenizer import SPECIAL_TOKENS, Tokenizer

# --- settings -------------------------------------------------------------------------------------
input = ''                      # stdlib, or a file, folder or glob of text
load = ''                       # a tokenizer.json to measure; '' = a new one is trained
vocab_size = 32_768             # bytes, merges and special tokens of a new one
pattern: Literal['ours', 'gpt2', 'cl100k'] = 'ours'     # how a new one cuts text into chunks
out = ''                        # write a new one of all the text, and measure nothing
against = 'gpt2,cl100k_base'    # compare with these, with tokenizer.json files, or with none
gpt2_dir = ''                   # folder with GPT-2's vocab.bpe and encoder.json, if offline

# Other split patterns to train with. llama.cpp has them as well (export.py).
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
PATTERNS = {
    'gpt2': PATTERN,
    'cl100k': r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}


# --- the texts ------------------------------------------------------------------------------------
def read_documents(source):
    """Yield {'text', 'labels'} for each document, as clean.py reads them. The labels are what the
    report has tables of."""
    paths = clean.find_files(source)[0]
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    left_out = []
    for path in paths:
        folder = os.path.relpath(os.path.dirname(path), top).split(os.sep)[0]
        for line, text, record, why in clean.read(path):
            if why:
                left_out.append(f'{path}:{line}: {why}')
                continue
            # CodeParrot's records and clean.py's say which file they were.
            name = str(record.get('path') or path).removesuffix('.gz')
            labels = {'kind': os.path.splitext(name)[1], 'folder': folder}
            labels |= {key: str(record[key]) for key in ('source', 'language') if record.get(key)}
            yield {'text': text, 'labels': labels}
    if left_out:
        print(f'note: {len(left_out):,} left out, such as {left_out[0]}', file=sys.stderr)


def held_out(documents):
    """Return nine tenths to train on and a tenth to measure: every tenth document, or the end of
    each document if there are fewer than 20."""
    if len(documents) >= 20:
        return [d for i, d in enumerate(documents) if i % 10 != 9], documents[9::10]
    cut = [len(d['text']) * 9 // 10 for d in documents]
    return ([{**d, 'text': d['text'][:n]} for d, n in zip(documents, cut)],
            [{**d, 'text': d['text'][n:]} for d, n in zip(documents, cut)])


# --- the report -----------------------------------------------------------------------------------
def report(tokenizer, documents, others):
    """Return a text to print. documents: [{'text', 'labels'}]. others: {name: tokenizer} to compare
    with."""
    documents = [d for d in documents if d['text']]
    require(documents, 'there is no text to report on')
    texts = [d['text'] for d in documents]
    n_bytes = [len(text.encode('utf-8', 'replace')) for text in texts]
    tokenizers = {'this': tokenizer} | {
        name.removesuffix('/tokenizer.json'): t for name, t in others.items()}
    counts = {name: [len(ids) for ids in t.encode_batch(texts)] for name, t in tokenizers.items()}
    totals = {name: sum(n) for name, n in counts.items()}

    lines = [f'files: {len(texts):,}, {sum(n_bytes) / 1e6:.2f} MB', '',
             f'{"vocabulary":>12} {"size":>7} {"bytes/token":>12} {"tokens":>12}']
    lines += [f'{name[-12:]:>12} {t.vocab_size:>7,} {sum(n_bytes) / totals[name]:>12.2f} '
              f'{totals[name]:>12,}' for name, t in tokenizers.items()]
    lines += by_label(n_bytes, counts, [d['labels'] for d in documents])
    lines += split_words(tokenizers, texts)
    sample = texts[0][:60]
    lines += ['', sample.rstrip()]
    for name, t in tokenizers.items():
        tokens = pieces(t, sample)
        lines.append(f'  {name:>5}: {len(tokens)} tokens: ' + ' | '.join(tokens))
    if others:
        best = min(list(totals)[1:], key=totals.get)
        saved = 1 - totals['this'] / totals[best]
        lines += ['', 'Does an existing tokenizer fit your text? ' + (
            f'Yes, {best}: this one needs {-saved:.1%} more tokens.' if saved < 0 else
            f'This one saves {saved:.1%} of the tokens of {best}, the best one here.')]
    return '\n'.join(lines)


def pieces(tokenizer, text):
    r"""Return the tokens of a text as a reader knows them: ' 天\n' is '·天\n', and a part of a
    character is its bytes, '\xe5\xa4'."""
    tokens = [tokenizer.all_bytes[i] for i in tokenizer.encode(text)]
    return [token.decode('utf-8', 'backslashreplace').replace(' ', '·').replace('\n', r'\n')
            for token in tokens]


def by_label(n_bytes, counts, labels):
    """Return lines with a table of the largest groups for each label that has several groups.
    n_bytes: of each text; counts: {name of a tokenizer: its number of tokens for each text};
    labels: {label: group} of each text."""
    lines = []
    for label in dict.fromkeys(key for names in labels for key in names):
        groups = collections.defaultdict(list)
        for i, names in enumerate(labels):
            groups[names.get(label, '-')].append(i)
        if len(groups) == 1:
            continue
        total = lambda numbers, name: sum(numbers[i] for i in groups[name])
        lines += ['', f'{"by " + label:<24} {"files":>7} {"bytes/token:":>13}'
                  + ''.join(f'{name[-12:]:>13}' for name in counts)]
        for name in sorted(groups, key=lambda name: -total(n_bytes, name))[:12]:
            fits = [total(n_bytes, name) / total(n, name) for n in counts.values()]
            lines.append(f'{name[-24:]:<24} {len(groups[name]):>7,} {"":>13}'
                         + ''.join(f'{fit:>13.2f}' for fit in fits))
    return lines


def split_words(tokenizers, texts):
    """Return lines with the tokens per word, and with the most frequent words that are split, with
    a space before them or without."""
    words = collections.Counter(w for text in texts for w in re.findall(r'[^\W\d]\w+', text))
    top = words.most_common(20_000)
    per_word = [sum(n * len(t.encode(f' {w}')) for w, n in top) / max(1, sum(n for _, n in top))
                for t in tokenizers.values()]
    lines = ['', 'tokens per word (with the space before it; the 20,000 most frequent words, '
             'weighted): ' + ', '.join(f'{name} {n:.2f}' for name, n in zip(tokenizers, per_word)),
             'the most frequent words that get split:']
    encode = tokenizers['this'].encode
    split = [(w, n) for w, n in top if min(len(encode(w)), len(encode(f' {w}'))) > 1]
    for w, n in split[:15]:
        each = [f'{name}: {" ".join(pieces(t, f" {w}"))}' for name, t in tokenizers.items()]
        lines.append(f'  {n:>8,}  {w:<20} {"   ".join(each)}')
    return lines


# --- the vocabularies of GPT-2 and GPT-4 ----------------------------------------------------------
# The files of GPT-2, with their SHA-256.
FILES = {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
         'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'}


def gpt2(folder=None):
    """Return the tiktoken.Encoding of GPT-2, from a folder with its two files. Without a folder,
    from tiktoken's cache or the network."""
    if not folder:
        return fetched('gpt2')
    paths = [os.path.join(folder, name) for name in FILES]
    require(all(map(os.path.exists, paths)), f'{folder} must hold {" and ".join(FILES)} of gpt2')
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(*paths, *FILES.values())
    return tiktoken.Encoding('gpt2', pat_str=PATTERN, mergeable_ranks=ranks,
                             special_tokens={'<|endoftext|>': 50256})


def fetched(name):
    """Return a tiktoken.Encoding from tiktoken's cache or the network."""
    try:
        return tiktoken.get_encoding(name)
    except OSError as error:                # requests' errors are OSErrors
        raise ConnectionError(
            f"{name}'s vocabulary could not be downloaded ({type(error).__name__}); GPT-2's also "
            f'comes from --gpt2_dir=FOLDER with {" and ".join(FILES)}') from None


def vocabulary(encoding):
    """Return the tokens of a tiktoken.Encoding as bytes, in the order of their ids."""
    return sorted(encoding._mergeable_ranks, key=encoding._mergeable_ranks.get)


def others(names, folder=''):
    """Return {name: tokenizer} of names with commas between them: gpt2, cl100k_base, the path of a
    tokenizer.json, or none. What can't be fetched is left out, with a note. folder: for GPT-2."""
    found = {}
    for name in filter(lambda name: name != 'none', names.split(',')):
        require(name in ('gpt2', 'cl100k_base') or name.endswith('.json'),
                f'--against={name} must be gpt2, cl100k_base, a tokenizer.json or none')
        if name.endswith('.json'):
            found[name] = Tokenizer.load(name)
            continue
        try:
            e = gpt2(folder) if name == 'gpt2' else fetched(name)
        except ConnectionError as error:
            print(f'note: {error}\n')
            continue
        found[name] = types.SimpleNamespace(
            encode=e.encode_ordinary, encode_batch=e.encode_ordinary_batch, vocab_size=e.n_vocab,
            all_bytes=vocabulary(e))
    return found


def tokenizer_of_gpt2(folder=None, special_tokens=SPECIAL_TOKENS[:48]):
    """Return GPT-2's 50,257 tokens, then 47 special ones of ours: 50,304 = 786 x 64. folder has
    vocab.bpe and encoder.json. Without it, tiktoken looks into its cache, or downloads them."""
    return Tokenizer('bpe', vocabulary(gpt2(folder)), special_tokens, PATTERN)


if __name__ == '__main__':
    configure(globals(), {'vocab_size': (256 + len(SPECIAL_TOKENS), 1e9)})
    require(input and not (load and out), 'give --input=PATH, and --out only to train')
    split = PATTERNS.get(pattern)
    try:
        documents = list(read_documents(input))
        if out:
            tokenizer = Tokenizer.train((d['text'] for d in documents), vocab_size, pattern=split)
            tokenizer.save(out)
            sys.exit(print(f'{out}: {tokenizer.vocab_size:,} tokens, {tokenizer.hash}'))
        if load:
            tokenizer = Tokenizer.load(load)
        else:
            train, documents = held_out(documents)
            tokenizer = Tokenizer.train((d['text'] for d in train), vocab_size, pattern=split)
            print(f'this: trained on nine tenths of {input}; the other tenth is measured')
        print(report(tokenizer, documents, others(against, gpt2_dir)))
    except ValueError as error:
        raise Mistake(error) from None
