"""
LoRA trains only small matrices beside the weights, and a reward model has a head that gives a score.

    adapt(model, rank=8)                # from now on W x is W x + 16 / rank B A x; only A and B train
    weights_of(model)                   # {'blocks.0.attention.w_q': [W, B, A], ...}, for a checkpoint
    merged(model)                       # a GPT without adapters that computes the same
    RewardModel(model)(x, y)            # (N,) scores, from inputs and targets (N, T)

Fine-tuning changes a matrix W (out, in) by a D of low rank, so D = B A is learned instead: B (out, r), A
(r, in). At first B is 0, so the model is the base. W needs no gradient and no moments: 4 of AdamW's 16 bytes
a number remain. Each matrix in a block has an adapter, as in QLoRA (2305.14314, section 4); the LoRA paper
(Hu et al. 2021, arXiv:2106.09685) adapts two of the seven. Embedding, head, biases, norms stay as they are.
Copy this file alone: it needs torch and a model like that of model.py.
"""
import copy
import torch
import torch.nn as nn
import torch.nn.functional as F

ALPHA = 16          # B A is scaled by ALPHA / rank, so that another rank needs no other learning rate


class Adapted(nn.Linear):
    """A Linear whose W is frozen, with the adapter B A beside it."""

    def __init__(self, linear, rank, generator):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device='meta')
        self.weight, self.bias = linear.weight, linear.bias
        A = torch.randn(rank, self.in_features, generator=generator) / self.in_features ** 0.5
        self.B = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.A = nn.Parameter(A.to(self.weight))
        self.scale = ALPHA / max(1, rank)

    def forward(self, x):
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.A), self.B)      # (..., out)

    def merged(self):
        """A Linear whose weight is W + scale B A: the same function, to rounding."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device='meta')
        linear.weight, linear.bias = nn.Parameter(self.weight + self.scale * self.B @ self.A), self.bias
        return linear


def swap(model, kind, make):
    """Replace each part of this kind in the model's blocks by make(part)."""
    for parent in [*model.blocks.modules()]:
        for name, part in [*parent.named_children()]:
            if type(part) is kind:
                setattr(parent, name, make(part))


def adapt(model, rank, state=None):
    """Freeze the model and give each Linear in its blocks an adapter, in place. rank 0: leave it as it is.
    state: a checkpoint, to resume. ValueError if it has adapters of another rank."""
    saved = state.get('lora', {}) if state else {}
    before = next((len(A) for _, _, A in saved.values()), 0)
    if state and before != rank:
        raise ValueError(f'lora={rank}, but this run has lora={before}: resume it with --lora={before}')
    if rank == 0:
        return
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)            # the same A in all processes
    swap(model, nn.Linear, lambda linear: Adapted(linear, rank, generator))
    for name, values in saved.items():
        part = model.get_submodule(name)
        for p, value in zip((part.weight, part.B, part.A), values, strict=True):
            p.data.copy_(value)
    saved.clear()       # else the weights stay in memory twice


def weights_of(model):
    """{name: [W, B, A]} of each adapted matrix; {} without adapters. W is there, too: it cannot be computed
    from W + B A to the bit, and a run that resumes should need no other folder."""
    return {name: [part.weight.detach(), part.B.detach(), part.A.detach()]
            for name, part in model.named_modules() if isinstance(part, Adapted)}


def merged(model):
    """A GPT without adapters that computes the same, to rounding; model itself if it has none. So code
    that reads a checkpoint need not know adapters. All other weights are shared with model, not copied."""
    if not weights_of(model):
        return model
    plain = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    with torch.no_grad():
        swap(plain, Adapted, Adapted.merged)
    return plain


# --- a reward model -------------------------------------------------------------------------------
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
