"""
The models in one HTML file, which answers in the browser of whoever opens it, without a network.

    print(write('demo.html', {'out/sft': (model, tokenizer, {'stage': 'sft'})}, encode))

The file is page.html in which demo.js, with the models as JSON, takes the place of the server.
models, encode: as in server.py. With allow_code_execution, each model answers each problem now, at
temperature 0, and the file keeps the verdicts, because a browser runs no Python.
"""
import base64, json, pathlib, re
import torch
from torch.nn.utils.rnn import pad_sequence
from configurator import Mistake
from extras import grading, hf_model, questions, sandbox
from model import IGNORE

LARGEST = 50_000_000        # parameters, so that a phone opens the file


def write(path, models, encode, allow_code_execution=False):
    """Write the file. Return a line about it. The models keep their rounded weights. The page offers
    100 new variations of the example tasks."""
    if not pathlib.Path(path).absolute().parent.is_dir():
        raise Mistake(f'--out={path}: its folder is missing')
    items = questions.from_problems(100, 0, ['variation'])
    run_code = sandbox.run_code if allow_code_execution else None
    return write_page(path, models, encode, items, run_code)


def write_page(path, models, encode, items, run_code):
    """Write the file with these problems, of questions.py. run_code: that of sandbox.py, or None."""
    keys = 'task_id', 'prompt', 'asked', 'tests', 'ends'
    data = {'models': [packed(name, *model, encode, items, run_code)
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


def packed(name, model, tokenizer, trained, encode, items, run_code):
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
    can_chat = 'stage' in trained
    judged = {}
    if run_code:
        for item, text in zip(items, answers(model, tokenizer, items, can_chat, encode)):
            job = grading.job(item, text, can_chat)
            found = grading.outcome(item, text, run_code(*job) if job else None)
            judged[item['task_id']] = found | {'text': text}
    its = {key: getattr(tokenizer, key) for key in ('pattern', 'special', 'begin', 'first', 'stop')}
    its['tokens'] = [token.decode('latin-1') for token in tokenizer.all_bytes]
    return {'id': name, 'chat': can_chat, 'config': vars(c), 'weights': weights, 'judged': judged,
            'tokenizer': its}


def answers(model, tokenizer, items, can_chat, encode):
    """Return the likeliest answer to each problem, of at most 64 tokens, written as one batch."""
    prompts = [item['messages' if can_chat else 'prompt'] for item in items]
    ids, allowed, n_again = zip(*(encode(tokenizer, prompt) for prompt in prompts))
    rows = [torch.tensor(row[-model.config.block_size:]) for row in ids]
    idx = pad_sequence(rows, batch_first=True, padding_value=IGNORE, padding_side='left')
    never = tokenizer.never_in_answers(model.config.vocab_size)

    def draw(logits, numbers, t):
        logits[:, never] = -torch.inf
        for row, number in zip(logits, numbers.tolist()):
            if t == 0 and allowed[number]:
                first = row[allowed[number]]            # a copy
                row[:] = -torch.inf
                row[allowed[number]] = first
        return logits.argmax(-1)

    # A healed prompt's first token writes its last one again.
    n = 64 + (max(n_again) > 0)
    idx = idx.to(model.embedding.weight.device)
    written = torch.stack([*model.stream(idx, n, draw, tokenizer.stop)], dim=1).tolist()  # (B, n)
    texts = []
    for item, prompt, again, new in zip(items, prompts, n_again, written):
        new = new[:next((i for i, id in enumerate(new) if id in tokenizer.stop), n)]
        text = tokenizer.decode_bytes(new)[again:].decode('utf-8', 'replace')
        if not can_chat:
            # The prompt's last character may be the newline that a pattern looks back for.
            end = re.compile(item['ends']).search(prompt[-1:] + text, len(prompt[-1:]))
            text = text[:end.start() - 1] if end else text
        texts.append(text)
    return texts


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
