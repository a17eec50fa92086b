"""
Export a model: as a Hugging Face folder with a model card, as one GGUF file for llama.cpp and
ollama, or as one HTML file that runs the model in a browser.

    python -m extras.models.export --ckpt=out/sft --to=hf          # out/sft/hf
    python -m extras.models.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf
    python -m extras.models.export --ckpt=out/base,out/sft --to=html       # demo.html

If you change what model.py computes, change the program that runs the export as well (for the page,
demo.js). The docstring of gguf.py lists how a GGUF file differs from a checkpoint.
"""
import base64, json, os, pathlib, re, shutil
from typing import Literal
import torch
from common import folder_of, load_model
from configurator import configure, find_paths, require, require_writable
from extras.models import hf_model
from extras.tasks import answers, grading, questions, sandbox

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; several for a page: A,B
to: Literal['hf', 'gguf', 'html'] = 'hf'        # format
out = ''                    # folder or file; '' = hf or model-f32.gguf next to ckpt, or demo.html
allow_code_execution = False    # True: html offers problems with graded answers; read sandbox.py


# --- hf: a folder to publish ----------------------------------------------------------------------
CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: other
---
# {name}

Trained with the settings below, saved at step {step}; eval.json names the step that was measured.
If you publish the weights, choose a license that the training data allow (report.md of clean.py
--audit lists their licenses), and also the model in init_from, if any. This model was not tested
for safety, fairness or privacy.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('.')
model = AutoModelForCausalLM.from_pretrained('.')
ids = {ids}
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=False)[0]))
```

```
{settings}
```
"""
# The input in the card's example: of a base model, the sample_prompt of its run. The questions to a
# chat model may be private.
TEXT = "tokenizer(%r, return_tensors='pt', return_token_type_ids=False)"
CHAT = """tokenizer.apply_chat_template([{'role': 'user', 'content': 'YOUR QUESTION'}],
    add_generation_prompt=True, return_tensors='pt', return_dict=True,
    tokenizer_kwargs={'return_token_type_ids': False})"""


def publish_hf(target, folder, model, tokenizer):
    """Write a folder to publish: weights, tokenizer, README.md, and eval.json, data.json and
    report.md of the run. Return a message to print."""
    target = os.path.normpath(target)
    require(not os.path.exists(target), f'{target} already exists; move it away')
    config = model.saved.get('config', {})
    new = f'{target}.tmp'           # renamed at the end, when complete
    require_writable(target)
    hf_model.write(new, *hf_model.translated(model), tokenizer)
    prompt = config.get('sample_prompt', '').strip() or 'The'
    card = CARD.format(name=os.path.basename(os.path.abspath(folder)),
                       step=model.saved.get('step'),
                       ids=CHAT if 'stage' in config else TEXT % prompt,
                       settings='\n'.join(f'{key} = {value!r}' for key, value in config.items()))
    pathlib.Path(new, 'README.md').write_text(card, encoding='utf-8', newline='\n')
    for path in (f'{folder}/eval.json', f'{folder}/data.json',
                 os.path.join(config.get('data_dir', folder), 'report.md')):
        if os.path.exists(path):
            shutil.copy(path, new)
    os.rename(new, target)
    return f'{target}: AutoModelForCausalLM and AutoTokenizer load it; read its README.md first'


# --- html: a page ---------------------------------------------------------------------------------
LARGEST = 50_000_000        # parameters, so that a phone can open the file


def publish_html(path, models, items, run):
    """Write page.html, demo.js and the models as one file that runs in a browser without a network.
    Return a message to print. models: {name: (model, tokenizer)}; their weights are rounded in
    place. items: problems to offer on the page, from questions.py; [] for models that were not
    trained on such problems. run: sandbox.py's run_many(), to grade an answer of each model to each
    problem now, because a browser runs no Python."""
    require_writable(path)
    keys = 'task_id', 'prompt', 'asked', 'tests', 'ends'
    data = {'models': [packed(name, *model, items, run) for name, model in models.items()],
            'problems': [{key: item[key] for key in keys} for item in items]}
    # Escape <, because </script> in a text would end the element that contains the data.
    data = json.dumps(data).replace('<', r'\u003c')
    page, script = (pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')
                    for name in ('page.html', 'demo.js'))
    scripts = (f'<script id="models" type="application/json">{data}</script>\n'
               f'<script>\n{script}</script>')
    page = re.sub('<!-- export.py .*?-->', lambda _: scripts, page)
    pathlib.Path(path).write_text(page, encoding='utf-8')
    return f'{path}: {len(models)} models in {len(page) / 1e6:.1f} MB; open it in a browser'


def packed(name, model, tokenizer, items, run):
    """Return the data of a model for demo.js: config, weights, tokenizer and graded answers."""
    hf_model.translated(model)          # demo.js supports only Llama's tensors
    c = model.eval().config
    n = sum(p.numel() for p in model.parameters())
    # JavaScript lacks inline flags such as (?i:, and atomic groups.
    is_ours = tokenizer.kind == 'bpe' and not re.search(r'\(\?[^:=!<]', tokenizer.pattern)
    for is_supported, reason in (
            (n <= LARGEST, f'it has {n:,} parameters, more than {LARGEST:,}'),
            (not c.rope_scaling, 'its context was extended (rope_scaling)'),
            (not (c.qkv_bias or c.qk_norm), 'it is a Qwen (qkv_bias or qk_norm)'),
            (is_ours, f'its tokenizer ({tokenizer.kind}) is not of prepare.py --tokenizer=bpe')):
        require(is_supported, f"{name} can't be in a page, because {reason}; use sample.py, or "
                '--to=hf and transformers serve')

    weights = {part: rounded(weight) for part, weight in model.float().state_dict().items()
               if part != 'head.weight' or not c.tie_embeddings}
    can_chat = 'stage' in model.saved.get('config', {})
    judged = {}
    if items:
        prompts = [item['messages' if can_chat else 'prompt'] for item in items]
        texts = answers.write(model, tokenizer, prompts, 1, items[0]['ends'], 64)
        cases = [(item, text, can_chat) for item, [text] in zip(items, texts)]
        for (item, text, _), verdict in zip(cases, grading.verdicts(cases, run)):
            judged[item['task_id']] = verdict | {'text': text}
    own = {key: getattr(tokenizer, key) for key in ('pattern', 'special', 'begin', 'first', 'stop')}
    own['tokens'] = [token.decode('latin-1') for token in tokenizer.all_bytes]
    return {'id': name, 'chat': can_chat, 'config': vars(c), 'weights': weights, 'judged': judged,
            'tokenizer': own}


def rounded(weight):
    """Round a matrix in place to int8 with one scale per row; a vector stays float32. Return the
    bytes in base64. The row 0.5 -0.25 0.1 becomes 127 -64 25 with the scale 0.5 / 127."""
    text = lambda tensor: base64.b64encode(tensor.cpu().numpy()).decode()
    if weight.dim() == 1:
        return {'float32': text(weight)}
    scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127  # (rows, 1)
    whole = (weight / scales).round()
    weight.copy_(whole * scales)
    return {'int8': text(whole.to(torch.int8)), 'scales': text(scales)}


if __name__ == '__main__':
    configure(globals())
    models = {path: load_model(path) for path in find_paths(ckpt)}
    require(to == 'html' or len(models) == 1, f'--to={to} takes one --ckpt, not {ckpt}')
    folder = folder_of(next(iter(models)))
    model, tokenizer = next(iter(models.values()))
    if to == 'hf':
        print(publish_hf(out or os.path.join(folder, 'hf'), folder, model, tokenizer))
    elif to == 'gguf':
        from extras.models import gguf         # needs the package gguf
        print(gguf.write(out or os.path.join(folder, 'model-f32.gguf'), model, tokenizer))
    else:
        items = questions.from_problems(100, 0, ['example']) if allow_code_execution else []
        print(publish_html(out or 'demo.html', models, items, sandbox.run_many))
