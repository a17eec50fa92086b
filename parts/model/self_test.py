"""
Does a model learn at all, and does a device compute the same as the CPU in float32?

    agrees = check(model, idx, 'mps')           # True; prints a line each for float32 and bfloat16
    first, last = by_heart(model, idx)          # does it learn at all? 5.6, 0.01

The CPU adds in another order than a GPU, so the last digits differ: 1e-7 for one sum in float32. A wrong
kernel, or one for another precision, shows as 1e-2 and more.
"""
import argparse, copy, math, sys
import torch

# the largest difference that rounding explains, of the loss and of the gradients, relative: 24 bits and 8
LIMITS = {'float32': 1e-4, 'bfloat16': 5e-2}


def measure(model, idx, device, dtype='float32'):
    """The loss of idx (B, T), the gradient of every weight, (n,), and the 20 tokens that follow greedily on
    half of each row, (B, 20); all on the CPU. dtype: of the matrix products. model itself is not changed."""
    model = copy.deepcopy(model).to(device).eval()
    idx = idx.to(device)
    with torch.autocast(torch.device(device).type, getattr(torch, dtype), enabled=dtype != 'float32'):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
    loss.backward()
    gradient = torch.cat([p.grad.flatten().cpu().double() for p in model.parameters()])
    tokens = model.generate(idx[:, :idx.shape[1] // 2], 20, temperature=0)[:, -20:]
    return loss.item(), gradient, tokens.cpu()


def check(model, idx, device):
    """Print for each dtype how far loss and gradients are from the CPU's in float32, relative, and how many
    greedy tokens are the same. Return whether rounding explains it. In bfloat16, tokens of about one score
    may change places."""
    loss, gradient, tokens = measure(model, idx, 'cpu')
    agrees = True
    for dtype, limit in LIMITS.items():
        its_loss, its_gradient, its_tokens = measure(model, idx, device, dtype)
        far = abs(its_loss - loss) / loss
        far_gradient = float((its_gradient - gradient).norm() / gradient.norm())
        same = int((its_tokens == tokens).sum())
        ok = far < limit and far_gradient < limit and (dtype != 'float32' or same == tokens.numel())
        agrees = agrees and ok
        print(f'{device}, {dtype}: loss {far:.1e} and gradients {far_gradient:.1e} apart, {same} of '
              f'{tokens.numel()} greedy tokens the same: {"as" if ok else "NOT as"} the CPU in float32')
    if not agrees:
        print(f'at most {LIMITS} is rounding: do not train on {device} before you know why it differs')
    return agrees


def by_heart(model, idx, steps=100):
    """The first and the last loss of a model that trains on idx (B, T) and nothing else."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


def main(GPT, GPTConfig):
    """What `python model.py` prints: the parameters of four sizes, and check() of the smallest."""
    parser = argparse.ArgumentParser(description='The parameters of four sizes, and a self-test.')
    own = str(torch.accelerator.current_accelerator() or 'cpu')
    parser.add_argument('--device', default=own, help='cpu, cuda, mps: does it compute what the CPU does?')
    device = parser.parse_args().device
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as e:
        parser.error(f'--device={device} is not available here: {e}'.partition('\n')[0])
    count = lambda part: f'{sum(p.numel() for p in part.parameters()):,}'
    sizes = {'mega': (22, 32, 0, 2048, 5632), 'midi': (12, 12, 0, 768, 2304), 'mini': (8, 8, 0, 512, 1536),
             'nano': (6, 8, 0, 256, 768)}               # n_layer, n_head, n_kv_head, n_embd, n_ffn
    for name, shape in sizes.items():
        config = GPTConfig(256, 512, *shape)
        with torch.device('meta'):                      # shapes only, nothing is allocated
            m = GPT(config)
        print(f'{name} {count(m)} parameters, all trained: embedding {count(m.embedding)} (output tied), '
              f'blocks {count(m.blocks)}, per block {count(m.blocks[0])}, last norm {count(m.norm)}')

    torch.manual_seed(0)
    nano = GPT(config)                  # the last of the sizes
    idx = torch.randint(256, (4, 65))
    logits, loss = nano(idx[:, :-1], idx[:, 1:])
    out = nano.generate(idx[:1, :10], 20)
    print(f'forward {tuple(idx[:, :-1].shape)} -> {tuple(logits.shape)}, generate (1, 10) -> '
          f'{tuple(out.shape)}, loss {loss:.4f}; ln V = {math.log(256):.4f}')
    with torch.no_grad():               # else a tied head only repeats the last token, whatever the blocks do
        for p in nano.blocks.parameters():
            p.mul_(3 if p.dim() == 2 else 1)
    if not check(nano, idx, device):
        sys.exit(1)

    small = GPT(GPTConfig(256, 64, 2, 4, 2, 128)).to(device)
    first, last = by_heart(small, idx[:, :33].to(device) % 16)      # few tokens: one does not tell the next
    learns = last < first / 10
    print(f'one batch, 100 steps: loss {first:.2f} -> {last:.4f}: '
          + ('the model learns' if learns else 'it does NOT learn, look at your last change of model.py'))
    sys.exit(0 if learns else 1)
