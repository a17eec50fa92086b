"""
Evaluate checkpoints: the loss on held-out text, and pass@k on problems, with 95% intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose   # each model on each text
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=gsm8k,own --data=gsm8k_test.jsonl,own.jsonl

loss            nats, perplexity and bits per byte of val.bin, and of each source of a mixture
problems        Python functions to write, which pass if they pass their tests; n_problems of each
                of these splits, whose problems are all new to the model:
                example     tasks that SFT showed, with other names and numbers
                practice    combinations of known steps that DPO and RL practiced, without answers
                unseen      combinations of known steps that no stage has seen
                other       tasks that no stage has seen
humaneval, mbpp functions to write, from a file in the layout of HumanEval or MBPP
gsm8k           the last number of the answer must be the one behind #### in the file
own             your questions: {"prompt": "2 + 2?", "regex": "4"}; see docs/measuring.md

All but loss need extras/. Choose the problems before you train: other problems give the same model
a score outside this interval about one time in six.

eval.py writes eval.json, and samples.jsonl with every answer, next to the first checkpoint. Each
answer is saved as soon as the model has written it, so if eval.py is interrupted, run the same
command again to resume. python -m extras.tasks.compare A B compares two samples.jsonl, and
python -m extras.tasks.rescore scores answers that exist already.
"""
import functools, json, math, os, pathlib, re
from typing import Literal
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure, find_paths, require, require_writable
from common import folder_of, load_model, init_device
from model import GPT

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'               # checkpoint: a folder or a .pt file; several: A,B or A/*.pt
tasks = 'loss'                  # names from the list above, separated by commas
data_dir = ''                   # prepared text for the loss, several: A,B; '' = the base's own
data = ''                       # questions: a .jsonl or .jsonl.gz file; of several tasks: A,B
allow_code_execution = False    # True: run a model's programs; first read extras/tasks/sandbox.py
out = ''                        # file for the results; '' = eval.json, see above
overwrite = False               # True: replace the answers of another evaluation in samples.jsonl
# loss
random_init = True              # measure an untrained model, too
loss_tokens = 0                 # tokens to measure, from the beginning; 0 = all
# questions
n_problems = 0                  # questions; 0 = 100 of each split, or a whole file
splits = 'example,practice,unseen,other'    # of the problems; others are in problems.py
# answers
num_samples = 1                 # answers to a question
k = '1'                         # answers drawn for pass@k, at most num_samples; several: 1,10,100
temperature: float | None = None    # 0 = the likeliest token; None = 0 for 1 answer, else 0.8
top_k = 0                       # number of likeliest tokens to draw from; 0 = all
top_p = 1.0                     # probability of the likeliest tokens to draw from; 1 = all
max_new_tokens = 256            # tokens of an answer
chat: bool | None = None        # ask in a conversation; None = as the checkpoint was taught
timeout = 3.0                   # seconds for a program
# machine
batch_size = 16                 # sequences per forward pass
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'  # auto: the fastest one that is here
seed = 1337                     # seed of the untrained model and of answers
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'num_samples': (1, 10000), 'max_new_tokens': (1, 1e6), 'batch_size': (1, 1e6),
          'top_p': (1e-9, 1), 'timeout': (0.01, 86400)}


# --- 1. what is measured on text ------------------------------------------------------------------
@torch.no_grad()
def exact_loss(model, ids, batch_size):
    """Return (nats, n): the summed loss of the n tokens ids[1:]. Each is predicted once, from its
    block so far. Of 11 ids and blocks of 4, 10 tokens are predicted, in blocks of 4, 4 and 2:

        x   0 1 2 3 | 4 5 6 7 | 8 9         y   1 2 3 4 | 5 6 7 8 | 9 10

    A block sees no other block, so batch_size changes the loss by rounding only."""
    T, n = model.config.block_size, len(ids) - 1
    whole = n - n % T               # tokens in whole blocks: 8
    cuts = sorted({*range(0, whole, T * batch_size), whole, n})     # 0 4 8 10 with batch_size=1
    nats = 0.0
    for begin, end in tqdm([*zip(cuts, cuts[1:])], 'loss', disable=None):
        length = min(T, end - begin)
        part = torch.from_numpy(ids[begin:end + 1].astype(np.int64))
        part = part.to(model.embedding.weight.device)               # (B T + 1,)
        _, loss = model(part[:-1].view(-1, length), part[1:].view(-1, length))      # x, y (B, T)
        nats += loss.item() * (end - begin)         # the model returns the mean
    return nats, n


def bits_per_byte(nats, n_bytes):
    """Return the summed loss in bits, for each byte of the text: a loss that can be compared
    between tokenizers. Two models read "the ", 4 bytes. To one it is a single token, of which it is
    rather unsure. The other reads letters, and wavers between two at each of them:

        tokens      p of each   nats a token    summed nats     bits    bits per byte
        "the "      1/16        2.77            2.77            4       1
        t h e " "   1/2         0.69            2.77            4       1

    Both find the text equally likely."""
    return nats / math.log(2) / max(1, n_bytes)


# --- 2. what is measured on answers ---------------------------------------------------------------
def pass_at_k(n, c, k):
    """Return the chance that at least one of k completions passes, if k of n are drawn and c of the
    n pass (Chen et al. 2021, arXiv:2107.03374, eq. 1). pass_at_k(4, 1, 2) -> 0.5.
    pass_at_k(10, 3, 5) -> 0.917, and not 1 - (1 - 3/10)^5 = 0.832, which puts each answer back
    before it draws the next one."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean(numbers):
    return sum(numbers) / len(numbers)


def interval(scores):
    """Return the 95% interval of a pass rate. scores: of each problem the fraction of its answers
    that pass, 0 to 1.
    interval([1] * 8 + [0] * 2) -> [0.49, 0.94]: ten problems say little. Half of 200 problems gives
    [0.43, 0.57], half of 800 [0.47, 0.53]: four times the problems halve the width."""
    p = mean(scores)
    # Wilson 1927: all q with |p - q| <= 1.96 sqrt(q (1 - q) / n), because 95% of the time the
    # measured rate p lies within 1.96 standard errors of the true rate q. The ends solve
    # (p - q)^2 = w q (1 - q) with w = 1.96^2 / n. Ten of ten problems give [0.72, 1]; errors at
    # q = p would give [1, 1]. Fractions such as 0.25 vary less than 0 and 1: theirs is a bit wide.
    w = 1.96 ** 2 / len(scores)
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


# --- 3. files and tables --------------------------------------------------------------------------
def own_data(path):
    """Return the folder of text that the base model of a run was trained on, or '' if it isn't
    known. train.py writes its name into data.json, and later stages copy that file."""
    file = folder_of(path) / 'data.json'
    return json.loads(file.read_bytes()).get('data_dir', '') if file.exists() else ''


def open_data(folder):
    """Return meta.json and {'val': token ids}, of a mixture also those of each 'val_SOURCE'."""
    path = pathlib.Path(folder, 'meta.json')
    require(path.exists() and path.with_name('val.bin').exists(), f'{folder} has no prepared text, '
            'meta.json and val.bin; run: python prepare.py --source=FILE --out_dir=NEW, and give '
            '--data_dir=NEW (the val_loss of chats and pairs is in metrics.jsonl)')
    meta = json.loads(path.read_bytes())
    bins = {file.stem: np.memmap(file, meta['dtype'], 'r')
            for file in sorted(pathlib.Path(folder).glob('val*.bin'))
            if file.stat().st_size > 4}             # bytes: surely two tokens
    require('val' in bins and len(bins['val']) == meta['tokens']['val'], f'{folder}/val.bin has '
            'too few tokens, or not as many as meta.json says; run prepare.py again')
    return meta, bins


def print_table(title, rows):
    """Print rows {name: {head of a column: value}}, with the columns of the first one."""
    width = max(26, *map(len, rows))
    print(f'{title:<{width}}', *[f'{head:>14}' for head in next(iter(rows.values()))])
    for name, row in rows.items():
        cells = []
        for value in row.values():
            if isinstance(value, list):             # an interval
                value = ' to '.join(f'{end:.3f}' for end in value)
            if isinstance(value, dict):             # why answers failed
                value = ', '.join(f'{key} {n}' for key, n in value.items())
            cells.append(f'{value:.4f}' if isinstance(value, float) else str(value))
        print(f'{name:<{width}}', *[f'{cell:>14}' for cell in cells])
    print()


config = configure(globals(), BOUNDS)       # config files and flags replace the settings

# --- 4. what is measured, and where the results go ------------------------------------------------
TASKS = 'loss', 'problems', 'humaneval', 'mbpp', 'gsm8k', 'own'
split = lambda names: names.split(',')
all_tasks = [*dict.fromkeys(split(tasks))]              # each once
asking = [task for task in all_tasks if task != 'loss']
require({*all_tasks} <= {*TASKS}, f'--tasks={tasks}: the tasks are {", ".join(TASKS)}; for '
        'multiple choice and IFEval use lm_eval, see docs/measuring.md')
require(re.fullmatch('[1-9][0-9]*(,[1-9][0-9]*)*', k),
        f'--k={k} must be whole numbers from 1, separated by commas, such as 1,10')
ks = sorted({1, *map(int, split(k))})                   # always with 1: the interval is pass@1's
require(not asking or ks[-1] <= num_samples,
        f'pass@{ks[-1]} needs at least {ks[-1]} answers to a question: --num_samples={ks[-1]}')
paths, folders = [*map(os.path.normpath, find_paths(ckpt))], find_paths(data_dir)
out = pathlib.Path(out or folder_of(paths[0]) / 'eval.json')
samples_path = out.with_name('samples.jsonl')
require(out.suffix == '.json', f'--out={out} must end with .json')
written = {*map(os.path.abspath, [out, samples_path])}
require(written.isdisjoint(map(os.path.abspath, find_paths(data))),
        f'--out={out} would replace a file that is read; choose another --out')
if 'loss' in all_tasks and not folders:
    known = sorted({*map(own_data, paths)} - {''})
    folders = known or ['data/quickstart']
    config['data_dir'] = ','.join(folders)
    why = '' if known else f', because no data.json next to {ckpt} names the text of its base model'
    print(f'the loss is measured on {config["data_dir"]}{why}; choose other text with '
          '--data_dir=FOLDER')

losses = {}         # {name of a model and its text: {'nats': ...}}
samples = []        # every scored answer, of all checkpoints and tasks
scores = {task: [] for task in asking}      # [(who, summary), ...] of each
report = {'settings': config, 'tasks': {'loss': losses} if 'loss' in all_tasks else {}}

# --- 5. the questions, and the text for the loss --------------------------------------------------
# A question is a dict: messages for a chat; prompt for a base model; ends, a pattern that stops its
# answer, the same in all of a task; tests, a program such as 'assert add(1, 2) == 3', or rules,
# pairs such as ('answer', '13').
questions_of = {}
if asking:
    from extras.tasks import answers, grading, questions, sandbox
    # None: a task that has programs is refused
    run = functools.partial(sandbox.run_many, timeout=timeout) if allow_code_execution else None
    questions_of = questions.of_tasks(asking, data, n_problems, split(splits))
    report['decontaminated'] = questions.contamination(folder_of(paths[0]))
    # First, functions that do nothing: if one passes its tests, there is no score. Then the known
    # solutions: a question whose own solution fails is removed.
    report |= grading.check_tasks(questions_of, run)        # adds 'left_out', their task_ids
for path in paths:
    require(os.path.exists(path), f'{path} does not exist; give the folder of a run or a file in '
            'it; for a first one, run: python clean.py && python prepare.py && python train.py')
require_writable(out)
held_out = {folder: open_data(folder) for folder in folders if 'loss' in all_tasks}
if asking:
    require(overwrite or all(row.get('ckpt') in paths and row.get('task') in asking
                             for row in answers.read_rows(samples_path)),
            answers.REFUSED % samples_path)

# --- 6. what is done with each model --------------------------------------------------------------
device_type, device, dtype, *_ = init_device(device, 'auto')
torch.set_float32_matmul_precision('highest')       # no TF32: a loss is exact
is_fast = device_type == 'cuda' and dtype == 'bfloat16'
autocast = torch.autocast(device_type, torch.bfloat16, enabled=is_fast)     # of answers only


def measure_loss(name, model, tokenizer):
    """Measure the loss of a model on each text: losses['trained'] = {'nats': 2.1, ...}. A name is
    that of the model, and of several folders or sources theirs, too: 'trained data/mix web'."""
    text_bytes = np.array(tokenizer.text_bytes)                 # of each token; of specials 0
    for folder, (_, bins) in held_out.items():
        for text, ids in bins.items():
            ids = ids[:loss_tokens + 1] if loss_tokens else ids
            nats, n = exact_loss(model, ids, batch_size)
            n_bytes = int(text_bytes[ids[1:]].sum())
            names = [name, folder if len(held_out) > 1 else '', text[len('val_'):]]
            losses[' '.join(filter(None, names))] = {
                'nats': nats / n, 'perplexity': math.exp(min(nats / n, 700)),
                'bits_per_byte': bits_per_byte(nats, n_bytes), 'tokens': n, 'bytes': n_bytes}


def score(task, rows, who):
    """Score rows, the answers to a task by the model of `who`: {'ckpt', 'step', 'chat', ...}."""
    samples.extend(rows)        # the same dicts: grading writes the outcomes into them
    try:
        grading.grade(questions_of[task], rows, run)
        scores[task].append((who, grading.summarise(rows, ks, pass_at_k, interval)))
    finally:                    # also if the sandbox fails, or at Ctrl-C, with what is known so far
        save()


def save():
    """Write samples.jsonl and eval.json with all that is known so far."""
    if asking:
        answers.replace_rows(samples_path, samples)
    for task, results in scores.items():
        results.sort(key=lambda result: result[0]['step'] or 0)
        series = [summary | who for who, summary in results]
        if series:
            report['tasks'][task] = series[0] if len(series) == 1 else {'series': series}
    out.write_text(json.dumps(report, indent=1))


# --- 7. each checkpoint: its loss, and its answers ------------------------------------------------
for path in paths:
    model, tokenizer = load_model(path, 'sft.py' if chat else 'train.py')
    model = model.to(device).eval()
    for folder, (meta, _) in held_out.items():
        require(meta['tokenizer_hash'] == tokenizer.hash, f'{folder} has another tokenizer than '
                f'{path}; prepare the text with --tokenizer={folder_of(path)}/tokenizer.json')
    if asking and overwrite and path == paths[0]:       # the model and its text fit
        samples_path.unlink(missing_ok=True)
    is_chat = 'stage' in model.saved.get('config', {})  # sft.py, dpo.py and rl.py teach to answer
    who = {'ckpt': path, 'step': model.saved.get('step'), 'tokenizer_hash': tokenizer.hash,
           'chat': is_chat if chat is None else chat}
    report = who | report               # of several checkpoints, the first is named
    measure_loss(path if len(paths) > 1 else 'trained', model, tokenizer)
    save()
    for task, asked in questions_of.items():
        with autocast:
            rows = answers.ask(samples_path, task, asked, model, tokenizer, who, num_samples,
                               max_new_tokens, seed, batch_size, temperature, top_k, top_p)
        score(task, rows, who)
if held_out and random_init:            # it has the last one's shape and tokenizer
    torch.manual_seed(seed)
    measure_loss('untrained', GPT(model.config).to(device).eval(), tokenizer)
save()

# --- 8. the tables --------------------------------------------------------------------------------
if losses:
    print_table('loss', losses)
for task, results in scores.items():
    print_table(task, {f'{who["ckpt"]}, step {who["step"]}: {split}': part
                       for who, summary in results for split, part in
                       {'all': summary, **summary.pop('by_split')}.items()})
print(f'written to {out}')
