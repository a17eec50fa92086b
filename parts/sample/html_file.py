"""
The models in one HTML file, which answers in the browser of whoever opens it, without a network.

    print(write('demo.html', {'out/sft': (model, tokenizer, True)}, items))     # True: it can chat

The file is page.html in which demo.js, with the models as JSON, takes the place of the server.
models, items, run_code: as in server.py. With run_code, each model answers each problem now, at
temperature 0, and the file keeps the verdicts, because a browser runs no Python.
"""
import base64, json, pathlib, re
import torch
from parts import Mistake
from extras import hf_model
from parts.sample import asking, server

LARGEST = 50_000_000        # parameters, so that a phone opens the file


def write(path, models, items, run_code=None):
    """Write the file. Return a line about it. The models keep their rounded weights."""
    keys = 'task_id', 'prompt', 'asked', 'tests', 'ends'
    data = {'models': [packed(name, *model, items, run_code) for name, model in models.items()],
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


def packed(name, model, tokenizer, can_chat, items, run_code):
    """Return what demo.js has to know of a model."""
    c = model.config
    n = sum(p.numel() for p in model.parameters())
    if n > LARGEST:
        raise Mistake(f'{name} has {n:,} parameters, more than the {LARGEST:,} that a page may '
                      'hold; use --serve=8000')
    # JavaScript lacks inline flags such as (?i:, and atomic groups.
    if (c.rope_scaling or c.qkv_bias or c.qk_norm or tokenizer.kind != 'bpe'
            or re.search(r'\(\?[^:=!<]', tokenizer.pattern)):
        raise Mistake(f'{name}: a page can hold our own bpe tokenizers and models without '
                      'rope_scaling, qkv_bias and qk_norm; use --serve=8000')
    hf_model.check(model)               # demo.js is a Llama, and you may have edited model.py

    weights = {part: rounded(weight) for part, weight in model.state_dict().items()
               if part != 'head.weight' or not c.tie_embeddings}
    judged = {}
    if run_code:
        prompts = [item['messages' if can_chat else 'prompt'] for item in items]
        ends = '' if can_chat else items[0]['ends']
        answers, _ = asking.generate(model, tokenizer, prompts, 1, 64, slots=128, ends=ends,
                                      temperature=0)
        for item, [text] in zip(items, answers):
            found = server.verdict(item, text, can_chat, run_code)
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
