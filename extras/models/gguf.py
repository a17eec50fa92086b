"""
Write GGUF, the file format of llama.cpp, ollama and LM Studio, for export.

    python -m extras.models.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf

The weights are float32; llama-quantize model-f32.gguf q8_0 makes the file smaller. GGUF files are
not read: to start from a published model, download the Hugging Face folder that its GGUF file was
made from. GGUF differs from our checkpoints in two ways:
- llama.cpp's RoPE rotates the pairs (x_2i, x_2i+1) of a Llama, ours the pairs (x_i, x_i+D/2), so
  the rows of w_q and w_k are permuted.
- llama.cpp splits text by built-in patterns, and a file names one of them. For our pattern we name
  the most similar one, and mark tokens with a newline as added, so that they are matched first.
"""
import os, pathlib, shlex
import torch
from configurator import require, require_writable
from extras.models import hf_model, hf_tokenizer
from extras.training import tokenizer_report
from model import scale_frequencies

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


def permute_rope(arch, key, array, D):
    """Return a weight. In a Llama's w_q and w_k, permute the D rows of each head into llama.cpp's
    order: with D = 4, rows 0 1 2 3 become 0 2 1 3."""
    if arch != 'llama' or not key.endswith(('attn_q.weight', 'attn_k.weight')):
        return array
    return array.reshape(-1, 2, D // 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)


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
    if scaling:         # of a context that train.py extended, or of Llama 3.1
        require(arch == 'llama' and len(scaling) == 4, f'a GGUF file of a {arch} with '
                f"rope_scaling={scaling} isn't supported; use --to=hf, and llama.cpp's "
                'convert_hf_to_gguf.py on the folder hf')
        writer.add_rope_scaling_orig_ctx_len(int(scaling[3]))
        frequencies = config['rope_theta'] ** (-torch.arange(0, D, 2).double() / D)
        divisors = frequencies / scale_frequencies(frequencies, *scaling)         # (D/2,)
        writer.add_tensor('rope_freqs.weight', divisors.float().numpy())
    for name, key in tensor_names(arch, config).items():
        array = tensors[name].float().cpu().numpy()
        writer.add_tensor(key, permute_rope(arch, key, array, D))
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
