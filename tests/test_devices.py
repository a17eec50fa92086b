"""Devices: as the CPU? Does it learn? No memory left."""
import re
import sys

import pytest
import torch
from accidents import before
from conftest import mistake, run, train

from model import GPT, GPTConfig
from parts.model import self_test

IDX = torch.randint(96, (3, 33), generator=torch.Generator().manual_seed(0))


class Faulty(GPT):
    """A model whose second device, cpu:0, has a fault."""
    fault = staticmethod(lambda model: None)

    def to(self, device):
        if str(device) == 'cpu:0':
            self.fault(self)
        return self


def model(fault=lambda model: None, scale=8.0):
    torch.manual_seed(0)
    found = Faulty(GPTConfig(96, 64, 2, 2, 1, 32))
    found.fault = fault
    with torch.no_grad():
        for p in found.blocks.parameters():
            p.mul_(scale if p.dim() == 2 else 1)
    return found


def one_gradient(found):
    found.blocks[0].attention.w_k.weight.register_hook(lambda g: -g)


def cache(found):
    backbone = found.backbone

    def broken(idx, cache=None, start=0, *rest, **more):
        return backbone(idx, cache, max(0, start - 1), *rest, **more)
    found.backbone = broken


def test_a_device_that_computes_the_same_is_ok_and_a_fault_is_seen_where_it_is(capsys):
    def figures(fault=lambda model: None, **more):
        """[(relative distances of loss and gradients, how many of 60 tokens are the same)] of both dtypes"""
        agrees = self_test.check(model(fault, **more), IDX, 'cpu:0')
        out = capsys.readouterr().out
        assert agrees == ('NOT as the CPU' not in out) == ('do not train on cpu:0' not in out)
        found = re.findall(r'loss (\S+) and gradients (\S+) apart, (\d+) of 60', out)
        return [tuple(map(float, row)) for row in found], out

    (single, half), out = figures(scale=1.0)
    assert single == (0, 0, 60) and 'cpu:0, float32' in out and 'NOT' not in out
    assert 0 < half[1] < 0.5                    # another precision is seen

    (loss, gradients, same), _ = figures(one_gradient)[0]
    assert loss == 0 and gradients > 1e-5 and same == 60
    (loss, gradients, same), _ = figures(cache)[0]
    assert loss == gradients == 0 and same < 60
    assert 'NOT as' in figures(one_gradient, scale=1.0)[1]


def test_a_model_that_learns_knows_one_batch_by_heart_and_one_without_attention_does_not():
    whole, blind = (GPT(GPTConfig(64, 32, 2, 4, 2, 128)) for _ in range(2))
    for block in blind.blocks:
        block.attention.forward = lambda x, *rest: torch.zeros_like(x)
    for network, learns in ((whole, True), (blind, False)):
        first, last = self_test.by_heart(network, IDX % 16)
        assert (last < first / 10) == learns and (last > first / 5) != learns, (first, last)


# --- no memory left -----------------------------------------------------------------------------------------
# no_more: from then on, no more memory than the process has and so many bytes; what glibc has kept is taken,
# but for pieces of less than 16 MB. A training step begins with that; its scores need 34 MB
NO_MORE = """
import resource
taken = []
def no_more(n_bytes):
    pages = int(open('/proc/self/statm').read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + n_bytes, -1))
    try:
        while True:
            taken.append(bytearray(2 ** 24))
    except MemoryError:
        pass
"""
NO_MORE_IN_TRAINING = NO_MORE + before('hidden states', """
    if arguments[0].training:
        no_more(2 ** 22)""")


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc, and needs a limit on addresses')
def test_a_batch_that_does_not_fit_is_one_sentence(data_dir, base_run, tmp_path):
    """And in training nothing is written before. What a run saved before: tests/test_resume.py."""
    out = tmp_path / 'run'
    flags = ['--n_layer=1', '--n_head=1', '--n_embd=16', '--block_size=256', '--batch_size=64']
    result = train(data_dir, out, *flags, '--dtype=float32', before=NO_MORE_IN_TRAINING)
    mistake(result, 'out of memory; try --micro_batch_size=32: the result stays the same; then --')
    assert not out.exists()
    for script, *flags, half in (
            ('sample.py', '--prompt=def', '--max_new_tokens=2', '--num_samples=10000', '--num_samples=5000'),
            ('eval.py', f'--data_dir={data_dir}', f'--out={out}/a.json', '--batch_size=4000',
             '--batch_size=2000')):
        before = f'{NO_MORE}no_more(3 * 2 ** 22)'
        mistake(run(script, f'--ckpt={base_run}', '--device=cpu', *flags, before=before),
                f'out of memory; try {half}; then')
