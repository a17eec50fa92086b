"""
The cost and the saving of grad_checkpoint: time and memory of a forward and backward pass with and without
it, beside the planner's memory. The claim to be tested: a fifth of the activations, 30 % more time.

    python bench/grad_checkpoint.py [cuda]
"""
import sys

import torch
from peers import in_turn, median, timed
from model import GPT, GPTConfig
from parts.train.planner import activation_bytes

SHAPES = {'quickstart': (GPTConfig(4096, 256, 4, 4, 0, 256), 8),
          'nano': (GPTConfig(256, 512, 6, 8, 0, 256, 768), 8),
          'deep': (GPTConfig(256, 256, 24, 4, 0, 256), 8),
          'codeparrot_small': (GPTConfig(32768, 1024, 12, 12, 0, 768), 2)}


def measure(shape, kept, device):
    c, B = SHAPES[shape]
    torch.manual_seed(0)
    model = GPT(c).to(device)
    model.grad_checkpoint = kept == 'True'
    x = torch.randint(c.vocab_size, (B, c.block_size), device=device)

    def step():
        with torch.autocast(device, torch.bfloat16):
            loss = model(x, x)[1]
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.item()
    step()
    before = timed(lambda: None)[1]
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2 ** 20
    seconds = median([timed(step)[0] for _ in range(7)])
    peak = torch.cuda.max_memory_allocated() / 2 ** 20 if device == 'cuda' else timed(lambda: None)[1]
    return seconds, peak, f'{before:.0f}'


if __name__ == '__main__':
    if sys.argv[1:] and ':' in sys.argv[1]:
        print(*measure(*sys.argv[1].split(':')))
    else:
        device = (sys.argv[1:] or ['cpu'])[0]
        print(f'{"":>18}{"ms":>8}{"with it":>10}{"ratio":>8}   peak MB      planned activations, MB')
        for shape, (c, B) in list(SHAPES.items())[:None if device == 'cuda' else 3]:
            names = [f'{shape}:{kept}:{device}' for kept in (False, True)]
            a, b = in_turn(names, 3, __file__).values()
            ms = [1000 * median([r[0] for r in rows]) for rows in (a, b)]
            mb = [max(r[1] for r in rows) for rows in (a, b)]
            planned = [activation_bytes(vars(c), B, 2, k, device == 'cpu') / 2 ** 20 for k in (False, True)]
            print(f'{shape:>18}{ms[0]:>8.0f}{ms[1]:>10.0f}{median([q[0] / p[0] for p, q in zip(a, b)]):>8.2f}'
                  f'   {mb[0]:.0f}, {mb[1]:.0f}   {planned[0]:.0f}, {planned[1]:.0f}', flush=True)
