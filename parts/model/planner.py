"""
The plan: memory, time and cost of a run, counted before it starts. No model is built.

    show('8xH100', shape, 1024, batch=512, micro=4, steps=50_000)   # prints the plan of a run
    show('8xH100,price=2', ...)                     # dollars an hour of one
    flops_per_token({'n_layer': 48, 'n_embd': 1600, ...}, 1024)     # 10_136_073_600

A shape is a dict of GPTConfig's fields (model.py); its block_size is the T tokens of a sequence.
"""
import contextlib, json, math, os, re, timeit
import torch
from model import load_checkpoint

# dense bfloat16 FLOP/s, bytes of memory, dollars an hour (of 2025)
GPUS = {'B200': (2250e12, 180e9, 5.0), 'H200': (989e12, 141e9, 3.5), 'GH200': (989e12, 96e9, 2.0),
        'H100': (989e12, 80e9, 2.5), 'H100 PCIe': (756e12, 80e9, 2.3),
        'H100 NVL': (835e12, 94e9, 2.3), 'A100': (312e12, 80e9, 1.5), 'L40S': (362e12, 48e9, 1.0),
        'L4': (121e12, 24e9, 0.6), 'RTX 4090': (165e12, 24e9, 0.4), 'RTX 3090': (71e12, 24e9, 0.3)}
PAPER = 12, 2, 2    # ZeRO's bytes a parameter; ours are the default of state_bytes()
MFU = 0.4           # share of the peak that a run reaches: 0.3 to 0.5 is usual
head_dim = lambda shape: shape.get('head_dim') or shape['n_embd'] // shape['n_head']


def peak_flops(gpu):
    """FLOP/s of bfloat16 matrix products of a GPU, by torch's name for it; None if it is not
    known. A laptop's is slower than its name, and a MIG slice is a part of a GPU."""
    for name, (peak, *_) in GPUS.items():
        if re.search(rf'\b{name}\b(?! [LPN]|.*MIG)', gpu):
            return peak


def machine_of(plan):
    """'8xH100' -> (8, 'H100', FLOP/s, bytes and dollars an hour of each). The processes of '2xcpu'
    share this machine, whose peak is measured: a matrix product in float32."""
    names = {name.lower().replace(' ', ''): name for name in [*GPUS, 'cpu']}
    match = re.fullmatch(r'([1-9]\d*)x(\w+)', plan.lower().replace(' ', ''))
    if not match or match[2] not in names:
        raise ValueError(f'{plan=} must be like 8xH100; the names are {", ".join(names.values())}')
    n = int(match[1])
    name = names[match[2]]
    if name != 'cpu':
        return n, name, *GPUS[name]
    if not hasattr(os, 'sysconf'):
        raise ValueError(f'plan={plan}: Windows does not tell Python its memory; name a GPU, as in 1xL4')
    a = torch.randn(1024, 1024)
    seconds = min(timeit.repeat(lambda: a @ a, number=1, repeat=5))
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return n, name, 2 * 1024 ** 3 / seconds / n, memory / n, 0.0


def count_parameters(shape):
    """{part: parameters} in closed form."""
    C, D = shape['n_embd'], head_dim(shape)
    multiple = shape.get('vocab_multiple', 1)
    V = math.ceil(shape['vocab_size'] / multiple) * multiple            # rows, of which some only fill up
    queries, keys = D * shape['n_head'], D * shape['n_kv_head']         # width of all of them
    block = 2 * C * queries + 2 * C * keys + 3 * C * shape['n_ffn'] + 2 * C     # q, o; k, v; SwiGLU; norms
    if shape.get('qkv_bias'):
        block += queries + 2 * keys
    if shape.get('qk_norm'):
        block += 2 * D
    blocks = shape['n_layer'] * block
    output = 0 if shape['tie_embeddings'] else V * C
    return {'total': V * C + blocks + C + output, 'embedding': V * C, 'blocks': blocks,
            'per block': block, 'final norm': C, 'output': output}


def described(shape):
    """'parameters: 5,310,720; blocks: 4, of 803,328 each; ln(vocab_size=4,096) = 8.3178'"""
    n = count_parameters(shape)
    V = shape['vocab_size']
    return (f'parameters: {n["total"]:,}; blocks: {shape["n_layer"]}, of {n["per block"]:,} each; '
            f'ln(vocab_size={V:,}) = {math.log(V):.4f}')


def flops_per_token(shape, T):
    """Forward and backward: 6 per parameter, and 12 n_layer n_head D T for attention's scores and
    sums (PaLM, arXiv:2204.02311, appendix B). An embedding that is not also the output layer is
    only looked up: 0."""
    n = count_parameters(shape)         # output: 0, or as many as the embedding
    return 6 * (n['total'] - n['output']) + 12 * shape['n_layer'] * shape['n_head'] * head_dim(shape) * T


def activation_bytes(shape, batch, width=2, checkpoint=False, compiled=False, cpu=False):
    """Bytes that autograd keeps of `batch` sequences. width: bytes of a value in matrix products.
    checkpoint: keep only each block's input, and all of one block at a time. No T^2: attention's
    scores are not kept."""
    C, L, H, D = shape['n_embd'], shape['n_layer'], shape['n_head'], head_dim(shape)
    F, V = shape['n_ffn'], shape['vocab_size']
    x = 4 * C                                       # the residual stream, float32
    attention = 4 if cpu else width                 # bytes of attention's own values
    # the softmax's sums; queries, keys, values and the output
    heads = 4 * H + attention * 2 * D * (H + shape['n_kv_head'])
    norm = 4 * (C + 1)                              # x / rms and 1 / rms, float32
    casts = 2 if width == 4 else 5      # the norms' outputs: autocast copies one for each Linear
    inside = norm + heads + x + norm + width * (casts * C + D * H + 4 * F)
    output = x + norm + width * C + 4 * V + 16      # log p in float32; ids and targets
    if compiled:            # kept is what matrix products read; the rest is computed again
        inside = heads + x + 8 + width * (2 * C + (D * H if cpu else 0) + 3 * F)
        output = x + width * (C + V) + 24

    values = max(inside, output) if checkpoint else L * inside + output
    return batch * shape['block_size'] * (L * x + values)


def state_bytes(n_params, n_devices, stage, widths=(8, 4, 4)):
    """Bytes of optimizer state, gradients and weights on each device. widths: bytes a parameter of
    each. ZeRO (arXiv:1910.02054) shares out as many of the three as the stage says; 0 is DDP, 3 is
    FSDP."""
    shares = [n_devices if stage > i else 1 for i in range(3)]
    return sum(width * n_params / share for width, share in zip(widths, shares))


def device_bytes(shape, n_devices, stage, batch, width=2, checkpoint=False, compiled=False):
    """The peak on a GPU: state, activations, the gradient of the logits, and the weights that
    matrix products read. Of these DDP (stage 0) keeps autocast's copies, zero2 (2) all and fsdp
    (3) the parts of two blocks, one of which works while the other one is gathered."""
    count = count_parameters(shape)
    part = max(count['per block'], count['embedding'] + count['output'])
    # Between two steps zero2 splits the weights, too.
    peak = state_bytes(count['total'], n_devices, 3 if stage else 0)
    peak += activation_bytes(shape, batch, width, checkpoint, compiled)
    # In float32 the logits' gradient and that of log p.
    peak += (width if compiled else 8) * batch * shape['block_size'] * shape['vocab_size']
    if stage == 0:
        return peak + (2 * (count['total'] - count['output']) if width == 2 else 0)
    gathered = count['total'] if stage == 2 else 2 * part
    return peak + width * gathered + (width + 4) * part     # gradients of a part, and their sums


def bytes_sent(n_params, n_devices, stage, accumulation=1, width=4):
    """Bytes that each device sends per step. In a ring, that is (n - 1) / n of the float32
    gradients, twice. If they are split, then for each micro-batch of the gradients once and of the
    weights once, too, or in stage 3 twice. width: bytes of a gathered weight."""
    per_parameter = 8
    if stage >= 2:
        per_parameter = accumulation * (4 + width * (stage - 1))
    return per_parameter * (n_devices - 1) / n_devices * n_params


def at_hand(path):
    """(tokens, vocabulary) of a meta.json, (None, None) of no file."""
    with contextlib.suppress(OSError, ValueError, AttributeError), open(path, encoding='utf-8') as f:
        meta = json.load(f)
        return meta.get('tokens', {}).get('train'), meta.get('vocab_size')
    return None, None


def show(config, state):
    """Print the plan of a run of train.py, given its settings and the checkpoint that it resumes
    ({}: none)."""
    data = os.path.join(config['data_dir'], 'meta.json')
    plan, T, batch, micro, steps, dtype = (config[name] for name in (
        'plan', 'block_size', 'batch_size', 'micro_batch_size', 'max_steps', 'dtype'))
    shape = state.get('model_config', config)
    if config['init_from'] != 'scratch' and not state:
        shape = vars(load_checkpoint(config['init_from'])[0].config)
    number = r'(\d+(?:\.\d+)?(?:e\+?\d+)?)'
    match = re.fullmatch(rf'([^,]*)(?:,price={number})?', plan)
    if not match:
        raise ValueError(f'{plan=} must be like 8xH100,price=2: dollars an hour of one')
    machine, own_price = match.groups()
    n_devices, name, peak, memory, price = machine_of(machine)
    here, vocab_size = at_hand(data)
    vocab_size = shape['vocab_size'] or vocab_size
    shape = {'tie_embeddings': True, **shape, 'block_size': T, 'vocab_size': vocab_size or 32768,
             'n_kv_head': shape['n_kv_head'] or shape['n_head'],
             'n_ffn': shape['n_ffn'] or max(1, round(shape['n_embd'] * 8 / 3 / 64)) * 64}
    n = count_parameters(shape)['total']
    width = 4 if dtype == 'float32' or (dtype == 'auto' and name == 'cpu') else 2
    if width == 4 and name != 'cpu':
        peak /= 2                       # a GPU multiplies float32 as TF32
    at_once = micro or math.ceil(batch / n_devices)
    compiled = name != 'cpu' if config['compile'] is None else config['compile']

    print(f'{n_devices} x {name}: {peak / 1e12:,.3g} TFLOP/s and {memory / 1e9:,.0f} GB each')
    print_model(shape, width)
    print_memory(shape, n_devices, memory, at_once, width, compiled)
    accumulation = math.ceil(batch / n_devices / at_once)
    ddp, fsdp = (bytes_sent(n, n_devices, stage, accumulation, width) / 1e9 for stage in (0, 3))
    print(f'  {4 * n / 1e9:.2f} GB of gradients: each device sends {ddp:.2f} GB a step with ddp, '
          f'{fsdp:.2f} with fsdp')
    tokens = batch * steps * T
    print_tokens(n, tokens, here)
    if not here:
        assumed = '' if vocab_size else ', and vocab_size is taken as 32,768'
        print(f'  {data} is not there yet, so the tokens at hand are unknown{assumed}')
    print_time(flops_per_token(shape, T) * tokens, n_devices, peak, float(own_price or price))


def print_time(flops, n_devices, peak, price):
    hours = flops / (MFU * n_devices * peak) / 3600
    time = f'{hours / 24:,.1f} days' if hours > 48 else f'{hours:,.2f} hours'
    if hours < 1:
        time = f'{60 * hours:.2g} minutes'
    cost = f'; ${hours * n_devices * price:,.2f}, if one costs ${price:g} an hour' if price else ''
    verdict = '; more than a month: take more devices, or fewer tokens' if hours > 720 else ''
    print(f'  {flops:.2e} FLOPs: {time} at {MFU:.0%} of the peak{cost}{verdict}')


def print_memory(shape, n_devices, memory, at_once, width, compiled):
    """Print the memory on each device, and what fits. at_once: sequences on a device."""
    n = count_parameters(shape)['total']
    stages = {'shard=ddp': 0, 'shard=zero2': 2, 'shard=fsdp': 3}
    limit = 0.9 * memory                # CUDA's own, NCCL's buffers, holes: a tenth, as a rule
    fitting = []
    print("\n  GB on each device      state  in ZeRO's paper  "
          f'+ sequences: {at_once:<4} or with grad_checkpoint')
    for name, stage in stages.items():
        state = state_bytes(n, n_devices, 3 if stage else 0)
        in_paper = state_bytes(n, n_devices, stage, PAPER)
        usual, less = (device_bytes(shape, n_devices, stage, at_once, width, checkpoint, compiled)
                       for checkpoint in (False, True))
        print(f'    {name:<18}{state / 1e9:>8.2f}{in_paper / 1e9:>17.2f}{usual / 1e9:>19.2f}'
              f'{less / 1e9:>24.2f}')
        if less < limit:
            fitting.append(name if usual < limit else f'{name} with grad_checkpoint')
    print("  state, in bytes a parameter: here 4 of weights, 4 of gradients, 8 of Adam's moments; in ZeRO's "
          'paper (1910.02054) 2, 2 and 12')
    other = device_bytes(shape, n_devices, 0, at_once, width, compiled=not compiled) / 1e9
    print(f'  sequences: of a run {"with" if compiled else "without"} torch.compile; with '
          f'--compile={not compiled} shard=ddp needs {other:.2f}')
    if fitting:
        print(f'  fits: {", ".join(fitting)}')
        return

    def would_fit(devices, batch):
        return any(device_bytes(shape, devices, stage, batch, width, True, compiled) < limit
                   for stage in stages.values())
    remedy = ('not even one layer fits a device; it needs tensor or pipeline parallelism, which '
              "nanoparrot doesn't have")
    if would_fit(n_devices, 1):
        remedy = 'take --micro_batch_size=1'
    elif would_fit(math.inf, at_once):
        remedy = 'take more devices'
    elif would_fit(math.inf, 1):
        remedy = 'take more devices and --micro_batch_size=1'
    print(f'  fits: nothing; {remedy}')


def print_model(shape, width):
    """Sizes, parameters, FLOPs of a token, and the bytes that generating keeps of each token."""
    T, n_head, n_kv_head = shape['block_size'], shape['n_head'], shape['n_kv_head']
    sizes = 'n_layer n_head n_kv_head n_embd n_ffn block_size vocab_size'.split()
    print('  ' + ', '.join(f'{key}={shape[key]:,}' for key in sizes))
    for part, value in count_parameters(shape).items():
        print(f'  {part:<12} {value:>15,} parameters')
    flops = flops_per_token(shape, T)
    of_weights = flops_per_token(shape, 0)
    print(f'  {of_weights:,} + {flops - of_weights:,} = {flops:,} FLOPs per token, forward and backward')
    cache = 2 * shape['n_layer'] * n_kv_head * head_dim(shape) * width
    print(f'  KV cache: {cache:,} bytes a token, {cache * T / 1e6:,.1f} MB for {T:,}; {n_kv_head} of '
          f'{n_head} heads have one: saves {1 - n_kv_head / n_head:.0%}')


def print_tokens(n, tokens, here):
    """The tokens of n parameters: planned, Chinchilla's, at hand."""
    verdict = 'about compute-optimally trained'
    if tokens > 40 * n:
        verdict = 'over-trained'
    if tokens < 10 * n:
        verdict = 'under-trained'
    print(f'\n  {tokens:,} tokens planned, {tokens / n:.1f} a parameter: {verdict}')
    print(f'  {20 * n:,} would be compute-optimal: 20 a parameter (Chinchilla, 2203.15556); the plan has '
          f'{percent(tokens, 20 * n)} of that')
    if here:
        print(f'  {here:,} at hand, {percent(here, 20 * n)} of that: {tokens / here:.2f} epochs (after 4, '
              'repeats teach little: 2305.16264)')


def percent(part, whole):
    """'8.6%' of 86 and 1,000; 'less than 0.1%' where digits would say no more."""
    return f'{part / whole:.1%}' if part >= whole / 1000 else 'less than 0.1%'
