"""
Greedy generation with a cache, beside transformers' generate on the same weights.

    pip install -r bench/requirements.txt
    python bench/generate_speed.py
"""
import sys
import tempfile

import torch
from peers import in_turn, median, timed
from model import GPT, GPTConfig

SHAPES = {'quickstart': GPTConfig(4096, 256, 4, 4, 0, 256), 'nano': GPTConfig(256, 512, 6, 8, 0, 256, 768),
          'small': GPTConfig(32768, 1024, 12, 12, 0, 768)}
PROMPT, NEW = 32, 128


def generate(shape, who, batch):
    torch.manual_seed(0)
    model = GPT(SHAPES[shape])
    idx = torch.randint(SHAPES[shape].vocab_size, (int(batch), PROMPT))
    if who == 'ours':
        work = lambda n: model.generate(idx, n, temperature=0)
    else:
        import transformers
        with tempfile.TemporaryDirectory() as folder:
            model.save_hf(folder)
            hf = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
        work = lambda n: hf.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False,
                                     max_new_tokens=n, min_new_tokens=n, pad_token_id=0)
    work(4)
    seconds, peak, out = timed(lambda: work(NEW))
    assert out.shape == (int(batch), PROMPT + NEW)
    return seconds, peak, f'{int(batch) * NEW / seconds:.0f} {hash(tuple(out.flatten().tolist()))}'


if __name__ == '__main__':
    if len(sys.argv) > 1:
        print(*generate(*sys.argv[1].split(':')))
    else:
        print(f'{"":>14}{"batch":>6}{"ours tok/s":>12}{"transformers":>14}{"ratio":>7}   same text')
        for shape in SHAPES:
            for batch in (1, 16):
                names = [f'{shape}:{who}:{batch}' for who in ('ours', 'transformers')]
                a, b = in_turn(names, 3, __file__).values()
                ours, theirs = (median([int(row[2].split()[0]) for row in rows]) for rows in (a, b))
                ratio = median([q[0] / p[0] for p, q in zip(a, b)])
                same = a[0][2].split()[1] == b[0][2].split()[1]
                print(f'{shape:>14}{batch:>6}{ours:>12,}{theirs:>14,}{ratio:>7.2f}   {same}', flush=True)
