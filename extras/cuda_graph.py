"""
A GPU writes several times sooner with this: a CUDA graph of the step that reads one more token.

    from extras import cuda_graph
    cuda_graph.use(model)           # now model.stream(), and so generate(), takes this way

A GPU computes the step of a small model sooner than Python starts its 500 kernels. A CUDA graph
starts them all at once: it repeats what was recorded, at the same addresses, so only what stands
there may change. So the cache has its full length from the beginning, a mask hides what is not
written yet, and rows that have ended stay. GPT.stream in model.py is the loop to read.

The first token of each recording is computed in both ways. If they differ, or if nothing can be
recorded, a note says so, and the model writes as before. Finish a text within the autocast in which
it began, because the graph reads the weights that autocast has cast, and write in one thread.
"""
import functools, sys
import torch
import torch.nn.functional as F
from model import GPT, IGNORE, attend, rotate, without_padding

SHORT = 16          # tokens; a recording takes as long as a few of them


def use(model):
    """Let a model on a GPU write by a recorded step. On another device nothing changes."""
    if model.embedding.weight.is_cuda and type(model) is GPT:
        model.__class__ = Recorded


@functools.cache
def side_stream(device):
    """Return the stream on which a device records: always the same, because each has memory."""
    return torch.cuda.Stream(device)


def read_token(attention, x, cos, sin, cache, at, mask):
    """Attention of one more token, x (B, 1, C) -> (B, 1, C). cache (2, B, K, room, D) gets its key
    and value at position `at`, (1,). mask (B, 1, 1, room): the keys that it sees."""
    heads = lambda y: y.unflatten(-1, (-1, attention.config.head_dim)).transpose(1, 2)
    q = rotate(attention.norm_q(heads(attention.w_q(x))), cos, sin)  # (B, H, 1, D)
    k = rotate(attention.norm_k(heads(attention.w_k(x))), cos, sin)  # (B, K, 1, D)
    v = heads(attention.w_v(x))  # (B, K, 1, D)
    cache[0].index_copy_(2, at, k)
    cache[1].index_copy_(2, at, v)
    y = attend(q, cache[0], cache[1], mask, False).to(v.dtype)  # (B, H, 1, D)
    return attention.w_o(y.transpose(1, 2).flatten(2))


def record(model, cache, is_text):
    """Return step(token (B,), n) -> logits (B, V): it reads a token of each row behind the n that
    are in the cache. is_text (B, room): where the cache has no padding."""
    keys = torch.arange(is_text.shape[1], device=is_text.device)  # (room,)
    idx = keys.new_zeros(len(is_text), 1)  # (B, 1)
    at = keys[-1:].clone()  # (1,): what a rehearsal writes there is hidden, or overwritten

    def read():
        mask = (is_text & (keys <= at))[:, None, None]  # (B, 1, 1, room)
        where = model.cos[at], model.sin[at]  # (1, D/2) each
        x = model.embedding(idx)  # (B, 1, C)
        for block, own in zip(model.blocks, cache):
            x = x + read_token(block.attention, block.norm_1(x), *where, own, at, mask)
            x = x + block.mlp(block.norm_2(x))
        return model.head(model.norm(x)[:, -1])[:, :model.config.vocab_size].float()

    if idx.is_cuda:
        device = idx.device
        graph, side = torch.cuda.CUDAGraph(), side_stream(device)
        with torch.cuda.device(device):
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                read()                  # a rehearsal, in which libraries allocate what they need
            # It first waits for the GPU and frees unused memory, and ends also after an error.
            with torch.cuda.graph(graph, stream=side, capture_error_mode='thread_local'):
                logits = read()
            torch.cuda.current_stream(device).wait_stream(side)

    def step(token, n):
        idx.copy_(token[:, None].clamp(min=0))          # IGNORE: a row of eval.py that has ended
        at.fill_(n)
        if not idx.is_cuda:             # a test on a CPU
            return read()
        graph.replay()
        return logits

    return step


def recorded(model, cache, is_text, token, n, expected):
    """Return step(), or None if it can't be recorded, or computes other logits of a token than
    expected, (B, V)."""
    try:
        step = record(model, cache, is_text)
        logits = step(token, n)
        apart = (logits - expected).norm() / expected.norm()
        why = f'logits differ by {apart:.2g}' if not apart < 0.05 else ''       # bfloat16: 0.01
    except RuntimeError as error:
        why = str(error).partition('\n')[0]
    if why:
        print(f'\nnote: no CUDA graph ({why}); tokens take longer', file=sys.stderr, flush=True)
        model.__class__ = GPT
        return None
    return step


class Recorded(GPT):
    """A GPT that writes by a recorded step."""

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, draw, stop=()):
        """GPT.stream with a recorded step: the same tokens, but for rounding."""
        B, T = idx.shape
        block_size = self.config.block_size
        if max_new_tokens < SHORT or T + SHORT > block_size:
            yield from super().stream(idx, max_new_tokens, draw, stop)
            return
        room = min(T + max_new_tokens, block_size)
        different, which = idx.unique(dim=0, return_inverse=True)       # equal prompts: read once
        cache = self.empty_cache(len(different), room).zero_()          # 0 x NaN would be NaN
        is_text = F.pad(idx != IGNORE, (0, room - T), value=True)  # (B, room)
        step, token = None, torch.full_like(idx[:, 0], -1)
        stop = idx.new_tensor(stop)

        def read(idx, n_cached):
            """Read in the plain way what is not in the cache, as GPT.stream does."""
            mask = without_padding(idx, n_cached) if (idx == IGNORE).any() else None
            hidden = self.backbone(idx[:, n_cached:].clamp(min=0), cache, n_cached, mask)
            return self.head(hidden[:, -1])[:, :self.config.vocab_size].float()

        for t in range(max_new_tokens):
            rows = (~torch.isin(token, stop)).nonzero()[:, 0]  # (b,): not ended
            if not len(rows):
                return
            n = idx.shape[1] - 1            # tokens in the cache
            if t == 0:
                logits = read(different, 0)[which]  # (B, V)
                cache = cache[:, :, which]
            elif n >= block_size:           # the window has moved: each token reads all of it
                logits = read(idx[:, -block_size:], 0)
            elif step:
                logits = step(token, n)
            else:
                logits = read(idx, n)
                if t == 1:
                    step = recorded(self, cache, is_text, token, n, logits)
                    logits = read(idx, n)           # the cache has what the plain way computes
            token = token.scatter(0, rows, draw(logits[rows], rows, t))
            yield token
            idx = torch.cat((idx, token[:, None]), dim=1)  # (B, T + 1), then T + 2, ...
