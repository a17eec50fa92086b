"""
Other blocks for the model, one idea each, to train beside ours: what did each step since 2017 bring?

    python bench/blocks.py layernorm train.py --data_dir=data/x --out_dir=out/x     # train.py, with LayerNorm

A patch replaces one class of model.py in this process, then the script runs as it is. None of these models
can be written for Hugging Face's Llama, and only a process with the same patch reads their checkpoints.
"""
import os
import runpy
import sys

import peers  # noqa: F401  this checkout on the path
import torch
import torch.nn as nn
import torch.nn.functional as F

import model


class LayerNorm(nn.LayerNorm):
    """w * (x - mean) / sqrt(variance + eps) + b: C more parameters than RMSNorm, and two more passes."""

    def __init__(self, C, eps):
        super().__init__(C, eps)


class GELU(nn.Module):
    """Two matrices instead of three, 3/2 as wide: as many parameters as SwiGLU."""

    def __init__(self, c):
        super().__init__()
        self.w_up = nn.Linear(c.n_embd, c.n_ffn * 3 // 2, bias=False)
        self.w_down = nn.Linear(c.n_ffn * 3 // 2, c.n_embd, bias=False)

    def forward(self, x):
        return self.w_down(F.gelu(self.w_up(x)))


class PostNorm(model.Block):
    """Vaswani et al. 2017: the norm stands on the residual stream, not before the sublayer."""

    def forward(self, x, cos, sin, cache=None, start=0, mask=None):
        x = self.norm_1(x + self.dropout(self.attention(x, cos, sin, cache, start, mask)))
        return self.norm_2(x + self.dropout(self.mlp(x)))


class LearnedPositions(model.GPT):
    """A vector for each position is added to the token's, and no head turns: block_size x C parameters more,
    and none for a position beyond block_size."""

    def __init__(self, config):
        super().__init__(config)
        self.position = nn.Embedding(config.block_size, config.n_embd)
        nn.init.normal_(self.position.weight, 0.0, 0.02)
        self.cos, self.sin = torch.ones_like(self.cos), torch.zeros_like(self.sin)      # turn by 0

    def backbone(self, idx, cache=None, start=0, mask=None, positions=None):
        at = torch.arange(start, start + idx.shape[1], device=idx.device) if positions is None else positions
        place = self.position(at)                                                   # (T, C) or (B, T, C)
        hook = self.embedding.register_forward_hook(lambda layer, ids, x: x + place)
        try:
            return super().backbone(idx, cache, start, mask, positions)
        finally:
            hook.remove()


PATCHES = {'ours': {}, 'layernorm': {'RMSNorm': LayerNorm}, 'gelu': {'SwiGLU': GELU},
           'postnorm': {'Block': PostNorm}, 'learned': {'GPT': LearnedPositions}}


def patch(name):
    """Put other classes into model.py's namespace; returns those that were there."""
    before = {old: getattr(model, old) for old in PATCHES[name]}
    for old, new in PATCHES[name].items():
        setattr(model, old, new)
    return before


def run(name, script, flags, log=None):
    """Run a script in this process with patched blocks. log: a file that takes what it prints."""
    if log:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    patch(name)
    sys.argv = [script, *flags]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    if len(sys.argv) < 3 or sys.argv[1] not in PATCHES:
        sys.exit(f'usage: python bench/blocks.py {"|".join(PATCHES)} SCRIPT [FLAGS]')
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
