"""
Greedy generation with a cache, beside transformers' generate on the same weights: tokens a second, with the
ratio of seconds and of CPU seconds.

    pip install -r bench/requirements.txt
    python bench/generate_speed.py              # three shapes with random weights, or those that are named

Where bfloat16 is native, weights of 16 bits are a row of their own.
"""
import hashlib
import os
import sys
import tempfile
import time

import torch
from peers import cpu_of, in_turn, median, timed
from model import GPT, GPTConfig
from parts.train import devices

SHAPES = {'quickstart': GPTConfig(4096, 256, 4, 4, 0, 256, tie_embeddings=False),
          'nano': GPTConfig(256, 512, 6, 8, 0, 256, 768),
          'small': GPTConfig(32768, 1024, 12, 12, 0, 768)}
PROMPT = 32
NEW = int(os.environ.get('NEW', 128))
ROUNDS = int(os.environ.get('ROUNDS', 3))


def generate(what, who, batch):
    torch.manual_seed(0)
    model = GPT(SHAPES[what])
    idx = torch.randint(model.config.vocab_size, (int(batch), PROMPT))
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
    return seconds, peak, f'{cpu} {hashlib.sha256(str(new.tolist()).encode()).hexdigest()[:8]}'


if __name__ == '__main__':
    if ':' in ''.join(sys.argv[1:]):
        print(*generate(*sys.argv[1].split(':')))
        sys.exit()
    print(f'{"":>12}{"batch":>6}{"":>14}{"tok/s":>8}{"times theirs":>14}{"in CPU time":>13}   same text')
    kinds = ['transformers', 'float32']
    if devices.choose('cpu', 'auto')[1] == 'bfloat16':      # native
        kinds.append('bfloat16')
    for what in sys.argv[1:] or SHAPES:
        for batch in (1, 16):
            rows = in_turn([f'{what}:{who}:{batch}' for who in kinds], ROUNDS, __file__)
            theirs = next(iter(rows.values()))      # without transformers, ours in float32
            for who, ours in ((name.split(':')[1], found) for name, found in rows.items()):
                ratios = [median([of(q) / of(p) for p, q in zip(ours, theirs)])
                          for of in (lambda row: row[0], cpu_of)]
                speed = median([batch * NEW / row[0] for row in ours])
                same = ours[0][2].split()[1] == theirs[0][2].split()[1]
                print(f'{what:>12}{batch:>6}{who:>14}{speed:>8,.0f}{ratios[0]:>14.2f}{ratios[1]:>13.2f}'
                      f'   {same}', flush=True)
