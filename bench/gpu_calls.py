"""
Measurements within one process, of gpu.py and peers.py: does a model on a device compute the
same as on the CPU, and how long do calls take?
"""
import contextlib, math, time
import numpy as np
import torch
from model import GPT

HALF = 'bfloat16'           # also where dtype=auto is float32: a comparison needs the same for both
REPEATS = 10                # of a call, of which the median counts; gpu.py lowers it at toy sizes


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


# --- ours or transformers': a training step, and generation -------------------------------------------------
def work_of(what, who, c, device, batch, dtype=HALF, compiled=False, prompt=32, new=128):
    """A call, and how many tokens it reads or writes: a training step, or greedy answers of `new` tokens to
    prompts of random ids. c: a GPTConfig. who: ours, or theirs of the same size. batch: sequences."""
    torch.manual_seed(0)
    is_ours = who != 'theirs'
    torch.backends.cuda.enable_cudnn_sdp(what == 'train')     # as train.py does
    model = GPT(c).to(device) if is_ours else llama_of(c, device)
    if what == 'train':
        net = torch.compile(model) if compiled else model
        loss = lambda x, y: net(x, y, with_logits=False)[1]         # without logits, as in train.py
        if not is_ours:
            loss = lambda x, y: net(input_ids=x, labels=x, use_cache=False).loss    # it shifts the labels
        return step_of(model, loss, c, batch, dtype), batch * c.block_size
    model = model.to(getattr(torch, dtype)).eval()
    idx = torch.randint(c.vocab_size, (batch, prompt), device=device)
    write = lambda: model.generate(idx, new, temperature=0)
    if not is_ours:
        write = lambda: model.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False,
                                       pad_token_id=0, max_new_tokens=new, min_new_tokens=new)
    return write, batch * new


def step_of(model, loss_of, c, batch, dtype):
    """A call: a step of train.py with sequences of random ids. loss_of(x, y): the loss of a batch."""
    vectors = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() != 1]
    optimizer = torch.optim.AdamW([{'params': matrices}, {'params': vectors, 'weight_decay': 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    device = device_of(model)
    text = np.random.default_rng(0).integers(c.vocab_size, size=(batch, c.block_size + 1))

    def step():
        with autocast(device, dtype):
            loss = loss_of(*(torch.from_numpy(ids).to(device) for ids in (text[:, :-1], text[:, 1:])))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        if math.isfinite(norm + loss.item()):
            optimizer.step()
        optimizer.zero_grad()
    return step


def llama_of(c, device):
    """transformers' model of the same size."""
    import transformers
    with torch.device(device):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.n_embd, intermediate_size=c.n_ffn, rms_norm_eps=c.norm_eps,
            num_hidden_layers=c.n_layer, num_attention_heads=c.n_head, max_position_embeddings=c.block_size,
            tie_word_embeddings=c.tie_embeddings))
