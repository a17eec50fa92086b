"""
Evaluate checkpoints: the loss on held-out text, and pass@k on problems with 95% intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose   # each model on each text
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=gsm8k,own --data=gsm8k_test.jsonl,own.jsonl

loss            nats, perplexity and bits per byte on val.bin, and on each source of a mixture
problems        write Python functions that pass tests: n_problems of each of these splits. None of
                the problems is in the training data, but some of their tasks or steps are:
                example     tasks of the SFT data, with other names and numbers
                practice    tasks of DPO and RL, which combine steps of the SFT data
                unseen      other combinations of these steps, which no stage trains on
                other       tasks that no stage trains on
humaneval, mbpp write the functions of --data, a file in the format of HumanEval or MBPP
gsm8k           the last number of an answer must equal the number after #### in the file
own             your questions: {"prompt": "2 + 2?", "regex": "4"}; see docs/measuring.md

All tasks but loss need extras/. Choose the problems before you train: on another set of problems,
the same model scores outside the 95% interval about one time in six.

eval.py writes eval.json, and samples.jsonl with every answer, next to the first checkpoint. Answers
are saved as soon as they are generated, so if eval.py is interrupted, run the same command again to
resume. python -m extras.tasks.compare A B compares two samples.jsonl, and
python -m extras.tasks.rescore scores existing answers.
"""
import functools, json, math, os, pathlib, re
from typing import Literal
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure, find_paths, require, require_writable
from common import folder_of, init_device, is_main_process, load_model
from model import GPT

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'               # checkpoint, a model: a folder or .pt file; several: A,B or A/*.pt
tasks = 'loss'                  # names from the list above, separated by commas
data_dir = ''                   # prepare.py's output, for the loss; A,B; '' = the base model's data
data = ''                       # questions: a .jsonl or .jsonl.gz file; for several tasks: A,B
allow_code_execution = False    # True: run a model's programs; first read extras/tasks/sandbox.py
out = ''                        # file for the results; '' = eval.json, see above
overwrite = False               # True: replace the answers of another evaluation in samples.jsonl
# loss
random_init = True              # also evaluate an untrained model
loss_tokens = 0                 # tokens to evaluate, from the beginning; 0 = all
# questions
n_problems = 0                  # questions per split or file; 0 = 100 per split, or the whole file
splits = 'example,practice,unseen,other'    # splits of problems; problems.py has more
# answers
num_samples = 1                 # answers per question
k = '1'                         # k of pass@k, at most num_samples; several: 1,10,100
temperature: float | None = None    # 0 = greedy; None = 0 for num_samples=1, else 0.8
top_k = 0                       # sample from the k most probable tokens; 0 = all
top_p = 1.0                     # sample from the fewest tokens with this total probability; 1 = all
max_new_tokens = 256            # maximum number of tokens of an answer
chat: bool | None = None        # ask in chat format; None = if the checkpoint is a chat model
timeout = 3.0                   # seconds for a program
# machine
batch_size = 16                 # sequences per forward pass
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'  # auto: the fastest available device
seed = 1337                     # random seed of the untrained model and of answers
# {setting: (minimum, maximum)}; all other numeric settings must be at least 0
BOUNDS = {'num_samples': (1, 10000), 'max_new_tokens': (1, 1e6), 'batch_size': (1, 1e6),
          'top_p': (1e-9, 1), 'timeout': (0.01, 86400)}


# --- 1. metrics on text ---------------------------------------------------------------------------
@torch.no_grad()
def exact_loss(model, ids, batch_size):
    """Return (nats, n): the summed loss of the n tokens ids[1:]. Each token is predicted once, from
    the earlier tokens of its block. 11 ids and block_size 4 make blocks of 4, 4 and 2 tokens:

        x   0 1 2 3 | 4 5 6 7 | 8 9         y   1 2 3 4 | 5 6 7 8 | 9 10

    Blocks are independent, so batch_size changes the loss by rounding only."""
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
    """Return the summed loss in bits per byte of text, which can be compared between tokenizers.
    For example, two models predict "the ", 4 bytes: one predicts a single token with p = 1/16, the
    other predicts four characters with p = 1/2 each:

        tokens      p of each   nats a token    summed nats     bits    bits per byte
        "the "      1/16        2.77            2.77            4       1
        t h e " "   1/2         0.69            2.77            4       1

    Both models give the text the same probability."""
    return nats / math.log(2) / max(1, n_bytes)


# --- 2. metrics on answers ------------------------------------------------------------------------
def pass_at_k(n, c, k):
    """Return the probability that at least one of k completions passes, if k are sampled without
    replacement from n, of which c pass (Chen et al. 2021, arXiv:2107.03374, eq. 1).
    pass_at_k(4, 1, 2) -> 0.5. pass_at_k(10, 3, 5) -> 0.917, and not 1 - (1 - 3/10)^5 = 0.832, which
    is the result with replacement."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def interval(scores):
    """Return the 95% confidence interval of a pass rate. scores: for each problem the fraction of
    its answers that pass, 0 to 1.
    interval([1] * 8 + [0] * 2) -> [0.49, 0.94]: ten problems say little. If half of 200 problems
    pass, it is [0.43, 0.57], and for 800 [0.47, 0.53]: four times the problems halve the width."""
    p = sum(scores) / len(scores)
    # Wilson 1927: 95% of the time, the measured rate p is within 1.96 standard errors of the true
    # rate q. So the interval is all q with |p - q| <= 1.96 sqrt(q (1 - q) / n). Its bounds solve
    # (p - q)^2 = w q (1 - q) with w = 1.96^2 / n. Ten of ten problems give [0.72, 1]; the standard
    # error at p would give [1, 1]. Scores such as 0.25 vary less, so their interval is too wide.
    w = 1.96 ** 2 / len(scores)
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


# --- 3. files and tables --------------------------------------------------------------------------
def base_data_dir(path):
    """Return the data_dir that the base model of a run was trained on, or '' if unknown. train.py
    writes it to data.json, and later stages copy data.json."""
    file = folder_of(path) / 'data.json'
    return json.loads(file.read_bytes()).get('data_dir', '') if file.exists() else ''


def open_data(folder):
    """Return the metadata (meta.json) and {'val': token ids, and 'val_SOURCE' per source}."""
    path = pathlib.Path(folder, 'meta.json')
    require(path.exists() and path.with_name('val.bin').exists(), f'{folder} has no prepared text '
            '(meta.json and val.bin); run: python prepare.py --source=FILE --out_dir=NEW, and set '
            '--data_dir=NEW (for chats and preference pairs, see val_loss in metrics.jsonl)')
    meta = json.loads(path.read_bytes())
    bins = {file.stem: np.memmap(file, meta['dtype'], 'r')
            for file in sorted(pathlib.Path(folder).glob('val*.bin'))
            if file.stat().st_size > 4}             # bytes: at least two tokens
    require('val' in bins and len(bins['val']) == meta['tokens']['val'], f'{folder}/val.bin has '
            'too few tokens, or not as many as meta.json says; run prepare.py again')
    return meta, bins


def print_table(title, rows):
    """Print rows {name: {column: value}}, with the columns of the first row."""
    width = max(26, *map(len, rows))
    print(f'{title:<{width}}', *[f'{column:>14}' for column in next(iter(rows.values()))])
    for name, row in rows.items():
        cells = []
        for value in row.values():
            if isinstance(value, list):             # an interval
                value = ' to '.join(f'{end:.3f}' for end in value)
            if isinstance(value, dict):             # outcomes: counts
                value = ', '.join(f'{key} {n}' for key, n in value.items())
            cells.append(f'{value:.4f}' if isinstance(value, float) else str(value))
        print(f'{name:<{width}}', *[f'{cell:>14}' for cell in cells])
    print()


config = configure(globals(), BOUNDS)       # config files and flags replace the settings
require(is_main_process(), 'eval.py is a single process: run it with python, not with torchrun')

# --- 4. tasks, checkpoints and output files -------------------------------------------------------
TASKS = 'loss', 'problems', 'humaneval', 'mbpp', 'gsm8k', 'own'
all_tasks = [*dict.fromkeys(tasks.split(','))]            # without duplicates
generation_tasks = [task for task in all_tasks if task != 'loss']
require(generation_tasks or num_samples == 1 and not data, '--data and --num_samples need --tasks')
require({*all_tasks} <= {*TASKS}, f'--tasks={tasks}: the tasks are {", ".join(TASKS)}; for '
        'multiple choice and IFEval use lm_eval, see docs/measuring.md')
require(re.fullmatch('[1-9][0-9]*(,[1-9][0-9]*)*', k),
        f'--k={k} must be whole numbers from 1, separated by commas, such as 1,10')
ks = sorted({1, *map(int, k.split(','))})                 # 1 for the interval of pass@1
require(not generation_tasks or ks[-1] <= num_samples,
        f'pass@{ks[-1]} needs at least {ks[-1]} answers per question: --num_samples={ks[-1]}')
paths, folders = [*map(os.path.normpath, find_paths(ckpt))], find_paths(data_dir)
out = pathlib.Path(out or folder_of(paths[0]) / 'eval.json')
samples_path = out.with_name('samples.jsonl')
require(out.suffix == '.json', f'--out={out} must end with .json')
outputs = {*map(os.path.abspath, [out, samples_path])}
require(outputs.isdisjoint(map(os.path.abspath, find_paths(data))),
        f'--out={out} would replace a file of --data; choose another --out')

losses = {}         # {model and text: {'nats': ...}}
samples = []        # scored answers of all checkpoints and tasks
scores = {task: [] for task in generation_tasks}        # {task: [(info, summary), ...]}
report = {'settings': config, 'tasks': {'loss': losses} if 'loss' in all_tasks else {}}

# --- 5. load the questions and the validation data ------------------------------------------------
# A question is a dict: `messages` for a chat model, `prompt` for a base model, `ends`, a regex at
# which answers stop (one for each task), and either `tests`, a program such as
# 'assert add(1, 2) == 3', or `rules`, pairs such as ('answer', '13').
questions_of = {}       # {task: questions}
if generation_tasks:
    from extras.tasks import answers, grading, questions, sandbox
    # With None, tasks that need to run programs are refused.
    run = functools.partial(sandbox.run_many, timeout=timeout) if allow_code_execution else None
    questions_of = questions.of_tasks(generation_tasks, data, n_problems, splits.split(','))
    report['decontaminated'] = questions.contamination(folder_of(paths[0]))
    # Check the test harness: refuse to score if an empty function passes the tests of a question.
    # Then run the reference solutions, and remove the questions whose solution fails.
    report |= grading.check_tasks(questions_of, run)        # 'left_out': the removed task_ids
for path in paths:
    require(os.path.exists(path), f'{path} does not exist; --ckpt must be a run\'s folder or a .pt '
            'file; for a first run: python clean.py && python prepare.py && python train.py')
if 'loss' in all_tasks and not folders:
    folders = sorted({*map(base_data_dir, paths)} - {''})
    require(folders, f'{ckpt} has no data.json that names its training data; say on which text to '
            'measure the loss: --data_dir=FOLDER')
    config['data_dir'] = ','.join(folders)
    print(f'the loss is measured on {config["data_dir"]}; choose other text with '
          '--data_dir=FOLDER')
val_data = {folder: open_data(folder) for folder in folders if 'loss' in all_tasks}
require_writable(out)
if generation_tasks:
    require(overwrite or all(row.get('ckpt') in paths and row.get('task') in generation_tasks
                             for row in answers.read_rows(samples_path)),
            answers.REFUSED % samples_path)

# --- 6. evaluate one model ------------------------------------------------------------------------
device_type, device, dtype, *_ = init_device(device, 'auto')
torch.set_float32_matmul_precision('highest')       # no TF32: exact losses
use_bfloat16 = device_type == 'cuda' and dtype == 'bfloat16'
autocast = torch.autocast(device_type, torch.bfloat16, enabled=use_bfloat16)     # for answers only


def measure_loss(name, model, tokenizer):
    """Measure a model's loss on each text: losses['trained'] = {'nats': 2.1, ...}. With several
    folders or sources, the key names them, too: losses['trained data/mix web']."""
    text_bytes = np.array(tokenizer.text_bytes)                 # per token; 0 for special tokens
    for folder, (_, bins) in val_data.items():
        for split, ids in bins.items():
            ids = ids[:loss_tokens + 1] if loss_tokens else ids
            nats, n = exact_loss(model, ids, batch_size)
            n_bytes = int(text_bytes[ids[1:]].sum())
            names = [name, folder if len(val_data) > 1 else '', split[len('val_'):]]
            losses[' '.join(filter(None, names))] = {
                'nats': nats / n, 'perplexity': math.exp(min(nats / n, 700)),
                'bits_per_byte': bits_per_byte(nats, n_bytes), 'tokens': n, 'bytes': n_bytes}


def score(task, rows, info):
    """Score rows, a model's answers to a task. info: {'ckpt', 'step', 'chat', ...} of the model."""
    samples.extend(rows)        # not copies: grading adds an outcome to each dict
    try:
        grading.grade(questions_of[task], rows, run)
        scores[task].append((info, grading.summarize(rows, ks, pass_at_k, interval)))
    finally:                    # also save if the sandbox fails, or at Ctrl-C
        save()


def save():
    """Write samples.jsonl and eval.json with the results so far."""
    if generation_tasks:
        answers.replace_rows(samples_path, samples)
    for task, results in scores.items():
        results.sort(key=lambda result: result[0]['step'] or 0)
        series = [summary | info for info, summary in results]
        if series:
            report['tasks'][task] = series[0] if len(series) == 1 else {'series': series}
    out.write_text(json.dumps(report, indent=1))


# --- 7. measure the loss and score the answers of each checkpoint ---------------------------------
for path in paths:
    model, tokenizer = load_model(path, 'sft.py' if chat else 'train.py')
    model = model.to(device).eval()
    for folder, (meta, _) in val_data.items():
        require(meta['tokenizer_hash'] == tokenizer.hash, f'{folder} has another tokenizer than '
                f'{path}; run prepare.py with --tokenizer={folder_of(path)}/tokenizer.json')
    if generation_tasks and overwrite and path == paths[0]:       # after the checks above
        samples_path.unlink(missing_ok=True)
    is_chat = 'stage' in model.saved.get('config', {})  # set by sft.py, dpo.py and rl.py
    info = {'ckpt': path, 'step': model.saved.get('step'), 'tokenizer_hash': tokenizer.hash,
           'chat': is_chat if chat is None else chat}
    report = info | report               # keeps the info of the first checkpoint
    measure_loss(path if len(paths) > 1 else 'trained', model, tokenizer)
    save()
    for task, inputs in questions_of.items():
        with autocast:
            rows = answers.ask(samples_path, task, inputs, model, tokenizer, info, num_samples,
                               max_new_tokens, seed, batch_size, temperature, top_k, top_p)
        score(task, rows, info)
if val_data and random_init:            # with the last checkpoint's config and tokenizer
    torch.manual_seed(seed)
    measure_loss('untrained', GPT(model.config).to(device).eval(), tokenizer)
save()

# --- 8. the tables --------------------------------------------------------------------------------
if losses:
    print_table('loss', losses)
for task, results in scores.items():
    print_table(task, {f'{info["ckpt"]}, step {info["step"]}: {split}': part
                       for info, summary in results for split, part in
                       {'all': summary, **summary.pop('by_split')}.items()})
print(f'written to {out}')
