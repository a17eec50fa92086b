"""
What has a model learned, at four levels: characters, words, lines, speeches?

    python -m extras.learned --ckpt=out/base --data_dir=data/quickstart

Prints a row for each checkpoint, for an untrained model and for the corpus: of texts that the model
writes, and of as many excerpts of val.bin, the fraction of characters that are white space or
punctuation; of words, and of first words of lines, that occur in the data; of paragraphs that begin
with NAME: as in a play. A model learns them in about this order.
"""
import glob, json, os, pathlib, re
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure, require
from extras import answers
from extras.longer_context import open_model
from model import GPT

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'               # checkpoint: a folder or a .pt file; several: A,B or A/*.pt
data_dir = 'data/quickstart'    # prepared text
num_samples = 32                # texts
max_new_tokens = 256            # tokens of a text
temperature = 0.8               # 0 = the likeliest token
device = 'cpu'                  # cpu, cuda, cuda:1, mps
seed = 1337                     # of the texts and of the untrained model

WORD = r'[^\W\d]\w*'
# of a line: its indentation, and its first word or sign
BEGINNING = r'(?<=\n)[ \t]*(?:\w+|[^\w\s])'
BLOCK = r'\n\s*\n(?=\S)|<\|endoftext\|>'         # what ends a block: blank lines before column 0


def levels(texts, words, beginnings):
    """Return fractions, None where there is nothing to count: of characters, white space and
    punctuation; of words, those in `words`; of lines, those with one of the `beginnings`; of
    blocks, speeches, which are headed NAME: (a play's). The last word, line or block of a text may
    be cut off and is left out: levels(['we go, wo'], {'we', 'go'}, set())['words'] -> 1.0."""
    characters = ''.join(texts)
    blocks = [block for text in texts for block in re.split(BLOCK, text)[:-1]]
    counted = {
        'space': [c.isspace() for c in characters],
        'punctuation': [not (c.isspace() or c.isalnum()) for c in characters],
        'words': [word in words for text in texts for word in re.findall(WORD, text)[:-1]],
        'lines': [line in beginnings for text in texts
                  for line in re.findall(BEGINNING, f'\n{text}')[:-1]],
        'speeches': [bool(re.match(r'\s*[A-Z][^\n:]*:\s*(\n|$)', block)) for block in blocks]}
    return {name: sum(each) / len(each) if each else None for name, each in counted.items()}


def vocabulary(bins, tokenizer):
    """Return the words of token ids (arrays), and the beginnings of their lines: two sets."""
    words, beginnings = set(), set()
    for ids in bins:
        for i in tqdm(range(0, len(ids), 1_000_000), 'reading', disable=None):  # it cuts few words
            text = tokenizer.decode(ids[i:i + 1_000_000].tolist()).replace('<|endoftext|>', '\n')
            words.update(re.findall(WORD, text))
            beginnings.update(re.findall(BEGINNING, text))
    return words, beginnings


def excerpts(ids, tokenizer, n, n_tokens):
    """Return n texts of n_tokens, spread evenly over token ids (an array). Each begins where a
    block does."""
    texts = []
    for i in np.linspace(0, max(0, len(ids) - 3 * n_tokens), n).astype(int):
        text = tokenizer.decode(ids[i:i + 3 * n_tokens].tolist())
        text = re.split(BLOCK, text, maxsplit=1)[-1].partition('<|endoftext|>')[0]
        texts.append(tokenizer.decode(tokenizer.encode(text)[:n_tokens]))
    return texts


def main():
    written = {}        # {name: texts}
    paths = [path for pattern in ckpt.split(',') for path in sorted(glob.glob(pattern))]
    require(paths, f'--ckpt={ckpt} does not exist; the first model comes from: python train.py')
    require(os.path.exists(f'{data_dir}/meta.json'), f'--data_dir={data_dir} has no prepared text; '
            'it comes from: python prepare.py')
    meta = json.loads(pathlib.Path(data_dir, 'meta.json').read_bytes())
    model = None
    for path in [*paths, 'untrained']:
        if path == 'untrained':         # it has the last one's shape and tokenizer
            torch.manual_seed(seed)
            model = GPT(model.config)
        else:
            model, tokenizer = open_model(path)
            require(tokenizer.hash == meta.get('tokenizer_hash'), f'{data_dir} was prepared with '
                    f'another tokenizer than {path} has; name the data that it was trained on')
        # An empty prompt asks for the beginning of a document.
        [written[path]] = answers.write(model.to(device).eval(), tokenizer, [''], num_samples,
                                        max_new_tokens=max_new_tokens, seed=seed,
                                        temperature=temperature)
    bins = {os.path.basename(path): np.memmap(path, meta['dtype'], 'r')
            for path in glob.glob(f'{glob.escape(data_dir)}/*.bin') if os.path.getsize(path)}
    written['corpus'] = excerpts(bins['val.bin'], tokenizer, num_samples, max_new_tokens)
    words, beginnings = vocabulary(bins.values(), tokenizer)
    width = max(map(len, written))
    for name, texts in written.items():
        shares = levels(texts, words, beginnings)
        if name == paths[0]:
            print(f'{"":<{width}}', *(f'{level:>11}' for level in shares))
        print(f'{name:<{width}}', *('       none' if share is None else f'{share:>11.4f}'
                                    for share in shares.values()))


if __name__ == '__main__':
    configure(globals())
    main()
