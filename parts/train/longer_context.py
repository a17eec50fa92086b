"""
RoPE's frequencies for a context that is longer than in pretraining.

    slower(frequency, 4.0)                          # linear: all divided by 4 (arXiv:2306.15595)
    slower(frequency, 8.0, 1.0, 4.0, 8192)          # Llama 3.1's

Copy this file alone: it needs tensors of torch.
"""
import math


def slower(frequency, factor, low=None, high=None, T_old=None):
    """frequency: tensor, radians a position. factor: how much longer the context becomes. Llama 3.1 divides
    those that turn fewer than `low` times in T_old tokens, its context until then; those that turn more than
    `high` times stay; those between are interpolated."""
    if low is None:
        return frequency / factor
    turns = T_old * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)           # 1 stays, 0 is divided
    return frequency * (keep + (1 - keep) / factor)
