"""
A decoder-only transformer as in LLaMA, and text generation with a KV cache.

    python model.py                 # self-test: memorize four texts, then generate them
    model = GPT.load('out/base')    # a folder that train.py wrote
    model.generate(idx, 100)        # (B, T) -> (B, T + 100)

    embedding -> n_layer x [ x += attention(norm(x));  x += swiglu(norm(x)) ] -> norm -> projection

Unlike the transformer of 2017, this model has RMSNorm before each sublayer (arXiv:1910.07467),
rotary position embeddings (RoPE, 2104.09864), grouped-query attention (GQA, 2305.13245) and SwiGLU
(2002.05202).
B batch, T time, C = n_embd, H query heads, K key/value heads, D head_dim, V vocabulary.
"""
import contextlib, dataclasses, math, os, random
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100       # cross_entropy's ignore_index: the target of prompt and padding tokens


class UserError(ValueError):
    """An error that the user can fix. Our scripts print its message without a traceback."""


@dataclasses.dataclass
class GPTConfig:
    vocab_size: int = 32768
    block_size: int = 1024          # maximum context length, tokens
    n_layer: int = 12
    n_head: int = 12                # query heads
    n_kv_head: int = 0              # key/value heads, a divisor of n_head; 0 = n_head
    n_embd: int = 768               # n_embd / n_head must be even, because RoPE rotates pairs
    n_ffn: int = 0                  # hidden width; 0 = 8/3 n_embd rounded to a multiple of 64
    dropout: float = 0.0            # of embeddings and sublayer outputs, not of attention weights
    rope_theta: float = 10000.0     # RoPE's base; a larger base lowers the frequencies
    rope_scaling: tuple = ()        # arguments of scale_frequencies() after `frequency`
    norm_eps: float = 1e-6
    tie_embeddings: bool = True     # embedding and projection share one matrix
    causal: bool = True             # False: bidirectional attention, for masked language modeling
    vocab_multiple: int = 1         # pad the vocabulary to a multiple; 64 is faster on a GPU
    head_dim: int = 0               # D, an even number; 0 = n_embd / n_head
    qkv_bias: bool = False          # add a bias to w_q, w_k and w_v, as in Qwen2
    qk_norm: bool = False           # apply RMSNorm to each head's q and k before RoPE, as in Qwen3

    def __post_init__(self):
        D = self.head_dim or self.n_embd / self.n_head
        if D % 2:
            raise UserError(f'head_dim={D:g} must be even; its default is '
                            f'n_embd={self.n_embd} / n_head={self.n_head}')
        self.head_dim = int(D)
        self.n_kv_head = self.n_kv_head or self.n_head
        if self.n_head % self.n_kv_head:
            raise UserError(f'n_head={self.n_head} must be divisible by n_kv_head={self.n_kv_head}')
        # Three matrices of width 8/3 n_embd have as many weights as GPT-2's two of width 4 n_embd.
        self.n_ffn = self.n_ffn or max(64, round(self.n_embd * 8 / 3 / 64) * 64)


class RMSNorm(nn.RMSNorm):
    """w * x / sqrt(mean(x^2) + eps), computed in float32 also under autocast."""
    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).type_as(x)


def rotate(x, cos, sin):
    """x (B, H, T, D), cos and sin (T, D/2) or (B, 1, T, D/2) -> (B, H, T, D).
    RoPE: rotate the pair (a, b) = (x_i, x_{i + D/2}) by the angle position * frequency_i. With
    frequency 0.5, (1, 0) stays (1, 0) at position 0, and becomes (0.88, 0.48) at 1 and (0.54, 0.84)
    at 2. Positions 0 and 1 have the dot product 0.88, as have 1 and 2: only the distance counts."""
    a, b = x.float().chunk(2, dim=-1)  # (B, H, T, D/2) each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x)  # (B, H, T, D)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.config = c
        self.w_q = nn.Linear(c.n_embd, c.n_head * c.head_dim, bias=c.qkv_bias)
        self.w_k = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.qkv_bias)
        self.w_v = nn.Linear(c.n_embd, c.n_kv_head * c.head_dim, bias=c.qkv_bias)
        self.w_o = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=False)
        self.norm_q = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()
        self.norm_k = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()

    def forward(self, x, cos, sin, cache, positions, mask):
        """x (B, T, C) -> (B, T, C). mask, bool (B or 1, 1, T, T): True where a query may attend to
        a key. With a cache of n keys and values, (2, B, K, n, D), the keys and values of x are
        written into the cache at `positions` (T,), and x attends to the whole cache. The mask,
        (B or 1, 1, T, n), then hides padding and keys that are not written yet."""
        heads = lambda y: y.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        q = rotate(self.norm_q(heads(self.w_q(x))), cos, sin)  # (B, H, T, D)
        k = rotate(self.norm_k(heads(self.w_k(x))), cos, sin)  # (B, K, T, D)
        v = heads(self.w_v(x))  # (B, K, T, D)
        dtype = v.dtype     # under autocast, not x.dtype
        if cache is not None:
            k, v = cache.index_copy_(3, positions, torch.stack((k, v)))  # (B, K, n, D) both
        elif x.is_cpu:      # the backward pass of bfloat16 attention can be slow on a CPU
            q, k, v = q.float(), k.float(), v.float()
        # Without a mask, x is a full sequence, or one new token (T = 1) that attends to every key.
        is_causal = self.config.causal and mask is None and x.shape[1] > 1
        y = attend(q, k, v, mask, is_causal).to(dtype)  # (B, H, T, D)
        return self.w_o(y.transpose(1, 2).flatten(2))  # (B, T, C)


def attend(q, k, v, mask, is_causal):
    """Return softmax(q k^T / sqrt(D)) v, (B, H, T, D). Each k and v head serves H / K q heads."""
    # The fast GPU kernel for grouped-query attention supports only bfloat16 without a mask.
    if q.is_cuda and k.shape[1] < q.shape[1] and (mask is not None or q.dtype != torch.bfloat16):
        if q.shape[2] == 1:     # T = 1: view the H / K heads that share keys as H / K tokens
            y = attend(q.unflatten(1, (k.shape[1], -1))[..., 0, :], k, v, mask, False)
            return y.flatten(1, 2)[:, :, None]  # (B, K, H / K, D) -> (B, H, 1, D)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    with torch.autocast('cpu', enabled=False):      # autocast would make q, k, v bfloat16 again
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal,
                                              enable_gqa=k.shape[1] < q.shape[1])


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), where silu(z) = z sigmoid(z): the gate scales up(x)."""
    def __init__(self, c):
        super().__init__()
        self.w_gate = nn.Linear(c.n_embd, c.n_ffn, bias=False)
        self.w_up = nn.Linear(c.n_embd, c.n_ffn, bias=False)
        self.w_down = nn.Linear(c.n_ffn, c.n_embd, bias=False)

    def forward(self, x):
        return self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm_1 = RMSNorm(c.n_embd, c.norm_eps)
        self.attention = Attention(c)
        self.norm_2 = RMSNorm(c.n_embd, c.norm_eps)
        self.mlp = SwiGLU(c)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x, *args):  # args: cos, sin, cache, positions, mask; see Attention
        x = x + self.dropout(self.attention(self.norm_1(x), *args))
        return x + self.dropout(self.mlp(self.norm_2(x)))


def rope_table(D, T, theta, scaling=()):
    """Return cos and sin of position * frequency, (T, D/2). Pair 0 has the highest frequency."""
    frequency = scale_frequencies(theta ** (-torch.arange(0.0, D, 2) / D), *scaling)  # (D/2,)
    angle = torch.outer(torch.arange(float(T)), frequency)  # (T, D/2)
    return angle.cos(), angle.sin()


def scale_frequencies(frequency, factor=1.0, low=None, high=None, original_T=None):
    """Lower RoPE's frequencies for a longer context. Given only `factor`, divide all frequencies by
    `factor` (2306.15595). Llama 3.1 divides only low frequencies. With factor 8, low 1 and high 4,
    the frequency of a pair that makes 9, 2.5 or 0.5 turns in original_T tokens is multiplied by 1,
    0.5625 (halfway) or 1/8."""
    if original_T is None:
        return frequency / factor
    turns = original_T * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)  # (D/2,): 1 = keep the frequency, 0 = divide
    return frequency * (keep + (1 - keep) / factor)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        rows = math.ceil(c.vocab_size / c.vocab_multiple) * c.vocab_multiple
        self.embedding = nn.Embedding(rows, c.n_embd)       # rows V, V + 1, ... are padding
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.norm = RMSNorm(c.n_embd, c.norm_eps)
        self.head = nn.Linear(c.n_embd, rows, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.embedding.weight
        # Plain tensors instead of buffers, because model.bfloat16() would round buffers.
        self.cos, self.sin = rope_table(c.head_dim, c.block_size, c.rope_theta, c.rope_scaling)
        self.grad_checkpoint = False    # True: the backward pass recomputes the blocks (1604.06174)
        # On a GPU, stream() captures the forward pass of one token as a CUDA graph and replays it
        # (extras/models/graph.py). A replay skips Python hooks and print(); False disables graphs.
        self.use_graph = True
        self.saved = {}                 # the other entries of the checkpoint that load() read
        # As in GPT-2: the residual stream is a sum of 2 n_layer outputs of w_o and w_down, and the
        # variances of the outputs add up. Scaling w_o and w_down by 1 / sqrt(2 n_layer) makes the
        # variance of the sum the same for any n_layer.
        for name, p in self.named_parameters():
            if p.dim() == 2:
                n_terms = 2 * c.n_layer if name.endswith(('w_o.weight', 'w_down.weight')) else 1
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(n_terms))

    def backbone(self, idx, positions=None, mask=None, cache=None):
        """idx (B, T) -> hidden states (B, T, C). positions: (T,), or (B, 1, T) if they differ from
        row to row; None = 0 1 2 .... mask and cache: see Attention; block i uses cache[i]."""
        assert idx.shape[1] <= self.config.block_size, f'{idx.shape[1]} tokens exceed block_size'
        if self.cos.device != idx.device:       # model.to(device) doesn't move plain tensors
            self.cos, self.sin = self.cos.to(idx.device), self.sin.to(idx.device)
        index = slice(idx.shape[1]) if positions is None else positions
        cos, sin = self.cos[index], self.sin[index]  # (T, D/2), or (B, 1, T, D/2)
        x = self.dropout(self.embedding(idx))  # (B, T, C)
        for i, block in enumerate(self.blocks):
            args = cos, sin, (None if cache is None else cache[i]), positions, mask
            if self.grad_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, *args, use_reentrant=False)
            else:
                x = block(x, *args)
        return self.norm(x)  # (B, T, C)

    def forward(self, idx, targets=None, mask=None, positions=None, with_logits=True):
        """idx, targets (B, T) -> logits, float32 (B, T, V), and the loss: the mean -log p(target)
        over the targets that are not IGNORE, or 0 if there are none. For next-token prediction,
        pass idx = tokens[:, :-1] and targets = tokens[:, 1:]. With with_logits=False, return
        (None, loss) without computing logits for ignored targets. mask (B or 1, 1, T, T) and
        positions (B, T) serve infilling and document masks (extras/training/objectives.py)."""
        positions = None if positions is None else positions[:, None]  # (B, 1, T), for all heads
        return self.predict(self.backbone(idx, positions, mask), targets, with_logits)

    def predict(self, hidden, targets=None, with_logits=True):
        """Return logits and loss, as forward() does, from hidden states (B, T, C) or (n, C)."""
        if not with_logits and not torch.compiler.is_compiling():  # the compiler needs fixed shapes
            hidden, targets = hidden[targets != IGNORE], targets[targets != IGNORE]  # (n, C), (n,)
        logits = self.head(hidden)[..., :self.config.vocab_size].float()  # (B, T, V) or (n, V)
        if targets is None:
            return logits, None
        losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction='none')
        loss = losses.sum() / (targets != IGNORE).sum().clamp(min=1)
        return (logits if with_logits else None), loss

    def empty_cache(self, B, T):
        """Return a zeroed KV cache for B sequences of T tokens: (n_layer, 2, B, K, T, D)."""
        c = self.config
        # Under autocast, keys may be bfloat16 although the weights are float32. A small matrix
        # product has the dtype of the keys. The cache must not contain NaN: unwritten keys get
        # attention weight 0, and 0 * NaN is NaN.
        row = self.embedding.weight[:1]
        return (row @ row.T).new_zeros(c.n_layer, 2, B, c.n_kv_head, T, c.head_dim)

    def log_p(self, idx, targets, temperature=1.0, suppress=()):
        """Return log p, (m,), of the m targets that are not IGNORE, in order, at a temperature.
        The token ids in `suppress` get p = 0."""
        logits = self.predict(self.backbone(idx)[targets != IGNORE])[0] / temperature  # (m, V)
        logits[:, [*suppress]] = -math.inf
        return -F.cross_entropy(logits, targets[targets != IGNORE], reduction='none')

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=(),
                 seeds=(), with_log_p=False, suppress=()):
        """Append n <= max_new_tokens sampled tokens to idx, without dropout: (B, T) -> (B, T + n).
        A sequence that has sampled an id of `stop` repeats that id. Left-pad shorter prompts with
        IGNORE (_):
            _ _ 5 6     ->    _ _ 5 6 a b
            5 6 7 8           5 6 7 8 c d
        seeds: an int or a str for each sequence, so that its tokens don't depend on the rest of the
        batch. with_log_p=True also returns log p of the new tokens, float32 (B, n), at this
        temperature but before top_k and top_p. The token ids in `suppress` are never sampled."""
        rngs = [random.Random(seed) for seed in seeds]
        log_p = torch.zeros(len(idx), max_new_tokens, device=idx.device)    # 0 after a stop

        def sample_next(logits, rows, t):
            logits[:, [*suppress]] = -math.inf
            u = logits.new_tensor([rngs[row].random() for row in rows.tolist()]) if rngs else None
            token = sample(logits, temperature, top_k, top_p, u)
            if with_log_p:
                logits = logits / (temperature or 1)
                log_p[rows, t] = -F.cross_entropy(logits, token, reduction='none')
            return token

        was_training = self.training
        self.eval()
        new = [token[:, None] for token in self.stream(idx, max_new_tokens, sample_next, stop)]
        self.train(was_training)
        idx = torch.cat((idx, *new), dim=1)
        return (idx, log_p[:, :len(new)]) if with_log_p else idx

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, sample_next, stop):
        """Generate step by step: yield the new tokens of all sequences, (B,), at each step t, until
        max_new_tokens or until every sequence has sampled an id of `stop`. The callback
        sample_next(logits (b, V), rows (b,), t) returns tokens (b,) for the b unfinished sequences,
        whose indices in the batch are `rows`. Call eval() first, and keep one autocast context open
        for the whole loop. Generating d and e after the prompt a b c takes two forward passes:
            idx          input of the blocks    tokens in the cache afterwards
            a b c        a b c                  a b c
            a b c d      d                      a b c d"""
        stop, window = idx.new_tensor(stop), self.config.block_size
        rows = torch.arange(len(idx), device=idx.device)  # (b,), batch indices of the rows of idx
        token, active = rows, rows >= 0  # placeholder (B,); unfinished (b,)
        next_logits = self.next_logits
        if idx.is_cuda and self.use_graph:
            with contextlib.suppress(ModuleNotFoundError):      # without extras/: slower
                from extras.models.graph import GraphRunner
                next_logits = GraphRunner(self).next_logits
        # 1. Run the model once on each distinct prompt: x y x becomes x y, with inverse 0 1 0.
        idx, inverse = idx[:, -window:].unique(dim=0, return_inverse=True)
        cache = self.empty_cache(len(idx), min(idx.shape[1] + max_new_tokens, window))
        logits = self.next_logits(idx, 0, cache)[inverse]  # (b, V)
        idx, cache = idx[inverse], cache[:, :, inverse]
        for t in range(max_new_tokens):
            # 2. Sample a token for each unfinished sequence.
            token = token.scatter(0, rows[active], sample_next(logits[active], rows[active], t))
            yield token
            active = ~torch.isin(token[rows], stop)  # (b,)
            if t + 1 == max_new_tokens or not active.any():
                return
            # 3. Run the model on the sampled tokens. Finished sequences are removed from the batch,
            # but only when many have finished: each removal copies the cache of all the others, and
            # on a GPU needs a new CUDA graph.
            if active.float().mean() < (0.5 if idx.is_cuda else 0.8):
                idx, cache, rows = idx[active], cache[:, :, active], rows[active]
                active = active[active]
            # The cache holds all of idx, so the model runs on the new token only. But when the
            # context is full, its first token is dropped and every other token moves one position
            # down. RoPE has rotated the cached keys for the old positions, so all are recomputed.
            n_cached = idx.shape[1] if idx.shape[1] < window else 0
            idx = torch.cat((idx, token[rows, None]), dim=1)[:, -window:]
            logits = next_logits(idx, n_cached, cache)

    def next_logits(self, idx, n_cached, cache):
        """Return next-token logits (b, V) for idx (b, T). The first n_cached tokens are cached."""
        positions = torch.arange(n_cached, idx.shape[1], device=idx.device)
        mask = causal_mask(idx, positions) if (idx == IGNORE).any() else None
        return self.next_logits_at(idx[:, n_cached:], positions, mask, cache[..., :idx.shape[1], :])

    def next_logits_at(self, idx, positions, mask, cache):
        """Return next-token logits (b, V) for idx (b, T) at positions (T,); see Attention."""
        return self.predict(self.backbone(idx.clamp(min=0), positions, mask, cache)[:, -1])[0]

    @classmethod
    def load(cls, path, **changes):
        """Load a GPT in float32 from a .pt file, a run's folder (best.pt, or else last.pt) or a
        Hugging Face folder. model.saved gets the checkpoint's other entries. changes: overrides of
        the saved config that keep the shapes of the weights: load('out/base', dropout=0.1)."""
        files = [os.path.join(path, name) for name in ('best.pt', 'last.pt')]
        path = next(filter(os.path.exists, files), path)
        try:
            if not str(path).endswith(('.pt', '.pth', '.ckpt')):
                from extras.models import hf_model
                saved = hf_model.read(path)
            else:       # weights_only: executes no code; mmap: doesn't read the optimizer's moments
                saved = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            # a checkpoint of another program has no model_config, and its weights won't match
            config = GPTConfig(**saved.pop('model_config', {}) | changes)
        except MemoryError:
            raise
        except Exception as e:
            # keep the first sentence: in the next one, torch advises weights_only=False
            cause = (str(e) if isinstance(e, ValueError) else repr(e)).split('. ')[0]
            raise UserError(f'{path} cannot be loaded into this model.py ({cause:.200})') from e
        model = cls(config)
        try:
            model.load_state_dict(saved.pop('model', None))
        except (RuntimeError, TypeError) as e:      # TypeError: not a state dict
            raise UserError(f'{path} is not a checkpoint of this model.py, because its weights '
                            f'do not match: {" ".join(str(e).split()):.300}') from e
        model.saved = saved
        return model

    def save(self, path, **more):
        """Write a .pt file for load(), with more entries. A crash leaves the old file intact."""
        with open(f'{path}.tmp', 'wb') as f:
            torch.save({'model': self.state_dict(), 'model_config': vars(self.config), **more}, f)
            f.flush()
            os.fsync(f)                 # the data must be on disk before the rename
        os.replace(f'{path}.tmp', path)


def causal_mask(idx, positions):
    """Return a causal mask that hides padding, bool (B, 1, n, T): True where a token at `positions`
    (n,) may attend to a key of idx (B, T). In the row _ 5 6, token 6 attends to 5 and 6. Padding _
    attends to itself, because a softmax over no keys is NaN. Token 5 may be at position 1 instead
    of 0, because RoPE depends only on distances."""
    key = torch.arange(idx.shape[1], device=idx.device)  # (T,)
    query = positions[:, None]  # (n, 1)
    return ((key < query) & (idx != IGNORE)[:, None] | (key == query))[:, None]


def sample(logits, temperature=1.0, top_k=None, top_p=None, u=None):
    """Sample a token for each row of logits (B, V) -> (B,). Temperature 0 is greedy. top_k keeps
    the k most probable tokens, top_p the fewest whose probabilities sum to top_p (1904.09751). u
    (B,): random numbers in [0, 1); with p = 0.5 0.2 0.3, u = 0.6 samples id 1."""
    if temperature < 1e-6:      # in the limit, the largest logit has probability 1
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k:
        kth_largest = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < kth_largest, -math.inf)
    if top_p and top_p < 1:
        p, order = logits.softmax(-1).sort(descending=True)  # (B, V) both
        # p = 0.5 0.3 0.2 has the sums 0 0.5 0.8 before each: top_p = 0.7 excludes the third token.
        excluded = p.cumsum(dim=-1) - p >= top_p
        logits = logits.masked_fill(excluded.scatter(1, order, excluded), -math.inf)
    if u is None:
        return torch.multinomial(logits.softmax(-1), 1)[:, 0]  # (B,)
    sums = logits.softmax(-1).cumsum(dim=-1)  # (B, V); with NaN, searchsorted returns V: clamp
    return torch.searchsorted(sums, u[:, None] * sums[:, -1:])[:, 0].clamp(max=len(logits[0]) - 1)


if __name__ == '__main__':
    torch.manual_seed(0)
    # Parameters of a model and of one of its blocks. train.py --plan counts those of three larger
    # models: config/mini.py, midi.py and mega.py.
    nano = GPT(GPTConfig(256, 512, 6, 8, 0, 256, 768))
    for part in nano, nano.blocks[0]:
        print(f'{type(part).__name__}: {sum(p.numel() for p in part.parameters()):,} parameters')

    model = GPT(GPTConfig(256, 64, 2, 4, 2, 128))
    # Random sequences of 16 different tokens: the next token depends on several previous tokens.
    idx = torch.randint(16, (4, 33))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(101):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        if step % 100 == 0:
            print(f'step {step}: loss {loss:.4f} (an untrained model: near ln 256 = 5.545)')
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss < 0.5, 'the model does not learn: check your last change'
    # RL and eval.py generate from prompts of different lengths, padded on the left.
    prompts = torch.stack((F.pad(idx[0, :5], (3, 0), value=IGNORE), idx[1, :8]))
    short, long = model.generate(prompts, 25, temperature=0)
    assert long.equal(idx[1]), 'wrong tokens: check the cache'
    assert short[3:].equal(idx[0, :30]), 'wrong tokens: check that padding is hidden'
    print('the model memorized four texts and generates two of them from their first tokens')
