"""The self-test: does it see that a model does not learn?"""
import torch

from model import GPT, GPTConfig
from parts.model import self_test


def test_a_model_without_attention_does_not_know_one_batch_by_heart():
    """One that learns: what model.py prints, in test_model.py."""
    blind = GPT(GPTConfig(64, 32, 2, 4, 2, 128))
    for block in blind.blocks:
        block.attention.forward = lambda x, *rest: torch.zeros_like(x)
    idx = torch.randint(16, (3, 33), generator=torch.Generator().manual_seed(0))
    first, last = self_test.by_heart(blind, idx)
    assert last > first / 5, (first, last)
