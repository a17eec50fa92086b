"""
Reward model: a language model that reads an answer and gives it one number instead of writing.

    policy = RewardModel(model)
    scores = policy(x, y)           # (N,), from inputs and targets (N, T)

Copy this file alone: it needs torch and a model like that of model.py.
"""
import torch

IGNORE = -100       # a target outside the answer, as in model.py


class RewardModel(torch.nn.Module):
    """Inputs and targets (N, T) -> the scores of N answers, float32 (N,): a linear function of the hidden
    state at the end of the answer. All scores are 0 at first, so the first loss is ln 2."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.score = torch.nn.Linear(model.config.n_embd, 1, bias=False, device=model.embedding.weight.device)
        torch.nn.init.zeros_(self.score.weight)

    def forward(self, x, y):
        position = torch.arange(y.shape[1], device=y.device)                                # (T,)
        end = torch.where(y != IGNORE, position, 0).amax(1) + 1     # (N,): the last target's own place
        rows = torch.arange(len(x), device=x.device)                                        # (N,)
        hidden = self.model.backbone(x)[rows, end]                                          # (N, C)
        return (hidden.float() * self.score.weight).sum(1)  # in float32: autocast would round
