"""What would a CUDA graph of the one-token step give? 110M, 32 + 128 tokens, greedy."""
import sys, time
sys.path[:0] = ['.', 'bench']
import torch
import torch.nn.functional as F
import gpu_calls
from model import GPT, GPTConfig, rotate
tiny = not torch.cuda.is_available()
device = 'cpu' if tiny else 'cuda:0'
dtype = torch.float32 if tiny else torch.bfloat16
c = GPTConfig(1024, 64, 2, 2, 0, 32) if tiny else GPTConfig(32768, 1024, 12, 12, 0, 768)
torch.backends.cuda.enable_cudnn_sdp(False)
PROMPT, NEW = (8, 16) if tiny else (32, 128)

@torch.no_grad()
def fixed(model, token, at, cache, keys):
    """One token a row (B, 1) at position at (1,) -> the next (B, 1); shapes never change."""
    cos, sin = model.cos[at], model.sin[at]
    mask = (keys <= at)[None, None, None]
    x = model.embedding(token)
    for block, (k_all, v_all) in zip(model.blocks, cache):
        a = block.attention
        y = block.norm_1(x)
        heads = lambda z: z.unflatten(-1, (-1, c.head_dim)).transpose(1, 2)
        q, k, v = rotate(heads(a.w_q(y)), cos, sin), rotate(heads(a.w_k(y)), cos, sin), heads(a.w_v(y))
        k_all.index_copy_(2, at, k); v_all.index_copy_(2, at, v)
        y = F.scaled_dot_product_attention(q, k_all, v_all, mask)
        x = x + a.w_o(y.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm_2(x))
    logits = model.head(model.norm(x)[:, -1])[:, :c.vocab_size].float()
    return logits.argmax(-1, keepdim=True)

for batch in (1, 16, 256):
    torch.manual_seed(0)
    model = gpu_calls.on_device(c, device).to(dtype).eval()
    idx = torch.randint(c.vocab_size, (batch, PROMPT), device=device)
    ours = lambda: model.generate(idx, NEW, temperature=0)
    took = gpu_calls.ms(ours, 3, warm=1)
    cache = model.empty_cache(batch, PROMPT + NEW).zero_()
    keys = torch.arange(cache.shape[4], device=device)
    token = torch.zeros(batch, 1, dtype=torch.long, device=device)
    at = torch.zeros(1, dtype=torch.long, device=device)
    def step():
        token.copy_(fixed(model, token, at, cache, keys)); at.add_(1)
    if not tiny:
        side = torch.cuda.Stream(); side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(); step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        began = time.time()
        with torch.cuda.graph(graph):
            step()
        torch.cuda.synchronize(); captured = time.time() - began
        again = graph.replay
    else:
        again, captured = step, 0
    @torch.no_grad()
    def write():
        cache.zero_()
        hidden = model.backbone(idx, cache, 0)
        token.copy_(model.head(hidden[:, -1]).float().argmax(-1, keepdim=True)); at.fill_(PROMPT)
        out = [token.clone()]
        for _ in range(NEW - 1):
            again(); out.append(token.clone())
        return torch.cat((idx, *out), 1)
    fast = gpu_calls.ms(write, 3, warm=1)
    same = (write() == ours()).float().mean().item()
    print(f'graph: batch {batch}: generate {took:.1f} ms = {batch * NEW / took * 1000:.0f} tok/s; graph {fast:.1f} ms = '
          f'{batch * NEW / fast * 1000:.0f} tok/s, {took / fast:.2f} times; capture {captured:.3f} s; same tokens {same:.4f}', flush=True)
