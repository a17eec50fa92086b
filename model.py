"""
The model: a decoder-only transformer as in LLaMA, and the generation of text.

    python model.py                 # does a small one learn a text and write it?
    model = GPT.load('out/base')    # a folder that train.py wrote
    model.generate(idx, 100)        # (B, T) -> (B, T + 100)

    embedding -> n_layer x [ x += attention(norm(x));  x += swiglu(norm(x)) ] -> norm -> projection

Newer than the transformer of 2017 are RMSNorm before each sublayer (arXiv:1910.07467), rotary
positions (RoPE, 2104.09864), grouped key/value heads (GQA, 2305.13245) and SwiGLU (2002.05202).
B batch, T time, C = n_embd, H query heads, K key/value heads, D head width, V vocabulary.
"""
import contextlib, dataclasses, math, os, random
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100       # a target that the loss (cross_entropy) does not count: prompts, padding


class UserError(ValueError):
    """What a user can put right: our scripts print it as a sentence, without a traceback."""


@dataclasses.dataclass
class GPTConfig:
    vocab_size: int = 32768
    block_size: int = 1024          # longest context, tokens
    n_layer: int = 12
    n_head: int = 12                # query heads
    n_kv_head: int = 0              # key/value heads, a divisor of n_head; 0 = n_head
    n_embd: int = 768               # n_embd / n_head is even, because RoPE turns pairs
    n_ffn: int = 0                  # width of SwiGLU; 0 = 8/3 n_embd, to the nearest 64
    dropout: float = 0.0            # of the embedding and each sublayer's output; not in attention
    rope_theta: float = 10000.0     # RoPE's base: the larger, the slower its slowest pair turns
    rope_scaling: tuple = ()        # (factor,) or (factor, low, high, T_old), see stretch()
    norm_eps: float = 1e-6
    tie_embeddings: bool = True     # embedding and projection are one matrix
    causal: bool = True             # False: each token sees all, for masked language modelling
    vocab_multiple: int = 1         # rows are filled up to a multiple; with 64 a GPU is faster
    head_dim: int = 0               # D, an even number; 0 = n_embd / n_head
    qkv_bias: bool = False          # in w_q, w_k and w_v: Qwen2 has them
    qk_norm: bool = False           # an RMSNorm of each head's q and k, before RoPE: Qwen3 has it

    def __post_init__(self):
        D = self.head_dim or self.n_embd / self.n_head
        if D % 2:
            raise UserError(f'head_dim={D:g} must be even; if it is not given, it is '
                            f'n_embd={self.n_embd} / n_head={self.n_head}')
        self.head_dim = int(D)
        self.n_kv_head = self.n_kv_head or self.n_head
        if self.n_head % self.n_kv_head:
            raise UserError(f'n_head={self.n_head} is no multiple of n_kv_head={self.n_kv_head}')
        # Three matrices that are 8/3 n_embd wide have as many weights as GPT-2's two of 4 n_embd.
        self.n_ffn = self.n_ffn or max(64, round(self.n_embd * 8 / 3 / 64) * 64)


class RMSNorm(nn.RMSNorm):
    """w * x / sqrt(mean(x^2) + eps). nn.RMSNorm has w and eps; here float32 computes, always."""
    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).type_as(x)


def rotate(x, cos, sin):
    """RoPE turns the pair (a, b) = (x_i, x_{i + D/2}) by the angle position * frequency_i. With the
    frequency 0.5, (1, 0) stays (1, 0) at position 0, and becomes (0.88, 0.48) at 1 and (0.54, 0.84)
    at 2. Neighbors have the dot product 0.88 in both cases: only the distance counts."""
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
        """x (B, T, C) -> (B, T, C). mask, bool (B or 1, 1, T, T): True where a query sees a key.
        With a cache (2, B, K, n, D) for n keys and values, the T tokens of x write theirs at
        `positions` (T,) and attend to all n; the mask, (B or 1, 1, T, n), hides those that are
        padding or not written yet."""
        heads = lambda y: y.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        q = rotate(self.norm_q(heads(self.w_q(x))), cos, sin)  # (B, H, T, D)
        k = rotate(self.norm_k(heads(self.w_k(x))), cos, sin)  # (B, K, T, D)
        v = heads(self.w_v(x))  # (B, K, T, D)
        dtype = v.dtype     # under autocast not that of x
        if cache is not None:
            k, v = cache.index_copy_(3, positions, torch.stack((k, v)))  # (B, K, n, D) both
        elif x.is_cpu:      # a CPU's backward pass through bfloat16 attention can be slow
            q, k, v = q.float(), k.float(), v.float()
        # Without a mask, x is a whole text, or one new token (T = 1), which may see every key.
        is_causal = self.config.causal and mask is None and x.shape[1] > 1
        y = attend(q, k, v, mask, is_causal).to(dtype)  # (B, H, T, D)
        return self.w_o(y.transpose(1, 2).flatten(2))  # (B, T, C)


def attend(q, k, v, mask, is_causal):
    """Return softmax(q k^T / sqrt(D)) v, (B, H, T, D). Each k and v serves H / K heads of q."""
    # A GPU's fast kernel for grouped heads takes only bfloat16 without a mask.
    if q.is_cuda and k.shape[1] < q.shape[1] and (mask is not None or q.dtype != torch.bfloat16):
        if q.shape[2] == 1:     # Of one token, the H / K heads that share keys are H / K queries.
            y = attend(q.unflatten(1, (k.shape[1], -1))[..., 0, :], k, v, mask, False)
            return y.flatten(1, 2)[:, :, None]  # (B, K, H / K, D) -> (B, H, 1, D)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    with torch.autocast('cpu', enabled=False):      # float32 would become bfloat16 again
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal,
                                              enable_gqa=k.shape[1] < q.shape[1])


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), silu(z) = z sigmoid(z): the gate says how much of up passes."""
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

    def forward(self, x, *where):  # cos, sin, cache, positions, mask: see Attention
        x = x + self.dropout(self.attention(self.norm_1(x), *where))
        return x + self.dropout(self.mlp(self.norm_2(x)))


def rope_table(D, T, theta, scaling=()):
    """Return cos and sin of position * frequency, (T, D/2). The first pair turns fastest."""
    frequency = stretch(theta ** (-torch.arange(0.0, D, 2) / D), *scaling)  # (D/2,)
    angle = torch.outer(torch.arange(float(T)), frequency)  # (T, D/2)
    return angle.cos(), angle.sin()


def stretch(frequency, factor=1.0, low=None, high=None, T_old=None):
    """Slow RoPE down for a longer context. Alone, the factor divides all frequencies (2306.15595).
    Llama 3.1 divides only slow ones. With factor 8, low 1 and high 4, the frequency of a pair that
    makes 9, 2.5 or 0.5 turns in T_old tokens is multiplied by 1, by 0.5625 (halfway) or by 1/8."""
    if T_old is None:
        return frequency / factor
    turns = T_old * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)  # (D/2,): 1 is kept, 0 is divided
    return frequency * (keep + (1 - keep) / factor)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        rows = math.ceil(c.vocab_size / c.vocab_multiple) * c.vocab_multiple
        self.embedding = nn.Embedding(rows, c.n_embd)       # rows from V on belong to no token
        self.dropout = nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layer))
        self.norm = RMSNorm(c.n_embd, c.norm_eps)
        self.head = nn.Linear(c.n_embd, rows, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.embedding.weight
        # Plain tensors, because model.bfloat16() would round buffers.
        self.cos, self.sin = rope_table(c.head_dim, c.block_size, c.rope_theta, c.rope_scaling)
        self.grad_checkpoint = False    # True: backward computes the blocks again (1604.06174)
        # On a GPU, stream() captures the step that reads one token as a CUDA graph and replays it
        # (extras/models/graph.py). A replay runs no hooks and prints: False reads step by step.
        self.use_graph = True
        self.saved = {}                 # what else the file has that load() read
        # As in GPT-2. The blocks add 2 n_layer outputs of w_o and w_down to x. Variances add up, so
        # these begin smaller by the root of that number, and x is no larger in a deeper model.
        for name, p in self.named_parameters():
            if p.dim() == 2:
                n_added = 2 * c.n_layer if name.endswith(('w_o.weight', 'w_down.weight')) else 1
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(n_added))

    def backbone(self, idx, positions=None, mask=None, cache=None):
        """idx (B, T) -> hidden states (B, T, C). positions: of its tokens, None = 0 1 2 ...; (T,),
        or (B, 1, T) where rows differ. mask and cache: see Attention; cache[i] is block i's."""
        assert idx.shape[1] <= self.config.block_size, f'{idx.shape[1]} tokens exceed block_size'
        if self.cos.device != idx.device:       # model.to(device) moves no plain tensors
            self.cos, self.sin = self.cos.to(idx.device), self.sin.to(idx.device)
        at = slice(idx.shape[1]) if positions is None else positions
        cos, sin = self.cos[at], self.sin[at]  # (T, D/2), or (B, 1, T, D/2)
        x = self.dropout(self.embedding(idx))  # (B, T, C)
        for i, block in enumerate(self.blocks):
            where = cos, sin, (None if cache is None else cache[i]), positions, mask
            if self.grad_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, *where, use_reentrant=False)
            else:
                x = block(x, *where)
        return self.norm(x)  # (B, T, C)

    def forward(self, idx, targets=None, mask=None, positions=None, with_logits=True):
        """idx, targets (B, T) -> logits, float32 (B, T, V), and the loss: the mean -log p(target)
        of targets that are not IGNORE, or 0 without any. For next tokens: idx = tokens[:, :-1],
        targets = tokens[:, 1:]. With with_logits=False: None and the loss, from fewer logits.
        mask (B or 1, 1, T, T) and positions (B, T) are for other objectives than the next token
        (extras/training/objectives.py: filling gaps, documents that don't see each other)."""
        positions = None if positions is None else positions[:, None]  # (B, 1, T): for all heads
        return self.predict(self.backbone(idx, positions, mask), targets, with_logits)

    def predict(self, hidden, targets=None, with_logits=True):
        """What forward() does with the hidden states, (B, T, C) or (n, C)."""
        if not with_logits and not torch.compiler.is_compiling():  # compiled shapes are fixed
            hidden, targets = hidden[targets != IGNORE], targets[targets != IGNORE]  # (n, C), (n,)
        logits = self.head(hidden)[..., :self.config.vocab_size].float()  # (B, T, V) or (n, V)
        if targets is None:
            return logits, None
        losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction='none')
        loss = losses.sum() / (targets != IGNORE).sum().clamp(min=1)
        return (logits if with_logits else None), loss

    def empty_cache(self, B, T):
        """Return a cache for T keys and values of B sequences: (n_layer, 2, B, K, T, D)."""
        c = self.config
        # Autocast may make keys bfloat16 where weights are float32: a small product has their type.
        # Zeros, because attention also multiplies unused places, by weight 0, and 0 * NaN is NaN.
        row = self.embedding.weight[:1]
        return (row @ row.T).new_zeros(c.n_layer, 2, B, c.n_kv_head, T, c.head_dim)

    def log_p(self, idx, targets, temperature=1.0, suppress=()):
        """Return log p of the m targets that are not IGNORE, in order, (m,), at a temperature. The
        token ids in `suppress` have p = 0."""
        logits = self.predict(self.backbone(idx)[targets != IGNORE])[0] / temperature  # (m, V)
        if suppress:
            logits[:, [*suppress]] = -math.inf
        return -F.cross_entropy(logits, targets[targets != IGNORE], reduction='none')

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=(),
                 seeds=(), with_log_p=False, suppress=()):
        """idx (B, T) -> idx with up to max_new_tokens more, (B, T + n), without dropout. A sequence
        that has reached an id of `stop` repeats it. A shorter prompt begins with IGNORE (_):
            _ _ 5 6     ->    _ _ 5 6 a b
            5 6 7 8           5 6 7 8 c d
        seeds: a number or a text for each sequence. Then its tokens depend on its own seed only,
        whatever else is in the batch. with_log_p=True also returns log p of the new tokens, float32
        (B, n), at this temperature but before top_k and top_p. The token ids in `suppress` are not
        sampled."""
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
        """Yield the next token of each sequence of idx (B, T), then the one after it, ..., (B,)
        each, until all have reached an id of `stop`. sample_next(logits (b, V), rows (b,), t) ->
        (b,) samples token t of the b unfinished sequences; rows are their numbers, from 0 to B - 1.
        The caller calls eval(), and stays in one autocast until the last token. To write d and then
        e after a b c:
            idx          the blocks read    cache afterwards
            a b c        a b c              a b c
            a b c d      d                  a b c d"""
        stop, window = idx.new_tensor(stop), self.config.block_size
        rows = torch.arange(len(idx), device=idx.device)  # (b,), the sequences that are in idx
        token, is_open = rows, rows >= 0  # (B,), replaced below; (b,), the unfinished ones: all
        read = self.read
        if idx.is_cuda and self.use_graph:
            with contextlib.suppress(ModuleNotFoundError):      # slower, without extras/
                from extras.models.graph import CapturedReader
                read = CapturedReader(self).read
        # 1. Read the prompts, equal ones once: of x y x, idx becomes x y, and `which` is 0 1 0.
        idx, which = idx[:, -window:].unique(dim=0, return_inverse=True)
        cache = self.empty_cache(len(idx), min(idx.shape[1] + max_new_tokens, window))
        logits = self.read(idx, 0, cache)[which]  # (b, V)
        idx, cache = idx[which], cache[:, :, which]
        for t in range(max_new_tokens):
            # 2. Sample a token for each unfinished sequence.
            token = token.scatter(0, rows[is_open], sample_next(logits[is_open], rows[is_open], t))
            yield token
            is_open = ~torch.isin(token[rows], stop)  # (b,)
            if t + 1 == max_new_tokens or not is_open.any():
                return
            # 3. Read what was sampled. Finished sequences are removed, but not each one at once:
            # this copies the others, and a GPU has to capture its graph again.
            if is_open.float().mean() < (0.5 if idx.is_cuda else 0.8):
                idx, cache, rows = idx[is_open], cache[:, :, is_open], rows[is_open]
                is_open = is_open[is_open]
            # All of idx is cached, so only the new token is read. But a full window moves: its
            # first token is dropped, and all others move to an earlier position. Their cached keys
            # were rotated for the old positions, so none of them can be used.
            n_cached = idx.shape[1] if idx.shape[1] < window else 0
            idx = torch.cat((idx, token[rows, None]), dim=1)[:, -window:]
            logits = read(idx, n_cached, cache)

    def read(self, idx, n_cached, cache):
        """Return logits (b, V) of the token after idx (b, T), whose first n_cached are cached."""
        positions = torch.arange(n_cached, idx.shape[1], device=idx.device)
        mask = without_padding(idx, positions) if (idx == IGNORE).any() else None
        return self.read_at(idx[:, n_cached:], positions, mask, cache[..., :idx.shape[1], :])

    def read_at(self, idx, positions, mask, cache):
        """Return the same for ids idx (b, T) at positions (T,); mask and cache: see Attention."""
        return self.predict(self.backbone(idx.clamp(min=0), positions, mask, cache)[:, -1])[0]

    @classmethod
    def load(cls, path, **changes):
        """Return the GPT, in float32, of a .pt file, a run's folder (best.pt, or else last.pt) or a
        Hugging Face folder. What else the file holds is in model.saved. changes: of its config, if
        they keep the shapes of the weights: load('out/base', dropout=0.1)."""
        files = [os.path.join(path, name) for name in ('best.pt', 'last.pt')]
        path = next(filter(os.path.exists, files), path)
        try:
            if os.path.isdir(path) or str(path).endswith(('.gguf', '.safetensors')):
                from extras.models import hf_model
                saved = hf_model.read(path)
            else:       # weights_only: it runs no code; mmap: moments that nobody uses stay on disk
                saved = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
            weights, config = saved.pop('model'), GPTConfig(**saved.pop('model_config') | changes)
        except MemoryError:
            raise
        except Exception as e:
            # after the first sentence, torch advises to run the file's code
            why = (str(e) if isinstance(e, ValueError) else repr(e)).split('. ')[0]
            raise UserError(f'{path} cannot be loaded into this model.py ({why:.200})') from e
        model = cls(config)
        try:
            model.load_state_dict(weights)
        except (RuntimeError, TypeError) as e:      # or no weights at all
            raise UserError(f'{path} has other weights than this model.py: '
                            f'{" ".join(str(e).split()):.300}') from e
        model.saved = saved
        return model

    def save(self, path, **more):
        """Write a .pt file that load() reads, with more entries. A crash leaves the old file."""
        with open(f'{path}.tmp', 'wb') as f:
            torch.save({'model': self.state_dict(), 'model_config': vars(self.config), **more}, f)
            f.flush()
            os.fsync(f)                 # all of it is on the disk before it gets its name
        os.replace(f'{path}.tmp', path)


def without_padding(idx, positions):
    """Return which keys of idx (B, T) the tokens at `positions` (n,) see, bool (B, 1, n, T): none
    that is padding or comes later. In the row _ 5 6, 6 sees 5 6, and _ sees itself, because a
    softmax over nothing is not a number. That 5 is at position 1 changes nothing, because for RoPE
    only distances count."""
    key = torch.arange(idx.shape[1], device=idx.device)  # (T,)
    query = positions[:, None]  # (n, 1)
    return ((key < query) & (idx != IGNORE)[:, None] | (key == query))[:, None]


def sample(logits, temperature=1.0, top_k=None, top_p=None, u=None):
    """Sample a token for each row of logits (B, V) -> (B,). Temperature 0 takes the largest. top_k
    keeps the k most probable, top_p the fewest that add up to top_p (arXiv:1904.09751). u (B,),
    from 0 to 1, are the random numbers: with p = 0.5 0.2 0.3, u = 0.6 gives id 1."""
    if temperature < 1e-6:      # the largest has all of the probability
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p and top_p < 1:
        p, order = logits.softmax(-1).sort(descending=True)  # (B, V) both
        # The sums before each of 0.5 0.3 0.2 are 0 0.5 0.8: with top_p = 0.7 the third goes.
        is_rest = p.cumsum(dim=-1) - p >= top_p
        logits = logits.masked_fill(is_rest.scatter(1, order, is_rest), -math.inf)
    if u is None:
        return torch.multinomial(logits.softmax(-1), 1)[:, 0]  # (B,)
    sums = logits.softmax(-1).cumsum(dim=-1)  # (B, V); NaN would draw an id behind the last one
    return torch.searchsorted(sums, u[:, None] * sums[:, -1:])[:, 0].clamp(max=len(logits[0]) - 1)


if __name__ == '__main__':
    torch.manual_seed(0)
    # The smallest of four sizes, with which docs/exercises.md teaches to count parameters. The
    # others are config/mini.py, midi.py and mega.py, for train.py --plan.
    nano = GPT(GPTConfig(256, 512, 6, 8, 0, 256, 768))
    for part in nano, nano.blocks[0]:
        print(f'{type(part).__name__}: {sum(p.numel() for p in part.parameters()):,} parameters')

    model = GPT(GPTConfig(256, 64, 2, 4, 2, 128))
    # 16 different tokens in random order: one token does not tell the next one, several do.
    idx = torch.randint(16, (4, 33))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(101):
        loss = model(idx[:, :-1], idx[:, 1:])[1]
        if step % 100 == 0:
            print(f'step {step}: loss {loss:.4f} (an untrained model: near ln 256 = 5.545)')
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss < 0.5, 'it does not learn: look at your last change'
    assert model.generate(idx[:, :8], 25, temperature=0).equal(idx), 'wrong text: look at the cache'
    print('it learned four texts by heart, and generates them token by token, with the cache')
