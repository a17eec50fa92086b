"""
Hugging Face's files: a Llama folder as a config and tensors under our names, a tokenizer.json as functions.

    config, tensors = read_llama('SmolLM2-135M')    # {'n_layer': 30, ...}, {'embedding.weight': (V, C), ...}
    write_llama('exported', config, tensors)        # as LlamaForCausalLM of transformers reads it
    reader = Reader(open('tokenizer.json').read(), from_printable)
    reader.encode('hi')                             # [5303]

The tensor layouts are the same on both sides (rotate-half RoPE, gate/up/down): weights are only renamed.
Copy this file alone: it needs safetensors for Llama folders, and tokenizers for tokenizer.json.
"""
import glob, json, os, re

# --- Llama folders: config.json and *.safetensors -----------------------------------------------------------
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
    found = {'num_key_value_heads': None, 'tie_word_embeddings': False, 'head_dim': None,   # may be omitted
             'model_type': 'llama', 'rope_type': rope.get('type') or 'default', **theirs, **rope}
    ropes = {'default': (), 'linear': ('factor',), 'llama3': LLAMA_3}                       # their parameters
    supported = {'model_type': KINDS, 'hidden_act': ['silu'], 'attention_bias': [False], 'mlp_bias': [False],
                 'use_sliding_window': [False], 'rope_interleaved': [False], 'rope_type': ropes,
                 'quantization_config': [None]}
    for key, ours in supported.items():
        if found.get(key) not in (*ours, None):
            raise ValueError(f'{key}={found[key]!r:.80} is not supported, only {" or ".join(map(str, ours))}')
    config = {ours: found[name] for ours, name in NAMES.items()}
    config['rope_theta'] = float(found.get('rope_theta') or 10000.0)
    config['rope_scaling'] = tuple(float(rope[key]) for key in ropes[found['rope_type']])
    config['qkv_bias'], config['qk_norm'] = KINDS[found['model_type']]
    return config


def read_llama(folder):
    """config.json and all *.safetensors of a folder -> (config, tensors), both under our names. ValueError
    names the file that is missing, damaged or neither a Llama's nor a Qwen's."""
    safetensors = import_safetensors()
    reading = os.path.join(folder, 'config.json')
    try:
        with open(reading, encoding='utf-8') as f:
            config = read_config(json.load(f))
        found = {}
        for reading in sorted(glob.glob(os.path.join(glob.escape(folder), '*.safetensors'))):
            found |= safetensors.load_file(reading)
        tensors = {}
        for ours, (theirs, shape) in layout(config).items():
            there = list(found[theirs].shape) if theirs in found else 'not there'
            if there != shape:
                raise ValueError(f'tensor {theirs} is {there}, expected {shape}')
            tensors[ours] = found[theirs]
    except Exception as e:              # broken JSON, a missing key, a file that was cut off, ...
        raise ValueError(f'{reading} cannot be read as a Llama model: {type(e).__name__}: {e}') from e
    if config['tie_embeddings']:
        tensors['head.weight'] = tensors['embedding.weight']
    return config, tensors


def write_llama(folder, config, tensors):
    """Write config.json and model.safetensors. config: GPTConfig's fields. tensors: a model's state_dict."""
    safetensors = import_safetensors()
    kind = {has: kind for kind, has in KINDS.items()}.get((config['qkv_bias'], config['qk_norm']))
    if not kind or not config['causal']:
        raise ValueError('transformers has no model with causal=False, or with both qkv_bias and qk_norm')
    os.makedirs(folder, exist_ok=True)
    renamed = {theirs: tensors[ours][:shape[0]].contiguous()        # without rows that fill up a multiple
               for ours, (theirs, shape) in layout(config).items()}
    safetensors.save_file(renamed, os.path.join(folder, 'model.safetensors'), metadata={'format': 'pt'})

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


# --- tokenizer.json -----------------------------------------------------------------------------------------
BEGINS = '<|endoftext|>'            # stands before each document of ours
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
                 '{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}')
THEIR_ENDS = '<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'
THEIR_BEGINS = '<|begin_of_text|>', '<s>', '<bos>'


def write_tokenizer(folder, tokenizer, block_size):
    """Write a tokenizer of tokenizer.py as AutoTokenizer of transformers reads it: the same ids, documents
    that begin with <|endoftext|>, its chat template, and the ids at which generate() stops."""
    form = tokenizer.to_json()
    if tokenizer.kind != 'hf':                  # else it is theirs already
        form = to_their_form(form, tokenizer.special)
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False,
                'model_max_length': block_size}
    generation = {}
    if '<|im_end|>' in tokenizer.special:
        settings['chat_template'] = CHAT_TEMPLATE
    if tokenizer.begin and tokenizer.stop:
        names = {id: name for name, id in reversed(tokenizer.special.items())}      # the alias is last
        pad = tokenizer.special.get('<|pad|>', tokenizer.stop[0])
        settings |= {'bos_token': names[tokenizer.begin[0]], 'eos_token': names[tokenizer.stop[0]],
                     'pad_token': names[pad]}
        generation = {'bos_token_id': tokenizer.begin[0], 'eos_token_id': tokenizer.stop, 'pad_token_id': pad}
    files = {'tokenizer': form, 'tokenizer_config': settings, 'generation_config': generation,
             'special_tokens_map': {name: settings[name] for name in settings if name.endswith('_token')}}
    for name, content in files.items():
        with open(os.path.join(folder, f'{name}.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump(content, f, ensure_ascii=False, indent=1)


def to_their_form(ours, special):
    """Our tokenizer's JSON in their form. A merge is any pair of tokens whose union is one, as tiktoken's."""
    ids = {token: i for i, token in enumerate(ours['vocab'])}
    pattern = ours['pattern'] if ours['kind'] == 'bpe' else r'[\s\S]'       # one character at a time
    split = {'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'Isolated', 'invert': False}
    form = {'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': [], 'normalizer': None,
            'pre_tokenizer': split, 'post_processor': None, 'decoder': {'type': 'Fuse'},
            'model': {'type': 'WordLevel', 'vocab': ids, 'unk_token': ''}}
    for name, id in special.items():
        form['added_tokens'].append({'id': id, 'content': name, 'special': True, 'normalized': False,
                                     'single_word': False, 'lstrip': False, 'rstrip': False})
    if BEGINS in special:
        begin, a, b = ({kind: {'id': id, 'type_id': 0}} for kind, id in (
            ('SpecialToken', BEGINS), ('Sequence', 'A'), ('Sequence', 'B')))
        form['post_processor'] = {
            'type': 'TemplateProcessing', 'single': [begin, a], 'pair': [begin, a, b],
            'special_tokens': {BEGINS: {'id': BEGINS, 'ids': [special[BEGINS]], 'tokens': [BEGINS]}}}
    if ours['kind'] == 'bpe':
        level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': False, 'use_regex': False}
        merges = [[token[:i], token[i:]] for token in ours['vocab'] for i in range(1, len(token))
                  if token[:i] in ids and token[i:] in ids]
        form |= {'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [split, level]}, 'decoder': level,
                 'model': {'type': 'BPE', 'vocab': ids, 'merges': merges}}
    return form


class Reader:
    """A byte-level BPE or SentencePiece tokenizer, run by their library `tokenizers`.

    special     {name: id}; the end of a text also has the name <|endoftext|>. <|im_start|> and <|im_end|> are
                added where they are missing; the model needs rows for them
    begin, stop ids that begin a document, and that end an answer
    all_bytes   the bytes of each id: b'' for a hole in the vocabulary, the name of a special token
    text_bytes  how many of them are text: 0 for a special token"""

    def __init__(self, text, from_printable):
        """text: the JSON. from_printable: 'Ġa' -> b' a', GPT-2's visible form of bytes."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ValueError("it is one of Hugging Face's, which need: pip install tokenizers") from None
        try:
            self.hf = Tokenizer.from_str(text)
        except Exception as e:                      # tokenizers raises plain Exceptions
            raise ValueError(str(e)) from e
        self.hf.encode_special_tokens = True        # a user's '</s>' is four characters
        self.hf.no_padding()
        self.hf.no_truncation()
        self.hf.add_special_tokens(['<|im_start|>', '<|im_end|>'])

        form = self.to_json()
        self.special = {t['content']: t['id'] for t in form['added_tokens'] if t['special']}
        added = {t['id']: t['content'].encode() for t in form['added_tokens']}
        of_bytes = 'ByteLevel' in json.dumps([form['pre_tokenizer'], form['decoder']])
        vocab = self.hf.get_vocab()
        self.all_bytes = [b''] * (max(vocab.values()) + 1)
        for token, id in vocab.items():
            if id in added:
                self.all_bytes[id] = added[id]
            elif of_bytes:
                self.all_bytes[id] = from_printable(token)
            elif byte := re.fullmatch('<0x([0-9A-F]{2})>', token):  # SentencePiece's way to write one
                self.all_bytes[id] = bytes.fromhex(byte[1])
            else:
                self.all_bytes[id] = token.replace('\u2581', ' ').encode()

        specials = set(self.special.values())
        self.text_bytes = [0 if id in specials else len(token) for id, token in enumerate(self.all_bytes)]

        ends = [self.special[name] for name in THEIR_ENDS if name in self.special][:1]
        begins = [self.special[name] for name in THEIR_BEGINS if name in self.special][:1]
        self.begin = begins or ends
        self.stop = [*ends, self.special['<|im_end|>']]
        if ends:
            self.special['<|endoftext|>'] = ends[0]
        self.lead = self.decode_bytes(self.encode('a')) == b' a'    # SentencePiece begins with a blank

    def encode(self, text):
        return self.hf.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts):
        return [e.ids for e in self.hf.encode_batch(list(texts), add_special_tokens=False)]

    def encode_inside(self, text):
        """The ids of text that does not begin a document. SentencePiece puts a blank before a text: we
        encode a newline and the text, and drop the ids of the blank and the newline."""
        newline = self.encode('\n')
        both = self.encode('\n' + text)
        has_blank = self.lead and both[:len(newline)] == newline
        return both[len(newline):] if has_blank else self.encode(text)

    def decode_bytes(self, ids):
        """The bytes of ids. A model may have more rows than there are tokens; such ids have no bytes."""
        return b''.join(self.all_bytes[id] for id in ids if id < len(self.all_bytes))

    def decode(self, ids):
        text = self.decode_bytes(ids).decode('utf-8', 'replace')
        return text[1:] if self.lead and text.startswith(' ') else text

    def to_json(self):
        return json.loads(self.hf.to_str())
