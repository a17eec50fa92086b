"""
Give a model away: as a folder of Hugging Face with a card, as the one file that llama.cpp and
ollama read, or as one HTML file that answers in the browser of whoever opens it.

    python -m extras.export --ckpt=out/sft --to=hf          # out/sft/hf
    python -m extras.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf
    python -m extras.export --ckpt=out/base,out/sft --to=html       # demo.html

A GGUF file differs from our checkpoint in this:
- llama.cpp turns neighbors, x_2i with x_2i+1, by RoPE's angle, and we turn x_i with x_i+D/2. So
  rows of q and k change places.
- It cuts text into chunks by patterns that are compiled into it, and a file can only name one of
  them (NAMES). Ours is not among them. We name the nearest one, and mark tokens with a newline, so
  that they are cut out before it acts.
- All weights are float32. llama.cpp makes smaller files: llama-quantize model-f32.gguf q8_0
Only a plain Llama is written, because the tokenizers of other models cannot be written anyway.
"""
import base64, json, os, pathlib, re, shlex, shutil
from typing import Literal
import torch
from configurator import Mistake, configure, require
from extras import answers, fit, grading, hf_model, hf_tokenizer, questions, sandbox
from model import stretch

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; of a page several: A,B
to: Literal['hf', 'gguf', 'html'] = 'hf'        # format
out = ''                    # folder or file; '' = hf or model-f32.gguf next to ckpt, or demo.html
allow_code_execution = False    # True: the page has answers whose programs ran; read sandbox.py


# --- hf: a folder to publish ----------------------------------------------------------------------
CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: {license}
---
# {name}

{origin} the settings below, at step {step}; eval.json names the step that was measured. Whoever
publishes the weights chooses a license that the data allow (clean.py's report.md names their
licenses, if it ran with --audit) and the base, if there is one. Nothing here was tested for safety,
fairness or privacy.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('.')
model = AutoModelForCausalLM.from_pretrained('.')
ids = tokenizer('def mean(values):', return_tensors='pt', return_token_type_ids=False)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=False)[0]))
```

A model that was trained on chats needs `tokenizer.apply_chat_template` around the question.

```
{settings}
```
"""


def base_of(init_from):
    """Return the name of the Hugging Face folder that a run began from, perhaps by way of others,
    and the license in its card: 'out/sft' -> ('SmolLM2-135M', 'apache-2.0'). Or '', 'other'."""
    for _ in range(9):
        folder = pathlib.Path(init_from if os.path.isdir(init_from) else os.path.dirname(init_from))
        card, config = folder / 'README.md', folder / 'config.json'
        if not os.path.exists(init_from) or not config.exists():
            break
        if [*folder.glob('*.safetensors')]:
            text = card.read_text('utf-8', 'replace') if card.exists() else ''
            return folder.name, *(re.findall(r'^license: *([\w.-]+)', text, re.M) or ['other'])[:1]
        init_from = json.loads(config.read_bytes()).get('init_from', '')
    return '', 'other'


def publish_hf(target, folder, model, tokenizer):
    """Write a folder to publish: weights, tokenizer, README.md, and the files of the run's folder
    about data and scores. Return a text to print."""
    require(not os.path.exists(target), f'{target} is there already; move it away')
    config = model.saved.get('config', {})
    base, license = base_of(config.get('init_from', ''))
    how = f'LoRA of rank {config["lora"]}, merged into it,' if config.get('lora') else 'training'
    card = CARD.format(
        name=os.path.basename(os.path.abspath(folder)), step=model.saved.get('step'),
        license=f'{license}\nbase_model: {base}' if base else license,
        origin=f'Made from {base} (license: {license}) by {how} with' if base else 'Made with',
        settings='\n'.join(f'{key} = {value!r}' for key, value in config.items()))
    new = f'{target}.tmp'
    try:
        hf_model.write(new, model, tokenizer)
        pathlib.Path(new, 'README.md').write_text(card, encoding='utf-8', newline='\n')
        for path in (f'{folder}/eval.json', f'{folder}/data.json',
                     os.path.join(config.get('data_dir', folder), 'report.md')):
            if os.path.exists(path):
                shutil.copy(path, new)
        os.rename(new, target)
    except Exception as e:    # safetensors has its own error for a full disk
        shutil.rmtree(new, ignore_errors=True)
        raise Mistake(f'cannot write {target}: {e}') from e
    return f'{target}: for AutoModelForCausalLM and AutoTokenizer; read its README.md first'


# --- gguf: a file for llama.cpp -------------------------------------------------------------------
# llama.cpp's names of the split patterns that it has; Llama 3's joins newlines
NAMES = {fit.PATTERNS['gpt2']: 'gpt-2', fit.PATTERNS['cl100k']: 'llama-bpe'}
DIFFERS = ("llama.cpp lacks this tokenizer's split pattern and cuts some texts in another way, "
           'with other ids; it has the pattern that python -m extras.fit --input=FILE '
           '--pattern=cl100k --out=tokenizer.json trains with')
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4     # types of a token


def publish_gguf(path, model, tokenizer):
    """Write a GPT and its tokenizer as a GGUF file. Return the text to print. A model of sft.py,
    dpo.py or rl.py is for chat, so its file has the chat template, and llama.cpp puts nothing
    before a text. Otherwise it puts <|endoftext|> there."""
    gguf = hf_tokenizer.need('gguf', 'a GGUF file needs the package gguf')
    c = model.config
    require(tokenizer.kind == 'bpe' and not c.qkv_bias and not c.qk_norm, 'a GGUF file takes a '
            "plain Llama with our own byte-level BPE; for others use --to=hf, and llama.cpp's "
            'convert_hf_to_gguf.py on the folder hf')
    _, theirs = hf_model.check(model)           # {transformers' name: tensor}
    chat = 'stage' in model.saved.get('config', {})             # of sft.py, dpo.py or rl.py
    # llama.cpp's name of the tokenizer's split pattern, or None; without merges, any pattern does
    pre = 'gpt-2' if len(tokenizer.vocab) == 256 else (
        NAMES.get(tokenizer.pattern.removesuffix(r'|[\s\S]')))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.n_layer)
    tensors = {names.get_name(name, ('.weight',)): tensor.float().cpu().numpy()
               for name, tensor in theirs.items()}
    D = c.head_dim
    if len(c.rope_scaling) == 4:
        # Llama 3.1 divides each frequency by a number of its own, which the file holds.
        plain = c.rope_theta ** (-torch.arange(0, D, 2).double() / D)
        slower = stretch(plain, *c.rope_scaling)
        tensors['rope_freqs.weight'] = (plain / slower).float().numpy()         # (D/2,)

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
    try:
        writer.write_header_to_file(pathlib.Path(f'{path}.tmp'))
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(f'{path}.tmp', path)
    except OSError:                     # the old file stays
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        raise
    text = f'{path}: {os.path.getsize(path) / 1e6:.1f} MB; next: llama-cli -m {shlex.quote(path)}'
    return text if pre else f'{text}\nnote: {DIFFERS}'


def add_tokenizer(writer, tokenizer, pre, chat):
    """Write tokens, types, merges, special ids and, for chat, the template. pre: llama.cpp's name
    of the split pattern, or None."""
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


# --- html: a page ---------------------------------------------------------------------------------
LARGEST = 50_000_000        # parameters, so that a phone opens the file


def publish_html(path, models, items, run_code):
    """Write page.html with demo.js and the models, of open_models(), as a file that answers in a
    browser without a network. Return a line about it. The models keep their rounded weights. items:
    the problems that it offers, of questions.py. run_code: that of sandbox.py: each model answers
    them now, because a browser runs no Python; or None."""
    require(pathlib.Path(path).absolute().parent.is_dir(), f'--out={path}: its folder is missing')
    keys = 'task_id', 'prompt', 'asked', 'tests', 'ends'
    data = {'models': [packed(name, *model, items, run_code)
                       for name, model in models.items()],
            'problems': [{key: item[key] for key in keys} for item in items]}
    # Without < no text can end the element that holds it, as </script> would.
    data = json.dumps(data).replace('<', r'\u003c')
    page, script = (pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')
                    for name in ('page.html', 'demo.js'))
    ours = (f'<script id="models" type="application/json">{data}</script>\n'
            f'<script id="source">\n{script}</script>')
    page = re.sub(r'(?s)<script id="source">.*?</script>', lambda _: ours, page)
    pathlib.Path(path).write_text(page, encoding='utf-8')
    return f'{path}: {len(models)} models in {len(page) / 1e6:.1f} MB; open it in a browser'


def packed(name, model, tokenizer, trained, items, run_code):
    """Return what demo.js has to know of a model."""
    c = model.config
    n = sum(p.numel() for p in model.parameters())
    # JavaScript lacks inline flags such as (?i:, and atomic groups.
    is_odd = c.rope_scaling or c.qkv_bias or c.qk_norm or tokenizer.kind != 'bpe' or re.search(
        r'\(\?[^:=!<]', tokenizer.pattern)
    require(n <= LARGEST and not is_odd, f'{name}: a page can hold models of at most {LARGEST:,} '
            'parameters with our own bpe tokenizers and without rope_scaling, qkv_bias and '
            'qk_norm; use python -m extras.server')
    hf_model.check(model)               # demo.js is a Llama, and you may have edited model.py

    weights = {part: rounded(weight) for part, weight in model.float().state_dict().items()
               if part != 'head.weight' or not c.tie_embeddings}
    can_chat = 'stage' in trained
    judged = {}
    if run_code:
        prompts = [item['messages' if can_chat else 'prompt'] for item in items]
        texts = answers.write(model, tokenizer, prompts, 1, items[0]['ends'], 64)
        for item, [text] in zip(items, texts):
            job = grading.job(item, text, can_chat)
            found = grading.outcome(item, text, run_code(*job) if job else None)
            judged[item['task_id']] = found | {'text': text}
    its = {key: getattr(tokenizer, key) for key in ('pattern', 'special', 'begin', 'first', 'stop')}
    its['tokens'] = [token.decode('latin-1') for token in tokenizer.all_bytes]
    return {'id': name, 'chat': can_chat, 'config': vars(c), 'weights': weights, 'judged': judged,
            'tokenizer': its}


def rounded(weight):
    """Round a tensor in place: a matrix to int8 with a scale for each row, others to bfloat16.
    Return the bytes of both in base64. Of 0.5 -0.25 0.1 stay 127 -64 25 and the scale 0.5 / 127."""
    text = lambda tensor: base64.b64encode(tensor.cpu().numpy()).decode()
    if weight.dim() == 1:
        halves = weight.bfloat16()
        weight.copy_(halves)
        return {'bfloat16': text(halves.view(torch.int16))}
    scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127  # (rows, 1)
    whole = (weight / scales).round()
    weight.copy_(whole * scales)
    return {'int8': text(whole.to(torch.int8)), 'scales': text(scales)}


if __name__ == '__main__':
    configure(globals())
    models = answers.open_models(ckpt)
    require(to == 'html' or len(models) == 1, f'--to={to} takes one --ckpt, not {ckpt}')
    folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt) or '.'
    model, tokenizer, _ = models[ckpt.split(',')[0]]
    if to == 'hf':
        print(publish_hf(out or os.path.join(folder, 'hf'), folder, model, tokenizer))
    elif to == 'gguf':
        print(publish_gguf(out or os.path.join(folder, 'model-f32.gguf'), model, tokenizer))
    else:
        items = questions.from_problems(100, 0, ['variation'])
        run_code = sandbox.run_code if allow_code_execution else None
        print(publish_html(out or 'demo.html', models, items, run_code))
