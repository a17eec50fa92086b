"""
What `python model.py` prints: parameters, the first loss, and whether a model learns and generates.

    first, last = by_heart(model, idx)          # does it learn at all? 5.5, 0.05

Does a GPU compute what the CPU computes? bench/gpu.py compares them.
"""
import argparse, math, pathlib, runpy, sys
import torch
from model import GPT, GPTConfig
from extras import planner

CONFIG = pathlib.Path(__file__).parents[2] / 'config'


def by_heart(model, idx, steps=100):
    """Train on idx (B, T) and nothing else. Return the first loss and the last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().partition('\n')[0])
    parser.add_argument('--device', default='cpu', help='cpu, cuda, mps: where it learns')
    device = parser.parse_args().device
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as e:
        parser.error(f'--device={device} is not available here: {e}'.partition('\n')[0])
    for name in 'nano', 'mini', 'midi', 'mega':         # presets of config/, of 256 bytes as tokens
        preset = runpy.run_path(str(CONFIG / f'{name}.py'))
        shape = {key: preset[key] for key in ('n_layer', 'n_head', 'n_embd', 'n_ffn')}
        count = planner.count_parameters(planner.sketch(GPTConfig(256, 512, **shape)))
        print(f'{name}: ' + ', '.join(f'{part} {n:,}' for part, n in count.items()))

    # 16 different tokens in random order: one token does not tell the next one, several do.
    torch.manual_seed(0)
    model = GPT(GPTConfig(256, 64, 2, 4, 2, 128)).to(device)
    idx = torch.randint(16, (4, 33), device=device)
    first, last = by_heart(model, idx)
    learns = last < first / 10
    print(f'loss {first:.4f}, ln V = {math.log(256):.4f}; after 100 steps on one batch {last:.4f}: '
          + ('the model learns' if learns else 'it does NOT learn, look at your last change'))

    # It must write what it knows by heart, one token at a time, with the cache.
    text = model.generate(idx[:, :8], 25, temperature=0)            # (4, 33)
    same = torch.equal(text, idx)
    print(f'generated (4, 8) -> {tuple(text.shape)}: '
          + ('the same batch' if same else 'another text, so look at the cache'))
    sys.exit(0 if learns and same else 1)
