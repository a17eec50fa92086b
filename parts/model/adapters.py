"""
A reward model has a head that gives a score: dpo.py trains one, rl.py uses it.

    RewardModel(model)(x, y)        # (N,) scores, from inputs and targets (N, T)
"""
import torch
import torch.nn as nn

IGNORE = -100       # a target outside the answer, as in model.py


class RewardModel(nn.Module):
    """Inputs and targets (N, T) -> the scores of N answers, float32 (N,): a linear function of the
    hidden state at the end of the answer. All scores are 0 at first, so the first loss is ln 2."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        device = model.embedding.weight.device
        self.score = nn.Linear(model.config.n_embd, 1, bias=False, device=device)
        nn.init.zeros_(self.score.weight)
        if not model.config.tie_embeddings:
            # No score uses the head, so DDP would wait for its gradient.
            model.head.requires_grad_(False)

    def forward(self, x, y):
        position = torch.arange(y.shape[1], device=y.device)                            # (T,)
        # (N,): where the last target is an input itself
        end = torch.where(y != IGNORE, position, 0).amax(1) + 1
        rows = torch.arange(len(x), device=x.device)                                    # (N,)
        hidden = self.model.backbone(x)[rows, end]                                      # (N, C)
        return (hidden.float() * self.score.weight).sum(1)  # in float32: autocast would round
