"""
Read and write Hugging Face's folders: a Llama's, Qwen2's or Qwen3's weights under our names, and a card.

    config, tensors = read('SmolLM2-135M')          # {'n_layer': 30, ...}, {'embedding.weight': (V, C), ...}
    write('exported', config, tensors)              # as LlamaForCausalLM of transformers reads it
    print(publish('out/sft', model, tokenizer, 'hf', state))        # makes out/sft/hf, with a README.md

The tensor layouts are the same on both sides (rotate-half RoPE, gate/up/down): weights are only renamed.
"""
import contextlib, glob, json, os, pathlib, shutil

NAMES = {'vocab_size': 'vocab_size', 'block_size': 'max_position_embeddings', 'n_layer': 'num_hidden_layers',
         'n_head': 'num_attention_heads', 'n_kv_head': 'num_key_value_heads', 'n_embd': 'hidden_size',
         'n_ffn': 'intermediate_size', 'norm_eps': 'rms_norm_eps', 'tie_embeddings': 'tie_word_embeddings',
         'head_dim': 'head_dim'}
KINDS = {'llama': (False, False), 'qwen2': (True, False), 'qwen3': (False, True)}       # qkv_bias, qk_norm
LLAMA_3 = 'factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'   # rope_scaling


def import_safetensors():
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError('Hugging Face folders need safetensors: pip install safetensors') from None
    return safetensors.torch


def layout(config):
    """{our name: (Hugging Face's name, shape)} of every tensor in a file. A tied head is not in it."""
    V, C, F = config['vocab_size'], config['n_embd'], config['n_ffn']
    D = config.get('head_dim') or C // config['n_head']
    QD, KD = D * config['n_head'], D * (config['n_kv_head'] or config['n_head'])    # width of all q, all k

    table = {'embedding.weight': ('model.embed_tokens.weight', [V, C])}
    for i in range(config['n_layer']):
        a, b = f'blocks.{i}', f'model.layers.{i}'
        table |= {
            f'{a}.norm_1.weight': (f'{b}.input_layernorm.weight', [C]),
            f'{a}.attention.w_q.weight': (f'{b}.self_attn.q_proj.weight', [QD, C]),
            f'{a}.attention.w_k.weight': (f'{b}.self_attn.k_proj.weight', [KD, C]),
            f'{a}.attention.w_v.weight': (f'{b}.self_attn.v_proj.weight', [KD, C]),
            f'{a}.attention.w_o.weight': (f'{b}.self_attn.o_proj.weight', [C, QD]),
            f'{a}.norm_2.weight': (f'{b}.post_attention_layernorm.weight', [C]),
            f'{a}.mlp.w_gate.weight': (f'{b}.mlp.gate_proj.weight', [F, C]),
            f'{a}.mlp.w_up.weight': (f'{b}.mlp.up_proj.weight', [F, C]),
            f'{a}.mlp.w_down.weight': (f'{b}.mlp.down_proj.weight', [C, F])}
        for x, width in (('q', QD), ('k', KD), ('v', KD)) if config.get('qkv_bias') else ():
            table[f'{a}.attention.w_{x}.bias'] = (f'{b}.self_attn.{x}_proj.bias', [width])
        for x in 'qk' if config.get('qk_norm') else '':
            table[f'{a}.attention.norm_{x}.weight'] = (f'{b}.self_attn.{x}_norm.weight', [D])
    table['norm.weight'] = ('model.norm.weight', [C])
    if not config['tie_embeddings']:
        table['head.weight'] = ('lm_head.weight', [V, C])
    return table


def read_config(theirs):
    """Their config.json under our names. ValueError names the key that model.py cannot serve."""
    rope = {**(theirs.get('rope_scaling') or {}), **(theirs.get('rope_parameters') or {})}  # version 4, 5
    values = {'num_key_value_heads': None, 'tie_word_embeddings': False, 'head_dim': None,   # may be omitted
              'model_type': 'llama', 'rope_type': rope.get('type') or 'default', **theirs, **rope}
    ropes = {'default': (), 'linear': ('factor',), 'llama3': LLAMA_3}                       # their parameters
    supported = {'model_type': KINDS, 'hidden_act': ['silu'], 'attention_bias': [False], 'mlp_bias': [False],
                 'use_sliding_window': [False], 'rope_interleaved': [False], 'rope_type': ropes,
                 'quantization_config': [None]}
    for key, ours in supported.items():
        if values.get(key) not in (*ours, None):
            choices = ' or '.join(map(str, ours))
            raise ValueError(f'{key}={values[key]!r:.80} is not supported, only {choices}')
    config = {ours: values[name] for ours, name in NAMES.items()}
    config['n_kv_head'] = config['n_kv_head'] or config['n_head']
    config['rope_theta'] = float(values.get('rope_theta') or 10000.0)
    config['rope_scaling'] = tuple(float(rope[key]) for key in ropes[values['rope_type']])
    config['qkv_bias'], config['qk_norm'] = KINDS[values['model_type']]
    eps = config['norm_eps']
    if not (isinstance(eps, float) and 0 < eps < 1):
        raise ValueError(f'rms_norm_eps={eps!r:.80} must be a number between 0 and 1')
    return config


def read(folder):
    """config.json and all *.safetensors of a folder -> (config, tensors), both under our names."""
    safetensors = import_safetensors()
    reading = os.path.join(folder, 'config.json')
    try:
        with open(reading, encoding='utf-8') as f:
            config = read_config(json.load(f))
        saved = {}
        for reading in sorted(glob.glob(os.path.join(glob.escape(folder), '*.safetensors'))):
            new = safetensors.load_file(reading)
            if twice := saved.keys() & new:
                raise ValueError(f'tensor {min(twice)} is in another file, too; keep the one that counts')
            saved |= new
        tensors = {}
        for ours, (theirs, shape) in layout(config).items():
            there = list(saved[theirs].shape) if theirs in saved else 'not there'
            if there != shape or not saved[theirs].is_floating_point():
                kind = f' of {saved[theirs].dtype}' if theirs in saved else ''
                raise ValueError(f'tensor {theirs} is {there}{kind}, expected {shape} of floats')
            tensors[ours] = saved[theirs]
    except Exception as e:              # broken JSON, a missing key, a file that was cut off, ...
        raise ValueError(f'{reading} cannot be read as a Llama model: {type(e).__name__}: {e}') from e
    if config['tie_embeddings']:
        tensors['head.weight'] = tensors['embedding.weight']
    return config, tensors


def check_layout(config, tensors):
    """Refuse tensors that a Llama, Qwen2 or Qwen3 of this config does not have, as after an edit of
    model.py: other programs would run another model. The result of layout() if all is well."""
    table = layout(config)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in 'embedding.weight', 'head.weight':                  # without rows that fill up a multiple
        shapes[name][0] = config['vocab_size']
    wanted = {name: shape for name, (_, shape) in table.items()}
    for name in shapes | wanted:
        if name != 'head.weight' and shapes.get(name) != wanted.get(name):
            raise ValueError(f'{name} is {shapes.get(name)}, but {wanted.get(name)} in a Llama of this '
                             'config: other programs would run another model')
    return table


def write(folder, config, tensors):
    """Write config.json and model.safetensors. config: GPTConfig's fields. tensors: a model's state_dict."""
    safetensors = import_safetensors()
    kind = {has: kind for kind, has in KINDS.items()}.get((config['qkv_bias'], config['qk_norm']))
    if not kind or not config['causal']:
        raise ValueError('transformers has no model with causal=False, or with both qkv_bias and qk_norm')
    table = check_layout(config, tensors)
    os.makedirs(folder, exist_ok=True)
    renamed = {theirs: tensors[ours][:shape[0]].contiguous() for ours, (theirs, shape) in table.items()}
    weights = os.path.join(folder, 'model.safetensors')
    safetensors.save_file(renamed, weights, metadata={'format': 'pt'})
    os.chmod(weights, 0o644)            # it makes files that nobody else may read

    scaling = config['rope_scaling']
    rope = {'rope_type': {0: 'default', 1: 'linear', 4: 'llama3'}[len(scaling)]} | dict(zip(LLAMA_3, scaling))
    if len(scaling) == 4:
        rope['original_max_position_embeddings'] = int(scaling[3])
    theirs = {name: config[ours] for ours, name in NAMES.items()} | {
        'architectures': [f'{kind.capitalize()}ForCausalLM'], 'model_type': kind, 'hidden_act': 'silu',
        'attention_bias': False, 'mlp_bias': False, 'bos_token_id': None, 'eos_token_id': None,
        'rope_theta': config['rope_theta'],                     # transformers 4 looks here and below
        'rope_scaling': rope if scaling else None,
        'rope_parameters': {**rope, 'rope_theta': config['rope_theta']},        # transformers 5
        'dtype': str(tensors['embedding.weight'].dtype).removeprefix('torch.')}
    with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
        json.dump(theirs, f, indent=2)


# --- a folder to publish, with its card -----------------------------------------------------------
CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: other
---
# {name}

No licence is given for the weights. Whoever publishes them chooses one, and heeds the licences of the data.
Nothing here was tested for safety, fairness or privacy.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('.')
model = AutoModelForCausalLM.from_pretrained('.')
{ask}
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=False)[0]))
```

## Evaluation

The scores of eval.json are of step {measured}, these weights of step {step}.

{scores}

## Data

Licences by source, with the number of documents. data.json and report.md say more.

{licences}

## Settings

```
{settings}
```
"""
TEXT = "ids = tokenizer('def mean(values):', return_tensors='pt', return_token_type_ids=False)"
CHAT = """messages = [{'role': 'user', 'content': 'Write mean(values).'}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors='pt',
                                    return_dict=True)"""


def publish(folder, model, tokenizer, kind, state):
    """Write folder/kind: weights, tokenizer, README.md. Returns a text to print. state: the rest of the
    checkpoint. OSError, ValueError: what was there before (not our own, or licensed) is unchanged."""
    target = os.path.join(folder, kind)
    card_there = pathlib.Path(target, 'README.md')
    if os.path.isdir(target) and os.listdir(target) and not (
            card_there.exists() and card_there.read_bytes().startswith(CARD.partition('#')[0].encode())):
        raise ValueError(f'{target} holds files that were not written here; move them away')
    new = f'{target}.tmp'
    text = card(folder, state)
    data_dir = state.get('config', {}).get('data_dir') or folder
    try:
        model.save_hf(new, tokenizer)
        pathlib.Path(new, 'README.md').write_text(text, encoding='utf-8', newline='\n')
        for path in os.path.join(folder, 'data.json'), os.path.join(data_dir, 'report.md'):
            if os.path.exists(path):
                shutil.copy(path, new)
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(new):
            os.replace(os.path.join(new, name), os.path.join(target, name))
    except ValueError:
        raise
    except Exception as e:    # safetensors has its own error for a full disk
        raise OSError(f'cannot write {target} ({e}); what was there before is unchanged') from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return f'{target}: for AutoModelForCausalLM and AutoTokenizer of transformers; read its README.md first'


def card(folder, state):
    config = state.get('config', {})
    results = read_json(folder, 'eval.json')
    sources = read_json(folder, 'data.json').get('sources', {})
    lines = scores(results.get('tasks', {}), '') or [f'None yet: python eval.py --ckpt={folder}']
    return CARD.format(
        name=os.path.basename(os.path.abspath(folder)),
        ask=CHAT if 'stage' in config else TEXT,        # of sft.py, dpo.py, rl.py
        measured=results.get('step'), step=state.get('step'), scores='\n'.join(lines),
        licences='\n'.join(f'- {name}: {sources[name].get("licences") or "unknown"}' for name in sources),
        settings='\n'.join(f'{key} = {value!r}' for key, value in config.items()))


def scores(result, name):
    """A line for each score in eval.json, at any depth, but not for each family and composition."""
    lines = []
    for measure in 'pass@1', 'score', 'bits_per_byte':
        if isinstance(result.get(measure), float):
            lines.append(f'- {name}: {measure} {result[measure]:.3f}')
            if 'interval' in result:
                low, high = result['interval']
                lines[-1] += f', 95 % interval {low:.3f} to {high:.3f}, n = {result["n"]}'
    for key, part in result.items():
        if key == 'series':
            part = {row['ckpt']: row for row in part}
        if isinstance(part, dict) and key not in ('by_family', 'by_cell'):
            lines += scores(part, f'{name} {key}'.strip())
    return lines


def read_json(folder, name):
    """The object in a JSON file, {} if there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(pathlib.Path(folder, name).read_text(encoding='utf-8')))
    return {}
