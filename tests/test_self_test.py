"""The self-test: does a model learn at all?"""
import torch

from model import GPT, GPTConfig
from parts.model import self_test

IDX = torch.randint(96, (3, 33), generator=torch.Generator().manual_seed(0))


def test_a_model_that_learns_knows_one_batch_by_heart_and_one_without_attention_does_not():
    whole, blind = (GPT(GPTConfig(64, 32, 2, 4, 2, 128)) for _ in range(2))
    for block in blind.blocks:
        block.attention.forward = lambda x, *rest: torch.zeros_like(x)
    for network, learns in (whole, True), (blind, False):
        first, last = self_test.by_heart(network, IDX % 16)
        assert (last < first / 10) == learns and (last > first / 5) != learns, (first, last)
