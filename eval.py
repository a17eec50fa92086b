"""
Evaluation: how good a checkpoint is, measured on held-out data, with confidence intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --k=1,8 --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=gsm8k,own --data=gsm8k_test.jsonl,my_questions.jsonl
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose       # which is better at what
    python eval.py --tasks=compare --ckpt=out/sft --compare=out/dpo --out=out/dpo/compare.json

loss            nats, perplexity and bits per byte of the whole val.bin, and of each source of a mixture
problems        functions of parts/eval/problems.py, written by the model and run
humaneval, mbpp the same, from a file in HumanEval's layout
gsm8k           the last number of the answer must be the one behind #### in the file
own             your questions: {"prompt": "2 + 2?", "regex": "4"}; other checks: docs/measuring.md
judge           questions, such as the first turns of MT-Bench, graded 1 to 10 by the command --judge
learned         shares of spaces, known words, known line beginnings and speeches in its texts and in val.bin
compare         problems gained and lost between two samples.jsonl

The decision made here is the measure: it fixes what you will call progress, so choose it before you train.

Perplexity, e^nats, is the number of equally likely tokens that the model hesitates between. Bits per byte
can be compared between tokenizers. pass@k: the chance that at least one of k answers passes. eval.py writes
eval.json and samples.jsonl (every completion) beside the checkpoint, or in scored/ beside --completions.
"""
import collections, glob, json, math, os, re, shlex
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure, nearest, show
from model import GPT
from parts.model import checkpoints
from parts.prepare import texts
from parts.train import processes, records
from parts.train.data import open_bins, sequences
from parts.sample import asking
from parts.eval import problems, questions, results, sandbox
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/base'               # a folder or a .pt file; several: A,B or A/*.pt
data_dir = 'data/quickstart'    # for loss and learned; made with ckpt's tokenizer; several: A,B
tasks = 'loss'                  # comma-separated
data: str | None = None         # the benchmark's .jsonl or .jsonl.gz; of several tasks: A,B
completions: str | None = None  # .jsonl of {"task_id", "completion"}: score these, without a model
splits = 'variation,feedback_variation,cell,family'     # for problems: see parts/eval/problems.py
n_problems: int | None = None   # >= 1: None = 100 of each split, or a whole file
problems_seed = 0               # another seed: other problems of these splits
num_samples = 1                 # [1, 10000]: completions per problem; learned writes at least 32 texts
k = '1'                         # of pass@k, each at most num_samples; several: 1,10,100
temperature: float | None = None    # >= 0: 0 = the most probable token; None = 0 for one sample, else 0.8
top_k = 0                       # >= 0: 0 = off
top_p = 1.0                     # (0, 1]: 1 = off
max_new_tokens = 256            # >= 1: tokens of an answer
chat: bool | None = None        # ask in a conversation; None = as the checkpoint was taught
allow_code_execution = False    # True: run a model's programs here; first read parts/eval/sandbox.py
timeout = 3.0                   # [0.01, 86400]: seconds for a program
memory_mb = 512                 # >= 1: for a program
judge = ''                      # a command: JSON on stdin -> a grade on stdout
compare = ''                    # a samples.jsonl or its folder, to set beside that of ckpt
batch_size = 16                 # >= 1: sequences per forward pass
random_init = True              # loss, learned: measure an untrained model too
loss_tokens = 0                 # >= 0: tokens to measure, from the beginning; 0 = all
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16: of answers; auto = bfloat16 on GPUs
out: str | None = None          # where the results go; None = eval.json, see above
seed = 1337                     # [0, 2**32): of the untrained model, of samples
config = configure(globals())

# --- 1. the questions ---------------------------------------------------------------------------------------
all_tasks = tasks.split(',')
answered = [task for task in all_tasks if task in questions.TASKS]         # with answers to grade
known = 'loss', *questions.TASKS, 'learned', 'compare'
for task in collections.Counter(all_tasks) - collections.Counter(known):        # unknown, or there twice
    raise ValueError(f'--tasks={tasks}: {task!r} is unknown, or there twice{nearest(task, known)}; '
                     f'tasks: {", ".join(known)}; {questions.ELSEWHERE}')
if ('judge' in all_tasks) != bool(judge):
    raise ValueError("--tasks=judge and a --judge='python ask.py' belong together; see docs/measuring.md")
if ('compare' in all_tasks) != bool(compare):
    raise ValueError('--tasks=compare and a --compare=out/dpo belong together')
if not re.fullmatch(r'[1-9]\d{0,4}(,[1-9]\d{0,4})*', k):
    raise ValueError(f'{k=!r:.80} must be numbers from 1 to 99999, such as 1,10,100')
of_a_run = 'config.json', 'data.json', 'tokenizer.json'
if out and (not out.endswith('.json') or os.path.basename(out) in of_a_run):
    raise ValueError(f'{out=} must end with .json and must not be a file of a run; try --out=eval.json')
ks = sorted({1, *map(int, k.split(','))})      # always with 1: the interval is that of pass@1
if ks[-1] > num_samples and not completions:
    raise ValueError(f'pass@{ks[-1]} needs --num_samples={ks[-1]} or more; num_samples={num_samples}')
learned_temperature = 0.8 if temperature is None else temperature
if temperature is None:
    temperature = 0.0 if num_samples == 1 else 0.8

need_file = [task for task in answered if task != 'problems']
files = data.split(',') if data else []
if len(files) != len(need_file):
    raise ValueError(f'{data=} must name a .jsonl file for each of these tasks, in this order: '
                     f'{", ".join(need_file) or "none"}')

items_of = {}                               # task -> its questions, see parts/eval/questions.py
for task, path in zip(need_file, files):
    items = records.read_jsonl(path, lambda record: questions.to_item(task, record),
                               f'each line is a problem of {task}; see the top of eval.py')
    items_of[task] = questions.identify(task, path, items)[:n_problems]
if 'problems' in answered:
    items = []
    for split in splits.split(','):
        for problem in problems.problems(n_problems or 100, problems_seed, split):
            problem['asked'] = problems.to_messages(problem)[0]['content']
            items.append(questions.to_item('problems', problem))
    items_of['problems'] = questions.identify('problems', f'{splits=}', items)
if any(map(questions.runs, items_of.values())) and not allow_code_execution:
    raise ValueError("this runs a model's programs; first read parts/eval/sandbox.py, then give "
                     '--allow_code_execution=True')

# --- 2. the checkpoints -------------------------------------------------------------------------------------
device, answer_dtype = processes.choose(device, dtype)
if dtype == 'auto' and device == 'cpu':     # choose() takes bfloat16 on some CPUs
    answer_dtype = 'float32'
torch.set_float32_matmul_precision('highest')       # no TF32: the loss is exact

paths = []
for path in ckpt.split(','):
    paths += sorted(glob.glob(glob.escape(path).replace('[*]', '*'))) or [path]   # only * is a pattern
ckpt, *others = paths
if others and (compare or completions):
    raise ValueError(f'--compare and --completions take one ckpt, not {len(paths)}')
folder = checkpoints.folder_of(completions or ckpt)


def load(path):
    """(the model of a checkpoint, what eval.json says of it), if it can do the tasks."""
    model, state = checkpoints.open_model(path, device)
    trained = state.get('config', {})
    if 'reward_head' in state:          # of dpo.py --loss_type=rm
        raise ValueError(f'{path} is a reward model: it scores answers and writes none; how often it prefers '
                         'the better answer is val_accuracy in metrics.jsonl')
    if trained.get('objective', 'clm') != 'clm':
        raise ValueError(f'{path} has objective={trained["objective"]}: its val_loss is in metrics.jsonl; '
                         'see how it fills gaps with sample.py')
    remedy = f"copy the run's own tokenizer.json back into {folder}" if path == ckpt else 'evaluate it alone'
    checkpoints.same_tokenizer(path, state.get('tokenizer_hash'), tokenizer_path, tokenizer.hash, remedy)
    in_chat = trained.get('stage') in ('sft', 'dpo', 'rl') if chat is None else chat
    about = {'ckpt': path, 'step': state.get('step'), 'chat': in_chat}
    return model.grown(tokenizer.vocab_size).eval(), about      # a base model may lack chat tokens


tokenizer_path = os.path.join(checkpoints.folder_of(ckpt), 'tokenizer.json')
model = tokenizer = stamp = None    # stamp: the benchmarks that prepare.py took out of the training data
about = {'ckpt': None if completions else ckpt, 'step': None, 'chat': chat}
if 'loss' in all_tasks or 'learned' in all_tasks or (answered and not completions):
    checkpoints.find(ckpt)
    if not os.path.exists(tokenizer_path):
        tokenizer_path = os.path.join(data_dir.split(',')[0], 'tokenizer.json')
    tokenizer = Tokenizer.load(tokenizer_path)
    model, about = load(ckpt)
    stamp = questions.read_stamp(os.path.join(checkpoints.folder_of(ckpt), 'data.json'))


def models(untrained=False):
    """(model, about) of each checkpoint, and of an untrained model."""
    yield model, about
    for path in others:
        yield load(path)
    if untrained:
        torch.manual_seed(seed)
        yield GPT(model.config).to(device).eval(), {'ckpt': 'untrained', 'step': 0, 'chat': False}


def prepared_bins(source):
    """The bins of a folder, which must have been prepared with the checkpoint's tokenizer."""
    meta, bins, measured['data'][source] = open_bins(source, 1)
    checkpoints.same_tokenizer(ckpt, tokenizer.hash, source, meta['tokenizer_hash'],
                        f'prepare it with --tokenizer={tokenizer_path}')
    return bins


out = out or os.path.join(folder, 'scored' if completions else '', 'eval.json')
into = os.path.dirname(os.path.abspath(out))
outputs = {os.path.realpath(path) for path in (out, into, f'{into}/samples.jsonl')}    # --compare may be into
inputs = {os.path.realpath(path) for path in (*files, completions, compare) if path}
if os.path.isdir(out) or (answered and outputs & inputs):
    raise ValueError(f'{out=} is a folder or would replace a file that is read; choose another --out')
measured = {**about, 'completions': completions, 'data_dir': data_dir, 'data': {}, 'decontaminated': stamp,
            'tokenizer_hash': tokenizer and tokenizer.hash, 'tasks': {}}
all_bins = {path: prepared_bins(path) for path in data_dir.split(',')} if 'loss' in all_tasks else {}
show(config)
if answered and model:
    print(f'contamination: {questions.searched(stamp)}')
samples = []                        # every completion with its outcome
os.makedirs(into, exist_ok=True)
open(f'{out}.tmp', 'w', encoding='utf-8').close()       # a disk without room or rights shows now


# --- 3. the loss, of each checkpoint on each data -----------------------------------------------------------
@torch.no_grad()
def exact_loss(model, ids, block_size):
    """(nats, n): the summed loss of the n tokens ids[1:]. Each is predicted once, from its block so far."""
    n = len(ids) - 1
    starts = range(0, n - n % block_size, block_size)       # of the full blocks
    batches = [starts[i:i + batch_size] for i in range(0, len(starts), batch_size)]
    if n % block_size:
        batches.append([n - n % block_size])                # the last block is shorter
    nats = 0.0
    for batch in tqdm(batches, desc='loss', disable=None):
        x, y = sequences(ids, batch, min(block_size, n - batch[0]))                         # (B, T) each
        _, loss = model(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
        nats += loss.item() * y.size
    return nats, n


def measure_loss():
    """{name: row}. The name is 'trained', 'untrained' or, of several checkpoints, a path; then the data, if
    they are not the only val.bin: 'trained_web' (a source), 'trained_data/code val' (of several folders)."""
    losses = {}
    results.print_row('\nloss', 'data', 'nats/token', 'perplexity', 'bits/byte', 'tokens', width=27)
    text_bytes = np.array(tokenizer.text_bytes)     # of each token; of specials 0

    for m, about_m in models(random_init):
        name = 'trained' if about_m['ckpt'] == ckpt and not others else about_m['ckpt']
        for path, bins in all_bins.items():
            for side, ids in bins.items():
                if side == 'train' or (name == 'untrained' and side != 'val'):      # it is equally bad at all
                    continue
                source = side.removeprefix('val_')
                ids = ids[:loss_tokens + 1] if loss_tokens else ids
                nats, n = exact_loss(m, ids, m.config.block_size)
                n_bytes = int(text_bytes[np.asarray(ids[1:])].sum())
                row = {'nats': nats / n, 'perplexity': math.exp(min(nats / n, 700)),    # exp(710) overflows
                       'bits_per_byte': nats / math.log(2) / max(1, n_bytes), 'tokens': n, 'bytes': n_bytes}
                where = source if len(all_bins) == 1 else f'{path.rstrip("/")} {source}'
                losses[name if where == 'val' else f'{name}_{where}'] = row
                results.print_row(name, where, row['nats'], row['perplexity'], row['bits_per_byte'], n)
    return losses


# --- 4. the score of a task: check the harness, ask, grade, count -------------------------------------------
def ask(model, items, n, temperature, in_chat):
    """(n answers to each item, how many prompts were cut)"""
    ends = None if in_chat else questions.ENDS.get(items[0]['task'])       # where a base model's text ends
    prompts = [questions.question(item, in_chat) for item in items]
    kind = torch.device(device).type
    with torch.autocast(kind, getattr(torch, answer_dtype), enabled=answer_dtype != 'float32'):
        answers, n_cut = asking.generate(model, tokenizer, prompts, n, max_new_tokens, seed, batch_size,
                                         ends, temperature=temperature, top_k=top_k, top_p=top_p)
    return [[text for text, ended in several] for several in answers], n_cut


def answers_to(task, items):
    """Yields, of each checkpoint: (the answers to each item, about, how many prompts were cut)."""
    if completions:
        lines = records.read_jsonl(completions, dict, 'each line needs a "task_id" and a "completion"')
        answers = questions.given_answers(task, items, lines, ks[-1])
        yield answers, {'ckpt': None, 'step': None, 'chat': chat}, 0
        return
    for m, about_m in models():
        answers, n_cut = ask(m, items, num_samples, temperature, about_m['chat'])
        if n_cut:
            print(f'prompts longer than the context of {m.config.block_size} tokens, which were cut: {n_cut}')
        yield answers, about_m, n_cut


def save_samples():
    with open(f'{into}/samples.jsonl', 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(row) + '\n' for row in samples)


def grade(task, cases, in_chat):
    """A dict {'outcome', 'message', ...} for each case (item, answer). Programs run in parallel."""
    if task == 'judge':
        return [questions.judged(judge, item, text) for item, text in tqdm(cases, 'judge', disable=None)]
    jobs = [questions.job(item, text, in_chat) for item, text in cases]       # None: there is nothing to run
    finished = sandbox.run_many([job for job in jobs if job], timeout, memory_mb)       # yields in order
    verdicts = [next(finished) if job else None for job in tqdm(jobs, 'run', disable=None)]
    return [questions.outcome(item, text, result, in_chat) for (item, text), result in zip(cases, verdicts)]


def graded_rows(task, items, answers, about_m):
    """The rows of samples.jsonl for these answers. ValueError if too many could not be graded."""
    cases = [(item, text) for item, several in zip(items, answers) for text in several]
    rows = [questions.row_of(item, text, about_m) for item, text in cases]
    if questions.runs(items):
        for row in rows:
            row['preferred'] = problems.preferred(row['completion'])    # a single line, which DPO teaches
    samples.extend(rows)
    save_samples()                      # so that no answer is lost if a judge cannot be asked

    for row, outcome in zip(rows, grade(task, cases, about_m['chat'])):
        row.update(outcome)
    save_samples()
    lost = [row['message'] for row in rows if row['outcome'] == 'infrastructure']
    if len(lost) > len(rows) / 50:
        raise ValueError(f'no score of {task}: {len(lost)}/{len(rows)} could not be graded: {lost[-1]}')
    return rows


def pass_at_k(n, c, k):
    """The chance that at least one of k completions passes, if k of n are drawn and c of the n pass:
    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1). pass_at_k(4, 1, 2) -> 0.5"""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def summarise(rows, ks):
    """Rows of samples.jsonl -> pass@k and the interval of pass@1, or the judge's mean score and its interval.
    Answers that could not be graded do not count. pass@k: the mean over problems with at least k graded."""
    outcomes = collections.Counter(row['outcome'] for row in rows)
    is_judged = any('score' in row for row in rows)
    groups = collections.defaultdict(list)          # task_id -> a number for each answer: 0, 1 or a score
    for row in rows:
        if row['outcome'] != 'infrastructure':
            groups[row['task_id']].append(row['score'] if is_judged else int(row['outcome'] == 'passed'))
    means = [sum(group) / len(group) for group in groups.values()]
    n_samples = sum(len(group) for group in groups.values())
    failures = collections.Counter(questions.why_failed(row) for row in rows
                                   if row['outcome'] not in ('passed', 'judged'))
    result = {'n': len(groups), 'samples': n_samples, 'outcomes': dict(outcomes), 'failures': dict(failures)}
    if is_judged:
        result['score'] = sum(means) / max(1, len(means))
        shares = [(mean - 1) / 9 for mean in means]         # of the scale from 1 to 10
        return result | {'interval': [1 + 9 * x for x in results.interval(shares)]}

    for k in ks:
        chances = [pass_at_k(len(group), sum(group), k) for group in groups.values() if len(group) >= k]
        result[f'pass@{k}'] = sum(chances) / max(1, len(chances))
    result['interval'] = results.interval(means)
    if any('preferred' in row for row in rows):     # programs: is the body a single line?
        liked = sum(row['outcome'] == 'passed' and row['preferred'] for row in rows)
        result['preferred_rate'] = liked / outcomes['passed'] if outcomes['passed'] else None
        result['parse_rate'] = 1 - (outcomes['syntax'] + outcomes['empty']) / max(1, n_samples)
    return result


def score(task):
    """The result of a task; of several checkpoints {'series': their results, by step}."""
    items = items_of[task]
    caution = {}
    if questions.runs(items):          # first run answers that are known to be right or wrong
        run = lambda jobs: list(sandbox.run_many(jobs, timeout, memory_mb))
        left_out, measured['confined'], caution = questions.check_harness(task, items, run)
        measured['left_out'] = measured.get('left_out', []) + left_out
        items = [item for item in items if item['task_id'] not in left_out]

    series = []
    for answers, about_m, n_cut in answers_to(task, items):
        rows = graded_rows(task, items, answers, about_m)
        result = summarise(rows, ks) | caution
        if task == 'problems':
            for key in 'split', 'family', 'cell':
                names = sorted({row[key] for row in rows})
                result[f'by_{key}'] = {name: summarise([row for row in rows if row[key] == name], ks)
                                       for name in names}
        results.print_results(task, result, problems.KINDS)
        if task == 'judge':
            result['judge'] = judge
        series.append(result | about_m | {'prompts_cut': n_cut})

    if not others:
        return series[0]
    series.sort(key=lambda result: result['step'] or 0)
    results.print_table(task, {result['ckpt']: results.shown(result) for result in series})
    return {'series': series}


# --- 5. what has been learned, at four levels: characters, words, lines, speeches ---------------------------
def measure_learned():
    """{checkpoint, untrained or corpus: shares in n texts of it}"""
    n = max(32, num_samples)
    beginning = {'task': 'learned', 'prompt': ''}       # of a document
    bins = prepared_bins(data_dir.split(',')[0])
    words, beginnings = texts.vocabulary(bins.values(), tokenizer)      # val knows its own, too

    written = {}                        # name -> texts
    for m, about_m in models(random_init):
        answers, _ = ask(m, [beginning], n, learned_temperature, False)
        written[about_m['ckpt']] = answers[0]
    written['corpus'] = texts.excerpts(bins['val'], tokenizer, n, max_new_tokens)
    levels = {name: texts.levels(some, words, beginnings) for name, some in written.items()}
    results.print_table(f'of {n} texts, share of', levels)
    return levels


# --- 6. two models, problem by problem ----------------------------------------------------------------------
def compare_models():
    """What the model of --compare gained and lost beside that of --ckpt."""
    paths = [into if samples else folder, compare]          # samples: those of this run, if it has any
    paths = [path if path.endswith('.jsonl') else os.path.join(path, 'samples.jsonl') for path in paths]
    a, b = [results.by_problem(records.read_jsonl(path, dict, 'eval.py writes it'), path)
            for path in paths]
    result = results.compare(a, b) | {'with': compare, 'gain': results.gains(a, b, problems.KINDS)}
    print(results.describe(result))
    return result


# --- 7. all of it -------------------------------------------------------------------------------------------
if 'loss' in all_tasks:
    measured['tasks']['loss'] = measure_loss()
for task in answered:
    measured['tasks'][task] = score(task)
if 'learned' in all_tasks:
    measured['tasks']['learned'] = measure_learned()
if 'compare' in all_tasks:
    measured['tasks']['compare'] = compare_models()

with open(f'{out}.tmp', 'w', encoding='utf-8', newline='\n') as f:
    json.dump(measured, f, indent=1)
os.replace(f'{out}.tmp', out)
print(f'\nwritten to {out}')
if model:
    # a checkpoint alone was evaluated with the tokenizer of data_dir, and sample.py has no data_dir
    beside = os.path.join(checkpoints.folder_of(ckpt), 'tokenizer.json')
    copy = '' if os.path.exists(beside) else shlex.join(['cp', tokenizer_path, folder or '.']) + ' && '
    chat_flag = ' --chat=True' if about['chat'] else ''
    print(f'next: {copy}python sample.py --ckpt={shlex.quote(ckpt)}{chat_flag}')
