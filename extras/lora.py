"""
LoRA trains only small matrices beside the weights.

    python sft.py --lora=8

    adapt(model, rank=8)            # from now on W x is W x + 16 / rank B A x; only A and B train
    weights = model.state_dict()    # has W, lora_A and lora_B of each adapted matrix
    merged(weights)                 # of a model without adapters that computes the same

Fine-tuning changes a matrix W (out, in) by a D of low rank, so D = B A is learned instead: B
(out, r), A (r, in). At first B is 0, so the model is the base. W needs no gradient and no moments:
4 of AdamW's 16 bytes a number remain. Each matrix in a block has an adapter, as in QLoRA
(2305.14314, section 4); the LoRA paper (Hu et al. 2021, arXiv:2106.09685) adapts two of the seven.
Embedding, head, biases and norms stay as they are.
It needs a model like that of model.py.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from configurator import Mistake

# B A is scaled by ALPHA / rank, so that another rank needs no other learning rate.
ALPHA = 16


def adapt(model, rank, tokenizer=None):
    """Freeze a model and give each Linear W in its blocks an adapter, in place. A model of others
    may not know the two tokens that frame a message. Then GPT.load gave both the mean of all rows,
    which LoRA would leave as they are: with a tokenizer, such a model is refused."""
    if tokenizer:
        start, end = (tokenizer.special[name] for name in ('<|im_start|>', '<|im_end|>'))
        if model.embedding.weight[start].equal(model.embedding.weight[end]):
            raise Mistake(f"lora={rank} can't teach this model <|im_start|> and <|im_end|>, which are "
                          'new to it; set --lora=0')
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)            # the same A in all processes
    for linear in [part for part in model.blocks.modules() if isinstance(part, nn.Linear)]:
        A = torch.randn(rank, linear.in_features, generator=generator) / linear.in_features ** 0.5
        linear.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        linear.lora_A = nn.Parameter(A.to(linear.weight))
        linear.register_forward_hook(add_adapter)


def add_adapter(linear, inputs, output):
    """Return W x + 16 / rank B A x, (..., out). A forward hook: the Linear has computed W x."""
    A, B = linear.lora_A, linear.lora_B
    return output + ALPHA / len(A) * F.linear(F.linear(inputs[0], A), B)


def merged(weights):
    """Return the weights of a model without adapters that computes the same, to rounding: for each
    W there is W + 16 / rank B A. So code that reads a checkpoint need not know adapters. To resume,
    a run needs the weights before: W + B A does not yield W to the bit. All matrices without an
    adapter are shared by both, so a checkpoint with both holds them once."""
    plain = {name: w for name, w in weights.items() if '.lora_' not in name}
    for name, A in weights.items():
        matrix, _, kind = name.rpartition('.')
        if kind == 'lora_A':
            B = weights[f'{matrix}.lora_B']
            plain[f'{matrix}.weight'] = plain[f'{matrix}.weight'] + ALPHA / len(A) * B @ A
    return plain
