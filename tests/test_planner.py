"""The planner's arithmetic: against the sources' cases, against what torch keeps, against sums by hand."""
import dataclasses
import math

import pytest
import torch

from model import GPT, GPTConfig
from parts.train.planner import (activation_bytes, bytes_sent, cheapest_to_serve, count_parameters,
                                 device_bytes, state_bytes, strategy)

shape = lambda *sizes: dataclasses.asdict(GPTConfig(*sizes).filled())
CODEPARROT, N = shape(32768, 1024, 48, 25, 0, 1600), 1_532_059_200
BIG = shape(32768, 4096, 80, 64, 8, 8192, 28672)        # 70B
MIXED = 12, 2, 2        # float32 master copy and moments, bfloat16 gradients and weights


@pytest.mark.parametrize('n, devices, stage, gigabytes', [
    (70e9, 1, 0, 1120), (7e9, 8, 0, 112), (7e9, 8, 1, 38.5), (7e9, 8, 2, 26.25), (7e9, 8, 3, 14),
    (1_130_981_376, 1, 0, 18.1)])       # mega: "17 GB for 1.1B"
def test_state_is_16_bytes_a_parameter_shared_out_by_stages(n, devices, stage, gigabytes):
    assert state_bytes(n, devices, stage, MIXED) / 1e9 == pytest.approx(gigabytes, rel=1e-3)
    assert state_bytes(n, 1, stage, MIXED) == state_bytes(n, 1, stage) == 16 * n


def test_70B_are_140_GB_of_bfloat16_weights_and_560_of_moments():
    held = lambda devices, stage: state_bytes(70e9, devices, stage, MIXED)
    assert held(math.inf, 2) - held(math.inf, 3) == 140e9
    assert held(1, 0) - held(math.inf, 1) == 280e9 + 560e9      # 280: master copy


@pytest.mark.parametrize('optimizer, per_parameter', [('AdamW', 16), ('Muon', 12)])
def test_this_projects_state_is_what_torch_holds(optimizer, per_parameter):
    p = torch.nn.Parameter(torch.randn(64, 48))
    o = getattr(torch.optim, optimizer)([p])
    p.grad = torch.randn_like(p)
    o.step()
    held = sum(t.nbytes for t in (p, p.grad, *o.state[p].values()) if t.dim())
    assert held == per_parameter * p.numel()


def kept(function, model, dtype):
    """Bytes of distinct storages that autograd saves: of activations, of the matrices' copies in bfloat16."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {shape for p in model.parameters() if p.dim() == 2 for shape in (p.shape, p.shape[::-1])}
    storages, sums = {}, [0, 0]

    def pack(t):
        s = t.untyped_storage()
        if s.data_ptr() not in parameters | storages.keys():
            storages[s.data_ptr()] = s          # alive, so that its address is not used again
            sums[t.dtype == torch.bfloat16 and t.shape in matrices] += s.nbytes()
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), \
            torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        function()
    return sums


@pytest.mark.parametrize('checkpoint', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('config', [
    GPTConfig(256, 96, 6, 8, 0, 256, 768), GPTConfig(3000, 96, 2, 4, 0, 64), GPTConfig(128, 200, 3, 2, 1, 64),
    GPTConfig(500, 64, 4, 6, 2, 96), GPTConfig(70, 33, 1, 1, 0, 8, tie_embeddings=False)])
def test_activations_are_what_autograd_keeps(config, dtype, checkpoint):
    torch.manual_seed(0)
    model, batch = GPT(config).train(), 3
    model.grad_checkpoint = checkpoint
    tokens = torch.randint(config.vocab_size, (batch, config.block_size + 1))
    idx, targets = tokens[:, :-1], tokens[:, 1:]
    measured, copies = kept(lambda: model(idx, targets)[1], model, dtype)
    if checkpoint:          # add the block that is computed again, unless the output layer has kept more
        x = torch.randn(batch, config.block_size, config.n_embd, requires_grad=True)
        inside, _ = kept(lambda: model.blocks[0](x, model.cos, model.sin), model, dtype)
        measured = max(measured, (config.n_layer - 1) * x.nbytes + inside)
    elif dtype == torch.bfloat16:       # 2 bytes for every weight of a matrix product
        untied = 0 if config.tie_embeddings else model.embedding.weight.numel()
        assert copies == 2 * (sum(p.numel() for p in model.parameters() if p.dim() == 2) - untied)
    counted = activation_bytes(vars(model.config), batch, dtype.itemsize, checkpoint, cpu=True)
    assert counted == pytest.approx(measured, rel=0.025)


def test_a_device_holds_state_copies_and_activations():
    for tied in (True, False):
        c = shape(256, 64, 2, 4, 0, 64, 192) | {'tie_embeddings': tied}
        n = count_parameters(c)
        way_back = 2 * 4 * 3 * 64 * 256         # gradients of logits and log p
        for width in (4, 2):
            copied = n['total'] - n['output'] if width == 2 else 0      # an untied embedding is not copied
            assert device_bytes(c, 1, 0, 3, width) == \
                16 * n['total'] + 2 * copied + activation_bytes(c, 3, width) + way_back
    whole = max(n['per block'], n['embedding'] + n['output'])
    assert device_bytes(c, math.inf, 3, 0, 2, True) == 10 * whole
    copies = 2 * (n['total'] - n['output'])     # of all blocks: FSDP cannot free what autograd keeps
    assert device_bytes(c, math.inf, 3, 0) == 8 * whole + copies
    big = c | {'vocab_size': 4096}          # FSDP gathers embedding and head together
    assert device_bytes(big, math.inf, 3, 0, 2, True) == 10 * 2 * 4096 * 64


def test_bytes_sent_are_those_of_a_ring():
    for n in (2, 8, 16):        # n chunks: at each beat of either phase, n - 1, a device sends one
        assert bytes_sent(N, n, 0) == pytest.approx(2 * (n - 1) * (4 * N / n))
    assert 4 * N / 1e9 == pytest.approx(6.13, abs=0.01)                     # of gradients; X-54: 11.5 GB sent
    assert bytes_sent(N, 16, 0) / 1e9 == pytest.approx(11.49, abs=0.01)
    assert bytes_sent(N, 8, 3) == 1.5 * bytes_sent(N, 8, 0) == 1.5 * bytes_sent(N, 8, 2)
    assert bytes_sent(N, 1, 0) == 0 and bytes_sent(N, 8, 3, 4) == 4 * bytes_sent(N, 8, 3)


@pytest.mark.parametrize('config, devices, gigabytes, batch, words', [
    (CODEPARROT, 1, 80, 4, 'shard=ddp'), (CODEPARROT, 8, 40, 4, 'shard=ddp activations grad_checkpoint=True'),
    (CODEPARROT, 8, 80, 64, 'shard=ddp activations micro_batch_size= grad_checkpoint=True'),
    (CODEPARROT, 8, 24, 1, 'shard=zero1'), (CODEPARROT, 8, 16, 1, 'shard=fsdp'),
    (CODEPARROT, 1, 24, 1, 'too large shard=fsdp'),
    (BIG, 8, 80, 1, 'too large grad_checkpoint'), (BIG, 64, 80, 1, 'shard=fsdp activations grad_checkpoint'),
    (shape(32768, 4096, 2, 512, 8, 65536), 1024, 80, 1, 'not one layer tensor parallelism')])
def test_the_advice_is_one_sentence_for_what_does_not_fit(config, devices, gigabytes, batch, words):
    advice = strategy(config, devices, gigabytes * 1e9, batch)
    assert '\n' not in advice and all(word in advice for word in words.split()), advice


def test_a_smaller_model_of_the_same_loss_pays_once_it_is_used():
    law = lambda n, d: 1.8172 + 482.01 / n ** 0.3478 + 2085.43 / d ** 0.3658
    sizes = []
    for served in (0, 1e11, 1e12, 1e13):
        n, d, loss = cheapest_to_serve(N, 20 * N, served)
        assert n <= N and law(n, d) == pytest.approx(law(N, 20 * N)) == pytest.approx(loss)
        assert 6 * n * d + 2 * n * served <= (6 * 20 * N * N + 2 * N * served) * (1 + 1e-9)
        sizes.append(n / N)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0.7 and sizes[-1] < 0.5


def test_the_originals_durations_imply_less_than_a_tenth_of_16_A100():
    day = 16 * 312e12 * 86400
    assert 6 * 1_529_628_800 * 50_000 * 512 * 1024 / (7 * day) == pytest.approx(0.080, abs=5e-4)
    assert 6 * 111_008_256 * 150_000 * 192 * 1024 / day == pytest.approx(0.046, abs=5e-4)
