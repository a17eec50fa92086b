"""
Publishing: a run as a Hugging Face folder, with a card that tells how the model and its data were made.

    print(write('out/sft', model, tokenizer, 'hf', state))          # makes out/sft/hf

The card repeats the checkpoint, eval.json and data.json of the run, and the report.md of its data folder.
Copy this file alone: it needs the standard library; write() needs a GPT of model.py and a Tokenizer.
"""
import contextlib, glob, hashlib, json, mmap, os, pathlib, re, shutil

SCRIPTS = {'sft': 'sft.py, on conversations', 'dpo': 'dpo.py, on preferences', 'rl': 'rl.py, on rewards'}
HEAD = """---
library_name: transformers
pipeline_tag: text-generation
license: other
---
# {name}

{sizes} Trained by {script}.

No licence is given for the weights. Whoever publishes them chooses one, and heeds the licences of the data.
Nothing here was tested for safety, fairness or privacy.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained('.')
model = AutoModelForCausalLM.from_pretrained('.')
{ask}
print(tokenizer.decode(model.generate(**ids, max_new_tokens=100, do_sample=False)[0]))
```
"""
TEXT = "ids = tokenizer(PROMPT, return_tensors='pt', return_token_type_ids=False)"
CHAT = """messages = [{'role': 'user', 'content': PROMPT}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors='pt',
                                    return_dict=True)"""


def write(folder, model, tokenizer, kind, state):
    """Write folder/kind: weights, tokenizer, generation settings, README.md. Returns a text to print. All are
    complete before the first takes its place. state: the rest of the checkpoint, {} for others' models.
    OSError if the disk is full, ValueError as GPT.save_hf."""
    target = os.path.join(folder, kind)
    new = f'{target}.tmp'
    c = model.config
    n = sum(p[:c.vocab_size].numel() if name in ('embedding.weight', 'head.weight') else p.numel()
            for name, p in model.named_parameters())    # without rows that fill up a multiple
    sizes = (f"A language model in Llama's layout: {n:,} parameters, {c.n_layer} layers of width {c.n_embd}, "
             f'{c.n_head} heads, {c.vocab_size:,} tokens, a context of {c.block_size:,}.')
    try:
        model.save_hf(new, tokenizer)
        text = card(folder, new, sizes, example(tokenizer, state), state)
        pathlib.Path(new, 'README.md').write_text(text, encoding='utf-8', newline='\n')
        os.makedirs(target, exist_ok=True)
        for name in os.listdir(new):
            os.replace(os.path.join(new, name), os.path.join(target, name))
    except ValueError:
        raise
    except Exception as e:                              # safetensors has its own error for a full disk
        raise OSError(f'cannot write {target} ({e}); what was there before is unchanged') from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return f'{target}: for AutoModelForCausalLM and AutoTokenizer of transformers; read its README.md first'


def example(tokenizer, state):
    """Python that makes ids of a prompt. A char tokenizer has only its own characters."""
    chat = state.get('config', {}).get('stage') in SCRIPTS
    prompt = 'Write mean(values).' if chat else 'def mean(values):'
    if tokenizer.kind == 'char':
        prompt = b''.join(tokenizer.vocab[-8:]).decode()
    return (CHAT if chat else TEXT).replace('PROMPT', repr(prompt))


@contextlib.contextmanager
def reading(*path):
    """Where a file is not what it should be, the error names it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f'{os.path.join(*path)} is not as our scripts write it ({type(e).__name__}: {e}); '
                         'move it away and export again') from e


def read_json(*path):
    """The object in a JSON file, {} if there is no such file."""
    if not os.path.exists(os.path.join(*path)):
        return {}
    with reading(*path), open(os.path.join(*path), encoding='utf-8') as f:
        return dict(json.load(f))


def table(head, rows):
    """Markdown of a table: its header, and rows of anything that can be printed."""
    form = lambda row: '| ' + ' | '.join(str(cell).replace('|', r'\|') for cell in row) + ' |'
    return '\n'.join(map(form, [head, ['---'] * len(head), *rows]))


def settings(config):
    return '```\n' + '  '.join(f'{name}={value!r}' for name, value in config.items()) + '\n```'


def card(folder, exported, sizes, ask, state):
    """README.md of the run in folder, whose weights lie in exported. sizes: a sentence about the model; ask:
    Python that makes ids of a prompt; state: as in write()."""
    config = state.get('config', {})
    script = SCRIPTS.get(config.get('stage'), 'train.py' if config else 'someone else')
    head = HEAD.format(name=os.path.basename(os.path.abspath(folder)), sizes=sizes, script=script, ask=ask)
    results, meta = read_json(folder, 'eval.json'), read_json(folder, 'data.json')
    with reading(folder, 'eval.json'):
        measured = [*evaluation(folder, results, state.get('step'))]
    with reading(folder, 'data.json'):
        made_of = [*data(meta)]
    sections = [head, '## Training', *training(config, exported), '## Evaluation', *measured,
                '## Data', *made_of, *reports(meta, state)]
    return '\n\n'.join(section.rstrip('\n') for section in sections) + '\n'


def training(config, exported):
    """The model it began from, the data it read, hashes of the weights; every setting."""
    rows = [('began from', config.get('init_from')), ('its data', config.get('data_dir')),
            ('made by', config.get('data_from'))]
    for path in sorted(glob.glob(os.path.join(glob.escape(exported), '*.safetensors'))):
        with open(path, 'rb') as f:
            digest = hashlib.sha256(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        rows.append((f'sha256 of {os.path.basename(path)}', digest.hexdigest()))
    yield table(['what', 'which'], [row for row in rows if row[1]])
    if config:
        yield f'All settings:\n\n{settings(config)}'


def evaluation(folder, results, step):
    """A row for each task and split of eval.json, with its 95 % interval. step: of the exported weights."""
    rows = []
    its_step = results.get('step')
    if None not in (its_step, step) and its_step != step:
        yield f'None of these weights: they are of step {step}, eval.json of step {its_step}.'
        return
    for task, found in results.get('tasks', {}).items():
        for split, result in {'': found, **found.get('by_split', {})}.items():
            measure = next((key for key in ('pass@1', 'score') if key in result), None)
            if measure and 'interval' in result:
                rows.append((f'{task} {split}'.strip(), measure, f'{result[measure]:.3f}',
                             ' to '.join(f'{end:.3f}' for end in result['interval']), result['n']))
        for name in sorted({'trained', 'untrained'} & found.keys()):
            rows.append((f'{task} ({name})', 'bits per byte', f'{found[name]["bits_per_byte"]:.3f}', '-',
                         f'{found[name]["bytes"]:,} bytes'))
    if not rows:
        yield f'None yet. `python eval.py --ckpt={folder}` writes eval.json; then export again.'
        return
    yield table(['task', 'measure', 'value', '95 % interval', 'items'], rows)
    if its_step is not None:
        yield f'These are the scores of step {its_step}.'
    yield f'Benchmarks that the training data were searched for: {results.get("decontaminated") or "none"}.'


def data(meta):
    """The sources, licences, hashes and decisions of data.json."""
    if not meta:
        yield 'There is no data.json: this folder does not say what the model was pretrained on.'
        return
    rows = []
    for name, source in meta.get('sources', {}).items():
        licences = ', '.join(f'{licence}: {n:,}' for licence, n in source.get('licences', {}).items())
        rows.append((name, source.get('documents', '-'), source.get('tokens', '-'), licences or 'unknown'))
    yield table(['source', 'documents', 'tokens', 'licences: documents'], rows)
    yield table(['part', 'sha256'], meta.get('sha256', {}).items())
    yield f'All decisions of prepare.py:\n\n{settings(meta.get("config", {}))}'


def reports(meta, state):
    """The report.md of each data folder that holds what this run read, two headings lower. meta: data.json;
    state: sft.py and dpo.py keep the digest of their train.jsonl in it."""
    config = state.get('config', {})
    for source in dict.fromkeys(filter(None, (config.get('base_dir'), config.get('data_dir')))):
        if config.get('stage') in SCRIPTS and source != config.get('base_dir'):
            path = pathlib.Path(source, 'train.jsonl')
            now = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
            then = state.get('conversations') or state.get('pairs', [None])[0]
        else:
            now, then = read_json(source, 'meta.json').get('sha256'), meta.get('sha256')
        if not then or now != then:
            yield f'{source} is not known to hold the data of this run any more: its report is left out.'
        elif os.path.exists(os.path.join(source, 'report.md')):
            text = pathlib.Path(source, 'report.md').read_text(encoding='utf-8')
            yield re.sub('^#', '###', text, flags=re.M)
