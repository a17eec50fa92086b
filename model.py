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
import argparse, dataclasses, itertools, json, math, os, sys
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint

IGNORE = -100       # a target that is not scored: prompts in SFT, padding
LLAMA_3 = 'factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'   # rope_scaling


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
    rope_scaling: tuple = ()        # of Llama 3.1: see rope_table
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    causal: bool = True             # False: every token sees every other, for masked language modelling

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


def rope_table(D, T, theta, scaling=()):
    """cos and sin of position * frequency, float32. -> two (T, D/2). scaling, (factor, low, high, T_old), for
    a model first trained on T_old tokens (Llama 3.1): a frequency that turns fewer than `low` times in T_old
    is divided by factor, one that turns more than `high` times stays, what is between is interpolated."""
    frequency = theta ** (-torch.arange(0, D, 2, dtype=torch.float32) / D)          # (D/2,)
    if scaling:
        factor, low, high, T_old = scaling
        keep = ((T_old * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (keep + (1 - keep) / factor)
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
        self.causal = c.causal

    def forward(self, x, cos, sin, cache=None, start=0, mask=None):
        """x (B, T, C) at positions start..start+T. cache: this layer's k and v, (B, K, block_size, D). mask,
        bool (B or 1, 1, T, T): which keys a query sees, instead of the earlier ones."""
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
        if start > 0 and T > 1:
            mask = torch.ones(T, start + T, dtype=torch.bool, device=x.device).tril(start)
        is_causal = self.causal and mask is None and start == 0
        # on CPUs attention in bfloat16 gains nothing, and its backward pass takes 5 times as long at T = 64
        if x.device.type == 'cpu':
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast('cpu', enabled=False):
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, enable_gqa=self.K < self.H,
                                               dropout_p=self.dropout if self.training else 0.0)
        return self.w_o(y.transpose(1, 2).reshape(B, T, C).to(x.dtype))


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

    def forward(self, x, cos, sin, cache=None, start=0, mask=None):
        x = x + self.dropout(self.attention(self.norm_1(x), cos, sin, cache, start, mask))
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
        self.cos, self.sin = rope_table(config.n_embd // config.n_head, config.block_size, config.rope_theta,
                                        config.rope_scaling)
        self.grad_checkpoint = False        # True: keep each block's input only, compute the rest again
        self.label_smoothing = self.focal = 0.0     # of the training loss; validation is always -log p
        # GPT-2's initialisation: 0.02, and less for what writes into the residual stream, which 2 n_layer
        # terms add up in
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(('w_o.weight', 'w_down.weight'))
                nn.init.normal_(p, 0.0, 0.02 / math.sqrt(2 * config.n_layer) if residual else 0.02)

    def backbone(self, idx, cache=None, start=0, mask=None, positions=None):
        """Token ids (B, T) at positions start..start+T, or at `positions` (B, T) -> final hidden states
        (B, T, C). mask: see Attention."""
        T = idx.shape[1]
        if start + T > self.config.block_size:
            raise ValueError(f'{start + T} tokens do not fit the context of '
                             f'block_size={self.config.block_size}')
        if self.cos.device != idx.device:
            self.cos, self.sin = self.cos.to(idx.device), self.sin.to(idx.device)
        cos, sin = self.cos[start:start + T], self.sin[start:start + T]             # (T, D/2)
        if positions is not None:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]   # (B, 1, T, D/2)
        x = self.dropout(self.embedding(idx))                                       # (B, T, C)
        for i, block in enumerate(self.blocks):
            if self.grad_checkpoint and self.training:      # Chen et al. 2016, arXiv:1604.06174
                x = torch.utils.checkpoint.checkpoint(block, x, cos, sin, None, 0, mask, use_reentrant=False)
            else:
                x = block(x, cos, sin, cache[i] if cache else None, start, mask)
        return self.norm(x)

    def forward(self, idx, targets=None, mask=None, positions=None):
        """idx (B, T) -> logits (B, T, V) in float32, loss. The loss is the mean of -log p(target), in nats,
        over the targets that are not IGNORE (0 if there are none), or None without targets. Position t is
        scored against targets[:, t], so the caller shifts: x = tokens[:-1], y = tokens[1:]. mask and
        positions: see backbone."""
        logits = self.head(self.backbone(idx, mask=mask, positions=positions)).float()      # (B, T, V)
        if targets is None:
            return logits, None
        logits_2d, targets_1d = logits.view(-1, logits.shape[-1]), targets.reshape(-1)
        losses = F.cross_entropy(logits_2d, targets_1d, ignore_index=IGNORE, reduction='none',
                                 label_smoothing=self.label_smoothing if self.training else 0.0)
        if self.focal and self.training:        # (1 - p)^focal: what is known counts less (arXiv:1708.02002)
            p = logits_2d.softmax(-1).gather(1, targets_1d.clamp(min=0)[:, None])[:, 0]
            losses = losses * (1 - p) ** self.focal
        return logits, losses.sum() / (targets != IGNORE).sum().clamp(min=1)

    # --- generation

    @torch.no_grad()
    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, stop=(), first=None,
               given=()):
        """Yield the next token of each row, (B,) at a time, until max_new_tokens or until every row has met
        an id of `stop` (a row that has keeps repeating it). first: bool (V,) or (B, V), what the first of
        the new tokens may be (see Tokenizer.heal). given: B lists of ids that the rows go on with before it
        is the model's turn; they count as new. So prompts of several lengths share a batch without padding:
        idx is as long as the shortest, `given` is the rest of the others.

        Each token is conditioned on the last block_size tokens, exactly as if the model were run afresh on
        them. Within the context, the keys and values of earlier tokens are cached, so a step costs one
        position. Past it they are of no use: the window moves, every position changes and with it, from layer
        2 on, every key; so it is run afresh."""
        c, B, T = self.config, *idx.shape
        if not c.causal:
            raise ValueError('this model was trained to name masked tokens (causal=False): it cannot go on '
                             'with a text; train one with --objective=clm')
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
            n_given = torch.tensor([len(ids) for ids in given] or [0] * B, device=idx.device)
            ahead = torch.tensor([*itertools.zip_longest(*given, fillvalue=0)], dtype=torch.long,
                                 device=idx.device)                                 # (n, B)
            cached = 0
            for i in range(max_new_tokens):
                if idx.shape[1] > c.block_size:
                    idx = idx[:, -c.block_size:]
                    cached = 0
                x = self.backbone(idx[:, cached:], cache, cached)[:, -1]            # (B, C)
                cached = idx.shape[1]
                logits = self.head(x).float()                                       # (B, V)
                if first is not None and i <= len(ahead):
                    logits = logits.masked_fill(~first & (n_given == i)[:, None], -math.inf)
                token = sample(logits, temperature, top_k, top_p)                   # (B,)
                token = torch.where(done, idx[:, -1], token)
                if i < len(ahead):
                    token = torch.where(i < n_given, ahead[i], token)
                yield token
                done |= torch.isin(token, stop) & (i >= n_given)
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
            found = {'rope_type': rope.get('type'), **hf, **rope}           # `type` was its name once
            scaled = found['rope_type'] == 'llama3'
            supported = {'model_type': 'llama', 'hidden_act': 'silu', 'attention_bias': False,
                         'mlp_bias': False, 'rope_type': 'llama3' if scaled else 'default',
                         'head_dim': hf['hidden_size'] // hf['num_attention_heads']}
            for key, value in supported.items():
                if found.get(key) not in (value, None):
                    raise ValueError(f'{key}={found[key]!r} is not supported, only {value!r}')
            model = cls(GPTConfig(
                vocab_size=hf['vocab_size'], block_size=hf['max_position_embeddings'],
                n_layer=hf['num_hidden_layers'], n_head=hf['num_attention_heads'],
                n_kv_head=hf.get('num_key_value_heads') or 0, n_embd=hf['hidden_size'],
                n_ffn=hf['intermediate_size'], norm_eps=hf['rms_norm_eps'],
                rope_theta=float(rope.get('rope_theta') or hf.get('rope_theta') or 10000.0),
                rope_scaling=tuple(float(rope[key]) for key in LLAMA_3) if scaled else (),
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
        if not c.causal:
            raise ValueError('a masked language model (causal=False) is no Llama: it cannot be exported')
        os.makedirs(folder, exist_ok=True)
        state = self.state_dict()
        tensors = {name: state[k].contiguous() for k, name in self.hf_names().items()}
        safetensors.save_file(tensors, os.path.join(folder, 'model.safetensors'), metadata={'format': 'pt'})
        rope = {'rope_type': 'llama3' if c.rope_scaling else 'default', **dict(zip(LLAMA_3, c.rope_scaling))}
        hf = {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'vocab_size': c.vocab_size,
              'max_position_embeddings': c.block_size, 'num_hidden_layers': c.n_layer,
              'num_attention_heads': c.n_head, 'num_key_value_heads': c.n_kv_head,
              'head_dim': c.n_embd // c.n_head, 'hidden_size': c.n_embd, 'intermediate_size': c.n_ffn,
              # where transformers 4 and where 5 looks for them
              'rope_theta': c.rope_theta, 'rope_scaling': rope if c.rope_scaling else None,
              'rope_parameters': {**rope, 'rope_theta': c.rope_theta},
              'rms_norm_eps': c.norm_eps, 'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False,
              'tie_word_embeddings': c.tie_embeddings, 'bos_token_id': None, 'eos_token_id': None,
              'dtype': str(self.embedding.weight.dtype).removeprefix('torch.')}
        with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump(hf, f, indent=2)

    def grown(self, vocab_size):
        """A copy with rows for tokens that the vocabulary did not have: the mean of the others, near what
        they will have to be. This model, if it has as many."""
        if vocab_size <= self.config.vocab_size:
            return self
        model = GPT(dataclasses.replace(self.config, vocab_size=vocab_size)).to(self.embedding.weight.device)
        state = self.state_dict()
        for name in ('embedding.weight', 'head.weight'):
            rows = state[name]
            state[name] = torch.cat([rows, rows.mean(0).expand(vocab_size - len(rows), -1)])
        model.load_state_dict(state)
        return model

    def like(self, **changes):
        """A model with the same weights and a changed config."""
        model = GPT(dataclasses.replace(self.config, **changes)).to(self.embedding.weight.device)
        model.load_state_dict(self.state_dict())
        return model

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
    # where a random share of the total is reached: a tenth of torch.multinomial's time on a CPU
    wide = torch.float32 if logits.device.type == 'mps' else torch.float64
    cdf = logits.softmax(dim=-1).cumsum(dim=-1, dtype=wide)                         # (B, V)
    u = torch.rand(len(cdf), 1, dtype=wide, device=cdf.device) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True)[:, 0].clamp(max=cdf.shape[1] - 1)


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
    """{part: parameters}, without allocating them; of the blocks, all alike, one is made."""
    with torch.device('meta'):
        model = GPT(dataclasses.replace(config, n_layer=1))
    count = lambda module: sum(p.numel() for p in module.parameters())
    block = count(model.blocks)
    return {'total': count(model) + (config.n_layer - 1) * block, 'embedding': count(model.embedding),
            'blocks': config.n_layer * block, 'per block': block, 'final norm': count(model.norm),
            'output': 0 if config.tie_embeddings else count(model.head)}


def flops_per_token(config):
    """Forward and backward: 6 per parameter, and 12 n_layer n_embd block_size for attention's scores and sums
    (PaLM, arXiv:2204.02311, appendix B; causality, which could halve that part, is not deducted)."""
    return 6 * count_parameters(config)['total'] + 12 * config.n_layer * config.n_embd * config.block_size


def activation_bytes(config, batch, dtype=torch.bfloat16, checkpoint=False, device='cuda'):
    """Bytes that autograd keeps for the backward pass of `batch` sequences of block_size tokens, beside the
    parameters and their copies in dtype, the type of matrix products. checkpoint: of each block its input;
    the rest for one block at a time, when the output layer's is gone. Counted from the forward above, eager
    (compiled, it keeps less), without dropout's masks. No T^2: attention computes its scores again."""
    c, a, C, kv = config, dtype.itemsize, config.n_embd, config.n_kv_head * config.n_embd // config.n_head
    wide = 4 if device == 'cpu' else a              # attention's own
    casts = 2 if dtype == torch.float32 else 5      # the norms' outputs: autocast copies one for each Linear
    x, norm = 4 * C, 4 * (C + 1)                    # the residual stream; x / rms and 1 / rms: float32
    inside = norm + 4 * c.n_head + x + norm \
        + wide * (C + 2 * kv + C) + a * (casts * C + C + 4 * c.n_ffn)   # q, k, v, heads; casts, joined, MLP
    output = x + norm + a * C + 4 * c.vocab_size + 16               # log p in float32; ids and targets
    kept = max(inside, output) if checkpoint else c.n_layer * inside + output
    return batch * c.block_size * (c.n_layer * x + kept)


def state_bytes(n_params, n_devices, stage, mixed=True):
    """Bytes of weights, gradients and Adam's moments on each device: 16 a parameter, in bfloat16 with float32
    master weights (mixed: 2 + 2 + 4 + 8) as in float32 under autocast (4 + 4 + 8: ours). Stage 0 is DDP; ZeRO
    (arXiv:1910.02054, figure 1) shares out what the optimizer holds from 1, gradients from 2, weights in 3,
    as FSDP does. 70B parameters: 1,120 GB, 140 of them weights; 7B on 8 devices in stage 2: 26.25 GB."""
    parts = (12, 2, 2) if mixed else (8, 4, 4)                      # optimizer, gradients, weights
    return sum(width * n_params / (n_devices if stage > i else 1) for i, width in enumerate(parts))


def device_bytes(config, n_devices, stage, batch, dtype=torch.bfloat16, checkpoint=False):
    """The peak: state, activations, autocast's copies of weights, gradients of logits and log p; in stage 3
    also the weights and gradients, whole, of the block in work."""
    count = count_parameters(config)
    n, block = count['total'], max(count['per block'], count['embedding'])
    copies = 0 if dtype == torch.float32 else dtype.itemsize * (block if stage == 3 else n)
    logits = 4 * batch * config.block_size * config.vocab_size
    return state_bytes(n, n_devices, stage, mixed=False) + copies + (8 * block if stage == 3 else 0) \
        + activation_bytes(config, batch, dtype, checkpoint) + 2 * logits


def bytes_sent(n_params, n_devices, stage, accumulation=1, width=4):
    """Bytes that each device sends per step, for values of `width` bytes. Around a ring, each device passes
    on (n - 1) / n of what is reduced or gathered. To stage 2: gradients reduced, then they or new weights
    gathered (as DDP's all-reduce does). Stage 3: weights gathered for each forward and each backward."""
    passes = 2 * accumulation + 1 if stage == 3 else 2
    return passes * (n_devices - 1) / n_devices * width * n_params


def strategy(config, n_devices, memory, batch, dtype=torch.bfloat16):
    """One sentence: how to train on n_devices of `memory` bytes, `batch` sequences at once on each."""
    memory = 0.9 * memory       # CUDA's own, NCCL's buffers, holes: a tenth, as a rule
    for stage, fits in ((0, 'shard=ddp: weights, gradients and optimizer state fit each device'),
                        (1, 'shard=zero1: weights and gradients fit a device, optimizer state only shared'),
                        (3, 'shard=fsdp: weights, gradients and optimizer state fit only shared out')):
        none, one, kept = (device_bytes(config, n_devices, stage, *sequences) for sequences in
                           ((0, dtype), (1, dtype), (1, dtype, True)))
        most, most_kept = int((memory - none) // (one - none)), int((memory - none) // (kept - none))
        if most >= batch:
            return fits
        if most_kept > 0:
            return f'{fits}; the activations of {batch} sequences do not: ' \
                + f'micro_batch_size={most} at most, or ' * (most > 0) + 'grad_checkpoint=True' \
                + f' with micro_batch_size={most_kept} at most' * (most_kept < batch)
    room = memory - device_bytes(config, math.inf, 3, 1, dtype, checkpoint=True)
    if room <= 0:
        return 'not even one layer fits a device: tensor or pipeline parallelism, which are not built here'
    needed = math.ceil(state_bytes(count_parameters(config)['total'], 1, 0) / room)
    return f'too large for {n_devices} of them: shard=fsdp and grad_checkpoint=True on {needed:,} or more'


def cheapest_to_serve(n, d, served):
    """(parameters, tokens, loss): of the models no larger than n that reach the loss of n parameters after d
    tokens, the one with the fewest FLOPs in all: 6 n d to train, 2 n served to generate (arXiv:2401.00448).

    Loss in nats: E + A / n^alpha + B / d^beta (Hoffmann et al. 2022, 2203.15556, section 3.3); its constants
    refitted to their runs (Besiroglu et al. 2024, 2404.10102): those first printed (1.69, 406.4, 0.34, 410.7,
    0.28) contradict 20 tokens a parameter. They are of that corpus and tokenizer: losses do not carry over,
    sizes and tokens roughly."""
    E, A, alpha, B, beta = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
    loss = E + A / n ** alpha + B / d ** beta
    left = [(size, loss - E - A / size ** alpha) for size in (n * i / 100 for i in range(1, 101))]
    models = [(size, (B / data) ** (1 / beta), loss) for size, data in left if data > 0]
    return min(models, key=lambda m: 6 * m[0] * m[1] + 2 * m[0] * served)


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


DEFAULTS = {'n_layer': 6, 'n_head': 6, 'n_kv_head': 0, 'n_embd': 192, 'n_ffn': 0, 'block_size': 256,
            'vocab_size': 0, 'dropout': 0.0, 'batch_size': 32, 'micro_batch_size': 0, 'max_steps': 1000}


def plan(path, machine):
    """What a config file of train.py asks for, whose DEFAULTS it may leave out."""
    scope = {**DEFAULTS}
    try:
        with open(path, encoding='utf-8') as f:
            exec(compile(f.read(), path, 'exec'), scope)
    except Exception as e:
        raise ValueError(f'{path}: {type(e).__name__}: {e}') from e
    if not scope['vocab_size']:
        scope['vocab_size'] = machine.vocab_size
        print(f'vocab_size comes with the data; here it is taken as {machine.vocab_size:,}')
    c = GPTConfig(**{f.name: scope[f.name] for f in dataclasses.fields(GPTConfig) if f.name in scope})
    count, flops, gpus = count_parameters(c), flops_per_token(c), machine.gpus
    n, batch, steps = count['total'], scope['batch_size'], scope['max_steps']
    at_once, tokens = scope['micro_batch_size'] or max(1, batch // gpus), batch * c.block_size * steps
    print(f'{path}: {c}')
    for part, value in count.items():
        print(f'  {part:<12} {value:>15,} parameters')
    print(f'  {6 * n:,} + {flops - 6 * n:,} = {flops:,} FLOPs per token, forward and backward')
    print(f'  {20 * n / 1e9:.2f}B tokens would be compute-optimal: 20 a parameter (Chinchilla, 2203.15556)')

    print(f'\n  GB on each of {gpus:<6} bfloat16:  state  + {at_once:>3} sequences  or with grad_checkpoint')
    for stage, name in enumerate(('DDP', 'ZeRO-1', 'ZeRO-2', 'ZeRO-3 = FSDP')):
        held = [device_bytes(c, gpus, stage, at_once, checkpoint=kept) / 1e9 for kept in (False, True)]
        state = state_bytes(n, gpus, stage, mixed=False) / 1e9
        print(f'    {name:<18}{state:>14.2f}{held[0]:>17.2f}{held[1]:>25.2f}')
    print(f'  Muon, with one moment for the matrices in blocks, saves {4 * count["blocks"] / 1e9:.2f} GB of '
          f'DDP\'s\n  {strategy(c, gpus, machine.gpu_memory_gb * 1e9, at_once)}')
    if not tokens:
        return

    verdict = 'under-' if tokens < 10 * n else 'over-' if tokens > 40 * n else 'about compute-optimally '
    print(f'\n  {tokens / 1e9:.3f}B tokens planned, {tokens / n:.1f} a parameter, {verdict}trained: '
          f'{flops * tokens:.2e} FLOPs')
    if n > 4e7 and tokens > 1e9:        # of the size of those that the fit was made from
        served = machine.served_tokens
        size, d, loss = cheapest_to_serve(n, tokens, served)
        print(f'  {6 * n * tokens + 2 * n * served:.2e} FLOPs with {served:.2g} tokens generated; as good by '
              f"Chinchilla's fit (loss {loss:.2f}), and\n    cheapest in all: {size / 1e9:.3f}B parameters, "
              f'{d / 1e9:.1f}B tokens, {6 * size * d + 2 * size * served:.2e} FLOPs')
    for devices, name, tera in ((1, 'two CPU cores', 0.2), (1, 'one GPU', machine.peak_tflops),
                                (gpus, f'{gpus} GPUs', gpus * machine.peak_tflops)):
        hours = flops * tokens / (machine.mfu * tera * 1e12) / 3600
        how_long = f'{hours / 24:,.1f} days' if hours > 48 else f'{hours:,.2f} hours'
        price = hours * devices * machine.gpu_hour
        cost = f': {price:,.2f} at {machine.gpu_hour:g} a GPU hour' if 'GPU' in name else ''
        print(f'    {how_long} on {name}, at {100 * machine.mfu:g} % of {tera:g} TFLOP/s{cost}')
    sent = [bytes_sent(n, gpus, stage, math.ceil(batch / gpus / at_once)) / 1e9 for stage in (0, 3)]
    print(f'  {4 * n / 1e9:.2f} GB of gradients; each GPU sends {sent[0]:.2f} GB a step under DDP, '
          f'{sent[1]:.2f} under FSDP')
    size, failure = 12 * n / 1e9, machine.gpu_mtbf_hours / gpus         # weights and two moments, GB; hours
    every = math.sqrt(2 * size / machine.disk_gb_s / 3600 * failure)    # Young 1974: least lost in all
    print(f'  {size:.2f} GB a checkpoint at {machine.disk_gb_s:g} GB/s, a failure in {failure:,.0f} hours:\n'
          f'    save every {every:.2f} hours, {min(steps, math.ceil(every * steps / hours)):,} steps')


if __name__ == '__main__':
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)

    def one_line(message):
        raise ValueError(f'{message}; see --help')
    parser.error = one_line
    parser.add_argument('config', nargs='?', help='a config file of train.py')
    parser.add_argument('--gpus', type=int, default=8, help='devices (8)')
    parser.add_argument('--gpu_memory_gb', type=float, default=80, help='of each (80)')
    parser.add_argument('--peak_tflops', type=float, default=989, help='of each (989: H100; A100: 312)')
    parser.add_argument('--mfu', type=float, default=0.4, help='the share of the peak that trains (0.4)')
    parser.add_argument('--gpu_hour', type=float, default=2.5, help='the price of one for an hour (2.5)')
    parser.add_argument('--served_tokens', type=float, default=1e12, help='to be generated, ever (1e12)')
    parser.add_argument('--disk_gb_s', type=float, default=1, help='for checkpoints (1)')
    parser.add_argument('--gpu_mtbf_hours', type=float, default=50_000, help='from failure to failure of one '
                        '(50,000: 419 in 54 days of 16,384, Llama 3, arXiv:2407.21783)')
    parser.add_argument('--vocab_size', type=int, default=32768, help='where the data decide (32768)')
    try:
        machine = parser.parse_args()
        for name, value in vars(machine).items():
            if name != 'config' and not 0 < value < math.inf:
                raise ValueError(f'--{name}={value} must be more than 0')
        plan(machine.config, machine) if machine.config else self_test()
    except (OSError, ValueError) as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)
