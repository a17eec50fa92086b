"""
Optimizers and learning rates: the groups of parameters in fine-tuning, the schedule.

    opt = build(model, 'muon', learning_rate=3e-3, weight_decay=0.1)
    for group in opt.param_groups:
        group['lr'] = cosine(step, max_steps, warmup_steps, learning_rate, min_lr)
    opt.step()
"""
import math
import torch
from extras.muon import Muon
from parts import Mistake


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
