"""
Validation: the loss of a model on data that it does not train on.

    nats, bits, accuracy = loss_of(model, token_bytes, autocast, all_sum, batches)
"""
import math
import numpy as np
import torch

IGNORE = -100       # a target that is not scored


@torch.no_grad()
def loss_of(model, token_bytes, autocast, all_sum, batches):
    """Nats per target, bits per byte of text, and the share of the targets that are the most probable token,
    over the batches of all processes. It draws no random numbers, so evaluating never changes a run.

    batches: pairs of a batch, (inputs, targets, ...), and whether it counts. One that does not count only
    takes part in the forward pass, as FSDP needs. token_bytes: V numbers. all_sum: over all processes."""
    token_bytes = np.array(token_bytes)                         # (V,)
    sums = np.zeros(4)                                          # nats, targets, bytes, right
    model.eval()
    for batch, counts in batches:
        with autocast:
            logits, mean = model(*batch)
        if counts:
            scored = batch[1][batch[1] != IGNORE].cpu().numpy()
            right = (logits.argmax(-1) == batch[1]).sum().item()
            sums += mean.item() * len(scored), len(scored), token_bytes[scored].sum(), right
    model.train()
    nats, n_targets, n_bytes, right = all_sum(*sums)
    n_targets = n_targets or math.nan
    return nats / n_targets, nats / math.log(2) / max(1, n_bytes), right / n_targets
