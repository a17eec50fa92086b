"""
Generate a model's answers to many prompts in batches, for eval.py and the page that export writes,
and read and write samples.jsonl, which has a row for each answer.

    model, tokenizer = load_model('out/sft')            # of common.py
    write(model, tokenizer, ['def f(x):', 'import '], n=2, max_new_tokens=9)
    # -> [['...', '...'], ['...', '...']]: two answers to each prompt

A prompt is a text, or messages [{'role', 'content'}]. GPT.stream generates the tokens. Answer in
tokenizer.py converts a prompt to ids, and ids to text.
"""
import hashlib, json, math, os, pathlib, random
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from configurator import require
from extras.tasks import problems
from model import IGNORE, sample
from tokenizer import Answer


def write(model, tokenizer, prompts, n, *how, **more):
    """Return the texts of n answers to each prompt. how, more: further arguments of batches()."""
    texts = {}
    for batch in batches(model, tokenizer, prompts, n, *how, **more):
        texts |= batch
    return [[texts[i * n + j] for j in range(n)] for i in range(len(prompts))]


def batches(model, tokenizer, prompts, n, ends='', max_new_tokens=256, seed=0, batch_size=16,
            temperature=None, top_k=0, top_p=1.0, known=()):
    """Yield {i * n + j: text of answer j to prompt i}, a batch of answers at a time. ends: a regex;
    an answer to a text ends before its first match (answers to messages end with a stop token).
    temperature=None is 0 for one answer, and 0.8 for several, which should differ.

    Each answer has its own random generator, so the other answers of its batch change it by
    rounding only. The batches depend only on the arguments, and a batch whose texts are all in
    `known` is not generated again. So a resumed evaluation equals an uninterrupted one."""
    known = dict(known)
    if temperature is None:
        temperature = 0.0 if n == 1 else 0.8
    begin = lambda prompt: Answer(tokenizer, prompt, max_new_tokens,
                                  ends if isinstance(prompt, str) else '')
    lengths = [len(begin(prompt).ids) for prompt in prompts]
    n_cut = sum(length > model.config.block_size for length in lengths)
    if n_cut:
        print(f'{n_cut} prompts are longer than the context; the model saw only their ends')
    order = np.argsort(np.repeat(lengths, n), kind='stable').tolist()   # less padding
    for start in tqdm(range(0, len(order), batch_size), 'answers', disable=None):
        batch = order[start:start + batch_size]
        if not known.keys() >= {*batch}:
            answers = [begin(prompts[k // n]) for k in batch]
            rngs = [random.Random(f'{seed} {k // n} {k % n}') for k in batch]
            known |= zip(batch, write_batch(model, answers, rngs, temperature, top_k, top_p))
        yield {k: known[k] for k in batch}


def write_batch(model, answers, rngs, temperature, top_k, top_p):
    """Generate a batch of answers, and return their texts. rngs: a random generator per answer."""
    V, T = model.config.vocab_size, model.config.block_size
    tokenizer = answers[0].tokenizer
    suppress = tokenizer.suppressed_tokens(V)
    texts = [''] * len(answers)

    def next_token(logits, rows, t):    # logits (b, V) of the b unfinished answers
        logits[:, suppress] = -math.inf
        rows = rows.tolist()
        for row, i in zip(logits, rows):
            if answers[i].prefix:
                row[tokenizer.suppressed_tokens(V, answers[i].prefix)] = -math.inf
        u = logits.new_tensor([rngs[i].random() for i in rows])
        token = sample(logits, temperature, top_k, top_p, u)                            # (b,)
        for k, (i, id) in enumerate(zip(rows, token.tolist())):
            texts[i] += answers[i].append(id)
            if not answers[i].remaining:
                token[k] = IGNORE       # the stop token of stream() below: removes the sequence
        return token

    prompts = [torch.tensor(answer.ids[-T:]) for answer in answers]
    idx = pad_sequence(prompts, batch_first=True, padding_value=IGNORE, padding_side='left')
    n = max(answer.remaining for answer in answers)
    for _ in model.stream(idx.to(model.embedding.weight.device), n, next_token, stop=[IGNORE]):
        pass
    return texts


# --- samples.jsonl: a row for each answer ---------------------------------------------------------
REFUSED = ('%s has answers of other weights, questions or settings; choose another --out, or '
           'replace them: --overwrite')


def rows_of(task, questions, texts, info):
    """Return the rows of several answers to each question, not yet scored. info: {'ckpt', 'step',
    'chat'} of the model, and the hash that ask() computes."""
    rows = []
    for question, several in zip(questions, texts):
        row = {key: question.get(key) for key in ('task_id', 'family', 'composition', 'split',
                                                'prompt')}
        row |= {key: info.get(key) for key in ('ckpt', 'step', 'hash')}
        row |= {'task': task, 'messages': question['messages'] if info['chat'] else None,
                'kind': problems.KINDS.get(row['split']), 'outcome': 'ungraded', 'message': ''}
        rows += [row | {'sample': j, 'completion': text} for j, text in enumerate(several)]
    return rows


def given_answers(task, questions, rows, n):
    """Return the answers to each question, at least n, from rows {"task_id", "completion"}."""
    rows = [row for row in rows if row.get('task', task) == task]
    texts = []
    for name in [str(question['task_id']) for question in questions]:       # 601 equals "601"
        texts.append([row['completion'] for row in rows if str(row['task_id']) == name])
        require(len(texts[-1]) >= n, f'{n} completions of {name} are needed')
    return texts


def read_rows(path):
    """Return the rows of a file that may not exist. The last line of a killed process may be cut
    off, so what follows the last newline is ignored."""
    text = pathlib.Path(path).read_text('utf-8') if os.path.exists(path) else ''
    return [json.loads(line) for line in text.split('\n')[:-1] if line.strip()]


def replace_rows(path, rows):
    """Replace the rows of the same models and tasks in a file. The write is atomic: after a crash,
    the file has all old rows or all new ones."""
    of = lambda row: (row.get('ckpt'), row.get('task'))
    replaced = {*map(of, rows)}
    rows = rows + [row for row in read_rows(path) if of(row) not in replaced]
    pathlib.Path(f'{path}.tmp').write_text(''.join(json.dumps(row) + '\n' for row in rows), 'utf-8')
    os.replace(f'{path}.tmp', path)


def ask(path, task, questions, model, tokenizer, info, n, *how):
    """Return the rows of a model's n answers to each question. Each batch is appended to the file
    `path` when it is generated, with a hash of everything that the answers depend on. Answers that
    the file has already, with the same hash, are not generated again. how: arguments of batches(),
    from max_new_tokens on."""
    prompts = [question['messages' if info['chat'] else 'prompt'] for question in questions]
    names = [question['task_id'] for question in questions]
    how = n, questions[0]['ends'], *how
    settings = tokenizer.hash, names, prompts, how, model.embedding.weight.device.type
    digest = hashlib.sha256(repr(settings).encode('utf-8', 'surrogatepass'))
    for weight in model.state_dict().values():
        digest.update(weight.cpu().numpy())
    info = info | {'hash': digest.hexdigest()[:16]}
    rows = rows_of(task, questions, [[''] * n] * len(names), info)
    known, number = {}, {name: i for i, name in enumerate(names)}       # {index of the row: text}
    for row in read_rows(path):
        if (row.get('ckpt'), row.get('task')) == (info['ckpt'], task):
            require(row.get('hash') == info['hash'], REFUSED % path)
            known[number[row['task_id']] * n + row['sample']] = row['completion']
    replace_rows(path, [])      # removes an incomplete last line
    with open(path, 'a', encoding='utf-8') as file:
        for batch in batches(model, tokenizer, prompts, *how, known=known):
            for k, text in batch.items():
                rows[k]['completion'] = text
                if k not in known:
                    print(json.dumps(rows[k]), file=file)
            file.flush()
    return rows
