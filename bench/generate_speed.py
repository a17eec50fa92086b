"""
Greedy generation with a cache, beside transformers' generate on the same weights: tokens a second, with the
ratio of seconds and of CPU seconds. `read` is the rate at which a step at batch 1 reads its weights (their
bytes / its seconds), as a share of the rate of a copy of as many bytes in the same process (bytes read and
written / its seconds).

    pip install -r bench/requirements.txt
    python bench/generate_speed.py                          # three shapes with random weights
    python bench/generate_speed.py small out/quickstart     # one of them; a checkpoint

Where bfloat16 is native, weights of 16 bits are a row of their own. A checkpoint continues code and prose of
64 tokens.
"""
import argparse
import hashlib
import os
import pathlib
import sys
import tempfile
import time

import torch
from peers import cpu_of, in_turn, median, timed
from model import GPT, GPTConfig, load_checkpoint
from parts.train import devices
from tokenizer import Tokenizer

SHAPES = {'quickstart': GPTConfig(4096, 256, 4, 4, 0, 256, tie_embeddings=False),
          'nano': GPTConfig(256, 512, 6, 8, 0, 256, 768),
          'small': GPTConfig(32768, 1024, 12, 12, 0, 768)}
TEXTS = {'code': argparse.__file__, 'prose': pathlib.Path(__file__).parent.parent / 'LICENSE'}
PROMPT = 32
NEW = int(os.environ.get('NEW', 128))
ROUNDS = int(os.environ.get('ROUNDS', 3))


def load(what, batch):
    """A shape, or a checkpoint and a kind of text -> the model and its prompts (batch, T)."""
    torch.manual_seed(0)
    if what in SHAPES:
        model = GPT(SHAPES[what])
        return model, torch.randint(model.config.vocab_size, (batch, PROMPT))
    folder, kind = what.split('@')
    model = load_checkpoint(folder)[0]
    with open(TEXTS[kind], encoding='utf-8') as f:
        ids = Tokenizer.load(f'{folder}/tokenizer.json').encode(f.read())
    return model, torch.tensor([ids[row:row + 2 * PROMPT] for row in range(batch)])


def generate(what, who, batch):
    model, idx = load(what, int(batch))
    weights = sum(p.nbytes for p in model.parameters())
    if not model.config.tie_embeddings:
        weights -= model.embedding.weight.nbytes
    if who == 'transformers':
        import transformers
        with tempfile.TemporaryDirectory() as folder:
            model.save_hf(folder)
            hf = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
        work = lambda n: hf.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False,
                                     max_new_tokens=n, min_new_tokens=n, pad_token_id=0)
    else:
        model = model.to(getattr(torch, who))
        work = lambda n: model.generate(idx, n, temperature=0)
    work(4)
    began = time.process_time()
    seconds, peak, out = timed(lambda: work(NEW))
    cpu = time.process_time() - began
    new = out[:, -NEW:]
    assert new.shape == (int(batch), NEW)
    source = torch.zeros(weights, dtype=torch.uint8)
    target = torch.ones_like(source)
    copy = min(timed(lambda: target.copy_(source))[0] for _ in range(3))
    read = (weights / (seconds / NEW)) / (2 * weights / copy)
    text = hashlib.sha256(str(new.tolist()).encode()).hexdigest()[:8]
    return seconds, peak, f'{cpu} {read} {2 * weights / copy / 1e9:.1f} {text}'


if __name__ == '__main__':
    if ':' in ''.join(sys.argv[1:]):
        print(*generate(*sys.argv[1].split(':')))
        sys.exit()
    print(f'{"":>32}{"batch":>6}{"":>14}{"tok/s":>8}{"times transformers":>20}{"in CPU time":>13}{"read":>6}'
          '   same text')
    kinds = ['transformers', 'float32']
    if devices.choose('cpu', 'auto')[1] == 'bfloat16':      # native
        kinds.append('bfloat16')
    for name in sys.argv[1:] or SHAPES:
        for what in [name] if name in SHAPES else [f'{name}@{kind}' for kind in TEXTS]:
            for batch in (1, 16):
                rows = in_turn([f'{what}:{who}:{batch}' for who in kinds], ROUNDS, __file__)
                theirs = next(iter(rows.values()))      # without transformers, ours in float32
                for who, ours in ((name.split(':')[1], found) for name, found in rows.items()):
                    ratios = [median([of(q) / of(p) for p, q in zip(ours, theirs)])
                              for of in (lambda row: row[0], cpu_of)]
                    speed = median([batch * NEW / row[0] for row in ours])
                    read, copy, text = zip(*(row[2].split()[1:] for row in ours))
                    same = text[0] == theirs[0][2].split()[3]
                    line = (f'{what[-32:]:>32}{batch:>6}{who:>14}{speed:>8,.0f}{ratios[0]:>20.2f}'
                            f'{ratios[1]:>13.2f}')
                    if batch == 1 and who == 'float32':
                        share = 100 * median(map(float, read))
                        print(f'{line}{share:>4.0f} %   {same}, a copy: {copy[0]} GB/s', flush=True)
                    else:
                        print(f'{line}{"":>6}   {same}', flush=True)
