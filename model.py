"""
The model: a decoder-only transformer in the LLaMA style, its generation and its checkpoints.

    python model.py                         # self-test, and the parameter counts of a ladder of sizes
    python model.py config/codeparrot.py    # the plan for a config: parameters, FLOPs, tokens, memory, days

    embedding -> n_layer x [ x += attention(norm(x));  x += swiglu(norm(x)) ] -> norm -> output projection

What has replaced the block of 2017: RMSNorm before each sublayer (arXiv:1910.07467), rotary positions (RoPE,
2104.09864), grouped key/value heads (GQA, 2305.13245), SwiGLU (2002.05202), no biases, an output projection
tied to the embedding (1608.05859). Tensor layouts are those of Hugging Face's Llama, so that import and
export only rename.

Shapes: B batch, T time, C = n_embd, H query heads, K key/value heads, D = C / H head width, V vocabulary.

Copy this file alone: it needs torch, and safetensors only for Hugging Face folders.
"""
import dataclasses, json, math, os, sys
import torch
import torch.nn as nn
import torch.nn.functional as F

IGNORE = -100       # a target that is not scored: prompts in SFT, padding


@dataclasses.dataclass
class GPTConfig:
    vocab_size: int = 32768
    block_size: int = 1024          # longest context, tokens
    n_layer: int = 12
    n_head: int = 12                # query heads
    n_kv_head: int = 0          # key/value heads, a divisor of n_head; 0 = n_head: plain multi-head
    n_embd: int = 768
    n_ffn: int = 0       # width of SwiGLU; 0 = 8/3 n_embd, rounded to 64: as large as a 4x GELU MLP
    dropout: float = 0.0
    rope_theta: float = 10000.0     # wavelengths run from 2 pi to 2 pi theta; raise it for longer contexts
    norm_eps: float = 1e-6
    tie_embeddings: bool = True

    def __post_init__(self):
        self.n_kv_head = self.n_kv_head or self.n_head
        self.n_ffn = self.n_ffn or max(1, round(self.n_embd * 8 / 3 / 64)) * 64
        for name in ('vocab_size', 'block_size', 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn'):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name}={value!r} must be a whole number, at least 1')
        if self.n_embd % self.n_head:
            raise ValueError(f'n_embd={self.n_embd} must be a multiple of n_head={self.n_head}; nearest: '
                             f'{max(1, round(self.n_embd / self.n_head)) * self.n_head}')
        if self.n_embd // self.n_head % 2:
            raise ValueError(f'the head width n_embd/n_head = {self.n_embd // self.n_head} must be even: '
                             'RoPE turns pairs')
        if self.n_head % self.n_kv_head:
            raise ValueError(f'n_head={self.n_head} must be a multiple of n_kv_head={self.n_kv_head}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout={self.dropout} must be in [0, 1)')


class RMSNorm(nn.Module):
    """w * x / sqrt(mean(x^2) + eps), in float32 whatever autocast does."""

    def __init__(self, C, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).type_as(x)


def rope_table(D, T, theta):
    """cos and sin of position * frequency, float32. -> two (T, D/2)"""
    frequency = theta ** (-torch.arange(0, D, 2, dtype=torch.float32) / D)          # (D/2,)
    angle = torch.outer(torch.arange(T, dtype=torch.float32), frequency)            # (T, D/2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """RoPE: turn the pair (x_i, x_{i + D/2}) by the position's angle, so that q . k depends on the distance
    alone. Pairing i with its neighbour instead of i + D/2 is the other convention: weights do not carry over
    silently."""
    a, b = x.float().chunk(2, dim=-1)                                               # (B, H, T, D/2) each
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x)     # (B, H, T, D)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.H, self.K, self.D, self.dropout = c.n_head, c.n_kv_head, c.n_embd // c.n_head, c.dropout
        self.w_q = nn.Linear(c.n_embd, self.H * self.D, bias=False)
        self.w_k = nn.Linear(c.n_embd, self.K * self.D, bias=False)
        self.w_v = nn.Linear(c.n_embd, self.K * self.D, bias=False)
        self.w_o = nn.Linear(self.H * self.D, c.n_embd, bias=False)

    def forward(self, x, cos, sin, cache=None, start=0):
        """x (B, T, C) at positions start..start+T. cache: this layer's k and v, (B, K, block_size, D)."""
        B, T, C = x.shape
        q = self.w_q(x).view(B, T, self.H, self.D).transpose(1, 2)                  # (B, H, T, D)
        k = self.w_k(x).view(B, T, self.K, self.D).transpose(1, 2)                  # (B, K, T, D)
        v = self.w_v(x).view(B, T, self.K, self.D).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            for stored, new in zip(cache, (k, v)):
                stored[:, :, start:start + T] = new
            k, v = cache[0][:, :, :start + T], cache[1][:, :, :start + T]           # (B, K, start + T, D)
        # is_causal: query i sees keys 0..i; with `start` keys cached, `start` more; one alone sees all.
        mask = None
        if start > 0 and T > 1:
            mask = torch.ones(T, start + T, dtype=torch.bool, device=x.device).tril(start)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=start == 0, enable_gqa=self.K < self.H,
                                           dropout_p=self.dropout if self.training else 0.0)
        return self.w_o(y.transpose(1, 2).reshape(B, T, C))


class SwiGLU(nn.Module):
    """w_down(silu(w_gate x) * w_up x)"""

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
        self.norm_1, self.attention = RMSNorm(c.n_embd, c.norm_eps), Attention(c)
        self.norm_2, self.mlp = RMSNorm(c.n_embd, c.norm_eps), SwiGLU(c)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x, cos, sin, cache=None, start=0):
        x = x + self.dropout(self.attention(self.norm_1(x), cos, sin, cache, start))
        return x + self.dropout(self.mlp(self.norm_2(x)))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embd, config.norm_eps)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        # plain attributes: not in checkpoints, as the config says it all; float32 even after model.bfloat16()
        self.cos, self.sin = rope_table(config.n_embd // config.n_head, config.block_size, config.rope_theta)
        # GPT-2's initialisation: 0.02, and less for what writes into the residual stream, which 2 n_layer
        # terms add up in
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(('w_o.weight', 'w_down.weight'))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * config.n_layer) if residual else 0.02)

    def backbone(self, idx, cache=None, start=0):
        """Token ids (B, T) at positions start..start+T -> final hidden states (B, T, C)."""
        T = idx.shape[1]
        if start + T > self.config.block_size:
            raise ValueError(f'{start + T} tokens do not fit the context of '
                             f'block_size={self.config.block_size}')
        if self.cos.device != idx.device:
            self.cos, self.sin = self.cos.to(idx.device), self.sin.to(idx.device)
        cos, sin = self.cos[start:start + T], self.sin[start:start + T]             # (T, D/2)
        x = self.dropout(self.embedding(idx))                                       # (B, T, C)
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, cache[i] if cache else None, start)
        return self.norm(x)

    def forward(self, idx, targets=None):
        """idx (B, T) -> logits (B, T, V) in float32, loss. The loss is the mean of -log p(target), in nats,
        over the targets that are not IGNORE (0 if there are none), or None without targets. Position t is
        scored against targets[:, t], so the caller shifts: x = tokens[:-1], y = tokens[1:]."""
        logits = self.head(self.backbone(idx)).float()                              # (B, T, V)
        if targets is None:
            return logits, None
        total = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=IGNORE,
                                reduction='sum')
        return logits, total / (targets != IGNORE).sum().clamp(min=1)

    # --- generation

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=()):
        """Yield the next token of each row, (B,) at a time, until max_new_tokens or until every row has met
        an id of `stop` (a row that has keeps repeating it).

        Each token is conditioned on the last block_size tokens, exactly as if the model were run afresh on
        them. Within the context, the keys and values of earlier tokens are cached, so a step costs one
        position. Past it they are of no use: the window moves, every position changes and with it, from layer
        2 on, every key; so it is run afresh."""
        c, B, T = self.config, *idx.shape
        if T == 0:
            raise ValueError('the prompt is empty; begin with a token, for instance <|endoftext|>')
        if not (temperature >= 0 and (top_k or 0) >= 0 and max_new_tokens >= 0):
            raise ValueError(f'temperature={temperature}, top_k={top_k} and max_new_tokens={max_new_tokens} '
                             'must be >= 0')
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f'top_p={top_p} must be in (0, 1]; 1 = off')
        was_training = self.training
        self.eval()
        try:
            length = min(T + max_new_tokens, c.block_size)
            shape = (B, c.n_kv_head, length, c.n_embd // c.n_head)
            dtype = torch.get_autocast_dtype(idx.device.type) if torch.is_autocast_enabled(idx.device.type) \
                else self.embedding.weight.dtype
            cache = [[torch.empty(shape, dtype=dtype, device=idx.device) for _ in 'kv'] for _ in self.blocks]
            stop = torch.tensor(list(stop), dtype=torch.long, device=idx.device)
            done = torch.zeros(B, dtype=torch.bool, device=idx.device)
            cached = 0
            for _ in range(max_new_tokens):
                if idx.shape[1] > c.block_size:
                    idx = idx[:, -c.block_size:]
                    cached = 0
                x = self.backbone(idx[:, cached:], cache, cached)[:, -1]            # (B, C)
                cached = idx.shape[1]
                token = sample(self.head(x).float(), temperature, top_k, top_p)     # (B,)
                token = torch.where(done, idx[:, -1], token)
                yield token
                done |= torch.isin(token, stop)
                if done.all():
                    break
                idx = torch.cat((idx, token[:, None]), dim=1)                       # (B, T + 1)
        finally:
            self.train(was_training)

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=()):
        """idx (B, T) -> idx with up to max_new_tokens more, (B, T + n). See stream()."""
        new = list(self.stream(idx, max_new_tokens, temperature, top_k, top_p, stop))
        return torch.cat((idx, torch.stack(new, dim=1)), dim=1) if new else idx

    # --- optimizer

    def parameter_groups(self, weight_decay):
        """Decay the matrices; leave the gains of the norms alone, which decay would pull away from 1."""
        return [{'params': [p for p in self.parameters() if p.dim() >= 2], 'weight_decay': weight_decay},
                {'params': [p for p in self.parameters() if p.dim() < 2], 'weight_decay': 0.0}]

    # --- Hugging Face

    @classmethod
    def from_hf(cls, folder):
        """A Llama checkpoint in a Hugging Face folder (config.json, *.safetensors) -> GPT in float32."""
        safetensors = import_safetensors()
        reading = os.path.join(folder, 'config.json')
        try:
            with open(reading, encoding='utf-8') as f:
                hf = json.load(f)
            rope = {**(hf.get('rope_scaling') or {}), **(hf.get('rope_parameters') or {})}  # version 4, 5
            supported = {'model_type': 'llama', 'hidden_act': 'silu', 'rope_type': 'default',
                         'attention_bias': False, 'mlp_bias': False,
                         'head_dim': hf['hidden_size'] // hf['num_attention_heads']}
            found = {'rope_type': rope.get('type'), **hf, **rope}           # `type` was its name once
            for key, value in supported.items():
                if found.get(key) not in (value, None):
                    raise ValueError(f'{key}={found[key]!r} is not supported, only {value!r}')
            model = cls(GPTConfig(
                vocab_size=hf['vocab_size'], block_size=hf['max_position_embeddings'],
                n_layer=hf['num_hidden_layers'], n_head=hf['num_attention_heads'],
                n_kv_head=hf.get('num_key_value_heads') or 0, n_embd=hf['hidden_size'],
                n_ffn=hf['intermediate_size'], norm_eps=hf['rms_norm_eps'],
                rope_theta=float(rope.get('rope_theta') or hf.get('rope_theta') or 10000.0),
                tie_embeddings=hf.get('tie_word_embeddings', False)))
            tensors = {}
            for name in sorted(os.listdir(folder)):
                if name.endswith('.safetensors'):
                    reading = os.path.join(folder, name)
                    tensors |= safetensors.load_file(reading)
            state = model.state_dict()
            for ours, theirs in model.hf_names().items():
                found = list(tensors[theirs].shape) if theirs in tensors else 'not there'
                if found != list(state[ours].shape):
                    raise ValueError(f'tensor {theirs} is {found}, expected {list(state[ours].shape)}')
                state[ours].copy_(tensors[theirs])
        except FileNotFoundError:
            raise
        except Exception as e:          # broken JSON, a missing key, a cut-off file, ...
            raise ValueError(f'{reading} cannot be read as a Llama model: {type(e).__name__}: {e}') from e
        return model

    def save_hf(self, folder):
        """Write config.json and model.safetensors, as LlamaForCausalLM of transformers reads them."""
        safetensors, c = import_safetensors(), self.config
        os.makedirs(folder, exist_ok=True)
        state = self.state_dict()
        tensors = {name: state[k].contiguous() for k, name in self.hf_names().items()}
        safetensors.save_file(tensors, os.path.join(folder, 'model.safetensors'), metadata={'format': 'pt'})
        hf = {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'vocab_size': c.vocab_size,
              'max_position_embeddings': c.block_size, 'num_hidden_layers': c.n_layer,
              'num_attention_heads': c.n_head, 'num_key_value_heads': c.n_kv_head,
              'head_dim': c.n_embd // c.n_head, 'hidden_size': c.n_embd, 'intermediate_size': c.n_ffn,
              'rope_theta': c.rope_theta,                                                   # transformers 4
              'rope_parameters': {'rope_type': 'default', 'rope_theta': c.rope_theta},      # transformers 5
              'rms_norm_eps': c.norm_eps, 'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False,
              'tie_word_embeddings': c.tie_embeddings, 'bos_token_id': None, 'eos_token_id': None,
              'dtype': str(self.embedding.weight.dtype).removeprefix('torch.')}
        with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump(hf, f, indent=2)

    def hf_names(self):
        """{our name: Hugging Face's name} of every tensor that a checkpoint holds."""
        rename = {'norm_1': 'input_layernorm', 'norm_2': 'post_attention_layernorm',
                  'attention.w_q': 'self_attn.q_proj', 'attention.w_k': 'self_attn.k_proj',
                  'attention.w_v': 'self_attn.v_proj', 'attention.w_o': 'self_attn.o_proj',
                  'mlp.w_gate': 'mlp.gate_proj', 'mlp.w_up': 'mlp.up_proj', 'mlp.w_down': 'mlp.down_proj'}
        names = {'embedding.weight': 'model.embed_tokens.weight', 'norm.weight': 'model.norm.weight'}
        if not self.config.tie_embeddings:
            names['head.weight'] = 'lm_head.weight'
        for i in range(self.config.n_layer):
            names |= {f'blocks.{i}.{a}.weight': f'model.layers.{i}.{b}.weight' for a, b in rename.items()}
        return names


def sample(logits, temperature=1.0, top_k=None, top_p=None):
    """logits (B, V) -> token ids (B,). Temperature 0 takes the largest. top_k keeps the k most probable
    tokens; top_p then keeps the fewest of them whose probability reaches p (nucleus sampling,
    arXiv:1904.09751)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k and top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[:, -1:]                             # (B, 1)
        logits = logits.masked_fill(logits < kth, -math.inf)
    if top_p is not None and top_p < 1:
        p, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)             # (B, V) both
        drop = p.cumsum(dim=-1) - p >= top_p                 # what comes before it is enough; never the first
        logits = logits.masked_fill(drop.scatter(1, order, drop), -math.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1)[:, 0]


def import_safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError('Hugging Face folders need the package safetensors: pip install '
                         'safetensors') from None
    return safetensors.torch


# ------------------------------------------------------------------------------------------------------------
# Checkpoints: one file of tensors, numbers, strings, lists and dicts, so that it loads with weights_only=True

def save_checkpoint(path, model, **extra):
    """Write the model, its config and extra to path. Written beside it, flushed to the disk, then renamed: a
    crash or a full disk leaves the old file whole. The names are those of the bare GPT, wrapped or not."""
    for wrapper in ('module', '_orig_mod'):             # of DDP, of torch.compile
        model = getattr(model, wrapper, model)
    state = {'format': 'nanoparrot-checkpoint-1', 'model_config': dataclasses.asdict(model.config),
             'model': model.state_dict(), **extra}
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(f'{path}.tmp', path)
    except (OSError, RuntimeError) as e:                # torch wraps a failed write in a RuntimeError
        if os.path.exists(f'{path}.tmp'):
            os.remove(f'{path}.tmp')
        raise OSError(f'cannot write {path} ({e}); what was there before is unchanged') from e


def load_checkpoint(path, device='cpu'):
    """A .pt file, a folder with best.pt or last.pt, or a Hugging Face folder -> GPT on device, the rest."""
    if os.path.isdir(path):
        found = [name for name in ('best.pt', 'last.pt') if os.path.exists(os.path.join(path, name))]
        if not found and any(name.endswith('.safetensors') for name in os.listdir(path)):
            return GPT.from_hf(path).to(device), {}
        if not found:
            raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; train there first: '
                                    f'python train.py --out_dir={path}')
        path = os.path.join(path, found[0])
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; expected a checkpoint file or the out_dir of a run')
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        model = GPT(GPTConfig(**checkpoint.pop('model_config'))).to(device)
        model.load_state_dict(checkpoint.pop('model'))
    except Exception as e:                          # torch raises many kinds for a damaged or foreign file
        reason = (str(e).strip().splitlines() or [''])[0]
        raise ValueError(f'{path} is no readable checkpoint of ours ({type(e).__name__}: {reason}); if it '
                         'was cut off, use another or train again') from e
    return model, checkpoint


# ------------------------------------------------------------------------------------------------------------
# Self-test, parameter counts, plan

def count_parameters(config):
    """{part: parameters}, without allocating them."""
    with torch.device('meta'):
        model = GPT(config)
    count = lambda module: sum(p.numel() for p in module.parameters())
    return {'total': count(model), 'embedding': count(model.embedding), 'blocks': count(model.blocks),
            'per block': count(model.blocks[0]), 'final norm': count(model.norm),
            'output': 0 if config.tie_embeddings else count(model.head)}


def flops_per_token(config):
    """Forward and backward: 6 per parameter, and 12 n_layer n_embd block_size for attention's scores and sums
    (PaLM, arXiv:2204.02311, appendix B; causality, which could halve that part, is not deducted)."""
    return 6 * count_parameters(config)['total'] + 12 * config.n_layer * config.n_embd * config.block_size


LADDER = [      # name, what the lesson that it comes from says it has, config
    ('nano', '11,234,816', GPTConfig(256, 512, 6, 8, 0, 256, 768)),
    ('mini', '50M', GPTConfig(256, 512, 8, 8, 0, 512, 1536)),
    ('midi', '200M', GPTConfig(256, 512, 12, 12, 0, 768, 2304)),
    ('mega', '1.1B', GPTConfig(256, 512, 22, 32, 0, 2048, 5632)),
    ('codeparrot_small', '111M', GPTConfig(32768, 1024, 12, 12, 0, 768)),
    ('codeparrot', '1.5B', GPTConfig(32768, 1024, 48, 25, 0, 1600))]


def self_test():
    print(f'{"":<18}{"total":>15}{"embedding":>13}{"blocks":>15}{"per block":>13}{"norm":>7}   the source '
          'says')
    for name, claim, config in LADDER:
        n = count_parameters(config)
        print(f'{name:<18}{n["total"]:>15,}{n["embedding"]:>13,}{n["blocks"]:>15,}{n["per block"]:>13,}'
              f'{n["final norm"]:>7,}   {claim}')
    print('The output projection is the embedding (tied), so it adds nothing. The first four sources count '
          'too many; the last')
    print('two meant GPT-2 blocks of the same width, depth, context and vocabulary.\n')

    torch.manual_seed(0)
    model = GPT(LADDER[0][2])
    idx = torch.randint(256, (4, 65))
    logits, loss = model(idx[:, :-1], idx[:, 1:])
    print(f'nano: forward {tuple(idx[:, :-1].shape)} -> {tuple(logits.shape)}, loss {loss:.4f}; ln V = '
          f'{math.log(256):.4f}')
    out = model.generate(idx[:1, :10], 20)
    print(f'nano: generate {tuple(idx[:1, :10].shape)} -> {tuple(out.shape)}')
    assert logits.shape == (4, 64, 256) and abs(loss.item() - math.log(256)) < 0.1 and out.shape == (1, 30)


def plan(path):
    """What a config file of train.py asks for."""
    scope = {}
    try:
        with open(path, encoding='utf-8') as f:
            exec(compile(f.read(), path, 'exec'), scope)
    except (SyntaxError, NameError, TypeError, ArithmeticError) as e:
        raise ValueError(f'{path}: {type(e).__name__}: {e}') from e
    if not scope.get('vocab_size'):
        scope['vocab_size'] = GPTConfig.vocab_size
        print(f'vocab_size comes with the data; here it is taken as {GPTConfig.vocab_size:,}')
    c = GPTConfig(**{f.name: scope[f.name] for f in dataclasses.fields(GPTConfig) if f.name in scope})
    count, flops = count_parameters(c), flops_per_token(c)
    n, tokens = count['total'], scope.get('batch_size', 0) * c.block_size * scope.get('max_steps', 0)
    print(f'{path}: {c}')
    for part, value in count.items():
        print(f'  {part:<12} {value:>15,} parameters')
    print(f'  {6 * n:,} + {flops - 6 * n:,} = {flops:,} FLOPs per token, forward and backward')
    print(f'  {16 * n / 1e9:.2f} GB of weights, gradients and Adam moments in float32, 16 bytes a parameter')
    print(f'  {20 * n / 1e9:.2f}B tokens would be compute-optimal: 20 a parameter (Chinchilla, 2203.15556)')
    print(f'  {tokens / 1e9:.3f}B tokens planned, {tokens / n:.1f} a parameter: {flops * tokens:.2e} FLOPs')
    for device, peak in (('two CPU cores', 2e11), ('one A100', 312e12), ('eight A100', 8 * 312e12)):
        hours = flops * tokens / (0.4 * peak) / 3600
        how_long = f'{hours / 24:,.1f} days' if hours > 48 else f'{hours:,.2f} hours'
        print(f'    {how_long} on {device}, at 40 % of {peak / 1e12:g} TFLOP/s')


if __name__ == '__main__':
    if '--help' in sys.argv or '-h' in sys.argv:
        sys.exit(print(__doc__))
    try:
        plan(sys.argv[1]) if len(sys.argv) > 1 else self_test()
    except (OSError, ValueError) as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)
