"""
Read and write GGUF, the file format of llama.cpp, ollama and LM Studio.

    python -m extras.models.gguf model.gguf --out=FOLDER           # for --init_from and --ckpt
    python -m extras.models.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf

A Llama, Qwen2 or Qwen3 of any precision becomes a Hugging Face folder in float32. We also write
float32; llama-quantize model-f32.gguf q8_0 makes the file smaller. GGUF differs in two ways:
- llama.cpp's RoPE rotates the pairs (x_2i, x_2i+1) of a Llama, ours the pairs (x_i, x_i+D/2), so
  the rows of w_q and w_k are permuted.
- llama.cpp splits text by built-in patterns, and a file names one of them. For our pattern we name
  the most similar one, and mark tokens with a newline as added, so that they are matched first.
"""
import json, os, pathlib, shlex, sys
import numpy as np
import torch
from configurator import UserError, report_error, require, require_writable
from extras.models import hf_model, hf_tokenizer
from extras.training import tokenizer_report
from model import stretch

gguf = hf_tokenizer.package('a GGUF file', 'gguf')
# config keys, ours and llama.cpp's
KEYS = {'block_size': 'context_length', 'n_layer': 'block_count', 'n_head': 'attention.head_count',
        'n_kv_head': 'attention.head_count_kv', 'n_embd': 'embedding_length',
        'n_ffn': 'feed_forward_length', 'norm_eps': 'attention.layer_norm_rms_epsilon',
        'rope_theta': 'rope.freq_base', 'head_dim': 'attention.key_length'}
# GPT-2's split pattern, which is built into Hugging Face's ByteLevel
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# llama.cpp's names of split patterns; tokenizer_report.py has two of them in another notation
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
PATTERNS = {'gpt-2': [GPT2], 'smollm': [r'\p{N}', GPT2],
            'llama-bpe': [WORDS], 'qwen2': [WORDS.replace('{1,3}', '')]}
OURS = {'gpt-2': [tokenizer_report.PATTERNS['gpt2']],
        'llama-bpe': [tokenizer_report.PATTERNS['cl100k']]}
NOTE = ("llama.cpp lacks this tokenizer's split pattern, so some texts get other ids; it has that "
        "of Tokenizer.train(texts, vocab_size, pattern=PATTERNS['cl100k']) (docs/use.md)")
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5      # types of a token


def tensor_names(arch, config):
    """Return {Hugging Face's name: llama.cpp's}: {'lm_head.weight': 'output.weight', ...}."""
    name_map = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config['n_layer'])
    return {name: name_map.get_name(name, ('.weight', '.bias'))
            for name in hf_model.names_of(config).values()
            if name != 'lm_head.weight' or not config['tie_embeddings']}


def permute_rope(arch, key, array, D, n):
    """Return a weight. In a Llama's w_q and w_k, permute the D rows of each head: n = 2 turns rows
    0 1 2 3 into llama.cpp's order, 0 2 1 3, and n = D / 2 is the inverse."""
    if arch != 'llama' or not key.endswith(('attn_q.weight', 'attn_k.weight')):
        return array
    return array.reshape(-1, n, D // n, array.shape[1]).swapaxes(1, 2).reshape(array.shape)


def frequency_divisors(config):
    """Return the divisor of each frequency under Llama 3.1's rope_scaling, float32 (D/2,)."""
    D = config['head_dim']
    plain = config['rope_theta'] ** (-torch.arange(0, D, 2).double() / D)
    return (plain / stretch(plain, *config['rope_scaling'])).float().numpy()


# --- read -----------------------------------------------------------------------------------------
def read(path):
    """Read a GGUF file. Return the arguments of hf_model.write() after the folder."""
    try:
        hf_model.check_pointer(path)
        file = gguf.GGUFReader(path)
        values = {key: field.contents() for key, field in file.fields.items()}
        tensors = {tensor.name: tensor for tensor in file.tensors}
        parts, kind = values.get('split.count', 1), values.get('general.type', 'model')
        require(parts < 2, f'it is one of {parts} parts; join them: llama-gguf-split --merge')
        require(kind == 'model', f'it is not a model, but of the type {kind}')
        arch = values['general.architecture']
        require(arch in hf_model.KINDS, f'{arch} is none of {", ".join(hf_model.KINDS)}')
        get = lambda key, default=None: values.get(f'{arch}.{key}', default)
        config = config_of(arch, get, tensors)
        weights, D = {}, config['head_dim']
        for name, key in tensor_names(arch, config).items():
            tensor = tensors.pop(key)
            array = gguf.dequantize(tensor.data, tensor.tensor_type)
            array = permute_rope(arch, key, array, D, n=D // 2)
            weights[name] = torch.tensor(array)
        require(not tensors, f'model.py has no {min(tensors, default="")}')
        tokenizer = tokenizer_of(values)
    except Exception as e:              # another format, a missing key, a truncated file
        why = e if isinstance(e, UserError) else f'{type(e).__name__}: {e}'
        raise UserError(f'{path} cannot be read: {why}') from e
    return hf_model.config_of(config), weights, tokenizer


def config_of(arch, get, tensors):
    """Return the config of a file under our names, and remove rope_freqs.weight from tensors."""
    config = {ours: get(key) for ours, key in KEYS.items()}
    D = config['head_dim'] = config['head_dim'] or config['n_embd'] // config['n_head']
    config['norm_eps'] = float(f'{config["norm_eps"]:.7g}')     # float32 has 9.999999747e-06
    config['rope_theta'] = float(config['rope_theta'] or 10000)
    config['vocab_size'] = len(tensors['token_embd.weight'].data)
    config['tie_embeddings'] = 'output.weight' not in tensors
    config['qkv_bias'], config['qk_norm'] = hf_model.KINDS[arch]
    kind, rotated = get('rope.scaling.type', 'none'), get('rope.dimension_count', D)
    require(kind in ('none', 'linear') and rotated == D, f'RoPE of the kind {kind} that turns '
            f'{rotated} of {D} numbers is not supported')
    config['rope_scaling'] = (get('rope.scaling.factor'),) if kind == 'linear' else ()
    if 'rope_freqs.weight' in tensors:          # computed from Llama 3.1's scaling
        divisors = tensors.pop('rope_freqs.weight').data
        T_old = float(get('rope.scaling.original_context_length', 8192))
        config['rope_scaling'] = float(divisors.max()), 1.0, 4.0, T_old
        require(np.allclose(frequency_divisors(config), divisors, rtol=1e-4),
                'rope_freqs.weight is not that of Llama 3.1')
    return config


def tokenizer_of(values):
    """Return the HFTokenizer of a file, with its chat template."""
    get = lambda key, default=None: values.get(f'tokenizer.ggml.{key}', default)
    pre, tokens = get('pre'), get('tokens')
    require(get('model') == 'gpt2', f'its tokenizer is {get("model")}, not byte-level BPE (gpt2)')
    require(pre in PATTERNS, f'its pre-tokenizer {pre} is none of {", ".join(PATTERNS)}')
    types = dict(zip(tokens, get('token_type')))
    ids = {token: i for i, token in enumerate(tokens) if types[token] != UNUSED}
    special, unsplit = ([token for token in ids if types[token] == kind]
                      for kind in (CONTROL, USER_DEFINED))
    # A merge whose result is not a token is never applied.
    merges = [(a, b) for a, b in map(str.split, get('merges', [])) if a + b in ids]
    begin = tokens[get('bos_token_id')] if get('add_bos_token', pre == 'llama-bpe') else ''
    spec = hf_tokenizer.byte_level(ids, merges, PATTERNS[pre], special, unsplit, begin)
    spec['model']['ignore_merges'] = pre == 'llama-bpe'      # first look up the whole chunk
    spec['normalizer'] = {'type': 'NFC'} if pre == 'qwen2' else None     # é is one character
    ids = {kind: get(f'{kind}_token_id') for kind in ('bos', 'eos', 'eot', 'eom')}
    chat = {'template': values.get('tokenizer.chat_template'), 'never': get('suppress_tokens'),
            'stop': [ids[kind] for kind in ('eos', 'eot', 'eom') if ids[kind] is not None],
            'names': {f'{kind}_token': tokens[ids[kind]] for kind in ('bos', 'eos')
                      if ids[kind] is not None}}
    return hf_tokenizer.HFTokenizer(json.dumps(spec), {key: chat[key] for key in chat if chat[key]})


# --- write ----------------------------------------------------------------------------------------
def write(path, model, tokenizer):
    """Write a GPT and its tokenizer as a GGUF file. Return the text to print."""
    require_writable(path)
    hf_config, tensors = hf_model.translated(model)    # config.json, {transformers' name: tensor}
    config, arch = vars(model.config), hf_config['model_type']
    D, scaling = config['head_dim'], config['rope_scaling']
    writer = gguf.GGUFWriter(None, arch)
    for ours, key in KEYS.items():
        add = writer.add_float32 if isinstance(config[ours], float) else writer.add_uint32
        add(f'{arch}.{key}', config[ours])
    writer.add_vocab_size(config['vocab_size'])
    writer.add_rope_dimension_count(D)
    writer.add_value_length(D)
    note = add_tokenizer(writer, model, tokenizer)
    if len(scaling) == 1:
        writer.add_string(f'{arch}.rope.scaling.type', 'linear')
        writer.add_rope_scaling_factor(scaling[0])
    elif scaling:
        require(arch == 'llama', f'llama.cpp has no {arch} with the rope_scaling of Llama 3.1')
        writer.add_rope_scaling_orig_ctx_len(int(scaling[3]))
        writer.add_tensor('rope_freqs.weight', frequency_divisors(config))
    for name, key in tensor_names(arch, config).items():
        array = tensors[name].float().cpu().numpy()
        writer.add_tensor(key, permute_rope(arch, key, array, D, n=2))
    writer.write_header_to_file(pathlib.Path(f'{path}.tmp'))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(f'{path}.tmp', path)     # a full disk leaves the old file
    return (f'{path}: {os.path.getsize(path) / 1e6:.1f} MB; next: llama-cli -m '
            f'{shlex.quote(str(path))}{note}')


def add_tokenizer(writer, model, tokenizer):
    """Write the tokenizer. Return a note for the user, or ''. For a chat model, from sft.py, dpo.py
    or rl.py or with a chat template in its folder, the file gets the template, and llama.cpp adds
    nothing before a text. For a base model, llama.cpp adds <|endoftext|>."""
    spec = hf_tokenizer.to_hf_json(tokenizer)
    tokens = {id: token for token, id in spec['model']['vocab'].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for token in spec['added_tokens']:
        tokens[token['id']] = token['content']
        types[token['id']] = CONTROL if token['special'] else USER_DEFINED
    merges = [' '.join(pair) for pair in spec['model']['merges']]
    named = [name for name, patterns in [*PATTERNS.items(), *OURS.items()]
             if patterns == patterns_of(spec)]
    require(named or tokenizer.kind == 'bpe', "this tokenizer's split patterns have no name here; "
            "use --to=hf, and llama.cpp's convert_hf_to_gguf.py on the folder hf")
    pre = named[0] if named else 'llama-bpe' if merges else 'gpt-2'
    differs = merges and not named      # without merges, patterns don't matter
    for id, token in enumerate(tokenizer.all_bytes if differs else []):
        if b'\n' in token and token.decode(errors='replace').encode() == token:
            tokens[id], types[id] = token.decode(), USER_DEFINED
    rows = range(model.config.vocab_size)           # some rows have no token
    writer.add_tokenizer_model('gpt2')    # byte-level BPE
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens.get(id, f'[PAD{id}]') for id in rows])
    writer.add_token_types([types.get(id, UNUSED) for id in rows])
    # llama.cpp requires at least one merge. This one is never applied.
    writer.add_token_merges(merges or ['<|none|> <|none|>'])
    # A folder with its own template may name other tokens.
    names = tokenizer.chat.get('names', {}) if getattr(tokenizer, 'template', None) else {}
    for kind, ids in ('bos', tokenizer.begin), ('eos', tokenizer.stop):
        for id in ids[:1]:
            id = tokenizer.special.get(names.get(f'{kind}_token'), id)
            writer.add_uint32(f'tokenizer.ggml.{kind}_token_id', id)
    # llama.cpp reads this since August 2026. The package gguf has no constant for this key.
    writer.add_array('tokenizer.ggml.suppress_tokens', tokenizer.suppressed_tokens())
    is_chat = 'stage' in model.saved.get('config', {})      # also with a chat template
    writer.add_add_bos_token(bool(tokenizer.begin) and not is_chat)
    if template := hf_tokenizer.chat_template(tokenizer):
        writer.add_eot_token_id(tokenizer.stop[-1])
        if is_chat:
            writer.add_chat_template(template)
    return f'\nnote: {NOTE}' if differs else ''


def patterns_of(spec):
    """Return the split patterns of a tokenizer.json, given as a dict."""
    parts = spec['pre_tokenizer'].get('pretokenizers', [spec['pre_tokenizer']])
    patterns = []
    for part in parts:
        if part['type'] == 'Split':
            patterns.append(part['pattern'].get('Regex', '').removesuffix(r'|[\s\S]'))
        elif part['type'] == 'Digits' and part['individual_digits']:
            patterns.append(r'\p{N}')
        elif part.get('use_regex', True):
            patterns.append(GPT2 if part['type'] == 'ByteLevel' else part['type'])
    return patterns


if __name__ == '__main__':
    sys.excepthook = report_error
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__, "out = ''     # folder to write, which must not exist", sep='\n'))
    path, out = [*sys.argv[1:], '', ''][:2]
    require(out.startswith('--out='), 'type: python -m extras.models.gguf FILE.gguf --out=FOLDER')
    out = os.path.expanduser(out.removeprefix('--out='))        # bash leaves --out=~/a as it is
    require(not os.path.exists(out), f'--out={out} is there already; choose another or move it')
    require_writable(out)
    hf_model.write(out, *read(path))
    print(f'next: python sample.py --ckpt={shlex.quote(out)} --chat=True')
