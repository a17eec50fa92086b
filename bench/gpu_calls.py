"""
Measurements within one process, of gpu.py and transformers_speed.py: does a model on a device compute the
same as on the CPU, how long do calls take, where does the time of a training step go?
"""
import collections, contextlib, copy, functools, math, re, time
import numpy as np
import torch
from model import GPT, IGNORE
from parts.train import optim, rollouts
from parts.sample import decoding

HALF = 'bfloat16'           # also where dtype=auto is float32: a comparison needs the same for both
REPEATS = 10                # of a call, of which the median counts; gpu.py lowers it at toy sizes
# kinds of kernels, by their names: the first that fits
KINDS = {'attention': 'flash|fmha|attention|sdpa', 'logits and cross-entropy': 'softmax|nll|cross_entropy',
         'optimizer and clipping': 'adam|multi_tensor|foreach', 'copies': 'memcpy|memset|copy_',
         'matrix products': 'gemm|nvjet|cutlass|xmma|mm|linear', 'the rest': ''}


def device_of(model):
    return str(next(model.parameters()).device)


def autocast(device, dtype):
    return torch.autocast(torch.device(device).type, getattr(torch, dtype), enabled=dtype != 'float32')


# --- time ---------------------------------------------------------------------------------------------------
def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ms(call, most=math.inf, warm=2):
    """The median of REPEATS calls, at most `most`, in ms; before them, `warm` calls that do not count."""
    seconds = []
    for _ in range(warm + min(REPEATS, most)):
        wait()
        began = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[warm:]))


def copy_rate(device, n):
    """Bytes a second of a copy of n float32 numbers within the device, read and written."""
    a = torch.randn(n, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / ms(lambda: b.copy_(a)) * 1000


# --- is it right? -------------------------------------------------------------------------------------------
def apart(a, b):
    """The norm of the difference of two lists of tensors over the norm of the second, in float64."""
    a, b = (torch.cat([t.detach().cpu().double().flatten() for t in tensors]) for tensors in (a, b))
    return float((a - b).norm() / b.norm())


def loss_and_gradients(model, batch, autocast=None, net=None):
    where = device_of(model)
    model.zero_grad(set_to_none=True)
    with autocast or contextlib.nullcontext():
        loss = (model if net is None else net)(*[t.to(where) for t in batch])[1]
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters()]


def same_pass(pair, batch, **other):
    """The pass of the second model, in another way, beside that of the first."""
    (x, a), (y, b) = loss_and_gradients(pair[0], batch), loss_and_gradients(pair[1], batch, **other)
    found = {'loss': x, 'loss_there': y, 'loss_apart': abs(y - x) / x, 'gradients_apart': apart(b, a)}
    limit = 5e-2 if 'autocast' in other else 1e-3
    return found | {'ok': max(found['loss_apart'], found['gradients_apart']) < limit}


def same_greedy(pair, idx):
    found = [m.generate(idx.to(device_of(m)), 20, 0)[:, -20:].cpu() for m in pair]
    same = int((found[0] == found[1]).sum())
    return {'same': same, 'of': found[0].numel(), 'ok': same == found[0].numel()}


def written(model, prompts, noise, stop, slots):
    """Answers to the prompts, sampled as rl.py does."""
    batch = decoding.Batch(model, stop, slots)
    answers = [batch.add(ids, len(row), iter(row).__next__, scored_at=1.0)
               for ids, row in zip(prompts, noise.tolist())]
    while batch.queue or batch.live:
        batch.step()
    return answers


def same_rollouts(pair, c):
    dice = np.random.default_rng(0)
    prompts = [dice.integers(c.vocab_size, size=n).tolist() for n in (3, 9, 5, 9, 2)]
    noise = rollouts.noise_of(1, 0, range(5), 12)
    here, there = (written(model, prompts, noise, {0, 1}, slots=2) for model in pair)
    same = [(a.log_probs, b.log_probs) for a, b in zip(here, there) if a.ids == b.ids]
    x, y, old = [t.to(device_of(pair[1])) for t in rollouts.collate(there, 0)]
    with torch.no_grad():
        again = rollouts.Policy(pair[1], 1.0)(x, y)
    ratio = float((again - old)[y != IGNORE].abs().max())
    far = max(abs(p - q) for a, b in same for p, q in zip(a, b))
    return {'same_answers': len(same), 'of': 5, 'log_p_apart': far, 'sampled_and_trained_log_p_apart': ratio,
            'ok': len(same) == 5 and far < 1e-3 and ratio < 1e-3}


def same_steps(pair, kind, batch, exact):
    """Three updates with the CPU's gradients on both. exact: Muon's iteration in float32."""
    real = optim.orthogonal
    if exact:
        optim.orthogonal = functools.partial(real, dtype=torch.float32)
    try:
        pair = [copy.deepcopy(m) for m in pair]
        before = [p.detach().clone() for p in pair[0].parameters()]
        optimizers = [optim.build(m, kind, 1e-3, 0.1) for m in pair]
        for _ in range(3):
            gradients = loss_and_gradients(pair[0], batch)[1]
            for m, optimizer in zip(pair, optimizers):
                for p, g in zip(m.parameters(), gradients):
                    p.grad = g.to(p.device)
                optimizer.step()
    finally:
        optim.orthogonal = real
    here, there = ([p.detach().cpu() - q for p, q in zip(m.parameters(), before)] for m in pair)
    far = apart(there, here)
    return {'updates_apart': far, 'ok': far < (1e-3 if exact else 5e-2)}


# --- ours or transformers': a training step, and generation -------------------------------------------------
def loss_of(net, is_ours):
    """A call: the loss of a batch. Theirs shifts the labels itself."""
    if is_ours:
        return lambda x, y: net(x, y)[1]
    return lambda x, y: net(input_ids=x, labels=x, use_cache=False).loss


def greedy(net, is_ours, idx):
    """A call: n tokens for each row of idx."""
    if is_ours:
        return lambda n: net.generate(idx, n, temperature=0)
    return lambda n: net.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False, pad_token_id=0,
                                  max_new_tokens=n, min_new_tokens=n)


def step_of(model, loss_of, c, micro, kind='adamw', dtype=HALF):
    """A call: a step of train.py. c: a GPTConfig, the model's or one of its size. micro: sequences of random
    ids."""
    optimizer = optim.build(model, kind, 1e-4, 0.1)
    device = device_of(model)
    text = np.random.default_rng(0).integers(c.vocab_size, size=(micro, c.block_size + 1))

    def step():
        with autocast(device, dtype):
            loss = loss_of(*(torch.from_numpy(ids).to(device) for ids in (text[:, :-1], text[:, 1:])))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        if math.isfinite(norm + loss.item()):
            optimizer.step()
        optimizer.zero_grad()
    return step


def profiled(step, on_gpu, n=3):
    """Shares of the wall-clock time of n steps: each kind of kernel; the host, for which the device waits."""
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * on_gpu
    step()
    wait()
    with torch.profiler.profile(activities=kinds) as profile:
        began = time.perf_counter()
        for _ in range(n):
            step()
        wait()
        wall = 1e6 * (time.perf_counter() - began)          # microseconds
    spent, kernels = collections.Counter(), collections.Counter()
    for e in profile.events():
        if e.device_type.name != ('CUDA' if on_gpu else 'CPU') or getattr(e, 'is_user_annotation', False) \
                or re.match('## |Torch-Compiled|Optimizer|ProfilerStep', e.name):      # a name for several
            continue
        took = e.time_range.elapsed_us() if on_gpu else e.self_cpu_time_total
        spent[next(kind for kind, words in KINDS.items() if re.search(words, e.name.lower()))] += took
        kernels[e.name[:50]] += took
    shares = {kind: spent[kind] / wall for kind in KINDS}
    top = {name: float(f'{took / wall:.2g}') for name, took in kernels.most_common(8)}
    return shares | {'the device waits': 1 - sum(shares.values()), 'step_ms': wall / 1000 / n, 'kernels': top}


def on_device(c, device):
    """A model whose tables are on the device already, as processes.rehearse() leaves it."""
    model = GPT(c).to(device)
    with torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long, device=device))
    return model


def llama_of(c, device):
    """transformers' model of the same size."""
    import transformers
    c = c.filled()
    with torch.device(device):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.n_embd, intermediate_size=c.n_ffn, rms_norm_eps=c.norm_eps,
            num_hidden_layers=c.n_layer, num_attention_heads=c.n_head, max_position_embeddings=c.block_size,
            tie_word_embeddings=c.tie_embeddings))
