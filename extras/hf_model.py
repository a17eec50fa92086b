"""
Read and write Hugging Face's folders: a Llama's, Qwen2's or Qwen3's weights under our names.

    saved = read('SmolLM2-135M')                # GPT.load('SmolLM2-135M') calls it
    write('exported', model, tokenizer)         # as LlamaForCausalLM of transformers reads it

The layouts are the same on both sides (rotate-half RoPE, gate/up/down): weights are only renamed.
Whoever edits model.py may have a model that no other program knows. So each export (GGUF and HTML
as well) first compares the model with logits(), which is written without model.py.
"""
import copy, glob, json, math, os
import torch
import torch.nn.functional as F
from configurator import Mistake
from extras import hf_tokenizer
from tokenizer import Tokenizer

NAMES = {'vocab_size': 'vocab_size', 'block_size': 'max_position_embeddings',
         'n_layer': 'num_hidden_layers', 'n_head': 'num_attention_heads',
         'n_kv_head': 'num_key_value_heads', 'n_embd': 'hidden_size', 'n_ffn': 'intermediate_size',
         'norm_eps': 'rms_norm_eps', 'tie_embeddings': 'tie_word_embeddings',
         'head_dim': 'head_dim'}
# qkv_bias and qk_norm of the three families that model.py can be
KINDS = {'llama': (False, False), 'qwen2': (True, False), 'qwen3': (False, True)}
LIBRARY = 'safetensors.torch', 'Hugging Face folders need safetensors'
# keys of rope_scaling, in the order of model.stretch()
LLAMA_3 = 'factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'
# our names and theirs of a block's parts, and of the two that Qwen3 has as well
PARTS = {'norm_1': 'input_layernorm', 'attention.w_q': 'self_attn.q_proj',
         'attention.w_k': 'self_attn.k_proj', 'attention.w_v': 'self_attn.v_proj',
         'attention.w_o': 'self_attn.o_proj', 'norm_2': 'post_attention_layernorm',
         'mlp.w_gate': 'mlp.gate_proj', 'mlp.w_up': 'mlp.up_proj', 'mlp.w_down': 'mlp.down_proj'}
QK_NORM = {'attention.norm_q': 'self_attn.q_norm', 'attention.norm_k': 'self_attn.k_norm'}


def names_of(config):
    """Return {our name: their name} of all tensors of a model with this config."""
    names = {'embedding.weight': 'model.embed_tokens.weight'}
    for ours, theirs in (PARTS | (QK_NORM if config['qk_norm'] else {})).items():
        has_bias = config['qkv_bias'] and theirs.endswith(('q_proj', 'k_proj', 'v_proj'))
        for kind in ['weight', 'bias'] if has_bias else ['weight']:
            for i in range(config['n_layer']):
                names[f'blocks.{i}.{ours}.{kind}'] = f'model.layers.{i}.{theirs}.{kind}'
    return names | {'norm.weight': 'model.norm.weight', 'head.weight': 'lm_head.weight'}


def read_config(theirs):
    """Return their config.json under our names. Refuse what model.py lacks, by its key."""
    # transformers 4 writes rope_scaling, and transformers 5 rope_parameters.
    rope = {**(theirs.get('rope_scaling') or {}), **(theirs.get('rope_parameters') or {})}
    # The first two lines are defaults for keys that a config may leave out.
    values = {'num_key_value_heads': None, 'tie_word_embeddings': False, 'head_dim': None,
              'model_type': 'llama', 'rope_type': rope.get('type') or 'default', **theirs, **rope}
    # The ways in which model.py can stretch RoPE, and the keys of their numbers.
    ropes = {'default': (), 'linear': ('factor',), 'llama3': LLAMA_3}
    supported = {
        'model_type': KINDS, 'hidden_act': ['silu'], 'attention_bias': [False], 'mlp_bias': [False],
        'use_sliding_window': [False], 'rope_interleaved': [False], 'rope_type': ropes,
        'quantization_config': [None]}
    for key, ours in supported.items():
        if values.get(key) not in (*ours, None):
            choices = ' or '.join(map(str, ours))
            raise Mistake(f'{key}={values[key]!r:.80} is not supported, only {choices}')
    config = {ours: values[name] for ours, name in NAMES.items()}
    config['rope_theta'] = float(values.get('rope_theta') or 10000.0)
    config['rope_scaling'] = tuple(float(rope[key]) for key in ropes[values['rope_type']])
    config['qkv_bias'], config['qk_norm'] = KINDS[values['model_type']]
    return config


def read(folder):
    """Return of a folder with config.json and *.safetensors what a .pt file would hold: its
    model_config, a dict under our names, and its model, {our name: tensor}. If the tokenizer beside
    them has more tokens than they have rows, because <|im_start|> and <|im_end|> were added to it,
    a new row is the mean of the others."""
    found = glob.glob(os.path.join(glob.escape(folder), '*.safetensors'))
    if not found:
        raise Mistake('it has no best.pt, last.pt or *.safetensors')
    safetensors = hf_tokenizer.need(*LIBRARY)
    reading = os.path.join(folder, 'config.json')
    try:
        with open(reading, encoding='utf-8') as f:
            config = read_config(json.load(f))
        saved = {}
        for reading in sorted(found):
            saved |= safetensors.load_file(reading)
        if config['tie_embeddings']:
            saved['lm_head.weight'] = saved['model.embed_tokens.weight']
        names = names_of(config)
        weights = {ours: saved[theirs] for ours, theirs in names.items()}
        reading = os.path.join(folder, 'tokenizer.json')
        if os.path.exists(reading):
            n_new = max(0, Tokenizer.load(reading).vocab_size - config['vocab_size'])
            for name in 'embedding.weight', 'head.weight':
                rows = weights[name]  # (V, C)
                new = rows.float().mean(0).expand(n_new, -1).to(rows)
                weights[name] = torch.cat((rows, new))
            config['vocab_size'] += n_new
    except Exception as e:              # broken JSON, a missing key, a file that was cut off, ...
        why = e if isinstance(e, Mistake) else f'{type(e).__name__}: {e}'
        raise Mistake(f'{os.path.basename(reading)} is not that of a Llama: {why}') from e
    return {'model_config': config, 'model': weights}


def translated(model):
    """Return what config.json and model.safetensors have to say of a GPT: a dict for JSON, and
    {their name: tensor}."""
    config, tensors = vars(model.config), model.state_dict()
    kind = {has: kind for kind, has in KINDS.items()}.get((config['qkv_bias'], config['qk_norm']))
    if not kind or not config['causal']:
        raise Mistake('transformers has no model with causal=False, or with both qkv_bias and '
                      'qk_norm')
    names = names_of(config)
    if odd := names.keys() ^ tensors.keys():        # as after an edit of model.py
        raise Mistake(f'{min(odd)}: your model.py and a Llama differ in this tensor, so other '
                      'programs would run another model')
    renamed = {theirs: tensors[ours] for ours, theirs in names.items()}
    for name in 'model.embed_tokens.weight', 'lm_head.weight':
        # Other programs know no rows that belong to no token.
        renamed[name] = renamed[name][:config['vocab_size']].contiguous()
    if config['tie_embeddings']:
        del renamed['lm_head.weight']

    scaling = config['rope_scaling']
    rope = {'rope_type': {0: 'default', 1: 'linear', 4: 'llama3'}[len(scaling)],
            **dict(zip(LLAMA_3, scaling))}
    if len(scaling) == 4:
        rope['original_max_position_embeddings'] = int(scaling[3])
    theirs = {name: config[ours] for ours, name in NAMES.items()} | {
        'architectures': [f'{kind.capitalize()}ForCausalLM'], 'model_type': kind,
        'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False, 'bos_token_id': None,
        'eos_token_id': None,
        # transformers 4 reads the first two of these, and transformers 5 the third.
        'rope_theta': config['rope_theta'],
        'rope_scaling': rope if scaling else None,
        'rope_parameters': {**rope, 'rope_theta': config['rope_theta']},
        'dtype': str(tensors['embedding.weight'].dtype).removeprefix('torch.')}
    return theirs, renamed


def logits(config, tensors, idx):
    """Return what other programs compute from such a config and such tensors: the logits (T, V) of
    the ids idx (T,). It is a Llama, Qwen2 or Qwen3 without anything of model.py."""
    T, D, rope = len(idx), config['head_dim'], config['rope_parameters']
    w = {name.removesuffix('.weight'): tensor.float() for name, tensor in tensors.items()}
    linear = lambda name, x: F.linear(x, w[name], w.get(f'{name}.bias'))

    def norm(name, x):
        return w[name] * x / (x.square().mean(-1, keepdim=True) + config['rms_norm_eps']).sqrt()

    frequency = 1 / rope['rope_theta'] ** (torch.arange(0, D, 2) / D)  # (D/2,)
    if rope['rope_type'] == 'linear':
        frequency = frequency / rope['factor']
    elif rope['rope_type'] == 'llama3':         # slow pairs, fast pairs, and those between
        factor, low, high, T_old = (rope[key] for key in LLAMA_3)
        keep = ((T_old * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        frequency = frequency * (keep + (1 - keep) / factor)
    angle = torch.outer(torch.arange(T), torch.cat((frequency, frequency))).to(idx.device)  # (T, D)

    def turn(x):
        a, b = x.chunk(2, dim=-1)
        return x * angle.cos() + torch.cat((-b, a), dim=-1) * angle.sin()  # (H, T, D)

    future = torch.ones(T, T, dtype=torch.bool, device=idx.device).triu(1)
    x = w['model.embed_tokens'][idx]  # (T, C)
    for i in range(config['num_hidden_layers']):
        block, attn, mlp = (f'model.layers.{i}{name}' for name in ('', '.self_attn', '.mlp'))
        y = norm(f'{block}.input_layernorm', x)
        q, k, v = (linear(f'{attn}.{name}_proj', y).view(T, -1, D).transpose(0, 1)
                   for name in 'qkv')  # (H, T, D), (K, T, D), (K, T, D)
        if config['model_type'] == 'qwen3':
            q, k = norm(f'{attn}.q_norm', q), norm(f'{attn}.k_norm', k)
        k, v = (t.repeat_interleave(len(q) // len(t), dim=0) for t in (turn(k), v))  # (H, T, D)
        scores = turn(q) @ k.mT / D ** 0.5  # (H, T, T)
        y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + linear(f'{attn}.o_proj', y.transpose(0, 1).flatten(1))
        y = norm(f'{block}.post_attention_layernorm', x)
        gate = F.silu(linear(f'{mlp}.gate_proj', y))
        x = x + linear(f'{mlp}.down_proj', gate * linear(f'{mlp}.up_proj', y))
    return F.linear(norm('model.norm', x), w.get('lm_head', w['model.embed_tokens']))


@torch.no_grad()
def check(model):
    """Refuse a GPT that computes something else than a Llama with its weights, as after an edit of
    model.py. For 1,024 random ids, or as many as it can read, no logit may differ by more than 1e-3
    of the largest; rounding makes 1e-6 to 3e-5. Return what translated() does."""
    config, tensors = translated(model)
    T = min(1024, config['max_position_embeddings'])
    idx = torch.randint(config['vocab_size'], (T,), generator=torch.Generator().manual_seed(0))
    idx = idx.to(model.embedding.weight.device)
    whole = model if config['dtype'] == 'float32' else copy.deepcopy(model).float()
    was_training = whole.training
    ours = whole.eval()(idx[None])[0][0]  # (T, V)
    whole.train(was_training)
    off, largest = (ours - logits(config, tensors, idx)).abs().max(), ours.abs().max()
    if not off <= 1e-3 * largest:               # nan is refused, too
        raise Mistake(f'your model.py computes something else than a {config["model_type"]} with '
                      f'these weights (logits differ by up to {off:.2g}, the largest is '
                      f'{largest:.2g}), and other programs would not know; answer with '
                      'sample.py --serve=8000 instead')
    return config, tensors


def write(folder, model, tokenizer=None):
    """Write config.json, model.safetensors and the files of a tokenizer."""
    safetensors = hf_tokenizer.need(*LIBRARY)
    config, tensors = check(model)
    os.makedirs(folder, exist_ok=True)
    weights = os.path.join(folder, 'model.safetensors')
    safetensors.save_file(tensors, weights, metadata={'format': 'pt'})
    os.chmod(weights, 0o644)            # safetensors makes files that nobody else may read
    with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
        json.dump(config, f, indent=2)
    if tokenizer:
        hf_tokenizer.write(folder, tokenizer, model.config.block_size)
