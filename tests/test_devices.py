"""Does a device compute what the CPU computes? `python model.py --device=...` sees it when one does not."""
import pytest
import torch
from conftest import ok, run

from model import GPT, GPTConfig
from parts.train import self_test

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


def one_weight(found):
    with torch.no_grad():
        found.blocks[1].mlp.w_up.weight[3] += 0.5


def one_gradient(found):
    found.blocks[0].attention.w_k.weight.register_hook(lambda g: -g)


def no_gradient(found):
    found.blocks[0].attention.w_k.weight.register_hook(lambda g: g * torch.nan)


def cache(found):
    backbone = found.backbone

    def broken(idx, cache=None, start=0, *rest, **more):
        return backbone(idx, cache, max(0, start - 1), *rest, **more)
    found.backbone = broken


def test_a_device_that_computes_the_same_is_ok():
    rows = self_test.compare(model(), IDX, 'cpu:0')
    assert [row['dtype'] for row in rows] == ['float32', 'bfloat16'] and rows[0]['ok']
    assert rows[0]['loss'] == rows[0]['gradients'] == 0 and rows[0]['same_tokens'] == rows[0]['of'] == 60
    assert 0 < rows[1]['gradients'] < 0.5       # another precision is seen


@pytest.mark.parametrize('fault, seen', [
    (one_weight, 'loss'), (one_gradient, 'gradients'), (no_gradient, 'gradients'), (cache, 'same_tokens')])
def test_a_fault_is_seen_where_it_is(fault, seen):
    row = self_test.compare(model(fault), IDX, 'cpu:0')[0]
    assert not row['ok']
    assert row[seen] < row['of'] if seen == 'same_tokens' else not row[seen] <= 1e-5
    if fault is one_gradient:
        assert row['loss'] == 0 and row['same_tokens'] == row['of']
    if fault is cache:
        assert row['loss'] == row['gradients'] == 0


def test_the_model_that_is_asked_stays_as_it_is():
    found = model()
    before = [p.clone() for p in found.parameters()]
    self_test.compare(found, IDX, 'cpu')
    assert found.training and all(p.grad is None for p in found.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, found.parameters()))


def test_a_fault_is_exit_code_1_and_says_so(capsys):
    with pytest.raises(SystemExit) as e:
        self_test.check(model(one_gradient, 1.0), IDX, 'cpu:0')
    assert e.value.code == 1 and 'NOT as the CPU' in capsys.readouterr().out


def test_model_py_compares_the_cpu_and_refuses_a_device_that_is_not_there():
    out = ok(run('model.py', '--device=cpu', env={'OMP_NUM_THREADS': '1'}))
    assert 'cpu, float32: loss 0.0e+00 and gradients 0.0e+00 apart, 80 of 80 greedy tokens' in out
    assert 'cpu, bfloat16' in out and 'NOT' not in out
    result = run('model.py', '--device=tpu')
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert result.stderr.startswith('error: device=tpu is not available here')
    assert '--device=cpu' in result.stderr
