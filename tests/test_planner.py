"""The planner's arithmetic: against the sources' cases, against what torch keeps, against sums by hand."""
import json
import re

import pytest
from conftest import mistake, ok, refused, run
import torch

from model import GPT, GPTConfig
from extras import planner

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
    torch.manual_seed(0)
    torch._dynamo.reset()
    c, batch = GPTConfig(3000, 96, 2, 4, 1, 64), 3
    model = GPT(c).train()
    model.grad_checkpoint = checkpoint
    tokens = torch.randint(c.vocab_size, (batch, c.block_size + 1))
    net, block = compiled(model), compiled(model.blocks[0])
    x = torch.randn(batch, c.block_size, c.n_embd, requires_grad=True)
    step = lambda: net(tokens[:, :-1], tokens[:, 1:], with_logits=False)[1]
    again = lambda: block(x, model.cos, model.sin)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        step(), again()                     # compiles
    measured = kept(step, model, dtype)
    counted = planner.activation_bytes(c, batch, dtype.itemsize, checkpoint)
    if checkpoint:          # the block that is computed again, unless the output layer has kept more
        measured = max(measured, (c.n_layer - 1) * x.nbytes + kept(again, model, dtype))
    else:                   # attention on the CPU: float32 in any case, and its output is kept a second time
        width, D = dtype.itemsize, c.head_dim
        more = (4 - width) * 2 * D * (c.n_head + c.n_kv_head) + width * D * c.n_head
        counted += c.n_layer * batch * c.block_size * more
    # Each torch decides for itself what it keeps between the last block and the output: 2.9 to 2.15 all
    # differ, by up to one residual stream. In the blocks they agree.
    assert abs(counted - measured) <= x.nbytes, (counted / x.nbytes, measured / x.nbytes)


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
        said = plan(where, config, block_size=config['block_size'], micro_batch_size=micro, batch_size=24)
        assert f'fits: {words}' in said, where
    assert 'fits: shard=ddp, shard=zero2, shard=fsdp\n  disk: 61.28 GB' in plan('8xH100')   # 40 x 1.532e9
    # What computes each block twice comes last.
    said = plan('8 x A100 40GB', micro_batch_size=8)
    assert 'fits: shard=zero2, shard=fsdp, shard=ddp with grad_checkpoint\n' in said
    assert 'grad_checkpoint computes a third more' in said and 'a third more' not in plan('8xH100')


def test_the_sequences_at_once_are_the_largest_divisor_that_micro_batch_size_allows(plan):
    for batch, where, micro, at_once in ((512, 'H100', 24, 16), (32, '8xH100', 16, 4), (32, '8xH100', 0, 4),
                                         (30, '2xH100', 4, 3), (7, 'H100', 5, 1)):
        said = plan(where, SMALL, block_size=64, batch_size=batch, micro_batch_size=micro)
        assert f' + {at_once} sequences ' in said, (batch, where)


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


# --- machines -----------------------------------------------------------------------------------------------
def test_a_machine_is_a_name_of_the_table_or_two_numbers(plan):
    assert plan('0.45:0.5', SMALL).startswith('1 x your device: 450 GFLOP/s and 0.5 GB each\n')
    for n, name, tflops, gigabytes, spellings in (
            (8, 'H100', 989, 80, '8xH100|8 x h100|8 x NVIDIA H100|1x8xH100|2x4xH100'),
            (1, 'RTX 4090', 165, 24, '4090|1x4090|rtx 4090|NVIDIA GeForce RTX 4090|rtx4090'),
            (4, 'RTX 3090', 71, 24, '4x3090|4 x RTX 3090|2x2x3090'),
            (3, 'A100 40GB', 312, 40, '3xA100 40GB|3 x a10040gb'),
            (1, 'V100 32GB', 125, 32, 'V100 32GB'), (1, 'T4', 65, 16, 'Tesla T4|1xt4'),
            (4, 'your device', 312, 80, '4x312:80|2x2x312:80|4 x 312.0 : 80')):
        for where in spellings.split('|'):
            assert planner.machine_of(where)[:4] == (n, name, tflops * 1e12, gigabytes * 1e9), where


def test_another_machine_is_one_sentence_with_what_to_type():
    for where in ('8', '', '0xH100', '8xH1000', '-1xH100', 'H100 40GB', 'H100 PCIe', 'A10G', '4090 Laptop',
                  '8xH100+8xA100', '0x312:80', '4x312', '312:80:4', '4x-312:80', 'M1', 'Apple M4 Max', 'mps', '2xCPU'):
        refused(re.escape(f'plan={where!r} must be like 8xH100, 2x8xH100 (2 nodes of 8) or 4x312:80') +
                '.*names are B200, H200.*RTX 3090.* --plan=1x2.6:16$', planner.machine_of, where)


def test_the_plan_of_a_gpu_without_bfloat16_says_so_and_a_device_of_yours_has_no_price(plan):
    for where in '8xT4', 'V100':
        assert 'no bfloat16: this is the peak of float16, so train with --dtype=float16' in plan(where)
    yours, table = plan('16x312:80'), plan('16xA100')
    assert yours.splitlines()[1:-1] == table.splitlines()[1:-1]
    assert '$' not in yours and table.split('; $')[0].endswith(yours.splitlines()[-1].split(';')[0])


def test_train_py_prints_a_plan_and_writes_nothing(tmp_path):
    out = ok(run('train.py', '--plan=4090', '--out_dir=x', '--init_from=auto', cwd=tmp_path))
    assert '1 x RTX 4090: 165 TFLOP/s and 24 GB each' in out and not list(tmp_path.iterdir())
    for flags, words in ((['--plan', '8xGTX 1080'], "plan='8xGTX 1080' must be like 8xH100"),
                         (['--plan=8xH100', '--n_head=7'], 'n_head=7')):
        mistake(run('train.py', *flags, cwd=tmp_path), words)
