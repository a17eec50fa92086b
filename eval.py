"""
Evaluation: how good a checkpoint is, measured on held-out data, with confidence intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --k=1,8 \\
        --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=gsm8k,own --data=gsm8k_test.jsonl,own.jsonl
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose   # which is better at what
    python eval.py --tasks=compare --ckpt=out/sft --compare=out/dpo --out=out/dpo/compare.json

loss            nats, perplexity and bits per byte of val.bin, and of each source of a mixture
problems        functions of extras/problems.py, which the model writes and we run: n_problems
                of each of four splits
    variation           new variations of the example tasks, which sft.py shows with answers:
                        "Compute the sum of all numbers in a."
    feedback_variation  new variations of the practice tasks, which DPO, RL and rejection sampling
                        practice on, without answers: "Return x after these steps: drop its
                        first character, then reverse it."
    cell                unseen combinations of known steps: "Return a list of the doubles of the odd
                        numbers in values."
    family              unseen tasks: "Return whether any number in data is greater than 6."
humaneval, mbpp other functions to write, from a file in the layout of HumanEval or MBPP
gsm8k           the last number of the answer must be the one behind #### in the file
own             your questions: {"prompt": "2 + 2?", "regex": "4"}; see docs/measuring.md
judge           questions, such as the first turns of MT-Bench, graded 1 to 10 by a command, --judge
learned         do texts that the model writes look like texts of val.bin? For both, the fraction of
                characters that are white space or punctuation; of words, and of first words of
                lines, that occur in the data; of paragraphs that begin with NAME: as in a play
compare         problems gained and lost between two samples.jsonl

Choose the measure before you train. Of twenty measures that did not change, about one leaves its
95% interval by chance, and whoever chooses afterwards takes that one for progress.

Perplexity, e^nats, is the number of equally likely tokens that the model hesitates between. Bits
per byte can be compared between tokenizers. pass@k is the chance that at least one of k answers
passes.

eval.py writes eval.json and samples.jsonl (every completion) next to the checkpoint. The file of
--completions may be a samples.jsonl of another call, which must not be replaced. So with
--completions=a/samples.jsonl it writes a/scored/eval.json and a/scored/samples.jsonl.
"""
import collections, glob, json, math, os, re, shlex
from typing import Literal
from configurator import Mistake, configure
import numpy as np
import torch
from tqdm import tqdm
from model import GPT
from parts.model import checkpoints
from parts.prepare import texts
from parts.train import processes
from parts.train.data import open_bins, sequences
from parts.sample import asking
from parts.eval import questions, results

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
ckpt = 'out/base'               # checkpoint: a folder or a .pt file; several: A,B or A/*.pt
tasks = 'loss'                  # names from the list above, comma-separated
data_dir = 'data/quickstart'    # prepared text for loss and learned; several: A,B
data: str | None = None         # questions: a .jsonl or .jsonl.gz file; of several tasks: A,B
allow_code_execution = False    # True: run a model's programs; first read extras/sandbox.py
out: str | None = None          # file for the results; None = eval.json, see above
# questions
n_problems: int | None = None   # questions; None = 100 of each split, or a whole file
splits = 'variation,feedback_variation,cell,family'     # see the top; also SPLITS in problems.py
problems_seed = 0               # seed of the problems of these splits
completions: str | None = None  # answers to score without a model: {"task_id", "completion"} lines
compare = ''                    # samples.jsonl of a second model, or its folder
judge = ''                      # command that gets JSON on stdin and prints a grade
# answers
num_samples = 1                 # answers to a question; learned writes at least 32
k = '1'                         # answers drawn for pass@k, at most num_samples; several: 1,10,100
temperature: float | None = None    # 0 = the likeliest token; None = 0 for 1 answer, else 0.8
top_k = 0                       # number of likeliest tokens to draw from; 0 = all
top_p = 1.0                     # probability of the likeliest tokens to draw from; 1 = all
max_new_tokens = 256            # tokens of an answer
chat: bool | None = None        # ask in a conversation; None = as the checkpoint was taught
timeout = 3.0                   # seconds for a program
memory_mb = 512                 # MB for a program
# loss and learned
random_init = True              # measure an untrained model, too
loss_tokens = 0                 # tokens to measure, from the beginning; 0 = all
# machine
batch_size = 16                 # sequences per forward pass
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'  # for answers; auto = bfloat16 on GPUs
seed = 1337                     # seed of the untrained model and of answers
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'n_problems': (1, 1e9), 'num_samples': (1, 10000), 'top_p': (1e-9, 1),
          'max_new_tokens': (1, 1e6), 'timeout': (0.01, 86400), 'memory_mb': (1, 1e9),
          'batch_size': (1, 1e6), 'seed': (0, 2 ** 32 - 1)}
config = configure(globals(), BOUNDS)

# --- 1. what is measured: the loss, pass@k, its interval, the difference of two models ------------
# Sections 2 and 3 set the names that these functions use, such as device. The first call is below.
@torch.no_grad()
def exact_loss(model, ids, block_size):
    """Return (nats, n): the summed loss of the n tokens ids[1:]. Each is predicted once, from its
    block so far. Of 11 ids and blocks of 4, 10 tokens are predicted, in blocks of 4, 4 and 2:

        x   0 1 2 3 | 4 5 6 7 | 8 9         y   1 2 3 4 | 5 6 7 8 | 9 10

    A block sees no other block, so batch_size changes the loss by rounding only."""
    n = len(ids) - 1
    n_last = n % block_size         # tokens of the last block if it is a short one, 2 above
    starts = range(0, n - n_last, block_size)               # of the full blocks: 0 and 4
    batches = [starts[i:i + batch_size] for i in range(0, len(starts), batch_size)]
    if n_last:
        batches.append([n - n_last])                        # a batch of its own: [8]
    nats = 0.0
    for batch in tqdm(batches, 'loss', disable=None):
        length = min(block_size, n - batch[0])              # of the short block 10 - 8 = 2
        x, y = sequences(ids, batch, length)                # (B, T) each
        _, loss = model(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
        nats += loss.item() * y.size
    return nats, n


def pass_at_k(n, c, k):
    """Return the chance that at least one of k completions passes, if k of n are drawn and c of the
    n pass (Chen et al. 2021, arXiv:2107.03374, eq. 1). pass_at_k(4, 1, 2) -> 0.5.
    pass_at_k(10, 3, 5) -> 0.917. With p = 3/10, 1 - (1 - p)^5 would say 0.832. That is too low on
    average, because it may draw a failed answer twice: k different answers are drawn, without
    putting one back."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def interval(scores):
    """Return the 95% interval of a pass rate. scores: of each problem the fraction of its answers
    that pass, 0 to 1.
    interval([1] * 8 + [0] * 2) -> [0.49, 0.94]: ten problems say little. Half of 200 problems gives
    [0.43, 0.57], half of 800 [0.47, 0.53]: four times the problems halve the width."""
    n = max(1, len(scores))
    p = sum(scores) / n
    # Wilson 1927. A measured rate p is within 1.96 standard errors of the true rate q 95% of the
    # time, and the error is sqrt(q (1 - q) / n). So the interval has each q from which p is that
    # close. Its ends solve (p - q)^2 = w q (1 - q) with w = 1.96^2 / n, a quadratic equation. Of
    # ten problems that all pass, it is [0.72, 1]. The error at p itself would be 0 there, and the
    # interval [1, 1], as if ten problems proved it. Fractions such as 0.25 vary less than the 0 and
    # 1 of single answers, so the interval is then a little too wide.
    w = 1.96 ** 2 / n
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


def compare_models():
    """Return what the model of --compare gained and lost, compared with that of --ckpt. Both
    answered the same problems, and what is hard for one is hard for the other. With 0.9, 0.5, 0.1
    before and 1.0, 0.7, 0.2 after, the scores of one model lie far apart, so the intervals of both
    are wide and overlap. But the problems gained 0.1, 0.2, 0.1: how hard each is cancels in its
    difference, whose interval is narrow."""
    # The answers of this run, or, if it asked nothing, those next to the checkpoint.
    before, after = results.read(out_folder if samples else run_folder), results.read(compare)
    result = results.compare(before, after, interval)
    results.print_comparison(result)
    return result


# --- 2. the questions -----------------------------------------------------------------------------
# All questions have one form. This one is from GSM8K, and its rule is: the last number must be 13.
#     {'task_id': 'gsm8k/0',
#      'messages': [{'role': 'user', 'content': 'Janet has 16 eggs and eats 3. How ...?'}],  # chat
#      'prompt': 'Question: Janet has 16 eggs and eats 3. How ...?\nAnswer:',         # base model
#      'ends': ...,                         # a pattern: where the answer of a base model ends
#      'rules': [('answer', '16 - 3 = 13\n#### 13')],      # what is checked in the answer's text
#      'tests': '', 'entry_point': '', 'solution': ''}      # of programs: what is run
# If the question is a function to complete, 'rules' is [] and 'tests' a program, such as
# 'assert add(1, 2) == 3'.
all_tasks = [*dict.fromkeys(tasks.split(','))]      # each once
files = data.split(',') if data else []
# {task: its questions}. The tasks loss, learned and compare ask none.
asked = questions.of_tasks(all_tasks, files, n_problems, problems_seed, splits.split(','))
measures_text = 'loss' in all_tasks or 'learned' in all_tasks
for name in 'judge', 'compare':
    if (name in all_tasks) != bool(config[name]):
        raise Mistake(f"--tasks={name} and --{name} need each other, for example --judge='python "
                      "ask.py' or --compare=out/dpo; see docs/measuring.md")
if any(map(questions.tested, asked.values())) and not allow_code_execution:
    raise Mistake('these tasks run programs that the model wrote; first read the top of '
                  'extras/sandbox.py, then add --allow_code_execution=True')
if completions and measures_text:
    raise Mistake('--completions needs no model, but --tasks=loss and learned do; leave them out')
# int() raises its own error for thousands of digits.
if not re.fullmatch(r'[1-9]\d{0,8}(,[1-9]\d{0,8})*', k):
    raise Mistake(f'{k=!r:.80} must be positive integers below a billion, such as '
                  '1,10,100')
ks = sorted({1, *map(int, k.split(','))})       # always with 1: the interval is that of pass@1
if ks[-1] > num_samples and not completions:
    raise Mistake(f'pass@{ks[-1]} needs --num_samples={ks[-1]} or more; {num_samples=}')

# --- 3. the checkpoints, the held-out text, and where the results go ------------------------------
paths = []
for pattern in ckpt.split(','):
    paths += sorted(glob.glob(pattern)) or [pattern]        # such as out/sft/*.pt
if len(paths) > 1 and compare:
    raise Mistake(f'--compare takes one --ckpt, not {len(paths)}')
if completions and not asked:
    raise Mistake(f'--tasks={tasks} grades no answers, so leave --completions out')
run_folder = checkpoints.folder_of(completions or paths[0])     # of a file: the one it is in
out = out or os.path.join(run_folder, 'scored' if completions else '', 'eval.json')
out_folder = os.path.dirname(os.path.abspath(out))
# A call that asks questions writes a samples.jsonl, which must not replace a file that it reads.
inputs = [*files, completions, compare and results.path_of(compare)] if asked else []
results.check_out(out, inputs)
for path in [] if completions else paths:       # a mistake in the last one shows now
    if not os.path.exists(path):
        checkpoints.find(path, 'ckpt')          # says which ones do, or how to make one
# {folder: (meta.json, {'train': ids, 'val': ids, ...}, what identifies the data)}
held_out = {folder.rstrip('/'): open_bins(folder, 1)
            for folder in data_dir.split(',') if measures_text}

device, best_dtype = processes.choose(device, dtype)
kind = torch.device(device).type
if dtype == 'auto' and kind == 'cpu':       # choose() takes bfloat16 on some CPUs
    best_dtype = 'float32'
autocast = torch.autocast(kind, getattr(torch, best_dtype), enabled=best_dtype != 'float32')
torch.set_float32_matmul_precision('highest')       # no TF32: the loss is exact


def open_checkpoint(path):
    """Return (model, tokenizer, metadata). metadata: what eval.json says of the checkpoint."""
    model, tokenizer, state = checkpoints.open_to_sample(path, device, continues=True)
    for folder, (meta, *_) in held_out.items():
        checkpoints.same_tokenizer(path, tokenizer.hash, folder, meta['tokenizer_hash'],
                                   'prepare it with --tokenizer='
                                   f'{checkpoints.folder_of(path)}/tokenizer.json')
    is_tuned = 'stage' in state.get('config', {})       # by sft.py, dpo.py or rl.py
    metadata = {'ckpt': path, 'step': state.get('step'), 'tokenizer_hash': tokenizer.hash,
                'chat': is_tuned if chat is None else chat}
    return model.eval(), tokenizer, metadata


# The first checkpoint is opened now, so that a mistake shows at once and not after an hour. Answers
# that are in a file, and two files that are compared, need no model.
if completions or all_tasks == ['compare']:
    del paths[1:]
    if chat is None and completions:
        chat = results.are_replies(completions)
    only = None, None, {'ckpt': None, 'step': None, 'chat': chat}
else:
    only = open_checkpoint(paths[0])
tokenizer, metadata = only[1:]
# A single checkpoint stays open for all tasks. Of several, each is opened when it is its turn,
# because all of them might not fit into memory.
if len(paths) > 1:
    only = None


def models(untrained=False):
    """Yield (model, tokenizer, metadata) of each checkpoint; then, if asked for, of an untrained
    model that has the last one's shape and tokenizer."""
    for path in paths:
        model, tokenizer, metadata = only or open_checkpoint(path)
        yield model, tokenizer, metadata
    if untrained:
        torch.manual_seed(seed)
        yield GPT(model.config).to(device).eval(), tokenizer, {'ckpt': 'untrained', 'chat': False}


# The benchmarks that prepare.py took out of the training data, if it did.
decontaminated = questions.read_decontaminated(run_folder)
# What becomes eval.json. Each task adds to 'tasks', and running programs 'confined', 'left_out'.
report = {**metadata, 'settings': config, 'decontaminated': decontaminated,
          'data': {folder: identity for folder, (_, _, identity) in held_out.items()}, 'tasks': {}}
if asked:
    print(f'contamination: {questions.searched(decontaminated)}')
# A folder in which nothing can be written is a mistake that shows here. The file is eval.json.tmp
# until it is complete.
os.makedirs(out_folder, exist_ok=True)
report_file = open(f'{out}.tmp', 'w', encoding='utf-8', newline='\n')


# --- 4. the loss of each checkpoint on each text --------------------------------------------------
def measure_loss():
    """Return {name: its losses}, such as {'trained': {'nats': 1.25, ...}, 'untrained': ...}. With
    several checkpoints, a name is the path of one. With more than one val.bin, it ends with the
    data: 'trained_web' is a source of a mixture, 'trained_data/code val' one of several folders."""
    losses = {}
    for model, tokenizer, metadata in models(random_init):
        name = metadata['ckpt']         # a path, or 'untrained'
        if paths == [name]:             # it is the only checkpoint
            name = 'trained'
        text_bytes = np.array(tokenizer.text_bytes)     # of each token; of specials 0
        for folder, (_, bins, _) in held_out.items():
            for side, ids in bins.items():
                if side == 'train':
                    continue
                ids = ids[:loss_tokens + 1] if loss_tokens else ids
                nats, n = exact_loss(model, ids, model.config.block_size)
                n_bytes = int(text_bytes[np.asarray(ids[1:])].sum())
                text = side.removeprefix('val_')        # 'val', or a source such as 'web'
                if len(held_out) > 1:
                    text = f'{folder} {text}'           # 'data/code val'
                losses[name if text == 'val' else f'{name}_{text}'] = {
                    'nats': nats / n,
                    'perplexity': math.exp(min(700, nats / n)),             # else it overflows
                    'bits_per_byte': nats / math.log(2) / max(1, n_bytes),
                    'tokens': n, 'bytes': n_bytes}
    results.print_table('loss', losses)
    return losses


# --- 5. a task: ask, run, count -------------------------------------------------------------------
samples = []        # every completion with its outcome, of all tasks and checkpoints


def ask(model, tokenizer, prompts, n, ends=None):
    """Return n answers to each prompt. ends: a pattern, where an answer ends even if the model goes
    on."""
    used_temperature = temperature
    if used_temperature is None:        # one answer: the likeliest; several have to differ
        used_temperature = 0.0 if n == 1 else 0.8
    with autocast:
        answers, n_cut = asking.generate(model, tokenizer, prompts, n, max_new_tokens, seed,
                                         batch_size, ends, temperature=used_temperature,
                                         top_k=top_k, top_p=top_p)
    if n_cut:
        print(f'{n_cut} prompts are longer than the context; the model saw only their ends')
    return answers


def run(jobs):
    """Yield the result of each program with its tests, in order. Each runs in a process that is
    stopped after `timeout` seconds and gets memory_mb (macOS does not enforce it). On Linux it gets
    no network, writes only to a folder of its own, reads no files but those of Python and the
    system's libraries, and stops no other program; an old kernel lacks some of these walls, and
    macOS all. That is no security boundary: for a stranger's model take a container. See
    extras/sandbox.py."""
    from extras import sandbox
    return sandbox.run_many(jobs, timeout, memory_mb)


def grade(task, problems, answers, metadata):
    """Return the rows of samples.jsonl for the answers to some questions."""
    cases = [(question, text) for question, several in zip(problems, answers) for text in several]
    rows = [questions.row_of(task, question, text, metadata) for question, text in cases]
    samples.extend(rows)
    # 1. A job is a program with its tests, or None: answers in words and empty ones don't run.
    jobs = [questions.job(question, text, metadata['chat']) for question, text in cases]
    # 2. The programs run in parallel. Their results come in the order of the jobs.
    finished = run([job for job in jobs if job])
    # 3. Each row gets its outcome: from a judge, from what its program did, or from rules.
    try:
        for row, job, case in zip(tqdm(rows, 'grade', disable=None), jobs, cases):
            if task == 'judge':
                row |= questions.judged(judge, *case)
            else:
                row |= questions.outcome(*case, next(finished) if job else None)
    finally:            # so that no answer is lost if a judge cannot be asked
        # All rows so far, because appending would add to the file of an earlier run.
        with open(f'{out_folder}/samples.jsonl', 'w', encoding='utf-8') as f:
            f.writelines(json.dumps(row) + '\n' for row in samples)
    lost = [row['message'] for row in rows if row['outcome'] == 'infrastructure']
    if len(lost) > len(rows) / 50:
        raise Mistake(f'no score of {task}: {len(lost)}/{len(rows)} could not be graded: '
                      f'{lost[-1]}')
    return rows


def summarise(rows, ks):
    """Return pass@k and the interval of pass@1 of rows of samples.jsonl, or a judge's mean grade
    and its interval. Answers that could not be graded do not count. pass@k is the mean over
    problems with at least k graded answers."""
    # {'passed': 120, 'wrong': 60, ...}, and why answers failed: {'wrong value': 60, ...}
    outcomes = collections.Counter(row['outcome'] for row in rows)
    failures = collections.Counter(filter(None, map(questions.why_failed, rows)))
    # {'cell-0/3': [1, 0, 1, 1], ...}: what each answer to a problem is worth, 0 to 1
    groups = collections.defaultdict(list)
    for row in rows:
        if row['outcome'] != 'infrastructure':
            groups[row['task_id']].append(results.worth(row))
    means = [sum(group) / len(group) for group in groups.values()]
    n_samples = len(rows) - outcomes['infrastructure']
    result = {'n': len(groups), 'samples': n_samples, 'outcomes': dict(outcomes),
              'failures': dict(failures.most_common()), 'interval': interval(means)}
    if 'score' in rows[0]:
        # A judge's grades from 1 to 10 became 0 to 1 in results.worth(). Here they become grades
        # again: 0.5 is 5.5.
        grade_of = lambda x: 1 + 9 * x
        return result | {'score': grade_of(sum(means) / max(1, len(means))),
                         'interval': [*map(grade_of, results.bootstrap(means, interval))]}

    for k in ks:
        chances = [pass_at_k(len(group), sum(group), k) for group in groups.values()
                   if len(group) >= k]
        result[f'pass@{k}'] = sum(chances) / max(1, len(chances))
    if any('preferred' in row for row in rows):     # answers that are programs
        result['parse_rate'] = 1 - (outcomes['syntax'] + outcomes['empty']) / max(1, n_samples)
    return result


def score(task):
    """Return the result of a task; of several checkpoints {'series': their results, by step}."""
    problems = asked[task]
    if questions.tested(problems):      # first run answers that are known to be right or wrong
        left_out, report['confined'] = questions.check_harness(problems, run)
        report['left_out'] = report.get('left_out', []) + left_out
        problems = [question for question in problems if question['task_id'] not in left_out]

    series = []
    for model, tokenizer, metadata in models():
        if completions:
            answers = questions.given_answers(task, problems, completions, ks[-1])
        else:
            form, ends = 'messages', None
            if not metadata['chat']:    # a base model doesn't know where to stop, so a pattern says
                form, ends = 'prompt', problems[0]['ends']
            prompts = [question[form] for question in problems]
            answers = ask(model, tokenizer, prompts, num_samples, ends)
        rows = grade(task, problems, answers, metadata)
        result = summarise(rows, ks) | metadata
        if task == 'problems':
            result['by_split'] = {
                split: summarise([row for row in rows if row['split'] == split], ks)
                for split in sorted({row['split'] for row in rows})}
        series.append(result)
    series.sort(key=lambda result: result['step'] or 0)
    results.print_scores(task, series)
    return series[0] if len(series) == 1 else {'series': series}


# --- 6. what has been learned, at four levels: characters, words, lines, speeches -----------------
def measure_learned():
    """Return {name: {'space': 0.21, 'words': 0.97, ...}} of each checkpoint, 'untrained' and the
    corpus."""
    n = max(32, num_samples)
    # {name: n texts}: an empty prompt asks for the beginning of a document.
    written = {metadata['ckpt']: ask(model, tokenizer, [''], n)[0]
               for model, tokenizer, metadata in models(random_init)}
    _, bins, _ = next(iter(held_out.values()))
    written['corpus'] = texts.excerpts(bins['val'], tokenizer, n, max_new_tokens)
    words, beginnings = texts.vocabulary(bins.values(), tokenizer)      # val knows its own, too
    levels = {name: texts.levels(some, words, beginnings) for name, some in written.items()}
    results.print_table(f'of {n} texts, fraction of', levels)
    return levels


# --- 7. all of it ---------------------------------------------------------------------------------
measures = {'loss': measure_loss, 'learned': measure_learned, 'compare': compare_models}
for task in sorted(all_tasks, key=questions.TASKS.index):
    report['tasks'][task] = measures[task]() if task in measures else score(task)
with report_file:
    json.dump(report, report_file, indent=1)
os.replace(f'{out}.tmp', out)
print(f'\nwritten to {out}')
if tokenizer:
    asking_in_chat = ' --chat=True' if metadata['chat'] else ''
    print(f'next: python sample.py --ckpt={shlex.quote(paths[0])}{asking_in_chat}')
