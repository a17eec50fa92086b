"""
GGUF: a model and its tokenizer as the one file that llama.cpp and ollama read.

    print(publish('out/sft', model, tokenizer))     # makes out/sft/model-f32.gguf

It differs from our checkpoint in this:
- llama.cpp turns neighbors, x_2i with x_2i+1, by RoPE's angle, and we turn x_i with x_i+D/2. So
  rows of q and k change places.
- It cuts text into chunks by patterns that are compiled into it, and a file can only name one of
  them (NAMES). Ours is not among them. We name the nearest one, and mark tokens with a newline, so
  that they are cut out before it acts.
- All weights are float32. llama.cpp makes smaller files: llama-quantize model-f32.gguf q8_0

Only a plain Llama is written, because the tokenizers of other models cannot be written anyway.
"""
import os, pathlib
import torch
from configurator import Mistake
from extras import fit, hf_model, hf_tokenizer
from model import stretch

# llama.cpp's names of the split patterns that it has; Llama 3's joins newlines
NAMES = {fit.PATTERNS['gpt2']: 'gpt-2', fit.PATTERNS['cl100k']: 'llama-bpe', fit.PATTERN: 'gpt-2'}
DIFFERS = ("llama.cpp lacks this tokenizer's split pattern and cuts some texts in another way, "
           'with other ids; python tokenizer.py --pattern=cl100k trains a tokenizer whose pattern '
           'it has')
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4     # types of a token


def publish(ckpt, model, tokenizer):
    """Write model-f32.gguf, a GPT and its tokenizer, into a run's folder. ckpt: the folder, or a
    .pt file in it. Return the text to print. A model of sft.py, dpo.py or rl.py is for chat, so its
    file has the chat template, and llama.cpp puts nothing before a text. Otherwise it puts
    <|endoftext|> there."""
    try:
        import gguf
    except ImportError:
        raise Mistake('a GGUF file needs the package gguf: pip install gguf') from None
    c = model.config
    if tokenizer.kind != 'bpe':
        raise Mistake(f'a GGUF file takes our own byte-level BPE, not a tokenizer of kind '
                      f"{tokenizer.kind}. One of Hugging Face's takes two commands: sample.py with "
                      "--export=hf, then llama.cpp's convert_hf_to_gguf.py on the folder hf")
    if c.qkv_bias or c.qk_norm:
        raise Mistake('a GGUF file takes a plain Llama, but this model has the biases of Qwen2 or '
                      'the norms of Qwen3; --export=hf takes both')
    hf_model.check(model)               # you may have edited model.py
    chat = 'stage' in model.saved.get('config', {})             # of sft.py, dpo.py or rl.py
    pre = pre_tokenizer(tokenizer)
    tensors = rename(model, gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.n_layer))
    D = c.head_dim

    writer = gguf.GGUFWriter(None, 'llama')
    sizes = {'context_length': c.block_size, 'embedding_length': c.n_embd, 'block_count': c.n_layer,
             'feed_forward_length': c.n_ffn, 'vocab_size': c.vocab_size, 'rope.dimension_count': D,
             'attention.head_count': c.n_head, 'attention.head_count_kv': c.n_kv_head,
             'attention.key_length': D, 'attention.value_length': D}
    for name, size in sizes.items():
        writer.add_uint32(f'{writer.arch}.{name}', size)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    if len(c.rope_scaling) == 1:    # all frequencies are divided by one number
        writer.add_string(f'{writer.arch}.rope.scaling.type', 'linear')
        writer.add_rope_scaling_factor(c.rope_scaling[0])
    add_tokenizer(writer, tokenizer, pre, chat)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, array in tensors.items():
        if name.split('.')[-2] in ('attn_q', 'attn_k'):
            # The rows of each head in the order 0, D/2, 1, D/2 + 1, ...
            halves = array.reshape(-1, 2, D // 2, c.n_embd)
            array = halves.swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(name, array)
    folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt) or '.'
    path = os.path.join(folder, 'model-f32.gguf')
    try:
        writer.write_header_to_file(pathlib.Path(f'{path}.tmp'))
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(f'{path}.tmp', path)
    except OSError:                     # the old file stays
        os.unlink(f'{path}.tmp')
        raise
    text = f'{path}: {os.path.getsize(path) / 1e6:.1f} MB; next: llama-cli -m {path}'
    return text if pre else f'{text}\nnote: {DIFFERS}'


# --- the weights ----------------------------------------------------------------------------------
def rename(model, names):
    """Return {llama.cpp's name: float32 array} of a GPT's tensors: (rows out, columns in), or
    (width,). names: the package gguf's table of transformers' names."""
    arrays, theirs = {}, hf_model.names_of(vars(model.config))
    for name, tensor in model.state_dict().items():
        array = tensor.float().cpu().numpy()
        if name in ('embedding.weight', 'head.weight'):
            array = array[:model.config.vocab_size]         # without rows that fill up a multiple
        if name != 'head.weight' or not model.config.tie_embeddings:
            arrays[names.get_name(theirs[name], ('.weight',))] = array
    if len(model.config.rope_scaling) == 4:
        # Llama 3.1 divides each frequency by a number of its own, which the file holds.
        D = model.config.head_dim
        plain = model.config.rope_theta ** (-torch.arange(0, D, 2).double() / D)
        slower = stretch(plain, *model.config.rope_scaling)
        arrays['rope_freqs.weight'] = (plain / slower).float().numpy()          # (D/2,)
    return arrays


# --- the tokenizer --------------------------------------------------------------------------------
def pre_tokenizer(tokenizer):
    """Return llama.cpp's name of the tokenizer's split pattern, or None."""
    if len(tokenizer.vocab) == 256:
        return 'gpt-2'    # any pattern does without merges
    return NAMES.get(tokenizer.pattern.removesuffix(r'|[\s\S]'))


def add_tokenizer(writer, tokenizer, pre, chat):
    """Write tokens, types, merges, special ids and, for chat, the template. pre: what
    pre_tokenizer() returns."""
    vocab = tokenizer.to_json()['vocab']                        # in GPT-2's visible form of bytes
    tokens = [*vocab, *tokenizer.special]
    types = [NORMAL] * len(vocab) + [CONTROL] * len(tokenizer.special)
    merges = [' '.join(pair) for pair in hf_tokenizer.pairs_of_tokens(vocab)]
    if not pre:
        for id, token in enumerate(tokenizer.vocab):
            if b'\n' in token and token.decode(errors='replace').encode() == token:
                # llama.cpp cuts these out of a text before the pattern acts.
                tokens[id] = token.decode()
                types[id] = USER_DEFINED

    writer.add_tokenizer_model('gpt2')    # byte-level BPE
    writer.add_tokenizer_pre(pre or 'llama-bpe')
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp insists on a merge. This one never happens.
    writer.add_token_merges(merges or ['<|none|> <|none|>'])
    for id in tokenizer.begin:
        writer.add_bos_token_id(id)
    for id in tokenizer.stop[:1]:
        writer.add_eos_token_id(id)
    # llama.cpp reads this since August 2026. The package gguf has no name for it.
    writer.add_array('tokenizer.ggml.suppress_tokens', tokenizer.never_in_answers())
    writer.add_add_bos_token(bool(tokenizer.begin) and not chat)
    if '<|im_end|>' in tokenizer.special:
        writer.add_eot_token_id(tokenizer.special['<|im_end|>'])
        if chat:
            writer.add_chat_template(hf_tokenizer.CHAT_TEMPLATE)
