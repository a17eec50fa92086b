"""
Optimizers and learning rates: Muon, the groups of parameters in fine-tuning, the schedule.

    opt = build(model, 'muon', learning_rate=3e-3, weight_decay=0.1)
    for group in opt.param_groups:
        group['lr'] = cosine(step, max_steps, warmup_steps, learning_rate, min_lr)
    opt.step()
"""
import math
import torch
from parts import Mistake
from parts.train import processes


class Muon(torch.optim.Optimizer):
    """Muon for the groups with use_muon=True, torch's AdamW for the others, behind one step().

    An update of Muon is momentum, orthogonalized (Keller Jordan 2024), so that it is equally large
    in every direction. It is scaled to the RMS of AdamW's updates, so that both share a learning
    rate (arXiv:2502.16982). It equals torch.optim.Muon(adjust_lr_fn='match_rms_adamw'), but uses
    float32 on a CPU that only emulates bfloat16."""

    def __init__(self, groups, momentum=0.95, **settings):
        super().__init__(groups, settings)
        self.momentum = momentum
        self.adamw = torch.optim.AdamW(self.param_groups, **settings)

    @torch.no_grad()
    def step(self, closure=None):
        # AdamW works on this object's groups and state, so a checkpoint sees one optimizer.
        self.adamw.param_groups = [g for g in self.param_groups if not g.get('use_muon')]
        self.adamw.state = self.state
        self.adamw.step()
        for group in (group for group in self.param_groups if group.get('use_muon')):
            of_shape = {}                   # shape -> [(matrix, its direction)]
            for p in group['params']:
                if not self.state[p]:
                    self.state[p]['momentum_buffer'] = torch.zeros_like(p)
                buffer = self.state[p]['momentum_buffer'].lerp_(p.grad, 1 - self.momentum)
                direction = p.grad.lerp(buffer, self.momentum)                      # Nesterov's
                of_shape.setdefault(p.shape, []).append((p, direction))
            for shape, pairs in of_shape.items():       # in bfloat16 a stack takes half of the time
                updates = orthogonal(torch.stack([direction for _, direction in pairs]))
                for i, (p, _) in enumerate(pairs):      # torch 2.9 can't iterate sharded tensors
                    p.mul_(1 - group['lr'] * group['weight_decay'])
                    p.add_(updates[i], alpha=-group['lr'] * 0.2 * math.sqrt(max(shape)))


def orthogonal(g, dtype=None):
    """Return about U V^T for each matrix U S V^T in g (N, rows, columns), by five Newton-Schulz
    iterations."""
    native = processes.native_bfloat16(str(g.device))
    tall = g.shape[1] > g.shape[2]
    x = (g.mT if tall else g).to(dtype or (torch.bfloat16 if native else torch.float32))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)          # no singular value is above 1
    for _ in range(5):
        gram = x @ x.mT
        factors = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, factors, x, beta=3.4445)
    return x.mT if tall else x


def build(model, kind, learning_rate, weight_decay, betas=(0.9, 0.95)):
    """Return one optimizer for the weights that fine-tuning changes, in the groups of train.py:
    decay for matrices only; with kind='muon' Muon for the matrices of the blocks, AdamW for the
    rest."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    in_blocks = [p for name, p in named if 'blocks.' in name and p.dim() == 2]
    others = [p for name, p in named if 'blocks.' not in name and p.dim() == 2]
    groups = [{'params': in_blocks, 'use_muon': kind == 'muon'}, {'params': others},
              {'params': [p for _, p in named if p.dim() == 1], 'weight_decay': 0.0}]
    make = Muon if kind == 'muon' else torch.optim.AdamW
    return make([group for group in groups if group['params']], lr=learning_rate, betas=betas,
                weight_decay=weight_decay, fused=named[0][1].device.type != 'mps')


def schedule_ends(max_steps, warmup_steps, learning_rate, min_lr, decay_steps=0):
    """Return warmup_steps, min_lr and decay_steps with their defaults filled in: a warm-up below 1
    is this fraction of max_steps, a min_lr of None is a tenth of learning_rate, and decay_steps=0
    is a fifth of max_steps, or what the warm-up leaves. schedule_ends(200, 0.1, 1.0, None):
    (20, 0.1, 40). Mistake if they don't fit."""
    if warmup_steps > 1 and warmup_steps % 1:
        raise Mistake(f'{warmup_steps=} must be a whole number, or below 1: a fraction of '
                      'max_steps')
    warmup_steps = round(warmup_steps * max_steps if warmup_steps < 1 else warmup_steps)
    if min_lr is None:
        min_lr = learning_rate / 10
    fifth = max(0, min(max_steps // 5, max_steps - warmup_steps))
    decay_steps = decay_steps or fifth
    if min_lr > learning_rate:
        raise Mistake(f'min_lr={min_lr} must be at most learning_rate={learning_rate}')
    if warmup_steps + decay_steps > max_steps:
        both = f' and decay_steps={decay_steps}' if decay_steps else ''
        shares = ' and --decay_steps=0, a fifth' if decay_steps else ''
        raise Mistake(f'warmup_steps={warmup_steps}{both} must be at most '
                      f'max_steps={max_steps}; set --warmup_steps=0.1, a tenth of them{shares}')
    return warmup_steps, min_lr, decay_steps


def cosine(step, max_steps, warmup_steps, learning_rate, min_lr):
    """Return the learning rate of update `step`, counted from 0: a linear rise that reaches
    learning_rate with the last warm-up step, then half a cosine down to min_lr at max_steps (SGDR,
    arXiv:1608.03983, without restarts). cosine(step, 100, 10, 1.0, 0.1): 0.1 at step 0, 1.0 at 9
    and 10, 0.55 at 55, 0.1 at 100."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)        # 0 .. 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * t))
