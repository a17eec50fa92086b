"""
The plan of a run, for train.py --plan: memory, time and cost, computed before the run starts and
without allocating the model.

    show(config)                                    # prints the plan of a run of train.py
    model = sketch(GPTConfig(n_layer=48, n_head=25, n_embd=1600))   # a GPT on the meta device
    flops_per_token(model, 1024)                                    # 10_136_073_600
"""
import json, math, pathlib, re
import torch
from configurator import require
from model import GPT, GPTConfig

# FLOP/s of dense matrix products in bfloat16 (GeForce: with float32 sums) from the makers' data
# sheets, bytes of memory, dollars an hour (of 2025)
GPUS = {'B200': (2250e12, 180e9, 5.0), 'H200': (989e12, 141e9, 3.5), 'H100': (989e12, 80e9, 2.5),
        'A100': (312e12, 80e9, 1.5), 'A100 40GB': (312e12, 40e9, 1.3), 'L40S': (362e12, 48e9, 1.0),
        'L4': (121e12, 24e9, 0.6), 'T4': (65e12, 16e9, 0.2), 'RTX 5090': (209e12, 32e9, 0.7),
        'RTX 4090': (165e12, 24e9, 0.4), 'RTX 3090': (71e12, 24e9, 0.3)}
STATE = 16          # bytes per parameter: 4 of weights, 4 of gradients, 8 of Adam's moments
SHARDS = 'ddp', '', 'zero2', 'fsdp'     # our --shard for each stage of ZeRO; we have no ZeRO-1
MFU = 0.4           # fraction of the peak that a run reaches: 0.3 to 0.5 is usual


def machine_of(plan):
    """Return (16, 'H100', FLOP/s, bytes, dollars) for 16xH100. A device that is not in the table is
    TFLOPs:GB, as in 4x312:80, and has no price."""
    n_devices, device = re.fullmatch(r'(?:([1-9]\d*)x)?(.*)', plan).groups('1')
    for name, numbers in GPUS.items():
        if device.lower() == name.lower():
            return int(n_devices), name, *numbers
    found = re.fullmatch(r'([1-9]\d*(?:\.\d+)?):([1-9]\d*(?:\.\d+)?)', device)
    require(found, f'{plan=} must be like 8xH100 or 4x312:80 (4 devices of 312 TFLOP/s and 80 GB); '
            f'the names are {", ".join(GPUS)}')
    return int(n_devices), 'your device', float(found[1]) * 1e12, float(found[2]) * 1e9, None


def peak_of(gpu):
    """Return the FLOP/s of a GPU by the name that CUDA gives it, such as NVIDIA L40S, or None."""
    return next((GPUS[name][0] for name in GPUS if re.search(rf'\b{name}\b', gpu)), None)


def sketch(c):
    """Return the GPT of a GPTConfig on the meta device: shapes without memory."""
    with torch.device('meta'):
        return GPT(c)


def count_parameters(model):
    """Return {part: parameters} of a GPT."""
    count = lambda part: sum(p.numel() for p in part.parameters())
    return {'total': count(model), 'embedding': count(model.embedding),
            'per block': count(model.blocks[0]),
            'output': 0 if model.config.tie_embeddings else count(model.head)}


def flops_per_token(model, T):
    """Return the FLOPs of forward and backward for a token: 6 for each parameter, and 12 n_layer
    n_head D T for attention's scores and sums (PaLM, arXiv:2204.02311, appendix B). An embedding
    that is not also the output layer counts nothing, because it is only looked up."""
    n = count_parameters(model)     # output: 0, or as many as the embedding
    c = model.config
    return 6 * (n['total'] - n['output']) + 12 * c.n_layer * c.n_head * c.head_dim * T


def activation_bytes(c, batch, width, checkpoint):
    """Return the bytes that autograd saves for `batch` sequences in a compiled run: the inputs of
    matrix products, because everything else is recomputed. width: bytes per value of these inputs.
    checkpoint: save only the input of each block, and recompute one block at a time. Nothing grows
    with T^2, because attention scores are not saved."""
    C, L, H, D, F, V = c.n_embd, c.n_layer, c.n_head, c.head_dim, c.n_ffn, c.vocab_size
    x = 4 * C                                       # the residual stream, float32
    # attention: the sums of the softmax; queries, keys, values and the output
    heads = 4 * H + width * 2 * D * (H + c.n_kv_head)
    inside = heads + x + 8 + width * (2 * C + 3 * F)        # a block; 8: 1 / rms of its two norms
    output = x + width * (C + V) + 24
    values = max(inside, output) if checkpoint else L * inside + output
    return batch * c.block_size * (L * x + values)


def paper_bytes(n_params, n_devices, stage):
    """Return the bytes on each device as in ZeRO's paper (arXiv:1910.02054). A parameter has 12 of
    optimizer state, 2 of gradients and 2 of weights. Stage 0 is DDP. Stage 1 shards the optimizer
    state, stage 2 also the gradients, and stage 3 (FSDP) also the weights."""
    divisors = [n_devices if stage > i else 1 for i in range(3)]
    return sum(width * n_params / divisor for width, divisor in zip((12, 2, 2), divisors))


def device_bytes(model, n_devices, stage, batch, width, checkpoint):
    """Return the peak memory of a GPU in bytes: state, activations, the gradient of the logits, and
    the weights that matrix products read. These weights are autocast's copies with DDP (stage 0),
    all weights with zero2 (2), and two blocks with fsdp (3), which gathers one block while another
    computes."""
    count = count_parameters(model)
    c = model.config
    part = max(count['per block'], count['embedding'] + count['output'])
    # zero2 also shards the weights between steps.
    peak = STATE * count['total'] / (n_devices if stage else 1)
    peak += activation_bytes(c, batch, width, checkpoint)
    peak += width * batch * c.block_size * c.vocab_size     # the gradient of the logits
    if stage == 0:
        return peak + (2 * (count['total'] - count['output']) if width == 2 else 0)
    gathered = count['total'] if stage == 2 else 2 * part
    return peak + width * gathered + (width + 4) * part     # gradients of a part, and their sums


def show(config):
    """Print the plan of a run of train.py, given its settings."""
    require(config['init_from'] in ('scratch', 'auto'), '--plan computes with the sizes in '
            f'flags: set those of the model, and remove --init_from={config["init_from"]}')
    n_devices, name, peak, memory, price = machine_of(config['plan'])
    batch_size = config['batch_size']
    require(batch_size % n_devices == 0,        # as train.py does
            f'{batch_size=} must be a multiple of the {n_devices} processes')
    path = pathlib.Path(config['data_dir'], 'meta.json')
    meta = json.loads(path.read_bytes()) if path.exists() else {}
    sizes = {key: config[key] for key in vars(GPTConfig()).keys() & config.keys()}
    sizes['vocab_size'] = config['vocab_size'] or meta.get('vocab_size', 32768)
    model = sketch(GPTConfig(**sizes))
    width = 4 if config['dtype'] == 'float32' else 2
    if width == 4 and price:
        peak /= 8 if name == 'T4' else 2        # newer GPUs multiply float32 as TF32
    # micro_batch_size is a maximum: as in train.py, use the largest divisor of a process's batch.
    part = batch_size // n_devices
    most = min(config['micro_batch_size'] or part, part)
    at_once = next(n for n in range(most, 0, -1) if part % n == 0)

    print(f'{n_devices} x {name}: {peak / 1e12:,.4g} TFLOP/s and {memory / 1e9:,.4g} GB each')
    if name == 'T4' and width == 2:
        print('  T4 has no bfloat16: this is the peak of float16, so train with --dtype=float16')
    c, n = model.config, count_parameters(model)
    print(f'  parameters: {n["total"]:,}; blocks: {c.n_layer}, of {n["per block"]:,} each; '
          f'ln(vocab_size={c.vocab_size:,}) = {math.log(c.vocab_size):.4f}')
    each, of_weights = flops_per_token(model, c.block_size), flops_per_token(model, 0)
    print(f'  {of_weights:,} + {each - of_weights:,} = {each:,} FLOPs per token, forward and '
          'backward')
    cache = 2 * c.n_layer * c.n_kv_head * c.head_dim * width
    print(f'  KV cache: {cache:,} bytes a token, {cache * c.block_size / 1e6:,.1f} MB for '
          f'{c.block_size:,}')
    print_memory(model, n_devices, memory, at_once, width)

    tokens = batch_size * config['max_steps'] * config['block_size']
    optimal = 20 * n['total']
    verdict = 'about compute-optimally trained'
    if not optimal / 2 <= tokens <= 2 * optimal:
        verdict = 'under-trained' if tokens < optimal else 'over-trained'
    print(f'\n  {tokens:,} tokens planned, {tokens / n["total"]:.1f} a parameter: {verdict}')
    print(f'  {optimal:,} would be compute-optimal: 20 a parameter (Chinchilla, 2203.15556); the '
          f'plan has {tokens / optimal:.1%} of that')
    if at_hand := meta.get('tokens', {}).get('train'):
        print(f'  {at_hand:,} in the data, {at_hand / optimal:.1%} of that: {tokens / at_hand:.2f} '
              'epochs (after 4, repeats teach little: 2305.16264)')
    else:
        print(f'  {path} has no number of tokens; vocab_size is assumed to be {c.vocab_size:,}')
    hours = each * tokens / (MFU * n_devices * peak) / 3600
    cost = f'${hours * n_devices * price:,.2f}, if one costs ${price:g} an hour' if price else (
        'the price is unknown')
    print(f'  {each * tokens:.2e} FLOPs: {hours:,.2f} hours, {hours / 24:,.1f} days, at {MFU:.0%} '
          f'of the peak; {cost}')


def print_memory(model, n_devices, memory, at_once, width):
    """Print the memory of each device at each stage of ZeRO, with at_once sequences in a
    micro-batch, and which stages fit."""
    n = count_parameters(model)['total']
    limit = 0.9 * memory                # a tenth for CUDA's context, NCCL's buffers, fragmentation
    fitting = []
    print("\n  GB on each device       in ZeRO's paper             state"
          f'{f"+ {at_once} sequences":>18}   grad_checkpoint')
    for stage, shard in enumerate(SHARDS):
        row = [paper_bytes(n, n_devices, stage)]
        if shard:
            usual, less = (device_bytes(model, n_devices, stage, at_once, width, checkpoint)
                           for checkpoint in (False, True))
            row += [STATE * n / (n_devices if stage else 1), usual, less]
            if less < limit:            # checkpointing takes a third more FLOPs
                fitting.append(f'shard={shard}' + ' with grad_checkpoint' * (usual >= limit))
        print(f'    {f"ZeRO-{stage}" if stage else "DDP":<8}{shard and f"shard={shard}":<12}'
              + ''.join(f'{size / 1e9:>18.2f}' for size in row))
    print("  state, in bytes a parameter: here 4 of weights, 4 of gradients, 8 of Adam's moments; "
          "in ZeRO's paper (1910.02054) 2, 2 and 12; sequences: with torch.compile, as on a GPU")
    print('  fits:', ', '.join(fitting) or 'nothing; try --micro_batch_size=1, more '
          'devices, or a smaller model')
