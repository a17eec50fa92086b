"""
Does a tokenizer fit some texts? A report, beside GPT-2's tokenizer.

    print(report(tokenizer, texts, printable, gpt2_encoding('folder/with/its/files')))

tokenizer is any object with encode(text), encode_batch(texts), vocab_size, all_bytes (id -> bytes), kind and
bytes_per_token on the text it was trained on, or None.

Copy this file alone: it needs tiktoken.
"""
import collections, os, re
import tiktoken, tiktoken.load

SAMPLE = 'def say_hello():\n    print("Hello, World!")\nsay_hello()\n'
KEYWORDS = 'def', 'class', 'return', 'import', 'self', 'print', 'None'


def gpt2_encoding(folder=None):
    """GPT-2's tiktoken.Encoding, from a folder with vocab.bpe and encoder.json (their names may have a
    prefix), or from tiktoken's cache or the network."""
    if folder is None:
        return tiktoken.get_encoding('gpt2')
    here = sorted(os.listdir(folder))
    vocab = [name for name in here if name.endswith('vocab.bpe')]
    encoder = [name for name in here if name.endswith('encoder.json')]
    if not (vocab and encoder):
        raise ValueError(f'{folder} must hold vocab.bpe and encoder.json of GPT-2; it holds {here[:9]}')
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=os.path.join(folder, vocab[0]), encoder_json_file=os.path.join(folder, encoder[0]))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    return tiktoken.Encoding('gpt2', pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={'<|endoftext|>': 50256})


def gpt2_if_at_hand(folder=None):
    """gpt2_encoding(folder); without folder, network and cache a note and None."""
    try:
        return gpt2_encoding(folder)
    except OSError as e:                    # requests' errors are OSErrors
        if folder:
            raise
        print(f"gpt2's vocabulary is not at hand ({type(e).__name__}); for the comparison: "
              '--gpt2=FOLDER with its vocab.bpe and encoder.json\n')


def report(tokenizer, texts, printable, gpt2=None):
    """Text to print. printable: bytes -> str, to show a token. gpt2: a tiktoken.Encoding or None."""
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError('there is no text to report on')
    encoders = {'this': tokenizer.encode}
    token_bytes = {'this': tokenizer.all_bytes.__getitem__}
    if gpt2:
        encoders['gpt2'] = gpt2.encode_ordinary
        token_bytes['gpt2'] = gpt2.decode_single_token_bytes

    def shown(name, text, between):
        return between.join(printable(token_bytes[name](i)) for i in encoders[name](text))

    lines = sizes(tokenizer, texts, gpt2)
    if tokenizer.kind == 'char':        # every word is split, and a keyword may have characters without id
        return '\n'.join(lines)
    lines += words(texts, encoders, shown)

    lines += ['', 'pieces of keywords (alone / after a space) and of indentation (alone / after a newline):']
    for name, encode in encoders.items():
        pieces = [f'{w} {len(encode(w))}/{len(encode(" " + w))}' for w in KEYWORDS]
        pieces += [f'{k} spaces {len(encode(" " * k))}/{len(encode(chr(10) + " " * k))}' for k in (4, 8, 12)]
        lines.append(f'  {name:>5}: ' + '  '.join(pieces))

    lines += ['', SAMPLE.rstrip()]
    for name, encode in encoders.items():
        lines.append(f'  {name:>5}: {len(encode(SAMPLE))} tokens: ' + shown(name, SAMPLE, ' | '))
    return '\n'.join(lines)


def sizes(tokenizer, texts, gpt2):
    """The table: vocabulary, bytes per token, tokens; and the cost of the difference."""
    n_bytes = sum(len(text.encode('utf-8', 'replace')) for text in texts)
    lines = [f'{len(texts):,} files, {n_bytes / 1e6:.2f} MB', '',
             f'{"vocabulary":>10} {"size":>7} {"bytes/token":>12} {"tokens/file":>12} {"tokens":>12}']
    table = [('this', tokenizer.vocab_size, tokenizer.encode_batch(texts))]
    if gpt2:
        table.append(('gpt2', gpt2.n_vocab, gpt2.encode_ordinary_batch(texts)))
    totals = {}
    for name, size, encoded in table:
        totals[name] = n = sum(map(len, encoded))
        lines.append(f'{name:>10} {size:>7,} {n_bytes / n:>12.2f} {n / len(texts):>12,.0f} {n:>12,}')

    if gpt2:
        ratio = totals['gpt2'] / totals['this']
        lines += ['', f'gpt2 needs {ratio:.2f} times the tokens: {ratio:.2f} times the FLOPs for the same '
                      'text, and 1,024 tokens',
                  f'of this tokenizer hold as much as {1024 * ratio:,.0f} of gpt2. That is what a mismatched '
                  'tokenizer costs.']
    if tokenizer.bytes_per_token:
        here, home = n_bytes / totals['this'], tokenizer.bytes_per_token
        lines += ['', f'On the text it was trained on: {home:.2f} bytes/token, here {here:.2f}; a tokenizer '
                      'trained on text']
        if here < home:
            lines.append(f'like this could save up to {max(0.0, 1 - here / home):.0%} of the tokens.')
        else:
            lines.append('like its own: it fits.')
    return lines


def words(texts, encoders, shown):
    """Tokens per word, and the frequent words that this tokenizer splits."""
    counts = collections.Counter(word for text in texts for word in re.findall(r'[^\W\d]\w+', text))
    top = counts.most_common(20_000)
    n_words = max(1, sum(n for _, n in top))
    means = [f'{name} {sum(n * len(encode(" " + w)) for w, n in top) / n_words:.2f}'
             for name, encode in encoders.items()]
    lines = ['', 'tokens per word (with the space before it; the 20,000 most frequent words, weighted): '
                 + ', '.join(means)]

    ours = encoders['this']
    split = [(w, n) for w, n in top if min(len(ours(w)), len(ours(' ' + w))) > 1]
    lines.append('the most frequent words that get split:')
    for w, n in split[:15]:
        pieces = [f'{name}: ' + shown(name, ' ' + w, ' ') for name in encoders]
        lines.append(f'  {n:>8,}  {w:<20} ' + '   '.join(pieces))
    return lines
