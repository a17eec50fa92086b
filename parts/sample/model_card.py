"""
The model card: a run as a Hugging Face folder, and a README.md that says how to use it and how it was made.

    print(write('out/sft', model, tokenizer, 'hf', state))          # makes out/sft/hf

Copy this file alone: it needs the standard library, and a GPT and a Tokenizer, as ours.
"""
import contextlib, json, os, pathlib, shutil

CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: other
---
# {name}

No licence is given for the weights. Whoever publishes them chooses one, and heeds the licences of the data.
Nothing here was tested for safety, fairness or privacy.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('.')
model = AutoModelForCausalLM.from_pretrained('.')
{ask}
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=False)[0]))
```

## Evaluation

The scores of eval.json are of step {measured}, these weights of step {step}.

{scores}

## Data

Licences by source, with the number of documents. data.json and report.md say more.

{licences}

## Settings

```
{settings}
```
"""
TEXT = "ids = tokenizer('def mean(values):', return_tensors='pt', return_token_type_ids=False)"
CHAT = """messages = [{'role': 'user', 'content': 'Write mean(values).'}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors='pt',
                                    return_dict=True)"""


def write(folder, model, tokenizer, kind, state):
    """Write folder/kind: weights, tokenizer, README.md. Returns a text to print. state: the rest of the
    checkpoint. OSError, ValueError: what was there before (not our own, or licensed) is unchanged."""
    target = os.path.join(folder, kind)
    card_there = pathlib.Path(target, 'README.md')
    if os.path.isdir(target) and os.listdir(target) and not (
            card_there.exists() and card_there.read_bytes().startswith(CARD.partition('#')[0].encode())):
        raise ValueError(f'{target} holds files that were not written here; move them away')
    new = f'{target}.tmp'
    text = card(folder, state)
    data_dir = state.get('config', {}).get('data_dir') or folder
    try:
        model.save_hf(new, tokenizer)
        pathlib.Path(new, 'README.md').write_text(text, encoding='utf-8', newline='\n')
        for path in os.path.join(folder, 'data.json'), os.path.join(data_dir, 'report.md'):
            if os.path.exists(path):
                shutil.copy(path, new)
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(new):
            os.replace(os.path.join(new, name), os.path.join(target, name))
    except ValueError:
        raise
    except Exception as e:    # safetensors has its own error for a full disk
        raise OSError(f'cannot write {target} ({e}); what was there before is unchanged') from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return f'{target}: for AutoModelForCausalLM and AutoTokenizer of transformers; read its README.md first'


def card(folder, state):
    config = state.get('config', {})
    results = read_json(folder, 'eval.json')
    sources = read_json(folder, 'data.json').get('sources', {})
    lines = scores(results.get('tasks', {}), '') or [f'None yet: python eval.py --ckpt={folder}']
    return CARD.format(
        name=os.path.basename(os.path.abspath(folder)),
        ask=CHAT if 'stage' in config else TEXT,        # of sft.py, dpo.py, rl.py
        measured=results.get('step'), step=state.get('step'), scores='\n'.join(lines),
        licences='\n'.join(f'- {name}: {sources[name].get("licences") or "unknown"}' for name in sources),
        settings='\n'.join(f'{key} = {value!r}' for key, value in config.items()))


def scores(result, name):
    """A line for each score in eval.json, at any depth, but not for each family and composition."""
    lines = []
    for measure in 'pass@1', 'score', 'bits_per_byte':
        if isinstance(result.get(measure), float):
            lines.append(f'- {name}: {measure} {result[measure]:.3f}')
            if 'interval' in result:
                low, high = result['interval']
                lines[-1] += f', 95 % interval {low:.3f} to {high:.3f}, n = {result["n"]}'
    for key, part in result.items():
        if key == 'series':
            part = {row['ckpt']: row for row in part}
        if isinstance(part, dict) and key not in ('by_family', 'by_cell'):
            lines += scores(part, f'{name} {key}'.strip())
    return lines


def read_json(folder, name):
    """The object in a JSON file, {} if there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(pathlib.Path(folder, name).read_text(encoding='utf-8')))
    return {}
