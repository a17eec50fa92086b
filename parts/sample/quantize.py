"""
Weights of 16 or 8 bits, for generation: each token reads every weight, and half the bytes are read sooner.

    model = convert(model, 'int8')      # float32 | bfloat16 | float16 | int8; to generate with, not to train

bfloat16 is for GPUs and for CPUs that have it. A CPU without it gains from the other two, which FBGEMM
multiplies (arXiv:2101.05615, on x86). float16: weights of 16 bits, sums in float32. int8: whole numbers from
-127 to 127, times one scale for each row of the matrix, so that a row of small weights keeps its digits. The
inputs of a layer are rounded, too, with a scale for each token (LLM.int8, Dettmers et al., arXiv:2208.07339),
so that an answer does not depend on the others in its batch. Embedding, norms and softmax stay float32.
Copy this file alone: it needs torch.
"""
import warnings

import torch

SMALL = 1e-30       # instead of a scale of 0


class BFloat16(torch.nn.Module):
    """y = W x + b with W (out, in), b (out,) or None, x (..., in) and y (..., out) in bfloat16. Before each
    product oneDNN brings the right factor into an order of its own. So x stands there, which is small."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = weight
        self.bias = bias

    def forward(self, x):
        rows = x.flatten(0, -2)                                                             # (n, in)
        y = torch.mv(self.weight, rows[0])[None] if len(rows) == 1 else (self.weight @ rows.T).T
        y = y.unflatten(0, x.shape[:-1])                                                    # (..., out)
        return y if self.bias is None else y + self.bias


class Float16(torch.nn.Module):
    """y = W x + b with W (out, in) in float16; b (out,) or None, x (..., in), y (..., out) in float32."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.bias = 0.0 if bias is None else bias.detach()
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight, None)

    def forward(self, x):
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed) + self.bias


class Int8(torch.nn.Module):
    """y = W x + b with W (out, in) in int8; b (out,) or None, x (..., in), y (..., out) in float32."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.bias = 0.0 if bias is None else bias.detach()
        scale = (weight.abs().amax(1) / 127).clamp(min=SMALL)                               # (out,)
        whole = (weight / scale[:, None]).round().to(torch.int8)                            # (out, in)
        zeros = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                 # torch 2.13: such tensors will go one day
            rows = torch._make_per_channel_quantized_tensor(whole, scale.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(rows, None)

    def forward(self, x):
        """x becomes -63 to 63: AVX2 adds two products in 16 bits, and 2 x 127 x 127 still fits."""
        largest = x.abs().amax(-1, keepdim=True).clamp(min=SMALL)                           # (..., 1)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return multiply(x / largest, 1 / 63, 64, self.packed) * largest + self.bias         # (..., out)


KINDS = {'bfloat16': BFloat16, 'float16': Float16, 'int8': Int8}


def convert(model, dtype):
    """The model with its weights in dtype; it is changed. ValueError if nothing here multiplies them."""
    if dtype == 'float32':
        return model
    if dtype not in KINDS:
        raise ValueError(f'dtype={dtype} must be one of: float32, {", ".join(KINDS)}')
    device = next(model.parameters()).device.type
    if dtype == 'bfloat16':
        model = model.bfloat16()
        if device != 'cpu':
            return model
    elif device != 'cpu' or 'fbgemm' not in torch.backends.quantized.supported_engines:
        raise ValueError(f'dtype={dtype} needs an x86 CPU, and this is {device} with '
                         f'{torch.backends.quantized.engine}; try --dtype=bfloat16')
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, torch.nn.Linear):
                setattr(module, name, KINDS[dtype](layer.weight.detach(), layer.bias))
    return model
