"""
A folder to publish: a model as other programs read it, and a card that says what it is.

    print(publish('out/sft', model, tokenizer))     # makes out/sft/hf, with README.md

model: of GPT.load, because the card has what else its checkpoint holds.
"""
import json, os, pathlib, re, shutil
from configurator import Mistake
from extras import hf_model

CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: {license}
---
# {name}

{origin} the settings below, at step {step}; eval.json names the step that was measured. Whoever
publishes the weights chooses a license that the data allow (their licenses are in data.json and
report.md) and the base, if there is one. Nothing here was tested for safety, fairness or privacy.

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
    """Return the name of the Hugging Face folder that a run began from, perhaps by way of other
    runs, and the license in its card: 'out/sft' -> ('SmolLM2-135M', 'apache-2.0'). Or '', 'other'."""
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


def publish(ckpt, model, tokenizer):
    """Write hf, a folder to publish, into a run's folder: weights, tokenizer, README.md, and the
    run's files about data and scores. Return a text to print. ckpt: the folder, or a .pt in it."""
    folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt) or '.'
    target = os.path.join(folder, 'hf')
    if os.path.exists(target):
        raise Mistake(f'{target} is there already; move it away')
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
