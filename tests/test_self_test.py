"""The self-test: does a device compute what the CPU does, and does a model learn at all?"""
import re

import torch

from model import GPT, GPTConfig
from parts.model import self_test

IDX = torch.randint(96, (3, 33), generator=torch.Generator().manual_seed(0))


class Faulty(GPT):
    """A model that has the wrong sign in one gradient on a second device, cpu:0."""
    def to(self, device):
        if str(device) == 'cpu:0':
            self.blocks[0].attention.w_k.weight.register_hook(lambda g: -g)
        return self


def test_a_device_that_computes_the_same_is_ok_and_a_fault_is_seen_where_it_is(capsys):
    for kind in GPT, Faulty:
        torch.manual_seed(0)
        model = kind(GPTConfig(96, 64, 2, 2, 1, 32))
        for p in model.blocks.parameters():
            p.data *= 8 if p.dim() == 2 else 1
        agrees = self_test.check(model, IDX, 'cpu:0')
        out = capsys.readouterr().out
        figures = re.search(r'float32: loss (\S+) and gradients (\S+) apart, (\d+) of 60', out)
        loss, gradients, same = map(float, figures.groups())
        assert loss == 0 and same == 60 and (gradients > 1e-5) == (kind == Faulty)
        assert (kind == GPT) == agrees == ('NOT as the CPU' not in out)


def test_a_model_that_learns_knows_one_batch_by_heart_and_one_without_attention_does_not():
    whole, blind = (GPT(GPTConfig(64, 32, 2, 4, 2, 128)) for _ in range(2))
    for block in blind.blocks:
        block.attention.forward = lambda x, *rest: torch.zeros_like(x)
    for network, learns in (whole, True), (blind, False):
        first, last = self_test.by_heart(network, IDX % 16)
        assert (last < first / 10) == learns and (last > first / 5) != learns, (first, last)
