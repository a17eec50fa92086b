"""
Report whether a tokenizer fits some texts, next to tokenizers that exist.

    python -m extras.fit --input=FOLDER                 # is a new one better than GPT-2's?
    python -m extras.fit --input=FOLDER --load=tokenizer.json       # does this one fit?
    python -m extras.fit --input=FOLDER --pattern=cl100k --out=tokenizer.json   # llama.cpp has it

    print(report(tokenizer, documents, others('gpt2,my/tokenizer.json')))
    gpt2('folder/with/its/files').encode_ordinary('ROMEO:')         # [33676, 4720, 25]

A tokenizer is any object with encode(text), encode_batch(texts), vocab_size and all_bytes (id ->
bytes). The vocabularies of GPT-2 and GPT-4 (cl100k_base) are read as tiktoken reads them.
"""
import collections, glob, os, re, sys, types
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
PATTERNS = {
    'gpt2': r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    'cl100k': r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}
# The fields of a record that name its group.
LABELS = 'source', 'domain', 'language', 'lang', 'repo_name'


# --- the texts ------------------------------------------------------------------------------------
def read_documents(source):
    """Yield {'text', 'path', 'record'} for each document, as clean.py reads them."""
    left_out = []
    for path in clean.find_files(source)[0]:
        for line, text, record, why in clean.read(path):
            if why:
                left_out.append(f'{path}:{line}: {why}')
            else:
                yield {'text': text, 'path': f'{path}:{line}' if line else path, 'record': record}
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


def labels_of(documents):
    """Return for each document the kind and the folder of its file, and the labels of its record. A
    record that says which file it was (CodeParrot's, clean.py's) has that one's kind."""
    folders = [os.path.dirname(d['path']) or '.' for d in documents]        # of a.jsonl.gz:3, too
    top = os.path.commonpath(folders)
    rows = []
    for document, folder in zip(documents, folders):
        record = document.get('record', {})
        path = record.get('path') or document['path']
        rows.append({'kind': os.path.splitext(path.replace('.gz', ''))[1].split(':')[0],
                     'folder': os.path.relpath(folder, top).split(os.sep)[0],
                     **{name: record[name] for name in LABELS
                        if isinstance(record.get(name), str)}})
    return rows


# --- the report -----------------------------------------------------------------------------------
def report(tokenizer, documents, others):
    """Return a text to print. documents: [{'text', 'path', perhaps 'record'}]. others: {name:
    tokenizer} to compare with."""
    documents = [d for d in documents if d['text']]
    if not documents:
        raise Mistake('there is no text to report on')
    texts = [d['text'] for d in documents]
    n_bytes = [len(text.encode('utf-8', 'replace')) for text in texts]
    tokenizers = {'this': tokenizer} | {
        name.removesuffix('/tokenizer.json'): t for name, t in others.items()}
    counts = {name: [len(ids) for ids in t.encode_batch(texts)] for name, t in tokenizers.items()}
    totals = {name: sum(n) for name, n in counts.items()}
    pieces = lambda t, text: [shown(t.all_bytes[i]) for i in t.encode(text)]

    lines = [f'files: {len(texts):,}, {sum(n_bytes) / 1e6:.2f} MB', '',
             f'{"vocabulary":>12} {"size":>7} {"bytes/token":>12} {"tokens":>12}']
    lines += [f'{name[-12:]:>12} {t.vocab_size:>7,} {sum(n_bytes) / totals[name]:>12.2f} '
              f'{totals[name]:>12,}' for name, t in tokenizers.items()]
    lines += by_label(n_bytes, counts, labels_of(documents))
    lines += split_words(tokenizers, texts, pieces)
    sample = texts[0][:60]
    lines += ['', sample.rstrip()]
    for name, t in tokenizers.items():
        tokens = pieces(t, sample)
        lines.append(f'  {name:>5}: {len(tokens)} tokens: ' + ' | '.join(tokens))
    return '\n'.join([*lines, '', verdict(totals)])


def shown(token):
    """Return the bytes of a token as a reader knows them: ' 天\\n' is '·天\\n', and a part of a
    character is its bytes, <e5a4>."""
    try:
        return token.decode().replace(' ', '·').replace('\n', '\\n').replace('\t', '\\t')
    except UnicodeDecodeError:
        return f'<{token.hex()}>'


def by_label(n_bytes, counts, labels):
    """Return lines with a table of the largest groups for each label that has several groups.
    n_bytes: of each text; counts: {name of a tokenizer: its number of tokens for each text}."""
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


def split_words(tokenizers, texts, pieces):
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


def verdict(totals):
    """Say in one sentence whether an existing tokenizer fits these texts. totals: {name: tokens}"""
    question = 'Does an existing tokenizer fit your text? '
    if len(totals) == 1:
        return (question + 'To know, type: python -m extras.fit --input=PATH '
                '--against=gpt2,tokenizer.json')
    best = min(list(totals)[1:], key=totals.get)
    saved = 1 - totals['this'] / totals[best]
    if saved < 0:
        return question + f'Yes, {best}: this one needs {-saved:.1%} more tokens.'
    return question + f'This one saves {saved:.1%} of the tokens of {best}, the best one here.'


# --- the vocabularies of GPT-2 and GPT-4 ----------------------------------------------------------
# The files of GPT-2, with their SHA-256.
FILES = {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
         'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'}
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def gpt2(folder=None):
    """Return the tiktoken.Encoding of GPT-2, from a folder with its two files, whose names may have
    a prefix. Without a folder, from tiktoken's cache or the network."""
    if not folder:
        return fetched('gpt2')
    paths = [path for name in FILES for path in glob.glob(f'{glob.escape(str(folder))}/*{name}')]
    if len(paths) != len(FILES):
        raise Mistake(f'{folder} must hold {" and ".join(FILES)} of gpt2, once; it does not')
    try:
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(*paths, *FILES.values())
    except ValueError as e:             # a checksum differs
        raise Mistake(f'{" and ".join(paths)}: not those of gpt2 ({e})') from e
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
    """Return {name: an object with encode, encode_batch, vocab_size and all_bytes} of names with
    commas between them: gpt2, cl100k_base, the path of a tokenizer.json, or none. What can't be
    fetched is left out, with a note. folder: for GPT-2."""
    found = {}
    for name in filter(lambda name: name != 'none', names.split(',')):
        require(name in ('gpt2', 'cl100k_base') or name.endswith('.json'),
                f'--against={name} must be gpt2, cl100k_base, a tokenizer.json or none')
        try:
            e = (Tokenizer.load(name) if name.endswith('.json') else
                 gpt2(folder) if name == 'gpt2' else fetched(name))
        except ConnectionError as error:
            print(f'note: {error}\n')
            continue
        found[name] = e if name.endswith('.json') else (
            types.SimpleNamespace(encode=e.encode_ordinary, encode_batch=e.encode_ordinary_batch,
                                  vocab_size=e.n_vocab, all_bytes=vocabulary(e)))
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
