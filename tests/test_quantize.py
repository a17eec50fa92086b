"""Weights of 16 and 8 bits: what a layer computes from them, row by row, and who may use them."""
import pytest
import torch
from conftest import mistake, ok, run
from test_model import lively

from model import save_checkpoint
from parts.sample import quantize
from tokenizer import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.skipif('fbgemm' not in torch.backends.quantized.supported_engines,
                                reason='float16 and int8 weights need an x86 CPU')
random = torch.Generator().manual_seed(1)
X = torch.randn(7, 5, 96, generator=random) * torch.logspace(-3, 3, 7)[:, None, None]
W = torch.randn(130, 96, generator=random) * torch.logspace(-4, 1, 130)[:, None]


def whole(x, steps):
    """x in whole numbers of its own largest value / steps, along the last axis."""
    scale = x.abs().amax(-1, keepdim=True).double() / steps
    return (x.double() / scale).round() * scale


@pytest.mark.parametrize('kind, x, w', [('Float16', X, W.half()), ('Int8', whole(X, 63), whole(W, 127))])
def test_a_layer_is_the_product_of_rounded_numbers(kind, x, w):
    y, exact = getattr(quantize, kind)(W)(X), x.double() @ w.double().T
    error = ((y - exact).abs() / exact.abs().amax(-1, keepdim=True)).max()
    assert y.dtype == torch.float32 and y.shape == (7, 5, 130) and error < 1e-3
    assert (y - X @ W.T).abs().max() > 0            # and of nothing finer


@pytest.mark.parametrize('kind', ['Float16', 'Int8'])
def test_a_row_does_not_depend_on_the_rows_beside_it_and_zeros_give_zeros(kind):
    layer = getattr(quantize, kind)(W)
    together, alone = layer(X)[3:4, 2:3], layer(X[3:4, 2:3])        # Float16: but for the order of its sums
    assert (together - alone).abs().max() <= {'Float16': 1e-6, 'Int8': 0}[kind] * alone.abs().max()
    assert not layer(torch.zeros(2, 96)).any()
    assert not getattr(quantize, kind)(torch.zeros(8, 96))(X).any()


@pytest.mark.parametrize('dtype, layer, least', [
    ('float32', torch.nn.Linear, 0.0), ('bfloat16', quantize.BFloat16, 1e-4),
    ('float16', quantize.Float16, 1e-6), ('int8', quantize.Int8, 1e-4)])
def test_a_model_is_converted_whole_and_writes(dtype, layer, least):
    idx = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    model = lively(std=0.1)
    before = model(idx)[0]
    assert quantize.convert(model, dtype) is model
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, *quantize.KINDS.values()))]
    assert len(layers) == 2 * 7 + 1 and {type(m) for m in layers} == {layer}
    difference = (model(idx)[0] - before).abs().max() / before.abs().max()
    assert least <= difference < 0.05
    assert torch.equal(model.generate(idx, 6, 0)[1:], model.generate(idx[1:], 6, 0)) or dtype == 'bfloat16'


@pytest.mark.parametrize('dtype, most', [('float16', 0.005), ('int8', 0.1)])
def test_biases_are_kept(dtype, most):
    idx = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    model = lively(std=0.1, qkv_bias=True)
    for name, p in model.named_parameters():
        p.data += name.endswith('bias') * torch.linspace(-2, 2, p.shape[-1])
    before = model(idx)[0]
    assert (quantize.convert(model, dtype)(idx)[0] - before).abs().max() / before.abs().max() < most


def test_elsewhere_than_on_an_x86_cpu_it_is_one_sentence():
    model = lively().to('meta')
    for dtype in ('float16', 'int8'):
        with pytest.raises(ValueError, match=f'dtype={dtype} needs an x86 CPU.*--dtype=bfloat16'):
            quantize.convert(model, dtype)


def test_sample_takes_it_as_a_setting(tmp_path):
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    tokenizer.save(tmp_path / 'tokenizer.json')
    model = lively(vocab_size=tokenizer.vocab_size, block_size=64)
    save_checkpoint(tmp_path / 'best.pt', model, tokenizer_hash=tokenizer.hash, config={})
    result = run('sample.py', f'--ckpt={tmp_path}', '--prompt=a', '--dtype=int8', '--max_new_tokens=9')
    assert 'int8 on cpu' in result.stderr and 'Warning' not in result.stderr, ok(result)
    mistake(run('sample.py', f'--ckpt={tmp_path}', '--dtype=int4'), 'int4', 'int8')
