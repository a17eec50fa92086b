"""
GGUF, the one file in which llama.cpp, ollama and LM Studio keep a model: read, and written.

    python -m extras.models.gguf model.gguf --out=FOLDER           # for --init_from and --ckpt
    python -m extras.models.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf

A Llama, Qwen2 or Qwen3 in any precision becomes a folder of Hugging Face in float32. What we write
is in float32, too, and llama-quantize model-f32.gguf q8_0 makes it smaller. What differs:
- llama.cpp turns neighbors, x_2i with x_2i+1, of a Llama by RoPE's angle, and we turn x_i with
  x_i+D/2. So the rows of q and k change places.
- It cuts text into chunks by patterns that it has, and a file names one of them. For ours we name
  the nearest one, and mark tokens with a newline, so that they are cut out before it acts.
"""
import json, os, pathlib, shlex, sys
import numpy as np
import torch
from configurator import UserError, report_error, require, require_writable
from extras.models import hf_model, hf_tokenizer
from extras.training import tokenizer_report
from model import stretch

gguf = hf_tokenizer.package('a GGUF file', 'gguf')
# our names of the numbers in a config, and llama.cpp's
KEYS = {'block_size': 'context_length', 'n_layer': 'block_count', 'n_head': 'attention.head_count',
        'n_kv_head': 'attention.head_count_kv', 'n_embd': 'embedding_length',
        'n_ffn': 'feed_forward_length', 'norm_eps': 'attention.layer_norm_rms_epsilon',
        'rope_theta': 'rope.freq_base', 'head_dim': 'attention.key_length'}
# GPT-2's split pattern, which Hugging Face's ByteLevel has built in
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# llama.cpp's names of split patterns; tokenizer_report.py writes two of them in another way
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
PATTERNS = {'gpt-2': [GPT2], 'smollm': [r'\p{N}', GPT2],
            'llama-bpe': [WORDS], 'qwen2': [WORDS.replace('{1,3}', '')]}
OURS = {'gpt-2': [tokenizer_report.PATTERNS['gpt2']],
        'llama-bpe': [tokenizer_report.PATTERNS['cl100k']]}
DIFFERS = ("llama.cpp lacks this tokenizer's split pattern, so some texts get other ids; it has "
           "that of Tokenizer.train(texts, vocab_size, pattern=PATTERNS['cl100k']) (docs/use.md)")
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5      # types of a token


def table_of(family, config):
    """Return {Hugging Face's name: llama.cpp's}: {'lm_head.weight': 'output.weight', ...}."""
    table = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, family.upper()), config['n_layer'])
    return {name: table.get_name(name, ('.weight', '.bias'))
            for name in hf_model.names_of(config).values()
            if name != 'lm_head.weight' or not config['tie_embeddings']}


def reordered(family, key, array, D, n):
    """Return a weight. In a Llama's q and k, the D rows of each head change places: n = 2 turns
    rows 0 1 2 3 of a head into 0 2 1 3, which is llama.cpp's order, and n = D / 2 turns it back."""
    if family != 'llama' or not key.endswith(('attn_q.weight', 'attn_k.weight')):
        return array
    return array.reshape(-1, n, D // n, array.shape[1]).swapaxes(1, 2).reshape(array.shape)


def slowdown(config):
    """Return what Llama 3.1's rope_scaling divides each frequency by, float32 (D/2,)."""
    D = config['head_dim']
    plain = config['rope_theta'] ** (-torch.arange(0, D, 2).double() / D)
    return (plain / stretch(plain, *config['rope_scaling'])).float().numpy()


# --- read -----------------------------------------------------------------------------------------
def read(path):
    """Return what hf_model.write() takes, read from a GGUF file."""
    try:
        hf_model.check_pointer(path)
        file = gguf.GGUFReader(path)
        values = {key: field.contents() for key, field in file.fields.items()}
        tensors = {tensor.name: tensor for tensor in file.tensors}
        parts, kind = values.get('split.count', 1), values.get('general.type', 'model')
        require(parts < 2, f'it is one of {parts} parts; join them: llama-gguf-split --merge')
        require(kind == 'model', f'it is no model, but of the type {kind}')
        family = values['general.architecture']
        require(family in hf_model.KINDS, f'{family} is none of {", ".join(hf_model.KINDS)}')
        get = lambda key, default=None: values.get(f'{family}.{key}', default)
        config = config_of(family, get, tensors)
        weights, D = {}, config['head_dim']
        for name, key in table_of(family, config).items():
            tensor = tensors.pop(key)
            array = gguf.dequantize(tensor.data, tensor.tensor_type)
            array = reordered(family, key, array, D, n=D // 2)
            weights[name] = torch.tensor(array)
        require(not tensors, f'model.py has no {min(tensors, default="")}')
        tokenizer = tokenizer_of(values)
    except Exception as e:              # another format, a missing key, a file that was cut off
        why = e if isinstance(e, UserError) else f'{type(e).__name__}: {e}'
        raise UserError(f'{path} cannot be read: {why}') from e
    return hf_model.config_of(config), weights, tokenizer


def config_of(family, get, tensors):
    """Return the config of a file under our names, and take rope_freqs.weight out of tensors."""
    config = {ours: get(key) for ours, key in KEYS.items()}
    D = config['head_dim'] = config['head_dim'] or config['n_embd'] // config['n_head']
    config['norm_eps'] = float(f'{config["norm_eps"]:.7g}')     # float32 has 9.999999747e-06
    config['rope_theta'] = float(config['rope_theta'] or 10000)
    config['vocab_size'] = len(tensors['token_embd.weight'].data)
    config['tie_embeddings'] = 'output.weight' not in tensors
    config['qkv_bias'], config['qk_norm'] = hf_model.KINDS[family]
    kind, turned = get('rope.scaling.type', 'none'), get('rope.dimension_count', D)
    require(kind in ('none', 'linear') and turned == D, f'RoPE of the kind {kind} that turns '
            f'{turned} of {D} numbers is not supported')
    config['rope_scaling'] = (get('rope.scaling.factor'),) if kind == 'linear' else ()
    if 'rope_freqs.weight' in tensors:          # what Llama 3.1's four numbers result in
        divisors = tensors.pop('rope_freqs.weight').data
        T_old = float(get('rope.scaling.original_context_length', 8192))
        config['rope_scaling'] = float(divisors.max()), 1.0, 4.0, T_old
        require(np.allclose(slowdown(config), divisors, rtol=1e-4),
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
    special, whole = ([token for token in ids if types[token] == kind]
                      for kind in (CONTROL, USER_DEFINED))
    # A merge into something that is no token never happens.
    merges = [(a, b) for a, b in map(str.split, get('merges', [])) if a + b in ids]
    begin = tokens[get('bos_token_id')] if get('add_bos_token', pre == 'llama-bpe') else ''
    form = hf_tokenizer.byte_level(ids, merges, PATTERNS[pre], special, whole, begin)
    form['model']['ignore_merges'] = pre == 'llama-bpe'     # a chunk that is a token is that token
    form['normalizer'] = {'type': 'NFC'} if pre == 'qwen2' else None    # e and an accent are one é
    ids = {kind: get(f'{kind}_token_id') for kind in ('bos', 'eos', 'eot', 'eom')}
    chat = {'template': values.get('tokenizer.chat_template'), 'never': get('suppress_tokens'),
            'stop': [ids[kind] for kind in ('eos', 'eot', 'eom') if ids[kind] is not None],
            'names': {f'{kind}_token': tokens[ids[kind]] for kind in ('bos', 'eos')
                      if ids[kind] is not None}}
    return hf_tokenizer.HFTokenizer(json.dumps(form), {key: chat[key] for key in chat if chat[key]})


# --- write ----------------------------------------------------------------------------------------
def write(path, model, tokenizer):
    """Write a GPT and its tokenizer as a GGUF file. Return the text to print."""
    require_writable(path)
    theirs, tensors = hf_model.translated(model)    # config.json, {transformers' name: tensor}
    config, family = vars(model.config), theirs['model_type']
    D, scaling = config['head_dim'], config['rope_scaling']
    writer = gguf.GGUFWriter(None, family)
    for ours, key in KEYS.items():
        add = writer.add_float32 if isinstance(config[ours], float) else writer.add_uint32
        add(f'{family}.{key}', config[ours])
    writer.add_vocab_size(config['vocab_size'])
    writer.add_rope_dimension_count(D)
    writer.add_value_length(D)
    note = add_tokenizer(writer, model, tokenizer)
    if len(scaling) == 1:
        writer.add_string(f'{family}.rope.scaling.type', 'linear')
        writer.add_rope_scaling_factor(scaling[0])
    elif scaling:
        require(family == 'llama', f'llama.cpp has no {family} with the rope_scaling of Llama 3.1')
        writer.add_rope_scaling_orig_ctx_len(int(scaling[3]))
        writer.add_tensor('rope_freqs.weight', slowdown(config))
    for name, key in table_of(family, config).items():
        array = tensors[name].float().cpu().numpy()
        writer.add_tensor(key, reordered(family, key, array, D, n=2))
    writer.write_header_to_file(pathlib.Path(f'{path}.tmp'))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(f'{path}.tmp', path)     # if the disk is full, the old file stays
    return (f'{path}: {os.path.getsize(path) / 1e6:.1f} MB; next: llama-cli -m '
            f'{shlex.quote(str(path))}{note}')


def add_tokenizer(writer, model, tokenizer):
    """Write the tokenizer. Return a note, or ''. A model of sft.py, dpo.py or rl.py, or with a chat
    template beside it, is for chat: the file gets the template, and llama.cpp puts nothing before a
    text. Otherwise it puts <|endoftext|> there."""
    form = hf_tokenizer.their_form(tokenizer)
    tokens = {id: token for token, id in form['model']['vocab'].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for token in form['added_tokens']:
        tokens[token['id']] = token['content']
        types[token['id']] = CONTROL if token['special'] else USER_DEFINED
    merges = [' '.join(pair) for pair in form['model']['merges']]
    named = [name for name, patterns in [*PATTERNS.items(), *OURS.items()]
             if patterns == patterns_of(form)]
    require(named or tokenizer.kind == 'bpe', "this tokenizer's split patterns have no name here; "
            "use --to=hf, and llama.cpp's convert_hf_to_gguf.py on the folder hf")
    pre = named[0] if named else 'llama-bpe' if merges else 'gpt-2'
    differs = merges and not named      # without merges, any pattern does
    for id, token in enumerate(tokenizer.all_bytes if differs else []):
        if b'\n' in token and token.decode(errors='replace').encode() == token:
            tokens[id], types[id] = token.decode(), USER_DEFINED
    rows = range(model.config.vocab_size)           # of some, no token has them
    writer.add_tokenizer_model('gpt2')    # byte-level BPE
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens.get(id, f'[PAD{id}]') for id in rows])
    writer.add_token_types([types.get(id, UNUSED) for id in rows])
    # llama.cpp insists on a merge. This one never happens.
    writer.add_token_merges(merges or ['<|none|> <|none|>'])
    # A template of its own may write the tokens that its folder names so.
    names = tokenizer.chat.get('names', {}) if getattr(tokenizer, 'template', None) else {}
    for kind, ids in ('bos', tokenizer.begin), ('eos', tokenizer.stop):
        for id in ids[:1]:
            id = tokenizer.special.get(names.get(f'{kind}_token'), id)
            writer.add_uint32(f'tokenizer.ggml.{kind}_token_id', id)
    # llama.cpp reads this since August 2026. The package gguf has no name for it.
    writer.add_array('tokenizer.ggml.suppress_tokens', tokenizer.suppressed_tokens())
    is_chat = 'stage' in model.saved.get('config', {})      # also of a folder with a template
    writer.add_add_bos_token(bool(tokenizer.begin) and not is_chat)
    if template := hf_tokenizer.template_of(tokenizer):
        writer.add_eot_token_id(tokenizer.stop[-1])
        if is_chat:
            writer.add_chat_template(template)
    return f'\nnote: {DIFFERS}' if differs else ''


def patterns_of(form):
    """Return the split patterns in the dict of a tokenizer.json."""
    parts = form['pre_tokenizer'].get('pretokenizers', [form['pre_tokenizer']])
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
    require(not os.path.exists(out), f'--out={out} is there already; name another, or move it away')
    require_writable(out)
    hf_model.write(out, *read(path))
    print(f'next: python sample.py --ckpt={shlex.quote(out)} --chat=True')
