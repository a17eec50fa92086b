"""
Two losses for training beside -log p: label smoothing and focal loss.

    losses(logits, targets, label_smoothing=0.1, focal=0.0)         # (B T,), 0 where a target is ignored

Validation stays -log p, so that runs with different losses can be compared.
Copy this file alone: it needs torch.
"""
import torch.nn.functional as F

IGNORE = -100       # a target that is not scored, as in model.py


def losses(logits, targets, label_smoothing, focal):
    """logits (B, T, V), targets (B, T) -> (B T,). label_smoothing: the share of a target's probability that
    is spread over all tokens. focal: times (1 - p)^focal (arXiv:1708.02002): the better a target is known,
    the less it counts."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction='none',
                             label_smoothing=label_smoothing)                               # (B T,)
    if focal:
        p = logits.softmax(-1).gather(2, targets.clamp(min=0)[:, :, None]).flatten()        # (B T,)
        losses = losses * (1 - p).clamp(min=1e-7) ** focal      # at 0 its slope may be infinite
    return losses
