"""
llama.cpp with an exported run: does it have our ids, and our answers?

    python bench/llama_cpp.py --ckpt=out/quickstart_sft --data=data/problems/val.jsonl

Ids: texts that get the same ids, and tokens of ours that are tokens there, too (the same bytes in the same
place). Answers: greedy ones of at most 100 tokens, and the largest difference of a log-probability among the
5 most probable first tokens. Needs gguf, and xllamacpp, which is llama.cpp as a Python package.
"""
import argparse
import itertools
import json
import os
import pathlib
import random
import tempfile
import urllib.request

import torch
import xllamacpp
from peers import python_documents

from model import GPT, GPTConfig, load_checkpoint
from parts.train import start
from parts.sample import gguf_file
from tokenizer import PATTERN, Tokenizer

PIECES = [' ', '    ', '\n', '\r\n', '\t', '):\n        ', "'s", "'LL", '12345', 'word', '_x', '((', '"""',
          'é', '漢字', '🙂', 'ﬁ', 'ſ', 'İ', 'ا', 'e\u0301', '३', 'Ⅷ', '\xa0', '\u2003', '\u2028', '\u200d',
          '\ufeff', '\0', '\x1c', '\x85', '<|endoftext|>', '<|im_end|>', '-->', '.append', '\n\n']


def serve(folder, model, tokenizer, kind):
    """A function (path, fields) -> answer of llama.cpp's server with this model, and the file's size."""
    gguf_file.write(folder, model, tokenizer, kind, {})
    path, = pathlib.Path(folder).glob('*.gguf')
    p = xllamacpp.CommonParams()
    p.model.path = str(path)
    p.n_ctx = model.config.block_size
    p.n_parallel = 1
    p.warmup = False
    p.verbosity = -1
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32         # the default is float16
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(p)

    def post(what, **fields):
        request = urllib.request.Request(server.listening_address + what, json.dumps(fields).encode(),
                                         {'Content-Type': 'application/json'})
        return json.load(urllib.request.urlopen(request))
    return post, path.stat().st_size


def spans(tokenizer, ids):
    ends = [0, *itertools.accumulate(len(tokenizer.all_bytes[id]) for id in ids)]
    return set(itertools.pairwise(ends))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument('--ckpt', default='out/quickstart_sft')
parser.add_argument('--data', default='data/problems/val.jsonl', help='conversations')
args = parser.parse_args()
torch.set_num_threads(1)
model, ours, _ = start.open_to_sample(args.ckpt, load_checkpoint, Tokenizer.load)
with open(args.data, encoding='utf-8') as f:
    asked = [json.loads(line)['messages'][0]['content'] for line in f][:300]
dice = random.Random(0)
library = [text for path, text in python_documents() if f'{os.sep}test' not in path]
files = [text[:2000] for text in dice.sample(library, 300)]
lines = [line for text in files for line in dice.sample(text.split('\n'), min(2, text.count('\n') + 1))]
hostile = [''.join(dice.choice(PIECES) for _ in range(dice.randint(1, 25))) for _ in range(1000)]
plain = {'add_special': False, 'parse_special': False}
texts = {'prompts': asked, 'lines of Python': lines, 'beginnings of files': files, 'hostile': hostile}

contestants = {'ours': ours, 'ours, newlines not cut out': ours}
for name, pattern in gguf_file.PATTERNS.items():
    contestants[name] = Tokenizer.train(iter(library), 4096, pattern=pattern)
print('| pattern | ' + ' | '.join(texts) + ' |')
for name, tokenizer in contestants.items():
    gguf_file.NAMES.pop(PATTERN, None)
    if 'not cut' in name:
        gguf_file.NAMES[PATTERN] = 'llama-bpe'          # as if it were llama.cpp's own
    with tempfile.TemporaryDirectory() as folder:
        post, _ = serve(folder, GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 32)), tokenizer, 'gguf')
        row = []
        for some in texts.values():
            pairs = [(tokenizer.encode(t), post('/tokenize', content=t, **plain)['tokens']) for t in some]
            kept = sum(len(spans(tokenizer, a) & spans(tokenizer, b)) for a, b in pairs)
            total = sum(len(a) for a, _ in pairs)
            row.append(f'{sum(a == b for a, b in pairs)} of {len(some)}; {kept / total:.2%} of tokens')
        print(f'| {name} | ' + ' | '.join(row) + ' |', flush=True)
gguf_file.NAMES.pop(PATTERN, None)

print('| file | MB | the same answer | largest difference of a log-probability |')
for kind in ('gguf', 'gguf-f16', 'gguf-q8_0'):
    same = 0
    largest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        post, size = serve(folder, model, ours, kind)
        for text in asked[:100]:
            ids = ours.render([{'role': 'user', 'content': text}], True)[0]
            answer = post('/completion', prompt=ids, n_predict=100, temperature=0, return_tokens=True,
                          n_probs=5, cache_prompt=False)
            mine = model.generate(torch.tensor([ids]), 100, temperature=0, stop=ours.stop)[0, len(ids):]
            if answer['tokens'] == mine.tolist():
                same += 1
            p = model(torch.tensor([ids]))[0][0, -1].log_softmax(-1)
            for token in answer['completion_probabilities'][0]['top_logprobs']:
                largest = max(largest, abs(p[token['id']].item() - token['logprob']))
        print(f'| {kind} | {size / 1e6:.1f} | {same} of 100 | {largest:.1e} |', flush=True)
