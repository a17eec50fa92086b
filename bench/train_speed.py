"""
Training steps, beside transformers' LlamaForCausalLM of the same shape, dtype, threads, batch and optimizer.

    pip install -r bench/requirements.txt
    python bench/train_speed.py                     # all shapes, or those that are named

bfloat16 is measured where the processor has it. Elsewhere torch emulates it: a step of nano takes 10 seconds.
"""
import contextlib
import os
import sys

import torch
from peers import in_turn, median, timed
from gpu_calls import llama_of
from model import GPT, GPTConfig
from parts.train import devices, optim

SHAPES = {'shakespeare_cpu': (GPTConfig(65, 64, 4, 4, 0, 128, tie_embeddings=False), 12),
          'quickstart': (GPTConfig(4096, 256, 4, 4, 0, 256, tie_embeddings=False), 8),
          'nano': (GPTConfig(256, 512, 6, 8, 0, 256, 768), 2)}
STEPS = int(os.environ.get('STEPS', 10))
ROUNDS = int(os.environ.get('ROUNDS', 3))
DTYPES = {'float32', devices.choose('cpu', 'auto')[1]}


def steps(shape, who, dtype):
    c, B = SHAPES[shape]
    torch.manual_seed(0)
    x = torch.randint(c.vocab_size, (B, c.block_size + 1))
    x, y = x[:, :-1].contiguous(), x[:, 1:].contiguous()
    if who == 'ours':
        model = GPT(c)
        [optimizer] = optim.build(model, 'adamw', 1e-4, (0.9, 0.999), 0.1)
        loss_of = lambda: model(x, y)[1]
    else:
        model = llama_of(c, 'cpu')
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)     # as fast an optimizer as ours
        loss_of = lambda: model(input_ids=x, labels=x, use_cache=False).loss
    context = torch.autocast('cpu', torch.bfloat16) if dtype == 'bfloat16' else contextlib.nullcontext()

    def step():
        with context:
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2):
        step()
    seconds = median([timed(step)[0] for _ in range(STEPS)])
    return seconds, timed(lambda: None)[1], f'{B * c.block_size / seconds:.0f}'


if __name__ == '__main__':
    if ':' in ''.join(sys.argv[1:]):
        print(*steps(*sys.argv[1].split(':')))
    else:
        print(f'{"":>28}{"ours tok/s":>12}{"transformers":>14}{"ratio":>8}   peak MB '
              f'(medians of {ROUNDS} rounds)')
        for shape in sys.argv[1:] or SHAPES:
            for dtype in sorted(DTYPES, reverse=True):      # float32 first
                names = [f'{shape}:{who}:{dtype}' for who in ('ours', 'transformers')]
                a, b = in_turn(names, ROUNDS, __file__).values()
                ratio = median([q[0] / p[0] for p, q in zip(a, b)])
                ours, theirs = (median([int(note) for _, _, note in rows]) for rows in (a, b))
                print(f'{shape:>18}{dtype:>10}{ours:>12,}{theirs:>14,}{ratio:>8.2f}   '
                      f'{max(r[1] for r in a):.0f} / {max(r[1] for r in b):.0f}')
