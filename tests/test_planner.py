"""The planner's arithmetic: against the sources' cases, against what torch keeps, against sums by hand."""
import json
import re

import pytest
from conftest import refused
import torch

from model import GPT, GPTConfig
from parts.model import planner

shape = lambda *sizes: vars(GPTConfig(*sizes))
CODEPARROT, N = shape(32768, 1024, 48, 25, 0, 1600), 1_532_059_200
SMALL = {**shape(1, 64, 2, 4, 0, 64), 'vocab_size': 0}


@pytest.fixture
def plan(capsys):
    """The plan of CodeParrot's settings as text, but for what a test changes."""
    def text(where, config=CODEPARROT, **settings):
        usual = {'block_size': 1024, 'batch_size': 512, 'micro_batch_size': 4, 'max_steps': 50_000,
                 'dtype': 'auto', 'compile': None, 'data_dir': 'nowhere', 'init_from': 'scratch'}
        planner.show(config | usual | settings | {'plan': where})
        return capsys.readouterr().out
    return text


# --- memory -------------------------------------------------------------------------------------------------
def test_state_is_16_bytes_a_parameter_shared_out_by_stages():
    for n, devices, stage, gigabytes in (
            (70e9, 1, 0, 1120), (7e9, 8, 0, 112), (7e9, 8, 1, 38.5), (7e9, 8, 2, 26.25), (7e9, 8, 3, 14)):
        assert planner.paper_bytes(n, devices, stage) / 1e9 == gigabytes


def kept(function, model, dtype):
    """Bytes of distinct storages that autograd saves, without the weights and their copies in bfloat16."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {shape for p in model.parameters() if p.dim() == 2 for shape in (p.shape, p.shape[::-1])}
    storages = {}               # it keeps them, so that no address is used again

    def pack(t):
        s = t.untyped_storage()
        if s.data_ptr() not in parameters and not (t.dtype == torch.bfloat16 and t.shape in matrices):
            storages[s.data_ptr()] = s
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), \
            torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        function()
    return sum(s.nbytes() for s in storages.values())


@pytest.mark.parametrize('checkpoint', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(dtype, checkpoint):
    """Of the partition into forward and backward that a GPU gets, without its kernels."""
    compiled = lambda f: torch.compile(f, backend='aot_eager_decomp_partition', dynamic=False)
    for c in GPTConfig(3000, 96, 2, 4, 0, 64), GPTConfig(70, 33, 3, 2, 1, 8, tie_embeddings=False):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model, batch = GPT(c).train(), 3
        model.grad_checkpoint = checkpoint
        tokens = torch.randint(c.vocab_size, (batch, c.block_size + 1))
        net, block = compiled(model), compiled(model.blocks[0])
        x = torch.randn(batch, c.block_size, c.n_embd, requires_grad=True)
        step = lambda: net(tokens[:, :-1], tokens[:, 1:], with_logits=False)[1]
        again = lambda: block(x, model.cos, model.sin)
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            step(), again()                     # compiles
        measured = kept(step, model, dtype)
        if checkpoint:          # the block that is computed again, unless the output layer has kept more
            measured = max(measured, (c.n_layer - 1) * x.nbytes + kept(again, model, dtype))
        # Attention on the CPU: float32 in any case, and its output is kept a second time.
        width, D = dtype.itemsize, c.head_dim
        more = (4 - width) * 2 * D * (c.n_head + c.n_kv_head) + width * D * c.n_head
        blocks = int(c.vocab_size < 100) if checkpoint else c.n_layer       # 3,000: the output has the peak
        counted = planner.activation_bytes(c, batch, width, checkpoint)
        counted += blocks * batch * c.block_size * more
        # Each torch decides for itself what it keeps between the last block and the output: 2.9 to 2.15 all
        # differ, by up to one residual stream. In the blocks they agree, so three must not differ by more.
        assert abs(counted - measured) <= x.nbytes, (c, counted / x.nbytes, measured / x.nbytes)


def test_activations_are_the_sum_by_hand():
    """Two layers of width 8, two heads of 4 with one key/value head, an MLP of 10; bytes of one token."""
    c = GPTConfig(vocab_size=70, block_size=5, n_layer=2, n_head=2, n_kv_head=1, n_embd=8, n_ffn=10)
    stream = 8 * 4
    attention = 2 * 4 + (8 + 4 + 4 + 8) * 2         # the softmax's sums; queries, keys, values, output
    mlp = (10 + 10 + 10) * 2                        # gate, up, their product
    block = attention + mlp + 2 * (stream + 4 + 8 * 2)      # and two norms: input, 1 / rms, output
    output = stream + 4 + 8 * 2 + 70 * 2 + 4 + 8 + 8    # norm, logits, their softmax's sum; token and target
    assert planner.activation_bytes(c, 1) == 5 * (2 * block + output)
    assert planner.activation_bytes(c, 3, checkpoint=True) == 15 * (2 * stream + max(block - stream, output))


# --- time, tokens -------------------------------------------------------------------------------------------
def test_the_plan_of_codeparrot(plan):
    assert ': 156 TFLOP/s' in plan('16xA100', dtype='float32')         # as TF32
    out = plan('16xA100')
    hours = 10_136_073_600 * 50_000 * 512 * 1024 / (0.4 * 16 * 312e12) / 3600
    assert f'{hours:,.2f} hours, {hours / 24:,.1f} days, at 40%' in out
    assert f'${hours * 16 * 1.5:,.2f}, if one costs $1.5' in out
    assert '9,192,355,200 + 943,718,400 = 10,136,073,600 FLOPs' in out
    assert 'parameters: 1,532,059,200; blocks: 48' in out
    assert '26,214,400,000 tokens planned, 17.1 a parameter' in out
    for row in ('DDP  shard=ddp  24.51  24.51', r'ZeRO-1  7.28\n', 'ZeRO-2  shard=zero2  4.40  1.53',
                'ZeRO-3  shard=fsdp  1.53  1.53'):      # GB of ZeRO's paper, and of our 16 bytes
        assert re.search(' +'.join(row.split('  ')), out), row
    assert 'nowhere/meta.json is not there yet' in out

    one, two = (planner.sketch(GPTConfig(300, 7, 3, 4, 1, 32, 90, tie_embeddings=tied))
                for tied in (True, False))
    block = 2 * 32 * 32 + 2 * 32 * 8 + 3 * 32 * 90 + 2 * 32
    assert planner.count_parameters(two) == {
        'total': 2 * 9600 + 3 * block + 32, 'embedding': 9600, 'blocks': 3 * block, 'per block': block,
        'final norm': 32, 'output': 9600}
    # An embedding of its own is only looked up.
    assert planner.flops_per_token(one, 7) == planner.flops_per_token(two, 7)

    grouped = shape(32768, 1024, 12, 16, 2, 768)        # 2 vectors of 48 numbers, 2 bytes each, and 12 layers
    said = plan('8xH100', grouped)
    assert f'KV cache: {2 * 12 * 2 * 48 * 2:,} bytes a token' in said
    assert '2 of 16 heads have one: saves 88%' in said


def test_what_helps_where_nothing_fits(plan):
    llama = shape(32000, 4096, 32, 32, 0, 4096, 11008) | {'tie_embeddings': False}
    for config, where, micro, words in (
            (llama, '1xA100', 1, 'nothing; take --micro_batch_size=1, or more devices'),
            (llama | {'n_embd': 65536, 'n_ffn': 0}, '8xA100', 1, 'nothing, on any number of these'),
            (llama, '8xA100', 3, 'shard=zero2 with grad_checkpoint, shard=fsdp with gr')):
        said = plan(where, config, block_size=config['block_size'], micro_batch_size=micro)
        assert f'fits: {words}' in said, where
    assert 'fits: shard=ddp, shard=zero2, shard=fsdp\n' in plan('8xH100')


def test_chinchilla_is_20_tokens_a_parameter(capsys):
    for billions, trained_on, optimal, verdict in (
            (65, 1.4e12, '1,300,000,000,000', 'about compute-optimally trained'),       # 21.5: LLaMA
            (175, 300e9, '3,500,000,000,000', 'under-trained'),                         # 1.7: GPT-3
            (8, 15e12, '160,000,000,000', 'over-trained')):
        planner.print_tokens(billions * 10 ** 9, int(trained_on), None)
        out = capsys.readouterr().out
        assert verdict in out and f'{optimal} would be compute-optimal' in out


def test_the_data_at_hand_give_the_vocabulary_and_the_epochs(plan, tmp_path):
    meta = {'vocab_size': 336, 'dtype': 'uint16', 'tokens': {'train': 4096, 'val': 9}}
    (tmp_path / 'meta.json').write_text(json.dumps(meta))
    settings = dict(block_size=64, batch_size=8, micro_batch_size=0, max_steps=16, data_dir=str(tmp_path))
    out = plan('1xH100', SMALL, **settings)
    assert all(text in out for text in ('vocab_size=336', '4,096 at hand', ': 2.00 epochs'))
    (tmp_path / 'meta.json').write_text(json.dumps({'config': {'kind': 'sft'}}))
    refused('has sft data', plan, '1xH100', SMALL, **settings)


# --- machines -----------------------------------------------------------------------------------------------
def test_a_machine_is_a_number_and_a_known_name_also_as_torch_gives_it():
    assert planner.machine_of('8xH100') == (8, 'H100')
    assert planner.machine_of('1 x rtx4090') == (1, 'RTX 4090')
    for where in ('8', 'H100', '0xH100', '8xH1000', '-1xH100', '2xcpu'):
        refused('names are B200, H200', planner.machine_of, where)
    for name, peak in (('NVIDIA H100 80GB HBM3', 989e12), ('NVIDIA L4', 121e12), ('NVIDIA L40', None),
                       ('NVIDIA H100 PCIe', None), ('NVIDIA GeForce RTX 4090 Laptop GPU', None),
                       ('NVIDIA GH200 480GB', None), ('NVIDIA H100 80GB HBM3 MIG 1g.10gb', None)):
        assert planner.peak_flops(name) == peak, name
