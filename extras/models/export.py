"""
Give a model away: as a folder of Hugging Face with a card, as the one file that llama.cpp and
ollama read, or as one HTML file that answers in the browser of whoever opens it.

    python -m extras.models.export --ckpt=out/sft --to=hf          # out/sft/hf
    python -m extras.models.export --ckpt=out/sft --to=gguf        # out/sft/model-f32.gguf
    python -m extras.models.export --ckpt=out/base,out/sft --to=html       # demo.html

An export knows no changes of model.py: if you change what it computes, change the other program
(for the page, demo.js) as well. gguf.py says what differs between a GGUF file and a checkpoint.
"""
import base64, json, os, pathlib, re, shutil
from typing import Literal
import torch
from common import folder_of, load_model
from configurator import configure, find_paths, require, require_writable
from extras.models import hf_model
from extras.tasks import answers, grading, questions, sandbox

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; of a page several: A,B
to: Literal['hf', 'gguf', 'html'] = 'hf'        # format
out = ''                    # folder or file; '' = hf or model-f32.gguf next to ckpt, or demo.html
allow_code_execution = False    # True: the page has answers whose programs ran; read sandbox.py


# --- hf: a folder to publish ----------------------------------------------------------------------
CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: other
---
# {name}

Made with the settings below, at step {step}; eval.json names the step that was measured. Whoever
publishes the weights chooses a license that the data allow (clean.py's report.md names their
licenses, if it ran with --audit) and the model in init_from, if there is one. Nothing here was
tested for safety, fairness or privacy.

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
# what the card's example reads, of a base model and of one that answers
TEXT = "tokenizer('def mean(values):', return_tensors='pt', return_token_type_ids=False)"
CHAT = """tokenizer.apply_chat_template([{'role': 'user', 'content': 'Write mean(values).'}],
    add_generation_prompt=True, return_tensors='pt', return_dict=True,
    tokenizer_kwargs={'return_token_type_ids': False})"""


def publish_hf(target, folder, model, tokenizer):
    """Write a folder to publish: weights, tokenizer, README.md, and the files of the run's folder
    about data and scores. Return a text to print."""
    target = os.path.normpath(target)
    require(not os.path.exists(target), f'{target} is there already; move it away')
    config = model.saved.get('config', {})
    new = f'{target}.tmp'           # a full disk leaves no half of a folder that looks whole
    require_writable(target)
    hf_model.write(new, *hf_model.translated(model), tokenizer)
    card = CARD.format(name=os.path.basename(os.path.abspath(folder)),
                       step=model.saved.get('step'),
                       ids=CHAT if 'stage' in config else TEXT,
                       settings='\n'.join(f'{key} = {value!r}' for key, value in config.items()))
    pathlib.Path(new, 'README.md').write_text(card, encoding='utf-8', newline='\n')
    for path in (f'{folder}/eval.json', f'{folder}/data.json',
                 os.path.join(config.get('data_dir', folder), 'report.md')):
        if os.path.exists(path):
            shutil.copy(path, new)
    os.rename(new, target)
    return f'{target}: for AutoModelForCausalLM and AutoTokenizer; read its README.md first'


# --- html: a page ---------------------------------------------------------------------------------
LARGEST = 50_000_000        # parameters, so that a phone opens the file


def publish_html(path, models, items, run):
    """Write page.html with demo.js and the models as a file that answers in a browser without a
    network. Return a line about it. models: {name: (model, tokenizer)}; they keep their rounded
    weights. items: the problems that it offers, of questions.py. run: sandbox.py's run_many(): each
    model answers them now, because a browser runs no Python; or None."""
    require_writable(path)
    keys = 'task_id', 'prompt', 'asked', 'tests', 'ends'
    data = {'models': [packed(name, *model, items, run) for name, model in models.items()],
            'problems': [{key: item[key] for key in keys} for item in items]}
    # Without < no text can end the element that holds it, as </script> would.
    data = json.dumps(data).replace('<', r'\u003c')
    page, script = (pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')
                    for name in ('page.html', 'demo.js'))
    ours = (f'<script id="models" type="application/json">{data}</script>\n'
            f'<script>\n{script}</script>')
    page = re.sub('<!-- export.py .*?-->', lambda _: ours, page)
    pathlib.Path(path).write_text(page, encoding='utf-8')
    return f'{path}: {len(models)} models in {len(page) / 1e6:.1f} MB; open it in a browser'


def packed(name, model, tokenizer, items, run):
    """Return what demo.js has to know of a model."""
    c = model.eval().config
    n = sum(p.numel() for p in model.parameters())
    # JavaScript lacks inline flags such as (?i:, and atomic groups.
    is_odd = c.rope_scaling or c.qkv_bias or c.qk_norm or tokenizer.kind != 'bpe' or re.search(
        r'\(\?[^:=!<]', tokenizer.pattern)
    require(n <= LARGEST and not is_odd, f'{name}: a page can hold models of at most {LARGEST:,} '
            'parameters with our own bpe tokenizers and without rope_scaling, qkv_bias and '
            'qk_norm; use --to=hf, and transformers serve')
    hf_model.translated(model)          # demo.js knows the tensors of a Llama and no others

    weights = {part: rounded(weight) for part, weight in model.float().state_dict().items()
               if part != 'head.weight' or not c.tie_embeddings}
    can_chat = 'stage' in model.saved.get('config', {})
    judged = {}
    if run:
        prompts = [item['messages' if can_chat else 'prompt'] for item in items]
        texts = answers.write(model, tokenizer, prompts, 1, items[0]['ends'], 64)
        cases = [(item, text, can_chat) for item, [text] in zip(items, texts)]
        for (item, text, _), verdict in zip(cases, grading.verdicts(cases, run)):
            judged[item['task_id']] = verdict | {'text': text}
    its = {key: getattr(tokenizer, key) for key in ('pattern', 'special', 'begin', 'first', 'stop')}
    its['tokens'] = [token.decode('latin-1') for token in tokenizer.all_bytes]
    return {'id': name, 'chat': can_chat, 'config': vars(c), 'weights': weights, 'judged': judged,
            'tokenizer': its}


def rounded(weight):
    """Round a matrix in place to int8 with a scale for each row; a vector stays float32. Return the
    bytes in base64. Of 0.5 -0.25 0.1 stay 127 -64 25 and the scale 0.5 / 127."""
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
        from extras.models import gguf         # it needs the package gguf
        print(gguf.write(out or os.path.join(folder, 'model-f32.gguf'), model, tokenizer))
    else:
        items = questions.from_problems(100, 0, ['example'])
        run = sandbox.run_many if allow_code_execution else None
        print(publish_html(out or 'demo.html', models, items, run))
