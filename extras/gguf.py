"""
GGUF, the one file in which llama.cpp, ollama and LM Studio keep a model: read, and written.

    python -m extras.gguf model.gguf --out=FOLDER           # for --init_from and --ckpt
    python -m extras.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf

A file of a Llama, Qwen2 or Qwen3, of whatever precision, becomes a folder of Hugging Face in
float32. A folder or a run becomes a file in float32; llama.cpp makes smaller ones of it:
llama-quantize model-f32.gguf q8_0. A GGUF file differs from our checkpoint in this:

- Tensors have other names (table_of).
- In a Llama, llama.cpp turns neighbors, x_2i with x_2i+1, by RoPE's angle, and we turn x_i with
  x_i+D/2. So the rows of q and k change places (interleave). In a Qwen they stay.
- llama.cpp cuts text into chunks by patterns that are compiled into it, and a file can only name
  one of them (PATTERNS). That of our own tokenizers is not among them. We name the nearest one, and
  mark tokens with a newline, so that they are cut out before it acts.
"""
import json, os, pathlib, shlex, sys
import numpy as np
import torch
from configurator import Mistake, require
from extras import fit, hf_model, hf_tokenizer
from model import stretch

# our names of the numbers in a config, and llama.cpp's
KEYS = {'block_size': 'context_length', 'n_layer': 'block_count', 'n_head': 'attention.head_count',
        'n_kv_head': 'attention.head_count_kv', 'n_embd': 'embedding_length',
        'n_ffn': 'feed_forward_length', 'norm_eps': 'attention.layer_norm_rms_epsilon',
        'rope_theta': 'rope.freq_base', 'head_dim': 'attention.key_length'}
# llama.cpp's names of split patterns that it has. SmolLM2's first cuts each digit out.
GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
PATTERNS = {'gpt-2': [GPT2], 'smollm': [r'\p{N}', GPT2],
            'llama-bpe': [WORDS], 'qwen2': [WORDS.replace('{1,3}', '')]}
OURS = {fit.PATTERNS['gpt2']: 'gpt-2', fit.PATTERNS['cl100k']: 'llama-bpe'}
DIFFERS = ("llama.cpp lacks this tokenizer's split pattern and cuts some texts in another way, "
           'with other ids; it has the pattern that python -m extras.fit --input=FILE '
           '--pattern=cl100k --out=tokenizer.json trains with')
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5      # types of a token
LIBRARY = 'gguf', 'a GGUF file needs the package gguf'


# --- what differs ---------------------------------------------------------------------------------
def table_of(family, config):
    """Return {Hugging Face's name: llama.cpp's name} of a model's tensors, such as
    {'model.layers.0.self_attn.q_proj.weight': 'blk.0.attn_q.weight'}."""
    gguf = hf_tokenizer.need(*LIBRARY)
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family]
    table = gguf.get_tensor_name_map(arch, config['n_layer'])
    return {name: table.get_name(name, ('.weight', '.bias'))
            for name in hf_model.names_of(config).values()}


def interleave(rows, a, b):
    """Reorder the rows of each head, a * b of them, as if they lay in an a x b table that is read
    by columns: with a, b = 2, D/2 for llama.cpp, 0 1 2 3 -> 0 2 1 3; with D/2, 2 it is undone."""
    return rows.reshape(-1, a, b, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def slowdown(config, scaling):
    """Return what Llama 3.1's scaling divides each frequency by, float32 (D/2,)."""
    D = config['head_dim']
    plain = config['rope_theta'] ** (-torch.arange(0, D, 2).double() / D)
    return (plain / stretch(plain, *scaling)).float().numpy()


# --- read -----------------------------------------------------------------------------------------
def read(path):
    """Return of a GGUF file what hf_model.write_files() takes: config.json, {name: tensor} and the
    tokenizer. And a card: license and name."""
    gguf = hf_tokenizer.need(*LIBRARY)
    try:
        file = gguf.GGUFReader(path)
        values = {key: field.contents() for key, field in file.fields.items()}
    except Exception as e:              # another format, or a file that was cut off
        raise Mistake(f'{path} is no whole GGUF file ({type(e).__name__}: {e})') from e
    family = values['general.architecture']
    require(family in hf_model.KINDS, f'{path} is a {family}; only {", ".join(hf_model.KINDS)} '
            'are read')
    get = lambda key, default=None: values.get(f'{family}.{key}', default)
    tensors = {tensor.name: tensor for tensor in file.tensors}
    try:
        config = {ours: get(key) for ours, key in KEYS.items()}
        config['n_kv_head'] = config['n_kv_head'] or config['n_head']
        config['head_dim'] = config['head_dim'] or config['n_embd'] // config['n_head']
        # float32 of 1e-5 is 9.999999747e-06.
        config['norm_eps'] = float(f'{config["norm_eps"]:.7g}')
        config['rope_theta'] = float(f'{config["rope_theta"] or 10000.0:.7g}')
        config['vocab_size'] = len(tensors['token_embd.weight'].data)
        config['tie_embeddings'] = 'output.weight' not in tensors
        config['qkv_bias'], config['qk_norm'] = hf_model.KINDS[family]
        config['rope_scaling'] = scaling_of(config, get, tensors.pop('rope_freqs.weight', None))
        weights = {}
        for name, theirs in table_of(family, config).items():
            if name == 'lm_head.weight' and config['tie_embeddings']:
                continue
            tensor = tensors.pop(theirs)
            array = gguf.dequantize(tensor.data, tensor.tensor_type)
            if family == 'llama' and name.endswith(('q_proj.weight', 'k_proj.weight')):
                array = interleave(array, config['head_dim'] // 2, 2)
            weights[name] = torch.tensor(array)
        require(not tensors, f'a {family} has no tensor {min(tensors, default="")}')
    except (KeyError, TypeError, NotImplementedError, Mistake) as e:
        why = e if isinstance(e, Mistake) else f'{type(e).__name__}: {e}'
        raise Mistake(f'{path} is no {family} that model.py can be: {why}') from e
    try:
        tokenizer = tokenizer_of(values)
    except Mistake as e:
        raise Mistake(f'{path}: {e}') from e
    card = (f'---\nlicense: {values.get("general.license", "other")}\n---\n'
            f'# {values.get("general.name", "")}\n\nFrom {os.path.basename(path)}.\n')
    return hf_model.config_of(config, 'float32'), weights, tokenizer, card


def scaling_of(config, get, freqs):
    """Return rope_scaling. Of Llama 3.1's four numbers a file holds only what they result in."""
    kind = get('rope.scaling.type', 'none')
    require(kind in ('none', 'linear'), f'rope.scaling.type={kind} is not supported')
    D = config['head_dim']
    require(get('rope.dimension_count', D) == D, 'RoPE turns only a part of each head')
    if freqs is None:
        return (get('rope.scaling.factor'),) if kind == 'linear' else ()
    scaling = float(freqs.data.max()), 1.0, 4.0, get('rope.scaling.original_context_length', 8192.0)
    require(np.allclose(slowdown(config, scaling), freqs.data, rtol=1e-4),
            'rope_freqs.weight is not that of Llama 3.1')
    return scaling


def tokenizer_of(values):
    """Return the HFTokenizer of a file, with its chat template."""
    values = {key.removeprefix('tokenizer.').removeprefix('ggml.'): value
              for key, value in values.items() if key.startswith('tokenizer.')}
    require(values.get('model') == 'gpt2', f'its tokenizer is of the kind {values.get("model")}, '
            'and only byte-level BPE (gpt2) is read')
    pre = values.get('pre')
    require(pre in PATTERNS, f'its pre-tokenizer is {pre}; only {", ".join(PATTERNS)} are read')
    tokens, kinds = values['tokens'], dict(zip(values['tokens'], values['token_type']))
    ids = {token: i for i, token in enumerate(tokens) if kinds[token] != UNUSED}
    # A merge into something that is no token never happens.
    pairs = (merge.split(' ') for merge in values.get('merges', []))
    merges = [(a, b) for a, b in pairs if a + b in ids]
    special, whole = ([token for token in ids if kinds[token] == kind]
                      for kind in (CONTROL, USER_DEFINED))
    begins = values.get('add_bos_token', pre == 'llama-bpe')
    form = hf_tokenizer.byte_level(ids, merges, PATTERNS[pre], special, whole,
                                   tokens[values['bos_token_id']] if begins else '')
    form['model']['ignore_merges'] = pre == 'llama-bpe'     # a chunk that is a token is that token
    form['normalizer'] = {'type': 'NFC'} if pre == 'qwen2' else None    # é is one character, not two
    return hf_tokenizer.HFTokenizer(json.dumps(form), template=values.get('chat_template', ''))


# --- write ----------------------------------------------------------------------------------------
def patterns_of(form):
    """Return the split patterns in the dict of a tokenizer.json."""
    parts = form['pre_tokenizer']
    patterns = []
    for part in parts.get('pretokenizers', [parts]):
        if part['type'] == 'Split':
            patterns.append(part['pattern'].get('Regex'))
        elif part['type'] == 'Digits':
            patterns.append(r'\p{N}' if part['individual_digits'] else r'\p{N}+')
        elif part.get('use_regex', True):
            patterns.append(GPT2)
    return patterns


def write(path, model, tokenizer):
    """Write a GPT and its tokenizer as a GGUF file. Return the text to print. A model of sft.py,
    dpo.py or rl.py is for chat, so its file has the chat template, as has one whose folder has it,
    and llama.cpp puts nothing before a text. Otherwise it puts <|endoftext|> there."""
    gguf = hf_tokenizer.need(*LIBRARY)
    theirs, tensors = hf_model.check(model)         # config.json, {transformers' name: tensor}
    config, family = vars(model.config), theirs['model_type']
    D, scaling = config['head_dim'], config['rope_scaling']
    writer = gguf.GGUFWriter(None, family)
    for ours, key in KEYS.items():
        add = writer.add_float32 if isinstance(config[ours], float) else writer.add_uint32
        add(f'{family}.{key}', config[ours])
    writer.add_vocab_size(config['vocab_size'])
    writer.add_rope_dimension_count(D)
    writer.add_value_length(D)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    note = add_tokenizer(writer, model, tokenizer)

    if len(scaling) == 1:           # all frequencies are divided by one number
        writer.add_string(f'{family}.rope.scaling.type', 'linear')
        writer.add_rope_scaling_factor(scaling[0])
    elif scaling:                   # each is divided by a number of its own, which the file holds
        require(family == 'llama', f'llama.cpp has no {family} with the rope_scaling of Llama 3.1')
        writer.add_rope_scaling_orig_ctx_len(int(scaling[3]))
        writer.add_tensor('rope_freqs.weight', slowdown(config, scaling))
    for name, key in table_of(family, config).items():
        if name in tensors:         # not lm_head, if it is the embedding
            array = tensors[name].float().cpu().numpy()
            is_turned = family == 'llama' and key.endswith(('attn_q.weight', 'attn_k.weight'))
            writer.add_tensor(key, interleave(array, 2, D // 2) if is_turned else array)
    try:
        writer.write_header_to_file(pathlib.Path(f'{path}.tmp'))
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(f'{path}.tmp', path)
    except OSError:                     # the old file stays
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        raise
    return (f'{path}: {os.path.getsize(path) / 1e6:.1f} MB; next: llama-cli -m '
            f'{shlex.quote(str(path))}{note}')


def add_tokenizer(writer, model, tokenizer):
    """Write tokens, types, merges, special ids and, for chat, the template. Return a note, or ''."""
    form = hf_tokenizer.their_form(tokenizer)
    tokens = {id: token for token, id in form['model']['vocab'].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for token in form['added_tokens']:
        tokens[token['id']] = token['content']
        types[token['id']] = CONTROL if token['special'] else USER_DEFINED
    patterns = patterns_of(form)
    pre = next((name for name, its in PATTERNS.items() if its == patterns), None)
    if tokenizer.kind == 'hf':
        require(pre, f"llama.cpp's name of this tokenizer's split patterns is unknown: {patterns}; "
                "use --to=hf, and llama.cpp's convert_hf_to_gguf.py on the folder hf")
    elif len(tokenizer.vocab) == 256:   # without merges, any pattern does
        pre = 'gpt-2'
    else:
        pre = OURS.get(tokenizer.pattern.removesuffix(r'|[\s\S]'))
        if not pre:
            for id, token in enumerate(tokenizer.vocab):
                if b'\n' in token and token.decode(errors='replace').encode() == token:
                    # llama.cpp cuts these out of a text before the pattern acts.
                    tokens[id] = token.decode()
                    types[id] = USER_DEFINED

    rows = range(model.config.vocab_size)           # of some, no token has them
    writer.add_tokenizer_model('gpt2')    # byte-level BPE
    writer.add_tokenizer_pre(pre or 'llama-bpe')
    writer.add_token_list([tokens.get(id, f'[PAD{id}]') for id in rows])
    writer.add_token_types([types.get(id, UNUSED) for id in rows])
    merges = [' '.join(pair) for pair in form['model']['merges']]
    # llama.cpp insists on a merge. This one never happens.
    writer.add_token_merges(merges or ['<|none|> <|none|>'])
    for id in tokenizer.begin:
        writer.add_bos_token_id(id)
    for id in tokenizer.stop[:1]:
        writer.add_eos_token_id(id)
    # llama.cpp reads this since August 2026. The package gguf has no name for it.
    writer.add_array('tokenizer.ggml.suppress_tokens', tokenizer.never_in_answers())
    is_chat = 'stage' in model.saved.get('config', {}) or getattr(tokenizer, 'template', '')
    writer.add_add_bos_token(bool(tokenizer.begin) and not is_chat)
    if '<|im_end|>' in tokenizer.special:
        writer.add_eot_token_id(tokenizer.special['<|im_end|>'])
        if is_chat:
            writer.add_chat_template(hf_tokenizer.template_of(tokenizer))
    return '' if pre else f'\nnote: {DIFFERS}'


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    path, out = sorted(sys.argv[1:], key=lambda word: word.startswith('--out='))
    out = out.removeprefix('--out=')
    require(not os.path.exists(out), f'--out={out} is there already; name another, or move it away')
    *files, card = read(path)
    hf_model.write_files(f'{out}.tmp', *files)
    pathlib.Path(f'{out}.tmp', 'README.md').write_text(card, encoding='utf-8', newline='\n')
    os.rename(f'{out}.tmp', out)
    print(f'{out}: for --init_from and --ckpt; next: python sample.py --ckpt={shlex.quote(out)} '
          "--chat=True --prompt='Who are you?'")
