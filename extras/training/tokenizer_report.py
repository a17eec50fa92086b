"""
How well does a tokenizer fit a text? A report that compares it with those of GPT-2 and GPT-4.

    python -m extras.training.tokenizer_report --input=FOLDER       # trains a new tokenizer
    python -m extras.training.tokenizer_report --input=FOLDER --load=tokenizer.json

    print(report(tokenizer, [('.py', 'x = 1')], others('gpt2,my/tokenizer.json')))
    tokenizer_of_gpt2('folder/with/its/files').encode('ROMEO:')         # [33676, 4720, 25]
"""
import collections, os, re
import tiktoken.load
from configurator import UserError, configure, require, split_paths
from files import find_files, read
from tokenizer import SPECIAL_TOKENS, Tokenizer

# --- settings -------------------------------------------------------------------------------------
input = ''                      # stdlib, or a file, folder or glob of text
load = ''                       # a tokenizer.json to measure; '' = a new one is trained
vocab_size = 32_768             # bytes, merges and special tokens of a new tokenizer
against = 'gpt2,cl100k_base'    # compare with these, with tokenizer.json files, or with none
gpt2_dir = ''                   # folder with GPT-2's vocab.bpe and encoder.json, if offline

# The split patterns of GPT-2 and GPT-4. llama.cpp has them as well, so a tokenizer of
# Tokenizer.train(texts, vocab_size, pattern=PATTERNS['cl100k']) gives the same ids there.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
PATTERNS = {
    'gpt2': PATTERN,
    'cl100k': r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+"
              r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}


# --- the texts ------------------------------------------------------------------------------------
def read_documents(source):
    """Return [(kind, text)] of all documents, as clean.py reads them. The kind is the language or
    the source that a record names, else the extension of its file."""
    documents, left_out = [], []
    for path in find_files(source)[0]:
        for document in read(path):
            # Records of CodeParrot and of clean.py name the file that their text is from.
            record = document['record']
            name = str(record.get('path') or path).removesuffix('.gz')
            kind = record.get('language') or record.get('source') or os.path.splitext(name)[1]
            if document['error'] or not document['text'].strip():
                left_out.append(f'{document["path"]}: {document["error"] or "no text"}')
            else:
                documents.append((str(kind), document['text']))
    if left_out:
        print(f'note: {len(left_out):,} documents skipped, such as {left_out[0]}')
    require(documents, f'--input={source} has no text to report on')
    return documents


def split_documents(documents):
    """Return nine tenths to train on and a tenth to measure: every tenth document, or the end of
    each document if there are fewer than 20."""
    if len(documents) >= 20:
        return [d for i, d in enumerate(documents) if i % 10 != 9], documents[9::10]
    return ([(kind, text[:len(text) * 9 // 10]) for kind, text in documents],
            [(kind, text[len(text) * 9 // 10:]) for kind, text in documents])


# --- the report -----------------------------------------------------------------------------------
def report(tokenizer, documents, others):
    """Return a text to print. documents: [(kind, text)]. others: {name: Tokenizer} to compare
    with."""
    kinds, texts = zip(*documents)
    tokenizers = {'this': tokenizer} | others
    n_bytes = [len(text.encode('utf-8', 'replace')) for text in texts]
    counts = {name: [len(ids) for ids in t.encode_batch(texts)] for name, t in tokenizers.items()}
    totals = {name: sum(n) for name, n in counts.items()}
    words = collections.Counter(w for text in texts for w in re.findall(r'[^\W\d]\w+', text))
    top = words.most_common(20_000)         # weighted by their counts below
    n_words = max(1, sum(n for _, n in top))
    row = lambda name, *cells: f'{name[-20:]:<20}' + ''.join(f'{cell:>16}' for cell in cells)
    lines = [f'files: {len(texts):,}, {sum(n_bytes) / 1e6:.2f} MB', '',
             row('vocabulary', 'size', 'tokens per word', 'bytes per token', 'tokens')]
    for name, t in tokenizers.items():
        per_word = sum(n * len(t.encode(f' {word}')) for word, n in top) / n_words
        per_token = sum(n_bytes) / totals[name]
        lines.append(row(name, f'{t.vocab_size:,}', f'{per_word:.2f}', f'{per_token:.2f}',
                         f'{totals[name]:,}'))

    lines += ['', 'bytes per token', row('by kind', 'files', *counts)]
    for kind, n_files in collections.Counter(kinds).most_common(12):
        total = lambda numbers: sum(n for n, its in zip(numbers, kinds) if its == kind)
        fits = [f'{total(n_bytes) / max(1, total(n)):.2f}' for n in counts.values()]
        lines.append(row(kind, n_files, *fits))

    lines += ['', 'the most frequent words that get split, with a space before them or without:']
    n_pieces = lambda word: min(len(tokenizer.encode(word)), len(tokenizer.encode(f' {word}')))
    for word, n in [(word, n) for word, n in top if n_pieces(word) > 1][:15]:
        each = [f'{name}: {" ".join(pieces(t, f" {word}"))}' for name, t in tokenizers.items()]
        lines.append(f'  {n:>8,}  {word:<20} {"   ".join(each)}')

    sample = texts[0][:60]
    lines += ['', sample.rstrip()]
    for name, t in tokenizers.items():
        tokens = pieces(t, sample)
        lines.append(f'  {name:>5}: {len(tokens)} tokens: ' + ' | '.join(tokens))
    if others:
        best = min(others, key=totals.get)
        saved = 1 - totals['this'] / totals[best]
        lines += ['', 'Does an existing tokenizer fit your text? ' + (
            f'Yes, {best}: this one needs {-saved:.1%} more tokens.' if saved < 0 else
            f'This one saves {saved:.1%} of the tokens of {best}, the best one here.')]
    return '\n'.join(lines)


def pieces(tokenizer, text):
    r"""Return the tokens of a text for printing: ' 天\n' becomes '·天\n', and a part of a character
    becomes its bytes, '\xe5\xa4'."""
    tokens = [tokenizer.all_bytes[i] for i in tokenizer.encode(text)]
    return [token.decode('utf-8', 'backslashreplace').replace(' ', '·').replace('\n', r'\n')
            for token in tokens]


# --- the vocabularies of GPT-2 and GPT-4 ----------------------------------------------------------
# The files of GPT-2, with their SHA-256.
FILES = {'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
         'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783'}


def tokenizer_of(name, special_tokens, folder=''):
    """Return gpt2 or cl100k_base as a Tokenizer: from tiktoken's cache, from the network, or gpt2
    from a folder with its two files."""
    try:
        if folder and name == 'gpt2':
            paths = [os.path.join(folder, file) for file in FILES]
            ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(*paths, *FILES.values())
        else:
            ranks = tiktoken.get_encoding(name)._mergeable_ranks
    except (OSError, ValueError) as error:      # no network, another vocabulary, no such name
        raise UserError(f"{name}'s vocabulary could not be read ({error!r:.200}); GPT-2's also "
                        f'comes from --gpt2_dir=FOLDER with {" and ".join(FILES)}') from None
    return Tokenizer('bpe', sorted(ranks, key=ranks.get), special_tokens,
                     PATTERNS[name.removesuffix('_base')])


def tokenizer_of_gpt2(folder=''):
    """Return a tokenizer with GPT-2's 50,257 tokens and 47 special tokens: 50,304 = 786 x 64."""
    return tokenizer_of('gpt2', SPECIAL_TOKENS[:48], folder)


def others(names, folder=''):
    """Return {name: Tokenizer} of comma-separated names: gpt2, cl100k_base, the path of a
    tokenizer.json, or none. Tokenizers that can't be read are skipped with a note. folder: GPT-2's
    files."""
    found = {}
    for name in split_paths(names) if names != 'none' else ():
        try:
            found[name.removesuffix('/tokenizer.json')] = (
                Tokenizer.load(name) if name.endswith('.json')
                else tokenizer_of(name, ['<|endoftext|>'], folder))
        except UserError as error:
            print(f'note: {error}\n')
    return found


if __name__ == '__main__':
    configure(globals(), {'vocab_size': (256 + len(SPECIAL_TOKENS), 1e6)})
    require(input, 'give --input=PATH')
    measured = read_documents(input)
    if load:
        tokenizer = Tokenizer.load(load)
    else:
        train, measured = split_documents(measured)
        print(f'this: trained on nine tenths of {input}; the other tenth is measured')
        tokenizer = Tokenizer.train((text for _, text in train), vocab_size)
    print(report(tokenizer, measured, others(against, gpt2_dir)))
